//! How a guest ended, in words.

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::limits::CpuTimeUsed;
use crate::program::one_line;

/// Frames that a report shows.
const FRAMES_MAX: usize = 30;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It ended itself with this status.
    Exit(i32),
    /// It failed: one line, and the backtrace below it, if there is one.
    Failed(String),
}

/// Reads an error of a call into the guest.
pub(crate) fn end(error: &wasmtime::Error) -> End {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return End::Exit(exit.0);
    }
    let what = if let Some(used) = error.downcast_ref::<CpuTimeUsed>() {
        used.to_string()
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        match trap {
            Trap::StackOverflow => "stack overflow: recursion too deep".to_owned(),
            Trap::UnreachableCodeReached => "it aborted (unreachable instruction)".to_owned(),
            other => other.to_string().trim_start_matches("wasm trap: ").to_owned(),
        }
    } else {
        one_line(error)
    };
    let mut report = what;
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        for (index, frame) in backtrace.frames().iter().enumerate() {
            if index == FRAMES_MAX {
                report += &format!("\n    ... and {} more", backtrace.frames().len() - FRAMES_MAX);
                break;
            }
            let name = match frame.func_name() {
                Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
                None => format!("function {}", frame.func_index()),
            };
            report += &format!("\n    at {name}");
            match frame.symbols().first() {
                Some(symbol) if symbol.file().is_some() => {
                    report += &format!(" ({}", symbol.file().unwrap_or_default());
                    if let Some(line) = symbol.line() {
                        report += &format!(":{line}");
                    }
                    report.push(')');
                }
                _ => {
                    if let Some(offset) = frame.module_offset() {
                        report += &format!(" (+{offset:#x})");
                    }
                }
            }
        }
    }
    End::Failed(report)
}
