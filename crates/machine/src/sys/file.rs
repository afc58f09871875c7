//! What files can do beyond reading and writing: holes, shared blocks, copies inside the kernel.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use rustix::fs::{
    CWD, FallocateFlags, MemfdFlags, Mode, OFlags, RenameFlags, SeekFrom, copy_file_range, fallocate, ioctl_ficlone,
    memfd_create, open, renameat_with, seek,
};
use rustix::io::Errno;

/// Whether the host did it, or cannot do such a thing to such a file.
fn unless_unsupported(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV | Errno::NOTTY | Errno::XDEV | Errno::TXTBSY,
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens the file at `path` for reading, and writing unless `read_only`, past the host's page cache.
///
/// # Errors
/// As opening it otherwise; invalid input if its file system has no such way.
pub fn open_direct(path: &Path, read_only: bool) -> io::Result<File> {
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    Ok(open(path, access | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// An empty file in memory that has no name in any folder: it goes when nobody has it any more. `name` is what the host's lists of mappings call it.
///
/// # Errors
/// The host refuses.
pub fn unnamed_file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// Gives the space of `range` of `file` back to the host; it then reads as zeroes. The size stays. False if the host cannot.
///
/// # Errors
/// The host failed.
pub fn punch_hole(file: &File, range: Range<u64>) -> io::Result<bool> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    unless_unsupported(fallocate(file, flags, range.start, range.end - range.start))
}

/// Makes `range` of `file` read as zeroes without giving its space back. The size stays. False if the host cannot.
///
/// # Errors
/// The host failed.
pub fn zero_range(file: &File, range: Range<u64>) -> io::Result<bool> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    unless_unsupported(fallocate(file, flags, range.start, range.end - range.start))
}

/// Makes `to` a file that shares the blocks of `from` until either is written. False if the file system cannot.
///
/// # Errors
/// The host failed.
pub fn share_blocks(from: &File, to: &File) -> io::Result<bool> {
    unless_unsupported(ioctl_ficlone(to, from))
}

/// The first part of `file` at or after `offset` that is not a hole; `None` if the rest is one. Moves the file's position.
///
/// # Errors
/// The host failed.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => Ok(Some(start..seek(file, SeekFrom::Hole(start))?)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies at most `length` bytes at `offset` of `from` to the same offset of `to` inside the kernel. Answers how many were copied, 0 at
/// the end of `from`; `None` if the host cannot between these two files.
///
/// # Errors
/// The host failed.
pub fn copy_inside_kernel(from: &File, to: &File, offset: u64, length: usize) -> io::Result<Option<usize>> {
    let (mut here, mut there) = (offset, offset);
    let mut copied = 0;
    let result = copy_file_range(from, Some(&mut here), to, Some(&mut there), length).map(|count| copied = count);
    Ok(unless_unsupported(result)?.then_some(copied))
}

/// Lets two files or directories change names, so that nobody sees either missing.
///
/// # Errors
/// The host failed.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_and_copies() {
        let (mut from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all(&[7; 0x10000]).unwrap();
        from.set_len(0x40000).unwrap();
        if punch_hole(&from, 0x4000..0x8000).unwrap() {
            let mut bytes = [1; 2];
            from.read_exact_at(&mut bytes, 0x7fff).unwrap();
            assert_eq!(bytes, [0, 7]);
        }
        if zero_range(&from, 0x8000..0x9000).unwrap() {
            let mut bytes = [1; 2];
            from.read_exact_at(&mut bytes, 0x8fff).unwrap();
            assert_eq!(bytes, [0, 7]);
        }
        assert_eq!(from.metadata().unwrap().len(), 0x40000);
        let data = next_data(&from, 0).unwrap().unwrap();
        assert!(data.start == 0 && data.end >= 0x4000, "{data:?}");
        assert_eq!(next_data(&from, 0x40000).unwrap(), None);
        if let Some(count) = copy_inside_kernel(&from, &to, 0x100, 0x200).unwrap() {
            assert!(count > 0);
            let mut byte = [0];
            to.read_exact_at(&mut byte, 0x100).unwrap();
            assert_eq!(byte, [7]);
        }
        if share_blocks(&from, &to).unwrap() {
            assert_eq!(to.metadata().unwrap().len(), 0x40000);
        }
    }
}
