//! Soft, weak, final and phantom references (package `java.lang.ref`).
//!
//! While a collector traces, it hands over every reference object whose referent it has not reached ([`Discovered::discover`]), and goes on without the
//! referent. When all else is traced, [`process`] looks again, in the order of strength: what was reached by then is an ordinary field; what was not is
//! cleared, or kept once more for its finalizer, and the reference is put on the list that the reference handler takes.

use super::{ReferenceFields, card_mark};
use crate::object::{Kind, Reference};

/// What reference processing needs of a collector.
pub(super) trait Tracer {
    /// Whether the object was reached, or is not collected at all.
    fn lives(&self, object: Reference) -> bool;
    /// Reaches the object in a slot, and updates the slot if that has moved.
    fn keep(&mut self, slot: *mut Reference);
    /// Traces all that was reached.
    fn drain(&mut self);
    /// The references that it found.
    fn discovered(&mut self) -> &mut Discovered;
}

/// References found by tracing.
#[derive(Debug)]
pub(super) struct Discovered {
    fields: Option<ReferenceFields>,
    /// Soft references not used since then are cleared; -1: all are.
    soft_limit: i64,
    /// Whether references are still looked for; afterwards their referents are ordinary fields.
    active: bool,
    lists: [Vec<Reference>; 4],
    pub(super) pending: Reference,
}

/// The field at an offset.
pub(super) fn slot(object: Reference, offset: usize) -> *mut Reference {
    std::ptr::with_exposed_provenance_mut(object.address() + offset)
}

impl Discovered {
    pub(super) fn new(fields: Option<ReferenceFields>, soft_limit: i64) -> Self {
        Self { fields, soft_limit, active: true, lists: [const { Vec::new() }; 4], pending: Reference::NULL }
    }

    /// The address of the referent's field.
    pub(super) fn referent(&self, object: Reference) -> Option<*mut Reference> {
        self.fields.map(|fields| slot(object, fields.referent))
    }

    /// Takes a reference object whose referent was not reached. `false`: the referent is to be treated as an ordinary field.
    pub(super) fn discover(&mut self, object: Reference, kind: Kind) -> bool {
        let Some(fields) = self.fields else { return false };
        if !self.active || !object.get(fields.next).is_null() {
            return false;
        }
        if kind == Kind::SoftReference && self.soft_limit >= 0 {
            let used = object.u64(fields.timestamp).load(std::sync::atomic::Ordering::Relaxed).cast_signed();
            if used >= self.soft_limit {
                return false;
            }
        }
        let index = match kind {
            Kind::SoftReference => 0,
            Kind::WeakReference => 1,
            Kind::FinalReference => 2,
            _ => 3,
        };
        self.lists[index].push(object);
        true
    }

    fn enqueue(&mut self, object: Reference, fields: ReferenceFields) {
        object.put(fields.discovered, self.pending);
        self.pending = object;
    }
}

/// Decides about all references that were found. The tracer has drained.
pub(super) fn process(tracer: &mut impl Tracer) {
    let Some(fields) = tracer.discovered().fields else { return };
    tracer.discovered().active = false;
    for index in 0..4 {
        let list = std::mem::take(&mut tracer.discovered().lists[index]);
        for object in list {
            let referent = object.get(fields.referent);
            if referent.is_null() {
                continue;
            }
            if tracer.lives(referent) {
                tracer.keep(slot(object, fields.referent));
                card_mark(object.address() + fields.referent);
            } else if index == 2 {
                // Kept for the finalizer; from now on the reference is not active.
                tracer.keep(slot(object, fields.referent));
                card_mark(object.address() + fields.referent);
                object.put(fields.next, object);
                tracer.discovered().enqueue(object, fields);
            } else {
                object.put(fields.referent, Reference::NULL);
                tracer.discovered().enqueue(object, fields);
            }
        }
        // What finalizers may still use is not garbage for phantom references.
        if index == 2 {
            tracer.drain();
        }
    }
}
