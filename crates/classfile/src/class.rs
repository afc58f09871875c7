//! A whole class file (JVMS 4.1), and what its parts need to know of it while they are parsed.

use std::collections::HashSet;

use crate::attributes::{Annotations, Seen, signature_index};
use crate::bytes::{Cursor, Entry, Table};
use crate::constants::{Constant, ConstantPool};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::field::Field;
use crate::flags;
use crate::method::Method;
use crate::mutf8;

/// How to parse.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The internal name that the class must have, if there is one.
    pub name: Option<&'a [u8]>,
    /// Whether class files of the newest version may use preview features.
    pub preview: bool,
}

/// A class file, parsed and format-checked.
#[derive(Clone, Debug)]
pub struct ClassFile<'a> {
    /// Minor version.
    pub minor_version: u16,
    /// Major version, 45 to 61.
    pub major_version: u16,
    /// The constant pool.
    pub constants: ConstantPool<'a>,
    /// Flags that mean something for a class; interfaces are abstract, whatever the file says.
    pub access_flags: u16,
    /// Index of this class.
    pub this_class: u16,
    /// The internal name of this class.
    pub name: &'a [u8],
    /// Index of the superclass; 0 only in `java.lang.Object`.
    pub super_class: u16,
    /// The internal name of the superclass.
    pub super_name: Option<&'a [u8]>,
    /// Indexes of the direct superinterfaces.
    pub interfaces: Table<'a, u16>,
    /// Fields in the file's order.
    pub fields: Vec<Field<'a>>,
    /// Methods in the file's order.
    pub methods: Vec<Method<'a>>,
    /// The name of the source file.
    pub source_file: Option<&'a [u8]>,
    /// `SourceDebugExtension`, as it is in the file.
    pub source_debug_extension: Option<&'a [u8]>,
    /// `InnerClasses`.
    pub inner_classes: Table<'a, InnerClass>,
    /// `EnclosingMethod`: index of the class, and index of name and descriptor of the method, 0 if it is not in one.
    pub enclosing_method: Option<(u16, u16)>,
    /// Index of the generic signature.
    pub signature: Option<u16>,
    /// Bootstrap methods, by the indexes that dynamic constants have.
    pub bootstrap_methods: Vec<BootstrapMethod<'a>>,
    /// Index of the class that is host of this class's nest.
    pub nest_host: Option<u16>,
    /// Indexes of the classes whose nest this class hosts.
    pub nest_members: Option<Table<'a, u16>>,
    /// Components, if the class is a record.
    pub record: Option<Vec<RecordComponent<'a>>>,
    /// Indexes of the only direct subclasses, if the class is sealed.
    pub permitted_subclasses: Option<Table<'a, u16>>,
    /// Annotations as they are in the file.
    pub annotations: Annotations<'a>,
}

/// An entry of `InnerClasses` (JVMS 4.7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerClass {
    /// Index of the class.
    pub inner: u16,
    /// Index of the class that it is a member of; 0: of none.
    pub outer: u16,
    /// Index of its simple name; 0: it has none.
    pub name: u16,
    /// Its flags as in the source.
    pub access_flags: u16,
}

impl Entry for InnerClass {
    const SIZE: usize = 8;
    fn read(bytes: &[u8]) -> Self {
        let at = |offset: usize| u16::read(&bytes[offset..]);
        Self { inner: at(0), outer: at(2), name: at(4), access_flags: at(6) }
    }
}

/// A bootstrap method (JVMS 4.7.23).
#[derive(Clone, Copy, Debug)]
pub struct BootstrapMethod<'a> {
    /// Index of the method handle.
    pub method: u16,
    /// Indexes of the static arguments, which are loadable constants.
    pub arguments: Table<'a, u16>,
}

/// A component of a record (JVMS 4.7.30).
#[derive(Clone, Copy, Debug)]
pub struct RecordComponent<'a> {
    /// Index of the name.
    pub name: u16,
    /// Index of the descriptor.
    pub descriptor: u16,
    /// Index of the generic signature.
    pub signature: Option<u16>,
    /// Annotations as they are in the file.
    pub annotations: Annotations<'a>,
}

