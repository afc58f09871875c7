//! `sun.nio.fs.UnixNativeDispatcher`: what `java.nio.file` does on the host. Paths are addresses of bytes that end with NUL.

use std::sync::OnceLock;

use super::support::{VOID, field, int, long, memory, natives, text_at, waiting};
use crate::allocate;
use crate::exceptions;
use crate::interpreter;
use crate::interpreter::Arguments;
use crate::loader;
use crate::object::Reference;
use crate::services::{self, Failure, files};
use crate::symbol::Symbol;
use crate::thread::{Result, Thread, Thrown};

/// `SUPPORTS_OPENAT`, `SUPPORTS_FUTIMES`, `SUPPORTS_FUTIMENS`, `SUPPORTS_LUTIMES`, `SUPPORTS_XATTR` and `SUPPORTS_BIRTHTIME`, which later updates of JDK 17 know
const CAPABILITIES: i32 = 2 | 4 | 8 | 16 | 32 | 1 << 16;

/// Throws `UnixException` with the host's number, or for a refusal what the API documents, with its reason.
pub(super) fn unix_exception(thread: &mut Thread, failure: &Failure) -> Thrown {
    let number = match failure {
        Failure::Refused(refusal) => {
            return exceptions::throw(thread, "java/nio/file/AccessDeniedException", refusal.to_string());
        }
        Failure::Host(number) => *number,
    };
    let class = loader::boot_class("sun/nio/fs/UnixException");
    if let Err(thrown) = crate::link::initialize(thread, class) {
        return thrown;
    }
    let exception = match allocate::instance(thread, class) {
        Ok(exception) => thread.handle(exception),
        Err(thrown) => return thrown,
    };
    let constructor = class.declared_method(Symbol::new("<init>"), Symbol::new("(I)V"));
    let constructor = constructor.expect("UnixException of JDK 17 is made of a number");
    match interpreter::call(thread, constructor, &[exception.slot(), int(number)]) {
        Ok(_) => thread.throw(exception.get()),
        Err(thrown) => thrown,
    }
}

/// A call with a path and what else its arguments say.
fn with_path<T>(
    thread: &mut Thread,
    arguments: Arguments,
    call: impl FnOnce(&[u8], Arguments) -> services::Result<T>,
) -> Result<T> {
    // SAFETY: the class has put the path there, and keeps it.
    let path = unsafe { text_at(arguments.long(0)) };
    waiting(thread, || call(path, arguments)).map_err(|failure| unix_exception(thread, &failure))
}

/// The same of a call that gives nothing.
fn done(
    thread: &mut Thread,
    arguments: Arguments,
    call: impl FnOnce(&[u8], Arguments) -> services::Result<()>,
) -> Result<u64> {
    with_path(thread, arguments, call).map(|()| VOID)
}

/// A call with two paths.
fn two_paths(thread: &mut Thread, arguments: Arguments, call: fn(&[u8], &[u8]) -> services::Result<()>) -> Result<u64> {
    // SAFETY: as above.
    let second = unsafe { text_at(arguments.long(2)) };
    done(thread, arguments, |first, _| call(first, second))
}

fn bytes(thread: &mut Thread, bytes: &[u8]) -> Result<u64> {
    Ok(allocate::byte_array(thread, bytes)?.slot())
}

/// A call by a descriptor that gives a number.
fn by_number(thread: &mut Thread, result: services::Result<i64>) -> Result<u64> {
    result.map(long).map_err(|failure| unix_exception(thread, &failure))
}

fn length_of(thread: &mut Thread, result: services::Result<usize>) -> Result<u64> {
    by_number(thread, result.map(|length| i64::try_from(length).unwrap_or(i64::MAX)))
}

