//! Three layers: `soft` exhaustively against the definition on formats small enough for it, the public functions (so the fast
//! paths and the host's instructions) against `soft`, and a few against Rust's own operators and written-out vectors.

use super::soft::{Double, Format, Single};
use super::*;

/// A generator for operands: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }

    /// An operand: an edge value, an edge exponent with any fraction, or anything.
    fn operand<F: Format>(&mut self, edges: &[u64]) -> u64 {
        let any = self.next() & (F::SIGN | (F::SIGN - 1));
        let fraction = (1 << F::FRACTION_BITS) - 1;
        match self.next() % 4 {
            0 => self.pick(edges),
            1 => (self.pick(edges) & !fraction) | (any & fraction),
            // Near one, so that sums cancel and products stay in range.
            2 => {
                let exponent = (F::BIAS as u64).wrapping_add(self.next() % 9).wrapping_sub(4);
                (any & (F::SIGN | fraction)) | exponent << F::FRACTION_BITS
            }
            _ => any,
        }
    }
}

/// Values around every border of a format, with both signs.
fn edges<F: Format>() -> Vec<u64> {
    let precision = u64::from(F::FRACTION_BITS);
    let bias = F::BIAS as u64;
    let largest = (1 << F::EXPONENT_BITS) - 1;
    let fraction = (1u64 << F::FRACTION_BITS) - 1;
    let exponents = [
        0,
        1,
        2,
        precision,
        precision + 1,
        bias / 2,
        bias - precision - 1,
        bias - precision,
        bias - 1,
        bias,
        bias + 1,
        bias + precision,
        bias + precision + 1,
        bias + 31,
        bias + 32,
        bias + 62,
        bias + 63,
        bias + 64,
        largest - 2,
        largest - 1,
        largest,
    ];
    let fractions =
        [0, 1, 2, fraction / 2, fraction / 2 + 1, fraction / 2 + 2, 0x2f_ffff & fraction, fraction - 1, fraction];
    let mut all = Vec::new();
    for exponent in exponents {
        for fraction in fractions {
            let magnitude = exponent.min(largest) << F::FRACTION_BITS | fraction;
            all.extend([magnitude, magnitude | F::SIGN]);
        }
    }
    all
}

/// The definition, on formats so small that a double holds every exact result, or one that lies on the same side of every
/// border.
mod definition {
    use super::*;

    /// Five bits of precision less one, four of exponent: 256 values.
    pub(super) struct Mini;
    impl Format for Mini {
        const FRACTION_BITS: u32 = 3;
        const EXPONENT_BITS: u32 = 4;
    }
    /// 64 values: few enough for all triples.
    pub(super) struct Micro;
    impl Format for Micro {
        const FRACTION_BITS: u32 = 2;
        const EXPONENT_BITS: u32 = 3;
    }

    pub(super) fn value<F: Format>(bits: u64) -> f64 {
        let sign = if bits & F::SIGN == 0 { 1.0 } else { -1.0 };
        let biased = (bits & !F::SIGN) >> F::FRACTION_BITS;
        let fraction = (bits & ((1 << F::FRACTION_BITS) - 1)) as f64;
        let one = 2f64.powi(F::FRACTION_BITS as i32);
        if biased == (1 << F::EXPONENT_BITS) - 1 {
            return if fraction == 0.0 { sign * f64::INFINITY } else { f64::NAN };
        }
        if biased == 0 {
            return sign * (fraction / one) * 2f64.powi(F::MIN_EXPONENT);
        }
        sign * (1.0 + fraction / one) * 2f64.powi(biased as i32 - F::BIAS)
    }

    fn integral(exact: f64, rounding: Rounding) -> f64 {
        match rounding {
            Rounding::NearestEven => exact.round_ties_even(),
            Rounding::TowardZero => exact.trunc(),
            Rounding::Down => exact.floor(),
            Rounding::Up => exact.ceil(),
            Rounding::NearestMaxMagnitude => exact.round(),
        }
    }

