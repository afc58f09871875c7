//! Memory for code: bounded, filled from its beginning, never both writable and executable at one address.
//!
//! Code that runs may be changed in two ways only, each by one aligned store, so that a processor which executes it meanwhile does the old thing or the new
//! one: the target of a jump whose four bytes are aligned; and the entry of a piece of code, an instruction of five bytes that does nothing, which
//! becomes a jump or a call.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use machine::sys::CodeMapping;

/// Pieces of code begin at multiples of this.
pub const ALIGNMENT: usize = 32;

/// What the entry of a piece of code does from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It jumps to an offset.
    Jump(u32),
    /// It calls what is at an offset.
    Call(u32),
}

/// Why there is no memory for code.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The host refuses.
    #[error(
        "the host refuses {bytes} bytes of memory for code: {cause}; run without translating, or with less memory for code"
    )]
    Host {
        /// How many were asked for.
        bytes: usize,
        /// What the host said.
        cause: io::Error,
    },
    /// The size is not one that an arena can have.
    #[error("{0} bytes are no size for code memory: give some hundred kilobytes, up to a gigabyte")]
    Size(usize),
}

/// See the module.
#[derive(Debug)]
pub struct Arena {
    mapping: CodeMapping,
    used: usize,
}

impl Arena {
    /// An empty arena of `bytes`, rounded up to whole pages.
    ///
    /// # Errors
    /// See [`ArenaError`].
    pub fn new(bytes: usize) -> Result<Self, ArenaError> {
        if !(0x1000..=1 << 30).contains(&bytes) {
            return Err(ArenaError::Size(bytes));
        }
        let size = bytes.next_multiple_of(0x1000);
        let mapping = CodeMapping::new(size).map_err(|cause| ArenaError::Host { bytes, cause })?;
        Ok(Self { mapping, used: 0 })
    }

    /// The address of the first byte where it is executed.
    #[must_use]
    pub fn execute_base(&self) -> *const u8 {
        self.mapping.execute().as_ptr()
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        // An arena is at most a gigabyte.
        u32::try_from(self.used).unwrap_or(u32::MAX)
    }

    /// Copies `code` to where it will be executed; answers its offset, or `None` if there is no room.
    pub fn allocate(&mut self, code: &[u8]) -> Option<u32> {
        let start = self.used.next_multiple_of(ALIGNMENT);
        let end = start.checked_add(code.len()).filter(|end| *end <= self.mapping.size())?;
        // SAFETY: the range is inside the writable view and not in use, so nobody executes it; `code` is elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.mapping.write().as_ptr().add(start), code.len()) };
        self.used = end;
        u32::try_from(start).ok()
    }

    /// Gives back everything from offset `end` on. Nobody executes it any more.
    pub fn reset(&mut self, end: u32) {
        self.used = self.used.min(end as usize);
    }

    fn displacement(&self, jump: u32) -> Option<&AtomicI32> {
        let at = jump as usize + 1;
        if at + 4 > self.used || !at.is_multiple_of(4) {
            return None;
        }
        // SAFETY: inside the writable view, aligned, and written as a whole only by way of such atomics once published.
        Some(unsafe { AtomicI32::from_ptr(self.mapping.write().as_ptr().add(at).cast()) })
    }

    /// Where the jump or call at offset `jump` leads to: an offset. It was emitted as one that can be patched.
    #[must_use]
    pub fn jump_target(&self, jump: u32) -> u32 {
        let Some(displacement) = self.displacement(jump) else { return jump };
        (jump + 5).wrapping_add_signed(displacement.load(Ordering::Relaxed))
    }

    /// Makes the jump or call at offset `jump` lead to `target`, both in use.
    pub fn patch_jump(&self, jump: u32, target: u32) {
        if let Some(displacement) = self.displacement(jump) {
            displacement.store(target.wrapping_sub(jump + 5).cast_signed(), Ordering::Release);
        }
    }

    /// Changes the entry at offset `start` of a piece of code, which begins with [`Assembler::entry`](crate::x64::Assembler::entry), or with another
    /// instruction of at least as many bytes.
    pub fn patch_entry(&self, start: u32, entry: Entry) {
        let at = start as usize;
        if at + 8 > self.used || !at.is_multiple_of(8) {
            return;
        }
        let (opcode, target) = match entry {
            Entry::Jump(target) => (0xe9, target),
            Entry::Call(target) => (0xe8, target),
        };
        // SAFETY: inside the writable view, aligned, and written only by way of such atomics once published.
        let bytes = unsafe { AtomicU64::from_ptr(self.mapping.write().as_ptr().add(at).cast()) };
        let behind = bytes.load(Ordering::Relaxed) & !0xff_ffff_ffff;
        bytes.store(behind | u64::from(target.wrapping_sub(start + 5)) << 8 | opcode, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x64::{Assembler, Gpr};

    fn constant(value: u64) -> Vec<u8> {
        let mut asm = Assembler::new();
        asm.mov_imm(Gpr::Rax, value);
        asm.ret();
        asm.finish()
    }

    fn call(arena: &Arena, offset: u32) -> u64 {
        // SAFETY: the offset is that of a function without arguments which was just put there.
        let function: extern "sysv64" fn() -> u64 =
            unsafe { std::mem::transmute(arena.execute_base().add(offset as usize)) };
        function()
    }

    #[test]
    fn code_runs_and_jumps_are_patched() {
        let mut arena = Arena::new(0x1000).unwrap();
        let (one, two) = (arena.allocate(&constant(1)).unwrap(), arena.allocate(&constant(2)).unwrap());
        let mut asm = Assembler::new();
        let label = asm.label();
        let site = asm.jmp_patchable(label);
        asm.bind(label);
        asm.mov_imm(Gpr::Rax, 3);
        asm.ret();
        let jump = arena.allocate(&asm.finish()).unwrap();
        assert_eq!((call(&arena, one), call(&arena, two), call(&arena, jump)), (1, 2, 3));
        let before = arena.jump_target(jump + site);
        arena.patch_jump(jump + site, two);
        assert_eq!(call(&arena, jump), 2);
        arena.patch_jump(jump + site, before);
        assert_eq!(call(&arena, jump), 3);
    }

    #[test]
    fn an_entry_becomes_a_jump_and_a_call() {
        let mut arena = Arena::new(0x1000).unwrap();
        let mut entered = Assembler::new();
        entered.entry();
        let mut code = entered.finish();
        code.extend(constant(1));
        let start = arena.allocate(&code).unwrap();
        let other = arena.allocate(&constant(2)).unwrap();
        let mut pops = Assembler::new();
        pops.pop(Gpr::Rax);
        pops.ret();
        let pops = arena.allocate(&pops.finish()).unwrap();
        assert_eq!(call(&arena, start), 1);
        arena.patch_entry(start, Entry::Jump(other));
        assert_eq!(call(&arena, start), 2);
        arena.patch_entry(start, Entry::Call(pops));
        assert_eq!(call(&arena, start), arena.execute_base() as u64 + u64::from(start) + 5);
    }

    #[test]
    fn it_is_bounded() {
        let mut arena = Arena::new(0x1000).unwrap();
        assert!(matches!(Arena::new(0), Err(ArenaError::Size(0))));
        let floor = arena.allocate(&[0xc3; 64]).map(|_| arena.used()).unwrap();
        while arena.allocate(&[0xc3; 1000]).is_some() {}
        assert!(arena.used() <= 0x1000);
        arena.reset(floor);
        assert!(arena.allocate(&[0xc3; 1000]).is_some());
    }
}
