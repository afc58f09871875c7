//! What virtual machines are made of, measured by itself: traps, address translation, devices, compilers, collectors.
//!
//! A mechanism of a whole machine is measured from inside, by a program without an operating system (`workloads/bare`) on Isomorph's riscv64 machine and on
//! qemu's, which have the same board; and what it costs to leave a KVM machine, by another. What a compiler or translator gains is measured by switching it off. A collector's pauses are in the Java machine's own log.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::{self, Failure, Job, Place, Run, on_path};
use crate::format;
use crate::program;
use crate::statistics::{Spread, geometric_mean, median, quantile};
use crate::workload;

/// In which unit a mechanism's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds for one.
    Nanoseconds,
    /// Cycles of the processor's for one.
    Cycles,
    /// Bytes a second.
    BytesPerSecond,
    /// So many times.
    Times,
}

impl Unit {
    /// A value in it, for people.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => format::time(value),
            Self::Cycles => format!("{value:.0} cycles"),
            Self::BytesPerSecond => format::rate(value),
            Self::Times => format!("{value:.0}x"),
        }
    }
}

/// A mechanism and its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mechanism {
    /// What is measured.
    pub title: String,
    /// What that is, and what is said of it.
    pub what: String,
    /// The values' unit.
    pub unit: Unit,
    /// The values.
    pub values: Vec<Value>,
}

/// The value of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Whose it is, for people.
    pub title: String,
    /// Whether that is Isomorph's.
    pub is_ours: bool,
    /// The value.
    pub value: Spread,
}

/// The name on the command line for all of them.
pub const MECHANISMS: &str = "mechanisms";

/// How often each is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Repetitions.
    pub rounds: u32,
    /// Time for a run of a workload.
    pub budget: Duration,
    /// When nothing further begins, from the start of the comparison.
    pub end: Duration,
}

/// Why something is missing on a slow host.
pub(crate) const NO_TIME: &str = "no time was left";

/// Why something is not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What it is.
    pub title: String,
    /// Why.
    pub why: String,
}

/// How many steps [`measure`] takes.
pub const STEPS: u64 = 8;

/// Measures all, telling `step` each time what comes next.
///
/// # Errors
/// [`Failure::Interrupted`], and nothing else: what cannot be measured is a gap.
pub fn measure(
    place: &Place<'_>,
    effort: Effort,
    found: &mut (Vec<Mechanism>, Vec<Gap>),
    step: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let (mechanisms, gaps) = found;
    let until_ns = u64::try_from(effort.end.as_nanos()).unwrap_or(u64::MAX);
    let mut begin = |title: &str| {
        step(title);
        if place.watch.now_ns() > until_ns { Err(Failure::Absent(NO_TIME.into())) } else { Ok(()) }
    };
    for (machines, of_machines) in [(&MACHINES, &BARE[..]), (&HYPERVISORS, &EXITS)] {
        let mut measured: Vec<(&Machine, Vec<Bare>)> = Vec::new();
        for machine in machines {
            let runs = begin(machine.title).and_then(|()| (0..effort.rounds).map(|_| machine.run(place)).collect());
            if let Some(runs) = kept(machine.title, runs, gaps)? {
                measured.push((machine, runs));
            }
        }
        if !measured.is_empty() {
            mechanisms.extend(of_machines.iter().map(|mechanism| mechanism.of(&measured)));
        }
    }
    let mut gains = Vec::new();
    for pair in &PAIRS {
        let gain = begin(pair.title).and_then(|()| pair.gain(place, effort));
        gains.extend(kept(pair.title, gain, gaps)?);
    }
    if !gains.is_empty() {
        mechanisms.push(Mechanism {
            title: "compiling against interpreting".into(),
            what: "how much faster the same machine is with its compiler on, least to most of three workloads; said to be 10 to 100 times".into(),
            unit: Unit::Times,
            values: gains,
        });
    }
    let taken = begin("snapshots").and_then(|()| snapshots(place, effort));
    if let Some(values) = kept("snapshots", taken, gaps)? {
        mechanisms.push(Mechanism {
            title: "snapshots".into(),
            what: "of a WebAssembly program with 64 MiB that are written everywhere, each from start to end of a process: \
                   without one, taking one, and going on from it, with its memory copied when it is written"
                .into(),
            unit: Unit::Nanoseconds,
            values,
        });
    }
    let stood_still = begin("collectors' pauses").and_then(|()| pauses(place, effort));
    if let Some(values) = kept("collectors' pauses", stood_still, gaps)? {
        mechanisms.push(Mechanism {
            title: "collectors' pauses".into(),
            what: "Java stands still while its collector works: median and longest; said to be below 10 ms, 0.1 to 1 s for a full one, below 1 ms for ZGC".into(),
            unit: Unit::Nanoseconds,
            values,
        });
    }
    Ok(())
}

