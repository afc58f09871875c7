//! RV64I: loads, stores and fences.
//!
//! **User machines.** Memory is flat, at `gs`; what is not there faults, and the host address of the fault says where the guest was. An address may be any
//! number, but only those near flat memory are sure to fault. So an address register is compared with the end of memory first, unless it cannot be far
//! from it ([`Reach`]): after an access, the register is known to be near, and small steps leave it so.
//!
//! **System machines.** The TLB is looked up inline, once for accesses near each other ([`super::groups`]), and in loops where they were last
//! ([`super::spots`]); what is not in it is left to the interpreter's handler.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "offsets in small structures")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Gpr, Label, Mem, Size};

use super::emit::{Emitter, Place};
use super::groups::Role;
use super::mapping::field;
use super::spots::Spot;
use super::state::HartState;
use crate::hart::Hart;
use crate::hart::user::GUARD;
use crate::isa::{Instruction, Op};
use crate::mmu::tlb::{Entry, Slot, Tlb};

/// The page's part of an address, as an immediate.
const PAGE: i32 = -0x1000;

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    let (size, signed) = match i.op {
        Lb => (Size::B8, true),
        Lh => (Size::B16, true),
        Lw => (Size::B32, true),
        Lbu => (Size::B8, false),
        Lhu => (Size::B16, false),
        Lwu => (Size::B32, false),
        Ld => (Size::B64, false),
        Sb => (Size::B8, false),
        Sh => (Size::B16, false),
        Sw => (Size::B32, false),
        Sd => (Size::B64, false),
        _ => return false,
    };
    if !e.options.memory {
        return false;
    }
    if matches!(i.op, Sb | Sh | Sw | Sd) {
        store(e, i, size);
    } else {
        load(e, i, size, signed);
    }
    true
}

fn load(e: &mut Emitter<'_>, i: &Instruction, size: Size, signed: bool) {
    let (mem, done) = locate(e, i.rs1, i.imm, size, Kind::Read);
    let target = e.target(i.rd, Gpr::Rax);
    if signed {
        e.asm.movsx(target, size, mem);
    } else if size == Size::B64 {
        e.asm.mov(size, target, mem);
    } else {
        e.asm.movzx(target, size, mem);
    }
    e.write(i.rd, target);
    if let Some(done) = done {
        e.asm.bind(done);
        if matches!(e.place(i.rd), Place::Hart(_)) {
            e.note_rax(i.rd);
        }
    }
}

fn store(e: &mut Emitter<'_>, i: &Instruction, size: Size) {
    let (mem, done) = locate(e, i.rs1, i.imm, size, Kind::Write);
    match e.place(i.rs2) {
        Place::Zero => e.asm.mov_store_imm(size, mem, 0),
        Place::Host(host) => e.asm.mov_store(size, mem, host),
        Place::Hart(value) => {
            e.asm.mov(Size::B64, Gpr::Rcx, value);
            e.asm.mov_store(size, mem, Gpr::Rcx);
        }
    }
    if let Some(done) = done {
        e.asm.bind(done);
    }
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// The host's operand for an access of `size` at `rs1 + imm`. It may use `rax`; `rcx` and `rdx` are free again. If there is a label, it must be
/// bound after the access: the interpreter may do all of it.
pub(super) fn locate(e: &mut Emitter<'_>, rs1: u8, imm: i32, size: Size, kind: Kind) -> (Mem, Option<Label>) {
    if e.flat {
        return locate_flat(e, rs1, imm);
    }
    let done = e.asm.label();
    let slow = e.slow(done);
    let last = imm
        + match size {
            Size::B8 => 0,
            Size::B16 => 1,
            Size::B32 => 3,
            Size::B64 => 7,
        };
    let group = match e.role {
        Role::Alone => {
            look(e, rs1, (imm, last), kind, slow);
            return (Mem::at(Gpr::Rax, 0), Some(done));
        }
        Role::Leader(group) | Role::Member(group) => group,
    };
    let pointer = field(offset_of!(Hart, translator) + offset_of!(HartState, pointers) + 8 * usize::from(rs1 & 31));
    let (by_itself, found) = (e.asm.label(), e.asm.label());
    let is_leader = matches!(e.role, Role::Leader(_));
    if is_leader {
        let kind = if group.writes { Kind::Write } else { Kind::Read };
        look(e, rs1, (group.first, group.last), kind, by_itself);
        e.asm.mov_store(Size::B64, pointer, Gpr::Rax);
    } else {
        e.asm.mov(Size::B64, Gpr::Rax, pointer);
        e.asm.test(Size::B64, Gpr::Rax, Gpr::Rax);
        e.asm.jcc(Cc::E, by_itself);
    }
    e.asm.bind(found);
    let inside = imm - group.first;
    e.cold(move |e| {
        e.asm.bind(by_itself);
        if is_leader {
            e.asm.mov_store_imm(Size::B64, pointer, 0);
        }
        look_up(e, rs1, (imm, last), kind, slow);
        e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, addend(kind));
        if inside != 0 {
            e.asm.lea(Gpr::Rax, Mem::at(Gpr::Rax, -inside));
        }
        e.asm.jmp(found);
    });
    (Mem::at(Gpr::Rax, inside), Some(done))
}

