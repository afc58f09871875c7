use super::super::driver::{Driver, readable, wait_for, writable};
use super::super::{feature as common, status};
use super::*;
use crate::BoardDevice;
use machine::bus::{BusDevice, Width};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Default)]
struct Terminal {
    sent: Mutex<Vec<u8>>,
    sink: OnceLock<Arc<dyn CharacterSink>>,
    ready_count: AtomicU32,
    stuck: Mutex<()>,
}

impl Terminal {
    fn sink(&self) -> &Arc<dyn CharacterSink> {
        self.sink.get().unwrap()
    }
    fn ready_count(&self) -> u32 {
        self.ready_count.swap(0, Ordering::SeqCst)
    }
}

impl CharacterBackend for Terminal {
    fn send(&self, bytes: &[u8]) {
        let _stuck = lock(&self.stuck);
        lock(&self.sent).extend(bytes);
    }
    fn attach(&self, sink: Arc<dyn CharacterSink>) {
        assert!(self.sink.set(sink).is_ok());
    }
    fn ready(&self) {
        self.ready_count.fetch_add(1, Ordering::SeqCst);
    }
}

fn console(features: u64) -> (Arc<Terminal>, Arc<Console>, Driver, u64) {
    let terminal = Arc::new(Terminal::default());
    let console = Arc::new(
        Console::new(Arc::clone(&terminal) as Arc<dyn CharacterBackend>, &crate::worker::Crew::Threads).unwrap(),
    );
    let mut driver = Driver::start(Arc::clone(&console) as Arc<dyn VirtioDevice>, features);
    let data = driver.allocate(4 << 20);
    (terminal, console, driver, data)
}

const RX: usize = RECEIVE as usize;
const TX: usize = TRANSMIT as usize;

#[test]
fn output_in_order_whatever_its_size() {
    let (terminal, console, mut driver, at) = console(0);
    let text: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    driver.put(at, &text);
    let mut done = 0;
    for length in [1, 16_383, 2, 16_384, 16_385, 40_000, 0, 5] {
        driver.rings[TX]
            .add(&[readable(at + done, length / 2), readable(at + done + u64::from(length / 2), length.div_ceil(2))]);
        done += u64::from(length);
    }
    driver.kick(TX);
    for _ in 0..8 {
        driver.wait_used(TX);
    }
    console.drain();
    assert_eq!(*lock(&terminal.sent), text[..usize::try_from(done).unwrap()]);
}

#[test]
fn buffers_come_back_before_the_terminal_is_done() {
    let (terminal, _console, mut driver, at) = console(0);
    let stuck = lock(&terminal.stuck);
    driver.put(at, b"x");
    driver.rings[TX].add(&[readable(at, 1)]);
    driver.kick(TX);
    driver.wait_used(TX);
    assert!(lock(&terminal.sent).is_empty());
    drop(stuck);
    wait_for(|| *lock(&terminal.sent) == b"x");
}

#[test]
fn the_last_words_are_not_lost() {
    let (terminal, console, mut driver, at) = console(0);
    driver.put(at, b"reboot: Power down");
    driver.rings[TX].add(&[readable(at, 18)]);
    driver.kick(TX);
    driver.transport.pause();
    assert_eq!(*lock(&terminal.sent), b"reboot: Power down");
    driver.transport.resume();
    driver.rings[TX].add(&[readable(at, 6)]);
    driver.kick(TX);
    drop((driver, console));
    assert_eq!(*lock(&terminal.sent), b"reboot: Power downreboot");
}

#[test]
fn input_waits_for_buffers() {
    for features in [0, common::EVENT_IDX] {
        let (terminal, _console, mut driver, at) = console(features);
        assert_eq!(terminal.sink().receive(b"early"), 0);
        driver.rings[RX].add(&[writable(at, 4)]);
        driver.rings[RX].add(&[writable(at + 10, 4)]);
        driver.kick(RX);
        assert_eq!(terminal.ready_count(), 1);
        assert_eq!(terminal.sink().receive(b"ten bytes!"), 8);
        assert!(driver.line.is_raised());
        assert_eq!((driver.wait_used(RX).1, driver.wait_used(RX).1), (4, 4));
        assert_eq!([driver.get(at, 4), driver.get(at + 10, 4)].concat(), b"ten byte");
        driver.rings[RX].add(&[writable(at, 4)]);
        driver.kick(RX);
        assert_eq!(terminal.ready_count(), 1);
        driver.transport.pause();
        assert_eq!(terminal.sink().receive(b"s!"), 0);
        driver.transport.resume();
        assert_eq!(terminal.ready_count(), 1);
        assert_eq!(terminal.sink().receive(b"s!"), 2);
        assert_eq!(driver.wait_used(RX).1, 2);
    }
}

