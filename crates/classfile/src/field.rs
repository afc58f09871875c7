//! Fields (JVMS 4.5).

use crate::attributes::{Annotations, Seen, signature_index};
use crate::bytes::Cursor;
use crate::constants::{Constant, ConstantPool};
use crate::context::Context;
use crate::error::Result;
use crate::flags;

/// A field.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Flags that mean something for a field.
    pub access_flags: u16,
    /// Index of the name.
    pub name_index: u16,
    /// Index of the descriptor.
    pub descriptor_index: u16,
    /// The name.
    pub name: &'a [u8],
    /// The descriptor, well formed.
    pub descriptor: &'a [u8],
    /// Index of the initial value of a static field; the constant's kind fits the descriptor.
    pub constant_value: Option<u16>,
    /// Index of the generic signature.
    pub signature: Option<u16>,
    /// Annotations as they are in the file.
    pub annotations: Annotations<'a>,
}

impl<'a> Field<'a> {
    /// Whether the field belongs to the class.
    pub fn is_static(&self) -> bool {
        self.access_flags & flags::STATIC != 0
    }

    pub(crate) fn parse(cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<Self> {
        let access_flags = cursor.u16()? & flags::FIELD;
        context.check_field_flags(access_flags)?;
        let name_index = cursor.u16()?;
        let Some(name) = pool.utf8(name_index) else {
            return context.error(format_args!("Invalid constant pool index {name_index} for field name"));
        };
        context.check_field_name(name)?;
        let descriptor_index = cursor.u16()?;
        let Some(descriptor) = pool.utf8(descriptor_index) else {
            return context.error(format_args!("Invalid constant pool index {descriptor_index} for field signature"));
        };
        context.check_field_descriptor(name, descriptor)?;
        let mut field = Self {
            access_flags,
            name_index,
            descriptor_index,
            name,
            descriptor,
            constant_value: None,
            signature: None,
            annotations: Annotations::default(),
        };
        field.attributes(cursor, pool, context)?;
        Ok(field)
    }

    fn attributes(&mut self, cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<()> {
        let mut seen = Seen::default();
        for _ in 0..cursor.u16()? {
            let name_index = cursor.u16()?;
            let length = cursor.u32()?;
            let Some(name) = pool.utf8(name_index) else {
                return context.error(format_args!("Invalid field attribute index {name_index}"));
            };
            let body = cursor.take(length as usize)?;
            match name {
                b"ConstantValue" if self.is_static() => {
                    if self.constant_value.is_some() {
                        return context.error("Duplicate ConstantValue attribute");
                    }
                    let Ok(bytes) = <[u8; 2]>::try_from(body) else {
                        return context.error(format_args!("Invalid ConstantValue field attribute length {length}"));
                    };
                    self.constant_value = Some(self.constant_value(u16::from_be_bytes(bytes), pool, context)?);
                }
                b"Synthetic" if length != 0 => {
                    return context.error(format_args!("Invalid Synthetic field attribute length {length}"));
                }
                b"Synthetic" => self.access_flags |= flags::SYNTHETIC,
                b"Deprecated" if length != 0 => {
                    return context.error(format_args!("Invalid Deprecated field attribute length {length}"));
                }
                b"Signature" if context.major >= 49 => {
                    if self.signature.is_some() {
                        return context.error("Multiple Signature attributes for field");
                    }
                    let Ok(bytes) = <[u8; 2]>::try_from(body) else {
                        return context.error(format_args!("Wrong size {length} for field's Signature attribute"));
                    };
                    self.signature = Some(signature_index(u16::from_be_bytes(bytes), pool, context)?);
                }
                _ if context.major >= 49 => self.annotations.take(name, body, " for field", &mut seen, context)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn constant_value(&self, index: u16, pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<u16> {
        let constant = pool.get(index);
        if constant == Constant::Unusable {
            return context.error(format_args!("Bad initial value index {index} in ConstantValue attribute"));
        }
        let fits = match self.descriptor {
            b"J" => matches!(constant, Constant::Long(_)),
            b"F" => matches!(constant, Constant::Float(_)),
            b"D" => matches!(constant, Constant::Double(_)),
            b"B" | b"C" | b"S" | b"Z" | b"I" => matches!(constant, Constant::Integer(_)),
            b"Ljava/lang/String;" => {
                if !matches!(constant, Constant::String(_)) {
                    return context.error("Bad string initial value");
                }
                true
            }
            _ => return context.error(format_args!("Unable to set initial value {index}")),
        };
        if !fits {
            return context.error("Inconsistent constant value type");
        }
        Ok(index)
    }
}
