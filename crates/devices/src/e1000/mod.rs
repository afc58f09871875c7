//! Intel 82540EM: a Gigabit Ethernet card that nearly every system has a driver for.
//!
//! Specification: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (8254x), Intel 317453.
//!
//! ```text
//! driver --registers--> [`registers`] ([`eeprom`], [`phy`])
//!        --rings in guest RAM--> [`transmit`] (a thread) --> network
//!                             <-- [`receive`] (the network's thread) <--
//! ```
//!
//! | region | what |
//! |---|---|
//! | base address register 0, 128 KiB of memory | registers, at their offsets |
//! | base address register 2, 64 ports | 0: number of a register, 4: that register |
//!
//! Frames that the guest sends are gathered, segmented and completed by a thread of the card. Frames for the guest are put into its buffers on the thread of the
//! network that brings them; if there are none the network is told so, and again when there are, as by a card with a deep buffer and flow control.
//!
//! Interrupts come no more often than ITR says; those that come too early are kept by the thread until they are due.
//!
//! Hostile drivers: descriptors are read once, every address is checked by guest memory (what is not RAM reads as all ones and takes no writes), packets
//! have a largest size, and a ring whose head or tail is outside itself stands still.

use std::fmt;
use std::io;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use machine::GuestPhysical;
use machine::backend::{FrameSink, NetworkBackend};
use machine::bus::Width;
use machine::clock::Clock;
use machine::memory::GuestMemory;
use serde::{Deserialize, Serialize};

use crate::lock;
use crate::pci::{Bar, BarKind, Capability, Doorbell, Identity, Interrupts, Layout, PciDevice};
use crate::state::{self as device, StateError};
use crate::worker::{Crew, Next, Turn, Worker};
use receive::Accepted;
use registers::{Effect, Registers, cause, counter, ctrl, offset, rctl, tctl};
use transmit::{Descriptor, Request, Settings, Transmit};

pub mod eeprom;
pub mod phy;
pub mod receive;
pub mod registers;
pub mod transmit;

#[cfg(test)]
mod tests;

const VENDOR: u16 = 0x8086;
const DEVICE: u16 = 0x100e;
const SUBSYSTEM: u16 = 0x001e;
/// The largest packet that goes in and out without a driver's asking for more, in bytes; the MTU that the card's network is to have.
pub const MTU: u16 = 1500;

const MEMORY_BAR: u8 = 0;
const MEMORY_SIZE: u64 = 0x2_0000;
const IO_BAR: u8 = 2;
const IO_SIZE: u64 = 64;
/// Descriptors done before the driver sees that they are.
const BATCH_COUNT: u32 = 64;
/// The unit of ITR.
const THROTTLE_NS: u64 = 256;

/// What is behind the lock that register accesses take.
struct State {
    registers: Registers,
    paused_count: u32,
    /// A frame was refused; the network waits to hear of room.
    starved: bool,
    /// Whether the interrupt is raised, and when it may be again.
    raised: bool,
    next_raise_ns: u64,
    accepted: Accepted,
}

/// The card in a snapshot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    registers: Registers,
    transmit: Transmit,
    raised: bool,
    next_raise_ns: u64,
}

struct Shared {
    memory: Arc<GuestMemory>,
    backend: Arc<dyn NetworkBackend>,
    clock: Arc<Clock>,
    interrupts: Interrupts,
    state: Mutex<State>,
    /// The thread's, while it works. Taken before the state's lock.
    transmit: Mutex<Transmit>,
}

/// The card. Plug it into a [`Root`](crate::pci::Root).
pub struct E1000 {
    shared: Arc<Shared>,
    worker: Arc<Worker>,
}

impl Shared {
    /// Reads guest memory; where there is none, all ones.
    fn fetch(&self, at: u64, bytes: &mut [u8]) {
        if self.memory.read(GuestPhysical(at), bytes).is_err() {
            bytes.fill(0xff);
        }
    }

    /// Sets the interrupt as the registers ask for. True if it is due, but too early: the thread is to see to it.
    fn update_interrupt(&self, state: &mut State) -> bool {
        if !state.registers.wants_interrupt() {
            if std::mem::take(&mut state.raised) {
                self.interrupts.set_level(false);
            }
            return false;
        }
        if state.raised {
            return false;
        }
        let now_ns = self.clock.now_ns();
        if now_ns < state.next_raise_ns {
            return true;
        }
        state.raised = true;
        state.next_raise_ns = now_ns + THROTTLE_NS * u64::from(state.registers.get(offset::ITR));
        self.interrupts.set_level(true);
        false
    }

