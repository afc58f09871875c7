//! Signals that Java code handles, and the thread dump of SIGQUIT.
//!
//! A handler of the host only writes the signal's number into a pipe. A thread of its own reads it, and becomes the Java thread "Signal Dispatcher" when the
//! first one comes: then it prints the dump, or calls `jdk.internal.misc.Signal.dispatch`, which runs the Java handler on a new thread. What comes while the
//! class library starts waits. With `-Xrs` the signals of shutdown and of the dump are left to the host.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bootstrap;
use crate::dump;
use crate::known;
use crate::natives::threads;
use crate::services::signals::{self, Action};
use crate::thread::{HOST_STACK_SIZE, Thread};

/// `-Xrs`
static REDUCED: AtomicBool = AtomicBool::new(false);
static STARTED: OnceLock<()> = OnceLock::new();

/// The result of a handler that cannot be set, as `Signal.handle0` has it.
pub(crate) const REFUSED: i64 = -1;
const DEFAULT: i64 = 0;
const IGNORE: i64 = 1;
const JAVA: i64 = 2;

/// Leaves signals to the host, except those that Java code asks for by name.
pub fn reduce() {
    REDUCED.store(true, Ordering::Relaxed);
}

/// Begins to listen, before Java code runs.
///
/// # Errors
/// If the host refuses the pipe or the thread.
pub(crate) fn start() -> std::io::Result<()> {
    signals::open()?;
    if !REDUCED.load(Ordering::Relaxed) {
        signals::set(signals::QUIT, Action::Tell)?;
    }
    let listener = std::thread::Builder::new().name("Signal Dispatcher".into()).stack_size(HOST_STACK_SIZE);
    listener.spawn(listen)?;
    Ok(())
}

/// The class library has started: signals are told to it from now on.
pub(crate) fn set_started() {
    let _ = STARTED.set(());
}

fn listen() {
    let mut attached: Option<&'static mut Thread> = None;
    loop {
        let number = match &mut attached {
            Some(thread) => thread.blocked(signals::next),
            None => signals::next(),
        };
        let Some(number) = number else { return };
        STARTED.wait();
        if attached.is_none() {
            attached = threads::attach(Some("Signal Dispatcher"), true, threads::system_group);
            if let Some(object) = attached.as_ref().and_then(|thread| thread.object) {
                object.get().write(known::thread_priority(), 9_i32);
            }
        }
        let Some(thread) = &mut attached else { continue };
        if number == signals::QUIT {
            dump::print(thread);
            continue;
        }
        let argument = [u64::from(number.cast_unsigned())];
        if bootstrap::call_static(thread, "jdk/internal/misc/Signal", "dispatch", "(I)V", &argument).is_err() {
            thread.take_exception();
        }
    }
}

/// `Signal.handle0`: sets the handler, and tells which there was.
pub(crate) fn handle(number: i32, handler: i64) -> i64 {
    if signals::is_crash(number) || number == signals::QUIT {
        return REFUSED;
    }
    if signals::is_shutdown(number) {
        if REDUCED.load(Ordering::Relaxed) {
            return REFUSED;
        }
        // As `nohup` wants it.
        if signals::get(number) == Action::Ignore {
            return IGNORE;
        }
    }
    let action = match handler {
        DEFAULT => Action::Default,
        IGNORE => Action::Ignore,
        _ => Action::Tell,
    };
    match signals::set(number, action) {
        Ok(Action::Default) => DEFAULT,
        Ok(Action::Ignore) => IGNORE,
        Ok(Action::Tell) => JAVA,
        Err(_) => REFUSED,
    }
}
