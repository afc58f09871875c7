//! Linux's own boot protocol, entered in 64-bit mode.

use machine::memory::GuestMemory;

use super::registers::Entry;
use super::{
    BootError, COMMAND_LINE, COMMAND_LINE_BYTES_MAX, ImageFile, Images, KERNEL_BASE, Module, ZERO_PAGE, memory_map, put,
};

/// Offsets in the zero page, which are also those in the image.
const RSDP: usize = 0x070;
const MAP_COUNT: usize = 0x1e8;
const SETUP_SECTORS: usize = 0x1f1;
const LOADER: usize = 0x210;
const LOAD_FLAGS: usize = 0x211;
const INITRD: usize = 0x218;
const COMMAND_LINE_POINTER: usize = 0x228;
const INITRD_LAST: usize = 0x22c;
const ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const EXTENDED_FLAGS: usize = 0x236;
const COMMAND_LINE_SIZE: usize = 0x238;
const PREFERRED: usize = 0x258;
const INIT_SIZE: usize = 0x260;
const MAP: usize = 0x2d0;
const PAGE: usize = 0x1000;
/// The first version whose header says whether the kernel can be entered in 64-bit mode.
const VERSION_MIN: u16 = 0x20c;
/// The 64-bit entry point lies so far behind the 32-bit one.
const ENTRY_64: u64 = 0x200;
/// A boot loader without a number of its own.
const UNDEFINED: u8 = 0xff;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 2]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 4]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 8]))
}

fn set(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

fn set32(page: &mut [u8], at: usize, value: u64) {
    // Addresses and sizes here are below 4 GiB.
    set(page, at, &u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

/// How long the part of an image is that is for real mode; its kernel follows. `head` is how it begins.
pub(super) fn setup_bytes(head: &[u8]) -> u64 {
    let sectors = head.get(SETUP_SECTORS).copied().filter(|sectors| *sectors != 0).unwrap_or(4);
    (u64::from(sectors) + 1) * 512
}

pub(super) fn load(images: &Images, kernel: &ImageFile, memory: &GuestMemory, rsdp: u64) -> Result<Entry, BootError> {
    let mut head = [0; PAGE];
    kernel.read(0, &mut head)?;
    if u16_at(&head, 0x206) < VERSION_MIN {
        return Err(kernel.wrong("it is older than Linux 3.8"));
    }
    if head[EXTENDED_FLAGS] & 1 == 0 {
        return Err(kernel.wrong("it is a kernel for 32-bit processors"));
    }
    let offset = setup_bytes(&head);
    let length = kernel.length.checked_sub(offset).ok_or_else(|| kernel.wrong("it is cut off"))?;
    let max = u64::from(u32_at(&head, COMMAND_LINE_SIZE)).min(COMMAND_LINE_BYTES_MAX - 1);
    if images.arguments.len() as u64 > max {
        return Err(BootError::CommandLine { length: images.arguments.len(), max });
    }

    // Where it likes to be, or if that is too high for this machine, as low as it can be.
    let room = u64::from(u32_at(&head, INIT_SIZE)).max(length);
    let preferred = u64_at(&head, PREFERRED);
    let fits = |base: u64| base >= KERNEL_BASE && memory.contains(machine::GuestPhysical(base), room);
    let lowest = KERNEL_BASE.next_multiple_of(u64::from(u32_at(&head, ALIGNMENT)).clamp(1, 1 << 30));
    let base = if fits(preferred) { preferred } else { lowest };
    if !fits(base) || (base != preferred && head[RELOCATABLE] == 0) {
        return Err(BootError::Room { what: "the kernel", bytes: room });
    }
    kernel.copy(offset, length, memory, base)?;
    let limit = u64::from(u32_at(&head, INITRD_LAST)) + 1;
    let initrd = images.load_initrd(memory, base + room, limit)?;

    let header = SETUP_SECTORS..0x202 + usize::from(head[0x201]);
    Ok(enter(images, memory, rsdp, base + ENTRY_64, initrd, &head[header]))
}

/// Writes the zero page with `header`, which is the image's from [`SETUP_SECTORS`] on.
pub(super) fn enter(
    images: &Images,
    memory: &GuestMemory,
    rsdp: u64,
    entry: u64,
    initrd: Module,
    header: &[u8],
) -> Entry {
    let mut page = vec![0; PAGE];
    set(&mut page, SETUP_SECTORS, header);
    page[LOADER] = UNDEFINED;
    page[LOAD_FLAGS] |= 1;
    set32(&mut page, INITRD, initrd.start);
    set32(&mut page, INITRD + 4, initrd.length);
    set32(&mut page, COMMAND_LINE_POINTER, COMMAND_LINE);
    set32(&mut page, COMMAND_LINE_SIZE, images.arguments.len() as u64);
    set(&mut page, RSDP, &rsdp.to_le_bytes());
    let ranges = memory_map(memory);
    page[MAP_COUNT] = u8::try_from(ranges.len()).unwrap_or(u8::MAX);
    for (index, range) in ranges.iter().enumerate() {
        let at = MAP + 20 * index;
        set(&mut page, at, &range.start.to_le_bytes());
        set(&mut page, at + 8, &(range.end - range.start).to_le_bytes());
        set(&mut page, at + 16, &range.kind.to_le_bytes());
    }
    put(memory, ZERO_PAGE, &page);
    Entry::Long { entry, zero_page: ZERO_PAGE }
}
