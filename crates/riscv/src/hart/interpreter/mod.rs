//! The interpreter: runs blocks of predecoded instructions.
//!
//! ```text
//! run -> look at signals, timers, interrupts
//!     -> a slice: some thousand instructions
//!          find the block at the pc -> first handler -> next handler -> ... -> handler that ends the block
//!                                          ^                                      | linked, or in the jump cache
//!                                          +--------------------------------------+
//! ```
//!
//! Each handler executes one instruction and calls the next one's as its last act. Compiled with optimisation that call is a jump; without, the stack
//! grows by a frame for each instruction of a slice, which is why a slice is short then ([`SLICE`]).
//!
//! **Inside a block** the program counter and the count of retired instructions are those of its beginning; a handler
//! that needs them, or that traps, computes them from its place in the block ([`Hart::settle`]).
//!
//! **At the end of a block** the budget of the slice and the poll word are looked at: the safe point.
//!
//! Chapters of the manual are modules: [`integer`], [`control`], [`memory`], [`multiply`], [`atomic`], [`float`], [`bits`], [`crypto`], [`system`];
//! [`lower`] says which handler an operation has. To add an instruction: a line in [`crate::isa::table`], a handler, and its line in [`lower`].

mod atomic;
mod bits;
mod control;
mod crypto;
mod float;
mod integer;
mod lower;
mod memory;
mod multiply;
mod system;
#[cfg(test)]
mod tests;

pub(crate) use lower::ends_block;

use std::ptr::NonNull;

use machine::address::PAGE_SIZE;

use crate::hart::access::{Fetched, half};
use crate::hart::block::{BLOCK_INSTRUCTIONS_MAX, BlockRef, Cursor, DONE, Flow, OwnBlock, Parts, Side};
use crate::hart::translate::{After, CodeCache};
use crate::hart::trap::Trap;
use crate::hart::{Exact, Exit, Fence, Hart, Privilege};
use crate::isa::decode;

/// Instructions between two looks at the clock.
const SLICE: i64 = if cfg!(debug_assertions) { 256 } else { 16384 };
/// Programs have no timers and take no interrupts: so many times as many, before somebody's signal is seen.
const PROGRAM_SLICES: i64 = 4;
/// So many traps without an instruction between them, and there will never be one.
const TRAPS_MAX: u32 = 8;

/// The next instruction of the block.
#[inline(always)]
fn next(hart: &mut Hart, cursor: Cursor) -> Flow {
    cursor.next().execute(hart)
}

/// Leaves the block to one of its exits.
#[inline(always)]
fn chain(hart: &mut Hart, side: Side) -> Flow {
    let block = hart.block;
    hart.pc = hart.pc.wrapping_add(block.exits[side as usize].offset.cast_unsigned());
    hart.budget -= i64::from(block.count);
    follow(hart, block, side)
}

/// Continues at an exit of `block`; the program counter is already there.
#[inline(always)]
fn follow(hart: &mut Hart, block: BlockRef, side: Side) -> Flow {
    if let Some(target) = block.exits[side as usize].target.get()
        && hart.budget >= i64::from(target.count)
        && !hart.signals.is_polled()
    {
        hart.block = target;
        return target.entry().execute(hart);
    }
    match side {
        Side::Next => leave_next(hart),
        Side::Taken => leave_taken(hart),
    }
}

/// Continues where no link leads.
#[inline(never)]
fn leave_next(hart: &mut Hart) -> Flow {
    if hart.block.exits[Side::Next as usize].inside { Flow::LinkNext } else { jump(hart) }
}

/// As [`leave_next`], for the other exit.
#[inline(never)]
fn leave_taken(hart: &mut Hart) -> Flow {
    if hart.block.exits[Side::Taken as usize].inside { Flow::LinkTaken } else { jump(hart) }
}

/// Continues at the program counter, in whatever page.
#[inline(always)]
fn jump(hart: &mut Hart) -> Flow {
    if let Some(block) = hart.blocks.jump(hart.pc, hart.tlb.fetch_context())
        && hart.budget >= i64::from(block.count)
        && !hart.signals.is_polled()
    {
        hart.block = block;
        return block.entry().execute(hart);
    }
    Flow::Find
}

/// Where control came from, if it can be linked to where it goes.
#[derive(Clone, Copy)]
enum From {
    Nowhere,
    Block(BlockRef, Side),
    /// The place of the jump in the code cache.
    Unit(u32),
}

impl From {
    fn unit(self) -> Option<u32> {
        if let Self::Unit(site) = self { Some(site) } else { None }
    }
}

