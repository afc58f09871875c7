//! F and D: floating point. The arithmetic is [`crate::float`]'s; here are registers, NaN boxes, rounding modes, and `mstatus.FS`.

#![allow(clippy::cast_possible_truncation, reason = "moves and word conversions cut the register to 32 bits")]

use machine::memory::Scalar;

use super::integer::word;
use super::memory::address;
use super::next;
use crate::float::{Rounding, box_single, double, double_to_single, single, single_to_double, unbox_single};
use crate::hart::Hart;
use crate::hart::block::{Cursor, Flow};
use crate::hart::status::mstatus;

/// Whether `mstatus.FS` lets floating-point instructions execute.
#[inline(always)]
fn is_on(hart: &Hart) -> bool {
    hart.csrs.mstatus & mstatus::FS != 0
}

/// `rm` that means "as `frm` says".
const DYNAMIC: u8 = 7;

#[inline(always)]
fn rounding(hart: &Hart, cursor: Cursor) -> Option<Rounding> {
    match cursor.rm() {
        DYNAMIC => Rounding::from_bits(hart.csrs.frm),
        rm => Rounding::from_bits(rm.into()),
    }
}

#[inline(always)]
fn set_double(hart: &mut Hart, register: u8, bits: u64) {
    hart.f.set(register, bits);
    hart.csrs.mstatus |= mstatus::FS;
}

#[inline(always)]
fn set_single(hart: &mut Hart, register: u8, bits: u32) {
    set_double(hart, register, box_single(bits));
}

#[inline(always)]
fn get_double(hart: &Hart, register: u8) -> u64 {
    hart.f.get(register)
}

#[inline(always)]
fn get_single(hart: &Hart, register: u8) -> u32 {
    unbox_single(hart.f.get(register))
}

/// Sets an integer register; the flags may have changed, so the floating-point state is dirty.
#[inline(always)]
fn set_integer(hart: &mut Hart, register: u8, value: u64) {
    hart.x.set(register, value);
    hart.csrs.mstatus |= mstatus::FS;
}

/// Handlers whose result is rounded: `name(hart, cursor, rounding) body`.
macro_rules! rounded {
    ($($name:ident($hart:ident, $cursor:ident, $rounding:ident) $body:expr;)*) => {$(
        pub(super) fn $name($hart: &mut Hart, $cursor: Cursor) -> Flow {
            let Some($rounding) = rounding($hart, $cursor).filter(|_| is_on($hart)) else {
                return $hart.illegal_at($cursor);
            };
            $body;
            next($hart, $cursor)
        }
    )*};
}

/// Handlers whose result is exact.
macro_rules! exact {
    ($($name:ident($hart:ident, $cursor:ident) $body:expr;)*) => {$(
        pub(super) fn $name($hart: &mut Hart, $cursor: Cursor) -> Flow {
            if !is_on($hart) {
                return $hart.illegal_at($cursor);
            }
            $body;
            next($hart, $cursor)
        }
    )*};
}

