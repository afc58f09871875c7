//! The lab: the same work on every kind of virtual machine that this host has, beside native code, measured in one go.
//!
//! ```text
//! workload   what is done: one table, one source a language, the same checksum in all of them
//! engine     who does it: native code, process machines, system machines; Isomorph's and their peers
//! mechanism  what it is made of: traps, page walks, warm-up, collectors' pauses
//!    \       /
//!    measure        every engine by turns, round by round; what fails is a named gap
//!       |
//!    record         the figures, as JSON
//!       |
//!    report         terminal, HTML, difference of two records; claims beside figures
//! ```
//!
//! Everything runs as a child process, Isomorph's own machines too, as a user would start them: this crate knows no engine from inside. Guest programs are in
//! the binary ([`program`]), so that nothing but the command is needed; a peer that the host lacks is a gap with a name, never a failure. A
//! checksum that differs is an error: then some machine has computed wrong.
//!
//! What is measured, and when: a program says "ready" when it has started, and times each iteration itself, by the monotonic clock of its own world. The
//! *first* iteration is cold: interpreted, not yet compiled. The *steady* time is the median of the later half of a run, and the figure the median over
//! runs. Memory is the most that was resident at once, read from /proc while the program waits for its input to close.

pub mod claims;
pub mod engine;
pub mod format;
pub mod host;
pub mod measure;
pub mod mechanism;
pub mod program;
pub mod record;
pub mod report;
pub mod statistics;
pub mod workload;
