//! Memory as instructions see it: the way taken when the TLB has no answer.
//!
//! Loads and stores may be misaligned: the parts on both sides of a page boundary are translated before either is touched, so that a
//! fault has no effect. Bytes of a misaligned access are not moved in one piece, which the memory model allows.

#![allow(clippy::cast_possible_truncation, reason = "values are cut to the width of their access")]

use std::ptr::NonNull;

use machine::GuestPhysical;
use machine::address::{PAGE_SIZE, host_size};
use machine::bus::Width;
use machine::memory::Scalar;

use super::status::{envcfg, mstatus};
use super::trap::{Cause, Trap};
use super::{Hart, Privilege};
use crate::mmu::tlb::{Class, FetchPage};
use crate::mmu::walk::{Page, Rules, Satp, walk};
use crate::mmu::{Access, Fault, Permissions};

/// What an access reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A host address in a frame of guest memory.
    Memory(*mut u8),
    /// Not memory: a device, or nothing.
    Bus(GuestPhysical),
}

/// Where an instruction is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetched {
    /// Its first byte.
    pub(crate) physical: GuestPhysical,
    /// The frame of its page, if all of that may be fetched from by the same translation; to be read until the hart acknowledges a fence.
    pub(crate) page: Option<NonNull<u8>>,
}

/// The halfword of code at `at` or the even address before it.
///
/// # Safety
/// `page` is that of a [`Fetched`] that holds, and `at` is in the same page.
#[inline(always)]
pub(crate) unsafe fn half(page: NonNull<u8>, at: u64) -> u32 {
    // SAFETY: the offset is inside the page, and even.
    unsafe { u16::load(page.as_ptr().add(host_size(at & (PAGE_SIZE - 2)))) }.into()
}

fn trap(fault: Fault, access: Access, at: u64) -> Trap {
    let cause = match (fault, access) {
        (Fault::Page, Access::Fetch) => Cause::FetchPage,
        (Fault::Page, Access::Load) => Cause::LoadPage,
        (Fault::Page, Access::Store) => Cause::StorePage,
        (Fault::Access, Access::Fetch) => Cause::FetchAccess,
        (Fault::Access, Access::Load) => Cause::LoadAccess,
        (Fault::Access, Access::Store) => Cause::StoreAccess,
    };
    Trap::new(cause, at)
}

impl Hart {
    /// The mode that data accesses are made in.
    fn data_privilege(&self) -> Privilege {
        if self.csrs.mstatus & mstatus::MPRV == 0 {
            return self.privilege;
        }
        match (self.csrs.mstatus & mstatus::MPP) >> mstatus::MPP_SHIFT {
            0 => Privilege::User,
            1 => Privilege::Supervisor,
            _ => Privilege::Machine,
        }
    }

    fn rules(&self, privilege: Privilege) -> Rules {
        let status = self.csrs.mstatus;
        Rules {
            satp: if privilege == Privilege::Machine { Satp(0) } else { Satp(self.csrs.satp) },
            user: privilege == Privilege::User,
            sum: status & mstatus::SUM != 0,
            mxr: status & mstatus::MXR != 0,
            hardware_ad_updates: self.csrs.menvcfg & envcfg::ADUE != 0,
            memory_types: self.csrs.menvcfg & envcfg::PBMTE != 0,
        }
    }

    /// Tells the TLB what addresses mean now. Follows every change of the mode, of `satp`, and of `MPRV`, `MPP`, `SUM` and `MXR`, and every flush.
    pub(crate) fn select_context(&mut self) {
        let fetch = match self.privilege {
            Privilege::Machine => Class::MACHINE,
            mode => Class::fetch(mode == Privilege::User),
        };
        let data = match self.data_privilege() {
            Privilege::Machine => Class::MACHINE,
            mode => {
                let status = self.csrs.mstatus;
                Class::data(mode == Privilege::User, status & mstatus::SUM != 0, status & mstatus::MXR != 0)
            }
        };
        self.tlb.select(Satp(self.csrs.satp), data, fetch);
    }

