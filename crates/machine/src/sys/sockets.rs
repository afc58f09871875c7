//! What sockets can do beyond the standard library: connecting without waiting, pings, and ends by reset.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, ipproto};

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Begins to connect to `to`; the stream does not block, and is writable once connected or failed.
///
/// # Errors
/// The host has no descriptors left, or knows at once that it cannot connect.
pub fn connect_stream(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let stream = TcpStream::from(rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?);
    match rustix::net::connect(&stream, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(stream),
        Err(error) => Err(error.into()),
    }
}

/// A socket for datagrams to and from `to` only. It does not block, and the host fragments what is too large for the path.
///
/// # Errors
/// The host has no descriptors or no route.
pub fn connect_datagrams(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    if to.is_ipv4() {
        // A host that cannot do so refuses large datagrams, and no others.
        let _ = sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT);
    }
    socket.connect(to)?;
    Ok(socket)
}

/// Writes to a stream without ever raising a signal; answers how many bytes were taken.
///
/// # Errors
/// The stream is full (`WouldBlock`), or broken.
pub fn send_vectored(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut control = SendAncillaryBuffer::default();
    Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(stream, slices, &mut control, SendFlags::NOSIGNAL))?)
}

/// Closes a stream with a reset, so that the other end does not take a failure for an orderly end.
pub fn close_with_reset(stream: TcpStream) {
    // If the host refuses, the end is an orderly one after all.
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

/// A socket for pings of one address.
#[derive(Debug)]
pub struct PingSocket {
    socket: OwnedFd,
    raw: bool,
}

impl PingSocket {
    /// A socket for pings of `to`. It does not block.
    ///
    /// # Errors
    /// `PermissionDenied` if the host gives this user neither ping sockets (`net.ipv4.ping_group_range`) nor raw ones; or
    /// there is no route or no descriptor.
    pub fn connect(to: Ipv4Addr) -> io::Result<Self> {
        let open = |kind| rustix::net::socket_with(AddressFamily::INET, kind, FLAGS, Some(ipproto::ICMP));
        let (socket, raw) = match open(SocketType::DGRAM) {
            Ok(socket) => (socket, false),
            Err(_) => (open(SocketType::RAW).map_err(|_| io::ErrorKind::PermissionDenied)?, true),
        };
        rustix::net::connect(&socket, &SocketAddr::from((to, 0)))?;
        Ok(Self { socket, raw })
    }

    /// Whether this is a raw socket: then the caller chooses the identifier, received messages begin with their IPv4 header,
    /// and messages of others come too. Else the host chooses the identifier and lets in nothing but answers.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.raw
    }

    /// Sends an ICMP message.
    ///
    /// # Errors
    /// As the host says.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives a message into `bytes`; answers its length.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or the host tells of an error.
    pub fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(&self.socket, &mut *bytes, RecvFlags::empty())?;
        Ok(count.min(bytes.len()))
    }
}

impl AsFd for PingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How many descriptors this process may have open.
#[must_use]
pub fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn streams_connect_write_and_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = connect_stream(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        assert_eq!(send_vectored(&stream, &[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        let mut bytes = [0; 3];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abc");
        close_with_reset(stream);
        assert_eq!(other.read(&mut bytes).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn datagrams_come_from_the_peer_only() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = connect_datagrams(peer.local_addr().unwrap()).unwrap();
        let at = socket.local_addr().unwrap();
        stranger.send_to(b"x", at).unwrap();
        peer.send_to(b"y", at).unwrap();
        let mut bytes = [0; 2];
        assert_eq!((socket.recv(&mut bytes).unwrap(), bytes[0]), (1, b'y'));
        assert_eq!(socket.recv(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(descriptors_max() > 2);
    }

    #[test]
    fn pings_answer_or_are_forbidden() {
        let socket = match PingSocket::connect(Ipv4Addr::LOCALHOST) {
            Ok(socket) => socket,
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        };
        assert_eq!(socket.receive(&mut [0; 100]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // An echo request without data; its checksum is the complement of its only other word that is not zero.
        socket.send(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]).unwrap();
    }
}
