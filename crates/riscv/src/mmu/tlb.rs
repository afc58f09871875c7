//! The software TLB: what makes a load a handful of instructions and not a page walk.
//!
//! ```text
//! address space (satp) x class of access --> table        select: a pointer, a mask and a number change
//!                                              |
//!   table: [read: tag, addend               <--+           index: low bits of the page number
//!           write: tag, addend] x 512 to 16,384            tag:   the page's address
//! ```
//!
//! **Hit.** The entry is found by the page of the access's *first* byte, and its tag must be the page of the *last* byte. So an access hits if all
//! of it lies in one page, aligned or not, and one look covers a group of accesses near each other. What is found is a word to add to
//! the virtual address to get the host's. Translated code does this by itself: [`Slot`] and [`Entry`] are its layout, and
//! [`Tlb::SLOTS_OFFSET`] and [`Tlb::MASK_OFFSET`] say where it finds the current table. The interpreter's [`Tlb::read`] and [`Tlb::write`] hit
//! only if the access is aligned.
//!
//! **Contexts.** A table belongs to one way in which an address can be meant: an address space, and a class of access (U-mode; S-mode with or
//! without SUM, MXR; untranslated). A switch of privilege or of address space selects another table and flushes nothing. Tables are made when first
//! needed, and a bounded number of spaces keeps theirs; the one unused for longest gives its own to a new one.
//!
//! S-mode without SUM cannot access pages of U-mode, so what it sees is the kernel, and that is the same in all address spaces if its pages
//! are global. All spaces share those tables, and the number of S-mode's fetches: a switch of processes finds the kernel's entries where it left
//! them. Should a page that is not global have been entered there, a switch of spaces clears them.
//!
//! **Sizes.** A table begins small, so that clearing it is cheap. It grows while more pages are entered than it has slots: a guest that walks through
//! much memory shall not walk its page tables each time. When it is cleared before it was of use, it shrinks again.
//!
//! **Flushes** of a page or of a space are done at once where the space is current, shared, or named; for the others they are written into a short
//! list that a space works off when it is selected next. Superpages are entered as pages of 4 KiB; a space remembers the range they lie in, and a fence
//! inside of it clears the whole space.
//!
//! **Withdrawal.** Pages that code comes from must have no entry for writes ([`machine::memory::code`]): [`Tlb::withdraw`] finds entries by the
//! host's address.
//!
//! Fetches have their own small table, whose entries hold the context's number. Numbers are never given out twice, so other caches may use
//! [`Tlb::fetch_context`] as part of their keys without ever being told of a flush.
//!
//! Invariants: `table` points to a table of `spaces`, and `slots` and `mask` to its slots. An entry with a tag that can match holds an addend which leads into a frame that lives as long as
//! the guest's memory, and which the table's context may access in the entry's way.
//!
//! Cost: 16 KiB a table, some 0.3 µs to clear one that was used, and up to 32 times that of one that has grown; `select` some ten instructions.

use std::mem::offset_of;
use std::ptr::NonNull;

use super::Permissions;
use super::walk::Satp;
use machine::address::{PAGE_SHIFT, host_size};

/// Slots of a table, at least and at most. The most is what 32 MiB of a guest's memory need when they are used at random.
const SLOTS_MIN: usize = 512;
const SLOTS_MAX: usize = 16384;
/// By what a table grows.
const GROWTH: usize = 4;
const FETCH_ENTRIES: usize = 512;
const FETCHED_WORDS: usize = 128;
/// Spaces that keep tables, besides the two that are always there.
const SPACES_MAX: usize = 16;
/// Flushes of pages, and withdrawals, that a space can catch up with.
const MISSED_MAX: usize = 16;
/// Matches no access: tags are multiples of the page size.
const NEVER: u64 = u64::MAX;
const PAGE_MASK: u64 = !0xfff;

/// A way in which an address can be meant, within one address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

impl Class {
    const DATA_COUNT: usize = 8;
    const USER: u8 = 1;
    const SUM: u8 = 2;
    /// Accesses of M-mode.
    pub const MACHINE: Self = Self(8);

