//! The code of a method, and the tables about it (JVMS 4.7.3, 4.7.12 to 4.7.14).

use std::collections::HashMap;

use crate::attributes::Seen;
use crate::bytes::{Cursor, Entry, Table};
use crate::constants::{Constant, ConstantPool};
use crate::context::Context;
use crate::error::Result;
use crate::names::FieldType;
use crate::{mutf8, opcode};

/// The code of a method.
///
/// Ranges and handlers are within the code; whether they begin at instructions, and what the instructions do, is the verifier's.
#[derive(Clone, Debug)]
pub struct Code<'a> {
    /// Slots of the operand stack.
    pub max_stack: u16,
    /// Slots of local variables, arguments included.
    pub max_locals: u16,
    /// The instructions, 1 to 65,535 bytes.
    pub bytes: &'a [u8],
    /// Exception handlers in the order in which they are tried.
    pub handlers: Table<'a, ExceptionRange>,
    /// The body of `StackMapTable`, not checked.
    pub stack_map_table: Option<&'a [u8]>,
    /// The body of `RuntimeVisibleTypeAnnotations`, not checked.
    pub visible_type_annotations: Option<&'a [u8]>,
    /// The body of `RuntimeInvisibleTypeAnnotations`, not checked.
    pub invisible_type_annotations: Option<&'a [u8]>,
    attributes: &'a [u8],
    line_number_name: u16,
    local_variable_name: u16,
    local_variable_type_name: u16,
}

/// An exception handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionRange {
    /// Offset of the first byte of code that it covers.
    pub start: u16,
    /// Offset behind the last.
    pub end: u16,
    /// Offset of its first instruction.
    pub handler: u16,
    /// Index of the class of exceptions that it takes; 0: all.
    pub catch_type: u16,
}

impl Entry for ExceptionRange {
    const SIZE: usize = 8;
    fn read(bytes: &[u8]) -> Self {
        let at = |offset: usize| u16::read(&bytes[offset..]);
        Self { start: at(0), end: at(2), handler: at(4), catch_type: at(6) }
    }
}

/// From which instruction on code belongs to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineNumber {
    /// Offset in the code.
    pub start: u16,
    /// Line of the source.
    pub line: u16,
}

impl Entry for LineNumber {
    const SIZE: usize = 4;
    fn read(bytes: &[u8]) -> Self {
        Self { start: u16::read(bytes), line: u16::read(&bytes[2..]) }
    }
}

/// A local variable of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalVariable {
    /// Offset of the first byte of code where it has a value.
    pub start: u16,
    /// How many bytes of code from there on.
    pub length: u16,
    /// Index of the name.
    pub name: u16,
    /// Index of the descriptor, or of the generic signature.
    pub descriptor: u16,
    /// Its slot.
    pub slot: u16,
}

impl Entry for LocalVariable {
    const SIZE: usize = 10;
    fn read(bytes: &[u8]) -> Self {
        let at = |offset: usize| u16::read(&bytes[offset..]);
        Self { start: at(0), length: at(2), name: at(4), descriptor: at(6), slot: at(8) }
    }
}