/// The block of one instruction that translated code leaves to the interpreter. It may be executed wherever the program counter is.
pub(crate) fn single_block(bits: u32) -> OwnBlock {
    let long = bits & 3 == 3;
    let lowered = lower::lower(decode(bits), 0);
    let mut parts = Parts::new(0);
    parts.push(lowered.slot, bits, long);
    parts.slots.push(DONE);
    parts.taken = lowered.taken;
    OwnBlock::alone(&parts)
}

impl Hart {
    /// Executes until one of the reasons of [`Exit`].
    pub fn run(&mut self) -> Exit {
        self.enter_guest();
        let exit = if self.debug.is_some() {
            self.run_debugged()
        } else {
            loop {
                if let Some(exit) = self.look() {
                    break exit;
                }
                if let Some(exit) = self.execute_slice() {
                    break exit;
                }
            }
        };
        self.leave_guest();
        match &exit {
            Exit::Attention => self.stats.attentions += 1,
            Exit::Idle => self.stats.idles += 1,
            Exit::SupervisorCall => self.stats.monitor_calls += 1,
            Exit::Debug(_) | Exit::Exception(_) | Exit::Fault(_) => {}
        }
        exit
    }

    /// From here on instructions may be executed.
    pub(crate) fn enter_guest(&self) {
        self.signals.enter();
        if self.program.is_none() {
            self.withdrawals.enter();
        }
    }

    /// From here on none are.
    pub(crate) fn leave_guest(&self) {
        if self.program.is_none() {
            self.withdrawals.leave();
        }
        self.signals.leave();
    }

    /// As [`Self::run`], but for at most [`Exact::left`] instructions and traps, which it counts down; `None` once none are left. Nothing
    /// that other threads do has an influence on the instruction before which anything happens: attention is not looked at, and interrupts and fences
    /// are where [`Exact::look_due`] says so, and where an instruction of the hart's own has made an interrupt deliverable.
    pub fn run_exactly(&mut self, exact: &mut Exact) -> Option<Exit> {
        self.exact = Some(*exact);
        self.enter_guest();
        // This is no look at interrupts: entries that the hart must not have are dropped before it executes anything.
        self.withdrawals.look(&self.memory, &mut self.tlb);
        let exit = if self.debug.is_some() { self.run_debugged_exactly() } else { self.run_slices_exactly() };
        self.leave_guest();
        *exact = self.exact.take().unwrap_or_default();
        exit
    }

    fn run_slices_exactly(&mut self) -> Option<Exit> {
        while self.exact_left() > 0 {
            self.look_if_due();
            if let Some(exit) = self.execute_slice() {
                return Some(exit);
            }
        }
        None
    }

    pub(crate) fn exact_left(&self) -> i64 {
        self.exact.map_or(0, |exact| exact.left)
    }

    pub(crate) fn look_if_due(&mut self) {
        if self.exact.as_mut().is_some_and(|exact| std::mem::take(&mut exact.look_due)) {
            // Who wants attention gets it at the end of the turn, and must not put off an interrupt until then.
            self.look_outside();
            self.look_at_interrupts();
        }
    }

    /// Interprets some thousand instructions.
    pub(crate) fn execute_slice(&mut self) -> Option<Exit> {
        let cache = self.translator.cache.as_ref();
        let slice = cache.map_or(SLICE, |cache| i64::from(cache.options().slice.max(1)));
        let slice = if self.program.is_some() { slice * PROGRAM_SLICES } else { slice };
        let instructions = self.exact.map_or(slice, |exact| exact.left.min(slice));
        self.execute(instructions, false)
    }

    /// Interprets one instruction, or takes the trap that it causes.
    pub(crate) fn execute_one(&mut self) -> Option<Exit> {
        self.execute(1, true)
    }

    /// Executes one instruction, or takes one trap or interrupt. `None` if nothing else happened.
    pub fn step(&mut self) -> Option<Exit> {
        self.enter_guest();
        let pc = self.pc;
        let exit = self.look().or_else(|| {
            // Not if an interrupt was taken.
            if self.pc == pc { self.execute_one() } else { None }
        });
        self.leave_guest();
        exit
    }

    /// What the outside wants, and whether an interrupt is due.
    pub(crate) fn look(&mut self) -> Option<Exit> {
        if self.look_outside() {
            return Some(Exit::Attention);
        }
        self.look_at_interrupts();
        None
    }

    /// Takes an interrupt if one is due.
    fn look_at_interrupts(&mut self) {
        if let Some(bit) = self.deliverable_interrupt() {
            self.take_interrupt(bit);
        }
    }

