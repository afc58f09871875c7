//! Virtio network device: an Ethernet interface.
//!
//! Specification: virtio 1.2, section 5.1.
//!
//! Frames that the guest sends are taken by a thread of the device, which hands them to the network. Frames for the guest are put into its buffers on
//! the thread of the network that brings them; if there are none the network is told so, and again when there are.
//!
//! Checksums: the device completes what the guest leaves out (`VIRTIO_NET_F_CSUM`), and looks through what comes in, so that the guest need not
//! (`VIRTIO_NET_F_GUEST_CSUM`, `VIRTIO_NET_HDR_F_DATA_VALID`). Segmentation is not offered: a large MTU serves the same end, since the networks here end
//! the guest's connections on this host.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use machine::backend::{FrameSink, NetworkBackend};

use super::queue::{Chain, Queue, QueueError};
use super::server::{QueueServer, Serve};
use super::{Activation, DriverSignals, VirtioDevice, checksum, read_config_bytes};
use crate::lock;
use crate::worker::{Crew, Turn};

const DEVICE_ID: u32 = 1;
const QUEUE_SIZE: u16 = 256;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

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
    pub(super) const MERGEABLE: u64 = 1 << 15;
    pub(super) const STATUS: u64 = 1 << 16;
}

mod header_flag {
    pub(super) const NEEDS_CHECKSUM: u8 = 1;
    pub(super) const DATA_VALID: u8 = 2;
}

/// Sends what the guest puts into the transmit queue.
struct Transmitter {
    backend: Arc<dyn NetworkBackend>,
    chain: Chain,
    frame: Box<[u8]>,
}

impl Transmitter {
    /// Sends the frame in `chain`. One that breaks the rules, or the largest size, is dropped as a card does.
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
        let [flags, segmentation, .., s0, s1, o0, o1, _, _] = header;
        if segmentation != 0 {
            return;
        }
        let (start, offset) = (u16::from_le_bytes([s0, s1]), u16::from_le_bytes([o0, o1]));
        if flags & header_flag::NEEDS_CHECKSUM == 0 || checksum::complete(frame, start, offset) {
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

/// The receive queue, and what is needed to fill it.
#[derive(Default)]
struct Receive {
    queue: Option<Queue>,
    /// Chains taken for one frame; their memory is used again.
    chains: Vec<Chain>,
    paused_count: u32,
    /// A frame was refused; the network waits to hear of room.
    starved: bool,
}

#[derive(Default)]
struct Receiver {
    receive: Mutex<Receive>,
}

impl Receive {
    /// Puts `frame` into the guest's buffers. False if there are too few now.
    fn deliver(&mut self, frame: &[u8]) -> Result<bool, QueueError> {
        let Some(queue) = self.queue.as_mut().filter(|_| self.paused_count == 0) else { return Ok(false) };
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
        let mut header = [0; HEADER_BYTES];
        if queue.features() & feature::GUEST_CSUM != 0 && checksum::is_valid(frame) {
            header[0] = header_flag::DATA_VALID;
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

impl FrameSink for Receiver {
    fn receive(&self, frame: &[u8]) -> bool {
        if frame.len() > FRAME_BYTES_MAX {
            // Nobody could ever take it.
            return true;
        }
        let mut receive = lock(&self.receive);
        let taken = receive.deliver(frame).unwrap_or_else(|error| {
            if let Some(queue) = receive.queue.take() {
                queue.fail(&error);
            }
            false
        });
        receive.starved = !taken;
        taken
    }
}

/// An interface. Put it behind a transport.
pub struct Network {
    backend: Arc<dyn NetworkBackend>,
    receiver: Arc<Receiver>,
    transmitter: QueueServer,
    link: Mutex<Link>,
    mac: [u8; 6],
}

struct Link {
    up: bool,
    signals: Option<Arc<dyn DriverSignals>>,
}

impl Network {
    /// An interface with the address `mac` that is plugged into `backend`, with its link up.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(backend: Arc<dyn NetworkBackend>, mac: [u8; 6], crew: &Crew) -> io::Result<Self> {
        let frame = vec![0; FRAME_BYTES_MAX].into_boxed_slice();
        let transmitter = Transmitter { backend: Arc::clone(&backend), chain: Chain::default(), frame };
        let receiver = Arc::new(Receiver::default());
        let network = Self {
            receiver: Arc::clone(&receiver),
            transmitter: QueueServer::hire(crew, "network-send", transmitter)?,
            link: Mutex::new(Link { up: true, signals: None }),
            mac,
            backend,
        };
        network.backend.attach(receiver);
        Ok(network)
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
        self.transmitter.drain();
    }

    /// If the network waits to hear of room, tells it that there may be some.
    fn tell_room(&self) {
        let mut receive = lock(&self.receiver.receive);
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
        feature::CSUM | feature::GUEST_CSUM | feature::MTU | feature::MAC | feature::MERGEABLE | feature::STATUS
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        config[6] = lock(&self.link).up.into();
        // One pair of queues.
        config[8] = 1;
        config[10..].copy_from_slice(&self.backend.mtu().to_le_bytes());
        read_config_bytes(&config, offset, bytes);
    }

    fn write_config(&self, _offset: u64, _bytes: &[u8]) {}

    fn activate(&self, activation: Activation) {
        lock(&self.link).signals = Some(activation.signals);
        let mut queues = activation.queues.into_iter();
        let receive_queue = queues.next().flatten();
        self.transmitter.activate(queues.next().flatten());
        lock(&self.receiver.receive).queue = receive_queue;
        self.tell_room();
    }

    fn notify(&self, queue: u16) {
        match queue {
            RECEIVE => self.tell_room(),
            TRANSMIT => self.transmitter.kick(),
            _ => {}
        }
    }

    fn reset(&self) {
        lock(&self.receiver.receive).queue = None;
        self.transmitter.reset();
        lock(&self.link).signals = None;
    }

    fn pause(&self) {
        lock(&self.receiver.receive).paused_count += 1;
        self.transmitter.pause();
    }

    fn resume(&self) {
        self.transmitter.resume();
        {
            let mut receive = lock(&self.receiver.receive);
            receive.paused_count = receive.paused_count.saturating_sub(1);
        }
        self.tell_room();
    }
}

#[cfg(test)]
#[path = "tests/network.rs"]
mod tests;
