//! From a word to text, in the style of binutils.

use std::fmt::Write;

use super::registers::{FLOAT, INTEGER, ROUNDING};
use super::{Instruction, Line, csr, decode};

/// One piece of the operand column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// An operand, by its name there.
    Operand(&'a str),
    /// A comma or a parenthesis.
    Mark(char),
}

/// Takes an operand column apart.
pub(super) fn pieces(operands: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = operands;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let length = if first.is_ascii_alphanumeric() {
            rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(if first.is_ascii_alphanumeric() { Piece::Operand(piece) } else { Piece::Mark(first) })
    })
}

/// The instruction in `word` at address `pc`, as binutils writes it, with a space between mnemonic and operands. A word that is no
/// instruction is a `.2byte` or a `.4byte`.
///
/// ```
/// assert_eq!(riscv::isa::disassemble(0xffb5_8513, 0), "addi a0,a1,-5");
/// assert_eq!(riscv::isa::disassemble(0x9522, 0), "c.add a0,s0");
/// ```
#[must_use]
pub fn disassemble(word: u32, pc: u64) -> String {
    match decode::find(word) {
        Some(line) => text(line, &line.encoding.decode(line.op, word), pc),
        None if word & 3 == 3 => format!(".4byte {word:#x}"),
        None => format!(".2byte {:#x}", word & 0xffff),
    }
}

/// `instruction`, which is of form `line`, as text.
fn text(line: &Line, instruction: &Instruction, pc: u64) -> String {
    let mut text = String::from(line.mnemonic);
    if line.encoding.is_atomic() {
        text += ["", ".rl", ".aq", ".aqrl"][usize::from(instruction.rm & 3)];
    }
    let start = text.len();
    for piece in pieces(line.operands) {
        if text.len() == start {
            text.push(' ');
        }
        match piece {
            // Said only where it differs from the default.
            Piece::Operand("rm") if instruction.rm == 7 => {
                text.pop();
            }
            Piece::Operand(name) => operand(&mut text, name, instruction, pc),
            Piece::Mark(mark) => text.push(mark),
        }
    }
    text
}

fn operand(text: &mut String, name: &str, i: &Instruction, pc: u64) {
    let imm = i.imm;
    let register = |names: &[&'static str; 32], number: u8| names[usize::from(number & 31)];
    let result = match name {
        "rd" => write!(text, "{}", register(&INTEGER, i.rd)),
        "rs1" => write!(text, "{}", register(&INTEGER, i.rs1)),
        "rs2" => write!(text, "{}", register(&INTEGER, i.rs2)),
        "fd" => write!(text, "{}", register(&FLOAT, i.rd)),
        "fs1" => write!(text, "{}", register(&FLOAT, i.rs1)),
        "fs2" => write!(text, "{}", register(&FLOAT, i.rs2)),
        "fs3" => write!(text, "{}", register(&FLOAT, i.rs3)),
        "imm" => write!(text, "{imm}"),
        "block" => write!(text, "{}", imm & !31),
        "hex" => write!(text, "{imm:#x}"),
        "imm20" => write!(text, "{:#x}", imm.cast_unsigned() >> 12),
        "target" => write!(text, "{:#x}", pc.wrapping_add_signed(i64::from(imm))),
        "zimm" => write!(text, "{}", i.rs1),
        "csr" => match u16::try_from(imm).ok().and_then(csr::name) {
            Some(name) => write!(text, "{name}"),
            None => write!(text, "{imm:#x}"),
        },
        "rm" => match ROUNDING[usize::from(i.rm & 7)] {
            "" => write!(text, "{}", i.rm),
            name => write!(text, "{name}"),
        },
        "pred" => write!(text, "{}", fence_set(imm >> 4)),
        "succ" => write!(text, "{}", fence_set(imm)),
        // A register that the form implies, such as `sp`.
        implied => write!(text, "{implied}"),
    };
    debug_assert!(result.is_ok(), "a String takes everything");
}

/// Which accesses one side of a fence orders.
fn fence_set(bits: i32) -> String {
    let set: String = [(8, 'i'), (4, 'o'), (2, 'r'), (1, 'w')]
        .into_iter()
        .filter_map(|(bit, letter)| (bits & bit != 0).then_some(letter))
        .collect();
    if set.is_empty() { "0".into() } else { set }
}
