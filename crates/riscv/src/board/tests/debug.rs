//! A machine under a debugger: stops, steps, watchpoints, and that it goes on as if nothing had been.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::board::debug::{Halting, Move, Report};
use crate::hart::debug::{Points, Stop, Traced, Tracer, Watch, Watchpoint};

/// Counts to 1000 in memory, with a call each time; then powers off.
const COUNT: &str = "
    li s0, 0x81000000
    li s1, 1000
again:
    ld t0, 0(s0)
    addi t0, t0, 1
    sd t0, 0(s0)
    addi s1, s1, -1
    bne s1, zero, again
";

const START: u64 = KERNEL + 64;

fn attach(board: &Board) -> Receiver<Report> {
    let (sender, reports) = channel();
    board.attach_debugger(Box::new(move |report| {
        let _ = sender.send(report);
    }));
    reports
}

#[track_caller]
fn next(reports: &Receiver<Report>) -> Report {
    reports.recv_timeout(Duration::from_secs(10)).expect("a report")
}

fn pc(board: &Board, hart: usize) -> u64 {
    board.with_hart(hart, |hart| hart.pc()).unwrap()
}

/// The address of the `n`th instruction of [`COUNT`] behind `label`, by what the machine does: the address of the first `ld`.
fn loop_start(board: &Board) -> u64 {
    let mut code = [0; 128];
    assert!(board.read_physical(GuestPhysical(START), &mut code));
    let at = code.chunks(4).position(|word| word[0] & 0x7f == 0x03).expect("there is a load") as u64;
    START + 4 * at
}

fn counting() -> (Board, Receiver<Report>, u64) {
    let (board, _) = board(1, &format!("{COUNT}{POWER_OFF}"), "");
    let reports = attach(&board);
    board.start().unwrap();
    let start = loop_start(&board);
    (board, reports, start)
}

fn breakpoints(addresses: &[u64]) -> Points {
    Points { breakpoints: addresses.iter().copied().collect(), ..Points::default() }
}

#[test]
fn a_machine_waits_for_its_debugger_stops_at_breakpoints_and_goes_on() {
    let (board, reports, start) = counting();
    assert_eq!(pc(&board, 0), KERNEL, "no instruction has run");
    board.set_points(breakpoints(&[start]));
    for count in 0..5 {
        board.resume_processors(vec![Move::Run]);
        assert_eq!(next(&reports), Report::Stopped { processor: 0, stop: Stop::Breakpoint });
        assert_eq!((pc(&board, 0), result(&board, 0)), (start, count));
        // Past the breakpoint, as debuggers do it.
        board.resume_processors(vec![Move::Step(0..0)]);
        assert_eq!(next(&reports), Report::Stopped { processor: 0, stop: Stop::Step });
        assert_eq!(pc(&board, 0), start + 4);
    }
    board.detach_debugger();
    assert_eq!(finish(&board), StopReason::PowerOff(0));
    assert_eq!(result(&board, 0), 1000);
}

#[test]
fn stepping_in_a_range_ends_outside_it_or_at_a_breakpoint() {
    let (board, reports, start) = counting();
    board.set_points(breakpoints(&[start]));
    board.resume_processors(vec![Move::Run]);
    next(&reports);
    board.resume_processors(vec![Move::Step(start..start + 12)]);
    assert_eq!((next(&reports), pc(&board, 0)), (Report::Stopped { processor: 0, stop: Stop::Step }, start + 12));
    board.resume_processors(vec![Move::Step(start..start + 20)]);
    assert_eq!((next(&reports), pc(&board, 0)), (Report::Stopped { processor: 0, stop: Stop::Breakpoint }, start));
}

