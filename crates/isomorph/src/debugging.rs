//! Seeing into machines, as the command line asks for it: `--gdb`, `--trace`, `--stats`, `--perf-map`, `--symbols`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use debugger::debuggee::Debuggee;
use debugger::server::{Server, Serving};
use debugger::symbols::{Module, Symbols};
use debugger::trace::TextTrace;
use debugger::unwind::Frame;
use debugger::{crash, perf};
use riscv::board::Board;
use riscv::translate::UnitInfo;

use crate::cli::DebugArgs;

impl DebugArgs {
    /// Lets debuggers come, if they may, and says where.
    ///
    /// # Errors
    /// The host lets nobody listen there.
    pub fn serve(&self, debuggee: Arc<dyn Debuggee>) -> Result<Option<Serving>> {
        let Some(address) = &self.gdb else { return Ok(None) };
        let server = Server::bind(address)?;
        let what = if self.gdb_no_wait { "listening for" } else { "waiting for" };
        eprintln!("isomorph: {what} a debugger: target remote {}", server.address());
        Ok(Some(server.serve(debuggee, !self.gdb_no_wait).context("cannot serve a debugger")?))
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

    /// Tells what the machine has done, if that is asked for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tell_stats(&self, stats: impl FnOnce() -> RunStats) -> Result<()> {
        match &self.stats {
            None => {}
            Some(path) if path.as_os_str() == "-" => eprint!("{}", stats().table()),
            Some(path) => {
                let text = format!("{:#}\n", stats().json());
                std::fs::write(path, text).with_context(|| format!("cannot write statistics to {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Names translated code for `perf`, if that is asked for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn map_for_perf(&self, units: impl FnOnce() -> Vec<UnitInfo>, symbols: impl FnOnce() -> Symbols) -> Result<()> {
        if !self.perf_map {
            return Ok(());
        }
        perf::write(&units(), &symbols()).with_context(|| format!("cannot write {}", perf::path().display()))
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

/// How long and how fast something ran, and what it did.
pub struct RunStats {
    /// Nanoseconds of the machine's time.
    pub time_ns: u64,
    /// Names and counts. Where instructions are counted, they are the first.
    pub counts: Vec<(String, u64)>,
}

impl RunStats {
    /// Millions of instructions in a second, where they are counted.
    fn mips(&self) -> Option<f64> {
        let (_, count) = self.counts.first().filter(|(name, _)| name == "instructions")?;
        #[allow(clippy::cast_precision_loss, reason = "display only")]
        let instructions = *count as f64;
        let seconds = Duration::from_nanos(self.time_ns).as_secs_f64();
        Some(if seconds > 0.0 { instructions / seconds / 1e6 } else { 0.0 })
    }

    /// A table for people, of what happened at all.
    pub fn table(&self) -> String {
        let time = Duration::from_nanos(self.time_ns).as_secs_f64();
        let mut text = format!("{:32} {time:>16.3}\n", "seconds");
        if let Some(mips) = self.mips() {
            text += &format!("{:32} {mips:>16.1}\n", "MIPS");
        }
        for (name, count) in self.counts.iter().filter(|(_, count)| *count != 0) {
            text += &format!("{name:32} {count:>16}\n");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        object.insert("time_ns".into(), self.time_ns.into());
        if let Some(mips) = self.mips() {
            object.insert("mips".into(), mips.into());
        }
        for (name, count) in &self.counts {
            object.insert(name.to_lowercase().replace(' ', "_"), (*count).into());
        }
        object.into()
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
