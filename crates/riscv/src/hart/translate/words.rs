//! Words: 32-bit operations, whose results are sign-extended, and what is done with them.
//!
//! Most of these results are operands of other 32-bit operations, which do not look at the upper half. So a result in a host register is *narrow*
//! at first: its upper half is stale, and the guest's value is the sign extension of its lower half. What looks at all of it has it *widened* before, once;
//! so have the end of the piece and whatever leaves the unit. Traps extend it themselves: what is narrow is noted for each instruction.
//!
//! Bitwise operations of words are words, so they need not widen theirs.

#![allow(clippy::cast_possible_truncation, reason = "shift amounts are five bits")]

use codegen::x64::{Alu, Gpr, Mem, Scale, Shift, Size};

use super::emit::{Emitter, Place};
use super::integer;
use crate::isa::{Instruction, Op};

/// Sets of integer registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The host register's upper half is stale.
    pub(super) narrow: u32,
    /// The value is the sign extension of its lower half.
    words: u32,
}

impl Words {
    /// What guest register `register` is, of which `bits` are in its host register.
    pub(super) fn exact(self, register: u8, bits: u64) -> u64 {
        if self.narrow >> register & 1 != 0 { i64::from(bits as u32 as i32).cast_unsigned() } else { bits }
    }

    fn is_narrow(self, register: u8) -> bool {
        self.narrow >> (register & 31) & 1 != 0
    }

    /// Zero is one.
    fn is_word(self, register: u8) -> bool {
        register & 31 == 0 || self.words >> (register & 31) & 1 != 0
    }

    /// An instruction has been executed by other means than those of this module.
    pub(super) fn follow(&mut self, i: &Instruction) {
        use Op::*;
        if !i.op.uses().writes_integer() {
            return;
        }
        let bit = 1 << (i.rd & 31);
        self.narrow &= !bit;
        let small = matches!(i.op, Lb | Lbu | Lh | Lhu | Lw | Lui | Slt | Slti | Sltu | Sltiu);
        let shifted = matches!(i.op, Slliw | Srliw | Sraiw | Sllw | Srlw | Sraw | Roriw | SextB | SextH);
        let is_word = small || shifted || matches!(i.op, Addw | Addiw | Subw | Mulw | Divw | Divuw | Remw | Remuw);
        self.words = if is_word { self.words | bit } else { self.words & !bit };
    }
}

/// The integer registers that an instruction reads.
pub(super) fn sources(i: &Instruction) -> impl Iterator<Item = u8> + use<> {
    let [first, second] = i.op.uses().reads_integer();
    [(first, i.rs1), (second, i.rs2)].into_iter().filter(|(is_read, _)| *is_read).map(|(_, register)| register & 31)
}

/// Widens what an instruction looks at the upper half of.
pub(super) fn prepare(e: &mut Emitter<'_>, i: &Instruction) {
    use Op::*;
    if e.words.narrow == 0 || matches!(i.op, Divw | Divuw | Remw | Remuw) {
        return;
    }
    // One of two operands may be one whose lower half matters alone.
    let (low, whole) = match i.op {
        Sb | Sh | Sw => (i.rs2, Some(i.rs1)),
        AddUw | Sh1addUw | Sh2addUw | Sh3addUw => (i.rs1, Some(i.rs2)),
        SlliUw | SextB | SextH => (i.rs1, None),
        Packw if i.rs2 == 0 => (i.rs1, None),
        _ => (0, None),
    };
    for register in
        sources(i).filter(|register| *register != low & 31 || whole.is_some_and(|whole| whole & 31 == *register))
    {
        widen(e, register);
    }
}

/// Widens a register, if it is narrow.
pub(super) fn widen(e: &mut Emitter<'_>, register: u8) {
    if e.words.is_narrow(register)
        && let Place::Host(host) = e.place(register)
    {
        e.asm.movsx(host, Size::B32, host);
        e.words.narrow &= !(1 << (register & 31));
    }
}

/// A piece ends, or the assignment is about to be left.
pub(super) fn widen_all(e: &mut Emitter<'_>) {
    for register in 1..32 {
        widen(e, register);
    }
}

