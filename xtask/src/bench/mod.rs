//! `cargo xtask bench`: figures beside a named peer, measured in the same run on the same files.
//!
//! Every run appends one line to `bench/record.jsonl`: when, which commit, which host, and each figure with its peer's and their ratio. A ratio
//! below 1 means that Isomorph is the better. Figures of different hosts, or of a busy one, compare only by their ratios.

mod boot;
mod compute;
mod devices;
pub(crate) mod java;
mod riscv;
mod webassembly;

use std::io::Write;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::guest::{build_isomorph, isomorph};
use crate::{setup, workspace};

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure; all, if nothing is named.
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// How often each time is taken. Of loops and boots the least counts, of programs the median.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Print figures without appending them to the record.
    #[arg(long)]
    no_record: bool,
    #[command(flatten)]
    riscv: riscv::Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Instructions a second of loops without an operating system: integers and memory, then floating point.
    Compute,
    /// Debian to its login prompt, and the memory that takes.
    Boot,
    /// WebAssembly: starting a program, its memory, and requests answered by fresh instances.
    Wasm,
    /// Java: small programs, and the start of one with the memory that it takes.
    Java,
    /// Programs on the host, on Isomorph and on qemu, as Linux programs and inside Debian.
    Riscv,
    /// TCP streams out of Debian and into it: virtio, and e1000 beside it.
    Network,
    /// Random requests to virtio disks, from inside Debian.
    Disk,
}

/// One thing measured, on both sides, in a unit of which less is better.
struct Figure {
    name: String,
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
    build_isomorph()?;
    let benches = if options.benches.is_empty() { Bench::value_variants() } else { &options.benches };
    let mut figures = Vec::new();
    for bench in benches {
        let new = match bench {
            Bench::Compute => compute::measure(options.rounds)?,
            Bench::Boot => boot::measure(options.rounds)?,
            Bench::Wasm => webassembly::measure(options.rounds)?,
            Bench::Network => devices::network(options.rounds)?,
            Bench::Disk => devices::disk(options.rounds)?,
            Bench::Java => java::measure(options.rounds)?,
            Bench::Riscv => {
                // It takes long, so each figure is shown when it is there.
                figures.extend(riscv::measure(&options.riscv, options.rounds, &mut |figure| print(figure))?);
                continue;
            }
        };
        new.iter().for_each(print);
        figures.extend(new);
    }
    if !options.no_record {
        record(&figures)?;
    }
    Ok(())
}

fn print(figure: &Figure) {
    let Figure { name, unit, ours, peer, peer_name, note } = figure;
    println!("{name:18} {ours:9.3} {unit:4} {peer_name} {peer:9.3} {unit:4} ratio {:.2}  {note}", figure.ratio());
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
