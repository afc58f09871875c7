//! `java.net.PlainDatagramSocketImpl`: the datagram sockets before JEP 373, which `-Djdk.net.usePlainDatagramSocketImpl=true` brings back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Table;
use super::inet;
use super::java_net_network_interface as interfaces;
use super::java_net_plain_socket::{failed, failed_to_bind, integer, number, opened, options, set_number};
use super::sun_nio_ch_net::is_v6;
use super::support::{
    VOID, array_bytes, check_range, field, int, set_array_bytes, set_descriptor, socket_exception, waiting,
};
use crate::bootstrap;
use crate::boxing;
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::metadata::BasicType;
use crate::object::Reference;
use crate::services::classic::{self, Deadline};
use crate::services::{self, Failure, files, network};
use crate::thread::{Result, Thread, Thrown};

/// The largest datagram.
const LARGEST: i32 = 65_536;

fn descriptor_of(object: Reference) -> Reference {
    object.reference(field!("java/net/DatagramSocketImpl", "fd", "Ljava/io/FileDescriptor;"))
}

/// The open socket of the receiver.
fn socket(thread: &mut Thread, arguments: Arguments) -> Result<i32> {
    opened(thread, descriptor_of(arguments.reference(0)))
}

fn set_local_port(object: Reference, port: i32) {
    object.write(field!("java/net/DatagramSocketImpl", "localPort", "I"), port);
}

fn create(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    if descriptor_of(arguments.reference(0)).is_null() {
        return Err(exceptions::throw(thread, "java/net/SocketException", "Socket closed"));
    }
    let v6 = inet::has_ipv6(thread)?;
    let made = network::socket(v6, false).and_then(|socket| {
        network::set_option(socket, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
        network::prepare_for_groups(socket, v6)?;
        Ok(socket)
    });
    match made {
        Ok(socket) => {
            set_descriptor(descriptor_of(arguments.reference(0)), socket);
            Ok(VOID)
        }
        Err(failure) => Err(failed(thread, "java/net/SocketException", "Error creating socket", &failure)),
    }
}

fn close(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = descriptor_of(arguments.reference(0));
    let number = super::support::descriptor(object);
    if number >= 0 {
        set_descriptor(object, -1);
        // Nothing is to be done about one that does not close.
        let _ = waiting(thread, || classic::close(number));
    }
    Ok(VOID)
}

/// `this, port, address`
fn bind(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let address = inet::address(thread, arguments.reference(2), arguments.int(1))?;
    if let Err(failure) = network::bind(socket, address, is_v6(socket)) {
        return Err(failed_to_bind(thread, &failure));
    }
    let bound = network::address_of(socket, false).ok().flatten().unwrap_or(address);
    set_local_port(arguments.reference(0), i32::from(bound.port()));
    Ok(VOID)
}

/// `this, address, port`
fn connect(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let address = inet::address(thread, arguments.reference(1), arguments.int(2))?;
    let connected = network::connect(socket, address, is_v6(socket));
    connected.map(|()| VOID).map_err(|failure| failed(thread, "java/net/ConnectException", "Connect failed", &failure))
}

fn disconnect(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let Ok(socket) = socket(thread, arguments) else {
        thread.take_exception();
        return Ok(VOID);
    };
    if let Err(failure) = network::disconnect(socket) {
        return Err(failed(thread, "java/net/SocketException", "Disconnect failed", &failure));
    }
    // The host may have forgotten the port with the connection.
    let port: i32 = arguments.reference(0).read(field!("java/net/DatagramSocketImpl", "localPort", "I"));
    if let Ok(Some(mut address)) = network::address_of(socket, false)
        && address.port() == 0
    {
        address.set_port(u16::try_from(port).unwrap_or(0));
        if let Err(failure) = network::bind(socket, address, is_v6(socket)) {
            return Err(failed_to_bind(thread, &failure));
        }
    }
    Ok(VOID)
}

fn unreachable(thread: &mut Thread) -> Thrown {
    exceptions::throw(thread, "java/net/PortUnreachableException", "ICMP Port Unreachable")
}

/// Buffer, offset and length of a packet.
fn packet_buffer(thread: &mut Thread, packet: Reference, room: bool) -> Result<(Reference, i32, i32)> {
    if packet.is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "packet"));
    }
    let buffer = packet.reference(field!("java/net/DatagramPacket", "buf", "[B"));
    let offset: i32 = packet.read(field!("java/net/DatagramPacket", "offset", "I"));
    let length: i32 = if room {
        packet.read(field!("java/net/DatagramPacket", "bufLength", "I"))
    } else {
        packet.read(field!("java/net/DatagramPacket", "length", "I"))
    };
    if buffer.is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "packet buffer"));
    }
    check_range(thread, buffer, offset, length)?;
    Ok((buffer, offset, length))
}

