//! What reflection needs: objects for fields, methods and constructors, and calling them.

use classfile::flags;

use super::java_lang_class::mirrors;
use super::{Arguments, Table, boolean, int};
use crate::allocate;
use crate::arena::Meta;
use crate::boxing;
use crate::exceptions;
use crate::handle::Handle;
use crate::interpreter;
use crate::known;
use crate::link;
use crate::loader;
use crate::metadata::{BasicType, Class, Field, Method, extra};
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    (
        "jdk/internal/reflect/Reflection",
        &[
            ("getCallerClass", "", caller_class),
            ("getClassAccessFlags", "", |_, a| int(i32::from(loader::of_mirror(a.reference(0)).flags))),
            ("areNestMates", "", nest_mates),
        ],
    ),
    ("jdk/internal/reflect/NativeMethodAccessorImpl", &[("invoke0", "", invoke)]),
    ("jdk/internal/reflect/NativeConstructorAccessorImpl", &[("newInstance0", "", new_instance)]),
    ("jdk/internal/reflect/DirectConstructorHandleAccessor$NativeAccessor", &[("newInstance0", "", new_instance)]),
    (
        "java/lang/reflect/Executable",
        &[("getParameters0", "", parameters), ("getTypeAnnotationBytes0", "", executable_type_annotations)],
    ),
    ("java/lang/SecurityManager", &[("getClassContext", "", class_context)]),
    ("java/lang/reflect/Field", &[("getTypeAnnotationBytes0", "", field_type_annotations)]),
];

/// A `byte[]`; null if there is nothing in it.
pub(super) fn bytes(thread: &mut Thread, bytes: &[u8]) -> Result<u64> {
    if bytes.is_empty() { Ok(0) } else { allocate::byte_array(thread, bytes).map(Reference::slot) }
}

/// The method on whose behalf the caller of this native acts: frames of reflection do not count.
fn caller_class(thread: &mut Thread, _: Arguments) -> Result<u64> {
    // Frame 0 is getCallerClass, 1 the method that asks, 2 its caller.
    let caller = thread.frames().skip(2).map(|frame| frame.method()).find(|method| !is_ignored(*method));
    Ok(caller.map_or(0, |method| method.class.mirror().slot()))
}

/// The classes of the methods that are under way, the youngest first.
fn class_context(thread: &mut Thread, _: Arguments) -> Result<u64> {
    // Neither getClassContext itself nor what reflection puts between.
    let shown = |method: &Meta<Method>| !method.is_native() && !is_ignored(*method);
    let classes: Vec<Meta<Class>> =
        thread.frames().map(|frame| frame.method()).filter(shown).map(|method| method.class).collect();
    mirrors(thread, &classes).map(Reference::slot)
}

fn is_ignored(method: Meta<Method>) -> bool {
    method.has(extra::LAMBDA_FORM)
        || (method.class.name.bytes() == b"java/lang/reflect/Method" && method.name.bytes() == b"invoke")
        || method.class.superclasses().any(|class| class.name.bytes() == b"jdk/internal/reflect/MethodAccessorImpl")
}

fn nest_mates(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (a, b) = (loader::of_mirror(arguments.reference(0)), loader::of_mirror(arguments.reference(1)));
    boolean(link::nest_host(thread, a) == link::nest_host(thread, b))
}

/// A new instance of a class of the library, initialised as a class.
fn object(thread: &mut Thread, class: Meta<Class>) -> Result<Handle> {
    link::initialize(thread, class)?;
    let object = allocate::instance(thread, class)?;
    Ok(thread.handle(object))
}

fn set(object: Handle, name: &str, descriptor: &str, value: Reference) {
    object.get().set_reference(known::field(object.get().class(), name, descriptor), value);
}

fn set_int(object: Handle, name: &str, value: i32) {
    object.get().write(known::field(object.get().class(), name, "I"), value);
}

fn set_text(thread: &mut Thread, object: Handle, name: &str, text: Symbol) -> Result<()> {
    let string = strings::intern_symbol(thread, text)?;
    set(object, name, "Ljava/lang/String;", string.get());
    Ok(())
}

fn set_bytes(thread: &mut Thread, object: Handle, name: &str, bytes: &[u8]) -> Result<()> {
    if !bytes.is_empty() {
        let array = allocate::byte_array(thread, bytes)?;
        set(object, name, "[B", array);
    }
    Ok(())
}

