//! The smallest ELF object files that other tools accept: 64-bit, little-endian, RISC-V.

const HEADER: u64 = 64;
const SECTION_HEADER: u64 = 64;
const RISCV: u16 = 243;
/// Compressed instructions, double-precision calling convention.
const FLAGS: u32 = 5;

fn put<const N: usize>(file: &mut Vec<u8>, bytes: [u8; N]) {
    file.extend_from_slice(&bytes);
}

/// The file header; `sections` counts section headers at `section_offset`, the last of which holds the names.
fn header(kind: u16, section_offset: u64, sections: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    put(&mut file, kind.to_le_bytes());
    put(&mut file, RISCV.to_le_bytes());
    put(&mut file, 1u32.to_le_bytes());
    // No entry point, no program headers.
    put(&mut file, [0; 16]);
    put(&mut file, section_offset.to_le_bytes());
    put(&mut file, FLAGS.to_le_bytes());
    for half in [64, 0, 0, 64, sections, sections - 1] {
        put(&mut file, half.to_le_bytes());
    }
    file
}

/// An object file whose text section is `code`, for a machine with the extensions of `architecture` (as compilers spell them: `rv64i2p1_m2p0`).
#[must_use]
pub fn object(code: &[u8], architecture: &str) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.text\0.riscv.attributes\0.shstrtab\0";
    let attributes = attributes(architecture);
    let contents: [(u32, u32, u64, &[u8]); 3] = [
        (1, 1, 6, code), // PROGBITS, allocated and executable
        (7, 0x7000_0003, 0, &attributes),
        (25, 3, 0, NAMES), // STRTAB
    ];
    let total: u64 = contents.iter().map(|(.., bytes)| bytes.len() as u64).sum();
    let mut file = header(1, HEADER + total, 4);
    for (.., bytes) in contents {
        file.extend_from_slice(bytes);
    }
    file.resize(file.len() + 64, 0);
    let mut offset = HEADER;
    for (name, kind, flags, bytes) in contents {
        let length = bytes.len() as u64;
        put(&mut file, name.to_le_bytes());
        put(&mut file, kind.to_le_bytes());
        for field in [flags, 0, offset, length, 0, 1, 0] {
            put(&mut file, field.to_le_bytes());
        }
        offset += length;
    }
    debug_assert_eq!(file.len() as u64, HEADER + total + 4 * SECTION_HEADER);
    file
}

/// The section that says which extensions a file uses.
fn attributes(architecture: &str) -> Vec<u8> {
    let sized = |head: &[u8], body: &[u8]| {
        let length = u32::try_from(head.len() + 4 + body.len()).unwrap_or(u32::MAX);
        (length, body.to_vec())
    };
    let mut architecture_tag = vec![5];
    architecture_tag.extend_from_slice(architecture.as_bytes());
    architecture_tag.push(0);
    let (length, body) = sized(&[1], &architecture_tag);
    let mut file_tag = vec![1];
    put(&mut file_tag, length.to_le_bytes());
    file_tag.extend_from_slice(&body);
    let mut vendor = b"riscv\0".to_vec();
    vendor.extend_from_slice(&file_tag);
    let (length, body) = sized(&[], &vendor);
    let mut section = vec![b'A'];
    put(&mut section, length.to_le_bytes());
    section.extend_from_slice(&body);
    section
}
