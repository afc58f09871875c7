//! What the collector asks of the virtual machine: who holds objects.

use super::Buffer;
use crate::object::{Reference, Shape};

/// Which part of the heap is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Young objects only: slots that surely lead to old objects may be left out.
    Young,
    /// Everything.
    Full,
}

/// The virtual machine while all its threads stand still. Every slot that is visited may be changed, as objects move.
///
/// In one call no slot is visited twice, and no slot belongs to two of the methods, as a full collection adds a distance to what it finds. Null slots may be
/// visited. None of the methods calls the heap.
pub trait Roots {
    /// All threads' allocation buffers.
    fn buffers(&mut self, visit: &mut dyn FnMut(&mut Buffer));

    /// Slots that keep their objects: frames, handles, threads, monitors that are entered, globals. In a full collection without what loaders that may be
    /// unloaded own ([`Roots::loader`]), but with the mirrors of the classes of methods in frames (copies of [`Shape::mirror`], not written back).
    fn strong(&mut self, scope: Scope, visit: &mut dyn FnMut(&mut Reference));

    /// Slots that do not keep their objects: interned strings, weak globals, monitors. `visit` makes a slot null if its object is gone; it is called after
    /// finalizable objects were kept once more.
    fn weak(&mut self, scope: Scope, visit: &mut dyn FnMut(&mut Reference));

    /// All classes, of which the collector keeps [`Shape::mirror`] up to date.
    fn classes(&mut self, visit: &mut dyn FnMut(&Shape));

    /// The loader data of a `ClassLoader`, which lives while that does; 0: it has none, or it is never unloaded.
    fn data_of(&self, loader: Reference) -> u32;

    /// Loaders whose classes are being made, so that no mirror tells that they live.
    fn pinned(&mut self, visit: &mut dyn FnMut(u32));

    /// Slots that a loader owns ([`Shape::loader`]) and that keep their objects while it lives: its own object, and its globals. The mirrors of its classes
    /// live with it, and are no slots of this method. `other` gets the loaders that live while it does.
    fn loader(&mut self, loader: u32, visit: &mut dyn FnMut(&mut Reference), other: &mut dyn FnMut(u32));

    /// In a full collection, before anything moves: forget the loaders that do not live, their classes and their globals.
    fn unload(&mut self, lives: &dyn Fn(u32) -> bool);

    /// After a collection: what `java.lang.ref.SoftReference.clock` is now.
    fn soft_clock(&mut self, milliseconds: i64);
}
