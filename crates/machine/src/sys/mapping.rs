//! Memory from the host: anonymous, or a file's, copied on write.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap};

/// A lazily backed range of host memory, given back on drop: private and zero-filled, unless it is a view of a file or a device's.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    /// A file's bytes are in a part of it: giving pages back would show those again.
    shows_file: AtomicBool,
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
        Ok(Self { start, bytes, shows_file: AtomicBool::new(false) })
    }

    /// A view of `bytes` (not zero) of `file` from `offset` on, both whole pages: what is written to the file shows in it, and it cannot be written itself. What lies
    /// behind the end of the file cannot be read.
    ///
    /// # Errors
    /// The host refuses.
    pub fn of_file(file: &File, offset: u64, bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing; no reference into it is ever made, so others may write the file.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, offset) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes, shows_file: AtomicBool::new(false) })
    }

    /// As [`Self::new`], beginning at a multiple of `alignment`: a power of two, at least a page. Large pages of the host need theirs.
    ///
    /// # Errors
    /// The host refuses that much address space.
    pub fn aligned(bytes: usize, alignment: usize) -> io::Result<Self> {
        let room = bytes.checked_add(alignment).ok_or(io::ErrorKind::OutOfMemory)?;
        let whole = Self::new(room)?;
        let head = whole.start.as_ptr().addr().wrapping_neg() & (alignment - 1);
        let start = whole.start.as_ptr();
        std::mem::forget(whole);
        // SAFETY: `head` is less than the alignment, so `bytes` fit behind it; the two ends are parts of the mapping that nobody has a pointer to, and what is
        // left is owned by the value that is returned. Empty ends are left alone.
        let start = unsafe {
            let middle = start.add(head);
            for (end, bytes) in [(start, head), (middle.add(bytes), alignment - head)] {
                if bytes > 0 {
                    munmap(end.cast(), bytes)?;
                }
            }
            NonNull::new_unchecked(middle)
        };
        Ok(Self { start, bytes, shows_file: AtomicBool::new(false) })
    }

    /// `bytes` bytes from `offset` of a device's registers (both whole pages), as its driver lets processes map them: what is written goes to the device.
    ///
    /// # Errors
    /// The host refuses.
    pub fn of_device(device: impl AsFd, offset: u64, bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, device, offset)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes, shows_file: AtomicBool::new(false) })
    }

    /// The first byte; page-aligned.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Puts `bytes` (whole pages) of `file` from `offset` on, whole pages too, in place of the first of this mapping. What is written there stays private. Costs
    /// nothing for what is not touched; until then nobody may shorten the file.
    ///
    /// # Errors
    /// The host refuses, or they are more than this mapping has.
    pub fn show_file(&self, file: &File, offset: u64, bytes: usize) -> io::Result<()> {
        if bytes > self.bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.shows_file.store(true, Ordering::Release);
        // SAFETY: the range is a part of this mapping, which nobody holds a Rust reference into.
        unsafe { map_file_over(self.start, bytes, file, offset) }
    }

    /// Gives all memory back to the host; it reads as zeroes from now on. Whoever accesses it meanwhile finds the old bytes or zeroes.
    ///
    /// # Errors
    /// The host refuses.
    pub fn zero(&self) -> io::Result<()> {
        if self.shows_file.load(Ordering::Acquire) {
            // SAFETY: what is replaced is the whole of this mapping, by memory of the same kind as it was made of.
            unsafe {
                mmap_anonymous(
                    self.start.as_ptr().cast(),
                    self.bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
                )
            }?;
            self.shows_file.store(false, Ordering::Release);
            return Ok(());
        }
        // SAFETY: the range is ours, private and anonymous, so its pages stay accessible and only their content changes, which
        // nobody holds a Rust reference to.
        unsafe { madvise(self.start.as_ptr().cast(), self.bytes, Advice::LinuxDontNeed) }?;
        Ok(())
    }

    /// Asks the host for large pages, where it has them: fewer misses when a processor translates addresses of this memory.
    pub fn prefer_large_pages(&self) {
        // SAFETY: advice about our own range; its content stays. A host without large pages refuses, and nothing is lost.
        let _ = unsafe { madvise(self.start.as_ptr().cast(), self.bytes, Advice::LinuxHugepage) };
    }

    /// Asks the host for all of its pages at once, which is cheaper than one by one as they are written to.
    pub fn populate(&self) {
        // SAFETY: advice about our own range; its content stays. An old host refuses, and gives the pages later.
        let _ = unsafe { madvise(self.start.as_ptr().cast(), self.bytes, Advice::LinuxPopulateWrite) };
    }

    /// How many bytes of it have a page of the host's; zero if the host does not tell. Costs 8 bytes read a page.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        const PRESENT: u64 = 1 << 63;
        const PAGE: usize = 4096;
        let Ok(file) = File::open("/proc/self/pagemap") else { return 0 };
        let mut at = (self.start.as_ptr().addr() / PAGE * 8) as u64;
        let mut left = self.bytes / PAGE * 8;
        let mut buffer = [0; 16 << 10];
        let mut count = 0;
        while left > 0 {
            let wanted = left.min(buffer.len());
            if file.read_exact_at(&mut buffer[..wanted], at).is_err() {
                break;
            }
            let entries = buffer[..wanted].as_chunks::<8>().0;
            count += entries.iter().filter(|entry| u64::from_le_bytes(**entry) & PRESENT != 0).count();
            at += wanted as u64;
            left -= wanted;
        }
        (count * PAGE) as u64
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

