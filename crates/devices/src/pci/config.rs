//! Configuration space: the header, base address registers and the list of capabilities.
//!
//! Specification: PCI Local Bus 3.0, section 6 (type 0 header), section 6.7 (capabilities).
//!
//! A space is 256 bytes, each with a mask of the bits that a guest can write; nothing else is stored. So every write in any order and width has a defined
//! result, and the sizes of base address registers show by what cannot be written. What a write means beyond the bytes is the function's business, which
//! compares before and after.

use machine::address::host_size;
use machine::bus::Width;

use super::{Signalling, msi};

/// Bytes of the space that exist; the rest of the 4096 that ECAM has room for reads as zero.
pub const SIZE: usize = 256;
/// How many base address registers there are.
pub const BARS_COUNT: usize = 6;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const HEADER_TYPE: usize = 0x0e;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;

/// Bits of the command register.
pub mod command {
    /// The function answers at its ports.
    pub const IO: u16 = 1;
    /// The function answers at its memory addresses.
    pub const MEMORY: u16 = 2;
    /// The function may read and write memory.
    pub const BUS_MASTER: u16 = 4;
    /// The function does not pull its interrupt line.
    pub const INTERRUPT_DISABLE: u16 = 1 << 10;
    /// What a guest can write: those, and the responses to errors, which never happen.
    pub(super) const WRITABLE: u16 = IO | MEMORY | BUS_MASTER | (1 << 6) | (1 << 8) | INTERRUPT_DISABLE;
}

/// The status register's bits that are ever set.
mod status {
    pub(super) const INTERRUPT: u8 = 1 << 3;
    pub(super) const CAPABILITIES: u8 = 1 << 4;
}

/// What a function is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
    /// The revision.
    pub revision: u8,
    /// Base class, subclass and interface, as in `0x02_00_00` for Ethernet.
    pub class: u32,
    /// The vendor of the board.
    pub subsystem_vendor: u16,
    /// That vendor's number for the board.
    pub subsystem: u16,
}

/// The address space that a base address register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes two registers.
    Memory64,
    /// Ports.
    Io,
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which: below [`BARS_COUNT`].
    pub number: u8,
    /// Where it can lie.
    pub kind: BarKind,
    /// How many bytes are behind it: a power of two, at least 16.
    pub size: u64,
}

/// An entry of the list of capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Messages, one vector. Left out where there is nothing that takes messages.
    Msi,
    /// Messages with a table of vectors. Left out where there is nothing that takes messages.
    Msix(msi::Place),
    /// The vendor's own: what follows identifier and link, not to be written.
    Vendor(Vec<u8>),
    /// One of another device's, as that has it.
    Copied {
        /// Its identifier.
        id: u8,
        /// What follows identifier and link, not to be written.
        body: Vec<u8>,
    },
    /// Virtio's window for drivers that have no access to the memory space (virtio 1.2, section 4.1.4.9).
    VirtioWindow,
}

/// What a function's configuration space is like at power-on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// What it is.
    pub identity: Identity,
    /// Its base address registers, none over another.
    pub bars: Vec<Bar>,
    /// Its capabilities, in the order of the list.
    pub capabilities: Vec<Capability>,
    /// Whether it has an interrupt; then that is INTA#.
    pub has_interrupt: bool,
    /// Registers of the device's own behind the header, where it has no capabilities: offset, value, and which of its bits can be written.
    pub registers: Vec<(u8, u8, u8)>,
    /// Whether the device has further functions.
    pub has_more_functions: bool,
}

/// Virtio's window: a capability whose last word stands for registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowAccess {
    /// The base address register that it is set to.
    pub bar: u8,
    /// The offset behind that.
    pub offset: u64,
    /// How much is read or written.
    pub width: Width,
}

/// The 256 bytes: plain data, what a snapshot saves. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bars: Vec<Bar>,
    msi: Option<usize>,
    msix: Option<usize>,
    window: Option<usize>,
}

