//! Basic blocks: instructions decoded once, and where they are kept.
//!
//! ```text
//!  pc, fetch context --> jump cache --hit--------------------------> block
//!                            |miss                                     ^
//!                            v                                         |
//!                     translate the pc --> physical --> map of blocks -+
//!                                                            | none, or its bytes have changed
//!                                                            v
//!                                                          decode
//!
//!  block:  slot, slot, slot ... slot that ends it
//!          exits: taken, next ------> the block there, once known (same page only)
//! ```
//!
//! Blocks belong to physical addresses: they do not know at which virtual address they run, so they survive TLB flushes and are shared between address
//! spaces. A block ends at the end of its page, so the exits that stay in the page lead to the same physical address
//! whatever the translation, and may be linked for good. Others go through the jump cache, whose keys hold the TLB's fetch context.
//!
//! **What runs once.** The first time that control comes to an address, its block is for now only: most code of a program's start is not executed again, and
//! need not be kept. It is the second time that makes a block for the map ([`BlockCache::is_first_visit`]).
//!
//! **Changed code.** Code that changes must be seen after `fence.i`, and may be seen before. Then the blocks of the pages that have been written since are dropped
//! ([`BlockCache::drop_page`]; see [`machine::memory::code`]). Links stay inside a page, so no link leads from a block that stays to one that is
//! dropped; the jump cache looks whether a block lives.
//!
//! Invariant, on which every [`BlockRef`] and [`Cursor`] relies: a block, once made, is neither moved nor freed before [`BlockCache::clear`], even if it is dropped, and that is
//! called only where no reference is kept (the interpreter's loop, between blocks). One that is not kept lives in [`OwnBlock`].

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::MaybeUninit;
use std::ops::{Deref, RangeInclusive};
use std::ptr::NonNull;

use machine::address::{PAGE_SHIFT, host_size};
use machine::memory::code::Maker;

use super::Hart;
use super::arena::{ALIGNMENT, Arena};
use super::user::{Code, UserMemory};
use crate::mmu::tlb::Context;

/// Instructions in a block at most. With four bytes each, offsets inside fit a byte when halved.
pub(crate) const BLOCK_INSTRUCTIONS_MAX: usize = 62;
/// Halves of the instructions of a block at most.
const SOURCE_MAX: usize = 2 * BLOCK_INSTRUCTIONS_MAX;
/// Memory for the blocks of one hart before all are dropped.
const BYTES_MAX: usize = 80 << 20;
/// Entries of the jump cache at first; a power of two.
const JUMPS_MIN: usize = 1 << 8;
/// What it grows to.
const JUMPS_MAX: usize = 1 << 14;
/// For 128 KiB of code.
const SEEN_WORDS: usize = 1 << 10;

/// How a run of handlers ended. One byte, since only results in one register let calls be jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flow {
    /// At the program counter there is a block to be found.
    Find,
    /// As `Find`, and the block may be linked to [`Side::Next`] of the last.
    LinkNext,
    /// As `Find`, and the block may be linked to [`Side::Taken`] of the last.
    LinkTaken,
    /// Go on at `resume`, in the same block.
    Resume,
    /// `trap` is to be taken.
    Trap,
    /// An interrupt may have become deliverable.
    Look,
    /// `run` ends with `exit`.
    Exit,
    /// The block has been executed so often that it is to be executed translated.
    Translated,
    /// The one instruction that translated code left to the interpreter is done, and nothing else has happened.
    Done,
}

/// What executes one instruction and goes on with the next.
pub(crate) type Handler = fn(&mut Hart, Cursor) -> Flow;

/// A decoded instruction: 16 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Slot {
    pub(crate) handler: Handler,
    /// Destination register; of integer instructions never 0 but [`Registers::NOWHERE`](super::Registers::NOWHERE).
    pub(crate) rd: u8,
    pub(crate) rs1: u8,
    pub(crate) rs2: u8,
    /// `rs3` in the low five bits, `rm` above.
    pub(crate) extra: u8,
    pub(crate) imm: i32,
}

/// The instruction being executed: a slot of a live block.
#[derive(Clone, Copy)]
pub(crate) struct Cursor(NonNull<Slot>);

