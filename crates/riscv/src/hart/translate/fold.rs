//! Instructions that belong together, but stand apart: folded into one that RISC-V has, and the host too.
//!
//! ```text
//! srliw a4,a3,6                               slli a5,a5,3
//! slliw t3,a3,26      roriw a4,a3,6           add  a5,a5,a1      sh3add a5,a5,a1
//! or    a4,a4,t3
//! ```
//!
//! Compilers for processors without the bit manipulation extensions write the left sides, and mix them with other instructions. An intermediate value that is
//! folded away is never computed, so nobody may see its register until it is written again. Therefore that happens inside a *run* alone: instructions that
//! can neither trap nor be called out. What is left of one stands for several: [`Folded::counts`].
//!
//! Halves of a rotation that somebody may see stay, and the rotation waits for them no more.

use super::gather::Line;
use super::integer;
use super::words::sources;
use crate::isa::{Instruction, Op};

/// The instructions of a piece.
pub(super) struct Folded {
    pub(super) lines: Vec<Line>,
    /// How many of the guest's each of `lines` stands for.
    pub(super) counts: Vec<i64>,
}

/// As they are.
pub(super) fn nothing(lines: &[Line]) -> Folded {
    Folded { lines: lines.to_vec(), counts: vec![1; lines.len()] }
}

/// Folds what can be.
pub(super) fn fold(lines: &[Line]) -> Folded {
    let mut folded = nothing(lines);
    let mut start = 0;
    while start < lines.len() {
        let length = lines[start..].iter().take_while(|line| integer::is_here(line.instruction.op)).count();
        let end = start + length;
        let mut run = Run { lines: &mut folded.lines[..end], counts: &mut folded.counts, start };
        for index in start..end {
            run.fold(index);
        }
        start = end.max(start + 1);
    }
    let mut counts = folded.counts.iter();
    folded.lines.retain(|_| counts.next().is_some_and(|count| *count > 0));
    folded.counts.retain(|count| *count > 0);
    folded
}

/// Instructions that can neither trap nor be called out, and what the piece has before them. Those with a count of zero are gone.
struct Run<'a> {
    lines: &'a mut [Line],
    counts: &'a mut [i64],
    /// The first that is not before them.
    start: usize,
}

/// What an instruction becomes, and those whose results it no longer needs.
struct Fold {
    op: Op,
    rs1: u8,
    rs2: u8,
    imm: i32,
    without: [Option<usize>; 2],
}

