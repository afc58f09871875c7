//! TCP: one host socket per connection of the guest, and the guest's side ended here.
//!
//! ```text
//! guest <--segments--> Connection <--bytes in two buffers--> host socket <--> the world
//! ```
//!
//! Bytes move only when there is room for them on the other side: a slow guest closes the host's window through its full
//! socket, and a slow host closes the guest's. A connection is looked after when a segment, an event of its socket or
//! its deadline touches it; all that came in one round of the loop is written at once and acknowledged at once.

mod connection;
#[cfg(test)]
mod connection_tests;

use machine::backend::{Partial, Unfinished};
use machine::sys::{close_with_reset, connect_stream, send_vectored};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

use smoltcp::wire::{Icmpv4DstUnreachable, IpAddress, IpProtocol, Ipv4Packet, TcpOption, TcpPacket, TcpSeqNumber};

use self::connection::{Connection, Incoming, Phase, Segment, WINDOW, WINDOW_SMALL};
use crate::addresses::GATEWAY;
use crate::dns::Resolver;
use crate::flow::{Context, Entry, Key, Table};
use crate::link::{IPV4_HEADER, IcmpError, Link, quote};
use crate::policy::{self, Transport, Verdict};
use crate::poll::{Kind, Ready, Token};

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Where a TCP header is in a frame that we make, and where in it the checksum is.
const TCP_AT: u16 = 14 + 20;
const CHECKSUM_AT: u16 = 16;
/// Bytes read from a socket at once.
const READ: usize = 128 << 10;
/// Bytes that a connection may read before others get their turn.
const TURN: usize = 512 << 10;
/// A connection that has been quiet for this long may give way to a new one when there are too many.
const QUIET_NS: u64 = 60_000_000_000;
/// When to look again at a connection that found no memory.
const SHORTAGE_NS: u64 = 50_000_000;
/// Where the search for a free port of the router begins (RFC 6335, dynamic ports).
const DYNAMIC_PORTS: u16 = 49_152;

struct Flow {
    stream: TcpStream,
    connection: Connection,
    readable: bool,
    writable: bool,
    /// The host has sent its last byte.
    ended: bool,
    /// The host was told that the guest has.
    shut: bool,
    /// The host has broken the connection.
    failed: bool,
    /// It waits in `Tcp::queue`.
    queued: bool,
    /// It waits in `Tcp::stalled`.
    stalled: bool,
    /// When to look again although nothing happened.
    again_ns: Option<u64>,
}

/// A published port.
struct Published {
    listener: TcpListener,
    guest: SocketAddrV4,
}

/// All connections.
pub(crate) struct Tcp {
    table: Table<Flow>,
    published: Vec<Published>,
    /// Flows to look after in this round.
    queue: VecDeque<u64>,
    /// Flows with something for a guest that has no room.
    stalled: Vec<u64>,
    deadline_ns: u64,
    next_port: u16,
}

impl Tcp {
    /// No connections, and at most `limit` of them. The published listeners lead to the guest.
    pub(crate) fn new(
        context: &Context,
        limit: usize,
        published: Vec<(TcpListener, SocketAddrV4)>,
    ) -> io::Result<Self> {
        let published: Vec<_> = published.into_iter().map(|(listener, guest)| Published { listener, guest }).collect();
        for (id, port) in (0..).zip(&published) {
            port.listener.set_nonblocking(true)?;
            // By edges: a host without descriptors must not make the loop spin.
            context.poller.add_edges(&port.listener, Token { kind: Kind::TcpListener, id })?;
        }
        Ok(Self {
            table: Table::new(limit),
            published,
            queue: VecDeque::new(),
            stalled: Vec::new(),
            deadline_ns: u64::MAX,
            next_port: DYNAMIC_PORTS,
        })
    }

