//! One hardware thread: its registers, its privilege, and what it does until something outside is needed.

#[expect(dead_code, reason = "the run loop that uses it follows")]
pub mod signals;

use std::sync::Arc;

use machine::bus::Bus;
use machine::memory::GuestMemory;

pub use signals::{Fence, HartSignals, interrupt};

/// The time base of `time` and of the timer comparators, in Hz.
pub const TIME_BASE_HZ: u64 = 10_000_000;

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
    /// The guest waits for an interrupt and none is pending: `wfi`, `wrs.nto`, `wrs.sto`. The program counter is past the instruction. Sleep with
    /// [`HartSignals::sleep`] until [`Hart::next_deadline`] at most, then run again; running earlier is harmless.
    Idle,
    /// An `ecall` from S-mode with [`HartConfig::monitor_sbi`]. The program counter is already past it: answer in `a0` and `a1`, and run again.
    SupervisorCall,
    /// The guest can go no further: one line that says why.
    Fault(String),
}

/// A hart. It belongs to one thread at a time; other threads speak to it through its [`HartSignals`].
pub struct Hart {
    config: HartConfig,
    memory: Arc<GuestMemory>,
    bus: Arc<Bus>,
    time: Arc<dyn TimeSource>,
    signals: Arc<HartSignals>,
    x: [u64; 32],
    f: [u64; 32],
    pc: u64,
    privilege: Privilege,
}

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
        let mut hart =
            Self { config, memory, bus, time, signals, x: [0; 32], f: [0; 32], pc: 0, privilege: Privilege::Machine };
        hart.reset(0);
        hart
    }

    /// The state after reset, about to execute at `pc`: all registers zero; M-mode, or with [`HartConfig::monitor_sbi`] S-mode as firmware would hand over:
    /// address translation off, interrupts off, traps delegated, all memory accessible. Cached translations and instructions are dropped.
    pub fn reset(&mut self, pc: u64) {
        self.x = [0; 32];
        self.f = [0; 32];
        self.pc = pc;
        self.privilege = if self.config.monitor_sbi { Privilege::Supervisor } else { Privilege::Machine };
    }

    /// Executes until one of the reasons of [`Exit`].
    pub fn run(&mut self) -> Exit {
        let _ = (&self.memory, &self.bus, &self.time);
        Exit::Attention
    }

    /// Executes one instruction, or takes one trap or interrupt. `None` if nothing else happened.
    pub fn step(&mut self) -> Option<Exit> {
        None
    }

    /// The tick at which a timer interrupt that the hart has enabled becomes pending: how long an idle hart may sleep. `None` for never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        None
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
        0
    }

    /// Integer register `number` (0 to 31).
    #[must_use]
    pub fn x(&self, number: u8) -> u64 {
        self.x[usize::from(number & 31)]
    }

    /// Sets integer register `number` (0 to 31); register 0 stays zero.
    pub fn set_x(&mut self, number: u8, value: u64) {
        if number & 31 != 0 {
            self.x[usize::from(number & 31)] = value;
        }
    }

    /// The bits of floating-point register `number` (0 to 31).
    #[must_use]
    pub fn f(&self, number: u8) -> u64 {
        self.f[usize::from(number & 31)]
    }

    /// Sets floating-point register `number` (0 to 31).
    pub fn set_f(&mut self, number: u8, bits: u64) {
        self.f[usize::from(number & 31)] = bits;
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
    }

    /// Reads a control and status register as M-mode would, without side effects; `None` if it does not exist.
    #[must_use]
    pub fn csr(&self, number: u16) -> Option<u64> {
        let _ = number;
        None
    }

    /// Writes a control and status register as M-mode would: fields take only legal values. False if it does not exist or is read-only.
    pub fn set_csr(&mut self, number: u16, value: u64) -> bool {
        let _ = (number, value);
        false
    }

    /// Performs a fence on this hart at once.
    pub fn fence(&mut self, fence: Fence) {
        let _ = fence;
    }
}
