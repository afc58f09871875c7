//! The page walk: Bare, Sv39, Sv48, Sv57, with Svnapot, Svpbmt, and Svade or Svadu.
//!
//! Privileged specification, section "Virtual Address Translation Process"; the step numbers below are its.

use machine::GuestPhysical;
use machine::memory::GuestMemory;

use super::pmp::Pmp;
use super::tlb::Extent;
use super::{Access, Fault, Permissions};

/// Bits of a page table entry.
pub mod pte {
    /// Valid.
    pub const V: u64 = 1;
    /// Readable.
    pub const R: u64 = 1 << 1;
    /// Writable.
    pub const W: u64 = 1 << 2;
    /// Executable.
    pub const X: u64 = 1 << 3;
    /// Accessible in U-mode.
    pub const U: u64 = 1 << 4;
    /// Global.
    pub const G: u64 = 1 << 5;
    /// Accessed.
    pub const A: u64 = 1 << 6;
    /// Dirty.
    pub const D: u64 = 1 << 7;
    /// Where the physical page number begins.
    pub const PPN_SHIFT: u32 = 10;
    /// The physical page number, shifted down.
    pub const PPN_MASK: u64 = (1 << 44) - 1;
    /// Reserved.
    pub const RESERVED: u64 = 0x7f << 54;
    /// Svpbmt memory type.
    pub const PBMT: u64 = 3 << 61;
    /// Svnapot.
    pub const N: u64 = 1 << 63;
}

/// `satp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Satp(pub u64);

impl Satp {
    /// Levels of page tables: 0 for Bare; `None` for a mode that does not exist here.
    #[must_use]
    pub fn levels(self) -> Option<u32> {
        match self.0 >> 60 {
            0 => Some(0),
            8 => Some(3),
            9 => Some(4),
            10 => Some(5),
            _ => None,
        }
    }

    /// The address space identifier.
    #[must_use]
    pub fn asid(self) -> u16 {
        (self.0 >> 44 & 0xffff) as u16
    }

    /// The address of the root page table.
    #[must_use]
    pub fn root(self) -> u64 {
        (self.0 & pte::PPN_MASK) << 12
    }
}

/// Under what rules a translation is made.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The page tables; Bare for M-mode.
    pub satp: Satp,
    /// Accesses are made as U-mode.
    pub user: bool,
    /// `mstatus.SUM`: S-mode may load from and store to U-mode's pages.
    pub sum: bool,
    /// `mstatus.MXR`: executable pages are readable.
    pub mxr: bool,
    /// Svadu is on: set A and D rather than fault.
    pub hardware_ad_updates: bool,
    /// Svpbmt is on.
    pub memory_types: bool,
}

/// What a walk found for one page of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its physical address.
    pub physical: u64,
    /// What the page tables allow without a further walk: stores only once D is set.
    pub permissions: Permissions,
    /// What it is part of.
    pub extent: Extent,
}

/// Translates the page of `at` for `access`.
///
/// # Errors
/// A page fault, or an access fault of the walk itself.
pub fn walk(memory: &GuestMemory, pmp: &Pmp, rules: &Rules, at: u64, access: Access) -> Result<Page, Fault> {
    let levels = match rules.satp.levels() {
        Some(0) | None => {
            return Ok(Page { physical: at & !0xfff, permissions: Permissions::ALL, extent: Extent::default() });
        }
        Some(levels) => levels,
    };
    let unused = 64 - (12 + 9 * levels);
    if ((at << unused).cast_signed() >> unused).cast_unsigned() != at {
        return Err(Fault::Page);
    }
    // Another agent may change the entry between reading it and setting its bits: then the walk begins again. Each retry means that
    // another hart has made progress.
    loop {
        if let Some(page) = attempt(memory, pmp, rules, levels, at, access)? {
            return Ok(page);
        }
    }
}

