//! Virtio network device: an Ethernet interface.
//!
//! Specification: virtio 1.2, section 5.1.
//!
//! Frames that the guest sends are taken by a thread of the device, which hands them to the network. Frames for the guest are put into its buffers on
//! the thread of the network that brings them; if there are none the network is told so, and again when there are.
//!
//! Offloads: what the network at the other end does not need done, the guest need not do, and the other way round (`machine::backend::Unfinished`). Where only the guest
//! would leave a checksum out (`VIRTIO_NET_F_CSUM`), the device completes it; where the network does not, the device looks through what comes in, so that the
//! guest need not (`VIRTIO_NET_HDR_F_DATA_VALID`). TCP goes both ways in pieces larger than the guest's MTU (`VIRTIO_NET_F_HOST_TSO4`, `..GUEST_TSO4`), if the
//! network knows how.
//!
//! Several pairs of queues (`VIRTIO_NET_F_MQ`): each transmit queue has a thread, and what comes in goes to the pair on which the guest last sent to the same
//! correspondent (section 5.1.6.5.6), so that a processor of the guest hears of its own connections.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use machine::backend::{FrameSink, NetworkBackend, Offloads, Partial, Unfinished};
use serde::{Deserialize, Serialize};

use super::queue::{Chain, Queue, QueueError, State};
use super::server::{QueueServer, Serve};
use super::{Activation, DriverSignals, VirtioDevice, read_config_bytes};
use crate::state::{self, StateError};
use crate::worker::{Crew, Turn};
use crate::{checksum, lock};

const DEVICE_ID: u32 = 1;
const QUEUE_SIZE: u16 = 256;
/// The queues of the first pair; the others follow, and the control queue follows the last.
#[cfg(test)]
const RECEIVE: u16 = 0;
#[cfg(test)]
const TRANSMIT: u16 = 1;
/// The control queue of a driver that knows of one pair.
const CONTROL_OF_ONE: u16 = 2;
const CONTROL_QUEUE_SIZE: u16 = 64;
/// The most pairs that a device may have here: what comes in is spread by a byte.
pub const PAIRS_MAX: u16 = 16;

/// `struct virtio_net_hdr` with `num_buffers`, as version 1 has it always.
const HEADER_BYTES: usize = 12;
const ETHERNET_BYTES: usize = 14;
/// The largest frame: an IP packet of 64 KiB with an Ethernet header and a tag.
const FRAME_BYTES_MAX: usize = 65_535 + ETHERNET_BYTES + 4;
/// The largest MTU, in bytes, that a frame has room for.
pub const MTU_MAX: u16 = 65_535;
/// Frames sent before the guest gets their buffers back.
const BATCH_COUNT: usize = 32;

mod feature {
    pub(super) const CSUM: u64 = 1 << 0;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const GUEST_TSO4: u64 = 1 << 7;
    pub(super) const GUEST_TSO6: u64 = 1 << 8;
    pub(super) const HOST_TSO4: u64 = 1 << 11;
    pub(super) const HOST_TSO6: u64 = 1 << 12;
    pub(super) const MERGEABLE: u64 = 1 << 15;
    pub(super) const STATUS: u64 = 1 << 16;
    pub(super) const CONTROL: u64 = 1 << 17;
    pub(super) const MULTI_QUEUE: u64 = 1 << 22;
}

/// What a frame that stands for several is (section 5.1.6): `gso_type`.
mod segmentation {
    pub(super) const NONE: u8 = 0;
    pub(super) const TCP_V4: u8 = 1;
    pub(super) const TCP_V6: u8 = 4;
}

mod header_flag {
    pub(super) const NEEDS_CHECKSUM: u8 = 1;
    pub(super) const DATA_VALID: u8 = 2;
}

/// Which pair the guest uses for which correspondent, by a hash of the ends.
struct Steering([AtomicU8; 256]);

impl Steering {
    fn new() -> Self {
        Self([const { AtomicU8::new(0) }; 256])
    }

    /// The same for both directions of a flow. Frames that are no TCP or UDP over IP have one place in common.
    fn place(&self, frame: &[u8]) -> &AtomicU8 {
        let hash = checksum::ends(frame).map_or(0, |ends| {
            let mixed = ends.wrapping_mul(0x9e37_79b1);
            mixed.to_le_bytes()[3]
        });
        &self.0[usize::from(hash)]
    }
}

/// Sends what the guest puts into a transmit queue.
struct Transmitter {
    backend: Arc<dyn NetworkBackend>,
    /// What the network does not need done.
    offloads: Offloads,
    pair: u8,
    shared: Arc<Shared>,
    chain: Chain,
    frame: Box<[u8]>,
}

