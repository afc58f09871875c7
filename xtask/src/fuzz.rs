//! `cargo xtask fuzz`: coverage-guided fuzzing on stable Rust; and random programs: `cargo xtask fuzz differential` against qemu,
//! `cargo xtask fuzz tiers` on the interpreter and the translator.
//!
//! The targets in `fuzz/targets` link libFuzzer and are built with LLVM's coverage counters, which is all that guided
//! fuzzing needs: no nightly compiler and no sanitiser. Debug assertions and overflow checks are on, so that a
//! wrong turn is a crash.
//!
//! What libFuzzer learns is kept in `target/fuzz/corpus` between runs; files in `fuzz/seeds/TARGET`, if any, are where it starts from. A
//! crash leaves its input in `target/fuzz/crashes`, and the message says how to run it again.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run::{Counts, StepFailure};
use crate::{run, setup, workspace};

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The target to fuzz; or `differential`: random programs on our hart and on qemu; or `tiers`: on the interpreter and the translator. All parsers,
    /// one after the other, if none is named.
    target: Option<String>,
    /// How long to fuzz each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// The same in minutes.
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..=10_080))]
    minutes: Option<u32>,
    /// Where the random numbers start; the same number tries the same inputs first.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Run one input, for example one that crashed before, instead of fuzzing.
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

/// The targets that are no parsers: comparisons of `lab`.
const COMPARISONS: [&str; 2] = ["differential", "tiers"];
/// What makes LLVM count the edges that run and show libFuzzer the operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";
/// Inputs get no longer than this.
const INPUT_BYTES_MAX: u32 = 1 << 16;
/// An input that takes longer than this counts as a hang.
const INPUT_SECONDS_MAX: u32 = 10;

/// Fuzzes what the options say.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::install_missing()?;
    let seconds = options.minutes.map_or(options.seconds, |minutes| minutes * 60);
    if let Some(name) = options.target.as_deref().filter(|name| COMPARISONS.contains(name)) {
        if options.input.is_some() {
            bail!("a program is named by its seed: cargo run --release -p lab -- {name} --program SEED");
        }
        return compare(name, seconds, options.seed);
    }
    let mut targets = targets()?;
    if let Some(wanted) = &options.target {
        if !targets.contains(wanted) {
            bail!("there is no fuzz target {wanted}; there are: {}, {}", targets.join(", "), COMPARISONS.join(", "));
        }
        targets.retain(|target| target == wanted);
    }
    let programs = build()?;
    for target in targets {
        if let Some(input) = &options.input {
            run::run(Command::new(programs.join(&target)).arg(input))?;
        } else {
            fuzz(&programs, &target, seconds, options.seed)?;
        }
    }
    Ok(())
}

/// Random programs, compared in the way called `name`; `lab` does it, optimised.
pub(crate) fn compare(name: &str, seconds: u32, seed: u32) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["run", "--locked", "--release", "--quiet", "--package", "lab", "--", name]);
    command.args([format!("--seconds={seconds}"), format!("--seed={seed}")]);
    run::run(&mut command)
}

/// Fuzzes every target for some seconds from the same seed: a part of `cargo xtask test`.
pub(crate) fn run_all(seconds: u32) -> Result<Counts, StepFailure> {
    let programs = build()?;
    let mut counts = Counts::default();
    for target in targets()? {
        fuzz(&programs, &target, seconds, 1)
            .map_err(|cause| StepFailure::new(Counts { failed: 1, ..counts }, cause))?;
        counts.passed += 1;
    }
    Ok(counts)
}

/// The names of the targets: one file each.
fn targets() -> Result<Vec<String>> {
    let folder = workspace::root().join("fuzz/targets");
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    Ok(targets)
}

/// Builds all targets with coverage; answers the folder with the programs.
fn build() -> Result<PathBuf> {
    let triple = workspace::host_triple()?;
    let folder = workspace::target().join("fuzz");
    let mut command = workspace::cargo();
    // With an explicit target, build scripts and procedural macros are built without the counters.
    command.args(["build", "--locked", "--package", "fuzz", "--bins", "--profile", "fuzz", "--target", &triple]);
    command.arg("--target-dir").arg(&folder).env("RUSTFLAGS", COVERAGE);
    run::run(&mut command)?;
    Ok(folder.join(triple).join("fuzz"))
}

fn fuzz(programs: &std::path::Path, target: &str, seconds: u32, seed: u32) -> Result<()> {
    println!("    fuzzing {target} for {seconds} s");
    let state = workspace::target().join("fuzz");
    let (corpus, crashes) = (state.join("corpus").join(target), state.join("crashes"));
    for folder in [&corpus, &crashes] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut command = Command::new(programs.join(target));
    command.arg(format!("-seed={seed}")).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}")).arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-artifact_prefix={}/{target}-", crashes.display()));
    command.arg(&corpus);
    let seeds = workspace::root().join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    // libFuzzer tells every new edge it finds; that is only worth showing if something broke.
    let output = command.output().with_context(|| format!("cannot start the fuzz target {target}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last: Vec<&str> = log.lines().collect();
        let last = last[last.len().saturating_sub(60)..].join("\n");
        bail!("{target} broke ({}):\n{last}\nrun it again with: cargo xtask fuzz {target} --input FILE", output.status);
    }
    let done =
        log.lines().rev().find(|line| line.starts_with("Done ")).context("libFuzzer did not say that it is done")?;
    println!("    {target}: {}", done.trim_start_matches("Done "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every target file is a binary of the package and the other way round.
    #[test]
    fn targets_are_declared() {
        let manifest = std::fs::read_to_string(workspace::root().join("fuzz/Cargo.toml")).unwrap();
        let mut declared: Vec<&str> =
            manifest.lines().filter_map(|line| line.strip_prefix("path = \"targets/")?.strip_suffix(".rs\"")).collect();
        declared.sort_unstable();
        assert_eq!(declared, targets().unwrap());
        assert!(!declared.is_empty());
    }
}