    /// Takes a segment from the guest.
    pub(crate) fn input(&mut self, context: &mut Context, resolver: &mut Resolver, packet: &Ipv4Packet<&[u8]>) {
        let Ok(tcp) = TcpPacket::new_checked(packet.payload()) else { return };
        let key = Key {
            guest: SocketAddrV4::new(packet.src_addr(), tcp.src_port()),
            remote: SocketAddrV4::new(packet.dst_addr(), tcp.dst_port()),
        };
        if tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return;
        }
        let segment = parse(&tcp);
        if let Some(id) = self.table.find(&key) {
            let now_ns = context.now_ns;
            let Some(entry) = self.table.get(id) else { return };
            entry.active_ns = now_ns;
            if let Some(reset) = entry.flow.connection.on_segment(&mut context.pool, &segment) {
                send(&mut context.link, &key, &reset, &entry.flow.connection);
            }
            self.enqueue(id);
        } else if segment.syn && segment.ack.is_none() && !segment.rst && !segment.fin {
            self.open(context, resolver, key, &segment, packet.as_ref());
        } else if !segment.rst {
            refuse(&mut context.link, &key, &segment);
        }
    }

    fn open(&mut self, context: &mut Context, resolver: &mut Resolver, key: Key, syn: &Incoming<'_>, packet: &[u8]) {
        let unreachable = IcmpError::Unreachable;
        let to = match policy::admit(Transport::Tcp, key.remote) {
            Verdict::Forward(to) => to,
            Verdict::Resolve => match resolver.first_server() {
                Some(server) => server,
                None => return refuse(&mut context.link, &key, syn),
            },
            Verdict::Absent if Link::is_ours(*key.remote.ip()) => return refuse(&mut context.link, &key, syn),
            Verdict::Absent | Verdict::Answer => {
                return context.link.icmp_error(unreachable(Icmpv4DstUnreachable::HostUnreachable), packet);
            }
            Verdict::Prohibited => {
                return context.link.icmp_error(unreachable(Icmpv4DstUnreachable::CommProhibited), packet);
            }
            Verdict::Ignored => return,
        };
        if !self.make_room(context) {
            return refuse(&mut context.link, &key, syn);
        }
        match connect_stream(to) {
            Ok(stream) => {
                let initial = initial_sequence(context);
                let connection = Connection::passive(syn, mss(context), initial);
                self.add(context, key, stream, connection);
            }
            Err(error) => match connect_error(&error) {
                Some(message) => context.link.icmp_error(message, packet),
                None => refuse(&mut context.link, &key, syn),
            },
        }
    }

    fn add(&mut self, context: &mut Context, key: Key, stream: TcpStream, connection: Connection) {
        // Latency matters more than few packets, and the guest has done its own gathering.
        let _ = stream.set_nodelay(true);
        let id = self.table.reserve();
        if context.poller.add_edges(&stream, Token { kind: Kind::Tcp, id }).is_err() {
            // As if the frame was lost; the guest tries again, when the host may have recovered.
            return;
        }
        let flow = Flow {
            stream,
            connection,
            readable: false,
            writable: false,
            ended: false,
            shut: false,
            failed: false,
            queued: false,
            stalled: false,
            again_ns: None,
        };
        self.table.insert(id, key, context.now_ns, flow);
        self.enqueue(id);
    }

    /// Makes room for one more connection, at the cost of one that is unlikely to be missed. False if there is none.
    fn make_room(&mut self, context: &mut Context) -> bool {
        if !self.table.is_full() {
            return true;
        }
        let now_ns = context.now_ns;
        let victim = self
            .table
            .oldest(|entry| entry.flow.connection.phase() != Phase::Open)
            .or_else(|| self.table.oldest(|entry| now_ns.saturating_sub(entry.active_ns) >= QUIET_NS));
        if let Some(id) = victim {
            self.abort(context, id);
        }
        victim.is_some()
    }

    /// A published port has connections waiting.
    pub(crate) fn on_listener(&mut self, context: &mut Context, id: u64) {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        while let Some(port) = self.published.get(index) {
            let guest = port.guest;
            let (stream, peer) = match port.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // None left; or no descriptor for it, and then it waits for the next to come.
                Err(_) => return,
            };
            if stream.set_nonblocking(true).is_err() || !self.make_room(context) {
                close_with_reset(stream);
                continue;
            }
            let Some(key) = self.router_port(peer.port(), guest) else { continue };
            let initial = initial_sequence(context);
            let connection = Connection::active(mss(context), initial);
            self.add(context, key, stream, connection);
        }
    }

    /// Ends of a flow from the router to `guest` that no other flow has; from `wish`, if that is free.
    fn router_port(&mut self, wish: u16, guest: SocketAddrV4) -> Option<Key> {
        let key = |port| Key { guest, remote: SocketAddrV4::new(GATEWAY, port) };
        if wish != 0 && self.table.find(&key(wish)).is_none() {
            return Some(key(wish));
        }
        (DYNAMIC_PORTS..=u16::MAX).find_map(|_| {
            let port = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(DYNAMIC_PORTS);
            self.table.find(&key(port)).is_none().then(|| key(port))
        })
    }

    /// A connection's socket has become readable or writable.
    pub(crate) fn on_ready(&mut self, ready: Ready) {
        if let Some(entry) = self.table.get(ready.token.id) {
            entry.flow.readable |= ready.readable;
            entry.flow.writable |= ready.writable;
            self.enqueue(ready.token.id);
        }
    }

    /// The guest has room again.
    pub(crate) fn on_room(&mut self) {
        for id in std::mem::take(&mut self.stalled) {
            if let Some(entry) = self.table.get(id) {
                entry.flow.stalled = false;
            }
            self.enqueue(id);
        }
    }

    fn enqueue(&mut self, id: u64) {
        if let Some(entry) = self.table.get(id)
            && !entry.flow.queued
        {
            entry.flow.queued = true;
            self.queue.push_back(id);
        }
    }

    /// Whether connections wait for another turn.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Gives every connection that something has happened to its turn.
    pub(crate) fn work(&mut self, context: &mut Context) {
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else { break };
            let Some(entry) = self.table.get(id) else { continue };
            entry.flow.queued = false;
            let next = entry.turn(context);
            let deadline = [entry.flow.connection.deadline_ns(), entry.flow.again_ns].into_iter().flatten().min();
            self.deadline_ns = self.deadline_ns.min(deadline.unwrap_or(u64::MAX));
            match next {
                Next::Wait => {}
                Next::Again => self.enqueue(id),
                Next::Stalled => {
                    if !std::mem::replace(&mut entry.flow.stalled, true) {
                        self.stalled.push(id);
                    }
                }
                Next::Done => {
                    if let Some(mut entry) = self.table.remove(id) {
                        entry.flow.connection.release(&mut context.pool);
                    }
                }
                Next::Abort => self.abort(context, id),
            }
        }
        if !context.link.is_blocked() && !self.stalled.is_empty() {
            self.on_room();
        }
    }

    /// Ends a connection with an RST both ways.
    fn abort(&mut self, context: &mut Context, id: u64) {
        let Some(mut entry) = self.table.remove(id) else { return };
        let connection = &mut entry.flow.connection;
        if connection.phase() != Phase::Reset {
            let reset = connection.reset();
            send(&mut context.link, &entry.key, &reset, connection);
        }
        connection.release(&mut context.pool);
        close_with_reset(entry.flow.stream);
    }

    /// When [`Self::on_deadline`] wants to be called.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Looks after the connections whose deadline has passed.
    pub(crate) fn on_deadline(&mut self, now_ns: u64) {
        let mut due = Vec::new();
        self.deadline_ns = u64::MAX;
        for (id, entry) in self.table.iter_mut() {
            let flow = &mut entry.flow;
            if flow.connection.deadline_ns().is_some_and(|at| at <= now_ns) {
                flow.connection.on_deadline();
                due.push(id);
            }
            if flow.again_ns.is_some_and(|at| at <= now_ns) {
                flow.again_ns = None;
                due.push(id);
            }
            let next = [flow.connection.deadline_ns(), flow.again_ns].into_iter().flatten().min();
            self.deadline_ns = self.deadline_ns.min(next.unwrap_or(u64::MAX));
        }
        for id in due {
            self.enqueue(id);
        }
    }
}

