//! `java.net.PlainSocketImpl` and its streams: the sockets before JEP 353, which `-Djdk.net.usePlainSocketImpl=true` brings back.

use std::net::SocketAddr;

use super::Table;
use super::inet;
use super::sun_nio_ch_net::is_v6;
use super::support::{
    VOID, array_bytes, check_range, descriptor, field, int, set_array_bytes, set_descriptor, waiting,
};
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::object::Reference;
use crate::services::classic::{self, Deadline};
use crate::services::{self, Failure, files, network};
use crate::thread::{Result, Thread, Thrown};

/// As much as is read or written at once.
const CHUNK: i32 = 64 << 10;

/// `java.net.SocketOptions`
pub(super) mod options {
    pub(crate) const NO_DELAY: i32 = 1;
    pub(crate) const TYPE_OF_SERVICE: i32 = 3;
    pub(crate) const REUSE_ADDRESS: i32 = 4;
    pub(crate) const KEEP_ALIVE: i32 = 8;
    pub(crate) const REUSE_PORT: i32 = 0xE;
    pub(crate) const BOUND_TO: i32 = 0xF;
    pub(crate) const MULTICAST_INTERFACE: i32 = 0x10;
    pub(crate) const MULTICAST_LOOP: i32 = 0x12;
    pub(crate) const MULTICAST_INTERFACE_2: i32 = 0x1F;
    pub(crate) const BROADCAST: i32 = 0x20;
    pub(crate) const LINGER: i32 = 0x80;
    pub(crate) const SEND_BUFFER: i32 = 0x1001;
    pub(crate) const RECEIVE_BUFFER: i32 = 0x1002;
    pub(crate) const OUT_OF_BAND: i32 = 0x1003;
    pub(crate) const TIMEOUT: i32 = 0x1006;
}

/// Level and option of the host.
pub(super) fn host_option(option: i32) -> Option<(i32, i32)> {
    Some(match option {
        options::NO_DELAY => (libc::IPPROTO_TCP, libc::TCP_NODELAY),
        options::TYPE_OF_SERVICE => (libc::IPPROTO_IP, libc::IP_TOS),
        options::REUSE_ADDRESS => (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        options::KEEP_ALIVE => (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        options::REUSE_PORT => (libc::SOL_SOCKET, libc::SO_REUSEPORT),
        options::BROADCAST => (libc::SOL_SOCKET, libc::SO_BROADCAST),
        options::SEND_BUFFER => (libc::SOL_SOCKET, libc::SO_SNDBUF),
        options::RECEIVE_BUFFER => (libc::SOL_SOCKET, libc::SO_RCVBUF),
        options::OUT_OF_BAND => (libc::SOL_SOCKET, libc::SO_OOBINLINE),
        options::LINGER => (libc::SOL_SOCKET, libc::SO_LINGER),
        _ => return None,
    })
}

/// Throws what a call failed with, as these classes word it.
pub(super) fn failed(thread: &mut Thread, class: &str, what: &str, failure: &Failure) -> Thrown {
    match failure {
        Failure::Host(libc::EBADF) => exceptions::throw(thread, "java/net/SocketException", "Socket closed"),
        Failure::Host(_) => exceptions::throw(thread, class, format!("{failure} ({what})")),
        Failure::Refused(_) => exceptions::throw(thread, class, failure.to_string()),
    }
}

/// The descriptor of a `FileDescriptor`, which must be open.
pub(super) fn opened(thread: &mut Thread, descriptor_object: Reference) -> Result<i32> {
    match descriptor(descriptor_object) {
        ..0 => Err(exceptions::throw(thread, "java/net/SocketException", "Socket closed")),
        number => Ok(number),
    }
}

fn descriptor_of(object: Reference) -> Reference {
    object.reference(field!("java/net/SocketImpl", "fd", "Ljava/io/FileDescriptor;"))
}

/// The open socket of the receiver.
fn socket(thread: &mut Thread, arguments: Arguments) -> Result<i32> {
    opened(thread, descriptor_of(arguments.reference(0)))
}

fn set_local_port(object: Reference, socket: i32) {
    if let Ok(Some(address)) = network::address_of(socket, false) {
        object.write(field!("java/net/SocketImpl", "localport", "I"), i32::from(address.port()));
    }
}

fn local_port(object: Reference) -> i32 {
    object.read(field!("java/net/SocketImpl", "localport", "I"))
}

fn address_argument(thread: &mut Thread, arguments: Arguments, index: usize) -> Result<SocketAddr> {
    if arguments.reference(index).is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "inet address argument is null."));
    }
    inet::address(thread, arguments.reference(index), arguments.int(index + 1))
}

