//! Classes, methods and fields as C code finds them; reflection; objects and their classes; monitors.

use std::ffi::{c_char, c_void};

use super::checks;
use super::environment::{
    Boolean, ERROR, Env, Int, MethodId, OK, Object, class, get, making, method, method_id, running, with_pending,
};
use super::fields::FieldId;
use super::natives::{caller, text};
use crate::arena::Meta;
use crate::bootstrap;
use crate::exceptions;
use crate::interpreter;
use crate::known;
use crate::link::{self, Definition};
use crate::loader;
use crate::metadata::{Class, Method};
use crate::monitor;
use crate::natives;
use crate::object::Reference;
use crate::symbol::{Passing, Symbol};
use crate::thread::{Result, Thread};

/// `JNI_VERSION_10`
pub(super) const VERSION: Int = 0x000A_0000;

pub(super) extern "C" fn version(_: Env) -> Int {
    VERSION
}

pub(super) extern "C" fn define(
    env: Env,
    name: *const c_char,
    class_loader: Object,
    bytes: *const u8,
    length: Int,
) -> Object {
    making(env, |thread| {
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: C code passes so many bytes.
        let bytes = if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(bytes, length) } };
        let name = (!name.is_null()).then(|| Passing::new(text(name)));
        let data = loader::of(get(class_loader));
        let definition = Definition { name: name.as_deref().copied(), ..Definition::default() };
        Ok(link::define(thread, data, bytes, definition)?.mirror())
    })
}

pub(super) extern "C" fn find(env: Env, name: *const c_char) -> Object {
    making(env, |thread| {
        if name.is_null() {
            return Err(exceptions::throw(thread, "java/lang/NoClassDefFoundError", "No class name given"));
        }
        let name = text(name);
        checks::class_name(name);
        link::check_name(thread, name)?;
        // The specification wants an internal name, but HotSpot takes the descriptor of a class as well.
        let name = name.strip_prefix(b"L").and_then(|rest| rest.strip_suffix(b";")).unwrap_or(name);
        let passing = Passing::new(name);
        let name = *passing;
        if name.bytes().contains(&b'.') && !name.bytes().starts_with(b"[") {
            return Err(exceptions::throw(thread, "java/lang/NoClassDefFoundError", name.text()));
        }
        let data = match caller(thread)? {
            Some(data) => data,
            None => {
                let descriptor = "()Ljava/lang/ClassLoader;";
                let system = "getSystemClassLoader";
                let system = bootstrap::call_static(thread, "java/lang/ClassLoader", system, descriptor, &[])?;
                loader::of(Reference::of_slot(system))
            }
        };
        let found = loader::load(thread, name, data).map_err(|thrown| link::class_not_found(thread, name, thrown))?;
        initialize(thread, found)?;
        Ok(found.mirror())
    })
}

/// Initialises a class that has an initialiser.
fn initialize(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    if class.is_instance_class() { link::initialize(thread, class) } else { Ok(()) }
}

pub(super) extern "C" fn superclass(env: Env, object: Object) -> Object {
    making(env, |_| {
        let class = class(object);
        let parent = class.super_class.filter(|_| !class.is_interface() && !class.primitive);
        Ok(parent.map_or(Reference::NULL, |parent| parent.mirror()))
    })
}

pub(super) extern "C" fn is_assignable(env: Env, from: Object, to: Object) -> Boolean {
    running(env, 0, |_| {
        let (from, to) = (class(from), class(to));
        Ok(Boolean::from(if from.primitive || to.primitive { from == to } else { from.is_subtype_of(to) }))
    })
}

pub(super) extern "C" fn class_of(env: Env, object: Object) -> Object {
    making(env, |thread| match get(object) {
        object if object.is_null() => Err(exceptions::null_pointer(thread)),
        object => Ok(object.class().mirror()),
    })
}

