//! Arrays: of references, and of numbers as copies, regions, or in place.

use std::ffi::c_void;

use super::checks::{self, Release};
use super::environment::{Boolean, Env, Int, Object, class, get, making, running, state, with_pending};
use super::memory;
use super::strings::tell;
use crate::access::Value;
use crate::allocate;
use crate::exceptions;
use crate::loader;
use crate::metadata::BasicType;
use crate::object::{ELEMENTS_OFFSET, Reference};
use crate::thread::{Result, Thread};

/// `JNI_COMMIT`: write back and keep the copy.
const COMMIT: Int = 1;
/// `JNI_ABORT`: do not write back.
const ABORT: Int = 2;

fn array(thread: &mut Thread, object: Object) -> Result<Reference> {
    match get(object) {
        array if array.is_null() => Err(exceptions::null_pointer(thread)),
        array => Ok(array),
    }
}

fn checked_length(thread: &mut Thread, length: Int) -> Result<u32> {
    u32::try_from(length)
        .map_err(|_| exceptions::throw(thread, "java/lang/NegativeArraySizeException", length.to_string()))
}

pub(super) extern "C" fn length(env: Env, object: Object) -> Int {
    running(env, 0, |thread| Ok(array(thread, object)?.length().cast_signed()))
}

pub(super) extern "C" fn new_objects(env: Env, length: Int, element: Object, initial: Object) -> Object {
    making(env, |thread| {
        let length = checked_length(thread, length)?;
        let class = loader::array_class(thread, class(element))?;
        let array = allocate::array(thread, class, length)?;
        let initial = get(initial);
        if !initial.is_null() {
            (0..length).for_each(|index| array.set_reference_element(index, initial));
        }
        Ok(array)
    })
}

fn checked_index(thread: &mut Thread, array: Reference, index: Int) -> Result<u32> {
    match u32::try_from(index) {
        Ok(index) if index < array.length() => Ok(index),
        _ => {
            let message = format!("Index {index} out of bounds for length {}", array.length());
            Err(exceptions::throw(thread, "java/lang/ArrayIndexOutOfBoundsException", message))
        }
    }
}

pub(super) extern "C" fn element(env: Env, object: Object, index: Int) -> Object {
    making(env, |thread| {
        let array = array(thread, object)?;
        let index = checked_index(thread, array, index)?;
        Ok(array.reference_element(index))
    })
}

pub(super) extern "C" fn set_element(env: Env, object: Object, index: Int, value: Object) {
    running(env, (), |thread| {
        let array = array(thread, object)?;
        let value = get(value);
        if !value.is_null()
            && let Some(element) = array.class().element
            && !value.class().is_subtype_of(element)
        {
            let mut bottom = element;
            while let Some(inner) = bottom.element {
                bottom = inner;
            }
            let (from, to) = (value.class().external_name(), bottom.external_name());
            let deeper = "[]".repeat(usize::from(element.dimensions));
            let message = format!("type mismatch: can not store {from} to {to}[{index}]{deeper}");
            return Err(exceptions::throw(thread, "java/lang/ArrayStoreException", message));
        }
        let index = checked_index(thread, array, index)?;
        array.set_reference_element(index, value);
        Ok(())
    });
}

/// The address of an element. It is good until the thread is safe.
fn address<T>(array: Reference, index: u32) -> *mut T {
    array.at_offset(ELEMENTS_OFFSET + index as usize * size_of::<T>()).cast()
}

/// A range of an array: its first index and length.
fn range(thread: &mut Thread, array: Reference, start: Int, count: Int) -> Result<(u32, usize)> {
    let end = i64::from(start) + i64::from(count);
    if let (Ok(first), Ok(count)) = (u32::try_from(start), usize::try_from(count))
        && end <= i64::from(array.length())
    {
        return Ok((first, count));
    }
    let message = if count < 0 {
        format!("Length {count} is negative")
    } else {
        format!("Array region {start}..{end} out of bounds for length {}", array.length())
    };
    Err(exceptions::throw(thread, "java/lang/ArrayIndexOutOfBoundsException", message))
}

