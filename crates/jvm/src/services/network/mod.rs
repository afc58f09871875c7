//! Sockets.
//!
//! What is checked is where to: connecting, binding to a port, sending to an address. Accepted connections follow from the port.

mod interfaces;
mod local;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};

use super::{Failure, Refusal, Result, check, check_done, check_int, policy};

pub use interfaces::{Bound, Interface, frame_size, interfaces};
pub use local::{bind_local, connect_local, local_path, local_socket};

/// Whether the program may have a connection to or a socket at this address.
///
/// # Errors
/// If it may not.
pub fn allow(address: SocketAddr, doing: &str) -> Result<()> {
    if policy().permissions.allow_address(address) {
        return Ok(());
    }
    Err(Failure::Refused(Refusal { what: format!("{doing} {address}"), flag: format!("--allow-net={address}") }))
}

/// An address in the host's form, and how long it is.
pub struct HostAddress {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) length: libc::socklen_t,
}

impl HostAddress {
    /// Of an address as Rust has it. `v6`: for a socket that speaks IPv6, to which IPv4 is mapped.
    #[allow(clippy::cast_possible_truncation, reason = "sizes and families of addresses are small constants")]
    pub fn new(address: SocketAddr, v6: bool) -> Self {
        // SAFETY: zeroed memory is a valid address.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let length = match (address, v6) {
            (SocketAddr::V4(address), false) => {
                let short = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: any address fits into the storage, which is aligned for all.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(short) };
                size_of::<libc::sockaddr_in>()
            }
            (address, _) => {
                let (ip, flow, scope) = match address {
                    SocketAddr::V6(address) => (*address.ip(), address.flowinfo(), address.scope_id()),
                    // The address of all hosts is that of IPv6, so that both come in.
                    SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv6Addr::UNSPECIFIED, 0, 0),
                    SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0, 0),
                };
                let long = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: flow,
                    sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    sin6_scope_id: scope,
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(long) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, length: length as libc::socklen_t }
    }

    /// That of a socket's own end, or of the other.
    fn of(socket: i32, other: bool) -> Result<Self> {
        let mut address = Self::room();
        let storage = (&raw mut address.storage).cast();
        // SAFETY: there is room for as much as said.
        check_done(unsafe {
            if other {
                libc::getpeername(socket, storage, &raw mut address.length)
            } else {
                libc::getsockname(socket, storage, &raw mut address.length)
            }
        })?;
        Ok(address)
    }

    /// Room for an address that the host fills in.
    #[allow(clippy::cast_possible_truncation, reason = "128 bytes")]
    pub(super) fn room() -> Self {
        // SAFETY: zeroed memory is a valid address.
        Self { storage: unsafe { std::mem::zeroed() }, length: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    /// As Rust has it; an IPv4 address that is mapped to IPv6 is IPv4. `None` for other kinds.
    pub(super) fn to_rust(&self) -> Option<SocketAddr> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family tells the type.
                let short = unsafe { self.pointer().cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(short.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(short.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: the family tells the type.
                let long = unsafe { self.pointer().cast::<libc::sockaddr_in6>().read() };
                let ip = Ipv6Addr::from(long.sin6_addr.s6_addr);
                let port = u16::from_be(long.sin6_port);
                Some(match ip.to_ipv4_mapped() {
                    Some(ip) => SocketAddrV4::new(ip, port).into(),
                    None => SocketAddrV6::new(ip, port, long.sin6_flowinfo, long.sin6_scope_id).into(),
                })
            }
            _ => None,
        }
    }
}

/// Whether the host speaks IPv6, to this program.
pub fn has_ipv6() -> bool {
    if policy().permissions.network.is_empty() {
        return false;
    }
    // SAFETY: numbers.
    let socket = unsafe { libc::socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return false;
    }
    let works = bind_unchecked(socket, SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), true).is_ok();
    // SAFETY: made above.
    unsafe { libc::close(socket) };
    works
}

/// A new socket. One of IPv6 speaks IPv4, too.
///
/// # Errors
/// If the host refuses, or the permissions name no address at all.
pub fn socket(v6: bool, stream: bool) -> Result<i32> {
    if policy().permissions.network.is_empty() {
        let what = "opening a socket".into();
        return Err(Failure::Refused(Refusal { what, flag: "--allow-net=HOST:PORT".into() }));
    }
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = if stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
    // SAFETY: numbers.
    let socket = check_int(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })?;
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    }
    Ok(socket)
}

