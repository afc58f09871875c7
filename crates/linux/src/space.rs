//! A program's address space: one reserved range of the host's, in which guest addresses are offsets.
//!
//! ```text
//! host:  base - GUARD         base                                         base + SIZE          + GUARD
//!        |  never accessible  |  program | heap ->      <- mappings | stack |  never accessible  |
//! guest:                      0                                            SIZE
//! ```
//!
//! Guest mappings are the host's, at the same offset and with the guest's rights, except that nothing is executable: the host reads code, it does not
//! run it. What the guest has not mapped stays reserved and inaccessible. So the kernel's own checks hold when it gets a guest's pointer, and the guard
//! is larger than the most that one call transfers. Translated code accesses the range directly and faults where the kernel would refuse; the guards
//! are larger than what it may miss the range by without looking.
//!
//! The range lies low, far from where the host's kernel puts its own mappings from above, so that in the moment in which a mapping is moved
//! nobody else takes its place.
//!
//! Rights and extents are kept here as well, since a hart asks for them at each TLB miss, and system calls before they copy.

use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use riscv::hart::user::UserMemory;
use riscv::hart::{Fence, HartSignals};
use riscv::mmu::{Fault, Permissions};

use crate::sys::{copy, raw, set_flat_base};

/// Where guest addresses end: what Sv39 gives to programs.
pub const SIZE: u64 = 1 << 38;
/// More than `MAX_RW_COUNT`.
const GUARD: u64 = 1 << 32;
const _: () = assert!(GUARD >= riscv::hart::user::GUARD);
/// Where the range should be on the host.
const PLACE: u64 = 1 << 40;
/// Mappings that the kernel places go below this.
const MAPPINGS_END: u64 = SIZE - (1 << 32);
/// And not below this, where the guest's null pointers lead.
const MAPPINGS_START: u64 = 0x1_0000;
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// `PROT_READ`.
pub const READ: u32 = 1;
/// `PROT_WRITE`.
pub const WRITE: u32 = 2;
/// `PROT_EXEC`.
pub const EXECUTE: u32 = 4;

const MAP_FIXED: u64 = libc::MAP_FIXED as u64;
const MAP_FIXED_NOREPLACE: u64 = libc::MAP_FIXED_NOREPLACE as u64;
const MAP_ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;
const MAP_PRIVATE: u64 = libc::MAP_PRIVATE as u64;
const MAP_NORESERVE: u64 = libc::MAP_NORESERVE as u64;

const EINVAL: i64 = -(libc::EINVAL as i64);
const ENOMEM: i64 = -(libc::ENOMEM as i64);
const EFAULT: i64 = -(libc::EFAULT as i64);
const EEXIST: i64 = -(libc::EEXIST as i64);

/// A row of pages with the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    end: u64,
    protection: u32,
}

/// Regions by where they begin.
type Regions = BTreeMap<u64, Region>;

/// The address space of one process.
#[derive(Debug)]
pub struct AddressSpace {
    base: u64,
    /// Held by whoever changes what is mapped, from beginning to end.
    changes: Mutex<()>,
    /// Held for moments, and never while waiting for a hart: harts ask here.
    regions: RwLock<Regions>,
    harts: Mutex<Vec<Arc<HartSignals>>>,
    /// The heap: where it begins, and where it ends.
    heap: Mutex<(u64, u64)>,
}

fn page_up(value: u64) -> Option<u64> {
    value.checked_next_multiple_of(PAGE)
}

/// What a search for free pages asks of the regions: do any lie in `start..end`?
fn is_free(regions: &Regions, start: u64, end: u64) -> bool {
    regions.range(..end).next_back().is_none_or(|(_, region)| region.end <= start)
}

/// Takes `start..end` out, and answers whether code was in it.
fn cut(regions: &mut Regions, start: u64, end: u64) -> bool {
    let touched: Vec<_> = regions
        .range(..end)
        .rev()
        .take_while(|(_, region)| region.end > start)
        .map(|(&from, &region)| (from, region))
        .collect();
    let mut code = false;
    for (from, region) in touched {
        regions.remove(&from);
        code |= region.protection & EXECUTE != 0;
        if from < start {
            regions.insert(from, Region { end: start, ..region });
        }
        if region.end > end {
            regions.insert(end, region);
        }
    }
    code
}

