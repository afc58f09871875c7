//! A connection against scripted segments, and two connections against each other over a wire that loses.

use machine::entropy::Entropy;
use proptest::prelude::*;

use super::connection::{Connection, Incoming, Phase, Segment, WINDOW};
use crate::buffer::{Buffer, Pool};

const MSS: u16 = 1460;
const SECOND_NS: u64 = 1_000_000_000;

fn pool() -> Pool {
    Pool::new(64 << 20)
}

fn contents(buffer: &Buffer, offset: usize, length: usize) -> Vec<u8> {
    buffer.slices(offset, length).flatten().copied().collect()
}

/// An open connection whose guest began at 1000 and has a window of `window`; our first byte has number 1.
fn open(pool: &mut Pool, window: u16) -> Connection {
    let syn = Incoming { seq: 1000, syn: true, mss: Some(MSS), window: 1000, ..Incoming::default() };
    let mut connection = Connection::passive(&syn, MSS, 0);
    assert_eq!(connection.next_segment(0), None, "the host is not connected");
    connection.accept();
    let answer = connection.next_segment(0).unwrap();
    assert_eq!((answer.syn, answer.ack, answer.seq, answer.mss, answer.scale), (true, Some(1001), 0, Some(MSS), None));
    connection.on_segment(pool, &Incoming { window, ..ack(1001, 1) });
    assert_eq!(connection.phase(), Phase::Open);
    connection
}

fn ack(seq: u32, ack: u32) -> Incoming<'static> {
    Incoming { seq, ack: Some(ack), window: 10_000, ..Incoming::default() }
}

#[test]
fn data_in_order_is_taken_and_acknowledged_once() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 10_000);
    for (index, payload) in [b"ab", b"cd", b"ef"].into_iter().enumerate() {
        let seq = 1001 + 2 * u32::try_from(index).unwrap();
        connection.on_segment(&mut pool, &Incoming { payload, ..ack(seq, 1) });
    }
    assert_eq!(contents(&connection.from_guest, 0, 100), b"abcdef");
    let answer = connection.next_segment(0).unwrap();
    assert_eq!((answer.ack, answer.length), (Some(1007), 0));
    assert_eq!(connection.next_segment(0), None);
}

#[test]
fn an_interface_that_takes_them_gets_several_segments_as_one() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 20_000);
    connection.to_guest.push(&mut pool, &[7; 50_000]);
    connection.join_segments(true);
    let first = connection.next_segment(0).unwrap();
    assert_eq!((first.seq, first.length, first.push), (1, 13 * usize::from(MSS), false), "whole segments that fit");
    assert_eq!(connection.next_segment(0).map(|more| more.length), None, "no small one behind them");
    connection.on_segment(&mut pool, &Incoming { window: u16::MAX, ..ack(1001, 1 + 13 * 1460) });
    let last = connection.next_segment(0).unwrap();
    assert_eq!((last.length, last.push), (50_000 - 13 * 1460, true));
    // After a loss, one by one.
    connection.on_deadline();
    assert_eq!(connection.next_segment(0).unwrap().length, 2 * usize::from(MSS));
    connection.join_segments(false);
    connection.on_deadline();
    assert_eq!(connection.next_segment(0).unwrap().length, usize::from(MSS));
}

#[test]
fn gaps_overlaps_and_repeats_are_answered_with_where_we_are() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 10_000);
    connection.on_segment(&mut pool, &Incoming { payload: b"later", ..ack(1005, 1) });
    assert!(connection.from_guest.is_empty());
    assert_eq!(connection.next_segment(0).unwrap().ack, Some(1001));
    connection.on_segment(&mut pool, &Incoming { payload: b"abcd", ..ack(1001, 1) });
    connection.on_segment(&mut pool, &Incoming { payload: b"cdef", ..ack(1003, 1) });
    connection.on_segment(&mut pool, &Incoming { payload: b"abcd", ..ack(1001, 1) });
    assert_eq!(contents(&connection.from_guest, 0, 100), b"abcdef");
    assert_eq!(connection.next_segment(0).unwrap().ack, Some(1007));
}

#[test]
fn nothing_past_the_window_is_taken() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 10_000);
    let flood = vec![0; 3 * WINDOW];
    connection.on_segment(&mut pool, &Incoming { payload: &flood, ..ack(1001, 1) });
    assert_eq!(connection.from_guest.len(), usize::from(u16::MAX), "what the SYN's answer promised");
    connection.on_segment(&mut pool, &Incoming { fin: true, payload: &flood, ..ack(1001, 1) });
    assert!(!connection.guest_finished(), "the end is past the window");
}

