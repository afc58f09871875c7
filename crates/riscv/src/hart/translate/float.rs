//! F and D by the host's scalar instructions, exact to the bit and to the flag.
//!
//! **Flags.** Those of the guest are in MXCSR: [`super::flags`].
//!
//! **NaNs.** Results that are NaNs become the canonical one on a cold path; of fused operations the interpreter does them again, because a
//! host raises no flag for infinity times zero plus a quiet NaN. Results in registers of their own may stay [`Loose`] for a while: which NaN it is matters only
//! when bits are stored or moved, where the unit is left, and to traps.
//!
//! **Rounding.** Inline is round-to-nearest, and conversions to integers towards zero. A unit is left to the interpreter where `frm` is anything else,
//! where `mstatus.FS` is not dirty, and where a single is not NaN-boxed.
//!
//! **Registers.** In a region, those used most have vector registers of their own ([`Mapping`](super::mapping::Mapping)), with all 64 bits as the guest has
//! them; the host's operations on singles keep the upper half of their first operand, and so its box. The others live in the hart. Within a piece, values of
//! those that were read or written stay in the remaining vector registers as well, which saves the loads but not the stores: traps and calls out find
//! everything in the hart, and a call out loads again what was held ([`Held`]).

#![allow(clippy::cast_possible_truncation, reason = "constants of a few bits")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Fma, Gpr, Label, Logic, Mem, Precision, Scalar, Shift, Size, Xmm};

use super::emit::Emitter;
use super::flags;
use super::gather;
use super::mapping::{VECTORS, field, home_float as home};
use super::memory::{self, Kind};
use super::state::HartState;
use crate::hart::Hart;
use crate::hart::csr::Csrs;
use crate::hart::status::mstatus;
use crate::isa::{Instruction, Op};

/// The first vector register that holds a guest register; those below are temporaries.
const FIRST: u8 = 2;
const COUNT: usize = 14;

/// Which guest register each vector register holds, and how much of it.
type Slots = [Option<(u8, Precision)>; COUNT];

/// Guest registers in vector registers that may hold another NaN than the canonical one, which the guest has: by their precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loose {
    single: u32,
    double: u32,
    /// Several singles, of which the guest has the first, in its box.
    packed: u32,
}

impl Loose {
    fn all(self) -> u32 {
        self.single | self.double
    }

    fn without(self, registers: u32) -> Self {
        Self { single: self.single & !registers, double: self.double & !registers, ..self }
    }

    fn precision(self, register: u8) -> Precision {
        if self.single >> register & 1 != 0 { Precision::Single } else { Precision::Double }
    }

    /// From here on these hold several singles each.
    pub(super) fn set_packed(&mut self, registers: u32) {
        self.packed = registers;
    }

    /// What guest register `register` is, of which `bits` are in its vector register.
    pub(super) fn exact(self, register: u8, bits: u64) -> u64 {
        #[allow(clippy::cast_possible_truncation, reason = "the low half is the single")]
        let single = bits as u32;
        if self.single >> register & 1 != 0 && f32::from_bits(single).is_nan() {
            NAN_SINGLE
        } else if self.double >> register & 1 != 0 && f64::from_bits(bits).is_nan() {
            NAN_DOUBLE
        } else if self.packed >> register & 1 != 0 {
            bits | BOX
        } else {
            bits
        }
    }
}

/// The canonical NaNs; that of singles in its box.
const NAN_SINGLE: u64 = 0xffff_ffff_7fc0_0000;
const NAN_DOUBLE: u64 = 0x7ff8_0000_0000_0000;
/// What is above a single.
const BOX: u64 = 0xffff_ffff_0000_0000;

fn bits(registers: u32) -> impl Iterator<Item = u8> {
    (0..32).filter(move |register| registers >> register & 1 != 0)
}

/// What is known about floating-point registers at this place of a piece.
pub(super) struct Held {
    pub(super) loose: Loose,
    /// By register: those that are no NaNs if it is none, since it was computed from them as they still are.
    covers: [u32; 32],
    slots: Slots,
    /// How many of them there are.
    count: usize,
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
    /// `assigned` vector registers are not to be used.
    pub(super) fn new(assigned: usize) -> Self {
        let count = COUNT - assigned.min(VECTORS.into());
        let (loose, covers) = (Loose::default(), [0; 32]);
        Self {
            loose,
            covers,
            slots: [None; COUNT],
            count,
            next: 0,
            busy: 0,
            boxed: 0,
            ready: false,
            history: Vec::new(),
        }
    }