impl ConfigSpace {
    /// After power-on, as `layout` says. `messages`: whether something takes messages.
    #[must_use]
    pub fn new(layout: &Layout, messages: bool) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bars: layout.bars.clone(),
            msi: None,
            msix: None,
            window: None,
        };
        let id = layout.identity;
        space.put(0x00, &id.vendor.to_le_bytes());
        space.put(0x02, &id.device.to_le_bytes());
        space.put(0x08, &((id.class << 8) | u32::from(id.revision)).to_le_bytes());
        space.put(0x2c, &id.subsystem_vendor.to_le_bytes());
        space.put(0x2e, &id.subsystem.to_le_bytes());
        space.allow(COMMAND, &command::WRITABLE.to_le_bytes());
        // Cache line size and latency timer: a conventional device's scratch registers.
        space.allow(0x0c, &[0xff, 0xff]);
        for (offset, value, writable) in &layout.registers {
            space.put((*offset).into(), &[*value]);
            space.allow((*offset).into(), &[*writable]);
        }
        space.put(HEADER_TYPE, &[if layout.has_more_functions { 0x80 } else { 0 }]);
        if layout.has_interrupt {
            space.put(INTERRUPT_PIN, &[1]);
            space.allow(INTERRUPT_LINE, &[0xff]);
        }
        for bar in &layout.bars {
            space.add_bar(bar);
        }
        let mut end = FIRST_CAPABILITY;
        let mut link = CAPABILITIES;
        for capability in &layout.capabilities {
            let (id, body, writable) = match capability {
                Capability::Msi | Capability::Msix(_) if !messages => continue,
                Capability::Msi => {
                    space.msi = Some(end);
                    (0x05, msi::CAPABILITY.to_vec(), msi::CAPABILITY_WRITABLE.to_vec())
                }
                Capability::Msix(place) => {
                    space.msix = Some(end);
                    (0x11, place.capability().to_vec(), vec![0, 0xc0])
                }
                Capability::Vendor(body) => (0x09, body.clone(), Vec::new()),
                Capability::Copied { id, body } => (*id, body.clone(), Vec::new()),
                Capability::VirtioWindow => {
                    space.window = Some(end);
                    // Length and type; then register, padding, offset, length and data, which the driver sets.
                    let mut body = vec![20, 5];
                    body.resize(18, 0);
                    let mut writable = vec![0, 0, 0xff, 0, 0, 0];
                    writable.resize(18, 0xff);
                    (0x09, body, writable)
                }
            };
            assert!(end + 2 + body.len() <= SIZE, "capabilities fit into the space");
            space.put(link, &[u8::try_from(end).unwrap_or(0)]);
            space.put(end, &[id, 0]);
            space.put(end + 2, &body);
            space.allow(end + 2, &writable);
            space.put(STATUS, &[status::CAPABILITIES]);
            link = end + 1;
            end = (end + 2 + body.len()).next_multiple_of(4);
        }
        space
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, at: usize, masks: &[u8]) {
        self.writable[at..at + masks.len()].copy_from_slice(masks);
    }

    fn add_bar(&mut self, bar: &Bar) {
        let at = BARS + 4 * usize::from(bar.number);
        assert!(bar.size.is_power_of_two() && bar.size >= 16 && usize::from(bar.number) < BARS_COUNT);
        let mask = (!(bar.size - 1)).to_le_bytes();
        match bar.kind {
            BarKind::Memory32 => self.allow(at, &mask[..4]),
            BarKind::Memory64 => {
                assert!(usize::from(bar.number) + 1 < BARS_COUNT, "a 64-bit register takes two");
                self.allow(at, &mask);
                self.put(at, &[4]);
            }
            BarKind::Io => {
                self.allow(at, &mask[..4]);
                self.put(at, &[1]);
            }
        }
    }

    fn word(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    /// Reads at `offset`; what does not exist is zero. `interrupt`: whether the function wants its line raised.
    #[must_use]
    pub fn read(&self, offset: u64, width: Width, interrupt: bool) -> u64 {
        let mut value = 0;
        for place in 0..width.bytes() {
            let at = host_size(offset.saturating_add(place));
            let mut byte = self.bytes.get(at).copied().unwrap_or(0);
            if at == STATUS && interrupt {
                byte |= status::INTERRUPT;
            }
            value |= u64::from(byte) << (8 * place);
        }
        value
    }

    /// Writes at `offset` what can be written.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) {
        for (place, byte) in (0..width.bytes()).zip(value.to_le_bytes()) {
            let at = host_size(offset.saturating_add(place));
            if let (Some(old), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *old = (*old & !mask) | (byte & mask);
            }
        }
    }

    /// The command register; see [`command`].
    #[must_use]
    pub fn command(&self) -> u16 {
        u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]])
    }

    /// The base address registers.
    #[must_use]
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// Where `bar` lies, whether it is decoded or not.
    #[must_use]
    pub fn base(&self, bar: &Bar) -> u64 {
        let at = BARS + 4 * usize::from(bar.number);
        let low = u64::from(self.word(at));
        let value = match bar.kind {
            BarKind::Memory64 => low | (u64::from(self.word(at + 4)) << 32),
            BarKind::Memory32 | BarKind::Io => low,
        };
        value & !(bar.size - 1)
    }

    /// Where `bar` lies if the function answers there.
    #[must_use]
    pub fn decoded(&self, bar: &Bar) -> Option<u64> {
        let bit = if bar.kind == BarKind::Io { command::IO } else { command::MEMORY };
        (self.command() & bit != 0).then(|| self.base(bar))
    }

    /// Puts `bar` to `base` and has it decoded, as a firmware does.
    pub fn place(&mut self, bar: &Bar, base: u64) {
        let at = BARS as u64 + 4 * u64::from(bar.number);
        let width = if bar.kind == BarKind::Memory64 { Width::Double } else { Width::Word };
        self.write(at, width, base);
        let bit = if bar.kind == BarKind::Io { command::IO } else { command::MEMORY };
        self.write(COMMAND as u64, Width::Half, (self.command() | bit).into());
    }

    /// Notes the number of the interrupt that the function's line leads to, as a firmware does.
    pub fn set_interrupt_line(&mut self, number: u8) {
        self.write(INTERRUPT_LINE as u64, Width::Byte, number.into());
    }

    /// The MSI capability, after its identifier and link.
    #[must_use]
    pub fn msi(&self) -> Option<msi::Single> {
        let at = self.msi?;
        Some(msi::Single {
            enabled: self.bytes[at + 2] & 1 != 0,
            message: super::Message {
                address: u64::from(self.word(at + 4)) | (u64::from(self.word(at + 8)) << 32),
                data: self.word(at + 12) & 0xffff,
            },
        })
    }

    /// Whether MSI-X is enabled, and whether all its vectors are masked; `None` if there is no MSI-X.
    #[must_use]
    pub fn msix(&self) -> Option<(bool, bool)> {
        let control = self.bytes[self.msix? + 3];
        Some((control & 0x80 != 0, control & 0x40 != 0))
    }

    /// How the guest has the function signal. If it enables both kinds of messages, which it must not, the table counts.
    #[must_use]
    pub fn signalling(&self) -> Signalling {
        if self.msix().is_some_and(|(enabled, _)| enabled) {
            Signalling::Vectors
        } else if self.msi().is_some_and(|msi| msi.enabled) {
            Signalling::Message
        } else {
            Signalling::Line
        }
    }

    /// What virtio's window stands for, if an access of `width` at `offset` touches its data.
    #[must_use]
    pub fn window_access(&self, offset: u64, width: Width) -> Option<WindowAccess> {
        let at = self.window?;
        let data = at as u64 + 16;
        if offset >= data + 4 || offset + width.bytes() <= data {
            return None;
        }
        let (place, width) = (u64::from(self.word(at + 8)), Width::from_bytes(self.word(at + 12).into())?);
        let allowed = width != Width::Double && place.is_multiple_of(width.bytes());
        allowed.then_some(WindowAccess { bar: self.bytes[at + 4], offset: place, width })
    }

    /// All bytes, for a snapshot.
    #[must_use]
    pub fn bytes(&self) -> &[u8; SIZE] {
        &self.bytes
    }

    /// Takes those of `bytes` that a guest can write, and says whether all others are as they are here.
    #[must_use]
    pub fn restore(&mut self, bytes: &[u8; SIZE]) -> bool {
        let same = (0..SIZE).all(|at| (self.bytes[at] ^ bytes[at]) & !self.writable[at] == 0);
        if same {
            self.bytes = *bytes;
        }
        same
    }

    /// The word in virtio's window.
    #[must_use]
    pub fn window_data(&self) -> u32 {
        self.window.map_or(0, |at| self.word(at + 16))
    }

    /// Sets the word in virtio's window.
    pub fn set_window_data(&mut self, value: u32) {
        if let Some(at) = self.window {
            self.put(at + 16, &value.to_le_bytes());
        }
    }
}
