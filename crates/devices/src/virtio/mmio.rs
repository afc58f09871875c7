//! The virtio transport over memory-mapped registers.
//!
//! Specification: virtio 1.2, section 4.2 (version 2 of the register layout; the legacy interface is not offered).
//!
//! Only names and places of registers are here; what they are is in [`transport`](super::transport). Notifications, the one frequent write, take no lock.

use std::sync::Arc;

use machine::address::host_size;
use machine::bus::{BusDevice, Width};
use machine::interrupt::InterruptLine;
use machine::memory::GuestMemory;

use super::VirtioDevice;
use super::queue::QueueError;
use super::transport::{Area, Cause, Delivery, Front};
use crate::BoardDevice;
use crate::state::{self, State, StateError};

/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"ISOM");
const CONFIG: u64 = 0x100;
const QUEUE_NOTIFY: u64 = 0x050;

/// The line, which is all that this transport has.
struct Line(InterruptLine);

impl Delivery for Line {
    fn send(&self, _cause: Cause) -> bool {
        false
    }

    fn set_level(&self, raised: bool) {
        self.0.set(raised);
    }
}

/// A virtio device on the bus.
#[derive(Debug)]
pub struct Transport {
    front: Front,
}

impl Transport {
    /// Puts `device` behind registers; its queues are in `memory` and its interrupt is `line`.
    #[must_use]
    pub fn new(device: Arc<dyn VirtioDevice>, memory: Arc<GuestMemory>, line: InterruptLine) -> Self {
        Self { front: Front::new(device, memory, Box::new(Line(line))) }
    }

    /// Why the device last asked for a reset, if it ever did: for logs and debugging.
    #[must_use]
    pub fn last_error(&self) -> Option<QueueError> {
        self.front.last_error()
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => self.front.device.device_id(),
            0x00c => VENDOR,
            0x010 => self.front.registers().device_features_half(),
            0x034 => self.front.registers().queue().map_or(0, |queue| queue.size_max.into()),
            0x044 => self.front.registers().queue().is_some_and(|queue| queue.ready).into(),
            0x060 => self.front.interrupt_status().into(),
            0x070 => self.front.status().into(),
            // Length and base of a shared memory region that does not exist.
            0x0b0..=0x0bc => u32::MAX,
            0x0fc => self.front.generation(),
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        let low = value.to_le_bytes()[0];
        let half = u32::from(offset & 4 != 0);
        match offset {
            0x014 => self.front.registers().device_features_select = value,
            0x020 => self.front.registers().take_features(value),
            0x024 => self.front.registers().driver_features_select = value,
            0x030 => self.front.registers().queue_select = value,
            0x038 => self.front.registers().set_size(value),
            0x044 => self.front.registers().set_ready(value & 1 != 0),
            0x064 => {
                self.front.acknowledge(low);
            }
            0x070 => self.front.write_status(low),
            0x080 | 0x084 => self.front.registers().set_area(Area::Descriptors, half, value),
            0x090 | 0x094 => self.front.registers().set_area(Area::Available, half, value),
            0x0a0 | 0x0a4 => self.front.registers().set_area(Area::Used, half, value),
            _ => {}
        }
    }
}

impl BusDevice for Transport {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if let Some(at) = offset.checked_sub(CONFIG) {
            let mut bytes = [0; 8];
            self.front.device.read_config(at, &mut bytes[..host_size(width.bytes())]);
            return u64::from_le_bytes(bytes);
        }
        if width == Width::Word { self.read_register(offset).into() } else { 0 }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            self.front.device.write_config(at, &value.to_le_bytes()[..host_size(width.bytes())]);
            return;
        }
        let (Width::Word, Ok(value)) = (width, u32::try_from(width.truncate(value))) else { return };
        if offset == QUEUE_NOTIFY {
            if let Ok(queue) = u16::try_from(value) {
                self.front.device.notify(queue);
            }
            return;
        }
        self.write_register(offset, value);
    }
}

impl BoardDevice for Transport {
    fn reset(&self) {
        self.front.reset();
    }

    fn pause(&self) {
        self.front.device.pause();
    }

    fn resume(&self) {
        self.front.device.resume();
    }

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&self.front.save()))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        self.front.restore(state::read(state)?)
    }
}

#[cfg(test)]
#[path = "tests/mmio.rs"]
mod tests;
