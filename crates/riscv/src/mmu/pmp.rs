//! Physical memory protection: sixteen entries, granularity four bytes.
//!
//! The lowest-numbered entry that matches any byte of an access decides; it must match all of them. M-mode is bound by locked entries only;
//! the other modes need an entry that allows them.
//!
//! Checks walk the list of active entries, which is rebuilt when a register is written. They happen when a translation is made,
//! not at every access: see [`Pmp::page`].

use machine::address::PAGE_SIZE;

use super::{Access, Permissions};

/// How many entries there are.
pub const ENTRIES: usize = 16;

const READ: u8 = 1;
const WRITE: u8 = 2;
const EXECUTE: u8 = 4;
const MODE: u8 = 0x18;
const MODE_TOR: u8 = 0x08;
const MODE_NA4: u8 = 0x10;
const MODE_NAPOT: u8 = 0x18;
const LOCK: u8 = 0x80;

/// Bits of `pmpaddr` that hold an address: physical addresses have 56 bits, and these leave out two.
const ADDRESS_MASK: u64 = (1 << 54) - 1;

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u64,
    last: u64,
    config: u8,
}

impl Range {
    fn permissions(self, machine_mode: bool) -> Permissions {
        if machine_mode && self.config & LOCK == 0 {
            return Permissions::ALL;
        }
        Permissions {
            read: self.config & READ != 0,
            write: self.config & WRITE != 0,
            execute: self.config & EXECUTE != 0,
        }
    }
}

/// The registers `pmpcfg` and `pmpaddr`, and what they mean.
#[derive(Clone, Debug, Default)]
pub struct Pmp {
    config: [u8; ENTRIES],
    address: [u64; ENTRIES],
    active: Vec<Range>,
}

