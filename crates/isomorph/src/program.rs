//! `isomorph run ./program`: a Linux program of another processor, in place of this process.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::CommandFactory;
use debugger::trace::TextTrace;
use image::ImageStore;
use linux::debug::Control;
use linux::process::AtEnd;
use linux::run::Seeing;
use linux::start::Program;
use riscv::hart::debug::Tracer;

use crate::cli::{Cli, DebugArgs, RegisterArgs, RunArgs};
use crate::debugging::{RunStats, finish_trace};

/// Where Debian's cross packages put their libraries.
const CROSS: &str = "/usr/riscv64-linux-gnu";
/// Statuses of shells: a program that cannot be executed, and one that is not there.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A command line in which everything behind a program's path is the program's: `--` is put there. So `run ./program -c x` says nothing about processors,
/// while `run debian --cpus 4` does.
pub fn separate_arguments(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_none_or(|command| command != "run") {
        return arguments;
    }
    let cli = Cli::command();
    let Some(run) = cli.find_subcommand("run") else { return arguments };
    // Whether a flag takes the next word for its value.
    let takes_value = |word: &str| {
        run.get_arguments().any(|flag| {
            let long = flag.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
            let short =
                flag.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4])));
            (long || short) && flag.get_action().takes_values() && !flag.is_require_equals_set()
        })
    };
    let mut at = 2;
    while let Some(word) = arguments.get(at) {
        let text = word.to_string_lossy();
        if text == "--" {
            break;
        }
        if text.len() < 2 || !text.starts_with('-') {
            if text.contains('/') {
                arguments.insert(at + 1, "--".into());
            }
            break;
        }
        at += if takes_value(&text) { 2 } else { 1 };
    }
    arguments
}

/// The program that the arguments name, if their image is a path.
///
/// # Errors
/// The flags of a machine and a program at once.
pub fn of(args: &RunArgs) -> Option<Result<Program>> {
    let path = args.image.as_ref().filter(|image| image.contains('/'))?;
    Some(program(args, Path::new(path)))
}

fn program(args: &RunArgs, path: &Path) -> Result<Program> {
    ensure!(
        args.disks.is_empty() && args.publish.is_empty() && args.append.is_none() && args.name.is_none(),
        "{} is a program: it has the host's files and network, and takes no machine's flags",
        path.display()
    );
    ensure!(
        !args.repeat.is_asked_for(),
        "{} is a program: it shares the host's time, files and processes, so that its run cannot be repeated; run it inside a machine for that",
        path.display()
    );
    let name = args.argv0.clone().unwrap_or_else(|| path.into());
    Ok(Program {
        path: path.into(),
        arguments: std::iter::once(name).chain(args.arguments.iter().cloned()).collect(),
        sysroot: args.sysroot.clone().or_else(default_sysroot),
    })
}

/// The folder of libraries that is there without being told.
pub fn default_sysroot() -> Option<PathBuf> {
    let pulled = ImageStore::from_environment().ok().map(|store| store.sysroot());
    pulled.into_iter().chain([CROSS.into()]).find(|path| path.join("lib").is_dir())
}

/// Becomes the program. Comes back only with an error.
///
/// # Errors
/// It cannot be started.
pub fn become_program(program: Program, debug: &DebugArgs) -> Result<Infallible> {
    let environment: Vec<_> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect();
    let attach = |control: Arc<Control>| {
        let serving = debug.serve(Arc::clone(&control) as _).map_err(std::io::Error::other)?;
        if let Some(serving) = serving {
            control.set_farewell(Box::new(move || serving.close()));
        }
        Ok(())
    };
    let trace = debug.tracer()?;
    let tracer = trace.clone().map(|trace| trace as Arc<dyn Tracer>);
    let seeing = Seeing {
        attach: if debug.gdb.is_some() { Some(&attach) } else { None },
        tracer,
        counts: debug.stats.is_some(),
        at_end: (trace.is_some() || debug.stats.is_some() || debug.perf_map).then(|| at_end(debug.clone(), trace)),
    };
    Ok(linux::run::run(program, &environment, seeing)?)
}

/// What is told at the end of a program.
fn at_end(debug: DebugArgs, trace: Option<Arc<TextTrace>>) -> AtEnd {
    Box::new(move |process| {
        let cache = process.code().clone();
        let stats = || RunStats {
            time_ns: process.counts.as_ref().map_or(0, |counts| counts.time_ns(&process.time)),
            counts: process.counts.as_ref().map_or_else(Vec::new, |counts| counts.entries(cache.as_deref())),
        };
        let units = || cache.as_ref().map(|cache| cache.units()).unwrap_or_default();
        let told = finish_trace(trace.as_ref())
            .and_then(|()| debug.tell_stats(stats))
            .and_then(|()| debug.map_for_perf(units, || linux::crash::symbols(&process.space)));
        if let Err(error) = told {
            eprintln!("isomorph: {error:#}");
        }
    })
}

/// `isomorph register`.
///
/// # Errors
/// See [`linux::binfmt::BinfmtError`].
pub fn register(args: &RegisterArgs) -> Result<()> {
    let command = std::env::current_exe()?;
    if args.print {
        println!("{}", linux::binfmt::registration(&command)?);
    } else if args.unregister {
        linux::binfmt::unregister()?;
    } else {
        linux::binfmt::register(&command)?;
    }
    Ok(())
}

/// One line, and the status that shells give.
pub fn fail(result: Result<Infallible>) -> ExitCode {
    let Err(error) = result;
    eprintln!("isomorph: {error:#}");
    let missing = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    let missing = missing.map(std::io::Error::kind).any(|kind| kind == std::io::ErrorKind::NotFound);
    ExitCode::from(if missing { NOT_FOUND } else { CANNOT_EXECUTE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_program_is_its_own() {
        let split = |line: &str| {
            let words = separate_arguments(line.split(' ').map(OsString::from).collect());
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(split("isomorph run ./bash -c x"), "isomorph run ./bash -- -c x");
        assert_eq!(split("isomorph run --sysroot /a/b ./bash --norc"), "isomorph run --sysroot /a/b ./bash -- --norc");
        assert_eq!(split("isomorph run --sysroot=/a ./bash"), "isomorph run --sysroot=/a ./bash --");
        assert_eq!(split("isomorph run debian -c 4 --disk a/b"), "isomorph run debian -c 4 --disk a/b");
        assert_eq!(split("isomorph run -c 4 --trace /bin/x -c"), "isomorph run -c 4 --trace /bin/x -- -c");
        assert_eq!(split("isomorph rm a/b -c"), "isomorph rm a/b -c");
    }
}
