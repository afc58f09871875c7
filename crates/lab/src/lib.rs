//! Side-by-side comparisons of Isomorph with other implementations, from Debian's packages. Nothing depends on this crate.
//!
//! | module | what |
//! |---|---|
//! | [`elf`] | writes the ELF files that the others read |
//! | [`peer`] | finds and runs the other programs |

pub mod elf;
pub mod peer;
