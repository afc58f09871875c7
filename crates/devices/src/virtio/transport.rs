//! What every transport has: negotiation, the places of queues, the status, and the way back to the driver.
//!
//! Specification: virtio 1.2, sections 2.1 (status), 2.2 (features), 3.1.1 (initialisation).
//!
//! A transport is a thin thing in front of a `Front`: it gives names to these registers (offsets on [`mmio`](super::mmio), a structure on
//! [`pci`](super::pci)) and says how the driver is interrupted (`Delivery`).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use machine::address::GuestPhysical;
use machine::memory::GuestMemory;
use serde::{Deserialize, Serialize};

use super::queue::{Queue, QueueError, State};
use super::{Activation, DriverSignals, VirtioDevice, feature, status};
use crate::lock;
use crate::state::{self, StateError};

/// Bits of the interrupt status, where messages are not used.
mod interrupt {
    pub(super) const USED: u8 = 1;
    pub(super) const CONFIGURATION: u8 = 2;
}

/// One queue as the driver has set it up so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSetup {
    /// The largest size that the device takes; 0 if there is no such queue.
    pub size_max: u16,
    /// Whether the driver has declared it ready.
    pub ready: bool,
    /// Its size and places; the size may be more than `size_max`, which activation refuses.
    pub state: State,
}

/// The three parts of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The descriptor table.
    Descriptors,
    /// The available ring.
    Available,
    /// The used ring.
    Used,
}

/// The registers apart from interrupts: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// What a write of the status is to have as its effect outside the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// None.
    Nothing,
    /// The driver is ready: the device starts.
    Activate,
    /// The device is reset, and then the registers are.
    Reset,
}

/// Half `select` of `value`; there are two.
pub(super) fn half(value: u64, select: u32) -> u32 {
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
        let queue =
            |size: &u16| QueueSetup { size_max: *size, ready: false, state: State { size: *size, ..State::default() } };
        Self {
            device_id: device.device_id(),
            device_features: device.features() | feature::ALL,
            driver_features: 0,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            queues: device.queue_sizes().iter().map(queue).collect(),
            status: 0,
        }
    }

    /// The half of the offered features that is selected.
    #[must_use]
    pub fn device_features_half(&self) -> u32 {
        half(self.device_features, self.device_features_select)
    }

    /// The half of the taken features that is selected.
    #[must_use]
    pub fn driver_features_half(&self) -> u32 {
        half(self.driver_features, self.driver_features_select)
    }

    /// The driver takes the features `value` of the half that is selected; not once they are agreed on.
    pub fn take_features(&mut self, value: u32) {
        if self.status & status::FEATURES_OK == 0 {
            self.driver_features = with_half(self.driver_features, self.driver_features_select, value);
        }
    }

    /// The queue that is selected, if it exists.
    #[must_use]
    pub fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// The queue that is selected, if it exists and its places can still be chosen.
    fn open_queue(&mut self) -> Option<&mut QueueSetup> {
        self.queues.get_mut(usize::try_from(self.queue_select).ok()?).filter(|queue| !queue.ready)
    }

    /// Declares the selected queue ready, or not. A queue of a live device stays: `VIRTIO_F_RING_RESET` is not offered.
    pub fn set_ready(&mut self, ready: bool) {
        let live = self.status & status::DRIVER_OK != 0;
        let queue = usize::try_from(self.queue_select).ok().and_then(|index| self.queues.get_mut(index));
        if let Some(queue) = queue.filter(|_| !live) {
            queue.ready = ready;
        }
    }

    /// Sets the size of the selected queue. One that does not fit is kept as an impossible one.
    pub fn set_size(&mut self, size: u32) {
        if let Some(queue) = self.open_queue() {
            queue.state.size = u16::try_from(size).unwrap_or(u16::MAX);
        }
    }

    /// Sets half `select` of the address of an area of the selected queue.
    pub fn set_area(&mut self, area: Area, select: u32, value: u32) {
        if let Some(queue) = self.open_queue() {
            let place = match area {
                Area::Descriptors => &mut queue.state.descriptors,
                Area::Available => &mut queue.state.available,
                Area::Used => &mut queue.state.used,
            };
            *place = GuestPhysical(with_half(place.0, select, value));
        }
    }

    /// Where an area of the selected queue is.
    #[must_use]
    pub fn area(&self, area: Area) -> GuestPhysical {
        self.queue().map_or(GuestPhysical(0), |queue| match area {
            Area::Descriptors => queue.state.descriptors,
            Area::Available => queue.state.available,
            Area::Used => queue.state.used,
        })
    }

    /// Writes the status.
    pub fn write_status(&mut self, mut value: u8) -> Effect {
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interrupts {
    /// The interrupt status: used buffers (1), configuration (2).
    pub status: u8,
    /// How often the configuration space has changed.
    pub generation: u32,
    /// `DEVICE_NEEDS_RESET`.
    pub needs_reset: bool,
}

/// What a driver is interrupted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Used buffers of this queue.
    Used(u16),
    /// A change of the configuration space, or of the status.
    Configuration,
}

