//! `cargo xtask kvm`: what needs KVM, on the two routes that there are.
//!
//! *The host's* `/dev/kvm`, where it opens. *Nested*, always: qemu without acceleration is a processor with virtualization (AMD's, with nested paging), Debian's
//! kernel on it is a host, and our programs run there. What is not said to have succeeded has failed.
//!
//! ```text
//! qemu (TCG) -- Debian's kernel, busybox, kvm-amd.ko -- the tests' program, or `isomorph run`, and in it a guest
//! ```

mod debian;
mod firmware;
mod first;
mod machine;
mod second;
mod stress;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::first::First;
use self::stress::Amounts;
use crate::run::{Counts, StepFailure, Steps, built_in_counts, run_and_watch};
use crate::workspace;

/// Options of `cargo xtask kvm`.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Only what runs on the host's own /dev/kvm.
    #[arg(long)]
    host_only: bool,
    /// Boot the same guest on other monitors too, and compare.
    #[arg(long)]
    peers: bool,
    /// Boot the same guest on this Firecracker, too; with --peers, on one that is on the path.
    #[arg(long, value_name = "FILE")]
    firecracker: Option<PathBuf>,
    /// Tell what the guest's processors come out for, by reason, port and address, which takes time.
    #[arg(long)]
    exits: bool,
    /// Of the nested steps only those whose names contain this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Boot with this isomorph, in place of one that is built for tests: for figures, one that is built for use.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Write what the nested machines print to standard output.
    #[arg(long, short)]
    verbose: bool,
}

impl Options {
    /// Whether a step of this name is asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }
}

/// Nothing nested takes longer on a host that is not overloaded.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs all of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    let result = take_steps(&mut steps, options, Amounts::LONG).and_then(|()| {
        if options.host_only {
            return Ok(());
        }
        // Minutes of an emulated processor: not for every change.
        if options.wants("firmware") {
            steps.take("x86-64 machine with firmware, nested", |_| firmware::boot(options.verbose))?;
        }
        if options.wants("debian") {
            steps.take("debian:amd64, nested", |_| debian::boot(options.verbose))?;
        }
        Ok(())
    });
    steps.print_summary();
    result
}

fn take_steps(steps: &mut Steps, options: &Options, amounts: Amounts) -> Result<()> {
    crate::setup::install_missing()?;
    if options.wants("KVM") {
        let program = build_tests()?;
        steps.take("KVM of the host", |_| on_host(&program))?;
        if !options.host_only {
            steps.take("KVM nested", |_| nested(&program, options.verbose))?;
        }
    }
    if !options.host_only && options.wants("machine") {
        steps.take("x86-64 machine nested", |_| machine::boot(options))?;
    }
    if !options.host_only && options.wants("device stress") {
        steps.take("device stress nested", |_| stress::bear(options, amounts))?;
    }
    Ok(())
}

/// The steps of `cargo xtask test`.
pub(crate) fn test(steps: &mut Steps) -> Result<()> {
    take_steps(steps, &Options::default(), Amounts::SHORT)
}

/// Builds the tests of crate `x86` that need KVM; answers the program.
fn build_tests() -> Result<PathBuf> {
    let arguments = ["test", "--locked", "-p", "x86", "--test", "kvm", "--no-run", "--message-format=json"];
    let output = workspace::cargo().args(arguments).stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the tests of KVM do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = messages
        .filter(|message| message["target"]["name"] == "kvm" && message["reason"] == "compiler-artifact")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    program.context("cargo names no program of the tests of KVM")
}

fn on_host(program: &std::path::Path) -> Result<Counts, StepFailure> {
    let opens = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = opens {
        println!("    not run: /dev/kvm does not open here ({error}); the nested route follows");
        return Ok(Counts::default());
    }
    let mut counts = Counts::default();
    let result = run_and_watch(std::process::Command::new("timeout").args(["-k", "5", "300"]).arg(program), |line| {
        counts = closing_counts(line).unwrap_or(counts);
    });
    result.map_err(|cause| StepFailure::new(Counts { failed: counts.failed.max(1), ..counts }, cause))?;
    Ok(counts)
}

/// Prints the end of what a nested machine has printed.
fn tell_tail(output: &str) {
    let tail: Vec<_> = output.lines().rev().take(80).collect();
    tail.iter().rev().for_each(|line| println!("    | {line}"));
}

fn closing_counts(line: &str) -> Option<Counts> {
    built_in_counts(line.trim_start())
}

fn nested(program: &std::path::Path, verbose: bool) -> Result<Counts, StepFailure> {
    let mut first = First::new("tests")?;
    first.add_program(program, "tests")?;
    let start = Instant::now();
    let script =
        "tests --test-threads 2; rc=$?\necho \"NESTED-RESULT rc=$rc npt=$(cat /sys/module/kvm_amd/parameters/npt)\"";
    let output = first.run(script, LIMIT, verbose)?;
    let counts = output.lines().find_map(closing_counts).unwrap_or_default();
    if !output.lines().any(|line| line.trim() == "NESTED-RESULT rc=0 npt=Y") {
        tell_tail(&output);
        let cause = anyhow::anyhow!("the nested machine does not say NESTED-RESULT rc=0 npt=Y");
        return Err(StepFailure::new(Counts { failed: counts.failed.max(1), ..counts }, cause));
    }
    println!("    NESTED-RESULT rc=0 npt=Y after {:.1} s", start.elapsed().as_secs_f64());
    Ok(counts)
}
