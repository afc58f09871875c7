//! How an object looks in memory. The interpreter, the compilers, the collector and the image all read this and nothing else.
//!
//! ```text
//!  0        8       12                      instance                array
//! +--------+-------+----------------------+
//! | mark   | class | fields ...           |  fields from 12         length: u32 at 12, elements from 16
//! +--------+-------+----------------------+  size: multiple of 8
//!
//! mark, 64 bits, low to high:
//!   2  state        0 no lock or thin lock, 1 inflated monitor, 3 forwarded (only while a collection runs)
//!   4  age          collections survived, saturating
//!   1  (spare)
//!   1  (spare)
//!  16  owner        thin lock: id of the thread that owns it, 0 none
//!   8  recursion    thin lock: times entered again
//!  32  hash         identity hash, 31 bits, 0 none yet
//! inflated: the 24 bits of owner and recursion hold the index of the monitor. The hash never moves out of the header.
//! forwarded: all bits above the state are the new place, as an address shifted right by 2 (objects are 8-aligned).
//! ```
//!
//! A reference in a field, an array or a frame is 32 bits: the distance from the heap's base in units of 8 bytes; 0 is `null`. The class word is
//! the distance of the class's metadata from the base of the metadata arena. Both arenas are at fixed addresses, so that an image of them can be
//! mapped back without relocation.
//!
//! Invariant: a [`Reference`] that is not null leads to an object. The heap makes them, and whoever holds one across a safe point holds it where the
//! collector finds and updates it. Fields are read and written as the Java memory model has plain accesses: relaxed atomics of their size.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A compressed reference to a Java object: its distance from [`HEAP_BASE`] in units of 8 bytes; 0 is `null`.
///
/// Moves under any call that can reach a safe point: what must survive one is held in a handle or a frame, which the collector knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Reference(pub u32);

impl Reference {
    /// No object.
    pub const NULL: Self = Self(0);

    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The host address of the object; meaningless for `null`.
    pub fn address(self) -> usize {
        HEAP_BASE + ((self.0 as usize) << 3)
    }

    /// The reference to the object at a host address in the heap.
    pub fn at(address: usize) -> Self {
        debug_assert!(address > HEAP_BASE && address < HEAP_BASE + HEAP_RESERVED && address.is_multiple_of(8));
        #[allow(clippy::cast_possible_truncation, reason = "the heap's range is 2^35 bytes, in units of 8")]
        Self(((address - HEAP_BASE) >> 3) as u32)
    }

