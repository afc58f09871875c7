//! What other threads say to a hart: interrupt lines, timer, fences, attention, wake-ups.
//!
//! ```text
//! devices, board, other harts            the hart's thread
//!   set_interrupt ----> lines  \
//!   set_timer_deadline          >  poll word != 0 --> leaves its block, looks, acts
//!   request_fence ----> fences /
//!   request_attention
//! ```
//!
//! The hart looks at one word, [`poll`](HartSignals::poll), at the end of every block; everything else is read only once that word says so.
//!
//! **Fences** are requested, then waited for. A hart that is not inside [`Hart::run`](super::Hart::run) (asleep, paused, serving a supervisor
//! call, itself waiting for a fence) executes no guest instruction and has performed what it was asked before it executes the next, so nobody
//! waits for it: two harts that fence each other do not deadlock. This is Dekker's pattern: the requester writes the poll word, then
//! reads `running`; the hart writes `running`, then reads the poll word; both sequentially consistent, so one of them sees the other.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Interrupt numbers: bits of `mip`, `mie` and `mideleg`.
pub mod interrupt {
    /// Supervisor software interrupt.
    pub const SSI: u32 = 1;
    /// Machine software interrupt.
    pub const MSI: u32 = 3;
    /// Supervisor timer interrupt.
    pub const STI: u32 = 5;
    /// Machine timer interrupt.
    pub const MTI: u32 = 7;
    /// Supervisor external interrupt.
    pub const SEI: u32 = 9;
    /// Machine external interrupt.
    pub const MEI: u32 = 11;
}

/// A fence that a hart is asked to perform on behalf of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// `fence.i`.
    Instructions,
    /// A program has changed, mapped or unmapped instructions in these pages (Linux's `riscv_flush_icache`).
    Code {
        /// The first address.
        start: u64,
        /// How many bytes.
        length: u64,
    },
    /// `sfence.vma` for the pages of a range of virtual addresses.
    Translations {
        /// The first address.
        start: u64,
        /// How many bytes; `u64::MAX` means all addresses.
        length: u64,
        /// Of one address space only, or of all.
        asid: Option<u16>,
    },
}

/// Someone wants the hart at a safe point.
const ATTENTION: u32 = 1;
/// An interrupt line rose.
const INTERRUPT: u32 = 2;
/// The timer deadline moved.
const TIMER: u32 = 4;
/// There are fences to perform.
const FENCE: u32 = 8;

/// The bits of the poll word, taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Polled(u32);

impl Polled {
    pub(crate) fn attention(self) -> bool {
        self.0 & ATTENTION != 0
    }

    pub(crate) fn fence(self) -> bool {
        self.0 & FENCE != 0
    }
}

/// The side of a hart that other threads see.
#[derive(Debug)]
pub struct HartSignals {
    poll: AtomicU32,
    /// Levels of the interrupt lines, as bits of `mip`.
    lines: AtomicU64,
    /// Edges not yet taken: bits that the guest itself clears (SSIP).
    pulses: AtomicU64,
    timer_deadline: AtomicU64,
    running: AtomicBool,
    fences: Mutex<Vec<Fence>>,
    fences_requested: AtomicU64,
    fences_performed: AtomicU64,
    asleep: AtomicBool,
    bed: Mutex<()>,
    alarm: Condvar,
}

