//! The RISC-V engine: instruction table, hart, MMU, interpreter, board.

pub mod board;
pub mod fdt;
pub mod float;
pub mod hart;
pub mod interpreter;
pub mod isa;
pub mod loader;
pub mod map;
pub mod mmu;
pub mod sbi;
pub mod translate;
