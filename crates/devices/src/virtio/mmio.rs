//! The virtio transport over memory-mapped registers.
//!
//! Specification: virtio 1.2, section 4.2 (version 2 of the register layout; the legacy interface is not offered).
//!
//! The registers are a pure model ([`Registers`]) that answers each write with the [`Effect`] it is to have; [`Transport`] has the lock
//! and carries the effect out. Notifications, the one frequent write, take no lock.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::address::GuestPhysical;
use machine::bus::{BusDevice, Width};
use machine::interrupt::InterruptLine;
use machine::memory::GuestMemory;

use super::queue::{Queue, QueueError, State};
use super::{Activation, DriverSignals, VirtioDevice, feature, status};
use crate::{BoardDevice, lock};

/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"ISOM");
const CONFIG: u64 = 0x100;
const QUEUE_NOTIFY: u64 = 0x050;

/// Bits of `InterruptStatus`.
mod interrupt {
    pub(super) const USED: u32 = 1;
    pub(super) const CONFIGURATION: u32 = 2;
}

/// One queue as the driver has set it up so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSetup {
    /// The largest size that the device takes; 0 if there is no such queue.
    pub size_max: u16,
    /// Whether the driver has declared it ready.
    pub ready: bool,
    /// Its size and places; the size may be more than `size_max`, which activation refuses.
    pub state: State,
}

/// The registers apart from interrupts: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The device type.
    pub device_id: u32,
    /// The features offered.
    pub device_features: u64,
    /// The features that the driver takes.
    pub driver_features: u64,
    /// Which half of the offered features is read.
    pub device_features_select: u32,
    /// Which half of the taken features is written.
    pub driver_features_select: u32,
    /// Which queue the queue registers mean.
    pub queue_select: u32,
    /// The queues by number.
    pub queues: Vec<QueueSetup>,
    /// The status field without `DEVICE_NEEDS_RESET`.
    pub status: u8,
}

/// What a write is to have as its effect outside the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// None.
    Nothing,
    /// These interrupts have been seen.
    Acknowledge(u32),
    /// The driver is ready: the device starts.
    Activate,
    /// The device is reset, and then the registers are.
    Reset,
}

fn halves(value: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => value,
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(shifted & 0xffff_ffff).unwrap_or(0)
}

fn with_half(old: u64, select: u32, value: u32) -> u64 {
    match select {
        0 => (old & !0xffff_ffff) | u64::from(value),
        1 => (old & 0xffff_ffff) | (u64::from(value) << 32),
        _ => old,
    }
}

impl Registers {
    /// After power-on, for `device`.
    #[must_use]
    pub fn new(device: &dyn VirtioDevice) -> Self {
        let queues =
            device.queue_sizes().iter().map(|size| QueueSetup { size_max: *size, ..QueueSetup::default() }).collect();
        Self {
            device_id: device.device_id(),
            device_features: device.features() | feature::ALL,
            driver_features: 0,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            queues,
            status: 0,
        }
    }

    fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// Reads the register at `offset`, below the configuration space. Interrupts and the generation are the transport's.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => self.device_id,
            0x00c => VENDOR,
            0x010 => halves(self.device_features, self.device_features_select),
            0x034 => self.queue().map_or(0, |queue| queue.size_max.into()),
            0x044 => self.queue().is_some_and(|queue| queue.ready).into(),
            0x070 => self.status.into(),
            // Length and base of a shared memory region that does not exist.
            0x0b0..=0x0bc => u32::MAX,
            _ => 0,
        }
    }

    /// Writes the register at `offset`, below the configuration space.
    pub fn write(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            0x014 => self.device_features_select = value,
            0x020 if self.status & status::FEATURES_OK == 0 => {
                self.driver_features = with_half(self.driver_features, self.driver_features_select, value);
            }
            0x024 => self.driver_features_select = value,
            0x030 => self.queue_select = value,
            0x038 | 0x044 | 0x080..=0x0a4 => self.write_queue(offset, value),
            0x064 => return Effect::Acknowledge(value),
            0x070 => return self.write_status(value),
            _ => {}
        }
        Effect::Nothing
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        let live = self.status & status::DRIVER_OK != 0;
        let Some(queue) = usize::try_from(self.queue_select).ok().and_then(|i| self.queues.get_mut(i)) else { return };
        if offset == 0x044 {
            // A queue of a live device stays: `VIRTIO_F_RING_RESET` is not offered.
            queue.ready = if live { queue.ready } else { value & 1 != 0 };
            return;
        }
        if queue.ready {
            return;
        }
        let half = u32::from(offset & 4 != 0);
        let state = &mut queue.state;
        match offset {
            // A size that does not fit is kept as an impossible one.
            0x038 => state.size = u16::try_from(value).unwrap_or(u16::MAX),
            0x080 | 0x084 => state.descriptors = GuestPhysical(with_half(state.descriptors.0, half, value)),
            0x090 | 0x094 => state.available = GuestPhysical(with_half(state.available.0, half, value)),
            0x0a0 | 0x0a4 => state.used = GuestPhysical(with_half(state.used.0, half, value)),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) -> Effect {
        let Ok(mut value) = u8::try_from(value & 0xff) else { return Effect::Nothing };
        if value == 0 {
            return Effect::Reset;
        }
        let agreed =
            self.driver_features & !self.device_features == 0 && self.driver_features & feature::VERSION_1 != 0;
        if !agreed {
            value &= !status::FEATURES_OK;
        }
        if value & status::FEATURES_OK == 0 {
            value &= !status::DRIVER_OK;
        }
        // Bits are set one by one and cleared by a reset only (section 2.1.1).
        let old = self.status;
        self.status |= value & !status::DEVICE_NEEDS_RESET;
        let started = self.status & !old & status::DRIVER_OK != 0;
        if started { Effect::Activate } else { Effect::Nothing }
    }
}

