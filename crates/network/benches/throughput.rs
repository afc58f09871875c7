//! How many bits a second go through the network: `cargo bench -p network`.
//!
//! The guest is smoltcp's stack, whose own cost is part of every figure (it copies and checksums as a guest's kernel would).
//! Beside the network, the same transfer between two host sockets is measured, as what the host can do at best.

#[path = "../tests/network/guest.rs"]
#[allow(dead_code)]
mod guest;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use guest::{Guest, config, pattern};
use machine::clock::Clock;

const BYTES: usize = 512 << 20;
const WINDOW: usize = 1 << 20;

fn report(what: &str, clock: &Clock, start_ns: u64) {
    let ns = clock.now_ns() - start_ns;
    let gbit = BYTES as f64 * 8.0 / ns as f64;
    println!("{what:44} {gbit:7.2} Gbit/s");
}

fn sink(mut stream: TcpStream) {
    let mut bytes = vec![0; 256 << 10];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

fn source(mut stream: TcpStream) {
    let bytes = pattern(1, 256 << 10);
    for _ in 0..BYTES / bytes.len() {
        stream.write_all(&bytes).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn serve(serve: fn(TcpStream)) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn upload(name: &str, mut guest: Guest) {
    let (port, server) = serve(sink);
    let handle = guest.connected(port, 50_000, WINDOW);
    let clock = Clock::new();
    let start_ns = clock.now_ns();
    let mut left = BYTES;
    let piece = pattern(2, WINDOW);
    guest.until("upload", |guest| {
        let socket = guest.socket(handle);
        while left > 0 && socket.can_send() {
            left -= socket.send_slice(&piece[..piece.len().min(left)]).unwrap();
        }
        if left == 0 {
            socket.close();
        }
        server.is_finished().then_some(())
    });
    report(name, &clock, start_ns);
}

fn download(name: &str, mut guest: Guest) {
    let (port, server) = serve(source);
    let handle = guest.connected(port, 50_000, WINDOW);
    let clock = Clock::new();
    let start_ns = clock.now_ns();
    let mut received = 0;
    guest.until("download", |guest| {
        let socket = guest.socket(handle);
        while socket.can_recv() {
            received += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        (received == BYTES).then_some(())
    });
    report(name, &clock, start_ns);
    server.join().unwrap();
}

fn main() {
    let (port, server) = serve(source);
    let clock = Clock::new();
    sink(TcpStream::connect(("127.0.0.1", port)).unwrap());
    server.join().unwrap();
    report("two host sockets", &clock, 0);

    let large = || network::Config { mtu: 65_520, ..config() };
    let offloaded = |config| {
        let mut guest = Guest::new(config);
        guest.offload();
        guest
    };
    upload("guest to host, 1500-byte packets", Guest::new(config()));
    download("host to guest, 1500-byte packets", Guest::new(config()));
    upload("guest to host, 65520-byte packets", Guest::new(large()));
    download("host to guest, 65520-byte packets", Guest::new(large()));
    upload("guest to host, 1500, offloads", offloaded(config()));
    download("host to guest, 1500, offloads", offloaded(config()));
    upload("guest to host, 65520, offloads", offloaded(large()));
    download("host to guest, 65520, offloads", offloaded(large()));
}
