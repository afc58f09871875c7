//! An assembler for tests and for the few words of code that a machine itself needs.
//!
//! Text falls out of the operand column of the table, so every instruction can be written as [`disassemble`](super::disassemble()) prints it. A program is
//! built with an [`Assembler`], which knows labels; [`assemble`] is that for text alone.

use std::collections::HashMap;

use super::disassemble::{Piece, pieces};
use super::registers::{FLOAT, INTEGER, ROUNDING, number};
use super::{Instruction, Line, Op, TABLE, csr};

/// Why something could not be assembled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// No line of the table has such a mnemonic.
    #[error("no instruction is called {0:?}")]
    Mnemonic(String),
    /// The operands are not those of the instruction.
    #[error("{text:?} is not of the form \"{form}\"")]
    Operands {
        /// What was written.
        text: String,
        /// Mnemonic and operand column of the table.
        form: String,
    },
    /// An operand does not fit into its field.
    #[error("{0:?} does not fit into its encoding")]
    Range(Instruction),
    /// A label is used and never bound.
    #[error("the label {0:?} is not defined")]
    Label(String),
}

/// A place in a program, known or to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// How a label's distance enters an instruction.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// The offset of a branch or jump.
    Offset,
    /// The upper part, for `auipc`.
    Upper,
    /// The lower part, for the instruction after an `auipc`.
    Lower,
}

#[derive(Debug)]
struct Fixup {
    at: usize,
    instruction: Instruction,
    label: Label,
    part: Part,
}

/// A program being written.
#[derive(Debug, Default)]
pub struct Assembler {
    base: u64,
    bytes: Vec<u8>,
    labels: Vec<Option<u64>>,
    names: HashMap<String, Label>,
    fixups: Vec<Fixup>,
    error: Option<AssembleError>,
}

impl Assembler {
    /// An empty program that begins at address `base`.
    #[must_use]
    pub fn new(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    /// The address of what comes next.
    #[must_use]
    pub fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// A new label, to be bound later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Says that `label` is here.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.here());
    }

    /// Appends an instruction. One that cannot be encoded is reported by [`Self::finish`].
    pub fn emit(&mut self, instruction: Instruction) {
        match instruction.encode() {
            Some(word) => self.bytes.extend_from_slice(&word.to_le_bytes()[..usize::from(instruction.length)]),
            None => self.fail(AssembleError::Range(instruction)),
        }
    }

    /// Appends `op rd, rs1, rs2`.
    pub fn r(&mut self, op: Op, rd: u8, rs1: u8, rs2: u8) {
        self.emit(Instruction { rd, rs1, rs2, ..Instruction::new(op) });
    }

    /// Appends `op rd, rs1, imm`, or a load `op rd, imm(rs1)`.
    pub fn i(&mut self, op: Op, rd: u8, rs1: u8, imm: i32) {
        self.emit(Instruction { rd, rs1, imm, ..Instruction::new(op) });
    }

    /// Appends a store `op rs2, imm(rs1)`.
    pub fn s(&mut self, op: Op, rs2: u8, rs1: u8, imm: i32) {
        self.emit(Instruction { rs1, rs2, imm, ..Instruction::new(op) });
    }

    /// Appends `op rs1, rs2, label`.
    pub fn branch(&mut self, op: Op, rs1: u8, rs2: u8, label: Label) {
        self.emit_to(Instruction { rs1, rs2, ..Instruction::new(op) }, label, Part::Offset);
    }

    /// Appends `jal rd, label`.
    pub fn jump(&mut self, rd: u8, label: Label) {
        self.emit_to(Instruction { rd, ..Instruction::new(Op::Jal) }, label, Part::Offset);
    }

    /// Loads the address of `label`: two instructions.
    pub fn load_address(&mut self, rd: u8, label: Label) {
        self.emit_to(Instruction { rd, ..Instruction::new(Op::Auipc) }, label, Part::Upper);
        self.emit_to(Instruction { rd, rs1: rd, ..Instruction::new(Op::Addi) }, label, Part::Lower);
    }

    /// Loads a constant: one to eight instructions.
    pub fn load_constant(&mut self, rd: u8, value: u64) {
        let value = value.cast_signed();
        let lower = low_12(value);
        if let Ok(word) = i32::try_from(value) {
            let upper = word.wrapping_sub(lower);
            if upper != 0 {
                self.emit(Instruction { rd, imm: upper, ..Instruction::new(Op::Lui) });
            }
            if lower != 0 || upper == 0 {
                let (op, rs1) = if upper == 0 { (Op::Addi, 0) } else { (Op::Addiw, rd) };
                self.i(op, rd, rs1, lower);
            }
            return;
        }
        let upper = value.wrapping_sub(i64::from(lower));
        let shift = upper.trailing_zeros();
        self.load_constant(rd, (upper >> shift).cast_unsigned());
        self.i(Op::Slli, rd, rd, shift.cast_signed());
        if lower != 0 {
            self.i(Op::Addi, rd, rd, lower);
        }
    }

