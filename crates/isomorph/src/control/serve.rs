//! The machine's end of its control socket: one thread that waits for peers, all of them at once.
//!
//! A peer is another process of the same user, and heard only as such; still it may be slow, silent, mad or gone. So nothing here waits for one: sockets do not
//! block, lines have a length at most, and so have answers that nobody fetches; when there are too many peers the oldest goes.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, mpsc};
use std::thread;

use anyhow::{Context, Result, ensure};
use machine::clock::process_time_ns;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;

use super::wire::{Answer, Info, LINE_BYTES_MAX, Request, VERSION, Verb};
use super::{Asked, Controlled, Description, Place, QUIET, Shared, resident_bytes};
use crate::home::{Home, MachineDirectory, SOCKET, socket_path};

/// Peers at once.
const PEERS_MAX: usize = 32;

/// The thread's side.
pub(super) struct Server {
    pub(super) home: Home,
    pub(super) place: Place,
    pub(super) description: Description,
    pub(super) machine: Arc<dyn Controlled>,
    pub(super) shared: Arc<Shared>,
}

/// What a machine is found by.
pub(super) struct Open {
    name: String,
    listener: UnixListener,
    /// This process's use of memory, as the host tells it.
    memory: Option<File>,
    /// Held for as long as this lives.
    _lock: Option<MachineDirectory>,
}

/// What answers.
struct Face {
    name: String,
    description: Description,
    machine: Arc<dyn Controlled>,
    shared: Arc<Shared>,
    memory: Option<File>,
}

/// One connection.
struct Peer {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Takes away what a machine was found by; its directory, too, unless that is to be kept.
pub(super) fn forget(directory: &Path, keep: bool) {
    // What cannot be removed is a machine that does not run, which `ps` clears away.
    let _ = fs::remove_file(directory.join(SOCKET));
    if !keep {
        let _ = fs::remove_file(directory.join("lock"));
        let _ = fs::remove_dir(directory);
    }
}

impl Server {
    /// The thread. `answer` hears whether the machine can be found.
    pub(super) fn run(self, answer: &mpsc::Sender<Result<()>>) {
        if let Place::Unnamed(_) = self.place {
            let registered = self.shared.lock();
            let waited = self.shared.changed.wait_timeout_while(registered, QUIET, |registered| !registered.ended);
            if waited.unwrap_or_else(PoisonError::into_inner).0.ended {
                return;
            }
        }
        let apart = self.description.apart.map_or(Ok(()), |apart| apart());
        let opened = apart.context("the host gives no table of descriptors");
        match opened.and_then(|()| open(&self.home, &self.place, &self.shared)) {
            Ok(opened) => {
                // Nobody listens if nobody asked for it.
                let _ = answer.send(Ok(()));
                serve(opened, self.description, self.machine, self.shared);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }
}

/// Answers for `machine` until the process ends.
pub(super) fn serve(open: Open, description: Description, machine: Arc<dyn Controlled>, shared: Arc<Shared>) {
    let Open { name, listener, memory, _lock } = open;
    let face = Arc::new(Face { name, description, machine, shared, memory });
    // A host that cannot wait for descriptors leaves the machine without control.
    let _ = face.serve(&listener);
}

/// Makes a machine one that can be found.
pub(super) fn open(home: &Home, place: &Place, shared: &Shared) -> Result<Open> {
    let (name, directory, lock) = match place {
        Place::Own { name, directory } => (name, directory.clone(), None),
        Place::Named(name) | Place::Unnamed(name) => {
            let lock = home.lock(name)?;
            ensure!(
                lock.is_passing(),
                "there is a machine '{name}' with a disk: give this one another --name, or remove that one with 'isomorph rm {name}'"
            );
            (name, lock.path().to_owned(), Some(lock))
        }
    };
    let mut registered = shared.lock();
    ensure!(!registered.ended, "it has ended");
    let listener = listen(&directory);
    registered.directory = Some((directory.clone(), lock.is_none()));
    drop(registered);
    home.sweep();
    Ok(Open {
        name: name.clone(),
        listener: listener.with_context(|| format!("cannot listen in {}", directory.display()))?,
        memory: File::open("/proc/self/statm").ok(),
        _lock: lock,
    })
}

/// A socket that only its owner may connect to.
fn listen(directory: &Path) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    match fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The mode of the socket is that of the file that it becomes.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    let (_open, path) = socket_path(directory)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 16)?;
    Ok(socket.into())
}

impl Face {
    fn serve(self: &Arc<Self>, listener: &UnixListener) -> io::Result<()> {
        let mut peers: Vec<Peer> = Vec::new();
        loop {
            let ready = {
                let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
                fds.extend(peers.iter().map(|peer| {
                    let out = if peer.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                    PollFd::from_borrowed_fd(peer.stream.as_fd(), PollFlags::IN | out)
                }));
                match poll(&mut fds, None) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
                fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>()
            };
            let mut ready_peers = ready[1..].iter();
            peers = peers
                .into_iter()
                .filter_map(|peer| if ready_peers.next() == Some(&true) { self.attend(peer) } else { Some(peer) })
                .collect();
            if ready[0] {
                self.accept(listener, &mut peers);
            }
        }
    }

