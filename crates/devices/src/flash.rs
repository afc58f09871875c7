//! Flash memory, in which firmware keeps its variables: bytes that are read like memory, and written by commands.
//!
//! Specification: Intel's basic command set and the common flash interface (JEDEC JESD68.01, JEP137), eight bits wide, as EDK II's driver for qemu uses it.
//!
//! | command | |
//! |---|---|
//! | `ff` | back to the array: reads are of the bytes |
//! | `10` or `40`, then a byte | programs that byte: bits go from one to zero only |
//! | `20`, then `d0` | sets a block to all ones |
//! | `70` | reads are of the status |
//! | `50` | clears the status |
//! | `90`, `98` | reads are of the identity, of the interface's description |
//!
//! The bytes are in a file of the host, so what is programmed stays. While reads are of the array, nobody has to be asked: the board shows the guest the file itself
//! ([`ArrayView`]), and only writes come here.
//!
//! Unlike a real chip's, the status is zero, and not "ready", after it was cleared: that is how the driver tells flash from memory.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use machine::address::host_size;
use machine::bus::{BusDevice, Width};
use serde::{Deserialize, Serialize};

use crate::state::{self, StateError};
use crate::{BoardDevice, lock};

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 4096;
const ERASED: u8 = 0xff;
const READY: u8 = 0x80;
/// What was asked for did not happen: an erasure, a programming.
const ERASE_FAILED: u8 = 1 << 5;
const PROGRAM_FAILED: u8 = 1 << 4;
/// Intel, and a part without a number of its own.
const IDENTITY: [u8; 2] = [0x89, 0x18];

/// What a read is of, and what the next write is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The bytes.
    #[default]
    Array,
    /// The status.
    Status,
    /// Who made it.
    Identity,
    /// What it can do.
    Interface,
    /// The status; the next write is of a byte to program.
    Program,
    /// The status; the next write is the confirmation of an erasure.
    Erase,
}

/// What the guest sees at the flash memory's place.
pub trait ArrayView: Send + Sync {
    /// From now on reads are of the array and do not come to the device, or they do. Called while the device is locked, by the processor that writes.
    fn show(&self, shown: bool);
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    mode: Mode,
    status: u8,
}

/// A chip.
pub struct Flash {
    file: File,
    size: u64,
    view: Arc<dyn ArrayView>,
    state: Mutex<State>,
}

impl Flash {
    /// A chip with the bytes of `file`: whole blocks.
    ///
    /// # Errors
    /// The host does not tell the file's length.
    pub fn new(file: File, view: Arc<dyn ArrayView>) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size, view, state: Mutex::new(State { mode: Mode::Array, status: 0 }) })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    fn array(&self, offset: u64, bytes: &mut [u8]) {
        if self.file.read_exact_at(bytes, offset).is_err() {
            bytes.fill(ERASED);
        }
    }

    fn program(&self, offset: u64, width: Width, value: u64) -> io::Result<()> {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..host_size(width.bytes())];
        self.file.read_exact_at(bytes, offset)?;
        bytes.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, new)| *byte &= new);
        self.file.write_all_at(bytes, offset)
    }

    fn erase(&self, offset: u64) -> io::Result<()> {
        let start = offset & !(BLOCK_BYTES - 1);
        let length = BLOCK_BYTES.min(self.size.saturating_sub(start));
        self.file.write_all_at(&vec![ERASED; host_size(length)], start)
    }

    /// The byte of the interface's description at `offset`: what it is, how large, and how large its blocks are.
    fn interface(&self, offset: u64) -> u8 {
        let size = u8::try_from(self.size.next_power_of_two().trailing_zeros()).unwrap_or(0);
        let [low, high, ..] = (self.size / BLOCK_BYTES).saturating_sub(1).to_le_bytes();
        let [block_low, block_high, ..] = (BLOCK_BYTES / 256).to_le_bytes();
        match offset {
            0x10 => b'Q',
            0x11 => b'R',
            0x12 => b'Y',
            // Intel's basic command set, of which more is told from 0x31.
            0x13 => 3,
            0x15 => 0x31,
            0x27 => size,
            0x2c => 1,
            0x2d => low,
            0x2e => high,
            0x2f => block_low,
            0x30 => block_high,
            0x31 => b'P',
            0x32 => b'R',
            0x33 => b'I',
            _ => 0,
        }
    }

    fn set_mode(&self, state: &mut State, mode: Mode) {
        if (state.mode == Mode::Array) != (mode == Mode::Array) {
            self.view.show(mode == Mode::Array);
        }
        state.mode = mode;
    }
}

impl fmt::Debug for Flash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flash").field("size", &self.size).finish_non_exhaustive()
    }
}

