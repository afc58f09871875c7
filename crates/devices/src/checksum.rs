//! Internet checksums of network devices, so that guests need not compute them: a host does it a hundred times faster than a guest that is interpreted.
//!
//! Specification: RFC 1071; virtio 1.2, section 5.1.6 (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_F_DATA_VALID`).

use machine::backend::Partial;

const ETHERNET_BYTES: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The one's complement sum of `bytes` as big-endian halves, not folded. No frame is long enough to overflow it.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // Sums of native words are sums of bytes in another order, which folding does not mind (RFC 1071, section 2).
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(last));
    total
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

/// Completes a checksum that the guest left to the device: the field at `start + offset`, which holds the sum of the pseudo-header, becomes the
/// checksum of `frame` from `start` on. False if the field is not in the frame.
pub(crate) fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    if !has_field(frame, Partial { start, offset }) {
        return false;
    }
    let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
    let checksum = match !fold(sum(&frame[start..])) {
        // Zero would mean "no checksum" in UDP; both are zero to a one's complement sum.
        0 => 0xffff,
        checksum => checksum,
    };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Whether the field of an unfinished checksum is in `frame`.
pub(crate) fn has_field(frame: &[u8], partial: Partial) -> bool {
    usize::from(partial.start) + usize::from(partial.offset) + 2 <= frame.len()
}

/// Whether `frame` is IPv6.
pub(crate) fn is_v6(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&IPV6)
}

/// How many bytes at the beginning of `frame` are headers, up to TCP's; less if it has no TCP.
pub(crate) fn headers_bytes(frame: &[u8]) -> u16 {
    let tcp = transport(frame).map_or(ETHERNET_BYTES, |(_, segment)| frame.len() - segment.len());
    let header = frame.get(tcp + 12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    u16::try_from(tcp + header).unwrap_or(0)
}

/// A number for the two ends that `frame` goes between, the same for both directions: of TCP and UDP with their ports. `None` if it is not IP.
pub(crate) fn ends(frame: &[u8]) -> Option<u32> {
    let (address_at, address_bytes, protocol_at, next) = match frame.get(12..14)? {
        kind if kind == IPV4 => (26, 4, 23, ETHERNET_BYTES + usize::from(frame.get(14)? & 15) * 4),
        kind if kind == IPV6 => (22, 16, 20, ETHERNET_BYTES + 40),
        _ => return None,
    };
    let word = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
    let addresses = frame.get(address_at..address_at + 2 * address_bytes)?.as_chunks::<4>().0;
    let mut ends = addresses.iter().map(word).fold(0, |ends, word| ends ^ word);
    if [TCP, UDP].contains(frame.get(protocol_at)?)
        && let Some([a, b, c, d]) = frame.get(next..next + 4)
    {
        ends ^= u32::from(u16::from_be_bytes([*a, *b]) ^ u16::from_be_bytes([*c, *d])) << 8;
    }
    Some(ends)
}

/// Whether `frame` is TCP or UDP, not a fragment, and its checksum is right. A false answer only means that the guest has to look itself.
pub(crate) fn is_valid(frame: &[u8]) -> bool {
    transport(frame).is_some_and(|(pseudo, segment)| fold(pseudo + sum(segment)) == 0xffff)
}

/// Whether `frame` is IPv4 and its header's checksum is right.
pub(crate) fn is_valid_v4_header(frame: &[u8]) -> bool {
    let packet = frame.get(ETHERNET_BYTES..).unwrap_or(&[]);
    let header_bytes = usize::from(packet.first().copied().unwrap_or(0) & 15) * 4;
    frame.get(12..14) == Some(&IPV4)
        && header_bytes >= 20
        && packet.get(..header_bytes).is_some_and(|header| fold(sum(header)) == 0xffff)
}

/// The sum of the pseudo-header and the bytes of the segment in `frame`, if it has one with a checksum.
fn transport(frame: &[u8]) -> Option<(u64, &[u8])> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let (protocol, addresses, segment) = match [*frame.get(12)?, *frame.get(13)?] {
        IPV4 => {
            let header = packet.first_chunk::<20>()?;
            let header_bytes = usize::from(header[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
            if header[0] >> 4 != 4 || fragment != 0 {
                return None;
            }
            (header[9], &packet[12..20], packet.get(header_bytes..total)?)
        }
        IPV6 => {
            let header = packet.first_chunk::<40>()?;
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            (header[6], &packet[8..40], packet.get(40..40 + length)?)
        }
        _ => return None,
    };
    let has_checksum = match protocol {
        TCP => segment.len() >= 20,
        UDP => segment.len() >= 8 && segment[6..8] != [0, 0],
        _ => false,
    };
    has_checksum.then(|| (sum(addresses) + u64::from(protocol) + segment.len() as u64, segment))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame with a UDP datagram whose checksum field holds the sum of the pseudo-header, as a guest leaves it; and where it starts.
    pub(crate) fn udp(payload: &[u8], v6: bool) -> (Vec<u8>, u16) {
        let length = u16::try_from(payload.len() + 8).unwrap();
        let mut frame = vec![0x52; 12];
        let addresses: Vec<u8> = if v6 { (0..32).collect() } else { vec![10, 0, 2, 15, 10, 0, 2, 2] };
        if v6 {
            frame.extend(IPV6);
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([UDP, 64]);
        } else {
            frame.extend(IPV4);
            frame.extend([0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
        }
        frame.extend(&addresses);
        let start = u16::try_from(frame.len()).unwrap();
        frame.extend([0x12, 0x34, 0, 53]);
        frame.extend(length.to_be_bytes());
        frame.extend(fold(sum(&addresses) + u64::from(UDP) + u64::from(length)).to_be_bytes());
        frame.extend(payload);
        (frame, start)
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2])), 0xf201);
    }

    #[test]
    fn fields_outside_the_frame_are_refused() {
        let mut frame = [0; 60];
        assert!(!complete(&mut frame, 61, 0));
        assert!(!complete(&mut frame, 50, 9));
        assert!(!complete(&mut frame, u16::MAX, u16::MAX));
        assert!(complete(&mut frame, 50, 8));
    }

    #[test]
    fn only_what_is_certain_is_valid() {
        let (mut frame, start) = udp(b"hello", false);
        assert!(!is_valid(&frame), "not completed");
        assert!(complete(&mut frame, start, 6));
        assert!(is_valid(&frame));
        let with = |at: usize, value: u8| {
            let mut changed = frame.clone();
            changed[at] = value;
            is_valid(&changed)
        };
        assert!(!with(20, 0x20), "a fragment");
        assert!(!with(45, 1), "changed data");
        assert!(!with(14, 0x55), "another version");
        assert!(!with(23, 1), "a protocol without such a checksum");
        assert!(!with(16, 0xff), "longer than the frame");
        frame[40..42].fill(0);
        assert!(!is_valid(&frame), "no checksum was sent");
    }

    proptest! {
        #[test]
        fn what_is_completed_is_valid(payload in proptest::collection::vec(any::<u8>(), 0..3000), v6 in any::<bool>()) {
            let (mut frame, start) = udp(&payload, v6);
            prop_assert!(complete(&mut frame, start, 6));
            prop_assert!(is_valid(&frame));
        }

        #[test]
        fn rubbish_is_answered(mut frame in proptest::collection::vec(any::<u8>(), 0..100), start in any::<u16>(), offset in any::<u16>()) {
            is_valid(&frame);
            complete(&mut frame, start, offset);
            complete(&mut frame, start % 100, offset % 100);
        }
    }
}
