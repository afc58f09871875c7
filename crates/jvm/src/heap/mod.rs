//! The heap: where Java objects live, how they are allocated, and how those that nobody can reach are found.
//!
//! ```text
//! HEAP_BASE                                                                                        + HEAP_RESERVED
//! | page 0 | old: objects, without gaps | free | ... | eden: buffers of threads | free | survivors | survivors |
//!          '----------- up to the maximum ----'      '---------------- young, up to the maximum -------------'
//! ```
//!
//! Threads allocate by moving a pointer in a [`Buffer`] of their own, which is zeroed when it is handed out. When eden is full, `young` copies what lives into
//! the empty survivor space or, having survived often enough, into old space. When old space has outgrown its capacity, `full` marks everything that lives
//! and slides it together, young objects behind the old ones. Both run on one thread while all others stand still.
//!
//! Invariants. Old space has no gaps and every object in it is found by the start table (`tables`). A reference from an old object to a young one is on a
//! marked card. Free memory in a buffer is zero. Nothing in the heap points into Rust's own memory.
//!
//! Cost: allocation is a comparison, an addition and the class word; writing a reference is one byte more. A young collection costs what survives and the
//! marked cards; a full one what lives, plus 1/64 of what is used for the bitmap.

mod collect;
mod full;
mod references;
mod roots;
mod tables;
mod usage;
mod verify;
mod walk;
mod young;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use machine::clock::Clock;

use crate::object::{
    CLASS_OFFSET, HEAP_BASE, HEAP_RESERVED, Kind, LENGTH_OFFSET, MIRROR_CLASS_OFFSET, Reference, Shape, array_size,
};

pub use roots::{Roots, Scope};
pub use tables::{CARD_SHIFT, CARDS_BASE, card_mark};
pub use usage::{Record, SPACES, Space, Usage};

const PAGE: usize = 4096;
/// Sizes of spaces are multiples of this.
const UNIT: usize = 64 * 1024;
/// Bytes of a thread's buffer, unless eden is small.
const BUFFER: usize = 64 * 1024;
/// The longest array, as HotSpot has it.
const LENGTH_MAX: u32 = i32::MAX as u32 - 2;
/// The smallest heap.
const MINIMUM: usize = 2 << 20;

/// A thread's part of eden. Compiled code allocates in it by itself.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Buffer {
    /// Where the next object goes.
    pub top: usize,
    /// Behind the last byte.
    pub end: usize,
    /// The first byte.
    pub start: usize,
}

impl Buffer {
    /// Allocates an instance of a class whose objects have `size` bytes; `None` if there is no room.
    #[inline(always)]
    pub fn instance(&mut self, class: u32, size: usize) -> Option<Reference> {
        let address = self.take(size)?;
        let object = Reference::at(address);
        object.u32(CLASS_OFFSET).store(class, Ordering::Relaxed);
        Some(object)
    }

    #[inline(always)]
    fn take(&mut self, size: usize) -> Option<usize> {
        let top = self.top;
        if size > self.end - top {
            return None;
        }
        self.top = top + size;
        Some(top)
    }
}

/// Why no object was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room: stop the world, call [`Heap::make_room`], and try again.
    Full(Full),
    /// No array can be so long: `OutOfMemoryError`, "Requested array size exceeds VM limit".
    TooLong,
}

/// A request for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    size: usize,
    /// How many collections there had been: if there was one since, there may be room by now.
    collections: u32,
}

/// There is no room even after a full collection that cleared soft references: `OutOfMemoryError`, "Java heap space".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Java heap space")]
pub struct OutOfMemory;

/// Why the collector runs, as its log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no room.
    AllocationFailure,
    /// `System.gc()` was called.
    SystemGc,
    /// So many allocations were made.
    Stress,
    /// A class loader's limit was reached.
    MetadataThreshold,
    /// It was asked for from outside.
    DiagnosticCommand,
    /// A test of the class library asked for it.
    WhiteBox,
}

impl Cause {
    /// How the log and the beans call it.
    pub fn text(self) -> &'static str {
        match self {
            Self::AllocationFailure => "Allocation Failure",
            Self::SystemGc => "System.gc()",
            Self::Stress => "Allocation Stress",
            Self::MetadataThreshold => "Metadata GC Threshold",
            Self::DiagnosticCommand => "Diagnostic Command",
            Self::WhiteBox => "WhiteBox Initiated Full GC",
        }
    }
}

