//! Programs of the host that Java code starts.

use std::ffi::OsStr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Failure, Refusal, Result, check, environment, policy};

/// What to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// Name or path of the program.
    pub name: &'a [u8],
    /// Its arguments, without the name.
    pub arguments: Vec<&'a [u8]>,
    /// Its environment as `NAME=VALUE`; `None`: what the program sees of the machine's.
    pub environment: Option<Vec<&'a [u8]>>,
    /// Where it starts; `None`: where the machine is.
    pub folder: Option<&'a [u8]>,
    /// What standard input, output and errors are: a descriptor of the program, or -1 for a new pipe.
    pub descriptors: [i32; 3],
    /// Errors go where output goes.
    pub errors_to_output: bool,
}

/// A program that was started.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub id: i32,
    /// Our ends of the pipes to it; -1 where there is none.
    pub pipes: [i32; 3],
}

/// Starts a program. Whoever started it must wait for its end by [`wait`].
///
/// # Errors
/// If the host or the permissions refuse.
pub fn start(program: &Program<'_>) -> Result<Started> {
    let name = OsStr::from_bytes(program.name);
    if !policy().permissions.run {
        let what = format!("starting {}", name.to_string_lossy());
        return Err(Failure::Refused(Refusal { what, flag: "--allow-run".into() }));
    }
    let place = find(program)?;
    match spawn(program, &place, None) {
        // No program of the host's kind: a text for its shell.
        Err(Failure::Host(libc::ENOEXEC)) => spawn(program, Path::new("/bin/sh"), Some(&place)),
        result => result,
    }
}

/// The program that a name means: of one without a folder the first that is found in the machine's own path, whatever that of the program will be.
fn find(program: &Program<'_>) -> Result<PathBuf> {
    let name = OsStr::from_bytes(program.name);
    if program.name.contains(&b'/') || program.name.is_empty() {
        return Ok(name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| ":/bin:/usr/bin".into());
    let start = program.folder.map_or_else(|| Path::new("."), |folder| Path::new(OsStr::from_bytes(folder)));
    let mut failure = Failure::Host(libc::ENOENT);
    for folder in std::env::split_paths(&path) {
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        // As the program will see it, which starts in its folder.
        let seen = folder.join(name);
        let place = start.join(&seen);
        match std::fs::metadata(&place) {
            // Whether it may be looked at is not asked: starting it is allowed, and the kernel says whether that can be.
            Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => return Ok(seen),
            Ok(_) => failure = Failure::Host(libc::EACCES),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => failure = Failure::Host(libc::EACCES),
            Err(_) => {}
        }
    }
    Err(failure)
}

/// Starts what is at `place`; `script`: with that as its first argument.
fn spawn(program: &Program<'_>, place: &Path, script: Option<&Path>) -> Result<Started> {
    let mut command = Command::new(place);
    match script {
        Some(script) => command.arg(script),
        None => command.arg0(OsStr::from_bytes(program.name)),
    };
    command.args(program.arguments.iter().map(|argument| OsStr::from_bytes(argument)));
    if let Some(folder) = program.folder {
        command.current_dir(OsStr::from_bytes(folder));
    }
    command.env_clear();
    if program.environment.is_none() {
        command.envs(environment::variables());
    }
    if let Some(environment) = &program.environment {
        for variable in environment {
            // A name may begin with `=`.
            let Some(end) = variable.iter().skip(1).position(|&byte| byte == b'=') else { continue };
            let (name, value) = variable.split_at(end + 1);
            command.env(OsStr::from_bytes(name), OsStr::from_bytes(&value[1..]));
        }
    }
    let stdio = |descriptor: i32| -> Result<Stdio> {
        if descriptor < 0 {
            return Ok(Stdio::piped());
        }
        // SAFETY: numbers; the copy is new, and owned from here on.
        let copy =
            unsafe { OwnedFd::from_raw_fd(super::check_int(libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3))?) };
        Ok(copy.into())
    };
    command.stdin(stdio(program.descriptors[0])?);
    let mut joined = None;
    if program.errors_to_output {
        // One pipe for both.
        let (ours, theirs) = match program.descriptors[1] {
            -1 => {
                let (ours, theirs) = std::io::pipe()?;
                (Some(OwnedFd::from(ours)), OwnedFd::from(theirs))
            }
            descriptor => {
                // SAFETY: as above.
                let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
                // SAFETY: as above.
                (None, unsafe { OwnedFd::from_raw_fd(super::check_int(copy)?) })
            }
        };
        command.stderr(Stdio::from(theirs.try_clone()?)).stdout(theirs);
        joined = ours;
    } else {
        command.stdout(stdio(program.descriptors[1])?).stderr(stdio(program.descriptors[2])?);
    }
    let mut child = command.spawn()?;
    // What began with the command holds the child's ends of the pipes.
    drop(command);
    let give = |descriptor: Option<OwnedFd>| descriptor.map_or(-1, std::os::fd::IntoRawFd::into_raw_fd);
    let output = child.stdout.take().map(OwnedFd::from).or(joined);
    let pipes =
        [give(child.stdin.take().map(OwnedFd::from)), give(output), give(child.stderr.take().map(OwnedFd::from))];
    let id = i32::try_from(child.id()).map_err(|_| Failure::Host(libc::EAGAIN))?;
    Ok(Started { id, pipes })
}