/// A new socket of the Sockets Direct Protocol, which hosts with InfiniBand have.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn direct_socket() -> Result<i32> {
    const AF_INET_SDP: i32 = 27;
    allow(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), "opening a socket of InfiniBand for")?;
    // SAFETY: numbers.
    check_int(unsafe { libc::socket(AF_INET_SDP, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

/// Whether a host answers within the time: at its port 7 it takes a connection, or says that there is nobody. `from` and `hops`: of the interface that is
/// asked by; 0: as is usual.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn is_reachable(address: IpAddr, scope: u32, from: Option<IpAddr>, hops: i32, timeout_ms: i32) -> Result<bool> {
    const ECHO: u16 = 7;
    let v6 = address.is_ipv6();
    let to = match address {
        IpAddr::V4(address) => SocketAddr::from((address, ECHO)),
        IpAddr::V6(address) => SocketAddrV6::new(address, ECHO, 0, scope).into(),
    };
    let socket = socket(v6, true)?;
    let result = (|| {
        if hops > 0 {
            let (level, option) =
                if v6 { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
            set_option(socket, level, option, hops)?;
        }
        if let Some(from) = from {
            bind_unchecked(socket, SocketAddr::new(from, 0), v6)?;
        }
        set_blocking(socket, false)?;
        match connect(socket, to, v6) {
            Err(Failure::Host(libc::EINPROGRESS)) => {}
            result => return result.map(|()| true),
        }
        if poll(socket, libc::POLLOUT, timeout_ms)? == 0 {
            return Ok(false);
        }
        match option(socket, libc::SOL_SOCKET, libc::SO_ERROR)? {
            0 => Ok(true),
            number => Err(Failure::Host(number)),
        }
    })();
    // SAFETY: made above.
    unsafe { libc::close(socket) };
    match result {
        Err(Failure::Host(libc::ECONNREFUSED)) => Ok(true),
        Err(Failure::Host(_)) => Ok(false),
        result => result,
    }
}

/// Sets an option that is a number.
///
/// # Errors
/// If the host refuses.
#[allow(clippy::cast_possible_truncation, reason = "4 bytes")]
pub fn set_option(socket: i32, level: i32, option: i32, value: i32) -> Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is an int.
    check_done(unsafe { libc::setsockopt(socket, level, option, (&raw const value).cast(), length) })
}

/// Reads an option that is a number.
///
/// # Errors
/// If the host refuses.
#[allow(clippy::cast_possible_truncation, reason = "4 bytes")]
pub fn option(socket: i32, level: i32, option: i32) -> Result<i32> {
    let mut value = 0i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: there is room for an int.
    check_done(unsafe { libc::getsockopt(socket, level, option, (&raw mut value).cast(), &raw mut length) })?;
    Ok(value)
}

/// A new socket for datagrams gets what is sent to the groups that it has joined, not to those of other sockets, and its own go no further than the next host.
///
/// # Errors
/// If the host refuses.
pub fn prepare_for_groups(socket: i32, v6: bool) -> Result<()> {
    match set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0) {
        // Not every host that runs Linux programs has it.
        Ok(()) | Err(Failure::Host(libc::ENOPROTOOPT)) => {}
        Err(failure) => return Err(failure),
    }
    if v6 {
        // As it is for IPv4.
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 1)?;
    }
    Ok(())
}

/// Sets an option that is a record.
///
/// # Errors
/// If the host refuses.
pub fn set_option_bytes(socket: i32, level: i32, option: i32, value: &[u8]) -> Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| Failure::Host(libc::EINVAL))?;
    // SAFETY: the value is as long as said.
    check_done(unsafe { libc::setsockopt(socket, level, option, value.as_ptr().cast(), length) })
}

/// Who is at the other end of a socket that has a path: user and group.
///
/// # Errors
/// If the host refuses, or there is none.
#[allow(clippy::cast_possible_truncation, reason = "12 bytes")]
pub fn peer(socket: i32) -> Result<(u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: there is room for what the option gives.
    check_done(unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut length)
    })?;
    // Of a socket without another end the host knows nobody.
    if peer.uid == u32::MAX { Err(Failure::Host(libc::EINVAL)) } else { Ok((peer.uid, peer.gid)) }
}

