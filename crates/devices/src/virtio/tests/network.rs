use super::super::driver::{Driver, readable, wait_for, writable};
use super::super::{feature as common, status};
use super::*;
use crate::BoardDevice;
use crate::checksum::tests::udp;
use machine::bus::{BusDevice, Width};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const MTU: u16 = 65_520;

#[derive(Default)]
struct Cable {
    offloads: Offloads,
    sent: Mutex<Vec<Vec<u8>>>,
    sink: OnceLock<Arc<dyn FrameSink>>,
    ready_count: AtomicU32,
}

impl Cable {
    fn sink(&self) -> &Arc<dyn FrameSink> {
        self.sink.get().unwrap()
    }
    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.sent))
    }
    fn ready_count(&self) -> u32 {
        self.ready_count.swap(0, Ordering::SeqCst)
    }
}

impl NetworkBackend for Cable {
    fn send(&self, frame: &[u8]) {
        lock(&self.sent).push(frame.into());
    }
    fn offloads(&self) -> Offloads {
        self.offloads
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

struct Machine {
    cable: Arc<Cable>,
    network: Arc<Network>,
    driver: Driver,
    data: u64,
}

const RX: usize = RECEIVE as usize;
const TX: usize = TRANSMIT as usize;

fn machine(features: u64) -> Machine {
    machine_with(features, 1, Offloads::default())
}

const ALL: Offloads = Offloads { checksum: true, segment_v4: true, segment_v6: true };

fn machine_with(features: u64, pairs_count: u16, offloads: Offloads) -> Machine {
    let cable = Arc::new(Cable { offloads, ..Cable::default() });
    let backend = Arc::clone(&cable) as Arc<dyn NetworkBackend>;
    let network = Arc::new(Network::new(backend, MAC, pairs_count, &crate::worker::Crew::Threads).unwrap());
    let mut driver = Driver::start(Arc::clone(&network) as Arc<dyn VirtioDevice>, features);
    network.drain();
    let data = driver.allocate(4 << 20);
    Machine { cable, network, driver, data }
}

impl Machine {
    /// Sends one frame behind `header` and waits until the guest has its buffer back.
    fn send(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) {
        self.driver.put(self.data, &header);
        self.driver.put(self.data + 64, frame);
        let length = u32::try_from(frame.len()).unwrap();
        self.driver.rings[TX].add(&[readable(self.data, 12), readable(self.data + 64, length)]).unwrap();
        self.driver.kick(TX);
        self.driver.wait_used(TX);
    }

    /// Gives the device `count` receive buffers of `length` bytes each, from number `first` on.
    fn give(&mut self, first: u64, count: u64, length: u32) {
        for number in first..first + count {
            let at = self.data + (1 << 20) + number * 4096;
            self.driver.rings[RX].add(&[writable(at, length)]).unwrap();
        }
        self.driver.kick(RX);
    }

    fn received(&self, number: u64, length: usize) -> Vec<u8> {
        self.driver.get(self.data + (1 << 20) + number * 4096, length)
    }
}

#[test]
fn configuration_and_link() {
    let machine = machine(feature::MAC | feature::STATUS | feature::MTU);
    let read = |at: u64, width| machine.driver.transport.read(0x100 + at, width);
    let mac: Vec<_> = (0..6).map(|i| u8::try_from(read(i, Width::Byte)).unwrap()).collect();
    assert_eq!(mac, MAC);
    assert_eq!((read(6, Width::Half), read(8, Width::Half), read(10, Width::Half)), (1, 1, MTU.into()));
    machine.network.set_link(false);
    assert_eq!((read(6, Width::Half), machine.driver.acknowledge()), (0, 2));
    machine.network.set_link(false);
    assert_eq!(machine.driver.acknowledge(), 0, "nothing has changed");
}

#[test]
fn frames_leave() {
    let mut machine = machine(0);
    machine.send([0; 12], &[7; 60]);
    let large: Vec<u8> = (0..65_534u32).map(|i| i.to_le_bytes()[1]).collect();
    machine.send([0; 12], &large);
    assert_eq!(machine.cable.sent(), [vec![7; 60], large]);
}

#[test]
fn checksums_are_completed() {
    let mut machine = machine(feature::CSUM);
    let (frame, start) = udp(b"some payload", false);
    let mut header = [0; 12];
    header[0] = 1;
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8] = 6;
    machine.send(header, &frame);
    let sent = machine.cable.sent().remove(0);
    assert!(!checksum::is_valid(&frame) && checksum::is_valid(&sent));
    header[7] = 0xff;
    machine.send(header, &frame);
    assert!(machine.cable.sent().is_empty(), "the field is outside the frame");
}

#[test]
fn frames_that_cannot_be_are_dropped() {
    let mut machine = machine(0);
    machine.send([0; 12], &[1; 13]);
    machine.send([0; 12], &vec![1; FRAME_BYTES_MAX + 1]);
    machine.send([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1; 60]);
    let at = machine.data;
    machine.driver.rings[TX].add(&[readable(at, 11)]);
    machine.driver.kick(TX);
    machine.driver.wait_used(TX);
    assert!(machine.cable.sent().is_empty());
    assert_eq!(machine.driver.status(), 0xf, "but the device lives");
}

#[test]
fn a_frame_arrives_in_one_buffer() {
    let mut machine = machine(feature::GUEST_CSUM);
    machine.give(0, 2, 2000);
    assert!(machine.cable.sink().receive(&[9; 100]));
    assert_eq!(machine.driver.wait_used(RX).1, 112);
    assert_eq!(machine.received(0, 112), [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], &[9; 100]].concat());
    let (mut frame, start) = udp(b"valid", true);
    checksum::complete(&mut frame, start, 6);
    assert!(machine.cable.sink().receive(&frame));
    machine.driver.wait_used(RX);
    assert_eq!(machine.received(1, 1), [header_flag::DATA_VALID]);
    assert!(machine.driver.line.is_raised());
}