/// Emits one of this module's instructions, if its result has a host register; false if not.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    let Instruction { op, rd, rs1, rs2, imm, .. } = *i;
    let Place::Host(to) = e.place(rd) else { return false };
    if integer::known(e, i).is_some() {
        return false;
    }
    match op {
        Addiw if imm == 0 && e.words.is_word(rs1) && !e.words.is_narrow(rs1) => {
            // Nothing to extend.
            e.copy(rs1, to);
            e.words.narrow &= !(1 << rd);
            e.words.words |= 1 << rd;
            return true;
        }
        Addiw => match e.place(rs1) {
            Place::Host(host) if imm != 0 && host != to => e.asm.lea32(to, Mem::at(host, imm)),
            _ => {
                copy(e, rs1, to);
                if imm != 0 {
                    e.asm.alu_imm(Alu::Add, Size::B32, to, imm);
                }
            }
        },
        Addi if imm == 0 && e.words.is_narrow(rs1) => copy(e, rs1, to),
        Addw if rs1 != 0 && rs2 != 0 => match (e.place(rs1), e.place(rs2)) {
            (Place::Host(a), Place::Host(b)) if a != to && b != to => {
                e.asm.lea32(to, Mem::indexed(a, b, Scale::One, 0));
            }
            _ => commutative(e, Alu::Add, rd, rs1, rs2, to),
        },
        Subw if rs2 != 0 && rs1 != 0 && rd != rs2 => {
            copy(e, rs1, to);
            let source = e.rm(rs2);
            e.asm.alu(Alu::Sub, Size::B32, to, source);
        }
        Slliw | Srliw | Sraiw if rs1 != 0 => {
            copy(e, rs1, to);
            let shift = match op {
                Slliw => Shift::Shl,
                Srliw => Shift::Shr,
                _ => Shift::Sar,
            };
            if imm & 31 != 0 {
                e.asm.shift(shift, Size::B32, to, (imm & 31) as u8);
            }
        }
        Sllw | Srlw | Sraw => {
            let (source, count) = (e.read(rs1, Gpr::Rax), e.read(rs2, Gpr::Rcx));
            match op {
                Sllw => e.asm.shlx(Size::B32, to, source, count),
                Srlw => e.asm.shrx(Size::B32, to, source, count),
                _ => e.asm.sarx(Size::B32, to, source, count),
            }
        }
        Mulw if rs1 != 0 && rs2 != 0 => {
            let (first, second) = if rd == rs2 { (rs2, rs1) } else { (rs1, rs2) };
            copy(e, first, to);
            let source = e.rm(second);
            e.asm.imul(Size::B32, to, source);
        }
        Roriw if e.options.bits && rs1 != 0 => {
            let source = e.rm(rs1);
            e.asm.rorx(Size::B32, to, source, (imm & 31) as u8);
        }
        Andn if e.options.bits && are_narrow(e, &[rs1, rs2]) => {
            let (a, b) = (e.read(rs1, Gpr::Rax), e.read(rs2, Gpr::Rcx));
            e.asm.andn(Size::B32, to, b, a);
        }
        And | Or | Xor if are_narrow(e, &[rs1, rs2]) => {
            let alu = match op {
                And => Alu::And,
                Or => Alu::Or,
                _ => Alu::Xor,
            };
            commutative(e, alu, rd, rs1, rs2, to);
        }
        Andi | Ori | Xori if are_narrow(e, &[rs1]) => {
            let alu = match op {
                Andi => Alu::And,
                Ori => Alu::Or,
                _ => Alu::Xor,
            };
            copy(e, rs1, to);
            e.asm.alu_imm(alu, Size::B32, to, imm);
        }
        _ => return false,
    }
    // The host clears the upper half, which is right for what is not negative.
    let is_exact = op == Srliw && imm & 31 != 0 || op == Andi && imm >= 0;
    e.words.narrow = if is_exact { e.words.narrow & !(1 << rd) } else { e.words.narrow | 1 << rd };
    e.words.words |= 1 << rd;
    true
}

/// Whether these are words, some of them narrow.
fn are_narrow(e: &Emitter<'_>, registers: &[u8]) -> bool {
    let words = e.words;
    registers.iter().all(|register| *register != 0 && words.is_word(*register))
        && registers.iter().any(|register| words.is_narrow(*register))
}

/// The lower half of a guest register.
fn copy(e: &mut Emitter<'_>, register: u8, to: Gpr) {
    match e.place(register) {
        Place::Zero => e.asm.mov_imm(to, 0),
        Place::Host(host) if host == to => {}
        Place::Host(host) => e.asm.mov(Size::B32, to, host),
        Place::Hart(mem) => e.asm.mov(Size::B32, to, mem),
    }
}

fn commutative(e: &mut Emitter<'_>, alu: Alu, rd: u8, rs1: u8, rs2: u8, to: Gpr) {
    let (first, second) = if rd == rs2 { (rs2, rs1) } else { (rs1, rs2) };
    copy(e, first, to);
    let source = e.rm(second);
    e.asm.alu(alu, Size::B32, to, source);
}
