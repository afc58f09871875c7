//! `cargo xtask workloads`: the one recipe for the guest programs that `isomorph compare` carries.
//!
//! They are committed, so that nobody needs compilers for other machines to build Isomorph. One clang builds the C sources for all machines,
//! without a C library; javac and jar build the Java archive. `--check`, which `cargo xtask test` runs too, builds them anew and compares: byte for byte where
//! the compilers are those that built what is committed, and otherwise by what they compute.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{run, workspace};

/// Options of `cargo xtask workloads`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Change nothing; fail if what is committed is not what the sources say.
    #[arg(long)]
    check: bool,
}

/// Builds the programs, and puts them where they are committed.
pub(crate) fn run(options: &Options) -> Result<()> {
    crate::setup::install_missing()?;
    if options.check {
        return check().map(|count| println!("{count} programs are what their sources say"));
    }
    let built = build()?;
    let to = committed();
    for name in PROGRAMS {
        copy(&built.join(name), &to.join(name))?;
        let bytes = fs::metadata(to.join(name)).context("looking at a program")?.len();
        println!("{name}: {bytes} bytes");
    }
    fs::write(to.join(COMPILERS), compilers()?).context("writing who built them")
}

/// The programs.
const PROGRAMS: [&str; 6] =
    ["workloads-x86_64", "workloads-riscv64", "workloads.wasm", "workloads.jar", "mechanisms-riscv64", "exits-x86_64"];
/// Names the compilers that built what is committed.
const COMPILERS: &str = "COMPILERS";
const CLANG: &str = "clang-19";

/// What all machines have in common: no C library, no contraction (so that all round alike), nothing in the file that tells who built it.
const FLAGS: [&str; 13] = [
    "-std=gnu11",
    "-O2",
    "-ffreestanding",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-ident",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-nostdlib",
    "-fuse-ld=lld",
];
const LINUX: [&str; 4] = ["-static", "-fno-pic", "-Wl,--build-id=none", "-Wl,-s"];
const X86_64: [&str; 1] = ["--target=x86_64-unknown-linux-gnu"];
const RISCV64: [&str; 5] =
    ["--target=riscv64-unknown-linux-gnu", "-march=rv64gc", "-mabi=lp64d", "-mno-relax", "-mcmodel=medany"];
/// Without vector registers, which nobody has switched on.
const X86_64_BARE: [&str; 4] = ["--target=x86_64-unknown-linux-gnu", "-mno-sse", "-mno-mmx", "-mno-red-zone"];
const WASM: [&str; 4] = ["--target=wasm32-unknown-unknown", "-Wl,--no-entry", "-Wl,-s", "-Wl,-z,stack-size=65536"];
const JAVAC: [&str; 6] = ["--release", "11", "-g:none", "-XDstringConcat=inline", "-Xlint:all,-options", "-Werror"];
/// A time for the files in the archive, so that it is the same each time.
const JAR_DATE: &str = "--date=2026-01-01T00:00:00Z";

fn sources() -> PathBuf {
    workspace::root().join("crates/compare/workloads")
}

fn committed() -> PathBuf {
    workspace::root().join("crates/compare/prebuilt")
}

/// Builds all into a folder.
fn build() -> Result<PathBuf> {
    let folder = workspace::target().join("workloads");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    compile(&folder.join(PROGRAMS[0]), &[&LINUX[..], &X86_64].concat(), "linux.c")?;
    compile(&folder.join(PROGRAMS[1]), &[&LINUX[..], &RISCV64].concat(), "linux.c")?;
    compile(&folder.join(PROGRAMS[2]), &WASM, "wasi.c")?;
    archive(&folder.join(PROGRAMS[3]), &folder.join("classes"))?;
    bare(&folder.join(PROGRAMS[4]), &RISCV64, "mechanisms")?;
    bare(&folder.join(PROGRAMS[5]), &X86_64_BARE, "exits")?;
    Ok(folder)
}

/// Builds a program that needs no operating system.
fn bare(program: &Path, flags: &[&str], name: &str) -> Result<()> {
    let source = sources().join("bare").join(name);
    let mut command = Command::new(CLANG);
    command.args(FLAGS).args(LINUX).args(flags).arg("-o").arg(program).arg(source.with_extension("c"));
    run::run(command.arg("-T").arg(source.with_extension("ld")))
}

/// Files of a folder with an extension, sorted.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

fn compile(program: &Path, flags: &[&str], host: &str) -> Result<()> {
    let mut sources = files(&sources().join("c"), "c")?;
    // One of the two that know a host.
    sources.retain(|file| file.ends_with(host) || !(file.ends_with("linux.c") || file.ends_with("wasi.c")));
    run::run(Command::new(CLANG).args(FLAGS).args(flags).arg("-o").arg(program).args(sources))
}

