//! The software TLB: what makes a load three instructions and not a page walk.
//!
//! ```text
//! address:   page number                | byte in page
//! tag:       page number | 0.. context .. | alignment bits
//! index:     page number ^ context
//! ```
//!
//! **Hit.** The tag that an access must find is its address with the byte-in-page bits replaced by the current *context*, but for the alignment bits, which
//! stay: a misaligned access never hits and goes the slow way. What is found is a word to add to the virtual address to get the host's.
//!
//! **Contexts** number the ways in which an address can be meant: per `satp` and per class of access (U-mode; S-mode with or without SUM, MXR;
//! untranslated). A switch of privilege or of address space selects another context and flushes nothing. To flush a whole address space is to
//! forget its contexts: the next use gets new numbers. When numbers run out, everything is cleared, once every few hundred flushes.
//!
//! Superpages are entered as pages of 4 KiB; an address space remembers the range they lie in, so that a fence of one address in it
//! forgets the whole space.
//!
//! Invariant: an entry with a tag that can match holds an addend which leads into a frame that lives as long as the guest's memory, and which
//! the context may access in the entry's way.

use super::Permissions;
use super::walk::Satp;
use machine::address::{PAGE_SHIFT, host_size};

const ENTRIES: usize = 2048;
const FETCH_ENTRIES: usize = 512;
const FETCHED_WORDS: usize = 256;
/// Matches no access: the context bits hold the number that is never given out.
const NEVER: u64 = u64::MAX;
const CONTEXT_SHIFT: u32 = 3;
const CONTEXTS: u16 = 510;
const PAGE_MASK: u64 = !0xfff;

/// A way in which an address can be meant; part of [`Context`]'s key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

impl Class {
    /// How many classes there are.
    const COUNT: usize = 11;
    /// Accesses of M-mode.
    pub const MACHINE: Self = Self(8);
    const FETCH: [Self; 2] = [Self(9), Self(10)];

    /// Data accesses of S-mode or U-mode.
    #[must_use]
    pub fn data(user: bool, sum: bool, mxr: bool) -> Self {
        Self(u8::from(user) | u8::from(sum && !user) << 1 | u8::from(mxr) << 2)
    }

    /// Fetches of S-mode or U-mode.
    #[must_use]
    pub fn fetch(user: bool) -> Self {
        Self::FETCH[usize::from(user)]
    }
}

/// A number for a pair of address space and class, in the position where tags hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context(u64);

impl Context {
    /// The context of no access.
    pub const NONE: Self = Self(NEVER);
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Entry {
    read: u64,
    write: u64,
    /// Host address minus virtual address, of the same page.
    addend: usize,
    /// Makes an entry's size a power of two.
    unused: u64,
}

const EMPTY: Entry = Entry { read: NEVER, write: NEVER, addend: 0, unused: 0 };

#[derive(Clone, Copy, Debug)]
struct FetchEntry {
    tag: u64,
    physical: u64,
}

const EMPTY_FETCH: FetchEntry = FetchEntry { tag: NEVER, physical: 0 };

/// An address space: one value of `satp`.
#[derive(Clone, Debug)]
struct Space {
    satp: Satp,
    /// By class; zero for none yet.
    contexts: [u16; Class::COUNT],
    /// First and last address of the superpages entered.
    large: Option<(u64, u64)>,
    /// The pages that instructions were fetched from, by a hash of their number. Large enough that a fence of a data page seldom
    /// looks like one of code.
    fetched: Box<[u64; FETCHED_WORDS]>,
}

impl Space {
    fn new(satp: Satp) -> Self {
        Self { satp, contexts: [0; Class::COUNT], large: None, fetched: Box::new([0; FETCHED_WORDS]) }
    }

    fn fetched_bit(page: u64) -> (usize, u64) {
        let hash = page ^ page >> 14;
        (host_size(hash >> 6) & (FETCHED_WORDS - 1), 1 << (hash & 63))
    }
}

/// The translations of one hart.
pub struct Tlb {
    /// What data accesses now mean.
    context: u64,
    entries: Box<[Entry; ENTRIES]>,
    /// What fetches now mean.
    fetch_context: u64,
    fetches: Box<[FetchEntry; FETCH_ENTRIES]>,
    spaces: Vec<Space>,
    /// Index into `spaces` of the one in use.
    current: usize,
    next_context: u16,
    /// Counts the times that context numbers began again.
    round: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        Self::new()
    }
}

