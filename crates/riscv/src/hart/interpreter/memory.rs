//! RV64I: loads, stores and fences; Zicbom and Zicboz; Zihintpause.
//!
//! Guest loads and stores are relaxed atomics of the host. RVWMO needs no more: what orders them are fences, and the `aq` and `rl` bits, which
//! have host fences of at least their strength.

#![allow(clippy::cast_possible_truncation, reason = "stores cut the register to their width")]

use std::sync::atomic::{self, Ordering};

use machine::memory::Scalar;

use super::next;
use crate::hart::access::Place;
use crate::hart::block::{Cursor, Flow};
use crate::hart::status::envcfg;
use crate::hart::trap::{Cause, Trap};
use crate::hart::{CACHE_BLOCK_BYTES, Hart, Privilege};
use crate::mmu::Access;

#[inline(always)]
pub(super) fn address(hart: &Hart, cursor: Cursor) -> u64 {
    hart.x.get(cursor.rs1()).wrapping_add(cursor.imm())
}

macro_rules! loads {
    ($($name:ident $miss:ident $bits:ty as $value:ty;)*) => {$(
        pub(super) fn $name(hart: &mut Hart, cursor: Cursor) -> Flow {
            let at = address(hart, cursor);
            match hart.tlb.read(at, size_of::<$bits>() as u64) {
                Some(host) => {
                    // SAFETY: a hit of the TLB is aligned and inside a frame.
                    let value = unsafe { <$bits>::load(host) } as $value;
                    hart.x.set(cursor.rd(), i64::from(value).cast_unsigned());
                    next(hart, cursor)
                }
                None => $miss(hart, cursor),
            }
        }

        #[cold]
        #[inline(never)]
        fn $miss(hart: &mut Hart, cursor: Cursor) -> Flow {
            match hart.load_slow(address(hart, cursor), size_of::<$bits>() as u64) {
                Ok(bits) => {
                    hart.x.set(cursor.rd(), i64::from(bits as $bits as $value).cast_unsigned());
                    hart.resume_after(cursor)
                }
                Err(trap) => hart.trap_at(cursor, trap),
            }
        }
    )*};
}

loads! {
    lb lb_miss u8 as i8;
    lh lh_miss u16 as i16;
    lw lw_miss u32 as i32;
    ld ld_miss u64 as i64;
    lbu lbu_miss u8 as u8;
    lhu lhu_miss u16 as u16;
    lwu lwu_miss u32 as u32;
}

macro_rules! stores {
    ($($name:ident $miss:ident $bits:ty;)*) => {$(
        pub(super) fn $name(hart: &mut Hart, cursor: Cursor) -> Flow {
            let at = address(hart, cursor);
            match hart.tlb.write(at, size_of::<$bits>() as u64) {
                Some(host) => {
                    // SAFETY: a hit of the TLB is aligned and inside a frame.
                    unsafe { <$bits>::store(host, hart.x.get(cursor.rs2()) as $bits) };
                    next(hart, cursor)
                }
                None => $miss(hart, cursor),
            }
        }

        #[cold]
        #[inline(never)]
        fn $miss(hart: &mut Hart, cursor: Cursor) -> Flow {
            match hart.store_slow(address(hart, cursor), size_of::<$bits>() as u64, hart.x.get(cursor.rs2())) {
                Ok(()) => hart.resume_after(cursor),
                Err(trap) => hart.trap_at(cursor, trap),
            }
        }
    )*};
}

stores! {
    sb sb_miss u8;
    sh sh_miss u16;
    sw sw_miss u32;
    sd sd_miss u64;
}

/// The fields of `fence`: predecessor and successor sets, each of device input, device output, memory read, memory write.
mod set {
    pub(super) const WRITES_BEFORE: u64 = 0b0101_0000;
    pub(super) const READS_AFTER: u64 = 0b0000_1010;
    pub(super) const TSO: u64 = 0b1000_0011_0011;
    pub(super) const PAUSE: u64 = 0b0001_0000;
}

