//! Packed: several iterations at once of loops that do the same to each element of arrays of floating-point numbers (user machines).
//!
//! ```text
//! head:   may try again? enough iterations left? --yes--> cold: arrays do not overlap, a page's worth of each can be accessed:
//! once:   the loop as it is, one iteration                      so many times:  load, compute, a NaN? --> once
//!         branch --> head                                                       store, advance
//!                                                               --> once
//! ```
//!
//! A loop qualifies if it is one piece of these instructions: loads that follow each other in memory, operations on what they loaded and on registers that
//! stay, one store, and steps of address registers. Nothing is carried from one iteration to the next.
//!
//! **What is exact.** Vectors are where the guest's registers are, in all 256 bits. After each few iterations memory, address registers and budget are the
//! guest's. What an iteration computes for itself is not, so one as it is always follows, for which there is budget, and which accesses only what has just
//! been touched: it cannot trap. So there is nothing to restore. Where a result is a NaN, the same iterations are done one by one, before anybody can look.
//! Should another thread take the memory away meanwhile, the trap is at the head, and only registers that the loop is about to write have other values.
//!
//! **What it costs.** A loop that cannot go so, since its arrays overlap or have NaNs, tries again after a while.

#![allow(clippy::cast_possible_truncation, reason = "constants of a few bits")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Fma, Gpr, Label, Mem, Precision, Scalar, Scale, Shift, Size, Xmm};

use super::emit::{Emitter, Place};
use super::float;
use super::gather::Piece;
use super::mapping::{BUDGET, Mapping, field};
use super::memory::{self, Kind};
use super::state::HartState;
use crate::hart::Hart;
use crate::isa::{Instruction, Op};

/// Fewer iterations than this are done one by one.
const ITERATIONS_MIN: i32 = 32;
/// Iterations before the next try, if one came to nothing.
const PATIENCE: i32 = 256;
/// Binary logarithm of the bytes of a vector.
const VECTOR_SHIFT: u8 = 5;
/// Its bytes.
const VECTOR: i64 = 1 << VECTOR_SHIFT;
const PAGE_SHIFT: u8 = 12;
/// The loop begins at a multiple of this.
const LOOP_ALIGNMENT: usize = 32;

/// The value of an integer register: the sum of registers as they are at the head, zero for none, and a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    base: u8,
    /// Times two to the power of `shift`.
    index: u8,
    shift: u8,
    offset: i32,
}

impl Sum {
    const fn register(base: u8) -> Self {
        Self { base, index: 0, shift: 0, offset: 0 }
    }

    fn plus(self, offset: i32) -> Option<Self> {
        Some(Self { offset: self.offset.checked_add(offset)?, ..self })
    }

    fn shifted(self, shift: u8) -> Option<Self> {
        let offset = self.offset.checked_mul(1 << shift)?;
        match self {
            Self { base: 0, index: 0, .. } => Some(Self { offset, ..self }),
            Self { base, index: 0, .. } => Some(Self { base: 0, index: base, shift, offset }),
            _ => None,
        }
    }

    fn and(self, other: Self) -> Option<Self> {
        let (base, other) = match (self, other) {
            (base @ Self { index: 0, .. }, other) | (other, base @ Self { index: 0, .. }) => (base, other),
            _ => return None,
        };
        let sum = match (base.base, other) {
            (0, other) => other,
            (register, Self { base: 0, .. }) => Self { base: register, ..other },
            (register, Self { base, index: 0, .. }) => Self { base, index: register, ..other },
            _ => return None,
        };
        Some(Self { offset: base.offset.checked_add(other.offset)?, ..sum })
    }

    /// By how much it grows in each iteration.
    fn step(self, steps: &[Option<i32>; 32]) -> Option<i32> {
        let index = steps[usize::from(self.index)]?.checked_mul(1 << self.shift)?;
        steps[usize::from(self.base)]?.checked_add(index)
    }
}

/// What is done to each element. Registers are the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Load(u8, Sum),
    Store(u8, Sum),
    Binary(Scalar, u8, [u8; 2]),
    Root(u8, u8),
    Fused(Fma, u8, [u8; 3]),
    Copy(u8, u8),
}

