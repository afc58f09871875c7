//! The constant pool (JVMS 4.4).
//!
//! Parsing goes over it three times, as HotSpot does, so that a file with several mistakes is refused for the same one: first the entries,
//! then whether what they refer to has the right kind, then whether names and descriptors are well formed.

use crate::bytes::Cursor;
use crate::context::Context;
use crate::error::Result;
use crate::mutf8;
use crate::names::{self, FieldType, MethodType};

/// An entry of the constant pool. Indexes are into the same pool, and refer to what the kind of entry demands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constant<'a> {
    /// Entry 0, and the second of a long or double.
    Unusable,
    /// Modified UTF-8.
    Utf8(&'a [u8]),
    /// An `int`.
    Integer(i32),
    /// A `float`; its bits matter.
    Float(f32),
    /// A `long`.
    Long(i64),
    /// A `double`; its bits matter.
    Double(f64),
    /// A class, interface or array type by the index of its name.
    Class(u16),
    /// A string by the index of its text.
    String(u16),
    /// A field of a class.
    Field(MemberIndexes),
    /// A method of a class.
    Method(MemberIndexes),
    /// A method of an interface.
    InterfaceMethod(MemberIndexes),
    /// Name and descriptor of a member.
    NameAndType {
        /// Index of the name.
        name: u16,
        /// Index of the descriptor.
        descriptor: u16,
    },
    /// A method handle.
    MethodHandle {
        /// 1 to 9: what the handle does (JVMS table 5.4.3.5-A).
        kind: u8,
        /// Index of the field or method.
        member: u16,
    },
    /// A method type by the index of its descriptor.
    MethodType(u16),
    /// A constant that a bootstrap method computes.
    Dynamic(DynamicIndexes),
    /// A call site that a bootstrap method links.
    InvokeDynamic(DynamicIndexes),
    /// A module by the index of its name; only in module descriptors.
    Module(u16),
    /// A package by the index of its name; only in module descriptors.
    Package(u16),
}

/// What a reference to a field or method is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberIndexes {
    /// Index of the class.
    pub class: u16,
    /// Index of name and descriptor.
    pub name_and_type: u16,
}

/// What a dynamic constant or call site is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicIndexes {
    /// Index into the bootstrap methods.
    pub bootstrap: u16,
    /// Index of name and descriptor.
    pub name_and_type: u16,
}

/// A reference to a field or method, with its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The class in which the search begins: an internal name or an array's descriptor.
    pub class: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// Its descriptor.
    pub descriptor: &'a [u8],
}

/// Tags as they are in the file.
pub mod tag {
    #![allow(missing_docs, reason = "the names are those of the JVMS, table 4.4-A")]
    pub const UTF8: u8 = 1;
    pub const INTEGER: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const LONG: u8 = 5;
    pub const DOUBLE: u8 = 6;
    pub const CLASS: u8 = 7;
    pub const STRING: u8 = 8;
    pub const FIELD: u8 = 9;
    pub const METHOD: u8 = 10;
    pub const INTERFACE_METHOD: u8 = 11;
    pub const NAME_AND_TYPE: u8 = 12;
    pub const METHOD_HANDLE: u8 = 15;
    pub const METHOD_TYPE: u8 = 16;
    pub const DYNAMIC: u8 = 17;
    pub const INVOKE_DYNAMIC: u8 = 18;
    pub const MODULE: u8 = 19;
    pub const PACKAGE: u8 = 20;
}

/// The entries of a class file, from index 1.
#[derive(Clone, Debug, Default)]
pub struct ConstantPool<'a> {
    entries: Vec<Constant<'a>>,
    /// The tag of an entry that only module descriptors may have, if there is one.
    pub(crate) module_tag: Option<u8>,
    /// The largest index of a bootstrap method that an entry has.
    pub(crate) bootstrap_max: Option<u16>,
}

