//! Instruction words: decoding and disassembling any bits ends, and what decodes encodes to the same operation again.
#![no_main]

use riscv::isa::{decode, disassemble};

libfuzzer_sys::fuzz_target!(|words: Vec<u32>| {
    for word in words {
        assert!(!disassemble(word, 0x8000_0000).is_empty(), "every word has a text");
        let Some(instruction) = decode(word) else { continue };
        let Some(again) = instruction.encode() else {
            panic!("{word:#x} decodes to what has no encoding: {instruction:?}")
        };
        let Some(decoded) = decode(again) else { panic!("{word:#x} encodes to {again:#x}, which does not decode") };
        assert_eq!(decoded.op, instruction.op, "{word:#x} and {again:#x}");
    }
});