/// A loop that qualifies.
#[derive(Debug)]
pub(super) struct Plan {
    precision: Precision,
    acts: Vec<Act>,
    /// The store's address, and the loads' that may overlap with it.
    store: Sum,
    doubts: Vec<Sum>,
    /// Floating-point registers that are read and stay.
    constants: u32,
    /// What is stored was computed.
    may_be_nan: bool,
    /// Address registers, and by how much they grow.
    steps: Vec<(u8, i32)>,
    /// The branch is taken while `from` is not `to`, or is below it.
    op: Op,
    from: Sum,
    to: Sum,
    from_step: i32,
    lines_count: i32,
}

/// What has been seen of a loop.
struct Look {
    values: [Option<Sum>; 32],
    precision: Option<Precision>,
    acts: Vec<Act>,
    loads: Vec<Sum>,
    store: Option<(u8, Sum)>,
    /// Floating-point registers.
    written: u32,
    /// Read as they are at the head.
    read: u32,
    /// Computations, by the number of their act: of each a bit.
    computed: u64,
    /// By floating-point register: the computations whose NaNs it shows.
    shows: [u64; 32],
}

/// How a loop of one piece can be done, several iterations at once. Its floating-point registers in `boxed` hold singles.
pub(super) fn plan(piece: &Piece, mapping: &Mapping, boxed: u32) -> Option<Plan> {
    let (last, lines) = piece.lines.split_last()?;
    if !matches!(last.instruction.op, Op::Bne | Op::Blt | Op::Bltu) || last.target() != piece.place {
        return None;
    }
    let mut look = Look {
        values: std::array::from_fn(|register| Some(Sum::register(u8::try_from(register).unwrap_or(0)))),
        precision: None,
        acts: Vec::new(),
        loads: Vec::new(),
        store: None,
        written: 0,
        read: 0,
        computed: 0,
        shows: [0; 32],
    };
    for line in lines {
        look.at(&line.instruction)?;
    }
    let plan = look.finish(&last.instruction, i32::try_from(piece.lines.len()).ok()?, boxed)?;
    plan.has_registers(mapping).then_some(plan)
}

impl Look {
    fn value(&self, register: u8) -> Option<Sum> {
        self.values[usize::from(register & 31)]
    }

    fn at(&mut self, i: &Instruction) -> Option<()> {
        use Precision::{Double, Single};
        let sum = match i.op {
            Op::Addi => self.value(i.rs1)?.plus(i.imm)?,
            Op::Add => self.value(i.rs1)?.and(self.value(i.rs2)?)?,
            Op::Slli if i.imm <= 3 => self.value(i.rs1)?.shifted(u8::try_from(i.imm).ok()?)?,
            Op::Sh1add => self.value(i.rs1)?.shifted(1)?.and(self.value(i.rs2)?)?,
            Op::Sh2add => self.value(i.rs1)?.shifted(2)?.and(self.value(i.rs2)?)?,
            Op::Sh3add => self.value(i.rs1)?.shifted(3)?.and(self.value(i.rs2)?)?,
            Op::Flw => return self.load(i, Single),
            Op::Fld => return self.load(i, Double),
            Op::Fsw => return self.store(i, Single),
            Op::Fsd => return self.store(i, Double),
            _ => return self.compute(i),
        };
        if i.rd & 31 != 0 {
            self.values[usize::from(i.rd & 31)] = Some(sum);
        }
        Some(())
    }

    /// All numbers of a loop are of one format.
    fn is(&mut self, precision: Precision) -> Option<()> {
        (*self.precision.get_or_insert(precision) == precision).then_some(())
    }

    fn load(&mut self, i: &Instruction, precision: Precision) -> Option<()> {
        self.is(precision)?;
        // What is stored first might be what is loaded.
        let sum = self.value(i.rs1)?.plus(i.imm).filter(|_| self.store.is_none())?;
        self.loads.push(sum);
        self.write(i.rd, 0, Act::Load(i.rd, sum));
        Some(())
    }

    fn store(&mut self, i: &Instruction, precision: Precision) -> Option<()> {
        self.is(precision)?;
        let sum = self.value(i.rs1)?.plus(i.imm)?;
        self.reads(&[i.rs2]);
        self.acts.push(Act::Store(i.rs2, sum));
        // A second time, half of an iteration might be done again.
        self.store.replace((i.rs2, sum)).is_none().then_some(())
    }