/// Takes a line for the log: its tags, and what makes the text if it is wanted.
pub type Log = fn(&str, &dyn Fn() -> String);

/// How a heap is made.
#[derive(Debug)]
pub struct Options {
    /// `-Xms`: bytes at first; 0: 1/64 of the host's memory, or less than the maximum.
    pub initial: usize,
    /// `-Xmx`: bytes at most; 0: 1/4 of the host's memory.
    pub maximum: usize,
    /// `-Xmn`: bytes of the young part; 0: a third.
    pub young: usize,
    /// `-XX:SoftRefLRUPolicyMSPerMB`: how long an unused soft reference lives for each free megabyte.
    pub soft_ms_per_mb: u64,
    /// Checks the whole heap before and after each collection.
    pub verify: bool,
    /// Collects at every so-manieth allocation, alternating between young and full; 0: only when there is no room.
    pub stress: u32,
    /// Takes the lines of `-Xlog:gc*`.
    pub log: Option<Log>,
}

impl Default for Options {
    fn default() -> Self {
        Self { initial: 0, maximum: 0, young: 0, soft_ms_per_mb: 1000, verify: false, stress: 0, log: None }
    }
}

/// Where the collector finds the fields of `java.lang.ref.Reference` and `SoftReference`: byte offsets in their instances.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceFields {
    /// `Reference.referent`
    pub referent: usize,
    /// `Reference.next`: not null once the reference is not active any more.
    pub next: usize,
    /// `Reference.discovered`: the next in the pending list.
    pub discovered: usize,
    /// `SoftReference.timestamp`: when it was last used, by `SoftReference.clock`.
    pub timestamp: usize,
}

/// Why there is no heap.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// The address range is in use, or the host refuses so much address space.
    #[error("cannot reserve the Java heap's 32 GiB of address space: {0}; raise `ulimit -v`")]
    Reserve(#[from] std::io::Error),
    /// A process has one heap at a time.
    #[error("there is a Java heap in this process already")]
    InUse,
    /// Sizes do not fit together.
    #[error("{0}")]
    Sizes(String),
}

/// Figures about the collections so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Collections of young space.
    pub young_count: u64,
    /// Collections of everything.
    pub full_count: u64,
    /// Young collections that found no place for all survivors, so that a full one followed.
    pub overflow_count: u64,
    /// Nanoseconds spent in young collections.
    pub young_ns: u64,
    /// Nanoseconds spent in full collections.
    pub full_ns: u64,
    /// The longest pause, in nanoseconds.
    pub pause_ns_max: u64,
}

/// The heap. All its methods may be called from any thread; those that take [`Roots`] only while all threads stand still.
#[derive(Debug)]
pub struct Heap {
    options: Options,
    clock: Clock,
    old_start: usize,
    /// End of the address range of old space.
    old_end: usize,
    old_initial: usize,
    eden_start: usize,
    survivors: [usize; 2],
    survivor_size: usize,
    young_initial: usize,
    young_max: usize,
    old_top: AtomicUsize,
    /// Up to here old space may be filled before it is collected.
    old_limit: AtomicUsize,
    eden_top: AtomicUsize,
    eden_end: AtomicUsize,
    collections: AtomicU32,
    /// Allocations until the next collection, if that is asked for.
    stress_left: AtomicI64,
    used_after: AtomicUsize,
    state: Mutex<State>,
}

/// What only the collector needs, and who holds the lock.
#[derive(Debug, Default)]
struct State {
    /// Which of the survivor spaces is in use, and how far it is filled.
    from: usize,
    from_top: usize,
    fields: Option<ReferenceFields>,
    /// The first of the references that wait for the reference handler.
    pending: Reference,
    /// Times that an object survives before it is promoted.
    tenure: u64,
    /// Bytes promoted by a young collection, averaged with a margin.
    promoted_average: usize,
    /// Live young objects reach into the survivor spaces after a full collection: only full ones until they do not.
    crowded: bool,
    statistics: Statistics,
    history: usage::History,
}

