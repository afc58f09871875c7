//! The sysroot: a folder that stands for the root directory where it has what a program asks for.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::sys::raw;

/// The file in the sysroot that an absolute `path` means, if there is one: links on the way lead to files of the sysroot, too. `follow`: so does one at its end.
#[must_use]
pub fn redirect(sysroot: Option<&Path>, path: &[u8], follow: bool) -> Option<CString> {
    const OURS: [&[u8]; 5] = [b"/proc", b"/dev", b"/sys", b"/tmp", b"/run"];
    let sysroot = sysroot?;
    let host = OURS.iter().any(|ours| path.strip_prefix(*ours).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'));
    let root = sysroot.as_os_str().as_bytes();
    let inside = path.strip_prefix(root).filter(|rest| rest.first() == Some(&b'/'));
    if inside.is_none() && (path.len() < 2 || path[0] != b'/' || host) {
        return None;
    }
    let follow = if follow { 0 } else { libc::O_NOFOLLOW };
    let root = open_path(&CString::new(root).ok()?, libc::AT_FDCWD, 0, 0)?;
    let file = open_path(&CString::new(inside.unwrap_or(path)).ok()?, root.as_raw_fd(), follow, libc::RESOLVE_IN_ROOT)?;
    let found = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    CString::new(found.into_os_string().into_vec()).ok()
}

/// A descriptor that stands for a place among the files, and opens nothing.
fn open_path(path: &CStr, directory: i32, flags: i32, resolve: u64) -> Option<OwnedFd> {
    // SAFETY: plain data.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_PATH | libc::O_CLOEXEC | flags).cast_unsigned());
    how.resolve = resolve;
    let directory = i64::from(directory).cast_unsigned();
    let arguments = [directory, path.as_ptr() as u64, (&raw const how) as u64, size_of_val(&how) as u64, 0, 0];
    // SAFETY: the kernel reads the string and the structure.
    let file = i32::try_from(unsafe { raw(libc::SYS_openat2, arguments) }).ok().filter(|file| *file >= 0)?;
    // SAFETY: it is new, and nobody else's.
    Some(unsafe { OwnedFd::from_raw_fd(file) })
}
