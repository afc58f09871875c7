//! Where the images of one machine go in its RAM; see the picture in the parent module.

use std::ops::Range;

use machine::GuestPhysical;
use machine::memory::GuestMemory;

use super::{ImageFile, LoadError, Problem, Program, Ram};

/// Where a kernel that does not say goes, in bytes from the start of RAM; also where OpenSBI's `fw_jump` jumps.
pub const KERNEL_OFFSET: u64 = 2 << 20;
/// The room kept for the device tree and the information for `fw_dynamic`, in bytes.
pub const FDT_ROOM: u64 = 2 << 20;
/// Firmware that runs with 32-bit addresses reaches the device tree below this address.
const FDT_CEILING: u64 = 3 << 30;
const LARGE_PAGE: u64 = 2 << 20;

/// The files that a machine starts from.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// What runs in machine mode. Without one, the monitor is the firmware.
    pub firmware: Option<ImageFile>,
    /// What runs in supervisor mode.
    pub kernel: Option<ImageFile>,
    /// The kernel's initial RAM disk.
    pub initrd: Option<ImageFile>,
}

/// Where everything went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The first instruction of the machine.
    pub entry: GuestPhysical,
    /// Where a firmware is to go on: the kernel's entry, if there are both.
    pub next: Option<GuestPhysical>,
    /// The initial RAM disk.
    pub initrd: Option<Range<u64>>,
    /// Where the device tree goes: [`FDT_ROOM`] bytes less one page.
    pub fdt: GuestPhysical,
    /// Where the information for `fw_dynamic` goes: one page.
    pub dynamic_info: GuestPhysical,
}

impl Images {
    /// Reads the images and copies them to `memory`, which reads as zeroes.
    ///
    /// # Errors
    /// One of the files cannot be used; see [`Problem`].
    pub fn load(&self, memory: &GuestMemory) -> Result<Layout, LoadError> {
        let ram = Ram::of(memory);
        let firmware = self.firmware.as_ref().map(|file| {
            let program = file.read(ram).and_then(|bytes| Program::firmware(bytes, ram, 0));
            program.map_err(|problem| file.error(problem))
        });
        let firmware = firmware.transpose()?;
        let kernel = self.kernel.as_ref().map(|file| {
            let program = file.read(ram).and_then(|bytes| match firmware {
                Some(_) => Program::firmware(bytes, ram, KERNEL_OFFSET),
                None => Program::kernel(bytes, ram),
            });
            program.map_err(|problem| file.error(problem))
        });
        let kernel = kernel.transpose()?;
        let initrd = self.initrd.as_ref().map(|file| file.read(ram).map_err(|problem| file.error(problem)));
        let initrd = initrd.transpose()?;

        let layout = place(ram, firmware.as_ref(), kernel.as_ref(), initrd.as_ref().map(|bytes| bytes.len() as u64));
        let layout = layout.map_err(|(culprit, problem)| {
            let file = match culprit {
                Culprit::Firmware => &self.firmware,
                Culprit::Kernel => &self.kernel,
                Culprit::Initrd => &self.initrd,
            };
            let name = file.as_ref().map_or_else(|| "machine".to_string(), |file| file.name().to_string());
            LoadError { name, problem }
        })?;
        let write = || {
            for program in [&firmware, &kernel].into_iter().flatten() {
                program.write_to(memory)?;
            }
            if let (Some(range), Some(bytes)) = (&layout.initrd, &initrd) {
                memory.write(GuestPhysical(range.start), bytes)?;
            }
            Ok(())
        };
        write().map_err(|outside: machine::memory::OutOfRange| LoadError {
            name: "machine".into(),
            problem: Problem::Damaged(outside.to_string()),
        })?;
        Ok(layout)
    }
}

pub(super) enum Culprit {
    Firmware,
    Kernel,
    Initrd,
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Where each goes; or which of them is at fault.
pub(super) fn place(
    ram: Ram,
    firmware: Option<&Program>,
    kernel: Option<&Program>,
    initrd_size: Option<u64>,
) -> Result<Layout, (Culprit, Problem)> {
    let top = if ram.base < FDT_CEILING { ram.end().min(FDT_CEILING) } else { ram.end() };
    let fdt = top.saturating_sub(FDT_ROOM) & !(LARGE_PAGE - 1);
    let fdt_range = fdt..fdt + FDT_ROOM;
    let last = || if kernel.is_some() { Culprit::Kernel } else { Culprit::Firmware };
    let programs_end = firmware.iter().chain(&kernel).map(|p| p.range().end).max().unwrap_or(ram.base);
    if fdt < ram.base {
        return Err((last(), ram.too_large(programs_end)));
    }
    for (program, culprit) in [(firmware, Culprit::Firmware), (kernel, Culprit::Kernel)] {
        let Some(program) = program else { continue };
        if overlap(&program.range(), &fdt_range) {
            return Err((culprit, ram.too_large(program.range().end)));
        }
    }
    if let (Some(firmware), Some(kernel)) = (firmware, kernel)
        && overlap(&firmware.range(), &kernel.range())
    {
        return Err((Culprit::Kernel, Problem::OverFirmware));
    }
    let initrd = match initrd_size {
        None => None,
        Some(size) => {
            let kernel_start = kernel.map_or(ram.base + KERNEL_OFFSET, |kernel| kernel.range().start);
            let low = programs_end.max(kernel_start + (ram.size / 2).min(512 << 20)).next_multiple_of(LARGE_PAGE);
            let high = fdt.saturating_sub(size) & !(LARGE_PAGE - 1);
            let at = if low.saturating_add(size) <= fdt { low } else { high };
            if at < programs_end {
                return Err((Culprit::Initrd, ram.too_large(programs_end.saturating_add(size) + LARGE_PAGE)));
            }
            Some(at..at + size)
        }
    };
    let entry = firmware.or(kernel).map_or(GuestPhysical(ram.base), |program| program.entry);
    let next = firmware.and(kernel).map(|kernel| kernel.entry);
    let dynamic_info = GuestPhysical(fdt + FDT_ROOM - machine::PAGE_SIZE);
    Ok(Layout { entry, next, initrd, fdt: GuestPhysical(fdt), dynamic_info })
}
