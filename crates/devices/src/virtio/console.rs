//! Virtio console: a terminal with a size.
//!
//! Specification: virtio 1.2, section 5.3, with one port.
//!
//! Kernels wait, spinning, until the console gives a buffer back. So output is copied and its buffers are given back before it goes to the
//! backend; the next buffers then wait for as long as the backend takes. Input goes into the guest's buffers on the thread that brings it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use machine::backend::{CharacterBackend, CharacterSink};

use super::queue::{Chain, Queue, QueueError, State};
use super::server::{QueueServer, Serve};
use super::{Activation, DriverSignals, VirtioDevice, read_config_bytes};
use crate::lock;
use crate::state::{self, StateError};
use crate::worker::{Crew, Turn};

const DEVICE_ID: u32 = 3;
const QUEUE_SIZE: u16 = 64;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Output that goes to the backend in one piece at most.
const BUFFER_BYTES: usize = 16 << 10;
/// What is printed of one chain; no terminal driver has buffers as large.
const PRINT_BYTES_MAX: u64 = 1 << 20;
/// Where the field for output without queues is in the configuration space.
const EMERGENCY_WRITE: u64 = 8;

mod feature {
    pub(super) const SIZE: u64 = 1 << 0;
    pub(super) const EMERGENCY_WRITE: u64 = 1 << 2;
}

/// Sends what the guest prints.
struct Transmitter {
    backend: Arc<dyn CharacterBackend>,
    chain: Chain,
    buffer: Box<[u8]>,
}

impl Serve for Transmitter {
    fn serve(&mut self, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        let (mut taken, mut filled) = (false, 0);
        while !turn.is_over() && filled < self.buffer.len() && queue.pop(&mut self.chain)? {
            taken = true;
            let length = self.chain.readable_bytes().min(PRINT_BYTES_MAX);
            let mut done = 0;
            while done < length {
                if filled == self.buffer.len() {
                    self.backend.send(&self.buffer);
                    filled = 0;
                }
                let room = (self.buffer.len() - filled).min(usize::try_from(length - done).unwrap_or(usize::MAX));
                let count = self.chain.read(queue.memory(), done, &mut self.buffer[filled..filled + room]);
                if count == 0 {
                    break;
                }
                filled += count;
                done += count as u64;
            }
            queue.add_used(&self.chain, 0)?;
        }
        queue.publish()?;
        if filled > 0 {
            self.backend.send(&self.buffer[..filled]);
        }
        Ok(taken)
    }
}

#[derive(Default)]
struct Shared {
    queue: Option<Queue>,
    chain: Chain,
    signals: Option<Arc<dyn DriverSignals>>,
    columns: u16,
    rows: u16,
    /// The driver has not been told of the size.
    resized: bool,
    /// Input was refused; the backend waits to hear of room.
    starved: bool,
    paused_count: u32,
}

impl Shared {
    /// Tells the driver of a new size, unless the machine is paused.
    fn tell_size(&mut self) {
        if let Some(signals) = self.signals.as_ref().filter(|_| self.resized && self.paused_count == 0) {
            self.resized = false;
            signals.configuration_changed();
        }
    }

    fn deliver(&mut self, bytes: &[u8]) -> Result<usize, QueueError> {
        let Some(queue) = self.queue.as_mut().filter(|_| self.paused_count == 0) else { return Ok(0) };
        let mut done = 0;
        while done < bytes.len() {
            if !queue.pop(&mut self.chain)? {
                if queue.request_notification()? {
                    continue;
                }
                break;
            }
            let count = self.chain.write(queue.memory(), 0, &bytes[done..]);
            if count == 0 {
                return Err(QueueError::Room);
            }
            queue.add_used(&self.chain, u32::try_from(count).unwrap_or(u32::MAX))?;
            done += count;
        }
        queue.publish()?;
        Ok(done)
    }
}

/// The end that the backend holds.
#[derive(Default)]
struct Receiver(Mutex<Shared>);

