//! Exceptions, and errors that end the process.

use std::backtrace::Backtrace;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};

use super::checks;
use super::environment::{Boolean, ERROR, Env, Int, OK, Object, class, get, local, with_pending};
use super::natives::text;
use crate::exceptions;
use crate::interpreter;
use crate::known;
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::Thread;

pub(super) extern "C" fn throw(env: Env, object: Object) -> Int {
    with_pending(env, |thread| match get(object) {
        exception if exception.is_null() => ERROR,
        exception => {
            thread.throw(exception);
            OK
        }
    })
}

pub(super) extern "C" fn throw_new(env: Env, of: Object, message: *const c_char) -> Int {
    with_pending(env, |thread| {
        thread.take_exception();
        let class = class(of);
        let message = (!message.is_null()).then(|| classfile::mutf8::decode(text(message)));
        match exceptions::make(thread, class, message.as_deref()) {
            Ok(exception) => {
                thread.throw(exception.get());
                OK
            }
            Err(_) => ERROR,
        }
    })
}

pub(super) extern "C" fn occurred(env: Env) -> Object {
    checks::asked(env);
    let mut object = std::ptr::null_mut();
    super::environment::outside_scope(env, |thread| object = local(env, thread, thread.exception));
    object
}

pub(super) extern "C" fn check(env: Env) -> Boolean {
    checks::asked(env);
    with_pending(env, |thread| Boolean::from(!thread.exception.is_null()))
}

pub(super) extern "C" fn clear(env: Env) {
    checks::asked(env);
    with_pending(env, |thread| {
        thread.take_exception();
    });
}

/// Writes the pending exception to standard error, as an uncaught one, and forgets it.
pub(super) extern "C" fn describe(env: Env) {
    with_pending(env, describe_pending);
}

/// The same.
pub(crate) fn describe_pending(thread: &mut Thread) {
    let exception = thread.take_exception();
    if exception.is_null() {
        return;
    }
    let exception = thread.handle(exception);
    if let Some(name) = thread_name(thread) {
        eprint!("Exception in thread \"{name}\" ");
    }
    let print = exception.get().class().find_method(Symbol::new("printStackTrace"), Symbol::new("()V"));
    if let Some(print) = print
        && interpreter::call(thread, print, &[exception.slot()]).is_err()
    {
        thread.take_exception();
    }
}

fn thread_name(thread: &Thread) -> Option<String> {
    let object = thread.object?.get();
    let name = object.reference(known::thread_name());
    (name != Reference::NULL).then(|| strings::text(name))
}

pub(super) extern "C" fn fatal_error(env: Env, message: *const c_char) {
    let message = String::from_utf8_lossy(text(message)).into_owned();
    with_pending(env, |thread| {
        println!("FATAL ERROR in native method: {message}");
        print_frames(thread);
    });
    end();
}

/// Tells which Java frames C code was called from; on a thread of C code that has none, which functions of C code.
pub(super) fn print_frames(thread: &Thread) {
    for frame in thread.frames() {
        println!("\tat {}", crate::dump::frame_text(frame));
    }
    if thread.frames().next().is_none() {
        println!("Native frames:");
        let trace = Backtrace::force_capture().to_string();
        native_frames(&trace).for_each(|name| println!("C  {name}"));
    }
}

/// The functions of a trace that are not Rust's: of lines such as `  12: name`, between which others tell where that is.
fn native_frames(trace: &str) -> impl Iterator<Item = &str> {
    trace.lines().filter_map(|line| {
        let (number, name) = line.trim_start().split_once(": ")?;
        (number.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains("::")).then_some(name)
    })
}

/// Ends the process since C code asked for what cannot be.
pub(super) fn fatal(message: &str) -> ! {
    println!("FATAL ERROR in native method: {message}");
    if Thread::is_attached() {
        // SAFETY: nothing goes on that uses the thread.
        print_frames(unsafe { Thread::current() });
    }
    end();
}

/// `-XX:-CreateCoredumpOnCrash`
static QUIET_END: AtomicBool = AtomicBool::new(false);

/// Lets errors of C code end the process with a status, not by a signal.
pub(crate) fn end_quietly() {
    QUIET_END.store(true, Ordering::Relaxed);
}

/// Ends the process since an agent cannot begin.
pub(crate) fn refuse_start(message: &str) -> ! {
    println!("FATAL ERROR in native method: {message}");
    end();
}

fn end() -> ! {
    if QUIET_END.load(Ordering::Relaxed) {
        std::process::exit(1);
    }
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::native_frames;

    #[test]
    fn functions_of_c_code_in_a_trace() {
        let trace = "   0: jvm::jni::errors::fatal\n             at ./src/jni/errors.rs:1:2\n   1: std::sys::run: inner\n  \
                     10: thread_start\n  11: <unknown>\n";
        assert!(native_frames(trace).eq(["thread_start", "<unknown>"]));
    }
}
