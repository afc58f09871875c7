//! `java.util.prefs.FileSystemPreferences`: locks between the virtual machines of a user.

use super::Table;
use super::support::{int, path_bytes};
use crate::allocate;
use crate::interpreter::Arguments;
use crate::metadata::BasicType;
use crate::object::Reference;
use crate::services::{self, files};
use crate::thread::{Result, Thread};

/// 0, or the host's reason.
fn reason(result: services::Result<()>) -> Result<u64> {
    Ok(int(result.err().map_or(0, |failure| failure.number())))
}

fn try_lock(path: &[u8], mode: u32, shared: bool) -> services::Result<i32> {
    let flags = if shared { libc::O_RDONLY } else { libc::O_RDWR | libc::O_CREAT };
    let file = files::open(path, flags, mode)?;
    match files::lock(file, 0, 0, shared, false) {
        Ok(true) => Ok(file),
        Ok(false) => {
            files::close(file)?;
            Err(services::Failure::Host(libc::EAGAIN))
        }
        Err(failure) => {
            files::close(file)?;
            Err(failure)
        }
    }
}

/// `path, mode, shared`: the descriptor, 0 if there is none, and the host's reason.
fn lock(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let path = path_bytes(arguments.reference(0));
    let pair = match try_lock(&path, arguments.int(1).cast_unsigned(), arguments.boolean(2)) {
        Ok(file) => [file, 0],
        Err(failure) => [0, failure.number()],
    };
    allocate::filled(thread, BasicType::Int, &pair).map(Reference::slot)
}

pub(super) const TABLES: &[Table] = &[(
    "java/util/prefs/FileSystemPreferences",
    &[
        ("lockFile0", "", lock),
        ("unlockFile0", "", |_, a| reason(files::unlock(a.int(0), 0, 0).and_then(|()| files::close(a.int(0))))),
        ("chmod", "", |_, a| reason(files::change_mode(&path_bytes(a.reference(0)), a.int(1).cast_unsigned()))),
    ],
)];
