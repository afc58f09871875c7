//! Resolution (JVMS 5.4.3) with access checks (5.4.4), and selection (5.4.6).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex, PoisonError};

use classfile::flags;

use super::dynamic::{method_handle_intrinsic, polymorphic};
use super::failed::{self, What};
use super::{constraints, initialize, tables};
use crate::arena::Meta;
use crate::exceptions;
use crate::known;
use crate::loader;
use crate::log;
use crate::metadata::{BasicType, Class, Field, Method, Pool, Tag};
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread, Thrown};

/// Which instruction calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the instructions")]
pub enum MethodKind {
    Static,
    Special,
    Virtual,
    Interface,
}

/// Makes of a pending ClassNotFoundException the NoClassDefFoundError that linking throws.
pub(crate) fn class_not_found(thread: &mut Thread, name: Symbol, thrown: Thrown) -> Thrown {
    if !thread.exception.class().is_subtype_of(known::class_not_found()) {
        return thrown;
    }
    exceptions::throw_caused(thread, "java/lang/NoClassDefFoundError", &name.text())
}

/// The class that a constant names.
pub fn resolve_class(thread: &mut Thread, pool: &'static Pool, index: u16) -> Result<Meta<Class>> {
    let class = pool.class;
    if let Some(found) = pool.class_at(index) {
        return Ok(found);
    }
    let name = pool.symbol(index);
    let found = failed::once(
        thread,
        (class, What::Constant(index)),
        || name.text(),
        |thread| {
            let found = loader::load(thread, name, loader::data(class.loader))
                .map_err(|thrown| class_not_found(thread, name, thrown))?;
            check_class_access(thread, class, found)?;
            Ok(found)
        },
    )?;
    pool.publish(index, u64::from(found.offset()));
    log::tell(log::RESOLVE, &|| {
        let frame = thread.top_frame().filter(|frame| frame.bci().is_some());
        let place = frame.and_then(|frame| {
            let (method, line) = (frame.method(), frame.bci().and_then(|bci| frame.method().line_at(bci)));
            Some(format!(" {}:{}", method.class.source_file?.text(), line.map_or(-1, i32::from)))
        });
        format!("{} {}{}", class.external_name(), found.external_name(), place.unwrap_or_default())
    });
    Ok(found)
}

/// Whether `to` is accessible to `from`; throws IllegalAccessError if not.
pub fn check_class_access(thread: &mut Thread, from: Meta<Class>, to: Meta<Class>) -> Result<()> {
    let mut bottom = to;
    while let Some(element) = bottom.element {
        bottom = element;
    }
    if bottom.primitive || bottom.flags & flags::PUBLIC != 0 || from.same_package(bottom) || super::is_magic(from) {
        return Ok(());
    }
    let message = format!(
        "failed to access class {} from class {} ({})",
        to.external_name(),
        from.external_name(),
        super::where_are(to, from)
    );
    Err(exceptions::throw(thread, "java/lang/IllegalAccessError", message))
}

/// The host of a class's nest (JVMS 5.4.4).
pub fn nest_host(thread: &mut Thread, class: Meta<Class>) -> Meta<Class> {
    if let Some(host) = class.nest_host.get() {
        return host;
    }
    if class.nest_host_index == 0 || !class.is_instance_class() {
        return class;
    }
    let loader = |class: Meta<Class>| super::loader_text(loader::data(class.loader));
    let result = thread.scope(|thread| match resolve_class(thread, class.constants(), class.nest_host_index) {
        Ok(host) => {
            let listed = || host.nest_members.get().iter().any(|&at| host.constants().symbol(at) == class.name);
            let why = if host.is_array() || host.primitive {
                "host is not an instance class"
            } else if !host.same_package(class) {
                "types are in different packages"
            } else if !listed() {
                "current type is not listed as a nest member"
            } else {
                return Ok(host);
            };
            Err(format!(
                "Type {} (loader: {}) is not a nest member of type {} (loader: {}): {why}",
                class.external_name(),
                loader(class),
                host.external_name(),
                loader(host)
            ))
        }
        Err(_) => {
            let thrown = thread.take_exception();
            let message = thrown.reference(known::throwable_message());
            let message = if message.is_null() { String::new() } else { format!(": {}", strings::text(message)) };
            Err(format!(
                "Nest host resolution of {} with host {} failed: {}{message}",
                class.external_name(),
                class.constants().symbol(class.nest_host_index).dotted(),
                thrown.class().external_name()
            ))
        }
    });
    let host = result.unwrap_or_else(|why| {
        NEST_ERRORS.lock().unwrap_or_else(PoisonError::into_inner).insert(class.offset(), why);
        class
    });
    class.nest_host.set(Some(host));
    host
}

