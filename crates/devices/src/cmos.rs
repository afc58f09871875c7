//! Real-time clock and its battery-backed memory: the Motorola MC146818 of PC boards, at ports 0x70 (index) and 0x71 (data).
//!
//! Specification: Motorola MC146818A data sheet; for byte 0x32, the century, ACPI 6.5, section 5.2.9.
//!
//! | index | |
//! |---|---|
//! | 0, 2, 4 | seconds, minutes, hours |
//! | 6, 7, 8, 9, 0x32 | day of week, of month, month, year, century |
//! | 0x0a | register A: never "update in progress", since reads are of one moment each |
//! | 0x0b | register B: bit 2 binary and not BCD, bit 1 24 hours |
//! | 0x0c, 0x0d | interrupt flags (there are none), and that the battery is good |
//! | others | memory, with the size of RAM where a BIOS would have put it |
//!
//! The time is the wall clock's, in UTC, plus what the guest has added by setting it. There is no alarm, and no periodic interrupt.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::bus::{BusDevice, Width};
use machine::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::state::{self, State, StateError};
use crate::{BoardDevice, lock};

/// How many ports the device has.
pub const SIZE: u64 = 2;

const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const SECONDS_A_DAY: u64 = 86_400;

/// The registers: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// Which byte the data port is.
    pub index: u8,
    /// All bytes; those of the time as the guest last wrote them.
    #[serde(with = "state::array")]
    pub bytes: [u8; 128],
    /// What the guest's time is ahead of the wall clock's, in seconds.
    pub offset_s: i64,
}

/// A time of day and a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// 1 is Sunday.
    weekday: u64,
}

/// Days from 1970-01-01 to that day of the Gregorian calendar: years that begin in March, in eras of 400.
fn days_from(year: u64, month: u64, day: u64) -> i64 {
    let (year, month, day) = (year.cast_signed(), month.cast_signed(), day.cast_signed());
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400) + of_year - 719_468
}

impl Date {
    fn at(seconds: u64) -> Self {
        let (days, rest) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: (days + 4) % 7 + 1,
        }
    }

    fn seconds(self) -> i64 {
        let of_day = self.hour * 3600 + self.minute * 60 + self.second;
        days_from(self.year, self.month, self.day) * SECONDS_A_DAY.cast_signed() + of_day.cast_signed()
    }
}

impl Registers {
    /// With `memory_bytes` of RAM, of which `low_bytes` are below 4 GiB.
    #[must_use]
    pub fn new(memory_bytes: u64, low_bytes: u64) -> Self {
        let mut bytes = [0; 128];
        bytes[0x0a] = 0x26;
        bytes[0x0b] = HOURS_24;
        bytes[0x0d] = 0x80;
        // 640 KiB; then KiB above 1 MiB, units of 64 KiB above 16 MiB, and above 4 GiB: each as far as it can count.
        bytes[0x15..0x17].copy_from_slice(&640u16.to_le_bytes());
        let above_1m = u16::try_from(low_bytes.saturating_sub(1 << 20) >> 10).unwrap_or(u16::MAX).to_le_bytes();
        bytes[0x17..0x19].copy_from_slice(&above_1m);
        bytes[0x30..0x32].copy_from_slice(&above_1m);
        let above_16m = u16::try_from(low_bytes.saturating_sub(16 << 20) >> 16).unwrap_or(u16::MAX);
        bytes[0x34..0x36].copy_from_slice(&above_16m.to_le_bytes());
        let above_4g = (memory_bytes - low_bytes) >> 16;
        bytes[0x5b..0x5e].copy_from_slice(&above_4g.to_le_bytes()[..3]);
        Self { index: 0, bytes, offset_s: 0 }
    }

