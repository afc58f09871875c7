//! How a guest gets into RAM, and how its first processor begins.
//!
//! Specification: Linux `Documentation/arch/x86/boot.rst` (version 2.12 and later, the 64-bit protocol) and `zero-page.rst`; Xen's `docs/misc/pvh.pandoc` and
//! `start_info.h`; System V ABI for ELF.
//!
//! | address | what |
//! |---|---|
//! | `0x0500` | segment descriptors |
//! | `0x6000` | PVH's start information, its module and memory map |
//! | `0x7000` | the "zero page" |
//! | `0x9000` | page tables: the first 4 GiB, one to one |
//! | `0x2_0000` | the command line |
//! | [`map::TABLES`] | ACPI |
//! | from 1 MiB | the kernel; the initial RAM disk as high as it may be |
//!
//! With [firmware] nothing is put into RAM: it is told what there is, and the first processor begins where processors do.
//!
//! Files are copied piece by piece, so that the monitor never holds a whole kernel.

mod elf;
pub mod firmware;
mod linux;
mod registers;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use machine::address::host_size;
use machine::memory::GuestMemory;
use machine::sys::file::unnamed_file;
use machine::{GuestPhysical, PAGE_SIZE};

use crate::map;
use crate::tables;

pub use firmware::Firmware;
pub use registers::Entry;
pub(crate) use registers::prepare;

const START_INFO: u64 = 0x6000;
const ZERO_PAGE: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;
/// The command line's place ends where tables of old would begin.
const COMMAND_LINE_BYTES_MAX: u64 = 0x1_0000;
const KERNEL_BASE: u64 = 0x10_0000;

/// Why a guest cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is no x86-64 kernel: {why}")]
    Kernel {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file is not what it should be.
    #[error("{path} is no UEFI firmware for x86-64: {why}")]
    Firmware {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Firmware's variables have no place.
    #[error("cannot keep the firmware's variables in {path}: {cause}")]
    Variables {
        /// The file.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// There is neither a kernel nor firmware.
    #[error("a machine needs a kernel or firmware; name one with --kernel or --firmware")]
    Nothing,
    /// RAM is too small.
    #[error("{what} ({bytes} bytes) does not fit into memory; give the machine more with --memory")]
    Room {
        /// What did not fit.
        what: &'static str,
        /// How large it is, at the end.
        bytes: u64,
    },
    /// The command line is too long.
    #[error("the kernel takes a command line of at most {max} bytes, and this one has {length}; shorten --append")]
    CommandLine {
        /// How long it is.
        length: usize,
        /// How long it may be.
        max: u64,
    },
}

/// A file, and how it is called in errors.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl ImageFile {
    /// Opens the file for reading.
    ///
    /// # Errors
    /// The host refuses.
    pub fn open(path: &Path) -> Result<Self, BootError> {
        let read = |cause| BootError::Read { path: path.to_owned(), cause };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    fn try_clone(&self) -> Result<Self, BootError> {
        let file = self.file.try_clone().map_err(|cause| BootError::Read { path: self.path.clone(), cause })?;
        Ok(Self { path: self.path.clone(), file, length: self.length })
    }

    /// Fills `bytes` from `offset`; what lies behind the end of the file is zero.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BootError> {
        let count = host_size(self.length.saturating_sub(offset).min(bytes.len() as u64));
        bytes[count..].fill(0);
        let read = self.file.read_exact_at(&mut bytes[..count], offset);
        read.map_err(|cause| BootError::Read { path: self.path.clone(), cause })
    }

    /// Copies `length` bytes from `offset` to `at`, where there is room.
    fn copy(&self, offset: u64, length: u64, memory: &GuestMemory, at: u64) -> Result<(), BootError> {
        const PIECE: u64 = 64 << 10;
        let room = BootError::Room { what: "the kernel", bytes: length };
        if !memory.contains(GuestPhysical(at), length) {
            return Err(room);
        }
        let mut piece = vec![0; host_size(length.min(PIECE))];
        let mut done = 0;
        while done < length {
            let count = host_size((length - done).min(PIECE));
            self.read(offset + done, &mut piece[..count])?;
            if memory.write(GuestPhysical(at + done), &piece[..count]).is_err() {
                return Err(room);
            }
            done += count as u64;
        }
        Ok(())
    }

    fn wrong(&self, why: &'static str) -> BootError {
        BootError::Kernel { path: self.path.clone(), why }
    }
}

/// What kind of kernel a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Linux's compressed image.
    BzImage,
    /// An ELF file for x86-64.
    Elf,
}

fn kind(file: &ImageFile) -> Result<Option<Kind>, BootError> {
    let mut head = [0; 0x210];
    file.read(0, &mut head)?;
    let is_elf = head.starts_with(b"\x7fELF\x02\x01") && head[18..20] == [62, 0];
    let is_linux = head[0x1fe..0x200] == [0x55, 0xaa] && head[0x202..0x206] == *b"HdrS";
    Ok(if is_elf { Some(Kind::Elf) } else { is_linux.then_some(Kind::BzImage) })
}

/// Whether the file is a kernel that this machine starts.
///
/// # Errors
/// It cannot be read.
pub fn is_kernel(path: &Path) -> Result<bool, BootError> {
    Ok(kind(&ImageFile::open(path)?)?.is_some())
}

