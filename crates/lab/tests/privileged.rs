//! Traps, trap returns, control and status registers, address translation and physical memory protection, on Isomorph and on Debian's qemu.

mod common;

use common::Cases;
use lab::case::{FLOAT_ON, MACHINE, SUPERVISOR, State};
use riscv::isa::assemble;
use riscv::isa::generate::Random;

const MODES: [u64; 3] = [0, SUPERVISOR, MACHINE];
const SIE: u64 = 1 << 1;
const MIE: u64 = 1 << 3;
const SPIE: u64 = 1 << 5;
const MPIE: u64 = 1 << 7;
const SPP: u64 = 1 << 8;
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;
const TVM: u64 = 1 << 20;
const TW: u64 = 1 << 21;
const TSR: u64 = 1 << 22;

/// A random choice of `bits`.
fn some_of(bits: &[u64], random: &mut Random) -> u64 {
    bits.iter().filter(|_| random.one_in(2)).sum()
}

#[test]
fn traps_and_returns() {
    let mut random = Random::new(31);
    let mut cases = Cases::new("traps", 128, 0);
    let texts = [
        "ecall",
        "ebreak",
        "c.ebreak",
        "mret",
        "sret",
        "csrrw zero,mepc,a0\n csrrw zero,mstatus,a1\n mret",
        "csrrw zero,sepc,a0\n csrrw zero,sstatus,a1\n sret",
        "csrrw zero,sepc,a0\n csrrw zero,mstatus,a1\n sret",
        "csrrs zero,sstatus,a1\n csrrs a2,sstatus,zero\n csrrc a3,sstatus,a1\n csrrs a4,sstatus,zero",
        "sfence.vma zero,zero",
        "sfence.vma a0,a1",
        "sinval.vma a0,a1",
        "sfence.w.inval",
        "sfence.inval.ir",
        "csrrs a0,satp,zero",
        "csrrw a0,satp,zero",
        // A trap that S-mode takes: its handler looks at the causes.
        "csrrw zero,stvec,a0\n csrrw zero,medeleg,a2\n csrrw zero,mepc,a3\n csrrw zero,mstatus,a1\n mret",
    ];
    // At offset 64: the landing place of returns, and the handler of S-mode.
    let landing = "csrrs s2,scause,zero\n csrrs s3,sepc,zero\n csrrs s4,stval,zero\n csrrs s5,sstatus,zero\n ecall";
    let landing = assemble(landing, 0).unwrap();
    for text in texts {
        let mut code = assemble(&format!("{text}\n ebreak"), 0).unwrap();
        code.resize(64, 0);
        code.extend_from_slice(&landing);
        // At offset 96: what traps in less privileged modes.
        code.resize(96, 0);
        for mode in MODES {
            // Where they are allowed they need somewhere to return to.
            if text == "mret" && mode == MACHINE || text == "sret" && mode != 0 {
                continue;
            }
            // Forbidden in user mode, but not by qemu 7.2.
            if text.starts_with("sfence.") && text.contains("inval") && mode == 0 {
                continue;
            }
            for _ in 0..24 {
                let mut code = code.clone();
                let traps = [
                    "ecall",
                    "ebreak",
                    "mret",
                    "csrrs a0,mstatus,zero",
                    "lw a0,0(zero)",
                    "sw a0,0(s6)",
                    "jalr zero,0(s6)",
                ];
                code.extend(assemble(random.choose::<&str>(&traps), 0).unwrap());
                cases.add(&code, &[], |place, state| {
                    state.mstatus =
                        FLOAT_ON | mode | some_of(&[TVM, TW, TSR, SIE, SPIE, MPIE, SPP, SUM, MXR], &mut random);
                    state.x[10] = place.code + 64;
                    let mpp = *random.choose(&MODES);
                    state.x[11] =
                        mpp | some_of(&[FLOAT_ON, SIE, MIE, SPIE, MPIE, SPP, SUM, MXR, TVM, TW, TSR], &mut random);
                    // Not environment calls from S-mode: the landing place is where they would lead again.
                    state.x[12] = random.bits() & 0xb1ff;
                    state.x[13] = place.code + 96;
                    state.x[22] = 1 << 48;
                });
            }
        }
    }
    cases.compare(30);
}

#[test]
fn waiting_where_it_is_forbidden() {
    let mut cases = Cases::new("wfi", 16, 0);
    let code = assemble("wfi\n ebreak", 0).unwrap();
    for mode in [0, SUPERVISOR] {
        for other in 0..32 {
            cases.add(&code, &[], |_, state| {
                state.mstatus = FLOAT_ON | TW | mode | ((other & 1) * SPP) | ((other >> 1 & 3) << 18)
            });
        }
    }
    cases.compare(0);
}