fn elements<T: Value>(env: Env, object: Object, is_copy: *mut Boolean) -> *mut T {
    running(env, std::ptr::null_mut(), |thread| {
        let array = array(thread, object)?;
        let length = array.length() as usize;
        let Some(copy) = memory::take(length * size_of::<T>(), memory::Origin::Elements) else {
            return Err(exceptions::out_of_memory(thread));
        };
        let copy: *mut T = copy.cast();
        // SAFETY: both have room for the array's elements; nothing moves while the thread is running.
        unsafe { copy.copy_from_nonoverlapping(address(array, 0), length) };
        tell(is_copy, true);
        Ok(copy)
    })
}

fn release<T: Value>(env: Env, object: Object, copy: *mut T, mode: Int, function: &'static str) {
    checks::released(copy.cast(), Release::Elements(function));
    with_pending(env, |_| {
        let array = get(object);
        if mode != ABORT && !copy.is_null() && !array.is_null() {
            // SAFETY: the copy was made by `elements` of the same array.
            unsafe { address::<T>(array, 0).copy_from_nonoverlapping(copy, array.length() as usize) };
        }
    });
    if mode != COMMIT {
        memory::give(copy.cast());
    }
}

fn read_region<T: Value>(env: Env, object: Object, start: Int, count: Int, to: *mut T) {
    running(env, (), |thread| {
        let array = array(thread, object)?;
        let (first, count) = range(thread, array, start, count)?;
        if count > 0 {
            // SAFETY: the range is within the array, and C code passes room for it.
            unsafe { to.copy_from(address(array, first), count) };
        }
        Ok(())
    });
}

fn write_region<T: Value>(env: Env, object: Object, start: Int, count: Int, from: *const T) {
    running(env, (), |thread| {
        let array = array(thread, object)?;
        let (first, count) = range(thread, array, start, count)?;
        if count > 0 {
            // SAFETY: the range is within the array, and C code passes so many elements.
            unsafe { address::<T>(array, first).copy_from(from, count) };
        }
        Ok(())
    });
}

/// The five functions for arrays of a type.
macro_rules! arrays {
    ($($module:ident $type:ty, $kind:ident;)*) => {$(
        pub(super) mod $module {
            use super::*;

            pub(in crate::jni) extern "C" fn new(env: Env, length: Int) -> Object {
                making(env, |thread| {
                    let length = checked_length(thread, length)?;
                    allocate::primitive_array(thread, BasicType::$kind, length)
                })
            }
            pub(in crate::jni) extern "C" fn elements(env: Env, array: Object, is_copy: *mut Boolean) -> *mut $type {
                super::elements(env, array, is_copy)
            }
            pub(in crate::jni) extern "C" fn release(env: Env, array: Object, elements: *mut $type, mode: Int) {
                super::release(env, array, elements, mode, concat!("Release", stringify!($kind), "ArrayElements"));
            }
            pub(in crate::jni) extern "C" fn region(env: Env, array: Object, start: Int, count: Int, to: *mut $type) {
                read_region(env, array, start, count, to);
            }
            pub(in crate::jni) extern "C" fn set_region(env: Env, array: Object, start: Int, count: Int, from: *const $type) {
                write_region(env, array, start, count, from);
            }
        }
    )*};
}

arrays! {
    boolean u8, Boolean;
    byte i8, Byte;
    char u16, Char;
    short i16, Short;
    int i32, Int;
    long i64, Long;
    float f32, Float;
    double f64, Double;
}

/// The elements where they are. The thread stays running until they are released, so that no collection begins: it must not wait for another thread meanwhile.
pub(super) extern "C" fn critical(env: Env, object: Object, is_copy: *mut Boolean) -> *mut c_void {
    // Several may be held at once.
    with_pending(env, |thread| {
        let Ok(array) = array(thread, object) else { return std::ptr::null_mut() };
        // SAFETY: the environment is this thread's.
        unsafe { state(env) }.critical += 1;
        tell(is_copy, false);
        address::<u8>(array, 0).cast()
    })
}

pub(super) extern "C" fn release_critical(env: Env, _: Object, elements: *mut c_void, mode: Int) {
    if elements.is_null() || mode == COMMIT {
        return;
    }
    checks::released(elements.cast(), Release::Critical);
    with_pending(env, |_| {
        // SAFETY: the environment is this thread's.
        let state = unsafe { state(env) };
        state.critical = state.critical.saturating_sub(1);
    });
}
