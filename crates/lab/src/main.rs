//! `lab differential`: random programs on Isomorph and on qemu, until the time is over or they differ.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use lab::differential::{self, Counts, DifferentialError};
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
    Differential {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Where the random numbers start; the same seed tries the same programs.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only the program that has this seed, as a report names it.
        #[arg(long, conflicts_with_all = ["seconds", "seed"], value_parser = number)]
        program: Option<u64>,
    },
}

fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16))
}

fn main() -> ExitCode {
    let Comparison::Differential { seconds, seed, program } = Cli::parse().comparison;
    let result = match program {
        Some(seed) => differential::one(seed).map(|()| "no difference".to_owned()),
        None => compare(seed, Duration::from_secs(seconds)),
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

fn compare(seed: u64, time: Duration) -> Result<String, DifferentialError> {
    let (clock, mut random, mut counts) = (Clock::new(), Random::new(seed), Counts::default());
    while u128::from(clock.now_ns()) < time.as_nanos() {
        differential::round(random.bits(), &mut counts)?;
    }
    let Counts { programs, steps } = counts;
    Ok(format!("no difference in {programs} programs, {steps} instructions of which were compared one by one"))
}