    /// Rounds a finite nonzero value as section 4.3 and clause 7 of IEEE 754 say: first as if exponents had no end.
    pub(super) fn rounded<F: Format>(exact: f64, rounding: Rounding) -> (u64, u32) {
        let fraction_bits = F::FRACTION_BITS as i32;
        let top = (exact.abs().to_bits() >> 52) as i32 - 1023;
        let unbounded = integral(exact / 2f64.powi(top - fraction_bits), rounding) * 2f64.powi(top - fraction_bits);
        let largest = (2.0 - 2f64.powi(-fraction_bits)) * 2f64.powi(F::BIAS);
        let sign = if exact < 0.0 { F::SIGN } else { 0 };
        if unbounded.abs() > largest {
            let infinite = match rounding {
                Rounding::NearestEven | Rounding::NearestMaxMagnitude => true,
                Rounding::TowardZero => false,
                Rounding::Down => exact < 0.0,
                Rounding::Up => exact > 0.0,
            };
            return (sign | if infinite { F::INFINITY } else { F::INFINITY - 1 }, OF | NX);
        }
        let smallest_normal = 2f64.powi(F::MIN_EXPONENT);
        let quantum = 2f64.powi(top.max(F::MIN_EXPONENT) - fraction_bits);
        let result = integral(exact / quantum, rounding) * quantum;
        let inexact = result != exact;
        let tiny = unbounded.abs() < smallest_normal;
        let flags = if inexact { NX } else { 0 } | if inexact && tiny { UF } else { 0 };
        let bits = (0..F::INFINITY).find(|bits| value::<F>(*bits) == result.abs()).expect("a value of the format");
        (sign | bits, flags)
    }

    /// What the operation gives if its exact result is `exact`: `None` for a NaN, zero with the sign that doubles give it in
    /// round-to-nearest.
    fn finish<F: Format>(exact: f64, operands_finite: bool, cancels: bool, rounding: Rounding) -> Option<(u64, u32)> {
        if exact.is_nan() {
            return None;
        }
        if exact.is_infinite() {
            let flags = if operands_finite { DZ } else { 0 };
            return Some((if exact < 0.0 { F::SIGN } else { 0 } | F::INFINITY, flags));
        }
        if exact == 0.0 {
            let negative = if cancels { rounding == Rounding::Down } else { exact.is_sign_negative() };
            return Some((if negative { F::SIGN } else { 0 }, 0));
        }
        Some(rounded::<F>(exact, rounding))
    }

    fn check<F: Format>(
        name: &str,
        operands: &[u64],
        exact: f64,
        cancels: bool,
        rounding: Rounding,
        operation: impl Fn(&mut u32) -> u64,
    ) {
        let values: Vec<f64> = operands.iter().map(|bits| value::<F>(*bits)).collect();
        let mut flags = 0;
        let result = operation(&mut flags);
        let expected = finish::<F>(exact, values.iter().all(|v| v.is_finite()), cancels, rounding);
        let expected = expected.unwrap_or_else(|| {
            let signalling = operands.iter().any(|bits| bits & !F::SIGN > F::INFINITY && bits & F::QUIET == 0);
            let product_invalid =
                values.len() == 3 && (values[0] * values[1]).is_nan() && !values[0].is_nan() && !values[1].is_nan();
            let invalid = signalling || product_invalid || values.iter().all(|v| !v.is_nan());
            (F::CANONICAL_NAN, if invalid { NV } else { 0 })
        });
        assert_eq!((result, flags), expected, "{name} {operands:x?} = {values:?} {rounding:?}, exactly {exact}");
    }

    #[test]
    fn every_pair_of_a_small_format() {
        type F = Mini;
        for rounding in Rounding::ALL {
            for a in 0..256 {
                let x = value::<F>(a);
                check::<F>("sqrt", &[a], x.sqrt(), false, rounding, |flags| soft::sqrt::<F>(a, rounding, flags));
                for b in 0..256 {
                    let y = value::<F>(b);
                    let opposite = |y: f64| !(x == 0.0 && y == 0.0 && x.is_sign_negative() == y.is_sign_negative());
                    check::<F>("add", &[a, b], x + y, opposite(y), rounding, |flags| {
                        soft::add::<F>(a, b, rounding, flags)
                    });
                    check::<F>("mul", &[a, b], x * y, false, rounding, |flags| soft::mul::<F>(a, b, rounding, flags));
                    check::<F>("div", &[a, b], x / y, false, rounding, |flags| soft::div::<F>(a, b, rounding, flags));
                }
            }
        }
    }

