//! Guests that mean no good.

use std::net::TcpListener;

use machine::backend::NetworkBackend;
use proptest::prelude::*;
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber};

use crate::guest::{Guest, config, frame, many_descriptors, pattern};

fn tcp(from: u16, to: u16, seq: i32, edit: impl FnOnce(&mut TcpPacket<&mut [u8]>), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + payload.len()];
    bytes[20..].copy_from_slice(payload);
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(from);
    packet.set_dst_port(to);
    packet.set_seq_number(TcpSeqNumber(seq));
    packet.set_header_len(20);
    packet.set_window_len(1000);
    edit(&mut packet);
    packet.fill_checksum(&IpAddress::Ipv4(network::GUEST), &IpAddress::Ipv4(network::GATEWAY));
    frame(IpProtocol::Tcp, [10, 0, 2, 2], 0, false, &bytes)
}

/// The network still serves: a connection through an echo.
fn assert_alive(guest: &mut Guest, local: u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let handle = guest.connected(listener.local_addr().unwrap().port(), local, 65_536);
    let (mut stream, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut stream, &pattern(9, 20_000)).unwrap();
    drop(stream);
    assert!(guest.read_to_end(handle) == pattern(9, 20_000));
    guest.socket(handle).close();
    guest.idle(5_000_000);
    guest.sockets.remove(handle);
}

fn protocol() -> impl Strategy<Value = IpProtocol> {
    prop_oneof![Just(IpProtocol::Tcp), Just(IpProtocol::Udp), Just(IpProtocol::Icmp), Just(IpProtocol::Unknown(99))]
}

/// Destinations that stay on this host, whatever is sent there.
fn destination() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![
        Just([10, 0, 2, 2]),
        Just([10, 0, 2, 3]),
        Just([10, 0, 2, 15]),
        Just([127, 0, 0, 1]),
        Just([255; 4]),
        Just([224, 0, 0, 1]),
        Just([0; 4])
    ]
}

/// Turns what looks like ports to the discard port: random bytes are not for the host's services.
fn to_discard(mut payload: Vec<u8>) -> Vec<u8> {
    if let Some(port) = payload.get_mut(2..4) {
        port.copy_from_slice(&[0, 9]);
    }
    payload
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        bytes(),
        (protocol(), destination(), 0u16..9000, any::<bool>(), bytes()).prop_map(
            |(protocol, to, fragment, more, payload)| {
                frame(protocol, to, fragment & !7, more, &to_discard(payload))
            }
        ),
        (protocol(), destination(), bytes(), 0usize..234, any::<u8>()).prop_map(
            |(protocol, to, payload, at, value)| {
                let mut bytes = frame(protocol, to, 0, false, &payload);
                let at = at % bytes.len();
                bytes[at] = value;
                bytes
            }
        ),
        (0u16..3, any::<u8>(), any::<i32>(), bytes()).prop_map(|(port, flags, seq, payload)| {
            tcp(
                port,
                9,
                seq,
                |packet| {
                    packet.set_syn(flags & 1 != 0);
                    packet.set_ack(flags & 2 != 0);
                    packet.set_fin(flags & 4 != 0);
                    packet.set_rst(flags & 8 != 0);
                    packet.set_header_len(flags >> 2 & 0x3c);
                },
                &payload,
            )
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn malformed_frames_are_survived(frames in proptest::collection::vec(any_frame(), 0..200)) {
        let mut guest = Guest::new(config());
        for frame in &frames {
            guest.port.network.send(frame);
        }
        assert_alive(&mut guest, 50_000);
    }
}

#[test]
fn a_flood_of_connections_is_bounded() {
    let _descriptors = many_descriptors();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::new(config());
    guest.poll();
    for from in 1..20_000 {
        guest.port.network.send(&tcp(from, port, 1, |packet| packet.set_syn(true), &[]));
    }
    guest.idle(200_000_000);
    assert_alive(&mut guest, 50_000);
}

#[test]
fn a_flood_of_flows_is_bounded() {
    let _descriptors = many_descriptors();
    let mut guest = Guest::new(config());
    for from in 1..5000u16 {
        let mut datagram = vec![0; 9];
        datagram[..2].copy_from_slice(&from.to_be_bytes());
        datagram[2..6].copy_from_slice(&[0, 9, 0, 9]);
        guest.port.network.send(&frame(IpProtocol::Udp, [10, 0, 2, 2], 0, false, &datagram));
    }
    assert_alive(&mut guest, 50_000);
}

#[test]
fn the_wrong_sender_is_not_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::new(config());
    for source in [[10, 0, 2, 2], [10, 0, 2, 3], [10, 0, 2, 255], [192, 0, 2, 1], [127, 0, 0, 1]] {
        let mut bytes = tcp(1, port, 1, |packet| packet.set_syn(true), &[]);
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        packet.set_src_addr(source.into());
        packet.fill_checksum();
        guest.port.network.send(&bytes);
    }
    guest.idle(100_000_000);
    assert!(listener.accept().is_err());
}
