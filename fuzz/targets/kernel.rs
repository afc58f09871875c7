//! Kernels and firmware for x86-64: whatever the bytes, loading them ends with a processor's first instruction or in an error of one line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| x86::boot::fuzz(bytes));
