//! Whole programs on harts: blocks, changed code, counting, memory that several harts share, guests that go astray.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use machine::GuestPhysical;
use machine::bus::Bus;
use machine::memory::GuestMemory;

use crate::hart::csr::number::*;
use crate::hart::status::mstatus;
use crate::hart::{Exit, Fence, Hart, HartConfig, HartSignals, Privilege, TimeSource};
use crate::isa::assemble;
use crate::mmu::walk::pte;

const RAM: u64 = 0x8000_0000;

struct Still(AtomicU64);
impl TimeSource for Still {
    fn ticks(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn memory() -> Arc<GuestMemory> {
    Arc::new(GuestMemory::new(GuestPhysical(RAM), 1 << 20).unwrap())
}

fn hart_on(memory: &Arc<GuestMemory>, monitor_sbi: bool) -> Hart {
    let config = HartConfig { id: 0, hardware_ad_updates: true, monitor_sbi };
    let time = Arc::new(Still(AtomicU64::new(0)));
    let mut hart = Hart::new(config, Arc::clone(memory), Arc::new(Bus::new()), time, Arc::new(HartSignals::new()));
    hart.reset(RAM);
    hart
}

fn put(memory: &GuestMemory, at: u64, text: &str) {
    memory.write(GuestPhysical(at), &assemble(text, at).unwrap()).unwrap();
}

/// A hart with `text` at the reset vector; programs end with `wfi`.
fn program(text: &str) -> Hart {
    let memory = memory();
    put(&memory, RAM, text);
    hart_on(&memory, false)
}

fn run_to_idle(hart: &mut Hart) {
    assert_eq!(
        hart.run(),
        Exit::Idle,
        "pc {:#x} mcause {:?} mtval {:x?}",
        hart.pc(),
        hart.csr(MCAUSE),
        hart.csr(MTVAL)
    );
}

#[test]
fn loops_and_calls() {
    let mut hart = program(
        "   addi a0,zero,20
            jal ra,fib
            wfi
        fib: addi t0,zero,2
            blt a0,t0,done
            addi sp,sp,-16
            sd ra,0(sp)
            sd a0,8(sp)
            addi a0,a0,-1
            jal ra,fib
            ld t0,8(sp)
            sd a0,8(sp)
            addi a0,t0,-2
            jal ra,fib
            ld t0,8(sp)
            add a0,a0,t0
            ld ra,0(sp)
            addi sp,sp,16
        done: jalr zero,0(ra)",
    );
    hart.set_x(2, RAM + 0x8000);
    run_to_idle(&mut hart);
    assert_eq!(hart.x(10), 6765);
    assert_eq!(hart.x(2), RAM + 0x8000);
}

#[test]
fn steps_and_runs_agree() {
    let text = "
            addi a0,zero,300
        again: add a1,a1,a0
            xor a2,a2,a1
            addi a0,a0,-1
            csrrs a3,minstret,zero
            bne a0,zero,again
            wfi";
    let mut run = program(text);
    run_to_idle(&mut run);
    let mut step = program(text);
    while step.step().is_none() {}
    for register in 0..32 {
        assert_eq!(run.x(register), step.x(register), "x{register}");
    }
    assert_eq!(run.instructions_retired(), step.instructions_retired());
    assert_eq!(run.instructions_retired(), 1 + 300 * 5 + 1);
    assert_eq!(run.x(13), 1 + 299 * 5 + 3, "read inside the last round");
}

#[test]
fn traps_do_not_retire() {
    let mut hart = program("addi a0,zero,1\n addi a0,a0,1\n ld a1,0(zero)\n addi a0,a0,1\n wfi");
    put(
        &hart.memory.clone(),
        RAM + 0x100,
        "csrrs a2,minstret,zero\n csrrs a3,mepc,zero\n addi a3,a3,4\n csrrw zero,mepc,a3\n mret",
    );
    hart.set_csr(MTVEC, RAM + 0x100);
    run_to_idle(&mut hart);
    assert_eq!((hart.x(10), hart.x(12)), (3, 2));
    assert_eq!((hart.csr(MCAUSE), hart.csr(MTVAL)), (Some(5), Some(0)));
    assert_eq!(hart.instructions_retired(), 4 + 5);
}

#[test]
fn changed_code_is_seen_after_the_fence() {
    // Calls `one` until it is kept, makes it `addi a0,a0,2`, calls it, fences, calls it.
    let mut hart = program(
        "   jal ra,one
            jal ra,one
            sw t1,0(t0)
            jal ra,one
            fence.i
            jal ra,one
            wfi
        one: addi a0,a0,1
            jalr zero,0(ra)",
    );
    hart.set_x(5, RAM + 28);
    let two = assemble("addi a0,a0,2", 0).unwrap();
    hart.set_x(6, u64::from(u32::from_le_bytes(two.try_into().unwrap())));
    run_to_idle(&mut hart);
    assert_eq!(hart.x(10), 1 + 1 + 1 + 2, "the block was decoded before the store");
}

/// Fences, calls the code at RAM + 0x1000, waits; and so on.
fn caller() -> Hart {
    let hart = program(
        "again: fence.i
            lui t0,0x80001
            slli t0,t0,32
            srli t0,t0,32
            jalr ra,0(t0)
            wfi
            jal zero,again",
    );
    put(&hart.memory, RAM + 0x1000, ADD_ONE);
    hart
}

const ADD_ONE: &str = "addi a0,a0,1\n jalr zero,0(ra)";
const ADD_TEN: &str = "addi a0,a0,10\n jalr zero,0(ra)";

#[test]
fn a_fence_drops_nothing_if_nothing_was_written() {
    let mut hart = caller();
    // What is executed once is not kept.
    run_to_idle(&mut hart);
    assert!(hart.blocks.get(RAM + 0x1000).is_none());
    run_to_idle(&mut hart);
    let (caller, callee) = (hart.blocks.get(RAM), hart.blocks.get(RAM + 0x1000));
    let same = |hart: &Hart| (hart.blocks.is_same(RAM, caller), hart.blocks.is_same(RAM + 0x1000, callee));
    put(&hart.memory, RAM + 0x2000, ADD_TEN);
    run_to_idle(&mut hart);
    assert_eq!(same(&hart), (true, true));
    // Changed by a device.
    put(&hart.memory, RAM + 0x1000, ADD_TEN);
    run_to_idle(&mut hart);
    assert_eq!((hart.x(10), same(&hart)), (1 + 1 + 1 + 10, (true, false)));
    hart.memory.clear().unwrap();
    hart.fence(Fence::Instructions);
    assert!(hart.blocks.get(RAM).is_none() && hart.blocks.get(RAM + 0x1000).is_none());
}

#[test]
fn another_harts_store_reaches_a_fence_whether_or_not_it_has_a_translation() {
    let mut hart = caller();
    let memory = Arc::clone(&hart.memory);
    let signals = Arc::new(HartSignals::new());
    let config = HartConfig { id: 1, ..*hart.config() };
    let time = Arc::new(Still(AtomicU64::new(0)));
    let mut other = Hart::new(config, Arc::clone(&memory), Arc::new(Bus::new()), time, Arc::clone(&signals));
    // Stores t1 to (t0) once the word at (t2) is not zero.
    put(&memory, RAM + 0x3000, "l: lw t3,0(t2)\n beq t3,zero,l\n sw t1,0(t0)\n wfi");
    let ten = assemble(ADD_TEN, 0).unwrap();
    other.reset(RAM + 0x3000);
    other.set_x(5, RAM + 0x1000);
    other.set_x(6, u64::from(u32::from_le_bytes(ten[..4].try_into().unwrap())));
    other.set_x(7, RAM + 0x4000);
    // It has an entry for writes to the page.
    memory.store(GuestPhysical(RAM + 0x4000), 1_u32).unwrap();
    run_to_idle(&mut other);
    put(&memory, RAM + 0x1000, ADD_ONE);
    memory.store(GuestPhysical(RAM + 0x4000), 0_u32).unwrap();
    assert!(other.tlb.write(RAM + 0x1000, 4).is_some());
    other.set_pc(RAM + 0x3000);
    let runner = thread::spawn(move || {
        let exit = other.run();
        (exit, other)
    });
    run_to_idle(&mut hart);
    run_to_idle(&mut hart);
    assert_eq!(hart.x(10), 2);
    memory.store(GuestPhysical(RAM + 0x4000), 1_u32).unwrap();
    let (exit, mut other) = runner.join().unwrap();
    assert_eq!(exit, Exit::Idle);
    run_to_idle(&mut hart);
    assert_eq!(hart.x(10), 12);
    // The page is data for it again.
    assert!(other.tlb.write(RAM + 0x1000, 4).is_some(), "a page that was written is not slow");
    // And code once more: the entry is withdrawn before the hart executes.
    run_to_idle(&mut hart);
    other.set_pc(RAM + 0x3000);
    assert_eq!(other.step(), None);
    assert_eq!(other.tlb.write(RAM + 0x1000, 4), None);
}

#[test]
fn a_remote_instruction_fence_ends_a_loop() {
    let mut hart = program("loop: jal zero,loop");
    let memory = hart.memory.clone();
    let signals = Arc::clone(hart.signals());
    let runner = thread::spawn(move || hart.run());
    thread::sleep(Duration::from_millis(20));
    put(&memory, RAM, "wfi");
    signals.wait_for_fence(signals.request_fence(Fence::Instructions));
    assert_eq!(runner.join().unwrap(), Exit::Idle);
}

#[test]
fn attention_stops_any_loop() {
    for text in [
        "loop: jal zero,loop",
        "loop: beq zero,zero,loop",
        "jalr zero,0(t0)",
        "l: csrrw zero,mscratch,zero\n jal zero,l",
    ] {
        let mut hart = program(text);
        hart.set_x(5, RAM);
        let signals = Arc::clone(hart.signals());
        let runner = thread::spawn(move || hart.run());
        thread::sleep(Duration::from_millis(5));
        signals.request_attention();
        assert_eq!(runner.join().unwrap(), Exit::Attention, "{text}");
    }
}

#[test]
fn endless_traps_are_a_fault() {
    let mut machine = program("ebreak");
    machine.set_csr(MTVEC, 0x1000);
    let Exit::Fault(text) = machine.run() else { panic!("not a fault") };
    assert!(text.contains("FetchAccess") && text.contains("0x1000"), "{text}");

    let mut supervisor = hart_on(&memory(), true);
    supervisor.set_csr(STVEC, u64::MAX);
    supervisor.set_pc(0x10);
    assert!(matches!(supervisor.run(), Exit::Fault(_)));
}

#[test]
fn an_endless_trap_that_firmware_might_end_can_be_stopped() {
    let mut hart = program("ebreak");
    hart.set_csr(PMPADDR0, u64::MAX);
    hart.set_csr(PMPCFG0, 0x1f);
    hart.set_csr(MEDELEG, u64::MAX);
    hart.set_csr(STVEC, 0x1000);
    hart.set_privilege(Privilege::Supervisor);
    let signals = Arc::clone(hart.signals());
    let runner = thread::spawn(move || hart.run());
    thread::sleep(Duration::from_millis(5));
    signals.request_attention();
    assert_eq!(runner.join().unwrap(), Exit::Attention);
}

#[test]
fn four_harts_count_together() {
    const ROUNDS: u64 = 20_000;
    let memory = memory();
    put(
        &memory,
        RAM,
        "again: amoadd.d zero,a1,(a0)
            addi a3,a0,64
        retry: lr.w t0,(a3)
            addi t0,t0,1
            sc.w t1,t0,(a3)
            bne t1,zero,retry
            addi a2,a2,-1
            bne a2,zero,again
            wfi",
    );
    let at = RAM + 0x4000;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut hart = hart_on(&memory, false);
            hart.set_x(10, at);
            hart.set_x(11, 3);
            hart.set_x(12, ROUNDS);
            thread::spawn(move || hart.run())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Exit::Idle);
    }
    assert_eq!(memory.load::<u64>(GuestPhysical(at)), Ok(3 * 4 * ROUNDS));
    assert_eq!(memory.load::<u32>(GuestPhysical(at + 64)), Ok(u32::try_from(4 * ROUNDS).unwrap()));
}

