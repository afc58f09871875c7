//! The guest programs that the command carries, and the folder in which they are during a comparison.
//!
//! They are built from `workloads` by `cargo xtask workloads`, which also tells whether what is committed is what the sources say.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// All workloads as a Linux program for x86-64.
pub const X86_64: &str = "workloads-x86_64";
/// All workloads as a Linux program for riscv64.
pub const RISCV64: &str = "workloads-riscv64";
/// All workloads as a WebAssembly module (WASI preview 1).
pub const WASM: &str = "workloads.wasm";
/// All workloads as a Java archive.
pub const JAR: &str = "workloads.jar";
/// What measures a riscv64 machine from inside, as its kernel (ELF).
pub const BARE: &str = "mechanisms-riscv64";
/// What measures the exits of an x86-64 machine from inside, as its kernel (ELF, entered by PVH).
pub const EXITS: &str = "exits-x86_64";
/// What runs the WebAssembly module on Node.js.
pub const NODE: &str = "run.mjs";

/// The programs, by the names that they get.
const FILES: &[(&str, &[u8])] = &[
    (X86_64, include_bytes!("../prebuilt/workloads-x86_64")),
    (RISCV64, include_bytes!("../prebuilt/workloads-riscv64")),
    (WASM, include_bytes!("../prebuilt/workloads.wasm")),
    (JAR, include_bytes!("../prebuilt/workloads.jar")),
    (BARE, include_bytes!("../prebuilt/mechanisms-riscv64")),
    (EXITS, include_bytes!("../prebuilt/exits-x86_64")),
    (NODE, include_bytes!("../workloads/node/run.mjs")),
];

/// A program's bytes.
#[must_use]
pub fn bytes(name: &str) -> &'static [u8] {
    FILES.iter().find(|(file, _)| *file == name).map_or(&[], |(_, bytes)| bytes)
}

/// A private folder with the programs, and in it one for the files that they make. It goes when this is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder below the host's folder for temporary files.
    ///
    /// # Errors
    /// The host refuses.
    pub fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("isomorph-compare-{}", std::process::id()));
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        // Left behind by a process of the same number that was killed; nobody else's can be removed.
        let _ = fs::remove_dir_all(&path);
        builder.create(&path)?;
        let folder = Self(path);
        builder.create(folder.work())?;
        for (name, bytes) in FILES {
            folder.write(name, bytes)?;
            fs::set_permissions(folder.0.join(name), fs::Permissions::from_mode(0o700))?;
        }
        Ok(folder)
    }

    /// Where a program is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where programs run and make their files.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Puts a file beside the programs.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An initial RAM disk (Linux, "initramfs buffer format", newc) in which `init` is all there is beside the console.
#[must_use]
pub fn initial_ram_disk(init: &[u8]) -> Vec<u8> {
    const DIRECTORY: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    const CHARACTER_DEVICE: u32 = 0o020_600;
    let mut archive = Vec::new();
    entry(&mut archive, "dev", DIRECTORY, (0, 0), &[]);
    entry(&mut archive, "dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    entry(&mut archive, "init", PROGRAM, (0, 0), init);
    entry(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) {
    let length = |bytes: usize| u32::try_from(bytes).expect("what is embedded is small");
    let number = length(archive.len()) + 1;
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    let fields = [number, mode, 0, 0, 1, 0, length(bytes.len()), 0, 0, device.0, device.1, length(name.len()) + 1, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_has_the_programs_and_goes() {
        let folder = Folder::new().unwrap();
        let root = folder.root().to_path_buf();
        for (name, bytes) in FILES {
            assert_eq!(fs::read(folder.path(name)).unwrap(), *bytes);
        }
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!root.exists());
    }

    #[test]
    fn cpio_reads_the_initial_ram_disk() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut child = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&initial_ram_disk(b"#!/bin/sh\n")).unwrap();
        let listed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let modes: Vec<_> = listed.lines().map(|line| &line[..10]).collect();
        assert_eq!(modes, ["drwxr-xr-x", "crw-------", "-rwxr-xr-x"], "{listed}");
        assert!(listed.contains("5,   1") && listed.contains(" 10 "), "{listed}");
    }
}