/// Why classes are not of the nest that they name, by the class.
static NEST_ERRORS: LazyLock<Mutex<HashMap<u32, String>>> = LazyLock::new(Mutex::default);

/// What a message adds if a private member is refused since a nest is not what it should be.
fn nest_reasons(from: Meta<Class>, declared: Meta<Class>, member_flags: u16) -> String {
    if member_flags & flags::PRIVATE == 0 {
        return String::new();
    }
    let errors = NEST_ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    let reasons: Vec<&str> =
        [from, declared].iter().filter_map(|class| errors.get(&class.offset())).map(String::as_str).collect();
    if reasons.is_empty() { String::new() } else { format!(", ({})", reasons.join(", ")) }
}

/// Whether a member is accessible (JVMS 5.4.4).
fn is_accessible(
    thread: &mut Thread,
    from: Meta<Class>,
    declared: Meta<Class>,
    named: Meta<Class>,
    member_flags: u16,
) -> bool {
    if member_flags & flags::PUBLIC != 0 || from == declared {
        return true;
    }
    if member_flags & flags::PRIVATE != 0 {
        return nest_host(thread, from) == nest_host(thread, declared) || super::is_magic(from);
    }
    if from.same_package(declared) {
        return true;
    }
    if member_flags & flags::PROTECTED != 0 && !from.is_interface() && from.is_subtype_of(declared) {
        let is_static = member_flags & flags::STATIC != 0;
        return is_static || named.is_subtype_of(from) || from.is_subtype_of(named);
    }
    super::is_magic(from)
}

/// How messages write the type of a descriptor.
fn type_text(descriptor: &[u8]) -> String {
    let dimensions = descriptor.iter().take_while(|&&byte| byte == b'[').count();
    let base = &descriptor[dimensions..];
    let name = match base {
        [b'L', name @ .., b';'] => classfile::mutf8::decode(name).replace('/', "."),
        [letter, ..] => BasicType::of(*letter).name().into(),
        [] => String::new(),
    };
    name + &"[]".repeat(dimensions)
}

/// How messages write a method, as `'void a.B.c(int)'`.
pub(crate) fn method_text(class: Meta<Class>, name: Symbol, descriptor: Symbol) -> String {
    format!("'{}'", method_signature(Some(class), name, descriptor))
}

/// The same without quotes, and maybe without the class.
pub(crate) fn method_signature(class: Option<Meta<Class>>, name: Symbol, descriptor: Symbol) -> String {
    let Some(parsed) = classfile::names::MethodType::parse(descriptor.bytes()) else { return name.text() };
    let parameters: Vec<String> = parsed.parameters().map(|parameter| type_text(parameter.descriptor)).collect();
    let returns = type_text(parsed.returns().descriptor);
    let class = class.map_or_else(String::new, |class| class.external_name() + ".");
    format!("{returns} {class}{name}({})", parameters.join(", "))
}

