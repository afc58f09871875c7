//! Guest images: what a file is, where its pieces go in RAM, and one clear line when it cannot be used.
//!
//! ```text
//!  file --open--> ImageFile --read--> bytes --sniff/gunzip--> Program { segments, entry } --place--> Layout --> guest RAM
//! ```
//!
//! RAM of a machine that has been loaded, low to high (the same places as on qemu's `virt`, which OpenSBI and U-Boot are built for):
//!
//! ```text
//!  base                 firmware, if any
//!  base + 0x20_0000     kernel: a Linux `Image` (at its own text offset), an ELF file's segments, or a firmware's raw payload
//!  kernel + min(RAM / 2, 512 MiB)   initrd, if it fits there; else right below the device tree
//!  min(end, 3 GiB) - 2 MiB          device tree; in its last page the information for `fw_dynamic`
//! ```
//!
//! Invariants: files are hostile; no byte of one makes this module panic, allocate beyond the guest's RAM (a compressed image stops
//! unpacking there), or write outside of it. Files stay open, so that a reset loads the same bytes, and hold no memory in between.
//!
//! Cost: one read and one copy of each image for each boot of the guest.

mod elf;
mod place;
mod sniff;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use machine::GuestPhysical;
use machine::memory::GuestMemory;

pub use elf::Elf;
pub use place::{FDT_ROOM, Images, KERNEL_OFFSET, Layout};

/// An image that cannot be used, by the name the user gave.
#[derive(Debug)]
pub struct LoadError {
    /// What the file was called on the command line.
    pub name: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

// The message holds the cause already, so there is no `source`: a report of both would say it twice.
impl std::error::Error for LoadError {}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The host cannot read it.
    #[error("cannot read it: {0}")]
    Read(io::Error),
    /// It has no bytes.
    #[error("is empty")]
    Empty,
    /// A program of a kind we know, for a processor that this machine does not have.
    #[error("is {0}; this machine's processor is riscv64")]
    OtherProcessor(String),
    /// Not a program for a machine without an operating system.
    #[error("is not a riscv64 kernel (Linux `Image`, plain or gzip-compressed, or ELF), but {0}")]
    NotKernel(String),
    /// The file ends before what its headers promise.
    #[error("is truncated: its {what} should end at byte {needs}, but the file ends at byte {has}")]
    Truncated {
        /// The part that is missing its end.
        what: &'static str,
        /// Where the part should end.
        needs: u64,
        /// The file's length.
        has: u64,
    },
    /// The compressed data is damaged or cut off.
    #[error("cannot be unpacked ({0}); is the file complete?")]
    Unpack(String),
    /// A header makes no sense.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// A program for other addresses than this machine's RAM.
    #[error("is linked to load at {start:#x}..{end:#x}, but this machine's memory is {ram_start:#x}..{ram_end:#x}")]
    Outside {
        /// The first address that it wants.
        start: u64,
        /// Where it would end.
        end: u64,
        /// The first address of RAM.
        ram_start: u64,
        /// The end of RAM.
        ram_end: u64,
    },
    /// The firmware and the kernel want the same addresses.
    #[error("loads over the firmware; give a kernel for supervisor mode, or another firmware")]
    OverFirmware,
    /// More RAM is needed.
    #[error("does not fit in {has_mib} MiB of memory: the machine needs {needs_mib} MiB; raise --memory")]
    TooLarge {
        /// The RAM that would be enough, in MiB.
        needs_mib: u64,
        /// The RAM that there is, in MiB.
        has_mib: u64,
    },
}

/// A file that a machine starts from. It stays open, so that a reset finds the same bytes.
#[derive(Clone, Debug)]
pub struct ImageFile {
    name: String,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    File(Arc<File>),
    Bytes(Arc<[u8]>),
}

impl ImageFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// It is missing, a folder, or not to be read by this user.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        let checked = File::open(path).and_then(|file| {
            if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
        });
        match checked {
            Ok(file) => Ok(Self { name, source: Source::File(Arc::new(file)) }),
            Err(cause) => Err(LoadError { name, problem: Problem::Read(cause) }),
        }
    }

    /// An image in memory, called `name` in messages.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), source: Source::Bytes(bytes.into()) }
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn error(&self, problem: Problem) -> LoadError {
        LoadError { name: self.name.clone(), problem }
    }

    /// All bytes of the file, if they are no more than the RAM.
    fn read(&self, ram: Ram) -> Result<Vec<u8>, Problem> {
        match &self.source {
            Source::Bytes(bytes) => Ok(bytes.to_vec()),
            Source::File(file) => {
                let size = file.metadata().map_err(Problem::Read)?.len();
                if size > ram.size {
                    return Err(ram.too_large(ram.base.saturating_add(size)));
                }
                let mut bytes = vec![0; machine::address::host_size(size)];
                file.read_exact_at(&mut bytes, 0).map_err(Problem::Read)?;
                Ok(bytes)
            }
        }
    }
}

/// The range of a machine's RAM.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    /// The first address.
    pub base: u64,
    /// The size in bytes.
    pub size: u64,
}

impl Ram {
    /// The RAM that `memory` is.
    #[must_use]
    pub fn of(memory: &GuestMemory) -> Self {
        Self { base: memory.base().0, size: memory.size() }
    }

