//! `java.io.RandomAccessFile`

use super::file_streams as streams;
use super::support::{VOID, field, io_exception, long, natives};
use crate::exceptions;
use crate::object::Reference;
use crate::services::files;

fn file(stream: Reference) -> Reference {
    stream.reference(field!("java/io/RandomAccessFile", "fd", "Ljava/io/FileDescriptor;"))
}

/// Bits of the mode: `O_RDONLY`, `O_RDWR`, `O_SYNC`, `O_DSYNC` and `O_TEMPORARY` of the class.
fn flags(mode: i32) -> i32 {
    let mut flags = if mode & 1 != 0 { libc::O_RDONLY } else { libc::O_RDWR | libc::O_CREAT };
    if mode & 4 != 0 {
        flags |= libc::O_SYNC;
    }
    if mode & 8 != 0 {
        flags |= libc::O_DSYNC;
    }
    flags
}

natives! { "java/io/RandomAccessFile":
    "initIDs" "()V" => |_, _| Ok(VOID);
    "open0" "(Ljava/lang/String;I)V" => |thread, arguments| {
        streams::open(thread, arguments, file, flags(arguments.int(2)))
    };
    "read0" "()I" => |thread, arguments| streams::read_one(thread, file(arguments.reference(0)));
    "readBytes" "([BII)I" => |thread, arguments| {
        let file = file(arguments.reference(0));
        streams::read_bytes(thread, arguments, file)
    };
    "write0" "(I)V" => |thread, arguments| {
        streams::write_one(thread, file(arguments.reference(0)), arguments.int(1))
    };
    "writeBytes" "([BII)V" => |thread, arguments| {
        let file = file(arguments.reference(0));
        streams::write_bytes(thread, arguments, file)
    };
    "getFilePointer" "()J" => |thread, arguments| {
        streams::seek(thread, file(arguments.reference(0)), 0, libc::SEEK_CUR).map(long)
    };
    "seek0" "(J)V" => |thread, arguments| {
        if arguments.long(1) < 0 {
            return Err(exceptions::throw(thread, "java/io/IOException", "Negative seek offset"));
        }
        streams::seek(thread, file(arguments.reference(0)), arguments.long(1), libc::SEEK_SET).map(|_| VOID)
    };
    "length" "()J" => |thread, arguments| streams::length(thread, file(arguments.reference(0)));
    "setLength" "(J)V" => |thread, arguments| {
        let file = file(arguments.reference(0));
        let (number, length) = (streams::open_descriptor(thread, file)?, arguments.long(1));
        let position = streams::seek(thread, file, 0, libc::SEEK_CUR)?;
        files::set_length(number, length).map_err(|failure| io_exception(thread, &failure))?;
        if position > length {
            streams::seek(thread, file, 0, libc::SEEK_END)?;
        }
        Ok(VOID)
    };
}
