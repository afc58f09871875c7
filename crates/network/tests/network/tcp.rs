//! Connections out.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use smoltcp::socket::tcp::State;

use crate::guest::{Guest, config, many_descriptors, pattern};

/// Listens on loopback, and serves one connection after the other on a thread.
fn serve(count: usize, serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = thread::spawn(move || {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let (stream, _) = listener.accept().unwrap();
                thread::spawn(move || serve(stream))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    (port, handle)
}

fn echo(mut stream: TcpStream) {
    let mut bytes = vec![0; 65_536];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => stream.write_all(&bytes[..count]).unwrap(),
        }
    }
}

#[test]
fn echoes_and_closes_in_order() {
    let (port, server) = serve(1, echo);
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 65_536);
    for size in [1, 100, 1460, 1461, 30_000] {
        let bytes = pattern(1, size);
        guest.write(handle, &bytes);
        assert_eq!(guest.read(handle, size), bytes);
    }
    guest.socket(handle).close();
    guest.until("close", |guest| matches!(guest.socket(handle).state(), State::TimeWait | State::Closed).then_some(()));
    server.join().unwrap();
}

#[test]
fn half_close_lets_the_answer_through() {
    let (port, server) = serve(1, |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        request.reverse();
        stream.write_all(&request).unwrap();
    });
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 65_536);
    let mut bytes = pattern(2, 500_000);
    guest.write(handle, &bytes);
    guest.socket(handle).close();
    let answer = guest.read_to_end(handle);
    bytes.reverse();
    assert!(answer == bytes, "{} bytes came back", answer.len());
    server.join().unwrap();
}

#[test]
fn the_host_may_finish_first() {
    let (port, server) = serve(1, |mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"world");
    });
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 65_536);
    assert_eq!(guest.read_to_end(handle), b"hello");
    guest.write(handle, b"world");
    guest.socket(handle).close();
    guest.until("close", |guest| (guest.socket(handle).state() == State::Closed).then_some(()));
    server.join().unwrap();
}

#[test]
fn refusal_is_a_reset() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut guest = Guest::new(config());
    let handle = guest.tcp(4096);
    guest.connect(handle, (network::GATEWAY, port), 50_000);
    guest.until("refusal", |guest| (guest.socket(handle).state() == State::Closed).then_some(()));
}

#[test]
fn the_guest_cannot_reach_loopback_but_by_the_router() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::new(config());
    let addresses = [network::DNS, [0, 0, 0, 1].into(), [10, 0, 2, 77].into(), [240, 0, 0, 1].into()];
    for (local, address) in (50_000..).zip(addresses) {
        let handle = guest.tcp(4096);
        guest.connect(handle, (address, port), local);
        guest.idle(100_000_000);
        assert_ne!(guest.socket(handle).state(), State::Established, "{address}");
    }
    assert!(listener.accept().is_err());
}

#[test]
fn a_reset_of_the_host_reaches_the_guest() {
    let (port, server) = serve(1, |stream| {
        // Closing with unread data resets.
        let mut one = [0];
        (&stream).read_exact(&mut one).unwrap();
        thread::sleep(Duration::from_millis(50));
    });
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 4096);
    guest.write(handle, b"more than one byte");
    guest.until("reset", |guest| (guest.socket(handle).state() == State::Closed).then_some(()));
    server.join().unwrap();
}

