//! F and D by the host's scalar instructions, exact to the bit and to the flag.
//!
//! **Flags.** Host and guest agree on which operation raises what, underflow after rounding included. So in translated code the flags in MXCSR are the
//! guest's: the way in loads them, the way out adds them to `fflags` ([`to_mxcsr`], [`from_mxcsr`]). They are loaded and not just cleared, since a flag that
//! is raised for the first time costs the processor an assist.
//!
//! **NaNs.** Results that are NaNs become the canonical one on a cold path; of fused operations the interpreter does them again, because a
//! host raises no flag for infinity times zero plus a quiet NaN.
//!
//! **Rounding.** Inline is round-to-nearest, and conversions to integers towards zero. A unit is left to the interpreter where `frm` is anything else,
//! where `mstatus.FS` is not dirty, and where a single is not NaN-boxed.
//!
//! **Registers.** Those of the guest live in the hart. Within a piece, values that were read or written stay in `xmm2` to `xmm15` as well, which saves the
//! loads but not the stores: traps and calls out find everything in the hart, and a call out loads again what was held ([`Held`]).

#![allow(clippy::cast_possible_truncation, reason = "constants of a few bits")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Fma, Gpr, Label, Logic, Mem, Precision, Scalar, Size, Xmm};

use super::emit::Emitter;
use super::mapping::field;
use super::memory::{self, Kind};
use crate::hart::Hart;
use crate::hart::csr::Csrs;
use crate::hart::status::mstatus;
use crate::isa::{Instruction, Op};

/// All exceptions masked, round to nearest, and the flag of subnormal operands set, which the guest does not have.
const MXCSR_CLEAR: u32 = 0x1f82;
/// MXCSR outside of translated code: all flags set.
pub(super) const MXCSR_AT_REST: u32 = 0x1fbf;

/// Bits of `fflags` beside those of MXCSR.
const FLAGS: [(u32, u32); 5] = [(1, 0x20), (2, 0x10), (4, 0x08), (8, 0x04), (16, 0x01)];

const TO_MXCSR: [u32; 32] = {
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

/// The accrued flags in MXCSR.
pub(super) fn from_mxcsr(mxcsr: u32) -> u32 {
    FLAGS.iter().fold(0, |flags, (guest, host)| if mxcsr & host == 0 { flags } else { flags | guest })
}

/// The first vector register that holds a guest register; those below are temporaries.
const FIRST: u8 = 2;
const COUNT: usize = 14;

/// Which guest register each vector register holds, and how much of it.
type Slots = [Option<(u8, Precision)>; COUNT];

/// What is known about floating-point registers at this place of a piece.
#[derive(Default)]
pub(super) struct Held {
    slots: Slots,
    /// The slot to give away next.
    next: usize,
    /// Slots that the current instruction uses.
    busy: u32,
    /// Guest registers known to hold a NaN-boxed single.
    boxed: u32,
    /// The state has been found dirty, and the rounding mode to be the inline one.
    ready: bool,
    /// `slots` behind each instruction so far.
    history: Vec<Slots>,
}

impl Held {
    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        (self.slots, self.boxed, self.busy, self.ready) = ([None; COUNT], 0, 0, false);
    }

    /// An instruction ends.
    pub(super) fn settle(&mut self) {
        self.busy = 0;
        self.history.push(self.slots);
    }

    /// The number of the current instruction.
    pub(super) fn number(&self) -> usize {
        self.history.len()
    }

    fn holds(&self, register: u8) -> Option<(Xmm, Precision)> {
        let index = self.slots.iter().position(|slot| slot.is_some_and(|(held, _)| held == register))?;
        Some((slot(index), self.slots[index]?.1))
    }

    /// A vector register that the instruction does not use yet.
    fn fresh(&mut self) -> Xmm {
        while self.busy & 1 << self.next != 0 {
            self.next = (self.next + 1) % COUNT;
        }
        let index = self.next;
        self.next = (index + 1) % COUNT;
        self.busy |= 1 << index;
        self.slots[index] = None;
        slot(index)
    }

    /// From now on `xmm` holds `register`.
    fn hold(&mut self, register: u8, xmm: Xmm, precision: Precision) {
        for slot in &mut self.slots {
            slot.take_if(|(held, _)| *held == register);
        }
        self.slots[usize::from(xmm.0 - FIRST)] = Some((register, precision));
    }
}