impl Transmitter {
    /// Sends the frame in the chain. One that breaks the rules, or the largest size, is dropped as a card does.
    fn send(&mut self, queue: &Queue) {
        let memory = queue.memory();
        let mut header = [0; HEADER_BYTES];
        if self.chain.read(memory, 0, &mut header) < HEADER_BYTES {
            return;
        }
        let length = self.chain.readable_bytes() - HEADER_BYTES as u64;
        let Some(frame) = usize::try_from(length).ok().and_then(|length| self.frame.get_mut(..length)) else { return };
        if frame.len() < ETHERNET_BYTES {
            return;
        }
        self.chain.read(memory, HEADER_BYTES as u64, frame);
        let [flags, kind, _, _, g0, g1, s0, s1, o0, o1, _, _] = header;
        let partial = Partial { start: u16::from_le_bytes([s0, s1]), offset: u16::from_le_bytes([o0, o1]) };
        let needs_checksum = flags & header_flag::NEEDS_CHECKSUM != 0;
        let (agreed, segment_bytes) = (queue.features(), u16::from_le_bytes([g0, g1]));
        let taken = match kind {
            segmentation::NONE if needs_checksum && !self.offloads.checksum => {
                checksum::complete(frame, partial.start, partial.offset)
            }
            segmentation::NONE => !needs_checksum || checksum::has_field(frame, partial),
            // What is offered is what the network takes as it is.
            segmentation::TCP_V4 => agreed & feature::HOST_TSO4 != 0 && needs_checksum && segment_bytes != 0,
            segmentation::TCP_V6 => agreed & feature::HOST_TSO6 != 0 && needs_checksum && segment_bytes != 0,
            _ => false,
        };
        if taken {
            if self.shared.pairs_count() > 1 {
                self.shared.steering.place(frame).store(self.pair, Ordering::Relaxed);
            }
            self.backend.send(frame);
        }
    }
}

impl Serve for Transmitter {
    fn serve(&mut self, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        let mut sent_count = 0;
        while sent_count < BATCH_COUNT && !turn.is_over() && queue.pop(&mut self.chain)? {
            self.send(queue);
            queue.add_used(&self.chain, 0)?;
            sent_count += 1;
        }
        queue.publish()?;
        Ok(sent_count > 0)
    }
}

/// A receive queue, and what is needed to fill it.
#[derive(Default)]
struct Receive {
    queue: Option<Queue>,
    /// Chains taken for one frame; their memory is used again.
    chains: Vec<Chain>,
    paused_count: u32,
    /// A frame was refused; the network waits to hear of room.
    starved: bool,
    /// Where a frame is completed that the guest wants whole.
    completed: Vec<u8>,
}

/// What the pairs of queues have in common.
struct Shared {
    steering: Steering,
    /// How many pairs the driver uses.
    pairs_count: AtomicU16,
}

impl Shared {
    fn pairs_count(&self) -> u16 {
        self.pairs_count.load(Ordering::Relaxed)
    }
}

/// The receive queues.
struct Receiver {
    shared: Arc<Shared>,
    receives: Box<[Mutex<Receive>]>,
    /// What the driver that is active lets others leave undone: bits of its features.
    features: AtomicU64,
}

