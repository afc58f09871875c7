//! Modules whose state can be reached: the form of a program that snapshots are taken of.
//!
//! The engine hands out what a module exports, and nothing else. So a module that is to be saved is rewritten before it is compiled: what makes up its
//! state gets exports of our own, and its start function is called by us, once, and not when a saved instance is made again.
//!
//! ```text
//! isomorph:global:N     each mutable global            isomorph:memory:N     each memory
//! isomorph:table:N      each table                     isomorph:function:N   each function that a table or global can hold
//! isomorph:start:0      the start function
//! ```
//!
//! The code is not touched. What cannot be told from outside is whether a segment was dropped; a module that drops segments is refused.

use std::collections::BTreeSet;

use wasmparser::{
    BinaryReaderError, ConstExpr, ElementItems, Encoding, ExternalKind, Operator, Parser, Payload, TableInit, TypeRef,
};
use wasmtime::{bail, ensure, format_err};

const PREFIX: &str = "isomorph:";
const EXPORT_SECTION: u8 = 7;
const START_SECTION: u8 = 8;

/// What an export of ours is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Function(u32),
    Table(u32),
    Memory(u32),
    Global(u32),
    Start,
}

impl Part {
    /// The name of its export.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Function(index) => format!("{PREFIX}function:{index}"),
            Self::Table(index) => format!("{PREFIX}table:{index}"),
            Self::Memory(index) => format!("{PREFIX}memory:{index}"),
            Self::Global(index) => format!("{PREFIX}global:{index}"),
            Self::Start => format!("{PREFIX}start:0"),
        }
    }

    /// The part that an export of this name is of, if it is one of ours.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (kind, index) = name.strip_prefix(PREFIX)?.split_once(':')?;
        let index = index.parse().ok()?;
        Some(match kind {
            "function" => Self::Function(index),
            "table" => Self::Table(index),
            "memory" => Self::Memory(index),
            "global" => Self::Global(index),
            "start" => Self::Start,
            _ => return None,
        })
    }
}

/// Parts of a module by their index.
#[derive(Default)]
struct Found {
    functions: BTreeSet<u32>,
    tables: u32,
    memories: u32,
    globals: u32,
    mutable: Vec<u32>,
    start: Option<u32>,
}

