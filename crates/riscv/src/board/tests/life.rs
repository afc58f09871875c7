//! The life of a board, whatever its guest does.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

/// Counts in [`RESULTS`] for ever.
fn counting() -> String {
    format!("li t0, {RESULTS:#x}\nloop:\nld t1, 0(t0)\naddi t1, t1, 1\nsd t1, 0(t0)\njal zero, loop\n")
}

/// Writes `word` to the test device.
fn test_device(word: u32) -> String {
    format!("li t0, 0x100000\nli t1, {word:#x}\nsw t1, 0(t0)\nhere:\njal zero, here\n")
}

fn reset_call(kind: u64, reason: u64) -> String {
    format!("li a0, {kind}\nli a1, {reason}\nli a6, 0\nli a7, 0x53525354\necall\n")
}

#[test]
fn power_off_has_a_status() {
    for (main, status) in
        [(reset_call(0, 0), 0), (reset_call(0, 1), 1), (test_device(0x5555), 0), (test_device(0x2a_3333), 42)]
    {
        let (board, _) = board(1, &main, "");
        assert_eq!(run(&board), StopReason::PowerOff(status));
        assert_eq!(board.state(), State::Stopped);
        assert_eq!(board.wait(), StopReason::PowerOff(status));
        assert_eq!(board.start().unwrap_err().to_string(), "cannot start a machine that is stopped");
        assert!(board.describe_harts()[0].starts_with("hart 0: "), "a stopped machine can be looked at");
    }
}

#[test]
fn the_kernel_finds_its_hart_number_and_device_tree() {
    let main = format!("li t0, {RESULTS:#x}\nsd a0, 0(t0)\nsd a1, 8(t0)\nlw t1, 0(a1)\nsd t1, 16(t0)\n{POWER_OFF}");
    let (board, _) = board(1, &main, "");
    assert_eq!(run(&board), StopReason::PowerOff(0));
    assert_eq!(result(&board, 0), 0);
    let tree = board.device_tree();
    let mut there = vec![0; tree.len()];
    memory(&board).read(GuestPhysical(result(&board, 1)), &mut there).unwrap();
    assert_eq!(there, tree);
    assert_eq!(result(&board, 2), 0xffff_ffff_edfe_0dd0, "its magic number, big-endian");
}

#[test]
fn verbs_follow_the_picture() {
    let (board, _) = board(2, &counting(), "");
    assert_eq!(board.state(), State::Created);
    assert!(board.pause().is_err() && board.resume().is_err());
    board.start().unwrap();
    assert!(board.start().is_err());
    while result(&board, 0) == 0 {
        std::thread::yield_now();
    }
    board.pause().unwrap();
    assert_eq!(board.state(), State::Paused);
    let (count, stats) = (result(&board, 0), board.stats());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(result(&board, 0), count, "a paused guest stands still");
    assert_eq!(board.stats(), stats, "and so does its time");
    assert!(board.pause().is_err());
    assert!(stats.instructions_count > 0 && stats.memory_resident_bytes < 16 << 20);
    board.resume().unwrap();
    while result(&board, 0) == count {
        std::thread::yield_now();
    }
    board.stop().unwrap();
    assert_eq!(board.state(), State::Stopped);
    assert_eq!(board.wait(), StopReason::Requested);
    let count = result(&board, 0);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(result(&board, 0), count);
    assert!(board.stop().is_err());
}

#[test]
fn a_machine_can_be_stopped_before_it_starts_and_dropped_while_it_runs() {
    let (unborn, _) = board(1, &counting(), "");
    unborn.stop().unwrap();
    assert_eq!(unborn.wait(), StopReason::Requested);
    let (running, _) = board(4, &counting(), "");
    running.start().unwrap();
    drop(running);
}

