//! Runs that can be repeated: the same instructions, memory and output again, in every tier, and from a record.

use std::io;

use super::*;
use crate::hart::translate::Options;

/// Harts that take timer interrupts, interrupt one another, share a lock and mix what time they see into their results.
const SHARED: &str = "
    jal zero, start
handler:
    csrrs t5, 0x142, zero
    csrrs t6, 0xc01, zero
    add s4, s4, t5
    add s4, s4, t6
    slli t4, s4, 5
    xor s4, s4, t4
    addi t6, t6, 300
    csrrw zero, 0x14d, t6
    csrrci zero, 0x144, 2
    addi s5, s5, 1
    sret
start:
    addi s0, a0, 0
    li s1, 0x81000000
    li t0, 0x80201004
    csrrw zero, 0x105, t0
    csrrs t6, 0xc01, zero
    addi t6, t6, 300
    csrrw zero, 0x14d, t6
    addi t0, zero, 0x22
    csrrw zero, 0x104, t0
    csrrsi zero, 0x100, 2
    li s2, 3000
loop:
    li t1, 1
acquire:
    amoswap.w t2, t1, (s1)
    bne t2, zero, acquire
    ld t2, 8(s1)
    addi t2, t2, 1
    sd t2, 8(s1)
    ld t3, 16(s1)
    slli t2, t3, 5
    add t3, t3, t2
    add t3, t3, s0
    csrrs t2, 0xc01, zero
    add t3, t3, t2
    sd t3, 16(s1)
    amoswap.w zero, zero, (s1)
    andi t2, s2, 63
    bne t2, zero, silent
    addi t2, s0, 1
    andi t2, t2, 3
    li a0, 1
    sll a0, a0, t2
    li a1, 0
    li a6, 0
    li a7, 0x735049
    ecall
silent:
    andi t2, s2, 255
    bne t2, zero, awake
    addi a0, s0, 48
    li a7, 1
    ecall
    wfi
awake:
    addi s2, s2, -1
    bne s2, zero, loop
    slli t2, s0, 4
    add t2, t2, s1
    sd s4, 32(t2)
    sd s5, 40(t2)
    addi t3, s1, 24
    li t1, 1
    amoadd.d zero, t1, (t3)
    beq s0, zero, first
    li a6, 1
    li a7, 0x48534d
    ecall
first:
    wfi
    ld t1, 24(s1)
    addi t1, t1, -4
    bne t1, zero, first
";

fn four_harts() -> Images {
    let start = |hart| format!("li a0, {hart}\nli a1, 0x80201000\nli a2, 0\nli a6, 0\nli a7, 0x48534d\necall\n");
    let main = format!("{}{}{}li a0, 0\nli t0, 0x80201000\njalr zero, 0(t0)\n", start(1), start(2), start(3));
    Images { kernel: Some(kernel(&main, &format!("{SHARED}{POWER_OFF}"))), ..Images::default() }
}

fn schedule(input: Input) -> RoundRobin {
    RoundRobin { seed: 5, epoch_ns: 1_767_225_600_000_000_000, paced: false, input, until: None }
}

fn repeatable(cpus: u32, images: Images, schedule: RoundRobin, options: Options) -> (Board, Arc<Terminal>) {
    let (mut config, terminal) = config(cpus, images);
    config.translator = options;
    config.schedule = Schedule::RoundRobin(Box::new(schedule));
    (Board::new(config).expect("builds"), terminal)
}

type Outcome = (Vec<String>, u64, String, Vec<u64>);

/// What a run comes to: each hart's line, which has its program counter and its instructions, the time, what is printed, and the results.
fn outcome(board: &Board, terminal: &Terminal) -> Outcome {
    let results = (0..12).map(|index| result(board, index)).collect();
    (board.describe_harts(), board.stats().time_ns, terminal.text(), results)
}

#[test]
fn two_runs_are_the_same_in_every_tier() {
    let run_with = |options| {
        let (board, terminal) = repeatable(4, four_harts(), schedule(Input::Live), options);
        assert_eq!(run(&board), StopReason::PowerOff(0));
        outcome(&board, &terminal)
    };
    let first = run_with(Options::interpreter());
    assert_eq!(first.3[1], 12_000, "no increment is lost");
    assert!(first.3[5] > 10 && first.2.contains('3'), "{first:?}");
    for options in [Options::interpreter(), Options::block(), Options::default(), Options::default()] {
        assert_eq!(run_with(options), first);
    }
}

#[test]
fn looking_and_pausing_change_nothing() {
    let (undisturbed, quiet) = repeatable(4, four_harts(), schedule(Input::Live), Options::default());
    assert_eq!(run(&undisturbed), StopReason::PowerOff(0));
    let (board, terminal) = repeatable(4, four_harts(), schedule(Input::Live), Options::default());
    board.start().unwrap();
    while board.state() != State::Stopped {
        let _ = board.pause();
        assert_eq!(board.describe_harts().len(), 4);
        let _ = board.resume();
    }
    assert_eq!(outcome(&board, &terminal), outcome(&undisturbed, &quiet));
}

