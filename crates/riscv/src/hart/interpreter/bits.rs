//! B, Zbkb, Zbkx and Zicond: addresses, bits, carry-less products, permutations, conditional zero.

#![allow(clippy::cast_possible_truncation, reason = "the instructions cut values to narrower widths")]

use super::integer::{of_immediate, of_register, of_registers, word};
use super::next;
use crate::hart::Hart;
use crate::hart::block::{Cursor, Flow};

fn low(value: u64) -> u64 {
    value & 0xffff_ffff
}

/// The 128-bit carry-less product.
fn carryless(a: u64, b: u64) -> u128 {
    let mut rest = b;
    let mut product = 0;
    while rest != 0 {
        product ^= u128::from(a) << rest.trailing_zeros();
        rest &= rest - 1;
    }
    product
}

/// Every byte that is not zero becomes 0xff.
fn or_combine(a: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The top bit of each byte says whether the byte has any bit: no carry leaves a byte.
    let any = (((a & SEVEN) + SEVEN) | a) >> 7 & LOW;
    any * 0xff
}

/// Takes for each element of `indices` the element of `table` that it names, or zero if there is none; elements have `width` bits, 4 or 8.
fn permute(table: u64, indices: u64, width: u32) -> u64 {
    let mask = (1 << width) - 1;
    (0..64 / width).fold(0, |result, element| {
        let index = (indices >> (element * width) & mask) as u32;
        let chosen = table.checked_shr(index * width).unwrap_or(0) & mask;
        result | chosen << (element * width)
    })
}

of_registers! {
    add_uw(a, b) low(a).wrapping_add(b);
    sh1add(a, b) (a << 1).wrapping_add(b);
    sh2add(a, b) (a << 2).wrapping_add(b);
    sh3add(a, b) (a << 3).wrapping_add(b);
    sh1add_uw(a, b) (low(a) << 1).wrapping_add(b);
    sh2add_uw(a, b) (low(a) << 2).wrapping_add(b);
    sh3add_uw(a, b) (low(a) << 3).wrapping_add(b);
    andn(a, b) a & !b;
    orn(a, b) a | !b;
    xnor(a, b) !(a ^ b);
    max(a, b) a.cast_signed().max(b.cast_signed()).cast_unsigned();
    maxu(a, b) a.max(b);
    min(a, b) a.cast_signed().min(b.cast_signed()).cast_unsigned();
    minu(a, b) a.min(b);
    rol(a, b) a.rotate_left(b as u32 & 63);
    ror(a, b) a.rotate_right(b as u32 & 63);
    rolw(a, b) word((a as u32).rotate_left(b as u32 & 31).into());
    rorw(a, b) word((a as u32).rotate_right(b as u32 & 31).into());
    clmul(a, b) carryless(a, b) as u64;
    clmulh(a, b) (carryless(a, b) >> 64) as u64;
    clmulr(a, b) (carryless(a, b) >> 63) as u64;
    pack(a, b) low(a) | b << 32;
    packh(a, b) a & 0xff | (b & 0xff) << 8;
    packw(a, b) word(a & 0xffff | (b & 0xffff) << 16);
    xperm4(a, b) permute(a, b, 4);
    xperm8(a, b) permute(a, b, 8);
    bclr(a, b) a & !(1 << (b & 63));
    bext(a, b) a >> (b & 63) & 1;
    binv(a, b) a ^ 1 << (b & 63);
    bset(a, b) a | 1 << (b & 63);
    czero_eqz(a, b) if b == 0 { 0 } else { a };
    czero_nez(a, b) if b == 0 { a } else { 0 };
}

of_immediate! {
    slli_uw(a, b) low(a) << (b & 63);
    rori(a, b) a.rotate_right(b as u32 & 63);
    roriw(a, b) word((a as u32).rotate_right(b as u32 & 31).into());
    bclri(a, b) a & !(1 << (b & 63));
    bexti(a, b) a >> (b & 63) & 1;
    binvi(a, b) a ^ 1 << (b & 63);
    bseti(a, b) a | 1 << (b & 63);
}

of_register! {
    clz(a) a.leading_zeros().into();
    ctz(a) a.trailing_zeros().into();
    cpop(a) a.count_ones().into();
    clzw(a) (a as u32).leading_zeros().into();
    ctzw(a) (a as u32).trailing_zeros().into();
    cpopw(a) (a as u32).count_ones().into();
    sext_b(a) i64::from(a as i8).cast_unsigned();
    sext_h(a) i64::from(a as i16).cast_unsigned();
    orc_b(a) or_combine(a);
    rev8(a) a.swap_bytes();
    brev8(a) a.reverse_bits().swap_bytes();
}
