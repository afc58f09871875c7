//! Jars: zip archives of classes, read where they are mapped.
//!
//! The well-known zip crates read from a stream with a position and copy every name. A jar is mapped and looked up by name, many times and by many
//! threads, and its stored entries are used where they are; so the central directory is read here, which is little, and inflating is `flate2`'s.
//! Format: PKWARE's APPNOTE, with zip64 and without encryption, splitting and methods but stored and deflated.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

use crate::manifest::Manifest;

/// What is wrong with a jar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No directory at the end.
    #[error("zip END header not found")]
    NoEnd,
    /// A directory that is not within the file.
    #[error("invalid CEN header (bad entry or size); make the jar again")]
    Directory,
    /// An entry whose contents cannot be had.
    #[error("entry {0:?} of the jar is damaged; make the jar again")]
    Entry(String),
    /// An entry that is encrypted, or compressed in another way.
    #[error(
        "entry {0:?} of the jar is encrypted or compressed by method {1}; make the jar with stored or deflated entries"
    )]
    Method(String, u16),
    /// An entry whose checksum is another.
    #[error("entry {0:?} of the jar has a wrong checksum; make the jar again")]
    Checksum(String),
}

/// An entry of a jar.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its name, as `java/lang/Object.class`; folders end with `/`.
    pub name: &'a [u8],
    /// Time of the last change as MS-DOS wrote it: date in the upper 16 bits, time in the lower.
    pub modified: u32,
    /// Bytes of its contents.
    pub size: u64,
    /// Checksum of its contents.
    pub crc32: u32,
    compressed: u64,
    method: u16,
    flags: u16,
    header: u64,
}

/// A jar over its bytes, which are best the mapped file.
#[derive(Debug)]
pub struct Jar<'a> {
    bytes: &'a [u8],
    /// Bytes before the archive, as of a program that unpacks itself.
    start: u64,
    entries: Vec<Entry<'a>>,
    names: HashMap<&'a [u8], usize>,
    manifest: Manifest,
    /// Names below `META-INF/versions` stand for others.
    multi_release: bool,
}

const END: &[u8] = b"PK\x05\x06";
const END_SIZE: usize = 22;
const END64_LOCATOR: &[u8] = b"PK\x06\x07";
const END64: &[u8] = b"PK\x06\x06";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const DIRECTORY_ENTRY_SIZE: usize = 46;
const LOCAL_ENTRY: &[u8] = b"PK\x03\x04";
const LOCAL_ENTRY_SIZE: u64 = 30;
/// The version of the class library, whose classes a multi-release jar may replace.
const RELEASE: u32 = 17;

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// A part of the bytes by 64-bit numbers of the file.
fn part(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(size).ok()?)
}

/// Where the directory is.
struct Directory {
    count: u64,
    size: u64,
    offset: u64,
    /// Offset of the record behind it.
    end: u64,
}

impl Directory {
    fn find(bytes: &[u8]) -> Option<Self> {
        // The record is last, but for a comment of up to 65,535 bytes.
        let last = bytes.len().checked_sub(END_SIZE)?;
        let end = (last.saturating_sub(65_535)..=last).rev().find(|&offset| {
            bytes[offset..].starts_with(END)
                && u16_at(bytes, offset + 20)
                    .is_some_and(|comment| offset + END_SIZE + usize::from(comment) == bytes.len())
        })?;
        let mut directory = Self {
            count: u64::from(u16_at(bytes, end + 10)?),
            size: u64::from(u32_at(bytes, end + 12)?),
            offset: u64::from(u32_at(bytes, end + 16)?),
            end: end as u64,
        };
        if let Some(locator) = end.checked_sub(20).filter(|&locator| bytes[locator..].starts_with(END64_LOCATOR)) {
            let end64 = u64_at(bytes, locator + 8)?;
            if let Some(record) = part(bytes, end64, 56).filter(|record| record.starts_with(END64)) {
                directory = Self {
                    count: u64_at(record, 32)?,
                    size: u64_at(record, 40)?,
                    offset: u64_at(record, 48)?,
                    end: end64,
                };
            }
        }
        Some(directory)
    }
}

