//! `sun.nio.ch.Net`, `SocketDispatcher`, `IOUtil`, `NativeThread`: sockets, and what channels share. `java.net.Socket` is built on them, too.

use super::Table;
use super::inet;
use super::sun_nio_ch_files::{scatter, status};
use super::support::{
    VOID, boolean, check_range, descriptor, int, io_exception, long, make, memory, set_array_bytes, set_descriptor,
    socket_exception, waiting,
};
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::services::{self, Failure, files, network};
use crate::thread::{Result, Thread};

/// `IOStatus`
const UNAVAILABLE: i32 = -2;
const INTERRUPTED: i32 = -3;

fn done(thread: &mut Thread, result: services::Result<()>) -> Result<u64> {
    result.map(|()| VOID).map_err(|failure| socket_exception(thread, &failure))
}

fn number(thread: &mut Thread, result: services::Result<i32>) -> Result<u64> {
    result.map(int).map_err(|failure| socket_exception(thread, &failure))
}

/// Whether a socket speaks IPv6.
pub(super) fn is_v6(socket: i32) -> bool {
    network::option(socket, libc::SOL_SOCKET, libc::SO_DOMAIN) == Ok(libc::AF_INET6)
}

/// `preferIPv6, stream, reuse, fastLoopback`
fn socket(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let v6 = arguments.boolean(0) && inet::has_ipv6(thread)?;
    let stream = arguments.boolean(1);
    let made = network::socket(v6, stream).and_then(|socket| {
        if arguments.boolean(2) {
            network::set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        }
        if !stream {
            network::prepare_for_groups(socket, v6)?;
        }
        Ok(socket)
    });
    number(thread, made)
}

/// `fd, preferIPv6, useExclBind, address, port`
fn bind(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    let address = inet::address(thread, arguments.reference(3), arguments.int(4))?;
    done(thread, network::bind(socket, address, is_v6(socket)))
}