static IN_USE: AtomicBool = AtomicBool::new(false);

impl Drop for Heap {
    fn drop(&mut self) {
        for (start, end) in [(self.old_start, self.old_end), (self.eden_start, HEAP_BASE + HEAP_RESERVED)] {
            // SAFETY: whoever had references to objects borrowed from the virtual machine, which is gone. Should the host refuse, memory stays in use.
            let _ = unsafe { machine::sys::discard_at(start, end - start) };
            // SAFETY: as above.
            unsafe { tables::cards(start, end) }.fill(0);
        }
        IN_USE.store(false, Ordering::Release);
    }
}

impl Heap {
    /// Makes the heap of this process.
    ///
    /// # Errors
    /// If there is one already, the address space is not to be had, or the sizes make no sense.
    pub fn new(options: Options) -> Result<Self, HeapError> {
        let memory = machine::sys::physical_memory();
        let limit = HEAP_RESERVED - 16 * UNIT;
        let maximum = if options.maximum == 0 { (memory / 4).clamp(16 << 20, limit) } else { options.maximum };
        if maximum < MINIMUM {
            return Err(HeapError::Sizes("Too small maximum heap".into()));
        }
        if maximum > limit {
            return Err(HeapError::Sizes(format!("The maximum heap size is {} MiB", limit >> 20)));
        }
        let maximum = maximum.next_multiple_of(2 * UNIT);
        if options.initial > maximum {
            return Err(HeapError::Sizes("Initial heap size set to a larger value than the maximum heap size".into()));
        }
        let initial =
            if options.initial == 0 { (memory / 64).max(8 << 20).min(maximum) } else { options.initial.max(MINIMUM) };
        let bounded = |bytes: usize| bytes.clamp(10 * UNIT, maximum - 10 * UNIT).next_multiple_of(UNIT);
        let young_max = bounded(if options.young == 0 { maximum / 3 } else { options.young });
        let young_initial = if options.young == 0 { bounded(initial / 3).min(young_max) } else { young_max };
        let old_max = maximum - young_max.min(maximum - UNIT);
        let old_initial = initial.saturating_sub(young_initial).next_multiple_of(UNIT).clamp(UNIT, old_max);

        reserve_once()?;
        if IN_USE.swap(true, Ordering::AcqRel) {
            return Err(HeapError::InUse);
        }
        let survivor_size = (young_max / 10).next_multiple_of(UNIT);
        let end = HEAP_BASE + HEAP_RESERVED - UNIT;
        let old_start = HEAP_BASE + UNIT;
        let heap = Self {
            clock: Clock::new(),
            old_start,
            old_end: old_start + old_max,
            old_initial,
            eden_start: end - 2 * survivor_size - (young_max - 2 * survivor_size),
            survivors: [end - 2 * survivor_size, end - survivor_size],
            survivor_size,
            young_initial,
            young_max,
            old_top: AtomicUsize::new(old_start),
            old_limit: AtomicUsize::new(old_start + old_initial),
            eden_top: AtomicUsize::new(0),
            eden_end: AtomicUsize::new(0),
            collections: AtomicU32::new(0),
            stress_left: AtomicI64::new(i64::from(options.stress)),
            used_after: AtomicUsize::new(0),
            state: Mutex::new(State { from_top: end - 2 * survivor_size, tenure: 15, ..State::default() }),
            options,
        };
        heap.eden_top.store(heap.eden_start, Ordering::Relaxed);
        heap.eden_end.store(heap.eden_start + heap.eden_size(young_initial), Ordering::Relaxed);
        heap.log("gc", || "Using Serial".into());
        heap.log("gc,init", || format!("Memory: {}M", memory >> 20));
        heap.log("gc,init", || "Compressed Oops: Enabled (Zero based)".into());
        heap.log("gc,init", || format!("Heap Min Capacity: {}M", MINIMUM >> 20));
        heap.log("gc,init", || format!("Heap Initial Capacity: {}M", initial >> 20));
        heap.log("gc,init", || format!("Heap Max Capacity: {}M", maximum >> 20));
        Ok(heap)
    }