fn attempt(
    memory: &GuestMemory,
    pmp: &Pmp,
    rules: &Rules,
    levels: u32,
    at: u64,
    access: Access,
) -> Result<Option<Page>, Fault> {
    let mut table = rules.satp.root();
    let mut global = false;
    for level in (0..levels).rev() {
        // Step 2: fetch the entry.
        let slot = table + (at >> (12 + 9 * level) & 0x1ff) * 8;
        if !pmp.check(slot, 8, Access::Load, false) {
            return Err(Fault::Access);
        }
        let entry = memory.load::<u64>(GuestPhysical(slot)).map_err(|_| Fault::Access)?;

        // Step 3: is it valid, and are reserved bits and encodings left alone?
        let memory_type = entry & pte::PBMT;
        if entry & pte::V == 0
            || entry & (pte::R | pte::W) == pte::W
            || entry & pte::RESERVED != 0
            || (memory_type != 0 && (!rules.memory_types || memory_type == pte::PBMT))
        {
            return Err(Fault::Page);
        }
        let number = entry >> pte::PPN_SHIFT & pte::PPN_MASK;
        // Of a pointer, it says so of all that it leads to.
        global |= entry & pte::G != 0;

        // Step 4: a pointer to the next level.
        if entry & (pte::R | pte::X) == 0 {
            if entry & (pte::A | pte::D | pte::U | pte::N | pte::PBMT) != 0 {
                return Err(Fault::Page);
            }
            table = number << 12;
            continue;
        }

        // Step 5: a leaf. Superpages and contiguous ranges must be aligned.
        let size_shift = if entry & pte::N == 0 {
            12 + 9 * level
        } else if level == 0 && number & 0xf == 8 {
            16
        } else {
            return Err(Fault::Page);
        };
        let inside = (1 << (size_shift - 12)) - 1;
        if entry & pte::N == 0 && number & inside != 0 {
            return Err(Fault::Page);
        }

        // Steps 6 to 8: permissions.
        let user_page = entry & pte::U != 0;
        let data = if rules.user { user_page } else { !user_page || rules.sum };
        let permissions = Permissions {
            read: data && (entry & pte::R != 0 || (rules.mxr && entry & pte::X != 0)),
            write: data && entry & pte::W != 0,
            execute: user_page == rules.user && entry & pte::X != 0,
        };
        if !permissions.allow(access) {
            return Err(Fault::Page);
        }

        // Step 9: accessed and dirty.
        let wanted = entry | pte::A | if access == Access::Store { pte::D } else { 0 };
        if wanted != entry {
            if !rules.hardware_ad_updates {
                return Err(Fault::Page);
            }
            if !pmp.check(slot, 8, Access::Store, false) {
                return Err(Fault::Access);
            }
            let updated = memory.compare_exchange(GuestPhysical(slot), entry, wanted).map_err(|_| Fault::Access)?;
            if !updated {
                return Ok(None);
            }
        }

        // Step 10: the address.
        let page = (number & !inside) | (at >> 12 & inside);
        let permissions = Permissions { write: permissions.write && wanted & pte::D != 0, ..permissions };
        return Ok(Some(Page { physical: page << 12, permissions, extent: Extent { size_shift, global } }));
    }
    Err(Fault::Page)
}