#[test]
fn watchpoints_stop_after_the_access_and_know_its_kind() {
    for (watch, places) in [(Watch::Write, &[12][..]), (Watch::Read, &[4]), (Watch::Access, &[4, 12])] {
        let (board, reports, start) = counting();
        board.set_points(Points {
            watchpoints: vec![
                Watchpoint { address: RESULTS + 7, length: 1, watch },
                Watchpoint { address: RESULTS + 8, length: 8, watch: Watch::Access },
            ],
            ..Points::default()
        });
        for place in places.iter().cycle().take(6) {
            board.resume_processors(vec![Move::Run]);
            let stop = Stop::Watchpoint { address: RESULTS + 7, watch };
            assert_eq!(next(&reports), Report::Stopped { processor: 0, stop });
            assert_eq!(pc(&board, 0), start + place, "{watch:?}");
        }
        board.set_points(Points::default());
        board.resume_processors(vec![Move::Run]);
        assert_eq!(next(&reports), Report::Ended(StopReason::PowerOff(0)));
        assert_eq!(result(&board, 0), 1000);
    }
}

#[test]
fn an_interrupt_halts_all_and_only_harts_that_may_move() {
    let start_other = "
        li a7, 0x48534d
        li a6, 0
        li a0, 1
        li a1, 0x80201000
        li a2, 0
        ecall
    here:
        addi s2, s2, 1
        jal zero, here
    ";
    let (board, _) = board(2, start_other, "here: addi s2, s2, 1\njal zero, here");
    board.start().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let reports = attach(&board);
    let count = |hart| board.with_hart(hart, |hart| hart.x(18)).unwrap();
    let (first, second) = (count(0), count(1));
    assert!(first > 0 && second > 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((count(0), count(1)), (first, second), "halted");
    board.resume_processors(vec![Move::Stay, Move::Run]);
    std::thread::sleep(Duration::from_millis(20));
    board.interrupt();
    assert_eq!(next(&reports), Report::Interrupted);
    assert_eq!(count(0), first);
    assert!(count(1) > second);
    // Both run into the same breakpoint; each is told of once.
    board.set_points(breakpoints(&[0x8020_1000]));
    board.resume_processors(vec![Move::Run; 2]);
    assert_eq!(next(&reports), Report::Stopped { processor: 1, stop: Stop::Breakpoint });
    board.detach_debugger();
    board.stop().unwrap();
}

#[test]
fn what_a_debugger_writes_is_executed_and_a_reset_keeps_it_attached() {
    let (board, reports, start) = counting();
    board.set_points(breakpoints(&[start]));
    board.resume_processors(vec![Move::Run]);
    next(&reports);
    // Count by two from now on.
    let code = program(start + 4, "addi t0, t0, 2");
    assert!(board.write_virtual(0, start + 4, code));
    assert!(!board.write_virtual(0, 0x1000_0000, vec![1]), "devices are left alone");
    board.set_points(Points::default());
    board.set_points(breakpoints(&[start + 20]));
    board.resume_processors(vec![Move::Run]);
    assert_eq!(next(&reports), Report::Stopped { processor: 0, stop: Stop::Breakpoint });
    assert_eq!(result(&board, 0), 2000);
    board.reset();
    assert_eq!((pc(&board, 0), result(&board, 0)), (KERNEL, 0));
    board.resume_processors(vec![Move::Run]);
    assert_eq!(next(&reports), Report::Stopped { processor: 0, stop: Stop::Breakpoint });
    assert_eq!(result(&board, 0), 1000, "memory is as after power-on");
}

#[derive(Default)]
struct Remember(Mutex<Vec<Traced>>);

impl Tracer for Remember {
    fn wants(&self, pc: u64) -> bool {
        pc >= START
    }
    fn instruction(&self, traced: &Traced) {
        self.0.lock().unwrap().push(*traced);
    }
}

#[test]
fn a_tracer_sees_every_instruction_and_its_effect() {
    let (board, _) = board(1, &format!("{COUNT}{POWER_OFF}"), "");
    let tracer = Arc::new(Remember::default());
    board.set_tracer(Some(Arc::clone(&tracer) as _));
    assert_eq!(run(&board), StopReason::PowerOff(0));
    let traced = tracer.0.lock().unwrap();
    let additions: Vec<_> = traced.iter().filter(|it| it.bits == 0x0012_8293).collect();
    assert_eq!(additions.len(), 1000);
    assert_eq!(additions[999].written, Some((5, 1000)));
    assert!(traced.iter().all(|it| it.trapped_to.is_none() && it.hart == 0));
}