    fn log(&self, tags: &str, line: impl Fn() -> String) {
        if let Some(log) = self.options.log {
            log(tags, &line);
        }
    }

    /// Bytes of eden if young space has this capacity.
    fn eden_size(&self, young: usize) -> usize {
        (young / 10 * 8).next_multiple_of(UNIT).min(self.young_max - 2 * self.survivor_size)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the fields of references are, once their classes are linked. Until then no instance of them may be in the heap.
    pub fn set_reference_fields(&self, fields: ReferenceFields) {
        self.state().fields = Some(fields);
    }

    /// Allocates an instance of a class, all fields zero.
    ///
    /// # Errors
    /// If there is no room.
    #[inline(always)]
    pub fn instance(&self, buffer: &mut Buffer, class: u32) -> Result<Reference, Refusal> {
        let size = Shape::of(class).size as usize;
        match buffer.instance(class, size) {
            Some(object) => Ok(object),
            None => self.slow(buffer, class, 0, size),
        }
    }

    /// Allocates an array, all elements zero.
    ///
    /// # Errors
    /// If there is no room, or no array can be so long.
    #[inline(always)]
    pub fn array(&self, buffer: &mut Buffer, class: u32, length: u32) -> Result<Reference, Refusal> {
        let shape = Shape::of(class);
        let shift = if shape.kind == Kind::ReferenceArray { 2 } else { shape.element_shift };
        let size = array_size(length, shift);
        match buffer.take(size) {
            Some(address) => {
                let object = Reference::at(address);
                object.u32(CLASS_OFFSET).store(class, Ordering::Relaxed);
                object.u32(LENGTH_OFFSET).store(length, Ordering::Relaxed);
                Ok(object)
            }
            None if length > LENGTH_MAX => Err(Refusal::TooLong),
            None => self.slow(buffer, class, length, size),
        }
    }

    /// Allocates the mirror of `represented`, an instance of `class` (`java.lang.Class`), all fields zero, in old space; [`Shape::mirror`] is not set.
    ///
    /// # Errors
    /// If there is no room.
    pub fn mirror(&self, class: u32, represented: u32) -> Result<Reference, Refusal> {
        let size = Shape::of(represented).mirror_size as usize;
        let address = self.allocate_old(size, true).ok_or_else(|| Refusal::Full(self.full(size)))?;
        let object = Reference::at(address);
        object.u32(CLASS_OFFSET).store(class, Ordering::Relaxed);
        object.u32(MIRROR_CLASS_OFFSET).store(represented, Ordering::Relaxed);
        Ok(object)
    }

    fn full(&self, size: usize) -> Full {
        Full { size, collections: self.collections.load(Ordering::Relaxed) }
    }

    #[inline(never)]
    fn slow(&self, buffer: &mut Buffer, class: u32, length: u32, size: usize) -> Result<Reference, Refusal> {
        let address = self.allocate(buffer, size).ok_or_else(|| Refusal::Full(self.full(size)))?;
        let object = Reference::at(address);
        object.u32(CLASS_OFFSET).store(class, Ordering::Relaxed);
        if matches!(Shape::of(class).kind, Kind::ReferenceArray | Kind::PrimitiveArray) {
            object.u32(LENGTH_OFFSET).store(length, Ordering::Relaxed);
        }
        Ok(object)
    }

    /// Zeroed bytes, from a new buffer, from eden itself, or from old space if there are very many.
    fn allocate(&self, buffer: &mut Buffer, size: usize) -> Option<usize> {
        if self.options.stress != 0 {
            // Without buffers every allocation is counted.
            if self.stress_left.fetch_sub(1, Ordering::Relaxed) <= 0 {
                return None;
            }
            return if self.is_large(size) {
                self.allocate_old(size, false)
            } else {
                self.allocate_eden(size, size).map(|range| range.0)
            };
        }
        if self.is_large(size) {
            return self.allocate_old(size, false);
        }
        let wanted = BUFFER.min((self.eden_capacity() / 64).next_multiple_of(8));
        // A buffer with much room left is kept, and large objects are allocated beside it.
        if buffer.end - buffer.top > wanted / 32 || size > wanted / 4 {
            return self.allocate_eden(size, size).map(|range| range.0);
        }
        let (start, end) = self.allocate_eden(size, wanted)?;
        *buffer = Buffer { top: start + size, end, start };
        Some(start)
    }

    fn eden_capacity(&self) -> usize {
        self.eden_end.load(Ordering::Relaxed) - self.eden_start
    }

    /// Whether an object of this size is old from the beginning.
    fn is_large(&self, size: usize) -> bool {
        size > self.eden_capacity() / 2
    }

    /// Zeroed bytes of eden, at least and at most so many.
    fn allocate_eden(&self, least: usize, most: usize) -> Option<(usize, usize)> {
        let limit = self.eden_end.load(Ordering::Relaxed);
        let mut top = self.eden_top.load(Ordering::Relaxed);
        loop {
            let room = limit.saturating_sub(top);
            if room < least {
                return None;
            }
            let end = top + room.min(most);
            match self.eden_top.compare_exchange_weak(top, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    // SAFETY: the range is in eden, and nobody else got it.
                    unsafe { zero(top, end) };
                    return Some((top, end));
                }
                Err(now) => top = now,
            }
        }
    }

