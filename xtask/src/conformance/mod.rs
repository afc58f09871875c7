//! `cargo xtask conformance riscv DIR`, `... wasm DIR`, `... java DIR`: runs the tests of others on this project's machines.
//!
//! ```text
//! DIR/**/*.elf --load--> Test --run--> bare machine --tohost--> verdict --compare--> NAME.reference_output, if there is one
//! ```
//!
//! Any folder of RISC-V ELF files will do that report as the suites of RISC-V International do (see [`mod@test`]); what a test is called says
//! nothing about how it is run. Tests of WebAssembly: see [`webassembly`]; of Java: see [`java`]. A folder of the tree is a group in the summary.
//!
//! Tests run beside each other, [`Selection::jobs`] at a time; each is a machine of its own.

mod bare;
mod htif;
mod java;
mod signature;
mod test;
#[cfg(test)]
mod tests;
mod webassembly;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lab::tiers::{Tier, tiers};
use riscv::translate;

use crate::run::Counts;
use bare::Limits;
use test::{Found, Test};

/// A kind of machine and its suites.
#[derive(Debug, Subcommand)]
pub(crate) enum Kind {
    /// Run ELF files for bare RISC-V harts that report by `tohost`, or by a signature with a reference beside them.
    Riscv(Options),
    /// Run the WebAssembly specification's test scripts (.wast), and tests of WASI preview 1 (.wasm with a .json beside them).
    Wasm(Selection),
    /// Run OpenJDK's tests (a folder below a TEST.ROOT, by jtreg), or Maxine's JTT, on this project's Java machine and on `java`.
    Java(java::Options),
}

/// Which tests are run, and how.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// The folder with the tests; folders below it are searched too.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Run only tests whose path below DIR contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How many tests run at once; by default one for each processor of the host.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How long a test may take, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Print the results as one JSON document.
    #[arg(long)]
    json: bool,
}

/// Options of `cargo xtask conformance riscv`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// How many harts each machine has.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    cpus: u16,
    /// What executes guest code: the interpreter alone, or the translator by blocks, or by regions too. All code is translated at once.
    #[arg(long, value_enum, default_value_t = Engine::Region)]
    engine: Engine,
    /// Run with these optimisations switched off.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    disable: Vec<String>,
    /// Run everything in every tier, and with each optimisation off alone.
    #[arg(long, conflicts_with_all = ["engine", "disable", "json"])]
    matrix: bool,
}

/// A tier of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The interpreter.
    Interpreter,
    /// Translated basic blocks.
    Block,
    /// Translated loops and paths of several blocks.
    Region,
}

impl Options {
    /// The tier that the options ask for.
    fn tier(&self) -> Result<Tier> {
        let mut options = match self.engine {
            Engine::Interpreter => translate::Options::interpreter(),
            Engine::Block => translate::Options::block(),
            Engine::Region => translate::Options::default(),
        };
        options.threshold = 1;
        for name in &self.disable {
            options.set(&format!("no-{name}"))?;
        }
        let names: Vec<_> = self.disable.iter().map(|name| format!("no-{name}")).collect();
        Ok(Tier { name: names.join(" "), options })
    }
}

/// A test that did not pass.
struct Failure {
    test: String,
    reason: String,
}

/// What came of all tests.
#[derive(Default)]
struct Report {
    groups: BTreeMap<String, Counts>,
    failures: Vec<Failure>,
}

impl Report {
    fn add(&mut self, group: &str, failure: Option<Failure>) {
        let counts = self.groups.entry(group.to_owned()).or_default();
        match failure {
            None => counts.passed += 1,
            Some(failure) => {
                counts.failed += 1;
                self.failures.push(failure);
            }
        }
    }

    fn total(&self) -> Counts {
        self.groups.values().fold(Counts::default(), |sum, group| Counts {
            passed: sum.passed + group.passed,
            failed: sum.failed + group.failed,
        })
    }

    fn json(&self) -> serde_json::Value {
        let Counts { passed, failed } = self.total();
        let groups: BTreeMap<_, _> = self
            .groups
            .iter()
            .map(|(name, counts)| (name, serde_json::json!({ "passed": counts.passed, "failed": counts.failed })))
            .collect();
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|failure| serde_json::json!({ "test": failure.test, "reason": failure.reason }))
            .collect();
        serde_json::json!({ "passed": passed, "failed": failed, "groups": groups, "failures": failures })
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let width = self.groups.keys().map(String::len).max().unwrap_or(0);
        for (name, counts) in &self.groups {
            text += &format!("  {name:width$}  {:>5} passed, {} failed\n", counts.passed, counts.failed);
        }
        let Counts { passed, failed } = self.total();
        text + &format!("{passed} passed, {failed} failed")
    }
}

