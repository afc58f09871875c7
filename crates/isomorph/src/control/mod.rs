//! Verbs from outside: every machine that runs answers to them on a socket of its own, whatever its kind.
//!
//! ```text
//!  isomorph pause web ---+                                      machine's process
//!  isomorph info web  ---+--> HOME/machines/web/control --> thread "control" --> Controlled (the machine)
//!  isomorph ps        ---+        one JSON object a line
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`wire`] | what is said |
//! | [`serve`] | the machine's end |
//! | [`ask`] | the other end |
//! | [`commands`] | `pause`, `resume`, `stop`, `kill`, `info` |
//!
//! Invariants: only the machine's owner is heard; whatever a peer sends or does not send, the machine goes on and others are answered; a machine that nobody
//! has named costs a thread, and nothing is written for it before it has run for a moment, so that what ends at once pays nothing else.

pub mod ask;
pub mod commands;
mod serve;
#[cfg(test)]
mod tests;
pub mod wire;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use machine::lifecycle::{IllegalTransition, State};
use machine::sys;

use crate::home::Home;

/// How long a machine without a name runs before it is told of.
const QUIET: Duration = Duration::from_millis(50);
/// How long the end of a machine waits for those who are to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// What became of a machine that was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It has been told, and ends when it is ready to.
    Told,
    /// It cannot be told, and was ended.
    Ended,
}

/// A machine, as verbs from outside meet it. There are no default bodies: a kind that cannot do a verb says so.
pub trait Controlled: Send + Sync {
    /// Where it is in its life.
    fn state(&self) -> State;

    /// Returns once no instruction of the guest is executed.
    ///
    /// # Errors
    /// The state does not allow it.
    fn pause(&self) -> Result<(), IllegalTransition>;

    /// Lets it go on.
    ///
    /// # Errors
    /// The state does not allow it.
    fn resume(&self) -> Result<(), IllegalTransition>;

    /// Asks the guest to end by itself.
    ///
    /// # Errors
    /// The state does not allow it.
    fn stop(&self) -> Result<Asked>;

    /// Ends it as pulling the plug does.
    fn kill(&self);

    /// Leaves a snapshot in `directory`; may wait until there can be one.
    ///
    /// # Errors
    /// There can be none, or it cannot be written.
    fn snapshot(&self, directory: &Path) -> Result<()>;

    /// What it has done and how large it is.
    fn figures(&self) -> Figures;
}

/// What a machine tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Nanoseconds that it has run.
    pub time_ns: u64,
    /// Memory as the guest has it, in bytes; zero if it has the host's.
    pub memory_bytes: u64,
    /// Names and counts.
    pub counts: Vec<(String, u64)>,
}

/// What does not change while a machine runs.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its kind, as `ps` shows it.
    pub kind: &'static str,
    /// What it runs: an image, a kernel, a program.
    pub guest: String,
    /// Called by the thread that answers, before anything else: what makes it a stranger to the guest, where that is necessary.
    pub apart: Option<fn() -> std::io::Result<()>>,
}

impl Description {
    /// A machine of this kind that runs this.
    pub fn new(kind: &'static str, guest: impl Into<String>) -> Self {
        Self { kind, guest: guest.into(), apart: None }
    }
}

/// Under which name a machine is found.
#[derive(Clone, Debug)]
pub enum Place {
    /// The machine's own directory, which this process has locked.
    Own {
        /// Its name.
        name: String,
        /// Its directory.
        directory: PathBuf,
    },
    /// This name, which must be free.
    Named(String),
    /// Any name that is free, if it runs for longer than a moment.
    Unnamed(String),
}

impl Place {
    /// For a machine that may have been given a name, and runs `guest`.
    pub fn of(name: Option<&str>, guest: &OsStr) -> Self {
        match name {
            Some(name) => Self::Named(name.to_owned()),
            None => Self::Unnamed(automatic_name(guest)),
        }
    }
}

/// A name made of that of a file and the number of this process, by which it is unique.
fn automatic_name(guest: &OsStr) -> String {
    let stem = Path::new(guest).file_stem().unwrap_or_default().to_string_lossy();
    let fit = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let stem: String = stem.chars().filter(fit).skip_while(|c| !c.is_ascii_alphanumeric()).take(50).collect();
    format!("{}-{}", if stem.is_empty() { "machine" } else { &stem }, std::process::id())
}

/// Where a machine is told of.
#[derive(Default)]
struct Registered {
    ended: bool,
    /// Peers whose verb is being done, and who have yet to hear of it.
    answering_count: usize,
    /// Its directory, and whether that is the machine's for good.
    directory: Option<(PathBuf, bool)>,
}

#[derive(Default)]
struct Shared {
    registered: Mutex<Registered>,
    changed: Condvar,
}

/// Somebody is being answered, until it is dropped.
struct Answering(Arc<Shared>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.lock().answering_count -= 1;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn answering(self: &Arc<Self>) -> Answering {
        self.lock().answering_count += 1;
        Answering(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Registered> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time in which a machine can be controlled. At its end the machine is told of no more.
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// Lets `machine` be controlled from now on, until this is dropped or [`Self::end`] is called. A machine without a name runs on if that is not possible.
    ///
    /// # Errors
    /// The name is taken or unfit, or the host refuses.
    pub fn begin(place: Place, description: Description, machine: Arc<dyn Controlled>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let is_asked_for = !matches!(place, Place::Unnamed(_));
        let home = match Home::find() {
            Ok(home) => home,
            Err(error) if is_asked_for => return Err(error),
            Err(_) => return Ok(Self { shared }),
        };
        let (answer, answered) = mpsc::channel();
        let server = serve::Server { home, place, description, machine, shared: Arc::clone(&shared) };
        spawn(move || server.run(&answer))?;
        if is_asked_for {
            answered.recv().unwrap_or(Ok(())).context("cannot be controlled from outside")?;
        }
        Ok(Self { shared })
    }

    /// As [`Self::begin`], of a machine that is `prepared`.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn begin_prepared(prepared: Prepared, description: Description, machine: Arc<dyn Controlled>) -> Result<Self> {
        let Prepared { open, shared } = prepared;
        let of_thread = Arc::clone(&shared);
        spawn(move || serve::serve(open, description, machine, of_thread))?;
        Ok(Self { shared })
    }

    /// The machine has ended.
    pub fn end(&self) {
        let mut registered = self.shared.lock();
        registered.ended = true;
        if let Some((directory, keep)) = registered.directory.take() {
            serve::forget(&directory, keep);
        }
        self.shared.changed.notify_all();
        let answering = |registered: &mut Registered| registered.answering_count > 0;
        drop(self.shared.changed.wait_timeout_while(registered, FAREWELL, answering));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// A machine that can be found, and has yet to answer: for one that gives up, before it begins, what is needed to be found.
pub struct Prepared {
    open: serve::Open,
    shared: Arc<Shared>,
}

impl Prepared {
    /// Lets the machine be found at `place`.
    ///
    /// # Errors
    /// The name is taken or unfit, or the host refuses.
    pub fn at(place: &Place) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let open = serve::open(&Home::find()?, place, &shared).context("cannot be controlled from outside")?;
        Ok(Self { open, shared })
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) -> Result<()> {
    sys::thread("control").spawn(body).map(drop).context("the host gives no more threads")
}

/// Memory of the host that this process has, in bytes, as `/proc/self/statm` tells it.
pub fn resident_bytes(mut statm: &File) -> u64 {
    let mut text = String::new();
    let read = statm.rewind().and_then(|()| statm.read_to_string(&mut text));
    if read.is_err() {
        return 0;
    }
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * machine::PAGE_SIZE
}
