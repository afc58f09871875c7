//! A: atomic memory operations by the host's, and fences.
//!
//! The host's locked instructions are sequentially consistent, its plain loads and stores acquire and release: at least what `aq`, `rl` and all
//! fences ask for, but for those that order writes before reads.
//!
//! `lr` notes where it was and what it saw, `sc` compares and exchanges: as the interpreter does, which explains why that will do.

#![allow(clippy::cast_possible_truncation, reason = "constants of a few bits")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Gpr, Label, Mem, Size};

use super::emit::Emitter;
use super::mapping::field;
use super::memory::{self, Kind};
use crate::hart::Hart;
use crate::hart::access::Reservation;
use crate::isa::{Instruction, Op};

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    let (size, operation) = match i.op {
        // The interpreter gives the host's processor away now and then.
        Fence if i.imm == PAUSE => return false,
        Fence => {
            fence(e, i.imm);
            return true;
        }
        AmoswapW => (Size::B32, Operation::Swap),
        AmoaddW => (Size::B32, Operation::Add),
        AmoandW => (Size::B32, Operation::Logic(Alu::And)),
        AmoorW => (Size::B32, Operation::Logic(Alu::Or)),
        AmoxorW => (Size::B32, Operation::Logic(Alu::Xor)),
        AmominW => (Size::B32, Operation::Choose(Cc::G)),
        AmomaxW => (Size::B32, Operation::Choose(Cc::L)),
        AmominuW => (Size::B32, Operation::Choose(Cc::A)),
        AmomaxuW => (Size::B32, Operation::Choose(Cc::B)),
        AmoswapD => (Size::B64, Operation::Swap),
        AmoaddD => (Size::B64, Operation::Add),
        AmoandD => (Size::B64, Operation::Logic(Alu::And)),
        AmoorD => (Size::B64, Operation::Logic(Alu::Or)),
        AmoxorD => (Size::B64, Operation::Logic(Alu::Xor)),
        AmominD => (Size::B64, Operation::Choose(Cc::G)),
        AmomaxD => (Size::B64, Operation::Choose(Cc::L)),
        AmominuD => (Size::B64, Operation::Choose(Cc::A)),
        AmomaxuD => (Size::B64, Operation::Choose(Cc::B)),
        LrW => (Size::B32, Operation::Reserve),
        LrD => (Size::B64, Operation::Reserve),
        ScW => (Size::B32, Operation::Conditional),
        ScD => (Size::B64, Operation::Conditional),
        _ => return false,
    };
    if !e.options.memory {
        return false;
    }
    match operation {
        Operation::Reserve => reserve(e, i, size),
        Operation::Conditional => conditional(e, i, size),
        operation => operate(e, i, size, operation),
    }
    true
}

/// The fields of the fence that is `pause`: a write before nothing.
const PAUSE: i32 = 0b0001_0000;

#[derive(Clone, Copy)]
enum Operation {
    Swap,
    Add,
    Logic(Alu),
    /// The register's value is taken if memory's compares so with it.
    Choose(Cc),
    /// `lr`.
    Reserve,
    /// `sc`.
    Conditional,
}

/// `imm`: `fm pred succ`. Only a write before a read needs an instruction of the host, and of those `fence.tso` orders none.
fn fence(e: &mut Emitter<'_>, imm: i32) {
    const TSO: i32 = 0b1000;
    // Devices: their accesses are calls, which are in order.
    let (mode, write_before, read_after) = (imm >> 8 & 15, imm & 0x10 != 0, imm & 0x2 != 0);
    if write_before && read_after && mode != TSO {
        e.asm.mfence();
    }
}

/// Jumps to `slow` if the address is misaligned: then the operation traps.
fn check_alignment(e: &mut Emitter<'_>, i: &Instruction, size: Size, slow: Label) {
    let base = e.read(i.rs1, Gpr::Rax);
    e.asm.test_imm(Size::B32, base, if size == Size::B32 { 3 } else { 7 });
    e.asm.jcc(Cc::Ne, slow);
}

/// The same operand, which needs `rdx` and not `rax`: an exchange wants that for itself. An address in a mapped register is used as it is.
fn without_rax(e: &mut Emitter<'_>, mem: Mem) -> Mem {
    if !mem.uses(Gpr::Rax) {
        return mem;
    }
    e.asm.mov(Size::B64, Gpr::Rdx, Gpr::Rax);
    let mem = Mem::at(Gpr::Rdx, 0);
    if e.flat { mem.gs() } else { mem }
}

/// The key of a reservation at `mem`, which is aligned, into `to`.
fn key(e: &mut Emitter<'_>, mem: Mem, size: Size, to: Gpr) {
    // The base of `gs` is not part of it.
    e.asm.lea(to, mem);
    let bytes = if size == Size::B32 { 4 } else { 8 };
    e.asm.alu_imm(Alu::Or, Size::B64, to, Reservation::key(0, bytes) as i32);
}