impl Receive {
    /// Puts `frame` into the guest's buffers. False if there are too few now.
    fn deliver(&mut self, frame: &[u8], unfinished: Unfinished) -> Result<bool, QueueError> {
        let Some(queue) = self.queue.as_mut().filter(|_| self.paused_count == 0) else { return Ok(false) };
        let takes = offloads_of(queue.features());
        let segments = if checksum::is_v6(frame) { takes.segment_v6 } else { takes.segment_v4 };
        if unfinished.segment_bytes != 0 && !segments {
            // Made for a driver before this one.
            return Ok(true);
        }
        let mut header = [0; HEADER_BYTES];
        let frame = match unfinished.checksum {
            Some(partial) if !takes.checksum => {
                self.completed.clear();
                self.completed.extend_from_slice(frame);
                checksum::complete(&mut self.completed, partial.start, partial.offset);
                &self.completed[..]
            }
            Some(partial) => {
                header[0] = header_flag::NEEDS_CHECKSUM;
                header[6..8].copy_from_slice(&partial.start.to_le_bytes());
                header[8..10].copy_from_slice(&partial.offset.to_le_bytes());
                frame
            }
            None => {
                if takes.checksum && checksum::is_valid(frame) {
                    header[0] = header_flag::DATA_VALID;
                }
                frame
            }
        };
        if unfinished.segment_bytes != 0 {
            header[1] = if checksum::is_v6(frame) { segmentation::TCP_V6 } else { segmentation::TCP_V4 };
            // What every segment begins with. It is a hint, and what a driver copies to have the headers in one piece.
            header[2..4].copy_from_slice(&checksum::headers_bytes(frame).to_le_bytes());
            header[4..6].copy_from_slice(&unfinished.segment_bytes.to_le_bytes());
        }
        let mergeable = queue.features() & feature::MERGEABLE != 0;
        let wanted = (HEADER_BYTES + frame.len()) as u64;
        let mut room = 0;
        let mut count: u16 = 0;
        while room < wanted {
            // Without merging, a frame that is too large for its buffer is lost (a buffer is used up all the same, empty).
            if count > 0 && !mergeable {
                break;
            }
            if count >= queue.state().size {
                // More buffers than the queue has, all of them empty.
                return Err(QueueError::Room);
            }
            let index = usize::from(count);
            if index == self.chains.len() {
                self.chains.push(Chain::default());
            }
            if !queue.pop(&mut self.chains[index])? {
                // Ask for a notification; buffers that came just before it are used now.
                if queue.request_notification()? {
                    continue;
                }
                queue.unpop(count);
                return Ok(false);
            }
            if index == 0 && self.chains[0].writable_bytes() < HEADER_BYTES as u64 {
                return Err(QueueError::Room);
            }
            room += self.chains[index].writable_bytes();
            count += 1;
        }
        queue.suppress_notifications()?;
        if room < wanted {
            queue.add_used(&self.chains[0], 0)?;
            queue.publish()?;
            return Ok(true);
        }
        header[10..].copy_from_slice(&count.to_le_bytes());
        let first = &self.chains[0];
        first.write(queue.memory(), 0, &header);
        let mut done = first.write(queue.memory(), HEADER_BYTES as u64, frame);
        queue.add_used(first, u32::try_from(HEADER_BYTES + done).unwrap_or(u32::MAX))?;
        for chain in &self.chains[1..usize::from(count)] {
            let written = chain.write(queue.memory(), 0, &frame[done..]);
            done += written;
            queue.add_used(chain, u32::try_from(written).unwrap_or(u32::MAX))?;
        }
        queue.publish()?;
        Ok(true)
    }
}

/// What a driver with these features lets others leave undone.
fn offloads_of(features: u64) -> Offloads {
    let has = |bit: u64| features & (bit | feature::GUEST_CSUM) == bit | feature::GUEST_CSUM;
    Offloads {
        checksum: has(feature::GUEST_CSUM),
        segment_v4: has(feature::GUEST_TSO4),
        segment_v6: has(feature::GUEST_TSO6),
    }
}

impl Receiver {
    /// The queue that a frame goes to.
    fn receive_of(&self, frame: &[u8]) -> &Mutex<Receive> {
        let pairs_count = self.shared.pairs_count();
        let pair = if pairs_count > 1 {
            let wished = self.shared.steering.place(frame).load(Ordering::Relaxed);
            usize::from(u16::from(wished) % pairs_count)
        } else {
            0
        };
        &self.receives[pair]
    }
}

impl FrameSink for Receiver {
    fn receive(&self, frame: &[u8]) -> bool {
        self.receive_unfinished(frame, Unfinished::default())
    }

    fn offloads(&self) -> Offloads {
        offloads_of(self.features.load(Ordering::Acquire))
    }

    fn receive_unfinished(&self, frame: &[u8], unfinished: Unfinished) -> bool {
        if frame.len() > FRAME_BYTES_MAX {
            // Nobody could ever take it.
            return true;
        }
        let mut receive = lock(self.receive_of(frame));
        let taken = receive.deliver(frame, unfinished).unwrap_or_else(|error| {
            if let Some(queue) = receive.queue.take() {
                queue.fail(&error);
            }
            false
        });
        receive.starved = !taken;
        taken
    }
}

/// Does what the driver asks for by the control queue (section 5.1.6.5): to use so many pairs.
struct Control {
    shared: Arc<Shared>,
    pairs_max: u16,
    chain: Chain,
}

impl Control {
    const MULTI_QUEUE: [u8; 2] = [4, 0];

    /// Whether the command was one that is known, and right.
    fn obey(&self, queue: &Queue) -> bool {
        let mut command = [0; 4];
        let length = self.chain.read(queue.memory(), 0, &mut command);
        let pairs_count = u16::from_le_bytes([command[2], command[3]]);
        let known = length == command.len() && command[..2] == Self::MULTI_QUEUE;
        let right =
            known && queue.features() & feature::MULTI_QUEUE != 0 && (1..=self.pairs_max).contains(&pairs_count);
        if right {
            self.shared.pairs_count.store(pairs_count, Ordering::Relaxed);
        }
        right
    }
}

