//! What instructions do the first time: resolve, then become quick.

use std::sync::atomic::{AtomicU8, Ordering};

use classfile::flags;

use super::{messages, quick};
use crate::allocate;
use crate::arena::Meta;
use crate::exceptions;
use crate::known;
use crate::link::{self, MethodKind};
use crate::metadata::{BasicType, Class, Entry, Method, Pool, Tag};
use crate::object::Reference;
use crate::thread::{Result, Thread};

/// Replaces the opcode of the instruction at `pc`.
fn become_quick(pc: *const u8, opcode: u8) {
    // SAFETY: `pc` is in a method's code, which is written only here, a byte at a time and atomically.
    unsafe { AtomicU8::from_ptr(pc.cast_mut()) }.store(opcode, Ordering::Release);
}

fn operand(pc: *const u8) -> u16 {
    // SAFETY: the instructions that come here have a two-byte operand.
    unsafe { u16::from_be_bytes([pc.add(1).read(), pc.add(2).read()]) }
}

/// Resolves a field instruction.
#[inline(never)]
pub(super) fn field(
    thread: &mut Thread,
    method: Meta<Method>,
    pc: *const u8,
    is_static: bool,
    is_put: bool,
) -> Result<()> {
    let (pool, index) = (method.constants(), operand(pc));
    let (class, field) = link::resolve_field(thread, method, pool, index, (is_static, is_put))?;
    let is_volatile = field.flags & flags::VOLATILE != 0;
    let offset = field.offset | if is_volatile { VOLATILE } else { 0 };
    pool.publish(index, Pool::pack_field(class, field.kind, offset));
    let opcode = match (is_static, is_put) {
        // While its class is being initialised by another thread, a static field must be looked at each time.
        (true, _) if !class.is_initialized() => return Ok(()),
        (true, false) if !is_volatile && field.kind.shift() == 2 => quick::GETSTATIC_WORD,
        (true, false) => quick::GETSTATIC_QUICK,
        (true, true) => quick::PUTSTATIC_QUICK,
        (false, false) if is_volatile => quick::GETFIELD_VOLATILE,
        (false, true) if is_volatile => quick::PUTFIELD_OTHER,
        (false, false) => match field.kind {
            BasicType::Boolean | BasicType::Byte => quick::GETFIELD_BYTE,
            BasicType::Char => quick::GETFIELD_CHAR,
            BasicType::Short => quick::GETFIELD_SHORT,
            BasicType::Long | BasicType::Double => quick::GETFIELD_LONG,
            _ => quick::GETFIELD_WORD,
        },
        (false, true) => match field.kind {
            BasicType::Byte => quick::PUTFIELD_BYTE,
            BasicType::Char | BasicType::Short => quick::PUTFIELD_SHORT,
            BasicType::Int | BasicType::Float => quick::PUTFIELD_WORD,
            BasicType::Long | BasicType::Double => quick::PUTFIELD_LONG,
            BasicType::Reference => quick::PUTFIELD_REFERENCE,
            _ => quick::PUTFIELD_OTHER,
        },
    };
    become_quick(pc, opcode);
    Ok(())
}

/// In the offset of a packed field: it is volatile.
pub(super) const VOLATILE: u32 = 1 << 27;

/// Reads a field of any kind, as a slot.
#[inline]
pub(super) fn read_field(object: Reference, offset: u32, kind: BasicType) -> u64 {
    let is_volatile = offset & VOLATILE != 0;
    let offset = offset & !VOLATILE;
    let value = match kind {
        BasicType::Boolean | BasicType::Byte => u64::from(i32::from(object.read::<i8>(offset)).cast_unsigned()),
        BasicType::Char => u64::from(object.read::<u16>(offset)),
        BasicType::Short => u64::from(i32::from(object.read::<i16>(offset)).cast_unsigned()),
        BasicType::Long | BasicType::Double => object.read::<u64>(offset),
        _ => u64::from(object.read::<u32>(offset)),
    };
    if is_volatile {
        std::sync::atomic::fence(Ordering::Acquire);
    }
    value
}