impl<'a> ConstantPool<'a> {
    /// One more than the largest index.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.len() <= 1
    }

    /// The entries, that of index 0 first.
    pub fn entries(&self) -> &[Constant<'a>] {
        &self.entries
    }

    /// The entry at `index`; [`Constant::Unusable`] if there is none.
    pub fn get(&self, index: u16) -> Constant<'a> {
        self.entries.get(usize::from(index)).copied().unwrap_or(Constant::Unusable)
    }

    /// The text at `index`, if it is one.
    pub fn utf8(&self, index: u16) -> Option<&'a [u8]> {
        match self.get(index) {
            Constant::Utf8(text) => Some(text),
            _ => None,
        }
    }

    /// The name of the class at `index`, if it is one.
    pub fn class_name(&self, index: u16) -> Option<&'a [u8]> {
        match self.get(index) {
            Constant::Class(name) => self.utf8(name),
            _ => None,
        }
    }

    /// Name and descriptor at `index`, if it is such a pair.
    pub fn name_and_type(&self, index: u16) -> Option<(&'a [u8], &'a [u8])> {
        match self.get(index) {
            Constant::NameAndType { name, descriptor } => Some((self.utf8(name)?, self.utf8(descriptor)?)),
            _ => None,
        }
    }

    /// The field or method at `index`, if it is one.
    pub fn member(&self, index: u16) -> Option<Member<'a>> {
        match self.get(index) {
            Constant::Field(member) | Constant::Method(member) | Constant::InterfaceMethod(member) => {
                let (name, descriptor) = self.name_and_type(member.name_and_type)?;
                Some(Member { class: self.class_name(member.class)?, name, descriptor })
            }
            _ => None,
        }
    }

    /// Name and descriptor of the dynamic constant or call site at `index`, if it is one.
    pub fn dynamic(&self, index: u16) -> Option<(&'a [u8], &'a [u8])> {
        match self.get(index) {
            Constant::Dynamic(dynamic) | Constant::InvokeDynamic(dynamic) => self.name_and_type(dynamic.name_and_type),
            _ => None,
        }
    }

    pub(crate) fn parse(cursor: &mut Cursor<'a>, context: &Context<'a>) -> Result<Self> {
        let count = cursor.u16()?;
        if count == 0 {
            return context.error(format_args!("Illegal constant pool size {count}"));
        }
        let mut pool = Self { entries: Vec::with_capacity(usize::from(count)), ..Self::default() };
        pool.entries.push(Constant::Unusable);
        pool.read(cursor, context, usize::from(count))?;
        pool.check_references(context)?;
        pool.check_names(context)?;
        Ok(pool)
    }

    fn read(&mut self, cursor: &mut Cursor<'a>, context: &Context<'a>, count: usize) -> Result<()> {
        while self.entries.len() < count {
            let tag = cursor.u8()?;
            let oldest = match tag {
                tag::METHOD_HANDLE | tag::METHOD_TYPE | tag::INVOKE_DYNAMIC => 51,
                tag::DYNAMIC => 55,
                _ => 0,
            };
            if context.major < oldest {
                return context.error(format_args!("Class file version does not support constant tag {tag}"));
            }
            let entry = match tag {
                tag::UTF8 => {
                    let length = cursor.u16()?;
                    let text = cursor.take(usize::from(length))?;
                    if !mutf8::is_valid(text, context.major <= 47) {
                        return context.error("Illegal UTF8 string in constant pool");
                    }
                    Constant::Utf8(text)
                }
                tag::INTEGER => Constant::Integer(cursor.u32()?.cast_signed()),
                tag::FLOAT => Constant::Float(f32::from_bits(cursor.u32()?)),
                tag::LONG | tag::DOUBLE => {
                    let bits = (u64::from(cursor.u32()?) << 32) | u64::from(cursor.u32()?);
                    // The second index must still be within the pool.
                    if self.entries.len() + 1 >= count {
                        return context.error(format_args!("Invalid constant pool entry {}", self.entries.len()));
                    }
                    self.entries.push(match tag {
                        tag::LONG => Constant::Long(bits.cast_signed()),
                        _ => Constant::Double(f64::from_bits(bits)),
                    });
                    Constant::Unusable
                }
                tag::CLASS => Constant::Class(cursor.u16()?),
                tag::STRING => Constant::String(cursor.u16()?),
                tag::FIELD | tag::METHOD | tag::INTERFACE_METHOD => {
                    let member = MemberIndexes { class: cursor.u16()?, name_and_type: cursor.u16()? };
                    match tag {
                        tag::FIELD => Constant::Field(member),
                        tag::METHOD => Constant::Method(member),
                        _ => Constant::InterfaceMethod(member),
                    }
                }
                tag::NAME_AND_TYPE => Constant::NameAndType { name: cursor.u16()?, descriptor: cursor.u16()? },
                tag::METHOD_HANDLE => Constant::MethodHandle { kind: cursor.u8()?, member: cursor.u16()? },
                tag::METHOD_TYPE => Constant::MethodType(cursor.u16()?),
                tag::DYNAMIC | tag::INVOKE_DYNAMIC => {
                    let dynamic = DynamicIndexes { bootstrap: cursor.u16()?, name_and_type: cursor.u16()? };
                    self.bootstrap_max = self.bootstrap_max.max(Some(dynamic.bootstrap));
                    if tag == tag::DYNAMIC { Constant::Dynamic(dynamic) } else { Constant::InvokeDynamic(dynamic) }
                }
                tag::MODULE | tag::PACKAGE if context.major >= 53 => {
                    let name = cursor.u16()?;
                    self.module_tag.get_or_insert(tag);
                    if tag == tag::MODULE { Constant::Module(name) } else { Constant::Package(name) }
                }
                _ => return context.error(format_args!("Unknown constant tag {tag}")),
            };
            self.entries.push(entry);
        }
        Ok(())
    }

    fn is_utf8(&self, index: u16) -> bool {
        self.utf8(index).is_some()
    }

    fn is_name_and_type(&self, index: u16) -> bool {
        matches!(self.get(index), Constant::NameAndType { .. })
    }

    fn is_class(&self, index: u16) -> bool {
        matches!(self.get(index), Constant::Class(_))
    }

    fn check_references(&self, context: &Context<'a>) -> Result<()> {
        for (index, entry) in self.entries.iter().enumerate() {
            let (refers, referred) = match *entry {
                Constant::Class(name) | Constant::String(name) | Constant::MethodType(name) => {
                    (self.is_utf8(name), name)
                }
                Constant::Module(name) | Constant::Package(name) => (self.is_utf8(name), name),
                Constant::Field(member) | Constant::Method(member) | Constant::InterfaceMethod(member) => {
                    if self.is_class(member.class) {
                        (self.is_name_and_type(member.name_and_type), member.name_and_type)
                    } else {
                        (false, member.class)
                    }
                }
                Constant::NameAndType { name, descriptor } => {
                    if self.is_utf8(name) {
                        (self.is_utf8(descriptor), descriptor)
                    } else {
                        (false, name)
                    }
                }
                Constant::Dynamic(dynamic) | Constant::InvokeDynamic(dynamic) => {
                    (self.is_name_and_type(dynamic.name_and_type), dynamic.name_and_type)
                }
                Constant::MethodHandle { kind, member } => {
                    self.check_handle(context, index, kind, member)?;
                    continue;
                }
                Constant::Unusable
                | Constant::Utf8(_)
                | Constant::Integer(_)
                | Constant::Float(_)
                | Constant::Long(_)
                | Constant::Double(_) => continue,
            };
            if !refers {
                return context.error(format_args!("Invalid constant pool index {referred}"));
            }
        }
        Ok(())
    }

    fn check_handle(&self, context: &Context<'a>, index: usize, kind: u8, member: u16) -> Result<()> {
        let is_method = matches!(self.get(member), Constant::Method(_));
        let is_interface_method = matches!(self.get(member), Constant::InterfaceMethod(_));
        let (fits, wanted) = match kind {
            1..=4 => (matches!(self.get(member), Constant::Field(_)), "a field"),
            5 | 8 => (is_method, "a method"),
            6 | 7 => (is_method || (is_interface_method && context.major >= 52), "a method"),
            9 => (is_interface_method, "an interface method"),
            _ => return context.error(format_args!("Bad method handle kind at constant pool index {index}")),
        };
        if fits {
            return Ok(());
        }
        context
            .error_text(format!("Invalid constant pool index {member} in class file {} (not {wanted})", context.name()))
    }

    fn check_names(&self, context: &Context<'a>) -> Result<()> {
        let major = context.major;
        for (index, entry) in self.entries.iter().enumerate() {
            match *entry {
                Constant::Class(name) => {
                    let name = self.utf8(name).unwrap_or_default();
                    if !names::is_class_name(name, major) {
                        return context.illegal_class_name(name);
                    }
                }
                Constant::NameAndType { name, descriptor } if major >= 51 => {
                    let (name, descriptor) =
                        (self.utf8(name).unwrap_or_default(), self.utf8(descriptor).unwrap_or_default());
                    if name.is_empty() || descriptor.is_empty() {
                        return context.error_text(format!(
                            "Illegal zero length constant pool entry at {index} in class {}",
                            context.name()
                        ));
                    }
                    if descriptor[0] == b'(' {
                        context.check_method_descriptor(name, descriptor)?;
                    } else {
                        context.check_field_descriptor(name, descriptor)?;
                    }
                }
                Constant::Field(member) => {
                    let (name, descriptor) = self.name_and_type(member.name_and_type).unwrap_or_default();
                    context.check_field_name(name)?;
                    if major >= 51 {
                        if descriptor.first() == Some(&b'(') {
                            return context.illegal_signature("Field", name, descriptor);
                        }
                    } else {
                        context.check_field_descriptor(name, descriptor)?;
                    }
                }
                Constant::Method(member) | Constant::InterfaceMethod(member) => {
                    let (name, descriptor) = self.name_and_type(member.name_and_type).unwrap_or_default();
                    context.check_method_name(name)?;
                    if major >= 51 {
                        if descriptor.first() != Some(&b'(') {
                            return context.illegal_signature("Method", name, descriptor);
                        }
                    } else {
                        context.check_method_descriptor(name, descriptor)?;
                    }
                    if matches!(entry, Constant::Method(_)) && name.starts_with(b"<") && name != b"<init>" {
                        return context
                            .error(format_args!("Bad method name at constant pool index {}", member.name_and_type));
                    }
                }
                Constant::Dynamic(dynamic) => {
                    let (name, descriptor) = self.name_and_type(dynamic.name_and_type).unwrap_or_default();
                    context.check_field_name(name)?;
                    if FieldType::parse(descriptor).is_none() {
                        return context.illegal_signature("CONSTANT_Dynamic", name, descriptor);
                    }
                }
                Constant::InvokeDynamic(dynamic) => {
                    let (name, descriptor) = self.name_and_type(dynamic.name_and_type).unwrap_or_default();
                    context.check_method_name(name)?;
                    if descriptor.first() != Some(&b'(') {
                        return context.illegal_signature("CONSTANT_InvokeDynamic", name, descriptor);
                    }
                }
                Constant::MethodType(descriptor) => {
                    let descriptor = self.utf8(descriptor).unwrap_or_default();
                    if MethodType::parse_version(descriptor, major).is_none() {
                        return context.illegal_signature("Method", b"MethodType", descriptor);
                    }
                }
                Constant::MethodHandle { kind, member } if kind >= 5 => {
                    let Some(method) = self.member(member) else { continue };
                    if kind == 8 && method.name != b"<init>" {
                        return context.error(format_args!("Bad constructor name at constant pool index {member}"));
                    }
                    if kind != 8 && method.name == b"<init>" {
                        return context.error(format_args!("Bad method name at constant pool index {member}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