/// How a transport interrupts.
pub(super) trait Delivery: Send + Sync {
    /// Tells of `cause` by a message of its own. False if messages are not in use: then the interrupt status tells, and the line.
    fn send(&self, cause: Cause) -> bool;

    /// Whether the interrupt status has anything. Called with its lock held.
    fn set_level(&self, raised: bool);
}

/// The device's side of the interrupt. Apart from the registers' lock, since workers signal while a reset waits for them.
struct Signals {
    interrupts: Mutex<Interrupts>,
    delivery: Box<dyn Delivery>,
    last_error: Mutex<Option<QueueError>>,
}

impl Signals {
    fn raise(&self, cause: Cause) {
        if self.delivery.send(cause) {
            return;
        }
        let mut interrupts = lock(&self.interrupts);
        interrupts.status |= match cause {
            Cause::Used(_) => interrupt::USED,
            Cause::Configuration => interrupt::CONFIGURATION,
        };
        self.delivery.set_level(true);
    }
}

impl DriverSignals for Signals {
    fn used(&self, queue: u16) {
        self.raise(Cause::Used(queue));
    }

    fn configuration_changed(&self) {
        {
            let mut interrupts = lock(&self.interrupts);
            interrupts.generation = interrupts.generation.wrapping_add(1);
        }
        self.raise(Cause::Configuration);
    }

    fn needs_reset(&self, cause: &QueueError) {
        *lock(&self.last_error) = Some(*cause);
        lock(&self.interrupts).needs_reset = true;
        self.raise(Cause::Configuration);
    }
}

/// A device behind its transport's registers, in a snapshot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    registers: Registers,
    interrupts: Interrupts,
    /// How far the queues are that the device serves.
    queues: Vec<Option<State>>,
    device: state::State,
}

/// A virtio device as its transport has it. See the [module](self).
pub(super) struct Front {
    pub(super) device: Arc<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    registers: Mutex<Registers>,
    signals: Arc<Signals>,
}

impl Front {
    pub(super) fn new(device: Arc<dyn VirtioDevice>, memory: Arc<GuestMemory>, delivery: Box<dyn Delivery>) -> Self {
        let signals = Signals { interrupts: Mutex::default(), delivery, last_error: Mutex::new(None) };
        let registers = Mutex::new(Registers::new(&*device));
        Self { device, memory, registers, signals: Arc::new(signals) }
    }

