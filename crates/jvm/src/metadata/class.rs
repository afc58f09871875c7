//! Classes, interfaces, array and primitive classes.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, Ordering};

use classfile::flags;

use super::{BasicType, Field, Method, Pool, Tag};
use crate::arena::{Link, Meta, MetaSlice};
use crate::object::{Reference, Shape};
use crate::symbol::Symbol;

/// Superclasses that a class lists by depth, so that most subtype tests are one comparison.
pub const DISPLAY: usize = 8;

/// How far a class is (JVMS 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ClassState {
    /// Made: layout and tables are there.
    Loaded,
    /// Verified and prepared.
    Linked,
    /// A thread runs its initialiser.
    Initializing,
    /// Ready.
    Initialized,
    /// The initialiser threw.
    Erroneous,
}

/// The methods with which a class implements an interface.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ItableEntry {
    /// The interface.
    pub interface: Meta<Class>,
    /// By the index that the interface's methods have.
    pub methods: MetaSlice<Option<Meta<Method>>>,
}

/// An entry of the `InnerClasses` attribute; indexes into the constant pool.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct InnerClass {
    /// The class.
    pub inner: u16,
    /// The class that it is a member of; 0: none.
    pub outer: u16,
    /// Its simple name; 0: none.
    pub name: u16,
    /// Its flags in the source.
    pub flags: u16,
}

/// A component of a record.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RecordComponent {
    /// Its name.
    pub name: Symbol,
    /// Its descriptor.
    pub descriptor: Symbol,
    /// Its generic signature.
    pub signature: Option<Symbol>,
    /// `RuntimeVisibleAnnotations`.
    pub annotations: MetaSlice<u8>,
    /// `RuntimeVisibleTypeAnnotations`.
    pub type_annotations: MetaSlice<u8>,
}

/// A class. Begins with what the collector reads.
#[derive(Debug)]
#[repr(C)]
pub struct Class {
    /// For the collector.
    pub shape: Shape,
    /// Where fields of subclasses may begin: behind the last field, before padding.
    pub fields_end: u32,
    /// The internal name; of an array class its descriptor.
    pub name: Symbol,
    /// Distance from `java.lang.Object`; 0 there.
    pub depth: u16,
    /// The flags of the class file.
    pub flags: u16,
    /// Superclasses by depth, itself included.
    pub display: [Link<Class>; DISPLAY],
    /// The interface or deep class that a subtype test found last.
    pub subtype_cache: Link<Class>,
    /// Methods by vtable index.
    pub vtable: MetaSlice<Meta<Method>>,
    /// Methods by interface.
    pub itable: MetaSlice<ItableEntry>,
    /// A [`ClassState`].
    pub(crate) state: AtomicU8,
    /// Whether instances need a finalizer.
    pub has_finalizer: AtomicBool,
    /// Whether it is hidden: not found by name (JVMS 5.3.5 at the end does not name it).
    pub hidden: bool,
    /// What elements hold, of an array class; what it is, of a primitive class; else `Reference`.
    pub basic: BasicType,
    /// Dimensions, of an array class.
    pub dimensions: u8,
    /// Whether it is a primitive class.
    pub primitive: bool,
    /// Whether it is one of the boot image, which is not verified.
    pub trusted: bool,
    /// Index of the loader's data.
    pub loader: u32,
    /// The thread that initialises it.
    pub initializer: AtomicU32,
    /// The superclass.
    pub super_class: Option<Meta<Class>>,
    /// Direct superinterfaces.
    pub interfaces: MetaSlice<Meta<Class>>,
    /// All superinterfaces.
    pub all_interfaces: MetaSlice<Meta<Class>>,
    /// The class of the elements, of an array class.
    pub element: Option<Meta<Class>>,
    /// The class of arrays of this.
    pub array: Link<Class>,
    /// Declared methods; set once, when they are made.
    pub methods: LinkSlice<Method>,
    /// Declared fields, then injected ones.
    pub fields: MetaSlice<Field>,
    /// Constants; none of array and primitive classes.
    pub pool: Link<Pool>,
    /// The object that is locked while its state changes: see initialisation.
    pub nest_host: Link<Class>,
    /// Constant of the nest host; 0: none.
    pub nest_host_index: u16,
    /// Constants of the nest members.
    pub nest_members: MetaSlice<u16>,
    /// Constants of permitted subclasses.
    pub permitted_subclasses: MetaSlice<u16>,
    /// Whether the class is sealed.
    pub sealed: bool,
    /// Whether it is a record.
    pub record: bool,
    /// Components of a record.
    pub record_components: MetaSlice<RecordComponent>,
    /// `InnerClasses`.
    pub inner_classes: MetaSlice<InnerClass>,
    /// `EnclosingMethod`: class, name and type; 0: none.
    pub enclosing_method: (u16, u16),
    /// The generic signature.
    pub signature: Option<Symbol>,
    /// The name of the source file.
    pub source_file: Option<Symbol>,
    /// `RuntimeVisibleAnnotations`.
    pub annotations: MetaSlice<u8>,
    /// `RuntimeVisibleTypeAnnotations`.
    pub type_annotations: MetaSlice<u8>,
    /// Version of the class file.
    pub major_version: u16,
    /// Minor version.
    pub minor_version: u16,
    /// `SourceDebugExtension`.
    pub source_debug_extension: MetaSlice<u8>,
    /// The class file, until the class is verified; empty for trusted ones.
    pub class_file: (usize, usize),
    /// Declared methods of an interface that are neither abstract nor static.
    pub has_default_methods: bool,
    /// Number of vtable or itable indexes that the class's own methods take.
    pub itable_length: AtomicU16,
    /// Bits that reflection may cache.
    pub reflection_flags: AtomicI32,
    /// Assertion status and other switches.
    pub redefined: AtomicU16,
}

