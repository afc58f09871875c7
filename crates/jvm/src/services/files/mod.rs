//! Files and folders.
//!
//! Paths are bytes as the host has them. What is opened is a descriptor, a number, which the program keeps: reading and writing by it is no longer
//! checked.

mod folders;
mod mappings;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Failure, Refusal, Result, c_path, check, check_done, check_int, policy, real_place};

pub use folders::{birth_below, list, list_open, open_below, rename_below, status_below, unlink_below};
pub(crate) use mappings::mend;
pub use mappings::{expect_mapping, flush_mapping, is_mapping_loaded, map, unmap};

/// What is wanted of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Its contents, or that it is there.
    Read,
    /// To change it, or to make or remove it.
    Write,
}

/// Whether the program may do this with a path.
///
/// # Errors
/// If it may not.
pub fn allow(path: &[u8], want: Want) -> Result<()> {
    let policy = policy();
    let permissions = &policy.permissions;
    if permissions.write.iter().any(|root| root == Path::new("/")) {
        return Ok(());
    }
    let covers = |roots: &[std::path::PathBuf], place: &Path| roots.iter().any(|root| place.starts_with(root));
    let path = Path::new(OsStr::from_bytes(path));
    let place = real_place(path);
    let written = covers(&permissions.write, &place) || place == Path::new("/dev/null");
    let allowed = match want {
        Want::Read => {
            written
                || covers(&permissions.read, &place)
                || DEVICES.iter().any(|device| place == Path::new(device))
                || policy.own.iter().any(|own| own.covers(&place))
        }
        Want::Write => written,
    };
    if allowed {
        return Ok(());
    }
    let (doing, flag) = match want {
        Want::Read => ("reading", "--allow-read"),
        Want::Write => ("writing", "--allow-write"),
    };
    // Names of temporary files are made up: their folder is what can be allowed.
    let temporary = want == Want::Write && place.parent() == Some(Path::new(TEMPORARY));
    let place = if temporary { Path::new(TEMPORARY) } else { &place };
    Err(Failure::Refused(Refusal {
        what: format!("{doing} {}", path.display()),
        flag: format!("{flag}={}", place.display()),
    }))
}

/// `java.io.tmpdir`
pub const TEMPORARY: &str = "/tmp";

/// Devices that tell nothing of the host.
const DEVICES: [&str; 3] = ["/dev/random", "/dev/urandom", "/dev/zero"];

/// Opens a file. Programs that are started do not inherit it.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn open(path: &[u8], flags: i32, mode: u32) -> Result<i32> {
    allow(path, wanted(flags))?;
    let path = c_path(path)?;
    // SAFETY: the path ends with NUL.
    again(|| check_int(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode) }))
}

/// What opening with these flags wants.
fn wanted(flags: i32) -> Want {
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    if writes { Want::Write } else { Want::Read }
}

/// Repeats what a signal interrupted.
pub(crate) fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Failure::Host(libc::EINTR)) => {}
            result => return result,
        }
    }
}

/// Reads into `buffer`; 0 is the end.
///
/// # Errors
/// If the host refuses.
pub fn read(descriptor: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer is as long as said.
    let read = again(|| check(unsafe { libc::read(descriptor, buffer.as_mut_ptr().cast(), buffer.len()) } as i64))?;
    Ok(usize::try_from(read).unwrap_or(0))
}

/// Writes some of `bytes`.
///
/// # Errors
/// If the host refuses.
pub fn write(descriptor: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the bytes are as many as said.
    let written = again(|| check(unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) } as i64))?;
    Ok(usize::try_from(written).unwrap_or(0))
}

/// Reads once: `EINTR` if a signal comes while it waits.
///
/// # Errors
/// If the host refuses.
pub fn read_once(descriptor: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer is as long as said.
    let read = check(unsafe { libc::read(descriptor, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)?;
    Ok(usize::try_from(read).unwrap_or(0))
}

/// Writes once: `EINTR` if a signal comes while it waits.
///
/// # Errors
/// If the host refuses.
pub fn write_once(descriptor: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the bytes are as many as said.
    let written = check(unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) } as i64)?;
    Ok(usize::try_from(written).unwrap_or(0))
}

