//! Random programs on Isomorph and on qemu: any difference is found, named and shrunk.
//!
//! Two ways of looking. *Fast*: some hundred programs a run; all registers and the memory are compared at each program's end. *Step by step*: both
//! sides show all registers before every instruction, and these are compared one by one; some runs are done so from the start, and
//! every difference that the fast way finds is narrowed down so.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use riscv::isa::generate::Random;
use riscv::isa::registers::{FLOAT, INTEGER};
use riscv::isa::{Instruction, Op, disassemble};

use crate::case::{Batch, Outcome, Place, State};
use crate::engine::{Isomorph, IsomorphError, qemu, qemu_trace};
use crate::peer::PeerError;
use crate::program::{CODE_SIZE, LINK, MEMORY_SIZE, Program, length};

/// Programs in a fast run.
const FAST: u64 = 400;
/// Programs in a run step by step.
const SLOW: u64 = 40;
/// A run in so many is step by step.
const SLOW_ONE_IN: u64 = 5;
/// What a run may take at most.
const LIMIT: Duration = Duration::from_secs(60);

/// Why the comparison could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DifferentialError {
    /// qemu is not there or failed.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Isomorph did not finish.
    #[error(transparent)]
    Isomorph(#[from] IsomorphError),
    /// A difference: the report of one program.
    #[error("{0}")]
    Difference(String),
}

/// What has been compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Programs compared at their end.
    pub programs: u64,
    /// Instructions compared one by one.
    pub steps: u64,
}

/// Compares one run of the programs that follow from `seed`.
///
/// # Errors
/// A difference, or one side failed.
pub fn round(seed: u64, counts: &mut Counts) -> Result<(), DifferentialError> {
    let mut random = Random::new(seed);
    let slow = random.one_in(SLOW_ONE_IN);
    let seeds: Vec<u64> = (0..if slow { SLOW } else { FAST }).map(|_| random.bits()).collect();
    let programs: Vec<Program> = seeds.iter().map(|seed| Program::generate(*seed)).collect();
    if slow {
        let (count, parting) = step_by_step(&programs)?;
        counts.steps += count;
        if let Some(Parting { program, .. }) = parting {
            return Err(DifferentialError::Difference(report(programs[program].clone(), seeds[program])?));
        }
    }
    let outcomes = compare(&programs)?;
    counts.programs += programs.len() as u64;
    match outcomes.iter().position(Option::is_some) {
        None => Ok(()),
        Some(first) => Err(DifferentialError::Difference(report(programs[first].clone(), seeds[first])?)),
    }
}

/// Compares the program of `seed` step by step and at its end.
///
/// # Errors
/// As [`round`].
pub fn one(seed: u64) -> Result<(), DifferentialError> {
    let program = Program::generate(seed);
    let programs = std::slice::from_ref(&program);
    let differs = step_by_step(programs)?.1.is_some() || compare(programs)?[0].is_some();
    if differs { Err(DifferentialError::Difference(report(program, seed)?)) } else { Ok(()) }
}

/// Runs programs on both sides at once; for each: what Isomorph and qemu left, if that differs.
fn compare(programs: &[Program]) -> Result<Vec<Option<(Outcome, Outcome)>>, DifferentialError> {
    let batch = batch(programs);
    let image = batch.image();
    let (ours, theirs) = thread::scope(|scope| {
        let theirs = scope.spawn(|| qemu(&image, LIMIT));
        let ours = Isomorph::new(&image).and_then(|machine| machine.run(LIMIT));
        (ours, theirs.join())
    });
    let theirs = theirs.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let ours = ours?;
    let differing = (0..programs.len()).map(|index| {
        let (ours, mut theirs) = (batch.outcome(&ours, index), batch.outcome(&theirs, index));
        ours.settle(&mut theirs);
        (ours != theirs).then_some((ours, theirs))
    });
    Ok(differing.collect())
}

pub(crate) fn batch(programs: &[Program]) -> Batch {
    let mut batch = Batch::new(CODE_SIZE, MEMORY_SIZE);
    for program in programs {
        let state = program.state(&batch.next_place());
        batch.push(&state, &program.code(), &program.memory());
    }
    batch
}

/// The registers before an instruction.
#[derive(Clone, PartialEq, Eq)]
struct Step {
    pc: u64,
    x: [u64; 32],
    f: [u64; 32],
}

