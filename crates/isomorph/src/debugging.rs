//! Seeing into machines, as the command line asks for it: `--gdb`, `--trace`, `--symbols`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use debugger::crash;
use debugger::debuggee::Debuggee;
use debugger::server::{Server, Serving};
use debugger::symbols::{Module, Symbols};
use debugger::trace::TextTrace;
use debugger::unwind::Frame;
use riscv::board::Board;

use crate::cli::DebugArgs;

impl DebugArgs {
    /// Lets debuggers come, if they may, and says where.
    ///
    /// # Errors
    /// The host lets nobody listen there.
    pub fn serve(&self, debuggee: impl Debuggee + 'static) -> Result<Option<Serving>> {
        let Some(address) = &self.gdb else { return Ok(None) };
        let server = Server::bind(address)?;
        let what = if self.gdb_no_wait { "listening for" } else { "waiting for" };
        eprintln!("isomorph: {what} a debugger: target remote {}", server.address());
        Ok(Some(server.serve(Arc::new(debuggee), !self.gdb_no_wait).context("cannot serve a debugger")?))
    }

    /// The trace that is asked for, if one is.
    ///
    /// # Errors
    /// Its file cannot be made.
    pub fn tracer(&self) -> Result<Option<Arc<TextTrace>>> {
        let Some(path) = &self.trace else { return Ok(None) };
        let out: Box<dyn Write + Send> = if path.as_os_str() == "-" {
            Box::new(io::stderr())
        } else {
            Box::new(File::create(path).with_context(|| format!("cannot write a trace to {}", path.display()))?)
        };
        Ok(Some(Arc::new(TextTrace::new(out, self.trace_range.clone()))))
    }

    /// The symbols of `--symbols`, and of `image` if that is an ELF file.
    ///
    /// # Errors
    /// A file of `--symbols` is none that has symbols.
    pub fn symbols(&self, image: Option<&Path>) -> Result<Symbols> {
        let mut symbols = Symbols::default();
        // What the machine starts may be of any kind.
        if let Some(module) = image.and_then(|path| Module::open(path, 0).ok()) {
            symbols.add(module);
        }
        for path in &self.symbols {
            symbols.add(Module::open(path, 0)?);
        }
        Ok(symbols)
    }
}

/// Writes what is left of a trace.
///
/// # Errors
/// Not all of it could be written.
pub fn finish_trace(trace: Option<&Arc<TextTrace>>) -> Result<()> {
    trace.map_or(Ok(()), |trace| trace.finish()).context("the trace is incomplete")
}

/// What the harts of a machine were doing when it failed: nothing without symbols.
pub fn describe_fault(board: &Board, symbols: &Symbols) -> String {
    if symbols.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    for (number, ((x, pc), line)) in board.registers().into_iter().zip(board.describe_harts()).enumerate() {
        let read = |at, bytes: &mut [u8]| board.read_virtual(number, at, bytes);
        text += &format!("{line}\n{}", crash::report(symbols, &Frame { x, pc }, &read));
    }
    text
}
