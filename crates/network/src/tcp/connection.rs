//! The guest's side of one TCP connection (RFC 9293), as a machine that does no input or output.
//!
//! The guest's kernel is the peer; the link between is a queue in memory that keeps order and loses frames only when a
//! queue overflows. So this side keeps what correctness needs (windows, retransmission, probes) and leaves out what only long
//! wires need: no selective acknowledgements, no reassembly of segments out of order (they are dropped and answered with
//! a duplicate acknowledgement, and the guest sends them again), no estimation of round trips.
//!
//! ```text
//!            SYN, host connects        SYN-ACK sent            acknowledged
//! (guest) ----------> Connecting ----------> SynReceived ------------+
//!                                                                    +---> Open ---> Reset
//! (published port) -------------------------> SynSent ---------------+
//!
//! to_guest:    una ####sent#### nxt ....unsent....  (finish: a FIN follows the last byte)
//! from_guest:  taken in order up to rcv_nxt; the guest may send up to edge
//! ```
//!
//! Invariants: `una <= nxt <= max` and `rcv_nxt <= edge` in sequence space; `edge` never moves back; the first byte of
//! `to_guest` has sequence number `una` once the connection is open.

use crate::buffer::{Buffer, Pool};

/// Bytes buffered in each direction, and so the largest window.
pub(super) const WINDOW: usize = 1 << 20;
/// The same when memory is short.
pub(super) const WINDOW_SMALL: usize = 64 << 10;
/// The window scale offered: 2^7 units reach `WINDOW` and beyond.
const SCALE: u8 = 7;
/// The first retransmission timeout (RFC 6298, section 2.1) and the longest.
const RETRANSMIT_FIRST_NS: u64 = 1_000_000_000;
const RETRANSMIT_MAX_NS: u64 = 30_000_000_000;
/// Unanswered retransmissions after which the guest counts as gone: about three minutes.
const RETRIES_MAX: u8 = 10;
/// Unanswered SYNs after which a connection is given up: about a minute.
const SYN_RETRIES_MAX: u8 = 5;
/// The segment size of a peer that names none (RFC 9293, section 3.7.1).
const MSS_DEFAULT: u16 = 536;
/// No segment smaller than this is cut, whatever a peer asks: it bounds the work that a byte can cost.
const MSS_MIN: u16 = 64;
/// The most that a packet carries in several segments at once: what the largest has beside its headers.
const SEGMENTS_BYTES_MAX: usize = 65_535 - 40;
/// Duplicate acknowledgements that mean a loss (RFC 5681, section 3.2).
const DUPLICATES: u8 = 3;
/// Acknowledgements owed at once at most.
const ACKS_MAX: u8 = 4;

/// How far `b` is behind `a` in sequence space; negative if it is ahead.
#[allow(clippy::cast_possible_wrap)]
fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// Buffer sizes and windows fit 32 bits: they are bounded by `WINDOW`.
fn count32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest's SYN is here; the host is still connecting.
    Connecting,
    /// The host is connected; the guest has to acknowledge our SYN.
    SynReceived,
    /// We ask the guest for a connection.
    SynSent,
    /// Both ways open, though either may have finished.
    Open,
    /// Over at once, by either end's RST or by silence.
    Reset,
}

/// A segment from the guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Incoming<'a> {
    pub(super) seq: u32,
    pub(super) ack: Option<u32>,
    pub(super) window: u16,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) payload: &'a [u8],
}

/// A segment for the guest. Its payload is `length` bytes from `offset` of [`Connection::to_guest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) seq: u32,
    pub(super) ack: Option<u32>,
    pub(super) window: u16,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) push: bool,
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) offset: usize,
    pub(super) length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    No,
    Wanted,
    Acknowledged,
}

/// One connection.
pub(super) struct Connection {
    phase: Phase,
    /// Our segment size: the link's MTU without headers.
    own_mss: u16,

