//! Ports of the host that lead into the guest.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Which protocol a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads to a port of the guest.
///
/// Written `[ADDRESS:]HOST:GUEST[/tcp|/udp]`: `8080:80`, `127.0.0.1:8080:80`, `5353:53/udp`, `[::1]:8080:80`. Without an address
/// only this host itself can connect (127.0.0.1); `0.0.0.0` opens the port to everyone who can reach the host. Host port 0 lets
/// the host choose a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publish {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The guest's port; not zero.
    pub guest_port: u16,
    /// Of which protocol both ports are.
    pub protocol: Protocol,
}

/// Text that is not a [`Publish`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePublishError {
    /// It has the wrong number of parts.
    #[error("`{0}` is not [ADDRESS:]HOST:GUEST[/tcp|/udp]: write for example 8080:80")]
    Shape(String),
    /// A part that should be a port is not one.
    #[error("`{0}` is not a port: give a number up to 65535")]
    Port(String),
    /// The guest's port is zero.
    #[error("the guest's port cannot be 0: name the port that the service in the guest listens on")]
    GuestPortZero,
    /// The address is not one.
    #[error("`{0}` is not an address of this host: give an IPv4 address, or an IPv6 address in brackets")]
    Address(String),
    /// The protocol is not one.
    #[error("`{0}` is not a protocol: write /tcp or /udp")]
    Protocol(String),
}

fn port(text: &str) -> Result<u16, ParsePublishError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| ParsePublishError::Port(text.into()))
}

impl FromStr for Publish {
    type Err = ParsePublishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || ParsePublishError::Shape(text.into());
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => return Err(ParsePublishError::Protocol(other.into())),
        };
        let (rest, guest) = ports.rsplit_once(':').ok_or_else(shape)?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
            Some((address, host)) => {
                let wrong = || ParsePublishError::Address(address.into());
                let parsed = match address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
                    Some(inner) => IpAddr::V6(inner.parse().map_err(|_| wrong())?),
                    None => IpAddr::V4(address.parse().map_err(|_| wrong())?),
                };
                (parsed, host)
            }
        };
        let guest_port = port(guest)?;
        if guest_port == 0 {
            return Err(ParsePublishError::GuestPortZero);
        }
        Ok(Self { host: SocketAddr::new(address, port(host)?), guest_port, protocol })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.guest_port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("8080:80", "127.0.0.1:8080:80/tcp"),
            ("0:80", "127.0.0.1:0:80/tcp"),
            ("8080:80/tcp", "127.0.0.1:8080:80/tcp"),
            ("5353:53/udp", "127.0.0.1:5353:53/udp"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80/tcp"),
            ("[::1]:8080:80/udp", "[::1]:8080:80/udp"),
        ] {
            let publish: Publish = text.parse().unwrap();
            assert_eq!(publish.to_string(), shown);
            assert_eq!(shown.parse(), Ok(publish), "what is shown can be read");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, error) in [
            ("", "`` is not [ADDRESS:]HOST:GUEST[/tcp|/udp]: write for example 8080:80"),
            ("80", "`80` is not [ADDRESS:]HOST:GUEST[/tcp|/udp]: write for example 8080:80"),
            ("99999:80", "`99999` is not a port: give a number up to 65535"),
            ("+1:80", "`+1` is not a port: give a number up to 65535"),
            (":80", "`` is not a port: give a number up to 65535"),
            ("1:", "`` is not a port: give a number up to 65535"),
            ("80:0", "the guest's port cannot be 0: name the port that the service in the guest listens on"),
            (
                "localhost:1:2",
                "`localhost` is not an address of this host: give an IPv4 address, or an IPv6 address in brackets",
            ),
            (
                "::1:8080:80",
                "`::1` is not an address of this host: give an IPv4 address, or an IPv6 address in brackets",
            ),
            ("1:2/sctp", "`sctp` is not a protocol: write /tcp or /udp"),
            ("1:2/tcp/tcp", "`tcp/tcp` is not a protocol: write /tcp or /udp"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap_err().to_string(), error, "{text}");
        }
    }
}
