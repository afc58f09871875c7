//! Putting a class into the arena.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use classfile::attributes::Annotations;
use classfile::constants::Constant;
use classfile::opcode::Opcode;
use classfile::{ClassFile, flags};

use super::{Definition, layout, make_mirror, tables};
use crate::arena::{Chunks, Link, Meta, MetaSlice};
use crate::known;
use crate::loader::{self, LoaderData};
use crate::metadata::{
    BasicType, CallSite, Class, ClassState, DISPLAY, Entry, Field, Handler, InnerClass, LineNumber, LinkSlice, Method,
    Pool, PoolEntry, RecordComponent, Tag, extra,
};
use crate::object::{Kind, Shape, Span};
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

/// Names of hidden classes end with a number.
fn hidden_name(chunks: &Chunks, name: &[u8], number: u32) -> Symbol {
    let mut hidden = name.to_vec();
    hidden.extend_from_slice(format!("+{number:#018x}").as_bytes());
    Symbol::hidden(chunks, &hidden)
}

/// The symbols of a class file's constants, by index.
struct Symbols(Vec<Option<Symbol>>);

impl Symbols {
    fn at(&self, index: u16) -> Symbol {
        self.get(index).unwrap_or_else(|| Symbol::new(""))
    }

    fn get(&self, index: u16) -> Option<Symbol> {
        self.0.get(usize::from(index)).copied().flatten()
    }
}

/// Makes the symbols of a class file. Those of a class that may be unloaded are counted.
fn make_symbols(file: &ClassFile<'_>, permanent: bool) -> Symbols {
    let make = |constant: &Constant<'_>| match constant {
        Constant::Utf8(text) if permanent => Some(Symbol::new(text)),
        Constant::Utf8(text) => Some(Symbol::of_class(text)),
        _ => None,
    };
    Symbols(file.constants.entries().iter().map(make).collect())
}

/// Undoes [`make_symbols`] for a class that is unloaded.
pub(crate) fn release_symbols(class: Meta<Class>) {
    for pool in class.pools() {
        for (index, _) in (0..).zip(pool.tags.get()).filter(|(_, tag)| **tag == Tag::Utf8) {
            pool.symbol(index).release();
        }
    }
}

