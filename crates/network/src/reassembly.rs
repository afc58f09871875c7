//! Puts fragmented IPv4 packets from the guest together again (RFC 791, section 3.2), within bounds.
//!
//! Few packets at a time, each of few fragments, none for long; fragments that overlap are an attack or a fault, and end
//! their packet (as RFC 5722 rules for IPv6).

use smoltcp::wire::{Ipv4Address, Ipv4Packet};

use crate::link::IPV4_HEADER;

/// Packets under reassembly at once; the oldest gives way.
const PACKETS_MAX: usize = 16;
/// Fragments of one packet.
const FRAGMENTS_MAX: usize = 64;
/// How long a packet may take (RFC 791 suggests 15 s).
const TIMEOUT_NS: u64 = 15_000_000_000;

/// What makes fragments belong together.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    from: Ipv4Address,
    to: Ipv4Address,
    protocol: u8,
    identification: u16,
}

struct Partial {
    key: Key,
    started_ns: u64,
    /// The header of the first fragment, without options, then the payload with holes.
    bytes: Vec<u8>,
    /// Ranges of the payload that are here; sorted, disjoint.
    pieces: Vec<(usize, usize)>,
    /// The payload's length, once the last fragment is here.
    total: Option<usize>,
}

/// The packets of which fragments have come.
#[derive(Default)]
pub(crate) struct Reassembly {
    partial: Vec<Partial>,
}

impl Reassembly {
    /// Takes the fragment `packet`; answers the whole packet (header without options, and payload) if it was the last missing.
    pub(crate) fn add(&mut self, now_ns: u64, packet: &Ipv4Packet<&[u8]>) -> Option<Vec<u8>> {
        self.partial.retain(|partial| now_ns.saturating_sub(partial.started_ns) < TIMEOUT_NS);
        let key = Key {
            from: packet.src_addr(),
            to: packet.dst_addr(),
            protocol: packet.next_header().into(),
            identification: packet.ident(),
        };
        let index = self.partial.iter().position(|partial| partial.key == key).unwrap_or_else(|| {
            if self.partial.len() == PACKETS_MAX {
                self.partial.remove(0);
            }
            let partial =
                Partial { key, started_ns: now_ns, bytes: vec![0; IPV4_HEADER], pieces: Vec::new(), total: None };
            self.partial.push(partial);
            self.partial.len() - 1
        });
        match self.partial[index].add(packet) {
            Progress::Incomplete => None,
            Progress::Complete => Some(self.partial.remove(index).finish()),
            Progress::Broken => {
                self.partial.remove(index);
                None
            }
        }
    }
}

enum Progress {
    Incomplete,
    Complete,
    Broken,
}

impl Partial {
    fn add(&mut self, packet: &Ipv4Packet<&[u8]>) -> Progress {
        let payload = packet.payload();
        let start = usize::from(packet.frag_offset());
        let end = start + payload.len();
        let last = !packet.more_frags();
        let fits = IPV4_HEADER + end <= usize::from(u16::MAX)
            && !payload.is_empty()
            && (last || payload.len().is_multiple_of(8))
            && self.total.is_none_or(|total| end <= total && !last)
            && (!last || self.pieces.last().is_none_or(|&(_, furthest)| furthest <= end))
            && self.pieces.len() < FRAGMENTS_MAX;
        let at = self.pieces.partition_point(|&(other, _)| other < start);
        let free = at.checked_sub(1).is_none_or(|before| self.pieces[before].1 <= start)
            && self.pieces.get(at).is_none_or(|&(next, _)| end <= next);
        if !fits || !free {
            return Progress::Broken;
        }
        self.pieces.insert(at, (start, end));
        if last {
            self.total = Some(end);
        }
        if start == 0 {
            self.bytes[..IPV4_HEADER].copy_from_slice(&packet.as_ref()[..IPV4_HEADER]);
        }
        if self.bytes.len() < IPV4_HEADER + end {
            self.bytes.resize(IPV4_HEADER + end, 0);
        }
        self.bytes[IPV4_HEADER + start..IPV4_HEADER + end].copy_from_slice(payload);
        let here: usize = self.pieces.iter().map(|(start, end)| end - start).sum();
        if self.total == Some(here) { Progress::Complete } else { Progress::Incomplete }
    }

