//! PCI: configuration, address windows and interrupts of devices that a guest finds by itself.
//!
//! Specification: PCI Local Bus 3.0; PCI Express Base 5.0, section 7.2.2 (ECAM).
//!
//! ```text
//! ECAM, or ports 0xcf8 and 0xcfc          memory and port windows
//!        |  configuration                      |  registers
//!        v                                     v
//! [`Root`] --- by number ---> [`Function`] <--- by base address registers
//!                               |  config space, MSI and MSI-X: here, the same for all
//!                               v
//!                            [`PciDevice`]: virtio, e1000
//!                               |
//!                     [`Interrupts`] --> message ([`MessageSink`]), or level of INTA# to INTD#
//! ```
//!
//! There is one bus without bridges. A window is a fixed range of the board's bus; inside it, base address registers move as the guest programs them, and an
//! access is routed by a table that is made anew when one moves. A base address register that lies outside every window, or over another one that was routed
//! before it, is decoded by nobody; so no device ever lies over RAM, whatever a guest writes.
//!
//! Bus mastering: a device whose master bit is clear touches no guest memory and sends no message ([`PciDevice::set_bus_master`]).
//!
//! Cost: an access to a register takes one shared lock and a binary search more than on a fixed address.

use std::fmt;

use machine::address::GuestPhysical;
use machine::bus::Width;

use crate::state::{State, StateError};

pub mod chipset;
pub mod config;
pub mod function;
pub mod interrupts;
pub mod msi;
pub mod root;

pub use config::{Bar, BarKind, Capability, Identity, Layout};
pub use function::Function;
pub use interrupts::Interrupts;
pub use root::{Root, RootConfig, Space, Window};

/// How many functions a bus has room for.
pub const FUNCTIONS_COUNT_MAX: usize = 256;
/// How many devices a bus has room for.
pub const DEVICES_COUNT_MAX: u8 = 32;

/// Where a function is: its bus (bits 15 to 8), device (7 to 3) and function (2 to 0), which is also what it signs its messages with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u16);

impl Address {
    /// Function 0 of device `device` of bus 0. Numbers have five bits.
    #[must_use]
    pub const fn of_device(device: u8) -> Self {
        Self(((device & 31) as u16) << 3)
    }

    /// Function `function` of the same device. Numbers have three bits.
    #[must_use]
    pub const fn with_function(self, function: u8) -> Self {
        Self(self.0 & !7 | (function & 7) as u16)
    }

    /// The 16 bits as a message carries them ("requester ID").
    #[must_use]
    pub const fn requester_id(self) -> u16 {
        self.0
    }

    /// The device's number on its bus.
    #[must_use]
    pub const fn device(self) -> u8 {
        ((self.0 >> 3) & 31) as u8
    }

    /// The function's place on its bus, below [`FUNCTIONS_COUNT_MAX`].
    const fn index(self) -> usize {
        (self.0 & 0xff) as usize
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.device(), self.0 & 7)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message signalled interrupt: a write of `data` to `address`, which is an interrupt controller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it is written to.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// Which interrupt of which function a message is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The function.
    pub function: Address,
    /// The number of its vector.
    pub vector: u16,
}

/// What takes messages: an interrupt controller. Calls come from any thread, and in the order in which things happen to one source; they must not
/// call back into the function.
pub trait MessageSink: Send + Sync {
    /// Delivers `message`, which is what `source` was last routed to.
    fn send(&self, source: Source, message: Message);

    /// `source` will send `message` from now on, or nothing if it is masked or switched off. For sinks that prepare a route (irqfd); others have no
    /// need of it.
    fn route(&self, source: Source, message: Option<Message>);
}

/// What is told where the doorbells of devices are, so that a write there need not come by way of the bus (ioeventfd).
pub trait DoorbellSink: Send + Sync {
    /// Doorbell `number` of `function` is now at `at`, or nowhere. Calls come one at a time. A write of any width and value at `at` may from now on be
    /// answered by [`Root::ring`] on any thread, in place of the bus.
    fn place(&self, function: Address, number: u16, at: Option<GuestPhysical>);
}

/// How a function interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signalling {
    /// By the level of its line.
    #[default]
    Line,
    /// By its only message.
    Message,
    /// By a table of messages.
    Vectors,
}

/// A register that is only ever written, to say that there is work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// The base address register that it is behind.
    pub bar: u8,
    /// Where behind it, in bytes.
    pub offset: u64,
}

/// A device behind a [`Function`], which has its configuration space and its message tables. Calls come from any thread.
pub trait PciDevice: Send + Sync {
    /// What its configuration space is like; constant.
    fn layout(&self) -> Layout;

    /// Its doorbells by number; constant.
    fn doorbells(&self) -> Vec<Doorbell>;

    /// Reads `width` bytes at `offset` behind base address register `bar`: inside it, and not in the MSI-X tables. Zero-extended.
    fn read(&self, bar: u8, offset: u64, width: Width) -> u64;

    /// Writes the low `width` bytes of `value` at `offset` behind base address register `bar`, as in [`Self::read`].
    fn write(&self, bar: u8, offset: u64, width: Width, value: u64);

    /// Doorbell `number` was rung.
    fn ring(&self, number: u16);

    /// Whether the device may touch guest memory; not at first. When it may not, nothing of that is under way when this returns. Calls come one at a
    /// time and alternate.
    fn set_bus_master(&self, on: bool);

    /// Base address register `bar` is now decoded at `at`, or nowhere: for devices whose registers the guest reaches without the bus. Calls come one at a time.
    fn place_bar(&self, _bar: u8, _at: Option<GuestPhysical>) {}

    /// The guest has the device signal in another way now; by its line at first and after a reset. [`Interrupts`] sees to what follows for most devices. Calls come
    /// one at a time.
    fn signal_by(&self, _how: Signalling) {}

    /// Puts the device into the state it has at power-on, but for bus mastering. Work in flight has ended when this returns.
    fn reset(&self);

    /// Returns once the device touches neither guest memory nor interrupts by itself. Pauses nest.
    fn pause(&self);

    /// Undoes one [`Self::pause`].
    fn resume(&self);

    /// The device's state beside configuration space and messages, while it is paused.
    ///
    /// # Errors
    /// It has a part that cannot be had: which.
    fn save(&self) -> Result<State, StateError>;

    /// Puts the device, which is paused and as after power-on but for what its configuration space says, into a state that another was in.
    ///
    /// # Errors
    /// It is not the state of such a device.
    fn restore(&self, state: &State) -> Result<(), StateError>;
}

/// `value` as all ones of `width`, which is what a read that nobody answers gives.
const fn nobody(width: Width) -> u64 {
    width.truncate(u64::MAX)
}

#[cfg(test)]
mod tests;