/// Builds the class for a loader, in the memory of the unit with which it is unloaded. Its superclasses are loaded and fit.
pub(super) fn build(
    (data, unit): (&LoaderData, &LoaderData),
    file: &ClassFile<'_>,
    bytes: &[u8],
    super_class: Option<Meta<Class>>,
    interfaces: &[Meta<Class>],
    definition: &Definition,
) -> Meta<Class> {
    let chunks = &unit.chunks;
    let symbols = &make_symbols(file, unit.unit() == 0);
    let given: Option<&[u8]> = definition.name.map(Symbol::bytes);
    let name = match definition.hidden {
        Some(number) => hidden_name(chunks, given.unwrap_or(file.name), number),
        None => Symbol::known(file.name),
    };
    let mirror_start = match boot_class_class() {
        Some(class) => Some(class.shape.size),
        None if file.name == b"java/lang/Class" => None,
        // Classes that are loaded before java.lang.Class have no static fields; their mirrors are made later.
        None => Some(0),
    };
    let (super_end, super_spans) =
        super_class.map_or((0, &[][..]), |class| (class.fields_end, class.get().shape.spans()));
    let layout = layout::lay_out(file, super_end, super_spans, mirror_start);

    let mut all_interfaces: Vec<Meta<Class>> =
        super_class.map_or(Vec::new(), |class| class.all_interfaces.get().to_vec());
    for &interface in interfaces {
        for &candidate in interface.all_interfaces.get().iter().chain([&interface]) {
            if !all_interfaces.contains(&candidate) {
                all_interfaces.push(candidate);
            }
        }
    }
    let is_interface = file.is_interface();
    let depth = super_class.map_or(0, |class| class.depth + 1);
    let spans = chunks.slice(layout.spans.iter().copied());
    let shape = Shape {
        span_count: u16::try_from(spans.len()).unwrap_or(u16::MAX),
        reference_map: spans.as_ptr(),
        mirror_size: if mirror_start == Some(0) { 0 } else { layout.mirror_size },
        statics: Span { offset: layout.static_references.0, count: layout.static_references.1 },
        loader: unit.unit(),
        ..Shape::new(object_kind(file.name, super_class), if is_interface { 0 } else { layout.size })
    };
    let class_flags = file.access_flags;
    let fields = fields(chunks, file, symbols, &layout.fields, definition.hidden.is_some() || file.record.is_some());
    let bytes = if data.is_boot() { MetaSlice::default() } else { chunks.aligned_bytes(bytes) };
    let class = Class {
        fields_end: layout.fields_end,
        flags: class_flags,
        super_class,
        interfaces: chunks.slice(interfaces.iter().copied()),
        all_interfaces: chunks.slice(all_interfaces.iter().copied()),
        fields,
        hidden: definition.hidden.is_some(),
        trusted: data.is_boot(),
        loader: data.id,
        depth,
        nest_host_index: file.nest_host.unwrap_or(0),
        nest_members: chunks.slice(file.nest_members.map_or(Vec::new(), |members| members.iter().collect())),
        permitted_subclasses: chunks
            .slice(file.permitted_subclasses.map_or(Vec::new(), |classes| classes.iter().collect())),
        sealed: file.permitted_subclasses.is_some(),
        record: file.record.is_some(),
        record_components: record_components(chunks, file, symbols),
        inner_classes: chunks.slice(
            file.inner_classes
                .iter()
                .map(|entry| InnerClass {
                    inner: entry.inner,
                    outer: entry.outer,
                    name: entry.name,
                    flags: entry.access_flags,
                })
                .collect::<Vec<_>>(),
        ),
        enclosing_method: file.enclosing_method.unwrap_or((0, 0)),
        signature: file.signature.and_then(|index| symbols.get(index)),
        source_file: file.source_file.map(Symbol::known),
        annotations: raw(chunks, file.annotations.visible),
        type_annotations: raw(chunks, file.annotations.visible_type),
        major_version: file.major_version,
        minor_version: file.minor_version,
        source_debug_extension: raw(chunks, file.source_debug_extension),
        class_file: (bytes.as_ptr().addr(), bytes.len()),
        ..blank(shape, name)
    };
    let class = chunks.allocate(class);
    set_display(class, super_class, depth);
    let mut call_sites = Vec::new();
    let methods: Vec<Meta<Method>> = file
        .methods
        .iter()
        .enumerate()
        .map(|(index, method)| {
            let built = build_method((chunks, symbols), class, file, method, index, data, &mut call_sites);
            if built.has(extra::FINALIZER) && file.name != b"java/lang/Object" {
                class.has_finalizer.store(true, Ordering::Relaxed);
            }
            chunks.allocate(built)
        })
        .collect();
    if super_class.is_some_and(|class| class.has_finalizer.load(Ordering::Relaxed)) {
        class.has_finalizer.store(true, Ordering::Relaxed);
    }
    let declared = chunks.slice(methods.iter().copied());
    class.methods.set(chunks.allocate(declared));
    let pool = pool(chunks, class, file, symbols, name, call_sites);
    class.pool.set(Some(pool));
    methods.iter().for_each(|method| method.pool.set(Some(pool)));
    // SAFETY: no other thread knows the class yet.
    let fresh = unsafe { &mut *class.as_ptr() };
    fresh.has_default_methods =
        is_interface && methods.iter().any(|method| !method.is_static() && !method.is_abstract());
    if is_interface {
        tables::number_interface(&methods);
        fresh.vtable = super_class.map_or(MetaSlice::default(), |object| object.vtable);
    } else {
        let vtable = tables::vtable(chunks, class, super_class, &methods, &all_interfaces, !interfaces.is_empty());
        fresh.vtable = chunks.slice(vtable.iter().copied());
        if !class.is_abstract() {
            fresh.itable = chunks.slice(tables::itable(chunks, class, &vtable, &all_interfaces));
        }
    }
    class
}

fn boot_class_class() -> Option<Meta<Class>> {
    loader::boot().find(Symbol::new("java/lang/Class"))
}

/// Bytes of a mirror without static fields.
fn plain_mirror_size() -> u32 {
    boot_class_class().map_or(0, |class| class.shape.size)
}

