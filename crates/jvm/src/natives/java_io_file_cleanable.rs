//! `java.io.FileCleanable`

use super::support::{VOID, io_exception, natives};
use crate::services::files;

natives! { "java/io/FileCleanable":
    "cleanupClose0" "(IJ)V" => |thread, arguments| {
        let number = arguments.int(0);
        if number < 0 {
            return Ok(VOID);
        }
        files::close(number).map(|()| VOID).map_err(|failure| io_exception(thread, &failure))
    };
}
