use super::super::driver::{Driver, Piece, readable, wait_for, writable};
use super::super::{feature as common, status};
use super::*;
use crate::BoardDevice;
use crate::lock;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

const DISK_BYTES: usize = 1 << 20;

/// A disk in memory that records calls, fails where told, and can be held up.
#[derive(Default)]
struct Memory {
    content: Mutex<Vec<u8>>,
    calls: Mutex<Vec<String>>,
    bad_sector: Mutex<Option<u64>>,
    read_only: AtomicBool,
    gate: Mutex<bool>,
    opened: Condvar,
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            content: Mutex::new((0..DISK_BYTES).map(|i| (i / 512).to_le_bytes()[i % 2]).collect()),
            ..Self::default()
        })
    }
    fn note(&self, call: String, offset: u64, length: u64) -> io::Result<MutexGuard<'_, Vec<u8>>> {
        let mut closed = lock(&self.gate);
        while *closed {
            closed = self.opened.wait(closed).unwrap();
        }
        lock(&self.calls).push(call);
        let bad = lock(&self.bad_sector).is_some_and(|s| (offset..offset + length).contains(&(s * 512)));
        if bad { Err(io::ErrorKind::Other.into()) } else { Ok(lock(&self.content)) }
    }
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.calls))
    }
    fn close(&self) {
        *lock(&self.gate) = true;
    }
    fn open(&self) {
        *lock(&self.gate) = false;
        self.opened.notify_all();
    }
}

fn range(offset: u64, length: u64) -> std::ops::Range<usize> {
    offset.try_into().unwrap()..(offset + length).try_into().unwrap()
}

impl BlockBackend for Memory {
    fn size(&self) -> u64 {
        DISK_BYTES as u64 + 100
    }
    fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::SeqCst)
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        let content = self.note(format!("read {offset}+{length}"), offset, length)?;
        bytes.copy_from_slice(&content[range(offset, length)]);
        Ok(())
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        let mut content = self.note(format!("write {offset}+{length}"), offset, length)?;
        content[range(offset, length)].copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.note("flush".into(), 0, 0).map(drop)
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.note(format!("discard {offset}+{length}"), offset, length).map(drop)
    }
    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        let mut content = self.note(format!("zero {offset}+{length} {unmap}"), offset, length)?;
        content[range(offset, length)].fill(0);
        Ok(())
    }
}

struct Machine {
    disk: Arc<Memory>,
    block: Arc<Block>,
    driver: Driver,
    header: u64,
    status: u64,
    data: u64,
}

const ALL: u64 = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES;

fn machine_of(disk: Arc<Memory>, queues_count: u16, features: u64) -> Machine {
    let options = Options { serial: "disk-serial-number-that-is-long".into(), queues_count };
    let block = Arc::new(
        Block::new(Arc::clone(&disk) as Arc<dyn BlockBackend>, &options, &crate::worker::Crew::Threads).unwrap(),
    );
    let mut driver = Driver::start(Arc::clone(&block) as Arc<dyn VirtioDevice>, features);
    block.drain();
    let header = driver.allocate(1 << 16);
    let status = driver.allocate(1 << 16);
    let data = driver.allocate(4 << 20);
    Machine { disk, block, driver, header, status, data }
}

fn machine() -> Machine {
    machine_of(Memory::new(), 1, ALL)
}

impl Machine {
    /// Offers a request, number `index` of those under way, on `queue` without notifying.
    fn offer(&mut self, queue: usize, index: u64, kind: u32, sector: u64, data: &[Piece]) -> u16 {
        let (header, status) = (self.header + index * 16, self.status + index);
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        self.driver.put(header, &bytes);
        self.driver.put(status, &[0xaa]);
        let pieces: Vec<_> =
            [readable(header, 16)].into_iter().chain(data.iter().copied()).chain([writable(status, 1)]).collect();
        self.driver.rings[queue].add(&pieces).unwrap()
    }

    fn status_of(&self, index: u64) -> u8 {
        self.driver.get(self.status + index, 1)[0]
    }

