//! The measurement: every workload on every engine, by turns.
//!
//! A round is one run of each workload on each engine, all engines of a workload one after the other, and the next round begins with another engine: what
//! slows the host for a while slows them all. Rounds go on until there were as many as asked for, time is up, or the user has had enough; what was measured until
//! then counts.

use std::collections::BTreeMap;
use std::time::Duration;

use ::machine::clock::wall_time_ns;

use crate::engine::{ENGINES, Engine, Failure, Installation, Job, NATIVE, Place, Ready, Run, Watch};
use crate::host::Host;
use crate::mechanism::{self, Gap, MECHANISMS, Mechanism};
use crate::program::Folder;
use crate::record::{EngineRecord, Figure, Record, VERSION};
use crate::workload::{STARTUP, WORKLOADS, Workload};

/// What is measured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A minute instead of ten.
    pub quick: bool,
    /// Names of workloads and engines; all, if nothing is named.
    pub only: Vec<String>,
}

/// How thoroughly.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: u32,
    /// Time of one run.
    budget: Duration,
    iterations_min: u32,
    iterations_max: u32,
    /// When no further run of a workload begins.
    end: Duration,
    mechanisms: mechanism::Effort,
}

const FULL: Effort = Effort {
    rounds: 3,
    budget: Duration::from_millis(700),
    iterations_min: 3,
    iterations_max: 1000,
    end: Duration::from_secs(480),
    mechanisms: mechanism::Effort { rounds: 3, budget: Duration::from_millis(500), end: Duration::from_secs(560) },
};

const QUICK: Effort = Effort {
    rounds: 1,
    budget: Duration::from_millis(60),
    iterations_min: 3,
    iterations_max: 200,
    end: Duration::from_secs(30),
    mechanisms: mechanism::Effort { rounds: 1, budget: Duration::from_millis(60), end: Duration::from_secs(42) },
};

impl Options {
    fn effort(&self) -> Effort {
        if self.quick { QUICK } else { FULL }
    }

    /// The workloads and engines that are wanted: if none of a sort is named, all of it. Native code always takes part.
    fn chosen(&self) -> Result<Chosen, MeasureError> {
        let named = |name: &str| self.only.iter().any(|only| only == name);
        let workloads: Vec<_> = WORKLOADS.iter().filter(|workload| named(workload.name)).collect();
        let engines: Vec<_> = ENGINES.iter().filter(|engine| named(engine.name)).collect();
        if let Some(unknown) = self.only.iter().find(|name| !names().any(|known| known == **name)) {
            return Err(MeasureError::Unknown(unknown.clone()));
        }
        let mechanisms = self.only.is_empty() || named(MECHANISMS);
        if mechanisms && !self.only.is_empty() && workloads.is_empty() && engines.is_empty() {
            return Ok(Chosen { workloads, engines, mechanisms });
        }
        let workloads = if workloads.is_empty() { WORKLOADS.iter().collect() } else { workloads };
        let mut engines = if engines.is_empty() { ENGINES.iter().collect() } else { engines };
        if engines.iter().all(|engine| engine.name != NATIVE) {
            engines.insert(0, &ENGINES[0]);
        }
        Ok(Chosen { workloads, engines, mechanisms })
    }
}

/// What is measured.
struct Chosen {
    workloads: Vec<&'static Workload>,
    engines: Vec<&'static Engine>,
    mechanisms: bool,
}

/// Every name that [`Options::only`] may have.
pub fn names() -> impl Iterator<Item = &'static str> {
    let workloads = WORKLOADS.iter().map(|workload| workload.name);
    workloads.chain(ENGINES.iter().map(|engine| engine.name)).chain([MECHANISMS])
}

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A name that nothing has.
    #[error("nothing is called '{0}'; workloads and engines are: {names}", names = names().collect::<Vec<_>>().join(", "))]
    Unknown(String),
    /// The guest programs need a folder.
    #[error("cannot put the workloads into the folder for temporary files: {0}; set TMPDIR to one that can be written")]
    Folder(#[from] std::io::Error),
}

/// Whoever is told how far it is.
pub trait Progress {
    /// `done` of `total` runs; now comes `what`.
    fn at(&mut self, done: u64, total: u64, what: &str);
    /// Something to know at once.
    fn note(&mut self, text: &str);
}

/// The runs of one workload on one engine.
#[derive(Default)]
struct Collected {
    runs: Vec<Run>,
    /// Why there are no more.
    gap: Option<String>,
}

