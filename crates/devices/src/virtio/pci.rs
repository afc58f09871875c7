//! The virtio transport over PCI.
//!
//! Specification: virtio 1.2, section 4.1 (the legacy interface is not offered).
//!
//! ```text
//! base address register 0, 64-bit:
//!   0x0000 common configuration    negotiation and queues, see [`transport`](super::transport)
//!   0x1000 interrupt status        cleared by reading
//!   0x2000 the device's own configuration
//!   0x3000 notifications           one doorbell of 4 bytes a queue
//!   0x4000 MSI-X table             vectors: one a queue, one for the configuration
//!   0x5000 MSI-X pending bits
//! ```
//!
//! Every queue has a doorbell of its own, so a board can have the host's kernel take it ([`DoorbellSink`](crate::pci::DoorbellSink)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use machine::address::host_size;
use machine::bus::Width;
use machine::memory::GuestMemory;
use serde::{Deserialize, Serialize};

use super::VirtioDevice;
use super::queue::QueueError;
use super::transport::{self, Area, Cause, Delivery, Front, half};
use crate::pci::msi::Place;
use crate::pci::{Bar, BarKind, Capability, Doorbell, Identity, Interrupts, Layout, PciDevice};
use crate::state::{self, State, StateError};

const VENDOR: u16 = 0x1af4;
/// Device types are numbered from here (section 4.1.2).
const DEVICE_BASE: u16 = 0x1040;
const BAR: u8 = 0;
const BAR_SIZE: u64 = 0x8000;
const REGION_SIZE: u32 = 0x1000;
const COMMON: u32 = 0x0000;
const COMMON_SIZE: u32 = 0x3c;
const STATUS: u32 = 0x1000;
const CONFIG: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const DOORBELL_STRIDE: u32 = 4;
const TABLE: u32 = 0x4000;
const PENDING: u32 = 0x5000;
/// "No vector" (section 4.1.4.3).
const NO_VECTOR: u16 = 0xffff;

/// Which MSI-X vector tells of what.
struct Vectors {
    configuration: AtomicU16,
    queues: Box<[AtomicU16]>,
}

impl Vectors {
    fn all(&self) -> impl Iterator<Item = &AtomicU16> {
        std::iter::once(&self.configuration).chain(&self.queues)
    }
}

struct Messages {
    interrupts: Interrupts,
    vectors: Arc<Vectors>,
}

impl Delivery for Messages {
    fn send(&self, cause: Cause) -> bool {
        if !self.interrupts.has_vectors() {
            return false;
        }
        let vector = match cause {
            Cause::Used(queue) => self.vectors.queues.get(usize::from(queue)),
            Cause::Configuration => Some(&self.vectors.configuration),
        };
        let vector = vector.map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire));
        if vector != NO_VECTOR {
            self.interrupts.signal(vector);
        }
        true
    }

    fn set_level(&self, raised: bool) {
        self.interrupts.set_level(raised);
    }
}

/// The transport in a snapshot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    front: transport::Saved,
    /// Of the configuration, then of the queues.
    vectors: Vec<u16>,
}

/// A virtio device for a PCI bus: plug it into a [`Root`](crate::pci::Root).
pub struct Transport {
    front: Front,
    vectors: Arc<Vectors>,
}

impl Transport {
    /// Puts `device` behind registers; its queues are in `memory`, and it interrupts by `interrupts`.
    ///
    /// It is the bus that says when the device may work: not before the driver has made it a bus master.
    #[must_use]
    pub fn new(device: Arc<dyn VirtioDevice>, memory: Arc<GuestMemory>, interrupts: Interrupts) -> Self {
        let vector = || AtomicU16::new(NO_VECTOR);
        let queues = device.queue_sizes().iter().map(|_| vector()).collect();
        let vectors = Arc::new(Vectors { configuration: vector(), queues });
        // Bus mastering is off until the driver asks for it.
        device.pause();
        let delivery = Messages { interrupts, vectors: Arc::clone(&vectors) };
        Self { front: Front::new(device, memory, Box::new(delivery)), vectors }
    }

    /// Why the device last asked for a reset, if it ever did: for logs and debugging.
    #[must_use]
    pub fn last_error(&self) -> Option<QueueError> {
        self.front.last_error()
    }

