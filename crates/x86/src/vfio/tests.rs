//! A device of the host's on a guest's bus, up to the ioctls.

use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use devices::BoardDevice;
use devices::pci::root::Ecam;
use devices::pci::{Message, MessageSink, Root, RootConfig, Source, Space, Window};
use machine::bus::BusDevice;
use machine::interrupt::{InterruptLine, InterruptSink};

use super::super::Region;
use super::super::layout::tests::card;
use super::*;

/// Both sides of a device, which write down what is asked of them.
#[derive(Default)]
struct Both {
    calls: Mutex<Vec<String>>,
    command: Mutex<[u8; 2]>,
    events: Mutex<Vec<Arc<Waker>>>,
    bridge: bool,
    no_memory: bool,
}

impl Both {
    fn note(&self, call: String) {
        lock(&self.calls).push(call);
    }
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.calls))
    }
}

impl HostFunction for Both {
    fn region(&self, number: u8) -> Region {
        let (size, mappable) = [(1 << 20, 1 << 19), (0, 0), (32, 0), (1 << 14, 1 << 14)]
            .get(usize::from(number))
            .copied()
            .unwrap_or_default();
        Region { size, mappable: std::iter::once(0..mappable).filter(|range| range.end > 0).collect() }
    }
    fn read(&self, region: u8, offset: u64, bytes: &mut [u8]) {
        if region == CONFIG_REGION {
            let mut config = card();
            config[4..6].copy_from_slice(&*lock(&self.command));
            config[0x0e] = self.bridge.into();
            bytes.copy_from_slice(&config[host_size(offset)..][..bytes.len()]);
        } else {
            self.note(format!("read {region} {offset:#x}+{}", bytes.len()));
            bytes.fill(0x5a);
        }
    }
    fn write(&self, region: u8, offset: u64, bytes: &[u8]) {
        if region == CONFIG_REGION {
            assert_eq!((offset, bytes.len()), (4, 2), "nothing else of its space is written");
            lock(&self.command).copy_from_slice(bytes);
        }
        self.note(format!("write {region} {offset:#x} {bytes:x?}"));
    }
    fn map(&self, region: u8, range: Range<u64>) -> io::Result<Mapping> {
        self.note(format!("mmap {region} {range:#x?}").replace('\n', ""));
        Mapping::new(host_size(range.end - range.start))
    }
    fn vectors_count(&self, irq: Irq) -> u32 {
        if irq == Irq::Vectors { 0x81 } else { 1 }
    }
    fn set_events(&self, irq: Irq, events: &[Arc<Waker>]) -> io::Result<()> {
        self.note(format!("events {irq:?} {}", events.len()));
        *lock(&self.events) = events.to_vec();
        Ok(())
    }
    fn set_unmask_event(&self, _: &Waker) -> io::Result<()> {
        self.note("unmask".into());
        Ok(())
    }
    fn set_dma(&self, on: bool) -> io::Result<()> {
        self.note(format!("dma {on}"));
        if self.no_memory { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
    fn reset(&self) {
        self.note("reset".into());
    }
}

impl GuestSide for Both {
    fn map(&self, base: GuestPhysical, memory: &Arc<Mapping>) -> Result<u32, KvmError> {
        self.note(format!("map {:#x}+{:#x}", base.0, memory.size()));
        Ok(u32::try_from(base.0 >> 12).unwrap())
    }
    fn unmap(&self, slot: u32) {
        self.note(format!("unmap {:#x}", u64::from(slot) << 12));
    }
    fn lead_line(&self, number: u32, _: &Waker, _: &Waker, on: bool) -> Result<(), KvmError> {
        self.note(format!("line {number} {on}"));
        Ok(())
    }
}

struct Nowhere;

impl InterruptSink for Nowhere {
    fn set_level(&self, _: u32, _: bool) {}
}

struct Sent(Mutex<mpsc::Sender<(u16, Message)>>);

impl MessageSink for Sent {
    fn send(&self, source: Source, message: Message) {
        lock(&self.0).send((source.vector, message)).unwrap();
    }
    fn route(&self, _: Source, _: Option<Message>) {}
}

struct Machine {
    both: Arc<Both>,
    ecam: Ecam,
    sent: mpsc::Receiver<(u16, Message)>,
}

const BASE: u64 = 0xe000_0000;
/// The device's place in the ECAM: device 1.
const CONFIG: u64 = 1 << 15;

fn machine(both: Both) -> Machine {
    let both = Arc::new(both);
    let (sender, sent) = mpsc::channel();
    let line = |number| InterruptLine::new(Arc::new(Nowhere), number);
    let window = |space, base, size| Window { space, base, size };
    let mut root = Root::new(RootConfig {
        windows: vec![window(Space::Memory, BASE, 64 << 20), window(Space::Io, 0x1000, 0x1000)],
        lines: [16, 17, 18, 19].map(line),
        messages: Some(Arc::new(Sent(Mutex::new(sender)))),
        doorbells: None,
        assign: true,
    });
    let slot = root.free_slot().unwrap();
    let (function, guest) = (Arc::clone(&both) as Arc<dyn HostFunction>, Arc::clone(&both) as Arc<dyn GuestSide>);
    let place = Place { guest, interrupts: slot.interrupts.clone(), line: 17 };
    let passed = Passed::new("1:0.0".parse().unwrap(), function, place).unwrap();
    root.insert(slot, Arc::new(passed));
    root.power_on();
    Machine { both, ecam: Ecam(Arc::new(root)), sent }
}

impl Machine {
    fn write(&self, at: u64, width: Width, value: u64) {
        self.ecam.write(CONFIG + at, width, value);
    }
    fn read(&self, at: u64, width: Width) -> u64 {
        self.ecam.read(CONFIG + at, width)
    }
    /// The place of a capability.
    fn capability(&self, id: u64) -> u64 {
        let mut at = self.read(0x34, Width::Byte);
        while self.read(at, Width::Byte) != id {
            at = self.read(at + 1, Width::Byte);
            assert_ne!(at, 0, "capability {id}");
        }
        at
    }
}

#[test]
fn registers_are_the_guests_and_the_tables_are_ours() {
    let machine = machine(Both::default());
    let calls = machine.both.calls();
    let expected = [
        "mmap 0 0x0..0x80000",
        "mmap 3 0x1000..0x2000",
        "mmap 3 0x3000..0x4000",
        "write 7 0x4 [3, 0]",
        "reset",
        "write 7 0x4 [3, 0]",
        "write 7 0x4 [3, 0]",
        "line 17 true",
        "events Line 1",
        "unmask",
        "map 0xe0000000+0x80000",
        "map 0xe0101000+0x1000",
        "map 0xe0103000+0x1000",
    ];
    assert_eq!(calls, expected);
    assert_eq!((machine.read(0, Width::Word), machine.read(0x08, Width::Word)), (0x1572_8086, 0x0200_0002));
    // Sizes, and a register that moves.
    machine.write(0x10, Width::Word, 0xffff_ffff);
    assert_eq!(machine.read(0x10, Width::Word), 0xfff0_0004);
    machine.write(0x10, Width::Word, BASE + (32 << 20));
    assert_eq!(machine.both.calls(), ["unmap 0xe0000000", "map 0xe2000000+0x80000"]);
    machine.write(0x04, Width::Half, 0);
    assert_eq!(machine.both.calls(), ["unmap 0xe0101000", "unmap 0xe0103000", "unmap 0xe2000000"]);
}

#[test]
fn memory_is_reached_by_a_master_only() {
    let machine = machine(Both::default());
    machine.both.calls();
    machine.write(0x04, Width::Half, 6);
    assert_eq!(machine.both.calls()[..2], ["dma true", "write 7 0x4 [7, 0]"]);
    machine.ecam.pause();
    machine.ecam.resume();
    assert_eq!(machine.both.calls(), ["write 7 0x4 [3, 0]", "write 7 0x4 [7, 0]"]);
    machine.ecam.reset();
    let calls = machine.both.calls();
    assert_eq!(calls[..5], ["write 7 0x4 [3, 0]", "dma false", "events Line 0", "line 17 false", "reset"]);
    let poor = self::machine(Both { no_memory: true, ..Both::default() });
    poor.write(0x04, Width::Half, 6);
    assert_eq!(*lock(&poor.both.command), [3, 0], "a host that does not lock the memory");
}

#[test]
fn vectors_of_the_device_are_those_of_the_guest() {
    let machine = machine(Both::default());
    let msix = machine.capability(0x11);
    machine.both.calls();
    machine.write(0x04, Width::Half, 6);
    machine.write(msix + 2, Width::Half, 0x8000);
    let calls = machine.both.calls();
    assert_eq!(calls[calls.len() - 3..], ["events Line 0", "line 17 false", "events Vectors 129"]);
    // Vector 2 of the table, which is at the beginning of the third register.
    let table = |offset: u64, value: u64| {
        let ports = devices::pci::root::WindowPort::new(&machine.ecam.0, 0).unwrap();
        ports.write((1 << 20) + 32 + offset, Width::Word, value);
    };
    for (offset, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x41), (12, 0)] {
        table(offset, value);
    }
    let event = Arc::clone(&lock(&machine.both.events)[2]);
    event.set();
    let message = Message { address: 0xfee0_0000, data: 0x41 };
    assert_eq!(machine.sent.recv_timeout(Duration::from_secs(10)).unwrap(), (2, message));
    machine.write(msix + 2, Width::Half, 0);
    assert_eq!(machine.both.calls(), ["events Vectors 0", "line 17 true", "events Line 1", "unmask"]);
}

#[test]
fn accesses_that_exit_go_to_the_device() {
    let machine = machine(Both::default());
    machine.both.calls();
    let window = devices::pci::root::WindowPort::new(&machine.ecam.0, 0).unwrap();
    assert_eq!(window.read(0x8_0004, Width::Word), 0x5a5a_5a5a);
    window.write(0x8_0008, Width::Double, 0x1122);
    assert_eq!(machine.both.calls(), ["read 0 0x80004+4", "write 0 0x80008 [22, 11, 0, 0, 0, 0, 0, 0]"]);
}

#[test]
fn bridges_are_refused() {
    let both = Arc::new(Both { bridge: true, ..Both::default() });
    let line = InterruptLine::new(Arc::new(Nowhere), 1);
    let root = Root::new(RootConfig {
        windows: Vec::new(),
        lines: [line.clone(), line.clone(), line.clone(), line],
        messages: None,
        doorbells: None,
        assign: false,
    });
    let interrupts = root.free_slot().unwrap().interrupts;
    let place = Place { guest: Arc::clone(&both) as _, interrupts, line: 17 };
    let error = Passed::new("1:0.0".parse().unwrap(), both, place).err().unwrap().to_string();
    assert!(error.contains("0000:01:00.0 is a bridge"), "{error}");
}

#[test]
fn tables_are_cut_out_in_whole_pages() {
    let table = 0x1800..0x1900;
    assert_eq!(without_tables(0..0x4000, &[table]), [0..0x1000, 0x2000..0x4000]);
    assert_eq!(without_tables(0x100..0x2fff, &[]).first(), Some(&(0x1000..0x2000)));
    assert!(without_tables(0..0x1000, &[0..16, 0x800..0x808]).is_empty());
}
