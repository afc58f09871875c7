//! The invocation interface: `JavaVM`, and threads of C code that come and go.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicU8, Ordering};

use super::classes::VERSION;
use super::environment::{ERROR, Env, Int, OK, Object, get, of};
use super::natives::text;
use crate::bootstrap;
use crate::natives::threads;
use crate::thread::Thread;

/// `JNI_EDETACHED`
const DETACHED: Int = -2;
/// `JNI_EEXIST`
const EXISTS: Int = -5;
/// `JNI_EVERSION`
const WRONG_VERSION: Int = -3;

/// `JNIInvokeInterface_`
#[derive(Debug)]
#[repr(C)]
pub(super) struct Functions {
    reserved: [usize; 3],
    destroy: extern "C" fn(Vm) -> Int,
    attach: extern "C" fn(Vm, *mut Env, *const AttachArguments) -> Int,
    detach: extern "C" fn(Vm) -> Int,
    environment: extern "C" fn(Vm, *mut Env, Int) -> Int,
    attach_daemon: extern "C" fn(Vm, *mut Env, *const AttachArguments) -> Int,
}

/// What `JavaVM *` points to.
#[repr(transparent)]
pub(super) struct Machine(#[allow(dead_code, reason = "C code reads it")] &'static Functions);

/// `JavaVM *`
pub(super) type Vm = *const Machine;

static MACHINE: Machine = Machine(&Functions { reserved: [0; 3], destroy, attach, detach, environment, attach_daemon });

/// `JavaVMAttachArgs`
#[repr(C)]
struct AttachArguments {
    version: Int,
    name: *const c_char,
    group: Object,
}

/// The one virtual machine of the process.
pub(super) fn vm() -> Vm {
    &raw const MACHINE
}

pub(super) extern "C" fn java_vm(_: Env, to: *mut Vm) -> Int {
    // SAFETY: C code passes where it wants it.
    unsafe { to.write(vm()) };
    OK
}

/// The current thread, if it is one of the virtual machine. C code runs on it, so that its own reference is not used.
fn current() -> Option<&'static mut Thread> {
    // SAFETY: only C code calls these functions, while the Rust code that called it waits.
    Thread::is_attached().then(|| unsafe { Thread::current() })
}

pub(super) extern "C" fn environment(_: Vm, to: *mut Env, version: Int) -> Int {
    let Some(thread) = current().filter(|_| !is_over()) else {
        // SAFETY: C code passes where it wants it.
        unsafe { to.write(std::ptr::null_mut()) };
        return DETACHED;
    };
    let known = is_known(version);
    // SAFETY: as above.
    unsafe { to.write(if known { of(thread) } else { std::ptr::null_mut() }) };
    if known { OK } else { WRONG_VERSION }
}

/// Whether a version of the interface is known.
pub(crate) fn is_known(version: Int) -> bool {
    matches!(version, 0x0001_0001 | 0x0001_0002 | 0x0001_0004 | 0x0001_0006 | 0x0001_0008 | 0x0009_0000 | VERSION)
}

/// Whether there is a virtual machine in this process.
static STATE: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const STARTING: u8 = 1;
const READY: u8 = 2;
/// A Java program ends the process: the virtual machine is there, but not for C code that runs at the process's end.
const HALTING: u8 = 3;
const ENDED: u8 = 4;

/// Notes that the virtual machine has started.
pub(crate) fn set_ready() {
    STATE.store(READY, Ordering::Release);
}

/// Whether C code has come too late.
fn is_over() -> bool {
    matches!(STATE.load(Ordering::Acquire), HALTING | ENDED)
}

/// Ends the process. What C code has registered for its end runs on this thread, which has no part in the virtual machine any more.
pub(crate) fn halt(thread: &mut Thread, status: i32) -> ! {
    STATE.store(HALTING, Ordering::Release);
    thread.control.enter_safe();
    std::process::exit(status)
}

/// Waits until the others are done, and runs the shutdown hooks. The virtual machine has ended then, while the process goes on.
pub(crate) fn end(thread: &mut Thread) {
    crate::natives::wait_for_others(thread);
    if bootstrap::call_static(thread, "java/lang/Shutdown", "shutdown", "()V", &[]).is_err() {
        thread.take_exception();
    }
    STATE.store(ENDED, Ordering::Release);
}

/// Claims the one place for a virtual machine.
///
/// # Errors
/// `JNI_EEXIST` if there is one, `JNI_ERR` if there was one.
pub(crate) fn claim() -> std::result::Result<(), Int> {
    match STATE.compare_exchange(NONE, STARTING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(()),
        Err(ENDED) => Err(ERROR),
        Err(_) => Err(EXISTS),
    }
}

/// Gives back what was claimed: no virtual machine was started.
pub(crate) fn unclaim() {
    STATE.store(NONE, Ordering::Release);
}

/// The virtual machine as C code knows it, if there is one.
pub(crate) fn ready() -> Option<*const c_void> {
    matches!(STATE.load(Ordering::Acquire), READY | HALTING).then(|| vm().cast())
}

/// Makes the current host thread one of the virtual machine's, with C code to go on with; its environment.
pub(crate) fn attach_as_main() -> Option<*mut c_void> {
    let thread = threads::attach(Some("main"), false, || crate::object::Reference::NULL)?;
    let env = of(thread);
    thread.control.enter_safe();
    Some(env.cast())
}

extern "C" fn attach(_: Vm, to: *mut Env, arguments: *const AttachArguments) -> Int {
    attach_as(to, arguments, false)
}

extern "C" fn attach_daemon(_: Vm, to: *mut Env, arguments: *const AttachArguments) -> Int {
    attach_as(to, arguments, true)
}

fn attach_as(to: *mut Env, arguments: *const AttachArguments, daemon: bool) -> Int {
    let env = match current() {
        _ if is_over() => return ERROR,
        Some(thread) => of(thread),
        None => {
            // SAFETY: C code passes null or arguments.
            let arguments = unsafe { arguments.as_ref() };
            let name = arguments.filter(|arguments| !arguments.name.is_null());
            let name = name.map(|arguments| classfile::mutf8::decode(text(arguments.name)));
            let group = arguments.map_or(std::ptr::null_mut(), |arguments| arguments.group);
            let Some(thread) = threads::attach(name.as_deref(), daemon, || get(group)) else { return ERROR };
            let env = of(thread);
            thread.control.enter_safe();
            env
        }
    };
    // SAFETY: as above.
    unsafe { to.write(env) };
    OK
}

extern "C" fn detach(_: Vm) -> Int {
    if is_over() {
        return ERROR;
    }
    let Some(thread) = current() else { return OK };
    // A thread that Java code runs on cannot leave.
    if thread.top_frame().is_some() {
        return ERROR;
    }
    thread.control.leave_safe();
    threads::detach(thread);
    OK
}

/// Ends the virtual machine; the process goes on. A thread that is none of it is attached for that.
extern "C" fn destroy(_: Vm) -> Int {
    if is_over() {
        return ERROR;
    }
    let thread = match current() {
        Some(thread) => {
            thread.control.clone().leave_safe();
            thread
        }
        None => match threads::attach(Some("DestroyJavaVM"), false, || crate::object::Reference::NULL) {
            Some(thread) => thread,
            None => return ERROR,
        },
    };
    end(thread);
    thread.control.enter_safe();
    OK
}
