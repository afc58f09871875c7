//! `isomorph run app.wasm`: a WebAssembly program in this process, with the permissions that it is given.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use machine::clock::Clock;
use machine::lifecycle::{IllegalTransition, Machine, State, StopReason, Verb};
use machine::snapshot::is_snapshot;
use machine::sys::forget_text;
use signal_hook::consts::{SIGKILL, SIGTERM};
use wasm::{Cache, Host, Process, Program, Server, ServerControl, Settings};

use crate::cli::RunArgs;
use crate::control::{Asked, Controlled, Description, Figures, Place, Session};

/// Whether a file of this name is a WebAssembly program, whatever it holds.
pub fn is_named(name: &str) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| ["wasm", "wat", "cwasm"].iter().any(|known| extension == *known))
}

/// The WebAssembly program that the arguments name, if they do: a file with the name of one, or a path to a file that begins as one or to a snapshot.
pub fn of(args: &RunArgs) -> Option<&Path> {
    let name = args.image.as_deref()?;
    let path = Path::new(name);
    let begins = || {
        let mut start = [0; 4];
        let mut file = File::open(path).ok()?;
        // Reading a directory fails.
        match file.read_exact(&mut start) {
            Ok(()) => wasm::is_wasm(&start).then_some(()),
            Err(_) => is_snapshot(path).then_some(()),
        }
    };
    // A name that says so gets an error that says so.
    (is_named(name) || name.contains('/') && begins().is_some()).then_some(path)
}

/// Where compiled code is kept: `isomorph/wasm` in `XDG_CACHE_HOME`, else in `~/.cache`.
fn cache() -> Option<Cache> {
    let folder = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(Cache::new(base.join("isomorph/wasm")))
}

fn settings(args: &RunArgs, path: &Path) -> Result<Settings> {
    let permissions = args.permissions.permissions();
    let own = std::env::vars().filter(|(name, _)| permissions.environment.contains(name));
    let environment = own.chain(args.permissions.variables()?).collect();
    let name = args.argv0.as_deref().unwrap_or(path.as_os_str());
    let arguments = std::iter::once(name).chain(args.arguments.iter().map(AsRef::as_ref));
    let text = |argument: &std::ffi::OsStr| {
        argument
            .to_str()
            .map(str::to_owned)
            .with_context(|| format!("the argument {} is not UTF-8", argument.display()))
    };
    Ok(Settings {
        arguments: arguments.map(text).collect::<Result<_>>()?,
        environment,
        permissions,
        volumes: args.permissions.volume.clone(),
        memory_bytes: args.memory.0,
        cpu_time: args.permissions.cpu_time.map(Duration::from_secs_f64),
        invoke: args.permissions.invoke.clone(),
        snapshot: args.permissions.snapshot.clone(),
    })
}

/// A program as verbs from outside meet it.
struct Controllable {
    process: Process,
    /// The signal that stands for what has ended it.
    signal: AtomicI32,
}

impl Controllable {
    fn end(&self, signal: i32) -> Result<(), IllegalTransition> {
        self.signal.store(signal, Ordering::SeqCst);
        self.process.stop()
    }
}

impl Controlled for Controllable {
    fn state(&self) -> State {
        self.process.state()
    }

    fn pause(&self) -> Result<(), IllegalTransition> {
        self.process.pause()
    }

    fn resume(&self) -> Result<(), IllegalTransition> {
        self.process.resume()
    }

    fn stop(&self) -> Result<Asked> {
        // WASI has no signals: the sandbox is all there is to end.
        self.end(SIGTERM)?;
        Ok(Asked::Told)
    }

    fn kill(&self) {
        // One that has ended by itself meanwhile has ended.
        let _ = self.end(SIGKILL);
    }

    fn snapshot(&self, directory: &Path) -> Result<()> {
        self.process.snapshot(directory).map_err(anyhow::Error::msg)
    }

