//! What the JDK's own libraries in C expect of its `libjava.so`: helpers over the functions of JNI, by the names that they are linked with.
//!
//! The natives of java.base are Rust, and that library is never loaded. But those of java.desktop (images, fonts, colours, screens, sound) and of a few small
//! modules are the JDK's files as they come, whose code calls these. They are seen from outside of the program by how it is linked (`exported.txt`).

#![allow(non_snake_case, reason = "the names that C code knows")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::sync::OnceLock;

use super::calls;
use super::classes;
use super::environment::{Boolean, Env, Int, Object, method};
use super::errors;
use super::fields::{self, FieldId};
use super::invocation::{self, Vm};
use super::natives::text;
use super::references;
use super::strings;
use super::variadic::{Source, VaList, variadic};
use crate::metadata::BasicType;
use crate::services::{self, locale};

/// Throws an exception by the name of its class.
fn throw(env: Env, class: &CStr, message: Option<&CStr>) {
    let class = classes::find(env, class.as_ptr());
    if !class.is_null() {
        errors::throw_new(env, class, message.map_or(std::ptr::null(), CStr::as_ptr));
        references::delete_local(env, class);
    }
}

/// The text that C code passed, if any.
fn given<'a>(message: *const c_char) -> Option<&'a CStr> {
    // SAFETY: C code passes null or text that ends with NUL, and keeps it until the function returns.
    (!message.is_null()).then(|| unsafe { CStr::from_ptr(message) })
}

// The C library's, whose arguments vary.
unsafe extern "C" {
    fn snprintf();
    fn fprintf();
}

/// Functions that are the C library's by another name.
macro_rules! forwarded {
    ($($name:ident to $target:ident;)*) => {$(
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() {
            std::arch::naked_asm!("jmp {target}", target = sym $target)
        }
    )*};
}

forwarded! {
    jio_snprintf to snprintf;
    jio_fprintf to fprintf;
}

/// Functions that throw one exception.
macro_rules! throwing {
    ($($name:ident $class:literal;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(env: Env, message: *const c_char) {
            throw(env, $class, given(message));
        }
    )*};
}

throwing! {
    JNU_ThrowArrayIndexOutOfBoundsException c"java/lang/ArrayIndexOutOfBoundsException";
    JNU_ThrowClassNotFoundException c"java/lang/ClassNotFoundException";
    JNU_ThrowIOException c"java/io/IOException";
    JNU_ThrowIllegalArgumentException c"java/lang/IllegalArgumentException";
    JNU_ThrowInternalError c"java/lang/InternalError";
    JNU_ThrowNullPointerException c"java/lang/NullPointerException";
    JNU_ThrowOutOfMemoryError c"java/lang/OutOfMemoryError";
}

#[unsafe(no_mangle)]
extern "C" fn JNU_ThrowByName(env: Env, class: *const c_char, message: *const c_char) {
    throw(env, given(class).unwrap_or_default(), given(message));
}

/// What the host calls its last error; nothing if there was none.
fn last_error() -> Option<CString> {
    let number = io::Error::last_os_error().raw_os_error().filter(|&number| number != 0)?;
    CString::new(services::error_text(number)).ok()
}

/// Throws with the description of the last error of the host; without one, with the message.
#[unsafe(no_mangle)]
extern "C" fn JNU_ThrowByNameWithLastError(env: Env, class: *const c_char, message: *const c_char) {
    let error = last_error();
    throw(env, given(class).unwrap_or_default(), error.as_deref().or_else(|| given(message)));
}

/// Throws with the description of the last error of the host and the message in parentheses, or with the one that there is.
#[unsafe(no_mangle)]
extern "C" fn JNU_ThrowByNameWithMessageAndLastError(env: Env, class: *const c_char, message: *const c_char) {
    let error = last_error();
    let message = given(message).filter(|message| !message.is_empty());
    let both = error
        .as_deref()
        .zip(message)
        .and_then(|(error, message)| CString::new([error.to_bytes(), b" (", message.to_bytes(), b")"].concat()).ok());
    throw(env, given(class).unwrap_or_default(), both.as_deref().or(error.as_deref()).or(message));
}

#[unsafe(no_mangle)]
extern "C" fn JNU_ThrowIOExceptionWithLastError(env: Env, message: *const c_char) {
    JNU_ThrowByNameWithLastError(env, c"java/io/IOException".as_ptr(), message);
}

#[unsafe(no_mangle)]
extern "C" fn JNU_ThrowIOExceptionWithMessageAndLastError(env: Env, message: *const c_char) {
    JNU_ThrowByNameWithMessageAndLastError(env, c"java/io/IOException".as_ptr(), message);
}