/// Where the time is that a file was made at, in seconds and nanoseconds; early updates of JDK 17 have no such fields.
fn birth_fields() -> Option<(u32, u32)> {
    static FIELDS: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *FIELDS.get_or_init(|| {
        let class = loader::boot_class("sun/nio/fs/UnixFileAttributes");
        let field = |name| class.find_field(Symbol::new(name), Symbol::new("J")).map(|(_, field)| field.offset);
        Some((field("st_birthtime_sec")?, field("st_birthtime_nsec")?))
    })
}

/// `born`: when the file was made, if that is known.
fn set_attributes(object: Reference, status: &libc::stat, born: Option<(i64, i64)>) {
    let number = |value: u32| value.cast_signed();
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_mode", "I"), number(status.st_mode));
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_ino", "J"), status.st_ino);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_dev", "J"), status.st_dev);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_rdev", "J"), status.st_rdev);
    let links = i32::try_from(status.st_nlink).unwrap_or(i32::MAX);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_nlink", "I"), links);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_uid", "I"), number(status.st_uid));
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_gid", "I"), number(status.st_gid));
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_size", "J"), status.st_size);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_atime_sec", "J"), status.st_atime);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_atime_nsec", "J"), status.st_atime_nsec);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_mtime_sec", "J"), status.st_mtime);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_mtime_nsec", "J"), status.st_mtime_nsec);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_ctime_sec", "J"), status.st_ctime);
    object.write(field!("sun/nio/fs/UnixFileAttributes", "st_ctime_nsec", "J"), status.st_ctime_nsec);
    if let Some((seconds, nanoseconds)) = birth_fields() {
        let born = born.unwrap_or((status.st_mtime, status.st_mtime_nsec));
        object.write(seconds, born.0);
        object.write(nanoseconds, born.1);
    }
}

fn status(thread: &mut Thread, arguments: Arguments, follow: bool) -> Result<u64> {
    let (status, born) = with_path(thread, arguments, |path, _| {
        let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        Ok((files::status(path, follow)?, files::birth_below(libc::AT_FDCWD, path, flags)))
    })?;
    set_attributes(arguments.reference(2), &status, born);
    Ok(VOID)
}

fn file_system(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let system = with_path(thread, arguments, |path, _| files::file_system(path))?;
    let object = arguments.reference(2);
    object.write(field!("sun/nio/fs/UnixFileStoreAttributes", "f_frsize", "J"), system.f_frsize);
    object.write(field!("sun/nio/fs/UnixFileStoreAttributes", "f_blocks", "J"), system.f_blocks);
    object.write(field!("sun/nio/fs/UnixFileStoreAttributes", "f_bfree", "J"), system.f_bfree);
    object.write(field!("sun/nio/fs/UnixFileStoreAttributes", "f_bavail", "J"), system.f_bavail);
    Ok(VOID)
}

/// An open folder.
struct Folder {
    /// Names that were not yet given out.
    names: std::vec::IntoIter<Vec<u8>>,
    /// What it was opened by, and is closed with it.
    descriptor: Option<i32>,
}

fn give_folder(names: Vec<Vec<u8>>, descriptor: Option<i32>) -> u64 {
    Box::into_raw(Box::new(Folder { names: names.into_iter(), descriptor })).expose_provenance() as u64
}

fn open_folder(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let names = with_path(thread, arguments, |path, _| files::list(path))?;
    Ok(give_folder(names, None))
}

fn folder(arguments: Arguments) -> *mut Folder {
    std::ptr::with_exposed_provenance_mut(usize::try_from(arguments.long(0)).unwrap_or(0))
}

/// Seconds and millionths as the class counts times, in billionths.
fn times(arguments: Arguments, first: usize) -> (i64, i64) {
    (arguments.long(first).saturating_mul(1000), arguments.long(first + 2).saturating_mul(1000))
}

/// Who a user or group is: the third field of its line in `/etc/passwd` or `/etc/group`, by the first, or the other way around.
fn look_up(file: &str, from: usize, key: &str, to: usize) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let found = text.lines().find(|line| line.split(':').nth(from) == Some(key))?;
    found.split(':').nth(to).map(str::to_owned)
}

