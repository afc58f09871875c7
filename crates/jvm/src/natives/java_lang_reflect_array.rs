//! `java.lang.reflect.Array`: making arrays, and their elements one by one, converted as reflection does.

use super::java_lang_reflect::{convert, widen};
use super::{Arguments, Table, int};
use crate::allocate;
use crate::arena::Meta;
use crate::boxing;
use crate::exceptions;
use crate::interpreter;
use crate::loader;
use crate::metadata::{BasicType, Class};
use crate::object::Reference;
use crate::thread::{Result, Thread, Thrown};

pub(super) const TABLES: &[Table] = &[(
    "java/lang/reflect/Array",
    &[
        ("newArray", "", new_array),
        ("multiNewArray", "", multi_array),
        ("getLength", "", length),
        ("get", "", get),
        ("getBoolean", "", |thread, a| read(thread, a, BasicType::Boolean)),
        ("getByte", "", |thread, a| read(thread, a, BasicType::Byte)),
        ("getChar", "", |thread, a| read(thread, a, BasicType::Char)),
        ("getShort", "", |thread, a| read(thread, a, BasicType::Short)),
        ("getInt", "", |thread, a| read(thread, a, BasicType::Int)),
        ("getLong", "", |thread, a| read(thread, a, BasicType::Long)),
        ("getFloat", "", |thread, a| read(thread, a, BasicType::Float)),
        ("getDouble", "", |thread, a| read(thread, a, BasicType::Double)),
        ("set", "", set),
        ("setBoolean", "", |thread, a| write(thread, a, BasicType::Boolean)),
        ("setByte", "", |thread, a| write(thread, a, BasicType::Byte)),
        ("setChar", "", |thread, a| write(thread, a, BasicType::Char)),
        ("setShort", "", |thread, a| write(thread, a, BasicType::Short)),
        ("setInt", "", |thread, a| write(thread, a, BasicType::Int)),
        ("setLong", "", |thread, a| write(thread, a, BasicType::Long)),
        ("setFloat", "", |thread, a| write(thread, a, BasicType::Float)),
        ("setDouble", "", |thread, a| write(thread, a, BasicType::Double)),
    ],
)];

fn wrong(thread: &mut Thread, message: &str) -> Thrown {
    exceptions::throw(thread, "java/lang/IllegalArgumentException", message)
}

/// The class of the elements of arrays that are to be made.
fn element_class(thread: &mut Thread, mirror: Reference) -> Result<Meta<Class>> {
    if mirror.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let element = loader::of_mirror(mirror);
    if element.primitive && element.basic == BasicType::Void {
        return Err(exceptions::throw_plain(thread, "java/lang/IllegalArgumentException"));
    }
    Ok(element)
}

fn new_array(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let element = element_class(thread, arguments.reference(0))?;
    let Ok(length) = u32::try_from(arguments.int(1)) else {
        return Err(exceptions::throw(thread, "java/lang/NegativeArraySizeException", arguments.int(1).to_string()));
    };
    if element.dimensions == 255 {
        return Err(exceptions::throw_plain(thread, "java/lang/IllegalArgumentException"));
    }
    allocate::reference_array(thread, element, length).map(Reference::slot)
}

fn multi_array(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let mut class = element_class(thread, arguments.reference(0))?;
    let lengths = arguments.reference(1);
    if lengths.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let counts: Vec<i32> = (0..lengths.length()).map(|index| lengths.element(index)).collect();
    if counts.is_empty() {
        return Err(wrong(thread, "Empty dimensions array"));
    }
    if counts.len() + usize::from(class.dimensions) > 255 {
        return Err(exceptions::throw_plain(thread, "java/lang/IllegalArgumentException"));
    }
    if let Some(negative) = counts.iter().find(|&&count| count < 0) {
        return Err(exceptions::throw(thread, "java/lang/NegativeArraySizeException", negative.to_string()));
    }
    for _ in 0..counts.len() {
        class = loader::array_class(thread, class)?;
    }
    interpreter::arrays(thread, class, &counts).map(Reference::slot)
}

