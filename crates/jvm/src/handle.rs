//! How Rust code holds objects: a [`Handle`] for the length of a call, a [`Global`] for longer, a [`Weak`] that does not keep its object.
//!
//! A [`Reference`] is a place, and objects move at safe points. Handles are slots that the collector updates. The
//! slots of globals are at a fixed place, so that following one is a load, and so that metadata may hold globals.
//!
//! A global may belong to a class loader (a constant that one of its classes resolved): then it keeps its object only as long as the loader lives.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use machine::sys::Mapping;

use crate::object::Reference;

/// Handles that a thread may have at a time.
const HANDLES_MAX: usize = 1 << 20;

/// A reference that the collector keeps and updates until its scope ends.
#[derive(Clone, Copy)]
pub struct Handle {
    slot: *mut u32,
}

impl Handle {
    /// The object, where it is now.
    #[inline(always)]
    pub fn get(self) -> Reference {
        // SAFETY: slots live as long as the thread, whose only user this is; `Handle` is not `Send`.
        Reference(unsafe { self.slot.read() })
    }

    /// Makes it refer to something else.
    pub fn set(self, reference: Reference) {
        // SAFETY: as in `get`.
        unsafe { self.slot.write(reference.0) }
    }

    /// Whether it refers to nothing.
    pub fn is_null(self) -> bool {
        self.get().is_null()
    }

    /// As a slot of a frame.
    pub fn slot(self) -> u64 {
        u64::from(self.get().0)
    }

    /// Where the reference is.
    pub fn address(self) -> *mut u32 {
        self.slot
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({:?})", self.get())
    }
}

/// The handles of a thread.
#[derive(Debug)]
pub struct Handles {
    slots: Mapping,
    used: Cell<usize>,
}

impl Handles {
    /// Room for a thread's handles; takes memory as it is used.
    ///
    /// # Errors
    /// If the host refuses address space.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { slots: Mapping::new(HANDLES_MAX * 4)?, used: Cell::new(0) })
    }

    /// A new handle.
    #[inline]
    pub fn make(&self, reference: Reference) -> Handle {
        let index = self.used.get();
        assert!(index < HANDLES_MAX, "natives give back their handles");
        self.used.set(index + 1);
        // SAFETY: the index is within the mapping.
        let slot = unsafe { self.slots.start().as_ptr().cast::<u32>().add(index) };
        let handle = Handle { slot };
        handle.set(reference);
        handle
    }

    /// The handle with a number that is in use.
    pub fn at(&self, index: usize) -> Handle {
        assert!(index < self.used.get(), "only handles in use are asked for");
        // SAFETY: the index is within the mapping.
        Handle { slot: unsafe { self.slots.start().as_ptr().cast::<u32>().add(index) } }
    }

    /// The number of the handle at an address.
    pub fn index_of(&self, address: *mut u32) -> Option<usize> {
        let distance = address.addr().checked_sub(self.slots.start().as_ptr().addr())?;
        Some(distance / 4).filter(|&index| index < self.used.get())
    }

    /// Whether there can be a few thousand more.
    pub fn has_room(&self) -> bool {
        self.used.get() < HANDLES_MAX - 4096
    }

    /// How many there are, for [`Handles::release`].
    pub fn mark(&self) -> usize {
        self.used.get()
    }

    /// Gives back those taken since `mark`.
    pub fn release(&self, mark: usize) {
        debug_assert!(mark <= self.used.get(), "handles are a stack");
        self.used.set(mark);
    }

    /// The slots in use, for the collector.
    pub fn visit(&self, mut visitor: impl FnMut(*mut u32)) {
        let start = self.slots.start().as_ptr().cast::<u32>();
        // SAFETY: all are within the mapping.
        (0..self.used.get()).for_each(|index| visitor(unsafe { start.add(index) }));
    }
}

/// Where the slots of globals begin, in the host's address space.
pub const GLOBALS_BASE: usize = 0x0290_0000_0000;
/// How many globals and weak globals there can be, of each.
pub const GLOBALS_MAX: u32 = 1 << 26;

const BYTES: usize = (GLOBALS_MAX as usize) * 4;
/// Where the slots of weak globals begin.
pub const WEAKS_BASE: usize = GLOBALS_BASE + 2 * BYTES;
/// Behind the slots of weak globals.
pub const GLOBALS_END: usize = WEAKS_BASE + BYTES;

/// One table of slots: references at `base`, and who owns each behind all of them.
struct Table {
    base: usize,
    free: Mutex<Free>,
}

struct Free {
    /// Slots that were given out at some time, from 1 on.
    used: u32,
    released: Vec<u32>,
    /// Slots that were filled since the last collection, or had a young object then: young collections visit no others.
    young: Vec<u32>,
}