impl Serve for Control {
    fn serve(&mut self, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        let mut served = false;
        while !turn.is_over() && queue.pop(&mut self.chain)? {
            // The answer is the last byte.
            let at = self.chain.writable_bytes().checked_sub(1).ok_or(QueueError::Room)?;
            let answer = u8::from(!self.obey(queue));
            self.chain.write(queue.memory(), at, &[answer]);
            queue.add_used(&self.chain, u32::try_from(at + 1).unwrap_or(u32::MAX))?;
            queue.publish()?;
            served = true;
        }
        Ok(served)
    }
}

/// An interface. Put it behind a transport.
pub struct Network {
    backend: Arc<dyn NetworkBackend>,
    shared: Arc<Shared>,
    receiver: Arc<Receiver>,
    transmitters: Vec<QueueServer>,
    /// Present if there are several pairs.
    control: Option<QueueServer>,
    queue_sizes: Vec<u16>,
    /// What the driver that is active has agreed to; zero if none is.
    agreed: AtomicU64,
    link: Mutex<Link>,
    mac: [u8; 6],
}

/// What a snapshot has beside queues and features.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    pairs_count: u16,
    link_up: bool,
}

struct Link {
    up: bool,
    signals: Option<Arc<dyn DriverSignals>>,
}

impl Network {
    /// An interface with the address `mac` that is plugged into `backend`, with its link up. It has `pairs_count` pairs of queues, 1 to [`PAIRS_MAX`]: as many as
    /// there are processors is right, if each has interrupts of its own.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(backend: Arc<dyn NetworkBackend>, mac: [u8; 6], pairs_count: u16, crew: &Crew) -> io::Result<Self> {
        let pairs_count = pairs_count.clamp(1, PAIRS_MAX);
        let shared = Arc::new(Shared { steering: Steering::new(), pairs_count: AtomicU16::new(1) });
        let receives = (0..pairs_count).map(|_| Mutex::default()).collect();
        let receiver = Arc::new(Receiver { shared: Arc::clone(&shared), receives, features: Default::default() });
        let transmitter = |pair: u16| {
            let transmitter = Transmitter {
                backend: Arc::clone(&backend),
                offloads: backend.offloads(),
                pair: u8::try_from(pair).unwrap_or(0),
                shared: Arc::clone(&shared),
                chain: Chain::default(),
                frame: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
            };
            QueueServer::hire(crew, &format!("network-{pair}"), transmitter)
        };
        let transmitters = (0..pairs_count).map(transmitter).collect::<io::Result<_>>()?;
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * usize::from(pairs_count)];
        let control = (pairs_count > 1).then(|| {
            queue_sizes.push(CONTROL_QUEUE_SIZE);
            let control = Control { shared: Arc::clone(&shared), pairs_max: pairs_count, chain: Chain::default() };
            QueueServer::hire(crew, "network-control", control)
        });
        let network = Self {
            shared,
            receiver: Arc::clone(&receiver),
            transmitters,
            control: control.transpose()?,
            queue_sizes,
            agreed: Default::default(),
            link: Mutex::new(Link { up: true, signals: None }),
            mac,
            backend,
        };
        network.backend.attach(receiver);
        Ok(network)
    }

    fn servers(&self) -> impl Iterator<Item = &QueueServer> {
        self.transmitters.iter().chain(&self.control)
    }

    /// The number of the control queue, for a driver that has agreed to `features`.
    fn control_number(&self, features: u64) -> Option<u16> {
        if features & feature::CONTROL == 0 || self.control.is_none() {
            None
        } else if features & feature::MULTI_QUEUE != 0 {
            u16::try_from(2 * self.transmitters.len()).ok()
        } else {
            Some(CONTROL_OF_ONE)
        }
    }

    /// Plugs the cable in or out, and tells the driver. Not while the machine is paused.
    pub fn set_link(&self, up: bool) {
        let mut link = lock(&self.link);
        if link.up != up {
            link.up = up;
            if let Some(signals) = &link.signals {
                signals.configuration_changed();
            }
        }
    }

    /// Waits until every frame that the driver has notified of is sent; not at all while a pause holds.
    pub fn drain(&self) {
        self.servers().for_each(QueueServer::drain);
    }

    /// If the network waits to hear of room in this queue, tells it that there may be some.
    fn tell_room(&self, receive: &Mutex<Receive>) {
        let mut receive = lock(receive);
        let tell = receive.paused_count == 0 && std::mem::take(&mut receive.starved);
        drop(receive);
        if tell {
            self.backend.ready();
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("mac", &self.mac).finish_non_exhaustive()
    }
}