    /// What reading these registers shows.
    fn reads(&mut self, sources: &[u8]) -> u64 {
        sources.iter().fold(0, |shows, source| {
            self.read |= 1 << source & !self.written;
            shows | self.shows[usize::from(*source & 31)]
        })
    }

    fn write(&mut self, rd: u8, shows: u64, act: Act) {
        self.written |= 1 << rd;
        self.shows[usize::from(rd & 31)] = shows;
        self.acts.push(act);
    }

    fn compute(&mut self, i: &Instruction) -> Option<()> {
        if let (Op::FsgnjS | Op::FsgnjD, true) = (i.op, i.rs1 == i.rs2) {
            self.is(if i.op == Op::FsgnjS { Precision::Single } else { Precision::Double })?;
            let shows = self.reads(&[i.rs1]);
            self.write(i.rd, shows, Act::Copy(i.rd, i.rs1));
            return Some(());
        }
        let bit = 1_u64.checked_shl(u32::try_from(self.acts.len()).ok()?).filter(|_| float::is_to_nearest(i))?;
        self.computed |= bit;
        if let Some((operation, precision)) = float::fused_operation(i.op) {
            self.is(precision)?;
            let sources = [i.rs1, i.rs2, i.rs3];
            let shows = self.reads(&sources);
            self.write(i.rd, shows | bit, Act::Fused(operation, i.rd, sources));
            return Some(());
        }
        let (operation, precision) = float::operation(i.op)?;
        self.is(precision)?;
        if operation == Scalar::Sqrt {
            let shows = self.reads(&[i.rs1]);
            self.write(i.rd, shows | bit, Act::Root(i.rd, i.rs1));
        } else {
            let shows = self.reads(&[i.rs1, i.rs2]);
            self.write(i.rd, shows | bit, Act::Binary(operation, i.rd, [i.rs1, i.rs2]));
        }
        Some(())
    }

    fn finish(self, branch: &Instruction, lines_count: i32, boxed: u32) -> Option<Plan> {
        let precision = self.precision?;
        let (stored, store) = self.store?;
        // Every NaN must show in what is stored, and nothing may be carried on.
        let is_shown = self.computed == self.shows[usize::from(stored & 31)];
        let is_boxed = precision == Precision::Double || self.read & !boxed == 0;
        if !is_shown || !is_boxed || self.read & self.written != 0 {
            return None;
        }
        let step = |(register, value): (usize, &Option<Sum>)| {
            let value = (*value)?;
            let same = Sum { offset: 0, ..value } == Sum::register(u8::try_from(register).ok()?);
            same.then_some(value.offset)
        };
        let mut steps = [None; 32];
        for (to, value) in steps.iter_mut().zip(self.values.iter().enumerate()) {
            *to = step(value);
        }
        let bytes = 1 << element_shift(precision);
        if self.loads.iter().chain([&store]).any(|access| access.step(&steps) != Some(bytes)) {
            return None;
        }
        let together = |load: &Sum| Sum { offset: 0, ..*load } == Sum { offset: 0, ..store };
        let ahead = |load: &Sum| i64::from(store.offset) - i64::from(load.offset);
        if self.loads.iter().any(|load| together(load) && (1..VECTOR).contains(&ahead(load))) {
            return None;
        }
        let (first, second) = (self.value(branch.rs1)?, self.value(branch.rs2)?);
        let (from, to, from_step) = match (branch.op, first.step(&steps)?, second.step(&steps)?) {
            (_, step, 0) if step > 0 || branch.op == Op::Bne => (first, second, step),
            (Op::Bne, 0, step) => (second, first, step),
            _ => return None,
        };
        Some(Plan {
            precision,
            doubts: self.loads.iter().filter(|load| !together(load)).copied().collect(),
            acts: self.acts,
            store,
            constants: self.read,
            may_be_nan: self.computed != 0,
            steps: (1..).zip(&steps[1..]).filter_map(|(register, step)| Some((register, (*step)?))).collect(),
            op: branch.op,
            from,
            to,
            from_step,
            lines_count,
        })
        .filter(|plan| plan.from_step.unsigned_abs().is_power_of_two())
    }
}

fn element_shift(precision: Precision) -> u8 {
    if precision == Precision::Single { 2 } else { 3 }
}