    fn accept(&self, listener: &UnixListener, peers: &mut Vec<Peer>) {
        // One at a time: there is always another turn.
        let Ok((stream, _)) = listener.accept() else { return };
        let own = rustix::process::geteuid();
        let is_owner = socket_peercred(&stream).is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
        if is_owner && stream.set_nonblocking(true).is_ok() {
            if peers.len() == PEERS_MAX {
                peers.remove(0);
            }
            peers.push(Peer { stream, input: Vec::new(), output: Vec::new() });
        }
    }

    /// Reads, answers and writes as far as it goes without waiting. None when the peer is done with.
    fn attend(self: &Arc<Self>, mut peer: Peer) -> Option<Peer> {
        let mut buffer = [0; 4096];
        match peer.stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => peer.input.extend(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return None,
        }
        let _answering = self.shared.answering();
        while let Some(end) = peer.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = peer.input.drain(..=end).collect();
            match request(&line) {
                Ok(Verb::Snapshot { directory }) => {
                    self.snapshot(peer, directory);
                    return None;
                }
                Ok(verb) => put(&mut peer.output, &self.answer(&verb)),
                Err(error) => put(&mut peer.output, &Answer::refuse(error)),
            }
        }
        if peer.input.len() > LINE_BYTES_MAX || peer.output.len() > 4 * LINE_BYTES_MAX {
            return None;
        }
        while !peer.output.is_empty() {
            match peer.stream.write(&peer.output) {
                Ok(0) => return None,
                Ok(count) => drop(peer.output.drain(..count)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                Err(_) => return None,
            }
        }
        Some(peer)
    }

    /// What may take its time, and gets a thread.
    fn snapshot(self: &Arc<Self>, mut peer: Peer, directory: PathBuf) {
        let face = Arc::clone(self);
        let answering = self.shared.answering();
        let body = move || {
            let _answering = answering;
            let result = match directory.is_absolute() {
                true => face.machine.snapshot(&directory),
                false => Err(anyhow::anyhow!("the snapshot's directory is no absolute path")),
            };
            let answer = match result {
                Ok(()) => face.tell(None),
                Err(error) => Answer::refuse(format!("{error:#}")),
            };
            put(&mut peer.output, &answer);
            // Whoever asked may have gone.
            let _ = peer.stream.set_nonblocking(false).and_then(|()| peer.stream.write_all(&peer.output));
        };
        // Without a thread the peer sees its connection end.
        let _ = thread::Builder::new().name("snapshot".into()).spawn(body);
    }

    fn answer(&self, verb: &Verb) -> Answer {
        let machine = &self.machine;
        let result = match verb {
            Verb::Info | Verb::Snapshot { .. } => Ok(None),
            Verb::Pause => machine.pause().map(|()| None).map_err(Into::into),
            Verb::Resume => machine.resume().map(|()| None).map_err(Into::into),
            Verb::Stop => machine.stop().map(|asked| match asked {
                Asked::Told => None,
                Asked::Ended => Some("it cannot be asked to shut down, and was ended".to_owned()),
            }),
            Verb::Kill => {
                machine.kill();
                Ok(None)
            }
        };
        match result {
            Ok(note) => self.tell(note),
            Err(error) => Answer::refuse(format!("{error:#}")),
        }
    }

    fn tell(&self, note: Option<String>) -> Answer {
        let figures = self.machine.figures();
        let info = Info {
            name: self.name.clone(),
            kind: self.description.kind.to_owned(),
            guest: self.description.guest.clone(),
            state: self.machine.state().to_string(),
            pid: std::process::id(),
            time_ns: figures.time_ns,
            cpu_time_ns: process_time_ns(),
            resident_bytes: self.memory.as_ref().map_or(0, resident_bytes),
            memory_bytes: figures.memory_bytes,
            counts: figures.counts,
        };
        Answer { version: VERSION, note, info: Some(info), error: None }
    }
}

fn put(output: &mut Vec<u8>, answer: &Answer) {
    // Plain values always become JSON.
    output.extend(serde_json::to_vec(answer).unwrap_or_default());
    output.push(b'\n');
}

fn request(line: &[u8]) -> Result<Verb, String> {
    let wrong = |error: serde_json::Error| format!("no request: {error}");
    // The version first: a verb of another one need not be known.
    let value: serde_json::Value = serde_json::from_slice(line).map_err(wrong)?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(VERSION.into()) {
        return Err(format!("this machine speaks version {VERSION}: use the isomorph that started it"));
    }
    serde_json::from_value::<Request>(value).map(|request| request.verb).map_err(wrong)
}
