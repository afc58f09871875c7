//! Reading a snapshot.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::header::HEADER_BYTES_MAX;
use super::{Header, PAGE_BYTES, PAGE_LENGTH, SnapshotError, checksum_page};
use crate::sys::file::next_data;

/// A snapshot whose header was read.
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    header: Header,
    state: File,
    memory: File,
}

/// The parts of a snapshot, each to be taken once.
#[derive(Debug)]
pub struct Parts<'a> {
    snapshot: &'a Snapshot,
    /// Names of those that were not taken yet.
    left: Vec<&'a str>,
}

/// A memory that was taken, for [`map_file_over`](crate::sys::map_file_over). As long as it is mapped, nobody may shorten the file.
#[derive(Debug)]
pub struct MappedMemory<'a> {
    /// The file that it is in.
    pub file: &'a File,
    /// Where it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Whether `directory` is one that holds a snapshot.
#[must_use]
pub fn is_snapshot(directory: &Path) -> bool {
    ["header", "state", "memory"].iter().all(|name| directory.join(name).is_file())
}

impl Snapshot {
    /// Reads the header of the snapshot in `directory`.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        if !is_snapshot(directory) {
            return Err(SnapshotError::Magic(directory.to_owned()));
        }
        let host = |path: &Path| {
            let path = path.to_owned();
            move |cause| SnapshotError::Host { verb: "read", path, cause }
        };
        let open = |name: &str| {
            let path = directory.join(name);
            let file = File::open(&path).map_err(host(&path))?;
            let length = file.metadata().map_err(host(&path))?.len();
            Ok::<_, SnapshotError>((file, length))
        };
        let ((state, state_bytes), (memory, memory_bytes)) = (open("state")?, open("memory")?);
        let mut text = String::new();
        let (header, _) = open("header")?;
        match header.take(HEADER_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(SnapshotError::Magic(directory.to_owned()));
            }
            Err(error) => return Err(host(&directory.join("header"))(error)),
        }
        let header = Header::read(&text, state_bytes, memory_bytes)?;
        let header = header.ok_or_else(|| SnapshotError::Magic(directory.to_owned()))?;
        Ok(Self { directory: directory.to_owned(), header, state, memory })
    }

    /// What it is.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Sees to it that it is of this kind.
    ///
    /// # Errors
    /// It is of another.
    pub fn check_kind(&self, wanted: &'static str) -> Result<(), SnapshotError> {
        if self.header.kind == wanted {
            Ok(())
        } else {
            Err(SnapshotError::Kind { found: self.header.kind.clone(), wanted })
        }
    }

    /// Its parts, none of them taken yet.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        let sections = self.header.sections.iter().map(|section| section.name.as_str());
        let left = sections.chain(self.header.memories.iter().map(|memory| memory.name.as_str())).collect();
        Parts { snapshot: self, left }
    }

    fn host(&self, cause: io::Error) -> SnapshotError {
        SnapshotError::Host { verb: "read", path: self.directory.clone(), cause }
    }

    /// Compares everything with its checksum: reads all of it, memory too.
    ///
    /// # Errors
    /// A part is not what was written.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        let damaged = |name: &str| SnapshotError::Damaged(format!("its part '{name}' is not what was written"));
        for section in &self.header.sections {
            self.parts().section(&section.name, section.version)?;
        }
        for memory in &self.header.memories {
            let checksum = self.memory_checksum(memory.offset, memory.length).map_err(|cause| self.host(cause))?;
            if checksum != memory.checksum {
                return Err(damaged(&memory.name));
            }
        }
        Ok(())
    }

    /// The checksum of what is in `memory` now; holes are passed over.
    fn memory_checksum(&self, offset: u64, length: u64) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut page = vec![0; PAGE_LENGTH];
        let mut at = 0;
        while at < length {
            match next_data(&self.memory, offset + at)? {
                Some(data) if data.start < offset + length => {
                    let data = data.start.max(offset) - offset;
                    at = data - data % PAGE_BYTES;
                }
                _ => break,
            }
            self.memory.read_exact_at(&mut page, offset + at)?;
            checksum_page(&mut hasher, at / PAGE_BYTES, &page);
            at += PAGE_BYTES;
        }
        Ok(hasher.finalize())
    }
}

impl<'a> Parts<'a> {
    fn take(&mut self, name: &str) -> Result<(), SnapshotError> {
        let at = self.left.iter().position(|left| *left == name);
        let at = at.ok_or_else(|| SnapshotError::Damaged(format!("it has no part '{name}'")))?;
        self.left.swap_remove(at);
        Ok(())
    }

    /// Passes over a part that was taken before.
    ///
    /// # Errors
    /// It is not there (any more).
    pub fn pass(&mut self, name: &str) -> Result<(), SnapshotError> {
        self.take(name)
    }

    /// Takes the content of a section, of which this machine knows this version.
    ///
    /// # Errors
    /// It is not there (any more), of another version, or damaged.
    pub fn section(&mut self, name: &str, version: u32) -> Result<Vec<u8>, SnapshotError> {
        self.take(name)?;
        let section = self.snapshot.header.sections.iter().find(|section| section.name == name);
        let section = section.ok_or_else(|| SnapshotError::Damaged(format!("its part '{name}' is no section")))?;
        if section.version != version {
            let what = format!("section '{name}'");
            return Err(SnapshotError::Version { what, found: section.version, known: version });
        }
        let length =
            usize::try_from(section.length).map_err(|_| self.snapshot.host(io::ErrorKind::OutOfMemory.into()))?;
        let mut content = vec![0; length];
        self.snapshot.state.read_exact_at(&mut content, section.offset).map_err(|cause| self.snapshot.host(cause))?;
        if crc32fast::hash(&content) != section.checksum {
            return Err(SnapshotError::Damaged(format!("its section '{name}' is not what was written")));
        }
        Ok(content)
    }

    /// Takes a memory.
    ///
    /// # Errors
    /// It is not there (any more).
    pub fn memory(&mut self, name: &str) -> Result<MappedMemory<'a>, SnapshotError> {
        self.take(name)?;
        let memory = self.snapshot.header.memories.iter().find(|memory| memory.name == name);
        let memory = memory.ok_or_else(|| SnapshotError::Damaged(format!("its part '{name}' is no memory")))?;
        Ok(MappedMemory { file: &self.snapshot.memory, offset: memory.offset, length: memory.length })
    }

    /// Says that all was taken.
    ///
    /// # Errors
    /// It was not.
    pub fn finish(&self) -> Result<(), SnapshotError> {
        self.left.first().map_or(Ok(()), |name| Err(SnapshotError::Unknown((*name).to_owned())))
    }
}
