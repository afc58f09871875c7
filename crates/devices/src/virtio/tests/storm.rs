//! Drivers that do anything: whatever they write, every device survives, can be reset, and then serves an honest driver.

use std::io;
use std::sync::Arc;

use machine::backend::{BlockBackend, CharacterBackend, CharacterSink, FrameSink, NetworkBackend};
use machine::bus::{BusDevice, Width};
use machine::entropy::Entropy;
use proptest::prelude::*;

use super::VirtioDevice;
use super::block::{self, Block};
use super::console::Console;
use super::driver::{BASE, Driver, MEMORY_BYTES, readable, writable};
use super::entropy::EntropySource;
use super::network::Network;
use crate::lock;
use std::sync::Mutex;

/// A backend of every kind, that takes everything and gives something now and then.
#[derive(Default)]
struct Host {
    frames: Mutex<Option<Arc<dyn FrameSink>>>,
    characters: Mutex<Option<Arc<dyn CharacterSink>>>,
}

impl Host {
    fn give(&self, bytes: &[u8]) {
        if let Some(sink) = &*lock(&self.frames) {
            sink.receive(bytes);
        }
        if let Some(sink) = &*lock(&self.characters) {
            sink.receive(bytes);
        }
    }
}

const DISK_BYTES: u64 = 1 << 16;

impl BlockBackend for Host {
    fn size(&self) -> u64 {
        DISK_BYTES
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        assert!(offset + bytes.len() as u64 <= DISK_BYTES);
        Ok(())
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset + bytes.len() as u64 <= DISK_BYTES);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        assert!(offset + length <= DISK_BYTES);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        assert!(offset + length <= DISK_BYTES);
        Ok(())
    }
}

impl NetworkBackend for Host {
    fn send(&self, _: &[u8]) {}
    fn mtu(&self) -> u16 {
        1500
    }
    fn attach(&self, sink: Arc<dyn FrameSink>) {
        *lock(&self.frames) = Some(sink);
    }
    fn ready(&self) {}
}

impl CharacterBackend for Host {
    fn send(&self, _: &[u8]) {}
    fn attach(&self, sink: Arc<dyn CharacterSink>) {
        *lock(&self.characters) = Some(sink);
    }
    fn ready(&self) {}
}

#[derive(Clone, Debug)]
enum Step {
    Register { offset: u64, value: u32 },
    Config { offset: u64, value: u64 },
    Descriptor { queue: usize, number: u16, at: u64, length: u32, flags: u16, next: u16 },
    Offer { queue: usize, head: u16 },
    Store { at: u64, value: u64 },
    Notify { queue: u32 },
    Give { length: usize },
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0u64..0x3_0000).prop_map(|offset| BASE + offset),
        2 => (0u64..64).prop_map(|offset| BASE + MEMORY_BYTES - offset),
        1 => any::<u64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 0u32..600, 1 => any::<u32>()];
    prop_oneof![
        1 => (0u64..64, prop_oneof![0u32..32, any::<u32>()])
            .prop_map(|(register, value)| Step::Register { offset: register * 4, value }),
        1 => (0x100u64..0x200, any::<u64>()).prop_map(|(offset, value)| Step::Config { offset, value }),
        6 => (0usize..2, 0u16..16, address(), length, 0u16..8, 0u16..17).prop_map(
            |(queue, number, at, length, flags, next)| Step::Descriptor { queue, number, at, length, flags, next }
        ),
        4 => (0usize..2, 0u16..17).prop_map(|(queue, head)| Step::Offer { queue, head }),
        2 => (address(), any::<u64>()).prop_map(|(at, value)| Step::Store { at: at & !7, value }),
        3 => (0u32..3).prop_map(|queue| Step::Notify { queue }),
        2 => (0usize..70_000).prop_map(|length| Step::Give { length }),
    ]
}

/// A device, and how to wait for it.
struct Subject {
    device: Arc<dyn VirtioDevice>,
    drain: Box<dyn Fn()>,
}

fn subjects(host: &Arc<Host>) -> Vec<Subject> {
    fn subject<T: VirtioDevice + 'static>(device: T, drain: impl Fn(&T) + 'static) -> Subject {
        let device = Arc::new(device);
        let theirs = Arc::clone(&device);
        Subject { device, drain: Box::new(move || drain(&theirs)) }
    }
    let options = block::Options { serial: String::new(), queues_count: 2 };
    vec![
        subject(Block::new(Arc::clone(host) as _, &options, &crate::worker::Crew::Threads).unwrap(), Block::drain),
        subject(Network::new(Arc::clone(host) as _, [2; 6], 1, &crate::worker::Crew::Threads).unwrap(), Network::drain),
        subject(Console::new(Arc::clone(host) as _, &crate::worker::Crew::Threads).unwrap(), Console::drain),
        subject(EntropySource::new(Entropy::Seeded(1), &crate::worker::Crew::Threads).unwrap(), EntropySource::drain),
    ]
}

fn take(driver: &mut Driver, host: &Host, step: &Step) {
    let rings = driver.rings.len();
    match *step {
        Step::Register { offset, value } => driver.write(offset, value),
        Step::Config { offset, value } => {
            for width in [Width::Byte, Width::Half, Width::Word, Width::Double] {
                driver.transport.write(offset, width, value);
                driver.transport.read(offset, width);
            }
        }
        Step::Descriptor { queue, number, at, length, flags, next } => {
            let ring = &driver.rings[queue % rings];
            ring.descriptor(ring.descriptors, number % ring.size, at, length, flags, next);
        }
        Step::Offer { queue, head } => driver.rings[queue % rings].offer(head),
        Step::Store { at, value } => {
            // Outside memory is nothing to store to.
            let _ = driver.memory.store(machine::GuestPhysical(at), value);
        }
        Step::Notify { queue } => driver.write(0x050, queue),
        Step::Give { length } => host.give(&vec![0x5a; length]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_device_survives(steps in proptest::collection::vec(step(), 1..60), features in any::<u64>()) {
        let host = Arc::new(Host::default());
        for subject in subjects(&host) {
            let offered = subject.device.features() | super::feature::ALL;
            let mut driver = Driver::start(Arc::clone(&subject.device), features & offered);
            for step in &steps {
                take(&mut driver, &host, step);
            }
            (subject.drain)();
            driver.bring_up(0);
            let at = driver.allocate(4096);
            // Something that each of the devices gives back: a read of sector 0, a frame, a line, a request for bytes.
            driver.put(at, &[0; 64]);
            let device = subject.device.device_id();
            let queue = usize::from(device == 1 || device == 3);
            let pieces = [readable(at, 64), writable(at + 1024, 513)];
            let pieces = match device {
                2 => vec![readable(at, 16), pieces[1]],
                4 => vec![pieces[1]],
                _ => vec![pieces[0]],
            };
            let head = driver.rings[queue].add(&pieces).unwrap();
            driver.kick(queue);
            prop_assert_eq!(driver.wait_used(queue).0, head);
            prop_assert_eq!(driver.status(), 0xf);
        }
    }
}
