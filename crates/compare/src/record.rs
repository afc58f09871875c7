//! What was measured, as it is kept: one JSON document that a report is made from, and two of which can be compared.

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Family, NATIVE, Run};
use crate::format;
use crate::host::Host;
use crate::mechanism::{Gap, Mechanism};
use crate::statistics::{Spread, geometric_mean, median};
use crate::workload::{Rate, STARTUP, Unit, Workload};

/// The version of [`Record`] that this program writes and reads.
pub const VERSION: u32 = 1;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form; see [`VERSION`].
    pub version: u32,
    /// The version of Isomorph.
    pub isomorph: String,
    /// Seconds from 1970-01-01 UTC to its beginning.
    pub created_s: u64,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Where it was.
    pub host: Host,
    /// Whether it was a short one.
    pub quick: bool,
    /// How often each engine had its turn.
    pub rounds: u32,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// Who took part, and who did not.
    pub engines: Vec<EngineRecord>,
    /// What was done.
    pub workloads: Vec<WorkloadRecord>,
    /// The figures: at most one of each workload and engine.
    pub figures: Vec<Figure>,
    /// What machines are made of.
    pub mechanisms: Vec<Mechanism>,
    /// What of that was not measured.
    pub mechanism_gaps: Vec<Gap>,
    /// What went wrong, as lines for people; a gap is not wrong.
    pub errors: Vec<String>,
}

/// An engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// Its name on the command line.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// A shorter one.
    pub short: String,
    /// What kind of machine it is.
    pub family: Family,
    /// Whether it is Isomorph's.
    pub is_ours: bool,
    /// What it calls itself.
    pub version: Option<String>,
    /// Why it took no part.
    pub gap: Option<String>,
}

impl EngineRecord {
    /// The record of an engine.
    #[must_use]
    pub fn new(engine: &Engine, version: Option<String>, gap: Option<String>) -> Self {
        let Engine { name, title, short, family, is_ours, .. } = *engine;
        Self { name: name.into(), title: title.into(), short: short.into(), family, is_ours, version, gap }
    }
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// Its name on the command line.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// What it is good for.
    pub what: String,
    /// How much an iteration does; times of other amounts do not compare.
    pub amount: u32,
    /// How many of what an iteration does.
    pub rate: Option<Rate>,
}

impl WorkloadRecord {
    /// The time of an iteration as what it means: of one call, or bytes a second, or the time itself.
    #[must_use]
    pub fn value(&self, ns: f64) -> String {
        match self.rate {
            None => format::time(ns),
            Some(Rate { count, unit: Unit::Each }) => format::time(ns / count),
            Some(Rate { count, unit: Unit::Bytes }) => format::rate(count / ns * 1e9),
        }
    }
}

impl From<&Workload> for WorkloadRecord {
    fn from(workload: &Workload) -> Self {
        let Workload { name, title, what, amount, rate, .. } = *workload;
        Self { name: name.into(), title: title.into(), what: what.into(), amount, rate }
    }
}

/// A workload on an engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The workload.
    pub workload: String,
    /// The engine.
    pub engine: String,
    /// Why there is nothing.
    pub gap: Option<String>,
    /// What was computed, in hexadecimal.
    pub checksum: Option<String>,
    /// How many runs there were.
    pub runs: u32,
    /// Nanoseconds to the program's first word, or a machine's first process.
    pub start_ns: Option<Spread>,
    /// Nanoseconds of a run's first iteration.
    pub first_ns: Option<Spread>,
    /// Nanoseconds of an iteration in the later half of a run.
    pub steady_ns: Option<Spread>,
    /// The host's memory that was resident at once, at most, in bytes.
    pub resident_bytes: Option<Spread>,
    /// Nanoseconds of some iterations, by their number from one: how it warms up.
    pub warm_up_ns: Vec<(u32, f64)>,
}

/// How many points of a warm-up are kept.
const WARM_UP_POINTS: u32 = 40;

impl Figure {
    /// What some runs come to.
    #[must_use]
    pub fn of(workload: &str, engine: &str, runs: &[Run]) -> Self {
        let all = |of: &dyn Fn(&Run) -> Option<u64>| -> Vec<f64> {
            runs.iter().filter_map(of).map(|number| number as f64).collect()
        };
        let later = |run: &Run| -> Vec<f64> {
            run.iterations_ns[run.iterations_ns.len() / 2..].iter().map(|ns| *ns as f64).collect()
        };
        let pooled: Vec<f64> = runs.iter().flat_map(later).collect();
        let medians: Vec<f64> = runs.iter().map(|run| median(&later(run))).filter(|ns| ns.is_finite()).collect();
        let steady_ns = Spread::of(&pooled).map(|spread| Spread { median: median(&medians), ..spread });
        Self {
            workload: workload.into(),
            engine: engine.into(),
            gap: None,
            checksum: runs.iter().find_map(|run| run.checksums.first()).map(|sum| format!("{sum:016x}")),
            runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            start_ns: Spread::of(&all(&|run| run.start_ns)),
            first_ns: Spread::of(&all(&|run| run.iterations_ns.first().copied())),
            steady_ns,
            resident_bytes: Spread::of(&all(&|run| run.resident_bytes)),
            warm_up_ns: warm_up(runs),
        }
    }

