//! Floating point by integer arithmetic: every format, every rounding mode, every host.
//!
//! A finite number is unpacked to `significand * 2^exponent` with an integer significand, the operation is done on integers wide
//! enough to be exact, and [`round`] packs the result. Where a result has no end (quotients, roots, sums of far
//! apart terms) its lowest kept bit is "jammed": set if anything below it is not zero. With two or more bits between
//! that one and the last bit of the format, rounding cannot tell the difference.

use super::{DZ, NV, NX, OF, Rounding, UF};

/// A binary interchange format of at most 64 bits.
pub(super) trait Format {
    /// Bits of the stored fraction.
    const FRACTION_BITS: u32;
    /// Bits of the biased exponent.
    const EXPONENT_BITS: u32;

    /// The exponent of 1.0 as stored.
    const BIAS: i32 = (1 << (Self::EXPONENT_BITS - 1)) - 1;
    /// The exponent of the smallest normal number.
    const MIN_EXPONENT: i32 = 1 - Self::BIAS;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::FRACTION_BITS + Self::EXPONENT_BITS);
    /// Positive infinity.
    const INFINITY: u64 = ((1 << Self::EXPONENT_BITS) - 1) << Self::FRACTION_BITS;
    /// The bit of a NaN that makes it quiet.
    const QUIET: u64 = 1 << (Self::FRACTION_BITS - 1);
    /// The NaN that every operation gives: positive, quiet, no payload.
    const CANONICAL_NAN: u64 = Self::INFINITY | Self::QUIET;
}

/// binary32
pub(super) struct Single;
/// binary64
pub(super) struct Double;

impl Format for Single {
    const FRACTION_BITS: u32 = 23;
    const EXPONENT_BITS: u32 = 8;
}

impl Format for Double {
    const FRACTION_BITS: u32 = 52;
    const EXPONENT_BITS: u32 = 11;
}

/// An operand taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zero,
    /// `significand * 2^exponent`, not zero.
    Finite {
        exponent: i32,
        significand: u64,
    },
    Infinite,
    Nan {
        signalling: bool,
    },
}

fn unpack<F: Format>(bits: u64) -> (bool, Kind) {
    let fraction = bits & ((1 << F::FRACTION_BITS) - 1);
    let biased = (bits & !F::SIGN) >> F::FRACTION_BITS;
    let kind = if bits & !F::SIGN > F::INFINITY {
        Kind::Nan { signalling: bits & F::QUIET == 0 }
    } else if bits & !F::SIGN == F::INFINITY {
        Kind::Infinite
    } else if biased == 0 && fraction == 0 {
        Kind::Zero
    } else {
        let hidden = if biased == 0 { 0 } else { 1 << F::FRACTION_BITS };
        let exponent = (biased.max(1) as i32) - F::BIAS - F::FRACTION_BITS as i32;
        Kind::Finite { exponent, significand: fraction | hidden }
    };
    (bits & F::SIGN != 0, kind)
}

fn signed<F: Format>(sign: bool, magnitude: u64) -> u64 {
    magnitude | if sign { F::SIGN } else { 0 }
}

fn invalid<F: Format>(flags: &mut u32) -> u64 {
    *flags |= NV;
    F::CANONICAL_NAN
}

/// The result when an operand is a NaN.
fn nan<F: Format>(operands: &[Kind], flags: &mut u32) -> Option<u64> {
    if operands.contains(&Kind::Nan { signalling: true }) {
        return Some(invalid::<F>(flags));
    }
    operands.contains(&Kind::Nan { signalling: false }).then_some(F::CANONICAL_NAN)
}

/// `value / 2^shift` (a multiplication for a negative shift) rounded to an integer, and whether that was inexact.
fn shift_and_round(sign: bool, mut value: u128, mut shift: i32, rounding: Rounding) -> (u128, bool) {
    if shift <= 0 {
        return (value << -shift, false);
    }
    if shift > 127 {
        // Less than a half, however much less.
        debug_assert!(value != 0 && value >> 127 == 0, "significands stay below 2^127");
        (value, shift) = (1, 2);
    }
    let quotient = value >> shift;
    let remainder = value & ((1 << shift) - 1);
    let half = 1 << (shift - 1);
    let up = match rounding {
        Rounding::NearestEven => remainder > half || (remainder == half && quotient & 1 == 1),
        Rounding::TowardZero => false,
        Rounding::Down => sign && remainder != 0,
        Rounding::Up => !sign && remainder != 0,
        Rounding::NearestMaxMagnitude => remainder >= half,
    };
    (quotient + u128::from(up), remainder != 0)
}