    /// Fences and timers; whether someone wants attention.
    pub(crate) fn look_outside(&mut self) -> bool {
        let is_machine = self.program.is_none();
        if is_machine {
            self.withdrawals.look(&self.memory, &mut self.tlb);
        }
        let polled = self.signals.take_poll();
        if polled.fence() {
            let (fences, ticket) = self.signals.take_fences();
            for fence in fences {
                self.fence(fence);
            }
            self.signals.acknowledge_fences(ticket);
        }
        // Programs have neither timers nor interrupts.
        if is_machine {
            self.look_at_timers();
        }
        polled.attention()
    }

    fn begin_slice(&mut self, instructions: i64) {
        self.retired_at_end = self.retired().wrapping_add(instructions.cast_unsigned());
        self.budget = instructions;
    }

    /// Executes a slice of so many `instructions`. `single`: blocks of one instruction.
    fn execute(&mut self, instructions: i64, single: bool) -> Option<Exit> {
        self.begin_slice(instructions);
        let translating = !single && self.debug.is_none();
        let cache = self.translator.cache.as_ref().filter(|_| translating).map(|cache| NonNull::from(&**cache));
        // SAFETY: the hart keeps its handle: it is replaced only between slices. Another one here would be counted, at each system call of a program.
        let cache: Option<&CodeCache> = cache.map(|cache| unsafe { cache.as_ref() });
        if let Some(cache) = cache {
            cache.begin();
        }
        let exit = self.execute_blocks(single, cache, instructions);
        if let Some(cache) = cache {
            cache.end();
            if std::mem::take(&mut self.translator.flush_due) {
                cache.flush();
            }
        }
        if let Some(exact) = &mut self.exact {
            exact.left -= instructions - self.budget;
        }
        exit
    }

    /// Executes blocks until `instructions` are done: about so many, or exactly so many inside [`Self::run_exactly`] and for a single one.
    fn execute_blocks(&mut self, single: bool, cache: Option<&CodeCache>, instructions: i64) -> Option<Exit> {
        let must_be_exact = single || self.exact.is_some();
        // Who has left for what comes next, and will be linked to it.
        let mut from = From::Nowhere;
        // The rest of the slice is less than a unit.
        let mut ending = false;
        while self.budget > 0 && (self.exact.is_some() || !self.signals.is_polled()) {
            if self.blocks.is_full() {
                from = From::Nowhere;
                self.block = self.blocks.clear();
            }
            let mut block = match self.find(if single { 1 } else { usize::MAX }) {
                Ok(block) => block,
                Err(trap) => {
                    from = From::Nowhere;
                    self.trap = trap;
                    if let Some(exit) = self.raise() {
                        return Some(exit);
                    }
                    continue;
                }
            };
            if i64::from(block.count) > self.budget {
                if !must_be_exact && self.budget < instructions {
                    return None;
                }
                // A slice ends exactly where it should.
                from = From::Nowhere;
                block = match self.find(usize::try_from(self.budget).unwrap_or(1)) {
                    Ok(block) => block,
                    Err(_) => continue,
                };
            }
            if let From::Block(from, side) = from
                && block.may_be_linked()
            {
                from.exits[side as usize].target.set(Some(block));
            }
            let mut link = from.unit();
            from = From::Nowhere;
            self.block = block;
            let mut flow = block.entry().execute(self);
            loop {
                flow = match (flow, cache) {
                    (Flow::Resume, _) => match self.resume.take() {
                        Some(cursor) => cursor.execute(self),
                        None => Flow::Find,
                    },
                    // The interpreter may have gone on to another block than the one that was to be linked.
                    (Flow::Translated, Some(cache)) if !ending => {
                        match self.execute_unit(cache, link.take().filter(|_| self.block == block)) {
                            After::Flow(flow) => flow,
                            After::Link(site) => {
                                from = From::Unit(site);
                                Flow::Find
                            }
                            After::Ending if !must_be_exact && self.budget < instructions => return None,
                            After::Ending => {
                                ending = true;
                                Flow::Find
                            }
                        }
                    }
                    (Flow::Translated, _) => self.block.first().execute(self),
                    _ => break,
                };
            }
            match flow {
                Flow::Find | Flow::Resume | Flow::Translated | Flow::Done => {}
                Flow::LinkNext => from = From::Block(self.block, Side::Next),
                Flow::LinkTaken => from = From::Block(self.block, Side::Taken),
                Flow::Look => {
                    if let Some(exact) = &mut self.exact {
                        exact.look_due = true;
                    }
                    return None;
                }
                Flow::Trap => {
                    if let Some(exit) = self.raise() {
                        return Some(exit);
                    }
                }
                Flow::Exit => return Some(self.exit.take().unwrap_or(Exit::Attention)),
            }
        }
        None
    }

