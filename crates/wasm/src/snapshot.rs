//! Saving an instance between two calls, and making it again.
//!
//! ```text
//! section name      1   the program's name, UTF-8
//! section program   1   the module as it was read
//! section globals   1   count; of each mutable global: index, value
//! section tables    1   count; of each table: index, size (8 bytes), references
//! memory  memory.N      each memory
//!
//! value: type as in the binary format (1 byte), bits        reference: function's index (4 bytes), or ffffffff for null
//! ```
//!
//! All numbers are little-endian, of four bytes where nothing else is said. What WASI keeps for a program is no part of it: files that it had open
//! are closed in the instance that goes on.

use std::collections::HashMap;
use std::path::Path;
use std::ptr::NonNull;

use machine::snapshot::{Identity, Parts, Snapshot, Writer};
use machine::sys::map_file_over;
use wasmtime::{Extern, Func, Instance, Module, Ref, Store, V128, Val, ValType, bail, ensure, format_err};

use crate::exposed::Part;

/// The kind of machine, in the header.
pub(crate) const KIND: &str = "wasm";
pub(crate) const NAME: &str = "name";
pub(crate) const PROGRAM: &str = "program";
const GLOBALS: &str = "globals";
const TABLES: &str = "tables";
/// The version of all sections.
pub(crate) const SECTION_VERSION: u32 = 1;
/// The reference to nothing.
const NULL: u32 = u32::MAX;

/// Types of values, as in the binary format.
const I32: u8 = 0x7f;
const I64: u8 = 0x7e;
const F32: u8 = 0x7d;
const F64: u8 = 0x7c;
const VECTOR: u8 = 0x7b;
const FUNCTION: u8 = 0x70;
/// Any other reference, which then is null.
const OTHER: u8 = 0x6e;

/// The parts of an exposed module, in the order of its exports.
fn parts(module: &Module) -> impl Iterator<Item = (Part, &str)> {
    module.exports().filter_map(|export| Some((Part::of(export.name())?, export.name())))
}

fn export<T: 'static>(store: &mut Store<T>, instance: &Instance, name: &str) -> wasmtime::Result<Extern> {
    instance.get_export(store, name).ok_or_else(|| format_err!("it does not export {name}"))
}

fn object() -> wasmtime::Error {
    format_err!("it holds references to objects, which a snapshot cannot hold")
}

fn put(out: &mut Vec<u8>, ty: u8, bits: &[u8]) {
    out.push(ty);
    out.extend_from_slice(bits);
}

/// Writes the instance to `directory`.
pub(crate) fn save<T: 'static>(
    store: &mut Store<T>,
    instance: &Instance,
    module: &Module,
    (name, program): (&str, &[u8]),
    directory: &Path,
    parent: Option<Identity>,
) -> wasmtime::Result<()> {
    let mut writer = Writer::create(directory, KIND, Identity::draw()?, parent)?;
    writer.section(NAME, SECTION_VERSION, name.as_bytes())?;
    writer.section(PROGRAM, SECTION_VERSION, program)?;
    // A function is known by the address that the engine has for it.
    let mut functions = HashMap::new();
    for (part, name) in parts(module) {
        if let Part::Function(index) = part
            && let Extern::Func(function) = export(store, instance, name)?
        {
            functions.insert(function.to_raw(&mut *store).addr(), index);
        }
    }
    let reference = |store: &mut Store<T>, function: Option<Func>| match function {
        None => Ok(NULL),
        Some(function) => functions
            .get(&function.to_raw(&mut *store).addr())
            .copied()
            .ok_or_else(|| format_err!("it holds a reference to a function that is not its own")),
    };
    let (mut globals, mut globals_count) = (Vec::new(), 0_u32);
    let (mut tables, mut tables_count) = (Vec::new(), 0_u32);
    for (part, name) in parts(module) {
        match (part, export(store, instance, name)?) {
            (Part::Global(index), Extern::Global(global)) => {
                globals_count += 1;
                globals.extend(index.to_le_bytes());
                match global.get(&mut *store) {
                    Val::I32(value) => put(&mut globals, I32, &value.to_le_bytes()),
                    Val::I64(value) => put(&mut globals, I64, &value.to_le_bytes()),
                    Val::F32(bits) => put(&mut globals, F32, &bits.to_le_bytes()),
                    Val::F64(bits) => put(&mut globals, F64, &bits.to_le_bytes()),
                    Val::V128(value) => put(&mut globals, VECTOR, &value.as_u128().to_le_bytes()),
                    Val::FuncRef(function) => {
                        put(&mut globals, FUNCTION, &reference(store, function)?.to_le_bytes());
                    }
                    Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None) | Val::ContRef(None) => {
                        put(&mut globals, OTHER, &[]);
                    }
                    _ => return Err(object()),
                }
            }
            (Part::Table(index), Extern::Table(table)) => {
                tables_count += 1;
                let size = table.size(&*store);
                tables.extend(index.to_le_bytes());
                tables.extend(size.to_le_bytes());
                for at in 0..size {
                    let function = match table.get(&mut *store, at) {
                        Some(Ref::Func(function)) => function,
                        Some(reference) if reference.is_null() => None,
                        _ => return Err(object()),
                    };
                    tables.extend(reference(store, function)?.to_le_bytes());
                }
            }
            (Part::Memory(index), Extern::Memory(memory)) => {
                let data = memory.data(&*store);
                let read = |at: u64, page: &mut [u8]| {
                    let source = usize::try_from(at).ok().and_then(|at| data.get(at..)?.get(..page.len()));
                    page.copy_from_slice(source.ok_or(std::io::ErrorKind::UnexpectedEof)?);
                    Ok(())
                };
                writer.memory(&format!("memory.{index}"), data.len() as u64, read)?;
            }
            _ => {}
        }
    }
    writer.section(GLOBALS, SECTION_VERSION, &[&globals_count.to_le_bytes()[..], &globals].concat())?;
    writer.section(TABLES, SECTION_VERSION, &[&tables_count.to_le_bytes()[..], &tables].concat())?;
    Ok(writer.finish()?)
}