fn packet_address(packet: Reference) -> Reference {
    packet.reference(field!("java/net/DatagramPacket", "address", "Ljava/net/InetAddress;"))
}

/// `this, packet`
fn send(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let (buffer, offset, length) = packet_buffer(thread, arguments.reference(1), false)?;
    let bytes = array_bytes(buffer, offset, length);
    let connected: bool =
        arguments.reference(0).read(field!("java/net/AbstractPlainDatagramSocketImpl", "connected", "Z"));
    let to = if connected {
        None
    } else {
        let port: i32 = arguments.reference(1).read(field!("java/net/DatagramPacket", "port", "I"));
        Some(inet::address(thread, packet_address(arguments.reference(1)), port)?)
    };
    match waiting(thread, || classic::send(socket, &bytes, to, is_v6(socket))) {
        Ok(()) => Ok(VOID),
        Err(Failure::Host(libc::ECONNREFUSED)) => Err(unreachable(thread)),
        Err(failure) => Err(failed(thread, "java/io/IOException", "sendto failed", &failure)),
    }
}

/// Receives into `room` bytes: what came, and where from.
fn receive_bytes(
    thread: &mut Thread,
    arguments: Arguments,
    room: i32,
    peek: bool,
) -> Result<(Vec<u8>, Option<SocketAddr>)> {
    let socket = socket(thread, arguments)?;
    let timeout: i32 = arguments.reference(0).read(field!("java/net/AbstractPlainDatagramSocketImpl", "timeout", "I"));
    let deadline = Deadline::after(timeout);
    let mut bytes = vec![0; usize::try_from(room.min(LARGEST)).unwrap_or(0)];
    match waiting(thread, || classic::receive(socket, &mut bytes, peek, deadline)) {
        Ok(Some((count, from))) => {
            bytes.truncate(count);
            Ok((bytes, from))
        }
        Ok(None) => Err(exceptions::throw(thread, "java/net/SocketTimeoutException", "Receive timed out")),
        Err(Failure::Host(libc::ECONNREFUSED)) => Err(unreachable(thread)),
        Err(failure) => Err(failed(thread, "java/net/SocketException", "Receive failed", &failure)),
    }
}

/// `this, packet`; the port that it came from.
fn receive(thread: &mut Thread, arguments: Arguments, peek: bool) -> Result<u64> {
    let (_, _, room) = packet_buffer(thread, arguments.reference(1), true)?;
    let (bytes, from) = receive_bytes(thread, arguments, room, peek)?;
    let from = from.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    // A packet that has the address already keeps its object.
    let known = packet_address(arguments.reference(1));
    let same = !known.is_null() && inet::address(thread, known, 0)?.ip() == from.ip();
    if !same {
        let address = inet::of_socket(thread, from)?;
        let place = field!("java/net/DatagramPacket", "address", "Ljava/net/InetAddress;");
        arguments.reference(1).set_reference(place, address.get());
    }
    // Others may have given it another buffer meanwhile.
    let (buffer, offset, room) = packet_buffer(thread, arguments.reference(1), true)?;
    let count = bytes.len().min(usize::try_from(room).unwrap_or(0));
    set_array_bytes(buffer, offset, &bytes[..count]);
    let packet = arguments.reference(1);
    packet.write(field!("java/net/DatagramPacket", "port", "I"), i32::from(from.port()));
    packet.write(field!("java/net/DatagramPacket", "length", "I"), i32::try_from(count).unwrap_or(0));
    Ok(int(i32::from(from.port())))
}

/// `this, address`, which becomes that of the next packet; its port.
fn peek(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    if arguments.reference(1).is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "Null address in peek()"));
    }
    let (_, from) = receive_bytes(thread, arguments, 1, true)?;
    let from = from.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    if let IpAddr::V4(address) = from.ip() {
        let place = field!("java/net/InetAddress", "holder", "Ljava/net/InetAddress$InetAddressHolder;");
        let holder = arguments.reference(1).reference(place);
        let address = u32::from(address).cast_signed();
        holder.write(field!("java/net/InetAddress$InetAddressHolder", "address", "I"), address);
        holder.write(field!("java/net/InetAddress$InetAddressHolder", "family", "I"), 1);
    }
    Ok(int(i32::from(from.port())))
}

/// Throws unless the option could be set.
fn set(thread: &mut Thread, result: services::Result<()>) -> Result<u64> {
    result
        .map(|()| VOID)
        .map_err(|failure| failed(thread, "java/net/SocketException", "Error setting socket option", &failure))
}