impl Act {
    /// The floating-point registers that it names.
    fn registers(self) -> u32 {
        match self {
            Self::Load(register, _) | Self::Store(register, _) => 1 << register,
            Self::Copy(rd, a) | Self::Root(rd, a) => 1 << rd | 1 << a,
            Self::Binary(_, rd, [a, b]) => 1 << rd | 1 << a | 1 << b,
            Self::Fused(_, rd, [a, b, c]) => 1 << rd | 1 << a | 1 << b | 1 << c,
        }
    }
}

impl Plan {
    fn registers(&self) -> u32 {
        self.acts.iter().fold(0, |all, act| all | act.registers())
    }

    fn accesses(&self) -> impl Iterator<Item = (Sum, Kind)> {
        self.acts.iter().filter_map(|act| match act {
            Act::Load(_, sum) => Some((*sum, Kind::Read)),
            Act::Store(_, sum) => Some((*sum, Kind::Write)),
            _ => None,
        })
    }

    /// Whether all that it works with is in host registers.
    fn has_registers(&self, mapping: &Mapping) -> bool {
        let sums = self.accesses().map(|(sum, _)| sum).chain([self.from, self.to]);
        let mut integers = sums.flat_map(|sum| [sum.base, sum.index]).chain(self.steps().map(|(register, _)| register));
        let floats = self.registers();
        integers.all(|register| register == 0 || mapping.get(register).is_some())
            && (0..32).all(|register| floats >> register & 1 == 0 || mapping.vector(register).is_some())
    }

    /// Registers that grow, and by how much.
    fn steps(&self) -> impl Iterator<Item = (u8, i32)> {
        self.steps.iter().copied().filter(|(_, step)| *step != 0)
    }

    /// Elements in a vector, as a binary logarithm.
    fn lanes_shift(&self) -> u8 {
        VECTOR_SHIFT - element_shift(self.precision)
    }
}

/// Emits the head of the loop: what is tried before an iteration as it is. Nothing of it has been charged.
pub(super) fn emit(e: &mut Emitter<'_>, plan: Plan) {
    let (packed, once) = (e.asm.label(), e.asm.label());
    e.asm.alu(Alu::Cmp, Size::B64, BUDGET, retry());
    e.asm.jcc(Cc::G, once);
    distance(e, &plan);
    let shift = plan.from_step.unsigned_abs().trailing_zeros();
    e.asm.alu_imm(Alu::Cmp, Size::B64, Gpr::Rax, ITERATIONS_MIN << shift);
    e.asm.jcc(Cc::Ae, packed);
    e.asm.bind(once);
    e.cold(move |e| {
        e.asm.bind(packed);
        several(e, &plan, once);
    });
}

/// A unit is entered: its loops are tried.
pub(super) fn begin(e: &mut Emitter<'_>) {
    e.asm.mov_store_imm(Size::B64, retry(), i32::MAX);
}

fn retry() -> Mem {
    field(offset_of!(Hart, translator) + offset_of!(HartState, packed_below))
}

/// A sum as an address.
fn operand(e: &Emitter<'_>, sum: Sum) -> Mem {
    let host = |register: u8| e.mapping.get(register);
    let scale = [Scale::One, Scale::Two, Scale::Four, Scale::Eight][usize::from(sum.shift & 3)];
    match (host(sum.base), host(sum.index)) {
        (Some(base), Some(index)) => Mem::indexed(base, index, scale, sum.offset),
        (Some(base), None) => Mem::at(base, sum.offset),
        (None, Some(index)) => Mem::scaled(index, scale, sum.offset),
        (None, None) => Mem::absolute(sum.offset),
    }
}

/// How far what steps is from what it is compared with, into `rax`. Uses `rcx`.
fn distance(e: &mut Emitter<'_>, plan: &Plan) {
    let (small, large) = if plan.from_step > 0 { (plan.from, plan.to) } else { (plan.to, plan.from) };
    e.asm.lea(Gpr::Rcx, operand(e, small));
    e.asm.lea(Gpr::Rax, operand(e, large));
    e.asm.alu(Alu::Sub, Size::B64, Gpr::Rax, Gpr::Rcx);
}

/// The smaller one of `rax` and `rcx` into `rax`.
fn least(e: &mut Emitter<'_>) {
    e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rax, Gpr::Rcx);
    e.asm.cmov(Cc::A, Size::B64, Gpr::Rax, Gpr::Rcx);
}

