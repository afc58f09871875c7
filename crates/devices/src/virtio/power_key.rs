//! Virtio input device with one key: the power key, by which a guest is asked to shut down where the board has no button of its own.
//!
//! Specification: virtio 1.2, section 5.8; types and codes are those of Linux, `include/uapi/linux/input-event-codes.h`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;

use super::queue::{Chain, Queue, QueueError, State};
use super::{Activation, VirtioDevice, read_config_bytes};
use crate::lock;
use crate::state::{self, StateError};

const DEVICE_ID: u32 = 18;
const QUEUE_SIZE: u16 = 16;
const EVENTS: u16 = 0;
const STATUSES: u16 = 1;
const NAME: &[u8] = b"Isomorph power button";
/// `BUS_VIRTUAL`, then no vendor, product or version.
const IDENTITY: [u8; 8] = [6, 0, 0, 0, 0, 0, 0, 0];
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// Presses that a driver without buffers may have missed.
const PENDING_MAX: usize = 64;

/// Values of the field `select`.
mod select {
    pub(super) const NAME: u8 = 1;
    pub(super) const IDENTITY: u8 = 3;
    pub(super) const EVENT_BITS: u8 = 0x11;
}

#[derive(Default)]
struct Shared {
    events: Option<Queue>,
    statuses: Option<Queue>,
    chain: Chain,
    /// Type, code and value of what the driver has not been told.
    pending: VecDeque<(u16, u16, u32)>,
    /// `select` and `subsel`: what the rest of the configuration space is about.
    selected: [u8; 2],
    paused_count: u32,
}

impl Shared {
    /// Does what can be done now with both queues.
    fn serve(&mut self) {
        if self.paused_count > 0 {
            return;
        }
        if let Err(error) = self.deliver()
            && let Some(queue) = self.events.take()
        {
            queue.fail(&error);
        }
        if let Err(error) = self.take_statuses()
            && let Some(queue) = self.statuses.take()
        {
            queue.fail(&error);
        }
    }

    fn deliver(&mut self) -> Result<(), QueueError> {
        let Some(queue) = &mut self.events else { return Ok(()) };
        while let Some(&(kind, code, value)) = self.pending.front() {
            if !queue.pop(&mut self.chain)? {
                if queue.request_notification()? {
                    continue;
                }
                break;
            }
            let mut event = [0; 8];
            event[..2].copy_from_slice(&kind.to_le_bytes());
            event[2..4].copy_from_slice(&code.to_le_bytes());
            event[4..].copy_from_slice(&value.to_le_bytes());
            if self.chain.write(queue.memory(), 0, &event) < event.len() {
                return Err(QueueError::Room);
            }
            queue.add_used(&self.chain, 8)?;
            self.pending.pop_front();
        }
        queue.publish()
    }

    /// There is no lamp to light: what the driver says of one is given back unread.
    fn take_statuses(&mut self) -> Result<(), QueueError> {
        let Some(queue) = &mut self.statuses else { return Ok(()) };
        for _ in 0..QUEUE_SIZE {
            if !queue.pop(&mut self.chain)? {
                break;
            }
            queue.add_used(&self.chain, 0)?;
        }
        queue.publish()
    }

    fn config(&self) -> [u8; 136] {
        let mut bits = [0; KEY_POWER as usize / 8 + 1];
        bits[KEY_POWER as usize / 8] = 1 << (KEY_POWER % 8);
        let about: &[u8] = match self.selected {
            [select::NAME, 0] => NAME,
            [select::IDENTITY, 0] => &IDENTITY,
            // EV_KEY
            [select::EVENT_BITS, 1] => &bits,
            _ => &[],
        };
        let mut config = [0; 136];
        config[..2].copy_from_slice(&self.selected);
        config[2] = u8::try_from(about.len()).unwrap_or(0);
        config[8..8 + about.len()].copy_from_slice(about);
        config
    }
}

/// A power key. Put it behind a transport.
#[derive(Default)]
pub struct PowerKey(Mutex<Shared>);

impl PowerKey {
    /// A key that nobody has pressed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Presses it and lets it go. False if the guest has no driver for it.
    pub fn press(&self) -> bool {
        let mut shared = lock(&self.0);
        if shared.events.is_none() {
            return false;
        }
        if shared.pending.len() < PENDING_MAX {
            for value in [1, 0] {
                shared.pending.extend([(EV_KEY, KEY_POWER, value), (EV_SYN, 0, 0)]);
            }
        }
        shared.serve();
        true
    }
}

impl fmt::Debug for PowerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PowerKey").finish_non_exhaustive()
    }
}

