//! Supervisor calls, made by guests.

use std::fmt::Write;

use super::*;
use crate::sbi::Error;

const TIME: u64 = 0x5449_4d45;
const IPI: u64 = 0x73_5049;
const RFENCE: u64 = 0x5246_4e43;
const HSM: u64 = 0x48_534d;
const RESET: u64 = 0x5352_5354;
const CONSOLE: u64 = 0x4442_434e;
const PMU: u64 = 0x50_4d55;
const ALL: u64 = u64::MAX;
const OK: u64 = 0;

/// The text of one call.
fn call(extension: u64, function: u64, arguments: &[u64]) -> String {
    let mut text = String::new();
    for (index, value) in arguments.iter().enumerate() {
        writeln!(text, "li a{index}, {value:#x}").unwrap();
    }
    writeln!(text, "li a6, {function:#x}\nli a7, {extension:#x}\necall").unwrap();
    text
}

/// Extension, function and arguments of a call.
type Call<'a> = (u64, u64, &'a [u64]);

/// Runs the calls one after the other on the first of four harts; `a0` and `a1` after each.
fn answers(calls: &[Call<'_>]) -> (Vec<(u64, u64)>, Arc<Terminal>) {
    let mut main = format!("li s0, {RESULTS:#x}\n");
    for (extension, function, arguments) in calls {
        main += &call(*extension, *function, arguments);
        main += "sd a0, 0(s0)\nsd a1, 8(s0)\naddi s0, s0, 16\n";
    }
    let (board, terminal) = board(4, &(main + POWER_OFF), "");
    assert_eq!(run(&board), StopReason::PowerOff(0));
    let answers = (0..calls.len() as u64).map(|n| (result(&board, 2 * n), result(&board, 2 * n + 1))).collect();
    (answers, terminal)
}

/// The same, and what it answers.
type Case<'a> = (u64, u64, &'a [u64], Result<u64, Error>);

