//! One hardware thread: its registers, its privilege, and what it does until something outside is needed.
//!
//! The modules here are parts of one thing, the type [`Hart`]: its state, and the two ways in which it executes, [`interpreter`] and [`translate`]. They
//! know each other; what they stand on ([`crate::isa`], [`crate::mmu`], [`crate::float`]) does not know them.

pub(crate) mod access;
pub(crate) mod arena;
pub(crate) mod block;
pub(crate) mod code;
pub mod csr;
pub mod debug;
pub mod interpreter;
pub mod signals;
pub mod stats;
pub mod status;
#[cfg(test)]
mod tests;
pub mod translate;
pub mod trap;
pub mod user;

use std::sync::Arc;

use machine::bus::Bus;
use machine::memory::GuestMemory;

use self::access::Reservation;
use self::block::{BlockCache, BlockRef, Cursor};
use self::code::Withdrawals;
use self::csr::Csrs;
use self::debug::{Debug, Stop};
use self::stats::EngineStats;
use self::trap::Trap;
use crate::hart::translate::{CodeCache, HartState};
use crate::mmu::pmp::Pmp;
use crate::mmu::tlb::Tlb;

pub use signals::{Fence, HartSignals, interrupt};

/// The time base of `time` and of the timer comparators, in Hz.
pub const TIME_BASE_HZ: u64 = 10_000_000;

/// Bytes in a cache block: what the machine's description says.
pub const CACHE_BLOCK_BYTES: u64 = 64;

/// Where a hart's `time` comes from.
pub trait TimeSource: Send + Sync {
    /// Ticks of [`TIME_BASE_HZ`] since the machine was made.
    fn ticks(&self) -> u64;
}

/// What a hart is built as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HartConfig {
    /// `mhartid`.
    pub id: u64,
    /// Svadu: the hart sets accessed and dirty bits itself once `menvcfg.ADUE` says so. Otherwise Svade: it faults.
    pub hardware_ad_updates: bool,
    /// The monitor is the firmware: the hart starts in S-mode with everything delegated to it, and its environment calls end
    /// [`Hart::run`] with [`Exit::SupervisorCall`].
    pub monitor_sbi: bool,
}

/// A privilege mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Privilege {
    /// U-mode.
    User = 0,
    /// S-mode.
    Supervisor = 1,
    /// M-mode.
    Machine = 3,
}

/// Why [`Hart::run`] came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Someone called [`HartSignals::request_attention`].
    Attention,
    /// The guest waits for an interrupt by `wfi` and none is pending. The program counter is past the instruction. Sleep with [`HartSignals::sleep`] until
    /// [`Hart::next_deadline`] at most, then run again; running earlier is harmless.
    Idle,
    /// An `ecall` from S-mode with [`HartConfig::monitor_sbi`]. The program counter is already past it: answer in `a0` and `a1`, and run again.
    SupervisorCall,
    /// A breakpoint, a watchpoint or the end of a step: see [`debug`].
    Debug(Stop),
    /// An exception in a hart of a program ([`Hart::user`]); `ecall` is one. The program counter is at the instruction.
    Exception(Trap),
    /// The guest can go no further: one line that says why.
    Fault(String),
}

/// How far [`Hart::run_exactly`] is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exact {
    /// Instructions and traps to go; an exit may leave it a little below zero.
    pub left: i64,
    /// Interrupts, fences and timers are to be looked at before the next instruction.
    pub look_due: bool,
}

/// A file of 64-bit registers. An index is a byte, so there are 256 of them and no index is out of bounds; 32 are the guest's.
#[derive(Clone)]
#[repr(transparent)]
pub(crate) struct Registers([u64; 256]);

impl Registers {
    /// Where results for `x0` go: nobody reads it.
    pub(crate) const NOWHERE: u8 = 32;

    #[inline(always)]
    pub(crate) fn get(&self, register: u8) -> u64 {
        self.0[usize::from(register)]
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, register: u8, value: u64) {
        self.0[usize::from(register)] = value;
    }
}

/// A hart. It belongs to one thread at a time; other threads speak to it through its [`HartSignals`].
#[repr(C)]
pub struct Hart {
    pub(crate) x: Registers,
    /// The address of the next instruction; inside a block, of the block.
    pub(crate) pc: u64,
    /// Instructions left in the slice; inside a block, at its beginning.
    pub(crate) budget: i64,
    /// The block being executed; between blocks, any.
    pub(crate) block: BlockRef,
    /// What translated code knows besides.
    pub(crate) translator: HartState,
    pub(crate) tlb: Tlb,
    pub(crate) signals: Arc<HartSignals>,
    pub(crate) blocks: BlockCache,
    pub(crate) csrs: Csrs,
    /// Accrued exception flags.
    pub(crate) fflags: u32,
    pub(crate) privilege: Privilege,
    pub(crate) reservation: Reservation,
    pub(crate) f: Registers,
    /// What [`Self::retired`] will be when `budget` is zero.
    pub(crate) retired_at_end: u64,
    /// The timer interrupts that were pending at the last look at the clock.
    pub(crate) timers_pending: u64,
    /// With `Flow::Resume`: where.
    pub(crate) resume: Option<Cursor>,
    /// With `Flow::Trap`: which.
    pub(crate) trap: Trap,
    /// With `Flow::Exit`: which.
    pub(crate) exit: Option<Exit>,
    /// How many instructions had retired at the last trap.
    pub(crate) trapped_at: u64,
    /// Traps since then without another.
    pub(crate) traps_count: u32,
    pub(crate) pauses_count: u32,
    pub(crate) pmp: Pmp,
    pub(crate) config: HartConfig,
    pub(crate) withdrawals: Withdrawals,
    pub(crate) memory: Arc<GuestMemory>,
    /// Of a hart of a program: its memory, in place of `memory`.
    pub(crate) program: Option<Arc<dyn user::UserMemory>>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) time: Arc<dyn TimeSource>,
    /// What it has done, but for the instructions.
    pub(crate) stats: EngineStats,
    /// Of a hart of a program: what answers its system calls, if something does.
    pub(crate) calls: Option<Arc<dyn user::SystemCalls>>,
    /// What that has answered to the call that the run has ended with.
    pub(crate) answer: Option<i64>,
    /// Inside [`Self::run_exactly`].
    pub(crate) exact: Option<Exact>,
    /// While someone looks at the hart.
    pub(crate) debug: Option<Box<Debug>>,
}