/// The field that a constant names. Its class is initialised if it is static.
pub fn resolve_field(
    thread: &mut Thread,
    method: Meta<Method>,
    pool: &'static Pool,
    index: u16,
    (is_static, is_put): (bool, bool),
) -> Result<(Meta<Class>, &'static Field)> {
    let class = pool.class;
    let (class_index, name_and_type) = pool.pair(index);
    let (name, descriptor) = pool.name_and_type(name_and_type);
    let named = resolve_class(thread, pool, class_index)?;
    let Some((declared, field)) = named.find_field(name, descriptor).filter(|(_, field)| !field.injected) else {
        return Err(exceptions::throw(thread, "java/lang/NoSuchFieldError", name.text()));
    };
    if !is_accessible(thread, class, declared, named, field.flags) {
        let kind = if field.flags & flags::PRIVATE != 0 {
            "private"
        } else if field.flags & flags::PROTECTED != 0 {
            "protected"
        } else {
            ""
        };
        let space = if kind.is_empty() { "" } else { " " };
        let message = format!(
            "class {} tried to access {kind}{space}field {}.{name} ({}){}",
            class.external_name(),
            declared.external_name(),
            super::where_are(class, declared),
            nest_reasons(class, declared, field.flags)
        );
        return Err(exceptions::throw(thread, "java/lang/IllegalAccessError", message));
    }
    if field.is_static() != is_static {
        let expected = if is_static { "static" } else { "non-static" };
        let message = format!("Expected {expected} field {}.{name}", named.external_name());
        return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
    }
    if is_put && field.is_final() {
        let in_initializer = if is_static { method.is_class_initializer() } else { method.is_constructor() };
        if declared != class || (class.major_version >= 53 && !in_initializer) {
            let kind = if is_static { "static final" } else { "final" };
            let message = if declared == class {
                let initializer = if is_static { "<clinit>" } else { "<init>" };
                format!(
                    "Update to {} field {}.{name} attempted from a different method ({}) than the initializer method {initializer} ",
                    if is_static { "static final" } else { "non-static final" },
                    declared.external_name(),
                    method.name
                )
            } else {
                format!(
                    "class {} tried to access {kind} field {}.{name}",
                    class.external_name(),
                    declared.external_name()
                )
            };
            return Err(exceptions::throw(thread, "java/lang/IllegalAccessError", message));
        }
    }
    let (own, other) = (loader::data(class.loader), loader::data(declared.loader));
    if let Some(differs) = constraints::demand(descriptor, own, other) {
        let message = format!(
            "loader constraint violation: when resolving field \"{name}\" of type {}, the class loader {} of the current class, {}, and the \
             class loader {} for the field's defining class, {}, have different Class objects for type {} ({}; {})",
            type_text(descriptor.bytes()),
            super::loader_text(own),
            class.external_name(),
            super::loader_text(other),
            declared.external_name(),
            differs.dotted(),
            super::where_is_below(class),
            super::where_is_below(declared)
        );
        return Err(exceptions::throw(thread, "java/lang/LinkageError", message));
    }
    if is_static {
        initialize(thread, declared)?;
    }
    Ok((declared, field))
}

/// Finds a method of a class or interface (JVMS 5.4.3.3, 5.4.3.4), without looking at access.
fn find_method(class: Meta<Class>, name: Symbol, descriptor: Symbol) -> Option<Meta<Method>> {
    if class.is_interface() {
        return find_interface_method(class, name, descriptor);
    }
    if let Some(method) = class.find_method(name, descriptor) {
        return Some(method);
    }
    from_superinterfaces(class, name, descriptor)
}

fn from_superinterfaces(class: Meta<Class>, name: Symbol, descriptor: Symbol) -> Option<Meta<Method>> {
    let specific = tables::most_specific(class.all_interfaces.get(), name, descriptor);
    let mut implemented = specific.iter().filter(|method| !method.is_abstract());
    match (implemented.next(), implemented.next()) {
        (Some(&method), None) => Some(method),
        _ => specific.first().copied(),
    }
}

/// Finds a method of an interface (JVMS 5.4.3.4).
pub fn find_interface_method(interface: Meta<Class>, name: Symbol, descriptor: Symbol) -> Option<Meta<Method>> {
    if let Some(method) = interface.declared_method(name, descriptor) {
        return Some(method);
    }
    let object = known::object().declared_method(name, descriptor);
    if let Some(method) = object.filter(|method| method.flags & flags::PUBLIC != 0 && !method.is_static()) {
        return Some(method);
    }
    from_superinterfaces(interface, name, descriptor)
}