fn set_address(object: Reference, address: Reference) {
    object.set_reference(field!("java/net/SocketImpl", "address", "Ljava/net/InetAddress;"), address);
}

/// `this, stream, server`
fn create(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (stream, server) = (arguments.boolean(1), arguments.boolean(2));
    if descriptor_of(arguments.reference(0)).is_null() {
        return Err(exceptions::throw(thread, "java/net/SocketException", "null fd object"));
    }
    let v6 = inet::has_ipv6(thread)?;
    let made = network::socket(v6, stream).and_then(|socket| {
        if server {
            network::set_blocking(socket, false)?;
            network::set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        }
        Ok(socket)
    });
    match made {
        Ok(socket) => {
            set_descriptor(descriptor_of(arguments.reference(0)), socket);
            Ok(VOID)
        }
        Err(failure) => Err(failed(thread, "java/net/SocketException", "Can't create socket", &failure)),
    }
}

/// `this, address, port, timeout`
fn connect(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = socket(thread, arguments)?;
    let address = address_argument(thread, arguments, 1)?;
    let deadline = Deadline::after(arguments.int(3));
    let result = waiting(thread, || classic::connect(number, address, is_v6(number), deadline));
    match result {
        Ok(true) => {}
        Ok(false) => return Err(exceptions::throw(thread, "java/net/SocketTimeoutException", "Connect timed out")),
        Err(failure) => {
            let (class, what) = match failure.number() {
                libc::EPROTO => ("java/net/ProtocolException", "Protocol error"),
                libc::ECONNREFUSED => ("java/net/ConnectException", "Connection refused"),
                libc::ETIMEDOUT => ("java/net/ConnectException", "Connection timed out"),
                libc::EHOSTUNREACH => ("java/net/NoRouteToHostException", "Host unreachable"),
                libc::EADDRNOTAVAIL => ("java/net/NoRouteToHostException", "Address not available"),
                libc::EISCONN => ("java/net/SocketException", "Socket closed"),
                _ => ("java/net/SocketException", "connect failed"),
            };
            return Err(failed(thread, class, what, &failure));
        }
    }
    let object = arguments.reference(0);
    set_address(object, arguments.reference(1));
    object.write(field!("java/net/SocketImpl", "port", "I"), arguments.int(2));
    if local_port(object) == 0 {
        set_local_port(object, number);
    }
    Ok(VOID)
}

/// `this, address, port`
fn bind(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = socket(thread, arguments)?;
    let address = address_argument(thread, arguments, 1)?;
    if let Err(failure) = network::bind(number, address, is_v6(number)) {
        return Err(failed_to_bind(thread, &failure));
    }
    let object = arguments.reference(0);
    set_address(object, arguments.reference(1));
    if address.port() == 0 {
        set_local_port(object, number);
    } else {
        object.write(field!("java/net/SocketImpl", "localport", "I"), i32::from(address.port()));
    }
    Ok(VOID)
}

/// Throws what no address could be had for.
pub(super) fn failed_to_bind(thread: &mut Thread, failure: &Failure) -> Thrown {
    let taken = matches!(failure.number(), libc::EADDRINUSE | libc::EADDRNOTAVAIL | libc::EPERM | libc::EACCES);
    let class = if taken { "java/net/BindException" } else { "java/net/SocketException" };
    failed(thread, class, "Bind failed", failure)
}

/// A call whose failure is a `SocketException`.
fn done(
    thread: &mut Thread,
    arguments: Arguments,
    what: &str,
    call: impl FnOnce(i32) -> services::Result<()>,
) -> Result<u64> {
    let number = socket(thread, arguments)?;
    let result = call(number);
    result.map(|()| VOID).map_err(|failure| failed(thread, "java/net/SocketException", what, &failure))
}