/// The handlers that both formats have.
macro_rules! both_formats {
    ($module:ident, $get:ident, $set:ident, $sign:expr;
     $add:ident $sub:ident $mul:ident $div:ident $sqrt:ident $madd:ident $msub:ident $nmsub:ident $nmadd:ident
     $sgnj:ident $sgnjn:ident $sgnjx:ident $min:ident $max:ident $eq:ident $lt:ident $le:ident $class:ident
     $to_w:ident $to_wu:ident $to_l:ident $to_lu:ident $of_w:ident $of_wu:ident $of_l:ident $of_lu:ident) => {
        rounded! {
            $add(h, c, r) { let v = $module::add($get(h, c.rs1()), $get(h, c.rs2()), r, &mut h.fflags); $set(h, c.rd(), v) };
            $sub(h, c, r) { let v = $module::sub($get(h, c.rs1()), $get(h, c.rs2()), r, &mut h.fflags); $set(h, c.rd(), v) };
            $mul(h, c, r) { let v = $module::mul($get(h, c.rs1()), $get(h, c.rs2()), r, &mut h.fflags); $set(h, c.rd(), v) };
            $div(h, c, r) { let v = $module::div($get(h, c.rs1()), $get(h, c.rs2()), r, &mut h.fflags); $set(h, c.rd(), v) };
            $sqrt(h, c, r) { let v = $module::sqrt($get(h, c.rs1()), r, &mut h.fflags); $set(h, c.rd(), v) };
            $madd(h, c, r) {
                let (a, b, addend) = ($get(h, c.rs1()), $get(h, c.rs2()), $get(h, c.rs3()));
                let v = $module::multiply_add(a, b, addend, r, &mut h.fflags);
                $set(h, c.rd(), v)
            };
            $msub(h, c, r) {
                let (a, b, addend) = ($get(h, c.rs1()), $get(h, c.rs2()), $get(h, c.rs3()));
                let v = $module::multiply_add(a, b, addend ^ $sign, r, &mut h.fflags);
                $set(h, c.rd(), v)
            };
            $nmsub(h, c, r) {
                let (a, b, addend) = ($get(h, c.rs1()), $get(h, c.rs2()), $get(h, c.rs3()));
                let v = $module::multiply_add(a ^ $sign, b, addend, r, &mut h.fflags);
                $set(h, c.rd(), v)
            };
            $nmadd(h, c, r) {
                let (a, b, addend) = ($get(h, c.rs1()), $get(h, c.rs2()), $get(h, c.rs3()));
                let v = $module::multiply_add(a ^ $sign, b, addend ^ $sign, r, &mut h.fflags);
                $set(h, c.rd(), v)
            };
            $to_w(h, c, r) {
                let v = $module::to_i32($get(h, c.rs1()), r, &mut h.fflags);
                set_integer(h, c.rd(), i64::from(v).cast_unsigned())
            };
            $to_wu(h, c, r) {
                let v = $module::to_u32($get(h, c.rs1()), r, &mut h.fflags);
                set_integer(h, c.rd(), word(v.into()))
            };
            $to_l(h, c, r) {
                let v = $module::to_i64($get(h, c.rs1()), r, &mut h.fflags);
                set_integer(h, c.rd(), v.cast_unsigned())
            };
            $to_lu(h, c, r) {
                let v = $module::to_u64($get(h, c.rs1()), r, &mut h.fflags);
                set_integer(h, c.rd(), v)
            };
            $of_w(h, c, r) { let v = $module::from_i32(h.x.get(c.rs1()) as i32, r, &mut h.fflags); $set(h, c.rd(), v) };
            $of_wu(h, c, r) { let v = $module::from_u32(h.x.get(c.rs1()) as u32, r, &mut h.fflags); $set(h, c.rd(), v) };
            $of_l(h, c, r) { let v = $module::from_i64(h.x.get(c.rs1()).cast_signed(), r, &mut h.fflags); $set(h, c.rd(), v) };
            $of_lu(h, c, r) { let v = $module::from_u64(h.x.get(c.rs1()), r, &mut h.fflags); $set(h, c.rd(), v) };
        }
        exact! {
            $sgnj(h, c) { let (a, b) = ($get(h, c.rs1()), $get(h, c.rs2())); $set(h, c.rd(), a & !$sign | b & $sign) };
            $sgnjn(h, c) { let (a, b) = ($get(h, c.rs1()), $get(h, c.rs2())); $set(h, c.rd(), a & !$sign | !b & $sign) };
            $sgnjx(h, c) { let (a, b) = ($get(h, c.rs1()), $get(h, c.rs2())); $set(h, c.rd(), a ^ b & $sign) };
            $min(h, c) { let v = $module::min($get(h, c.rs1()), $get(h, c.rs2()), &mut h.fflags); $set(h, c.rd(), v) };
            $max(h, c) { let v = $module::max($get(h, c.rs1()), $get(h, c.rs2()), &mut h.fflags); $set(h, c.rd(), v) };
            $eq(h, c) { let v = $module::eq($get(h, c.rs1()), $get(h, c.rs2()), &mut h.fflags); set_integer(h, c.rd(), v.into()) };
            $lt(h, c) { let v = $module::lt($get(h, c.rs1()), $get(h, c.rs2()), &mut h.fflags); set_integer(h, c.rd(), v.into()) };
            $le(h, c) { let v = $module::le($get(h, c.rs1()), $get(h, c.rs2()), &mut h.fflags); set_integer(h, c.rd(), v.into()) };
            $class(h, c) h.x.set(c.rd(), $module::classify($get(h, c.rs1())).into());
        }
    };
}

