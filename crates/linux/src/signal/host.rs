//! The host's side of signals: one handler that only records, and system calls that a signal cannot slip past.
//!
//! The host's kernel keeps the guest's signals: dispositions, masks and queues of the guest's threads are those of the host threads that run them.
//! What the guest handles itself is caught here by a handler that copies `siginfo`, blocks all further signals in the interrupted context, and asks the
//! hart for attention. So at most one signal per thread is recorded and not yet delivered; all others stay where they are queued best.
//!
//! **The race.** A signal that arrives after the last look at "is one recorded?" and before a blocking system call must end that call. The look and
//! the call are therefore a few instructions of known addresses; the handler, when it finds the thread between them, moves it to a way out that
//! answers [`RESTART`](crate::sys::RESTART):
//!
//! ```text
//! begin:  cmp  recorded, 0
//!         jne  interrupted
//!         syscall              <- a call that the kernel wants repeated is left with rip here again
//! end:    ret
//! interrupted: mov rax, RESTART; ret
//! ```
//!
//! Since the handlers are installed with `SA_RESTART`, the kernel itself tells calls that may be repeated from those that end with `EINTR`: it
//! rewinds `rip` to `syscall` before it runs the handler, which is inside that range. Whether the guest's call is repeated is then the
//! guest's own `SA_RESTART`.

use std::cell::{Cell, UnsafeCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence};

use riscv::hart::HartSignals;
use riscv::translate::CodeCache;

use super::frame::SIGINFO_SIZE;
use crate::sys::{Faulted, end_copy, interruptible, leave_call, raw, restorer};

/// The bit of `signal` in a mask.
#[must_use]
pub const fn bit(signal: u32) -> u64 {
    1 << (signal.wrapping_sub(1) & 63)
}

/// Signals that the processor raises. They are never blocked on the host, because guest code that runs there raises them itself.
pub const SYNCHRONOUS: u64 = bit(4) | bit(5) | bit(7) | bit(8) | bit(11);

/// Those of them by which the host tells of faults that translated code leaves to it: of memory SIGBUS and SIGSEGV, of floating point SIGFPE. The host always
/// records them, whatever the guest does with them.
pub const FAULTS: u64 = bit(7) | bit(8) | bit(11);

const SIGFPE: u32 = 8;

/// `siginfo_t`, as bytes: the same on all 64-bit little-endian machines.
pub type SignalInfo = [u8; SIGINFO_SIZE];

/// What the handler and the thread that it interrupts share. Only that one thread touches it.
#[derive(Debug)]
pub struct Mailbox {
    /// The number of the signal in `info`, or 0. The interruptible calls look at it.
    recorded: AtomicU32,
    info: UnsafeCell<SignalInfo>,
    /// What the guest has blocked: decides about synchronous signals that someone sent.
    mask: AtomicU64,
    /// Synchronous signals that someone sent while the guest had them blocked.
    held: AtomicU64,
    hart: Arc<HartSignals>,
    /// Translated code that the thread executes: faults in it are the guest's.
    code: AtomicPtr<CodeCache>,
}

// SAFETY: the cell is touched by its own thread and by handlers on that thread only, as `Mailbox::take` says.
unsafe impl Send for Mailbox {}
// SAFETY: as above.
unsafe impl Sync for Mailbox {}

thread_local! {
    static CURRENT: Cell<*const Mailbox> = const { Cell::new(std::ptr::null()) };
}

impl Mailbox {
    /// An empty one, for the thread of the hart with these signals.
    #[must_use]
    pub fn new(hart: Arc<HartSignals>, mask: u64) -> Self {
        Self {
            recorded: AtomicU32::new(0),
            info: UnsafeCell::new([0; SIGINFO_SIZE]),
            mask: AtomicU64::new(mask),
            held: AtomicU64::new(0),
            hart,
            code: AtomicPtr::default(),
        }
    }

    /// Makes it the current thread's, and answers which was before. The handler writes to it from now on.
    ///
    /// # Safety
    /// It must live until another is adopted, or the thread has all signals blocked for good.
    pub unsafe fn adopt(this: *const Self) -> *const Self {
        CURRENT.with(|current| current.replace(this))
    }

