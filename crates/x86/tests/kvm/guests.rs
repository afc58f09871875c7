//! Guests of a few instructions, in real mode, that the host's assembler makes. All are loaded at [`ORIGIN`] and begin there; they end by writing port 0xf4.

use std::arch::global_asm;

/// Where guests are loaded.
pub(crate) const ORIGIN: u64 = 0x1000;

macro_rules! guest {
    ($(#[$doc:meta])* $name:ident, $code:literal) => {
        global_asm!(concat!(
            ".pushsection .rodata.guests,\"a\"\n.globl guest_", stringify!($name), "\n.globl guest_end_", stringify!($name),
            "\n.code16\nguest_", stringify!($name), ":\n", $code, "\nguest_end_", stringify!($name), ":\n.code64\n.popsection"
        ));

        $(#[$doc])*
        pub(crate) fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("guest_end_", stringify!($name))]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: the assembler put the bytes between the two labels, which are constant.
            unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
        }
    };
}

guest! {
    /// Writes and reads ports of every width, also by a repeated instruction, and device memory.
    accesses,
    "
    mov al, 0x11
    out 0x10, al
    mov ax, 0x2222
    out 0x12, ax
    mov eax, 0x33333333
    out 0x14, eax
    in al, 0x10
    mov [0x500], al
    in ax, 0x12
    mov [0x502], ax
    in eax, 0x14
    mov [0x504], eax
    cld
    mov cx, 3
    mov si, 0x500
    mov dx, 0x16
    rep outsw
    mov ax, 0x8000
    mov ds, ax
    mov byte ptr [0x10], 1
    mov word ptr [0x12], 2
    mov dword ptr [0x14], 4
    mov word ptr [0x17], 0x0605
    mov bl, [0x10]
    mov ecx, [0x14]
    xor ax, ax
    mov ds, ax
    mov [0x508], bl
    mov [0x50c], ecx
    out 0xf4, al
    "
}

guest! {
    /// Runs for ever.
    endless,
    ".Lendless: inc eax\n jmp .Lendless"
}

guest! {
    /// Faults without a handler for it, nor for that fault.
    triple_fault,
    "
    mov word ptr [0x600], 0
    mov dword ptr [0x602], 0
    lidt [0x600]
    ud2
    "
}

guest! {
    /// Jumps to where there is no memory.
    nowhere,
    "ljmp 0x8000, 0"
}

guest! {
    /// Writes three pages.
    three_pages,
    "
    mov byte ptr [0x3000], 1
    mov byte ptr [0x5000], 1
    mov byte ptr [0x5fff], 1
    mov byte ptr [0x6000], 1
    out 0xf4, al
    "
}

guest! {
    /// Has the pair of 8259 at vectors 0x20 and 0x28, waits for interrupts, and reports each by writing its number to port 0x10.
    lines,
    "
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x800
    mov word ptr [0x25 * 4], 0x1100
    mov word ptr [0x25 * 4 + 2], 0
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xdf
    out 0x21, al
    mov al, 0xff
    out 0xa1, al
    sti
    out 0x11, al
    .Llines_wait:
    hlt
    jmp .Llines_wait
    .org guest_lines + 0x100
    mov al, 5
    out 0x10, al
    mov al, 0x20
    out 0x20, al
    iret
    "
}

guest! {
    /// Switches its local APIC on by way of model-specific registers, and reports interrupts 0x40 and 0x41 by writing the number to port 0x10.
    messages,
    "
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x800
    mov word ptr [0x40 * 4], 0x1100
    mov word ptr [0x40 * 4 + 2], 0
    mov word ptr [0x41 * 4], 0x1180
    mov word ptr [0x41 * 4 + 2], 0
    mov ecx, 0x1b
    rdmsr
    or eax, 0xc00
    wrmsr
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
    sti
    out 0x11, al
    .Lmessages_wait:
    hlt
    jmp .Lmessages_wait
    .org guest_messages + 0x100
    mov al, 0x40
    jmp .Lmessages_tell
    .org guest_messages + 0x180
    mov al, 0x41
    .Lmessages_tell:
    out 0x10, al
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    iret
    "
}

