//! Zknd and Zkne by the host's AES, where it has it; Zknh and Zksh by its rotations.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the number of a round is four bits")]

use codegen::x64::{Aes, Alu, Gpr, Logic, Shift, Size, Xmm};

use super::bits::{result, word_result};
use super::emit::Emitter;
use crate::isa::{Instruction, Op};

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    let Instruction { op, rd, rs1, rs2, .. } = *i;
    let aes = matches!(op, Aes64es | Aes64esm | Aes64ds | Aes64dsm | Aes64im | Aes64ks1i);
    let hash = hash(op);
    if !aes && hash.is_none() && op != Aes64ks2 || aes && !std::arch::is_x86_feature_detected!("aes") {
        return false;
    }
    if rd == 0 {
        return true;
    }
    if let Some((size, rotations, shift)) = hash {
        let source = e.read(rs1, Gpr::Rcx);
        e.asm.mov(size, Gpr::Rax, source);
        if shift != 0 {
            e.asm.shift(Shift::Shr, size, Gpr::Rax, shift);
        }
        for (n, &by) in rotations.iter().enumerate() {
            // Three rotations leave nothing of the operand itself.
            let to = if n == 0 && rotations.len() == 3 { Gpr::Rax } else { Gpr::Rdx };
            e.asm.rorx(size, to, source, by);
            if to == Gpr::Rdx {
                e.asm.alu(Alu::Xor, size, Gpr::Rax, Gpr::Rdx);
            }
        }
        return if size == Size::B32 { word_result(e, rd) } else { result(e, rd) };
    }
    if op == Aes64ks2 {
        e.copy(rs1, Gpr::Rax);
        e.asm.shift(Shift::Shr, Size::B64, Gpr::Rax, 32);
        let other = e.read(rs2, Gpr::Rcx);
        e.asm.alu(Alu::Xor, Size::B32, Gpr::Rax, other);
        e.asm.mov(Size::B64, Gpr::Rdx, other);
        e.asm.shift(Shift::Shr, Size::B64, Gpr::Rdx, 32);
        e.asm.alu(Alu::Xor, Size::B32, Gpr::Rdx, Gpr::Rax);
        e.asm.shift(Shift::Shl, Size::B64, Gpr::Rdx, 32);
        e.asm.alu(Alu::Or, Size::B64, Gpr::Rax, Gpr::Rdx);
        return result(e, rd);
    }
    let (state, other) = (Xmm(0), Xmm(1));
    let low = e.read(rs1, Gpr::Rax);
    e.asm.mov_to_xmm(Size::B64, state, low);
    match op {
        Aes64im => e.asm.aesimc(state, state),
        Aes64ks1i => {
            // The host substitutes the second word into the first place, and rotated into the second.
            const LAST: i32 = 10;
            let constant = [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36, 0][(i.imm & 0xf).min(LAST) as usize];
            e.asm.aeskeygenassist(state, state, constant);
            e.asm.pshufd(state, state, if i.imm == LAST { 0 } else { 0b0101 });
        }
        _ => {
            let high = e.read(rs2, Gpr::Rcx);
            e.asm.mov_to_xmm(Size::B64, other, high);
            e.asm.punpcklqdq(state, other);
            // A key of zeroes.
            e.asm.logic(Logic::Xor, other, other);
            let round = match op {
                Aes64es => Aes::Enclast,
                Aes64esm => Aes::Enc,
                Aes64ds => Aes::Declast,
                _ => Aes::Dec,
            };
            e.asm.aes(round, state, other);
        }
    }
    let target = e.target(rd, Gpr::Rax);
    e.asm.mov_from_xmm(Size::B64, target, state);
    e.write(rd, target);
    true
}

/// The sums of SHA-2 and SM3: their width, rotations to the right, and how far the operand is shifted that is added to two of them.
fn hash(op: Op) -> Option<(Size, &'static [u8], u8)> {
    Some(match op {
        Op::Sha256sum0 => (Size::B32, &[2, 13, 22], 0),
        Op::Sha256sum1 => (Size::B32, &[6, 11, 25], 0),
        Op::Sha256sig0 => (Size::B32, &[7, 18], 3),
        Op::Sha256sig1 => (Size::B32, &[17, 19], 10),
        Op::Sha512sum0 => (Size::B64, &[28, 34, 39], 0),
        Op::Sha512sum1 => (Size::B64, &[14, 18, 41], 0),
        Op::Sha512sig0 => (Size::B64, &[1, 8], 7),
        Op::Sha512sig1 => (Size::B64, &[19, 61], 6),
        Op::Sm3p0 => (Size::B32, &[23, 15], 0),
        Op::Sm3p1 => (Size::B32, &[17, 9], 0),
        _ => return None,
    })
}