static STRONG: Table = Table::new(GLOBALS_BASE);
static WEAK: Table = Table::new(WEAKS_BASE);

/// The owner of a slot that nobody uses.
const NOBODY: u32 = u32::MAX;

impl Table {
    const fn new(base: usize) -> Self {
        Self { base, free: Mutex::new(Free { used: 0, released: Vec::new(), young: Vec::new() }) }
    }

    fn slot(&self, index: u32) -> &'static AtomicU32 {
        reserve();
        // SAFETY: reserved above for the life of the process, accessed only by atomics; indexes are below GLOBALS_MAX.
        unsafe { &*std::ptr::with_exposed_provenance(self.base + index as usize * 4) }
    }

    fn owner(&self, index: u32) -> &'static AtomicU32 {
        // SAFETY: as above; the owners are behind the slots.
        unsafe { &*std::ptr::with_exposed_provenance(self.base + BYTES + index as usize * 4) }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, object: Reference, owner: u32) -> NonZeroU32 {
        let mut free = self.free();
        let index = free.released.pop().unwrap_or_else(|| {
            free.used += 1;
            free.used
        });
        assert!(index < GLOBALS_MAX, "2^26 global references are used up");
        self.slot(index).store(object.0, Ordering::Relaxed);
        self.owner(index).store(owner, Ordering::Release);
        // Slots that are taken and given back again and again are noted but once, now and then.
        if free.young.len() > 2 * free.used as usize {
            free.young.sort_unstable();
            free.young.dedup();
        }
        free.young.push(index);
        NonZeroU32::new(index).expect("slots begin with 1")
    }

    fn release(&self, index: NonZeroU32) {
        let mut free = self.free();
        self.slot(index.get()).store(0, Ordering::Relaxed);
        if self.owner(index.get()).swap(NOBODY, Ordering::Relaxed) != NOBODY {
            free.released.push(index.get());
        }
    }

    /// Visits a slot; what is in it then.
    fn visit_slot(&self, index: u32, visit: &mut dyn FnMut(&mut Reference)) -> Reference {
        let slot = self.slot(index);
        let mut reference = Reference(slot.load(Ordering::Relaxed));
        if !reference.is_null() {
            visit(&mut reference);
            slot.store(reference.0, Ordering::Relaxed);
        }
        reference
    }

    /// Visits the slots that may have young objects.
    fn visit_young(&self, is_young: impl Fn(Reference) -> bool, visit: &mut dyn FnMut(&mut Reference)) {
        self.free().young.retain(|&index| {
            let reference = self.visit_slot(index, visit);
            !reference.is_null() && is_young(reference)
        });
    }

    /// Visits all slots of some owners.
    fn visit(&self, wanted: impl Fn(u32) -> bool, visit: &mut dyn FnMut(&mut Reference)) {
        for index in 1..=self.free().used {
            if wanted(self.owner(index).load(Ordering::Relaxed)) {
                self.visit_slot(index, visit);
            }
        }
    }
}

/// Maps the slots, once.
#[inline(always)]
fn reserve() {
    static RESERVED: OnceLock<()> = OnceLock::new();
    RESERVED.get_or_init(|| {
        machine::sys::reserve_at(GLOBALS_BASE, 4 * BYTES).expect("the address range of global references is free");
    });
}

/// A slot that keeps an object until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Global(NonZeroU32);

impl Global {
    /// Keeps an object.
    pub fn new(object: Reference) -> Self {
        Self(STRONG.add(object, 0))
    }

    /// Keeps an object as long as the loader lives, which lists it and visits it.
    pub(crate) fn of_loader(object: Reference, loader: u32) -> Self {
        Self(STRONG.add(object, loader))
    }

    /// The slot of this index; `None` for 0.
    #[inline(always)]
    pub fn of_index(index: u32) -> Option<Self> {
        NonZeroU32::new(index).map(Self)
    }

    /// The index of the slot.
    #[inline(always)]
    pub fn index(self) -> u32 {
        self.0.get()
    }

    /// Where the object is now.
    #[inline(always)]
    pub fn get(self) -> Reference {
        // SAFETY: whoever made this global reserved the table; indexes are below GLOBALS_MAX, and slots are only accessed by atomics.
        let slot: &AtomicU32 = unsafe { &*std::ptr::with_exposed_provenance(GLOBALS_BASE + self.0.get() as usize * 4) };
        Reference(slot.load(Ordering::Relaxed))
    }

    /// The address of the slot, as JNI knows it.
    pub fn address(self) -> *mut u32 {
        std::ptr::with_exposed_provenance_mut(GLOBALS_BASE + self.0.get() as usize * 4)
    }

    /// The global whose slot is at this address.
    pub fn of_address(address: *mut u32) -> Option<Self> {
        index_at(address, GLOBALS_BASE).map(Self)
    }

