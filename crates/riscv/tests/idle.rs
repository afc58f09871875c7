//! An idle guest costs the host nothing. Alone in its program, since it measures the processor time of all threads.

use std::sync::Arc;
use std::time::Duration;

use machine::backend::{CharacterBackend, CharacterSink};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::lifecycle::Machine;
use riscv::board::{Board, BoardConfig};
use riscv::isa::assemble;
use riscv::loader::{ImageFile, Images};

struct Nobody;

impl CharacterBackend for Nobody {
    fn send(&self, _: &[u8]) {}
    fn attach(&self, _: Arc<dyn CharacterSink>) {}
    fn ready(&self) {}
}

/// Processor time that this process has used, in hundredths of a second (`utime` and `stime` of proc(5)).
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn harts_that_wait_for_an_interrupt_use_no_processor_time() {
    // A firmware on four harts: each sleeps for ever, with the timer interrupt enabled and its deadline out of reach.
    let firmware = "addi t0,zero,128\ncsrrw zero,mie,t0\nsleep: wfi\njal zero,sleep";
    let firmware = ImageFile::from_bytes("firmware", assemble(firmware, 0x8000_0000).unwrap());
    let board = Board::new(BoardConfig {
        cpus: 4,
        memory_bytes: 16 << 20,
        images: Images { firmware: Some(firmware), ..Images::default() },
        arguments: String::new(),
        disks: Vec::new(),
        network: None,
        serial: Arc::new(Nobody),
        console: None,
        virtio: riscv::board::VirtioTransport::default(),
        entropy: Entropy::Seeded(1),
        clock: Arc::new(Clock::new()),
        hardware_ad_updates: true,
        translator: riscv::translate::Options::default(),
        schedule: riscv::board::Schedule::default(),
    })
    .unwrap();
    board.start().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let (before, instructions) = (ticks(), board.stats().instructions_count);
    assert!(instructions > 0, "the guest has run");
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks() - before;
    assert!(used <= 3, "an idle second costs {used} hundredths of a second");
    assert!(board.stats().instructions_count < instructions + 1000, "the harts sleep");
    board.stop().unwrap();
}
