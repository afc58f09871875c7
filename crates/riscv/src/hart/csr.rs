//! The control and status registers: who may use them, what they read, which values they take.
//!
//! Two layers. [`Hart::csr`] and [`Hart::set_csr`] read and write as M-mode does, without side conditions: for the monitor, tests and debuggers.
//! [`Hart::csr_access`] says whether an instruction may use a register in the current mode.

use super::status::{DELEGABLE, MISA, envcfg, mstatus, pending};
use super::{Hart, Privilege};
use crate::mmu::walk::Satp;

pub use crate::isa::csr as number;

/// The registers that only hold a value. Others are made of these, of the PMP's and of the hart's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Csrs {
    pub(crate) mstatus: u64,
    pub(crate) medeleg: u64,
    pub(crate) mideleg: u64,
    pub(crate) mie: u64,
    /// The bits of `mip` that software sets and clears.
    pub(crate) mip: u64,
    pub(crate) mtvec: u64,
    pub(crate) mcounteren: u64,
    pub(crate) mcountinhibit: u64,
    pub(crate) mscratch: u64,
    pub(crate) mepc: u64,
    pub(crate) mcause: u64,
    pub(crate) mtval: u64,
    pub(crate) menvcfg: u64,
    pub(crate) stvec: u64,
    pub(crate) scounteren: u64,
    pub(crate) sscratch: u64,
    pub(crate) sepc: u64,
    pub(crate) scause: u64,
    pub(crate) stval: u64,
    pub(crate) senvcfg: u64,
    pub(crate) satp: u64,
    pub(crate) stimecmp: u64,
    pub(crate) frm: u32,
    /// Added to the count of retired instructions.
    pub(crate) mcycle: Counter,
    /// Added to the count of retired instructions.
    pub(crate) minstret: Counter,
}

/// A counter that follows the count of retired instructions, at an offset, or stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Value minus retired instructions.
    Counting(u64),
    /// Inhibited at this value.
    Inhibited(u64),
}

impl Default for Counter {
    fn default() -> Self {
        Self::Counting(0)
    }
}

impl Counter {
    fn read(self, retired: u64) -> u64 {
        match self {
            Self::Counting(offset) => retired.wrapping_add(offset),
            Self::Inhibited(value) => value,
        }
    }

    fn write(&mut self, retired: u64, value: u64) {
        *self = match self {
            Self::Counting(_) => Self::Counting(value.wrapping_sub(retired)),
            Self::Inhibited(_) => Self::Inhibited(value),
        };
    }

    fn inhibit(&mut self, retired: u64, inhibited: bool) {
        let value = self.read(retired);
        *self = if inhibited { Self::Inhibited(value) } else { Self::Counting(value.wrapping_sub(retired)) };
    }
}

/// Bits of the counter-enable registers.
mod counter {
    pub(super) const CYCLE: u64 = 1;
    pub(super) const TIME: u64 = 1 << 1;
    pub(super) const INSTRET: u64 = 1 << 2;
}

fn vector(value: u64) -> u64 {
    // Modes two and three are reserved: they become zero and one.
    value & !2
}

fn cache_block_field(value: u64) -> u64 {
    // Two is reserved.
    if (value & envcfg::CBIE) >> envcfg::CBIE_SHIFT == 2 { value & !envcfg::CBIE } else { value }
}

impl Hart {
    /// Reads a control and status register as M-mode would, without side effects; `None` if it does not exist.
    #[must_use]
    pub fn csr(&self, register: u16) -> Option<u64> {
        use number::*;
        let csrs = &self.csrs;
        Some(match register {
            FFLAGS => self.fflags.into(),
            FRM => csrs.frm.into(),
            FCSR => u64::from(csrs.frm << 5 | self.fflags),
            SSTATUS => self.status() & mstatus::SUPERVISOR_VISIBLE,
            SIE => csrs.mie & csrs.mideleg,
            STVEC => csrs.stvec,
            SCOUNTEREN => csrs.scounteren,
            SENVCFG => csrs.senvcfg,
            SSCRATCH => csrs.sscratch,
            SEPC => csrs.sepc,
            SCAUSE => csrs.scause,
            STVAL => csrs.stval,
            SIP => self.pending_interrupts_now() & csrs.mideleg,
            STIMECMP => csrs.stimecmp,
            SATP => csrs.satp,
            MSTATUS => self.status(),
            number::MISA => self::MISA,
            MEDELEG => csrs.medeleg,
            MIDELEG => csrs.mideleg,
            MIE => csrs.mie,
            MTVEC => csrs.mtvec,
            MCOUNTEREN => csrs.mcounteren,
            MENVCFG => csrs.menvcfg,
            MCOUNTINHIBIT => csrs.mcountinhibit,
            MSCRATCH => csrs.mscratch,
            MEPC => csrs.mepc,
            MCAUSE => csrs.mcause,
            MTVAL => csrs.mtval,
            MIP => self.pending_interrupts_now(),
            PMPCFG0 => self.pmp.config(0),
            PMPCFG2 => self.pmp.config(8),
            PMPADDR0..=PMPADDR15 => self.pmp.address(usize::from(register - PMPADDR0)),
            MCYCLE | CYCLE => csrs.mcycle.read(self.retired()),
            MINSTRET | INSTRET => csrs.minstret.read(self.retired()),
            TIME => self.time.ticks(),
            MHARTID => self.config.id,
            TINFO => 1,
            // Counters of events that never happen, triggers that do not exist, names not given.
            MHPMEVENT3..=MHPMEVENT31
            | MHPMCOUNTER3..=MHPMCOUNTER31
            | HPMCOUNTER3..=HPMCOUNTER31
            | TSELECT..=TDATA3
            | MVENDORID..=MIMPID
            | MCONFIGPTR => 0,
            _ => return None,
        })
    }

