//! Frames of Java methods: one format, which the interpreter, stack walks and the collector read.
//!
//! ```text
//!      caller's operand stack ...
//! +---------------------+  <- locals; the arguments are where the caller pushed them
//! | locals              |
//! +---------------------+  <- frame
//! | method              |
//! | program counter     |  address of the current instruction, when control is elsewhere; 0 in a native frame
//! | stack pointer       |  behind the last operand, when control is elsewhere
//! | caller's frame      |  low bit: Rust code called, control returns to it
//! | lock                |  the object that a synchronized method holds
//! +---------------------+
//! | operand stack       |  a slot is 8 bytes; long and double take two, the value is in the first
//! +---------------------+
//! ```

use crate::arena::Meta;
use crate::metadata::Method;
use crate::object::Reference;

/// Slots of the header.
pub const HEADER: usize = 5;
/// Slot of the method.
pub const METHOD: usize = 0;
/// Slot of the program counter.
pub const PC: usize = 1;
/// Slot of the stack pointer.
pub const SP: usize = 2;
/// Slot of the caller's frame.
pub const CALLER: usize = 3;
/// Slot of the lock.
pub const LOCK: usize = 4;
/// In the slot of the caller's frame: Rust code called.
pub const ENTERED: u64 = 1;

/// A frame that is not being changed.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pointer: *mut u64,
}

impl Frame {
    /// The frame at an address.
    ///
    /// # Safety
    /// There is one, and its thread stands still or is the current one.
    pub unsafe fn at(pointer: *mut u64) -> Option<Self> {
        (!pointer.is_null()).then_some(Self { pointer })
    }

    fn slot(self, index: usize) -> u64 {
        // SAFETY: a frame has a header.
        unsafe { self.pointer.add(index).read() }
    }

    /// Where it is.
    pub fn pointer(self) -> *mut u64 {
        self.pointer
    }

    /// Its method.
    #[allow(clippy::cast_possible_truncation, reason = "the slot holds an offset")]
    pub fn method(self) -> Meta<Method> {
        // SAFETY: the slot of the method always holds one.
        unsafe { Meta::from_offset(self.slot(METHOD) as u32) }.expect("a frame has a method")
    }

    /// Lets it go on as one of another method, which has the same code.
    pub fn set_method(self, method: Meta<Method>) {
        // SAFETY: a frame has a header, which is not being changed otherwise.
        unsafe { self.pointer.add(METHOD).write(u64::from(method.offset())) };
    }

    /// The index of its current instruction; `None` in a native frame.
    pub fn bci(self) -> Option<u16> {
        let pc = usize::try_from(self.slot(PC)).ok().filter(|&pc| pc != 0)?;
        u16::try_from(pc - self.method().code.as_ptr().addr()).ok()
    }

    /// Its first local variable.
    pub fn locals(self) -> *mut u64 {
        // SAFETY: locals are before the header.
        unsafe { self.pointer.sub(self.method().max_locals as usize) }
    }

    /// Its first operand.
    pub fn stack(self) -> *mut u64 {
        // SAFETY: operands are behind the header.
        unsafe { self.pointer.add(HEADER) }
    }

    /// Slots of operands.
    pub fn depth(self) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "a host address")]
        let end = self.slot(SP) as usize;
        (end - self.stack().addr()) / 8
    }

    /// The slot with the object that it holds as a synchronized method; 0: none.
    pub fn lock(self) -> *mut u64 {
        // SAFETY: in the header.
        unsafe { self.pointer.add(LOCK) }
    }

    /// The object that it holds as a synchronized method.
    pub fn locked(self) -> Reference {
        Reference::of_slot(self.slot(LOCK))
    }

    /// Whether Rust code called it.
    pub fn is_entered(self) -> bool {
        self.slot(CALLER) & ENTERED != 0
    }

    /// The frame that it returns to, across Rust code.
    pub fn caller(self) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation, reason = "a host address")]
        let address = (self.slot(CALLER) & !ENTERED) as usize;
        // SAFETY: the slot holds the caller's frame or 0.
        unsafe { Self::at(std::ptr::with_exposed_provenance_mut(address)) }
    }
}
