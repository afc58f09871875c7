//! The wire to the guest: builds frames and hands them to its interface.
//!
//! When the interface has no room, frames that are already made wait in a short backlog and the link counts as blocked:
//! bulk data stays in its socket until there is room again, so nothing of it is lost. Packets that nobody holds back
//! (acknowledgements, datagrams) go to the backlog until that is full, and are then dropped as a wire would.
//!
//! TCP segments are cut to what the guest asked for. Everything else is cut into fragments of [`FRAGMENT_MTU`], so that it
//! passes whatever size of frame the guest is ready for.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use machine::backend::{FrameSink, Offloads, Unfinished};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable,
    Icmpv4Message, Icmpv4Packet, IpAddress, IpProtocol, Ipv4Packet, UdpPacket,
};

use crate::addresses::{DNS, GATEWAY, GATEWAY_ETHERNET};

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// Bytes of the IPv4 header that we send: no options.
pub(crate) const IPV4_HEADER: usize = 20;
/// Bytes of a UDP header.
pub(crate) const UDP_HEADER: usize = 8;
/// Bytes of an ICMP echo or error header.
pub(crate) const ICMP_HEADER: usize = 8;
/// The packet size that every interface takes.
const FRAGMENT_MTU: usize = 1500;
/// Frames that wait for the guest at most.
const BACKLOG_FRAMES: usize = 512;
/// The largest frame: the largest IPv4 packet and its Ethernet header.
const FRAME_BYTES_MAX: usize = ETHERNET_HEADER + 65_535;
const TTL: u8 = 64;

