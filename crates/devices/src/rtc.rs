//! Real-time clock: the Goldfish RTC, nanoseconds since 1970 in two 32-bit registers, and one alarm.
//!
//! Specification: the Android emulator's Goldfish virtual hardware guide, as Linux drives it (`google,goldfish-rtc`).
//!
//! | offset | register | |
//! |---|---|---|
//! | `0x00` | `TIME_LOW` | reading it latches the upper half for `TIME_HIGH` |
//! | `0x04` | `TIME_HIGH` | |
//! | `0x08` | `ALARM_LOW` | writing it arms the alarm |
//! | `0x0c` | `ALARM_HIGH` | |
//! | `0x10` | `IRQ_ENABLED` | bit 0 |
//! | `0x14` | `CLEAR_ALARM` | a write disarms |
//! | `0x18` | `ALARM_STATUS` | 1 while armed |
//! | `0x1c` | `CLEAR_INTERRUPT` | a write lowers the interrupt |
//!
//! Time is the wall clock of the machine's [`Clock`], mostly the host's, plus what the guest has added by setting it; it goes on while the machine is paused, as it does in a machine whose lid is
//! closed. The alarm is rung by a thread that sleeps until it is due.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use machine::bus::{BusDevice, Width};
use machine::clock::Clock;
use machine::interrupt::InterruptLine;
use serde::{Deserialize, Serialize};

use crate::state::{self, State, StateError};
use crate::worker::{Crew, Next, Worker};
use crate::{BoardDevice, lock};

/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x1000;

/// The registers: plain data, what a snapshot saves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// What the guest's time is ahead of the host's, in nanoseconds modulo 2^64.
    pub offset_ns: u64,
    /// The upper half of the time when `TIME_LOW` was last read.
    pub time_high_latch: u32,
    /// When the alarm rings, in nanoseconds of the guest's time.
    pub alarm_ns: u64,
    /// Whether the alarm is still to ring.
    pub armed: bool,
    /// Whether a rung alarm has not been acknowledged.
    pub pending: bool,
    /// Whether it may interrupt.
    pub enabled: bool,
}

fn high(value: u64) -> u32 {
    u32::try_from(value >> 32).unwrap_or(0)
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

fn with_low(old: u64, value: u32) -> u64 {
    (old & !0xffff_ffff) | u64::from(value)
}

fn with_high(old: u64, value: u32) -> u64 {
    (old & 0xffff_ffff) | (u64::from(value) << 32)
}

impl Registers {
    /// Reads the register at `offset` when the host's wall clock says `wall_ns`.
    pub fn read(&mut self, offset: u64, wall_ns: u64) -> u32 {
        match offset {
            0x00 => {
                let now = wall_ns.wrapping_add(self.offset_ns);
                self.time_high_latch = high(now);
                low(now)
            }
            0x04 => self.time_high_latch,
            0x08 => low(self.alarm_ns),
            0x0c => high(self.alarm_ns),
            0x10 => self.enabled.into(),
            0x18 => self.armed.into(),
            _ => 0,
        }
    }

    /// Writes the register at `offset` when the host's wall clock says `wall_ns`.
    pub fn write(&mut self, offset: u64, value: u32, wall_ns: u64) {
        let now = wall_ns.wrapping_add(self.offset_ns);
        match offset {
            0x00 => self.offset_ns = with_low(now, value).wrapping_sub(wall_ns),
            0x04 => self.offset_ns = with_high(now, value).wrapping_sub(wall_ns),
            0x08 => {
                self.alarm_ns = with_low(self.alarm_ns, value);
                self.armed = true;
            }
            0x0c => self.alarm_ns = with_high(self.alarm_ns, value),
            0x10 => self.enabled = value & 1 != 0,
            0x14 => self.armed = false,
            0x1c => self.pending = false,
            _ => {}
        }
    }

    /// Rings the alarm if it is due. Answers how many nanoseconds are left if it is armed and not due.
    pub fn ring(&mut self, wall_ns: u64) -> Option<u64> {
        if !self.armed {
            return None;
        }
        let left = self.alarm_ns.saturating_sub(wall_ns.wrapping_add(self.offset_ns));
        if left > 0 {
            return Some(left);
        }
        self.armed = false;
        self.pending = true;
        None
    }

    /// The level of the interrupt line.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.pending && self.enabled
    }
}

struct Inner {
    registers: Mutex<Registers>,
    line: InterruptLine,
    clock: Arc<Clock>,
}

impl Inner {
    fn ring(&self) -> Next {
        let mut registers = lock(&self.registers);
        let left = registers.ring(self.clock.wall_ns());
        self.line.set(registers.interrupt());
        // The wall clock may be set meanwhile, so look again now and then.
        left.map_or(Next::Kick, |ns| Next::Within(Duration::from_nanos(ns).min(Duration::from_secs(60))))
    }
}