/// Part of the spot with this number.
pub(super) fn spot(number: usize, offset: usize) -> Mem {
    field(offset_of!(Hart, translator) + offset_of!(HartState, spots) + size_of::<Spot>() * number + offset)
}

/// The address of the byte at `rs1 + first` into `rax`.
fn address(e: &mut Emitter<'_>, base: Gpr, first: i32) {
    if first != 0 {
        e.asm.lea(Gpr::Rax, Mem::at(base, first));
    } else if base != Gpr::Rax {
        e.asm.mov(Size::B64, Gpr::Rax, base);
    }
}

/// The host's address of the byte at `rs1 + first` into `rax`; jumps to `miss` unless the TLB has that byte's page, and the byte at `rs1 + last`
/// is in it, too. Uses `rcx` and `rdx`.
fn look(e: &mut Emitter<'_>, rs1: u8, (first, last): (i32, i32), kind: Kind, miss: Label) {
    let Some(number) = e.spot else {
        look_up(e, rs1, (first, last), kind, miss);
        e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, addend(kind));
        return;
    };
    let part = move |offset: usize| spot(number.into(), offset);
    let (full, found) = (e.asm.label(), e.asm.label());
    let base = e.read(rs1, Gpr::Rax);
    address(e, base, first);
    e.asm.mov(Size::B64, Gpr::Rcx, Gpr::Rax);
    e.asm.alu(Alu::Sub, Size::B64, Gpr::Rcx, part(offset_of!(Spot, page)));
    e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rcx, part(offset_of!(Spot, size)));
    e.asm.jcc(Cc::Ae, full);
    e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, part(offset_of!(Spot, addend)));
    e.asm.bind(found);
    e.cold(move |e| {
        e.asm.bind(full);
        look_up(e, rs1, (first, last), kind, miss);
        e.asm.mov(Size::B64, Gpr::Rcx, addend(kind));
        e.asm.mov_store(Size::B64, part(offset_of!(Spot, page)), Gpr::Rdx);
        e.asm.mov_store(Size::B64, part(offset_of!(Spot, addend)), Gpr::Rcx);
        e.asm.mov_store_imm(Size::B64, part(offset_of!(Spot, size)), -PAGE - (last - first));
        e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, Gpr::Rcx);
        e.asm.jmp(found);
    });
}

/// Part of the entry in `rcx`: see [`look_up`].
fn side(kind: Kind, offset: usize) -> Mem {
    let side = if kind == Kind::Read { offset_of!(Slot, read) } else { offset_of!(Slot, write) };
    Mem::at(Gpr::Rcx, (side + offset) as i32)
}