    /// Writes a control and status register as M-mode would: fields take only legal values. False if it does not exist or is read-only.
    pub fn set_csr(&mut self, register: u16, value: u64) -> bool {
        use number::*;
        if register >> 10 == 3 {
            return false;
        }
        let retired = self.retired();
        let csrs = &mut self.csrs;
        match register {
            FFLAGS | FRM | FCSR => {
                let bits = (value & 0xff) as u32;
                if register != FRM {
                    self.fflags = bits & 0x1f;
                }
                if register != FFLAGS {
                    csrs.frm = if register == FRM { bits } else { bits >> 5 } & 7;
                }
                csrs.mstatus |= mstatus::FS;
            }
            SSTATUS => {
                let kept = csrs.mstatus & !mstatus::SUPERVISOR_WRITABLE;
                self.set_status(kept | value & mstatus::SUPERVISOR_WRITABLE);
            }
            SIE => csrs.mie = csrs.mie & !csrs.mideleg | value & csrs.mideleg,
            STVEC => csrs.stvec = vector(value),
            SCOUNTEREN => csrs.scounteren = value & 0xffff_ffff,
            SENVCFG => csrs.senvcfg = cache_block_field(value & envcfg::SUPERVISOR_WRITABLE),
            SSCRATCH => csrs.sscratch = value,
            SEPC => csrs.sepc = value & !1,
            SCAUSE => csrs.scause = value,
            STVAL => csrs.stval = value,
            SIP => {
                let mask = pending::SSI & csrs.mideleg;
                csrs.mip = csrs.mip & !mask | value & mask;
            }
            STIMECMP => {
                csrs.stimecmp = value;
                self.look_at_timers();
            }
            SATP => {
                // A mode that does not exist makes the write have no effect at all.
                if Satp(value).levels().is_some() {
                    csrs.satp = value;
                    self.select_context();
                }
            }
            MSTATUS => {
                let mut value = value & mstatus::WRITABLE;
                if value & mstatus::MPP == 2 << mstatus::MPP_SHIFT {
                    value = value & !mstatus::MPP | csrs.mstatus & mstatus::MPP;
                }
                self.set_status(value);
            }
            MEDELEG => csrs.medeleg = value & DELEGABLE,
            MIDELEG => csrs.mideleg = value & pending::SUPERVISOR,
            MIE => csrs.mie = value & pending::ALL,
            MTVEC => csrs.mtvec = vector(value),
            MCOUNTEREN => csrs.mcounteren = value & 0xffff_ffff,
            MENVCFG => {
                let adue = if self.config.hardware_ad_updates { envcfg::ADUE } else { 0 };
                let old = csrs.menvcfg;
                csrs.menvcfg = cache_block_field(value & (envcfg::WRITABLE | adue));
                if (old ^ csrs.menvcfg) & (envcfg::ADUE | envcfg::PBMTE) != 0 {
                    self.flush_translations();
                }
                self.look_at_timers();
            }
            MCOUNTINHIBIT => {
                let writable = 0xffff_fffd;
                csrs.mcountinhibit = value & writable;
                csrs.mcycle.inhibit(retired, value & counter::CYCLE != 0);
                csrs.minstret.inhibit(retired, value & counter::INSTRET != 0);
            }
            MSCRATCH => csrs.mscratch = value,
            MEPC => csrs.mepc = value & !1,
            MCAUSE => csrs.mcause = value,
            MTVAL => csrs.mtval = value,
            MIP => {
                let stimecmp = csrs.menvcfg & envcfg::STCE != 0;
                let mask = pending::SSI | pending::SEI | if stimecmp { 0 } else { pending::STI };
                csrs.mip = csrs.mip & !mask | value & mask;
            }
            PMPCFG0 | PMPCFG2 => {
                self.pmp.set_config(if register == PMPCFG0 { 0 } else { 8 }, value);
                self.flush_translations();
            }
            PMPADDR0..=PMPADDR15 => {
                self.pmp.set_address(usize::from(register - PMPADDR0), value);
                self.flush_translations();
            }
            MCYCLE => csrs.mcycle.write(retired, value),
            MINSTRET => csrs.minstret.write(retired, value),
            number::MISA | MHPMEVENT3..=MHPMEVENT31 | MHPMCOUNTER3..=MHPMCOUNTER31 | TSELECT..=TINFO => {}
            _ => return false,
        }
        true
    }