    /// Keeps another object.
    pub fn set(self, object: Reference) {
        let mut free = STRONG.free();
        STRONG.slot(self.0.get()).store(object.0, Ordering::Release);
        free.young.push(self.0.get());
    }

    /// Visits the slot, for [`crate::heap::Roots::loader`].
    pub(crate) fn visit(self, visit: &mut dyn FnMut(&mut Reference)) {
        STRONG.visit_slot(self.0.get(), visit);
    }

    /// Gives the slot back. Releasing twice in a row does nothing.
    pub fn release(self) {
        STRONG.release(self.0);
    }
}

/// A slot that does not keep its object, and is null when that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Weak(NonZeroU32);

impl Weak {
    /// Watches an object.
    pub fn new(object: Reference) -> Self {
        Self(WEAK.add(object, 0))
    }

    /// The slot of this index; `None` for 0.
    pub fn of_index(index: u32) -> Option<Self> {
        NonZeroU32::new(index).map(Self)
    }

    /// The index of the slot.
    pub fn index(self) -> u32 {
        self.0.get()
    }

    /// The address of the slot, as JNI knows it.
    pub fn address(self) -> *mut u32 {
        std::ptr::with_exposed_provenance_mut(WEAKS_BASE + self.0.get() as usize * 4)
    }

    /// The weak global whose slot is at this address.
    pub fn of_address(address: *mut u32) -> Option<Self> {
        index_at(address, WEAKS_BASE).map(Self)
    }

    /// Where the object is now; null if it is gone.
    pub fn get(self) -> Reference {
        Reference(WEAK.slot(self.0.get()).load(Ordering::Relaxed))
    }

    /// Gives the slot back.
    pub fn release(self) {
        WEAK.release(self.0);
    }
}

/// The index of the slot at an address, in the table that begins at `base`.
fn index_at(address: *mut u32, base: usize) -> Option<NonZeroU32> {
    let distance = address.addr().checked_sub(base).filter(|&distance| distance < BYTES)?;
    NonZeroU32::new(u32::try_from(distance / 4).ok()?)
}

/// How many globals and weak globals are in use.
pub fn counts() -> (usize, usize) {
    let count = |table: &Table| {
        let free = table.free();
        free.used as usize - free.released.len()
    };
    (count(&STRONG), count(&WEAK))
}

/// Visits globals of the virtual machine itself, for [`crate::heap::Roots::strong`] in a full collection.
pub fn visit_globals(visit: &mut dyn FnMut(&mut Reference)) {
    STRONG.visit(|owner| owner == 0, visit);
}

/// Visits globals that may have young objects, those of loaders too, for [`crate::heap::Roots::strong`] in a young collection.
pub fn visit_young_globals(is_young: impl Fn(Reference) -> bool, visit: &mut dyn FnMut(&mut Reference)) {
    STRONG.visit_young(is_young, visit);
}

/// Visits weak globals, for [`crate::heap::Roots::weak`] in a full collection.
pub fn visit_weak(visit: &mut dyn FnMut(&mut Reference)) {
    WEAK.visit(|_| true, visit);
}

/// Visits weak globals that may have young objects, for [`crate::heap::Roots::weak`] in a young collection.
pub fn visit_young_weak(is_young: impl Fn(Reference) -> bool, visit: &mut dyn FnMut(&mut Reference)) {
    WEAK.visit_young(is_young, visit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globals_by_owner_and_age() {
        let a = Global::new(Reference(11));
        let b = Global::of_loader(Reference(12), 7);
        let mut own = Vec::new();
        visit_globals(&mut |slot| own.push(slot.0));
        assert!(own.contains(&11) && !own.contains(&12));
        b.visit(&mut |slot| slot.0 += 100);
        assert_eq!((a.get().0, b.get().0), (11, 112));
        // What was old when it was visited is not visited again until it is filled anew.
        let young = || {
            let mut all = Vec::new();
            visit_young_globals(|object| object.0 == 11, &mut |slot| all.push(slot.0));
            all
        };
        let first = young();
        assert!(first.contains(&11) && first.contains(&112));
        let second = young();
        assert!(second.contains(&11) && !second.contains(&112));
        b.set(Reference(13));
        assert!(young().contains(&13));
        a.release();
        b.release();
        assert!(!young().contains(&11));
    }

    #[test]
    fn handles_are_a_stack() {
        let handles = Handles::new().unwrap();
        let a = handles.make(Reference(1));
        let mark = handles.mark();
        handles.make(Reference(2));
        handles.release(mark);
        a.set(Reference(3));
        let mut slots = Vec::new();
        // SAFETY: the slots of live handles.
        handles.visit(|slot| slots.push(unsafe { slot.read() }));
        assert_eq!(slots, [3]);
    }
}