    /// Calls `act` with the current thread's, if it has one.
    pub fn with_current<T>(act: impl FnOnce(&Self) -> T) -> Option<T> {
        // SAFETY: it lives until another is adopted, which `act` has no way to do.
        let mailbox = unsafe { CURRENT.with(Cell::get).as_ref() };
        mailbox.map(act)
    }

    /// What translated code the thread executes from now on, as long as its hart holds that. By the thread itself.
    pub fn set_code(&self, code: Option<&Arc<CodeCache>>) {
        let code = code.map_or(std::ptr::null(), Arc::as_ptr);
        self.code.store(code.cast_mut(), Ordering::Relaxed);
    }

    /// Whether a signal waits to be delivered. By the thread itself.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Relaxed) != 0 || self.held.load(Ordering::Relaxed) & !self.mask() != 0
    }

    /// Takes the recorded signal: its number and information. All signals are still blocked on the host: the caller sets the mask that
    /// shall hold from now on. By the thread itself.
    pub fn take(&self) -> Option<(u32, SignalInfo)> {
        let signal = self.recorded.load(Ordering::Relaxed);
        if signal != 0 {
            // SAFETY: with `recorded` set, no handler writes, since all signals that it records are blocked.
            let info = unsafe { *self.info.get() };
            compiler_fence(Ordering::SeqCst);
            self.recorded.store(0, Ordering::Relaxed);
            return Some((signal, info));
        }
        let due = self.held.load(Ordering::Relaxed) & !self.mask();
        if due == 0 {
            return None;
        }
        let signal = due.trailing_zeros() + 1;
        self.held.fetch_and(!bit(signal), Ordering::Relaxed);
        let mut info = [0; SIGINFO_SIZE];
        info[..4].copy_from_slice(&signal.to_le_bytes());
        Some((signal, info))
    }

    /// The guest's mask.
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.mask.load(Ordering::Relaxed)
    }

    /// Blocks what the guest blocks, and nothing else. A signal that was waiting may be recorded at once.
    pub fn set_mask(&self, mask: u64) {
        self.mask.store(mask, Ordering::Relaxed);
        set_host_mask(mask);
    }
}

/// Blocks `mask` on the calling thread, except what must never be.
pub fn set_host_mask(mask: u64) {
    let mask = mask & !SYNCHRONOUS;
    // SAFETY: the kernel reads eight bytes at the pointer, and writes nothing.
    unsafe { raw(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, (&raw const mask) as u64, 0, 8, 0, 0]) };
}

/// Which signals the calling thread has blocked on the host.
#[must_use]
pub fn host_mask() -> u64 {
    let mut mask = 0_u64;
    // SAFETY: the kernel writes eight bytes at the pointer.
    unsafe { raw(libc::SYS_rt_sigprocmask, [0, 0, (&raw mut mask) as u64, 8, 0, 0]) };
    mask
}

/// The kernel's `struct sigaction` on x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct HostAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// The kernel wants to be told how a handler returns.
const SA_RESTORER: u64 = 0x0400_0000;

/// What the host does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// `SIG_DFL`.
    Default,
    /// `SIG_IGN`.
    Ignore,
    /// Record it for the guest's handler. `flags` are those that the kernel acts on: `SA_NOCLDSTOP` and `SA_NOCLDWAIT`.
    Record {
        /// Of the guest's action.
        flags: u64,
    },
}

/// Sets what the host does with `signal`. By system call, since the C library keeps two signals for itself that the guest's C library uses as well.
///
/// # Errors
/// The kernel's negative error number: for `SIGKILL`, `SIGSTOP`, and numbers that are none.
pub fn set_disposition(signal: u32, disposition: Disposition) -> Result<(), i64> {
    let action = match disposition {
        Disposition::Default => HostAction::default(),
        Disposition::Ignore => HostAction { handler: 1, ..HostAction::default() },
        Disposition::Record { flags } => {
            let kept = flags & (libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT) as u64;
            let own = (libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK) as u64;
            HostAction {
                handler: record as *const () as u64,
                flags: kept | own | SA_RESTORER,
                restorer: restorer as *const () as u64,
                mask: !SYNCHRONOUS,
            }
        }
    };
    // SAFETY: the kernel reads one action at the pointer, whose handler and restorer are functions of this module.
    let answer = unsafe { raw(libc::SYS_rt_sigaction, [signal.into(), (&raw const action) as u64, 0, 8, 0, 0]) };
    if answer < 0 { Err(answer) } else { Ok(()) }
}

