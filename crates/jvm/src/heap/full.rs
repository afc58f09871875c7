//! Full collection: what lives is marked, then slid together.
//!
//! Marking sets a bit for each word of a live object, with an explicit stack. Counting these bits gives every object its place: the words that live before it. So
//! mark words stay untouched, and finding a place is a load and a count of bits. One pass over the bitmap then updates each live object's references and moves it.
//! Young objects go behind the old ones; if old space is full the rest slides together at the beginning of eden.
//!
//! Classes: a loader lives if its `ClassLoader` does, a mirror or an instance of one of its classes, or a loader whose classes name some of its own; then
//! the mirrors of all its classes live, and all that it owns. What has no such loader is unloaded when marking is done, before anything moves.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::collect::set_cards;
use super::references::{self, Discovered, Tracer};
use super::walk::{load, slots, slots_within};
use super::{Heap, Roots, Scope, State, tables};
use crate::object::{ELEMENTS_OFFSET, Kind, Reference};

/// Elements of an array that are traced at a time.
const PORTION: u32 = 1024;

struct Marker<'a> {
    stack: Vec<Reference>,
    /// Long arrays that are traced in portions, and from which element on.
    arrays: Vec<(Reference, u32)>,
    discovered: Discovered,
    /// Which loaders live, by number.
    loaders: Vec<bool>,
    /// Loaders whose property is to be visited.
    new_loaders: Vec<u32>,
    /// The mirrors of each loader's classes.
    mirrors: HashMap<u32, Vec<Reference>>,
    roots: &'a mut dyn Roots,
}

impl Marker<'_> {
    #[inline(always)]
    fn mark(&mut self, object: Reference) {
        if !object.is_null() && !tables::is_marked(object) {
            tables::mark(object, object.size());
            self.stack.push(object);
        }
    }

    fn loader(&mut self, loader: u32) {
        let index = loader as usize;
        if loader == 0 || self.loaders.get(index) == Some(&true) {
            return;
        }
        if index >= self.loaders.len() {
            self.loaders.resize(index + 1, false);
        }
        self.loaders[index] = true;
        self.new_loaders.push(loader);
    }

    fn trace(&mut self, object: Reference) {
        let shape = object.shape();
        if shape.loader != 0 {
            self.loader(shape.loader);
        }
        match shape.kind {
            Kind::ReferenceArray if object.length() > PORTION => self.arrays.push((object, 0)),
            Kind::Mirror => {
                self.loader(object.represented().loader);
                slots(object, shape, |slot| self.mark(load(slot)));
            }
            Kind::ClassLoader => {
                self.loader(self.roots.data_of(object));
                slots(object, shape, |slot| self.mark(load(slot)));
            }
            kind => {
                slots(object, shape, |slot| self.mark(load(slot)));
                if kind as u8 >= Kind::SoftReference as u8
                    && let Some(slot) = self.discovered.referent(object)
                {
                    let referent = load(slot);
                    if self.lives(referent) || !self.discovered.discover(object, kind) {
                        self.mark(referent);
                    }
                }
            }
        }
    }
}

impl Tracer for Marker<'_> {
    fn lives(&self, object: Reference) -> bool {
        object.is_null() || tables::is_marked(object)
    }

    fn keep(&mut self, slot: *mut Reference) {
        self.mark(load(slot));
    }

    fn drain(&mut self) {
        loop {
            if let Some(object) = self.stack.pop() {
                self.trace(object);
            } else if let Some((array, from)) = self.arrays.pop() {
                let to = from.saturating_add(PORTION).min(array.length());
                if to < array.length() {
                    self.arrays.push((array, to));
                }
                let address = |index: u32| array.address() + ELEMENTS_OFFSET + index as usize * 4;
                slots_within(array, array.shape(), address(from), address(to), |slot| self.mark(load(slot)));
            } else if let Some(loader) = self.new_loaders.pop() {
                let mut found = self.mirrors.remove(&loader).unwrap_or_default();
                let mut others = Vec::new();
                self.roots.loader(loader, &mut |slot| found.push(*slot), &mut |other| others.push(other));
                for object in found {
                    self.mark(object);
                }
                for other in others {
                    self.loader(other);
                }
            } else {
                break;
            }
        }
    }

    fn discovered(&mut self) -> &mut Discovered {
        &mut self.discovered
    }
}

/// Where live objects go.
struct Places {
    old_start: usize,
    eden_start: usize,
    /// Objects from here on stay young.
    split: usize,
    split_rank: u32,
}

impl Places {
    #[inline(always)]
    fn of(&self, object: Reference) -> Reference {
        let rank = tables::rank(object);
        Reference::at(if object.address() < self.split {
            self.old_start + rank as usize * 8
        } else {
            self.eden_start + (rank - self.split_rank) as usize * 8
        })
    }

    #[inline(always)]
    fn update(&self, slot: *mut Reference) {
        // SAFETY: a slot of a live object or root, and nobody else runs.
        unsafe {
            let object = slot.read();
            if !object.is_null() {
                slot.write(self.of(object));
            }
        }
    }
}

