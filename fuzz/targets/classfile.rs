//! Class files, jars and run-time images: whatever the bytes, reading them ends in a value or in an error.
#![no_main]

use classfile::{ClassFile, Options};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(class) = ClassFile::parse(bytes, Options::default()) {
        for code in class.methods.iter().filter_map(|method| method.code.as_ref()) {
            let _ = code.line_numbers().count() + code.local_variables().count() + code.instructions().count();
        }
    }
    classfile::jar::fuzz(bytes);
    classfile::jimage::fuzz(bytes);
});