/// What a connection needs after its turn.
enum Next {
    /// Nothing until something happens to it.
    Wait,
    /// Another turn.
    Again,
    /// Room in the guest.
    Stalled,
    /// It is over.
    Done,
    /// It has failed.
    Abort,
}

impl Entry<Flow> {
    fn turn(&mut self, context: &mut Context) -> Next {
        let flow = &mut self.flow;
        if flow.connection.phase() == Phase::Connecting && flow.writable {
            match flow.stream.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
                // An event without a result is one of the time before the attempt.
                Ok(()) if flow.stream.peer_addr().is_err() => flow.writable = false,
                Ok(()) => flow.connection.accept(),
                Err(error) => return self.on_connect_error(context, &error),
            }
        }
        flow.connection.set_limit(if context.pool.is_tight() { WINDOW_SMALL } else { WINDOW });
        flow.connection.join_segments(context.link.offloads().segment_v4);
        if flow.write_host(context).is_err() {
            return Next::Abort;
        }
        let mut left = TURN;
        loop {
            let read = if context.link.is_blocked() || left == 0 { 0 } else { flow.read_host(context, left) };
            left = left.saturating_sub(read);
            while !context.link.is_blocked() {
                let Some(segment) = flow.connection.next_segment(context.now_ns) else { break };
                send(&mut context.link, &self.key, &segment, &flow.connection);
            }
            if read == 0 {
                break;
            }
        }
        if flow.connection.phase() == Phase::Reset || flow.failed {
            Next::Abort
        } else if flow.connection.is_over() && flow.shut {
            Next::Done
        } else if context.link.is_blocked() {
            Next::Stalled
        } else if left == 0 {
            Next::Again
        } else {
            Next::Wait
        }
    }

    fn on_connect_error(&mut self, context: &mut Context, error: &io::Error) -> Next {
        let Some(message) = connect_error(error) else { return Next::Abort };
        let mut head = [0; 8];
        head[..2].copy_from_slice(&self.key.guest.port().to_be_bytes());
        head[2..4].copy_from_slice(&self.key.remote.port().to_be_bytes());
        head[4..].copy_from_slice(&self.flow.connection.guest_initial().to_be_bytes());
        let about = quote(IpProtocol::Tcp, *self.key.guest.ip(), *self.key.remote.ip(), head);
        context.link.icmp_error(message, &about);
        // The guest has been told; no RST on top.
        self.flow.connection.reset();
        Next::Abort
    }
}

