//! `sun.nio.ch.Net`: groups of receivers; and `PollSelectorImpl`.

use super::Table;
use super::support::{VOID, all_bytes, descriptor, int, io_exception, socket_exception, waiting};
use crate::interpreter::Arguments;
use crate::services::{Failure, network};
use crate::thread::{Result, Thread};

/// `IOStatus.UNAVAILABLE`
const UNAVAILABLE: i32 = -2;

/// Options of IPv6 that name a source (RFC 3678).
const JOIN_SOURCE: i32 = 46;
const LEAVE_SOURCE: i32 = 47;
const BLOCK_SOURCE: i32 = 43;
const UNBLOCK_SOURCE: i32 = 44;

fn change(thread: &mut Thread, arguments: Arguments, level: i32, option: i32, record: &[u8]) -> Result<u64> {
    match network::set_option_bytes(descriptor(arguments.reference(1)), level, option, record) {
        Ok(()) => Ok(VOID),
        // Then the class library says that the host cannot do it.
        Err(Failure::Host(libc::ENOPROTOOPT | libc::EOPNOTSUPP)) if arguments.boolean(0) => Ok(int(UNAVAILABLE)),
        Err(failure) => Err(socket_exception(thread, &failure)),
    }
}

/// `on, fd, group, interface, source`, addresses as numbers; `options` with and without, for all and for a source.
fn change4(thread: &mut Thread, arguments: Arguments, all: [i32; 2], source: [i32; 2]) -> Result<u64> {
    let which = usize::from(!arguments.boolean(0));
    let mut record = Vec::new();
    record.extend(arguments.int(2).to_be_bytes());
    record.extend(arguments.int(3).to_be_bytes());
    if arguments.int(4) == 0 {
        return change(thread, arguments, libc::IPPROTO_IP, all[which], &record);
    }
    record.extend(arguments.int(4).to_be_bytes());
    change(thread, arguments, libc::IPPROTO_IP, source[which], &record)
}

/// A `sockaddr_storage` with an address of IPv6.
fn storage(address: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes[..2].copy_from_slice(&10u16.to_ne_bytes());
    bytes.extend(address.iter().take(16));
    bytes.resize(size_of::<libc::sockaddr_storage>(), 0);
    bytes
}

/// `on, fd, group, index of the interface, source`
fn change6(thread: &mut Thread, arguments: Arguments, source: [i32; 2]) -> Result<u64> {
    let which = usize::from(!arguments.boolean(0));
    let (group, index) = (all_bytes(arguments.reference(2)), arguments.int(3));
    if arguments.reference(4).is_null() {
        let mut record = group;
        record.extend(index.to_ne_bytes());
        let option = [libc::IPV6_ADD_MEMBERSHIP, libc::IPV6_DROP_MEMBERSHIP][which];
        return change(thread, arguments, libc::IPPROTO_IPV6, option, &record);
    }
    // The index, and room up to the alignment of addresses.
    let mut record = index.to_ne_bytes().to_vec();
    record.resize(8, 0);
    record.extend(storage(&group));
    record.extend(storage(&all_bytes(arguments.reference(4))));
    change(thread, arguments, libc::IPPROTO_IPV6, source[which], &record)
}

fn set_interface(thread: &mut Thread, arguments: Arguments, v6: bool) -> Result<u64> {
    let (level, option, value) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, arguments.int(1))
    } else {
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF, arguments.int(1).to_be())
    };
    let set = network::set_option(descriptor(arguments.reference(0)), level, option, value);
    set.map(|()| VOID).map_err(|failure| socket_exception(thread, &failure))
}

fn interface(thread: &mut Thread, arguments: Arguments, v6: bool) -> Result<u64> {
    let socket = descriptor(arguments.reference(0));
    let value = if v6 {
        network::option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF)
    } else {
        network::option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF).map(i32::from_be)
    };
    value.map(int).map_err(|failure| socket_exception(thread, &failure))
}

/// `address, how many, timeout`
fn poll(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (address, count, timeout) = (arguments.long(0), arguments.int(2), arguments.int(3));
    // SAFETY: the selector's array, which it does not touch meanwhile.
    match waiting(thread, || unsafe { network::poll_many(address, count, timeout) }) {
        Ok(count) => Ok(int(count)),
        // `IOStatus.INTERRUPTED`
        Err(Failure::Host(libc::EINTR)) => Ok(int(-3)),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

pub(super) const TABLES: &[Table] = &[
    (
        "sun/nio/ch/Net",
        &[
            ("joinOrDrop4", "", |thread, a| {
                let all = [libc::IP_ADD_MEMBERSHIP, libc::IP_DROP_MEMBERSHIP];
                change4(thread, a, all, [libc::IP_ADD_SOURCE_MEMBERSHIP, libc::IP_DROP_SOURCE_MEMBERSHIP])
            }),
            ("blockOrUnblock4", "", |thread, a| {
                let options = [libc::IP_BLOCK_SOURCE, libc::IP_UNBLOCK_SOURCE];
                change4(thread, a, options, options)
            }),
            ("joinOrDrop6", "", |thread, a| change6(thread, a, [JOIN_SOURCE, LEAVE_SOURCE])),
            ("blockOrUnblock6", "", |thread, a| change6(thread, a, [BLOCK_SOURCE, UNBLOCK_SOURCE])),
            ("setInterface4", "", |thread, a| set_interface(thread, a, false)),
            ("getInterface4", "", |thread, a| interface(thread, a, false)),
            ("setInterface6", "", |thread, a| set_interface(thread, a, true)),
            ("getInterface6", "", |thread, a| interface(thread, a, true)),
        ],
    ),
    ("sun/nio/ch/PollSelectorImpl", &[("poll", "(JII)I", poll)]),
];
