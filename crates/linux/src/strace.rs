//! `--strace`: a line for each system call, written as strace does.
//!
//! ```text
//! 4711 openat(AT_FDCWD, "/etc/hosts", 524288) = 3
//! 4711 read(3, "127.0.0.1\tlocalhost\n", 4096) = 20
//! 4711 mkdirat(AT_FDCWD, "/", 511) = -1 EEXIST (File exists)
//! ```
//!
//! How an argument is shown follows from the letters of [`direct`]'s table, and of the one here for calls that the machine answers itself.
//! A call that does not come back is told before, with `?`; if it does come back (an `execve` that fails), it is told again.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::direct;
use crate::space::AddressSpace;

/// Where system calls are told.
///
/// A file is opened for each line: the program may close any descriptor, and its children and what they execute write to the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLog(Option<PathBuf>);

/// Calls that the machine answers itself: as [`direct`]'s table.
const OWN: &[(u64, &str, &str)] = &[
    (21, "epoll_ctl", "...p"),
    (22, "epoll_pwait", ".p..p."),
    (25, "fcntl", "..."),
    (29, "ioctl", "..p"),
    (56, "openat", ".c.."),
    (65, "readv", ".p."),
    (66, "writev", ".p."),
    (69, "preadv", ".p.."),
    (70, "pwritev", ".p.."),
    (72, "pselect6", ".ppppp"),
    (73, "ppoll", "p.pp."),
    (74, "signalfd4", ".p.."),
    (75, "vmsplice", ".p.."),
    (78, "readlinkat", ".co."),
    (79, "newfstatat", ".cp."),
    (80, "fstat", ".p"),
    (93, "exit", "."),
    (94, "exit_group", "."),
    (96, "set_tid_address", "p"),
    (98, "futex", "p..pp."),
    (99, "set_robust_list", "p."),
    (113, "clock_gettime", ".p"),
    (132, "sigaltstack", "pp"),
    (133, "rt_sigsuspend", "p."),
    (134, "rt_sigaction", ".pp."),
    (135, "rt_sigprocmask", ".pp."),
    (137, "rt_sigtimedwait", "ppp."),
    (139, "rt_sigreturn", ""),
    (160, "uname", "p"),
    (167, "prctl", "....."),
    (169, "gettimeofday", "pp"),
    (191, "semctl", "...p"),
    (196, "shmat", ".p."),
    (197, "shmdt", "p"),
    (208, "setsockopt", "...p."),
    (211, "sendmsg", ".p."),
    (212, "recvmsg", ".p."),
    (214, "brk", "p"),
    (215, "munmap", "p."),
    (216, "mremap", "p...p"),
    (220, "clone", ".pppp"),
    (221, "execve", "cpp"),
    (222, "mmap", "p....."),
    (226, "mprotect", "p.."),
    (243, "recvmmsg", ".p..p"),
    (258, "riscv_hwprobe", "p..p."),
    (259, "riscv_flush_icache", "pp."),
    (269, "sendmmsg", ".p.."),
    (281, "execveat", ".cpp."),
    (286, "preadv2", ".p...."),
    (287, "pwritev2", ".p...."),
    // Known to programs, and not here.
    (100, "get_robust_list", ".pp"),
    (117, "ptrace", "..pp"),
    (241, "perf_event_open", "p...."),
    (280, "bpf", ".p."),
    (293, "rseq", "p..."),
    (425, "io_uring_setup", ".p"),
    (426, "io_uring_enter", "....p."),
    (427, "io_uring_register", "..p."),
    (435, "clone3", "p."),
    (441, "epoll_pwait2", ".p.pp."),
    (449, "futex_waitv", "p..p."),
];

const EXIT: u64 = 93;
const EXIT_GROUP: u64 = 94;
const EXECVE: u64 = 221;
const EXECVEAT: u64 = 281;

/// Bytes of a buffer that are shown.
const SHOWN: usize = 32;
/// Bytes of a string that are shown.
const STRING_SHOWN: usize = 256;

/// A call before it is made.
#[derive(Debug)]
pub(crate) struct Told {
    number: u64,
    arguments: [u64; 6],
    /// All but what comes out of it.
    before: String,
}

impl CallLog {
    /// Lines at the end of the file `path`; `-` is the standard error.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self((path.as_os_str() != "-").then(|| path.into()))
    }

    /// As [`Self::new`] takes it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new("-"))
    }

    /// A call is about to be made: strings are looked at now, since it may change them.
    pub(crate) fn enter(&self, space: &AddressSpace, number: u64, arguments: [u64; 6]) -> Told {
        let told = Told { number, arguments, before: describe(space, number, arguments, None) };
        if matches!(number, EXIT | EXIT_GROUP | EXECVE | EXECVEAT) {
            self.write(&format!("{} = ?", told.before));
        }
        told
    }

    /// It has answered, if it does.
    pub(crate) fn leave(&self, space: &AddressSpace, told: Told, answer: Option<i64>) {
        let Told { number, arguments, before } = told;
        let text = match answer.and_then(|answer| u64::try_from(answer).ok()) {
            Some(count) if letters(number).1.contains('o') => describe(space, number, arguments, Some(count)),
            _ => before,
        };
        match answer {
            None => self.write(&format!("{text} = ?")),
            // Addresses.
            Some(answer) if matches!(number, 196 | 214 | 216 | 222) && answer >= 0 => {
                self.write(&format!("{text} = {answer:#x}"));
            }
            Some(answer @ -4095..=-1) => {
                let error = i32::try_from(-answer).unwrap_or(0);
                let meaning = std::io::Error::from_raw_os_error(error).to_string();
                let meaning = meaning.split(" (os error").next().unwrap_or("").to_owned();
                self.write(&format!("{text} = -1 {} ({meaning})", error_name(error)));
            }
            Some(answer) => self.write(&format!("{text} = {answer}")),
        }
    }

    /// What cannot be written is lost: the program goes on.
    fn write(&self, text: &str) {
        let line = format!("{} {text}\n", std::process::id());
        let _ = match &self.0 {
            None => std::io::stderr().write_all(line.as_bytes()),
            Some(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes())),
        };
    }
}

