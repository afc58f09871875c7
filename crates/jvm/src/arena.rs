//! The metadata arena: classes, methods and constant pools at fixed addresses.
//!
//! ```text
//! METADATA_BASE                                                        + METADATA_RESERVED
//! | page 0, never used | chunk of loader 1 | chunk of loader 2 | chunk of loader 1 | free ... |
//! ```
//!
//! A chunk belongs to one [`Chunks`], which a class loader owns: what loaders define goes away with them, chunk by chunk, and its place is used again for
//! others. Nothing in the arena owns anything outside of it. A [`Meta`] is 32 bits; following one costs an addition.
//!
//! Invariant: a [`Meta`] is only made by [`Chunks::allocate`], so that it leads to an initialised value that stays until its loader is
//! unloaded, which happens when no object, frame or other metadata mentions its classes.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::object::{METADATA_BASE, METADATA_RESERVED};

const PAGE: usize = 4096;
/// Bytes of a loader's first chunk, unless something larger must fit; each chunk is twice as large as the one before.
const FIRST_CHUNK: usize = 8 * 1024;
/// How often they double.
const CHUNK_DOUBLINGS: usize = 3;

/// Offset of the next chunk.
static NEXT: AtomicUsize = AtomicUsize::new(PAGE);

/// Maps the arena.
///
/// # Errors
/// If its place in the address space is taken.
pub fn reserve() -> std::io::Result<()> {
    machine::sys::reserve_at(METADATA_BASE, METADATA_RESERVED).map(|_| ())
}

/// A typed pointer into the arena: the distance from its base in bytes.
#[repr(transparent)]
pub struct Meta<T> {
    offset: NonZeroU32,
    target: PhantomData<*const T>,
}

// SAFETY: what is in the arena is shared by all threads: it is immutable once it is reachable, or atomic.
unsafe impl<T> Send for Meta<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Meta<T> {}

impl<T> Clone for Meta<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Meta<T> {}
impl<T> PartialEq for Meta<T> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}
impl<T> Eq for Meta<T> {}
impl<T> Hash for Meta<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.offset.hash(state);
    }
}
impl<T> fmt::Debug for Meta<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meta({:#x})", self.offset)
    }
}

impl<T> Meta<T> {
    /// The pointer of this offset; `None` for 0.
    ///
    /// # Safety
    /// The offset is that of a `T`, taken by [`Meta::offset`], or 0.
    #[inline(always)]
    pub unsafe fn from_offset(offset: u32) -> Option<Self> {
        NonZeroU32::new(offset).map(|offset| Self { offset, target: PhantomData })
    }

    /// The distance from the arena's base.
    #[inline(always)]
    pub fn offset(self) -> u32 {
        self.offset.get()
    }

    /// The address of the target.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut T {
        std::ptr::with_exposed_provenance_mut(METADATA_BASE + self.offset.get() as usize)
    }

    /// The target, which stays as long as its class loader.
    #[inline(always)]
    pub fn get(self) -> &'static T
    where
        T: 'static,
    {
        // SAFETY: the invariant of the module: the offset is that of an initialised, shared `T`.
        unsafe { &*self.as_ptr() }
    }
}

impl<T: 'static> Deref for Meta<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.get()
    }
}

/// A [`Meta`] that is set later, by whichever thread; empty at first.
#[repr(transparent)]
pub struct Link<T> {
    offset: AtomicU32,
    target: PhantomData<*const T>,
}

// SAFETY: an atomic offset; the target is as for `Meta`.
unsafe impl<T> Send for Link<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Link<T> {}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<T> Link<T> {
    /// No target.
    pub const fn empty() -> Self {
        Self { offset: AtomicU32::new(0), target: PhantomData }
    }

    /// A link to a target.
    pub fn new(target: Option<Meta<T>>) -> Self {
        Self { offset: AtomicU32::new(target.map_or(0, Meta::offset)), target: PhantomData }
    }

    /// The target.
    #[inline(always)]
    pub fn get(&self) -> Option<Meta<T>> {
        // SAFETY: only offsets of a `Meta<T>` are stored.
        unsafe { Meta::from_offset(self.offset.load(Ordering::Acquire)) }
    }

    /// Sets the target.
    pub fn set(&self, target: Option<Meta<T>>) {
        self.offset.store(target.map_or(0, Meta::offset), Ordering::Release);
    }

