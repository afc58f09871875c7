//! `java.lang.invoke.MethodHandleNatives`: member names.

use std::sync::atomic::Ordering;

use classfile::flags;

use super::java_lang_class::descriptor_of;
use super::{Arguments, Table, zero};
use crate::allocate;
use crate::arena::Meta;
use crate::exceptions;
use crate::handle::Handle;
use crate::known;
use crate::link::{self, MethodKind};
use crate::loader;
use crate::metadata::{Class, Field, Method, extra};
use crate::object::Reference;
use crate::strings;
use crate::symbol::Passing;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    (
        "java/lang/invoke/MethodHandleNatives",
        &[
            ("init", "", init),
            ("expand", "", expand),
            ("resolve", "", resolve),
            ("objectFieldOffset", "", field_offset),
            ("staticFieldOffset", "", field_offset),
            ("staticFieldBase", "", |_, a| Ok(a.reference(0).reference(known::member_class()).slot())),
            ("getMemberVMInfo", "", vm_info),
            ("setCallSiteTargetNormal", "", set_target),
            ("setCallSiteTargetVolatile", "", set_target),
            ("clearCallSiteContext", "", zero),
            ("getNamedCon", "", zero),
        ],
    ),
    ("java/lang/invoke/MethodHandle", &[("invoke", "", unsupported), ("invokeExact", "", unsupported)]),
    // Only reflection comes here: calls in code are linked to the access mode's method.
    (
        "java/lang/invoke/VarHandle",
        &[
            ("compareAndExchange", "", unsupported),
            ("compareAndExchangeAcquire", "", unsupported),
            ("compareAndExchangeRelease", "", unsupported),
            ("compareAndSet", "", unsupported),
            ("get", "", unsupported),
            ("getAcquire", "", unsupported),
            ("getAndAdd", "", unsupported),
            ("getAndAddAcquire", "", unsupported),
            ("getAndAddRelease", "", unsupported),
            ("getAndBitwiseAnd", "", unsupported),
            ("getAndBitwiseAndAcquire", "", unsupported),
            ("getAndBitwiseAndRelease", "", unsupported),
            ("getAndBitwiseOr", "", unsupported),
            ("getAndBitwiseOrAcquire", "", unsupported),
            ("getAndBitwiseOrRelease", "", unsupported),
            ("getAndBitwiseXor", "", unsupported),
            ("getAndBitwiseXorAcquire", "", unsupported),
            ("getAndBitwiseXorRelease", "", unsupported),
            ("getAndSet", "", unsupported),
            ("getAndSetAcquire", "", unsupported),
            ("getAndSetRelease", "", unsupported),
            ("getOpaque", "", unsupported),
            ("getVolatile", "", unsupported),
            ("set", "", unsupported),
            ("setOpaque", "", unsupported),
            ("setRelease", "", unsupported),
            ("setVolatile", "", unsupported),
            ("weakCompareAndSet", "", unsupported),
            ("weakCompareAndSetAcquire", "", unsupported),
            ("weakCompareAndSetPlain", "", unsupported),
            ("weakCompareAndSetRelease", "", unsupported),
        ],
    ),
];

const IS_METHOD: u32 = 0x1_0000;
const IS_CONSTRUCTOR: u32 = 0x2_0000;
const IS_FIELD: u32 = 0x4_0000;
const CALLER_SENSITIVE: u32 = 0x10_0000;
const TRUSTED_FINAL: u32 = 0x20_0000;
const KIND_SHIFT: u32 = 24;
const GET_FIELD: u32 = 1;
const GET_STATIC: u32 = 2;
const PUT_FIELD: u32 = 3;
const INVOKE_VIRTUAL: u32 = 5;
const INVOKE_STATIC: u32 = 6;
const INVOKE_SPECIAL: u32 = 7;
const INVOKE_INTERFACE: u32 = 9;
/// `Lookup.UNCONDITIONAL`
const UNCONDITIONAL: i32 = 32;

fn unsupported(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let method = thread.top_frame().map(|frame| frame.method());
    let class = if method.is_some_and(|method| method.class.name.bytes().ends_with(b"VarHandle")) {
        "VarHandle"
    } else {
        "MethodHandle"
    };
    let name = method.map(|method| method.name.text()).unwrap_or_default();
    let message = format!("{class}.{name} cannot be invoked reflectively");
    Err(exceptions::throw(thread, "java/lang/UnsupportedOperationException", message))
}