impl Cursor {
    #[inline(always)]
    fn slot(&self) -> &Slot {
        // SAFETY: see the module's invariant; slots are not changed once made.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn rd(self) -> u8 {
        self.slot().rd
    }

    #[inline(always)]
    pub(crate) fn rs1(self) -> u8 {
        self.slot().rs1
    }

    #[inline(always)]
    pub(crate) fn rs2(self) -> u8 {
        self.slot().rs2
    }

    #[inline(always)]
    pub(crate) fn rs3(self) -> u8 {
        self.slot().extra & 31
    }

    #[inline(always)]
    pub(crate) fn rm(self) -> u8 {
        self.slot().extra >> 5
    }

    /// The immediate, sign-extended.
    #[inline(always)]
    pub(crate) fn imm(self) -> u64 {
        i64::from(self.slot().imm).cast_unsigned()
    }

    /// Executes from here to the end of the block, and maybe on.
    #[inline(always)]
    pub(crate) fn execute(self, hart: &mut Hart) -> Flow {
        (self.slot().handler)(hart, self)
    }

    /// The next instruction of the block. Only slots that do not end the block have one.
    #[inline(always)]
    pub(crate) fn next(self) -> Self {
        // SAFETY: the last slot of a block is one that ends it, so there is another after this.
        Self(unsafe { self.0.add(1) })
    }
}

/// Stands before the first instruction of blocks that may be translated, and counts their executions.
fn count(hart: &mut Hart, cursor: Cursor) -> Flow {
    let block = hart.block;
    match block.heat.get().checked_sub(1) {
        Some(heat) => {
            block.heat.set(heat);
            cursor.next().execute(hart)
        }
        None => Flow::Translated,
    }
}

/// The slot of [`count`].
const COUNT: Slot = Slot { handler: count, rd: 0, rs1: 0, rs2: 0, extra: 0, imm: 0 };

fn done(_: &mut Hart, _: Cursor) -> Flow {
    Flow::Done
}

/// The slot that ends the blocks of one instruction that translated code leaves to the interpreter.
pub(crate) const DONE: Slot = Slot { handler: done, rd: 0, rs1: 0, rs2: 0, extra: 0, imm: 0 };

/// The handler of the block that stands where no other does.
fn nothing(_: &mut Hart, _: Cursor) -> Flow {
    Flow::Find
}

/// Where a block may lead to without an indirect jump.
pub(crate) struct Exit {
    /// From the block's first byte.
    pub(crate) offset: i64,
    /// The block there, if it is in the same page and has been needed.
    pub(crate) target: Cell<Option<BlockRef>>,
    /// It is in the same page.
    pub(crate) inside: bool,
}

/// Which exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Side {
    /// The instruction after the block.
    Next = 0,
    /// The target of the branch or jump that ends it.
    Taken = 1,
}

/// A basic block. Behind it in memory are its slots, and then its instructions' bytes as they were decoded, in halves.
pub(crate) struct Block {
    /// Where it is entered: its first instruction, or the slot that counts before it.
    entry: NonNull<Slot>,
    first: NonNull<Slot>,
    source: NonNull<u16>,
    source_length: usize,
    /// How many instructions retire when it runs to its end.
    pub(crate) count: u32,
    /// How often it is executed before it is translated.
    pub(crate) heat: Cell<u32>,
    /// Its translation, valid in one generation of the code cache.
    pub(crate) unit: Cell<(u64, u64)>,
    pub(crate) exits: [Exit; 2],
    /// Bit `i`: instruction `i` has four bytes, not two.
    long: u64,
    /// Physical address of the first byte.
    pub(crate) physical: u64,
    /// Its only instruction lies in two pages: the physical address of its second half.
    pub(crate) second_half: Option<u64>,
    /// It has not been dropped.
    lives: Cell<bool>,
    stay: Stay,
    /// A debugger wants a look before it is executed: see [`super::debug`].
    pub(crate) checked: bool,
}

/// How long a block lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    /// Until the cache is cleared.
    Kept,
    /// Until the next such. It is neither linked to others nor others to it.
    Once,
    /// It is one instruction that translated code leaves to the interpreter: what comes next is the caller's business.
    Alone,
}

