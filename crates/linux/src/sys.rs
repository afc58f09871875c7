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

pub(crate) use arch::{interruptible, leave_call, restorer};