/// Makes a member name mean a field.
fn set_field(member: Reference, class: Meta<Class>, field: &Field, put: bool) {
    let mut kind = if field.is_static() { GET_STATIC } else { GET_FIELD };
    if put {
        kind += PUT_FIELD - GET_FIELD;
    }
    let trusted = if field.trusted_final { TRUSTED_FINAL } else { 0 };
    member.write(known::member_flags(), u32::from(field.flags) | IS_FIELD | trusted | (kind << KIND_SHIFT));
    member.write(known::member_index(), i64::from(field.offset));
    member.set_reference(known::member_class(), class.mirror());
}

/// Makes a member name mean a method, called as `kind` says. May collect.
pub(super) fn set_method(
    thread: &mut Thread,
    member: Handle,
    named: Meta<Class>,
    method: Meta<Method>,
    kind: MethodKind,
) -> Result<()> {
    let is_final = (method.flags | method.class.flags) & flags::FINAL != 0;
    let direct = method.is_static()
        || method.is_private()
        || method.is_constructor()
        || (is_final && !method.class.is_interface());
    let index = method.vtable_index.load(Ordering::Relaxed);
    let (base, reference_kind, index) = if method.is_static() {
        (IS_METHOD, INVOKE_STATIC, -1)
    } else if method.is_constructor() {
        (IS_CONSTRUCTOR, INVOKE_SPECIAL, -1)
    } else if direct || kind == MethodKind::Special || index < 0 {
        (IS_METHOD, INVOKE_SPECIAL, -1)
    } else if kind == MethodKind::Interface && method.class.is_interface() {
        (IS_METHOD, INVOKE_INTERFACE, index)
    } else {
        let index = link::virtual_index(named, method).map_or(index, i32::from);
        (IS_METHOD, INVOKE_VIRTUAL, index)
    };
    let sensitive = if method.has(extra::CALLER_SENSITIVE) { CALLER_SENSITIVE } else { 0 };
    let class = if method.class.is_interface() && reference_kind == INVOKE_VIRTUAL { named } else { method.class };
    let resolved = allocate::instance(thread, known::resolved_method_name())?;
    resolved.write(known::resolved_target(), method.offset());
    resolved.set_reference(known::resolved_holder(), method.class.mirror());
    let member = member.get();
    member.set_reference(known::member_method(), resolved);
    member.write(known::member_flags(), u32::from(method.flags) | base | sensitive | (reference_kind << KIND_SHIFT));
    member.write(known::member_index(), i64::from(index));
    member.set_reference(known::member_class(), class.mirror());
    Ok(())
}

fn init(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let target = arguments.reference(1);
    if target.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let member = thread.handle(arguments.reference(0));
    if target.class() == known::reflect_field() {
        let class = loader::of_mirror(target.reference(known::field_class()));
        let slot: i32 = target.read(known::field_slot());
        let field = &class.fields.get()[usize::try_from(slot).unwrap_or(0)];
        set_field(member.get(), class, field, false);
        return Ok(0);
    }
    let (class, slot): (Reference, i32) = if target.class() == known::reflect_constructor() {
        (target.reference(known::constructor_class()), target.read(known::constructor_slot()))
    } else {
        (target.reference(known::method_class()), target.read(known::method_slot()))
    };
    let class = loader::of_mirror(class);
    let method = class.methods.get()[usize::try_from(slot).unwrap_or(0)];
    let kind = if class.is_interface() { MethodKind::Interface } else { MethodKind::Virtual };
    set_method(thread, member, class, method, kind)?;
    Ok(0)
}

/// The descriptor of a member name's type: a `MethodType`, a `Class`, or a string.
fn descriptor(member_type: Reference) -> Option<Passing> {
    if member_type.is_null() {
        return None;
    }
    let class = member_type.class();
    if class == known::string() {
        return Some(strings::symbol(member_type));
    }
    if class == known::class() {
        return Some(Passing::new(descriptor_of(loader::of_mirror(member_type)).bytes()));
    }
    if class != known::method_type() {
        return None;
    }
    let mut text = vec![b'('];
    let parameters = member_type.reference(known::method_type_parameters());
    for index in 0..parameters.length() {
        text.extend_from_slice(descriptor_of(loader::of_mirror(parameters.reference_element(index))).bytes());
    }
    text.push(b')');
    let returns = member_type.reference(known::method_type_return());
    text.extend_from_slice(descriptor_of(loader::of_mirror(returns)).bytes());
    Some(Passing::new(text))
}

fn resolve(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let speculative = arguments.boolean(3);
    match resolve_member(thread, arguments) {
        Ok(()) => Ok(arguments.slot(0)),
        Err(_) if speculative => {
            thread.take_exception();
            Ok(0)
        }
        Err(thrown) => Err(thrown),
    }
}