    /// Bytes for the guest: sent and not acknowledged, then not yet sent.
    pub(super) to_guest: Buffer,
    una: u32,
    nxt: u32,
    /// One past the highest sequence number ever sent; `nxt` goes back when segments are sent again.
    max: u32,
    /// What the guest is ready to take, in bytes from `una`.
    window: usize,
    /// Sequence and acknowledgement number of the segment that set `window` (RFC 9293, WL1 and WL2).
    window_at: (u32, u32),
    scale: u8,
    mss: u16,
    /// Whether the guest's interface takes several segments as one.
    joins_segments: bool,
    /// Bytes in flight allowed after a loss; grows without bound while acknowledgements arrive.
    congestion_window: usize,
    duplicates: u8,
    /// While a loss is mended: everything below this was sent before it was noticed (RFC 6582).
    recover: Option<u32>,
    resend: bool,
    probe: bool,
    finish: Finish,
    retransmit_ns: u64,
    retries: u8,
    deadline_ns: Option<u64>,

    /// Bytes from the guest that the host has not taken.
    pub(super) from_guest: Buffer,
    rcv_nxt: u32,
    edge: u32,
    own_scale: u8,
    finished: bool,
    acks_due: u8,
    limit: usize,
}

impl Connection {
    fn new(phase: Phase, own_mss: u16, initial: u32) -> Self {
        Self {
            phase,
            own_mss,
            to_guest: Buffer::default(),
            una: initial,
            nxt: initial,
            max: initial,
            window: 0,
            window_at: (0, 0),
            scale: 0,
            mss: MSS_DEFAULT,
            joins_segments: false,
            congestion_window: usize::MAX,
            duplicates: 0,
            recover: None,
            resend: false,
            probe: false,
            finish: Finish::No,
            retransmit_ns: RETRANSMIT_FIRST_NS,
            retries: 0,
            deadline_ns: None,
            from_guest: Buffer::default(),
            rcv_nxt: 0,
            edge: 0,
            own_scale: 0,
            finished: false,
            acks_due: 0,
            limit: WINDOW,
        }
    }

    /// A passive open: the connection that the guest's `syn` asks for; [`Self::accept`] answers it. `initial` is our first sequence number,
    /// `own_mss` the largest segment that the link carries.
    pub(super) fn passive(syn: &Incoming<'_>, own_mss: u16, initial: u32) -> Self {
        let mut connection = Self::new(Phase::Connecting, own_mss, initial);
        connection.take_syn(syn);
        connection
    }

    /// An active open: we ask the guest for a connection.
    pub(super) fn active(own_mss: u16, initial: u32) -> Self {
        Self::new(Phase::SynSent, own_mss, initial)
    }

    fn take_syn(&mut self, syn: &Incoming<'_>) {
        self.rcv_nxt = syn.seq.wrapping_add(1);
        self.edge = self.rcv_nxt;
        self.mss = syn.mss.unwrap_or(MSS_DEFAULT).clamp(MSS_MIN, self.own_mss);
        self.window = usize::from(syn.window);
        self.window_at = (syn.seq, self.una);
        if let Some(scale) = syn.scale {
            self.scale = scale.min(14);
            self.own_scale = SCALE;
        }
    }

    /// Where the connection is in its life.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The sequence number of the guest's SYN, while nothing else has come.
    pub(super) fn guest_initial(&self) -> u32 {
        self.rcv_nxt.wrapping_sub(1)
    }