    /// Whether an instruction may use `register` in the current mode. A register that does not exist may seem allowed here: [`Self::csr`] knows.
    pub(crate) fn csr_access(&self, register: u16, write: bool) -> bool {
        use number::*;
        let needed = register >> 8 & 3;
        let privilege = self.privilege as u16;
        if privilege < needed || (write && register >> 10 == 3) {
            return false;
        }
        let csrs = &self.csrs;
        let machine = self.privilege == Privilege::Machine;
        match register {
            FFLAGS..=FCSR => csrs.mstatus & mstatus::FS != 0,
            SATP => self.privilege != Privilege::Supervisor || csrs.mstatus & mstatus::TVM == 0,
            STIMECMP => machine || (csrs.menvcfg & envcfg::STCE != 0 && csrs.mcounteren & counter::TIME != 0),
            CYCLE..=HPMCOUNTER31 => {
                let bit = 1 << (register & 31);
                machine
                    || (csrs.mcounteren & bit != 0
                        && (self.privilege == Privilege::Supervisor || csrs.scounteren & bit != 0))
            }
            _ => true,
        }
    }

    /// `mstatus` with its read-only bits.
    fn status(&self) -> u64 {
        let status = self.csrs.mstatus;
        let dirty = if status & mstatus::FS == mstatus::FS { mstatus::SD } else { 0 };
        status | mstatus::UXL_SXL | dirty
    }

    fn set_status(&mut self, status: u64) {
        let changed = self.csrs.mstatus ^ status;
        self.csrs.mstatus = status;
        if changed & (mstatus::MPRV | mstatus::MPP | mstatus::SUM | mstatus::MXR) != 0 {
            self.select_context();
        }
    }

    /// `mip` as of the last look at the clock.
    pub(crate) fn pending_interrupts(&self) -> u64 {
        self.csrs.mip | self.signals.lines() | self.timers_pending
    }

    /// `mip` as of now.
    fn pending_interrupts_now(&self) -> u64 {
        self.csrs.mip | self.signals.lines() | self.timers_expired(self.time.ticks())
    }

    /// The timer interrupts that are pending at tick `now`.
    fn timers_expired(&self, now: u64) -> u64 {
        let machine = if now >= self.signals.timer_deadline() { pending::MTI } else { 0 };
        let supervisor = self.csrs.menvcfg & envcfg::STCE != 0 && now >= self.csrs.stimecmp;
        machine | if supervisor { pending::STI } else { 0 }
    }

    /// Reads the clock, and takes the edges that other threads have sent.
    pub(crate) fn look_at_timers(&mut self) {
        // With Sstc the comparator alone drives STIP.
        if self.csrs.menvcfg & envcfg::STCE != 0 {
            self.csrs.mip &= !pending::STI;
        }
        self.csrs.mip |= self.signals.take_pulses();
        self.timers_pending = self.timers_expired(self.time.ticks());
    }

    /// Whether an interrupt is pending that ends a `wfi`.
    pub(crate) fn has_reason_to_wake(&mut self) -> bool {
        self.look_at_timers();
        self.pending_interrupts() & self.csrs.mie != 0
    }

    /// The tick at which a timer interrupt that the hart has enabled becomes pending: how long an idle hart may sleep. `None` for never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let csrs = &self.csrs;
        let machine = (csrs.mie & pending::MTI != 0).then(|| self.signals.timer_deadline());
        let supervisor = (csrs.mie & pending::STI != 0 && csrs.menvcfg & envcfg::STCE != 0).then_some(csrs.stimecmp);
        machine.into_iter().chain(supervisor).min().filter(|ticks| *ticks != u64::MAX)
    }

    /// What a read-modify-write instruction reads of `register`: of `mip` the bits as software left them, so that writing them back does not make a line's
    /// level stick.
    pub(crate) fn csr_for_update(&self, register: u16, value: u64) -> u64 {
        if register == number::MIP { value & !pending::SEI | self.csrs.mip & pending::SEI } else { value }
    }

    /// Zeroes of PMP and everything else that reset clears.
    pub(crate) fn reset_csrs(&mut self) {
        self.csrs = Csrs { stimecmp: u64::MAX, ..Csrs::default() };
        self.fflags = 0;
        self.pmp = crate::mmu::pmp::Pmp::default();
        self.timers_pending = 0;
        if self.config.monitor_sbi {
            // What firmware does before it hands over. Only calls from S-mode come to it.
            self.csrs.medeleg = DELEGABLE & !(1 << super::trap::Cause::SupervisorCall as u64);
            self.csrs.mideleg = pending::SUPERVISOR;
            self.csrs.mcounteren = counter::CYCLE | counter::TIME | counter::INSTRET;
            let adue = if self.config.hardware_ad_updates { envcfg::ADUE } else { 0 };
            self.csrs.menvcfg = envcfg::WRITABLE | adue;
            self.csrs.mstatus = mstatus::FS_INITIAL;
            self.pmp.set_address(0, u64::MAX);
            self.pmp.set_config(0, 0x1f);
        }
    }
}
