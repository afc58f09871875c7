//! The one way from Java code to the host: files, sockets, processes, the environment. What is asked for is checked against the permissions of the
//! machine first; natives do no host calls of their own.
//!
//! A program that was started by `java` may do what its user may; one that is run in the sandbox may do what the flags name. A refusal tells the flag.
//! The worker process has the same limits from Landlock and seccomp, so this layer is for the message, and they are for what this layer overlooks.
//!
//! Host calls may block. They hold no reference into the heap: bytes go through a buffer, or are outside of the heap already.

pub mod classic;
pub mod environment;
pub mod files;
pub mod libraries;
pub mod locale;
pub mod network;
pub mod process;
pub mod signals;
pub mod system;

use std::ffi::{CStr, CString, OsString};
use std::fmt;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::{OnceLock, RwLock, RwLockReadGuard};

use machine::permissions::{Endpoint, Permissions};

/// What a program may do, and what it has without asking.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What it may do.
    pub permissions: Permissions,
    /// What it reads without permission: the class library and itself.
    pub own: Vec<Own>,
    /// Variables of its environment that are not of the machine's.
    pub variables: Vec<(OsString, OsString)>,
}

/// Files that a program reads without permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// A file, or a folder with all below.
    All(PathBuf),
    /// Of a folder with all below, the class files.
    Classes(PathBuf),
}

impl Own {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Path {
        match self {
            Own::All(place) | Own::Classes(place) => place,
        }
    }

    fn covers(&self, place: &Path) -> bool {
        match self {
            Own::All(own) => place.starts_with(own),
            Own::Classes(folder) => {
                place.starts_with(folder) && (place.extension().is_some_and(|end| end == "class") || place.is_dir())
            }
        }
    }
}

impl Policy {
    /// That of a program that is trusted as its user is.
    #[must_use]
    pub fn trusting() -> Self {
        Self { permissions: Permissions::all(), ..Self::default() }
    }

    /// The same with the places that its paths mean now, whatever becomes of links.
    fn settled(mut self) -> Self {
        let settle = |paths: &mut Vec<PathBuf>| paths.iter_mut().for_each(|path| *path = real_place(path));
        settle(&mut self.permissions.read);
        settle(&mut self.permissions.write);
        for own in &mut self.own {
            let (Own::All(place) | Own::Classes(place)) = own;
            *place = real_place(place);
        }
        self
    }
}

static POLICY: OnceLock<RwLock<Policy>> = OnceLock::new();

/// Sets what programs may do. Without it, nothing.
pub fn set_policy(policy: Policy) {
    let cell = POLICY.get_or_init(RwLock::default);
    *cell.write().unwrap_or_else(std::sync::PoisonError::into_inner) = policy.settled();
}

/// What programs may do and have.
pub fn policy() -> RwLockReadGuard<'static, Policy> {
    POLICY.get_or_init(RwLock::default).read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Lets the program reach the addresses that a host of its permissions was found at: sockets know no names.
pub(crate) fn allow_addresses(name: &str, addresses: &[IpAddr]) {
    let found = |endpoint: &&Endpoint| endpoint.host.as_deref().is_some_and(|host| host.eq_ignore_ascii_case(name));
    let ports: Vec<_> = policy().permissions.network.iter().filter(found).map(|endpoint| endpoint.port).collect();
    if ports.is_empty() {
        return;
    }
    let mut policy = POLICY.get_or_init(RwLock::default).write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let network = &mut policy.permissions.network;
    for address in addresses {
        for &port in &ports {
            let endpoint = Endpoint { host: Some(address.to_string()), port };
            if !network.contains(&endpoint) {
                network.push(endpoint);
            }
        }
    }
}

/// Whether the program may bring code of the host's processor into the machine, where no check would see what it does.
///
/// # Errors
/// If it is not trusted.
pub fn allow_native_code(library: &str) -> Result<()> {
    allow_to_trusted(|| format!("loading the native library {library}"))
}