/// The wire to the guest.
pub(crate) struct Link {
    sink: Option<Arc<dyn FrameSink>>,
    backlog: VecDeque<(Box<[u8]>, Unfinished)>,
    /// Who the guest is, once it has spoken.
    guest: Option<EthernetAddress>,
    /// The frame under construction: the first `length` bytes. The rest is left from others.
    frame: Box<[u8]>,
    length: usize,
    identification: u16,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self {
            sink: None,
            backlog: VecDeque::new(),
            guest: None,
            frame: vec![0; FRAME_BYTES_MAX].into(),
            length: 0,
            identification: 0,
        }
    }

    /// Frames go to `sink` from now on.
    pub(crate) fn attach(&mut self, sink: Arc<dyn FrameSink>) {
        self.sink = Some(sink);
        self.backlog.clear();
    }

    /// The guest's interface has this address.
    pub(crate) fn learn(&mut self, guest: EthernetAddress) {
        if guest.is_unicast() && guest != GATEWAY_ETHERNET {
            self.guest = Some(guest);
        }
    }

    /// Whether frames are waiting for the guest to have room.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The guest may have room again: sends what waits.
    pub(crate) fn retry(&mut self) {
        let Some(sink) = &self.sink else { return };
        while self.backlog.front().is_some_and(|(frame, unfinished)| sink.receive_unfinished(frame, *unfinished)) {
            self.backlog.pop_front();
        }
    }

    /// What the guest's interface lets us leave undone.
    pub(crate) fn offloads(&self) -> Offloads {
        self.sink.as_ref().map_or_else(Offloads::default, |sink| sink.offloads())
    }

    /// Sends the frame under construction, which lacks what is `unfinished`.
    fn transmit(&mut self, unfinished: Unfinished) {
        let Some(sink) = &self.sink else { return };
        if self.backlog.is_empty() && sink.receive_unfinished(&self.frame[..self.length], unfinished) {
            return;
        }
        if self.backlog.len() < BACKLOG_FRAMES {
            self.backlog.push_back((self.frame[..self.length].into(), unfinished));
        }
    }

    fn start(&mut self, to: EthernetAddress, protocol: EthernetProtocol, payload: usize) -> &mut [u8] {
        self.length = ETHERNET_HEADER + payload;
        let mut frame = EthernetFrame::new_unchecked(&mut self.frame[..self.length]);
        frame.set_dst_addr(to);
        frame.set_src_addr(GATEWAY_ETHERNET);
        frame.set_ethertype(protocol);
        &mut self.frame[ETHERNET_HEADER..self.length]
    }

    fn arp(&mut self, to: EthernetAddress, packet: &ArpRepr) {
        let bytes = self.start(to, EthernetProtocol::Arp, packet.buffer_len());
        packet.emit(&mut ArpPacket::new_unchecked(bytes));
        self.transmit(Unfinished::default());
    }

    /// Answers an ARP request for `of` by the guest.
    pub(crate) fn arp_reply(&mut self, of: Ipv4Addr, guest: EthernetAddress, guest_address: Ipv4Addr) {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: GATEWAY_ETHERNET,
            source_protocol_addr: of,
            target_hardware_addr: guest,
            target_protocol_addr: guest_address,
        };
        self.arp(guest, &reply);
    }

    /// Sends an IPv4 packet whose payload of `length` bytes `fill` writes over what was there before. If nobody knows
    /// the guest's Ethernet address yet, asks for it instead: whoever needs an answer tries again.
    ///
    /// `length` fits a packet: it is below 65,515.
    pub(crate) fn ipv4(
        &mut self,
        protocol: IpProtocol,
        from: Ipv4Addr,
        to: Ipv4Addr,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        self.ipv4_unfinished(Unfinished::default(), protocol, from, to, length, fill);
    }

    /// As [`Self::ipv4`]; the packet lacks what is `unfinished`, and is not fragmented if that is anything.
    pub(crate) fn ipv4_unfinished(
        &mut self,
        unfinished: Unfinished,
        protocol: IpProtocol,
        from: Ipv4Addr,
        to: Ipv4Addr,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let Ok(total) = u16::try_from(IPV4_HEADER + length) else { return };
        let Some(ethernet) = (if to.is_broadcast() { Some(EthernetAddress::BROADCAST) } else { self.guest }) else {
            let who = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: GATEWAY_ETHERNET,
                source_protocol_addr: GATEWAY,
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: to,
            };
            self.arp(EthernetAddress::BROADCAST, &who);
            return;
        };
        self.identification = self.identification.wrapping_add(1);
        let identification = self.identification;
        let bytes = self.start(ethernet, EthernetProtocol::Ipv4, usize::from(total));
        fill(&mut bytes[IPV4_HEADER..]);
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        packet.set_version(4);
        packet.set_header_len(20);
        packet.set_dscp(0);
        packet.set_ecn(0);
        packet.set_total_len(total);
        packet.set_ident(identification);
        packet.clear_flags();
        packet.set_dont_frag(protocol == IpProtocol::Tcp);
        packet.set_frag_offset(0);
        packet.set_hop_limit(TTL);
        packet.set_next_header(protocol);
        packet.set_src_addr(from);
        packet.set_dst_addr(to);
        packet.fill_checksum();
        if usize::from(total) > FRAGMENT_MTU && protocol != IpProtocol::Tcp {
            self.fragment();
        } else {
            self.transmit(unfinished);
        }
    }

    /// Sends the IPv4 packet under construction as fragments.
    fn fragment(&mut self) {
        const PIECE: usize = (FRAGMENT_MTU - IPV4_HEADER) & !7;
        let whole: Box<[u8]> = self.frame[..self.length].into();
        let (header, payload) = whole.split_at(ETHERNET_HEADER + IPV4_HEADER);
        let pieces = payload.chunks(PIECE).count();
        for (index, piece) in payload.chunks(PIECE).enumerate() {
            self.length = header.len() + piece.len();
            self.frame[..header.len()].copy_from_slice(header);
            self.frame[header.len()..self.length].copy_from_slice(piece);
            let mut packet = Ipv4Packet::new_unchecked(&mut self.frame[ETHERNET_HEADER..self.length]);
            packet.set_total_len(u16::try_from(IPV4_HEADER + piece.len()).unwrap_or(u16::MAX));
            packet.set_more_frags(index + 1 < pieces);
            packet.set_frag_offset(u16::try_from(index * PIECE).unwrap_or(u16::MAX));
            packet.fill_checksum();
            self.transmit(Unfinished::default());
        }
    }

    /// Sends a UDP datagram; `payload` is at most 65,507 bytes or it is dropped.
    pub(crate) fn udp(&mut self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) {
        let length = UDP_HEADER + payload.len();
        let Ok(field) = u16::try_from(length) else { return };
        self.ipv4(IpProtocol::Udp, from.0, to.0, length, |bytes| {
            bytes[UDP_HEADER..].copy_from_slice(payload);
            let mut packet = UdpPacket::new_unchecked(bytes);
            packet.set_src_port(from.1);
            packet.set_dst_port(to.1);
            packet.set_len(field);
            packet.fill_checksum(&IpAddress::Ipv4(from.0), &IpAddress::Ipv4(to.0));
        });
    }

    /// Sends an ICMP echo reply.
    pub(crate) fn echo_reply(&mut self, from: Ipv4Addr, to: Ipv4Addr, identifier: u16, sequence: u16, data: &[u8]) {
        self.ipv4(IpProtocol::Icmp, from, to, ICMP_HEADER + data.len(), |bytes| {
            bytes[ICMP_HEADER..].copy_from_slice(data);
            let mut packet = Icmpv4Packet::new_unchecked(bytes);
            packet.set_msg_type(Icmpv4Message::EchoReply);
            packet.set_msg_code(0);
            packet.set_echo_ident(identifier);
            packet.set_echo_seq_no(sequence);
            packet.fill_checksum();
        });
    }

    /// Sends an ICMP error about the guest's packet `about` (from its IPv4 header on; as much as is known of it).
    pub(crate) fn icmp_error(&mut self, error: IcmpError, about: &[u8]) {
        let Ok(quoted) = Ipv4Packet::new_checked(about) else { return };
        let to = quoted.src_addr();
        let (from, kind, code) = match error {
            IcmpError::TimeExceeded => (GATEWAY, Icmpv4Message::TimeExceeded, 0),
            // Only what a host itself would say comes from that host's address.
            IcmpError::Unreachable(
                code @ (Icmpv4DstUnreachable::PortUnreachable | Icmpv4DstUnreachable::ProtoUnreachable),
            ) => (quoted.dst_addr(), Icmpv4Message::DstUnreachable, code.into()),
            IcmpError::Unreachable(code) => (GATEWAY, Icmpv4Message::DstUnreachable, code.into()),
        };
        // The header and eight bytes suffice (RFC 792); more helps (RFC 1812, section 4.3.2.3).
        let quote = &about[..about.len().min(FRAGMENT_MTU - IPV4_HEADER - ICMP_HEADER).min(548)];
        self.ipv4(IpProtocol::Icmp, from, to, ICMP_HEADER + quote.len(), |bytes| {
            bytes[..ICMP_HEADER].fill(0);
            bytes[ICMP_HEADER..].copy_from_slice(quote);
            let mut packet = Icmpv4Packet::new_unchecked(bytes);
            packet.set_msg_type(kind);
            packet.set_msg_code(code);
            packet.fill_checksum();
        });
    }

    /// Whether `address` answers for itself on the virtual network: the router and the name server.
    pub(crate) fn is_ours(address: Ipv4Addr) -> bool {
        address == GATEWAY || address == DNS
    }
}

