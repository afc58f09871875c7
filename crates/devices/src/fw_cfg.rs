//! What firmware asks of the machine that it starts: numbers, tables and files by name, through qemu's firmware configuration device.
//!
//! Specification: qemu, `docs/specs/fw_cfg.rst`. Ports from 0x510:
//!
//! | offset | bytes | register |
//! |---|---|---|
//! | 0 | 2 | selector: which item is read, from its start |
//! | 1 | 1 | data: the next byte of it |
//! | 4 | 8 | DMA: the address of a request in guest memory, its upper half first; most significant byte first |
//!
//! A request is a control word, a length and an address; it selects, skips or reads a whole item at once. Items are never written. What is read behind the end of an
//! item is zero, as is what cannot be read of the host's file; a request then answers an error.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use machine::GuestPhysical;
use machine::address::host_size;
use machine::bus::{BusDevice, Width};
use machine::memory::GuestMemory;
use serde::{Deserialize, Serialize};

use crate::state::{self, State, StateError};
use crate::{BoardDevice, lock};

/// How many ports the device has.
pub const SIZE: u64 = 12;
/// Items of fixed numbers.
pub mod item {
    /// The number of processors that are there at power-on, 2 bytes.
    pub const CPUS_COUNT: u16 = 0x05;
    /// The length of the kernel behind its real-mode part, 4 bytes, and its bytes.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// See [`KERNEL_SIZE`].
    pub const KERNEL: u16 = 0x11;
    /// The length of the initial RAM disk, 4 bytes, and its bytes.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// See [`INITRD_SIZE`].
    pub const INITRD: u16 = 0x12;
    /// The length of the kernel's command line with the zero at its end, 4 bytes, and its bytes.
    pub const COMMAND_LINE_SIZE: u16 = 0x14;
    /// See [`COMMAND_LINE_SIZE`].
    pub const COMMAND_LINE: u16 = 0x15;
    /// The length of the kernel's real-mode part, 4 bytes, and its bytes.
    pub const SETUP_SIZE: u16 = 0x17;
    /// See [`SETUP_SIZE`].
    pub const SETUP: u16 = 0x18;
    /// The most processors that there can be, 2 bytes.
    pub const CPUS_COUNT_MAX: u16 = 0x0f;
    pub(super) const SIGNATURE: u16 = 0x00;
    pub(super) const FEATURES: u16 = 0x01;
    pub(super) const DIRECTORY: u16 = 0x19;
    pub(super) const FIRST_FILE: u16 = 0x20;
}

/// What the DMA register reads as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";
/// Bytes of a name in the directory, the zero at its end included.
const NAME_BYTES: usize = 56;
/// Bits of a request's control word.
const ERROR: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;
/// How much is moved at once.
const PIECE: usize = 64 << 10;

/// The bytes of an item.
#[derive(Debug)]
pub enum Content {
    /// These.
    Bytes(Vec<u8>),
    /// A part of a file.
    File {
        /// The file.
        file: File,
        /// Where the part begins.
        offset: u64,
        /// Its length.
        length: u64,
    },
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// Fills `out` from `at` on; false if the host cannot read its file.
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let count = host_size(self.length().saturating_sub(at).min(out.len() as u64));
        let (inside, behind) = out.split_at_mut(count);
        behind.fill(0);
        match self {
            _ if count == 0 => true,
            Self::Bytes(bytes) => {
                inside.copy_from_slice(&bytes[host_size(at)..][..count]);
                true
            }
            Self::File { file, offset, .. } => {
                let read = file.read_exact_at(inside, offset + at).is_ok();
                if !read {
                    inside.fill(0);
                }
                read
            }
        }
    }
}

/// All that there is to ask for: made once.
#[derive(Debug, Default)]
pub struct Items {
    contents: BTreeMap<u16, Content>,
    files: BTreeMap<String, u16>,
}

impl Items {
    /// Adds an item of a fixed number: see [`item`].
    pub fn add(&mut self, number: u16, content: impl Into<Content>) {
        self.contents.insert(number, content.into());
    }