    /// Data accesses of S-mode or U-mode.
    #[must_use]
    pub fn data(user: bool, sum: bool, mxr: bool) -> Self {
        Self(u8::from(user) | u8::from(sum && !user) << 1 | u8::from(mxr) << 2)
    }

    /// Fetches of S-mode or U-mode.
    #[must_use]
    pub fn fetch(user: bool) -> Self {
        Self(u8::from(user))
    }
}

/// A number for a pair of address space and mode of fetches; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Context(u64);

impl Context {
    /// The context of no access.
    pub const NONE: Self = Self(u64::MAX);

    /// The number.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// One page, for reads or for writes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Entry {
    /// The page's virtual address.
    pub tag: u64,
    /// Host address minus virtual address.
    pub addend: usize,
}

const EMPTY: Entry = Entry { tag: NEVER, addend: 0 };

/// What is known of one page.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Slot {
    /// For loads.
    pub read: Entry,
    /// For stores and atomic operations.
    pub write: Entry,
}

const FREE: Slot = Slot { read: EMPTY, write: EMPTY };

/// The entries of one context.
struct Table {
    /// A power of two of them.
    slots: Box<[Slot]>,
    /// Pages entered since it was made, cleared or resized.
    entered_count: usize,
    /// How many slots it is to have when it is selected next; fewer than now only if it was cleared.
    slots_wanted: usize,
}

impl Table {
    fn new() -> Box<Self> {
        Box::new(Self { slots: vec![FREE; SLOTS_MIN].into(), entered_count: 0, slots_wanted: SLOTS_MIN })
    }

    fn clear(&mut self) {
        if self.entered_count > 0 {
            self.slots.fill(FREE);
            if self.entered_count < self.slots.len() / GROWTH {
                self.slots_wanted = (self.slots.len() / GROWTH).max(SLOTS_MIN);
            }
            self.entered_count = 0;
        }
    }

    /// Gives it as many slots as it wants to have. What was in those that go is forgotten.
    fn resize(&mut self) {
        let old = std::mem::replace(&mut self.slots, vec![FREE; self.slots_wanted].into());
        self.entered_count = 0;
        for slot in old {
            for (tag, is_read) in [(slot.read.tag, true), (slot.write.tag, false)] {
                if tag != NEVER {
                    self.entered_count += 1;
                    let at = self.index(tag);
                    let new = &mut self.slots[at];
                    if is_read { new.read = slot.read } else { new.write = slot.write }
                }
            }
        }
    }

    #[inline(always)]
    fn index(&self, at: u64) -> usize {
        host_size(at >> PAGE_SHIFT) & (self.slots.len() - 1)
    }

    fn slot(&mut self, page: u64) -> &mut Slot {
        let index = self.index(page);
        &mut self.slots[index]
    }

    /// Enters a page. True if the table should grow.
    fn enter(&mut self, entry: Entry, permissions: Permissions) -> bool {
        let slot = self.slot(entry.tag);
        if permissions.read {
            slot.read = entry;
        }
        if permissions.write {
            slot.write = entry;
        }
        self.entered_count += 1;
        let grows = self.entered_count > self.slots.len() * 2 && self.slots.len() < SLOTS_MAX;
        if grows {
            self.slots_wanted = (self.slots.len() * GROWTH).min(SLOTS_MAX);
        }
        grows
    }

    fn flush_page(&mut self, page: u64) {
        let slot = self.slot(page);
        for entry in [&mut slot.read, &mut slot.write] {
            if entry.tag == page {
                *entry = EMPTY;
            }
        }
    }

    fn withdraw(&mut self, frame: usize) {
        if self.entered_count > 0 {
            for Slot { write, .. } in &mut self.slots {
                if host_size(write.tag).wrapping_add(write.addend) == frame {
                    *write = EMPTY;
                }
            }
        }
    }