fn slot(index: usize) -> Xmm {
    // There are fourteen.
    Xmm(FIRST + u8::try_from(index).unwrap_or(0))
}

/// Cold, behind a call out: loads what is held behind instruction `number`.
pub(super) fn reload(e: &mut Emitter<'_>, number: usize) {
    let slots = e.held.history.get(number).copied().unwrap_or_default();
    for (index, (register, precision)) in slots.into_iter().enumerate().filter_map(|(i, slot)| Some((i, slot?))) {
        e.asm.load_scalar(precision, slot(index), home(register));
    }
}

/// Guest register `f` in the hart.
fn home(register: u8) -> Mem {
    field(offset_of!(Hart, f) + 8 * usize::from(register & 31))
}

/// The upper half of the same.
fn home_upper(register: u8) -> Mem {
    field(offset_of!(Hart, f) + 8 * usize::from(register & 31) + 4)
}

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    use Precision::{Double, Single};
    let nearest = matches!(i.rm, 0 | 7);
    match i.op {
        Flw | Fld | Fsw | Fsd if !e.options.memory => return false,
        Flw => load(e, i, Single),
        Fld => load(e, i, Double),
        Fsw => store(e, i, Single),
        Fsd => store(e, i, Double),
        FaddS if nearest => binary(e, i, Scalar::Add, Single),
        FaddD if nearest => binary(e, i, Scalar::Add, Double),
        FsubS if nearest => binary(e, i, Scalar::Sub, Single),
        FsubD if nearest => binary(e, i, Scalar::Sub, Double),
        FmulS if nearest => binary(e, i, Scalar::Mul, Single),
        FmulD if nearest => binary(e, i, Scalar::Mul, Double),
        FdivS if nearest => binary(e, i, Scalar::Div, Single),
        FdivD if nearest => binary(e, i, Scalar::Div, Double),
        FsqrtS if nearest => root(e, i, Single),
        FsqrtD if nearest => root(e, i, Double),
        FmaddS if nearest => fused(e, i, Fma::Madd, Single),
        FmaddD if nearest => fused(e, i, Fma::Madd, Double),
        FmsubS if nearest => fused(e, i, Fma::Msub, Single),
        FmsubD if nearest => fused(e, i, Fma::Msub, Double),
        FnmsubS if nearest => fused(e, i, Fma::Nmadd, Single),
        FnmsubD if nearest => fused(e, i, Fma::Nmadd, Double),
        FnmaddS if nearest => fused(e, i, Fma::Nmsub, Single),
        FnmaddD if nearest => fused(e, i, Fma::Nmsub, Double),
        FminS => extreme(e, i, Scalar::Min, Single),
        FminD => extreme(e, i, Scalar::Min, Double),
        FmaxS => extreme(e, i, Scalar::Max, Single),
        FmaxD => extreme(e, i, Scalar::Max, Double),
        FsgnjS | FsgnjnS | FsgnjxS => signs(e, i, Single),
        FsgnjD | FsgnjnD | FsgnjxD => signs(e, i, Double),
        FeqS | FltS | FleS => compare(e, i, Single),
        FeqD | FltD | FleD => compare(e, i, Double),
        FcvtSD if nearest => format(e, i, Double, Single),
        FcvtDS if nearest => format(e, i, Single, Double),
        FcvtSW | FcvtSWu | FcvtSL | FcvtSLu if nearest => from_integer(e, i, Single),
        FcvtDW | FcvtDWu | FcvtDL | FcvtDLu if nearest => from_integer(e, i, Double),
        FcvtWS | FcvtWuS | FcvtLS | FcvtLuS if nearest || i.rm == 1 => to_integer(e, i, Single),
        FcvtWD | FcvtWuD | FcvtLD | FcvtLuD if nearest || i.rm == 1 => to_integer(e, i, Double),
        FmvXW | FmvXD => move_out(e, i),
        FmvWX => move_in(e, i, Single),
        FmvDX => move_in(e, i, Double),
        _ => return false,
    }
    true
}

/// A label for what the interpreter must do from here on.
fn leave(e: &mut Emitter<'_>) -> Label {
    let label = e.asm.label();
    e.cold(move |e| {
        e.asm.bind(label);
        e.leave_to_interpreter();
    });
    label
}