    #[test]
    fn every_triple_of_a_smaller_format() {
        type F = Micro;
        for rounding in Rounding::ALL {
            for bits in 0..1 << 18 {
                let (a, b, c) = (bits & 63, bits >> 6 & 63, bits >> 12);
                let (x, y, z) = (value::<F>(a), value::<F>(b), value::<F>(c));
                let product = x * y;
                let cancels = !(product == 0.0 && z == 0.0 && product.is_sign_negative() == z.is_sign_negative());
                check::<F>("multiply_add", &[a, b, c], product + z, cancels, rounding, |flags| {
                    soft::multiply_add::<F>(a, b, c, rounding, flags)
                });
            }
        }
    }

    #[test]
    fn narrowing_to_a_small_format() {
        let mut random = Random(1);
        for _ in 0..20_000 {
            // Around the small format's range, often on and beside its ties.
            let base = value::<Mini>(random.next() % 0x78);
            let step = random.pick(&[0.0, 0.25, 0.5, 0.75, 1.0]) * 2f64.powi(F_STEP);
            let exact = base + step + random.pick(&[0.0, 0.0, 2f64.powi(-40)]);
            let exact = if random.next() & 1 == 0 { exact } else { -exact };
            if exact == 0.0 {
                continue;
            }
            for rounding in Rounding::ALL {
                let mut flags = 0;
                let result = soft::convert::<Double, Mini>(exact.to_bits(), rounding, &mut flags);
                assert_eq!((result, flags), rounded::<Mini>(exact, rounding), "{exact} {rounding:?}");
            }
        }
    }
    const F_STEP: i32 = Mini::MIN_EXPONENT - 3;
}

