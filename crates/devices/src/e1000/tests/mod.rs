//! The card as a driver sees it: registers, rings, and frames on the cable.

mod hostile;

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

use machine::bus::BusDevice;
use machine::interrupt::{InterruptLine, InterruptSink};

use super::receive::status;
use super::*;
use crate::BoardDevice;
use crate::checksum;
use crate::pci::root::{Ecam, WindowPort};
use crate::pci::{Root, RootConfig, Space, Window};

const BASE: u64 = 0x8000_0000;
const WINDOW: u64 = 0x4000_0000;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const TX_RING: u64 = BASE;
const RX_RING: u64 = BASE + 0x1000;
/// Buffer `n` of the receive ring is here plus 16 KiB times `n`.
const RX_BUFFERS: u64 = BASE + 0x10_0000;
const DATA: u64 = BASE + 0x8_0000;
const RING_SIZE: u32 = 32;

#[derive(Default)]
struct Cable {
    sent: Mutex<Vec<Vec<u8>>>,
    sink: OnceLock<Arc<dyn FrameSink>>,
    ready_count: AtomicU32,
}

impl NetworkBackend for Cable {
    fn send(&self, frame: &[u8]) {
        lock(&self.sent).push(frame.into());
    }
    fn mtu(&self) -> u16 {
        MTU
    }
    fn attach(&self, sink: Arc<dyn FrameSink>) {
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

/// A card on a bus, in memory, on a cable, with a driver.
struct Machine {
    memory: Arc<GuestMemory>,
    cable: Arc<Cable>,
    clock: Arc<Clock>,
    card: Arc<E1000>,
    line: InterruptLine,
    ecam: Ecam,
    window: WindowPort,
    ports: WindowPort,
    tail: u32,
}

impl Machine {
    /// A card that nobody has touched, but for its place and bus mastering.
    fn new() -> Self {
        let machine = Self::plugged(Arc::new(GuestMemory::new(GuestPhysical(BASE), 16 << 20).unwrap()));
        machine.ecam.write((1 << 15) + 4, Width::Half, 7);
        machine
    }

    /// A card as it is after power-on.
    fn plugged(memory: Arc<GuestMemory>) -> Self {
        let cable = Arc::new(Cable::default());
        let clock = Arc::new(Clock::starting_at(0));
        clock.advance_to(1 << 40);
        let nowhere: Arc<dyn InterruptSink> = Arc::new(Nowhere);
        let lines = [0, 1, 2, 3].map(|number| InterruptLine::new(Arc::clone(&nowhere), number));
        let line = lines[1].clone();
        let windows = vec![
            Window { space: Space::Memory, base: WINDOW, size: 0x10_0000 },
            Window { space: Space::Io, base: 0, size: 0x1000 },
        ];
        let mut root = Root::new(RootConfig { windows, lines, messages: None, doorbells: None, assign: true });
        let slot = root.free_slot().unwrap();
        let backend = Arc::clone(&cable) as Arc<dyn NetworkBackend>;
        let interrupts = slot.interrupts.clone();
        let card = E1000::new(backend, MAC, Arc::clone(&memory), interrupts, Arc::clone(&clock), &Crew::Threads);
        let card = Arc::new(card.unwrap());
        root.insert(slot, Arc::clone(&card) as _);
        let root = Arc::new(root);
        root.power_on();
        let [window, ports] = [0, 1].map(|index| WindowPort::new(&root, index).unwrap());
        let ecam = Ecam(root);
        Self { memory, cable, clock, card, line, ecam, window, ports, tail: 0 }
    }

    /// A card whose driver has set up both rings, in the state that `control` of RCTL says.
    fn up(control: u32) -> Self {
        let machine = Self::new();
        machine.write(offset::CTRL, ctrl::SET_LINK_UP);
        for (base, ring) in [(offset::TDBAL, TX_RING), (offset::RDBAL, RX_RING)] {
            machine.write(base, u32::try_from(ring).unwrap());
            machine.write(base + 4, 0);
            machine.write(base + 8, RING_SIZE * 16);
        }
        for number in 0..RING_SIZE {
            let at = RX_RING + 16 * u64::from(number);
            machine.memory.store(GuestPhysical(at), RX_BUFFERS + 0x4000 * u64::from(number)).unwrap();
        }
        machine.write(offset::RDT, RING_SIZE - 1);
        machine.write(offset::TCTL, tctl::ENABLE | tctl::PAD);
        machine.write(offset::RCTL, control | rctl::ENABLE);
        machine.write(offset::IMS, 0xffff_ffff);
        machine.read(offset::ICR);
        machine
    }

    fn read(&self, at: u32) -> u32 {
        u32::try_from(self.window.read(at.into(), Width::Word)).unwrap()
    }
    fn write(&self, at: u32, value: u32) {
        self.window.write(at.into(), Width::Word, value.into());
    }
    fn sent(&self) -> Vec<Vec<u8>> {
        self.card.drain();
        std::mem::take(&mut lock(&self.cable.sent))
    }
    fn give(&self, frame: &[u8]) -> bool {
        self.cable.sink.get().unwrap().receive(frame)
    }
    /// Offers a descriptor of these words.
    fn offer(&mut self, words: [u64; 2]) -> u64 {
        let at = TX_RING + 16 * u64::from(self.tail);
        self.memory.store(GuestPhysical(at), words[0]).unwrap();
        self.memory.store(GuestPhysical(at + 8), words[1]).unwrap();
        self.tail = (self.tail + 1) % RING_SIZE;
        at
    }
    fn go(&self) {
        self.write(offset::TDT, self.tail);
        self.card.drain();
    }
    /// Receive descriptor `number`: length, checksum, status, tag, and what is in its buffer.
    fn received(&self, number: u64) -> (u16, u16, u8, u16, Vec<u8>) {
        let word: u64 = self.memory.load(GuestPhysical(RX_RING + 16 * number + 8)).unwrap();
        let half = |shift: u32| u16::try_from(word >> shift & 0xffff).unwrap();
        let mut bytes = vec![0; usize::from(half(0))];
        self.memory.read(GuestPhysical(RX_BUFFERS + 0x4000 * number), &mut bytes).unwrap();
        (half(0), half(16), u8::try_from(word >> 32 & 0xff).unwrap(), half(48), bytes)
    }
}

/// A frame of `bytes` bytes to `to`.
fn frame(to: [u8; 6], bytes: usize) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend((14..bytes).map(|n| u8::try_from(n % 251).unwrap()));
    frame
}

#[test]
fn identity_and_defaults() {
    let machine = Machine::new();
    assert_eq!(machine.ecam.read(1 << 15, Width::Word), 0x100e_8086);
    assert_eq!(machine.ecam.read((1 << 15) + 8, Width::Word), 0x0200_0002);
    assert_eq!((machine.read(0x5400), machine.read(0x5404)), (0x1200_5452, 0x8000_5634), "its own address is matched");
    assert_eq!(machine.read(offset::STATUS), 0x681, "no link before the driver wants one");
    machine.write(offset::CTRL, ctrl::SET_LINK_UP);
    assert_eq!(machine.read(offset::STATUS), 0x683);
    assert_eq!(machine.read(offset::PBA), 0x0010_0030);
    assert_eq!(machine.window.read(offset::RA.into(), Width::Double), 0x8000_5634_1200_5452);
    assert_eq!(machine.window.read(u64::from(offset::RA) + 2, Width::Half), 0x1200);
    // What only holds, holds what exists of it.
    for (at, expected) in
        [(0x0410, 0x3fff_ffff), (0x2808, 0xf_ff80), (0x2800, 0xffff_fff0), (0x5204, u32::MAX), (0x9000, 0)]
    {
        machine.write(at, u32::MAX);
        assert_eq!(machine.read(at), expected, "{at:#x}");
    }
    machine.write(0x1_fffc, 0x1234_5678);
    assert_eq!(machine.read(0x1_fffc), 0x1234_5678, "the packet buffer's memory");
}

#[test]
fn registers_by_number() {
    let machine = Machine::new();
    let base = machine.ecam.read((1 << 15) + 0x18, Width::Word) & !1;
    machine.ports.write(base, Width::Word, offset::RA.into());
    assert_eq!(machine.ports.read(base, Width::Word), u64::from(offset::RA));
    assert_eq!(machine.ports.read(base + 4, Width::Word), 0x1200_5452);
    machine.write(0x3820, 8);
    // Linux resets the card this way.
    machine.ports.write(base, Width::Word, offset::CTRL.into());
    machine.ports.write(base + 4, Width::Word, 1 << 26);
    assert_eq!(machine.read(0x3820), 0);
    assert_eq!(machine.read(offset::CTRL), 0x201);
    assert_eq!(machine.read(0x5400), 0x1200_5452);
}

/// Reads a word of the EEPROM by its four wires, as drivers do.
fn read_by_wires(machine: &Machine, address: u32) -> u16 {
    const SELECT: u32 = 2;
    let clock = |data: u32| {
        machine.write(offset::EECD, SELECT | data);
        machine.write(offset::EECD, SELECT | data | 1);
        let out = machine.read(offset::EECD) >> 3 & 1;
        machine.write(offset::EECD, SELECT | data);
        out
    };
    machine.write(offset::EECD, SELECT);
    for place in (0..9).rev() {
        clock(((0b110 << 6 | address) >> place & 1) << 2);
    }
    let word = (0..16).fold(0, |word, _| word << 1 | clock(0));
    machine.write(offset::EECD, 0);
    u16::try_from(word).unwrap()
}

#[test]
fn the_eeprom_is_read_by_wire_and_by_register() {
    let machine = Machine::new();
    machine.write(offset::EECD, 1 << 6);
    assert_eq!(machine.read(offset::EECD) & 0x1c0, 0x1c0, "present and granted");
    let mut sum = 0u16;
    for address in 0..64 {
        let word = read_by_wires(&machine, address);
        machine.write(offset::EERD, 1 | address << 8);
        assert_eq!(machine.read(offset::EERD), u32::from(word) << 16 | address << 8 | 0x10);
        sum = sum.wrapping_add(word);
    }
    assert_eq!(sum, 0xbaba);
    assert_eq!([0, 1, 2].map(|address| read_by_wires(&machine, address)), [0x5452, 0x1200, 0x5634]);
    // An attempt to write is answered and changes nothing.
    machine.write(offset::EECD, 2);
    for bit in [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1] {
        for clock in [0, 1, 0] {
            machine.write(offset::EECD, 2 | bit << 2 | clock);
        }
    }
    machine.write(offset::EECD, 0);
    assert_eq!(read_by_wires(&machine, 0), 0x5452);
}

#[test]
fn the_transceiver_has_a_link() {
    let machine = Machine::new();
    machine.write(offset::CTRL, ctrl::SET_LINK_UP);
    let access = |operation: u32, phy: u32, number: u32, data: u32| {
        machine.write(offset::MDIC, operation << 26 | phy << 21 | number << 16 | data);
        machine.read(offset::MDIC)
    };
    assert_eq!(access(2, 1, 2, 0) & 0xffff, 0x0141);
    assert_eq!(access(2, 1, 3, 0) & 0xffff, 0x0c20);
    assert_eq!(access(2, 1, 1, 0), 2 << 26 | 1 << 21 | 1 << 16 | 1 << 28 | 0x796d);
    assert_eq!(access(2, 1, 17, 0) & 0xffff, 0xac00, "1000 Mb/s, full duplex");
    assert_eq!(access(2, 2, 2, 0) & (3 << 29 | 1 << 28), 1 << 30 | 1 << 28, "nobody there");
    machine.read(offset::ICR);
    access(1, 1, 0, 0x1340);
    assert_eq!(machine.read(offset::ICR), cause::LINK, "negotiated anew");
    assert_eq!(access(2, 1, 0, 0) & 0xffff, 0x1140);
    machine.write(offset::MDIC, 1 << 29 | 2 << 26 | 1 << 21);
    assert_eq!(machine.read(offset::ICR), cause::MDIO_DONE);
    machine.card.set_link(false);
    assert_eq!((machine.read(offset::ICR), machine.read(offset::STATUS) & 2), (cause::LINK, 0));
    assert_eq!(access(2, 1, 1, 0) & 0x24, 0);
    machine.card.set_link(true);
    assert_eq!((machine.read(offset::ICR), machine.read(offset::STATUS) & 2), (cause::LINK, 2));
}

#[test]
fn interrupts_are_masked_cleared_and_throttled() {
    let machine = Machine::new();
    machine.write(offset::ICS, 0x14);
    assert!(!machine.line.is_raised(), "masked");
    machine.write(offset::IMS, cause::LINK);
    assert!(machine.line.is_raised());
    machine.write(offset::IMC, cause::LINK);
    assert!(!machine.line.is_raised());
    assert_eq!((machine.read(offset::IMS), machine.read(offset::ICR), machine.read(offset::ICR)), (0, 0x14, 0));
    machine.write(offset::ICS, 0x14);
    machine.write(offset::ICR, 4);
    assert_eq!(machine.read(offset::ICR), 0x10, "a one clears");
    // 1000 * 256 ns between interrupts.
    machine.write(offset::ITR, 1000);
    machine.write(offset::IMS, cause::LINK);
    machine.write(offset::ICS, cause::LINK);
    assert!(machine.line.is_raised());
    machine.read(offset::ICR);
    machine.write(offset::ICS, cause::LINK);
    assert!(!machine.line.is_raised(), "too early");
    machine.clock.advance_to(machine.clock.now_ns() + 256_000);
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !machine.line.is_raised() {
        assert!(std::time::Instant::now() < end, "due, and the thread sees to it");
        std::thread::yield_now();
    }
}

#[test]
fn legacy_descriptors_send() {
    let mut machine = Machine::up(0);
    let frame = frame([0xff; 6], 100);
    machine.memory.write(GuestPhysical(DATA), &frame).unwrap();
    // Two pieces, with a checksum of all from byte 14, at 20.
    machine.offer([DATA, 0x2a | 0x0400_0000 | 20 << 16 | 14 << 40]);
    let last = machine.offer([DATA + 42, 58 | 0x0900_0000]);
    machine.go();
    let mut expected = frame.clone();
    let sum = !checksum::fold(checksum::sum(&frame[14..]));
    expected[20..22].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(machine.sent(), [expected]);
    assert_eq!(machine.memory.load::<u8>(GuestPhysical(last + 12)).unwrap(), 1, "done");
    assert_eq!(machine.read(offset::TDH), 2);
    assert!(machine.line.is_raised());
    assert_eq!(machine.read(offset::ICR), cause::TRANSMIT_DONE | cause::TRANSMIT_EMPTY);
    assert_eq!([0x40d4, 0x4080, 0x40f4, 0x40dc, 0x4090].map(|at| machine.read(at)), [1, 1, 1, 1, 104]);
    assert_eq!([0x4090, 0x4094, 0x4090].map(|at| machine.read(at)), [104, 0, 0], "cleared with its upper half");
    // A short frame is made longer; a tag is put in.
    machine.write(offset::CTRL, ctrl::SET_LINK_UP | ctrl::VLAN);
    machine.write(offset::VET, 0x8100);
    machine.offer([DATA, 20 | 0x4100_0000 | 0x0123 << 48]);
    machine.go();
    let sent = machine.sent();
    assert_eq!((sent[0].len(), &sent[0][10..18]), (60, &[0, 1, 0x81, 0, 1, 0x23, 0x88, 0xb5][..]));
}

/// An Ethernet, IPv4 and TCP header of 54 bytes, with its length left out of the pseudo-header's sum, and `payload`.
fn tcp(payload: &[u8], with_length: bool) -> Vec<u8> {
    let mut frame = frame([0x52, 0x55, 10, 0, 2, 2], 14);
    frame[12..14].copy_from_slice(&[8, 0]);
    let total = u16::try_from(40 + payload.len()).unwrap_or(0);
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    let addresses = checksum::sum(&frame[26..34]) + 6 + if with_length { 20 + payload.len() as u64 } else { 0 };
    frame.extend([0x04, 0xd2, 0, 80, 0, 0, 0x10, 0, 0, 0, 0, 1, 0x50, 0x19, 0xff, 0xff]);
    frame.extend(checksum::fold(addresses).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// The first word and the second of a context for [`tcp`], without command, header length and segment size.
const CONTEXT: u64 = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40;

#[test]
fn checksums_are_completed() {
    let mut machine = Machine::up(0);
    let payload: Vec<u8> = (0..=200).collect();
    machine.memory.write(GuestPhysical(DATA), &tcp(&payload, true)).unwrap();
    machine.offer([CONTEXT, 0x2300_0000]);
    machine.offer([DATA, 255 | 1 << 20 | 0x2900_0000 | 3 << 40]);
    machine.go();
    let sent = machine.sent();
    assert_eq!(sent.len(), 1);
    assert!(checksum::is_valid(&sent[0]) && checksum::is_valid_v4_header(&sent[0]));
    assert_eq!(&sent[0][54..], payload);
}

#[test]
fn a_large_packet_is_cut_into_segments() {
    let mut machine = Machine::up(0);
    let payload: Vec<u8> = (0..10_000u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
    machine.memory.write(GuestPhysical(DATA), &tcp(&payload, false)).unwrap();
    // TCP, IPv4, segments of 1460 behind 54 bytes; in two pieces.
    machine.offer([CONTEXT, 10_000 | 0x2700_0000 | 54 << 40 | 1460 << 48]);
    machine.offer([DATA, 54 | 1 << 20 | 0x2400_0000 | 3 << 40]);
    let last = machine.offer([DATA + 54, 10_000 | 1 << 20 | 0x2d00_0000]);
    machine.go();
    let sent: VecDeque<_> = machine.sent().into();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1514, 1514, 1514, 1514, 1514, 1514, 1294]);
    let mut bytes: Vec<u8> = Vec::new();
    for (number, frame) in (0u16..).zip(&sent) {
        assert!(checksum::is_valid(frame) && checksum::is_valid_v4_header(frame), "segment {number}");
        assert_eq!(u16::from_be_bytes([frame[18], frame[19]]), 0x1234 + number, "identification");
        assert_eq!(u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]), 0x1000 + u32::from(number) * 1460);
        assert_eq!(frame[47], if number == 6 { 0x19 } else { 0x10 }, "only the last has FIN and PSH");
        bytes.extend(&frame[54..]);
    }
    assert_eq!(bytes, payload);
    assert_eq!(machine.memory.load::<u8>(GuestPhysical(last + 12)).unwrap(), 1);
    assert_eq!((machine.read(0x40f8), machine.read(0x40d4)), (1, 7));
}