#[test]
fn a_large_frame_is_spread_over_buffers() {
    let mut machine = machine(feature::MERGEABLE | common::EVENT_IDX);
    machine.give(0, 4, 1024);
    let frame: Vec<u8> = (0..3000u32).map(|i| i.to_le_bytes()[0]).collect();
    assert!(machine.cable.sink().receive(&frame));
    let used = [0; 3].map(|_| machine.driver.wait_used(RX).1);
    assert_eq!(used, [1024, 1024, 3012 - 2048]);
    let first = machine.received(0, 1024);
    assert_eq!(first[10..12], [3, 0]);
    let all = [&first[12..], &machine.received(1, 1024), &machine.received(2, 964)].concat();
    assert_eq!(all, frame);
    // One buffer is left, too little; nothing is used up.
    assert!(!machine.cable.sink().receive(&frame));
    assert_eq!(machine.driver.rings[RX].pop_used(), None);
    assert!(machine.cable.sink().receive(&frame[..1000]));
    assert_eq!(machine.driver.wait_used(RX).1, 1012);
}

#[test]
fn without_merging_a_frame_that_does_not_fit_is_lost() {
    let mut machine = machine(0);
    machine.give(0, 2, 1000);
    assert!(machine.cable.sink().receive(&[1; 1000]));
    assert_eq!(machine.driver.wait_used(RX).1, 0);
    assert!(machine.cable.sink().receive(&[1; 988]));
    assert_eq!(machine.driver.wait_used(RX).1, 1000);
}

#[test]
fn the_network_waits_for_room() {
    for features in [0, common::EVENT_IDX] {
        let mut machine = machine(features | feature::MERGEABLE);
        assert!(!machine.cable.sink().receive(&[1; 60]));
        assert_eq!(machine.cable.ready_count(), 0);
        machine.give(0, 1, 1000);
        assert_eq!(machine.cable.ready_count(), 1);
        assert!(machine.cable.sink().receive(&[1; 60]));
        machine.give(1, 1, 1000);
        assert_eq!(machine.cable.ready_count(), 0, "nobody waits");
        assert!(machine.cable.sink().receive(&[1; 60]));
        assert!(machine.cable.sink().receive(&vec![1; FRAME_BYTES_MAX + 1]), "it would wait for ever");
    }
}

