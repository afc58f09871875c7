//! A bus with devices that do nothing but remember, and guests that do anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use machine::address::GuestPhysical;
use machine::bus::{BusDevice, Width};
use machine::interrupt::{InterruptLine, InterruptSink};
use proptest::prelude::*;

use super::config::command;
use super::msi::Place;
use super::root::{ConfigPorts, Ecam, WindowPort};
use super::*;
use crate::state;
use crate::{BoardDevice, lock};

const MEMORY: u64 = 0x4000_0000;
const HIGH: u64 = 0x4_0000_0000;
const MEMORY_SIZE: u64 = 0x100_0000;
const IO_SIZE: u64 = 0x1_0000;

/// A device with a register file behind each kind of base address register.
struct Probe {
    interrupts: Interrupts,
    cells: Mutex<HashMap<(u8, u64), u64>>,
    events: Mutex<Vec<String>>,
}

impl Probe {
    fn events(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.events))
    }
}

impl PciDevice for Probe {
    fn layout(&self) -> Layout {
        Layout {
            identity: Identity { vendor: 0x1234, device: 0x5678, class: 0xff_00_00, ..Identity::default() },
            bars: vec![
                Bar { number: 0, kind: BarKind::Memory32, size: 0x1000 },
                Bar { number: 1, kind: BarKind::Io, size: 0x40 },
                Bar { number: 2, kind: BarKind::Memory64, size: 0x4000 },
            ],
            capabilities: vec![
                Capability::Msi,
                Capability::Msix(Place { vectors_count: 3, bar: 2, table: 0x1000, pending_bar: 2, pending: 0x2000 }),
                Capability::Vendor(vec![4, 9]),
                Capability::VirtioWindow,
            ],
            has_interrupt: true,
            ..Layout::default()
        }
    }
    fn doorbells(&self) -> Vec<Doorbell> {
        vec![Doorbell { bar: 2, offset: 0x3000 }]
    }
    fn read(&self, bar: u8, offset: u64, width: Width) -> u64 {
        width.truncate(lock(&self.cells).get(&(bar, offset)).copied().unwrap_or(0))
    }
    fn write(&self, bar: u8, offset: u64, width: Width, value: u64) {
        lock(&self.cells).insert((bar, offset), width.truncate(value));
    }
    fn ring(&self, number: u16) {
        lock(&self.events).push(format!("ring {number}"));
    }
    fn set_bus_master(&self, on: bool) {
        lock(&self.events).push(format!("master {on}"));
    }
    fn reset(&self) {
        lock(&self.events).push("reset".into());
    }
    fn pause(&self) {}
    fn resume(&self) {}
    fn save(&self) -> Result<State, StateError> {
        let cell = |((bar, offset), value): (&(u8, u64), &u64)| (*bar, *offset, *value);
        Ok(state::save(&lock(&self.cells).iter().map(cell).collect::<Vec<_>>()))
    }
    fn restore(&self, state: &State) -> Result<(), StateError> {
        let cells: Vec<(u8, u64, u64)> = state::read(state)?;
        *lock(&self.cells) = cells.into_iter().map(|(bar, offset, value)| ((bar, offset), value)).collect();
        lock(&self.events).push("restore".into());
        Ok(())
    }
}

#[derive(Default)]
struct Board {
    levels: Mutex<[bool; 8]>,
    sent: Mutex<Vec<(u16, Message)>>,
    routes: Mutex<HashMap<Source, Message>>,
    doorbells: Mutex<HashMap<(Address, u16), GuestPhysical>>,
}

impl InterruptSink for Board {
    fn set_level(&self, number: u32, raised: bool) {
        lock(&self.levels)[usize::try_from(number).unwrap()] = raised;
    }
}

impl MessageSink for Board {
    fn send(&self, source: Source, message: Message) {
        assert_eq!(lock(&self.routes).get(&source), Some(&message), "routed before it is sent");
        lock(&self.sent).push((source.vector, message));
    }
    fn route(&self, source: Source, message: Option<Message>) {
        match message {
            Some(message) => lock(&self.routes).insert(source, message),
            None => lock(&self.routes).remove(&source),
        };
    }
}

