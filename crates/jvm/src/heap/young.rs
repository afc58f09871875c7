//! Young collection: what lives is copied, to the empty survivor space or to old space.
//!
//! Cheney's order: the copies themselves are the list of what is still to be traced, in survivor space and behind the old end of old space, so that nothing
//! recurses. A copied object's mark word leads to its copy. If old space overflows, an object stays where it is, led to by itself, and a full
//! collection follows at once.

use std::sync::atomic::Ordering;

use super::references::{self, Discovered, Tracer};
use super::walk::{load, slots, slots_within};
use super::{Heap, Roots, Scope, State, tables};
use crate::object::{Kind, MARK_AGE_MAX, MARK_AGE_SHIFT, MARK_STATE, Reference, Shape};

const FORWARDED: u64 = 3;

struct Copier<'a> {
    young_start: usize,
    to_start: usize,
    to_top: usize,
    to_end: usize,
    to_scan: usize,
    old_top: usize,
    old_end: usize,
    old_scan: usize,
    tenure: u64,
    /// Bytes in survivor space by age.
    ages: [usize; 16],
    discovered: Discovered,
    /// Objects that found no place, their mark words, and how many of them were traced.
    stuck: Vec<(Reference, u64)>,
    stuck_traced: usize,
    heap: &'a Heap,
}

pub(super) fn collect(heap: &Heap, state: &mut State, soft_limit: i64, roots: &mut dyn Roots) {
    let to = 1 - state.from;
    let old_top = heap.old_top.load(Ordering::Relaxed);
    let mut copier = Copier {
        young_start: heap.eden_start,
        to_start: heap.survivors[to],
        to_top: heap.survivors[to],
        to_end: heap.survivors[to] + heap.survivor_size,
        to_scan: heap.survivors[to],
        old_top,
        old_end: heap.old_end,
        old_scan: old_top,
        tenure: state.tenure,
        ages: [0; 16],
        discovered: Discovered::new(state.fields, soft_limit),
        stuck: Vec::new(),
        stuck_traced: 0,
        heap,
    };
    copier.keep(&raw mut state.pending);
    copier.discovered.pending = state.pending;
    roots.strong(Scope::Young, &mut |slot| copier.keep(slot));
    copier.cards(old_top);
    copier.drain();
    references::process(&mut copier);
    copier.drain();
    state.pending = copier.discovered.pending;
    roots.weak(Scope::Young, &mut |slot| {
        if copier.lives(*slot) {
            copier.keep(slot);
        } else {
            *slot = Reference::NULL;
        }
    });
    copier.finish(old_top, to, state);
}

