//! `java.lang.Class`.

use classfile::flags;

use super::java_lang_reflect as reflect;
use super::{Arguments, Table, boolean, int};
use crate::allocate;
use crate::arena::Meta;
use crate::bootstrap;
use crate::exceptions;
use crate::known;
use crate::link;
use crate::loader;
use crate::metadata::{BasicType, Class, InnerClass};
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[(
    "java/lang/Class",
    &[
        ("forName0", "", for_name),
        ("isInstance", "", is_instance),
        ("isAssignableFrom", "", is_assignable_from),
        ("isInterface", "", |_, a| boolean(this(a).is_interface())),
        ("isArray", "", |_, a| boolean(this(a).is_array())),
        ("isPrimitive", "", |_, a| boolean(this(a).primitive)),
        ("isHidden", "", |_, a| boolean(this(a).hidden)),
        ("isRecord0", "", |_, a| boolean(this(a).record)),
        ("initClassName", "", init_class_name),
        ("getSuperclass", "", superclass),
        ("getInterfaces0", "", interfaces),
        ("getModifiers", "", |_, a| int(modifiers(this(a)))),
        ("getSigners", "", |_, a| Ok(a.reference(0).reference(known::class_signers()).slot())),
        ("setSigners", "", set_signers),
        ("getEnclosingMethod0", "", enclosing_method),
        ("getDeclaringClass0", "", declaring_class),
        ("getSimpleBinaryName0", "", simple_binary_name),
        ("getProtectionDomain0", "", |_, a| Ok(a.reference(0).reference(known::class_protection_domain()).slot())),
        ("getPrimitiveClass", "", primitive_class),
        ("getGenericSignature0", "", generic_signature),
        ("getRawAnnotations", "", |thread, a| reflect::bytes(thread, this(a).annotations.get())),
        ("getRawTypeAnnotations", "", |thread, a| reflect::bytes(thread, this(a).type_annotations.get())),
        ("getConstantPool", "", reflect::constant_pool),
        ("getDeclaredFields0", "", reflect::declared_fields),
        ("getDeclaredMethods0", "", reflect::declared_methods),
        ("getDeclaredConstructors0", "", reflect::declared_constructors),
        ("getDeclaredClasses0", "", declared_classes),
        ("getRecordComponents0", "", reflect::record_components),
        ("desiredAssertionStatus0", "", |_, a| {
            let class = loader::of_mirror(a.reference(0));
            boolean(bootstrap::assertions().are_on(&class.external_name(), class.trusted))
        }),
        ("getNestHost0", "", nest_host),
        ("getNestMembers0", "", nest_members),
        ("getPermittedSubclasses0", "", permitted_subclasses),
    ],
)];

/// The class that the receiver stands for.
fn this(arguments: Arguments) -> Meta<Class> {
    loader::of_mirror(arguments.reference(0))
}

fn for_name(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = arguments.reference(0);
    if name.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let text = strings::text(name);
    let symbol = strings::class_symbol(name);
    // Names have dots; with slashes there is no such class.
    if text.contains('/') || text.is_empty() {
        return Err(exceptions::throw(thread, "java/lang/ClassNotFoundException", text));
    }
    let class = loader::load(thread, *symbol, loader::of(arguments.reference(2)))?;
    if arguments.boolean(1) {
        link::initialize(thread, class)?;
    }
    Ok(class.mirror().slot())
}

fn is_instance(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = arguments.reference(1);
    boolean(!object.is_null() && object.class().is_subtype_of(this(arguments)))
}

fn is_assignable_from(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let other = arguments.reference(1);
    if other.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    boolean(loader::of_mirror(other).is_subtype_of(this(arguments)))
}

fn init_class_name(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = strings::new(thread, &this(arguments).external_name())?;
    let name = strings::intern(name);
    arguments.reference(0).set_reference(known::class_name(), name);
    Ok(name.slot())
}

fn superclass(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    let parent = if class.is_interface() { None } else { class.super_class };
    Ok(parent.map_or(0, |class| class.mirror().slot()))
}

/// An array of mirrors.
pub(super) fn mirrors(thread: &mut Thread, classes: &[Meta<Class>]) -> Result<Reference> {
    let count = u32::try_from(classes.len()).unwrap_or(u32::MAX);
    let array = allocate::reference_array(thread, known::class(), count)?;
    for (index, class) in (0..count).zip(classes) {
        array.set_reference_element(index, class.mirror());
    }
    Ok(array)
}

fn interfaces(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    mirrors(thread, this(arguments).interfaces.get()).map(Reference::slot)
}

/// The flags as the source has them: those of `InnerClasses`, if the class is in it.
pub(super) fn modifiers(class: Meta<Class>) -> i32 {
    let own = class.inner_classes.get().iter().find(|entry| class.constants().symbol(entry.inner) == class.name);
    let bits = own.map_or(class.flags, |entry| entry.flags) & !flags::SUPER;
    let mut bits = i32::from(bits);
    if let Some(element) = class.element {
        let mut bottom = element;
        while let Some(inner) = bottom.element {
            bottom = inner;
        }
        let visible = i32::from(flags::PUBLIC | flags::PRIVATE | flags::PROTECTED);
        bits = (modifiers(bottom) & visible) | i32::from(flags::FINAL | flags::ABSTRACT);
    }
    bits
}

