//! What holds at the heads of a region's pieces, whichever way control comes there.
//!
//! Two kinds of facts, both of which would else be found out again in each piece: that a register points near flat memory ([`Reach`]), and that a
//! floating-point register holds a NaN-boxed single. They hold at a head if they hold at the end of all pieces that lead there. The
//! region's entry looks at what its first piece needs anyway ([`Facts::wanted`]), so that a loop need not.
//!
//! Facts are about registers and not about code: an access that did not trap was near, however it was executed.

use super::gather::Piece;
use super::memory::{self, Reach};
use super::regions::successors;
use crate::isa::{Instruction, Op};

/// Sets of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Integer registers that are near flat memory.
    pub(super) near: u32,
    /// Floating-point registers that hold singles.
    pub(super) boxed: u32,
}

impl Facts {
    const ALL: Self = Self { near: !0, boxed: !0 };

    fn and(self, other: Self) -> Self {
        Self { near: self.near & other.near, boxed: self.boxed & other.boxed }
    }

    /// What the piece that a region begins with will have to find out about registers as they are before it. If it is wrong, an instruction of the piece traps.
    fn wanted(piece: &Piece, flat: bool) -> Self {
        let (mut wanted, mut written) = (Self::default(), 1_u32);
        let mut written_float = 0_u32;
        for line in &piece.lines {
            let i = &line.instruction;
            if flat && memory::is_access(i.op) {
                wanted.near |= 1 << (i.rs1 & 31) & !written;
            }
            if takes_singles(i.op) {
                for register in float_sources(i) {
                    wanted.boxed |= 1 << register & !written_float;
                }
            }
            if i.op.uses().writes_float() {
                written_float |= 1 << (i.rd & 31);
            } else {
                written |= 1 << (i.rd & 31);
            }
        }
        wanted
    }

    /// What holds behind a piece.
    fn behind(self, piece: &Piece, flat: bool) -> Self {
        let last = piece.lines.last().map(|line| line.instruction);
        if last.is_some_and(|last| matches!(last.op, Op::Jal | Op::Jalr) && last.rd != 0 || last.op == Op::Ecall) {
            // Behind a call, anything.
            return Self::default();
        }
        let mut reach = Reach::default();
        reach.begin(self.near);
        let mut boxed = self.boxed;
        for line in &piece.lines {
            let i = &line.instruction;
            if flat && memory::is_access(i.op) {
                reach.accessed(i.rs1, i.imm);
            }
            reach.follow(i);
            if i.op.uses().writes_float() {
                if gives_single(i.op) {
                    boxed |= 1 << (i.rd & 31);
                } else {
                    boxed &= !(1 << (i.rd & 31));
                }
            }
        }
        Self { near: reach.near(), boxed }
    }
}

/// Whether its floating-point operands are singles, other than for their bits.
fn takes_singles(op: Op) -> bool {
    op.line().mnemonic.ends_with(".s")
}

/// Whether its floating-point result is a single.
fn gives_single(op: Op) -> bool {
    let name = op.line().mnemonic;
    match name.strip_prefix("fcvt.") {
        Some(rest) => rest.starts_with("s."),
        None => name == "flw" || name == "fmv.w.x" || name.ends_with(".s"),
    }
}

/// The facts at the head of each piece. Those of the piece at `entry` are to be made sure of where the region is entered.
pub(super) fn facts(pieces: &[Piece], entry: u64, flat: bool) -> Vec<Facts> {
    let at_entry = pieces.iter().find(|piece| piece.place == entry).map(|piece| Facts::wanted(piece, flat));
    let start = |piece: &Piece| if piece.place == entry { at_entry.unwrap_or_default() } else { Facts::ALL };
    let mut all: Vec<Facts> = pieces.iter().map(start).collect();
    loop {
        let mut changed = false;
        for (index, piece) in pieces.iter().enumerate() {
            let behind = all.get(index).copied().unwrap_or_default().behind(piece, flat);
            for next in successors(piece) {
                let Some(to) = pieces.iter().position(|piece| piece.place == next) else { continue };
                let together = all[to].and(behind);
                changed |= together != all[to];
                all[to] = together;
            }
        }
        if !changed {
            return all;
        }
    }
}

/// The floating-point registers that an instruction reads.
fn float_sources(i: &Instruction) -> impl Iterator<Item = u8> + use<> {
    let sources = [i.rs1, i.rs2, i.rs3].into_iter().zip(i.op.uses().reads_float());
    sources.filter(|(_, is_read)| *is_read).map(|(register, _)| register & 31)
}

/// How often floating-point registers are used, each use of `line` weighing `weight`.
pub(super) fn count_floats(i: &Instruction, weight: u64, uses: &mut [u64; 32]) {
    for register in float_sources(i) {
        uses[usize::from(register)] += weight;
    }
    if i.op.uses().writes_float() {
        // A store that is saved.
        uses[usize::from(i.rd & 31)] += 2 * weight;
    }
}