/// What the device says to the driver: plain data, what a snapshot saves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// `InterruptStatus`.
    pub status: u32,
    /// How often the configuration space has changed.
    pub generation: u32,
    /// `DEVICE_NEEDS_RESET`.
    pub needs_reset: bool,
}

/// The device's side of the interrupt line. Apart from the registers' lock, since workers signal while a reset waits for them.
struct Signals {
    interrupts: Mutex<Interrupts>,
    line: InterruptLine,
    last_error: Mutex<Option<QueueError>>,
}

impl Signals {
    fn raise(&self, bits: u32, change: impl FnOnce(&mut Interrupts)) {
        let mut interrupts = lock(&self.interrupts);
        change(&mut interrupts);
        interrupts.status |= bits;
        self.line.set(interrupts.status != 0);
    }

    fn acknowledge(&self, bits: u32) {
        let mut interrupts = lock(&self.interrupts);
        interrupts.status &= !bits;
        self.line.set(interrupts.status != 0);
    }

    /// The generation goes on, so that a driver that reads across a reset notices.
    fn clear(&self) {
        let mut interrupts = lock(&self.interrupts);
        interrupts.status = 0;
        interrupts.needs_reset = false;
        self.line.set(false);
    }
}

impl DriverSignals for Signals {
    fn used(&self, _queue: u16) {
        self.raise(interrupt::USED, |_| {});
    }

    fn configuration_changed(&self) {
        self.raise(interrupt::CONFIGURATION, |interrupts| {
            interrupts.generation = interrupts.generation.wrapping_add(1);
        });
    }

    fn needs_reset(&self, cause: &QueueError) {
        *lock(&self.last_error) = Some(*cause);
        self.raise(interrupt::CONFIGURATION, |interrupts| interrupts.needs_reset = true);
    }
}

/// A virtio device on the bus.
pub struct Transport {
    device: Arc<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    registers: Mutex<Registers>,
    signals: Arc<Signals>,
}

impl Transport {
    /// Puts `device` behind registers; its queues are in `memory` and its interrupt is `line`.
    #[must_use]
    pub fn new(device: Arc<dyn VirtioDevice>, memory: Arc<GuestMemory>, line: InterruptLine) -> Self {
        let signals = Signals { interrupts: Mutex::default(), line, last_error: Mutex::new(None) };
        let registers = Mutex::new(Registers::new(&*device));
        Self { device, memory, registers, signals: Arc::new(signals) }
    }

    /// Why the device last asked for a reset, if it ever did: for logs and debugging.
    #[must_use]
    pub fn last_error(&self) -> Option<QueueError> {
        *lock(&self.signals.last_error)
    }

    fn activate(&self, registers: &Registers) {
        let signals: Arc<dyn DriverSignals> = Arc::clone(&self.signals) as _;
        let features = registers.driver_features;
        let mut queues = Vec::with_capacity(registers.queues.len());
        for (number, setup) in (0u16..).zip(&registers.queues) {
            if !setup.ready {
                queues.push(None);
                continue;
            }
            let queue = if setup.state.size > setup.size_max {
                Err(QueueError::Size(setup.state.size.into()))
            } else {
                Queue::new(number, setup.state, features, Arc::clone(&self.memory), Arc::clone(&signals))
            };
            match queue {
                Ok(queue) => queues.push(Some(queue)),
                Err(error) => {
                    signals.needs_reset(&error);
                    return;
                }
            }
        }
        self.device.activate(Activation { features, queues, signals });
    }

    fn reset_locked(&self, registers: &mut Registers) {
        self.device.reset();
        *registers = Registers::new(&*self.device);
        self.signals.clear();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("registers", &self.registers).finish_non_exhaustive()
    }
}

impl BusDevice for Transport {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if let Some(at) = offset.checked_sub(CONFIG) {
            let mut bytes = [0; 8];
            self.device.read_config(at, &mut bytes[..machine::address::host_size(width.bytes())]);
            return u64::from_le_bytes(bytes);
        }
        if width != Width::Word {
            return 0;
        }
        let value = match offset {
            0x060 => lock(&self.signals.interrupts).status,
            0x0fc => lock(&self.signals.interrupts).generation,
            _ => lock(&self.registers).read(offset),
        };
        let broken = offset == 0x070 && lock(&self.signals.interrupts).needs_reset;
        (if broken { value | u32::from(status::DEVICE_NEEDS_RESET) } else { value }).into()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            self.device.write_config(at, &value.to_le_bytes()[..machine::address::host_size(width.bytes())]);
            return;
        }
        let (Width::Word, Ok(value)) = (width, u32::try_from(width.truncate(value))) else { return };
        if offset == QUEUE_NOTIFY {
            if let Ok(queue) = u16::try_from(value) {
                self.device.notify(queue);
            }
            return;
        }
        let mut registers = lock(&self.registers);
        match registers.write(offset, value) {
            Effect::Nothing => {}
            Effect::Acknowledge(bits) => {
                drop(registers);
                self.signals.acknowledge(bits);
            }
            Effect::Activate => self.activate(&registers),
            Effect::Reset => self.reset_locked(&mut registers),
        }
    }
}

impl BoardDevice for Transport {
    fn reset(&self) {
        self.reset_locked(&mut lock(&self.registers));
    }

    fn pause(&self) {
        self.device.pause();
    }

    fn resume(&self) {
        self.device.resume();
    }
}

#[cfg(test)]
#[path = "tests/mmio.rs"]
mod tests;