    /// The mark word.
    #[inline(always)]
    pub fn mark(self) -> &'static AtomicU64 {
        self.u64(MARK_OFFSET)
    }

    /// The class word: distance of the class from [`METADATA_BASE`].
    #[inline(always)]
    pub fn class_word(self) -> u32 {
        self.u32(CLASS_OFFSET).load(Ordering::Relaxed)
    }

    /// The shape of its class.
    #[inline(always)]
    pub fn shape(self) -> &'static Shape {
        Shape::of(self.class_word())
    }

    /// An array's length.
    #[inline(always)]
    pub fn length(self) -> u32 {
        self.u32(LENGTH_OFFSET).load(Ordering::Relaxed)
    }

    /// Bytes that the object takes, a multiple of 8.
    #[inline(always)]
    pub fn size(self) -> usize {
        let shape = self.shape();
        match shape.kind {
            Kind::ReferenceArray => array_size(self.length(), 2),
            Kind::PrimitiveArray => array_size(self.length(), shape.element_shift),
            Kind::Mirror => self.represented().mirror_size as usize,
            _ => shape.size as usize,
        }
    }

    /// Of a mirror: the class that it stands for.
    pub fn represented(self) -> &'static Shape {
        Shape::of(self.u32(MIRROR_CLASS_OFFSET).load(Ordering::Relaxed))
    }

    /// The byte at a distance from the object's beginning.
    #[inline(always)]
    pub fn u8(self, offset: usize) -> &'static AtomicU8 {
        debug_assert!(!self.is_null());
        // SAFETY: the module's invariant: an object is there; its memory stays mapped as long as the process lives, and is only accessed atomically
        // or by a collector while nobody else runs. The caller's offset is one within the object, by the layout of its class.
        unsafe { &*std::ptr::with_exposed_provenance(self.address() + offset) }
    }

    /// The 16 bits there; the offset is even.
    #[inline(always)]
    pub fn u16(self, offset: usize) -> &'static AtomicU16 {
        debug_assert!(!self.is_null() && offset.is_multiple_of(2));
        // SAFETY: as for `u8`; aligned, as objects are 8-aligned.
        unsafe { &*std::ptr::with_exposed_provenance(self.address() + offset) }
    }

    /// The 32 bits there; the offset is a multiple of 4.
    #[inline(always)]
    pub fn u32(self, offset: usize) -> &'static AtomicU32 {
        debug_assert!(!self.is_null() && offset.is_multiple_of(4));
        // SAFETY: as for `u8`; aligned, as objects are 8-aligned.
        unsafe { &*std::ptr::with_exposed_provenance(self.address() + offset) }
    }

    /// The 64 bits there; the offset is a multiple of 8.
    #[inline(always)]
    pub fn u64(self, offset: usize) -> &'static AtomicU64 {
        debug_assert!(!self.is_null() && offset.is_multiple_of(8));
        // SAFETY: as for `u8`; aligned, as objects are 8-aligned.
        unsafe { &*std::ptr::with_exposed_provenance(self.address() + offset) }
    }

    /// The reference in a field or element.
    #[inline(always)]
    pub fn get(self, offset: usize) -> Self {
        Self(self.u32(offset).load(Ordering::Relaxed))
    }

    /// Writes a reference into a field or element, and tells the collector: see [`card_mark`].
    #[inline(always)]
    pub fn put(self, offset: usize, value: Self) {
        self.u32(offset).store(value.0, Ordering::Relaxed);
        card_mark(self.address() + offset);
    }
}

/// Bytes of an array.
#[inline(always)]
pub fn array_size(length: u32, element_shift: u8) -> usize {
    (ELEMENTS_OFFSET + ((length as usize) << element_shift)).next_multiple_of(8)
}

/// Where the heap begins, in the host's address space. The first page is never given out, so that 0 is `null` and touching it traps.
pub const HEAP_BASE: usize = 0x0200_0000_0000;
/// Bytes of address space that the heap may grow to: what 32 bits of 8-byte units reach.
pub const HEAP_RESERVED: usize = 1 << 35;
/// Where metadata (classes, methods, constant pools) begins. The first page is never given out.
pub const METADATA_BASE: usize = 0x0300_0000_0000;
/// Bytes of address space for metadata: what a class word reaches.
pub const METADATA_RESERVED: usize = 1 << 32;

/// Byte offset of the mark word in an object.
pub const MARK_OFFSET: usize = 0;
/// Byte offset of the class word.
pub const CLASS_OFFSET: usize = 8;
/// Byte offset of the first field of an instance.
pub const FIELDS_OFFSET: usize = 12;
/// Byte offset of an array's length.
pub const LENGTH_OFFSET: usize = 12;
/// Byte offset of an array's first element, whatever the element's size.
pub const ELEMENTS_OFFSET: usize = 16;

/// Byte offset, in an instance of `java.lang.Class`, of the class word of the class that it stands for: the first field, which no Java code sees.
pub const MIRROR_CLASS_OFFSET: usize = 12;

/// The bits of the mark word that are its state.
pub const MARK_STATE: u64 = 3;
/// Where the age is in the mark word.
pub const MARK_AGE_SHIFT: u32 = 2;
/// The greatest age.
pub const MARK_AGE_MAX: u64 = 15;
/// Where the thin lock's owner is.
pub const MARK_OWNER_SHIFT: u32 = 8;
/// Where the thin lock's recursion is.
pub const MARK_RECURSION_SHIFT: u32 = 24;
/// Where the identity hash is.
pub const MARK_HASH_SHIFT: u32 = 32;

