//! The translator: guest code that is executed often becomes host code.
//!
//! ```text
//! interpreter: block executed often --> code cache --none--> gather -> emit -> publish
//!                                          |                                     |
//!                                          +-------------> enter <---------------+
//!                                                            |
//!                    unit --link--> unit --jump cache--> unit --return stack--> unit ...
//!                                                            |
//!              find, link, budget, interpret, trap <------ leave
//! ```
//!
//! One generator serves both kinds of units. A *block* is a basic block with the default assignment of guest registers to host registers. A *region* is
//! a loop, or several, with an assignment of its own. Since an assignment is the same in all of a unit ([`mapping`]), the place of each guest register
//! is known at every host address: traps are precise wherever they happen, at no cost, even if the host's memory management finds them ([`CodeCache::fault`]).
//! Two kinds of values may lag behind the guest's for a while, which is noted for each instruction: upper halves of words ([`words`]) and which NaN it is
//! ([`float`]).
//! Translating costs microseconds, so it is done at once, by the hart that needs it.
//!
//! **Keys.** Units belong to physical addresses in system machines, so that address spaces and harts share them, and never leave their page; to
//! virtual addresses in user machines, where they have no such bound.
//!
//! **Budget.** The head of each basic block charges its instructions, and leaves if fewer are left in the slice; in user machines only the heads of loops and
//! of units look, so that a slice may be a few hundred instructions longer. Where slices must end exactly, the
//! interpreter executes the rest; else the slice is over. The count of retired instructions is exact at every exit. Signals and the clock are looked
//! at between slices only.
//!
//! **What is not translated** is executed by the interpreter's handlers, called out of the unit ([`emit`]), or at its end. System calls of programs are called
//! out as well, if somebody answers them there ([`SystemCalls`](crate::hart::user::SystemCalls)); the hart is not running meanwhile, and the code may be gone afterwards.
//!
//! Only x86-64 hosts translate.

mod atomic;
mod bits;
mod cache;
mod control;
mod crypto;
mod emit;
mod flags;
mod float;
mod flow;
mod fold;
mod gather;
mod groups;
mod integer;
mod mapping;
mod memory;
mod options;
mod packed;
mod regions;
mod spots;
mod state;
#[cfg(test)]
mod tests;
mod trampoline;
#[cfg(test)]
mod values;
mod words;

use std::ptr::NonNull;
use std::sync::Arc;

use codegen::x64::Gpr;
use machine::GuestPhysical;
use machine::memory::GuestMemory;
use machine::memory::code::Maker;

pub use cache::{CacheStats, CodeCache, UnitInfo};
pub use options::{Options, UnknownOption};

use self::cache::Untranslated;
use self::emit::{Exit, Reason};
use self::gather::Source;
pub(crate) use self::state::HartState;
use crate::hart::Hart;
use crate::hart::access::Fetched;
use crate::hart::block::{BlockRef, Flow};
use crate::hart::code::ALL_PAGES;
use crate::hart::trap::{Cause, Trap};
use crate::hart::user::Code;

/// What comes after translated code.
pub(crate) enum After {
    /// What the interpreter's loop knows.
    Flow(Flow),
    /// The next block is at the program counter, and the jump at this place may be linked to it.
    Link(u32),
    /// The next unit is longer than the slice.
    Ending,
}

/// A unit was left for a guest address that the hart already has.
const LEFT: u64 = 0;
/// A call out ended with a flow that the hart has.
const CALLED_OUT: u64 = 1;
/// The host's memory management found a fault in the instruction that the hart is at: [`CodeCache::fault`].
const FAULTED: u64 = 2;

/// The instructions of a page of guest memory; places are offsets in it.
struct PhysicalPage<'a> {
    memory: &'a GuestMemory,
    base: u64,
}

impl Source for PhysicalPage<'_> {
    fn bits(&self, place: u64) -> Option<u32> {
        let half = |place: u64| {
            let at = GuestPhysical(self.base.checked_add(place).filter(|_| place < 0x1000)?);
            self.memory.load::<u16>(at).ok().map(u32::from)
        };
        let low = half(place)?;
        if low & 3 == 3 { Some(low | half(place + 2)? << 16) } else { Some(low) }
    }
}