    /// Zeroed bytes of old space.
    fn allocate_old(&self, size: usize, over_limit: bool) -> Option<usize> {
        let _state = self.state();
        let top = self.old_top.load(Ordering::Relaxed);
        let limit = if over_limit { self.old_end } else { self.old_limit.load(Ordering::Relaxed) };
        if size > limit.saturating_sub(top) {
            return None;
        }
        self.old_top.store(top + size, Ordering::Relaxed);
        tables::record_start(top, size);
        // SAFETY: the range was free, and is ours now.
        unsafe { zero(top, top + size) };
        Some(top)
    }

    /// Bytes that objects take, dead ones included.
    pub fn used(&self) -> usize {
        let from_used = {
            let state = self.state();
            state.from_top - self.survivors[state.from]
        };
        self.old_top.load(Ordering::Relaxed) - self.old_start + self.eden_top.load(Ordering::Relaxed) - self.eden_start
            + from_used
    }

    /// Bytes that may be used at present: `Runtime.totalMemory`.
    pub fn capacity(&self) -> usize {
        let old = self.old_limit.load(Ordering::Relaxed).max(self.old_top.load(Ordering::Relaxed)) - self.old_start;
        old + self.eden_capacity() / 8 * 9
    }

    /// Bytes that may be used at most: `Runtime.maxMemory`.
    pub fn maximum(&self) -> usize {
        self.old_end - self.old_start + self.young_max - self.survivor_size
    }

    /// Whether an object is in young space.
    #[inline]
    pub fn is_young(&self, object: Reference) -> bool {
        object.address() >= self.eden_start
    }

    /// How many collections there were.
    pub fn collections(&self) -> u32 {
        self.collections.load(Ordering::Relaxed)
    }

    /// Figures about the collections so far.
    pub fn statistics(&self) -> Statistics {
        self.state().statistics
    }

    /// Whether references wait for the reference handler.
    pub fn has_pending(&self) -> bool {
        !self.state().pending.is_null()
    }

    /// Takes the list of references that wait, linked by `discovered`: `Reference.getAndClearReferencePendingList`.
    pub fn take_pending(&self) -> Reference {
        std::mem::take(&mut self.state().pending)
    }
}

/// Clears memory.
///
/// # Safety
/// The range is in the heap, and belongs to the caller alone.
#[inline(always)]
unsafe fn zero(start: usize, end: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start).write_bytes(0, end - start) };
}

/// Reserves the address space of the heap and its tables, for the life of the process.
pub(crate) fn reserve_once() -> std::io::Result<()> {
    static RESERVED: OnceLock<Result<(), std::io::ErrorKind>> = OnceLock::new();
    RESERVED.get_or_init(|| reserve().map_err(|error| error.kind())).map_err(std::io::Error::from)
}

fn reserve() -> std::io::Result<()> {
    machine::sys::reserve_at(HEAP_BASE, HEAP_RESERVED)?;
    // SAFETY: just reserved, and nobody has a reference to it.
    unsafe { machine::sys::forbid_at(HEAP_BASE, PAGE) }?;
    tables::reserve()
}