/// Host address minus guest address, by the entry that [`look_up`] has found.
fn addend(kind: Kind) -> Mem {
    side(kind, offset_of!(Entry, addend))
}

/// The TLB's entry for the page of the byte at `rs1 + first` into `rcx`, that byte's address into `rax`, and its page's into `rdx`. Jumps to `miss` if there
/// is none, or if the byte at `rs1 + last` is in another page.
fn look_up(e: &mut Emitter<'_>, rs1: u8, (first, last): (i32, i32), kind: Kind, miss: Label) {
    let base = e.read(rs1, Gpr::Rax);
    e.asm.lea(Gpr::Rdx, Mem::at(base, last));
    address(e, base, first);
    // What comes in at the top is cut off.
    e.asm.rorx(Size::B32, Gpr::Rcx, Gpr::Rax, Tlb::MASK_SHIFT as u8);
    e.asm.alu(Alu::And, Size::B32, Gpr::Rcx, field(offset_of!(Hart, tlb) + Tlb::MASK_OFFSET));
    e.asm.alu(Alu::Add, Size::B64, Gpr::Rcx, field(offset_of!(Hart, tlb) + Tlb::SLOTS_OFFSET));
    // The entry of the first byte's page must be for the last byte's page.
    e.asm.alu_imm(Alu::And, Size::B64, Gpr::Rdx, PAGE);
    e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rdx, side(kind, offset_of!(Entry, tag)));
    e.asm.jcc(Cc::Ne, miss);
}

/// [`locate`] in flat memory.
fn locate_flat(e: &mut Emitter<'_>, rs1: u8, imm: i32) -> (Mem, Option<Label>) {
    let near = |at: u64| at < e.limit;
    if let Some(at) = e.constant(rs1).map(|base| base.wrapping_add_signed(imm.into()))
        && near(at)
    {
        if e.mapping.get(rs1).is_some() {
            return (Mem::at(e.read(rs1, Gpr::Rax), imm).gs(), None);
        }
        e.asm.mov_imm(Gpr::Rax, at);
        return (Mem::at(Gpr::Rax, 0).gs(), None);
    }
    let mut done = None;
    if e.reach.get(rs1).is_none() {
        let back = e.asm.label();
        let slow = e.slow(back);
        done = Some(back);
        check_near(e, rs1, slow);
    }
    e.reach.accessed(rs1, imm);
    let base = match e.place(rs1) {
        Place::Host(host) => host,
        // The check has loaded it.
        _ if done.is_some() => Gpr::Rax,
        _ => e.read(rs1, Gpr::Rax),
    };
    (Mem::at(base, imm).gs(), done)
}

/// Jumps to `far` if a register is not in flat memory.
pub(super) fn check_near(e: &mut Emitter<'_>, register: u8, far: Label) {
    let base = e.read(register, Gpr::Rax);
    compare_with_limit(e, base);
    e.asm.jcc(Cc::Ae, far);
}

/// Compares an address with the end of flat memory.
pub(super) fn compare_with_limit(e: &mut Emitter<'_>, at: Gpr) {
    e.asm.alu(Alu::Cmp, Size::B64, at, field(offset_of!(Hart, translator) + offset_of!(HartState, limit)));
}

/// Whether `op` accesses memory at `rs1`, and traps where there is none.
pub(super) fn is_access(op: Op) -> bool {
    op.uses().accesses_memory() && !matches!(op, Op::CboInval | Op::CboClean | Op::CboFlush | Op::CboZero)
}

/// What is known of registers that addresses are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// How far outside of flat memory, at most, the values are: on either side.
    far: [Option<u32>; 32],
    /// How large at most, of whatever sign.
    size: [Option<u32>; 32],
    /// The value is that of this register, and at most so much more or less.
    sum: [Option<(u8, u32)>; 32],
}

