//! Guest RAM; the one file that touches guest memory.
//!
//! It has one of two shapes. With a *frame table* ([`GuestMemory::new`], for machines whose engine translates addresses itself):
//!
//! ```text
//! guest page number ----> frame table ----> host frame (4 KiB)
//!                          null: zero, has no frame yet
//! ```
//!
//! *Mapped* ([`GuestMemory::mapped`], for machines whose addresses the host's processor translates): page after page of one host mapping, which the
//! engine gives to the host's kernel by [`GuestMemory::regions`]. There may be a hole in its guest addresses, where devices are. The guest's own writes are known
//! to the host's kernel; those of devices are in [`GuestMemory::take_dirty`].
//!
//! With a table, every access of the engines (through their software TLB) and of devices (through [`GuestMemory::read`] and
//! friends) goes through the table, one host address a page, so that pages can be given other frames without the guest
//! noticing. A page without a frame gets one at its first access, read or write.
//!
//! Invariants: no Rust reference into guest RAM is ever made, since harts and devices write it at any time; all accesses are
//! relaxed atomics (a plain load or store on the host) of at most eight bytes. A frame, once given, stays where it is as long as
//! the memory lives, so that a TLB may keep its address.

pub mod code;
mod transfer;

use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use self::code::CodePages;
use crate::address::{GuestPhysical, PAGE_SHIFT, PAGE_SIZE, host_size};
use crate::sys::Mapping;

/// Bytes in a large page of the host.
const LARGE_PAGE: usize = 2 << 20;

/// Why guest memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size is zero, not whole pages, or runs past the end of the address space.
    #[error("{size} bytes of memory at {base} are not whole pages inside the address space")]
    Shape {
        /// Where it was to begin.
        base: GuestPhysical,
        /// How large it was to be, in bytes.
        size: u64,
    },
    /// The host refuses.
    #[error("the host refuses {size} bytes of memory: {cause}; ask for less with --memory")]
    Host {
        /// How large it was to be, in bytes.
        size: u64,
        /// What the host said.
        cause: io::Error,
    },
}

/// An access that is not wholly inside guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {at} are not in guest memory")]
pub struct OutOfRange {
    /// The first byte of the access.
    pub at: GuestPhysical,
    /// Its length in bytes.
    pub length: u64,
}

/// A range of RAM without holes, as the host's kernel is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Its first guest address.
    pub base: GuestPhysical,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is on the host, for as long as the memory lives.
    pub host: NonNull<u8>,
    /// The number of its first page, counted over all regions.
    pub first_page: usize,
}

/// The RAM of one machine: one range of guest-physical addresses, or two.
#[derive(Debug)]
pub struct GuestMemory {
    base: GuestPhysical,
    size: u64,
    /// How many bytes lie below the hole; all of them if there is none.
    low: u64,
    /// Where RAM goes on behind the hole, counted from `base`; if there is no hole, where nothing is.
    high: u64,
    /// With one entry a page, or empty: mapped.
    frames: Box<[AtomicPtr<u8>]>,
    resident: AtomicUsize,
    code: CodePages,
    /// One bit a page that was written through this value, if mapped.
    dirty: Box<[AtomicU64]>,
    /// Where frames come from: page `n` takes frame `n`, so neighbours stay neighbours and the host can use large pages.
    pool: Mapping,
}

