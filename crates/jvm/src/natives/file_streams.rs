//! What `FileInputStream`, `FileOutputStream` and `RandomAccessFile` have in common: opening, reading and writing by a `FileDescriptor`.

use super::support::{
    array_bytes, boolean, check_range, descriptor, field, int, io_exception, long, path_bytes, set_array_bytes,
    set_descriptor, waiting,
};
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::object::Reference;
use crate::services::{Failure, files};
use crate::strings;
use crate::thread::{Result, Thread, Thrown};

fn closed(thread: &mut Thread) -> Thrown {
    exceptions::throw(thread, "java/io/IOException", "Stream Closed")
}

/// The open descriptor of a stream's `FileDescriptor`.
pub(super) fn open_descriptor(thread: &mut Thread, file: Reference) -> Result<i32> {
    match descriptor(file) {
        -1 => Err(closed(thread)),
        number => Ok(number),
    }
}

/// Opens the file of this name and gives its number to the stream's `FileDescriptor`.
pub(super) fn open(
    thread: &mut Thread,
    arguments: Arguments,
    file: fn(Reference) -> Reference,
    flags: i32,
) -> Result<u64> {
    let name = arguments.reference(1);
    if name.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let path = path_bytes(name);
    let opened = waiting(thread, || {
        let number = files::open(&path, flags, 0o666)?;
        // A folder opens for reading, but is no file.
        match files::status_of(number) {
            Ok(status) if status.st_mode & libc::S_IFMT == libc::S_IFDIR => {
                let _ = files::close(number);
                Err(Failure::Host(libc::EISDIR))
            }
            _ => Ok(number),
        }
    });
    match opened {
        Ok(number) => {
            let object = file(arguments.reference(0));
            set_descriptor(object, number);
            let appends = field!("java/io/FileDescriptor", "append", "Z");
            object.write(appends, flags & libc::O_APPEND != 0);
            Ok(0)
        }
        Err(failure) => {
            let text = format!("{} ({failure})", strings::text(arguments.reference(1)));
            Err(exceptions::throw(thread, "java/io/FileNotFoundException", text))
        }
    }
}

/// Reads one byte; -1 at the end.
pub(super) fn read_one(thread: &mut Thread, file: Reference) -> Result<u64> {
    let number = open_descriptor(thread, file)?;
    let mut byte = [0];
    match waiting(thread, || files::read(number, &mut byte)) {
        Ok(0) => Ok(int(-1)),
        Ok(_) => Ok(int(i32::from(byte[0]))),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// Reads into the array of the arguments: array, offset, length. -1 at the end.
pub(super) fn read_bytes(thread: &mut Thread, arguments: Arguments, file: Reference) -> Result<u64> {
    let (offset, length) = (arguments.int(2), arguments.int(3));
    check_range(thread, arguments.reference(1), offset, length)?;
    if length == 0 {
        return Ok(int(0));
    }
    let number = open_descriptor(thread, file)?;
    // At once: many a program counts on getting all of a file that there is room for.
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
    match waiting(thread, || files::read(number, &mut buffer)) {
        Ok(0) => Ok(int(-1)),
        Ok(count) => {
            set_array_bytes(arguments.reference(1), offset, &buffer[..count]);
            Ok(int(i32::try_from(count).unwrap_or(i32::MAX)))
        }
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// Writes one byte.
pub(super) fn write_one(thread: &mut Thread, file: Reference, byte: i32) -> Result<u64> {
    let number = open_descriptor(thread, file)?;
    write_all(thread, number, &byte.to_le_bytes()[..1])
}

/// Writes from the array of the arguments: array, offset, length.
pub(super) fn write_bytes(thread: &mut Thread, arguments: Arguments, file: Reference) -> Result<u64> {
    let (offset, length) = (arguments.int(2), arguments.int(3));
    check_range(thread, arguments.reference(1), offset, length)?;
    if length == 0 {
        return Ok(0);
    }
    let number = open_descriptor(thread, file)?;
    let bytes = array_bytes(arguments.reference(1), offset, length);
    write_all(thread, number, &bytes)
}

fn write_all(thread: &mut Thread, number: i32, bytes: &[u8]) -> Result<u64> {
    let written = waiting(thread, || files::write_all(number, bytes)).map(|()| 0);
    written.map_err(|failure| io_exception(thread, &failure))
}

/// The length of the file.
pub(super) fn length(thread: &mut Thread, file: Reference) -> Result<u64> {
    let number = open_descriptor(thread, file)?;
    match files::status_of(number) {
        Ok(status) => Ok(long(status.st_size)),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// Moves the position.
pub(super) fn seek(thread: &mut Thread, file: Reference, offset: i64, from: i32) -> Result<i64> {
    let number = open_descriptor(thread, file)?;
    files::seek(number, offset, from).map_err(|failure| io_exception(thread, &failure))
}

/// Bytes that can be read without waiting.
pub(super) fn available(thread: &mut Thread, file: Reference) -> Result<u64> {
    let number = open_descriptor(thread, file)?;
    // What cannot tell has nothing.
    let count = files::available(number).unwrap_or(0);
    Ok(int(i32::try_from(count).unwrap_or(i32::MAX)))
}

/// Whether the descriptor is that of a terminal or a regular file.
pub(super) fn is_regular(number: i32) -> u64 {
    boolean(files::status_of(number).is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFREG))
}
