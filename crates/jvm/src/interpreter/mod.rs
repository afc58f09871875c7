//! The interpreter.
//!
//! ```text
//! Rust: call(method, arguments) --> frame marked as entered --> run: one loop over bytecodes
//!                                                                |  Java calls Java: another frame, the same loop
//!                                                                |  Java calls native: a Rust function, between two instructions
//!                                                                v
//!                                              returns from the entered frame, or leaves it by an exception
//! ```
//!
//! An instruction that needs a constant resolves it once and then replaces its own opcode by a quick one ([`quick`]) with the same operands;
//! what resolution found is in the constant pool. Opcodes are single bytes, written and read atomically, so threads may do so at the same time:
//! who reads the old opcode finds the constant resolved. `invokedynamic` has the number of its call site as operand, put there when the class
//! was made.
//!
//! The current instruction, the stack pointer and the frame are in host registers; before anything that may allocate, block, throw or look at
//! the stack they are written to the frame.

mod messages;
mod native;
mod null_pointer;
mod quick;
mod run;
mod slow;
mod unwind;

pub use native::{Arguments, Function};
pub(crate) use null_pointer::message as null_pointer_message;
pub(crate) use slow::{arrays, new_instance};

use crate::arena::Meta;
use crate::exceptions;
use crate::frame::{CALLER, ENTERED, HEADER, LOCK, METHOD, PC, SP};
use crate::metadata::{Entry, Method};
use crate::monitor;
use crate::object::Reference;
use crate::thread::{NESTED_MAX, Result, Thread};

/// The code of a method as it is in the class file.
pub fn original_code(method: &Method) -> Vec<u8> {
    let mut code = method.code.get().to_vec();
    let mut at = 0;
    while at < code.len() {
        code[at] = quick::original(code[at]);
        if code[at] == 0xBA
            && let Some(&[a, b, c, d]) = code[at..].get(1..5).and_then(<[u8]>::first_chunk)
        {
            let site = &method.constants().call_sites.get()[u32::from_ne_bytes([a, b, c, d]) as usize];
            let [high, low] = site.constant.to_be_bytes();
            code[at + 1..at + 5].copy_from_slice(&[high, low, 0, 0]);
        }
        let Some(offset) = u16::try_from(at).ok() else { break };
        match classfile::opcode::Instruction::decode(&code, offset) {
            Ok(instruction) => at = instruction.end() as usize,
            Err(_) => break,
        }
    }
    code
}

/// Calls a method from Rust. The arguments are slots; references in them are read from handles just before. The result is a slot.
///
/// # Errors
/// If the method throws.
pub fn call(thread: &mut Thread, method: Meta<Method>, arguments: &[u64]) -> Result<u64> {
    debug_assert_eq!(arguments.len(), method.argument_slots as usize, "arguments of {}", method.external_name());
    let base = thread.stack_top();
    if thread.nested > NESTED_MAX || base.wrapping_add(arguments.len() + HEADER) >= thread.stack_limit {
        return Err(exceptions::stack_overflow(thread));
    }
    // SAFETY: there is room up to the limit.
    unsafe { base.copy_from_nonoverlapping(arguments.as_ptr(), arguments.len()) };
    thread.nested += 1;
    let result = enter(thread, method, base);
    thread.nested -= 1;
    result
}

fn enter(thread: &mut Thread, method: Meta<Method>, base: *mut u64) -> Result<u64> {
    let mut method = method;
    loop {
        match method.entry() {
            Entry::Bytecode => {
                push_frame(thread, method, base, ENTERED)?;
                return run::run(thread);
            }
            Entry::Native | Entry::NativeUnlinked => return native::call_native(thread, method, base),
            _ => method = slow::redirect(thread, method, base)?,
        }
    }
}

/// Pushes the frame of a method whose arguments are at `base`, and locks if it is synchronized. `mark` goes with the caller's frame.
#[inline(always)]
pub(crate) fn push_frame(thread: &mut Thread, method: Meta<Method>, base: *mut u64, mark: u64) -> Result<*mut u64> {
    let locals = method.max_locals as usize;
    let frame = base.wrapping_add(locals);
    let stack = frame.wrapping_add(HEADER);
    if stack.wrapping_add(method.max_stack as usize) >= thread.stack_limit {
        return Err(exceptions::stack_overflow(thread));
    }
    // SAFETY: the frame ends before the limit of the stack.
    unsafe {
        frame.add(METHOD).write(u64::from(method.offset()));
        frame.add(PC).write(method.code.as_ptr().addr() as u64);
        frame.add(SP).write(stack.addr() as u64);
        frame.add(CALLER).write(thread.frame.expose_provenance() as u64 | mark);
        frame.add(LOCK).write(0);
    }
    thread.frame = frame;
    method.calls.store(
        method.calls.load(std::sync::atomic::Ordering::Relaxed).wrapping_add(1),
        std::sync::atomic::Ordering::Relaxed,
    );
    if method.is_synchronized() {
        lock_method(thread, method, base, frame)?;
    }
    Ok(frame)
}

/// Locks for a synchronized method, whose frame is pushed; pops it if that throws.
#[inline(never)]
fn lock_method(thread: &mut Thread, method: Meta<Method>, base: *mut u64, frame: *mut u64) -> Result<()> {
    let result = lock_method_of_native(thread, method, base, frame);
    if result.is_err() {
        // SAFETY: it is the youngest frame.
        unsafe { pop_frame(thread, frame) };
    }
    result
}

/// Locks for a synchronized method, whose frame is pushed.
fn lock_method_of_native(thread: &mut Thread, method: Meta<Method>, base: *mut u64, frame: *mut u64) -> Result<()> {
    let object = if method.is_static() {
        method.class.mirror()
    } else {
        // SAFETY: the receiver is the first argument.
        Reference::of_slot(unsafe { base.read() })
    };
    monitor::enter(thread, object)?;
    // SAFETY: the frame is there; the object may have moved while the thread waited, so it is read again.
    unsafe {
        let object = if method.is_static() { method.class.mirror() } else { Reference::of_slot(base.read()) };
        frame.add(LOCK).write(object.slot());
    }
    Ok(())
}

/// Makes the caller's frame the youngest; whether Rust code had called.
///
/// # Safety
/// `frame` is the youngest frame.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "a host address")]
unsafe fn pop_frame(thread: &mut Thread, frame: *mut u64) -> bool {
    // SAFETY: the caller's promise.
    let caller = unsafe { frame.add(CALLER).read() };
    thread.frame = std::ptr::with_exposed_provenance_mut((caller & !ENTERED) as usize);
    caller & ENTERED != 0
}
