//! Access and property flags (JVMS tables 4.1-B, 4.5-A, 4.6-A).

/// Visible everywhere.
pub const PUBLIC: u16 = 0x0001;
/// Visible in the class and its nest.
pub const PRIVATE: u16 = 0x0002;
/// Visible in the package and to subclasses.
pub const PROTECTED: u16 = 0x0004;
/// Of the class, not of an instance.
pub const STATIC: u16 = 0x0008;
/// Not extended, overridden or assigned again.
pub const FINAL: u16 = 0x0010;
/// Class: `invokespecial` selects from the superclass. Without meaning today.
pub const SUPER: u16 = 0x0020;
/// Method: runs with the monitor held.
pub const SYNCHRONIZED: u16 = 0x0020;
/// Field: not cached.
pub const VOLATILE: u16 = 0x0040;
/// Method: made by the compiler to call another.
pub const BRIDGE: u16 = 0x0040;
/// Field: not part of the persistent state.
pub const TRANSIENT: u16 = 0x0080;
/// Method: takes a variable number of arguments.
pub const VARARGS: u16 = 0x0080;
/// Method: not written in Java.
pub const NATIVE: u16 = 0x0100;
/// An interface.
pub const INTERFACE: u16 = 0x0200;
/// Without an implementation, or not to be instantiated.
pub const ABSTRACT: u16 = 0x0400;
/// Method: strict floating point.
pub const STRICT: u16 = 0x0800;
/// Not in the source.
pub const SYNTHETIC: u16 = 0x1000;
/// An annotation interface.
pub const ANNOTATION: u16 = 0x2000;
/// An enum class or constant.
pub const ENUM: u16 = 0x4000;
/// Not a class but a module descriptor.
pub const MODULE: u16 = 0x8000;

/// The flags that mean something for a class.
pub const CLASS: u16 = PUBLIC | FINAL | SUPER | INTERFACE | ABSTRACT | SYNTHETIC | ANNOTATION | ENUM;
/// The flags that mean something for a field.
pub const FIELD: u16 = PUBLIC | PRIVATE | PROTECTED | STATIC | FINAL | VOLATILE | TRANSIENT | SYNTHETIC | ENUM;
/// The flags that mean something for a method.
pub const METHOD: u16 = PUBLIC
    | PRIVATE
    | PROTECTED
    | STATIC
    | FINAL
    | SYNCHRONIZED
    | BRIDGE
    | VARARGS
    | NATIVE
    | ABSTRACT
    | STRICT
    | SYNTHETIC;

/// Whether `flags` name more than one of public, private and protected.
pub(crate) fn has_two_visibilities(flags: u16) -> bool {
    (flags & (PUBLIC | PRIVATE | PROTECTED)).count_ones() > 1
}