    /// Sets the target if there is none yet; the one that is there then.
    pub fn set_once(&self, target: Meta<T>) -> Meta<T> {
        match self.offset.compare_exchange(0, target.offset(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => target,
            Err(_) => self.get().unwrap_or(target),
        }
    }
}

impl<T> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({:#x})", self.offset.load(Ordering::Relaxed))
    }
}

/// An array in the arena.
#[repr(C)]
pub struct MetaSlice<T> {
    offset: u32,
    length: u32,
    target: PhantomData<*const T>,
}

// SAFETY: as for `Meta`.
unsafe impl<T> Send for MetaSlice<T> {}
// SAFETY: as for `Meta`.
unsafe impl<T> Sync for MetaSlice<T> {}

impl<T> Clone for MetaSlice<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for MetaSlice<T> {}
impl<T> Default for MetaSlice<T> {
    fn default() -> Self {
        Self { offset: 0, length: 0, target: PhantomData }
    }
}
impl<T: fmt::Debug + 'static> fmt::Debug for MetaSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T> MetaSlice<T> {
    /// The first element's address.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut T {
        std::ptr::with_exposed_provenance_mut(METADATA_BASE + self.offset as usize)
    }

    /// The elements, which stay as long as their class loader.
    #[inline(always)]
    pub fn get(self) -> &'static [T]
    where
        T: 'static,
    {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: the invariant of the module: `length` initialised elements are there.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.length as usize) }
    }
}

impl<T: 'static> Deref for MetaSlice<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.get()
    }
}

/// The chunks of one class loader, which are given back when it is dropped: nothing leads to what was in them then.
#[derive(Debug, Default)]
pub struct Chunks {
    owned: Mutex<Owned>,
    /// Whether they may be given back while the virtual machine runs.
    passing: bool,
}

#[derive(Debug, Default)]
struct Owned {
    /// Free bytes of the last chunk.
    next: usize,
    end: usize,
    /// Offsets and sizes.
    chunks: Vec<(usize, usize)>,
    /// Bytes that were allocated.
    used: usize,
}

/// Parts of the arena below [`NEXT`] that are free, which do not touch each other, by offset.
static FREE: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());
/// Bytes that were allocated in chunks that are there.
static USED: AtomicUsize = AtomicUsize::new(0);
/// The same in chunks that may be given back.
static PASSING: AtomicUsize = AtomicUsize::new(0);
/// Bytes of chunks that are there.
static COMMITTED: AtomicUsize = AtomicUsize::new(0);

/// `-XX:MaxMetaspaceSize`; 0: none.
static LIMIT: AtomicUsize = AtomicUsize::new(0);

/// Bytes of chunks that there may be; `None`: what the address range has.
pub fn limit() -> Option<usize> {
    Some(LIMIT.load(Ordering::Relaxed)).filter(|&limit| limit != 0)
}

/// Sets how many bytes of chunks there may be. Who makes classes looks at it.
pub fn set_limit(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// Whether so many bytes more find room in the arena.
pub fn has_room(bytes: usize) -> bool {
    let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner).values().any(|&length| length >= bytes);
    METADATA_RESERVED.saturating_sub(NEXT.load(Ordering::Relaxed)) >= bytes || free()
}

/// The offset of a chunk of zeroes.
fn take_chunk(size: usize) -> usize {
    COMMITTED.fetch_add(size, Ordering::Relaxed);
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let fitting = free.iter().find(|(_, length)| **length >= size).map(|(&start, &length)| (start, length));
    if let Some((start, length)) = fitting {
        free.remove(&start);
        if length > size {
            free.insert(start + size, length - size);
        }
        return start;
    }
    let start = NEXT.fetch_add(size, Ordering::Relaxed);
    assert!(start + size <= METADATA_RESERVED, "4 GiB of class metadata are used up");
    start
}

/// Gives a chunk back, and its memory to the host.
fn give_chunk(start: usize, size: usize) {
    COMMITTED.fetch_sub(size, Ordering::Relaxed);
    let address = METADATA_BASE + start;
    // SAFETY: whoever drops its chunks has seen to it that nothing leads there.
    if unsafe { machine::sys::discard_at(address, size) }.is_err() {
        // SAFETY: as above. The host keeps the memory, so that it is zeroed by hand.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_bytes(0, size) };
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut start, mut size) = (start, size);
    if let Some((&before, &length)) = free.range(..start).next_back()
        && before + length == start
    {
        free.remove(&before);
        (start, size) = (before, size + length);
    }
    if let Some(length) = free.remove(&(start + size)) {
        size += length;
    }
    free.insert(start, size);
}

impl Drop for Chunks {
    fn drop(&mut self) {
        let owned = self.owned.get_mut().unwrap_or_else(PoisonError::into_inner);
        USED.fetch_sub(owned.used, Ordering::Relaxed);
        if self.passing {
            PASSING.fetch_sub(owned.used, Ordering::Relaxed);
        }
        for (start, size) in owned.chunks.drain(..) {
            give_chunk(start, size);
        }
    }
}

impl Chunks {
    /// Chunks that may be given back while the virtual machine runs.
    pub fn of_passing() -> Self {
        Self { owned: Mutex::default(), passing: true }
    }

