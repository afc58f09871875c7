//! Floating point by the host's SSE2 and FMA instructions, in any rounding mode that MXCSR has, with exact flags.
//!
//! Compiled code must never see an MXCSR with other control bits than the default, so each operation sets it, operates, reads the
//! flags and sets it back inside one assembly block. In round-to-nearest the control bits are the default ones, and the
//! last step falls away: what remains in MXCSR are flags, which compiled code lets assembly change.
//!
//! x86 detects tininess after rounding, as RISC-V does. What differs: x86 has no round-to-nearest with ties away from
//! zero, keeps NaN payloads, and lets a quiet addend hide an invalid product. Those cases go to [`super::soft`] or are
//! mended here.

use super::Rounding;

/// All exceptions masked, no flag raised, round to nearest, subnormals kept: what compiled code expects.
static MXCSR_DEFAULT: u32 = 0x1f80;

/// MXCSR with the rounding mode (bits 13 and 14) set, or `None` if x86 has no such mode.
#[inline(always)]
fn control(rounding: Rounding) -> Option<u32> {
    let mode = match rounding {
        Rounding::NearestEven => 0,
        Rounding::Down => 1,
        Rounding::Up => 2,
        Rounding::TowardZero => 3,
        Rounding::NearestMaxMagnitude => return None,
    };
    Some(MXCSR_DEFAULT | mode << 13)
}

/// The flags of MXCSR (bit 0 invalid, 1 denormal operand, 2 zero divide, 3 overflow, 4 underflow, 5 inexact) as `fcsr` has them:
/// mirrored, without the denormal flag.
#[inline(always)]
fn accrue(mxcsr: u32, flags: &mut u32) {
    let mirrored = mxcsr.reverse_bits() >> 26;
    *flags |= mirrored & 0xf | (mirrored & 0x20) >> 1;
}

/// Runs an instruction under `$control` and accrues its flags.
macro_rules! operate {
    ($instruction:literal, $rounding:ident, $control:ident, $flags:expr, $($operands:tt)*) => {{
        let mut mxcsr: u32 = $control;
        if $rounding == Rounding::NearestEven {
            // SAFETY: the block touches only its operands, the local `mxcsr` and MXCSR, whose control bits keep the
            // default value; the flags in it may change, since `preserves_flags` is not promised.
            unsafe {
                core::arch::asm!(
                    "ldmxcsr [{mxcsr}]", $instruction, "stmxcsr [{mxcsr}]",
                    $($operands)*, mxcsr = in(reg) &raw mut mxcsr, options(nostack),
                );
            }
        } else {
            // SAFETY: as above; the control bits are the default again at the end of the block.
            unsafe {
                core::arch::asm!(
                    "ldmxcsr [{mxcsr}]", $instruction, "stmxcsr [{mxcsr}]", "ldmxcsr [{default}]",
                    $($operands)*, mxcsr = in(reg) &raw mut mxcsr, default = in(reg) &raw const MXCSR_DEFAULT,
                    options(nostack),
                );
            }
        }
        accrue(mxcsr, $flags);
    }};
}

macro_rules! binary {
    ($name:ident, $instruction:literal, $float:ty, $bits:ty, $format:ident) => {
        #[inline(never)]
        pub(in super::super) fn $name(a: $bits, b: $bits, rounding: Rounding, flags: &mut u32) -> $bits {
            let Some(control) = control(rounding) else {
                return soft::$name::<soft::$format>(a.into(), b.into(), rounding, flags) as $bits;
            };
            let mut result = <$float>::from_bits(a);
            let b = <$float>::from_bits(b);
            operate!($instruction, rounding, control, flags, a = inout(xmm_reg) result, b = in(xmm_reg) b);
            canonical(result)
        }
    };
}

macro_rules! format_module {
    ($name:ident, $format:ident, $float:ty, $bits:ty,
     $add:literal $sub:literal $mul:literal $div:literal $sqrt:literal $fma:literal) => {
        pub(super) mod $name {
            use super::super::soft::{self, Format};
            use super::*;

            #[inline(always)]
            fn canonical(value: $float) -> $bits {
                if value.is_nan() { soft::$format::CANONICAL_NAN as $bits } else { value.to_bits() }
            }

            binary! { add, $add, $float, $bits, $format }
            binary! { sub, $sub, $float, $bits, $format }
            binary! { mul, $mul, $float, $bits, $format }
            binary! { div, $div, $float, $bits, $format }

            #[inline(never)]
            pub(in super::super) fn sqrt(a: $bits, rounding: Rounding, flags: &mut u32) -> $bits {
                let Some(control) = control(rounding) else {
                    return soft::sqrt::<soft::$format>(a.into(), rounding, flags) as $bits;
                };
                let mut result = <$float>::from_bits(a);
                operate!($sqrt, rounding, control, flags, a = inout(xmm_reg) result);
                canonical(result)
            }

            #[inline(never)]
            pub(in super::super) fn multiply_add(
                a: $bits,
                b: $bits,
                c: $bits,
                rounding: Rounding,
                flags: &mut u32,
            ) -> $bits {
                if std::arch::is_x86_feature_detected!("fma")
                    && let Some(control) = control(rounding)
                {
                    let mut result = <$float>::from_bits(a);
                    let (b, c) = (<$float>::from_bits(b), <$float>::from_bits(c));
                    let mut raised = 0;
                    operate!($fma, rounding, control, &mut raised, a = inout(xmm_reg) result, b = in(xmm_reg) b, c = in(xmm_reg) c);
                    if !result.is_nan() {
                        *flags |= raised;
                        return result.to_bits();
                    }
                }
                soft::multiply_add::<soft::$format>(a.into(), b.into(), c.into(), rounding, flags) as $bits
            }

            /// `a * b + c` rounded to nearest, without its flags and with any NaN; `None` if this host cannot fuse.
            #[inline(always)]
            pub(in super::super) fn multiply_add_nearest(a: $bits, b: $bits, c: $bits) -> Option<$bits> {
                if !std::arch::is_x86_feature_detected!("fma") {
                    return None;
                }
                let mut result = <$float>::from_bits(a);
                // SAFETY: the host has the instruction; it touches its operands and the flags in MXCSR only.
                unsafe {
                    core::arch::asm!(
                        $fma, a = inout(xmm_reg) result, b = in(xmm_reg) <$float>::from_bits(b),
                        c = in(xmm_reg) <$float>::from_bits(c), options(pure, nomem, nostack),
                    );
                }
                Some(result.to_bits())
            }
        }
    };
}

format_module! {
    single, Single, f32, u32,
    "addss {a}, {b}" "subss {a}, {b}" "mulss {a}, {b}" "divss {a}, {b}" "sqrtss {a}, {a}" "vfmadd213ss {a}, {b}, {c}"
}
format_module! {
    double, Double, f64, u64,
    "addsd {a}, {b}" "subsd {a}, {b}" "mulsd {a}, {b}" "divsd {a}, {b}" "sqrtsd {a}, {a}" "vfmadd213sd {a}, {b}, {c}"
}
