//! What C code knows as `JNIEnv`: the functions, and the thread that they act for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::table::{TABLE, Table};
use crate::arena::Meta;
use crate::handle::{GLOBALS_BASE, GLOBALS_END, WEAKS_BASE};
use crate::loader;
use crate::metadata::{Class, Method};
use crate::object::Reference;
use crate::thread::{Result, Thread};

/// `JNIEnv *`
pub(crate) type Env = *mut Environment;
/// `jobject`: the address of a reference; null is `null`.
pub(super) type Object = *mut u32;
/// `jmethodID`
pub(super) type MethodId = *mut Method;
/// `jboolean`
pub(super) type Boolean = u8;
/// `jsize`, `jint`
pub(super) type Int = i32;

/// `JNI_OK`
pub(super) const OK: Int = 0;
/// `JNI_ERR`
pub(super) const ERROR: Int = -1;

/// A thread as C code sees it. Begins with the functions, as the specification says.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Environment {
    functions: *const Table,
    thread: *mut Thread,
    /// Critical arrays and strings that are not released: the thread stays running.
    pub(super) critical: u32,
    /// Handles of the current native method that were deleted, to be used again; those of its callers before them.
    pub(super) deleted: Vec<usize>,
    /// The frame of local references that is being filled.
    pub(super) frame: LocalFrame,
    /// Those around it, of the same native method.
    pub(super) outer: Vec<LocalFrame>,
    /// The call after which nobody has asked for an exception, if that is checked.
    pub(super) unchecked: Option<String>,
}

/// Local references that are deleted together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LocalFrame {
    /// The first handle.
    pub(super) handles: usize,
    /// The first of [`Environment::deleted`].
    pub(super) deleted: usize,
}

/// The thread's environment, made when it is first asked for.
pub(super) fn of(thread: &mut Thread) -> Env {
    if thread.jni.is_null() {
        thread.jni = Box::into_raw(Box::new(Environment {
            functions: &raw const TABLE,
            thread: std::ptr::null_mut(),
            critical: 0,
            deleted: Vec::new(),
            frame: LocalFrame::default(),
            outer: Vec::new(),
            unchecked: None,
        }));
    }
    let env = thread.jni;
    // SAFETY: made above, and used by this thread alone.
    unsafe { (*env).thread = &raw mut *thread };
    env
}

/// Frees a thread's environment.
pub(crate) fn free_environment(thread: &mut Thread) {
    let env = std::mem::replace(&mut thread.jni, std::ptr::null_mut());
    if !env.is_null() {
        // SAFETY: made by `of`; the thread ends, so that C code does not use it any more.
        drop(unsafe { Box::from_raw(env) });
    }
}

/// The environment for functions that look into it.
///
/// # Safety
/// It is that of this thread, and no other reference to its fields is in use.
pub(super) unsafe fn state<'a>(env: Env) -> &'a mut Environment {
    // SAFETY: the caller's promise.
    unsafe { &mut *env }
}

/// Makes the thread running for `body`, and safe again, unless it holds something critical.
fn step_in<T>(env: Env, body: impl FnOnce(&mut Thread) -> T) -> T {
    // SAFETY: C code passes the environment that it was given, on the thread that it is of; the thread's own reference is not used while C code runs.
    let thread = unsafe { &mut *(*env).thread };
    let control = Arc::as_ptr(&thread.control);
    // SAFETY: the environment is this thread's; its control lives as long as the thread.
    unsafe {
        if (*env).critical == 0 {
            (*control).leave_safe();
        }
    }
    let result = body(thread);
    // SAFETY: as above.
    unsafe {
        if (*env).critical == 0 {
            (*control).enter_safe();
        }
    }
    result
}

/// Runs a function of the table. What it throws becomes pending, and it answers `failed`. Handles that it makes are given back. An exception that is pending
/// before stays so, whatever happens.
pub(super) fn running<T>(env: Env, failed: T, body: impl FnOnce(&mut Thread) -> Result<T>) -> T {
    enter(env, body, |_, _, result| result.unwrap_or(failed))
}

/// The same with an object as result, which C code gets as a local reference.
pub(super) fn making(env: Env, body: impl FnOnce(&mut Thread) -> Result<Reference>) -> Object {
    enter(env, body, |env, thread, result| result.map_or(std::ptr::null_mut(), |object| local(env, thread, object)))
}

fn enter<T, R>(
    env: Env,
    body: impl FnOnce(&mut Thread) -> Result<T>,
    finish: impl FnOnce(Env, &mut Thread, Result<T>) -> R,
) -> R {
    step_in(env, |thread| {
        if super::checks::is_on() {
            super::checks::before(env, thread);
        }
        let mark = thread.handles.mark();
        let pending = thread.take_exception();
        if pending.is_null() {
            let result = body(thread);
            thread.handles.release(mark);
            return finish(env, thread, result);
        }
        let pending = thread.handle(pending);
        let result = body(thread);
        thread.throw(pending.get());
        thread.handles.release(mark);
        finish(env, thread, result)
    })
}

/// Runs a function that looks at the pending exception, or makes one.
pub(super) fn with_pending<T>(env: Env, body: impl FnOnce(&mut Thread) -> T) -> T {
    step_in(env, |thread| {
        let mark = thread.handles.mark();
        let result = body(thread);
        thread.handles.release(mark);
        result
    })
}

/// Runs a function that gives back handles of C code itself.
pub(super) fn outside_scope(env: Env, body: impl FnOnce(&mut Thread)) {
    step_in(env, body);
}

/// A local reference to an object. The thread is running, and has no handles above those of C code.
pub(super) fn local(env: Env, thread: &mut Thread, object: Reference) -> Object {
    if object.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the environment is this thread's.
    let state = unsafe { state(env) };
    if state.deleted.len() > state.frame.deleted
        && let Some(index) = state.deleted.pop()
    {
        let handle = thread.handles.at(index);
        handle.set(object);
        return handle.address();
    }
    if !thread.handles.has_room() {
        super::errors::fatal("a thread has more than a million local references: delete those that are not used");
    }
    thread.handle(object).address()
}

/// Where a reference leads. The thread is running.
pub(super) fn get(object: Object) -> Reference {
    if object.is_null() {
        return Reference::NULL;
    }
    // SAFETY: C code passes references that it was given and that it has not deleted: addresses of slots, which other threads only access atomically.
    Reference(unsafe { AtomicU32::from_ptr(object) }.load(Ordering::Relaxed))
}

/// The class that a `jclass` stands for.
pub(super) fn class(object: Object) -> Meta<Class> {
    loader::of_mirror(get(object))
}

/// The method of an id.
pub(super) fn method(id: MethodId) -> Meta<Method> {
    let offset = id.addr().wrapping_sub(crate::object::METADATA_BASE);
    #[allow(clippy::cast_possible_truncation, reason = "the arena has 2^32 bytes")]
    // SAFETY: C code passes ids that it was given, which are made of methods.
    unsafe { Meta::from_offset(offset as u32) }.expect("a method id")
}

/// The id of a method.
pub(super) fn method_id(method: Meta<Method>) -> MethodId {
    method.as_ptr()
}

/// What a reference is by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `JNILocalRefType`, or an argument.
    Local = 1,
    /// `JNIGlobalRefType`
    Global = 2,
    /// `JNIWeakGlobalRefType`
    Weak = 3,
}

/// Which kind a reference is of; not null.
pub(super) fn kind(object: Object) -> Kind {
    match object.addr() {
        GLOBALS_BASE..WEAKS_BASE => Kind::Global,
        WEAKS_BASE..GLOBALS_END => Kind::Weak,
        _ => Kind::Local,
    }
}
