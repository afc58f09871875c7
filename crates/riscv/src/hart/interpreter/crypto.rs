//! Zknd, Zkne, Zknh, Zksed and Zksh: the steps of AES, SHA-2, SM4 and SM3.

#![allow(clippy::cast_possible_truncation, reason = "the instructions cut values to 32 and 8 bits")]

use super::integer::{of_immediate, of_register, of_registers, word};
use super::next;
use crate::hart::Hart;
use crate::hart::block::{Cursor, Flow};

/// The field of 256 elements that AES computes in: x^8 + x^4 + x^3 + x + 1.
const AES: u32 = 0x11b;
/// The one of SM4: x^8 + x^7 + x^6 + x^5 + x^4 + x^2 + 1.
const SM4: u32 = 0x1f5;

/// The product of two elements of a field of 256.
const fn product(a: u8, b: u8, field: u32) -> u8 {
    let (mut product, mut bit) = (0, 8);
    while bit > 0 {
        bit -= 1;
        product <<= 1;
        if product & 0x100 != 0 {
            product ^= field;
        }
        if b >> bit & 1 != 0 {
            product ^= a as u32;
        }
    }
    product as u8
}

/// The inverse in a field of 256; of 0 it is 0.
const fn inverse(a: u8, field: u32) -> u8 {
    // a to the power of 254: the product of a^2, a^4, ..., a^128.
    let (mut power, mut result, mut i) = (a, 1, 0);
    while i < 7 {
        power = product(power, power, field);
        result = product(result, power, field);
        i += 1;
    }
    result
}

/// The sum of the byte rotated right by each number of bits that is set in the first, plus the second.
type Affine = (u8, u8);

const fn affine(a: u8, (rotations, constant): Affine) -> u8 {
    let (mut sum, mut n) = (constant, 0);
    while n < 8 {
        if rotations >> n & 1 != 0 {
            sum ^= a.rotate_right(n);
        }
        n += 1;
    }
    sum
}

/// What an S-box makes of each byte: an affine map, the inverse in the field, another affine map.
const fn sbox(before: Affine, field: u32, after: Affine) -> [u8; 256] {
    let (mut table, mut a) = ([0; 256], 0);
    while a < 256 {
        table[a] = affine(inverse(affine(a as u8, before), field), after);
        a += 1;
    }
    table
}

/// The inverse of a table in which each byte stands once.
const fn inverted(table: &[u8; 256]) -> [u8; 256] {
    let (mut result, mut a) = ([0; 256], 0);
    while a < 256 {
        result[table[a] as usize] = a as u8;
        a += 1;
    }
    result
}

/// FIPS 197, 5.1.1.
static AES_SBOX: [u8; 256] = sbox((1, 0), AES, (0xf1, 0x63));
static AES_INVERSE_SBOX: [u8; 256] = inverted(&sbox((1, 0), AES, (0xf1, 0x63)));
static SM4_SBOX: [u8; 256] = sbox((0xa7, 0xd3), SM4, (0xa7, 0xd3));

/// Bytes of two columns of AES's state, or of all four.
type Half = [u8; 8];

/// What `ShiftRows` and then a substitution make of the first two of four columns; a row moves by `step` columns for each row above it:
/// 1 to encrypt, 3 (that is -1) to decrypt.
fn shift_and_substitute(low: u64, high: u64, step: usize, table: &[u8; 256]) -> Half {
    let mut state = [0; 16];
    state[..8].copy_from_slice(&low.to_le_bytes());
    state[8..].copy_from_slice(&high.to_le_bytes());
    std::array::from_fn(|at| {
        let (column, row) = (at / 4, at % 4);
        let from = state[(column + step * row) % 4 * 4 + row];
        table[usize::from(from)]
    })
}

/// Multiplies both columns with the matrix whose rows are `factors`, rotated.
fn mix_columns(columns: Half, factors: [u8; 4]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|at| {
        let (column, row) = (at / 4 * 4, at % 4);
        (0..4).fold(0, |sum, i| sum ^ product(columns[column + i], factors[(i + 4 - row) % 4], AES))
    }))
}

/// The factors of `MixColumns`, and of its inverse.
const MIX: [u8; 4] = [2, 3, 1, 1];
const UNMIX: [u8; 4] = [14, 11, 13, 9];