impl Default for HartSignals {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HartSignals {
    /// All lines low, no timer set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            poll: AtomicU32::new(0),
            lines: AtomicU64::new(0),
            pulses: AtomicU64::new(0),
            timer_deadline: AtomicU64::new(u64::MAX),
            running: AtomicBool::new(false),
            fences: Mutex::new(Vec::new()),
            fences_requested: AtomicU64::new(0),
            fences_performed: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
        }
    }

    fn notify(&self, bits: u32) {
        self.poll.fetch_or(bits, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            drop(lock(&self.bed));
            self.alarm.notify_all();
        }
    }

    /// Sets the level of interrupt line `number` (see [`interrupt`]): MSI, MEI and SEI are levels. SSI is an edge: raising it sets
    /// `mip.SSIP`, which the guest clears; lowering it withdraws an edge that the hart has not yet taken. The timer interrupts have
    /// deadlines instead of lines.
    pub fn set_interrupt(&self, number: u32, raised: bool) {
        let bit = 1_u64 << (number & 63);
        let word = if number == interrupt::SSI { &self.pulses } else { &self.lines };
        if !raised {
            word.fetch_and(!bit, Ordering::SeqCst);
        } else if word.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.notify(INTERRUPT);
        }
    }

    /// Sets the tick from which on the machine timer interrupt is pending (ACLINT's `mtimecmp`); `u64::MAX` for never.
    pub fn set_timer_deadline(&self, ticks: u64) {
        self.timer_deadline.store(ticks, Ordering::SeqCst);
        self.notify(TIMER);
    }

    /// The tick from which on the machine timer interrupt is pending.
    #[must_use]
    pub fn timer_deadline(&self) -> u64 {
        self.timer_deadline.load(Ordering::SeqCst)
    }

    /// Makes [`Hart::run`](super::Hart::run) return [`Exit::Attention`](super::Exit::Attention) soon, and ends a sleep. If the hart is not
    /// running, its next run returns at once.
    pub fn request_attention(&self) {
        self.notify(ATTENTION);
    }

    /// Whether the hart is inside [`Hart::run`](super::Hart::run). If attention was requested before and the hart is not, it executes no instruction
    /// before it has returned from a run that it may begin.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Asks the hart to perform `fence`. The answer is a ticket for [`Self::wait_for_fence`].
    pub fn request_fence(&self, fence: Fence) -> u64 {
        let ticket = {
            let mut fences = lock(&self.fences);
            // Past a handful, one fence of everything is cheaper than the sum.
            if fences.len() >= 16 {
                let has_code = fences.iter().any(|old| !matches!(old, Fence::Translations { .. }));
                fences.clear();
                if has_code {
                    fences.push(Fence::Instructions);
                }
                fences.push(Fence::Translations { start: 0, length: u64::MAX, asid: None });
            }
            fences.push(fence);
            self.fences_requested.fetch_add(1, Ordering::SeqCst) + 1
        };
        self.notify(FENCE);
        ticket
    }

    /// Returns once the hart will execute no instruction without having performed the fence of `ticket`. The caller's own hart must not be
    /// inside `run`, which is so when it serves a supervisor call.
    pub fn wait_for_fence(&self, ticket: u64) {
        let mut spins = 0_u32;
        while self.running.load(Ordering::SeqCst) && self.fences_performed.load(Ordering::SeqCst) < ticket {
            spins += 1;
            if spins < 100 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Blocks the hart's thread until something is signalled or `timeout` has passed (`None`: for as long as it takes).
    pub fn sleep(&self, timeout: Option<Duration>) {
        let mut bed = lock(&self.bed);
        self.asleep.store(true, Ordering::SeqCst);
        if self.poll.load(Ordering::SeqCst) == 0 {
            // Spurious wake-ups are harmless: the hart looks again whether it has something to do.
            bed = match timeout {
                Some(timeout) => self.alarm.wait_timeout(bed, timeout).unwrap_or_else(PoisonError::into_inner).0,
                None => self.alarm.wait(bed).unwrap_or_else(PoisonError::into_inner),
            };
        }
        self.asleep.store(false, Ordering::SeqCst);
        drop(bed);
    }

    /// Whether anything is signalled: what every block asks at its end.
    #[inline(always)]
    pub(crate) fn is_polled(&self) -> bool {
        self.poll.load(Ordering::Relaxed) != 0
    }

    /// Takes what is signalled.
    pub(crate) fn take_poll(&self) -> Polled {
        Polled(self.poll.swap(0, Ordering::SeqCst))
    }

    /// The levels of the lines, as bits of `mip`.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::SeqCst)
    }

    /// Takes the edges that came since the last call, as bits of `mip`.
    pub(crate) fn take_pulses(&self) -> u64 {
        if self.pulses.load(Ordering::SeqCst) == 0 { 0 } else { self.pulses.swap(0, Ordering::SeqCst) }
    }

    /// The hart begins to execute instructions; it must look at the poll word after this.
    pub(crate) fn enter(&self) {
        self.running.store(true, Ordering::SeqCst);
    }

    /// The hart stops executing instructions.
    pub(crate) fn leave(&self) {
        self.running.store(false, Ordering::SeqCst);
    }

    /// Takes the fences to perform and the ticket to acknowledge afterwards.
    pub(crate) fn take_fences(&self) -> (Vec<Fence>, u64) {
        let mut fences = lock(&self.fences);
        (std::mem::take(&mut *fences), self.fences_requested.load(Ordering::SeqCst))
    }

    /// All fences up to `ticket` are performed.
    pub(crate) fn acknowledge_fences(&self, ticket: u64) {
        self.fences_performed.store(ticket, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nobody_waits_for_a_hart_that_stands_still() {
        let (a, b) = (HartSignals::new(), HartSignals::new());
        let (to_a, to_b) = (a.request_fence(Fence::Instructions), b.request_fence(Fence::Instructions));
        a.wait_for_fence(to_a);
        b.wait_for_fence(to_b);
        assert!(a.take_poll().fence());
        assert_eq!(a.take_fences(), (vec![Fence::Instructions], 1));
    }

    #[test]
    fn a_running_hart_is_waited_for() {
        let signals = Arc::new(HartSignals::new());
        signals.enter();
        let ticket = signals.request_fence(Fence::Instructions);
        let hart = {
            let signals = Arc::clone(&signals);
            std::thread::spawn(move || {
                while !signals.is_polled() {
                    std::thread::yield_now();
                }
                let (fences, ticket) = signals.take_fences();
                signals.acknowledge_fences(ticket);
                fences.len()
            })
        };
        signals.wait_for_fence(ticket);
        assert!(signals.fences_performed.load(Ordering::SeqCst) >= ticket);
        assert_eq!(hart.join().unwrap(), 1);
    }

    #[test]
    fn many_fences_become_one_of_everything() {
        let signals = HartSignals::new();
        signals.request_fence(Fence::Instructions);
        for page in 0..100 {
            signals.request_fence(Fence::Translations { start: page << 12, length: 4096, asid: Some(1) });
        }
        let (fences, ticket) = signals.take_fences();
        assert_eq!(ticket, 101);
        assert!(fences.len() <= 17 && fences.contains(&Fence::Instructions), "{fences:?}");
        assert!(fences.contains(&Fence::Translations { start: 0, length: u64::MAX, asid: None }));
        for page in 0..100 {
            signals.request_fence(Fence::Code { start: page << 12, length: 4096 });
        }
        let (fences, _) = signals.take_fences();
        assert!(fences.len() <= 17 && fences.contains(&Fence::Instructions), "{fences:?}");
    }

    #[test]
    fn sleep_ends_by_any_signal() {
        let signals = Arc::new(HartSignals::new());
        signals.sleep(Some(Duration::from_millis(1)));
        let waker = {
            let signals = Arc::clone(&signals);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                signals.set_interrupt(interrupt::SEI, true);
            })
        };
        while !signals.is_polled() {
            signals.sleep(None);
        }
        waker.join().unwrap();
        assert_eq!(signals.lines(), 1 << interrupt::SEI);
        signals.set_interrupt(interrupt::SSI, true);
        assert_eq!((signals.take_pulses(), signals.take_pulses()), (1 << interrupt::SSI, 0));
    }
}