    fn queues_count(&self) -> u16 {
        u16::try_from(self.vectors.queues.len()).unwrap_or(u16::MAX)
    }

    fn vectors_count(&self) -> u16 {
        self.queues_count().saturating_add(1).min(256)
    }

    fn queue_vector(&self) -> Option<&AtomicU16> {
        let selected = self.front.registers().queue_select;
        self.vectors.queues.get(usize::try_from(selected).ok()?)
    }

    /// Reads the field of the common configuration at `offset`; of those of 64 bits, the half there. No arm takes the registers' lock twice.
    fn read_common(&self, offset: u64) -> u32 {
        let registers = || self.front.registers();
        let upper = u32::from(offset & 4 != 0);
        match offset {
            0x00 => registers().device_features_select,
            0x04 => registers().device_features_half(),
            0x08 => registers().driver_features_select,
            0x0c => registers().driver_features_half(),
            0x10 => self.vectors.configuration.load(Ordering::Acquire).into(),
            0x12 => self.queues_count().into(),
            0x14 => self.front.status().into(),
            // Eight bits of it.
            0x15 => self.front.generation() & 0xff,
            0x16 => registers().queue_select,
            0x18 => registers().queue().map_or(0, |queue| queue.state.size.into()),
            0x1a => self.queue_vector().map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire)).into(),
            0x1c => registers().queue().is_some_and(|queue| queue.ready).into(),
            // Notifications are multiplied by the number of the queue.
            0x1e => self.queue_vector().map_or(0, |_| self.front.registers().queue_select),
            0x20 | 0x24 => half(registers().area(Area::Descriptors).0, upper),
            0x28 | 0x2c => half(registers().area(Area::Available).0, upper),
            0x30 | 0x34 => half(registers().area(Area::Used).0, upper),
            _ => 0,
        }
    }

    fn write_common(&self, offset: u64, value: u32) {
        let registers = || self.front.registers();
        let upper = u32::from(offset & 4 != 0);
        let short = u16::try_from(value & 0xffff).unwrap_or(0);
        match offset {
            0x00 => registers().device_features_select = value,
            0x08 => registers().driver_features_select = value,
            0x0c => registers().take_features(value),
            0x10 => self.set_vector(Some(&self.vectors.configuration), short),
            0x14 => self.write_status(value.to_le_bytes()[0]),
            0x16 => registers().queue_select = short.into(),
            0x18 => registers().set_size(short.into()),
            0x1a => self.set_vector(self.queue_vector(), short),
            // It is for a reset to take the queue back.
            0x1c if short == 1 => registers().set_ready(true),
            0x20 | 0x24 => registers().set_area(Area::Descriptors, upper, value),
            0x28 | 0x2c => registers().set_area(Area::Available, upper, value),
            0x30 | 0x34 => registers().set_area(Area::Used, upper, value),
            _ => {}
        }
    }

    /// A vector that does not exist reads back as none, by which the driver sees that it has failed.
    fn set_vector(&self, place: Option<&AtomicU16>, vector: u16) {
        if let Some(place) = place {
            place.store(if vector < self.vectors_count() { vector } else { NO_VECTOR }, Ordering::Release);
        }
    }

    fn write_status(&self, value: u8) {
        self.front.write_status(value);
        if value == 0 {
            self.vectors.all().for_each(|vector| vector.store(NO_VECTOR, Ordering::Release));
        }
    }

    /// How wide the field of the common configuration at `offset` is, in bytes; fields are accessed whole, those of 64 bits also by halves (section 4.1.3.1).
    fn field_bytes(offset: u64) -> u64 {
        match offset {
            0x14 | 0x15 => 1,
            0x10..0x20 => 2,
            _ => 4,
        }
    }
}

