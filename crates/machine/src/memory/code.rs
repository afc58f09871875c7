//! Which pages code comes from, and which of those have been written since.
//!
//! Whoever keeps something made from a page's bytes (decoded or translated instructions) must know at the next `fence.i` whether the bytes are
//! still those. Comparing them costs time for every fence; so does stopping stores with the host's MMU. Here a store
//! finds out by itself, because the TLB has no entry for writes to such a page:
//!
//! ```text
//!              watch                       a hart's store, by the slow way; a device's write
//!   free  ------------->  watched  ----------------------------------------------->  free, and noted in `written`
//!     |                      ^
//!     | allow_writes         | watch: noted in `withdrawn`; complete once every hart has dropped its entries
//!     v                      |
//!   writable  ---------------+
//! ```
//!
//! **Makers** (the caches of decoded and translated code) call [`CodePages::watch`] *before* they read the bytes. At a fence they read what [`CodePages::written`] has
//! got since their last look, and drop what they made from those pages; nothing else need be looked at, and nothing at all if the count is the
//! same as before.
//!
//! **Writers** that go through [`GuestMemory`](super::GuestMemory) write first and look at the page's state afterwards. With the makers' order this is Dekker's
//! pattern: either the maker reads the new bytes, or the writer sees the page watched and notes it. Harts ask [`CodePages::allow_writes`] before they
//! let their TLB have an entry for writes.
//!
//! **Entries that exist already** when a page is watched are withdrawn, not waited for: the page is noted in `withdrawn`, every hart looks there between two slices
//! and at its fences, drops its entries, and says so by its [`Attendance`]. Until all have ([`CodePages::is_complete`]), a store may yet go unnoticed, so
//! that a maker treats the page as written at each fence. A hart that does not run need not answer: it looks before it executes anything.
//! Pages that no hart had an entry for (filled by a disk, say) are complete at once.
//!
//! Cost: one byte a page. A page that is written while watched is free afterwards, and costs nothing more until code is made from it again.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Code comes from the page, and no new entry for writes to it is given.
const WATCHED: u8 = 1;
/// Some hart may have an entry for writes to it.
const WRITABLE: u8 = 2;
/// Pages that a log remembers.
const LOG_PAGES: u64 = 4096;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Page numbers in the order in which something happened to them: the last few thousand.
#[derive(Debug, Default)]
pub struct PageLog {
    count: AtomicU64,
    last: Mutex<Vec<u32>>,
}

impl PageLog {
    /// How many pages were noted since the machine was made. A reader that has read so many has read all.
    #[must_use]
    #[inline(always)]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The pages (numbers from the start of RAM) noted after the first `seen` are added to `pages`, and `seen` becomes their count. False if some
    /// of them are forgotten: then all pages must be taken for noted.
    #[must_use]
    pub fn read(&self, seen: &mut u64, pages: &mut Vec<u32>) -> bool {
        let last = lock(&self.last);
        let count = self.count();
        let from = std::mem::replace(seen, count);
        if count.wrapping_sub(from) > LOG_PAGES {
            return false;
        }
        pages.extend((from..count).filter_map(|n| last.get(Self::place(n)).copied()));
        true
    }

    fn place(n: u64) -> usize {
        crate::address::host_size(n % LOG_PAGES)
    }

    fn note(&self, page: u32) {
        let mut last = lock(&self.last);
        let count = self.count();
        let place = Self::place(count);
        if place < last.len() {
            last[place] = page;
        } else {
            last.push(page);
        }
        self.count.store(count + 1, Ordering::SeqCst);
    }

    /// As if all pages had been noted.
    fn note_all(&self) {
        let mut last = lock(&self.last);
        last.resize(Self::place(LOG_PAGES - 1) + 1, 0);
        self.count.fetch_add(LOG_PAGES + 1, Ordering::SeqCst);
    }
}

/// How much of `withdrawn` a hart has done.
#[derive(Debug)]
pub struct Attendance(AtomicU64);

impl Attendance {
    /// It executes nothing.
    const AWAY: u64 = u64::MAX;

    /// The hart has dropped its entries for the first `count` pages withdrawn.
    pub fn done(&self, count: u64) {
        self.0.store(count, Ordering::SeqCst);
    }

    /// The hart stops executing. Before it goes on it calls [`Self::done`], with what it has done so far, and then looks.
    pub fn leave(&self) {
        self.done(Self::AWAY);
    }
}

/// The states of the pages of one machine's RAM.
#[derive(Debug)]
pub struct CodePages {
    states: Box<[AtomicU8]>,
    /// Pages that were written while watched.
    pub written: PageLog,
    /// Pages that were watched while a hart may have had an entry for writes.
    pub withdrawn: PageLog,
    harts: Mutex<Vec<Arc<Attendance>>>,
}

