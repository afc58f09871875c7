use std::sync::Mutex;

use machine::address::GuestPhysical;
use machine::bus::BusDevice;
use machine::interrupt::{InterruptLine, InterruptSink};

use super::super::block::{self, Block};
use super::super::driver::{BASE, MEMORY_BYTES, Nowhere, Ring, readable, wait_for, writable};
use super::super::probe::Probe;
use super::super::{feature, status};
use super::*;
use crate::pci::root::{Ecam, WindowPort};
use crate::pci::{Message, MessageSink, Root, RootConfig, Source, Space, Window};
use crate::worker::Crew;
use crate::{BoardDevice, lock};

const WINDOW: u64 = 0x4000_0000;

#[derive(Default)]
struct Controller(Mutex<Vec<u16>>);

impl MessageSink for Controller {
    fn send(&self, source: Source, _: Message) {
        lock(&self.0).push(source.vector);
    }
    fn route(&self, _: Source, _: Option<Message>) {}
}

/// A device on a bus of its own, with a driver.
struct Driver {
    memory: Arc<GuestMemory>,
    controller: Arc<Controller>,
    line: InterruptLine,
    ecam: Ecam,
    window: WindowPort,
}

impl Driver {
    fn new(device: Arc<dyn VirtioDevice>, messages: bool) -> Self {
        let memory = Arc::new(GuestMemory::new(GuestPhysical(BASE), MEMORY_BYTES).unwrap());
        Self::with_memory(&memory, device, messages)
    }
    fn with_memory(memory: &Arc<GuestMemory>, device: Arc<dyn VirtioDevice>, messages: bool) -> Self {
        let controller = Arc::new(Controller::default());
        let nowhere: Arc<dyn InterruptSink> = Arc::new(Nowhere);
        let lines = [0, 1, 2, 3].map(|number| InterruptLine::new(Arc::clone(&nowhere), number));
        let line = lines[1].clone();
        let mut root = Root::new(RootConfig {
            windows: vec![Window { space: Space::Memory, base: WINDOW, size: 0x10_0000 }],
            lines,
            messages: messages.then(|| Arc::clone(&controller) as _),
            doorbells: None,
            assign: true,
        });
        root.plug(|interrupts| Arc::new(Transport::new(device, Arc::clone(memory), interrupts))).unwrap();
        let root = Arc::new(root);
        root.power_on();
        let window = WindowPort::new(&root, 0).unwrap();
        Self { memory: Arc::clone(memory), controller, line, ecam: Ecam(root), window }
    }
    fn config(&self, offset: u64, width: Width) -> u64 {
        self.ecam.read((1 << 15) + offset, width)
    }
    fn set_config(&self, offset: u64, width: Width, value: u64) {
        self.ecam.write((1 << 15) + offset, width, value);
    }
    /// Finds the capability of type `kind`, and answers its region's offset behind the register.
    fn region(&self, kind: u64) -> u64 {
        let mut at = self.config(0x34, Width::Byte);
        while self.config(at, Width::Byte) != 9 || self.config(at + 3, Width::Byte) != kind {
            at = self.config(at + 1, Width::Byte);
            assert_ne!(at, 0, "there is a region {kind}");
        }
        self.config(at + 8, Width::Word)
    }
    fn read(&self, offset: u64, width: Width) -> u64 {
        self.window.read(offset, width)
    }
    fn write(&self, offset: u64, width: Width, value: u64) {
        self.window.write(offset, width, value);
    }
    fn status(&self) -> u64 {
        self.read(0x14, Width::Byte)
    }
    fn master(&self, on: bool) {
        self.set_config(4, Width::Half, if on { 6 } else { 2 });
    }
    /// Section 3.1.1, with vector `n + 1` for queue `n` and vector 0 for the configuration.
    fn bring_up(&self, features: u64) -> Vec<Ring> {
        let features = features | feature::VERSION_1;
        for value in [0, 1, 3] {
            self.write(0x14, Width::Byte, value);
        }
        for (select, value) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(0x08, Width::Word, select);
            self.write(0x0c, Width::Word, value);
            assert_eq!(self.read(0x0c, Width::Word), value);
        }
        self.write(0x14, Width::Byte, 11);
        assert_eq!(self.status(), 11);
        self.write(0x10, Width::Half, 0);
        let mut rings = Vec::new();
        for number in 0..self.read(0x12, Width::Half) {
            self.write(0x16, Width::Half, number);
            let size = u16::try_from(self.read(0x18, Width::Half)).unwrap();
            assert_eq!(self.read(0x1e, Width::Half), number);
            let at = BASE + 0x1_0000 * number;
            rings.push(Ring::new(&self.memory, size, at, features & feature::EVENT_IDX != 0));
            self.write(0x20, Width::Double, at);
            self.write(0x28, Width::Word, at + 0x4000);
            self.write(0x2c, Width::Word, 0);
            self.write(0x30, Width::Double, at + 0x8000);
            assert_eq!(self.read(0x28, Width::Double), at + 0x4000);
            self.write(0x1a, Width::Half, number + 1);
            self.write(0x1c, Width::Half, 1);
            assert_eq!(self.read(0x1c, Width::Half), 1);
        }
        self.write(0x14, Width::Byte, 15);
        rings
    }
}

