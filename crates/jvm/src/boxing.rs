//! Values as objects: `java.lang.Integer` and its like.

use crate::arena::Meta;
use crate::interpreter;
use crate::known;
use crate::link;
use crate::metadata::{BasicType, Class};
use crate::object::Reference;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

/// The class that boxes a primitive type.
pub fn box_class(kind: BasicType) -> Option<Meta<Class>> {
    Some(match kind {
        BasicType::Boolean => known::boxed_boolean(),
        BasicType::Char => known::boxed_character(),
        BasicType::Float => known::boxed_float(),
        BasicType::Double => known::boxed_double(),
        BasicType::Byte => known::boxed_byte(),
        BasicType::Short => known::boxed_short(),
        BasicType::Int => known::boxed_integer(),
        BasicType::Long => known::boxed_long(),
        BasicType::Reference | BasicType::Void => return None,
    })
}

/// Boxes a value by `valueOf`. A reference is itself; `void` is `null`. May collect.
pub fn box_value(thread: &mut Thread, kind: BasicType, value: u64) -> Result<Reference> {
    let Some(class) = box_class(kind) else {
        return Ok(if kind == BasicType::Void { Reference::NULL } else { Reference::of_slot(value) });
    };
    link::initialize(thread, class)?;
    let descriptor = format!("({})L{};", char::from(kind.letter()), class.name);
    let method = class.declared_method(Symbol::new("valueOf"), Symbol::new(descriptor)).expect("boxes have valueOf");
    let arguments = [value, 0];
    let count = kind.slots() as usize;
    interpreter::call(thread, method, &arguments[..count]).map(Reference::of_slot)
}

/// The value in a box and its type; `None` if the object is no box.
pub fn unbox(object: Reference) -> Option<(BasicType, u64)> {
    if object.is_null() {
        return None;
    }
    let class = object.class();
    let kind = BasicType::PRIMITIVES.into_iter().find(|&kind| box_class(kind) == Some(class))?;
    let letter = [kind.letter()];
    let field = class.declared_field(Symbol::new("value"), Symbol::new(letter))?;
    let value = match kind {
        BasicType::Boolean => u64::from(object.read::<u8>(field.offset)),
        BasicType::Byte => sign(i32::from(object.read::<i8>(field.offset))),
        BasicType::Short => sign(i32::from(object.read::<i16>(field.offset))),
        BasicType::Char => u64::from(object.read::<u16>(field.offset)),
        BasicType::Int | BasicType::Float => u64::from(object.read::<u32>(field.offset)),
        _ => object.read(field.offset),
    };
    Some((kind, value))
}

fn sign(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}
