use std::io::Write;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const RAM: Ram = Ram { base: 0x8000_0000, size: 64 << 20 };

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A Linux `Image` of `file_size` bytes that asks for `image_size` bytes of RAM.
fn image(file_size: usize, image_size: u64) -> Vec<u8> {
    let mut bytes = vec![0; file_size];
    bytes[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[0x30..0x3c].copy_from_slice(b"RISCV\0\0\0RSC\x05");
    bytes
}

/// Turns an `Image` into an EFI program for processor `machine` with one section that ends at `end`.
fn efi(mut bytes: Vec<u8>, machine: u16, end: u32) -> Vec<u8> {
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&0x40_u32.to_le_bytes());
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
    bytes[0x46..0x48].copy_from_slice(&1_u16.to_le_bytes());
    bytes[0x58 + 16..0x58 + 20].copy_from_slice(&(end - 0x100).to_le_bytes());
    bytes[0x58 + 20..0x58 + 24].copy_from_slice(&0x100_u32.to_le_bytes());
    bytes
}

struct ElfFile {
    class: u8,
    machine: u16,
    entry: u64,
    vaddr: u64,
    paddr: u64,
    file_size: u64,
    memory_size: u64,
}

const ELF: ElfFile = ElfFile {
    class: 2,
    machine: 243,
    entry: 0x8000_0010,
    vaddr: 0x8000_0000,
    paddr: 0x8000_0000,
    file_size: 32,
    memory_size: 64,
};

