//! The header: its lines, and what they say.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use super::{PAGE_BYTES, SnapshotError, VERSION};
use crate::entropy::Entropy;

/// The first words of a header.
const MAGIC: &str = "isomorph snapshot ";
/// The largest header, in bytes.
pub(super) const HEADER_BYTES_MAX: u64 = 1 << 20;
/// The longest name of a part.
const NAME_LENGTH_MAX: usize = 64;

/// Who a machine is: drawn at random when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub u128);

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// The host has no randomness to give.
    pub fn draw() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        Entropy::Host.fill(&mut bytes)?;
        Ok(Self(u128::from_le_bytes(bytes)))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Identity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_digits {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(drop)
    }
}

/// Some state, as bytes in the file `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is; each name once.
    pub name: String,
    /// The version of its content.
    pub version: u32,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its CRC-32.
    pub checksum: u32,
}

/// A memory, in the file `memory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Which it is; each name once, also among sections.
    pub name: String,
    /// Where it begins in the file: a multiple of [`PAGE_BYTES`].
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The CRC-32 of what is not zero in it.
    pub checksum: u32,
}

/// What a snapshot is, and of what parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of machine.
    pub kind: String,
    /// The machine that it was taken of.
    pub machine: Identity,
    /// The machine whose snapshot that one went on from, if it did.
    pub parent: Option<Identity>,
    /// The state.
    pub sections: Vec<Section>,
    /// The memories.
    pub memories: Vec<Memory>,
}

/// Whether `name` may stand in a header.
fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    !name.is_empty() && name.len() <= NAME_LENGTH_MAX && name.bytes().all(known)
}

impl Header {
    /// The header's text.
    pub(super) fn write(&self) -> String {
        let parent = self.parent.map_or_else(|| "-".to_owned(), |parent| parent.to_string());
        let mut text = format!("{MAGIC}{VERSION}\nkind {}\nmachine {}\nparent {parent}\n", self.kind, self.machine);
        for Section { name, version, offset, length, checksum } in &self.sections {
            assert!(is_name(name), "a section's name is ours: {name}");
            let _ = writeln!(text, "section {name} {version} {offset} {length} {checksum:08x}");
        }
        for Memory { name, offset, length, checksum } in &self.memories {
            assert!(is_name(name), "a memory's name is ours: {name}");
            let _ = writeln!(text, "memory {name} {offset} {length} {checksum:08x}");
        }
        let checksum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "end {checksum:08x}");
        text
    }

    /// Reads what [`Self::write`] has written; `None` if it is no header at all. `state_bytes` and `memory_bytes` are the sizes of the files,
    /// which no part may go beyond.
    pub(super) fn read(text: &str, state_bytes: u64, memory_bytes: u64) -> Result<Option<Self>, SnapshotError> {
        let Some(rest) = text.strip_prefix(MAGIC) else { return Ok(None) };
        let damaged = |what: &str| SnapshotError::Damaged(format!("its header {what}"));
        // The version comes first: what it has, another version need not have.
        let Some((version, _)) = rest.split_once('\n') else { return Err(damaged("is cut off")) };
        let version: u32 = version.parse().map_err(|_| damaged("has no version"))?;
        if version != VERSION {
            return Err(SnapshotError::Version { what: "format".into(), found: version, known: VERSION });
        }
        let body = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n'));
        let Some((body, end)) = body else { return Err(damaged("is cut off")) };
        let checksum = crc32fast::hash(&text.as_bytes()[..=body.len()]);
        if end != format!("end {checksum:08x}") {
            return Err(damaged("is not what was written"));
        }
        let mut lines = body.lines().skip(1);
        let mut value = |name: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.ok_or_else(|| damaged(&format!("has no {name}")))
        };
        let kind = value("kind")?.to_owned();
        let machine = value("machine")?.parse().map_err(|()| damaged("names no machine"))?;
        let parent = match value("parent")? {
            "-" => None,
            parent => Some(parent.parse().map_err(|()| damaged("names no parent"))?),
        };
        let mut header = Self { kind, machine, parent, sections: Vec::new(), memories: Vec::new() };
        for line in lines {
            header.part(line, state_bytes, memory_bytes).ok_or_else(|| damaged(&format!("says '{line}'")))?;
        }
        Ok(Some(header))
    }

    /// Adds the part of one line; `None` if it is none.
    fn part(&mut self, line: &str, state_bytes: u64, memory_bytes: u64) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().ok();
        let checksum = |text: &str| u32::from_str_radix(text, 16).ok();
        let fits = |offset: u64, length: u64, file: u64| offset.checked_add(length).is_some_and(|end| end <= file);
        let name = words.get(1).filter(|name| is_name(name))?;
        if self.sections.iter().any(|part| part.name == *name) || self.memories.iter().any(|part| part.name == *name) {
            return None;
        }
        let name = (*name).to_owned();
        match words[..] {
            ["section", _, version, offset, length, sum] => {
                let (version, offset, length) = (version.parse().ok()?, number(offset)?, number(length)?);
                let section = Section { name, version, offset, length, checksum: checksum(sum)? };
                fits(offset, length, state_bytes).then(|| self.sections.push(section))
            }
            ["memory", _, offset, length, sum] => {
                let (offset, length) = (number(offset)?, number(length)?);
                let memory = Memory { name, offset, length, checksum: checksum(sum)? };
                let is_aligned = offset % PAGE_BYTES == 0 && length % PAGE_BYTES == 0;
                (is_aligned && fits(offset, length, memory_bytes)).then(|| self.memories.push(memory))
            }
            _ => None,
        }
    }
}