#[test]
fn store_conditional_needs_its_reservation() {
    let mut hart = program(
        "   sc.w t0,a1,(a0)
            lr.w t1,(a0)
            sc.d t2,a1,(a0)
            lr.w t1,(a0)
            sc.w t3,a1,(a2)
            lr.w t1,(a0)
            sw a1,0(a0)
            sc.w t4,a0,(a0)
            wfi",
    );
    hart.set_x(10, RAM + 0x4000);
    hart.set_x(11, 5);
    hart.set_x(12, RAM + 0x4008);
    run_to_idle(&mut hart);
    let results = [5, 7, 28, 29].map(|register| hart.x(register));
    assert_eq!(results, [1; 4], "none, other size, other place, changed");
}

/// Sv39 in S-mode: `pages` maps page numbers of the low gigabyte's first 2 MiB. Code runs from RAM, mapped at its own address.
fn translated(text: &str, pages: &[(u64, u64)]) -> Hart {
    let mut hart = program(text);
    let memory = hart.memory.clone();
    let (root, middle, last) = (RAM + 0x10000, RAM + 0x11000, RAM + 0x12000);
    let pointer = |table: u64| table >> 12 << 10 | pte::V;
    let set = |table: u64, index: u64, entry: u64| memory.store(GuestPhysical(table + 8 * index), entry).unwrap();
    set(root, 2, (RAM >> 12) << 10 | pte::V | pte::R | pte::W | pte::X | pte::A | pte::D);
    set(root, 0, pointer(middle));
    set(middle, 0, pointer(last));
    for (page, entry) in pages {
        set(last, *page, *entry);
    }
    hart.set_csr(PMPADDR0, u64::MAX);
    hart.set_csr(PMPCFG0, 0x1f);
    hart.set_csr(SATP, 8 << 60 | root >> 12);
    hart.set_csr(MTVEC, RAM + 0x800);
    put(&memory, RAM + 0x800, "wfi");
    hart.set_privilege(Privilege::Supervisor);
    hart
}