/// What the host does with `signal` now; anything but ignoring counts as the default.
#[must_use]
pub fn is_ignored(signal: u32) -> bool {
    let mut action = HostAction::default();
    // SAFETY: the kernel writes one action at the pointer.
    let answer = unsafe { raw(libc::SYS_rt_sigaction, [signal.into(), 0, (&raw mut action) as u64, 8, 0, 0]) };
    answer == 0 && action.handler == 1
}

/// The handler. It touches the mailbox and the interrupted context, and asks for attention, which is a few atomic operations as
/// long as the hart does not sleep; harts of programs never do.
extern "C" fn record(signal: i32, info: *const SignalInfo, context: *mut libc::ucontext_t) {
    let mailbox = CURRENT.with(Cell::get);
    let signal = signal.unsigned_abs();
    // SAFETY: `Mailbox::adopt` keeps it alive, and `Mailbox::set_code` the code; the kernel's pointers are to what it says, for as long as the handler runs.
    unsafe {
        let code = info.cast::<i32>().add(2).read();
        let mailbox = mailbox.as_ref();
        if bit(signal) & FAULTS != 0 && code > 0 {
            let cache = mailbox.and_then(|mailbox| mailbox.code.load(Ordering::Relaxed).as_ref());
            let is_handled = if signal == SIGFPE {
                cache.is_some_and(|cache| cache.float_fault(&mut Faulted(&mut *context)))
            } else {
                end_copy(&mut *context) || cache.is_some_and(|cache| cache.fault(&mut Faulted(&mut *context)))
            };
            if is_handled {
                return;
            }
        }
        if bit(signal) & SYNCHRONOUS != 0 && code > 0 {
            // A fault of this process itself: it happens again at the return, and ends it.
            let _ = set_disposition(signal, Disposition::Default);
            return;
        }
        let Some(mailbox) = mailbox else { return };
        if bit(signal) & SYNCHRONOUS != 0
            && (mailbox.mask() & bit(signal) != 0 || mailbox.recorded.load(Ordering::Relaxed) != 0)
        {
            mailbox.held.fetch_or(bit(signal), Ordering::Relaxed);
        } else {
            mailbox.info.get().copy_from_nonoverlapping(info, 1);
            compiler_fence(Ordering::SeqCst);
            mailbox.recorded.store(signal, Ordering::Relaxed);
            // The kernel's set is eight bytes, of which the type here is only the beginning.
            (&raw mut (*context).uc_sigmask).cast::<u64>().write_unaligned(!SYNCHRONOUS);
        }
        leave_call(&mut *context);
        mailbox.hart.request_attention();
    }
}

