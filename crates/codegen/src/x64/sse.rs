//! Scalar floating point, and the few instructions on 128 bits that translators want.

use super::{Assembler, Gpr, Mem, Opcode, Rm, Size, Xmm, two};

/// The format of a scalar operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    Single,
    /// 64 bits.
    Double,
}

impl Precision {
    /// The prefix of scalar instructions.
    const fn scalar(self) -> u8 {
        match self {
            Self::Single => 0xf3,
            Self::Double => 0xf2,
        }
    }

    /// The prefix of comparisons, and of operations on several numbers.
    pub(super) const fn packed(self) -> u8 {
        match self {
            Self::Single => 0,
            Self::Double => 0x66,
        }
    }
}

/// A scalar operation: `dst = dst op src`; the root is of `src` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Scalar {
    Sqrt = 0x51,
    Add = 0x58,
    Mul = 0x59,
    Sub = 0x5c,
    Min = 0x5d,
    Div = 0x5e,
    Max = 0x5f,
}

/// An operation on all 128 bits. `Andn` is `!dst & src`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Logic {
    And = 0x54,
    Andn = 0x55,
    Or = 0x56,
    Xor = 0x57,
}

/// A fused multiplication and addition; `N` negates the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Fma {
    Madd = 0x09,
    Msub = 0x0b,
    Nmadd = 0x0d,
    Nmsub = 0x0f,
}

/// A round of AES on all 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Aes {
    Enc = 0xdc,
    Enclast = 0xdd,
    Dec = 0xde,
    Declast = 0xdf,
}

/// An operation on a single bit of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are the processor's")]
pub enum Bit {
    Test = 4,
    Set = 5,
    Reset = 6,
    Complement = 7,
}

pub(super) const fn prefixed(prefix: u8, map: u8, byte: u8) -> Opcode {
    Opcode { prefix, map, ..super::one(byte) }
}

impl Assembler {
    /// `bt`, `bts`, `btr` or `btc` of a register; the bit's number is taken modulo the size, 32 or 64.
    pub fn bit(&mut self, bit: Bit, size: Size, dst: Gpr, number: Gpr) {
        self.encode(two(0x83 | (bit as u8) << 3).sized(size), number as u8, dst.into(), false);
    }

    /// The same with a fixed number.
    pub fn bit_imm(&mut self, bit: Bit, size: Size, dst: Gpr, number: u8) {
        self.encode(two(0xba).sized(size), bit as u8, dst.into(), false);
        self.bytes(&[number]);
    }

    /// `movss` or `movsd` from memory: the rest of `dst` becomes zero.
    pub fn load_scalar(&mut self, precision: Precision, dst: Xmm, src: Mem) {
        self.encode(prefixed(precision.scalar(), 1, 0x10), dst.0, src.into(), false);
    }

    /// `movss` or `movsd` to memory.
    pub fn store_scalar(&mut self, precision: Precision, dst: Mem, src: Xmm) {
        self.encode(prefixed(precision.scalar(), 1, 0x11), src.0, dst.into(), false);
    }

    /// `movaps` between registers.
    pub fn movaps(&mut self, dst: Xmm, src: Xmm) {
        self.encode(two(0x28), dst.0, src.into(), false);
    }

    /// `movd` or `movq` from a general-purpose register (size 32 or 64): the rest of `dst` becomes zero.
    pub fn mov_to_xmm(&mut self, size: Size, dst: Xmm, src: Gpr) {
        self.encode(Opcode { wide: size == Size::B64, ..prefixed(0x66, 1, 0x6e) }, dst.0, src.into(), false);
    }

    /// `movd` or `movq` to a general-purpose register.
    pub fn mov_from_xmm(&mut self, size: Size, dst: Gpr, src: Xmm) {
        self.encode(Opcode { wide: size == Size::B64, ..prefixed(0x66, 1, 0x7e) }, src.0, dst.into(), false);
    }

    /// `pextrq`: the upper half of `src`.
    pub fn upper_half(&mut self, dst: Gpr, src: Xmm) {
        self.encode(Opcode { wide: true, ..prefixed(0x66, 3, 0x16) }, src.0, dst.into(), false);
        self.bytes(&[1]);
    }

    /// A scalar operation.
    pub fn scalar(&mut self, op: Scalar, precision: Precision, dst: Xmm, src: impl Into<Rm>) {
        self.encode(prefixed(precision.scalar(), 1, op as u8), dst.0, src.into(), false);
    }

    /// A scalar operation with its own destination: `dst = a op b`; the root is of `b`.
    pub fn scalar_of(&mut self, op: Scalar, precision: Precision, dst: Xmm, a: Xmm, b: impl Into<Rm>) {
        self.encode_vex(prefixed(precision.scalar(), 1, op as u8), dst.0, a.0, b.into());
    }

    /// `andps` and its kin.
    pub fn logic(&mut self, op: Logic, dst: Xmm, src: Xmm) {
        self.encode(two(op as u8), dst.0, src.into(), false);
    }

    /// `vandps` and its kin: `dst = a op b`; memory need not be aligned.
    pub fn logic_of(&mut self, op: Logic, dst: Xmm, a: Xmm, b: impl Into<Rm>) {
        self.encode_vex(two(op as u8), dst.0, a.0, b.into());
    }

