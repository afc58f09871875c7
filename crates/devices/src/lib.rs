//! Device models: pure register models plus thin bus wrappers.
//!
//! A device is two things. Its *registers* are a plain struct without locks, threads or I/O: methods take an offset and a value and
//! answer what the hardware would, and the struct is all that a snapshot has to save. Around it, the *device* holds the
//! lock, the interrupt line and the backend, and implements [`BusDevice`].
//!
//! ```text
//! hart ---- Bus ----> device (lock) ----> registers        pure
//!                       |      |
//!             InterruptLine  Worker ----> backend          the host
//! ```
//!
//! | module | what | specification |
//! |---|---|---|
//! | [`uart`] | serial port | National Semiconductor 16550A |
//! | [`aclint`] | timer and software interrupts | RISC-V ACLINT, laid out as the SiFive CLINT |
//! | [`plic`] | interrupt controller | RISC-V PLIC 1.0 |
//! | [`rtc`] | time of day | Goldfish real-time clock |
//! | [`cmos`] | time of day on PC boards | Motorola MC146818 |
//! | [`ioapic`] | interrupt controller of PC boards | Intel 82093AA |
//! | [`acpi`] | power, reset and their timer on PC boards | ACPI 6.5, section 4.8 |
//! | [`pvpanic`] | how a guest's kernel tells that it failed | qemu's pvpanic |
//! | [`fw_cfg`] | what firmware asks of its machine | qemu's fw_cfg |
//! | [`flash`] | firmware's variables | Intel's basic command set, CFI |
//! | [`syscon`] | power-off and reboot | SiFive test finisher |
//! | [`e1000`] | network card | Intel 82540EM |
//! | [`pci`] | bus, configuration and messages | PCI Local Bus 3.0, ECAM |
//! | [`virtio`] | block, network, console, entropy | Virtio 1.2 over virtio-mmio and PCI |
//! | [`state`] | devices in snapshots | |
//! | [`worker`] | the threads of devices | |
//!
//! Invariants: nothing that a guest writes makes a device panic, spin or allocate without bound. A device calls an interrupt line while it
//! holds its own lock, and a controller calls its harts while it holds its own; so neither may call back into a device. Backends
//! are called without any lock held that a register access takes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use machine::bus::BusDevice;

use crate::state::{State, StateError};

pub mod aclint;
pub mod acpi;
mod checksum;
pub mod cmos;
pub mod e1000;
pub mod flash;
pub mod fw_cfg;
pub mod ioapic;
pub mod pci;
pub mod plic;
pub mod pvpanic;
pub mod rtc;
pub mod state;
pub mod syscon;
pub mod uart;
pub mod virtio;
pub mod worker;

/// The network card that a guest sees: how boards are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Card {
    /// Virtio's.
    #[default]
    Virtio,
    /// Intel's 82540EM, on a PCI bus.
    E1000,
}

/// What a board asks of a device apart from register accesses.
pub trait BoardDevice: BusDevice {
    /// Puts the device into the state it has at power-on. Work in flight has ended when this returns.
    ///
    /// Called while no hart runs.
    fn reset(&self);

    /// Returns once the device touches neither guest memory nor interrupt lines by itself. Pauses nest.
    fn pause(&self);

    /// Undoes one [`Self::pause`].
    fn resume(&self);

    /// The device's state, while it is paused.
    ///
    /// # Errors
    /// It has a part that cannot be had: which.
    fn save(&self) -> Result<State, StateError>;

    /// Puts the device, which is paused and as after power-on, into a state that another was in. Guest memory is as it was then, too.
    ///
    /// # Errors
    /// It is not the state of such a device.
    fn restore(&self, state: &State) -> Result<(), StateError>;
}

/// Locks `mutex`. A thread that panicked with the lock held does not stop the others: device state is valid between any two
/// statements that change it.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
