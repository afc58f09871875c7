//! Files in memory.
//!
//! A file may become shorter than what is mapped of it. Who then accesses what was lost gets SIGBUS, whose handler calls [`mend`]: the rest of the mapping
//! becomes memory of its own, all zeroes, and the access goes on. The Java thread hears of it by an exception.

use std::collections::HashMap;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::{Failure, Result, check_done};

/// A mapping as the handler finds it, which may not wait: entries are used again, never freed.
struct Range {
    /// 0: none.
    start: AtomicUsize,
    end: AtomicUsize,
    next: *mut Range,
}

/// The entry that was made last.
static LAST: AtomicPtr<Range> = AtomicPtr::new(std::ptr::null_mut());

/// Entries by the start of their mapping, and those that are free.
#[derive(Default)]
struct Entries {
    used: HashMap<usize, &'static Range>,
    free: Vec<&'static Range>,
}

// SAFETY: what entries have is atomic, but for `next`, which does not change.
unsafe impl Sync for Range {}

static ENTRIES: LazyLock<Mutex<Entries>> = LazyLock::new(Mutex::default);

fn entries() -> MutexGuard<'static, Entries> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(start: usize, length: usize) {
    let mut entries = entries();
    let range = entries.free.pop().unwrap_or_else(|| {
        // Nobody else adds one while the lock is held.
        let next = LAST.load(Ordering::Relaxed);
        let range = Box::leak(Box::new(Range { start: AtomicUsize::new(0), end: AtomicUsize::new(0), next }));
        LAST.store(range, Ordering::Release);
        range
    });
    range.end.store(start + length, Ordering::Relaxed);
    range.start.store(start, Ordering::Release);
    entries.used.insert(start, range);
}

fn forget(start: usize) {
    let mut entries = entries();
    if let Some(range) = entries.used.remove(&start) {
        range.start.store(0, Ordering::Release);
        entries.free.push(range);
    }
}

/// Whether an address that cannot be accessed is of a mapping, whose rest is then memory of its own. For handlers of signals.
pub(crate) fn mend(address: usize) -> bool {
    let mut next = LAST.load(Ordering::Acquire);
    // SAFETY: entries are never freed.
    while let Some(range) = unsafe { next.as_ref() } {
        let (start, end) = (range.start.load(Ordering::Acquire), range.end.load(Ordering::Relaxed));
        if start != 0 && (start..end).contains(&address) {
            let page = std::ptr::with_exposed_provenance_mut(address & !4095);
            let (protection, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let kind = kind | libc::MAP_FIXED | libc::MAP_NORESERVE;
            // SAFETY: the range is a mapping of `map`, which nobody else maps over; what it has from here on is lost already.
            let mapped = unsafe { libc::mmap(page, end - (address & !4095), protection, kind, -1, 0) };
            return mapped != libc::MAP_FAILED;
        }
        next = range.next;
    }
    false
}

/// Maps a range of a file. Returns its address.
///
/// # Errors
/// If the host refuses.
pub fn map(descriptor: i32, writable: bool, private: bool, position: i64, length: usize) -> Result<i64> {
    let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let kind = if private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
    // SAFETY: the host chooses the place, so nothing is mapped over.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, kind, descriptor, position) };
    if start == libc::MAP_FAILED {
        return Err(Failure::last());
    }
    let start = start.expose_provenance();
    note(start, length);
    i64::try_from(start).map_err(|_| Failure::Host(libc::ENOMEM))
}

/// Ends a mapping.
///
/// # Safety
/// It is one of [`map`] that nobody uses any more.
///
/// # Errors
/// If the host refuses.
pub unsafe fn unmap(address: i64, length: usize) -> Result<()> {
    let start = usize::try_from(address).unwrap_or(0);
    forget(start);
    // SAFETY: the caller's promise.
    check_done(unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), length) })
}

/// Writes what was changed in a mapping to its file.
///
/// # Errors
/// If the host refuses.
pub fn flush_mapping(address: i64, length: usize) -> Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0));
    // SAFETY: the call fails for a range that is not mapped, and changes no memory.
    check_done(unsafe { libc::msync(start, length, libc::MS_SYNC) })
}

/// Tells the host that a mapping will be used soon.
///
/// # Errors
/// If the host refuses.
pub fn expect_mapping(address: i64, length: usize) -> Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0));
    // SAFETY: as above.
    check_done(unsafe { libc::madvise(start, length, libc::MADV_WILLNEED) })
}

/// Whether all pages of a mapping are in memory.
///
/// # Errors
/// If the host refuses.
pub fn is_mapping_loaded(address: i64, length: usize, pages: usize) -> Result<bool> {
    let start = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0));
    // The host tells of every page that the range touches.
    let mut loaded = vec![0u8; pages.max(length.div_ceil(4096)) + 1];
    // SAFETY: there is room for a byte for each page of the range; the call fails for a range that is not mapped.
    check_done(unsafe { libc::mincore(start, length, loaded.as_mut_ptr()) })?;
    Ok(loaded.iter().take(pages).all(|page| page & 1 != 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn what_a_mapping_has_lost_becomes_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 3 * 4096]).unwrap();
        let start = map(file.as_raw_fd(), true, false, 0, 3 * 4096).unwrap();
        let address = usize::try_from(start).unwrap();
        file.set_len(4096).unwrap();
        assert!(!mend(address + 3 * 4096), "behind its end");
        assert!(mend(address + 4096 + 5));
        let byte = |offset| {
            let place: *const u8 = std::ptr::with_exposed_provenance(address + offset);
            // SAFETY: within the mapping, of which all is there.
            unsafe { place.read_volatile() }
        };
        assert_eq!([byte(4095), byte(4096), byte(3 * 4096 - 1)], [7, 0, 0]);
        // SAFETY: it is no longer used.
        unsafe { unmap(start, 3 * 4096) }.unwrap();
        assert!(!mend(address + 4096), "it is no mapping any more");
    }
}