/// The first step of the key schedule, of round `number`; the last number has no rotation and no constant, for keys of 256 bits.
fn key_schedule(a: u64, number: u64) -> u64 {
    const LAST: u64 = 10;
    let last = (a >> 32) as u32;
    let rotated = if number == LAST { last } else { last.rotate_right(8) };
    let substituted = u32::from_le_bytes(rotated.to_le_bytes().map(|byte| AES_SBOX[usize::from(byte)]));
    // Powers of x.
    let constant = if number == LAST { 0 } else { (0..number).fold(1, |power, _| product(power, 2, AES)) };
    u64::from(substituted ^ u32::from(constant)) * 0x1_0000_0001
}

/// One byte's part of a round of SM4, or of its key schedule: the byte of `rs2` that the immediate numbers, substituted, spread over a word
/// by `rotations` as of a big-endian word, and added to `rs1`.
#[inline(always)]
fn sm4(hart: &mut Hart, cursor: Cursor, rotations: &[u32]) -> Flow {
    let (a, b) = (hart.x.get(cursor.rs1()), hart.x.get(cursor.rs2()));
    let shift = (cursor.imm() & 3) as u32 * 8;
    let byte = u32::from(SM4_SBOX[usize::from((b >> shift) as u8)]).swap_bytes();
    let spread = rotations.iter().fold(byte, |sum, &by| sum ^ byte.rotate_left(by));
    hart.x.set(cursor.rd(), word(a ^ u64::from(spread.swap_bytes().rotate_left(shift))));
    next(hart, cursor)
}

/// Rotations of a word to the right, added up.
fn rotations(a: u64, by: [u32; 2]) -> u32 {
    (a as u32).rotate_right(by[0]) ^ (a as u32).rotate_right(by[1])
}

of_registers! {
    aes64es(a, b) u64::from_le_bytes(shift_and_substitute(a, b, 1, &AES_SBOX));
    aes64esm(a, b) mix_columns(shift_and_substitute(a, b, 1, &AES_SBOX), MIX);
    aes64ds(a, b) u64::from_le_bytes(shift_and_substitute(a, b, 3, &AES_INVERSE_SBOX));
    aes64dsm(a, b) mix_columns(shift_and_substitute(a, b, 3, &AES_INVERSE_SBOX), UNMIX);
    aes64ks2(a, b) {
        let first = a >> 32 ^ b & 0xffff_ffff;
        first | (first ^ b >> 32) << 32
    };
}

of_immediate! {
    aes64ks1i(a, number) key_schedule(a, number);
}

of_register! {
    aes64im(a) mix_columns(a.to_le_bytes(), UNMIX);
    sha256sum0(a) word(u64::from(rotations(a, [2, 13]) ^ (a as u32).rotate_right(22)));
    sha256sum1(a) word(u64::from(rotations(a, [6, 11]) ^ (a as u32).rotate_right(25)));
    sha256sig0(a) word(u64::from(rotations(a, [7, 18]) ^ (a as u32) >> 3));
    sha256sig1(a) word(u64::from(rotations(a, [17, 19]) ^ (a as u32) >> 10));
    sha512sum0(a) a.rotate_right(28) ^ a.rotate_right(34) ^ a.rotate_right(39);
    sha512sum1(a) a.rotate_right(14) ^ a.rotate_right(18) ^ a.rotate_right(41);
    sha512sig0(a) a.rotate_right(1) ^ a.rotate_right(8) ^ a >> 7;
    sha512sig1(a) a.rotate_right(19) ^ a.rotate_right(61) ^ a >> 6;
    sm3p0(a) word(u64::from(a as u32 ^ (a as u32).rotate_left(9) ^ (a as u32).rotate_left(17)));
    sm3p1(a) word(u64::from(a as u32 ^ (a as u32).rotate_left(15) ^ (a as u32).rotate_left(23)));
}

pub(super) fn sm4ed(hart: &mut Hart, cursor: Cursor) -> Flow {
    sm4(hart, cursor, &[2, 10, 18, 24])
}

pub(super) fn sm4ks(hart: &mut Hart, cursor: Cursor) -> Flow {
    sm4(hart, cursor, &[13, 23])
}