/// Reads into or writes from the buffers of a table at once: `count` pairs of address and length.
///
/// # Safety
/// The table and its buffers are there, and nobody else uses them meanwhile.
///
/// # Errors
/// If the host refuses; `EINTR` if a signal comes while it waits.
pub unsafe fn transfer_vector(descriptor: i32, table: i64, count: i32, writes: bool) -> Result<usize> {
    let table = std::ptr::with_exposed_provenance::<libc::iovec>(usize::try_from(table).unwrap_or(0));
    // SAFETY: the caller's promise.
    let done =
        unsafe { if writes { libc::writev(descriptor, table, count) } else { libc::readv(descriptor, table, count) } };
    Ok(usize::try_from(check(done as i64)?).unwrap_or(0))
}

/// Makes reads and writes of an open file go past the host's cache. Returns the size of blocks that they have to keep to.
///
/// # Errors
/// If the host refuses.
pub fn set_direct(descriptor: i32) -> Result<i32> {
    // SAFETY: numbers.
    let flags = check_int(unsafe { libc::fcntl(descriptor, libc::F_GETFL) })?;
    // SAFETY: numbers.
    check_done(unsafe { libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_DIRECT) })?;
    let mut system = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: there is room for the result, which is complete if the call succeeds.
    let size = unsafe {
        check_done(libc::fstatvfs(descriptor, system.as_mut_ptr()))?;
        system.assume_init().f_bsize
    };
    i32::try_from(size).map_err(|_| Failure::Host(libc::EINVAL))
}

/// Closes a descriptor. Those of the console are pointed at nothing instead, so that their numbers are not given to other files.
///
/// # Errors
/// If the host refuses.
pub fn close(descriptor: i32) -> Result<()> {
    if (0..=2).contains(&descriptor) {
        // SAFETY: the path ends with NUL.
        let nothing = check_int(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) })?;
        // SAFETY: numbers only.
        let moved = check_done(unsafe { libc::dup2(nothing, descriptor) });
        // SAFETY: opened above.
        unsafe { libc::close(nothing) };
        return moved;
    }
    // SAFETY: a number; if it is none of the program's, the host says so. It is not repeated if interrupted: it is closed then.
    match check_done(unsafe { libc::close(descriptor) }) {
        Err(Failure::Host(libc::EINTR)) => Ok(()),
        result => result,
    }
}

/// Moves the position of a file.
///
/// # Errors
/// If the host refuses.
pub fn seek(descriptor: i32, offset: i64, from: i32) -> Result<i64> {
    // SAFETY: numbers only.
    check(unsafe { libc::lseek(descriptor, offset, from) })
}

/// What the host knows of an open file.
///
/// # Errors
/// If the host refuses.
pub fn status_of(descriptor: i32) -> Result<libc::stat> {
    let mut status = std::mem::MaybeUninit::uninit();
    // SAFETY: there is room for the result, which is complete if the call succeeds.
    unsafe {
        check_done(libc::fstat(descriptor, status.as_mut_ptr()))?;
        Ok(status.assume_init())
    }
}

/// What the host knows of a file; `follow`: of what a link leads to.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn status(path: &[u8], follow: bool) -> Result<libc::stat> {
    allow(path, Want::Read)?;
    let path = c_path(path)?;
    let mut status = std::mem::MaybeUninit::uninit();
    // SAFETY: the path ends with NUL; there is room for the result, which is complete if the call succeeds.
    unsafe {
        check_done(match follow {
            true => libc::stat(path.as_ptr(), status.as_mut_ptr()),
            false => libc::lstat(path.as_ptr(), status.as_mut_ptr()),
        })?;
        Ok(status.assume_init())
    }
}