fn leaf(physical: u64, bits: u64) -> u64 {
    physical >> 12 << 10 | bits | pte::V | pte::A | pte::D
}

#[test]
fn misaligned_accesses_cross_pages() {
    // Two pages that are neighbours by virtual address only.
    let (low, high) = (RAM + 0x20000, RAM + 0x30000);
    let pages = [(1, leaf(low, pte::R | pte::W)), (2, leaf(high, pte::R | pte::W))];
    let mut hart = translated("sd a1,-3(a0)\n ld a2,-3(a0)\n lw a3,-2(a0)\n lh a4,-1(a0)\n sd a1,-8(a0)\n wfi", &pages);
    hart.set_x(10, 0x2000);
    hart.set_x(11, 0x8877_6655_4433_2211);
    run_to_idle(&mut hart);
    assert_eq!(hart.x(12), 0x8877_6655_4433_2211);
    assert_eq!(hart.x(13), 0x5544_3322);
    assert_eq!(hart.x(14), 0x4433);
    let memory = hart.memory.clone();
    assert_eq!(memory.load::<u32>(GuestPhysical(high)), Ok(0x7766_5544));
    assert_eq!(memory.load::<u64>(GuestPhysical(low + 0xff8)), Ok(0x8877_6655_4433_2211));
}

