//! The vdso: a small shared object that the machine maps into every program, as the kernel does.
//!
//! It holds the return from signal handlers, which riscv64 programs do not bring themselves, and the calls that the C library looks for
//! there: time, processor number, instruction-cache flush. The image is written at start: one page, code and dynamic section together.
//!
//! ```text
//! 0x000  ELF header, program headers (PT_LOAD, PT_DYNAMIC, PT_NOTE)
//! ...    .hash, .dynsym, .dynstr, .gnu.version, .gnu.version_d, .note, .dynamic
//! CODE   the functions
//! ```
//!
//! Every function is the system call of its name. Reading the time in guest code from `rdtime` and a page of scales would have to repeat the
//! host's clock corrections, which only the host's own vdso knows; a system call ends a unit, costs some tens of nanoseconds, and is answered from
//! the host's vdso without entering the host's kernel.
//!
//! `__vdso_rt_sigreturn` is `li a7,139; ecall`, in just these two words: unwinders and debuggers recognise a signal frame by them.
//!
//! ELF gABI, chapters 4 and 5; Linux Standard Base for symbol versions; vdso(7).

use riscv::isa::{AssembleError, Assembler};

/// How many bytes the image takes: one page.
pub const VDSO_SIZE: usize = 4096;

/// Where the code begins in the image.
const CODE: usize = 0x400;

/// The version that all symbols carry: C libraries look for it.
const VERSION: &str = "LINUX_4.15";
const SONAME: &str = "linux-vdso.so.1";

/// What is exported: name and the number of the system call.
const FUNCTIONS: [(&str, i32); 7] = [
    ("__vdso_rt_sigreturn", 139),
    ("__vdso_clock_gettime", 113),
    ("__vdso_gettimeofday", 169),
    ("__vdso_clock_getres", 114),
    ("__vdso_getcpu", 168),
    ("__vdso_flush_icache", 259),
    ("__vdso_riscv_hwprobe", 258),
];

/// The image, and where in it handlers return to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdso {
    /// [`VDSO_SIZE`] bytes, position-independent.
    pub image: Vec<u8>,
    /// The offset of `__vdso_rt_sigreturn`.
    pub sigreturn: u64,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;

const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_SYMENT: u64 = 11;
const DT_SONAME: u64 = 14;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;