impl<'a> ClassFile<'a> {
    /// Parses a class file.
    ///
    /// # Errors
    /// What is wrong with it first, in the order in which HotSpot looks.
    pub fn parse(bytes: &'a [u8], options: Options<'a>) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let mut context = Context { name: options.name.unwrap_or(b"<Unknown>"), major: 0, minor: 0, access_flags: 0 };
        let magic = cursor.u32()?;
        let minor = cursor.u16()?;
        let major = cursor.u16()?;
        if magic != 0xCAFE_BABE {
            return context.error(format_args!("Incompatible magic value {magic}"));
        }
        (context.minor, context.major) = (minor, major);
        context.check_version(options.preview)?;
        let constants = ConstantPool::parse(&mut cursor, &context)?;

        let all_flags = cursor.u16()?;
        let mut access_flags = all_flags & flags::CLASS;
        if access_flags & flags::INTERFACE != 0 && context.major < 50 {
            access_flags |= flags::ABSTRACT;
        }
        let this_class = cursor.u16()?;
        let Some(name) = constants.class_name(this_class) else {
            return context.error(format_args!("Invalid this class index {this_class} in constant pool"));
        };
        let expected = options.name.unwrap_or(name);
        context.name = name;
        context.access_flags = access_flags;
        if all_flags & flags::MODULE != 0 && context.major >= 53 {
            return Err(Error::NoClassDefinition(format!(
                "{} is not a class because access_flag ACC_MODULE is set",
                context.name()
            )));
        }
        context.check_class_flags()?;
        if let Some(tag) = constants.module_tag {
            return context.error(format_args!("Unknown constant tag {tag}"));
        }
        if name.first() == Some(&b'[') {
            return context.error("Bad class name");
        }
        if name != expected {
            return Err(Error::NoClassDefinition(format!(
                "{} (wrong name: {})",
                mutf8::decode(expected),
                context.name()
            )));
        }
        let super_class = cursor.u16()?;
        let super_name = context.superclass(super_class, &constants)?;
        let interfaces = context.interfaces(&mut cursor, &constants, super_name)?;

