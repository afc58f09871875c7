//! `java.lang.StackStreamFactory`: what `StackWalker` walks.
//!
//! A walk is a cursor on the thread's own frames, which stay where they are while it lasts; Java code has its number as anchor and gets frames a
//! batch at a time, as classes or as `StackFrameInfo`.

use std::cell::RefCell;

use super::java_lang_invoke::set_method;
use super::support::field;
use super::{Arguments, Table, int};
use crate::arena::Meta;
use crate::exceptions;
use crate::frame::Frame;
use crate::handle::Handle;
use crate::interpreter;
use crate::link::MethodKind;
use crate::metadata::{Class, Method, extra};
use crate::object::Reference;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    ("java/lang/StackStreamFactory", &[("checkStackWalkModes", "", super::yes)]),
    (
        "java/lang/StackStreamFactory$AbstractStackWalker",
        &[("callStackWalk", "", walk), ("fetchStackFrames", "", fetch)],
    ),
];

const CLASSES_ONLY: i64 = 0x2;
const CALLER_CLASS: i64 = 0x4;
const HIDDEN_TOO: i64 = 0x20;

thread_local! {
    /// Where the walks of this thread are, the innermost last.
    static WALKS: RefCell<Vec<Option<Frame>>> = const { RefCell::new(Vec::new()) };
}

/// Whether a frame belongs to the walk itself.
fn is_walker(class: Meta<Class>) -> bool {
    let is = |name: &[u8]| class.superclasses().any(|class| class.name.bytes() == name);
    is(b"java/lang/StackWalker") || is(b"java/lang/StackStreamFactory$AbstractStackWalker")
}

/// Fills frames into an array from an index on; the index behind the last.
fn fill(
    thread: &mut Thread,
    mode: i64,
    cursor: &mut Option<Frame>,
    frames: Handle,
    start: i32,
    count: i32,
) -> Result<i32> {
    let mut at = start;
    let limit = i32::try_from(frames.get().length()).unwrap_or(i32::MAX).min(start.saturating_add(count));
    while let Some(frame) = cursor.filter(|_| at < limit) {
        *cursor = frame.caller();
        let method = frame.method();
        if method.has(extra::HIDDEN) && (mode & HIDDEN_TOO == 0 || mode & CALLER_CLASS != 0) {
            continue;
        }
        let index = u32::try_from(at).unwrap_or(0);
        if mode & CLASSES_ONLY != 0 {
            if mode & CALLER_CLASS != 0 && at == start && method.has(extra::CALLER_SENSITIVE) {
                let message = format!(
                    "StackWalker::getCallerClass called from @CallerSensitive '{}' method",
                    method.external_name()
                );
                return Err(exceptions::throw(thread, "java/lang/UnsupportedOperationException", message));
            }
            frames.get().set_reference_element(index, method.class.mirror());
        } else {
            thread.scope(|thread| -> Result<()> {
                let info = thread.handle(frames.get().reference_element(index));
                let member =
                    info.get().reference(field!("java/lang/StackFrameInfo", "memberName", "Ljava/lang/Object;"));
                let member = thread.handle(member);
                set_method(thread, member, method.class, method, MethodKind::Special)?;
                let bci = frame.bci().map_or(0, i32::from);
                info.get().write(field!("java/lang/StackFrameInfo", "bci", "I"), bci);
                Ok(())
            })?;
        }
        at += 1;
    }
    Ok(at)
}

/// `callStackWalk(mode, skip, batch, start, frames)` of a walker: fills the first batch and calls its `doStackWalk`.
fn walk(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (mode, skip, batch, start) = (arguments.long(1), arguments.int(3), arguments.int(4), arguments.int(5));
    if arguments.reference(6).is_null() {
        return Err(exceptions::throw(thread, "java/lang/NullPointerException", "frames_array is NULL"));
    }
    let frames = thread.handle(arguments.reference(6));
    let mut cursor = thread.frames().skip(1).find(|frame| !is_walker(frame.method().class));
    for _ in 0..skip {
        cursor = cursor.and_then(Frame::caller);
    }
    let end = fill(thread, mode, &mut cursor, frames, start, batch)?;
    if end <= start {
        return Err(exceptions::throw(thread, "java/lang/InternalError", "stack walk: decode failed"));
    }
    let anchor = WALKS.with_borrow_mut(|walks| {
        walks.push(cursor);
        walks.len() as u64
    });
    let receiver = arguments.reference(0);
    let method = receiver.class().find_method(Symbol::new("doStackWalk"), Symbol::new("(JIIII)Ljava/lang/Object;"));
    let method = method.expect("AbstractStackWalker has doStackWalk");
    let number = |value: i32| u64::from(value.cast_unsigned());
    let call = [receiver.slot(), anchor, 0, number(skip), number(batch), number(start), number(end)];
    let result = interpreter::call(thread, method, &call);
    WALKS.with_borrow_mut(Vec::pop);
    result
}

/// `fetchStackFrames(mode, anchor, batch, start, frames)`: the index behind the last frame.
fn fetch(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (mode, anchor, batch, start) = (arguments.long(1), arguments.long(3), arguments.int(5), arguments.int(6));
    let frames = thread.handle(arguments.reference(7));
    let index = usize::try_from(anchor).unwrap_or(0).wrapping_sub(1);
    let Some(mut cursor) = WALKS.with_borrow(|walks| walks.get(index).copied()) else {
        return Err(exceptions::throw(thread, "java/lang/InternalError", "doStackWalk: corrupted buffers"));
    };
    let end = fill(thread, mode, &mut cursor, frames, start, batch)?;
    WALKS.with_borrow_mut(|walks| walks[index] = cursor);
    int(end)
}

/// The method and instruction of a `StackFrameInfo`.
pub(super) fn described(info: Reference) -> Option<(Meta<Method>, Option<u16>)> {
    let member = info.reference(field!("java/lang/StackFrameInfo", "memberName", "Ljava/lang/Object;"));
    let bci: i32 = info.read(field!("java/lang/StackFrameInfo", "bci", "I"));
    let method = crate::link::member_target(member)?;
    Some((method, u16::try_from(bci).ok().filter(|_| !method.is_native())))
}
