//! `java.lang.Object`, `java.lang.String`, `java.lang.Float`, `java.lang.Double`.

use super::{Arguments, Table, int};
use crate::allocate;
use crate::exceptions;
use crate::known;
use crate::monitor;
use crate::object::{ELEMENTS_OFFSET, FIELDS_OFFSET, Reference};
use crate::strings;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    (
        "java/lang/Object",
        &[
            ("getClass", "()Ljava/lang/Class;", get_class),
            ("hashCode", "()I", hash_code),
            ("clone", "()Ljava/lang/Object;", clone),
            ("notify", "()V", notify),
            ("notifyAll", "()V", notify_all),
            ("wait", "(J)V", wait),
        ],
    ),
    ("java/lang/String", &[("intern", "()Ljava/lang/String;", intern)]),
    ("java/lang/Float", &[("floatToRawIntBits", "(F)I", same_bits), ("intBitsToFloat", "(I)F", same_bits)]),
    ("java/lang/Double", &[("doubleToRawLongBits", "(D)J", same_bits), ("longBitsToDouble", "(J)D", same_bits)]),
];

fn same_bits(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(arguments.slot(0))
}

fn get_class(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(arguments.reference(0).class().mirror().slot())
}

fn hash_code(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    int(monitor::identity_hash(arguments.reference(0)).cast_signed())
}

fn clone(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = arguments.reference(0);
    let class = object.class();
    if !class.is_array() && !class.is_subtype_of(known::cloneable()) {
        let name = class.external_name();
        return Err(exceptions::throw(thread, "java/lang/CloneNotSupportedException", name));
    }
    let copy = if class.is_array() {
        let length = object.length();
        allocate::array(thread, class, length)?
    } else {
        allocate::instance(thread, class)?
    };
    let object = arguments.reference(0);
    copy_contents(object, copy);
    Ok(copy.slot())
}

/// Copies all fields or elements to a new object of the same class and length.
fn copy_contents(from: Reference, to: Reference) {
    let class = from.class();
    let start = if class.is_array() { ELEMENTS_OFFSET } else { FIELDS_OFFSET };
    let end = from.size();
    for offset in (start..end).step_by(4) {
        to.u32(offset)
            .store(from.u32(offset).load(std::sync::atomic::Ordering::Relaxed), std::sync::atomic::Ordering::Relaxed);
        crate::heap::card_mark(to.address() + offset);
    }
}

fn notify(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    monitor::notify(thread, arguments.reference(0), false).map(|()| 0)
}

fn notify_all(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    monitor::notify(thread, arguments.reference(0), true).map(|()| 0)
}

fn wait(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let Ok(millis) = u64::try_from(arguments.long(1)) else {
        return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", "timeout value is negative"));
    };
    let result = monitor::wait(thread, arguments.reference(0), millis);
    super::java_lang_thread::stopped(thread)?;
    result.map(|()| 0)
}

fn intern(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(strings::intern(arguments.reference(0)).slot())
}
