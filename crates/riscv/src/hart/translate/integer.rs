//! RV64I without memory and jumps; M.
//!
//! Results of `w` instructions are computed in 32 bits and sign-extended.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "offsets in small structures")]

use codegen::x64::{Alu, Cc, Gpr, Mem, Scale, Shift, Size};

use super::control::compare;
use super::emit::{Emitter, Place};
use super::gather::Line;
use crate::isa::{Instruction, Op};

/// What `rd` will be, if that is known without executing. Must be asked before the instruction is emitted.
pub(super) fn known(e: &Emitter<'_>, i: &Instruction) -> Option<u64> {
    let a = || e.constant(i.rs1);
    let b = || e.constant(i.rs2);
    let imm = i64::from(i.imm).cast_unsigned();
    let word = |value: u64| sign_extend_word(value);
    match i.op {
        Op::Lui => Some(imm),
        Op::Auipc if e.flat => Some(e.line.place.wrapping_add(imm)),
        Op::Addi => Some(a()?.wrapping_add(imm)),
        Op::Addiw => Some(word(a()?.wrapping_add(imm))),
        Op::Slli => Some(a()? << (imm & 63)),
        Op::Srli => Some(a()? >> (imm & 63)),
        Op::Ori => Some(a()? | imm),
        Op::Andi => Some(a()? & imm),
        Op::Xori => Some(a()? ^ imm),
        Op::Add => Some(a()?.wrapping_add(b()?)),
        Op::Sub => Some(a()?.wrapping_sub(b()?)),
        Op::Or => Some(a()? | b()?),
        _ => None,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low word is meant")]
fn sign_extend_word(value: u64) -> u64 {
    i64::from(value as i32).cast_unsigned()
}

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    let Instruction { op, rd, rs1, rs2, imm, .. } = *i;
    if !is_here(op) {
        return false;
    }
    if rd == 0 {
        return true;
    }
    if let Some(value) = known(e, i) {
        e.write_constant(rd, value);
        return true;
    }
    match op {
        Op::Auipc => {
            let target = e.target(rd, Gpr::Rax);
            e.address_of(e.line.place.wrapping_add_signed(imm.into()), target);
            e.write(rd, target);
        }
        Op::Addi => add_immediate(e, rd, rs1, imm),
        Op::Addiw => {
            let target = e.target(rd, Gpr::Rax);
            if imm == 0 {
                let source = e.rm(rs1);
                e.asm.movsx(target, Size::B32, source);
            } else {
                let source = e.read(rs1, Gpr::Rax);
                e.asm.lea32(Gpr::Rax, Mem::at(source, imm));
                e.asm.movsx(target, Size::B32, Gpr::Rax);
            }
            e.write(rd, target);
        }
        Op::Xori if imm == -1 => {
            let target = e.target(rd, Gpr::Rax);
            e.copy(rs1, target);
            e.asm.not(Size::B64, target);
            e.write(rd, target);
        }
        Op::Xori => immediate(e, Alu::Xor, rd, rs1, imm),
        Op::Ori => immediate(e, Alu::Or, rd, rs1, imm),
        Op::Andi => and_immediate(e, rd, rs1, imm),
        Op::Slti | Op::Sltiu => {
            compare_immediate(e, rs1, imm);
            set(e, rd, if op == Op::Slti { Cc::L } else { Cc::B });
        }
        Op::Slt | Op::Sltu => {
            let cc = compare(e, if op == Op::Slt { Cc::L } else { Cc::B }, rs1, rs2);
            set(e, rd, cc);
        }
        Op::Add => add(e, rd, rs1, rs2),
        Op::Sub => sub(e, rd, rs1, rs2),
        Op::Xor => binary(e, Alu::Xor, rd, rs1, rs2),
        Op::Or => binary(e, Alu::Or, rd, rs1, rs2),
        Op::And => binary(e, Alu::And, rd, rs1, rs2),
        Op::Addw | Op::Subw => {
            let target = e.target(rd, Gpr::Rax);
            if op == Op::Addw && rs1 != 0 && rs2 != 0 {
                let (a, b) = (e.read(rs1, Gpr::Rax), e.read(rs2, Gpr::Rcx));
                e.asm.lea32(Gpr::Rax, Mem::indexed(a, b, Scale::One, 0));
            } else {
                e.copy(rs1, Gpr::Rax);
                if rs2 != 0 {
                    let source = e.rm(rs2);
                    e.asm.alu(if op == Op::Addw { Alu::Add } else { Alu::Sub }, Size::B32, Gpr::Rax, source);
                }
            }
            e.asm.movsx(target, Size::B32, Gpr::Rax);
            e.write(rd, target);
        }
        Op::Slli if (1..=3).contains(&imm) && rd != rs1 => {
            let target = e.target(rd, Gpr::Rax);
            let source = e.read(rs1, Gpr::Rax);
            let scale = [Scale::One, Scale::Two, Scale::Four, Scale::Eight][usize::from(imm.cast_unsigned() as u8 & 3)];
            e.asm.lea(target, Mem::scaled(source, scale, 0));
            e.write(rd, target);
        }
        Op::Slli => shift_immediate(e, Shift::Shl, rd, rs1, imm),
        Op::Srli => shift_immediate(e, Shift::Shr, rd, rs1, imm),
        Op::Srai => shift_immediate(e, Shift::Sar, rd, rs1, imm),
        Op::Slliw | Op::Srliw | Op::Sraiw => {
            let target = e.target(rd, Gpr::Rax);
            e.copy(rs1, Gpr::Rax);
            if imm & 31 != 0 {
                let shift = match op {
                    Op::Slliw => Shift::Shl,
                    Op::Srliw => Shift::Shr,
                    _ => Shift::Sar,
                };
                e.asm.shift(shift, Size::B32, Gpr::Rax, amount(imm) & 31);
            }
            if op == Op::Srliw && imm & 31 != 0 {
                // The host has cleared the upper half.
                e.write(rd, Gpr::Rax);
            } else {
                e.asm.movsx(target, Size::B32, Gpr::Rax);
                e.write(rd, target);
            }
        }
        Op::Sll | Op::Srl | Op::Sra => shift(e, op, Size::B64, rd, rs1, rs2),
        Op::Sllw | Op::Srlw | Op::Sraw => shift(e, op, Size::B32, rd, rs1, rs2),
        Op::Mul => {
            let target = e.target(rd, Gpr::Rax);
            // Either order will do.
            let (first, second) = if rd == rs2 { (rs2, rs1) } else { (rs1, rs2) };
            if first == 0 || second == 0 {
                e.asm.mov_imm(target, 0);
            } else {
                e.copy(first, target);
                let source = e.rm(second);
                e.asm.imul(Size::B64, target, source);
            }
            e.write(rd, target);
        }
        Op::Mulw => {
            let target = e.target(rd, Gpr::Rax);
            e.copy(rs1, Gpr::Rax);
            let source = e.read(rs2, Gpr::Rcx);
            e.asm.imul(Size::B32, Gpr::Rax, source);
            e.asm.movsx(target, Size::B32, Gpr::Rax);
            e.write(rd, target);
        }
        Op::Mulh | Op::Mulhu => {
            e.copy(rs1, Gpr::Rax);
            let source = e.read(rs2, Gpr::Rcx);
            if op == Op::Mulh {
                e.asm.imul_wide(Size::B64, source);
            } else {
                e.asm.mul_wide(Size::B64, source);
            }
            e.write(rd, Gpr::Rdx);
        }
        Op::Mulhsu => {
            e.copy(rs1, Gpr::Rax);
            let source = e.read(rs2, Gpr::Rcx);
            e.asm.mul_wide(Size::B64, source);
            // A negative first factor was taken for one that is larger by 2^64.
            e.copy(rs1, Gpr::Rax);
            e.asm.shift(Shift::Sar, Size::B64, Gpr::Rax, 63);
            e.asm.alu(Alu::And, Size::B64, Gpr::Rax, source);
            e.asm.alu(Alu::Sub, Size::B64, Gpr::Rdx, Gpr::Rax);
            e.write(rd, Gpr::Rdx);
        }
        _ => divide(e, i),
    }
    true
}

/// Whether [`emit`] knows it: then it can neither trap nor be called out.
pub(super) fn is_here(op: Op) -> bool {
    use Op::*;
    matches!(
        op,
        Lui | Auipc
            | Addi
            | Slti
            | Sltiu
            | Xori
            | Ori
            | Andi
            | Slli
            | Srli
            | Srai
            | Add
            | Sub
            | Sll
            | Slt
            | Sltu
            | Xor
            | Srl
            | Sra
            | Or
            | And
            | Addiw
            | Slliw
            | Srliw
            | Sraiw
            | Addw
            | Subw
            | Sllw
            | Srlw
            | Sraw
            | Mul
            | Mulh
            | Mulhsu
            | Mulhu
            | Div
            | Divu
            | Rem
            | Remu
            | Mulw
            | Divw
            | Divuw
            | Remw
            | Remuw
    )
}

fn amount(imm: i32) -> u8 {
    u8::try_from(imm & 63).unwrap_or(0)
}

fn add_immediate(e: &mut Emitter<'_>, rd: u8, rs1: u8, imm: i32) {
    if imm == 0 {
        return e.move_register(rd, rs1);
    }
    match (e.place(rd), e.place(rs1)) {
        (Place::Host(host), _) if rd == rs1 => e.asm.alu_imm(Alu::Add, Size::B64, host, imm),
        (Place::Hart(mem), _) if rd == rs1 => e.asm.alu_imm(Alu::Add, Size::B64, mem, imm),
        (Place::Host(host), Place::Hart(mem)) => {
            e.asm.mov(Size::B64, host, mem);
            e.asm.alu_imm(Alu::Add, Size::B64, host, imm);
        }
        _ => {
            let target = e.target(rd, Gpr::Rax);
            let source = e.read(rs1, Gpr::Rax);
            e.asm.lea(target, Mem::at(source, imm));
            e.write(rd, target);
        }
    }
}

fn and_immediate(e: &mut Emitter<'_>, rd: u8, rs1: u8, imm: i32) {
    match imm {
        // The low byte alone.
        0xff => {
            let target = e.target(rd, Gpr::Rax);
            let source = e.rm(rs1);
            e.asm.movzx(target, Size::B8, source);
            e.write(rd, target);
        }
        // The result has no upper half.
        0.. if rd != rs1 || e.mapping.get(rd).is_some() => {
            let target = e.target(rd, Gpr::Rax);
            if rd != rs1 {
                let source = e.rm(rs1);
                e.asm.mov(Size::B32, target, source);
            }
            e.asm.alu_imm(Alu::And, Size::B32, target, imm);
            e.write(rd, target);
        }
        _ => immediate(e, Alu::And, rd, rs1, imm),
    }
}

fn immediate(e: &mut Emitter<'_>, alu: Alu, rd: u8, rs1: u8, imm: i32) {
    if rd == rs1 {
        let place = e.rm(rd);
        e.asm.alu_imm(alu, Size::B64, place, imm);
        return;
    }
    let target = e.target(rd, Gpr::Rax);
    e.copy(rs1, target);
    e.asm.alu_imm(alu, Size::B64, target, imm);
    e.write(rd, target);
}

fn add(e: &mut Emitter<'_>, rd: u8, rs1: u8, rs2: u8) {
    if rs1 == 0 || rs2 == 0 {
        return e.move_register(rd, rs1 | rs2);
    }
    if rd != rs1
        && rd != rs2
        && let (Place::Host(a), Place::Host(b)) = (e.place(rs1), e.place(rs2))
    {
        let target = e.target(rd, Gpr::Rax);
        e.asm.lea(target, Mem::indexed(a, b, Scale::One, 0));
        e.write(rd, target);
        return;
    }
    binary(e, Alu::Add, rd, rs1, rs2);
}

/// `alu` is commutative.
fn binary(e: &mut Emitter<'_>, alu: Alu, rd: u8, rs1: u8, rs2: u8) {
    // `rd` comes first if it is an operand.
    let (first, second) = if rd == rs2 { (rs2, rs1) } else { (rs1, rs2) };
    if second == 0 || first == 0 {
        match alu {
            Alu::And => e.write_constant(rd, 0),
            _ => e.move_register(rd, first | second),
        }
        return;
    }
    if rd == first
        && let Place::Hart(mem) = e.place(rd)
    {
        let source = e.read(second, Gpr::Rax);
        e.asm.alu_store(alu, Size::B64, mem, source);
        return;
    }
    let target = e.target(rd, Gpr::Rax);
    e.copy(first, target);
    let source = e.rm(second);
    e.asm.alu(alu, Size::B64, target, source);
    e.write(rd, target);
}

fn sub(e: &mut Emitter<'_>, rd: u8, rs1: u8, rs2: u8) {
    if rs2 == 0 {
        let source = e.read(rs1, Gpr::Rax);
        e.write(rd, source);
        return;
    }
    if rs1 == 0 {
        let target = e.target(rd, Gpr::Rax);
        e.copy(rs2, target);
        e.asm.neg(Size::B64, target);
        e.write(rd, target);
        return;
    }
    let target = if rd == rs2 { Gpr::Rax } else { e.target(rd, Gpr::Rax) };
    e.copy(rs1, target);
    let source = e.rm(rs2);
    e.asm.alu(Alu::Sub, Size::B64, target, source);
    e.write(rd, target);
}

fn compare_immediate(e: &mut Emitter<'_>, rs1: u8, imm: i32) {
    super::control::compare_constant(e, rs1, imm);
}

/// `rd` becomes whether `cc` holds.
fn set(e: &mut Emitter<'_>, rd: u8, cc: Cc) {
    e.asm.setcc(cc, Gpr::Rax);
    let target = e.target(rd, Gpr::Rax);
    e.asm.movzx(target, Size::B8, Gpr::Rax);
    e.write(rd, target);
}

fn shift_immediate(e: &mut Emitter<'_>, shift: Shift, rd: u8, rs1: u8, imm: i32) {
    let target = e.target(rd, Gpr::Rax);
    e.copy(rs1, target);
    if amount(imm) != 0 {
        e.asm.shift(shift, Size::B64, target, amount(imm));
    }
    e.write(rd, target);
}

fn shift(e: &mut Emitter<'_>, op: Op, size: Size, rd: u8, rs1: u8, rs2: u8) {
    let target = e.target(rd, Gpr::Rax);
    let source = e.read(rs1, Gpr::Rax);
    let count = e.read(rs2, Gpr::Rcx);
    let result = if size == Size::B64 { target } else { Gpr::Rax };
    match op {
        Op::Sll | Op::Sllw => e.asm.shlx(size, result, source, count),
        Op::Srl | Op::Srlw => e.asm.shrx(size, result, source, count),
        _ => e.asm.sarx(size, result, source, count),
    }
    if size == Size::B32 {
        e.asm.movsx(target, Size::B32, Gpr::Rax);
    }
    e.write(rd, target);
}

/// Division never traps: by zero gives all ones, and the dividend as the remainder; the one quotient that does not fit is the dividend itself.
fn divide(e: &mut Emitter<'_>, i: &Instruction) {
    let Instruction { op, rd, rs1, rs2, .. } = *i;
    let signed = matches!(op, Op::Div | Op::Rem | Op::Divw | Op::Remw);
    let remainder = matches!(op, Op::Rem | Op::Remu | Op::Remw | Op::Remuw);
    let word = matches!(op, Op::Divw | Op::Remw | Op::Divuw | Op::Remuw);
    let size = if word { Size::B32 } else { Size::B64 };
    let result = if remainder { Gpr::Rdx } else { Gpr::Rax };
    let (special, done) = (e.asm.label(), e.asm.label());
    e.copy(rs1, Gpr::Rax);
    e.copy(rs2, Gpr::Rcx);
    if signed {
        // Zero and minus one.
        e.asm.lea(Gpr::Rdx, Mem::at(Gpr::Rcx, 1));
        e.asm.alu_imm(Alu::Cmp, size, Gpr::Rdx, 1);
        e.asm.jcc(Cc::Be, special);
        e.asm.sign_into_rdx(size);
        e.asm.idiv(size, Gpr::Rcx);
    } else {
        e.asm.test(size, Gpr::Rcx, Gpr::Rcx);
        e.asm.jcc(Cc::E, special);
        e.asm.mov_imm(Gpr::Rdx, 0);
        e.asm.div(size, Gpr::Rcx);
    }
    e.asm.bind(done);
    let target = e.target(rd, result);
    if word {
        e.asm.movsx(target, Size::B32, result);
        e.write(rd, target);
    } else {
        e.write(rd, result);
    }
    e.cold(move |e| {
        e.asm.bind(special);
        if remainder {
            // The dividend, or with minus one, zero.
            e.asm.mov(Size::B64, Gpr::Rdx, Gpr::Rax);
            if signed {
                let zero = e.asm.label();
                e.asm.test(size, Gpr::Rcx, Gpr::Rcx);
                e.asm.jcc(Cc::E, zero);
                e.asm.mov_imm(Gpr::Rdx, 0);
                e.asm.bind(zero);
            }
        } else if signed {
            let minus_one = e.asm.label();
            e.asm.neg(Size::B64, Gpr::Rax);
            e.asm.test(size, Gpr::Rcx, Gpr::Rcx);
            e.asm.jcc(Cc::Ne, minus_one);
            e.asm.mov_imm(Gpr::Rax, u64::MAX);
            e.asm.bind(minus_one);
        } else {
            e.asm.mov_imm(Gpr::Rax, u64::MAX);
        }
        e.asm.jmp(done);
    });
}

/// Emits several instructions at the beginning of `lines` as one; answers how many, or zero. None of them can fault.
pub(super) fn fused(e: &mut Emitter<'_>, lines: &[Line]) -> usize {
    let [first, second, ..] = lines else { return 0 };
    let (a, b) = (first.instruction, second.instruction);
    if a.rd == 0 || a.rd != b.rd || b.rs1 != a.rd {
        return 0;
    }
    match (a.op, b.op) {
        // The first half of an address or a constant is not needed by itself.
        (Op::Lui | Op::Auipc, Op::Addi | Op::Addiw) => {
            let half = known(e, &a);
            let whole = half.map(|half| {
                let sum = half.wrapping_add_signed(b.imm.into());
                if b.op == Op::Addiw { sign_extend_word(sum) } else { sum }
            });
            match whole {
                Some(whole) => e.write_constant(a.rd, whole),
                None if b.op == Op::Addi => {
                    let target = e.target(a.rd, Gpr::Rax);
                    let place = first.place.wrapping_add_signed(a.imm.into()).wrapping_add_signed(b.imm.into());
                    e.address_of(place, target);
                    e.write(a.rd, target);
                }
                None => return 0,
            }
            e.set_known(a.rd, whole);
            2
        }
        _ => 0,
    }
}