    /// The address after the last.
    #[must_use]
    pub fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }

    fn contains(self, range: &Range<u64>) -> bool {
        self.base <= range.start && range.start <= range.end && range.end <= self.end()
    }

    /// The problem of an image that ends at `end`, counting the room that the device tree needs above it.
    fn too_large(self, end: u64) -> Problem {
        let needs = end.saturating_sub(self.base).saturating_add(2 * FDT_ROOM).max(self.size.saturating_add(1));
        Problem::TooLarge { needs_mib: needs.div_ceil(1 << 20), has_mib: self.size >> 20 }
    }
}

/// A piece of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes.
    pub at: GuestPhysical,
    /// Its bytes, as a range of the file.
    pub file: Range<usize>,
    /// Its size in RAM in bytes; beyond the file's bytes it is zero.
    pub size: u64,
}

/// A program made ready to be copied to RAM.
#[derive(Clone, Debug)]
pub struct Program {
    bytes: Vec<u8>,
    /// Its pieces, all inside RAM.
    pub segments: Vec<Segment>,
    /// The first instruction.
    pub entry: GuestPhysical,
}

impl Program {
    /// A kernel: a riscv64 Linux `Image`, plain, gzip-compressed or as an EFI zboot file, or a riscv64 ELF file.
    ///
    /// # Errors
    /// `bytes` are none of these, or do not fit in `ram`.
    pub fn kernel(bytes: Vec<u8>, ram: Ram) -> Result<Self, Problem> {
        let bytes = sniff::unpack(bytes, ram)?;
        match sniff::sniff(&bytes)? {
            sniff::Format::LinuxImage => sniff::linux_image(bytes, ram),
            sniff::Format::Elf => Self::elf(bytes, ram, KERNEL_OFFSET),
            sniff::Format::Unknown(what) => Err(Problem::NotKernel(what)),
        }
    }

    /// A firmware, or what runs after it: as [`Self::kernel`], or else raw bytes that go to `offset` from the start of RAM and begin
    /// with their first instruction.
    ///
    /// # Errors
    /// `bytes` are a program for another processor, are empty, or do not fit in `ram`.
    pub fn firmware(bytes: Vec<u8>, ram: Ram, offset: u64) -> Result<Self, Problem> {
        let bytes = sniff::unpack(bytes, ram)?;
        match sniff::sniff(&bytes)? {
            sniff::Format::LinuxImage => sniff::linux_image(bytes, ram),
            sniff::Format::Elf => Self::elf(bytes, ram, offset),
            sniff::Format::Unknown(_) => {
                let at = GuestPhysical(ram.base.saturating_add(offset));
                let size = bytes.len() as u64;
                Self { segments: vec![Segment { at, file: 0..bytes.len(), size }], entry: at, bytes }.checked(ram)
            }
        }
    }

    /// A riscv64 ELF file: its loadable segments at their physical addresses. A program linked for the upper half of the address space
    /// at physical address zero (as `vmlinux` is) is moved as a whole to `offset` from the start of RAM.
    ///
    /// # Errors
    /// The file is not such an ELF file, is damaged, or is linked for addresses that are not RAM.
    pub fn elf(bytes: Vec<u8>, ram: Ram, offset: u64) -> Result<Self, Problem> {
        let (segments, entry) = Elf::parse(&bytes)?.place(ram, offset)?;
        Self { bytes, segments, entry }.checked(ram)
    }

    fn checked(self, ram: Ram) -> Result<Self, Problem> {
        if self.segments.is_empty() {
            return Err(Problem::Damaged("it has nothing to load".into()));
        }
        for segment in &self.segments {
            let range = segment.at.0..segment.at.0.saturating_add(segment.size);
            if !ram.contains(&range) {
                return Err(if range.start < ram.base || range.start >= ram.base.saturating_add(1 << 40) {
                    Problem::Outside { start: range.start, end: range.end, ram_start: ram.base, ram_end: ram.end() }
                } else {
                    ram.too_large(range.end)
                });
            }
        }
        Ok(self)
    }

    /// The addresses from its first segment to the end of its last.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let start = self.segments.iter().map(|s| s.at.0).min().unwrap_or(0);
        let end = self.segments.iter().map(|s| s.at.0.saturating_add(s.size)).max().unwrap_or(0);
        start..end
    }

    /// Copies the program to RAM that reads as zeroes.
    ///
    /// # Errors
    /// A segment is not in this memory: it was made for another.
    pub fn write_to(&self, memory: &GuestMemory) -> Result<(), machine::memory::OutOfRange> {
        for segment in &self.segments {
            memory.write(segment.at, self.bytes.get(segment.file.clone()).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Fuzzing: takes `bytes` for every kind of image, and loads what can be loaded in a small memory. Must not panic.
pub fn fuzz(bytes: &[u8]) {
    let Ok(memory) = GuestMemory::new(GuestPhysical(0x8000_0000), 16 << 20) else { return };
    let images = [
        Images { kernel: Some(ImageFile::from_bytes("kernel", bytes)), ..Images::default() },
        Images {
            firmware: Some(ImageFile::from_bytes("firmware", bytes)),
            kernel: Some(ImageFile::from_bytes("kernel", bytes)),
            initrd: Some(ImageFile::from_bytes("initrd", bytes)),
        },
    ];
    for images in images {
        if let Ok(layout) = images.load(&memory) {
            let ram = Ram::of(&memory);
            assert!(ram.contains(&(layout.fdt.0..layout.fdt.0 + FDT_ROOM)), "the device tree is in RAM");
        }
    }
    if let Ok(elf) = Elf::parse(bytes) {
        let _ = elf.symbol("tohost");
    }
}
