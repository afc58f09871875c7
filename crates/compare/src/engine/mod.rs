//! The engines: who does the work, how each is found, and how it is started.
//!
//! An engine is either a *process*, started anew for each run, or a *machine*, which is started once, and then told over its console what to do. The table
//! [`ENGINES`] has them all; whether this host has one is found out by using it.

mod machine;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::machine::clock::Clock;

use crate::program::{self, Folder};
use crate::workload::Workload;

/// What the command knows about itself and this host.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The command.
    pub isomorph: PathBuf,
    /// The folder of machine images, one folder an image.
    pub images: PathBuf,
    /// The subcommands that it has.
    pub commands: Vec<String>,
    /// Why KVM runs no operating system here, if it does not.
    pub no_kvm: Option<String>,
}

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The work.
    pub workload: &'static Workload,
    /// Iterations that are done whatever they take.
    pub iterations_min: u32,
    /// Iterations after which a run ends.
    pub iterations_max: u32,
    /// Time after which it ends otherwise.
    pub budget: Duration,
}

impl Job {
    /// The arguments of the program.
    fn words(&self) -> [String; 5] {
        [
            self.workload.name.into(),
            self.workload.amount.to_string(),
            self.iterations_min.to_string(),
            self.iterations_max.to_string(),
            self.budget.as_millis().to_string(),
        ]
    }

    /// After this long a run is no longer waited for.
    fn limit(&self) -> Duration {
        Duration::from_secs(60) + self.budget * 20
    }
}

/// What one run has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Nanoseconds from the start to the program's first word; none in a machine that was up already.
    pub start_ns: Option<u64>,
    /// What the program has computed, by iteration.
    pub checksums: Vec<u64>,
    /// Nanoseconds that each iteration took.
    pub iterations_ns: Vec<u64>,
    /// The most memory of the host's that was resident at once, in bytes.
    pub resident_bytes: Option<u64>,
}

/// Why there is no run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The user has had enough.
    #[error("interrupted")]
    Interrupted,
    /// It cannot be had here: a gap.
    #[error("{0}")]
    Absent(String),
    /// It went wrong: an error, unless it is a peer that did.
    #[error("{0}")]
    Wrong(String),
}

/// Time, and whether to stop.
#[derive(Clone, Debug)]
pub struct Watch {
    clock: Arc<Clock>,
    interrupted: Arc<AtomicBool>,
}

impl Watch {
    /// A watch that says stop when the flag is set.
    #[must_use]
    pub fn new(interrupted: Arc<AtomicBool>) -> Self {
        Self { clock: Arc::new(Clock::new()), interrupted }
    }

    /// Nanoseconds since this watch was made.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Whether the user has had enough.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// Which kind of machine an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// The host's processor itself.
    Native,
    /// Java.
    Java,
    /// WebAssembly.
    Wasm,
    /// A Linux program for another processor.
    Linux,
    /// A whole machine with another processor.
    System,
    /// A whole machine with the host's processor.
    Hypervisor,
}

/// An engine of the table.
#[derive(Clone, Copy)]
pub struct Engine {
    /// Its name on the command line and in records.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// A shorter one.
    pub short: &'static str,
    /// What kind of machine it is.
    pub family: Family,
    /// Whether it is Isomorph's.
    pub is_ours: bool,
    /// How it is started.
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The command, to which the program's arguments are added.
    Process(fn(&Installation, &Folder) -> Result<Command, Failure>),
    /// The command that boots the machine.
    Machine(fn(&Installation, &Folder) -> Result<Command, Failure>),
}

/// The engine that the others are compared with.
pub const NATIVE: &str = "native";