#[test]
fn identity_and_regions() {
    let driver = Driver::new(Arc::new(Probe::default()), true);
    assert_eq!(driver.config(0, Width::Word), 0x106a_1af4);
    assert_eq!(driver.config(8, Width::Word), 0xff00_0001);
    assert_eq!([1, 2, 3, 4].map(|kind| driver.region(kind)), [0, 0x3000, 0x1000, 0x2000]);
    assert_eq!(driver.read(0x04, Width::Word), 0x3000_0005);
    driver.write(0x00, Width::Word, 1);
    assert_eq!((driver.read(0x00, Width::Word), driver.read(0x04, Width::Word)), (1, 1));
    assert_eq!(driver.read(0x12, Width::Half), 2);
    driver.write(0x16, Width::Half, 1);
    assert_eq!(driver.read(0x18, Width::Half), 16);
    driver.write(0x16, Width::Half, 2);
    assert_eq!(driver.read(0x18, Width::Half), 0, "no such queue");
    assert_eq!(driver.read(0x12, Width::Word), 0, "not a whole field");
}

#[test]
fn a_life_with_messages() {
    let probe = Arc::new(Probe::default());
    let driver = Driver::new(Arc::clone(&probe) as _, true);
    assert_eq!(probe.events(), ["reset"]);
    // All vectors unmasked, MSI-X on.
    for vector in 0..3 {
        driver.write(0x4000 + 16 * vector + 12, Width::Word, 0);
    }
    let msix = driver.config(0x34, Width::Byte);
    driver.set_config(msix + 2, Width::Half, 0x8000);
    driver.master(true);
    driver.bring_up(1);
    assert_eq!(probe.events(), ["reset", "activate 0x100000001 [Some(8), Some(16)]"]);
    driver.write(driver.region(2) + 4, Width::Half, 1);
    assert_eq!(probe.events(), ["notify 1"]);
    probe.signals().used(1);
    probe.signals().configuration_changed();
    probe.signals().used(0);
    assert_eq!(std::mem::take(&mut *lock(&driver.controller.0)), [2, 0, 1]);
    assert_eq!(driver.read(0x15, Width::Byte), 1);
    assert_eq!(driver.read(driver.region(3), Width::Byte), 0, "no status beside messages");
    driver.write(0x16, Width::Half, 0);
    driver.write(0x1a, Width::Half, 3);
    assert_eq!(driver.read(0x1a, Width::Half), 0xffff, "no such vector");
    probe.signals().used(0);
    assert!(lock(&driver.controller.0).is_empty());
    probe.signals().needs_reset(&QueueError::Long);
    assert_eq!(driver.status(), 0x4f);
    driver.write(0x14, Width::Byte, 0);
    assert_eq!((driver.status(), driver.read(0x10, Width::Half)), (0, 0xffff));
}

