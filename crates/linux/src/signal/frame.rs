//! The frame that a signal handler finds on its stack, and that `rt_sigreturn` reads back.
//!
//! ```text
//! sp -> +0     siginfo     128 bytes
//!       +128   ucontext:
//!              +0    uc_flags, uc_link
//!              +16   uc_stack (sp, flags, size)
//!              +40   uc_sigmask, and room for 1024 signals
//!              +176  sc_regs: pc, x1 ... x31
//!              +432  sc_fpregs: f0 ... f31, fcsr; padded to the size of Q; an empty list of extensions
//! ```
//!
//! Linux: `arch/riscv/kernel/signal.c`, `asm/ucontext.h`, `asm/sigcontext.h`, `asm/ptrace.h`. The mask stands before the registers: another
//! order than on most architectures.

/// Bytes of `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;
/// Where `ucontext` is in the frame.
pub const UCONTEXT: usize = SIGINFO_SIZE;
/// Bytes of the whole frame.
pub const FRAME_SIZE: usize = UCONTEXT + REGISTERS + 256 + 528;

const STACK: usize = 16;
const MASK: usize = 40;
const REGISTERS: usize = 176;
const FLOATS: usize = REGISTERS + 256;
const FCSR: usize = FLOATS + 256;

/// What `sigaltstack` sets: `stack_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlternateStack {
    /// Its lowest address.
    pub base: u64,
    /// [`SS_DISABLE`], [`SS_AUTODISARM`], and in answers [`SS_ONSTACK`].
    pub flags: u32,
    /// Bytes.
    pub size: u64,
}

/// The thread executes on the stack: only in answers.
pub const SS_ONSTACK: u32 = 1;
/// There is none.
pub const SS_DISABLE: u32 = 2;
/// The stack is forgotten while a handler runs on it.
pub const SS_AUTODISARM: u32 = 1 << 31;
/// Less is refused: `MINSIGSTKSZ`.
pub const STACK_SIZE_MIN: u64 = 2048;

impl AlternateStack {
    /// Bytes of `stack_t`.
    pub const SIZE: usize = 24;
    /// No stack.
    pub const NONE: Self = Self { base: 0, flags: SS_DISABLE, size: 0 };

    /// Whether `sp` is on it. A stack that disarms itself is never found in use.
    #[must_use]
    pub fn holds(&self, sp: u64) -> bool {
        self.flags & (SS_DISABLE | SS_AUTODISARM) == 0 && sp > self.base && sp - self.base <= self.size
    }

    /// What `sigaltstack` answers to a thread whose stack pointer is `sp`.
    #[must_use]
    pub fn seen_from(&self, sp: u64) -> Self {
        let on = if self.holds(sp) { SS_ONSTACK } else { 0 };
        Self { flags: self.flags | on, ..*self }
    }

    /// Reads `stack_t`.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        let flags = long(bytes, 8) & 0xffff_ffff;
        Self { base: long(bytes, 0), flags: u32::try_from(flags).unwrap_or(0), size: long(bytes, 16) }
    }

    /// Writes `stack_t`.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(&mut bytes, 0, self.base);
        put(&mut bytes, 8, self.flags.into());
        put(&mut bytes, 16, self.size);
        bytes
    }
}

/// Everything a handler may look at and change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The alternate stack at the time of the signal.
    pub stack: AlternateStack,
    /// The signals that were blocked; bit 0 is signal 1.
    pub mask: u64,
    /// The address of the next instruction.
    pub pc: u64,
    /// x0 to x31; the first is not kept.
    pub x: [u64; 32],
    /// f0 to f31.
    pub f: [u64; 32],
    /// Rounding mode and accrued exceptions.
    pub fcsr: u32,
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

impl Context {
    /// The whole frame.
    #[must_use]
    pub fn to_frame(&self, info: &[u8; SIGINFO_SIZE]) -> [u8; FRAME_SIZE] {
        let mut frame = [0; FRAME_SIZE];
        frame[..SIGINFO_SIZE].copy_from_slice(info);
        let context = &mut frame[UCONTEXT..];
        context[STACK..STACK + AlternateStack::SIZE].copy_from_slice(&self.stack.to_bytes());
        put(context, MASK, self.mask);
        put(context, REGISTERS, self.pc);
        for (number, value) in self.x.iter().enumerate().skip(1) {
            put(context, REGISTERS + 8 * number, *value);
        }
        for (number, value) in self.f.iter().enumerate() {
            put(context, FLOATS + 8 * number, *value);
        }
        context[FCSR..FCSR + 4].copy_from_slice(&self.fcsr.to_le_bytes());
        frame
    }