    /// Takes the exception in `trap`. An endless row of them is a fault.
    fn raise(&mut self) -> Option<Exit> {
        // A debugger has the hart stop in front of the instruction.
        if let Some(exit) = self.exit.take() {
            return Some(exit);
        }
        let (pc, trap) = (self.pc, self.trap);
        if self.program.is_some() {
            return Some(Exit::Exception(trap));
        }
        self.take_exception(trap);
        // A trap uses up budget, too, so that a slice of nothing but traps ends.
        self.budget -= 1;
        self.retired_at_end = self.retired_at_end.wrapping_sub(1);
        if self.retired() != self.trapped_at {
            self.trapped_at = self.retired();
            self.traps_count = 0;
            return None;
        }
        self.traps_count += 1;
        // Below M-mode, firmware may yet be called by an interrupt.
        let alone = self.config.monitor_sbi || self.privilege == Privilege::Machine;
        (alone && self.traps_count > TRAPS_MAX).then(|| {
            Exit::Fault(format!(
                "endless traps: {:?} (value {:#x}) at pc {pc:#x}, handler at {:#x}, in {:?} mode",
                trap.cause, trap.value, self.pc, self.privilege
            ))
        })
    }

    /// Makes the program counter and the count of retired instructions exact: about to execute the instruction at `cursor`. The handler must then end the
    /// block by other means than [`chain`]. Answers the instruction's number in the block.
    fn settle(&mut self, cursor: Cursor) -> u32 {
        let block = self.block;
        let index = block.index(cursor);
        self.pc = self.pc.wrapping_add(block.offset(index));
        self.budget -= i64::from(index);
        index
    }

    /// The instruction at `cursor` traps.
    #[cold]
    fn trap_at(&mut self, cursor: Cursor, trap: Trap) -> Flow {
        self.settle(cursor);
        self.trap = trap;
        Flow::Trap
    }

    /// The instruction at `cursor` is illegal, or is so now.
    #[cold]
    fn illegal_at(&mut self, cursor: Cursor) -> Flow {
        let block = self.block;
        let bits = block.bits(block.index(cursor));
        self.trap_at(cursor, Trap::new(crate::hart::trap::Cause::IllegalInstruction, bits.into()))
    }

    /// The instruction at `cursor` is done, in a way that used the stack: return, so that the next one has it again.
    fn resume_after(&mut self, cursor: Cursor) -> Flow {
        self.resume = Some(cursor.next());
        Flow::Resume
    }

    /// The block at the program counter, decoded if need be. One of at most `limit` instructions, if that is less than blocks have, is for now only.
    fn find(&mut self, limit: usize) -> Result<BlockRef, Trap> {
        let single = limit < BLOCK_INSTRUCTIONS_MAX;
        let (pc, context) = (self.pc, self.tlb.fetch_context());
        if !single && let Some(block) = self.blocks.jump(pc, context) {
            return Ok(block);
        }
        if self.debug.is_some() && !single {
            self.look_at_points()?;
        }
        let fetched = self.fetch_address(pc)?;
        let physical = fetched.physical;
        if single || fetched.page.is_none() {
            return self.decode_for_now(pc, fetched, if fetched.page.is_some() { limit } else { 1 });
        }
        if let Some(block) = self.blocks.get(physical.0)
            && self.still_right(pc, block)?
        {
            if !block.checked {
                // Fetching may have selected a new context.
                self.blocks.enter_jump(pc, self.tlb.fetch_context(), block);
            }
            return Ok(block);
        }
        self.stats.blocks_decoded += 1;
        if self.debug.is_none() && self.blocks.is_first_visit(physical.0) {
            return self.decode_for_now(pc, fetched, BLOCK_INSTRUCTIONS_MAX);
        }
        self.watch_code(physical.0);
        let mut parts = std::mem::take(&mut self.blocks.scratch);
        self.assemble(pc, fetched, BLOCK_INSTRUCTIONS_MAX, &mut parts)?;
        if let Some(cache) = &self.translator.cache
            && parts.second_half.is_none()
            && !parts.checked
        {
            parts.heat = Some(cache.options().threshold.saturating_sub(1));
        }
        // Jumps find it from the second time on: most of a program is not executed again, or comes from where links are.
        let block = self.blocks.insert(&parts);
        self.blocks.scratch = parts;
        Ok(block)
    }