#[test]
fn packets_of_any_length_end() {
    let mut machine = Machine::up(0);
    // Longer than any frame may be: lost, and the next one is sent.
    for _ in 0..20 {
        machine.offer([DATA, 1000]);
    }
    machine.offer([DATA, 1000 | 0x0900_0000]);
    machine.offer([DATA, 64 | 0x0900_0000]);
    machine.go();
    assert_eq!(machine.sent().iter().map(Vec::len).collect::<Vec<_>>(), [64]);
    assert_eq!(machine.read(offset::TDH), 22);
}

#[test]
fn frames_are_filtered() {
    let group = [0x33, 0x33, 0, 0, 0x12, 0x34];
    let other = [0x52, 0x54, 0, 9, 9, 9];
    let takes = |control: u32, set: &dyn Fn(&Machine)| {
        let machine = Machine::up(control);
        set(&machine);
        [MAC, [0xff; 6], group, other].map(|to| {
            let before = machine.read(offset::RDH);
            assert!(machine.give(&frame(to, 100)), "taken or dropped, not refused");
            machine.read(offset::RDH) != before
        })
    };
    assert_eq!(takes(0, &|_| {}), [true, false, false, false]);
    assert_eq!(takes(rctl::BROADCAST, &|_| {}), [true, true, false, false]);
    assert_eq!(takes(rctl::MULTICAST_ALL, &|_| {}), [true, true, true, false]);
    assert_eq!(takes(rctl::UNICAST_ALL, &|_| {}), [true, false, false, true]);
    // The hash is of bits 47 to 36 of the address: 0x341.
    assert_eq!(takes(0, &|m| m.write(0x5200 + 4 * (0x341 / 32), 1 << (0x341 % 32))), [true, false, true, false]);
    assert_eq!(takes(3 << 12, &|m| m.write(0x5200 + 4 * (0x412 / 32), 1 << (0x412 % 32))), [true, false, true, false]);
    let second = |m: &Machine| {
        m.write(0x5408, 0x0900_5452);
        m.write(0x540c, 0x8000_0909);
    };
    assert_eq!(takes(0, &second), [true, false, false, true]);
    assert_eq!(takes(0, &|m| m.write(offset::RCTL, 0)), [false; 4], "nobody listens");
    assert_eq!(takes(0, &|m| m.card.set_link(false)), [false; 4]);
}

