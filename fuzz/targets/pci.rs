//! A hostile driver of a PCI bus: whatever it writes to configuration spaces, to the registers of an e1000 and of a virtio device, and to the rings in
//! memory, in whatever order, nothing panics, and no frame is longer than a card can send.
#![no_main]

use std::sync::{Arc, Mutex, PoisonError};

use devices::BoardDevice;
use devices::e1000::{self, E1000};
use devices::pci::root::{ConfigPorts, Ecam, WindowPort};
use devices::pci::{Message, MessageSink, Root, RootConfig, Source, Space, Window};
use devices::virtio::entropy::EntropySource;
use devices::virtio::pci::Transport;
use devices::worker::{Crew, Roster};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use machine::address::GuestPhysical;
use machine::backend::{FrameSink, NetworkBackend};
use machine::bus::{BusDevice, Width};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::interrupt::{InterruptLine, InterruptSink};
use machine::memory::GuestMemory;

const BASE: u64 = 0x8000_0000;
const MEMORY_BYTES: u64 = 1 << 20;
const WINDOW: u64 = 0x4000_0000;
const WINDOW_SIZE: u64 = 0x10_0000;
/// Segments of 256 KiB, with a header and a tag each: what the card may send as one frame.
const FRAME_BYTES_MAX: usize = (1 << 16) + 255 + 4;

/// One thing that a driver, or the network, does.
#[derive(Arbitrary, Debug)]
enum Action {
    Config {
        device: u8,
        offset: u8,
        width: u8,
        value: u32,
        by_ports: bool,
    },
    /// A register of the e1000, by offset.
    Card {
        register: u16,
        value: u32,
    },
    /// Anything in the window.
    Window {
        offset: u32,
        width: u8,
        value: u64,
    },
    /// A descriptor of the ring that starts memory.
    Descriptor {
        number: u8,
        at: u32,
        words: u64,
    },
    Tails {
        transmit: u8,
        receive: u8,
    },
    Frame {
        bytes: u16,
        broadcast: bool,
    },
    Time {
        ns: u32,
    },
    Reset,
}

#[derive(Default)]
struct Outside {
    sink: Mutex<Option<Arc<dyn FrameSink>>>,
}

impl NetworkBackend for Outside {
    fn send(&self, frame: &[u8]) {
        assert!((14..=FRAME_BYTES_MAX).contains(&frame.len()), "a frame of {} bytes", frame.len());
    }
    fn mtu(&self) -> u16 {
        e1000::MTU
    }
    fn attach(&self, sink: Arc<dyn FrameSink>) {
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }
    fn ready(&self) {}
}

impl InterruptSink for Outside {
    fn set_level(&self, _: u32, _: bool) {}
}

impl MessageSink for Outside {
    fn send(&self, _: Source, _: Message) {}
    fn route(&self, _: Source, _: Option<Message>) {}
}

fn width(code: u8) -> Width {
    [Width::Byte, Width::Half, Width::Word, Width::Double][usize::from(code % 4)]
}

libfuzzer_sys::fuzz_target!(|actions: Vec<Action>| {
    let memory = Arc::new(GuestMemory::new(GuestPhysical(BASE), MEMORY_BYTES).expect("the host has a megabyte"));
    let outside = Arc::new(Outside::default());
    let clock = Arc::new(Clock::starting_at(0));
    // Devices work when they are told to, so a run is the same every time.
    let roster = Arc::new(Roster::new(Arc::clone(&clock)));
    let crew = Crew::Inline(Arc::clone(&roster));
    let line = |number| InterruptLine::new(Arc::clone(&outside) as Arc<dyn InterruptSink>, number);
    let mut root = Root::new(RootConfig {
        windows: vec![
            Window { space: Space::Memory, base: WINDOW, size: WINDOW_SIZE },
            Window { space: Space::Io, base: 0, size: 0x1000 },
        ],
        lines: [line(0), line(1), line(2), line(3)],
        messages: Some(Arc::clone(&outside) as _),
        doorbells: None,
        assign: true,
    });
    let slot = root.free_slot().expect("the bus is empty");
    let (network, interrupts) = (Arc::clone(&outside) as Arc<dyn NetworkBackend>, slot.interrupts.clone());
    let card = E1000::new(network, [2; 6], Arc::clone(&memory), interrupts, Arc::clone(&clock), &crew);
    root.insert(slot, Arc::new(card.expect("no thread is asked for")));
    let entropy = Arc::new(EntropySource::new(Entropy::Seeded(1), &crew).expect("no thread is asked for"));
    let theirs = Arc::clone(&memory);
    root.plug(|interrupts| Arc::new(Transport::new(entropy, theirs, interrupts))).expect("the bus has room");
    let root = Arc::new(root);
    root.power_on();
    let (ecam, ports) = (Ecam(Arc::clone(&root)), ConfigPorts(Arc::clone(&root)));
    let window = WindowPort::new(&root, 0).expect("there is a window");
    for device in [1, 2] {
        ecam.write((device << 15) + 4, Width::Half, 7);
    }
    let card = |register: u16, value: u32| window.write(u64::from(register), Width::Word, value.into());
    // A card that is up, so that inputs need not find that out.
    for (register, value) in [
        (0x0000, 0x40),
        (0x2800, 0x8000_8000),
        (0x2808, 512),
        (0x3800, 0x8000_0000),
        (0x3808, 512),
        (0x0400, 0xa),
        (0x0100, 0x8002),
        (0x00d0, 0xff),
    ] {
        card(register, value);
    }
    for action in actions.into_iter().take(200) {
        match action {
            Action::Config { device, offset, width: code, value, by_ports } => {
                let width = width(code);
                let offset = u64::from(offset) & !(width.bytes() - 1);
                if by_ports {
                    ports.write(offset % 8, width, value.into());
                    ports.read(offset % 8, width);
                } else {
                    ecam.write((u64::from(device % 4) << 15) + offset, width, value.into());
                    ecam.read((u64::from(device % 4) << 15) + offset, width);
                }
            }
            Action::Card { register, value } => {
                card(register & !3, value);
                window.read(u64::from(register & !3), Width::Word);
            }
            Action::Window { offset, width: code, value } => {
                let width = width(code);
                let offset = (u64::from(offset) % WINDOW_SIZE) & !(width.bytes() - 1);
                window.write(offset, width, value);
                window.read(offset, width);
            }
            Action::Descriptor { number, at, words } => {
                let place = BASE + 16 * u64::from(number % 64);
                // Both are inside memory.
                let _ = memory.store(GuestPhysical(place), BASE + u64::from(at) % (2 * MEMORY_BYTES));
                let _ = memory.store(GuestPhysical(place + 8), words);
            }
            Action::Tails { transmit, receive } => {
                card(0x3818, transmit.into());
                card(0x2818, receive.into());
            }
            Action::Frame { bytes, broadcast } => {
                let sink = outside.sink.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = if broadcast { 0xff } else { 2 };
                if let Some(sink) = sink {
                    sink.receive(&vec![first; usize::from(bytes)]);
                }
            }
            Action::Time { ns } => clock.advance_to(clock.now_ns() + u64::from(ns)),
            Action::Reset => ecam.reset(),
        }
        roster.work();
    }
    // The card and what it sends to know each other: without this they would live for ever.
    *outside.sink.lock().unwrap_or_else(PoisonError::into_inner) = None;
});