// SAFETY: the references to blocks that it holds are into boxes that it owns; nothing in it is tied to a thread.
unsafe impl Send for Hart {}

impl Hart {
    /// A hart as [`Self::reset`] leaves it, with its program counter at zero.
    #[must_use]
    pub fn new(
        config: HartConfig,
        memory: Arc<GuestMemory>,
        bus: Arc<Bus>,
        time: Arc<dyn TimeSource>,
        signals: Arc<HartSignals>,
    ) -> Self {
        let mut blocks = BlockCache::new();
        let block = blocks.clear();
        let mut hart = Self {
            x: Registers([0; 256]),
            pc: 0,
            budget: 0,
            block,
            translator: HartState::new(),
            tlb: Tlb::new(),
            signals,
            blocks,
            csrs: Csrs::default(),
            fflags: 0,
            privilege: Privilege::Machine,
            reservation: Reservation::default(),
            f: Registers([0; 256]),
            retired_at_end: 0,
            timers_pending: 0,
            resume: None,
            trap: Trap::new(trap::Cause::IllegalInstruction, 0),
            exit: None,
            trapped_at: u64::MAX,
            traps_count: 0,
            pauses_count: 0,
            pmp: Pmp::default(),
            config,
            withdrawals: Withdrawals::new(&memory),
            memory,
            program: None,
            bus,
            time,
            stats: EngineStats::default(),
            calls: None,
            answer: None,
            exact: None,
            debug: None,
        };
        hart.reset(0);
        hart
    }

    /// The state after reset, about to execute at `pc`: all registers zero; M-mode, or with [`HartConfig::monitor_sbi`] S-mode as firmware would hand
    /// over: address translation off, interrupts off, traps delegated, all memory accessible. Cached translations and
    /// instructions are dropped. The counts of time and of instructions go on.
    pub fn reset(&mut self, pc: u64) {
        self.x = Registers([0; 256]);
        self.f = Registers([0; 256]);
        self.pc = pc & !1;
        self.privilege = if self.config.monitor_sbi { Privilege::Supervisor } else { Privilege::Machine };
        self.reservation = Reservation::default();
        self.traps_count = 0;
        self.reset_csrs();
        self.resume = None;
        self.block = self.blocks.clear();
        self.drop_changed_units();
        self.flush_translations();
    }

    /// From now on the hart translates what it executes often. `cache` is the machine's, and every hart's of it.
    pub fn translate_with(&mut self, cache: Arc<CodeCache>) {
        self.block = self.blocks.clear();
        self.translator.attach(cache);
    }

    /// As [`Self::translate_with`], in the child of a fork: what was decoded is kept. The parent's cache is neither used nor freed, which would
    /// copy its pages; so forget every other handle of it, too.
    /// Without a new one, the hart only interprets from now on.
    pub fn translate_after_fork(&mut self, cache: Option<Arc<CodeCache>>) {
        std::mem::forget(self.translator.cache.take());
        match cache {
            Some(cache) => self.translator.attach(cache),
            None => self.translator.detach(),
        }
    }

    /// The other side's handle.
    #[must_use]
    pub fn signals(&self) -> &Arc<HartSignals> {
        &self.signals
    }

    /// How the hart was built.
    #[must_use]
    pub fn config(&self) -> &HartConfig {
        &self.config
    }

    /// Instructions retired since the hart was made; resets and writes to `minstret` do not matter.
    #[must_use]
    pub fn instructions_retired(&self) -> u64 {
        self.retired()
    }

    /// What the hart has done since it was made.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        EngineStats { instructions: self.retired(), ..self.stats.clone() }
    }

    #[inline(always)]
    pub(crate) fn retired(&self) -> u64 {
        self.retired_at_end.wrapping_sub(self.budget.cast_unsigned())
    }

    /// Integer register `number` (0 to 31).
    #[must_use]
    pub fn x(&self, number: u8) -> u64 {
        self.x.get(number & 31)
    }

    /// Sets integer register `number` (0 to 31); register 0 stays zero.
    pub fn set_x(&mut self, number: u8, value: u64) {
        if number & 31 != 0 {
            self.x.set(number & 31, value);
        }
    }

    /// The bits of floating-point register `number` (0 to 31).
    #[must_use]
    pub fn f(&self, number: u8) -> u64 {
        self.f.get(number & 31)
    }

    /// Sets floating-point register `number` (0 to 31).
    pub fn set_f(&mut self, number: u8, bits: u64) {
        self.f.set(number & 31, bits);
    }

    /// The address of the next instruction.
    #[must_use]
    pub fn pc(&self) -> u64 {
        self.pc
    }

    /// Sets the address of the next instruction; bit 0 is ignored.
    pub fn set_pc(&mut self, pc: u64) {
        self.pc = pc & !1;
    }

    /// The privilege mode.
    #[must_use]
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// Sets the privilege mode.
    pub fn set_privilege(&mut self, privilege: Privilege) {
        self.privilege = privilege;
        self.select_context();
    }
}
