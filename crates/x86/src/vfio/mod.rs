//! Functions of the host's PCI buses, given to a guest: VFIO.
//!
//! Specification: the kernel's documentation, `driver-api/vfio.rst`, and its header `linux/vfio.h`.
//!
//! ```text
//! guest's driver --config space--> [`Function`](devices::pci::Function) (as for every device: base address registers, MSI-X table)
//!                --registers-----> KVM memory slots over the device's own; what must be seen goes through [`Passed`]
//! device --------DMA-------------> IOMMU: guest RAM at its guest addresses, while the guest lets the device be a bus master
//!        --interrupts------------> event descriptors --> KVM (irqfd), or while that is not set up, [`Passed`]'s thread
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`address`] | which function is meant |
//! | [`readiness`] | whether the host is ready to give it away, and what to do if not |
//! | [`layout`] | its configuration space as the guest sees it |
//! | `host` | the ioctls; the only place that calls them |
//! | `passed` | the device on the guest's bus |
//!
//! Invariants: a device reaches guest RAM only while it is a bus master, and nothing else of this process ever. The guest's RAM is pinned meanwhile. What a guest
//! writes to the configuration space never reaches the device's, but for mastering and decoding.
//!
//! What is not passed: expansion ROMs, ports behind I/O registers when the kernel refuses them, extended capabilities, resets by the guest by way of the PCI Express
//! capability, more than one MSI vector (MSI-X has all), and unplugging while the machine runs.

pub mod address;
mod host;
pub mod layout;
mod passed;
pub mod readiness;

use std::io;

pub use address::HostAddress;
pub(crate) use host::Container;
pub(crate) use passed::{Passed, Place};
pub use readiness::NotReady;

/// Why a function cannot be given to a guest.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// The host is not ready.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The kernel refuses.
    #[error("VFIO cannot {what} for {address}: {cause}")]
    Refused {
        /// Which function.
        address: HostAddress,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: String,
    },
    /// Another kind of function than a device.
    #[error("{0} is a bridge; give the functions behind it to the guest")]
    Bridge(HostAddress),
    /// Its configuration space makes no sense.
    #[error("{0} does not answer; it may be powered down or broken")]
    Silent(HostAddress),
    /// A thread or a descriptor.
    #[error("the host gives no more threads or descriptors: {0}")]
    Host(#[from] io::Error),
}

/// How a device interrupts: the kernel's numbers (`VFIO_PCI_INTX_IRQ_INDEX` and on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Irq {
    Line = 0,
    Message = 1,
    Vectors = 2,
}

/// A region of registers as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    /// In bytes; zero if there is none.
    pub(crate) size: u64,
    /// What of it this process may map, in bytes from its start.
    pub(crate) mappable: Vec<std::ops::Range<u64>>,
}

/// A device as the kernel gives it: the boundary to the ioctls. Regions 0 to 5 are behind the base address registers, region 7 is the configuration space.
pub(crate) trait HostFunction: Send + Sync {
    fn region(&self, number: u8) -> Region;
    fn read(&self, region: u8, offset: u64, bytes: &mut [u8]);
    fn write(&self, region: u8, offset: u64, bytes: &[u8]);
    /// Maps a part of a region into this process.
    fn map(&self, region: u8, range: std::ops::Range<u64>) -> io::Result<machine::sys::Mapping>;
    /// How many vectors there are of this kind.
    fn vectors_count(&self, irq: Irq) -> u32;
    /// From now on the device sets these events, one a vector; none: it does not interrupt.
    fn set_events(&self, irq: Irq, events: &[std::sync::Arc<machine::sys::Waker>]) -> io::Result<()>;
    /// From now on a line that has interrupted may do so again when this is set.
    fn set_unmask_event(&self, event: &machine::sys::Waker) -> io::Result<()>;
    /// Lets the device reach the guest's RAM, or no longer.
    fn set_dma(&self, on: bool) -> io::Result<()>;
    /// As at power-on, if the device knows how.
    fn reset(&self);
}

/// The region of the configuration space.
pub(crate) const CONFIG_REGION: u8 = 7;