/// Waits for what an array of `pollfd` asks for; how many have something.
///
/// # Safety
/// There are so many at the address, which only this call uses.
///
/// # Errors
/// If the host refuses.
pub unsafe fn poll_many(address: i64, count: i32, timeout_ms: i32) -> Result<i32> {
    let records = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0));
    // SAFETY: the caller's promise.
    check_int(unsafe { libc::poll(records, libc::nfds_t::try_from(count).unwrap_or(0), timeout_ms) })
}

/// Sets how long closing waits for what is not sent; `None`: not at all.
///
/// # Errors
/// If the host refuses.
#[allow(clippy::cast_possible_truncation, reason = "8 bytes")]
pub fn set_linger(socket: i32, seconds: Option<i32>) -> Result<()> {
    let linger = libc::linger { l_onoff: i32::from(seconds.is_some()), l_linger: seconds.unwrap_or(0) };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the value is what the option takes.
    check_done(unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
    })
}

/// How long closing waits.
///
/// # Errors
/// If the host refuses.
#[allow(clippy::cast_possible_truncation, reason = "8 bytes")]
pub fn linger(socket: i32) -> Result<Option<i32>> {
    let mut linger = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut length = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: there is room for what the option gives.
    check_done(unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, (&raw mut linger).cast(), &raw mut length)
    })?;
    Ok((linger.l_onoff != 0).then_some(linger.l_linger))
}

fn bind_unchecked(socket: i32, address: SocketAddr, v6: bool) -> Result<()> {
    let address = HostAddress::new(address, v6);
    // SAFETY: the address is as long as said.
    check_done(unsafe { libc::bind(socket, address.pointer(), address.length) })
}

/// Gives a socket an address. A port of the host's choice is always allowed: nobody can know it but by the program.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn bind(socket: i32, address: SocketAddr, v6: bool) -> Result<()> {
    if address.port() != 0 {
        allow(address, "listening at")?;
    } else if policy().permissions.network.is_empty() {
        return allow(address, "listening at");
    }
    bind_unchecked(socket, address, v6)
}

/// Begins to take connections.
///
/// # Errors
/// If the host refuses.
pub fn listen(socket: i32, backlog: i32) -> Result<()> {
    // SAFETY: numbers.
    check_done(unsafe { libc::listen(socket, backlog) })
}

/// Connects a socket.
///
/// # Errors
/// If the host or the permissions refuse. `EINPROGRESS`, if the socket does not block.
pub fn connect(socket: i32, address: SocketAddr, v6: bool) -> Result<()> {
    allow(address, "connecting to")?;
    let address = HostAddress::new(address, v6);
    // SAFETY: the address is as long as said.
    check_done(unsafe { libc::connect(socket, address.pointer(), address.length) })
}

/// Takes a connection: its socket, and who it is from.
///
/// # Errors
/// If the host refuses. `EAGAIN`, if there is none and the socket does not block.
pub fn accept(socket: i32) -> Result<(i32, Option<SocketAddr>)> {
    let mut from = HostAddress::room();
    let accepted = loop {
        // SAFETY: there is room for as much as said.
        let accepted =
            unsafe { libc::accept4(socket, (&raw mut from.storage).cast(), &raw mut from.length, libc::SOCK_CLOEXEC) };
        match check_int(accepted) {
            // The other end has gone already.
            Err(Failure::Host(libc::ECONNABORTED | libc::EINTR)) => {}
            result => break result?,
        }
    };
    Ok((accepted, from.to_rust()))
}

/// The address of a socket's own end; that of the other end with `other`.
///
/// # Errors
/// If the host refuses.
pub fn address_of(socket: i32, other: bool) -> Result<Option<SocketAddr>> {
    let address = HostAddress::of(socket, other)?;
    Ok(address.to_rust())
}

/// Ends one or both directions of a connection: 0 reading, 1 writing, 2 both.
///
/// # Errors
/// If the host refuses.
pub fn shut_down(socket: i32, direction: i32) -> Result<()> {
    // SAFETY: numbers.
    check_done(unsafe { libc::shutdown(socket, direction) })
}