/// Writes a text into a buffer of C code, cut to fit and with a NUL behind it; how long it is.
///
/// # Safety
/// The buffer has so much room.
unsafe fn write(text: &CStr, to: *mut c_char, room: usize) -> usize {
    if room == 0 || to.is_null() {
        return 0;
    }
    let length = text.count_bytes().min(room - 1);
    // SAFETY: the caller's promise; the text has so many bytes.
    unsafe {
        to.copy_from_nonoverlapping(text.as_ptr(), length);
        to.add(length).write(0);
    }
    length
}

/// Writes what the host calls an error into a buffer; always 0, which is success.
#[unsafe(no_mangle)]
unsafe extern "C" fn getErrorString(error: Int, to: *mut c_char, room: usize) -> Int {
    let text = CString::new(services::error_text(error)).unwrap_or_default();
    // SAFETY: C code passes a buffer with so much room.
    unsafe { write(&text, to, room) };
    0
}

/// The same for the last error; how long it is, which is nothing if there was none.
#[unsafe(no_mangle)]
unsafe extern "C" fn getLastErrorString(to: *mut c_char, room: usize) -> usize {
    // SAFETY: C code passes a buffer with so much room.
    last_error().map_or(0, |text| unsafe { write(&text, to, room) })
}

/// Whether the host's texts are UTF-8, as everywhere but where the locale says otherwise. The others are taken to have what is in all encodings.
fn is_utf8() -> bool {
    static UTF8: OnceLock<bool> = OnceLock::new();
    *UTF8.get_or_init(|| locale::encoding() == "UTF-8")
}

/// A string of a text in the host's encoding.
#[unsafe(no_mangle)]
extern "C" fn JNU_NewStringPlatform(env: Env, bytes: *const c_char) -> Object {
    let bytes = text(bytes);
    let units: Vec<u16> = if is_utf8() {
        String::from_utf8_lossy(bytes).encode_utf16().collect()
    } else {
        bytes.iter().map(|&byte| if byte.is_ascii() { byte.into() } else { 0xfffd }).collect()
    };
    strings::new(env, units.as_ptr(), Int::try_from(units.len()).unwrap_or(Int::MAX))
}

