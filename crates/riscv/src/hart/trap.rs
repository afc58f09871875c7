//! Traps: exceptions, interrupts, delegation, and the way back.
//!
//! Privileged specification: `mcause`, `medeleg`/`mideleg`, `mtvec`, section "Trap Return".

use super::status::{mstatus, pending};
use super::{Hart, Privilege};

/// Why an instruction trapped: exception codes of `mcause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The address of an instruction is odd: does not happen with compressed instructions.
    FetchMisaligned = 0,
    /// No memory to fetch from, or not allowed.
    FetchAccess = 1,
    /// Not an instruction, or not now.
    IllegalInstruction = 2,
    /// `ebreak`.
    Breakpoint = 3,
    /// `lr` at a misaligned address.
    LoadMisaligned = 4,
    /// No memory to load from, or not allowed.
    LoadAccess = 5,
    /// `sc` or an atomic operation at a misaligned address.
    StoreMisaligned = 6,
    /// No memory to store to, or not allowed.
    StoreAccess = 7,
    /// `ecall` in U-mode.
    UserCall = 8,
    /// `ecall` in S-mode.
    SupervisorCall = 9,
    /// `ecall` in M-mode.
    MachineCall = 11,
    /// Page fault of a fetch.
    FetchPage = 12,
    /// Page fault of a load.
    LoadPage = 13,
    /// Page fault of a store or an atomic operation.
    StorePage = 15,
}

/// An exception about to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub cause: Cause,
    /// What `mtval` or `stval` will hold.
    pub value: u64,
}

impl Trap {
    /// An exception.
    #[must_use]
    pub const fn new(cause: Cause, value: u64) -> Self {
        Self { cause, value }
    }
}

/// The top bit of `mcause` and `scause`.
const INTERRUPT: u64 = 1 << 63;

/// Interrupts by falling priority.
const PRIORITY: [u64; 6] = [pending::MEI, pending::MSI, pending::MTI, pending::SEI, pending::SSI, pending::STI];

impl Hart {
    /// Takes an exception at the current program counter.
    pub(crate) fn take_exception(&mut self, trap: Trap) {
        self.stats.exception(trap);
        let cause = trap.cause as u64;
        let delegated = self.privilege != Privilege::Machine && self.csrs.medeleg >> cause & 1 != 0;
        self.enter_trap(cause, trap.value, delegated);
    }

    /// The interrupt to take before the next instruction, as its bit in `mip`.
    pub(crate) fn deliverable_interrupt(&self) -> Option<u64> {
        let candidates = self.pending_interrupts() & self.csrs.mie;
        if candidates == 0 {
            return None;
        }
        let status = self.csrs.mstatus;
        let machine = match self.privilege {
            Privilege::Machine => status & mstatus::MIE != 0,
            _ => true,
        };
        let supervisor = match self.privilege {
            Privilege::Machine => false,
            Privilege::Supervisor => status & mstatus::SIE != 0,
            Privilege::User => true,
        };
        let to_machine = if machine { candidates & !self.csrs.mideleg } else { 0 };
        let to_supervisor = if supervisor { candidates & self.csrs.mideleg } else { 0 };
        let chosen = if to_machine != 0 { to_machine } else { to_supervisor };
        PRIORITY.into_iter().find(|bit| chosen & bit != 0)
    }

    /// Takes an interrupt that [`Self::deliverable_interrupt`] gave.
    pub(crate) fn take_interrupt(&mut self, bit: u64) {
        self.stats.interrupt(bit);
        let delegated = self.csrs.mideleg & bit != 0;
        self.enter_trap(INTERRUPT | u64::from(bit.trailing_zeros()), 0, delegated);
    }

    fn enter_trap(&mut self, cause: u64, value: u64, to_supervisor: bool) {
        let offset = if cause & INTERRUPT == 0 { 0 } else { (cause & !INTERRUPT) * 4 };
        let csrs = &mut self.csrs;
        let vector = if to_supervisor {
            csrs.scause = cause;
            csrs.sepc = self.pc;
            csrs.stval = value;
            let from_supervisor = self.privilege == Privilege::Supervisor;
            csrs.mstatus = csrs.mstatus & !(mstatus::SPP | mstatus::SPIE | mstatus::SIE)
                | if from_supervisor { mstatus::SPP } else { 0 }
                | if csrs.mstatus & mstatus::SIE != 0 { mstatus::SPIE } else { 0 };
            csrs.stvec
        } else {
            csrs.mcause = cause;
            csrs.mepc = self.pc;
            csrs.mtval = value;
            csrs.mstatus = csrs.mstatus & !(mstatus::MPP | mstatus::MPIE | mstatus::MIE)
                | (self.privilege as u64) << mstatus::MPP_SHIFT
                | if csrs.mstatus & mstatus::MIE != 0 { mstatus::MPIE } else { 0 };
            csrs.mtvec
        };
        self.privilege = if to_supervisor { Privilege::Supervisor } else { Privilege::Machine };
        self.pc = (vector & !3).wrapping_add(if vector & 1 != 0 { offset } else { 0 });
        self.select_context();
    }

    /// `mret`: the caller has checked that it is legal.
    pub(crate) fn return_from_machine(&mut self) {
        let status = self.csrs.mstatus;
        let to = match (status & mstatus::MPP) >> mstatus::MPP_SHIFT {
            0 => Privilege::User,
            1 => Privilege::Supervisor,
            _ => Privilege::Machine,
        };
        let mut next = status & !(mstatus::MPP | mstatus::MIE) | mstatus::MPIE;
        if status & mstatus::MPIE != 0 {
            next |= mstatus::MIE;
        }
        if to != Privilege::Machine {
            next &= !mstatus::MPRV;
        }
        self.csrs.mstatus = next;
        self.privilege = to;
        self.pc = self.csrs.mepc;
        self.select_context();
    }

    /// `sret`: the caller has checked that it is legal.
    pub(crate) fn return_from_supervisor(&mut self) {
        let status = self.csrs.mstatus;
        let to = if status & mstatus::SPP == 0 { Privilege::User } else { Privilege::Supervisor };
        let mut next = status & !(mstatus::SPP | mstatus::SIE | mstatus::MPRV) | mstatus::SPIE;
        if status & mstatus::SPIE != 0 {
            next |= mstatus::SIE;
        }
        self.csrs.mstatus = next;
        self.privilege = to;
        self.pc = self.csrs.sepc;
        self.select_context();
    }
}