impl Flow {
    /// Gives the host what the guest has sent.
    fn write_host(&mut self, context: &mut Context) -> io::Result<()> {
        let before = self.connection.from_guest.len();
        while self.writable && !self.connection.from_guest.is_empty() {
            let stream = &self.stream;
            let result = self.connection.from_guest.drain(&mut context.pool, |slices| send_vectored(stream, slices));
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        if self.connection.from_guest.len() < before {
            self.connection.on_drained();
        }
        if self.connection.guest_finished() && self.connection.from_guest.is_empty() && !self.shut {
            self.shut = true;
            // Fails only if the host has gone, which reading will tell.
            let _ = self.stream.shutdown(std::net::Shutdown::Write);
        }
        Ok(())
    }

    /// Takes from the host what there is room for; answers how many bytes.
    fn read_host(&mut self, context: &mut Context, most: usize) -> usize {
        let most = self.connection.room().min(READ).min(most);
        if !self.readable || self.ended || most == 0 {
            return 0;
        }
        let mut stream = &self.stream;
        let result = self.connection.to_guest.fill(&mut context.pool, most, |slices| stream.read_vectored(slices));
        match result {
            None => self.again_ns = Some(context.now_ns + SHORTAGE_NS),
            Some(Ok(0)) => {
                self.ended = true;
                self.connection.finish();
            }
            Some(Ok(count)) => return count,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            // The host's RST: the guest gets one in turn.
            Some(Err(_)) => self.failed = true,
        }
        0
    }
}

/// What to tell the guest when the host cannot connect; `None` if an RST tells it better.
fn connect_error(error: &io::Error) -> Option<IcmpError> {
    IcmpError::of(error).filter(|_| error.kind() != io::ErrorKind::ConnectionRefused)
}

fn initial_sequence(context: &mut Context) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "any 32 of the random bits will do")]
    let initial = context.random() as u32;
    initial
}

fn mss(context: &Context) -> u16 {
    context.mtu - 40
}

fn parse<'a>(tcp: &TcpPacket<&'a [u8]>) -> Incoming<'a> {
    let mut segment = Incoming {
        seq: tcp.seq_number().0.cast_unsigned(),
        ack: tcp.ack().then(|| tcp.ack_number().0.cast_unsigned()),
        window: tcp.window_len(),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload: tcp.payload(),
        ..Incoming::default()
    };
    let mut options = if segment.syn { tcp.options() } else { &[] };
    while !options.is_empty() {
        match TcpOption::parse(options) {
            Ok((_, TcpOption::EndOfList)) | Err(_) => break,
            Ok((rest, option)) => {
                match option {
                    TcpOption::MaxSegmentSize(size) => segment.mss = Some(size),
                    TcpOption::WindowScale(scale) => segment.scale = Some(scale),
                    _ => {}
                }
                options = rest;
            }
        }
    }
    segment
}

