//! Random programs on the interpreter and on the translator, with and without each of its optimisations: any difference is found and shrunk.
//!
//! Everything is translated before it is executed for the second time, so that short programs reach it. Registers, memory, flags and traps are
//! compared at each program's end, and the number of retired instructions at the end of all. One round in some also goes to qemu, which
//! knows neither of the two.

use std::fmt::Write;
use std::time::Duration;

use riscv::isa::generate::Random;
use riscv::translate::Options;

use crate::differential::{self, DifferentialError, batch, describe_program, shrink_while};
use crate::engine::{Isomorph, IsomorphError};
use crate::program::Program;

/// Programs in a round.
const PROGRAMS: u64 = 100;
/// A round in so many is compared with qemu too.
const QEMU_ONE_IN: u64 = 8;
/// What a run may take at most.
const LIMIT: Duration = Duration::from_secs(60);
/// What a run may take that shrinking tries.
const SHRINKING_LIMIT: Duration = Duration::from_secs(2);

/// A way to execute guest code.
#[derive(Clone, Debug)]
pub struct Tier {
    /// What it is called: `interpreter`, `block`, `region`, or the last with `no-` and an optimisation.
    pub name: String,
    /// How the translator is told.
    pub options: Options,
}

/// All tiers, the interpreter first: no units but blocks, all optimisations, and all but one of them. All code is hot at once.
#[must_use]
pub fn tiers() -> Vec<Tier> {
    let tier = |name: &str, options: Options| Tier { name: name.into(), options: Options { threshold: 1, ..options } };
    let mut tiers = vec![
        tier("interpreter", Options::interpreter()),
        tier("block", Options::block()),
        tier("region", Options::default()),
    ];
    for name in Options::NAMES.iter().filter(|name| !matches!(**name, "translate" | "regions")) {
        let off = format!("no-{name}");
        if let Ok(options) = Options::parse(&off) {
            tiers.push(tier(&off, options));
        }
    }
    tiers
}

/// Compares the programs that follow from `seed` on the interpreter, on blocks, on regions, and with one of the optimisations off; answers how many programs
/// were compared.
///
/// # Errors
/// A difference, or a machine that failed.
pub fn round(seed: u64) -> Result<u64, DifferentialError> {
    let mut random = Random::new(seed);
    if random.one_in(QEMU_ONE_IN) {
        // The interpreter against qemu, and then the tiers against the interpreter.
        differential::round(random.bits(), &mut differential::Counts::default())?;
    }
    let seeds: Vec<u64> = (0..PROGRAMS).map(|_| random.bits()).collect();
    let programs: Vec<Program> = seeds.iter().map(|seed| Program::generate(*seed)).collect();
    let all = tiers();
    let (first, special) = all.split_at(3);
    for tier in first[1..].iter().chain([random.choose(special)]) {
        if !compare(&programs, &first[0], tier, LIMIT)? {
            return Err(report(programs, &seeds, &first[0], tier)?);
        }
    }
    Ok(PROGRAMS)
}

/// Compares the program of `seed` on all tiers.
///
/// # Errors
/// As [`round`].
pub fn one(seed: u64) -> Result<(), DifferentialError> {
    let program = Program::generate(seed);
    let all = tiers();
    for tier in &all[1..] {
        if !compare(std::slice::from_ref(&program), &all[0], tier, LIMIT)? {
            return Err(report(vec![program], &[seed], &all[0], tier)?);
        }
    }
    Ok(())
}

/// What programs left: memory, and the number of retired instructions.
fn run(programs: &[Program], tier: &Tier, limit: Duration) -> Result<(Vec<u8>, u64), IsomorphError> {
    Isomorph::new(&batch(programs).image())?.translating(tier.options)?.run_and_count(limit)
}

/// Whether programs leave the same on both tiers. All of memory counts, with the code that programs have changed.
fn compare(programs: &[Program], one: &Tier, other: &Tier, limit: Duration) -> Result<bool, IsomorphError> {
    Ok(run(programs, one, limit)? == run(programs, other, limit)?)
}

/// A difference, as a reader wants it: what, and the fewest and smallest programs that still show it. One program may differ only since others ran
/// before it.
fn report(
    mut programs: Vec<Program>,
    seeds: &[u64],
    one: &Tier,
    other: &Tier,
) -> Result<DifferentialError, DifferentialError> {
    // A hang or a stop that shrinking makes is not the difference that is looked for.
    let differs = |programs: &[Program]| matches!(compare(programs, one, other, SHRINKING_LIMIT), Ok(false));
    let mut seeds = seeds.to_vec();
    let mut block = programs.len().next_power_of_two() / 2;
    while block > 0 {
        let mut start = 0;
        while start < programs.len() && programs.len() > 1 {
            let end = (start + block).min(programs.len());
            let rest = [&programs[..start], &programs[end..]].concat();
            if !rest.is_empty() && differs(&rest) {
                programs = rest;
                seeds.drain(start..end);
            } else {
                start = end;
            }
        }
        block /= 2;
    }
    for index in 0..programs.len() {
        let all = programs.clone();
        let differs = |program: &Program| {
            let mut candidate = all.clone();
            candidate[index] = program.clone();
            Ok::<_, DifferentialError>(differs(&candidate))
        };
        programs[index] = shrink_while(programs[index].clone(), differs)?;
    }
    let batch = batch(&programs);
    let ((left, ours), (right, theirs)) = (run(&programs, one, LIMIT)?, run(&programs, other, LIMIT)?);
    let mut text = format!("{} and {} differ on the programs of seeds {seeds:#x?}\n", one.name, other.name);
    let mut line = |name: &str, ours: u64, theirs: u64| {
        let _ = writeln!(text, "  {name:10} {} {ours:#018x}  {} {theirs:#018x}", one.name, other.name);
    };
    for index in 0..programs.len() {
        let (mine, yours) = (batch.outcome(&left, index), batch.outcome(&right, index));
        for (name, mine, yours) in mine.state.differences(&yours.state) {
            line(&name, mine, yours);
        }
        let bytes = mine.memory.iter().zip(&yours.memory).enumerate().filter(|(_, (mine, yours))| mine != yours);
        for (at, (mine, yours)) in bytes.take(16) {
            line(&format!("memory+{at:#x}"), (*mine).into(), (*yours).into());
        }
    }
    if ours != theirs {
        line("instret", ours, theirs);
    }
    for (index, program) in programs.iter().enumerate() {
        describe_program(&mut text, program, &batch.place(index));
    }
    Ok(DifferentialError::Difference(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_optimisation_is_off_in_one_tier() {
        let tiers = tiers();
        assert_eq!(tiers[0].options, Options { threshold: 1, ..Options::interpreter() });
        for name in Options::NAMES {
            let off = Options { threshold: 1, ..Options::parse(&format!("no-{name}")).unwrap() };
            assert!(tiers.iter().any(|tier| tier.options == off), "{name} is on everywhere");
        }
    }

    #[test]
    fn a_program_compares_equal_to_itself_and_not_to_another() {
        let all = tiers();
        let (a, b) = (Program::generate(1), Program::generate(2));
        assert!(compare(&[a.clone(), b.clone()], &all[0], &all[0], LIMIT).unwrap());
        assert!(run(&[a], &all[0], LIMIT).unwrap() != run(&[b], &all[0], LIMIT).unwrap());
    }
}
