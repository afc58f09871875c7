//! Checks of the whole heap: every reference leads to an object, every old object is found, no card is missing. A violation is a bug of ours, so it is an
//! assertion.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::walk::{load, slots};
use super::{Heap, Roots, Scope, State, references, tables};
use crate::object::{CLASS_OFFSET, ELEMENTS_OFFSET, FIELDS_OFFSET, Kind, METADATA_RESERVED, Reference};

/// Checks the heap and the roots while all threads stand still.
///
/// # Panics
/// If something is wrong.
pub(super) fn verify(heap: &Heap, state: &State, roots: &mut dyn Roots) {
    let old_top = heap.old_top.load(Ordering::Relaxed);
    let eden_top = heap.eden_top.load(Ordering::Relaxed);
    let ranges = [(heap.old_start, old_top), (heap.eden_start, eden_top), (heap.survivors[state.from], state.from_top)];

    // Old space from end to end, and the start table.
    let mut at = heap.old_start;
    while at < old_top {
        let object = Reference::at(at);
        let size = check(object, &ranges, "old space");
        let end = at + size;
        assert!(end <= old_top, "the object at {at:#x} with {size} bytes is beyond the end of old space");
        let mut card = at.next_multiple_of(tables::CARD);
        while card < end {
            assert_eq!(
                tables::object_covering(card),
                at,
                "the start table does not lead from {card:#x} to the object there"
            );
            card += tables::CARD;
        }
        at = end;
    }

    let mut stack = Vec::new();
    let visit = |object: Reference, from: &'static str, stack: &mut Vec<Reference>| {
        if !object.is_null() && !tables::is_marked(object) {
            check(object, &ranges, from);
            tables::mark(object, 8);
            stack.push(object);
        }
    };
    visit(state.pending, "the pending list", &mut stack);
    roots.strong(Scope::Full, &mut |slot| visit(*slot, "a root", &mut stack));
    roots.weak(Scope::Full, &mut |slot| visit(*slot, "a weak root", &mut stack));
    let (mut classes, mut loaders) = (HashSet::new(), HashSet::new());
    roots.classes(&mut |shape| {
        classes.insert(std::ptr::from_ref(shape).addr());
        loaders.insert(shape.loader);
        visit(Reference(shape.mirror.load(Ordering::Relaxed)), "a class", &mut stack);
    });
    loaders.remove(&0);
    for loader in loaders {
        roots.loader(loader, &mut |slot| visit(*slot, "what a loader owns", &mut stack), &mut |_| {});
    }
    while let Some(object) = stack.pop() {
        let shape = object.shape();
        assert!(
            shape.loader == 0 || classes.contains(&std::ptr::from_ref(shape).addr()),
            "the class of {object:?} was unloaded: {shape:?}"
        );
        let is_old = object.address() < heap.eden_start;
        let mut field = |slot: *mut Reference| {
            let target = load(slot);
            if is_old && !target.is_null() && target.address() >= heap.eden_start {
                assert!(
                    tables::is_card_marked(slot.addr()),
                    "{object:?} is old, and no card tells of its young {target:?}"
                );
            }
            visit(target, "a field", &mut stack);
        };
        slots(object, shape, &mut field);
        if shape.kind as u8 >= Kind::SoftReference as u8
            && let Some(fields) = state.fields
        {
            field(references::slot(object, fields.referent));
        }
    }
    for (start, end) in ranges {
        tables::clear_marks(start, end);
    }
}

/// Checks the header of an object; its size.
fn check(object: Reference, ranges: &[(usize, usize)], from: &str) -> usize {
    let address = object.address();
    let inside = |&(start, end): &(usize, usize)| (start..end).contains(&address);
    let Some(&(_, end)) = ranges.iter().find(|range| inside(range)) else {
        panic!("{from} leads to {address:#x}, where there is no space in use: {ranges:x?}")
    };
    let class = object.u32(CLASS_OFFSET).load(Ordering::Relaxed);
    assert!(
        class != 0 && (class as usize) < METADATA_RESERVED && class.is_multiple_of(8),
        "{from} leads to {address:#x}, where there is no object: its class is {class:#x}"
    );
    let mark = object.mark().load(Ordering::Relaxed);
    assert!(mark & 3 != 3, "{from} leads to {address:#x}, which is forwarded: {mark:#x}");
    let shape = object.shape();
    let size = object.size();
    assert!(
        size >= FIELDS_OFFSET.min(ELEMENTS_OFFSET) && size.is_multiple_of(8),
        "{from}: {address:#x} of {shape:?} has {size} bytes"
    );
    assert!(
        address + size <= end,
        "{from}: the object at {address:#x} with {size} bytes is beyond the end of its space"
    );
    size
}