        let fields = context.fields(&mut cursor, &constants)?;
        let methods = context.methods(&mut cursor, &constants)?;
        let mut class = Self {
            minor_version: context.minor,
            major_version: context.major,
            constants,
            access_flags,
            this_class,
            name,
            super_class,
            super_name,
            interfaces,
            fields,
            methods,
            source_file: None,
            source_debug_extension: None,
            inner_classes: Table::default(),
            enclosing_method: None,
            signature: None,
            bootstrap_methods: Vec::new(),
            nest_host: None,
            nest_members: None,
            record: None,
            permitted_subclasses: None,
            annotations: Annotations::default(),
        };
        class.attributes(&mut cursor, &context)?;
        if !cursor.is_empty() {
            return context.error_text(format!("Extra bytes at the end of class file {}", context.name()));
        }
        Ok(class)
    }

    /// Whether it is an interface.
    pub fn is_interface(&self) -> bool {
        self.access_flags & flags::INTERFACE != 0
    }

    fn attributes(&mut self, cursor: &mut Cursor<'a>, context: &Context<'a>) -> Result<()> {
        let mut has_bootstrap_methods = false;
        let mut seen = Seen::default();
        let major = context.major;
        for _ in 0..cursor.u16()? {
            let name_index = cursor.u16()?;
            let length = cursor.u32()?;
            let Some(name) = self.constants.utf8(name_index) else {
                return context.error(format_args!("Attribute name has bad constant pool index {name_index}"));
            };
            let body = cursor.take(length as usize)?;
            match name {
                b"SourceFile" => {
                    let Ok(bytes) = <[u8; 2]>::try_from(body) else {
                        return context.error("Wrong SourceFile attribute length");
                    };
                    context.once(&mut seen, 0, "SourceFile")?;
                    let index = u16::from_be_bytes(bytes);
                    self.source_file = self.constants.utf8(index);
                    if self.source_file.is_none() {
                        return context
                            .error(format_args!("Invalid SourceFile attribute at constant pool index {index}"));
                    }
                }
                b"SourceDebugExtension" => {
                    context.once(&mut seen, 1, "SourceDebugExtension")?;
                    self.source_debug_extension = Some(body);
                }
                b"InnerClasses" => {
                    context.once(&mut seen, 2, "InnerClasses")?;
                    self.inner_classes = context.inner_classes(body, &self.constants)?;
                }
                b"Synthetic" if length != 0 => {
                    return context.error(format_args!("Invalid Synthetic classfile attribute length {length}"));
                }
                b"Synthetic" => self.access_flags |= flags::SYNTHETIC,
                b"Deprecated" if length != 0 => {
                    return context.error(format_args!("Invalid Deprecated classfile attribute length {length}"));
                }
                b"Signature" if major >= 49 => {
                    context.once(&mut seen, 3, "Signature")?;
                    let Ok(bytes) = <[u8; 2]>::try_from(body) else {
                        return context.error(format_args!("Wrong Signature attribute length {length}"));
                    };
                    self.signature = Some(signature_index(u16::from_be_bytes(bytes), &self.constants, context)?);
                }
                b"EnclosingMethod" if major >= 49 => {
                    context.once(&mut seen, 4, "EnclosingMethod")?;
                    self.enclosing_method = Some(context.enclosing_method(body, &self.constants)?);
                }
                b"BootstrapMethods" if major >= 51 => {
                    context.once(&mut seen, 5, "BootstrapMethods")?;
                    has_bootstrap_methods = true;
                    self.bootstrap_methods = context.bootstrap_methods(body, &self.constants)?;
                }
                b"NestMembers" if major >= 55 => {
                    context.once(&mut seen, 6, "NestMembers")?;
                    if self.nest_host.is_some() {
                        return context.error("Conflicting NestHost and NestMembers attributes");
                    }
                    self.nest_members = Some(context.classes(body, "NestMembers", "Nest member", &self.constants)?);
                }
                b"NestHost" if major >= 55 => {
                    context.once(&mut seen, 7, "NestHost")?;
                    if self.nest_members.is_some() {
                        return context.error("Conflicting NestMembers and NestHost attributes");
                    }
                    let Ok(bytes) = <[u8; 2]>::try_from(body) else {
                        return context.error("Wrong NestHost attribute length");
                    };
                    let host = u16::from_be_bytes(bytes);
                    if !matches!(self.constants.get(host), Constant::Class(_)) {
                        return context.error(format_args!("Nest-host class_info_index {host} has bad constant type"));
                    }
                    self.nest_host = Some(host);
                }
                b"Record" if major >= 60 => {
                    context.once(&mut seen, 8, "Record")?;
                    let components = context.record(body, &self.constants)?;
                    // Of other classes than records it says nothing.
                    let is_final = self.access_flags & flags::FINAL != 0;
                    if is_final && self.super_name == Some(b"java/lang/Record") {
                        self.record = Some(components);
                    }
                }
                b"PermittedSubclasses" if major >= 61 => {
                    context.once(&mut seen, 9, "PermittedSubclasses")?;
                    if self.access_flags & flags::FINAL != 0 {
                        return context.error_text(format!(
                            "PermittedSubclasses attribute in final class file {}",
                            context.name()
                        ));
                    }
                    self.permitted_subclasses =
                        Some(context.classes(body, "PermittedSubclasses", "Permitted subclass", &self.constants)?);
                }
                _ if major >= 49 => self.annotations.take(name, body, "", &mut seen, context)?,
                _ => {}
            }
        }
        if let Some(largest) = self.constants.bootstrap_max {
            if !has_bootstrap_methods {
                return context.error("Missing BootstrapMethods attribute");
            }
            if usize::from(largest) >= self.bootstrap_methods.len() {
                return context.error("Short length on BootstrapMethods");
            }
        }
        Ok(())
    }
}

impl<'a> Context<'a> {
    fn once(&self, seen: &mut Seen, number: u32, attribute: &str) -> Result<()> {
        if seen.again(number) {
            return self.error(format_args!("Multiple {attribute} attributes"));
        }
        Ok(())
    }

    fn superclass(&self, index: u16, pool: &ConstantPool<'a>) -> Result<Option<&'a [u8]>> {
        if index == 0 {
            return match self.name {
                b"java/lang/Object" => Ok(None),
                _ => self.error(format_args!("Invalid superclass index {index}")),
            };
        }
        let Some(name) = pool.class_name(index) else {
            return self.error(format_args!("Invalid superclass index {index}"));
        };
        if name.first() == Some(&b'[') {
            return self.error("Bad superclass name");
        }
        Ok(Some(name))
    }

    fn interfaces(
        &self,
        cursor: &mut Cursor<'a>,
        pool: &ConstantPool<'a>,
        super_name: Option<&[u8]>,
    ) -> Result<Table<'a, u16>> {
        let interfaces: Table<'a, u16> = cursor.table()?;
        let mut seen = HashSet::new();
        for index in interfaces.iter() {
            let Some(name) = pool.class_name(index) else {
                return self.error(format_args!("Interface name has bad constant pool index {index}"));
            };
            if name.first() == Some(&b'[') {
                return self.error("Bad interface name");
            }
            if interfaces.len() > 1 && !seen.insert(name) {
                return self.error(format_args!("Duplicate interface name \"{}\"", mutf8::decode(name)));
            }
        }
        if super_name.is_none() && !interfaces.is_empty() {
            return self.error("java.lang.Object cannot implement an interface");
        }
        if self.is_interface() && super_name != Some(b"java/lang/Object") {
            return self.error("Interfaces must have java.lang.Object as superclass");
        }
        Ok(interfaces)
    }

