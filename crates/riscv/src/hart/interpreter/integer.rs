//! RV64I: computation with integers.

#![allow(clippy::cast_possible_truncation, reason = "the instructions cut values to 32 bits")]

use super::next;
use crate::hart::Hart;
use crate::hart::block::{Cursor, Flow};

/// `value` as 32 bits, sign-extended: what the `w` instructions answer.
#[inline(always)]
pub(super) fn word(value: u64) -> u64 {
    i64::from(value as i32).cast_unsigned()
}

/// Handlers for `rd = f(rs1, rs2)`.
macro_rules! of_registers {
    ($($name:ident($a:ident, $b:ident) $value:expr;)*) => {$(
        pub(super) fn $name(hart: &mut Hart, cursor: Cursor) -> Flow {
            let ($a, $b) = (hart.x.get(cursor.rs1()), hart.x.get(cursor.rs2()));
            hart.x.set(cursor.rd(), $value);
            next(hart, cursor)
        }
    )*};
}

/// Handlers for `rd = f(rs1, imm)`.
macro_rules! of_immediate {
    ($($name:ident($a:ident, $b:ident) $value:expr;)*) => {$(
        pub(super) fn $name(hart: &mut Hart, cursor: Cursor) -> Flow {
            let ($a, $b) = (hart.x.get(cursor.rs1()), cursor.imm());
            hart.x.set(cursor.rd(), $value);
            next(hart, cursor)
        }
    )*};
}

/// Handlers for `rd = f(rs1)`.
macro_rules! of_register {
    ($($name:ident($a:ident) $value:expr;)*) => {$(
        pub(super) fn $name(hart: &mut Hart, cursor: Cursor) -> Flow {
            let $a = hart.x.get(cursor.rs1());
            hart.x.set(cursor.rd(), $value);
            next(hart, cursor)
        }
    )*};
}

pub(super) use {of_immediate, of_register, of_registers};

#[inline(always)]
fn signed(value: u64) -> i64 {
    value.cast_signed()
}

of_registers! {
    add(a, b) a.wrapping_add(b);
    sub(a, b) a.wrapping_sub(b);
    sll(a, b) a << (b & 63);
    slt(a, b) u64::from(signed(a) < signed(b));
    sltu(a, b) u64::from(a < b);
    xor(a, b) a ^ b;
    srl(a, b) a >> (b & 63);
    sra(a, b) (signed(a) >> (b & 63)).cast_unsigned();
    or(a, b) a | b;
    and(a, b) a & b;
    addw(a, b) word(a.wrapping_add(b));
    subw(a, b) word(a.wrapping_sub(b));
    sllw(a, b) word(a << (b & 31));
    srlw(a, b) word(u64::from(a as u32 >> (b & 31)));
    sraw(a, b) i64::from(a as i32 >> (b & 31)).cast_unsigned();
}

of_immediate! {
    addi(a, b) a.wrapping_add(b);
    slti(a, b) u64::from(signed(a) < signed(b));
    sltiu(a, b) u64::from(a < b);
    xori(a, b) a ^ b;
    ori(a, b) a | b;
    andi(a, b) a & b;
    slli(a, b) a << (b & 63);
    srli(a, b) a >> (b & 63);
    srai(a, b) (signed(a) >> (b & 63)).cast_unsigned();
    addiw(a, b) word(a.wrapping_add(b));
    slliw(a, b) word(a << (b & 31));
    srliw(a, b) word(u64::from(a as u32 >> (b & 31)));
    sraiw(a, b) i64::from(a as i32 >> (b & 31)).cast_unsigned();
}

/// `lui`.
pub(super) fn lui(hart: &mut Hart, cursor: Cursor) -> Flow {
    hart.x.set(cursor.rd(), cursor.imm());
    next(hart, cursor)
}

/// The immediate includes the instruction's place in the block.
pub(super) fn auipc(hart: &mut Hart, cursor: Cursor) -> Flow {
    hart.x.set(cursor.rd(), hart.pc.wrapping_add(cursor.imm()));
    next(hart, cursor)
}