    fn figures(&self) -> Figures {
        let stats = self.process.stats();
        Figures { time_ns: stats.time_ns, memory_bytes: stats.memory_size_bytes, counts: Vec::new() }
    }
}

/// A server as verbs from outside meet it.
struct ControllableServer {
    control: ServerControl,
    clock: Clock,
}

impl Controlled for ControllableServer {
    fn state(&self) -> State {
        if self.control.is_held() { State::Paused } else { State::Running }
    }

    fn pause(&self) -> Result<(), IllegalTransition> {
        self.state().after(Verb::Pause)?;
        self.control.hold();
        self.clock.pause();
        Ok(())
    }

    fn resume(&self) -> Result<(), IllegalTransition> {
        self.state().after(Verb::Resume)?;
        self.clock.resume();
        self.control.release();
        Ok(())
    }

    fn stop(&self) -> Result<Asked> {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
        Ok(Asked::Told)
    }

    fn kill(&self) {
        // This process is there.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }

    fn snapshot(&self, _directory: &Path) -> Result<()> {
        bail!("a server has no state between two requests: each has an instance of its own")
    }

    fn figures(&self) -> Figures {
        let counts = vec![("requests".into(), self.control.served_count())];
        Figures { time_ns: self.clock.now_ns(), memory_bytes: 0, counts }
    }
}

/// Runs the program to its end, or serves with it until this process is ended.
///
/// # Errors
/// It is no program, or it failed.
pub fn run(args: &RunArgs, path: &Path) -> Result<ExitCode> {
    ensure!(
        args.disks.is_empty() && args.publish.is_empty() && args.append.is_none(),
        "{} is a WebAssembly program, and takes no machine's flags",
        path.display()
    );
    ensure!(
        !args.repeat.is_asked_for(),
        "{} is a WebAssembly program: it reads the host's clock, so that its run cannot be repeated",
        path.display()
    );
    let place = Place::of(args.name.as_deref(), path.as_os_str());
    let of = || format!("cannot run {}", path.display());
    let settings = settings(args, path)?;
    if let Some(address) = args.permissions.serve {
        let memory = usize::try_from(settings.memory_bytes).unwrap_or(usize::MAX);
        let program = Program::load(&Host::pooling(cache(), memory).with_context(of)?, path).with_context(of)?;
        let name = program.name().to_owned();
        let server = Server::new(&program, settings, address.0, move |report| eprintln!("isomorph: {name}: {report}"))
            .with_context(of)?;
        let description = Description::new("wasm", path.to_string_lossy());
        let controllable = Arc::new(ControllableServer { control: server.control(), clock: Clock::new() });
        let _session = Session::begin(place, description, controllable)?;
        eprintln!("isomorph: serving http://{}/", server.address()?);
        match server.run()? {}
    }
    let host = Host::new(cache()).with_context(of)?;
    let program = if is_snapshot(path) {
        Program::restore(&host, path)
    } else if settings.snapshot.is_some() {
        Program::load_for_snapshots(&host, path)
    } else {
        Program::load(&host, path)
    };
    let program = program.with_context(of)?;
    let name = program.name().to_owned();
    // What it took to come here is not what it takes to run. With one thread no other processor must be told.
    forget_text();
    let process = Process::new(program, settings)?;
    let controllable = Arc::new(Controllable { process, signal: AtomicI32::new(0) });
    let description = Description::new("wasm", path.to_string_lossy());
    let session = Session::begin(place, description, Arc::clone(&controllable) as Arc<dyn Controlled>)?;
    controllable.process.start()?;
    let reason = controllable.process.wait();
    session.end();
    match reason {
        StopReason::PowerOff(status) => Ok(ExitCode::from(status.to_le_bytes()[0])),
        StopReason::Requested => {
            // As shells have it, of a program that a signal has ended.
            let status = 128 + controllable.signal.load(Ordering::SeqCst);
            Ok(ExitCode::from(status.to_le_bytes()[0]))
        }
        StopReason::Fault(report) => bail!("{name}: {report}"),
    }
}
