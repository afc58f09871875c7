//! What comes into a machine whose run is to be repeatable: consoles and a network that the guest hears of at moments of the schedule's choice only.
//!
//! ```text
//! terminal --> Inbox --(schedule: now)--> Port --> device       (and into the record)
//!              record --(schedule: now)--> Port --> device       (in a replay)
//! device --> Port --> terminal                                    (at once)
//! ```
//!
//! A port stands between a device and its backend. Arrivals wait in the [`Inbox`] until the schedule [takes](Inbox::take) them. What the device then does not
//! take waits in its port, and is offered again when the device has said that there is room: that is the machine's own doing and is
//! not recorded.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use machine::backend::{CharacterBackend, CharacterSink, FrameSink, NetworkBackend};
use machine::record::Event;

/// Characters that may wait for the guest, in bytes.
const CHARACTERS_MAX: usize = 64 << 10;
/// Frames that may wait for the guest, in bytes.
const FRAMES_MAX: usize = 1 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is right between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the thread of the harts when there is nothing to run.
#[derive(Debug, Default)]
pub(super) struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorbell {
    pub(super) fn ring(&self) {
        *lock(&self.rung) = true;
        self.changed.notify_all();
    }

    /// Returns once it was rung since the last call, or `timeout` has passed (`None`: however long it takes).
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        let mut rung = lock(&self.rung);
        if !*rung {
            rung = match timeout {
                Some(timeout) => self.changed.wait_timeout(rung, timeout).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner),
            };
        }
        *rung = false;
    }
}

/// What has come from outside and not yet entered the machine.
#[derive(Debug)]
pub(super) struct Inbox {
    arrivals: Mutex<Vec<Event>>,
    doorbell: Arc<Doorbell>,
}

impl Inbox {
    pub(super) fn new(doorbell: Arc<Doorbell>) -> Self {
        Self { arrivals: Mutex::default(), doorbell }
    }

    fn put(&self, event: Event) {
        lock(&self.arrivals).push(event);
        self.doorbell.ring();
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.arrivals).is_empty()
    }

    /// Everything that has come, in its order.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.arrivals))
    }
}

/// What waits for the guest at a port.
#[derive(Debug, Default)]
struct Waiting<T> {
    queue: VecDeque<T>,
    /// Bytes in the queue and in the inbox.
    bytes: usize,
    /// Something is new, or the device has room.
    offer: bool,
    /// The backend was refused something.
    backend_waits: bool,
}

/// A console's port.
pub(super) struct CharacterPort {
    number: u8,
    backend: Arc<dyn CharacterBackend>,
    inbox: Arc<Inbox>,
    /// Whether the backend is listened to: not in a replay.
    live: bool,
    sink: Mutex<Option<Arc<dyn CharacterSink>>>,
    waiting: Mutex<Waiting<u8>>,
    itself: Weak<Self>,
}

impl CharacterPort {
    pub(super) fn new(number: u8, backend: Arc<dyn CharacterBackend>, inbox: Arc<Inbox>, live: bool) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            number,
            backend,
            inbox,
            live,
            sink: Mutex::default(),
            waiting: Mutex::default(),
            itself: Weak::clone(itself),
        })
    }

    fn enter(&self, bytes: &[u8]) {
        let mut waiting = lock(&self.waiting);
        waiting.queue.extend(bytes);
        waiting.offer = true;
        if !self.live {
            waiting.bytes += bytes.len();
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        if let Some(sink) = &*lock(&self.sink) {
            sink.resize(columns, rows);
        }
    }

    /// Offers the device what waits.
    fn offer(&self) {
        let Some(sink) = lock(&self.sink).clone() else { return };
        let mut bytes = {
            let mut waiting = lock(&self.waiting);
            if !std::mem::take(&mut waiting.offer) || waiting.queue.is_empty() {
                return;
            }
            std::mem::take(&mut waiting.queue)
        };
        let taken = sink.receive(bytes.make_contiguous()).min(bytes.len());
        bytes.drain(..taken);
        let mut waiting = lock(&self.waiting);
        waiting.queue = bytes;
        waiting.bytes -= taken;
        let tell = taken > 0 && std::mem::take(&mut waiting.backend_waits);
        drop(waiting);
        if tell {
            self.backend.ready();
        }
    }
}

impl CharacterBackend for CharacterPort {
    fn send(&self, bytes: &[u8]) {
        self.backend.send(bytes);
    }

    fn attach(&self, sink: Arc<dyn CharacterSink>) {
        *lock(&self.sink) = Some(sink);
        if self.live
            && let Some(itself) = self.itself.upgrade()
        {
            self.backend.attach(Arc::new(CharacterArrivals(itself)));
        }
    }

    fn ready(&self) {
        lock(&self.waiting).offer = true;
    }
}

/// The end of a console's port that the backend holds.
struct CharacterArrivals(Arc<CharacterPort>);