/// A class with nothing in it.
fn blank(shape: Shape, name: Symbol) -> Class {
    Class {
        shape,
        fields_end: 0,
        name,
        depth: 0,
        flags: 0,
        display: [const { Link::empty() }; DISPLAY],
        subtype_cache: Link::empty(),
        vtable: MetaSlice::default(),
        itable: MetaSlice::default(),
        state: Class::first_state(ClassState::Loaded),
        has_finalizer: AtomicBool::new(false),
        hidden: false,
        basic: BasicType::Reference,
        dimensions: 0,
        primitive: false,
        trusted: true,
        loader: 0,
        initializer: AtomicU32::new(0),
        super_class: None,
        interfaces: MetaSlice::default(),
        all_interfaces: MetaSlice::default(),
        element: None,
        array: Link::empty(),
        methods: LinkSlice::empty(),
        fields: MetaSlice::default(),
        pool: Link::empty(),
        nest_host: Link::empty(),
        nest_host_index: 0,
        nest_members: MetaSlice::default(),
        permitted_subclasses: MetaSlice::default(),
        sealed: false,
        record: false,
        record_components: MetaSlice::default(),
        inner_classes: MetaSlice::default(),
        enclosing_method: (0, 0),
        signature: None,
        source_file: None,
        annotations: MetaSlice::default(),
        type_annotations: MetaSlice::default(),
        major_version: 0,
        minor_version: 0,
        source_debug_extension: MetaSlice::default(),
        class_file: (0, 0),
        has_default_methods: false,
        itable_length: AtomicU16::new(0),
        reflection_flags: AtomicI32::new(0),
        redefined: AtomicU16::new(0),
    }
}

fn object_kind(name: &[u8], super_class: Option<Meta<Class>>) -> Kind {
    match name {
        b"java/lang/Class" => Kind::Mirror,
        b"java/lang/ClassLoader" => Kind::ClassLoader,
        b"java/lang/ref/SoftReference" => Kind::SoftReference,
        b"java/lang/ref/WeakReference" => Kind::WeakReference,
        b"java/lang/ref/FinalReference" => Kind::FinalReference,
        b"java/lang/ref/PhantomReference" => Kind::PhantomReference,
        _ => super_class.map_or(Kind::Instance, |class| class.shape.kind),
    }
}

fn set_display(class: Meta<Class>, super_class: Option<Meta<Class>>, depth: u16) {
    if let Some(super_class) = super_class {
        for (own, inherited) in class.display.iter().zip(&super_class.display) {
            own.set(inherited.get());
        }
    }
    if let Some(slot) = class.display.get(depth as usize) {
        slot.set(Some(class));
    }
}

fn raw(chunks: &Chunks, bytes: Option<&[u8]>) -> MetaSlice<u8> {
    bytes.map_or(MetaSlice::default(), |bytes| chunks.slice(bytes.iter().copied()))
}

fn fields(
    chunks: &Chunks,
    file: &ClassFile<'_>,
    symbols: &Symbols,
    plans: &[layout::Plan],
    constant: bool,
) -> MetaSlice<Field> {
    let declared = file.fields.iter().zip(plans).map(|(field, plan)| Field {
        name: Symbol::known(field.name),
        descriptor: Symbol::known(field.descriptor),
        flags: field.access_flags,
        kind: plan.kind,
        injected: false,
        trusted_final: field.access_flags & flags::FINAL != 0 && (constant || field.is_static()),
        offset: plan.offset,
        signature: field.signature.and_then(|index| symbols.get(index)),
        annotations: raw(chunks, field.annotations.visible),
        type_annotations: raw(chunks, field.annotations.visible_type),
    });
    let injected =
        layout::injected(file.name).zip(&plans[file.fields.len()..]).map(|((_, name, descriptor), plan)| Field {
            name: Symbol::new(name),
            descriptor: Symbol::new(descriptor),
            flags: flags::PRIVATE | flags::SYNTHETIC,
            kind: plan.kind,
            injected: true,
            trusted_final: false,
            offset: plan.offset,
            signature: None,
            annotations: MetaSlice::default(),
            type_annotations: MetaSlice::default(),
        });
    chunks.slice(declared.chain(injected).collect::<Vec<_>>())
}