/// Resolves a method by class, name and descriptor for a caller, if given, with all checks of the instruction.
pub fn resolve_method_in(
    thread: &mut Thread,
    caller: Option<Meta<Class>>,
    named: Meta<Class>,
    name: Symbol,
    descriptor: Symbol,
    kind: MethodKind,
    is_interface_reference: bool,
) -> Result<Meta<Method>> {
    if is_interface_reference != named.is_interface() {
        let message = if is_interface_reference {
            format!("Found class {}, but interface was expected", named.external_name())
        } else {
            format!("Found interface {}, but class was expected", named.external_name())
        };
        return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
    }
    let Some(method) = find_method(named, name, descriptor) else {
        let message = method_text(named, name, descriptor);
        return Err(exceptions::throw(thread, "java/lang/NoSuchMethodError", message));
    };
    if let Some(caller) = caller
        && !is_accessible(thread, caller, method.class, named, method.flags)
        && !(method.class == known::object() && named.is_array())
    {
        let word = if method.is_private() {
            "private "
        } else if method.flags & flags::PROTECTED != 0 {
            "protected "
        } else {
            ""
        };
        let text = method_text(method.class, name, descriptor);
        let message = format!(
            "class {} tried to access {word}method {text} ({}){}",
            caller.external_name(),
            super::where_are(caller, method.class),
            nest_reasons(caller, method.class, method.flags)
        );
        return Err(exceptions::throw(thread, "java/lang/IllegalAccessError", message));
    }
    if method.is_static() != (kind == MethodKind::Static) {
        let expected = if kind == MethodKind::Static { "static" } else { "non-static" };
        let text = method_text(named, name, descriptor);
        let message = format!("Expected {expected} method {text}");
        return Err(exceptions::throw(thread, "java/lang/IncompatibleClassChangeError", message));
    }
    if let Some(caller) = caller {
        let (own, other) = (loader::data(caller.loader), loader::data(method.class.loader));
        if let Some(differs) = constraints::demand(descriptor, own, other) {
            let message = format!(
                "loader constraint violation: when resolving {} {} the class loader {} of the current class, {}, and the class loader {} for \
                 the method's defining class, {}, have different Class objects for the type {} used in the signature ({}; {})",
                if method.class.is_interface() { "interface method" } else { "method" },
                method_text(method.class, name, descriptor),
                super::loader_text(own),
                caller.external_name(),
                super::loader_text(other),
                method.class.external_name(),
                differs.dotted(),
                super::where_is_below(caller),
                super::where_is_below(method.class)
            );
            return Err(exceptions::throw(thread, "java/lang/LinkageError", message));
        }
    }
    Ok(method)
}

/// Resolves the method of a call and publishes it. Calls of method handles are told by the error of the inner result: their descriptor is any.
pub fn resolve_method(thread: &mut Thread, pool: &'static Pool, index: u16, kind: MethodKind) -> Result<Meta<Method>> {
    let class = pool.class;
    let (class_index, name_and_type) = pool.pair(index);
    let (name, descriptor) = pool.name_and_type(name_and_type);
    let named = resolve_class(thread, pool, class_index)?;
    if let Some(intrinsic) = polymorphic(named, name).and_then(|_| method_handle_intrinsic(name, descriptor)) {
        pool.publish(index, Pool::pack_method(intrinsic, None));
        return Ok(intrinsic);
    }
    let is_interface_reference = pool.tag(index) == Tag::InterfaceMethod;
    let mut method = resolve_method_in(thread, Some(class), named, name, descriptor, kind, is_interface_reference)?;
    let mut vtable_index = None;
    match kind {
        MethodKind::Static => initialize(thread, method.class)?,
        _ if is_interface_reference => {
            // A method of Object is selected by the vtable of the receiver.
            if !method.class.is_interface() {
                vtable_index = virtual_index(method.class, method);
            }
        }
        _ => vtable_index = virtual_index(named, method),
    }
    // Other instructions may name the same constant: it says what resolution found, and what `invokespecial` calls instead is beside it.
    pool.publish(index, Pool::pack_method(method, vtable_index));
    if kind == MethodKind::Special {
        if !method.is_constructor() && !method.is_private() {
            method = select_special(thread, class, named, method)?;
            method = chosen(class, named, method);
        }
        if method.is_abstract() {
            let message = method_text(method.class, name, descriptor);
            return Err(exceptions::throw(thread, "java/lang/AbstractMethodError", message));
        }
        if !is_interface_reference {
            pool.entry(index).cache.store(Pool::pack_method(method, None), Ordering::Release);
        }
    }
    Ok(method)
}