/// Packs `significand * 2^exponent` (not zero, below 2^127), rounding and raising flags.
fn round<F: Format>(sign: bool, exponent: i32, significand: u128, rounding: Rounding, flags: &mut u32) -> u64 {
    // 2^top <= value < 2^(top + 1)
    let top = exponent + significand.ilog2() as i32;
    let fraction_bits = F::FRACTION_BITS as i32;
    // The weight of the last bit that the format has room for.
    let quantum = top.max(F::MIN_EXPONENT) - fraction_bits;
    let (rounded, inexact) = shift_and_round(sign, significand, quantum - exponent, rounding);

    // A carry out of the significand adds one to the exponent field by itself, from subnormal to normal and from the largest
    // finite number to infinity alike.
    let biased_less_one = (quantum + fraction_bits + F::BIAS - 1) as u64;
    let magnitude = (biased_less_one << F::FRACTION_BITS) + rounded as u64;
    if magnitude >= F::INFINITY {
        *flags |= OF | NX;
        let to_infinity = match rounding {
            Rounding::NearestEven | Rounding::NearestMaxMagnitude => true,
            Rounding::TowardZero => false,
            Rounding::Down => sign,
            Rounding::Up => !sign,
        };
        return signed::<F>(sign, if to_infinity { F::INFINITY } else { F::INFINITY - 1 });
    }
    if inexact {
        *flags |= NX;
        if top < F::MIN_EXPONENT {
            // Tiny after rounding: would the value still be below the smallest normal number if exponents had no lower end?
            let (unbounded, _) = shift_and_round(sign, significand, top - fraction_bits - exponent, rounding);
            let reaches_normal = top == F::MIN_EXPONENT - 1 && unbounded >> (F::FRACTION_BITS + 1) != 0;
            if !reaches_normal {
                *flags |= UF;
            }
        }
    }
    signed::<F>(sign, magnitude)
}

/// A term of a sum: a number that is neither zero nor infinite.
#[derive(Clone, Copy)]
struct Term {
    sign: bool,
    exponent: i32,
    significand: u128,
}

impl Term {
    /// The same number with the leading bit of the significand at bit 125: room for a carry above, and for the two bits that
    /// jamming needs below the 106 bits of an exact product.
    fn normalised(self) -> Self {
        let shift = self.significand.leading_zeros() as i32 - 2;
        Self { exponent: self.exponent - shift, significand: self.significand << shift, ..self }
    }
}

/// The sign of an exact zero sum of terms that cancel.
fn cancelled<F: Format>(rounding: Rounding) -> u64 {
    signed::<F>(rounding == Rounding::Down, 0)
}

fn sum<F: Format>(a: Term, b: Term, rounding: Rounding, flags: &mut u32) -> u64 {
    let (a, b) = (a.normalised(), b.normalised());
    let (large, small) = if (a.exponent, a.significand) >= (b.exponent, b.significand) { (a, b) } else { (b, a) };
    let distance = (large.exponent - small.exponent).cast_unsigned();
    let aligned = if distance > 127 {
        1
    } else {
        let kept = small.significand >> distance;
        kept | u128::from(kept << distance != small.significand)
    };
    let significand = if large.sign == small.sign { large.significand + aligned } else { large.significand - aligned };
    if significand == 0 {
        return cancelled::<F>(rounding);
    }
    round::<F>(large.sign, large.exponent, significand, rounding, flags)
}

