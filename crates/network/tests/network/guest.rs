//! A guest for the tests: smoltcp's own stack behind an interface of bounded room, plugged into a [`Network`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machine::backend::{FrameSink, NetworkBackend, Offloads, Partial, Unfinished};
use machine::clock::Clock;
use machine::entropy::Entropy;
use network::{Config, NameServers, Network};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpCidr, IpEndpoint, IpProtocol, Ipv4Packet, TcpPacket,
};

pub(crate) const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// How long anything on loopback may take before a test fails.
pub(crate) const PATIENCE_NS: u64 = 60_000_000_000;

/// Held by tests that need hundreds of descriptors: two of them at once are more than many a host allows.
pub(crate) fn many_descriptors() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receive ring of the guest's interface.
pub(crate) struct Ring {
    frames: Mutex<VecDeque<Vec<u8>>>,
    arrived: Condvar,
    room: usize,
    offloads: AtomicBool,
    /// How many frames stood for several.
    pub(crate) joined_count: AtomicUsize,
}

impl FrameSink for Ring {
    fn offloads(&self) -> Offloads {
        let on = self.offloads.load(Ordering::SeqCst);
        Offloads { checksum: on, segment_v4: on, segment_v6: false }
    }

    fn receive_unfinished(&self, frame: &[u8], unfinished: Unfinished) -> bool {
        if let Some(partial) = unfinished.checksum {
            // The field has the sum of the pseudo-header, and no more.
            assert_eq!(partial, Partial { start: 34, offset: 16 });
            let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            let mut finished = packet.payload().to_vec();
            let field = u16::from_be_bytes([finished[16], finished[17]]);
            TcpPacket::new_unchecked(&mut finished).fill_checksum(&packet.src_addr().into(), &packet.dst_addr().into());
            let whole = u16::from_be_bytes([finished[16], finished[17]]);
            finished[16..18].fill(0);
            let sum = |bytes: &[u8]| {
                bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | c.get(1).map_or(0, |b| u64::from(*b))).sum::<u64>()
            };
            assert_eq!((sum(&finished) + u64::from(field) + u64::from(whole)) % 0xffff, 0);
        }
        if unfinished.segment_bytes != 0 {
            assert!(unfinished.checksum.is_some() && frame.len() > 54 + usize::from(unfinished.segment_bytes));
            self.joined_count.fetch_add(1, Ordering::SeqCst);
        }
        self.receive(frame)
    }

    fn receive(&self, frame: &[u8]) -> bool {
        let mut frames = self.frames.lock().unwrap();
        if frames.len() >= self.room {
            return false;
        }
        frames.push_back(frame.to_vec());
        self.arrived.notify_one();
        true
    }
}

impl Ring {
    pub(crate) fn pop(&self) -> Option<Vec<u8>> {
        self.frames.lock().unwrap().pop_front()
    }

    /// Waits a little for a frame.
    pub(crate) fn wait(&self) {
        let frames = self.frames.lock().unwrap();
        if frames.is_empty() {
            drop(self.arrived.wait_timeout(frames, Duration::from_millis(2)).unwrap());
        }
    }

    fn is_half_empty(&self) -> bool {
        self.frames.lock().unwrap().len() <= self.room / 2
    }
}

/// The interface, as smoltcp drives it.
pub(crate) struct Port {
    pub(crate) ring: Arc<Ring>,
    pub(crate) network: Arc<Network>,
    mtu: usize,
    starved: bool,
    checksums: bool,
}

pub(crate) struct Received(Vec<u8>);
impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Sending<'a>(&'a Network);
impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.ring.pop();
        if self.ring.is_half_empty() && !self.starved {
            self.network.ready();
        }
        Some((Received(frame?), Sending(&self.network)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&self.network))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        if !self.checksums {
            let mut ignored = ChecksumCapabilities::ignored();
            ignored.ipv4 = Checksum::Tx;
            capabilities.checksum = ignored;
        }
        capabilities
    }
}

/// A guest: its interface, its stack and its sockets.
pub(crate) struct Guest {
    pub(crate) port: Port,
    pub(crate) interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) clock: Arc<Clock>,
}

/// A configuration for tests: nothing of it leaves the host, and it repeats.
pub(crate) fn config() -> Config {
    Config { mtu: 1500, name_servers: NameServers::Fixed(Vec::new()), entropy: Entropy::Seeded(1), ..Config::default() }
}

