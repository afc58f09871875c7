//! The board as firmware finds it: its image and flash memory below 4 GiB, and the device that it asks what there is.

use std::sync::Arc;

use devices::BoardDevice;
use devices::flash::{ArrayView, Flash};
use devices::fw_cfg::{self, FwCfg};
use devices::pci::{Space, Window};
use machine::address::host_size;
use machine::bus::BusDevice;
use machine::memory::GuestMemory;
use machine::sys::Mapping;

use super::BoardError;
use super::build::map_device;
use crate::boot::firmware::{below, items};
use crate::boot::{Firmware, Images};
use crate::kvm::{Buses, KvmError, RomId, Vm};
use crate::{map, tables};

/// The guest's view of flash memory: a ROM of KVM's.
struct View {
    vm: Arc<Vm>,
    rom: RomId,
}

impl ArrayView for View {
    fn show(&self, shown: bool) {
        // Where the host refuses, reads come to the device, which answers the same, or the guest sees bytes where it asked for the status, and finds no flash.
        let _ = self.vm.show_rom(self.rom, shown);
    }
}

/// The windows of PCI where firmware wants them, beside `memory`.
pub(super) fn windows(memory: &GuestMemory) -> Vec<Window> {
    let window = |space, base: u64, end: u64| Window { space, base, size: end.saturating_sub(base) };
    let ends: Vec<u64> = memory.regions().iter().map(|region| region.base.0 + region.size).collect();
    let low = ends.iter().filter(|end| **end <= 1 << 32).max().copied().unwrap_or(0);
    let high = ends.iter().max().copied().unwrap_or(0).max(1 << 32);
    vec![
        window(Space::Memory, low.max(map::FIRMWARE_PCI_LOW.start), map::FIRMWARE_PCI_LOW.end),
        window(Space::Memory, high, map::FIRMWARE_PCI_HIGH_END),
        window(Space::Io, map::PCI_PORTS.start, map::PCI_PORTS.end),
    ]
}

fn mapped(result: std::io::Result<Mapping>) -> Result<Mapping, BoardError> {
    result.map_err(|cause| KvmError { what: "map the firmware", cause }.into())
}

/// Puts the image and its variables where processors begin; answers the flash memory, if there is any.
pub(super) fn install(
    firmware: &Firmware,
    vm: &Arc<Vm>,
    buses: &mut Buses,
) -> Result<Option<Arc<dyn BoardDevice>>, BoardError> {
    let code = mapped(firmware.map_code())?;
    let start = below(1 << 32, code.size() as u64);
    vm.map_rom(start, code)?;
    let Some(file) = firmware.variables() else { return Ok(None) };
    let size = file.metadata()?.len();
    let at = below(start.0, size);
    let rom = vm.map_rom(at, mapped(Mapping::of_file(file, 0, host_size(size)))?)?;
    let view = Arc::new(View { vm: Arc::clone(vm), rom });
    let flash = Arc::new(Flash::new(file.try_clone()?, view)?);
    map_device(&mut buses.memory, "flash", at.0, size, Arc::clone(&flash) as Arc<dyn BusDevice>);
    Ok(Some(flash))
}

/// Adds the device that tells firmware what there is.
pub(super) fn tell(
    images: &Images,
    memory: &Arc<GuestMemory>,
    board: &tables::Board<'_>,
    disks: &[u8],
    buses: &mut Buses,
) -> Result<Arc<dyn BoardDevice>, BoardError> {
    let device = Arc::new(FwCfg::new(items(images, memory, board, disks)?, Arc::clone(memory)));
    let port = map::FIRMWARE_CONFIG_PORT.into();
    map_device(&mut buses.ports, "fw-cfg", port, fw_cfg::SIZE, Arc::clone(&device) as Arc<dyn BusDevice>);
    Ok(device)
}
