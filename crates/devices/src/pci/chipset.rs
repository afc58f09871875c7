//! What firmware for PC boards knows a board by: the bridges of Intel's 440FX chipset, as far as it looks at them.
//!
//! Specification: Intel 82441FX (host bridge), 82371SB "PIIX3" (bridge to ISA) and 82371AB "PIIX4" (power management) data sheets.
//!
//! | address | what | what firmware does with it |
//! |---|---|---|
//! | 00:00.0 | host bridge | takes its number as that of the board |
//! | 00:01.0 | bridge to ISA | looks for serial ports behind it; routes PCI's interrupts for kernels that know no ACPI |
//! | 00:01.3 | power management | reads where its ports are, for the timer |
//!
//! The memory controller's registers are not there: RAM is where the board's map says.

use std::sync::Arc;

use machine::bus::Width;

use super::config::{Identity, Layout};
use super::{Address, Doorbell, PciDevice, Root, nobody};
use crate::state::{self, State, StateError};

const INTEL: u16 = 0x8086;
/// Where the PIIX are.
const DEVICE: u8 = 1;
/// Registers of the ISA bridge: where INTA# to INTD# are led to.
const ROUTES: [u8; 4] = [0x60, 0x61, 0x62, 0x63];
const NOT_ROUTED: u8 = 0x80;
/// Registers of power management: where the ports are, and that they are decoded.
const BASE: u8 = 0x40;
const MISCELLANEOUS: u8 = 0x80;

/// A function that has a configuration space and nothing behind it.
struct Bridge(Layout);

impl PciDevice for Bridge {
    fn layout(&self) -> Layout {
        self.0.clone()
    }
    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }
    fn read(&self, _: u8, _: u64, width: Width) -> u64 {
        nobody(width)
    }
    fn write(&self, _: u8, _: u64, _: Width, _: u64) {}
    fn ring(&self, _: u16) {}
    fn set_bus_master(&self, _: bool) {}
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

impl Root {
    /// Makes the bus one of a 440FX board, on which power management is at `power_port`. Call it before anything is plugged in.
    pub fn add_chipset(&mut self, power_port: u16) {
        let identity = |device, class| Identity {
            vendor: INTEL,
            device,
            class,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            ..Identity::default()
        };
        let host = Layout { identity: identity(0x1237, 0x06_00_00), ..Layout::default() };
        let isa = Layout {
            identity: identity(0x7000, 0x06_01_00),
            registers: ROUTES.map(|register| (register, NOT_ROUTED, 0x8f)).to_vec(),
            has_more_functions: true,
            ..Layout::default()
        };
        let [low, high] = power_port.to_le_bytes();
        let power = Layout {
            identity: identity(0x7113, 0x06_80_00),
            registers: vec![(BASE, low | 1, 0), (BASE + 1, high, 0), (MISCELLANEOUS, 1, 0)],
            ..Layout::default()
        };
        let device = Address::of_device(DEVICE);
        for (address, layout) in [(Address::of_device(0), host), (device, isa), (device.with_function(3), power)] {
            self.put(address, Arc::new(Bridge(layout)));
        }
    }
}
