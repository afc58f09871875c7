//! How a processor is called out of the guest.
//!
//! A processor's thread is inside `KVM_RUN` most of the time. A signal ends that call; but one that arrives just before it would be lost, so the signal's handler
//! also sets `immediate_exit` in the processor's page, which `KVM_RUN` looks at first.

use std::cell::Cell;
use std::io;
use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use kvm_bindings::kvm_run;
use libc::{c_int, c_void, pthread_t, siginfo_t};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::lock;

thread_local! {
    /// The page of the processor that this thread runs; null if none.
    static PAGE: Cell<*mut kvm_run> = const { Cell::new(null_mut()) };
}

extern "C" fn handle(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let page = PAGE.get();
    if !page.is_null() {
        // SAFETY: the page stays mapped while it is this thread's (see `Inside`). The handler runs on the thread, which uses the field by volatile
        // accesses only.
        unsafe { (&raw mut (*page).immediate_exit).write_volatile(1) };
    }
}

/// The signal's handler is there from the first processor on, for good.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed =
        INSTALLED.get_or_init(|| register_signal_handler(SIGRTMIN(), handle).map_err(|error| error.errno()));
    installed.map_err(io::Error::from_raw_os_error)
}

/// Calls one processor out of the guest.
#[derive(Debug)]
pub struct Kick {
    wanted: AtomicBool,
    /// The thread that runs the processor, while it does.
    thread: Mutex<Option<pthread_t>>,
}

impl Kick {
    pub(super) fn new() -> io::Result<Self> {
        install()?;
        Ok(Self { wanted: AtomicBool::new(false), thread: Mutex::new(None) })
    }

    /// Has the processor come out soon, or not go in: once.
    pub fn kick(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        if let Some(thread) = *lock(&self.thread) {
            // SAFETY: the thread cannot end while it is registered, since it takes the lock to leave.
            let result = unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
            debug_assert_eq!(result, 0, "the thread lives and the signal exists");
        }
    }

    /// Whether the processor is to stay out.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    pub(super) fn clear(&self) {
        self.wanted.store(false, Ordering::SeqCst);
    }

    /// This thread runs the processor with that page, until the answer is dropped.
    ///
    /// # Safety
    /// The page stays mapped until then.
    pub(super) unsafe fn enter(&self, page: *mut kvm_run) -> Inside<'_> {
        PAGE.set(with_exposed_provenance_mut(page.expose_provenance()));
        // SAFETY: no arguments, cannot fail.
        *lock(&self.thread) = Some(unsafe { libc::pthread_self() });
        Inside(self)
    }
}

/// While a thread runs a processor.
pub(super) struct Inside<'a>(&'a Kick);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *lock(&self.0.thread) = None;
        PAGE.set(null_mut());
    }
}
