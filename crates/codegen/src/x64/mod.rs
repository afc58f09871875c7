//! An assembler for x86-64: instructions as bytes, labels, jumps.
//!
//! Methods are named after instructions; the destination comes first. Operands that may be a register or memory are [`Rm`]. Extensions taken for granted:
//! those of x86-64-v3.
//!
//! Jumps to labels take 32-bit displacements; the code is small enough that shorter ones would not pay.

mod avx;
mod integer;
mod sse;
#[cfg(test)]
mod tests;

pub use sse::{Aes, Bit, Fma, Logic, Precision, Scalar};

/// A general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Gpr {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

/// A vector register, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xmm(pub u8);

/// The size of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 8 bits.
    B8,
    /// 16 bits.
    B16,
    /// 32 bits; as a destination, the upper half of a register becomes zero.
    B32,
    /// 64 bits.
    B64,
}

/// What an index register is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Scale {
    One = 0,
    Two = 1,
    Four = 2,
    Eight = 3,
}

/// A memory operand: base + index * scale + displacement, maybe from the base of `gs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    base: Option<Gpr>,
    index: Option<(Gpr, Scale)>,
    displacement: i32,
    gs: bool,
}

impl Mem {
    /// `[base + displacement]`.
    #[must_use]
    pub const fn at(base: Gpr, displacement: i32) -> Self {
        Self { base: Some(base), index: None, displacement, gs: false }
    }

    /// `[base + index * scale + displacement]`; the index is not `rsp`.
    #[must_use]
    pub const fn indexed(base: Gpr, index: Gpr, scale: Scale, displacement: i32) -> Self {
        Self { base: Some(base), index: Some((index, scale)), displacement, gs: false }
    }

    /// `[index * scale + displacement]`; the index is not `rsp`.
    #[must_use]
    pub const fn scaled(index: Gpr, scale: Scale, displacement: i32) -> Self {
        Self { base: None, index: Some((index, scale)), displacement, gs: false }
    }

    /// `[displacement]`.
    #[must_use]
    pub const fn absolute(displacement: i32) -> Self {
        Self { base: None, index: None, displacement, gs: false }
    }

    /// Whether the address depends on `register`.
    #[must_use]
    pub fn uses(self, register: Gpr) -> bool {
        self.base == Some(register) || self.index.is_some_and(|(index, _)| index == register)
    }

    /// The same from the base of `gs`.
    #[must_use]
    pub const fn gs(self) -> Self {
        Self { gs: true, ..self }
    }
}

/// A register or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rm {
    /// A general-purpose register.
    Gpr(Gpr),
    /// A vector register.
    Xmm(Xmm),
    /// Memory.
    Mem(Mem),
}

impl From<Gpr> for Rm {
    fn from(register: Gpr) -> Self {
        Self::Gpr(register)
    }
}

impl From<Xmm> for Rm {
    fn from(register: Xmm) -> Self {
        Self::Xmm(register)
    }
}

impl From<Mem> for Rm {
    fn from(mem: Mem) -> Self {
        Self::Mem(mem)
    }
}

/// A two-operand instruction of arithmetic or logic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// A shift or rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// A condition on the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Cc {
    O = 0,
    No = 1,
    B = 2,
    Ae = 3,
    E = 4,
    Ne = 5,
    Be = 6,
    A = 7,
    S = 8,
    Ns = 9,
    P = 10,
    Np = 11,
    L = 12,
    Ge = 13,
    Le = 14,
    G = 15,
}

impl Cc {
    /// The condition that holds when this one does not.
    #[must_use]
    pub const fn inverse(self) -> Self {
        const ALL: [Cc; 16] = [
            Cc::No,
            Cc::O,
            Cc::Ae,
            Cc::B,
            Cc::Ne,
            Cc::E,
            Cc::A,
            Cc::Be,
            Cc::Ns,
            Cc::S,
            Cc::Np,
            Cc::P,
            Cc::Ge,
            Cc::L,
            Cc::G,
            Cc::Le,
        ];
        ALL[self as usize]
    }
}

/// A place in the code, known or to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Code in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<u8>,
    labels: Vec<Option<usize>>,
    /// How many of them are bound.
    bound: usize,
    /// Where a displacement of 32 bits ends which leads to a label.
    fixups: Vec<(usize, Label)>,
}

/// How an instruction's opcode is written.
#[derive(Clone, Copy, Debug)]
struct Opcode {
    /// `0x66`, `0xf2`, `0xf3`, or zero for none.
    prefix: u8,
    /// `0`: one byte; `1`: after `0f`; `2`: after `0f 38`; `3`: after `0f 3a`.
    map: u8,
    byte: u8,
    wide: bool,
    /// With a VEX prefix: 256 bits.
    long: bool,
}

const fn one(byte: u8) -> Opcode {
    Opcode { prefix: 0, map: 0, byte, wide: false, long: false }
}

const fn two(byte: u8) -> Opcode {
    Opcode { map: 1, ..one(byte) }
}

impl Opcode {
    const fn sized(self, size: Size) -> Self {
        let prefix = if matches!(size, Size::B16) { 0x66 } else { self.prefix };
        Self { prefix, wide: matches!(size, Size::B64), ..self }
    }
}