#[test]
fn a_paused_or_dead_interface_takes_nothing() {
    let mut machine = machine(0);
    machine.give(0, 4, 1000);
    machine.driver.transport.pause();
    assert!(!machine.cable.sink().receive(&[1; 60]));
    machine.driver.transport.resume();
    assert_eq!(machine.cable.ready_count(), 1);
    assert!(machine.cable.sink().receive(&[1; 60]));
    machine.driver.write(0x070, 0);
    assert!(!machine.cable.sink().receive(&[1; 60]));
    assert!(!machine.driver.line.is_raised());
    machine.driver.bring_up(0);
    assert_eq!(machine.cable.ready_count(), 1, "a new driver, new room");
}

#[test]
fn hostile_receive_buffers() {
    // No room for a header.
    let mut broken = machine(feature::MERGEABLE);
    broken.give(0, 1, 11);
    assert!(!broken.cable.sink().receive(&[1; 60]));
    assert_ne!(broken.driver.status() & status::DEVICE_NEEDS_RESET, 0);
    assert_eq!(broken.driver.transport.last_error(), Some(QueueError::Room));
    assert!(!broken.cable.sink().receive(&[1; 60]), "it stays dead");
    // A ring full of buffers without bytes, after one with a header's.
    let mut broken = machine(feature::MERGEABLE);
    broken.give(0, 1, 12);
    broken.give(1, 255, 0);
    assert!(!broken.cable.sink().receive(&[1; 60]));
    wait_for(|| broken.driver.status() & status::DEVICE_NEEDS_RESET != 0);
}

#[test]
fn what_the_network_does_not_need_is_not_done() {
    let (frame, start) = udp(b"some payload", false);
    let mut header = [0; 12];
    header[0] = 1;
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8] = 6;
    let mut machine = machine_with(feature::CSUM | feature::HOST_TSO4, 1, ALL);
    machine.send(header, &frame);
    assert_eq!(machine.cable.sent(), [&frame[..]], "the checksum is as the guest left it");
    let large = vec![3; 60_000];
    header[1..6].copy_from_slice(&[1, 54, 0, 0xb4, 5]);
    machine.send(header, &large);
    assert_eq!(machine.cable.sent(), [&large[..]]);
    header[1] = 4;
    machine.send(header, &large);
    header[..2].copy_from_slice(&[0, 1]);
    machine.send(header, &large);
    header[..6].copy_from_slice(&[1, 1, 54, 0, 0, 0]);
    machine.send(header, &large);
    assert!(machine.cable.sent().is_empty(), "not agreed on, without a checksum, in pieces of nothing");
    assert!(!feature_offered(Offloads::default(), feature::HOST_TSO4) && feature_offered(ALL, feature::HOST_TSO4));
}

fn feature_offered(offloads: Offloads, bit: u64) -> bool {
    machine_with(0, 1, offloads).network.features() & bit != 0
}

#[test]
fn unfinished_frames_arrive_as_the_driver_can_take_them() {
    let (frame, start) = udp(b"some payload", false);
    let unfinished = Unfinished { checksum: Some(Partial { start, offset: 6 }), segment_bytes: 0 };
    let offloading = feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::MERGEABLE;
    let mut machine = machine(offloading);
    assert_eq!(machine.cable.sink().offloads(), Offloads { segment_v6: false, ..ALL });
    machine.give(0, 64, 2000);
    assert!(machine.cable.sink().receive_unfinished(&frame, unfinished));
    machine.driver.wait_used(RX);
    let header = machine.received(0, 12);
    assert_eq!((header[0], header[1]), (1, 0));
    assert_eq!((&header[6..8], &header[8..10]), (&start.to_le_bytes()[..], &[6, 0][..]));
    assert_eq!(machine.received(0, 12 + frame.len())[12..], frame);
    let mut large = vec![0; 60_000];
    large[12..15].copy_from_slice(&[8, 0, 0x45]);
    large[16..18].copy_from_slice(&(60_000u16 - 14).to_be_bytes());
    large[23] = 6;
    large[46] = 0x80;
    let partial = Some(Partial { start: 34, offset: 16 });
    assert!(machine.cable.sink().receive_unfinished(&large, Unfinished { checksum: partial, segment_bytes: 1448 }));
    let buffers = 60_012usize.div_ceil(2000);
    (0..buffers).for_each(|_| assert!(machine.driver.wait_used(RX).1 > 0));
    assert_eq!(machine.received(1, 12), [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 31, 0]);

    let mut plain = self::machine(0);
    plain.give(0, 2, 2000);
    assert_eq!(plain.cable.sink().offloads(), Offloads::default());
    assert!(plain.cable.sink().receive_unfinished(&large, Unfinished { checksum: partial, segment_bytes: 1448 }));
    assert!(plain.cable.sink().receive_unfinished(&frame, unfinished));
    plain.driver.wait_used(RX);
    let got = plain.received(0, 12 + frame.len());
    assert_eq!(got[0], 0);
    assert!(checksum::is_valid(&got[12..]), "the large frame is lost, the small one is completed");
}

