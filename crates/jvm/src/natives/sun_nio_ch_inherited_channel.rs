//! `sun.nio.ch.InheritedChannel`: `System.inheritedChannel`, the socket that inetd starts a program with; and `sun.net.sdp.SdpSupport`.

use super::Table;
use super::inet;
use super::support::{VOID, boolean, int, io_exception, path_bytes};
use crate::allocate;
use crate::interpreter::Arguments;
use crate::services::{self, files, network};
use crate::thread::{Result, Thread};

fn done(thread: &mut Thread, result: services::Result<()>) -> Result<u64> {
    result.map(|()| VOID).map_err(|failure| io_exception(thread, &failure))
}

fn number(thread: &mut Thread, result: services::Result<i32>) -> Result<u64> {
    result.map(int).map_err(|failure| io_exception(thread, &failure))
}

fn option(socket: i32, option: i32) -> i32 {
    network::option(socket, libc::SOL_SOCKET, option).unwrap_or(-1)
}

/// `AF_INET`, `AF_INET6` and `AF_UNIX` of the class, or `AF_UNKNOWN`.
fn family(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(int(match option(arguments.int(0), libc::SO_DOMAIN) {
        libc::AF_INET => 1,
        libc::AF_INET6 => 2,
        libc::AF_UNIX => 3,
        _ => -1,
    }))
}

/// `SOCK_STREAM` and `SOCK_DGRAM` of the class, or `UNKNOWN`.
fn kind(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(int(match option(arguments.int(0), libc::SO_TYPE) {
        libc::SOCK_STREAM => 1,
        libc::SOCK_DGRAM => 2,
        _ => -1,
    }))
}

fn peer(arguments: Arguments) -> Option<std::net::SocketAddr> {
    network::address_of(arguments.int(0), true).ok().flatten()
}

fn peer_address(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    match peer(arguments) {
        Some(address) => Ok(inet::of_socket(thread, address)?.slot()),
        None => Ok(0),
    }
}

fn peer_path(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    match network::local_path(arguments.int(0), true) {
        Ok(path) => Ok(allocate::byte_array(thread, &path)?.slot()),
        Err(_) => Ok(0),
    }
}

pub(super) const TABLES: &[Table] = &[
    (
        "sun/nio/ch/InheritedChannel",
        &[
            ("initIDs", "()V", |_, _| Ok(VOID)),
            ("dup", "(I)I", |thread, a| number(thread, files::duplicate(a.int(0)))),
            ("dup2", "(II)V", |thread, a| done(thread, files::duplicate_to(a.int(0), a.int(1)))),
            ("open0", "(Ljava/lang/String;I)I", |thread, a| {
                let path = path_bytes(a.reference(0));
                // `O_RDONLY`, `O_WRONLY` and `O_RDWR` of the class are those of the host.
                number(thread, files::open(&path, a.int(1), 0))
            }),
            ("close0", "(I)V", |thread, a| done(thread, files::close(a.int(0)))),
            ("soType0", "(I)I", kind),
            ("addressFamily", "(I)I", family),
            ("inetPeerAddress0", "(I)Ljava/net/InetAddress;", peer_address),
            ("unixPeerAddress0", "(I)[B", peer_path),
            ("peerPort0", "(I)I", |_, a| Ok(int(peer(a).map_or(-1, |address| i32::from(address.port()))))),
            ("isConnected", "(I)Z", |_, a| Ok(boolean(network::address_of(a.int(0), true).is_ok()))),
        ],
    ),
    (
        "sun/net/sdp/SdpSupport",
        &[
            ("create0", "()I", |thread, _| number(thread, network::direct_socket())),
            ("convert0", "(I)V", |thread, a| {
                let converted = network::direct_socket().and_then(|socket| {
                    let moved = files::duplicate_to(socket, a.int(0));
                    let _ = files::close(socket);
                    moved
                });
                done(thread, converted)
            }),
        ],
    ),
];
