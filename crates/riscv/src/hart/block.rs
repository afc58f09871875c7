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
//! **Changed code.** Code that changes must be seen after `fence.i`, not before. Then the blocks of the pages that have been written since are dropped
//! ([`BlockCache::drop_page`]; see [`machine::memory::code`]). Links stay inside a page, so no link leads from a block that stays to one that is
//! dropped; the jump cache looks whether a block lives.
//!
//! Invariant, on which every [`BlockRef`] and [`Cursor`] relies: a block, once made, is neither moved nor freed before [`BlockCache::clear`], even if it is dropped, and that is
//! called only where no reference is kept (the interpreter's loop, between blocks).

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::{Deref, RangeInclusive};
use std::ptr::NonNull;

use machine::address::{PAGE_SHIFT, host_size};
use machine::memory::code::Maker;

use super::Hart;
use super::user::{Code, UserMemory};
use crate::mmu::tlb::Context;

/// Instructions in a block at most. With four bytes each, offsets inside fit a byte when halved.
pub(crate) const BLOCK_INSTRUCTIONS_MAX: usize = 62;
/// Slots kept by one hart before all are dropped: some 80 MiB.
const SLOTS_MAX: usize = 1 << 22;
const JUMPS: usize = 1 << 14;

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

/// A basic block.
pub(crate) struct Block {
    /// Where it is entered: its first instruction, or the slot that counts before it.
    entry: NonNull<Slot>,
    first: NonNull<Slot>,
    /// It has not been dropped.
    lives: Cell<bool>,
    /// How often it is executed before it is translated.
    pub(crate) heat: Cell<u32>,
    /// Its translation, valid in one generation of the code cache.
    pub(crate) unit: Cell<(u64, u64)>,
    /// How many instructions retire when it runs to its end.
    pub(crate) count: u32,
    pub(crate) exits: [Exit; 2],
    /// Bit `i`: instruction `i` has four bytes, not two.
    long: u64,
    /// The instructions' bytes as they were decoded, in halves.
    source: Box<[u16]>,
    /// Physical address of the first byte.
    pub(crate) physical: u64,
    /// Its only instruction lies in two pages: the physical address of its second half.
    pub(crate) second_half: Option<u64>,
    /// It lives until the cache is cleared.
    kept: bool,
    /// It is one instruction that translated code leaves to the interpreter: what comes next is the caller's business.
    pub(crate) alone: bool,
    /// A debugger wants a look before it is executed: see [`super::debug`].
    pub(crate) checked: bool,
    slots: Box<[Slot]>,
}

/// What a block is made of. The first of the slots is [`COUNT`], and is no instruction.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) slots: Vec<Slot>,
    pub(crate) count: u32,
    pub(crate) long: u64,
    pub(crate) source: Vec<u16>,
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
    /// Of a block at `physical`, without instructions. The memory of `old` parts is used again.
    pub(crate) fn begin(physical: u64, old: Self) -> Self {
        let Self { mut slots, mut source, .. } = old;
        slots.clear();
        slots.push(COUNT);
        source.clear();
        Self { slots, source, physical, ..Self::default() }
    }
}

impl Block {
    /// How many bytes of guest code it is.
    pub(crate) fn bytes(&self) -> u64 {
        2 * self.source.len() as u64
    }

    /// A block; its last slot is one that ends it.
    pub(crate) fn new(parts: &Parts) -> Self {
        let slots: Box<[Slot]> = Box::from(parts.slots.as_slice());
        let bytes = i64::try_from(2 * parts.source.len()).unwrap_or(i64::MAX);
        let exit = |offset: i64| {
            let page_offset = (parts.physical & 0xfff).cast_signed();
            let inside = parts.second_half.is_none() && (0..0x1000).contains(&(page_offset.saturating_add(offset)));
            Exit { offset, target: Cell::new(None), inside }
        };
        let counting: NonNull<Slot> = NonNull::from(&*slots).cast();
        // SAFETY: the counting slot is not the last.
        let first = unsafe { counting.add(1) };
        Self {
            entry: if parts.heat.is_some() { counting } else { first },
            first,
            heat: Cell::new(parts.heat.unwrap_or(0)),
            unit: Cell::new((0, 0)),
            lives: Cell::new(true),
            count: parts.count,
            exits: [exit(bytes), exit(parts.taken)],
            long: parts.long,
            source: Box::from(parts.source.as_slice()),
            physical: parts.physical,
            second_half: parts.second_half,
            kept: true,
            alone: false,
            checked: parts.checked,
            slots,
        }
    }