/// Makes a network interface the one that packets to groups leave by: its address of IPv4, its number.
fn set_interface(socket: i32, address: Ipv4Addr, index: i32) -> services::Result<()> {
    let mut record = Ipv4Addr::UNSPECIFIED.octets().to_vec();
    record.extend(address.octets());
    record.extend(index.to_ne_bytes());
    network::set_option_bytes(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &record)?;
    if is_v6(socket) {
        network::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)?;
    }
    Ok(())
}

fn index_of(interface: Reference) -> i32 {
    interface.read(field!("java/net/NetworkInterface", "index", "I"))
}

/// `this, option, value`
fn set_option(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let (option, value) = (arguments.int(1), arguments.reference(2));
    if value.is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "value argument"));
    }
    let is_on = |value: Reference| value.read::<bool>(field!("java/lang/Boolean", "value", "Z"));
    let result = match option {
        options::MULTICAST_INTERFACE => {
            let address = inet::address(thread, value, 0)?.ip();
            match interfaces::of_address(address) {
                _ if address.is_unspecified() => set_interface(socket, Ipv4Addr::UNSPECIFIED, 0),
                Ok(Some(index)) => {
                    let short = if let IpAddr::V4(address) = address { address } else { Ipv4Addr::UNSPECIFIED };
                    set_interface(socket, short, index)
                }
                Ok(None) => {
                    let text = "bad argument for IP_MULTICAST_IF: address not bound to any interface";
                    return Err(exceptions::throw(thread, "java/net/SocketException", text));
                }
                Err(failure) => Err(failure),
            }
        }
        options::MULTICAST_INTERFACE_2 => set_interface(socket, Ipv4Addr::UNSPECIFIED, index_of(value)),
        options::MULTICAST_LOOP => {
            // The class asks whether it is to be disabled.
            let on = i32::from(!is_on(value));
            let result = network::set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, on);
            let v6 = is_v6(socket);
            result.and_then(|()| {
                if v6 {
                    return network::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, on);
                }
                Ok(())
            })
        }
        options::SEND_BUFFER | options::RECEIVE_BUFFER | options::TYPE_OF_SERVICE => {
            let value = integer(thread, value)?;
            set_number(socket, option, value)
        }
        options::REUSE_ADDRESS | options::REUSE_PORT | options::BROADCAST => {
            set_number(socket, option, i32::from(is_on(value)))
        }
        _ => return Err(exceptions::throw(thread, "java/net/SocketException", "invalid option")),
    };
    set(thread, result)
}

/// The interface of packets to groups; none if it is the host's choice.
fn interface(thread: &mut Thread, socket: i32) -> Result<Option<Reference>> {
    let index = if is_v6(socket) {
        network::option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF)
    } else {
        let address = network::option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF);
        let bound =
            address.and_then(|address| interfaces::of_address(IpAddr::V4(Ipv4Addr::from(address.to_ne_bytes()))));
        bound.map(|index| index.unwrap_or(0))
    };
    match index.map_err(|failure| socket_exception(thread, &failure))? {
        index @ 1.. => Ok(interfaces::of_index(thread, index)?.map(|found| found.get())),
        _ => Ok(None),
    }
}

fn any_address(thread: &mut Thread, socket: i32) -> Result<crate::handle::Handle> {
    let any =
        if is_v6(socket) { SocketAddr::from(([0u16; 8], 0)) } else { SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)) };
    inet::of_socket(thread, any)
}

/// `this, option`
fn option(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let option = arguments.int(1);
    let (value, kind) = match option {
        options::MULTICAST_INTERFACE_2 => return Ok(interface(thread, socket)?.map_or(0, Reference::slot)),
        options::MULTICAST_INTERFACE => {
            let Some(found) = interface(thread, socket)? else {
                let signature = "()Ljava/net/InetAddress;";
                return bootstrap::call_static(thread, "java/net/InetAddress", "anyLocalAddress", signature, &[]);
            };
            let addresses = found.reference(field!("java/net/NetworkInterface", "addrs", "[Ljava/net/InetAddress;"));
            if addresses.is_null() || addresses.length() == 0 {
                let text = "IP_MULTICAST_IF2 returned interface without IP bindings";
                return Err(exceptions::throw(thread, "java/net/SocketException", text));
            }
            return Ok(addresses.reference_element(0).slot());
        }
        options::BOUND_TO => {
            let bound = network::address_of(socket, false).map_err(|failure| socket_exception(thread, &failure))?;
            return match bound {
                Some(address) => Ok(inet::of_socket(thread, address)?.slot()),
                None => Ok(any_address(thread, socket)?.slot()),
            };
        }
        options::MULTICAST_LOOP => {
            let on = if is_v6(socket) {
                network::option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP)
            } else {
                network::option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP)
            };
            (on.map(|on| i32::from(on == 0)), BasicType::Boolean)
        }
        options::SEND_BUFFER | options::RECEIVE_BUFFER | options::TYPE_OF_SERVICE => {
            (number(socket, option), BasicType::Int)
        }
        options::REUSE_ADDRESS | options::REUSE_PORT | options::BROADCAST => {
            (number(socket, option).map(|value| i32::from(value != 0)), BasicType::Boolean)
        }
        _ => return Err(exceptions::throw(thread, "java/net/SocketException", "Invalid option")),
    };
    match value {
        Ok(value) => Ok(boxing::box_value(thread, kind, int(value))?.slot()),
        Err(failure) => Err(failed(thread, "java/net/SocketException", "Error getting socket option", &failure)),
    }
}

