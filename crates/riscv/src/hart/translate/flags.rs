//! The accrued floating-point exceptions: in translated code they are those of MXCSR.
//!
//! Host and guest agree on which operation raises what, underflow after rounding included. The way in loads the guest's flags into MXCSR, the way
//! out adds those of MXCSR to `fflags` ([`load`], [`from_mxcsr`]). They are loaded and not just cleared, since a flag that is raised for the first
//! time costs the processor an assist. They stay there outside, where nobody looks at them.
//!
//! **Watched flags.** To read MXCSR is to wait for all operations before. In programs that do it often, as comparisons that raise nothing do, the flags are
//! in the hart as well, and MXCSR has the exceptions of all others unmasked: the first operation that would accrue one traps instead ([`unwatch`]). Then
//! the flags are no longer watched, and the operation is done again. A trap takes as long as a hundred readings, so a program that brings it about again and
//! again is not watched any more.

#![allow(clippy::cast_possible_truncation, reason = "constants of a few bits")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Gpr, Mem, Precision, Scale, Size};

use super::emit::Emitter;
use super::float::{read, ready};
use super::gather::{self, Line};
use super::mapping::field;
use super::state::HartState;
use crate::hart::Hart;
use crate::isa::{Instruction, Op};

/// All exceptions masked, round to nearest, and the flag of subnormal operands set, which the guest does not have.
const MXCSR_CLEAR: u32 = 0x1f82;
/// Bits of `fflags` beside those of MXCSR.
const FLAGS: [(u32, u32); 5] = [(1, 0x20), (2, 0x10), (4, 0x08), (8, 0x04), (16, 0x01)];

static TO_MXCSR: [u32; 32] = {
    let mut table = [MXCSR_CLEAR; 32];
    let mut i = 0;
    while i < 32 * 5 {
        let (guest, host) = FLAGS[i % 5];
        if (i / 5) as u32 & guest != 0 {
            table[i / 5] |= host;
        }
        i += 1;
    }
    table
};

/// MXCSR with these flags accrued.
pub(super) fn to_mxcsr(fflags: u32) -> u32 {
    TO_MXCSR[(fflags & 31) as usize]
}

/// From a flag to the bit that masks its exception.
const MASKS: u32 = 7;
/// The flags that the guest has.
const HOST_FLAGS: u32 = 0x3d;
/// [`HartState::watched`] if MXCSR alone has the flags.
pub(super) const UNWATCHED: i32 = -1;
/// How often MXCSR is read before the flags are watched.
const READS: u32 = 1000;
/// How often an operation traps before no more are watched.
const TRAPS_MAX: u32 = 16;

/// In front of translated code: the hart's flags are those of MXCSR, which will be loaded. `flat`: somebody handles the host's traps.
pub(super) fn load(hart: &mut Hart, flat: bool) {
    let (fflags, state) = (hart.fflags & 31, &mut hart.translator);
    let plain = to_mxcsr(fflags);
    if state.watched != UNWATCHED || flat && state.flag_reads > READS && state.flag_traps < TRAPS_MAX {
        state.watched = fflags.cast_signed();
        state.mxcsr = plain & !((!plain & HOST_FLAGS) << MASKS);
    } else {
        state.mxcsr = plain;
    }
}

/// An operation would accrue a flag: that is not watched any longer. The value of MXCSR with which it is to be done again; `None` if nothing was watched.
pub(super) fn unwatch(state: &mut HartState) -> Option<u32> {
    let flags = u32::try_from(state.watched).ok()?;
    state.watched = UNWATCHED;
    state.flag_reads = 0;
    state.flag_traps += 1;
    Some(to_mxcsr(flags))
}

/// The accrued flags in MXCSR.
pub(super) fn from_mxcsr(mxcsr: u32) -> u32 {
    FROM_MXCSR[(mxcsr & 0x3f) as usize].into()
}

/// By the flags of MXCSR.
static FROM_MXCSR: [u8; 64] = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 * 5 {
        let (guest, host) = FLAGS[i % 5];
        if (i / 5) as u32 & host != 0 {
            table[i / 5] |= guest as u8;
        }
        i += 1;
    }
    table
};

fn state(offset: usize) -> Mem {
    field(offset_of!(Hart, translator) + offset)
}

/// MXCSR, in memory.
fn mxcsr() -> Mem {
    state(offset_of!(HartState, mxcsr))
}

/// The watched flags.
fn watched() -> Mem {
    state(offset_of!(HartState, watched))
}