    /// Adds an item that is found by its name: at most 55 bytes.
    pub fn add_file(&mut self, name: &str, content: impl Into<Content>) {
        debug_assert!(name.len() < NAME_BYTES, "names are ours");
        let number = item::FIRST_FILE + u16::try_from(self.files.len()).unwrap_or(0);
        self.files.insert(name.to_owned(), number);
        self.contents.insert(number, content.into());
    }

    /// Adds what tells of all others.
    fn finish(&mut self) {
        self.add(item::SIGNATURE, b"QEMU".to_vec());
        self.add(item::FEATURES, 3u32.to_le_bytes().to_vec());
        let mut directory = u32::try_from(self.files.len()).unwrap_or(0).to_be_bytes().to_vec();
        for (name, number) in &self.files {
            let length = self.contents.get(number).map_or(0, Content::length);
            directory.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            directory.extend(number.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = [0; NAME_BYTES];
            field[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend(field);
        }
        self.add(item::DIRECTORY, directory);
    }
}

/// The registers: plain data, what a snapshot saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// The item that is read.
    pub selected: u16,
    /// How far it has been read.
    pub offset: u32,
    /// The upper half of the DMA register, until its lower half is written.
    pub request_high: u32,
}

/// The device on the bus of ports.
pub struct FwCfg {
    items: Items,
    memory: Arc<GuestMemory>,
    registers: Mutex<Registers>,
}

impl FwCfg {
    /// A device that answers with `items`, and moves them into `memory`.
    #[must_use]
    pub fn new(mut items: Items, memory: Arc<GuestMemory>) -> Self {
        items.finish();
        Self { items, memory, registers: Mutex::default() }
    }

    fn next_byte(&self) -> u8 {
        let mut registers = lock(&self.registers);
        let mut byte = [0];
        if let Some(content) = self.items.contents.get(&registers.selected) {
            content.read(registers.offset.into(), &mut byte);
        }
        registers.offset = registers.offset.saturating_add(1);
        byte[0]
    }

    /// Does the request at `at`. One that is not in memory has nowhere to put its answer.
    fn serve(&self, at: GuestPhysical) {
        let mut request = [0; 16];
        if self.memory.read(at, &mut request).is_err() {
            return;
        }
        let word = |at: usize| request[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let address = u64::from(word(8)) << 32 | u64::from(word(12));
        let done = self.transfer(word(0), word(4), GuestPhysical(address));
        let answer = if done { 0 } else { ERROR };
        // It was in memory just now, and memory does not go away.
        let _ = self.memory.write(at, &answer.to_be_bytes());
    }

    fn transfer(&self, control: u32, length: u32, to: GuestPhysical) -> bool {
        let mut registers = lock(&self.registers);
        if control & SELECT != 0 {
            registers.selected = u16::try_from(control >> 16).unwrap_or(0);
            registers.offset = 0;
        }
        let mut done = true;
        if control & READ != 0 {
            done = self.memory.contains(to, length.into()) && self.copy(*registers, length, to);
        } else if control & WRITE != 0 {
            // Nothing is for writing.
            done = false;
        }
        if control & (READ | SKIP) != 0 {
            registers.offset = registers.offset.saturating_add(length);
        }
        done
    }

    fn copy(&self, registers: Registers, length: u32, to: GuestPhysical) -> bool {
        let content = self.items.contents.get(&registers.selected);
        let (length, mut moved, mut done) = (u64::from(length), 0, true);
        let mut piece = vec![0; host_size(length).min(PIECE)];
        while moved < length {
            let count = host_size((length - moved).min(PIECE as u64));
            let piece = &mut piece[..count];
            match content {
                Some(content) => done &= content.read(u64::from(registers.offset) + moved, piece),
                None => piece.fill(0),
            }
            done &= self.memory.write(to.wrapping_add(moved), piece).is_ok();
            moved += count as u64;
        }
        done
    }
}

impl fmt::Debug for FwCfg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FwCfg").field("items", &self.items).field("registers", &self.registers).finish_non_exhaustive()
    }
}

