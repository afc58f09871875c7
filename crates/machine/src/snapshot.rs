//! Snapshots: the state of a machine of any kind, in a directory.
//!
//! ```text
//! DIRECTORY/header   text, readable alone
//!           state    the sections, one behind the other: structs of the machine's kind, each with a version
//!           memory   the memories, each at a multiple of the page size; pages of zeroes are holes
//!
//! isomorph snapshot 1                     the format's version
//! kind wasm                               what can go on from here
//! machine 3f0c...                         who it was
//! parent -                                whom that one went on from
//! section globals 1 0 44 1c291ca3         name, version, offset and length in `state`, CRC-32
//! memory memory.0 0 65536 9bd366ae        name, offset and length in `memory`, checksum
//! end 89abcdef                            CRC-32 of the lines above
//! ```
//!
//! A [`Writer`] works under a temporary name and renames at the end, so that under a snapshot's name there is all of it or what was there before.
//! Who reads takes each section and each memory once, and says at the end that this was all ([`Parts::finish`]): what is unknown, missing or left
//! over is an error, so that no part of a machine is lost without a word.
//!
//! Cost: reading is the header and the sections that are taken. Memory is mapped copy-on-write
//! ([`map_file_over`](crate::sys::map_file_over)), so that its size costs nothing; its checksum is therefore compared by [`Snapshot::verify`] only.
//!
//! Nothing in the files is trusted: no length is allocated that the file does not have.

mod header;
mod read;
mod write;

use std::io;
use std::path::PathBuf;

pub use header::{Header, Identity, Memory, Section};
pub use read::{MappedMemory, Parts, Snapshot, is_snapshot};
pub use write::Writer;

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// The granularity of memory in a snapshot, in bytes: a multiple of all hosts' page sizes.
pub const PAGE_BYTES: u64 = PAGE_LENGTH as u64;
const PAGE_LENGTH: usize = 64 << 10;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The host failed.
    #[error("cannot {verb} {}: {cause}", path.display())]
    Host {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// Something else is there.
    #[error("{} is there and is no snapshot; choose another directory", .0.display())]
    Occupied(PathBuf),
    /// No header.
    #[error("{} is no snapshot of a machine", .0.display())]
    Magic(PathBuf),
    /// Of another version.
    #[error(
        "the snapshot's {what} is of version {found}, and this isomorph reads version {known}; use the isomorph that wrote it"
    )]
    Version {
        /// The format, or which section.
        what: String,
        /// Its version.
        found: u32,
        /// The one that is understood.
        known: u32,
    },
    /// Of another kind of machine.
    #[error("it is a snapshot of a machine of kind {found}, not of kind {wanted}")]
    Kind {
        /// Its kind.
        found: String,
        /// What it was to be.
        wanted: &'static str,
    },
    /// Changed since it was written, or not written by this program.
    #[error("the snapshot is damaged: {0}; take a fresh copy of it")]
    Damaged(String),
    /// A section or memory that nobody took.
    #[error("the snapshot has a part '{0}' that this machine does not know")]
    Unknown(String),
}

/// What [`Writer`] and [`Snapshot`] agree on: the checksum of a memory is that of its pages that are not zero, in order, each behind its number.
/// Says whether the page is one of those.
fn checksum_page(hasher: &mut crc32fast::Hasher, index: u64, page: &[u8]) -> bool {
    let is_zero = page.iter().all(|byte| *byte == 0);
    if !is_zero {
        hasher.update(&index.to_le_bytes());
        hasher.update(page);
    }
    !is_zero
}

#[cfg(test)]
mod tests;