pub(super) extern "C" fn is_instance(env: Env, object: Object, of: Object) -> Boolean {
    running(env, 0, |_| {
        let object = get(object);
        Ok(Boolean::from(object.is_null() || object.class().is_subtype_of(class(of))))
    })
}

pub(super) extern "C" fn module(env: Env, object: Object) -> Object {
    making(env, |thread| {
        let mirror = get(object);
        if mirror.is_null() {
            return Err(exceptions::null_pointer(thread));
        }
        if mirror.class() != known::class() {
            return Err(exceptions::throw_plain(thread, "java/lang/IllegalArgumentException"));
        }
        Ok(mirror.reference(known::class_module()))
    })
}

/// An object without its constructor having run.
pub(super) fn allocate(thread: &mut Thread, class: Meta<Class>) -> Result<Reference> {
    let without = class.is_abstract() || class.is_interface() || !class.is_instance_class() || class == known::class();
    if without {
        let name = class.external_name();
        return Err(exceptions::throw(thread, "java/lang/InstantiationException", name));
    }
    link::initialize(thread, class)?;
    interpreter::new_instance(thread, class)
}

pub(super) extern "C" fn allocate_object(env: Env, object: Object) -> Object {
    making(env, |thread| allocate(thread, class(object)))
}

fn find_method(
    thread: &mut Thread,
    class: Meta<Class>,
    name: *const c_char,
    signature: *const c_char,
    is_static: bool,
) -> Result<Meta<Method>> {
    let name = if name.is_null() { b"<init>" } else { text(name) };
    let signature = text(signature);
    let none = |thread: &mut Thread| {
        let name = String::from_utf8_lossy(name).into_owned();
        Err(exceptions::throw(thread, "java/lang/NoSuchMethodError", name))
    };
    if Symbol::find(name).is_none() || Symbol::find(signature).is_none() {
        return none(thread);
    }
    initialize(thread, class)?;
    let Some((name, descriptor)) = Symbol::find(name).zip(Symbol::find(signature)) else { return none(thread) };
    let found = if class.primitive {
        None
    } else if matches!(name.bytes(), b"<init>" | b"<clinit>") {
        class.declared_method(name, descriptor)
    } else {
        class.find_method(name, descriptor).or_else(|| link::find_interface_method(class, name, descriptor))
    };
    match found.filter(|method| method.is_static() == is_static) {
        Some(method) => Ok(method),
        None => {
            let owner =
                if class.is_array() || class.primitive { class.name.text() } else { format!("L{};", class.name) };
            let prefix = if is_static { "static " } else { "" };
            let message = format!("{prefix}{owner}.{name}{descriptor}");
            Err(exceptions::throw(thread, "java/lang/NoSuchMethodError", message))
        }
    }
}

pub(super) extern "C" fn instance_method(
    env: Env,
    owner: Object,
    name: *const c_char,
    signature: *const c_char,
) -> MethodId {
    let find = |thread: &mut Thread| find_method(thread, class(owner), name, signature, false).map(method_id);
    running(env, std::ptr::null_mut(), find)
}

pub(super) extern "C" fn static_method(
    env: Env,
    owner: Object,
    name: *const c_char,
    signature: *const c_char,
) -> MethodId {
    let find = |thread: &mut Thread| find_method(thread, class(owner), name, signature, true).map(method_id);
    running(env, std::ptr::null_mut(), find)
}

pub(super) extern "C" fn from_reflected_method(env: Env, object: Object) -> MethodId {
    running(env, std::ptr::null_mut(), |_| {
        let object = get(object);
        let (owner, slot) = if object.class() == known::reflect_constructor() {
            (known::constructor_class(), known::constructor_slot())
        } else {
            (known::method_class(), known::method_slot())
        };
        let owner = loader::of_mirror(object.reference(owner));
        let slot = usize::try_from(object.read::<i32>(slot)).unwrap_or(usize::MAX);
        Ok(owner.methods.get().get(slot).map_or(std::ptr::null_mut(), |&method| method_id(method)))
    })
}

