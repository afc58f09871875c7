//! UDP: one connected host socket per flow, forgotten when idle.
//!
//! A connected socket lets in only what the guest's peer sends, and tells when there is no peer. A published port is one
//! socket for all its peers; towards the guest each of them is a port of the router.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use machine::sys::connect_datagrams;
use smoltcp::wire::{Icmpv4DstUnreachable, IpProtocol, Ipv4Packet, UdpPacket};

use crate::addresses::GATEWAY;
use crate::dns::Resolver;
use crate::flow::{Context, Key, Table};
use crate::link::{IcmpError, Link, quote};
use crate::policy::{self, Transport, Verdict};
use crate::poll::{Kind, Token};

/// How long a flow may be idle (RFC 4787, REQ-5).
const IDLE_NS: u64 = 120_000_000_000;
/// Datagrams taken from a socket at once.
const BURST: usize = 64;
/// Where the search for a free port of the router begins.
const DYNAMIC_PORTS: u16 = 49_152;

enum Path {
    /// A socket of the flow's own.
    Own(UdpSocket),
    /// A peer of a published port: the port's index, and the peer.
    Published(usize, SocketAddr),
}

/// A published port.
struct Published {
    socket: UdpSocket,
    guest: SocketAddrV4,
}

/// All flows.
pub(crate) struct Udp {
    table: Table<Path>,
    published: Vec<Published>,
    peers: HashMap<(usize, SocketAddr), u64>,
    deadline_ns: u64,
    next_port: u16,
    /// The datagram under way.
    scratch: Vec<u8>,
}

impl Udp {
    /// No flows, and at most `limit` of them. The published sockets lead to the guest.
    pub(crate) fn new(context: &Context, limit: usize, published: Vec<(UdpSocket, SocketAddrV4)>) -> io::Result<Self> {
        let published: Vec<_> = published.into_iter().map(|(socket, guest)| Published { socket, guest }).collect();
        for (id, port) in (0..).zip(&published) {
            port.socket.set_nonblocking(true)?;
            context.poller.add(&port.socket, Token { kind: Kind::UdpListener, id })?;
        }
        Ok(Self {
            table: Table::new(limit),
            published,
            peers: HashMap::new(),
            deadline_ns: u64::MAX,
            next_port: DYNAMIC_PORTS,
            scratch: vec![0; usize::from(u16::MAX)],
        })
    }

    /// Takes a datagram from the guest.
    pub(crate) fn input(&mut self, context: &mut Context, resolver: &mut Resolver, packet: &Ipv4Packet<&[u8]>) {
        let Ok(udp) = UdpPacket::new_checked(packet.payload()) else { return };
        let key = Key {
            guest: SocketAddrV4::new(packet.src_addr(), udp.src_port()),
            remote: SocketAddrV4::new(packet.dst_addr(), udp.dst_port()),
        };
        if udp.src_port() == 0 || udp.dst_port() == 0 {
            return;
        }
        let id = match self.table.find(&key) {
            Some(id) => id,
            None => match self.open(context, resolver, key, packet.as_ref(), udp.payload()) {
                Some(id) => id,
                None => return,
            },
        };
        let Some(entry) = self.table.get(id) else { return };
        entry.active_ns = context.now_ns;
        let result = match &entry.flow {
            Path::Own(socket) => socket.send(udp.payload()),
            Path::Published(index, peer) => self.published[*index].socket.send_to(udp.payload(), peer),
        };
        if let Err(error) = result
            && let Some(message) = IcmpError::of(&error)
        {
            context.link.icmp_error(message, packet.as_ref());
        }
    }

    fn open(
        &mut self,
        context: &mut Context,
        resolver: &mut Resolver,
        key: Key,
        packet: &[u8],
        payload: &[u8],
    ) -> Option<u64> {
        let to = match policy::admit(Transport::Udp, key.remote) {
            Verdict::Forward(to) => to,
            Verdict::Resolve => {
                resolver.query(context, key, payload);
                return None;
            }
            Verdict::Ignored => return None,
            verdict => {
                let code = match verdict {
                    Verdict::Prohibited => Icmpv4DstUnreachable::CommProhibited,
                    _ if Link::is_ours(*key.remote.ip()) => Icmpv4DstUnreachable::PortUnreachable,
                    _ => Icmpv4DstUnreachable::HostUnreachable,
                };
                context.link.icmp_error(IcmpError::Unreachable(code), packet);
                return None;
            }
        };
        match connect_datagrams(to) {
            Ok(socket) => {
                self.make_room();
                let id = self.table.reserve();
                context.poller.add(&socket, Token { kind: Kind::Udp, id }).ok()?;
                self.add(context, id, key, Path::Own(socket));
                Some(id)
            }
            Err(error) => {
                if let Some(message) = IcmpError::of(&error) {
                    context.link.icmp_error(message, packet);
                }
                None
            }
        }
    }

