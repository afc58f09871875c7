//! The name server at 10.0.2.3: asks whom the host would ask.
//!
//! A question for an address is answered from the host's `/etc/hosts` if that knows the name; else the query goes, as it is, to the
//! host's name servers one after the other; if none of them answers, the host's own look-up (which may know other ways)
//! is asked on a thread. Queries over TCP go to the first name server as connections.

mod files;
mod message;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use machine::sys::connect_datagrams;

use self::files::Cached;
use self::message::{Question, ResponseCode};
use crate::addresses::GATEWAY;
use crate::flow::{Context, Key};
use crate::poll::{Answer, Kind, Shared, Token};

/// Queries under way; the oldest gives way.
const QUERIES_MAX: usize = 128;
/// Look-ups under way on threads: each may take as long as the host's resolver likes.
const LOOKUPS_MAX: usize = 8;
/// How long a name server may take before the next is asked.
const TIMEOUT_NS: u64 = 2_000_000_000;
/// The largest message over UDP.
const MESSAGE_MAX: usize = 65_535;

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NameServers {
    /// Those in the host's `/etc/resolv.conf`, which is read again when it changes.
    #[default]
    Host,
    /// These, in this order.
    Fixed(Vec<SocketAddr>),
}

/// A query under way to a name server.
struct Query {
    key: Key,
    bytes: Vec<u8>,
    /// Which of the servers is asked.
    server: usize,
    identifier: u16,
    socket: UdpSocket,
    deadline_ns: u64,
}

/// The name server.
pub(crate) struct Resolver {
    servers: NameServers,
    resolv_conf: Cached<Vec<SocketAddr>>,
    hosts: Cached<HashMap<String, Vec<IpAddr>>>,
    queries: HashMap<u64, Query>,
    next: u64,
    /// Queries that wait for the host's look-up.
    lookups: HashMap<u64, (Key, Vec<u8>)>,
    shared: Arc<Shared>,
    scratch: Vec<u8>,
}

impl Resolver {
    pub(crate) fn new(servers: NameServers, shared: Arc<Shared>) -> Self {
        Self {
            servers,
            resolv_conf: Cached::new("/etc/resolv.conf", files::parse_servers),
            hosts: Cached::new("/etc/hosts", files::parse_hosts),
            queries: HashMap::new(),
            next: 0,
            lookups: HashMap::new(),
            shared,
            scratch: vec![0; MESSAGE_MAX],
        }
    }

    fn server(&mut self, index: usize) -> Option<SocketAddr> {
        match &self.servers {
            NameServers::Host => self.resolv_conf.get(),
            NameServers::Fixed(servers) => servers,
        }
        .get(index)
        .copied()
    }

    /// Where queries over TCP go.
    pub(crate) fn first_server(&mut self) -> Option<SocketAddr> {
        self.server(0)
    }

    /// Takes a query from the guest.
    pub(crate) fn query(&mut self, context: &mut Context, key: Key, bytes: &[u8]) {
        if !message::is_query(bytes) {
            return;
        }
        if let Some(addresses) = message::question(bytes).and_then(|question| self.known(&question)) {
            let response = message::response(bytes, ResponseCode::NoError, &addresses);
            return reply(context, &key, &response);
        }
        let pending = self.queries.values().any(|query| query.key == key && query.bytes == bytes)
            || self.lookups.values().any(|(other, query)| *other == key && query == bytes);
        if !pending {
            self.ask(context, key, bytes.to_vec(), 0);
        }
    }

