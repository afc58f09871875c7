//! Blocking calls on sockets that end when another thread closes the socket: what the classic sockets of `java.net` need.
//!
//! ```text
//! reader: notes that it waits for 7 --> poll(7) ........ EINTR, and its note says "closed" --> EBADF
//! closer:                          7 becomes a dead socket, notes are marked, signals sent
//! ```
//!
//! Who begins to wait after the socket became a dead one finds it ready at once, so that no signal can come too early. A number is only given back when
//! nobody waits for it any more. Waiting is always `poll`; what is ready is then done without waiting.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use machine::clock::Clock;

use super::network::{self, HostAddress};
use super::{Failure, Result, check, files};

/// A thread that waits for a socket.
struct Waiter {
    number: u64,
    socket: i32,
    thread: i64,
    closed: bool,
}

static WAITERS: Mutex<Vec<Waiter>> = Mutex::new(Vec::new());
static LEFT: Condvar = Condvar::new();
static NEXT: AtomicU64 = AtomicU64::new(0);
static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);

fn waiters() -> MutexGuard<'static, Vec<Waiter>> {
    WAITERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until when something is waited for; never given up without.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<u64>);

impl Deadline {
    /// After so many milliseconds; 0 or less: never.
    pub fn after(milliseconds: i32) -> Self {
        let wait = u64::try_from(milliseconds).ok().filter(|&wait| wait > 0);
        Self(wait.map(|wait| CLOCK.now_ns().saturating_add(wait * 1_000_000)))
    }

    /// What `poll` takes.
    fn left_ms(self) -> i32 {
        self.0.map_or(-1, |end| {
            let left = Duration::from_nanos(end.saturating_sub(CLOCK.now_ns()));
            i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        })
    }
}

/// Waits until a socket is ready for `events` of `poll`; `false` if it is not in time.
///
/// # Errors
/// If the host refuses; `EBADF` if the socket is closed meanwhile.
pub fn wait(socket: i32, events: i16, deadline: Deadline) -> Result<bool> {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(network::prepare_interrupts);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let thread = network::interruptible_thread();
    waiters().push(Waiter { number, socket, thread, closed: false });
    let result = loop {
        match network::poll(socket, events, deadline.left_ms()) {
            Ok(0) => break Ok(false),
            Ok(libc::POLLNVAL) => break Err(Failure::Host(libc::EBADF)),
            Ok(_) => break Ok(true),
            Err(Failure::Host(libc::EINTR)) if !is_closed(number) => {}
            Err(failure) => break Err(failure),
        }
    };
    let mut waiters = waiters();
    let place = waiters.iter().position(|waiter| waiter.number == number);
    let closed = place.is_some_and(|place| waiters.swap_remove(place).closed);
    LEFT.notify_all();
    if closed { Err(Failure::Host(libc::EBADF)) } else { result }
}

fn is_closed(number: u64) -> bool {
    waiters().iter().any(|waiter| waiter.number == number && waiter.closed)
}

/// Ends what waits for a socket, whose number stays taken.
///
/// # Errors
/// If the host refuses.
pub fn end_waiting(socket: i32) -> Result<()> {
    network::pre_close(socket)?;
    for waiter in waiters().iter_mut().filter(|waiter| waiter.socket == socket) {
        waiter.closed = true;
        network::interrupt(waiter.thread);
    }
    Ok(())
}

/// Closes a socket, and ends what waits for it.
///
/// # Errors
/// If the host refuses.
pub fn close(socket: i32) -> Result<()> {
    if waiters().iter().any(|waiter| waiter.socket == socket) {
        end_waiting(socket)?;
        let mut waiters = waiters();
        while waiters.iter().any(|waiter| waiter.socket == socket) {
            waiters = LEFT.wait(waiters).unwrap_or_else(PoisonError::into_inner);
        }
    }
    files::close(socket)
}

/// Repeats `call`, which does not wait, whenever the socket is ready; `None` if that is not in time.
fn when_ready<T>(
    socket: i32,
    events: i16,
    deadline: Deadline,
    mut call: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    loop {
        if !wait(socket, events, deadline)? {
            return Ok(None);
        }
        match call() {
            Err(Failure::Host(libc::EAGAIN | libc::EINTR)) => {}
            result => return result.map(Some),
        }
    }
}

