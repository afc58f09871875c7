use super::*;
use machine::interrupt::InterruptSink;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR: u64 = 2;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;

#[test]
fn power_on_values() {
    let mut uart = Registers::default();
    assert_eq!([uart.read(IER), uart.read(IIR), uart.read(LCR), uart.read(MCR)], [0, 1, 0, 0]);
    assert_eq!([uart.read(LSR), uart.read(MSR)], [0x60, 0xb0]);
}

#[test]
fn divisor_is_behind_dlab() {
    let mut uart = Registers::default();
    uart.write(LCR, 0x83);
    assert_eq!(uart.write(0, 0x34), None);
    uart.write(1, 0x12);
    assert_eq!([uart.read(0), uart.read(1)], [0x34, 0x12]);
    uart.write(LCR, 0x03);
    assert_eq!([uart.read(0), uart.read(1)], [0, 0]);
    assert_eq!(uart.write(DATA, b'x'), Some(b'x'));
    uart.write(7, 0xa5);
    assert_eq!(uart.read(7), 0xa5);
}

#[test]
fn transmitter_interrupt_comes_and_goes() {
    let mut uart = Registers::default();
    assert!(!uart.interrupt());
    uart.write(IER, 2);
    assert!(uart.interrupt(), "enabling it with an empty transmitter");
    assert_eq!(uart.read(IIR), 0x02);
    assert_eq!(uart.read(IIR), 0x01, "reading it acknowledged it");
    uart.write(DATA, b'x');
    assert!(uart.interrupt(), "the byte has left");
    uart.set_transmitter_empty(false);
    uart.transmitter_interrupt = false;
    assert_eq!(uart.read(LSR), 0);
    assert!(!uart.interrupt());
    uart.set_transmitter_empty(true);
    assert_eq!((uart.read(LSR), uart.read(IIR)), (0x60, 0x02));
}

#[test]
fn receive_without_fifo() {
    let mut uart = Registers::default();
    uart.write(IER, 5);
    assert_eq!(uart.room(), 1);
    uart.receive(b'a');
    assert_eq!((uart.room(), uart.read(IIR)), (0, 0x04));
    uart.receive(b'b');
    assert_eq!(uart.read(IIR), 0x06, "the line status goes first");
    assert_eq!(uart.read(LSR), 0x63);
    assert_eq!(uart.read(LSR), 0x61, "reading cleared the overrun");
    assert_eq!(uart.read(DATA), b'a');
    assert_eq!((uart.read(LSR), uart.interrupt()), (0x60, false));
}

#[test]
fn receive_with_fifo_and_trigger() {
    let mut uart = Registers::default();
    uart.write(FCR, 0x81);
    uart.write(IER, 1);
    assert_eq!(uart.read(IIR), 0xc1);
    for byte in 0..7 {
        uart.receive(byte);
        assert_eq!(uart.read(IIR), 0xcc, "timeout below the trigger level of 8");
    }
    uart.receive(7);
    assert_eq!((uart.read(IIR), uart.room()), (0xc4, 8));
    for byte in 0..8 {
        assert_eq!(uart.read(DATA), byte);
    }
    assert_eq!(uart.read(IIR), 0xc1);
    for byte in 0..17 {
        uart.receive(byte);
    }
    assert_eq!((uart.room(), uart.read(LSR)), (0, 0x63));
    uart.write(FCR, 0x83);
    assert_eq!((uart.room(), uart.read(LSR)), (16, 0x60));
    uart.write(FCR, 0xfe);
    assert_eq!((uart.fcr, uart.read(IIR)), (0, 0x01), "without the enable bit nothing is set");
}

#[test]
fn loopback() {
    let mut uart = Registers::default();
    uart.read(MSR);
    uart.write(MCR, 0x1a);
    assert_eq!(uart.read(MSR) & 0xf0, 0x90, "the probe of Linux");
    assert_eq!(uart.room(), 0, "the line is cut");
    assert_eq!(uart.write(DATA, b'q'), None);
    assert_eq!((uart.read(LSR), uart.read(DATA)), (0x61, b'q'));
    uart.write(IER, 8);
    uart.write(MCR, 0x10);
    assert!(uart.interrupt());
    assert_eq!((uart.read(IIR), uart.read(MSR)), (0, 0x09));
    assert!(!uart.interrupt());
    uart.write(MCR, 0x14);
    assert_eq!(uart.read(MSR), 0x40, "ring indicator rises: no change noted");
    uart.write(MCR, 0x10);
    assert_eq!(uart.read(MSR), 0x04, "and falls: noted");
    uart.write(MCR, 0xff);
    assert_eq!(uart.read(MCR), 0x1f);
}

