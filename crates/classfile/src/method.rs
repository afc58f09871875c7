//! Methods (JVMS 4.6).

use crate::attributes::{Annotations, Seen, signature_index};
use crate::bytes::{Cursor, Entry, Table};
use crate::code::Code;
use crate::constants::{Constant, ConstantPool};
use crate::context::Context;
use crate::error::Result;
use crate::flags;
use crate::names::ARGUMENT_SLOTS_MAX;

/// A method.
#[derive(Clone, Debug)]
pub struct Method<'a> {
    /// Flags that mean something for a method.
    pub access_flags: u16,
    /// Index of the name.
    pub name_index: u16,
    /// Index of the descriptor.
    pub descriptor_index: u16,
    /// The name.
    pub name: &'a [u8],
    /// The descriptor, well formed.
    pub descriptor: &'a [u8],
    /// Slots that the arguments take, the receiver included: at most 255.
    pub argument_slots: u16,
    /// The code; every method has it but native and abstract ones.
    pub code: Option<Code<'a>>,
    /// Indexes of the classes that the method declares to throw.
    pub exceptions: Table<'a, u16>,
    /// Index of the generic signature.
    pub signature: Option<u16>,
    /// Names and flags of the parameters, if the compiler wrote them.
    pub parameters: Option<Table<'a, MethodParameter>>,
    /// Annotations as they are in the file.
    pub annotations: Annotations<'a>,
}

/// An entry of `MethodParameters` (JVMS 4.7.24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodParameter {
    /// Index of the name, 0 if there is none.
    pub name: u16,
    /// Final, synthetic or mandated.
    pub access_flags: u16,
}

impl Entry for MethodParameter {
    const SIZE: usize = 4;
    fn read(bytes: &[u8]) -> Self {
        Self { name: u16::read(bytes), access_flags: u16::read(&bytes[2..]) }
    }
}

impl<'a> Method<'a> {
    /// Whether the method belongs to the class.
    pub fn is_static(&self) -> bool {
        self.access_flags & flags::STATIC != 0
    }

    pub(crate) fn parse(cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<Self> {
        let mut access_flags = cursor.u16()? & flags::METHOD;
        let name_index = cursor.u16()?;
        let Some(name) = pool.utf8(name_index) else {
            return context.error(format_args!("Illegal constant pool index {name_index} for method name"));
        };
        context.check_method_name(name)?;
        let descriptor_index = cursor.u16()?;
        let Some(descriptor) = pool.utf8(descriptor_index) else {
            return context.error(format_args!("Illegal constant pool index {descriptor_index} for method signature"));
        };
        if name == b"<clinit>" {
            // Its other flags are ignored.
            if context.major < 51 {
                access_flags = flags::STATIC;
            } else if access_flags & flags::STATIC != 0 {
                access_flags &= flags::STATIC | flags::STRICT;
            } else {
                return context.error("Method <clinit> is not static");
            }
        } else {
            context.check_method_flags(access_flags, name)?;
        }
        if name == b"<init>" && context.is_interface() {
            return context
                .error_text(format!("Interface cannot have a method named <init>, class file {}", context.name()));
        }
        let receiver = u16::from(access_flags & flags::STATIC == 0);
        let argument_slots = context.check_method_descriptor(name, descriptor)?.saturating_add(receiver);
        if argument_slots > ARGUMENT_SLOTS_MAX {
            return context.error("Too many arguments in method signature");
        }
        let mut method = Self {
            access_flags,
            name_index,
            descriptor_index,
            name,
            descriptor,
            argument_slots,
            code: None,
            exceptions: Table::default(),
            signature: None,
            parameters: None,
            annotations: Annotations::default(),
        };
        method.attributes(cursor, pool, context)?;
        if method.code.is_none() && access_flags & (flags::NATIVE | flags::ABSTRACT) == 0 {
            return context.error("Absent Code attribute in method that is not native or abstract");
        }
        Ok(method)
    }

    fn attributes(&mut self, cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<()> {
        let mut seen = Seen::default();
        for _ in 0..cursor.u16()? {
            let name_index = cursor.u16()?;
            let length = cursor.u32()?;
            let Some(name) = pool.utf8(name_index) else {
                return context.error(format_args!("Invalid method attribute name index {name_index}"));
            };
            let body = cursor.take(length as usize)?;
            match name {
                b"Code" => {
                    if self.access_flags & (flags::NATIVE | flags::ABSTRACT) != 0 {
                        return context.error("Code attribute in native or abstract methods");
                    }
                    if self.code.is_some() {
                        return context.error("Multiple Code attributes");
                    }
                    self.code = Some(Code::parse(body, self.argument_slots, pool, context)?);
                }
                b"Exceptions" => {
                    if seen.again(0) {
                        return context.error("Multiple Exceptions attributes");
                    }
                    self.exceptions = exceptions(body, pool, context)?;
                }
                b"MethodParameters" => {
                    if seen.again(1) {
                        return context.error("Multiple MethodParameters attributes");
                    }
                    let parameters = body.split_first().map(|(&count, rest)| (usize::from(count), rest));
                    let Some((count, rest)) = parameters.filter(|(count, rest)| rest.len() == count * 4) else {
                        return context.error_text(format!(
                            "Invalid MethodParameters method attribute length {length} in class file"
                        ));
                    };
                    self.parameters = Some(Cursor::new(rest).entries(count)?);
                }
                b"Synthetic" if length != 0 => {
                    return context.error(format_args!("Invalid Synthetic method attribute length {length}"));
                }
                b"Synthetic" => self.access_flags |= flags::SYNTHETIC,
                b"Deprecated" if length != 0 => {
                    return context.error(format_args!("Invalid Deprecated method attribute length {length}"));
                }
                b"Signature" if context.major >= 49 => {
                    if self.signature.is_some() {
                        return context.error("Multiple Signature attributes for method");
                    }
                    let Ok(bytes) = <[u8; 2]>::try_from(body) else {
                        return context.error(format_args!("Invalid Signature attribute length {length}"));
                    };
                    self.signature = Some(signature_index(u16::from_be_bytes(bytes), pool, context)?);
                }
                _ if context.major >= 49 => self.annotations.take(name, body, " for method", &mut seen, context)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn exceptions<'a>(body: &'a [u8], pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<Table<'a, u16>> {
    let mut cursor = Cursor::new(body);
    let classes: Table<'a, u16> = cursor.table()?;
    if let Some(class) = classes.iter().find(|&class| !matches!(pool.get(class), Constant::Class(_))) {
        return context.error(format_args!("Exception name has bad type at constant pool {class}"));
    }
    if !cursor.is_empty() {
        return context.error("Exceptions attribute has wrong length");
    }
    Ok(classes)
}
