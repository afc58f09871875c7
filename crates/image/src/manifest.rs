//! What an image directory says about itself.
//!
//! `manifest.json` is written last, so a directory without it is no image. It is read strictly: an unknown field, another format
//! version, or a file whose size is not the one recorded makes the image corrupt, and the error says how to remove it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The version of the manifest's format that this program reads and writes.
const FORMAT: u32 = 1;
const FILE: &str = "manifest.json";

/// A package of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstalledPackage {
    /// The package's name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
}

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format's version.
    pub format: u32,
    /// The image's name.
    pub name: String,
    /// The kind of machine that runs it: `riscv64` or `amd64`.
    pub kind: String,
    /// What it holds, for people.
    pub description: String,
    /// The kernel's version.
    pub kernel_version: String,
    /// The kernel command line to boot it with.
    pub append: String,
    /// Who can log in at the console.
    pub user: String,
    /// With which password.
    pub password: String,
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub created_s: u64,
    /// The size of the file `kernel` in bytes.
    pub kernel_bytes: u64,
    /// The size of the file `initrd` in bytes.
    pub initrd_bytes: u64,
    /// The size of the disk as the guest sees it, in bytes; the file `disk.raw` is sparse.
    pub disk_bytes: u64,
    /// What is installed.
    pub packages: Vec<InstalledPackage>,
}

/// A complete image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    directory: PathBuf,
    manifest: Manifest,
}

impl Image {
    /// Reads the image called `name` in `directory`.
    pub(crate) fn open(name: &str, directory: PathBuf) -> Result<Self, Error> {
        let corrupt = |cause: String| Error::Corrupt { name: name.into(), cause };
        let path = directory.join(FILE);
        let bytes = fs::read(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => corrupt(format!("it has no {FILE}")),
            _ => Error::host("read", &path)(cause),
        })?;
        // The version is looked at alone first: a newer format may have fields that this program does not know.
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| corrupt(format!("{FILE}: {e}")))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(found) if found == u64::from(FORMAT) => {}
            found => {
                let found = found.map_or("nothing".into(), |found| found.to_string());
                return Err(corrupt(format!("{FILE} has format {found}, this program reads {FORMAT}")));
            }
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(|e| corrupt(format!("{FILE}: {e}")))?;
        if manifest.name != name {
            return Err(corrupt(format!("it calls itself {:?}", manifest.name)));
        }
        let image = Self { directory, manifest };
        let manifest = &image.manifest;
        for (path, recorded) in [
            (image.kernel(), manifest.kernel_bytes),
            (image.initrd(), manifest.initrd_bytes),
            (image.disk(), manifest.disk_bytes),
        ] {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let found = fs::metadata(&path).map_err(|e| corrupt(format!("{file}: {e}")))?.len();
            if found != recorded {
                return Err(corrupt(format!("{file} has {found} bytes, not {recorded}")));
            }
        }
        Ok(image)
    }

    /// Writes `manifest` into `directory`, whose other files are complete.
    pub(crate) fn write(directory: &Path, manifest: &Manifest) -> Result<(), Error> {
        let path = directory.join(FILE);
        let mut text =
            serde_json::to_vec_pretty(manifest).map_err(io::Error::from).map_err(Error::host("write", &path))?;
        text.push(b'\n');
        fs::write(&path, text).map_err(Error::host("write", &path))
    }

    /// The image's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The kernel: a flat RISC-V `Image`, uncompressed.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("kernel")
    }

    /// The initramfs: an uncompressed cpio archive.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd")
    }

    /// The disk: raw and sparse. A machine writes to a copy of it, never to it.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk.raw")
    }

    /// The kernel command line.
    #[must_use]
    pub fn append(&self) -> &str {
        &self.manifest.append
    }

    /// Everything else that the image says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The space that the image takes on the host, in bytes.
    ///
    /// # Errors
    /// The host cannot look at the files.
    pub fn occupied_bytes(&self) -> Result<u64, Error> {
        use std::os::unix::fs::MetadataExt;
        let mut sum = 0;
        for path in [self.kernel(), self.initrd(), self.disk()] {
            sum += fs::metadata(&path).map_err(Error::host("look at", &path))?.blocks() * 512;
        }
        Ok(sum)
    }
}