#[test]
fn frames_come_back_to_the_pair_that_talks() {
    let mut machine = machine_with(feature::CONTROL | feature::MULTI_QUEUE, 2, ALL);
    let control = 4;
    assert_eq!((machine.network.queue_sizes().len(), machine.driver.transport.read(0x108, Width::Half)), (5, 2));
    let command = |machine: &mut Machine, bytes: &[u8]| {
        machine.driver.put(machine.data, bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        let at = machine.data;
        machine.driver.rings[control].add(&[readable(at, length), writable(at + 64, 1)]).unwrap();
        machine.driver.kick(control);
        assert_eq!(machine.driver.wait_used(control).1, 1);
        machine.driver.get(at + 64, 1)[0]
    };
    for bad in [&[4, 0, 3, 0][..], &[4, 0, 0, 0], &[4, 1, 1, 0], &[0, 0, 1]] {
        assert_eq!(command(&mut machine, bad), 1, "{bad:?}");
    }
    assert_eq!(command(&mut machine, &[4, 0, 2, 0]), 0);
    let (mine, _) = udp(b"to the second pair", false);
    let at = machine.data;
    machine.driver.put(at, &[0; 12]);
    machine.driver.put(at + 64, &mine);
    let length = u32::try_from(mine.len()).unwrap();
    machine.driver.rings[3].add(&[readable(at, 12), readable(at + 64, length)]).unwrap();
    machine.driver.kick(3);
    machine.driver.wait_used(3);
    // The answer: ends the other way round.
    let mut answer = mine.clone();
    answer[26..34].rotate_left(4);
    answer[34..38].rotate_left(2);
    assert!(!machine.cable.sink().receive(&answer), "the second pair has no buffers yet");
    machine.driver.rings[2].add(&[writable(at + (1 << 20), 2000)]).unwrap();
    machine.driver.kick(2);
    wait_for(|| machine.cable.ready_count() > 0);
    assert!(machine.cable.sink().receive(&answer));
    assert_eq!(machine.driver.wait_used(2).1, 12 + length);
}

#[test]
fn an_interface_goes_on_in_a_new_device() {
    let features = feature::MERGEABLE | feature::CONTROL | feature::MULTI_QUEUE | feature::STATUS;
    let mut machine = machine_with(features, 2, Offloads::default());
    // Two pairs, by the control queue.
    machine.driver.put(machine.data, &[4, 0, 2, 0]);
    machine.driver.rings[4].add(&[readable(machine.data, 4), writable(machine.data + 64, 1)]).unwrap();
    machine.driver.kick(4);
    machine.driver.wait_used(4);
    machine.give(0, 8, 2048);
    for round in 0..4u8 {
        let frame = [round; 60];
        assert!(machine.cable.sink().receive(&frame));
        machine.driver.wait_used(RX);
        assert_eq!(machine.received(u64::from(round), 72)[12..], frame);
        machine.send([0; HEADER_BYTES], &[round + 100; 60]);
        assert_eq!(machine.cable.sent(), [vec![round + 100; 60]]);
        machine.network.set_link(false);
        machine.driver.acknowledge();

        let cable = Arc::new(Cable::default());
        let backend = Arc::clone(&cable) as Arc<dyn NetworkBackend>;
        let network = Arc::new(Network::new(backend, MAC, 2, &crate::worker::Crew::Threads).unwrap());
        machine.driver.move_to(Arc::clone(&network) as Arc<dyn VirtioDevice>);
        assert_eq!(network.shared.pairs_count(), 2);
        assert_eq!(machine.driver.transport.read(0x106, Width::Half), 0, "the cable is still out");
        network.set_link(true);
        (machine.cable, machine.network) = (cable, network);
        machine.driver.acknowledge();
    }
}