impl Tlb {
    /// An empty TLB; [`Self::select`] comes before the first use.
    #[must_use]
    pub fn new() -> Self {
        let mut tlb = Self {
            context: 0,
            entries: Box::new([EMPTY; ENTRIES]),
            fetch_context: 0,
            fetches: Box::new([EMPTY_FETCH; FETCH_ENTRIES]),
            spaces: vec![Space::new(Satp(0))],
            current: 0,
            next_context: 1,
            round: 0,
        };
        tlb.select(Satp(0), Class::MACHINE, Class::MACHINE);
        tlb
    }

    /// From now on accesses are meant so. Must follow every call of a `flush` method.
    pub fn select(&mut self, satp: Satp, data: Class, fetch: Class) {
        if self.spaces.get(self.current).is_none_or(|space| space.satp != satp) {
            self.current = self.spaces.iter().position(|space| space.satp == satp).unwrap_or_else(|| {
                if self.spaces.len() >= usize::from(CONTEXTS) {
                    self.clear();
                }
                self.spaces.push(Space::new(satp));
                self.spaces.len() - 1
            });
        }
        // Should the numbers run out at the second, the first is no longer valid, and both are taken anew.
        loop {
            let round = self.round;
            let contexts = (self.number(data), self.number(fetch));
            if round == self.round {
                (self.context, self.fetch_context) = contexts;
                return;
            }
        }
    }

    fn number(&mut self, class: Class) -> u64 {
        let class = usize::from(class.0);
        if self.spaces[self.current].contexts[class] == 0 {
            if self.next_context > CONTEXTS {
                let satp = self.spaces[self.current].satp;
                self.clear();
                self.spaces.push(Space::new(satp));
                self.current = 0;
            }
            self.spaces[self.current].contexts[class] = self.next_context;
            self.next_context += 1;
        }
        u64::from(self.spaces[self.current].contexts[class]) << CONTEXT_SHIFT
    }

    fn clear(&mut self) {
        self.entries.fill(EMPTY);
        self.fetches.fill(EMPTY_FETCH);
        self.spaces.clear();
        self.current = 0;
        self.next_context = 1;
        self.round += 1;
    }

    /// What fetches now mean. Another cache may use it as part of its key, as long as [`Self::round`] stays the same.
    #[must_use]
    #[inline(always)]
    pub fn fetch_context(&self) -> Context {
        Context(self.fetch_context)
    }

    /// Changes when numbers of contexts are given out anew.
    #[must_use]
    #[inline(always)]
    pub fn round(&self) -> u64 {
        self.round
    }

    #[inline(always)]
    fn index(at: u64, context: u64, entries: usize) -> usize {
        host_size(at >> PAGE_SHIFT ^ context) & (entries - 1)
    }

    /// The host address for a load of `size` bytes (a power of two, at most eight) at `at`.
    #[must_use]
    #[inline(always)]
    pub fn read(&self, at: u64, size: u64) -> Option<*mut u8> {
        let entry = &self.entries[Self::index(at, self.context, ENTRIES)];
        let tag = at & (PAGE_MASK | (size - 1)) | self.context;
        (entry.read == tag).then(|| host_size(at).wrapping_add(entry.addend) as *mut u8)
    }

    /// The host address for a store or an atomic operation of `size` bytes (a power of two, at most eight) at `at`.
    #[must_use]
    #[inline(always)]
    pub fn write(&self, at: u64, size: u64) -> Option<*mut u8> {
        let entry = &self.entries[Self::index(at, self.context, ENTRIES)];
        let tag = at & (PAGE_MASK | (size - 1)) | self.context;
        (entry.write == tag).then(|| host_size(at).wrapping_add(entry.addend) as *mut u8)
    }

