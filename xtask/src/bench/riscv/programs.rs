//! The programs of the suite: C sources in `bench/riscv`, one that is generated, and any that the command line adds; built for both sides.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use riscv::isa::generate::Random;

use crate::{run, workspace};

/// The programs in `bench/riscv`, with whether their time is that of floating-point arithmetic.
const SOURCES: [(&str, bool); 12] = [
    ("core", false),
    ("interpreter", false),
    ("sha256", false),
    ("qsort", false),
    ("fib", false),
    ("nbody", true),
    ("stream", true),
    ("matmul", true),
    ("sieve", false),
    ("chase", false),
    ("memcpy", false),
    ("syscalls", false),
];
/// The program whose source is generated.
const COLD: &str = "cold";
/// The program that does nothing, whose time is that of a start.
pub(super) const HELLO: &str = "hello";
/// Bytes of source that `cold` has.
const COLD_SIZE: usize = 1_500_000;
/// How both sides are compiled. No contraction, so that both round alike and print the same.
const FLAGS: [&str; 5] = ["-std=gnu11", "-O2", "-ffp-contract=off", "-static", "-w"];

/// A program of the suite, built for both sides.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) float: bool,
    /// Prints the same on all sides; a program of somebody else may print its time.
    pub(super) repeats: bool,
    pub(super) native: PathBuf,
    pub(super) riscv: PathBuf,
}

/// A program that somebody else has built: `NAME=NATIVE,RISCV`.
#[derive(Clone, Debug)]
pub(super) struct Brought(Program);

impl std::str::FromStr for Brought {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, files)| Some((name, files.split_once(',')?)));
        let Some((name, (native, riscv))) = parts else { return Err("give NAME=NATIVE,RISCV".into()) };
        for file in [native, riscv] {
            if !Path::new(file).is_file() {
                return Err(format!("there is no file {file}"));
            }
        }
        Ok(Self(Program {
            name: name.into(),
            float: false,
            repeats: false,
            native: native.into(),
            riscv: riscv.into(),
        }))
    }
}

/// Builds the programs whose names `wanted` likes; those that are built already are left as they are.
pub(super) fn build(brought: &[Brought], wanted: impl Fn(&str) -> bool) -> Result<Vec<Program>> {
    let folder = workspace::target().join("bench/riscv");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut programs: Vec<_> = brought.iter().map(|brought| brought.0.clone()).collect();
    programs.retain(|program| wanted(&program.name));
    for (name, float) in SOURCES.into_iter().chain([(COLD, false), (HELLO, false)]).filter(|(name, _)| wanted(name)) {
        let source = if name == COLD {
            let path = folder.join("cold.c");
            write_if_changed(&path, &cold())?;
            path
        } else {
            workspace::root().join(format!("bench/riscv/{name}.c"))
        };
        let built = |compiler: &str, side: &str| compile(compiler, &source, folder.join(format!("{name}-{side}")));
        let (native, riscv) = (built("gcc", "native")?, built("riscv64-linux-gnu-gcc", "riscv64")?);
        programs.push(Program { name: name.into(), float, repeats: true, native, riscv });
    }
    if programs.is_empty() {
        let names: Vec<_> = SOURCES.iter().map(|(name, _)| *name).collect();
        bail!("no program is called so; there are: {}, {COLD}", names.join(", "));
    }
    Ok(programs)
}

fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Compiles `source` into `program` unless that is newer.
fn compile(compiler: &str, source: &Path, program: PathBuf) -> Result<PathBuf> {
    let age = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified());
    let header = workspace::root().join("bench/riscv/check.h");
    let newest = age(source).context("looking at a source")?.max(age(&header).context("looking at check.h")?);
    if age(&program).is_ok_and(|built| built > newest) {
        return Ok(program);
    }
    // Under another name first: a build that is interrupted must not pass for a program.
    let half = program.with_extension("half");
    let mut command = Command::new(compiler);
    command.args(FLAGS).arg("-o").arg(&half).arg(source).arg("-lm");
    run::run(&mut command)?;
    std::fs::rename(&half, &program).with_context(|| format!("writing {}", program.display()))?;
    Ok(program)
}