macro_rules! against_soft {
    ($tests:ident, $name:ident, $format:ident, $float:ty, $bits:ty) => {
        mod $tests {
            use super::*;
            type F = $format;

            const ROUNDS: usize = 60_000;

            /// Runs a public function with no flag and with NX accrued, and `soft` beside it.
            fn compare(
                name: &str,
                operands: &[$bits],
                public: impl Fn(&mut u32) -> $bits,
                soft: impl Fn(&mut u32) -> $bits,
            ) {
                let mut expected_flags = 0;
                let expected = soft(&mut expected_flags);
                for accrued in [0, NX] {
                    let mut flags = accrued;
                    let result = public(&mut flags);
                    assert_eq!(
                        (result, flags),
                        (expected, expected_flags | accrued),
                        "{name} {operands:x?} with {accrued} accrued: {result:#x} is not {expected:#x}"
                    );
                }
            }

            fn compare_all(a: $bits, b: $bits, c: $bits) {
                let (wa, wb, wc) = (u64::from(a), u64::from(b), u64::from(c));
                use super::super::$name as public;
                for rounding in Rounding::ALL {
                    let name = |operation| format!("{operation} {rounding:?}");
                    let r = rounding;
                    compare(
                        &name("add"),
                        &[a, b],
                        |f| public::add(a, b, r, f),
                        |f| soft::add::<F>(wa, wb, r, f) as $bits,
                    );
                    compare(
                        &name("sub"),
                        &[a, b],
                        |f| public::sub(a, b, r, f),
                        |f| soft::add::<F>(wa, wb ^ F::SIGN, r, f) as $bits,
                    );
                    compare(
                        &name("mul"),
                        &[a, b],
                        |f| public::mul(a, b, r, f),
                        |f| soft::mul::<F>(wa, wb, r, f) as $bits,
                    );
                    compare(
                        &name("div"),
                        &[a, b],
                        |f| public::div(a, b, r, f),
                        |f| soft::div::<F>(wa, wb, r, f) as $bits,
                    );
                    compare(&name("sqrt"), &[a], |f| public::sqrt(a, r, f), |f| soft::sqrt::<F>(wa, r, f) as $bits);
                    compare(
                        &name("multiply_add"),
                        &[a, b, c],
                        |f| public::multiply_add(a, b, c, r, f),
                        |f| soft::multiply_add::<F>(wa, wb, wc, r, f) as $bits,
                    );
                }
            }

            #[test]
            fn arithmetic_on_random_operands() {
                let edges = edges::<F>();
                let mut random = Random(u64::from(<$bits>::BITS));
                for _ in 0..ROUNDS {
                    let mut operand = || random.operand::<F>(&edges) as $bits;
                    compare_all(operand(), operand(), operand());
                }
            }

            #[test]
            fn arithmetic_on_all_pairs_of_edges() {
                let edges = edges::<F>();
                let mut random = Random(7);
                for a in &edges {
                    for b in &edges {
                        // A third operand that may cancel the product.
                        let c = if random.next() & 1 == 0 {
                            random.pick(&edges)
                        } else {
                            soft::mul::<F>(*a, *b, Rounding::TowardZero, &mut 0) ^ F::SIGN
                        };
                        compare_all(*a as $bits, *b as $bits, c as $bits);
                    }
                }
            }

            #[test]
            fn integers() {
                use super::super::$name as public;
                let edges = edges::<F>();
                let mut random = Random(3);
                for i in 0..ROUNDS {
                    let a = edges.get(i).copied().unwrap_or_else(|| random.operand::<F>(&edges)) as $bits;
                    // Integers of every length, and beside powers of two.
                    let length = random.next() % 64;
                    let integer = match random.next() % 3 {
                        0 => random.next() >> length,
                        1 => (1 << length) - (random.next() & 1),
                        _ => (u64::MAX << length).wrapping_add(random.next() & 1),
                    };
                    for r in Rounding::ALL {
                        let (wide, signed) = (u64::from(a), integer as i64);
                        for accrued in [0, NX] {
                            macro_rules! same {
                                ($call:ident($argument:expr), $soft:expr) => {{
                                    let (mut flags, mut soft_flags) = (accrued, accrued);
                                    let result = public::$call($argument, r, &mut flags);
                                    let soft: fn(u64, i64, u64, Rounding, &mut u32) -> u64 = $soft;
                                    let expected = soft(wide, signed, integer, r, &mut soft_flags);
                                    assert_eq!(
                                        (result as u64, flags),
                                        (expected, soft_flags),
                                        "{} {a:#x} {integer:#x} {r:?}",
                                        stringify!($call)
                                    );
                                }};
                            }
                            same!(to_i32(a), |a, _, _, r, f| soft::to_integer::<F>(a, true, 32, r, f));
                            same!(to_u32(a), |a, _, _, r, f| soft::to_integer::<F>(a, false, 32, r, f));
                            same!(to_i64(a), |a, _, _, r, f| soft::to_integer::<F>(a, true, 64, r, f));
                            same!(to_u64(a), |a, _, _, r, f| soft::to_integer::<F>(a, false, 64, r, f));
                            same!(from_i64(signed), |_, i, _, r, f| soft::from_integer::<F>(
                                i < 0,
                                i.unsigned_abs(),
                                r,
                                f
                            ));
                            same!(from_u64(integer), |_, _, u, r, f| soft::from_integer::<F>(false, u, r, f));
                            same!(from_u32(integer as u32), |_, _, u, r, f| soft::from_integer::<F>(
                                false,
                                u & 0xffff_ffff,
                                r,
                                f
                            ));
                            same!(from_i32(signed as i32), |_, i, _, r, f| {
                                let i = i64::from(i as i32);
                                soft::from_integer::<F>(i < 0, i.unsigned_abs(), r, f)
                            });
                        }
                    }
                }
            }

            /// Rust's operators round to nearest and saturate conversions; its comparisons are the quiet ones.
            #[test]
            fn agrees_with_rust() {
                use super::super::$name as public;
                let edges = edges::<F>();
                let mut random = Random(11);
                for _ in 0..ROUNDS {
                    let mut operand = || random.operand::<F>(&edges) as $bits;
                    let (a, b, c) = (operand(), operand(), operand());
                    let (x, y, z) = (<$float>::from_bits(a), <$float>::from_bits(b), <$float>::from_bits(c));
                    let same = |bits: $bits, value: $float| {
                        // Opaque: where both square roots are inlined into one function, LLVM 22 takes that of a negative number for no NaN.
                        let value = std::hint::black_box(value);
                        let expected = if value.is_nan() { F::CANONICAL_NAN as $bits } else { value.to_bits() };
                        assert_eq!(bits, expected, "{a:#x} {b:#x} {c:#x}");
                    };
                    let r = Rounding::NearestEven;
                    let (wa, wb, wc) = (u64::from(a), u64::from(b), u64::from(c));
                    same(soft::add::<F>(wa, wb, r, &mut 0) as $bits, x + y);
                    same(soft::add::<F>(wa, wb ^ F::SIGN, r, &mut 0) as $bits, x - y);
                    same(soft::mul::<F>(wa, wb, r, &mut 0) as $bits, x * y);
                    same(soft::div::<F>(wa, wb, r, &mut 0) as $bits, x / y);
                    same(soft::sqrt::<F>(wa, r, &mut 0) as $bits, x.sqrt());
                    same(soft::multiply_add::<F>(wa, wb, wc, r, &mut 0) as $bits, x.mul_add(y, z));
                    let (mut quiet, mut signalling) = (0, 0);
                    assert_eq!(public::eq(a, b, &mut quiet), x == y);
                    assert_eq!(public::lt(a, b, &mut signalling), x < y);
                    assert_eq!(public::le(a, b, &mut signalling), x <= y);
                    let is_signalling =
                        |bits: $bits| <$float>::from_bits(bits).is_nan() && u64::from(bits) & F::QUIET == 0;
                    assert_eq!(quiet != 0, is_signalling(a) || is_signalling(b));
                    assert_eq!(signalling != 0, x.is_nan() || y.is_nan());
                    if !x.is_nan() && !y.is_nan() && x != y {
                        same(public::min(a, b, &mut 0), x.min(y));
                        same(public::max(a, b, &mut 0), x.max(y));
                    }
                    let (i, u) = (random.next() as i64, random.next());
                    same(public::from_i64(i, r, &mut 0), i as $float);
                    same(public::from_u64(u, r, &mut 0), u as $float);
                    if !x.is_nan() {
                        let r = Rounding::TowardZero;
                        assert_eq!(soft::to_integer::<F>(a.into(), true, 64, r, &mut 0) as i64, x as i64);
                        assert_eq!(soft::to_integer::<F>(a.into(), false, 64, r, &mut 0), x as u64);
                        assert_eq!(soft::to_integer::<F>(a.into(), true, 32, r, &mut 0) as i32, x as i32);
                        assert_eq!(soft::to_integer::<F>(a.into(), false, 32, r, &mut 0) as u32, x as u32);
                    }
                }
            }

            #[test]
            fn minima_and_comparisons_of_special_values() {
                use super::super::$name as public;
                let quiet = F::CANONICAL_NAN as $bits | 5;
                let signalling = F::INFINITY as $bits | 1;
                let (zero, minus_zero, one) = (0, F::SIGN as $bits, (1.0 as $float).to_bits());
                let canonical = F::CANONICAL_NAN as $bits;
                // (a, b, min, max, flags)
                for (a, b, least, most, raised) in [
                    (zero, minus_zero, minus_zero, zero, 0),
                    (minus_zero, zero, minus_zero, zero, 0),
                    (quiet, one, one, one, 0),
                    (one, quiet, one, one, 0),
                    (signalling, one, one, one, NV),
                    (one, signalling, one, one, NV),
                    (quiet, quiet, canonical, canonical, 0),
                    (quiet, signalling, canonical, canonical, NV),
                    (F::INFINITY as $bits, one, one, F::INFINITY as $bits, 0),
                ] {
                    let mut flags = 0;
                    assert_eq!(public::min(a, b, &mut flags), least, "min {a:#x} {b:#x}");
                    assert_eq!(flags, raised);
                    flags = 0;
                    assert_eq!(public::max(a, b, &mut flags), most, "max {a:#x} {b:#x}");
                    assert_eq!(flags, raised);
                }
                let mut flags = 0;
                assert!(public::eq(zero, minus_zero, &mut flags) && public::le(zero, minus_zero, &mut flags));
                assert!(!public::lt(minus_zero, zero, &mut flags));
                assert!(!public::eq(quiet, quiet, &mut flags));
                assert_eq!(flags, 0);
                assert!(!public::eq(signalling, one, &mut flags));
                assert_eq!(flags, NV);
                flags = 0;
                assert!(!public::le(quiet, one, &mut flags));
                assert_eq!(flags, NV);
            }

            #[test]
            fn classes() {
                let infinity = F::INFINITY as $bits;
                let sign = F::SIGN as $bits;
                let normal = (1 as $bits) << F::FRACTION_BITS;
                let expected = [
                    (infinity | sign, 0),
                    ((infinity - 1) | sign, 1),
                    (normal | sign, 1),
                    ((normal - 1) | sign, 2),
                    (1 | sign, 2),
                    (sign, 3),
                    (0, 4),
                    (1, 5),
                    (normal - 1, 5),
                    (normal, 6),
                    (infinity - 1, 6),
                    (infinity, 7),
                    (infinity | 1, 8),
                    (infinity | sign | 1, 8),
                    (F::CANONICAL_NAN as $bits, 9),
                    (<$bits>::MAX, 9),
                ];
                for (bits, class) in expected {
                    assert_eq!(super::super::$name::classify(bits), 1 << class, "{bits:#x}");
                }
            }
        }
    };
}
against_soft! { on_singles, single, Single, f32, u32 }
against_soft! { on_doubles, double, Double, f64, u64 }

