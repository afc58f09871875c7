//! Core-local interruptor: the machine timer (MTIMER) and machine software interrupts (MSWI) of every hart.
//!
//! Specification: RISC-V ACLINT 1.0-rc4, chapters 2 and 3, at the offsets of the SiFive CLINT, so that software for either finds it:
//!
//! | offset | register | |
//! |---|---|---|
//! | `0x0000 + 4 * hart` | `msip` | bit 0 is the hart's machine software interrupt |
//! | `0x4000 + 8 * hart` | `mtimecmp` | the timer interrupt is pending while `mtime >= mtimecmp` |
//! | `0xbff8` | `mtime` | ticks of 10 MHz; writable |
//!
//! The device has no timer of its own. A hart knows its deadline and compares it with [`TimeSource::ticks`], which costs less than a thread that
//! would have to interrupt it. Reading `mtime` takes no lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use machine::bus::{BusDevice, Width};
use machine::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::state::{self, State, StateError};
use crate::{BoardDevice, lock};

/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x1_0000;
/// How often `mtime` ticks in a second (the device tree's `timebase-frequency`).
pub const TICKS_PER_SECOND: u64 = 10_000_000;
/// The most harts that the layout has room for.
pub const HARTS_COUNT_MAX: usize = 4095;

const NS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND;
const MSIP: u64 = 0;
const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;
const MTIME_END: u64 = 0xc000;

/// The time that harts see (`mtime`, and `time` read by `rdtime`): the machine's clock in ticks, plus what the guest added by writing `mtime`.
#[derive(Debug)]
pub struct TimeSource {
    clock: Arc<Clock>,
    /// Ticks, modulo 2^64.
    offset: AtomicU64,
}

impl TimeSource {
    /// Time that is zero when `clock` is.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { clock, offset: AtomicU64::new(0) }
    }

    /// The time now, in ticks of [`TICKS_PER_SECOND`].
    #[must_use]
    pub fn ticks(&self) -> u64 {
        (self.clock.now_ns() / NS_PER_TICK).wrapping_add(self.offset.load(Ordering::Relaxed))
    }

    /// How many nanoseconds of the machine's clock pass until `deadline` (in ticks): 0 if it has come, `u64::MAX` if that is out of reach.
    #[must_use]
    pub fn ns_until(&self, deadline: u64) -> u64 {
        deadline.saturating_sub(self.ticks()).saturating_mul(NS_PER_TICK)
    }

    fn set_ticks(&self, ticks: u64) {
        self.offset.store(ticks.wrapping_sub(self.clock.now_ns() / NS_PER_TICK), Ordering::Relaxed);
    }
}

/// What the device tells a hart. Calls come from any thread, one at a time for one hart, with the device's lock held: they must not call back.
pub trait HartLines: Send + Sync {
    /// The machine software interrupt (`mip.MSIP`) now has this level.
    fn set_software_interrupt(&self, level: bool);

    /// The machine timer interrupt (`mip.MTIP`) is pending while `mtime >= ticks`. Also called with an unchanged deadline when the guest
    /// has set `mtime`, so that a hart that sleeps works out anew how long, for this and for `stimecmp`.
    fn set_timer_deadline(&self, ticks: u64);
}

/// The registers that are not time: plain data, all that a snapshot saves beside [`TimeSource`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// `mtimecmp` of each hart.
    pub mtimecmp: Vec<u64>,
    /// `msip` of each hart.
    pub msip: Vec<bool>,
}

impl Registers {
    /// After power-on: no interrupt pending, and no deadline in sight.
    #[must_use]
    pub fn new(harts_count: usize) -> Self {
        Self { mtimecmp: vec![u64::MAX; harts_count], msip: vec![false; harts_count] }
    }
}

/// What a snapshot has: the time, and the registers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    ticks: u64,
    registers: Registers,
}

/// A register that an access means.
enum Register {
    Msip(usize),
    /// Which hart's, and by how many bits the access is shifted.
    Mtimecmp(usize, u32),
    Mtime(u32),
}

