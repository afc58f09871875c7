//! From guest memory to the instructions of a unit.
//!
//! Addresses here are *places*: in system machines offsets from the beginning of the page that the code is in, in user machines absolute addresses.
//! A piece is a basic block. A unit's code in system machines lies in one page, since where the next one is depends on the translation.

use crate::hart::csr::number;
use crate::hart::interpreter::ends_block;
use crate::isa::{Instruction, Op, decode};

/// Instructions in a piece at most.
pub(super) const LINES_MAX: usize = 96;

/// An instruction and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) place: u64,
    /// 16 or 32 of them.
    pub(super) bits: u32,
    pub(super) instruction: Instruction,
}

impl Line {
    /// The place of the next instruction in memory.
    pub(super) fn after(&self) -> u64 {
        self.place.wrapping_add(self.instruction.length.into())
    }

    /// Where a branch or `jal` leads.
    pub(super) fn target(&self) -> u64 {
        self.place.wrapping_add_signed(self.instruction.imm.into())
    }
}

/// A basic block.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) place: u64,
    /// Not empty.
    pub(super) lines: Vec<Line>,
}

impl Piece {
    /// The place behind the last instruction.
    pub(super) fn end(&self) -> u64 {
        self.lines.last().map_or(self.place, Line::after)
    }
}

/// Whether `op` is a conditional branch.
pub(super) fn is_branch(op: Op) -> bool {
    matches!(op, Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu)
}

/// Whether nothing of the piece comes after an instruction: control may go elsewhere, or what follows may mean something else.
pub(super) fn ends_piece(i: &Instruction) -> bool {
    is_branch(i.op) || matches!(i.op, Op::Jal | Op::Jalr) || is_left_to_the_interpreter(i)
}

/// Whether an instruction ends a unit, and is executed by the interpreter: all that ends a block there, but jumps, and but for accesses to
/// floating-point flags.
pub(super) fn is_left_to_the_interpreter(i: &Instruction) -> bool {
    use Op::*;
    ends_block(i.op)
        && !matches!(i.op, Jal | Jalr | Beq | Bne | Blt | Bge | Bltu | Bgeu)
        && !reads_flags(i)
        && !writes_flags(i)
}

/// Whether an instruction that is left to the interpreter mostly changes nothing of what comes next, so that a unit may go on behind it. System calls are
/// answered in user machines only.
pub(super) fn is_called_out(i: &Instruction) -> bool {
    use Op::*;
    matches!(i.op, Csrrw | Csrrs | Csrrc | Csrrwi | Csrrsi | Csrrci | SfenceVma | SinvalVma | Ecall)
}

/// `frflags`: reads the accrued floating-point exceptions.
pub(super) fn reads_flags(i: &Instruction) -> bool {
    i.op == Op::Csrrs && i.imm == FFLAGS && i.rs1 == 0
}

/// `fsflags`: exchanges them.
pub(super) fn writes_flags(i: &Instruction) -> bool {
    i.op == Op::Csrrw && i.imm == FFLAGS
}

const FFLAGS: i32 = number::FFLAGS as i32;

/// Where instructions come from.
pub(in crate::hart) trait Source {
    /// The bits of the instruction at a place, or `None` if they are not all in reach.
    fn bits(&self, place: u64) -> Option<u32>;
}

/// The basic block at `place`; `None` if its first instruction does not exist or is out of reach.
pub(super) fn piece(source: &impl Source, place: u64) -> Option<Piece> {
    let mut piece = Piece { place, lines: Vec::new() };
    let mut at = place;
    while piece.lines.len() < LINES_MAX {
        let Some((bits, instruction)) = source.bits(at).and_then(|bits| Some((bits, decode(bits)?))) else { break };
        let line = Line { place: at, bits, instruction };
        piece.lines.push(line);
        if ends_piece(&instruction) {
            break;
        }
        at = line.after();
    }
    (!piece.lines.is_empty()).then_some(piece)
}

/// Code in a test, at place zero.
#[cfg(test)]
pub(super) struct Text(pub(super) Vec<u8>);

#[cfg(test)]
impl Source for Text {
    fn bits(&self, place: u64) -> Option<u32> {
        let at = usize::try_from(place).ok()?;
        Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }
}