impl<'a> Code<'a> {
    /// The instructions from the beginning.
    pub fn instructions(&self) -> opcode::Instructions<'a> {
        opcode::Instructions::new(self.bytes)
    }

    /// Line numbers, in the file's order, which is not always that of the code.
    pub fn line_numbers(&self) -> impl Iterator<Item = LineNumber> + use<'a> {
        self.tables(self.line_number_name)
    }

    /// Local variables of the source with their descriptors.
    pub fn local_variables(&self) -> impl Iterator<Item = LocalVariable> + use<'a> {
        self.tables(self.local_variable_name)
    }

    /// Those local variables of the source that have a generic signature.
    pub fn local_variable_types(&self) -> impl Iterator<Item = LocalVariable> + use<'a> {
        self.tables(self.local_variable_type_name)
    }

    /// There may be several attributes of a name, which count as one.
    fn tables<T: Entry + 'a>(&self, wanted: u16) -> impl Iterator<Item = T> + use<'a, T> {
        // No attribute is named by constant 0, which stands for there being none.
        let mut cursor = Cursor::new(if wanted == 0 { &[] } else { self.attributes });
        std::iter::from_fn(move || {
            loop {
                let name = cursor.u16().ok()?;
                let length = cursor.u32().ok()?;
                let body = cursor.take(length as usize).ok()?;
                if name == wanted {
                    return Cursor::new(body).table::<T>().ok();
                }
            }
        })
        .flat_map(|table: Table<'a, T>| table.iter())
    }

    pub(crate) fn parse(
        body: &'a [u8],
        argument_slots: u16,
        pool: &ConstantPool<'a>,
        context: &Context<'a>,
    ) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let (max_stack, max_locals, length) = if (context.major, context.minor) <= (45, 2) {
            (u16::from(cursor.u8()?), u16::from(cursor.u8()?), u32::from(cursor.u16()?))
        } else {
            (cursor.u16()?, cursor.u16()?, cursor.u32()?)
        };
        if argument_slots > max_locals {
            return context.error("Arguments can't fit into locals");
        }
        if length == 0 || length > 65_535 {
            return context.error(format_args!("Invalid method Code length {length}"));
        }
        let bytes = cursor.take(length as usize)?;
        let handlers: Table<'a, ExceptionRange> = cursor.table()?;
        for range in handlers.iter() {
            if range.start >= range.end || u32::from(range.end) > length {
                return context.error("Illegal exception table range");
            }
            if u32::from(range.handler) >= length {
                return context.error("Illegal exception table handler");
            }
            if range.catch_type != 0 && !matches!(pool.get(range.catch_type), Constant::Class(_)) {
                return context.error("Catch type in exception table has bad constant type");
            }
        }
        let mut code = Self {
            max_stack,
            max_locals,
            bytes,
            handlers,
            stack_map_table: None,
            visible_type_annotations: None,
            invisible_type_annotations: None,
            attributes: &[],
            line_number_name: 0,
            local_variable_name: 0,
            local_variable_type_name: 0,
        };
        code.attributes(&mut cursor, pool, context)?;
        if !cursor.is_empty() {
            return context.error("Code segment has wrong length");
        }
        Ok(code)
    }

    fn attributes(&mut self, cursor: &mut Cursor<'a>, pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<()> {
        let count = cursor.u16()?;
        let all = *cursor;
        let mut variables = Variables::default();
        let mut seen = Seen::default();
        let mut length_all = 0;
        for _ in 0..count {
            let name_index = cursor.u16()?;
            let length = cursor.u32()?;
            let Some(name) = pool.utf8(name_index) else {
                return context.error(format_args!("Invalid code attribute name index {name_index}"));
            };
            let body = cursor.take(length as usize)?;
            length_all += 6 + body.len();
            match name {
                b"LineNumberTable" => {
                    self.line_numbers_checked(body, context)?;
                    // Several names with the same text are possible; the last is read.
                    self.line_number_name = name_index;
                }
                b"LocalVariableTable" => {
                    self.variables_checked(body, false, &mut variables, pool, context)?;
                    self.local_variable_name = name_index;
                }
                b"LocalVariableTypeTable" if context.major >= 49 => {
                    self.variables_checked(body, true, &mut variables, pool, context)?;
                    self.local_variable_type_name = name_index;
                }
                b"StackMapTable" if context.major >= 50 => {
                    if seen.again(0) {
                        return context.error("Multiple StackMapTable attributes");
                    }
                    self.stack_map_table = Some(body);
                }
                b"RuntimeVisibleTypeAnnotations" if context.major >= 49 => self.visible_type_annotations = Some(body),
                b"RuntimeInvisibleTypeAnnotations" if context.major >= 49 => {
                    self.invisible_type_annotations = Some(body)
                }
                _ => {}
            }
        }
        let mut all = all;
        self.attributes = all.take(length_all)?;
        variables.check_types(pool, context)
    }

    fn line_numbers_checked(&self, body: &'a [u8], context: &Context<'a>) -> Result<()> {
        let mut cursor = Cursor::new(body);
        let lines: Option<Table<'_, LineNumber>> = cursor.table().ok();
        let Some(lines) = lines.filter(|_| cursor.is_empty()) else {
            return context.error("LineNumberTable attribute has wrong length");
        };
        if lines.iter().any(|line| usize::from(line.start) >= self.bytes.len()) {
            return context.error("Invalid pc in LineNumberTable");
        }
        Ok(())
    }

    fn variables_checked(
        &self,
        body: &'a [u8],
        generic: bool,
        known: &mut Variables,
        pool: &ConstantPool<'a>,
        context: &Context<'a>,
    ) -> Result<()> {
        let table = if generic { "LocalVariableTypeTable" } else { "LocalVariableTable" };
        let mut cursor = Cursor::new(body);
        let variables: Option<Table<'_, LocalVariable>> = cursor.table().ok();
        let Some(variables) = variables.filter(|_| cursor.is_empty()) else {
            return context.error(format_args!("{table} has wrong length"));
        };
        for variable in variables.iter() {
            let LocalVariable { start, length, name, descriptor, slot } = variable;
            if usize::from(start) >= self.bytes.len() {
                return context.error(format_args!("Invalid start_pc {start} in {table}"));
            }
            if usize::from(start) + usize::from(length) > self.bytes.len() {
                return context.error(format_args!("Invalid length {length} in {table}"));
            }
            let Some(name_text) = pool.utf8(name) else {
                return context.error(format_args!("Name index {name} in {table} has bad constant type"));
            };
            let Some(descriptor_text) = pool.utf8(descriptor) else {
                return context.error(format_args!("Signature index {descriptor} in {table} has bad constant type"));
            };
            context.check_field_name(name_text)?;
            let mut slots = 1;
            if !generic {
                context.check_field_descriptor(name_text, descriptor_text)?;
                slots = FieldType::parse(descriptor_text).map_or(1, |variable| variable.slots());
            }
            if u32::from(slot) + u32::from(slots) > u32::from(self.max_locals) {
                return context.error(format_args!("Invalid index {slot} in {table}"));
            }
            let (place, key) =
                if generic { (&mut known.generic, variable.key()) } else { (&mut known.plain, variable.key()) };
            if place.insert(key, name).is_some() {
                return context
                    .error(format_args!("Duplicated {table} attribute entry for '{}'", mutf8::decode(name_text)));
            }
        }
        Ok(())
    }
}

impl LocalVariable {
    /// What tells variables apart: where they have values, name and slot.
    fn key(&self) -> (u16, u16, u16, u16) {
        (self.start, self.length, self.name, self.slot)
    }
}

/// The local variables of all tables of a method.
#[derive(Default)]
struct Variables {
    plain: HashMap<(u16, u16, u16, u16), u16>,
    generic: HashMap<(u16, u16, u16, u16), u16>,
}

impl Variables {
    fn check_types(&self, pool: &ConstantPool<'_>, context: &Context<'_>) -> Result<()> {
        match self.generic.iter().find(|(key, _)| !self.plain.contains_key(*key)) {
            None => Ok(()),
            Some((_, &name)) => context.error_text(format!(
                "LVTT entry for '{}' in class file {} does not match any LVT entry",
                mutf8::decode(pool.utf8(name).unwrap_or_default()),
                context.name()
            )),
        }
    }
}
