//! The loop: takes frames from the guest apart, and gives each part of the network its turn.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;

use machine::clock::Clock;
use machine::entropy::Entropy;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable, IpProtocol, Ipv4Packet,
    UdpPacket,
};

use crate::addresses::{GATEWAY_ETHERNET, is_guest};
use crate::buffer::Pool;
use crate::dhcp;
use crate::dns::{NameServers, Resolver};
use crate::echo::Echo;
use crate::flow::Context;
use crate::link::{IcmpError, Link};
use crate::poll::{Inbox, Kind, Poller, Ready, Shared};
use crate::reassembly::Reassembly;
use crate::tcp::Tcp;
use crate::udp::Udp;

/// Bytes in flight over all TCP connections.
const POOL_BYTES: usize = 128 << 20;

/// How many flows of each protocol there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) tcp: usize,
    pub(crate) udp: usize,
    pub(crate) echo: usize,
}

/// What a network is made of.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) mtu: u16,
    pub(crate) host_name: Option<String>,
    pub(crate) name_servers: NameServers,
    pub(crate) limits: Limits,
    pub(crate) tcp: Vec<(TcpListener, SocketAddrV4)>,
    pub(crate) udp: Vec<(UdpSocket, SocketAddrV4)>,
}

/// The whole network behind the guest's interface; it belongs to one thread.
pub(crate) struct Stack {
    shared: Arc<Shared>,
    clock: Arc<Clock>,
    host_name: Option<String>,
    context: Context,
    reassembly: Reassembly,
    tcp: Tcp,
    udp: Udp,
    echo: Echo,
    resolver: Resolver,
}

