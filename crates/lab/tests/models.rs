//! Instructions that Debian's qemu 7.2 does not know (Zicond, Zicbom, Zicboz, Zawrs, and prefetch hints by their names): against what the manual says
//! of them, in a few lines here.

mod common;

use std::time::Duration;

use common::INTEGER_EDGES;
use lab::case::{Batch, FLOAT_ON, IDENTITY, MACHINE, Outcome, Place, SUPERVISOR, State};
use riscv::isa::assemble;
use riscv::isa::generate::Random;

const BREAKPOINT: u64 = 3;
const ILLEGAL: u64 = 2;
const STORE_FAULT: u64 = 7;
const LOAD_PAGE_FAULT: u64 = 13;
const STORE_PAGE_FAULT: u64 = 15;

/// Runs `text` on Isomorph in the states that `set` makes; answers each case's state before, and what it left.
fn run(text: &str, count: usize, mut set: impl FnMut(usize, &Place, &mut State)) -> Vec<(State, Place, Outcome)> {
    let mut batch = Batch::new(32, 256);
    let code = assemble(&format!("{text}\n ebreak"), 0).unwrap();
    for index in 0..count {
        let place = batch.next_place();
        let mut state = State { pc: place.code, ..State::default() };
        set(index, &place, &mut state);
        batch.push(&state, &code, &[0xa5; 256]);
    }
    let image = batch.image();
    let after = lab::engine::isomorph(&image, Duration::from_secs(60)).unwrap();
    let outcome = |index| (batch.outcome(&image, index).state, batch.place(index), batch.outcome(&after, index));
    (0..count).map(outcome).collect()
}

#[test]
fn conditional_zero() {
    let mut random = Random::new(41);
    let mut values: Vec<u64> = INTEGER_EDGES.to_vec();
    values.extend((0..8).map(|_| random.bits()));
    type Model = fn(u64, u64) -> u64;
    let models: [(&str, Model); 2] = [
        ("czero.eqz", |value, condition| if condition == 0 { 0 } else { value }),
        ("czero.nez", |value, condition| if condition != 0 { 0 } else { value }),
    ];
    for (name, model) in models {
        let count = values.len() * values.len();
        let outcomes =
            run(&format!("{name} a0,a1,a2\n {name} a3,a4,a4\n {name} zero,a1,a2"), count, |index, _, state| {
                state.x[11] = values[index / values.len()];
                state.x[12] = values[index % values.len()];
                state.x[14] = state.x[11];
            });
        for (before, _, after) in outcomes {
            let x = after.state.x;
            assert_eq!(x[10], model(before.x[11], before.x[12]), "{name} {:#x},{:#x}", before.x[11], before.x[12]);
            assert_eq!(x[13], model(before.x[14], before.x[14]), "{name} with one register twice");
            assert_eq!((x[0], after.state.cause), (0, BREAKPOINT));
        }
    }
}

/// qemu 7.2 counts into the upper half.
#[test]
fn trailing_zeroes_of_words() {
    let shifts = run("ctzw a0,a1", 66, |index, _, state| {
        state.x[11] = [u64::MAX, 1 << 63].into_iter().chain((0..64).map(|shift| u64::MAX << shift)).nth(index).unwrap();
    });
    for (before, _, after) in shifts {
        let word = before.x[11] & 0xffff_ffff;
        let expected = (0..32).find(|bit| word >> bit & 1 == 1).unwrap_or(32);
        assert_eq!(after.state.x[10], expected, "{:#x}", before.x[11]);
    }
}

#[test]
fn block_zero() {
    for (before, place, after) in
        run("cbo.zero (a0)", 200, |index, place, state| state.x[10] = place.memory + index as u64)
    {
        let start = usize::try_from(before.x[10] - place.memory).unwrap() / 64 * 64;
        let mut expected = vec![0xa5; 256];
        expected[start..start + 64].fill(0);
        assert_eq!(after.memory, expected, "{start}");
        assert_eq!((after.state.cause, after.state.x), (BREAKPOINT, before.x));
    }
    for text in ["cbo.zero (a0)", "cbo.clean (a0)", "cbo.flush (a0)", "cbo.inval (a0)"] {
        for (_, _, after) in run(text, 1, |_, _, state| state.x[10] = 1 << 48) {
            assert_eq!((after.state.cause, after.state.value), (STORE_FAULT, 1 << 48), "{text}");
        }
    }
}

