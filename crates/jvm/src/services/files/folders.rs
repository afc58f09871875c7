//! Folders: what is in them, and paths that begin at an open one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Failure, Result, Want, again, allow, c_path, check_done, check_int, duplicate, policy, wanted};

/// The names in a folder, without `.` and `..`, in the host's order.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn list(path: &[u8]) -> Result<Vec<Vec<u8>>> {
    allow(path, Want::Read)?;
    let entries = std::fs::read_dir(OsStr::from_bytes(path))?;
    entries.map(|entry| Ok(entry?.file_name().as_bytes().to_vec())).collect()
}

/// The same of an open folder.
///
/// # Errors
/// If the host refuses.
pub fn list_open(folder: i32) -> Result<Vec<Vec<u8>>> {
    let copy = duplicate(folder)?;
    // SAFETY: a descriptor of its own, which the stream closes.
    let stream = unsafe { libc::fdopendir(copy) };
    if stream.is_null() {
        let failure = Failure::last();
        // SAFETY: made above, and nobody else's.
        unsafe { libc::close(copy) };
        return Err(failure);
    }
    let mut names = Vec::new();
    // SAFETY: the stream is open, and an entry is read before the next one takes its place.
    unsafe {
        libc::rewinddir(stream);
        loop {
            let entry = libc::readdir(stream);
            if entry.is_null() {
                break;
            }
            let name = std::ffi::CStr::from_ptr((&raw const (*entry).d_name).cast()).to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        libc::closedir(stream);
    }
    Ok(names)
}

/// A path relative to an open folder, if the program may do this with where it leads.
fn allowed_below(folder: i32, path: &[u8], want: Want) -> Result<std::ffi::CString> {
    if !policy().permissions.write.iter().any(|root| root == Path::new("/")) {
        let mut place = if folder == libc::AT_FDCWD {
            std::path::PathBuf::new()
        } else {
            std::fs::read_link(format!("/proc/self/fd/{folder}"))?
        };
        place.push(OsStr::from_bytes(path));
        allow(place.as_os_str().as_bytes(), want)?;
    }
    c_path(path)
}

/// [`open`](super::open) with a path relative to an open folder.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn open_below(folder: i32, path: &[u8], flags: i32, mode: u32) -> Result<i32> {
    let path = allowed_below(folder, path, wanted(flags))?;
    // SAFETY: the path ends with NUL.
    again(|| check_int(unsafe { libc::openat(folder, path.as_ptr(), flags | libc::O_CLOEXEC, mode) }))
}

/// [`status`](super::status) with a path relative to an open folder.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn status_below(folder: i32, path: &[u8], flags: i32) -> Result<libc::stat> {
    let path = allowed_below(folder, path, Want::Read)?;
    let mut status = std::mem::MaybeUninit::uninit();
    // SAFETY: the path ends with NUL; there is room for the result, which is complete if the call succeeds.
    unsafe {
        check_done(libc::fstatat(folder, path.as_ptr(), status.as_mut_ptr(), flags))?;
        Ok(status.assume_init())
    }
}

/// When the file at a path relative to an open folder was made, if the host knows: seconds and nanoseconds since 1970. The empty path is what `folder` is open
/// for.
pub fn birth_below(folder: i32, path: &[u8], flags: i32) -> Option<(i64, i64)> {
    let itself = path.is_empty();
    let path = if itself { c_path(path) } else { allowed_below(folder, path, Want::Read) }.ok()?;
    let flags = if itself { flags | libc::AT_EMPTY_PATH } else { flags };
    let mut status = std::mem::MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the path ends with NUL; there is room for the result, which is complete if the call succeeds.
    let status = unsafe {
        check_done(libc::statx(folder, path.as_ptr(), flags, libc::STATX_BTIME, status.as_mut_ptr())).ok()?;
        status.assume_init()
    };
    let known = status.stx_mask & libc::STATX_BTIME != 0;
    known.then(|| (status.stx_btime.tv_sec, i64::from(status.stx_btime.tv_nsec)))
}

/// Removes what is at a path relative to an open folder.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn unlink_below(folder: i32, path: &[u8], flags: i32) -> Result<()> {
    let path = allowed_below(folder, path, Want::Write)?;
    // SAFETY: the path ends with NUL.
    check_done(unsafe { libc::unlinkat(folder, path.as_ptr(), flags) })
}

/// [`rename`](super::rename) with paths relative to open folders.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn rename_below(from_folder: i32, from: &[u8], to_folder: i32, to: &[u8]) -> Result<()> {
    let from = allowed_below(from_folder, from, Want::Write)?;
    let to = allowed_below(to_folder, to, Want::Write)?;
    // SAFETY: the paths end with NUL.
    check_done(unsafe { libc::renameat(from_folder, from.as_ptr(), to_folder, to.as_ptr()) })
}
