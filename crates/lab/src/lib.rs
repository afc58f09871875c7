//! Side-by-side comparisons of Isomorph with other implementations, from Debian's packages. Nothing depends on this crate.
//!
//! | module | what |
//! |---|---|
//! | [`elf`] | writes the ELF files that the others read |
//! | [`peer`] | finds and runs the other programs |
//! | [`case`] | many small experiments in one memory image |
//! | [`engine`] | runs such an image: on qemu, on Isomorph |
//! | [`program`] | makes random programs |
//! | [`differential`] | finds the programs on which the two differ |
//! | [`tiers`] | finds the programs on which the interpreter and the translator differ |

pub mod case;
pub mod differential;
pub mod elf;
pub mod engine;
pub mod peer;
pub mod program;
pub mod tiers;
