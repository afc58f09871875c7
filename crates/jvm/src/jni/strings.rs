//! Strings, in UTF-16 and in modified UTF-8.

use std::ffi::c_char;

use super::checks::{self, Release};
use super::environment::{Boolean, Env, Int, Object, get, making, running};
use super::memory;
use super::natives::text;
use crate::exceptions;
use crate::known;
use crate::object::Reference;
use crate::strings;
use crate::thread::{Result, Thread};

/// Whether a string has no text yet: no constructor has run.
fn is_empty_shell(string: Reference) -> bool {
    string.reference(known::string_value()).is_null()
}

fn length(string: Reference) -> Int {
    Int::try_from(strings::units(string).len()).unwrap_or(Int::MAX)
}

fn string(thread: &mut Thread, object: Object) -> Result<Reference> {
    match get(object) {
        string if string.is_null() => Err(exceptions::null_pointer(thread)),
        string => Ok(string),
    }
}

/// Tells C code that it got a copy.
pub(super) fn tell(is_copy: *mut Boolean, value: bool) {
    if !is_copy.is_null() {
        // SAFETY: C code passes null or where the answer goes.
        unsafe { is_copy.write(Boolean::from(value)) };
    }
}

/// A copy of these values for C code.
fn copied<T: Copy>(thread: &mut Thread, values: &[T], is_copy: *mut Boolean, origin: memory::Origin) -> Result<*mut T> {
    let Some(copy) = memory::take(size_of_val(values), origin) else { return Err(exceptions::out_of_memory(thread)) };
    // SAFETY: as many bytes as the values have, aligned for any of them.
    unsafe { copy.copy_from_nonoverlapping(values.as_ptr().cast(), size_of_val(values)) };
    tell(is_copy, true);
    Ok(copy.cast())
}

pub(super) extern "C" fn new(env: Env, units: *const u16, length: Int) -> Object {
    making(env, |thread| {
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: C code passes so many units.
        let units = if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(units, length) } };
        strings::from_units(thread, units)
    })
}

pub(super) extern "C" fn get_length(env: Env, object: Object) -> Int {
    running(env, 0, |thread| string(thread, object).map(length))
}

pub(super) extern "C" fn chars(env: Env, object: Object, is_copy: *mut Boolean) -> *const u16 {
    running(env, std::ptr::null(), |thread| {
        let string = string(thread, object)?;
        if is_empty_shell(string) {
            return Ok(std::ptr::null());
        }
        let mut units = strings::units(string);
        // Many a program counts on the zero that the specification does not promise.
        units.push(0);
        copied(thread, &units, is_copy, memory::Origin::Units).map(<*mut u16>::cast_const)
    })
}

pub(super) extern "C" fn release_chars(_: Env, _: Object, chars: *const u16) {
    checks::released(chars.cast(), Release::Units);
    memory::give(chars.cast_mut().cast());
}

pub(super) extern "C" fn new_utf(env: Env, bytes: *const c_char) -> Object {
    if bytes.is_null() {
        return std::ptr::null_mut();
    }
    making(env, |thread| {
        let units: Vec<u16> = classfile::mutf8::units(text(bytes)).collect();
        strings::from_units(thread, &units)
    })
}

pub(super) extern "C" fn utf_length(env: Env, object: Object) -> Int {
    running(env, 0, |thread| {
        let bytes = classfile::mutf8::encode(strings::units(string(thread, object)?));
        Ok(Int::try_from(bytes.len()).unwrap_or(Int::MAX))
    })
}

/// A copy of a string's text, encoded and with a NUL behind it.
pub(super) fn copied_text(
    env: Env,
    object: Object,
    is_copy: *mut Boolean,
    encode: impl FnOnce(Vec<u16>) -> Vec<u8>,
) -> *const c_char {
    running(env, std::ptr::null(), |thread| {
        let string = string(thread, object)?;
        if is_empty_shell(string) {
            return Ok(std::ptr::null());
        }
        let mut bytes = encode(strings::units(string));
        bytes.push(0);
        copied(thread, &bytes, is_copy, memory::Origin::Text).map(|copy| copy.cast_const().cast())
    })
}

pub(super) extern "C" fn utf_chars(env: Env, object: Object, is_copy: *mut Boolean) -> *const c_char {
    copied_text(env, object, is_copy, classfile::mutf8::encode)
}

pub(super) extern "C" fn release_utf_chars(_: Env, _: Object, chars: *const c_char) {
    checks::released(chars.cast(), Release::Text);
    memory::give(chars.cast_mut().cast());
}

/// The units of a range of a string.
fn range(thread: &mut Thread, object: Object, start: Int, count: Int) -> Result<Vec<u16>> {
    let units = strings::units(string(thread, object)?);
    let range = usize::try_from(start).ok().zip(usize::try_from(count).ok());
    match range.and_then(|(start, count)| units.get(start..start.checked_add(count)?)) {
        Some(units) => Ok(units.to_vec()),
        None => Err(exceptions::throw_plain(thread, "java/lang/StringIndexOutOfBoundsException")),
    }
}

pub(super) extern "C" fn region(env: Env, object: Object, start: Int, count: Int, to: *mut u16) {
    running(env, (), |thread| {
        let units = range(thread, object, start, count)?;
        if !units.is_empty() {
            // SAFETY: C code passes room for so many units.
            unsafe { to.copy_from_nonoverlapping(units.as_ptr(), units.len()) };
        }
        Ok(())
    });
}

pub(super) extern "C" fn utf_region(env: Env, object: Object, start: Int, count: Int, to: *mut c_char) {
    running(env, (), |thread| {
        let mut bytes = classfile::mutf8::encode(range(thread, object, start, count)?);
        bytes.push(0);
        if !to.is_null() {
            // SAFETY: C code passes room for the text and the NUL behind it.
            unsafe { to.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        Ok(())
    });
}