/// Bytes that can be read without waiting.
///
/// # Errors
/// If the host refuses.
pub fn available(descriptor: i32) -> Result<i64> {
    let status = status_of(descriptor)?;
    if status.st_mode & libc::S_IFMT == libc::S_IFREG {
        let position = seek(descriptor, 0, libc::SEEK_CUR)?;
        return Ok((status.st_size - position).max(0));
    }
    let mut bytes = 0i32;
    // SAFETY: the call writes an int.
    check_done(unsafe { libc::ioctl(descriptor, libc::FIONREAD, &raw mut bytes) })?;
    Ok(i64::from(bytes))
}

/// Calls that take a path and a number, or nothing.
macro_rules! path_calls {
    ($($(#[$doc:meta])* $name:ident($want:ident $(, $argument:ident: $type:ty)*) = $call:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// If the host or the permissions refuse.
        pub fn $name(path: &[u8] $(, $argument: $type)*) -> Result<()> {
            allow(path, Want::$want)?;
            let path = c_path(path)?;
            // SAFETY: the path ends with NUL; the rest are numbers.
            check_done(unsafe { libc::$call(path.as_ptr() $(, $argument)*) })
        }
    )*};
}

path_calls! {
    /// Whether the user may do this.
    access(Read, mode: i32) = access;
    /// Makes a folder.
    make_folder(Write, mode: u32) = mkdir;
    /// Removes an empty folder.
    remove_folder(Write) = rmdir;
    /// Removes a name of a file.
    unlink(Write) = unlink;
    /// Changes who may do what.
    change_mode(Write, mode: u32) = chmod;
    /// Changes owner and group.
    change_owner(Write, user: u32, group: u32) = chown;
    /// The same of a link itself.
    change_link_owner(Write, user: u32, group: u32) = lchown;
    /// Makes a special file.
    make_node(Write, mode: u32, device: u64) = mknod;
}

/// Removes a file or an empty folder.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn remove(path: &[u8]) -> Result<()> {
    match unlink(path) {
        Err(Failure::Host(libc::EISDIR | libc::EPERM)) => remove_folder(path),
        result => result,
    }
}

/// Gives a file another name.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn rename(from: &[u8], to: &[u8]) -> Result<()> {
    allow(from, Want::Write)?;
    allow(to, Want::Write)?;
    let (from, to) = (c_path(from)?, c_path(to)?);
    // SAFETY: both end with NUL.
    check_done(unsafe { libc::rename(from.as_ptr(), to.as_ptr()) })
}

/// Gives a file one more name.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn link(existing: &[u8], new: &[u8]) -> Result<()> {
    // By its new name it could be written.
    allow(existing, Want::Write)?;
    allow(new, Want::Write)?;
    let (existing, new) = (c_path(existing)?, c_path(new)?);
    // SAFETY: both end with NUL.
    check_done(unsafe { libc::link(existing.as_ptr(), new.as_ptr()) })
}

/// Makes a link to any text.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn symlink(text: &[u8], new: &[u8]) -> Result<()> {
    allow(new, Want::Write)?;
    let (text, new) = (c_path(text)?, c_path(new)?);
    // SAFETY: both end with NUL.
    check_done(unsafe { libc::symlink(text.as_ptr(), new.as_ptr()) })
}

/// The text of a link.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn read_link(path: &[u8]) -> Result<Vec<u8>> {
    allow(path, Want::Read)?;
    let target = std::fs::read_link(OsStr::from_bytes(path))?;
    Ok(target.into_os_string().as_bytes().to_vec())
}

/// The one path of a file without links.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn real_path(path: &[u8]) -> Result<Vec<u8>> {
    allow(path, Want::Read)?;
    let real = std::fs::canonicalize(OsStr::from_bytes(path))?;
    Ok(real.into_os_string().as_bytes().to_vec())
}

