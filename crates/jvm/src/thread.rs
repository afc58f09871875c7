//! Threads that run Java code.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use machine::sys::Mapping;

use crate::bootstrap;
use crate::frame::{Frame, HEADER};
use crate::handle::{Global, Handle, Handles};
use crate::heap::Buffer;
use crate::jni::{self, Environment};
use crate::object::Reference;
use crate::safepoint::Control;
use crate::services::process;

/// A Java exception is pending in the thread. It carries nothing, so that it fits a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thrown;

/// The result of what may throw.
pub type Result<T> = std::result::Result<T, Thrown>;

/// Bytes of a thread's Java stack, if nothing else is said.
pub const STACK_SIZE: usize = 1 << 20;
static STACK_BYTES: AtomicUsize = AtomicUsize::new(STACK_SIZE);

/// Sets how large the Java stacks of threads are; 0: as large as is usual.
pub(crate) fn set_stack_size(bytes: usize) {
    if bytes > 0 {
        STACK_BYTES.store(bytes.next_multiple_of(4096), Ordering::Relaxed);
    }
}
/// Slots at the end that are only used to throw StackOverflowError.
const RESERVE: usize = 4096;
/// Calls from Rust into Java that may be nested, bounded by the host's stack.
pub const NESTED_MAX: u32 = 2500;
/// Bytes of host stack for a thread.
pub const HOST_STACK_SIZE: usize = 64 << 20;

/// A thread in the list of all.
struct Member(*mut Thread);
// SAFETY: only followed while the world is stopped.
unsafe impl Send for Member {}

static THREADS: Mutex<Vec<Member>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: Cell<*mut Thread> = const { Cell::new(std::ptr::null_mut()) };
}

/// A thread. Only itself uses it mutably; others read what is atomic, or everything while it stands still.
#[derive(Debug)]
pub struct Thread {
    /// Where it allocates.
    pub buffer: Buffer,
    /// Not 0: stop at the next safe point.
    pub poll: Box<AtomicU32>,
    /// The youngest frame.
    pub(crate) frame: *mut u64,
    /// Behind which no frame may end.
    pub(crate) stack_limit: *mut u64,
    /// Calls from Rust into Java that are nested now.
    pub(crate) nested: u32,
    /// The pending exception.
    pub(crate) exception: Reference,
    /// Number of the thread, 1 to 65,535: the owner in thin locks.
    pub id: u16,
    /// Handles.
    pub handles: Handles,
    /// The `java.lang.Thread`.
    pub object: Option<Global>,
    /// What others know of it.
    pub control: Arc<Control>,
    /// What it waits for: a lock, or to be notified.
    pub(crate) waiting: Reference,
    /// Whether transformers of agents see a class file: the classes that they need they do not see.
    pub(crate) transforming: bool,
    /// Number of the host's thread.
    pub(crate) host_id: i32,
    /// When it began, by the clock of `System.nanoTime`.
    pub(crate) started_ns: u64,
    /// What C code knows of it; null: nothing yet.
    pub(crate) jni: *mut Environment,
    stack: Mapping,
}