impl BusDevice for Flash {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let state = lock(&self.state);
        match state.mode {
            Mode::Array => {
                let mut bytes = [0; 8];
                self.array(offset, &mut bytes[..host_size(width.bytes())]);
                u64::from_le_bytes(bytes)
            }
            Mode::Status | Mode::Program | Mode::Erase => state.status.into(),
            Mode::Identity => IDENTITY.get(host_size(offset & 0xff)).copied().unwrap_or(0).into(),
            Mode::Interface => self.interface(offset & 0xff).into(),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let mut state = lock(&self.state);
        let next = match (state.mode, value & 0xff) {
            (Mode::Program, _) => {
                let failed = self.program(offset, width, value).is_err();
                state.status |= READY | if failed { PROGRAM_FAILED } else { 0 };
                Mode::Status
            }
            (Mode::Erase, 0xd0) => {
                let failed = self.erase(offset).is_err();
                state.status |= READY | if failed { ERASE_FAILED } else { 0 };
                Mode::Status
            }
            (Mode::Erase, _) => {
                state.status |= READY | ERASE_FAILED | PROGRAM_FAILED;
                Mode::Status
            }
            (_, 0x10 | 0x40) => Mode::Program,
            (_, 0x20) => Mode::Erase,
            (_, 0x50) => {
                state.status = 0;
                Mode::Status
            }
            (_, 0x70) => Mode::Status,
            (_, 0x90) => Mode::Identity,
            (_, 0x98) => Mode::Interface,
            _ => Mode::Array,
        };
        self.set_mode(&mut state, next);
    }
}

impl BoardDevice for Flash {
    /// The bytes stay.
    fn reset(&self) {
        let mut state = lock(&self.state);
        state.status = 0;
        self.set_mode(&mut state, Mode::Array);
    }

    fn pause(&self) {}
    fn resume(&self) {}

    /// The bytes are in their file.
    fn save(&self) -> Result<state::State, StateError> {
        Ok(state::save(&*lock(&self.state)))
    }

    fn restore(&self, state: &state::State) -> Result<(), StateError> {
        let saved: State = state::read(state)?;
        let mut state = lock(&self.state);
        state.status = saved.status;
        self.set_mode(&mut state, saved.mode);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::sync::atomic::{AtomicBool, Ordering};

    impl ArrayView for AtomicBool {
        fn show(&self, shown: bool) {
            assert_ne!(self.swap(shown, Ordering::Relaxed), shown, "told of changes only");
        }
    }

    fn chip() -> (Flash, Arc<AtomicBool>) {
        let mut file = unnamed_file();
        file.write_all(&[ERASED; 3 * 4096]).unwrap();
        file.rewind().unwrap();
        let shown = Arc::new(AtomicBool::new(true));
        (Flash::new(file, Arc::clone(&shown) as _).unwrap(), shown)
    }

    /// A file without a name.
    fn unnamed_file() -> File {
        let path = std::env::temp_dir().join(format!("flash-{}-{:?}", std::process::id(), std::thread::current().id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    fn write(chip: &Flash, offset: u64, values: &[u64]) {
        values.iter().for_each(|value| chip.write(offset, Width::Byte, *value));
    }

    #[test]
    fn a_driver_finds_flash_and_no_memory() {
        let (chip, shown) = chip();
        write(&chip, 0, &[0x50]);
        assert!(!shown.load(Ordering::Relaxed));
        write(&chip, 0, &[0x70]);
        assert_eq!(chip.read(0, Width::Byte), 0);
        write(&chip, 0, &[0x98]);
        let name: Vec<u64> = (0x10..0x13).map(|at| chip.read(at, Width::Byte)).collect();
        assert_eq!(name, [0x51, 0x52, 0x59]);
        write(&chip, 0, &[0x90]);
        assert_eq!(chip.read(0, Width::Byte), 0x89);
        write(&chip, 0, &[0xff]);
        assert!(shown.load(Ordering::Relaxed));
        assert_eq!(chip.read(0, Width::Word), 0xffff_ffff);
    }

    #[test]
    fn bytes_are_programmed_and_blocks_erased() {
        let (chip, shown) = chip();
        write(&chip, 4100, &[0x10, 0x0f]);
        assert_eq!(chip.read(4100, Width::Byte), u64::from(READY));
        write(&chip, 4100, &[0x40, 0xf3, 0xff]);
        assert_eq!(chip.read(4100, Width::Byte), 0x03, "no bit goes back to one");
        write(&chip, 5000, &[0x20, 0xd0, 0xff]);
        assert_eq!((chip.read(4100, Width::Byte), chip.read(4096, Width::Byte)), (0xff, 0xff));
        write(&chip, 5000, &[0x20, 0x77]);
        assert_eq!(chip.read(0, Width::Byte), 0xb0, "not confirmed");
        chip.reset();
        assert!(shown.load(Ordering::Relaxed));
        assert_eq!(chip.read(0, Width::Byte), 0xff);
    }

    #[test]
    fn whatever_is_written_is_borne() {
        let (chip, _) = chip();
        for value in 0..=0xffu64 {
            for offset in [0, 4095, 3 * 4096 - 1] {
                write(&chip, offset, &[value, 0xd0, value]);
                let _ = chip.read(offset, Width::Byte);
            }
        }
    }
}
