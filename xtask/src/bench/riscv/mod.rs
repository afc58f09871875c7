//! `cargo xtask bench riscv`: programs on the bare host, on Isomorph and on qemu, in one run.
//!
//! | part | native | ours | peer |
//! |---|---|---|---|
//! | user | gcc -O2 | `isomorph run ./program` | `qemu-riscv64` |
//! | system | gcc -O2 | inside Debian on `isomorph run debian` | inside the same Debian on `qemu-system-riscv64` |
//!
//! All sides of a program run one after the other in each round, so that a host that is busy for a while slows all of them; medians over the
//! rounds count. Each program prints a checksum, and all sides must print the same.

mod programs;
mod system;
mod user;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use super::Figure;
use programs::{Brought, HELLO, Program};

/// Options of `cargo xtask bench riscv`.
#[derive(Debug, Args)]
#[group(id = "riscv")]
pub(super) struct Options {
    /// riscv: measure Linux programs only.
    #[arg(long)]
    user: bool,
    /// riscv: measure system machines only.
    #[arg(long, conflicts_with = "user")]
    system: bool,
    /// riscv: measure only programs and workloads of these names.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// riscv: measure a program that is built already, too; repeat for more.
    #[arg(long = "program", value_name = "NAME=NATIVE,RISCV")]
    programs: Vec<Brought>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// The seconds that one thing took on each side, one for each round.
#[derive(Default)]
struct Times {
    native: Vec<f64>,
    ours: Vec<f64>,
    peer: Vec<f64>,
}

/// The medians of one program's times.
struct Measured {
    float: bool,
    native: f64,
    ours: f64,
    peer: f64,
}

impl Times {
    fn medians(&mut self, float: bool) -> Measured {
        Measured { float, native: median(&mut self.native), ours: median(&mut self.ours), peer: median(&mut self.peer) }
    }
}

/// Measures what the options say, printing each figure as soon as it is known.
pub(super) fn measure(options: &Options, rounds: u32, each: &mut dyn FnMut(&Figure)) -> Result<Vec<Figure>> {
    let programs = programs::build(&options.programs, |name| options.wants(name) || name == HELLO)?;
    let (starts, programs): (Vec<_>, Vec<_>) = programs.into_iter().partition(|program| program.name == HELLO);
    let mut figures = Vec::new();
    let mut keep = |figure: Figure| {
        each(&figure);
        figures.push(figure);
    };
    if !options.system {
        user::measure(options, &programs, starts.first(), rounds, &mut keep)?;
    }
    if !options.user {
        system::measure(options, &programs, rounds, &mut keep)?;
    }
    if figures.is_empty() {
        bail!("nothing is called {}", options.only.join(", "));
    }
    Ok(figures)
}

/// The middle of some numbers; of two in the middle, their mean.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

fn geometric_mean(ratios: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = ratios.fold((0.0, 0.0), |(sum, count), ratio| (sum + ratio.ln(), count + 1.0));
    if count > 0.0 { (sum / count).exp() } else { f64::NAN }
}

/// A program's figure.
fn figure(part: &str, program: &Program, measured: &Measured, peer_name: &'static str) -> Figure {
    let Measured { native, ours, peer, .. } = *measured;
    Figure {
        name: format!("{part} {}", program.name),
        unit: "s",
        ours,
        peer,
        peer_name,
        note: format!("native {native:.3} s; ours {:.2} of that, peer {:.2}", ours / native, peer / native),
    }
}

/// Geometric means of `measured` as multiples of the host's own time, with the targets beside: at most `of_native` times the host's time, and at most
/// `of_peer` of the peer's.
fn mean(name: &str, measured: &[&Measured], peer_name: &'static str, targets: &str) -> Option<Figure> {
    if measured.is_empty() {
        return None;
    }
    let ours = geometric_mean(measured.iter().map(|m| m.ours / m.native));
    let peer = geometric_mean(measured.iter().map(|m| m.peer / m.native));
    let worst = measured.iter().map(|m| m.ours / m.peer).fold(0.0, f64::max);
    let note = format!("geometric mean of {}; worst ratio {worst:.2}; {targets}", measured.len());
    Some(Figure { name: name.into(), unit: "x", ours, peer, peer_name, note })
}

/// Seconds that `work` takes, and its result.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let result = work()?;
    Ok((start.elapsed().as_secs_f64(), result))
}

/// The longest that one program may take.
const PROGRAM_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_means() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!((geometric_mean([1.0, 4.0, 16.0].into_iter()) - 4.0).abs() < 1e-12);
        assert!(geometric_mean(std::iter::empty()).is_nan());
    }
}
