//! Tiny guests, written with the test assembler, on whole boards.

mod debug;
mod life;
mod round_robin;
mod sbi;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::isa::Assembler;
use crate::isa::registers;
use crate::loader::ImageFile;
use machine::GuestPhysical;
use machine::backend::CharacterSink;
use machine::lifecycle::{State, StopReason};
use machine::memory::GuestMemory;

/// Where kernels are loaded.
const KERNEL: u64 = 0x8020_0000;
/// Where guests leave their results.
const RESULTS: u64 = 0x8100_0000;

/// A serial terminal that remembers what was printed.
#[derive(Default)]
struct Terminal {
    printed: Mutex<Vec<u8>>,
    sink: Mutex<Option<Arc<dyn CharacterSink>>>,
}

impl Terminal {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).into_owned()
    }
    fn press(&self, keys: &[u8]) {
        let sink = self.sink.lock().unwrap().clone().expect("the port is plugged in");
        assert_eq!(sink.receive(keys), keys.len());
    }
}

impl CharacterBackend for Terminal {
    fn send(&self, bytes: &[u8]) {
        self.printed.lock().unwrap().extend_from_slice(bytes);
    }
    fn attach(&self, sink: Arc<dyn CharacterSink>) {
        *self.sink.lock().unwrap() = Some(sink);
    }
    fn ready(&self) {}
}

/// Assembles `text`; beside what the assembler knows, `li register, constant` loads a constant.
fn program(at: u64, text: &str) -> Vec<u8> {
    let mut assembler = Assembler::new(at);
    for line in text.lines() {
        match line.trim().strip_prefix("li ").and_then(|operands| operands.split_once(',')) {
            Some((register, constant)) => {
                let number = registers::number(&registers::INTEGER, register.trim()).expect("a register");
                let constant = constant.trim();
                let value = match constant.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => constant.parse::<i64>().map(i64::cast_unsigned),
                };
                assembler.load_constant(number, value.expect("a constant"));
            }
            None => assembler.text(line),
        }
    }
    assembler.finish().expect("assembles")
}

/// Switches the machine off by the SBI.
const POWER_OFF: &str = "
    li a0, 0
    li a1, 0
    li a6, 0
    li a7, 0x53525354
    ecall
";

/// A Linux `Image` with `code` at [`KERNEL`]` + 64`, which runs first.
fn image(code: &[u8]) -> ImageFile {
    let mut bytes = program(KERNEL, &format!("jal zero, {:#x}", KERNEL + 64));
    bytes.resize(64, 0);
    bytes[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    bytes[0x30..0x3c].copy_from_slice(b"RISCV\0\0\0RSC\x05");
    bytes.extend(code);
    ImageFile::from_bytes("test kernel", bytes)
}

/// A kernel whose `main` runs on the boot hart, with `other` at [`KERNEL`]` + 0x1000`.
fn kernel(main: &str, other: &str) -> ImageFile {
    let mut code = program(KERNEL + 64, main);
    assert!(code.len() <= 0x1000 - 64, "main is too long");
    code.resize(0x1000 - 64, 0);
    code.extend(program(KERNEL + 0x1000, other));
    image(&code)
}

fn config(cpus: u32, images: Images) -> (BoardConfig, Arc<Terminal>) {
    let terminal = Arc::new(Terminal::default());
    let config = BoardConfig {
        cpus,
        memory_bytes: 64 << 20,
        images,
        arguments: String::new(),
        disks: Vec::new(),
        network: None,
        serial: Arc::clone(&terminal) as _,
        console: None,
        virtio: VirtioTransport::default(),
        entropy: Entropy::Seeded(1),
        clock: Arc::new(Clock::new()),
        hardware_ad_updates: true,
        translator: crate::hart::translate::Options::default(),
        schedule: Schedule::default(),
    };
    (config, terminal)
}

/// A machine with a kernel of these two pieces of code.
fn board(cpus: u32, main: &str, other: &str) -> (Board, Arc<Terminal>) {
    let images = Images { kernel: Some(kernel(main, other)), ..Images::default() };
    let (config, terminal) = config(cpus, images);
    (Board::new(config).expect("builds"), terminal)
}

/// Waits for the end, for at most ten seconds.
#[track_caller]
fn finish(board: &Board) -> StopReason {
    let deadline = Instant::now() + Duration::from_secs(10);
    while board.state() != State::Stopped {
        assert!(Instant::now() < deadline, "the guest does not end: {:#?}", board.describe_harts());
        std::thread::sleep(Duration::from_micros(200));
    }
    board.wait()
}

#[track_caller]
fn run(board: &Board) -> StopReason {
    board.start().expect("starts");
    finish(board)
}

fn memory(board: &Board) -> &GuestMemory {
    &board.shared.parts.memory
}

fn result(board: &Board, index: u64) -> u64 {
    memory(board).load(GuestPhysical(RESULTS + 8 * index)).unwrap()
}