fn record_components(chunks: &Chunks, file: &ClassFile<'_>, symbols: &Symbols) -> MetaSlice<RecordComponent> {
    let components = file.record.as_deref().unwrap_or_default().iter().map(|component| RecordComponent {
        name: symbols.at(component.name),
        descriptor: symbols.at(component.descriptor),
        signature: component.signature.map(|index| symbols.at(index)),
        annotations: raw(chunks, component.annotations.visible),
        type_annotations: raw(chunks, component.annotations.visible_type),
    });
    chunks.slice(components)
}

fn pool(
    chunks: &Chunks,
    class: Meta<Class>,
    file: &ClassFile<'_>,
    symbols: &Symbols,
    own_name: Symbol,
    call_sites: Vec<u16>,
) -> Meta<Pool> {
    let symbol = |index: u16| u64::from(symbols.at(index).offset());
    let pair = |a: u16, b: u16| (u64::from(a) << 16) | u64::from(b);
    let mut tags = Vec::with_capacity(file.constants.len());
    let mut entries = Vec::with_capacity(file.constants.len());
    for (index, constant) in file.constants.entries().iter().enumerate() {
        let (tag, value) = match *constant {
            Constant::Unusable => (Tag::Unusable, 0),
            #[allow(clippy::cast_possible_truncation, reason = "a pool has at most 65,535 constants")]
            Constant::Utf8(_) => (Tag::Utf8, symbol(index as u16)),
            Constant::Integer(value) => (Tag::Integer, u64::from(value.cast_unsigned())),
            Constant::Float(value) => (Tag::Float, u64::from(value.to_bits())),
            Constant::Long(value) => (Tag::Long, value.cast_unsigned()),
            Constant::Double(value) => (Tag::Double, value.to_bits()),
            Constant::Class(_) if index == file.this_class as usize => (Tag::Class, u64::from(own_name.offset())),
            Constant::Class(name) => (Tag::Class, symbol(name)),
            Constant::String(text) => (Tag::String, symbol(text)),
            Constant::Field(member) => (Tag::Field, pair(member.class, member.name_and_type)),
            Constant::Method(member) => (Tag::Method, pair(member.class, member.name_and_type)),
            Constant::InterfaceMethod(member) => (Tag::InterfaceMethod, pair(member.class, member.name_and_type)),
            Constant::NameAndType { name, descriptor } => (Tag::NameAndType, (symbol(name) << 32) | symbol(descriptor)),
            Constant::MethodHandle { kind, member } => (Tag::MethodHandle, pair(u16::from(kind), member)),
            Constant::MethodType(descriptor) => (Tag::MethodType, symbol(descriptor)),
            Constant::Dynamic(dynamic) => (Tag::Dynamic, pair(dynamic.bootstrap, dynamic.name_and_type)),
            Constant::InvokeDynamic(dynamic) => (Tag::InvokeDynamic, pair(dynamic.bootstrap, dynamic.name_and_type)),
            Constant::Module(name) => (Tag::Module, symbol(name)),
            Constant::Package(name) => (Tag::Package, symbol(name)),
        };
        let resolved = if index == file.this_class as usize { u64::from(class.offset()) } else { 0 };
        tags.push(tag);
        entries.push(PoolEntry { value, resolved: AtomicU64::new(resolved), cache: AtomicU64::new(0) });
    }
    let bootstrap: Vec<MetaSlice<u16>> = file
        .bootstrap_methods
        .iter()
        .map(|method| chunks.slice([method.method].into_iter().chain(method.arguments.iter()).collect::<Vec<_>>()))
        .collect();
    let constant_values: Vec<(u16, u16)> = file
        .fields
        .iter()
        .enumerate()
        .filter_map(|(index, field)| Some((u16::try_from(index).ok()?, field.constant_value?)))
        .collect();
    chunks.allocate(Pool {
        class,
        tags: chunks.slice(tags),
        entries: chunks.slice(entries),
        bootstrap_methods: chunks.slice(bootstrap),
        call_sites: chunks.slice(
            call_sites
                .into_iter()
                .map(|constant| CallSite { constant, method: Link::empty(), appendix: AtomicU64::new(0) })
                .collect::<Vec<_>>(),
        ),
        constant_values: chunks.slice(constant_values),
        previous: Link::empty(),
    })
}

