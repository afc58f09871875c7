//! Threads of a machine's monitor.

use std::thread::Builder;

/// Less than a huge page: one that lies within a stack would be resident whole from its thread's first step on.
const STACK_BYTES: usize = 1 << 20;

/// A thread that serves a machine, to be spawned: it runs no guest's code that is compiled, and none that recurses.
pub fn thread(name: impl Into<String>) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK_BYTES)
}
