//! The privileged architecture, one rule a test: programs of a few instructions on a hart by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machine::GuestPhysical;
use machine::bus::{Bus, BusDevice, Width};
use machine::memory::GuestMemory;
use riscv::hart::{Hart, HartConfig, HartSignals, Privilege, TimeSource, interrupt};
use riscv::isa::assemble;

const RAM: u64 = 0x8000_0000;
/// A page that nothing else uses.
const DATA: u64 = RAM + 0x8000;
/// Where traps to M-mode and to S-mode go.
const MACHINE_HANDLER: u64 = RAM + 0x1000;
const SUPERVISOR_HANDLER: u64 = RAM + 0x2000;
const DEVICE: u64 = 0x1000_0000;

mod csr {
    pub(crate) const SSTATUS: u16 = 0x100;
    pub(crate) const STVEC: u16 = 0x105;
    pub(crate) const SCOUNTEREN: u16 = 0x106;
    pub(crate) const SENVCFG: u16 = 0x10a;
    pub(crate) const SEPC: u16 = 0x141;
    pub(crate) const SCAUSE: u16 = 0x142;
    pub(crate) const STVAL: u16 = 0x143;
    pub(crate) const STIMECMP: u16 = 0x14d;
    pub(crate) const SATP: u16 = 0x180;
    pub(crate) const MSTATUS: u16 = 0x300;
    pub(crate) const MEDELEG: u16 = 0x302;
    pub(crate) const MIDELEG: u16 = 0x303;
    pub(crate) const MIE: u16 = 0x304;
    pub(crate) const MTVEC: u16 = 0x305;
    pub(crate) const MCOUNTEREN: u16 = 0x306;
    pub(crate) const MENVCFG: u16 = 0x30a;
    pub(crate) const MCOUNTINHIBIT: u16 = 0x320;
    pub(crate) const MEPC: u16 = 0x341;
    pub(crate) const MCAUSE: u16 = 0x342;
    pub(crate) const MTVAL: u16 = 0x343;
    pub(crate) const MIP: u16 = 0x344;
    pub(crate) const PMPCFG0: u16 = 0x3a0;
    pub(crate) const PMPADDR0: u16 = 0x3b0;
    pub(crate) const MCYCLE: u16 = 0xb00;
    pub(crate) const MINSTRET: u16 = 0xb02;
}

mod cause {
    pub(crate) const ILLEGAL: u64 = 2;
    pub(crate) const BREAKPOINT: u64 = 3;
    pub(crate) const LOAD_MISALIGNED: u64 = 4;
    pub(crate) const LOAD_ACCESS: u64 = 5;
    pub(crate) const STORE_MISALIGNED: u64 = 6;
    pub(crate) const STORE_ACCESS: u64 = 7;
    pub(crate) const USER_CALL: u64 = 8;
    pub(crate) const SUPERVISOR_CALL: u64 = 9;
}

const MIE: u64 = 1 << 3;
const SIE: u64 = 1 << 1;
const MPP: u64 = 3 << 11;
const MPRV: u64 = 1 << 17;
const TVM: u64 = 1 << 20;
const TW: u64 = 1 << 21;
const TSR: u64 = 1 << 22;
const STCE: u64 = 1 << 63;

/// A clock that the test turns.
struct Ticks(AtomicU64);

