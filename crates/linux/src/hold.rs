//! Holding a program from outside: none of its instructions is executed until it is released.
//!
//! A thread passes by [`Hold::pass`] before its hart runs. Who holds writes the word, asks the harts for attention, and waits for those that run: a hart that
//! does not, and sees attention, executes nothing before its thread has passed (see [`HartSignals::is_running`](riscv::hart::HartSignals::is_running)).
//! System calls that were made before go on, as those of a stopped process do; so do its children, which are processes of their own.
//!
//! Cost: a load for each system call and signal. There is no lock, so that a fork finds none taken.

use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::space::AddressSpace;
use crate::sys::raw;

/// What a process is held by.
#[derive(Debug, Default)]
pub struct Hold {
    held: AtomicU32,
    /// Whether this process is a fork of the one that can be held.
    left: AtomicBool,
    name: OnceLock<OsString>,
}

impl Hold {
    /// Returns once nobody holds the process.
    #[inline]
    pub(crate) fn pass(&self) {
        while self.held.load(Ordering::SeqCst) != 0 {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        let wait = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as u64;
        // SAFETY: the word is there for as long as `self` is borrowed. A signal ends the call, and the word is looked at again.
        unsafe { raw(libc::SYS_futex, [self.held.as_ptr() as u64, wait, 1, 0, 0, 0]) };
    }

    fn let_go(&self) {
        self.held.store(0, Ordering::SeqCst);
        let wake = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as u64;
        // SAFETY: the kernel looks for waiters by the address.
        unsafe { raw(libc::SYS_futex, [self.held.as_ptr() as u64, wake, i32::MAX as u64, 0, 0, 0]) };
    }

    /// This process is a fork of the one that is held.
    pub(crate) fn leave(&self) {
        self.held.store(0, Ordering::SeqCst);
        self.left.store(true, Ordering::SeqCst);
    }

    /// The name by which this very process is held.
    pub(crate) fn name(&self) -> Option<&OsString> {
        self.name.get().filter(|_| !self.left.load(Ordering::SeqCst))
    }
}

/// The other end of a [`Hold`].
#[derive(Clone)]
pub struct Holder {
    hold: Arc<Hold>,
    space: Arc<AddressSpace>,
}

impl Holder {
    pub(crate) fn new(hold: Arc<Hold>, space: Arc<AddressSpace>) -> Self {
        Self { hold, space }
    }

    /// Returns once no thread of the process executes instructions, and none will.
    pub fn hold(&self) {
        self.hold.held.store(1, Ordering::SeqCst);
        for hart in self.space.all_harts() {
            hart.request_attention();
        }
        // A thread that is born meanwhile passes by the word first.
        while self.space.all_harts().iter().any(|hart| hart.is_running()) {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }

    /// Lets it go on.
    pub fn release(&self) {
        self.hold.let_go();
    }

    /// Whether it is held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold.held.load(Ordering::SeqCst) != 0
    }

    /// The name that the process keeps when it executes another program.
    pub fn set_name(&self, name: OsString) {
        // It has one name.
        let _ = self.hold.name.set(name);
    }

    /// Whether this process is the one that was started, and no fork of it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        !self.hold.left.load(Ordering::SeqCst)
    }

    /// Sends the process a signal, as from outside.
    pub fn signal(&self, signal: u32) {
        // SAFETY: takes numbers.
        unsafe {
            let process = raw(libc::SYS_getpid, [0; 6]);
            raw(libc::SYS_kill, [process.cast_unsigned(), signal.into(), 0, 0, 0, 0]);
        }
    }
}

/// Gives the calling thread a table of descriptors of its own, with nothing in it but the null device for standard streams. What it opens from then on the
/// program does not see and cannot close, and what the program closes is closed.
///
/// # Errors
/// The host is older than this call (Linux 5.9).
pub fn leave_descriptors() -> io::Result<()> {
    /// `CLOSE_RANGE_UNSHARE`.
    const UNSHARE: u64 = 1 << 1;
    // SAFETY: the calling thread has no descriptors that it uses.
    let answer = unsafe { raw(libc::SYS_close_range, [0, u64::from(u32::MAX), UNSHARE, 0, 0, 0]) };
    if answer < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-answer).unwrap_or(libc::EINVAL)));
    }
    for _ in 0..3 {
        let flags = (libc::O_RDWR | libc::O_CLOEXEC) as u64;
        // SAFETY: the kernel reads the path. The lowest free numbers are taken: those of the standard streams.
        unsafe { raw(libc::SYS_openat, [libc::AT_FDCWD as u64, c"/dev/null".as_ptr() as u64, flags, 0, 0, 0]) };
    }
    Ok(())
}