/// What to tell the guest about a packet that went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpError {
    /// Its time to live ran out here.
    TimeExceeded,
    /// It cannot be delivered.
    Unreachable(Icmpv4DstUnreachable),
}

impl IcmpError {
    /// What the guest should hear of a host socket's `error`; `None` if nothing.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        Some(Self::Unreachable(match error.kind() {
            io::ErrorKind::ConnectionRefused => Icmpv4DstUnreachable::PortUnreachable,
            io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => Icmpv4DstUnreachable::HostUnreachable,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Icmpv4DstUnreachable::NetUnreachable,
            io::ErrorKind::PermissionDenied => Icmpv4DstUnreachable::CommProhibited,
            _ => return None,
        }))
    }
}

/// The IPv4 header and the first bytes of a packet that the guest must have sent, for quoting in an ICMP error when the packet
/// itself is long gone. `head` holds the first eight bytes of the payload.
pub(crate) fn quote(protocol: IpProtocol, from: Ipv4Addr, to: Ipv4Addr, head: [u8; 8]) -> [u8; 28] {
    let mut bytes = [0; 28];
    let header = smoltcp::wire::Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: head.len(),
        hop_limit: TTL,
    };
    header.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
    bytes[IPV4_HEADER..].copy_from_slice(&head);
    bytes
}
