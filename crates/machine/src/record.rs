//! Records: everything that came into a machine from outside, and when, so that its run can be repeated.
//!
//! ```text
//! file    magic (16 bytes) | version (4) | record | record | ...
//! record  length (4) | CRC-32 of the body (4) | body
//! body    kind (1) | time in ns (8) | instructions (8) | what the kind says
//! ```
//!
//! All numbers are little-endian. The first record is the [`Setup`], each other one an [`Entry`]. A machine whose schedule is deterministic does the same
//! again if the same things enter it at the same times; the count of instructions says whether it has, and [`Event::Check`] whether its
//! registers are the same as well.
//!
//! A record is written at once and whole, so that a recording that was cut off, by a crash of the host even, is good up to its last whole record: the
//! [`Reader`] takes a piece of a record at the end for the end. Anything else that is wrong in the file is an error. Nothing in it is
//! trusted: no length is allocated before it was compared with [`BODY_BYTES_MAX`].

use std::io::{self, Read, Write};

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// The largest body of a record, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
const MAGIC: [u8; 16] = *b"isomorph record\n";

/// What the machine of a record is: what has to be the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The number of harts.
    pub cpus: u32,
    /// The size of memory in bytes.
    pub memory_bytes: u64,
    /// The seed of its randomness.
    pub seed: u64,
    /// Its wall clock at time zero, in nanoseconds since 1970-01-01 UTC.
    pub epoch_ns: u64,
    /// The MTU of its network; zero if it has none.
    pub mtu: u16,
    /// A digest of what else it is made of: images, command line, devices.
    pub digest: u64,
}

/// Something that happened at a moment of a machine's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The machine's time in nanoseconds.
    pub time_ns: u64,
    /// The instructions that all harts together had retired.
    pub instructions: u64,
    /// What happened.
    pub event: Event,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Characters came for a console.
    Characters {
        /// Which console.
        port: u8,
        /// What was typed.
        bytes: Vec<u8>,
    },
    /// A console's terminal changed its size.
    Resize {
        /// Which console.
        port: u8,
        /// Its columns.
        columns: u16,
        /// Its rows.
        rows: u16,
    },
    /// An Ethernet frame came from the network.
    Frame(Vec<u8>),
    /// Nothing came; the machine's registers had this digest.
    Check(u64),
    /// The recording ended, by the guest's own doing or by somebody else's.
    End {
        /// Whether the guest ended it.
        by_guest: bool,
    },
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The host failed.
    #[error("cannot {verb} the record: {cause}")]
    Host {
        /// What was tried.
        verb: &'static str,
        /// What the host said.
        cause: io::Error,
    },
    /// Another kind of file.
    #[error("this is no record of a machine; give a file that --record has written")]
    Magic,
    /// Of another version.
    #[error(
        "the record is of version {0}, and this isomorph reads version {VERSION}; replay it with the isomorph that wrote it"
    )]
    Version(u32),
    /// A record that was changed after it was written.
    #[error("the record is damaged at byte {0}; take a fresh copy of it")]
    Damaged(u64),
}

/// Writes a record.
pub struct Writer {
    out: Box<dyn Write + Send>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Begins a record.
    ///
    /// # Errors
    /// The host cannot write.
    pub fn new(out: Box<dyn Write + Send>, setup: &Setup) -> Result<Self, RecordError> {
        let mut writer = Self { out, buffer: Vec::new() };
        writer.buffer.extend(MAGIC);
        writer.buffer.extend(VERSION.to_le_bytes());
        writer.body(|body| {
            body.extend(setup.cpus.to_le_bytes());
            body.extend(setup.memory_bytes.to_le_bytes());
            body.extend(setup.seed.to_le_bytes());
            body.extend(setup.epoch_ns.to_le_bytes());
            body.extend(setup.mtu.to_le_bytes());
            body.extend(setup.digest.to_le_bytes());
        });
        writer.write()?;
        Ok(writer)
    }

