//! Firmware and boot loaders of others, as Debian packages them, on the board: OpenSBI and U-Boot.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use machine::backend::{CharacterBackend, CharacterSink};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::lifecycle::{Machine, StopReason};
use riscv::board::{Board, BoardConfig};
use riscv::isa::assemble;
use riscv::loader::{ImageFile, Images};

const OPENSBI_JUMP: &str = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.elf";
const OPENSBI_DYNAMIC: &str = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.elf";
const U_BOOT_MACHINE: &str = "/usr/lib/u-boot/qemu-riscv64/u-boot.bin";
const U_BOOT_SUPERVISOR: &str = "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin";

/// How long a guest may take for anything, on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// Someone at the serial port who reads what is printed and types.
#[derive(Default)]
struct Terminal {
    printed: Mutex<Vec<u8>>,
    grown: Condvar,
    keyboard: Mutex<Option<Arc<dyn CharacterSink>>>,
    typed: Mutex<Vec<u8>>,
}

impl CharacterBackend for Terminal {
    fn send(&self, bytes: &[u8]) {
        self.printed.lock().unwrap().extend_from_slice(bytes);
        self.grown.notify_all();
    }

    fn attach(&self, sink: Arc<dyn CharacterSink>) {
        *self.keyboard.lock().unwrap() = Some(sink);
    }

    fn ready(&self) {
        self.pass_on();
    }
}

impl Terminal {
    /// Gives the guest as much of what was typed as it takes.
    fn pass_on(&self) {
        let mut typed = self.typed.lock().unwrap();
        if let Some(keyboard) = &*self.keyboard.lock().unwrap() {
            let taken = keyboard.receive(&typed);
            typed.drain(..taken);
        }
    }

    fn type_line(&self, line: &str) {
        self.typed.lock().unwrap().extend(line.bytes().chain([b'\r']));
        self.pass_on();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).into_owned()
    }

    /// Waits until `text` is printed after the first `from` bytes; the answer is how much was printed by then.
    fn wait_for(&self, text: &str, from: usize) -> usize {
        let end = Instant::now() + PATIENCE;
        let mut printed = self.printed.lock().unwrap();
        loop {
            let found = printed[from..].windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                return from + at + text.len();
            }
            let left = end.saturating_duration_since(Instant::now());
            let all = String::from_utf8_lossy(&printed).into_owned();
            assert!(!left.is_zero(), "the guest did not print {text:?}, but:\n{all}");
            printed = self.grown.wait_timeout(printed, left).unwrap().0;
        }
    }
}

fn image(path: &str) -> Option<ImageFile> {
    Some(ImageFile::open(Path::new(path)).unwrap_or_else(|problem| panic!("{problem}; `cargo xtask test` installs it")))
}

/// A machine that has been started.
fn start(cpus: u32, firmware: &str, kernel: Option<ImageFile>) -> (Board, Arc<Terminal>) {
    let terminal = Arc::new(Terminal::default());
    let config = BoardConfig {
        cpus,
        memory_bytes: 256 << 20,
        images: Images { firmware: image(firmware), kernel, initrd: None },
        arguments: String::new(),
        disks: Vec::new(),
        network: None,
        serial: Arc::clone(&terminal) as _,
        console: None,
        virtio: riscv::board::VirtioTransport::default(),
        entropy: Entropy::Seeded(1),
        clock: Arc::new(Clock::new()),
        hardware_ad_updates: true,
        translator: riscv::translate::Options::default(),
        schedule: riscv::board::Schedule::default(),
    };
    let board = Board::new(config).unwrap_or_else(|error| panic!("{error}"));
    board.start().unwrap();
    (board, terminal)
}

/// A kernel that prints by the legacy SBI call, then powers the machine off by the system reset extension.
fn payload() -> ImageFile {
    let print: String =
        b"payload\n".iter().map(|byte| format!("addi a0, zero, {byte}\naddi a7, zero, 1\necall\n")).collect();
    // "SRST" is the extension's number.
    let power_off = "lui a7, 0x53525\naddi a7, a7, 0x354\naddi a6, zero, 0\naddi a0, zero, 0\naddi a1, zero, 0\necall\nend:\njal zero, end\n";
    ImageFile::from_bytes("payload", assemble(&format!("{print}{power_off}"), 0x8020_0000).unwrap())
}

#[test]
fn opensbi_starts_a_kernel_and_powers_off() {
    for (firmware, cpus) in [(OPENSBI_JUMP, 1), (OPENSBI_DYNAMIC, 4)] {
        let (board, terminal) = start(cpus, firmware, Some(payload()));
        assert_eq!(board.wait(), StopReason::PowerOff(0), "{}", terminal.text());
        let text = terminal.text();
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or("").to_owned();
        assert!(text.contains("OpenSBI v"), "{text}");
        assert!(line("Platform Console Device").ends_with("uart8250"), "{text}");
        assert!(line("Platform Shutdown Device").ends_with("sifive_test"), "{text}");
        assert!(line("Platform HART Count").ends_with(&format!(": {cpus}")), "{text}");
        assert!(line("Domain0 Next Mode").ends_with("S-mode"), "{text}");
        assert!(line("Boot HART PMP Count").ends_with(": 16"), "{text}");
        assert!(line("Boot HART PMP Granularity").ends_with(": 4"), "{text}");
        assert!(line("Boot HART ISA Extensions").contains("time"), "{text}");
        assert!(text.ends_with("payload\r\n") || text.ends_with("payload\n"), "{text}");
    }
}

/// Talks to U-Boot's prompt, and ends it.
fn converse(board: &Board, terminal: &Terminal) {
    let mut seen = terminal.wait_for("U-Boot 20", 0);
    seen = terminal.wait_for("DRAM:  256 MiB", seen);
    seen = terminal.wait_for("Hit any key", seen);
    terminal.type_line("");
    seen = terminal.wait_for("=> ", seen);
    terminal.type_line("echo seven is $? or 7");
    seen = terminal.wait_for("seven is 0 or 7", seen);
    terminal.type_line("poweroff");
    terminal.wait_for("poweroff ...", seen);
    assert_eq!(board.wait(), StopReason::PowerOff(0), "{}", terminal.text());
}

#[test]
fn u_boot_in_machine_mode_has_a_prompt() {
    let (board, terminal) = start(1, U_BOOT_MACHINE, None);
    converse(&board, &terminal);
}

#[test]
fn u_boot_on_opensbi_has_a_prompt() {
    let (board, terminal) = start(2, OPENSBI_JUMP, image(U_BOOT_SUPERVISOR));
    terminal.wait_for("OpenSBI v", 0);
    converse(&board, &terminal);
}
