//! Anonymous memory from the host.

use std::io;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A private, zero-filled, lazily backed range of host memory; given back on drop.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory that this value owns; it hands out raw pointers only, and whoever uses them
// answers for races.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method of a shared `Mapping` reads or writes the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `bytes` (a multiple of the page size, not zero). No memory is used until it is touched.
    ///
    /// # Errors
    /// The host refuses that much address space.
    pub fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    /// The first byte; page-aligned.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Gives all memory back to the host; it reads as zeroes from now on. Whoever accesses it meanwhile finds the old bytes or zeroes.
    ///
    /// # Errors
    /// The host refuses.
    pub fn zero(&self) -> io::Result<()> {
        // SAFETY: the range is ours, private and anonymous, so its pages stay accessible and only their content changes, which
        // nobody holds a Rust reference to.
        unsafe { madvise(self.start.as_ptr().cast(), self.bytes, Advice::LinuxDontNeed) }?;
        Ok(())
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly what `mmap` gave, and whoever held pointers into it borrowed from this value.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(result.is_ok(), "munmap of our own mapping: {result:?}");
    }
}