/// How many routers packets to groups may pass.
fn time_to_live(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let value = if is_v6(socket) {
        network::option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS)
    } else {
        network::option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL)
    };
    value
        .map(int)
        .map_err(|failure| failed(thread, "java/net/SocketException", "Error getting socket option", &failure))
}

fn set_time_to_live(thread: &mut Thread, arguments: Arguments, value: i32) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let mut result = network::set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, value);
    if result.is_ok() && is_v6(socket) {
        result = network::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, value);
    }
    set(thread, result)
}

/// `this, group, interface`
fn member(thread: &mut Thread, arguments: Arguments, joins: bool) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let group = inet::address(thread, arguments.reference(1), 0)?.ip();
    let interface = arguments.reference(2);
    let index = if interface.is_null() { 0 } else { index_of(interface) };
    let which = usize::from(!joins);
    let result = match group {
        IpAddr::V4(group) => {
            let mut record = group.octets().to_vec();
            let own = network::option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF);
            record.extend(if index > 0 { [0; 4] } else { own.unwrap_or(0).to_ne_bytes() });
            record.extend(index.max(0).to_ne_bytes());
            let option = [libc::IP_ADD_MEMBERSHIP, libc::IP_DROP_MEMBERSHIP][which];
            network::set_option_bytes(socket, libc::IPPROTO_IP, option, &record)
        }
        IpAddr::V6(group) => {
            let own = || network::option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF).unwrap_or(0);
            let mut record = group.octets().to_vec();
            record.extend(if index > 0 { index } else { own() }.to_ne_bytes());
            let option = [libc::IPV6_ADD_MEMBERSHIP, libc::IPV6_DROP_MEMBERSHIP][which];
            network::set_option_bytes(socket, libc::IPPROTO_IPV6, option, &record)
        }
    };
    match result {
        Ok(()) => Ok(VOID),
        Err(Failure::Host(libc::ENOENT)) if !joins => {
            Err(exceptions::throw(thread, "java/net/SocketException", "Not a member of the multicast group"))
        }
        Err(failure) => Err(failed(thread, "java/net/SocketException", "Error setting socket option", &failure)),
    }
}

pub(super) const TABLES: &[Table] = &[
    ("java/net/AbstractPlainDatagramSocketImpl", &[("isReusePortAvailable0", "()Z", |_, _| Ok(int(1)))]),
    (
        "java/net/PlainDatagramSocketImpl",
        &[
            ("init", "()V", |_, _| Ok(VOID)),
            ("datagramSocketCreate", "()V", create),
            ("datagramSocketClose", "()V", close),
            ("bind0", "(ILjava/net/InetAddress;)V", bind),
            ("connect0", "(Ljava/net/InetAddress;I)V", connect),
            ("disconnect0", "(I)V", disconnect),
            ("send0", "(Ljava/net/DatagramPacket;)V", send),
            ("receive0", "(Ljava/net/DatagramPacket;)V", |thread, a| receive(thread, a, false).map(|_| VOID)),
            ("peekData", "(Ljava/net/DatagramPacket;)I", |thread, a| receive(thread, a, true)),
            ("peek", "(Ljava/net/InetAddress;)I", peek),
            ("dataAvailable", "()I", |thread, a| {
                let socket = socket(thread, a)?;
                Ok(int(files::available(socket).map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX))))
            }),
            ("socketSetOption0", "(ILjava/lang/Object;)V", set_option),
            ("socketGetOption", "(I)Ljava/lang/Object;", option),
            ("getTTL", "()B", time_to_live),
            ("getTimeToLive", "()I", time_to_live),
            ("setTTL", "(B)V", |thread, a| set_time_to_live(thread, a, a.int(1) & 0xFF)),
            ("setTimeToLive", "(I)V", |thread, a| set_time_to_live(thread, a, a.int(1))),
            ("join", "(Ljava/net/InetAddress;Ljava/net/NetworkInterface;)V", |thread, a| member(thread, a, true)),
            ("leave", "(Ljava/net/InetAddress;Ljava/net/NetworkInterface;)V", |thread, a| member(thread, a, false)),
        ],
    ),
];
