//! The card's registers.
//!
//! Specification: 8254x Software Developer's Manual, section 13. Offsets are bytes from the start of the memory region.
//!
//! Most registers just hold what is written, and `writable` is the list of them with the bits that exist. Those with a meaning of their own are in
//! [`Registers::read`] and [`Registers::write`].
//!
//! Timers that delay interrupts (RDTR, RADV, TIDV, TADV) are held, and taken as zero; ITR, which limits the rate of interrupts, is honoured by the device.

use serde::{Deserialize, Serialize};

use super::eeprom::Eeprom;
use super::phy::Phy;

/// Offsets of registers that the models name.
pub mod offset {
    pub(crate) const CTRL: u32 = 0x0000;
    pub(crate) const CTRL_DUP: u32 = 0x0004;
    pub(crate) const STATUS: u32 = 0x0008;
    pub(crate) const EECD: u32 = 0x0010;
    pub(crate) const EERD: u32 = 0x0014;
    pub(crate) const MDIC: u32 = 0x0020;
    pub(crate) const VET: u32 = 0x0038;
    pub(crate) const ICR: u32 = 0x00c0;
    pub(crate) const ITR: u32 = 0x00c4;
    pub(crate) const ICS: u32 = 0x00c8;
    pub(crate) const IMS: u32 = 0x00d0;
    pub(crate) const IMC: u32 = 0x00d8;
    pub(crate) const RCTL: u32 = 0x0100;
    pub(crate) const TCTL: u32 = 0x0400;
    pub(crate) const PBA: u32 = 0x1000;
    pub(crate) const RDBAL: u32 = 0x2800;
    pub(crate) const RDBAH: u32 = 0x2804;
    pub(crate) const RDLEN: u32 = 0x2808;
    pub(crate) const RDH: u32 = 0x2810;
    pub(crate) const RDT: u32 = 0x2818;
    pub(crate) const TDBAL: u32 = 0x3800;
    pub(crate) const TDBAH: u32 = 0x3804;
    pub(crate) const TDLEN: u32 = 0x3808;
    pub(crate) const TDH: u32 = 0x3810;
    pub(crate) const TDT: u32 = 0x3818;
    pub(crate) const RXCSUM: u32 = 0x5000;
    pub(crate) const MTA: u32 = 0x5200;
    pub(crate) const RA: u32 = 0x5400;
    pub(crate) const VFTA: u32 = 0x5600;
    pub(super) const STATISTICS: u32 = 0x4000;
    pub(super) const STATISTICS_END: u32 = 0x4128;
}

/// Offsets of counters.
pub mod counter {
    pub(crate) const MISSED: u32 = 0x4010;
    /// Counts the sizes of frames received: 64, to 127, to 255, to 511, to 1023, and more bytes.
    pub(crate) const RECEIVED_SIZES: u32 = 0x405c;
    pub(crate) const RECEIVED_GOOD: u32 = 0x4074;
    pub(crate) const RECEIVED_BROADCAST: u32 = 0x4078;
    pub(crate) const RECEIVED_MULTICAST: u32 = 0x407c;
    pub(crate) const SENT_GOOD: u32 = 0x4080;
    pub(crate) const RECEIVED_GOOD_BYTES: u32 = 0x4088;
    pub(crate) const SENT_GOOD_BYTES: u32 = 0x4090;
    pub(crate) const OVERSIZE: u32 = 0x40ac;
    pub(crate) const RECEIVED_BYTES: u32 = 0x40c0;
    pub(crate) const SENT_BYTES: u32 = 0x40c8;
    pub(crate) const RECEIVED: u32 = 0x40d0;
    pub(crate) const SENT: u32 = 0x40d4;
    /// As for received ones.
    pub(crate) const SENT_SIZES: u32 = 0x40d8;
    pub(crate) const SENT_MULTICAST: u32 = 0x40f0;
    pub(crate) const SENT_BROADCAST: u32 = 0x40f4;
    pub(crate) const SEGMENTED: u32 = 0x40f8;
    /// The low halves of 64-bit counters, which are cleared with their high halves.
    pub(super) const WIDE: [u32; 4] = [RECEIVED_GOOD_BYTES, SENT_GOOD_BYTES, RECEIVED_BYTES, SENT_BYTES];
}

/// Bits of CTRL.
pub mod ctrl {
    pub(crate) const SET_LINK_UP: u32 = 1 << 6;
    pub(super) const RESET: u32 = 1 << 26;
    pub(super) const PHY_RESET: u32 = 1 << 31;
    pub(crate) const VLAN: u32 = 1 << 30;
}