    /// Forgets all translations.
    pub(crate) fn flush_translations(&mut self) {
        self.tlb.flush_all();
        self.select_context();
    }

    /// Translates, checks, and enters the TLB: `size` bytes at `at`, inside one page.
    fn resolve(&mut self, at: u64, size: u64, access: Access) -> Result<Place, Fault> {
        if let Some(program) = self.program.clone() {
            return self.resolve_in_program(&*program, at, access);
        }
        let privilege = if access == Access::Fetch { self.privilege } else { self.data_privilege() };
        let machine_mode = privilege == Privilege::Machine;
        let page = walk(&self.memory, &self.pmp, &self.rules(privilege), at, access)?;
        let physical = page.physical | (at & (PAGE_SIZE - 1));
        let protection = self.pmp.page(physical, machine_mode);
        let allowed = match protection {
            Some(permissions) => permissions.allow(access),
            None => self.pmp.check(physical, size, access, machine_mode),
        };
        if !allowed {
            return Err(Fault::Access);
        }
        let Some(frame) = self.memory.frame(GuestPhysical(physical)) else {
            self.stats.device_accesses += 1;
            return Ok(Place::Bus(GuestPhysical(physical)));
        };
        self.stats.tlb_refills += 1;
        let Page { permissions, extent, .. } = page;
        if access == Access::Fetch {
            if protection.is_some() {
                self.tlb.enter_fetch(at, FetchPage { physical: page.physical, host: frame }, extent);
            }
        } else {
            let mut permissions = protection.unwrap_or(Permissions::NONE).and(permissions);
            if permissions.write || access == Access::Store {
                let page = self.memory.page_number(GuestPhysical(physical));
                permissions.write &= self.memory.code().allow_writes(page, access == Access::Store);
            }
            self.tlb.enter(at, frame.as_ptr(), permissions, extent);
        }
        // SAFETY: the offset is inside the frame.
        Ok(Place::Memory(unsafe { frame.as_ptr().add(host_size(at & (PAGE_SIZE - 1))) }))
    }

    /// The place of an access that does not cross a page.
    pub(crate) fn place(&mut self, at: u64, size: u64, access: Access) -> Result<Place, Trap> {
        self.resolve(at, size, access).map_err(|fault| trap(fault, access, at))
    }

    /// Where the instruction halfword at `at` is.
    pub(crate) fn fetch_address(&mut self, at: u64) -> Result<Fetched, Trap> {
        let whole = |page: FetchPage| Fetched {
            physical: GuestPhysical(page.physical | (at & (PAGE_SIZE - 1))),
            page: Some(page.host),
        };
        if let Some(page) = self.tlb.fetch(at) {
            return Ok(whole(page));
        }
        match self.place(at, 2, Access::Fetch)? {
            Place::Memory(_) => {
                if let Some(page) = self.tlb.fetch(at) {
                    return Ok(whole(page));
                }
                let page = walk(&self.memory, &self.pmp, &self.rules(self.privilege), at, Access::Fetch)
                    .map_err(|fault| trap(fault, Access::Fetch, at))?;
                Ok(Fetched { physical: GuestPhysical(page.physical | (at & (PAGE_SIZE - 1))), page: None })
            }
            Place::Bus(_) => Err(Trap::new(Cause::FetchAccess, at)),
        }
    }

    /// The instruction bits at `at`: 16 of them, or 32. They may lie in two pages.
    pub(crate) fn fetch(&mut self, at: u64) -> Result<u32, Trap> {
        let low = self.fetch_half(at)?;
        if low & 3 != 3 {
            return Ok(low);
        }
        Ok(low | self.fetch_half(at.wrapping_add(2))? << 16)
    }

    pub(crate) fn fetch_half(&mut self, at: u64) -> Result<u32, Trap> {
        let fetched = self.fetch_address(at)?;
        match fetched.page {
            // SAFETY: `half` asks for what the page gives.
            Some(page) => Ok(unsafe { half(page, at) }),
            None => self.code_half(fetched.physical).map(u32::from).ok_or(Trap::new(Cause::FetchAccess, at)),
        }
    }