    fn finish(mut self) -> Vec<u8> {
        let total = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX);
        let mut packet = Ipv4Packet::new_unchecked(&mut self.bytes[..]);
        packet.set_header_len(20);
        packet.set_total_len(total);
        packet.clear_flags();
        packet.set_frag_offset(0);
        packet.fill_checksum();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::IpProtocol;

    fn fragment(identification: u16, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; IPV4_HEADER + payload.len()];
        bytes[IPV4_HEADER..].copy_from_slice(payload);
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
        packet.set_version(4);
        packet.set_header_len(20);
        packet.set_total_len(u16::try_from(IPV4_HEADER + payload.len()).unwrap());
        packet.set_ident(identification);
        packet.set_more_frags(more);
        packet.set_frag_offset(u16::try_from(offset).unwrap());
        packet.set_next_header(IpProtocol::Udp);
        packet.fill_checksum();
        bytes
    }

    fn add(reassembly: &mut Reassembly, now_ns: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        reassembly.add(now_ns, &Ipv4Packet::new_checked(bytes).unwrap())
    }

    proptest! {
        #[test]
        fn any_order_gives_the_packet(
            payload in proptest::collection::vec(any::<u8>(), 1..4000),
            piece in (1usize..100).prop_map(|n| n * 8),
            seed in any::<u64>(),
        ) {
            prop_assume!(payload.len() / piece < FRAGMENTS_MAX);
            let mut pieces: Vec<_> = payload.chunks(piece).enumerate().collect();
            let count = pieces.len();
            let mut state = seed;
            for i in (1..count).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                pieces.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
            }
            let mut reassembly = Reassembly::default();
            let mut whole = None;
            for (index, bytes) in pieces {
                prop_assert!(whole.is_none());
                whole = add(&mut reassembly, 0, &fragment(1, index * piece, index + 1 < count, bytes));
            }
            let whole = whole.unwrap();
            let packet = Ipv4Packet::new_checked(&whole[..]).unwrap();
            prop_assert!(packet.verify_checksum());
            prop_assert_eq!(packet.payload(), &payload[..]);
            prop_assert!(reassembly.partial.is_empty());
        }

        #[test]
        fn hostile_fragments_stay_in_bounds(
            fragments in proptest::collection::vec((0u16..4, 0usize..8192, any::<bool>(), 0usize..300), 0..200),
        ) {
            let mut reassembly = Reassembly::default();
            for (identification, offset, more, length) in fragments {
                add(&mut reassembly, 0, &fragment(identification, offset * 8 % 65_528, more, &vec![7; length]));
                prop_assert!(reassembly.partial.len() <= PACKETS_MAX);
                prop_assert!(reassembly.partial.iter().all(|p| p.bytes.len() <= usize::from(u16::MAX)));
            }
        }
    }

    #[test]
    fn overlap_and_age_end_a_packet() {
        let mut reassembly = Reassembly::default();
        assert!(add(&mut reassembly, 0, &fragment(1, 0, true, &[1; 16])).is_none());
        assert!(add(&mut reassembly, 0, &fragment(1, 8, true, &[1; 16])).is_none());
        assert!(reassembly.partial.is_empty());
        add(&mut reassembly, 0, &fragment(2, 0, true, &[1; 16]));
        assert!(
            add(&mut reassembly, TIMEOUT_NS, &fragment(2, 16, false, &[1])).is_none(),
            "the first half is forgotten"
        );
        for identification in 10..40 {
            add(&mut reassembly, TIMEOUT_NS, &fragment(identification, 0, true, &[1; 16]));
        }
        assert_eq!(reassembly.partial.len(), PACKETS_MAX);
    }
}