impl BusDevice for FwCfg {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match offset {
            1 if width == Width::Byte => self.next_byte().into(),
            4.. => {
                let bytes = DMA_SIGNATURE.iter().skip(host_size(offset - 4)).take(host_size(width.bytes()));
                bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            _ => 0,
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let word = u32::try_from(value & 0xffff_ffff).unwrap_or(0).swap_bytes();
        match (offset, width) {
            (0, Width::Half) => {
                let mut registers = lock(&self.registers);
                registers.selected = u16::try_from(value & 0xffff).unwrap_or(0);
                registers.offset = 0;
            }
            (4, Width::Word) => lock(&self.registers).request_high = word,
            (8, Width::Word) => {
                let high = std::mem::take(&mut lock(&self.registers).request_high);
                self.serve(GuestPhysical(u64::from(high) << 32 | u64::from(word)));
            }
            _ => {}
        }
    }
}

impl BoardDevice for FwCfg {
    fn reset(&self) {
        *lock(&self.registers) = Registers::default();
    }
    fn pause(&self) {}
    fn resume(&self) {}

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&*lock(&self.registers)))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        *lock(&self.registers) = state::read(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::PAGE_SIZE;

    fn device() -> FwCfg {
        let mut items = Items::default();
        items.add(item::CPUS_COUNT, 2u16.to_le_bytes().to_vec());
        items.add_file("etc/some", vec![1, 2, 3]);
        items.add_file("etc/other", (0..=255).collect::<Vec<u8>>());
        let memory = GuestMemory::new(GuestPhysical(0), 16 * PAGE_SIZE).unwrap();
        FwCfg::new(items, Arc::new(memory))
    }

    fn read(device: &FwCfg, number: u16, count: usize) -> Vec<u8> {
        device.write(0, Width::Half, number.into());
        (0..count).map(|_| u8::try_from(device.read(1, Width::Byte)).unwrap()).collect()
    }

    fn request(device: &FwCfg, control: u32, length: u32, to: u64) -> u32 {
        let words = [control.to_be_bytes(), length.to_be_bytes()].concat();
        device.memory.write(GuestPhysical(0x100), &[words, to.to_be_bytes().to_vec()].concat()).unwrap();
        device.write(4, Width::Word, 0);
        device.write(8, Width::Word, u64::from(0x100u32.swap_bytes()));
        let mut answer = [0; 4];
        device.memory.read(GuestPhysical(0x100), &mut answer).unwrap();
        u32::from_be_bytes(answer)
    }

    #[test]
    fn files_are_found_by_name() {
        let device = device();
        assert_eq!(read(&device, 0, 4), b"QEMU");
        assert_eq!(read(&device, item::CPUS_COUNT, 4), [2, 0, 0, 0]);
        assert_eq!(read(&device, 0x999, 3), [0; 3]);
        let directory = read(&device, 0x19, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        // By name: "etc/other" comes first.
        assert_eq!(directory[4..12], [0, 0, 1, 0, 0, 0x21, 0, 0]);
        assert!(directory[12..].starts_with(b"etc/other\0"));
        assert_eq!(read(&device, 0x20, 5), [1, 2, 3, 0, 0]);
    }

    #[test]
    fn requests_move_items() {
        let device = device();
        assert_eq!(device.read(4, Width::Word), u64::from(u32::from_le_bytes(*b"QEMU")));
        assert_eq!(request(&device, 0x21 << 16 | SELECT | SKIP, 16, 0), 0);
        assert_eq!(request(&device, READ, 4, 0x2000), 0);
        let mut bytes = [0; 4];
        device.memory.read(GuestPhysical(0x2000), &mut bytes).unwrap();
        assert_eq!(bytes, [16, 17, 18, 19]);
        assert_eq!(device.read(1, Width::Byte), 20);
        assert_eq!(request(&device, WRITE, 4, 0x2000), ERROR);
        assert_eq!(request(&device, 0x21 << 16 | SELECT | READ, u32::MAX, 0x2000), ERROR);
        assert_eq!(request(&device, READ, 4, u64::MAX), ERROR);
        assert_eq!(request(&device, READ, 0x3000, 0x2000), 0, "zeroes behind the end");
        // A request that is not in memory is not answered.
        device.write(4, Width::Word, u64::from(u32::MAX));
        device.write(8, Width::Word, u64::from(u32::MAX));
    }
}
