//! What the library's method handles link: signature-polymorphic calls, call sites and constants (JVMS 5.4.3.5, 5.4.3.6).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex, PoisonError};

use classfile::flags;

use super::failed::{self, What};
use super::{class_not_found, initialize, resolve_class};
use crate::allocate;
use crate::arena::Meta;
use crate::exceptions;
use crate::handle::{Global, Handle};
use crate::interpreter;
use crate::known;
use crate::loader;
use crate::metadata::{BasicType, Class, Entry, Method, Pool, Tag};
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{NESTED_MAX, Result, Thread, Thrown};

/// A call that the library's method handles linked: the method, and what it gets as last argument.
#[derive(Clone, Copy, Debug)]
pub struct LinkedCall {
    /// What to call.
    pub method: Meta<Method>,
    /// The last argument.
    pub appendix: Option<Global>,
}

/// The signature-polymorphic method of this name, if the class has one.
pub(super) fn polymorphic(class: Meta<Class>, name: Symbol) -> Option<Meta<Method>> {
    if !matches!(class.name.bytes(), b"java/lang/invoke/MethodHandle" | b"java/lang/invoke/VarHandle") {
        return None;
    }
    class.methods.get().iter().copied().find(|method| method.name == name && method.is_signature_polymorphic())
}

/// By name and descriptor.
type Intrinsics = HashMap<(Symbol, Symbol), Meta<Method>>;

static INTRINSICS: LazyLock<Mutex<Intrinsics>> = LazyLock::new(Mutex::default);

/// `MethodHandle.invokeBasic`, `linkToStatic` and so on of a descriptor: made when first asked for. `None` for other names.
pub fn method_handle_intrinsic(name: Symbol, descriptor: Symbol) -> Option<Meta<Method>> {
    let (entry, is_static) = match name.bytes() {
        b"invokeBasic" => (Entry::InvokeBasic, false),
        b"linkToStatic" => (Entry::LinkToStatic, true),
        b"linkToSpecial" => (Entry::LinkToSpecial, true),
        b"linkToVirtual" => (Entry::LinkToVirtual, true),
        b"linkToInterface" => (Entry::LinkToInterface, true),
        _ => return None,
    };
    let class = known::method_handle();
    let slots = classfile::names::MethodType::parse(descriptor.bytes())?.argument_slots + u16::from(!is_static);
    let mut intrinsics = INTRINSICS.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let method_flags = flags::NATIVE | flags::SYNTHETIC | flags::FINAL | if is_static { flags::STATIC } else { 0 };
        let method = Method::synthetic(class, name, descriptor, method_flags, slots, entry);
        use crate::metadata::extra::{HIDDEN, LAMBDA_FORM};
        method.extra.fetch_or(HIDDEN | LAMBDA_FORM, Ordering::Relaxed);
        // The descriptor may be that of a class that is unloaded one day.
        name.stay();
        descriptor.stay();
        loader::boot().chunks.allocate(method)
    };
    Some(*intrinsics.entry((name, descriptor)).or_insert_with(make))
}

/// The `MethodType` of a descriptor, as `class` sees its types.
pub fn method_type_object(thread: &mut Thread, class: Meta<Class>, descriptor: Symbol) -> Result<Handle> {
    let data = loader::data(class.loader);
    let parsed = classfile::names::MethodType::parse(descriptor.bytes());
    let Some(parsed) = parsed else {
        return Err(exceptions::throw(thread, "java/lang/ClassFormatError", "bad method descriptor"));
    };
    let count = u32::try_from(parsed.parameters().count()).unwrap_or(u32::MAX);
    let array = allocate::reference_array(thread, known::class(), count)?;
    let array = thread.handle(array);
    for (index, parameter) in (0..count).zip(parsed.parameters()) {
        let parameter_class = load_type(thread, parameter.descriptor, data)?;
        array.get().set_reference_element(index, parameter_class.mirror());
    }
    let returns = load_type(thread, parsed.returns().descriptor, data)?;
    let method =
        natives_method("findMethodHandleType", "(Ljava/lang/Class;[Ljava/lang/Class;)Ljava/lang/invoke/MethodType;");
    initialize(thread, method.class)?;
    let result = interpreter::call(thread, method, &[returns.mirror().slot(), array.slot()])?;
    Ok(thread.handle(Reference::of_slot(result)))
}