/// An unsigned integer that guest memory can be read and written by in one piece.
pub trait Scalar: Copy + sealed::Sealed {
    /// Loads a little-endian value from `at`.
    ///
    /// # Safety
    /// `at` is aligned for `Self` and points into a live frame of guest memory.
    unsafe fn load(at: *mut u8) -> Self;
    /// Stores a little-endian value to `at`.
    ///
    /// # Safety
    /// As for [`Self::load`].
    unsafe fn store(at: *mut u8, value: Self);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! scalar {
    ($($int:ty, $atomic:ty;)*) => {$(
        impl sealed::Sealed for $int {}
        impl Scalar for $int {
            #[inline(always)]
            unsafe fn load(at: *mut u8) -> Self {
                // SAFETY: the caller says that `at` is aligned and live; atomics may alias other atomics.
                <$int>::from_le(unsafe { <$atomic>::from_ptr(at.cast()) }.load(Ordering::Relaxed))
            }
            #[inline(always)]
            unsafe fn store(at: *mut u8, value: Self) {
                // SAFETY: as for `load`.
                unsafe { <$atomic>::from_ptr(at.cast()) }.store(value.to_le(), Ordering::Relaxed);
            }
        }
    )*};
}
scalar! { u8, AtomicU8; u16, AtomicU16; u32, AtomicU32; u64, AtomicU64; }

impl GuestMemory {
    /// `size` bytes of zeroes at `base`. Costs nine bytes a page until pages are touched.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn new(base: GuestPhysical, size: u64) -> Result<Self, MemoryError> {
        let bytes = usize::try_from(size).ok().filter(|bytes| {
            *bytes > 0 && size.is_multiple_of(PAGE_SIZE) && base.page_offset() == 0 && base.checked_add(size).is_some()
        });
        let Some(bytes) = bytes else { return Err(MemoryError::Shape { base, size }) };
        let pool = Mapping::new(bytes).map_err(|cause| MemoryError::Host { size, cause })?;
        let count = bytes >> PAGE_SHIFT;
        let frames = (0..count).map(|_| AtomicPtr::new(null_mut())).collect();
        let code = CodePages::new(count);
        let (low, high) = (size, u64::MAX);
        Ok(Self { base, size, low, high, frames, resident: AtomicUsize::new(0), code, dirty: Box::default(), pool })
    }

