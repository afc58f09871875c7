//! Memory for code that is made at run time.

use std::io;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The same memory at two addresses: one to write, one to execute. No address can do both.
#[derive(Debug)]
pub struct CodeMapping {
    write: NonNull<u8>,
    execute: NonNull<u8>,
    bytes: usize,
}

// SAFETY: as for `Mapping`: it hands out raw pointers only.
unsafe impl Send for CodeMapping {}
// SAFETY: as above.
unsafe impl Sync for CodeMapping {}

impl CodeMapping {
    /// `bytes` (a multiple of the page size, not zero) of zeroes. No memory is used until it is touched.
    ///
    /// # Errors
    /// The host refuses that much address space, or memory that is executable.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let file = memfd_create("isomorph-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, bytes as u64)?;
        let map = |protection| -> io::Result<NonNull<u8>> {
            // SAFETY: a fresh mapping at an address of the kernel's choice, of a file that nobody else has.
            let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &file, 0) }?;
            NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
        };
        let write = map(ProtFlags::READ | ProtFlags::WRITE)?;
        match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(execute) => Ok(Self { write, execute, bytes }),
            Err(error) => {
                // SAFETY: the range is exactly what `mmap` gave, and nobody knows of it.
                let _ = unsafe { munmap(write.as_ptr().cast(), bytes) };
                Err(error)
            }
        }
    }

    /// The first byte where it can be read and written.
    #[must_use]
    pub fn write(&self) -> NonNull<u8> {
        self.write
    }

    /// The first byte where it can be read and executed.
    #[must_use]
    pub fn execute(&self) -> NonNull<u8> {
        self.execute
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes
    }
}

impl Drop for CodeMapping {
    fn drop(&mut self) {
        for start in [self.write, self.execute] {
            // SAFETY: the range is exactly what `mmap` gave, and whoever held pointers into it borrowed from this value.
            let result = unsafe { munmap(start.as_ptr().cast(), self.bytes) };
            debug_assert!(result.is_ok(), "munmap of our own mapping: {result:?}");
        }
    }
}
