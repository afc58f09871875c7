//! Where debuggers connect.
//!
//! ```text
//! listening --connection--> attached: the machine is halted
//!     ^                         |  breakpoints, steps, looks ...
//!     |                         v
//!     +---- detach, or the connection breaks: the machine goes on without breakpoints
//! ```
//!
//! One debugger at a time; the next waits in the listening socket's queue. A debugger that sends what is no packet loses its connection.

use std::fmt;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind;
use machine::debug::{Stop, Watch};

use crate::connection::{Arrival, Inbox, Stream, Wire};
use crate::debuggee::{Debuggee, Report};
use crate::target::{View, protocol_signal};

/// The largest packet that a debugger may send.
const PACKET_BYTES_MAX: usize = 1 << 14;
/// How long the end of the machine waits for a debugger to be told of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where to listen: `PORT` (on this host only), `ADDRESS:PORT`, or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: needs a path behind it".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let port = text.rsplit(':').next().unwrap_or(text);
        if port.parse::<u16>().is_err() {
            return Err("expected PORT, ADDRESS:PORT or unix:PATH".into());
        }
        Ok(Self::Tcp(if text.contains(':') { text.into() } else { format!("127.0.0.1:{text}") }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why no debugger can connect.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for a debugger at {address}: {cause}; choose another --gdb")]
pub struct ListenError {
    /// Where.
    pub address: Address,
    /// What the host said.
    pub cause: io::Error,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }
}

/// A place where debuggers connect; the file of a Unix socket goes with it.
pub struct Server {
    listener: Listener,
    address: Address,
}

/// Whether a debugger is attached.
#[derive(Default)]
struct Attached {
    attached: Mutex<bool>,
    changed: Condvar,
}

impl Attached {
    fn set(&self, attached: bool) {
        *self.attached.lock().unwrap_or_else(PoisonError::into_inner) = attached;
        self.changed.notify_all();
    }
}

/// A server that serves.
pub struct Serving {
    attached: Arc<Attached>,
    socket: Option<PathBuf>,
}

impl Serving {
    /// Call it once the machine has ended: gives an attached debugger a moment to hear of it.
    pub fn close(&self) {
        let attached = self.attached.attached.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.attached.changed.wait_timeout_while(attached, FAREWELL, |attached| *attached));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            // Someone else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Server {
    /// Listens at `address`.
    ///
    /// # Errors
    /// The host refuses.
    pub fn bind(address: &Address) -> Result<Self, ListenError> {
        let error = |cause| ListenError { address: address.clone(), cause };
        let listener = match address {
            Address::Tcp(name) => {
                let addresses: Vec<_> = name.to_socket_addrs().map_err(error)?.collect();
                Listener::Tcp(TcpListener::bind(&*addresses).map_err(error)?)
            }
            Address::Unix(path) => Listener::Unix(UnixListener::bind(path).map_err(error)?),
        };
        Ok(Self { listener, address: address.clone() })
    }

    /// Where it listens: with the port that the host chose, if it was asked to.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.listener {
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| self.address.to_string(), |it| it.to_string())
            }
            Listener::Unix(_) => self.address.to_string(),
        }
    }

    /// Serves debuggers of `debuggee` from now on, on a thread of its own. With `wait`, the debuggee is halted until the first has come.
    ///
    /// # Errors
    /// The host gives no more threads.
    pub fn serve(self, debuggee: Arc<dyn Debuggee>, wait: bool) -> io::Result<Serving> {
        if wait {
            debuggee.attach(Box::new(|_| ()));
        }
        let attached = Arc::new(Attached::default());
        let socket = match &self.address {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        };
        let serving = Serving { attached: Arc::clone(&attached), socket };
        thread::Builder::new().name("gdb".into()).spawn(move || {
            // A listener fails for want of memory or descriptors, which does not get better here.
            while let Ok(stream) = self.listener.accept() {
                attached.set(true);
                // Should the protocol's crate meet a packet that it cannot bear, that is the end of the connection, and not of the server.
                let session = catch_unwind(AssertUnwindSafe(|| session(stream, &debuggee)));
                if let Ok(DisconnectReason::Kill) = session {
                    debuggee.kill();
                } else {
                    debuggee.detach();
                }
                attached.set(false);
            }
        })?;
        Ok(serving)
    }
}