/// The class of a type in a member's descriptor.
fn type_class(thread: &mut Thread, class: Meta<Class>, descriptor: &[u8]) -> Result<Meta<Class>> {
    match loader::load_type(thread, descriptor, loader::data(class.loader)) {
        Ok(found) => Ok(found),
        Err(_) if thread.exception.class().is_subtype_of(known::class_not_found()) => {
            let name = classfile::mutf8::decode(
                descriptor.strip_prefix(b"L").and_then(|name| name.strip_suffix(b";")).unwrap_or(descriptor),
            );
            Err(exceptions::throw_caused(thread, "java/lang/NoClassDefFoundError", &name))
        }
        Err(thrown) => Err(thrown),
    }
}

fn list(thread: &mut Thread, class: Meta<Class>, objects: &[Handle]) -> Result<u64> {
    let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
    let array = allocate::reference_array(thread, class, count)?;
    for (index, object) in (0..count).zip(objects) {
        array.set_reference_element(index, object.get());
    }
    Ok(array.slot())
}

pub(super) fn declared_fields(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = loader::of_mirror(arguments.reference(0));
    // Looking at its members links a class.
    if class.is_instance_class() || class.is_interface() {
        crate::link::link(thread, class)?;
    }
    let public_only = arguments.boolean(1);
    let mut found = Vec::new();
    for (slot, field) in class.fields.get().iter().enumerate() {
        if field.injected || (public_only && field.flags & flags::PUBLIC == 0) {
            continue;
        }
        found.push(field_object(thread, class, field, slot)?);
    }
    list(thread, known::reflect_field(), &found)
}

/// The `java.lang.reflect.Field` of a field that a class declares.
pub(crate) fn reflected_field(thread: &mut Thread, class: Meta<Class>, field: &'static Field) -> Result<Handle> {
    let slot = class.fields.get().iter().position(|other| std::ptr::eq(other, field));
    field_object(thread, class, field, slot.unwrap_or(0))
}

fn field_object(thread: &mut Thread, class: Meta<Class>, field: &Field, slot: usize) -> Result<Handle> {
    let object = object(thread, known::reflect_field())?;
    set(object, "clazz", "Ljava/lang/Class;", class.mirror());
    set_int(object, "slot", i32::try_from(slot).unwrap_or(-1));
    set_text(thread, object, "name", field.name)?;
    let field_type = type_class(thread, class, field.descriptor.bytes())?;
    set(object, "type", "Ljava/lang/Class;", field_type.mirror());
    set_int(object, "modifiers", i32::from(field.flags));
    object.get().write(known::field(known::reflect_field(), "trustedFinal", "Z"), field.trusted_final);
    if let Some(signature) = field.signature {
        set_text(thread, object, "signature", signature)?;
    }
    set_bytes(thread, object, "annotations", field.annotations.get())?;
    Ok(object)
}

/// The method that a `java.lang.reflect.Method` or `Constructor` stands for.
fn method_of(reflected: Reference) -> Meta<Method> {
    let constructor = reflected.class() == known::reflect_constructor();
    let (class, slot): (Reference, i32) = if constructor {
        (reflected.reference(known::constructor_class()), reflected.read(known::constructor_slot()))
    } else {
        (reflected.reference(known::method_class()), reflected.read(known::method_slot()))
    };
    loader::of_mirror(class).methods.get()[usize::try_from(slot).unwrap_or(0)]
}

/// `Executable.getParameters0`: null if the compiler wrote no names.
fn parameters(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let method = method_of(arguments.reference(0));
    if !method.has_parameters {
        return Ok(0);
    }
    let pool = method.constants();
    let element = loader::boot_class("java/lang/reflect/Parameter");
    let mut found = Vec::new();
    for (index, &(name, flags)) in method.parameters.get().iter().enumerate() {
        if name != 0 && pool.tag(name) != crate::metadata::Tag::Utf8 {
            let message = "Wrong type at constant pool index";
            return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", message));
        }
        let parameter = object(thread, element)?;
        if name != 0 {
            set_text(thread, parameter, "name", pool.symbol(name))?;
        }
        set_int(parameter, "modifiers", i32::from(flags));
        set_int(parameter, "index", i32::try_from(index).unwrap_or(-1));
        set(parameter, "executable", "Ljava/lang/reflect/Executable;", arguments.reference(0));
        found.push(parameter);
    }
    list(thread, element, &found)
}

fn executable_type_annotations(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let method = method_of(arguments.reference(0));
    bytes(thread, method.type_annotations.get())
}

fn field_type_annotations(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let reflected = arguments.reference(0);
    let class = loader::of_mirror(reflected.reference(known::field_class()));
    let slot: i32 = reflected.read(known::field_slot());
    bytes(thread, class.fields.get()[usize::try_from(slot).unwrap_or(0)].type_annotations.get())
}

