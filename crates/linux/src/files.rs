//! File calls that are not the host's own: other structures, arrays of addresses, and names that mean the guest.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;

use crate::net::read_vectors;
use crate::proc;
use crate::process::Thread;
use crate::signal::host::call;
use crate::space::AddressSpace;
use crate::sys::raw;
use crate::sys::{EINVAL, low};
use crate::sysroot::redirect;

const PATH_MAX: usize = 4096;

/// A path of the guest, as the host shall have it; `follow`: of what a link at its end leads to.
///
/// # Errors
/// Negative error numbers.
pub(crate) fn path(thread: &Thread, at: u64, follow: bool) -> Result<CString, i64> {
    let text = thread.process.space.read_string(at, PATH_MAX)?;
    if is_own_link(&text) {
        return CString::new(thread.process.program.as_os_str().as_bytes()).map_err(|_| EINVAL);
    }
    match redirect(thread.process.sysroot.as_deref(), &text, follow) {
        Some(inside) => Ok(inside),
        None => CString::new(text).map_err(|_| EINVAL),
    }
}

/// Whether a path is the link to the program that runs: on the host it would lead to this command.
fn is_own_link(path: &[u8]) -> bool {
    let own = format!("/proc/{}/exe", std::process::id());
    path == b"/proc/self/exe" || path == b"/proc/thread-self/exe" || path == own.as_bytes()
}

/// `openat(directory, path, flags, mode)`.
pub(crate) fn openat(thread: &Thread, [directory, at, flags, mode, ..]: [u64; 6]) -> Result<i64, i64> {
    let text = path(thread, at, low(flags) & libc::O_NOFOLLOW.cast_unsigned() == 0)?;
    // What the host would say of this command instead of the program.
    if let Some((name, bytes)) = proc::file(thread, text.as_bytes()) {
        return file_of(name, &bytes);
    }
    let arguments = [directory, text.as_ptr() as u64, flags, mode, 0, 0];
    // SAFETY: the kernel reads the path.
    Ok(unsafe { call(thread.signals.mailbox(), libc::SYS_openat, arguments) })
}

/// A file in memory that holds `bytes`: its descriptor.
fn file_of(name: &CStr, bytes: &[u8]) -> Result<i64, i64> {
    // SAFETY: the kernel reads the name, and the bytes.
    unsafe {
        let file = raw(libc::SYS_memfd_create, [name.as_ptr() as u64, u64::from(libc::MFD_CLOEXEC), 0, 0, 0, 0]);
        if file < 0 {
            return Err(file);
        }
        raw(libc::SYS_write, [file.unsigned_abs(), bytes.as_ptr() as u64, bytes.len() as u64, 0, 0, 0]);
        raw(libc::SYS_lseek, [file.unsigned_abs(), 0, 0, 0, 0, 0]);
        Ok(file)
    }
}

/// `readlinkat(directory, path, buffer, size)`.
pub(crate) fn readlinkat(thread: &Thread, [directory, at, buffer, size, ..]: [u64; 6]) -> Result<i64, i64> {
    let space = &thread.process.space;
    let text = space.read_string(at, PATH_MAX)?;
    if is_own_link(&text) {
        let program = thread.process.program.as_os_str().as_bytes();
        let length = program.len().min(usize::try_from(size).unwrap_or(0));
        space.write(buffer, &program[..length])?;
        return i64::try_from(length).map_err(|_| EINVAL);
    }
    let text = path(thread, at, false)?;
    let arguments = [directory, text.as_ptr() as u64, space.pointer(buffer)?, size, 0, 0];
    // SAFETY: the kernel reads the path and writes guest memory.
    Ok(unsafe { raw(libc::SYS_readlinkat, arguments) })
}

/// The guest's `struct stat`: the generic one.
fn stat_to_guest(stat: &libc::stat) -> [u8; 128] {
    let mut bytes = [0; 128];
    let mut put =
        |at: usize, value: u64, size: usize| bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    put(0, stat.st_dev, 8);
    put(8, stat.st_ino, 8);
    put(16, stat.st_mode.into(), 4);
    put(20, stat.st_nlink, 4);
    put(24, stat.st_uid.into(), 4);
    put(28, stat.st_gid.into(), 4);
    put(32, stat.st_rdev, 8);
    put(48, stat.st_size.cast_unsigned(), 8);
    put(56, stat.st_blksize.cast_unsigned(), 4);
    put(64, stat.st_blocks.cast_unsigned(), 8);
    let times =
        [stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec];
    for (number, time) in times.into_iter().enumerate() {
        put(72 + 8 * number, time.cast_unsigned(), 8);
    }
    bytes
}

