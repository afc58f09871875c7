//! `java.io.FileOutputStream`

use super::file_streams as streams;
use super::support::{VOID, field, natives};
use crate::object::Reference;

fn file(stream: Reference) -> Reference {
    stream.reference(field!("java/io/FileOutputStream", "fd", "Ljava/io/FileDescriptor;"))
}

natives! { "java/io/FileOutputStream":
    "initIDs" "()V" => |_, _| Ok(VOID);
    "open0" "(Ljava/lang/String;Z)V" => |thread, arguments| {
        let how = if arguments.boolean(2) { libc::O_APPEND } else { libc::O_TRUNC };
        streams::open(thread, arguments, file, libc::O_WRONLY | libc::O_CREAT | how)
    };
    // That the file was opened to append is in the descriptor.
    "write" "(IZ)V" => |thread, arguments| {
        streams::write_one(thread, file(arguments.reference(0)), arguments.int(1))
    };
    "writeBytes" "([BIIZ)V" => |thread, arguments| {
        let file = file(arguments.reference(0));
        streams::write_bytes(thread, arguments, file)
    };
}