/// A result, or nothing and a gap.
fn kept<T>(title: &str, result: Result<T, Failure>, gaps: &mut Vec<Gap>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Interrupted) => Err(Failure::Interrupted),
        Err(Failure::Absent(why) | Failure::Wrong(why)) => {
            gaps.push(Gap { title: title.into(), why });
            Ok(None)
        }
    }
}

/// A machine that runs the program without an operating system.
struct Machine {
    title: &'static str,
    is_ours: bool,
    command: fn(&Place<'_>) -> Result<Command, Failure>,
    /// What is added to have a network card, of virtio and emulated: a run each, as a machine has one of the two.
    cards: &'static [&'static [&'static str]],
}

const MACHINES: [Machine; 2] = [
    Machine {
        title: "riscv64 machine on Isomorph",
        is_ours: true,
        command: isomorph,
        cards: &[&["--nic", "virtio"], &["--nic", "e1000"]],
    },
    Machine {
        title: "riscv64 machine on qemu",
        is_ours: false,
        command: qemu,
        cards: &[&["-device", "virtio-net-device,netdev=n"], &["-device", "e1000,netdev=n"]],
    },
];

const HYPERVISORS: [Machine; 2] = [
    Machine { title: "x86-64 machine on Isomorph", is_ours: true, command: isomorph_kvm, cards: &[&[]] },
    Machine { title: "x86-64 machine on qemu", is_ours: false, command: qemu_kvm, cards: &[&[]] },
];

/// The disk that they read.
const DISK_BYTES: usize = 32 << 20;

fn disk(place: &Place<'_>) -> Result<std::path::PathBuf, Failure> {
    let path = place.folder.path("disk.raw");
    if !path.exists() {
        place.folder.write("disk.raw", &vec![0; DISK_BYTES]).map_err(|error| Failure::Absent(error.to_string()))?;
    }
    Ok(path)
}

fn isomorph(place: &Place<'_>) -> Result<Command, Failure> {
    let mut command = Command::new(&place.installation.isomorph);
    command.args(["run", "--memory", "128M", "--kernel"]).arg(place.folder.path(program::BARE));
    command.arg("--disk").arg(format!("{},readonly", disk(place)?.display()));
    Ok(command)
}

fn qemu(place: &Place<'_>) -> Result<Command, Failure> {
    let mut command = Command::new(on_path("qemu-system-riscv64", "qemu-system-riscv")?);
    command
        .args(["-M", "virt", "-m", "128M", "-nographic", "-no-reboot", "-netdev", "user,id=n", "-kernel"])
        .arg(place.folder.path(program::BARE));
    command.args(["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-blk-device,drive=d", "-drive"]);
    command.arg(format!("file={},format=raw,if=none,id=d,readonly=on", disk(place)?.display()));
    Ok(command)
}

fn isomorph_kvm(place: &Place<'_>) -> Result<Command, Failure> {
    engine::has_kvm()?;
    let mut command = Command::new(&place.installation.isomorph);
    command.args(["run", "--no-network", "--memory", "128M", "--kernel"]).arg(place.folder.path(program::EXITS));
    Ok(command)
}

fn qemu_kvm(place: &Place<'_>) -> Result<Command, Failure> {
    engine::has_kvm()?;
    let mut command = Command::new(on_path("qemu-system-x86_64", "qemu-system-x86")?);
    command.args(["-enable-kvm", "-cpu", "host", "-m", "128M", "-nographic", "-no-reboot", "-kernel"]);
    command.arg(place.folder.path(program::EXITS));
    Ok(command)
}

/// What a program has printed: nanoseconds or cycles for one, by name.
type Bare = Vec<(String, f64)>;

impl Machine {
    fn run(&self, place: &Place<'_>) -> Result<Bare, Failure> {
        let mut bare = Bare::new();
        for card in self.cards {
            let mut command = (self.command)(place)?;
            let lines = engine::lines_to_end(
                {
                    command.args(*card);
                    command
                },
                place.watch,
            )?;
            bare.extend(lines.iter().filter_map(|line| bare_line(line)));
        }
        Ok(bare)
    }
}

/// `NAME COUNT NANOSECONDS`, or cycles: the name, and those of one.
fn bare_line(line: &str) -> Option<(String, f64)> {
    let mut words = line.split_whitespace();
    let (name, count, time) = (words.next()?, words.next()?, words.next()?);
    let (count, time): (f64, f64) = (count.parse().ok()?, time.parse().ok()?);
    (BARE_NAMES.contains(&name) && count > 0.0).then(|| (name.to_owned(), time / count))
}

const BARE_NAMES: [&str; 11] = [
    "firmware",
    "device",
    "trap",
    "virtio-frame",
    "e1000-frame",
    "hit",
    "walk",
    "flush",
    "request",
    "stream",
    "kernel",
];

/// Bytes of a request of the stream.
const STREAM_BYTES: f64 = 262_144.0;
/// Bytes of a frame.
const FRAME_BYTES: f64 = 1514.0;

/// A mechanism that the program without an operating system measures.
struct BareMechanism {
    title: &'static str,
    what: &'static str,
    unit: Unit,
    /// From what the program has printed.
    value: fn(&Bare) -> f64,
}

const BARE: [BareMechanism; 9] = [
    BareMechanism {
        title: "call of the firmware",
        what: "out of the guest into the monitor and back; a VM exit is said to take 100 to 1,000 cycles",
        unit: Unit::Nanoseconds,
        value: |run| of_one(run, "firmware"),
    },
    BareMechanism {
        title: "read of a device register",
        what: "what full emulation pays for every access to a device",
        unit: Unit::Nanoseconds,
        value: |run| of_one(run, "device"),
    },
    BareMechanism {
        title: "exception inside the guest",
        what: "to the guest's own handler and back",
        unit: Unit::Nanoseconds,
        value: |run| of_one(run, "trap"),
    },
    BareMechanism {
        title: "walk of the page tables",
        what: "what a load costs more when its page is not in the translation cache; shadow tables are said to leave 70 to 80% of native speed, nested ones 95 to 98%",
        unit: Unit::Nanoseconds,
        value: |run| of_one(run, "walk") - of_one(run, "hit"),
    },
    BareMechanism {
        title: "flush of the translation cache",
        what: "and one load after it",
        unit: Unit::Nanoseconds,
        value: |run| of_one(run, "flush"),
    },
    BareMechanism {
        title: "virtio: a request of 512 bytes",
        what: "paravirtual: one register written, then shared memory; 8 accesses would pay for it by emulation",
        unit: Unit::Nanoseconds,
        value: |run| of_one(run, "request"),
    },
    BareMechanism {
        title: "virtio: reading a disk",
        what: "256 KiB at a time, out of the host's cache",
        unit: Unit::BytesPerSecond,
        value: |run| STREAM_BYTES / of_one(run, "stream") * 1e9,
    },
    BareMechanism {
        title: "virtio: sending to the network",
        what: "frames of 1,514 bytes, 32 at a time; said to reach 8.5 Gb/s on a line of 10",
        unit: Unit::BytesPerSecond,
        value: |run| FRAME_BYTES / of_one(run, "virtio-frame") * 1e9,
    },
    BareMechanism {
        title: "emulated card: sending to the network",
        what: "the same by an Intel 82540EM (e1000), of which every register is emulated; said to reach 1.2 Gb/s",
        unit: Unit::BytesPerSecond,
        value: |run| FRAME_BYTES / of_one(run, "e1000-frame") * 1e9,
    },
];

const EXITS: [BareMechanism; 2] = [
    BareMechanism {
        title: "exit of a KVM machine, to the kernel",
        what: "the cpuid instruction, which the hypervisor answers; said to take 100 to 1,000 cycles (far more in a machine inside a machine)",
        unit: Unit::Cycles,
        value: |run| of_one(run, "kernel"),
    },
    BareMechanism {
        title: "exit of a KVM machine, to its process",
        what: "a read of an emulated device's register: out to the monitor and back",
        unit: Unit::Cycles,
        value: |run| of_one(run, "device"),
    },
];

/// What the program has printed for a name; not a number if that is missing.
fn of_one(run: &Bare, name: &str) -> f64 {
    run.iter().find(|(found, _)| found == name).map_or(f64::NAN, |(_, ns)| *ns)
}

impl BareMechanism {
    fn of(&self, machines: &[(&Machine, Vec<Bare>)]) -> Mechanism {
        let values = machines.iter().filter_map(|(machine, runs)| {
            let numbers: Vec<f64> = runs.iter().map(self.value).filter(|number| number.is_finite()).collect();
            Some(Value { title: machine.title.into(), is_ours: machine.is_ours, value: Spread::of(&numbers)? })
        });
        Mechanism { title: self.title.into(), what: self.what.into(), unit: self.unit, values: values.collect() }
    }
}

/// The same engine with its compiler and without.
struct Pair {
    title: &'static str,
    is_ours: bool,
    command: fn(&Place<'_>, bool) -> Result<Command, Failure>,
}

const PAIRS: [Pair; 2] = [
    Pair { title: "riscv64 program on Isomorph", is_ours: true, command: translator },
    Pair { title: "Java on OpenJDK", is_ours: false, command: compiler },
];

/// What is done with and without.
const GAIN: [&str; 3] = ["sieve", "sort", "sha256"];

fn translator(place: &Place<'_>, compiles: bool) -> Result<Command, Failure> {
    let mut command = Command::new(&place.installation.isomorph);
    command.arg("run").args(if compiles { &[][..] } else { &["--engine", "interpreter"] });
    command.arg(place.folder.path(program::RISCV64));
    Ok(command)
}

fn compiler(place: &Place<'_>, compiles: bool) -> Result<Command, Failure> {
    let mut command = Command::new(on_path("java", "default-jre-headless")?);
    command.args(if compiles { &[][..] } else { &["-Xint"] });
    command.arg("-cp").arg(place.folder.path(program::JAR)).arg("Main");
    Ok(command)
}

impl Pair {
    /// How many times faster it is with its compiler: mean, least and most over some workloads.
    fn gain(&self, place: &Place<'_>, effort: Effort) -> Result<Value, Failure> {
        let mut gains = Vec::new();
        for workload in GAIN.iter().filter_map(|name| workload::find(name)) {
            let job = Job { workload, iterations_min: 2, iterations_max: 1000, budget: effort.budget };
            let [with, without] = [true, false].map(|compiles| {
                let mut command = (self.command)(place, compiles)?;
                command.current_dir(place.folder.work());
                engine::run_process(command, &job, place.watch).map(|run| steady(&run))
            });
            gains.push(without? / with?);
        }
        let mean = geometric_mean(gains.iter().copied()).unwrap_or(f64::NAN);
        let value = Spread { median: mean, low: quantile(&gains, 0.0), high: quantile(&gains, 1.0) };
        Ok(Value { title: self.title.into(), is_ours: self.is_ours, value })
    }
}

/// A program whose first function writes to every page of 64 MiB, and whose second goes on from what is there.
const SNAPSHOT: &str = r#"(module (memory (export "memory") 1024)
    (func (export "fill") (result i32) (local $at i32)
      (loop $pages
        (i32.store (local.get $at) (i32.const 1))
        (br_if $pages (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (i32.const 67108864))))
      (i32.load (i32.const 0)))
    (func (export "next") (result i32)
      (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
      (i32.load (i32.const 0))))"#;

/// What a snapshot costs to take, and to go on from.
fn snapshots(place: &Place<'_>, effort: Effort) -> Result<Vec<Value>, Failure> {
    let folder = place.folder.path("snapshot");
    let program = place
        .folder
        .write("snapshot.wat", SNAPSHOT.as_bytes())
        .map_err(|error| Failure::Wrong(format!("cannot write snapshot.wat: {error}")))?;
    let run = |arguments: &[&OsStr]| {
        let mut command = Command::new(&place.installation.isomorph);
        command.arg("run").args(arguments);
        engine::time_to_end(command, place.watch).map(|ns| ns as f64)
    };
    let [invoke, fill, next, take] = ["--invoke", "fill", "next", "--snapshot"].map(OsStr::new);
    let (folder, program) = (folder.as_os_str(), program.as_os_str());
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    // The first run compiles.
    run(&[invoke, fill, program])?;
    for _ in 0..effort.rounds {
        let _ = fs::remove_dir_all(folder);
        times[0].push(run(&[invoke, fill, program])?);
        times[1].push(run(&[invoke, fill, take, folder, program])?);
        times[2].push(run(&[invoke, next, folder])?);
    }
    let titles = ["no snapshot", "one is taken", "going on from it"];
    Ok(titles
        .into_iter()
        .zip(times)
        .filter_map(|(title, times)| Some(Value { title: title.into(), is_ours: true, value: Spread::of(&times)? }))
        .collect())
}

/// The median of a run's later half.
fn steady(run: &Run) -> f64 {
    let later = &run.iterations_ns[run.iterations_ns.len() / 2..];
    median(&later.iter().map(|ns| *ns as f64).collect::<Vec<_>>())
}

/// Collectors of OpenJDK, as its flags call them.
const COLLECTORS: [&str; 4] = ["Serial", "Parallel", "G1", "Z"];

/// Pauses of each collector that this Java has, while trees are built and dropped in a heap that is not much larger than what is kept.
fn pauses(place: &Place<'_>, effort: Effort) -> Result<Vec<Value>, Failure> {
    const GARBAGE: workload::Workload = workload::Workload { name: "garbage", amount: 4000, ..workload::WORKLOADS[0] };
    let log = place.folder.path("collector.log");
    let mut machines = Vec::new();
    let mut ours = Command::new(&place.installation.isomorph);
    ours.arg("java").arg(format!("-Xlog:gc:file={}:none", log.display()));
    machines.push(("Java on Isomorph".to_owned(), true, ours));
    // If there is no other Java, ours is alone.
    if let Ok(java) = on_path("java", "default-jre-headless") {
        for collector in COLLECTORS {
            let mut command = Command::new(&java);
            command.arg(format!("-Xlog:gc,gc+phases:file={}:none", log.display()));
            command.arg(format!("-XX:+Use{collector}GC"));
            machines.push((format!("OpenJDK, {collector}"), false, command));
        }
    }
    let mut values = Vec::new();
    for (title, is_ours, mut command) in machines {
        let _ = fs::remove_file(&log);
        command.args(["-Xms192m", "-Xmx192m", "-cp"]);
        command.arg(place.folder.path(program::JAR)).arg("Main").current_dir(place.folder.work());
        let job = Job { workload: &GARBAGE, iterations_min: 2, iterations_max: 100, budget: effort.budget };
        match engine::run_process(command, &job, place.watch) {
            Ok(_) => {}
            // Not every Java has every collector.
            Err(Failure::Absent(_) | Failure::Wrong(_)) => continue,
            Err(failure) => return Err(failure),
        }
        let text = fs::read_to_string(&log).unwrap_or_default();
        let pauses: Vec<f64> = text.lines().filter_map(pause_ns).collect();
        if !pauses.is_empty() {
            let value = Spread { median: median(&pauses), low: quantile(&pauses, 0.0), high: quantile(&pauses, 1.0) };
            values.push(Value { title, is_ours, value });
        }
    }
    if values.is_empty() {
        return Err(Failure::Absent("this Java tells nothing of its collectors".into()));
    }
    Ok(values)
}

/// The pause that a line of the log tells of: `GC(3) Pause Young (Normal) (G1 Evacuation Pause) 23M->3M(192M) 1.234ms`.
fn pause_ns(line: &str) -> Option<f64> {
    let (_, told) = line.split_once("Pause ")?;
    let milliseconds: f64 = told.rsplit(' ').next()?.strip_suffix("ms")?.parse().ok()?;
    Some(milliseconds * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_bare_program_are_read() {
        assert_eq!(bare_line("walk 1000 96000"), Some(("walk".into(), 96.0)));
        assert_eq!(bare_line("OpenSBI v1.1 x"), None);
        assert_eq!(bare_line("Boot HART 0"), None);
        let source = concat!(include_str!("../workloads/bare/mechanisms.c"), include_str!("../workloads/bare/exits.c"));
        for name in BARE_NAMES {
            assert!(source.contains(&format!("measure(\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn pauses_are_read_from_the_log() {
        let young = "GC(3) Pause Young (Normal) (G1 Evacuation Pause) 23M->3M(192M) 1.250ms";
        assert_eq!(pause_ns(young), Some(1.25e6));
        assert_eq!(pause_ns("GC(74) Concurrent Mark Cycle 55.180ms"), None);
        assert_eq!(pause_ns("GC(4) Pause Young (Concurrent Start)"), None);
    }
}