#[test]
fn a_life_with_a_line() {
    let probe = Arc::new(Probe::default());
    let driver = Driver::new(Arc::clone(&probe) as _, false);
    driver.master(true);
    driver.bring_up(0);
    probe.signals().used(0);
    probe.signals().configuration_changed();
    assert!(driver.line.is_raised());
    assert_eq!(driver.read(driver.region(3), Width::Byte), 3);
    assert!(!driver.line.is_raised(), "reading acknowledges");
    assert_eq!(driver.read(driver.region(3), Width::Byte), 0);
    assert_eq!(driver.read(driver.region(4), Width::Word), 0x0403_0201);
    driver.write(driver.region(4) + 2, Width::Half, 0x0201);
    driver.write(0x1c, Width::Half, 0);
    driver.ecam.0.ring(crate::pci::Address::of_device(1), 1);
    let mut events = probe.events();
    assert_eq!(events.split_off(events.len() - 2), ["config 2 [1, 2]", "notify 1"]);
}

/// A disk of zeroes.
struct Zeroes;
impl machine::backend::BlockBackend for Zeroes {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, _: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.fill(0);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn only_a_bus_master_touches_memory() {
    let options = block::Options { serial: String::new(), queues_count: 1 };
    let block = Arc::new(Block::new(Arc::new(Zeroes), &options, &Crew::Threads).unwrap());
    let driver = Driver::new(Arc::clone(&block) as _, false);
    let mut rings = driver.bring_up(0);
    let at = BASE + (4 << 20);
    driver.memory.fill(GuestPhysical(at), 1024, 0).unwrap();
    let pieces = [readable(at, 16), writable(at + 512, 512), writable(at + 64, 1)];
    for round in 0..3 {
        rings[0].add(&pieces).unwrap();
        driver.write(driver.region(2), Width::Half, 0);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(rings[0].pop_used().is_none(), "round {round}");
        driver.master(true);
        wait_for(|| driver.line.is_raised());
        driver.read(driver.region(3), Width::Byte);
        assert_eq!(rings[0].pop_used().unwrap().1, 513);
        driver.master(false);
    }
    assert_eq!(u64::from(status::DRIVER_OK | 11), driver.status());
}

#[test]
fn any_access_is_answered() {
    let driver = Driver::new(Arc::new(Probe::default()), true);
    driver.master(true);
    driver.bring_up(0);
    for width in [Width::Byte, Width::Half, Width::Word, Width::Double] {
        for offset in (0..BAR_SIZE).step_by(host_size(width.bytes())) {
            driver.read(offset, width);
            driver.write(offset, width, u64::MAX);
            driver.write(offset, width, 0);
        }
    }
    assert_eq!(driver.status(), 0);
}

#[test]
fn a_transport_goes_on_on_another_bus() {
    let block = || {
        let options = block::Options { serial: "disk".into(), queues_count: 1 };
        Arc::new(Block::new(Arc::new(Zeroes), &options, &Crew::Threads).unwrap())
    };
    let driver = Driver::new(block(), true);
    for vector in 0..2 {
        driver.write(0x4000 + 16 * vector + 8, Width::Word, 0x40 + vector);
        driver.write(0x4000 + 16 * vector + 12, Width::Word, 0);
    }
    let msix = driver.config(0x34, Width::Byte);
    driver.set_config(msix + 2, Width::Half, 0x8000);
    driver.master(true);
    let mut rings = driver.bring_up(0);
    driver.ecam.pause();
    let text = driver.ecam.save().unwrap().to_string();

    let new = Driver::with_memory(&driver.memory, block(), true);
    new.ecam.pause();
    new.ecam.restore(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(new.ecam.save().unwrap().to_string(), text);
    new.ecam.resume();
    assert_eq!(new.status(), 15);
    let at = BASE + 0x20_0000;
    new.memory.fill(GuestPhysical(at), 64, 0).unwrap();
    rings[0].want_interrupt();
    rings[0].add(&[readable(at, 16), writable(at + 0x1000, 512), writable(at + 0x100, 1)]).unwrap();
    new.write(0x3000, Width::Half, 0);
    wait_for(|| *lock(&new.controller.0) == [1]);
    assert_eq!(rings[0].pop_used().map(|used| used.1), Some(513));
    assert!(lock(&driver.controller.0).is_empty());

    let empty = Driver::new(Arc::new(Probe::default()), true);
    let error = empty.ecam.restore(&serde_json::from_str(&text).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "another device is at 00:01.0");
}