/// The vtable index by which a method that resolution found in `named` is selected; none if it is called directly.
pub fn virtual_index(named: Meta<Class>, method: Meta<Method>) -> Option<u16> {
    if method.is_private() || method.is_static() || method.is_constructor() {
        return None;
    }
    if method.class.is_interface() {
        let same =
            |candidate: &Meta<Method>| candidate.name == method.name && candidate.descriptor == method.descriptor;
        return named.vtable.get().iter().position(same).and_then(|index| u16::try_from(index).ok());
    }
    u16::try_from(method.vtable_index.load(Ordering::Relaxed)).ok()
}

/// What `invokespecial` calls in place of an interface's method that a class inherits: maybe the refusal to choose between several.
fn chosen(class: Meta<Class>, named: Meta<Class>, method: Meta<Method>) -> Meta<Method> {
    if !method.class.is_interface() || named.is_interface() || class.is_interface() {
        return method;
    }
    let start = if class == named { Some(named) } else { class.super_class };
    let index = start.and_then(|start| virtual_index(start, method));
    match (start, index) {
        (Some(start), Some(index)) => start.vtable.get()[usize::from(index)],
        _ => method,
    }
}

/// What `invokespecial` calls: the method of the direct superclass, or of the named interface.
fn select_special(
    thread: &mut Thread,
    class: Meta<Class>,
    named: Meta<Class>,
    method: Meta<Method>,
) -> Result<Meta<Method>> {
    if named.is_interface() || class.is_interface() {
        let selected = find_interface_method(named, method.name, method.descriptor).unwrap_or(method);
        return Ok(selected);
    }
    if class == named || !class.is_subtype_of(named) {
        return Ok(method);
    }
    let found = class.super_class.and_then(|super_class| find_method(super_class, method.name, method.descriptor));
    match found {
        Some(found) => Ok(found),
        None => {
            let message = method_text(named, method.name, method.descriptor);
            Err(exceptions::throw(thread, "java/lang/AbstractMethodError", message))
        }
    }
}

/// The method that an object of `class` has for a resolved method of a class.
pub fn select_method(class: Meta<Class>, method: Meta<Method>) -> Meta<Method> {
    if method.class.is_interface() {
        return select_interface_method(class, method).unwrap_or(method);
    }
    match usize::try_from(method.vtable_index.load(Ordering::Relaxed)) {
        Ok(index) if !method.is_private() && !method.is_static() => class.vtable.get()[index],
        _ => method,
    }
}

/// The method that an object of `class` has for a method of an interface; `None` if the class does not implement the interface.
#[inline]
pub fn select_interface_method(class: Meta<Class>, method: Meta<Method>) -> Option<Meta<Method>> {
    let Ok(index) = usize::try_from(method.vtable_index.load(Ordering::Relaxed)) else {
        // A private one is none of the itable's.
        return class.is_subtype_of(method.class).then_some(method);
    };
    let entry = class.itable.get().iter().find(|entry| entry.interface == method.class)?;
    Some(entry.methods.get().get(index).copied().flatten().unwrap_or(method))
}

/// Forgets errors of classes that are unloaded, told by their offsets.
pub(super) fn forget(is_dead: impl Fn(u32) -> bool) {
    NEST_ERRORS.lock().unwrap_or_else(PoisonError::into_inner).retain(|&class, _| !is_dead(class));
}
