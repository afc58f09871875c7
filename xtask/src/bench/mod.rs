//! `cargo xtask bench`: figures beside a named peer, measured in the same run on the same files.
//!
//! Every run appends one line to `bench/record.jsonl`: when, which commit, which host, and each figure with its peer's and their ratio. A ratio
//! below 1 means that Isomorph is the better. Figures of different hosts, or of a busy one, compare only by their ratios.

mod boot;
mod compute;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{run, setup, workspace};

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure; all, if nothing is named.
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// How often each time is taken; the least counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Print figures without appending them to the record.
    #[arg(long)]
    no_record: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Instructions a second of loops without an operating system: integers and memory, then floating point.
    Compute,
    /// Debian to its login prompt, and the memory that takes.
    Boot,
}

/// One thing measured, on both sides, in a unit of which less is better.
struct Figure {
    name: &'static str,
    unit: &'static str,
    ours: f64,
    peer: f64,
    /// Whom we compare with.
    peer_name: &'static str,
    /// More about it, for people.
    note: String,
}

impl Figure {
    fn ratio(&self) -> f64 {
        self.ours / self.peer
    }
}

/// Measures what the options say.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::install_missing()?;
    run::run(workspace::cargo().args(["build", "--locked", "--release", "--package", "isomorph"]))?;
    let benches = if options.benches.is_empty() { Bench::value_variants() } else { &options.benches };
    let mut figures = Vec::new();
    for bench in benches {
        let new = match bench {
            Bench::Compute => compute::measure(options.rounds)?,
            Bench::Boot => boot::measure(options.rounds)?,
        };
        for figure in &new {
            print(figure);
        }
        figures.extend(new);
    }
    if !options.no_record {
        record(&figures)?;
    }
    Ok(())
}

fn print(figure: &Figure) {
    let Figure { name, unit, ours, peer, peer_name, note } = figure;
    println!("{name:12} {ours:9.2} {unit:4} {peer_name} {peer:9.2} {unit:4} ratio {:.2}  {note}", figure.ratio());
}

/// The program, built for release, that keeps its images and machines where the tests do.
fn isomorph() -> Command {
    let mut command = Command::new(workspace::target().join("release/isomorph"));
    command.env("ISOMORPH_HOME", home());
    command
}

fn home() -> PathBuf {
    std::env::var_os("ISOMORPH_TEST_HOME").map_or_else(|| workspace::target().join("tmp/home"), PathBuf::from)
}

/// Appends one line to the record.
fn record(figures: &[Figure]) -> Result<()> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(workspace::root()).output();
    let commit = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let figures: Vec<_> = figures
        .iter()
        .map(|figure| {
            json!({
                "name": figure.name, "unit": figure.unit, "ours": figure.ours, "peer": figure.peer,
                "peer_name": figure.peer_name, "ratio": figure.ratio(), "note": figure.note,
            })
        })
        .collect();
    let line = json!({
        "time_s": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "commit": commit,
        "host": model.map_or("", |(_, model)| model),
        "processors_count": std::thread::available_parallelism().map_or(1, usize::from),
        "figures": figures,
    });
    let path = workspace::root().join("bench/record.jsonl");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.with_context(|| format!("opening {}", path.display()))?;
    writeln!(file, "{line}").with_context(|| format!("writing {}", path.display()))
}