fn build_method(
    (chunks, symbols): (&Chunks, &Symbols),
    class: Meta<Class>,
    file: &ClassFile<'_>,
    method: &classfile::Method<'_>,
    index: usize,
    data: &LoaderData,
    call_sites: &mut Vec<u16>,
) -> Method {
    let name = Symbol::known(method.name);
    let descriptor = Symbol::known(method.descriptor);
    let entry = if method.access_flags & flags::NATIVE != 0 {
        Entry::NativeUnlinked
    } else if method.access_flags & flags::ABSTRACT != 0 {
        Entry::Abstract
    } else {
        Entry::Bytecode
    };
    let mut built = Method {
        index: u16::try_from(index).unwrap_or(u16::MAX),
        exceptions: chunks.slice(method.exceptions.iter().collect::<Vec<_>>()),
        signature: method.signature.and_then(|index| symbols.get(index)),
        parameters: chunks.slice(
            method
                .parameters
                .map_or(Vec::new(), |table| table.iter().map(|p| (p.name, p.access_flags)).collect::<Vec<_>>()),
        ),
        has_parameters: method.parameters.is_some(),
        annotations: raw(chunks, method.annotations.visible),
        parameter_annotations: raw(chunks, method.annotations.visible_parameter),
        type_annotations: raw(chunks, method.annotations.visible_type),
        annotation_default: raw(chunks, method.annotations.default),
        native: AtomicUsize::new(0),
        library: AtomicUsize::new(0),
        ..Method::synthetic(class, name, descriptor, method.access_flags, method.argument_slots, entry)
    };
    // Stack traces do not show what hidden classes do.
    let mut extras = if class.hidden { extra::HIDDEN } else { 0 };
    if data.unit() == 0 {
        extras |= library_annotations(file, &method.annotations);
    }
    if let Some(code) = &method.code {
        built.max_locals = code.max_locals;
        built.max_stack = code.max_stack;
        let mut bytes = code.bytes.to_vec();
        for instruction in code.instructions().map_while(std::result::Result::ok) {
            match instruction.opcode {
                Opcode::InvokeDynamic => {
                    let at = instruction.offset as usize + 1;
                    let constant = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                    let number = u32::try_from(call_sites.len()).unwrap_or(u32::MAX);
                    bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
                    call_sites.push(constant);
                }
                Opcode::Jsr | Opcode::JsrW => extras |= extra::SUBROUTINES,
                Opcode::MonitorEnter => extras |= extra::MONITORS,
                _ => {}
            }
        }
        if method.name == b"finalize" && method.descriptor == b"()V" && code.bytes.len() > 1 {
            extras |= extra::FINALIZER;
        }
        built.code = chunks.aligned_bytes(&bytes);
        built.handlers = chunks.slice(
            code.handlers
                .iter()
                .map(|range| Handler {
                    start: range.start,
                    end: range.end,
                    target: range.handler,
                    catch_type: range.catch_type,
                })
                .collect::<Vec<_>>(),
        );
        built.lines = chunks.slice(
            code.line_numbers().map(|line| LineNumber { start: line.start, line: line.line }).collect::<Vec<_>>(),
        );
        built.stack_map_table = raw(chunks, code.stack_map_table);
    }
    built.extra = AtomicU16::new(extras);
    built
}