/// One debugger, from its connection to its end.
fn session(stream: Stream, debuggee: &Arc<dyn Debuggee>) -> DisconnectReason {
    let inbox = Arc::new(Inbox::default());
    let Ok(wire) = Wire::new(stream, &inbox) else { return DisconnectReason::Disconnect };
    let told = Arc::clone(&inbox);
    debuggee.attach(Box::new(move |report| told.report(report)));
    debuggee.await_threads();
    let mut view = View::new(Arc::clone(debuggee));
    // What the debugger does wrong ends its connection, as if it had gone.
    converse(wire, &inbox, &mut view).unwrap_or(DisconnectReason::Disconnect)
}

/// A fault of the connection or of what came over it; nobody is left to be told which.
struct Broken;

fn converse(wire: Wire, inbox: &Inbox, view: &mut View) -> Result<DisconnectReason, Broken> {
    let stub = GdbStub::builder(wire).packet_buffer_size(PACKET_BYTES_MAX).build().map_err(|_| Broken)?;
    let mut machine = stub.run_state_machine(view).map_err(|_| Broken)?;
    let mut is_running = false;
    loop {
        match machine {
            GdbStubStateMachine::Idle(_) => is_running = false,
            GdbStubStateMachine::Running(_) => is_running = true,
            _ => {}
        }
        machine = match machine {
            GdbStubStateMachine::Idle(idle) => match inbox.next(false) {
                Arrival::Byte(byte) => idle.incoming_data(view, byte),
                Arrival::Report(_) | Arrival::Closed => return Err(Broken),
            },
            GdbStubStateMachine::Running(running) => match inbox.next(true) {
                Arrival::Byte(byte) => running.incoming_data(view, byte),
                Arrival::Report(report) => {
                    let reason = reason(&report, view);
                    running.report_stop(view, reason)
                }
                Arrival::Closed => return Err(Broken),
            },
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                // One that crossed a stop on its way has what it wants.
                if is_running {
                    view.debuggee.interrupt();
                }
                // The report comes when all stand still.
                interrupt.interrupt_handled(view, None::<MultiThreadStopReason<u64>>)
            }
            GdbStubStateMachine::Disconnected(mut disconnected) => {
                let reason = disconnected.get_reason();
                if matches!(reason, DisconnectReason::Kill) {
                    // `vKill` has an answer, and who sent `k` has gone.
                    let wire = disconnected.borrow_conn();
                    let _ = wire.write_all(b"$OK#9a").and_then(|()| wire.flush());
                }
                return Ok(reason);
            }
        }
        .map_err(|_| Broken)?;
    }
}

/// A report in the protocol's words.
fn reason(report: &Report, view: &View) -> MultiThreadStopReason<u64> {
    match *report {
        Report::Stopped { thread: tid, stop: Stop::Step } => {
            MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP }
        }
        Report::Stopped { thread, stop: Stop::Breakpoint } => MultiThreadStopReason::SwBreak(thread),
        Report::Stopped { thread: tid, stop: Stop::Watchpoint { address: addr, watch } } => {
            let kind = match watch {
                Watch::Read => WatchKind::Read,
                Watch::Write => WatchKind::Write,
                Watch::Access => WatchKind::ReadWrite,
            };
            MultiThreadStopReason::Watch { tid, kind, addr }
        }
        Report::Signal { thread: tid, signal } => {
            MultiThreadStopReason::SignalWithThread { tid, signal: protocol_signal(signal) }
        }
        Report::Interrupted => match view.debuggee.threads().first() {
            Some((tid, _)) => MultiThreadStopReason::SignalWithThread { tid: *tid, signal: Signal::SIGINT },
            None => MultiThreadStopReason::Signal(Signal::SIGINT),
        },
        Report::Exited(status) => MultiThreadStopReason::Exited(status),
        Report::Killed(signal) => MultiThreadStopReason::Terminated(protocol_signal(signal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ports_hosts_or_paths() {
        assert_eq!("1234".parse(), Ok(Address::Tcp("127.0.0.1:1234".into())));
        assert_eq!("[::1]:0".parse(), Ok(Address::Tcp("[::1]:0".into())));
        assert_eq!("unix:/tmp/x".parse(), Ok(Address::Unix("/tmp/x".into())));
        for wrong in ["", "unix:", "host", "1234567", "host:port"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
