//! Verification of class files: what runs afterwards cannot break the machine's types (JVMS 4.10).
//!
//! ```text
//!                       +-- checking  (versions 50 and up): one pass, types at joins are in StackMapTable
//! ClassFile --> verify -+        | version 50 only: a class that fails has a second chance
//!                       +-- inference (versions up to 49): data flow until nothing changes, subroutines included
//!                                both do an instruction by the same `effects`
//! ```
//!
//! A verifier knows other classes by name only. What it must know of them it asks by [`Hierarchy`], which the class loader implements; an answer
//! may need a class to be loaded, and may fail as loading fails. Questions are asked when they matter and not before, since programs see which
//! classes are loaded.
//!
//! Both verifiers accept what HotSpot accepts, also where that differs from the letter of the specification: interfaces count as `Object`, and
//! exception handlers see the frame behind an instruction rather than before it unless it stores into a local variable.
//!
//! Cost: checking is linear in the code; inference visits an instruction again each time the types before it change, which the height of the
//! class hierarchy bounds.

mod checking;
mod constants;
mod effects;
mod frame;
mod inference;
mod invoke;
mod report;
mod stackmap;
mod types;

use classfile::ClassFile;

/// What verification asks of the class loader. Names are internal names of classes, never arrays.
pub trait Hierarchy {
    /// Why a class could not be loaded: the exception that linking ends with.
    type Failure;

    /// Whether a class is an interface. Loads it.
    ///
    /// # Errors
    /// If it cannot be loaded.
    fn is_interface(&mut self, class: &[u8]) -> Result<bool, Self::Failure>;

    /// Whether `class` is `other` or below it. Loads both.
    ///
    /// # Errors
    /// If one cannot be loaded.
    fn is_subclass(&mut self, class: &[u8], other: &[u8]) -> Result<bool, Self::Failure>;

    /// The name of the superclass of a class; `None` of `java.lang.Object`. Loads it.
    ///
    /// # Errors
    /// If it cannot be loaded.
    fn superclass(&mut self, class: &[u8]) -> Result<Option<Vec<u8>>, Self::Failure>;

    /// Whether a superclass of the class that is verified, not itself, has this name. They are loaded already.
    fn has_superclass(&mut self, name: &[u8]) -> bool;

    /// Whether looking for a field or method from `class` up finds one that is protected and declared in another run-time package than that of
    /// the class that is verified. Loads `class`. `false` if none is found: resolution will tell.
    ///
    /// # Errors
    /// If `class` cannot be loaded.
    fn is_protected_elsewhere(
        &mut self,
        class: &[u8],
        name: &[u8],
        descriptor: &[u8],
        kind: MemberKind,
    ) -> Result<bool, Self::Failure>;
}

/// What [`Hierarchy::is_protected_elsewhere`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A field.
    Field,
    /// A method.
    Method,
}

/// Why a class is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<F> {
    /// `java.lang.VerifyError` with this message.
    #[error("{0}")]
    Verify(String),
    /// `java.lang.ClassFormatError` with this message.
    #[error("{0}")]
    Format(String),
    /// A class that is needed to know could not be loaded.
    #[error("a class that verification needs cannot be loaded")]
    Load(F),
}

/// Why a method is refused, before it is known which.
#[derive(Debug)]
enum Problem<F> {
    /// What is wrong, and why in particular.
    Verify {
        message: String,
        reason: Option<String>,
        /// The frame of the stack map that the current frame does not fit.
        stackmap: Option<Box<stackmap::MapFrame>>,
    },
    /// A class format error that only shows with the code.
    Format(String),
    Load(F),
}

impl<F> Problem<F> {
    fn new(message: impl Into<String>) -> Self {
        Problem::Verify { message: message.into(), reason: None, stackmap: None }
    }

    fn because(message: impl Into<String>, reason: String) -> Self {
        Problem::Verify { message: message.into(), reason: Some(reason), stackmap: None }
    }
}

/// From this version on frames at joins are in the class file.
const STACK_MAPS: u16 = 50;

/// Verifies all methods of a class.
///
/// # Errors
/// The first thing wrong with it, worded as HotSpot words it.
pub fn verify<H: Hierarchy>(class: &ClassFile<'_>, hierarchy: &mut H) -> Result<(), Error<H::Failure>> {
    if class.major_version < STACK_MAPS {
        return inference::verify(class, hierarchy);
    }
    match checking::verify(class, hierarchy) {
        // Compilers of that time made wrong stack maps.
        Err(Error::Verify(_)) if class.major_version == STACK_MAPS => inference::verify(class, hierarchy),
        verdict => verdict,
    }
}