/// The text of a string in the host's encoding, to be released.
#[unsafe(no_mangle)]
extern "C" fn JNU_GetStringPlatformChars(env: Env, string: Object, is_copy: *mut Boolean) -> *const c_char {
    strings::copied_text(env, string, is_copy, |units| {
        let text = String::from_utf16_lossy(&units);
        if is_utf8() {
            text.into_bytes()
        } else {
            text.chars().map(|character| u8::try_from(character).ok().filter(u8::is_ascii).unwrap_or(b'?')).collect()
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn JNU_ReleaseStringPlatformChars(env: Env, string: Object, chars: *const c_char) {
    strings::release_utf_chars(env, string, chars);
}

/// The environment of this thread; null if it has none.
#[unsafe(no_mangle)]
extern "C" fn JNU_GetEnv(vm: Vm, version: Int) -> *mut c_void {
    let mut env: Env = std::ptr::null_mut();
    invocation::environment(vm, &raw mut env, version);
    env.cast()
}

/// Whether an object is of a class, by its name: 1 or 0; -1 if there is no such class.
#[unsafe(no_mangle)]
extern "C" fn JNU_IsInstanceOfByName(env: Env, object: Object, class: *const c_char) -> Int {
    let class = classes::find(env, class);
    if class.is_null() {
        return -1;
    }
    let answer = classes::is_instance(env, object, class);
    references::delete_local(env, class);
    Int::from(answer)
}

/// Tells C code, if it wants to know, whether something was thrown.
fn tell_thrown(env: Env, thrown: *mut Boolean) {
    strings::tell(thrown, errors::check(env) != 0);
}

/// Calls a method of a class, or of an object of it; what it returns is a `jvalue`.
fn call(env: Env, receiver: Option<Object>, class: Object, names: [*const c_char; 2], list: *mut VaList) -> u64 {
    let [name, signature] = names;
    let id = match receiver {
        Some(_) => classes::instance_method(env, class, name, signature),
        None => classes::static_method(env, class, name, signature),
    };
    if id.is_null() {
        return 0;
    }
    let address = |object: Object| object.expose_provenance() as u64;
    match (method(id).returns, receiver) {
        (BasicType::Reference, Some(object)) => address(calls::object::virtual_list(env, object, id, list)),
        (BasicType::Reference, None) => address(calls::object::static_list(env, class, id, list)),
        (_, Some(object)) => calls::long::virtual_list(env, object, id, list).cast_unsigned(),
        (_, None) => calls::long::static_list(env, class, id, list).cast_unsigned(),
    }
}

extern "C" fn call_method(
    env: Env,
    thrown: *mut Boolean,
    object: Object,
    name: *const c_char,
    signature: *const c_char,
    list: *mut VaList,
) -> u64 {
    let class = classes::class_of(env, object);
    let result = if class.is_null() { 0 } else { call(env, Some(object), class, [name, signature], list) };
    references::delete_local(env, class);
    tell_thrown(env, thrown);
    result
}

extern "C" fn call_static_method(
    env: Env,
    thrown: *mut Boolean,
    class: *const c_char,
    name: *const c_char,
    signature: *const c_char,
    list: *mut VaList,
) -> u64 {
    let class = classes::find(env, class);
    let result = if class.is_null() { 0 } else { call(env, None, class, [name, signature], list) };
    references::delete_local(env, class);
    tell_thrown(env, thrown);
    result
}

extern "C" fn new_object(env: Env, class: *const c_char, signature: *const c_char, list: *mut VaList) -> Object {
    let class = classes::find(env, class);
    if class.is_null() {
        return class;
    }
    let id = classes::instance_method(env, class, c"<init>".as_ptr(), signature);
    let object = if id.is_null() { std::ptr::null_mut() } else { calls::new_object_list(env, class, id, list) };
    references::delete_local(env, class);
    object
}

/// The static field of a class, as a `jvalue`.
#[unsafe(no_mangle)]
extern "C" fn JNU_GetStaticFieldByName(
    env: Env,
    thrown: *mut Boolean,
    class: *const c_char,
    name: *const c_char,
    signature: *const c_char,
) -> u64 {
    let class = classes::find(env, class);
    let id = if class.is_null() { std::ptr::null() } else { fields::static_field(env, class, name, signature) };
    let value = if id.is_null() { 0 } else { static_value(env, class, id, BasicType::of(first(signature))) };
    references::delete_local(env, class);
    tell_thrown(env, thrown);
    value
}

fn first(signature: *const c_char) -> u8 {
    text(signature).first().copied().unwrap_or(0)
}

fn static_value(env: Env, class: Object, id: FieldId, kind: BasicType) -> u64 {
    match kind {
        BasicType::Boolean => fields::boolean::get_static(env, class, id).into(),
        BasicType::Byte => u64::from(fields::byte::get_static(env, class, id).cast_unsigned()),
        BasicType::Char => fields::char::get_static(env, class, id).into(),
        BasicType::Short => u64::from(fields::short::get_static(env, class, id).cast_unsigned()),
        BasicType::Int => u64::from(fields::int::get_static(env, class, id).cast_unsigned()),
        BasicType::Float => u64::from(fields::float::get_static(env, class, id).to_bits()),
        BasicType::Long => fields::long::get_static(env, class, id).cast_unsigned(),
        BasicType::Double => fields::double::get_static(env, class, id).to_bits(),
        BasicType::Reference => fields::object::get_static(env, class, id).expose_provenance() as u64,
        BasicType::Void => 0,
    }
}

extern "C" fn set_field(
    env: Env,
    thrown: *mut Boolean,
    object: Object,
    name: *const c_char,
    signature: *const c_char,
    mut list: *mut VaList,
) {
    let class = classes::class_of(env, object);
    let id = if class.is_null() { std::ptr::null() } else { fields::instance_field(env, class, name, signature) };
    references::delete_local(env, class);
    if !id.is_null() {
        set_value(env, object, id, BasicType::of(first(signature)), &mut list);
    }
    tell_thrown(env, thrown);
}

#[allow(clippy::cast_possible_truncation, reason = "a slot has small values in its low bits")]
fn set_value(env: Env, object: Object, id: FieldId, kind: BasicType, list: &mut *mut VaList) {
    if kind == BasicType::Reference {
        // As C code passed it: a list gives the object itself, for a slot.
        let value = std::ptr::with_exposed_provenance_mut(list.next(BasicType::Long) as usize);
        return fields::object::set(env, object, id, value);
    }
    let value = list.next(kind);
    match kind {
        BasicType::Boolean => fields::boolean::set(env, object, id, value as u8),
        BasicType::Byte => fields::byte::set(env, object, id, value as i8),
        BasicType::Char => fields::char::set(env, object, id, value as u16),
        BasicType::Short => fields::short::set(env, object, id, value as i16),
        BasicType::Int => fields::int::set(env, object, id, value as i32),
        BasicType::Float => fields::float::set(env, object, id, f32::from_bits(value as u32)),
        BasicType::Long => fields::long::set(env, object, id, value.cast_signed()),
        BasicType::Double => fields::double::set(env, object, id, f64::from_bits(value)),
        BasicType::Reference | BasicType::Void => {}
    }
}

variadic!(#[unsafe(no_mangle)] JNU_CallMethodByName, call_method, 5 arguments, list in "r9");
variadic!(#[unsafe(no_mangle)] JNU_CallStaticMethodByName, call_static_method, 5 arguments, list in "r9");
variadic!(#[unsafe(no_mangle)] JNU_NewObjectByName, new_object, 3 arguments, list in "rcx");
variadic!(#[unsafe(no_mangle)] JNU_SetFieldByName, set_field, 5 arguments, list in "r9");