fn executable(thread: &mut Thread, object: Handle, method: Meta<Method>) -> Result<()> {
    let class = method.class;
    set(object, "clazz", "Ljava/lang/Class;", class.mirror());
    set_int(object, "slot", i32::from(method.index));
    let Some(parsed) = classfile::names::MethodType::parse(method.descriptor.bytes()) else { return Ok(()) };
    let mut parameters = Vec::new();
    for parameter in parsed.parameters() {
        parameters.push(type_class(thread, class, parameter.descriptor)?);
    }
    let array = mirrors(thread, &parameters)?;
    set(object, "parameterTypes", "[Ljava/lang/Class;", array);
    let mut exceptions = Vec::new();
    for &index in method.exceptions.get() {
        exceptions.push(link::resolve_class(thread, method.constants(), index)?);
    }
    let array = mirrors(thread, &exceptions)?;
    set(object, "exceptionTypes", "[Ljava/lang/Class;", array);
    set_int(object, "modifiers", i32::from(method.flags));
    if let Some(signature) = method.signature {
        set_text(thread, object, "signature", signature)?;
    }
    set_bytes(thread, object, "annotations", method.annotations.get())?;
    set_bytes(thread, object, "parameterAnnotations", method.parameter_annotations.get())
}

/// The `java.lang.reflect.Method` or `Constructor` of a method.
pub(crate) fn reflected(thread: &mut Thread, method: Meta<Method>) -> Result<Handle> {
    if method.is_constructor() {
        let object = object(thread, known::reflect_constructor())?;
        executable(thread, object, method)?;
        return Ok(object);
    }
    let object = object(thread, known::reflect_method())?;
    executable(thread, object, method)?;
    set_text(thread, object, "name", method.name)?;
    let returns =
        classfile::names::MethodType::parse(method.descriptor.bytes()).map(|parsed| parsed.returns().descriptor);
    let returns = type_class(thread, method.class, returns.unwrap_or(b"V"))?;
    set(object, "returnType", "Ljava/lang/Class;", returns.mirror());
    set_bytes(thread, object, "annotationDefault", method.annotation_default.get())?;
    Ok(object)
}

fn declared(thread: &mut Thread, arguments: Arguments, constructors: bool, element: Meta<Class>) -> Result<u64> {
    let class = loader::of_mirror(arguments.reference(0));
    // Looking at its members links a class.
    if class.is_instance_class() || class.is_interface() {
        crate::link::link(thread, class)?;
    }
    let public_only = arguments.boolean(1);
    let mut found = Vec::new();
    for &method in class.methods.get() {
        let visible = !public_only || method.flags & flags::PUBLIC != 0;
        if visible && !method.is_class_initializer() && method.is_constructor() == constructors {
            found.push(reflected(thread, method)?);
        }
    }
    list(thread, element, &found)
}

pub(super) fn declared_methods(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    declared(thread, arguments, false, known::reflect_method())
}

pub(super) fn declared_constructors(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    declared(thread, arguments, true, known::reflect_constructor())
}

pub(super) fn record_components(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = loader::of_mirror(arguments.reference(0));
    let element = loader::boot_class("java/lang/reflect/RecordComponent");
    let mut found = Vec::new();
    for component in class.record_components.get() {
        let object = object(thread, element)?;
        set(object, "clazz", "Ljava/lang/Class;", class.mirror());
        set_text(thread, object, "name", component.name)?;
        let component_type = type_class(thread, class, component.descriptor.bytes())?;
        set(object, "type", "Ljava/lang/Class;", component_type.mirror());
        if let Some(signature) = component.signature {
            set_text(thread, object, "signature", signature)?;
        }
        set_bytes(thread, object, "annotations", component.annotations.get())?;
        set_bytes(thread, object, "typeAnnotations", component.type_annotations.get())?;
        let accessor = class.declared_method(component.name, Symbol::new(format!("(){}", component.descriptor)));
        if let Some(accessor) = accessor.filter(|method| !method.is_static()) {
            let accessor = reflected(thread, accessor)?;
            set(object, "accessor", "Ljava/lang/reflect/Method;", accessor.get());
        }
        found.push(object);
    }
    list(thread, element, &found)
}

pub(super) fn constant_pool(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let pool = object(thread, loader::boot_class("jdk/internal/reflect/ConstantPool"))?;
    set(pool, "constantPoolOop", "Ljava/lang/Object;", arguments.reference(0));
    Ok(pool.slot())
}

/// Converts an argument of reflection to a slot of the parameter's type (JLS 5.1.2); `None` if it does not fit.
pub(crate) fn convert(value: Reference, to: Meta<Class>) -> Option<u64> {
    if !to.primitive {
        return (value.is_null() || value.class().is_subtype_of(to)).then(|| value.slot());
    }
    let (from, bits) = boxing::unbox(value)?;
    widen(from, bits, to.basic)
}