impl Thread {
    /// Makes a thread of this host thread.
    ///
    /// # Errors
    /// If the host refuses memory.
    pub fn attach(id: u16) -> io::Result<&'static mut Self> {
        let size = STACK_BYTES.load(Ordering::Relaxed);
        let stack = Mapping::new(size)?;
        let start = stack.start().as_ptr().cast::<u64>();
        let handles = Handles::new()?;
        let poll = Box::<AtomicU32>::default();
        let control = Control::enter_world(id, &poll);
        let thread = Box::leak(Box::new(Self {
            buffer: Buffer::default(),
            poll,
            frame: std::ptr::null_mut(),
            stack_limit: start.wrapping_add(size / 8 - RESERVE),
            nested: 0,
            exception: Reference::NULL,
            id,
            handles,
            object: None,
            control,
            waiting: Reference::NULL,
            transforming: false,
            host_id: process::thread_id(),
            started_ns: bootstrap::clock().now_ns(),
            jni: std::ptr::null_mut(),
            stack,
        }));
        CURRENT.set(thread);
        THREADS.lock().unwrap_or_else(PoisonError::into_inner).push(Member(&raw mut *thread));
        Ok(thread)
    }

    /// Ends the thread of this host thread: it has no frames any more, and its memory is given back.
    pub fn detach(&'static mut self) {
        jni::free_environment(self);
        let own = &raw mut *self;
        THREADS.lock().unwrap_or_else(PoisonError::into_inner).retain(|member| member.0 != own);
        self.control.leave_world();
        CURRENT.set(std::ptr::null_mut());
        // SAFETY: `attach` made it of a box; this was the only reference to it, and it is in no list any more.
        drop(unsafe { Box::from_raw(own) });
    }

    /// Allows fewer nested calls to a thread whose host stack is smaller than [`HOST_STACK_SIZE`].
    pub(crate) fn limit_nesting(&mut self, stack_left: usize) {
        let allowed = stack_left.saturating_sub(64 << 10) / (HOST_STACK_SIZE / NESTED_MAX as usize);
        self.nested = NESTED_MAX.saturating_sub(u32::try_from(allowed).unwrap_or(NESTED_MAX));
    }

    /// Runs what waits for an object, which the thread dump tells meanwhile.
    pub(crate) fn waiting<T>(&mut self, object: Reference, body: impl FnOnce(&mut Self) -> T) -> T {
        self.waiting = object;
        let result = body(self);
        self.waiting = Reference::NULL;
        result
    }

    /// Runs what may wait for the host: it touches no object.
    pub fn blocked<T>(&mut self, body: impl FnOnce() -> T) -> T {
        self.control.clone().blocked(body)
    }

    /// Whether this host thread is a thread of the virtual machine.
    pub(crate) fn is_attached() -> bool {
        !CURRENT.get().is_null()
    }

    /// Notes that the current thread accessed memory that is lost, for which it throws InternalError soon; whether it is a thread of the virtual machine. For
    /// handlers of signals.
    pub(crate) fn note_fault() -> bool {
        let own = CURRENT.get();
        if own.is_null() {
            return false;
        }
        // SAFETY: the thread is there, and its control stays the same; what that has is atomic.
        unsafe { (*own).control.note_fault() };
        true
    }

    /// The thread of this host thread, for code that no caller can hand it to.
    ///
    /// # Safety
    /// No other exclusive reference to it is used while this one is.
    pub unsafe fn current() -> &'static mut Self {
        // SAFETY: set by `attach` and never freed while the host thread runs.
        unsafe { &mut *CURRENT.get() }
    }

    /// A new handle.
    pub fn handle(&self, reference: Reference) -> Handle {
        self.handles.make(reference)
    }

    /// Runs `body` and gives back the handles that it made.
    pub fn scope<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let mark = self.handles.mark();
        let value = body(self);
        self.handles.release(mark);
        value
    }

    /// Where the next frame's arguments go when Rust code calls.
    pub(crate) fn stack_top(&self) -> *mut u64 {
        match self.top_frame() {
            // SAFETY: operands are behind the header, and the saved stack pointer is behind them.
            Some(frame) => unsafe { frame.pointer().add(HEADER + frame.depth()) },
            None => self.stack.start().as_ptr().cast(),
        }
    }

    /// The youngest frame.
    pub fn top_frame(&self) -> Option<Frame> {
        // SAFETY: `frame` is the youngest frame or null, and the thread is this or stands still.
        unsafe { Frame::at(self.frame) }
    }

    /// Frames from the youngest on.
    pub fn frames(&self) -> impl Iterator<Item = Frame> + use<> {
        std::iter::successors(self.top_frame(), |frame| frame.caller())
    }

    /// Allows the reserve of the stack to be used, while StackOverflowError is made.
    pub(crate) fn with_reserve<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let limit = self.stack_limit;
        let end = self.stack.start().as_ptr().cast::<u64>().wrapping_add(self.stack.size() / 8 - 64);
        let nested = self.nested;
        self.stack_limit = end;
        self.nested = nested.saturating_sub(200);
        let value = body(self);
        self.stack_limit = limit;
        self.nested = nested;
        value
    }

    /// Takes the pending exception.
    pub fn take_exception(&mut self) -> Reference {
        std::mem::take(&mut self.exception)
    }

    /// Makes an exception pending.
    pub fn throw(&mut self, exception: Reference) -> Thrown {
        debug_assert!(!exception.is_null(), "null is not thrown");
        self.exception = exception;
        Thrown
    }

    /// Roots of the thread that are not in frames.
    pub fn visit_roots(&mut self, mut visitor: impl FnMut(*mut u32)) {
        visitor(&raw mut self.exception.0);
        visitor(&raw mut self.waiting.0);
        self.handles.visit(visitor);
    }
}

/// All threads, while the world is stopped.
pub(crate) fn visit_all(mut visit: impl FnMut(&mut Thread)) {
    for member in THREADS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // SAFETY: the world is stopped: its thread uses nothing of it.
        visit(unsafe { &mut *member.0 });
    }
}