impl Found {
    /// Notes the functions that an initial value refers to.
    fn expression(&mut self, expression: &ConstExpr<'_>) -> Result<(), BinaryReaderError> {
        for operator in expression.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.functions.insert(function_index);
            }
        }
        Ok(())
    }

    fn payload(&mut self, payload: Payload<'_>) -> wasmtime::Result<()> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => {
                bail!("it is a component, and snapshots are of modules")
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let what = match import?.ty {
                        TypeRef::Table(_) => "table",
                        TypeRef::Memory(_) => "memory",
                        TypeRef::Global(_) => "global",
                        _ => continue,
                    };
                    bail!("it imports a {what}, which is not its own to save");
                }
            }
            Payload::TableSection(tables) => {
                self.tables = tables.count();
                for table in tables {
                    if let TableInit::Expr(expression) = table?.init {
                        self.expression(&expression)?;
                    }
                }
            }
            Payload::MemorySection(memories) => {
                self.memories = memories.count();
                for memory in memories {
                    ensure!(!memory?.shared, "it has a memory shared between threads, which cannot be saved");
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    let global = global?;
                    if global.ty.mutable {
                        self.mutable.push(self.globals);
                    }
                    self.expression(&global.init_expr)?;
                    self.globals += 1;
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    if matches!(export.kind, ExternalKind::Func) {
                        self.functions.insert(export.index);
                    }
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(elements) => {
                for element in elements {
                    match element?.items {
                        ElementItems::Functions(functions) => {
                            for function in functions {
                                self.functions.insert(function?);
                            }
                        }
                        ElementItems::Expressions(_, expressions) => {
                            for expression in expressions {
                                self.expression(&expression?)?;
                            }
                        }
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader()? {
                    if matches!(operator?, Operator::DataDrop { .. } | Operator::ElemDrop { .. }) {
                        bail!("it drops segments (data.drop, elem.drop), which a snapshot cannot tell");
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The exports of ours: what, the kind's code in the binary format, and its index.
    fn exports(&self) -> Vec<(Part, u8, u32)> {
        let functions = self.functions.iter().map(|index| (Part::Function(*index), 0, *index));
        let tables = (0..self.tables).map(|index| (Part::Table(index), 1, index));
        let memories = (0..self.memories).map(|index| (Part::Memory(index), 2, index));
        let globals = self.mutable.iter().map(|index| (Part::Global(*index), 3, *index));
        let start = self.start.map(|index| (Part::Start, 0, index));
        functions.chain(tables).chain(memories).chain(globals).chain(start).collect()
    }
}

/// Reads an unsigned LEB128 number of 32 bits, and gives what follows it.
fn read_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0_u32;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        let bits = u32::from(byte & 0x7f);
        number |= bits.checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

fn write_number(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn write_section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    write_number(out, content.len());
    out.extend_from_slice(content);
}

/// Gives a module the exports of ours.
///
/// # Errors
/// It is no module, or has state that cannot be saved.
pub(crate) fn expose(module: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let mut found = Found::default();
    for payload in Parser::new(0).parse_all(module) {
        found.payload(payload?)?;
    }
    let exports = found.exports();
    let cut = || format_err!("it is cut off");
    let (header, mut rest) = module.split_at_checked(8).ok_or_else(cut)?;
    let mut out = Vec::with_capacity(module.len() + exports.len() * 32);
    out.extend_from_slice(header);
    // The section of exports, from what it held so far: the count, and the exports themselves.
    let section = |out: &mut Vec<u8>, count: u32, own: &[u8]| {
        let mut content = Vec::new();
        write_number(&mut content, count as usize + exports.len());
        content.extend_from_slice(own);
        for (part, kind, index) in &exports {
            let name = part.name();
            write_number(&mut content, name.len());
            content.extend_from_slice(name.as_bytes());
            content.push(*kind);
            write_number(&mut content, *index as usize);
        }
        write_section(out, EXPORT_SECTION, &content);
    };
    let mut is_done = false;
    while let Some((id, behind)) = rest.split_first() {
        let (length, content) = read_number(behind).ok_or_else(cut)?;
        let (content, next) = content.split_at_checked(length as usize).ok_or_else(cut)?;
        rest = next;
        // Without a section of exports, ours comes before the first that has to stand behind it.
        if !is_done && matches!(*id, START_SECTION..=12) {
            section(&mut out, 0, &[]);
            is_done = true;
        }
        match *id {
            START_SECTION => {}
            EXPORT_SECTION => {
                let (count, own) = read_number(content).ok_or_else(cut)?;
                section(&mut out, count, own);
                is_done = true;
            }
            id => write_section(&mut out, id, content),
        }
    }
    if !is_done {
        section(&mut out, 0, &[]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_gets_exports_and_code_stays() {
        let text = r#"(module (memory 1) (table 2 funcref) (global i32 (i32.const 1)) (global (mut i64) (i64.const 1))
            (start $s) (elem (i32.const 0) $a) (func $s) (func $a (export "a")) (func $unreachable))"#;
        let exposed = expose(&wat::parse_str(text).unwrap()).unwrap();
        wasmparser::validate(&exposed).unwrap();
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(&exposed) {
            match payload.unwrap() {
                Payload::ExportSection(exports) => {
                    names.extend(exports.into_iter().map(|e| e.unwrap().name.to_owned()))
                }
                Payload::StartSection { .. } => panic!("the start function is called by us"),
                _ => {}
            }
        }
        let parts: Vec<_> = names.iter().filter_map(|name| Part::of(name)).collect();
        assert_eq!(names[0], "a");
        assert_eq!(parts, [Part::Function(1), Part::Table(0), Part::Memory(0), Part::Global(1), Part::Start]);
        for part in parts {
            assert_eq!(Part::of(&part.name()), Some(part));
        }
    }

    #[test]
    fn modules_without_exports_get_some() {
        for text in
            ["(module (memory 1))", "(module (memory 1) (data (i32.const 0) \"x\"))", "(module (func) (memory 1))"]
        {
            let exposed = expose(&wat::parse_str(text).unwrap()).unwrap();
            wasmparser::validate(&exposed).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_saved_is_refused() {
        let refused = |text: &str, why: &str| {
            let error = expose(&wat::parse_str(text).unwrap()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused("(module (memory 1 1 shared))", "shared");
        refused("(module (import \"a\" \"b\" (memory 1)))", "imports a memory");
        refused("(module (data \"x\") (func (data.drop 0)))", "drops segments");
        refused("(component)", "component");
    }
}