/// Widens a primitive value (JLS 5.1.2); `None` if the type is not wider.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "conversions of the JLS")]
pub(super) fn widen(from: BasicType, bits: u64, to: BasicType) -> Option<u64> {
    use BasicType::{Byte, Char, Double, Float, Int, Long, Short};
    if from == to {
        return Some(bits);
    }
    let number = i64::from((bits as u32).cast_signed());
    let whole = match from {
        Byte | Short | Char | Int => number,
        Long => bits.cast_signed(),
        Float if to == Double => return Some(f64::from(f32::from_bits(bits as u32)).to_bits()),
        _ => return None,
    };
    Some(match (from, to) {
        (Byte, Short) | (Byte | Short | Char, Int) => bits,
        (Byte | Short | Char | Int, Long) => whole.cast_unsigned(),
        (_, Float) => u64::from((whole as f32).to_bits()),
        (_, Double) => (whole as f64).to_bits(),
        _ => return None,
    })
}

/// Calls a method with an array of boxed arguments; exceptions become the cause of InvocationTargetException.
fn invoke_method(
    thread: &mut Thread,
    method: Meta<Method>,
    receiver: Option<Handle>,
    array: Handle,
    types: Handle,
) -> Result<u64> {
    let mut slots = Vec::with_capacity(method.argument_slots as usize);
    let count = types.get().length();
    let given = if array.is_null() { 0 } else { array.get().length() };
    if count != given {
        return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", "wrong number of arguments"));
    }
    if let Some(receiver) = receiver {
        slots.push(receiver.slot());
    }
    for index in 0..count {
        let parameter = loader::of_mirror(types.get().reference_element(index));
        let value = array.get().reference_element(index);
        let Some(slot) = convert(value, parameter) else {
            let message = "argument type mismatch";
            return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", message));
        };
        slots.push(slot);
        if parameter.primitive && parameter.basic.slots() == 2 {
            slots.push(0);
        }
    }
    match interpreter::call(thread, method, &slots) {
        Ok(value) => Ok(value),
        Err(_) => {
            let exception = thread.take_exception();
            let exception = thread.handle(exception);
            let class = loader::boot_class("java/lang/reflect/InvocationTargetException");
            link::initialize(thread, class)?;
            let wrapper = allocate::instance(thread, class)?;
            let wrapper = thread.handle(wrapper);
            let constructor = class
                .declared_method(Symbol::new("<init>"), Symbol::new("(Ljava/lang/Throwable;)V"))
                .expect("InvocationTargetException has a constructor with a cause");
            interpreter::call(thread, constructor, &[wrapper.slot(), exception.slot()])?;
            Err(thread.throw(wrapper.get()))
        }
    }
}

fn invoke(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let reflected = arguments.reference(0);
    let class = loader::of_mirror(reflected.reference(known::method_class()));
    let slot: i32 = reflected.read(known::method_slot());
    let types = reflected.reference(known::field(known::reflect_method(), "parameterTypes", "[Ljava/lang/Class;"));
    let types = thread.handle(types);
    let array = thread.handle(arguments.reference(2));
    let mut method = class.methods.get()[usize::try_from(slot).unwrap_or(0)];
    let receiver = if method.is_static() {
        link::initialize(thread, class)?;
        None
    } else {
        let receiver = arguments.reference(1);
        if receiver.is_null() {
            return Err(exceptions::null_pointer(thread));
        }
        if !receiver.class().is_subtype_of(class) {
            return Err(exceptions::throw(
                thread,
                "java/lang/IllegalArgumentException",
                "object is not an instance of declaring class",
            ));
        }
        method = link::select_method(receiver.class(), method);
        Some(thread.handle(receiver))
    };
    let value = invoke_method(thread, method, receiver, array, types)?;
    boxing::box_value(thread, method.returns, value).map(Reference::slot)
}

fn new_instance(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let reflected = arguments.reference(0);
    let class = loader::of_mirror(reflected.reference(known::constructor_class()));
    let slot: i32 = reflected.read(known::constructor_slot());
    let types = reflected.reference(known::field(known::reflect_constructor(), "parameterTypes", "[Ljava/lang/Class;"));
    let types = thread.handle(types);
    let array = thread.handle(arguments.reference(1));
    let method = class.methods.get()[usize::try_from(slot).unwrap_or(0)];
    link::initialize(thread, class)?;
    if class.is_abstract() {
        return Err(exceptions::throw_plain(thread, "java/lang/InstantiationException"));
    }
    let object = interpreter::new_instance(thread, class)?;
    let object = thread.handle(object);
    invoke_method(thread, method, Some(object), array, types)?;
    Ok(object.slot())
}
