//! What a process machine's guest may reach of the host. Nothing is allowed that is not named.
//!
//! A kind of machine turns these into its own terms: preopened directories for WebAssembly, exceptions for Java. What it
//! refuses it explains with the flag that would have allowed it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What a guest may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Files and directories, with all below them, that it may read.
    pub read: Vec<PathBuf>,
    /// Files and directories, with all below them, that it may read, write, make and remove.
    pub write: Vec<PathBuf>,
    /// What it may connect to and listen on.
    pub network: Vec<Endpoint>,
    /// The names of the host's environment variables that it sees.
    pub environment: Names,
    /// Whether it may start programs of the host.
    pub run: bool,
}

impl Permissions {
    /// Everything that the user who runs the machine may do.
    #[must_use]
    pub fn all() -> Self {
        Self {
            read: vec!["/".into()],
            write: vec!["/".into()],
            network: vec![Endpoint { host: None, port: None }],
            environment: Names::All,
            run: true,
        }
    }

    /// Whether every address is allowed.
    #[must_use]
    pub fn allows_all_of_network(&self) -> bool {
        self.network.iter().any(|endpoint| endpoint.host.is_none() && endpoint.port.is_none())
    }

    /// Whether a connection to, or a socket at, `address` is allowed. Names of hosts must have been resolved before.
    #[must_use]
    pub fn allow_address(&self, address: SocketAddr) -> bool {
        self.network.iter().any(|endpoint| endpoint.covers(&address.ip().to_string(), address.port()))
    }
}

/// A set of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// All there are.
    All,
    /// These.
    Some(Vec<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Names {
    /// Whether `name` is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.iter().any(|known| known == name),
        }
    }
}

/// The other end of a connection: `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address; `None` for any.
    pub host: Option<String>,
    /// `None` for any.
    pub port: Option<u16>,
}

impl Endpoint {
    /// Whether `host` (a name, or an address as text) at `port` is meant.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.host.as_deref().is_none_or(|own| own.eq_ignore_ascii_case(host)) && self.port.is_none_or(|own| own == port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{host}]")?,
            Some(host) => f.write_str(host)?,
            None => {}
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Text that is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no network address: use HOST, HOST:PORT, [IPV6]:PORT or :PORT")]
pub struct BadEndpoint(String);

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        let port = |digits: &str| digits.parse::<u16>().map_err(|_| bad());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, rest.strip_prefix(':').map(port).transpose()?)
        } else if text.matches(':').count() > 1 {
            // An IPv6 address without brackets has no room for a port.
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, digits)) => (host, Some(port(digits)?)),
                None => (text, None),
            }
        };
        if host.is_empty() && port.is_none() || host.contains(char::is_whitespace) {
            return Err(bad());
        }
        Ok(Self { host: (!host.is_empty()).then(|| host.to_owned()), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_shown() {
        for text in ["example.org", "example.org:443", ":80", "[::1]:8080", "10.0.0.1:53"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("::1".parse::<Endpoint>().unwrap(), Endpoint { host: Some("::1".into()), port: None });
        for text in ["", ":", "a b", "host:port", "host:70000", "[::1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_is_not_named() {
        let mut permissions = Permissions::default();
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert!(!permissions.allow_address(address) && !permissions.environment.contains("HOME"));
        permissions.network.push("127.0.0.1:81".parse().unwrap());
        assert!(!permissions.allow_address(address));
        permissions.network.push(":80".parse().unwrap());
        assert!(permissions.allow_address(address));
        assert!(Permissions::all().allow_address("[::1]:9".parse().unwrap()));
    }
}
