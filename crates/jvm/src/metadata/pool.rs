//! Constant pools: what the class file has, and what resolution made of it.
//!
//! An entry keeps the index that it has in the class file, so that a quick instruction has the operands of the one that it replaced. An entry
//! is two words, which mean, by tag:
//!
//! | tag | value | resolved |
//! |---|---|---|
//! | integer, float, long, double | its bits | |
//! | class | name | the class |
//! | string | text | a global reference |
//! | field, method, interface method | class index, name-and-type index | see [`Pool::field`] and [`Pool::method`] |
//! | name and type | name, descriptor | |
//! | method handle | kind, index | a global reference |
//! | method type | descriptor | a global reference |
//! | dynamic | bootstrap index, name-and-type index | a global reference |
//!
//! The resolved word is written once, with release order, after everything that it leads to: a reader that sees it not 0 sees all.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{BasicType, Class, Method};
use crate::arena::{Link, Meta, MetaSlice};
use crate::handle::Global;
use crate::symbol::Symbol;

/// Kinds of constants, by the tags of JVMS 4.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the JVMS")]
pub enum Tag {
    Unusable = 0,
    Utf8 = 1,
    Integer = 3,
    Float = 4,
    Long = 5,
    Double = 6,
    Class = 7,
    String = 8,
    Field = 9,
    Method = 10,
    InterfaceMethod = 11,
    NameAndType = 12,
    MethodHandle = 15,
    MethodType = 16,
    Dynamic = 17,
    InvokeDynamic = 18,
    Module = 19,
    Package = 20,
}

/// A constant.
#[derive(Debug)]
#[repr(C)]
pub struct PoolEntry {
    /// What the class file says; never changes.
    pub value: u64,
    /// What resolution found; 0: nothing yet.
    pub resolved: AtomicU64,
    /// Of an interface method, the inline cache of its calls: class word above, method below. Of a method, what `invokespecial` calls, packed as what
    /// is resolved.
    pub cache: AtomicU64,
}

/// An `invokedynamic` instruction.
#[derive(Debug)]
#[repr(C)]
pub struct CallSite {
    /// Index of its constant.
    pub constant: u16,
    /// The method to call once it is linked.
    pub method: Link<Method>,
    /// What to pass as last argument; a global reference, 0 for `null`.
    pub appendix: AtomicU64,
}

/// The constants of a class.
#[derive(Debug)]
#[repr(C)]
pub struct Pool {
    /// The class.
    pub class: Meta<Class>,
    /// Kinds.
    pub tags: MetaSlice<Tag>,
    /// Values.
    pub entries: MetaSlice<PoolEntry>,
    /// `BootstrapMethods`: index of the method handle, then those of the arguments.
    pub bootstrap_methods: MetaSlice<MetaSlice<u16>>,
    /// The `invokedynamic` instructions of the class's methods.
    pub call_sites: MetaSlice<CallSite>,
    /// `ConstantValue`: index of the static field, index of its constant.
    pub constant_values: MetaSlice<(u16, u16)>,
    /// The constants that the class had before it was redefined, which code that still runs uses.
    pub previous: Link<Self>,
}

/// A resolved field, packed into one word.
#[derive(Clone, Copy, Debug)]
pub struct FieldEntry {
    /// Byte offset in the instance or mirror.
    pub offset: u32,
    /// The class that declares it.
    pub class: Meta<Class>,
    /// What it holds.
    pub kind: BasicType,
}

impl Pool {
    /// The kind of the constant; [`Tag::Unusable`] if there is none.
    pub fn tag(&self, index: u16) -> Tag {
        self.tags.get().get(index as usize).copied().unwrap_or(Tag::Unusable)
    }