    /// A piece begins, or anything may have happened: nothing is known but this.
    pub(super) fn begin(&mut self, boxed: u32, ready: bool) {
        (self.slots, self.boxed, self.busy, self.ready) = ([None; COUNT], boxed, 0, ready);
        self.loose = Loose::default();
    }

    /// A register gets a new value.
    fn redefine(&mut self, register: u8) {
        let bit = 1 << register;
        self.loose = self.loose.without(bit);
        self.covers[usize::from(register)] = 0;
        for covers in &mut self.covers {
            *covers &= !bit;
        }
    }

    /// What is no NaN if what is computed from `sources` is none.
    fn covered(&self, sources: &[u8]) -> u32 {
        let of = |register: &u8| 1 << register | self.covers[usize::from(*register)];
        self.loose.all() & sources.iter().map(of).fold(0, |all, covered| all | covered)
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
            self.next = (self.next + 1) % self.count;
        }
        let index = self.next;
        self.next = (index + 1) % self.count;
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

/// The upper half of guest register `f` in the hart.
fn home_upper(register: u8) -> Mem {
    field(offset_of!(Hart, f) + 8 * usize::from(register & 31) + 4)
}

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    use Precision::{Double, Single};
    let nearest = is_to_nearest(i);
    if let Some((op, precision)) = fused_operation(i.op) {
        if nearest {
            fused(e, i, op, precision);
        }
        return nearest;
    }
    if let Some((op, precision)) = operation(i.op) {
        match op {
            _ if !nearest => {}
            Scalar::Sqrt => root(e, i, precision),
            op => binary(e, i, op, precision),
        }
        return nearest;
    }
    match i.op {
        Flw | Fld | Fsw | Fsd if !e.options.memory => return false,
        Flw => load(e, i, Single),
        Fld => load(e, i, Double),
        Fsw => store(e, i, Single),
        Fsd => store(e, i, Double),
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
        Csrrs if gather::reads_flags(i) => {
            ready(e);
            flags::read_flags(e, i.rd);
        }
        Csrrw if gather::writes_flags(i) => flags::exchange_flags(e, i),
        _ => return false,
    }
    true
}

/// Whether an operation rounds as it is done inline.
pub(super) fn is_to_nearest(i: &Instruction) -> bool {
    matches!(i.rm, 0 | 7)
}

/// Operations that the host has as well, whose result is a NaN if an operand is.
pub(super) fn operation(op: Op) -> Option<(Scalar, Precision)> {
    use Op::*;
    use Precision::{Double, Single};
    Some(match op {
        FaddS => (Scalar::Add, Single),
        FaddD => (Scalar::Add, Double),
        FsubS => (Scalar::Sub, Single),
        FsubD => (Scalar::Sub, Double),
        FmulS => (Scalar::Mul, Single),
        FmulD => (Scalar::Mul, Double),
        FdivS => (Scalar::Div, Single),
        FdivD => (Scalar::Div, Double),
        FsqrtS => (Scalar::Sqrt, Single),
        FsqrtD => (Scalar::Sqrt, Double),
        _ => return None,
    })
}

/// The same of three operands.
pub(super) fn fused_operation(op: Op) -> Option<(Fma, Precision)> {
    use Op::*;
    use Precision::{Double, Single};
    Some(match op {
        FmaddS => (Fma::Madd, Single),
        FmaddD => (Fma::Madd, Double),
        FmsubS => (Fma::Msub, Single),
        FmsubD => (Fma::Msub, Double),
        FnmsubS => (Fma::Nmadd, Single),
        FnmsubD => (Fma::Nmadd, Double),
        FnmaddS => (Fma::Nmsub, Single),
        FnmaddD => (Fma::Nmsub, Double),
        _ => return None,
    })
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
pub(super) fn ready(e: &mut Emitter<'_>) {
    if std::mem::replace(&mut e.held.ready, true) {
        return;
    }
    let out = leave(e);
    check_ready(e, out);
}

/// As [`ready`]: jumps to `out` if it is not so.
pub(super) fn check_ready(e: &mut Emitter<'_>, out: Label) {
    // A field of one byte.
    const FS: i32 = (mstatus::FS >> 8) as i32;
    let csrs = offset_of!(Hart, csrs);
    e.asm.movzx(Gpr::Rax, Size::B8, field(csrs + offset_of!(Csrs, mstatus) + 1));
    e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rax, FS);
    e.asm.alu_imm(Alu::Cmp, Size::B32, Gpr::Rax, FS);
    e.asm.jcc(Cc::Ne, out);
    e.asm.alu_imm(Alu::Cmp, Size::B32, field(csrs + offset_of!(Csrs, frm)), 0);
    e.asm.jcc(Cc::Ne, out);
}