/// Places are addresses.
impl Source for Code<'_> {
    fn bits(&self, place: u64) -> Option<u32> {
        let low = self.half(place)?;
        if low & 3 == 3 { Some(low | self.half(place.wrapping_add(2))? << 16) } else { Some(low) }
    }
}

impl Hart {
    /// Executes the hart's block translated, from its beginning. `link`: the jump that led here and may be linked.
    pub(crate) fn execute_unit(&mut self, cache: &CodeCache, link: Option<u32>) -> After {
        let generation = cache.generation();
        if self.translator.generation != generation {
            self.translator.generation = generation;
            self.translator.forget_jumps();
        }
        let block = self.block;
        let key = block.physical;
        let code = match block.unit.get() {
            (of, code) if of == generation => code,
            _ => {
                let translated = if let Some(program) = &self.program {
                    cache.translate(key, self.pc, key, &Code::new(&**program), |_| {})
                } else {
                    let Self { memory, withdrawals, tlb, pc, .. } = self;
                    let memory = Arc::clone(memory);
                    let number = memory.page_number(GuestPhysical(key));
                    let page = PhysicalPage { memory: &memory, base: key & !0xfff };
                    let watch =
                        |maker: &mut Maker| maker.watch(memory.code(), number, || withdrawals.look(&memory, tlb));
                    cache.translate(key, *pc, key & 0xfff, &page, watch)
                };
                match translated {
                    Ok(code) => {
                        block.unit.set((generation, code));
                        code
                    }
                    Err(why) => {
                        if why == Untranslated::Full {
                            self.translator.flush_due = true;
                        }
                        block.heat.set(1 << 10);
                        return After::Flow(block.first().execute(self));
                    }
                }
            }
        };
        if let Some(site) = link {
            cache.link(site, key);
        }
        let (pc, context) = (self.pc, self.tlb.fetch_context());
        self.translator.enter_jump(pc, context, code);
        self.translator.page = if cache.is_flat() { 0 } else { pc & !0xfff };
        self.translator.enter_unit(key, code);
        let mut exit = enter(self, cache, code);
        while exit == LEFT
            && let Some(code) = self.next_unit(cache)
        {
            exit = enter(self, cache, code);
        }
        self.after(exit, cache)
    }

    /// System machines: the unit at the program counter, if it is at hand. A new address space knows no jumps, but its code is often known.
    fn next_unit(&mut self, cache: &CodeCache) -> Option<u64> {
        let go_on = self.budget > 0 && !self.signals.is_polled() && self.translator.generation == cache.generation();
        if cache.is_flat() || !go_on {
            return None;
        }
        let pc = self.pc;
        let code = self.translator.unit(self.tlb.fetch(pc)?.physical | pc & 0xfff)?;
        let context = self.tlb.fetch_context();
        self.translator.enter_jump(pc, context, code);
        self.translator.page = pc & !0xfff;
        Some(code)
    }

    /// What the value that translated code ended with means.
    fn after(&mut self, exit: u64, cache: &CodeCache) -> After {
        match exit {
            LEFT => {
                self.stats.left_to_find += 1;
                return After::Flow(Flow::Find);
            }
            CALLED_OUT => {
                self.stats.left_by_calls += 1;
                return After::Flow(self.translator.flow);
            }
            FAULTED => {
                // The interpreter says which trap it is, or that the page is there by now.
                self.tlb.flush_all();
                self.select_context();
                return After::Flow(self.interpret_here());
            }
            _ => {}
        }
        if let Some((key, place)) = cache.gone(exit) {
            self.stats.left_to_find += 1;
            self.pc = self.translator.page.wrapping_add(place);
            self.translator.forget_unit(key, self.pc);
            if let Some(block) = self.blocks.get(key) {
                block.unit.set((0, 0));
            }
            return After::Flow(Flow::Find);
        }
        // SAFETY: all other values are addresses of exits of units, which live until the next flush; this hart's slice is not over.
        let exit = unsafe { &*(exit as *const Exit) };
        self.pc = self.translator.page.wrapping_add(exit.place);
        self.budget += exit.refund;
        match exit.reason {
            Reason::Find => {
                self.stats.left_to_find += 1;
                After::Flow(Flow::Find)
            }
            Reason::Link(site) => {
                self.stats.left_to_link += 1;
                After::Link(site)
            }
            Reason::Budget => {
                self.stats.left_at_slice_ends += 1;
                if cache.options.regions && !exit.in_region {
                    self.sample(cache, exit.place);
                }
                After::Ending
            }
            Reason::Interpret => {
                self.stats.left_to_interpret += 1;
                let block = exit.block();
                let mut flow = self.interpret_one(block);
                if flow == Flow::Done {
                    // An instruction that has a next one.
                    self.pc = self.pc.wrapping_add(block.bytes());
                    self.budget -= 1;
                    flow = Flow::Find;
                }
                After::Flow(flow)
            }
        }
    }