    /// The thread's job: sends what waits, and raises an interrupt that has become due.
    fn work(&self, turn: &Turn<'_>) -> Next {
        while self.send_batch() {
            if turn.is_over() {
                return Next::Again;
            }
        }
        let mut state = lock(&self.state);
        if self.update_interrupt(&mut state) {
            return Next::Within(Duration::from_nanos(state.next_raise_ns.saturating_sub(self.clock.now_ns()).max(1)));
        }
        Next::Kick
    }

    /// Does some transmit descriptors. False if there are none.
    fn send_batch(&self) -> bool {
        let mut transmit = lock(&self.transmit);
        let (ring, epoch, settings, loops_back, link) = {
            let state = lock(&self.state);
            let registers = &state.registers;
            if registers.get(offset::TCTL) & tctl::ENABLE == 0 {
                return false;
            }
            let tags = registers.get(offset::CTRL) & ctrl::VLAN != 0;
            let settings = Settings {
                tag_type: tags.then(|| u16::try_from(registers.get(offset::VET)).unwrap_or(0)),
                pad: registers.get(offset::TCTL) & tctl::PAD != 0,
            };
            let link = registers.has_link();
            (registers.transmit_ring(), registers.transmit_epoch, settings, registers.loops_back(), link)
        };
        let count = ring.ready_count().min(BATCH_COUNT);
        if count == 0 {
            return false;
        }
        fence(Ordering::Acquire);
        let mut head = ring.head;
        let mut reported = false;
        let mut sent = Sent::default();
        for _ in 0..count {
            let at = ring.descriptor(head);
            let mut bytes = [0; 16];
            self.fetch(at, &mut bytes);
            let descriptor = Descriptor::parse(&bytes);
            match &descriptor.request {
                Request::Context { segment, context } => transmit.set_context(*segment, *context),
                Request::Data(data) => {
                    let segments_count = transmit.take(
                        data,
                        settings,
                        |at, bytes| self.fetch(at, bytes),
                        |frame| {
                            sent.count(frame);
                            if loops_back {
                                self.deliver(frame, true);
                            } else if link {
                                self.backend.send(frame);
                            }
                        },
                    );
                    sent.segmented_count += u32::from(segments_count > 0);
                }
                Request::Reserved => {}
            }
            if descriptor.report {
                reported = true;
                fence(Ordering::Release);
                // Where there is no memory, nobody reads it.
                let _ = self.memory.store(GuestPhysical(at.wrapping_add(12)), bytes[12] | 1);
            }
            head = ring.next(head);
        }
        let mut state = lock(&self.state);
        if state.registers.transmit_epoch == epoch {
            state.registers.put(offset::TDH, head);
            sent.add_to(&mut state.registers);
            if reported {
                state.registers.causes |= cause::TRANSMIT_DONE;
            }
            if head == ring.tail {
                state.registers.causes |= cause::TRANSMIT_EMPTY;
            }
            // If it is too early, the end of the job sees to it.
            self.update_interrupt(&mut state);
        }
        true
    }

    /// Puts a frame into the driver's buffers. False if there are too few now.
    fn deliver(&self, frame: &[u8], looped: bool) -> bool {
        let mut state = lock(&self.state);
        let state = &mut *state;
        if state.paused_count > 0 && !looped {
            state.starved = true;
            return false;
        }
        let registers = &mut state.registers;
        let control = registers.get(offset::RCTL);
        let listens = registers.loops_back() == looped && (registers.has_link() || looped);
        if control & rctl::ENABLE == 0 || !listens {
            return true;
        }
        let size = receive::buffer_bytes(control);
        let mut ring = registers.receive_ring();
        // As many as the longest form of the frame takes.
        let needed = u32::try_from((frame.len().max(60) + 4).div_ceil(size)).unwrap_or(u32::MAX);
        let ready = ring.ready_count();
        if needed >= ring.size.max(1) && ring.size > 0 {
            registers.count(counter::MISSED, 1);
            return true;
        }
        if ready < needed {
            state.starved = !looped;
            return false;
        }
        if receive::accept(registers, frame, &mut state.accepted).is_none() {
            return true;
        }
        let accepted = &state.accepted;
        let chunks = accepted.bytes.chunks(size);
        let last = chunks.len() - 1;
        for (number, chunk) in chunks.enumerate() {
            let at = ring.descriptor(ring.head);
            let mut address = [0; 8];
            self.fetch(at, &mut address);
            let written = self.memory.write(GuestPhysical(u64::from_le_bytes(address)), chunk);
            let status = receive::status::DONE
                | if number == last { accepted.status | receive::status::END_OF_PACKET } else { 0 };
            let length = u32::try_from(chunk.len()).unwrap_or(0);
            // Where there is no memory, what is written is lost.
            let described =
                self.memory.store(GuestPhysical(at.wrapping_add(8)), length | (u32::from(accepted.sum) << 16));
            fence(Ordering::Release);
            let state = u32::from(status) | (u32::from(accepted.tag) << 16);
            let _ = written.and(described).and(self.memory.store(GuestPhysical(at.wrapping_add(12)), state));
            ring.head = ring.next(ring.head);
        }
        registers.put(offset::RDH, ring.head);
        registers.causes |= cause::RECEIVED;
        // A half, a quarter or an eighth of the ring.
        let low = ring.size >> (1 + (control >> 8 & 3)).min(3);
        let left = ring.ready_count();
        if left < low && left + needed >= low {
            registers.causes |= cause::RECEIVE_LOW;
        }
        true
    }
}

