//! What ends or restarts a machine from inside, and what is asked of it from outside: one queue to the machine's driver.

use std::sync::{Arc, mpsc};

use devices::syscon::{PowerRequest, PowerSwitch};
use machine::debug::Request;
use machine::lifecycle::Asked;

use super::build::Parts;
use super::input::Doorbell;
use crate::hart::HartSignals;
use crate::hart::debug::Stop;
use machine::gate::Gate;

/// What the machine's driver does, one after the other.
pub(super) enum Event {
    /// Someone outside wants this.
    Verb(Asked),
    /// Someone outside wants to look at the machine while no hart runs.
    Inspect(Box<dyn FnOnce(&Parts) + Send>),
    /// The guest asks for this; the gate is held until it is done.
    Power(PowerRequest),
    /// A debugger wants something, or is to be told something.
    Debug(Request),
    /// The machine has come to the end that was asked for. The gate is held.
    Over,
    /// The guest cannot go on: why, in one line. The gate is held.
    Fault(String),
}

/// Stops harts and tells the driver why. Used by the guest's own threads, so it waits for nothing.
#[derive(Clone)]
pub(super) struct Switch {
    gate: Arc<Gate>,
    signals: Arc<[Arc<HartSignals>]>,
    doorbell: Arc<Doorbell>,
    queue: mpsc::Sender<Event>,
}

impl Switch {
    pub(super) fn new(
        gate: Arc<Gate>,
        signals: Arc<[Arc<HartSignals>]>,
        doorbell: Arc<Doorbell>,
        queue: mpsc::Sender<Event>,
    ) -> Self {
        Self { gate, signals, doorbell, queue }
    }

    /// Has every hart come to the gate soon.
    pub(super) fn call_harts(&self) {
        for signals in &*self.signals {
            signals.request_attention();
        }
        self.doorbell.ring();
    }

    fn stop_for(&self, event: Event) {
        self.gate.hold();
        self.call_harts();
        // Without a driver the machine has already stopped.
        let _ = self.queue.send(event);
    }

    /// A hart has stopped for the debugger.
    pub(super) fn stopped(&self, hart: usize, stop: Stop) {
        self.stop_for(Event::Debug(Request::Stopped { processor: hart, stop }));
    }

    /// The machine has come to the end that was asked for.
    pub(super) fn over(&self) {
        self.stop_for(Event::Over);
    }

    /// The guest cannot go on.
    pub(super) fn fault(&self, why: String) {
        self.stop_for(Event::Fault(why));
    }
}

impl PowerSwitch for Switch {
    fn request(&self, request: PowerRequest) {
        self.stop_for(Event::Power(request));
    }
}