/// The one path of a file without links, `.` and `..`, whether it exists or not; as far as the program may know.
pub fn canonical(path: &[u8]) -> Vec<u8> {
    let path = Path::new(OsStr::from_bytes(path));
    let place = real_place(path);
    // Where a link leads is a secret if the link is: then only the text is looked at.
    let place = if allow(place.as_os_str().as_bytes(), Want::Read).is_ok() {
        place
    } else {
        path.components().fold(std::path::PathBuf::new(), |mut clean, part| {
            match part {
                std::path::Component::ParentDir => drop(clean.pop()),
                std::path::Component::CurDir => {}
                part => clean.push(part),
            }
            clean
        })
    };
    place.into_os_string().as_bytes().to_vec()
}

/// Whether what is written to an open file goes to its end.
pub fn appends(descriptor: i32) -> bool {
    // SAFETY: numbers.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_APPEND != 0
}

/// Sets the times of a file, in nanoseconds since 1970: of the last access and the last change.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn set_times(path: &[u8], accessed_ns: i64, modified_ns: i64, follow: bool) -> Result<()> {
    allow(path, Want::Write)?;
    let path = c_path(path)?;
    let times = [timespec(accessed_ns), timespec(modified_ns)];
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: the path ends with NUL, and there are two times.
    check_done(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), flags) })
}

/// The same of an open file.
///
/// # Errors
/// If the host refuses.
pub fn set_times_of(descriptor: i32, accessed_ns: i64, modified_ns: i64) -> Result<()> {
    let times = [timespec(accessed_ns), timespec(modified_ns)];
    // SAFETY: there are two times.
    check_done(unsafe { libc::futimens(descriptor, times.as_ptr()) })
}

fn timespec(nanoseconds: i64) -> libc::timespec {
    libc::timespec { tv_sec: nanoseconds.div_euclid(1_000_000_000), tv_nsec: nanoseconds.rem_euclid(1_000_000_000) }
}

/// What the host knows of the file system that a path is on.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn file_system(path: &[u8]) -> Result<libc::statvfs> {
    allow(path, Want::Read)?;
    let path = c_path(path)?;
    let mut status = std::mem::MaybeUninit::uninit();
    // SAFETY: the path ends with NUL; there is room for the result, which is complete if the call succeeds.
    unsafe {
        check_done(libc::statvfs(path.as_ptr(), status.as_mut_ptr()))?;
        Ok(status.assume_init())
    }
}

/// Waits until what was written is on the disk; `all`: also what is only about the file.
///
/// # Errors
/// If the host refuses.
pub fn flush(descriptor: i32, all: bool) -> Result<()> {
    // SAFETY: a number.
    again(|| check_done(unsafe { if all { libc::fsync(descriptor) } else { libc::fdatasync(descriptor) } }))
}

/// Makes a file shorter or longer.
///
/// # Errors
/// If the host refuses.
pub fn set_length(descriptor: i32, length: i64) -> Result<()> {
    // SAFETY: numbers.
    again(|| check_done(unsafe { libc::ftruncate(descriptor, length) }))
}

/// Another number for an open file.
///
/// # Errors
/// If the host refuses.
pub fn duplicate(descriptor: i32) -> Result<i32> {
    // SAFETY: numbers.
    check_int(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) })
}

/// Makes `to` another number for what `from` is open for, and closes what it was before.
///
/// # Errors
/// If the host refuses.
pub fn duplicate_to(from: i32, to: i32) -> Result<()> {
    // SAFETY: numbers.
    again(|| check_int(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop))
}

/// Changes who may do what with an open file.
///
/// # Errors
/// If the host refuses.
pub fn change_mode_of(descriptor: i32, mode: u32) -> Result<i64> {
    // SAFETY: numbers.
    check(unsafe { libc::fchmod(descriptor, mode) })
}

/// Changes owner and group of an open file.
///
/// # Errors
/// If the host refuses.
pub fn change_owner_of(descriptor: i32, user: u32, group: u32) -> Result<i64> {
    // SAFETY: numbers.
    check(unsafe { libc::fchown(descriptor, user, group) })
}

/// Reads at a position, or writes there; the file's own position stays.
///
/// # Errors
/// If the host refuses.
pub fn read_at(descriptor: i32, buffer: &mut [u8], position: i64) -> Result<usize> {
    // SAFETY: the buffer is as long as said.
    let read =
        again(|| check(unsafe { libc::pread(descriptor, buffer.as_mut_ptr().cast(), buffer.len(), position) } as i64))?;
    Ok(usize::try_from(read).unwrap_or(0))
}

