//! What can go wrong with images, said in one line that tells what to do next.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be built, found, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has characters that no image has.
    #[error("{name:?} is not an image name: use lower-case letters, digits, '-', '_' and '.'")]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// No recipe builds an image of this name.
    #[error("there is no image called {name} to pull; there is: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that can be pulled.
        known: &'static str,
    },
    /// The store has no image of this name.
    #[error("image {name} is not here; get it with: isomorph image pull {name}")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// The image's manifest cannot be trusted, or a file that it names is missing or has another size.
    #[error("image {name} is damaged ({cause}); remove it with: isomorph image rm {name}")]
    Corrupt {
        /// The image's name.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// Neither `ISOMORPH_HOME`, `XDG_DATA_HOME` nor `HOME` says where images live.
    #[error("no home for images: set ISOMORPH_HOME or HOME to a directory")]
    NoHome,
    /// A program of the host is missing.
    #[error("building an image needs the program {program}: install the package {package}")]
    MissingProgram {
        /// The program's name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The host's apt configuration names no Debian archive.
    #[error(
        "no Debian archive in this host's apt configuration ({searched}): add a deb line with Debian's main component there"
    )]
    NoMirror {
        /// Where it was looked for.
        searched: String,
    },
    /// The keys that Debian signs with are missing.
    #[error("Debian's signing keys are not at {path}: install the package debian-archive-keyring")]
    NoKeyring {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// A program of the host failed.
    #[error("{program} failed: {tail}")]
    Program {
        /// The program's name.
        program: String,
        /// The last it said, on one line.
        tail: String,
    },
    /// A package is not what a package must be.
    #[error("package {package} cannot be used: {cause}; remove it from {cache} and pull again")]
    Package {
        /// The package's file name.
        package: String,
        /// What is wrong.
        cause: String,
        /// Where downloaded packages are kept.
        cache: PathBuf,
    },
    /// A package has not what it is fetched for.
    #[error("the packages do not make {what}: they have no {lacks}; the mirror may be of another release")]
    Incomplete {
        /// What was to be made.
        what: &'static str,
        /// What is missing.
        lacks: &'static str,
    },
    /// The packages do not make a bootable machine.
    #[error("the packages do not make a bootable image: {cause}")]
    Unbootable {
        /// What is missing or wrong.
        cause: String,
    },
    /// The guest did not finish configuring its packages.
    #[error("the guest did not finish its configuration ({cause}); its console ended: {tail}")]
    Configure {
        /// What the monitor saw.
        cause: String,
        /// The console's last lines, joined by ` | `.
        tail: String,
    },
    /// The machine that configures the packages could not be run.
    #[error("cannot run the machine that configures the image: {0}")]
    Configurator(Box<dyn std::error::Error + Send + Sync>),
    /// The host's disk is full, or will be.
    #[error("not enough room in {path}: {needed}; free some, or set ISOMORPH_HOME to a larger disk")]
    DiskFull {
        /// The directory whose file system is full.
        path: PathBuf,
        /// What is needed.
        needed: String,
    },
    /// The host failed.
    #[error("cannot {action}: {cause}")]
    Host {
        /// What was tried, with the path.
        action: String,
        /// What the host said.
        cause: io::Error,
    },
}

impl Error {
    /// A package's entry for `path` that is damaged.
    pub(crate) fn unreadable(path: &[u8], cause: io::Error) -> Self {
        Self::Unbootable { cause: format!("{}: {cause}", String::from_utf8_lossy(path)) }
    }

    /// A failure of the host while doing `verb` to `path`; for `map_err`.
    pub(crate) fn host(verb: impl Display, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| {
            if cause.kind() == io::ErrorKind::StorageFull {
                return Self::DiskFull { path: path.to_owned(), needed: cause.to_string() };
            }
            Self::Host { action: format!("{verb} {}", path.display()), cause }
        }
    }
}

/// The last lines of a program's output, joined by ` | `, without control characters.
pub(crate) fn tail(output: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(output);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned();
    let kept: Vec<_> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
    if kept.is_empty() {
        return "it said nothing".into();
    }
    kept[kept.len().saturating_sub(lines)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_one_clean_line() {
        assert_eq!(tail(b"one\r\ntwo\x1b[0m\n\nthree\n", 2), "two[0m | three");
        assert_eq!(tail(b"\n", 3), "it said nothing");
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = Error::host("write", Path::new("/x"))(io::ErrorKind::StorageFull.into());
        assert!(matches!(full, Error::DiskFull { .. }), "{full}");
        let other = Error::host("write", Path::new("/x"))(io::ErrorKind::PermissionDenied.into());
        assert_eq!(other.to_string(), "cannot write /x: permission denied");
    }
}