impl DoorbellSink for Board {
    fn place(&self, function: Address, number: u16, at: Option<GuestPhysical>) {
        let mut doorbells = lock(&self.doorbells);
        match at {
            Some(at) => assert!(doorbells.insert((function, number), at).is_none(), "it went before it came"),
            None => assert!(doorbells.remove(&(function, number)).is_some()),
        }
        let mut places: Vec<_> = doorbells.values().collect();
        places.sort();
        assert!(places.is_sorted_by(|a, b| a < b), "two doorbells at one place");
    }
}

struct Machine {
    board: Arc<Board>,
    probes: Vec<Arc<Probe>>,
    root: Arc<Root>,
    ecam: Ecam,
    windows: Vec<WindowPort>,
}

fn machine(devices_count: usize, assign: bool) -> Machine {
    let board = Arc::new(Board::default());
    let line = |number| InterruptLine::new(Arc::clone(&board) as Arc<dyn InterruptSink>, number);
    let window = |space, base, size| Window { space, base, size };
    let mut root = Root::new(RootConfig {
        windows: vec![
            window(Space::Memory, MEMORY, MEMORY_SIZE),
            window(Space::Io, 0, IO_SIZE),
            window(Space::Memory, HIGH, MEMORY_SIZE),
        ],
        lines: [line(4), line(5), line(6), line(7)],
        messages: Some(Arc::clone(&board) as _),
        doorbells: Some(Arc::clone(&board) as _),
        assign,
    });
    let mut probes = Vec::new();
    for _ in 0..devices_count {
        let plugged = root.plug(|interrupts| {
            let probe = Arc::new(Probe { interrupts, cells: Mutex::default(), events: Mutex::default() });
            probes.push(Arc::clone(&probe));
            probe
        });
        plugged.unwrap();
    }
    let root = Arc::new(root);
    root.power_on();
    probes.iter().for_each(|probe| assert_eq!(probe.events(), ["reset"]));
    let windows = (0..3).map(|index| WindowPort::new(&root, index).unwrap()).collect();
    Machine { board, probes, ecam: Ecam(Arc::clone(&root)), root, windows }
}

impl Machine {
    fn config(&self, device: u64, offset: u64) -> u64 {
        self.ecam.read((device << 15) + offset, Width::Word)
    }
    fn set_config(&self, device: u64, offset: u64, width: Width, value: u64) {
        self.ecam.write((device << 15) + offset, width, value);
    }
    fn command(&self, device: u64, bits: u16) {
        self.set_config(device, 4, Width::Half, bits.into());
    }
}

#[test]
fn the_bus_shows_what_is_on_it() {
    let machine = machine(2, false);
    assert_eq!(machine.config(0, 0), 0x0008_1b36);
    assert_eq!(machine.config(0, 8) >> 8, 0x06_00_00, "a host bridge");
    assert_eq!(machine.config(2, 0), 0x5678_1234);
    assert_eq!(machine.config(3, 0), 0xffff_ffff);
    assert_eq!(machine.ecam.read(0x100_0000, Width::Half), 0xffff, "another bus");
    assert_eq!(machine.ecam.read((1 << 15) + (1 << 12), Width::Byte), 0xff, "another function");
    assert_eq!(machine.config(1, 0x100), 0, "no extended capabilities");
    assert_eq!(machine.config(1, 0x3c), 0x100, "INTA#");
    // The list of capabilities, by their identifiers.
    let mut at = machine.config(1, 0x34);
    let mut list = Vec::new();
    while at != 0 {
        let head = machine.config(1, at);
        list.push(head & 0xff);
        at = head >> 8 & 0xff;
    }
    assert_eq!(list, [0x05, 0x11, 0x09, 0x09]);
}