fn name_of(thread: &mut Thread, arguments: Arguments, file: &str) -> Result<u64> {
    match look_up(file, 2, &arguments.int(0).cast_unsigned().to_string(), 0) {
        Some(name) => bytes(thread, name.as_bytes()),
        None => Err(unix_exception(thread, &Failure::Host(libc::ENOENT))),
    }
}

fn number_of(arguments: Arguments, file: &str) -> Result<u64> {
    // SAFETY: as above.
    let name = String::from_utf8_lossy(unsafe { text_at(arguments.long(0)) }).into_owned();
    Ok(int(look_up(file, 0, &name, 2).and_then(|number| number.parse().ok()).unwrap_or(-1)))
}

fn unsigned(arguments: Arguments, index: usize) -> u32 {
    arguments.int(index).cast_unsigned()
}

fn transfer(thread: &mut Thread, arguments: Arguments, writes: bool) -> Result<u64> {
    let number = arguments.int(0);
    // SAFETY: the class's buffer, as long as it says.
    let buffer = unsafe { memory(arguments.long(1), arguments.int(3)) };
    let result = waiting(thread, || if writes { files::write(number, buffer) } else { files::read(number, buffer) });
    let result = result.map(|count| i32::try_from(count).unwrap_or(i32::MAX));
    result.map(int).map_err(|failure| unix_exception(thread, &failure))
}