/// `newfstatat(directory, path, stat, flags)` (79) and `fstat(descriptor, stat)` (80).
pub(crate) fn stat(thread: &Thread, number: u64, [first, second, third, flags, ..]: [u64; 6]) -> Result<i64, i64> {
    // SAFETY: plain data.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let into = (&raw mut stat) as u64;
    let (answer, at) = if number == 80 {
        // SAFETY: the kernel writes one `stat`.
        (unsafe { raw(libc::SYS_fstat, [first, into, 0, 0, 0, 0]) }, second)
    } else {
        let text = path(thread, second, flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0)?;
        // SAFETY: the kernel reads the path and writes one `stat`.
        (unsafe { raw(libc::SYS_newfstatat, [first, text.as_ptr() as u64, into, flags, 0, 0]) }, third)
    };
    if answer == 0 {
        thread.process.space.write(at, &stat_to_guest(&stat))?;
    }
    Ok(answer)
}

/// The calls with an `iovec`: `readv`, `writev`, `preadv`, `pwritev`, `preadv2`, `pwritev2`, `vmsplice`.
pub(crate) fn vectored(thread: &Thread, number: u64, [file, at, count, d, e, f]: [u64; 6]) -> Result<i64, i64> {
    let host = match number {
        65 => libc::SYS_readv,
        66 => libc::SYS_writev,
        69 => libc::SYS_preadv,
        70 => libc::SYS_pwritev,
        286 => libc::SYS_preadv2,
        287 => libc::SYS_pwritev2,
        _ => libc::SYS_vmsplice,
    };
    let vectors = read_vectors(&thread.process.space, at, count)
        .map_err(|error| if error == -i64::from(libc::EMSGSIZE) { EINVAL } else { error })?;
    let arguments = [file, vectors.as_ptr() as u64, count, d, e, f];
    // SAFETY: the vectors point to guest memory.
    Ok(unsafe { call(thread.signals.mailbox(), host, arguments) })
}

/// `fcntl(descriptor, command, argument)`. Locks and owners are structures of the same layout.
pub(crate) fn fcntl(thread: &Thread, [file, command, argument, ..]: [u64; 6]) -> Result<i64, i64> {
    let has_pointer = matches!(low(command), 5..=7 | 15 | 16 | 36..=38 | 1035..=1038);
    let argument = if has_pointer { thread.process.space.pointer(argument)? } else { argument };
    // SAFETY: the kernel reads and writes guest memory.
    Ok(unsafe { call(thread.signals.mailbox(), libc::SYS_fcntl, [file, command, argument, 0, 0, 0]) })
}

/// `ioctl` commands whose argument is a number.
const BY_VALUE: [u32; 14] = [
    0x5409,      // TCSBRK
    0x540a,      // TCXONC
    0x540b,      // TCFLSH
    0x540c,      // TIOCEXCL
    0x540d,      // TIOCNXCL
    0x540e,      // TIOCSCTTY
    0x5422,      // TIOCNOTTY
    0x5425,      // TCSBRKP
    0x5427,      // TIOCSBRK
    0x5428,      // TIOCCBRK
    0x5441,      // TIOCGPTPEER
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
    0x4004_9409, // FICLONE
];
const SIOCGIFCONF: u32 = 0x8912;

/// `ioctl(descriptor, command, argument)`. Commands and structures of terminals, files and sockets are generic.
pub(crate) fn ioctl(thread: &Thread, [file, command, argument, ..]: [u64; 6]) -> Result<i64, i64> {
    let space = &thread.process.space;
    if low(command) == SIOCGIFCONF {
        return interfaces(space, file, argument);
    }
    let argument = if BY_VALUE.contains(&low(command)) { argument } else { space.pointer(argument)? };
    // SAFETY: the kernel reads and writes guest memory, or takes a number.
    Ok(unsafe { call(thread.signals.mailbox(), libc::SYS_ioctl, [file, command, argument, 0, 0, 0]) })
}

/// `SIOCGIFCONF`: a length, and an address.
fn interfaces(space: &AddressSpace, file: u64, argument: u64) -> Result<i64, i64> {
    let mut pair = [space.read_u64(argument)?, space.pointer(space.read_u64(argument.wrapping_add(8))?)?];
    let arguments = [file, SIOCGIFCONF.into(), pair.as_mut_ptr() as u64, 0, 0, 0];
    // SAFETY: the kernel writes the pair's length, and guest memory.
    let answer = unsafe { raw(libc::SYS_ioctl, arguments) };
    space.write(argument, &pair[0].to_le_bytes()[..4])?;
    Ok(answer)
}

/// `uname`: the host's, but for the machine.
pub(crate) fn uname(thread: &Thread, at: u64) -> Result<i64, i64> {
    const FIELD: usize = 65;
    let mut names = [0_u8; 6 * FIELD];
    // SAFETY: the kernel writes six fields.
    let answer = unsafe { raw(libc::SYS_uname, [names.as_mut_ptr() as u64, 0, 0, 0, 0, 0]) };
    let machine = &mut names[4 * FIELD..5 * FIELD];
    machine.fill(0);
    machine[..7].copy_from_slice(b"riscv64");
    thread.process.space.write(at, &names)?;
    Ok(answer)
}
