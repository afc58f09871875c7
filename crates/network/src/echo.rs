//! Pings: answered here for the virtual network's own addresses, else sent on through a host socket.
//!
//! An ICMP datagram socket needs no privilege, but the host has to allow it (`net.ipv4.ping_group_range`); a raw socket
//! does for root. A host that gives neither makes every ping "administratively prohibited".

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use machine::sys::PingSocket;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet};

use crate::flow::{Context, Key, Table};
use crate::link::{ICMP_HEADER, IcmpError, quote};
use crate::policy::{self, Transport, Verdict};
use crate::poll::{Kind, Token};

/// How long a ping's answer may take.
const IDLE_NS: u64 = 60_000_000_000;
/// Answers taken from a socket at once.
const BURST: usize = 64;

struct Flow {
    socket: PingSocket,
    /// The identifier on the host's side if we choose it (raw sockets); else the host does.
    identifier: Option<u16>,
}

/// All pings under way.
pub(crate) struct Echo {
    table: Table<Flow>,
    deadline_ns: u64,
    scratch: Vec<u8>,
}

impl Echo {
    /// No flows, and at most `limit` of them.
    pub(crate) fn new(limit: usize) -> Self {
        Self { table: Table::new(limit), deadline_ns: u64::MAX, scratch: vec![0; usize::from(u16::MAX)] }
    }

    /// Takes an ICMP message from the guest. Only echo requests mean anything to a router without routes.
    pub(crate) fn input(&mut self, context: &mut Context, packet: &Ipv4Packet<&[u8]>) {
        let Ok(icmp) = Icmpv4Packet::new_checked(packet.payload()) else { return };
        if icmp.msg_type() != Icmpv4Message::EchoRequest || icmp.msg_code() != 0 || !icmp.verify_checksum() {
            return;
        }
        let (identifier, sequence) = (icmp.echo_ident(), icmp.echo_seq_no());
        let key = Key {
            guest: SocketAddrV4::new(packet.src_addr(), identifier),
            remote: SocketAddrV4::new(packet.dst_addr(), 0),
        };
        let code = match policy::admit(Transport::Echo, key.remote) {
            Verdict::Answer => {
                return context.link.echo_reply(
                    *key.remote.ip(),
                    *key.guest.ip(),
                    identifier,
                    sequence,
                    &packet.payload()[ICMP_HEADER..],
                );
            }
            Verdict::Ignored | Verdict::Resolve => return,
            Verdict::Absent => Icmpv4DstUnreachable::HostUnreachable,
            Verdict::Prohibited => Icmpv4DstUnreachable::CommProhibited,
            Verdict::Forward(SocketAddr::V6(_)) => return,
            Verdict::Forward(SocketAddr::V4(to)) => {
                if let Err(error) = self.forward(context, key, *to.ip(), packet.payload())
                    && let Some(message) = IcmpError::of(&error)
                {
                    context.link.icmp_error(message, packet.as_ref());
                }
                return;
            }
        };
        context.link.icmp_error(IcmpError::Unreachable(code), packet.as_ref());
    }

    fn forward(&mut self, context: &mut Context, key: Key, to: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        let id = match self.table.find(&key) {
            Some(id) => id,
            None => {
                let socket = PingSocket::connect(to)?;
                if self.table.is_full()
                    && let Some(oldest) = self.table.oldest(|_| true)
                {
                    self.table.remove(oldest);
                }
                let id = self.table.reserve();
                context.poller.add(&socket, Token { kind: Kind::Echo, id })?;
                let random = context.random().to_le_bytes();
                let identifier = socket.is_raw().then_some(u16::from_le_bytes([random[0], random[1]]));
                self.table.insert(id, key, context.now_ns, Flow { socket, identifier });
                self.deadline_ns = self.deadline_ns.min(context.now_ns + IDLE_NS);
                id
            }
        };
        let Some(entry) = self.table.get(id) else { return Ok(()) };
        entry.active_ns = context.now_ns;
        let mut message = message.to_vec();
        if let Some(identifier) = entry.flow.identifier {
            let mut icmp = Icmpv4Packet::new_unchecked(&mut message[..]);
            icmp.set_echo_ident(identifier);
            icmp.fill_checksum();
        }
        entry.flow.socket.send(&message)
    }

    /// A flow's socket has something.
    pub(crate) fn on_ready(&mut self, context: &mut Context, id: u64) {
        for _ in 0..BURST {
            let Some(entry) = self.table.get(id) else { return };
            let key = entry.key;
            let count = match entry.flow.socket.receive(&mut self.scratch) {
                Ok(count) => count,
                Err(error) => {
                    if let Some(message) = IcmpError::of(&error) {
                        let head = [8, 0, 0, 0, 0, 0, 0, 0];
                        let about = quote(IpProtocol::Icmp, *key.guest.ip(), *key.remote.ip(), head);
                        context.link.icmp_error(message, &about);
                    }
                    return;
                }
            };
            let mut message = &self.scratch[..count];
            if entry.flow.identifier.is_some() {
                // A raw socket gives the IPv4 header too, and every message of the peer to anyone.
                let Ok(packet) = Ipv4Packet::new_checked(message) else { continue };
                message = packet.payload();
            }
            let Ok(icmp) = Icmpv4Packet::new_checked(message) else { continue };
            let ours = entry.flow.identifier.is_none_or(|identifier| identifier == icmp.echo_ident());
            if icmp.msg_type() == Icmpv4Message::EchoReply && ours {
                entry.active_ns = context.now_ns;
                let sequence = icmp.echo_seq_no();
                let data = &message[ICMP_HEADER..];
                context.link.echo_reply(*key.remote.ip(), *key.guest.ip(), key.guest.port(), sequence, data);
            }
        }
    }

    /// When [`Self::on_deadline`] wants to be called.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Forgets pings that nobody answers.
    pub(crate) fn on_deadline(&mut self, now_ns: u64) {
        let (_, next) = self.table.expire(now_ns, IDLE_NS);
        self.deadline_ns = next.unwrap_or(u64::MAX);
    }
}