impl ElfFile {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"\x7fELF\0\x01\x01\0".to_vec();
        bytes[4] = self.class;
        bytes.resize(16, 0);
        bytes.extend(2_u16.to_le_bytes());
        bytes.extend(self.machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend([self.entry, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend([64_u16, 56, 1, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
        bytes.extend([1_u32, 5].iter().flat_map(|word| word.to_le_bytes()));
        let words = [120, self.vaddr, self.paddr, self.file_size, self.memory_size, 4096];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend((0..32).map(|i| i + 1));
        bytes
    }
}

fn load(images: &Images, memory_mib: u64) -> Result<(Layout, GuestMemory), LoadError> {
    let memory = GuestMemory::new(GuestPhysical(0x8000_0000), memory_mib << 20).unwrap();
    Ok((images.load(&memory)?, memory))
}

fn kernel(bytes: Vec<u8>) -> Images {
    Images { kernel: Some(ImageFile::from_bytes("vmlinux", bytes)), ..Images::default() }
}

#[track_caller]
fn refused(images: &Images, message: &Expect) {
    let error = load(images, 64).expect_err("must be refused").to_string();
    assert!(!error.contains('\n'), "one line");
    message.assert_eq(&error);
}

#[test]
fn an_image_goes_to_its_text_offset() {
    for bytes in [image(4096, 8192), gzip(&image(4096, 8192)), efi(image(4096, 8192), 0x5064, 4096)] {
        let (layout, memory) = load(&kernel(bytes), 64).unwrap();
        assert_eq!(layout.entry, GuestPhysical(0x8020_0000));
        assert_eq!(layout.next, None);
        assert_eq!(layout.fdt, GuestPhysical(0x8000_0000 + (62 << 20)));
        let mut magic = [0; 4];
        memory.read(GuestPhysical(0x8020_0038), &mut magic).unwrap();
        assert_eq!(&magic, b"RSC\x05");
    }
}

#[test]
fn an_efi_zboot_kernel_is_unpacked() {
    let packed = gzip(&image(4096, 8192));
    let mut bytes = b"MZ\0\0zimg".to_vec();
    bytes.extend(64_u32.to_le_bytes());
    bytes.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
    bytes.resize(24, 0);
    bytes.extend(b"gzip\0\0\0\0");
    bytes.resize(64, 0);
    bytes.extend(&packed);
    assert_eq!(load(&kernel(bytes.clone()), 64).unwrap().0.entry, GuestPhysical(0x8020_0000));
    bytes.truncate(bytes.len() - 1);
    refused(
        &kernel(bytes.clone()),
        &expect!["vmlinux: is truncated: its compressed kernel should end at byte 149, but the file ends at byte 148"],
    );
    bytes[24..28].copy_from_slice(b"zstd");
    refused(
        &kernel(bytes),
        &expect![[
            r#"vmlinux: is not a riscv64 kernel (Linux `Image`, plain or gzip-compressed, or ELF), but an EFI kernel compressed by "zstd""#
        ]],
    );
}

#[test]
fn elf_segments_go_to_their_physical_addresses() {
    let (layout, memory) = load(&kernel(ELF.bytes()), 64).unwrap();
    assert_eq!(layout.entry, GuestPhysical(0x8000_0010));
    assert_eq!(memory.load::<u32>(GuestPhysical(0x8000_001c)), Ok(0x201f_1e1d));
    assert_eq!(memory.load::<u32>(GuestPhysical(0x8000_0020)), Ok(0));

    let high = ElfFile { entry: 0xffff_ffff_8000_0004, vaddr: 0xffff_ffff_8000_0000, paddr: 0, ..ELF };
    let (layout, memory) = load(&kernel(high.bytes()), 64).unwrap();
    assert_eq!(layout.entry, GuestPhysical(0x8020_0004), "vmlinux is moved to where kernels go");
    assert_eq!(memory.load::<u32>(GuestPhysical(0x8020_0000)), Ok(0x0403_0201));
}

#[test]
fn an_initrd_goes_behind_the_kernel_or_below_the_device_tree() {
    let with = |size: usize| Images {
        initrd: Some(ImageFile::from_bytes("initrd", vec![7; size])),
        ..kernel(image(4096, 8192))
    };
    let (layout, memory) = load(&with(5000), 64).unwrap();
    assert_eq!(layout.initrd, Some(0x8220_0000..0x8220_0000 + 5000));
    assert_eq!(memory.load::<u8>(GuestPhysical(0x8220_0000 + 4999)), Ok(7));
    let (layout, _) = load(&with(40 << 20), 64).unwrap();
    assert_eq!(layout.initrd, Some(0x8160_0000..0x83e0_0000));
    refused(
        &with(60 << 20),
        &expect!["initrd: does not fit in 64 MiB of memory: the machine needs 69 MiB; raise --memory"],
    );
    refused(
        &with(65 << 20),
        &expect!["initrd: does not fit in 64 MiB of memory: the machine needs 74 MiB; raise --memory"],
    );
}

#[test]
fn firmware_goes_first_and_learns_where_the_kernel_is() {
    let raw = |name: &str, size: usize| Some(ImageFile::from_bytes(name, vec![0x13; size]));
    let images = Images { firmware: raw("fw_dynamic.bin", 4096), kernel: raw("u-boot.bin", 4096), initrd: None };
    let (layout, memory) = load(&images, 64).unwrap();
    assert_eq!(layout.entry, GuestPhysical(0x8000_0000));
    assert_eq!(layout.next, Some(GuestPhysical(0x8020_0000)));
    assert_eq!(layout.dynamic_info, GuestPhysical(layout.fdt.0 + FDT_ROOM - 4096));
    assert_eq!(memory.load::<u32>(GuestPhysical(0x8020_0ffc)), Ok(0x1313_1313));

    let large = Images { firmware: raw("fw.bin", 3 << 20), ..images.clone() };
    refused(
        &large,
        &expect!["u-boot.bin: loads over the firmware; give a kernel for supervisor mode, or another firmware"],
    );
    let foreign =
        Images { firmware: Some(ImageFile::from_bytes("fw.elf", ElfFile { machine: 62, ..ELF }.bytes())), ..images };
    refused(&foreign, &expect!["fw.elf: is ELF for x86-64; this machine's processor is riscv64"]);
}

#[test]
fn programs_for_other_processors_are_named() {
    let mut bzimage = vec![0; 4096];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    refused(&kernel(bzimage), &expect!["vmlinux: is an x86-64 or x86 bzImage; this machine's processor is riscv64"]);
    let mut arm64 = vec![0; 4096];
    arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
    refused(&kernel(gzip(&arm64)), &expect!["vmlinux: is an aarch64 Linux Image; this machine's processor is riscv64"]);
    refused(
        &kernel(ElfFile { machine: 183, ..ELF }.bytes()),
        &expect!["vmlinux: is ELF for aarch64; this machine's processor is riscv64"],
    );
    refused(
        &kernel(ElfFile { class: 1, ..ELF }.bytes()),
        &expect!["vmlinux: is ELF for 32-bit riscv; this machine's processor is riscv64"],
    );
    refused(
        &kernel(ElfFile { machine: 9999, ..ELF }.bytes()),
        &expect!["vmlinux: is ELF for processor number 9999; this machine's processor is riscv64"],
    );
    refused(
        &kernel(efi(image(4096, 8192), 0x5032, 4096)),
        &expect!["vmlinux: is a 32-bit RISC-V Linux Image; this machine's processor is riscv64"],
    );
    let mut grub = efi(image(4096, 8192), 0x8664, 4096);
    grub[0x38..0x3c].fill(0);
    refused(&kernel(grub), &expect!["vmlinux: is an EFI program for x86-64; this machine's processor is riscv64"]);
}

#[test]
fn other_files_are_named() {
    refused(&kernel(Vec::new()), &expect!["vmlinux: is empty"]);
    refused(
        &kernel(b"#!/bin/sh\n".to_vec()),
        &expect!["vmlinux: is not a riscv64 kernel (Linux `Image`, plain or gzip-compressed, or ELF), but a script"],
    );
    refused(
        &kernel(b"hello\n".to_vec()),
        &expect!["vmlinux: is not a riscv64 kernel (Linux `Image`, plain or gzip-compressed, or ELF), but text"],
    );
    refused(
        &kernel(vec![0x13; 4096]),
        &expect![
            "vmlinux: is not a riscv64 kernel (Linux `Image`, plain or gzip-compressed, or ELF), but data of an unknown kind"
        ],
    );
    refused(
        &kernel(b"\x28\xb5\x2f\xfd...".to_vec()),
        &expect![
            "vmlinux: is not a riscv64 kernel (Linux `Image`, plain or gzip-compressed, or ELF), but zstd-compressed data; unpack it with unzstd first"
        ],
    );
}

#[test]
fn cut_and_damaged_files_are_refused() {
    refused(
        &kernel(b"\x7fELF\x02\x01".to_vec()),
        &expect!["vmlinux: is truncated: its ELF header should end at byte 64, but the file ends at byte 6"],
    );
    let mut bytes = ELF.bytes();
    bytes.truncate(bytes.len() - 8);
    refused(
        &kernel(bytes),
        &expect!["vmlinux: is truncated: its program should end at byte 152, but the file ends at byte 144"],
    );
    refused(
        &kernel(ELF.bytes()[..100].to_vec()),
        &expect!["vmlinux: is truncated: its table of segments should end at byte 120, but the file ends at byte 100"],
    );
    let mut packed = gzip(&image(4096, 8192));
    packed.truncate(packed.len() - 20);
    refused(
        &kernel(packed),
        &expect!["vmlinux: cannot be unpacked (incomplete deflate stream); is the file complete?"],
    );
    refused(
        &kernel(efi(image(4096, 8192), 0x5064, 9000)),
        &expect!["vmlinux: is truncated: its kernel should end at byte 9000, but the file ends at byte 4096"],
    );
    refused(
        &kernel(image(64, 8192)[..60].to_vec()),
        &expect!["vmlinux: is truncated: its header should end at byte 64, but the file ends at byte 60"],
    );
    refused(
        &kernel(ElfFile { file_size: u64::MAX, ..ELF }.bytes()),
        &expect![
            "vmlinux: is truncated: its program should end at byte 18446744073709551615, but the file ends at byte 152"
        ],
    );
    refused(
        &kernel(ElfFile { entry: 0x9000_0000, ..ELF }.bytes()),
        &expect!["vmlinux: is damaged: its entry is in none of its segments"],
    );
    refused(
        &kernel(ElfFile { memory_size: 0, file_size: 0, ..ELF }.bytes()),
        &expect![
            "vmlinux: is not a riscv64 kernel (Linux `Image`, plain or gzip-compressed, or ELF), but an ELF file without anything to load (an object file?)"
        ],
    );
}

#[test]
fn what_does_not_fit_says_how_much_would_do() {
    let needs = |images: &Images, mib: u64| match load(images, mib).expect_err("does not fit").problem {
        Problem::TooLarge { needs_mib, has_mib } => {
            assert_eq!(has_mib, mib);
            needs_mib
        }
        other => panic!("{other}"),
    };
    let large = kernel(image(4096, 100 << 20));
    refused(&large, &expect!["vmlinux: does not fit in 64 MiB of memory: the machine needs 106 MiB; raise --memory"]);
    load(&large, needs(&large, 64)).expect("what it asks for is enough");
    refused(
        &kernel(image(4096, u64::MAX)),
        &expect!["vmlinux: does not fit in 64 MiB of memory: the machine needs 17592186042372 MiB; raise --memory"],
    );
    let bomb = kernel(gzip(&vec![0; (64 << 20) + 1]));
    refused(&bomb, &expect!["vmlinux: does not fit in 64 MiB of memory: the machine needs 68 MiB; raise --memory"]);
    let with_initrd =
        Images { initrd: Some(ImageFile::from_bytes("i", vec![0; 50 << 20])), ..kernel(image(4096, 20 << 20)) };
    load(&with_initrd, needs(&with_initrd, 64)).expect("what it asks for is enough");
    refused(
        &kernel(ElfFile { entry: 0x1_0000, vaddr: 0x1_0000, paddr: 0x1_0000, ..ELF }.bytes()),
        &expect!["vmlinux: is linked to load at 0x10000..0x10040, but this machine's memory is 0x80000000..0x84000000"],
    );
    refused(
        &kernel(ElfFile { memory_size: 1 << 32, ..ELF }.bytes()),
        &expect!["vmlinux: does not fit in 64 MiB of memory: the machine needs 4100 MiB; raise --memory"],
    );
}

#[test]
fn files_are_read_again_even_when_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Image");
    std::fs::write(&path, image(4096, 8192)).unwrap();
    let images = Images { kernel: Some(ImageFile::open(&path).unwrap()), ..Images::default() };
    load(&images, 64).unwrap();
    std::fs::remove_file(&path).unwrap();
    load(&images, 64).unwrap();
    let missing = ImageFile::open(&path).unwrap_err().to_string();
    assert!(missing.ends_with("Image: cannot read it: No such file or directory (os error 2)"), "{missing}");
    assert!(ImageFile::open(folder.path()).unwrap_err().to_string().ends_with("cannot read it: is a directory"));
}

#[test]
fn elf_symbols_are_found_by_name() {
    // Two sections more: a symbol table with `tohost` and its strings.
    let mut bytes = ELF.bytes();
    let strings = bytes.len() as u64;
    bytes.extend(b"\0tohost\0");
    let symbols = bytes.len() as u64;
    bytes.extend([0; 24]);
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0x10, 0, 1, 0]);
    bytes.extend([0x8000_1000_u64, 8].iter().flat_map(|word| word.to_le_bytes()));
    let sections = bytes.len() as u64;
    let mut section = |kind: u32, offset: u64, size: u64, link: u32, entry: u64| {
        bytes.extend([0, kind].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([0, 0, offset, size].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([link, 1].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([8, entry].iter().flat_map(|word| word.to_le_bytes()));
    };
    section(0, 0, 0, 0, 0);
    section(3, strings, 8, 0, 0);
    section(2, symbols, 48, 1, 24);
    bytes[40..48].copy_from_slice(&sections.to_le_bytes());
    bytes[60..64].copy_from_slice(&[3, 0, 1, 0]);
    let elf = Elf::parse(&bytes).unwrap();
    assert_eq!(elf.symbol("tohost"), Some(0x8000_1000));
    assert_eq!(elf.symbol("fromhost"), None);
    assert_eq!(elf.entry(), 0x8000_0010);
}

proptest! {
    #[test]
    fn hostile_bytes_do_not_panic(kind in 0..4_usize, damage in proptest::collection::vec((0..200_usize, any::<u8>()), 0..20), cut in 0..300_usize) {
        let mut bytes = match kind {
            0 => ELF.bytes(),
            1 => image(256, 8192),
            2 => efi(image(256, 8192), 0x5064, 256),
            _ => gzip(&image(256, 8192)),
        };
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut).max(1));
        fuzz(&bytes);
    }

    #[test]
    fn random_headers_do_not_panic(magic in 0..3_usize, tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = [&b"\x7fELF\x02\x01\x01"[..], b"MZ\0\0zimg", b"\x1f\x8b\x08"][magic].to_vec();
        bytes.extend(tail);
        fuzz(&bytes);
    }

    #[test]
    fn placed_pieces_lie_in_ram_and_apart(kernel_mib in 1..80_u64, initrd_size in 1..80_000_000_u64, memory_mib in 1..100_u64) {
        let ram = Ram { size: memory_mib << 20, ..RAM };
        let Ok(kernel) = Program::kernel(image(4096, kernel_mib << 20), ram) else { return Ok(()) };
        if let Ok(layout) = place::place(ram, None, Some(&kernel), Some(initrd_size)) {
            let initrd = layout.initrd.unwrap();
            prop_assert_eq!(initrd.end - initrd.start, initrd_size);
            prop_assert!(layout.entry.0 + (kernel_mib << 20) <= initrd.start);
            prop_assert!(initrd.end <= layout.fdt.0);
            prop_assert!(layout.fdt.0 + FDT_ROOM <= ram.end());
        } else {
            prop_assert!(kernel_mib + (initrd_size >> 20) + 10 > memory_mib, "refused though there was room");
        }
    }
}