/// Reads what [`save`] has written into a section.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> wasmtime::Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(|| format_err!("the snapshot's state is cut off"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn number(&mut self) -> wasmtime::Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn end(&self) -> wasmtime::Result<()> {
        ensure!(self.0.is_empty(), "the snapshot's state has something behind its end");
        Ok(())
    }
}

/// Makes the instance, which is fresh, what was saved.
pub(crate) fn restore<T: 'static>(
    store: &mut Store<T>,
    instance: &Instance,
    module: &Module,
    snapshot: &Snapshot,
) -> wasmtime::Result<()> {
    let mut from = snapshot.parts();
    from.pass(NAME)?;
    from.pass(PROGRAM)?;
    let other = |part: Part| format_err!("the snapshot is of another program: this one has no {}", part.name());
    let globals = from.section(GLOBALS, SECTION_VERSION)?;
    let mut globals = Reader(&globals);
    for _ in 0..globals.number()? {
        let part = Part::Global(globals.number()?);
        let global = instance.get_global(&mut *store, &part.name()).ok_or_else(|| other(part))?;
        let value = match globals.take()? {
            [I32] => Val::I32(i32::from_le_bytes(globals.take()?)),
            [I64] => Val::I64(i64::from_le_bytes(globals.take()?)),
            [F32] => Val::F32(u32::from_le_bytes(globals.take()?)),
            [F64] => Val::F64(u64::from_le_bytes(globals.take()?)),
            [VECTOR] => Val::V128(V128::from(u128::from_le_bytes(globals.take()?))),
            [FUNCTION] => Val::FuncRef(function(store, instance, globals.number()?)?),
            [OTHER] => match global.ty(&*store).content() {
                ValType::Ref(ty) => Val::null_ref(ty.heap_type()),
                _ => bail!("the snapshot gives {} a reference", part.name()),
            },
            [other] => bail!("the snapshot has a value of an unknown type {other:#x}"),
        };
        global.set(&mut *store, value)?;
    }
    globals.end()?;
    let tables = from.section(TABLES, SECTION_VERSION)?;
    let mut tables = Reader(&tables);
    for _ in 0..tables.number()? {
        let part = Part::Table(tables.number()?);
        let table = instance.get_table(&mut *store, &part.name()).ok_or_else(|| other(part))?;
        let size = u64::from_le_bytes(tables.take()?);
        let null = Ref::null(table.ty(&*store).element().heap_type());
        let present = table.size(&*store);
        ensure!(size >= present, "the snapshot has a smaller {} than the program", part.name());
        if size > present {
            let first = tables.0.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or(NULL);
            let fill = function(store, instance, first)?.map_or(null.clone(), |function| Ref::Func(Some(function)));
            table.grow(&mut *store, size - present, fill)?;
        }
        for at in 0..size {
            let value = function(store, instance, tables.number()?)?;
            table.set(&mut *store, at, value.map_or(null.clone(), |function| Ref::Func(Some(function))))?;
        }
    }
    tables.end()?;
    for (part, _) in parts(module) {
        if let Part::Memory(index) = part {
            restore_memory(store, instance, index, &mut from)?;
        }
    }
    Ok(from.finish()?)
}

/// The function of an index.
fn function<T: 'static>(store: &mut Store<T>, instance: &Instance, index: u32) -> wasmtime::Result<Option<Func>> {
    if index == NULL {
        return Ok(None);
    }
    let function = instance.get_func(&mut *store, &Part::Function(index).name());
    function
        .map(Some)
        .ok_or_else(|| format_err!("the snapshot is of another program: this one has no function {index}"))
}

/// Puts the saved memory in place of the fresh one, copy-on-write: what it holds costs when it is touched.
fn restore_memory<T: 'static>(
    store: &mut Store<T>,
    instance: &Instance,
    index: u32,
    from: &mut Parts<'_>,
) -> wasmtime::Result<()> {
    let part = Part::Memory(index);
    let memory =
        instance.get_memory(&mut *store, &part.name()).ok_or_else(|| format_err!("it has no {}", part.name()))?;
    let saved = from.memory(&format!("memory.{index}"))?;
    let present = memory.data_size(&*store) as u64;
    let more = saved.length.checked_sub(present).ok_or_else(|| format_err!("the snapshot's memory is too small"))?;
    let page = memory.page_size(&*store);
    ensure!(more.is_multiple_of(page), "the snapshot's memory is no whole number of the program's pages");
    if more > 0 {
        memory.grow(&mut *store, more / page)?;
    }
    let (bytes, start) = (memory.data_size(&*store), NonNull::new(memory.data_ptr(&*store)));
    if let (Some(start), true) = (start, bytes > 0) {
        // SAFETY: the range is the instance's whole memory, of which the store, borrowed here, is the only user. It was made by the allocator of
        // single instances, which gives all of it back to the host at its end.
        unsafe { map_file_over(start, bytes, saved.file, saved.offset) }?;
    }
    Ok(())
}