fn decode(offset: u64, width: Width) -> Option<Register> {
    let index = |base: u64, shift: u32| usize::try_from((offset - base) >> shift).ok();
    // Naturally aligned, so a word is the low or the high half of a double.
    let half = if offset & 4 == 0 { 0 } else { 32 };
    match (offset, width) {
        (MSIP..MTIMECMP, Width::Word) => Some(Register::Msip(index(MSIP, 2)?)),
        (MTIME..MTIME_END, Width::Word | Width::Double) => Some(Register::Mtime(half)),
        (MTIMECMP..MTIME, Width::Word | Width::Double) => Some(Register::Mtimecmp(index(MTIMECMP, 3)?, half)),
        _ => None,
    }
}

/// `old` with the `width` bits at `shift` replaced.
fn merge(old: u64, shift: u32, width: Width, value: u64) -> u64 {
    let mask = width.truncate(u64::MAX) << shift;
    (old & !mask) | ((value << shift) & mask)
}

/// The core-local interruptor on the bus.
pub struct Aclint {
    time: Arc<TimeSource>,
    registers: Mutex<Registers>,
    harts: Vec<Arc<dyn HartLines>>,
}

impl Aclint {
    /// Timer and software interrupts for `harts`, in the order of their `mhartid`. Those past [`HARTS_COUNT_MAX`] get no registers.
    #[must_use]
    pub fn new(time: Arc<TimeSource>, mut harts: Vec<Arc<dyn HartLines>>) -> Self {
        harts.truncate(HARTS_COUNT_MAX);
        Self { time, registers: Mutex::new(Registers::new(harts.len())), harts }
    }

    /// The time that harts see.
    #[must_use]
    pub fn time(&self) -> &Arc<TimeSource> {
        &self.time
    }

    /// Sets the machine timer deadline of `hart`, as a write of `mtimecmp` does. Harts that do not exist are ignored.
    pub fn set_deadline(&self, hart: usize, ticks: u64) {
        self.write_mtimecmp(hart, 0, Width::Double, ticks);
    }

    fn write_mtimecmp(&self, hart: usize, shift: u32, width: Width, value: u64) {
        let mut registers = lock(&self.registers);
        if let (Some(mtimecmp), Some(lines)) = (registers.mtimecmp.get_mut(hart), self.harts.get(hart)) {
            *mtimecmp = merge(*mtimecmp, shift, width, value);
            lines.set_timer_deadline(*mtimecmp);
        }
    }

    fn tell_all(&self, registers: &Registers) {
        for ((lines, mtimecmp), msip) in self.harts.iter().zip(&registers.mtimecmp).zip(&registers.msip) {
            lines.set_timer_deadline(*mtimecmp);
            lines.set_software_interrupt(*msip);
        }
    }
}

impl fmt::Debug for Aclint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aclint").field("time", &self.time).field("registers", &self.registers).finish_non_exhaustive()
    }
}

impl BusDevice for Aclint {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let (value, shift) = match decode(offset, width) {
            Some(Register::Mtime(shift)) => (self.time.ticks(), shift),
            Some(Register::Mtimecmp(hart, shift)) => {
                (lock(&self.registers).mtimecmp.get(hart).copied().unwrap_or(0), shift)
            }
            Some(Register::Msip(hart)) => (u64::from(lock(&self.registers).msip.get(hart) == Some(&true)), 0),
            None => (0, 0),
        };
        width.truncate(value >> shift)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        match decode(offset, width) {
            Some(Register::Mtime(shift)) => {
                let registers = lock(&self.registers);
                self.time.set_ticks(merge(self.time.ticks(), shift, width, value));
                self.tell_all(&registers);
            }
            Some(Register::Mtimecmp(hart, shift)) => self.write_mtimecmp(hart, shift, width, value),
            Some(Register::Msip(hart)) => {
                let mut registers = lock(&self.registers);
                if let (Some(msip), Some(lines)) = (registers.msip.get_mut(hart), self.harts.get(hart)) {
                    *msip = value & 1 != 0;
                    lines.set_software_interrupt(*msip);
                }
            }
            None => {}
        }
    }
}