    /// The constant at an index that the class file uses.
    #[inline(always)]
    pub fn entry(&self, index: u16) -> &'static PoolEntry {
        &self.entries.get()[index as usize]
    }

    /// The resolved word; 0 if it is not resolved.
    #[inline(always)]
    pub fn resolved(&self, index: u16) -> u64 {
        self.entry(index).resolved.load(Ordering::Acquire)
    }

    /// Publishes what resolution found, unless another thread did first; what counts.
    pub fn publish(&self, index: u16, word: u64) -> u64 {
        match self.entry(index).resolved.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => word,
            Err(first) => first,
        }
    }

    /// The class at `index`, if it is resolved.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the word of a class is its offset")]
    pub fn class_at(&self, index: u16) -> Option<Meta<Class>> {
        // SAFETY: the resolved word of a class constant is a class's offset or 0.
        unsafe { Meta::from_offset(self.resolved(index) as u32) }
    }

    /// The global reference at `index`, if it is resolved.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the word of an object is the index of a global reference")]
    pub fn global_at(&self, index: u16) -> Option<Global> {
        Global::of_index(self.resolved(index) as u32)
    }

    /// The name of the class at `index`, or text of a string, method type or UTF-8 constant.
    pub fn symbol(&self, index: u16) -> Symbol {
        let entry = self.entry(index);
        #[allow(clippy::cast_possible_truncation, reason = "a symbol's offset")]
        // SAFETY: the value of these constants is a symbol's offset; parsing checked that the index has the kind that its user wants.
        unsafe { Symbol::from_offset(entry.value as u32) }.expect("a constant with a symbol")
    }

    /// The two indexes of a member, dynamic constant or method handle.
    pub fn pair(&self, index: u16) -> (u16, u16) {
        let value = self.entry(index).value;
        #[allow(clippy::cast_possible_truncation, reason = "two packed 16-bit numbers")]
        ((value >> 16) as u16, value as u16)
    }

    /// Name and descriptor of the name-and-type constant at `index`.
    pub fn name_and_type(&self, index: u16) -> (Symbol, Symbol) {
        let value = self.entry(index).value;
        #[allow(clippy::cast_possible_truncation, reason = "two packed symbols")]
        // SAFETY: the value of a name-and-type constant is two symbols' offsets.
        let (name, descriptor) =
            unsafe { (Symbol::from_offset((value >> 32) as u32), Symbol::from_offset(value as u32)) };
        (name.expect("a name"), descriptor.expect("a descriptor"))
    }

    /// Class name, name and descriptor of the member at `index`.
    pub fn member(&self, index: u16) -> (Symbol, Symbol, Symbol) {
        let (class, name_and_type) = self.pair(index);
        let (name, descriptor) = self.name_and_type(name_and_type);
        (self.symbol(class), name, descriptor)
    }

    /// Packs a resolved field: class above, then 4 bits of kind, then 28 of offset.
    pub fn pack_field(class: Meta<Class>, kind: BasicType, offset: u32) -> u64 {
        (u64::from(class.offset()) << 32) | ((kind as u64) << 28) | u64::from(offset & 0x0FFF_FFFF)
    }

    /// The resolved field at `index`; it must be resolved.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "packed by `pack_field`")]
    pub fn field(&self, index: u16) -> FieldEntry {
        let word = self.resolved(index);
        debug_assert!(word != 0, "only quick instructions come here");
        // SAFETY: packed by `pack_field` from a class and a kind.
        unsafe {
            FieldEntry {
                offset: word as u32 & 0x0FFF_FFFF,
                class: Meta::of_word((word >> 32) as u32),
                kind: std::mem::transmute::<u8, BasicType>((word >> 28) as u8 & 15),
            }
        }
    }

    /// Packs a resolved method: its vtable index, its argument slots, and where it is. A method that is called directly has no index.
    pub fn pack_method(method: Meta<Method>, vtable_index: Option<u16>) -> u64 {
        let index = u64::from(vtable_index.unwrap_or(u16::MAX));
        (index << 48) | (u64::from(method.argument_slots) << 32) | u64::from(method.offset())
    }

    /// The resolved method at `index`, which must be resolved.
    #[inline(always)]
    pub fn method(&self, index: u16) -> MethodEntry {
        Self::unpack_method(self.resolved(index))
    }

    /// The method that `invokespecial` calls for the method constant at `index`, which must be resolved by it.
    #[inline(always)]
    pub fn special_method(&self, index: u16) -> MethodEntry {
        Self::unpack_method(self.entry(index).cache.load(Ordering::Acquire))
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "packed by `pack_method`")]
    fn unpack_method(word: u64) -> MethodEntry {
        debug_assert!(word != 0, "only quick instructions come here");
        MethodEntry {
            // SAFETY: packed by `pack_method`.
            method: unsafe { Meta::from_offset(word as u32).unwrap_unchecked() },
            argument_slots: (word >> 32) as u16 as usize,
            vtable_index: (word >> 48) as u16,
        }
    }
}

/// A resolved method.
#[derive(Clone, Copy, Debug)]
pub struct MethodEntry {
    /// The method that resolution found.
    pub method: Meta<Method>,
    /// Slots of its arguments, receiver included.
    pub argument_slots: usize,
    /// Index in the vtable of the receiver's class; `u16::MAX` if the method is called directly.
    pub vtable_index: u16,
}