    /// Where it is entered.
    #[inline(always)]
    pub(crate) fn entry(&self) -> Cursor {
        Cursor(self.entry)
    }

    /// A block that is neither linked to others nor others to it.
    pub(crate) fn alone(parts: &Parts) -> Self {
        let mut block = Self::new(parts);
        (block.kept, block.alone) = (false, true);
        for exit in &mut block.exits {
            exit.inside = false;
        }
        block
    }

    /// The first instruction.
    #[inline(always)]
    pub(crate) fn first(&self) -> Cursor {
        Cursor(self.first)
    }

    /// Whether an exit inside the page may lead to it for good. Where its second half is, if it has one, depends on the translation.
    pub(crate) fn may_be_linked(&self) -> bool {
        self.kept && self.second_half.is_none() && !self.checked
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
        let half = |at: usize| self.source.get(at).copied().map_or(0, u32::from);
        if self.long >> index & 1 == 0 { half(at) } else { half(at) | half(at + 1) << 16 }
    }

    /// The length of instruction `index` in bytes.
    pub(crate) fn length(&self, index: u32) -> u64 {
        if self.long >> index & 1 == 0 { 2 } else { 4 }
    }
}

/// A live block. Equal are only those of the same block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRef(NonNull<Block>);

impl Deref for BlockRef {
    type Target = Block;

    #[inline(always)]
    fn deref(&self) -> &Block {
        // SAFETY: see the module's invariant; blocks change only through their cells.
        unsafe { self.0.as_ref() }
    }
}

impl BlockRef {
    /// A reference to a block that others keep alive while it is executed.
    pub(crate) fn new(block: &Block) -> Self {
        Self(NonNull::from(block))
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
    jumps: Box<[Jump; JUMPS]>,
    blocks: HashMap<u64, Box<Block>, BuildHasherDefault<AddressHasher>>,
    /// By page, the addresses of the blocks that have bytes in it, and maybe of others.
    pages: ByPage<Vec<u64>>,
    /// Blocks that were dropped.
    #[expect(clippy::vec_box, reason = "a block that the jump cache leads to must not move")]
    old: Vec<Box<Block>>,
    /// The last block that is not to be kept.
    single: Option<Box<Block>>,
    slots_count: usize,
    /// What the last block was made of, for its memory.
    pub(crate) scratch: Parts,
}

// SAFETY: the pointers are into boxes that the cache owns; nothing in it is tied to a thread.
unsafe impl Send for BlockCache {}

impl BlockCache {
    pub(crate) fn new() -> Self {
        Self {
            maker: Maker::default(),
            jumps: Box::new([Jump { pc: 0, context: Context::NONE, block: None }; JUMPS]),
            blocks: HashMap::default(),
            pages: HashMap::default(),
            old: Vec::new(),
            single: None,
            slots_count: 0,
            scratch: Parts::default(),
        }
    }

    #[inline(always)]
    fn jump_index(pc: u64) -> usize {
        host_size(pc >> 1 ^ pc >> 13) & (JUMPS - 1)
    }

    /// The block for `pc` in a fetch context, if it was entered and may be executed.
    #[inline(always)]
    pub(crate) fn jump(&self, pc: u64, context: Context) -> Option<BlockRef> {
        let jump = &self.jumps[Self::jump_index(pc)];
        if jump.pc == pc && jump.context == context { jump.block.filter(|block| block.lives.get()) } else { None }
    }

    /// Enters a block for `pc` in a fetch context.
    pub(crate) fn enter_jump(&mut self, pc: u64, context: Context, block: BlockRef) {
        self.jumps[Self::jump_index(pc)] = Jump { pc, context, block: Some(block) };
    }

