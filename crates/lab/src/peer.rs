//! The other implementations: programs of Debian packages, which must be installed.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A program that is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The disassembler of binutils.
    Objdump,
    /// Runs whole machines.
    QemuSystem,
}

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It is not on this host.
    #[error("{program} is needed for this comparison; install the package {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The host could not run it.
    #[error("cannot run {program}: {cause}")]
    Host {
        /// Its name.
        program: &'static str,
        /// What the host said.
        cause: std::io::Error,
    },
    /// It ran for too long or did not like what it was given.
    #[error("{program} failed ({status}): {message}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        message: String,
    },
}

impl Peer {
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Objdump => ("riscv64-linux-gnu-objdump", "binutils-riscv64-linux-gnu"),
            Self::QemuSystem => ("qemu-system-riscv64", "qemu-system-misc"),
        }
    }

    fn find(self) -> Result<PathBuf, PeerError> {
        let (program, package) = self.names();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
        found.ok_or(PeerError::Missing { program, package })
    }

    /// Runs it with `arguments` and answers what it wrote. It is killed after `limit`.
    ///
    /// # Errors
    /// See [`PeerError`]; a status other than zero is a failure.
    pub fn run<S: AsRef<OsStr>>(self, arguments: &[S], limit: Duration) -> Result<Vec<u8>, PeerError> {
        let (program, _) = self.names();
        let path = self.find()?;
        let mut command = Command::new("timeout");
        command.arg("--signal=KILL").arg(limit.as_secs().to_string()).arg(path).args(arguments);
        let output = command.stdin(Stdio::null()).output().map_err(|cause| PeerError::Host { program, cause })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(PeerError::Failed { program, status: output.status, message });
        }
        Ok(output.stdout)
    }

    /// The error for a file that the host would not give to it.
    pub(crate) fn host(self) -> impl Fn(std::io::Error) -> PeerError {
        move |cause| PeerError::Host { program: self.names().0, cause }
    }
}