fn load_type(thread: &mut Thread, descriptor: &[u8], data: &'static loader::LoaderData) -> Result<Meta<Class>> {
    loader::load_type(thread, descriptor, data).map_err(|thrown| {
        let name = descriptor.strip_prefix(b"L").and_then(|name| name.strip_suffix(b";")).unwrap_or(descriptor);
        class_not_found(thread, Symbol::new(name), thrown)
    })
}

fn natives_method(name: &str, descriptor: &str) -> Meta<Method> {
    known::method_handle_natives()
        .declared_method(Symbol::new(name), Symbol::new(descriptor))
        .expect("MethodHandleNatives of JDK 17 has the method")
}

/// The descriptor under which a call of a method handle is made: that of the call, behind the handle itself.
pub fn invoker_descriptor(descriptor: Symbol, receiver: &str) -> Symbol {
    let mut text = format!("(L{receiver};").into_bytes();
    text.extend_from_slice(&descriptor.bytes()[1..]);
    Symbol::new(text)
}

/// Resolves the call of a signature-polymorphic method such as `MethodHandle.invokeExact`; `None` if it is an ordinary one.
pub fn resolve_handle_call(thread: &mut Thread, pool: &'static Pool, index: u16) -> Result<Option<LinkedCall>> {
    let class = pool.class;
    let (class_index, name_and_type) = pool.pair(index);
    let (name, descriptor) = pool.name_and_type(name_and_type);
    let named = resolve_class(thread, pool, class_index)?;
    if polymorphic(named, name).is_none() || method_handle_intrinsic(name, descriptor).is_some() {
        return Ok(None);
    }
    let linked = thread.scope(|thread| {
        let method_type = method_type_object(thread, class, descriptor)?;
        let name = strings::intern_symbol(thread, name)?;
        let appendix = allocate::object_array(thread, 1)?;
        let appendix = thread.handle(appendix);
        let method = natives_method(
            "linkMethod",
            "(Ljava/lang/Class;ILjava/lang/Class;Ljava/lang/String;Ljava/lang/Object;[Ljava/lang/Object;)Ljava/lang/invoke/MemberName;",
        );
        initialize(thread, method.class)?;
        let arguments =
            [class.mirror().slot(), 5, named.mirror().slot(), name.get().slot(), method_type.slot(), appendix.slot()];
        let member = Reference::of_slot(interpreter::call(thread, method, &arguments)?);
        Ok(linked_call(class, member, appendix.get()))
    })?;
    // The appendix first: who sees the method must see it.
    let entry = pool.entry(index);
    entry.cache.store(linked.appendix.map_or(0, |global| u64::from(global.index())), Ordering::Release);
    pool.publish(index, Pool::pack_method(linked.method, None));
    Ok(Some(linked))
}

/// What a call of `class` was linked to, which lives as long as the class: the method may be of a hidden class that nothing else keeps.
fn linked_call(class: Meta<Class>, member: Reference, appendix: Reference) -> LinkedCall {
    let appendix = appendix.reference_element(0);
    let method = member_target(member).expect("a linked call has a method");
    let unit = loader::unit(class);
    unit.keep_class(method.class);
    LinkedCall { method, appendix: (!appendix.is_null()).then(|| unit.keep(appendix)) }
}

/// The method that a `MemberName` was resolved to.
#[inline]
pub(crate) fn member_target(member: Reference) -> Option<Meta<Method>> {
    let resolved = member.reference(known::member_method());
    if resolved.is_null() {
        return None;
    }
    // SAFETY: the field holds a method's offset or 0.
    unsafe { Meta::from_offset(resolved.read(known::resolved_target())) }
}

