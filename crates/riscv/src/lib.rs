//! The RISC-V engine: instruction table, MMU, hart with its interpreter and translator, board.

pub mod board;
pub mod fdt;
pub mod float;
pub mod hart;
pub mod isa;
pub mod loader;
pub mod map;
pub mod mmu;
pub mod sbi;

pub use hart::{interpreter, translate};