    /// A slice ended in front of the block at the program counter, which is `place` of its page.
    fn sample(&mut self, cache: &CodeCache, place: u64) {
        let Ok(Fetched { physical, page: Some(_) }) = self.fetch_address(self.pc) else { return };
        if !self.translator.samples.is_enough(physical.0, cache.options.samples) {
            return;
        }
        if let Some(program) = &self.program {
            cache.translate_region(physical.0, place, &Code::new(&**program), |_| {});
            return;
        }
        let Self { memory, withdrawals, tlb, .. } = self;
        let number = memory.page_number(physical);
        let page = PhysicalPage { memory, base: physical.0 & !0xfff };
        let watch = |maker: &mut Maker| maker.watch(memory.code(), number, || withdrawals.look(memory, tlb));
        cache.translate_region(physical.0, place, &page, watch);
    }

    /// Executes a block of one instruction.
    fn interpret_one(&mut self, block: BlockRef) -> Flow {
        self.block = block;
        let mut flow = block.first().execute(self);
        while flow == Flow::Resume {
            flow = match self.resume.take() {
                Some(cursor) => cursor.execute(self),
                None => Flow::Find,
            };
        }
        flow
    }

    /// A fence of instructions: units whose instructions may have changed are dropped.
    pub(crate) fn drop_changed_units(&mut self) {
        if let Some(cache) = &self.translator.cache {
            if let Some(program) = &self.program {
                cache.drop_different(&Code::new(&**program), &ALL_PAGES);
            } else {
                cache.drop_changed(&self.memory);
            }
        }
    }
}

/// Runs translated code from `code` until it is left.
fn enter(hart: &mut Hart, cache: &CodeCache, code: u64) -> u64 {
    // SAFETY: the stub is published code of this signature, and lives as long as the cache, which the caller holds.
    let stub = unsafe { std::mem::transmute::<u64, extern "sysv64" fn(&mut Hart, u64) -> u64>(cache.stubs().enter) };
    flags::load(hart, cache.is_flat());
    let exit = stub(hart, code);
    hart.fflags |= flags::from_mxcsr(hart.translator.mxcsr);
    exit
}

/// Called by units: executes the one instruction of `exit`. Answers zero to go on behind it, else [`CALLED_OUT`].
extern "sysv64" fn call_out(hart: &mut Hart, exit: &Exit) -> u64 {
    hart.pc = hart.translator.page.wrapping_add(exit.place);
    hart.budget += exit.refund;
    hart.fflags |= flags::from_mxcsr(hart.translator.mxcsr);
    if exit.is_call() {
        return call_system(hart, exit.refund);
    }
    let block = exit.block();
    let (after, context) = (hart.pc.wrapping_add(block.bytes()), hart.tlb.fetch_context());
    let flow = hart.interpret_one(block);
    flags::load(hart, false);
    if flow == Flow::Done {
        hart.budget -= exit.refund;
        return 0;
    }
    // It has retired by itself, and what comes next is still what it was.
    if flow == Flow::Find && hart.pc == after && hart.tlb.fetch_context() == context {
        hart.translator.empty_spots();
        hart.budget -= exit.refund - 1;
        return 0;
    }
    hart.translator.flow = flow;
    CALLED_OUT
}

