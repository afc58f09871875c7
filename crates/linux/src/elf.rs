//! ELF executables: what their headers say, and how they get into an address space.
//!
//! A program is one file, or two: itself, and the loader that it names (`PT_INTERP`), which then finds its libraries by itself. Files are mapped, not
//! read: pages that nobody touches cost nothing, and are shared with other processes.
//!
//! ELF gABI, chapters 4 and 5; RISC-V ELF psABI for the machine's number.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::space::{AddressSpace, EXECUTE, PAGE, READ, SIZE, WRITE};

/// Where the headers of position-independent programs are mapped: at two thirds of the space, as Linux does it.
const PROGRAM_BASE: u64 = (SIZE / 3 * 2) & !(PAGE - 1);
/// More segments than any linker makes.
const SEGMENTS_MAX: u16 = 256;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const EM_RISCV: u16 = 243;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

const MAP_PRIVATE: u64 = libc::MAP_PRIVATE as u64;
const MAP_ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;
const MAP_FIXED: u64 = libc::MAP_FIXED as u64;

/// Why a file cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(std::io::Error),
    /// It is for something else.
    #[error("not a program for riscv64 Linux")]
    NotRiscv,
    /// It is a program of the named processor.
    #[error("not a RISC-V program ({0} ELF); {hint}", hint = if *.0 == HOST { "run it directly" } else { "run it on such a machine" })]
    Foreign(&'static str),
    /// Its headers contradict themselves or the file.
    #[error("its ELF headers are damaged: {0}")]
    Damaged(&'static str),
    /// A segment cannot be mapped.
    #[error("its segment at {address:#x} cannot be mapped: {cause}")]
    Map {
        /// Where it was to be in the guest.
        address: u64,
        /// What the host said.
        cause: std::io::Error,
    },
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

/// The headers of an executable.
#[derive(Debug)]
pub struct Headers {
    position_independent: bool,
    entry: u64,
    table_offset: u64,
    table_count: u16,
    segments: Vec<Segment>,
    /// The loader that it asks for.
    pub interpreter: Option<Vec<u8>>,
}

/// Where a file was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Added to the addresses in the file.
    pub bias: u64,
    /// Where execution begins.
    pub entry: u64,
    /// Where its program headers are.
    pub headers: u64,
    /// How many they are.
    pub headers_count: u16,
    /// Where its last segment ends.
    pub end: u64,
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

/// Whether a file that begins so is an ELF file for riscv64, of whatever type.
#[must_use]
pub fn is_riscv(start: &[u8]) -> bool {
    start.len() >= 20 && start.starts_with(b"\x7fELF\x02\x01") && half(start, 18) == EM_RISCV
}

/// The host's processor, as [`foreign`] names it.
const HOST: &str = if cfg!(target_arch = "x86_64") { "x86-64" } else { "AArch64" };

/// The processor of an ELF file that begins so, if it is a known one but not ours.
fn foreign(start: &[u8; 64]) -> Option<&'static str> {
    if !start.starts_with(b"\x7fELF") {
        return None;
    }
    match half(start, 18) {
        3 => Some("x86"),
        8 => Some("MIPS"),
        20 | 21 => Some("PowerPC"),
        22 => Some("S/390"),
        40 => Some("ARM"),
        62 => Some("x86-64"),
        183 => Some("AArch64"),
        EM_RISCV if start[4] == 1 => Some("32-bit RISC-V"),
        258 => Some("LoongArch"),
        _ => None,
    }
}

impl Headers {
    /// Reads them.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn read(file: &File) -> Result<Self, ElfError> {
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => ElfError::NotRiscv,
            _ => ElfError::Read(error),
        })?;
        let kind = half(&header, 16);
        if let Some(processor) = foreign(&header) {
            return Err(ElfError::Foreign(processor));
        }
        if !is_riscv(&header) || ![ET_EXEC, ET_DYN].contains(&kind) {
            return Err(ElfError::NotRiscv);
        }
        let (table_offset, size, table_count) = (long(&header, 32), half(&header, 54), half(&header, 56));
        if size != 56 || table_count == 0 || table_count > SEGMENTS_MAX {
            return Err(ElfError::Damaged("the table of segments"));
        }
        let mut table = vec![0; usize::from(table_count) * 56];
        file.read_exact_at(&mut table, table_offset).map_err(|_| ElfError::Damaged("the table of segments"))?;
        let (mut segments, mut interpreter) = (Vec::new(), None);
        for entry in table.chunks_exact(56) {
            let (offset, file_size) = (long(entry, 8), long(entry, 32));
            match word(entry, 0) {
                PT_LOAD => segments.push(Segment {
                    flags: word(entry, 4),
                    offset,
                    address: long(entry, 16),
                    file_size,
                    memory_size: long(entry, 40),
                }),
                PT_INTERP => {
                    let size = usize::try_from(file_size).ok().filter(|size| (2..4096).contains(size));
                    let mut path = vec![0; size.ok_or(ElfError::Damaged("the loader's name"))?];
                    file.read_exact_at(&mut path, offset).map_err(|_| ElfError::Damaged("the loader's name"))?;
                    path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
                    interpreter = Some(path);
                }
                _ => {}
            }
        }
        let in_order =
            segments.windows(2).all(|pair| pair[0].address.saturating_add(pair[0].memory_size) <= pair[1].address);
        let file_size = file.metadata().map_err(ElfError::Read)?.len();
        let sane = segments.iter().all(|segment| {
            segment.file_size <= segment.memory_size
                // Pages past the file's end cannot be accessed, by us neither.
                && segment.offset.checked_add(segment.file_size).is_some_and(|end| end <= file_size)
                && segment.address.checked_add(segment.memory_size).is_some_and(|end| end <= SIZE)
                && segment.address % PAGE == segment.offset % PAGE
        });
        if segments.is_empty() || !in_order || !sane {
            return Err(ElfError::Damaged("the segments"));
        }
        Ok(Self {
            position_independent: kind == ET_DYN,
            entry: long(&header, 24),
            table_offset,
            table_count,
            segments,
            interpreter,
        })
    }

    /// Maps the file's segments. `is_program`: else it is a loader, and goes wherever there is room.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn map(&self, file: &File, space: &AddressSpace, is_program: bool) -> Result<Loaded, ElfError> {
        let start = self.segments[0].address & !(PAGE - 1);
        let end = self.segments.iter().map(|segment| segment.address + segment.memory_size).max().unwrap_or(start);
        let refuse = |address: u64| {
            move |error: i64| ElfError::Map {
                address,
                cause: std::io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(libc::EIO)),
            }
        };
        let bias = if self.position_independent {
            // All of it at once, so that the segments find their places free.
            let hint = if is_program { PROGRAM_BASE } else { 0 };
            let at = space.map(hint, end - start, 0, MAP_PRIVATE | MAP_ANONYMOUS, u64::MAX, 0).map_err(refuse(hint))?;
            at.wrapping_sub(start)
        } else {
            0
        };
        let descriptor = u64::from(file.as_raw_fd().unsigned_abs());
        for segment in &self.segments {
            let address = segment.address.wrapping_add(bias);
            let protection = [(4, READ), (2, WRITE), (1, EXECUTE)]
                .iter()
                .fold(0, |all, (flag, right)| if segment.flags & flag != 0 { all | right } else { all });
            let (page, inside) = (address & !(PAGE - 1), address % PAGE);
            let file_end = address + segment.file_size;
            let memory_end = address + segment.memory_size;
            let mut mapped_end = page;
            if segment.file_size > 0 {
                let offset = segment.offset - inside;
                space
                    .map(page, file_end - page, protection, MAP_PRIVATE | MAP_FIXED, descriptor, offset)
                    .map_err(refuse(address))?;
                mapped_end = file_end.next_multiple_of(PAGE);
                // What follows in the last page is not the file's. All of it is cleared, as Linux does: loaders take their first memory there.
                if segment.memory_size > segment.file_size && protection & WRITE != 0 {
                    let zeroes = vec![0; usize::try_from(mapped_end - file_end).unwrap_or(0)];
                    space.write(file_end, &zeroes).map_err(refuse(file_end))?;
                }
            }
            if memory_end > mapped_end {
                let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
                space
                    .map(mapped_end, memory_end - mapped_end, protection, flags, u64::MAX, 0)
                    .map_err(refuse(mapped_end))?;
            }
        }
        let holds_table = |segment: &&Segment| {
            self.table_offset >= segment.offset && self.table_offset - segment.offset < segment.file_size
        };
        let headers = self
            .segments
            .iter()
            .find(holds_table)
            .map_or(0, |segment| segment.address + (self.table_offset - segment.offset));
        Ok(Loaded {
            bias,
            entry: self.entry.wrapping_add(bias),
            headers: headers.wrapping_add(bias),
            headers_count: self.table_count,
            end: end.wrapping_add(bias),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A program of one segment: its headers and eight bytes of code.
    fn program() -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut put = |at: usize, value: u64, size: usize| {
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        put(16, ET_EXEC.into(), 2);
        put(18, EM_RISCV.into(), 2);
        put(24, 0x1_0078, 8);
        put(32, 64, 8);
        put(54, 56, 2);
        put(56, 1, 2);
        put(64, PT_LOAD.into(), 4);
        put(68, 7, 4);
        put(80, 0x1_0000, 8);
        put(96, 128, 8);
        put(104, 0x2000, 8);
        bytes
    }

    fn load(bytes: &[u8]) -> Result<Loaded, ElfError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let space = AddressSpace::new().unwrap();
        Headers::read(&file)?.map(&file, &space, true)
    }

    #[test]
    fn a_program_is_mapped() {
        let loaded = load(&program()).unwrap();
        let expected = Loaded { bias: 0, entry: 0x1_0078, headers: 0x1_0040, headers_count: 1, end: 0x1_2000 };
        assert_eq!(loaded, expected);
    }

    #[test]
    fn cut_files_are_errors() {
        let bytes = program();
        for length in 0..bytes.len() {
            assert!(load(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn wild_headers_are_errors_or_programs() {
        for at in 0..120 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = program();
                bytes[at] = value;
                if let Ok(loaded) = load(&bytes) {
                    assert!(loaded.end <= SIZE, "{at}: {loaded:x?}");
                }
            }
        }
        // Offset, address, size in the file, size in memory.
        for field in [72, 80, 96, 104] {
            let mut bytes = program();
            bytes[field..field + 8].fill(0xff);
            assert!(matches!(load(&bytes), Err(ElfError::Damaged(_))), "{field}");
        }
    }

    #[test]
    fn programs_of_other_processors_are_named() {
        let mut bytes = program();
        bytes[18] = 62;
        let error = load(&bytes).unwrap_err().to_string();
        assert!(error.starts_with("not a RISC-V program (x86-64 ELF); "), "{error}");
        assert_eq!(load(b"#!/bin/sh").unwrap_err().to_string(), "not a program for riscv64 Linux");
    }
}