impl Pmp {
    /// The eight configuration bytes from entry `first` on: a `pmpcfg` register.
    #[must_use]
    pub fn config(&self, first: usize) -> u64 {
        self.config.iter().skip(first).take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// Writes the eight configuration bytes from entry `first` on. Locked entries keep theirs; write without read is reserved, and becomes neither.
    pub fn set_config(&mut self, first: usize, value: u64) {
        for (entry, byte) in self.config.iter_mut().skip(first).zip(value.to_le_bytes()) {
            if *entry & LOCK == 0 {
                let write = if byte & READ == 0 { 0 } else { WRITE };
                *entry = byte & (LOCK | MODE | EXECUTE | READ | write);
            }
        }
        self.rebuild();
    }

    /// A `pmpaddr` register.
    #[must_use]
    pub fn address(&self, entry: usize) -> u64 {
        self.address.get(entry).copied().unwrap_or(0)
    }

    /// Writes a `pmpaddr` register, unless the entry is locked or is the start of a locked top-of-range entry.
    pub fn set_address(&mut self, entry: usize, value: u64) {
        let locked_start = self.config.get(entry + 1).is_some_and(|next| next & (LOCK | MODE) == LOCK | MODE_TOR);
        if entry < ENTRIES && self.config[entry] & LOCK == 0 && !locked_start {
            self.address[entry] = value & ADDRESS_MASK;
            self.rebuild();
        }
    }

    fn rebuild(&mut self) {
        self.active.clear();
        for entry in 0..ENTRIES {
            let (config, address) = (self.config[entry], self.address[entry]);
            let (first, size) = match config & MODE {
                MODE_TOR => {
                    let first = if entry == 0 { 0 } else { self.address[entry - 1] << 2 };
                    (first, (address << 2).saturating_sub(first))
                }
                MODE_NA4 => (address << 2, 4),
                MODE_NAPOT => {
                    let ones = address.trailing_ones();
                    (address >> (ones + 1) << (ones + 3), 8 << ones)
                }
                _ => continue,
            };
            if size > 0 {
                self.active.push(Range { first, last: first + (size - 1), config });
            }
        }
    }

    /// Whether an access to `size` bytes at `at` is allowed.
    #[must_use]
    pub fn check(&self, at: u64, size: u64, access: Access, machine_mode: bool) -> bool {
        let last = at.saturating_add(size - 1);
        for range in &self.active {
            if range.first <= last && at <= range.last {
                return range.first <= at && last <= range.last && range.permissions(machine_mode).allow(access);
            }
        }
        machine_mode
    }

    /// What is allowed on the whole page of `at`; `None` if that differs inside the page.
    #[must_use]
    pub fn page(&self, at: u64, machine_mode: bool) -> Option<Permissions> {
        let first = at & !(PAGE_SIZE - 1);
        let last = first | (PAGE_SIZE - 1);
        for range in &self.active {
            if range.first <= last && first <= range.last {
                let whole = range.first <= first && last <= range.last;
                return whole.then(|| range.permissions(machine_mode));
            }
        }
        Some(if machine_mode { Permissions::ALL } else { Permissions::NONE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RWX: u64 = 7;

    #[test]
    fn without_entries_only_machine_mode_passes() {
        let pmp = Pmp::default();
        assert!(pmp.check(0x8000_0000, 8, Access::Store, true));
        assert!(!pmp.check(0x8000_0000, 8, Access::Load, false));
        assert_eq!(pmp.page(0, false), Some(Permissions::NONE));
    }

    #[test]
    fn everything_by_one_napot_entry() {
        let mut pmp = Pmp::default();
        pmp.set_address(0, u64::MAX);
        pmp.set_config(0, RWX | 0x18);
        assert_eq!(pmp.address(0), ADDRESS_MASK);
        assert!(pmp.check(0, 8, Access::Fetch, false));
        assert!(pmp.check((1 << 56) - 8, 8, Access::Store, false));
    }

    #[test]
    fn top_of_range_and_four_bytes() {
        let mut pmp = Pmp::default();
        pmp.set_address(0, 0x8000_1004 >> 2); // NA4, read only
        pmp.set_address(1, 0x8000_1000 >> 2);
        pmp.set_address(2, 0x8000_2000 >> 2); // TOR from entry 1
        pmp.set_config(0, 0x11 | (RWX | 0x08) << 16);
        assert!(pmp.check(0x8000_1004, 4, Access::Load, false));
        assert!(!pmp.check(0x8000_1004, 4, Access::Store, false));
        assert!(!pmp.check(0x8000_1000, 8, Access::Load, false), "the first entry matches half");
        assert!(!pmp.check(0x8000_1000, 8, Access::Load, true), "a partial match fails in every mode");
        assert!(pmp.check(0x8000_1008, 8, Access::Store, false));
        assert!(!pmp.check(0x8000_0ffc, 4, Access::Load, false));
        assert!(!pmp.check(0x8000_1ffc, 8, Access::Load, false), "leaves the range");
        assert_eq!(pmp.page(0x8000_1000, false), None);
        assert_eq!(pmp.page(0x8000_2000, false), Some(Permissions::NONE));
    }

    #[test]
    fn napot_sizes() {
        let mut pmp = Pmp::default();
        pmp.set_address(0, 0x8000_0000 >> 2 | 0x1ff); // 4 KiB
        pmp.set_config(0, 0x19);
        assert_eq!(pmp.page(0x8000_0fff, false), Some(Permissions { read: true, write: false, execute: false }));
        assert_eq!(pmp.page(0x8000_1000, false), Some(Permissions::NONE));
        assert_eq!(pmp.page(0x8000_0000, true), Some(Permissions::ALL));
    }

    #[test]
    fn locks_hold_and_bind_machine_mode() {
        let mut pmp = Pmp::default();
        pmp.set_address(0, 0x100);
        pmp.set_address(1, 0x200);
        pmp.set_config(0, 0x89 << 8); // entry 1: locked, TOR, read
        pmp.set_address(0, 0);
        pmp.set_address(1, 0);
        pmp.set_config(0, RWX << 8);
        assert_eq!((pmp.address(0), pmp.address(1), pmp.config(0)), (0x100, 0x200, 0x89 << 8));
        assert!(pmp.check(0x400, 4, Access::Load, true));
        assert!(!pmp.check(0x400, 4, Access::Store, true));
        pmp.set_config(0, 0x02);
        assert_eq!(pmp.config(0) & 0xff, 0, "write without read is reserved");
    }
}