/// All engines, in the order in which they are shown.
pub const ENGINES: &[Engine] = &[
    engine(NATIVE, ("native code", "native"), Family::Native, false, Kind::Process(native)),
    engine("isomorph-java", ("Java on Isomorph", "Java, Isomorph"), Family::Java, true, Kind::Process(isomorph_java)),
    engine("java", ("Java on OpenJDK", "Java, OpenJDK"), Family::Java, false, Kind::Process(java)),
    engine(
        "isomorph-wasm",
        ("WebAssembly on Isomorph", "Wasm, Isomorph"),
        Family::Wasm,
        true,
        Kind::Process(isomorph_wasm),
    ),
    engine("node-wasm", ("WebAssembly on Node.js", "Wasm, Node.js"), Family::Wasm, false, Kind::Process(node_wasm)),
    engine(
        "isomorph-linux",
        ("riscv64 program on Isomorph", "program, Isomorph"),
        Family::Linux,
        true,
        Kind::Process(isomorph_linux),
    ),
    engine("qemu-linux", ("riscv64 program on qemu", "program, qemu"), Family::Linux, false, Kind::Process(qemu_linux)),
    engine(
        "isomorph-riscv64",
        ("riscv64 machine on Isomorph", "machine, Isomorph"),
        Family::System,
        true,
        Kind::Machine(isomorph_riscv64),
    ),
    engine(
        "qemu-riscv64",
        ("riscv64 machine on qemu", "machine, qemu"),
        Family::System,
        false,
        Kind::Machine(qemu_riscv64),
    ),
    engine(
        "isomorph-kvm",
        ("x86-64 machine on Isomorph", "KVM, Isomorph"),
        Family::Hypervisor,
        true,
        Kind::Machine(isomorph_kvm),
    ),
    engine("qemu-kvm", ("x86-64 machine on qemu", "KVM, qemu"), Family::Hypervisor, false, Kind::Machine(qemu_kvm)),
];

const fn engine(
    name: &'static str,
    (title, short): (&'static str, &'static str),
    family: Family,
    is_ours: bool,
    kind: Kind,
) -> Engine {
    Engine { name, title, short, family, is_ours, kind }
}

/// The engine of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Engine> {
    ENGINES.iter().find(|engine| engine.name == name)
}

/// An engine that works on this host.
pub struct Ready {
    /// Which it is.
    pub engine: &'static Engine,
    /// A machine that is up.
    machine: Option<machine::Session>,
}

impl Engine {
    /// Whether it is a machine, which is started once.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        matches!(self.kind, Kind::Machine(_))
    }

    /// Whether others have made it: a run that it breaks is a gap, no error of ours.
    #[must_use]
    pub fn is_peer(&self) -> bool {
        !self.is_ours && self.name != NATIVE
    }

    fn command(&self, installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
        let (Kind::Process(command) | Kind::Machine(command)) = self.kind;
        let mut command = command(installation, folder)?;
        command.current_dir(folder.work());
        Ok(command)
    }

    /// What its peer calls itself: the first line of its version.
    #[must_use]
    pub fn version(&self, installation: &Installation) -> Option<String> {
        let (program, flag) = match self.name {
            "java" => ("java".as_ref(), "-version"),
            "node-wasm" => ("node".as_ref(), "--version"),
            "qemu-linux" => ("qemu-riscv64".as_ref(), "--version"),
            "qemu-kvm" => ("qemu-system-x86_64".as_ref(), "--version"),
            "qemu-riscv64" => ("qemu-system-riscv64".as_ref(), "--version"),
            _ if self.is_ours => (installation.isomorph.as_path(), "--version"),
            _ => return None,
        };
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
    }

    /// Starts it once, to see whether it works here.
    ///
    /// # Errors
    /// It does not: [`Failure::Absent`].
    pub fn prepare(&'static self, place: &Place<'_>, job: Job) -> Result<(Ready, Run), Failure> {
        let mut ready = Ready { engine: self, machine: None };
        match ready.start(place, job) {
            Ok(run) => Ok((ready, run)),
            Err(Failure::Wrong(why)) => Err(Failure::Absent(why)),
            Err(failure) => Err(failure),
        }
    }
}

/// Where engines work.
pub struct Place<'a> {
    /// The command and its images.
    pub installation: &'a Installation,
    /// The programs.
    pub folder: &'a Folder,
    /// Time, and whether to stop.
    pub watch: &'a Watch,
}

impl Ready {
    /// Starts it anew: a program that does nothing, or a machine up to its first process. The machine stays up for what is run later.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn start(&mut self, place: &Place<'_>, job: Job) -> Result<Run, Failure> {
        let command = self.engine.command(place.installation, place.folder)?;
        if !self.engine.is_machine() {
            return process::run(command, &job, place.watch);
        }
        // The old one goes first: two at once would be slower than one.
        self.machine = None;
        let (session, boot) = machine::Session::boot(command, place.watch)?;
        let session = self.machine.insert(session);
        let run = session.run(&job, place.watch)?;
        Ok(Run { start_ns: boot.start_ns, resident_bytes: boot.resident_bytes, ..run })
    }

    /// Runs a workload.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn run(&mut self, place: &Place<'_>, job: Job) -> Result<Run, Failure> {
        if !self.engine.is_machine() {
            return self.start(place, job);
        }
        if self.machine.is_none() {
            let command = self.engine.command(place.installation, place.folder)?;
            self.machine = Some(machine::Session::boot(command, place.watch)?.0);
        }
        let Some(session) = &mut self.machine else { return Err(Failure::Wrong("the machine is gone".into())) };
        let result = session.run(&job, place.watch);
        if matches!(result, Err(Failure::Wrong(_) | Failure::Interrupted)) {
            // Nobody knows what it is busy with: the next run gets a new one.
            self.machine = None;
        }
        result
    }
}