#[track_caller]
fn check(cases: &[Case<'_>]) -> Arc<Terminal> {
    let calls: Vec<_> =
        cases.iter().map(|(extension, function, arguments, _)| (*extension, *function, *arguments)).collect();
    let (answers, terminal) = answers(&calls);
    for ((extension, function, arguments, expected), answer) in cases.iter().zip(answers) {
        let expected = expected.map_or_else(|error| (error.code(), 0), |value| (OK, value));
        assert_eq!(answer, expected, "{extension:#x} {function} {arguments:#x?}");
    }
    terminal
}

#[test]
fn base() {
    check(&[
        (0x10, 0, &[], Ok(0x0200_0000)),
        (0x10, 3, &[HSM], Ok(1)),
        (0x10, 3, &[0x1234], Ok(0)),
        (0x10, 4, &[], Ok(0)),
        (0x10, 7, &[], Err(Error::NotSupported)),
        (0x999, 0, &[1, 2], Err(Error::NotSupported)),
    ]);
}

#[test]
fn errors_of_calls_to_other_harts() {
    let invalid = Err(Error::InvalidParameter);
    check(&[
        (TIME, 0, &[ALL], Ok(0)),
        (TIME, 1, &[ALL], Err(Error::NotSupported)),
        (IPI, 0, &[0b1111, 0], Ok(0)),
        (IPI, 0, &[0b10000, 0], invalid),
        (IPI, 0, &[1, 4], invalid),
        (IPI, 0, &[0, ALL], Ok(0)),
        (RFENCE, 0, &[0b1111, 0], Ok(0)),
        (RFENCE, 1, &[0, ALL, 0x1000, 0x1000], Ok(0)),
        (RFENCE, 2, &[0b11, 2, 0, 0, 7], Ok(0)),
        (RFENCE, 2, &[0b11, 2, 0, 0, ALL], Ok(0)),
        (RFENCE, 2, &[0b111, 2, 0, 0, 7], invalid),
        (RFENCE, 3, &[1, 0, 0, 0, 0], Err(Error::NotSupported)),
        (HSM, 0, &[4, KERNEL, 0], invalid),
        (HSM, 0, &[1, 0x1000, 0], Err(Error::InvalidAddress)),
        (HSM, 0, &[1, KERNEL + 1, 0], Err(Error::InvalidAddress)),
        (HSM, 0, &[1, 0x8400_0000, 0], Err(Error::InvalidAddress)),
        (HSM, 0, &[0, KERNEL, 0], Err(Error::AlreadyAvailable)),
        (HSM, 2, &[0], Ok(0)),
        (HSM, 2, &[1], Ok(1)),
        (HSM, 2, &[4], invalid),
        (HSM, 2, &[ALL], invalid),
        (HSM, 3, &[1, 0, 0], invalid),
        (HSM, 3, &[0x8000_0000, 7, 0], Err(Error::InvalidAddress)),
        (RESET, 0, &[9, 0], invalid),
        (RESET, 0, &[0, 9], invalid),
    ]);
}

#[test]
fn performance_counters() {
    check(&[
        (PMU, 0, &[], Ok(crate::sbi::pmu::COUNTERS_COUNT as u64)),
        (PMU, 1, &[0], Ok(63 << 12 | 0xc00)),
        (PMU, 1, &[1], Err(Error::InvalidParameter)),
        (PMU, 2, &[0, 0xff, 0, 0xf_0005, 0], Ok(3)),
        (PMU, 3, &[3, 1, 0, 0], Ok(0)),
        (TIME, 0, &[ALL], Ok(0)),
        (TIME, 0, &[ALL], Ok(0)),
        (PMU, 5, &[3], Ok(2)),
        (PMU, 4, &[3, 1, 0], Ok(0)),
        (PMU, 4, &[3, 1, 0], Err(Error::AlreadyStopped)),
        (PMU, 7, &[0, 0, 0], Err(Error::NotSupported)),
    ]);
}

#[test]
fn debug_console() {
    let invalid = Err(Error::InvalidParameter);
    let terminal = check(&[
        (CONSOLE, 2, &[0x48], Ok(0)),
        (CONSOLE, 0, &[4, KERNEL + 0x30, 0], Ok(4)),
        (CONSOLE, 0, &[4, KERNEL, 1], invalid),
        (CONSOLE, 0, &[4, 0x1000_0000, 0], invalid),
        (CONSOLE, 0, &[ALL, KERNEL, 0], invalid),
        (CONSOLE, 0, &[0, KERNEL, 0], Ok(0)),
        (CONSOLE, 1, &[4, RESULTS + 0x1000, 0], Ok(0)),
        (CONSOLE, 1, &[4, 0x1000, 0], invalid),
        (CONSOLE, 3, &[], Err(Error::NotSupported)),
    ]);
    assert_eq!(terminal.text(), "HRISC");
    let (legacy, terminal) = answers(&[(1, 0, &[0x21, 5]), (2, 0, &[0, 5])]);
    assert_eq!(legacy, [(0, 5), (ALL, 5)], "legacy calls leave a1 alone");
    assert_eq!(terminal.text(), "!");
}

#[test]
fn characters_typed_are_read() {
    let read = call(CONSOLE, 1, &[4, RESULTS + 8, 0]);
    let main = format!("li s0, {RESULTS:#x}\nagain:\n{read}beq a1, zero, again\nsd a1, 0(s0)\n{POWER_OFF}");
    let (board, terminal) = board(1, &main, "");
    terminal.press(b"k");
    assert_eq!(run(&board), StopReason::PowerOff(0));
    assert_eq!((result(&board, 0), result(&board, 1)), (1, u64::from(b'k')));
}

#[test]
fn harts_start_each_other_and_stop() {
    // Every other hart leaves its number and argument and stops; the first waits until they all have, and starts the last anew.
    let start = |hart: u64, opaque: u64| call(HSM, 0, &[hart, KERNEL + 0x1000, opaque]);
    let stopped = |hart: u64| {
        let status = call(HSM, 2, &[hart]);
        format!("wait{hart}:\n{status}li t0, 1\nbne a1, t0, wait{hart}\n")
    };
    let main = (1..4).map(|hart| start(hart, 100 + hart)).collect::<String>()
        + &(1..4).map(stopped).collect::<String>()
        + &start(3, 7)
        + &stopped(3).replace("wait", "again")
        + POWER_OFF;
    let other = format!(
        "li t0, {RESULTS:#x}\nslli t1, a0, 4\nadd t0, t0, t1\nsd a1, 0(t0)\nsd a0, 8(t0)\ncsrrs t2, satp, zero\n{}",
        call(HSM, 1, &[])
    );
    let (board, _) = board(4, &main, &other);
    assert_eq!(run(&board), StopReason::PowerOff(0));
    for (hart, opaque) in [(1, 101), (2, 102), (3, 7)] {
        assert_eq!((result(&board, 2 * hart), result(&board, 2 * hart + 1)), (opaque, hart));
    }
}

#[test]
fn a_machine_whose_harts_have_all_stopped_is_at_fault() {
    let (board, _) = board(2, &call(HSM, 1, &[]), "");
    let reason = run(&board);
    assert_eq!(reason, StopReason::Fault("every hart has stopped itself; nothing can start one again".into()));
}

#[test]
fn a_sleeping_hart_is_woken_by_another() {
    // The second hart enables supervisor software interrupts at the hart but not globally, says that it is there, and sleeps.
    let other = format!(
        "li t0, {RESULTS:#x}\nli t1, 2\ncsrrs zero, sie, t1\nli t2, 1\nsd t2, 0(t0)\nsleep:\nwfi\ncsrrs t3, sip, zero\nand t3, t3, t1\n\
         beq t3, zero, sleep\nsd t3, 8(t0)\n{}",
        call(HSM, 1, &[])
    );
    let main = format!(
        "{}li t0, {RESULTS:#x}\nthere:\nld t1, 0(t0)\nbeq t1, zero, there\n{}wake:\nld t1, 8(t0)\nbeq t1, zero, wake\n{POWER_OFF}",
        call(HSM, 0, &[1, KERNEL + 0x1000, 0]),
        call(IPI, 0, &[2, 0]),
    );
    let (board, _) = board(2, &main, &other);
    assert_eq!(run(&board), StopReason::PowerOff(0));
    assert_eq!(result(&board, 1), 2, "sip.SSIP");
}

/// Sleeps for 20 ms by the call of `sleep`, with the timer interrupt enabled at the hart only; leaves the ticks before and after.
fn sleeper(sleep: &str, after: &str) -> (String, String) {
    let before = format!(
        "li s0, {RESULTS:#x}\nli t1, 32\ncsrrs zero, sie, t1\ncsrrs a0, time, zero\nsd a0, 0(s0)\nli t0, 200000\nadd a0, a0, t0\n\
         li a6, 0\nli a7, {TIME:#x}\necall\n{sleep}"
    );
    let finish = format!("csrrs t0, time, zero\nsd t0, 8(s0)\n{POWER_OFF}");
    (before + &finish, format!("{after}{finish}"))
}

#[test]
fn suspension_ends_with_the_timer() {
    let wfi = "again:\nwfi\ncsrrs t0, sip, zero\nbeq t0, zero, again\n".to_string();
    let suspend = format!("again:\n{}csrrs t0, sip, zero\nbeq t0, zero, again\n", call(HSM, 3, &[0, 0, 0]));
    let restart = call(HSM, 3, &[0x8000_0000, KERNEL + 0x1000, RESULTS]) + "jal zero, 0x80200000\n";
    for (sleep, after) in [(wfi, ""), (suspend, ""), (restart, "addi s0, a1, 0\n")] {
        let (main, other) = sleeper(&sleep, after);
        let (board, _) = board(1, &main, &other);
        assert_eq!(run(&board), StopReason::PowerOff(0));
        let ticks = result(&board, 1) - result(&board, 0);
        assert!((200_000..1_500_000).contains(&ticks), "20 ms are {ticks} ticks");
    }
}

#[test]
fn a_remote_fence_makes_another_hart_see_a_new_mapping() {
    // Sv39: addresses from 0x8000_0000 are themselves; 0x4000_0000 is a large page at 0x8120_0000, and later at 0x8140_0000.
    let leaf = |physical: u64| physical >> 12 << 10 | 0xcf;
    let (root, middle) = (0x8180_0000_u64, 0x8180_1000_u64);
    let main = [
        (0x8120_0000, 111),
        (0x8140_0000, 222),
        (root + 8, middle >> 12 << 10 | 1),
        (root + 16, leaf(0x8000_0000)),
        (middle, leaf(0x8120_0000)),
    ]
    .iter()
    .map(|(at, value)| format!("li t0, {at:#x}\nli t1, {value:#x}\nsd t1, 0(t0)\n"))
    .collect::<String>()
        + &call(HSM, 0, &[1, KERNEL + 0x1000, 0])
        + &format!("li t0, {RESULTS:#x}\nli t2, 111\nold:\nld t1, 0(t0)\nbne t1, t2, old\n")
        + &format!("li t3, {middle:#x}\nli t1, {:#x}\nsd t1, 0(t3)\n", leaf(0x8140_0000))
        + &call(RFENCE, 1, &[2, 0, 0x4000_0000, 0x1000])
        + "li t2, 222\nnew:\nld t1, 0(t0)\nbne t1, t2, new\n"
        + POWER_OFF;
    let other = format!(
        "li t0, {:#x}\ncsrrw zero, satp, t0\nsfence.vma zero, zero\nli t0, {RESULTS:#x}\nli t1, 0x40000000\n\
         loop:\nld t2, 0(t1)\nsd t2, 0(t0)\njal zero, loop\n",
        8_u64 << 60 | root >> 12
    );
    let (board, _) = board(2, &main, &other);
    assert_eq!(run(&board), StopReason::PowerOff(0));
}

#[test]
fn a_remote_fence_makes_another_hart_see_new_code() {
    let replacement = u32::from_le_bytes(program(0, "addi t2, zero, 2").try_into().unwrap());
    // The second hart's loop: its first instruction, three words in, is replaced.
    let other = "addi t0, a1, 0\nloop:\naddi t2, zero, 1\nsd t2, 0(t0)\njal zero, loop\n";
    let main = call(HSM, 0, &[1, KERNEL + 0x1000, RESULTS])
        + &format!("li t0, {RESULTS:#x}\nli t2, 1\nold:\nld t1, 0(t0)\nbne t1, t2, old\n")
        + &format!("li t3, {:#x}\nli t1, {replacement:#x}\nsw t1, 0(t3)\n", KERNEL + 0x1004)
        + &call(RFENCE, 0, &[2, 0])
        + "li t2, 2\nnew:\nld t1, 0(t0)\nbne t1, t2, new\n"
        + POWER_OFF;
    let (board, _) = board(2, &main, other);
    assert_eq!(run(&board), StopReason::PowerOff(0));
}

#[test]
fn harts_that_fence_each_other_do_not_wait_for_ever() {
    let body = |done: u64| {
        let fence = call(RFENCE, 1, &[0, ALL, 0, 0]);
        format!(
            "li s1, 300\nloop:\n{fence}addi s1, s1, -1\nbne s1, zero, loop\nli t0, {:#x}\nli t1, 1\nsd t1, 0(t0)\n",
            RESULTS + done
        )
    };
    let main = call(HSM, 0, &[1, KERNEL + 0x1000, 0])
        + &body(0)
        + &format!("li t0, {RESULTS:#x}\nother:\nld t1, 8(t0)\nbeq t1, zero, other\n{POWER_OFF}");
    let (board, _) = board(2, &main, &(body(8) + &call(HSM, 1, &[])));
    assert_eq!(run(&board), StopReason::PowerOff(0));
}
