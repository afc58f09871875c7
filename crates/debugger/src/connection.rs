//! A connection to a debugger, and what arrives: bytes from it, reports from the machine.
//!
//! A thread reads the stream, so that one wait is for both. It stops reading while what has arrived is more than some packets' worth: a flood
//! fills no memory.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use gdbstub::conn::Connection;

use crate::debuggee::Report;

/// So many bytes wait at most, and one read more.
const WAITING_BYTES_MAX: usize = 1 << 16;

/// A stream of bytes both ways.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => Write::write_all(stream, bytes),
            Self::Unix(stream) => Write::write_all(stream, bytes),
        }
    }

    fn close(&self) {
        // A stream that the other side has closed is closed.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

/// What has arrived and was not yet looked at.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    reports: VecDeque<Report>,
    closed: bool,
}

/// Something that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Byte(u8),
    Report(Report),
    /// The debugger has gone.
    Closed,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of something.
    pub(crate) fn report(&self, report: Report) {
        self.lock().reports.push_back(report);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for the next thing: reports first, if they are wanted now.
    pub(crate) fn next(&self, reports: bool) -> Arrival {
        let mut state = self.lock();
        loop {
            if reports && let Some(report) = state.reports.pop_front() {
                return Arrival::Report(report);
            }
            if let Some(byte) = state.bytes.pop_front() {
                self.changed.notify_all();
                return Arrival::Byte(byte);
            }
            // The machine's end interrupts a debugger that looks at it, too.
            if let Some(Report::Exited(_) | Report::Killed(_)) = state.reports.front() {
                return Arrival::Closed;
            }
            if state.closed {
                return Arrival::Closed;
            }
            state = self.wait(state);
        }
    }

    /// Reads `stream` until its end.
    fn fill(&self, mut stream: Stream) {
        let mut buffer = [0; 4096];
        loop {
            let count = match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.unwrap_or(0),
            };
            let mut state = self.lock();
            if count == 0 {
                drop(state);
                return self.close();
            }
            state.bytes.extend(&buffer[..count]);
            self.changed.notify_all();
            while state.bytes.len() > WAITING_BYTES_MAX && !state.closed {
                state = self.wait(state);
            }
            if state.closed {
                return;
            }
        }
    }
}

/// The way to the debugger. Closed when dropped.
pub(crate) struct Wire {
    stream: Stream,
    inbox: Arc<Inbox>,
    out: Vec<u8>,
}

impl Wire {
    /// Begins to read `stream` into `inbox`.
    pub(crate) fn new(stream: Stream, inbox: &Arc<Inbox>) -> io::Result<Self> {
        let reading = stream.try_clone()?;
        let filled = Arc::clone(inbox);
        thread::Builder::new().name("gdb-reader".into()).spawn(move || filled.fill(reading))?;
        Ok(Self { stream, inbox: Arc::clone(inbox), out: Vec::new() })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.inbox.close();
        self.stream.close();
    }
}

impl Connection for Wire {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.out.push(byte);
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_waits_outside() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let inbox = Arc::new(Inbox::default());
        let wire = Wire::new(Stream::Unix(far), &inbox).unwrap();
        let flood = thread::spawn(move || (0..10_000).all(|_| Write::write_all(&mut near, &[7; 1000]).is_ok()));
        for _ in 0..200_000 {
            assert_eq!(inbox.next(true), Arrival::Byte(7));
            assert!(inbox.lock().bytes.len() <= WAITING_BYTES_MAX + 4096);
        }
        drop(wire);
        assert!(!flood.join().unwrap(), "the rest is refused");
    }

    #[test]
    fn reports_wait_until_they_are_wanted_but_for_the_end() {
        let inbox = Inbox::default();
        inbox.report(Report::Interrupted);
        inbox.lock().bytes.push_back(1);
        assert_eq!(inbox.next(false), Arrival::Byte(1));
        assert_eq!(inbox.next(true), Arrival::Report(Report::Interrupted));
        inbox.report(Report::Exited(3));
        assert_eq!(inbox.next(false), Arrival::Closed);
        assert_eq!(inbox.next(true), Arrival::Report(Report::Exited(3)));
    }
}