/// Lets the host's shell run a command, and waits for its end.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn shell(command: &str) -> Result<()> {
    if !policy().permissions.run {
        let what = format!("running {command}");
        return Err(Failure::Refused(Refusal { what, flag: "--allow-run".into() }));
    }
    Command::new("/bin/sh").arg("-c").arg(command).status()?;
    Ok(())
}

/// Waits for the end of a program that this machine started. Returns its exit status; 128 and the signal's number if that ended it. `reap`: nobody
/// waits again.
///
/// # Errors
/// If it is no child.
pub fn wait(id: i32, reap: bool) -> Result<i32> {
    let mut information = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | if reap { 0 } else { libc::WNOWAIT };
    let id = libc::id_t::try_from(id).map_err(|_| Failure::Host(libc::ECHILD))?;
    super::files::again(|| {
        // SAFETY: there is room for the result.
        check(unsafe { libc::waitid(libc::P_PID, id, information.as_mut_ptr(), flags) })
    })?;
    // SAFETY: the call succeeded, and zeroed memory is a valid value.
    let information = unsafe { information.assume_init() };
    // SAFETY: what waitid fills in has a status.
    let status = unsafe { information.si_status() };
    Ok(if information.si_code == libc::CLD_EXITED { status } else { 128 + status })
}

/// Ends a process: politely, or at once.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn end(id: i32, at_once: bool) -> Result<()> {
    if !policy().permissions.run {
        let what = format!("ending process {id}");
        return Err(Failure::Refused(Refusal { what, flag: "--allow-run".into() }));
    }
    let signal = if at_once { libc::SIGKILL } else { libc::SIGTERM };
    // SAFETY: numbers.
    super::check_done(unsafe { libc::kill(id, signal) })
}

/// Bytes of the host's stack that this thread has left.
#[must_use]
pub fn stack_left() -> usize {
    let mark = 0_u8;
    // SAFETY: all zeroes are valid attributes, which the call fills in and `destroy` frees.
    let start = unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return 256 << 10;
        }
        let (mut start, mut size) = (std::ptr::null_mut(), 0);
        libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attributes);
        start.addr()
    };
    std::ptr::from_ref(&mark).addr().saturating_sub(start)
}

/// Number of the current thread.
#[must_use]
pub fn thread_id() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Nanoseconds that a thread of this process has run; 0 if it is gone.
#[must_use]
pub fn thread_cpu_ns(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The time of day as `2025-01-31 23:59:00`.
#[must_use]
pub fn local_time() -> String {
    let seconds = libc::time_t::try_from(machine::clock::wall_time_ns() / 1_000_000_000).unwrap_or(0);
    // SAFETY: all zeroes are a valid value, which the call writes.
    let time = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        libc::localtime_r(&raw const seconds, &raw mut time);
        time
    };
    let (year, month) = (time.tm_year + 1900, time.tm_mon + 1);
    format!("{year}-{month:02}-{:02} {:02}:{:02}:{:02}", time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec)
}

#[cfg(test)]
mod tests {
    use machine::permissions::Permissions;

    use super::*;
    use crate::services::{files, test_permissions};

    #[test]
    fn pipes_environment_and_status() {
        let _turn = test_permissions(Permissions::all());
        let started = start(&Program {
            name: b"sh",
            arguments: vec![b"-c", b"read x; echo $x $Y; echo bad >&2; exit 7"],
            environment: Some(vec![b"PATH=/usr/bin:/bin", b"Y=why"]),
            folder: Some(b"/"),
            descriptors: [-1; 3],
            errors_to_output: true,
        })
        .unwrap();
        assert_eq!(started.pipes[2], -1);
        assert_eq!(files::write(started.pipes[0], b"in\n"), Ok(3));
        files::close(started.pipes[0]).unwrap();
        let mut output = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = files::read(started.pipes[1], &mut buffer) {
            output.extend_from_slice(&buffer[..count]);
        }
        files::close(started.pipes[1]).unwrap();
        assert_eq!(String::from_utf8_lossy(&output), "in why\nbad\n");
        assert_eq!(wait(started.id, false), Ok(7));
        assert_eq!(wait(started.id, true), Ok(7));
        assert_eq!(wait(started.id, true), Err(Failure::Host(libc::ECHILD)));
    }
}