/// An array that is set once.
#[derive(Debug)]
pub struct LinkSlice<T> {
    slice: Link<MetaSlice<Meta<T>>>,
}

impl<T: 'static> LinkSlice<T> {
    /// Not set yet.
    pub const fn empty() -> Self {
        Self { slice: Link::empty() }
    }

    /// The elements.
    pub fn get(&self) -> &'static [Meta<T>] {
        self.slice.get().map_or(&[], |slice| slice.get().get())
    }

    /// Sets them.
    pub fn set(&self, slice: Meta<MetaSlice<Meta<T>>>) {
        self.slice.set(Some(slice));
    }
}

impl Class {
    /// The mirror, an instance of `java.lang.Class`; null before there is that class.
    #[inline(always)]
    pub fn mirror(&self) -> Reference {
        Reference(self.shape.mirror.load(Ordering::Relaxed))
    }

    /// How far it is.
    #[inline(always)]
    pub fn state(&self) -> ClassState {
        // SAFETY: only values of `ClassState` are stored.
        unsafe { std::mem::transmute::<u8, ClassState>(self.state.load(Ordering::Acquire)) }
    }

    /// Moves it on.
    pub fn set_state(&self, state: ClassState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// The state of a class that begins.
    pub fn first_state(state: ClassState) -> AtomicU8 {
        AtomicU8::new(state as u8)
    }

    /// Whether static members may be used without more ado.
    #[inline(always)]
    pub fn is_initialized(&self) -> bool {
        self.state() == ClassState::Initialized
    }

    /// Whether it is an interface.
    #[inline(always)]
    pub fn is_interface(&self) -> bool {
        self.flags & flags::INTERFACE != 0
    }

    /// Whether it is an array class.
    #[inline(always)]
    pub fn is_array(&self) -> bool {
        self.dimensions != 0
    }

    /// Whether it has no instances of its own.
    pub fn is_abstract(&self) -> bool {
        self.flags & flags::ABSTRACT != 0
    }

    /// Whether it is neither array nor primitive.
    pub fn is_instance_class(&self) -> bool {
        !self.is_array() && !self.primitive
    }

    /// The name of its package, as `java/lang`; empty for the unnamed.
    pub fn package(&self) -> &'static [u8] {
        let mut class = self;
        while let Some(element) = class.element {
            class = element.get();
        }
        let name = class.name.bytes();
        // A hidden class is named `a/B+0x1`; others may have such a sign of their own.
        let name = match name.iter().rposition(|&byte| byte == b'+') {
            Some(at) if class.hidden => &name[..at],
            _ => name,
        };
        name.iter().rposition(|&byte| byte == b'/').map_or(&[], |at| &name[..at])
    }

    /// The name as `Class.getName` has it.
    pub fn external_name(&self) -> String {
        let text = self.name.text();
        let mut bottom = self;
        while let Some(element) = bottom.element {
            bottom = element.get();
        }
        match text.rsplit_once('+') {
            Some((name, suffix)) if bottom.hidden => format!("{}/{suffix}", name.replace('/', ".")),
            _ => text.replace('/', "."),
        }
    }

