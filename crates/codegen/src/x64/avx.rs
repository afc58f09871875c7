//! Floating point on 256 bits: eight singles or four doubles at once.

use super::sse::prefixed;
use super::{Assembler, Fma, Gpr, Mem, Opcode, Precision, Rm, Scalar, Xmm};

/// An opcode on 256 bits.
const fn long(prefix: u8, map: u8, byte: u8) -> Opcode {
    Opcode { long: true, ..prefixed(prefix, map, byte) }
}

impl Assembler {
    /// `vmovups` from memory, which need not be aligned.
    pub fn load_packed(&mut self, dst: Xmm, src: Mem) {
        self.encode_vex(long(0, 1, 0x10), dst.0, 0, src.into());
    }

    /// `vmovups` to memory, which need not be aligned.
    pub fn store_packed(&mut self, dst: Mem, src: Xmm) {
        self.encode_vex(long(0, 1, 0x11), src.0, 0, dst.into());
    }

    /// `vmovaps` between registers.
    pub fn move_packed(&mut self, dst: Xmm, src: Xmm) {
        self.encode_vex(long(0, 1, 0x28), dst.0, 0, src.into());
    }

    /// An operation on each number: `dst = a op b`. Not for roots.
    pub fn packed(&mut self, op: Scalar, precision: Precision, dst: Xmm, a: Xmm, b: impl Into<Rm>) {
        self.encode_vex(long(precision.packed(), 1, op as u8), dst.0, a.0, b.into());
    }

    /// The root of each number.
    pub fn root_packed(&mut self, precision: Precision, dst: Xmm, src: Xmm) {
        self.encode_vex(long(precision.packed(), 1, Scalar::Sqrt as u8), dst.0, 0, src.into());
    }

    /// The form 213 on each number: `dst = dst * b + c`, with the signs of `op`.
    pub fn fma_213_packed(&mut self, op: Fma, precision: Precision, dst: Xmm, b: Xmm, c: Xmm) {
        // One less than for scalars.
        let opcode = Opcode { wide: precision == Precision::Double, ..long(0x66, 2, (0xa0 | op as u8) - 1) };
        self.encode_vex(opcode, dst.0, b.0, c.into());
    }

    /// `vbroadcastss` or `vbroadcastsd`: the number in `src` in all places.
    pub fn broadcast(&mut self, precision: Precision, dst: Xmm, src: Xmm) {
        let byte = if precision == Precision::Single { 0x18 } else { 0x19 };
        self.encode_vex(long(0x66, 2, byte), dst.0, 0, src.into());
    }

    /// `vpbroadcastb` and its kin: the lowest integer of `src`, of two to the power of `shift` bytes (0 to 3), in all places.
    pub fn broadcast_integer(&mut self, shift: u8, dst: Xmm, src: Xmm) {
        let byte = [0x78, 0x79, 0x58, 0x59][usize::from(shift & 3)];
        self.encode_vex(long(0x66, 2, byte), dst.0, 0, src.into());
    }

    /// `vcmpunordps` or `vcmpunordpd`: ones in the places where either is a NaN, else zeroes.
    pub fn unordered(&mut self, precision: Precision, dst: Xmm, a: Xmm, b: Xmm) {
        self.encode_vex(long(precision.packed(), 1, 0xc2), dst.0, a.0, b.into());
        self.bytes(&[3]);
    }

    /// `vmovmskps` or `vmovmskpd`: the signs, as bits.
    pub fn signs(&mut self, precision: Precision, dst: Gpr, src: Xmm) {
        self.encode_vex(long(precision.packed(), 1, 0x50), dst as u8, 0, src.into());
    }

    /// `vzeroupper`: the upper halves of all become zero, and instructions on the lower halves cost what they do without them.
    pub fn zero_upper(&mut self) {
        self.bytes(&[0xc5, 0xf8, 0x77]);
    }
}
