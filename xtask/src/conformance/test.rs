//! A test: an ELF file, and by what it reports.
//!
//! | symbol | meaning |
//! |---|---|
//! | `tohost`, `fromhost` | the words by which the test and its host speak; see [`super::htif`] |
//! | `begin_signature`, `end_signature` | the memory that holds the test's results, compared with a reference beside the file |
//!
//! `tohost` is how a test says that it has ended, so every test has one. `NAME` or `NAME.elf` has its reference in
//! `NAME.reference_output`, `NAME.signature` or `NAME.sig`; without one, what `tohost` says is all.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use machine::GuestPhysical;
use riscv::loader::{Elf, Program, Ram};

use super::signature::Reference;

/// The names that a reference has after the test's own.
const REFERENCES: [&str; 3] = ["reference_output", "signature", "sig"];

/// What an ELF file begins with.
const MAGIC: [u8; 4] = *b"\x7fELF";
/// `e_type` of a program linked to fixed addresses.
const EXECUTABLE: u16 = 2;
/// `e_machine` of RISC-V.
const RISCV: u16 = 243;

/// The results of a test in its memory, and what they should be.
#[derive(Debug)]
pub(super) struct Signature {
    /// Where they are.
    pub(super) range: Range<u64>,
    /// What they should be.
    pub(super) reference: Reference,
}

/// A test ready to be run.
#[derive(Debug)]
pub(super) struct Test {
    /// What to load. Its segments are where they were linked to.
    pub(super) program: Program,
    /// The word that the test writes to its host.
    pub(super) to_host: GuestPhysical,
    /// The word that the host writes to the test, if the test listens.
    pub(super) from_host: Option<GuestPhysical>,
    /// What is compared in the end, if there is a reference.
    pub(super) signature: Option<Signature>,
}

/// What a file turned out to be.
pub(super) enum Found {
    /// A test.
    Test(Box<Test>),
    /// No RISC-V program: a reference, a listing, an object file.
    SomethingElse,
}

impl Test {
    /// Reads the test in `file`, and its reference.
    ///
    /// # Errors
    /// It is a RISC-V program, but not one that can be run and judged; or a file cannot be read.
    pub(super) fn read(file: &Path) -> Result<Found> {
        if !is_program(file)? {
            return Ok(Found::SomethingElse);
        }
        let bytes = fs::read(file).context("cannot read it")?;
        let reference = match reference_of(file) {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Some(Reference::parse(&text).with_context(|| path.display().to_string())?)
            }
        };
        Self::new(bytes, reference).map(|test| Found::Test(Box::new(test)))
    }

    /// The test in the ELF file `bytes`.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub(super) fn new(bytes: Vec<u8>, reference: Option<Reference>) -> Result<Self> {
        let elf = Elf::parse(&bytes)?;
        let symbol = |name| elf.symbol(name);
        let Some(to_host) = symbol("tohost") else {
            bail!("has no symbol `tohost`, so it cannot say when it has ended");
        };
        let from_host = symbol("fromhost").map(GuestPhysical);
        let signature = match (reference, symbol("begin_signature"), symbol("end_signature")) {
            (None, ..) => None,
            (Some(reference), Some(start), Some(end)) if start <= end => {
                Some(Signature { range: start..end, reference })
            }
            (Some(_), ..) => {
                bail!("has a reference beside it, but no symbols `begin_signature` and `end_signature` to compare with")
            }
        };
        // The memory is put where the test wants it, so for now every address is good.
        let program = Program::elf(bytes, Ram { base: 0, size: u64::MAX }, 0)?;
        Ok(Self { program, to_host: GuestPhysical(to_host), from_host, signature })
    }
}

/// Whether `file` is a linked program for RISC-V.
fn is_program(file: &Path) -> Result<bool> {
    let mut header = Vec::new();
    let opened = fs::File::open(file).context("cannot open it")?;
    opened.take(20).read_to_end(&mut header).context("cannot read it")?;
    let half = |at: usize| header.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    Ok(header.starts_with(&MAGIC) && half(16) == Some(EXECUTABLE) && half(18) == Some(RISCV))
}

/// The file beside `file` that holds its reference, if there is one.
fn reference_of(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    let stem = name.strip_suffix(".elf").unwrap_or(name);
    REFERENCES.iter().map(|ending| file.with_file_name(format!("{stem}.{ending}"))).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_found_beside_its_test() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.sig"), "").unwrap();
        fs::write(path("b.b.reference_output"), "").unwrap();
        assert_eq!(reference_of(&path("a.elf")), Some(path("a.sig")));
        assert_eq!(reference_of(&path("a")), Some(path("a.sig")));
        assert_eq!(reference_of(&path("b.b")), Some(path("b.b.reference_output")));
        assert_eq!(reference_of(&path("b.elf")), None);
    }

    #[test]
    fn only_linked_programs_for_riscv_are_tests() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let check = |kind: u8, machine: u8, expected: bool| {
            let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
            header.extend([kind, 0, machine, 0]);
            fs::write(&file, header).unwrap();
            assert_eq!(is_program(&file).unwrap(), expected);
        };
        check(2, 243, true);
        check(1, 243, false);
        check(2, 62, false);
        fs::write(&file, "deadbeef\n").unwrap();
        assert!(!is_program(&file).unwrap());
    }
}