pub(super) fn collect(heap: &Heap, state: &mut State, soft_limit: i64, roots: &mut dyn Roots) {
    let lives = mark(state, soft_limit, roots);
    roots.unload(&|loader| lives.get(loader as usize) == Some(&true));

    // Live words: old space, then what is used of young space; all of that if the collection before has left objects behind.
    let old_top = heap.old_top.load(Ordering::Relaxed);
    let eden_top = heap.eden_top.load(Ordering::Relaxed);
    let young_end = heap.survivors[1] + heap.survivor_size;
    let young = if state.crowded {
        [(heap.eden_start, young_end), (young_end, young_end)]
    } else {
        [(heap.eden_start, eden_top), (heap.survivors[state.from], state.from_top)]
    };
    let old_words = tables::count_marks(heap.old_start, old_top, 0);
    let all_words = young.iter().fold(old_words, |words, &(start, end)| tables::count_marks(start, end, words));
    let mut places =
        Places { old_start: heap.old_start, eden_start: heap.eden_start, split: usize::MAX, split_rank: all_words };
    let room = (heap.old_end - heap.old_start) / 8;
    if all_words as usize > room {
        let mut words = old_words as usize;
        'search: for (start, end) in young {
            let mut at = start;
            while let Some(address) = tables::next_marked(at, end) {
                let size = Reference::at(address).size();
                if words + size / 8 > room {
                    places.split = address;
                    places.split_rank = tables::rank(Reference::at(address));
                    break 'search;
                }
                words += size / 8;
                at = address + size;
            }
        }
    }

    roots.strong(Scope::Full, &mut |slot| places.update(slot));
    roots.weak(Scope::Full, &mut |slot| places.update(slot));
    for loader in (0..).zip(&lives).filter_map(|(loader, &lives)| lives.then_some(loader)) {
        roots.loader(loader, &mut |slot| places.update(slot), &mut |_| {});
    }
    roots.classes(&mut |shape| {
        let mut mirror = Reference(shape.mirror.load(Ordering::Relaxed));
        places.update(&raw mut mirror);
        shape.mirror.store(mirror.0, Ordering::Relaxed);
    });
    places.update(&raw mut state.pending);

    let mut end = heap.old_start;
    let ranges = [(heap.old_start, old_top), young[0], young[1]];
    for (start, limit) in ranges {
        let mut at = start;
        while let Some(address) = tables::next_marked(at, limit) {
            let object = Reference::at(address);
            let size = object.size();
            let shape = object.shape();
            slots(object, shape, |slot| places.update(slot));
            if shape.kind as u8 >= Kind::SoftReference as u8
                && let Some(fields) = state.fields
            {
                places.update(references::slot(object, fields.referent));
            }
            let target = places.of(object).address();
            if target != address {
                // SAFETY: what was at the target has been moved already, as objects are visited by address and each goes downwards, young ones
                // into old space's free end.
                unsafe {
                    let from: *const u64 = std::ptr::with_exposed_provenance(address);
                    std::ptr::copy(from, std::ptr::with_exposed_provenance_mut(target), size / 8);
                }
            }
            if address < places.split {
                tables::record_start(target, size);
                end = target + size;
            }
            at = address + size;
        }
    }
    for (start, end) in ranges {
        tables::clear_marks(start, end);
    }
    heap.old_top.store(end, Ordering::Relaxed);
    let young_words = if places.split == usize::MAX { 0 } else { (all_words - places.split_rank) as usize };
    heap.eden_top.store(heap.eden_start + young_words * 8, Ordering::Relaxed);
    state.from_top = heap.survivors[state.from];
    set_cards(heap, young_words != 0);
}

/// Marks everything that lives; the loaders that do.
fn mark(state: &mut State, soft_limit: i64, roots: &mut dyn Roots) -> Vec<bool> {
    let mut marker = Marker {
        stack: Vec::new(),
        arrays: Vec::new(),
        discovered: Discovered::new(state.fields, soft_limit),
        loaders: Vec::new(),
        new_loaders: Vec::new(),
        mirrors: HashMap::new(),
        roots,
    };
    marker.mark(state.pending);
    marker.discovered.pending = state.pending;
    let mut found = Vec::new();
    marker.roots.strong(Scope::Full, &mut |slot| found.push(*slot));
    let mirrors = &mut marker.mirrors;
    marker.roots.classes(&mut |shape| {
        let mirror = Reference(shape.mirror.load(Ordering::Relaxed));
        if shape.loader == 0 {
            found.push(mirror);
        } else {
            mirrors.entry(shape.loader).or_default().push(mirror);
        }
    });
    let mut pinned = Vec::new();
    marker.roots.pinned(&mut |loader| pinned.push(loader));
    for loader in pinned {
        marker.loader(loader);
    }
    for object in found {
        marker.mark(object);
        marker.drain();
    }
    marker.drain();
    references::process(&mut marker);
    marker.drain();
    state.pending = marker.discovered.pending;
    let Marker { loaders, roots, .. } = marker;
    roots.weak(Scope::Full, &mut |slot| {
        if !slot.is_null() && !tables::is_marked(*slot) {
            *slot = Reference::NULL;
        }
    });
    loaders
}
