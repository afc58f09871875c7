//! DHCP and DNS.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

use network::{Config, NameServers};
use smoltcp::socket::dhcpv4::{self, Event};
use smoltcp::socket::dns::{self, GetQueryResultError};
use smoltcp::socket::udp;
use smoltcp::wire::{DnsQueryType, IpAddress};

use crate::guest::{Guest, config};

#[test]
fn dhcp_gives_everything() {
    let mut guest = Guest::without_address(config(), 256);
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let (address, router, servers) = guest.until("lease", |guest| {
        let Some(Event::Configured(lease)) = guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() else {
            return None;
        };
        Some((lease.address, lease.router, lease.dns_servers.to_vec()))
    });
    assert_eq!((address.address(), address.prefix_len()), (network::GUEST, 24));
    assert_eq!(router, Some(network::GATEWAY));
    assert_eq!(servers, [network::DNS]);
}

/// A name server that answers every question for an address with `address`, after `skip` questions that it leaves.
fn name_server(address: Ipv4Addr, skip: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 1500];
        for number in 0.. {
            let Ok((count, from)) = socket.recv_from(&mut bytes) else { return };
            if number < skip {
                continue;
            }
            let mut answer = bytes[..count].to_vec();
            answer[2] |= 0x80;
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            answer.extend(address.octets());
            socket.send_to(&answer, from).unwrap();
        }
    });
    at
}

/// An address of loopback where nobody answers.
fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn resolve(guest: &mut Guest, name: &str) -> Result<Vec<IpAddress>, GetQueryResultError> {
    let socket = dns::Socket::new(&[network::DNS.into()], vec![]);
    let handle = guest.sockets.add(socket);
    let socket = guest.sockets.get_mut::<dns::Socket<'_>>(handle);
    let query = socket.start_query(guest.interface.context(), name, DnsQueryType::A).unwrap();
    let result =
        guest.until("name", |guest| match guest.sockets.get_mut::<dns::Socket<'_>>(handle).get_query_result(query) {
            Err(GetQueryResultError::Pending) => None,
            result => Some(result.map(|addresses| addresses.to_vec())),
        });
    // Else it would take the answers to the next one's questions.
    guest.sockets.remove(handle);
    result
}

fn asking(servers: Vec<SocketAddr>) -> Guest {
    Guest::new(Config { name_servers: NameServers::Fixed(servers), ..config() })
}

#[test]
fn queries_go_to_the_hosts_servers_and_past_those_that_are_gone() {
    let address = Ipv4Addr::new(192, 0, 2, 7);
    let server = name_server(address, 0);
    let mut guest = asking(vec![nobody(), server]);
    assert_eq!(resolve(&mut guest, "deb.example.org"), Ok(vec![address.into()]));
    let silent = name_server(address, usize::MAX);
    let mut guest = asking(vec![silent, server]);
    assert_eq!(resolve(&mut guest, "deb.example.org"), Ok(vec![address.into()]), "after a timeout");
}

#[test]
fn without_servers_the_hosts_own_lookup_answers() {
    let mut guest = asking(vec![nobody()]);
    assert_eq!(resolve(&mut guest, "localhost"), Ok(vec![Ipv4Addr::LOCALHOST.into()]));
    // A numeric name needs no network to be looked up by the host.
    assert_eq!(resolve(&mut guest, "192.0.2.9"), Ok(vec![Ipv4Addr::new(192, 0, 2, 9).into()]));
}

#[test]
fn queries_over_tcp_go_to_the_first_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut query = [0; 14];
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut query).unwrap();
        stream.write_all(&query).unwrap();
    });
    let mut guest = asking(vec![at]);
    let handle = guest.tcp(4096);
    guest.connect(handle, (network::DNS, 53), 50_000);
    guest.until("connect", |guest| guest.socket(handle).may_send().then_some(()));
    guest.write(handle, &[7; 14]);
    assert_eq!(guest.read(handle, 14), [7; 14]);
    server.join().unwrap();
}

#[test]
fn rubbish_for_the_name_server_is_left_alone() {
    let mut guest = asking(vec![nobody()]);
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 65_536]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(1000).unwrap();
    let handle = guest.sockets.add(socket);
    for bytes in [&[][..], &[0; 5], &[0xff; 12], &[0; 12], &[1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63, 1, 2]] {
        let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
        socket.send_slice(bytes, (network::DNS, 53)).unwrap();
        guest.poll();
    }
    assert_eq!(resolve(&mut guest, "localhost"), Ok(vec![Ipv4Addr::LOCALHOST.into()]), "it still answers");
}