/// Name and letters of a call.
fn letters(number: u64) -> (&'static str, &'static str) {
    let own = || OWN.iter().find(|(at, ..)| *at == number).map(|(_, name, letters)| (*name, *letters));
    direct::name(number).or_else(own).unwrap_or(("", "......"))
}

/// The call without its answer. `count`: it has come back, and so many bytes came out of it.
fn describe(space: &AddressSpace, number: u64, arguments: [u64; 6], count: Option<u64>) -> String {
    let (name, letters) = letters(number);
    let mut text = if name.is_empty() { format!("syscall_{number}(") } else { format!("{name}(") };
    for (at, (letter, value)) in letters.bytes().zip(arguments).enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        match letter {
            b's' | b'l' | b'c' => match space.read_string(value, STRING_SHOWN) {
                Ok(string) => quote(&mut text, &string, false),
                Err(_) => address(&mut text, value),
            },
            b'i' => buffer(&mut text, space, value, arguments.get(at + 1).copied().unwrap_or(0)),
            b'o' if count.is_some() => buffer(&mut text, space, value, count.unwrap_or(0)),
            b'p' | b'o' => address(&mut text, value),
            _ if at == 0 && value.cast_signed() == i64::from(libc::AT_FDCWD) => text.push_str("AT_FDCWD"),
            _ => {
                let signed = value.cast_signed();
                // What is an `int` may have anything in its upper half.
                let _ =
                    if signed.unsigned_abs() < 1 << 31 { write!(text, "{signed}") } else { write!(text, "{value:#x}") };
            }
        }
    }
    text.push(')');
    text
}

fn address(text: &mut String, value: u64) {
    let _ = if value == 0 { write!(text, "NULL") } else { write!(text, "{value:#x}") };
}

fn buffer(text: &mut String, space: &AddressSpace, at: u64, count: u64) {
    let shown = usize::try_from(count).unwrap_or(SHOWN).min(SHOWN);
    let bytes: Result<Vec<u8>, i64> = (at..).take(shown).map(|at| space.read::<1>(at).map(|[byte]| byte)).collect();
    match bytes {
        Ok(bytes) => quote(text, &bytes, count > SHOWN as u64),
        Err(_) => address(text, at),
    }
}

fn quote(text: &mut String, bytes: &[u8], is_cut: bool) {
    let _ = write!(text, "\"{}\"{}", bytes.escape_ascii(), if is_cut { "..." } else { "" });
}

macro_rules! error_names {
    ($($name:ident)*) => {
        fn error_name(number: i32) -> &'static str {
            match number {
                $(libc::$name => stringify!($name),)*
                512 => "ERESTARTSYS",
                _ => "E?",
            }
        }
    };
}

error_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV
    ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK
    ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENODATA ETIME EREMOTE ENOLINK EPROTO EBADMSG EOVERFLOW EILSEQ EUSERS ENOTSOCK EDESTADDRREQ
    EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL
    ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN
    EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ENOMEDIUM ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD
    ENOTRECOVERABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_as_strace_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = CallLog::new(&path);
        let space = AddressSpace::new().unwrap();
        let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let at = space.map(0, 4096, 3, anonymous, u64::MAX, 0).unwrap();
        space.write(at, b"/etc/\"x\"\n\0").unwrap();
        let current = libc::AT_FDCWD as u64;
        let told = log.enter(&space, 56, [current, at, 0, 0, 0, 0]);
        log.leave(&space, told, Some(-2));
        let told = log.enter(&space, 63, [3, at, 4096, 0, 0, 0]);
        log.leave(&space, told, Some(4));
        let told = log.enter(&space, 64, [1, at, 100, 0, 0, 0]);
        log.leave(&space, told, Some(100));
        let told = log.enter(&space, 222, [0, 4096, 3, anonymous, u64::MAX, 0]);
        log.leave(&space, told, Some(0x4000_0000));
        let told = log.enter(&space, 505, [1, u64::MAX, at, 0, 0, 0]);
        log.leave(&space, told, Some(-38));
        log.enter(&space, 94, [3, 0, 0, 0, 0, 0]);
        let text = std::fs::read_to_string(&path).unwrap();
        let id = std::process::id();
        let expected = format!(
            r#"{id} openat(AT_FDCWD, "/etc/\"x\"\n", 0, 0) = -1 ENOENT (No such file or directory)
{id} read(3, "/etc", 4096) = 4
{id} write(1, "/etc/\"x\"\n{zeros}"..., 100) = 100
{id} mmap(NULL, 4096, 3, 34, -1, 0) = 0x40000000
{id} syscall_505(1, -1, {at:#x}, 0, 0, 0) = -1 ENOSYS (Function not implemented)
{id} exit_group(3) = ?
"#,
            zeros = "\\x00".repeat(SHOWN - 9),
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_call_is_in_one_table() {
        for (number, name, letters) in OWN {
            assert_eq!(direct::name(*number), None, "{name}");
            assert!(letters.len() <= 6, "{name}");
        }
    }
}