fn reservation(offset: usize) -> Mem {
    field(offset_of!(Hart, reservation) + offset)
}

fn reserve(e: &mut Emitter<'_>, i: &Instruction, size: Size) {
    let back = e.asm.label();
    let slow = e.slow(back);
    check_alignment(e, i, size, slow);
    let (mem, done) = memory::locate(e, i.rs1, 0, size, Kind::Read);
    e.asm.mov(size, Gpr::Rcx, mem);
    key(e, mem, size, Gpr::Rdx);
    e.asm.mov_store(Size::B64, reservation(offset_of!(Reservation, value)), Gpr::Rcx);
    e.asm.mov_store(Size::B64, reservation(offset_of!(Reservation, key)), Gpr::Rdx);
    loaded(e, i.rd, Gpr::Rcx, size);
    if let Some(done) = done {
        e.asm.bind(done);
    }
    e.asm.bind(back);
}

fn conditional(e: &mut Emitter<'_>, i: &Instruction, size: Size) {
    let back = e.asm.label();
    let slow = e.slow(back);
    check_alignment(e, i, size, slow);
    let (mem, done) = memory::locate(e, i.rs1, 0, size, Kind::Write);
    key(e, mem, size, Gpr::Rcx);
    let mem = without_rax(e, mem);
    e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rcx, reservation(offset_of!(Reservation, key)));
    // What is left to do is to see whether the program may write there, and to forget the reservation.
    e.asm.jcc(Cc::Ne, slow);
    e.asm.mov(Size::B64, Gpr::Rax, reservation(offset_of!(Reservation, value)));
    e.copy(i.rs2, Gpr::Rcx);
    e.asm.lock();
    e.asm.cmpxchg(size, mem, Gpr::Rcx);
    e.asm.mov_store_imm(Size::B64, reservation(offset_of!(Reservation, key)), 0);
    if i.rd != 0 {
        e.asm.setcc(Cc::Ne, Gpr::Rax);
        let target = e.target(i.rd, Gpr::Rax);
        e.asm.movzx(target, Size::B8, Gpr::Rax);
        e.write(i.rd, target);
    }
    if let Some(done) = done {
        e.asm.bind(done);
    }
    e.asm.bind(back);
}

/// What was in memory is the value of `rd`.
fn loaded(e: &mut Emitter<'_>, rd: u8, old: Gpr, size: Size) {
    if rd == 0 {
        return;
    }
    if size == Size::B32 {
        let target = e.target(rd, old);
        e.asm.movsx(target, Size::B32, old);
        e.write(rd, target);
    } else {
        e.write(rd, old);
    }
}

fn operate(e: &mut Emitter<'_>, i: &Instruction, size: Size, operation: Operation) {
    let back = e.asm.label();
    let slow = e.slow(back);
    check_alignment(e, i, size, slow);
    let (mem, done) = memory::locate(e, i.rs1, 0, size, Kind::Write);
    let old = match operation {
        Operation::Swap => {
            e.copy(i.rs2, Gpr::Rcx);
            e.asm.xchg(size, mem, Gpr::Rcx);
            Gpr::Rcx
        }
        Operation::Add => {
            e.copy(i.rs2, Gpr::Rcx);
            e.asm.lock();
            e.asm.xadd(size, mem, Gpr::Rcx);
            Gpr::Rcx
        }
        Operation::Logic(alu) if i.rd == 0 => {
            e.copy(i.rs2, Gpr::Rcx);
            e.asm.lock();
            e.asm.alu_store(alu, size, mem, Gpr::Rcx);
            Gpr::Rcx
        }
        _ => {
            let mem = without_rax(e, mem);
            let again = e.asm.label();
            e.asm.mov(size, Gpr::Rax, mem);
            e.asm.bind(again);
            match operation {
                Operation::Choose(cc) => {
                    e.copy(i.rs2, Gpr::Rcx);
                    e.asm.alu(Alu::Cmp, size, Gpr::Rax, Gpr::Rcx);
                    e.asm.cmov(cc.inverse(), size, Gpr::Rcx, Gpr::Rax);
                }
                Operation::Logic(alu) => {
                    e.copy(i.rs2, Gpr::Rcx);
                    e.asm.alu(alu, size, Gpr::Rcx, Gpr::Rax);
                }
                _ => {}
            }
            e.asm.lock();
            e.asm.cmpxchg(size, mem, Gpr::Rcx);
            e.asm.jcc(Cc::Ne, again);
            Gpr::Rax
        }
    };
    loaded(e, i.rd, old, size);
    if let Some(done) = done {
        e.asm.bind(done);
    }
    e.asm.bind(back);
}