impl CharacterSink for CharacterArrivals {
    fn receive(&self, bytes: &[u8]) -> usize {
        let port = &self.0;
        let mut waiting = lock(&port.waiting);
        let count = bytes.len().min(CHARACTERS_MAX.saturating_sub(waiting.bytes));
        waiting.bytes += count;
        waiting.backend_waits = count < bytes.len();
        drop(waiting);
        if count > 0 {
            port.inbox.put(Event::Characters { port: port.number, bytes: bytes[..count].to_vec() });
        }
        count
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.0.inbox.put(Event::Resize { port: self.0.number, columns, rows });
    }
}

/// The port of the network interface.
pub(super) struct NetworkPort {
    /// None in a replay: nobody hears what the guest sends.
    backend: Option<Arc<dyn NetworkBackend>>,
    mtu: u16,
    inbox: Arc<Inbox>,
    sink: Mutex<Option<Arc<dyn FrameSink>>>,
    waiting: Mutex<Waiting<Vec<u8>>>,
    itself: Weak<Self>,
}

impl NetworkPort {
    pub(super) fn new(backend: Option<Arc<dyn NetworkBackend>>, mtu: u16, inbox: Arc<Inbox>) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            backend,
            mtu,
            inbox,
            sink: Mutex::default(),
            waiting: Mutex::default(),
            itself: Weak::clone(itself),
        })
    }

    fn enter(&self, frame: Vec<u8>) {
        let mut waiting = lock(&self.waiting);
        if self.backend.is_none() {
            waiting.bytes += frame.len();
        }
        waiting.queue.push_back(frame);
        waiting.offer = true;
    }

    /// Offers the device what waits.
    fn offer(&self) {
        let Some(sink) = lock(&self.sink).clone() else { return };
        let mut frames = {
            let mut waiting = lock(&self.waiting);
            if !std::mem::take(&mut waiting.offer) {
                return;
            }
            std::mem::take(&mut waiting.queue)
        };
        let mut taken = 0;
        while frames.front().is_some_and(|frame| sink.receive(frame)) {
            taken += frames.pop_front().map_or(0, |frame| frame.len());
        }
        let mut waiting = lock(&self.waiting);
        waiting.queue = frames;
        waiting.bytes -= taken;
        let tell = taken > 0 && std::mem::take(&mut waiting.backend_waits);
        drop(waiting);
        if let Some(backend) = self.backend.as_ref().filter(|_| tell) {
            backend.ready();
        }
    }
}

impl NetworkBackend for NetworkPort {
    fn send(&self, frame: &[u8]) {
        if let Some(backend) = &self.backend {
            backend.send(frame);
        }
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn attach(&self, sink: Arc<dyn FrameSink>) {
        *lock(&self.sink) = Some(sink);
        if let (Some(backend), Some(itself)) = (&self.backend, self.itself.upgrade()) {
            backend.attach(Arc::new(FrameArrivals(itself)));
        }
    }

    fn ready(&self) {
        lock(&self.waiting).offer = true;
    }
}

/// The end of the network's port that the backend holds.
struct FrameArrivals(Arc<NetworkPort>);

impl FrameSink for FrameArrivals {
    fn receive(&self, frame: &[u8]) -> bool {
        let port = &self.0;
        let mut waiting = lock(&port.waiting);
        if waiting.bytes + frame.len() > FRAMES_MAX {
            waiting.backend_waits = true;
            return false;
        }
        waiting.bytes += frame.len();
        drop(waiting);
        port.inbox.put(Event::Frame(frame.to_vec()));
        true
    }
}

/// All ports of a machine.
pub(super) struct Ports {
    pub(super) inbox: Arc<Inbox>,
    pub(super) consoles: Vec<Arc<CharacterPort>>,
    pub(super) network: Option<Arc<NetworkPort>>,
    /// Whether the harts' idle time passes no faster than the host's.
    pub(super) paced: bool,
}

impl Ports {
    /// Something comes in. False if the machine has no such port.
    pub(super) fn enter(&self, event: Event) -> bool {
        let console = |port: u8| self.consoles.iter().find(|console| console.number == port);
        match event {
            Event::Characters { port, bytes } => console(port).map(|console| console.enter(&bytes)).is_some(),
            Event::Resize { port, columns, rows } => {
                console(port).map(|console| console.resize(columns, rows)).is_some()
            }
            Event::Frame(frame) => self.network.as_ref().map(|network| network.enter(frame)).is_some(),
            Event::Check(_) | Event::End { .. } => false,
        }
    }

    /// Offers the devices what waits.
    pub(super) fn offer(&self) {
        self.consoles.iter().for_each(|console| console.offer());
        if let Some(network) = &self.network {
            network.offer();
        }
    }

    pub(super) fn is_paced(&self) -> bool {
        self.paced
    }
}
