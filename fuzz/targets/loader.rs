//! Kernel, firmware and initrd files: whatever the bytes, loading them ends in a layout or in an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| riscv::loader::fuzz(bytes));