impl Copier<'_> {
    /// Whether the object is young and not a copy.
    #[inline(always)]
    fn is_collected(&self, address: usize) -> bool {
        address >= self.young_start && !(address >= self.to_start && address < self.to_end)
    }

    #[inline(always)]
    fn copy(&mut self, object: Reference) -> Reference {
        let mark = object.mark().load(Ordering::Relaxed);
        if mark & MARK_STATE == FORWARDED {
            #[allow(clippy::cast_possible_truncation, reason = "a host address")]
            return Reference::at((mark & !MARK_STATE) as usize);
        }
        self.copy_first(object, mark)
    }

    fn copy_first(&mut self, object: Reference, mark: u64) -> Reference {
        let size = object.size();
        let age = mark >> MARK_AGE_SHIFT & MARK_AGE_MAX;
        let survives = self.to_end - self.to_top >= size;
        let promotes = self.old_end - self.old_top >= size;
        let (target, mark) = if survives && (age < self.tenure || !promotes) {
            let age = (age + 1).min(MARK_AGE_MAX);
            #[allow(clippy::cast_possible_truncation, reason = "at most 15")]
            let index = age as usize;
            self.ages[index] += size;
            let target = self.to_top;
            self.to_top += size;
            (target, mark & !(MARK_AGE_MAX << MARK_AGE_SHIFT) | age << MARK_AGE_SHIFT)
        } else if promotes {
            let target = self.old_top;
            self.old_top += size;
            tables::record_start(target, size);
            (target, mark)
        } else {
            self.stuck.push((object, mark));
            object.mark().store(object.address() as u64 | FORWARDED, Ordering::Relaxed);
            return object;
        };
        // SAFETY: the object is in young space, the target is free memory of the same size elsewhere, and nobody else runs.
        unsafe {
            let from: *const u64 = std::ptr::with_exposed_provenance(object.address());
            let to: *mut u64 = std::ptr::with_exposed_provenance_mut(target);
            std::ptr::copy_nonoverlapping(from, to, size / 8);
            to.write(mark);
        }
        object.mark().store(target as u64 | FORWARDED, Ordering::Relaxed);
        Reference::at(target)
    }

    /// Updates a slot; whether it leads to a young object then.
    #[inline(always)]
    fn update(&mut self, slot: *mut Reference) -> bool {
        let object = load(slot);
        if object.is_null() || object.address() < self.young_start {
            return false;
        }
        if !self.is_collected(object.address()) {
            return true;
        }
        let copy = self.copy(object);
        // SAFETY: collectors get slots from roots and from shapes of objects: they are valid, and nobody else runs.
        unsafe { slot.write(copy) };
        copy.address() >= self.young_start
    }

    /// Traces an object's slots within a range. `old`: it is in old space, where cards tell of young objects.
    #[inline(always)]
    fn trace(&mut self, object: Reference, shape: &Shape, old: bool, range: Option<(usize, usize)>) {
        let (start, end) = range.unwrap_or((0, usize::MAX));
        let mut visit = |slot: *mut Reference| {
            if self.update(slot) && old {
                tables::card_mark(slot.addr());
            }
        };
        match range {
            None => slots(object, shape, &mut visit),
            Some((start, end)) => slots_within(object, shape, start, end, &mut visit),
        }
        if shape.kind as u8 >= Kind::SoftReference as u8
            && let Some(slot) = self.discovered.referent(object)
            && (start..end).contains(&slot.addr())
        {
            let referent = load(slot);
            if !self.lives(referent) && self.discovered.discover(object, shape.kind) {
                return;
            }
            if self.update(slot) && old {
                tables::card_mark(slot.addr());
            }
        }
    }

    /// Traces what marked cards have, of objects that were old before.
    fn cards(&mut self, old_top: usize) {
        let start = self.heap.old_start;
        let count = (old_top - start).div_ceil(tables::CARD);
        let mut card = 0;
        while card < count {
            let Some(next) = tables::next_card(start, card, count) else { break };
            card = next;
            let first = start + (card << tables::CARD_SHIFT);
            tables::clear_card(first);
            let last = (first + tables::CARD).min(old_top);
            let mut address = tables::object_covering(first);
            while address < last {
                let object = Reference::at(address);
                let shape = object.shape();
                self.trace(object, shape, true, Some((first, last)));
                address += object.size();
            }
            card += 1;
        }
    }

    fn finish(mut self, old_top: usize, to: usize, state: &mut State) {
        // References found a place in `discovered` lists only; nothing leads to the old copies any more.
        for (object, mark) in std::mem::take(&mut self.stuck) {
            object.mark().store(mark, Ordering::Relaxed);
            state.crowded = true;
        }
        let heap = self.heap;
        heap.old_top.store(self.old_top, Ordering::Relaxed);
        let promoted = self.old_top - old_top;
        // An average that follows quickly upwards.
        state.promoted_average = (state.promoted_average / 4 * 3 + promoted / 4).max(promoted) / 8 * 9;
        if state.crowded {
            state.statistics.overflow_count += 1;
            // The full collection that follows takes all of young space as it is.
            return;
        }
        state.from = to;
        state.from_top = self.to_top;
        heap.eden_top.store(heap.eden_start, Ordering::Relaxed);
        // So many ages as fill half of survivor space stay young.
        let mut bytes = 0;
        let mut tenure = 1;
        while tenure < MARK_AGE_MAX {
            #[allow(clippy::cast_possible_truncation, reason = "at most 15")]
            let index = tenure as usize;
            bytes += self.ages[index];
            if bytes > heap.survivor_size / 2 {
                break;
            }
            tenure += 1;
        }
        state.tenure = tenure;
    }
}

impl Tracer for Copier<'_> {
    fn lives(&self, object: Reference) -> bool {
        object.is_null()
            || !self.is_collected(object.address())
            || object.mark().load(Ordering::Relaxed) & MARK_STATE == FORWARDED
    }

    fn keep(&mut self, slot: *mut Reference) {
        self.update(slot);
    }

    fn drain(&mut self) {
        loop {
            if self.to_scan < self.to_top {
                let object = Reference::at(self.to_scan);
                let shape = object.shape();
                self.trace(object, shape, false, None);
                self.to_scan += object.size();
            } else if self.old_scan < self.old_top {
                let object = Reference::at(self.old_scan);
                let shape = object.shape();
                self.trace(object, shape, true, None);
                self.old_scan += object.size();
            } else if let Some(&(object, _)) = self.stuck.get(self.stuck_traced) {
                let shape = object.shape();
                self.trace(object, shape, false, None);
                self.stuck_traced += 1;
            } else {
                break;
            }
        }
    }

    fn discovered(&mut self) -> &mut Discovered {
        &mut self.discovered
    }
}
