//! The network interfaces of the host.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use super::{HostAddress, Result, check_done, policy};

/// A network interface of the host.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: i32,
    /// `IFF_` flags.
    pub flags: i32,
    /// Its addresses.
    pub addresses: Vec<Bound>,
    /// Its hardware address.
    pub hardware: Option<[u8; 6]>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The address.
    pub address: IpAddr,
    /// The interface's number, of addresses of IPv6.
    pub scope: u32,
    /// Bits of the address that name the network.
    pub prefix: u8,
    /// The address of all in the network.
    pub broadcast: Option<Ipv4Addr>,
}

/// The host's network interfaces that have addresses, in the order that `java` has them: the newest first, of each the addresses of IPv6 first, those backwards
/// in which the host has them. Without permission for any network there is none.
///
/// # Errors
/// If the host refuses.
pub fn interfaces() -> Result<Vec<Interface>> {
    if policy().permissions.network.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = std::ptr::null_mut();
    // SAFETY: there is room for the result.
    check_done(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut found: Vec<Interface> = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an entry of the list, which is freed below.
        let entry = unsafe { next.read() };
        next = entry.ifa_next;
        // SAFETY: entries have names.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) };
        // SAFETY: the name ends with NUL.
        let index = unsafe { libc::if_nametoindex(entry.ifa_name) }.cast_signed();
        let name = name.to_string_lossy().into_owned();
        let place = found.iter().position(|known| known.name == name).unwrap_or_else(|| {
            let flags = entry.ifa_flags.cast_signed();
            found.push(Interface { name, index, flags, addresses: Vec::new(), hardware: None });
            found.len() - 1
        });
        let interface = &mut found[place];
        // SAFETY: addresses of entries are of the family that they say, or null.
        unsafe { note_address(interface, &entry) };
    }
    // SAFETY: the list is from above, and no longer used.
    unsafe { libc::freeifaddrs(list) };
    found.retain(|interface| !interface.addresses.is_empty());
    found.sort_by_key(|interface| Reverse(interface.index));
    let lines = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let line = |address: IpAddr| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => {
            let start = format!("{:032x}", u128::from(address));
            lines.lines().position(|line| line.starts_with(&start))
        }
    };
    for interface in &mut found {
        interface.addresses.sort_by_key(|bound| (bound.address.is_ipv4(), Reverse(line(bound.address))));
    }
    Ok(found)
}

/// # Safety
/// The entry is one that the host gave.
unsafe fn note_address(interface: &mut Interface, entry: &libc::ifaddrs) {
    // SAFETY: the caller's promise: the family tells how long an address is.
    let read = |address: *const libc::sockaddr| unsafe {
        let mut room = HostAddress::room();
        let length = match i32::from(address.as_ref()?.sa_family) {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
            _ => return None,
        };
        std::ptr::copy_nonoverlapping(address.cast::<u8>(), (&raw mut room.storage).cast(), length);
        room.to_rust()
    };
    let Some(address) = read(entry.ifa_addr) else {
        // SAFETY: as above.
        let family = unsafe { entry.ifa_addr.as_ref() }.map(|address| i32::from(address.sa_family));
        if family == Some(libc::AF_PACKET) {
            // SAFETY: the family tells the type.
            let link = unsafe { entry.ifa_addr.cast::<libc::sockaddr_ll>().read_unaligned() };
            interface.hardware = (link.sll_halen == 6).then(|| [0, 1, 2, 3, 4, 5].map(|index| link.sll_addr[index]));
        }
        return;
    };
    let mask = read(entry.ifa_netmask);
    let prefix = match mask.map(|mask| mask.ip()) {
        Some(IpAddr::V4(mask)) => u32::from(mask).count_ones(),
        Some(IpAddr::V6(mask)) => u128::from(mask).count_ones(),
        None => 0,
    };
    let has_broadcast = interface.flags & libc::IFF_BROADCAST != 0;
    let broadcast = match read(entry.ifa_ifu).filter(|_| has_broadcast).map(|address| address.ip()) {
        Some(IpAddr::V4(broadcast)) => Some(broadcast),
        _ => None,
    };
    let scope = if address.is_ipv6() { interface.index.cast_unsigned() } else { 0 };
    let prefix = u8::try_from(prefix).unwrap_or(0);
    interface.addresses.push(Bound { address: address.ip(), scope, prefix, broadcast });
}

/// The largest frame that an interface carries, in bytes; 0 if it is not known.
pub fn frame_size(name: &str) -> i32 {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