pub(super) fn add<F: Format>(a: u64, b: u64, rounding: Rounding, flags: &mut u32) -> u64 {
    let ((sign_a, kind_a), (sign_b, kind_b)) = (unpack::<F>(a), unpack::<F>(b));
    if let Some(nan) = nan::<F>(&[kind_a, kind_b], flags) {
        return nan;
    }
    match (kind_a, kind_b) {
        (Kind::Infinite, Kind::Infinite) if sign_a != sign_b => invalid::<F>(flags),
        (Kind::Zero, Kind::Zero) if sign_a != sign_b => cancelled::<F>(rounding),
        (Kind::Infinite, _) | (_, Kind::Zero) => a,
        (_, Kind::Infinite) | (Kind::Zero, _) => b,
        (
            Kind::Finite { exponent: exponent_a, significand: significand_a },
            Kind::Finite { exponent: exponent_b, significand: significand_b },
        ) => {
            let a = Term { sign: sign_a, exponent: exponent_a, significand: significand_a.into() };
            let b = Term { sign: sign_b, exponent: exponent_b, significand: significand_b.into() };
            sum::<F>(a, b, rounding, flags)
        }
        (Kind::Nan { .. }, _) | (_, Kind::Nan { .. }) => F::CANONICAL_NAN,
    }
}

pub(super) fn mul<F: Format>(a: u64, b: u64, rounding: Rounding, flags: &mut u32) -> u64 {
    let ((sign_a, kind_a), (sign_b, kind_b)) = (unpack::<F>(a), unpack::<F>(b));
    let sign = sign_a != sign_b;
    if let Some(nan) = nan::<F>(&[kind_a, kind_b], flags) {
        return nan;
    }
    match (kind_a, kind_b) {
        (Kind::Infinite, Kind::Zero) | (Kind::Zero, Kind::Infinite) => invalid::<F>(flags),
        (Kind::Infinite, _) | (_, Kind::Infinite) => signed::<F>(sign, F::INFINITY),
        (
            Kind::Finite { exponent: exponent_a, significand: significand_a },
            Kind::Finite { exponent: exponent_b, significand: significand_b },
        ) => {
            let product = u128::from(significand_a) * u128::from(significand_b);
            round::<F>(sign, exponent_a + exponent_b, product, rounding, flags)
        }
        _ => signed::<F>(sign, 0),
    }
}

pub(super) fn div<F: Format>(a: u64, b: u64, rounding: Rounding, flags: &mut u32) -> u64 {
    let ((sign_a, kind_a), (sign_b, kind_b)) = (unpack::<F>(a), unpack::<F>(b));
    let sign = sign_a != sign_b;
    if let Some(nan) = nan::<F>(&[kind_a, kind_b], flags) {
        return nan;
    }
    match (kind_a, kind_b) {
        (Kind::Infinite, Kind::Infinite) | (Kind::Zero, Kind::Zero) => invalid::<F>(flags),
        (Kind::Infinite, _) => signed::<F>(sign, F::INFINITY),
        (Kind::Finite { .. }, Kind::Zero) => {
            *flags |= DZ;
            signed::<F>(sign, F::INFINITY)
        }
        (
            Kind::Finite { exponent: exponent_a, significand: significand_a },
            Kind::Finite { exponent: exponent_b, significand: significand_b },
        ) => {
            // Both with their leading bit at 63; the quotient then has 62 or 63 bits.
            let (up_a, up_b) = (significand_a.leading_zeros(), significand_b.leading_zeros());
            let dividend = u128::from(significand_a << up_a) << 62;
            let divisor = u128::from(significand_b << up_b);
            let quotient = dividend / divisor;
            let jammed = quotient | u128::from(quotient * divisor != dividend);
            let exponent = (exponent_a - up_a as i32) - (exponent_b - up_b as i32) - 62;
            round::<F>(sign, exponent, jammed, rounding, flags)
        }
        _ => signed::<F>(sign, 0),
    }
}

pub(super) fn sqrt<F: Format>(a: u64, rounding: Rounding, flags: &mut u32) -> u64 {
    let (sign, kind) = unpack::<F>(a);
    match kind {
        Kind::Nan { .. } => nan::<F>(&[kind], flags).unwrap_or(F::CANONICAL_NAN),
        Kind::Zero => a,
        _ if sign => invalid::<F>(flags),
        Kind::Infinite => a,
        Kind::Finite { exponent, significand } => {
            // As many bits as fit, and an even exponent.
            let mut shift = significand.leading_zeros() as i32 + 62;
            shift -= (exponent - shift) & 1;
            let square = u128::from(significand) << shift;
            let root = square.isqrt();
            let jammed = root | u128::from(root * root != square);
            round::<F>(false, (exponent - shift) / 2, jammed, rounding, flags)
        }
    }
}

