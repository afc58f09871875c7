//! Flows of one protocol: who talks to whom, and which was used last.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use crate::buffer::Pool;
use crate::link::Link;
use crate::poll::Poller;
use machine::entropy::Entropy;

/// What every protocol works with; it belongs to the network's thread.
pub(crate) struct Context {
    pub(crate) link: Link,
    pub(crate) poller: Poller,
    pub(crate) pool: Pool,
    pub(crate) entropy: Entropy,
    /// The machine's time when this round of the loop began.
    pub(crate) now_ns: u64,
    /// The largest IPv4 packet on the link, in bytes.
    pub(crate) mtu: u16,
}

impl Context {
    /// Random bits: to be hard to guess for others, not for secrets. A host without randomness gives the time.
    pub(crate) fn random(&mut self) -> u64 {
        self.entropy.next_u64().unwrap_or(self.now_ns)
    }
}

/// The ends of a flow as the guest sees them. For pings, the guest's port is the identifier and the other port is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) guest: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
}

/// A flow, and when it was last used.
pub(crate) struct Entry<F> {
    pub(crate) key: Key,
    pub(crate) active_ns: u64,
    pub(crate) flow: F,
}

/// A bounded number of flows, by number and by ends.
pub(crate) struct Table<F> {
    entries: HashMap<u64, Entry<F>>,
    ids: HashMap<Key, u64>,
    next: u64,
    limit: usize,
}

impl<F> Table<F> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), ids: HashMap::new(), next: 0, limit }
    }

    /// A number for the next flow; numbers are never used again.
    pub(crate) fn reserve(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Adds a flow under a number from [`Self::reserve`].
    pub(crate) fn insert(&mut self, id: u64, key: Key, now_ns: u64, flow: F) {
        self.entries.insert(id, Entry { key, active_ns: now_ns, flow });
        self.ids.insert(key, id);
    }

    pub(crate) fn find(&self, key: &Key) -> Option<u64> {
        self.ids.get(key).copied()
    }

    pub(crate) fn get(&mut self, id: u64) -> Option<&mut Entry<F>> {
        self.entries.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Entry<F>> {
        let entry = self.entries.remove(&id)?;
        self.ids.remove(&entry.key);
        Some(entry)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Entry<F>)> {
        self.entries.iter_mut().map(|(id, entry)| (*id, entry))
    }

    /// The flow unused for longest among those that `eligible` names.
    pub(crate) fn oldest(&self, eligible: impl Fn(&Entry<F>) -> bool) -> Option<u64> {
        let flows = self.entries.iter().filter(|(_, entry)| eligible(entry));
        flows.min_by_key(|(id, entry)| (entry.active_ns, **id)).map(|(id, _)| *id)
    }

    /// Removes the flows that have been unused for `idle_ns`, answering with them; and says when the next will be.
    pub(crate) fn expire(&mut self, now_ns: u64, idle_ns: u64) -> (Vec<Entry<F>>, Option<u64>) {
        let age = |entry: &Entry<F>| now_ns.saturating_sub(entry.active_ns);
        let old: Vec<_> = self.entries.iter().filter(|(_, e)| age(e) >= idle_ns).map(|(id, _)| *id).collect();
        let removed = old.into_iter().filter_map(|id| self.remove(id)).collect();
        let next = self.entries.values().map(|entry| entry.active_ns + idle_ns).min();
        (removed, next)
    }
}
