//! `cargo xtask soak`: a Debian with four harts that compiles for as long as it is told to; `cargo xtask soak java`: a Java program that allocates,
//! starts threads and loads classes.
//!
//! The compiler comes from a sysroot on a second disk, so the guest needs no network. Every round each hart compiles a C source, and runs
//! what came of it, whose checksum is known from the host. The process's memory is looked at after every round. What must not be: a round that takes ten
//! times as long as the fastest (a hang), another checksum, or memory that grows beyond what guest memory and code cache together may have.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};

use crate::guest::compiler::{Compiler, ROOT};
use crate::guest::{Debian, Guest, build_isomorph, isomorph};
use crate::{run, setup, workspace};

/// Options of `cargo xtask soak`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What works.
    #[arg(value_enum, default_value_t)]
    guest: Working,
    /// How long.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// How many harts.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
}

/// What works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Working {
    /// Debian, with a compiler.
    #[default]
    Debian,
    /// A Java program.
    Java,
}

/// What the guest has, in MiB.
const MEMORY_MIB: u32 = 1024;
/// How much translated code is kept, in MiB.
const CODE_MIB: u32 = 64;

/// What the process may have beside that, in MiB: the code and what belongs to it (twice as much), what each hart has predecoded, and itself.
fn beside_mib(cpus: u32) -> u32 {
    3 * CODE_MIB + 96 * cpus + 16
}

/// The program that is compiled, and what it includes.
const SOURCES: [&str; 2] = ["bench/riscv/sieve.c", "bench/riscv/check.h"];
/// The longest that a round may take, as a multiple of the fastest, and at least.
const SLOWEST: (u32, Duration) = (10, Duration::from_secs(600));

/// Compiles until the time is over.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::install_missing()?;
    build_isomorph()?;
    if options.guest == Working::Java {
        return java(options.minutes * 60);
    }
    let debian = Debian::find_or_pull()?;
    let (compiler, expected) = (Compiler::pull()?, native()?);
    let mut command = debian.ours("soak", options.cpus, &format!("{MEMORY_MIB}M"));
    command.arg("--disk").arg(format!("{},readonly", compiler.disk.display()));
    command.arg("--code-cache").arg(format!("{CODE_MIB}M"));
    let mut guest = Guest::start(&mut command)?;
    guest.log_in(debian.password())?;
    let soon = Duration::from_secs(300);
    compiler.mount(&mut guest)?;
    for file in SOURCES {
        let text = std::fs::read_to_string(workspace::root().join(file)).with_context(|| format!("reading {file}"))?;
        let name = file.rsplit('/').next().unwrap_or(file);
        guest.run(&format!("cat > {ROOT}/tmp/{name} <<'END OF FILE'\n{text}\nEND OF FILE"), soon)?;
    }
    let round = format!(
        "cd /; for i in $(seq {}); do chroot {ROOT} /bin/sh -c \"cd /tmp && gcc -O2 -o sieve$i sieve.c && ./sieve$i\" & done; wait",
        options.cpus
    );
    let (start, mut rounds, mut fastest, mut first_mib) = (Instant::now(), 0_u32, SLOWEST.1, None);
    let mut most_mib: f64 = 0.0;
    while start.elapsed() < Duration::from_secs(options.minutes * 60) {
        let begun = Instant::now();
        let printed = guest.run(&round, (fastest * SLOWEST.0).max(SLOWEST.1))?;
        fastest = fastest.min(begun.elapsed());
        rounds += 1;
        let right = printed.lines().filter(|line| line.trim() == expected.trim()).count();
        if right != options.cpus as usize {
            bail!("round {rounds} printed {printed:?}; {expected:?} was expected {} times", options.cpus);
        }
        let mib = guest.resident_mib()?;
        let first = *first_mib.get_or_insert(mib);
        most_mib = most_mib.max(mib);
        println!(
            "round {rounds}: {:.1} s, {mib:.0} MiB resident ({:+.0} since the first), {:.0} s in all",
            begun.elapsed().as_secs_f64(),
            mib - first,
            start.elapsed().as_secs_f64()
        );
        let beside = beside_mib(options.cpus);
        if mib > f64::from(MEMORY_MIB + beside) {
            bail!("the process has {mib:.0} MiB; its guest has {MEMORY_MIB}, and {beside} are allowed beside");
        }
    }
    println!(
        "{rounds} rounds of {} compilations; the fastest took {:.1} s; at most {most_mib:.0} MiB resident",
        options.cpus,
        fastest.as_secs_f64()
    );
    Ok(())
}

/// The heap of the Java program, in MiB.
const JAVA_HEAP_MIB: u32 = 128;
/// What its process may grow by after the first minute, in MiB.
const JAVA_GROWTH_MIB: f64 = 32.0;
/// What its classes may grow by after the first minute, in KiB.
const JAVA_CLASSES_KIB: f64 = 512.0;
/// It says something every five seconds; silence for so long is a hang.
const JAVA_SILENCE: Duration = Duration::from_secs(60);

/// Runs `bench/java/Soak.java`, which checks what it does itself, and looks at what it says of its memory.
fn java(seconds: u64) -> Result<()> {
    let classes = crate::bench::java::classes()?;
    let mut command = isomorph();
    command.arg("java").arg(format!("-Xmx{JAVA_HEAP_MIB}m")).arg("-cp").arg(classes);
    let mut child = command.arg("Soak").arg(seconds.to_string()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no pipe")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let (mut first, mut last) = (None, (0.0, 0.0));
    let watched = loop {
        let line = match lines.recv_timeout(JAVA_SILENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => break Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => break Err(anyhow!("it has said nothing for {JAVA_SILENCE:?}")),
        };
        let words: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [time_s, threads, loaders, heap, resident, metadata] = words[..] else {
            break Err(anyhow!("it says {line:?}"));
        };
        println!(
            "{time_s} s: {threads} threads and {loaders} loaders ended, {heap} MiB of heap used, {resident} MiB resident, {metadata} KiB of classes"
        );
        if time_s >= 60.0_f64.min(seconds as f64 / 2.0) {
            let base: (f64, f64) = *first.get_or_insert((resident, metadata));
            last = (resident - base.0, metadata - base.1);
        }
    };
    if watched.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait()?;
    watched?;
    if !status.success() {
        bail!("the program ended with {status}");
    }
    let (resident, metadata) = last;
    if resident > JAVA_GROWTH_MIB || metadata > JAVA_CLASSES_KIB {
        bail!(
            "since its first minute the process has grown by {resident} MiB, {JAVA_GROWTH_MIB} are allowed; its classes by {metadata} KiB, \
             {JAVA_CLASSES_KIB} are allowed"
        );
    }
    println!("no growth ({resident:+} MiB, {metadata:+} KiB of classes since the first minute), no crash, no hang");
    Ok(())
}

/// What the program prints on the host.
fn native() -> Result<String> {
    let program = workspace::target().join("bench/soak-native");
    let mut command = Command::new("gcc");
    command.arg("-O2").arg("-o").arg(&program).arg(workspace::root().join(SOURCES[0]));
    run::run(&mut command)?;
    let output = Command::new(&program).output().context("running the native program")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
