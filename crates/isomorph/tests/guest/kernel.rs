//! Tiny kernels for tests that need no operating system, as RISC-V Linux `Image` files.

use riscv::isa::assemble::assemble;

/// Where the loader puts a kernel, so that labels in text have addresses.
const BASE: u64 = 0x8020_0000;

/// `code`, position independent, behind the header of a Linux `Image` (Linux, "Boot image header in RISC-V Linux").
pub fn image(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 64];
    // code0: jump over the header.
    image[0..4].copy_from_slice(&assemble("jal zero, 0x80200040", BASE).unwrap());
    image[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    image[16..24].copy_from_slice(&(64 + code.len() as u64).next_multiple_of(4096).to_le_bytes());
    image[32..36].copy_from_slice(&2_u32.to_le_bytes());
    image[48..56].copy_from_slice(b"RISCV\0\0\0");
    image[56..60].copy_from_slice(b"RSC\x05");
    image.extend(code);
    image.resize(image.len().next_multiple_of(4096), 0);
    image
}

fn program(text: &str) -> Vec<u8> {
    assemble(text, BASE + 64).unwrap()
}

/// Shuts down by the SBI's system reset extension.
const SHUT_DOWN: &str = "
    lui a7, 0x53525
    addi a7, a7, 0x354
    addi a6, zero, 0
    addi a0, zero, 0
    addi a1, zero, 0
    ecall
";

/// Powers off at once.
pub fn power_off() -> Vec<u8> {
    program(SHUT_DOWN)
}

/// Jumps to an address where nothing is, with its trap vector there too.
pub fn jump_to_nowhere() -> Vec<u8> {
    program("lui t0, 0x1\ncsrrw zero, stvec, t0\njalr zero, 0(t0)")
}

/// Loops for ever without a word.
pub fn spin() -> Vec<u8> {
    program("here:\njal zero, here")
}

/// Prints "ready\n", then every character that it gets followed by an exclamation mark; powers off at a "q".
pub fn echo() -> Vec<u8> {
    let mut text = String::from("lui s0, 0x10000\n");
    for byte in b"ready\n" {
        text += &format!("addi t0, zero, {byte}\nsb t0, 0(s0)\n");
    }
    text += "
    wait:
        lbu t0, 5(s0)
        andi t0, t0, 1
        beq t0, zero, wait
        lbu t1, 0(s0)
        addi t2, zero, 113
        beq t1, t2, off
        sb t1, 0(s0)
        addi t0, zero, 33
        sb t0, 0(s0)
        jal zero, wait
    off:
    ";
    text += SHUT_DOWN;
    program(&text)
}
