//! `isomorph run ./program`: a Linux program of another processor, in place of this process.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail, ensure};
use debugger::trace::TextTrace;
use image::ImageStore;
use linux::debug::Control;
use linux::hold::Holder;
use linux::process::AtEnd;
use linux::run::Seeing;
use linux::start::Program;
use linux::strace::CallLog;
use machine::clock::Clock;
use machine::lifecycle::{IllegalTransition, State, Verb};
use machine::permissions::Names;
use machine::sys::fence::{self, Strength};
use riscv::hart::debug::Tracer;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::cli::{DebugArgs, PermissionArgs, RegisterArgs, RunArgs};
use crate::control::{Asked, Controlled, Description, Figures, Place, Prepared, Session};
use crate::debugging::{RunStats, finish_trace};

/// Where Debian's cross packages put their libraries.
const CROSS: &str = "/usr/riscv64-linux-gnu";
/// Statuses of shells: a program that cannot be executed, and one that is not there.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Signals of Linux.
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// A command line in which everything behind a program's path is the program's: `--` is put there. So `run ./program -c x` says nothing about processors,
/// while `run debian --cpus 4` does.
/// `run` describes the flags.
pub fn separate_arguments(run: &clap::Command, mut arguments: Vec<OsString>) -> Vec<OsString> {
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
            if text.contains('/') || crate::webassembly::is_named(&text) || crate::java::is_named(&text) {
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
        args.disks.is_empty() && args.publish.is_empty() && args.append.is_none(),
        "{} is a program: it has the host's files and network, and takes no machine's flags",
        path.display()
    );
    ensure!(
        !args.repeat.is_asked_for(),
        "{} is a program: it shares the host's time, files and processes, so that its run cannot be repeated; run it inside a machine for that",
        path.display()
    );
    ensure!(
        !args.permissions.is_asked_for_by_webassembly(),
        "{} is a Linux program: --volume, --invoke, --snapshot and --serve are for WebAssembly",
        path.display()
    );
    ensure!(
        args.debug.gdb.is_none() || !args.permissions.confines(),
        "{} is confined by flags of permissions: a debugger cannot come in; leave them out, or --gdb",
        path.display()
    );
    let name = args.argv0.clone().unwrap_or_else(|| path.into());
    let program = Program {
        path: path.into(),
        arguments: std::iter::once(name).chain(args.arguments.iter().cloned()).collect(),
        sysroot: args.sysroot.clone().or_else(default_sysroot),
        options: args.engine.options(),
        machine: None,
        call_log: match &args.debug.strace {
            None => None,
            Some(path) if path.as_os_str() == "-" => Some(CallLog::new(path)),
            Some(path) => {
                // Those that it executes may be elsewhere.
                let path = std::path::absolute(path)?;
                std::fs::write(&path, "")
                    .with_context(|| format!("cannot write system calls to {}", path.display()))?;
                Some(CallLog::new(&path))
            }
        },
    };
    Ok(program.through_interpreters())
}

/// The folder of libraries that is there without being told.
pub fn default_sysroot() -> Option<PathBuf> {
    let pulled = ImageStore::from_environment().ok().map(|store| store.sysroot());
    pulled.into_iter().chain([CROSS.into()]).find(|path| path.join("lib").is_dir())
}

/// Becomes what the arguments name.
///
/// # Errors
/// See [`become_program`].
pub fn run(program: Program, args: &RunArgs) -> Result<Infallible> {
    let named = args.image.clone().unwrap_or_default();
    let is_script = program.path != Path::new(&named);
    let place = Place::of(args.name.as_deref(), program.path.as_os_str());
    let control = if args.permissions.confines() {
        // Behind the fence no socket is made.
        let prepared = Prepared::at(&place);
        let prepared = if args.name.is_some() { Some(prepared?) } else { prepared.ok() };
        confine(&program, Path::new(&named), args)?;
        prepared.map(|prepared| (place, Some(prepared)))
    } else {
        Some((place, None))
    };
    if let Some(seconds) = args.permissions.cpu_time {
        limit_cpu_time(seconds)?;
    }
    let result = become_program(program, &args.debug, &args.permissions, control);
    if is_script { result.with_context(|| format!("{named} is a script whose interpreter cannot run")) } else { result }
}

/// Ends this process, and each that it starts, by SIGXCPU after so many seconds of processor time, and a second later for good: whole ones, as the kernel counts.
fn limit_cpu_time(seconds: f64) -> Result<()> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and 1e9 at most")]
    let seconds = seconds.ceil() as u64;
    let limit = Rlimit { current: Some(seconds), maximum: Some(seconds + 1) };
    setrlimit(Resource::Cpu, limit).context("cannot limit processor time")
}

/// Gives up, for this process and those that it starts, what the flags do not allow.
fn confine(program: &Program, named: &Path, args: &RunArgs) -> Result<()> {
    let mut permissions = args.permissions.permissions();
    ensure!(
        permissions.network.is_empty() || permissions.allows_all_of_network(),
        "{} is a Linux program: it gets all of the network (--allow-net) or none",
        named.display()
    );
    // What is written at the end, or by other processes of the program, is written behind the fence.
    let files = [&args.debug.strace, &args.debug.stats].into_iter().flatten().filter(|path| path.as_os_str() != "-");
    permissions.write.extend(files.cloned());
    let own: Vec<PathBuf> = [named, &program.path, Path::new("/proc/self")]
        .into_iter()
        .chain(program.sysroot.as_deref())
        .map(PathBuf::from)
        .chain(std::env::current_exe().ok())
        .collect();
    let strength = fence::raise(&permissions, &own).with_context(|| format!("cannot run {}", named.display()))?;
    // Nothing else guards this program's files and network.
    ensure!(
        strength != Strength::NoFiles,
        "cannot confine {}: this kernel has no Landlock; see 'isomorph doctor'",
        named.display()
    );
    Ok(())
}