    /// The declared field of this name and descriptor.
    pub fn declared_field(&self, name: Symbol, descriptor: Symbol) -> Option<&'static Field> {
        self.fields.get().iter().find(|field| field.name == name && field.descriptor == descriptor)
    }

    /// The declared method of this name and descriptor.
    pub fn declared_method(&self, name: Symbol, descriptor: Symbol) -> Option<Meta<Method>> {
        self.methods.get().iter().copied().find(|method| method.name == name && method.descriptor == descriptor)
    }

    /// The constants that it has, and those that it had before it was redefined.
    pub fn pools(&self) -> impl Iterator<Item = Meta<Pool>> + use<> {
        std::iter::successors(self.pool.get(), |pool| pool.previous.get())
    }

    /// The constants of an instance class.
    pub fn constants(&self) -> &'static Pool {
        self.pool.get().expect("an instance class has constants").get()
    }
}

impl Meta<Class> {
    /// The class of a class word.
    ///
    /// # Safety
    /// The word is that of an object, or was made by [`Meta::offset`].
    #[inline(always)]
    pub unsafe fn of_word(word: u32) -> Self {
        // SAFETY: passed on; no object has a class word of 0.
        unsafe { Self::from_offset(word).unwrap_unchecked() }
    }

    /// Whether a value of this class is one of `target` (JVMS 6.5 instanceof).
    #[inline(always)]
    pub fn is_subtype_of(self, target: Self) -> bool {
        if self == target {
            return true;
        }
        if !target.is_interface() && !target.is_array() && (target.depth as usize) < DISPLAY {
            return self.display[target.depth as usize].get() == Some(target);
        }
        if self.subtype_cache.get() == Some(target) {
            return true;
        }
        self.is_subtype_slow(target)
    }

    #[inline(never)]
    fn is_subtype_slow(self, target: Self) -> bool {
        let found = if target.is_interface() {
            self.all_interfaces.contains(&target)
        } else if target.is_array() {
            match (self.element, target.element) {
                (Some(from), Some(to)) if from.primitive || to.primitive => from == to,
                (Some(from), Some(to)) => from.is_subtype_of(to),
                _ => false,
            }
        } else {
            let mut class = Some(self);
            while let Some(current) = class
                && current != target
            {
                class = current.super_class;
            }
            class.is_some()
        };
        if found {
            self.subtype_cache.set(Some(target));
        }
        found
    }

    /// Forgets what was found last in caches that do not keep classes, where that is unloaded.
    #[allow(clippy::cast_possible_truncation, reason = "packed by an interface call: class above, method below")]
    pub(crate) fn forget_caches(self, is_dead: impl Fn(Self) -> bool) {
        if self.subtype_cache.get().is_some_and(&is_dead) {
            self.subtype_cache.set(None);
        }
        let entries = self.pools().flat_map(|pool| pool.entries.get().iter().zip(pool.tags.get()));
        for (entry, _) in entries.filter(|(_, tag)| **tag == Tag::InterfaceMethod) {
            // SAFETY: 0, or packed from a class, and classes whose loaders are dead are still there.
            let receiver = unsafe { Self::from_offset((entry.cache.load(Ordering::Relaxed) >> 32) as u32) };
            if receiver.is_some_and(&is_dead) {
                entry.cache.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The superclass chain from this class on.
    pub fn superclasses(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |class| class.super_class)
    }

    /// Finds a method in the class and its superclasses.
    pub fn find_method(self, name: Symbol, descriptor: Symbol) -> Option<Meta<Method>> {
        self.superclasses().find_map(|class| class.declared_method(name, descriptor))
    }

    /// Finds a field (JVMS 5.4.3.2): here, in superinterfaces, in superclasses.
    pub fn find_field(self, name: Symbol, descriptor: Symbol) -> Option<(Self, &'static Field)> {
        for class in self.superclasses() {
            if let Some(field) = class.declared_field(name, descriptor) {
                return Some((class, field));
            }
            for interface in class.interfaces.get() {
                if let Some(found) = interface.find_field(name, descriptor) {
                    return Some(found);
                }
            }
        }
        None
    }

    /// Whether both are of one run-time package (JVMS 5.3).
    pub fn same_package(self, other: Self) -> bool {
        self == other || (self.loader == other.loader && self.package() == other.package())
    }
}
