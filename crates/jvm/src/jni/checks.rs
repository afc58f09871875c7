//! `-Xcheck:jni`: what C code does wrong is told, with the Java frames that it was called from; what cannot go on ends the process.
//!
//! - A call of a method may throw: C code is to ask before it does anything else that is not giving back.
//! - Memory is given back to the function that belongs to the one it came from ([`super::memory`] knows which that was).
//! - Names of classes are modified UTF-8.

use std::sync::atomic::{AtomicBool, Ordering};

use super::environment::{Env, state};
use super::errors;
use super::memory::{self, Origin};
use crate::metadata::BasicType;
use crate::object::{CARDS_BASE, HEAP_BASE};
use crate::thread::Thread;

static ON: AtomicBool = AtomicBool::new(false);

/// Begins to check.
pub(crate) fn begin() {
    ON.store(true, Ordering::Relaxed);
}

/// Whether C code is checked.
#[inline(always)]
pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

fn warn(thread: &Thread, text: &str) {
    println!("WARNING in native method: {text}");
    errors::print_frames(thread);
}

/// Before a function that C code must not call while an exception may be pending.
#[cold]
pub(super) fn before(env: Env, thread: &Thread) {
    // SAFETY: the environment is this thread's.
    let state = unsafe { state(env) };
    if state.critical > 0 {
        let scope = "Get/ReleasePrimitiveArrayCritical or Get/ReleaseStringCritical";
        warn(thread, &format!("Calling other JNI functions in the scope of {scope}"));
    }
    if !thread.exception.is_null() {
        warn(thread, "JNI call made with exception pending");
    } else if let Some(call) = state.unchecked.take() {
        warn(thread, &format!("JNI call made without checking exceptions when required to from {call}"));
    }
}

/// A call of a method has returned.
#[cold]
pub(super) fn called(thread: &Thread, returns: BasicType, is_virtual: bool, is_static: bool) {
    let kind = match returns {
        BasicType::Reference => "Object",
        BasicType::Boolean => "Boolean",
        BasicType::Byte => "Byte",
        BasicType::Char => "Char",
        BasicType::Short => "Short",
        BasicType::Int => "Int",
        BasicType::Long => "Long",
        BasicType::Float => "Float",
        BasicType::Double => "Double",
        BasicType::Void => "Void",
    };
    let how = match (is_static, is_virtual) {
        (true, _) => "Static",
        (false, false) => "Nonvirtual",
        (false, true) => "",
    };
    if !thread.jni.is_null() {
        // SAFETY: the environment is this thread's.
        unsafe { state(thread.jni) }.unchecked = Some(format!("Call{how}{kind}Method"));
    }
}

/// C code has asked whether there is an exception, or returned.
#[inline(always)]
pub(super) fn asked(env: Env) {
    if is_on() {
        // SAFETY: the environment is this thread's.
        unsafe { state(env) }.unchecked = None;
    }
}

/// What memory is given back as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Elements of an array, by this function.
    Elements(&'static str),
    /// `ReleaseStringChars`
    Units,
    /// `ReleaseStringUTFChars`
    Text,
    /// `ReleasePrimitiveArrayCritical`
    Critical,
}

/// Ends the process if this memory cannot be given back so.
pub(super) fn released(address: *const u8, release: Release) {
    if !is_on() || address.is_null() {
        return;
    }
    // Critical arrays are where they are: the heap is below the table of its cards.
    let origin = if (HEAP_BASE..CARDS_BASE).contains(&address.addr()) {
        Some(Origin::Critical)
    } else {
        memory::origin(address)
    };
    let (function, expected, what) = match release {
        Release::Elements(function) => (function, Origin::Elements, "array"),
        Release::Units => ("ReleaseStringChars", Origin::Units, "chars"),
        Release::Text => ("ReleaseStringUTFChars", Origin::Text, "chars"),
        Release::Critical => ("ReleasePrimitiveArrayCritical", Origin::Critical, "array"),
    };
    let text = match origin {
        Some(origin) if origin == expected => return,
        None => {
            println!("{function}: release {what} failed bounds check, incorrect pointer returned?");
            errors::fatal(&format!("{function}: failed bounds check"));
        }
        // Strings do not tell what it was instead, nor is it told of the elements of arrays.
        Some(origin) if matches!(expected, Origin::Units | Origin::Text) || origin == Origin::Elements => {
            format!("not allocated by {}", expected.function())
        }
        Some(origin) => format!("allocated by {}", origin.function()),
    };
    errors::fatal(&format!("{function} called on something {text}"));
}

/// Ends the process if this cannot be the name of a class.
pub(super) fn class_name(name: &[u8]) {
    if is_on() && !is_legal(name) {
        errors::fatal(&format!("JNI class name is not a valid UTF8 string \"{}\"", name.escape_ascii()));
    }
}

/// Whether a text is modified UTF-8: one, two or three bytes for each unit, and no zero.
fn is_legal(text: &[u8]) -> bool {
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let more = match first {
            0x01..=0x7F => 0,
            0xC0..=0xDF => 1,
            0xE0..=0xEF => 2,
            _ => return false,
        };
        if after.len() < more || after[..more].iter().any(|byte| byte & 0xC0 != 0x80) {
            return false;
        }
        rest = &after[more..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_legal;

    #[test]
    fn names_are_modified_utf8() {
        assert!(is_legal(b"java/lang/String") && is_legal("größe".as_bytes()) && is_legal(b"\xC0\x80"));
        assert!(!is_legal(b"\x18\xF8 ]") && !is_legal(b"\xE2\x82") && !is_legal(b"a\x80") && !is_legal(b"\0"));
    }
}