/// `rd` becomes the accrued flags.
pub(super) fn read_flags(e: &mut Emitter<'_>, rd: u8) {
    let target = e.target(rd, Gpr::Rax);
    let (look, back) = (e.asm.label(), e.asm.label());
    e.asm.mov(Size::B32, target, watched());
    e.asm.test(Size::B32, target, target);
    e.asm.jcc(Cc::S, look);
    e.asm.bind(back);
    e.write(rd, target);
    e.cold(move |e| {
        e.asm.bind(look);
        e.asm.alu_imm(Alu::Add, Size::B32, state(offset_of!(HartState, flag_reads)), 1);
        e.asm.stmxcsr(mxcsr());
        e.asm.mov(Size::B32, Gpr::Rax, mxcsr());
        e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rax, 0x3f);
        e.asm.mov_imm(Gpr::Rcx, FROM_MXCSR.as_ptr() as u64);
        e.asm.movzx(target, Size::B8, Mem::indexed(Gpr::Rcx, Gpr::Rax, Scale::One, 0));
        e.asm.jmp(back);
    });
}

/// The accrued flags become those in `rax`, which are not watched from now on.
fn write_flags(e: &mut Emitter<'_>) {
    e.asm.mov_store_imm(Size::B32, watched(), UNWATCHED);
    e.asm.mov_imm(Gpr::Rcx, TO_MXCSR.as_ptr() as u64);
    e.asm.mov(Size::B32, Gpr::Rax, Mem::indexed(Gpr::Rcx, Gpr::Rax, Scale::Four, 0));
    e.asm.mov_store(Size::B32, mxcsr(), Gpr::Rax);
    e.asm.ldmxcsr(mxcsr());
}

pub(super) fn exchange_flags(e: &mut Emitter<'_>, i: &Instruction) {
    ready(e);
    e.copy(i.rs1, Gpr::Rdx);
    if i.rd != 0 {
        read_flags(e, i.rd);
    }
    let same = e.asm.label();
    e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rdx, 31);
    e.asm.mov_store(Size::B32, field(offset_of!(Hart, fflags)), Gpr::Rdx);
    e.asm.mov(Size::B32, Gpr::Rax, Gpr::Rdx);
    e.asm.alu(Alu::Cmp, Size::B32, Gpr::Rax, watched());
    e.asm.jcc(Cc::E, same);
    write_flags(e);
    e.asm.bind(same);
}

/// A comparison that raises nothing, as compilers write it: `frflags t; flt.d rd, a, b; fsflags t`. Answers how many instructions that were, or zero.
pub(super) fn fused_compare(e: &mut Emitter<'_>, lines: &[Line]) -> usize {
    let [save, compare, restore, ..] = lines else { return 0 };
    let (save, i, restore) = (save.instruction, compare.instruction, restore.instruction);
    let precision = match i.op {
        Op::FltS | Op::FleS | Op::FeqS => Precision::Single,
        Op::FltD | Op::FleD | Op::FeqD => Precision::Double,
        _ => return 0,
    };
    let fits = gather::reads_flags(&save)
        && gather::writes_flags(&restore)
        && restore.rd == 0
        && save.rd != 0
        && restore.rs1 == save.rd
        && i.rd != save.rd;
    if !fits {
        return 0;
    }
    ready(e);
    let (a, b) = (read(e, i.rs1, precision), read(e, i.rs2, precision));
    read_flags(e, save.rd);
    let (signals, back) = (e.asm.label(), e.asm.label());
    let (left, right) = if matches!(i.op, Op::FeqS | Op::FeqD) { (a, b) } else { (b, a) };
    e.asm.ucomis(precision, left, right);
    e.asm.jcc(Cc::P, signals);
    if i.rd != 0 {
        let holds = match i.op {
            Op::FeqS | Op::FeqD => Cc::E,
            Op::FltS | Op::FltD => Cc::A,
            _ => Cc::Ae,
        };
        e.asm.setcc(holds, Gpr::Rax);
        let target = e.target(i.rd, Gpr::Rax);
        e.asm.movzx(target, Size::B8, Gpr::Rax);
        e.write(i.rd, target);
    }
    e.asm.bind(back);
    e.cold(move |e| {
        e.asm.bind(signals);
        // A signaling NaN may have raised what the guest takes back.
        e.copy(save.rd, Gpr::Rax);
        write_flags(e);
        e.write_constant(i.rd, 0);
        e.asm.jmp(back);
    });
    e.set_known(save.rd, None);
    e.set_known(i.rd, None);
    3
}
