//! System machines: boots, and the suite's programs inside the same Debian on Isomorph and on qemu, both machines up at the same time.
//!
//! The programs come on a second disk, an ext4 file system that both machines get, and a compiler on a third. Times are the host's, from the moment that a command
//! is typed until its output is there: some milliseconds of console are in them on both sides.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Measured, Options, PROGRAM_MAX, Program, Times, figure, mean, median, timed};
use crate::bench::{Figure, boot};
use crate::guest::compiler::Compiler;
use crate::guest::{Debian, Guest};
use crate::{run, workspace};

const PEER: &str = "qemu-system-riscv64";
const MEMORY: &str = "1G";
/// The label of the second disk's file system.
const LABEL: &str = "bench";
/// Where it is mounted.
const MOUNT: &str = "/mnt";

/// The workload that needs a compiler.
const GCC: &str = "gcc";

/// Work that is no program of the suite, as a shell command; it must print the same on both machines.
const WORKLOADS: [(&str, &str, &str); 3] = [
    // Dependencies of all packages known, caches made anew.
    (
        "apt",
        "rm -rf /var/cache/apt/*.bin && apt-cache gencaches && apt-get check -q && apt-cache dumpavail | sha256sum",
        "0.7",
    ),
    // A package of a thousand files built, installed, verified and removed.
    (
        "dpkg",
        "rm -rf /tmp/p && mkdir -p /tmp/p/DEBIAN /tmp/p/opt/b && cp -a /usr/share/zoneinfo /usr/share/terminfo /usr/lib/systemd /tmp/p/opt/b 2> /dev/null; \
         printf 'Package: bench\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDescription: none\\n' > /tmp/p/DEBIAN/control && \
         dpkg-deb -Zxz -z3 -b /tmp/p /tmp/p.deb > /dev/null && dpkg -i /tmp/p.deb > /dev/null && dpkg -V bench && \
         dpkg -P bench > /dev/null && dpkg -l | wc -l",
        "0.7",
    ),
    // Debian's compiler makes the suite.
    (
        GCC,
        "rm -rf /srv/tmp/suite && cp -r /mnt/sources /srv/tmp/suite && \
         chroot /srv /bin/sh -c 'cd /tmp/suite && for f in *.c; do gcc -O2 -c $f || exit; done; cat *.o | sha256sum'",
        "0.7",
    ),
];

pub(super) fn measure(
    options: &Options,
    programs: &[Program],
    rounds: u32,
    keep: &mut dyn FnMut(Figure),
) -> Result<()> {
    let debian = Debian::find_or_pull()?;
    for cpus in [1, 4] {
        if options.wants("boot") {
            boots(&debian, cpus, rounds, keep)?;
        }
    }
    let workloads: Vec<_> = WORKLOADS.iter().filter(|(name, ..)| options.wants(name)).collect();
    if programs.is_empty() && workloads.is_empty() {
        return Ok(());
    }
    let compiler = if options.wants(GCC) { Some(Compiler::pull()?) } else { None };
    let disk = disk(programs)?;
    let mut ours = debian.ours("bench-riscv", 1, MEMORY);
    let mut peer = debian.qemu(1, MEMORY);
    for (id, disk) in std::iter::once(&disk).chain(compiler.as_ref().map(|compiler| &compiler.disk)).enumerate() {
        ours.arg("--disk").arg(format!("{},readonly", disk.display()));
        peer.arg("-drive").arg(format!("file={},format=raw,if=none,id=b{id},readonly=on", disk.display()));
        peer.arg("-device").arg(format!("virtio-blk-device,drive=b{id}"));
    }
    let (mut ours, mut peer) = (ready(&mut ours, &debian)?, ready(&mut peer, &debian)?);
    if let Some(compiler) = &compiler {
        compiler.mount(&mut ours)?;
        compiler.mount(&mut peer)?;
    }
    let mut all: Vec<Measured> = Vec::new();
    for program in programs {
        let times = &mut Times::default();
        for _ in 0..rounds.max(1) {
            once(program, &mut ours, &mut peer, times)?;
        }
        let measured = times.medians(program.float);
        keep(figure("system", program, &measured, PEER));
        all.push(measured);
    }
    let refs: Vec<&Measured> = all.iter().collect();
    for figure in [mean("system mean", &refs, PEER, "target: ratio 0.5")].into_iter().flatten() {
        keep(figure);
    }
    for (name, command, target) in workloads {
        let mut times = Times::default();
        for _ in 0..rounds.max(1) {
            let (our_time, our_text) = timed(|| ours.run(command, PROGRAM_MAX))?;
            let (peer_time, peer_text) = timed(|| peer.run(command, PROGRAM_MAX))?;
            if our_text != peer_text {
                bail!("{name} printed {our_text:?} on ours and {peer_text:?} on {PEER}");
            }
            times.ours.push(our_time);
            times.peer.push(peer_time);
        }
        let note = format!("target: ratio {target}");
        let (ours, peer) = (median(&mut times.ours), median(&mut times.peer));
        keep(Figure { name: format!("system {name}"), unit: "s", ours, peer, peer_name: PEER, note });
    }
    Ok(())
}

