//! The ioctls, by way of the bindings of rust-vmm: the container, which is an address space of the IOMMU, and the functions in it.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use machine::address::host_size;
use machine::memory::GuestMemory;
use machine::sys::{Mapping, Waker};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioOps, VfioRegionInfoCap};
use vmm_sys_util::eventfd::EventFd;

use super::{HostAddress, HostFunction, Irq, Region, VfioError};
use crate::kvm::{event_of, lock};

/// `VFIO_REGION_INFO_FLAG_MMAP`.
const MAPPABLE: u32 = 4;

/// The address space in which devices see the guest's RAM, at its guest addresses.
pub(crate) struct Container {
    vfio: Arc<VfioContainer>,
    memory: Arc<GuestMemory>,
    /// How many devices may reach it.
    masters_count: Mutex<u32>,
}

fn refused(address: HostAddress, what: &'static str) -> impl Fn(vfio_ioctls::VfioError) -> VfioError {
    move |cause| VfioError::Refused { address, what, cause: cause.to_string() }
}

impl Container {
    /// An empty one. `address` is the function that it is for first.
    pub(crate) fn new(address: HostAddress, memory: &Arc<GuestMemory>) -> Result<Arc<Self>, VfioError> {
        let vfio = VfioContainer::new(None).map_err(refused(address, "make an address space"))?;
        Ok(Arc::new(Self { vfio: Arc::new(vfio), memory: Arc::clone(memory), masters_count: Mutex::new(0) }))
    }

    /// Opens the function whose folder in sysfs is `folder`.
    pub(crate) fn open(
        self: &Arc<Self>,
        address: HostAddress,
        folder: &Path,
    ) -> Result<Arc<dyn HostFunction>, VfioError> {
        let operations = Arc::clone(&self.vfio) as Arc<dyn VfioOps>;
        let device = VfioDevice::new(folder, operations, false).map_err(refused(address, "open the device"))?;
        let function = Arc::new(Function { device, container: Arc::clone(self) });
        // Found out now, when it can be told: whether the user may lock as much memory as the guest has.
        function.set_dma(true).and_then(|()| function.set_dma(false)).map_err(|cause| VfioError::Refused {
            address,
            what: "let the device reach the guest's memory (raise the limit of locked memory, ulimit -l)",
            cause: cause.to_string(),
        })?;
        Ok(function)
    }

    fn set_memory(&self, on: bool) -> io::Result<()> {
        let regions = self.memory.regions();
        for (done, region) in regions.iter().enumerate() {
            let (start, size) = (region.base.0, host_size(region.size));
            let result = if on {
                // SAFETY: the region is a part of guest RAM that lives as long as this value, and no Rust reference points into guest RAM.
                unsafe { self.vfio.vfio_dma_map(start, size, region.host.as_ptr()) }
            } else {
                self.vfio.vfio_dma_unmap(start, size)
            };
            if let Err(error) = result {
                // All or nothing.
                for region in regions[..done].iter().filter(|_| on) {
                    let _ = self.vfio.vfio_dma_unmap(region.base.0, host_size(region.size));
                }
                return Err(io::Error::other(error.to_string()));
            }
        }
        Ok(())
    }
}

struct Function {
    device: VfioDevice,
    container: Arc<Container>,
}

impl HostFunction for Function {
    fn region(&self, number: u8) -> Region {
        let index = u32::from(number);
        let size = self.device.get_region_size(index);
        if self.device.get_region_flags(index) & MAPPABLE == 0 {
            return Region { size, mappable: Vec::new() };
        }
        let areas = self.device.get_region_caps(index).into_iter().find_map(|capability| match capability {
            VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas),
            _ => None,
        });
        let whole: Range<u64> = 0..size;
        let mappable = areas.map_or_else(
            || vec![whole],
            |areas| areas.iter().map(|area| area.offset..area.offset.saturating_add(area.size)).collect(),
        );
        Region { size, mappable }
    }

    fn read(&self, region: u8, offset: u64, bytes: &mut [u8]) {
        self.device.region_read(region.into(), bytes, offset);
    }

    fn write(&self, region: u8, offset: u64, bytes: &[u8]) {
        self.device.region_write(region.into(), bytes, offset);
    }

    fn map(&self, region: u8, range: Range<u64>) -> io::Result<Mapping> {
        // SAFETY: the descriptor is open as long as the device is borrowed.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) };
        let offset = self.device.get_region_offset(region.into()) + range.start;
        Mapping::of_device(descriptor, offset, host_size(range.end - range.start))
    }

    fn vectors_count(&self, irq: Irq) -> u32 {
        self.device.get_irq_info(irq as u32).map_or(0, |info| info.count)
    }

    fn set_events(&self, irq: Irq, events: &[Arc<Waker>]) -> io::Result<()> {
        let events: Vec<_> = events.iter().map(|event| event_of(event)).collect();
        let events: Vec<&EventFd> = events.iter().map(|event| &**event).collect();
        let result = if events.is_empty() {
            self.device.disable_irq(irq as u32)
        } else {
            self.device.enable_irq(irq as u32, events)
        };
        result.map_err(|error| io::Error::other(error.to_string()))
    }

    fn set_unmask_event(&self, event: &Waker) -> io::Result<()> {
        let result = self.device.set_irq_resample_fd(Irq::Line as u32, vec![&*event_of(event)]);
        result.map_err(|error| io::Error::other(error.to_string()))
    }

    fn set_dma(&self, on: bool) -> io::Result<()> {
        let mut count = lock(&self.container.masters_count);
        let new = if on { *count + 1 } else { count.saturating_sub(1) };
        if (*count == 0) != (new == 0) {
            self.container.set_memory(on)?;
        }
        *count = new;
        Ok(())
    }

    fn reset(&self) {
        self.device.reset();
    }
}
