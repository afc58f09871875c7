//! A device for tests of transports.

use std::sync::{Arc, Mutex};

use super::{Activation, DriverSignals, VirtioDevice};
use crate::lock;
use crate::state::{self, State, StateError};

/// A device with two queues and nothing behind them; records what happens to it.
#[derive(Default)]
pub(super) struct Probe {
    events: Mutex<Vec<String>>,
    signals: Mutex<Option<Arc<dyn DriverSignals>>>,
}

impl Probe {
    pub(super) fn note(&self, event: impl Into<String>) {
        lock(&self.events).push(event.into());
    }
    pub(super) fn events(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.events))
    }
    pub(super) fn signals(&self) -> Arc<dyn DriverSignals> {
        Arc::clone(lock(&self.signals).as_ref().unwrap())
    }
}

impl VirtioDevice for Probe {
    fn device_id(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        0b101
    }
    fn queue_sizes(&self) -> &[u16] {
        &[8, 16]
    }
    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        super::read_config_bytes(&[1, 2, 3, 4, 5, 6], offset, bytes);
    }
    fn write_config(&self, offset: u64, bytes: &[u8]) {
        self.note(format!("config {offset} {bytes:?}"));
    }
    fn activate(&self, activation: Activation) {
        let sizes: Vec<_> = activation.queues.iter().map(|q| q.as_ref().map(|q| q.state().size)).collect();
        self.note(format!("activate {:#x} {sizes:?}", activation.features));
        *lock(&self.signals) = Some(activation.signals);
    }
    fn notify(&self, queue: u16) {
        self.note(format!("notify {queue}"));
    }
    fn reset(&self) {
        self.note("reset");
    }
    fn pause(&self) {}
    fn resume(&self) {}
    fn queue_states(&self) -> Vec<Option<super::queue::State>> {
        vec![None, None]
    }
    fn save(&self) -> State {
        state::NOTHING
    }
    fn restore(&self, state: &State) -> Result<(), StateError> {
        state::read_nothing(state)
    }
}
