//! What textbooks, course notes and vendors say of virtual machines, as data, beside what was measured here.
//!
//! Ranges are as they are stated, and several are dated, which is the point of measuring.

use crate::engine::NATIVE;
use crate::record::Record;
use crate::workload::{Kind, STARTUP, WORKLOADS};

/// In which unit a claim and its figure are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A part of native speed.
    Speed,
    /// A time, in nanoseconds.
    Time,
    /// Memory, in bytes.
    Memory,
}

/// A claim that a comparison can test.
#[derive(Clone, Copy)]
pub struct Claim {
    /// What it is about.
    pub about: &'static str,
    /// As it is stated.
    pub stated: &'static str,
    /// The range that it comes to.
    pub from: f64,
    /// The end of the range.
    pub to: f64,
    /// Its unit.
    pub unit: Unit,
    /// The engines that it is about, the first that was measured counts.
    pub engines: &'static [&'static str],
    figure: fn(&Record, &str) -> Option<f64>,
}

const MILLISECONDS: f64 = 1e6;
const SECONDS: f64 = 1e9;
const MB: f64 = 1e6;

/// Claims and how each is measured.
pub const CLAIMS: &[Claim] = &[
    claim("Java, compiled and warm", "80-95% of native speed, peak 95-105%", (0.8, 1.05), Unit::Speed, JAVA, steady),
    claim("Java, cold (the first iteration)", "10-20% of native speed", (0.1, 0.2), Unit::Speed, JAVA, cold),
    claim("Java's start-up", "1-3 s", (SECONDS, 3.0 * SECONDS), Unit::Time, JAVA, start),
    claim("a C program's start-up", "15 ms", (15.0 * MILLISECONDS, 15.0 * MILLISECONDS), Unit::Time, &[NATIVE], start),
    claim(
        "Java's memory, doing nothing",
        "70 MB (50-200 MB per VM)",
        (50.0 * MB, 200.0 * MB),
        Unit::Memory,
        JAVA,
        memory,
    ),
    claim("a C program's memory, doing nothing", "1 MB", (MB, MB), Unit::Memory, &[NATIVE], memory),
    claim("WebAssembly, warm", "95% of native speed or more", (0.95, 1.05), Unit::Speed, WASM, steady),
    claim("binary translation of a whole machine", "80-85% of native speed", (0.8, 0.85), Unit::Speed, SYSTEM, steady),
    claim("a machine with hardware help", "95-98% of native speed", (0.95, 0.98), Unit::Speed, KVM, steady),
    claim("a machine's start-up", "30-120 s", (30.0 * SECONDS, 120.0 * SECONDS), Unit::Time, SYSTEM, start),
    claim(
        "a machine's memory",
        "0.5-2 GB and 400 MB of the monitor",
        (500.0 * MB, 2400.0 * MB),
        Unit::Memory,
        SYSTEM,
        memory,
    ),
];

const JAVA: &[&str] = &["isomorph-java", "java"];
const WASM: &[&str] = &["isomorph-wasm", "node-wasm"];
const SYSTEM: &[&str] = &["isomorph-riscv64", "qemu-riscv64"];
const KVM: &[&str] = &["isomorph-kvm", "qemu-kvm"];

const fn claim(
    about: &'static str,
    stated: &'static str,
    (from, to): (f64, f64),
    unit: Unit,
    engines: &'static [&'static str],
    figure: fn(&Record, &str) -> Option<f64>,
) -> Claim {
    Claim { about, stated, from, to, unit, engines, figure }
}

/// Whether a workload computes, and does not ask the host for anything.
#[must_use]
pub fn is_computing(name: &str) -> bool {
    WORKLOADS.iter().any(|workload| workload.name == name && matches!(workload.kind, Kind::Processor | Kind::Memory))
}

fn steady(record: &Record, engine: &str) -> Option<f64> {
    record.mean_speed(engine, is_computing)
}

fn cold(record: &Record, engine: &str) -> Option<f64> {
    let workloads = record.workloads.iter().map(|workload| workload.name.as_str()).filter(|name| is_computing(name));
    crate::statistics::geometric_mean(workloads.filter_map(|name| record.cold_speed(name, engine)))
}

fn start(record: &Record, engine: &str) -> Option<f64> {
    Some(record.figure(STARTUP, engine)?.start_ns?.median)
}

fn memory(record: &Record, engine: &str) -> Option<f64> {
    Some(record.figure(STARTUP, engine)?.resident_bytes?.median)
}

/// How a figure stands to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the range, give or take a tenth.
    Holds,
    /// Better than claimed: faster, sooner, smaller.
    Better,
    /// Worse.
    Worse,
}

/// A claim with its figure.
#[derive(Clone, Copy)]
pub struct Tested {
    /// The claim.
    pub claim: &'static Claim,
    /// The engine that was measured.
    pub engine: &'static str,
    /// What was measured.
    pub value: f64,
    /// How it stands.
    pub verdict: Verdict,
}

/// The claims that a record says something about: one line an engine.
#[must_use]
pub fn tested(record: &Record) -> Vec<Tested> {
    let tested = |claim: &'static Claim| {
        claim.engines.iter().filter_map(move |engine| {
            let value = (claim.figure)(record, engine)?;
            Some(Tested { claim, engine, value, verdict: claim.verdict(value) })
        })
    };
    CLAIMS.iter().flat_map(tested).collect()
}

impl Claim {
    fn verdict(&self, value: f64) -> Verdict {
        const TOLERANCE: f64 = 1.1;
        let more_is_better = self.unit == Unit::Speed;
        if value < self.from / TOLERANCE {
            if more_is_better { Verdict::Worse } else { Verdict::Better }
        } else if value > self.to * TOLERANCE {
            if more_is_better { Verdict::Better } else { Verdict::Worse }
        } else {
            Verdict::Holds
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    #[test]
    fn claims_are_about_engines_that_there_are() {
        for claim in CLAIMS {
            assert!(claim.from <= claim.to, "{}", claim.about);
            assert!(claim.engines.iter().all(|name| engine::find(name).is_some()), "{}", claim.about);
        }
    }

    #[test]
    fn less_is_better_but_for_speed() {
        let speed = CLAIMS.iter().find(|claim| claim.unit == Unit::Speed).unwrap();
        assert_eq!(speed.verdict(0.5), Verdict::Worse);
        assert_eq!(speed.verdict(0.9), Verdict::Holds);
        assert_eq!(speed.verdict(1.5), Verdict::Better);
        let time = CLAIMS.iter().find(|claim| claim.about == "Java's start-up").unwrap();
        assert_eq!(time.verdict(0.05 * SECONDS), Verdict::Better);
        assert_eq!(time.verdict(9.0 * SECONDS), Verdict::Worse);
    }
}
