//! Fields.

use classfile::flags;

use super::BasicType;
use crate::arena::MetaSlice;
use crate::symbol::Symbol;

/// A field of a class.
#[derive(Debug)]
#[repr(C)]
pub struct Field {
    /// Its name.
    pub name: Symbol,
    /// Its descriptor.
    pub descriptor: Symbol,
    /// Flags of the class file.
    pub flags: u16,
    /// What it holds.
    pub kind: BasicType,
    /// Whether the virtual machine added it, so that reflection does not show it.
    pub injected: bool,
    /// Whether it is trusted to be constant although it is set by reflection (`@Stable` and the like do not count).
    pub trusted_final: bool,
    /// Byte offset in the instance, or in the class's mirror if it is static.
    pub offset: u32,
    /// The generic signature.
    pub signature: Option<Symbol>,
    /// `RuntimeVisibleAnnotations`.
    pub annotations: MetaSlice<u8>,
    /// `RuntimeVisibleTypeAnnotations`.
    pub type_annotations: MetaSlice<u8>,
}

impl Field {
    /// Whether it belongs to the class.
    pub fn is_static(&self) -> bool {
        self.flags & flags::STATIC != 0
    }

    /// Whether it may only be assigned by initialisers.
    pub fn is_final(&self) -> bool {
        self.flags & flags::FINAL != 0
    }
}