#[test]
fn received_frames_are_described() {
    let machine = Machine::up(rctl::BROADCAST | rctl::UNICAST_ALL);
    assert!(machine.give(&frame(MAC, 42)));
    let (length, _, flags, _, bytes) = machine.received(0);
    assert_eq!((length, flags), (64, status::DONE | status::END_OF_PACKET | status::IGNORE_CHECKSUM));
    assert_eq!(bytes[..42], frame(MAC, 42));
    assert_eq!(bytes[60..], crc32fast::hash(&bytes[..60]).to_le_bytes());
    assert!(machine.line.is_raised());
    assert_eq!(machine.read(offset::ICR), cause::RECEIVED);
    assert_eq!([0x40d0, 0x4074, 0x405c, 0x4088].map(|at| machine.read(at)), [1, 1, 1, 64]);

    machine.write(offset::RXCSUM, 0x300 | 14);
    machine.write(offset::RCTL, rctl::ENABLE | rctl::UNICAST_ALL | rctl::STRIP_CRC);
    let (mut datagram, _) = checksum::tests::udp(&[7; 100], false);
    datagram[..6].copy_from_slice(&[0x52, 0, 0, 0, 0, 9]);
    assert!(checksum::complete(&mut datagram, 34, 6));
    let sum = !checksum::fold(checksum::sum(&datagram[14..34]));
    datagram[24..26].copy_from_slice(&sum.to_be_bytes());
    assert!(machine.give(&datagram));
    let (length, sum, flags, _, bytes) = machine.received(1);
    assert_eq!(usize::from(length), datagram.len());
    let good = status::IP_CHECKSUM | status::TRANSPORT_CHECKSUM | status::INEXACT;
    assert_eq!(flags, status::DONE | status::END_OF_PACKET | good);
    assert_eq!((sum, bytes), (checksum::fold(checksum::sum(&datagram[14..])), datagram.clone()));
    datagram[60] ^= 1;
    assert!(machine.give(&datagram));
    assert_eq!(machine.received(2).2 & status::TRANSPORT_CHECKSUM, 0);
}

