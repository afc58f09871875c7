//! Changed code as a hart sees it: which pages it has decoded, and the TLB entries that it must not have.
//!
//! See [`machine::memory::code`] for the protocol. A hart takes part in it twice: its block cache is a maker, and its TLB holds entries for writes.

use std::ops::RangeInclusive;
use std::sync::Arc;

use machine::GuestPhysical;
use machine::address::PAGE_SHIFT;
use machine::memory::GuestMemory;
use machine::memory::code::{Attendance, Changed};

use super::Hart;
use super::user::Code;
use crate::mmu::tlb::Tlb;

/// The pages of a program that says not where its code has changed.
pub(crate) const ALL_PAGES: RangeInclusive<u64> = 0..=u64::MAX >> PAGE_SHIFT;

/// What the hart has dropped of its TLB's entries for writes.
pub(crate) struct Withdrawals {
    attendance: Arc<Attendance>,
    seen: u64,
}

impl Withdrawals {
    pub(crate) fn new(memory: &GuestMemory) -> Self {
        Self { attendance: memory.code().attend(), seen: memory.code().withdrawn.count() }
    }

    /// The hart begins to execute: to be followed by [`Self::look`].
    pub(crate) fn enter(&self) {
        self.attendance.done(self.seen);
    }

    /// The hart stops executing.
    pub(crate) fn leave(&self) {
        self.attendance.leave();
    }

    /// Drops the entries for writes to pages that code comes from by now.
    #[inline(always)]
    pub(crate) fn look(&mut self, memory: &GuestMemory, tlb: &mut Tlb) {
        if memory.code().withdrawn.count() != self.seen {
            self.withdraw(memory, tlb);
        }
    }

    #[cold]
    fn withdraw(&mut self, memory: &GuestMemory, tlb: &mut Tlb) {
        let mut pages = Vec::new();
        if memory.code().withdrawn.read(&mut self.seen, &mut pages) {
            for frame in pages.into_iter().filter_map(|page| memory.frame(memory.page_address(page))) {
                tlb.withdraw(frame.as_ptr());
            }
        } else {
            tlb.withdraw_all();
        }
        self.attendance.done(self.seen);
    }
}

impl Hart {
    /// The page of `physical` is about to be read to decode instructions and keep them.
    pub(crate) fn watch_code(&mut self, physical: u64) {
        // A program says itself when code has changed.
        if self.program.is_some() {
            return;
        }
        let Self { memory, blocks, withdrawals, tlb, .. } = self;
        let page = memory.page_number(GuestPhysical(physical));
        blocks.maker.watch(memory.code(), page, || withdrawals.look(memory, tlb));
    }

    /// Drops what was decoded and translated from the pages of a range of a program's memory, where it is no longer what is there.
    pub(crate) fn drop_different_code(&mut self, start: u64, length: u64) {
        let Some(program) = &self.program else { return };
        // An instruction may begin in the page before.
        let first = start.saturating_sub(2) >> PAGE_SHIFT;
        let pages = first..=start.saturating_add(length.saturating_sub(1)) >> PAGE_SHIFT;
        self.blocks.drop_different(&**program, &pages);
        if let Some(cache) = &self.translator.cache {
            cache.drop_different(&Code::new(&**program), &pages);
        }
    }

    /// `fence.i`: drops what was decoded from pages that have been written since.
    pub(crate) fn drop_changed_code(&mut self) {
        if let Some(program) = &self.program {
            self.blocks.drop_different(&**program, &ALL_PAGES);
            return;
        }
        let Self { memory, blocks, withdrawals, tlb, .. } = self;
        withdrawals.look(memory, tlb);
        if blocks.maker.is_current(memory.code()) {
            return;
        }
        match blocks.maker.changed(memory.code()) {
            Changed::Pages(pages) => {
                for page in pages {
                    blocks.drop_page(memory.page_address(page).0);
                }
            }
            Changed::All => blocks.drop_all(),
        }
    }
}
