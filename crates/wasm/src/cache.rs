//! Compiled code, kept between runs.
//!
//! ```text
//! DIRECTORY/KEY/CHECKSUM     KEY: hash of the program's bytes and of how it is compiled
//!                            CHECKSUM: hash of the file itself
//! ```
//!
//! A file is written under a temporary name and renamed, so readers see all of it or none; two that compile the same at once both win. A
//! file whose content is not what its name says is removed and made anew.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use machine::clock::wall_time_ns;

/// Beyond this size, in bytes, what was not used for the longest time goes.
const SIZE_MAX: u64 = 1 << 30;

/// A directory of compiled code.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
    size_max: u64,
}

/// What a program is called in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl Key {
    /// The key of a program of these bytes, compiled as described.
    pub(crate) fn new(program: &[u8], compiler: &impl Hash) -> Self {
        let mut hasher = Blake(blake3::Hasher::new());
        compiler.hash(&mut hasher);
        hasher.0.update(program);
        Self(hasher.0.finalize().to_hex().to_string())
    }
}

fn checksum(file: &mut File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Cache {
    /// A cache in `directory`, which need not exist.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, size_max: SIZE_MAX }
    }

    /// The compiled code of `key`, if it is there and intact.
    pub(crate) fn open(&self, key: &Key) -> Option<File> {
        for entry in fs::read_dir(self.directory.join(&key.0)).ok()?.flatten() {
            let Ok(mut file) = File::open(entry.path()) else { continue };
            match checksum(&mut file) {
                Ok(sum) if entry.file_name().to_str() == Some(&sum) => {
                    // Only its age in the cache depends on it.
                    let _ = file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_time_ns()));
                    return Some(file);
                }
                Ok(_) => {
                    // Another process may be writing it: a temporary name; or it is damaged.
                    if !entry.file_name().to_string_lossy().starts_with('.') {
                        let _ = fs::remove_file(entry.path());
                    }
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Removes what is kept of `key`, since nobody can use it.
    pub(crate) fn forget(&self, key: &Key) {
        // What cannot be removed is found useless again.
        let _ = fs::remove_dir_all(self.directory.join(&key.0));
    }

    /// Keeps `code` as that of `key`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(crate) fn store(&self, key: &Key, code: &[u8]) -> io::Result<()> {
        let directory = self.directory.join(&key.0);
        fs::create_dir_all(&directory)?;
        let temporary = directory.join(format!(".{}", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(code)?;
            fs::rename(&temporary, directory.join(blake3::hash(code).to_hex().as_str()))
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        self.trim();
        written
    }

    /// Removes what was not used for the longest time until the rest is small enough.
    fn trim(&self) {
        let mut files = Vec::new();
        for key in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            for file in fs::read_dir(key.path()).into_iter().flatten().flatten() {
                if let Ok(metadata) = file.metadata() {
                    files.push((metadata.modified().ok(), metadata.len(), file.path()));
                }
            }
        }
        files.sort();
        let mut size: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, bytes, path) in files {
            if size <= self.size_max {
                return;
            }
            if fs::remove_file(&path).is_ok() {
                size -= bytes;
                // It holds nothing else, or it stays.
                let _ = path.parent().map(Path::to_owned).map(fs::remove_dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(file: Option<File>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut file.as_ref()?).ok()?;
        file?.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    #[test]
    fn what_was_stored_is_found_unless_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("deep/er"));
        let key = Key::new(b"program", &1);
        assert_ne!(key, Key::new(b"program", &2));
        assert!(cache.open(&key).is_none());
        cache.store(&key, b"code").unwrap();
        assert_eq!(read(cache.open(&key)).unwrap(), b"code");
        let file = fs::read_dir(cache.directory.join(&key.0)).unwrap().next().unwrap().unwrap().path();
        fs::write(&file, b"evil").unwrap();
        assert!(cache.open(&key).is_none());
        assert!(!file.exists(), "what is damaged is removed");
    }

    #[test]
    fn the_oldest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { directory: folder.path().into(), size_max: 250 };
        let keys: Vec<Key> = (0..4_u32).map(|n| Key::new(&n.to_le_bytes(), &0)).collect();
        for key in &keys {
            cache.store(key, &[7; 100]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
            // The first is used all the time.
            cache.open(&keys[0]).unwrap();
        }
        let there: Vec<bool> = keys.iter().map(|key| cache.open(key).is_some()).collect();
        assert_eq!(there, [true, false, false, true]);
    }
}