/// Writes some of `bytes` at a position; the file's own position stays.
///
/// # Errors
/// If the host refuses.
pub fn write_at(descriptor: i32, bytes: &[u8], position: i64) -> Result<usize> {
    // SAFETY: the bytes are as many as said.
    let written =
        again(|| check(unsafe { libc::pwrite(descriptor, bytes.as_ptr().cast(), bytes.len(), position) } as i64))?;
    Ok(usize::try_from(written).unwrap_or(0))
}

/// Locks a range of a file against other processes. `false`: another has it, and `wait` was not asked for.
///
/// # Errors
/// If the host refuses; `EINTR` if a signal comes while it waits.
pub fn lock(descriptor: i32, start: i64, length: i64, shared: bool, wait: bool) -> Result<bool> {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    match set_lock(descriptor, kind, start, length, wait) {
        Ok(()) => Ok(true),
        Err(Failure::Host(libc::EAGAIN | libc::EACCES)) if !wait => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Gives back a range that was locked.
///
/// # Errors
/// If the host refuses.
pub fn unlock(descriptor: i32, start: i64, length: i64) -> Result<()> {
    set_lock(descriptor, libc::F_UNLCK, start, length, false)
}

#[allow(clippy::cast_possible_truncation, reason = "kinds of locks are small constants")]
fn set_lock(descriptor: i32, kind: i32, start: i64, length: i64, wait: bool) -> Result<()> {
    // To the end of any file, as the host says it.
    let length = if length == i64::MAX { 0 } else { length };
    let lock =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: length, l_pid: 0 };
    let call = if wait { libc::F_SETLKW } else { libc::F_SETLK };
    // SAFETY: the lock is what the call takes.
    check_done(unsafe { libc::fcntl(descriptor, call, &raw const lock) })
}

/// Reads an extended attribute of an open file into `buffer`; the length of its value if that is empty.
///
/// # Errors
/// If the host refuses.
pub fn attribute(descriptor: i32, name: &[u8], buffer: &mut [u8]) -> Result<usize> {
    let name = c_path(name)?;
    // SAFETY: the name ends with NUL, and the buffer is as long as said.
    let count =
        check(unsafe { libc::fgetxattr(descriptor, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) } as i64)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Sets an extended attribute of an open file.
///
/// # Errors
/// If the host refuses.
pub fn set_attribute(descriptor: i32, name: &[u8], value: &[u8]) -> Result<()> {
    let name = c_path(name)?;
    // SAFETY: as above.
    check_done(unsafe { libc::fsetxattr(descriptor, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

/// Removes an extended attribute of an open file.
///
/// # Errors
/// If the host refuses.
pub fn remove_attribute(descriptor: i32, name: &[u8]) -> Result<()> {
    let name = c_path(name)?;
    // SAFETY: as above.
    check_done(unsafe { libc::fremovexattr(descriptor, name.as_ptr()) })
}

/// Names of the extended attributes of an open file, each followed by NUL; the length of all if the buffer is empty.
///
/// # Errors
/// If the host refuses.
pub fn attributes(descriptor: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer is as long as said.
    let count = check(unsafe { libc::flistxattr(descriptor, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Copies from one open file to another within the host. Returns how much was.
///
/// # Errors
/// If the host refuses; `EINVAL`, if it cannot for files of these kinds.
pub fn copy(from: i32, position: i64, count: usize, to: i32) -> Result<i64> {
    let mut position = position;
    // SAFETY: the position is what the call takes.
    check(unsafe { libc::sendfile(to, from, &raw mut position, count) } as i64)
}

/// Whether a descriptor is that of a terminal.
pub fn is_terminal(descriptor: i32) -> bool {
    // SAFETY: a number.
    unsafe { libc::isatty(descriptor) == 1 }
}

/// Whether the terminal shows what is typed; sets it, and returns what it was.
pub fn set_echo(on: bool) -> bool {
    let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: there is room for the result, which is complete if the call succeeds.
    unsafe {
        if libc::tcgetattr(0, modes.as_mut_ptr()) != 0 {
            return false;
        }
        let mut modes = modes.assume_init();
        let was = modes.c_lflag & libc::ECHO != 0;
        if was != on {
            modes.c_lflag ^= libc::ECHO;
            libc::tcsetattr(0, libc::TCSANOW, &raw const modes);
        }
        was
    }
}

/// All of a file.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn contents(path: &[u8]) -> Result<Vec<u8>> {
    allow(path, Want::Read)?;
    Ok(std::fs::read(OsStr::from_bytes(path))?)
}

/// Something that folders can be watched with.
///
/// # Errors
/// If the host refuses.
pub fn watcher() -> Result<i32> {
    // SAFETY: numbers.
    check_int(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })
}

/// Watches a file or folder.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn watch(watcher: i32, path: &[u8], events: u32) -> Result<i32> {
    allow(path, Want::Read)?;
    let path = c_path(path)?;
    // SAFETY: the path ends with NUL.
    check_int(unsafe { libc::inotify_add_watch(watcher, path.as_ptr(), events) })
}

/// Watches it no longer.
///
/// # Errors
/// If the host refuses.
pub fn unwatch(watcher: i32, watch: i32) -> Result<i32> {
    // SAFETY: numbers.
    check_int(unsafe { libc::inotify_rm_watch(watcher, watch) })
}

/// Writes all of `bytes` to a descriptor.
///
/// # Errors
/// If the host refuses.
pub fn write_all(descriptor: i32, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = write(descriptor, rest)?;
        rest = &rest[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use machine::permissions::Permissions;

    use super::*;

    #[test]
    fn what_is_not_named_is_refused_with_the_flag() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (readable, writable) = (root.join("r"), root.join("w"));
        std::fs::create_dir(&readable).unwrap();
        std::fs::create_dir(&writable).unwrap();
        std::os::unix::fs::symlink(&root, writable.join("up")).unwrap();
        std::fs::write(root.join("secret"), "s").unwrap();
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let turn = super::super::test_permissions(Permissions {
            read: vec![readable.clone()],
            write: vec![writable.clone()],
            ..Permissions::default()
        });
        let file = open(&bytes(&writable.join("a")), libc::O_RDWR | libc::O_CREAT, 0o600).unwrap();
        assert_eq!(write(file, b"hello"), Ok(5));
        assert_eq!(available(file), Ok(0));
        assert_eq!(seek(file, 1, libc::SEEK_SET), Ok(1));
        let mut buffer = [0; 9];
        assert_eq!(read(file, &mut buffer), Ok(4));
        close(file).unwrap();
        assert_eq!(close(file), Err(Failure::Host(libc::EBADF)));
        assert_eq!(list(&bytes(&readable)), Ok(vec![]));
        let refused = open(&bytes(&readable.join("b")), libc::O_WRONLY | libc::O_CREAT, 0o600).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("writing {0}/b is not allowed; start with --allow-write={0}/b", readable.display())
        );
        for way in [root.join("secret"), writable.join("../secret"), writable.join("up/secret")] {
            assert!(matches!(status(&bytes(&way), true), Err(Failure::Refused(_))), "{}", way.display());
        }
        assert_eq!(link(&bytes(&root.join("secret")), &bytes(&writable.join("x"))).unwrap_err().number(), libc::EACCES);
        assert_eq!(rename(&bytes(&writable.join("a")), &bytes(&writable.join("b"))), Ok(()));
        assert_eq!(remove(&bytes(&writable.join("b"))), Ok(()));
        assert_eq!(status(&bytes(&writable.join("b")), true).unwrap_err(), Failure::Host(libc::ENOENT));
        drop(turn);
        let _turn = super::super::test_permissions(Permissions::all());
        assert!(status(b"/etc", true).is_ok());
    }
}