    fn add(&mut self, context: &Context, id: u64, key: Key, path: Path) {
        self.table.insert(id, key, context.now_ns, path);
        self.deadline_ns = self.deadline_ns.min(context.now_ns + IDLE_NS);
    }

    fn make_room(&mut self) {
        if self.table.is_full()
            && let Some(oldest) = self.table.oldest(|_| true)
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(Path::Published(index, peer)) = self.table.remove(id).map(|entry| entry.flow) {
            self.peers.remove(&(index, peer));
        }
    }

    /// A flow's socket has something.
    pub(crate) fn on_ready(&mut self, context: &mut Context, id: u64) {
        for _ in 0..BURST {
            let Some(entry) = self.table.get(id) else { return };
            let Path::Own(socket) = &entry.flow else { return };
            match socket.recv(&mut self.scratch) {
                Ok(count) => {
                    entry.active_ns = context.now_ns;
                    let key = entry.key;
                    let (from, to) = ((*key.remote.ip(), key.remote.port()), (*key.guest.ip(), key.guest.port()));
                    context.link.udp(from, to, &self.scratch[..count]);
                }
                Err(error) => {
                    if let Some(message) = IcmpError::of(&error) {
                        let about = quote_datagram(&entry.key);
                        context.link.icmp_error(message, &about);
                        continue;
                    }
                    return;
                }
            }
        }
    }

    /// A published port has something.
    pub(crate) fn on_listener(&mut self, context: &mut Context, id: u64) {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        for _ in 0..BURST {
            let Some(port) = self.published.get(index) else { return };
            let guest = port.guest;
            let Ok((count, peer)) = port.socket.recv_from(&mut self.scratch) else { return };
            let Some(id) = self.peers.get(&(index, peer)).copied().or_else(|| self.meet(context, index, peer, guest))
            else {
                continue;
            };
            let Some(entry) = self.table.get(id) else { continue };
            entry.active_ns = context.now_ns;
            let from = (*entry.key.remote.ip(), entry.key.remote.port());
            context.link.udp(from, (*guest.ip(), guest.port()), &self.scratch[..count]);
        }
    }

    /// Makes a flow for a new peer of a published port.
    fn meet(&mut self, context: &Context, index: usize, peer: SocketAddr, guest: SocketAddrV4) -> Option<u64> {
        let key = |port| Key { guest, remote: SocketAddrV4::new(GATEWAY, port) };
        let wish = Some(peer.port()).filter(|&port| self.table.find(&key(port)).is_none());
        let port = wish.or_else(|| {
            (DYNAMIC_PORTS..=u16::MAX).find_map(|_| {
                let port = self.next_port;
                self.next_port = self.next_port.checked_add(1).unwrap_or(DYNAMIC_PORTS);
                self.table.find(&key(port)).is_none().then_some(port)
            })
        })?;
        self.make_room();
        let id = self.table.reserve();
        self.add(context, id, key(port), Path::Published(index, peer));
        self.peers.insert((index, peer), id);
        Some(id)
    }

    /// When [`Self::on_deadline`] wants to be called.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Forgets idle flows.
    pub(crate) fn on_deadline(&mut self, now_ns: u64) {
        let (gone, next) = self.table.expire(now_ns, IDLE_NS);
        for entry in gone {
            if let Path::Published(index, peer) = entry.flow {
                self.peers.remove(&(index, peer));
            }
        }
        self.deadline_ns = next.unwrap_or(u64::MAX);
    }
}

/// The head of the guest's datagram that an error of its flow is about; its length is not known any more.
fn quote_datagram(key: &Key) -> [u8; 28] {
    let mut head = [0; 8];
    head[..2].copy_from_slice(&key.guest.port().to_be_bytes());
    head[2..4].copy_from_slice(&key.remote.port().to_be_bytes());
    head[5] = 8;
    quote(IpProtocol::Udp, *key.guest.ip(), *key.remote.ip(), head)
}