/// What a machine starts.
#[derive(Debug)]
pub struct Images {
    /// The firmware; without it, a kernel is started right away.
    pub firmware: Option<Firmware>,
    /// The kernel. With firmware there need not be one: that finds something on a disk.
    pub kernel: Option<ImageFile>,
    /// The initial RAM disk.
    pub initrd: Option<ImageFile>,
    /// The kernel's command line.
    pub arguments: String,
}

/// A range of the map of memory that a kernel is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
    /// 1 is RAM, 2 is not to be used.
    kind: u32,
}

fn memory_map(memory: &GuestMemory) -> Vec<Range> {
    const RAM: u32 = 1;
    const RESERVED: u32 = 2;
    let mut ranges = vec![
        Range { start: 0, end: map::LOW_RAM_END, kind: RAM },
        Range { start: map::LOW_RAM_END, end: 0xa_0000, kind: RESERVED },
        Range { start: map::TABLES.start, end: map::TABLES.end, kind: RESERVED },
    ];
    for region in memory.regions() {
        let (start, end) = (region.base.0.max(KERNEL_BASE), region.base.0 + region.size);
        ranges.push(Range { start, end, kind: RAM });
    }
    ranges.push(Range { start: map::PCI_ECAM.start, end: map::PCI_ECAM.end, kind: RESERVED });
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// Where the initial RAM disk was put.
#[derive(Clone, Copy, Debug, Default)]
struct Module {
    start: u64,
    length: u64,
}

/// Writes what fits where the layout says: it is inside RAM, which is at least [`MEMORY_BYTES_MIN`].
fn put(memory: &GuestMemory, at: u64, bytes: &[u8]) {
    let written = memory.write(GuestPhysical(at), bytes);
    debug_assert!(written.is_ok(), "the layout is in memory: {written:?}");
}

/// The least RAM that a machine can have: what lies below 1 MiB is needed, and some for a kernel.
pub const MEMORY_BYTES_MIN: u64 = 4 << 20;

impl Images {
    /// Whether what is started is Linux's compressed image.
    pub(crate) fn is_linux(&self) -> Result<bool, BootError> {
        self.kernel.as_ref().map_or(Ok(false), |kernel| Ok(kind(kernel)? == Some(Kind::BzImage)))
    }

    /// Fills RAM, which is all zeroes, and answers how the first processor begins.
    ///
    /// # Errors
    /// See [`BootError`].
    pub fn load(&self, memory: &GuestMemory, board: &tables::Board<'_>) -> Result<Entry, BootError> {
        if self.firmware.is_some() {
            return Ok(Entry::Reset);
        }
        let kernel = self.kernel.as_ref().ok_or(BootError::Nothing)?;
        let tables = tables::build(board, map::TABLES.start);
        let room = map::TABLES.end - map::TABLES.start;
        assert!(tables.bytes.len() as u64 <= room, "the tables have their room");
        put(memory, map::TABLES.start, &tables.bytes);
        let length = self.arguments.len();
        if length as u64 >= COMMAND_LINE_BYTES_MAX {
            return Err(BootError::CommandLine { length, max: COMMAND_LINE_BYTES_MAX - 1 });
        }
        put(memory, COMMAND_LINE, self.arguments.as_bytes());
        match kind(kernel)? {
            Some(Kind::BzImage) => linux::load(self, kernel, memory, map::TABLES.start),
            Some(Kind::Elf) => elf::load(self, kernel, memory, map::TABLES.start),
            None => Err(kernel.wrong("it is neither a bzImage nor an ELF file for x86-64")),
        }
    }

    /// Copies the initial RAM disk to the highest place that ends at most at `limit`, and begins at least at `base`.
    fn load_initrd(&self, memory: &GuestMemory, base: u64, limit: u64) -> Result<Module, BootError> {
        let Some(initrd) = &self.initrd else { return Ok(Module::default()) };
        let length = initrd.length;
        let low_end = memory.regions().first().map_or(0, |region| region.size);
        let start = limit.min(low_end).checked_sub(length).map(|start| start & !(PAGE_SIZE - 1));
        let start = start.filter(|start| *start >= base);
        let start = start.ok_or(BootError::Room { what: "the initial RAM disk", bytes: length })?;
        initrd.copy(0, length, memory, start)?;
        Ok(Module { start, length })
    }
}

/// Fuzzing: takes `bytes` for every kind of image, and loads what can be loaded in a small memory. Must not panic.
pub fn fuzz(bytes: &[u8]) {
    let image = || -> io::Result<ImageFile> {
        let file = unnamed_file("fuzz")?;
        file.write_all_at(bytes, 0)?;
        Ok(ImageFile { path: "image".into(), file, length: bytes.len() as u64 })
    };
    let Ok(memory) = GuestMemory::mapped(16 << 20, map::HOLE) else { return };
    let (Ok(kernel), Ok(initrd), Ok(firmware)) = (image(), image(), image()) else { return };
    let images =
        Images { firmware: None, kernel: Some(kernel), initrd: Some(initrd), arguments: "console=ttyS0".into() };
    let board = tables::Board { cpus_count: 2, windows: &[], has_ecam: true, has_8259: true };
    match images.load(&memory, &board) {
        Ok(Entry::Long { entry, .. }) => assert_ne!(entry, 0),
        Ok(Entry::Protected { .. } | Entry::Reset) => {}
        Err(error) => assert!(!error.to_string().contains('\n'), "an error is one line"),
    }
    let _ = firmware::items(&images, &memory, &board, &[1]);
    let _ = firmware::variables_bytes(&firmware);
}