/// What a batch has sent.
#[derive(Default)]
struct Sent {
    frames_count: u32,
    broadcast_count: u32,
    multicast_count: u32,
    segmented_count: u32,
    bytes: u64,
    sizes: [u32; 6],
}

impl Sent {
    fn count(&mut self, frame: &[u8]) {
        let bytes = frame.len() + 4;
        self.frames_count += 1;
        self.bytes += bytes as u64;
        let class = [65, 128, 256, 512, 1024].iter().take_while(|limit| bytes >= **limit).count();
        self.sizes[class] += 1;
        if frame.starts_with(&[0xff; 6]) {
            self.broadcast_count += 1;
        } else if frame.first().is_some_and(|byte| byte & 1 != 0) {
            self.multicast_count += 1;
        }
    }

    fn add_to(&self, registers: &mut Registers) {
        for (at, count) in [
            (counter::SENT, self.frames_count),
            (counter::SENT_GOOD, self.frames_count),
            (counter::SENT_BROADCAST, self.broadcast_count),
            (counter::SENT_MULTICAST, self.multicast_count),
            (counter::SEGMENTED, self.segmented_count),
        ] {
            registers.count(at, count);
        }
        for (at, count) in (counter::SENT_SIZES..).step_by(4).zip(self.sizes) {
            registers.count(at, count);
        }
        registers.count_wide(counter::SENT_BYTES, self.bytes);
        registers.count_wide(counter::SENT_GOOD_BYTES, self.bytes);
    }
}

/// The end that the network holds.
struct Receiver {
    shared: Arc<Shared>,
    worker: Arc<Worker>,
}

impl FrameSink for Receiver {
    fn receive(&self, frame: &[u8]) -> bool {
        let taken = self.shared.deliver(frame, false);
        let early = self.shared.update_interrupt(&mut lock(&self.shared.state));
        if early {
            self.worker.kick();
        }
        taken
    }
}

impl E1000 {
    /// A card with the address `mac` that is plugged into `backend`. Its rings are in `memory`, it interrupts by `interrupts`, and `clock` is the machine's.
    ///
    /// It is the bus that says when the card may work: not before the driver has made it a bus master.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(
        backend: Arc<dyn NetworkBackend>,
        mac: [u8; 6],
        memory: Arc<GuestMemory>,
        interrupts: Interrupts,
        clock: Arc<Clock>,
        crew: &Crew,
    ) -> io::Result<Self> {
        let state = State {
            registers: Registers::new(mac),
            // Bus mastering is off until the driver asks for it.
            paused_count: 1,
            starved: false,
            raised: false,
            next_raise_ns: 0,
            accepted: Accepted::default(),
        };
        let shared = Arc::new(Shared {
            memory,
            backend,
            clock,
            interrupts,
            state: Mutex::new(state),
            transmit: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let worker = Arc::new(Worker::hire(crew, "e1000", move |turn| theirs.work(turn))?);
        worker.pause();
        let receiver = Receiver { shared: Arc::clone(&shared), worker: Arc::clone(&worker) };
        shared.backend.attach(Arc::new(receiver));
        Ok(Self { shared, worker })
    }

    /// Plugs the cable in or out.
    pub fn set_link(&self, up: bool) {
        self.with(|state| state.registers.set_cable(up));
    }

    /// Waits until every frame that the driver has told of is sent; not at all while a pause holds.
    pub fn drain(&self) {
        self.worker.drain();
    }

    /// Does `action` with the state, and what follows for the interrupt.
    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.shared.state);
        let result = action(&mut state);
        if self.shared.update_interrupt(&mut state) {
            self.worker.kick();
        }
        result
    }

    fn read_register(&self, at: u32) -> u32 {
        self.with(|state| state.registers.read(at))
    }

    fn write_register(&self, at: u32, value: u32) {
        match self.with(|state| state.registers.write(at, value)) {
            Effect::Nothing => {}
            Effect::Transmit => self.worker.kick(),
            Effect::Receive => self.tell_room(),
            Effect::Reset => self.reset_registers(),
        }
    }

    /// If the network waits to hear of room, tells it that there may be some.
    fn tell_room(&self) {
        let tell = {
            let mut state = lock(&self.shared.state);
            state.paused_count == 0 && std::mem::take(&mut state.starved)
        };
        if tell {
            self.shared.backend.ready();
        }
    }

    fn reset_registers(&self) {
        self.worker.pause();
        lock(&self.shared.transmit).reset();
        self.with(|state| state.registers.reset());
        self.worker.resume();
        // What waited is dropped now, since nothing listens.
        self.tell_room();
    }

    fn stand_still(&self) {
        lock(&self.shared.state).paused_count += 1;
        self.worker.pause();
    }

    fn go_on(&self) {
        self.worker.resume();
        {
            let mut state = lock(&self.shared.state);
            state.paused_count = state.paused_count.saturating_sub(1);
        }
        self.tell_room();
    }
}