/// The array that a native is asked about.
fn array(thread: &mut Thread, arguments: Arguments) -> Result<Reference> {
    let array = arguments.reference(0);
    if array.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    if !array.class().is_array() {
        return Err(wrong(thread, "Argument is not an array"));
    }
    Ok(array)
}

fn length(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    int(array(thread, arguments)?.length().cast_signed())
}

/// The class of an array's elements, and the index, which is within it.
fn element(thread: &mut Thread, array: Reference, index: i32) -> Result<(Meta<Class>, u32)> {
    match (u32::try_from(index), array.class().element) {
        (Ok(index), Some(class)) if index < array.length() => Ok((class, index)),
        _ => Err(exceptions::throw_plain(thread, "java/lang/ArrayIndexOutOfBoundsException")),
    }
}

/// The slot of an element.
fn slot_at(array: Reference, class: Meta<Class>, index: u32) -> u64 {
    let sign = |value: i32| u64::from(value.cast_unsigned());
    if !class.primitive {
        return array.reference_element(index).slot();
    }
    match class.basic {
        BasicType::Boolean => u64::from(array.element::<u8>(index)),
        BasicType::Byte => sign(i32::from(array.element::<i8>(index))),
        BasicType::Short => sign(i32::from(array.element::<i16>(index))),
        BasicType::Char => u64::from(array.element::<u16>(index)),
        BasicType::Long | BasicType::Double => array.element(index),
        _ => u64::from(array.element::<u32>(index)),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a slot has small numbers in its low part")]
fn set_slot(array: Reference, class: Meta<Class>, index: u32, slot: u64) {
    if !class.primitive {
        return array.set_reference_element(index, Reference::of_slot(slot));
    }
    match class.basic {
        BasicType::Boolean => array.set_element(index, slot as u8 & 1),
        BasicType::Byte => array.set_element(index, slot as u8),
        BasicType::Short | BasicType::Char => array.set_element(index, slot as u16),
        BasicType::Long | BasicType::Double => array.set_element(index, slot),
        _ => array.set_element(index, slot as u32),
    }
}

fn get(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let array = array(thread, arguments)?;
    let (class, index) = element(thread, array, arguments.int(1))?;
    let slot = slot_at(array, class, index);
    let kind = if class.primitive { class.basic } else { BasicType::Reference };
    boxing::box_value(thread, kind, slot).map(Reference::slot)
}

/// An element as a wider type.
fn read(thread: &mut Thread, arguments: Arguments, wanted: BasicType) -> Result<u64> {
    let array = array(thread, arguments)?;
    if array.class().element.is_none_or(|class| !class.primitive) {
        return Err(wrong(thread, "Argument is not an array of primitive type"));
    }
    let (class, index) = element(thread, array, arguments.int(1))?;
    let Some(slot) = widen(class.basic, slot_at(array, class, index), wanted) else {
        return Err(wrong(thread, "argument type mismatch"));
    };
    Ok(slot)
}

fn set(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let array = array(thread, arguments)?;
    let Some(class) = array.class().element else { return Ok(0) };
    let value = arguments.reference(2);
    if class.primitive && boxing::unbox(value).is_none() {
        return Err(wrong(thread, "argument type mismatch"));
    }
    let (class, index) = element(thread, array, arguments.int(1))?;
    let Some(slot) = convert(value, class) else {
        let message = if class.primitive { "argument type mismatch" } else { "array element type mismatch" };
        return Err(wrong(thread, message));
    };
    set_slot(array, class, index, slot);
    Ok(0)
}

/// Sets an element to a value of a type that is not wider.
fn write(thread: &mut Thread, arguments: Arguments, given: BasicType) -> Result<u64> {
    let array = array(thread, arguments)?;
    if array.class().element.is_none_or(|class| !class.primitive) {
        return Err(wrong(thread, "Argument is not an array of primitive type"));
    }
    let (class, index) = element(thread, array, arguments.int(1))?;
    let Some(slot) = widen(given, arguments.slot(2), class.basic) else {
        return Err(wrong(thread, "argument type mismatch"));
    };
    set_slot(array, class, index, slot);
    Ok(0)
}
