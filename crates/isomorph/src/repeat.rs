//! Runs that can be repeated, as the command line asks for them: `--deterministic`, `--record`, `--replay`, `--until`.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use anyhow::{Context, Result};
use machine::backend::{FrameSink, NetworkBackend};
use machine::clock::wall_time_ns;
use machine::lifecycle::{Machine, StopReason};
use machine::record::Reader;
use riscv::board::{Board, Input, RoundRobin, Schedule};

use crate::cli::RepeatArgs;

/// The wall clock of runs that nobody records: the beginning of 2026, in nanoseconds since 1970.
const EPOCH_NS: u64 = 1_767_225_600_000_000_000;
const SEED: u64 = 1;

impl RepeatArgs {
    /// When the machine's harts run. `paced`: it has a console or a network.
    ///
    /// # Errors
    /// The record cannot be made, or is none.
    pub fn schedule(&self, paced: bool) -> Result<Schedule> {
        if !self.is_asked_for() {
            return Ok(Schedule::Threads);
        }
        let seed = self.seed.unwrap_or(SEED);
        let live = |input, epoch_ns| RoundRobin { seed, epoch_ns, paced, input, until: self.until };
        let schedule = match (&self.record, &self.replay) {
            (_, Some(path)) => {
                let file = File::open(path).with_context(|| format!("cannot read the record {}", path.display()))?;
                let reader = Reader::new(Box::new(BufReader::new(file)))
                    .with_context(|| format!("cannot replay {}", path.display()))?;
                let setup = *reader.setup();
                RoundRobin { seed: setup.seed, ..live(Input::Replay(reader), setup.epoch_ns) }
            }
            (Some(path), None) => {
                let file =
                    File::create(path).with_context(|| format!("cannot write a record to {}", path.display()))?;
                live(Input::Record(Box::new(file)), wall_time_ns())
            }
            (None, None) => live(Input::Live, EPOCH_NS),
        };
        Ok(Schedule::RoundRobin(Box::new(schedule)))
    }

    /// Says where the machine has come to, if it was to stop somewhere.
    pub fn tell_end(&self, board: &Board, reason: &StopReason) {
        if *reason != StopReason::Requested || (self.replay.is_none() && self.until.is_none()) {
            return;
        }
        eprintln!("\r\nisomorph: stopped after {} instructions", board.stats().instructions_count);
        if self.until.is_none() {
            return;
        }
        for (line, (x, _)) in board.describe_harts().into_iter().zip(board.registers()) {
            eprintln!("{line}");
            for (row, registers) in x.chunks(4).enumerate() {
                let named = registers.iter().zip(4 * row..).map(|(value, number)| format!("x{number:<3}{value:016x}"));
                eprintln!("  {}", named.collect::<Vec<_>>().join("  "));
            }
        }
    }
}

/// The other end of the network in a replay: nobody. What the guest hears is in the record.
pub struct Unplugged;

impl NetworkBackend for Unplugged {
    fn send(&self, _frame: &[u8]) {}

    /// The record's holds.
    fn mtu(&self) -> u16 {
        0
    }

    fn attach(&self, _sink: Arc<dyn FrameSink>) {}

    fn ready(&self) {}
}
