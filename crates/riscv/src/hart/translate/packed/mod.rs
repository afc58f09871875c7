//! Packed: several iterations at once of loops that copy or fill memory, or do the same to each element of arrays of floating-point numbers (user machines).
//!
//! ```text
//! head:   may try again? enough iterations left? --yes--> cold: arrays do not overlap, a page's worth of each can be accessed:
//! once:   the loop as it is, one iteration                      so many times:  load, compute, a NaN? --> once
//!         branch --> head                                                       store, advance
//!                                                               is that all? --> once, or behind the loop
//! ```
//!
//! A loop qualifies if it is one piece of these instructions: loads that follow each other in memory, operations on what they loaded and on registers that
//! stay, one store, and steps of address registers. Nothing is carried from one iteration to the next. Or, with integer registers: stores of what was loaded,
//! or of a register that stays, without a gap.
//!
//! **What is exact.** Vectors are where the guest's registers are, in all 256 bits. After each few iterations memory, address registers and budget are the
//! guest's. What an iteration computes for itself is taken from the last places of the vectors, where that is all there is. Else one as it is
//! always follows, for which there is budget, and which accesses only what has just been touched: it cannot trap, so there is nothing to restore. Where a result is a NaN, the same iterations are done one by one, before anybody can look.
//! Should another thread take the memory away meanwhile, the trap is at the head, and only registers that the loop is about to write have other values.
//!
//! **What it costs.** A loop that cannot go so, since its arrays overlap or have NaNs, tries again after a while.

#![allow(clippy::cast_possible_truncation, reason = "constants of a few bits")]

mod plan;

pub(super) use plan::{Plan, plan};

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Gpr, Label, Mem, Precision, Scale, Shift, Size, Xmm};

use plan::{Act, Sum};

use super::emit::{Emitter, Place};
use super::float;
use super::mapping::{BUDGET, field};
use super::memory::{self, Kind};
use super::state::HartState;
use crate::hart::Hart;
use crate::isa::Op;

/// Iterations before the next try, if one came to nothing.
const PATIENCE: i32 = 256;
const PAGE_SHIFT: u8 = 12;
/// The loop begins at a multiple of this.
const LOOP_ALIGNMENT: usize = 32;

/// Emits the head of the loop: what is tried before an iteration as it is. Nothing of it has been charged.
pub(super) fn emit(e: &mut Emitter<'_>, plan: Plan) {
    let (packed, once) = (e.asm.label(), e.asm.label());
    e.asm.alu(Alu::Cmp, Size::B64, BUDGET, retry());
    e.asm.jcc(Cc::G, once);
    distance(e, &plan);
    let shift = plan.from_step.unsigned_abs().trailing_zeros();
    e.asm.alu_imm(Alu::Cmp, Size::B64, Gpr::Rax, plan.iterations_min << shift);
    e.asm.jcc(Cc::Ae, packed);
    // The few that are left are not counted again.
    if shift != 0 {
        e.asm.shift(Shift::Shr, Size::B64, Gpr::Rax, shift as u8);
    }
    e.asm.mov_imm(Gpr::Rcx, i64::from(-plan.lines_count).cast_unsigned());
    e.asm.imul(Size::B64, Gpr::Rax, Gpr::Rcx);
    e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, BUDGET);
    e.asm.mov_store(Size::B64, retry(), Gpr::Rax);
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
    bound(e, small, Gpr::Rcx);
    bound(e, large, Gpr::Rax);
    e.asm.alu(Alu::Sub, Size::B64, Gpr::Rax, Gpr::Rcx);
}

/// What is compared, into `to`.
fn bound(e: &mut Emitter<'_>, sum: Sum, to: Gpr) {
    if sum.index == 0 && sum.base != 0 && e.mapping.get(sum.base).is_none() {
        e.copy(sum.base, to);
        e.asm.lea(to, Mem::at(to, sum.offset));
    } else {
        e.asm.lea(to, operand(e, sum));
    }
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
    if plan.written.is_some() {
        // None need follow.
        e.asm.alu_imm(Alu::Add, Size::B64, Gpr::Rax, 1 << plan.step_shift);
    }
    // There is enough for a round.
    e.asm.shift(Shift::Shr, Size::B64, Gpr::Rax, plan.round_shift());
    let iterations_shift = plan.round_shift() - plan.step_shift;
    if let Some((register, shift)) = plan.filler {
        let value = e.read(register, Gpr::Rcx);
        e.asm.mov_to_xmm(Size::B64, Xmm(0), value);
        e.asm.broadcast_integer(shift, Xmm(0), Xmm(0));
    }
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
            Act::Move(from, to) => {
                let (from, to) = (operand(e, from), operand(e, to));
                e.asm.load_packed(Xmm(0), from.gs());
                e.asm.store_packed(to.gs(), Xmm(0));
            }
            Act::Fill(to) => {
                let to = operand(e, to);
                e.asm.store_packed(to.gs(), Xmm(0));
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
            e.asm.alu_imm(Alu::Add, Size::B64, host, step << iterations_shift);
        }
    }
    e.asm.alu_imm(Alu::Sub, Size::B64, BUDGET, plan.lines_count << iterations_shift);
    e.asm.alu_imm(Alu::Sub, Size::B64, Gpr::Rax, 1);
    e.asm.jcc(Cc::Ne, again);
    let done = e.asm.label();
    if plan.written.is_some() {
        e.asm.jmp(done);
    } else {
        tidy(e, plan);
        e.asm.jmp(once);
    }
    e.asm.bind(nan);
    tidy(e, plan);
    e.asm.bind(never);
    e.asm.lea(Gpr::Rcx, Mem::at(BUDGET, -PATIENCE * plan.lines_count));
    e.asm.mov_store(Size::B64, retry(), Gpr::Rcx);
    e.asm.jmp(once);
    if let Some(written) = plan.written {
        e.asm.bind(done);
        take_last(e, plan, written);
        tidy(e, plan);
        e.held.loose.set_packed(0);
        e.mark();
        // The last iteration's comparison.
        bound(e, plan.from, Gpr::Rcx);
        bound(e, plan.to, Gpr::Rax);
        e.asm.alu_imm(Alu::Sub, Size::B64, Gpr::Rcx, plan.from_step);
        e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rcx, Gpr::Rax);
        e.asm.jcc(
            match plan.op {
                Op::Blt => Cc::L,
                Op::Bltu => Cc::B,
                _ => Cc::Ne,
            },
            once,
        );
        e.edge(plan.end);
    }
}