fn native(_: &Installation, folder: &Folder) -> Result<Command, Failure> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Failure::Absent("the native programs are for x86-64, and this host is not".into()));
    }
    Ok(Command::new(folder.path(program::X86_64)))
}

fn java(_: &Installation, folder: &Folder) -> Result<Command, Failure> {
    let mut command = Command::new(on_path("java", "default-jre-headless")?);
    command.arg("-cp").arg(folder.path(program::JAR)).arg("Main");
    Ok(command)
}

fn isomorph_java(installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
    if !installation.commands.iter().any(|command| command == "java") {
        return Err(Failure::Absent("this Isomorph has no Java machine".into()));
    }
    let mut command = Command::new(&installation.isomorph);
    command.args(["java", "-cp"]).arg(folder.path(program::JAR)).arg("Main");
    Ok(command)
}

fn isomorph_wasm(installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
    let mut command = Command::new(&installation.isomorph);
    command.args(["run", "--allow-read=.", "--allow-write=."]).arg(folder.path(program::WASM));
    Ok(command)
}

fn node_wasm(_: &Installation, folder: &Folder) -> Result<Command, Failure> {
    let mut command = Command::new(on_path("node", "nodejs")?);
    command.arg("--no-warnings").arg(folder.path(program::NODE)).arg(folder.path(program::WASM));
    Ok(command)
}

fn isomorph_linux(installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
    let mut command = Command::new(&installation.isomorph);
    command.arg("run").arg(folder.path(program::RISCV64));
    Ok(command)
}

fn qemu_linux(_: &Installation, folder: &Folder) -> Result<Command, Failure> {
    let mut command = Command::new(on_path("qemu-riscv64", "qemu-user")?);
    command.arg(folder.path(program::RISCV64));
    Ok(command)
}

/// What machines of the workloads have: enough memory for the largest.
const MEMORY: &str = "512M";
/// Has the kernel be silent, start the workloads at once, and speak over the first serial port.
const ARGUMENTS: &str = "console=ttyS0 quiet loglevel=0 rdinit=/init panic=-1";

fn isomorph_riscv64(installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
    let kernel = kernel(installation, &["riscv64"], "debian")?;
    let disk = initial_ram_disk(folder, program::RISCV64)?;
    let mut command = Command::new(&installation.isomorph);
    command.args(["run", "--no-network", "--memory", MEMORY, "--append", ARGUMENTS]);
    command.arg("--kernel").arg(kernel).arg("--initrd").arg(disk);
    Ok(command)
}

fn qemu_riscv64(installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
    let qemu = on_path("qemu-system-riscv64", "qemu-system-riscv")?;
    let kernel = kernel(installation, &["riscv64"], "debian")?;
    let disk = initial_ram_disk(folder, program::RISCV64)?;
    let mut command = Command::new(qemu);
    command.args(["-M", "virt", "-m", MEMORY, "-nographic", "-no-reboot", "-append", ARGUMENTS]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(disk);
    Ok(command)
}

fn isomorph_kvm(installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
    runs_systems(installation)?;
    let kernel = kernel(installation, &X86_64, "debian:amd64")?;
    let disk = initial_ram_disk(folder, program::X86_64)?;
    let mut command = Command::new(&installation.isomorph);
    command.args(["run", "--no-network", "--memory", MEMORY, "--append", ARGUMENTS]);
    command.arg("--kernel").arg(kernel).arg("--initrd").arg(disk);
    Ok(command)
}

fn qemu_kvm(installation: &Installation, folder: &Folder) -> Result<Command, Failure> {
    runs_systems(installation)?;
    let qemu = on_path("qemu-system-x86_64", "qemu-system-x86")?;
    let kernel = kernel(installation, &X86_64, "debian:amd64")?;
    let disk = initial_ram_disk(folder, program::X86_64)?;
    let mut command = Command::new(qemu);
    command.args(["-enable-kvm", "-cpu", "host", "-m", MEMORY, "-nographic", "-no-reboot", "-append", ARGUMENTS]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(disk);
    Ok(command)
}

/// What images of the host's kind of processor say that they are for.
const X86_64: [&str; 3] = ["x86_64", "x86-64", "amd64"];

/// Whether the host's kernel runs machines with operating systems.
fn runs_systems(installation: &Installation) -> Result<(), Failure> {
    installation.no_kvm.clone().map_or(Ok(()), |why| Err(Failure::Absent(why)))
}

/// Whether the host's kernel runs machines.
pub(crate) fn has_kvm() -> Result<(), Failure> {
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return Err(Failure::Absent("this host has no KVM (/dev/kvm)".into()));
    }
    match fs::File::options().read(true).write(true).open(kvm) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Absent(format!("/dev/kvm: {error}; to use it, join the group kvm"))),
    }
}