#[test]
fn tags_are_filtered_and_taken_out() {
    let machine = Machine::up(rctl::VLAN_FILTER);
    machine.write(offset::CTRL, ctrl::SET_LINK_UP | ctrl::VLAN);
    machine.write(offset::VET, 0x8100);
    machine.write(offset::VFTA + 4, 1 << 3);
    let mut tagged = frame(MAC, 100);
    tagged.splice(12..12, [0x81, 0, 0x20, 35]);
    assert!(machine.give(&tagged));
    let (length, _, flags, tag, bytes) = machine.received(0);
    assert_eq!((length, flags & status::VLAN, tag), (104, status::VLAN, 0x2023));
    assert_eq!(bytes[..100], frame(MAC, 100));
    tagged[15] = 36;
    assert!(machine.give(&tagged));
    assert_eq!(machine.read(offset::RDH), 1, "another network's");
}

#[test]
fn long_frames_take_several_buffers() {
    let machine = Machine::up(rctl::LONG | 2 << 16);
    assert!(machine.give(&frame(MAC, 1400)));
    let pieces: Vec<_> = (0..3).map(|number| machine.received(number)).collect();
    assert_eq!(pieces.iter().map(|piece| piece.0).collect::<Vec<_>>(), [512, 512, 380]);
    assert_eq!(pieces.iter().map(|piece| piece.2 & status::END_OF_PACKET).collect::<Vec<_>>(), [0, 0, 2]);
    let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.4).collect();
    assert_eq!(bytes[..1400], frame(MAC, 1400));
    assert!(machine.give(&frame(MAC, 9000)));
    assert_eq!(machine.read(offset::RDH), 3 + 18);
    machine.write(offset::RCTL, rctl::ENABLE);
    assert!(machine.give(&frame(MAC, 1519)));
    assert_eq!((machine.read(offset::RDH), machine.read(0x40ac)), (21, 1), "too long, and counted");
}

