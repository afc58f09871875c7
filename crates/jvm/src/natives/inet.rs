//! `java.net.InetAddress` and its kin as addresses of Rust, and back; names of hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::Table;
use super::support::{VOID, all_bytes, boolean, field, make};
use crate::allocate;
use crate::bootstrap;
use crate::exceptions;
use crate::handle::Handle;
use crate::interpreter::Arguments;
use crate::loader;
use crate::object::Reference;
use crate::services::network;
use crate::strings;
use crate::thread::{Result, Thread};

/// `InetAddress.IPv4`
const IPV4: i32 = 1;

/// Whether IPv6 is used: the host has it, and `java.net.preferIPv4Stack` did not say no when that was first asked.
pub(super) fn has_ipv6(thread: &mut Thread) -> Result<bool> {
    static USED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if let Some(&used) = USED.get() {
        return Ok(used);
    }
    let name = strings::new(thread, "java.net.preferIPv4Stack")?;
    // Whoever asks first need not be allowed to read the property.
    let class = "sun/security/action/GetBooleanAction";
    let refused =
        bootstrap::call_static(thread, class, "privilegedGetProperty", "(Ljava/lang/String;)Z", &[name.slot()])?;
    Ok(*USED.get_or_init(|| refused & 1 == 0 && network::has_ipv6()))
}

/// The address of an `InetAddress` with this port.
pub(super) fn address(thread: &mut Thread, object: Reference, port: i32) -> Result<SocketAddr> {
    if object.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let port = u16::try_from(port & 0xFFFF).unwrap_or(0);
    let holder = object.reference(field!("java/net/InetAddress", "holder", "Ljava/net/InetAddress$InetAddressHolder;"));
    if holder.read::<i32>(field!("java/net/InetAddress$InetAddressHolder", "family", "I")) == IPV4 {
        let bits: i32 = holder.read(field!("java/net/InetAddress$InetAddressHolder", "address", "I"));
        return Ok(SocketAddr::from((Ipv4Addr::from(bits.cast_unsigned()), port)));
    }
    let holder =
        object.reference(field!("java/net/Inet6Address", "holder6", "Ljava/net/Inet6Address$Inet6AddressHolder;"));
    let bytes = all_bytes(holder.reference(field!("java/net/Inet6Address$Inet6AddressHolder", "ipaddress", "[B")));
    let scope: i32 = holder.read(field!("java/net/Inet6Address$Inet6AddressHolder", "scope_id", "I"));
    let octets = <[u8; 16]>::try_from(bytes).unwrap_or_default();
    Ok(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope.cast_unsigned()).into())
}

/// An `InetAddress` of this address; `host` is the name it was found by, or `null`.
pub(super) fn object(thread: &mut Thread, address: IpAddr, scope: u32, host: Handle) -> Result<Handle> {
    match address {
        IpAddr::V4(address) => make(thread, "java/net/Inet4Address", "(Ljava/lang/String;I)V", || {
            vec![host.slot(), u64::from(u32::from(address))]
        }),
        IpAddr::V6(address) => {
            let bytes = allocate::byte_array(thread, &address.octets())?;
            let bytes = thread.handle(bytes);
            // Without a scope the constructor wants -1.
            let scope = if scope == 0 { u64::from(u32::MAX) } else { u64::from(scope) };
            make(thread, "java/net/Inet6Address", "(Ljava/lang/String;[BI)V", || vec![host.slot(), bytes.slot(), scope])
        }
    }
}

/// Says which `NetworkInterface` an address of IPv6 is of, whose name it is shown with.
pub(super) fn set_interface(address: Reference, interface: Reference) {
    let holder =
        address.reference(field!("java/net/Inet6Address", "holder6", "Ljava/net/Inet6Address$Inet6AddressHolder;"));
    let place = field!("java/net/Inet6Address$Inet6AddressHolder", "scope_ifname", "Ljava/net/NetworkInterface;");
    holder.set_reference(place, interface);
}

/// An `InetAddress` of one end of a connection.
pub(super) fn of_socket(thread: &mut Thread, address: SocketAddr) -> Result<Handle> {
    let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
    let host = thread.handle(Reference::NULL);
    object(thread, address.ip(), scope, host)
}

