//! M: multiplication and division. Division by zero and overflow have results, not traps.

#![allow(clippy::cast_possible_truncation, reason = "the instructions cut values to 32 bits, and products to 64")]

use super::integer::{of_registers, word};
use super::next;
use crate::hart::Hart;
use crate::hart::block::{Cursor, Flow};

fn divide(a: i64, b: i64) -> i64 {
    if b == 0 { -1 } else { a.wrapping_div(b) }
}

fn remainder(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { a.wrapping_rem(b) }
}

fn signed(value: u64) -> i128 {
    value.cast_signed().into()
}

of_registers! {
    mul(a, b) a.wrapping_mul(b);
    mulh(a, b) ((signed(a) * signed(b)) >> 64).cast_unsigned() as u64;
    mulhsu(a, b) ((signed(a) * i128::from(b)) >> 64).cast_unsigned() as u64;
    mulhu(a, b) ((u128::from(a) * u128::from(b)) >> 64) as u64;
    div(a, b) divide(a.cast_signed(), b.cast_signed()).cast_unsigned();
    divu(a, b) a.checked_div(b).unwrap_or(u64::MAX);
    rem(a, b) remainder(a.cast_signed(), b.cast_signed()).cast_unsigned();
    remu(a, b) a.checked_rem(b).unwrap_or(a);
    mulw(a, b) word(a.wrapping_mul(b));
    divw(a, b) word(divide((a as i32).into(), (b as i32).into()).cast_unsigned());
    divuw(a, b) word((a as u32).checked_div(b as u32).unwrap_or(u32::MAX).into());
    remw(a, b) word(remainder((a as i32).into(), (b as i32).into()).cast_unsigned());
    remuw(a, b) word((a as u32).checked_rem(b as u32).unwrap_or(a as u32).into());
}