#[test]
fn between_formats() {
    let (singles, doubles) = (edges::<Single>(), edges::<Double>());
    let mut random = Random(5);
    for i in 0..200_000 {
        let narrow = singles.get(i).copied().unwrap_or_else(|| random.operand::<Single>(&singles));
        // Doubles in and just outside the range of singles, beside the ones anywhere.
        let near = f64::from(f32::from_bits(narrow as u32)).to_bits().wrapping_add(random.next() >> 34);
        let wide = doubles.get(i).copied().unwrap_or(match random.next() % 3 {
            0 => random.operand::<Double>(&doubles),
            1 => near,
            _ => near & !0xfff_ffff | random.pick(&[0, 1, 0xfff_ffff, 0x1000_0000]),
        });
        let (mut flags, mut soft_flags) = (0, 0);
        let result = single_to_double(narrow as u32, &mut flags);
        assert_eq!(
            result,
            soft::convert::<Single, Double>(narrow, Rounding::NearestEven, &mut soft_flags),
            "{narrow:#x}"
        );
        assert_eq!(flags, soft_flags);
        for rounding in Rounding::ALL {
            let (mut flags, mut soft_flags) = (0, 0);
            let result = double_to_single(wide, rounding, &mut flags);
            let expected = soft::convert::<Double, Single>(wide, rounding, &mut soft_flags);
            assert_eq!((u64::from(result), flags), (expected, soft_flags), "{wide:#x} {rounding:?}");
        }
        let rust = f64::from_bits(wide) as f32;
        if !rust.is_nan() {
            assert_eq!(double_to_single(wide, Rounding::NearestEven, &mut 0), rust.to_bits());
        }
    }
}