/// Registers whose values may be farther away are not trusted. The displacement of an access and its size come on top.
const REACH_MAX: u32 = (GUARD / 2) as u32;

/// How far registers that are near at the head of a piece may be away: far enough for a few steps between accesses.
const NEAR: u32 = 1 << 20;

impl Reach {
    /// A piece begins, where these registers are near.
    pub(super) fn begin(&mut self, near: u32) {
        *self = Self::default();
        for (register, far) in self.far.iter_mut().enumerate() {
            *far = (near >> register & 1 != 0).then_some(NEAR);
        }
    }

    /// The registers that are so near now that a piece may begin with that.
    pub(super) fn near(&self) -> u32 {
        let is_near = |register: &usize| self.far[*register].is_some_and(|far| far <= NEAR);
        (0..32).filter(is_near).fold(0, |near, register| near | 1 << register)
    }

    fn get(&self, register: u8) -> Option<u32> {
        self.far[usize::from(register & 31)]
    }

    fn set(&mut self, register: u8, far: Option<u32>) {
        self.far[usize::from(register & 31)] = far.filter(|far| *far <= REACH_MAX);
    }

    /// How large the result of an instruction is at most.
    fn size_of(&self, i: &Instruction) -> Option<u32> {
        let size = |register: u8| if register & 31 == 0 { Some(0) } else { self.size[usize::from(register & 31)] };
        let imm = i.imm.unsigned_abs();
        match i.op {
            Op::Lbu => Some(0xff),
            Op::Lb => Some(0x80),
            Op::Lhu => Some(0xffff),
            Op::Lh => Some(0x8000),
            Op::Slt | Op::Slti | Op::Sltu | Op::Sltiu => Some(1),
            Op::Andi if i.imm >= 0 => Some(imm),
            Op::Addi | Op::Addiw => size(i.rs1)?.checked_add(imm),
            Op::Add if i.rs1 & 31 == 0 || i.rs2 & 31 == 0 => size(i.rs1 | i.rs2),
            Op::Slli => size(i.rs1)?.checked_mul(1_u32.checked_shl(imm)?),
            _ => None,
        }
    }

    /// The register that the result of an instruction is near, and how near.
    fn sum_of(&self, i: &Instruction) -> Option<(u8, u32)> {
        let shift = match i.op {
            Op::Addi => return Some((i.rs1 & 31, i.imm.unsigned_abs())),
            Op::Add => 0,
            Op::Sh1add => 1,
            Op::Sh2add => 2,
            Op::Sh3add => 3,
            _ => return None,
        };
        let size = |register: u8| self.size[usize::from(register & 31)];
        if let Some(index) = size(i.rs1) {
            return Some((i.rs2 & 31, index.checked_mul(1 << shift)?));
        }
        size(i.rs2).filter(|_| shift == 0).map(|index| (i.rs1 & 31, index))
    }

    /// An instruction has been executed.
    pub(super) fn follow(&mut self, i: &Instruction) {
        let rd = i.rd & 31;
        if i.op.uses().writes_float() || rd == 0 {
            return;
        }
        let (size, sum) = (self.size_of(i), self.sum_of(i).filter(|(base, _)| *base != 0));
        self.set(rd, sum.and_then(|(base, more)| self.get(base)?.checked_add(more)));
        self.size[usize::from(rd)] = size.filter(|size| *size <= NEAR);
        for of_others in &mut self.sum {
            of_others.take_if(|(base, _)| *base == rd);
        }
        self.sum[usize::from(rd)] = sum.filter(|(base, _)| *base != rd);
    }

    /// An access at `register + imm` has not faulted.
    pub(super) fn accessed(&mut self, register: u8, imm: i32) {
        let far = imm.unsigned_abs() + 8;
        self.set(register, Some(far));
        // Neither is far what it was made of.
        if let Some((base, more)) = self.sum[usize::from(register & 31)]
            && self.get(base).is_none()
        {
            self.set(base, far.checked_add(more));
        }
    }
}