pub(super) fn multiply_add<F: Format>(a: u64, b: u64, c: u64, rounding: Rounding, flags: &mut u32) -> u64 {
    let ((sign_a, kind_a), (sign_b, kind_b)) = (unpack::<F>(a), unpack::<F>(b));
    let (sign_c, kind_c) = unpack::<F>(c);
    let sign = sign_a != sign_b;
    // The manual asks for NV here even if the addend is a quiet NaN.
    if matches!((kind_a, kind_b), (Kind::Infinite, Kind::Zero) | (Kind::Zero, Kind::Infinite)) {
        return invalid::<F>(flags);
    }
    if let Some(nan) = nan::<F>(&[kind_a, kind_b, kind_c], flags) {
        return nan;
    }
    if kind_a == Kind::Infinite || kind_b == Kind::Infinite {
        if kind_c == Kind::Infinite && sign_c != sign {
            return invalid::<F>(flags);
        }
        return signed::<F>(sign, F::INFINITY);
    }
    let (
        Kind::Finite { exponent: exponent_a, significand: significand_a },
        Kind::Finite { exponent: exponent_b, significand: significand_b },
    ) = (kind_a, kind_b)
    else {
        // The product is an exact zero.
        return if kind_c == Kind::Zero && sign_c != sign { cancelled::<F>(rounding) } else { c };
    };
    let product = Term {
        sign,
        exponent: exponent_a + exponent_b,
        significand: u128::from(significand_a) * u128::from(significand_b),
    };
    match kind_c {
        Kind::Finite { exponent, significand } => {
            let addend = Term { sign: sign_c, exponent, significand: significand.into() };
            sum::<F>(product, addend, rounding, flags)
        }
        Kind::Zero => round::<F>(sign, product.exponent, product.significand, rounding, flags),
        Kind::Infinite | Kind::Nan { .. } => c,
    }
}

/// To an integer of `width` bits, 32 or 64, as the low bits of the result.
pub(super) fn to_integer<F: Format>(a: u64, is_signed: bool, width: u32, rounding: Rounding, flags: &mut u32) -> u64 {
    let (sign, kind) = unpack::<F>(a);
    let largest = u64::MAX >> (64 - width + u32::from(is_signed));
    // The magnitude of the least value.
    let least = if is_signed { largest + 1 } else { 0 };
    let saturated = match kind {
        Kind::Zero => return 0,
        Kind::Nan { .. } => largest,
        Kind::Infinite if sign => least.wrapping_neg(),
        Kind::Infinite => largest,
        Kind::Finite { exponent, significand } => {
            let limit = if sign { least } else { largest };
            // Shifting further than this cannot bring an out-of-range value back.
            let (magnitude, inexact) = shift_and_round(sign, significand.into(), (-exponent).max(-64), rounding);
            if magnitude <= limit.into() {
                *flags |= u32::from(inexact) * NX;
                let magnitude = magnitude as u64;
                return if sign { magnitude.wrapping_neg() } else { magnitude };
            }
            if sign { least.wrapping_neg() } else { largest }
        }
    };
    *flags |= NV;
    saturated
}

/// From a sign and an integer magnitude.
pub(super) fn from_integer<F: Format>(sign: bool, magnitude: u64, rounding: Rounding, flags: &mut u32) -> u64 {
    if magnitude == 0 { 0 } else { round::<F>(sign, 0, magnitude.into(), rounding, flags) }
}

/// From one format to another.
pub(super) fn convert<From: Format, To: Format>(a: u64, rounding: Rounding, flags: &mut u32) -> u64 {
    let (sign, kind) = unpack::<From>(a);
    match kind {
        Kind::Zero => signed::<To>(sign, 0),
        Kind::Infinite => signed::<To>(sign, To::INFINITY),
        Kind::Nan { .. } => nan::<To>(&[kind], flags).unwrap_or(To::CANONICAL_NAN),
        Kind::Finite { exponent, significand } => round::<To>(sign, exponent, significand.into(), rounding, flags),
    }
}