/// `this, socket`
fn accept(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = socket(thread, arguments)?;
    if arguments.reference(1).is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "socket is null"));
    }
    let timeout: i32 = arguments.reference(0).read(field!("java/net/AbstractPlainSocketImpl", "timeout", "I"));
    let deadline = Deadline::after(timeout);
    let (accepted, from) = match waiting(thread, || classic::accept(number, deadline)) {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return Err(exceptions::throw(thread, "java/net/SocketTimeoutException", "Accept timed out")),
        Err(failure) => return Err(failed(thread, "java/net/SocketException", "Accept failed", &failure)),
    };
    set_descriptor(descriptor_of(arguments.reference(1)), accepted);
    if let Some(from) = from {
        let address = match inet::of_socket(thread, from) {
            Ok(address) => address,
            Err(thrown) => {
                let _ = files::close(accepted);
                return Err(thrown);
            }
        };
        set_address(arguments.reference(1), address.get());
        arguments.reference(1).write(field!("java/net/SocketImpl", "port", "I"), i32::from(from.port()));
    }
    let port = local_port(arguments.reference(0));
    arguments.reference(1).write(field!("java/net/SocketImpl", "localport", "I"), port);
    Ok(VOID)
}

/// `this, whether others use it still`
fn close(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = socket(thread, arguments)?;
    let result = if arguments.boolean(1) {
        classic::end_waiting(number)
    } else {
        set_descriptor(descriptor_of(arguments.reference(0)), -1);
        waiting(thread, || classic::close(number))
    };
    result.map(|()| VOID).map_err(|failure| failed(thread, "java/net/SocketException", "close failed", &failure))
}

fn available(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = socket(thread, arguments)?;
    match files::available(number) {
        Ok(count) => Ok(int(i32::try_from(count).unwrap_or(i32::MAX))),
        Err(Failure::Host(libc::ECONNRESET)) => Err(connection_reset(thread)),
        Err(failure) => Err(failed(thread, "java/net/SocketException", "ioctl FIONREAD failed", &failure)),
    }
}

fn connection_reset(thread: &mut Thread) -> Thrown {
    exceptions::throw(thread, "sun/net/ConnectionResetException", "Connection reset")
}

/// The number in an `Integer`.
pub(super) fn integer(thread: &mut Thread, object: Reference) -> Result<i32> {
    if object.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    if object.class() != crate::loader::boot_class("java/lang/Integer") {
        return Err(exceptions::throw_plain(thread, "java/lang/ClassCastException"));
    }
    Ok(object.read(field!("java/lang/Integer", "value", "I")))
}

/// Sets an option that is a number.
pub(super) fn set_number(socket: i32, option: i32, value: i32) -> services::Result<()> {
    let Some((level, name)) = host_option(option) else { return Err(Failure::Host(libc::ENOPROTOOPT)) };
    if option == options::TYPE_OF_SERVICE && is_v6(socket) {
        network::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, value)?;
    }
    network::set_option(socket, level, name, value)
}

/// An option that is a number.
pub(super) fn number(socket: i32, option: i32) -> services::Result<i32> {
    let Some((level, name)) = host_option(option) else { return Err(Failure::Host(libc::ENOPROTOOPT)) };
    if option == options::TYPE_OF_SERVICE && is_v6(socket) {
        return network::option(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS);
    }
    let value = network::option(socket, level, name)?;
    // The host keeps twice what it was told, for its own needs.
    Ok(if matches!(option, options::SEND_BUFFER | options::RECEIVE_BUFFER) { value / 2 } else { value })
}

/// `this, option, on, value`
fn set_option(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let (option, on) = (arguments.int(1), arguments.boolean(2));
    let result = match option {
        // Kept by the class.
        options::TIMEOUT => Ok(()),
        options::LINGER => {
            let seconds = if on { Some(integer(thread, arguments.reference(3))?.min(65_535)) } else { None };
            network::set_linger(socket, seconds)
        }
        options::SEND_BUFFER | options::RECEIVE_BUFFER | options::TYPE_OF_SERVICE => {
            let value = integer(thread, arguments.reference(3))?;
            set_number(socket, option, value)
        }
        _ => set_number(socket, option, i32::from(on)),
    };
    result
        .map(|()| VOID)
        .map_err(|failure| failed(thread, "java/net/SocketException", "Error setting socket option", &failure))
}