    /// Appends an entry; it is with the host when this returns.
    ///
    /// # Errors
    /// The host cannot write.
    pub fn append(&mut self, entry: &Entry) -> Result<(), RecordError> {
        self.body(|body| {
            let kind = match entry.event {
                Event::Characters { .. } => 1,
                Event::Resize { .. } => 2,
                Event::Frame(_) => 3,
                Event::Check(_) => 4,
                Event::End { .. } => 5,
            };
            body.push(kind);
            body.extend(entry.time_ns.to_le_bytes());
            body.extend(entry.instructions.to_le_bytes());
            match &entry.event {
                Event::Characters { port, bytes } => {
                    body.push(*port);
                    body.extend(bytes);
                }
                Event::Resize { port, columns, rows } => {
                    body.push(*port);
                    body.extend(columns.to_le_bytes());
                    body.extend(rows.to_le_bytes());
                }
                Event::Frame(bytes) => body.extend(bytes),
                Event::Check(digest) => body.extend(digest.to_le_bytes()),
                Event::End { by_guest } => body.push((*by_guest).into()),
            }
        });
        self.write()
    }

    /// Adds a record with the body that `fill` makes to the buffer.
    fn body(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        self.buffer.extend([0; 8]);
        fill(&mut self.buffer);
        let body = &self.buffer[start + 8..];
        debug_assert!(body.len() <= BODY_BYTES_MAX, "what enters a machine at once is bounded");
        let (length, sum) = (u32::try_from(body.len()).unwrap_or(u32::MAX), crc32fast::hash(body));
        self.buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.buffer[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    }

    fn write(&mut self) -> Result<(), RecordError> {
        let written = self.out.write_all(&self.buffer).and_then(|()| self.out.flush());
        self.buffer.clear();
        written.map_err(|cause| RecordError::Host { verb: "write", cause })
    }
}

/// Reads a record.
pub struct Reader {
    input: Box<dyn Read + Send>,
    setup: Setup,
    at: u64,
    body: Vec<u8>,
}

impl Reader {
    /// Reads the beginning of a record.
    ///
    /// # Errors
    /// It is none, or the host cannot read.
    pub fn new(input: Box<dyn Read + Send>) -> Result<Self, RecordError> {
        let setup = Setup { cpus: 0, memory_bytes: 0, seed: 0, epoch_ns: 0, mtu: 0, digest: 0 };
        let mut reader = Self { input, setup, at: 0, body: Vec::new() };
        let mut head = [0; 20];
        if reader.fill(&mut head)? < head.len() || head[..16] != MAGIC {
            return Err(RecordError::Magic);
        }
        let version = Fields(&head[16..]).u32().unwrap_or(0);
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let at = reader.at;
        if !reader.next_body()? {
            return Err(RecordError::Damaged(at));
        }
        reader.setup = Fields(&reader.body).setup().ok_or(RecordError::Damaged(at))?;
        Ok(reader)
    }

    /// What the machine was.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The next entry; `None` at the end of the file, and before a piece of a record there.
    ///
    /// # Errors
    /// The file is damaged, or the host cannot read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, RecordError> {
        let at = self.at;
        if !self.next_body()? {
            return Ok(None);
        }
        Fields(&self.body).entry().map(Some).ok_or(RecordError::Damaged(at))
    }