impl CodePages {
    pub(super) fn new(pages_count: usize) -> Self {
        Self {
            states: (0..pages_count).map(|_| AtomicU8::new(0)).collect(),
            written: PageLog::default(),
            withdrawn: PageLog::default(),
            harts: Mutex::default(),
        }
    }

    /// A hart says that it will have entries for writes: its attendance, away for now.
    #[must_use]
    pub fn attend(&self) -> Arc<Attendance> {
        let attendance = Arc::new(Attendance(AtomicU64::new(Attendance::AWAY)));
        let mut harts = lock(&self.harts);
        harts.retain(|hart| Arc::strong_count(hart) > 1);
        harts.push(Arc::clone(&attendance));
        attendance
    }

    /// Page `page` (a number from the start of RAM) is about to be read to make something of it. The answer is for [`Self::is_complete`]. If the count
    /// of `withdrawn` has changed, the caller's own hart drops its entries before it reads.
    pub fn watch(&self, page: u32) -> u64 {
        if let Some(state) = self.states.get(page as usize)
            && state.load(Ordering::SeqCst) & WATCHED == 0
            && state.swap(WATCHED, Ordering::SeqCst) & WRITABLE != 0
        {
            self.withdrawn.note(page);
        }
        fence(Ordering::SeqCst);
        self.withdrawn.count()
    }

    /// Whether every store to the pages watched when [`Self::watch`] gave `ticket` is noticed by now.
    #[must_use]
    pub fn is_complete(&self, ticket: u64) -> bool {
        lock(&self.harts).iter().all(|hart| hart.0.load(Ordering::SeqCst) >= ticket)
    }

    /// A hart translates an access to page `page`: whether its TLB may have an entry for writes. A `store` may always, and what was made of the page is
    /// out of date from then on.
    #[must_use]
    pub fn allow_writes(&self, page: u32, store: bool) -> bool {
        let Some(state) = self.states.get(page as usize) else { return false };
        if store {
            if state.swap(WRITABLE, Ordering::SeqCst) & WATCHED != 0 {
                self.written.note(page);
            }
            return true;
        }
        match state.load(Ordering::SeqCst) {
            WRITABLE => true,
            state if state & WATCHED != 0 => false,
            _ => {
                state.compare_exchange(0, WRITABLE, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|now| now)
                    & WATCHED
                    == 0
            }
        }
    }

    /// These pages have just been written other than by a TLB's entry.
    #[inline]
    pub(super) fn note_write(&self, pages: RangeInclusive<usize>) {
        fence(Ordering::SeqCst);
        for page in pages {
            if let Some(state) = self.states.get(page)
                && state.load(Ordering::SeqCst) & WATCHED != 0
            {
                self.note_watched(page);
            }
        }
    }

    #[cold]
    fn note_watched(&self, page: usize) {
        if self.states[page].fetch_and(!WATCHED, Ordering::SeqCst) & WATCHED != 0 {
            self.written.note(u32::try_from(page).unwrap_or(u32::MAX));
        }
    }

    /// All of memory has just been written.
    pub(super) fn note_all(&self) {
        for state in &self.states {
            state.fetch_and(!WATCHED, Ordering::SeqCst);
        }
        self.written.note_all();
    }
}

/// What a maker must drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// What came from these pages: numbers from the start of RAM.
    Pages(Vec<u32>),
    /// Everything.
    All,
}

/// The book that a maker keeps of the pages that it has made something of.
#[derive(Debug, Default)]
pub struct Maker {
    pages: HashSet<u32>,
    /// Those of them that a hart may still have had an entry for writes to when they were read.
    incomplete: Vec<u32>,
    seen: u64,
}

impl Maker {
    /// Page `page` is about to be read to make something of it. `withdraw` drops the entries of the caller's own hart, if any.
    pub fn watch(&mut self, code: &CodePages, page: u32, withdraw: impl FnOnce()) {
        // A page that is in the book is watched, or has been noted as written since and not yet been taken by `changed`.
        if self.pages.insert(page) {
            let ticket = code.watch(page);
            withdraw();
            if !code.is_complete(ticket) {
                self.incomplete.push(page);
            }
        }
    }

    /// Whether [`Self::changed`] would find nothing.
    #[must_use]
    #[inline(always)]
    pub fn is_current(&self, code: &CodePages) -> bool {
        code.written.count() == self.seen && self.incomplete.is_empty()
    }

    /// What has been written since the last call, and is to be dropped now; the pages leave the book.
    pub fn changed(&mut self, code: &CodePages) -> Changed {
        let mut pages = std::mem::take(&mut self.incomplete);
        if !code.written.read(&mut self.seen, &mut pages) {
            self.pages.clear();
            return Changed::All;
        }
        pages.retain(|page| self.pages.remove(page));
        Changed::Pages(pages)
    }

    /// Everything made has been dropped.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.incomplete.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestMemory;
    use crate::{GuestPhysical, PAGE_SIZE};

    const BASE: GuestPhysical = GuestPhysical(0x8000_0000);