/// Where `at` leads by the page tables of `satp`, whatever the permissions, and without setting accessed or dirty bits: for debuggers. `None` if
/// nowhere.
#[must_use]
pub fn look_up(memory: &GuestMemory, satp: Satp, at: u64) -> Option<u64> {
    let levels = satp.levels()?;
    if levels == 0 {
        return Some(at);
    }
    let unused = 64 - (12 + 9 * levels);
    if ((at << unused).cast_signed() >> unused).cast_unsigned() != at {
        return None;
    }
    let mut table = satp.root();
    for level in (0..levels).rev() {
        let entry = memory.load::<u64>(GuestPhysical(table + (at >> (12 + 9 * level) & 0x1ff) * 8)).ok()?;
        let page = (entry >> pte::PPN_SHIFT & pte::PPN_MASK) << 12;
        if entry & pte::V == 0 {
            return None;
        }
        if entry & (pte::R | pte::X) != 0 {
            let size_shift = if entry & pte::N != 0 { 16 } else { 12 + 9 * level };
            let inside = (1 << size_shift) - 1;
            return Some(page & !inside | at & inside);
        }
        table = page;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 0x8000_0000;
    const LEAF: u64 = pte::V | pte::R | pte::W | pte::X | pte::A | pte::D;

    struct Tables {
        memory: GuestMemory,
        pmp: Pmp,
        rules: Rules,
    }

    /// Tables at RAM + n pages: root in page 0, the next level in page 1 and so on; every level's entry 0x1 leads on.
    fn tables(mode: u64) -> Tables {
        let memory = GuestMemory::new(GuestPhysical(RAM), 64 << 12).unwrap();
        let mut pmp = Pmp::default();
        pmp.set_address(0, u64::MAX);
        pmp.set_config(0, 0x1f);
        let satp = Satp(mode << 60 | RAM >> 12);
        let tables = Tables {
            memory,
            pmp,
            rules: Rules { satp, user: false, sum: false, mxr: false, hardware_ad_updates: false, memory_types: false },
        };
        for level in 0..satp.levels().unwrap() - 1 {
            tables.set(level, 1, ((RAM >> 12) + u64::from(level) + 1) << 10 | pte::V);
        }
        tables
    }

    impl Tables {
        fn set(&self, table: u32, index: u64, entry: u64) {
            self.memory.store(GuestPhysical(RAM + (u64::from(table) << 12) + index * 8), entry).unwrap();
        }

        fn get(&self, table: u32, index: u64) -> u64 {
            self.memory.load(GuestPhysical(RAM + (u64::from(table) << 12) + index * 8)).unwrap()
        }

        /// The address that goes through entry 1 of every level, and entry `last` of the last.
        fn at(&self, last: u64) -> u64 {
            (1..self.rules.satp.levels().unwrap()).fold(last << 12, |at, level| at | 1 << (12 + 9 * level))
        }

        fn walk(&self, at: u64, access: Access) -> Result<Page, Fault> {
            walk(&self.memory, &self.pmp, &self.rules, at, access)
        }
    }

    fn leaf(page: u64, bits: u64) -> u64 {
        page << 10 | bits
    }

    #[test]
    fn every_mode_reaches_its_leaf() {
        for mode in [8, 9, 10] {
            let tables = tables(mode);
            let last = tables.rules.satp.levels().unwrap() - 1;
            tables.set(last, 5, leaf(0x1234, LEAF));
            let page = tables.walk(tables.at(5) + 0x123, Access::Load).unwrap();
            assert_eq!(page, Page { physical: 0x123_4000, permissions: Permissions::ALL, extent: Extent::default() });
            assert_eq!(tables.walk(tables.at(6), Access::Load), Err(Fault::Page), "not valid");
            let bits = 12 + 9 * (last + 1);
            assert_eq!(tables.walk(tables.at(5) | 1 << bits, Access::Load), Err(Fault::Page), "not canonical");
        }
    }

    #[test]
    fn bare_is_the_identity() {
        let mut tables = tables(8);
        tables.rules.satp = Satp(0);
        assert_eq!(tables.walk(0x1234_5678, Access::Fetch).unwrap().physical, 0x1234_5000);
    }

    #[test]
    fn superpages_and_contiguous_ranges() {
        let tables = tables(8);
        tables.set(1, 1, leaf(0x400, LEAF));
        let at = 1 << 30 | 1 << 21 | 0x5_4321;
        assert_eq!(tables.walk(at, Access::Load).unwrap().physical, 0x40_0000 + 0x5_4000);
        tables.set(1, 1, leaf(0x401, LEAF));
        assert_eq!(tables.walk(at, Access::Load), Err(Fault::Page), "misaligned");
        tables.set(1, 1, leaf(0x408, LEAF | pte::N));
        assert_eq!(tables.walk(at, Access::Load), Err(Fault::Page), "N above the last level");
        tables.set(1, 1, leaf((RAM >> 12) + 2, pte::V));
        tables.set(2, 0x13, leaf(0x568, LEAF | pte::N));
        let page = tables.walk(1 << 30 | 1 << 21 | 0x13_000, Access::Load).unwrap();
        assert_eq!((page.physical, page.extent.size_shift), (0x56_3000, 16));
        tables.set(2, 0x13, leaf(0x564, LEAF | pte::N));
        assert_eq!(tables.walk(1 << 30 | 1 << 21 | 0x13_000, Access::Load), Err(Fault::Page), "reserved size");
    }

    #[test]
    fn reserved_encodings_fault() {
        let mut tables = tables(8);
        let at = tables.at(1);
        for bits in [pte::V | pte::W | pte::A | pte::D, LEAF & !pte::V, LEAF | 1 << 54, LEAF | 1 << 61, LEAF | 2 << 61]
        {
            tables.set(2, 1, leaf(7, bits));
            assert_eq!(tables.walk(at, Access::Load), Err(Fault::Page), "{bits:#x}");
        }
        tables.rules.memory_types = true;
        for (bits, ok) in [(1 << 61, true), (2 << 61, true), (3 << 61, false)] {
            tables.set(2, 1, leaf(7, LEAF | bits));
            assert_eq!(tables.walk(at, Access::Load).is_ok(), ok, "{bits:#x}");
        }
        for bits in [pte::A, pte::D, pte::U, 1 << 61, pte::N] {
            tables.set(1, 1, leaf((RAM >> 12) + 2, pte::V | bits));
            assert_eq!(tables.walk(at, Access::Load), Err(Fault::Page), "pointer with {bits:#x}");
        }
        tables.set(1, 1, leaf((RAM >> 12) + 2, pte::V));
        tables.set(2, 1, leaf((RAM >> 12) + 2, pte::V));
        assert_eq!(tables.walk(at, Access::Load), Err(Fault::Page), "a pointer at the last level");
        tables.set(1, 1, leaf(0, pte::V));
        assert_eq!(tables.walk(at, Access::Load), Err(Fault::Access), "tables outside memory");
    }

    #[test]
    fn permissions() {
        let mut tables = tables(8);
        let at = tables.at(1);
        let mut check = |bits: u64, user, sum, mxr, expected: [bool; 3]| {
            tables.set(2, 1, leaf(7, pte::V | pte::A | pte::D | bits));
            (tables.rules.user, tables.rules.sum, tables.rules.mxr) = (user, sum, mxr);
            let found = [Access::Load, Access::Store, Access::Fetch].map(|access| tables.walk(at, access).is_ok());
            assert_eq!(found, expected, "{bits:#x} user={user} sum={sum} mxr={mxr}");
        };
        use pte::{R, U, W, X};
        check(R | W | X, false, false, false, [true, true, true]);
        check(R | W | X, true, false, false, [false, false, false]);
        check(R | W | X | U, true, false, false, [true, true, true]);
        check(R | W | X | U, false, false, false, [false, false, false]);
        check(R | W | X | U, false, true, false, [true, true, false]);
        check(R, false, false, false, [true, false, false]);
        check(X, false, false, false, [false, false, true]);
        check(X, false, false, true, [true, false, true]);
        check(X | U, false, true, true, [true, false, false]);
    }

    #[test]
    fn accessed_and_dirty() {
        let mut tables = tables(8);
        let at = tables.at(1);
        let clean = LEAF & !pte::A & !pte::D;
        tables.set(2, 1, leaf(7, clean));
        assert_eq!(tables.walk(at, Access::Load), Err(Fault::Page));
        tables.set(2, 1, leaf(7, clean | pte::A));
        assert_eq!(tables.walk(at, Access::Store), Err(Fault::Page));
        assert!(!tables.walk(at, Access::Load).unwrap().permissions.write, "the first store walks again");

        tables.rules.hardware_ad_updates = true;
        tables.set(2, 1, leaf(7, clean));
        assert!(!tables.walk(at, Access::Load).unwrap().permissions.write);
        assert_eq!(tables.get(2, 1), leaf(7, clean | pte::A));
        assert!(tables.walk(at, Access::Store).unwrap().permissions.write);
        assert_eq!(tables.get(2, 1), leaf(7, LEAF));

        // Page tables that physical memory protection makes read-only.
        tables.set(2, 1, leaf(7, clean));
        tables.pmp.set_config(0, 0x19);
        assert_eq!(tables.walk(at, Access::Load), Err(Fault::Access));
        assert_eq!(tables.get(2, 1), leaf(7, clean));
        tables.pmp.set_config(0, 0);
        assert_eq!(tables.walk(at, Access::Load), Err(Fault::Access), "tables that may not be read");
    }
}