/// One comparison while it goes on.
struct Measurement<'a> {
    place: Place<'a>,
    effort: Effort,
    progress: &'a mut dyn Progress,
    collected: BTreeMap<(usize, &'static str), Collected>,
    errors: Vec<String>,
    done: u64,
    total: u64,
    /// Runs that an engine would have.
    runs_of_engine: u64,
    interrupted: bool,
}

/// Measures.
///
/// # Errors
/// A name is unknown, or the host has no place for the programs. What fails later is in the record.
pub fn measure(
    options: &Options,
    installation: &Installation,
    watch: &Watch,
    progress: &mut dyn Progress,
) -> Result<Record, MeasureError> {
    let Chosen { workloads, engines, mechanisms } = options.chosen()?;
    let host = Host::examine();
    if host.is_busy() {
        progress.note(&format!("this host is busy (load {:.1}): figures are better when nothing else runs", host.load));
    }
    let (created_s, started_ns) = (wall_time_ns() / 1_000_000_000, watch.now_ns());
    let folder = Folder::new()?;
    let effort = options.effort();
    let mut measurement = Measurement {
        place: Place { installation, folder: &folder, watch },
        effort,
        progress,
        collected: BTreeMap::new(),
        errors: Vec::new(),
        done: 0,
        runs_of_engine: (workloads.len() * effort.rounds as usize) as u64,
        total: (engines.len() * (1 + workloads.len() * effort.rounds as usize)) as u64
            + if mechanisms { mechanism::STEPS } else { 0 },
        interrupted: false,
    };
    let (records, mut ready) = measurement.prepare(&engines);
    let rounds = measurement.rounds(&workloads, &mut ready);
    // Machines that are still up would only take memory.
    drop(ready);
    let (mechanisms, mechanism_gaps) = if mechanisms { measurement.mechanisms() } else { Default::default() };
    Ok(Record {
        version: VERSION,
        isomorph: env!("CARGO_PKG_VERSION").into(),
        created_s,
        took_s: (watch.now_ns() - started_ns) as f64 / 1e9,
        host,
        quick: options.quick,
        rounds,
        interrupted: measurement.interrupted,
        figures: measurement.figures(&workloads, &records),
        workloads: workloads.into_iter().map(Into::into).collect(),
        engines: records,
        mechanisms,
        mechanism_gaps,
        errors: measurement.errors,
    })
}