/// Runs the tests of a folder.
///
/// # Errors
/// A test failed, none was found, or the folder cannot be read.
pub(crate) fn run(kind: &Kind) -> Result<()> {
    let (report, json) = match kind {
        Kind::Riscv(options) if options.matrix => return run_matrix(options),
        Kind::Riscv(options) => (run_riscv(options, &options.tier()?)?, options.selection.json),
        Kind::Wasm(selection) => {
            webassembly::build()?;
            (webassembly::run(selection)?, selection.json)
        }
        Kind::Java(options) => (java::run(options)?, options.selection.json),
    };
    let Counts { passed, failed } = report.total();
    if json {
        println!("{:#}", report.json());
    } else {
        println!("{}", report.table());
    }
    if failed > 0 {
        bail!("{failed} of {} tests failed", passed + failed);
    }
    Ok(())
}

/// Runs all tests on all tiers.
fn run_matrix(options: &Options) -> Result<()> {
    let mut bad = Vec::new();
    for tier in tiers() {
        let Counts { passed, failed } = run_riscv(options, &tier)?.total();
        println!("{:16} {passed:>5} passed, {failed} failed", tier.name);
        if failed > 0 {
            bad.push(tier.name);
        }
    }
    if !bad.is_empty() {
        bail!("tests failed on: {}", bad.join(", "));
    }
    Ok(())
}

fn run_riscv(options: &Options, tier: &Tier) -> Result<Report> {
    let time = Duration::from_secs(options.selection.timeout);
    let limits = Limits { engine: tier.options, cpus: options.cpus, time };
    options.selection.run("RISC-V test ELF files", |file| attempt(file, limits))
}

impl Selection {
    /// Puts all files of the selection to `attempt`, which answers `None` for what is no test. `what` they are, if there are none.
    fn run(&self, what: &str, attempt: impl Fn(&Path) -> Option<Result<(), String>> + Sync) -> Result<Report> {
        let mut files = Vec::new();
        collect(&self.folder, &mut files)
            .with_context(|| format!("cannot read {}; give a folder with {what}", self.folder.display()))?;
        files.sort();
        let names = files.iter().map(|file| name_below(&self.folder, file));
        let wanted: Vec<_> = files
            .iter()
            .zip(names)
            .filter(|(_, name)| self.filter.as_ref().is_none_or(|text| name.contains(text.as_str())))
            .collect();
        let bar = ProgressBar::new(wanted.len() as u64).with_style(
            ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
        let work = || {
            while let Some((file, name)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                bar.set_message(name.clone());
                let outcome = attempt(file);
                bar.inc(1);
                let failure = match outcome {
                    None => continue,
                    Some(Ok(())) => None,
                    Some(Err(reason)) => Some(Failure { test: name.clone(), reason }),
                };
                if let Some(failure) = failure.as_ref().filter(|_| !self.json) {
                    bar.suspend(|| println!("FAILED {}: {}", failure.test, failure.reason));
                }
                report.lock().unwrap_or_else(PoisonError::into_inner).add(group_of(name), failure);
            }
        };
        let jobs = self.jobs.map_or_else(host_cpus, usize::from);
        std::thread::scope(|scope| {
            for _ in 1..jobs {
                scope.spawn(work);
            }
            work();
        });
        bar.finish_and_clear();

        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        if report.groups.is_empty() {
            let filtered =
                self.filter.as_ref().map_or_else(String::new, |text| format!(" whose path contains {text:?}"));
            bail!("{} has no {what}{filtered}", self.folder.display());
        }
        report.failures.sort_by(|a, b| a.test.cmp(&b.test));
        Ok(report)
    }
}

/// Runs the test in `file`. `None` if that is not a test, an error if it did not pass.
fn attempt(file: &Path, limits: Limits) -> Option<Result<(), String>> {
    Some(match Test::read(file) {
        Ok(Found::Test(test)) => bare::run(&test, limits).map_err(|failure| failure.to_string()),
        Ok(Found::SomethingElse) => return None,
        Err(reason) => Err(format!("{reason:#}")),
    })
}

fn host_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Adds all files in `folder` and below.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() || kind.is_symlink() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// What a test is called: its path below the folder.
fn name_below(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

/// The part of a test's name that is the summary's row.
fn group_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(".", |(folder, _)| folder)
}
