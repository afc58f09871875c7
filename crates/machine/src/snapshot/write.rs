//! Writing a snapshot.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Header, Identity, Memory, PAGE_BYTES, PAGE_LENGTH, Section, SnapshotError, checksum_page, is_snapshot};
use crate::sys::file::exchange;

/// Writes a snapshot. Dropped before [`Self::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    target: PathBuf,
    temporary: PathBuf,
    state: File,
    memory: File,
    header: Header,
    state_bytes: u64,
    memory_bytes: u64,
}

fn host<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |cause| SnapshotError::Host { verb, path: path.to_owned(), cause }
}

impl Writer {
    /// Begins a snapshot of a machine of `kind` in `directory`, which is not there yet, or is a snapshot that will be replaced.
    ///
    /// # Errors
    /// Something else is there, or the host cannot write.
    pub fn create(
        directory: &Path,
        kind: &str,
        machine: Identity,
        parent: Option<Identity>,
    ) -> Result<Self, SnapshotError> {
        if directory.symlink_metadata().is_ok() && !is_snapshot(directory) {
            return Err(SnapshotError::Occupied(directory.to_owned()));
        }
        let name = directory.file_name().ok_or_else(|| SnapshotError::Occupied(directory.to_owned()))?;
        let name = format!(".{}.{}.new", name.to_string_lossy(), std::process::id());
        let temporary = directory.with_file_name(name);
        fs::create_dir(&temporary).map_err(host("make", &temporary))?;
        let file = |name: &str| {
            let path = temporary.join(name);
            File::options().read(true).write(true).create_new(true).open(&path).map_err(host("make", &path))
        };
        let files = file("state").and_then(|state| Ok((state, file("memory")?)));
        let (state, memory) = files.inspect_err(|_| {
            // Nothing of ours is in it yet; the error is already on its way.
            let _ = fs::remove_dir_all(&temporary);
        })?;
        let header = Header { kind: kind.to_owned(), machine, parent, sections: Vec::new(), memories: Vec::new() };
        Ok(Self { target: directory.to_owned(), temporary, state, memory, header, state_bytes: 0, memory_bytes: 0 })
    }

    /// Adds state.
    ///
    /// # Errors
    /// The host cannot write.
    pub fn section(&mut self, name: &str, version: u32, content: &[u8]) -> Result<(), SnapshotError> {
        self.state.write_all(content).map_err(host("write", &self.temporary))?;
        let length = content.len() as u64;
        let section = Section {
            name: name.to_owned(),
            version,
            offset: self.state_bytes,
            length,
            checksum: crc32fast::hash(content),
        };
        self.header.sections.push(section);
        self.state_bytes += length;
        Ok(())
    }

    /// Adds a memory of `length` bytes, a multiple of [`PAGE_BYTES`]. `read` fills a buffer with its content from an offset on.
    ///
    /// # Errors
    /// The host cannot write, or `read` failed.
    pub fn memory(
        &mut self,
        name: &str,
        length: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        assert!(length.is_multiple_of(PAGE_BYTES), "memory comes in pages: {length}");
        let offset = self.memory_bytes;
        let wrong = host("write", &self.temporary);
        let mut write = || {
            self.memory.set_len(offset + length)?;
            let mut hasher = crc32fast::Hasher::new();
            let mut page = vec![0; PAGE_LENGTH];
            for at in (0..length).step_by(PAGE_LENGTH) {
                read(at, &mut page)?;
                if checksum_page(&mut hasher, at / PAGE_BYTES, &page) {
                    self.memory.write_all_at(&page, offset + at)?;
                }
            }
            Ok(hasher.finalize())
        };
        let checksum = write().map_err(wrong)?;
        self.header.memories.push(Memory { name: name.to_owned(), offset, length, checksum });
        self.memory_bytes += length;
        Ok(())
    }

    /// Makes the snapshot appear under its name, all of it and on the disk.
    ///
    /// # Errors
    /// The host cannot write.
    pub fn finish(self) -> Result<(), SnapshotError> {
        let text = self.header.write();
        let write = || -> io::Result<()> {
            let mut header = File::options().write(true).create_new(true).open(self.temporary.join("header"))?;
            header.write_all(text.as_bytes())?;
            for file in [&self.state, &self.memory, &header] {
                file.sync_all()?;
            }
            File::open(&self.temporary)?.sync_all()?;
            if self.target.exists() {
                exchange(&self.temporary, &self.target)?;
            } else {
                fs::rename(&self.temporary, &self.target)?;
            }
            let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        // What has the temporary name now, if anything, goes with this value.
        write().map_err(host("write", &self.target))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Not there after a first snapshot; then there is nothing to do.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}
