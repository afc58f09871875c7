//! Time. No other module reads the host's clocks.
//!
//! A machine's [`Clock`] counts nanoseconds from its creation and stands still while the machine is paused, so a
//! guest does not see the pause as a jump. The wall clock ([`Clock::wall_ns`]) is read by real-time-clock devices only.
//!
//! A clock is either *the host's* or *virtual*. A virtual clock moves only when the machine's schedule says so ([`Clock::advance_to`]), by a rule of its own (so
//! many nanoseconds for so many instructions), and its wall clock is a fixed beginning plus that: a run with it can be repeated.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use crate::sys::{process_time_ns, thread_time_ns};

/// A machine's monotonic clock.
#[derive(Debug)]
pub struct Clock(Kind);

#[derive(Debug)]
enum Kind {
    Host(HostClock),
    Virtual { now_ns: AtomicU64, epoch_ns: u64 },
}

#[derive(Debug)]
struct HostClock {
    origin: Instant,
    /// Host nanoseconds since `origin` that the guest has not seen, modulo 2^64: the sum of finished pauses, less what it had seen before.
    hidden_ns: AtomicU64,
    /// While paused: the guest's time, plus one; zero while running.
    frozen: AtomicU64,
    /// Serialises pause and resume.
    switch: Mutex<()>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A running clock of the host that reads zero now.
    #[must_use]
    pub fn new() -> Self {
        Self(Kind::Host(HostClock {
            origin: Instant::now(),
            hidden_ns: AtomicU64::new(0),
            frozen: AtomicU64::new(0),
            switch: Mutex::new(()),
        }))
    }

    /// A virtual clock that reads zero, which is `epoch_ns` nanoseconds after 1970-01-01 UTC.
    #[must_use]
    pub fn starting_at(epoch_ns: u64) -> Self {
        Self(Kind::Virtual { now_ns: AtomicU64::new(0), epoch_ns })
    }

    /// Nanoseconds that the machine has run.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Kind::Host(clock) => clock.now_ns(),
            Kind::Virtual { now_ns, .. } => now_ns.load(Ordering::Relaxed),
        }
    }

    /// Nanoseconds since 1970-01-01 UTC. The host's wall clock goes on while the machine is paused.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        match &self.0 {
            Kind::Host(_) => wall_time_ns(),
            Kind::Virtual { epoch_ns, .. } => epoch_ns.wrapping_add(self.now_ns()),
        }
    }

    /// Has a virtual clock read `ns`. Clocks never go back, and the host's does not listen.
    pub fn advance_to(&self, ns: u64) {
        if let Kind::Virtual { now_ns, .. } = &self.0 {
            now_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// Has the clock of the host, which is paused, go on from `ns`, as in the machine that it now is.
    pub fn go_on_from(&self, ns: u64) {
        match &self.0 {
            Kind::Host(clock) => clock.frozen.store(ns.wrapping_add(1).max(1), Ordering::Release),
            Kind::Virtual { now_ns, .. } => now_ns.store(ns, Ordering::Relaxed),
        }
    }

    /// Stops the clock. Pausing a paused clock does nothing, nor does a virtual one need it.
    pub fn pause(&self) {
        if let Kind::Host(clock) = &self.0 {
            clock.pause();
        }
    }

    /// Lets the clock go on from where it stood. Resuming a running clock does nothing.
    pub fn resume(&self) {
        if let Kind::Host(clock) = &self.0 {
            clock.resume();
        }
    }
}

impl HostClock {
    fn host_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn now_ns(&self) -> u64 {
        match self.frozen.load(Ordering::Acquire) {
            0 => self.host_ns().wrapping_sub(self.hidden_ns.load(Ordering::Acquire)),
            frozen => frozen - 1,
        }
    }

    fn pause(&self) {
        let _guard = self.switch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.frozen.load(Ordering::Acquire) == 0 {
            self.frozen.store(self.now_ns() + 1, Ordering::Release);
        }
    }

    fn resume(&self) {
        let _guard = self.switch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let frozen = self.frozen.load(Ordering::Acquire);
        if frozen != 0 {
            self.hidden_ns.store(self.host_ns().wrapping_sub(frozen - 1), Ordering::Release);
            self.frozen.store(0, Ordering::Release);
        }
    }
}

/// Nanoseconds since 1970-01-01 UTC by the host's wall clock; zero if the host's clock is before that.
#[must_use]
pub fn wall_time_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_still_while_paused() {
        let clock = Clock::new();
        clock.pause();
        let before = clock.now_ns();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(clock.now_ns(), before);
        clock.resume();
        let after = clock.now_ns();
        assert!(after >= before && after - before < 15_000_000, "the pause is hidden: {before} {after}");
    }

    #[test]
    fn goes_on_from_another_s_time() {
        let clock = Clock::new();
        clock.pause();
        clock.go_on_from(1 << 60);
        assert_eq!(clock.now_ns(), 1 << 60);
        clock.resume();
        let after = clock.now_ns();
        assert!(((1 << 60)..(1 << 60) + 15_000_000_000).contains(&after), "{after}");
    }

    #[test]
    fn a_virtual_clock_moves_when_told() {
        let clock = Clock::starting_at(1_000);
        assert_eq!((clock.now_ns(), clock.wall_ns()), (0, 1_000));
        clock.advance_to(50);
        clock.advance_to(20);
        clock.pause();
        assert_eq!((clock.now_ns(), clock.wall_ns()), (50, 1_050));
    }
}