#[test]
fn a_closed_window_is_probed_until_it_opens() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 0);
    connection.to_guest.push(&mut pool, b"hello");
    assert_eq!(connection.next_segment(0), None);
    let mut now = 0;
    for _ in 0..50 {
        now = connection.deadline_ns().unwrap();
        connection.on_deadline();
        let probe = connection.next_segment(now).unwrap();
        assert_eq!((probe.seq, probe.length), (1, 1));
        connection.on_segment(&mut pool, &Incoming { window: 0, ..ack(1001, 1) });
    }
    assert_eq!(connection.phase(), Phase::Open, "a guest that answers is not gone");
    connection.on_segment(&mut pool, &ack(1001, 1));
    let rest = connection.next_segment(now).unwrap();
    assert_eq!((rest.seq, rest.length), (2, 4), "the probe's byte is in flight");
    connection.on_segment(&mut pool, &ack(1001, 6));
    assert_eq!((connection.to_guest.len(), connection.deadline_ns()), (0, None));
}

#[test]
fn a_guest_that_is_gone_ends_the_connection() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 10_000);
    connection.to_guest.push(&mut pool, b"hello");
    let mut now = 0;
    while connection.phase() == Phase::Open {
        let segment = connection.next_segment(now).unwrap();
        assert_eq!((segment.seq, segment.length, segment.push), (1, 5, true));
        now = connection.deadline_ns().unwrap();
        connection.on_deadline();
    }
    assert!((100 * SECOND_NS..400 * SECOND_NS).contains(&now), "{now}");
}

#[test]
fn three_duplicates_send_the_lost_segment_again() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 20_000);
    connection.to_guest.push(&mut pool, &[7; 8 * 1460]);
    let sent: Vec<_> = std::iter::from_fn(|| connection.next_segment(0)).map(|s| s.seq).collect();
    assert_eq!(sent.len(), 8);
    for _ in 0..2 {
        connection.on_segment(&mut pool, &Incoming { window: 20_000, ..ack(1001, 1) });
        assert_eq!(connection.next_segment(0), None);
    }
    connection.on_segment(&mut pool, &Incoming { window: 20_000, ..ack(1001, 1) });
    assert_eq!(connection.next_segment(0).map(|s| (s.seq, s.length)), Some((1, 1460)));
    assert_eq!(connection.next_segment(0), None);
    // A partial acknowledgement: another of the same flight was lost.
    connection.on_segment(&mut pool, &Incoming { window: 20_000, ..ack(1001, 2921) });
    assert_eq!(connection.next_segment(0).map(|s| (s.seq, s.length)), Some((2921, 1460)));
    connection.on_segment(&mut pool, &Incoming { window: 20_000, ..ack(1001, 8 * 1460 + 1) });
    assert_eq!(connection.next_segment(0), None);
    assert_eq!(connection.deadline_ns(), None);
}

#[test]
fn resets_are_believed_only_inside_the_window() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 10_000);
    for seq in [1000, 0, 1001 + (2 << 20)] {
        connection.on_segment(&mut pool, &Incoming { seq, rst: true, ..Incoming::default() });
        assert_eq!(connection.phase(), Phase::Open, "{seq}");
    }
    connection.on_segment(&mut pool, &Incoming { seq: 1001, rst: true, ..Incoming::default() });
    assert_eq!(connection.phase(), Phase::Reset);
}

#[test]
fn a_guest_that_starts_anew_is_told_where_we_are() {
    let mut pool = pool();
    let mut connection = open(&mut pool, 10_000);
    connection.on_segment(&mut pool, &Incoming { seq: 77, syn: true, ..Incoming::default() });
    let challenge = connection.next_segment(0).unwrap();
    assert_eq!((challenge.seq, challenge.ack, challenge.syn), (1, Some(1001), false));
}

#[test]
fn silly_requests_are_bounded() {
    let mut pool = pool();
    let syn = Incoming { syn: true, mss: Some(0), scale: Some(255), ..Incoming::default() };
    let mut connection = Connection::passive(&syn, MSS, u32::MAX);
    connection.accept();
    assert!(connection.next_segment(0).unwrap().syn);
    connection.on_segment(&mut pool, &Incoming { window: u16::MAX, ..ack(1, 0) });
    connection.to_guest.push(&mut pool, &[1; 1000]);
    let segment = connection.next_segment(0).unwrap();
    assert!(segment.length >= 64);
}