    fn fields(&self, cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>) -> Result<Vec<Field<'a>>> {
        let count = usize::from(cursor.u16()?);
        // One takes 8 bytes at least, so a hostile count reserves no more than the file is large.
        let mut fields = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            fields.push(Field::parse(cursor, pool, self)?);
        }
        if let Some((name, descriptor)) = duplicate(fields.iter().map(|field| (field.name, field.descriptor))) {
            return self.duplicate("field", name, descriptor);
        }
        Ok(fields)
    }

    fn methods(&self, cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>) -> Result<Vec<Method<'a>>> {
        let count = usize::from(cursor.u16()?);
        let mut methods = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            methods.push(Method::parse(cursor, pool, self)?);
        }
        if let Some((name, descriptor)) = duplicate(methods.iter().map(|method| (method.name, method.descriptor))) {
            return self.duplicate("method", name, descriptor);
        }
        Ok(methods)
    }

    fn duplicate<T>(&self, kind: &str, name: &[u8], descriptor: &[u8]) -> Result<T> {
        self.error(format_args!(
            "Duplicate {kind} name \"{}\" with signature \"{}\"",
            mutf8::decode(name),
            mutf8::decode(descriptor)
        ))
    }

    fn inner_classes(&self, body: &'a [u8], pool: &ConstantPool<'a>) -> Result<Table<'a, InnerClass>> {
        let mut cursor = Cursor::new(body);
        let classes: Table<'a, InnerClass> = cursor.table()?;
        let is_class = |index: u16| matches!(pool.get(index), Constant::Class(_));
        let mut seen = HashSet::new();
        for class in classes.iter() {
            let InnerClass { inner, outer, name, mut access_flags } = class;
            if !is_class(inner) {
                return self.error(format_args!("inner_class_info_index {inner} has bad constant type"));
            }
            if outer != 0 && !is_class(outer) {
                return self.error(format_args!("outer_class_info_index {outer} has bad constant type"));
            }
            if outer != 0 && pool.class_name(outer).is_some_and(|name| name.starts_with(b"[")) {
                return self.error("Outer class is an array class");
            }
            if name != 0 && pool.utf8(name).is_none() {
                return self.error(format_args!("inner_name_index {name} has bad constant type"));
            }
            if inner == outer {
                return self.error("Class is both outer and inner class");
            }
            if access_flags & flags::MODULE != 0 && self.major >= 53 {
                let message = format!("{} is not a class because access_flag ACC_MODULE is set", self.name());
                return Err(Error::NoClassDefinition(message));
            }
            if access_flags & flags::INTERFACE != 0 && self.major < 50 {
                access_flags |= flags::ABSTRACT;
            }
            Context { name: self.name, access_flags: access_flags & flags::CLASS, ..*self }.check_class_flags()?;
            if self.major >= 49 && !seen.insert((inner, outer, name, access_flags)) {
                return self.error("Duplicate entry in InnerClasses attribute");
            }
        }
        if !cursor.is_empty() {
            return self.error("Wrong InnerClasses attribute length");
        }
        Ok(classes)
    }

    fn enclosing_method(&self, body: &[u8], pool: &ConstantPool<'a>) -> Result<(u16, u16)> {
        let &[a, b, c, d] = body else {
            return self.error(format_args!("Wrong EnclosingMethod attribute length {}", body.len()));
        };
        let (class, method) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if class == 0 {
            return self.error("Invalid class index in EnclosingMethod attribute");
        }
        if !matches!(pool.get(class), Constant::Class(_)) {
            return self.error("Invalid or out-of-bounds class index in EnclosingMethod attribute");
        }
        if method != 0 && pool.name_and_type(method).is_none() {
            return self.error("Invalid or out-of-bounds method index in EnclosingMethod attribute");
        }
        Ok((class, method))
    }

    fn bootstrap_methods(&self, body: &'a [u8], pool: &ConstantPool<'a>) -> Result<Vec<BootstrapMethod<'a>>> {
        let mut cursor = Cursor::new(body);
        let count = usize::from(cursor.u16()?);
        let mut methods = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            let method = cursor.u16()?;
            let arguments: Table<'a, u16> = cursor.table()?;
            if !matches!(pool.get(method), Constant::MethodHandle { .. }) {
                return self.error(format_args!("bootstrap_method_index {method} has bad constant type"));
            }
            let loadable = |index: u16| {
                matches!(
                    pool.get(index),
                    Constant::Integer(_)
                        | Constant::Float(_)
                        | Constant::Long(_)
                        | Constant::Double(_)
                        | Constant::Class(_)
                        | Constant::String(_)
                        | Constant::MethodHandle { .. }
                        | Constant::MethodType(_)
                        | Constant::Dynamic(_)
                )
            };
            if let Some(argument) = arguments.iter().find(|&index| !loadable(index)) {
                return self.error(format_args!("argument_index {argument} has bad constant type"));
            }
            methods.push(BootstrapMethod { method, arguments });
        }
        if !cursor.is_empty() {
            return self.error("Bad length on BootstrapMethods");
        }
        Ok(methods)
    }

    fn classes(&self, body: &'a [u8], attribute: &str, entry: &str, pool: &ConstantPool<'a>) -> Result<Table<'a, u16>> {
        let mut cursor = Cursor::new(body);
        let classes: Table<'a, u16> = cursor.table()?;
        if let Some(index) = classes.iter().find(|&index| !matches!(pool.get(index), Constant::Class(_))) {
            return self.error(format_args!("{entry} class_info_index {index} has bad constant type"));
        }
        if !cursor.is_empty() {
            return self.error(format_args!("Wrong {attribute} attribute length"));
        }
        Ok(classes)
    }

    fn record(&self, body: &'a [u8], pool: &ConstantPool<'a>) -> Result<Vec<RecordComponent<'a>>> {
        let mut cursor = Cursor::new(body);
        let count = usize::from(cursor.u16()?);
        let mut components = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            components.push(self.component(&mut cursor, pool)?);
        }
        if !cursor.is_empty() {
            return self.error("Record attribute has wrong length");
        }
        Ok(components)
    }

    fn component(&self, cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>) -> Result<RecordComponent<'a>> {
        let name = cursor.u16()?;
        let Some(name_text) = pool.utf8(name) else {
            return self.error(format_args!("Invalid constant pool index {name} for name in Record attribute"));
        };
        self.check_field_name(name_text)?;
        let descriptor = cursor.u16()?;
        let Some(descriptor_text) = pool.utf8(descriptor) else {
            return self
                .error(format_args!("Invalid constant pool index {descriptor} for descriptor in Record attribute"));
        };
        self.check_field_descriptor(name_text, descriptor_text)?;
        let mut component = RecordComponent { name, descriptor, signature: None, annotations: Annotations::default() };
        let mut seen = Seen::default();
        for _ in 0..cursor.u16()? {
            let attribute = cursor.u16()?;
            let length = cursor.u32()?;
            let Some(attribute_name) = pool.utf8(attribute) else {
                return self.error(format_args!("Invalid Record attribute name index {attribute}"));
            };
            let body = cursor.take(length as usize)?;
            if attribute_name == b"Signature" {
                if component.signature.is_some() {
                    return self.error("Multiple Signature attributes for Record component");
                }
                let Ok(bytes) = <[u8; 2]>::try_from(body) else {
                    return self.error(format_args!("Invalid Signature attribute length {length} in Record component"));
                };
                component.signature = Some(signature_index(u16::from_be_bytes(bytes), pool, self)?);
            } else {
                component.annotations.take(attribute_name, body, " for Record component", &mut seen, self)?;
            }
        }
        Ok(component)
    }
}

/// The first that was there before.
fn duplicate<'a>(members: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>) -> Option<(&'a [u8], &'a [u8])> {
    if members.len() <= 1 {
        return None;
    }
    let mut seen = HashSet::with_capacity(members.len());
    members.into_iter().find(|&member| !seen.insert(member))
}