/// Only a write before a read needs more than what x86 hosts do of themselves.
pub(super) fn fence(hart: &mut Hart, cursor: Cursor) -> Flow {
    let sets = cursor.imm();
    if sets == set::PAUSE {
        return pause(hart, cursor);
    }
    if sets & set::WRITES_BEFORE != 0 && sets & set::READS_AFTER != 0 && sets & 0xfff != set::TSO {
        atomic::fence(Ordering::SeqCst);
    } else {
        atomic::fence(Ordering::AcqRel);
    }
    next(hart, cursor)
}

/// The guest spins, maybe not for long: only now and then the host gets its processor.
fn pause(hart: &mut Hart, cursor: Cursor) -> Flow {
    std::hint::spin_loop();
    hart.pauses_count = hart.pauses_count.wrapping_add(1);
    if hart.pauses_count.is_multiple_of(64) {
        return hart.give_way(cursor);
    }
    next(hart, cursor)
}

/// Whether the configuration of the modes above lets the current mode use cache-block instructions: both of them, if it is U-mode.
fn cache_blocks_allowed(hart: &Hart, allowed: impl Fn(u64) -> bool) -> bool {
    let csrs = &hart.csrs;
    match hart.privilege {
        Privilege::Machine => true,
        Privilege::Supervisor => allowed(csrs.menvcfg),
        Privilege::User => allowed(csrs.menvcfg) && allowed(csrs.senvcfg),
    }
}

/// `cbo.inval`. No cache can be out of step with memory here: what is left of it is its traps.
pub(super) fn cbo_inval(hart: &mut Hart, cursor: Cursor) -> Flow {
    if !cache_blocks_allowed(hart, |config| config & envcfg::CBIE != 0) {
        return hart.illegal_at(cursor);
    }
    cache_block_management(hart, cursor)
}

/// `cbo.clean` and `cbo.flush`: as [`cbo_inval`].
pub(super) fn cbo_clean(hart: &mut Hart, cursor: Cursor) -> Flow {
    if !cache_blocks_allowed(hart, |config| config & envcfg::CBCFE != 0) {
        return hart.illegal_at(cursor);
    }
    cache_block_management(hart, cursor)
}

/// Management is allowed where loads or stores are; its faults are those of stores.
#[inline(never)]
fn cache_block_management(hart: &mut Hart, cursor: Cursor) -> Flow {
    let at = hart.x.get(cursor.rs1());
    let block = at & !(CACHE_BLOCK_BYTES - 1);
    let found = match hart.place(block, CACHE_BLOCK_BYTES, Access::Load) {
        Ok(place) => Ok(place),
        Err(_) => hart.place(block, CACHE_BLOCK_BYTES, Access::Store),
    };
    match found {
        Ok(Place::Bus(physical)) if !hart.bus.contains(physical) => {
            hart.trap_at(cursor, Trap::new(Cause::StoreAccess, at))
        }
        Ok(_) => hart.resume_after(cursor),
        Err(trap) => hart.trap_at(cursor, Trap::new(trap.cause, at)),
    }
}

/// `cbo.zero`: the block that the address is in becomes zero.
#[inline(never)]
pub(super) fn cbo_zero(hart: &mut Hart, cursor: Cursor) -> Flow {
    if !cache_blocks_allowed(hart, |config| config & envcfg::CBZE != 0) {
        return hart.illegal_at(cursor);
    }
    let at = hart.x.get(cursor.rs1());
    let block = at & !(CACHE_BLOCK_BYTES - 1);
    let host = match hart.tlb.write(block, 8) {
        Some(host) => host,
        None => match hart.place(block, CACHE_BLOCK_BYTES, Access::Store) {
            Ok(Place::Memory(host)) => host,
            Ok(Place::Bus(_)) => return hart.trap_at(cursor, Trap::new(Cause::StoreAccess, at)),
            Err(trap) => return hart.trap_at(cursor, Trap::new(trap.cause, at)),
        },
    };
    for word in 0..machine::address::host_size(CACHE_BLOCK_BYTES / 8) {
        // SAFETY: the block is aligned to its size, which divides the page's, so all of it is inside the frame.
        unsafe { u64::store(host.add(8 * word), 0) };
    }
    hart.resume_after(cursor)
}
