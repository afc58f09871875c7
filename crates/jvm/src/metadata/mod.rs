//! Classes, methods, fields and constant pools as linking leaves them, in the metadata arena.

mod class;
mod field;
mod method;
mod pool;

pub use class::{Class, ClassState, DISPLAY, InnerClass, ItableEntry, LinkSlice, RecordComponent};
pub use field::Field;
pub use method::{Entry, Handler, LineNumber, Method, extra};
pub use pool::{CallSite, FieldEntry, MethodEntry, Pool, PoolEntry, Tag};

/// What a field or an array element holds (JVMS table 6.5.newarray-A for the numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BasicType {
    /// `boolean`
    Boolean = 4,
    /// `char`
    Char = 5,
    /// `float`
    Float = 6,
    /// `double`
    Double = 7,
    /// `byte`
    Byte = 8,
    /// `short`
    Short = 9,
    /// `int`
    Int = 10,
    /// `long`
    Long = 11,
    /// A reference.
    Reference = 12,
    /// `void`, of methods only.
    Void = 14,
}

impl BasicType {
    /// Those that primitive classes exist for.
    pub const PRIMITIVES: [Self; 9] = [
        Self::Boolean,
        Self::Char,
        Self::Float,
        Self::Double,
        Self::Byte,
        Self::Short,
        Self::Int,
        Self::Long,
        Self::Void,
    ];

    /// By the first character of a descriptor.
    pub fn of(descriptor: u8) -> Self {
        match descriptor {
            b'Z' => Self::Boolean,
            b'C' => Self::Char,
            b'F' => Self::Float,
            b'D' => Self::Double,
            b'B' => Self::Byte,
            b'S' => Self::Short,
            b'I' => Self::Int,
            b'J' => Self::Long,
            b'V' => Self::Void,
            _ => Self::Reference,
        }
    }

    /// The descriptor's character.
    pub fn letter(self) -> u8 {
        match self {
            Self::Boolean => b'Z',
            Self::Char => b'C',
            Self::Float => b'F',
            Self::Double => b'D',
            Self::Byte => b'B',
            Self::Short => b'S',
            Self::Int => b'I',
            Self::Long => b'J',
            Self::Reference => b'L',
            Self::Void => b'V',
        }
    }

    /// The name of the type in Java.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Char => "char",
            Self::Float => "float",
            Self::Double => "double",
            Self::Byte => "byte",
            Self::Short => "short",
            Self::Int => "int",
            Self::Long => "long",
            Self::Reference => "object",
            Self::Void => "void",
        }
    }

    /// Log2 of the size in bytes in fields and arrays.
    pub fn shift(self) -> u8 {
        match self {
            Self::Boolean | Self::Byte | Self::Void => 0,
            Self::Char | Self::Short => 1,
            Self::Float | Self::Int | Self::Reference => 2,
            Self::Double | Self::Long => 3,
        }
    }

    /// Slots of a frame.
    pub fn slots(self) -> u16 {
        match self {
            Self::Double | Self::Long => 2,
            Self::Void => 0,
            _ => 1,
        }
    }
}
