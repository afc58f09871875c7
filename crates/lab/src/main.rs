//! `lab differential`: random programs on Isomorph and on qemu, until the time is over or they differ. `lab tiers`: the same on the
//! interpreter and the translator.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lab::differential::{self, Counts, DifferentialError};
use lab::tiers;
use machine::clock::Clock;
use riscv::isa::generate::Random;

/// Comparisons of Isomorph with other implementations.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    comparison: Comparison,
}

#[derive(Debug, Subcommand)]
enum Comparison {
    /// Runs random programs on Isomorph and on qemu-system-riscv64.
    Differential(Run),
    /// Runs random programs on the interpreter, on translated blocks and regions, and without each optimisation.
    Tiers(Run),
}

/// How long, and from where.
#[derive(Debug, Args)]
struct Run {
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the random numbers start; the same seed tries the same programs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the program that has this seed, as a report names it.
    #[arg(long, conflicts_with_all = ["seconds", "seed"], value_parser = number)]
    program: Option<u64>,
}

fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16))
}

fn main() -> ExitCode {
    let result = match Cli::parse().comparison {
        Comparison::Differential(run) => match run.program {
            Some(seed) => differential::one(seed).map(|()| "no difference".to_owned()),
            None => compare(&run),
        },
        Comparison::Tiers(run) => match run.program {
            Some(seed) => tiers::one(seed).map(|()| "no difference".to_owned()),
            None => compare_tiers(&run),
        },
    };
    match result {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(run: &Run) -> Result<String, DifferentialError> {
    let (clock, mut random, mut counts) = (Clock::new(), Random::new(run.seed), Counts::default());
    while u128::from(clock.now_ns()) < Duration::from_secs(run.seconds).as_nanos() {
        differential::round(random.bits(), &mut counts)?;
    }
    let Counts { programs, steps } = counts;
    Ok(format!("no difference in {programs} programs, {steps} instructions of which were compared one by one"))
}

fn compare_tiers(run: &Run) -> Result<String, DifferentialError> {
    let (clock, mut random, mut programs) = (Clock::new(), Random::new(run.seed), 0);
    while u128::from(clock.now_ns()) < Duration::from_secs(run.seconds).as_nanos() {
        programs += tiers::round(random.bits())?;
    }
    Ok(format!("no difference among tiers in {programs} programs"))
}