impl<'a> Jar<'a> {
    /// Reads the directory of a jar.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let directory = Directory::find(bytes).ok_or(Error::NoEnd)?;
        let place = directory.end.checked_sub(directory.size).ok_or(Error::Directory)?;
        let start = place.checked_sub(directory.offset).ok_or(Error::Directory)?;
        let mut rest = part(bytes, place, directory.size).ok_or(Error::Directory)?;
        // Each takes 46 bytes at least.
        let count = usize::try_from(directory.count).ok().filter(|&count| count <= rest.len() / DIRECTORY_ENTRY_SIZE);
        let count = count.ok_or(Error::Directory)?;
        let mut entries = Vec::with_capacity(count);
        let mut names = HashMap::with_capacity(count);
        for index in 0..count {
            let (entry, after) = Entry::parse(rest).ok_or(Error::Directory)?;
            // Of several with one name the last counts.
            names.insert(entry.name, index);
            entries.push(entry);
            rest = after;
        }
        let mut jar = Self { bytes, start, entries, names, manifest: Manifest::default(), multi_release: false };
        if let Some(entry) = jar.entry("META-INF/MANIFEST.MF") {
            jar.manifest = Manifest::parse(&jar.read(entry)?);
            jar.multi_release = jar.manifest.is_multi_release();
        }
        Ok(jar)
    }

    /// The manifest; empty if there is none.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All entries in the directory's order.
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// The entry of exactly this name.
    pub fn entry(&self, name: &str) -> Option<&Entry<'a>> {
        self.names.get(name.as_bytes()).map(|&index| &self.entries[index])
    }

    /// The entry that this name means at run time: in a multi-release jar that of the newest version which is not too new.
    pub fn find(&self, name: &str) -> Option<&Entry<'a>> {
        if self.multi_release && !name.starts_with("META-INF/") {
            let versioned =
                (9..=RELEASE).rev().find_map(|version| self.entry(&format!("META-INF/versions/{version}/{name}")));
            if versioned.is_some() {
                return versioned;
            }
        }
        self.entry(name)
    }

    /// The contents of an entry: where they are if they are stored, else inflated.
    ///
    /// # Errors
    /// If they are damaged or in a form that is not known.
    pub fn read(&self, entry: &Entry<'a>) -> Result<Cow<'a, [u8]>, Error> {
        let name = || String::from_utf8_lossy(entry.name).into_owned();
        if entry.flags & 1 != 0 {
            return Err(Error::Method(name(), entry.method));
        }
        let data = self.data(entry).ok_or_else(|| Error::Entry(name()))?;
        let contents: Cow<'a, [u8]> = match entry.method {
            0 if entry.compressed == entry.size => data.into(),
            8 => {
                // A hostile size reserves nothing: deflate makes at most 1,032 bytes of one.
                let likely = usize::try_from(entry.size).unwrap_or(usize::MAX).min(data.len().saturating_mul(1032));
                let mut contents = Vec::with_capacity(likely);
                let read = flate2::read::DeflateDecoder::new(data)
                    .take(entry.size.saturating_add(1))
                    .read_to_end(&mut contents);
                if read.is_err() || contents.len() as u64 != entry.size {
                    return Err(Error::Entry(name()));
                }
                contents.into()
            }
            0 => return Err(Error::Entry(name())),
            method => return Err(Error::Method(name(), method)),
        };
        if crc32fast::hash(&contents) != entry.crc32 {
            return Err(Error::Checksum(name()));
        }
        Ok(contents)
    }

    /// The bytes of an entry as they are in the archive.
    fn data(&self, entry: &Entry<'a>) -> Option<&'a [u8]> {
        let offset = self.start.checked_add(entry.header)?;
        let header = part(self.bytes, offset, LOCAL_ENTRY_SIZE)?;
        if !header.starts_with(LOCAL_ENTRY) {
            return None;
        }
        // Name and extra field have lengths of their own here.
        let skip = LOCAL_ENTRY_SIZE + u64::from(u16_at(header, 26)?) + u64::from(u16_at(header, 28)?);
        part(self.bytes, offset.checked_add(skip)?, entry.compressed)
    }
}

impl<'a> Entry<'a> {
    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_at_checked(DIRECTORY_ENTRY_SIZE)?;
        if !header.starts_with(DIRECTORY_ENTRY) {
            return None;
        }
        let length = |offset: usize| u16_at(header, offset).map(usize::from);
        let (name, rest) = rest.split_at_checked(length(28)?)?;
        let (mut extra, rest) = rest.split_at_checked(length(30)?)?;
        let (_comment, rest) = rest.split_at_checked(length(32)?)?;
        let mut entry = Self {
            name,
            modified: u32_at(header, 12)?,
            size: u64::from(u32_at(header, 24)?),
            crc32: u32_at(header, 16)?,
            compressed: u64::from(u32_at(header, 20)?),
            method: u16_at(header, 10)?,
            flags: u16_at(header, 8)?,
            header: u64::from(u32_at(header, 42)?),
        };
        // Numbers that do not fit are in the extra field of kind 1, in this order.
        while let (Some(kind), Some(size)) = (u16_at(extra, 0), u16_at(extra, 2)) {
            let mut field = extra.get(4..4 + usize::from(size))?;
            extra = &extra[4 + usize::from(size)..];
            for number in [&mut entry.size, &mut entry.compressed, &mut entry.header] {
                if kind == 1 && *number == u64::from(u32::MAX) {
                    *number = u64_at(field, 0)?;
                    field = &field[8..];
                }
            }
        }
        Some((entry, rest))
    }
}

/// Does everything that can be done with a jar, for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Ok(jar) = Jar::new(bytes) else { return };
    for entry in jar.entries().iter().take(100).filter(|entry| entry.size < 1 << 20) {
        let _ = jar.read(entry);
    }
    jar.find("a/B.class");
}
