//! The RISC-V engine: instruction table, hart, MMU, interpreter, board.

pub mod float;