impl Stack {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let context = Context {
            link: Link::new(),
            poller: Poller::new(&parts.shared)?,
            pool: Pool::new(POOL_BYTES),
            entropy: parts.entropy,
            now_ns: parts.clock.now_ns(),
            mtu: parts.mtu,
        };
        Ok(Self {
            tcp: Tcp::new(&context, parts.limits.tcp, parts.tcp)?,
            udp: Udp::new(&context, parts.limits.udp, parts.udp)?,
            echo: Echo::new(parts.limits.echo),
            resolver: Resolver::new(parts.name_servers, Arc::clone(&parts.shared)),
            reassembly: Reassembly::default(),
            context,
            host_name: parts.host_name,
            clock: parts.clock,
            shared: parts.shared,
        })
    }

    /// Runs until [`Shared::stop`].
    pub(crate) fn run(mut self) {
        let mut inbox = Inbox::default();
        while !self.shared.is_stopped() {
            if let Some(sink) = self.shared.take_sink() {
                self.context.link.attach(sink);
            }
            if self.shared.take_room() {
                self.context.link.retry();
            }
            self.context.now_ns = self.clock.now_ns();
            self.shared.swap_inbox(&mut inbox);
            for frame in inbox.frames() {
                self.input(frame);
            }
            inbox.clear();
            for answer in self.shared.take_answers() {
                self.resolver.on_answer(&mut self.context, &answer);
            }
            self.tcp.work(&mut self.context);
            let deadline_ns = self.on_deadlines();
            self.wait(deadline_ns);
        }
    }

    /// Does what is due, and says when something will be next.
    fn on_deadlines(&mut self) -> u64 {
        let now_ns = self.context.now_ns;
        if self.tcp.deadline_ns() <= now_ns {
            self.tcp.on_deadline(now_ns);
        }
        if self.udp.deadline_ns() <= now_ns {
            self.udp.on_deadline(now_ns);
        }
        if self.echo.deadline_ns() <= now_ns {
            self.echo.on_deadline(now_ns);
        }
        if self.resolver.deadline_ns() <= now_ns {
            self.resolver.on_deadline(&mut self.context);
        }
        let deadlines =
            [self.tcp.deadline_ns(), self.udp.deadline_ns(), self.echo.deadline_ns(), self.resolver.deadline_ns()];
        deadlines.into_iter().min().unwrap_or(u64::MAX)
    }

    fn wait(&mut self, deadline_ns: u64) {
        let asleep = !self.tcp.has_work() && self.shared.may_sleep();
        let timeout_ns = if asleep {
            (deadline_ns != u64::MAX).then(|| deadline_ns.saturating_sub(self.context.now_ns))
        } else {
            Some(0)
        };
        // Waiting fails only for want of memory in the host's kernel; then the loop polls.
        let _ = self.context.poller.wait(timeout_ns);
        self.shared.awake();
        while let Some(ready) = self.context.poller.next() {
            self.on_ready(ready);
        }
    }

    fn on_ready(&mut self, ready: Ready) {
        let id = ready.token.id;
        match ready.token.kind {
            Kind::Wake => self.shared.take_wake(),
            Kind::Tcp => self.tcp.on_ready(ready),
            Kind::TcpListener => self.tcp.on_listener(&mut self.context, id),
            Kind::Udp => self.udp.on_ready(&mut self.context, id),
            Kind::UdpListener => self.udp.on_listener(&mut self.context, id),
            Kind::Echo => self.echo.on_ready(&mut self.context, id),
            Kind::Dns => self.resolver.on_ready(&mut self.context, id),
        }
    }

    /// Takes a frame from the guest. Whatever is not for this network, or is not well formed, is dropped.
    ///
    /// Checksums of TCP and UDP are not looked at: the wire is memory, and an interface may leave them to its backend.
    fn input(&mut self, frame: &[u8]) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return };
        if frame.dst_addr() != GATEWAY_ETHERNET && !frame.dst_addr().is_multicast() {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.arp(frame.payload()),
            EthernetProtocol::Ipv4 => {
                let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else { return };
                if packet.version() != 4 || packet.header_len() < 20 || !packet.verify_checksum() {
                    return;
                }
                if is_guest(packet.src_addr()) {
                    self.context.link.learn(frame.src_addr());
                }
                let whole = usize::from(packet.total_len());
                if packet.more_frags() || packet.frag_offset() != 0 {
                    if let Some(bytes) = self.reassembly.add(self.context.now_ns, &packet) {
                        self.ipv4(&bytes);
                    }
                } else {
                    self.ipv4(&frame.payload()[..whole]);
                }
            }
            // IPv6 among others: a guest that hears no router advertisement does without.
            _ => {}
        }
    }

    fn arp(&mut self, bytes: &[u8]) {
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpPacket::new_checked(bytes).and_then(|packet| ArpRepr::parse(&packet))
        else {
            return;
        };
        if is_guest(source_protocol_addr) {
            self.context.link.learn(source_hardware_addr);
        }
        if operation == ArpOperation::Request && Link::is_ours(target_protocol_addr) {
            self.context.link.arp_reply(target_protocol_addr, source_hardware_addr, source_protocol_addr);
        }
    }

    /// Takes a whole packet, exactly as long as it says.
    fn ipv4(&mut self, bytes: &[u8]) {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return };
        let protocol = packet.next_header();
        if protocol == IpProtocol::Udp && self.dhcp(&packet) {
            return;
        }
        if !is_guest(packet.src_addr()) {
            return;
        }
        let to = packet.dst_addr();
        if packet.hop_limit() <= 1 && !Link::is_ours(to) && !to.is_multicast() && !to.is_broadcast() {
            return self.context.link.icmp_error(IcmpError::TimeExceeded, bytes);
        }
        match protocol {
            IpProtocol::Tcp => self.tcp.input(&mut self.context, &mut self.resolver, &packet),
            IpProtocol::Udp => self.udp.input(&mut self.context, &mut self.resolver, &packet),
            IpProtocol::Icmp => self.echo.input(&mut self.context, &packet),
            _ if to.is_multicast() || to.is_broadcast() => {}
            _ => {
                let error = IcmpError::Unreachable(Icmpv4DstUnreachable::ProtoUnreachable);
                self.context.link.icmp_error(error, bytes);
            }
        }
    }

    /// Answers `packet` if it is for the DHCP server; false if it is not.
    fn dhcp(&mut self, packet: &Ipv4Packet<&[u8]>) -> bool {
        let to = packet.dst_addr();
        let Ok(udp) = UdpPacket::new_checked(packet.payload()) else { return false };
        if udp.dst_port() != dhcp::SERVER_PORT || !(to == crate::addresses::GATEWAY || to.is_broadcast()) {
            return false;
        }
        if let Some(reply) = dhcp::answer(udp.payload(), self.context.mtu, self.host_name.as_deref()) {
            let from: (Ipv4Addr, u16) = (crate::addresses::GATEWAY, dhcp::SERVER_PORT);
            self.context.link.udp(from, (reply.to, dhcp::CLIENT_PORT), &reply.bytes);
        }
        true
    }
}
