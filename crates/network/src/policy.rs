//! What the guest may reach: the one place that every new flow passes.
//!
//! Today's rules only keep the virtual network's plan: its router stands for the host's loopback, and addresses
//! that mean nothing beyond a network are refused. Lists of what is allowed, and limits of rates, belong here.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::addresses::{DNS, GATEWAY, is_inside};

/// What a new flow is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Echo,
}

/// Where a new flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To this address, as seen from the host.
    Forward(SocketAddr),
    /// To the host's resolver.
    Resolve,
    /// To the virtual network itself, which answers a ping.
    Answer,
    /// Nowhere: there is nothing at that address of the virtual network.
    Absent,
    /// Nowhere: it is not allowed.
    Prohibited,
    /// Nowhere, silently: it is for everyone on the network, and nobody else is.
    Ignored,
}

const DNS_PORT: u16 = 53;

/// Decides on a flow from the guest to `remote`.
pub(crate) fn admit(transport: Transport, remote: SocketAddrV4) -> Verdict {
    let address = *remote.ip();
    if address.is_multicast() || address.is_broadcast() || address == crate::addresses::BROADCAST {
        return Verdict::Ignored;
    }
    if address == GATEWAY || address == DNS {
        return match transport {
            Transport::Echo => Verdict::Answer,
            _ if address == GATEWAY => Verdict::Forward((Ipv4Addr::LOCALHOST, remote.port()).into()),
            _ if remote.port() == DNS_PORT => Verdict::Resolve,
            _ => Verdict::Absent,
        };
    }
    if is_inside(address) {
        return Verdict::Absent;
    }
    // To the host, 0.0.0.0/8 and 127.0.0.0/8 would mean itself: only the router's address does for the guest.
    // 240.0.0.0/4 is reserved.
    match address.octets()[0] {
        0 | 127 | 240.. => Verdict::Prohibited,
        _ => Verdict::Forward(remote.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_router_is_the_hosts_loopback() {
        let verdict = |transport, address: &str| admit(transport, address.parse().unwrap());
        let loopback: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(verdict(Transport::Tcp, "10.0.2.2:80"), Verdict::Forward(loopback));
        for prohibited in ["127.0.0.1:80", "127.1.2.3:80", "0.0.0.0:80", "0.1.1.1:80", "240.0.0.1:80"] {
            assert_eq!(verdict(Transport::Tcp, prohibited), Verdict::Prohibited, "{prohibited}");
            assert_eq!(verdict(Transport::Udp, prohibited), Verdict::Prohibited, "{prohibited}");
            assert_eq!(verdict(Transport::Echo, prohibited), Verdict::Prohibited, "{prohibited}");
        }
    }

    #[test]
    fn the_plan_of_the_network() {
        let verdict = |transport, address: &str| admit(transport, address.parse().unwrap());
        assert_eq!(verdict(Transport::Udp, "10.0.2.3:53"), Verdict::Resolve);
        assert_eq!(verdict(Transport::Tcp, "10.0.2.3:53"), Verdict::Resolve);
        assert_eq!(verdict(Transport::Tcp, "10.0.2.3:80"), Verdict::Absent);
        assert_eq!(verdict(Transport::Tcp, "10.0.2.77:80"), Verdict::Absent);
        assert_eq!(verdict(Transport::Udp, "10.0.2.255:80"), Verdict::Ignored);
        assert_eq!(verdict(Transport::Udp, "224.0.0.251:5353"), Verdict::Ignored);
        assert_eq!(verdict(Transport::Echo, "10.0.2.2:0"), Verdict::Answer);
        let remote: SocketAddr = "192.0.2.1:443".parse().unwrap();
        assert_eq!(verdict(Transport::Tcp, "192.0.2.1:443"), Verdict::Forward(remote));
    }
}