/// What a block is made of. The first of the slots is [`COUNT`], and is no instruction.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) slots: Vec<Slot>,
    pub(crate) count: u32,
    pub(crate) long: u64,
    /// The instructions' bytes in halves: [`SOURCE_MAX`], of which so many are theirs.
    source: Vec<u16>,
    halves: usize,
    pub(crate) physical: u64,
    pub(crate) second_half: Option<u64>,
    /// Offset of the taken exit.
    pub(crate) taken: i64,
    /// A debugger wants a look before it is executed.
    pub(crate) checked: bool,
    /// How often it is executed before it is translated, if it may be.
    pub(crate) heat: Option<u32>,
}

impl Parts {
    /// Of a block at `physical`, without instructions.
    pub(crate) fn new(physical: u64) -> Self {
        let mut parts = Self::default();
        parts.begin(physical);
        parts
    }

    /// As [`Self::new`], with the memory of these parts.
    pub(crate) fn begin(&mut self, physical: u64) {
        self.slots.clear();
        self.slots.push(COUNT);
        self.source.resize(SOURCE_MAX, 0);
        (self.halves, self.count, self.long, self.taken) = (0, 0, 0, 0);
        (self.physical, self.second_half, self.checked, self.heat) = (physical, None, false, None);
    }

    /// Adds an instruction: the low 16 of its `bits`, unless it is `long`.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the bits")]
    pub(crate) fn push(&mut self, slot: Slot, bits: u32, long: bool) {
        self.slots.push(slot);
        // The host cannot foresee which length is next, so there is no jump: what is not meant is overwritten.
        if let Some([low, high]) = self.source.get_mut(self.halves..self.halves + 2) {
            (*low, *high) = (bits as u16, (bits >> 16) as u16);
        }
        self.halves += 1 + usize::from(long);
        self.long |= u64::from(long) << self.count;
        self.count += 1;
    }

    fn source(&self) -> &[u16] {
        &self.source[..self.halves]
    }

    /// Bytes that a block of them takes.
    fn size(&self) -> usize {
        size_of::<Block>() + size_of_val(&*self.slots) + size_of_val(self.source())
    }
}

// Slots are where they have to be behind a block, and halves behind slots.
const _: () = assert!(size_of::<Block>().is_multiple_of(align_of::<Slot>()) && align_of::<Block>() <= ALIGNMENT);

impl Block {
    /// How many bytes of guest code it is.
    pub(crate) fn bytes(&self) -> u64 {
        2 * self.source_length as u64
    }

    /// Makes a block; its last slot is one that ends it.
    ///
    /// # Safety
    /// `room` has the bytes that `parts` tell, is aligned to [`ALIGNMENT`], and is the block's alone for as long as that is used.
    unsafe fn place(parts: &Parts, stay: Stay, room: NonNull<u8>) -> BlockRef {
        let bytes = i64::try_from(2 * parts.source().len()).unwrap_or(i64::MAX);
        let exit = |offset: i64| {
            let page_offset = (parts.physical & 0xfff).cast_signed();
            let inside = stay == Stay::Kept
                && parts.second_half.is_none()
                && (0..0x1000).contains(&(page_offset.saturating_add(offset)));
            Exit { offset, target: Cell::new(None), inside }
        };
        let block = room.cast::<Self>();
        // SAFETY: the caller's promise: there is room for the block, its slots, of which there are more than the counting one, and its source.
        unsafe {
            let counting = block.add(1).cast::<Slot>();
            counting.copy_from_nonoverlapping(NonNull::from(&*parts.slots).cast(), parts.slots.len());
            let source = counting.add(parts.slots.len()).cast::<u16>();
            source.copy_from_nonoverlapping(NonNull::from(parts.source()).cast(), parts.source().len());
            let first = counting.add(1);
            block.write(Self {
                entry: if parts.heat.is_some() { counting } else { first },
                first,
                source,
                source_length: parts.source().len(),
                count: parts.count,
                heat: Cell::new(parts.heat.unwrap_or(0)),
                unit: Cell::new((0, 0)),
                exits: [exit(bytes), exit(parts.taken)],
                long: parts.long,
                physical: parts.physical,
                second_half: parts.second_half,
                lives: Cell::new(true),
                stay,
                checked: parts.checked,
            });
        }
        BlockRef(block)
    }