/// A program as verbs from outside meet it.
struct Controllable {
    holder: Holder,
    clock: Clock,
}

impl Controlled for Controllable {
    fn state(&self) -> State {
        if self.holder.is_held() { State::Paused } else { State::Running }
    }

    fn pause(&self) -> Result<(), IllegalTransition> {
        self.state().after(Verb::Pause)?;
        self.holder.hold();
        Ok(())
    }

    fn resume(&self) -> Result<(), IllegalTransition> {
        self.state().after(Verb::Resume)?;
        self.holder.release();
        Ok(())
    }

    fn stop(&self) -> Result<Asked> {
        self.holder.release();
        self.holder.signal(SIGTERM);
        Ok(Asked::Told)
    }

    fn kill(&self) {
        self.holder.signal(SIGKILL);
    }

    fn snapshot(&self, _directory: &Path) -> Result<()> {
        bail!("there are no snapshots of Linux programs, whose files and processes are this host's")
    }

    fn figures(&self) -> Figures {
        Figures { time_ns: self.clock.now_ns(), ..Figures::default() }
    }
}

/// The time in which a program can be controlled, as its end finds it.
type Attended = Arc<OnceLock<(Session, Holder)>>;

/// Where a program is controlled from outside, and what was made for that already.
pub type ControlPlace = (Place, Option<Prepared>);

/// Lets a program be controlled from outside.
fn attend(holder: Holder, (place, prepared): ControlPlace, guest: &Path, attended: &Attended) -> Result<()> {
    let (Place::Named(name) | Place::Unnamed(name) | Place::Own { name, .. }) = &place;
    holder.set_name(name.into());
    let mut description = Description::new("linux", guest.to_string_lossy());
    description.apart = Some(linux::hold::leave_descriptors);
    let controllable = Controllable { holder: holder.clone(), clock: Clock::new() };
    let session = match prepared {
        Some(prepared) => Session::begin_prepared(prepared, description, Arc::new(controllable))?,
        None => Session::begin(place, description, Arc::new(controllable))?,
    };
    // Programs begin once.
    let _ = attended.set((session, holder));
    Ok(())
}

/// Becomes the program, which can be controlled at a place. Comes back only with an error.
///
/// # Errors
/// It cannot be started.
pub fn become_program(
    program: Program,
    debug: &DebugArgs,
    permissions: &PermissionArgs,
    place: Option<ControlPlace>,
) -> Result<Infallible> {
    let variables = &permissions.env;
    let seen = if permissions.confines() { permissions.permissions().environment } else { Names::All };
    let is_set = |name: &OsString| variables.iter().filter_map(|set| set.split_once('=')).any(|(set, _)| name == set);
    let inherited = std::env::vars_os().filter(|(name, _)| seen.contains(&name.to_string_lossy()) && !is_set(name));
    let inherited = inherited.map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    // As for docker, a name alone means the variable as it is here, which it has anyway.
    let set = variables.iter().filter(|variable| variable.contains('=')).map(OsString::from);
    let environment: Vec<_> = inherited.chain(set).collect();
    let attach = |control: Arc<Control>| {
        let serving = debug.serve(Arc::clone(&control) as _).map_err(std::io::Error::other)?;
        if let Some(serving) = serving {
            control.set_farewell(Box::new(move || serving.close()));
        }
        Ok(())
    };
    let attended = Attended::default();
    let guest = program.path.clone();
    let is_controlled = place.is_some();
    let place = Cell::new(place);
    let control = |holder: Holder| match place.take() {
        Some(place) => attend(holder, place, &guest, &attended).map_err(|error| io::Error::other(format!("{error:#}"))),
        None => Ok(()),
    };
    let trace = debug.tracer()?;
    let tracer = trace.clone().map(|trace| trace as Arc<dyn Tracer>);
    let seeing = Seeing {
        attach: if debug.gdb.is_some() { Some(&attach) } else { None },
        tracer,
        control: if is_controlled { Some(&control) } else { None },
        counts: debug.stats.is_some(),
        at_end: Some(at_end(debug.clone(), trace, Arc::clone(&attended))),
    };
    Ok(linux::run::run(program, &environment, seeing)?)
}

/// What is told at the end of a program.
fn at_end(debug: DebugArgs, trace: Option<Arc<TextTrace>>, attended: Attended) -> AtEnd {
    Box::new(move |process| {
        if let Some((session, holder)) = attended.get()
            && holder.is_here()
        {
            session.end();
        }
        if trace.is_none() && debug.stats.is_none() && !debug.perf_map {
            return;
        }
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
    use crate::cli::run_command;

    #[test]
    fn what_follows_a_program_is_its_own() {
        let split = |line: &str| {
            let words = separate_arguments(&run_command(), line.split(' ').map(OsString::from).collect());
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(split("isomorph run ./bash -c x"), "isomorph run ./bash -- -c x");
        assert_eq!(split("isomorph run --sysroot /a/b ./bash --norc"), "isomorph run --sysroot /a/b ./bash -- --norc");
        assert_eq!(split("isomorph run --sysroot=/a ./bash"), "isomorph run --sysroot=/a ./bash --");
        assert_eq!(split("isomorph run debian -c 4 --disk a/b"), "isomorph run debian -c 4 --disk a/b");
        assert_eq!(split("isomorph run -c 4 --trace /bin/x -c"), "isomorph run -c 4 --trace /bin/x -- -c");
        assert_eq!(split("isomorph run --invoke f app.wasm -c"), "isomorph run --invoke f app.wasm -- -c");
        assert_eq!(split("isomorph run --allow-net app.jar -c"), "isomorph run --allow-net app.jar -- -c");
    }
}
