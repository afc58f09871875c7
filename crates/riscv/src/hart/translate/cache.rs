//! The code cache: all units of a machine, shared by its harts.
//!
//! ```text
//! arena:  stubs | unit | unit | unit | ...          by offset; units are never moved
//! units:  key (physical, or virtual in user machines) --> unit: code, instructions, marks, exits, incoming links
//! ```
//!
//! Translated code finds its way without the cache: by links and by each hart's jump cache. The lock is for slow paths: translating, linking,
//! invalidating.
//!
//! **Invalidation** takes a unit out of the map, takes back the links to it, and patches its entry: who still knows it, by a jump cache or a block, finds out
//! there ([`CodeCache::gone`]). So nobody forgets anything else. A hart that is inside the unit goes on until its next exit, as the architecture allows until its own
//! `fence.i`. A region takes the place of a block in the same way: the block's entry jumps to it.
//!
//! **Reuse.** Code memory is used again only all at once, when it is full ([`CodeCache::flush`]) and no hart is in a slice. That begins a new *generation*, in
//! which harts forget their jump caches and their blocks' units.
//!
//! Invariants: a unit's code and its exits live until the next flush, even if it is invalid; a hart is inside translated code, or holds addresses of
//! it, only within a slice of the current flush count ([`CodeCache::begin`]).

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codegen::arena::{Arena, ArenaError, Entry};
use machine::memory::GuestMemory;
use machine::memory::code::{Changed, Maker};

use super::emit::{self, Emitted, Exit, Kind, Mark};
use super::gather::{self, Piece, Source};
use super::mapping::Mapping;
use super::options::Options;
use super::regions::{self, Region};
use super::trampoline::{self, Stubs};
use crate::hart::block::{AddressHasher, ByPage, chosen};

/// Bytes of code that a unit takes on average at least: bounds their number.
const UNIT_BYTES_MIN: usize = 128;
/// Where the next cache of this process, or of a child of it, begins to count: no two have a generation in common.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// A jump that leads to a unit.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    /// Where it is in the arena.
    site: u32,
    /// Where it led before.
    unlinked: u32,
}

/// A translation.
pub(crate) struct Unit {
    /// Offset in the arena.
    start: u32,
    end: u32,
    /// Where it was first executed.
    pc: u64,
    /// Where it is entered.
    key: u64,
    /// Key minus place.
    origin: u64,
    kind: Kind,
    /// Its pieces: where each begins, and how many instructions it has.
    pieces: Box<[(u64, u32)]>,
    /// The bits of all their instructions.
    bits: Box<[u32]>,
    /// Its own, if it has one.
    mapping: Option<Box<Mapping>>,
    marks: Box<[Mark]>,
    /// The code holds their addresses.
    _exits: Box<[Box<Exit>]>,
    incoming: Vec<Incoming>,
}

impl Unit {
    /// What key and bits each of its instructions has.
    pub(crate) fn instructions(&self) -> impl Iterator<Item = (u64, u32)> {
        let begins = self.pieces.iter().flat_map(|&(place, count)| (0..count).map(move |n| (n == 0).then_some(place)));
        begins.zip(&self.bits).scan(0, |at, (begin, &bits)| {
            if let Some(place) = begin {
                *at = self.origin.wrapping_add(place);
            }
            let here = *at;
            *at = here.wrapping_add(if bits & 3 == 3 { 4 } else { 2 });
            Some((here, bits))
        })
    }

    fn mapping(&self, flat: bool) -> &Mapping {
        self.mapping.as_deref().unwrap_or(Mapping::at_links(flat))
    }
}

struct Inner {
    arena: Arena,
    units: HashMap<u64, Box<Unit>, BuildHasherDefault<AddressHasher>>,
    /// Keys of the units that have instructions in a page, by its number.
    pages: ByPage<Vec<u64>>,
    /// Invalid, but some hart may be inside.
    #[expect(clippy::vec_box, reason = "others hold their addresses")]
    dead: Vec<Box<Unit>>,
    /// System machines: the pages that units come from.
    maker: Maker,
    /// Where the stubs end.
    floor: u32,
}

/// What tools that look at the host's processor want to know of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitInfo {
    /// Host address of its code.
    pub host: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// The guest address that it was first executed at.
    pub pc: u64,
    /// What kind of unit it is.
    pub tier: &'static str,
}

/// Counts of what the cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Units translated.
    pub units: u64,
    /// Those of them that are regions.
    pub regions: u64,
    /// Bytes of code emitted.
    pub bytes: u64,
    /// Units invalidated since their instructions changed.
    pub invalidated: u64,
    /// Times that all was dropped since the arena was full.
    pub flushes: u64,
}

