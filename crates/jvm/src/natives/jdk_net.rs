//! `jdk.net.LinuxSocketOptions`, and what counts for tools that look in from outside: `jdk.internal.perf.Perf`.

use super::Table;
use super::support::{VOID, int, make, socket_exception};
use crate::interpreter::Arguments;
use crate::services::network;
use crate::thread::{Result, Thread};

fn set(thread: &mut Thread, arguments: Arguments, option: i32) -> Result<u64> {
    let set = network::set_option(arguments.int(0), libc::IPPROTO_TCP, option, arguments.int(1));
    set.map(|()| VOID).map_err(|failure| socket_exception(thread, &failure))
}

fn get(thread: &mut Thread, arguments: Arguments, option: i32) -> Result<u64> {
    let value = network::option(arguments.int(0), libc::IPPROTO_TCP, option);
    value.map(int).map_err(|failure| socket_exception(thread, &failure))
}

/// `this, name, variability, units, value`: a buffer of 8 bytes that counts. Nobody reads it from outside, and it stays as long as the program.
fn create_counter(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let counter: &'static mut i64 = Box::leak(Box::new(arguments.long(4)));
    let address = std::ptr::from_mut(counter).expose_provenance() as u64;
    let buffer = make(thread, "java/nio/DirectByteBuffer", "(JI)V", || vec![address, 0, 8])?;
    Ok(buffer.slot())
}

pub(super) const TABLES: &[Table] = &[
    (
        "jdk/net/LinuxSocketOptions",
        &[
            ("quickAckSupported0", "()Z", |_, _| Ok(1)),
            ("keepAliveOptionsSupported0", "()Z", |_, _| Ok(1)),
            ("incomingNapiIdSupported0", "()Z", |_, _| Ok(0)),
            ("getIncomingNapiId0", "(I)I", |thread, a| {
                let value = network::option(a.int(0), libc::SOL_SOCKET, 56);
                value.map(int).map_err(|failure| socket_exception(thread, &failure))
            }),
            // User above, group below.
            ("getSoPeerCred0", "(I)J", |thread, a| match network::peer(a.int(0)) {
                Ok((user, group)) => Ok((u64::from(user) << 32) | u64::from(group)),
                Err(failure) => Err(socket_exception(thread, &failure)),
            }),
            ("setQuickAck0", "(IZ)V", |thread, a| set(thread, a, libc::TCP_QUICKACK)),
            ("getQuickAck0", "(I)Z", |thread, a| get(thread, a, libc::TCP_QUICKACK)),
            ("setTcpKeepAliveProbes0", "(II)V", |thread, a| set(thread, a, libc::TCP_KEEPCNT)),
            ("setTcpKeepAliveTime0", "(II)V", |thread, a| set(thread, a, libc::TCP_KEEPIDLE)),
            ("setTcpKeepAliveIntvl0", "(II)V", |thread, a| set(thread, a, libc::TCP_KEEPINTVL)),
            ("getTcpKeepAliveProbes0", "(I)I", |thread, a| get(thread, a, libc::TCP_KEEPCNT)),
            ("getTcpKeepAliveTime0", "(I)I", |thread, a| get(thread, a, libc::TCP_KEEPIDLE)),
            ("getTcpKeepAliveIntvl0", "(I)I", |thread, a| get(thread, a, libc::TCP_KEEPINTVL)),
        ],
    ),
    (
        "jdk/internal/perf/Perf",
        &[
            ("createLong", "(Ljava/lang/String;IIJ)Ljava/nio/ByteBuffer;", create_counter),
            ("highResFrequency", "()J", |_, _| Ok(1_000_000_000)),
        ],
    ),
    // Then the class maps the file itself.
    ("jdk/internal/jimage/NativeImageBuffer", &[("getNativeMap", "", |_, _| Ok(0))]),
];
