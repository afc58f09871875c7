//! What a card does with transmit descriptors: gathers frames, cuts them into segments, and completes checksums.
//!
//! Specification: 8254x Software Developer's Manual, section 3.3 (descriptors), 3.4 (ring), 3.5 (segmentation).
//!
//! A descriptor is parsed once into a [`Descriptor`]. A packet grows with each of its data descriptors, up to a limit beyond which it is lost, and leaves as one
//! frame or, by the segmentation context, as many.

use serde::{Deserialize, Serialize};

use crate::checksum;

/// The largest frame that is sent whole, in bytes.
const FRAME_BYTES_MAX: usize = 16_288;
/// The most that is segmented: 256 KiB behind the longest header.
const SEGMENTED_BYTES_MAX: usize = (1 << 18) + 255;
/// Segments are no shorter, so that their number has a bound.
const SEGMENT_BYTES_MIN: usize = 64;
const ETHERNET_BYTES: usize = 14;
/// Where a tag is put: behind the addresses.
const TAG_AT: usize = 12;
/// The shortest frame, without its checksum.
const FRAME_BYTES_MIN: usize = 60;

/// Bits of the command byte of any descriptor.
mod command {
    pub(super) const END_OF_PACKET: u8 = 1 << 0;
    /// In legacy descriptors: insert a checksum. In others: segment.
    pub(super) const INSERT_CHECKSUM: u8 = 1 << 2;
    pub(super) const SEGMENT: u8 = 1 << 2;
    pub(super) const REPORT_STATUS: u8 = 1 << 3;
    pub(super) const EXTENDED: u8 = 1 << 5;
    pub(super) const VLAN: u8 = 1 << 6;
}

/// Where a checksum goes, and what it is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// The first byte that it is of.
    pub start: u8,
    /// Where it goes.
    pub field: u8,
    /// The last byte that it is of; zero for the end of the frame.
    pub end: u16,
}

impl Sum {
    /// Computes it over `frame` and puts it there. What is not in the frame is not done.
    fn insert(self, frame: &mut [u8]) {
        let end = if self.end == 0 { frame.len() } else { frame.len().min(usize::from(self.end) + 1) };
        let Some(bytes) = frame.get(usize::from(self.start)..end) else { return };
        let value = match !checksum::fold(checksum::sum(bytes)) {
            // Zero would mean "no checksum" in UDP; both are zero to a one's complement sum.
            0 => 0xffff,
            value => value,
        };
        put(frame, self.field.into(), &value.to_be_bytes());
    }
}

/// Overwrites bytes of `frame` at `at`, if they are in it.
fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn half_at(frame: &[u8], at: usize) -> u16 {
    frame.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn word_at(frame: &[u8], at: usize) -> u32 {
    frame.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// What a context descriptor sets up for packets to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The IP header's checksum.
    pub ip: Sum,
    /// The TCP or UDP checksum.
    pub transport: Sum,
    /// Whether that is TCP.
    pub tcp: bool,
    /// Whether the packet is IPv4.
    pub v4: bool,
    /// How long the headers are that each segment gets.
    pub header_bytes: u8,
    /// How long the rest of a segment is at most.
    pub segment_bytes: u16,
}

/// A piece of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Where it is.
    pub at: u64,
    /// How long it is, in bytes: at most 20 bits of it.
    pub bytes: u32,
    /// Whether it is the packet's last.
    pub end_of_packet: bool,
    /// What is to be done with the packet; of a packet, its first piece decides.
    pub treatment: Treatment,
    /// The tag to be put into it, if tags are put in; of a packet, its last piece decides.
    pub tag: Option<u16>,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Treatment {
    /// A checksum of the descriptor's own (legacy).
    pub sum: Option<Sum>,
    /// Whether the IP header's checksum is completed, by the context.
    pub ip_sum: bool,
    /// Whether the TCP or UDP checksum is completed, by the context.
    pub transport_sum: bool,
    /// Whether the packet is cut into segments, by the context for that.
    pub segment: bool,
}

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A context, for segmentation or for checksums only.
    Context {
        /// Which of the two.
        segment: bool,
        /// What it sets up.
        context: Context,
    },
    /// A piece of a packet.
    Data(Data),
    /// Nothing that exists.
    Reserved,
}