    /// What is in a frame. Any bytes are a context; what the hart cannot hold is masked when it takes it over.
    #[must_use]
    pub fn from_frame(frame: &[u8; FRAME_SIZE]) -> Self {
        let context = &frame[UCONTEXT..];
        let mut stack = [0; AlternateStack::SIZE];
        stack.copy_from_slice(&context[STACK..STACK + AlternateStack::SIZE]);
        let mut x = std::array::from_fn(|number| long(context, REGISTERS + 8 * number));
        x[0] = 0;
        Self {
            stack: AlternateStack::parse(&stack),
            mask: long(context, MASK),
            pc: long(context, REGISTERS),
            x,
            f: std::array::from_fn(|number| long(context, FLOATS + 8 * number)),
            fcsr: u32::try_from(long(context, FCSR) & 0xff).unwrap_or(0),
        }
    }
}

/// Where a frame goes: below `sp`, or at the end of the alternate stack. `None` if the alternate stack that is in use has no room left: the kernel
/// then has nowhere to put it, and the program dies of SIGSEGV.
#[must_use]
pub fn place(sp: u64, stack: &AlternateStack, wants_alternate: bool) -> Option<u64> {
    let on_it = stack.holds(sp);
    let top = if wants_alternate && stack.flags & SS_DISABLE == 0 && !on_it {
        stack.base.wrapping_add(stack.size)
    } else {
        sp
    };
    let at = top.wrapping_sub(FRAME_SIZE as u64) & !15;
    (!on_it || stack.holds(at)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let mut x = std::array::from_fn(|number| 0x1000 + number as u64);
        x[0] = 0;
        Context {
            stack: AlternateStack { base: 0x7000, flags: 0, size: 0x4000 },
            mask: 0x8000_0000_0000_0001,
            pc: 0x10_0000,
            x,
            f: std::array::from_fn(|number| 0xffff_ffff_0000_0000 | number as u64),
            fcsr: 0xb5,
        }
    }

    #[test]
    fn a_frame_gives_back_what_went_in() {
        let frame = context().to_frame(&[7; SIGINFO_SIZE]);
        assert_eq!(frame[..SIGINFO_SIZE], [7; SIGINFO_SIZE]);
        assert_eq!(Context::from_frame(&frame), context());
    }

    /// The C library's headers for riscv64 say where everything is.
    #[test]
    fn the_layout_is_that_of_the_headers() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("layout.c");
        std::fs::write(
            &source,
            format!(
                "#include <signal.h>\n#include <ucontext.h>\n#include <stddef.h>\n\
                 #define SAME(a, b) _Static_assert((a) == (b), #a)\n\
                 SAME(sizeof(siginfo_t), {SIGINFO_SIZE});\n\
                 SAME(offsetof(ucontext_t, uc_stack), {STACK});\n\
                 SAME(offsetof(ucontext_t, uc_sigmask), {MASK});\n\
                 SAME(offsetof(ucontext_t, uc_mcontext), {REGISTERS});\n\
                 SAME(offsetof(ucontext_t, uc_mcontext.__fpregs), {FLOATS});\n\
                 SAME(offsetof(ucontext_t, uc_mcontext.__fpregs.__d.__fcsr), {FCSR});\n\
                 SAME(sizeof(siginfo_t) + sizeof(ucontext_t), {FRAME_SIZE});\n\
                 SAME(sizeof(stack_t), {});\n",
                AlternateStack::SIZE
            ),
        )
        .unwrap();
        let Ok(output) =
            std::process::Command::new("riscv64-linux-gnu-gcc").args(["-fsyntax-only"]).arg(&source).output()
        else {
            eprintln!("no riscv64 compiler on this host: not compared");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn frames_go_to_the_stack_that_was_asked_for() {
        let frame = FRAME_SIZE as u64;
        let stack = AlternateStack { base: 0x10_0000, flags: 0, size: 0x4000 };
        assert_eq!(place(0x8000, &stack, false), Some((0x8000 - frame) & !15));
        assert_eq!(place(0x8000, &stack, true), Some((0x10_4000 - frame) & !15));
        assert_eq!(place(0x10_3000, &stack, true), Some((0x10_3000 - frame) & !15));
        // In use, and full.
        assert_eq!(place(0x10_0100, &stack, true), None);
        assert_eq!(place(0x8000, &AlternateStack::NONE, true), Some((0x8000 - frame) & !15));
        // Forgotten while in use, so the next handler begins at its end again.
        let disarmed = AlternateStack { flags: SS_AUTODISARM, ..stack };
        assert_eq!(place(0x10_3000, &disarmed, true), Some((0x10_4000 - frame) & !15));
        assert_eq!(stack.seen_from(0x10_0008).flags, SS_ONSTACK);
        assert_eq!(stack.seen_from(0x8000).flags, 0);
    }
}