/// Answers a segment that belongs to no connection (RFC 9293, section 3.10.7.1).
fn refuse(link: &mut Link, key: &Key, segment: &Incoming<'_>) {
    let length = u32::try_from(segment.payload.len()).unwrap_or(0) + u32::from(segment.syn) + u32::from(segment.fin);
    let reset = match segment.ack {
        Some(ack) => Segment { seq: ack, rst: true, ..Segment::default() },
        None => Segment { ack: Some(segment.seq.wrapping_add(length)), rst: true, ..Segment::default() },
    };
    send_with(link, key, &reset, u16::MAX, std::iter::empty());
}

fn send(link: &mut Link, key: &Key, segment: &Segment, connection: &Connection) {
    let payload = connection.to_guest.slices(segment.offset, segment.length);
    send_with(link, key, segment, connection.mss(), payload);
}

/// What the field of an unfinished checksum holds: the sum of the pseudo-header (RFC 9293, section 3.1) of a segment of `length` bytes.
fn pseudo_header_sum(from: Ipv4Addr, to: Ipv4Addr, length: u32) -> u16 {
    let halves = |word: u32| (word >> 16) + (word & 0xffff);
    let sum = halves(from.to_bits()) + halves(to.to_bits()) + u32::from(u8::from(IpProtocol::Tcp)) + halves(length);
    u16::try_from(halves(halves(sum))).unwrap_or(0)
}

/// Sends `segment`, which stands for several if it is longer than `mss`.
fn send_with<'a>(link: &mut Link, key: &Key, segment: &Segment, mss: u16, payload: impl Iterator<Item = &'a [u8]>) {
    let (from, to): (Ipv4Addr, Ipv4Addr) = (*key.remote.ip(), *key.guest.ip());
    let options_length = if segment.mss.is_some() { 4 } else { 0 } + if segment.scale.is_some() { 4 } else { 0 };
    let header = TCP_HEADER + options_length;
    debug_assert!(IPV4_HEADER + header + segment.length <= usize::from(u16::MAX), "the MSS keeps segments in a packet");
    // A frame that was joined while the interface took such ones, and goes when it no longer does, is one that it loses.
    let joined = segment.length > usize::from(mss);
    let partial = link.offloads().checksum || joined;
    let unfinished = Unfinished {
        checksum: partial.then_some(Partial { start: TCP_AT, offset: CHECKSUM_AT }),
        segment_bytes: if joined { mss } else { 0 },
    };
    link.ipv4_unfinished(unfinished, IpProtocol::Tcp, from, to, header + segment.length, |bytes| {
        let mut at = header;
        for piece in payload {
            bytes[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        let mut options = &mut bytes[TCP_HEADER..header];
        if let Some(size) = segment.mss {
            options = TcpOption::MaxSegmentSize(size).emit(options);
        }
        if let Some(scale) = segment.scale {
            options = TcpOption::NoOperation.emit(options);
            TcpOption::WindowScale(scale).emit(options);
        }
        let mut tcp = TcpPacket::new_unchecked(bytes);
        tcp.set_src_port(key.remote.port());
        tcp.set_dst_port(key.guest.port());
        tcp.set_seq_number(TcpSeqNumber(segment.seq.cast_signed()));
        tcp.set_ack_number(TcpSeqNumber(segment.ack.unwrap_or(0).cast_signed()));
        tcp.clear_flags();
        tcp.set_ack(segment.ack.is_some());
        tcp.set_syn(segment.syn);
        tcp.set_fin(segment.fin);
        tcp.set_rst(segment.rst);
        tcp.set_psh(segment.push);
        tcp.set_header_len(u8::try_from(header).unwrap_or(20));
        tcp.set_window_len(segment.window);
        tcp.set_urgent_at(0);
        if partial {
            let length = u32::try_from(header + segment.length).unwrap_or(0);
            tcp.set_checksum(pseudo_header_sum(from, to, length));
        } else {
            tcp.fill_checksum(&IpAddress::Ipv4(from), &IpAddress::Ipv4(to));
        }
    });
}
