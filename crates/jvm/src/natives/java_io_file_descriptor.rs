//! `java.io.FileDescriptor`

use super::support::{VOID, boolean, descriptor, io_exception, natives, set_descriptor, waiting};
use crate::exceptions;
use crate::services::files;

natives! { "java/io/FileDescriptor":
    "initIDs" "()V" => |_, _| Ok(VOID);
    // Windows alone has handles.
    "getHandle" "(I)J" => |_, _| Ok(super::support::long(-1));
    "getAppend" "(I)Z" => |_, arguments| Ok(boolean(files::appends(arguments.int(0))));
    "sync" "()V" => |thread, arguments| {
        let number = descriptor(arguments.reference(0));
        match waiting(thread, || files::flush(number, true)) {
            Ok(()) => Ok(VOID),
            Err(_) => Err(exceptions::throw(thread, "java/io/SyncFailedException", "sync failed")),
        }
    };
    "close0" "()V" => |thread, arguments| {
        let object = arguments.reference(0);
        let number = descriptor(object);
        if number < 0 {
            return Ok(VOID);
        }
        // Before it is closed, so that no other thread uses the number for what is opened next.
        set_descriptor(object, -1);
        waiting(thread, || files::close(number)).map(|()| VOID).map_err(|failure| io_exception(thread, &failure))
    };
}