/// Bits of STATUS.
mod status {
    pub(super) const FULL_DUPLEX: u32 = 1 << 0;
    pub(super) const LINK_UP: u32 = 1 << 1;
    pub(super) const SPEED_1000: u32 = (2 << 6) | (2 << 8);
    pub(super) const CLOCK: u32 = 1 << 10;
}

/// Causes of interrupts: bits of ICR, ICS, IMS and IMC.
pub mod cause {
    /// A descriptor was written back.
    pub const TRANSMIT_DONE: u32 = 1 << 0;
    /// The transmit ring is empty.
    pub const TRANSMIT_EMPTY: u32 = 1 << 1;
    /// The link went up or down.
    pub const LINK: u32 = 1 << 2;
    /// Few receive descriptors are left.
    pub const RECEIVE_LOW: u32 = 1 << 4;
    /// A frame was received.
    pub const RECEIVED: u32 = 1 << 7;
    /// An access to the transceiver is done.
    pub const MDIO_DONE: u32 = 1 << 9;
    pub(super) const ALL: u32 = 0x0001_fedf;
}

/// Bits of RCTL.
pub mod rctl {
    pub(crate) const ENABLE: u32 = 1 << 1;
    pub(crate) const UNICAST_ALL: u32 = 1 << 3;
    pub(crate) const MULTICAST_ALL: u32 = 1 << 4;
    pub(crate) const LONG: u32 = 1 << 5;
    pub(crate) const LOOPBACK: u32 = 3 << 6;
    pub(crate) const BROADCAST: u32 = 1 << 15;
    pub(crate) const VLAN_FILTER: u32 = 1 << 18;
    pub(crate) const SIZE_EXTENDED: u32 = 1 << 25;
    pub(crate) const STRIP_CRC: u32 = 1 << 26;
}

/// Bits of TCTL.
pub mod tctl {
    pub(crate) const ENABLE: u32 = 1 << 1;
    pub(crate) const PAD: u32 = 1 << 3;
}

/// Words of registers that are held.
const WORDS_COUNT: usize = 0x5a00 / 4;
/// The packet buffer's memory, which a driver may test.
const BUFFER: std::ops::Range<u32> = 0x1_0000..0x2_0000;

/// The bits that can be written of a register that only holds what is written; `None` if there is no such register.
fn writable(at: u32) -> Option<u32> {
    Some(match at {
        offset::CTRL | offset::CTRL_DUP => 0x7fff_ffff & !ctrl::RESET,
        // CTRL_EXT, flow control addresses and type.
        0x0018 | 0x0028 => 0xffff_ffff,
        0x002c | 0x0030 => 0xffff,
        offset::VET | offset::ITR => 0xffff,
        offset::RCTL => 0x07de_f7ff,
        // FCTTV, TXCW.
        0x0170 => 0xffff,
        0x0178 => 0xffff_ffff,
        offset::TCTL => 0x03ff_fffe,
        // TIPG, AIFS, LEDCTL, PBA.
        0x0410 => 0x3fff_ffff,
        0x0458 => 0xffff,
        0x0e00 => 0xcfcf_cfcf,
        offset::PBA => 0xffff,
        // FCRTL, FCRTH.
        0x2160 | 0x2168 => 0x8000_fff8,
        offset::RDBAL | offset::TDBAL => 0xffff_fff0,
        offset::RDBAH | offset::TDBAH => 0xffff_ffff,
        offset::RDLEN | offset::TDLEN => 0x000f_ff80,
        offset::RDH | offset::RDT | offset::TDH | offset::TDT => 0xffff,
        // RDTR and RADV, TIDV and TADV; RXDCTL, TXDCTL; RSRPD, TXDMAC, TSPMT.
        0x2820 | 0x282c | 0x3820 | 0x382c => 0xffff,
        0x2828 | 0x3828 => 0xffff_ffff,
        0x2c00 => 0x0fff,
        0x3000 => 1,
        0x3830 => 0xffff_ffff,
        // Pointers into the packet buffer.
        0x2410..=0x2430 | 0x3410..=0x3430 if at & 4 == 0 || at & 0xff >= 0x20 => 0x1fff,
        offset::RXCSUM => 0x03ff,
        0x5200..0x5400 | 0x5600..0x5800 => 0xffff_ffff,
        // Addresses: the upper word has 16 bits of address, select and valid.
        0x5400..0x5480 => {
            if at & 4 == 0 {
                0xffff_ffff
            } else {
                0x8003_ffff
            }
        }
        // Wake-up and management.
        0x5800 | 0x5808 | 0x5820 | 0x5838 => 0xffff_ffff,
        0x5840..0x5860 => 0xffff_ffff,
        _ => return None,
    })
}

/// What a write is to have as its effect outside the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// None, or at most on the interrupt.
    Nothing,
    /// There may be frames to send.
    Transmit,
    /// There may be room for frames.
    Receive,
    /// The card is to be reset.
    Reset,
}