/// Whether the program may change classes that are there, the library's too, which nobody verifies.
///
/// # Errors
/// If it is not trusted.
pub fn allow_agents() -> Result<()> {
    allow_to_trusted(|| "an agent, which changes classes,".into())
}

fn allow_to_trusted(what: impl FnOnce() -> String) -> Result<()> {
    if policy().permissions == Permissions::all() {
        return Ok(());
    }
    Err(Failure::Refused(Refusal { what: what(), flag: "--allow-all".into() }))
}

/// Why the host did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The host's own reason, a number of `errno`.
    Host(i32),
    /// The program may not.
    Refused(Refusal),
}

/// The result of a service.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// What the last host call of this thread failed with.
    pub(crate) fn last() -> Self {
        Self::Host(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// The number of `errno` that says it best.
    pub fn number(&self) -> i32 {
        match self {
            Failure::Host(number) => *number,
            Failure::Refused(_) => libc::EACCES,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Host(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Host(number) => f.write_str(&error_text(*number)),
            Failure::Refused(refusal) => refusal.fmt(f),
        }
    }
}

/// What a program asked for and may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it wanted, as "reading /etc/passwd".
    pub what: String,
    /// The flag that allows it.
    pub flag: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not allowed; start with {}", self.what, self.flag)
    }
}

/// What the C library says of an error number.
pub fn error_text(number: i32) -> String {
    let mut text = [0 as libc::c_char; 128];
    // SAFETY: the buffer is as long as said, and the call ends what it writes with NUL.
    let text = unsafe {
        libc::strerror_r(number, text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr())
    };
    text.to_string_lossy().into_owned()
}

/// The result of a host call that returns -1 if it fails.
pub(crate) fn check(result: impl Into<i64>) -> Result<i64> {
    match result.into() {
        -1 => Err(Failure::last()),
        value => Ok(value),
    }
}

/// The same of a call that gives a descriptor or another small number.
pub(crate) fn check_int(result: i32) -> Result<i32> {
    check(result)?;
    Ok(result)
}

/// The same of a call that only succeeds.
pub(crate) fn check_done(result: i32) -> Result<()> {
    check(result).map(drop)
}

/// A path as the host wants it.
pub(crate) fn c_path(path: &[u8]) -> Result<CString> {
    CString::new(path).map_err(|_| Failure::Host(libc::ENOENT))
}

/// The place that a path means in the end: without links, `.` and `..`. Of what does not exist, the part that does is looked up.
pub(crate) fn real_place(path: &Path) -> PathBuf {
    let mut place = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    place.push(path);
    let mut behind = Vec::new();
    loop {
        if let Ok(real) = place.canonicalize() {
            return behind.iter().rev().fold(real, |mut real, part: &std::ffi::OsString| {
                if part == ".." {
                    real.pop();
                } else {
                    real.push(part);
                }
                real
            });
        }
        // A link to what does not exist yet leads to where it would be.
        if let Ok(target) = std::fs::read_link(&place)
            && behind.len() < 40
        {
            let folder = place.parent().map(Path::to_owned).unwrap_or_default();
            place = folder.join(target);
            behind.push(std::ffi::OsString::from("."));
            continue;
        }
        match place.components().next_back() {
            Some(Component::Normal(last)) => behind.push(last.to_owned()),
            Some(Component::ParentDir) => behind.push("..".into()),
            Some(Component::CurDir) => {}
            _ => return place,
        }
        place.pop();
    }
}

/// Permissions are of the process: tests that set them take turns.
#[cfg(test)]
pub(crate) fn test_permissions(permissions: Permissions) -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    set_policy(Policy { permissions, ..Policy::default() });
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_where_links_lead() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("inside")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("inside/out")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", root.join("inside/dangling")).unwrap();
        assert_eq!(real_place(&root.join("inside/new/file")), root.join("inside/new/file"));
        assert_eq!(real_place(&root.join("inside/out/passwd")), Path::new("/etc/passwd"));
        assert_eq!(real_place(&root.join("inside/../../x")), root.parent().unwrap().join("x"));
        assert!(real_place(&root.join("inside/dangling")).starts_with("/nowhere"));
    }
}
