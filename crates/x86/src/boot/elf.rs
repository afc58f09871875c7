//! Kernels as ELF files: entered by PVH if they have its note, else by Linux's 64-bit protocol, as an uncompressed `vmlinux` is.

use machine::memory::GuestMemory;

use super::registers::Entry;
use super::{BootError, COMMAND_LINE, ImageFile, Images, KERNEL_BASE, START_INFO, linux, memory_map, put};

const LOAD: u32 = 1;
/// Names the loader of a dynamic program.
const INTERPRETER: u32 = 3;
const NOTE: u32 = 4;
/// The note of Xen's that names the entry point in 32-bit mode.
const PHYS32_ENTRY: u32 = 18;
const START_MAGIC: u32 = 0x336e_c578;
/// Where the module's and the memory map's entries are, from the start information.
const MODULES: u64 = 0x40;
const MAP: u64 = 0x80;
/// Headers and notes that are longer are none of a kernel's.
const NOTES_BYTES_MAX: u64 = 64 << 10;
const SEGMENTS_COUNT_MAX: u16 = 128;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn segments(kernel: &ImageFile) -> Result<(u64, Vec<Segment>), BootError> {
    let mut head = [0; 64];
    kernel.read(0, &mut head)?;
    let (entry, table) = (u64_at(&head, 24), u64_at(&head, 32));
    let (size, count) = (u16_at(&head, 54), u16_at(&head, 56));
    if size != 56 || count == 0 || count > SEGMENTS_COUNT_MAX {
        return Err(kernel.wrong("its program headers are not those of a kernel"));
    }
    let mut bytes = vec![0; 56 * usize::from(count)];
    kernel.read(table, &mut bytes)?;
    let segment = |bytes: &[u8]| Segment {
        kind: u32_at(bytes, 0),
        offset: u64_at(bytes, 8),
        address: u64_at(bytes, 24),
        file_bytes: u64_at(bytes, 32),
        memory_bytes: u64_at(bytes, 40),
    };
    let segments: Vec<_> = bytes.chunks_exact(56).map(segment).collect();
    if segments.iter().any(|segment| segment.kind == INTERPRETER) {
        return Err(kernel.wrong("it is a program for Linux, which this host can start itself"));
    }
    Ok((entry, segments))
}

/// The entry point that a note of Xen's names.
fn pvh_entry(notes: &[u8]) -> Option<u64> {
    let mut rest = notes;
    while rest.len() >= 12 {
        let (name, length, kind) = (u32_at(rest, 0) as usize, u32_at(rest, 4) as usize, u32_at(rest, 8));
        let start = 12 + name.checked_next_multiple_of(4)?;
        let body = rest.get(start..start.checked_add(length)?)?;
        if kind == PHYS32_ENTRY && rest.get(12..12 + name)? == b"Xen\0" {
            return match length {
                4 => Some(u32_at(body, 0).into()),
                8 => Some(u64_at(body, 0)),
                _ => None,
            };
        }
        rest = rest.get(start.checked_add(length.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

pub(super) fn load(images: &Images, kernel: &ImageFile, memory: &GuestMemory, rsdp: u64) -> Result<Entry, BootError> {
    let (entry, segments) = segments(kernel)?;
    let mut end = KERNEL_BASE;
    let mut pvh = None;
    for segment in &segments {
        match segment.kind {
            LOAD if segment.memory_bytes > 0 => {
                let above = segment.address.checked_add(segment.memory_bytes.max(segment.file_bytes));
                let above = above.filter(|_| segment.address >= KERNEL_BASE);
                end = end.max(above.ok_or_else(|| kernel.wrong("it is to lie below 1 MiB"))?);
                kernel.copy(segment.offset, segment.file_bytes, memory, segment.address)?;
            }
            NOTE => {
                let mut notes = vec![0; machine::address::host_size(segment.file_bytes.min(NOTES_BYTES_MAX))];
                kernel.read(segment.offset, &mut notes)?;
                pvh = pvh.or(pvh_entry(&notes));
            }
            _ => {}
        }
    }
    if !memory.contains(machine::GuestPhysical(KERNEL_BASE), end - KERNEL_BASE) {
        return Err(BootError::Room { what: "the kernel", bytes: end - KERNEL_BASE });
    }
    let initrd = images.load_initrd(memory, end, u64::MAX)?;
    let Some(entry_32) = pvh else {
        // The signature, the version of the protocol, and no more: the kernel's own header is not in such a file.
        let mut header = [0; 0x68 - 1];
        header[0x1fe - 0x1f1..0x206 - 0x1f1].copy_from_slice(&[0x55, 0xaa, 0, 0, b'H', b'd', b'r', b'S']);
        header[0x206 - 0x1f1..0x208 - 0x1f1].copy_from_slice(&0x20cu16.to_le_bytes());
        return Ok(linux::enter(images, memory, rsdp, entry, initrd, &header));
    };
    let Ok(entry) = u32::try_from(entry_32) else { return Err(kernel.wrong("its entry point lies above 4 GiB")) };

    let ranges = memory_map(memory);
    let mut info = Vec::new();
    info.extend(START_MAGIC.to_le_bytes());
    info.extend(1u32.to_le_bytes());
    info.extend(0u32.to_le_bytes());
    info.extend(u32::from(initrd.length > 0).to_le_bytes());
    for address in [START_INFO + MODULES, COMMAND_LINE, rsdp, START_INFO + MAP] {
        info.extend(address.to_le_bytes());
    }
    info.extend(u32::try_from(ranges.len()).unwrap_or(0).to_le_bytes());
    put(memory, START_INFO, &info);
    let module = [initrd.start, initrd.length, 0, 0];
    put(memory, START_INFO + MODULES, &module.map(u64::to_le_bytes).concat());
    let mut table = Vec::new();
    for range in ranges {
        table.extend(range.start.to_le_bytes());
        table.extend((range.end - range.start).to_le_bytes());
        table.extend(range.kind.to_le_bytes());
        table.extend([0; 4]);
    }
    put(memory, START_INFO + MAP, &table);
    Ok(Entry::Protected { entry, start_info: u32::try_from(START_INFO).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_notes_end() {
        let note = |name: u32, length: u32, kind: u32| [name, length, kind].map(u32::to_le_bytes).concat();
        let mut good = note(4, 4, 2);
        good.extend(*b"Xen\0abcd");
        good.extend(note(4, 4, PHYS32_ENTRY));
        good.extend(*b"Xen\0");
        good.extend(0x100_0000u32.to_le_bytes());
        assert_eq!(pvh_entry(&good), Some(0x100_0000));
        for cut in 0..good.len() {
            assert_eq!(pvh_entry(&good[..cut]), None);
        }
        for (name, length) in [(u32::MAX, 4), (4, u32::MAX), (0, 0), (u32::MAX, u32::MAX)] {
            assert_eq!(pvh_entry(&note(name, length, PHYS32_ENTRY)), None);
        }
    }
}