natives! { "sun/nio/fs/UnixNativeDispatcher":
    "init" "()I" => |_, _| Ok(int(CAPABILITIES));
    "getcwd" "()[B" => |thread, _| {
        let folder = std::env::current_dir().unwrap_or_else(|_| "/".into());
        bytes(thread, folder.as_os_str().as_encoded_bytes())
    };
    "strerror" "(I)[B" => |thread, arguments| {
        let text = services::error_text(arguments.int(0));
        bytes(thread, text.as_bytes())
    };
    "open0" "(JII)I" => |thread, arguments| {
        with_path(thread, arguments, |path, a| files::open(path, a.int(2), unsigned(a, 3))).map(int)
    };
    "close0" "(I)V" => |thread, arguments| {
        let closed = files::close(arguments.int(0));
        closed.map(|()| VOID).map_err(|failure| unix_exception(thread, &failure))
    };
    "dup" "(I)I" => |thread, arguments| {
        let copied = files::duplicate(arguments.int(0));
        copied.map(int).map_err(|failure| unix_exception(thread, &failure))
    };
    "read" "(IJI)I" => |thread, arguments| transfer(thread, arguments, false);
    "write" "(IJI)I" => |thread, arguments| transfer(thread, arguments, true);
    "access0" "(JI)V" => |thread, arguments| done(thread, arguments, |path, a| {
        if a.int(2) & libc::W_OK != 0 {
            files::allow(path, files::Want::Write)?;
        }
        files::access(path, a.int(2))
    });
    "exists0" "(J)Z" => |_, arguments| {
        // SAFETY: as above.
        let path = unsafe { text_at(arguments.long(0)) };
        Ok(super::support::boolean(files::access(path, libc::F_OK).is_ok()))
    };
    "stat0" "(JLsun/nio/fs/UnixFileAttributes;)V" => |thread, arguments| status(thread, arguments, true);
    "lstat0" "(JLsun/nio/fs/UnixFileAttributes;)V" => |thread, arguments| status(thread, arguments, false);
    // The kind of file, 0 if there is none.
    "stat1" "(J)I" => |_, arguments| {
        // SAFETY: as above.
        let path = unsafe { text_at(arguments.long(0)) };
        Ok(int(files::status(path, true).map_or(0, |status| status.st_mode.cast_signed())))
    };
    "fstat" "(ILsun/nio/fs/UnixFileAttributes;)V" => |thread, arguments| match files::status_of(arguments.int(0)) {
        Ok(status) => {
            let born = files::birth_below(arguments.int(0), b"", 0);
            set_attributes(arguments.reference(1), &status, born);
            Ok(VOID)
        }
        Err(failure) => Err(unix_exception(thread, &failure)),
    };
    "statvfs0" "(JLsun/nio/fs/UnixFileStoreAttributes;)V" => file_system;
    "mkdir0" "(JI)V" => |thread, arguments| {
        done(thread, arguments, |path, a| files::make_folder(path, unsigned(a, 2)))
    };
    "rmdir0" "(J)V" => |thread, arguments| done(thread, arguments, |path, _| files::remove_folder(path));
    "unlink0" "(J)V" => |thread, arguments| done(thread, arguments, |path, _| files::unlink(path));
    "rename0" "(JJ)V" => |thread, arguments| two_paths(thread, arguments, files::rename);
    "link0" "(JJ)V" => |thread, arguments| two_paths(thread, arguments, files::link);
    "symlink0" "(JJ)V" => |thread, arguments| two_paths(thread, arguments, files::symlink);
    "readlink0" "(J)[B" => |thread, arguments| {
        let target = with_path(thread, arguments, |path, _| files::read_link(path))?;
        bytes(thread, &target)
    };
    "realpath0" "(J)[B" => |thread, arguments| {
        let real = with_path(thread, arguments, |path, _| files::real_path(path))?;
        bytes(thread, &real)
    };
    "mknod0" "(JIJ)V" => |thread, arguments| {
        done(thread, arguments, |path, a| files::make_node(path, unsigned(a, 2), a.long(3).cast_unsigned()))
    };
    "chmod0" "(JI)V" => |thread, arguments| {
        done(thread, arguments, |path, a| files::change_mode(path, unsigned(a, 2)))
    };
    "chown0" "(JII)V" => |thread, arguments| {
        done(thread, arguments, |path, a| files::change_owner(path, unsigned(a, 2), unsigned(a, 3)))
    };
    "lchown0" "(JII)V" => |thread, arguments| {
        done(thread, arguments, |path, a| files::change_link_owner(path, unsigned(a, 2), unsigned(a, 3)))
    };
    "fchmod" "(II)V" => |thread, arguments| {
        by_number(thread, files::change_mode_of(arguments.int(0), unsigned(arguments, 1)))
    };
    "fchown" "(III)V" => |thread, arguments| {
        by_number(thread, files::change_owner_of(arguments.int(0), unsigned(arguments, 1), unsigned(arguments, 2)))
    };
    "utimes0" "(JJJ)V" => |thread, arguments| done(thread, arguments, |path, a| {
        let (accessed, modified) = times(a, 2);
        files::set_times(path, accessed, modified, true)
    });
    "lutimes0" "(JJJ)V" => |thread, arguments| done(thread, arguments, |path, a| {
        let (accessed, modified) = times(a, 2);
        files::set_times(path, accessed, modified, false)
    });
    "futimes" "(IJJ)V" => |thread, arguments| {
        let (accessed, modified) = times(arguments, 1);
        by_number(thread, files::set_times_of(arguments.int(0), accessed, modified).map(|()| 0))
    };
    "futimens" "(IJJ)V" => |thread, arguments| {
        let set = files::set_times_of(arguments.int(0), arguments.long(1), arguments.long(3));
        by_number(thread, set.map(|()| 0))
    };
    "opendir0" "(J)J" => open_folder;
    "fdopendir" "(I)J" => |thread, a| {
        let number = a.int(0);
        let names = waiting(thread, || files::list_open(number));
        let given = names.map(|names| give_folder(names, Some(number)));
        given.map_err(|failure| unix_exception(thread, &failure))
    };
    // `folder, path, flags, mode`
    "openat0" "(IJII)I" => |thread, a| {
        // SAFETY: as above.
        let path = unsafe { text_at(a.long(1)) };
        let opened = waiting(thread, || files::open_below(a.int(0), path, a.int(3), unsigned(a, 4)));
        opened.map(int).map_err(|failure| unix_exception(thread, &failure))
    };
    // `folder, path, flags, attributes`
    "fstatat0" "(IJILsun/nio/fs/UnixFileAttributes;)V" => |thread, a| {
        // SAFETY: as above.
        let path = unsafe { text_at(a.long(1)) };
        let (folder, flags) = (a.int(0), a.int(3));
        let found = waiting(thread, || -> services::Result<_> {
            Ok((files::status_below(folder, path, flags)?, files::birth_below(folder, path, flags)))
        });
        match found {
            Ok((status, born)) => {
                set_attributes(a.reference(4), &status, born);
                Ok(VOID)
            }
            Err(failure) => Err(unix_exception(thread, &failure)),
        }
    };
    "unlinkat0" "(IJI)V" => |thread, a| {
        // SAFETY: as above.
        let path = unsafe { text_at(a.long(1)) };
        let removed = waiting(thread, || files::unlink_below(a.int(0), path, a.int(3)));
        removed.map(|()| VOID).map_err(|failure| unix_exception(thread, &failure))
    };
    "renameat0" "(IJIJ)V" => |thread, a| {
        // SAFETY: as above.
        let (from, to) = unsafe { (text_at(a.long(1)), text_at(a.long(4))) };
        let renamed = waiting(thread, || files::rename_below(a.int(0), from, a.int(3), to));
        renamed.map(|()| VOID).map_err(|failure| unix_exception(thread, &failure))
    };
    // How long the lines of a table of mounts are, for the class's buffer, which is not used here: the table is at its end already.
    "getlinelen" "(J)I" => |_, _| Ok(int(-1));
    "rewind" "(J)V" => |_, _| Ok(VOID);
    "readdir" "(J)[B" => |thread, arguments| {
        // SAFETY: made by `opendir0`, not yet closed, and used by one thread at a time.
        match unsafe { &mut *folder(arguments) }.names.next() {
            Some(name) => bytes(thread, &name),
            None => Ok(0),
        }
    };
    "closedir" "(J)V" => |_, arguments| {
        // SAFETY: made by `opendir0` or `fdopendir`, and closed once.
        let folder = unsafe { Box::from_raw(folder(arguments)) };
        if let Some(descriptor) = folder.descriptor {
            // Nothing is to be done about one that does not close.
            let _ = files::close(descriptor);
        }
        Ok(VOID)
    };
    // The class asks for the length with no buffer.
    "fgetxattr0" "(IJJI)I" => |thread, a| {
        // SAFETY: the class's name and buffer, as long as it says.
        let (name, buffer) = unsafe { (text_at(a.long(1)), memory(a.long(3), a.int(5))) };
        length_of(thread, files::attribute(a.int(0), name, buffer))
    };
    "fsetxattr0" "(IJJI)V" => |thread, a| {
        // SAFETY: as above.
        let (name, value) = unsafe { (text_at(a.long(1)), memory(a.long(3), a.int(5))) };
        by_number(thread, files::set_attribute(a.int(0), name, value).map(|()| 0))
    };
    "fremovexattr0" "(IJ)V" => |thread, a| {
        // SAFETY: as above.
        let name = unsafe { text_at(a.long(1)) };
        by_number(thread, files::remove_attribute(a.int(0), name).map(|()| 0))
    };
    "flistxattr" "(IJI)I" => |thread, a| {
        // SAFETY: as above.
        let buffer = unsafe { memory(a.long(1), a.int(3)) };
        length_of(thread, files::attributes(a.int(0), buffer))
    };
    "getpwuid" "(I)[B" => |thread, arguments| name_of(thread, arguments, "/etc/passwd");
    "getgrgid" "(I)[B" => |thread, arguments| name_of(thread, arguments, "/etc/group");
    "getpwnam0" "(J)I" => |_, arguments| number_of(arguments, "/etc/passwd");
    "getgrnam0" "(J)I" => |_, arguments| number_of(arguments, "/etc/group");
}