    fn withdraw_all(&mut self) {
        if self.entered_count > 0 {
            self.slots.iter_mut().for_each(|slot| slot.write = EMPTY);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct FetchEntry {
    tag: u64,
    context: Context,
    page: FetchPage,
}

const EMPTY_FETCH: FetchEntry =
    FetchEntry { tag: NEVER, context: Context::NONE, page: FetchPage { physical: 0, host: NonNull::dangling() } };

/// A page that instructions are fetched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPage {
    /// Its physical address.
    pub physical: u64,
    /// Its frame.
    pub host: NonNull<u8>,
}

/// The last things that spaces which are not selected have not seen done.
#[derive(Clone, Copy, Debug)]
struct Missed<T> {
    last: [T; MISSED_MAX],
    count: u64,
}

impl<T: Copy + Default> Missed<T> {
    fn new() -> Self {
        Self { last: [T::default(); MISSED_MAX], count: 0 }
    }

    fn push(&mut self, value: T) {
        self.last[host_size(self.count) % MISSED_MAX] = value;
        self.count += 1;
    }

    /// What came after the first `seen`; `None` if that is no longer known.
    fn since(&self, seen: u64) -> Option<impl Iterator<Item = T> + '_> {
        let known = self.count - seen <= MISSED_MAX as u64;
        known.then(|| (seen..self.count).map(|n| self.last[host_size(n) % MISSED_MAX]))
    }
}

/// The tables of one value of `satp`; or of M-mode, or of all kernels.
struct Space {
    satp: Satp,
    tables: [Option<Box<Table>>; Class::DATA_COUNT],
    /// By mode of fetches; `NONE` for none yet.
    fetches: [Context; 2],
    /// First and last address of the superpages entered.
    large: Option<(u64, u64)>,
    /// The pages that instructions were fetched from, by a hash of their number. Large enough that a fence of a data page seldom
    /// looks like one of code.
    fetched: [u64; FETCHED_WORDS],
    any_fetched: bool,
    /// How much of the lists of what was missed has been worked off; what matters is only its value while another space is selected.
    flushes_seen: u64,
    withdrawals_seen: u64,
    /// When it was last selected, on a clock of selections.
    selected_at: u64,
}

impl Space {
    fn new(satp: Satp) -> Self {
        Self {
            satp,
            tables: [const { None }; Class::DATA_COUNT],
            fetches: [Context::NONE; 2],
            large: None,
            fetched: [0; FETCHED_WORDS],
            any_fetched: false,
            flushes_seen: 0,
            withdrawals_seen: 0,
            selected_at: 0,
        }
    }

    fn fetched_bit(page: u64) -> (usize, u64) {
        let number = page >> PAGE_SHIFT;
        let hash = number ^ number >> 13;
        (host_size(hash >> 6) & (FETCHED_WORDS - 1), 1 << (hash & 63))
    }

    fn forget_fetches(&mut self) {
        self.fetches = [Context::NONE; 2];
        if self.any_fetched {
            self.fetched.fill(0);
            self.any_fetched = false;
        }
    }

    fn clear(&mut self) {
        for table in self.tables.iter_mut().flatten() {
            table.clear();
        }
        self.forget_fetches();
        self.large = None;
    }

    fn flush_page(&mut self, page: u64) {
        if self.large.is_some_and(|(low, high)| low <= page && page <= high) {
            self.clear();
            return;
        }
        let (word, bit) = Self::fetched_bit(page);
        if self.fetched[word] & bit != 0 {
            self.forget_fetches();
        }
        for table in self.tables.iter_mut().flatten() {
            table.flush_page(page);
        }
    }

