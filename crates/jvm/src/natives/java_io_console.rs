//! `java.io.Console`

use super::support::{boolean, natives};
use crate::services::files;

natives! { "java/io/Console":
    "encoding" "()Ljava/lang/String;" => |_, _| Ok(0);
    "istty" "()Z" => |_, _| Ok(boolean(files::is_terminal(0) && files::is_terminal(1)));
    // The same in later updates of JDK 17: bits of input, output and errors.
    "ttyStatus" "()I" => |_, _| Ok((0..3).map(|number| u64::from(files::is_terminal(number)) << number).sum());
    // Returns whether it was on.
    "echo" "(Z)Z" => |_, arguments| Ok(boolean(files::set_echo(arguments.boolean(0))));
}
