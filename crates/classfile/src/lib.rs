//! Class files, jars and run-time images: strict parsing, without copying, and nothing else.
//!
//! ```text
//! lib/modules --> jimage::Image --+
//!                                 +--> bytes of a class --> ClassFile::parse --> ClassFile<'a>, which borrows the bytes
//! app.jar ------> jar::Jar -------+
//! ```
//!
//! What is here knows the formats and their rules (JVMS chapter 4), not what classes mean to each other: that is linking, which is the virtual
//! machine's. [`ClassFile::parse`] does all of format checking (JVMS 4.8), so that whoever holds a [`ClassFile`] may follow an index of it
//! without looking: constant-pool references have the kind that their place demands, names and descriptors are well formed, code ranges are
//! within the code. Not checked is the code itself, which is the verifier's.
//!
//! Errors carry the text that HotSpot gives, since programs and their tests compare it.
//!
//! Hostile input ends in an [`Error`], never in a panic, and costs time and memory in proportion to its length.

pub mod attributes;
pub mod bytes;
mod class;
mod code;
pub mod constants;
mod context;
mod error;
mod field;
pub mod flags;
pub mod jar;
pub mod jimage;
pub mod manifest;
mod method;
pub mod mutf8;
pub mod names;
pub mod opcode;

pub use class::{BootstrapMethod, ClassFile, InnerClass, Options, RecordComponent};
pub use code::{Code, ExceptionRange, LineNumber, LocalVariable};
pub use constants::{Constant, ConstantPool};
pub use error::Error;
pub use field::Field;
pub use method::{Method, MethodParameter};