    /// A block of at most `limit` instructions from `pc` that is not kept.
    fn decode_for_now(&mut self, pc: u64, fetched: Fetched, limit: usize) -> Result<BlockRef, Trap> {
        let mut parts = std::mem::take(&mut self.blocks.scratch);
        self.assemble(pc, fetched, limit, &mut parts)?;
        let block = self.blocks.insert_single(&parts);
        self.blocks.scratch = parts;
        Ok(block)
    }

    /// Whether `block`, found by its physical address, is what is at `pc` now.
    fn still_right(&mut self, pc: u64, block: BlockRef) -> Result<bool, Trap> {
        if let Some(second_half) = block.second_half {
            let fetched = self.fetch_address(pc.wrapping_add(2))?;
            if fetched.physical.0 != second_half || fetched.page.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decodes at most `limit` instructions from `pc` into `parts`.
    fn assemble(&mut self, pc: u64, fetched: Fetched, limit: usize, parts: &mut Parts) -> Result<(), Trap> {
        let physical = fetched.physical.0;
        let page_end = (physical | (PAGE_SIZE - 1)) + 1;
        parts.begin(physical);
        let mut offset = 0;
        loop {
            let at = physical + offset;
            let bits = match fetched.page {
                // SAFETY: the page holds until the hart acknowledges a fence, and both halves are in it.
                Some(page) if at + 4 <= page_end => unsafe { half(page, at) | half(page, at + 2) << 16 },
                // The last half of the page, or nobody knows how much may be fetched with it.
                _ if parts.count == 0 => {
                    let bits = self.fetch(pc)?;
                    if bits & 3 == 3 && at + 4 > page_end {
                        self.first_in_two_pages(pc, bits, limit, parts)?
                    } else {
                        bits
                    }
                }
                // SAFETY: as above.
                Some(page) => match unsafe { half(page, at) } {
                    low if low & 3 == 3 => break,
                    low => low,
                },
                None => break,
            };
            let long = bits & 3 == 3;
            if let Some(debug) = &self.debug
                && debug.is_checked(at, if long { bits } else { bits & 0xffff })
            {
                if parts.count > 0 {
                    break;
                }
                parts.checked = true;
            }
            let lowered = lower::lower(decode(bits), offset);
            parts.push(lowered.slot, bits, long);
            offset += 2 + 2 * u64::from(long);
            if lowered.ends_block {
                parts.taken = lowered.taken;
                return Ok(());
            }
            if parts.count as usize >= limit || parts.second_half.is_some() || physical + offset >= page_end {
                break;
            }
        }
        parts.slots.push(lower::fall_through());
        Ok(())
    }

    /// The bits of the block's first instruction, whose second half lies in the next page.
    fn first_in_two_pages(&mut self, pc: u64, bits: u32, limit: usize, parts: &mut Parts) -> Result<u32, Trap> {
        let second = self.fetch_address(pc.wrapping_add(2))?.physical.0;
        parts.second_half = Some(second);
        if limit == 1 {
            return Ok(bits);
        }
        self.watch_code(second);
        Ok(bits & 0xffff | self.fetch_half(pc.wrapping_add(2))? << 16)
    }

    /// Interprets the one instruction at the program counter, wherever it is.
    pub(crate) fn interpret_here(&mut self) -> Flow {
        match self.find(1) {
            Ok(block) => {
                self.block = block;
                block.first().execute(self)
            }
            Err(trap) => {
                self.trap = trap;
                Flow::Trap
            }
        }
    }

    /// Performs a fence on this hart at once.
    pub fn fence(&mut self, fence: Fence) {
        match fence {
            Fence::Instructions => {
                self.stats.instruction_fences += 1;
                self.drop_changed_code();
                self.drop_changed_units();
            }
            Fence::Code { start, length } => {
                self.stats.instruction_fences += 1;
                self.drop_different_code(start, length);
            }
            Fence::Translations { start, length, asid } => {
                self.stats.translation_fences += 1;
                // Past some pages, forgetting a whole space is cheaper.
                let pages = length.saturating_add(start & (PAGE_SIZE - 1)).div_ceil(PAGE_SIZE);
                if pages > 64 {
                    match asid {
                        Some(asid) => self.tlb.flush_space(asid),
                        None => self.tlb.flush_all(),
                    }
                } else {
                    for page in 0..pages {
                        self.tlb.flush_page(start.wrapping_add(page * PAGE_SIZE), asid);
                    }
                }
                self.select_context();
            }
        }
    }
}