/// Boots to the login prompt, by turns.
fn boots(debian: &Debian, cpus: u32, rounds: u32, keep: &mut dyn FnMut(Figure)) -> Result<()> {
    let mut times = Times::default();
    for _ in 0..rounds.max(1) {
        times.ours.push(boot::boot(&mut debian.ours("bench-boot", cpus, MEMORY))?.0);
        times.peer.push(boot::boot(&mut debian.qemu(cpus, MEMORY))?.0);
    }
    let (ours, peer) = (median(&mut times.ours), median(&mut times.peer));
    let note = format!("to the login prompt, {cpus} processors; target: ratio 0.8");
    keep(Figure { name: format!("system boot {cpus}"), unit: "s", ours, peer, peer_name: PEER, note });
    Ok(())
}

/// A machine that is logged in and has the programs.
fn ready(command: &mut Command, debian: &Debian) -> Result<Guest> {
    let mut guest = Guest::start(command)?;
    guest.log_in(debian.password())?;
    // What the boot has left to do is not what is measured.
    guest.run("systemctl is-system-running --wait > /dev/null; true", PROGRAM_MAX)?;
    guest.run(&format!("mount -o ro LABEL={LABEL} {MOUNT}"), PROGRAM_MAX)?;
    Ok(guest)
}

/// A file system with the programs and their sources.
fn disk(programs: &[Program]) -> Result<PathBuf> {
    let folder = workspace::target().join("bench/disk");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for program in programs {
        let to = folder.join(&program.name);
        std::fs::copy(&program.riscv, &to).with_context(|| format!("writing {}", to.display()))?;
    }
    let sources = folder.join("sources");
    std::fs::create_dir(&sources).with_context(|| format!("making {}", sources.display()))?;
    for entry in std::fs::read_dir(workspace::root().join("bench/riscv")).context("reading bench/riscv")? {
        let entry = entry?;
        std::fs::copy(entry.path(), sources.join(entry.file_name())).context("copying a source")?;
    }
    let disk = folder.with_extension("ext4");
    let _ = std::fs::remove_file(&disk);
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-L", LABEL, "-d"]).arg(&folder).arg(&disk).arg("64M");
    run::run(&mut command)?;
    Ok(disk)
}

/// Runs a program once on the host and once on each machine.
fn once(program: &Program, ours: &mut Guest, peer: &mut Guest, times: &mut Times) -> Result<()> {
    let inside = format!("{MOUNT}/{}", program.name);
    let native = || Ok(Command::new(&program.native).output().context("running a program")?.stdout);
    let (seconds, expected) = timed(native)?;
    times.native.push(seconds);
    for (guest, times) in [(ours, &mut times.ours), (peer, &mut times.peer)] {
        let (seconds, printed) = timed(|| guest.run(&inside, PROGRAM_MAX))?;
        if program.repeats && printed.as_bytes() != expected {
            bail!(
                "{} printed {printed:?} in a guest, but {:?} on the host",
                program.name,
                String::from_utf8_lossy(&expected)
            );
        }
        times.push(seconds);
    }
    Ok(())
}
