//! What virtio devices cost a guest, without a guest: `cargo bench -p devices`.
//!
//! The driver works on guest memory as in the tests; backends do as little as they can, so the figures are the devices' own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::virtio::block::{self, Block};
use devices::virtio::network::Network;
use devices::virtio::{VirtioDevice, feature, mmio, status};
use devices::worker::Crew;
use machine::backend::{BlockBackend, FrameSink, NetworkBackend};
use machine::clock::Clock;

#[path = "../src/virtio/tests/driver.rs"]
#[allow(dead_code)]
mod driver;
use driver::{Driver, readable, writable};

/// A disk that has no content.
struct Nothing;
impl BlockBackend for Nothing {
    fn size(&self) -> u64 {
        1 << 40
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// A network that counts what it is sent.
#[derive(Default)]
struct Counter(AtomicU64);
impl NetworkBackend for Counter {
    fn send(&self, frame: &[u8]) {
        self.0.fetch_add(frame.len() as u64, Ordering::Relaxed);
    }
    fn mtu(&self) -> u16 {
        65_520
    }
    fn attach(&self, _: Arc<dyn FrameSink>) {}
    fn ready(&self) {}
}

/// Runs `count` requests, `depth` at a time, and prints what each took.
fn measure(
    what: &str,
    count: u32,
    depth: u32,
    bytes: u32,
    driver: &mut Driver,
    queue: usize,
    mut offer: impl FnMut(&mut Driver, u64),
) {
    let clock = Clock::new();
    let mut kicks_count = 0u32;
    for _ in 0..count / depth {
        for number in 0..depth {
            offer(driver, number.into());
        }
        if driver.rings[queue].must_kick() {
            kicks_count += 1;
            driver.write(0x050, u32::try_from(queue).unwrap_or(0));
        }
        for _ in 0..depth {
            driver.wait_used(queue);
        }
    }
    let ns = clock.now_ns() as f64;
    let (each, rate) = (ns / f64::from(count), f64::from(count) * f64::from(bytes) / ns);
    println!(
        "{what:32} {each:9.0} ns each  {rate:7.2} GB/s  {:5.2} kicks each",
        f64::from(kicks_count) / f64::from(count)
    );
}

fn disk(features: u64, name: &str) {
    let options = block::Options { serial: String::new(), queues_count: 1 };
    let Ok(block) = Block::new(Arc::new(Nothing), &options, &Crew::Threads) else { return println!("no thread") };
    let mut driver = Driver::start(Arc::new(block), features | (1 << 9));
    let header = driver.allocate(64 * 16);
    let data = driver.allocate(8 << 20);
    let status = driver.allocate(64);
    for (kind, kib, depth, count) in
        [(0, 4, 1, 20_000), (0, 4, 32, 640_000), (1, 4, 32, 640_000), (0, 128, 32, 64_000), (1, 128, 32, 64_000)]
    {
        let what = format!("{name} {} {kib} KiB, depth {depth}", if kind == 0 { "read" } else { "write" });
        let mut sector = 0u64;
        measure(&what, count, depth, kib << 10, &mut driver, 0, |driver, number| {
            // Scattered, so that nothing is joined.
            sector = (sector + 7_000_003) % (1 << 30);
            driver.put(header + 16 * number, &[u64::from(kind as u32).to_le_bytes(), sector.to_le_bytes()].concat());
            let at = data + number * u64::from(kib << 10);
            let piece = if kind == 0 { writable(at, kib << 10) } else { readable(at, kib << 10) };
            driver.rings[0].add(&[readable(header + 16 * number, 16), piece, writable(status + number, 1)]);
        });
    }
}

fn interface() {
    let counter = Arc::new(Counter::default());
    let Ok(network) = Network::new(Arc::clone(&counter) as Arc<dyn NetworkBackend>, [2; 6], 1, &Crew::Threads) else {
        return println!("no thread");
    };
    let mut driver = Driver::start(Arc::new(network), feature::EVENT_IDX | 1);
    let header = driver.allocate(64);
    let data = driver.allocate(8 << 20);
    for (bytes, depth, count) in [(64, 1, 20_000), (1514, 32, 640_000), (65_534, 32, 64_000)] {
        measure(
            &format!("send {bytes} bytes, depth {depth}"),
            count,
            depth,
            bytes,
            &mut driver,
            1,
            |driver, number| {
                driver.rings[1].add(&[readable(header, 12), readable(data + number * 65_536, bytes)]);
            },
        );
    }
    assert!(counter.0.load(Ordering::Relaxed) > 0);
}

fn main() {
    disk(0, "flags");
    disk(feature::EVENT_IDX, "event index");
    interface();
}
