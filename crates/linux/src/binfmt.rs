//! `binfmt_misc`: the kernel starts riscv64 programs with this command by itself.
//!
//! The kernel recognises a program by bytes at its beginning, and calls the registered command with the program's path, the name it was called by
//! (flag `P`), and its arguments. Flag `F` has it open the command at once, so that it is found from inside containers and `chroot`s.
//!
//! Linux: `Documentation/admin-guide/binfmt-misc.rst`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::start::Program;

const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";
const NAME: &str = "isomorph-riscv64";
/// `AT_FLAGS_PRESERVE_ARGV0`: the kernel passes the name that a program was called by.
const PRESERVE_ARGV0: u64 = 1;

/// Why the kernel was not told.
#[derive(Debug, thiserror::Error)]
pub enum BinfmtError {
    /// The kernel's file system for it is not there.
    #[error("binfmt_misc is not mounted; as root: mount -t binfmt_misc binfmt_misc {DIRECTORY}")]
    NotMounted,
    /// Not root.
    #[error("only root may change binfmt_misc; run: sudo isomorph register{}", if *unregister { " --unregister" } else { "" })]
    NotPermitted {
        /// What was wanted.
        unregister: bool,
    },
    /// Nothing to take back.
    #[error("{NAME} is not registered; nothing to take back")]
    NotRegistered,
    /// The path of this command cannot be written into a registration.
    #[error("the path {} is too long, or has a ':' in it; install the command elsewhere", .0.display())]
    Path(PathBuf),
    /// Anything else.
    #[error("{path}: {cause}")]
    Host {
        /// What was written.
        path: String,
        /// What the host said.
        cause: io::Error,
    },
}

/// What the kernel is told: name, kind, offset, magic, mask, command, flags.
///
/// # Errors
/// [`BinfmtError::Path`].
pub fn registration(command: &Path) -> Result<String, BinfmtError> {
    // 64 bits, little-endian, version 1, System V or GNU; ET_EXEC or ET_DYN; EM_RISCV.
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xf3\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let text = command.to_str().filter(|text| text.len() < 128 && !text.contains([':', '\n']));
    let text = text.ok_or_else(|| BinfmtError::Path(command.into()))?;
    Ok(format!(":{NAME}:M::{magic}:{mask}:{text}:PF"))
}

fn write(file: &str, text: &str, unregister: bool) -> Result<(), BinfmtError> {
    let path = format!("{DIRECTORY}/{file}");
    fs::write(&path, text).map_err(|cause| match cause.kind() {
        io::ErrorKind::PermissionDenied => BinfmtError::NotPermitted { unregister },
        io::ErrorKind::NotFound if unregister => BinfmtError::NotRegistered,
        _ => BinfmtError::Host { path, cause },
    })
}

/// Has the kernel start riscv64 programs with `command`, in place of an older registration of ours.
///
/// # Errors
/// See [`BinfmtError`].
pub fn register(command: &Path) -> Result<(), BinfmtError> {
    let text = registration(command)?;
    if !Path::new(DIRECTORY).join("register").exists() {
        return Err(BinfmtError::NotMounted);
    }
    match unregister() {
        Ok(()) | Err(BinfmtError::NotRegistered) => {}
        Err(BinfmtError::NotPermitted { .. }) => return Err(BinfmtError::NotPermitted { unregister: false }),
        Err(error) => return Err(error),
    }
    write("register", &text, false)
}

/// Takes the registration back.
///
/// # Errors
/// See [`BinfmtError`].
pub fn unregister() -> Result<(), BinfmtError> {
    if !Path::new(DIRECTORY).join("register").exists() {
        return Err(BinfmtError::NotMounted);
    }
    if !Path::new(DIRECTORY).join(NAME).exists() {
        return Err(BinfmtError::NotRegistered);
    }
    write(NAME, "-1", true)
}

/// The program that the kernel has called this command for, if it has.
#[must_use]
pub fn from_kernel(arguments: &[OsString]) -> Option<Program> {
    // SAFETY: reads a word of the auxiliary vector.
    let flags = unsafe { libc::getauxval(libc::AT_FLAGS) };
    let [_, path, arguments @ ..] = arguments else { return None };
    (flags & PRESERVE_ARGV0 != 0 && !arguments.is_empty()).then(|| Program {
        options: riscv::translate::Options::default(),
        call_log: None,
        machine: None,
        path: path.into(),
        arguments: arguments.to_vec(),
        sysroot: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_has_seven_fields() {
        let text = registration(Path::new("/usr/bin/isomorph")).unwrap();
        assert_eq!(text.split(':').count(), 8);
        assert!(text.ends_with(":/usr/bin/isomorph:PF"), "{text}");
        assert!(text.len() < 256, "the kernel takes no more");
        let fields: Vec<_> = text.split(':').collect();
        // Bytes are `\x..` or themselves; magic and mask have the same number.
        let bytes = |field: &str| field.len() - 3 * field.matches(r"\x").count();
        assert_eq!((bytes(fields[4]), bytes(fields[5])), (20, 20));
        assert!(matches!(registration(Path::new("/a:b")), Err(BinfmtError::Path(_))));
    }

    #[test]
    fn an_ordinary_start_is_none_of_the_kernels() {
        assert_eq!(from_kernel(&["isomorph".into(), "run".into(), "x".into()]), None);
    }
}