    fn withdraw(&mut self, frame: usize) {
        for table in self.tables.iter_mut().flatten() {
            table.withdraw(frame);
        }
    }
}

/// Index of M-mode's space.
const MACHINE: usize = 0;
/// Index of the space that S-mode without SUM shares among all values of `satp`.
const KERNEL: usize = 1;
/// Index of the first of the others.
const FIRST: usize = 2;

/// The translations of one hart.
#[repr(C)]
pub struct Tlb {
    /// What data accesses now mean.
    slots: NonNull<Slot>,
    /// The part of an address, shifted down by [`Self::MASK_SHIFT`], that is the offset of its slot in bytes.
    mask: u64,
    table: NonNull<Table>,
    /// What fetches now mean.
    fetch_context: Context,
    satp: Satp,
    /// Index into `spaces` of the space of `satp`.
    current: usize,
    /// Indices into `spaces` of those that `table` and `fetch_context` are of.
    data_home: usize,
    fetch_home: usize,
    spaces: Vec<Space>,
    /// The shared tables hold a page of one address space only.
    kernel_is_local: bool,
    fetches: Box<[FetchEntry; FETCH_ENTRIES]>,
    next_context: u64,
    selections: u64,
    flushes: Missed<u64>,
    withdrawals: Missed<usize>,
}

// SAFETY: the pointers are to a table that `spaces` owns, and into it; nothing in it is tied to a thread.
unsafe impl Send for Tlb {}

impl Default for Tlb {
    fn default() -> Self {
        Self::new()
    }
}

impl Tlb {
    /// Where in a `Tlb` the pointer to the current table's first [`Slot`] is.
    pub const SLOTS_OFFSET: usize = offset_of!(Self, slots);
    /// Where in a `Tlb` the mask is that leaves of an address, shifted down by [`Self::MASK_SHIFT`], its slot's offset in bytes. It has 32 bits.
    pub const MASK_OFFSET: usize = offset_of!(Self, mask);
    /// See [`Self::MASK_OFFSET`].
    pub const MASK_SHIFT: u32 = PAGE_SHIFT - size_of::<Slot>().trailing_zeros();
    /// Where in a `Tlb` the current [`Context`] of fetches is: 64 bits.
    pub const FETCH_CONTEXT_OFFSET: usize = offset_of!(Self, fetch_context);

    /// An empty TLB; [`Self::select`] comes before the first use.
    #[must_use]
    pub fn new() -> Self {
        let mut tlb = Self {
            slots: NonNull::dangling(),
            mask: 0,
            table: NonNull::dangling(),
            fetch_context: Context::NONE,
            satp: Satp(0),
            current: FIRST,
            data_home: MACHINE,
            fetch_home: MACHINE,
            spaces: (0..=FIRST).map(|_| Space::new(Satp(0))).collect(),
            kernel_is_local: false,
            fetches: Box::new([EMPTY_FETCH; FETCH_ENTRIES]),
            next_context: 0,
            selections: 0,
            flushes: Missed::new(),
            withdrawals: Missed::new(),
        };
        tlb.select(Satp(0), Class::MACHINE, Class::MACHINE);
        tlb
    }

    /// From now on accesses are meant so. Must follow every call of a `flush` method.
    #[inline]
    pub fn select(&mut self, satp: Satp, data: Class, fetch: Class) {
        if satp != self.satp {
            self.switch(satp);
        }
        // Bare has no global pages.
        let kernel = if satp.levels() == Some(0) { self.current } else { KERNEL };
        let (home, class) = match data {
            Class::MACHINE => (MACHINE, 0),
            Class(class) if class & (Class::USER | Class::SUM) == 0 => (kernel, usize::from(class)),
            Class(class) => (self.current, usize::from(class) & (Class::DATA_COUNT - 1)),
        };
        self.data_home = home;
        let table = self.spaces[home].tables[class].get_or_insert_with(Table::new);
        if table.slots_wanted != table.slots.len() {
            table.resize();
        }
        self.table = NonNull::from(&mut **table);
        self.find_slots();
        let (home, mode) = match fetch {
            Class::MACHINE => (MACHINE, 0),
            Class(Class::USER) => (self.current, 1),
            _ => (kernel, 0),
        };
        self.fetch_home = home;
        let context = &mut self.spaces[home].fetches[mode];
        if *context == Context::NONE {
            *context = Context(self.next_context);
            self.next_context += 1;
        }
        self.fetch_context = *context;
    }