both_formats! {
    single, get_single, set_single, 0x8000_0000_u32;
    fadd_s fsub_s fmul_s fdiv_s fsqrt_s fmadd_s fmsub_s fnmsub_s fnmadd_s
    fsgnj_s fsgnjn_s fsgnjx_s fmin_s fmax_s feq_s flt_s fle_s fclass_s
    fcvt_w_s fcvt_wu_s fcvt_l_s fcvt_lu_s fcvt_s_w fcvt_s_wu fcvt_s_l fcvt_s_lu
}

both_formats! {
    double, get_double, set_double, 1_u64 << 63;
    fadd_d fsub_d fmul_d fdiv_d fsqrt_d fmadd_d fmsub_d fnmsub_d fnmadd_d
    fsgnj_d fsgnjn_d fsgnjx_d fmin_d fmax_d feq_d flt_d fle_d fclass_d
    fcvt_w_d fcvt_wu_d fcvt_l_d fcvt_lu_d fcvt_d_w fcvt_d_wu fcvt_d_l fcvt_d_lu
}

rounded! {
    fcvt_s_d(h, c, r) { let v = double_to_single(get_double(h, c.rs1()), r, &mut h.fflags); set_single(h, c.rd(), v) };
    // Exact, but a reserved rounding mode is still illegal.
    fcvt_d_s(h, c, _r) { let v = single_to_double(get_single(h, c.rs1()), &mut h.fflags); set_double(h, c.rd(), v) };
}

exact! {
    // Moves take the register's bits, boxed or not.
    fmv_x_w(h, c) h.x.set(c.rd(), word(h.f.get(c.rs1())));
    fmv_x_d(h, c) h.x.set(c.rd(), h.f.get(c.rs1()));
    fmv_w_x(h, c) { let v = h.x.get(c.rs1()) as u32; set_single(h, c.rd(), v) };
    fmv_d_x(h, c) { let v = h.x.get(c.rs1()); set_double(h, c.rd(), v) };
}

macro_rules! loads_and_stores {
    ($($load:ident $load_miss:ident $store:ident $store_miss:ident $bits:ty, $boxed:expr;)*) => {$(
        pub(super) fn $load(hart: &mut Hart, cursor: Cursor) -> Flow {
            if !is_on(hart) {
                return hart.illegal_at(cursor);
            }
            match hart.tlb.read(address(hart, cursor), size_of::<$bits>() as u64) {
                Some(host) => {
                    // SAFETY: a hit of the TLB is aligned and inside a frame.
                    let bits = unsafe { <$bits>::load(host) };
                    set_double(hart, cursor.rd(), $boxed(bits));
                    next(hart, cursor)
                }
                None => $load_miss(hart, cursor),
            }
        }

        #[cold]
        #[inline(never)]
        fn $load_miss(hart: &mut Hart, cursor: Cursor) -> Flow {
            match hart.load_slow(address(hart, cursor), size_of::<$bits>() as u64) {
                Ok(bits) => {
                    set_double(hart, cursor.rd(), $boxed(bits as $bits));
                    hart.resume_after(cursor)
                }
                Err(trap) => hart.trap_at(cursor, trap),
            }
        }

        pub(super) fn $store(hart: &mut Hart, cursor: Cursor) -> Flow {
            if !is_on(hart) {
                return hart.illegal_at(cursor);
            }
            match hart.tlb.write(address(hart, cursor), size_of::<$bits>() as u64) {
                Some(host) => {
                    // SAFETY: a hit of the TLB is aligned and inside a frame.
                    unsafe { <$bits>::store(host, hart.f.get(cursor.rs2()) as $bits) };
                    next(hart, cursor)
                }
                None => $store_miss(hart, cursor),
            }
        }

        #[cold]
        #[inline(never)]
        fn $store_miss(hart: &mut Hart, cursor: Cursor) -> Flow {
            match hart.store_slow(address(hart, cursor), size_of::<$bits>() as u64, hart.f.get(cursor.rs2())) {
                Ok(()) => hart.resume_after(cursor),
                Err(trap) => hart.trap_at(cursor, trap),
            }
        }
    )*};
}

loads_and_stores! {
    flw flw_miss fsw fsw_miss u32, box_single;
    fld fld_miss fsd fsd_miss u64, std::convert::identity;
}