#[test]
fn a_restart_begins_with_fresh_memory_and_images() {
    // The guest overwrites its own code behind it and marks memory; each start must find neither.
    for reboot in [reset_call(1, 0), test_device(0x7777)] {
        let main = format!(
            "li t0, {RESULTS:#x}\nld t1, 0(t0)\nbne t1, zero, stale\nli t1, 1\nsd t1, 0(t0)\n\
             li t2, {KERNEL:#x}\nsw zero, 64(t2)\nsw zero, 68(t2)\n{reboot}stale:\n{}",
            reset_call(0, 1)
        );
        let (board, _) = board(1, &main, "");
        board.start().unwrap();
        for _ in 0..1000 {
            if board.stats().resets_count >= 3 || board.state() == State::Stopped {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(board.stats().resets_count >= 3, "{:?} {:?}", board.stats(), board.describe_harts());
        board.stop().unwrap();
        assert_eq!(board.wait(), StopReason::Requested);
    }
}

#[test]
fn verbs_work_against_a_guest_that_restarts_all_the_time() {
    let (board, _) = board(2, &test_device(0x7777), "");
    board.start().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = board.pause();
                    let _ = board.resume();
                    board.stats();
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(board.describe_harts().len(), 2);
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        board.stop().unwrap();
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(board.wait(), StopReason::Requested);
}

#[test]
fn power_off_and_stop_race() {
    for delay_us in (0..20).map(|n| n * 50) {
        let (board, _) = board(1, &reset_call(0, 0), "");
        board.start().unwrap();
        std::thread::sleep(Duration::from_micros(delay_us));
        let stopped = board.stop().is_ok();
        let expected = if stopped { StopReason::Requested } else { StopReason::PowerOff(0) };
        assert_eq!(board.wait(), expected);
    }
}

#[test]
fn a_guest_that_faults_in_its_trap_handler_can_be_stopped() {
    // The trap vector is nowhere, and so is the program counter.
    for main in ["li t0, 0x1000\ncsrrw zero, stvec, t0\nli t0, 0x5000\njalr zero, 0(t0)\n", "jalr zero, 0(zero)\n"] {
        let (board, _) = board(1, main, "");
        board.start().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        if board.stop().is_ok() {
            assert_eq!(board.wait(), StopReason::Requested);
        } else {
            assert!(matches!(board.wait(), StopReason::Fault(_)));
        }
    }
}

#[test]
fn a_guest_that_writes_everywhere_does_no_harm() {
    // Doubles of ones and zeroes over all device addresses, the test device left out, since that only ends the machine.
    let sweep = |from: u64, to: u64, value: i64| {
        format!(
            "li t0, {from:#x}\nli t1, {to:#x}\nli t2, {value}\nloop{from}{}:\nsd t2, 0(t0)\nld t3, 0(t0)\naddi t0, t0, 8\n\
             bltu t0, t1, loop{from}{}\n",
            value + 1,
            value + 1
        )
    };
    let main = [(0x10_1000, 0x10_2000), (0xc00_0000, 0xc00_4000), (0xc20_0000, 0xc20_4000), (0x1000_0000, 0x1000_0100)]
        .iter()
        .flat_map(|(from, to)| [sweep(*from, *to, -1), sweep(*from, *to, 0)])
        .collect::<String>()
        + POWER_OFF;
    let (board, _) = board(1, &main, "");
    assert_eq!(run(&board), StopReason::PowerOff(0));
}

#[test]
fn firmware_starts_every_hart_in_machine_mode() {
    // Each hart leaves a0, a1, a2 and its privilege (a machine-mode register can be read); the first waits for the second.
    let firmware = format!(
        "csrrs t3, mhartid, zero\nslli t1, a0, 5\nli t0, {RESULTS:#x}\nadd t1, t1, t0\nsd a1, 8(t1)\nsd a2, 16(t1)\nsd t3, 24(t1)\n\
         li t2, 1\nsd t2, 0(t1)\nbne a0, zero, sleep\nwait:\nld t2, 32(t0)\nbeq t2, zero, wait\nli t0, 0x100000\nli t1, 0x5555\nsw t1, 0(t0)\n\
         sleep:\nwfi\njal zero, sleep\n"
    );
    let images = Images {
        firmware: Some(ImageFile::from_bytes("firmware", program(0x8000_0000, &firmware))),
        kernel: Some(ImageFile::from_bytes("kernel", vec![0x13; 64])),
        initrd: None,
    };
    let (config, _) = config(2, images);
    let board = Board::new(config).unwrap();
    assert_eq!(run(&board), StopReason::PowerOff(0));
    for hart in 0..2 {
        assert_eq!(result(&board, 4 * hart), 1);
        assert_eq!(result(&board, 4 * hart + 1), result(&board, 1));
        assert_eq!(result(&board, 4 * hart + 3), hart);
    }
    let info = result(&board, 2);
    let words: Vec<u64> = (0..6).map(|n| memory(&board).load(GuestPhysical(info + 8 * n)).unwrap()).collect();
    assert_eq!(words, [0x4942_534f, 2, KERNEL, 1, 0, u64::MAX]);
}

#[test]
fn odd_configurations_are_refused_in_one_line() {
    let refused = |change: fn(&mut BoardConfig)| {
        let images = Images { kernel: Some(kernel("", "")), ..Images::default() };
        let (mut config, _) = config(1, images);
        change(&mut config);
        Board::new(config).err().expect("is refused").to_string()
    };
    assert_eq!(refused(|c| c.cpus = 0), "a machine has 1 to 128 processors, not 0; change --cpus");
    assert_eq!(refused(|c| c.cpus = 129), "a machine has 1 to 128 processors, not 129; change --cpus");
    assert_eq!(refused(|c| c.images = Images::default()), "there is nothing to run; give a kernel or a firmware");
    assert!(refused(|c| c.memory_bytes = 100).contains("not whole pages"));
    assert!(refused(|c| c.memory_bytes = 1 << 20).contains("raise --memory"));
    assert!(refused(|c| c.arguments = "a\0b".into()).starts_with("the kernel's command line cannot be passed on"));
    assert!(
        refused(|c| c.arguments = "x".repeat(3 << 20)).starts_with("the kernel's command line cannot be passed on")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_code_does_no_harm(code in proptest::collection::vec(any::<u32>(), 1..200), cpus in 1..3_u32, firmware in any::<bool>()) {
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        let images = if firmware {
            Images { firmware: Some(ImageFile::from_bytes("random", bytes)), ..Images::default() }
        } else {
            Images { kernel: Some(image(&bytes)), ..Images::default() }
        };
        let (config, _) = config(cpus, images);
        let board = Board::new(config).unwrap();
        board.start().unwrap();
        std::thread::sleep(Duration::from_millis(10));
        let _ = board.stop();
        board.wait();
    }
}
