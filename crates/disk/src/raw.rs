//! A disk that is a file, byte for byte, or a block device.
//!
//! Reads and writes are positional calls on one open file, so that several threads may use the disk at once. A flush is `fdatasync`, which returns when
//! the host's disk has it. Discards punch holes where the file system can, and do nothing where it cannot.
//!
//! With [`Cache::None`] what is read and written by requests that are queued (`machine::sys::Ring`) goes past the host's page cache; what the host's kernel refuses,
//! since it is not aligned as its file system wants, goes through the cache, which the kernel keeps the same. Durability does not depend on it: that is the
//! flush's.
//!
//! A file whose size is not whole sectors of 512 bytes is a disk of the next whole size: bytes past the end of the file read as zeroes, and
//! writing them makes the file longer.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use machine::backend::{BlockBackend, Queueable};
use machine::sys::file::{open_direct, punch_hole, zero_range};

use crate::{DiskError, Lock, lock};

const SECTOR_BYTES: u64 = 512;
const ZEROES_BYTES: usize = 64 << 10;

/// What of the host's page cache a disk uses: the names are qemu's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// All; the guest's flushes make it durable.
    #[default]
    Writeback,
    /// None: what the guest reads is read from the disk.
    None,
    /// All, and the guest's flushes are ignored: for a disk that may be lost when the host crashes.
    Unsafe,
}

/// Who waits for the host's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A thread for each queue, for one request at a time.
    Threads,
    /// The host's kernel, for many at a time; a thread, where it is not allowed.
    IoUring,
}

/// How a disk is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Refuse to write.
    pub read_only: bool,
    /// What of the host's page cache it uses.
    pub cache: Cache,
    /// Who waits for the host's disk. If not said: the host's kernel without the cache, whose whole point it is, and a thread with it, which rarely waits.
    pub engine: Option<Engine>,
}

impl Options {
    fn engine(&self) -> Engine {
        self.engine.unwrap_or(if self.cache == Cache::None { Engine::IoUring } else { Engine::Threads })
    }
}

/// A raw disk, open and locked. See the [module](self).
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    /// The file again, past the cache.
    direct: Option<File>,
    options: Options,
    path: PathBuf,
    /// The size of the file when it was opened, in bytes.
    file_bytes: u64,
}

impl RawDisk {
    /// Opens the disk at `path` and locks it for this process.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        Self::open_with(path, Options { read_only, ..Options::default() })
    }

    /// As [`Self::open`], with all there is to choose.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn open_with(path: &Path, options: Options) -> Result<Self, DiskError> {
        let read_only = options.read_only;
        let failed = |cause: io::Error| match (cause.kind(), read_only) {
            (io::ErrorKind::PermissionDenied, true) => {
                let hint = "make it readable for your user";
                DiskError::Permission { path: path.into(), verb: "read", hint }
            }
            (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem, false) => {
                let hint = "make it writable for your user, or open it read-only";
                DiskError::Permission { path: path.into(), verb: "write", hint }
            }
            _ => DiskError::of("open", path, cause),
        };
        // Looked at before it is opened, since opening a pipe waits for its other end.
        let kind = path.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotADisk(path.into()));
        }
        let mut file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(failed)?;
        lock(&file, path, if read_only { Lock::Shared } else { Lock::Exclusive })?;
        let file_bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if file_bytes == 0 {
            return Err(DiskError::Empty(path.into()));
        }
        let direct = match options.cache {
            Cache::None => Some(open_direct(path, read_only).map_err(|cause| match cause.kind() {
                io::ErrorKind::InvalidInput => DiskError::Cached(path.into()),
                _ => DiskError::of("open", path, cause),
            })?),
            Cache::Writeback | Cache::Unsafe => None,
        };
        Ok(Self { file, direct, options, path: path.into(), file_bytes })
    }

    /// Where the disk is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes zeroes by hand, for hosts that know no better.
    fn write_out_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        static ZEROES: [u8; ZEROES_BYTES] = [0; ZEROES_BYTES];
        let mut done = 0;
        while done < length {
            let count = usize::try_from(length - done).unwrap_or(usize::MAX).min(ZEROES_BYTES);
            self.file.write_all_at(&ZEROES[..count], offset + done)?;
            done += count as u64;
        }
        Ok(())
    }
}

impl BlockBackend for RawDisk {
    fn size(&self) -> u64 {
        self.file_bytes.next_multiple_of(SECTOR_BYTES)
    }

    fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            match self.file.read_at(&mut bytes[done..], at) {
                Ok(0) if at >= self.file_bytes => {
                    bytes[done..].fill(0);
                    return Ok(());
                }
                // Someone cut the file off behind our back.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.options.cache == Cache::Unsafe { Ok(()) } else { self.file.sync_data() }
    }