    /// The instructions' bytes as they were decoded, in halves.
    fn source(&self) -> &[u16] {
        // SAFETY: they are behind the block, as long as that is there, and are not changed.
        unsafe { NonNull::slice_from_raw_parts(self.source, self.source_length).as_ref() }
    }

    /// Where it is entered.
    #[inline(always)]
    pub(crate) fn entry(&self) -> Cursor {
        Cursor(self.entry)
    }

    /// The first instruction.
    #[inline(always)]
    pub(crate) fn first(&self) -> Cursor {
        Cursor(self.first)
    }

    /// Whether an exit inside the page may lead to it for good. Where its second half is, if it has one, depends on the translation.
    pub(crate) fn may_be_linked(&self) -> bool {
        self.stay == Stay::Kept && self.second_half.is_none() && !self.checked
    }

    /// Whether it is one instruction that translated code leaves to the interpreter.
    pub(crate) fn is_alone(&self) -> bool {
        self.stay == Stay::Alone
    }

    /// The number of the instruction at `cursor`, counted from zero.
    pub(crate) fn index(&self, cursor: Cursor) -> u32 {
        let bytes = cursor.0.as_ptr() as usize - self.first.as_ptr() as usize;
        u32::try_from(bytes / size_of::<Slot>()).unwrap_or(u32::MAX)
    }

    /// Where instruction `index` begins, in bytes from the block's start.
    pub(crate) fn offset(&self, index: u32) -> u64 {
        let before = (1_u64 << index) - 1;
        u64::from(2 * index + 2 * (self.long & before).count_ones())
    }

    /// The bits of instruction `index`: 16 or 32.
    pub(crate) fn bits(&self, index: u32) -> u32 {
        let at = host_size(self.offset(index) / 2);
        let half = |at: usize| self.source().get(at).copied().map_or(0, u32::from);
        if self.long >> index & 1 == 0 { half(at) } else { half(at) | half(at + 1) << 16 }
    }

    /// The length of instruction `index` in bytes.
    pub(crate) fn length(&self, index: u32) -> u64 {
        if self.long >> index & 1 == 0 { 2 } else { 4 }
    }
}

/// A live block. Equal are only those of the same block.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct BlockRef(NonNull<Block>);

impl Deref for BlockRef {
    type Target = Block;

    #[inline(always)]
    fn deref(&self) -> &Block {
        // SAFETY: see the module's invariant; blocks change only through their cells.
        unsafe { self.0.as_ref() }
    }
}

/// A block with memory of its own.
pub(crate) struct OwnBlock {
    block: BlockRef,
    room: Box<[MaybeUninit<u128>]>,
}

const _: () = assert!(align_of::<u128>() == ALIGNMENT && size_of::<u128>() == ALIGNMENT);

impl OwnBlock {
    fn new(parts: &Parts, stay: Stay) -> Self {
        Self::with_room(parts, stay, Box::default())
    }

    /// In `room`, if that is large enough.
    fn with_room(parts: &Parts, stay: Stay, mut room: Box<[MaybeUninit<u128>]>) -> Self {
        let size = parts.size().div_ceil(ALIGNMENT);
        if room.len() < size {
            room = Box::new_uninit_slice(size.next_power_of_two());
        }
        // SAFETY: it has the size and alignment, and is this value's, which hands out the block; who takes it out keeps this alive.
        let block = unsafe { Block::place(parts, stay, NonNull::from(&mut *room).cast()) };
        Self { block, room }
    }

    /// The block of one instruction that translated code leaves to the interpreter.
    pub(crate) fn alone(parts: &Parts) -> Self {
        Self::new(parts, Stay::Alone)
    }

    /// The block; to be kept alive while it is executed.
    pub(crate) fn get(&self) -> BlockRef {
        self.block
    }
}

/// Physical addresses are not chosen to collide: one multiplication will do.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

#[derive(Clone, Copy)]
struct Jump {
    pc: u64,
    context: Context,
    block: Option<BlockRef>,
}

