//! What is said over a machine's control socket: a request a line, an answer a line, each a JSON object.
//!
//! ```text
//! {"version":1,"verb":"pause"}
//! {"version":1,"info":{"name":"web","kind":"riscv64","state":"paused",...}}
//! {"version":1,"verb":"pause"}
//! {"version":1,"error":"cannot pause a machine that is paused"}
//! ```
//!
//! Members that a reader does not know are passed over, so that a version may gain some; a meaning that changes is another version.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version that is spoken.
pub const VERSION: u32 = 1;
/// The longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What to do.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What a machine can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Verb {
    /// What it is doing.
    Info,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// End by itself.
    Stop,
    /// End now.
    Kill,
    /// Leave a snapshot.
    Snapshot {
        /// In this directory: an absolute path.
        directory: PathBuf,
    },
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// Why it was not done: one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What whoever asked should know of how it was done: one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What the machine is doing after it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Info>,
}

/// What a machine is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it runs.
    pub guest: String,
    /// The state of its life: running, paused.
    pub state: String,
    /// Its process.
    pub pid: u32,
    /// Nanoseconds that it has run.
    pub time_ns: u64,
    /// Nanoseconds of the host's processors that it has used.
    pub cpu_time_ns: u64,
    /// Memory of the host that it has, in bytes.
    pub resident_bytes: u64,
    /// Memory as its guest has it, in bytes; zero if that has the host's.
    pub memory_bytes: u64,
    /// What it has done: names and counts.
    #[serde(default)]
    pub counts: Vec<(String, u64)>,
}

impl Answer {
    /// It was not done.
    pub fn refuse(error: impl Into<String>) -> Self {
        let error: String = error.into();
        Self { version: VERSION, error: Some(error.replace('\n', " ")), ..Self::default() }
    }
}