#[test]
fn the_size_changes_with_an_interrupt() {
    let (terminal, _console, driver, _) = console(feature::SIZE);
    assert_eq!((driver.read(0x100), driver.read(0x104)), (0, 1));
    let generation = driver.read(0x0fc);
    terminal.sink().resize(132, 50);
    assert_eq!((driver.read(0x100), driver.acknowledge()), (132 | (50 << 16), 2));
    assert_ne!(driver.read(0x0fc), generation);
    terminal.sink().resize(132, 50);
    assert_eq!(driver.acknowledge(), 0);
    driver.transport.pause();
    terminal.sink().resize(100, 40);
    assert_eq!(driver.acknowledge(), 0, "a paused machine hears of it later");
    driver.transport.resume();
    assert_eq!((driver.acknowledge(), driver.read(0x100)), (2, 100 | (40 << 16)));
    driver.write(0x070, 0);
    terminal.sink().resize(80, 25);
    assert!(!driver.line.is_raised(), "nobody listens");
    assert_eq!(driver.read(0x100), 80 | (25 << 16));
}

#[test]
fn the_size_is_told_at_the_first_output() {
    let (terminal, console, mut driver, at) = console(feature::SIZE);
    terminal.sink().resize(132, 50);
    driver.bring_up(feature::SIZE);
    console.drain();
    assert_eq!(driver.acknowledge(), 0);
    for expected in [2, 0] {
        driver.rings[TX].add(&[readable(at, 1)]);
        driver.kick(TX);
        driver.wait_used(TX);
        console.drain();
        assert_eq!(driver.acknowledge() & 2, expected);
    }
}

#[test]
fn emergency_output_needs_no_queues() {
    let terminal = Arc::new(Terminal::default());
    let console = Arc::new(
        Console::new(Arc::clone(&terminal) as Arc<dyn CharacterBackend>, &crate::worker::Crew::Threads).unwrap(),
    );
    let driver = Driver::idle(console);
    driver.write(0x108, u32::from(b'!'));
    driver.transport.write(0x100, Width::Word, 0x41);
    assert_eq!(*lock(&terminal.sent), b"!");
}

#[test]
fn a_receive_buffer_without_room_is_a_broken_driver() {
    let (terminal, _console, mut driver, at) = console(0);
    driver.rings[RX].add(&[readable(at, 4)]);
    assert_eq!(terminal.sink().receive(b"a"), 0);
    assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
    assert_eq!(terminal.sink().receive(b"a"), 0);
}

#[test]
fn a_console_goes_on_in_a_new_device() {
    let (terminal, _, mut driver, at) = console(0);
    for number in 0..4 {
        driver.rings[RX].add(&[writable(at + 64 * number, 64)]).unwrap();
    }
    driver.kick(RX);
    assert_eq!(terminal.sink().receive(b"one"), 3);
    assert_eq!(driver.wait_used(RX).1, 3);
    let terminal = Arc::new(Terminal::default());
    let backend = Arc::clone(&terminal) as Arc<dyn CharacterBackend>;
    let console = Arc::new(Console::new(backend, &crate::worker::Crew::Threads).unwrap());
    driver.move_to(Arc::clone(&console) as Arc<dyn VirtioDevice>);
    assert_eq!(terminal.sink().receive(b"three"), 5);
    assert_eq!(driver.wait_used(RX).1, 5);
    assert_eq!(driver.get(at + 64, 5), b"three");
    driver.put(at + 4096, b"out");
    driver.rings[TX].add(&[readable(at + 4096, 3)]).unwrap();
    driver.kick(TX);
    driver.wait_used(TX);
    console.drain();
    assert_eq!(*lock(&terminal.sent), b"out");
}