guest! {
    /// Rings a doorbell in device memory, then writes beside it.
    doorbell,
    "
    mov ax, 0x8000
    mov ds, ax
    mov word ptr [0x100], 7
    mov dword ptr [0x100], 8
    mov byte ptr [0x200], 9
    out 0xf4, al
    "
}

guest! {
    /// The first processor starts all others, which say so at port 0x10; each counts in memory under a lock. Others enter at the second page.
    processors,
    "
    mov ecx, 0x1b
    rdmsr
    or eax, 0xc00
    wrmsr
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
    mov ecx, 0x830
    mov eax, 0xc4500
    wrmsr
    mov eax, 0xc4602
    wrmsr
    .Lprocessors_wait:
    cmp word ptr [0x500], 3000
    jne .Lprocessors_wait
    out 0xf4, al
    .org guest_processors + 0x1000
    xor ax, ax
    mov ds, ax
    mov cx, 1000
    .Lprocessors_count:
    lock inc word ptr [0x500]
    dec cx
    jnz .Lprocessors_count
    out 0x10, al
    .Lprocessors_sleep:
    cli
    hlt
    jmp .Lprocessors_sleep
    "
}

guest! {
    /// A sequence of numbers: each goes to port 0x14, some bits of it to memory as well.
    sequence,
    "
    mov eax, 1
    mov ecx, 2000
    .Lsequence_next:
    imul eax, eax, 1664525
    add eax, 1013904223
    mov [0x3000], eax
    add eax, [0x3000]
    out 0x14, eax
    dec ecx
    jnz .Lsequence_next
    out 0xf4, al
    "
}

guest! {
    /// Reports what the processor says of itself: the leaves in the table at 0x700 (leaf, subleaf; ended by -1), four registers each, at port 0x14.
    identity,
    "
    mov si, 0x700
    .Lidentity_next:
    mov eax, [si]
    cmp eax, -1
    je .Lidentity_end
    mov ecx, [si + 4]
    add si, 8
    cpuid
    out 0x14, eax
    mov eax, ebx
    out 0x14, eax
    mov eax, ecx
    out 0x14, eax
    mov eax, edx
    out 0x14, eax
    jmp .Lidentity_next
    .Lidentity_end:
    out 0xf4, al
    "
}

guest! {
    /// Loads its flags, and not that of steps.
    flags,
    "
    push 2
    popf
    nop
    nop
    out 0xf4, al
    "
}

guest! {
    /// Reads a ROM, and writes to it.
    rom,
    "
    mov ax, 0xc000
    mov ds, ax
    mov eax, [4]
    mov byte ptr [8], 0x77
    out 0x14, eax
    out 0xf4, al
    "
}

guest! {
    /// In 64-bit mode, a board's kernel: prints 64 letters, each some milliseconds of the counter after the last; whether the generation is as at first (S) or another (D) and whether it was told
    /// of that (1); and powers the board off.
    letters,
    "
    .code64
    mov ebx, 0xfeffb000
    mov r12, [rbx]
    xor r13d, r13d
    .Lletter:
    mov eax, r13d
    and eax, 15
    add eax, 65
    mov edx, 0x3f8
    out dx, al
    rdtsc
    mov ecx, eax
    .Lspin:
    rdtsc
    sub eax, ecx
    cmp eax, 10000000
    jb .Lspin
    inc r13d
    cmp r13d, 64
    jb .Lletter
    mov edx, 0x3f8
    mov eax, 83
    cmp r12, [rbx]
    je .Lsame
    mov eax, 68
    .Lsame:
    out dx, al
    mov edx, 0xb020
    in al, dx
    shr eax, 5
    and eax, 1
    add eax, 48
    mov edx, 0x3f8
    out dx, al
    mov edx, 0xb004
    mov eax, 0x3400
    out dx, ax
    .Lend:
    hlt
    jmp .Lend
    "
}