/// Which registers exist, and for whom.
#[test]
fn csr_permissions() {
    let mut cases = Cases::new("csr permissions", 32, 0);
    for csr in 0..4096u64 {
        // What one side has and the other may lack: state enables, interrupt filtering, debug triggers, performance events beyond the
        // fixed ones, hypervisor, indirect access, cryptographic seed, vector; and qemu's more than sixteen PMP entries.
        let optional = matches!(csr, 0x008..=0x00f | 0x015 | 0x017 | 0x10c..=0x10f | 0x120 | 0x14d | 0x150..=0x15f | 0x200..=0x2ff | 0x308..=0x319)
            || matches!(csr, 0x321..=0x322 | 0x350..=0x35f | 0x5a8 | 0x600..=0x6ff | 0x720..=0x7ff | 0xda0 | 0xe00..=0xeff | 0xfb0 | 0xc20..=0xc22);
        if optional {
            continue;
        }
        for mode in MODES {
            for write in [false, true] {
                // Writes change what the runner lives on.
                if write && mode == MACHINE {
                    continue;
                }
                let text = if write { format!("csrrs zero,{csr},a1") } else { format!("csrrs a0,{csr},zero") };
                // Only whether it traps.
                let code = assemble(&format!("{text}\n addi a0,zero,0\n ebreak"), 0).unwrap();
                cases.add(&code, &[], |_, state| {
                    state.mstatus = FLOAT_ON | mode;
                    // To write zero is to write, but not to qemu 7.2.
                    state.x[11] = u64::from(csr >> 10 == 3);
                });
            }
        }
    }
    cases.compare(1);
}

/// What registers make of what is written to them.
#[test]
fn csr_values() {
    let mut random = Random::new(33);
    let mut cases = Cases::new("csr values", 64, 0);
    let machine =
        ["mscratch", "mepc", "mcause", "mtval", "mtvec", "mideleg", "medeleg", "mie", "mcounteren", "mcountinhibit"];
    let supervisor = ["sscratch", "sepc", "scause", "stval", "stvec", "sie", "sip", "scounteren", "satp"];
    for csr in machine.iter().chain(&supervisor) {
        for _ in 0..100 {
            // All fields that the standard leaves open are left alone.
            let mask = match *csr {
                "mcause" | "scause" => 0x8000_0000_0000_001f,
                "mtvec" | "stvec" => !0x3e,
                // Bit 0 is zero by the manual; qemu 7.2 keeps it.
                "mepc" | "sepc" => !1,
                "mscratch" | "sscratch" | "mtval" | "stval" => u64::MAX,
                "mideleg" => 0x222,
                // Not the misaligned jump, which cannot happen with compressed instructions.
                "medeleg" => 0xb1fe,
                "mie" => 0xaaa,
                "sie" | "sip" => 0x222,
                "mcounteren" | "scounteren" => 7,
                "mcountinhibit" => 5,
                _ => 0xf000_0000_00ff_ffff,
            };
            // Keeps the old value, writes, sets, clears, reads in between, and puts the old value back.
            let code = format!(
                "csrrs t0,{csr},zero
                 csrrw zero,{csr},a1
                 csrrs a2,{csr},a3
                 csrrc a4,{csr},a5
                 csrrw a6,{csr},t0
                 addi t0,zero,0
                 ebreak"
            );
            let code = assemble(&code, 0).unwrap();
            let mode = if machine.contains(csr) || random.one_in(2) { MACHINE } else { SUPERVISOR };
            cases.add(&code, &[], |_, state| {
                *state = State { pc: state.pc, mstatus: FLOAT_ON | mode, ..State::default() };
                // A page table that S-mode cannot run on would end the case too early to see.
                let keep = if *csr == "satp" && mode == SUPERVISOR { 0 } else { mask };
                for register in [11, 13, 15] {
                    state.x[register] = random.bits() & keep;
                }
            });
        }
    }
    cases.compare(99);
}

const PAGE: u64 = 4096;

/// N: the entry is one of a contiguous range.
const NAPOT: u64 = 1 << 63;

