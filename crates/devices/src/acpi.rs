//! Power management of PC boards: the fixed registers of ACPI, the reset register, and the ways to reset of old.
//!
//! Specification: ACPI 6.5, section 4.8. Ports from the block's base:
//!
//! | offset | bytes | register |
//! |---|---|---|
//! | 0x00, 0x02 | 2, 2 | `PM1_STS`, `PM1_EN`: power button |
//! | 0x04 | 2 | `PM1_CNT`: the guest sleeps or powers off by it |
//! | 0x08 | 4 | `PM_TMR`: counts at 3.579545 MHz |
//! | 0x20, 0x21 | 1, 1 | `GPE0_STS`, `GPE0_EN`: general-purpose events |
//!
//! Status bits are set by the board, cleared by writing ones, and interrupt (level, the "SCI") while they are enabled.
//!
//! [`ResetPorts`] are port 0xcf9, which ACPI's table names, and the keyboard controller's command port 0x64, of which nothing else is there: it reads as all ones,
//! by which kernels know that they need not look for a keyboard.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::bus::{BusDevice, Width};
use machine::clock::Clock;
use machine::interrupt::InterruptLine;
use serde::{Deserialize, Serialize};

use crate::state::{self, State, StateError};
use crate::syscon::{PowerRequest, PowerSwitch};
use crate::{BoardDevice, lock};

/// How many ports the block has.
pub const SIZE: u64 = 0x40;
/// Where the control register is, from the base.
pub const CONTROL: u16 = 4;
/// Where the timer is, from the base.
pub const TIMER: u16 = 8;
/// Where the general-purpose events are, from the base.
pub const EVENTS: u16 = 0x20;
/// The sleep type that means "off", as the table `_S5` has to say.
pub const SLEEP_OFF: u8 = 5;

const POWER_BUTTON: u16 = 1 << 8;
const SCI_ENABLED: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;
const TIMER_HZ: u128 = 3_579_545;

/// The registers: plain data, what a snapshot saves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// `PM1_STS`.
    pub status: u16,
    /// `PM1_EN`.
    pub enabled: u16,
    /// `PM1_CNT`.
    pub control: u16,
    /// `GPE0_STS`.
    pub events: u8,
    /// `GPE0_EN`.
    pub events_enabled: u8,
}

impl Registers {
    /// Reads the byte at `offset`; the timer is not here.
    #[must_use]
    pub fn read(&self, offset: u64) -> u8 {
        let byte = |register: u16, index: u64| register.to_le_bytes()[usize::from(!index.is_multiple_of(2))];
        match offset {
            0x00 | 0x01 => byte(self.status, offset),
            0x02 | 0x03 => byte(self.enabled, offset),
            // It is ACPI's from power-on.
            0x04 | 0x05 => byte(self.control | SCI_ENABLED, offset),
            0x20 => self.events,
            0x21 => self.events_enabled,
            _ => 0,
        }
    }

    /// Writes the byte at `offset`. Answers whether that switches the machine off.
    pub fn write(&mut self, offset: u64, value: u8) -> bool {
        let shift = 8 * (offset % 2);
        let put = |register: u16| register & !(0xff << shift) | u16::from(value) << shift;
        match offset {
            0x00 | 0x01 => self.status &= !(u16::from(value) << shift),
            0x02 | 0x03 => self.enabled = put(self.enabled),
            0x04 | 0x05 => {
                let control = put(self.control);
                self.control = control & !SLEEP_ENABLE;
                return control & SLEEP_ENABLE != 0 && control >> 10 & 7 == u16::from(SLEEP_OFF);
            }
            0x20 => self.events &= !value,
            0x21 => self.events_enabled = value,
            _ => {}
        }
        false
    }

    /// The level of the interrupt.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.status & self.enabled != 0 || self.events & self.events_enabled != 0
    }
}

/// The block of registers on the bus of ports.
pub struct PowerManagement {
    registers: Mutex<Registers>,
    line: InterruptLine,
    clock: Arc<Clock>,
    switch: Arc<dyn PowerSwitch>,
}

impl PowerManagement {
    /// A block that interrupts by `line`, counts by `clock`, and switches the machine off by `switch`.
    #[must_use]
    pub fn new(line: InterruptLine, clock: Arc<Clock>, switch: Arc<dyn PowerSwitch>) -> Self {
        Self { registers: Mutex::default(), line, clock, switch }
    }

    fn change(&self, change: impl FnOnce(&mut Registers)) {
        let mut registers = lock(&self.registers);
        change(&mut registers);
        self.line.set(registers.interrupt());
    }

    /// Presses the power button: the guest is asked to shut down.
    pub fn press_power_button(&self) {
        self.change(|registers| registers.status |= POWER_BUTTON);
    }

    /// General-purpose event `number` (0 to 7) happens.
    pub fn raise_event(&self, number: u8) {
        self.change(|registers| registers.events |= 1 << (number & 7));
    }

    fn timer(&self) -> u32 {
        let ticks = u128::from(self.clock.now_ns()) * TIMER_HZ / 1_000_000_000;
        u32::try_from(ticks & 0xffff_ffff).unwrap_or(0)
    }
}

impl fmt::Debug for PowerManagement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PowerManagement").field("registers", &self.registers).finish_non_exhaustive()
    }
}