    fn forget_jumps(&mut self) {
        self.jumps.fill(Jump { pc: 0, context: Context::NONE, block: None });
    }

    /// The block at a physical address.
    pub(crate) fn get(&self, physical: u64) -> Option<BlockRef> {
        self.blocks.get(&physical).map(|block| BlockRef(NonNull::from(&**block)))
    }

    /// Whether the block at a physical address is `block`.
    #[cfg(test)]
    pub(crate) fn is_same(&self, physical: u64, block: Option<BlockRef>) -> bool {
        self.get(physical).map(|block| block.0) == block.map(|block| block.0)
    }

    /// Keeps a block; it replaces one at the same address.
    pub(crate) fn insert(&mut self, block: Block) -> BlockRef {
        self.slots_count += block.slots.len() + 8;
        let physical = block.physical;
        for at in [Some(physical), block.second_half].into_iter().flatten() {
            self.pages.entry(at >> PAGE_SHIFT).or_default().push(physical);
        }
        let block = Box::new(block);
        let reference = BlockRef(NonNull::from(&*block));
        let replaced = self.blocks.insert(physical, block);
        self.retire(replaced);
        reference
    }

    /// Drops the blocks that have bytes in the page of `physical`. Those that are being executed may go on to their end.
    pub(crate) fn drop_page(&mut self, physical: u64) {
        for at in self.pages.remove(&(physical >> PAGE_SHIFT)).unwrap_or_default() {
            let block = self.blocks.remove(&at);
            self.retire(block);
        }
    }

    /// Drops the blocks with bytes in `pages` that are no longer what a program's memory holds, as [`Self::drop_page`] does.
    pub(crate) fn drop_different(&mut self, program: &dyn UserMemory, pages: &RangeInclusive<u64>) {
        let Self { blocks, old, pages: places, .. } = self;
        let code = Code::new(program);
        let is_different = |at: u64, block: &Block| {
            (at..).step_by(2).zip(&block.source).any(|(at, &was)| code.half(at) != Some(was.into()))
        };
        for page in chosen(places, pages) {
            let Some(addresses) = places.get_mut(&page) else { continue };
            addresses.retain(|at| {
                let stays = blocks.get(at).map(|block| !is_different(*at, block));
                if stays == Some(false)
                    && let Some(block) = blocks.remove(at)
                {
                    // Someone may be executing it.
                    block.lives.set(false);
                    old.push(block);
                }
                stays == Some(true)
            });
        }
    }

    /// Drops all blocks, as [`Self::drop_page`] does.
    pub(crate) fn drop_all(&mut self) {
        self.pages.clear();
        for block in std::mem::take(&mut self.blocks).into_values() {
            self.retire(Some(block));
        }
    }

    fn retire(&mut self, block: Option<Box<Block>>) {
        if let Some(block) = block {
            block.lives.set(false);
            self.old.push(block);
        }
    }

    /// Keeps a block only until the next call: it is neither linked to others nor others to it.
    pub(crate) fn insert_single(&mut self, mut block: Block) -> BlockRef {
        block.kept = false;
        for exit in &mut block.exits {
            exit.inside = false;
        }
        BlockRef(NonNull::from(&**self.single.insert(Box::new(block))))
    }

    /// Whether the cache has outgrown its bound, so that [`Self::clear`] is due.
    pub(crate) fn is_full(&self) -> bool {
        self.slots_count > SLOTS_MAX
    }

    /// Frees all blocks. No reference may be kept; answers one to a block that does nothing, to put in the place of others.
    pub(crate) fn clear(&mut self) -> BlockRef {
        self.forget_jumps();
        self.maker.clear();
        self.pages.clear();
        self.blocks.clear();
        self.old.clear();
        self.slots_count = 0;
        let mut parts = Parts::begin(0, Parts::default());
        parts.slots.push(Slot { handler: nothing, rd: 0, rs1: 0, rs2: 0, extra: 0, imm: 0 });
        self.insert_single(Block::new(&parts))
    }
}
