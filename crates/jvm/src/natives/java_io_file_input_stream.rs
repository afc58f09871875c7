//! `java.io.FileInputStream`

use super::file_streams as streams;
use super::support::{VOID, field, long, natives};
use crate::object::Reference;

fn file(stream: Reference) -> Reference {
    stream.reference(field!("java/io/FileInputStream", "fd", "Ljava/io/FileDescriptor;"))
}

natives! { "java/io/FileInputStream":
    "initIDs" "()V" => |_, _| Ok(VOID);
    "open0" "(Ljava/lang/String;)V" => |thread, arguments| streams::open(thread, arguments, file, libc::O_RDONLY);
    "read0" "()I" => |thread, arguments| streams::read_one(thread, file(arguments.reference(0)));
    "readBytes" "([BII)I" => |thread, arguments| {
        let file = file(arguments.reference(0));
        streams::read_bytes(thread, arguments, file)
    };
    "length0" "()J" => |thread, arguments| streams::length(thread, file(arguments.reference(0)));
    "position0" "()J" => |thread, arguments| {
        streams::seek(thread, file(arguments.reference(0)), 0, libc::SEEK_CUR).map(long)
    };
    "skip0" "(J)J" => |thread, arguments| {
        let file = file(arguments.reference(0));
        let before = streams::seek(thread, file, 0, libc::SEEK_CUR)?;
        let after = streams::seek(thread, file, arguments.long(1), libc::SEEK_CUR)?;
        Ok(long(after - before))
    };
    "available0" "()I" => |thread, arguments| streams::available(thread, file(arguments.reference(0)));
    "isRegularFile0" "(Ljava/io/FileDescriptor;)Z" => |_, arguments| {
        Ok(streams::is_regular(super::support::descriptor(arguments.reference(1))))
    };
}