/// Waits until `events` of `poll` happen. Returns those that did; 0 after `timeout_ms`, which -1 makes endless.
///
/// # Errors
/// If the host refuses.
pub fn poll(descriptor: i32, events: i16, timeout_ms: i32) -> Result<i16> {
    let mut entry = libc::pollfd { fd: descriptor, events, revents: 0 };
    // SAFETY: there is one entry.
    check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) })?;
    Ok(entry.revents)
}

/// Whether reads and writes of a descriptor wait.
///
/// # Errors
/// If the host refuses.
pub fn set_blocking(descriptor: i32, blocking: bool) -> Result<()> {
    // SAFETY: numbers.
    let flags = check_int(unsafe { libc::fcntl(descriptor, libc::F_GETFL) })?;
    let wanted = if blocking { flags & !libc::O_NONBLOCK } else { flags | libc::O_NONBLOCK };
    if wanted == flags {
        return Ok(());
    }
    // SAFETY: numbers.
    check_done(unsafe { libc::fcntl(descriptor, libc::F_SETFL, wanted) })
}

/// The addresses of a host.
///
/// # Errors
/// If the permissions name no address at all, or the host knows none.
pub fn resolve(name: &str) -> Result<Vec<IpAddr>> {
    // A program may look up the names that it may connect to; asking for others tells a stranger what it asks.
    let named = policy().permissions.network.iter().any(|endpoint| {
        endpoint.host.as_deref().is_none_or(|host| host.eq_ignore_ascii_case(name) || host.parse::<IpAddr>().is_ok())
    });
    if !named && name != "localhost" {
        let what = format!("looking up {name}");
        return Err(Failure::Refused(Refusal { what, flag: format!("--allow-net={name}") }));
    }
    if name == "localhost" && policy().permissions.network.is_empty() {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    let found = (name, 0).to_socket_addrs().map_err(|_| Failure::Host(libc::ENOENT))?;
    let mut addresses = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    super::allow_addresses(name, &addresses);
    Ok(addresses)
}

/// The name of this host.
///
/// # Errors
/// If the host refuses.
pub fn host_name() -> Result<String> {
    let mut name = [0u8; 256];
    // SAFETY: there is room for as much as said.
    check_done(unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) })?;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// The name of the host with this address.
///
/// # Errors
/// If the permissions refuse, or nobody knows it.
#[allow(clippy::cast_possible_truncation, reason = "a small constant")]
pub fn name_of(address: IpAddr) -> Result<String> {
    allow(SocketAddr::new(address, 0), "looking up")?;
    let address = HostAddress::new(SocketAddr::new(address, 0), address.is_ipv6());
    let mut name = [0u8; 1025];
    // SAFETY: the address and the room for the name are as long as said.
    let failed = unsafe {
        libc::getnameinfo(
            address.pointer(),
            address.length,
            name.as_mut_ptr().cast(),
            name.len() as libc::socklen_t - 1,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if failed != 0 {
        return Err(Failure::Host(libc::ENOENT));
    }
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Sends a byte ahead of the others.
///
/// # Errors
/// If the host refuses.
pub fn send_urgent(socket: i32, byte: u8) -> Result<i32> {
    // SAFETY: there is one byte.
    let sent = check(unsafe { libc::send(socket, (&raw const byte).cast(), 1, libc::MSG_OOB) } as i64)?;
    Ok(i32::try_from(sent).unwrap_or(0))
}

/// Makes a descriptor one whose reads end and whose writes fail, before it is closed: threads that use its number get no other file.
///
/// # Errors
/// If the host refuses.
pub fn pre_close(descriptor: i32) -> Result<()> {
    static DEAD: std::sync::LazyLock<Result<i32>> = std::sync::LazyLock::new(|| {
        let mut pair = [0; 2];
        // SAFETY: there is room for two.
        check_done(unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
        })?;
        // SAFETY: numbers, of which the second is closed once.
        unsafe {
            libc::shutdown(pair[0], libc::SHUT_RDWR);
            libc::close(pair[1]);
        }
        Ok(pair[0])
    });
    super::files::duplicate_to(DEAD.clone()?, descriptor)
}

/// A pipe: where to read, and where to write.
///
/// # Errors
/// If the host refuses.
pub fn pipe(blocking: bool) -> Result<(i32, i32)> {
    let mut ends = [0; 2];
    let flags = libc::O_CLOEXEC | if blocking { 0 } else { libc::O_NONBLOCK };
    // SAFETY: there is room for two.
    check_done(unsafe { libc::pipe2(ends.as_mut_ptr(), flags) })?;
    Ok((ends[0], ends[1]))
}

/// How many descriptors there may be.
pub fn descriptors_max() -> i32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is room for the result.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => i32::try_from(limit.rlim_max).unwrap_or(i32::MAX),
        _ => 1024,
    }
}

