//! User-mode networking: what a guest's interface is plugged into when nobody is root.
//!
//! The guest sees an Ethernet with a router, a name server and a DHCP server (addresses as in QEMU's user network); the host
//! sees an ordinary program with sockets. Every flow of the guest ends here and is carried on by a host socket of its own:
//! there is no packet forwarding, so nothing needs a privilege.
//!
//! ```text
//!            device thread         the network's thread                              the host
//! guest --send()--> Inbox --> Stack --+-- Tcp   (own TCP end, a socket per connection) --> connect, accept
//!                                     +-- Udp   (a socket per flow)                    --> send, recv
//!   ^                                 +-- Echo  (a ping socket per flow)
//!   |                                 +-- Resolver (DNS), DHCP, ARP
//!   +----FrameSink::receive---- Link <+            policy::admit sees every new flow
//! ```
//!
//! Invariants: one thread touches all state but the inbox; it never blocks but in `epoll`; memory and sockets are bounded,
//! whatever the guest sends; no packet of the guest can make it panic or loop. The guest reaches the host's loopback
//! only through 10.0.2.2. Times are the machine's, so a paused machine's connections do not time out.
//!
//! Cost: bulk data is copied twice each way (socket to buffer, buffer to frame), and checksummed only for an interface that wants that: others get TCP in pieces as
//! large as packets get, whatever the size of their segments. Frames that come while the thread is busy are taken in one go and answered by one acknowledgement
//! per connection.
//!
//! There is no IPv6: no router advertises it, so guests do not wait for it.

mod addresses;
mod buffer;
mod dhcp;
mod dns;
mod echo;
mod flow;
mod link;
mod policy;
mod poll;
mod publish;
mod reassembly;
mod stack;
mod tcp;
mod udp;

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use machine::backend::{FrameSink, NetworkBackend, Offloads};
use machine::clock::Clock;
use machine::entropy::Entropy;

pub use addresses::{BROADCAST, DNS, GATEWAY, GUEST, NETMASK, NETWORK};
pub use dns::NameServers;
pub use publish::{ParsePublishError, Protocol, Publish};

use poll::Shared;
use stack::{Limits, Parts, Stack};

/// The packet size unless another is asked for: as large as packets get, since what a guest spends on a transfer is by packet.
pub const MTU_DEFAULT: u16 = 65_520;
/// The smallest packet size that every host must take (RFC 791), and the largest that fits a frame's buffer.
pub const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=65_520;

/// What a network is to be like.
#[derive(Debug)]
pub struct Config {
    /// Ports of the host that lead into the guest.
    pub publish: Vec<Publish>,
    /// The largest IPv4 packet on the link, in bytes: in [`MTU_RANGE`], [`MTU_DEFAULT`] by default. The guest learns it from its
    /// interface and by DHCP, and an interface that cannot have it says so in each connection (its MSS).
    pub mtu: u16,
    /// The name that DHCP gives to the guest.
    pub host_name: Option<String>,
    /// Whom the name server asks.
    pub name_servers: NameServers,
    /// Where sequence numbers and identifiers come from.
    pub entropy: Entropy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            publish: Vec::new(),
            mtu: MTU_DEFAULT,
            host_name: None,
            name_servers: NameServers::Host,
            entropy: Entropy::Host,
        }
    }
}

/// Why a network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Someone else listens there.
    #[error("{protocol} port {} is in use on {}: choose another host port, or 0 to have one chosen", .address.port(), .address.ip())]
    PortInUse {
        /// The port's protocol.
        protocol: Protocol,
        /// The address asked for.
        address: SocketAddr,
    },
    /// The host does not let this user listen there.
    #[error("may not listen on {protocol} port {} of {}: choose a host port above 1023", .address.port(), .address.ip())]
    PortForbidden {
        /// The port's protocol.
        protocol: Protocol,
        /// The address asked for.
        address: SocketAddr,
    },
    /// The host has no such address.
    #[error("{} is not an address of this host: publish on 127.0.0.1, 0.0.0.0 or one that `ip address` lists", .0.ip())]
    NoSuchAddress(SocketAddr),
    /// The host failed otherwise.
    #[error("cannot publish {publish}: {source}")]
    Publish {
        /// What was asked for.
        publish: Publish,
        /// What the host said.
        source: io::Error,
    },
    /// The packet size makes no sense.
    #[error("an MTU of {0} cannot work: give one from 576 to 65520")]
    Mtu(u16),
    /// The host has no more descriptors or threads to give.
    #[error("cannot set up the guest's network: {0}: raise the limits of this session (`ulimit -n`, `ulimit -u`)")]
    Host(#[source] io::Error),
}

