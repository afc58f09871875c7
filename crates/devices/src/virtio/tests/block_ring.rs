//! A disk whose requests the host's kernel carries out by itself: all of this host's tests run where it does.

use super::super::super::driver::{Driver, readable, writable};
use super::super::super::{VirtioDevice, feature as common};
use super::super::{Block, Options, feature};
use super::*;
use machine::backend::{BlockBackend, Queueable};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A disk that is a file, and how often it was asked to move data itself.
struct OnFile {
    file: File,
    bytes: u64,
    asked_count: AtomicU32,
}

impl BlockBackend for OnFile {
    fn size(&self) -> u64 {
        self.bytes.next_multiple_of(512)
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.asked_count.fetch_add(1, Ordering::SeqCst);
        bytes.fill(0);
        self.file.read_at(bytes, offset).map(drop)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.asked_count.fetch_add(1, Ordering::SeqCst);
        self.file.write_all_at(bytes, offset)
    }
    fn flush(&self) -> io::Result<()> {
        self.asked_count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        self.asked_count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn queueable(&self) -> Option<Queueable<'_>> {
        Some(Queueable { file: &self.file, flushes: true })
    }
}

struct Machine {
    disk: Arc<OnFile>,
    driver: Driver,
    header: u64,
    data: u64,
}

const ALL: u64 = feature::FLUSH | feature::DISCARD;
const ROOM: u64 = 16_384;

fn machine(bytes: u64, features: u64) -> Machine {
    let file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..bytes).map(|at| (at / 512).to_le_bytes()[usize::from(at % 2 == 1)]).collect();
    file.write_all_at(&content, 0).unwrap();
    let disk = Arc::new(OnFile { file, bytes, asked_count: AtomicU32::new(0) });
    let options = Options { serial: String::new(), queues_count: 1 };
    let backend = Arc::clone(&disk) as Arc<dyn BlockBackend>;
    let block = Arc::new(Block::new(backend, &options, &crate::worker::Crew::Threads).unwrap());
    let mut driver = Driver::start(block as Arc<dyn VirtioDevice>, features);
    let header = driver.allocate(1 << 16);
    let data = driver.allocate(4 << 20);
    Machine { disk, driver, header, data }
}

impl Machine {
    /// Offers request `index` of `length` bytes: its data and its status are at places of its own.
    fn offer(&mut self, index: u64, kind: u32, sector: u64, length: u32) {
        let (header, status, at) = (self.header + index * 32, self.header + index * 32 + 16, self.data + index * ROOM);
        self.driver.put(header, &[u64::from(kind).to_le_bytes(), sector.to_le_bytes()].concat());
        self.driver.put(status, &[0xaa]);
        let mut pieces = vec![readable(header, 16)];
        if length > 0 {
            let piece = if kind == 0 { writable } else { readable };
            // Not in one piece, and not aligned.
            pieces.extend([piece(at + 1, 300), piece(at + 301, length - 300)]);
        }
        pieces.push(writable(status, 1));
        self.driver.rings[0].add(&pieces).unwrap();
    }

    fn finish(&mut self, count: u64) {
        self.driver.kick(0);
        for _ in 0..count {
            self.driver.wait_used(0);
        }
        for index in 0..count {
            assert_eq!(self.driver.get(self.header + index * 32 + 16, 1), [0], "request {index}");
        }
    }

    fn content(&self, sector: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.disk.file.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }
}

#[test]
fn many_requests_at_once_do_what_they_are_to() {
    for features in [ALL, ALL | common::EVENT_IDX] {
        let mut machine = machine(4 << 20, features);
        for round in 0..8u64 {
            // Every request has 16 sectors of its own.
            let place = |index: u64| ((index * 37 + round * 11) % 200) * 16;
            for index in 0..60 {
                let write = (index + round) % 3 == 0;
                let bytes: Vec<u8> = (0..8192u64).map(|at| (at * 7 + index + round).to_le_bytes()[0]).collect();
                machine.driver.put(machine.data + index * ROOM + 1, &if write { bytes } else { vec![0; 8192] });
                machine.offer(index, u32::from(write), place(index), 8192);
            }
            machine.finish(60);
            for index in 0..60 {
                let seen = machine.driver.get(machine.data + index * ROOM + 1, 8192);
                assert!(seen == machine.content(place(index), 8192), "request {index} of round {round}");
            }
            machine.offer(0, 4, 0, 0);
            machine.finish(1);
        }
        assert_eq!(machine.disk.asked_count.load(Ordering::SeqCst), 0, "the kernel did all of it");
    }
}

#[test]
fn what_the_kernel_does_in_part_is_done_again() {
    let mut machine = machine(10_000, ALL);
    machine.driver.put(machine.data, &[9; 2000]);
    machine.offer(0, 0, 18, 1024);
    machine.finish(1);
    let seen = machine.driver.get(machine.data + 1, 1024);
    assert_eq!(
        (seen[0], &seen[10_000 - 18 * 512..]),
        (18, &[0; 1024 - (10_000 - 18 * 512)][..]),
        "behind the file is nothing"
    );
    assert_eq!(machine.disk.asked_count.load(Ordering::SeqCst), 1);
    let mut plain = self::machine(10_000, 0);
    plain.offer(0, 1, 0, 1024);
    plain.finish(1);
    assert_eq!(plain.disk.asked_count.load(Ordering::SeqCst), 2, "a write and a flush, for a driver without flushes");
}

#[test]
fn a_reset_finds_nothing_in_flight() {
    let mut machine = machine(4 << 20, ALL);
    for _ in 0..50 {
        (0..60).for_each(|index| machine.offer(index, 0, index * 16, 8192));
        machine.driver.write(0x050, 0);
        machine.driver.bring_up(ALL);
        machine.driver.put(machine.data, &vec![0x55; 60 * 16_384]);
        machine.offer(0, 1, 0, 512);
        machine.finish(1);
        assert!(machine.driver.get(machine.data + ROOM, 59 * 16_384).iter().all(|byte| *byte == 0x55));
    }
}