/// As many iterations as may be, then on with `once`.
fn several(e: &mut Emitter<'_>, plan: &Plan, once: Label) {
    let (never, again, nan) = (e.asm.label(), e.asm.label(), e.asm.label());
    check(e, plan, once, never);
    let lanes_shift = plan.lanes_shift();
    // There are enough for one.
    e.asm.shift(Shift::Shr, Size::B64, Gpr::Rax, lanes_shift);
    let vector = |e: &Emitter<'_>, register: u8| e.mapping.vector(register).unwrap_or(Xmm(0));
    for register in (0..32).filter(|register| plan.constants >> register & 1 != 0) {
        let own = vector(e, register);
        e.asm.broadcast(plan.precision, own, own);
    }
    if plan.precision == Precision::Single {
        e.held.loose.set_packed(plan.registers());
    }
    e.mark();
    e.asm.align(LOOP_ALIGNMENT, 0);
    e.asm.bind(again);
    for act in &plan.acts {
        let own = |register: u8| vector(e, register);
        match *act {
            Act::Load(rd, sum) => {
                let (own, mem) = (own(rd), operand(e, sum));
                e.asm.load_packed(own, mem.gs());
            }
            Act::Store(register, sum) => {
                let (own, mem) = (own(register), operand(e, sum));
                if plan.may_be_nan {
                    e.asm.unordered(plan.precision, Xmm(0), own, own);
                    e.asm.signs(plan.precision, Gpr::Rcx, Xmm(0));
                    e.asm.test(Size::B32, Gpr::Rcx, Gpr::Rcx);
                    e.asm.jcc(Cc::Ne, nan);
                }
                e.asm.store_packed(mem.gs(), own);
            }
            Act::Copy(rd, a) => {
                let (rd, a) = (own(rd), own(a));
                e.asm.move_packed(rd, a);
            }
            Act::Root(rd, a) => {
                let (rd, a) = (own(rd), own(a));
                e.asm.root_packed(plan.precision, rd, a);
            }
            Act::Binary(op, rd, [a, b]) => {
                let (rd, a, b) = (own(rd), own(a), own(b));
                e.asm.packed(op, plan.precision, rd, a, b);
            }
            Act::Fused(op, rd, [a, b, c]) => {
                let (rd, a, b, c) = (own(rd), own(a), own(b), own(c));
                e.asm.move_packed(Xmm(0), a);
                e.asm.fma_213_packed(op, plan.precision, Xmm(0), b, c);
                e.asm.move_packed(rd, Xmm(0));
            }
        }
    }
    for (register, step) in plan.steps() {
        if let Place::Host(host) = e.place(register) {
            e.asm.alu_imm(Alu::Add, Size::B64, host, step << lanes_shift);
        }
    }
    e.asm.alu_imm(Alu::Sub, Size::B64, BUDGET, plan.lines_count << lanes_shift);
    e.asm.alu_imm(Alu::Sub, Size::B64, Gpr::Rax, 1);
    e.asm.jcc(Cc::Ne, again);
    tidy(e, plan);
    e.asm.jmp(once);
    e.asm.bind(nan);
    tidy(e, plan);
    e.asm.bind(never);
    e.asm.lea(Gpr::Rcx, Mem::at(BUDGET, -PATIENCE * plan.lines_count));
    e.asm.mov_store(Size::B64, retry(), Gpr::Rcx);
    e.asm.jmp(once);
}