/// A ring of descriptors as its registers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Where it begins.
    pub base: u64,
    /// How many descriptors of 16 bytes it has.
    pub size: u32,
    /// The descriptor that the card uses next.
    pub head: u32,
    /// The first one that is the driver's.
    pub tail: u32,
}

impl Ring {
    /// How many descriptors are the card's. A ring with an end outside itself has none.
    #[must_use]
    pub fn ready_count(&self) -> u32 {
        if self.head >= self.size || self.tail >= self.size {
            return 0;
        }
        (self.tail + self.size - self.head) % self.size
    }

    /// The descriptor after `index`.
    #[must_use]
    pub fn next(&self, index: u32) -> u32 {
        if index + 1 >= self.size { 0 } else { index + 1 }
    }

    /// Where descriptor `index` is.
    #[must_use]
    pub fn descriptor(&self, index: u32) -> u64 {
        self.base.wrapping_add(16 * u64::from(index))
    }
}

/// All registers of the card: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    words: Vec<u32>,
    buffer: Vec<u32>,
    /// ICR.
    pub causes: u32,
    /// IMS.
    pub mask: u32,
    /// The EEPROM.
    pub eeprom: Eeprom,
    /// The transceiver.
    pub phy: Phy,
    /// Counts what makes the transmit ring another: a thread that works on it notices.
    pub transmit_epoch: u64,
    /// The address of the port at which registers are accessed by number.
    pub io_address: u32,
}