/// Once in a piece: the state must be dirty, as instructions would make it, and dynamic rounding to nearest.
fn ready(e: &mut Emitter<'_>) {
    if std::mem::replace(&mut e.held.ready, true) {
        return;
    }
    // A field of one byte.
    const FS: i32 = (mstatus::FS >> 8) as i32;
    let csrs = offset_of!(Hart, csrs);
    let out = leave(e);
    e.asm.movzx(Gpr::Rax, Size::B8, field(csrs + offset_of!(Csrs, mstatus) + 1));
    e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rax, FS);
    e.asm.alu_imm(Alu::Cmp, Size::B32, Gpr::Rax, FS);
    e.asm.jcc(Cc::Ne, out);
    e.asm.alu_imm(Alu::Cmp, Size::B32, field(csrs + offset_of!(Csrs, frm)), 0);
    e.asm.jcc(Cc::Ne, out);
}

/// The value of a guest register, not to be changed. Singles are unboxed.
fn read(e: &mut Emitter<'_>, register: u8, precision: Precision) -> Xmm {
    if let Some((xmm, held)) = e.held.holds(register)
        && held == precision
    {
        e.held.busy |= 1 << (xmm.0 - FIRST);
        return xmm;
    }
    if precision == Precision::Single && e.held.boxed & 1 << register == 0 {
        let out = leave(e);
        e.asm.alu_imm(Alu::Cmp, Size::B32, home_upper(register), -1);
        e.asm.jcc(Cc::Ne, out);
        e.held.boxed |= 1 << register;
    }
    let xmm = e.held.fresh();
    e.asm.load_scalar(precision, xmm, home(register));
    e.held.hold(register, xmm, precision);
    xmm
}

/// The new value of a guest register is in `xmm`, which was fresh.
fn write(e: &mut Emitter<'_>, register: u8, xmm: Xmm, precision: Precision) {
    e.asm.store_scalar(precision, home(register), xmm);
    match precision {
        Precision::Double => e.held.boxed &= !(1 << register),
        Precision::Single => {
            if e.held.boxed & 1 << register == 0 {
                e.asm.mov_store_imm(Size::B32, home_upper(register), -1);
            }
            e.held.boxed |= 1 << register;
        }
    }
    e.held.hold(register, xmm, precision);
}

/// If the result in `xmm` is a NaN, it becomes the canonical one.
fn canonical(e: &mut Emitter<'_>, xmm: Xmm, precision: Precision) {
    let (nan, back) = (e.asm.label(), e.asm.label());
    e.asm.ucomis(precision, xmm, xmm);
    e.asm.jcc(Cc::P, nan);
    e.asm.bind(back);
    e.cold(move |e| {
        e.asm.bind(nan);
        let bits = if precision == Precision::Single { 0x7fc0_0000 } else { 0x7ff8_0000_0000_0000 };
        constant(e, xmm, bits, precision);
        e.asm.jmp(back);
    });
}

/// A constant's bits into a vector register. Uses `rax`.
fn constant(e: &mut Emitter<'_>, xmm: Xmm, bits: u64, precision: Precision) {
    e.asm.mov_imm(Gpr::Rax, bits);
    e.asm.mov_to_xmm(if precision == Precision::Single { Size::B32 } else { Size::B64 }, xmm, Gpr::Rax);
}

fn bytes(precision: Precision) -> Size {
    if precision == Precision::Single { Size::B32 } else { Size::B64 }
}

fn load(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    ready(e);
    let (mem, done) = memory::locate(e, i.rs1, i.imm, bytes(precision), Kind::Read);
    let target = e.held.fresh();
    e.asm.load_scalar(precision, target, mem);
    // Behind a call out the box is there as well.
    write(e, i.rd, target, precision);
    if let Some(done) = done {
        e.asm.bind(done);
    }
}

fn store(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    ready(e);
    let (mem, done) = memory::locate(e, i.rs1, i.imm, bytes(precision), Kind::Write);
    match e.held.holds(i.rs2) {
        // The low half is there in any case, and stores take the bits as they are.
        Some((xmm, held)) if held == precision || precision == Precision::Single => {
            e.asm.store_scalar(precision, mem, xmm);
        }
        _ => {
            e.asm.mov(bytes(precision), Gpr::Rcx, home(i.rs2));
            e.asm.mov_store(bytes(precision), mem, Gpr::Rcx);
        }
    }
    if let Some(done) = done {
        e.asm.bind(done);
    }
}

