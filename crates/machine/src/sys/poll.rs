//! Waiting for many descriptors at once (epoll), and waking who waits (eventfd).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// Events taken from the host at once.
const EVENTS: usize = 256;
const NS_PER_MS: u64 = 1_000_000;

/// What became possible on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number that the descriptor was added with.
    pub token: u64,
    /// Reading will not block: there is data, an end or an error.
    pub readable: bool,
    /// Writing will not block: there is room or an error.
    pub writable: bool,
}

/// A set of descriptors to wait for. Closing a descriptor takes it out.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Reports `descriptor` for as long as it is readable.
    ///
    /// # Errors
    /// The host has no memory left, or the descriptor cannot be waited for.
    pub fn add(&self, descriptor: impl AsFd, token: u64) -> io::Result<()> {
        epoll::add(&self.epoll, descriptor, EventData::new_u64(token), EventFlags::IN)?;
        Ok(())
    }

    /// Reports `descriptor` each time it becomes readable or writable.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_edges(&self, descriptor: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, descriptor, EventData::new_u64(token), flags)?;
        Ok(())
    }

    /// Waits for events, at most `timeout_ns` rounded up to milliseconds (`None`: as long as it takes), and appends them to
    /// `events`. There may be none.
    ///
    /// # Errors
    /// The host has no memory left.
    pub fn wait(&self, timeout_ns: Option<u64>, events: &mut Vec<Event>) -> io::Result<()> {
        let timeout = timeout_ns.map(|ns| {
            let ms = i64::try_from(ns.div_ceil(NS_PER_MS)).unwrap_or(i64::MAX);
            Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * NS_PER_MS.cast_signed() }
        });
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let found = match epoll::wait(&self.epoll, &mut space[..], timeout.as_ref()) {
            Ok((found, _)) => found,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let fault = EventFlags::ERR | EventFlags::HUP;
        events.extend(found.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            Event {
                token: data.u64(),
                readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP | fault),
                writable: flags.intersects(EventFlags::OUT | fault),
            }
        }));
        Ok(())
    }
}

/// A descriptor that is readable from [`Self::set`] to [`Self::clear`].
#[derive(Debug)]
pub struct Waker {
    eventfd: OwnedFd,
}

impl Waker {
    /// A waker that is not set.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Wakes who waits for it, now or later.
    pub fn set(&self) {
        // Fails only when the counter is full, and then it is set already.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// Lets the next wait block again.
    pub fn clear(&self) {
        // Fails only when it was not set.
        let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_wakes_until_cleared() {
        let (poller, waker) = (Poller::new().unwrap(), Waker::new().unwrap());
        poller.add(&waker, 7).unwrap();
        let mut events = Vec::new();
        poller.wait(Some(0), &mut events).unwrap();
        assert!(events.is_empty());
        waker.set();
        waker.set();
        for _ in 0..2 {
            poller.wait(None, &mut events).unwrap();
            assert_eq!(events.pop(), Some(Event { token: 7, readable: true, writable: false }));
        }
        waker.clear();
        poller.wait(Some(1), &mut events).unwrap();
        assert!(events.is_empty());
    }
}