    fn encode(&self, value: u64) -> u8 {
        let value = u8::try_from(value).unwrap_or(0);
        if self.bytes[0x0b] & BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u64 {
        (if self.bytes[0x0b] & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) }).into()
    }

    fn date(&self, wall_s: u64) -> Date {
        Date::at(wall_s.saturating_add_signed(self.offset_s))
    }

    /// Reads the byte at the index when the wall clock says `wall_s` seconds since 1970.
    #[must_use]
    pub fn read(&self, wall_s: u64) -> u8 {
        let date = self.date(wall_s);
        match self.index {
            0 => self.encode(date.second),
            2 => self.encode(date.minute),
            4 if self.bytes[0x0b] & HOURS_24 != 0 => self.encode(date.hour),
            4 => self.encode((date.hour + 11) % 12 + 1) | if date.hour >= 12 { 0x80 } else { 0 },
            6 => self.encode(date.weekday),
            7 => self.encode(date.day),
            8 => self.encode(date.month),
            9 => self.encode(date.year % 100),
            0x32 => self.encode(date.year / 100),
            index => self.bytes[usize::from(index & 0x7f)],
        }
    }

    /// Writes the byte at the index.
    pub fn write(&mut self, value: u8, wall_s: u64) {
        let mut date = self.date(wall_s);
        let number = self.decode(value);
        match self.index {
            0 => date.second = number.min(59),
            2 => date.minute = number.min(59),
            4 if self.bytes[0x0b] & HOURS_24 != 0 => date.hour = number.min(23),
            4 => date.hour = self.decode(value & 0x7f).min(12) % 12 + if value & 0x80 != 0 { 12 } else { 0 },
            7 => date.day = number.clamp(1, 31),
            8 => date.month = number.clamp(1, 12),
            9 => date.year = date.year / 100 * 100 + number.min(99),
            0x32 => date.year = number.clamp(19, 99) * 100 + date.year % 100,
            6 | 0x0c | 0x0d => return,
            // Nothing is ever in progress, and no interrupt is enabled that would not come.
            0x0a => self.bytes[0x0a] = value & 0x7f,
            0x0b => self.bytes[0x0b] = value & (BINARY | HOURS_24),
            index => self.bytes[usize::from(index & 0x7f)] = value,
        }
        if matches!(self.index, 0..=9 | 0x32) {
            self.offset_s = date.seconds().saturating_sub_unsigned(wall_s);
        }
    }
}

/// The clock on the bus of ports.
pub struct Cmos {
    registers: Mutex<Registers>,
    clock: Arc<Clock>,
}

impl Cmos {
    /// A clock that shows the wall clock of `clock`, beside memory that tells of `memory_bytes` of RAM, `low_bytes` of them below 4 GiB.
    #[must_use]
    pub fn new(clock: Arc<Clock>, memory_bytes: u64, low_bytes: u64) -> Self {
        Self { registers: Mutex::new(Registers::new(memory_bytes, low_bytes)), clock }
    }

    fn wall_s(&self) -> u64 {
        self.clock.wall_ns() / 1_000_000_000
    }
}

impl fmt::Debug for Cmos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cmos").field("registers", &self.registers).finish_non_exhaustive()
    }
}

impl BusDevice for Cmos {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if (offset, width) == (1, Width::Byte) { lock(&self.registers).read(self.wall_s()).into() } else { u64::MAX }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let [byte, ..] = value.to_le_bytes();
        match (offset, width) {
            // The upper bit masks non-maskable interrupts on old boards.
            (0, Width::Byte) => lock(&self.registers).index = byte & 0x7f,
            (1, Width::Byte) => lock(&self.registers).write(byte, self.wall_s()),
            _ => {}
        }
    }
}

impl BoardDevice for Cmos {
    /// A battery keeps all of it.
    fn reset(&self) {}
    fn pause(&self) {}
    fn resume(&self) {}

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&*lock(&self.registers)))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        *lock(&self.registers) = state::read(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(registers: &mut Registers, index: u8, wall_s: u64) -> u8 {
        registers.index = index;
        registers.read(wall_s)
    }

    #[test]
    fn dates_are_right() {
        let mut registers = Registers::new(1 << 30, 1 << 30);
        // 2024-02-29 23:59:58 UTC, a Thursday.
        let moment = 1_709_251_198;
        let read: Vec<_> = [0x32, 9, 8, 7, 6, 4, 2, 0].iter().map(|index| at(&mut registers, *index, moment)).collect();
        assert_eq!(read, [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]);
        registers.bytes[0x0b] = BINARY;
        assert_eq!((at(&mut registers, 4, moment), at(&mut registers, 9, moment)), (0x80 | 11, 24));
        for seconds in (0..200_000).map(|step| step * 86_401) {
            assert_eq!(Date::at(seconds).seconds(), seconds.cast_signed());
        }
    }

    #[test]
    fn time_can_be_set() {
        let mut registers = Registers::new(1 << 30, 1 << 30);
        for (index, value) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x10), (2, 0x20), (0, 0x30)] {
            registers.index = index;
            registers.write(value, 1_709_251_198);
        }
        assert_eq!(registers.date(1_709_251_198 + 60), Date::at(946_635_690));
        // Whatever is written, something is read.
        for (index, value) in (0..128).flat_map(|index| (0..=255).map(move |value| (index, value))) {
            registers.index = index;
            registers.write(value, 5);
            let _ = registers.read(5);
        }
    }

    #[test]
    fn the_size_of_memory_is_told() {
        let mut registers = Registers::new(5 << 30, 3 << 30);
        assert_eq!((at(&mut registers, 0x34, 0), at(&mut registers, 0x35, 0)), (0x00, 0xbf));
        assert_eq!((at(&mut registers, 0x5b, 0), at(&mut registers, 0x5c, 0)), (0x00, 0x80));
    }
}
