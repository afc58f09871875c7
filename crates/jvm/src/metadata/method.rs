//! Methods.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering};

use classfile::flags;

use super::{BasicType, Class, Pool};
use crate::arena::{Link, Meta, MetaSlice};
use crate::symbol::Symbol;

/// What calling a method means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Entry {
    /// Interpret its bytecode.
    Bytecode,
    /// Call a function of the virtual machine.
    Native,
    /// Find that function first.
    NativeUnlinked,
    /// Throw `AbstractMethodError`.
    Abstract,
    /// Throw `IncompatibleClassChangeError`: the vtable slot of methods among which none is the most specific.
    Conflict,
    /// Throw `IllegalAccessError`: stands for a method that is selected for an interface's, and is not public.
    NotPublic,
    /// `MethodHandle.invokeBasic`: go to the method of the receiver's lambda form.
    InvokeBasic,
    /// `MethodHandle.linkToStatic` and `linkToSpecial`: go to the method of the last argument.
    LinkToStatic,
    /// The same, which also wants a receiver.
    LinkToSpecial,
    /// `MethodHandle.linkToVirtual`: select by the receiver's class.
    LinkToVirtual,
    /// `MethodHandle.linkToInterface`.
    LinkToInterface,
}

/// Properties that are not flags of the class file.
pub mod extra {
    /// `@CallerSensitive`.
    pub const CALLER_SENSITIVE: u16 = 1;
    /// `@LambdaForm.Hidden` or `@Hidden`: not in stack traces.
    pub const HIDDEN: u16 = 2;
    /// `@ForceInline`.
    pub const FORCE_INLINE: u16 = 4;
    /// Overrides `Object.finalize` with code, see the class's flag.
    pub const FINALIZER: u16 = 8;
    /// Has `jsr` instructions.
    pub const SUBROUTINES: u16 = 16;
    /// Copied into the vtable from an interface.
    pub const MIRANDA: u16 = 32;
    /// `@Scoped`.
    pub const SCOPED: u16 = 64;
    /// Has `monitorenter`.
    pub const MONITORS: u16 = 128;
    /// `@LambdaForm.Compiled`, or an intrinsic method of method handles: nobody's caller.
    pub const LAMBDA_FORM: u16 = 256;
    /// Dead local variables of its frames keep nothing alive, and have not been kept up to date: from the first collection on that finds it hot.
    pub const DROPS_DEAD: u16 = 512;
}

/// An exception handler.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Handler {
    /// First byte of code that it covers.
    pub start: u16,
    /// Behind the last.
    pub end: u16,
    /// Its first instruction.
    pub target: u16,
    /// Constant of the class that it takes; 0: all.
    pub catch_type: u16,
}

/// From which instruction on code belongs to a line.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LineNumber {
    /// Offset in the code.
    pub start: u16,
    /// Line of the source.
    pub line: u16,
}

/// A method.
#[derive(Debug)]
#[repr(C)]
pub struct Method {
    /// The class that declares it.
    pub class: Meta<Class>,
    /// The constants of its code; none of what no class file has.
    pub pool: Link<Pool>,
    /// Its name.
    pub name: Symbol,
    /// Its descriptor.
    pub descriptor: Symbol,
    /// Flags of the class file.
    pub flags: u16,
    /// Properties of [`extra`].
    pub extra: AtomicU16,
    /// Slots of the arguments, receiver included.
    pub argument_slots: u16,
    /// Slots of local variables, arguments included.
    pub max_locals: u16,
    /// Slots of the operand stack.
    pub max_stack: u16,
    /// Index in the class's methods.
    pub index: u16,
    /// What it returns.
    pub returns: BasicType,
    /// An [`Entry`].
    pub(crate) entry: AtomicU8,
    /// Index in the vtable, or in the interface's part of an itable; negative if it is called directly.
    pub vtable_index: AtomicI32,
    /// The code, rewritten in place as it is run: see the interpreter.
    pub code: MetaSlice<u8>,
    /// Exception handlers in order.
    pub handlers: MetaSlice<Handler>,
    /// Line numbers in the file's order.
    pub lines: MetaSlice<LineNumber>,
    /// The function, once it is known.
    pub native: AtomicUsize,
    /// What JNI needs to call the function of a library; 0: it is one of the virtual machine.
    pub library: AtomicUsize,
    /// Calls counted by the interpreter.
    pub calls: AtomicU32,
    /// Backward branches counted by the interpreter.
    pub back_edges: AtomicU32,
    /// Constants of the classes that it declares to throw.
    pub exceptions: MetaSlice<u16>,
    /// The generic signature.
    pub signature: Option<Symbol>,
    /// `MethodParameters`: constant of the name, flags.
    pub parameters: MetaSlice<(u16, u16)>,
    /// Whether there is a `MethodParameters` attribute.
    pub has_parameters: bool,
    /// `RuntimeVisibleAnnotations`.
    pub annotations: MetaSlice<u8>,
    /// `RuntimeVisibleParameterAnnotations`.
    pub parameter_annotations: MetaSlice<u8>,
    /// `RuntimeVisibleTypeAnnotations`.
    pub type_annotations: MetaSlice<u8>,
    /// `AnnotationDefault`.
    pub annotation_default: MetaSlice<u8>,
    /// The body of `StackMapTable`.
    pub stack_map_table: MetaSlice<u8>,
}

