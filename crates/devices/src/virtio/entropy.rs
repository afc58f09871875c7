//! Virtio entropy device: random bytes.
//!
//! Specification: virtio 1.2, section 5.4.

use std::fmt;
use std::io;

use machine::entropy::Entropy;

use super::queue::{Chain, Queue, QueueError, State};
use super::server::{QueueServer, Serve};
use super::{Activation, VirtioDevice};
use crate::state::{self, StateError};
use crate::worker::{Crew, Turn};

const DEVICE_ID: u32 = 4;
/// The most that one request gets; the driver asks again for more.
const BUFFER_BYTES: usize = 4096;

struct Server {
    entropy: Entropy,
    chain: Chain,
    buffer: Box<[u8]>,
}

impl Serve for Server {
    fn serve(&mut self, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        if turn.is_over() || !queue.pop(&mut self.chain)? {
            return Ok(false);
        }
        let count = usize::try_from(self.chain.writable_bytes()).unwrap_or(usize::MAX).min(self.buffer.len());
        if count == 0 {
            return Err(QueueError::Room);
        }
        let bytes = &mut self.buffer[..count];
        // A host without randomness gives nothing, and the driver sees that it got nothing.
        let written = if self.entropy.fill(bytes).is_ok() { self.chain.write(queue.memory(), 0, bytes) } else { 0 };
        queue.add_used(&self.chain, u32::try_from(written).unwrap_or(0))?;
        queue.publish()?;
        Ok(true)
    }
}

/// A source of random bytes. Put it behind a transport.
pub struct EntropySource {
    server: QueueServer,
}

impl EntropySource {
    /// A source that gives what `entropy` gives.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(entropy: Entropy, crew: &Crew) -> io::Result<Self> {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let server = QueueServer::hire(crew, "entropy", Server { entropy, chain: Chain::default(), buffer })?;
        Ok(Self { server })
    }

    /// Waits until every request that the driver has notified of is answered; not at all while a pause holds.
    pub fn drain(&self) {
        self.server.drain();
    }
}

impl fmt::Debug for EntropySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntropySource").finish_non_exhaustive()
    }
}

impl VirtioDevice for EntropySource {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }

    fn read_config(&self, _offset: u64, bytes: &mut [u8]) {
        bytes.fill(0);
    }

    fn write_config(&self, _offset: u64, _bytes: &[u8]) {}

    fn activate(&self, activation: Activation) {
        self.server.activate(activation.queues.into_iter().next().flatten());
    }

    fn notify(&self, queue: u16) {
        if queue == 0 {
            self.server.kick();
        }
    }

    fn reset(&self) {
        self.server.reset();
    }

    fn pause(&self) {
        self.server.pause();
    }

    fn resume(&self) {
        self.server.resume();
    }

    fn queue_states(&self) -> Vec<Option<State>> {
        vec![self.server.queue_state()]
    }

    fn save(&self) -> state::State {
        state::NOTHING
    }

    fn restore(&self, state: &state::State) -> Result<(), StateError> {
        state::read_nothing(state)
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{Driver, readable, wait_for, writable};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn fills_buffers() {
        let mut driver = Driver::start(Arc::new(EntropySource::new(Entropy::Seeded(7), &Crew::Threads).unwrap()), 0);
        let at = driver.allocate(16 << 10);
        let head = driver.rings[0].add(&[writable(at, 10), writable(at + 100, 54)]).unwrap();
        driver.kick(0);
        assert_eq!(driver.wait_used(0), (head, 64));
        let mut expected = [0; 64];
        Entropy::Seeded(7).fill(&mut expected).unwrap();
        assert_eq!([driver.get(at, 10), driver.get(at + 100, 54)].concat(), expected);
        driver.rings[0].add(&[writable(at, 9000)]);
        driver.kick(0);
        assert_eq!(driver.wait_used(0).1, 4096);
    }

    #[test]
    fn a_buffer_that_cannot_be_filled_is_a_broken_driver() {
        let mut driver = Driver::start(Arc::new(EntropySource::new(Entropy::Seeded(7), &Crew::Threads).unwrap()), 0);
        let at = driver.allocate(64);
        driver.rings[0].add(&[readable(at, 10)]);
        driver.kick(0);
        wait_for(|| driver.status() & super::super::status::DEVICE_NEEDS_RESET != 0);
        assert_eq!(driver.transport.last_error(), Some(QueueError::Room));
    }
}
