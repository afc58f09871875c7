//! How a program is run.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use machine::permissions::Permissions;

/// How a program is run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Its arguments; the first is its own name.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// What it may reach.
    pub permissions: Permissions,
    /// Directories that it has under other names than theirs.
    pub volumes: Vec<Volume>,
    /// The most memory that it may have, in bytes.
    pub memory_bytes: u64,
    /// The most processor time that it may use.
    pub cpu_time: Option<Duration>,
    /// The exported function to call instead of the program's start; arguments after the first are its own, and its results are printed.
    pub invoke: Option<String>,
    /// Where to leave a snapshot once the call has returned; the program must have been loaded for that.
    pub snapshot: Option<PathBuf>,
}

/// A directory of the host under a name of the guest's: `HOST:GUEST`, or `HOST:GUEST:ro` for one that it may only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The host's directory.
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
    /// Whether the guest may change what is in it.
    pub is_writable: bool,
}

/// Text that is no [`Volume`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no volume: use HOST:GUEST or HOST:GUEST:ro")]
pub struct BadVolume(String);

impl FromStr for Volume {
    type Err = BadVolume;

    fn from_str(text: &str) -> Result<Self, BadVolume> {
        let (rest, is_writable) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, false),
            None => (text.strip_suffix(":rw").unwrap_or(text), true),
        };
        match rest.rsplit_once(':') {
            Some((host, guest)) if !host.is_empty() && !guest.is_empty() => {
                Ok(Self { host: host.into(), guest: guest.to_owned(), is_writable })
            }
            _ => Err(BadVolume(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read() {
        let volume =
            |host: &str, guest: &str, is_writable| Ok(Volume { host: host.into(), guest: guest.into(), is_writable });
        assert_eq!("/a/b:/".parse(), volume("/a/b", "/", true));
        assert_eq!(".:/work:ro".parse(), volume(".", "/work", false));
        assert_eq!("a:b:c:rw".parse(), volume("a:b", "c", true));
        for text in ["", "a", "a:", ":b", "a:ro"] {
            assert!(text.parse::<Volume>().is_err(), "{text}");
        }
    }
}