fn binary(e: &mut Emitter<'_>, i: &Instruction, op: Scalar, precision: Precision) {
    ready(e);
    let (a, b) = (read(e, i.rs1, precision), read(e, i.rs2, precision));
    let target = e.held.fresh();
    e.asm.scalar_of(op, precision, target, a, b);
    canonical(e, target, precision);
    write(e, i.rd, target, precision);
}

fn root(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    ready(e);
    let a = read(e, i.rs1, precision);
    let target = e.held.fresh();
    e.asm.scalar_of(Scalar::Sqrt, precision, target, a, a);
    canonical(e, target, precision);
    write(e, i.rd, target, precision);
}

fn fused(e: &mut Emitter<'_>, i: &Instruction, op: Fma, precision: Precision) {
    ready(e);
    let (a, b, c) = (read(e, i.rs1, precision), read(e, i.rs2, precision), read(e, i.rs3, precision));
    let target = e.held.fresh();
    let done = e.asm.label();
    let slow = e.slow(done);
    e.asm.movaps(target, a);
    e.asm.fma_213(op, precision, target, b, c);
    e.asm.ucomis(precision, target, target);
    e.asm.jcc(Cc::P, slow);
    write(e, i.rd, target, precision);
    e.asm.bind(done);
}

/// Minimum and maximum: the interpreter does NaNs; of two zeros the negative one is smaller, which the host does not know.
fn extreme(e: &mut Emitter<'_>, i: &Instruction, op: Scalar, precision: Precision) {
    ready(e);
    let (a, b) = (read(e, i.rs1, precision), read(e, i.rs2, precision));
    let target = e.held.fresh();
    let (done, equal, back) = (e.asm.label(), e.asm.label(), e.asm.label());
    let slow = e.slow(done);
    e.asm.ucomis(precision, a, b);
    e.asm.jcc(Cc::P, slow);
    e.asm.jcc(Cc::E, equal);
    e.asm.scalar_of(op, precision, target, a, b);
    e.asm.bind(back);
    write(e, i.rd, target, precision);
    e.asm.bind(done);
    e.cold(move |e| {
        e.asm.bind(equal);
        e.asm.movaps(target, a);
        e.asm.logic(if op == Scalar::Min { Logic::Or } else { Logic::And }, target, b);
        e.asm.jmp(back);
    });
}

fn signs(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    use Op::*;
    ready(e);
    let (a, b) = (read(e, i.rs1, precision), read(e, i.rs2, precision));
    let target = e.held.fresh();
    let sign = if precision == Precision::Single { 1 << 31 } else { 1 << 63 };
    match i.op {
        FsgnjS | FsgnjD if a == b => e.asm.movaps(target, a),
        FsgnjxS | FsgnjxD => {
            constant(e, target, sign, precision);
            e.asm.logic(Logic::And, target, b);
            e.asm.logic(Logic::Xor, target, a);
        }
        FsgnjnS | FsgnjnD if a == b => {
            constant(e, target, sign, precision);
            e.asm.logic(Logic::Xor, target, a);
        }
        _ => {
            constant(e, target, sign, precision);
            e.asm.movaps(Xmm(0), target);
            e.asm.logic(Logic::And, Xmm(0), b);
            if matches!(i.op, FsgnjnS | FsgnjnD) {
                e.asm.logic(Logic::Xor, Xmm(0), target);
            }
            e.asm.logic(Logic::Andn, target, a);
            e.asm.logic(Logic::Or, target, Xmm(0));
        }
    }
    write(e, i.rd, target, precision);
}

fn compare(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    ready(e);
    let (a, b) = (read(e, i.rs1, precision), read(e, i.rs2, precision));
    match i.op {
        Op::FeqS | Op::FeqD => {
            e.asm.ucomis(precision, a, b);
            e.asm.setcc(Cc::Np, Gpr::Rax);
            e.asm.setcc(Cc::E, Gpr::Rcx);
            e.asm.alu(Alu::And, Size::B32, Gpr::Rax, Gpr::Rcx);
        }
        // Unordered sets the carry.
        op => {
            e.asm.comis(precision, b, a);
            e.asm.setcc(if matches!(op, Op::FltS | Op::FltD) { Cc::A } else { Cc::Ae }, Gpr::Rax);
        }
    }
    let target = e.target(i.rd, Gpr::Rax);
    e.asm.movzx(target, Size::B8, Gpr::Rax);
    e.write(i.rd, target);
}

