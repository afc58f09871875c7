//! The other implementations: programs of Debian packages, which must be installed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A program that is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The disassembler of binutils.
    Objdump,
    /// Runs Linux programs.
    QemuUser,
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
            Self::QemuUser => ("qemu-riscv64", "qemu-user"),
            Self::QemuSystem => ("qemu-system-riscv64", "qemu-system-misc"),
        }
    }

    fn find(self) -> Result<PathBuf, PeerError> {
        let (program, package) = self.names();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
        found.ok_or(PeerError::Missing { program, package })
    }

    /// Runs it on a file that holds `bytes`, whose name comes after `arguments`; answers what it wrote. It is killed after `limit`.
    ///
    /// # Errors
    /// See [`PeerError`]; a status other than zero is a failure.
    pub fn run(self, arguments: &[&str], bytes: &[u8], limit: Duration) -> Result<Vec<u8>, PeerError> {
        let (program, _) = self.names();
        let path = self.find()?;
        let host = |cause| PeerError::Host { program, cause };
        let folder = tempfile::tempdir().map_err(host)?;
        let file = folder.path().join("input");
        std::fs::write(&file, bytes).map_err(host)?;
        let mut command = Command::new("timeout");
        command.arg("--signal=KILL").arg(limit.as_secs().to_string()).arg(path).args(arguments).arg(&file);
        let output = command.stdin(Stdio::null()).output().map_err(host)?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(PeerError::Failed { program, status: output.status, message });
        }
        Ok(output.stdout)
    }
}