    /// Does one request and answers its status and how much the device says it wrote.
    fn request(&mut self, kind: u32, sector: u64, data: &[Piece]) -> (u8, u32) {
        let head = self.offer(0, 0, kind, sector, data);
        self.driver.kick(0);
        let (used, written) = self.driver.wait_used(0);
        assert_eq!(used, head);
        (self.status_of(0), written)
    }
}

#[test]
fn configuration() {
    let machine = machine_of(Memory::new(), 3, 0);
    let read = |at: u64| machine.driver.read(0x100 + at);
    assert_eq!((read(0), read(4)), (2048, 0), "whole sectors");
    assert_eq!((read(12), read(20), read(34 & !3) >> 16), (254, 512, 3));
    assert_eq!((read(36), read(40), read(48), read(52), read(56)), (1 << 21, 16, 1 << 21, 16, 1));
    assert_eq!(read(60), 0);
    let offered = machine.driver.read(0x010);
    assert_eq!(offered & 0x7fff, 0x7644, "MQ FLUSH TOPOLOGY BLK_SIZE SEG_MAX, DISCARD WRITE_ZEROES");
    let disk = Memory::new();
    disk.read_only.store(true, Ordering::SeqCst);
    let offered = machine_of(disk, 1, 0).driver.read(0x010);
    assert_eq!(offered & 0x7fff, 0x0664, "read-only: no discard, no zeroes, and one queue");
}

