//! Message signalled interrupts: the MSI capability's shape, and the MSI-X tables.
//!
//! Specification: PCI Local Bus 3.0, section 6.8.
//!
//! A table is a pure model: bytes as the guest writes them, and one pending bit a vector. What is to be sent after a change is asked for by the function,
//! which has the lock and the way to the interrupt controller.

use std::ops::Range;

use machine::address::host_size;
use machine::bus::Width;
use serde::{Deserialize, Serialize};

use super::Message;

/// What follows identifier and link of an MSI capability with 64-bit addresses and one vector: control, address, data.
pub(super) const CAPABILITY: [u8; 12] = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// What of it a guest can write.
pub(super) const CAPABILITY_WRITABLE: [u8; 12] = [0x01, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

/// Bytes of a vector's entry in the MSI-X table.
const ENTRY_BYTES: u64 = 16;
/// The most vectors of a function.
pub const VECTORS_COUNT_MAX: u16 = 2048;

/// The only vector of a function with MSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Single {
    /// Whether it is used in place of the line.
    pub enabled: bool,
    /// What is sent.
    pub message: Message,
}

/// Where the MSI-X tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many vectors there are: 1 to [`VECTORS_COUNT_MAX`].
    pub vectors_count: u16,
    /// The base address register that the table is behind.
    pub bar: u8,
    /// Where the table begins behind it: a multiple of 8.
    pub table: u32,
    /// The base address register that the pending bits are behind.
    pub pending_bar: u8,
    /// Where the pending bits begin behind that: a multiple of 8.
    pub pending: u32,
}

impl Place {
    /// What follows identifier and link of the capability.
    pub(super) fn capability(&self) -> [u8; 10] {
        assert!((1..=VECTORS_COUNT_MAX).contains(&self.vectors_count), "vectors are counted in eleven bits");
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(self.vectors_count - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(self.table | u32::from(self.bar)).to_le_bytes());
        body[6..].copy_from_slice(&(self.pending | u32::from(self.pending_bar)).to_le_bytes());
        body
    }

    /// The table's bytes behind its base address register.
    #[must_use]
    pub fn table_range(&self) -> Range<u64> {
        let start = u64::from(self.table);
        start..start + ENTRY_BYTES * u64::from(self.vectors_count)
    }

    /// The bytes of the pending bits behind theirs.
    #[must_use]
    pub fn pending_range(&self) -> Range<u64> {
        let start = u64::from(self.pending);
        start..start + 8 * u64::from(self.vectors_count).div_ceil(64)
    }
}

/// The MSI-X vectors of a function: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// As the guest sees them; 16 bytes a vector.
    bytes: Vec<u8>,
    pending: Vec<bool>,
    /// Whether they are used in place of the line.
    pub enabled: bool,
    /// Whether all of them are masked.
    pub masked: bool,
}

impl Table {
    /// After power-on: `vectors_count` vectors, each masked.
    #[must_use]
    pub fn new(vectors_count: u16) -> Self {
        let mut bytes = vec![0; host_size(ENTRY_BYTES) * usize::from(vectors_count)];
        bytes.chunks_exact_mut(host_size(ENTRY_BYTES)).for_each(|entry| entry[12] = 1);
        Self { bytes, pending: vec![false; usize::from(vectors_count)], enabled: false, masked: false }
    }

    /// Takes what the guest has written, and what waits, from another table; says whether that has as many vectors.
    #[must_use]
    pub fn restore(&mut self, other: Self) -> bool {
        let fits = other.bytes.len() == self.bytes.len() && other.pending.len() == self.pending.len();
        if fits {
            (self.bytes, self.pending) = (other.bytes, other.pending);
        }
        fits
    }

    /// How many vectors there are.
    #[must_use]
    pub fn vectors_count(&self) -> u16 {
        u16::try_from(self.pending.len()).unwrap_or(u16::MAX)
    }

    /// Reads the table at `offset`.
    #[must_use]
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        let byte = |place: u64| self.bytes.get(host_size(offset + place)).copied().unwrap_or(0);
        (0..width.bytes()).fold(0, |value, place| value | (u64::from(byte(place)) << (8 * place)))
    }

    /// Writes the table at `offset`. Answers which vector that is of.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> u16 {
        for (place, byte) in (0..width.bytes()).zip(value.to_le_bytes()) {
            let field = (offset + place) % ENTRY_BYTES;
            // Of the control word there is but one bit; messages go to addresses of words.
            let mask = match field {
                0 => 0xfc,
                12 => 1,
                13..16 => 0,
                _ => 0xff,
            };
            if let Some(old) = self.bytes.get_mut(host_size(offset + place)) {
                *old = byte & mask;
            }
        }
        u16::try_from(offset / ENTRY_BYTES).unwrap_or(u16::MAX)
    }

    /// Reads the pending bits at `offset`.
    #[must_use]
    pub fn read_pending(&self, offset: u64, width: Width) -> u64 {
        let bits = self.pending.iter().skip(host_size(8 * offset)).take(host_size(8 * width.bytes()));
        bits.enumerate().fold(0, |value, (place, bit)| value | (u64::from(*bit) << place))
    }

    /// What `vector` sends if it is not masked.
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<Message> {
        let entry = self.bytes.chunks_exact(host_size(ENTRY_BYTES)).nth(vector.into())?;
        let (address, rest) = entry.split_first_chunk::<8>()?;
        let (data, control) = rest.split_first_chunk::<4>()?;
        (self.enabled && !self.masked && control[0] & 1 == 0)
            .then(|| Message { address: u64::from_le_bytes(*address), data: u32::from_le_bytes(*data) })
    }

    /// `vector` has something to tell: answers what is to be sent, or notes it for later. `allowed`: whether the function may send anything. Vectors that
    /// do not exist are ignored.
    pub fn trigger(&mut self, vector: u16, allowed: bool) -> Option<Message> {
        let message = self.message(vector).filter(|_| allowed);
        if let (None, Some(pending)) = (message, self.pending.get_mut(usize::from(vector))) {
            *pending = true;
        }
        message
    }

    /// What `vector` has waited to send, if it may now.
    pub fn take_pending(&mut self, vector: u16) -> Option<Message> {
        let message = self.message(vector)?;
        let pending = self.pending.get_mut(usize::from(vector))?;
        std::mem::take(pending).then_some(message)
    }
}