    /// A figure that is not there.
    #[must_use]
    pub fn missing(workload: &str, engine: &str, gap: String) -> Self {
        Self { workload: workload.into(), engine: engine.into(), gap: Some(gap), ..Self::default() }
    }

    /// Its time: to the start, or of an iteration.
    #[must_use]
    pub fn time_ns(&self) -> Option<Spread> {
        if self.workload == STARTUP { self.start_ns } else { self.steady_ns }
    }
}

/// Medians over the runs of groups of iterations, the later the larger, by the last of each group.
fn warm_up(runs: &[Run]) -> Vec<(u32, f64)> {
    let last = runs.iter().map(|run| run.iterations_ns.len()).min().unwrap_or(0);
    let growth = (last.max(2) as f64).powf(1.0 / f64::from(WARM_UP_POINTS));
    let mut points: Vec<(u32, f64)> = Vec::new();
    let (mut from, mut next) = (0, 1.0);
    for to in 1..=last {
        if (to as f64) + 0.5 < next && to != last {
            continue;
        }
        next = (to as f64 * growth).max(to as f64 + 1.0);
        let group = runs.iter().flat_map(|run| &run.iterations_ns[from..to]).map(|ns| *ns as f64);
        points.push((u32::try_from(to).unwrap_or(u32::MAX), median(&group.collect::<Vec<_>>())));
        from = to;
    }
    points
}

impl Record {
    /// The figure of a workload on an engine, if there is one that is no gap.
    #[must_use]
    pub fn figure(&self, workload: &str, engine: &str) -> Option<&Figure> {
        self.entry(workload, engine).filter(|figure| figure.gap.is_none())
    }

    /// The figure of a workload on an engine, also a gap.
    #[must_use]
    pub fn entry(&self, workload: &str, engine: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.workload == workload && figure.engine == engine)
    }

    /// How fast an engine does a workload: its native time divided by its time, so that 1 is as fast as native code.
    #[must_use]
    pub fn speed(&self, workload: &str, engine: &str) -> Option<f64> {
        let time = |engine| self.figure(workload, engine)?.time_ns().map(|time| time.median);
        Some(time(NATIVE)? / time(engine)?)
    }

    /// How fast an engine's first iterations are: the native steady time divided by their time.
    #[must_use]
    pub fn cold_speed(&self, workload: &str, engine: &str) -> Option<f64> {
        let native = self.figure(workload, NATIVE)?.steady_ns?.median;
        Some(native / self.figure(workload, engine)?.first_ns?.median)
    }

    /// The geometric mean of an engine's speeds over workloads of some kind.
    #[must_use]
    pub fn mean_speed(&self, engine: &str, wanted: impl Fn(&str) -> bool) -> Option<f64> {
        let workloads = self.workloads.iter().map(|workload| workload.name.as_str());
        let wanted = workloads.filter(|name| *name != STARTUP && wanted(name));
        geometric_mean(wanted.filter_map(|name| self.speed(name, engine)))
    }

    /// Engines that took part.
    pub fn present(&self) -> impl Iterator<Item = &EngineRecord> {
        self.engines.iter().filter(|engine| engine.gap.is_none())
    }

    /// Engines that did not.
    pub fn absent(&self) -> impl Iterator<Item = (&EngineRecord, &str)> {
        self.engines.iter().filter_map(|engine| Some((engine, engine.gap.as_deref()?)))
    }

    /// Reads a record.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn from_json(text: &str) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Writes a record.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("names and numbers can be written");
        text.push('\n');
        text
    }
}

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is something else.
    #[error("it is no comparison: {0}; 'isomorph compare --json FILE' writes one")]
    Form(#[from] serde_json::Error),
    /// Another Isomorph wrote it.
    #[error("it has version {0}, and this Isomorph reads version {VERSION}; measure again")]
    Version(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(iterations_ns: &[u64]) -> Run {
        Run {
            start_ns: Some(1000),
            checksums: vec![7; iterations_ns.len()],
            iterations_ns: iterations_ns.to_vec(),
            resident_bytes: Some(1 << 20),
        }
    }

    #[test]
    fn the_later_half_is_steady_and_the_first_is_cold() {
        let figure = Figure::of("sort", "java", &[run(&[100, 50, 10, 12]), run(&[120, 60, 14, 16])]);
        assert_eq!(figure.first_ns.unwrap().median, 110.0);
        assert_eq!(figure.steady_ns.unwrap().median, 13.0);
        assert!(figure.steady_ns.unwrap().low >= 10.0 && figure.steady_ns.unwrap().high <= 16.0);
        assert_eq!(figure.warm_up_ns, [(1, 110.0), (2, 55.0), (3, 12.0), (4, 14.0)]);
        assert_eq!(figure.checksum.as_deref(), Some("0000000000000007"));
    }

    #[test]
    fn a_long_warm_up_is_thinned() {
        let figure = Figure::of("sort", "java", &[run(&vec![5; 1000])]);
        assert!(figure.warm_up_ns.len() < 60, "{}", figure.warm_up_ns.len());
        assert_eq!(figure.warm_up_ns[0].0, 1);
        assert_eq!(figure.warm_up_ns.last().unwrap().0, 1000);
    }

    #[test]
    fn something_else_is_no_record() {
        assert!(Record::from_json("{}").unwrap_err().to_string().contains("no comparison"));
        assert!(Record::from_json("{\"version\": 99}").unwrap_err().to_string().contains("version 99"));
    }
}