fn format(e: &mut Emitter<'_>, i: &Instruction, from: Precision, to: Precision) {
    ready(e);
    let a = read(e, i.rs1, from);
    let target = e.held.fresh();
    e.asm.logic(Logic::Xor, target, target);
    e.asm.cvt_format(from, target, a);
    canonical(e, target, to);
    write(e, i.rd, target, to);
}

fn from_integer(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    use Op::*;
    ready(e);
    let source = e.read(i.rs1, Gpr::Rax);
    let target = e.held.fresh();
    e.asm.logic(Logic::Xor, target, target);
    let done = e.asm.label();
    match i.op {
        FcvtSW | FcvtDW => e.asm.cvt_from_integer(precision, Size::B32, target, source),
        FcvtSWu | FcvtDWu => {
            e.asm.mov(Size::B32, Gpr::Rax, source);
            e.asm.cvt_from_integer(precision, Size::B64, target, Gpr::Rax);
        }
        op => {
            if matches!(op, FcvtSLu | FcvtDLu) {
                let slow = e.slow(done);
                e.asm.test(Size::B64, source, source);
                e.asm.jcc(Cc::S, slow);
            }
            e.asm.cvt_from_integer(precision, Size::B64, target, source);
        }
    }
    write(e, i.rd, target, precision);
    e.asm.bind(done);
}

/// What does not fit is left to the interpreter. Of signed conversions the host then answers its smallest integer and raises
/// what the guest raises; those to unsigned integers are done by the next larger signed one, so the range is looked at before.
fn to_integer(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    use Op::*;
    ready(e);
    let source = read(e, i.rs1, precision);
    let done = e.asm.label();
    let slow = e.slow(done);
    let word = matches!(i.op, FcvtWS | FcvtWD | FcvtWuS | FcvtWuD);
    let signed = matches!(i.op, FcvtWS | FcvtWD | FcvtLS | FcvtLD);
    if !signed {
        // As integers, the bits of negative numbers and NaNs are the larger ones.
        let end = match (precision, word) {
            (Precision::Single, true) => 0x4f80_0000,
            (Precision::Single, false) => 0x5f00_0000,
            (Precision::Double, true) => 0x41ef_ffff_ffe0_0001,
            (Precision::Double, false) => 0x43e0_0000_0000_0000,
        };
        e.asm.mov_from_xmm(bytes(precision), Gpr::Rax, source);
        e.asm.mov_imm(Gpr::Rcx, end);
        e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rax, Gpr::Rcx);
        e.asm.jcc(Cc::Ae, slow);
    }
    let size = if word && signed { Size::B32 } else { Size::B64 };
    if i.rm == 1 {
        e.asm.cvtt_to_integer(precision, size, Gpr::Rax, source);
    } else {
        e.asm.cvt_to_integer(precision, size, Gpr::Rax, source);
    }
    if signed {
        // Overflows for the smallest integer alone.
        e.asm.alu_imm(Alu::Cmp, size, Gpr::Rax, 1);
        e.asm.jcc(Cc::O, slow);
    }
    if word {
        let target = e.target(i.rd, Gpr::Rax);
        e.asm.movsx(target, Size::B32, Gpr::Rax);
        e.write(i.rd, target);
    } else {
        e.write(i.rd, Gpr::Rax);
    }
    e.asm.bind(done);
}

fn move_out(e: &mut Emitter<'_>, i: &Instruction) {
    ready(e);
    let target = e.target(i.rd, Gpr::Rax);
    match (i.op, e.held.holds(i.rs1)) {
        (Op::FmvXW, Some((xmm, _))) => {
            e.asm.mov_from_xmm(Size::B32, Gpr::Rax, xmm);
            e.asm.movsx(target, Size::B32, Gpr::Rax);
        }
        (Op::FmvXW, None) => e.asm.movsx(target, Size::B32, home(i.rs1)),
        (_, Some((xmm, Precision::Double))) => e.asm.mov_from_xmm(Size::B64, target, xmm),
        _ => e.asm.mov(Size::B64, target, home(i.rs1)),
    }
    e.write(i.rd, target);
}

fn move_in(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    ready(e);
    let source = e.read(i.rs1, Gpr::Rax);
    let target = e.held.fresh();
    e.asm.mov_to_xmm(bytes(precision), target, source);
    write(e, i.rd, target, precision);
}
