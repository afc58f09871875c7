//! What natives need again and again: results as slots, fields by name, bytes of arrays, exceptions of failures.

use crate::exceptions;
use crate::object::{ELEMENTS_OFFSET, Reference};
use crate::services::Failure;
use crate::strings;
use crate::thread::{Result, Thread, Thrown};

/// The result of a native that returns nothing.
pub(super) const VOID: u64 = 0;

/// An `int` as a slot.
pub(super) fn int(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// A `long` as a slot.
pub(super) fn long(value: i64) -> u64 {
    value.cast_unsigned()
}

/// A `boolean` as a slot.
pub(super) fn boolean(value: bool) -> u64 {
    u64::from(value)
}

/// A `double` as a slot.
pub(super) fn double(value: f64) -> u64 {
    value.to_bits()
}

/// The offset of a field of a class of the library, looked up once.
macro_rules! field {
    ($class:literal, $name:literal, $descriptor:literal) => {{
        static OFFSET: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        match OFFSET.load(std::sync::atomic::Ordering::Relaxed) {
            0 => {
                let offset = $crate::known::field($crate::loader::boot_class($class), $name, $descriptor);
                OFFSET.store(offset, std::sync::atomic::Ordering::Relaxed);
                offset
            }
            offset => offset,
        }
    }};
}
pub(super) use field;

/// The table of a file of natives.
macro_rules! natives {
    ($class:literal: $($name:literal $descriptor:literal => $function:expr;)*) => {
        pub(super) const TABLES: &[super::Table] = &[($class, &[$(($name, $descriptor, $function)),*])];
    };
}
pub(super) use natives;

/// Runs what may wait for the host. The collector does not wait for it: it must hold no raw reference.
pub(super) fn waiting<T>(thread: &mut Thread, call: impl FnOnce() -> T) -> T {
    thread.blocked(call)
}

/// The descriptor in a `java.io.FileDescriptor`; -1 of `null`.
pub(super) fn descriptor(object: Reference) -> i32 {
    if object.is_null() { -1 } else { object.read(field!("java/io/FileDescriptor", "fd", "I")) }
}

/// Sets it.
pub(super) fn set_descriptor(object: Reference, descriptor: i32) {
    object.write(field!("java/io/FileDescriptor", "fd", "I"), descriptor);
}

/// Throws unless `array` has `length` elements from `offset` on.
pub(super) fn check_range(thread: &mut Thread, array: Reference, offset: i32, length: i32) -> Result<()> {
    if array.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let end = i64::from(offset) + i64::from(length);
    if offset < 0 || length < 0 || end > i64::from(array.length()) {
        return Err(exceptions::throw_plain(thread, "java/lang/IndexOutOfBoundsException"));
    }
    Ok(())
}

/// Copies elements of a `byte[]`; the range is within it.
pub(super) fn array_bytes(array: Reference, offset: i32, length: i32) -> Vec<u8> {
    let (offset, length) = (usize::try_from(offset).unwrap_or(0), usize::try_from(length).unwrap_or(0));
    debug_assert!(offset + length <= array.length() as usize, "the range is checked before");
    let mut bytes = vec![0; length];
    // SAFETY: the range is within the array, and nothing moves it meanwhile.
    unsafe { std::ptr::copy_nonoverlapping(array.at_offset(ELEMENTS_OFFSET + offset), bytes.as_mut_ptr(), length) };
    bytes
}

/// Copies into a `byte[]`; the range is within it.
pub(super) fn set_array_bytes(array: Reference, offset: i32, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap_or(0);
    assert!(offset + bytes.len() <= array.length() as usize, "the range is checked before");
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), array.at_offset(ELEMENTS_OFFSET + offset), bytes.len()) };
}

/// Elements of a `byte[]` where they are; the range is within it.
///
/// # Safety
/// They are used only until the thread waits or may collect, and not together with [`elements_mut`] of the same array.
pub(super) unsafe fn elements<'a>(array: Reference, offset: i32, length: i32) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { elements_mut(array, offset, length) }
}