impl TimeSource for Ticks {
    fn ticks(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Zeroes;

impl BusDevice for Zeroes {
    fn read(&self, _: u64, _: Width) -> u64 {
        0
    }

    fn write(&self, _: u64, _: Width, _: u64) {}
}

struct Rig {
    hart: Hart,
    memory: Arc<GuestMemory>,
    ticks: Arc<Ticks>,
}

impl Rig {
    /// A hart about to execute `text` in `privilege`, with all memory allowed.
    fn new(text: &str, privilege: Privilege) -> Self {
        let memory = Arc::new(GuestMemory::new(GuestPhysical(RAM), 1 << 20).unwrap());
        memory.write(GuestPhysical(RAM), &assemble(text, RAM).unwrap()).unwrap();
        let mut bus = Bus::new();
        bus.map("device", GuestPhysical(DEVICE), 0x1000, Arc::new(Zeroes)).unwrap();
        let ticks = Arc::new(Ticks(AtomicU64::new(0)));
        let config = HartConfig { id: 0, hardware_ad_updates: true, monitor_sbi: false };
        let time: Arc<dyn TimeSource> = ticks.clone();
        let mut hart = Hart::new(config, Arc::clone(&memory), Arc::new(bus), time, Arc::new(HartSignals::new()));
        hart.reset(RAM);
        for (register, value) in [
            (csr::MTVEC, MACHINE_HANDLER),
            (csr::STVEC, SUPERVISOR_HANDLER),
            (csr::PMPADDR0, u64::MAX),
            (csr::PMPCFG0, 0x1f),
        ] {
            assert!(hart.set_csr(register, value));
        }
        hart.set_privilege(privilege);
        Self { hart, memory, ticks }
    }

    fn step(&mut self) -> &mut Self {
        assert_eq!(self.hart.step(), None);
        self
    }

    /// Sets bits of `mstatus`.
    fn set_status(&mut self, bits: u64) -> &mut Self {
        let status = self.get(csr::MSTATUS);
        self.set(csr::MSTATUS, status | bits)
    }

    fn set(&mut self, register: u16, value: u64) -> &mut Self {
        assert!(self.hart.set_csr(register, value), "{register:#x}");
        self
    }

    fn get(&self, register: u16) -> u64 {
        self.hart.csr(register).unwrap()
    }

    /// One step must do no more than go on to the next instruction.
    fn passes(&mut self) {
        let (pc, privilege) = (self.hart.pc(), self.hart.privilege());
        self.step();
        assert_eq!((self.hart.pc(), self.hart.privilege()), (pc + 4, privilege), "mcause {:#x}", self.get(csr::MCAUSE));
    }

    /// One step must trap to M-mode.
    fn traps(&mut self, cause: u64, value: u64) {
        let (pc, from) = (self.hart.pc(), self.hart.privilege());
        self.step();
        assert_eq!((self.hart.pc(), self.hart.privilege()), (MACHINE_HANDLER, Privilege::Machine));
        assert_eq!((self.get(csr::MCAUSE), self.get(csr::MTVAL), self.get(csr::MEPC)), (cause, value, pc));
        assert_eq!((self.get(csr::MSTATUS) & MPP) >> 11, from as u64);
    }

    /// One step must trap to S-mode.
    fn traps_to_supervisor(&mut self, cause: u64, value: u64) {
        let pc = self.hart.pc();
        self.step();
        assert_eq!((self.hart.pc(), self.hart.privilege()), (SUPERVISOR_HANDLER, Privilege::Supervisor));
        assert_eq!((self.get(csr::SCAUSE), self.get(csr::STVAL), self.get(csr::SEPC)), (cause, value, pc));
    }
}

use Privilege::{Machine, Supervisor, User};

/// The only instruction of `text`, as a number.
fn word(text: &str) -> u64 {
    u32::from_le_bytes(assemble(text, RAM).unwrap().try_into().unwrap()).into()
}

#[test]
fn calls_and_breakpoints_go_where_they_are_delegated() {
    Rig::new("ecall", User).traps(cause::USER_CALL, 0);
    Rig::new("ecall", Supervisor).traps(cause::SUPERVISOR_CALL, 0);
    Rig::new("ebreak", User).traps(cause::BREAKPOINT, RAM);
    let mut rig = Rig::new("ecall", User);
    rig.set(csr::MEDELEG, 1 << cause::USER_CALL).traps_to_supervisor(cause::USER_CALL, 0);
    assert_eq!(rig.get(csr::MCAUSE), 0, "M-mode sees nothing of it");
    let mut rig = Rig::new("ebreak", Machine);
    rig.set(csr::MEDELEG, 1 << cause::BREAKPOINT).traps(cause::BREAKPOINT, RAM);
}

#[test]
fn only_exceptions_that_happen_can_be_delegated() {
    let mut rig = Rig::new("", Machine);
    assert_eq!(rig.set(csr::MEDELEG, u64::MAX).get(csr::MEDELEG), 0xb3fe);
    assert_eq!(rig.set(csr::MIDELEG, u64::MAX).get(csr::MIDELEG), 0x222);
}

#[test]
fn fields_take_only_legal_values() {
    let mut rig = Rig::new("", Machine);
    rig.set(csr::MSTATUS, 1 << 11).set(csr::MSTATUS, 2 << 11);
    assert_eq!(rig.get(csr::MSTATUS) & MPP, 1 << 11, "there is no mode 2");
    rig.set(csr::SATP, 8 << 60 | 5).set(csr::SATP, 3 << 60 | 7);
    assert_eq!(rig.get(csr::SATP), 8 << 60 | 5, "a mode that does not exist changes nothing");
    assert_eq!(rig.set(csr::SENVCFG, 2 << 4).get(csr::SENVCFG), 0, "CBIE 2 is reserved");
    assert_eq!(rig.set(csr::MEPC, 7).get(csr::MEPC), 6);
    assert_eq!(rig.get(csr::SSTATUS) >> 32 & 3, 2, "UXL is 64 bits");
}

#[test]
fn cache_blocks_are_managed_where_memory_can_be_accessed() {
    for name in ["cbo.inval", "cbo.clean", "cbo.flush"] {
        let rig = |at: u64| {
            let mut rig = Rig::new(&format!("{name} (a0)"), Machine);
            rig.hart.set_x(10, at);
            rig
        };
        rig(DATA + 5).passes();
        rig(DEVICE + 5).passes();
        rig(0x45).traps(cause::STORE_ACCESS, 0x45);
    }
    let mut rig = Rig::new("cbo.zero (a0)", Machine);
    rig.memory.fill(GuestPhysical(DATA), 256, 0xff).unwrap();
    rig.hart.set_x(10, DATA + 100);
    rig.passes();
    let load = |at: u64| rig.memory.load::<u64>(GuestPhysical(at)).unwrap();
    assert_eq!([load(DATA + 56), load(DATA + 64), load(DATA + 120), load(DATA + 128)], [u64::MAX, 0, 0, u64::MAX]);
    rig.hart.set_x(10, 0x45);
    rig.hart.set_pc(RAM);
    rig.traps(cause::STORE_ACCESS, 0x45);
}

#[test]
fn cache_block_instructions_need_leave() {
    for (text, bits) in [("cbo.inval (a0)", 1_u64 << 4), ("cbo.flush (a0)", 1 << 6), ("cbo.zero (a0)", 1 << 7)] {
        for (privilege, machine, supervisor) in [(Supervisor, bits, 0), (User, bits, bits)] {
            let rig = |machine, supervisor| {
                let mut rig = Rig::new(text, privilege);
                rig.hart.set_x(10, DATA);
                rig.set(csr::MENVCFG, machine).set(csr::SENVCFG, supervisor);
                rig
            };
            rig(machine, supervisor).passes();
            rig(machine ^ bits, supervisor).traps(cause::ILLEGAL, word(text));
            if privilege == User {
                rig(machine, supervisor ^ bits).traps(cause::ILLEGAL, word(text));
            }
        }
    }
}

#[test]
fn atomics_want_alignment_and_loads_do_not() {
    for (text, expected) in [
        ("lr.w a1, (a0)", Some(cause::LOAD_MISALIGNED)),
        ("sc.w a1, a2, (a0)", Some(cause::STORE_MISALIGNED)),
        ("amoadd.w a1, a2, (a0)", Some(cause::STORE_MISALIGNED)),
        ("lw a1, 0(a0)", None),
        ("sd a1, 0(a0)", None),
    ] {
        let mut rig = Rig::new(text, User);
        rig.hart.set_x(10, DATA + 2);
        match expected {
            Some(cause) => rig.traps(cause, DATA + 2),
            None => rig.passes(),
        }
    }
}

#[test]
fn protection_binds_machine_mode_when_locked() {
    const READ_LOCKED: u64 = 0x99;
    let rig = |text: &str, privilege, entry: u64| {
        let mut rig = Rig::new(text, privilege);
        rig.hart.set_x(10, DATA);
        // Entry 0: the page of DATA; entry 1: everything.
        rig.set(csr::PMPADDR0 + 1, u64::MAX).set(csr::PMPADDR0, DATA >> 2 | 0x1ff);
        rig.set(csr::PMPCFG0, 0x1f << 8 | entry);
        rig
    };
    rig("lw a1, 0(a0)", Machine, READ_LOCKED).passes();
    rig("sw a1, 0(a0)", Machine, READ_LOCKED).traps(cause::STORE_ACCESS, DATA);
    rig("sw a1, 0(a0)", Machine, 0x19).passes();
    rig("sw a1, 0(a0)", User, 0x19).traps(cause::STORE_ACCESS, DATA);
    rig("lw a1, 0(a0)", User, 0x18).traps(cause::LOAD_ACCESS, DATA);
    let mut as_user = rig("lw a1, 0(a0)", Machine, 0x18);
    as_user.set_status(MPRV).traps(cause::LOAD_ACCESS, DATA);
    assert_ne!(as_user.get(csr::MSTATUS) & MPRV, 0, "a trap leaves MPRV alone");
}

#[test]
fn machine_mode_can_forbid_what_supervisors_do() {
    for (text, bit) in [
        ("csrrs a0, satp, zero", TVM),
        ("sfence.vma zero, zero", TVM),
        ("sinval.vma zero, zero", TVM),
        ("wfi", TW),
        ("sret", TSR),
    ] {
        Rig::new(text, Supervisor).set_status(bit).traps(cause::ILLEGAL, word(text));
        if text != "sret" && text != "wfi" {
            Rig::new(text, Supervisor).passes();
        }
    }
    Rig::new("mret", Supervisor).traps(cause::ILLEGAL, word("mret"));
    Rig::new("sret", User).traps(cause::ILLEGAL, word("sret"));
    Rig::new("csrrs a0, sstatus, zero", User).traps(cause::ILLEGAL, word("csrrs a0, sstatus, zero"));
    Rig::new("csrrw zero, cycle, a0", Machine).traps(cause::ILLEGAL, word("csrrw zero, cycle, a0"));
}

#[test]
fn counters_are_shown_by_both_enables() {
    let text = "csrrs a0, instret, zero";
    Rig::new(text, Machine).passes();
    Rig::new(text, Supervisor).traps(cause::ILLEGAL, word(text));
    Rig::new(text, Supervisor).set(csr::MCOUNTEREN, 4).passes();
    Rig::new(text, User).set(csr::MCOUNTEREN, 4).traps(cause::ILLEGAL, word(text));
    Rig::new(text, User).set(csr::SCOUNTEREN, 4).traps(cause::ILLEGAL, word(text));
    Rig::new(text, User).set(csr::MCOUNTEREN, 4).set(csr::SCOUNTEREN, 4).passes();
}

#[test]
fn counters_count_unless_inhibited() {
    let mut rig = Rig::new("addi zero, zero, 0\naddi zero, zero, 0\naddi zero, zero, 0\necall", Machine);
    rig.set(csr::MINSTRET, 100).set(csr::MCYCLE, 200).step();
    assert_eq!((rig.get(csr::MINSTRET), rig.get(csr::MCYCLE)), (101, 201));
    rig.set(csr::MCOUNTINHIBIT, 4).step();
    assert_eq!((rig.get(csr::MINSTRET), rig.get(csr::MCYCLE)), (101, 202));
    rig.set(csr::MCOUNTINHIBIT, 0).step();
    assert_eq!(rig.get(csr::MINSTRET), 102);
    rig.step();
    assert_eq!(rig.get(csr::MINSTRET), 102, "an instruction that traps does not retire");
}

#[test]
fn interrupts_come_by_priority_to_the_mode_that_takes_them() {
    const ALL: u64 = 0xaaa;
    let mut rig = Rig::new("addi zero, zero, 0", Machine);
    rig.set(csr::MIE, ALL).set(csr::MTVEC, MACHINE_HANDLER | 1);
    rig.hart.signals().set_interrupt(interrupt::MSI, true);
    rig.hart.signals().set_interrupt(interrupt::MEI, true);
    rig.passes();
    rig.hart.set_pc(RAM);
    rig.set_status(MIE).step();
    assert_eq!(
        (rig.hart.pc(), rig.get(csr::MCAUSE)),
        (MACHINE_HANDLER + 4 * 11, 1 << 63 | 11),
        "external first, by its vector"
    );
    rig.hart.signals().set_interrupt(interrupt::MEI, false);
    rig.hart.set_pc(RAM);
    rig.set_status(MIE).step();
    assert_eq!(rig.get(csr::MCAUSE), 1 << 63 | 3);

    // Delegated ones never reach M-mode, and reach S-mode when it takes them or U-mode runs.
    for (privilege, status, taken) in
        [(Machine, MIE, false), (Supervisor, 0, false), (Supervisor, SIE, true), (User, 0, true)]
    {
        let mut rig = Rig::new("addi zero, zero, 0", privilege);
        rig.set(csr::MIE, ALL).set(csr::MIDELEG, 0x222).set(csr::MIP, 1 << 9).set_status(status);
        if taken {
            rig.traps_to_supervisor(1 << 63 | 9, 0);
        } else {
            rig.passes();
        }
    }
}

#[test]
fn supervisors_have_a_timer_of_their_own() {
    let text = "csrrs a0, stimecmp, zero";
    Rig::new(text, Supervisor).traps(cause::ILLEGAL, word(text));
    Rig::new(text, Supervisor).set(csr::MENVCFG, STCE).traps(cause::ILLEGAL, word(text));
    Rig::new(text, Supervisor).set(csr::MENVCFG, STCE).set(csr::MCOUNTEREN, 2).passes();

    let mut rig = Rig::new("addi zero, zero, 0", User);
    rig.set(csr::MENVCFG, STCE).set(csr::MIDELEG, 0x20).set(csr::MIE, 0x20).set(csr::STIMECMP, 50);
    assert_eq!(rig.hart.next_deadline(), Some(50));
    rig.passes();
    rig.ticks.0.store(50, Ordering::Relaxed);
    assert_eq!(rig.get(csr::MIP), 0x20);
    rig.set(csr::MIP, 0);
    assert_eq!(rig.get(csr::MIP), 0x20, "only the comparator decides");
    rig.hart.set_pc(RAM);
    rig.set(csr::STIMECMP, 40).traps_to_supervisor(1 << 63 | 5, 0);
    assert_eq!(rig.set(csr::STIMECMP, 60).get(csr::MIP), 0);
}