impl VirtioDevice for PowerKey {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        read_config_bytes(&lock(&self.0).config(), offset, bytes);
    }

    fn write_config(&self, offset: u64, bytes: &[u8]) {
        let mut shared = lock(&self.0);
        for (at, &byte) in (offset..2).zip(bytes) {
            shared.selected[usize::from(at == 1)] = byte;
        }
    }

    fn activate(&self, activation: Activation) {
        let mut queues = activation.queues.into_iter();
        let mut shared = lock(&self.0);
        (shared.events, shared.statuses) = (queues.next().flatten(), queues.next().flatten());
        shared.serve();
    }

    fn notify(&self, queue: u16) {
        if matches!(queue, EVENTS | STATUSES) {
            lock(&self.0).serve();
        }
    }

    fn reset(&self) {
        let mut shared = lock(&self.0);
        (shared.events, shared.statuses) = (None, None);
        shared.pending.clear();
    }

    fn pause(&self) {
        lock(&self.0).paused_count += 1;
    }

    fn resume(&self) {
        let mut shared = lock(&self.0);
        shared.paused_count = shared.paused_count.saturating_sub(1);
        shared.serve();
    }

    fn queue_states(&self) -> Vec<Option<State>> {
        let shared = lock(&self.0);
        [&shared.events, &shared.statuses].map(|queue| queue.as_ref().map(Queue::state)).into()
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

    /// A press and its end, as a driver gets them.
    const PRESS: [[u8; 8]; 4] = [[1, 0, 116, 0, 1, 0, 0, 0], [0; 8], [1, 0, 116, 0, 0, 0, 0, 0], [0; 8]];

    fn started() -> (Arc<PowerKey>, Driver) {
        let key = Arc::new(PowerKey::new());
        let driver = Driver::start(Arc::clone(&key) as Arc<dyn VirtioDevice>, 0);
        (key, driver)
    }

    #[test]
    fn a_press_waits_for_buffers_and_for_the_end_of_a_pause() {
        let (key, mut driver) = started();
        let at = driver.allocate(64);
        key.pause();
        assert!(key.press());
        let first = driver.rings[0].add(&[writable(at, 8)]).unwrap();
        driver.kick(0);
        key.resume();
        assert_eq!(driver.wait_used(0), (first, 8));
        assert_eq!(driver.get(at, 8), PRESS[0]);
        for (place, event) in (1..).zip(&PRESS[1..]) {
            let head = driver.rings[0].add(&[writable(at + 8 * place, 8)]).unwrap();
            driver.kick(0);
            assert_eq!(driver.wait_used(0), (head, 8));
            assert_eq!(driver.get(at + 8 * place, 8), event);
        }
    }

    #[test]
    fn without_a_driver_it_asks_nobody() {
        let key = PowerKey::new();
        assert!(!key.press());
        let (key, driver) = started();
        assert!(key.press());
        drop(driver);
        key.reset();
        assert!(!key.press());
    }

    #[test]
    fn says_what_it_is() {
        let key = PowerKey::new();
        let about = |select, subselect| {
            key.write_config(0, &[select]);
            key.write_config(1, &[subselect]);
            let mut config = [0; 140];
            key.read_config(0, &mut config);
            assert_eq!(config[..2], [select, subselect]);
            config[8..8 + usize::from(config[2])].to_vec()
        };
        assert_eq!(about(1, 0), NAME);
        assert_eq!(about(3, 0), IDENTITY);
        let keys = about(0x11, 1);
        assert_eq!((keys.len(), keys[14]), (15, 1 << 4));
        assert!(keys[..14].iter().all(|byte| *byte == 0));
        // No relative axes, no properties, and nothing that there is not.
        for (select, subselect) in [(0x11, 2), (0x10, 0), (2, 0), (0xff, 0xff)] {
            assert!(about(select, subselect).is_empty());
        }
        key.write_config(u64::MAX, &[1, 2, 3]);
    }

    #[test]
    fn statuses_come_back_and_a_buffer_that_is_too_small_is_a_broken_driver() {
        let (key, mut driver) = started();
        let at = driver.allocate(64);
        let head = driver.rings[1].add(&[readable(at, 8)]).unwrap();
        driver.kick(1);
        assert_eq!(driver.wait_used(1), (head, 0));
        driver.rings[0].add(&[writable(at, 7)]);
        driver.kick(0);
        assert!(key.press());
        wait_for(|| driver.status() & super::super::status::DEVICE_NEEDS_RESET != 0);
        assert_eq!(driver.transport.last_error(), Some(QueueError::Room));
    }
}
