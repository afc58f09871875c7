//! The host's hypervisor: the only place that calls KVM.
//!
//! Specification: the kernel's documentation, `virt/kvm/api.rst`; Intel SDM and AMD APM volume 2 for what the states mean.
//!
//! ```text
//! [`Host`] /dev/kvm --- [`Vm`] slots of guest RAM, interrupt controllers, routes, event descriptors
//!                         |
//!                       [`Vcpu`] one a thread: run --> exit --> [`Buses`] --> device models
//!                         ^
//!                       [`Kick`] a signal, so that a processor comes out of the guest
//! ```
//!
//! Invariants: what a guest does ends at a device model, in a reset, or in a fault with a reason in one line; KVM's page of a processor is touched by its
//! thread only (and by a signal's handler on that thread). The states in [`state`] are plain values, which outlive the machine they were taken from.
//!
//! Cost: an exit to a device model is a system call's return and entry, about 1 µs on bare hardware; a queue's doorbell costs the guest only an exit into the
//! kernel ([`Vm::add_doorbell`]).

pub mod cpuid;
mod exits;
mod host;
mod kick;
pub mod points;
pub mod registers;
pub mod state;
mod vcpu;
mod vm;

pub use exits::{ExitKind, Exits};
pub use host::{Host, Unusable};
pub use kick::Kick;
pub use vcpu::{Buses, Exit, Vcpu};
pub(crate) use vm::event_of;
pub use vm::{IrqChip, RomId, Vm, VmConfig};

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The host refused what the machine needs of KVM.
#[derive(Debug, thiserror::Error)]
#[error("KVM cannot {what}: {cause}")]
pub struct KvmError {
    /// What was tried.
    pub what: &'static str,
    /// What the host said.
    pub cause: io::Error,
}

/// Says what was tried.
trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T, KvmError>;
}

impl<T> Tried<T> for Result<T, kvm_ioctls::Error> {
    fn tried(self, what: &'static str) -> Result<T, KvmError> {
        self.map_err(|cause| KvmError { what, cause: io::Error::from_raw_os_error(cause.errno()) })
    }
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: &'static str) -> Result<T, KvmError> {
        self.map_err(|cause| KvmError { what, cause })
    }
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked here is valid between any two statements that change it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
