//! What ends or restarts a machine from inside, and what is asked of it from outside: one queue to the machine's driver.

use std::sync::{Arc, mpsc};

use devices::pvpanic::PanicListener;
use devices::syscon::{PowerRequest, PowerSwitch};
use kvm_bindings::kvm_clock_data;
use machine::debug::Request;
use machine::debug::Stop;
use machine::gate::Gate;
use machine::lifecycle::Asked;

use super::build::Parts;
use crate::kvm::Kick;

/// A look at the machine and its paravirtual clock.
pub(super) type Look = Box<dyn FnOnce(&Parts, Option<&kvm_clock_data>) + Send>;

/// What the machine's driver does, one after the other.
pub(super) enum Event {
    /// Someone outside wants this.
    Verb(Asked),
    /// Someone outside wants to look at the machine while it stands still.
    StandStill(Look),
    /// The guest asks for this; the gate is held until it is done.
    Power(PowerRequest),
    /// A debugger wants something, or is to be told something.
    Debug(Request),
    /// The guest cannot go on: why, in one line. The gate is held.
    Fault(String),
}

/// Stops processors and tells the driver why. Used by the guest's own threads, so it waits for nothing.
#[derive(Clone)]
pub(super) struct Switch {
    gate: Arc<Gate>,
    kicks: Arc<[Arc<Kick>]>,
    queue: mpsc::Sender<Event>,
}

impl Switch {
    pub(super) fn new(gate: Arc<Gate>, kicks: Arc<[Arc<Kick>]>, queue: mpsc::Sender<Event>) -> Self {
        Self { gate, kicks, queue }
    }

    /// Has every processor come to the gate soon.
    pub(super) fn call_processors(&self) {
        self.kicks.iter().for_each(|kick| kick.kick());
    }

    fn stop_for(&self, event: Event) {
        self.gate.hold();
        self.call_processors();
        // Without a driver the machine has already stopped.
        let _ = self.queue.send(event);
    }

    /// A processor has stopped for the debugger.
    pub(super) fn stopped(&self, id: usize, stop: Stop) {
        self.stop_for(Event::Debug(Request::Stopped { processor: id, stop }));
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

impl PanicListener for Switch {
    fn panicked(&self) {
        self.fault("its kernel says that it has failed (panic)".into());
    }
}