/// Writes a slot to a field of any kind.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the JVMS narrows values that are stored")]
pub(super) fn write_field(object: Reference, offset: u32, kind: BasicType, value: u64) {
    let is_volatile = offset & VOLATILE != 0;
    let offset = offset & !VOLATILE;
    if is_volatile {
        std::sync::atomic::fence(Ordering::Release);
    }
    match kind {
        BasicType::Boolean => object.write(offset, value as u8 & 1),
        BasicType::Byte => object.write(offset, value as u8),
        BasicType::Char | BasicType::Short => object.write(offset, value as u16),
        BasicType::Long | BasicType::Double => object.write(offset, value),
        BasicType::Reference => object.set_reference(offset, Reference::of_slot(value)),
        _ => object.write(offset, value as u32),
    }
    if is_volatile {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Resolves the class of `new`, `anewarray`, `checkcast` or `instanceof`.
#[inline(never)]
pub(super) fn class(thread: &mut Thread, pool: &'static Pool, pc: *const u8, opcode: u8) -> Result<()> {
    link::resolve_class(thread, pool, operand(pc))?;
    become_quick(pc, opcode);
    Ok(())
}

/// `new`, not yet quick: it becomes so when the class is initialised.
#[inline(never)]
pub(super) fn new(thread: &mut Thread, pool: &'static Pool, pc: *const u8) -> Result<Reference> {
    let class = link::resolve_class(thread, pool, operand(pc))?;
    if class.is_abstract() || class.is_interface() || class.shape.size == 0 || class.name.bytes() == b"java/lang/Class"
    {
        return Err(messages::instantiation(thread, class));
    }
    link::initialize(thread, class)?;
    if class.is_initialized() && !class.has_finalizer.load(Ordering::Relaxed) {
        become_quick(pc, quick::NEW_QUICK);
    }
    new_instance(thread, class)
}

/// An instance, registered with the collector if it has a finalizer.
pub(crate) fn new_instance(thread: &mut Thread, class: Meta<Class>) -> Result<Reference> {
    let object = allocate::instance(thread, class)?;
    if class.has_finalizer.load(Ordering::Relaxed) { register_finalizer(thread, object) } else { Ok(object) }
}

/// Makes a `java.lang.ref.Finalizer` of an object, which becomes pending when nobody else leads to the object any more; where the object is then.
#[inline(never)]
pub(crate) fn register_finalizer(thread: &mut Thread, object: Reference) -> Result<Reference> {
    thread.scope(|thread| {
        let object = thread.handle(object);
        let (class, descriptor) = ("java/lang/ref/Finalizer", "(Ljava/lang/Object;)V");
        crate::bootstrap::call_static(thread, class, "register", descriptor, &[object.slot()])?;
        Ok(object.get())
    })
}

/// `anewarray`, resolved.
#[inline(never)]
pub(super) fn reference_array(thread: &mut Thread, element: Meta<Class>, length: i32) -> Result<Reference> {
    let Ok(length) = u32::try_from(length) else { return Err(messages::negative_size(thread, length)) };
    allocate::reference_array(thread, element, length)
}

/// `newarray`
#[inline(always)]
pub(super) fn primitive_array(thread: &mut Thread, code: u8, length: i32) -> Result<Reference> {
    let Ok(length) = u32::try_from(length) else { return Err(messages::negative_size(thread, length)) };
    let kind = match code {
        4 => BasicType::Boolean,
        5 => BasicType::Char,
        6 => BasicType::Float,
        7 => BasicType::Double,
        8 => BasicType::Byte,
        9 => BasicType::Short,
        10 => BasicType::Int,
        _ => BasicType::Long,
    };
    allocate::primitive_array(thread, kind, length)
}

/// `multianewarray`: the counts are slots, the outermost first.
#[inline(never)]
pub(super) fn multi_array(
    thread: &mut Thread,
    pool: &'static Pool,
    pc: *const u8,
    counts: &[i32],
) -> Result<Reference> {
    let class = link::resolve_class(thread, pool, operand(pc))?;
    if let Some(&negative) = counts.iter().find(|&&count| count < 0) {
        return Err(messages::negative_size(thread, negative));
    }
    thread.scope(|thread| arrays(thread, class, counts))
}

/// Nested arrays of these lengths.
pub(crate) fn arrays(thread: &mut Thread, class: Meta<Class>, counts: &[i32]) -> Result<Reference> {
    let Some((&count, rest)) = counts.split_first() else { return Ok(Reference::NULL) };
    let length = count.cast_unsigned();
    let array = allocate::array(thread, class, length)?;
    let Some(element) = class.element.filter(|_| !rest.is_empty()) else { return Ok(array) };
    let array = thread.handle(array);
    for index in 0..length {
        let inner = thread.scope(|thread| arrays(thread, element, rest))?;
        array.get().set_reference_element(index, inner);
    }
    Ok(array.get())
}

/// Resolves a call.
#[inline(never)]
pub(super) fn call(thread: &mut Thread, pool: &'static Pool, pc: *const u8, kind: MethodKind) -> Result<()> {
    let class = pool.class;
    let index = operand(pc);
    if kind == MethodKind::Virtual && link::resolve_handle_call(thread, pool, index)?.is_some() {
        become_quick(pc, quick::INVOKEHANDLE_QUICK);
        return Ok(());
    }
    let target = link::resolve_method(thread, pool, index, kind)?;
    let entry = pool.method(index);
    let opcode = match kind {
        MethodKind::Static if !target.class.is_initialized() => return Ok(()),
        MethodKind::Static => quick::INVOKESTATIC_QUICK,
        MethodKind::Special if pool.tag(index) == Tag::InterfaceMethod => quick::INVOKESPECIAL_INTERFACE,
        MethodKind::Special if class.is_interface() && !target.is_constructor() => quick::INVOKESPECIAL_INTERFACE,
        MethodKind::Special => quick::INVOKESPECIAL_QUICK,
        MethodKind::Virtual if entry.vtable_index == u16::MAX => quick::INVOKEVIRTUAL_DIRECT,
        MethodKind::Virtual => quick::INVOKEVIRTUAL_QUICK,
        MethodKind::Interface => quick::INVOKEINTERFACE_QUICK,
    };
    become_quick(pc, opcode);
    Ok(())
}

/// Links an `invokedynamic`.
#[inline(never)]
pub(super) fn call_site(thread: &mut Thread, pool: &'static Pool, pc: *const u8, number: u32) -> Result<()> {
    link::resolve_call_site(thread, pool, number)?;
    become_quick(pc, quick::INVOKEDYNAMIC_QUICK);
    Ok(())
}

/// Selects the method of an interface call whose inline cache does not fit, and fills the cache.
#[inline(never)]
pub(super) fn interface_method(
    thread: &mut Thread,
    pool: &'static Pool,
    pc: *const u8,
    receiver: Reference,
) -> Result<Meta<Method>> {
    let index = operand(pc);
    let resolved = pool.method(index).method;
    let class = receiver.class();
    let named = pool.class_at(pool.pair(index).0);
    if let Some(interface) =
        named.filter(|interface| !resolved.class.is_interface() && !class.is_subtype_of(*interface))
    {
        return Err(messages::not_implemented(thread, class, interface));
    }
    // One that an interface has from Object is selected as a class's.
    let selected = if resolved.class.is_interface() {
        link::select_interface_method(class, resolved)
    } else {
        Some(link::select_method(class, resolved))
    };
    let Some(selected) = selected else {
        // An array or class without methods of the interface, or none at all.
        if class.is_subtype_of(resolved.class) {
            return Ok(resolved);
        }
        return Err(messages::not_implemented(thread, class, resolved.class));
    };
    let word = (u64::from(class.offset()) << 32) | u64::from(selected.offset());
    pool.entry(index).cache.store(word, Ordering::Release);
    Ok(selected)
}

/// `ldc` and its like: the slot, and whether it takes two.
#[inline(never)]
pub(super) fn load_constant(
    thread: &mut Thread,
    pool: &'static Pool,
    pc: *const u8,
    index: u16,
    short: bool,
) -> Result<(u64, bool)> {
    let value = pool.entry(index).value;
    match pool.tag(index) {
        Tag::Integer | Tag::Float => {
            if short {
                become_quick(pc, quick::LDC_WORD);
            }
            Ok((value, false))
        }
        Tag::Long | Tag::Double => Ok((value, true)),
        Tag::Class => Ok((link::resolve_class(thread, pool, index)?.mirror().slot(), false)),
        Tag::Dynamic => {
            let global = link::resolve_constant(thread, pool, index)?;
            let (_, name_and_type) = pool.pair(index);
            let (_, descriptor) = pool.name_and_type(name_and_type);
            let kind = BasicType::of(descriptor.bytes()[0]);
            if kind == BasicType::Reference {
                return Ok((global.get().slot(), false));
            }
            let value = crate::boxing::unbox(global.get()).map_or(0, |(_, value)| value);
            Ok((value, kind.slots() == 2))
        }
        _ => {
            let global = link::resolve_constant(thread, pool, index)?;
            become_quick(pc, if short { quick::LDC_REFERENCE } else { quick::LDC_W_REFERENCE });
            Ok((global.get().slot(), false))
        }
    }
}

/// The method to call instead of one that has neither code nor a native function; arguments are at `base`.
#[inline(never)]
pub(super) fn redirect(thread: &mut Thread, method: Meta<Method>, base: *mut u64) -> Result<Meta<Method>> {
    // SAFETY: the arguments of the method are there.
    let argument = |index: usize| Reference::of_slot(unsafe { base.add(index).read() });
    let member = || {
        let member = argument(method.argument_slots as usize - 1);
        if member.is_null() { None } else { link::member_target(member) }
    };
    let missing =
        |thread: &mut Thread| exceptions::throw(thread, "java/lang/InternalError", "MemberName is not resolved");
    match method.entry() {
        Entry::InvokeBasic => {
            let handle = argument(0);
            if handle.is_null() {
                return Err(exceptions::null_pointer(thread));
            }
            let form = handle.reference(known::method_handle_form());
            let entry = form.reference(known::lambda_form_entry());
            if entry.is_null() {
                return Err(missing(thread));
            }
            link::member_target(entry).ok_or_else(|| missing(thread))
        }
        Entry::LinkToStatic => member().ok_or_else(|| missing(thread)),
        Entry::LinkToSpecial => {
            if argument(0).is_null() {
                return Err(exceptions::null_pointer(thread));
            }
            member().ok_or_else(|| missing(thread))
        }
        Entry::LinkToVirtual | Entry::LinkToInterface => {
            let Some(target) = member() else { return Err(missing(thread)) };
            let receiver = argument(0);
            if receiver.is_null() {
                return Err(exceptions::null_pointer(thread));
            }
            let class = receiver.class();
            if target.class.is_interface() {
                match link::select_interface_method(class, target) {
                    Some(selected) => Ok(selected),
                    None => Err(messages::not_implemented(thread, class, target.class)),
                }
            } else {
                Ok(link::select_method(class, target))
            }
        }
        Entry::Conflict => Err(messages::conflict(thread, method)),
        Entry::NotPublic => Err(messages::not_public(thread, method)),
        _ => {
            // A receiver is the first argument; invokespecial has none that mattered.
            let receiver = Some(argument(0)).filter(|receiver| !receiver.is_null());
            let resolved = resolved_of_caller(thread)
                .filter(|resolved| resolved.name == method.name && resolved.descriptor == method.descriptor);
            Err(messages::abstract_method(thread, method, resolved.unwrap_or(method), receiver.map(Reference::class)))
        }
    }
}

/// The method that the calling instruction of the youngest frame names.
fn resolved_of_caller(thread: &Thread) -> Option<Meta<Method>> {
    let frame = thread.top_frame()?;
    let code = super::original_code(&frame.method());
    let at = usize::from(frame.bci()?);
    let [0xB6 | 0xB7 | 0xB9, high, low] = *code.get(at..at + 3)? else { return None };
    let index = u16::from_be_bytes([high, low]);
    let pool = frame.method().constants();
    (pool.resolved(index) != 0).then(|| pool.method(index).method)
}

/// The thread was asked to stop at a safe point. Fails if `Thread.stop` ends it, or it has accessed memory that is lost.
#[inline(never)]
pub(super) fn poll(thread: &mut Thread) -> Result<()> {
    match thread.control.clone().poll() {
        Some(exception) => {
            let thrown = thread.throw(exception.get());
            exception.release();
            Err(thrown)
        }
        None if thread.control.take_fault() => {
            let text = "a fault occurred in an unsafe memory access operation";
            Err(exceptions::throw(thread, "java/lang/InternalError", text))
        }
        None => Ok(()),
    }
}
