//! Fields of objects and classes.

use std::collections::HashMap;
use std::ffi::c_char;
use std::sync::atomic::{Ordering, fence};
use std::sync::{LazyLock, Mutex, PoisonError};

use classfile::flags;

use super::environment::{Env, Object, class, get, making, running};
use super::natives::text;
use crate::access::Value;
use crate::arena::Meta;
use crate::exceptions;
use crate::link;
use crate::metadata::{Class, Field};
use crate::object::Reference;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

/// What a `jfieldID` leads to.
#[derive(Debug)]
pub(super) struct FieldRecord {
    pub(super) class: Meta<Class>,
    pub(super) field: &'static Field,
}

/// `jfieldID`
pub(super) type FieldId = *const FieldRecord;

/// Records by the address of their field. They live as long as the class.
static RECORDS: LazyLock<Mutex<HashMap<usize, &'static FieldRecord>>> = LazyLock::new(Mutex::default);

/// The id of a field that a class declares.
pub(super) fn id(class: Meta<Class>, field: &'static Field) -> FieldId {
    let mut records = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = std::ptr::from_ref(field).addr();
    *records.entry(key).or_insert_with(|| {
        let record = Box::into_raw(Box::new(FieldRecord { class, field }));
        record.expose_provenance();
        // SAFETY: just made; freed when its class is unloaded.
        unsafe { &*record }
    })
}

/// Forgets the fields of classes that are unloaded: C code that still has their ids keeps the rule that these end with the class.
pub(crate) fn forget(is_dead: impl Fn(Meta<Class>) -> bool) {
    let mut records = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
    records.retain(|_, &mut record| {
        let dead = is_dead(record.class);
        if dead {
            // SAFETY: made of a box by `id`, and no longer in the table.
            drop(unsafe {
                Box::<FieldRecord>::from_raw(std::ptr::with_exposed_provenance_mut(std::ptr::from_ref(record).addr()))
            });
        }
        !dead
    });
}

/// The field of an id.
pub(super) fn record(id: FieldId) -> &'static FieldRecord {
    // SAFETY: C code passes ids that it was given, and whose classes it has seen to that they are not unloaded.
    unsafe { &*id }
}

fn find(
    thread: &mut Thread,
    class: Meta<Class>,
    name: *const c_char,
    signature: *const c_char,
    is_static: bool,
) -> Result<FieldId> {
    let (name, signature) = (text(name), text(signature));
    let symbols = || Symbol::find(name).zip(Symbol::find(signature));
    if symbols().is_some() && class.is_instance_class() {
        link::initialize(thread, class)?;
    }
    let found = symbols()
        .filter(|_| class.is_instance_class())
        .and_then(|(name, descriptor)| class.find_field(name, descriptor));
    match found.filter(|(_, field)| field.is_static() == is_static && !field.injected) {
        Some((declared, field)) => Ok(id(declared, field)),
        None => {
            let (name, signature) = (String::from_utf8_lossy(name), String::from_utf8_lossy(signature));
            let message =
                if is_static { name.into_owned() } else { format!("{}.{name} {signature}", class.external_name()) };
            Err(exceptions::throw(thread, "java/lang/NoSuchFieldError", message))
        }
    }
}

pub(super) extern "C" fn instance_field(
    env: Env,
    owner: Object,
    name: *const c_char,
    signature: *const c_char,
) -> FieldId {
    running(env, std::ptr::null(), |thread| find(thread, class(owner), name, signature, false))
}

pub(super) extern "C" fn static_field(
    env: Env,
    owner: Object,
    name: *const c_char,
    signature: *const c_char,
) -> FieldId {
    running(env, std::ptr::null(), |thread| find(thread, class(owner), name, signature, true))
}

/// Where a field is: an object and an offset.
fn place(thread: &mut Thread, object: Option<Object>, id: FieldId) -> Result<(Reference, &'static Field)> {
    let record = record(id);
    let holder = object.map_or_else(|| record.class.mirror(), get);
    if holder.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    Ok((holder, record.field))
}

fn read<T: Value>(thread: &mut Thread, object: Option<Object>, id: FieldId) -> Result<T> {
    let (holder, field) = place(thread, object, id)?;
    let value = holder.read(field.offset);
    if field.flags & flags::VOLATILE != 0 {
        fence(Ordering::Acquire);
    }
    Ok(value)
}

fn write(thread: &mut Thread, object: Option<Object>, id: FieldId, store: impl FnOnce(Reference, u32)) -> Result<()> {
    let (holder, field) = place(thread, object, id)?;
    let is_volatile = field.flags & flags::VOLATILE != 0;
    if is_volatile {
        fence(Ordering::Release);
    }
    store(holder, field.offset);
    if is_volatile {
        fence(Ordering::SeqCst);
    }
    Ok(())
}

/// The four functions for fields of a type.
macro_rules! fields {
    ($($module:ident $type:ty, |$value:ident| $stored:expr;)*) => {$(
        pub(super) mod $module {
            use super::*;

            pub(in crate::jni) extern "C" fn get(env: Env, object: Object, id: FieldId) -> $type {
                running(env, <$type>::default(), |thread| read(thread, Some(object), id))
            }
            pub(in crate::jni) extern "C" fn set(env: Env, object: Object, id: FieldId, $value: $type) {
                running(env, (), |thread| write(thread, Some(object), id, |holder, offset| holder.write(offset, $stored)));
            }
            pub(in crate::jni) extern "C" fn get_static(env: Env, _: Object, id: FieldId) -> $type {
                running(env, <$type>::default(), |thread| read(thread, None, id))
            }
            pub(in crate::jni) extern "C" fn set_static(env: Env, _: Object, id: FieldId, $value: $type) {
                running(env, (), |thread| write(thread, None, id, |holder, offset| holder.write(offset, $stored)));
            }
        }
    )*};
}

fields! {
    boolean u8, |value| value & 1;
    byte i8, |value| value;
    char u16, |value| value;
    short i16, |value| value;
    int i32, |value| value;
    long i64, |value| value;
    float f32, |value| value;
    double f64, |value| value;
}

pub(super) mod object {
    use super::*;

    fn read_reference(thread: &mut Thread, object: Option<Object>, id: FieldId) -> Result<Reference> {
        read::<u32>(thread, object, id).map(Reference)
    }

    fn write_reference(thread: &mut Thread, object: Option<Object>, id: FieldId, value: Object) -> Result<()> {
        write(thread, object, id, |holder, offset| holder.set_reference(offset, super::get(value)))
    }

    pub(in crate::jni) extern "C" fn get(env: Env, object: Object, id: FieldId) -> Object {
        making(env, |thread| read_reference(thread, Some(object), id))
    }
    pub(in crate::jni) extern "C" fn set(env: Env, object: Object, id: FieldId, value: Object) {
        running(env, (), |thread| write_reference(thread, Some(object), id, value));
    }
    pub(in crate::jni) extern "C" fn get_static(env: Env, _: Object, id: FieldId) -> Object {
        making(env, |thread| read_reference(thread, None, id))
    }
    pub(in crate::jni) extern "C" fn set_static(env: Env, _: Object, id: FieldId, value: Object) {
        running(env, (), |thread| write_reference(thread, None, id, value));
    }
}