    pub(super) fn registers(&self) -> MutexGuard<'_, Registers> {
        lock(&self.registers)
    }

    /// Why the device last asked for a reset.
    pub(super) fn last_error(&self) -> Option<QueueError> {
        *lock(&self.signals.last_error)
    }

    /// The interrupt status.
    pub(super) fn interrupt_status(&self) -> u8 {
        lock(&self.signals.interrupts).status
    }

    /// How often the configuration space has changed.
    pub(super) fn generation(&self) -> u32 {
        lock(&self.signals.interrupts).generation
    }

    /// The status, with all its bits.
    pub(super) fn status(&self) -> u8 {
        let broken = lock(&self.signals.interrupts).needs_reset;
        self.registers().status | if broken { status::DEVICE_NEEDS_RESET } else { 0 }
    }

    /// Writes the status, with all that follows.
    pub(super) fn write_status(&self, value: u8) {
        let mut registers = self.registers();
        match registers.write_status(value) {
            Effect::Nothing => {}
            Effect::Activate => self.activate(&registers),
            Effect::Reset => self.reset_locked(&mut registers),
        }
    }

    /// The driver has seen these interrupts. Answers the interrupt status before.
    pub(super) fn acknowledge(&self, bits: u8) -> u8 {
        let mut interrupts = lock(&self.signals.interrupts);
        let before = interrupts.status;
        interrupts.status &= !bits;
        self.signals.delivery.set_level(interrupts.status != 0);
        before
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

    /// The generation goes on, so that a driver that reads across a reset notices.
    fn reset_locked(&self, registers: &mut Registers) {
        self.device.reset();
        *registers = Registers::new(&*self.device);
        let mut interrupts = lock(&self.signals.interrupts);
        interrupts.status = 0;
        interrupts.needs_reset = false;
        self.signals.delivery.set_level(false);
    }

    pub(super) fn reset(&self) {
        self.reset_locked(&mut self.registers());
    }

    /// The state, while the device is paused.
    pub(super) fn save(&self) -> Saved {
        Saved {
            registers: self.registers().clone(),
            interrupts: lock(&self.signals.interrupts).clone(),
            queues: self.device.queue_states(),
            device: self.device.save(),
        }
    }

    /// Puts the device, which is paused and as after power-on, into a state that another was in.
    pub(super) fn restore(&self, saved: Saved) -> Result<(), StateError> {
        let Saved { registers: theirs, interrupts, queues, device } = saved;
        let mut registers = self.registers();
        let sizes = |registers: &Registers| registers.queues.iter().map(|queue| queue.size_max).collect::<Vec<_>>();
        state::ensure(theirs.device_id == registers.device_id, "a virtio device is of another type")?;
        state::ensure(sizes(&theirs) == sizes(&registers), "a virtio device has another number of queues")?;
        state::ensure(queues.len() == theirs.queues.len(), "a virtio device's queues are not all there")?;
        let offered = registers.device_features;
        if theirs.status & status::FEATURES_OK != 0 {
            state::ensure(
                theirs.driver_features & !offered == 0,
                "a driver uses a feature that its virtio device does not have here",
            )?;
        }
        *registers = Registers { device_features: offered, ..theirs };
        *lock(&self.signals.interrupts) = interrupts.clone();
        if registers.status & status::DRIVER_OK != 0 {
            let signals: Arc<dyn DriverSignals> = Arc::clone(&self.signals) as _;
            let features = registers.driver_features;
            let queue = |(number, (at, setup)): (u16, (Option<State>, &QueueSetup))| {
                let Some(at) = at else { return Ok(None) };
                state::ensure(at.size <= setup.size_max, "a virtio queue is larger than its device allows")?;
                let queue = Queue::new(number, at, features, Arc::clone(&self.memory), Arc::clone(&signals));
                queue.map(Some).map_err(|error| StateError(format!("a virtio queue cannot be: {error}")))
            };
            let queues = (0..).zip(queues.into_iter().zip(&registers.queues)).map(queue).collect::<Result<_, _>>()?;
            self.device.activate(Activation { features, queues, signals });
        }
        self.device.restore(&device)?;
        self.signals.delivery.set_level(interrupts.status != 0);
        Ok(())
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("registers", &self.registers).finish_non_exhaustive()
    }
}
