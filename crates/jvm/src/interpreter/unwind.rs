//! Leaving frames by an exception (JVMS 2.10).

use super::pop_frame;
use crate::frame::{HEADER, LOCK, PC, SP};
use crate::link;
use crate::monitor;
use crate::object::Reference;
use crate::thread::{Result, Thread, Thrown};

/// Finds the handler of the pending exception in the frames of this run of the loop. The frame with the handler is the youngest then, its saved
/// program counter is at the handler, and the exception is its only operand.
///
/// # Errors
/// If there is none: then the frame that Rust code called is gone.
#[inline(never)]
pub(super) fn unwind(thread: &mut Thread) -> Result<()> {
    loop {
        let frame = thread.top_frame().expect("the loop runs in a frame");
        let pointer = frame.pointer();
        if let Some(target) = handler(thread) {
            // Resolving a class may have had this code replaced.
            let code = frame.method().code.as_ptr().wrapping_add(target as usize);
            let exception = thread.take_exception();
            // SAFETY: the frame has room for an operand, since the method has a handler.
            unsafe {
                pointer.add(HEADER).write(exception.slot());
                pointer.add(PC).write(code.addr() as u64);
                pointer.add(SP).write(pointer.add(HEADER + 1).addr() as u64);
            }
            return Ok(());
        }
        // SAFETY: the frame has a header.
        let lock = Reference::of_slot(unsafe { pointer.add(LOCK).read() });
        if !lock.is_null() {
            thread.scope(|thread| {
                let exception = thread.take_exception();
                let exception = thread.handle(exception);
                if monitor::exit(thread, lock).is_ok() {
                    thread.throw(exception.get());
                }
            });
        }
        // SAFETY: it is the youngest frame.
        if unsafe { pop_frame(thread, pointer) } {
            return Err(Thrown);
        }
    }
}

/// Where the youngest frame handles the pending exception.
fn handler(thread: &mut Thread) -> Option<u16> {
    let frame = thread.top_frame()?;
    let method = frame.method();
    let (pool, bci) = (method.constants(), frame.bci()?);
    for handler in method.handlers.get() {
        if bci < handler.start || bci >= handler.end {
            continue;
        }
        if handler.catch_type == 0 {
            return Some(handler.target);
        }
        let caught = match pool.class_at(handler.catch_type) {
            Some(class) => class,
            None => {
                let mark = thread.handles.mark();
                let exception = thread.take_exception();
                let exception = thread.handle(exception);
                let resolved = link::resolve_class(thread, pool, handler.catch_type);
                if resolved.is_ok() {
                    thread.throw(exception.get());
                }
                thread.handles.release(mark);
                // What resolving throws takes the place of the exception, and is looked for again from the first handler on.
                match resolved {
                    Ok(class) => class,
                    Err(_) => return self::handler(thread),
                }
            }
        };
        if thread.exception.class().is_subtype_of(caught) {
            return Some(handler.target);
        }
    }
    None
}