    /// The host is connected: the guest's SYN is answered.
    pub(super) fn accept(&mut self) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::SynReceived;
        }
    }

    /// The host sends no more: a FIN follows what is queued.
    pub(super) fn finish(&mut self) {
        if self.finish == Finish::No {
            self.finish = Finish::Wanted;
        }
    }

    /// The guest sends no more, and everything it sent is in [`Self::from_guest`] or beyond.
    pub(super) fn guest_finished(&self) -> bool {
        self.finished
    }

    /// Both ends have finished and know it of each other.
    pub(super) fn is_over(&self) -> bool {
        self.finished && self.finish == Finish::Acknowledged && self.acks_due == 0
    }

    /// When [`Self::on_deadline`] wants to be called.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.deadline_ns
    }

    /// Bytes that may be added to [`Self::to_guest`].
    pub(super) fn room(&self) -> usize {
        if self.phase == Phase::Open { self.limit.saturating_sub(self.to_guest.len()) } else { 0 }
    }

    /// Bounds both buffers from now on. What the guest was promised before is not taken back.
    pub(super) fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// From now on several segments may be given to the guest as one, which [`Self::mss`] says how to cut.
    pub(super) fn join_segments(&mut self, join: bool) {
        self.joins_segments = join;
    }

    /// The payload of the largest segment that the guest wants.
    pub(super) fn mss(&self) -> u16 {
        self.mss
    }

    /// The RST that ends this connection towards the guest.
    pub(super) fn reset(&mut self) -> Segment {
        let seq = self.max;
        let ack = (self.phase != Phase::SynSent).then_some(self.rcv_nxt);
        self.phase = Phase::Reset;
        self.deadline_ns = None;
        Segment { seq, ack, rst: true, ..Segment::default() }
    }

    /// Takes a segment from the guest. Answers the RST to send if the segment is one of another connection.
    pub(super) fn on_segment(&mut self, pool: &mut Pool, segment: &Incoming<'_>) -> Option<Segment> {
        match self.phase {
            Phase::Connecting => {
                if segment.rst && segment.seq == self.rcv_nxt {
                    self.phase = Phase::Reset;
                }
                None
            }
            Phase::SynSent => self.on_segment_syn_sent(segment),
            Phase::SynReceived | Phase::Open => {
                self.on_segment_open(pool, segment);
                None
            }
            Phase::Reset => None,
        }
    }

    fn on_segment_syn_sent(&mut self, segment: &Incoming<'_>) -> Option<Segment> {
        let expected = self.una.wrapping_add(1);
        match segment.ack {
            Some(ack) if ack != expected || self.nxt == self.una => {
                return (!segment.rst).then(|| Segment { seq: ack, rst: true, ..Segment::default() });
            }
            Some(ack) if segment.rst => {
                self.una = ack;
                self.phase = Phase::Reset;
            }
            Some(ack) if segment.syn => {
                self.take_syn(segment);
                self.una = ack;
                self.open();
                self.acks_due = 1;
            }
            _ => {}
        }
        None
    }

    fn open(&mut self) {
        self.phase = Phase::Open;
        self.retries = 0;
        self.congestion_window = usize::MAX;
        self.retransmit_ns = RETRANSMIT_FIRST_NS;
        self.deadline_ns = None;
    }

    fn on_segment_open(&mut self, pool: &mut Pool, segment: &Incoming<'_>) {
        if segment.rst {
            let at = distance(segment.seq, self.rcv_nxt);
            if at == 0 || (at > 0 && distance(self.edge, segment.seq) >= 0) {
                self.phase = Phase::Reset;
                self.deadline_ns = None;
            }
            return;
        }
        if segment.syn {
            // Our SYN-ACK was lost, or the guest has forgotten this connection and will answer the acknowledgement with
            // an RST (RFC 5961, section 4).
            if self.phase == Phase::SynReceived && segment.seq.wrapping_add(1) == self.rcv_nxt {
                self.nxt = self.una;
            } else {
                self.owe_ack();
            }
            return;
        }
        let Some(ack) = segment.ack else { return };
        if distance(ack, self.max) > 0 {
            self.owe_ack();
            return;
        }
        self.on_acknowledgement(pool, segment, ack);
        if self.phase == Phase::Open {
            self.on_payload(pool, segment);
        }
    }

    fn on_acknowledgement(&mut self, pool: &mut Pool, segment: &Incoming<'_>, ack: u32) {
        let window = usize::from(segment.window) << self.scale;
        let advance = distance(ack, self.una);
        if let Ok(mut count @ 1..) = usize::try_from(advance) {
            if self.phase == Phase::SynReceived {
                self.open();
                count -= 1;
            }
            if count > self.to_guest.len() {
                self.finish = Finish::Acknowledged;
            }
            self.to_guest.consume(pool, count);
            self.una = ack;
            if distance(self.nxt, ack) < 0 {
                self.nxt = ack;
            }
            self.duplicates = 0;
            self.congestion_window = self.congestion_window.saturating_add(count);
            if self.recover.is_some_and(|recover| distance(ack, recover) >= 0) {
                self.recover = None;
            }
            self.resend = self.recover.is_some();
            self.retransmit_ns = RETRANSMIT_FIRST_NS;
            // Armed again with the next segment, or by `next_segment` if something is still in flight.
            self.deadline_ns = None;
        } else if advance == 0
            && self.nxt != self.una
            && segment.payload.is_empty()
            && !segment.fin
            && window == self.window
        {
            self.duplicates = self.duplicates.saturating_add(1);
            if self.duplicates == DUPLICATES && self.recover.is_none() {
                self.recover = Some(self.max);
                self.resend = true;
            }
        }
        if advance >= 0 {
            self.retries = 0;
            let (seq_at, ack_at) = self.window_at;
            let newer = distance(segment.seq, seq_at);
            if newer > 0 || (newer == 0 && distance(ack, ack_at) >= 0) {
                if self.window == 0 && window > 0 {
                    self.deadline_ns = None;
                }
                self.window = window;
                self.window_at = (segment.seq, ack);
            }
        }
    }

    fn on_payload(&mut self, pool: &mut Pool, segment: &Incoming<'_>) {
        if segment.payload.is_empty() && !segment.fin {
            // A probe of a live connection (RFC 1122, section 4.2.3.6) asks for an answer.
            if distance(segment.seq, self.rcv_nxt) < 0 {
                self.owe_ack();
            }
            return;
        }
        let skip = distance(self.rcv_nxt, segment.seq);
        let payload = usize::try_from(skip).ok().and_then(|skip| segment.payload.get(skip..));
        let Some(payload) = payload.filter(|_| !self.finished) else {
            // Old, or ahead of a loss: say where we are.
            self.owe_ack();
            return;
        };
        // Past the edge only by what a probe of a closed window carries: not taken.
        let allowed = usize::try_from(distance(self.edge, self.rcv_nxt)).unwrap_or(0);
        let wanted = &payload[..payload.len().min(allowed)];
        let taken = if self.from_guest.len() >= WINDOW_SMALL && pool.is_tight() && self.limit < WINDOW {
            // Promised in better times; the guest has it still and will send it again.
            0
        } else {
            self.from_guest.push(pool, wanted)
        };
        self.rcv_nxt = self.rcv_nxt.wrapping_add(count32(taken));
        if taken == payload.len() && segment.fin {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            if distance(self.edge, self.rcv_nxt) < 0 {
                self.edge = self.rcv_nxt;
            }
            self.finished = true;
        }
        if taken == payload.len() {
            self.acks_due = self.acks_due.max(1);
        } else {
            self.owe_ack();
        }
    }

    fn owe_ack(&mut self) {
        self.acks_due = (self.acks_due + 1).min(ACKS_MAX);
    }

    /// The host took bytes out of [`Self::from_guest`]: tells the guest if its window has grown by enough to matter.
    pub(super) fn on_drained(&mut self) {
        let promised = usize::try_from(distance(self.edge, self.rcv_nxt)).unwrap_or(0);
        let possible = self.limit.saturating_sub(self.from_guest.len());
        if self.phase == Phase::Open
            && !self.finished
            && possible.saturating_sub(promised) >= (2 * usize::from(self.own_mss)).min(self.limit / 2)
        {
            self.acks_due = self.acks_due.max(1);
        }
    }

    /// The deadline has passed. Segments in flight count as lost; a closed window is probed.
    pub(super) fn on_deadline(&mut self) {
        self.deadline_ns = None;
        let most = if self.phase == Phase::Open { RETRIES_MAX } else { SYN_RETRIES_MAX };
        if self.retries >= most {
            self.phase = Phase::Reset;
            return;
        }
        self.retries += 1;
        self.retransmit_ns = (self.retransmit_ns * 2).min(RETRANSMIT_MAX_NS);
        self.nxt = self.una;
        self.probe = true;
        self.resend = false;
        self.recover = None;
        self.duplicates = 0;
        self.congestion_window = 2 * usize::from(self.mss);
    }

    /// The next segment to send to the guest, if one is due; it counts as sent.
    pub(super) fn next_segment(&mut self, now_ns: u64) -> Option<Segment> {
        match self.phase {
            Phase::Connecting | Phase::Reset => None,
            Phase::SynSent | Phase::SynReceived if self.nxt != self.una => None,
            Phase::SynSent | Phase::SynReceived => {
                self.nxt = self.una.wrapping_add(1);
                self.max = self.nxt;
                self.deadline_ns = Some(now_ns + self.retransmit_ns);
                let answer = self.phase == Phase::SynReceived;
                let segment = Segment {
                    seq: self.una,
                    ack: answer.then_some(self.rcv_nxt),
                    syn: true,
                    mss: Some(self.own_mss),
                    scale: (!answer || self.own_scale != 0).then_some(SCALE),
                    window: u16::MAX,
                    ..Segment::default()
                };
                if answer {
                    self.edge = self.rcv_nxt.wrapping_add(u32::from(u16::MAX));
                }
                Some(segment)
            }
            Phase::Open => self.next_segment_open(now_ns),
        }
    }

    fn next_segment_open(&mut self, now_ns: u64) -> Option<Segment> {
        let mss = usize::from(self.mss);
        let queued = self.to_guest.len();
        let flight = self.nxt.wrapping_sub(self.una) as usize;
        let sent = flight.min(queued);
        let unsent = queued - sent;

        if std::mem::take(&mut self.resend) && sent > 0 {
            let length = mss.min(sent);
            self.deadline_ns = Some(now_ns + self.retransmit_ns);
            return Some(self.segment(0, length, false));
        }

        let room = self.window.min(self.congestion_window).saturating_sub(flight);
        let most = if self.joins_segments { SEGMENTS_BYTES_MAX / mss * mss } else { mss };
        let mut length = unsent.min(most).min(room);
        if length > mss && length < unsent {
            // Whole segments, as if they were sent one by one.
            length -= length % mss;
        }
        if length < mss && length < unsent && flight > 0 {
            // A full segment fits soon: do not send a silly one (RFC 9293, section 3.8.6.2.1).
            length = 0;
        }
        if std::mem::take(&mut self.probe) && length == 0 && flight == 0 && unsent > 0 {
            length = 1;
        }
        let fin = self.finish == Finish::Wanted && flight <= queued && sent + length == queued;
        if length > 0 || fin {
            let segment = self.segment(sent, length, fin);
            self.nxt = segment.seq.wrapping_add(count32(length) + u32::from(fin));
            if distance(self.nxt, self.max) > 0 {
                self.max = self.nxt;
            }
            if self.deadline_ns.is_none() {
                self.deadline_ns = Some(now_ns + self.retransmit_ns);
            }
            return Some(segment);
        }
        if self.deadline_ns.is_none() && (flight > 0 || unsent > 0) {
            self.deadline_ns = Some(now_ns + self.retransmit_ns);
        }
        (self.acks_due > 0).then(|| self.segment(sent, 0, false))
    }

    fn segment(&mut self, offset: usize, length: usize, fin: bool) -> Segment {
        self.acks_due = self.acks_due.saturating_sub(1);
        let seq = if length == 0 && !fin { self.nxt } else { self.una.wrapping_add(count32(offset)) };
        let push = length > 0 && offset + length == self.to_guest.len();
        Segment {
            seq,
            ack: Some(self.rcv_nxt),
            window: self.advertise(),
            fin,
            push,
            offset,
            length,
            ..Segment::default()
        }
    }

    /// The window field, and with it the promise to take that much.
    fn advertise(&mut self) -> u16 {
        if self.finished {
            return 0;
        }
        let possible = self.rcv_nxt.wrapping_add(count32(self.limit.saturating_sub(self.from_guest.len())));
        if distance(possible, self.edge) > 0 {
            self.edge = possible;
        }
        let units = self.edge.wrapping_sub(self.rcv_nxt).div_ceil(1 << self.own_scale);
        let field = u16::try_from(units).unwrap_or(u16::MAX);
        self.edge = self.rcv_nxt.wrapping_add(u32::from(field) << self.own_scale);
        field
    }

    /// Gives the buffers' memory back.
    pub(super) fn release(&mut self, pool: &mut Pool) {
        self.to_guest.clear(pool);
        self.from_guest.clear(pool);
    }
}