    /// Looks where the current table has its slots.
    #[inline(always)]
    fn find_slots(&mut self) {
        // SAFETY: as in `enter`.
        let table = unsafe { self.table.as_mut() };
        self.mask = ((table.slots.len() - 1) * size_of::<Slot>()) as u64;
        self.slots = NonNull::from(&mut *table.slots).cast();
    }

    /// Makes `satp`'s space the current one.
    #[cold]
    fn switch(&mut self, satp: Satp) {
        // Global means global within one kind of page tables.
        if self.kernel_is_local || satp.levels() != self.satp.levels() {
            self.spaces[KERNEL].clear();
            self.kernel_is_local = false;
        }
        self.leave();
        self.satp = satp;
        self.current = match self.spaces[FIRST..].iter().position(|space| space.satp == satp) {
            Some(index) => FIRST + index,
            None => self.vacate(satp),
        };
        self.catch_up();
        self.selections += 1;
        self.spaces[self.current].selected_at = self.selections;
    }

    /// The current space has seen everything until now.
    fn leave(&mut self) {
        let (flushes, withdrawals) = (self.flushes.count, self.withdrawals.count);
        let space = &mut self.spaces[self.current];
        (space.flushes_seen, space.withdrawals_seen) = (flushes, withdrawals);
    }

    /// A space for a new `satp`, empty.
    fn vacate(&mut self, satp: Satp) -> usize {
        let index = if self.spaces.len() < FIRST + SPACES_MAX {
            self.spaces.push(Space::new(satp));
            self.spaces.len() - 1
        } else {
            let oldest = self.spaces[FIRST..].iter().enumerate().min_by_key(|(_, space)| space.selected_at);
            FIRST + oldest.map_or(0, |(index, _)| index)
        };
        let space = &mut self.spaces[index];
        space.clear();
        space.satp = satp;
        (space.flushes_seen, space.withdrawals_seen) = (self.flushes.count, self.withdrawals.count);
        index
    }

    /// Does to the current space what it has missed.
    fn catch_up(&mut self) {
        let space = &mut self.spaces[self.current];
        match self.flushes.since(space.flushes_seen) {
            Some(pages) => pages.for_each(|page| space.flush_page(page)),
            None => space.clear(),
        }
        match self.withdrawals.since(space.withdrawals_seen) {
            Some(frames) => frames.for_each(|frame| space.withdraw(frame)),
            None => space.tables.iter_mut().flatten().for_each(|table| table.withdraw_all()),
        }
    }

    /// What fetches now mean. Another cache may use it as part of its key.
    #[must_use]
    #[inline(always)]
    pub fn fetch_context(&self) -> Context {
        self.fetch_context
    }

    #[inline(always)]
    fn slot(&self, at: u64) -> &Slot {
        let offset = host_size(at >> Self::MASK_SHIFT & self.mask);
        // SAFETY: `slots` points to the slots of a table that `spaces` owns, and the mask leaves the offset of one of them (see the module's invariants);
        // it is borrowed no longer than `self`.
        unsafe { self.slots.byte_add(offset).as_ref() }
    }

    #[inline(always)]
    fn host(entry: &Entry, at: u64, size: u64) -> Option<*mut u8> {
        let aligned_page = at & (PAGE_MASK | (size - 1));
        (entry.tag == aligned_page).then(|| host_size(at).wrapping_add(entry.addend) as *mut u8)
    }

    /// The host address for a load of `size` bytes (a power of two, at most eight) at `at`, if it is aligned.
    #[must_use]
    #[inline(always)]
    pub fn read(&self, at: u64, size: u64) -> Option<*mut u8> {
        Self::host(&self.slot(at).read, at, size)
    }

    /// The host address for a store or an atomic operation of `size` bytes (a power of two, at most eight) at `at`, if it is aligned.
    #[must_use]
    #[inline(always)]
    pub fn write(&self, at: u64, size: u64) -> Option<*mut u8> {
        Self::host(&self.slot(at).write, at, size)
    }

    /// The page that instructions at `at` are fetched from.
    #[must_use]
    pub fn fetch(&self, at: u64) -> Option<FetchPage> {
        let entry = &self.fetches[self.fetch_index(at)];
        (entry.tag == at & PAGE_MASK && entry.context == self.fetch_context).then_some(entry.page)
    }