/// The clock on the bus.
pub struct Rtc {
    inner: Arc<Inner>,
    alarm: Worker,
}

impl Rtc {
    /// A clock that shows the wall clock of `clock`; alarms raise `line`.
    ///
    /// # Errors
    /// The host gives no thread for the alarm.
    pub fn new(line: InterruptLine, clock: Arc<Clock>, crew: &Crew) -> io::Result<Self> {
        let inner = Arc::new(Inner { registers: Mutex::default(), line, clock });
        let theirs = Arc::clone(&inner);
        let alarm = Worker::hire(crew, "rtc", move |_| theirs.ring())?;
        Ok(Self { inner, alarm })
    }
}

impl fmt::Debug for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtc").field("registers", &self.inner.registers).finish_non_exhaustive()
    }
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if width != Width::Word {
            return 0;
        }
        lock(&self.inner.registers).read(offset, self.inner.clock.wall_ns()).into()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let (Width::Word, Ok(value)) = (width, u32::try_from(width.truncate(value))) else { return };
        let mut registers = lock(&self.inner.registers);
        registers.write(offset, value, self.inner.clock.wall_ns());
        self.inner.line.set(registers.interrupt());
        if registers.armed {
            drop(registers);
            self.alarm.kick();
        }
    }
}

impl BoardDevice for Rtc {
    /// A battery keeps the time; the alarm is forgotten.
    fn reset(&self) {
        let mut registers = lock(&self.inner.registers);
        *registers = Registers { offset_ns: registers.offset_ns, ..Registers::default() };
        self.inner.line.set(false);
    }

    fn pause(&self) {
        self.alarm.pause();
    }

    fn resume(&self) {
        self.alarm.resume();
    }

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&*lock(&self.inner.registers)))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        let mut registers = lock(&self.inner.registers);
        *registers = state::read(state)?;
        self.inner.line.set(registers.interrupt());
        // It looks for itself when it is to ring.
        self.alarm.kick();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::clock::wall_time_ns;
    use machine::interrupt::InterruptSink;
    use std::sync::mpsc;

    #[test]
    fn time_is_latched_and_can_be_set() {
        let mut rtc = Registers::default();
        assert_eq!(rtc.read(0, 0x1_ffff_fff0), 0xffff_fff0);
        assert_eq!(rtc.read(4, 0x2_0000_0000), 1, "the half that belongs to the low half read");
        // Linux writes the upper half first.
        rtc.write(4, 5, 1000);
        rtc.write(0, 77, 1000);
        assert_eq!((rtc.read(0, 1001), rtc.read(4, 1001)), (78, 5));
    }

    #[test]
    fn alarm_registers() {
        let mut rtc = Registers::default();
        rtc.write(0x0c, 1, 0);
        rtc.write(0x08, 2, 0);
        rtc.write(0x10, 1, 0);
        assert_eq!((rtc.read(0x18, 0), rtc.read(0x08, 0), rtc.read(0x0c, 0), rtc.read(0x10, 0)), (1, 2, 1, 1));
        assert_eq!(rtc.ring(0x1_0000_0000), Some(2));
        assert!(!rtc.interrupt());
        assert_eq!(rtc.ring(0x1_0000_0002), None);
        assert!(rtc.interrupt() && rtc.read(0x18, 0) == 0);
        rtc.write(0x1c, 1, 0);
        assert!(!rtc.interrupt());
        rtc.write(0x08, 2, 0);
        rtc.write(0x14, 0, 0);
        assert_eq!(rtc.ring(u64::MAX), None, "disarmed");
        assert!(!rtc.interrupt());
    }

    struct Bell(mpsc::Sender<bool>);
    impl InterruptSink for Bell {
        fn set_level(&self, _: u32, raised: bool) {
            self.0.send(raised).unwrap();
        }
    }

    #[test]
    fn the_alarm_rings_by_itself() {
        let (sender, receiver) = mpsc::channel();
        let rtc =
            Rtc::new(InterruptLine::new(Arc::new(Bell(sender)), 1), Arc::new(Clock::new()), &Crew::Threads).unwrap();
        let now = rtc.read(0, Width::Word) | (rtc.read(4, Width::Word) << 32);
        assert!(now.abs_diff(wall_time_ns()) < 10_000_000_000);
        let alarm = now + 5_000_000;
        rtc.write(0x10, Width::Word, 1);
        rtc.write(0x0c, Width::Word, alarm >> 32);
        rtc.write(0x08, Width::Word, alarm & 0xffff_ffff);
        assert!(receiver.recv_timeout(Duration::from_secs(20)).unwrap());
        assert!(wall_time_ns() >= alarm);
        rtc.write(0x1c, Width::Word, 1);
        assert!(!receiver.recv_timeout(Duration::from_secs(20)).unwrap());
    }
}