impl VirtioDevice for Network {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let offloads = self.backend.offloads();
        let if_has = |has: bool, bits: u64| if has { bits } else { 0 };
        feature::CSUM
            | feature::GUEST_CSUM
            | feature::MTU
            | feature::MAC
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
            | if_has(offloads.segment_v4, feature::HOST_TSO4)
            | if_has(offloads.segment_v6, feature::HOST_TSO6)
            | feature::MERGEABLE
            | feature::STATUS
            | if_has(self.control.is_some(), feature::CONTROL | feature::MULTI_QUEUE)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        config[6] = lock(&self.link).up.into();
        let pairs_max = u16::try_from(self.transmitters.len()).unwrap_or(PAIRS_MAX);
        config[8..10].copy_from_slice(&pairs_max.to_le_bytes());
        config[10..].copy_from_slice(&self.backend.mtu().to_le_bytes());
        read_config_bytes(&config, offset, bytes);
    }

    fn write_config(&self, _offset: u64, _bytes: &[u8]) {}

    fn activate(&self, activation: Activation) {
        let features = activation.features;
        lock(&self.link).signals = Some(activation.signals);
        self.agreed.store(features, Ordering::Release);
        self.receiver.features.store(features, Ordering::Release);
        self.shared.pairs_count.store(1, Ordering::Relaxed);
        let mut queues = activation.queues;
        if let (Some(number), Some(server)) = (self.control_number(features), &self.control) {
            server.activate(queues.get_mut(usize::from(number)).and_then(Option::take));
        }
        let mut queues = queues.into_iter();
        let pairs_count = if features & feature::MULTI_QUEUE != 0 { self.transmitters.len() } else { 1 };
        for (receive, transmitter) in self.receiver.receives.iter().zip(&self.transmitters).take(pairs_count) {
            lock(receive).queue = queues.next().flatten();
            transmitter.activate(queues.next().flatten());
            self.tell_room(receive);
        }
    }

    fn notify(&self, queue: u16) {
        let features = self.agreed.load(Ordering::Acquire);
        if self.control_number(features) == Some(queue) {
            self.control.iter().for_each(QueueServer::kick);
            return;
        }
        let pair = usize::from(queue / 2);
        if queue % 2 == 1 {
            self.transmitters.get(pair).into_iter().for_each(QueueServer::kick);
        } else if let Some(receive) = self.receiver.receives.get(pair) {
            self.tell_room(receive);
        }
    }

    fn reset(&self) {
        self.receiver.features.store(0, Ordering::Release);
        self.agreed.store(0, Ordering::Release);
        self.receiver.receives.iter().for_each(|receive| lock(receive).queue = None);
        self.servers().for_each(QueueServer::reset);
        lock(&self.link).signals = None;
    }

    fn pause(&self) {
        self.receiver.receives.iter().for_each(|receive| lock(receive).paused_count += 1);
        self.servers().for_each(QueueServer::pause);
    }

    fn resume(&self) {
        self.servers().for_each(QueueServer::resume);
        for receive in &self.receiver.receives {
            {
                let mut receive = lock(receive);
                receive.paused_count = receive.paused_count.saturating_sub(1);
            }
            self.tell_room(receive);
        }
    }

    fn queue_states(&self) -> Vec<Option<State>> {
        let mut states: Vec<_> = (self.receiver.receives.iter().zip(&self.transmitters))
            .flat_map(|(receive, transmitter)| {
                [lock(receive).queue.as_ref().map(Queue::state), transmitter.queue_state()]
            })
            .collect();
        states.resize(self.queue_sizes.len(), None);
        if let (Some(number), Some(server)) = (self.control_number(self.agreed.load(Ordering::Acquire)), &self.control)
        {
            states[usize::from(number)] = server.queue_state();
        }
        states
    }

    fn save(&self) -> state::State {
        state::save(&Saved { pairs_count: self.shared.pairs_count(), link_up: lock(&self.link).up })
    }

    fn restore(&self, state: &state::State) -> Result<(), StateError> {
        let saved: Saved = state::read(state)?;
        let pairs = 1..=self.transmitters.len();
        state::ensure(pairs.contains(&saved.pairs_count.into()), "an interface uses more queues than it has")?;
        self.shared.pairs_count.store(saved.pairs_count, Ordering::Relaxed);
        lock(&self.link).up = saved.link_up;
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/network.rs"]
mod tests;