/// How many iterations can be done before one as it is, into `rax`. Jumps to `once` if there is no time for them, and to `never` if they cannot be done so.
fn check(e: &mut Emitter<'_>, plan: &Plan, once: Label, never: Label) {
    // One more must fit.
    let charge_shift = plan.lines_count.unsigned_abs().next_power_of_two().trailing_zeros() as u8;
    e.asm.alu_imm(Alu::Cmp, Size::B64, BUDGET, ITERATIONS_MIN << charge_shift);
    e.asm.jcc(Cc::L, once);
    distance(e, plan);
    if plan.op != Op::Bne {
        // Not above already.
        e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, Gpr::Rcx);
        e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rcx, Gpr::Rax);
        e.asm.jcc(if plan.op == Op::Blt { Cc::Ge } else { Cc::Ae }, once);
    }
    for load in &plan.doubts {
        // What one iteration stores, a later one may not load.
        e.asm.lea(Gpr::Rax, operand(e, plan.store));
        e.asm.lea(Gpr::Rcx, operand(e, *load));
        e.asm.alu(Alu::Sub, Size::B64, Gpr::Rax, Gpr::Rcx);
        e.asm.alu_imm(Alu::Sub, Size::B64, Gpr::Rax, 1);
        e.asm.alu_imm(Alu::Cmp, Size::B64, Gpr::Rax, (VECTOR - 1) as i32);
        e.asm.jcc(Cc::B, never);
    }
    distance(e, plan);
    let step_shift = plan.from_step.unsigned_abs().trailing_zeros() as u8;
    if step_shift != 0 {
        e.asm.shift(Shift::Shr, Size::B64, Gpr::Rax, step_shift);
    }
    e.asm.mov(Size::B64, Gpr::Rcx, BUDGET);
    if charge_shift != 0 {
        e.asm.shift(Shift::Shr, Size::B64, Gpr::Rcx, charge_shift);
    }
    e.asm.alu_imm(Alu::Sub, Size::B64, Gpr::Rcx, 1);
    least(e);
    e.asm.mov_imm(Gpr::Rcx, (1 << (PAGE_SHIFT - element_shift(plan.precision))) - 1);
    least(e);
    for (sum, kind) in plan.accesses() {
        e.asm.lea(Gpr::Rcx, operand(e, sum));
        memory::compare_with_limit(e, Gpr::Rcx);
        e.asm.jcc(Cc::Ae, never);
        touch(e, plan.precision, sum, kind);
    }
}

/// The first element of an access, at `rcx`, and the last, in `rax` iterations, are accessed: nothing is in pages between. If they cannot be, here is where
/// that shows.
fn touch(e: &mut Emitter<'_>, precision: Precision, sum: Sum, kind: Kind) {
    let shift = element_shift(precision);
    let (scale, bytes) = if shift == 2 { (Scale::Four, 4) } else { (Scale::Eight, 8) };
    let first = Mem::at(Gpr::Rcx, 0).gs();
    if kind == Kind::Read {
        e.asm.alu_imm(Alu::Cmp, Size::B8, first, 0);
        e.asm.alu_imm(Alu::Cmp, Size::B8, Mem::indexed(Gpr::Rcx, Gpr::Rax, scale, bytes - 1).gs(), 0);
        return;
    }
    let same_page = e.asm.label();
    e.asm.lock();
    e.asm.alu_imm(Alu::Or, Size::B8, first, 0);
    // Whole elements behind the first in its page.
    e.asm.not(Size::B32, Gpr::Rcx);
    e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rcx, (1 << PAGE_SHIFT) - 1);
    e.asm.alu_imm(Alu::Sub, Size::B32, Gpr::Rcx, bytes - 1);
    e.asm.shift(Shift::Sar, Size::B32, Gpr::Rcx, shift);
    e.asm.alu(Alu::Cmp, Size::B32, Gpr::Rcx, Gpr::Rax);
    e.asm.jcc(Cc::Ge, same_page);
    e.asm.lea(Gpr::Rcx, operand(e, sum));
    e.asm.lock();
    e.asm.alu_imm(Alu::Or, Size::B8, Mem::indexed(Gpr::Rcx, Gpr::Rax, scale, bytes - 1).gs(), 0);
    e.asm.bind(same_page);
}

