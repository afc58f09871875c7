//! A hostile driver: whatever it writes to the registers, rings and descriptors of a virtio disk, and in whatever order, the device ends
//! each request, breaks no other memory, and never panics.
#![no_main]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::virtio::block::{Block, Options};
use devices::virtio::mmio::Transport;
use devices::worker::Crew;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use machine::address::{GuestPhysical, host_size};
use machine::backend::BlockBackend;
use machine::bus::{BusDevice, Width};
use machine::interrupt::{InterruptLine, InterruptSink};
use machine::memory::GuestMemory;

const BASE: u64 = 0x8000_0000;
const MEMORY_BYTES: u64 = 1 << 20;
const DISK_BYTES: usize = 64 << 10;
/// Where a well-behaved set-up puts the rings, from the start of memory.
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x8000;
const QUEUE_SIZE: u16 = 64;
/// Notifications in one input: each costs a wait for the device's thread.
const NOTIFICATIONS_MAX: usize = 16;

/// One thing that a driver does.
#[derive(Arbitrary, Debug)]
enum Action {
    /// The steps that bring the device to life, as the specification has them.
    SetUp {
        features: u64,
        size: u16,
    },
    /// Any register, any value.
    Write {
        register: u8,
        value: u32,
    },
    /// Any width and offset, configuration space included.
    Read {
        offset: u16,
        width: u8,
    },
    /// Bytes anywhere in the rings or what lies behind them.
    Store {
        at: u16,
        value: u64,
    },
    Descriptor {
        number: u8,
        at: u32,
        is_far: bool,
        length: u32,
        flags: u8,
        next: u16,
    },
    /// A header as requests begin with, at `at`.
    Header {
        at: u16,
        kind: u8,
        sector: u16,
        is_far: bool,
    },
    Offer {
        head: u16,
    },
    Notify {
        queue: u8,
    },
    /// A whole request as a good driver makes it, with sizes of the fuzzer's choice.
    Request {
        kind: u8,
        sector: u16,
        length: u16,
        is_indirect: bool,
    },
}

struct Nowhere;
impl InterruptSink for Nowhere {
    fn set_level(&self, _: u32, _: bool) {}
}

/// A disk in memory that checks what the device promises about ranges.
struct Ram(Mutex<Vec<u8>>);

impl Ram {
    fn with(&self, offset: u64, length: usize, what: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = host_size(offset);
        let Some(range) = start.checked_add(length).and_then(|end| bytes.get_mut(start..end)) else {
            panic!("{length} bytes at {offset} are outside of the disk: the device must check this");
        };
        what(range);
        Ok(())
    }
}

impl BlockBackend for Ram {
    fn size(&self) -> u64 {
        DISK_BYTES as u64
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.with(offset, bytes.len(), |disk| bytes.copy_from_slice(disk))
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(offset, bytes.len(), |disk| disk.copy_from_slice(bytes))
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.with(offset, host_size(length), |_| {})
    }
    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        self.with(offset, host_size(length), |disk| disk.fill(0))
    }
}

struct Driver {
    memory: Arc<GuestMemory>,
    block: Arc<Block>,
    transport: Transport,
    next_available: u16,
    notifications: usize,
}

impl Driver {
    fn write(&self, register: u64, value: u64) {
        self.transport.write(register, Width::Word, value & 0xffff_ffff);
    }

    /// Stores to guest memory, if it is there.
    fn store(&self, offset: u64, bytes: &[u8]) {
        let _ = self.memory.write(GuestPhysical(BASE + offset), bytes);
    }

    fn set_up(&mut self, features: u64, size: u16) {
        self.next_available = 0;
        self.store(AVAILABLE, &[0; 4]);
        self.store(USED, &[0; 4]);
        for (register, value) in [(0x070, 0), (0x070, 1), (0x070, 3)] {
            self.write(register, value);
        }
        for (select, half) in [(0, features), (1, features >> 32 | 1)] {
            self.write(0x014, select);
            self.write(0x024, select);
            // More than is offered would not be agreed on; `Write` can still ask for it.
            self.write(0x020, half & self.transport.read(0x010, Width::Word));
        }
        self.write(0x070, 11);
        self.write(0x030, 0);
        self.write(0x038, size.into());
        for (register, place) in [(0x080, BASE), (0x090, BASE + AVAILABLE), (0x0a0, BASE + USED)] {
            self.write(register, place);
            self.write(register + 4, place >> 32);
        }
        self.write(0x044, 1);
        self.write(0x070, 15);
    }