/// `this, option, where an address goes`
fn option(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = socket(thread, arguments)?;
    let option = arguments.int(1);
    let value = match option {
        options::BOUND_TO => match network::address_of(socket, false) {
            Ok(address) => {
                let any = SocketAddr::from(([0; 4], 0));
                let address = inet::of_socket(thread, address.unwrap_or(any))?;
                let place = field!("java/net/InetAddressContainer", "addr", "Ljava/net/InetAddress;");
                if arguments.reference(2).is_null() {
                    return Err(exceptions::null_pointer(thread));
                }
                arguments.reference(2).set_reference(place, address.get());
                Ok(0)
            }
            Err(failure) => Err(failure),
        },
        options::LINGER => network::linger(socket).map(|seconds| seconds.unwrap_or(-1)),
        options::SEND_BUFFER | options::RECEIVE_BUFFER | options::TYPE_OF_SERVICE => number(socket, option),
        // Of what is on or off, -1 is off.
        _ => number(socket, option).map(|value| if value == 0 { -1 } else { 1 }),
    };
    value
        .map(int)
        .map_err(|failure| failed(thread, "java/net/SocketException", "Error getting socket option", &failure))
}

/// `this, fd, array, offset, length, timeout`
fn read(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = opened(thread, arguments.reference(1))?;
    let (offset, length) = (arguments.int(3), arguments.int(4).min(CHUNK));
    check_range(thread, arguments.reference(2), offset, length)?;
    let deadline = Deadline::after(arguments.int(5));
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
    match waiting(thread, || classic::read(socket, &mut buffer, deadline)) {
        Ok(Some(count)) => {
            set_array_bytes(arguments.reference(2), offset, &buffer[..count]);
            Ok(int(i32::try_from(count).unwrap_or(0)))
        }
        Ok(None) => Err(exceptions::throw(thread, "java/net/SocketTimeoutException", "Read timed out")),
        Err(Failure::Host(libc::ECONNRESET)) => Err(connection_reset(thread)),
        Err(failure) => Err(failed(thread, "java/net/SocketException", "Read failed", &failure)),
    }
}

/// `this, fd, array, offset, length`
fn write(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = opened(thread, arguments.reference(1))?;
    let (mut offset, length) = (arguments.int(3), arguments.int(4));
    check_range(thread, arguments.reference(2), offset, length)?;
    let end = offset + length;
    while offset < end {
        let bytes = array_bytes(arguments.reference(2), offset, (end - offset).min(CHUNK));
        if let Err(failure) = waiting(thread, || classic::write_all(socket, &bytes)) {
            return Err(failed(thread, "java/net/SocketException", "Write failed", &failure));
        }
        offset += i32::try_from(bytes.len()).unwrap_or(CHUNK);
    }
    Ok(VOID)
}

pub(super) const TABLES: &[Table] = &[
    ("java/net/AbstractPlainSocketImpl", &[("isReusePortAvailable0", "()Z", |_, _| Ok(int(1)))]),
    (
        "java/net/PlainSocketImpl",
        &[
            ("initProto", "()V", |_, _| Ok(VOID)),
            ("socketCreate", "(ZZ)V", create),
            ("socketConnect", "(Ljava/net/InetAddress;II)V", connect),
            ("socketBind", "(Ljava/net/InetAddress;I)V", bind),
            ("socketListen", "(I)V", |thread, a| {
                done(thread, a, "Listen failed", |socket| network::listen(socket, a.int(1)))
            }),
            ("socketAccept", "(Ljava/net/SocketImpl;)V", accept),
            ("socketAvailable", "()I", available),
            ("socketClose0", "(Z)V", close),
            ("socketShutdown", "(I)V", |thread, a| {
                done(thread, a, "Shutdown failed", |socket| network::shut_down(socket, a.int(1)))
            }),
            ("socketSetOption0", "(IZLjava/lang/Object;)V", set_option),
            ("socketGetOption", "(ILjava/lang/Object;)I", option),
            ("socketSendUrgentData", "(I)V", |thread, a| {
                let byte = a.int(1).to_le_bytes()[0];
                done(thread, a, "Write failed", |socket| network::send_urgent(socket, byte).map(drop))
            }),
        ],
    ),
    (
        "java/net/SocketCleanable",
        &[("cleanupClose0", "(I)V", |thread, a| {
            let number = a.int(0);
            let closed = files::close(number);
            closed.map(|()| VOID).map_err(|failure| failed(thread, "java/io/IOException", "close failed", &failure))
        })],
    ),
    (
        "java/net/SocketInputStream",
        &[("init", "()V", |_, _| Ok(VOID)), ("socketRead0", "(Ljava/io/FileDescriptor;[BIII)I", read)],
    ),
    (
        "java/net/SocketOutputStream",
        &[("init", "()V", |_, _| Ok(VOID)), ("socketWrite0", "(Ljava/io/FileDescriptor;[BII)V", write)],
    ),
];