#[test]
fn ports_lead_to_the_same_registers() {
    let machine = machine(1, false);
    let ports = ConfigPorts(Arc::clone(&machine.root));
    assert_eq!(ports.read(4, Width::Word), 0xffff_ffff, "not enabled");
    ports.write(0, Width::Word, 0xff00_0803);
    assert_eq!(ports.read(0, Width::Word), 0x8000_0800);
    assert_eq!(ports.read(4, Width::Word), 0x5678_1234);
    assert_eq!(ports.read(6, Width::Half), 0x5678);
    assert_eq!(ports.read(6, Width::Word), 0xffff_ffff, "past the register");
    ports.write(0, Width::Byte, 0);
    assert_eq!(ports.read(0, Width::Word), 0x8000_0800, "only as a whole");
    ports.write(0, Width::Word, 0x8000_083c);
    ports.write(4, Width::Byte, 0x42);
    assert_eq!(machine.config(1, 0x3c), 0x142);
    ports.write(0, Width::Word, 0x8001_0800);
    assert_eq!(ports.read(4, Width::Word), 0xffff_ffff, "another bus");
}

#[test]
fn sizes_show_and_registers_move() {
    let machine = machine(2, false);
    for (offset, expected) in
        [(0x10, 0xffff_f000), (0x14, 0xffff_ffc1), (0x18, 0xffff_c004), (0x1c, 0xffff_ffff), (0x20, 0)]
    {
        machine.set_config(1, offset, Width::Word, 0xffff_ffff);
        assert_eq!(machine.config(1, offset), expected, "{offset:#x}");
    }
    machine.set_config(1, 0x10, Width::Word, MEMORY + 0x5000);
    machine.set_config(1, 0x14, Width::Word, 0x1040);
    machine.set_config(1, 0x18, Width::Double, HIGH + 0x8000);
    let [low, ports, high] = &machine.windows[..] else { unreachable!() };
    low.write(0x5010, Width::Word, 7);
    assert_eq!(low.read(0x5010, Width::Word), 0xffff_ffff, "not decoded");
    machine.command(1, command::MEMORY);
    assert_eq!(ports.read(0x1048, Width::Word), 0xffff_ffff, "not decoded");
    machine.command(1, command::MEMORY | command::IO);
    low.write(0x5010, Width::Word, 7);
    ports.write(0x1048, Width::Half, 0x1_2345);
    high.write(0x8008, Width::Double, 9);
    let cells = |probe: usize| lock(&machine.probes[probe].cells).clone();
    assert_eq!(cells(0), HashMap::from([((0, 0x10), 7), ((1, 8), 0x2345), ((2, 8), 9)]));
    assert_eq!(high.read(0xb_fff, Width::Half), 0xffff, "past the end");
    assert_eq!(
        *lock(&machine.board.doorbells),
        HashMap::from([((Address::of_device(1), 0), GuestPhysical(HIGH + 0xb000))])
    );

    machine.set_config(1, 0x10, Width::Word, MEMORY + 0x7000);
    assert_eq!((low.read(0x5010, Width::Word), low.read(0x7010, Width::Word)), (0xffff_ffff, 7));
    machine.set_config(1, 0x1c, Width::Word, 0);
    assert!(lock(&machine.board.doorbells).is_empty(), "outside all windows");

    // Device 1 was there first; it goes, and what was hidden shows.
    machine.set_config(2, 0x10, Width::Word, MEMORY + 0x7000);
    machine.command(2, command::MEMORY);
    low.write(0x7010, Width::Word, 8);
    assert_eq!((cells(0)[&(0, 0x10)], cells(1).len()), (8, 0));
    machine.command(1, 0);
    low.write(0x7010, Width::Word, 9);
    assert_eq!((cells(0)[&(0, 0x10)], cells(1)[&(0, 0x10)]), (8, 9));
}

#[test]
fn a_firmware_is_not_needed() {
    let machine = machine(2, true);
    assert_eq!(machine.config(1, 0x10), MEMORY);
    assert_eq!(machine.config(2, 0x10), MEMORY + 0x8000, "behind the large one of device 1");
    assert_eq!(machine.config(1, 0x14), 0x41, "not at port 0");
    assert_eq!((machine.config(1, 0x18), machine.config(1, 0x1c)), ((MEMORY + 0x4000) | 4, 0));
    assert_eq!((machine.config(1, 0x3c), machine.config(2, 0x3c)), (0x105, 0x106), "turned by the device's number");
    machine.windows[0].write(0x8010, Width::Word, 5);
    assert_eq!(lock(&machine.probes[1].cells)[&(0, 0x10)], 5);
}

