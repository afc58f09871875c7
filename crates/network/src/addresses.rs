//! The virtual network's plan, which is that of QEMU's user network.

use std::net::Ipv4Addr;

use smoltcp::wire::EthernetAddress;

/// The network, a /24.
pub const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 0);
/// Its mask.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// Its broadcast address.
pub const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 255);
/// The router; as a destination, the host's own loopback. DHCP is served from here too.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// What DHCP gives to the guest, and where published ports lead.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// The Ethernet address behind which the whole virtual network stands; locally administered.
pub(crate) const GATEWAY_ETHERNET: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);

/// Whether `address` is inside the virtual network.
pub(crate) fn is_inside(address: Ipv4Addr) -> bool {
    address.octets()[..3] == NETWORK.octets()[..3]
}

/// Whether `address` is one that a guest may send from: inside, and not one of ours.
pub(crate) fn is_guest(address: Ipv4Addr) -> bool {
    is_inside(address) && ![NETWORK, BROADCAST, GATEWAY, DNS].contains(&address)
}