/// Jumps to `out` if a guest register does not hold a NaN-boxed single.
pub(super) fn check_boxed(e: &mut Emitter<'_>, register: u8, out: Label) {
    match e.mapping.vector(register) {
        Some(xmm) => {
            e.asm.mov_from_xmm(Size::B64, Gpr::Rax, xmm);
            e.asm.shift(Shift::Sar, Size::B64, Gpr::Rax, 32);
            e.asm.alu_imm(Alu::Cmp, Size::B32, Gpr::Rax, -1);
        }
        None => e.asm.alu_imm(Alu::Cmp, Size::B32, home_upper(register), -1),
    }
    e.asm.jcc(Cc::Ne, out);
}

/// Whether [`emit`] needs what [`ready`] checks.
pub(super) fn is_inline(i: &Instruction) -> bool {
    let uses = i.op.uses();
    uses.writes_float() || uses.reads_float().contains(&true)
}

/// Where to compute the new value of a guest register, if operands may be overwritten: its own vector register, or another.
fn target(e: &mut Emitter<'_>, register: u8) -> Xmm {
    match e.mapping.vector(register) {
        Some(xmm) => xmm,
        None => e.held.fresh(),
    }
}

/// A single in `xmm` has zeroes above it: it gets its box, if that is to be the register of `rd`.
pub(super) fn boxed(e: &mut Emitter<'_>, rd: u8, xmm: Xmm, precision: Precision) {
    if precision == Precision::Single && e.mapping.vector(rd).is_some() {
        e.asm.logic_of(Logic::Or, xmm, xmm, field(offset_of!(Hart, translator) + offset_of!(HartState, boxes)));
    }
}

/// The value of a guest register, not to be changed. Singles have anything above them.
pub(super) fn read(e: &mut Emitter<'_>, register: u8, precision: Precision) -> Xmm {
    if let Some(xmm) = e.mapping.vector(register) {
        if precision == Precision::Single && e.held.boxed & 1 << register == 0 {
            let out = leave(e);
            check_boxed(e, register, out);
            e.held.boxed |= 1 << register;
        }
        return xmm;
    }
    if let Some((xmm, held)) = e.held.holds(register)
        && held == precision
    {
        e.held.busy |= 1 << (xmm.0 - FIRST);
        return xmm;
    }
    if precision == Precision::Single && e.held.boxed & 1 << register == 0 {
        let out = leave(e);
        check_boxed(e, register, out);
        e.held.boxed |= 1 << register;
    }
    let xmm = e.held.fresh();
    e.asm.load_scalar(precision, xmm, home(register));
    e.held.hold(register, xmm, precision);
    xmm
}

/// The new value of a guest register is in `xmm`, which was fresh or its own. If it has a vector register, singles are boxed.
fn write(e: &mut Emitter<'_>, register: u8, xmm: Xmm, precision: Precision) {
    if let Some(own) = e.mapping.vector(register) {
        if own != xmm {
            e.asm.movaps(own, xmm);
        }
        e.held.redefine(register);
        match precision {
            Precision::Double => e.held.boxed &= !(1 << register),
            Precision::Single => e.held.boxed |= 1 << register,
        }
        return;
    }
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
        become_nan(e, xmm, precision);
        e.asm.jmp(back);
    });
}

fn become_nan(e: &mut Emitter<'_>, xmm: Xmm, precision: Precision) {
    let bits = if precision == Precision::Single { NAN_SINGLE } else { NAN_DOUBLE };
    constant(e, xmm, bits, Precision::Double);
}

/// The result of arithmetic on `sources` is in `xmm`, which was fresh or the register's own, and if it is a NaN, it is any.
fn result(e: &mut Emitter<'_>, rd: u8, sources: &[u8], xmm: Xmm, precision: Precision) {
    let covered = e.held.covered(sources);
    if e.mapping.vector(rd).is_none() {
        canonical(e, xmm, precision);
        write(e, rd, xmm, precision);
        return;
    }
    write(e, rd, xmm, precision);
    e.held.covers[usize::from(rd)] = covered & !(1 << rd);
    match precision {
        Precision::Single => e.held.loose.single |= 1 << rd,
        Precision::Double => e.held.loose.double |= 1 << rd,
    }
}