/// Guest registers that stay are what they were.
fn tidy(e: &mut Emitter<'_>, plan: &Plan) {
    e.asm.zero_upper();
    if plan.precision == Precision::Single {
        for register in (0..32).filter(|register| plan.constants >> register & 1 != 0) {
            if let Some(own) = e.mapping.vector(register) {
                float::boxed(e, register, own, Precision::Single);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::{Text, piece};
    use super::*;
    use crate::isa::assemble;

    /// The plan of a loop, whose floating-point registers from `fa0` to `fa5` have vector registers, of which `fa0` holds a single.
    fn of(text: &str) -> Option<Plan> {
        let code = assemble(&format!("again: {text}"), 0).unwrap();
        let mut mapping = Mapping::DEFAULT;
        mapping.assign_vectors(10..16);
        plan(&piece(&Text(code), 0).unwrap(), &mapping, 1 << 10)
    }

    #[test]
    fn loops_as_compilers_write_them() {
        // c[j] += factor * b[k][j]
        let row = of("flw fa4,0(a4)
             flw fa5,0(a5)
             addi a5,a5,4
             fmul.s fa4,fa0,fa4
             addi a4,a4,4
             fadd.s fa5,fa5,fa4
             fsw fa5,-4(a5)
             bne a5,s0,again")
        .unwrap();
        assert_eq!((row.precision, row.constants, row.lines_count), (Precision::Single, 1 << 10, 8));
        assert_eq!((row.store, row.doubts.as_slice()), (Sum::register(15), [Sum::register(14)].as_slice()));
        assert_eq!(row.steps().collect::<Vec<_>>(), [(14, 4), (15, 4)]);
        assert_eq!((row.from, row.from_step, row.to), (Sum { offset: 4, ..Sum::register(15) }, 4, Sum::register(8)));
        // a[i] = b[i] + q * c[i]
        let triad = of("add a4,a2,a5
             fld fa5,0(a4)
             add a4,a1,a5
             fld fa4,0(a4)
             add a4,a0,a5
             addi a5,a5,8
             fmadd.d fa5,fa0,fa5,fa4
             fsd fa5,0(a4)
             bne a5,a3,again")
        .unwrap();
        assert_eq!((triad.precision, triad.doubts.len()), (Precision::Double, 2));
        assert_eq!(triad.store, Sum { index: 10, ..Sum::register(15) });
        assert_eq!(triad.steps().collect::<Vec<_>>(), [(15, 8)]);
        // A counter that falls, an index that is scaled.
        let counted = of("slli a4,a5,3
             add a4,a4,a1
             fld fa5,8(a4)
             fsqrt.d fa5,fa5
             fsd fa5,0(a4)
             addi a5,a5,1
             addi a2,a2,-1
             bne a2,zero,again")
        .unwrap();
        assert_eq!((counted.store, counted.doubts.len()), (Sum { base: 11, index: 15, shift: 3, offset: 0 }, 0));
        assert_eq!((counted.from_step, counted.to), (-1, Sum::register(0)));
    }

    #[test]
    fn what_cannot_go_so() {
        let copy = |body: &str| of(&format!("fld fa5,0(a1)\n{body}\naddi a0,a0,8\naddi a1,a1,8\nbne a0,a2,again"));
        assert!(copy("fsd fa5,0(a0)").is_some_and(|plan| !plan.may_be_nan));
        // A sum is carried on; a part is lost; nothing is stored, or twice; a load follows; formats are mixed; a step is no element; something else is done.
        for body in [
            "fadd.d fa4,fa4,fa5\nfsd fa4,0(a0)",
            "fadd.d fa4,fa5,fa5\nfsd fa5,0(a0)",
            "fadd.d fa5,fa5,fa5",
            "fsd fa5,0(a0)\nfsd fa5,2000(a0)",
            "fsd fa5,0(a0)\nfld fa4,0(a1)",
            "fsw fa5,0(a0)",
            "addi a0,a0,8\nfsd fa5,0(a0)",
            "fsd fa5,0(a0)\nmul a3,a3,a3",
        ] {
            assert!(copy(body).is_none(), "{body}");
        }
        // Each iteration loads what the one before has stored.
        assert!(of("fld fa5,-8(a0)\nfadd.d fa5,fa5,fa0\nfsd fa5,0(a0)\naddi a0,a0,8\nbne a0,a2,again").is_none());
        assert!(of("fld fa5,8(a0)\nfadd.d fa5,fa5,fa0\nfsd fa5,0(a0)\naddi a0,a0,8\nbne a0,a2,again").is_some());
        // Who knows whether that is a single?
        assert!(of("flw fa5,0(a0)\nfadd.s fa5,fa5,fa1\nfsw fa5,0(a0)\naddi a0,a0,4\nbne a0,a2,again").is_none());
        // Not in a host register.
        assert!(of("flw ft0,0(a0)\nfadd.s ft0,ft0,fa0\nfsw ft0,0(a0)\naddi a0,a0,4\nbne a0,a2,again").is_none());
    }
}
