//! What a card does with a frame from the cable: whether it is for this card, and what is said of it in the receive descriptor.
//!
//! Specification: 8254x Software Developer's Manual, section 3.2 (reception), 13.5.1 (multicast table), 13.5.2 (addresses), 13.5.3 (VLAN table).

use super::registers::{Registers, counter, ctrl, offset, rctl};
use crate::checksum;

/// The shortest frame on a cable, without its checksum.
const FRAME_BYTES_MIN: usize = 60;
/// The checksum of a frame.
const CRC_BYTES: usize = 4;
/// The longest frame that is not a long one, with a tag and the checksum.
const FRAME_BYTES_MAX: usize = 1522;
/// The longest long one.
const LONG_FRAME_BYTES_MAX: usize = 16_384;
const ADDRESSES_COUNT: u32 = 16;

/// Bits of a receive descriptor's status.
pub mod status {
    /// The descriptor is the driver's again.
    pub const DONE: u8 = 1 << 0;
    /// It is the packet's last.
    pub const END_OF_PACKET: u8 = 1 << 1;
    /// The card has not looked at checksums.
    pub const IGNORE_CHECKSUM: u8 = 1 << 2;
    /// A tag was taken out.
    pub const VLAN: u8 = 1 << 3;
    /// The TCP or UDP checksum is right.
    pub const TRANSPORT_CHECKSUM: u8 = 1 << 5;
    /// The IP header's checksum is right.
    pub const IP_CHECKSUM: u8 = 1 << 6;
    /// The address was not matched exactly.
    pub const INEXACT: u8 = 1 << 7;
}

/// Bits of RXCSUM.
mod rxcsum {
    pub(super) const IP: u32 = 1 << 8;
    pub(super) const TRANSPORT: u32 = 1 << 9;
}

/// A frame that the card takes, as it goes into memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The frame, as long as the cable has it, with its checksum unless that is stripped.
    pub bytes: Vec<u8>,
    /// The status of its last descriptor.
    pub status: u8,
    /// The one's complement sum that the descriptor has.
    pub sum: u16,
    /// The tag that was taken out.
    pub tag: u16,
}

fn tag_of(registers: &Registers, frame: &[u8]) -> Option<u16> {
    let kind = u32::from(u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]));
    let tag = u16::from_be_bytes([*frame.get(14)?, *frame.get(15)?]);
    (kind == registers.get(offset::VET)).then_some(tag)
}

/// Whether bit `number` of a table of words is set.
fn table_bit(registers: &Registers, table: u32, number: u32) -> bool {
    registers.get(table + 4 * (number / 32)) & (1 << (number % 32)) != 0
}

/// Whether a frame to `address` is for this card: `None` if not, else whether by an exact match.
fn matches(registers: &Registers, address: [u8; 6]) -> Option<bool> {
    let control = registers.get(offset::RCTL);
    let [a, b, c, d, e, f] = address;
    let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from(u16::from_le_bytes([e, f])));
    let exact = (0..ADDRESSES_COUNT).map(|number| offset::RA + 8 * number).any(|at| {
        let upper = registers.get(at + 4);
        registers.get(at) == low && upper & 0xffff == high && upper & (1 << 31) != 0
    });
    if exact {
        return Some(true);
    }
    let is_broadcast = address == [0xff; 6];
    let inexact = if a & 1 == 0 {
        control & rctl::UNICAST_ALL != 0
    } else {
        // Twelve bits of the last two bytes; which, RCTL says.
        let shift = match control >> 12 & 3 {
            0 => 4,
            1 => 3,
            2 => 2,
            _ => 0,
        };
        let hash = (u32::from(u16::from_le_bytes([e, f])) >> shift) & 0xfff;
        (is_broadcast && control & rctl::BROADCAST != 0)
            || control & rctl::MULTICAST_ALL != 0
            || table_bit(registers, offset::MTA, hash)
    };
    // Broadcast counts as exact.
    inexact.then_some(is_broadcast)
}

/// How large the buffer behind each descriptor is, in bytes.
#[must_use]
pub fn buffer_bytes(control: u32) -> usize {
    let size = match control >> 16 & 3 {
        0 => 2048,
        1 => 1024,
        2 => 512,
        _ => 256,
    };
    if control & rctl::SIZE_EXTENDED != 0 && size != 2048 { size * 16 } else { size }
}

/// Looks at a frame from the cable: what goes to memory, or `None` if it is not for this card. Counts what is dropped.
pub fn accept(registers: &mut Registers, frame: &[u8], into: &mut Accepted) -> Option<()> {
    let control = registers.get(offset::RCTL);
    let address = *frame.first_chunk::<6>()?;
    let exact = matches(registers, address)?;
    let tag = tag_of(registers, frame);
    if let Some(tag) = tag.filter(|_| control & rctl::VLAN_FILTER != 0)
        && !table_bit(registers, offset::VFTA, (tag & 0xfff).into())
    {
        return None;
    }
    let wire_bytes = frame.len().max(FRAME_BYTES_MIN) + CRC_BYTES;
    let limit = if control & rctl::LONG != 0 { LONG_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX };
    if wire_bytes > limit {
        registers.count(counter::OVERSIZE, 1);
        return None;
    }
    let bytes = &mut into.bytes;
    bytes.clear();
    bytes.extend_from_slice(frame);
    into.status = if exact { 0 } else { status::INEXACT };
    into.tag = 0;
    if let Some(tag) = tag.filter(|_| registers.get(offset::CTRL) & ctrl::VLAN != 0) {
        bytes.drain(12..16);
        into.tag = tag;
        into.status |= status::VLAN;
    }
    look_at_checksums(registers.get(offset::RXCSUM), frame, into);
    let bytes = &mut into.bytes;
    if bytes.len() < FRAME_BYTES_MIN {
        bytes.resize(FRAME_BYTES_MIN, 0);
    }
    if control & rctl::STRIP_CRC == 0 {
        let crc = crc32fast::hash(bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
    count(registers, address, wire_bytes);
    Some(())
}

/// Says what is right. Of what is not, the card says nothing, and the driver looks itself.
fn look_at_checksums(control: u32, frame: &[u8], into: &mut Accepted) {
    let start = usize::from(control.to_le_bytes()[0]);
    into.sum = checksum::fold(checksum::sum(into.bytes.get(start..).unwrap_or(&[])));
    let ip = control & rxcsum::IP != 0 && checksum::is_valid_v4_header(frame);
    let transport = control & rxcsum::TRANSPORT != 0 && checksum::is_valid(frame);
    if ip {
        into.status |= status::IP_CHECKSUM;
    }
    if transport {
        into.status |= status::TRANSPORT_CHECKSUM;
    }
    if !ip && !transport {
        into.status |= status::IGNORE_CHECKSUM;
    }
}

fn count(registers: &mut Registers, address: [u8; 6], wire_bytes: usize) {
    registers.count(counter::RECEIVED, 1);
    registers.count(counter::RECEIVED_GOOD, 1);
    registers.count_wide(counter::RECEIVED_BYTES, wire_bytes as u64);
    registers.count_wide(counter::RECEIVED_GOOD_BYTES, wire_bytes as u64);
    registers.count_size(counter::RECEIVED_SIZES, wire_bytes);
    if address == [0xff; 6] {
        registers.count(counter::RECEIVED_BROADCAST, 1);
    } else if address[0] & 1 != 0 {
        registers.count(counter::RECEIVED_MULTICAST, 1);
    }
}
