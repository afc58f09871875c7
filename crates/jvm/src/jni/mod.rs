//! The Java Native Interface (JNI 10): how C code and Java code call each other.
//!
//! ```text
//!  Java: native method --> downcall: arguments into registers and stack --> C function (env, receiver or class, ...)
//!                                                                              |
//!  Java <-- interpreter <-- calls, fields, arrays, ... <-- `running` <-- table of 234 functions
//! ```
//!
//! While C code runs its thread is safe: collections do not wait for it. Every function of the table makes the thread running, does its work, and makes it
//! safe again ([`environment::running`]). A critical array or string keeps its thread running until it is released, so that nothing moves meanwhile.
//!
//! A reference in C code is the address of 32 bits that the collector updates: of a handle or of an argument's slot (local), or of a slot of the global or
//! weak table ([`crate::handle`]). So all three are followed in the same way, and their address tells which they are. A method id is the method's address, a
//! field id that of a record of the field and its class; both live as long as the class.
//!
//! C code is trusted like the virtual machine itself: a wrong reference, id or descriptor is its error, and ends the process at worst. So libraries are only
//! loaded for programs that may do everything. Cost of a call into C and back: two locked instructions, and a few nanoseconds to sort the arguments.
//!
//! Argument passing and variable arguments are those of the System V ABI for x86-64.

mod arrays;
mod bind;
mod calls;
pub(crate) mod checks;
mod classes;
mod crash;
mod downcall;
mod environment;
mod errors;
mod fields;
mod helpers;
pub(crate) mod invocation;
mod memory;
mod natives;
mod references;
mod strings;
mod table;
mod variadic;

pub(crate) use bind::{find, forget as forget_functions};
pub use crash::report_crashes;
pub(crate) use environment::{Environment, free_environment};
pub(crate) use errors::{describe_pending, end_quietly, refuse_start};
pub(crate) use fields::forget as forget_fields;
pub(crate) use natives::{load_library, unload_library};