fn capability(kind: u8, offset: u32, length: u32, rest: &[u8]) -> Capability {
    let length_all = u8::try_from(16 + rest.len()).unwrap_or(0);
    let mut body = vec![length_all, kind, BAR, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(rest);
    Capability::Vendor(body)
}

/// The class of a device type: Ethernet, mass storage, communication, or none that fits.
fn class(device_id: u32) -> u32 {
    match device_id {
        1 => 0x02_00_00,
        2 => 0x01_80_00,
        3 => 0x07_80_00,
        _ => 0xff_00_00,
    }
}

impl PciDevice for Transport {
    fn layout(&self) -> Layout {
        let device_id = self.front.device.device_id();
        let identity = Identity {
            vendor: VENDOR,
            device: DEVICE_BASE + u16::try_from(device_id).unwrap_or(0),
            revision: 1,
            class: class(device_id),
            subsystem_vendor: VENDOR,
            subsystem: 0x1100,
        };
        let doorbells = DOORBELL_STRIDE * u32::from(self.queues_count());
        let capabilities = vec![
            Capability::Msix(Place {
                vectors_count: self.vectors_count(),
                bar: BAR,
                table: TABLE,
                pending_bar: BAR,
                pending: PENDING,
            }),
            capability(1, COMMON, COMMON_SIZE, &[]),
            capability(2, NOTIFY, doorbells, &DOORBELL_STRIDE.to_le_bytes()),
            capability(3, STATUS, 1, &[]),
            capability(4, CONFIG, REGION_SIZE, &[]),
            Capability::VirtioWindow,
        ];
        let bars = vec![Bar { number: BAR, kind: BarKind::Memory64, size: BAR_SIZE }];
        Layout { identity, bars, capabilities, has_interrupt: true, ..Layout::default() }
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        let place = |queue: u16| u64::from(NOTIFY + DOORBELL_STRIDE * u32::from(queue));
        (0..self.queues_count()).map(|queue| Doorbell { bar: BAR, offset: place(queue) }).collect()
    }

    fn read(&self, _bar: u8, offset: u64, width: Width) -> u64 {
        let (region, at) = (u32::try_from(offset & !0xfff).unwrap_or(u32::MAX), offset & 0xfff);
        match region {
            COMMON if width == Width::Double => {
                u64::from(self.read_common(at)) | (u64::from(self.read_common(at + 4)) << 32)
            }
            COMMON if Self::field_bytes(at) == width.bytes() => self.read_common(at).into(),
            STATUS if at == 0 => self.front.acknowledge(u8::MAX).into(),
            CONFIG => {
                let mut bytes = [0; 8];
                self.front.device.read_config(at, &mut bytes[..host_size(width.bytes())]);
                u64::from_le_bytes(bytes)
            }
            _ => 0,
        }
    }

    fn write(&self, _bar: u8, offset: u64, width: Width, value: u64) {
        let (region, at) = (u32::try_from(offset & !0xfff).unwrap_or(u32::MAX), offset & 0xfff);
        match region {
            NOTIFY => {
                if let Ok(queue) = u16::try_from(at / u64::from(DOORBELL_STRIDE)) {
                    self.front.device.notify(queue);
                }
            }
            COMMON if width == Width::Double && at >= 0x20 => {
                self.write_common(at, half(value, 0));
                self.write_common(at + 4, half(value, 1));
            }
            COMMON if Self::field_bytes(at) == width.bytes() => self.write_common(at, half(width.truncate(value), 0)),
            CONFIG => self.front.device.write_config(at, &value.to_le_bytes()[..host_size(width.bytes())]),
            _ => {}
        }
    }

    fn ring(&self, number: u16) {
        self.front.device.notify(number);
    }

    /// A device that is no bus master stands still.
    fn set_bus_master(&self, on: bool) {
        if on { self.front.device.resume() } else { self.front.device.pause() }
    }

    fn reset(&self) {
        self.front.reset();
        self.vectors.all().for_each(|vector| vector.store(NO_VECTOR, Ordering::Release));
    }

    fn pause(&self) {
        self.front.device.pause();
    }

    fn resume(&self) {
        self.front.device.resume();
    }

    fn save(&self) -> Result<State, StateError> {
        let vectors = self.vectors.all().map(|vector| vector.load(Ordering::Acquire)).collect();
        Ok(state::save(&Saved { front: self.front.save(), vectors }))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        let saved: Saved = state::read(state)?;
        let fits = saved.vectors.len() == self.vectors.all().count();
        state::ensure(fits, "a virtio device has another number of queues")?;
        for (place, vector) in self.vectors.all().zip(saved.vectors) {
            self.set_vector(Some(place), vector);
        }
        self.front.restore(saved.front)
    }
}

#[cfg(test)]
#[path = "tests/pci.rs"]
mod tests;
