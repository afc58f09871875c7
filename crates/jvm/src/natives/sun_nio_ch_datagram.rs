//! `sun.nio.ch.DatagramChannelImpl`, `DatagramDispatcher`, `NativeSocketAddress` and `UnixDomainSockets`: datagrams, and sockets that have paths.

use std::mem::offset_of;

use super::Table;
use super::sun_nio_ch_files::{scatter, status};
use super::support::{VOID, all_bytes, descriptor, int, long, memory, set_descriptor, socket_exception, waiting};
use crate::allocate;
use crate::interpreter::Arguments;
use crate::services::{Failure, files, network};
use crate::thread::{Result, Thread};

/// `IOStatus`
const UNAVAILABLE: i32 = -2;
const INTERRUPTED: i32 = -3;

fn constant(value: usize) -> Result<u64> {
    Ok(int(i32::try_from(value).unwrap_or(0)))
}

/// `fd, address, length, where to: address, length`
fn send(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    // SAFETY: the channel's buffer and address, as long as it says.
    let (bytes, to) =
        unsafe { (memory(arguments.long(1), arguments.int(3)), memory(arguments.long(4), arguments.int(6))) };
    match waiting(thread, || network::send_to(socket, bytes, to)) {
        Ok(count) => Ok(int(i32::try_from(count).unwrap_or(i32::MAX))),
        Err(Failure::Host(libc::EAGAIN)) => Ok(int(UNAVAILABLE)),
        Err(Failure::Host(libc::EINTR)) => Ok(int(INTERRUPTED)),
        Err(Failure::Host(libc::ECONNREFUSED)) => {
            Err(crate::exceptions::throw_plain(thread, "java/net/PortUnreachableException"))
        }
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

/// `fd, address, length, address of where from, connected`
fn receive(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    let connected = arguments.boolean(6);
    // SAFETY: the channel's buffer and room for an address, which is that of IPv6.
    let (bytes, from) = unsafe {
        let size = i32::try_from(size_of::<libc::sockaddr_in6>()).unwrap_or(0);
        (memory(arguments.long(1), arguments.int(3)), memory(arguments.long(4), size))
    };
    loop {
        match waiting(thread, || network::receive_from(socket, bytes, from)) {
            Ok(count) => return Ok(int(i32::try_from(count).unwrap_or(i32::MAX))),
            Err(Failure::Host(libc::EAGAIN)) => return Ok(int(UNAVAILABLE)),
            Err(Failure::Host(libc::EINTR)) => return Ok(int(INTERRUPTED)),
            // What was sent before has come back; it is nobody's who receives.
            Err(Failure::Host(libc::ECONNREFUSED)) if !connected => {}
            Err(Failure::Host(libc::ECONNREFUSED)) => {
                return Err(crate::exceptions::throw_plain(thread, "java/net/PortUnreachableException"));
            }
            Err(failure) => return Err(socket_exception(thread, &failure)),
        }
    }
}

/// `fd, address, length` of a connected socket
fn transfer(thread: &mut Thread, arguments: Arguments, writes: bool) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    // SAFETY: the channel's buffer, as long as it says.
    let bytes = unsafe { memory(arguments.long(1), arguments.int(3)) };
    let result =
        waiting(thread, || if writes { files::write_once(socket, bytes) } else { files::read_once(socket, bytes) });
    if result == Err(Failure::Host(libc::ECONNREFUSED)) {
        return Err(crate::exceptions::throw_plain(thread, "java/net/PortUnreachableException"));
    }
    // A datagram may be empty: that is not the end.
    let count = status(thread, result, false)?;
    Ok(int(i32::try_from(count).unwrap_or(i32::MAX)))
}

/// `fd, address of (address, length) pairs, count` of a connected socket: one datagram.
fn vector(thread: &mut Thread, arguments: Arguments, writes: bool) -> Result<u64> {
    let result = scatter(thread, arguments, writes);
    if result == Err(Failure::Host(libc::ECONNREFUSED)) {
        return Err(crate::exceptions::throw_plain(thread, "java/net/PortUnreachableException"));
    }
    status(thread, result, false).map(long)
}

fn accept_local(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    match waiting(thread, || network::accept(socket)) {
        Ok((accepted, _)) => {
            set_descriptor(arguments.reference(1), accepted);
            let path = network::local_path(accepted, true).unwrap_or_default();
            let path = allocate::byte_array(thread, &path)?;
            arguments.reference(2).set_reference_element(0, path);
            Ok(int(1))
        }
        Err(Failure::Host(libc::EAGAIN)) => Ok(int(UNAVAILABLE)),
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

fn connect_local(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (socket, path) = (descriptor(arguments.reference(0)), all_bytes(arguments.reference(1)));
    match waiting(thread, || network::connect_local(socket, &path)) {
        Ok(()) => Ok(int(1)),
        Err(Failure::Host(libc::EINPROGRESS | libc::EAGAIN)) => Ok(int(UNAVAILABLE)),
        Err(Failure::Host(libc::EINTR)) => Ok(int(INTERRUPTED)),
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

pub(super) const TABLES: &[Table] = &[
    (
        "sun/nio/ch/DatagramChannelImpl",
        &[
            ("send0", "", send),
            ("receive0", "", receive),
            ("disconnect0", "", |thread, a| match network::disconnect(descriptor(a.reference(0))) {
                Ok(()) | Err(Failure::Host(libc::EAFNOSUPPORT)) => Ok(VOID),
                Err(failure) => Err(socket_exception(thread, &failure)),
            }),
        ],
    ),
    (
        "sun/nio/ch/DatagramDispatcher",
        &[
            ("read0", "", |thread, a| transfer(thread, a, false)),
            ("write0", "", |thread, a| transfer(thread, a, true)),
            ("readv0", "", |thread, a| vector(thread, a, false)),
            ("writev0", "", |thread, a| vector(thread, a, true)),
        ],
    ),
    (
        "sun/nio/ch/NativeSocketAddress",
        &[
            ("AFINET", "()I", |_, _| Ok(int(libc::AF_INET))),
            ("AFINET6", "()I", |_, _| Ok(int(libc::AF_INET6))),
            ("sizeofSockAddr4", "()I", |_, _| constant(size_of::<libc::sockaddr_in>())),
            ("sizeofSockAddr6", "()I", |_, _| constant(size_of::<libc::sockaddr_in6>())),
            ("sizeofFamily", "()I", |_, _| constant(size_of::<libc::sa_family_t>())),
            ("offsetFamily", "()I", |_, _| constant(offset_of!(libc::sockaddr, sa_family))),
            ("offsetSin4Port", "()I", |_, _| constant(offset_of!(libc::sockaddr_in, sin_port))),
            ("offsetSin4Addr", "()I", |_, _| constant(offset_of!(libc::sockaddr_in, sin_addr))),
            ("offsetSin6Port", "()I", |_, _| constant(offset_of!(libc::sockaddr_in6, sin6_port))),
            ("offsetSin6Addr", "()I", |_, _| constant(offset_of!(libc::sockaddr_in6, sin6_addr))),
            ("offsetSin6ScopeId", "()I", |_, _| constant(offset_of!(libc::sockaddr_in6, sin6_scope_id))),
            ("offsetSin6FlowInfo", "()I", |_, _| constant(offset_of!(libc::sockaddr_in6, sin6_flowinfo))),
        ],
    ),
    (
        "sun/nio/ch/UnixDomainSockets",
        &[
            ("init", "()Z", |_, _| Ok(1)),
            ("socket0", "()I", |thread, _| {
                network::local_socket().map(int).map_err(|failure| socket_exception(thread, &failure))
            }),
            ("bind0", "", |thread, a| {
                let (socket, path) = (descriptor(a.reference(0)), all_bytes(a.reference(1)));
                let bound = network::bind_local(socket, &path);
                bound.map(|()| VOID).map_err(|failure| socket_exception(thread, &failure))
            }),
            ("connect0", "", connect_local),
            ("accept0", "", accept_local),
            ("localAddress0", "", |thread, a| {
                let path = network::local_path(descriptor(a.reference(0)), false).unwrap_or_default();
                Ok(allocate::byte_array(thread, &path)?.slot())
            }),
        ],
    ),
];