#[test]
fn a_reset_of_the_guest_reaches_the_host() {
    let (port, server) = serve(1, |mut stream| {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 4096);
    guest.socket(handle).abort();
    guest.idle(50_000_000);
    server.join().unwrap();
}

#[test]
fn many_connections_at_once() {
    const COUNT: u16 = 300;
    let _descriptors = many_descriptors();
    let (port, server) = serve(usize::from(COUNT), echo);
    let mut guest = Guest::new(config());
    let mut handles = Vec::new();
    // Groups no larger than a listener's queue, beyond which hosts reset connections that they had taken.
    for group in (0..COUNT).collect::<Vec<_>>().chunks(50) {
        let start = handles.len();
        for index in group {
            let handle = guest.tcp(4096);
            guest.connect(handle, (network::GATEWAY, port), 40_000 + index);
            handles.push(handle);
        }
        for &handle in &handles[start..] {
            guest.until("connect", |guest| guest.socket(handle).may_send().then_some(()));
        }
    }
    for (index, &handle) in (0..).zip(&handles) {
        guest.write(handle, &pattern(index, 2000));
    }
    for (index, &handle) in (0..).zip(&handles) {
        assert_eq!(guest.read(handle, 2000), pattern(index, 2000));
        guest.socket(handle).close();
    }
    guest.idle(10_000_000);
    server.join().unwrap();
}

/// Sends `bytes` through an echo at full speed, in both directions at once, and checks that they come back.
fn round_trip(mut guest: Guest, bytes: usize) {
    let (port, server) = serve(1, |stream| {
        let mut reader = stream.try_clone().unwrap();
        let mut writer = stream;
        std::io::copy(&mut reader, &mut writer).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let handle = guest.connected(port, 50_000, 1 << 20);
    let piece = pattern(3, 1 << 20);
    let (mut sent, mut received) = (0, 0);
    guest.until("transfer", |guest| {
        let socket = guest.socket(handle);
        while sent < bytes && socket.can_send() {
            let at = sent % piece.len();
            sent += socket.send_slice(&piece[at..piece.len().min(at + bytes - sent)]).unwrap();
            if sent == bytes {
                socket.close();
            }
        }
        while socket.can_recv() {
            received += socket
                .recv(|got| {
                    let at = received % piece.len();
                    let count = got.len().min(piece.len() - at);
                    assert!(got[..count] == piece[at..at + count], "bytes differ after {received}");
                    (count, count)
                })
                .unwrap();
        }
        (received == bytes).then_some(())
    });
    server.join().unwrap();
}

#[test]
fn bulk_both_ways() {
    round_trip(Guest::new(config()), 64 << 20);
}

#[test]
fn bulk_with_large_packets() {
    round_trip(Guest::new(network::Config { mtu: 65_520, ..config() }), 64 << 20);
}

#[test]
fn bulk_with_offloads() {
    let mut guest = Guest::new(config());
    guest.offload();
    let ring = Arc::clone(&guest.port.ring);
    round_trip(guest, 16 << 20);
    assert!(ring.joined_count.load(Ordering::SeqCst) > 100, "most of it comes in large pieces");
}

#[test]
fn a_guest_that_does_not_read_stops_the_host_and_nothing_is_lost() {
    let (port, server) = serve(1, |mut stream| {
        let bytes = pattern(4, 8 << 20);
        stream.write_all(&bytes).unwrap();
    });
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 20_000);
    guest.idle(200_000_000);
    assert_eq!(guest.socket(handle).recv_queue(), 20_000, "the window is full and no more");
    assert!(guest.read_to_end(handle) == pattern(4, 8 << 20));
    guest.socket(handle).close();
    server.join().unwrap_or_default();
}

#[test]
fn a_host_that_does_not_read_stops_the_guest_and_nothing_is_lost() {
    const BYTES: usize = 16 << 20;
    let (port, server) = serve(1, |mut stream| {
        thread::sleep(Duration::from_millis(300));
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == pattern(5, BYTES), "{} bytes", all.len());
    });
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 1 << 20);
    guest.write(handle, &pattern(5, BYTES));
    guest.socket(handle).close();
    guest.until("close", |guest| matches!(guest.socket(handle).state(), State::TimeWait | State::Closed).then_some(()));
    server.join().unwrap();
}

#[test]
fn dropping_the_network_closes_busy_connections() {
    let (port, server) = serve(1, |mut stream| {
        // Ends by an error or by an end, not never.
        let mut bytes = vec![0; 1 << 20];
        while stream.write_all(&bytes).is_ok() && stream.read(&mut bytes[..1]).is_ok_and(|count| count > 0) {}
    });
    let mut guest = Guest::new(config());
    let handle = guest.connected(port, 50_000, 1 << 20);
    guest.write(handle, &pattern(6, 1 << 20));
    drop(guest);
    server.join().unwrap();
}