/// Where two runs part: the step before, and both steps after.
struct Parting {
    /// The number of the program.
    program: usize,
    before: Step,
    ours: Option<Step>,
    theirs: Option<Step>,
}

/// Runs programs on both sides one instruction at a time. Answers how many instructions were compared, and the first difference.
fn step_by_step(programs: &[Program]) -> Result<(u64, Option<Parting>), DifferentialError> {
    let batch = batch(programs);
    let image = batch.image();
    let ours = our_steps(&image, &batch)?;
    let theirs = their_steps(&qemu_trace(&image, LIMIT)?, &batch);
    let same = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
    if same == ours.len() && same == theirs.len() {
        return Ok((same as u64, None));
    }
    let before = same.checked_sub(1).and_then(|last| ours.get(last)).cloned();
    let before = before.unwrap_or(Step { pc: 0, x: [0; 32], f: [0; 32] });
    let (ours, theirs) = (ours.get(same).cloned(), theirs.get(same).cloned());
    // Where the step before was, or at the very start of a program the step that differs.
    let program = [Some(&before), ours.as_ref()].into_iter().flatten().find_map(|step| batch.index_of(step.pc));
    Ok((same as u64, Some(Parting { program: program.unwrap_or(0), before, ours, theirs })))
}

/// The steps inside the programs, not those of the runner.
fn our_steps(image: &[u8], batch: &Batch) -> Result<Vec<Step>, IsomorphError> {
    let mut machine = Isomorph::new(image)?;
    let mut steps = Vec::new();
    loop {
        let hart = machine.hart();
        if batch.index_of(hart.pc()).is_some() {
            let (mut x, mut f) = ([0; 32], [0; 32]);
            for number in 0..32 {
                x[usize::from(number)] = hart.x(number);
                f[usize::from(number)] = hart.f(number);
            }
            steps.push(Step { pc: hart.pc(), x, f });
        }
        if !machine.step()? {
            return Ok(steps);
        }
    }
}

/// Reads qemu's log: one block of lines for each instruction, which begins with the pc and names registers as `x1/ra` and `f1/ft1`.
fn their_steps(log: &str, batch: &Batch) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in log.lines() {
        let mut words = line.split_ascii_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if name == "pc" {
                let pc = u64::from_str_radix(value, 16).unwrap_or_default();
                inside = batch.index_of(pc).is_some();
                if inside {
                    steps.push(Step { pc, x: [0; 32], f: [0; 32] });
                }
            }
            let (true, Some(step), Some((number, _))) = (inside, steps.last_mut(), name.split_once('/')) else { break };
            let file = if number.starts_with('x') { &mut step.x } else { &mut step.f };
            if let Some(register) = number.get(1..).and_then(|n| n.parse::<usize>().ok()).and_then(|n| file.get_mut(n))
            {
                *register = u64::from_str_radix(value, 16).unwrap_or_default();
            }
        }
    }
    steps
}

/// A difference, as a reader wants it: where, what, and the smallest program that still shows it.
fn report(program: Program, seed: u64) -> Result<String, DifferentialError> {
    let mut text = format!("Isomorph and qemu differ on the program of seed {seed:#x}\n");
    let program = shrink(program)?;
    match step_by_step(std::slice::from_ref(&program))?.1 {
        Some(parting) => describe_parting(&mut text, &program, &parting),
        None => text += "all instructions do the same, by the registers that a step shows\n",
    }
    if let Some((ours, theirs)) = compare(std::slice::from_ref(&program))?.pop().flatten() {
        text += "at the end:\n";
        for (name, ours, theirs) in ours.state.differences(&theirs.state) {
            let _ = writeln!(text, "  {name:8} ours {ours:#018x}  qemu {theirs:#018x}");
        }
        let bytes = ours.memory.iter().zip(&theirs.memory).enumerate().filter(|(_, (ours, theirs))| ours != theirs);
        for (at, (ours, theirs)) in bytes.take(16) {
            let _ = writeln!(text, "  memory+{at:#x} ours {ours:#04x}  qemu {theirs:#04x}");
        }
    }
    let place = batch(std::slice::from_ref(&program)).place(0);
    describe_program(&mut text, &program, &place);
    Ok(text)
}

