//! The SSE2 and FMA instructions of x86-64 in the rounding modes that compiled code cannot ask for.
//!
//! Compiled code must never see a rounding mode other than the default, so each operation sets MXCSR, operates, and sets it back inside one
//! assembly block. The exception flags in MXCSR are not used: they are all set before, during and after, since a change of them is what
//! makes an operation slow (the processor takes an assist). Compiled code lets assembly change them.
//!
//! Results are the processor's: NaNs are not canonical. The callers use results only where every flag but NX is known to be clear.

use super::Rounding;

/// MXCSR at rest: all exceptions masked, all flags set, round to nearest, subnormals kept.
const AT_REST: u32 = 0x1fbf;

/// The values of MXCSR by their rounding field (bits 13 and 14).
static MXCSR: [u32; 4] = [AT_REST, AT_REST | 1 << 13, AT_REST | 2 << 13, AT_REST | 3 << 13];

/// A rounding mode that x86 has beside the default.
#[derive(Clone, Copy)]
pub(super) struct Directed(&'static u32);

impl Directed {
    #[inline(always)]
    pub(super) fn from_rounding(rounding: Rounding) -> Option<Self> {
        match rounding {
            Rounding::Down => Some(Self(&MXCSR[1])),
            Rounding::Up => Some(Self(&MXCSR[2])),
            Rounding::TowardZero => Some(Self(&MXCSR[3])),
            Rounding::NearestEven | Rounding::NearestMaxMagnitude => None,
        }
    }
}

/// Runs an instruction in a directed mode.
macro_rules! operate {
    ($instruction:literal, $mode:ident, $($operands:tt)*) => {
        // SAFETY: the block reads two constants and touches its operands and MXCSR, whose control bits are the default ones
        // again at the end; its flags may change, since `preserves_flags` is not promised. The callers know that
        // the host has the instruction.
        unsafe {
            core::arch::asm!(
                "ldmxcsr [{mode}]", $instruction, "ldmxcsr [{rest}]",
                $($operands)*, mode = in(reg) $mode.0, rest = in(reg) &raw const MXCSR[0],
                options(pure, readonly, nostack),
            );
        }
    };
}

macro_rules! format_module {
    ($name:ident, $float:ty, $add:literal $mul:literal $div:literal $sqrt:literal $fma:literal) => {
        pub(super) mod $name {
            use super::{Directed, MXCSR};

            #[inline(always)]
            pub(in super::super) fn add(mut a: $float, b: $float, mode: Directed) -> $float {
                operate!($add, mode, a = inout(xmm_reg) a, b = in(xmm_reg) b);
                a
            }

            #[inline(always)]
            pub(in super::super) fn mul(mut a: $float, b: $float, mode: Directed) -> $float {
                operate!($mul, mode, a = inout(xmm_reg) a, b = in(xmm_reg) b);
                a
            }

            #[inline(always)]
            pub(in super::super) fn div(mut a: $float, b: $float, mode: Directed) -> $float {
                operate!($div, mode, a = inout(xmm_reg) a, b = in(xmm_reg) b);
                a
            }

            #[inline(always)]
            pub(in super::super) fn sqrt(mut a: $float, mode: Directed) -> $float {
                operate!($sqrt, mode, a = inout(xmm_reg) a);
                a
            }

            /// `a * b + c`; `None` if this host cannot fuse.
            #[inline(always)]
            pub(in super::super) fn multiply_add(mut a: $float, b: $float, c: $float, mode: Directed) -> Option<$float> {
                if !std::arch::is_x86_feature_detected!("fma") {
                    return None;
                }
                operate!($fma, mode, a = inout(xmm_reg) a, b = in(xmm_reg) b, c = in(xmm_reg) c);
                Some(a)
            }

            /// `a * b + c` rounded to nearest; `None` if this host cannot fuse.
            #[inline(always)]
            pub(in super::super) fn multiply_add_nearest(mut a: $float, b: $float, c: $float) -> Option<$float> {
                if !std::arch::is_x86_feature_detected!("fma") {
                    return None;
                }
                // SAFETY: the host has the instruction; it touches its operands and the flags in MXCSR only.
                unsafe {
                    core::arch::asm!(
                        $fma, a = inout(xmm_reg) a, b = in(xmm_reg) b, c = in(xmm_reg) c, options(pure, nomem, nostack),
                    );
                }
                Some(a)
            }
        }
    };
}

format_module! {
    single, f32, "addss {a}, {b}" "mulss {a}, {b}" "divss {a}, {b}" "sqrtss {a}, {a}" "vfmadd213ss {a}, {b}, {c}"
}
format_module! {
    double, f64, "addsd {a}, {b}" "mulsd {a}, {b}" "divsd {a}, {b}" "sqrtsd {a}, {a}" "vfmadd213sd {a}, {b}, {c}"
}