/// The same, to write them.
///
/// # Safety
/// As for [`elements`], which nothing else uses meanwhile.
pub(super) unsafe fn elements_mut<'a>(array: Reference, offset: i32, length: i32) -> &'a mut [u8] {
    let (offset, length) = (usize::try_from(offset).unwrap_or(0), usize::try_from(length).unwrap_or(0));
    assert!(offset + length <= array.length() as usize, "the range is checked before");
    // SAFETY: the range is within the array, which stays where it is as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(array.at_offset(ELEMENTS_OFFSET + offset), length) }
}

/// All of a `byte[]`; nothing of `null`.
pub(super) fn all_bytes(array: Reference) -> Vec<u8> {
    if array.is_null() {
        return Vec::new();
    }
    array_bytes(array, 0, i32::try_from(array.length()).unwrap_or(i32::MAX))
}

/// The bytes before the first NUL.
pub(super) fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// Memory outside of the heap that Java code names by address, as direct buffers have it.
///
/// # Safety
/// The class library passes addresses of memory that it allocated, as long as it says, and keeps it until the native returns.
pub(super) unsafe fn memory<'a>(address: i64, length: i32) -> &'a mut [u8] {
    let length = usize::try_from(length).unwrap_or(0);
    match usize::try_from(address) {
        Ok(address) if address != 0 => {
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(address), length) }
        }
        _ => &mut [],
    }
}

/// The text at an address, which ends with NUL.
///
/// # Safety
/// As for [`memory`].
pub(super) unsafe fn text_at<'a>(address: i64) -> &'a [u8] {
    match usize::try_from(address) {
        Ok(address) if address != 0 => {
            let start: *const std::ffi::c_char = std::ptr::with_exposed_provenance(address);
            // SAFETY: the caller's promise.
            unsafe { std::ffi::CStr::from_ptr(start) }.to_bytes()
        }
        _ => b"",
    }
}

/// The bytes that the host knows a path by.
pub(super) fn path_bytes(string: Reference) -> Vec<u8> {
    strings::text(string).into_bytes()
}

/// A string of bytes that the host gave.
pub(super) fn host_string(thread: &mut Thread, bytes: &[u8]) -> Result<Reference> {
    strings::new(thread, &String::from_utf8_lossy(bytes))
}

/// Throws `java.io.IOException` for a failure.
pub(super) fn io_exception(thread: &mut Thread, failure: &Failure) -> Thrown {
    exceptions::throw(thread, "java/io/IOException", failure.to_string())
}

/// Throws the exception of a socket's failure.
pub(super) fn socket_exception(thread: &mut Thread, failure: &Failure) -> Thrown {
    let class = match failure {
        Failure::Refused(_) => "java/net/SocketException",
        Failure::Host(number) => match *number {
            libc::EINPROGRESS => "java/net/ConnectException",
            libc::EPROTO => "java/net/ProtocolException",
            libc::ECONNREFUSED | libc::ETIMEDOUT | libc::ENOTCONN => "java/net/ConnectException",
            libc::EHOSTUNREACH => "java/net/NoRouteToHostException",
            libc::EADDRINUSE | libc::EADDRNOTAVAIL | libc::EACCES | libc::EPERM => "java/net/BindException",
            _ => "java/net/SocketException",
        },
    };
    exceptions::throw(thread, class, failure.to_string())
}

/// Makes an object by a constructor of its class.
pub(super) fn make(
    thread: &mut Thread,
    class: &str,
    descriptor: &str,
    arguments: impl FnOnce() -> Vec<u64>,
) -> Result<crate::handle::Handle> {
    let class = crate::loader::boot_class(class);
    crate::link::initialize(thread, class)?;
    let object = crate::allocate::instance(thread, class)?;
    let object = thread.handle(object);
    let constructor =
        class.declared_method(crate::symbol::Symbol::new("<init>"), crate::symbol::Symbol::new(descriptor));
    let constructor = constructor.expect("the class library of JDK 17 has this constructor");
    // Read when nothing allocates any more.
    let mut slots = vec![object.slot()];
    slots.extend(arguments());
    crate::interpreter::call(thread, constructor, &slots)?;
    Ok(object)
}