/// Links an `invokedynamic` instruction (JVMS 5.4.3.6).
pub fn resolve_call_site(thread: &mut Thread, pool: &'static Pool, number: u32) -> Result<()> {
    let class = pool.class;
    let site = &pool.call_sites.get()[number as usize];
    let (bootstrap, name_and_type) = pool.pair(site.constant);
    let (name, descriptor) = pool.name_and_type(name_and_type);
    let link = |thread: &mut Thread| {
        let (method, arguments) = bootstrap_arguments(thread, pool, bootstrap)?;
        let method_type = method_type_object(thread, class, descriptor)?;
        let name = strings::intern_symbol(thread, name)?;
        let appendix = allocate::object_array(thread, 1)?;
        let appendix = thread.handle(appendix);
        let link = natives_method(
            "linkCallSite",
            "(Ljava/lang/Object;ILjava/lang/Object;Ljava/lang/Object;Ljava/lang/Object;Ljava/lang/Object;[Ljava/lang/Object;)Ljava/lang/invoke/MemberName;",
        );
        initialize(thread, link.class)?;
        let mirror = class.mirror().slot();
        let call = [
            mirror,
            u64::from(site.constant),
            method.slot(),
            name.get().slot(),
            method_type.slot(),
            arguments.slot(),
            appendix.slot(),
        ];
        let member = Reference::of_slot(interpreter::call(thread, link, &call)?);
        Ok(linked_call(class, member, appendix.get()))
    };
    let place = (class, What::CallSite(number));
    let link = |thread: &mut Thread| thread.scope(link).map_err(|thrown| bootstrap_error(thread, thrown));
    let linked = failed::once(thread, place, || pool.name_and_type(name_and_type).0.text(), link)?;
    if site.method.get().is_none() {
        site.appendix.store(linked.appendix.map_or(0, |global| u64::from(global.index())), Ordering::Release);
        site.method.set_once(linked.method);
    }
    Ok(())
}

/// Exceptions of linking that are not errors become the cause of BootstrapMethodError.
fn bootstrap_error(thread: &mut Thread, thrown: Thrown) -> Thrown {
    if thread.exception.class().is_subtype_of(known::error()) {
        return thrown;
    }
    exceptions::throw_wrapping(thread, "java/lang/BootstrapMethodError")
}

/// The method handle and the static arguments of a bootstrap method: `null`, the only one, or an array.
fn bootstrap_arguments(thread: &mut Thread, pool: &'static Pool, bootstrap: u16) -> Result<(Handle, Handle)> {
    let constants = pool.bootstrap_methods.get().get(bootstrap as usize).map_or(&[][..], |constants| constants.get());
    let Some((&method, arguments)) = constants.split_first() else {
        return Err(exceptions::throw(thread, "java/lang/BootstrapMethodError", "no such bootstrap method"));
    };
    let method = resolve_constant(thread, pool, method)?;
    let method = thread.handle(method.get());
    let arguments = match *arguments {
        [] => thread.handle(Reference::NULL),
        [only] => boxed_constant(thread, pool, only)?,
        _ => {
            let count = u32::try_from(arguments.len()).unwrap_or(u32::MAX);
            let array = allocate::object_array(thread, count)?;
            let array = thread.handle(array);
            for (index, &constant) in (0..count).zip(arguments) {
                let argument = boxed_constant(thread, pool, constant)?;
                array.get().set_reference_element(index, argument.get());
            }
            array
        }
    };
    Ok((method, arguments))
}

/// A loadable constant as an object.
fn boxed_constant(thread: &mut Thread, pool: &'static Pool, index: u16) -> Result<Handle> {
    let value = pool.entry(index).value;
    let kind = match pool.tag(index) {
        Tag::Integer => BasicType::Int,
        Tag::Float => BasicType::Float,
        Tag::Long => BasicType::Long,
        Tag::Double => BasicType::Double,
        Tag::Class => {
            let named = resolve_class(thread, pool, index)?;
            return Ok(thread.handle(named.mirror()));
        }
        _ => {
            let global = resolve_constant(thread, pool, index)?;
            return Ok(thread.handle(global.get()));
        }
    };
    let boxed = crate::boxing::box_value(thread, kind, value)?;
    Ok(thread.handle(boxed))
}