    fn memory() -> GuestMemory {
        GuestMemory::new(BASE, 8 * PAGE_SIZE).unwrap()
    }

    fn written(memory: &GuestMemory, seen: &mut u64) -> Vec<u32> {
        let mut pages = Vec::new();
        assert!(memory.code().written.read(seen, &mut pages));
        pages
    }

    #[test]
    fn every_way_to_write_a_watched_page_is_noted_once() {
        let memory = memory();
        let mut seen = 0;
        let ways: [(&str, &dyn Fn()); 5] = [
            ("write", &|| memory.write(BASE.wrapping_add(PAGE_SIZE - 1), &[1, 2]).unwrap()),
            ("fill", &|| memory.fill(BASE.wrapping_add(PAGE_SIZE), 9, 1).unwrap()),
            ("store", &|| memory.store(BASE.wrapping_add(PAGE_SIZE), 7_u16).unwrap()),
            ("compare", &|| assert_eq!(memory.compare_exchange(BASE.wrapping_add(PAGE_SIZE + 64), 0, 0), Ok(true))),
            ("a hart's store", &|| assert!(memory.code().allow_writes(1, true))),
        ];
        for (name, way) in ways {
            memory.code().watch(1);
            way();
            way();
            assert_eq!(written(&memory, &mut seen), [1], "{name}");
        }
        memory.write(BASE, &[1]).unwrap();
        assert_eq!(memory.code().written.count(), seen, "nobody watches the first page");
        memory.clear().unwrap();
        assert!(!memory.code().written.read(&mut seen, &mut Vec::new()), "all of it");
        assert_eq!(written(&memory, &mut seen), []);
    }

    #[test]
    fn a_watched_page_is_writable_again_only_by_a_store() {
        let memory = memory();
        let code = memory.code();
        code.watch(1);
        assert!(!code.allow_writes(1, false));
        assert!(code.allow_writes(2, false));
        assert_eq!(code.written.count(), 0);
        assert!(code.allow_writes(1, true));
        assert!(code.allow_writes(1, false));
        assert_eq!(code.written.count(), 1);
        assert!(!code.allow_writes(8, true), "no such page");
        assert_eq!(code.watch(8), 0);
    }

    #[test]
    fn entries_that_exist_are_withdrawn_from_harts_that_run() {
        let memory = memory();
        let code = memory.code();
        let (one, two) = (code.attend(), code.attend());
        one.done(0);
        two.done(0);
        let untouched = code.watch(3);
        assert!(code.is_complete(untouched), "nobody had an entry");
        assert!(code.allow_writes(1, false));
        let ticket = code.watch(1);
        assert_eq!(ticket, 1);
        assert!(!code.is_complete(ticket));
        one.done(1);
        assert!(!code.is_complete(ticket));
        two.leave();
        assert!(code.is_complete(ticket), "the other does not run");
        two.done(0);
        drop(two);
        let three = code.attend();
        assert!(code.is_complete(ticket), "the other is no more");
        three.done(1);
        let (mut seen, mut pages) = (0, Vec::new());
        assert!(code.withdrawn.read(&mut seen, &mut pages));
        assert_eq!(pages, [1]);
    }

    #[test]
    fn a_maker_drops_what_was_written_and_what_may_have_been() {
        let memory = memory();
        let code = memory.code();
        let mut maker = Maker::default();
        for page in 0..3 {
            maker.watch(code, page, || ());
        }
        assert!(maker.is_current(code));
        memory.write(BASE.wrapping_add(PAGE_SIZE), &[1]).unwrap();
        maker.watch(code, 1, || panic!("it is in the book until it is dropped"));
        assert!(!maker.is_current(code));
        assert_eq!(maker.changed(code), Changed::Pages(vec![1]));
        memory.write(BASE.wrapping_add(PAGE_SIZE), &[1]).unwrap();
        assert!(maker.is_current(code), "nothing is made of it any more");

        let hart = code.attend();
        hart.done(0);
        assert!(code.allow_writes(4, false));
        maker.watch(code, 4, || ());
        assert!(!maker.is_current(code));
        hart.done(1);
        assert_eq!(maker.changed(code), Changed::Pages(vec![4]), "it may have been written before the hart answered");
        maker.watch(code, 4, || ());
        assert!(maker.is_current(code));
        memory.clear().unwrap();
        assert_eq!(maker.changed(code), Changed::All);
    }

    #[test]
    fn a_log_says_when_it_has_forgotten() {
        let log = PageLog::default();
        let (mut early, mut pages) = (0, Vec::new());
        for page in 0..5000 {
            log.note(page);
        }
        let mut late = 4990;
        assert!(log.read(&mut late, &mut pages));
        assert_eq!(pages, (4990..5000).collect::<Vec<_>>());
        assert!(!log.read(&mut early, &mut pages));
        assert_eq!((early, late), (5000, 5000));
    }
}