#[test]
fn a_full_ring_holds_the_network_up() {
    let machine = Machine::up(0);
    let ready = || machine.cable.ready_count.swap(0, Ordering::SeqCst);
    ready();
    let mut low = Vec::new();
    for number in 0..RING_SIZE - 1 {
        assert!(machine.give(&frame(MAC, 100)));
        if machine.read(offset::ICR) & cause::RECEIVE_LOW != 0 {
            low.push(number);
        }
    }
    assert_eq!(low, [15], "below half");
    assert!(!machine.give(&frame(MAC, 100)));
    assert_eq!(ready(), 0);
    machine.write(offset::RDT, 3);
    assert_eq!(ready(), 1);
    assert!(machine.give(&frame(MAC, 100)));
    // Not a bus master: nothing is touched.
    machine.ecam.write((1 << 15) + 4, Width::Half, 3);
    assert!(!machine.give(&frame(MAC, 100)));
    machine.ecam.write((1 << 15) + 4, Width::Half, 7);
    assert_eq!(ready(), 1);
    machine.ecam.0.power_on();
    assert_eq!(machine.read(offset::RDT), 0);
}

#[test]
fn what_is_sent_can_come_back() {
    let mut machine = Machine::up(1 << 6 | rctl::UNICAST_ALL);
    machine.memory.write(GuestPhysical(DATA), &frame([2; 6], 80)).unwrap();
    machine.offer([DATA, 80 | 0x0900_0000]);
    machine.go();
    assert!(machine.sent().is_empty());
    assert_eq!(machine.received(0).4[..80], frame([2; 6], 80));
    assert!(machine.give(&frame(MAC, 80)), "the cable is not heard");
    assert_eq!(machine.read(offset::RDH), 1);
}