/// The object of a string, method type, method handle or dynamic constant (JVMS 5.4.3.5, 5.1). A dynamic constant of a primitive type is boxed.
pub fn resolve_constant(thread: &mut Thread, pool: &'static Pool, index: u16) -> Result<Global> {
    let class = pool.class;
    if let Some(global) = pool.global_at(index) {
        return Ok(global);
    }
    let tag = pool.tag(index);
    let resolve = |thread: &mut Thread| {
        Ok(match tag {
            Tag::String => strings::intern_symbol(thread, pool.symbol(index))?.get(),
            Tag::MethodType => method_type_object(thread, class, pool.symbol(index))?.get(),
            Tag::MethodHandle => method_handle_constant(thread, pool, index)?,
            _ => dynamic_constant(thread, pool, index).map_err(|thrown| bootstrap_error(thread, thrown))?,
        })
    };
    let name = || match tag {
        Tag::String | Tag::MethodType => pool.symbol(index).text(),
        Tag::MethodHandle => pool.name_and_type(pool.pair(pool.pair(index).1).1).0.text(),
        _ => pool.name_and_type(pool.pair(index).1).0.text(),
    };
    let global = thread.scope(|thread| {
        let constant = failed::once(thread, (class, What::Constant(index)), name, resolve)?;
        Ok(loader::unit(class).keep(constant))
    })?;
    let word = pool.publish(index, u64::from(global.index()));
    #[allow(clippy::cast_possible_truncation, reason = "the index of a global reference")]
    Ok(Global::of_index(word as u32).unwrap_or(global))
}

fn method_handle_constant(thread: &mut Thread, pool: &'static Pool, index: u16) -> Result<Reference> {
    let class = pool.class;
    let (kind, member) = pool.pair(index);
    let (class_index, name_and_type) = pool.pair(member);
    let (name, descriptor) = pool.name_and_type(name_and_type);
    let named = resolve_class(thread, pool, class_index)?;
    let member_type = if kind <= 4 {
        let field_class = load_type(thread, descriptor.bytes(), loader::data(class.loader))?;
        thread.handle(field_class.mirror())
    } else {
        method_type_object(thread, class, descriptor)?
    };
    let name = strings::intern_symbol(thread, name)?;
    let link = natives_method(
        "linkMethodHandleConstant",
        "(Ljava/lang/Class;ILjava/lang/Class;Ljava/lang/String;Ljava/lang/Object;)Ljava/lang/invoke/MethodHandle;",
    );
    initialize(thread, link.class)?;
    let arguments =
        [class.mirror().slot(), u64::from(kind), named.mirror().slot(), name.get().slot(), member_type.slot()];
    Ok(Reference::of_slot(interpreter::call(thread, link, &arguments)?))
}

fn dynamic_constant(thread: &mut Thread, pool: &'static Pool, index: u16) -> Result<Reference> {
    // A constant may be an argument of its own bootstrap method.
    if thread.nested > NESTED_MAX {
        return Err(exceptions::stack_overflow(thread));
    }
    thread.nested += 5;
    let result = make_dynamic_constant(thread, pool, index);
    thread.nested -= 5;
    result
}

fn make_dynamic_constant(thread: &mut Thread, pool: &'static Pool, index: u16) -> Result<Reference> {
    let class = pool.class;
    let (bootstrap, name_and_type) = pool.pair(index);
    let (name, descriptor) = pool.name_and_type(name_and_type);
    let (method, arguments) = bootstrap_arguments(thread, pool, bootstrap)?;
    let constant_type = load_type(thread, descriptor.bytes(), loader::data(class.loader))?;
    let name = strings::intern_symbol(thread, name)?;
    let link = natives_method(
        "linkDynamicConstant",
        "(Ljava/lang/Object;ILjava/lang/Object;Ljava/lang/Object;Ljava/lang/Object;Ljava/lang/Object;)Ljava/lang/Object;",
    );
    initialize(thread, link.class)?;
    let call = [
        class.mirror().slot(),
        u64::from(index),
        method.slot(),
        name.get().slot(),
        constant_type.mirror().slot(),
        arguments.slot(),
    ];
    Ok(Reference::of_slot(interpreter::call(thread, link, &call)?))
}