/// A running network. Dropping it ends its thread and closes every connection.
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
    published: Vec<Publish>,
    mtu: u16,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Binds the published ports and starts the network's thread. `clock` is the machine's.
    ///
    /// # Errors
    /// A published port cannot be had, the MTU makes no sense, or the host has no descriptors or threads left.
    pub fn start(config: Config, clock: Arc<Clock>) -> Result<Self, Error> {
        if !MTU_RANGE.contains(&config.mtu) {
            return Err(Error::Mtu(config.mtu));
        }
        let (mut tcp, mut udp, mut published) = (Vec::new(), Vec::new(), Vec::new());
        for publish in &config.publish {
            let guest = SocketAddrV4::new(GUEST, publish.guest_port);
            let host = match publish.protocol {
                Protocol::Tcp => TcpListener::bind(publish.host).and_then(|listener| {
                    let address = listener.local_addr();
                    tcp.push((listener, guest));
                    address
                }),
                Protocol::Udp => UdpSocket::bind(publish.host).and_then(|socket| {
                    let address = socket.local_addr();
                    udp.push((socket, guest));
                    address
                }),
            };
            published.push(Publish { host: host.map_err(|error| bind_error(*publish, error))?, ..*publish });
        }
        let shared = Arc::new(Shared::new().map_err(Error::Host)?);
        let stack = Stack::new(Parts {
            shared: Arc::clone(&shared),
            clock,
            entropy: config.entropy,
            mtu: config.mtu,
            host_name: config.host_name,
            name_servers: config.name_servers,
            limits: limits(),
            tcp,
            udp,
        })
        .map_err(Error::Host)?;
        let run = move || stack.run();
        let thread = machine::sys::thread("network").spawn(run).map_err(Error::Host)?;
        Ok(Self { shared, published, mtu: config.mtu, thread: Some(thread) })
    }

    /// The published ports in the order asked for, with the host ports that the host chose in place of zeroes.
    #[must_use]
    pub fn published(&self) -> &[Publish] {
        &self.published
    }
}

impl NetworkBackend for Network {
    fn send(&self, frame: &[u8]) {
        self.shared.push_frame(frame);
    }

    /// Connections end here: a segment of any size is bytes for a socket, and what was in memory all the time needs no checksum.
    fn offloads(&self) -> Offloads {
        Offloads { checksum: true, segment_v4: true, segment_v6: true }
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn attach(&self, sink: Arc<dyn FrameSink>) {
        self.shared.attach(sink);
    }

    fn ready(&self) {
        self.shared.set_room();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by itself; the guest has been without network since.
            let _ = thread.join();
        }
    }
}

fn bind_error(publish: Publish, source: io::Error) -> Error {
    let (protocol, address) = (publish.protocol, publish.host);
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { protocol, address },
        io::ErrorKind::PermissionDenied => Error::PortForbidden { protocol, address },
        io::ErrorKind::AddrNotAvailable => Error::NoSuchAddress(address),
        _ => Error::Publish { publish, source },
    }
}

/// Flows as the limit of open files allows: half of it for connections, some for the rest.
fn limits() -> Limits {
    let files = machine::sys::descriptors_max();
    Limits { tcp: (files / 2).clamp(16, 4096), udp: (files / 8).clamp(8, 1024), echo: (files / 64).clamp(2, 32) }
}