    /// What `/etc/hosts` says. Its loopback addresses mean the host, which the guest knows as the router.
    fn known(&mut self, question: &Question) -> Option<Vec<IpAddr>> {
        if question.name == "localhost" {
            return Some(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let addresses = self.hosts.get().get(&question.name)?;
        Some(addresses.iter().map(|a| if a.is_loopback() { GATEWAY.into() } else { *a }).collect())
    }

    /// Asks the server number `server`, or the next that can be asked, or else the host.
    fn ask(&mut self, context: &mut Context, key: Key, bytes: Vec<u8>, mut server: usize) {
        let random = context.random().to_le_bytes();
        let identifier = u16::from_le_bytes([random[0], random[1]]);
        while let Some(address) = self.server(server) {
            let sent = connect_datagrams(address).and_then(|socket| {
                let mut copy = bytes.clone();
                message::set_identifier(&mut copy, identifier);
                socket.send(&copy)?;
                self.next += 1;
                context.poller.add(&socket, Token { kind: Kind::Dns, id: self.next })?;
                Ok(socket)
            });
            if let Ok(socket) = sent {
                if self.queries.len() >= QUERIES_MAX
                    && let Some(oldest) = self.queries.keys().min().copied()
                {
                    self.queries.remove(&oldest);
                }
                let deadline_ns = context.now_ns + TIMEOUT_NS;
                self.queries.insert(self.next, Query { key, bytes, server, identifier, socket, deadline_ns });
                return;
            }
            server += 1;
        }
        self.look_up(context, key, bytes);
    }

    /// Asks the host's resolver, on a thread that nobody waits for: it may hang for as long as it likes.
    fn look_up(&mut self, context: &mut Context, key: Key, bytes: Vec<u8>) {
        let question = message::question(&bytes).filter(|_| self.lookups.len() < LOOKUPS_MAX);
        let shared = Arc::clone(&self.shared);
        self.next += 1;
        let id = self.next;
        let started = question.is_some_and(|question| {
            let run = move || {
                let found = (question.name.as_str(), 0).to_socket_addrs();
                let addresses = found.ok().map(|found| found.map(|address| address.ip()).collect());
                shared.push_answer(Answer { id, addresses });
            };
            machine::sys::thread("look-up").spawn(run).is_ok()
        });
        if started {
            self.lookups.insert(id, (key, bytes));
        } else {
            reply(context, &key, &message::response(&bytes, ResponseCode::ServerFailure, &[]));
        }
    }

    /// A look-up has come back.
    pub(crate) fn on_answer(&mut self, context: &mut Context, answer: &Answer) {
        let Some((key, bytes)) = self.lookups.remove(&answer.id) else { return };
        let response = match &answer.addresses {
            Some(addresses) => message::response(&bytes, ResponseCode::NoError, addresses),
            None => message::response(&bytes, ResponseCode::ServerFailure, &[]),
        };
        reply(context, &key, &response);
    }

    /// A name server has answered, or cannot be reached.
    pub(crate) fn on_ready(&mut self, context: &mut Context, id: u64) {
        let Some(query) = self.queries.get(&id) else { return };
        match query.socket.recv(&mut self.scratch) {
            Ok(count) => {
                let response = &mut self.scratch[..count];
                if !message::is_response(response) || message::identifier(response) != Some(query.identifier) {
                    return;
                }
                let Some(original) = message::identifier(&query.bytes) else { return };
                if message::is_failure(response) {
                    return self.next_server(context, id);
                }
                message::set_identifier(response, original);
                reply(context, &query.key, response);
                self.queries.remove(&id);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.next_server(context, id),
        }
    }

    fn next_server(&mut self, context: &mut Context, id: u64) {
        if let Some(query) = self.queries.remove(&id) {
            self.ask(context, query.key, query.bytes, query.server + 1);
        }
    }

    /// When [`Self::on_deadline`] wants to be called.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.queries.values().map(|query| query.deadline_ns).min().unwrap_or(u64::MAX)
    }

    /// Gives up on servers that do not answer.
    pub(crate) fn on_deadline(&mut self, context: &mut Context) {
        let now_ns = context.now_ns;
        let late: Vec<_> = self.queries.iter().filter(|(_, q)| q.deadline_ns <= now_ns).map(|(id, _)| *id).collect();
        for id in late {
            self.next_server(context, id);
        }
    }
}

fn reply(context: &mut Context, key: &Key, response: &[u8]) {
    context.link.udp((*key.remote.ip(), key.remote.port()), (*key.guest.ip(), key.guest.port()), response);
}