    /// Reads the next body. False if there is no whole one.
    fn next_body(&mut self) -> Result<bool, RecordError> {
        let at = self.at;
        let mut head = [0; 8];
        if self.fill(&mut head)? < head.len() {
            return Ok(false);
        }
        let mut fields = Fields(&head);
        let (length, sum) = (fields.u32().unwrap_or(0) as usize, fields.u32());
        if length > BODY_BYTES_MAX {
            return Err(RecordError::Damaged(at));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(length, 0);
        let read = self.fill(&mut body);
        self.body = body;
        if read? < length {
            return Ok(false);
        }
        if sum == Some(crc32fast::hash(&self.body)) { Ok(true) } else { Err(RecordError::Damaged(at)) }
    }

    /// Fills `bytes` as far as the file goes; answers how far.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, RecordError> {
        let mut done = 0;
        while done < bytes.len() {
            match self.input.read(&mut bytes[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(RecordError::Host { verb: "read", cause }),
            }
        }
        self.at += done as u64;
        Ok(done)
    }
}

/// Bytes, of which fields are taken one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    fn setup(mut self) -> Option<Setup> {
        let setup = Setup {
            cpus: self.u32()?,
            memory_bytes: self.u64()?,
            seed: self.u64()?,
            epoch_ns: self.u64()?,
            mtu: self.u16()?,
            digest: self.u64()?,
        };
        self.0.is_empty().then_some(setup)
    }

    fn entry(mut self) -> Option<Entry> {
        let (kind, time_ns, instructions) = (self.u8()?, self.u64()?, self.u64()?);
        let event = match kind {
            1 => Event::Characters { port: self.u8()?, bytes: self.rest() },
            2 => Event::Resize { port: self.u8()?, columns: self.u16()?, rows: self.u16()? },
            3 => Event::Frame(self.rest()),
            4 => Event::Check(self.u64()?),
            5 => Event::End { by_guest: self.u8()? != 0 },
            _ => return None,
        };
        self.0.is_empty().then_some(Entry { time_ns, instructions, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const SETUP: Setup = Setup { cpus: 4, memory_bytes: 1 << 30, seed: 7, epoch_ns: u64::MAX, mtu: 1500, digest: 9 };

    fn entries() -> Vec<Entry> {
        let events = [
            Event::Resize { port: 1, columns: 80, rows: 25 },
            Event::Characters { port: 0, bytes: b"root\n".to_vec() },
            Event::Frame(vec![0xff; 1514]),
            Event::Check(0x1234_5678_9abc_def0),
            Event::Characters { port: 0, bytes: Vec::new() },
            Event::End { by_guest: true },
        ];
        let at = |(index, event): (u64, Event)| Entry { time_ns: 10 * index, instructions: 1000 * index, event };
        (1..).zip(events).map(at).collect()
    }

    fn file() -> Vec<u8> {
        let out = Shared::default();
        let mut writer = Writer::new(Box::new(out.clone()), &SETUP).unwrap();
        entries().iter().for_each(|entry| writer.append(entry).unwrap());
        drop(writer);
        Arc::into_inner(out.0).unwrap().into_inner().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Setup, Vec<Entry>), RecordError> {
        let mut reader = Reader::new(Box::new(io::Cursor::new(bytes.to_vec())))?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
        Ok((*reader.setup(), entries))
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&file()).unwrap(), (SETUP, entries()));
    }

    #[test]
    fn a_record_that_was_cut_off_is_good_up_to_there() {
        let (bytes, all) = (file(), entries());
        let mut counts = Vec::new();
        for length in 0..bytes.len() {
            match read(&bytes[..length]) {
                Ok((setup, entries)) => {
                    assert_eq!((setup, &entries[..]), (SETUP, &all[..entries.len()]));
                    counts.push(entries.len());
                }
                Err(error) => assert!(length < 66, "{length}: {error}"),
            }
        }
        assert!(counts.is_sorted() && counts.last() == Some(&(all.len() - 1)), "{counts:?}");
    }

    #[test]
    fn changed_bytes_are_noticed() {
        let bytes = file();
        for place in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[place] ^= bit;
                // A length that leads past the end of the file looks like a recording that was cut off.
                match read(&changed) {
                    Ok((setup, got)) => assert!(setup == SETUP && got.len() < entries().len(), "byte {place}"),
                    Err(error) => assert_eq!(error.to_string().lines().count(), 1),
                }
            }
        }
        assert!(matches!(read(b"#!/bin/sh\n"), Err(RecordError::Magic)));
        let mut newer = bytes;
        newer[16] = 9;
        assert!(read(&newer).unwrap_err().to_string().contains("version 9"));
    }
}
