//! A DHCP server (RFC 2131) for one guest: every client gets the same address, for as long as it asks.

use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr};

use crate::addresses::{BROADCAST, DNS, GATEWAY, GUEST, NETMASK};

/// Where servers listen.
pub(crate) const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub(crate) const CLIENT_PORT: u16 = 68;

/// The lease: a day.
const LEASE_S: u32 = 86_400;
/// Option codes (RFC 2132).
const OPTION_HOST_NAME: u8 = 12;
const OPTION_INTERFACE_MTU: u8 = 26;
const OPTION_BROADCAST_ADDRESS: u8 = 28;
const OPTION_REQUESTED_ADDRESS: u8 = 50;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_SERVER_IDENTIFIER: u8 = 54;
const OPTION_CLIENT_IDENTIFIER: u8 = 61;
/// The longest client identifier that is sent back (RFC 6842); the longest option there is.
const IDENTIFIER_MAX: usize = 255;

/// A reply and where it goes.
pub(crate) struct Reply {
    pub(crate) to: Ipv4Addr,
    pub(crate) bytes: Vec<u8>,
}

/// Answers the client's `message`, if it wants an answer.
pub(crate) fn answer(message: &[u8], mtu: u16, host_name: Option<&str>) -> Option<Reply> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    if packet.opcode() != smoltcp::wire::DhcpOpCode::Request
        || packet.hardware_type() != smoltcp::wire::ArpHardware::Ethernet
        || packet.hardware_len() != 6
        || packet.magic_number() != 0x6382_5363
    {
        return None;
    }
    let option = |code| packet.options().find(|option| option.kind == code).map(|option| option.data);
    let address = |code| option(code).and_then(|data| <[u8; 4]>::try_from(data).ok()).map(Ipv4Addr::from);
    let kind = DhcpMessageType::from(*option(OPTION_MESSAGE_TYPE)?.first()?);
    if address(OPTION_SERVER_IDENTIFIER).is_some_and(|server| server != GATEWAY) {
        // The client has chosen another server.
        return None;
    }
    let client = packet.client_ip();
    let reply = match kind {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => {
            let wanted = address(OPTION_REQUESTED_ADDRESS).unwrap_or(client);
            if wanted == GUEST { DhcpMessageType::Ack } else { DhcpMessageType::Nak }
        }
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return None,
    };
    let refused = reply == DhcpMessageType::Nak;
    let leased = !refused && kind != DhcpMessageType::Inform;

    let mtu = mtu.to_be_bytes();
    let broadcast = BROADCAST.octets();
    let mut options = Vec::new();
    if let Some(data) = option(OPTION_CLIENT_IDENTIFIER).filter(|data| data.len() <= IDENTIFIER_MAX) {
        options.push(DhcpOption { kind: OPTION_CLIENT_IDENTIFIER, data });
    }
    if !refused {
        options.push(DhcpOption { kind: OPTION_INTERFACE_MTU, data: &mtu });
        options.push(DhcpOption { kind: OPTION_BROADCAST_ADDRESS, data: &broadcast });
        if let Some(name) = host_name {
            options.push(DhcpOption { kind: OPTION_HOST_NAME, data: name.as_bytes() });
        }
    }
    let reply = DhcpRepr {
        message_type: reply,
        transaction_id: packet.transaction_id(),
        secs: 0,
        client_hardware_address: packet.client_hardware_address(),
        client_ip: if refused { Ipv4Addr::UNSPECIFIED } else { client },
        your_ip: if leased { GUEST } else { Ipv4Addr::UNSPECIFIED },
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: (!refused).then_some(GATEWAY),
        subnet_mask: (!refused).then_some(NETMASK),
        relay_agent_ip: packet.relay_agent_ip(),
        broadcast: packet.flags().contains(smoltcp::wire::DhcpFlags::BROADCAST),
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: (!refused).then(|| std::iter::once(DNS).collect()),
        max_size: None,
        lease_duration: leased.then_some(LEASE_S),
        renew_duration: leased.then_some(LEASE_S / 2),
        rebind_duration: leased.then_some(LEASE_S / 8 * 7),
        additional_options: &options,
    };
    let mut bytes = vec![0; reply.buffer_len()];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).ok()?;
    // BOOTP relays and some clients want at least this much (RFC 1542, section 2.1).
    bytes.resize(bytes.len().max(300), 0);
    let direct = client == GUEST && !refused;
    Some(Reply { to: if direct { client } else { Ipv4Addr::BROADCAST }, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::EthernetAddress;

    fn request(kind: DhcpMessageType, edit: impl FnOnce(&mut DhcpRepr<'_>)) -> Vec<u8> {
        let mut repr = DhcpRepr {
            message_type: kind,
            transaction_id: 0x1234,
            secs: 3,
            client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, 1]),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        edit(&mut repr);
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
        bytes
    }

    fn ask(bytes: &[u8]) -> Option<(Ipv4Addr, DhcpMessageType, Ipv4Addr)> {
        let reply = answer(bytes, 1500, Some("debian"))?;
        let packet = DhcpPacket::new_checked(&reply.bytes[..]).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(repr.transaction_id, 0x1234);
        Some((reply.to, repr.message_type, repr.your_ip))
    }

    #[test]
    fn discover_offers_everything() {
        let reply = answer(&request(DhcpMessageType::Discover, |_| ()), 9000, Some("debian")).unwrap();
        let packet = DhcpPacket::new_checked(&reply.bytes[..]).unwrap();
        let option = |code| packet.options().find(|o| o.kind == code).map(|o| o.data.to_vec());
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(repr.message_type, DhcpMessageType::Offer);
        assert_eq!((repr.your_ip, repr.router, repr.subnet_mask), (GUEST, Some(GATEWAY), Some(NETMASK)));
        assert_eq!(repr.dns_servers.as_deref(), Some(&[DNS][..]));
        assert_eq!(repr.lease_duration, Some(LEASE_S));
        assert_eq!(option(OPTION_INTERFACE_MTU), Some(vec![0x23, 0x28]));
        assert_eq!(option(OPTION_HOST_NAME), Some(b"debian".to_vec()));
    }

    #[test]
    fn requests_are_acknowledged_for_our_address_only() {
        use DhcpMessageType::{Ack, Inform, Nak, Release, Request};
        let everyone = Ipv4Addr::BROADCAST;
        assert_eq!(ask(&request(Request, |r| r.requested_ip = Some(GUEST))), Some((everyone, Ack, GUEST)));
        assert_eq!(ask(&request(Request, |r| r.client_ip = GUEST)), Some((GUEST, Ack, GUEST)), "a renewal");
        let other = Ipv4Addr::new(192, 168, 0, 9);
        let none = Ipv4Addr::UNSPECIFIED;
        assert_eq!(ask(&request(Request, |r| r.requested_ip = Some(other))), Some((everyone, Nak, none)));
        assert_eq!(ask(&request(Request, |r| r.client_ip = other)), Some((everyone, Nak, none)));
        assert_eq!(ask(&request(Request, |_| ())), Some((everyone, Nak, none)));
        assert_eq!(ask(&request(Request, |r| r.server_identifier = Some(other))), None);
        assert_eq!(ask(&request(Inform, |r| r.client_ip = GUEST)), Some((GUEST, Ack, none)));
        assert_eq!(ask(&request(Release, |r| r.client_ip = GUEST)), None);
    }

    proptest! {
        #[test]
        fn rubbish_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), valid in any::<bool>()) {
            if valid && bytes.len() >= 240 {
                bytes[..3].copy_from_slice(&[1, 1, 6]);
                bytes[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
                bytes.splice(240..240, [53, 1, 1]);
            }
            if let Some(reply) = answer(&bytes, 1500, None) {
                prop_assert!(reply.bytes.len() < 1400);
            }
        }
    }
}