impl CharacterSink for Receiver {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut shared = lock(&self.0);
        let count = shared.deliver(bytes).unwrap_or_else(|error| {
            if let Some(queue) = shared.queue.take() {
                queue.fail(&error);
            }
            0
        });
        shared.starved = count < bytes.len();
        count
    }

    fn resize(&self, columns: u16, rows: u16) {
        let mut shared = lock(&self.0);
        if (shared.columns, shared.rows) != (columns, rows) {
            (shared.columns, shared.rows) = (columns, rows);
            shared.resized = true;
            shared.tell_size();
        }
    }
}

/// A console. Put it behind a transport.
pub struct Console {
    backend: Arc<dyn CharacterBackend>,
    receiver: Arc<Receiver>,
    transmitter: QueueServer,
}

impl Console {
    /// A console whose other end is `backend`.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(backend: Arc<dyn CharacterBackend>, crew: &Crew) -> io::Result<Self> {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let transmitter = Transmitter { backend: Arc::clone(&backend), chain: Chain::default(), buffer };
        let receiver = Arc::new(Receiver::default());
        let transmitter = QueueServer::hire(crew, "console", transmitter)?;
        backend.attach(Arc::clone(&receiver) as Arc<dyn CharacterSink>);
        Ok(Self { backend, receiver, transmitter })
    }

    /// Returns when all that the guest has printed is with the backend; at once if a pause holds.
    pub fn drain(&self) {
        self.transmitter.drain();
    }

    fn tell_room(&self) {
        let mut shared = lock(&self.receiver.0);
        let tell = shared.paused_count == 0 && std::mem::take(&mut shared.starved);
        drop(shared);
        if tell {
            self.backend.ready();
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.drain();
    }
}

impl VirtioDevice for Console {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        feature::SIZE | feature::EMERGENCY_WRITE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        let mut config = [0; 12];
        let shared = lock(&self.receiver.0);
        config[..2].copy_from_slice(&shared.columns.to_le_bytes());
        config[2..4].copy_from_slice(&shared.rows.to_le_bytes());
        // One port.
        config[4] = 1;
        read_config_bytes(&config, offset, bytes);
    }

    fn write_config(&self, offset: u64, bytes: &[u8]) {
        if let (EMERGENCY_WRITE, Some(byte)) = (offset, bytes.first()) {
            self.backend.send(&[*byte]);
        }
    }

    fn activate(&self, activation: Activation) {
        let mut queues = activation.queues.into_iter();
        {
            let mut shared = lock(&self.receiver.0);
            shared.queue = queues.next().flatten();
            shared.signals = Some(activation.signals);
            // Linux reads the size only when it changes; so it is said to, at the first output.
            shared.resized = activation.features & feature::SIZE != 0 && shared.columns != 0;
        }
        self.transmitter.activate(queues.next().flatten());
        self.tell_room();
    }

    fn notify(&self, queue: u16) {
        match queue {
            RECEIVE => self.tell_room(),
            TRANSMIT => {
                self.transmitter.kick();
                lock(&self.receiver.0).tell_size();
            }
            _ => {}
        }
    }

    fn reset(&self) {
        self.transmitter.reset();
        let mut shared = lock(&self.receiver.0);
        shared.queue = None;
        shared.signals = None;
    }

    /// What the guest has printed goes out first, since a machine that ends is paused and not resumed.
    fn pause(&self) {
        lock(&self.receiver.0).paused_count += 1;
        self.drain();
        self.transmitter.pause();
    }

    fn resume(&self) {
        self.transmitter.resume();
        {
            let mut shared = lock(&self.receiver.0);
            shared.paused_count = shared.paused_count.saturating_sub(1);
            shared.tell_size();
        }
        self.tell_room();
    }

    fn queue_states(&self) -> Vec<Option<State>> {
        vec![lock(&self.receiver.0).queue.as_ref().map(Queue::state), self.transmitter.queue_state()]
    }

    fn save(&self) -> state::State {
        state::NOTHING
    }

    fn restore(&self, state: &state::State) -> Result<(), StateError> {
        state::read_nothing(state)
    }
}

#[cfg(test)]
#[path = "tests/console.rs"]
mod tests;
