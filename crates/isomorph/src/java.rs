//! Java programs in this process: `isomorph java` takes what `java` takes and trusts the program as `java` does; `isomorph run app.jar` runs it in the
//! sandbox.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use image::ImageStore;
use jvm::launcher;
use jvm::sandbox::{self, Settings};
use machine::clock::Clock;
use machine::lifecycle::{IllegalTransition, State, Verb};
use machine::sys::fence::{self, Strength};
use machine::sys::process_time_ns;
use rustix::process::Signal;

use crate::cli::RunArgs;
use crate::control::{Asked, Controlled, Description, Figures, Place, Prepared, Session};

const USAGE: &str = "\
Usage: isomorph java [options] <mainclass> [args...]
   or  isomorph java [options] -jar <jarfile> [args...]
   or  isomorph java [options] -m <module>[/<mainclass>] [args...]
   or  isomorph java [options] <sourcefile> [args]
 where options are those of java, and
    --java-home <folder>  where the class library of JDK 17 is

Examples:
  isomorph java -cp classes Main one two
  isomorph java -Xmx512m -jar app.jar
  isomorph java Hello.java
  isomorph run app.jar        the same in a sandbox: see 'isomorph run --help'

The class library is that of ISOMORPH_JAVA_HOME, JAVA_HOME, java in PATH, /usr/lib/jvm, or 'isomorph image pull java'.";

/// Whether a file of this name is a Java program.
pub fn is_named(name: &str) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| ["jar", "class", "java"].iter().any(|known| extension == *known))
}

/// The Java program that the arguments name, if they do.
pub fn of(args: &RunArgs) -> Option<&Path> {
    args.image.as_deref().filter(|name| is_named(name)).map(Path::new)
}

/// Where `isomorph image pull java` puts the class library.
fn pulled() -> Option<PathBuf> {
    ImageStore::from_environment().ok().map(|store| store.java())
}

/// Runs the program in the sandbox, to its end.
///
/// # Errors
/// It is no program, or the machine cannot be started.
pub fn run(args: &RunArgs, path: &Path) -> Result<ExitCode> {
    ensure!(
        args.disks.is_empty() && args.publish.is_empty() && args.append.is_none(),
        "{} is a Java program, and takes no machine's flags",
        path.display()
    );
    ensure!(
        !args.repeat.is_asked_for(),
        "{} is a Java program: it reads the host's clock, so that its run cannot be repeated",
        path.display()
    );
    ensure!(
        !args.permissions.is_asked_for_by_webassembly(),
        "{} is a Java program: --volume, --invoke, --snapshot and --serve are for WebAssembly",
        path.display()
    );
    let permissions = args.permissions.permissions();
    let variables = args.permissions.variables()?;
    let settings = Settings {
        home: args.java_home.clone(),
        pulled: pulled(),
        permissions: permissions.clone(),
        variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        memory_bytes: args.memory.0,
    };
    let of = || format!("cannot run {}", path.display());
    let start = sandbox::prepare(path, &args.arguments, settings).with_context(of)?;
    // Behind the fence no socket is made.
    let prepared = Prepared::at(&Place::of(args.name.as_deref(), path.as_os_str()));
    let prepared = if args.name.is_some() { Some(prepared?) } else { prepared.ok() };
    match fence::raise(&permissions, &start.own).with_context(of)? {
        Strength::Full => {}
        Strength::Older => eprintln!(
            "isomorph: warning: this kernel's Landlock is old: its network is guarded by the virtual machine alone; see 'isomorph doctor'"
        ),
        Strength::NoFiles => eprintln!(
            "isomorph: warning: this kernel has no Landlock: files are guarded by the virtual machine alone; see 'isomorph doctor'"
        ),
    }
    let description = Description::new("java", path.to_string_lossy());
    let session =
        prepared.map(|prepared| Session::begin_prepared(prepared, description, Arc::new(Controllable::default())));
    let session = session.transpose()?;
    if let Some(seconds) = args.permissions.cpu_time {
        end_after(Duration::from_secs_f64(seconds), path.display().to_string())?;
    }
    let status = launcher::run(start.options, start.mode, &start.name, &start.arguments)?;
    drop(session);
    // Daemon threads end with the process.
    std::process::exit(status)
}

/// Ends this process, and the program in it, once it has used so much processor time.
fn end_after(limit: Duration, program: String) -> std::io::Result<()> {
    let watch = move || {
        loop {
            let rest = limit.saturating_sub(Duration::from_nanos(process_time_ns()));
            if rest.is_zero() {
                let seconds = limit.as_secs_f64();
                eprintln!(
                    "isomorph: {program}: it has used its {seconds} s of processor time; give it more with --cpu-time"
                );
                std::process::exit(1);
            }
            // It may run on all processors at once.
            let processors =
                std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
            std::thread::sleep((rest / processors).max(Duration::from_millis(1)));
        }
    };
    machine::sys::thread("cpu-time").spawn(watch).map(drop)
}

/// The program as verbs from outside meet it.
#[derive(Default)]
struct Controllable {
    is_held: AtomicBool,
    clock: Clock,
}

impl Controlled for Controllable {
    fn state(&self) -> State {
        if self.is_held.load(Ordering::SeqCst) { State::Paused } else { State::Running }
    }

    fn pause(&self) -> Result<(), IllegalTransition> {
        self.state().after(Verb::Pause)?;
        jvm::safepoint::hold_world();
        self.clock.pause();
        self.is_held.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn resume(&self) -> Result<(), IllegalTransition> {
        self.state().after(Verb::Resume)?;
        self.is_held.store(false, Ordering::SeqCst);
        self.clock.resume();
        jvm::safepoint::release_world();
        Ok(())
    }

    fn stop(&self) -> Result<Asked> {
        let _ = self.resume();
        signal(Signal::TERM)?;
        Ok(Asked::Told)
    }

    fn kill(&self) {
        // This process is there.
        let _ = signal(Signal::KILL);
    }

    fn snapshot(&self, _directory: &Path) -> Result<()> {
        bail!("there are no snapshots of Java programs")
    }

    fn figures(&self) -> Figures {
        Figures { time_ns: self.clock.now_ns(), ..Figures::default() }
    }
}

fn signal(signal: Signal) -> std::io::Result<()> {
    Ok(rustix::process::kill_process(rustix::process::getpid(), signal)?)
}

/// Runs `java` with these words behind it.
pub fn command(words: &[OsString]) -> Result<ExitCode> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if matches!(words.first().map(String::as_str), None | Some("--help" | "-help" | "-h" | "-?")) {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    // Daemon threads end with the process.
    std::process::exit(launcher::main(words, pulled().as_deref(), |name| {
        // One that cannot be controlled runs all the same.
        let place = Place::of(None, std::ffi::OsStr::new(name));
        Session::begin(place, Description::new("java", name), Arc::new(Controllable::default()))
    }))
}