#[test]
fn lines_are_shared_and_turned() {
    let machine = machine(5, false);
    let levels = || lock(&machine.board.levels)[4..].to_vec();
    machine.probes[0].interrupts.set_level(true);
    machine.probes[4].interrupts.set_level(true);
    assert_eq!(levels(), [false, true, false, false], "devices 1 and 5");
    machine.probes[0].interrupts.set_level(false);
    assert_eq!(levels(), [false, true, false, false]);
    assert_eq!(machine.config(1, 4) >> 16 & 8, 0);
    assert_eq!(machine.config(5, 4) >> 16 & 8, 8, "the status says who");
    machine.command(5, command::INTERRUPT_DISABLE);
    assert_eq!(levels(), [false; 4]);
    assert_eq!(machine.config(5, 4) >> 16 & 8, 8);
    machine.command(5, 0);
    assert!(levels()[1]);
    machine.ecam.reset();
    assert_eq!(levels(), [false; 4]);
}

#[test]
fn messages_wait_while_they_are_masked() {
    let machine = machine(1, true);
    let (probe, table) = (&machine.probes[0], 0x5000);
    let window = &machine.windows[0];
    let sent = || std::mem::take(&mut *lock(&machine.board.sent));
    let message = |data| Message { address: 0xfee0_1000, data };
    for vector in 0..3 {
        assert_eq!(window.read(table + 16 * vector + 12, Width::Word), 1, "masked at first");
        window.write(table + 16 * vector, Width::Double, 0xfee0_1003);
        window.write(table + 16 * vector + 8, Width::Word, 0x40 + vector);
    }
    assert_eq!(window.read(table, Width::Word), 0xfee0_1000, "a word's address");
    let control = machine.config(1, 0x34) + 0x10 + 2;
    machine.set_config(1, control, Width::Half, 0xffff);
    assert_eq!(machine.config(1, control & !3) >> 16, 0xc002, "three vectors");
    probe.interrupts.signal(1);
    assert!(probe.interrupts.has_vectors());
    window.write(table + 16 + 12, Width::Word, 0);
    machine.set_config(1, control, Width::Half, 0x8000);
    assert!(sent().is_empty(), "not a bus master");
    assert_eq!(window.read(0x6000, Width::Double), 2);
    machine.command(1, command::MEMORY | command::BUS_MASTER);
    assert_eq!(sent(), [(1, message(0x41))]);
    assert_eq!(window.read(0x6000, Width::Word), 0);
    probe.interrupts.signal(1);
    probe.interrupts.signal(0);
    probe.interrupts.signal(77);
    assert_eq!(sent(), [(1, message(0x41))]);
    window.write(table + 12, Width::Word, 0xffff_fffe);
    assert_eq!(sent(), [(0, message(0x40))]);
    probe.interrupts.set_level(true);
    assert_eq!(*lock(&machine.board.levels), [false; 8], "no line beside messages");
    machine.set_config(1, control, Width::Half, 0);
    assert!(lock(&machine.board.levels)[5]);
    assert!(lock(&machine.board.routes).is_empty());
    assert_eq!(probe.events(), ["master true"]);
}

#[test]
fn a_single_message() {
    let machine = machine(1, true);
    let at = machine.config(1, 0x34);
    assert_eq!(machine.config(1, at) >> 16, 0x80, "64-bit addresses, one vector");
    machine.set_config(1, at + 4, Width::Double, 0x1_fee0_2003);
    machine.set_config(1, at + 12, Width::Word, 0xffff_0033);
    machine.set_config(1, at + 2, Width::Half, 1);
    machine.command(1, command::BUS_MASTER);
    let probe = &machine.probes[0];
    probe.interrupts.set_level(true);
    probe.interrupts.set_level(true);
    assert_eq!(*lock(&machine.board.levels), [false; 8]);
    assert_eq!(*lock(&machine.board.sent), [(0, Message { address: 0x1_fee0_2000, data: 0x33 })]);
}

