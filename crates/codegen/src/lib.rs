//! Host code: the memory that it lives in, and an assembler for x86-64. What the code means is its users' affair.

pub mod arena;
pub mod x64;
