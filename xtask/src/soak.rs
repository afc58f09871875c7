//! `cargo xtask soak`: a Debian with four harts that compiles for as long as it is told to.
//!
//! The compiler comes from a sysroot on a second disk, so the guest needs no network. Every round each hart compiles a C source, and runs
//! what came of it, whose checksum is known from the host. The process's memory is looked at after every round. What must not be: a round that takes ten
//! times as long as the fastest (a hang), another checksum, or memory that grows beyond what guest memory and code cache together may have.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::guest::{Debian, Guest, build_isomorph, home, isomorph};
use crate::{run, setup, workspace};

/// Options of `cargo xtask soak`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// How many harts.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
}

/// What the guest has, in MiB.
const MEMORY_MIB: u32 = 1024;
/// What the process may have beside that, in MiB: the code cache, what is predecoded, and itself.
const BESIDE_MIB: f64 = 256.0;
/// The label of the disk with the compiler.
const LABEL: &str = "sysroot";
/// The program that is compiled, and what it includes.
const SOURCES: [&str; 2] = ["bench/riscv/sieve.c", "bench/riscv/check.h"];
/// The longest that a round may take, as a multiple of the fastest, and at least.
const SLOWEST: (u32, Duration) = (10, Duration::from_secs(600));

/// Compiles until the time is over.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::install_missing()?;
    build_isomorph()?;
    let debian = Debian::find_or_pull()?;
    let (disk, expected) = (disk()?, native()?);
    let mut command = debian.ours("soak", options.cpus, &format!("{MEMORY_MIB}M"));
    command.arg("--disk").arg(format!("{},readonly", disk.display()));
    let mut guest = Guest::start(&mut command)?;
    guest.log_in(debian.password())?;
    let soon = Duration::from_secs(300);
    guest.run(&format!("mount -o ro LABEL={LABEL} /mnt"), soon)?;
    // The compiler sees its own files where it looks for them; what it writes is in memory.
    guest.run("mount -t tmpfs none /mnt/tmp && for d in proc dev; do mount --bind /$d /mnt/$d; done", soon)?;
    for file in SOURCES {
        let text = std::fs::read_to_string(workspace::root().join(file)).with_context(|| format!("reading {file}"))?;
        let name = file.rsplit('/').next().unwrap_or(file);
        guest.run(&format!("cat > /mnt/tmp/{name} <<'END OF FILE'\n{text}\nEND OF FILE"), soon)?;
    }
    let round = format!(
        "cd /; for i in $(seq {}); do chroot /mnt /bin/sh -c \"cd /tmp && gcc -O2 -o sieve$i sieve.c && ./sieve$i\" & done; wait",
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
        if mib > f64::from(MEMORY_MIB) + BESIDE_MIB {
            bail!("the process has {mib:.0} MiB; its guest has {MEMORY_MIB}, and {BESIDE_MIB} are allowed beside");
        }
    }
    println!(
        "{rounds} rounds of {} compilations; the fastest took {:.1} s; at most {most_mib:.0} MiB resident",
        options.cpus,
        fastest.as_secs_f64()
    );
    Ok(())
}

/// A file system with the compiler and the source.
fn disk() -> Result<PathBuf> {
    run::run(isomorph().args(["image", "pull", "sysroot", "--with", "gcc,libc6-dev"]))?;
    let sysroot = home().join("sysroot");
    let folder = workspace::target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let disk = folder.join("sysroot.ext4");
    let _ = std::fs::remove_file(&disk);
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-L", LABEL, "-d"]).arg(&sysroot).arg(&disk).arg("2G");
    run::run(&mut command)?;
    Ok(disk)
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