/// Connects; `false` if it does not come about in time.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn connect(socket: i32, address: SocketAddr, v6: bool, deadline: Deadline) -> Result<bool> {
    network::set_blocking(socket, false)?;
    let connected = match network::connect(socket, address, v6) {
        Err(Failure::Host(libc::EINPROGRESS | libc::EINTR)) => wait(socket, libc::POLLOUT, deadline),
        result => result.map(|()| true),
    };
    let outcome = match connected {
        Ok(true) => match network::option(socket, libc::SOL_SOCKET, libc::SO_ERROR) {
            Ok(0) => Ok(true),
            Ok(number) => Err(Failure::Host(number)),
            Err(failure) => Err(failure),
        },
        Ok(false) => network::shut_down(socket, libc::SHUT_RDWR).map_or(Ok(false), |()| Ok(false)),
        Err(failure) => return Err(failure),
    };
    network::set_blocking(socket, true)?;
    outcome
}

/// Takes a connection of a socket that does not block; `None` if there is none in time.
///
/// # Errors
/// If the host refuses.
pub fn accept(socket: i32, deadline: Deadline) -> Result<Option<(i32, Option<SocketAddr>)>> {
    when_ready(socket, libc::POLLIN, deadline, || network::accept(socket))
}

/// Reads what there is, 0 at the end; `None` if nothing comes in time.
///
/// # Errors
/// If the host refuses.
pub fn read(socket: i32, buffer: &mut [u8], deadline: Deadline) -> Result<Option<usize>> {
    when_ready(socket, libc::POLLIN, deadline, || {
        // SAFETY: the buffer is as long as said.
        let count =
            check(unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) } as i64)?;
        Ok(usize::try_from(count).unwrap_or(0))
    })
}

/// Writes all of `bytes`.
///
/// # Errors
/// If the host refuses.
pub fn write_all(socket: i32, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let sent = when_ready(socket, libc::POLLOUT, Deadline(None), || {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the bytes are as many as said.
            check(unsafe { libc::send(socket, rest.as_ptr().cast(), rest.len(), flags) } as i64)
        })?;
        let sent = usize::try_from(sent.unwrap_or(0)).unwrap_or(0);
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Sends a datagram; to the address that the socket is connected to without one.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn send(socket: i32, bytes: &[u8], to: Option<SocketAddr>, v6: bool) -> Result<()> {
    if let Some(to) = to {
        network::allow(to, "sending to")?;
    }
    let to = to.map(|to| HostAddress::new(to, v6));
    let (pointer, length) = to.as_ref().map_or((std::ptr::null(), 0), |to| (to.pointer(), to.length));
    when_ready(socket, libc::POLLOUT, Deadline(None), || {
        // SAFETY: bytes and address are as long as said.
        let sent =
            unsafe { libc::sendto(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT, pointer, length) };
        check(sent as i64)
    })?;
    Ok(())
}

/// Receives a datagram, of which what does not fit is lost, and where it is from; `None` if there is none in time. `peek`: it stays there.
///
/// # Errors
/// If the host refuses.
pub fn receive(
    socket: i32,
    buffer: &mut [u8],
    peek: bool,
    deadline: Deadline,
) -> Result<Option<(usize, Option<SocketAddr>)>> {
    when_ready(socket, libc::POLLIN, deadline, || {
        let mut from = HostAddress::room();
        let flags = libc::MSG_DONTWAIT | if peek { libc::MSG_PEEK } else { 0 };
        // SAFETY: there is room for as much as said.
        let count = check(unsafe {
            libc::recvfrom(
                socket,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags,
                (&raw mut from.storage).cast(),
                &raw mut from.length,
            )
        } as i64)?;
        Ok((usize::try_from(count).unwrap_or(0), from.to_rust()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
    use std::os::fd::IntoRawFd;

    use machine::permissions::Permissions;

    use super::*;
    use crate::services::test_permissions;

    #[test]
    fn closing_ends_what_waits() {
        let _turn = test_permissions(Permissions::all());
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap().into_raw_fd();
        let (_accepted, _) = server.accept().unwrap();
        assert_eq!(read(client, &mut [0; 4], Deadline::after(20)), Ok(None));
        let reader = std::thread::spawn(move || read(client, &mut [0; 4], Deadline::after(0)));
        while !waiters().iter().any(|waiter| waiter.socket == client) {
            std::thread::yield_now();
        }
        close(client).unwrap();
        assert_eq!(reader.join().unwrap(), Err(Failure::Host(libc::EBADF)));
    }

    #[test]
    fn datagrams_are_looked_at_and_taken() {
        let _turn = test_permissions(Permissions::all());
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = own.local_addr().unwrap();
        let socket = own.into_raw_fd();
        send(socket, b"hello", Some(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))), false).unwrap();
        let mut buffer = [0; 3];
        for peek in [true, false] {
            assert_eq!(receive(socket, &mut buffer, peek, Deadline::after(5000)), Ok(Some((3, Some(address)))));
            assert_eq!(&buffer, b"hel");
        }
        assert_eq!(receive(socket, &mut buffer, false, Deadline::after(5)), Ok(None));
        close(socket).unwrap();
    }
}