fn resolve_member(thread: &mut Thread, arguments: Arguments) -> Result<()> {
    let member = arguments.reference(0);
    if member.is_null() {
        return Err(exceptions::throw(thread, "java/lang/InternalError", "Member name to resolve is null"));
    }
    let bits: u32 = member.read(known::member_flags());
    let class = member.reference(known::member_class());
    let name = member.reference(known::member_name_of());
    let descriptor = descriptor(member.reference(known::member_type()));
    let (false, false, Some(descriptor)) = (class.is_null(), name.is_null(), descriptor) else {
        return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", "nothing to resolve"));
    };
    let class = loader::of_mirror(class);
    let name_symbol = strings::symbol(name);
    let (name, descriptor) = (*name_symbol, *descriptor);
    let kind = (bits >> KIND_SHIFT) & 0xF;
    let handle = thread.handle(member);
    if bits & IS_FIELD != 0 {
        let Some((declared, field)) = class.find_field(name, descriptor).filter(|(_, field)| !field.injected) else {
            return Err(exceptions::throw(thread, "java/lang/NoSuchFieldError", name.text()));
        };
        set_field(handle.get(), declared, field, kind >= PUT_FIELD);
        return Ok(());
    }
    if class.name.bytes() == b"java/lang/invoke/MethodHandle"
        && let Some(intrinsic) = link::method_handle_intrinsic(name, descriptor)
    {
        return set_method(thread, handle, class, intrinsic, MethodKind::Special);
    }
    link::link(thread, class)?;
    let (method_kind, is_interface) = match kind {
        INVOKE_STATIC => (MethodKind::Static, class.is_interface()),
        INVOKE_INTERFACE => (MethodKind::Interface, true),
        INVOKE_VIRTUAL => (MethodKind::Virtual, class.is_interface()),
        _ => (MethodKind::Special, class.is_interface()),
    };
    // Access is checked for a lookup's class; there is none for the library's own lookups. A public lookup may look anywhere: what it finds is checked by the
    // library, and types need not be those that its class means by their names.
    let unconditional = arguments.int(2) & UNCONDITIONAL != 0 && arguments.int(2) > 0;
    let caller =
        (!arguments.reference(1).is_null() && !unconditional).then(|| loader::of_mirror(arguments.reference(1)));
    let method = link::resolve_method_in(thread, caller, class, name, descriptor, method_kind, is_interface)?;
    if method_kind == MethodKind::Special && method.is_abstract() {
        let message = link::method_text(method.class, name, descriptor);
        return Err(exceptions::throw(thread, "java/lang/AbstractMethodError", message));
    }
    let method_kind =
        if method_kind == MethodKind::Virtual && class.is_interface() { MethodKind::Interface } else { method_kind };
    set_method(thread, handle, class, method, method_kind)
}

fn expand(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let member = thread.handle(arguments.reference(0));
    let bits: u32 = member.get().read(known::member_flags());
    let (name, descriptor) = if bits & IS_FIELD != 0 {
        let class = loader::of_mirror(member.get().reference(known::member_class()));
        let offset: i64 = member.get().read(known::member_index());
        let is_static = bits & u32::from(flags::STATIC) != 0;
        let found =
            class.fields.get().iter().find(|field| i64::from(field.offset) == offset && field.is_static() == is_static);
        let Some(field) = found else { return Ok(0) };
        (field.name, field.descriptor)
    } else {
        let Some(method) = link::member_target(member.get()) else {
            return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", "nothing to expand"));
        };
        (method.name, method.descriptor)
    };
    let text = strings::intern_symbol(thread, name)?;
    member.get().set_reference(known::member_name_of(), text.get());
    let text = strings::intern_symbol(thread, descriptor)?;
    if member.get().reference(known::member_type()).is_null() {
        member.get().set_reference(known::member_type(), text.get());
    }
    Ok(0)
}

fn field_offset(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(arguments.reference(0).read(known::member_index()))
}

fn vm_info(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let index: u64 = arguments.reference(0).read(known::member_index());
    let array = allocate::object_array(thread, 2)?;
    let array = thread.handle(array);
    let boxed = crate::boxing::box_value(thread, crate::metadata::BasicType::Long, index)?;
    array.get().set_reference_element(0, boxed);
    let member = arguments.reference(0);
    let bits: u32 = member.read(known::member_flags());
    let target = if bits & IS_FIELD != 0 { member.reference(known::member_class()) } else { member };
    array.get().set_reference_element(1, target);
    Ok(array.slot())
}

fn set_target(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    arguments.reference(0).set_reference(known::call_site_target(), arguments.reference(1));
    std::sync::atomic::fence(Ordering::SeqCst);
    Ok(0)
}