/// The kernel of an image that is here and for a processor of one of these names.
fn kernel(installation: &Installation, processors: &[&str], image: &str) -> Result<PathBuf, Failure> {
    let is_for = |folder: &Path| {
        let manifest: Option<serde_json::Value> =
            fs::read(folder.join("manifest.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
        manifest.is_some_and(|manifest| processors.iter().any(|processor| manifest["kind"] == *processor))
    };
    let images = fs::read_dir(&installation.images).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut kernels: Vec<_> = images.filter(|folder| is_for(folder)).map(|folder| folder.join("kernel")).collect();
    kernels.sort();
    let found = kernels.into_iter().find(|kernel| kernel.is_file());
    found.ok_or_else(|| Failure::Absent(format!("needs a kernel; to get one: isomorph image pull {image}")))
}

fn initial_ram_disk(folder: &Folder, program: &str) -> Result<PathBuf, Failure> {
    let disk = program::initial_ram_disk(program::bytes(program));
    let name = format!("{program}.cpio");
    folder.write(&name, &disk).map_err(|error| Failure::Wrong(format!("cannot write {name}: {error}")))
}

/// A program of this host.
pub(crate) fn on_path(name: &str, package: &str) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| Failure::Absent(format!("there is no {name} on this host; Debian's package is {package}")))
}

/// Runs a program, with the job's arguments, to its end.
pub(crate) fn run_process(command: Command, job: &Job, watch: &Watch) -> Result<Run, Failure> {
    process::run(command, job, watch)
}

/// What a command prints up to a line "end"; it is not heard further.
pub(crate) fn lines_to_end(command: Command, watch: &Watch) -> Result<Vec<String>, Failure> {
    process::lines_to_end(command, watch)
}

/// Nanoseconds that a command takes from its start to its end.
pub(crate) fn time_to_end(command: Command, watch: &Watch) -> Result<u64, Failure> {
    process::time_to_end(command, watch)
}

/// A line `NAME CHECKSUM NANOSECONDS` of a program's.
fn iteration(line: &str, name: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (first, sum, time) = (words.next()?, words.next()?, words.next()?);
    if first != name || sum.len() != 16 || words.next().is_some() {
        return None;
    }
    Some((u64::from_str_radix(sum, 16).ok()?, time.parse().ok()?))
}

/// The most memory that a process has had resident, in bytes.
fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_native_is_first() {
        assert_eq!(ENGINES[0].name, NATIVE);
        let mut names: Vec<_> = ENGINES.iter().map(|engine| engine.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ENGINES.len());
    }

    #[test]
    fn lines_of_programs_are_told_from_others() {
        assert_eq!(iteration("sort 00000000000000ff 12", "sort"), Some((255, 12)));
        for other in
            ["ready", "sort 60000 3 200 300", "sieve 00000000000000ff 12", "sort 00000000000000ff", "sort zz 1"]
        {
            assert_eq!(iteration(other, "sort"), None, "{other}");
        }
    }

    #[test]
    fn a_kernel_is_found_by_its_processor() {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation {
            isomorph: "isomorph".into(),
            images: folder.path().into(),
            commands: Vec::new(),
            no_kvm: None,
        };
        let missing = kernel(&installation, &["riscv64"], "debian").unwrap_err().to_string();
        assert!(missing.ends_with("isomorph image pull debian"), "{missing}");
        for (name, kind) in [("a", "x86_64"), ("b", "riscv64")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("manifest.json"), format!("{{\"kind\": \"{kind}\"}}")).unwrap();
            fs::write(folder.path().join(name).join("kernel"), "").unwrap();
        }
        assert_eq!(kernel(&installation, &["riscv64"], "debian").unwrap(), folder.path().join("b/kernel"));
    }

    #[test]
    fn memory_of_processes_is_known() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
