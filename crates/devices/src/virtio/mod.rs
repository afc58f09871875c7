//! Virtio: devices made for virtual machines.
//!
//! Specification: Virtual I/O Device (VIRTIO) 1.2. Only the modern interface exists (`VIRTIO_F_VERSION_1` is required).
//!
//! ```text
//! driver in the guest
//!   | registers                     ^ interrupt
//!   v                               |
//! [`transport`] ([`mmio`], [`pci`]) --activate--> device ([`block`], [`network`], [`console`], ...)
//!                                     |   workers
//!                  rings in guest RAM-+-- [`queue`]        backends of the host
//! ```
//!
//! A transport knows registers and no device; a device knows queues and no registers. They meet in [`VirtioDevice`] and [`DriverSignals`].
//!
//! Hostile drivers: every index, address and length read from guest memory is checked in [`queue`] before use, and each chain is walked
//! once, into plain data. A driver that breaks the rules of a ring gets `DEVICE_NEEDS_RESET`, and that queue is served no more until the device is reset
//! (section 2.1.2). A request that is merely wrong gets an error status of its own.

use std::sync::Arc;

use crate::state::{State, StateError};

pub mod block;
pub mod console;
pub mod entropy;
pub mod mmio;
pub mod network;
pub mod pci;
pub mod power_key;
pub mod queue;
mod server;
pub mod transport;

#[cfg(test)]
#[path = "tests/driver.rs"]
mod driver;
#[cfg(test)]
#[path = "tests/moved.rs"]
mod moved;
#[cfg(test)]
#[path = "tests/probe.rs"]
mod probe;
#[cfg(test)]
#[path = "tests/storm.rs"]
mod storm;

pub use queue::{Queue, QueueError};

/// Bits of the device status field (section 2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// The driver has accepted features, and the device agrees.
    pub const FEATURES_OK: u8 = 8;
    /// The device has met an error that only a reset ends.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Feature bits that do not depend on the kind of device (section 6).
pub mod feature {
    /// Chains may be held in a table of their own.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are suppressed by index and not by flag.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device follows version 1 of the specification, and so does the driver.
    pub const VERSION_1: u64 = 1 << 32;
    /// What every transport here offers beside the device's own features.
    pub const ALL: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;
}

/// What a device tells its driver, by way of the transport. Calls come from any thread.
pub trait DriverSignals: Send + Sync {
    /// Queue `queue` has used buffers that the driver wants to hear of.
    fn used(&self, queue: u16);

    /// The configuration space has changed.
    fn configuration_changed(&self);

    /// The driver broke the rules, as `cause` says, and the device stops until it is reset: sets `DEVICE_NEEDS_RESET`.
    fn needs_reset(&self, cause: &QueueError);
}

/// What a device gets when its driver is ready.
pub struct Activation {
    /// The features that both sides have agreed on.
    pub features: u64,
    /// The queues by number; `None` where the driver did not set one up.
    pub queues: Vec<Option<Queue>>,
    /// The way back to the driver.
    pub signals: Arc<dyn DriverSignals>,
}

/// A device behind a transport. The transport calls [`Self::activate`] and [`Self::reset`] one at a time and in turn, and everything else at any time.
pub trait VirtioDevice: Send + Sync {
    /// The device type (section 5).
    fn device_id(&self) -> u32;

    /// The features of its own that the device offers.
    fn features(&self) -> u64;

    /// The largest size of each of its queues: powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads `bytes.len()` bytes of the configuration space at `offset`. What lies outside reads as zero.
    fn read_config(&self, offset: u64, bytes: &mut [u8]);

    /// Writes to the configuration space at `offset`. Fields that cannot be written ignore it.
    fn write_config(&self, offset: u64, bytes: &[u8]);

    /// The driver is ready: queues may be served from now on.
    fn activate(&self, activation: Activation);

    /// The driver has put buffers into queue `queue`. Called on the thread of a hart, so it only wakes someone. Queues that do not
    /// exist are ignored, as is a device that is not active.
    fn notify(&self, queue: u16);

    /// Forgets the driver. Requests in flight have finished when this returns, and nothing of the driver's memory is touched after.
    fn reset(&self);

    /// Returns once the device stands at a request boundary and touches no guest memory by itself. Pauses nest.
    fn pause(&self);

    /// Undoes one [`Self::pause`].
    fn resume(&self);

    /// Where its queues are and how far, by number, while it is paused; `None` of one that it does not serve.
    fn queue_states(&self) -> Vec<Option<queue::State>>;

    /// What it knows beside its queues and the features, while it is paused.
    fn save(&self) -> State;

    /// Takes what [`Self::save`] has told. The device is paused, and was activated as it was then if it was.
    ///
    /// # Errors
    /// It is not the state of such a device.
    fn restore(&self, state: &State) -> Result<(), StateError>;
}

/// Copies the part of a configuration space that begins at `offset` into `bytes`, with zeroes past its end.
fn read_config_bytes(config: &[u8], offset: u64, bytes: &mut [u8]) {
    bytes.fill(0);
    let rest = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or(&[]);
    let count = rest.len().min(bytes.len());
    bytes[..count].copy_from_slice(&rest[..count]);
}
