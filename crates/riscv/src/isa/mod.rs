//! The instruction set: one table, and what derives from it.
//!
//! ```text
//!              +--> decode       word -> Instruction
//! table  ------+--> disassemble  word -> text
//! (encoding)   +--> assemble     Instruction, or text -> word
//!              +--> generate     random bits -> Instruction
//! ```
//!
//! To add an instruction, add its line to [`table`]; everything here then knows it, and the interpreter stops compiling until it does.

pub mod assemble;
pub mod csr;
pub mod decode;
pub mod disassemble;
pub mod encoding;
pub mod generate;
pub mod registers;
pub mod table;
pub mod uses;

pub use assemble::{AssembleError, Assembler, assemble};
pub use decode::decode;
pub use disassemble::disassemble;
pub use table::{Extension, Line, OPERATIONS, Op, TABLE};
pub use uses::Uses;

/// A decoded instruction. Fields that the operation does not use are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does; a compressed instruction is what it expands to.
    pub op: Op,
    /// How many bytes it takes: 2 or 4.
    pub length: u8,
    /// Destination register, 0 to 31.
    pub rd: u8,
    /// First source register, or the five-bit immediate of `csrrwi` and its kin.
    pub rs1: u8,
    /// Second source register.
    pub rs2: u8,
    /// Third source register.
    pub rs3: u8,
    /// Rounding mode, reserved values included; of atomics bit 1 is `aq` and bit 0 is `rl`.
    pub rm: u8,
    /// Immediate, sign-extended where the manual says so. Upper immediates are already shifted, branches and jumps hold the offset in bytes,
    /// CSR instructions the register's number, `fence` its twelve bits `fm pred succ`.
    pub imm: i32,
}

impl Instruction {
    /// `op` with all operands zero, in its four-byte encoding.
    #[must_use]
    pub const fn new(op: Op) -> Self {
        Self { op, length: 4, rd: 0, rs1: 0, rs2: 0, rs3: 0, rm: 0, imm: 0 }
    }

    /// The word that holds it, or `None` if an operand does not fit. For a length of two: the compressed form, in the low 16 bits.
    #[must_use]
    pub fn encode(&self) -> Option<u32> {
        if self.length == 4 {
            return self.op.line().encoding.encode(self);
        }
        // Some words of a general form are a special one.
        self.forms().find_map(|line| line.encoding.encode(self).filter(|word| decode(*word) == Some(*self)))
    }

    /// The compressed instruction that does the same, if there is one.
    #[must_use]
    pub fn compressed(&self) -> Option<Self> {
        let short = Self { length: 2, ..*self };
        short.encode().is_some().then_some(short)
    }

    fn forms(&self) -> impl Iterator<Item = &'static Line> + use<> {
        let op = self.op;
        TABLE[OPERATIONS..].iter().filter(move |line| line.op == op && line.encoding.length == 2)
    }
}

#[cfg(test)]
mod tests;
