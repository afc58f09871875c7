//! `cargo xtask test`: the whole truth about a change, cheapest checks first.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::run::{Counts, StepFailure, Steps, built_in_counts, run_and_watch};
use crate::{fuzz, kvm, readme, setup, tidy, workloads, workspace};

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out what takes minutes: real guests and fuzzing.
    #[arg(long)]
    quick: bool,
}

/// Seconds that each fuzz target runs here.
const FUZZ_SECONDS: u32 = 5;
/// Seconds that random programs are compared on all tiers here.
const TIERS_SECONDS: u32 = 120;

/// Runs all steps up to the first that fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    let result = take_steps(&mut steps, options);
    steps.print_summary();
    result
}

fn take_steps(steps: &mut Steps, options: &Options) -> Result<()> {
    steps.take("set-up", |_| {
        setup::install_missing()?;
        Ok(Counts::ONE_PASSED)
    })?;
    steps.command("format", workspace::cargo().args(["fmt", "--all", "--check"]))?;
    steps.take("tidy", |_| {
        tidy::run()?;
        Ok(Counts::ONE_PASSED)
    })?;
    let lint = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.command("clippy", workspace::cargo().args(lint))?;
    steps.take("tests", |closing_lines| nextest(closing_lines, options.quick))?;
    steps.take("prebuilt workloads", |_| {
        let passed = workloads::check()?;
        Ok(Counts { passed, failed: 0 })
    })?;
    steps.take("doc tests", |_| doc_tests())?;
    // Documentation is for who works on the code: private items have theirs, and links may lead to them.
    let mut documentation = workspace::cargo();
    documentation.args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    steps.command(
        "documentation",
        documentation.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
    )?;
    steps.take("README examples", |_| readme::run())?;
    if !options.quick {
        kvm::test(steps)?;
        steps.take("fuzz", |_| fuzz::run_all(FUZZ_SECONDS))?;
        steps.take("fuzz tiers", |_| {
            fuzz::compare("tiers", TIERS_SECONDS, 1)?;
            Ok(Counts::ONE_PASSED)
        })?;
    }
    Ok(())
}

/// Runs the tests of all crates, and of whole machines unless `quick`.
fn nextest(closing_lines: &mut Vec<String>, quick: bool) -> Result<Counts, StepFailure> {
    let mut command = workspace::cargo();
    command.args(["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]);
    command.args(["--profile", if quick { "quick" } else { "default" }]);
    let mut counts = Counts::default();
    let watched = run_and_watch(&mut command, |line| {
        if let Some(found) = nextest_counts(line) {
            counts = found;
            closing_lines.push(line.trim().to_owned());
        }
    });
    match watched {
        Ok(()) => Ok(counts),
        Err(cause) => Err(StepFailure::new(Counts { failed: counts.failed.max(1), ..counts }, cause)),
    }
}

/// The counts in nextest's closing line: `Summary [ 1.2s] 3 tests run: 2 passed, 1 failed, 0 skipped`.
fn nextest_counts(line: &str) -> Option<Counts> {
    let (_, counts) = line.trim().strip_prefix("Summary [")?.split_once("run: ")?;
    let mut found = Counts::default();
    for part in counts.split(", ") {
        let (number, what) = part.split_once(' ')?;
        let number: usize = number.parse().ok()?;
        match what.split_whitespace().next()? {
            "passed" => found.passed += number,
            "failed" | "timed" | "exec" => found.failed += number,
            _ => {}
        }
    }
    Some(found)
}

/// Runs the examples in documentation comments.
fn doc_tests() -> Result<Counts, StepFailure> {
    let mut counts = Counts::default();
    let mut command: Command = workspace::cargo();
    command.args(["test", "--locked", "--workspace", "--doc", "--quiet"]);
    run_and_watch(&mut command, |line| {
        if let Some(found) = built_in_counts(line) {
            counts.passed += found.passed;
            counts.failed += found.failed;
        }
    })
    .map_err(|cause| StepFailure::new(Counts { failed: counts.failed.max(1), ..counts }, cause))?;
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_understood() {
        let counts = |passed, failed| Some(Counts { passed, failed });
        assert_eq!(nextest_counts("     Summary [   0.010s] 12 tests run: 12 passed, 0 skipped"), counts(12, 0));
        assert_eq!(
            nextest_counts("Summary [ 0.1s] 12 tests run: 10 passed (1 slow), 2 failed, 3 skipped"),
            counts(10, 2)
        );
        assert_eq!(nextest_counts("Summary [ 9.1s] 3/4 tests run: 2 passed, 1 timed out, 3 skipped"), counts(2, 1));
        assert_eq!(nextest_counts("        PASS [   0.010s] machine bus::tests::routes"), None);
        assert_eq!(built_in_counts("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured"), counts(2, 0));
        assert_eq!(built_in_counts("test result: FAILED. 1 passed; 1 failed; 0 ignored"), counts(1, 1));
        assert_eq!(built_in_counts("running 2 tests"), None);
    }
}