    fn descriptor(&self, table: u64, number: u16, at: u64, length: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.store(table + 16 * u64::from(number), &bytes);
    }

    fn header(&self, at: u64, kind: u8, sector: u64) {
        let mut bytes = [0; 16];
        bytes[0] = kind;
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.store(at, &bytes);
    }

    fn offer(&mut self, head: u16) {
        self.store(AVAILABLE + 4 + 2 * u64::from(self.next_available % QUEUE_SIZE), &head.to_le_bytes());
        self.next_available = self.next_available.wrapping_add(1);
        self.store(AVAILABLE + 2, &self.next_available.to_le_bytes());
    }

    fn notify(&mut self, queue: u8) {
        if self.notifications < NOTIFICATIONS_MAX {
            self.notifications += 1;
            self.write(0x050, queue.into());
            self.block.drain();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SetUp { features, size } => self.set_up(features, if size == 0 { QUEUE_SIZE } else { size }),
            Action::Write { register, value } => self.write(u64::from(register) * 4, value.into()),
            Action::Read { offset, width } => {
                let width = [Width::Byte, Width::Half, Width::Word, Width::Double][usize::from(width % 4)];
                self.transport.read(offset.into(), width);
            }
            Action::Store { at, value } => self.store(at.into(), &value.to_le_bytes()),
            Action::Descriptor { number, at, is_far, length, flags, next } => {
                let at = if is_far { u64::from(at) << 32 | u64::from(at) } else { BASE + u64::from(at & 0x1f_ffff) };
                self.descriptor(0, number.into(), at, length, flags.into(), next);
            }
            Action::Header { at, kind, sector, is_far } => {
                let sector = if is_far { u64::MAX - u64::from(sector) } else { sector.into() };
                self.header(at.into(), kind, sector);
            }
            Action::Offer { head } => self.offer(head),
            Action::Notify { queue } => self.notify(queue),
            Action::Request { kind, sector, length, is_indirect } => {
                let (header, data, status) = (0x1_0000, 0x1_1000, 0x3_0000);
                self.header(header, kind, sector.into());
                let from_device = if kind == 0 || kind == 8 { 2 } else { 0 };
                let table = if is_indirect { 0xc000 } else { 0 };
                self.descriptor(table, 0, BASE + header, 16, 1, 1);
                self.descriptor(table, 1, BASE + data, length.into(), from_device | 1, 2);
                self.descriptor(table, 2, BASE + status, 1, 2, 0);
                if is_indirect {
                    self.descriptor(0, 0, BASE + table, 48, 4, 0);
                }
                self.offer(0);
                self.notify(0);
            }
        }
    }
}

libfuzzer_sys::fuzz_target!(|actions: Vec<Action>| {
    let Ok(memory) = GuestMemory::new(GuestPhysical(BASE), MEMORY_BYTES) else { return };
    let memory = Arc::new(memory);
    let disk = Arc::new(Ram(Mutex::new(vec![0; DISK_BYTES])));
    let options = Options { serial: "fuzz".into(), queues_count: 1 };
    let Ok(block) = Block::new(disk, &options, &Crew::Threads) else { return };
    let block = Arc::new(block);
    let line = InterruptLine::new(Arc::new(Nowhere), 1);
    let transport = Transport::new(block.clone(), Arc::clone(&memory), line);
    let mut driver = Driver { memory, block, transport, next_available: 0, notifications: 0 };
    driver.set_up(u64::MAX, QUEUE_SIZE);
    for action in actions {
        driver.act(action);
    }
    driver.write(0x070, 0);
});