    /// Appends bytes as they are.
    pub fn data(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends zeroes up to a multiple of `alignment` bytes.
    pub fn align(&mut self, alignment: u64) {
        while !self.here().is_multiple_of(alignment) {
            self.bytes.push(0);
        }
    }

    /// Appends lines of text: instructions, `name:` labels (which branches and jumps may use as targets), and comments from `#` on.
    pub fn text(&mut self, text: &str) {
        for line in text.lines() {
            let mut line = line.split('#').next().unwrap_or_default().trim();
            while let Some((name, rest)) = line.split_once(':') {
                let label = self.named(name.trim());
                self.bind(label);
                line = rest.trim();
            }
            if !line.is_empty() {
                self.statement(line);
            }
        }
    }

    fn statement(&mut self, text: &str) {
        match parse(text, self.here()) {
            Ok((instruction, None)) => self.emit(instruction),
            Ok((instruction, Some(name))) => {
                let label = self.named(name);
                self.emit_to(instruction, label, Part::Offset);
            }
            Err(error) => self.fail(error),
        }
    }

    fn named(&mut self, name: &str) -> Label {
        if let Some(&label) = self.names.get(name) {
            return label;
        }
        let label = self.label();
        self.names.insert(name.into(), label);
        label
    }

    fn emit_to(&mut self, instruction: Instruction, label: Label, part: Part) {
        self.fixups.push(Fixup { at: self.bytes.len(), instruction, label, part });
        self.bytes.extend_from_slice(&[0; 4][..usize::from(instruction.length)]);
    }

    fn fail(&mut self, error: AssembleError) {
        self.error.get_or_insert(error);
    }

    /// The program's bytes.
    ///
    /// # Errors
    /// The first thing that could not be assembled.
    pub fn finish(mut self) -> Result<Vec<u8>, AssembleError> {
        for fixup in std::mem::take(&mut self.fixups) {
            let word = self.resolve(&fixup)?;
            let length = usize::from(fixup.instruction.length);
            self.bytes[fixup.at..fixup.at + length].copy_from_slice(&word.to_le_bytes()[..length]);
        }
        self.error.map_or(Ok(self.bytes), Err)
    }

    fn resolve(&self, fixup: &Fixup) -> Result<u32, AssembleError> {
        let name = || {
            let named = self.names.iter().find(|(_, label)| **label == fixup.label);
            named.map_or_else(|| fixup.label.0.to_string(), |(name, _)| name.clone())
        };
        let target = self.labels[fixup.label.0].ok_or_else(|| AssembleError::Label(name()))?;
        let at = self.base + fixup.at as u64;
        let imm = match fixup.part {
            Part::Offset => distance(at, target),
            Part::Upper => distance(at, target).map(|far| far.wrapping_sub(low_12(i64::from(far)))),
            // Relative to the `auipc` before it.
            Part::Lower => distance(at - 4, target).map(|far| low_12(i64::from(far))),
        };
        let range = AssembleError::Range(fixup.instruction);
        imm.and_then(|imm| Instruction { imm, ..fixup.instruction }.encode()).ok_or(range)
    }
}

fn distance(from: u64, to: u64) -> Option<i32> {
    i32::try_from(to.wrapping_sub(from).cast_signed()).ok()
}

/// The low twelve bits, sign-extended.
#[allow(clippy::cast_possible_truncation, reason = "twelve bits are kept")]
const fn low_12(value: i64) -> i32 {
    (value << 52 >> 52) as i32
}

/// Assembles a program of text at address `base`.
///
/// ```
/// let code = riscv::isa::assemble("loop: addi a0,a0,-1\n bne a0,zero,loop", 0x1000)?;
/// assert_eq!(code, [0x13, 0x05, 0xf5, 0xff, 0xe3, 0x1e, 0x05, 0xfe]);
/// # Ok::<(), riscv::isa::AssembleError>(())
/// ```
///
/// # Errors
/// The first thing that could not be assembled.
pub fn assemble(text: &str, base: u64) -> Result<Vec<u8>, AssembleError> {
    let mut program = Assembler::new(base);
    program.text(text);
    program.finish()
}

/// The line called `mnemonic`, and the `aq` and `rl` bits of its suffix.
fn find(mnemonic: &str) -> Option<(&'static Line, u8)> {
    let atomic = [(".aqrl", 3), (".aq", 2), (".rl", 1)].into_iter().find_map(|(suffix, bits)| {
        let line = find_line(mnemonic.strip_suffix(suffix)?)?;
        line.encoding.is_atomic().then_some((line, bits))
    });
    atomic.or_else(|| find_line(mnemonic).map(|line| (line, 0)))
}

fn find_line(mnemonic: &str) -> Option<&'static Line> {
    TABLE.iter().find(|line| line.mnemonic == mnemonic)
}