/// The gABI's hash of a symbol's name.
fn elf_hash(name: &str) -> u32 {
    name.bytes().fold(0_u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(byte.into());
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

/// A table of strings that end with zero.
#[derive(Debug)]
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        let at = small(self.0.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        at
    }
}

/// Little-endian fields, one after the other.
#[derive(Debug, Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn half(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}

/// An offset in the image, which is one page.
#[allow(clippy::cast_possible_truncation, reason = "below VDSO_SIZE")]
fn small(offset: usize) -> u32 {
    offset as u32
}

/// Pads `image` to a multiple of eight, appends `part`, and answers where it is.
fn append(image: &mut Vec<u8>, part: &[u8]) -> usize {
    image.resize(image.len().next_multiple_of(8), 0);
    let at = image.len();
    image.extend_from_slice(part);
    at
}

fn segment(header: &mut Fields, kind: u32, flags: u32, at: usize, size: usize, alignment: u64) {
    let (at, size) = (at as u64, size as u64);
    header.word(kind).word(flags).long(at).long(at).long(at).long(size).long(size).long(alignment);
}

/// One hash bucket: all symbols in one chain. There are seven, so nobody searches long.
fn hash_table(symbols: u32) -> Fields {
    let mut hash = Fields::default();
    hash.word(1).word(symbols).word(1);
    for symbol in 0..symbols {
        let next = if symbol == 0 || symbol + 1 == symbols { 0 } else { symbol + 1 };
        hash.word(next);
    }
    hash
}

/// Two versions: the file's own name, and [`VERSION`].
fn versions(soname: u32, version: u32) -> Fields {
    let mut table = Fields::default();
    for (name, text, index, next) in [(soname, SONAME, 1, 28), (version, VERSION, 2, 0)] {
        let flags = u16::from(index == 1);
        table.half(1).half(flags).half(index).half(1).word(elf_hash(text)).word(20).word(next);
        table.word(name).word(0);
    }
    table
}

impl Vdso {
    /// Writes the image.
    ///
    /// # Errors
    /// If the assembler does not know an instruction of [`FUNCTIONS`], which is our own mistake.
    pub fn build() -> Result<Self, AssembleError> {
        let mut code = Assembler::new(CODE as u64);
        let mut starts = Vec::new();
        for (_, number) in FUNCTIONS {
            code.align(16);
            let start = code.here();
            code.text(&format!("addi a7,zero,{number}\n ecall\n jalr zero,0(ra)"));
            starts.push((start, code.here() - start));
        }
        let code = code.finish()?;

        let mut strings = Strings(vec![0]);
        let soname = strings.add(SONAME);
        let version = strings.add(VERSION);
        let mut symbols = Fields::default();
        symbols.word(0).word(0).long(0).long(0);
        let mut symbol_versions = Fields::default();
        symbol_versions.half(0);
        for ((name, _), (start, size)) in FUNCTIONS.iter().zip(&starts) {
            let name = strings.add(name);
            // STB_GLOBAL and STT_FUNC; no section headers, so any section that is not zero.
            symbols.word(name).half(0x12).half(1).long(*start).long(*size);
            symbol_versions.half(2);
        }

        let headers = 64 + 3 * 56;
        let mut image = vec![0; headers];
        let hash = append(&mut image, &hash_table(small(FUNCTIONS.len() + 1)).0);
        let symbol_table = append(&mut image, &symbols.0);
        let string_table = append(&mut image, &strings.0);
        let versym = append(&mut image, &symbol_versions.0);
        let verdef = append(&mut image, &versions(soname, version).0);
        // The kernel's note: owner "Linux", type 0, the version of Linux whose calls are here.
        let mut note = Fields::default();
        note.word(6).word(4).word(0);
        note.0.extend_from_slice(b"Linux\0\0\0");
        note.word(0x0006_0600);
        let (note_at, note_size) = (append(&mut image, &note.0), note.0.len());

        let mut dynamic = Fields::default();
        for (tag, value) in [
            (DT_SONAME, u64::from(soname)),
            (DT_HASH, hash as u64),
            (DT_STRTAB, string_table as u64),
            (DT_SYMTAB, symbol_table as u64),
            (DT_STRSZ, strings.0.len() as u64),
            (DT_SYMENT, 24),
            (DT_VERSYM, versym as u64),
            (DT_VERDEF, verdef as u64),
            (DT_VERDEFNUM, 2),
            (DT_NULL, 0),
        ] {
            dynamic.long(tag).long(value);
        }
        let (dynamic_at, dynamic_size) = (append(&mut image, &dynamic.0), dynamic.0.len());
        assert!(image.len() <= CODE, "the vdso's tables end before its code");
        image.resize(CODE, 0);
        image.extend_from_slice(&code);

        let mut header = Fields::default();
        header.0.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        // ET_DYN, EM_RISCV; RVC and double-precision float ABI.
        header.half(3).half(243).word(1).long(0).long(64).long(0).word(5);
        header.half(64).half(56).half(3).half(64).half(0).half(0);
        segment(&mut header, PT_LOAD, 5, 0, image.len(), 4096);
        segment(&mut header, PT_DYNAMIC, 4, dynamic_at, dynamic_size, 8);
        segment(&mut header, PT_NOTE, 4, note_at, note_size, 4);
        image[..headers].copy_from_slice(&header.0);
        image.resize(VDSO_SIZE, 0);
        Ok(Self { image, sigreturn: starts[0].0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(image: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_return_from_handlers_is_what_unwinders_look_for() {
        let vdso = Vdso::build().unwrap();
        let at = usize::try_from(vdso.sigreturn).unwrap();
        assert_eq!(word(&vdso.image, at), 0x08b0_0893);
        assert_eq!(word(&vdso.image, at + 4), 0x0000_0073);
        assert_eq!(vdso.image.len(), VDSO_SIZE);
    }

    /// binutils read it as a shared object that exports all functions under the version.
    #[test]
    fn binutils_agree() {
        let vdso = Vdso::build().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &vdso.image).unwrap();
        let Ok(output) = std::process::Command::new("readelf")
            .args(["--wide", "--symbols", "--use-dynamic", "--notes"])
            .arg(file.path())
            .output()
        else {
            eprintln!("no readelf on this host: not compared");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        for (name, _) in FUNCTIONS {
            let symbol = format!(" {name}@@{VERSION}");
            assert!(text.lines().any(|line| line.ends_with(&symbol) && line.contains("GLOBAL")), "{name} in {text}");
        }
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