    /// Puts a value into the arena.
    pub fn allocate<T>(&self, value: T) -> Meta<T> {
        let address = self.bytes(size_of::<T>(), align_of::<T>());
        let pointer: *mut T = std::ptr::with_exposed_provenance_mut(METADATA_BASE + address);
        // SAFETY: fresh memory of the size and alignment of a `T`.
        unsafe { pointer.write(value) };
        #[allow(clippy::cast_possible_truncation, reason = "the arena has 2^32 bytes")]
        let offset = NonZeroU32::new(address as u32).expect("the first page is never used");
        Meta { offset, target: PhantomData }
    }

    /// Takes memory that the caller makes a value of that begins with a `T`, and which is aligned to 8.
    pub(crate) fn reserve<T>(&self, size: usize) -> Meta<T> {
        debug_assert!(size >= size_of::<T>() && align_of::<T>() <= 8, "a T fits");
        #[allow(clippy::cast_possible_truncation, reason = "the arena has 2^32 bytes")]
        let offset = NonZeroU32::new(self.bytes(size, 8) as u32).expect("the first page is never used");
        Meta { offset, target: PhantomData }
    }

    /// Puts an array into the arena.
    pub fn slice<T>(&self, values: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>) -> MetaSlice<T> {
        let values = values.into_iter();
        let count = values.len();
        if count == 0 {
            return MetaSlice::default();
        }
        let address = self.bytes(size_of::<T>() * count, align_of::<T>());
        let pointer: *mut T = std::ptr::with_exposed_provenance_mut(METADATA_BASE + address);
        let mut written = 0;
        for value in values.take(count) {
            // SAFETY: `written < count`, and memory for so many was reserved.
            unsafe { pointer.add(written).write(value) };
            written += 1;
        }
        #[allow(clippy::cast_possible_truncation, reason = "the arena has 2^32 bytes")]
        MetaSlice { offset: address as u32, length: written as u32, target: PhantomData }
    }

    /// Puts bytes into the arena, aligned so that what is at a multiple of 8 in them is so in memory.
    pub fn aligned_bytes(&self, bytes: &[u8]) -> MetaSlice<u8> {
        if bytes.is_empty() {
            return MetaSlice::default();
        }
        let address = self.bytes(bytes.len(), 8);
        let pointer: *mut u8 = std::ptr::with_exposed_provenance_mut(METADATA_BASE + address);
        // SAFETY: fresh memory of that size.
        unsafe { pointer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        #[allow(clippy::cast_possible_truncation, reason = "the arena has 2^32 bytes")]
        MetaSlice { offset: address as u32, length: bytes.len() as u32, target: PhantomData }
    }

    /// Bytes that all loaders have taken.
    pub fn used() -> usize {
        USED.load(Ordering::Relaxed)
    }

    /// Bytes of them that may be given back.
    pub fn passing() -> usize {
        PASSING.load(Ordering::Relaxed)
    }

    /// Bytes of all chunks.
    pub fn committed() -> usize {
        COMMITTED.load(Ordering::Relaxed)
    }

    /// Bytes that this one has taken.
    pub fn size(&self) -> usize {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).used
    }

    /// Reserves zeroed bytes; their offset.
    fn bytes(&self, size: usize, align: usize) -> usize {
        let owned = &mut *self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.used += size;
        USED.fetch_add(size, Ordering::Relaxed);
        if self.passing {
            PASSING.fetch_add(size, Ordering::Relaxed);
        }
        let start = owned.next.next_multiple_of(align);
        if start != 0 && start + size <= owned.end {
            owned.next = start + size;
            return start;
        }
        // Most loaders define a class or two: they begin with little.
        let usual = FIRST_CHUNK << owned.chunks.len().min(CHUNK_DOUBLINGS);
        let length = size.max(usual).next_multiple_of(PAGE);
        let start = take_chunk(length);
        owned.chunks.push((start, length));
        if length - size > owned.end.saturating_sub(owned.next) {
            (owned.next, owned.end) = (start + size, start + length);
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_given_back_and_used_again() {
        reserve().unwrap();
        let kept = Chunks::default();
        let first = kept.allocate(1u64);
        for round in 0..200u64 {
            let chunks = Chunks::default();
            let values: Vec<Meta<u64>> = (0..3000).map(|value| chunks.allocate(value * round)).collect();
            let long = chunks.slice(vec![round; 100_000]);
            assert_eq!(values[7].get(), &(7 * round));
            assert_eq!(long.iter().sum::<u64>(), round * 100_000);
            assert!(chunks.size() >= 824_000 && Chunks::used() >= chunks.size());
            drop(chunks);
            // A part of what was free is used by somebody else meanwhile.
            kept.allocate([round; 40]);
        }
        assert_eq!(first.get(), &1);
        assert!(Chunks::committed() < 1 << 20);
        let end = NEXT.load(Ordering::Relaxed);
        assert!(end < 4 << 20, "200 times 824,000 bytes have not found their place again: {end}");
        let free: usize = FREE.lock().unwrap().values().sum();
        assert_eq!(free + Chunks::committed() + PAGE, end);
    }
}
