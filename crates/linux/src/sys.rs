//! Raw system calls of the host, and the few instructions around them that must be known by address.

/// The answer of a call that was interrupted and may be repeated: `-ERESTARTSYS`, which no kernel shows to a program.
pub const RESTART: i64 = -512;

pub(crate) const EINVAL: i64 = -(libc::EINVAL as i64);

/// The low half of an argument that is an `int` or `unsigned int`.
#[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub(crate) fn low(argument: u64) -> u32 {
    argument as u32
}

/// A process that shares this one's memory, on a stack of its own that ends at `stack`: it calls `child` with `argument`. Answers its number, once
/// it has executed a program or ended, or a negative error number.
///
/// # Safety
/// The calling thread's storage is the child's as well, so all signals must be blocked; `child` and its argument must do without the caller's stack.
pub unsafe fn vfork(
    exit_signal: u64,
    child: extern "C" fn(*mut libc::c_void) -> !,
    argument: *mut libc::c_void,
    stack: u64,
) -> i64 {
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | exit_signal & 0xff;
    // SAFETY: the caller's promise.
    unsafe { arch::clone_on(flags, stack & !15, child, argument) }
}

/// A system call, answered with the kernel's own number: negative for errors.
///
/// # Safety
/// As for the system call itself.
pub unsafe fn raw(number: i64, arguments: [u64; 6]) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { arch::plain(number, arguments) }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::sync::atomic::AtomicU32;

    use super::RESTART;

    /// How handlers return.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn restorer() {
        std::arch::naked_asm!("mov eax, 15", "syscall")
    }

    /// `recorded`, number, six arguments.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn interruptible(
        recorded: *const AtomicU32,
        number: i64,
        a: u64,
        b: u64,
        c: u64,
        d: u64,
        e: u64,
        f: u64,
    ) -> i64 {
        std::arch::naked_asm!(
            "mov r11, rdi",
            "mov rax, rsi",
            "mov rdi, rdx",
            "mov rsi, rcx",
            "mov rdx, r8",
            "mov r10, r9",
            "mov r8, [rsp + 8]",
            "mov r9, [rsp + 16]",
            ".globl isomorph_call_begin",
            ".hidden isomorph_call_begin",
            "isomorph_call_begin:",
            "cmp dword ptr [r11], 0",
            "jne 2f",
            "syscall",
            ".globl isomorph_call_end",
            ".hidden isomorph_call_end",
            "isomorph_call_end:",
            "ret",
            "2:",
            ".globl isomorph_call_interrupted",
            ".hidden isomorph_call_interrupted",
            "isomorph_call_interrupted:",
            "mov rax, {restart}",
            "ret",
            restart = const RESTART,
        )
    }

    /// Number, six arguments.
    pub(crate) unsafe fn plain(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
        let answer;
        // SAFETY: the kernel changes rax, rcx and r11, and memory as the caller promises.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") number => answer,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                in("r10") d,
                in("r8") e,
                in("r9") f,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        answer
    }

    /// Copies `length` bytes; answers how many were not copied, since one side is not there.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn copy(to: *mut u8, from: *const u8, length: usize) -> usize {
        std::arch::naked_asm!(
            "mov rcx, rdx",
            ".globl isomorph_copy_begin",
            ".hidden isomorph_copy_begin",
            "isomorph_copy_begin:",
            "rep movsb",
            ".globl isomorph_copy_end",
            ".hidden isomorph_copy_end",
            "isomorph_copy_end:",
            "mov rax, rcx",
            "ret",
        )
    }

    /// `clone` whose child calls `child` on another stack.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn clone_on(
        flags: u64,
        stack: u64,
        child: extern "C" fn(*mut libc::c_void) -> !,
        argument: *mut libc::c_void,
    ) -> i64 {
        std::arch::naked_asm!(
            "mov r8, rdx",
            "mov r9, rcx",
            "mov eax, 56",
            "xor edx, edx",
            "xor r10d, r10d",
            // The fifth argument is for CLONE_SETTLS only; both registers live through the call.
            "syscall",
            "test rax, rax",
            "jz 2f",
            "ret",
            "2:",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
        )
    }

    unsafe extern "C" {
        safe fn isomorph_call_begin();
        safe fn isomorph_call_end();
        safe fn isomorph_call_interrupted();
        safe fn isomorph_copy_begin();
        safe fn isomorph_copy_end();
    }

    /// Ends [`copy`], if that is what faulted.
    pub(crate) fn end_copy(context: &mut libc::ucontext_t) -> bool {
        let (begin, end) = (isomorph_copy_begin as *const () as i64, isomorph_copy_end as *const () as i64);
        let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
        let inside = (begin..end).contains(rip);
        if inside {
            *rip = end;
        }
        inside
    }

    /// Where the kernel's picture of a thread has the register that the processor calls `number`.
    const REGISTERS: [libc::c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];

    /// A thread in a fault, as the kernel shows it to a handler.
    pub(crate) struct Faulted<'a>(pub(crate) &'a mut libc::ucontext_t);

    impl riscv::translate::FaultState for Faulted<'_> {
        fn register(&self, number: usize) -> u64 {
            self.0.uc_mcontext.gregs[REGISTERS[number & 15] as usize].cast_unsigned()
        }

        fn set_register(&mut self, number: usize, value: u64) {
            self.0.uc_mcontext.gregs[REGISTERS[number & 15] as usize] = value.cast_signed();
        }

        fn vector(&self, number: usize) -> u64 {
            // SAFETY: the kernel's picture has all vector registers, and is there as long as the handler runs.
            let registers = unsafe { &(*self.0.uc_mcontext.fpregs)._xmm };
            let words = registers[number & 15].element;
            u64::from(words[0]) | u64::from(words[1]) << 32
        }

        fn set_mxcsr(&mut self, value: u32) {
            // SAFETY: as above.
            unsafe { (*self.0.uc_mcontext.fpregs).mxcsr = value };
        }

        fn pc(&self) -> u64 {
            self.0.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned()
        }

        fn set_pc(&mut self, pc: u64) {
            self.0.uc_mcontext.gregs[libc::REG_RIP as usize] = pc.cast_signed();
        }
    }

    /// Sets the base of `gs` of the calling thread, which nothing else uses.
    pub(crate) fn set_flat_base(base: u64) {
        const ARCH_SET_GS: u64 = 0x1001;
        // SAFETY: changes a register of this thread's; the kernel takes all addresses of programs.
        unsafe { plain(libc::SYS_arch_prctl, [ARCH_SET_GS, base, 0, 0, 0, 0]) };
    }

    /// Moves a thread that is about to enter the kernel past it.
    pub(crate) fn leave_call(context: &mut libc::ucontext_t) {
        let range = isomorph_call_begin as *const () as i64..isomorph_call_end as *const () as i64;
        let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
        if range.contains(rip) {
            *rip = isomorph_call_interrupted as *const () as i64;
        }
    }
}

pub(crate) use arch::{Faulted, copy, end_copy, interruptible, leave_call, restorer, set_flat_base};