fn archive(jar: &Path, classes: &Path) -> Result<()> {
    let sources = files(&sources().join("java"), "java")?;
    run::run(Command::new("javac").args(JAVAC).arg("-d").arg(classes).args(sources))?;
    let mut command = Command::new("jar");
    command.args(["--create", "--main-class", "Main", JAR_DATE, "--file"]).arg(jar);
    for class in files(classes, "class")? {
        command.arg("-C").arg(classes).arg(class.file_name().unwrap_or_default());
    }
    run::run(&mut command)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("writing {}", to.display()))?;
    Ok(())
}

/// The compilers' versions.
fn compilers() -> Result<String> {
    let mut text = String::new();
    for (program, flag) in [(CLANG, "--version"), ("javac", "-version"), ("jar", "--version")] {
        let output = Command::new(program).arg(flag).output().with_context(|| format!("running {program}"))?;
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        let line = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned();
        // What a distribution adds says nothing of the code: "Debian clang version 19.1.7 (3~deb12u1)".
        let line = line.split(" (").next().unwrap_or_default().trim_start_matches("Debian ").trim().to_owned();
        text += &(line + "\n");
    }
    Ok(text)
}

/// Compares what is committed with what the sources say; answers how many programs there are.
pub(crate) fn check() -> Result<usize> {
    let (built, committed) = (build()?, committed());
    let known = fs::read_to_string(committed.join(COMPILERS)).context("reading who built the programs")?;
    let same_compilers = known == compilers()?;
    for name in PROGRAMS {
        let (new, old) = (built.join(name), committed.join(name));
        let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        if read(&new)? == read(&old)? {
            continue;
        }
        let advice = "build it anew with 'cargo xtask workloads' and commit it";
        ensure!(!same_compilers, "{name} is not what its sources say; {advice}");
        let (new, old) = (behaviour(name, &new)?, behaviour(name, &old)?);
        ensure!(new == old, "{name} does not compute what its sources say; {advice}:\n{old}\n{new}");
    }
    Ok(PROGRAMS.len())
}

/// What a program computes: all checksums of small amounts of work.
fn behaviour(name: &str, program: &Path) -> Result<String> {
    match name {
        "mechanisms-riscv64" => return mechanisms(program),
        // A host without KVM has nothing that could tell.
        "exits-x86_64" => return Ok(String::new()),
        _ => {}
    }
    const NAMES: [&str; 13] = [
        "startup",
        "sieve",
        "nbody",
        "matmul",
        "sort",
        "hashmap",
        "sha256",
        "json",
        "regex",
        "bandwidth",
        "random",
        "syscalls",
        "files",
    ];
    let mut text = String::new();
    for workload in NAMES {
        let mut command = match name {
            "workloads-riscv64" => Command::new("qemu-riscv64"),
            "workloads.wasm" => {
                let mut isomorph = Command::new(workspace::target().join("debug/isomorph"));
                isomorph.args(["run", "--allow-read=.", "--allow-write=."]);
                isomorph
            }
            "workloads.jar" => {
                let mut java = Command::new("java");
                java.arg("-jar");
                java
            }
            _ => Command::new("env"),
        };
        command.arg(program).args([workload, "1000", "1", "1", "1"]);
        let output = command.stdin(Stdio::null()).current_dir(workspace::target().join("workloads")).output();
        let output = output.with_context(|| format!("running {name}"))?;
        if !output.status.success() {
            bail!("{name} {workload}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let sum = printed.lines().find(|line| line.starts_with(workload)).and_then(|line| line.rsplit_once(' '));
        let (sum, _) = sum.with_context(|| format!("{name} {workload} printed no checksum"))?;
        text += &format!("{sum}\n");
    }
    Ok(text)
}

/// The names of the mechanisms that a program measures: all that repeats of it.
fn mechanisms(program: &Path) -> Result<String> {
    let mut command = Command::new("qemu-system-riscv64");
    command.args(["-M", "virt", "-m", "128M", "-nographic", "-no-reboot", "-kernel"]).arg(program);
    let output = command.stdin(Stdio::null()).output().context("running qemu-system-riscv64")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let (_, measured) = printed.split_once("ready").context("mechanisms-riscv64 does not start")?;
    ensure!(measured.contains("end"), "mechanisms-riscv64 does not come to its end");
    Ok(measured.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_has_its_sources() {
        for name in PROGRAMS {
            let bytes = fs::metadata(committed().join(name)).unwrap().len();
            assert!((4_000..100_000).contains(&bytes), "{name} has {bytes} bytes");
        }
        assert!(files(&sources().join("c"), "c").unwrap().len() >= 16);
        assert!(files(&sources().join("java"), "java").unwrap().len() >= 16);
    }
}
