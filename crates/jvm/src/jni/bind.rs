//! Which function implements a native method: found by name in the libraries of its class's loader, or registered.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::downcall::{Binding, call};
use crate::arena::Meta;
use crate::bootstrap;
use crate::interpreter::Function;
use crate::loader;
use crate::metadata::{Class, Entry, Method};
use crate::strings;
use crate::thread::{Result, Thread};

/// Finds the function of a native method, which may be known by another name than its own, in the libraries that its class's loader has loaded; whether there
/// is one.
///
/// # Errors
/// What looking for it throws.
pub(crate) fn find(thread: &mut Thread, method: Meta<Method>, name: &[u8]) -> Result<bool> {
    let short = format!("Java_{}_{}", mangled(method.class.name.bytes()), mangled(name));
    let descriptor = method.descriptor.bytes();
    let end = descriptor.iter().position(|&byte| byte == b')').unwrap_or(1);
    let long = format!("{short}__{}", mangled(&descriptor[1..end]));
    for name in [short, long] {
        let function = thread.scope(|thread| {
            let name = strings::new(thread, &name)?;
            let class_loader = loader::data(method.class.loader).reference();
            let arguments = [class_loader.slot(), name.slot()];
            let descriptor = "(Ljava/lang/ClassLoader;Ljava/lang/String;)J";
            bootstrap::call_static(thread, "java/lang/ClassLoader", "findNative", descriptor, &arguments)
        })?;
        if let Ok(function @ 1..) = usize::try_from(function) {
            bind(method, function);
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes a function that of a native method.
pub(super) fn bind(method: Meta<Method>, function: usize) {
    let binding = Box::leak(Box::new(Binding::new(&method, function)));
    method.library.store(std::ptr::from_mut(binding).expose_provenance(), Ordering::Release);
    method.native.store(call as Function as usize, Ordering::Release);
    method.set_entry(Entry::Native);
}

/// Forgets the functions of libraries that a class's native methods have.
pub(super) fn unbind(class: Meta<Class>) {
    for method in class.methods.get() {
        if method.library.load(Ordering::Acquire) != 0 && method.entry() == Entry::Native {
            method.set_entry(Entry::NativeUnlinked);
        }
    }
}

/// Frees what is known of the functions of a class that is unloaded.
pub(crate) fn forget(class: Meta<Class>) {
    for method in class.methods.get() {
        let binding: *mut Binding = std::ptr::with_exposed_provenance_mut(method.library.swap(0, Ordering::Relaxed));
        if !binding.is_null() {
            // SAFETY: made of a box by `bind`, and nobody calls the method any more.
            drop(unsafe { Box::from_raw(binding) });
        }
    }
}

/// A name as a part of a C identifier (JNI specification, chapter 2, table 2-1).
fn mangled(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for unit in classfile::mutf8::units(name) {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            Ok(b'/') => text.push('_'),
            Ok(b'_') => text.push_str("_1"),
            Ok(b';') => text.push_str("_2"),
            Ok(b'[') => text.push_str("_3"),
            _ => {
                let _ = write!(text, "_0{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_identifiers() {
        assert_eq!(mangled(b"p/q_r/A"), "p_q_1r_A");
        assert_eq!(mangled(b"ILjava/lang/String;[[D"), "ILjava_lang_String_2_3_3D");
        assert_eq!(mangled("g\u{e4}$".as_bytes()), "g_000e4_00024");
    }
}
