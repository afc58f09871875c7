//! RV64I: loads, stores and fences.
//!
//! User machines: memory is flat, at `gs`; what is not there faults, and the fault says where the guest was. System machines: the TLB is
//! looked up inline; what is not in it is left to the interpreter's handler.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "offsets in small structures")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Gpr, Label, Mem, Shift, Size};

use super::emit::{Emitter, Place};
use super::mapping::field;
use crate::hart::Hart;
use crate::isa::{Instruction, Op};
use crate::mmu::tlb::{ENTRIES, Entry, Table, Tlb};

/// The page's part of an address, as an immediate.
const PAGE: i32 = -0x1000;
const PAGE_SHIFT: u8 = 12;
/// Binary logarithm of an entry's size.
const ENTRY_SHIFT: u8 = size_of::<Entry>().trailing_zeros() as u8;
/// The part of an address that says which entry, when it is shifted to be an entry's offset.
const INDEX_MASK: i32 = ((ENTRIES - 1) * size_of::<Entry>()) as i32;

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
        let constant = e.constant(rs1).map(|base| base.wrapping_add_signed(imm.into()));
        if let Some(at) = constant
            && e.mapping.get(rs1).is_none()
        {
            e.asm.mov_imm(Gpr::Rax, at);
            return (Mem::at(Gpr::Rax, 0).gs(), None);
        }
        let base = e.read(rs1, Gpr::Rax);
        return (Mem::at(base, imm).gs(), None);
    }
    let done = e.asm.label();
    let slow = e.slow(done);
    let base = e.read(rs1, Gpr::Rax);
    let bytes = match size {
        Size::B8 => 1,
        Size::B16 => 2,
        Size::B32 => 4,
        Size::B64 => 8,
    };
    if imm != 0 {
        e.asm.lea(Gpr::Rax, Mem::at(base, imm));
    } else if base != Gpr::Rax {
        e.asm.mov(Size::B64, Gpr::Rax, base);
    }
    // The entry of the first byte's page must be for the last byte's page.
    e.asm.mov(Size::B32, Gpr::Rcx, Gpr::Rax);
    e.asm.shift(Shift::Shr, Size::B32, Gpr::Rcx, PAGE_SHIFT - ENTRY_SHIFT);
    e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rcx, INDEX_MASK);
    e.asm.alu(Alu::Add, Size::B64, Gpr::Rcx, field(offset_of!(Hart, tlb) + Tlb::TABLE_OFFSET));
    e.asm.lea(Gpr::Rdx, Mem::at(Gpr::Rax, bytes - 1));
    e.asm.alu_imm(Alu::And, Size::B64, Gpr::Rdx, PAGE);
    let side = if kind == Kind::Read { offset_of!(Table, reads) } else { offset_of!(Table, writes) };
    let side = i32::try_from(side).unwrap_or(0);
    e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rdx, Mem::at(Gpr::Rcx, side + offset_of!(Entry, tag) as i32));
    e.asm.jcc(Cc::Ne, slow);
    e.asm.alu(Alu::Add, Size::B64, Gpr::Rax, Mem::at(Gpr::Rcx, side + offset_of!(Entry, addend) as i32));
    (Mem::at(Gpr::Rax, 0), Some(done))
}
