//! The workloads. Their sources are in `workloads/c` and `workloads/java`, under the same names.

use serde::{Deserialize, Serialize};

/// Something that every engine does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Its name in programs and on the command line.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it is good for, in a phrase.
    pub what: &'static str,
    /// How much one iteration does: some milliseconds of native code.
    pub amount: u32,
    /// What it is about.
    pub kind: Kind,
    /// A rate that follows from the time of an iteration.
    pub rate: Option<Rate>,
}

/// What a workload is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Starting a program.
    Start,
    /// Computing.
    Processor,
    /// Memory.
    Memory,
    /// What the host's kernel does for a program.
    Host,
}

/// How many of something an iteration does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// So many.
    pub count: f64,
    /// What they are.
    pub unit: Unit,
}

/// The unit of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes a second.
    Bytes,
    /// The time of one.
    Each,
}

/// The workload that does nothing.
pub const STARTUP: &str = "startup";

const fn workload(
    name: &'static str,
    title: &'static str,
    what: &'static str,
    amount: u32,
    kind: Kind,
    rate: Option<Rate>,
) -> Workload {
    Workload { name, title, what, amount, kind, rate }
}

const fn bytes(count: f64) -> Option<Rate> {
    Some(Rate { count, unit: Unit::Bytes })
}

const fn each(count: f64) -> Option<Rate> {
    Some(Rate { count, unit: Unit::Each })
}

/// All workloads, in the order in which they are shown.
pub const WORKLOADS: &[Workload] = &[
    workload(STARTUP, "start-up", "a program that does nothing", 0, Kind::Start, None),
    workload("sieve", "prime sieve", "bytes stored with a stride", 1_000_000, Kind::Processor, None),
    workload("nbody", "n-body", "floating point, each step waiting for the last", 50_000, Kind::Processor, None),
    workload("matmul", "matrix product", "floating point, fit for vectors", 200, Kind::Processor, None),
    workload("sort", "sort", "branches that nobody predicts", 60_000, Kind::Processor, None),
    workload("hashmap", "hash map", "insert, look up, remove", 100_000, Kind::Processor, None),
    workload("sha256", "SHA-256", "shifts and additions", 12_000, Kind::Processor, bytes(12_000.0 * 64.0)),
    workload("json", "JSON", "a text parsed into a tree", 8_000, Kind::Processor, None),
    workload("regex", "regular expression", "backtracking over a text", 250_000, Kind::Processor, None),
    workload("bandwidth", "memory bandwidth", "48 MB streamed", 2_000_000, Kind::Memory, bytes(2_000_000.0 * 24.0)),
    workload("random", "random access", "a chain through 32 MiB", 200_000, Kind::Memory, each(200_000.0)),
    workload("syscalls", "system calls", "one byte read from a file", 10_000, Kind::Host, each(10_000.0)),
    workload("files", "file I/O", "4 MiB written and read, 16 small files", 256, Kind::Host, None),
    workload("tcp", "TCP round trips", "64 bytes there and back on loopback", 1_000, Kind::Host, each(1_000.0)),
];

/// The workload of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_a_source_in_each_language() {
        let table = include_str!("../workloads/c/table.h");
        let names: Vec<_> =
            table.lines().filter_map(|line| line.strip_prefix("WORKLOAD(")?.strip_suffix(')')).collect();
        let known: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        assert_eq!(names, known);
        let java = include_str!("../workloads/java/Main.java");
        for name in known {
            assert!(java.contains(&format!("case \"{name}\":")), "{name}");
        }
    }
}