/// Properties that the library's own annotations give to its methods. All of these have no elements, and javac puts them first or alone; others
/// are stepped over.
fn library_annotations(file: &ClassFile<'_>, annotations: &Annotations<'_>) -> u16 {
    let Some(bytes) = annotations.visible else { return 0 };
    let u16_at = |at: usize| bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (Some(count), mut at) = (u16_at(0), 2) else { return 0 };
    let mut found = 0;
    for _ in 0..count {
        let (Some(name), Some(elements)) = (u16_at(at), u16_at(at + 2)) else { break };
        found |= match file.constants.utf8(name).unwrap_or_default() {
            b"Ljdk/internal/reflect/CallerSensitive;" => extra::CALLER_SENSITIVE,
            b"Ljava/lang/invoke/LambdaForm$Hidden;" | b"Ljdk/internal/vm/annotation/Hidden;" => extra::HIDDEN,
            b"Ljava/lang/invoke/LambdaForm$Compiled;" => extra::LAMBDA_FORM,
            b"Ljdk/internal/vm/annotation/ForceInline;" => extra::FORCE_INLINE,
            b"Ljdk/internal/misc/ScopedMemoryAccess$Scoped;" => extra::SCOPED,
            _ => 0,
        };
        at += 4;
        for _ in 0..elements {
            match element_end(bytes, at + 2) {
                Some(end) => at = end,
                None => return found,
            }
        }
    }
    found
}

/// Where an element value ends (JVMS 4.7.16.1); `None` for one that nests, which ends the search.
fn element_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'B' | b'C' | b'D' | b'F' | b'I' | b'J' | b'S' | b'Z' | b's' | b'c' => Some(at + 3),
        b'e' => Some(at + 5),
        b'[' => {
            let count = u16::from_be_bytes([*bytes.get(at + 1)?, *bytes.get(at + 2)?]);
            (0..count).try_fold(at + 3, |at, _| element_end(bytes, at))
        }
        _ => None,
    }
}

/// Makes the class of arrays of `element`.
pub fn make_array_class(thread: &mut Thread, element: Meta<Class>) -> Result<Meta<Class>> {
    let unit = loader::unit(element);
    let mut name = vec![b'['];
    if element.primitive {
        name.push(element.basic.letter());
    } else if element.is_array() {
        name.extend_from_slice(element.name.bytes());
    } else {
        name.push(b'L');
        name.extend_from_slice(element.name.bytes());
        name.push(b';');
    }
    let mut bottom = element;
    while let Some(inner) = bottom.element {
        bottom = inner;
    }
    // As nobody finds a hidden class by its name, nobody finds its arrays.
    let name = if bottom.hidden { Symbol::hidden(&unit.chunks, &name) } else { Symbol::new(name) };
    let kind = if element.primitive { Kind::PrimitiveArray } else { Kind::ReferenceArray };
    let shift = if element.primitive { element.basic.shift() } else { 2 };
    let shape = Shape {
        element_shift: shift,
        mirror_size: plain_mirror_size(),
        loader: element.shape.loader,
        ..Shape::new(kind, 0)
    };
    let object = known::object();
    let interfaces = [known::cloneable(), known::serializable()];
    let visibility = element.flags & (flags::PUBLIC | flags::PRIVATE | flags::PROTECTED);
    let class = unit.chunks.allocate(Class {
        flags: visibility | flags::FINAL | flags::ABSTRACT,
        depth: 1,
        vtable: object.vtable,
        basic: if element.primitive { element.basic } else { BasicType::Reference },
        dimensions: element.dimensions + 1,
        loader: element.loader,
        super_class: Some(object),
        interfaces: unit.chunks.slice(interfaces),
        all_interfaces: unit.chunks.slice(interfaces),
        element: Some(element),
        state: Class::first_state(ClassState::Initialized),
        ..blank(shape, name)
    });
    set_display(class, Some(object), 1);
    make_mirror(thread, class, None)?;
    Ok(element.array.set_once(class))
}

/// Makes the classes of primitive types and of their arrays. `java.lang.Class` and its mirrors are there.
pub fn make_primitive_classes(thread: &mut Thread) -> Result<()> {
    for kind in BasicType::PRIMITIVES {
        let shape = Shape { mirror_size: plain_mirror_size(), ..Shape::new(Kind::Instance, 0) };
        let class = loader::boot().chunks.allocate(Class {
            flags: flags::PUBLIC | flags::FINAL | flags::ABSTRACT,
            basic: kind,
            primitive: true,
            state: Class::first_state(ClassState::Initialized),
            ..blank(shape, Symbol::new(kind.name()))
        });
        make_mirror(thread, class, None)?;
        let array = if kind == BasicType::Void { None } else { Some(make_array_class(thread, class)?) };
        loader::set_primitive(kind, class, array);
    }
    Ok(())
}