impl Measurement<'_> {
    fn job(&self, workload: &'static Workload) -> Job {
        let Effort { budget, iterations_min, iterations_max, .. } = self.effort;
        if workload.name == STARTUP {
            return Job { workload, iterations_min: 1, iterations_max: 1, budget: Duration::ZERO };
        }
        Job { workload, iterations_min, iterations_max, budget }
    }

    fn step(&mut self, what: &str) {
        self.progress.at(self.done, self.total, what);
        self.done += 1;
    }

    /// Finds out which engines work here. The start of a machine counts, for it takes long; that of a process is to warm the host's caches.
    fn prepare(&mut self, engines: &[&'static Engine]) -> (Vec<EngineRecord>, Vec<Ready>) {
        let (mut records, mut ready) = (Vec::new(), Vec::new());
        for &engine in engines {
            self.step(&format!("looking for {}", engine.title));
            let result = if self.interrupted {
                Err(Failure::Interrupted)
            } else {
                engine.prepare(&self.place, self.job(&WORKLOADS[0]))
            };
            let gap = match result {
                Ok((works, run)) => {
                    if engine.is_machine() {
                        self.collected.entry((0, engine.name)).or_default().runs.push(run);
                    }
                    ready.push(works);
                    None
                }
                Err(failure) => {
                    self.interrupted |= failure == Failure::Interrupted;
                    self.total -= self.runs_of_engine;
                    Some(failure.to_string())
                }
            };
            let version = if gap.is_none() { engine.version(self.place.installation) } else { None };
            records.push(EngineRecord::new(engine, version, gap));
        }
        (records, ready)
    }

    /// Goes round; answers how often.
    fn rounds(&mut self, workloads: &[&'static Workload], ready: &mut [Ready]) -> u32 {
        let until_ns = u64::try_from(self.effort.end.as_nanos()).unwrap_or(u64::MAX);
        for round in 0..self.effort.rounds {
            for &workload in workloads {
                let index = WORKLOADS.iter().position(|other| other.name == workload.name).unwrap_or(0);
                for turn in 0..ready.len() {
                    let place = (turn + round as usize) % ready.len();
                    self.step(&format!("{}: {}", workload.title, ready[place].engine.title));
                    if self.place.watch.now_ns() > until_ns && !self.interrupted {
                        self.give_up(index, ready[place].engine.name);
                        continue;
                    }
                    if self.interrupted {
                        return round;
                    }
                    self.turn(round, (index, workload), &mut ready[place]);
                }
            }
        }
        self.effort.rounds
    }

    /// Notes that time is up for something that has not been measured at all.
    fn give_up(&mut self, index: usize, engine: &'static str) {
        let collected = self.collected.entry((index, engine)).or_default();
        if collected.runs.is_empty() && collected.gap.is_none() {
            collected.gap = Some(mechanism::NO_TIME.into());
        }
    }

    /// One run.
    fn turn(&mut self, round: u32, (index, workload): (usize, &'static Workload), ready: &mut Ready) {
        let engine = ready.engine;
        let job = self.job(workload);
        let collected = self.collected.entry((index, engine.name)).or_default();
        // A machine has been started in this round already when it was looked for.
        let has_started = workload.name == STARTUP && engine.is_machine() && round == 0 && !collected.runs.is_empty();
        if collected.gap.is_some() || has_started {
            return;
        }
        let result = if workload.name == STARTUP { ready.start(&self.place, job) } else { ready.run(&self.place, job) };
        match result {
            Ok(run) => collected.runs.push(run),
            Err(Failure::Interrupted) => self.interrupted = true,
            Err(Failure::Absent(why)) => collected.gap = Some(why),
            Err(Failure::Wrong(why)) => {
                let error = format!("{} on {}: {why}", workload.title, engine.title);
                self.progress.note(&error);
                if !engine.is_peer() {
                    self.errors.push(error);
                }
                collected.gap = Some(why);
            }
        }
    }

    /// What machines are made of.
    fn mechanisms(&mut self) -> (Vec<Mechanism>, Vec<Gap>) {
        let mut found = Default::default();
        if self.interrupted {
            return found;
        }
        let Self { place, effort, progress, done, total, .. } = self;
        let mut step = |what: &str| {
            progress.at(*done, *total, &format!("mechanisms: {what}"));
            *done += 1;
        };
        self.interrupted |= mechanism::measure(place, effort.mechanisms, &mut found, &mut step).is_err();
        found
    }

    /// The figures, once checksums are compared.
    fn figures(&mut self, workloads: &[&'static Workload], engines: &[EngineRecord]) -> Vec<Figure> {
        let mut figures = Vec::new();
        for workload in workloads {
            let index = WORKLOADS.iter().position(|other| other.name == workload.name).unwrap_or(0);
            // Native code comes first, so that it is what others are held against.
            let mut expected: Option<(u64, &str)> = None;
            for engine in engines.iter().filter(|engine| engine.gap.is_none()) {
                let Some(collected) =
                    self.collected.iter().find(|((of, name), _)| *of == index && **name == engine.name)
                else {
                    continue;
                };
                let Collected { runs, gap } = collected.1;
                let (expected, reference) = *expected.get_or_insert_with(|| {
                    (runs.iter().find_map(|run| run.checksums.first().copied()).unwrap_or(0), &engine.title)
                });
                let wrong = runs.iter().flat_map(|run| &run.checksums).find(|sum| **sum != expected);
                if let Some(wrong) = wrong {
                    self.errors.push(format!(
                        "{} on {}: checksum {wrong:016x}, but {expected:016x} on {reference}",
                        workload.title, engine.title
                    ));
                }
                figures.push(match gap {
                    Some(gap) if runs.is_empty() => Figure::missing(workload.name, &engine.name, gap.clone()),
                    _ => Figure::of(workload.name, &engine.name, runs),
                });
            }
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_workloads_and_engines() {
        let chosen = |only: &[&str]| {
            let options = Options { quick: true, only: only.iter().map(|name| (*name).to_owned()).collect() };
            options.chosen().map(|chosen| (chosen.workloads.len(), chosen.engines.len(), chosen.mechanisms))
        };
        assert_eq!(chosen(&[]).unwrap(), (WORKLOADS.len(), ENGINES.len(), true));
        assert_eq!(chosen(&["sort", "tcp"]).unwrap(), (2, ENGINES.len(), false));
        assert_eq!(chosen(&["java"]).unwrap(), (WORKLOADS.len(), 2, false));
        assert_eq!(chosen(&["native", "java", "sort"]).unwrap(), (1, 2, false));
        assert_eq!(chosen(&["mechanisms"]).unwrap(), (0, 0, true));
        assert_eq!(chosen(&["mechanisms", "sort", "java"]).unwrap(), (1, 2, true));
        let error = chosen(&["soort"]).unwrap_err().to_string();
        assert!(error.contains("'soort'") && error.contains("isomorph-riscv64"), "{error}");
    }
}