impl BoardDevice for Aclint {
    fn reset(&self) {
        let mut registers = lock(&self.registers);
        *registers = Registers::new(self.harts.len());
        self.time.set_ticks(0);
        self.tell_all(&registers);
    }
    fn pause(&self) {}
    fn resume(&self) {}

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&Saved { ticks: self.time.ticks(), registers: lock(&self.registers).clone() }))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        let saved: Saved = state::read(state)?;
        let mut registers = lock(&self.registers);
        let harts = self.harts.len();
        let fits = saved.registers.mtimecmp.len() == harts && saved.registers.msip.len() == harts;
        state::ensure(fits, "a timer is of another number of harts")?;
        *registers = saved.registers;
        self.time.set_ticks(saved.ticks);
        self.tell_all(&registers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<(bool, u64, u32)>);
    impl HartLines for Lines {
        fn set_software_interrupt(&self, level: bool) {
            lock(&self.0).0 = level;
        }
        fn set_timer_deadline(&self, ticks: u64) {
            let mut state = lock(&self.0);
            state.1 = ticks;
            state.2 += 1;
        }
    }

    fn two_harts() -> (Aclint, [Arc<Lines>; 2], Arc<Clock>) {
        let clock = Arc::new(Clock::new());
        clock.pause();
        let lines = [Arc::new(Lines::default()), Arc::new(Lines::default())];
        let harts = lines.iter().map(|l| Arc::clone(l) as Arc<dyn HartLines>).collect();
        (Aclint::new(Arc::new(TimeSource::new(Arc::clone(&clock))), harts), lines, clock)
    }

    #[test]
    fn software_interrupts() {
        let (aclint, lines, _) = two_harts();
        aclint.write(4, Width::Word, 0xffff_ffff);
        assert!(lock(&lines[1].0).0 && !lock(&lines[0].0).0);
        assert_eq!(aclint.read(4, Width::Word), 1, "only bit 0 exists");
        aclint.write(4, Width::Word, 0xfffe);
        assert!(!lock(&lines[1].0).0);
        aclint.write(8, Width::Word, 1);
        assert_eq!(aclint.read(8, Width::Word), 0, "there is no hart 2");
    }

    #[test]
    fn deadlines_by_halves_and_whole() {
        let (aclint, lines, _) = two_harts();
        assert_eq!(aclint.read(0x4008, Width::Double), u64::MAX);
        aclint.write(0x4008, Width::Word, 0x1234_5678);
        aclint.write(0x400c, Width::Word, 9);
        assert_eq!(lock(&lines[1].0).1, 0x9_1234_5678);
        assert_eq!(aclint.read(0x400c, Width::Word), 9);
        aclint.write(0x4000, Width::Double, 77);
        assert_eq!(lock(&lines[0].0).1, 77);
        aclint.write(0x4010, Width::Double, 5);
        assert_eq!(aclint.read(0x4010, Width::Double), 0, "there is no hart 2");
    }

    #[test]
    fn time_can_be_set_and_harts_hear_of_it() {
        let (aclint, lines, clock) = two_harts();
        aclint.write(0xbff8, Width::Double, 1 << 40);
        assert_eq!(aclint.read(0xbff8, Width::Double), 1 << 40);
        assert_eq!(aclint.read(0xbffc, Width::Word), 1 << 8);
        assert_eq!(lock(&lines[0].0).2, 1);
        aclint.write(0xbffc, Width::Word, 0);
        assert_eq!(aclint.time().ticks(), 0);
        assert_eq!(aclint.time().ns_until(3), 300);
        assert_eq!(aclint.time().ns_until(u64::MAX), u64::MAX);
        clock.resume();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(aclint.time().ticks() >= 20_000);
        assert_eq!(aclint.time().ns_until(0), 0);
    }

    #[test]
    fn reset_forgets() {
        let (aclint, lines, _) = two_harts();
        aclint.write(0, Width::Word, 1);
        aclint.set_deadline(0, 5);
        aclint.write(0xbff8, Width::Double, 99);
        aclint.reset();
        let state = lock(&lines[0].0);
        assert_eq!((state.0, state.1), (false, u64::MAX));
        assert_eq!(aclint.read(0xbff8, Width::Double), 0);
    }

    #[test]
    fn odd_accesses_do_nothing() {
        let (aclint, _, _) = two_harts();
        aclint.write(0, Width::Byte, 1);
        aclint.write(0, Width::Double, 1);
        assert_eq!(aclint.read(0, Width::Word), 0);
        for offset in (0..SIZE).step_by(8) {
            aclint.write(offset, Width::Double, u64::MAX);
            aclint.read(offset, Width::Double);
        }
    }
}
