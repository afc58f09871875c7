//! A: atomic memory operations, load-reserved and store-conditional.
//!
//! Operations are the host's, sequentially consistent: at least what any `aq` and `rl` ask for.
//!
//! A reservation is the place and the value that `lr` saw; `sc` is a compare-and-exchange against that value. So `sc` also succeeds if the word was
//! changed and changed back in between, where hardware would fail. No program can rely on the difference: compilers and kernels
//! use the pair to build operations on the value, not to watch the place.

#![allow(clippy::cast_possible_truncation, reason = "word operations cut the register to 32 bits")]

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};

use super::integer::word;
use super::next;
use crate::hart::Hart;
use crate::hart::access::{Place, Reservation};
use crate::hart::block::{Cursor, Flow};
use crate::hart::trap::{Cause, Trap};
use crate::mmu::Access;

const _: () = assert!(cfg!(target_endian = "little"), "arithmetic in guest memory is done in the host's byte order");

/// The host address for an atomic access; a trap if there is none.
#[cold]
#[inline(never)]
fn place(hart: &mut Hart, cursor: Cursor, size: u64, access: Access) -> Result<*mut u8, Flow> {
    let at = hart.x.get(cursor.rs1());
    let (misaligned, refused) = match access {
        Access::Store => (Cause::StoreMisaligned, Cause::StoreAccess),
        Access::Load | Access::Fetch => (Cause::LoadMisaligned, Cause::LoadAccess),
    };
    if at & (size - 1) != 0 {
        return Err(hart.trap_at(cursor, Trap::new(misaligned, at)));
    }
    match hart.place(at, size, access) {
        Ok(Place::Memory(host)) => Ok(host),
        // Devices do not take part in atomic operations.
        Ok(Place::Bus(_)) => Err(hart.trap_at(cursor, Trap::new(refused, at))),
        Err(trap) => Err(hart.trap_at(cursor, trap)),
    }
}

#[inline(always)]
fn readable(hart: &mut Hart, cursor: Cursor, size: u64) -> Result<*mut u8, Flow> {
    match hart.tlb.read(hart.x.get(cursor.rs1()), size) {
        Some(host) => Ok(host),
        None => place(hart, cursor, size, Access::Load),
    }
}

#[inline(always)]
fn writable(hart: &mut Hart, cursor: Cursor, size: u64) -> Result<*mut u8, Flow> {
    match hart.tlb.write(hart.x.get(cursor.rs1()), size) {
        Some(host) => Ok(host),
        None => place(hart, cursor, size, Access::Store),
    }
}

macro_rules! operations {
    ($($name:ident $atomic:ty as $int:ty, $method:ident;)*) => {$(
        pub(super) fn $name(hart: &mut Hart, cursor: Cursor) -> Flow {
            let host = match writable(hart, cursor, size_of::<$int>() as u64) {
                Ok(host) => host,
                Err(flow) => return flow,
            };
            // SAFETY: the address is aligned and inside a frame; all accesses to frames are atomic.
            let place = unsafe { <$atomic>::from_ptr(host.cast()) };
            let old = place.$method(hart.x.get(cursor.rs2()) as $int, SeqCst);
            hart.x.set(cursor.rd(), i64::from(old as <$int as Signed>::Type).cast_unsigned());
            next(hart, cursor)
        }
    )*};
}

/// The signed integer of the same width: how results are extended.
trait Signed {
    type Type;
}
impl Signed for u32 {
    type Type = i32;
}
impl Signed for i32 {
    type Type = i32;
}
impl Signed for u64 {
    type Type = i64;
}
impl Signed for i64 {
    type Type = i64;
}

operations! {
    amoswap_w AtomicU32 as u32, swap;
    amoadd_w AtomicU32 as u32, fetch_add;
    amoxor_w AtomicU32 as u32, fetch_xor;
    amoand_w AtomicU32 as u32, fetch_and;
    amoor_w AtomicU32 as u32, fetch_or;
    amomin_w AtomicI32 as i32, fetch_min;
    amomax_w AtomicI32 as i32, fetch_max;
    amominu_w AtomicU32 as u32, fetch_min;
    amomaxu_w AtomicU32 as u32, fetch_max;
    amoswap_d AtomicU64 as u64, swap;
    amoadd_d AtomicU64 as u64, fetch_add;
    amoxor_d AtomicU64 as u64, fetch_xor;
    amoand_d AtomicU64 as u64, fetch_and;
    amoor_d AtomicU64 as u64, fetch_or;
    amomin_d AtomicI64 as i64, fetch_min;
    amomax_d AtomicI64 as i64, fetch_max;
    amominu_d AtomicU64 as u64, fetch_min;
    amomaxu_d AtomicU64 as u64, fetch_max;
}

/// What the reservation of `size` bytes at `host` is known by.
#[inline(always)]
fn key(hart: &Hart, cursor: Cursor, host: *mut u8, size: u64) -> u64 {
    let at = if hart.program.is_some() { hart.x.get(cursor.rs1()) } else { host as u64 };
    Reservation::key(at, size)
}

pub(super) fn lr_w(hart: &mut Hart, cursor: Cursor) -> Flow {
    let host = match readable(hart, cursor, 4) {
        Ok(host) => host,
        Err(flow) => return flow,
    };
    // SAFETY: the address is aligned and inside a frame; all accesses to frames are atomic.
    let value = unsafe { AtomicU32::from_ptr(host.cast()) }.load(SeqCst).into();
    hart.reservation = Reservation { key: key(hart, cursor, host, 4), value };
    hart.x.set(cursor.rd(), word(value));
    next(hart, cursor)
}

pub(super) fn lr_d(hart: &mut Hart, cursor: Cursor) -> Flow {
    let host = match readable(hart, cursor, 8) {
        Ok(host) => host,
        Err(flow) => return flow,
    };
    // SAFETY: the address is aligned and inside a frame; all accesses to frames are atomic.
    let value = unsafe { AtomicU64::from_ptr(host.cast()) }.load(SeqCst);
    hart.reservation = Reservation { key: key(hart, cursor, host, 8), value };
    hart.x.set(cursor.rd(), value);
    next(hart, cursor)
}

pub(super) fn sc_w(hart: &mut Hart, cursor: Cursor) -> Flow {
    let host = match writable(hart, cursor, 4) {
        Ok(host) => host,
        Err(flow) => return flow,
    };
    let reservation = std::mem::take(&mut hart.reservation);
    // SAFETY: the address is aligned and inside a frame; all accesses to frames are atomic.
    let place = unsafe { AtomicU32::from_ptr(host.cast()) };
    let new = hart.x.get(cursor.rs2()) as u32;
    let done = reservation.key == key(hart, cursor, host, 4)
        && place.compare_exchange(reservation.value as u32, new, SeqCst, SeqCst).is_ok();
    hart.x.set(cursor.rd(), u64::from(!done));
    next(hart, cursor)
}

pub(super) fn sc_d(hart: &mut Hart, cursor: Cursor) -> Flow {
    let host = match writable(hart, cursor, 8) {
        Ok(host) => host,
        Err(flow) => return flow,
    };
    let reservation = std::mem::take(&mut hart.reservation);
    // SAFETY: the address is aligned and inside a frame; all accesses to frames are atomic.
    let place = unsafe { AtomicU64::from_ptr(host.cast()) };
    let new = hart.x.get(cursor.rs2());
    let done = reservation.key == key(hart, cursor, host, 8)
        && place.compare_exchange(reservation.value, new, SeqCst, SeqCst).is_ok();
    hart.x.set(cursor.rd(), u64::from(!done));
    next(hart, cursor)
}