fn describe_parting(text: &mut String, program: &Program, parting: &Parting) {
    let place = batch(std::slice::from_ref(program)).place(0);
    let pc = parting.before.pc;
    let mut at = place.code;
    let word = program.words.iter().find(|word| {
        let here = at;
        at += length(**word);
        here == pc
    });
    let word = word.map_or_else(|| "the beginning".into(), |word| disassemble(*word, pc));
    let _ = writeln!(text, "first difference after {pc:#x}: {word}");
    let (Some(ours), Some(theirs)) = (&parting.ours, &parting.theirs) else {
        let who = if parting.ours.is_none() { "ours" } else { "qemu" };
        let _ = writeln!(text, "  only {who} leaves the program here");
        return;
    };
    let mut line = |name: &str, before: u64, ours: u64, theirs: u64| {
        if ours != theirs {
            let _ = writeln!(text, "  {name:8} ours {ours:#018x}  qemu {theirs:#018x}  before {before:#018x}");
        }
    };
    line("pc", pc, ours.pc, theirs.pc);
    for i in 0..32 {
        line(INTEGER[i], parting.before.x[i], ours.x[i], theirs.x[i]);
        line(FLOAT[i], parting.before.f[i], ours.f[i], theirs.f[i]);
    }
}

pub(crate) fn describe_program(text: &mut String, program: &Program, place: &Place) {
    let _ = writeln!(text, "the program, shrunk{}:", if program.translated { ", under Sv39" } else { "" });
    let mut at = place.code;
    for &word in &program.words {
        if !is_nop(word) {
            let _ = writeln!(text, "  {at:#x}: {word:08x}  {}", disassemble(word, at));
        }
        at += length(word);
    }
    text.push_str("registers before, where not zero:\n");
    for (name, value, _) in program.state(place).differences(&State::default()) {
        let _ = writeln!(text, "  {name:8} {value:#018x}");
    }
}

const NOP: u32 = 0x13;
const SHORT_NOP: u32 = 1;

fn is_nop(word: u32) -> bool {
    matches!(word, NOP | SHORT_NOP)
}

/// The smallest program that differs still, by [`compare`].
fn shrink(program: Program) -> Result<Program, DifferentialError> {
    let differs = |program: &Program| -> Result<bool, DifferentialError> {
        // A hang or a stop that shrinking makes is not the difference that is looked for.
        match compare(std::slice::from_ref(program)) {
            Ok(outcomes) => Ok(outcomes[0].is_some()),
            Err(DifferentialError::Peer(PeerError::Failed { .. }) | DifferentialError::Isomorph(_)) => Ok(false),
            Err(error) => Err(error),
        }
    };
    if !differs(&program)? {
        // Seen step by step only.
        return Ok(program);
    }
    shrink_while(program, differs)
}

/// Makes the program do less as long as it `differs`: instructions become `nop`s, in blocks that get smaller; then registers become zero.
pub(crate) fn shrink_while<E>(
    mut program: Program,
    mut differs: impl FnMut(&Program) -> Result<bool, E>,
) -> Result<Program, E> {
    let mut block = program.words.len().next_power_of_two() / 2;
    while block > 0 {
        for start in (0..program.words.len()).step_by(block) {
            let mut candidate = program.clone();
            let end = (start + block).min(candidate.words.len());
            for word in &mut candidate.words[start..end] {
                // The end of a loop stays, or it would not end; and so do a function's entry and its return.
                let decoded = riscv::isa::decode(*word);
                let closes = |i: Instruction| {
                    i.op == Op::Ebreak || i.imm < 0 && i.op == Op::Bne || i.op == Op::Jalr && i.rs1 == LINK
                };
                let counts = |i: Instruction| i.op == Op::Addi && i.rd == 31;
                if !decoded.is_some_and(|i| closes(i) || counts(i)) {
                    *word = if length(*word) == 4 { NOP } else { SHORT_NOP };
                }
            }
            if candidate.words != program.words && differs(&candidate)? {
                program = candidate;
            }
        }
        block /= 2;
    }
    for register in 1..64 {
        let mut candidate = program.clone();
        let start = candidate.start_mut();
        let value = if register < 32 { &mut start.x[register] } else { &mut start.f[register - 32] };
        if std::mem::take(value) != 0 && differs(&candidate)? {
            program = candidate;
        }
    }
    Ok(program)
}