    fn queueable(&self) -> Option<Queueable<'_>> {
        let file = self.direct.as_ref().unwrap_or(&self.file);
        let flushes = self.options.cache != Cache::Unsafe;
        (self.options.engine() == Engine::IoUring).then_some(Queueable { file, flushes })
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        if length > 0 {
            punch_hole(&self.file, offset..offset + length)?;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let range = offset..offset + length;
        let done = (unmap && punch_hole(&self.file, range.clone())?) || zero_range(&self.file, range)?;
        if done { Ok(()) } else { self.write_out_zeroes(offset, length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn open(path: &Path) -> RawDisk {
        RawDisk::open(path, false).unwrap()
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let say = |path: &Path| RawDisk::open(path, false).unwrap_err().to_string();
        assert!(say(&path).ends_with("disk does not exist; check the path"));
        assert!(say(folder.path()).ends_with("is not a disk; give a file or a block device"));
        assert!(say(Path::new("/dev/null")).contains("is not a disk"));
        fs::write(&path, []).unwrap();
        assert!(say(&path).contains("is empty"));
        fs::write(&path, [0; 512]).unwrap();
        let _held = open(&path);
        let text = say(&path);
        assert!(text.contains("disk is in use by another machine") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn the_cache_is_a_choice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, [3; 8192]).unwrap();
        let open = |options| RawDisk::open_with(&path, options);
        assert!(open(Options::default()).unwrap().queueable().is_none());
        let queued = open(Options { engine: Some(Engine::IoUring), ..Options::default() }).unwrap();
        assert!(queued.queueable().unwrap().flushes);
        drop(queued);
        let careless = Options { cache: Cache::Unsafe, engine: Some(Engine::IoUring), ..Options::default() };
        assert!(!open(careless).unwrap().queueable().unwrap().flushes);
        match open(Options { cache: Cache::None, ..Options::default() }) {
            Ok(direct) => {
                direct.write_at(100, &[1; 1000]).unwrap();
                direct.flush().unwrap();
                let mut bytes = [0; 4];
                direct.read_at(1098, &mut bytes).unwrap();
                assert_eq!(bytes, [1, 1, 3, 3]);
                assert!(direct.queueable().is_some());
            }
            Err(error) => assert!(error.to_string().contains("cache=writeback"), "{error}"),
        }
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, [3; 1024]).unwrap();
        let first = RawDisk::open(&path, true).unwrap();
        let second = RawDisk::open(&path, true).unwrap();
        assert!(first.is_read_only() && second.write_at(0, &[1]).is_err());
        assert!(matches!(RawDisk::open(&path, false), Err(DiskError::InUse(_))));
        drop((first, second));
        let writer = open(&path);
        assert!(matches!(RawDisk::open(&path, true), Err(DiskError::InUse(_))));
        writer.flush().unwrap();
    }

    #[test]
    fn an_odd_size_is_rounded_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, [9; 700]).unwrap();
        let disk = open(&path);
        assert_eq!(disk.size(), 1024);
        let mut bytes = [1; 512];
        disk.read_at(512, &mut bytes).unwrap();
        assert_eq!(bytes[..188], [9; 188]);
        assert_eq!(bytes[188..], [0; 324]);
        disk.write_at(512, &[5; 512]).unwrap();
        disk.read_at(512, &mut bytes).unwrap();
        assert_eq!(bytes, [5; 512]);
        drop(disk);
        assert_eq!(open(&path).size(), 1024);
    }

    #[test]
    fn a_file_cut_off_meanwhile_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, [9; 1024]).unwrap();
        let disk = open(&path);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(512).unwrap();
        assert_eq!(disk.read_at(256, &mut [0; 512]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, u64, u8),
        Zero(u64, u64, bool),
        Read(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let range = || (0u64..60_000).prop_flat_map(|at| (Just(at), 0..(65_536 - at)));
        let step = prop_oneof![
            (range(), any::<u8>()).prop_map(|((at, length), value)| Step::Write(at, length, value)),
            (range(), any::<bool>()).prop_map(|((at, length), unmap)| Step::Zero(at, length, unmap)),
            range().prop_map(|(at, length)| Step::Read(at, length)),
        ];
        proptest::collection::vec(step, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn behaves_as_an_array(steps in steps()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("disk");
            let mut model = vec![0x55u8; 65_536];
            fs::write(&path, &model).unwrap();
            let disk = open(&path);
            let range = |at: u64, length: u64| usize::try_from(at).unwrap()..usize::try_from(at + length).unwrap();
            for step in steps {
                match step {
                    Step::Write(at, length, value) => {
                        model[range(at, length)].fill(value);
                        disk.write_at(at, &model[range(at, length)]).unwrap();
                    }
                    Step::Zero(at, length, unmap) => {
                        model[range(at, length)].fill(0);
                        disk.write_zeroes(at, length, unmap).unwrap();
                    }
                    Step::Read(at, length) => {
                        let mut bytes = vec![1; range(at, length).len()];
                        disk.read_at(at, &mut bytes).unwrap();
                        prop_assert_eq!(&bytes, &model[range(at, length)]);
                    }
                }
            }
            disk.write_out_zeroes(100, 5000).unwrap();
            model[100..5100].fill(0);
            disk.discard(65_536 - 4096, 4096).unwrap();
            disk.flush().unwrap();
            drop(disk);
            let content = fs::read(&path).unwrap();
            prop_assert_eq!(content.len(), model.len());
            prop_assert_eq!(&content[..65_536 - 4096], &model[..65_536 - 4096]);
        }
    }
}
