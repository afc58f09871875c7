//! What a file is, by its first bytes; decompression; and the Linux `Image` header
//! (Linux documentation, "Boot image header in RISC-V Linux").

use std::io::Read;

use machine::GuestPhysical;

use super::{Problem, Program, Ram, Segment};

/// The formats that can be loaded.
pub(super) enum Format {
    LinuxImage,
    Elf,
    /// Anything else, described for the message that refuses it.
    Unknown(String),
}

/// The little-endian integer of `N` bytes at `offset`.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<u64> {
    let slice = bytes.get(offset..offset.checked_add(N)?)?;
    let mut value = [0; 8];
    value[..N].copy_from_slice(slice);
    Some(u64::from_le_bytes(value))
}

const IMAGE_HEADER_SIZE: usize = 64;

/// Decides what `bytes` are.
///
/// # Errors
/// Empty, cut off inside the header that decides, or a program for another processor.
pub(super) fn sniff(bytes: &[u8]) -> Result<Format, Problem> {
    if bytes.is_empty() {
        return Err(Problem::Empty);
    }
    if bytes.starts_with(b"\x7fELF") {
        return elf_identity(bytes).map(|()| Format::Elf);
    }
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|tail| tail.starts_with(magic));
    if at(0x38, b"RSC\x05") {
        return image_identity(bytes).map(|()| Format::LinuxImage);
    }
    if at(0x202, b"HdrS") {
        return Err(Problem::OtherProcessor("an x86-64 or x86 bzImage".into()));
    }
    if at(0x38, b"ARM\x64") {
        return Err(Problem::OtherProcessor("an aarch64 Linux Image".into()));
    }
    if at(0x24, &0x016f_2818_u32.to_le_bytes()) {
        return Err(Problem::OtherProcessor("a 32-bit Arm zImage".into()));
    }
    if at(0, b"MZ") {
        return match pe_processor(bytes) {
            Some(0x5064) | None => Ok(Format::Unknown("an EFI program without a kernel inside".into())),
            Some(number) => Err(Problem::OtherProcessor(format!("an EFI program for {}", pe_processor_name(number)))),
        };
    }
    let known: [(&[u8], &str); 14] = [
        (b"\x27\x05\x19\x56", "a U-Boot uImage; unpack the kernel inside it first"),
        (b"\xd0\x0d\xfe\xed", "a device tree or FIT image"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed data; unpack it with unzstd first"),
        (b"\xfd7zXZ\0", "xz-compressed data; unpack it with unxz first"),
        (b"BZh", "bzip2-compressed data; unpack it with bunzip2 first"),
        (b"\x04\x22\x4d\x18", "lz4-compressed data; unpack it with unlz4 first"),
        (b"\x02\x21\x4c\x18", "lz4-compressed data; unpack it with unlz4 first"),
        (b"QFI\xfb", "a qcow2 disk image (--disk takes it)"),
        (b"070701", "a cpio archive (an initrd? --initrd takes it)"),
        (b"!<arch>", "an archive"),
        (b"#!", "a script"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\xfe\xed\xfa", "a Mach-O program"),
        (b"\xca\xfe\xba\xbe", "a Java class file"),
    ];
    let what = known.iter().find(|(magic, _)| bytes.starts_with(magic)).map_or_else(
        || {
            let text = bytes.iter().take(256).all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~'));
            if text { "text" } else { "data of an unknown kind" }
        },
        |(_, what)| what,
    );
    Ok(Format::Unknown(what.into()))
}

/// Accepts the ELF identity of riscv64 only.
fn elf_identity(bytes: &[u8]) -> Result<(), Problem> {
    let has = bytes.len() as u64;
    let truncated = Problem::Truncated { what: "ELF header", needs: 64, has };
    let (Some(class), Some(data), Some(machine)) =
        (field::<1>(bytes, 4), field::<1>(bytes, 5), bytes.get(18..20).map(|b| [b[0], b[1]]))
    else {
        return Err(truncated);
    };
    let machine = if data == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let name = match machine {
        2 | 18 | 43 => "sparc",
        3 => "x86 (32-bit)",
        4 => "m68k",
        8 => "mips",
        20 => "powerpc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        42 => "sh",
        62 => "x86-64",
        183 => "aarch64",
        243 if class == 1 => "32-bit riscv",
        243 if data == 2 => "big-endian riscv64",
        243 => {
            return if bytes.len() < 64 { Err(truncated) } else { Ok(()) };
        }
        247 => "bpf",
        258 => "loongarch",
        _ => return Err(Problem::OtherProcessor(format!("ELF for processor number {machine}"))),
    };
    Err(Problem::OtherProcessor(format!("ELF for {name}")))
}

/// Accepts the header of a little-endian 64-bit `Image` only.
fn image_identity(bytes: &[u8]) -> Result<(), Problem> {
    let has = bytes.len() as u64;
    if bytes.len() < IMAGE_HEADER_SIZE {
        return Err(Problem::Truncated { what: "header", needs: IMAGE_HEADER_SIZE as u64, has });
    }
    if field::<8>(bytes, 24).is_some_and(|flags| flags & 1 == 1) {
        return Err(Problem::OtherProcessor("a big-endian RISC-V Linux Image".into()));
    }
    match pe_processor(bytes) {
        Some(0x5032) => Err(Problem::OtherProcessor("a 32-bit RISC-V Linux Image".into())),
        _ => Ok(()),
    }
}

/// The processor number in the COFF header of an EFI program, if `bytes` have one.
fn pe_processor(bytes: &[u8]) -> Option<u64> {
    if !bytes.starts_with(b"MZ") {
        return None;
    }
    let coff = usize::try_from(field::<4>(bytes, 0x3c)?).ok()?;
    let header = bytes.get(coff..)?;
    if header.starts_with(b"PE\0\0") { field::<2>(header, 4) } else { None }
}

fn pe_processor_name(number: u64) -> String {
    match number {
        0x014c => "x86".into(),
        0x01c0 | 0x01c2 | 0x01c4 => "arm".into(),
        0x5032 => "32-bit riscv".into(),
        0x6264 => "loongarch64".into(),
        0x8664 => "x86-64".into(),
        0xaa64 => "aarch64".into(),
        other => format!("processor number {other:#x}"),
    }
}

/// A plain `Image` at its text offset.
pub(super) fn linux_image(bytes: Vec<u8>, ram: Ram) -> Result<Program, Problem> {
    let (Some(text_offset), Some(image_size)) = (field::<8>(&bytes, 8), field::<8>(&bytes, 16)) else {
        return Err(Problem::Truncated { what: "header", needs: IMAGE_HEADER_SIZE as u64, has: bytes.len() as u64 });
    };
    let file_size = bytes.len() as u64;
    // The size counts what the kernel zeroes for itself behind the file's bytes; the file is never much shorter than the linker's
    // data, so its section table (an EFI kernel has one) is what tells a cut file from a whole one.
    if let Some(needs) = pe_end(&bytes).filter(|end| *end > file_size) {
        return Err(Problem::Truncated { what: "kernel", needs, has: file_size });
    }
    let at = ram.base.saturating_add(text_offset);
    let size = image_size.max(file_size);
    if at.saturating_add(size) > ram.end() {
        return Err(ram.too_large(at.saturating_add(size)));
    }
    let at = GuestPhysical(at);
    Ok(Program { segments: vec![Segment { at, file: 0..bytes.len(), size }], entry: at, bytes })
}

/// How long the file of an EFI program has to be: to the end of its headers and of its last section. `None` if it is not one.
fn pe_end(bytes: &[u8]) -> Option<u64> {
    const HEADER_SIZE: u64 = 24;
    const SECTION_SIZE: u64 = 40;
    let start = field::<4>(bytes, 0x3c).filter(|_| bytes.starts_with(b"MZ"))?;
    let header = usize::try_from(start).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    let (Some(sections), Some(optional_header_size)) = (field::<2>(header, 6), field::<2>(header, 20)) else {
        return Some(start + HEADER_SIZE);
    };
    let table = HEADER_SIZE + optional_header_size;
    let ends = (0..sections).map_while(|index| {
        let section = header.get(usize::try_from(table + index * SECTION_SIZE).ok()?..)?;
        Some(field::<4>(section, 16)? + field::<4>(section, 20)?)
    });
    ends.chain([start + table + sections * SECTION_SIZE]).max()
}

/// Unpacks gzip data and EFI zboot files (whose payload is gzip data); anything else comes back as it is.
pub(super) fn unpack(bytes: Vec<u8>, ram: Ram) -> Result<Vec<u8>, Problem> {
    if bytes.starts_with(b"\x1f\x8b") {
        return gunzip(&bytes, ram);
    }
    if !(bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg")) {
        return Ok(bytes);
    }
    if let Some(number) = pe_processor(&bytes).filter(|number| *number != 0x5064) {
        return Err(Problem::OtherProcessor(format!("a compressed EFI kernel for {}", pe_processor_name(number))));
    }
    let (Some(start), Some(size), Some(kind)) = (field::<4>(&bytes, 8), field::<4>(&bytes, 12), bytes.get(24..32))
    else {
        return Err(Problem::Truncated { what: "header", needs: IMAGE_HEADER_SIZE as u64, has: bytes.len() as u64 });
    };
    let kind = String::from_utf8_lossy(kind.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    if kind != "gzip" {
        return Err(Problem::NotKernel(format!("an EFI kernel compressed by {kind:?}")));
    }
    let end = start + size;
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    match range.and_then(|(start, end)| bytes.get(start..end)) {
        Some(payload) => gunzip(payload, ram),
        None => Err(Problem::Truncated { what: "compressed kernel", needs: end, has: bytes.len() as u64 }),
    }
}

/// Unpacks gzip data, at most as much as there is RAM.
fn gunzip(bytes: &[u8], ram: Ram) -> Result<Vec<u8>, Problem> {
    let mut unpacked = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes).take(ram.size + 1);
    match decoder.read_to_end(&mut unpacked) {
        Ok(_) if unpacked.len() as u64 > ram.size => Err(ram.too_large(ram.end())),
        Ok(_) => Ok(unpacked),
        Err(cause) => Err(Problem::Unpack(cause.to_string())),
    }
}