impl Assembler {
    /// No code yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes there are.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.code.len()
    }

    /// The code. Every label that was used has been bound.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        for (end, label) in &self.fixups {
            let target = self.labels[label.0];
            debug_assert!(target.is_some(), "a label that is used is bound");
            // Code is far smaller than two gigabytes.
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            let displacement = target.unwrap_or(*end).wrapping_sub(*end) as i32;
            self.code[end - 4..*end].copy_from_slice(&displacement.to_le_bytes());
        }
        self.code
    }

    /// A new label, to be bound once.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// `label` is here.
    pub fn bind(&mut self, label: Label) {
        debug_assert!(self.labels[label.0].is_none(), "a label is bound once");
        self.labels[label.0] = Some(self.code.len());
        self.bound += 1;
    }

    /// What changes with each instruction and each label that is bound.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        (self.code.len(), self.bound)
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    /// Fills with instructions that do nothing up to a multiple of `alignment`, a power of two. What `before` bytes later comes is aligned.
    pub fn align(&mut self, alignment: usize, before: usize) {
        self.align_at(self.code.len(), alignment, before);
    }

    /// As [`Self::align`], with what does nothing at offset `at`, behind which neither labels nor jumps are.
    fn align_at(&mut self, at: usize, alignment: usize, before: usize) {
        const NOPS: [&[u8]; 8] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        ];
        let mut missing = (self.code.len() + before).wrapping_neg() & (alignment - 1);
        while missing > 0 {
            let nop = NOPS[missing.min(NOPS.len()) - 1];
            self.code.splice(at..at, nop.iter().copied());
            missing -= nop.len();
        }
    }

    /// Prefixes, opcode, and operands. `byte_register`: `reg` or `rm` is the low byte of a
    /// register above `rbx`, which needs a REX prefix.
    fn encode(&mut self, opcode: Opcode, reg: u8, rm: Rm, byte_register: bool) {
        let (x, b) = self.high_bits(rm);
        if opcode.prefix != 0 {
            self.code.push(opcode.prefix);
        }
        let rex = u8::from(opcode.wide) << 3 | (reg >> 3 & 1) << 2 | x << 1 | b;
        if rex != 0 || byte_register {
            self.code.push(0x40 | rex);
        }
        self.bytes(match opcode.map {
            0 => &[],
            1 => &[0x0f],
            2 => &[0x0f, 0x38],
            _ => &[0x0f, 0x3a],
        });
        self.code.push(opcode.byte);
        self.modrm(reg, rm);
    }

    /// As [`Self::encode`] with a VEX prefix: `vvvv` is the second source. `prefix` there: 0, 0x66, 0xf3 or 0xf2.
    fn encode_vex(&mut self, opcode: Opcode, reg: u8, vvvv: u8, rm: Rm) {
        let (x, b) = self.high_bits(rm);
        let pp = match opcode.prefix {
            0x66 => 1,
            0xf3 => 2,
            0xf2 => 3,
            _ => 0,
        };
        self.code.push(0xc4);
        self.code.push((reg >> 3 & 1 ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | opcode.map);
        self.code.push(u8::from(opcode.wide) << 7 | (!vvvv & 15) << 3 | u8::from(opcode.long) << 2 | pp);
        self.code.push(opcode.byte);
        self.modrm(reg, rm);
    }

    /// The bits of an operand that go into a prefix: of its index, and of its base or register. Writes the segment's prefix.
    fn high_bits(&mut self, rm: Rm) -> (u8, u8) {
        match rm {
            Rm::Gpr(register) => (0, register as u8 >> 3),
            Rm::Xmm(register) => (0, register.0 >> 3),
            Rm::Mem(mem) => {
                if mem.gs {
                    self.code.push(0x65);
                }
                (mem.index.map_or(0, |(index, _)| index as u8 >> 3), mem.base.map_or(0, |base| base as u8 >> 3))
            }
        }
    }

    fn modrm(&mut self, reg: u8, rm: Rm) {
        let reg = (reg & 7) << 3;
        let mem = match rm {
            Rm::Gpr(register) => return self.code.push(0xc0 | reg | register as u8 & 7),
            Rm::Xmm(register) => return self.code.push(0xc0 | reg | register.0 & 7),
            Rm::Mem(mem) => mem,
        };
        let Mem { base, index, displacement, .. } = mem;
        let short = i8::try_from(displacement);
        let (mode, size) = match (base, short) {
            (None, _) => (0, 4),
            // rbp and r13 as a base have no form without displacement.
            (Some(base), Ok(0)) if base as u8 & 7 != 5 => (0, 0),
            (Some(_), Ok(_)) => (0x40, 1),
            (Some(_), Err(_)) => (0x80, 4),
        };
        let low = base.map_or(5, |base| base as u8 & 7);
        if base.is_none() || index.is_some() || low == 4 {
            let (index, scale) = index.map_or((4, 0), |(index, scale)| (index as u8 & 7, scale as u8));
            self.bytes(&[mode | reg | 4, scale << 6 | index << 3 | low]);
        } else {
            self.code.push(mode | reg | low);
        }
        self.bytes(&displacement.to_le_bytes()[..size]);
    }
}