#[test]
fn an_idle_machine_skips_to_its_next_timer() {
    // An hour, in wfi.
    let main = format!(
        "csrrs t0, 0xc01, zero\nli t1, 36000000000\nadd t0, t0, t1\ncsrrw zero, 0x14d, t0\naddi t0, zero, 0x20\n\
         csrrw zero, 0x104, t0\nwfi\n{POWER_OFF}"
    );
    let images = Images { kernel: Some(kernel(&main, "")), ..Images::default() };
    let (board, _) = repeatable(1, images, schedule(Input::Live), Options::default());
    assert_eq!(run(&board), StopReason::PowerOff(0));
    let stats = board.stats();
    assert!(stats.time_ns >= 3_600_000_000_000 && stats.time_ns < 3_600_001_000_000, "{stats:?}");
}

/// A file in memory.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Tape {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts while it waits for a character, prints it and the count's last digits; ends at a dot.
fn echo() -> Images {
    let main = format!(
        "li s1, 0x81000000\nli s2, 0\nli s3, 0\nagain:\naddi s2, s2, 1\nli a7, 2\necall\nblt a0, zero, again\n\
         add s3, s3, s2\nslli t0, s3, 7\nxor s3, s3, t0\nsd s3, 0(s1)\naddi s0, a0, 0\nli a7, 1\necall\n\
         andi a0, s2, 15\naddi a0, a0, 65\nli a7, 1\necall\nli t0, 46\nbne s0, t0, again\n{POWER_OFF}"
    );
    Images { kernel: Some(kernel(&main, "")), ..Images::default() }
}

fn replay(bytes: &[u8]) -> RoundRobin {
    let reader = record::Reader::new(Box::new(io::Cursor::new(bytes.to_vec()))).expect("a record");
    RoundRobin { seed: reader.setup().seed, ..schedule(Input::Replay(reader)) }
}

fn recorded() -> (Vec<u8>, Outcome) {
    let tape = Tape::default();
    let input = Input::Record(Box::new(tape.clone()));
    let (board, terminal) = repeatable(1, echo(), schedule(input), Options::default());
    board.start().unwrap();
    for keys in ["one", "two", "."] {
        std::thread::sleep(Duration::from_millis(15));
        terminal.press(keys.as_bytes());
    }
    assert_eq!(finish(&board), StopReason::PowerOff(0));
    (tape.bytes(), outcome(&board, &terminal))
}

#[test]
fn a_record_is_replayed_without_anybody_typing() {
    let (bytes, first) = recorded();
    for options in [Options::interpreter(), Options::default()] {
        let (board, terminal) = repeatable(1, echo(), replay(&bytes), options);
        assert_eq!(run(&board), StopReason::PowerOff(0));
        assert_eq!(outcome(&board, &terminal), first);
    }
}

#[test]
fn a_replay_stops_where_it_is_told_and_where_its_record_was_cut_off() {
    let (bytes, (_, _, text, _)) = recorded();
    let (board, terminal) =
        repeatable(1, echo(), RoundRobin { until: Some(4321), ..replay(&bytes) }, Options::default());
    assert_eq!(run(&board), StopReason::Requested);
    assert_eq!((board.stats().instructions_count, terminal.text().len()), (4321, 0));
    let (board, terminal) = repeatable(1, echo(), replay(&bytes[..bytes.len() - 40]), Options::default());
    assert_eq!(run(&board), StopReason::Requested);
    assert!(text.starts_with(&terminal.text()) && !terminal.text().contains('.'), "{:?}", terminal.text());
}

#[test]
fn a_replay_that_goes_another_way_says_where() {
    let (bytes, _) = recorded();
    // A kernel that hears the same, but does something else.
    let loops = format!("li s2, 0\nagain:\naddi s2, s2, 1\nli a7, 2\necall\njal zero, again\n{POWER_OFF}");
    let images = Images { kernel: Some(kernel(&loops, "")), ..Images::default() };
    let (board, _) = repeatable(1, images, replay(&bytes), Options::default());
    let StopReason::Fault(why) = run(&board) else { panic!("it does diverge") };
    assert!(why.starts_with("the replay diverges: ") && why.lines().count() == 1, "{why}");
    let (config, _) = config(2, echo());
    let schedule = Schedule::RoundRobin(Box::new(replay(&bytes)));
    let error = Board::new(BoardConfig { schedule, ..config }).err().expect("another machine").to_string();
    assert!(error.contains("the number of processors is 2 here and 1 in the record"), "{error}");
}