    /// The physical page that instructions at `at` are fetched from.
    #[must_use]
    pub fn fetch(&self, at: u64) -> Option<u64> {
        let entry = &self.fetches[Self::index(at, self.fetch_context, FETCH_ENTRIES)];
        (entry.tag == at & PAGE_MASK | self.fetch_context).then_some(entry.physical)
    }

    /// Enters the page of `at` for data accesses: `host` is its frame, `size_shift` the size of the page that it is part of.
    pub fn enter(&mut self, at: u64, host: *mut u8, permissions: Permissions, size_shift: u32) {
        let page = at & PAGE_MASK;
        let tag = page | self.context;
        self.note_large(page, size_shift);
        self.entries[Self::index(at, self.context, ENTRIES)] = Entry {
            read: if permissions.read { tag } else { NEVER },
            write: if permissions.write { tag } else { NEVER },
            addend: (host as usize).wrapping_sub(host_size(page)),
            unused: 0,
        };
    }

    /// Enters the page of `at` for fetches: `physical` is its physical address, `size_shift` the size of the page that it is part of.
    pub fn enter_fetch(&mut self, at: u64, physical: u64, size_shift: u32) {
        let page = at & PAGE_MASK;
        self.note_large(page, size_shift);
        let (word, bit) = Space::fetched_bit(page >> PAGE_SHIFT);
        self.spaces[self.current].fetched[word] |= bit;
        self.fetches[Self::index(at, self.fetch_context, FETCH_ENTRIES)] =
            FetchEntry { tag: page | self.fetch_context, physical };
    }

    fn note_large(&mut self, page: u64, size_shift: u32) {
        if size_shift > PAGE_SHIFT {
            let first = page >> size_shift << size_shift;
            let last = first | ((1 << size_shift) - 1);
            let large = &mut self.spaces[self.current].large;
            let (low, high) = large.unwrap_or((first, last));
            *large = Some((low.min(first), high.max(last)));
        }
    }

    /// Forgets everything.
    pub fn flush_all(&mut self) {
        self.spaces.clear();
    }

    /// Forgets an address space.
    pub fn flush_space(&mut self, asid: u16) {
        self.spaces.retain(|space| space.satp.asid() != asid);
        self.current = usize::MAX;
    }