/// Log2 of the bytes of a card.
pub const CARD_SHIFT: usize = 9;
/// Where cards begin, in the host's address space.
pub const CARDS_BASE: usize = 0x0280_0000_0000;

/// Tells the collector that a reference was written at this address. Unconditional: it costs less to write a byte than to ask whether to.
#[inline(always)]
pub fn card_mark(address: usize) {
    // SAFETY: the heap reserved a card for each of its addresses; cards are only accessed atomically.
    let card: &AtomicU8 =
        unsafe { &*std::ptr::with_exposed_provenance(CARDS_BASE + ((address - HEAP_BASE) >> CARD_SHIFT)) };
    card.store(1, Ordering::Relaxed);
}

/// What the collector must know of a class: how large its objects are and where references are in them. Every class's metadata begins with one.
#[derive(Debug)]
#[repr(C)]
pub struct Shape {
    /// What kind of object it is.
    pub kind: Kind,
    /// Arrays: log2 of an element's size in bytes.
    pub element_shift: u8,
    /// Spans in `reference_map`.
    pub span_count: u16,
    /// Instances: size in bytes, header included, a multiple of 8. Arrays and mirrors: 0, each object has its own.
    pub size: u32,
    /// Where references are in an instance, superclasses included. In subclasses of `java.lang.ref.Reference` without `referent`.
    pub reference_map: *const Span,
    /// Bytes of this class's mirror, its static fields included.
    pub mirror_size: u32,
    /// References among the static fields, in the mirror.
    pub statics: Span,
    /// The unit of unloading that the class belongs to, whose mirror is then found by marking; 0: the class is never unloaded.
    pub loader: u32,
    /// The mirror, a [`Reference`], which is in old space; 0: none yet. The collector keeps it up to date.
    pub mirror: AtomicU32,
}

// SAFETY: immutable but for an atomic; the map that it points to lives as long as the class.
unsafe impl Send for Shape {}
// SAFETY: as above.
unsafe impl Sync for Shape {}

impl Shape {
    /// The shape of a class word.
    #[inline(always)]
    pub fn of(class: u32) -> &'static Self {
        debug_assert!(class != 0);
        // SAFETY: a class word is the distance of a class, which begins with its shape, and which lives as long as any object that mentions it.
        unsafe { &*std::ptr::with_exposed_provenance(METADATA_BASE + class as usize) }
    }

    /// Where references are in an instance.
    #[inline(always)]
    pub fn spans(&self) -> &[Span] {
        if self.span_count == 0 {
            return &[];
        }
        // SAFETY: the map has so many spans.
        unsafe { std::slice::from_raw_parts(self.reference_map, self.span_count as usize) }
    }

    /// Makes an object's `Kind` and layout out of what linking computed, with no mirror yet.
    pub const fn new(kind: Kind, size: u32) -> Self {
        Self {
            kind,
            element_shift: 0,
            span_count: 0,
            size,
            reference_map: std::ptr::null(),
            mirror_size: 0,
            statics: Span { offset: 0, count: 0 },
            loader: 0,
            mirror: AtomicU32::new(0),
        }
    }
}

/// Neighbouring reference fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// Byte offset of the first from the object's beginning.
    pub offset: u32,
    /// How many there are, 4 bytes each.
    pub count: u32,
}

/// Kinds of objects that the collector treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An ordinary instance.
    Instance = 0,
    /// An array of references.
    ReferenceArray = 1,
    /// An array of numbers.
    PrimitiveArray = 2,
    /// An instance of `java.lang.Class`: the class's static fields follow the instance's own.
    Mirror = 3,
    /// An instance of `java.lang.ClassLoader`: its classes live while it does.
    ClassLoader = 4,
    /// An instance of a subclass of `java.lang.ref.SoftReference`, the referent is not followed as a field.
    SoftReference = 5,
    /// The same for `WeakReference`.
    WeakReference = 6,
    /// The same for `FinalReference`.
    FinalReference = 7,
    /// The same for `PhantomReference`.
    PhantomReference = 8,
}