/// Enters a region, as one with its neighbours if they have the same rights.
fn enter(regions: &mut Regions, start: u64, end: u64, protection: u32) {
    let (mut start, mut end) = (start, end);
    if let Some((&from, region)) = regions.range(..start).next_back()
        && region.end == start
        && region.protection == protection
    {
        start = from;
    }
    if let Some(region) = regions.get(&end).copied()
        && region.protection == protection
    {
        regions.remove(&end);
        end = region.end;
    }
    regions.insert(start, Region { end, protection });
}

/// What the host may do with pages that the guest has these rights to.
fn host_protection(protection: u32) -> u64 {
    let read = if protection & (READ | EXECUTE | WRITE) != 0 { READ } else { 0 };
    (read | protection & WRITE).into()
}

impl AddressSpace {
    /// An empty one.
    ///
    /// # Errors
    /// If the host refuses the reservation.
    pub fn new() -> io::Result<Self> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        // SAFETY: a new mapping; the address is a hint.
        let base = unsafe { raw(libc::SYS_mmap, [PLACE, GUARD + SIZE + GUARD, 0, flags, u64::MAX, 0]) };
        if base < 0 {
            return Err(io::Error::from_raw_os_error(i32::try_from(-base).unwrap_or(libc::ENOMEM)));
        }
        Ok(Self {
            base: base.unsigned_abs() + GUARD,
            changes: Mutex::default(),
            regions: RwLock::default(),
            harts: Mutex::default(),
            heap: Mutex::default(),
        })
    }

    fn read_regions(&self) -> RwLockReadGuard<'_, Regions> {
        self.regions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_regions(&self) -> RwLockWriteGuard<'_, Regions> {
        self.regions.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn harts(&self) -> MutexGuard<'_, Vec<Arc<HartSignals>>> {
        self.harts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The harts that execute in it at this moment.
    pub(crate) fn all_harts(&self) -> Vec<Arc<HartSignals>> {
        self.harts().clone()
    }

    /// The calling thread executes translated code in it.
    pub fn enter(&self) {
        set_flat_base(self.base);
    }

    /// A hart executes in it from now on.
    pub fn add_hart(&self, hart: Arc<HartSignals>) {
        self.harts().push(hart);
    }

    /// A hart no longer executes in it.
    pub fn remove_hart(&self, hart: &Arc<HartSignals>) {
        self.harts().retain(|other| !Arc::ptr_eq(hart, other));
    }

    /// Only this hart is left: after a fork.
    pub fn keep_hart(&self, hart: &Arc<HartSignals>) {
        self.harts().retain(|other| Arc::ptr_eq(hart, other));
    }

    /// Runs `body` while nobody changes the space: for a fork, whose child must not find a lock taken for good.
    pub fn while_still<T>(&self, body: impl FnOnce() -> T) -> T {
        let _heap = self.heap.lock();
        let _changes = self.changes();
        let _regions = self.write_regions();
        let _harts = self.harts();
        body()
    }

    /// Returns once no hart uses what it knew about `start..end`.
    fn fence(&self, start: u64, end: u64, code: bool) {
        let harts: Vec<_> = self.harts().clone();
        let tickets: Vec<_> = harts
            .iter()
            .map(|hart| {
                if code {
                    hart.request_fence(Fence::Code { start, length: end - start });
                }
                hart.request_fence(Fence::Translations { start, length: end - start, asid: None })
            })
            .collect();
        for (hart, ticket) in harts.iter().zip(tickets) {
            hart.wait_for_fence(ticket);
        }
    }

    /// `riscv_flush_icache`: code that was written in `start..end` is what all harts execute; what is no range is all of it.
    pub fn flush_code(&self, start: u64, end: u64) {
        let fence = match end.checked_sub(start) {
            Some(length) if length > 0 => Fence::Code { start, length },
            _ => Fence::Instructions,
        };
        let _changes = self.changes();
        let harts: Vec<_> = self.harts().clone();
        let tickets: Vec<_> = harts.iter().map(|hart| hart.request_fence(fence)).collect();
        for (hart, ticket) in harts.iter().zip(tickets) {
            hart.wait_for_fence(ticket);
        }
    }

    /// The range as page addresses, if it is one.
    fn range(address: u64, length: u64) -> Option<(u64, u64)> {
        let end = address.checked_add(page_up(length)?)?;
        (address.is_multiple_of(PAGE) && length > 0 && end <= SIZE).then_some((address, end))
    }

    /// The highest free room for `length` bytes.
    fn find(regions: &Regions, length: u64, top: u64) -> Option<u64> {
        let mut end = top;
        for (&from, region) in regions.range(..top).rev() {
            if region.end <= end && end - region.end >= length {
                break;
            }
            end = from.min(end);
        }
        end.checked_sub(length).filter(|start| *start >= MAPPINGS_START)
    }

    /// `mmap`: where it is.
    ///
    /// # Errors
    /// Negative error numbers.
    pub fn map(&self, hint: u64, length: u64, protection: u32, flags: u64, file: u64, offset: u64) -> Result<u64, i64> {
        let size = page_up(length).filter(|size| *size > 0).ok_or(if length == 0 { EINVAL } else { ENOMEM })?;
        let _changes = self.changes();
        let mut regions = self.write_regions();
        let fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0;
        let start = if fixed {
            let (start, end) =
                Self::range(hint, length).ok_or(if hint.is_multiple_of(PAGE) { ENOMEM } else { EINVAL })?;
            if flags & MAP_FIXED_NOREPLACE != 0 && !is_free(&regions, start, end) {
                return Err(EEXIST);
            }
            start
        } else {
            let hint = hint & !(PAGE - 1);
            match Self::range(hint, length) {
                Some((start, end)) if start >= MAPPINGS_START && is_free(&regions, start, end) => start,
                _ => Self::find(&regions, size, MAPPINGS_END).ok_or(ENOMEM)?,
            }
        };
        let end = start + size;
        let kept = flags & !(MAP_FIXED_NOREPLACE | libc::MAP_32BIT as u64 | libc::MAP_GROWSDOWN as u64) | MAP_FIXED;
        let arguments = [self.base + start, size, host_protection(protection), kept, file, offset];
        // SAFETY: replaces pages of the guest only, `start..end` being in its range.
        let answer = unsafe { raw(libc::SYS_mmap, arguments) };
        if answer < 0 {
            return Err(answer);
        }
        let was_free = is_free(&regions, start, end);
        let code = cut(&mut regions, start, end);
        enter(&mut regions, start, end, protection & 7);
        drop(regions);
        if !was_free {
            self.fence(start, end, code);
        }
        Ok(start)
    }

    /// Makes host pages of `start..end` inaccessible and forgets what was in them.
    fn reserve(&self, start: u64, end: u64) {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
        // SAFETY: replaces pages of the guest only.
        unsafe { raw(libc::SYS_mmap, [self.base + start, end - start, 0, flags, u64::MAX, 0]) };
    }

    /// `munmap`.
    ///
    /// # Errors
    /// `EINVAL`, negative.
    pub fn unmap(&self, address: u64, length: u64) -> Result<(), i64> {
        let (start, end) = Self::range(address, length).ok_or(EINVAL)?;
        let _changes = self.changes();
        let code = cut(&mut self.write_regions(), start, end);
        // Another hart may be about to access the page: the fence comes before the page goes.
        self.fence(start, end, code);
        self.reserve(start, end);
        Ok(())
    }

    /// `mprotect`.
    ///
    /// # Errors
    /// Negative error numbers; `ENOMEM` if there is a hole.
    pub fn protect(&self, address: u64, length: u64, protection: u32) -> Result<(), i64> {
        if length == 0 {
            return if address.is_multiple_of(PAGE) { Ok(()) } else { Err(EINVAL) };
        }
        let (start, end) =
            Self::range(address, length).ok_or(if address.is_multiple_of(PAGE) { ENOMEM } else { EINVAL })?;
        let _changes = self.changes();
        let mut regions = self.write_regions();
        let covered: u64 = regions
            .range(..end)
            .rev()
            .take_while(|(_, region)| region.end > start)
            .map(|(&from, region)| region.end.min(end) - from.max(start))
            .sum();
        if covered < end - start {
            return Err(ENOMEM);
        }
        let code = cut(&mut regions, start, end) || protection & EXECUTE != 0;
        enter(&mut regions, start, end, protection & 7);
        drop(regions);
        self.fence(start, end, code);
        // SAFETY: changes pages of the guest only.
        let answer =
            unsafe { raw(libc::SYS_mprotect, [self.base + start, end - start, host_protection(protection), 0, 0, 0]) };
        if answer < 0 { Err(answer) } else { Ok(()) }
    }

    /// `mremap`: where it is now.
    ///
    /// # Errors
    /// Negative error numbers.
    pub fn remap(&self, old: u64, old_length: u64, new_length: u64, flags: u64, target: u64) -> Result<u64, i64> {
        let (may_move, fixed) = (flags & 1 != 0, flags & 2 != 0);
        if flags & !3 != 0 || (fixed && !may_move) || old_length == 0 {
            return Err(EINVAL);
        }
        let (start, old_end) = Self::range(old, old_length).ok_or(EINVAL)?;
        let (_, new_end) = Self::range(old, new_length).ok_or(EINVAL)?;
        let changes = self.changes();
        let regions = self.read_regions();
        let protection = match regions.range(..=start).next_back() {
            Some((_, region)) if region.end >= old_end => region.protection,
            _ => return Err(EFAULT),
        };
        if !fixed && new_end <= old_end {
            drop(regions);
            drop(changes);
            if new_end < old_end {
                self.unmap(new_end, old_end - new_end)?;
            }
            return Ok(start);
        }
        let size = new_end - start;
        let in_place = !fixed && is_free(&regions, old_end, new_end);
        let to = if in_place {
            // SAFETY: makes room inside the guest's range; see the module's header.
            unsafe { raw(libc::SYS_munmap, [self.base + old_end, new_end - old_end, 0, 0, 0, 0]) };
            start
        } else if fixed {
            let (to, end) = Self::range(target, new_length).ok_or(EINVAL)?;
            if to < old_end && start < end {
                return Err(EINVAL);
            }
            to
        } else if may_move {
            Self::find(&regions, size, MAPPINGS_END).ok_or(ENOMEM)?
        } else {
            return Err(ENOMEM);
        };
        drop(regions);
        if !in_place {
            cut(&mut self.write_regions(), start, old_end);
            self.fence(start, old_end, protection & EXECUTE != 0);
        }
        let host_flags = if in_place { 0 } else { 3 };
        let arguments = [self.base + start, old_end - start, size, host_flags, self.base + to, 0];
        // SAFETY: moves pages of the guest inside its range.
        let answer = unsafe { raw(libc::SYS_mremap, arguments) };
        if answer < 0 {
            if in_place {
                self.reserve(old_end, new_end);
            } else {
                enter(&mut self.write_regions(), start, old_end, protection);
            }
            return Err(answer);
        }
        if !in_place {
            self.reserve(start, old_end);
        }
        let mut regions = self.write_regions();
        let code = cut(&mut regions, to, to + size);
        enter(&mut regions, to, to + size, protection);
        drop(regions);
        if fixed {
            self.fence(to, to + size, code);
        }
        Ok(to)
    }

    /// Sets where the heap begins.
    pub fn set_heap(&self, start: u64) {
        let start = page_up(start).unwrap_or(SIZE);
        *self.heap.lock().unwrap_or_else(PoisonError::into_inner) = (start, start);
    }

    /// `brk`: the heap's end, whether it moved or not.
    pub fn set_break(&self, wanted: u64) -> u64 {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = *heap;
        let (Some(old_top), Some(new_top)) = (page_up(end), page_up(wanted)) else { return end };
        if wanted < start || new_top > MAPPINGS_END {
            return end;
        }
        let done = if new_top > old_top {
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
            self.map(old_top, new_top - old_top, READ | WRITE, flags, u64::MAX, 0).is_ok()
        } else {
            new_top == old_top || self.unmap(new_top, old_top - new_top).is_ok()
        };
        if done {
            heap.1 = wanted;
        }
        heap.1
    }

    /// `shmat`: where the segment is.
    ///
    /// # Errors
    /// Negative error numbers.
    pub fn attach(&self, id: u64, address: u64, flags: u64) -> Result<u64, i64> {
        // SAFETY: `shmid_ds` is plain data, and the kernel fills it.
        let mut info: libc::shmid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one structure.
        let answer = unsafe { raw(libc::SYS_shmctl, [id, libc::IPC_STAT as u64, (&raw mut info) as u64, 0, 0, 0]) };
        if answer < 0 {
            return Err(answer);
        }
        let size = page_up(info.shm_segsz as u64).filter(|size| *size > 0).ok_or(EINVAL)?;
        let _changes = self.changes();
        let mut regions = self.write_regions();
        let start = match address {
            0 => Self::find(&regions, size, MAPPINGS_END).ok_or(ENOMEM)?,
            address if flags & libc::SHM_RND as u64 != 0 => address & !(PAGE - 1),
            address => address,
        };
        let (start, end) = Self::range(start, size).ok_or(EINVAL)?;
        if flags & libc::SHM_REMAP as u64 == 0 && !is_free(&regions, start, end) {
            return Err(EINVAL);
        }
        let host_flags = flags & !(libc::SHM_EXEC as u64) | libc::SHM_REMAP as u64;
        // SAFETY: replaces pages of the guest only.
        let answer = unsafe { raw(libc::SYS_shmat, [id, self.base + start, host_flags, 0, 0, 0]) };
        if answer < 0 {
            return Err(answer);
        }
        let code = cut(&mut regions, start, end);
        let write = if flags & libc::SHM_RDONLY as u64 == 0 { WRITE } else { 0 };
        enter(&mut regions, start, end, READ | write);
        drop(regions);
        self.fence(start, end, code);
        Ok(start)
    }

    /// `shmdt`.
    ///
    /// # Errors
    /// `EINVAL`, negative.
    pub fn detach(&self, address: u64) -> Result<(), i64> {
        let _changes = self.changes();
        let end = {
            let regions = self.read_regions();
            let region = regions.range(..=address).next_back().filter(|(_, region)| region.end > address);
            region.map(|(_, region)| region.end).ok_or(EINVAL)?
        };
        self.fence(address, end, false);
        // SAFETY: the kernel unmaps a segment that begins there, or nothing.
        let answer = unsafe { raw(libc::SYS_shmdt, [self.base + address, 0, 0, 0, 0, 0]) };
        if answer < 0 {
            return Err(answer);
        }
        // Only the kernel knows how long the segment was: as far as nothing is mapped now.
        let (mut gone, mut resident) = (address, 0_u8);
        while gone < end {
            // SAFETY: asks about one page, and writes one byte.
            let there =
                unsafe { raw(libc::SYS_mincore, [self.base + gone, PAGE, (&raw mut resident) as u64, 0, 0, 0]) };
            if there == 0 {
                break;
            }
            gone += PAGE;
        }
        if gone > address {
            cut(&mut self.write_regions(), address, gone);
            self.reserve(address, gone);
        }
        Ok(())
    }

    /// The host's address of a guest address, if it is one. Nothing may be there.
    #[must_use]
    pub fn translate(&self, address: u64) -> Option<u64> {
        (address < SIZE).then(|| self.base + address)
    }

    /// The guest address of a host's address in the range.
    pub(crate) fn address_of(&self, host: u64) -> Option<u64> {
        host.checked_sub(self.base).filter(|address| *address < SIZE)
    }

    /// Where the heap is.
    pub(crate) fn heap(&self) -> std::ops::Range<u64> {
        let (start, end) = *self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        start..end
    }

    /// As [`Self::translate`]; null stays null.
    ///
    /// # Errors
    /// `EFAULT`, negative.
    pub fn pointer(&self, address: u64) -> Result<u64, i64> {
        if address == 0 { Ok(0) } else { self.translate(address).ok_or(EFAULT) }
    }

    /// What is mapped at `address`: its rights.
    #[must_use]
    pub fn protection(&self, address: u64) -> Option<u32> {
        let regions = self.read_regions();
        let (_, region) = regions.range(..=address).next_back()?;
        (region.end > address).then_some(region.protection)
    }

    /// Where each region begins and ends, and its rights.
    #[must_use]
    pub fn regions(&self) -> Vec<(u64, u64, u32)> {
        self.read_regions().iter().map(|(&start, region)| (start, region.end, region.protection)).collect()
    }

    /// Whether `length` bytes at `address` may be accessed so.
    fn allows(regions: &Regions, address: u64, length: u64, wanted: u32) -> bool {
        let Some(end) = address.checked_add(length) else { return false };
        let mut at = address;
        while at < end {
            match regions.range(..=at).next_back() {
                Some((_, region)) if region.end > at && region.protection & wanted != 0 => at = region.end,
                _ => return false,
            }
        }
        true
    }

    /// Copies from the guest; false if not all of it is readable.
    #[must_use]
    pub fn copy_in(&self, address: u64, into: &mut [u8]) -> bool {
        let regions = self.read_regions();
        if !Self::allows(&regions, address, into.len() as u64, READ | WRITE | EXECUTE) {
            return false;
        }
        // SAFETY: the pages are the guest's, and stay so while the regions are locked. The guest may change them meanwhile; bytes are bytes.
        unsafe { copy(into.as_mut_ptr(), (self.base + address) as *const u8, into.len()) == 0 }
    }

    /// Copies to the guest; false if not all of it is writable.
    #[must_use]
    pub fn copy_out(&self, address: u64, bytes: &[u8]) -> bool {
        let regions = self.read_regions();
        if !Self::allows(&regions, address, bytes.len() as u64, WRITE) {
            return false;
        }
        // SAFETY: as in `copy_in`; the pages are writable.
        unsafe { copy((self.base + address) as *mut u8, bytes.as_ptr(), bytes.len()) == 0 }
    }

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// `EFAULT`, negative.
    pub fn read<const N: usize>(&self, address: u64) -> Result<[u8; N], i64> {
        let mut bytes = [0; N];
        if self.copy_in(address, &mut bytes) { Ok(bytes) } else { Err(EFAULT) }
    }

    /// Writes `bytes`.
    ///
    /// # Errors
    /// `EFAULT`, negative.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), i64> {
        if self.copy_out(address, bytes) { Ok(()) } else { Err(EFAULT) }
    }

    /// Reads a number of eight bytes.
    ///
    /// # Errors
    /// `EFAULT`, negative.
    pub fn read_u64(&self, address: u64) -> Result<u64, i64> {
        self.read(address).map(u64::from_le_bytes)
    }

    /// Reads a string that ends with zero, at most `limit` bytes.
    ///
    /// # Errors
    /// `EFAULT`, or `ENAMETOOLONG` if it does not end; negative.
    pub fn read_string(&self, address: u64, limit: usize) -> Result<Vec<u8>, i64> {
        let mut text = Vec::new();
        let mut at = address;
        while text.len() <= limit {
            let left = usize::try_from(PAGE - (at & (PAGE - 1))).unwrap_or(1);
            let mut chunk = [0; 256];
            let chunk = &mut chunk[..left.min(256)];
            if !self.copy_in(at, chunk) {
                return Err(EFAULT);
            }
            if let Some(length) = chunk.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&chunk[..length]);
                return Ok(text);
            }
            text.extend_from_slice(chunk);
            at += chunk.len() as u64;
        }
        Err(-i64::from(libc::ENAMETOOLONG))
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // SAFETY: no hart executes in it any more, since they hold it.
        unsafe { raw(libc::SYS_munmap, [self.base - GUARD, GUARD + SIZE + GUARD, 0, 0, 0, 0]) };
    }
}