/// A jump cache that nothing is in.
fn no_jumps(count: usize) -> Box<[Jump]> {
    // SAFETY: of numbers zero is one, and of an optional reference, which is a pointer that is not null, it is none.
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

/// Things by the number of the page that they come from.
pub(crate) type ByPage<T> = HashMap<u64, T, BuildHasherDefault<AddressHasher>>;

/// Those of `pages` that something comes from.
pub(crate) fn chosen<T>(places: &ByPage<T>, pages: &RangeInclusive<u64>) -> Vec<u64> {
    if pages.end() - pages.start() < places.len() as u64 {
        pages.clone().filter(|page| places.contains_key(page)).collect()
    } else {
        places.keys().copied().filter(|page| pages.contains(page)).collect()
    }
}

/// The blocks of one hart.
pub(crate) struct BlockCache {
    /// The pages that blocks come from.
    pub(crate) maker: Maker,
    /// The jump cache: as many entries as a power of two, from [`JUMPS_MIN`] to [`JUMPS_MAX`].
    jumps: Box<[Jump]>,
    /// How often something was entered there.
    entered: usize,
    blocks: HashMap<u64, BlockRef, BuildHasherDefault<AddressHasher>>,
    /// By page, the addresses of the blocks that have bytes in it, and maybe of others.
    pages: ByPage<Vec<u64>>,
    /// Where the blocks are, those that were dropped, too.
    arena: Arena,
    /// The last block that is not to be kept.
    single: Option<OwnBlock>,
    /// What the last block was made of, for its memory.
    pub(crate) scratch: Parts,
    /// A bit for each place that was decoded, by some bits of its address.
    seen: Box<[u64; SEEN_WORDS]>,
}

// SAFETY: the pointers are into memory that the cache owns; nothing in it is tied to a thread.
unsafe impl Send for BlockCache {}

impl BlockCache {
    pub(crate) fn new() -> Self {
        Self {
            maker: Maker::default(),
            jumps: no_jumps(JUMPS_MIN),
            entered: 0,
            blocks: HashMap::default(),
            pages: HashMap::default(),
            arena: Arena::default(),
            single: None,
            scratch: Parts::default(),
            seen: Box::new([0; SEEN_WORDS]),
        }
    }

    #[inline(always)]
    fn jump_index(&self, pc: u64) -> usize {
        host_size(pc >> 1 ^ pc >> 13) & (self.jumps.len() - 1)
    }

    /// The block for `pc` in a fetch context, if it was entered and may be executed.
    #[inline(always)]
    pub(crate) fn jump(&self, pc: u64, context: Context) -> Option<BlockRef> {
        let jump = &self.jumps[self.jump_index(pc)];
        if jump.pc == pc && jump.context == context { jump.block.filter(|block| block.lives.get()) } else { None }
    }

    /// Enters a block for `pc` in a fetch context, if it stays.
    pub(crate) fn enter_jump(&mut self, pc: u64, context: Context, block: BlockRef) {
        if block.stay == Stay::Kept {
            // A short program, of which most pages of a large cache would be used for little, has a small one.
            self.entered += 1;
            if self.entered > self.jumps.len() && self.jumps.len() < JUMPS_MAX {
                self.jumps = no_jumps(self.jumps.len() * 4);
            }
            let index = self.jump_index(pc);
            self.jumps[index] = Jump { pc, context, block: Some(block) };
        }
    }

    /// Whether the code at a physical address is decoded for the first time, so that its block is not worth keeping: much of a program is executed once. It
    /// may say no of code that looks like other code by its address.
    pub(crate) fn is_first_visit(&mut self, physical: u64) -> bool {
        let bit = host_size(physical >> 1 ^ physical >> 17);
        let word = &mut self.seen[bit / 64 % SEEN_WORDS];
        let was = *word;
        *word |= 1 << (bit % 64);
        was != *word
    }

    /// The block at a physical address.
    pub(crate) fn get(&self, physical: u64) -> Option<BlockRef> {
        self.blocks.get(&physical).copied()
    }

    /// Whether the block at a physical address is `block`.
    #[cfg(test)]
    pub(crate) fn is_same(&self, physical: u64, block: Option<BlockRef>) -> bool {
        self.get(physical).map(|block| block.0) == block.map(|block| block.0)
    }

    /// Makes a block and keeps it, in place of one at the same address; if the host has no memory for it, only until the next single one.
    pub(crate) fn insert(&mut self, parts: &Parts) -> BlockRef {
        let Some(room) = self.arena.allocate(parts.size()) else { return self.insert_single(parts) };
        // SAFETY: the arena gave it for this block until all are cleared.
        let block = unsafe { Block::place(parts, Stay::Kept, room) };
        for at in [Some(block.physical), block.second_half].into_iter().flatten() {
            self.pages.entry(at >> PAGE_SHIFT).or_default().push(block.physical);
        }
        if self.blocks.len() == self.blocks.capacity() {
            // Once for four times as many: each time, all are moved.
            self.blocks.reserve(3 * self.blocks.len());
        }
        if let Some(replaced) = self.blocks.insert(block.physical, block) {
            replaced.lives.set(false);
        }
        block
    }

    /// Drops the blocks that have bytes in the page of `physical`. Those that are being executed may go on to their end.
    pub(crate) fn drop_page(&mut self, physical: u64) {
        for at in self.pages.remove(&(physical >> PAGE_SHIFT)).unwrap_or_default() {
            if let Some(block) = self.blocks.remove(&at) {
                block.lives.set(false);
            }
        }
    }

    /// Drops the blocks with bytes in `pages` that are no longer what a program's memory holds, as [`Self::drop_page`] does.
    pub(crate) fn drop_different(&mut self, program: &dyn UserMemory, pages: &RangeInclusive<u64>) {
        let Self { blocks, pages: places, .. } = self;
        let code = Code::new(program);
        let is_different = |at: u64, block: &Block| {
            (at..).step_by(2).zip(block.source()).any(|(at, &was)| code.half(at) != Some(was.into()))
        };
        for page in chosen(places, pages) {
            let Some(addresses) = places.get_mut(&page) else { continue };
            addresses.retain(|at| {
                let stays = blocks.get(at).map(|block| !is_different(*at, block));
                if stays == Some(false)
                    && let Some(block) = blocks.remove(at)
                {
                    block.lives.set(false);
                }
                stays == Some(true)
            });
        }
    }

    /// Drops all blocks, as [`Self::drop_page`] does.
    pub(crate) fn drop_all(&mut self) {
        self.pages.clear();
        for block in std::mem::take(&mut self.blocks).into_values() {
            block.lives.set(false);
        }
    }

    /// Makes a block and keeps it only until the next call: it is neither linked to others nor others to it.
    pub(crate) fn insert_single(&mut self, parts: &Parts) -> BlockRef {
        let room = self.single.take().map(|single| single.room).unwrap_or_default();
        self.single.insert(OwnBlock::with_room(parts, Stay::Once, room)).get()
    }

    /// Whether the cache has outgrown its bound, so that [`Self::clear`] is due.
    pub(crate) fn is_full(&self) -> bool {
        self.arena.size() > BYTES_MAX
    }

    /// Frees all blocks. No reference may be kept; answers one to a block that does nothing, to put in the place of others.
    pub(crate) fn clear(&mut self) -> BlockRef {
        // Jumps lead to blocks that were kept.
        if self.arena.size() > 0 {
            self.jumps = no_jumps(self.jumps.len());
        }
        self.maker.clear();
        self.pages.clear();
        self.blocks.clear();
        self.arena.clear();
        self.seen.fill(0);
        let mut parts = Parts::new(0);
        parts.slots.push(Slot { handler: nothing, rd: 0, rs1: 0, rs2: 0, extra: 0, imm: 0 });
        self.insert_single(&parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_room_is_for_now_only() {
        let mut cache = BlockCache::new();
        let mut parts = Parts::new(0x1000);
        parts.slots.push(DONE);
        let kept = cache.insert(&parts);
        cache.enter_jump(0x1000, Context::NONE, kept);
        assert!(cache.jump(0x1000, Context::NONE) == Some(kept) && cache.get(0x1000) == Some(kept));
        // More than the arena gives at once.
        let mut parts = Parts::new(0x2000);
        parts.slots.resize(1 << 20, DONE);
        let once = cache.insert(&parts);
        cache.enter_jump(0x2000, Context::NONE, once);
        assert!(cache.jump(0x2000, Context::NONE).is_none() && cache.get(0x2000).is_none() && !once.may_be_linked());
        cache.clear();
        assert!(cache.jump(0x1000, Context::NONE).is_none() && cache.get(0x1000).is_none());
    }
}