impl BusDevice for PowerManagement {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if offset & !3 == u64::from(TIMER) {
            return width.truncate(u64::from(self.timer()) >> (8 * (offset & 3)));
        }
        let registers = lock(&self.registers);
        (0..width.bytes()).rev().fold(0, |value, index| value << 8 | u64::from(registers.read(offset + index)))
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let mut off = false;
        self.change(|registers| {
            for (offset, byte) in (offset..offset + width.bytes()).zip(value.to_le_bytes()) {
                off |= registers.write(offset, byte);
            }
        });
        if off {
            self.switch.request(PowerRequest::PowerOff);
        }
    }
}

impl BoardDevice for PowerManagement {
    fn reset(&self) {
        self.change(|registers| *registers = Registers::default());
    }
    fn pause(&self) {}
    fn resume(&self) {}

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&*lock(&self.registers)))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        let saved = state::read(state)?;
        self.change(|registers| *registers = saved);
        Ok(())
    }
}

/// How a port is written to reset the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Port 0xcf9: bit 2 rises.
    Register,
    /// The keyboard controller's command port: command 0xfe pulls the processor's reset line.
    Keyboard,
}

/// A port that resets the machine.
pub struct ResetPorts {
    kind: ResetKind,
    switch: Arc<dyn PowerSwitch>,
}

impl ResetPorts {
    /// A port of that kind, which resets by `switch`.
    #[must_use]
    pub fn new(kind: ResetKind, switch: Arc<dyn PowerSwitch>) -> Self {
        Self { kind, switch }
    }
}

impl fmt::Debug for ResetPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResetPorts").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl BusDevice for ResetPorts {
    fn read(&self, _offset: u64, width: Width) -> u64 {
        match self.kind {
            ResetKind::Register => 0,
            ResetKind::Keyboard => width.truncate(u64::MAX),
        }
    }

    fn write(&self, _offset: u64, _width: Width, value: u64) {
        let resets = match self.kind {
            ResetKind::Register => value & 4 != 0,
            ResetKind::Keyboard => value & 0xff == 0xfe,
        };
        if resets {
            self.switch.request(PowerRequest::Reboot);
        }
    }
}

impl BoardDevice for ResetPorts {
    fn reset(&self) {}
    fn pause(&self) {}
    fn resume(&self) {}
    fn save(&self) -> Result<State, StateError> {
        Ok(state::NOTHING)
    }
    fn restore(&self, state: &State) -> Result<(), StateError> {
        state::read_nothing(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::interrupt::InterruptSink;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<PowerRequest>>);
    impl PowerSwitch for Recorder {
        fn request(&self, request: PowerRequest) {
            lock(&self.0).push(request);
        }
    }

    struct Nowhere;
    impl InterruptSink for Nowhere {
        fn set_level(&self, _: u32, _: bool) {}
    }

    fn block() -> (PowerManagement, InterruptLine, Arc<Recorder>) {
        let (line, recorder) = (InterruptLine::new(Arc::new(Nowhere), 9), Arc::new(Recorder::default()));
        let switch: Arc<dyn PowerSwitch> = recorder.clone();
        (PowerManagement::new(line.clone(), Arc::new(Clock::starting_at(0)), switch), line, recorder)
    }

    #[test]
    fn the_button_interrupts_until_it_is_acknowledged() {
        let (block, line, _) = block();
        block.press_power_button();
        assert!(!line.is_raised());
        block.write(2, Width::Half, POWER_BUTTON.into());
        assert!(line.is_raised());
        assert_eq!(block.read(0, Width::Half), u64::from(POWER_BUTTON));
        block.write(0, Width::Half, POWER_BUTTON.into());
        assert!(!line.is_raised());
        block.write(0x21, Width::Byte, 1 << 5);
        block.raise_event(5);
        assert!(line.is_raised());
        block.write(0x20, Width::Byte, 0xff);
        assert!(!line.is_raised());
        block.raise_event(5);
        block.reset();
        assert!(!line.is_raised());
    }

    #[test]
    fn only_the_right_sleep_is_off() {
        let (block, _, recorder) = block();
        let sleep = |kind: u64| block.write(4, Width::Half, kind << 10 | u64::from(SLEEP_ENABLE));
        sleep(1);
        block.write(4, Width::Half, 5 << 10);
        assert!(lock(&recorder.0).is_empty());
        sleep(5);
        assert_eq!(*lock(&recorder.0), [PowerRequest::PowerOff]);
        assert_eq!(block.read(4, Width::Half) & 1, 1);
    }

    #[test]
    fn the_timer_counts_at_its_frequency() {
        let (block, _, _) = block();
        block.clock.advance_to(1_000_000_000);
        assert_eq!(block.read(8, Width::Word), 3_579_545);
        assert_eq!(block.read(9, Width::Byte), 3_579_545 >> 8 & 0xff);
    }

    #[test]
    fn ports_of_old_reset() {
        let recorder = Arc::new(Recorder::default());
        let port = |kind| ResetPorts::new(kind, Arc::clone(&recorder) as Arc<dyn PowerSwitch>);
        port(ResetKind::Register).write(0, Width::Byte, 2);
        port(ResetKind::Keyboard).write(0, Width::Byte, 0xd1);
        assert!(lock(&recorder.0).is_empty());
        port(ResetKind::Register).write(0, Width::Byte, 6);
        port(ResetKind::Keyboard).write(0, Width::Byte, 0xfe);
        assert_eq!(*lock(&recorder.0), [PowerRequest::Reboot; 2]);
        assert_eq!(port(ResetKind::Keyboard).read(0, Width::Byte), 0xff);
    }
}