#[test]
fn a_card_goes_on_on_another_bus() {
    let mut machine = Machine::up(rctl::BROADCAST);
    machine.memory.write(GuestPhysical(DATA), &frame([0xff; 6], 100)).unwrap();
    for round in 0..5 {
        // The first half of a packet before, the second behind.
        machine.offer([DATA, 0x2a]);
        machine.go();
        assert!(machine.give(&frame([0xff; 6], 200)));
        machine.ecam.pause();
        let text = machine.ecam.save().unwrap().to_string();
        let mut new = Machine::plugged(Arc::clone(&machine.memory));
        new.ecam.pause();
        new.ecam.restore(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(new.ecam.save().unwrap().to_string(), text);
        new.ecam.resume();
        new.tail = machine.tail;
        machine = new;
        assert!(machine.line.is_raised());
        machine.read(offset::ICR);
        machine.offer([DATA + 42, 58 | 0x0900_0000]);
        machine.go();
        assert_eq!(machine.sent(), [frame([0xff; 6], 100)], "round {round}");
        assert!(machine.give(&frame([0xff; 6], 300)));
        assert_eq!(machine.read(offset::RDH), 2 * round + 2);
        assert_eq!(machine.received(u64::from(2 * round + 1)).0, 304);
    }
    machine.ecam.pause();
    let good = machine.ecam.save().unwrap();
    for (at, value) in
        [("registers/words", 1), ("registers/eeprom/bits_count", 99), ("registers/eeprom/output_count", 17)]
    {
        let mut wrong = good.clone();
        let place = wrong.pointer_mut(&format!("/functions/00:01.0/device/{at}")).unwrap();
        *place = if place.is_array() { vec![value].into() } else { value.into() };
        let new = Machine::plugged(Arc::clone(&machine.memory));
        new.ecam.pause();
        assert!(new.ecam.restore(&wrong).is_err(), "{at}");
    }
}