/// Lets this process have as many descriptors as its user may give it, as `java` does: by default a shell lets it have few.
pub fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is room for the result, and the call reads what it wrote.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// A set of descriptors to wait for.
///
/// # Errors
/// If the host refuses.
pub fn epoll() -> Result<i32> {
    // SAFETY: numbers.
    check_int(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Adds, changes or removes a descriptor in a set.
///
/// # Errors
/// If the host refuses.
pub fn epoll_change(set: i32, operation: i32, descriptor: i32, events: u32) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: u64::from(descriptor.cast_unsigned()) };
    // SAFETY: the event is what the call takes.
    check_done(unsafe { libc::epoll_ctl(set, operation, descriptor, &raw mut event) })
}

/// Waits for events of a set.
///
/// # Safety
/// At `address` there is room for `count` events.
///
/// # Errors
/// If the host refuses.
pub unsafe fn epoll_wait(set: i32, address: i64, count: i32, timeout_ms: i32) -> Result<i32> {
    let events = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0));
    // SAFETY: the caller's promise.
    check_int(unsafe { libc::epoll_wait(set, events, count, timeout_ms) })
}

/// A counter that can be waited for.
///
/// # Errors
/// If the host refuses.
pub fn event_counter() -> Result<i32> {
    // SAFETY: numbers.
    check_int(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
}

/// The signal that ends a host call of another thread. No program of the host's own uses it.
fn wake_signal() -> i32 {
    libc::SIGRTMAX() - 2
}

/// Makes the signal of [`interrupt`] do nothing but that.
pub fn prepare_interrupts() {
    extern "C" fn ignore(_: libc::c_int) {}
    // SAFETY: zeroed memory is a valid action, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(wake_signal(), &raw const action, std::ptr::null_mut());
    }
}

/// This thread, as [`interrupt`] names it.
pub fn interruptible_thread() -> i64 {
    // SAFETY: no arguments.
    unsafe { libc::pthread_self() }.cast_signed()
}

/// Ends the host call that a thread waits in. The thread runs still: the class library asks only while it is in such a call.
pub fn interrupt(thread: i64) {
    // SAFETY: a thread that runs.
    unsafe { libc::pthread_kill(thread.cast_unsigned(), wake_signal()) };
}

/// Two descriptors, each of which reads what the other writes.
///
/// # Errors
/// If the host refuses.
pub fn pair() -> Result<(i32, i32)> {
    let mut pair = [0; 2];
    // SAFETY: there is room for two.
    check_done(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
    })?;
    Ok((pair[0], pair[1]))
}

/// Waits until either descriptor can be read. Returns how many can.
///
/// # Errors
/// If the host refuses.
pub fn poll_two(descriptors: [i32; 2]) -> Result<i32> {
    let mut entries = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: there are two entries.
    check_int(unsafe { libc::poll(entries.as_mut_ptr(), 2, -1) })
}

/// Sends a datagram to an address in the host's form; to none if the socket is connected.
///
/// # Errors
/// If the host or the permissions refuse.
#[allow(clippy::cast_possible_truncation, reason = "at most 28 bytes")]
pub fn send_to(socket: i32, bytes: &[u8], to: &[u8]) -> Result<usize> {
    let mut address = HostAddress::room();
    let length = to.len().min(size_of::<libc::sockaddr_in6>());
    // SAFETY: the room is larger than any address.
    unsafe { std::ptr::copy_nonoverlapping(to.as_ptr(), (&raw mut address.storage).cast(), length) };
    address.length = length as libc::socklen_t;
    if length > 0 {
        let to = address.to_rust().ok_or(Failure::Host(libc::EAFNOSUPPORT))?;
        allow(to, "sending to")?;
    }
    let pointer = if length > 0 { address.pointer() } else { std::ptr::null() };
    // SAFETY: bytes and address are as long as said.
    let sent =
        check(unsafe { libc::sendto(socket, bytes.as_ptr().cast(), bytes.len(), 0, pointer, address.length) } as i64)?;
    Ok(usize::try_from(sent).unwrap_or(0))
}