    /// `size` bytes of zeroes from address zero, in one mapping. No address in `hole` (whole pages) is RAM; what does not fit below it is behind it.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn mapped(size: u64, hole: Range<u64>) -> Result<Self, MemoryError> {
        let shape = MemoryError::Shape { base: GuestPhysical(0), size };
        let low = size.min(hole.start);
        let aligned = [size, hole.start, hole.end].iter().all(|at| at.is_multiple_of(PAGE_SIZE));
        if size == 0 || !aligned || hole.start >= hole.end || hole.end.checked_add(size - low).is_none() {
            return Err(shape);
        }
        // A large page of the guest's is one of the host's only if both begin at a multiple of its size.
        let pool = Mapping::aligned(host_size(size), LARGE_PAGE).map_err(|cause| MemoryError::Host { size, cause })?;
        pool.prefer_large_pages();
        let words = host_size(size >> PAGE_SHIFT).div_ceil(64);
        Ok(Self {
            base: GuestPhysical(0),
            size,
            low,
            high: hole.end,
            frames: Box::default(),
            resident: AtomicUsize::new(0),
            code: CodePages::new(0),
            dirty: (0..words).map(|_| AtomicU64::new(0)).collect(),
            pool,
        })
    }

    fn is_mapped(&self) -> bool {
        self.frames.is_empty()
    }

    /// How far into RAM the address is, holes left out.
    #[inline(always)]
    fn offset(&self, at: GuestPhysical) -> Option<u64> {
        let offset = at.0.wrapping_sub(self.base.0);
        if offset < self.low {
            return Some(offset);
        }
        let offset = offset.checked_sub(self.high)? + self.low;
        (offset < self.size).then_some(offset)
    }

    /// The ranges of mapped memory; none if it is not mapped.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        if !self.is_mapped() {
            return Vec::new();
        }
        let region = |base: u64, from: u64, to: u64| Region {
            base: GuestPhysical(base),
            size: to - from,
            // SAFETY: `from` is at most the size of the mapping.
            host: unsafe { self.pool.start().add(host_size(from)) },
            first_page: host_size(from >> PAGE_SHIFT),
        };
        let both = [region(self.base.0, 0, self.low), region(self.high, self.low, self.size)];
        both.into_iter().filter(|region| region.size > 0).collect()
    }

    /// Which pages of mapped memory were written through this value since the last call: one bit a page, the first page of RAM in the lowest bit.
    #[must_use]
    pub fn take_dirty(&self) -> Vec<u64> {
        self.dirty.iter().map(|word| word.swap(0, Ordering::AcqRel)).collect()
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> GuestPhysical {
        self.base
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes have a host frame.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        if self.is_mapped() {
            return self.pool.resident_bytes();
        }
        (self.resident.load(Ordering::Relaxed) as u64) << PAGE_SHIFT
    }

    /// Which pages code comes from.
    #[must_use]
    #[inline(always)]
    pub fn code(&self) -> &CodePages {
        &self.code
    }

    /// The number of the page of `at`, counted from the start of RAM; of an address that is not in RAM, one that no page has.
    #[must_use]
    #[inline(always)]
    pub fn page_number(&self, at: GuestPhysical) -> u32 {
        u32::try_from(at.0.wrapping_sub(self.base.0) >> PAGE_SHIFT).unwrap_or(u32::MAX)
    }

    /// The address of page `number`, counted from the start of RAM.
    #[must_use]
    pub fn page_address(&self, number: u32) -> GuestPhysical {
        self.base.wrapping_add(u64::from(number) << PAGE_SHIFT)
    }

    /// Whether `length` bytes at `at` are all RAM.
    #[must_use]
    #[inline]
    pub fn contains(&self, at: GuestPhysical, length: u64) -> bool {
        // A range does not go on behind the hole.
        self.offset(at).is_some_and(|offset| (if offset < self.low { self.low } else { self.size }) - offset >= length)
    }

    /// The host address of the frame that holds guest page `page` (any address in it), or `None` if that is not RAM. Gives the page a
    /// frame if it has none. The address stays valid as long as `self` lives.
    #[must_use]
    #[inline]
    pub fn frame(&self, page: GuestPhysical) -> Option<NonNull<u8>> {
        let index = host_size(self.offset(page)? >> PAGE_SHIFT);
        match self.frames.get(index) {
            Some(frame) => NonNull::new(frame.load(Ordering::Acquire)).or_else(|| self.populate(index)),
            // SAFETY: the page is one of RAM, so it is inside the mapping.
            None => Some(unsafe { self.pool.start().add(index << PAGE_SHIFT) }),
        }
    }

    #[cold]
    fn populate(&self, index: usize) -> Option<NonNull<u8>> {
        // SAFETY: the table has one entry for each page of the pool, so the frame is inside the mapping.
        let frame = unsafe { self.pool.start().add(index << PAGE_SHIFT) };
        if self.frames[index].swap(frame.as_ptr(), Ordering::AcqRel).is_null() {
            self.resident.fetch_add(1, Ordering::Relaxed);
        }
        Some(frame)
    }

    /// Sets all of it to zeroes and gives it back to the host. The addresses of frames stay valid, but are not counted as
    /// resident until they are asked for again.
    ///
    /// # Errors
    /// The host refuses.
    pub fn clear(&self) -> io::Result<()> {
        for frame in &self.frames {
            if !frame.swap(null_mut(), Ordering::AcqRel).is_null() {
                self.resident.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let result = self.pool.zero();
        if self.is_mapped() {
            self.pool.prefer_large_pages();
        }
        self.code.note_all();
        self.dirty.iter().for_each(|word| word.store(u64::MAX, Ordering::Release));
        result
    }

    /// Fills RAM with that of a snapshot: `file` from `offset` on. It is read when it is touched, and never written.
    ///
    /// Nobody uses the memory meanwhile. As long as it lives nobody may shorten the file.
    ///
    /// # Errors
    /// The host refuses.
    pub fn restore(&self, file: &File, offset: u64) -> io::Result<()> {
        self.clear()?;
        self.pool.show_file(file, offset, host_size(self.size))
    }

    /// Copies RAM from `offset` on, holes left out, into `bytes`: for a snapshot, while nobody writes it. What lies behind its end is zero.
    pub fn save(&self, offset: u64, bytes: &mut [u8]) {
        bytes.fill(0);
        let mut done = 0;
        while done < bytes.len() && offset + (done as u64) < self.size {
            let at = offset + done as u64;
            let index = host_size(at >> PAGE_SHIFT);
            let count = (bytes.len() - done).min(host_size(PAGE_SIZE - at % PAGE_SIZE));
            let frame = self.frames.get(index).map_or(null_mut(), |frame| frame.load(Ordering::Acquire));
            // SAFETY: the page is one of RAM, so it has its place in the pool, where it is all zeroes, or a file's, until it has a frame; `count` bytes from there
            // are inside one page, and as many are left in `bytes`.
            unsafe {
                let pooled = self.pool.start().as_ptr().add(index << PAGE_SHIFT);
                let frame = if frame.is_null() { pooled } else { frame };
                copy(frame.add(host_size(at % PAGE_SIZE)), bytes.as_mut_ptr().add(done), count);
            }
            done += count;
        }
    }

    /// Calls `each` with the host address and length of every piece of the range that lies in one page.
    fn pieces(
        &self,
        at: GuestPhysical,
        length: usize,
        mut each: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), OutOfRange> {
        let out = OutOfRange { at, length: length as u64 };
        if length == 0 {
            return Ok(());
        }
        if !self.contains(at, length as u64) {
            return Err(out);
        }
        let mut done = 0;
        while done < length {
            let here = at.wrapping_add(done as u64);
            let frame = self.frame(here).ok_or(out)?;
            let offset = host_size(here.page_offset());
            let count = (length - done).min(host_size(PAGE_SIZE) - offset);
            // SAFETY: the offset is inside the frame.
            each(unsafe { frame.as_ptr().add(offset) }, done, count);
            done += count;
        }
        Ok(())
    }

    /// `length` bytes at `at` have been written: to be called after every write but those by way of a TLB.
    fn note_write(&self, at: GuestPhysical, length: usize) {
        if let (Some(first), true) = (self.offset(at), length > 0) {
            let first = host_size(first);
            let pages = first >> PAGE_SHIFT..=(first + length - 1) >> PAGE_SHIFT;
            if self.is_mapped() {
                self.note_dirty(pages);
            } else {
                self.code.note_write(pages);
            }
        }
    }

    fn note_dirty(&self, pages: RangeInclusive<usize>) {
        for page in pages {
            let (word, bit) = (&self.dirty[page / 64], 1 << (page % 64));
            // Most writes are to pages that have been written before.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::AcqRel);
            }
        }
    }

    /// Copies from guest memory at `at` into `bytes`.
    ///
    /// # Errors
    /// Part of the range is not RAM; nothing was copied.
    pub fn read(&self, at: GuestPhysical, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        let length = bytes.len();
        let target = bytes.as_mut_ptr();
        // SAFETY: `pieces` gives `count` bytes inside one live frame, and `done + count` is at most `length`.
        self.pieces(at, length, |host, done, count| unsafe { copy(host, target.add(done), count) })
    }

    /// Copies `bytes` to guest memory at `at`.
    ///
    /// # Errors
    /// Part of the range is not RAM; nothing was copied.
    pub fn write(&self, at: GuestPhysical, bytes: &[u8]) -> Result<(), OutOfRange> {
        let source = bytes.as_ptr();
        // SAFETY: as in `read`.
        self.pieces(at, bytes.len(), |host, done, count| unsafe { copy(source.add(done).cast_mut(), host, count) })?;
        self.note_write(at, bytes.len());
        Ok(())
    }

    /// Sets `length` bytes at `at` to `value`.
    ///
    /// # Errors
    /// Part of the range is not RAM; nothing was written.
    pub fn fill(&self, at: GuestPhysical, length: usize, value: u8) -> Result<(), OutOfRange> {
        self.pieces(at, length, |host, _, count| {
            for i in 0..count {
                // SAFETY: `count` bytes at `host` are inside one live frame.
                unsafe { u8::store(host.add(i), value) };
            }
        })?;
        self.note_write(at, length);
        Ok(())
    }

    /// Loads a naturally aligned little-endian integer; atomic.
    ///
    /// # Errors
    /// The address is not RAM or not aligned.
    #[inline]
    pub fn load<T: Scalar>(&self, at: GuestPhysical) -> Result<T, OutOfRange> {
        let host = self.aligned(at, size_of::<T>())?;
        // SAFETY: `aligned` gives an aligned address with room for a `T` inside a live frame.
        Ok(unsafe { T::load(host) })
    }

    /// Stores a naturally aligned little-endian integer; atomic.
    ///
    /// # Errors
    /// The address is not RAM or not aligned.
    #[inline]
    pub fn store<T: Scalar>(&self, at: GuestPhysical, value: T) -> Result<(), OutOfRange> {
        let host = self.aligned(at, size_of::<T>())?;
        // SAFETY: as in `load`.
        unsafe { T::store(host, value) };
        self.note_write(at, size_of::<T>());
        Ok(())
    }

    /// Replaces the naturally aligned 64-bit integer at `at` by `new` if it is `old`; says whether it did. Sequentially consistent.
    ///
    /// # Errors
    /// The address is not RAM or not aligned.
    pub fn compare_exchange(&self, at: GuestPhysical, old: u64, new: u64) -> Result<bool, OutOfRange> {
        let host = self.aligned(at, size_of::<u64>())?;
        // SAFETY: `aligned` gives an aligned address with room for the integer inside a live frame.
        let word = unsafe { AtomicU64::from_ptr(host.cast()) };
        let done = word.compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.note_write(at, size_of::<u64>());
        Ok(done)
    }

    #[inline]
    fn aligned(&self, at: GuestPhysical, size: usize) -> Result<*mut u8, OutOfRange> {
        let out = OutOfRange { at, length: size as u64 };
        if !at.0.is_multiple_of(size as u64) || !self.contains(at, size as u64) {
            return Err(out);
        }
        let frame = self.frame(at).ok_or(out)?;
        // SAFETY: aligned and no larger than eight bytes, so it does not cross the end of the frame.
        Ok(unsafe { frame.as_ptr().add(host_size(at.page_offset())) })
    }
}

/// Copies `count` bytes that other threads may be writing.
///
/// # Safety
/// Both ranges are live and do not overlap; the target, if private, is writable.
#[cfg(target_arch = "x86_64")]
unsafe fn copy(from: *mut u8, to: *mut u8, count: usize) {
    // SAFETY: the caller answers for the ranges. The copy is done by assembly, so that a race with a hart is a matter of the host
    // processor (which copies some mixture of old and new bytes) and not of the compiler's rules. The direction flag is clear.
    unsafe {
        std::arch::asm!("rep movsb", inout("rcx") count => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// Copies `count` bytes that other threads may be writing.
///
/// # Safety
/// Both ranges are live and do not overlap; the target, if private, is writable.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy(from: *mut u8, to: *mut u8, count: usize) {
    for done in 0..count {
        // SAFETY: inside the ranges that the caller answers for.
        unsafe { u8::store(to.add(done), u8::load(from.add(done))) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: GuestPhysical = GuestPhysical(0x8000_0000);

    #[test]
    fn pages_get_frames_when_touched() {
        let memory = GuestMemory::new(BASE, 4 * PAGE_SIZE).unwrap();
        assert_eq!(memory.resident_bytes(), 0);
        memory.write(BASE.wrapping_add(PAGE_SIZE - 1), &[1, 2]).unwrap();
        assert_eq!(memory.resident_bytes(), 2 * PAGE_SIZE);
        assert_eq!(memory.load::<u8>(BASE.wrapping_add(PAGE_SIZE)), Ok(2));
        assert!(memory.frame(BASE.wrapping_add(4 * PAGE_SIZE)).is_none());
        assert!(memory.frame(GuestPhysical(0)).is_none());
    }

    #[test]
    fn clearing_keeps_frames_where_they_are() {
        let memory = GuestMemory::new(BASE, 4 * PAGE_SIZE).unwrap();
        let frame = memory.frame(BASE);
        memory.store(BASE, 7_u64).unwrap();
        memory.clear().unwrap();
        assert_eq!(memory.resident_bytes(), 0);
        assert_eq!(memory.load::<u64>(BASE), Ok(0));
        assert_eq!(memory.frame(BASE), frame);
    }

    #[test]
    fn mapped_memory_has_a_hole() {
        let memory = GuestMemory::mapped(6 * PAGE_SIZE, 4 * PAGE_SIZE..16 * PAGE_SIZE).unwrap();
        let at = |page: u64| GuestPhysical(page * PAGE_SIZE);
        assert!(memory.contains(at(0), 4 * PAGE_SIZE) && memory.contains(at(16), 2 * PAGE_SIZE));
        for (page, length) in [(3, PAGE_SIZE + 1), (4, 1), (15, 1), (15, PAGE_SIZE + 1), (17, PAGE_SIZE + 1), (18, 1)] {
            assert!(!memory.contains(at(page), length), "page {page}");
        }
        assert!(!memory.contains(GuestPhysical(u64::MAX), 1));
        memory.write(at(17), b"behind").unwrap();
        let regions = memory.regions();
        assert_eq!(regions.len(), 2);
        assert_eq!(regions[0].host.as_ptr().addr() % LARGE_PAGE, 0);
        assert_eq!((regions[1].base, regions[1].size, regions[1].first_page), (at(16), 2 * PAGE_SIZE, 4));
        // SAFETY: the region is two pages of live memory that nobody else uses now.
        assert_eq!(unsafe { regions[1].host.add(host_size(PAGE_SIZE)).read() }, b'b');
        assert_eq!((memory.take_dirty(), memory.take_dirty()), (vec![1 << 5], vec![0]));
        assert!(memory.resident_bytes() >= PAGE_SIZE);
        memory.clear().unwrap();
        assert_eq!(memory.load::<u8>(at(17)), Ok(0));
        let small = GuestMemory::mapped(2 * PAGE_SIZE, 4 * PAGE_SIZE..16 * PAGE_SIZE).unwrap();
        assert_eq!(small.regions().len(), 1);
        assert!(!small.contains(at(2), 1) && !small.contains(at(16), 1));
        assert!(GuestMemory::mapped(PAGE_SIZE, 100..PAGE_SIZE).is_err());
    }

    #[test]
    fn memory_comes_from_a_file_and_goes_to_one() {
        let old = GuestMemory::mapped(6 * PAGE_SIZE, 4 * PAGE_SIZE..16 * PAGE_SIZE).unwrap();
        old.write(GuestPhysical(3 * PAGE_SIZE + 7), b"low").unwrap();
        old.write(GuestPhysical(17 * PAGE_SIZE), b"high").unwrap();
        let file = crate::sys::file::unnamed_file("test").unwrap();
        let mut page = vec![0xff; host_size(4 * PAGE_SIZE)];
        for offset in [0, 4 * PAGE_SIZE] {
            old.save(offset, &mut page);
            std::os::unix::fs::FileExt::write_all_at(&file, &page, offset + PAGE_SIZE).unwrap();
        }
        assert_eq!(page[host_size(2 * PAGE_SIZE)..], vec![0; host_size(2 * PAGE_SIZE)], "behind its end");
        let new = GuestMemory::mapped(6 * PAGE_SIZE, 4 * PAGE_SIZE..16 * PAGE_SIZE).unwrap();
        new.restore(&file, PAGE_SIZE).unwrap();
        let mut bytes = [0; 4];
        new.read(GuestPhysical(17 * PAGE_SIZE), &mut bytes).unwrap();
        assert_eq!(&bytes, b"high");
        new.write(GuestPhysical(17 * PAGE_SIZE), b"mine").unwrap();
        let mut kept = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut kept, 6 * PAGE_SIZE).unwrap();
        assert_eq!(&kept, b"high", "the file stays");
        new.clear().unwrap();
        assert_eq!(new.load::<u64>(GuestPhysical(3 * PAGE_SIZE)), Ok(0), "and does not come back");

        // With a table of frames.
        let table = GuestMemory::new(BASE, 6 * PAGE_SIZE).unwrap();
        table.store(BASE, 9_u8).unwrap();
        table.restore(&file, PAGE_SIZE).unwrap();
        assert_eq!((table.resident_bytes(), table.load::<u8>(BASE)), (0, Ok(0)));
        assert_eq!(table.load::<u8>(BASE.wrapping_add(5 * PAGE_SIZE)), Ok(b'h'));
        table.save(5 * PAGE_SIZE, &mut bytes);
        assert_eq!(&bytes, b"high");
    }

    #[test]
    fn shapes_are_checked() {
        assert!(GuestMemory::new(BASE, 0).is_err());
        assert!(GuestMemory::new(BASE, 100).is_err());
        assert!(GuestMemory::new(GuestPhysical(u64::MAX - 4095), 8192).is_err());
        let text = GuestMemory::new(BASE, 1 << 62).unwrap_err().to_string();
        assert!(text.contains("--memory"), "{text}");
    }

    #[test]
    fn misaligned_and_outside_scalars_are_refused() {
        let memory = GuestMemory::new(BASE, PAGE_SIZE).unwrap();
        assert!(memory.load::<u32>(BASE.wrapping_add(2)).is_err());
        assert!(memory.load::<u64>(BASE.wrapping_add(PAGE_SIZE)).is_err());
        memory.store::<u64>(BASE.wrapping_add(PAGE_SIZE - 8), 7).unwrap();
        assert_eq!(memory.load::<u64>(BASE.wrapping_add(PAGE_SIZE - 8)), Ok(7));
    }

    proptest! {
        #[test]
        fn writes_read_back(offset in 0u64..9000, bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let memory = GuestMemory::new(BASE, 4 * PAGE_SIZE).unwrap();
            let at = BASE.wrapping_add(offset);
            let fits = offset + bytes.len() as u64 <= 4 * PAGE_SIZE;
            prop_assert_eq!(memory.write(at, &bytes).is_ok(), fits || bytes.is_empty());
            if fits {
                let mut back = vec![0; bytes.len()];
                memory.read(at, &mut back).unwrap();
                prop_assert_eq!(back, bytes);
            }
        }
    }
}
