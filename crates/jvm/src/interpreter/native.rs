//! Calling Rust functions that implement native methods.

use std::sync::atomic::Ordering;

use super::pop_frame;
use crate::agent;
use crate::arena::Meta;
use crate::exceptions;
use crate::frame::{CALLER, ENTERED, HEADER, LOCK, METHOD, PC, SP};
use crate::jni;
use crate::metadata::{Entry, Method};
use crate::monitor;
use crate::natives;
use crate::object::Reference;
use crate::services;
use crate::thread::{Result, Thread};

/// The arguments of a native method, receiver first: slots of its frame, where the collector updates them. A `long` or `double` takes two.
#[derive(Clone, Copy, Debug)]
pub struct Arguments(*mut u64);

impl Arguments {
    /// The slot at `index`.
    #[inline(always)]
    pub fn slot(self, index: usize) -> u64 {
        // SAFETY: natives ask for slots that their descriptor has.
        unsafe { self.0.add(index).read() }
    }

    /// The address of the slot at `index`.
    pub(crate) fn address(self, index: usize) -> usize {
        self.0.wrapping_add(index).expose_provenance()
    }

    /// The reference at `index`, as it is now: read it again after what may collect.
    #[inline(always)]
    pub fn reference(self, index: usize) -> Reference {
        Reference::of_slot(self.slot(index))
    }

    /// The `int`, or smaller number, at `index`.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "an int has the low half of a slot")]
    pub fn int(self, index: usize) -> i32 {
        (self.slot(index) as u32).cast_signed()
    }

    /// The `boolean` at `index`.
    pub fn boolean(self, index: usize) -> bool {
        self.int(index) & 1 != 0
    }

    /// The `long` at `index`.
    #[inline(always)]
    pub fn long(self, index: usize) -> i64 {
        self.slot(index).cast_signed()
    }

    /// The `float` at `index`.
    pub fn float(self, index: usize) -> f32 {
        f32::from_bits(self.int(index).cast_unsigned())
    }

    /// The `double` at `index`.
    pub fn double(self, index: usize) -> f64 {
        f64::from_bits(self.slot(index))
    }
}

/// A native method in Rust. The result is a slot.
pub type Function = fn(&mut Thread, Arguments) -> Result<u64>;

/// Calls a native method whose arguments are at `base`.
#[inline(never)]
pub(super) fn call_native(thread: &mut Thread, method: Meta<Method>, base: *mut u64) -> Result<u64> {
    let frame = base.wrapping_add(method.max_locals as usize);
    let stack = frame.wrapping_add(HEADER);
    if stack >= thread.stack_limit {
        return Err(exceptions::stack_overflow(thread));
    }
    // SAFETY: the frame ends before the limit of the stack.
    unsafe {
        frame.add(METHOD).write(u64::from(method.offset()));
        frame.add(PC).write(0);
        frame.add(SP).write(stack.addr() as u64);
        frame.add(CALLER).write(thread.frame.expose_provenance() as u64 | ENTERED);
        frame.add(LOCK).write(0);
    }
    thread.frame = frame;
    let mark = thread.handles.mark();
    let result = call_function(thread, method, base, frame);
    thread.handles.release(mark);
    // SAFETY: the native has popped whatever it pushed.
    unsafe { pop_frame(thread, frame) };
    result
}

/// Finds the function of a native method: by its name, or by the one that it had before agents put prefixes to it.
fn link_function(thread: &mut Thread, method: Meta<Method>) -> Result<()> {
    for name in agent::original_names(method.name.bytes()) {
        let function = match natives::find(method, name) {
            None if jni::find(thread, method, name)? => return Ok(()),
            None => natives::sets_up(method, name).then_some(natives::nothing as Function),
            found => found,
        };
        if let Some(function) = function {
            method.native.store(function as usize, Ordering::Release);
            method.set_entry(Entry::Native);
            return Ok(());
        }
    }
    let mut text = crate::link::method_text(method.class, method.name, method.descriptor);
    // It may be in a library of the JDK that was not loaded.
    if method.class.trusted
        && let Err(refusal) = services::allow_native_code("that has it")
    {
        text = format!("{text}: {refusal}");
    }
    Err(exceptions::throw(thread, "java/lang/UnsatisfiedLinkError", text))
}

fn call_function(thread: &mut Thread, method: Meta<Method>, base: *mut u64, frame: *mut u64) -> Result<u64> {
    if method.entry() == Entry::NativeUnlinked {
        link_function(thread, method)?;
    }
    // SAFETY: only `Function`s are stored, before the entry says so.
    let function = unsafe { std::mem::transmute::<usize, Function>(method.native.load(Ordering::Acquire)) };
    if !method.is_synchronized() {
        return function(thread, Arguments(base));
    }
    super::lock_method_of_native(thread, method, base, frame)?;
    let result = function(thread, Arguments(base));
    // SAFETY: the frame is still there.
    let object = Reference::of_slot(unsafe { frame.add(LOCK).read() });
    monitor::exit(thread, object)?;
    result
}
