//! Making objects and arrays.

use std::sync::OnceLock;

use crate::access::Value;
use crate::arena::Meta;
use crate::exceptions;
use crate::heap::{Heap, HeapError, Options, Refusal};
use crate::known;
use crate::loader;
use crate::metadata::{BasicType, Class};
use crate::object::Reference;
use crate::thread::{Result, Thread};

static HEAP: OnceLock<Heap> = OnceLock::new();

/// The heap.
#[inline(always)]
pub fn heap() -> &'static Heap {
    // SAFETY: set before the first thread runs, which `start` is told to do.
    unsafe { HEAP.get().unwrap_unchecked() }
}

/// Makes the heap, before anything is allocated.
///
/// # Errors
/// If its address space is taken or the sizes make no sense.
pub fn start(options: Options) -> std::result::Result<(), HeapError> {
    let _ = HEAP.set(Heap::new(options)?);
    Ok(())
}

/// An instance with all fields zero. The class is initialised, or being so. May collect.
#[inline(always)]
pub fn instance(thread: &mut Thread, class: Meta<Class>) -> Result<Reference> {
    debug_assert!(class.shape.size > 0, "only instance classes have instances");
    match thread.buffer.instance(class.offset(), class.shape.size as usize) {
        Some(object) => Ok(object),
        None => instance_slow(thread, class),
    }
}

#[inline(never)]
fn instance_slow(thread: &mut Thread, class: Meta<Class>) -> Result<Reference> {
    retry(thread, |thread| heap().instance(&mut thread.buffer, class.offset()))
}

/// The mirror of a class. May collect.
pub fn mirror(thread: &mut Thread, class: Meta<Class>) -> Result<Reference> {
    retry(thread, |_| heap().mirror(known::class().offset(), class.offset()))
}

/// Allocates, collecting as often as that helps.
fn retry(
    thread: &mut Thread,
    mut allocate: impl FnMut(&mut Thread) -> std::result::Result<Reference, Refusal>,
) -> Result<Reference> {
    loop {
        match allocate(thread) {
            Ok(object) => return Ok(object),
            Err(Refusal::TooLong) => {
                let message = "Requested array size exceeds VM limit";
                exceptions::react_to_no_memory(thread, message);
                return Err(exceptions::throw(thread, "java/lang/OutOfMemoryError", message));
            }
            Err(Refusal::Full(request)) => {
                if crate::roots::make_room(thread, request).is_err() {
                    exceptions::react_to_no_memory(thread, "Java heap space");
                    return Err(exceptions::out_of_memory(thread));
                }
            }
        }
    }
}

/// An array with all elements zero, of an array class. May collect.
///
/// # Errors
/// OutOfMemoryError. The length is not negative.
#[inline(always)]
pub fn array(thread: &mut Thread, class: Meta<Class>, length: u32) -> Result<Reference> {
    match heap().array(&mut thread.buffer, class.offset(), length) {
        Ok(array) => Ok(array),
        Err(_) => retry(thread, |thread| heap().array(&mut thread.buffer, class.offset(), length)),
    }
}

/// An array of numbers. May collect.
pub fn primitive_array(thread: &mut Thread, kind: BasicType, length: u32) -> Result<Reference> {
    array(thread, loader::primitive_array_class(kind), length)
}

/// An array of `byte` with these elements. May collect.
pub fn byte_array(thread: &mut Thread, bytes: &[u8]) -> Result<Reference> {
    filled(thread, BasicType::Byte, bytes)
}

/// An array of numbers with these elements. May collect.
pub fn filled<T: Value>(thread: &mut Thread, kind: BasicType, values: &[T]) -> Result<Reference> {
    let Ok(length) = u32::try_from(values.len()) else { return Err(exceptions::out_of_memory(thread)) };
    let array = primitive_array(thread, kind, length)?;
    for (index, &value) in (0..length).zip(values) {
        array.set_element(index, value);
    }
    Ok(array)
}

/// An array of references to instances of `element`. May collect.
pub fn reference_array(thread: &mut Thread, element: Meta<Class>, length: u32) -> Result<Reference> {
    let class = loader::array_class(thread, element)?;
    array(thread, class, length)
}

/// An array of `Object`. May collect.
pub fn object_array(thread: &mut Thread, length: u32) -> Result<Reference> {
    reference_array(thread, known::object(), length)
}
