//! Which registers an operation reads and writes: derived from the operands column of the table at compile time, since translators ask for each instruction.

use super::table::{OPERATIONS, Op, TABLE};

/// What an operation does with the registers that its fields name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses(u8);

const RD: u8 = 1;
const RS1: u8 = 1 << 1;
const RS2: u8 = 1 << 2;
const FD: u8 = 1 << 3;
const FS1: u8 = 1 << 4;
const FS2: u8 = 1 << 5;
const FS3: u8 = 1 << 6;
const MEMORY: u8 = 1 << 7;

const NAMES: [(&str, u8); 7] =
    [("rd", RD), ("rs1", RS1), ("rs2", RS2), ("fd", FD), ("fs1", FS1), ("fs2", FS2), ("fs3", FS3)];

impl Uses {
    /// What the operands of a line of the table, in assembly, say.
    const fn parse(operands: &str, op: Op) -> Self {
        let text = operands.as_bytes();
        let mut uses = 0;
        let mut name = 0;
        while name < NAMES.len() {
            if has(text, NAMES[name].0.as_bytes()) {
                uses |= NAMES[name].1;
            }
            name += 1;
        }
        // A prefetch, which is an `ori`, accesses nothing.
        if matches!(text, [.., b')']) && !matches!(op, Op::Jalr | Op::Ori) {
            uses |= MEMORY;
        }
        Self(uses)
    }

    const fn has(self, uses: u8) -> bool {
        self.0 & uses != 0
    }

    /// Writes the integer register `rd`.
    #[must_use]
    pub const fn writes_integer(self) -> bool {
        self.has(RD)
    }

    /// Writes the floating-point register `rd`.
    #[must_use]
    pub const fn writes_float(self) -> bool {
        self.has(FD)
    }

    /// Reads the integer registers `rs1` and `rs2`.
    #[must_use]
    pub const fn reads_integer(self) -> [bool; 2] {
        [self.has(RS1), self.has(RS2)]
    }

    /// Reads the floating-point registers `rs1`, `rs2` and `rs3`.
    #[must_use]
    pub const fn reads_float(self) -> [bool; 3] {
        [self.has(FS1), self.has(FS2), self.has(FS3)]
    }

    /// Accesses memory at `rs1`.
    #[must_use]
    pub const fn accesses_memory(self) -> bool {
        self.has(MEMORY)
    }
}

/// Whether `name` is among the operands.
const fn has(operands: &[u8], name: &[u8]) -> bool {
    let (mut start, mut at) = (0, 0);
    while at <= operands.len() {
        if at == operands.len() || matches!(operands[at], b',' | b'(' | b')') {
            let mut same = 0;
            while same < name.len() && start + same < at && operands[start + same] == name[same] {
                same += 1;
            }
            if same == name.len() && start + same == at {
                return true;
            }
            start = at + 1;
        }
        at += 1;
    }
    false
}

static USES: [Uses; OPERATIONS] = {
    let mut all = [Uses(0); OPERATIONS];
    let mut op = 0;
    while op < OPERATIONS {
        all[op] = Uses::parse(TABLE[op].operands, TABLE[op].op);
        op += 1;
    }
    all
};

impl Op {
    /// Which registers it reads and writes.
    #[must_use]
    #[inline]
    pub const fn uses(self) -> Uses {
        USES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_operands_column() {
        for line in &TABLE[..OPERATIONS] {
            let uses = line.op.uses();
            let [rs1, rs2] = uses.reads_integer();
            let [fs1, fs2, fs3] = uses.reads_float();
            let all = [(uses.writes_integer(), "rd"), (uses.writes_float(), "fd"), (rs1, "rs1"), (rs2, "rs2")];
            for (used, name) in all.into_iter().chain([(fs1, "fs1"), (fs2, "fs2"), (fs3, "fs3")]) {
                assert_eq!(used, line.has_operand(name), "{name} of {}", line.mnemonic);
            }
            assert_eq!(uses.accesses_memory(), line.accesses_memory(), "{}", line.mnemonic);
        }
    }
}
