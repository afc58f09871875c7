//! Privileged state: which values registers take, who may use them, which trap goes where.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machine::GuestPhysical;
use machine::bus::Bus;
use machine::memory::GuestMemory;

use super::csr::number::*;
use super::status::{envcfg, mstatus, pending};
use super::trap::{Cause, Trap};
use super::{Exit, Hart, HartConfig, HartSignals, Privilege, TimeSource, interrupt};
use crate::isa::assemble;

const RAM: u64 = 0x8000_0000;

#[derive(Default)]
struct Hands(AtomicU64);
impl TimeSource for Hands {
    fn ticks(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn hart_with(monitor_sbi: bool, hardware_ad_updates: bool) -> (Hart, Arc<Hands>) {
    let memory = Arc::new(GuestMemory::new(GuestPhysical(RAM), 1 << 20).unwrap());
    let time = Arc::new(Hands::default());
    let config = HartConfig { id: 7, hardware_ad_updates, monitor_sbi };
    let signals = Arc::new(HartSignals::new());
    let mut hart = Hart::new(config, memory, Arc::new(Bus::new()), time.clone(), signals);
    hart.reset(RAM);
    (hart, time)
}

fn hart() -> Hart {
    hart_with(false, true).0
}

/// Puts one instruction at the program counter and executes it.
fn execute(hart: &mut Hart, text: &str) -> Option<Exit> {
    let at = hart.pc();
    let bytes = assemble(text, at).unwrap();
    hart.memory.write(GuestPhysical(at), &bytes).unwrap();
    hart.fence(super::Fence::Instructions);
    hart.step()
}

/// The cause of the trap to M-mode that one instruction takes.
fn cause_of(hart: &mut Hart, text: &str) -> Option<u64> {
    let (pc, privilege) = (hart.pc(), hart.privilege());
    hart.set_csr(MCAUSE, 99);
    execute(hart, text);
    let cause = hart.csr(MCAUSE).filter(|cause| *cause != 99);
    hart.set_pc(pc);
    hart.set_privilege(privilege);
    cause
}

fn after(hart: &mut Hart, register: u16, value: u64) -> u64 {
    assert!(hart.set_csr(register, value));
    hart.csr(register).unwrap()
}

#[test]
fn fields_take_legal_values_only() {
    let mut hart = hart();
    let hart = &mut hart;
    assert_eq!(after(hart, MSTATUS, u64::MAX), mstatus::WRITABLE | mstatus::UXL_SXL | mstatus::SD);
    assert_eq!(after(hart, MSTATUS, mstatus::FS_INITIAL), mstatus::FS_INITIAL | mstatus::UXL_SXL);
    hart.set_csr(MSTATUS, 1 << mstatus::MPP_SHIFT);
    assert_eq!(after(hart, MSTATUS, 2 << mstatus::MPP_SHIFT) & mstatus::MPP, 1 << mstatus::MPP_SHIFT);
    assert_eq!(after(hart, SSTATUS, u64::MAX), mstatus::SUPERVISOR_VISIBLE);
    assert_eq!(after(hart, MISA, 0), super::status::MISA);
    assert_eq!(after(hart, MEDELEG, u64::MAX), 0xb3fe, "misaligned fetches do not happen");
    assert_eq!(after(hart, MIDELEG, u64::MAX), 0x222);
    assert_eq!(after(hart, MIE, u64::MAX), 0xaaa);
    assert_eq!(after(hart, MTVEC, 0x1003), 0x1001);
    assert_eq!(after(hart, STVEC, 0x1002), 0x1000);
    assert_eq!(after(hart, MEPC, u64::MAX), !1);
    assert_eq!(after(hart, SEPC, 0x1001), 0x1000);
    assert_eq!(after(hart, MCOUNTEREN, u64::MAX), 0xffff_ffff);
    assert_eq!(after(hart, MCOUNTINHIBIT, u64::MAX), 0xffff_fffd);
    assert_eq!(after(hart, PMPADDR0, u64::MAX), (1 << 54) - 1);
    assert_eq!(after(hart, SATP, 8 << 60 | 0xabcd << 44 | 0x123), 8 << 60 | 0xabcd << 44 | 0x123);
    assert_eq!(after(hart, SATP, 7 << 60), 8 << 60 | 0xabcd << 44 | 0x123, "an unknown mode changes nothing");
    assert_eq!(after(hart, SATP, 10 << 60), 10 << 60);
    let all = envcfg::WRITABLE | envcfg::ADUE;
    assert_eq!(after(hart, MENVCFG, u64::MAX), all);
    assert_eq!(after(hart, MENVCFG, 2 << envcfg::CBIE_SHIFT), 0, "a reserved field");
    assert_eq!(after(hart, SENVCFG, u64::MAX), 0xf1);
    assert_eq!(after(hart, FCSR, u64::MAX), 0xff);
    assert_eq!(after(hart, FRM, 0), 0);
    assert_eq!(hart.csr(FFLAGS), Some(0x1f));
    assert_eq!(hart.csr(MHARTID), Some(7));
    assert!(!hart.set_csr(MHARTID, 1) && !hart.set_csr(0x9ff, 1));
    assert_eq!(hart.csr(0x9ff), None);
}

#[test]
fn without_svadu_its_bit_is_zero() {
    let (mut hart, _) = hart_with(false, false);
    assert_eq!(after(&mut hart, MENVCFG, envcfg::ADUE), 0);
}

#[test]
fn supervisor_registers_are_windows() {
    let mut hart = hart();
    hart.set_csr(MIDELEG, pending::SSI | pending::SEI);
    hart.set_csr(MIE, pending::ALL);
    assert_eq!(hart.csr(SIE), Some(pending::SSI | pending::SEI));
    hart.set_csr(SIE, 0);
    assert_eq!(hart.csr(MIE), Some(pending::ALL & !(pending::SSI | pending::SEI)));
    hart.set_csr(MIP, u64::MAX);
    assert_eq!(hart.csr(MIP), Some(pending::SUPERVISOR));
    hart.set_csr(SIP, 0);
    assert_eq!(hart.csr(MIP), Some(pending::STI | pending::SEI), "only SSIP is S-mode's to clear");
}

#[test]
fn an_external_level_is_not_written_back() {
    let mut hart = hart();
    hart.signals().set_interrupt(interrupt::SEI, true);
    assert_eq!(hart.csr(MIP), Some(pending::SEI));
    execute(&mut hart, "csrrsi x1, mip, 2");
    assert_eq!(hart.x(1), pending::SEI);
    hart.signals().set_interrupt(interrupt::SEI, false);
    assert_eq!(hart.csr(MIP), Some(pending::SSI), "the line's level did not stick");
}

#[test]
fn registers_are_guarded() {
    let mut hart = hart();
    hart.set_csr(PMPADDR0, u64::MAX);
    hart.set_csr(PMPCFG0, 0x1f);
    let illegal = Some(Cause::IllegalInstruction as u64);
    let read = |hart: &mut Hart, register: u16| cause_of(hart, &format!("csrrs x1, {register:#x}, x0"));
    hart.set_privilege(Privilege::Supervisor);
    assert_eq!(read(&mut hart, MSTATUS), illegal);
    assert_eq!(read(&mut hart, SSTATUS), None);
    assert_eq!(read(&mut hart, FCSR), illegal, "FS is off");
    assert_eq!(read(&mut hart, CYCLE), illegal);
    assert_eq!(read(&mut hart, STIMECMP), illegal);
    hart.set_csr(MCOUNTEREN, 0b111);
    assert_eq!(read(&mut hart, CYCLE), None);
    hart.set_csr(MENVCFG, envcfg::STCE);
    assert_eq!(read(&mut hart, STIMECMP), None);
    assert_eq!(cause_of(&mut hart, "csrrw x0, cycle, x0"), illegal, "read-only");
    assert_eq!(cause_of(&mut hart, "csrrsi x0, cycle, 0"), None, "no write");
    hart.set_csr(MSTATUS, mstatus::TVM | mstatus::TW | mstatus::TSR);
    for text in ["csrrw x0, satp, x0", "sfence.vma x0, x0", "sret", "wfi", "mret"] {
        assert_eq!(cause_of(&mut hart, text), illegal, "{text}");
    }
    hart.set_csr(MSTATUS, 0);
    assert_eq!(cause_of(&mut hart, "sfence.vma x0, x0"), None);
    hart.set_privilege(Privilege::User);
    assert_eq!(read(&mut hart, CYCLE), illegal);
    hart.set_csr(SCOUNTEREN, 0b001);
    assert_eq!(read(&mut hart, CYCLE), None);
    for text in ["sfence.vma x0, x0", "sret", "wfi", "csrrs x1, sstatus, x0", "cbo.zero (x2)", "cbo.flush (x2)"] {
        assert_eq!(cause_of(&mut hart, text), illegal, "{text}");
    }
    hart.set_x(2, RAM + 0x1234);
    hart.set_csr(MENVCFG, envcfg::CBZE);
    assert_eq!(cause_of(&mut hart, "cbo.zero (x2)"), illegal, "S-mode has not agreed");
    hart.set_csr(SENVCFG, envcfg::CBZE);
    assert_eq!(cause_of(&mut hart, "cbo.zero (x2)"), None);
}

#[test]
fn an_illegal_instruction_shows_its_bits() {
    let mut hart = hart();
    hart.memory.write(GuestPhysical(RAM), &0xffff_ffff_u32.to_le_bytes()).unwrap();
    hart.step();
    assert_eq!((hart.csr(MCAUSE), hart.csr(MTVAL)), (Some(2), Some(0xffff_ffff)));
    hart.set_pc(RAM + 8);
    hart.step();
    assert_eq!((hart.csr(MEPC), hart.csr(MTVAL)), (Some(RAM + 8), Some(0)), "the compressed word of zeroes");
}

#[test]
fn exceptions_go_where_they_are_delegated() {
    let mut hart = hart();
    hart.set_csr(MTVEC, 0x100);
    hart.set_csr(STVEC, 0x200);
    hart.set_csr(MEDELEG, 1 << Cause::UserCall as u64);
    hart.set_csr(MSTATUS, mstatus::SIE | mstatus::MIE);

    hart.set_privilege(Privilege::User);
    hart.set_pc(0x5000);
    hart.take_exception(Trap::new(Cause::UserCall, 0));
    assert_eq!((hart.pc(), hart.privilege()), (0x200, Privilege::Supervisor));
    assert_eq!((hart.csr(SEPC), hart.csr(SCAUSE)), (Some(0x5000), Some(8)));
    assert_eq!(hart.csr(SSTATUS).unwrap() & (mstatus::SIE | mstatus::SPIE | mstatus::SPP), mstatus::SPIE);

    hart.take_exception(Trap::new(Cause::LoadPage, 0x77));
    assert_eq!((hart.pc(), hart.privilege(), hart.csr(MTVAL)), (0x100, Privilege::Machine, Some(0x77)));
    assert_eq!(hart.csr(MSTATUS).unwrap() & (mstatus::MPP | mstatus::MPIE | mstatus::MIE), 0x80 | 1 << 11);

    hart.take_exception(Trap::new(Cause::UserCall, 0));
    assert_eq!(hart.privilege(), Privilege::Machine, "M-mode delegates nothing of its own");
    assert_eq!(hart.csr(MSTATUS).unwrap() & (mstatus::MPP | mstatus::MPIE), 3 << 11);
}

#[test]
fn returns_restore() {
    let mut hart = hart();
    hart.set_csr(MSTATUS, mstatus::MPRV | mstatus::MPIE | 1 << mstatus::MPP_SHIFT);
    hart.set_csr(MEPC, 0x4000);
    hart.return_from_machine();
    assert_eq!((hart.pc(), hart.privilege()), (0x4000, Privilege::Supervisor));
    let expected = mstatus::MIE | mstatus::MPIE | mstatus::UXL_SXL;
    assert_eq!(hart.csr(MSTATUS), Some(expected), "MPP is U, MPRV is off");

    hart.set_csr(MSTATUS, mstatus::SPP | mstatus::SPIE);
    hart.set_csr(SEPC, 0x6000);
    hart.return_from_supervisor();
    assert_eq!((hart.pc(), hart.privilege()), (0x6000, Privilege::Supervisor));
    assert_eq!(hart.csr(SSTATUS).map(|status| status & 0x122), Some(mstatus::SIE | mstatus::SPIE));
}

#[test]
fn interrupts_have_priorities_and_masks() {
    let mut hart = hart();
    hart.set_csr(MTVEC, 0x1001);
    hart.set_csr(STVEC, 0x2001);
    hart.set_csr(MIE, pending::ALL);
    hart.set_csr(MIDELEG, pending::SSI | pending::STI);
    for number in [interrupt::MSI, interrupt::MEI, interrupt::SEI] {
        hart.signals().set_interrupt(number, true);
    }
    hart.set_csr(MIP, pending::SSI | pending::STI);
    assert_eq!(hart.deliverable_interrupt(), None, "M-mode has MIE off");
    hart.set_csr(MSTATUS, mstatus::MIE);
    assert_eq!(hart.deliverable_interrupt(), Some(pending::MEI));
    hart.signals().set_interrupt(interrupt::MEI, false);
    assert_eq!(hart.deliverable_interrupt(), Some(pending::MSI));
    hart.signals().set_interrupt(interrupt::MSI, false);
    assert_eq!(hart.deliverable_interrupt(), Some(pending::SEI), "not delegated");
    hart.signals().set_interrupt(interrupt::SEI, false);
    assert_eq!(hart.deliverable_interrupt(), None, "S-mode's do not interrupt M-mode");

    hart.set_privilege(Privilege::Supervisor);
    assert_eq!(hart.deliverable_interrupt(), None, "SIE is off");
    hart.set_privilege(Privilege::User);
    assert_eq!(hart.deliverable_interrupt(), Some(pending::SSI));
    hart.set_pc(0x40);
    hart.take_interrupt(pending::SSI);
    assert_eq!((hart.pc(), hart.csr(SEPC), hart.csr(STVAL)), (0x2004, Some(0x40), Some(0)));
    assert_eq!(hart.csr(SCAUSE), Some(1 << 63 | 1));
    hart.take_interrupt(pending::MTI);
    assert_eq!((hart.pc(), hart.csr(MCAUSE)), (0x101c, Some(1 << 63 | 7)));
}

#[test]
fn timers_are_deadlines() {
    let (mut hart, time) = hart_with(true, true);
    assert_eq!(hart.next_deadline(), None);
    hart.set_csr(STIMECMP, 100);
    hart.set_csr(SIE, pending::STI);
    assert_eq!(hart.next_deadline(), Some(100));
    assert_eq!(hart.csr(SIP), Some(0));
    time.0.store(100, Ordering::Relaxed);
    assert_eq!(hart.csr(SIP), Some(pending::STI));
    hart.set_csr(SSTATUS, mstatus::SIE);
    hart.set_csr(STVEC, RAM + 0x100);
    hart.step();
    assert_eq!((hart.pc(), hart.csr(SCAUSE)), (RAM + 0x100, Some(1 << 63 | 5)));
    hart.set_csr(STIMECMP, u64::MAX);
    assert_eq!((hart.csr(SIP), hart.next_deadline()), (Some(0), None));

    let (mut hart, time) = hart_with(false, true);
    hart.signals().set_timer_deadline(50);
    hart.set_csr(MIE, pending::MTI);
    assert_eq!(hart.next_deadline(), Some(50));
    time.0.store(51, Ordering::Relaxed);
    assert_eq!(hart.csr(MIP), Some(pending::MTI));
}

#[test]
fn counters_count_and_stand_still() {
    let mut hart = hart();
    execute(&mut hart, "csrrs x1, minstret, x0");
    execute(&mut hart, "csrrs x2, minstret, x0");
    assert_eq!(hart.x(2), hart.x(1) + 1);
    hart.set_x(3, 1000);
    execute(&mut hart, "csrrw x0, minstret, x3");
    execute(&mut hart, "csrrs x1, minstret, x0");
    assert_eq!(hart.x(1), 1000, "a write outweighs its own increment");
    execute(&mut hart, "csrrwi x0, mcountinhibit, 4");
    let still = hart.csr(MINSTRET);
    let cycles = hart.csr(MCYCLE).unwrap();
    execute(&mut hart, "addi x0, x0, 0");
    assert_eq!(hart.csr(MINSTRET), still);
    assert_eq!(hart.csr(MCYCLE), Some(cycles + 1));
    execute(&mut hart, "csrrwi x0, mcountinhibit, 0");
    execute(&mut hart, "addi x0, x0, 0");
    assert_eq!(hart.csr(MINSTRET), still.map(|count| count + 1));
}

#[test]
fn a_monitor_hands_over_in_supervisor_mode() {
    let (mut hart, _) = hart_with(true, true);
    assert_eq!(hart.privilege(), Privilege::Supervisor);
    hart.set_x(17, 0x10);
    assert_eq!(execute(&mut hart, "ecall"), Some(Exit::SupervisorCall));
    assert_eq!(hart.pc(), RAM + 4, "past the call");
    hart.set_csr(STVEC, RAM + 0x100);
    execute(&mut hart, "ebreak");
    assert_eq!((hart.pc(), hart.csr(SCAUSE)), (RAM + 0x100, Some(3)));
    hart.set_privilege(Privilege::User);
    execute(&mut hart, "ecall");
    assert_eq!((hart.privilege(), hart.csr(SCAUSE)), (Privilege::Supervisor, Some(8)));
}

#[test]
fn an_idle_hart_says_so() {
    let mut hart = hart();
    assert_eq!(execute(&mut hart, "wfi"), Some(Exit::Idle));
    assert_eq!(hart.pc(), RAM + 4);
    hart.set_csr(MIE, pending::MSI);
    hart.signals().set_interrupt(interrupt::MSI, true);
    assert_eq!(execute(&mut hart, "wfi"), None, "pending, though not enabled");
}

/// A clock that goes on by one whenever someone looks at it.
#[derive(Default)]
struct Glances(AtomicU64);
impl TimeSource for Glances {
    fn ticks(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Who waits for another hart gives the host's processor away, for as long as the host likes, so a slice of waiting is long: timers do not wait for its end.
#[test]
fn timers_are_looked_at_while_a_hart_waits_for_another() {
    // An endless wait, and how many instructions of it 20 looks at the clock may take.
    for (wait, instructions_max) in [
        ("wait: lr.d t0, (a0)\n wrs.nto\n beq zero,zero,wait", 100),
        ("wait: lr.d t0, (a0)\n wrs.sto\n beq zero,zero,wait", 100),
        ("wait: pause\n pause\n beq zero,zero,wait", 20 * 100),
    ] {
        let memory = Arc::new(GuestMemory::new(GuestPhysical(RAM), 1 << 20).unwrap());
        let time = Arc::new(Glances::default());
        let config = HartConfig { id: 0, hardware_ad_updates: true, monitor_sbi: true };
        let mut hart = Hart::new(config, memory, Arc::new(Bus::new()), time, Arc::new(HartSignals::new()));
        hart.reset(RAM);
        hart.memory.write(GuestPhysical(RAM), &assemble(wait, RAM).unwrap()).unwrap();
        hart.memory.write(GuestPhysical(RAM + 0x100), &assemble("ecall", RAM).unwrap()).unwrap();
        hart.set_x(10, RAM + 0x1000);
        hart.set_csr(STVEC, RAM + 0x100);
        hart.set_csr(STIMECMP, 20);
        hart.set_csr(SIE, pending::STI);
        hart.set_csr(SSTATUS, mstatus::SIE);
        assert_eq!(hart.run(), Exit::SupervisorCall, "{wait}");
        let minstret = hart.csr(MINSTRET).unwrap();
        assert!(minstret <= instructions_max, "{wait}: {minstret} instructions until 20 looks at the clock");
    }
}
