//! A guest driver for tests: it works on guest memory and registers as a driver in a guest does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use machine::address::GuestPhysical;
use machine::bus::{BusDevice, Width};
use machine::interrupt::{InterruptLine, InterruptSink};
use machine::memory::GuestMemory;

use super::mmio::Transport;
use super::{VirtioDevice, feature, status};

pub(super) const BASE: u64 = 0x8000_0000;
pub(super) const MEMORY_BYTES: u64 = 16 << 20;

pub(super) struct Nowhere;
impl InterruptSink for Nowhere {
    fn set_level(&self, _: u32, _: bool) {}
}

/// One piece of a chain, as a driver describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) length: u32,
    pub(super) writable: bool,
}

pub(super) fn readable(at: u64, length: u32) -> Piece {
    Piece { at, length, writable: false }
}

pub(super) fn writable(at: u64, length: u32) -> Piece {
    Piece { at, length, writable: true }
}

/// The driver's side of a queue.
pub(super) struct Ring {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    event_index: bool,
    next_available: u16,
    kicked: u16,
    next_used: u16,
    free: VecDeque<u16>,
}

impl Ring {
    /// A ring of `size` entries that lies at `at` and takes 64 KiB at most.
    pub(super) fn new(memory: &Arc<GuestMemory>, size: u16, at: u64, event_index: bool) -> Self {
        memory.fill(GuestPhysical(at), 0x1_0000, 0).unwrap();
        Self {
            memory: Arc::clone(memory),
            size,
            descriptors: at,
            available: at + 0x4000,
            used: at + 0x8000,
            event_index,
            next_available: 0,
            kicked: 0,
            next_used: 0,
            free: (0..size).collect(),
        }
    }

    pub(super) fn descriptor(&self, table: u64, number: u16, at: u64, length: u32, flags: u16, next: u16) {
        let here = GuestPhysical(table + 16 * u64::from(number));
        self.memory.store(here, at).unwrap();
        self.memory.store(here.wrapping_add(8), length).unwrap();
        self.memory.store(here.wrapping_add(12), flags).unwrap();
        self.memory.store(here.wrapping_add(14), next).unwrap();
    }

    /// Puts `head` into the available ring, whatever it is.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = self.available + 4 + 2 * u64::from(self.next_available % self.size);
        self.memory.store(GuestPhysical(slot), head).unwrap();
        self.next_available = self.next_available.wrapping_add(1);
        fence(Ordering::Release);
        self.memory.store(GuestPhysical(self.available + 2), self.next_available).unwrap();
    }

    /// Offers a chain; answers its head, or `None` if there are too few descriptors.
    pub(super) fn add(&mut self, pieces: &[Piece]) -> Option<u16> {
        if self.free.len() < pieces.len() {
            return None;
        }
        let numbers: Vec<u16> = self.free.drain(..pieces.len()).collect();
        for (i, piece) in pieces.iter().enumerate() {
            let next = numbers.get(i + 1).copied();
            let flags = u16::from(next.is_some()) | if piece.writable { 2 } else { 0 };
            self.descriptor(self.descriptors, numbers[i], piece.at, piece.length, flags, next.unwrap_or(0));
        }
        self.offer(numbers[0]);
        Some(numbers[0])
    }

    /// Offers a chain by way of an indirect table at `table`.
    pub(super) fn add_indirect(&mut self, table: u64, pieces: &[Piece]) -> Option<u16> {
        let head = self.free.pop_front()?;
        for (i, piece) in (0u16..).zip(pieces) {
            let more = usize::from(i) + 1 < pieces.len();
            let flags = u16::from(more) | if piece.writable { 2 } else { 0 };
            self.descriptor(table, i, piece.at, piece.length, flags, i + 1);
        }
        self.descriptor(self.descriptors, head, table, u32::try_from(pieces.len() * 16).unwrap(), 4, 0);
        self.offer(head);
        Some(head)
    }

    /// Whether the device wants to hear of what was offered since the last call.
    pub(super) fn must_kick(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let (old, new) = (self.kicked, self.next_available);
        self.kicked = new;
        if self.event_index {
            let event: u16 = self.load(self.used + 4 + 8 * u64::from(self.size));
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            new != old && self.load::<u16>(self.used) & 1 == 0
        }
    }

    fn load<T: machine::memory::Scalar>(&self, at: u64) -> T {
        self.memory.load(GuestPhysical(at)).unwrap()
    }

    /// Takes the next used chain: its head, and how much the device wrote.
    pub(super) fn pop_used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = self.load(self.used + 2);
        if index == self.next_used {
            return None;
        }
        fence(Ordering::Acquire);
        let slot = self.used + 4 + 8 * u64::from(self.next_used % self.size);
        let head = u16::try_from(self.load::<u32>(slot)).unwrap();
        let written = self.load(slot + 4);
        self.next_used = self.next_used.wrapping_add(1);
        let mut number = head;
        loop {
            self.free.push_back(number);
            let flags: u16 = self.load(self.descriptors + 16 * u64::from(number) + 12);
            if flags & 1 == 0 {
                return Some((head, written));
            }
            number = self.load(self.descriptors + 16 * u64::from(number) + 14);
        }
    }

    /// Asks for an interrupt at the next used chain (event index), or when flags allow.
    pub(super) fn want_interrupt(&self) {
        if self.event_index {
            let slot = GuestPhysical(self.available + 4 + 2 * u64::from(self.size));
            self.memory.store(slot, self.next_used).unwrap();
        }
        fence(Ordering::SeqCst);
    }
}