impl Guest {
    pub(crate) fn new(config: Config) -> Self {
        let mut guest = Self::without_address(config, 256);
        guest.interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(network::GUEST.into(), 24)).unwrap());
        guest.interface.routes_mut().add_default_ipv4_route(network::GATEWAY).unwrap();
        guest
    }

    /// A guest that has yet to ask for its address, and room for `room` frames.
    pub(crate) fn without_address(config: Config, room: usize) -> Self {
        let clock = Arc::new(Clock::new());
        let mtu = usize::from(config.mtu);
        let network = Arc::new(Network::start(config, Arc::clone(&clock)).unwrap());
        let (frames, arrived, offloads) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        let ring = Arc::new(Ring { frames, arrived, room, offloads, joined_count: AtomicUsize::new(0) });
        network.attach(Arc::clone(&ring) as Arc<dyn FrameSink>);
        let mut port = Port { ring, network, mtu, starved: false, checksums: true };
        let interface = Interface::new(smoltcp::iface::Config::new(MAC.into()), &mut port, Instant::ZERO);
        Self { port, interface, sockets: SocketSet::new(Vec::new()), clock }
    }

    /// Leaves checksums of TCP and UDP to the network and takes several segments as one, as an interface with offloads does.
    pub(crate) fn offload(&mut self) {
        self.port.checksums = false;
        self.port.ring.offloads.store(true, Ordering::SeqCst);
        self.interface = {
            let mut interface = Interface::new(smoltcp::iface::Config::new(MAC.into()), &mut self.port, Instant::ZERO);
            interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(network::GUEST.into(), 24)).unwrap());
            interface.routes_mut().add_default_ipv4_route(network::GATEWAY).unwrap();
            interface
        };
    }

    pub(crate) fn poll(&mut self) {
        let now = Instant::from_micros(i64::try_from(self.clock.now_ns() / 1000).unwrap());
        self.interface.poll(now, &mut self.port, &mut self.sockets);
    }

    /// Polls until `done` gives something; fails the test if that takes too long.
    pub(crate) fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start_ns = self.clock.now_ns();
        loop {
            self.poll();
            if let Some(result) = done(self) {
                self.poll();
                return result;
            }
            assert!(self.clock.now_ns() - start_ns < PATIENCE_NS, "waited too long: {what}");
            self.port.ring.wait();
        }
    }

    /// Polls for a while, for what is not to happen.
    pub(crate) fn idle(&mut self, ns: u64) {
        let start_ns = self.clock.now_ns();
        while self.clock.now_ns() - start_ns < ns {
            self.poll();
            self.port.ring.wait();
        }
    }

    /// A TCP socket with buffers of `bytes`.
    pub(crate) fn tcp(&mut self, bytes: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Starts to connect to `port` of the host, from `local`.
    pub(crate) fn connect(&mut self, handle: SocketHandle, remote: impl Into<IpEndpoint>, local: u16) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), remote, local).unwrap();
    }

    /// A connection to `port` of the host's loopback.
    pub(crate) fn connected(&mut self, port: u16, local: u16, bytes: usize) -> SocketHandle {
        let handle = self.tcp(bytes);
        self.connect(handle, (network::GATEWAY, port), local);
        self.until("connect", |guest| guest.socket(handle).may_send().then_some(()));
        handle
    }

    /// Sends all of `bytes`.
    pub(crate) fn write(&mut self, handle: SocketHandle, mut bytes: &[u8]) {
        self.until("send", |guest| {
            let count = guest.socket(handle).send_slice(bytes).unwrap();
            bytes = &bytes[count..];
            bytes.is_empty().then_some(())
        });
    }

    /// Receives until the peer has finished or broken the connection.
    pub(crate) fn read_to_end(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all = Vec::new();
        self.until("receive", |guest| {
            let socket = guest.socket(handle);
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), all.extend_from_slice(bytes))).unwrap();
            }
            (!socket.may_recv()).then_some(())
        });
        all
    }

    /// Receives exactly `count` bytes.
    pub(crate) fn read(&mut self, handle: SocketHandle, count: usize) -> Vec<u8> {
        let mut all = vec![0; count];
        let mut done = 0;
        self.until("receive", |guest| {
            done += guest.socket(handle).recv_slice(&mut all[done..]).unwrap();
            (done == count).then_some(())
        });
        all
    }
}

/// The network's answer to `port` being published from a port that the host chooses.
pub(crate) fn published(guest: &Guest, index: usize) -> SocketAddr {
    guest.port.network.published()[index].host
}

/// Bytes that tell their place: the same for the same `seed`.
pub(crate) fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    Entropy::Seeded(seed).fill(&mut bytes).unwrap();
    bytes
}

const ROUTER: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);

/// A frame with a valid IPv4 header around `payload`.
pub(crate) fn frame(protocol: IpProtocol, to: [u8; 4], fragment: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 34 + payload.len()];
    bytes[34..].copy_from_slice(payload);
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.set_dst_addr(ROUTER);
    ethernet.set_src_addr(MAC);
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
    packet.set_version(4);
    packet.set_header_len(20);
    packet.set_total_len(u16::try_from(20 + payload.len()).unwrap());
    packet.set_hop_limit(64);
    packet.set_frag_offset(fragment);
    packet.set_more_frags(more);
    packet.set_next_header(protocol);
    packet.set_src_addr(network::GUEST);
    packet.set_dst_addr(to.into());
    packet.fill_checksum();
    bytes
}