/// Guest registers that were written are what the last iteration left in them.
fn take_last(e: &mut Emitter<'_>, plan: &Plan, written: u32) {
    let vector = |last: usize| field(offset_of!(Hart, translator) + offset_of!(HartState, vector) + last);
    let last = if plan.precision == Precision::Single { 28 } else { 24 };
    for register in (0..32).filter(|register| written >> register & 1 != 0) {
        if let Some(own) = e.mapping.vector(register) {
            e.asm.store_packed(vector(0), own);
            e.asm.load_scalar(plan.precision, own, vector(last));
            if plan.precision == Precision::Single {
                float::boxed(e, register, own, Precision::Single);
            }
        }
    }
}

/// How many bytes the iterations go on that can be done before one as it is, into `rax`. Jumps to `once` if there is no time for them, and to `never` if they cannot be done so.
fn check(e: &mut Emitter<'_>, plan: &Plan, once: Label, never: Label) {
    // One more must fit.
    let charge_shift = plan.lines_count.unsigned_abs().next_power_of_two().trailing_zeros() as u8;
    e.asm.alu_imm(Alu::Cmp, Size::B64, BUDGET, plan.iterations_min << charge_shift);
    e.asm.jcc(Cc::L, once);
    distance(e, plan);
    if plan.op != Op::Bne {
        // Not above already.
        e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, Gpr::Rcx);
        e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rcx, Gpr::Rax);
        e.asm.jcc(if plan.op == Op::Blt { Cc::Ge } else { Cc::Ae }, once);
    }
    for load in &plan.doubts {
        e.asm.lea(Gpr::Rax, operand(e, plan.store));
        e.asm.lea(Gpr::Rcx, operand(e, *load));
        e.asm.alu(Alu::Sub, Size::B64, Gpr::Rax, Gpr::Rcx);
        e.asm.alu_imm(Alu::Add, Size::B64, Gpr::Rax, plan.overlap.0);
        e.asm.alu_imm(Alu::Cmp, Size::B64, Gpr::Rax, plan.overlap.1);
        e.asm.jcc(Cc::B, never);
    }
    distance(e, plan);
    let from_shift = plan.from_step.unsigned_abs().trailing_zeros() as u8;
    if from_shift != 0 {
        e.asm.shift(Shift::Shr, Size::B64, Gpr::Rax, from_shift);
    }
    e.asm.mov(Size::B64, Gpr::Rcx, BUDGET);
    if charge_shift != 0 {
        e.asm.shift(Shift::Shr, Size::B64, Gpr::Rcx, charge_shift);
    }
    e.asm.alu_imm(Alu::Sub, Size::B64, Gpr::Rcx, 1);
    least(e);
    e.asm.mov_imm(Gpr::Rcx, (1 << (PAGE_SHIFT - plan.step_shift)) - 1);
    least(e);
    if plan.step_shift != 0 {
        e.asm.shift(Shift::Shl, Size::B64, Gpr::Rax, plan.step_shift);
    }
    for &(sum, kind) in &plan.accesses {
        e.asm.lea(Gpr::Rcx, operand(e, sum));
        memory::compare_with_limit(e, Gpr::Rcx);
        e.asm.jcc(Cc::Ae, never);
        touch(e, plan.step_shift, sum, kind);
    }
}

/// The first byte of an access, at `rcx`, and the last, when it has gone on by `rax`, are accessed: nothing is in pages between. If they cannot be, here is
/// where that shows.
fn touch(e: &mut Emitter<'_>, step_shift: u8, sum: Sum, kind: Kind) {
    let rest = (1 << step_shift) - 1;
    let first = Mem::at(Gpr::Rcx, 0).gs();
    let last = Mem::indexed(Gpr::Rcx, Gpr::Rax, Scale::One, rest).gs();
    if kind == Kind::Read {
        e.asm.alu_imm(Alu::Cmp, Size::B8, first, 0);
        e.asm.alu_imm(Alu::Cmp, Size::B8, last, 0);
        return;
    }
    let same_page = e.asm.label();
    e.asm.lock();
    e.asm.alu_imm(Alu::Or, Size::B8, first, 0);
    // What follows the first byte in its page.
    e.asm.not(Size::B32, Gpr::Rcx);
    e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rcx, (1 << PAGE_SHIFT) - 1);
    e.asm.alu_imm(Alu::Sub, Size::B32, Gpr::Rcx, rest);
    e.asm.alu(Alu::Cmp, Size::B32, Gpr::Rcx, Gpr::Rax);
    e.asm.jcc(Cc::Ge, same_page);
    e.asm.lea(Gpr::Rcx, operand(e, sum));
    e.asm.lock();
    e.asm.alu_imm(Alu::Or, Size::B8, last, 0);
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
