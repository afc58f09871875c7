//! Datagrams and pings out.

use std::net::UdpSocket;
use std::thread;

use machine::backend::NetworkBackend;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, udp};
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Address, Ipv4Packet};

use crate::guest::{Guest, PATIENCE_NS, config, frame, pattern};

fn udp_socket(guest: &mut Guest, port: u16) -> SocketHandle {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 1 << 20]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    guest.sockets.add(socket)
}

fn echo_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut bytes = vec![0; 65_536];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            socket.send_to(&bytes[..count], from).unwrap();
        }
    });
    port
}

#[test]
fn datagrams_go_out_and_come_back_whole() {
    let port = echo_server();
    let mut guest = Guest::new(config());
    let handle = udp_socket(&mut guest, 1000);
    for size in [0, 1, 1000, 1472] {
        let bytes = pattern(1, size);
        guest.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(&bytes, (network::GATEWAY, port)).unwrap();
        let (answer, from) = guest.until("answer", |guest| {
            let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
            socket.recv().ok().map(|(bytes, from)| (bytes.to_vec(), from.endpoint))
        });
        assert_eq!(answer, bytes);
        assert_eq!(from, (network::GATEWAY, port).into());
    }
}

#[test]
fn large_datagrams_are_fragmented_both_ways() {
    let port = echo_server();
    let mut guest = Guest::new(config());
    let handle = udp_socket(&mut guest, 1000);
    for size in [1473, 3000] {
        let bytes = pattern(1, size);
        guest.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(&bytes, (network::GATEWAY, port)).unwrap();
        let answer = guest.until("answer", |guest| {
            let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
            socket.recv().ok().map(|(bytes, _)| bytes.to_vec())
        });
        assert_eq!(answer, bytes);
    }
}

#[test]
fn a_port_that_nobody_listens_on_is_unreachable() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut guest = Guest::new(config());
    let handle = udp_socket(&mut guest, 1000);
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 16], vec![0; 4096]);
    let mut errors = icmp::Socket::new(buffer(), buffer());
    errors.bind(icmp::Endpoint::Udp((network::GUEST, 1000).into())).unwrap();
    let errors = guest.sockets.add(errors);
    guest.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(b"?", (network::GATEWAY, port)).unwrap();
    let (message, from) = guest.until("error", |guest| {
        let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(errors);
        socket.recv().ok().map(|(bytes, from)| (bytes.to_vec(), from))
    });
    let message = Icmpv4Packet::new_checked(&message[..]).unwrap();
    assert_eq!((message.msg_type(), message.msg_code()), (Icmpv4Message::DstUnreachable, 3));
    assert_eq!(from, network::GATEWAY.into());
}

/// Sends a ping with these addresses and this time to live, as a frame; answers the type, the code and the sender of the answer.
fn ping(guest: &Guest, address: Ipv4Address, hop_limit: u8) -> (Icmpv4Message, u8, Ipv4Address) {
    let data = pattern(1, 56);
    let request = Icmpv4Repr::EchoRequest { ident: 77, seq_no: 5, data: &data };
    let mut message = vec![0; request.buffer_len()];
    request.emit(&mut Icmpv4Packet::new_unchecked(&mut message[..]), &ChecksumCapabilities::default());
    let mut sent = frame(IpProtocol::Icmp, address.octets(), 0, false, &message);
    let mut packet = Ipv4Packet::new_unchecked(&mut sent[14..]);
    packet.set_hop_limit(hop_limit);
    packet.fill_checksum();
    guest.port.network.send(&sent);
    let start_ns = guest.clock.now_ns();
    loop {
        assert!(guest.clock.now_ns() - start_ns < PATIENCE_NS, "no answer to a ping of {address}");
        guest.port.ring.wait();
        let Some(frame) = guest.port.ring.pop() else { continue };
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.dst_addr(), packet.next_header()), (network::GUEST, IpProtocol::Icmp));
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(icmp.verify_checksum());
        if icmp.msg_type() == Icmpv4Message::EchoReply {
            assert_eq!((icmp.echo_ident(), icmp.echo_seq_no(), icmp.data()), (77, 5, &data[..]));
        } else {
            assert_eq!(icmp.data(), &sent[14..], "the error quotes what was sent");
        }
        return (icmp.msg_type(), icmp.msg_code(), packet.src_addr());
    }
}

#[test]
fn pings() {
    use Icmpv4Message::{DstUnreachable, EchoReply, TimeExceeded};
    let guest = Guest::new(config());
    for address in [network::GATEWAY, network::DNS] {
        assert_eq!(ping(&guest, address, 64), (EchoReply, 0, address));
        assert_eq!(ping(&guest, address, 1), (EchoReply, 0, address), "it is one hop away");
    }
    let outside = Ipv4Address::new(198, 51, 100, 1);
    assert_eq!(ping(&guest, outside, 1), (TimeExceeded, 0, network::GATEWAY));
    assert_eq!(ping(&guest, Ipv4Address::new(10, 0, 2, 77), 64), (DstUnreachable, 1, network::GATEWAY));
    assert_eq!(ping(&guest, Ipv4Address::new(240, 0, 0, 1), 64), (DstUnreachable, 13, network::GATEWAY));
    assert_eq!(ping(&guest, Ipv4Address::LOCALHOST, 64), (DstUnreachable, 13, network::GATEWAY));
}