fn set_signers(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    arguments.reference(0).set_reference(known::class_signers(), arguments.reference(1));
    Ok(0)
}

fn enclosing_method(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    let (outer, method) = class.enclosing_method;
    if outer == 0 || !class.is_instance_class() {
        return Ok(0);
    }
    let outer = link::resolve_class(thread, class.constants(), outer)?;
    let array = allocate::object_array(thread, 3)?;
    let array = thread.handle(array);
    array.get().set_reference_element(0, outer.mirror());
    if method != 0 {
        let (name, descriptor) = class.constants().name_and_type(method);
        for (index, text) in [(1, name), (2, descriptor)] {
            let string = strings::intern_symbol(thread, text)?;
            array.get().set_reference_element(index, string.get());
        }
    }
    Ok(array.slot())
}

fn declaring_class(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    if !class.is_instance_class() {
        return Ok(0);
    }
    let pool = class.constants();
    let own = class.inner_classes.get().iter().find(|entry| pool.symbol(entry.inner) == class.name);
    let Some(outer) = own.map(|entry| entry.outer).filter(|&outer| outer != 0) else { return Ok(0) };
    let outer = link::resolve_class(thread, class.constants(), outer)?;
    // The other must say so, too.
    let listed = || {
        let pool = outer.constants();
        let names = |entry: &&InnerClass| {
            entry.outer != 0 && pool.symbol(entry.outer) == outer.name && pool.symbol(entry.inner) == class.name
        };
        outer.inner_classes.get().iter().find(names).map(|entry| entry.inner)
    };
    let inner = if outer.is_instance_class() { listed() } else { None };
    let agrees = match inner {
        Some(inner) => link::resolve_class(thread, outer.constants(), inner)? == class,
        None => false,
    };
    if !agrees {
        let (outer, inner) = (outer.external_name(), class.external_name());
        let message = format!("{outer} and {inner} disagree on InnerClasses attribute");
        return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
    }
    Ok(outer.mirror().slot())
}

fn simple_binary_name(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    if !class.is_instance_class() {
        return Ok(0);
    }
    let pool = class.constants();
    let own = class.inner_classes.get().iter().find(|entry| pool.symbol(entry.inner) == class.name);
    let Some(name) = own.map(|entry| entry.name).filter(|&name| name != 0) else { return Ok(0) };
    Ok(strings::intern_symbol(thread, pool.symbol(name))?.get().slot())
}

fn primitive_class(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = strings::text(arguments.reference(0));
    match BasicType::PRIMITIVES.into_iter().find(|kind| kind.name() == name) {
        Some(kind) => Ok(loader::primitive_class(kind).mirror().slot()),
        None => Err(exceptions::throw(thread, "java/lang/ClassNotFoundException", name)),
    }
}

fn generic_signature(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let Some(signature) = this(arguments).signature else { return Ok(0) };
    Ok(strings::intern_symbol(thread, signature)?.get().slot())
}

fn declared_classes(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    let mut members = Vec::new();
    if class.is_instance_class() {
        let pool = class.constants();
        for entry in class.inner_classes.get() {
            if entry.outer != 0 && entry.name != 0 && pool.symbol(entry.outer) == class.name {
                members.push(link::resolve_class(thread, pool, entry.inner)?);
            }
        }
    }
    mirrors(thread, &members).map(Reference::slot)
}

fn nest_host(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    Ok(link::nest_host(thread, class).mirror().slot())
}

fn nest_members(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    let host = link::nest_host(thread, class);
    let mut members = vec![host];
    for &index in host.nest_members.get() {
        match link::resolve_class(thread, host.constants(), index) {
            Ok(member) if link::nest_host(thread, member) == host => members.push(member),
            Ok(_) => {}
            Err(_) => {
                thread.take_exception();
            }
        }
    }
    mirrors(thread, &members).map(Reference::slot)
}

fn permitted_subclasses(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = this(arguments);
    if !class.sealed {
        return Ok(0);
    }
    let mut classes = Vec::new();
    for &index in class.permitted_subclasses.get() {
        match link::resolve_class(thread, class.constants(), index) {
            Ok(found) => classes.push(found),
            Err(_) => {
                thread.take_exception();
            }
        }
    }
    mirrors(thread, &classes).map(Reference::slot)
}

/// The symbol of a mirror's class in a descriptor.
pub(super) fn descriptor_of(class: Meta<Class>) -> Symbol {
    if class.primitive {
        return Symbol::new([class.basic.letter()]);
    }
    if class.is_array() { class.name } else { Symbol::new(format!("L{};", class.name)) }
}
