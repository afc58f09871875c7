//! `System.load` and `loadLibrary` below `jdk.internal.loader.NativeLibraries`: opening a library, `JNI_OnLoad`, `JNI_OnUnload`; and `RegisterNatives`.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use classfile::flags;

use super::bind;
use super::environment::{Env, Int, OK, Object, class, of, running, state};
use super::invocation::{self, Vm};
use crate::arena::Meta;
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::known;
use crate::loader;
use crate::metadata::Method;
use crate::services::libraries;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread, Thrown};

/// `JNINativeMethod`
#[repr(C)]
pub(super) struct NativeMethod {
    name: *const c_char,
    signature: *const c_char,
    function: *mut c_void,
}

/// The text of a C string that C code passed; empty if it is null.
pub(super) fn text<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: C code passes text that ends with NUL, and keeps it until the function returns.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

pub(super) extern "C" fn register_natives(env: Env, owner: Object, methods: *const NativeMethod, count: Int) -> Int {
    running(env, super::environment::ERROR, |thread| {
        let class = class(owner);
        let foreign = class.loader == 0
            && crate::link::module_name(class).is_some()
            && caller(thread)?.is_some_and(|data| !data.is_boot());
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: C code passes so many.
            let native = unsafe { &*methods.add(index) };
            let (name, signature) = (text(native.name), text(native.signature));
            // A leading `!` asked for fast calls in old versions.
            let signature = signature.strip_prefix(b"!").unwrap_or(signature);
            let method = Symbol::find(name)
                .zip(Symbol::find(signature))
                .and_then(|(name, descriptor)| class.declared_method(name, descriptor));
            match method {
                Some(method) if method.is_native() => {
                    if foreign {
                        warn_of_foreign(method);
                    }
                    if native.function.is_null() {
                        bind::unbind(class);
                    } else {
                        bind::bind(method, native.function.expose_provenance());
                    }
                }
                found => {
                    let (name, signature) = (String::from_utf8_lossy(name), String::from_utf8_lossy(signature));
                    let kind =
                        if found.is_some() { "is not declared as native" } else { "name or signature does not match" };
                    let text = match Symbol::find(name.as_bytes()).zip(Symbol::find(signature.as_bytes())) {
                        Some((name, descriptor)) => {
                            format!("Method {} {kind}", crate::link::method_text(class, name, descriptor))
                        }
                        None => format!(
                            "Method {}.{name}{signature} name or signature does not match",
                            class.external_name()
                        ),
                    };
                    return Err(exceptions::throw(thread, "java/lang/NoSuchMethodError", text));
                }
            }
        }
        Ok(OK)
    })
}

/// Tells that a library of the program has its own idea of what a native method of the class library does.
fn warn_of_foreign(method: Meta<Method>) {
    let (class, name, descriptor) = (method.class.external_name(), method.name, method.descriptor);
    let seconds = crate::bootstrap::clock().now_ns() as f64 / 1e9;
    println!(
        "[{seconds:.3}s][warning][jni,resolve] Re-registering of platform native method: {class}.{name}{descriptor} from code in a different classloader"
    );
}

pub(super) extern "C" fn unregister_natives(env: Env, owner: Object) -> Int {
    running(env, OK, |_| {
        bind::unbind(class(owner));
        Ok(OK)
    })
}

/// Versions that a library may ask for.
const VERSIONS: [Int; 8] =
    [0x0001_0001, 0x0001_0002, 0x0001_0004, 0x0001_0006, 0x0001_0008, 0x0009_0000, 0x000A_0000, 0x0001_0003];

/// `NativeLibraries.load(impl, name, isBuiltin, isJNI, throwExceptionIfFail)`
pub(crate) fn load_library(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (builtin, jni, throws) = (arguments.boolean(2), arguments.boolean(3), arguments.boolean(4));
    if builtin {
        return Ok(1);
    }
    let name = strings::text(arguments.reference(1));
    let opened = {
        let control = thread.control.clone();
        // Constructors of the library are C code.
        control.blocked(|| libraries::open(&name))
    };
    let handle = match opened {
        Ok(handle) => handle,
        Err(message) if throws => return Err(exceptions::throw(thread, "java/lang/UnsatisfiedLinkError", message)),
        Err(_) => return Ok(0),
    };
    let mut version = 0x0001_0001;
    if jni && let Some(function) = libraries::find(handle, c"JNI_OnLoad") {
        version = on_load(thread, function);
        if !thread.exception.is_null() {
            libraries::close(handle);
            return Err(Thrown);
        }
        if !VERSIONS.contains(&version) {
            libraries::close(handle);
            let message = format!("unsupported JNI version 0x{version:08X} required by {name}");
            return Err(exceptions::throw(thread, "java/lang/UnsatisfiedLinkError", message));
        }
    }
    let library = arguments.reference(0);
    let offset = |name: &str, descriptor: &str| known::field(library.class(), name, descriptor);
    library.write(offset("jniVersion", "I"), version);
    library.write(offset("handle", "J"), handle as u64);
    Ok(1)
}

/// `NativeLibraries.unload(name, isBuiltin, isJNI, handle)`
pub(crate) fn unload_library(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (builtin, jni) = (arguments.boolean(1), arguments.boolean(2));
    let Ok(handle @ 1..) = usize::try_from(arguments.long(3)) else { return Ok(0) };
    if builtin {
        return Ok(0);
    }
    if jni && let Some(function) = libraries::find(handle, c"JNI_OnUnload") {
        on_load(thread, function);
    }
    libraries::close(handle);
    Ok(0)
}

/// Calls `JNI_OnLoad` or `JNI_OnUnload`, in the frame of the native that loads.
fn on_load(thread: &mut Thread, function: usize) -> Int {
    // SAFETY: functions of this name have this type, by the specification.
    let function: extern "C" fn(Vm, *mut c_void) -> Int = unsafe { std::mem::transmute(function) };
    let env = of(thread);
    // SAFETY: the environment is this thread's.
    let state_before = unsafe { state(env) };
    let own = super::environment::LocalFrame { handles: thread.handles.mark(), deleted: state_before.deleted.len() };
    let callers = (std::mem::replace(&mut state_before.frame, own), std::mem::take(&mut state_before.outer));
    let control = Arc::as_ptr(&thread.control);
    // SAFETY: the control lives as long as the thread.
    unsafe { (*control).enter_safe() };
    let version = function(invocation::vm(), std::ptr::null_mut());
    // SAFETY: as above.
    let state_after = unsafe { state(env) };
    if std::mem::take(&mut state_after.critical) == 0 {
        // SAFETY: as above.
        unsafe { (*control).leave_safe() };
    }
    state_after.deleted.truncate(state_after.frame.deleted);
    (state_after.frame, state_after.outer) = callers;
    version
}

/// The class on whose behalf C code of this thread acts: that of its native method, or that which loads the library.
pub(super) fn caller(thread: &mut Thread) -> Result<Option<&'static loader::LoaderData>> {
    let Some(frame) = thread.top_frame() else { return Ok(None) };
    let method = frame.method();
    if method.class.name.bytes() == b"jdk/internal/loader/NativeLibraries" && method.flags & flags::NATIVE != 0 {
        let class = method.class;
        if let Some(from) = class.declared_method(Symbol::new("getFromClass"), Symbol::new("()Ljava/lang/Class;")) {
            let mirror = crate::interpreter::call(thread, from, &[])?;
            return Ok(Some(loader::data(loader::of_mirror(crate::object::Reference::of_slot(mirror)).loader)));
        }
    }
    Ok(Some(loader::data(method.class.loader)))
}