pub(super) extern "C" fn to_reflected_method(env: Env, _: Object, id: MethodId, _: Boolean) -> Object {
    making(env, |thread| natives::reflected_method(thread, method(id)).map(|handle| handle.get()))
}

pub(super) extern "C" fn from_reflected_field(env: Env, object: Object) -> FieldId {
    running(env, std::ptr::null(), |_| {
        let object = get(object);
        let owner = loader::of_mirror(object.reference(known::field_class()));
        let slot = usize::try_from(object.read::<i32>(known::field_slot())).unwrap_or(usize::MAX);
        Ok(owner.fields.get().get(slot).map_or(std::ptr::null(), |field| super::fields::id(owner, field)))
    })
}

pub(super) extern "C" fn to_reflected_field(env: Env, _: Object, id: FieldId, _: Boolean) -> Object {
    making(env, |thread| {
        let record = super::fields::record(id);
        natives::reflected_field(thread, record.class, record.field).map(|handle| handle.get())
    })
}

pub(super) extern "C" fn monitor_enter(env: Env, object: Object) -> Int {
    running(env, ERROR, |thread| {
        let object = get(object);
        if object.is_null() {
            return Err(exceptions::null_pointer(thread));
        }
        monitor::enter(thread, object)?;
        Ok(OK)
    })
}

pub(super) extern "C" fn monitor_exit(env: Env, object: Object) -> Int {
    with_pending(env, |thread| {
        let object = get(object);
        let pending = thread.take_exception();
        let pending = thread.handle(pending);
        let result =
            if object.is_null() { Err(exceptions::null_pointer(thread)) } else { monitor::exit(thread, object) };
        if !pending.is_null() {
            thread.throw(pending.get());
        }
        if result.is_ok() { OK } else { ERROR }
    })
}

pub(super) extern "C" fn new_direct_buffer(env: Env, address: *mut c_void, capacity: i64) -> Object {
    making(env, |thread| {
        let Ok(capacity) = i32::try_from(capacity) else {
            let message = "JNI NewDirectByteBuffer passed capacity < 0 or more than an int has";
            return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", message));
        };
        let class = loader::boot_class("java/nio/DirectByteBuffer");
        link::initialize(thread, class)?;
        let buffer = crate::allocate::instance(thread, class)?;
        let buffer = thread.handle(buffer);
        let constructor = class.declared_method(Symbol::new("<init>"), Symbol::new("(JI)V"));
        let constructor = constructor.expect("DirectByteBuffer has a constructor with address and length");
        let address = address.expose_provenance() as u64;
        let arguments = [buffer.slot(), address, 0, u64::from(capacity.cast_unsigned())];
        interpreter::call(thread, constructor, &arguments)?;
        Ok(buffer.get())
    })
}

/// Whether an object is a direct buffer.
fn is_direct(object: Reference) -> bool {
    !object.is_null() && object.class().is_subtype_of(loader::boot_class("sun/nio/ch/DirectBuffer"))
}

fn buffer_field<T: crate::access::Value>(object: Reference, name: &str, descriptor: &str) -> T {
    object.read(known::field(loader::boot_class("java/nio/Buffer"), name, descriptor))
}

pub(super) extern "C" fn direct_address(env: Env, object: Object) -> *mut c_void {
    running(env, std::ptr::null_mut(), |_| {
        let object = get(object);
        if !is_direct(object) {
            return Ok(std::ptr::null_mut());
        }
        let address: u64 = buffer_field(object, "address", "J");
        Ok(std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0)))
    })
}

pub(super) extern "C" fn direct_capacity(env: Env, object: Object) -> i64 {
    running(env, -1, |_| {
        let object = get(object);
        Ok(if is_direct(object) { i64::from(buffer_field::<i32>(object, "capacity", "I")) } else { -1 })
    })
}