/// One instruction at `pc`, and the name of the label that its target is, if it is not a number.
fn parse(text: &str, pc: u64) -> Result<(Instruction, Option<&str>), AssembleError> {
    let (mnemonic, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (line, ordering) = find(mnemonic).ok_or_else(|| AssembleError::Mnemonic(mnemonic.into()))?;
    let mut instruction = line.encoding.decode(line.op, line.encoding.bits);
    if line.encoding.is_atomic() {
        instruction.rm = ordering;
    } else if line.encoding.has_rounding_mode() {
        instruction.rm = 7;
    }
    let label = parse_operands(line, operands.trim(), pc, &mut instruction).ok_or_else(|| AssembleError::Operands {
        text: text.into(),
        form: format!("{} {}", line.mnemonic, line.operands),
    })?;
    if line.encoding.shares_source() {
        instruction.rs1 = instruction.rd;
    }
    if label.is_none() && line.encoding.encode(&instruction).is_none() {
        return Err(AssembleError::Range(instruction));
    }
    Ok((instruction, label))
}

fn parse_operands<'a>(line: &Line, text: &'a str, pc: u64, i: &mut Instruction) -> Option<Option<&'a str>> {
    let (mut rest, mut label) = (text, None);
    let mut form = pieces(line.operands).peekable();
    while let Some(piece) = form.next() {
        match piece {
            // The rounding mode may be left out.
            Piece::Mark(',') if rest.is_empty() && form.peek() == Some(&Piece::Operand("rm")) => break,
            Piece::Mark(mark) => rest = rest.trim_start().strip_prefix(mark)?.trim_start(),
            Piece::Operand(name) => {
                let (operand, after) = rest.split_at(rest.find([',', '(', ')']).unwrap_or(rest.len()));
                rest = after;
                let operand = operand.trim();
                if name == "target" && value(operand).is_none() {
                    label = Some(operand).filter(|name| !name.is_empty());
                    label?;
                } else {
                    set(i, name, operand, pc)?;
                }
            }
        }
    }
    rest.trim().is_empty().then_some(label)
}

fn set(i: &mut Instruction, name: &str, text: &str, pc: u64) -> Option<()> {
    let narrow = |value: i64| i32::try_from(value).ok();
    match name {
        "rd" => i.rd = number(&INTEGER, text)?,
        "rs1" => i.rs1 = number(&INTEGER, text)?,
        "rs2" => i.rs2 = number(&INTEGER, text)?,
        "fd" => i.rd = number(&FLOAT, text)?,
        "fs1" => i.rs1 = number(&FLOAT, text)?,
        "fs2" => i.rs2 = number(&FLOAT, text)?,
        "fs3" => i.rs3 = number(&FLOAT, text)?,
        "imm" | "hex" => i.imm = narrow(value(text)?)?,
        // The low bits are those of the prefetch's kind.
        "block" => i.imm |= narrow(value(text)?)?,
        "imm20" => i.imm = (u32::try_from(value(text)?).ok().filter(|imm| *imm < 1 << 20)? << 12).cast_signed(),
        "target" => i.imm = distance(pc, value(text)?.cast_unsigned())?,
        "zimm" => i.rs1 = u8::try_from(value(text)?).ok()?,
        "csr" => i.imm = csr::number(text).map(i32::from).or_else(|| narrow(value(text)?))?,
        "rm" => {
            let named = ROUNDING.iter().position(|mode| !mode.is_empty() && *mode == text);
            i.rm = named.and_then(|mode| u8::try_from(mode).ok()).or_else(|| text.parse().ok())?;
        }
        "pred" => i.imm |= fence_set(text)? << 4,
        "succ" => i.imm |= fence_set(text)?,
        implied => return (implied == text).then_some(()),
    }
    Some(())
}

/// A decimal or hexadecimal number, negative or up to 64 bits.
fn value(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let magnitude = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(if negative { magnitude.cast_signed().wrapping_neg() } else { magnitude.cast_signed() })
}

fn fence_set(text: &str) -> Option<i32> {
    if text == "0" {
        return Some(0);
    }
    text.chars().try_fold(0, |set, letter| Some(set | 8 >> "iorw".find(letter)?))
}
