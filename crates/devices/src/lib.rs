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
//! | [`syscon`] | power-off and reboot | SiFive test finisher |
//! | [`virtio`] | block, network, console, entropy | Virtio 1.2 over virtio-mmio |
//! | [`worker`] | the threads of devices | |
//!
//! Invariants: nothing that a guest writes makes a device panic, spin or allocate without bound. A device calls an interrupt line while it
//! holds its own lock, and a controller calls its harts while it holds its own; so neither may call back into a device. Backends
//! are called without any lock held that a register access takes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use machine::bus::BusDevice;

pub mod aclint;
pub mod plic;
pub mod rtc;
pub mod syscon;
pub mod uart;
pub mod virtio;
pub mod worker;

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
}

/// Locks `mutex`. A thread that panicked with the lock held does not stop the others: device state is valid between any two
/// statements that change it.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