impl Run<'_> {
    fn at(&self, index: usize) -> &Instruction {
        &self.lines[index].instruction
    }

    /// The instructions in a range that are still there.
    fn present(&self, range: std::ops::Range<usize>) -> impl DoubleEndedIterator<Item = usize> {
        range.filter(|index| self.counts[*index] > 0)
    }

    fn writes(&self, index: usize, register: u8) -> bool {
        self.at(index).op.uses().writes_integer() && self.at(index).rd == register
    }

    /// The instruction of this piece that has given `register` the value which `index` sees.
    fn definition(&self, register: u8, index: usize) -> Option<usize> {
        if register == 0 { None } else { self.present(0..index).rev().find(|at| self.writes(*at, register)) }
    }

    /// Whether `register` has the same value at `index` as at `from`, if those in `without` are gone.
    fn is_kept(&self, register: u8, from: usize, index: usize, without: [Option<usize>; 2]) -> bool {
        self.present(from..index).all(|at| !self.writes(at, register) || without.contains(&Some(at)))
    }

    /// Whether nobody but `reader` sees the result of `definition`.
    fn is_for(&self, definition: usize, reader: usize) -> bool {
        if definition < self.start {
            return false;
        }
        let register = self.at(definition).rd;
        let reads = |at: usize| sources(self.at(at)).any(|source| source == register);
        if self.present(definition + 1..reader).any(reads) {
            return false;
        }
        if self.at(reader).rd == register {
            return true;
        }
        let next = self.present(reader + 1..self.lines.len()).find(|at| reads(*at) || self.at(*at).rd == register);
        next.is_some_and(|next| !reads(next))
    }

    /// Folds into the instruction at `index` what it can.
    fn fold(&mut self, index: usize) {
        let Some(Fold { op, rs1, rs2, imm, without }) = self.rotation(index).or_else(|| self.operand(index)) else {
            return;
        };
        for gone in without.into_iter().flatten() {
            self.counts[index] += std::mem::take(&mut self.counts[gone]);
        }
        let i = &mut self.lines[index].instruction;
        *i = Instruction { op, rs1, rs2, imm, ..*i };
    }

    /// Both halves of a rotation.
    fn rotation(&self, index: usize) -> Option<Fold> {
        let i = *self.at(index);
        if !matches!(i.op, Op::Or | Op::Xor) || i.rs1 == i.rs2 || i.rd == 0 {
            return None;
        }
        let (one, other) = (self.definition(i.rs1, index)?, self.definition(i.rs2, index)?);
        let (a, b) = (*self.at(one), *self.at(other));
        let (left, right) = if matches!(a.op, Op::Slliw | Op::Slli) { (a, b) } else { (b, a) };
        let (op, bits) = match (left.op, right.op) {
            (Op::Slliw, Op::Srliw) => (Op::Roriw, 32),
            (Op::Slli, Op::Srli) => (Op::Rori, 64),
            _ => return None,
        };
        let source = left.rs1;
        let fits = source != 0 && right.rs1 == source && right.imm > 0 && left.imm > 0 && left.imm + right.imm == bits;
        let without = [one, other].map(|half| Some(half).filter(|half| self.is_for(*half, index)));
        let first = one.min(other);
        // The one that comes first must not have changed what the other shifts.
        let usable = fits && self.at(first).rd != source && self.is_kept(source, first, index, without);
        usable.then_some(Fold { op, rs1: source, rs2: 0, imm: right.imm, without })
    }

    /// An operand that is the result of a cheap instruction.
    fn operand(&self, index: usize) -> Option<Fold> {
        let i = *self.at(index);
        if i.rd == 0 {
            return None;
        }
        let forms = match i.op {
            Op::Add | Op::And if i.rs1 != i.rs2 => [Some((i.rs1, i.rs2)), Some((i.rs2, i.rs1))],
            Op::Srli | Op::Srai => [Some((i.rs1, 0)), None],
            _ => return None,
        };
        forms.into_iter().flatten().find_map(|(register, other)| {
            let definition = self.definition(register, index)?;
            let d = *self.at(definition);
            let source = d.rs1;
            let (op, rs1, rs2, imm) = match (i.op, d.op) {
                _ if source == 0 => return None,
                (Op::Add, Op::Slli) if d.imm == 1 => (Op::Sh1add, source, other, 0),
                (Op::Add, Op::Slli) if d.imm == 2 => (Op::Sh2add, source, other, 0),
                (Op::Add, Op::Slli) if d.imm == 3 => (Op::Sh3add, source, other, 0),
                (Op::Add, Op::AddUw) if d.rs2 == 0 => (Op::AddUw, source, other, 0),
                (Op::Add, Op::SlliUw) if d.imm == 1 => (Op::Sh1addUw, source, other, 0),
                (Op::Add, Op::SlliUw) if d.imm == 2 => (Op::Sh2addUw, source, other, 0),
                (Op::Add, Op::SlliUw) if d.imm == 3 => (Op::Sh3addUw, source, other, 0),
                (Op::And, Op::Xori) if d.imm == -1 => (Op::Andn, other, source, 0),
                (Op::Srli, Op::Slli) if d.imm == 32 && i.imm == 32 => (Op::AddUw, source, 0, 0),
                (Op::Srli, Op::Slli) if d.imm == 32 && i.imm < 32 => (Op::SlliUw, source, 0, 32 - i.imm),
                (Op::Srli, Op::Slli) if d.imm == 32 => (Op::Srliw, source, 0, i.imm - 32),
                (Op::Srai, Op::Slli) if d.imm == 48 && i.imm == 48 => (Op::SextH, source, 0, 0),
                (Op::Srai, Op::Slli) if d.imm == 56 && i.imm == 56 => (Op::SextB, source, 0, 0),
                // `zext.h`.
                (Op::Srli, Op::Slli) if d.imm == 48 && i.imm == 48 => (Op::Packw, source, 0, 0),
                _ => return None,
            };
            let without = [Some(definition), None];
            let usable = self.is_for(definition, index) && self.is_kept(source, definition, index, without);
            usable.then_some(Fold { op, rs1, rs2, imm, without })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::{Text, piece};
    use super::*;
    use crate::isa::assemble;

    /// Operations and counts of what a program is folded into, without the jump at its end.
    fn folded(text: &str) -> Vec<(Op, i64)> {
        let code = assemble(&format!("{text}\njalr zero,0(ra)"), 0).unwrap();
        let piece = piece(&Text(code), 0).unwrap();
        let Folded { mut lines, counts } = fold(&piece.lines);
        assert_eq!(counts.iter().sum::<i64>(), i64::try_from(piece.lines.len()).unwrap());
        lines.pop();
        lines.iter().zip(counts).map(|(line, count)| (line.instruction.op, count)).collect()
    }

    #[test]
    fn parts_of_one_operation_are_found() {
        use Op::*;
        let rotations = folded(
            "srliw a4,a3,6
             slliw t3,a3,26
             slliw s1,a2,7
             or a4,a4,t3
             srliw a2,a2,25
             addi t3,a0,1
             or a2,a2,s1
             addi s1,a0,2",
        );
        assert_eq!(rotations, [(Roriw, 3), (Addi, 1), (Roriw, 3), (Addi, 1)]);
        let indexes = folded(
            "slli a5,a5,32
             slli a4,a4,3
             addi a0,a0,1
             srli a5,a5,30
             add a4,a1,a4
             add a5,a5,a1
             slli a2,a2,32
             srli a2,a2,32
             xori a6,a6,-1
             and a6,a6,a7",
        );
        assert_eq!(indexes, [(Addi, 1), (Sh3add, 2), (Sh2addUw, 3), (AddUw, 2), (Andn, 2)]);
    }

    #[test]
    fn what_somebody_sees_stays() {
        use Op::*;
        // Read later, or maybe read behind an access that may trap.
        assert_eq!(folded("slli a5,a4,3\nadd a0,a5,a1"), [(Slli, 1), (Add, 1)]);
        assert_eq!(folded("slli a5,a5,3\nxor a2,a5,a1\nadd a5,a5,a1"), [(Slli, 1), (Xor, 1), (Add, 1)]);
        assert_eq!(folded("slli a5,a5,3\nld a2,0(a1)\nadd a5,a5,a1"), [(Slli, 1), (Ld, 1), (Add, 1)]);
        // The source has changed.
        assert_eq!(folded("slli a5,a4,3\naddi a4,a4,1\nadd a5,a5,a1"), [(Slli, 1), (Addi, 1), (Add, 1)]);
        assert_eq!(
            folded("srliw a3,a3,6\nslliw a4,a3,26\nor a4,a4,a3\naddi a3,zero,1"),
            [(Srliw, 1), (Slliw, 1), (Or, 1), (Addi, 1)]
        );
    }

    #[test]
    fn halves_that_somebody_sees_stay_beside_the_rotation() {
        use Op::*;
        let seen = folded("srliw a4,a3,6\nslliw t3,a3,26\nor a4,a4,t3");
        assert_eq!(seen, [(Slliw, 1), (Roriw, 2)]);
        let trap_between = folded("slliw t3,a3,26\nld a2,0(a1)\nsrliw a4,a3,6\nor a4,a4,t3");
        assert_eq!(trap_between, [(Slliw, 1), (Ld, 1), (Roriw, 2)]);
        let changed = folded("slliw t3,a3,26\nld a3,0(a1)\nsrliw a4,a3,6\nor a4,a4,t3");
        assert_eq!(changed, [(Slliw, 1), (Ld, 1), (Srliw, 1), (Or, 1)]);
        let overwritten = folded("srliw a4,a3,6\nslliw a3,a3,26\nor a2,a3,a4");
        assert_eq!(overwritten, [(Srliw, 1), (Slliw, 1), (Or, 1)]);
    }

    #[test]
    fn a_source_that_is_overwritten_by_its_own_shift() {
        use Op::*;
        assert_eq!(folded("srliw a4,a3,6\nslliw a3,a3,26\nor a3,a3,a4\naddi a4,zero,1"), [(Roriw, 3), (Addi, 1)]);
        assert_eq!(folded("slli a5,a5,3\nadd a5,a1,a5"), [(Sh3add, 2)]);
    }
}