    /// Loads `size` bytes (1, 2, 4 or 8), zero-extended.
    pub(crate) fn load_slow(&mut self, at: u64, size: u64) -> Result<u64, Trap> {
        if at & (size - 1) == 0 {
            return match self.place(at, size, Access::Load)? {
                // SAFETY: the place is aligned, as `at` is, and inside a frame.
                Place::Memory(host) => Ok(unsafe {
                    match size {
                        1 => u8::load(host).into(),
                        2 => u16::load(host).into(),
                        4 => u32::load(host).into(),
                        _ => u64::load(host),
                    }
                }),
                Place::Bus(physical) => Width::from_bytes(size)
                    .and_then(|width| self.bus.read(physical, width))
                    .ok_or(Trap::new(Cause::LoadAccess, at)),
            };
        }
        let (places, first) = self.misaligned(at, size, Access::Load)?;
        let mut value = 0;
        for i in (0..size).rev() {
            let host = if i < first {
                places[0].wrapping_add(host_size(i))
            } else {
                places[1].wrapping_add(host_size(i - first))
            };
            // SAFETY: `misaligned` gives the first bytes of both parts, which end inside their frames.
            value = value << 8 | u64::from(unsafe { u8::load(host) });
        }
        Ok(value)
    }

    /// Stores the low `size` bytes (1, 2, 4 or 8) of `value`.
    pub(crate) fn store_slow(&mut self, at: u64, size: u64, value: u64) -> Result<(), Trap> {
        if at & (size - 1) == 0 {
            return match self.place(at, size, Access::Store)? {
                Place::Memory(host) => {
                    // SAFETY: the place is aligned, as `at` is, and inside a frame.
                    unsafe {
                        match size {
                            1 => u8::store(host, value as u8),
                            2 => u16::store(host, value as u16),
                            4 => u32::store(host, value as u32),
                            _ => u64::store(host, value),
                        }
                    }
                    Ok(())
                }
                Place::Bus(physical) => Width::from_bytes(size)
                    .and_then(|width| self.bus.write(physical, width, value))
                    .ok_or(Trap::new(Cause::StoreAccess, at)),
            };
        }
        let (places, first) = self.misaligned(at, size, Access::Store)?;
        for i in 0..size {
            let host = if i < first {
                places[0].wrapping_add(host_size(i))
            } else {
                places[1].wrapping_add(host_size(i - first))
            };
            // SAFETY: `misaligned` gives the first bytes of both parts, which end inside their frames.
            unsafe { u8::store(host, (value >> (8 * i)) as u8) };
        }
        Ok(())
    }

    /// The places of a misaligned access: of its first bytes, and of those in the next page, if any; and how many are in the first. Devices take only
    /// aligned accesses.
    fn misaligned(&mut self, at: u64, size: u64, access: Access) -> Result<([*mut u8; 2], u64), Trap> {
        let first = size.min(PAGE_SIZE - (at & (PAGE_SIZE - 1)));
        let mut places = [std::ptr::null_mut(); 2];
        for (place, part, length) in [(0, at, first), (1, at.wrapping_add(first), size - first)] {
            if length > 0 {
                match self.place(part, length, access)? {
                    Place::Memory(host) => places[place] = host,
                    Place::Bus(_) => return Err(trap(Fault::Access, access, part)),
                }
            }
        }
        Ok((places, first))
    }
}

/// What `lr` saw and where, for `sc`. Translated code knows it, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Reservation {
    /// The address, which is aligned: the host's, or in programs the guest's; and in its low bits the size, divided by four. Zero: there is none.
    pub(crate) key: u64,
    /// What was there: as many low bits as the size says.
    pub(crate) value: u64,
}

impl Reservation {
    /// The [`Self::key`] of `size` bytes, 4 or 8, at an address.
    pub(crate) fn key(address: u64, size: u64) -> u64 {
        address | size >> 2
    }
}