#[test]
fn a_fault_in_the_second_page_stores_nothing() {
    let low = RAM + 0x20000;
    let pages = [(1, leaf(low, pte::R | pte::W)), (2, leaf(RAM + 0x30000, pte::R))];
    let mut hart = translated("sd a1,-4(a0)", &pages);
    hart.set_x(10, 0x2000);
    hart.set_x(11, u64::MAX);
    run_to_idle(&mut hart);
    assert_eq!((hart.csr(MCAUSE), hart.csr(MTVAL), hart.csr(MEPC)), (Some(15), Some(0x2000), Some(RAM)));
    assert_eq!(hart.memory.load::<u64>(GuestPhysical(low + 0xff8)), Ok(0));
}

#[test]
fn an_instruction_in_two_pages_follows_its_second_half() {
    let (first, second, other) = (RAM + 0x20000, RAM + 0x30000, RAM + 0x31000);
    let mut hart = translated(
        "   jalr ra,0(a0)
            sd a1,0(a2)
            sfence.vma zero,zero
            jalr ra,0(a0)
            wfi",
        &[(1, leaf(first, pte::R | pte::X)), (2, leaf(second, pte::R | pte::X))],
    );
    // The same first half makes `addi a3,a3,1` with one second page, `addi a3,a3,16` with the other.
    let memory = hart.memory.clone();
    for (page, text) in [(second, "addi a3,a3,1\n jalr zero,0(ra)"), (other, "addi a3,a3,16\n jalr zero,0(ra)")] {
        let code = assemble(text, 0).unwrap();
        memory.write(GuestPhysical(first + 0xffe), &code[..2]).unwrap();
        memory.write(GuestPhysical(page), &code[2..]).unwrap();
    }
    hart.set_x(10, 0x1ffe);
    hart.set_x(11, leaf(other, pte::R | pte::X));
    hart.set_x(12, RAM + 0x12000 + 8 * 2);
    run_to_idle(&mut hart);
    assert_eq!(hart.x(13), 17);
}

