//! Where references are in an object.

use crate::object::{ELEMENTS_OFFSET, Kind, Reference, Shape};

/// Calls `visit` for the addresses of an object's references that are in `[start, end)`, but not for the referent of a reference object; returns the kind.
#[inline(always)]
pub(super) fn slots_within(
    object: Reference,
    shape: &Shape,
    start: usize,
    end: usize,
    mut visit: impl FnMut(*mut Reference),
) {
    let mut run = |offset: usize, count: usize| {
        let first = (object.address() + offset).max(start);
        let last = (object.address() + offset + count * 4).min(end);
        let mut address = first;
        while address < last {
            visit(std::ptr::with_exposed_provenance_mut(address));
            address += 4;
        }
    };
    match shape.kind {
        Kind::PrimitiveArray => {}
        Kind::ReferenceArray => run(ELEMENTS_OFFSET, object.length() as usize),
        kind => {
            for span in shape.spans() {
                run(span.offset as usize, span.count as usize);
            }
            if kind == Kind::Mirror {
                let statics = object.represented().statics;
                run(statics.offset as usize, statics.count as usize);
            }
        }
    }
}

/// The same for all of an object's references.
#[inline(always)]
pub(super) fn slots(object: Reference, shape: &Shape, visit: impl FnMut(*mut Reference)) {
    slots_within(object, shape, 0, usize::MAX, visit);
}

/// Reads a slot.
#[inline(always)]
pub(super) fn load(slot: *mut Reference) -> Reference {
    // SAFETY: collectors get slots from roots and from shapes of objects: they are valid, and nobody else runs.
    unsafe { slot.read() }
}
