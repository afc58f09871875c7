//! Tests of Java virtual machines, run on this project's; what fails there is run on `java`, which says what can pass at all on this host.
//!
//! ```text
//! DIR below a TEST.ROOT   tests of OpenJDK: run by `jtreg`, which is given a Java home whose `java` is ours      [`jtreg`]
//! DIR with @Harness: java Maxine's JTT: `javac`, then Cases.java calls each class's `test` with its @Runs        [`jtt`]
//! ```
//!
//! A test that `java` does not pass here is left out of the counts, and told in the line before the summary.

mod jtreg;
mod jtt;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::{Failure, Report, Selection, group_of};
use crate::{run as runner, workspace};

/// Options of `cargo xtask conformance java`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// The Java home whose `java` is compared with; by default that of the `java` in PATH.
    #[arg(long, value_name = "DIR")]
    java_home: Option<PathBuf>,
    /// Options for our virtual machine, such as -Xmx1g.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    option: Vec<String>,
    /// Use this build of our machine instead of making one: crate jvm's example `java`, or, with `--option java`, the command isomorph. A `libjvm.so`
    /// beside it is used too.
    #[arg(long, value_name = "PATH")]
    machine: Option<PathBuf>,
    /// Go on with an earlier run of OpenJDK's tests: do not repeat those that have passed, or those that have any result.
    #[arg(long, value_enum, value_name = "WHICH")]
    keep: Option<Keep>,
}

/// Tests that are not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Keep {
    /// Those that passed.
    Passed,
    /// Those that passed or failed.
    Results,
}

/// What came of each test, by its name: nothing, or why it failed.
type Outcomes = BTreeMap<String, Option<String>>;

/// A virtual machine that tests are put to.
struct Machine<'a> {
    /// The program.
    java: PathBuf,
    /// What stands before all other arguments.
    options: &'a [String],
}

/// Runs what is selected on our machine, and what fails on `java`.
pub(super) fn run(options: &Options) -> Result<Report> {
    let built = std::path::absolute(workspace::target().join("debug/examples")).context("finding the target folder")?;
    let ours = options.machine.clone().unwrap_or_else(|| built.join("java"));
    let ours = std::path::absolute(&ours).with_context(|| format!("cannot find {}", ours.display()))?;
    let mut library = ours.with_file_name("libjvm.so");
    if options.machine.is_none() || !library.is_file() {
        runner::run(workspace::cargo().args(["build", "--locked", "--quiet", "--package", "jvm", "--examples"]))?;
        library = built.join("libjvm.so");
    }
    let home = options.java_home.clone().map_or_else(home, Ok)?;
    let folder = &options.selection.folder;
    let folder = folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?;
    let (expected, found) = match folder.ancestors().find(|ancestor| ancestor.join("TEST.ROOT").is_file()) {
        Some(root) => jtreg::run(options, &home, &ours, &library, root, &folder)?,
        None => jtt::run(options, &home, &ours, &folder)?,
    };
    Ok(compare(&options.selection, &expected, &found))
}

/// What is expected of the tests: those that our machine passed are counted without asking `java`, which was asked about the others.
fn expect(found: &Outcomes, mut told: Outcomes) -> Outcomes {
    told.extend(found.iter().filter(|(_, outcome)| outcome.is_none()).map(|(name, _)| (name.clone(), None)));
    told
}

/// Counts the tests that pass on `java`.
fn compare(selection: &Selection, expected: &Outcomes, found: &Outcomes) -> Report {
    let mut report = Report::default();
    let mut left_out = 0;
    for (name, outcome) in expected {
        if outcome.is_some() {
            left_out += 1;
            continue;
        }
        let failure = match found.get(name) {
            Some(None) => None,
            Some(Some(reason)) => Some(reason.clone()),
            None => Some("it was not run".to_owned()),
        };
        if let Some(reason) = failure.as_ref().filter(|_| !selection.json) {
            println!("FAILED {name}: {reason}");
        }
        report.add(group_of(name), failure.map(|reason| Failure { test: name.clone(), reason }));
    }
    if left_out > 0 && !selection.json {
        println!("{left_out} tests are left out, which java does not pass here either");
    }
    report
}

/// The home of the `java` in PATH.
fn home() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for folder in std::env::split_paths(&path) {
        if let Ok(java) = folder.join("java").canonicalize()
            && let Some(home) = java.parent().and_then(Path::parent)
            && home.join("bin/javac").is_file()
        {
            return Ok(home.to_path_buf());
        }
    }
    bail!("there is no JDK in PATH; `cargo xtask setup` installs one, or name it by --java-home")
}