/// Receives a datagram, and where it is from in the host's form.
///
/// # Errors
/// If the host refuses.
pub fn receive_from(socket: i32, buffer: &mut [u8], from: &mut [u8]) -> Result<usize> {
    let mut address = HostAddress::room();
    // SAFETY: there is room for as much as said.
    let received = check(unsafe {
        libc::recvfrom(
            socket,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut address.storage).cast(),
            &raw mut address.length,
        )
    } as i64)?;
    let length = from.len().min(address.length as usize).min(size_of::<libc::sockaddr_storage>());
    // SAFETY: both are at least so long.
    unsafe { std::ptr::copy_nonoverlapping((&raw const address.storage).cast(), from.as_mut_ptr(), length) };
    Ok(usize::try_from(received).unwrap_or(0))
}

/// Makes a connected datagram socket one that is not.
///
/// # Errors
/// If the host refuses.
#[allow(clippy::cast_possible_truncation, reason = "small constants")]
pub fn disconnect(socket: i32) -> Result<()> {
    let mut address = HostAddress::room();
    address.storage.ss_family = libc::AF_UNSPEC as libc::sa_family_t;
    // SAFETY: the address is as long as said.
    check_done(unsafe { libc::connect(socket, address.pointer(), address.length) })
}

#[cfg(test)]
mod tests {
    use machine::permissions::Permissions;

    use super::*;
    use crate::services::{files, test_permissions};

    #[test]
    fn a_name_allows_the_addresses_that_it_is_found_at() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let network = vec![format!("LocalHost:{}", address.port()).parse().unwrap()];
        let _turn = test_permissions(Permissions { network, ..Permissions::default() });
        assert!(matches!(resolve("example.org"), Err(Failure::Refused(_))));
        assert!(matches!(allow(address, "connecting to"), Err(Failure::Refused(_))), "before its name is looked up");
        assert!(resolve("localhost").unwrap().contains(&address.ip()));
        let client = socket(false, true).unwrap();
        connect(client, address, false).unwrap();
        files::close(client).unwrap();
        let other = SocketAddr::new(address.ip(), address.port() ^ 1);
        assert!(matches!(allow(other, "connecting to"), Err(Failure::Refused(_))));
        resolve("localhost").unwrap();
        assert!(policy().permissions.network.len() <= 3, "once for each address");
    }

    #[test]
    fn as_many_descriptors_as_the_user_may_have() {
        let limit = |change: Option<u64>| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: there is room for the result, and the call reads what is there.
            unsafe {
                assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
                if let Some(now) = change {
                    limit.rlim_cur = now;
                    assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
                }
            }
            (limit.rlim_cur, limit.rlim_max)
        };
        let (_, max) = limit(Some(64));
        raise_descriptors();
        assert_eq!(limit(None), (max, max));
    }

    #[test]
    fn a_connection_to_itself() {
        let _turn = test_permissions(Permissions::all());
        for v6 in [false, true] {
            if v6 && !has_ipv6() {
                continue;
            }
            let server = socket(v6, true).unwrap();
            bind(server, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), v6).unwrap();
            listen(server, 5).unwrap();
            let port = address_of(server, false).unwrap().unwrap().port();
            let client = socket(v6, true).unwrap();
            connect(client, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), v6).unwrap();
            let (accepted, from) = accept(server).unwrap();
            assert_eq!(from, address_of(client, false).unwrap());
            assert!(from.unwrap().is_ipv4());
            assert_eq!(files::write(client, b"ping"), Ok(4));
            assert_eq!(poll(accepted, libc::POLLIN, 1000), Ok(libc::POLLIN));
            let mut buffer = [0; 8];
            assert_eq!(files::read(accepted, &mut buffer), Ok(4));
            set_linger(client, Some(3)).unwrap();
            assert_eq!(linger(client), Ok(Some(3)));
            set_blocking(server, false).unwrap();
            assert_eq!(accept(server).unwrap_err(), Failure::Host(libc::EAGAIN));
            for socket in [server, client, accepted] {
                files::close(socket).unwrap();
            }
        }
        assert!(resolve("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
