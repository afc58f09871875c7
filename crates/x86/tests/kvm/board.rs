//! Whole boards with a guest of a few instructions: in snapshots, and under a debugger.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use machine::GuestPhysical;
use machine::backend::{CharacterBackend, CharacterSink};
use machine::clock::Clock;
use machine::debug::{Halting, Move, Points, Report, Stop, Watch, Watchpoint};
use machine::entropy::Entropy;
use machine::lifecycle::{Machine, State, StopReason};
use machine::snapshot::{Snapshot, SnapshotError};
use x86::board::snapshot::GoOnError;
use x86::board::trace::{Traced, Tracer};
use x86::board::{Board, BoardConfig, BoardError};
use x86::boot::{ImageFile, Images};
use x86::kvm::IrqChip;
use x86::kvm::cpuid::Model;

use super::SOON;
use super::guests;

/// Where the kernel is loaded, and begins.
const KERNEL: u64 = 0x10_0000;
const MEMORY_BYTES: u64 = (8 << 20) + 4096;
/// How many letters the guest prints, and the first of them over and over.
const LETTERS_COUNT: usize = 64;

/// What a guest prints.
#[derive(Default)]
struct Screen(Mutex<String>);

impl Screen {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl CharacterBackend for Screen {
    fn send(&self, bytes: &[u8]) {
        self.0.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
    }
    fn attach(&self, _: Arc<dyn CharacterSink>) {}
    fn ready(&self) {}
}

/// A kernel of this code, as an ELF file that is entered in 64-bit mode.
fn kernel(folder: &Path, code: &[u8]) -> ImageFile {
    const CODE: u64 = 0x1000;
    let path = folder.join("kernel");
    let file = std::fs::File::create(&path).unwrap();
    let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
    put(0, b"\x7fELF\x02\x01\x01");
    put(18, &62u16.to_le_bytes());
    put(24, &KERNEL.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &[56, 0, 1, 0]);
    put(64, &1u32.to_le_bytes());
    for (index, field) in [CODE, KERNEL, KERNEL, code.len() as u64, code.len() as u64, 0x1000].into_iter().enumerate() {
        put(72 + 8 * index as u64, &field.to_le_bytes());
    }
    put(CODE, code);
    ImageFile::open(&path).unwrap()
}

fn config(folder: &Path, irqchip: IrqChip, memory_bytes: u64) -> (BoardConfig, Arc<Screen>) {
    let screen = Arc::new(Screen::default());
    let images = Images {
        firmware: None,
        kernel: Some(kernel(folder, guests::letters())),
        initrd: None,
        arguments: String::new(),
    };
    let config = BoardConfig {
        cpus: 2,
        model: Model::Host,
        memory_bytes,
        irqchip,
        images,
        disks: Vec::new(),
        network: None,
        host_devices: Vec::new(),
        serial: Arc::clone(&screen) as _,
        console: None,
        entropy: Entropy::Host,
        clock: Arc::new(Clock::new()),
        about: Box::new(|| b"of a test".to_vec()),
    };
    (config, screen)
}

fn letters() -> String {
    (0..LETTERS_COUNT).map(|n| char::from(b'A' + u8::try_from(n % 16).unwrap())).collect()
}

/// Waits until so many letters are on the screen.
fn wait_for(screen: &Screen, count: usize) {
    let deadline = Instant::now() + SOON;
    while screen.text().len() < count {
        assert!(Instant::now() < deadline, "only {:?}", screen.text());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_board_goes_on_from_its_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("snapshot");
    for irqchip in [IrqChip::Kernel, IrqChip::Split] {
        let (config_of_first, screen) = config(folder.path(), irqchip, MEMORY_BYTES);
        let first = Board::new(config_of_first).unwrap();
        first.start().unwrap();
        wait_for(&screen, 10);
        first.snapshot(&snapshot).unwrap();
        assert_eq!(first.state(), State::Running);
        let known = screen.text().len();
        // Once more, while it is paused: the same place again, and the clock has not moved.
        first.pause().unwrap();
        let time_ns = first.stats().time_ns;
        first.snapshot(&folder.path().join("paused")).unwrap();
        assert_eq!((first.state(), first.stats().time_ns), (State::Paused, time_ns));
        first.resume().unwrap();
        assert_eq!(first.wait(), StopReason::PowerOff(0));
        assert_eq!(screen.text(), format!("{}S0", letters()), "the first one goes on as if nothing had been");

        let snapshot = Snapshot::open(&snapshot).unwrap();
        snapshot.verify().unwrap();
        assert_eq!(snapshot.parts().section("machine", 1).unwrap(), b"of a test");
        for round in 0..2 {
            let (config, screen) = config(folder.path(), irqchip, MEMORY_BYTES);
            let second = Board::from_snapshot(config, &snapshot).unwrap();
            assert_eq!(second.state(), State::Created);
            second.start().unwrap();
            if round == 1 {
                second.pause().unwrap();
                second.resume().unwrap();
            }
            assert_eq!(second.wait(), StopReason::PowerOff(0));
            let text = screen.text();
            // Of another generation, which it was told.
            let rest = text.strip_suffix("D1").unwrap_or_else(|| panic!("{text}"));
            assert!(letters().ends_with(rest) && (1..=LETTERS_COUNT - 10).contains(&rest.len()), "{text}");
            assert!(rest.len() >= LETTERS_COUNT - known, "{text}");
            assert!(second.stats().time_ns > 0);
        }
    }
    let refused = |irqchip, memory_bytes, directory: &str| {
        let (config, _) = config(folder.path(), irqchip, memory_bytes);
        match Board::from_snapshot(config, &Snapshot::open(&folder.path().join(directory)).unwrap()) {
            Err(BoardError::GoOn(error)) => error,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it goes on"),
        }
    };
    assert!(matches!(refused(IrqChip::Split, 16 << 20, "paused"), GoOnError::Memory { .. }));
    assert!(matches!(refused(IrqChip::Kernel, MEMORY_BYTES, "paused"), GoOnError::Processor(_)));
    let state = folder.path().join("paused/state");
    let mut bytes = std::fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&state, bytes).unwrap();
    assert!(matches!(refused(IrqChip::Split, MEMORY_BYTES, "paused"), GoOnError::Snapshot(SnapshotError::Damaged(_))));
}

#[test]
fn a_board_halts_for_a_debugger_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (config, screen) = config(folder.path(), IrqChip::Kernel, MEMORY_BYTES);
    let board = Board::new(config).unwrap();
    let (sender, reports) = mpsc::channel();
    board.attach_debugger(Box::new(move |report| sender.send(report).unwrap()));
    board.start().unwrap();
    assert!(board.set_points(&Points { breakpoints: [KERNEL].into(), ..Points::default() }));
    let reads = Watchpoint { address: KERNEL, length: 1, watch: Watch::Read };
    assert!(!board.set_points(&Points { watchpoints: vec![reads], ..Points::default() }), "no processor can");
    board.resume_processors(vec![Move::Run; 2]);
    let next = || reports.recv_timeout(SOON).unwrap();
    assert_eq!(next(), Report::Stopped { processor: 0, stop: Stop::Breakpoint });
    assert!(board.set_points(&Points::default()));
    let rip = || board.with_processor(0, |vcpu| vcpu.register_file().unwrap().rip).unwrap();
    assert_eq!((rip(), screen.text()), (KERNEL, String::new()));
    let mut before = KERNEL;
    for _ in 0..5 {
        board.resume_processors(vec![Move::Step(0..0)]);
        assert_eq!(next(), Report::Stopped { processor: 0, stop: Stop::Step });
        assert!(rip() > before && rip() < before + 16, "one instruction");
        before = rip();
    }
    // More than a processor has registers, at the first instruction of each letter and elsewhere.
    let letter = KERNEL + 11;
    let breakpoints = [letter].into_iter().chain(0x20_0000..0x20_0005).collect();
    assert!(board.set_points(&Points { breakpoints, ..Points::default() }));
    let mut byte = [0];
    assert!(board.read_physical(GuestPhysical(letter), &mut byte));
    assert_eq!(byte[0], guests::letters()[11], "the guest's own");
    board.resume_processors(vec![Move::Run; 2]);
    assert_eq!(next(), Report::Stopped { processor: 0, stop: Stop::Breakpoint });
    assert_eq!((rip(), screen.text().len()), (letter, 1));
    assert!(board.set_points(&Points::default()));
    board.resume_processors(vec![Move::Step(0..0)]);
    assert_eq!(next(), Report::Stopped { processor: 0, stop: Stop::Step });
    assert_eq!(board.with_processor(0, |vcpu| vcpu.translate(0x1234)).unwrap().map(|at| at.0), Some(0x1234));
    board.resume_processors(vec![Move::Run; 2]);
    wait_for(&screen, 3);
    board.interrupt();
    assert_eq!(next(), Report::Interrupted);
    let (count, time_ns) = (screen.text().len(), board.stats().time_ns);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((screen.text().len(), board.stats().time_ns, board.state()), (count, time_ns, State::Running));
    board.detach_debugger();
    assert_eq!(board.wait(), StopReason::PowerOff(0));
    assert_eq!(screen.text(), format!("{}S0", letters()));
}

