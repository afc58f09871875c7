//! Copying and making disk files.
//!
//! A copy shares blocks with its original where the file system can (so it costs nothing), and else copies what is not a hole inside the kernel. It appears under its
//! name when it is whole and on the platter, or not at all: it is written under another name beside it and then renamed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use machine::sys::file::{copy_inside_kernel, next_data, share_blocks};

use crate::{DiskError, Lock, lock};

/// How much is copied between two calls of `progress`.
const STEP_BYTES: u64 = 16 << 20;
/// The buffer for hosts that cannot copy inside the kernel.
const BUFFER_BYTES: usize = 1 << 20;

/// A file that is removed again unless it is finished.
struct Unfinished {
    file: File,
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    /// A new file beside `target`.
    fn beside(target: &Path) -> Result<Self, DiskError> {
        let name = target.file_name().ok_or_else(|| DiskError::NotADisk(target.into()))?;
        for number in 0u32.. {
            let mut partial = std::ffi::OsString::from(".");
            partial.push(name);
            partial.push(format!(".partial-{}-{number}", std::process::id()));
            let path = target.with_file_name(partial);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, finished: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // The folder is missing or closed to us; name what was asked for, not the name beside it.
                Err(cause) => return Err(DiskError::Host { verb: "create", path: target.into(), cause }),
            }
        }
        unreachable!("four billion unfinished copies beside {}", target.display())
    }

    /// Makes the file durable and gives it its name, in place of what may be there.
    fn finish(mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        self.finished = true;
        let folder = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing is lost if this fails: the name says what it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes `to` a copy of the disk file `from`, replacing what is there. `progress` is called with the bytes done (holes count as done) and in all: first
/// with none, last with all.
///
/// # Errors
/// A machine writes `from`, or the host failed; `to` is then as it was.
pub fn clone_file(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), DiskError> {
    let source = File::open(from).map_err(|cause| DiskError::of("read", from, cause))?;
    let metadata = source.metadata().map_err(|cause| DiskError::of("read", from, cause))?;
    if !metadata.is_file() {
        return Err(DiskError::NotADisk(from.into()));
    }
    lock(&source, from, Lock::Shared)?;
    let total = metadata.len();
    progress(0, total);
    let target = Unfinished::beside(to)?;
    let failed = |cause| DiskError::Host { verb: "write", path: to.into(), cause };
    if !share_blocks(&source, &target.file).map_err(failed)? {
        copy_data(&source, &target.file, total, progress).map_err(failed)?;
    }
    target.finish(to).map_err(failed)?;
    progress(total, total);
    Ok(())
}

fn copy_data(from: &File, to: &File, total: u64, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    to.set_len(total)?;
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < total {
        // File systems without holes say that all is data.
        let Some(data) = next_data(from, done)? else { break };
        done = data.start;
        let end = data.end.min(total);
        while done < end {
            progress(done, total);
            let count = copy_some(from, to, done, (end - done).min(STEP_BYTES), &mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += count;
        }
    }
    Ok(())
}

fn copy_some(from: &File, to: &File, offset: u64, length: u64, buffer: &mut Vec<u8>) -> io::Result<u64> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if buffer.is_empty() {
        if let Some(count) = copy_inside_kernel(from, to, offset, length)? {
            return Ok(count as u64);
        }
        buffer.resize(BUFFER_BYTES, 0);
    }
    let count = length.min(buffer.len());
    let count = from.read_at(&mut buffer[..count], offset)?;
    to.write_all_at(&buffer[..count], offset)?;
    Ok(count as u64)
}

/// Makes an empty disk file of `size` bytes that takes no space yet.
///
/// # Errors
/// There is such a file already, or the host failed.
pub fn create(path: &Path, size: u64) -> Result<(), DiskError> {
    let failed = |cause| DiskError::Host { verb: "create", path: path.into(), cause };
    let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.set_len(size).and_then(|()| file.sync_all()).map_err(|cause| {
        // What was made is of no use; if it cannot be removed either, the first failure is the one to tell.
        let _ = fs::remove_file(path);
        failed(cause)
    })
}

/// Makes the disk file at `path` `size` bytes large; the new bytes are zeroes and take no space yet. The guest has to grow its partitions and file systems
/// itself.
///
/// # Errors
/// A machine uses it, it is larger already, or the host failed.
pub fn grow(path: &Path, size: u64) -> Result<(), DiskError> {
    let failed = |cause| DiskError::of("grow", path, cause);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    lock(&file, path, Lock::Exclusive)?;
    let has = file.metadata().map_err(failed)?.len();
    if has > size {
        return Err(DiskError::Shrinks { path: path.into(), has, wanted: size });
    }
    file.set_len(size).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RawDisk;
    use std::os::unix::fs::MetadataExt;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// 64 MiB, with data at three places.
    fn sparse(path: &Path) {
        create(path, 64 << 20).unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        for at in [0, 20 << 20, (64 << 20) - 5] {
            file.write_all_at(b"hello", at).unwrap();
        }
    }

    #[test]
    fn a_copy_is_equal_and_sparse() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        sparse(&from);
        fs::write(&to, b"old").unwrap();
        let mut calls = Vec::new();
        clone_file(&from, &to, &mut |done, total| calls.push((done, total))).unwrap();
        assert_eq!((calls[0], *calls.last().unwrap()), ((0, 64 << 20), (64 << 20, 64 << 20)));
        assert!(calls.is_sorted());
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
        assert_eq!(names(folder.path()), ["from", "to"]);
    }

    #[test]
    fn hosts_that_cannot_copy_inside_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        sparse(&from);
        create(&to, 64 << 20).unwrap();
        let (source, target) = (File::open(&from).unwrap(), OpenOptions::new().write(true).open(&to).unwrap());
        let mut buffer = vec![0; 3];
        let mut done = 0;
        while done < 5 {
            done += copy_some(&source, &target, done, 5 - done, &mut buffer).unwrap();
        }
        assert_eq!(&fs::read(&to).unwrap()[..6], b"hello\0");
    }

    #[test]
    fn a_failed_copy_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        assert!(matches!(clone_file(&from, &to, &mut |_, _| {}), Err(DiskError::Missing(_))));
        assert!(matches!(clone_file(folder.path(), &to, &mut |_, _| {}), Err(DiskError::NotADisk(_))));
        sparse(&from);
        let used = RawDisk::open(&from, false).unwrap();
        assert!(matches!(clone_file(&from, &to, &mut |_, _| {}), Err(DiskError::InUse(_))));
        drop(used);
        let nowhere = folder.path().join("no/folder");
        let text = clone_file(&from, &nowhere, &mut |_, _| {}).unwrap_err().to_string();
        assert!(text.contains("no/folder") && !text.contains("partial"), "{text}");
        fs::create_dir(&to).unwrap();
        assert!(clone_file(&from, &to, &mut |_, _| {}).is_err(), "a folder is in the way");
        assert_eq!(names(folder.path()), ["from", "to"]);
    }

    #[test]
    fn disks_are_made_and_grow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        create(&path, 1 << 20).unwrap();
        assert!(create(&path, 1 << 20).is_err(), "an existing disk is not overwritten");
        grow(&path, 1 << 30).unwrap();
        assert_eq!((path.metadata().unwrap().len(), path.metadata().unwrap().blocks()), (1 << 30, 0));
        let text = grow(&path, 5).unwrap_err().to_string();
        assert!(text.ends_with("already has 1073741824 bytes, more than 5; disks only grow"), "{text}");
        let _used = RawDisk::open(&path, true).unwrap();
        assert!(matches!(grow(&path, 2 << 30), Err(DiskError::InUse(_))));
    }
}