/// A descriptor, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it asks for.
    pub request: Request,
    /// Whether the driver wants to see that it is done.
    pub report: bool,
}

impl Descriptor {
    /// Parses the 16 bytes in the ring.
    #[must_use]
    pub fn parse(bytes: &[u8; 16]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut address = [0; 8];
        address.copy_from_slice(&bytes[..8]);
        let at = u64::from_le_bytes(address);
        let command = bytes[11];
        let report = command & command::REPORT_STATUS != 0;
        let tag = (command & command::VLAN != 0).then(|| half(14));
        let end_of_packet = command & command::END_OF_PACKET != 0;
        let length = u32::from(half(8)) | (u32::from(bytes[10] & 0x0f) << 16);
        let segment = command & command::SEGMENT != 0;
        let request = match (command & command::EXTENDED != 0, bytes[10] >> 4) {
            (false, _) => {
                let sum = (command & command::INSERT_CHECKSUM != 0).then(|| Sum {
                    start: bytes[13],
                    field: bytes[10],
                    end: 0,
                });
                let treatment = Treatment { sum, ..Treatment::default() };
                Request::Data(Data { at, bytes: half(8).into(), end_of_packet, treatment, tag })
            }
            (true, 0) => {
                let context = Context {
                    ip: Sum { start: bytes[0], field: bytes[1], end: half(2) },
                    transport: Sum { start: bytes[4], field: bytes[5], end: half(6) },
                    tcp: command & 1 != 0,
                    v4: command & 2 != 0,
                    header_bytes: bytes[13],
                    segment_bytes: half(14),
                };
                Request::Context { segment, context }
            }
            (true, 1) => {
                let (ip_sum, transport_sum) = (bytes[13] & 1 != 0, bytes[13] & 2 != 0);
                let treatment = Treatment { sum: None, ip_sum, transport_sum, segment };
                Request::Data(Data { at, bytes: length, end_of_packet, treatment, tag })
            }
            (true, _) => Request::Reserved,
        };
        Self { request, report }
    }
}

/// What the card does to every frame, by its registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The type of tags that are put in where a descriptor asks for it; `None` if they are not.
    pub tag_type: Option<u16>,
    /// Whether short frames are made as long as the shortest allowed.
    pub pad: bool,
}

/// The packet that grows, and the contexts: what a snapshot saves beside the registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transmit {
    checksums: Context,
    segmentation: Context,
    packet: Vec<u8>,
    treatment: Option<Treatment>,
    /// The packet is too long, and lost.
    lost: bool,
    frame: Vec<u8>,
}

impl Transmit {
    /// Forgets all.
    pub fn reset(&mut self) {
        self.packet.clear();
        (self.checksums, self.segmentation, self.treatment, self.lost) = Default::default();
    }

    /// Takes a piece of a packet, whose bytes `fetch` copies from an address; hands the packet's frames to `send` if it was the last piece. Answers the number
    /// of frames into which it was segmented, if it was.
    pub fn take(
        &mut self,
        data: &Data,
        settings: Settings,
        mut fetch: impl FnMut(u64, &mut [u8]),
        mut send: impl FnMut(&[u8]),
    ) -> u32 {
        let treatment = *self.treatment.get_or_insert(data.treatment);
        let limit = if treatment.segment { SEGMENTED_BYTES_MAX } else { FRAME_BYTES_MAX };
        let old = self.packet.len();
        let bytes = usize::try_from(data.bytes).unwrap_or(usize::MAX);
        self.lost |= bytes > limit - old.min(limit);
        if !self.lost {
            self.packet.resize(old + bytes, 0);
            fetch(data.at, &mut self.packet[old..]);
        }
        if !data.end_of_packet {
            return 0;
        }
        let mut segments_count = 0;
        if !self.lost {
            let tag = settings.tag_type.zip(data.tag);
            if treatment.segment {
                segments_count = self.segment(treatment, tag, settings.pad, &mut send);
            } else {
                self.whole(treatment, tag, settings.pad, &mut send);
            }
        }
        self.packet.clear();
        self.treatment = None;
        self.lost = false;
        segments_count
    }