/// Vectors worked out by hand from the definition: (a, b, result and flags in RNE, RTZ, RDN, RUP, RMM).
#[test]
fn written_vectors() {
    type Row = (u32, u32, [(u32, u32); 5]);
    const MAX: u32 = 0x7f7f_ffff;
    const INF: u32 = 0x7f80_0000;
    const SIGN: u32 = 0x8000_0000;
    let sums: [Row; 4] = [
        // 1 + 2^-24 is a tie; even is 1.
        (
            0x3f80_0000,
            0x3380_0000,
            [(0x3f80_0000, NX), (0x3f80_0000, NX), (0x3f80_0000, NX), (0x3f80_0001, NX), (0x3f80_0001, NX)],
        ),
        // The largest number and half of its last place: a tie whose even neighbour would be 2^128.
        (MAX, 0x7300_0000, [(INF, OF | NX), (MAX, NX), (MAX, NX), (INF, OF | NX), (INF, OF | NX)]),
        // The same on the negative side.
        (
            MAX | SIGN,
            0x7300_0000 | SIGN,
            [(INF | SIGN, OF | NX), (MAX | SIGN, NX), (INF | SIGN, OF | NX), (MAX | SIGN, NX), (INF | SIGN, OF | NX)],
        ),
        // x - x is +0, but -0 when rounding down.
        (0x3f80_0000, 0xbf80_0000, [(0, 0), (0, 0), (SIGN, 0), (0, 0), (0, 0)]),
    ];
    let products: [Row; 3] = [
        // Half of the smallest subnormal: a tie between zero and it.
        (0x0000_0001, 0x3f00_0000, [(0, UF | NX), (0, UF | NX), (0, UF | NX), (1, UF | NX), (1, UF | NX)]),
        // (2 - 2^-23) * 2^-127 has 24 bits, so it is tiny even after rounding, although nearest stores it as 2^-126.
        (
            0x3fff_ffff,
            0x0040_0000,
            [
                (0x0080_0000, UF | NX),
                (0x007f_ffff, UF | NX),
                (0x007f_ffff, UF | NX),
                (0x0080_0000, UF | NX),
                (0x0080_0000, UF | NX),
            ],
        ),
        // Subnormal and exact: no underflow.
        (0x0080_0000, 0x3f00_0000, [(0x0040_0000, 0); 5]),
    ];
    for (rows, name) in [(&sums[..], "add"), (&products[..], "mul")] {
        for (a, b, expected) in rows {
            for (rounding, expected) in Rounding::ALL.into_iter().zip(expected) {
                let mut flags = 0;
                let result = match name {
                    "add" => single::add(*a, *b, rounding, &mut flags),
                    _ => single::mul(*a, *b, rounding, &mut flags),
                };
                assert_eq!((result, flags), *expected, "{name} {a:#x} {b:#x} {rounding:?}");
            }
        }
    }
}

