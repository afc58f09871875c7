//! The host's own knowledge: `/etc/resolv.conf` and `/etc/hosts`, read again when they change.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

/// Larger files are not read: they are not what they seem.
const SIZE_MAX: u64 = 16 << 20;
const DNS_PORT: u16 = 53;

/// A file's content, parsed when it changes.
pub(super) struct Cached<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    seen: Option<(Option<SystemTime>, u64)>,
    value: T,
}

impl<T: Default> Cached<T> {
    pub(super) fn new(path: impl Into<PathBuf>, parse: fn(&str) -> T) -> Self {
        Self { path: path.into(), parse, seen: None, value: T::default() }
    }

    /// What the file says now; nothing if there is none.
    pub(super) fn get(&mut self) -> &T {
        let now = std::fs::metadata(&self.path).ok().map(|data| (data.modified().ok(), data.len()));
        if now != self.seen {
            self.seen = now;
            let text = now.filter(|(_, size)| *size <= SIZE_MAX).and_then(|_| std::fs::read(&self.path).ok());
            self.value = text.map(|text| (self.parse)(&String::from_utf8_lossy(&text))).unwrap_or_default();
        }
        &self.value
    }
}

/// The name servers of a `resolv.conf`.
pub(super) fn parse_servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    // A scope (`fe80::1%eth0`) needs more than an address; such servers come beside others.
    lines.filter_map(|word| word.parse::<IpAddr>().ok()).map(|address| (address, DNS_PORT).into()).collect()
}

/// The names of a `hosts` file, in lower case.
pub(super) fn parse_hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        for name in words {
            hosts.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t::1 \nnameserver\nnameserver x\n";
        let expected: Vec<SocketAddr> = vec!["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(parse_servers(text), expected);
    }

    #[test]
    fn hosts() {
        let hosts = parse_hosts("127.0.0.1 localhost\n192.0.2.1 Name alias # name2\n\n::1 name\nx y\n");
        assert_eq!(hosts["name"], ["192.0.2.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(hosts["alias"].len(), 1);
        assert!(!hosts.contains_key("name2") && !hosts.contains_key("y"));
    }

    #[test]
    fn changes_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut cached = Cached::new(&path, parse_servers);
        assert!(cached.get().is_empty(), "no file, no servers");
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(cached.get().len(), 1);
        std::fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        assert_eq!(cached.get().len(), 2);
        std::fs::remove_file(&path).unwrap();
        assert!(cached.get().is_empty());
    }
}