#[test]
fn block_management_and_prefetches_change_nothing() {
    let texts = [
        "cbo.clean (a0)",
        "cbo.flush (a0)",
        "cbo.inval (a0)",
        "prefetch.i 32(a0)",
        "prefetch.r -64(a0)",
        "prefetch.w 0(a0)",
    ];
    for text in texts {
        for (before, place, after) in run(text, 8, |index, place, state| {
            // The second half is where the page table has nothing.
            state.satp = IDENTITY;
            state.x[10] = if index < 4 { place.memory + 40 * index as u64 } else { 1 << 20 };
        }) {
            let fault = text.starts_with("cbo") && before.x[10] == 1 << 20;
            assert_eq!(after.state.cause, if fault { STORE_PAGE_FAULT } else { BREAKPOINT }, "{text}");
            assert_eq!(after.state.pc, place.code + if fault { 0 } else { 4 }, "{text}");
            assert_eq!((after.state.x, after.memory), (before.x, vec![0xa5; 256]), "{text}");
        }
    }
}

/// qemu 7.2 allows them to user mode.
#[test]
fn invalidation_is_not_for_user_mode() {
    for text in ["sfence.w.inval", "sfence.inval.ir", "sinval.vma a0,a1", "sfence.vma a0,a1"] {
        for (before, _, after) in run(text, 2, |index, _, state| {
            state.mstatus = FLOAT_ON | if index == 1 { SUPERVISOR } else { 0 };
        }) {
            let allowed = before.mstatus & SUPERVISOR != 0;
            assert_eq!(after.state.cause, if allowed { BREAKPOINT } else { ILLEGAL }, "{text}");
        }
    }
}

/// Loads and stores of M-mode as another mode makes them; qemu 7.2 keeps that switched on in lesser modes.
#[test]
fn modified_privilege_ends_with_the_mode() {
    const MPRV: u64 = 1 << 17;
    let text = "csrrw zero,mepc,a0\n csrrw zero,mstatus,a1\n mret";
    for (before, _, after) in run(text, 6, |index, place, state| {
        state.mstatus = FLOAT_ON | MACHINE;
        state.x[10] = place.code + 12;
        state.x[11] = FLOAT_ON | (MPRV * (index as u64 & 1)) | [0, SUPERVISOR, MACHINE][index / 2];
    }) {
        let kept = before.x[11] & MPRV != 0 && before.x[11] & MACHINE == MACHINE;
        assert_eq!(after.state.mstatus & MPRV != 0, kept, "{:#x}", before.x[11]);
    }
}

/// The highest bits of page table entries; qemu 7.2 ignores some that are reserved.
#[test]
fn reserved_bits_of_page_table_entries_fault() {
    let (memory_size, entry) = (2 * 4096, |flags: u64| 0x8000_0000 >> 2 | flags);
    let code = assemble("ld a1,0(a0)\n ebreak", 0).unwrap();
    let mut batch = Batch::new(4096 - 0x240, memory_size);
    for bit in 0..=64 {
        let place = batch.next_place();
        // One table: entry 1 maps RAM once more, with the odd bits; entry 2 maps it to itself.
        let odd = if bit == 64 { 3 << 61 } else { 1 << bit };
        let mut memory = vec![0; 4096];
        memory[8..16].copy_from_slice(&(entry(0xdf) | odd).to_le_bytes());
        memory[16..24].copy_from_slice(&entry(0xdf).to_le_bytes());
        let mut state = State { pc: place.code, satp: 8 << 60 | place.memory >> 12, ..State::default() };
        state.x[10] = place.memory - 0x4000_0000;
        batch.push(&state, &code, &memory);
    }
    let after = lab::engine::isomorph(&batch.image(), Duration::from_secs(60)).unwrap();
    for bit in 0..=64 {
        // The address's own bits aside; then 54 to 60, the reserved memory type, and N of a page that is not 64 KiB.
        let faults = match bit {
            10..54 => continue,
            54..=60 | 63 | 64 => true,
            _ => false,
        };
        let state = batch.outcome(&after, bit).state;
        assert_eq!(state.cause, if faults { LOAD_PAGE_FAULT } else { BREAKPOINT }, "bit {bit}");
    }
}

#[test]
fn waiting_on_a_reservation_ends() {
    const TW: u64 = 1 << 21;
    for text in ["wrs.nto", "wrs.sto", "lr.w a1,(a0)\n wrs.sto", "lr.d a1,(a0)\n wrs.nto", "pause"] {
        for (before, place, after) in run(text, 2, |index, place, state| {
            state.x[10] = place.memory;
            // The timeout of user mode's unbounded wait may be a trap.
            state.mstatus = FLOAT_ON | if index == 1 { TW } else { 0 };
        }) {
            let may_trap = before.mstatus & TW != 0 && text.ends_with("wrs.nto");
            assert!(after.state.cause == BREAKPOINT || may_trap && after.state.cause == ILLEGAL, "{text}");
            if after.state.cause == BREAKPOINT {
                assert_eq!(after.state.pc, place.code + 4 * text.lines().count() as u64, "{text}");
            }
        }
    }
}