impl UserMemory for AddressSpace {
    fn page(&self, page: u64) -> Result<(NonNull<u8>, Permissions), Fault> {
        let protection = self.protection(page).filter(|protection| *protection != 0).ok_or(Fault::Page)?;
        let write = protection & WRITE != 0;
        // As Linux has it on riscv64: what can be written or executed can be read, but for pages to execute only.
        let permissions =
            Permissions { read: protection & (READ | WRITE) != 0, write, execute: protection & EXECUTE != 0 };
        let host = NonNull::new((self.base + page) as *mut u8).ok_or(Fault::Page)?;
        let mut byte = 0;
        // SAFETY: the page is the guest's, or fails to be.
        let there = unsafe { copy(&raw mut byte, host.as_ptr(), 1) == 0 };
        if there { Ok((host, permissions)) } else { Err(Fault::Access) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANONYMOUS: u64 = MAP_PRIVATE | MAP_ANONYMOUS;

    #[test]
    fn mappings_come_and_go() {
        let space = AddressSpace::new().unwrap();
        let at = space.map(0, 3 * PAGE, READ | WRITE, ANONYMOUS, u64::MAX, 0).unwrap();
        space.write(at + PAGE - 2, b"abcd").unwrap();
        assert_eq!(space.read::<4>(at + PAGE - 2).unwrap(), *b"abcd");
        space.protect(at + PAGE, PAGE, READ).unwrap();
        assert_eq!(space.write(at + PAGE - 2, b"abcd"), Err(EFAULT));
        assert_eq!(space.regions().len(), 3);
        space.protect(at + PAGE, PAGE, READ | WRITE).unwrap();
        assert_eq!(space.protect(at, 4 * PAGE, READ), Err(ENOMEM));
        space.unmap(at + PAGE, PAGE).unwrap();
        assert_eq!(space.read::<4>(at + PAGE - 2), Err(EFAULT));
        assert_eq!(space.read_string(at, 100).unwrap(), b"");
        assert_eq!(space.map(u64::MAX - 4095, PAGE, READ, ANONYMOUS | MAP_FIXED, u64::MAX, 0), Err(ENOMEM));
        assert_eq!(space.map(0, u64::MAX, READ, ANONYMOUS, u64::MAX, 0), Err(ENOMEM));
    }

    #[test]
    fn mappings_grow_in_place_and_elsewhere() {
        let space = AddressSpace::new().unwrap();
        let at = space.map(0x10_0000, PAGE, READ | WRITE, ANONYMOUS, u64::MAX, 0).unwrap();
        assert_eq!(at, 0x10_0000);
        space.write(at, b"x").unwrap();
        assert_eq!(space.remap(at, PAGE, 2 * PAGE, 0, 0), Ok(at));
        space.write(at + PAGE, b"y").unwrap();
        space.map(at + 2 * PAGE, PAGE, READ, ANONYMOUS, u64::MAX, 0).unwrap();
        assert_eq!(space.remap(at, 2 * PAGE, 3 * PAGE, 0, 0), Err(ENOMEM));
        let to = space.remap(at, 2 * PAGE, 3 * PAGE, 1, 0).unwrap();
        assert_eq!((space.read(to), space.read(to + PAGE)), (Ok(*b"x"), Ok(*b"y")));
        assert_eq!(space.read::<1>(at), Err(EFAULT));
    }

    #[test]
    fn the_heap_ends_where_it_is_told() {
        let space = AddressSpace::new().unwrap();
        space.set_heap(0x20_0001);
        assert_eq!(space.set_break(0), 0x20_1000);
        assert_eq!(space.set_break(0x20_1234), 0x20_1234);
        space.write(0x20_1ffc, b"1234").unwrap();
        assert_eq!(space.set_break(0x1000), 0x20_1234);
        assert_eq!(space.set_break(0x20_1000), 0x20_1000);
        assert_eq!(space.read::<1>(0x20_1000), Err(EFAULT));
    }
}