/// Page tables with all kinds of entries, accessed in all kinds of ways.
///
/// The memory of a case is five tables, those of level 4 to 0, and the page that is accessed. Under every scheme the walk comes through the
/// first entries of the upper tables; in the table of level 2, entry 1 leads to the page, and entry 2 is where the code is, identity-mapped.
#[test]
fn address_translation() {
    let mut random = Random::new(34);
    let mut cases = Cases::new("address translation", PAGE - 0x240, 6 * PAGE).in_batches_of(500);
    let accesses = [
        "ld a1,0(a0)",
        "sd a1,0(a0)",
        "lw a1,2(a0)",
        "amoadd.d a1,a2,(a0)",
        "lr.d a1,(a0)\n sc.d a2,a1,(a0)",
        "ld a1,0(a0)\n sd a2,0(a0)\n ld a3,0(a0)",
        "jalr zero,0(a0)",
    ];
    for _ in 0..4000 {
        let code = assemble(&format!("{}\n ebreak", random.choose(&accesses)), 0).unwrap();
        let place = cases.next_place();
        let (levels, leaf_level) = (3 + random.below(3), if random.one_in(3) { random.below(3) } else { 0 });
        let user = random.one_in(2);
        let page = place.memory + 5 * PAGE;
        // A large page around the page: the offset inside is that of the physical address.
        let size = 12 + 9 * leaf_level;
        let address = 1 << 30 | page & ((1 << size) - 1) | page & 0xf000 | (8 * random.below(500));

        // First the page: full of `c.ebreak`.
        let mut memory: Vec<u8> = [0x02, 0x90].into_iter().cycle().take(usize::try_from(6 * PAGE).unwrap()).collect();
        memory[..usize::try_from(5 * PAGE).unwrap()].fill(0);
        let mut put = |level: u64, index: u64, entry: u64| {
            let at = usize::try_from((4 - level) * PAGE + 8 * index).unwrap();
            memory[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        };
        // For the report of a difference only: the leaf, and what is wrong above it.
        let (mut leaf, mut odds) = (0, 0);
        for level in leaf_level..levels {
            let index = address >> (12 + 9 * level) & 511;
            if level == leaf_level {
                let target = if random.one_in(8) { page } else { page >> size << size };
                leaf = target >> 12 << 10 | flags(&mut random);
                if level == 0 && random.one_in(16) {
                    // A contiguous range of 64 KiB around the page.
                    leaf = (page & !0xffff | 0x8000) >> 2 | flags(&mut random) | NAPOT;
                }
                if leaf & NAPOT != 0 {
                    // qemu 7.2 notes the access before it looks whether the range is well-formed.
                    leaf |= 0xc0;
                }
                put(level, index, leaf);
            } else {
                let next = place.memory + (5 - level) * PAGE;
                // Not one that leads out of memory: that is an access fault, and a page fault to qemu 7.2.
                let bit = random.below(21);
                let odd = if random.one_in(40) { 1 << if bit < 18 { bit } else { bit + 43 } } else { 0 };
                odds |= odd;
                put(level, index, (next >> 12 << 10 | 1) ^ odd);
            }
        }
        put(2, place.code >> 30, place.code >> 30 << 28 | 0xcf | if user { 0x10 } else { 0 });
        let root = place.memory + (5 - levels) * PAGE;
        let beyond = if random.one_in(20) { 1 << 60 } else { 0 };
        cases.add(&code, &memory, |_, state| {
            state.satp = (5 + levels) << 60 | root >> 12;
            state.mstatus = FLOAT_ON | if user { 0 } else { SUPERVISOR } | some_of(&[SUM, MXR], &mut random);
            state.x[10] = address | beyond;
            state.x[12] = 5;
            (state.x[30], state.x[31]) = (leaf, odds);
        });
    }
    cases.compare(20);
}

/// Accesses and instructions that lie in two pages, which are far apart in memory and allow different things.
#[test]
fn crossing_pages() {
    let mut random = Random::new(36);
    // Tables of three levels, and the two pages in the wrong order.
    let mut cases = Cases::new("crossing pages", PAGE - 0x240, 5 * PAGE).in_batches_of(500);
    let accesses = [
        "ld a1,0(a0)",
        "sd a2,0(a0)",
        "lw a1,0(a0)",
        "sh a2,0(a0)",
        "fld fa0,0(a0)",
        "fsw fa0,0(a0)",
        "jalr zero,0(a0)",
    ];
    for _ in 0..3000 {
        let code = assemble(&format!("{}\n ebreak", random.choose(&accesses)), 0).unwrap();
        let place = cases.next_place();
        let mut memory: Vec<u8> = (0..5 * PAGE / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
        memory[..usize::try_from(3 * PAGE).unwrap()].fill(0);
        let mut put = |at: u64, value: u64, length: usize| {
            let at = usize::try_from(at).unwrap();
            memory[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        };
        let entry = |page: u64, flags: u64| (place.memory + page * PAGE) >> 12 << 10 | flags;
        put(8, entry(1, 1), 8);
        put(16, place.code >> 30 << 28 | 0xdf, 8);
        put(PAGE, entry(2, 1), 8);
        let mut allowed = || if random.one_in(2) { 0xdf } else { 0x51 | random.below(256) };
        put(2 * PAGE, entry(4, allowed()), 8);
        put(2 * PAGE + 8, entry(3, allowed()), 8);
        // An instruction of four bytes that lies in both: `addi a1,a1,1`, then `c.ebreak`.
        let straddling = assemble("addi a1,a1,1", 0).unwrap();
        put(5 * PAGE - 2, u64::from(u16::from_le_bytes([straddling[0], straddling[1]])), 2);
        put(3 * PAGE, u64::from(u16::from_le_bytes([straddling[2], straddling[3]])) | 0x9002 << 16, 4);
        let fetches = code[0] == 0x67;
        let offset = PAGE - if fetches { 2 } else { 1 + random.below(8) };
        let (mxr, value) = (some_of(&[MXR], &mut random), random.bits());
        cases.add(&code, &memory, |_, state| {
            state.satp = 8 << 60 | place.memory >> 12;
            state.mstatus = FLOAT_ON | mxr;
            state.x[10] = 1 << 30 | offset;
            (state.x[12], state.f[10]) = (value, value);
        });
    }
    cases.compare(20);
}

/// The bits of a leaf entry beside the address, often all that an access needs. What is reserved in the high bits is in `models.rs`, since
/// qemu 7.2 does not mind it.
fn flags(random: &mut Random) -> u64 {
    let low = match random.below(4) {
        0 => random.below(256),
        1 => 0xcf | random.below(2) << 4,
        _ => 1 | random.below(128) << 1,
    };
    let software = random.below(4) << 8;
    let high = match random.below(24) {
        0 => NAPOT,
        1 => random.below(3) << 61,
        _ => 0,
    };
    low | software | high
}

/// Regions of physical memory that user mode may or may not access.
#[test]
fn physical_memory_protection() {
    let mut random = Random::new(35);
    let mut cases = Cases::new("memory protection", 128, 512);
    let accesses =
        ["ld a1,0(a3)", "sd a1,0(a3)", "lb a1,3(a3)", "sw a1,4(a3)", "jalr zero,0(a3)", "amoor.d a1,zero,(a3)"];
    let setup = "csrrw zero,pmpaddr0,a4
         csrrw zero,pmpaddr1,a5
         csrrw zero,pmpaddr2,a6
         csrrw zero,pmpcfg0,a7
         csrrs s2,pmpaddr0,zero
         csrrs s3,pmpaddr1,zero
         csrrs s4,pmpcfg0,zero
         csrrw zero,mepc,a2
         csrrw zero,mstatus,a0
         mret";
    for _ in 0..3000 {
        let mut code = assemble(setup, 0).unwrap();
        let user = code.len() as u64;
        code.extend(assemble(&format!("{}\n ebreak", random.choose(&accesses)), 0).unwrap());
        let memory: Vec<u8> = std::iter::repeat_n([0x02, 0x90], 256).flatten().collect();
        cases.add(&code, &memory, |place, state| {
            state.mstatus = FLOAT_ON | MACHINE;
            state.x[10] = FLOAT_ON | if random.one_in(2) { SUPERVISOR } else { 0 };
            state.x[12] = place.code + user;
            state.x[13] = place.memory + 128 + 8 * random.below(32);
            let near = |random: &mut Random| (place.memory + 64 + 8 * random.below(48)) >> 2;
            // Of a naturally aligned power of two: ones at the end say how large.
            let power = |random: &mut Random| near(random) | ((1 << random.below(6)) - 1);
            for register in [14, 15] {
                state.x[register] = if random.one_in(2) { near(&mut random) } else { power(&mut random) };
            }
            state.x[16] = u64::MAX;
            // Off, top of range, four bytes, power of two; write without read is reserved.
            let mut entry = || loop {
                let entry = random.below(8) | random.below(4) << 3;
                if entry & 3 != 2 {
                    return entry;
                }
            };
            state.x[17] = entry() | entry() << 8 | 0x1f << 16;
        });
    }
    cases.compare(60);
}
