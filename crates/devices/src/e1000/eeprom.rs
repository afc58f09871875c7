//! The card's EEPROM: 64 words behind a serial line of four wires, or behind a register that reads it whole.
//!
//! Specification: 8254x Software Developer's Manual, section 5 (content), sections 13.4.3 (EECD) and 13.4.4 (EERD); the protocol is that of a 93C46.
//!
//! It cannot be written: its write protection is on, as a driver finds it on many cards.

use serde::{Deserialize, Serialize};

/// Bits of EECD.
mod eecd {
    pub(super) const CLOCK: u32 = 1 << 0;
    pub(super) const SELECT: u32 = 1 << 1;
    pub(super) const DATA_IN: u32 = 1 << 2;
    pub(super) const DATA_OUT: u32 = 1 << 3;
    pub(super) const REQUEST: u32 = 1 << 6;
    pub(super) const GRANT: u32 = 1 << 7;
    pub(super) const PRESENT: u32 = 1 << 8;
    /// What a driver drives.
    pub(super) const DRIVEN: u32 = CLOCK | SELECT | DATA_IN | 0x30 | REQUEST;
}

/// Bits of EERD.
mod eerd {
    pub(super) const START: u32 = 1 << 0;
    pub(super) const DONE: u32 = 1 << 4;
}

/// How many words it has.
pub const WORDS_COUNT: usize = 64;
/// All words of it add up to this (section 5.6.35).
const SUM: u16 = 0xbaba;
const ADDRESS_BITS: u32 = 6;
/// A command is a start bit, two bits of what, and an address.
const COMMAND_BITS: u32 = 3 + ADDRESS_BITS;
const READ: u32 = 0b110;

/// The content and the state of the line: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eeprom {
    #[serde(with = "crate::state::array")]
    words: [u16; WORDS_COUNT],
    /// EECD as last driven.
    driven: u32,
    /// The bits of a command so far, from its start bit on.
    command: u32,
    bits_count: u32,
    /// What is shifted out, the next bit first; and how many bits are left.
    output: u16,
    output_count: u32,
    data_out: bool,
    read: u32,
}

impl Eeprom {
    /// The EEPROM of a card with the address `mac`.
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        let mut words = [0xffff; WORDS_COUNT];
        for (word, pair) in words.iter_mut().zip(mac.as_chunks::<2>().0) {
            *word = u16::from_le_bytes(*pair);
        }
        // Compatibility, PHY class, board number; Init Control 1: subsystem and device numbers come from here.
        words[0x03..0x05].copy_from_slice(&[0, 0]);
        words[0x0a..0x10].copy_from_slice(&[
            0x4408,
            super::SUBSYSTEM,
            super::VENDOR,
            super::DEVICE,
            super::VENDOR,
            0x3040,
        ]);
        // Management and wake-up: none.
        words[0x10..0x14].copy_from_slice(&[0x0008, 0x2000, 0x7e14, 0x0048]);
        words[0x20..0x25].copy_from_slice(&[0x1000, 0, 0, 0, 0]);
        words[WORDS_COUNT - 1] = 0;
        words[WORDS_COUNT - 1] = words.iter().fold(SUM, |rest, word| rest.wrapping_sub(*word));
        Self {
            words,
            driven: 0,
            command: 0,
            bits_count: 0,
            output: 0,
            output_count: 0,
            data_out: true,
            read: eerd::DONE,
        }
    }

    /// The card's Ethernet address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        let mut mac = [0; 6];
        for (pair, word) in mac.as_chunks_mut::<2>().0.iter_mut().zip(self.words) {
            *pair = word.to_le_bytes();
        }
        mac
    }

    /// Whether the counts are such as [`Self::write_control`] leaves.
    pub(super) fn is_possible(&self) -> bool {
        self.bits_count < COMMAND_BITS && self.output_count <= 16
    }

    fn word(&self, address: u32) -> u16 {
        usize::try_from(address).ok().and_then(|address| self.words.get(address)).copied().unwrap_or(0xffff)
    }

    /// Reads EECD.
    #[must_use]
    pub fn read_control(&self) -> u32 {
        let granted = if self.driven & eecd::REQUEST != 0 { eecd::GRANT } else { 0 };
        let out = if self.data_out { eecd::DATA_OUT } else { 0 };
        self.driven | granted | out | eecd::PRESENT
    }

    /// Writes EECD: drives the line.
    pub fn write_control(&mut self, value: u32) {
        let rises = value & !self.driven & eecd::CLOCK != 0;
        self.driven = value & eecd::DRIVEN;
        if value & eecd::SELECT == 0 {
            // Ready for a command.
            (self.bits_count, self.command, self.output_count, self.data_out) = (0, 0, 0, true);
        } else if rises {
            self.clock(value & eecd::DATA_IN != 0);
        }
    }

    fn clock(&mut self, bit: bool) {
        if self.output_count > 0 {
            self.data_out = self.output & 0x8000 != 0;
            self.output <<= 1;
            self.output_count -= 1;
            return;
        }
        if self.bits_count == 0 && !bit {
            return;
        }
        self.command = (self.command << 1) | u32::from(bit);
        self.bits_count += 1;
        if self.bits_count == COMMAND_BITS {
            if self.command >> ADDRESS_BITS == READ {
                self.output = self.word(self.command & ((1 << ADDRESS_BITS) - 1));
                self.output_count = 16;
                self.data_out = false;
            }
            // Anything else would write.
            (self.bits_count, self.command) = (0, 0);
        }
    }

    /// Reads EERD.
    #[must_use]
    pub fn read_register(&self) -> u32 {
        self.read
    }

    /// Writes EERD: reads a word, at once.
    pub fn write_register(&mut self, value: u32) {
        let address = value & 0xff00;
        self.read = if value & eerd::START == 0 {
            address | (self.read & (eerd::DONE | 0xffff_0000))
        } else {
            address | eerd::DONE | (u32::from(self.word(address >> 8)) << 16)
        };
    }
}