    /// Sets up a context.
    pub fn set_context(&mut self, segment: bool, context: Context) {
        *(if segment { &mut self.segmentation } else { &mut self.checksums }) = context;
    }

    fn whole(&mut self, treatment: Treatment, tag: Option<(u16, u16)>, pad: bool, send: &mut impl FnMut(&[u8])) {
        let frame = &mut self.packet;
        if let Some(sum) = treatment.sum {
            sum.insert(frame);
        }
        if treatment.transport_sum {
            self.checksums.transport.insert(frame);
        }
        if treatment.ip_sum {
            self.checksums.ip.insert(frame);
        }
        finish(frame, tag, pad, send);
    }

    fn segment(
        &mut self,
        treatment: Treatment,
        tag: Option<(u16, u16)>,
        pad: bool,
        send: &mut impl FnMut(&[u8]),
    ) -> u32 {
        let context = self.segmentation;
        let Some((header, payload)) = self.packet.split_at_checked(context.header_bytes.into()) else { return 0 };
        let size = usize::from(context.segment_bytes).max(SEGMENT_BYTES_MIN);
        let (ip, transport) = (usize::from(context.ip.start), usize::from(context.transport.start));
        let mut number = 0u32;
        for chunk in payload.chunks(size) {
            let done = u32::try_from(size).unwrap_or(0).wrapping_mul(number);
            let is_last = usize::try_from(done).unwrap_or(usize::MAX) + chunk.len() == payload.len();
            let frame = &mut self.frame;
            frame.clear();
            frame.extend_from_slice(header);
            frame.extend_from_slice(chunk);
            // Lengths are of what is in a frame: below 64 KiB and a header, and cut as a register is.
            let length = |from: usize| u16::try_from((frame.len().saturating_sub(from)) & 0xffff).unwrap_or(0);
            let (ip_bytes, transport_bytes) = (length(ip), length(transport));
            if context.v4 {
                let identification = half_at(frame, ip + 4).wrapping_add(u16::try_from(number & 0xffff).unwrap_or(0));
                put(frame, ip + 2, &ip_bytes.to_be_bytes());
                put(frame, ip + 4, &identification.to_be_bytes());
            } else {
                // IPv6 does not count its own header.
                put(frame, ip + 4, &ip_bytes.saturating_sub(40).to_be_bytes());
            }
            if context.tcp {
                let sequence = word_at(frame, transport + 4).wrapping_add(done);
                put(frame, transport + 4, &sequence.to_be_bytes());
                if let Some(flags) = frame.get_mut(transport + 13).filter(|_| !is_last) {
                    // FIN and PSH are the last segment's.
                    *flags &= !0x09;
                }
            } else {
                put(frame, transport + 4, &transport_bytes.to_be_bytes());
            }
            if treatment.transport_sum {
                // The driver leaves the length out of the pseudo-header's sum, since it is each segment's own.
                let field = usize::from(context.transport.field);
                let sum = checksum::fold(u64::from(half_at(frame, field)) + u64::from(transport_bytes));
                put(frame, field, &sum.to_be_bytes());
                context.transport.insert(frame);
            }
            if treatment.ip_sum {
                context.ip.insert(frame);
            }
            finish(frame, tag, pad, send);
            number += 1;
        }
        number
    }
}

/// Puts the tag in, makes the frame long enough, and sends it if it is one.
fn finish(frame: &mut Vec<u8>, tag: Option<(u16, u16)>, pad: bool, send: &mut impl FnMut(&[u8])) {
    if frame.len() < ETHERNET_BYTES {
        return;
    }
    if let Some((kind, tag)) = tag {
        let ([a, b], [c, d]) = (kind.to_be_bytes(), tag.to_be_bytes());
        frame.splice(TAG_AT..TAG_AT, [a, b, c, d]);
    }
    if pad && frame.len() < FRAME_BYTES_MIN {
        frame.resize(FRAME_BYTES_MIN, 0);
    }
    send(frame);
}
