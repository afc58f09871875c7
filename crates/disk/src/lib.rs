//! Virtual disks behind the block backend trait.
//!
//! | module | what |
//! |---|---|
//! | [`raw`] | a disk that is a file, byte for byte, or a block device |
//! | [`scratch`] | a disk whose changes are forgotten |
//! | [`copy`] | copying and making disk files |
//!
//! Every disk in use is locked, so that two machines cannot write one: exclusively where it can be written, shared where it is only read.
//! The lock is the host's advisory file lock and ends with the process, however that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

pub mod copy;
pub mod raw;
pub mod scratch;

pub use copy::{clone_file, create, grow};
pub use raw::{Cache, Engine, Options, RawDisk};
pub use scratch::ScratchDisk;

/// Why a disk cannot be had. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("disk {} does not exist; check the path", .0.display())]
    Missing(PathBuf),
    /// Another machine has it.
    #[error("disk {} is in use by another machine; stop that machine or copy the disk", .0.display())]
    InUse(PathBuf),
    /// The user may not.
    #[error("no permission to {verb} disk {}; {hint}", .path.display())]
    Permission {
        /// The disk.
        path: PathBuf,
        /// "read" or "write".
        verb: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// It is a directory, a pipe, a terminal...
    #[error("{} is not a disk; give a file or a block device", .0.display())]
    NotADisk(PathBuf),
    /// Its file system has no way past the host's page cache.
    #[error("the file system of disk {} does not read and write past the host's page cache; use cache=writeback", .0.display())]
    Cached(PathBuf),
    /// It has no bytes.
    #[error("disk {} is empty; make it larger, or copy an image to it", .0.display())]
    Empty(PathBuf),
    /// It is larger than it is to be.
    #[error("disk {} already has {has} bytes, more than {wanted}; disks only grow", .path.display())]
    Shrinks {
        /// The disk.
        path: PathBuf,
        /// How large it is, in bytes.
        has: u64,
        /// How large it was to be, in bytes.
        wanted: u64,
    },
    /// The host failed.
    #[error("cannot {verb} disk {}: {cause}", .path.display())]
    Host {
        /// What was tried.
        verb: &'static str,
        /// The disk.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
}

impl DiskError {
    /// What `cause` means for one who tried to `verb` the disk at `path`.
    fn of(verb: &'static str, path: &Path, cause: io::Error) -> Self {
        let path = path.to_path_buf();
        match cause.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::IsADirectory => Self::NotADisk(path),
            _ => Self::Host { verb, path, cause },
        }
    }
}

/// How a disk is locked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// By one who only reads.
    Shared,
    /// By one who writes.
    Exclusive,
}

fn lock(file: &File, path: &Path, how: Lock) -> Result<(), DiskError> {
    let result = match how {
        Lock::Shared => file.try_lock_shared(),
        Lock::Exclusive => file.try_lock(),
    };
    match result {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(DiskError::InUse(path.into())),
        // Some file systems have no locks; that must not make disks on them useless.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(DiskError::of("lock", path, error)),
    }
}