/// A system call that a signal for the guest ends, however late before it or early in it the signal comes: [`RESTART`](crate::sys::RESTART) if it may be repeated, else
/// what the kernel answers. `mailbox` must be the thread's own.
///
/// # Safety
/// As for the system call itself.
pub unsafe fn call(mailbox: &Mailbox, number: i64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the caller's promise; the mailbox outlives the call.
    unsafe { interruptible(&raw const mailbox.recorded, number, a, b, c, d, e, f) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::RESTART;

    /// Runs `body` on a thread of its own that catches `signal`.
    fn with_mailbox(signal: u32, body: impl FnOnce(&Mailbox) + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mailbox = Mailbox::new(Arc::new(HartSignals::new()), 0);
                // SAFETY: replaced before the mailbox goes.
                unsafe { Mailbox::adopt(&raw const mailbox) };
                set_disposition(signal, Disposition::Record { flags: 0 }).unwrap();
                body(&mailbox);
                set_host_mask(u64::MAX);
                // SAFETY: none is always allowed.
                unsafe { Mailbox::adopt(std::ptr::null()) };
            });
        });
    }

    fn send(signal: u32) {
        // SAFETY: sends this thread a signal that it catches.
        unsafe { raw(libc::SYS_tgkill, [std::process::id().into(), own_tid(), signal.into(), 0, 0, 0]) };
    }

    fn own_tid() -> u64 {
        // SAFETY: has no arguments.
        unsafe { raw(libc::SYS_gettid, [0; 6]) }.unsigned_abs()
    }

    #[test]
    fn a_signal_before_a_call_ends_it() {
        with_mailbox(40, |mailbox| {
            send(40);
            assert!(mailbox.is_recorded());
            // SAFETY: pause has no arguments. It would wait forever.
            assert_eq!(unsafe { call(mailbox, libc::SYS_pause, [0; 6]) }, RESTART);
            let (signal, info) = mailbox.take().unwrap();
            assert_eq!((signal, info[0]), (40, 40));
            assert!(!mailbox.is_recorded());
            assert_eq!(host_mask() | SYNCHRONOUS | bit(9) | bit(19), u64::MAX);
            mailbox.set_mask(0);
            assert_eq!(host_mask(), 0);
        });
    }

    #[test]
    fn one_signal_is_recorded_and_the_rest_stay_queued() {
        with_mailbox(41, |mailbox| {
            send(41);
            send(41);
            assert!(mailbox.take().is_some());
            assert!(mailbox.take().is_none());
            mailbox.set_mask(0);
            assert!(mailbox.take().is_some());
            mailbox.set_mask(0);
            assert!(mailbox.take().is_none());
        });
    }

    /// Signals from outside, at all moments around a call that waits for ever: none is lost, or this hangs.
    #[test]
    fn no_moment_loses_a_signal() {
        with_mailbox(42, |mailbox| {
            let (tid, pid) = (own_tid(), std::process::id());
            let start = Instant::now();
            let taken = &AtomicU32::new(0);
            std::thread::scope(|scope| {
                let rounds = 20_000_u32;
                scope.spawn(move || {
                    set_host_mask(u64::MAX);
                    for round in 0..rounds {
                        // SAFETY: sends a signal to a thread that catches it.
                        unsafe { raw(libc::SYS_tgkill, [pid.into(), tid, 42, 0, 0, 0]) };
                        while taken.load(Ordering::SeqCst) <= round {
                            assert!(start.elapsed() < Duration::from_secs(60), "the signal of round {round} was lost");
                            std::hint::spin_loop();
                        }
                    }
                });
                while taken.load(Ordering::SeqCst) < rounds {
                    // SAFETY: pause has no arguments.
                    let answer = unsafe { call(mailbox, libc::SYS_pause, [0; 6]) };
                    assert!(answer == RESTART || answer == -i64::from(libc::EINTR), "{answer}");
                    assert!(mailbox.take().is_some());
                    mailbox.set_mask(0);
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
    }

    #[test]
    fn the_kernel_says_which_calls_may_be_repeated() {
        with_mailbox(43, |mailbox| {
            let mut pipe = [0_i32; 2];
            let mut byte = 0_u8;
            let tid = own_tid();
            let interrupted = |number: i64, arguments: [u64; 6]| {
                let pid = std::process::id();
                let sender = std::thread::spawn(move || {
                    set_host_mask(u64::MAX);
                    std::thread::sleep(Duration::from_millis(50));
                    // SAFETY: sends a signal to a thread that catches it.
                    unsafe { raw(libc::SYS_tgkill, [pid.into(), tid, 43, 0, 0, 0]) };
                });
                // SAFETY: the arguments below point to what the calls need.
                let answer = unsafe { call(mailbox, number, arguments) };
                assert_eq!(mailbox.take().map(|(signal, _)| signal), Some(43));
                mailbox.set_mask(0);
                sender.join().unwrap();
                answer
            };
            // SAFETY: the kernel writes two descriptors.
            unsafe { raw(libc::SYS_pipe2, [(&raw mut pipe) as u64, 0, 0, 0, 0, 0]) };
            let read = [pipe[0].unsigned_abs().into(), (&raw mut byte) as u64, 1, 0, 0, 0];
            assert_eq!(interrupted(libc::SYS_read, read), RESTART);
            assert_eq!(interrupted(libc::SYS_poll, [0, 0, 10_000, 0, 0, 0]), -i64::from(libc::EINTR));
            for end in pipe {
                // SAFETY: closes what was opened here.
                unsafe { raw(libc::SYS_close, [end.unsigned_abs().into(), 0, 0, 0, 0, 0]) };
            }
        });
    }
}
