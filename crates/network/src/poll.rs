//! Waiting: the host's sockets by epoll, and what other threads bring by an eventfd.
//!
//! Other threads (device threads with frames, look-ups with answers) put what they bring into [`Shared`] and wake the
//! loop only if it sleeps, so a busy guest costs no system call per frame.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machine::backend::FrameSink;
use machine::sys::{self, Waker};

/// Frames from the guest that wait at most, and their bytes.
const INBOX_FRAMES: usize = 16 << 10;
const INBOX_BYTES: usize = 8 << 20;

/// Which part of the network a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Wake = 0,
    Tcp = 1,
    TcpListener = 2,
    Udp = 3,
    UdpListener = 4,
    Echo = 5,
    Dns = 6,
}

/// Names a socket in the host's events: its kind, and a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
}

impl Token {
    const ID_BITS: u32 = 56;

    fn pack(self) -> u64 {
        (self.kind as u64) << Self::ID_BITS | self.id
    }

    fn unpack(data: u64) -> Option<Self> {
        let kind = match data >> Self::ID_BITS {
            0 => Kind::Wake,
            1 => Kind::Tcp,
            2 => Kind::TcpListener,
            3 => Kind::Udp,
            4 => Kind::UdpListener,
            5 => Kind::Echo,
            6 => Kind::Dns,
            _ => return None,
        };
        Some(Self { kind, id: data & ((1 << Self::ID_BITS) - 1) })
    }
}

/// What became possible on a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// The sockets waited for. Closing a socket removes it.
pub(crate) struct Poller {
    poller: sys::Poller,
    events: Vec<sys::Event>,
}

impl Poller {
    pub(crate) fn new(shared: &Shared) -> io::Result<Self> {
        let poller = Self { poller: sys::Poller::new()?, events: Vec::new() };
        poller.add(&shared.waker, Token { kind: Kind::Wake, id: 0 })?;
        Ok(poller)
    }

    /// Reports `socket` for as long as it is readable.
    pub(crate) fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        self.poller.add(socket, token.pack())
    }

    /// Reports `socket` each time it becomes readable or writable.
    pub(crate) fn add_edges(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        self.poller.add_edges(socket, token.pack())
    }

    /// Waits for events, at most `timeout_ns` (`None`: as long as it takes).
    pub(crate) fn wait(&mut self, timeout_ns: Option<u64>) -> io::Result<()> {
        self.poller.wait(timeout_ns, &mut self.events)
    }

    /// The next of the events that [`Self::wait`] has found.
    pub(crate) fn next(&mut self) -> Option<Ready> {
        loop {
            let event = self.events.pop()?;
            if let Some(token) = Token::unpack(event.token) {
                return Some(Ready { token, readable: event.readable, writable: event.writable });
            }
        }
    }
}

/// What a host look-up found, by the number that it was started with; `None` if the host could not find out.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) addresses: Option<Vec<IpAddr>>,
}

/// Frames from the guest, one after the other in one allocation that is reused.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Inbox {
    fn push(&mut self, frame: &[u8]) {
        if self.ends.len() < INBOX_FRAMES && self.bytes.len() + frame.len() <= INBOX_BYTES {
            self.bytes.extend_from_slice(frame);
            self.ends.push(self.bytes.len());
        }
    }

    /// The frames in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// What other threads bring to the loop.
pub(crate) struct Shared {
    waker: Waker,
    sleeping: AtomicBool,
    stop: AtomicBool,
    room: AtomicBool,
    inbox: Mutex<Inbox>,
    sink: Mutex<Option<Arc<dyn FrameSink>>>,
    answers: Mutex<Vec<Answer>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            waker: Waker::new()?,
            sleeping: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            room: AtomicBool::new(false),
            inbox: Mutex::default(),
            sink: Mutex::default(),
            answers: Mutex::default(),
        })
    }

    /// Wakes the loop, if it sleeps, after something was put in.
    fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.set();
        }
    }

    pub(crate) fn push_frame(&self, frame: &[u8]) {
        lock(&self.inbox).push(frame);
        self.wake();
    }

    pub(crate) fn attach(&self, sink: Arc<dyn FrameSink>) {
        *lock(&self.sink) = Some(sink);
        self.wake();
    }

    pub(crate) fn set_room(&self) {
        self.room.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn push_answer(&self, answer: Answer) {
        lock(&self.answers).push(answer);
        self.wake();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(crate) fn take_sink(&self) -> Option<Arc<dyn FrameSink>> {
        lock(&self.sink).take()
    }

    pub(crate) fn take_room(&self) -> bool {
        self.room.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn take_answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *lock(&self.answers))
    }

    /// Exchanges the frames that have come for an empty `inbox`.
    pub(crate) fn swap_inbox(&self, inbox: &mut Inbox) {
        std::mem::swap(&mut *lock(&self.inbox), inbox);
    }

    /// Says that the loop is about to sleep; false if there is something to do first.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        let idle = !self.is_stopped()
            && !self.room.load(Ordering::SeqCst)
            && lock(&self.inbox).ends.is_empty()
            && lock(&self.sink).is_none()
            && lock(&self.answers).is_empty();
        if !idle {
            self.sleeping.store(false, Ordering::SeqCst);
        }
        idle
    }

    /// Says that the loop is awake.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Takes the wake-up that [`Kind::Wake`] reports.
    pub(crate) fn take_wake(&self) {
        self.waker.clear();
    }
}