#[derive(Default)]
struct Terminal {
    sent: Mutex<Vec<Vec<u8>>>,
    sink: OnceLock<Arc<dyn CharacterSink>>,
    ready_count: AtomicU32,
    stuck: Mutex<()>,
}

impl Terminal {
    fn all(&self) -> Vec<u8> {
        lock(&self.sent).concat()
    }
    fn sink(&self) -> &Arc<dyn CharacterSink> {
        self.sink.get().unwrap()
    }
}

impl CharacterBackend for Terminal {
    fn send(&self, bytes: &[u8]) {
        let _stuck = lock(&self.stuck);
        lock(&self.sent).push(bytes.into());
    }
    fn attach(&self, sink: Arc<dyn CharacterSink>) {
        assert!(self.sink.set(sink).is_ok());
    }
    fn ready(&self) {
        self.ready_count.fetch_add(1, Ordering::SeqCst);
    }
}

struct Nowhere;
impl InterruptSink for Nowhere {
    fn set_level(&self, _: u32, _: bool) {}
}

fn port() -> (Uart, Arc<Terminal>, InterruptLine) {
    let terminal = Arc::new(Terminal::default());
    let line = InterruptLine::new(Arc::new(Nowhere), 10);
    (
        Uart::new(line.clone(), Arc::clone(&terminal) as Arc<dyn CharacterBackend>, &crate::worker::Crew::Threads)
            .unwrap(),
        terminal,
        line,
    )
}

fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not happen within ten seconds");
}

#[test]
fn output_arrives_by_itself_in_few_pieces() {
    let (uart, terminal, _) = port();
    let text: Vec<u8> = (0..3000u32).map(|i| i.to_le_bytes()[0]).collect();
    for byte in &text {
        uart.write(DATA, Width::Byte, (*byte).into());
    }
    wait_for(|| terminal.all().len() == text.len());
    assert_eq!(terminal.all(), text);
    assert!(lock(&terminal.sent).len() < 1000, "{} writes", lock(&terminal.sent).len());
}

#[test]
fn the_last_byte_is_not_lost() {
    let (uart, terminal, _) = port();
    uart.write(DATA, Width::Byte, b'!'.into());
    drop(uart);
    assert_eq!(terminal.all(), b"!");
}

#[test]
fn a_stuck_terminal_holds_the_guest_back() {
    let (uart, terminal, line) = port();
    let stuck = lock(&terminal.stuck);
    let mut count = 0;
    while uart.read(LSR, Width::Byte) & 0x20 != 0 {
        uart.write(DATA, Width::Byte, b'x'.into());
        count += 1;
        assert!(count <= 2 * OUTPUT_SOFT_BYTES, "at most one batch is under way and one gathers");
        std::thread::yield_now();
    }
    uart.write(IER, Width::Byte, 2);
    assert!(!line.is_raised());
    drop(stuck);
    wait_for(|| line.is_raised());
    uart.flush();
    assert_eq!(terminal.all().len(), count);
}

#[test]
fn input_waits_for_room() {
    let (uart, terminal, line) = port();
    uart.write(FCR, Width::Byte, 1);
    uart.write(IER, Width::Byte, 1);
    let text = b"twenty bytes of text";
    assert_eq!(terminal.sink().receive(text), 16);
    assert!(line.is_raised());
    assert_eq!(terminal.sink().receive(&text[16..]), 0);
    for (i, byte) in text[..8].iter().enumerate() {
        assert_eq!(terminal.ready_count.load(Ordering::SeqCst), 0, "{i}");
        assert_eq!(uart.read(DATA, Width::Byte), u64::from(*byte));
    }
    assert_eq!(terminal.ready_count.load(Ordering::SeqCst), 1);
    assert_eq!(terminal.sink().receive(&text[16..]), 4);
    for byte in &text[8..] {
        assert!(line.is_raised());
        assert_eq!(uart.read(DATA, Width::Byte), u64::from(*byte));
    }
    assert!(!line.is_raised());
    assert_eq!(terminal.ready_count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_paused_port_takes_no_input() {
    let (uart, terminal, line) = port();
    uart.write(IER, Width::Byte, 1);
    uart.write(DATA, Width::Byte, b'>'.into());
    uart.pause();
    assert_eq!(terminal.all(), b">", "what was printed is shown");
    assert_eq!(terminal.sink().receive(b"a"), 0);
    assert!(!line.is_raised());
    uart.resume();
    assert_eq!(terminal.ready_count.load(Ordering::SeqCst), 1);
    assert_eq!(terminal.sink().receive(b"a"), 1);
    assert!(line.is_raised());
    uart.reset();
    assert!(!line.is_raised());
    assert_eq!(uart.read(LSR, Width::Byte), 0x60);
}