    /// Forgets one page, of one address space or of all.
    pub fn flush_page(&mut self, at: u64, asid: Option<u16>) {
        let page = at & PAGE_MASK;
        for space in &mut self.spaces {
            if asid.is_some_and(|asid| space.satp.asid() != asid) {
                continue;
            }
            let (word, bit) = Space::fetched_bit(page >> PAGE_SHIFT);
            if space.large.is_some_and(|(low, high)| low <= page && page <= high) {
                *space = Space::new(space.satp);
                continue;
            }
            if space.fetched[word] & bit != 0 {
                for class in [Class::MACHINE, Class::FETCH[0], Class::FETCH[1]] {
                    space.contexts[usize::from(class.0)] = 0;
                }
                space.fetched.fill(0);
            }
            for context in space.contexts.iter().filter(|context| **context != 0) {
                let context = u64::from(*context) << CONTEXT_SHIFT;
                let entry = &mut self.entries[Self::index(page, context, ENTRIES)];
                if entry.read == page | context || entry.write == page | context {
                    *entry = EMPTY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Satp = Satp(8 << 60 | 5 << 44 | 0x80000);
    const OTHER: Satp = Satp(8 << 60 | 6 << 44 | 0x80001);
    const USER: Class = Class(1);
    const SUPERVISOR: Class = Class(0);
    const FETCH: Class = Class::FETCH[1];

    fn tlb() -> Tlb {
        let mut tlb = Tlb::new();
        tlb.select(SPACE, USER, USER);
        tlb
    }

    const READ: Permissions = Permissions { read: true, write: false, execute: false };

    fn frame(n: usize) -> *mut u8 {
        (n << 12) as *mut u8
    }

    #[test]
    fn hits_know_alignment_and_permission() {
        let mut tlb = tlb();
        assert_eq!(tlb.read(0x1000, 1), None);
        tlb.enter(0x1234, frame(0x7f), READ, 12);
        assert_eq!(tlb.read(0x1238, 8), Some((0x7f238) as *mut u8));
        assert_eq!(tlb.read(0x123c, 8), None, "misaligned");
        assert_eq!(tlb.read(0x123c, 4), Some((0x7f23c) as *mut u8));
        assert_eq!(tlb.write(0x1238, 8), None);
        assert_eq!(tlb.read(0x2238, 8), None);
        tlb.enter(u64::MAX, frame(0x7f), Permissions::ALL, 12);
        assert_eq!(tlb.write(u64::MAX - 7, 8), Some(0x7fff8 as *mut u8));
    }

    #[test]
    fn contexts_are_apart_and_come_back() {
        let mut tlb = tlb();
        tlb.enter(0x1000, frame(1), READ, 12);
        for (satp, class) in [(SPACE, SUPERVISOR), (OTHER, USER), (Satp(0), Class::MACHINE)] {
            tlb.select(satp, class, class);
            assert_eq!(tlb.read(0x1000, 8), None);
        }
        tlb.select(SPACE, USER, USER);
        assert_eq!(tlb.read(0x1000, 8), Some(frame(1)));
    }

    #[test]
    fn flushes_reach_what_they_name() {
        let fill = || {
            let mut tlb = tlb();
            for satp in [OTHER, SPACE] {
                tlb.select(satp, USER, USER);
                tlb.enter(0x1000, frame(1), READ, 12);
                tlb.enter(0x2000, frame(2), READ, 12);
            }
            tlb
        };
        let state = |mut tlb: Tlb| {
            let mut found = Vec::new();
            for satp in [SPACE, OTHER] {
                tlb.select(satp, USER, USER);
                found.extend([tlb.read(0x1000, 8).is_some(), tlb.read(0x2000, 8).is_some()]);
            }
            found
        };
        assert_eq!(state(fill()), [true; 4]);
        let mut tlb = fill();
        tlb.flush_all();
        assert_eq!(state(tlb), [false; 4]);
        let mut tlb = fill();
        tlb.flush_space(6);
        assert_eq!(state(tlb), [true, true, false, false]);
        let mut tlb = fill();
        tlb.flush_page(0x1fff, None);
        assert_eq!(state(tlb), [false, true, false, true]);
        let mut tlb = fill();
        tlb.flush_page(0x2000, Some(5));
        assert_eq!(state(tlb), [true, false, true, true]);
    }

    #[test]
    fn a_fence_inside_a_superpage_reaches_all_of_it() {
        let mut tlb = tlb();
        tlb.enter(0x20_1000, frame(1), READ, 21);
        tlb.flush_page(0x20_5000, None);
        tlb.select(SPACE, USER, USER);
        assert_eq!(tlb.read(0x20_1000, 8), None);
    }

    #[test]
    fn a_fence_of_a_fetched_page_changes_the_fetch_context() {
        let mut tlb = tlb();
        tlb.select(SPACE, USER, FETCH);
        tlb.enter(0x3000, frame(3), READ, 12);
        tlb.enter_fetch(0x1000, 0x8000_0000, 12);
        let before = tlb.fetch_context();
        assert_eq!(tlb.fetch(0x1ffe), Some(0x8000_0000));
        tlb.flush_page(0x9_9000, None);
        tlb.select(SPACE, USER, FETCH);
        assert_eq!(tlb.fetch_context(), before);
        tlb.flush_page(0x1000, None);
        tlb.select(SPACE, USER, FETCH);
        assert_ne!(tlb.fetch_context(), before);
        assert_eq!(tlb.fetch(0x1ffe), None);
        assert_eq!(tlb.read(0x3000, 8), Some(frame(3)), "data is another context's");
    }

    #[test]
    fn numbers_begin_again() {
        let mut tlb = tlb();
        for n in 0..3000_u64 {
            tlb.enter(0x1000, frame(1), READ, 12);
            if n % 3 == 0 {
                tlb.flush_all();
            }
            tlb.select(Satp(8 << 60 | (n % 700) << 44), USER, SUPERVISOR);
            assert!(tlb.read(0x1000, 8).is_none() || n >= 700, "{n}");
        }
        assert!(tlb.round() > 2);
    }
}
