//! Asking a machine that runs, over its control socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::wire::{Answer, Info, LINE_BYTES_MAX, Request, VERSION, Verb};
use crate::home::socket_path;

/// How long a machine may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The same, when many are asked.
pub const GLANCE: Duration = Duration::from_millis(500);

/// A connection to a machine.
pub struct Peer {
    stream: BufReader<UnixStream>,
}

impl Peer {
    /// Connects to the machine in `directory`.
    ///
    /// # Errors
    /// There is none that answers.
    pub fn connect(directory: &Path) -> Result<Self> {
        let open = || -> std::io::Result<UnixStream> {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            let (_open, path) = socket_path(directory)?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket.into())
        };
        Ok(Self { stream: BufReader::new(open().context("it does not answer")?) })
    }

    /// What the machine answers to `verb`.
    ///
    /// # Errors
    /// It refuses, or does not answer in time (`None`: as long as it takes).
    pub fn ask(&mut self, verb: Verb, timeout: Option<Duration>) -> Result<Answer> {
        let mut line = serde_json::to_vec(&Request { version: VERSION, verb })?;
        line.push(b'\n');
        let stream = self.stream.get_mut();
        stream.set_read_timeout(timeout)?;
        stream.write_all(&line).context("it does not answer")?;
        let mut answer = Vec::new();
        let mut limited = (&mut self.stream).take(4 * LINE_BYTES_MAX as u64);
        limited.read_until(b'\n', &mut answer).context("it does not answer")?;
        ensure!(!answer.is_empty(), "it has ended");
        let answer: Answer = serde_json::from_slice(&answer).context("it does not speak this program's language")?;
        if let Some(error) = answer.error {
            bail!("{error}");
        }
        Ok(answer)
    }

    /// What the machine is doing.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn info(&mut self, timeout: Duration) -> Result<Info> {
        self.ask(Verb::Info, Some(timeout))?.info.context("it says nothing of itself")
    }

    /// Waits until the machine's process has ended. Whether it has within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        if timeout.is_zero() || self.stream.get_ref().set_read_timeout(Some(timeout)).is_err() {
            return false;
        }
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
