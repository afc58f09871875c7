//! `java.io.UnixFileSystem`: what `java.io.File` does. Failures are `false` or 0; the class has no way to tell why.

use super::support::{VOID, boolean, field, host_string, int, long, natives, path_bytes};
use crate::allocate;
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::known;
use crate::object::Reference;
use crate::services::{Failure, files};
use crate::thread::{Result, Thread};

/// `FileSystem.BA_EXISTS`, `BA_REGULAR` and `BA_DIRECTORY`
const EXISTS: i32 = 1;
const REGULAR: i32 = 2;
const DIRECTORY: i32 = 4;

fn path(thread: &mut Thread, file: Reference) -> Result<Vec<u8>> {
    if file.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    Ok(path_bytes(file.reference(field!("java/io/File", "path", "Ljava/lang/String;"))))
}

/// A native that answers whether something could be done to a file.
fn done(
    thread: &mut Thread,
    arguments: Arguments,
    call: impl FnOnce(&[u8]) -> std::result::Result<(), Failure>,
) -> Result<u64> {
    let path = path(thread, arguments.reference(1))?;
    Ok(boolean(call(&path).is_ok()))
}

fn list(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let path = path(thread, arguments.reference(1))?;
    let Ok(names) = files::list(&path) else { return Ok(0) };
    let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let array = allocate::reference_array(thread, known::string(), count)?;
    let array = thread.handle(array);
    for (index, name) in (0..count).zip(names) {
        let name = host_string(thread, &name)?;
        array.get().set_reference_element(index, name);
    }
    Ok(array.get().slot())
}

/// Changes the bits of `access` (1 execute, 2 write, 4 read) for the owner or for all.
fn set_permission(path: &[u8], access: i32, enable: bool, owner_only: bool) -> std::result::Result<(), Failure> {
    let bits = access.cast_unsigned() & 7;
    let bits = if owner_only { bits << 6 } else { bits << 6 | bits << 3 | bits };
    let mode = files::status(path, true)?.st_mode & 0o7777;
    files::change_mode(path, if enable { mode | bits } else { mode & !bits })
}

natives! { "java/io/UnixFileSystem":
    "initIDs" "()V" => |_, _| Ok(VOID);
    "canonicalize0" "(Ljava/lang/String;)Ljava/lang/String;" => |thread, arguments| {
        let path = path_bytes(arguments.reference(1));
        let canonical = files::canonical(&path);
        Ok(host_string(thread, &canonical)?.slot())
    };
    "getBooleanAttributes0" "(Ljava/io/File;)I" => |thread, arguments| {
        let path = path(thread, arguments.reference(1))?;
        let Ok(status) = files::status(&path, true) else { return Ok(int(0)) };
        Ok(int(EXISTS | match status.st_mode & libc::S_IFMT {
            libc::S_IFREG => REGULAR,
            libc::S_IFDIR => DIRECTORY,
            _ => 0,
        }))
    };
    "checkAccess" "(Ljava/io/File;I)Z" => |thread, arguments| {
        let mode = arguments.int(2);
        done(thread, arguments, |path| {
            if mode & 2 != 0 {
                files::allow(path, files::Want::Write)?;
            }
            files::access(path, mode & 7)
        })
    };
    "getLastModifiedTime" "(Ljava/io/File;)J" => |thread, arguments| {
        let path = path(thread, arguments.reference(1))?;
        let time = files::status(&path, true).map_or(0, |status| status.st_mtime * 1000 + status.st_mtime_nsec / 1_000_000);
        Ok(long(time))
    };
    "getLength" "(Ljava/io/File;)J" => |thread, arguments| {
        let path = path(thread, arguments.reference(1))?;
        Ok(long(files::status(&path, true).map_or(0, |status| status.st_size)))
    };
    "setPermission" "(Ljava/io/File;IZZ)Z" => |thread, arguments| {
        let (access, enable, owner) = (arguments.int(2), arguments.boolean(3), arguments.boolean(4));
        done(thread, arguments, |path| set_permission(path, access, enable, owner))
    };
    "createFileExclusively" "(Ljava/lang/String;)Z" => |thread, arguments| {
        if arguments.reference(1).is_null() {
            return Err(exceptions::null_pointer(thread));
        }
        let path = path_bytes(arguments.reference(1));
        // The root exists, whatever open says.
        if path == b"/" {
            return Ok(boolean(false));
        }
        match files::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o666) {
            Ok(number) => {
                let _ = files::close(number);
                Ok(boolean(true))
            }
            Err(Failure::Host(libc::EEXIST)) => Ok(boolean(false)),
            Err(failure) => Err(super::support::io_exception(thread, &failure)),
        }
    };
    "delete0" "(Ljava/io/File;)Z" => |thread, arguments| done(thread, arguments, files::remove);
    "list" "(Ljava/io/File;)[Ljava/lang/String;" => list;
    "createDirectory" "(Ljava/io/File;)Z" => |thread, arguments| {
        done(thread, arguments, |path| files::make_folder(path, 0o777))
    };
    "rename0" "(Ljava/io/File;Ljava/io/File;)Z" => |thread, arguments| {
        let to = path(thread, arguments.reference(2))?;
        done(thread, arguments, |from| files::rename(from, &to))
    };
    "setLastModifiedTime" "(Ljava/io/File;J)Z" => |thread, arguments| {
        let time = arguments.long(2).saturating_mul(1_000_000);
        done(thread, arguments, |path| {
            let accessed = files::status(path, true)?;
            files::set_times(path, accessed.st_atime * 1_000_000_000 + accessed.st_atime_nsec, time, true)
        })
    };
    "setReadOnly" "(Ljava/io/File;)Z" => |thread, arguments| {
        done(thread, arguments, |path| set_permission(path, 2, false, false))
    };
    // 0 all, 1 free, 2 usable
    "getSpace" "(Ljava/io/File;I)J" => |thread, arguments| {
        let path = path(thread, arguments.reference(1))?;
        let Ok(system) = files::file_system(&path) else { return Ok(0) };
        let blocks = match arguments.int(2) {
            0 => system.f_blocks,
            1 => system.f_bfree,
            _ => system.f_bavail,
        };
        Ok(long(i64::try_from(system.f_frsize.saturating_mul(blocks)).unwrap_or(i64::MAX)))
    };
    "getNameMax0" "(Ljava/lang/String;)J" => |_, arguments| {
        let path = path_bytes(arguments.reference(1));
        let longest = files::file_system(&path).map_or(255, |system| system.f_namemax);
        Ok(long(i64::try_from(longest).unwrap_or(i64::MAX)))
    };
}