#[test]
fn a_fence_of_one_page_reaches_loads_and_fetches() {
    let (one, two) = (RAM + 0x20000, RAM + 0x21000);
    let mut hart = translated(
        "   ld a3,0(a0)
            jalr ra,8(a0)
            sd a1,0(a2)
            sfence.vma a0,zero
            ld a4,0(a0)
            jalr ra,8(a0)
            wfi",
        &[(1, leaf(one, pte::R | pte::X))],
    );
    let memory = hart.memory.clone();
    for (page, value) in [(one, 1_u64), (two, 2)] {
        memory.store(GuestPhysical(page), value).unwrap();
        put(&memory, page + 8, &format!("addi a5,a5,{value}\n jalr zero,0(ra)"));
    }
    hart.set_x(10, 0x1000);
    hart.set_x(11, leaf(two, pte::R | pte::X));
    hart.set_x(12, RAM + 0x12000 + 8);
    run_to_idle(&mut hart);
    assert_eq!((hart.x(13), hart.x(14), hart.x(15)), (1, 2, 3));
}

#[test]
fn modes_and_sum_have_translations_of_their_own() {
    let user = RAM + 0x20000;
    let mut hart = translated(
        "   csrrs zero,sstatus,a1
            ld a2,0(a0)
            csrrc zero,sstatus,a1
            ld a3,0(a0)",
        &[(1, leaf(user, pte::R | pte::U))],
    );
    hart.memory.store::<u64>(GuestPhysical(user), 77).unwrap();
    hart.set_x(10, 0x1000);
    hart.set_x(11, mstatus::SUM);
    run_to_idle(&mut hart);
    assert_eq!((hart.x(12), hart.x(13)), (77, 0));
    assert_eq!((hart.csr(MCAUSE), hart.csr(MEPC)), (Some(13), Some(RAM + 12)));
}

#[test]
fn code_under_partial_protection_runs_uncached() {
    // Entry 0 denies eight bytes in the middle of the code's page to S-mode.
    let mut hart = program("addi a0,a0,1\n addi a0,a0,1\n addi a0,a0,1\n addi a0,a0,1\n addi a0,a0,1\n addi a0,a0,1");
    let memory = hart.memory.clone();
    put(&memory, RAM + 0x2000, "wfi");
    hart.set_csr(PMPADDR0, (RAM + 16) >> 2);
    hart.set_csr(PMPADDR0 + 1, u64::MAX);
    hart.set_csr(PMPCFG0, 0x1f10);
    hart.set_csr(MTVEC, RAM + 0x2000);
    hart.set_privilege(Privilege::Supervisor);
    run_to_idle(&mut hart);
    assert_eq!((hart.x(10), hart.csr(MCAUSE), hart.csr(MEPC)), (4, Some(1), Some(RAM + 16)));
}

#[test]
fn x0_stays_zero() {
    let mut hart = program(
        "addi zero,zero,5\n lui zero,1\n ld zero,0(a0)\n jal zero,next\n next: add a1,zero,zero\n csrrs zero,mhartid,zero\n wfi",
    );
    hart.set_x(10, RAM);
    hart.set_x(0, 9);
    run_to_idle(&mut hart);
    assert_eq!((hart.x(0), hart.x(11)), (0, 0));
}

#[test]
fn floating_point_is_off_until_enabled() {
    let mut hart = program("fadd.d fa0,fa1,fa2,rne\n wfi");
    hart.set_csr(MTVEC, RAM + 0x800);
    put(&hart.memory.clone(), RAM + 0x800, "wfi");
    run_to_idle(&mut hart);
    assert_eq!(hart.csr(MCAUSE), Some(2));
    hart.set_pc(RAM);
    hart.set_csr(MSTATUS, mstatus::FS_INITIAL);
    hart.set_f(11, 1.5_f64.to_bits());
    hart.set_f(12, 2.25_f64.to_bits());
    run_to_idle(&mut hart);
    assert_eq!(f64::from_bits(hart.f(10)), 3.75);
    assert_eq!(hart.csr(MSTATUS).map(|status| status & mstatus::SD), Some(mstatus::SD), "dirty");
}