/// From here on, these guest registers hold just what the guest has. Uses `rax` where one is a NaN.
fn tighten(e: &mut Emitter<'_>, registers: u32) {
    for register in bits(registers & e.held.loose.all()) {
        let Some(xmm) = e.mapping.vector(register).filter(|_| e.held.loose.all() >> register & 1 != 0) else {
            continue;
        };
        let loose = e.held.loose;
        let precision = loose.precision(register);
        let together = (1 << register | e.held.covers[usize::from(register)]) & loose.all();
        let (nan, back) = (e.asm.label(), e.asm.label());
        e.asm.ucomis(precision, xmm, xmm);
        e.asm.jcc(Cc::P, nan);
        e.asm.bind(back);
        e.cold(move |e| {
            e.asm.bind(nan);
            tighten_here(e, together);
            e.asm.jmp(back);
        });
        e.held.loose = loose.without(together);
    }
}

/// As [`tighten`], in the way: for cold paths. Nothing else is known to be different behind it.
fn tighten_here(e: &mut Emitter<'_>, registers: u32) {
    for register in bits(registers & e.held.loose.all()) {
        let Some(xmm) = e.mapping.vector(register) else { continue };
        let precision = e.held.loose.precision(register);
        let number = e.asm.label();
        e.asm.ucomis(precision, xmm, xmm);
        e.asm.jcc(Cc::Np, number);
        become_nan(e, xmm, precision);
        e.asm.bind(number);
    }
}

/// The assignment is about to be left.
pub(super) fn tighten_to_leave(e: &mut Emitter<'_>) {
    tighten_here(e, !0);
}

/// A piece ends: what comes next knows of nothing that is loose.
pub(super) fn tighten_all(e: &mut Emitter<'_>) {
    // Those that cover most first, since that is what they are for.
    while e.held.loose != Loose::default() {
        let loose = e.held.loose.all();
        let widest = bits(loose).max_by_key(|register| (e.held.covers[usize::from(*register)] & loose).count_ones());
        tighten(e, widest.map_or(loose, |register| 1 << register));
    }
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
    let target = target(e, i.rd);
    e.asm.load_scalar(precision, target, mem);
    boxed(e, i.rd, target, precision);
    // Behind a call out the box is there as well.
    write(e, i.rd, target, precision);
    if let Some(done) = done {
        e.asm.bind(done);
    }
}

fn store(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    ready(e);
    tighten(e, 1 << i.rs2);
    let (mem, done) = memory::locate(e, i.rs1, i.imm, bytes(precision), Kind::Write);
    let own = e.mapping.vector(i.rs2).map(|xmm| (xmm, precision));
    match own.or_else(|| e.held.holds(i.rs2)) {
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
    let target = target(e, i.rd);
    e.asm.scalar_of(op, precision, target, a, b);
    result(e, i.rd, &[i.rs1, i.rs2], target, precision);
}

fn root(e: &mut Emitter<'_>, i: &Instruction, precision: Precision) {
    ready(e);
    let a = read(e, i.rs1, precision);
    let target = target(e, i.rd);
    e.asm.scalar_of(Scalar::Sqrt, precision, target, a, a);
    result(e, i.rd, &[i.rs1], target, precision);
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
    e.held.loose = e.held.loose.without(e.held.covered(&[i.rs1, i.rs2, i.rs3]));
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
    tighten(e, 1 << i.rs1 | 1 << i.rs2);
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
    boxed(e, i.rd, target, to);
    result(e, i.rd, &[i.rs1], target, to);
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
    boxed(e, i.rd, target, precision);
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
    tighten(e, 1 << i.rs1);
    let target = e.target(i.rd, Gpr::Rax);
    let own = e.mapping.vector(i.rs1).map(|xmm| (xmm, Precision::Double));
    match (i.op, own.or_else(|| e.held.holds(i.rs1))) {
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
    let target = target(e, i.rd);
    e.asm.mov_to_xmm(bytes(precision), target, source);
    boxed(e, i.rd, target, precision);
    write(e, i.rd, target, precision);
}