impl fmt::Debug for E1000 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E1000").finish_non_exhaustive()
    }
}

fn low_word(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

impl PciDevice for E1000 {
    fn layout(&self) -> Layout {
        Layout {
            identity: Identity {
                vendor: VENDOR,
                device: DEVICE,
                revision: 2,
                class: 0x02_00_00,
                subsystem_vendor: VENDOR,
                subsystem: SUBSYSTEM,
            },
            bars: vec![
                Bar { number: MEMORY_BAR, kind: BarKind::Memory32, size: MEMORY_SIZE },
                Bar { number: IO_BAR, kind: BarKind::Io, size: IO_SIZE },
            ],
            capabilities: vec![Capability::Msi],
            has_interrupt: true,
            ..Layout::default()
        }
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        // The tails of the rings carry a value, so the card has to see them.
        Vec::new()
    }

    fn read(&self, bar: u8, offset: u64, width: Width) -> u64 {
        if bar == IO_BAR {
            let at = lock(&self.shared.state).registers.io_address;
            return match (offset, width) {
                (0, Width::Word) => at.into(),
                (4, Width::Word) => self.read_register(at & !3).into(),
                _ => 0,
            };
        }
        let at = low_word(offset) & !3;
        match width {
            Width::Double => u64::from(self.read_register(at)) | (u64::from(self.read_register(at + 4)) << 32),
            _ => width.truncate(u64::from(self.read_register(at)) >> (8 * (offset & 3))),
        }
    }

    fn write(&self, bar: u8, offset: u64, width: Width, value: u64) {
        match (bar, offset, width) {
            (IO_BAR, 0, Width::Word) => lock(&self.shared.state).registers.io_address = low_word(value),
            (IO_BAR, 4, Width::Word) => {
                let at = lock(&self.shared.state).registers.io_address;
                self.write_register(at & !3, low_word(value));
            }
            (MEMORY_BAR, _, Width::Word) => self.write_register(low_word(offset), low_word(value)),
            (MEMORY_BAR, _, Width::Double) => {
                self.write_register(low_word(offset), low_word(value));
                self.write_register(low_word(offset) + 4, low_word(value >> 32));
            }
            // Registers are written whole.
            _ => {}
        }
    }

    fn ring(&self, _number: u16) {}

    /// A card that is no bus master stands still.
    fn set_bus_master(&self, on: bool) {
        if on { self.go_on() } else { self.stand_still() }
    }

    fn reset(&self) {
        self.worker.pause();
        lock(&self.shared.transmit).reset();
        self.with(|state| {
            let mac = state.registers.eeprom.mac();
            let cable = state.registers.phy.cable;
            state.registers = Registers::new(mac);
            state.registers.phy.cable = cable;
            state.next_raise_ns = 0;
        });
        self.worker.resume();
    }

    fn pause(&self) {
        self.stand_still();
    }

    fn resume(&self) {
        self.go_on();
    }

    fn save(&self) -> Result<device::State, StateError> {
        let transmit = lock(&self.shared.transmit).clone();
        let state = lock(&self.shared.state);
        let (registers, raised, next_raise_ns) = (state.registers.clone(), state.raised, state.next_raise_ns);
        Ok(device::save(&Saved { registers, transmit, raised, next_raise_ns }))
    }

    fn restore(&self, state: &device::State) -> Result<(), StateError> {
        let saved: Saved = device::read(state)?;
        device::ensure(saved.registers.is_possible(), "a network card has registers that it cannot have")?;
        *lock(&self.shared.transmit) = saved.transmit;
        let mut state = lock(&self.shared.state);
        (state.registers, state.raised, state.next_raise_ns) = (saved.registers, saved.raised, saved.next_raise_ns);
        // It looks for itself what there is to do.
        self.worker.kick();
        Ok(())
    }
}