/// Remembers what was executed in the kernel.
#[derive(Default)]
struct Remember(Mutex<Vec<Traced>>);

impl Tracer for Remember {
    fn wants(&self, pc: u64) -> bool {
        (KERNEL..KERNEL + 0x1000).contains(&pc)
    }
    fn instruction(&self, traced: &Traced) {
        self.0.lock().unwrap().push(traced.clone());
    }
}

#[test]
fn a_tracer_sees_every_instruction_and_its_effect() {
    let folder = tempfile::tempdir().unwrap();
    let (config, screen) = config(folder.path(), IrqChip::Kernel, MEMORY_BYTES);
    let board = Board::new(config).unwrap();
    let tracer = Arc::new(Remember::default());
    board.set_tracer(Some(Arc::clone(&tracer) as _));
    board.start().unwrap();
    assert_eq!(board.wait(), StopReason::PowerOff(0));
    assert_eq!(screen.text(), format!("{}S0", letters()));
    let all = tracer.0.lock().unwrap();
    let code = guests::letters();
    let first: Vec<_> = all.iter().take(6).map(|traced| traced.pc - KERNEL).collect();
    assert_eq!(first, [0, 5, 8, 11, 14, 17]);
    for traced in all.iter() {
        let at = usize::try_from(traced.pc - KERNEL).unwrap();
        assert!(traced.bytes.starts_with(&code[at..(at + 2).min(code.len())]), "{traced:x?}");
        assert_eq!((traced.processor, traced.ring, traced.bits), (0, 0, 64));
    }
    assert_eq!((all[0].before[1], all[0].after[1]), (0, 0xfeff_b000), "rbx");
    // One `out` for each letter, and two behind them.
    let outs = all.iter().filter(|traced| traced.bytes[0] == 0xee).count();
    assert_eq!(outs, LETTERS_COUNT + 2);
    for pair in all.windows(2) {
        assert_eq!(pair[0].after, pair[1].before, "{pair:x?}");
    }
}