#[test]
fn reads_and_writes_scatter() {
    let mut machine = machine();
    let at = machine.data;
    let pieces = [writable(at, 100), writable(at + 4096, 412), writable(at + 8192, 512)];
    assert_eq!(machine.request(0, 5, &pieces), (0, 1025));
    let expected = lock(&machine.disk.content)[5 * 512..7 * 512].to_vec();
    let seen = [machine.driver.get(at, 100), machine.driver.get(at + 4096, 412), machine.driver.get(at + 8192, 512)];
    assert_eq!(seen.concat(), expected);
    machine.driver.put(at, &[7; 300]);
    machine.driver.put(at + 4096, &[8; 212]);
    assert_eq!(machine.request(1, 2047, &[readable(at, 300), readable(at + 4096, 212)]), (0, 1));
    assert_eq!(lock(&machine.disk.content)[2047 * 512..], [vec![7; 300], vec![8; 212]].concat());
    assert_eq!(machine.disk.calls(), ["read 2560+1024", "write 1048064+512"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut machine = machine();
    let at = machine.data;
    let cases: [(u32, u64, Piece); 6] = [
        (0, 2048, writable(at, 512)),
        (0, 2047, writable(at, 1024)),
        (0, u64::MAX, writable(at, 512)),
        (0, 0, writable(at, 100)),
        (1, 1 << 55, readable(at, 512)),
        (1, 0, readable(at, 511)),
    ];
    for (kind, sector, piece) in cases {
        assert_eq!(machine.request(kind, sector, &[piece]), (1, 1), "{kind} {sector}");
    }
    assert_eq!(machine.request(99, 0, &[]), (2, 1));
    assert!(machine.disk.calls().is_empty());
    // A header cut short, and one without a status byte.
    let (header, place) = (machine.header, machine.status);
    machine.driver.rings[0].add(&[readable(header, 15), writable(place, 1)]);
    machine.driver.kick(0);
    machine.driver.wait_used(0);
    assert_eq!(machine.status_of(0), 1);
    machine.driver.rings[0].add(&[readable(header, 16)]);
    machine.driver.kick(0);
    wait_for(|| machine.driver.status() & status::DEVICE_NEEDS_RESET != 0);
    assert_eq!(machine.driver.transport.last_error(), Some(QueueError::Room));
}

#[test]
fn a_read_only_disk_is_not_written() {
    let disk = Memory::new();
    disk.read_only.store(true, Ordering::SeqCst);
    let mut machine = machine_of(disk, 1, 0);
    let at = machine.data;
    for kind in [1, 11, 13] {
        assert_eq!(machine.request(kind, 0, &[readable(at, 512)]).0, 1);
    }
    assert_eq!(machine.request(0, 0, &[writable(at, 512)]).0, 0);
    assert_eq!(machine.disk.calls(), ["read 0+512"]);
}

#[test]
fn identifier() {
    let mut machine = machine();
    let at = machine.data;
    assert_eq!(machine.request(8, 0, &[writable(at, 20)]), (0, 21));
    assert_eq!(machine.driver.get(at, 20), b"disk-serial-number-t");
    machine.driver.put(at, &[0; 20]);
    assert_eq!(machine.request(8, 0, &[writable(at, 4)]), (0, 5));
    assert_eq!(machine.driver.get(at, 6), b"disk\0\0");
}

#[test]
fn discard_and_zeroes() {
    let mut machine = machine();
    let at = machine.data;
    let put = |machine: &Machine, index: u64, sector: u64, count: u32, flags: u32| {
        let bytes = [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat();
        machine.driver.put(at + index * 16, &bytes);
    };
    put(&machine, 0, 8, 8, 0);
    put(&machine, 1, 64, 1, 0);
    assert_eq!(machine.request(11, 0, &[readable(at, 32)]).0, 0);
    assert_eq!(machine.disk.calls(), ["discard 4096+4096", "discard 32768+512"]);
    put(&machine, 1, 64, 1, 1);
    assert_eq!(machine.request(13, 0, &[readable(at, 32)]).0, 0);
    assert_eq!(machine.disk.calls(), ["zero 4096+4096 false", "zero 32768+512 true"]);
    assert_eq!(machine.request(11, 0, &[readable(at, 32)]).0, 2, "a discard has no flags");
    put(&machine, 1, 2048, 1, 0);
    assert_eq!(machine.request(13, 0, &[readable(at, 32)]).0, 1);
    assert_eq!(machine.request(13, 0, &[readable(at, 31)]).0, 1);
    assert_eq!(machine.request(13, 0, &[]).0, 1);
    assert_eq!(machine.request(13, 0, &[readable(at, 17 * 16)]).0, 1);
    assert!(machine.disk.calls().is_empty(), "all or nothing");
}

#[test]
fn a_flush_is_acknowledged_after_the_backend() {
    let mut machine = machine();
    let at = machine.data;
    machine.request(1, 0, &[readable(at, 512)]);
    assert_eq!(machine.disk.calls(), ["write 0+512"]);
    machine.disk.close();
    machine.offer(0, 0, 4, 0, &[]);
    machine.driver.kick(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(machine.driver.rings[0].pop_used(), None);
    assert_eq!(machine.status_of(0), 0xaa);
    machine.disk.open();
    machine.driver.wait_used(0);
    assert_eq!((machine.disk.calls(), machine.status_of(0)), (vec!["flush".to_string()], 0));
}

#[test]
fn without_the_flush_feature_each_write_is_durable() {
    let mut machine = machine_of(Memory::new(), 1, 0);
    let at = machine.data;
    machine.request(1, 0, &[readable(at, 512)]);
    assert_eq!(machine.disk.calls(), ["write 0+512", "flush"]);
}

#[test]
fn neighbours_are_joined_and_fail_alone() {
    let mut machine = machine();
    let at = machine.data;
    machine.driver.put(at, &(0..4096u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect::<Vec<_>>());
    let text = machine.driver.get(at, 4096);
    for i in 0..4 {
        machine.offer(0, i, 1, 16 + 2 * i, &[readable(at + 1024 * i, 1024)]);
    }
    machine.offer(0, 4, 0, 0, &[writable(at + 8192, 512)]);
    machine.offer(0, 5, 0, 1, &[writable(at + 8704, 512)]);
    machine.driver.kick(0);
    for _ in 0..6 {
        machine.driver.wait_used(0);
    }
    assert_eq!(machine.disk.calls(), ["write 8192+4096", "read 0+1024"]);
    assert_eq!(lock(&machine.disk.content)[8192..12288], text);
    assert_eq!(machine.driver.get(at + 8192, 1024), lock(&machine.disk.content)[..1024]);

    *lock(&machine.disk.bad_sector) = Some(18);
    machine.block.drain();
    for i in 0..3 {
        machine.offer(0, i, 1, 16 + 2 * i, &[readable(at, 1024)]);
    }
    machine.driver.kick(0);
    for _ in 0..3 {
        machine.driver.wait_used(0);
    }
    assert_eq!([0, 1, 2].map(|i| machine.status_of(i)), [0, 1, 0]);
}

#[test]
fn one_interrupt_for_a_batch() {
    let mut machine = machine_of(Memory::new(), 1, ALL | common::EVENT_IDX);
    machine.driver.rings[0].want_interrupt();
    let at = machine.data;
    for i in 0..20 {
        machine.offer(0, i, 0, 2 * i, &[writable(at, 512)]);
    }
    machine.driver.kick(0);
    wait_for(|| machine.driver.line.is_raised());
    for _ in 0..20 {
        machine.driver.wait_used(0);
    }
    machine.block.drain();
    assert_eq!(machine.driver.acknowledge(), 1);
    assert!(!machine.driver.line.is_raised());
    machine.request(4, 0, &[]);
    machine.block.drain();
    assert!(!machine.driver.line.is_raised(), "the driver has not asked for another");
}

#[test]
fn a_request_larger_than_the_buffer() {
    let mut machine = machine();
    let at = machine.data;
    let length = u32::try_from(DISK_BYTES).unwrap();
    assert_eq!(machine.request(0, 0, &[writable(at, length)]), (0, length + 1));
    assert_eq!(machine.driver.get(at, DISK_BYTES), *lock(&machine.disk.content));
    assert_eq!(machine.disk.calls().len(), DISK_BYTES / BUFFER_BYTES);
    let inverse: Vec<_> = lock(&machine.disk.content).iter().map(|b| !b).collect();
    machine.driver.put(at, &inverse);
    assert_eq!(machine.request(1, 0, &[readable(at, length)]), (0, 1));
    assert_eq!(inverse, *lock(&machine.disk.content));
}

#[test]
fn a_reset_waits_for_the_request_in_work() {
    let mut machine = machine();
    let at = machine.data;
    machine.disk.close();
    machine.offer(0, 0, 1, 0, &[readable(at, 512)]);
    machine.driver.kick(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    for i in 1..30 {
        machine.offer(0, i, 1, 100 + 2 * i, &[readable(at, 512)]);
    }
    machine.driver.kick(0);
    std::thread::scope(|scope| {
        let reset = scope.spawn(|| machine.driver.write(0x070, 0));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!reset.is_finished());
        machine.disk.open();
    });
    assert_eq!(machine.driver.status(), 0);
    let calls = machine.disk.calls();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(!calls.is_empty() && machine.disk.calls().is_empty(), "nothing after the reset: {calls:?}");
    assert!(!machine.driver.line.is_raised());
    machine.driver.bring_up(ALL);
    assert_eq!(machine.request(0, 0, &[writable(at, 512)]), (0, 513));
}

#[test]
fn a_pause_stands_at_a_request_boundary() {
    let mut machine = machine();
    let at = machine.data;
    machine.driver.transport.pause();
    for i in 0..10 {
        machine.offer(0, i, 0, 2 * i, &[writable(at, 512)]);
    }
    machine.driver.kick(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(machine.disk.calls().is_empty());
    machine.driver.transport.resume();
    for _ in 0..10 {
        machine.driver.wait_used(0);
    }
    assert_eq!(machine.disk.calls().len(), 10);
}

#[test]
fn rubbish_in_one_queue_leaves_the_host_well() {
    let mut machine = machine_of(Memory::new(), 2, ALL | feature::MULTI_QUEUE);
    machine.driver.rings[1].offer(9999);
    machine.driver.kick(1);
    wait_for(|| machine.driver.status() & status::DEVICE_NEEDS_RESET != 0);
    wait_for(|| machine.driver.line.is_raised());
    machine.driver.write(0x050, 1);
    machine.driver.write(0x050, 0xffff);
    machine.driver.bring_up(ALL);
    let at = machine.data;
    assert_eq!(machine.request(0, 0, &[writable(at, 512)]).0, 0);
}

#[derive(Clone, Debug)]
struct Operation {
    queue: usize,
    write: bool,
    sector: u64,
    sectors_count: u32,
    seed: u8,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = (0usize..2, any::<bool>(), 0u64..60, 1u32..4, any::<u8>()).prop_map(
        |(queue, write, sector, sectors_count, seed)| Operation { queue, write, sector, sectors_count, seed },
    );
    proptest::collection::vec(one, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Batches of random requests, sequential in one queue and the other on another half of the disk, do what a plain array does.
    #[test]
    fn behaves_as_an_array(operations in operations(), event_index in any::<bool>(), batch in 1usize..12) {
        let extra = if event_index { common::EVENT_IDX } else { 0 };
        let mut machine = machine_of(Memory::new(), 2, ALL | feature::MULTI_QUEUE | extra);
        let mut model = lock(&machine.disk.content).clone();
        for group in operations.chunks(batch) {
            let mut expected = Vec::new();
            for (i, operation) in (0u64..).zip(group) {
                // Each queue has its half, so that the order between queues does not matter.
                let sector = operation.sector + 1000 * operation.queue as u64;
                let (place, length) = (machine.data + i * 4096, operation.sectors_count * 512);
                let target = range(sector * 512, length.into());
                if operation.write {
                    let bytes: Vec<u8> = (0..length).map(|i| i.to_le_bytes()[0] ^ operation.seed).collect();
                    machine.driver.put(place, &bytes);
                    model[target].copy_from_slice(&bytes);
                    machine.offer(operation.queue, i, 1, sector, &[readable(place, 100), readable(place + 100, length - 100)]);
                } else {
                    expected.push((place, model[target].to_vec()));
                    machine.offer(operation.queue, i, 0, sector, &[writable(place, 200), writable(place + 200, length - 200)]);
                }
            }
            for queue in [0, 1] {
                machine.driver.kick(queue);
                for _ in group.iter().filter(|o| o.queue == queue) {
                    machine.driver.wait_used(queue);
                }
            }
            for i in 0..group.len() as u64 {
                prop_assert_eq!(machine.status_of(i), 0);
            }
            for (place, bytes) in expected {
                prop_assert_eq!(machine.driver.get(place, bytes.len()), bytes);
            }
        }
        prop_assert_eq!(&model, &*lock(&machine.disk.content));
    }
}

#[test]
fn a_disk_goes_on_in_a_new_device() {
    for features in [ALL, ALL | common::EVENT_IDX] {
        let mut machine = machine_of(Memory::new(), 1, features);
        let data = machine.data;
        for round in 0..300 {
            machine.driver.put(data, &[u8::try_from(round % 251).unwrap(); 512]);
            assert_eq!(machine.request(1, round % 100, &[readable(data, 512)]).0, 0);
            if round % 37 == 0 {
                // What was offered before and not told of is done after.
                machine.driver.transport.pause();
                let head = machine.offer(0, 1, 0, round % 100, &[writable(data + 4096, 512)]);
                let options = Options { serial: "same".into(), queues_count: 1 };
                let disk = Arc::clone(&machine.disk) as Arc<dyn BlockBackend>;
                let block = Arc::new(Block::new(disk, &options, &crate::worker::Crew::Threads).unwrap());
                machine.driver.move_to(Arc::clone(&block) as Arc<dyn VirtioDevice>);
                machine.block = block;
                assert_eq!(machine.driver.wait_used(0), (head, 513));
                assert_eq!(machine.driver.get(data + 4096, 512), machine.driver.get(data, 512));
                machine.driver.rings[0].must_kick();
            }
        }
    }
}

#[test]
fn impossible_states_are_refused() {
    let machine = machine();
    machine.driver.transport.pause();
    let good = machine.driver.transport.save().unwrap();
    let wrong = |path: &str, value: serde_json::Value| {
        let mut state = good.clone();
        *state.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        let other = self::machine();
        other.driver.transport.pause();
        let error = other.driver.transport.restore(&state).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    wrong("/queues/0/size", 3.into());
    wrong("/queues/0/size", 512.into());
    wrong("/queues/0/used", 1.into());
    wrong("/queues/0/available", u64::MAX.into());
    wrong("/queues", serde_json::Value::Array(Vec::new()));
    wrong("/registers/device_id", 1.into());
    wrong("/registers/driver_features", u64::MAX.into());
    wrong("/registers/queues", serde_json::Value::Array(Vec::new()));
    wrong("/device", true.into());
}