impl Registers {
    /// After power-on, with the address `mac`.
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        let mut registers = Self {
            words: vec![0; WORDS_COUNT],
            buffer: vec![0; usize::try_from((BUFFER.end - BUFFER.start) / 4).unwrap_or(0)],
            causes: 0,
            mask: 0,
            eeprom: Eeprom::new(mac),
            phy: Phy::new(true),
            transmit_epoch: 0,
            io_address: 0,
        };
        registers.load_defaults();
        registers
    }

    /// Whether a card can have them: of what was read from a file.
    pub(super) fn is_possible(&self) -> bool {
        let sizes = |registers: &Self| (registers.words.len(), registers.buffer.len());
        sizes(self) == sizes(&Self::new([0; 6])) && self.eeprom.is_possible()
    }

    fn load_defaults(&mut self) {
        self.words.fill(0);
        // Full duplex, 1000 Mb/s; 48 KiB of packet buffer for receiving.
        self.put(offset::CTRL, 0x0000_0201);
        self.put(offset::PBA, 0x0010_0030);
        self.put(0x0e00, 0x0706_8302);
        self.put(offset::RXCSUM, 0);
        let [a, b, c, d, e, f] = self.eeprom.mac();
        self.put(offset::RA, u32::from_le_bytes([a, b, c, d]));
        self.put(offset::RA + 4, u32::from(u16::from_le_bytes([e, f])) | (1 << 31));
    }

    /// The card's reset: all but EEPROM and transceiver.
    pub fn reset(&mut self) {
        self.load_defaults();
        (self.causes, self.mask, self.io_address) = (0, 0, 0);
        self.transmit_epoch += 1;
    }

    /// What the register at `at` holds.
    #[must_use]
    pub fn get(&self, at: u32) -> u32 {
        usize::try_from(at / 4).ok().and_then(|index| self.words.get(index)).copied().unwrap_or(0)
    }

    /// Has the register at `at` hold `value`.
    pub fn put(&mut self, at: u32, value: u32) {
        if let Some(word) = usize::try_from(at / 4).ok().and_then(|index| self.words.get_mut(index)) {
            *word = value;
        }
    }

    /// Adds to a counter, which stays at its greatest value.
    pub fn count(&mut self, at: u32, more: u32) {
        self.put(at, self.get(at).saturating_add(more));
    }

    /// Adds to a 64-bit counter.
    pub fn count_wide(&mut self, at: u32, more: u64) {
        let old = u64::from(self.get(at)) | (u64::from(self.get(at + 4)) << 32);
        let new = old.saturating_add(more);
        self.put(at, u32::try_from(new & 0xffff_ffff).unwrap_or(0));
        self.put(at + 4, u32::try_from(new >> 32).unwrap_or(0));
    }

    /// Counts a frame of `bytes` bytes with its checksum, by its size, at `sizes`.
    pub fn count_size(&mut self, sizes: u32, bytes: usize) {
        let class = [65, 128, 256, 512, 1024].iter().take_while(|limit| bytes >= **limit).count();
        self.count(sizes + 4 * u32::try_from(class).unwrap_or(0), 1);
    }

    /// Whether there is a link.
    #[must_use]
    pub fn has_link(&self) -> bool {
        self.phy.has_link() && self.get(offset::CTRL) & ctrl::SET_LINK_UP != 0
    }

    /// Whether what is sent comes back.
    #[must_use]
    pub fn loops_back(&self) -> bool {
        self.phy.loops_back() || self.get(offset::RCTL) & rctl::LOOPBACK != 0
    }

    fn ring(&self, base: u32) -> Ring {
        Ring {
            base: u64::from(self.get(base)) | (u64::from(self.get(base + 4)) << 32),
            size: self.get(base + 8) / 16,
            head: self.get(base + 0x10),
            tail: self.get(base + 0x18),
        }
    }

    /// The ring of frames to send.
    #[must_use]
    pub fn transmit_ring(&self) -> Ring {
        self.ring(offset::TDBAL)
    }

    /// The ring of buffers for frames received.
    #[must_use]
    pub fn receive_ring(&self) -> Ring {
        self.ring(offset::RDBAL)
    }

    /// Whether an interrupt is due, apart from its rate.
    #[must_use]
    pub fn wants_interrupt(&self) -> bool {
        self.causes & self.mask != 0
    }

    /// Reads the register at `at`, a multiple of four. Some reads clear.
    pub fn read(&mut self, at: u32) -> u32 {
        match at {
            offset::CTRL_DUP => self.get(offset::CTRL),
            offset::STATUS => {
                let link = if self.has_link() { status::LINK_UP } else { 0 };
                status::FULL_DUPLEX | link | status::SPEED_1000 | status::CLOCK
            }
            offset::EECD => self.eeprom.read_control(),
            offset::EERD => self.eeprom.read_register(),
            offset::MDIC => self.phy.read_mdic(),
            offset::ICR => std::mem::take(&mut self.causes),
            offset::IMS => self.mask,
            offset::STATISTICS..offset::STATISTICS_END => {
                let value = self.get(at);
                // A 64-bit counter is cleared by reading its upper half.
                if counter::WIDE.contains(&(at - 4)) {
                    self.put(at - 4, 0);
                }
                if !counter::WIDE.contains(&at) {
                    self.put(at, 0);
                }
                value
            }
            _ if BUFFER.contains(&at) => self.buffer_word(at).copied().unwrap_or(0),
            _ if writable(at).is_some() => self.get(at),
            _ => 0,
        }
    }

    fn buffer_word(&mut self, at: u32) -> Option<&mut u32> {
        self.buffer.get_mut(usize::try_from((at - BUFFER.start) / 4).ok()?)
    }

    /// Writes the register at `at`, a multiple of four.
    pub fn write(&mut self, at: u32, value: u32) -> Effect {
        match at {
            offset::EECD => self.eeprom.write_control(value),
            offset::EERD => self.eeprom.write_register(value),
            offset::MDIC => {
                let effect = self.phy.write_mdic(value);
                if effect.done {
                    self.causes |= cause::MDIO_DONE;
                }
                if effect.negotiated {
                    self.causes |= cause::LINK;
                }
            }
            offset::ICR => self.causes &= !value,
            offset::ICS => self.causes |= value & cause::ALL,
            offset::IMS => self.mask |= value & cause::ALL,
            offset::IMC => self.mask &= !value,
            offset::CTRL | offset::CTRL_DUP => return self.write_control(value),
            _ if BUFFER.contains(&at) => {
                if let Some(word) = self.buffer_word(at) {
                    *word = value;
                }
            }
            _ => return self.write_plain(at, value),
        }
        Effect::Nothing
    }

    fn write_control(&mut self, value: u32) -> Effect {
        if value & ctrl::RESET != 0 {
            return Effect::Reset;
        }
        let had_link = self.has_link();
        if value & ctrl::PHY_RESET != 0 {
            self.phy = Phy::new(self.phy.cable);
        }
        self.put(offset::CTRL, value & writable(offset::CTRL).unwrap_or(0));
        if self.has_link() != had_link {
            self.causes |= cause::LINK;
        }
        Effect::Nothing
    }

    fn write_plain(&mut self, at: u32, value: u32) -> Effect {
        let Some(mask) = writable(at) else { return Effect::Nothing };
        self.put(at, value & mask);
        match at {
            offset::TDBAL | offset::TDBAH | offset::TDLEN | offset::TDH => {
                self.transmit_epoch += 1;
                Effect::Nothing
            }
            offset::TDT | offset::TCTL => Effect::Transmit,
            offset::RDT | offset::RCTL => Effect::Receive,
            _ => Effect::Nothing,
        }
    }

    /// The cable is plugged in or out.
    pub fn set_cable(&mut self, plugged: bool) {
        let had_link = self.has_link();
        self.phy.cable = plugged;
        if self.has_link() != had_link {
            self.causes |= cause::LINK;
        }
    }
}