impl Method {
    /// What calling it means.
    #[inline(always)]
    pub fn entry(&self) -> Entry {
        // SAFETY: only values of `Entry` are stored, all of which are valid.
        unsafe { std::mem::transmute::<u8, Entry>(self.entry.load(Ordering::Acquire)) }
    }

    /// Changes what calling it means.
    pub fn set_entry(&self, entry: Entry) {
        self.entry.store(entry as u8, Ordering::Release);
    }

    /// The constants that its code names.
    #[inline(always)]
    pub fn constants(&self) -> &'static Pool {
        self.pool.get().expect("a method of a class file has constants").get()
    }

    /// Whether it has no receiver.
    #[inline(always)]
    pub fn is_static(&self) -> bool {
        self.flags & flags::STATIC != 0
    }

    /// Whether it is native.
    pub fn is_native(&self) -> bool {
        self.flags & flags::NATIVE != 0
    }

    /// Whether it has no implementation.
    pub fn is_abstract(&self) -> bool {
        self.flags & flags::ABSTRACT != 0
    }

    /// Whether it runs with the monitor held.
    #[inline(always)]
    pub fn is_synchronized(&self) -> bool {
        self.flags & flags::SYNCHRONIZED != 0
    }

    /// Whether it is private.
    pub fn is_private(&self) -> bool {
        self.flags & flags::PRIVATE != 0
    }

    /// Whether it is `<init>`.
    pub fn is_constructor(&self) -> bool {
        self.name.bytes() == b"<init>"
    }

    /// Whether it is `<clinit>`.
    pub fn is_class_initializer(&self) -> bool {
        self.name.bytes() == b"<clinit>"
    }

    /// Whether a property of [`extra`] holds.
    pub fn has(&self, property: u16) -> bool {
        self.extra.load(Ordering::Relaxed) & property != 0
    }

    /// Whether it is `MethodHandle.invokeExact`, `VarHandle.get` or another that takes any descriptor (JVMS 2.9.3).
    pub fn is_signature_polymorphic(&self) -> bool {
        let native_varargs = flags::NATIVE | flags::VARARGS;
        self.flags & native_varargs == native_varargs
            && matches!(self.class.name.bytes(), b"java/lang/invoke/MethodHandle" | b"java/lang/invoke/VarHandle")
            && self.descriptor.bytes().starts_with(b"([Ljava/lang/Object;)")
    }

    /// The line of the instruction at `bci`, if known.
    pub fn line_at(&self, bci: u16) -> Option<u16> {
        self.lines.iter().filter(|line| line.start <= bci).max_by_key(|line| line.start).map(|line| line.line)
    }

    /// The number with which it begins its life.
    pub fn first_entry(entry: Entry) -> AtomicU8 {
        AtomicU8::new(entry as u8)
    }

    /// `class.name(descriptor)` as external messages have it.
    pub fn external_name(&self) -> String {
        format!("{}.{}{}", self.class.name.dotted(), self.name, self.descriptor)
    }
}

/// What is needed to make a [`Method`] that no class file has.
impl Method {
    /// A method without code.
    pub fn synthetic(
        class: Meta<Class>,
        name: Symbol,
        descriptor: Symbol,
        flags: u16,
        slots: u16,
        entry: Entry,
    ) -> Self {
        let returns = descriptor.bytes().iter().position(|&byte| byte == b')');
        let returns =
            returns.and_then(|at| descriptor.bytes().get(at + 1)).map_or(BasicType::Void, |&c| BasicType::of(c));
        Self {
            class,
            pool: Link::empty(),
            name,
            descriptor,
            flags,
            extra: AtomicU16::new(0),
            argument_slots: slots,
            max_locals: slots,
            max_stack: 0,
            index: u16::MAX,
            returns,
            entry: Self::first_entry(entry),
            vtable_index: AtomicI32::new(-1),
            code: MetaSlice::default(),
            handlers: MetaSlice::default(),
            lines: MetaSlice::default(),
            native: AtomicUsize::new(0),
            library: AtomicUsize::new(0),
            calls: AtomicU32::new(0),
            back_edges: AtomicU32::new(0),
            exceptions: MetaSlice::default(),
            signature: None,
            parameters: MetaSlice::default(),
            has_parameters: false,
            annotations: MetaSlice::default(),
            parameter_annotations: MetaSlice::default(),
            type_annotations: MetaSlice::default(),
            annotation_default: MetaSlice::default(),
            stack_map_table: MetaSlice::default(),
        }
    }
}