/// See the module.
pub struct CodeCache {
    pub(super) options: Options,
    /// User machines: where flat memory ends.
    flat: Option<u64>,
    stubs: Stubs,
    /// Host address of the arena's executable view.
    base: u64,
    /// Offset of [`Stubs::gone`].
    gone_stub: u32,
    generation: AtomicU64,
    /// Harts inside a slice.
    running: AtomicU32,
    flushing: AtomicBool,
    /// All units since the last flush by rising offset, for signal handlers; the first `published` are valid.
    index: Box<[AtomicPtr<Unit>]>,
    published: AtomicUsize,
    units_count: AtomicU64,
    regions_made: AtomicU64,
    bytes_count: AtomicU64,
    invalidated_count: AtomicU64,
    flushes_count: AtomicU64,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCache")
            .field("options", &self.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl CodeCache {
    /// An empty cache for a system machine.
    ///
    /// # Errors
    /// The host has no memory for code.
    pub fn new(options: Options) -> Result<Arc<Self>, ArenaError> {
        Self::of(options, None)
    }

    /// An empty cache for a program, whose memory is flat and ends at `size`: see [`UserMemory`](crate::hart::user::UserMemory).
    ///
    /// # Errors
    /// The host has no memory for code.
    pub fn flat(options: Options, size: u64) -> Result<Arc<Self>, ArenaError> {
        Self::of(options, Some(size))
    }

    fn of(options: Options, flat: Option<u64>) -> Result<Arc<Self>, ArenaError> {
        let mut arena = Arena::new(options.code_bytes)?;
        let (code, offsets) = trampoline::emit(Mapping::at_links(flat.is_some()), super::call_out);
        let start = arena.allocate(&code).ok_or(ArenaError::Size(options.code_bytes))?;
        let base = arena.execute_base() as u64;
        let at = |offset: u64| base + u64::from(start) + offset;
        let stubs = Stubs {
            enter: at(offsets.enter),
            leave: at(offsets.leave),
            leave_to: at(offsets.leave_to),
            call_out: at(offsets.call_out),
            leave_written: at(offsets.leave_written),
            gone: at(offsets.gone),
        };
        let floor = arena.used();
        // The host gives zeroes without touching them: programs start often.
        // SAFETY: zeroes are null pointers.
        let index = unsafe { Box::new_zeroed_slice(options.code_bytes / UNIT_BYTES_MIN + 1).assume_init() };
        let inner = Inner {
            arena,
            units: HashMap::default(),
            pages: HashMap::default(),
            dead: Vec::new(),
            maker: Maker::default(),
            floor,
        };
        let cache = Arc::new(Self {
            options,
            flat,
            stubs,
            base,
            gone_stub: start + u32::try_from(offsets.gone).unwrap_or(0),
            generation: AtomicU64::new(GENERATIONS.fetch_add(1 << 40, Ordering::Relaxed)),
            running: AtomicU32::new(0),
            flushing: AtomicBool::new(false),
            index,
            published: AtomicUsize::new(0),
            units_count: AtomicU64::new(0),
            regions_made: AtomicU64::new(0),
            bytes_count: AtomicU64::new(0),
            invalidated_count: AtomicU64::new(0),
            flushes_count: AtomicU64::new(0),
            inner: Mutex::new(inner),
        });
        Ok(cache)
    }

    /// What it may do.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether it is a user machine's.
    pub(crate) fn is_flat(&self) -> bool {
        self.flat.is_some()
    }

    /// User machines: where flat memory ends.
    pub(crate) fn flat_size(&self) -> Option<u64> {
        self.flat
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            units: self.units_count.load(Ordering::Relaxed),
            regions: self.regions_made.load(Ordering::Relaxed),
            bytes: self.bytes_count.load(Ordering::Relaxed),
            invalidated: self.invalidated_count.load(Ordering::Relaxed),
            flushes: self.flushes_count.load(Ordering::Relaxed),
        }
    }

    /// How many regions there are.
    #[cfg(test)]
    pub(super) fn regions_count(&self) -> usize {
        self.lock().units.values().filter(|unit| unit.kind == Kind::Region).count()
    }

    pub(super) fn stubs(&self) -> &Stubs {
        &self.stubs
    }

    /// Changes whenever addresses of units have become wrong.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hart begins a slice: it may now hold addresses of units of the current generation.
    pub(crate) fn begin(&self) {
        loop {
            self.running.fetch_add(1, Ordering::SeqCst);
            if !self.flushing.load(Ordering::SeqCst) {
                return;
            }
            self.running.fetch_sub(1, Ordering::SeqCst);
            while self.flushing.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }

    /// A hart ends its slice.
    pub(crate) fn end(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Drops everything. The caller is not in a slice.
    pub(crate) fn flush(&self) {
        // One at a time; who comes second finds it done.
        if self.flushing.swap(true, Ordering::SeqCst) {
            while self.flushing.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            return;
        }
        while self.running.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        {
            let mut inner = self.lock();
            self.published.store(0, Ordering::SeqCst);
            inner.units.clear();
            inner.pages.clear();
            inner.dead.clear();
            inner.maker.clear();
            let floor = inner.floor;
            inner.arena.reset(floor);
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.flushes_count.fetch_add(1, Ordering::Relaxed);
        self.flushing.store(false, Ordering::SeqCst);
    }

    /// The units that there are, in no order.
    #[must_use]
    pub fn units(&self) -> Vec<UnitInfo> {
        let inner = self.lock();
        let info = |unit: &Unit| UnitInfo {
            host: self.base + u64::from(unit.start),
            bytes: u64::from(unit.end - unit.start),
            pc: unit.pc,
            tier: if unit.pieces.len() > 1 || unit.mapping.is_some() { "region" } else { "block" },
        };
        inner.units.values().chain(&inner.dead).map(|unit| info(unit)).collect()
    }

    /// Translates the block with `key`, which is at `place` of `source` and executed at `pc`. `watch` is called before the source is read.
    pub(super) fn translate(
        &self,
        key: u64,
        pc: u64,
        place: u64,
        source: &impl Source,
        watch: impl FnOnce(&mut Maker),
    ) -> Result<u64, Untranslated> {
        let mut inner = self.lock();
        if let Some(unit) = inner.units.get(&key) {
            return Ok(self.base + u64::from(unit.start));
        }
        watch(&mut inner.maker);
        let piece = gather::piece(source, place).ok_or(Untranslated::Impossible)?;
        self.publish(&mut inner, (key, pc), place, Kind::Block, vec![piece], *Mapping::at_links(self.is_flat()))
    }

    /// Makes a region around the block with `key`, which is at `place` of `source`. `watch` is called before the source is read.
    pub(super) fn translate_region(&self, key: u64, place: u64, source: &impl Source, watch: impl FnOnce(&mut Maker)) {
        let mut inner = self.lock();
        let Some(pc) = inner.units.get(&key).filter(|unit| unit.kind == Kind::Block).map(|unit| unit.pc) else {
            return;
        };
        watch(&mut inner.maker);
        let Some(Region { pieces, mapping }) = regions::around(source, place, self.is_flat()) else {
            // Nothing better is to be had: not to be tried again.
            if let Some(unit) = inner.units.get_mut(&key) {
                unit.kind = Kind::Region;
            }
            return;
        };
        if self.publish(&mut inner, (key, pc), place, Kind::Region, pieces, mapping).is_ok() {
            self.regions_made.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn publish(
        &self,
        inner: &mut Inner,
        (key, pc): (u64, u64),
        place: u64,
        kind: Kind,
        pieces: Vec<Piece>,
        mapping: Mapping,
    ) -> Result<u64, Untranslated> {
        let emitted =
            emit::emit(&pieces, place, kind, mapping, self.flat, &self.options).ok_or(Untranslated::Impossible)?;
        let Emitted { code, marks, mut exits, mapping } = emitted;
        let published = self.published.load(Ordering::Relaxed);
        let (Some(slot), Some(start)) = (self.index.get(published), inner.arena.allocate(&code)) else {
            return Err(Untranslated::Full);
        };
        for exit in &mut exits {
            exit.relocate(start);
        }
        let end = start + u32::try_from(code.len()).unwrap_or(0);
        let origin = key.wrapping_sub(place);
        let mut unit = Box::new(Unit {
            start,
            end,
            pc,
            key,
            origin,
            kind,
            pieces: pieces.iter().map(|piece| (piece.place, u32::try_from(piece.lines.len()).unwrap_or(0))).collect(),
            bits: pieces.iter().flat_map(|piece| &piece.lines).map(|line| line.bits).collect(),
            mapping: (mapping != *Mapping::at_links(self.is_flat())).then(|| Box::new(mapping)),
            marks: marks.into_boxed_slice(),
            _exits: exits.into_boxed_slice(),
            incoming: Vec::new(),
        });
        if let Some(mut old) = inner.units.remove(&key) {
            unit.incoming = std::mem::take(&mut old.incoming);
            for incoming in &unit.incoming {
                inner.arena.patch_jump(incoming.site, start);
            }
            inner.arena.patch_entry(old.start, Entry::Jump(start));
            inner.dead.push(old);
        }
        slot.store((&raw const *unit).cast_mut(), Ordering::Release);
        self.published.store(published + 1, Ordering::Release);
        self.units_count.fetch_add(1, Ordering::Relaxed);
        self.bytes_count.fetch_add(code.len() as u64, Ordering::Relaxed);
        let mut last = None;
        for (at, _) in unit.instructions() {
            if last != Some(at >> 12) {
                last = Some(at >> 12);
                inner.pages.entry(at >> 12).or_default().push(key);
            }
        }
        inner.units.insert(key, unit);
        Ok(self.base + u64::from(start))
    }

    /// Links the jump at `site` to the unit with `key`, unless that is gone.
    pub(crate) fn link(&self, site: u32, key: u64) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(unit) = inner.units.get_mut(&key) else { return };
        if unit.incoming.iter().any(|incoming| incoming.site == site) {
            return;
        }
        let unlinked = inner.arena.jump_target(site);
        inner.arena.patch_jump(site, unit.start);
        unit.incoming.push(Incoming { site, unlinked });
    }

    fn kill(&self, inner: &mut Inner, key: u64) {
        let Some(mut unit) = inner.units.remove(&key) else { return };
        for Incoming { site, unlinked } in unit.incoming.drain(..) {
            inner.arena.patch_jump(site, unlinked);
        }
        inner.arena.patch_entry(unit.start, Entry::Call(self.gone_stub));
        inner.dead.push(unit);
        self.invalidated_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Invalidates all units with instructions in the page of `key`.
    pub fn invalidate_page(&self, key: u64) {
        self.invalidate_range(key & !0xfff, 0x1000);
    }

    /// Invalidates all units with instructions in the pages of a range of keys: physical addresses, or virtual ones in user machines.
    pub fn invalidate_range(&self, start: u64, length: u64) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (first, last) = (start >> 12, start.saturating_add(length.saturating_sub(1)) >> 12);
        for page in &chosen(&inner.pages, &(first..=last)) {
            for key in inner.pages.remove(page).unwrap_or_default() {
                self.kill(inner, key);
            }
        }
    }

    /// A fence of instructions of a program: invalidates the units with instructions in `pages` that are no longer those of `source`.
    pub(in crate::hart) fn drop_different(&self, source: &impl Source, pages: &RangeInclusive<u64>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let is_different = |unit: &Unit| unit.instructions().any(|(at, bits)| source.bits(at) != Some(bits));
        for page in chosen(&inner.pages, pages) {
            let mut keys = inner.pages.remove(&page).unwrap_or_default();
            keys.retain(|key| {
                let stays = inner.units.get(key).map(|unit| !is_different(unit));
                if stays == Some(false) {
                    self.kill(inner, *key);
                }
                stays == Some(true)
            });
            if !keys.is_empty() {
                inner.pages.insert(page, keys);
            }
        }
    }

    /// A fence of instructions: invalidates the units of pages that have been written since they were translated.
    pub(crate) fn drop_changed(&self, memory: &GuestMemory) {
        let changed = {
            let mut inner = self.lock();
            if inner.maker.is_current(memory.code()) {
                return;
            }
            inner.maker.changed(memory.code())
        };
        match changed {
            Changed::Pages(pages) => {
                for page in pages {
                    self.invalidate_page(memory.page_address(page).0);
                }
            }
            Changed::All => self.invalidate_range(0, u64::MAX),
        }
    }

    /// The unit that was published at a host address, valid or not, and the offset in it. Safe in signal handlers, on a thread whose hart is in a slice.
    fn unit_at(&self, host: u64) -> Option<(&Unit, u32)> {
        let offset = u32::try_from(host.checked_sub(self.base)?).ok()?;
        let published = self.index.get(..self.published.load(Ordering::Acquire))?;
        let at = |slot: &AtomicPtr<Unit>| {
            // SAFETY: published units live until the next flush, which waits for the caller's hart.
            unsafe { &*slot.load(Ordering::Acquire) }
        };
        let after = published.partition_point(|slot| at(slot).start <= offset);
        let unit = at(published.get(after.checked_sub(1)?)?);
        Some((unit, offset.checked_sub(unit.start).filter(|_| offset < unit.end)?))
    }

    /// The key and place of the invalid unit whose entry has called the stub for that, if what translated code has left with is the address behind such a call.
    pub(super) fn gone(&self, exit: u64) -> Option<(u64, u64)> {
        if exit.wrapping_sub(self.base) >= self.options.code_bytes as u64 {
            return None;
        }
        let (unit, _) = self.unit_at(exit)?;
        Some((unit.key, unit.key.wrapping_sub(unit.origin)))
    }

    /// What the guest was doing at a host address. Safe in signal handlers, on a thread whose hart is in a slice.
    pub(super) fn locate(&self, host: u64) -> Option<(Mark, &Mapping)> {
        let (unit, inside) = self.unit_at(host)?;
        let after = unit.marks.partition_point(|mark| mark.host <= inside);
        unit.marks.get(after.checked_sub(1)?).map(|mark| (*mark, unit.mapping(self.is_flat())))
    }
}

/// Why there is no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untranslated {
    /// The first instruction cannot be translated.
    Impossible,
    /// There is no room: [`CodeCache::flush`].
    Full,
}
