//! Reading and writing objects: the one place where a [`Reference`] and an offset become a host address.
//!
//! All accesses are relaxed atomics of their size, since Java programs may race: the machine code is that of plain accesses. Callers answer for
//! this: the reference is not null and of an object, and the offset is that of a field or element of it, from the layout or checked against the
//! length. `Unsafe` natives pass offsets of programs, which are trusted as `Unsafe` is.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::arena::Meta;
use crate::metadata::Class;
use crate::object::{ELEMENTS_OFFSET, Reference};

/// Values that fields and elements hold.
pub trait Value: Copy {
    /// Reads one.
    ///
    /// # Safety
    /// The address is that of such a value, aligned to its size.
    unsafe fn read(address: *mut u8) -> Self;
    /// Writes one.
    ///
    /// # Safety
    /// As for [`Value::read`].
    unsafe fn write(self, address: *mut u8);
}

macro_rules! value {
    ($($type:ty: $atomic:ident, |$bits:ident| $from:expr, |$value:ident| $to:expr;)*) => {$(
        impl Value for $type {
            #[inline(always)]
            unsafe fn read(address: *mut u8) -> Self {
                // SAFETY: the caller's promise; memory of objects is only accessed atomically.
                let $bits = unsafe { $atomic::from_ptr(address.cast()) }.load(Ordering::Relaxed);
                $from
            }
            #[inline(always)]
            unsafe fn write(self, address: *mut u8) {
                let $value = self;
                // SAFETY: as above.
                unsafe { $atomic::from_ptr(address.cast()) }.store($to, Ordering::Relaxed);
            }
        }
    )*};
}

value! {
    u8: AtomicU8, |bits| bits, |value| value;
    i8: AtomicU8, |bits| bits.cast_signed(), |value| value.cast_unsigned();
    bool: AtomicU8, |bits| bits & 1 != 0, |value| u8::from(value);
    u16: AtomicU16, |bits| bits, |value| value;
    i16: AtomicU16, |bits| bits.cast_signed(), |value| value.cast_unsigned();
    u32: AtomicU32, |bits| bits, |value| value;
    i32: AtomicU32, |bits| bits.cast_signed(), |value| value.cast_unsigned();
    f32: AtomicU32, |bits| f32::from_bits(bits), |value| value.to_bits();
    u64: AtomicU64, |bits| bits, |value| value;
    i64: AtomicU64, |bits| bits.cast_signed(), |value| value.cast_unsigned();
    f64: AtomicU64, |bits| f64::from_bits(bits), |value| value.to_bits();
}

impl Reference {
    /// The host address of a byte of the object.
    #[inline(always)]
    pub fn at_offset(self, offset: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address().wrapping_add(offset))
    }

    /// Reads a number. For references there is [`Reference::reference`].
    #[inline(always)]
    pub fn read<T: Value>(self, offset: u32) -> T {
        debug_assert!(!self.is_null(), "null is checked before");
        // SAFETY: the promise of the module.
        unsafe { T::read(self.at_offset(offset as usize)) }
    }

    /// Writes a number. References are written by [`Reference::set_reference`].
    #[inline(always)]
    pub fn write<T: Value>(self, offset: u32, value: T) {
        debug_assert!(!self.is_null(), "null is checked before");
        // SAFETY: the promise of the module.
        unsafe { value.write(self.at_offset(offset as usize)) }
    }

    /// Reads a reference.
    #[inline(always)]
    pub fn reference(self, offset: u32) -> Reference {
        Reference(self.read(offset))
    }

    /// Writes a reference, and tells the collector.
    #[inline(always)]
    pub fn set_reference(self, offset: u32, value: Reference) {
        self.write(offset, value.0);
        crate::heap::card_mark(self.address() + offset as usize);
    }

    /// The object's class.
    #[inline(always)]
    pub fn class(self) -> Meta<Class> {
        // SAFETY: this is an object's class word.
        unsafe { Meta::of_word(self.class_word()) }
    }

    /// Reads an element of an array of numbers; the index is within its length.
    #[inline(always)]
    pub fn element<T: Value>(self, index: u32) -> T {
        debug_assert!(index < self.length(), "the index is checked before");
        // SAFETY: the promise of the module.
        unsafe { T::read(self.at_offset(ELEMENTS_OFFSET + index as usize * size_of::<T>())) }
    }

    /// Writes an element of an array of numbers; the index is within its length.
    #[inline(always)]
    pub fn set_element<T: Value>(self, index: u32, value: T) {
        debug_assert!(index < self.length(), "the index is checked before");
        // SAFETY: the promise of the module.
        unsafe { value.write(self.at_offset(ELEMENTS_OFFSET + index as usize * size_of::<T>())) }
    }

    /// Reads an element of an array of references; the index is within its length.
    #[inline(always)]
    pub fn reference_element(self, index: u32) -> Reference {
        Reference(self.element(index))
    }

    /// Writes an element of an array of references, and tells the collector.
    #[inline(always)]
    pub fn set_reference_element(self, index: u32, value: Reference) {
        self.set_element(index, value.0);
        crate::heap::card_mark(self.address() + ELEMENTS_OFFSET + index as usize * 4);
    }

    /// Copies bytes out of an array of bytes.
    pub fn bytes(self) -> Vec<u8> {
        (0..self.length()).map(|index| self.element(index)).collect()
    }

    /// A slot of a frame.
    #[inline(always)]
    pub fn slot(self) -> u64 {
        u64::from(self.0)
    }

    /// The reference in a slot of a frame.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "a slot with a reference has it in its low half")]
    pub fn of_slot(slot: u64) -> Self {
        Self(slot as u32)
    }
}