/// One end of the wire between two connections.
struct End {
    connection: Connection,
    to_send: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    /// Bytes that the host takes at once.
    appetite: usize,
}

impl End {
    fn new(connection: Connection, to_send: Vec<u8>, appetite: usize) -> Self {
        Self { connection, to_send, sent: 0, received: Vec::new(), appetite }
    }

    /// What the host does: takes what came, gives what fits.
    fn host(&mut self, pool: &mut Pool) {
        let taken = self.appetite.min(self.connection.from_guest.len());
        self.received.extend(contents(&self.connection.from_guest, 0, taken));
        self.connection.from_guest.consume(pool, taken);
        self.connection.on_drained();
        let room = self.connection.room().min(self.to_send.len() - self.sent);
        self.sent += self.connection.to_guest.push(pool, &self.to_send[self.sent..self.sent + room]);
        if self.connection.phase() == Phase::Open && self.sent == self.to_send.len() {
            self.connection.finish();
        }
    }

    fn is_done(&self, other: &Self) -> bool {
        self.received.len() == other.to_send.len() && self.connection.guest_finished()
    }
}

fn incoming<'a>(segment: &Segment, payload: &'a [u8]) -> Incoming<'a> {
    Incoming {
        seq: segment.seq,
        ack: segment.ack,
        window: segment.window,
        syn: segment.syn,
        fin: segment.fin,
        rst: segment.rst,
        mss: segment.mss,
        scale: segment.scale,
        payload,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is lost or repeated, every byte arrives once and in order, and both ends learn of both ends.
    #[test]
    fn two_ends_agree(
        bytes in (0usize..200_000, 0usize..200_000),
        appetite in (100usize..100_000, 100usize..100_000),
        mss in (64u16..9000, 64u16..9000),
        initial in any::<(u32, u32)>(),
        seed in any::<u64>(),
        loss in 0u64..20,
    ) {
        let mut pool = pool();
        let data = |count: usize, seed: usize| (0..count).map(|i| ((i * 31 + seed) >> 3).to_le_bytes()[0]).collect::<Vec<_>>();
        let mut caller = Connection::active(mss.0, initial.0);
        let syn = caller.next_segment(0).unwrap();
        let mut called = Connection::passive(&incoming(&syn, &[]), mss.1, initial.1);
        called.accept();
        let mut ends = [
            End::new(caller, data(bytes.0, 1), appetite.0),
            End::new(called, data(bytes.1, 2), appetite.1),
        ];
        let mut faults = Entropy::Seeded(seed);
        let mut now = 0;
        let mut rounds = 0;
        while !(ends[0].is_done(&ends[1]) && ends[1].is_done(&ends[0])) {
            rounds += 1;
            prop_assert!(rounds < 100_000, "no end in sight");
            let mut moved = false;
            for from in [0, 1] {
                let waiting = ends[from].connection.from_guest.len();
                ends[from].host(&mut pool);
                moved |= ends[from].connection.from_guest.len() != waiting;
                // A few segments at a time, so that the ends interleave.
                for _ in 0..8 {
                    let Some(segment) = ends[from].connection.next_segment(now) else { break };
                    moved = true;
                    let payload = contents(&ends[from].connection.to_guest, segment.offset, segment.length);
                    let fault = faults.next_u64().unwrap_or(99) % 100;
                    let copies = if fault < loss { 0 } else if fault == 99 { 2 } else { 1 };
                    for _ in 0..copies {
                        let answer = ends[1 - from].connection.on_segment(&mut pool, &incoming(&segment, &payload));
                        prop_assert_eq!(answer, None);
                    }
                }
            }
            if !moved {
                let deadline = ends.iter().filter_map(|end| end.connection.deadline_ns()).min();
                prop_assert!(deadline.is_some(), "both wait for each other");
                now = now.max(deadline.unwrap_or(0));
                for end in &mut ends {
                    if end.connection.deadline_ns().is_some_and(|at| at <= now) {
                        end.connection.on_deadline();
                        prop_assume!(end.connection.phase() != Phase::Reset);
                    }
                }
            }
        }
        for from in [0, 1] {
            prop_assert!(ends[1 - from].received == ends[from].to_send);
        }
    }
}