    /// `ucomiss` or `ucomisd`: only signalling NaNs are invalid.
    pub fn ucomis(&mut self, precision: Precision, a: Xmm, b: impl Into<Rm>) {
        self.encode(prefixed(precision.packed(), 1, 0x2e), a.0, b.into(), false);
    }

    /// `comiss` or `comisd`: all NaNs are invalid.
    pub fn comis(&mut self, precision: Precision, a: Xmm, b: impl Into<Rm>) {
        self.encode(prefixed(precision.packed(), 1, 0x2f), a.0, b.into(), false);
    }

    /// `cvtsi2ss` or `cvtsi2sd`; the size is the integer's, 32 or 64. The rest of `dst` stays.
    pub fn cvt_from_integer(&mut self, precision: Precision, size: Size, dst: Xmm, src: impl Into<Rm>) {
        self.encode(
            Opcode { wide: size == Size::B64, ..prefixed(precision.scalar(), 1, 0x2a) },
            dst.0,
            src.into(),
            false,
        );
    }

    /// `cvtss2si` or `cvtsd2si`, rounded as MXCSR says.
    pub fn cvt_to_integer(&mut self, precision: Precision, size: Size, dst: Gpr, src: Xmm) {
        self.encode(
            Opcode { wide: size == Size::B64, ..prefixed(precision.scalar(), 1, 0x2d) },
            dst as u8,
            src.into(),
            false,
        );
    }

    /// `cvttss2si` or `cvttsd2si`, rounded towards zero.
    pub fn cvtt_to_integer(&mut self, precision: Precision, size: Size, dst: Gpr, src: Xmm) {
        self.encode(
            Opcode { wide: size == Size::B64, ..prefixed(precision.scalar(), 1, 0x2c) },
            dst as u8,
            src.into(),
            false,
        );
    }

    /// `cvtss2sd` or `cvtsd2ss`: from `from` to the other format.
    pub fn cvt_format(&mut self, from: Precision, dst: Xmm, src: Xmm) {
        self.encode(prefixed(from.scalar(), 1, 0x5a), dst.0, src.into(), false);
    }

    /// The form 213: `dst = dst * b + c`, with the signs of `op`.
    pub fn fma_213(&mut self, op: Fma, precision: Precision, dst: Xmm, b: Xmm, c: Xmm) {
        let opcode = Opcode { wide: precision == Precision::Double, ..prefixed(0x66, 2, 0xa0 | op as u8) };
        self.encode_vex(opcode, dst.0, b.0, c.into());
    }

    /// The form 231: `dst = a * b + dst`, with the signs of `op`.
    pub fn fma_231(&mut self, op: Fma, precision: Precision, dst: Xmm, a: Xmm, b: Xmm) {
        let opcode = Opcode { wide: precision == Precision::Double, ..prefixed(0x66, 2, 0xb0 | op as u8) };
        self.encode_vex(opcode, dst.0, a.0, b.into());
    }

    /// `pcmpeqb`: each byte becomes all ones where equal, else zero.
    pub fn pcmpeqb(&mut self, dst: Xmm, src: Xmm) {
        self.encode(prefixed(0x66, 1, 0x74), dst.0, src.into(), false);
    }

    /// `pclmulqdq` of both lower halves.
    pub fn pclmulqdq(&mut self, dst: Xmm, src: Xmm) {
        self.encode(prefixed(0x66, 3, 0x44), dst.0, src.into(), false);
        self.bytes(&[0]);
    }

    /// `aesenc` and its kin: a round on `dst` with the key in `src`.
    pub fn aes(&mut self, op: Aes, dst: Xmm, src: Xmm) {
        self.encode(prefixed(0x66, 2, op as u8), dst.0, src.into(), false);
    }

    /// `aesimc`: the inverse of the step that mixes columns.
    pub fn aesimc(&mut self, dst: Xmm, src: Xmm) {
        self.encode(prefixed(0x66, 2, 0xdb), dst.0, src.into(), false);
    }

    /// `aeskeygenassist`, with a round's constant.
    pub fn aeskeygenassist(&mut self, dst: Xmm, src: Xmm, constant: u8) {
        self.encode(prefixed(0x66, 3, 0xdf), dst.0, src.into(), false);
        self.bytes(&[constant]);
    }

    /// `punpcklqdq`: the lower half of `src` becomes the upper one of `dst`.
    pub fn punpcklqdq(&mut self, dst: Xmm, src: Xmm) {
        self.encode(prefixed(0x66, 1, 0x6c), dst.0, src.into(), false);
    }

    /// `pshufd`: place `i` of `dst` becomes the word of `src` that bits `2i` and `2i + 1` of `order` number.
    pub fn pshufd(&mut self, dst: Xmm, src: Xmm, order: u8) {
        self.encode(prefixed(0x66, 1, 0x70), dst.0, src.into(), false);
        self.bytes(&[order]);
    }

    /// `ldmxcsr`.
    pub fn ldmxcsr(&mut self, src: Mem) {
        self.encode(two(0xae), 2, src.into(), false);
    }

    /// `stmxcsr`.
    pub fn stmxcsr(&mut self, dst: Mem) {
        self.encode(two(0xae), 3, dst.into(), false);
    }
}