/// A program of many functions, each of which runs once: what a compiler that compiles everything at once is worst at.
fn cold() -> String {
    let mut random = Random::new(2026);
    let mut text = String::from("#include <stdint.h>\n#include <stdio.h>\n\nstatic uint64_t memory[256];\n\n");
    let mut count = 0;
    while text.len() < COLD_SIZE {
        function(&mut text, &mut random, count);
        count += 1;
    }
    text += "int main(void)\n{\n    uint64_t sum = 1;\n";
    for number in 0..count {
        let _ = writeln!(text, "    sum = f{number}(sum, {number});");
    }
    text += "    for (int i = 0; i < 256; i++)\n        sum = (sum ^ memory[i]) * 0x9e3779b97f4a7c15u;\n";
    text += "    printf(\"cold %016llx\\n\", (unsigned long long)sum);\n    return 0;\n}\n";
    text
}

/// One function, which no compiler may inline or specialise: statements on four variables, some under a condition, some in a short loop.
fn function(text: &mut String, random: &mut Random, number: u64) {
    let _ = writeln!(text, "__attribute__((noipa)) static uint64_t f{number}(uint64_t a, uint64_t b)\n{{");
    let _ = writeln!(text, "    uint64_t c = a ^ {:#x}u, d = b + {:#x}u;", random.bits(), random.bits());
    for _ in 0..10 + random.below(30) {
        let mut variable = || *random.choose(&["a", "b", "c", "d"]);
        let (x, y, z) = (variable(), variable(), variable());
        let (small, constant) = (1 + random.below(31), random.bits() >> random.below(60));
        let statement = match random.below(10) {
            0 => format!("{x} += {y} * {constant:#x}u;"),
            1 => format!("{x} ^= {y} >> {small};"),
            2 => format!("{x} = ({y} << {small} | {y} >> {}) - {z};", 64 - small),
            3 => format!("memory[{y} & 255] += {x};"),
            4 => format!("{x} ^= memory[{y} >> 8 & 255];"),
            5 => format!("if ({x} < {y}) {z} += {constant:#x}u; else {z} ^= {x};"),
            6 => format!("for (int i = 0; i < {}; i++) {x} = {x} * 5 + {y};", 1 + small % 3),
            7 => format!("{x} = {y} / ({z} >> 40 | 1);"),
            8 => format!("if ({x} & {}) {y} -= {z};", 1 << (small % 16)),
            _ => format!("{x} = {y} + {z} - {constant:#x}u;"),
        };
        let _ = writeln!(text, "    {statement}");
    }
    text.push_str("    return a + b + c + d;\n}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_in_the_suite_and_the_other_way_round() {
        let folder = workspace::root().join("bench/riscv");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_string_lossy().strip_suffix(".c").map(str::to_owned))
            .collect();
        files.sort();
        let mut known: Vec<_> = SOURCES.iter().map(|(name, _)| *name).chain([HELLO]).collect();
        known.sort_unstable();
        assert_eq!(files, known);
    }

    #[test]
    fn cold_code_is_large_and_the_same_each_time() {
        let text = cold();
        assert!(text.len() >= COLD_SIZE && text.len() < COLD_SIZE + 100_000);
        assert_eq!(text, cold());
        assert_eq!(text.matches("noipa").count(), text.matches("    sum = f").count());
    }

    #[test]
    fn a_program_of_somebody_else_needs_both_files() {
        assert!("x=/etc/passwd,/etc/passwd".parse::<Brought>().is_ok());
        assert!("x=/etc/passwd".parse::<Brought>().unwrap_err().contains("NAME="));
        assert!("x=/etc/passwd,/no/such/file".parse::<Brought>().unwrap_err().contains("/no/such/file"));
    }
}
