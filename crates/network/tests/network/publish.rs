//! Connections and datagrams in.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;

use machine::clock::Clock;
use network::{Config, Network};
use smoltcp::socket::{tcp, udp};

use crate::guest::{Guest, config, pattern, published};

fn publishing(text: &[&str]) -> Config {
    Config { publish: text.iter().map(|text| text.parse().unwrap()).collect(), ..config() }
}

#[test]
fn a_connection_reaches_a_service_in_the_guest() {
    let mut guest = Guest::new(publishing(&["0:80"]));
    let address = published(&guest, 0);
    assert!(address.ip().is_loopback() && address.port() != 0);
    let handle = guest.tcp(65_536);
    guest.socket(handle).listen(80).unwrap();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&pattern(1, 300_000)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    guest.until("connection", |guest| guest.socket(handle).may_recv().then_some(()));
    let request = guest.read_to_end(handle);
    assert!(request == pattern(1, 300_000));
    let from = guest.socket(handle).remote_endpoint().unwrap();
    assert_eq!(from.addr, network::GATEWAY.into());
    guest.write(handle, &pattern(2, 200_000));
    guest.socket(handle).close();
    guest.until("close", |guest| (guest.socket(handle).state() == tcp::State::Closed).then_some(()));
    assert!(client.join().unwrap() == pattern(2, 200_000));
}

#[test]
fn a_service_may_start_later() {
    let mut guest = Guest::new(publishing(&["0:80"]));
    let address = published(&guest, 0);
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.read(&mut [0]).map(|_| ()).unwrap_err().kind()
    });
    guest.until("refusal", |_| client.is_finished().then_some(()));
    assert_eq!(client.join().unwrap(), std::io::ErrorKind::ConnectionReset, "nobody listens yet");

    let handle = guest.tcp(4096);
    guest.socket(handle).listen(80).unwrap();
    let client = thread::spawn(move || {
        let mut byte = [0];
        TcpStream::connect(address).unwrap().read_exact(&mut byte).unwrap();
        byte
    });
    guest.until("connection", |guest| guest.socket(handle).may_send().then_some(()));
    guest.write(handle, b"!");
    guest.until("answer", |_| client.is_finished().then_some(()));
    assert_eq!(client.join().unwrap(), *b"!");
}

#[test]
fn datagrams_reach_the_guest_and_answers_their_sender() {
    let mut guest = Guest::new(publishing(&["0:53/udp"]));
    let address = published(&guest, 0);
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 65_536]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(53).unwrap();
    let handle = guest.sockets.add(socket);
    guest.poll();
    let clients: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for (index, client) in (0u8..).zip(&clients) {
        client.connect(address).unwrap();
        // The first may come before the guest's Ethernet address is known.
        guest.until("datagram", |guest| {
            client.send(&[index]).unwrap();
            let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
            while let Ok((bytes, from)) = socket.recv() {
                let bytes = bytes.to_vec();
                assert_eq!(from.endpoint.addr, network::GATEWAY.into());
                socket.send_slice(&[bytes[0] + 100], from.endpoint).unwrap();
                if bytes == [index] {
                    return Some(());
                }
            }
            None
        });
    }
    for (index, client) in (0u8..).zip(&clients) {
        let mut answer = [0; 10];
        assert_eq!((client.recv(&mut answer).unwrap(), answer[0]), (1, index + 100));
    }
}

#[test]
fn what_cannot_be_published_is_an_error_that_helps() {
    let start = |text: &str| Network::start(publishing(&[text]), Arc::new(Clock::new())).map(|_| ()).unwrap_err();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind(taken).unwrap();
    assert_eq!(
        start(&format!("{}:80", taken.port())).to_string(),
        format!("tcp port {} is in use on 127.0.0.1: choose another host port, or 0 to have one chosen", taken.port())
    );
    drop(listener);
    let text = start("192.0.2.77:0:80").to_string();
    assert!(text.starts_with("192.0.2.77 is not an address of this host"), "{text}");
    let bad = Network::start(Config { mtu: 100, ..config() }, Arc::new(Clock::new())).map(|_| ()).unwrap_err();
    assert!(bad.to_string().contains("576"));
}
