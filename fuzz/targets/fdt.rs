//! Odd machines: building their device tree ends in a blob of the size it says, or in an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| riscv::fdt::fuzz(bytes));