/// A unit is at a system call, in front of which `refund` instructions have been charged too many. When it has been made, there may be no unit any more.
fn call_system(hart: &mut Hart, refund: i64) -> u64 {
    let cache = hart.translator.cache.as_ref().map(|cache| NonNull::from(&**cache));
    // SAFETY: the hart keeps its handle while it executes translated code.
    if cache.is_some_and(|cache| hart.answer_call(unsafe { cache.as_ref() })) {
        // It does not retire.
        hart.budget -= refund - 1;
        return 0;
    }
    hart.trap = Trap::new(Cause::UserCall, 0);
    hart.translator.flow = Flow::Trap;
    CALLED_OUT
}

/// The part of a thread's state in which a fault of the host's memory management found translated code.
pub trait FaultState {
    /// A general-purpose register by its number in the processor's encoding: 0 is `rax`, 15 is `r15`.
    fn register(&self, number: usize) -> u64;
    /// Sets a general-purpose register.
    fn set_register(&mut self, number: usize, value: u64);
    /// The low half of a vector register.
    fn vector(&self, number: usize) -> u64;
    /// Sets the control and status of vector registers, MXCSR.
    fn set_mxcsr(&mut self, value: u32);
    /// The host's program counter.
    fn pc(&self) -> u64;
    /// Sets the host's program counter.
    fn set_pc(&mut self, pc: u64);
}

/// The hart that translated code runs.
///
/// # Safety
/// The state is of a thread in a unit, and nobody else has the hart.
unsafe fn hart_of<'a>(state: &impl FaultState) -> &'a mut Hart {
    let bias = u64::from(mapping::BIAS.unsigned_abs());
    let hart = state.register(mapping::HART as usize).wrapping_sub(bias) as *mut Hart;
    // SAFETY: in translated code the register holds the hart, which the code's caller has lent to it.
    unsafe { &mut *hart }
}

impl CodeCache {
    /// A signal handler has found its thread in a fault: if that was in a unit of this cache, the thread is sent to the exit from translated code, with the
    /// guest's registers, program counter and budget exact in front of the instruction that faulted. The interpreter then executes that, and finds
    /// the trap, if there is one. False if the fault was elsewhere.
    ///
    /// Does not lock, allocate or panic.
    ///
    /// # Safety
    /// The thread executes translated code of this cache if the state's program counter is in it.
    pub unsafe fn fault(&self, state: &mut impl FaultState) -> bool {
        let Some((mark, mapping)) = self.locate(state.pc()) else { return false };
        // SAFETY: the thread is in translated code.
        let hart = unsafe { hart_of(state) };
        for (register, host) in mapping.pairs().filter(|(_, host)| !(mark.rdx_is_lent && *host == Gpr::Rdx)) {
            hart.x.set(register, mark.words.exact(register, state.register(host as usize)));
        }
        for (register, host) in mapping.vectors() {
            hart.f.set(register, mark.loose.exact(register, state.vector(host.0.into())));
        }
        hart.pc = hart.translator.page.wrapping_add(mark.place);
        let budget = state.register(mapping::BUDGET as usize).wrapping_add(mark.refund.into());
        state.set_register(mapping::BUDGET as usize, budget);
        state.set_register(Gpr::Rax as usize, FAULTED);
        state.set_pc(self.stubs().leave_written);
        true
    }

    /// As [`Self::fault`], for an exception of the host's floating-point unit: the instruction is to be executed again, and does not trap then. False if it
    /// was elsewhere.
    ///
    /// # Safety
    /// As for [`Self::fault`].
    pub unsafe fn float_fault(&self, state: &mut impl FaultState) -> bool {
        if self.locate(state.pc()).is_none() {
            return false;
        }
        // SAFETY: the thread is in translated code.
        let again = flags::unwatch(unsafe { &mut hart_of(state).translator });
        again.inspect(|again| state.set_mxcsr(*again)).is_some()
    }
}