/// Tininess is judged after rounding: a product just below the smallest normal number that rounds to it at full precision
/// does not underflow, in the modes that round it up.
#[test]
fn tininess_is_detected_after_rounding() {
    // (1 + 2^-23) * (1 - 2^-23) * 2^-126 = (1 - 2^-46) * 2^-126
    let (a, b) = (0x3f80_0001, 0x007f_ffff);
    let exact = f64::from(f32::from_bits(a)) * f64::from(f32::from_bits(b));
    assert!(exact < f64::from(f32::MIN_POSITIVE));
    for (rounding, raised) in [
        (Rounding::NearestEven, NX),
        (Rounding::TowardZero, NX | UF),
        (Rounding::Down, NX | UF),
        (Rounding::Up, NX),
        (Rounding::NearestMaxMagnitude, NX),
    ] {
        let mut flags = 0;
        let result = single::mul(a, b, rounding, &mut flags);
        assert_eq!(flags, raised, "{rounding:?}");
        assert_eq!(result, if raised & UF == 0 { 0x0080_0000 } else { 0x007f_ffff });
    }
}

#[test]
fn an_invalid_product_is_invalid_whatever_is_added() {
    let mut flags = 0;
    let quiet = 0x7fc0_1234;
    assert_eq!(single::multiply_add(0x7f80_0000, 0, quiet, Rounding::NearestEven, &mut flags), 0x7fc0_0000);
    assert_eq!(flags, NV);
}

#[test]
fn boxes() {
    assert_eq!(box_single(0x3f80_0000), 0xffff_ffff_3f80_0000);
    assert_eq!(unbox_single(0xffff_ffff_3f80_0000), 0x3f80_0000);
    assert_eq!(unbox_single(0xffff_fffe_3f80_0000), 0x7fc0_0000);
    assert_eq!(unbox_single(0x3ff0_0000_0000_0000), 0x7fc0_0000);
}

/// Compiled code relies on the default MXCSR: whatever ran, its next division rounds to nearest.
#[test]
fn the_host_rounds_to_nearest_again_afterwards() {
    for rounding in Rounding::ALL {
        let one = 1f64.to_bits();
        let mut flags = 0;
        let third = double::div(one, std::hint::black_box(3f64).to_bits(), rounding, &mut flags);
        assert_eq!(flags, NX);
        assert_eq!(f64::from_bits(third) <= 1.0 / 3.0, rounding != Rounding::Up);
        assert_eq!((1.0 / std::hint::black_box(3f64)).to_bits(), 0x3fd5_5555_5555_5555);
        assert_eq!((2.0 / std::hint::black_box(3f64)).to_bits(), 0x3fe5_5555_5555_5555);
    }
}