#[test]
fn registers_through_the_configuration_space() {
    let machine = machine(1, false);
    // The fourth capability.
    let at = (0..3).fold(machine.config(1, 0x34), |at, _| machine.config(1, at) >> 8 & 0xff);
    machine.set_config(1, at + 4, Width::Byte, 0);
    machine.set_config(1, at + 8, Width::Word, 0x20);
    machine.set_config(1, at + 12, Width::Word, 2);
    machine.set_config(1, at + 16, Width::Word, 0x1_2345);
    assert_eq!(lock(&machine.probes[0].cells)[&(0, 0x20)], 0x2345);
    lock(&machine.probes[0].cells).insert((0, 0x20), 0x6789);
    assert_eq!(machine.config(1, at + 16), 0x6789);
    // What is not allowed does nothing.
    for (bar, offset, length) in [(0, 0x21, 2), (0, 0x20, 8), (0, 0x20, 3), (0, 0xfff, 4), (5, 0, 4), (0, u64::MAX, 1)]
    {
        machine.set_config(1, at + 4, Width::Byte, bar);
        machine.set_config(1, at + 8, Width::Word, offset);
        machine.set_config(1, at + 12, Width::Word, length);
        machine.set_config(1, at + 16, Width::Word, 1);
        machine.config(1, at + 16);
    }
    assert_eq!(*lock(&machine.probes[0].cells), HashMap::from([((0, 0x20), 0x6789)]));
}

#[test]
fn a_full_bus_says_so() {
    let board = Arc::new(Board::default());
    let line = |number| InterruptLine::new(Arc::clone(&board) as Arc<dyn InterruptSink>, number);
    let mut root = Root::new(RootConfig {
        windows: Vec::new(),
        lines: [line(0), line(1), line(2), line(3)],
        messages: None,
        doorbells: None,
        assign: true,
    });
    let probe = |interrupts| Arc::new(Probe { interrupts, cells: Mutex::default(), events: Mutex::default() }) as _;
    for number in 1..DEVICES_COUNT_MAX {
        assert_eq!(root.plug(probe).unwrap().to_string(), format!("00:{number:02x}.0"));
    }
    assert!(root.plug(probe).is_err());
    root.power_on();
    // Nothing takes messages, so none are offered.
    let ecam = Ecam(Arc::new(root));
    let at = ecam.read((1 << 15) + 0x34, Width::Word);
    assert_eq!(ecam.read((1 << 15) + at, Width::Byte), 9);
}

proptest! {
    /// Any accesses in any order: nothing panics, no two registers answer at one place, and doorbells are where they are said to be.
    #[test]
    fn hostile_guests(
        accesses in proptest::collection::vec(
            (0u64..4, 0u64..0x100, 0usize..4, prop_oneof![
                any::<u64>(),
                (0u64..64).prop_map(|page| MEMORY + (page << 10)),
                (0u64..64).prop_map(|page| HIGH + (page << 10)),
                0u64..8,
            ]),
            1..200,
        )
    ) {
        let machine = machine(3, true);
        let ports = ConfigPorts(Arc::clone(&machine.root));
        for (device, offset, width, value) in accesses {
            let width = [Width::Byte, Width::Half, Width::Word, Width::Double][width];
            let offset = offset & !(width.bytes() - 1);
            machine.set_config(device, offset, width, value);
            machine.ecam.read((device << 15) + offset, width);
            ports.write(offset % 8, width, value);
            ports.read(offset % 8, width);
            for window in &machine.windows {
                window.write((value % MEMORY_SIZE) & !(width.bytes() - 1), width, value);
                window.read((value % MEMORY_SIZE) & !(width.bytes() - 1), width);
            }
            machine.probes[0].interrupts.signal(u16::try_from(value % 4).unwrap());
            machine.probes[1].interrupts.set_level(value & 1 == 1);
        }
        for ((function, _), at) in &*lock(&machine.board.doorbells) {
            let probe = &machine.probes[usize::from(function.device()) - 1];
            let (window, base) = if at.0 >= HIGH { (2, HIGH) } else { (0, MEMORY) };
            lock(&probe.cells).clear();
            machine.windows[window].write(at.0 - base, Width::Half, 0x77);
            prop_assert_eq!(&*lock(&probe.cells), &HashMap::from([((2, 0x3000), 0x77)]));
        }
        machine.ecam.reset();
        prop_assert_eq!(machine.config(1, 0x10), MEMORY);
    }
}