/// Puts `bytes` of `file` from `offset` on in place of what is at `start`, readable and writable. What is written there stays private; the file never
/// changes. Costs nothing for what is not touched.
///
/// # Errors
/// The host refuses, or `offset` or `start` is no multiple of the page size; then all is as before.
///
/// # Safety
/// The range is mapped memory of the caller's, and nobody holds a Rust reference into it.
pub unsafe fn map_file_over(start: NonNull<u8>, bytes: usize, file: &File, offset: u64) -> io::Result<()> {
    // SAFETY: by this function's own contract, replacing what is mapped there takes nothing from anybody.
    unsafe {
        mmap(
            start.as_ptr().cast(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            file,
            offset,
        )
    }?;
    Ok(())
}

/// Reserves zeroed memory at a fixed address, for as long as the process lives. Pages take memory when they are touched first.
///
/// # Errors
/// If something is mapped there already, or the system refuses.
pub fn reserve_at(address: usize, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: FIXED_NOREPLACE fails rather than replace a mapping that something else uses.
    let start = unsafe {
        mmap_anonymous(
            std::ptr::with_exposed_provenance_mut(address),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE,
        )
    }?;
    if start.expose_provenance() != address {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "the address range is in use"));
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))
}

/// Gives whole pages of memory that [`reserve_at`] gave back to the host; they read as zeroes from now on.
///
/// # Safety
/// Nobody holds a Rust reference to the memory, and nobody minds the zeroes.
///
/// # Errors
/// The host refuses.
pub unsafe fn discard_at(address: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    unsafe { madvise(std::ptr::with_exposed_provenance_mut(address), bytes, Advice::LinuxDontNeed) }?;
    Ok(())
}

/// Takes all access to whole pages of memory that [`reserve_at`] gave, for good.
///
/// # Safety
/// Nobody uses that memory.
///
/// # Errors
/// The host refuses.
pub unsafe fn forbid_at(address: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    unsafe { mprotect(std::ptr::with_exposed_provenance_mut(address), bytes, MprotectFlags::empty()) }?;
    Ok(())
}

/// Bytes of memory that the host has.
pub fn physical_memory() -> usize {
    let info = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "the type differs between hosts")]
    usize::try_from(info.totalram).unwrap_or(usize::MAX).saturating_mul(info.mem_unit as usize)
}

/// Maps a file for reading, for as long as the process lives. Whoever shortens the file meanwhile ends the process: it must be one that is not
/// written, as those of an installation.
///
/// # Errors
/// If the host refuses.
pub fn map_file(file: &File) -> io::Result<&'static [u8]> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if length == 0 {
        return Ok(&[]);
    }
    // SAFETY: a fresh private mapping, at an address of the kernel's choice, never unmapped.
    unsafe {
        let start = mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0)?;
        Ok(std::slice::from_raw_parts(start.cast(), length))
    }
}