/// The addresses of a host, those that are preferred first.
fn look_up(thread: &mut Thread, arguments: Arguments, v6: bool) -> Result<u64> {
    if arguments.reference(1).is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "host argument is null"));
    }
    let name = strings::text(arguments.reference(1));
    let found = match super::support::waiting(thread, || network::resolve(&name)) {
        Ok(found) => found,
        Err(crate::services::Failure::Refused(refusal)) => {
            return Err(exceptions::throw(thread, "java/net/UnknownHostException", format!("{name}: {refusal}")));
        }
        Err(_) => Vec::new(),
    };
    let mut addresses: Vec<IpAddr> = found.into_iter().filter(|address| v6 || address.is_ipv4()).collect();
    // `InetAddress.PREFER_IPV4_VALUE`, `PREFER_IPV6_VALUE`; otherwise as the host has them.
    let class = loader::boot_class("java/net/InetAddress");
    match class.mirror().read::<i32>(field!("java/net/InetAddress", "preferIPv6Address", "I")) {
        0 => addresses.sort_by_key(IpAddr::is_ipv6),
        1 => addresses.sort_by_key(IpAddr::is_ipv4),
        _ => {}
    }
    if addresses.is_empty() {
        let text = format!("{name}: Name or service not known");
        return Err(exceptions::throw(thread, "java/net/UnknownHostException", text));
    }
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let array = allocate::reference_array(thread, loader::boot_class("java/net/InetAddress"), count)?;
    let array = thread.handle(array);
    for (index, address) in (0..count).zip(addresses) {
        let host = thread.handle(arguments.reference(1));
        let address = object(thread, address, 0, host)?;
        array.get().set_reference_element(index, address.get());
    }
    Ok(array.get().slot())
}

fn host_by_address(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let Some(address) = address_in(arguments.reference(1)) else {
        return Err(exceptions::throw_plain(thread, "java/net/UnknownHostException"));
    };
    match super::support::waiting(thread, || network::name_of(address)) {
        Ok(name) => Ok(strings::new(thread, &name)?.slot()),
        Err(failure) => Err(exceptions::throw(thread, "java/net/UnknownHostException", failure.to_string())),
    }
}

/// The address in a `byte[]`.
fn address_in(array: Reference) -> Option<IpAddr> {
    let bytes = all_bytes(array);
    let short = <[u8; 4]>::try_from(&bytes[..]).map(IpAddr::from);
    short.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(IpAddr::from)).ok()
}

/// `this, address, (scope,) timeout, own address, hops (, own scope)`
fn is_reachable(thread: &mut Thread, arguments: Arguments, v6: bool) -> Result<u64> {
    let rest = 2 + usize::from(v6);
    let scope = if v6 { arguments.int(2).cast_unsigned() } else { 0 };
    let Some(address) = address_in(arguments.reference(1)) else { return Ok(boolean(false)) };
    let (timeout, from, hops) =
        (arguments.int(rest), address_in(arguments.reference(rest + 1)), arguments.int(rest + 2));
    let reached = super::support::waiting(thread, || network::is_reachable(address, scope, from, hops, timeout));
    reached.map(boolean).map_err(|failure| super::support::socket_exception(thread, &failure))
}

fn local_host_name(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let name = network::host_name().unwrap_or_else(|_| "localhost".into());
    Ok(strings::new(thread, &name)?.slot())
}

pub(super) const TABLES: &[Table] = &[
    ("java/net/InetAddress", &[("init", "()V", |_, _| Ok(VOID))]),
    ("java/net/Inet4Address", &[("init", "()V", |_, _| Ok(VOID))]),
    ("java/net/Inet6Address", &[("init", "()V", |_, _| Ok(VOID))]),
    ("java/net/DatagramPacket", &[("init", "()V", |_, _| Ok(VOID))]),
    ("java/net/InetAddressImplFactory", &[("isIPv6Supported", "()Z", |thread, _| has_ipv6(thread).map(boolean))]),
    (
        "java/net/Inet4AddressImpl",
        &[
            ("lookupAllHostAddr", "", |thread, arguments| look_up(thread, arguments, false)),
            ("isReachable0", "", |thread, arguments| is_reachable(thread, arguments, false)),
            ("getHostByAddr", "", host_by_address),
            ("getLocalHostName", "", local_host_name),
        ],
    ),
    (
        "java/net/Inet6AddressImpl",
        &[
            ("lookupAllHostAddr", "", |thread, arguments| look_up(thread, arguments, true)),
            ("isReachable0", "", |thread, arguments| is_reachable(thread, arguments, true)),
            ("getHostByAddr", "", host_by_address),
            ("getLocalHostName", "", local_host_name),
        ],
    ),
    ("sun/net/PortConfig", &[("getLower0", "()I", |_, _| Ok(32_768)), ("getUpper0", "()I", |_, _| Ok(60_999))]),
    ("sun/net/spi/DefaultProxySelector", &[("init", "()Z", |_, _| Ok(0)), ("getSystemProxies", "", |_, _| Ok(0))]),
];