/// A device behind its transport, with a driver that has set up all queues.
pub(super) struct Driver {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) transport: Transport,
    pub(super) line: InterruptLine,
    pub(super) rings: Vec<Ring>,
    next_free: u64,
}

impl Driver {
    /// A device that nobody has touched.
    pub(super) fn idle(device: Arc<dyn VirtioDevice>) -> Self {
        let memory = Arc::new(GuestMemory::new(GuestPhysical(BASE), MEMORY_BYTES).unwrap());
        let line = InterruptLine::new(Arc::new(Nowhere), 1);
        let transport = Transport::new(device, Arc::clone(&memory), line.clone());
        Self { memory, transport, line, rings: Vec::new(), next_free: BASE + (4 << 20) }
    }

    /// A device that the driver has set up with `features` (and version 1).
    pub(super) fn start(device: Arc<dyn VirtioDevice>, features: u64) -> Self {
        let mut driver = Self::idle(device);
        driver.bring_up(features);
        driver
    }

    pub(super) fn read(&self, offset: u64) -> u32 {
        u32::try_from(self.transport.read(offset, Width::Word)).unwrap()
    }

    pub(super) fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, Width::Word, value.into());
    }

    pub(super) fn status(&self) -> u8 {
        u8::try_from(self.read(0x070)).unwrap()
    }

    /// The steps of section 3.1.1.
    pub(super) fn bring_up(&mut self, features: u64) {
        let features = features | feature::VERSION_1;
        self.write(0x070, 0);
        let mut seen = u32::from(status::ACKNOWLEDGE);
        self.write(0x070, seen);
        seen |= u32::from(status::DRIVER);
        self.write(0x070, seen);
        for (select, half) in [(0, features), (1, features >> 32)] {
            self.write(0x024, select);
            self.write(0x020, u32::try_from(half & 0xffff_ffff).unwrap());
        }
        seen |= u32::from(status::FEATURES_OK);
        self.write(0x070, seen);
        assert_ne!(self.status() & status::FEATURES_OK, 0, "features {features:#x} are agreed on");
        self.rings.clear();
        for number in 0.. {
            self.write(0x030, number);
            let size = u16::try_from(self.read(0x034)).unwrap();
            if size == 0 {
                break;
            }
            let at = BASE + 0x1_0000 * u64::from(number);
            self.rings.push(Ring::new(&self.memory, size, at, features & feature::EVENT_IDX != 0));
            self.write(0x038, size.into());
            for (register, place) in [(0x080, at), (0x090, at + 0x4000), (0x0a0, at + 0x8000)] {
                self.write(register, u32::try_from(place & 0xffff_ffff).unwrap());
                self.write(register + 4, u32::try_from(place >> 32).unwrap());
            }
            self.write(0x044, 1);
        }
        self.write(0x070, seen | u32::from(status::DRIVER_OK));
    }

    /// `bytes` bytes of guest memory for the test's use.
    pub(super) fn allocate(&mut self, bytes: u64) -> u64 {
        let at = self.next_free;
        self.next_free += bytes.next_multiple_of(64);
        assert!(self.next_free <= BASE + MEMORY_BYTES);
        at
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write(GuestPhysical(at), bytes).unwrap();
    }

    pub(super) fn get(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read(GuestPhysical(at), &mut bytes).unwrap();
        bytes
    }

    /// Notifies if the device wants it.
    pub(super) fn kick(&mut self, queue: usize) {
        if self.rings[queue].must_kick() {
            self.write(0x050, u32::try_from(queue).unwrap());
        }
    }

    /// Waits for the next used chain.
    pub(super) fn wait_used(&mut self, queue: usize) -> (u16, u32) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(used) = self.rings[queue].pop_used() {
                return used;
            }
            assert!(Instant::now() < end, "the device gives nothing back");
            std::thread::yield_now();
        }
    }

    /// Acknowledges interrupts as a handler does; answers which.
    pub(super) fn acknowledge(&self) -> u32 {
        let bits = self.read(0x060);
        self.write(0x064, bits);
        bits
    }
}

/// Waits until `what` holds.
pub(super) fn wait_for(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "it did not happen in time");
        std::thread::yield_now();
    }
}