    fn fetch_index(&self, at: u64) -> usize {
        host_size(at >> PAGE_SHIFT ^ self.fetch_context.0 << 3) & (FETCH_ENTRIES - 1)
    }

    /// Enters the page of `at` for data accesses: `host` is its frame.
    pub fn enter(&mut self, at: u64, host: *mut u8, permissions: Permissions, extent: Extent) {
        let page = at & PAGE_MASK;
        self.note(self.data_home, page, extent);
        let entry = Entry { tag: page, addend: (host as usize).wrapping_sub(host_size(page)) };
        // SAFETY: the table is owned by `spaces` (see the module's invariants); `self` is borrowed mutably, so nobody else has a reference into it.
        let table = unsafe { self.table.as_mut() };
        if table.enter(entry, permissions) {
            table.resize();
            self.find_slots();
        }
    }

    /// Enters the page of `at` for fetches.
    pub fn enter_fetch(&mut self, at: u64, entered: FetchPage, extent: Extent) {
        let page = at & PAGE_MASK;
        self.note(self.fetch_home, page, extent);
        let (word, bit) = Space::fetched_bit(page);
        let space = &mut self.spaces[self.fetch_home];
        space.fetched[word] |= bit;
        space.any_fetched = true;
        let index = self.fetch_index(at);
        self.fetches[index] = FetchEntry { tag: page, context: self.fetch_context, page: entered };
    }

    fn note(&mut self, home: usize, page: u64, extent: Extent) {
        if home == KERNEL && !extent.global {
            self.kernel_is_local = true;
        }
        if extent.size_shift > PAGE_SHIFT {
            let first = page >> extent.size_shift << extent.size_shift;
            let last = first | ((1 << extent.size_shift) - 1);
            let large = &mut self.spaces[home].large;
            let (low, high) = large.unwrap_or((first, last));
            *large = Some((low.min(first), high.max(last)));
        }
    }

    /// Forgets everything.
    pub fn flush_all(&mut self) {
        for space in &mut self.spaces {
            space.clear();
        }
        self.kernel_is_local = false;
    }

    /// Forgets an address space; global pages need not be.
    pub fn flush_space(&mut self, asid: u16) {
        for space in self.spaces[FIRST..].iter_mut().filter(|space| space.satp.asid() == asid) {
            space.clear();
        }
        if self.kernel_is_local {
            self.spaces[KERNEL].clear();
            self.kernel_is_local = false;
        }
    }

    /// Forgets one page, of one address space or of all.
    pub fn flush_page(&mut self, at: u64, asid: Option<u16>) {
        let page = at & PAGE_MASK;
        self.spaces[KERNEL].flush_page(page);
        match asid {
            Some(asid) => {
                for space in self.spaces[FIRST..].iter_mut().filter(|space| space.satp.asid() == asid) {
                    space.flush_page(page);
                }
            }
            None => {
                self.spaces[self.current].flush_page(page);
                self.flushes.push(page);
            }
        }
    }

    /// Forgets all entries for writes that lead to the frame at `frame`.
    pub fn withdraw(&mut self, frame: *mut u8) {
        for index in [MACHINE, KERNEL, self.current] {
            self.spaces[index].withdraw(frame as usize);
        }
        self.withdrawals.push(frame as usize);
    }

    /// Forgets all entries for writes.
    pub fn withdraw_all(&mut self) {
        self.spaces
            .iter_mut()
            .flat_map(|space| space.tables.iter_mut().flatten())
            .for_each(|table| table.withdraw_all());
    }
}

/// What a page that is entered is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// A page of 2^`size_shift` bytes.
    pub size_shift: u32,
    /// The mapping is the same in all address spaces.
    pub global: bool,
}

impl Default for Extent {
    /// A page of 4 KiB of one address space.
    fn default() -> Self {
        Self { size_shift: PAGE_SHIFT, global: false }
    }
}

#[cfg(test)]
mod tests;