/// `preferIPv6, fd, address, port`
fn connect(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = descriptor(arguments.reference(1));
    let address = inet::address(thread, arguments.reference(2), arguments.int(3))?;
    match waiting(thread, || network::connect(socket, address, is_v6(socket))) {
        Ok(()) => Ok(int(1)),
        Err(Failure::Host(libc::EINPROGRESS)) => Ok(int(UNAVAILABLE)),
        Err(Failure::Host(libc::EINTR)) => Ok(int(INTERRUPTED)),
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

/// `fd, new fd, InetSocketAddress[1]`
fn accept(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    let (accepted, from) = match waiting(thread, || network::accept(socket)) {
        Ok(accepted) => accepted,
        Err(Failure::Host(libc::EAGAIN)) => return Ok(int(UNAVAILABLE)),
        Err(failure) => return Err(socket_exception(thread, &failure)),
    };
    set_descriptor(arguments.reference(1), accepted);
    let Some(from) = from else { return Ok(int(1)) };
    let address = inet::of_socket(thread, from)?;
    let port = u64::from(from.port());
    let object =
        make(thread, "java/net/InetSocketAddress", "(Ljava/net/InetAddress;I)V", || vec![address.slot(), port])?;
    arguments.reference(2).set_reference_element(0, object.get());
    Ok(int(1))
}

fn end_of(thread: &mut Thread, arguments: Arguments, other: bool) -> Result<std::net::SocketAddr> {
    match network::address_of(descriptor(arguments.reference(0)), other) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(socket_exception(thread, &Failure::Host(libc::EAFNOSUPPORT))),
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

fn inet_address(thread: &mut Thread, arguments: Arguments, other: bool) -> Result<u64> {
    let address = end_of(thread, arguments, other)?;
    Ok(inet::of_socket(thread, address)?.slot())
}

fn port(thread: &mut Thread, arguments: Arguments, other: bool) -> Result<u64> {
    Ok(u64::from(end_of(thread, arguments, other)?.port()))
}

/// `fd, mayNeedConversion, level, option`
fn option(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (socket, level, option) = (descriptor(arguments.reference(0)), arguments.int(2), arguments.int(3));
    if (level, option) == (libc::SOL_SOCKET, libc::SO_LINGER) {
        return number(thread, network::linger(socket).map(|seconds| seconds.unwrap_or(-1)));
    }
    let value = network::option(socket, level, option).map(|value| {
        // The host keeps twice what it was told, for its own needs.
        let doubled = level == libc::SOL_SOCKET && matches!(option, libc::SO_SNDBUF | libc::SO_RCVBUF);
        if doubled && arguments.boolean(1) { value / 2 } else { value }
    });
    number(thread, value)
}

/// `fd, mayNeedConversion, level, option, value, isIPv6`
fn set_option(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (socket, level, option) = (descriptor(arguments.reference(0)), arguments.int(2), arguments.int(3));
    let value = arguments.int(4);
    if (level, option) == (libc::SOL_SOCKET, libc::SO_LINGER) {
        return done(thread, network::set_linger(socket, (value >= 0).then_some(value)));
    }
    done(thread, network::set_option(socket, level, option, value))
}

fn timeout(milliseconds: i64) -> i32 {
    i32::try_from(milliseconds).unwrap_or(if milliseconds < 0 { -1 } else { i32::MAX })
}

/// `fd, events, timeout`
fn poll(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (socket, milliseconds) = (descriptor(arguments.reference(0)), timeout(arguments.long(2)));
    let events = i16::try_from(arguments.int(1)).unwrap_or(0);
    match waiting(thread, || network::poll(socket, events, milliseconds)) {
        Ok(events) => Ok(int(i32::from(events))),
        Err(Failure::Host(libc::EINTR)) => Ok(int(0)),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// Whether a connection has come about; throws if it has failed.
fn poll_connect(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (socket, milliseconds) = (descriptor(arguments.reference(0)), timeout(arguments.long(1)));
    match waiting(thread, || network::poll(socket, libc::POLLOUT, milliseconds)) {
        Ok(0) | Err(Failure::Host(libc::EINTR)) => return Ok(boolean(false)),
        Ok(_) => {}
        Err(failure) => return Err(io_exception(thread, &failure)),
    }
    match network::option(socket, libc::SOL_SOCKET, libc::SO_ERROR) {
        Ok(0) => Ok(boolean(true)),
        Ok(number) => Err(socket_exception(thread, &Failure::Host(number))),
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

fn check_connect(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    match network::option(arguments.int(0), libc::SOL_SOCKET, libc::SO_ERROR) {
        Ok(0) => Ok(VOID),
        Ok(number) => Err(socket_exception(thread, &Failure::Host(number))),
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

/// `fd, address, length`
fn read(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    // SAFETY: the channel's buffer, as long as it says.
    let buffer = unsafe { memory(arguments.long(1), arguments.int(3)) };
    let result = waiting(thread, || files::read_once(socket, buffer));
    let count = received(thread, result)?;
    Ok(int(i32::try_from(count).unwrap_or(i32::MAX)))
}

/// What was read of a connection as an `IOStatus`: one that was reset has an exception of its own.
fn received(thread: &mut Thread, result: services::Result<usize>) -> Result<i64> {
    if result == Err(Failure::Host(libc::ECONNRESET)) {
        return Err(exceptions::throw(thread, "sun/net/ConnectionResetException", "Connection reset"));
    }
    status(thread, result, true)
}

fn random_bytes(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let array = arguments.reference(0);
    let length = if array.is_null() { 0 } else { i32::try_from(array.length()).unwrap_or(i32::MAX) };
    check_range(thread, array, 0, length)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    // The host's random numbers, as programs read them.
    let filled = files::open(b"/dev/random", libc::O_RDONLY, 0).and_then(|number| {
        let read = files::read(number, &mut bytes);
        let _ = files::close(number);
        read
    });
    if filled != Ok(bytes.len()) {
        return Ok(boolean(false));
    }
    set_array_bytes(array, 0, &bytes);
    Ok(boolean(true))
}

/// Reads all that is there and throws it away. Returns whether there was anything.
fn drain(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let mut buffer = [0; 128];
    let mut any = false;
    loop {
        match files::read(arguments.int(0), &mut buffer) {
            Ok(count) => {
                any |= count > 0;
                if count < buffer.len() {
                    return Ok(boolean(any));
                }
            }
            Err(Failure::Host(libc::EAGAIN)) => return Ok(boolean(any)),
            Err(failure) => return Err(io_exception(thread, &failure)),
        }
    }
}

fn drain_one(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    match files::read(arguments.int(0), &mut [0]) {
        Ok(count) => Ok(int(i32::try_from(count).unwrap_or(0))),
        Err(Failure::Host(libc::EAGAIN)) => Ok(int(0)),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

fn pipe(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    match network::pipe(arguments.boolean(0)) {
        Ok((read, write)) => Ok(long(i64::from(read) << 32 | i64::from(write))),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// A native that answers a constant.
macro_rules! constant {
    ($value:expr) => {
        |_: &mut Thread, _: Arguments| Ok(int(i32::try_from($value).unwrap_or(0)))
    };
}

pub(super) const TABLES: &[Table] = &[
    (
        "sun/nio/ch/Net",
        &[
            ("isIPv6Available0", "()Z", |thread, _| inet::has_ipv6(thread).map(boolean)),
            ("isReusePortAvailable0", "()Z", constant!(1)),
            ("isExclusiveBindAvailable", "()I", constant!(-1)),
            ("shouldSetBothIPv4AndIPv6Options0", "()Z", constant!(1)),
            ("canIPv6SocketJoinIPv4Group0", "()Z", constant!(1)),
            ("canJoin6WithIPv4Group0", "()Z", constant!(0)),
            ("canUseIPv6OptionsWithIPv4LocalAddress0", "()Z", constant!(1)),
            // Asked by later updates of JDK 17.
            ("shouldShutdownWriteBeforeClose0", "()Z", constant!(0)),
            ("pollinValue", "()S", constant!(libc::POLLIN)),
            ("polloutValue", "()S", constant!(libc::POLLOUT)),
            ("pollerrValue", "()S", constant!(libc::POLLERR)),
            ("pollhupValue", "()S", constant!(libc::POLLHUP)),
            ("pollnvalValue", "()S", constant!(libc::POLLNVAL)),
            ("pollconnValue", "()S", constant!(libc::POLLOUT)),
            ("socket0", "(ZZZZ)I", socket),
            ("bind0", "", bind),
            ("listen", "", |thread, a| done(thread, network::listen(descriptor(a.reference(0)), a.int(1)))),
            ("connect0", "", connect),
            ("accept", "", accept),
            ("localPort", "", |thread, a| port(thread, a, false)),
            ("localInetAddress", "", |thread, a| inet_address(thread, a, false)),
            ("remotePort", "", |thread, a| port(thread, a, true)),
            ("remoteInetAddress", "", |thread, a| inet_address(thread, a, true)),
            ("getIntOption0", "", option),
            ("setIntOption0", "", set_option),
            ("poll", "", poll),
            ("pollConnect", "", poll_connect),
            ("available", "", |thread, a| {
                let count = files::available(descriptor(a.reference(0)));
                number(thread, count.map(|count| i32::try_from(count).unwrap_or(i32::MAX)))
            }),
            ("shutdown", "", |thread, a| match network::shut_down(descriptor(a.reference(0)), a.int(1)) {
                Err(Failure::Host(libc::ENOTCONN)) => Ok(VOID),
                result => done(thread, result),
            }),
            ("sendOOB", "", |thread, a| {
                let byte = a.int(1).to_le_bytes()[0];
                let sent = network::send_urgent(descriptor(a.reference(0)), byte);
                status(thread, sent.map(|sent| usize::try_from(sent).unwrap_or(0)), false).map(long)
            }),
            ("discardOOB", "", constant!(0)),
        ],
    ),
    (
        "sun/nio/ch/SocketDispatcher",
        &[
            ("read0", "", read),
            ("readv0", "", |thread, a| {
                let result = scatter(thread, a, false);
                received(thread, result).map(long)
            }),
        ],
    ),
    ("sun/nio/ch/UnixAsynchronousSocketChannelImpl", &[("checkConnect", "(I)V", check_connect)]),
    (
        "sun/nio/ch/IOUtil",
        &[
            ("fdVal", "", |_, a| Ok(int(descriptor(a.reference(0))))),
            ("setfdVal", "", |_, a| {
                set_descriptor(a.reference(0), a.int(1));
                Ok(VOID)
            }),
            ("iovMax", "()I", constant!(1024)),
            ("fdLimit", "()I", |_, _| Ok(int(network::descriptors_max()))),
            ("randomBytes", "([B)Z", random_bytes),
            ("makePipe", "(Z)J", pipe),
            ("write1", "(IB)I", |thread, a| {
                let written = files::write(a.int(0), &a.int(1).to_le_bytes()[..1]);
                let count = status(thread, written, false)?;
                Ok(int(i32::try_from(count).unwrap_or(0)))
            }),
            ("drain", "(I)Z", drain),
            ("drain1", "(I)I", drain_one),
            ("configureBlocking", "", |thread, a| {
                let set = network::set_blocking(descriptor(a.reference(0)), a.boolean(1));
                set.map(|()| VOID).map_err(|failure| io_exception(thread, &failure))
            }),
        ],
    ),
    (
        "sun/nio/ch/NativeThread",
        &[
            ("init", "()V", |_, _| {
                network::prepare_interrupts();
                Ok(VOID)
            }),
            ("current", "()J", |_, _| Ok(long(network::interruptible_thread()))),
            // Asked by later updates of JDK 17.
            ("supportPendingSignals0", "()Z", |_, _| Ok(0)),
            ("signal", "(J)V", |_, a| {
                network::interrupt(a.long(0));
                Ok(VOID)
            }),
        ],
    ),
    (
        "sun/nio/ch/EPoll",
        &[
            ("eventSize", "()I", constant!(size_of::<libc::epoll_event>())),
            ("eventsOffset", "()I", constant!(std::mem::offset_of!(libc::epoll_event, events))),
            ("dataOffset", "()I", constant!(std::mem::offset_of!(libc::epoll_event, u64))),
            ("create", "()I", |thread, _| network::epoll().map(int).map_err(|failure| io_exception(thread, &failure))),
            ("ctl", "(IIII)I", |_, a| {
                let changed = network::epoll_change(a.int(0), a.int(1), a.int(2), a.int(3).cast_unsigned());
                Ok(int(changed.map_or_else(|failure| failure.number(), |()| 0)))
            }),
            ("wait", "(IJII)I", |thread, a| {
                let (number, address, count, milliseconds) = (a.int(0), a.long(1), a.int(3), a.int(4));
                // SAFETY: the class's table of so many events.
                let waited = waiting(thread, || unsafe { network::epoll_wait(number, address, count, milliseconds) });
                match waited {
                    Ok(count) => Ok(int(count)),
                    Err(Failure::Host(libc::EINTR)) => Ok(int(INTERRUPTED)),
                    Err(failure) => Err(io_exception(thread, &failure)),
                }
            }),
        ],
    ),
    (
        "sun/nio/ch/EventFD",
        &[
            ("eventfd0", "()I", |thread, _| {
                network::event_counter().map(int).map_err(|failure| io_exception(thread, &failure))
            }),
            ("set0", "(I)I", |thread, a| match files::write(a.int(0), &1u64.to_ne_bytes()) {
                // That it counts no higher is as good.
                Ok(_) | Err(Failure::Host(libc::EAGAIN)) => Ok(int(0)),
                Err(failure) => Err(io_exception(thread, &failure)),
            }),
        ],
    ),
];
