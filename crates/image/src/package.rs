//! Reading .deb files, by the host's `dpkg-deb`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::program;

/// The longest control file or maintainer script that is read: 4 MiB. The largest in Debian have a few hundred KiB.
const CONTROL_BYTES_MAX: u64 = 4 << 20;

/// The part of a package that describes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Control {
    /// The fields, as in the package's file `control`.
    pub(crate) fields: String,
    /// The other files (scripts, lists), with their modes.
    pub(crate) files: Vec<(String, u32, Vec<u8>)>,
}

impl Control {
    /// The value of a field that fits on one line.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The content of one of the other files.
    pub(crate) fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(found, ..)| found == name).map(|(.., bytes)| &**bytes)
    }
}

/// A downloaded package.
pub(crate) struct Package<'a> {
    dpkg_deb: &'a Path,
    path: PathBuf,
}

impl<'a> Package<'a> {
    pub(crate) fn new(dpkg_deb: &'a Path, path: PathBuf) -> Self {
        Self { dpkg_deb, path }
    }

    fn broken(&self, cause: impl ToString) -> Error {
        Error::Package {
            package: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            cause: cause.to_string(),
            cache: self.path.parent().unwrap_or(Path::new("")).to_owned(),
        }
    }

    /// Reads the control part.
    pub(crate) fn control(&self) -> Result<Control, Error> {
        let mut control = Control::default();
        self.each("--ctrl-tarfile", |entry| {
            let path = entry.path_bytes().into_owned();
            let name = String::from_utf8_lossy(path.strip_prefix(b"./").unwrap_or(&path)).into_owned();
            if !entry.header().entry_type().is_file() {
                return Ok(());
            }
            let mode = entry.header().mode().map_err(|e| self.broken(e))?;
            let mut bytes = Vec::new();
            entry.take(CONTROL_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| self.broken(e))?;
            if name == "control" {
                control.fields = String::from_utf8_lossy(&bytes).into_owned();
            } else if name.contains('/') {
                return Err(self.broken(format!("its control part has a file {name}")));
            } else {
                control.files.push((name, mode & 0o777, bytes));
            }
            Ok(())
        })?;
        for needed in ["Package", "Version", "Architecture"] {
            if control.field(needed).is_none() {
                return Err(self.broken(format!("its control file has no {needed}")));
            }
        }
        Ok(control)
    }

    /// Calls `each` for every file of the package.
    pub(crate) fn files(
        &self,
        mut each: impl FnMut(&mut tar::Entry<'_, std::process::ChildStdout>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.each("--fsys-tarfile", |entry| each(entry).map_err(|e| self.name_failure(e)))
    }

    /// A failure that the tree found in the package's content, as one that names the package.
    fn name_failure(&self, error: Error) -> Error {
        match error {
            Error::Unbootable { cause } => self.broken(cause),
            other => other,
        }
    }

    fn each(
        &self,
        part: &str,
        mut each: impl FnMut(&mut tar::Entry<'_, std::process::ChildStdout>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut command: Command = program::command(&self.dpkg_deb.to_owned());
        command.arg(part).arg(&self.path);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|cause| program::start_error(&command, cause))?;
        let Some(pipe) = child.stdout.take() else { return Err(self.broken("dpkg-deb has no output")) };
        let mut archive = tar::Archive::new(pipe);
        let mut walk = || {
            for entry in archive.entries().map_err(|e| self.broken(e))? {
                each(&mut entry.map_err(|e| self.broken(e))?)?;
            }
            Ok(())
        };
        let walked = walk();
        // dpkg-deb may still hold padding that follows the archive's end; unread, it would die of a broken pipe.
        let drained = std::io::copy(&mut archive.into_inner(), &mut std::io::sink());
        let status = child.wait().map_err(|cause| program::start_error(&command, cause))?;
        walked?;
        if drained.is_err() || !status.success() {
            return Err(self.broken("dpkg-deb cannot unpack it"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_their_case() {
        let control =
            Control { fields: "Package: a\nMulti-Arch: same\nDescription: x\n y: z\n".into(), files: Vec::new() };
        assert_eq!(control.field("multi-arch"), Some("same"));
        assert_eq!(control.field("y"), None);
        assert_eq!(control.file("postinst"), None);
    }

    #[test]
    fn what_is_not_a_package_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x_1_all.deb");
        std::fs::write(&path, "not a package").unwrap();
        let dpkg_deb = program::find("dpkg-deb", "dpkg").unwrap();
        let text = Package::new(&dpkg_deb, path).control().unwrap_err().to_string();
        assert!(text.contains("x_1_all.deb") && text.contains("pull again"), "{text}");
    }
}
