//! Zba, Zbb, Zbc, Zbs, Zbkb and Zicond, where the host has a short form.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shift amounts are six bits")]

use codegen::x64::{Alu, Bit, Cc, Gpr, Logic, Mem, Scale, Shift, Size, Xmm};

use super::emit::Emitter;
use crate::isa::{Instruction, Op};

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    let Instruction { op, rd, rs1, rs2, imm, .. } = *i;
    let known = matches!(
        op,
        AddUw
            | Sh1add
            | Sh2add
            | Sh3add
            | Sh1addUw
            | Sh2addUw
            | Sh3addUw
            | SlliUw
            | Andn
            | Orn
            | Xnor
            | Clz
            | Ctz
            | Cpop
            | Clzw
            | Ctzw
            | Cpopw
            | Max
            | Maxu
            | Min
            | Minu
            | SextB
            | SextH
            | Rol
            | Ror
            | Rori
            | Rolw
            | Rorw
            | Roriw
            | OrcB
            | Rev8
            | Clmul
            | Clmulh
            | Pack
            | Packh
            | Packw
            | Bclr
            | Bclri
            | Bext
            | Bexti
            | Binv
            | Binvi
            | Bset
            | Bseti
            | CzeroEqz
            | CzeroNez
    );
    if !known {
        return false;
    }
    if rd == 0 {
        return true;
    }
    let number = (imm & 63) as u8;
    let target = e.target(rd, Gpr::Rax);
    match op {
        AddUw | Sh1add | Sh2add | Sh3add | Sh1addUw | Sh2addUw | Sh3addUw => {
            let scale = match op {
                AddUw => Scale::One,
                Sh1add | Sh1addUw => Scale::Two,
                Sh2add | Sh2addUw => Scale::Four,
                _ => Scale::Eight,
            };
            if op == AddUw && rs2 == 0 {
                // `zext.w`.
                let source = e.read(rs1, Gpr::Rcx);
                e.asm.mov(Size::B32, target, source);
                e.write(rd, target);
                return true;
            }
            let mut index = e.read(rs1, Gpr::Rcx);
            if matches!(op, AddUw | Sh1addUw | Sh2addUw | Sh3addUw) {
                e.asm.mov(Size::B32, Gpr::Rcx, index);
                index = Gpr::Rcx;
            }
            let base = e.read(rs2, Gpr::Rax);
            e.asm.lea(target, Mem::indexed(base, index, scale, 0));
        }
        SlliUw => {
            let source = e.read(rs1, Gpr::Rcx);
            e.asm.mov(Size::B32, target, source);
            if number != 0 {
                e.asm.shift(Shift::Shl, Size::B64, target, number);
            }
        }
        Andn => {
            let (a, b) = (e.read(rs1, Gpr::Rax), e.read(rs2, Gpr::Rcx));
            e.asm.andn(Size::B64, target, b, a);
        }
        Orn => {
            e.copy(rs2, Gpr::Rax);
            e.asm.not(Size::B64, Gpr::Rax);
            let a = e.read(rs1, Gpr::Rcx);
            e.asm.alu(Alu::Or, Size::B64, Gpr::Rax, a);
            return result(e, rd);
        }
        Xnor => {
            e.copy(rs2, Gpr::Rax);
            let a = e.read(rs1, Gpr::Rcx);
            e.asm.alu(Alu::Xor, Size::B64, Gpr::Rax, a);
            e.asm.not(Size::B64, Gpr::Rax);
            return result(e, rd);
        }
        Clz | Clzw | Ctz | Ctzw | Cpop | Cpopw => {
            let size = if matches!(op, Clzw | Ctzw | Cpopw) { Size::B32 } else { Size::B64 };
            let source = e.read(rs1, Gpr::Rcx);
            match op {
                Clz | Clzw => e.asm.lzcnt(size, target, source),
                Ctz | Ctzw => e.asm.tzcnt(size, target, source),
                _ => e.asm.popcnt(size, target, source),
            }
        }
        Max | Maxu | Min | Minu => {
            let cc = match op {
                Max => Cc::L,
                Maxu => Cc::B,
                Min => Cc::G,
                _ => Cc::A,
            };
            e.copy(rs1, Gpr::Rax);
            let other = e.read(rs2, Gpr::Rcx);
            e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rax, other);
            e.asm.cmov(cc, Size::B64, Gpr::Rax, other);
            return result(e, rd);
        }
        SextB | SextH => {
            let source = e.read(rs1, Gpr::Rcx);
            e.asm.movsx(target, if op == SextB { Size::B8 } else { Size::B16 }, source);
        }
        Rol | Ror | Rolw | Rorw => {
            let word = matches!(op, Rolw | Rorw);
            e.copy(rs1, Gpr::Rax);
            e.copy(rs2, Gpr::Rcx);
            let shift = if matches!(op, Rol | Rolw) { Shift::Rol } else { Shift::Ror };
            e.asm.shift_cl(shift, if word { Size::B32 } else { Size::B64 }, Gpr::Rax);
            return if word { word_result(e, rd) } else { result(e, rd) };
        }
        Rori => {
            let source = e.read(rs1, Gpr::Rcx);
            e.asm.rorx(Size::B64, target, source, number);
        }
        Roriw => {
            let source = e.read(rs1, Gpr::Rcx);
            e.asm.rorx(Size::B32, Gpr::Rax, source, number & 31);
            return word_result(e, rd);
        }
        OrcB => {
            let source = e.read(rs1, Gpr::Rcx);
            e.asm.mov_to_xmm(Size::B64, Xmm(0), source);
            e.asm.logic(Logic::Xor, Xmm(1), Xmm(1));
            e.asm.pcmpeqb(Xmm(0), Xmm(1));
            e.asm.mov_from_xmm(Size::B64, target, Xmm(0));
            e.asm.not(Size::B64, target);
        }
        Rev8 => {
            e.copy(rs1, target);
            e.asm.bswap(Size::B64, target);
        }
        Clmul | Clmulh => {
            let (a, b) = (e.read(rs1, Gpr::Rax), e.read(rs2, Gpr::Rcx));
            e.asm.mov_to_xmm(Size::B64, Xmm(0), a);
            e.asm.mov_to_xmm(Size::B64, Xmm(1), b);
            e.asm.pclmulqdq(Xmm(0), Xmm(1));
            if op == Clmul {
                e.asm.mov_from_xmm(Size::B64, target, Xmm(0));
            } else {
                e.asm.upper_half(target, Xmm(0));
            }
        }
        Packw if rs2 == 0 => {
            // `zext.h`.
            let source = e.read(rs1, Gpr::Rcx);
            e.asm.movzx(target, Size::B16, source);
        }
        Pack | Packh | Packw => {
            let (size, shift) = match op {
                Pack => (Size::B32, 32),
                Packh => (Size::B8, 8),
                _ => (Size::B16, 16),
            };
            let low = e.read(rs1, Gpr::Rcx);
            zero_extend(e, Gpr::Rcx, size, low);
            let high = e.read(rs2, Gpr::Rax);
            zero_extend(e, Gpr::Rax, size, high);
            e.asm.shift(Shift::Shl, Size::B64, Gpr::Rax, shift);
            e.asm.alu(Alu::Or, Size::B64, Gpr::Rax, Gpr::Rcx);
            return if op == Packw { word_result(e, rd) } else { result(e, rd) };
        }
        Bclr | Binv | Bset => {
            e.copy(rs1, Gpr::Rax);
            let number = e.read(rs2, Gpr::Rcx);
            e.asm.bit(change(op), Size::B64, Gpr::Rax, number);
            return result(e, rd);
        }
        Bclri | Binvi | Bseti => {
            e.copy(rs1, target);
            e.asm.bit_imm(change(op), Size::B64, target, number);
        }
        Bext => {
            let (source, number) = (e.read(rs1, Gpr::Rax), e.read(rs2, Gpr::Rcx));
            e.asm.shrx(Size::B64, target, source, number);
            e.asm.alu_imm(Alu::And, Size::B32, target, 1);
        }
        Bexti => {
            e.copy(rs1, target);
            if number != 0 {
                e.asm.shift(Shift::Shr, Size::B64, target, number);
            }
            e.asm.alu_imm(Alu::And, Size::B32, target, 1);
        }
        _ => {
            // Zicond.
            let condition = e.read(rs2, Gpr::Rcx);
            let source = e.read(rs1, Gpr::Rdx);
            e.asm.mov_imm(Gpr::Rax, 0);
            e.asm.test(Size::B64, condition, condition);
            e.asm.cmov(if op == CzeroEqz { Cc::Ne } else { Cc::E }, Size::B64, Gpr::Rax, source);
            return result(e, rd);
        }
    }
    e.write(rd, target);
    true
}

fn change(op: Op) -> Bit {
    match op {
        Op::Bclr | Op::Bclri => Bit::Reset,
        Op::Binv | Op::Binvi => Bit::Complement,
        _ => Bit::Set,
    }
}

fn zero_extend(e: &mut Emitter<'_>, to: Gpr, size: Size, from: Gpr) {
    if size == Size::B32 {
        e.asm.mov(Size::B32, to, from);
    } else {
        e.asm.movzx(to, size, from);
    }
}

/// The result is in `rax`.
pub(super) fn result(e: &mut Emitter<'_>, rd: u8) -> bool {
    e.write(rd, Gpr::Rax);
    true
}

/// The result is the sign-extended lower half of `rax`.
pub(super) fn word_result(e: &mut Emitter<'_>, rd: u8) -> bool {
    let target = e.target(rd, Gpr::Rax);
    e.asm.movsx(target, Size::B32, Gpr::Rax);
    e.write(rd, target);
    true
}
