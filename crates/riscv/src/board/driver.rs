//! The thread that takes a machine through its life.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use devices::syscon::PowerRequest;
use machine::lifecycle::{State, StopReason, Verb};

use super::Shared;
use super::power::Event;

/// Starts the driver and the threads of the harts, which wait at the gate.
pub(super) fn spawn(shared: &Arc<Shared>, events: mpsc::Receiver<Event>) -> io::Result<JoinHandle<()>> {
    let mut driver = Driver { shared: Arc::clone(shared), harts: Vec::new() };
    for id in 0..shared.parts.vcpus.len() {
        let shared = Arc::clone(shared);
        let body = move || {
            let parts = &shared.parts;
            parts.vcpus[id].serve(&parts.gate, &parts.vcpus, &parts.supervisor);
        };
        driver.harts.push(thread::Builder::new().name(format!("hart-{id}")).spawn(body)?);
    }
    thread::Builder::new().name("board".into()).spawn(move || driver.run(&events))
}

struct Driver {
    shared: Arc<Shared>,
    harts: Vec<JoinHandle<()>>,
}

impl Driver {
    fn run(mut self, events: &mpsc::Receiver<Event>) {
        while let Ok(event) = events.recv() {
            match event {
                Event::Verb(verb, answer) => {
                    let state = self.shared.progress().state;
                    let next = state.after(verb);
                    if next.is_ok() {
                        self.perform(verb);
                    }
                    // Whoever asked may have gone.
                    let _ = answer.send(next.map(|_| ()));
                }
                Event::Inspect(look) => {
                    let running = self.shared.progress().state == State::Running;
                    if running {
                        self.close_gate();
                    }
                    look(&self.shared.parts);
                    if running {
                        self.shared.parts.gate.open();
                    }
                }
                Event::Power(PowerRequest::PowerOff) => self.end(StopReason::PowerOff(0)),
                Event::Power(PowerRequest::Fail(status)) => self.end(StopReason::PowerOff(status.into())),
                Event::Power(PowerRequest::Reboot) => {
                    self.reset();
                    self.shared.parts.gate.release();
                }
                Event::Fault(why) => self.end(StopReason::Fault(why)),
            }
            if self.shared.progress().state == State::Stopped {
                return;
            }
        }
    }

    fn set_state(&self, state: State) {
        self.shared.progress().state = state;
        self.shared.changed.notify_all();
    }

    fn close_gate(&self) {
        let parts = &self.shared.parts;
        parts.gate.close(|| parts.supervisor.switch.call_harts());
    }

    fn perform(&mut self, verb: Verb) {
        let parts = &self.shared.parts;
        match verb {
            Verb::Start => {
                parts.clock.resume();
                self.set_state(State::Running);
                parts.gate.open();
            }
            Verb::Pause => {
                self.close_gate();
                parts.pause_devices();
                parts.clock.pause();
                self.set_state(State::Paused);
            }
            Verb::Resume => {
                parts.clock.resume();
                parts.resume_devices();
                self.set_state(State::Running);
                parts.gate.open();
            }
            Verb::Stop => self.end(StopReason::Requested),
        }
    }

    /// Starts the guest again from power-on. A paused machine stays paused.
    fn reset(&mut self) {
        self.close_gate();
        let parts = &self.shared.parts;
        parts.reset_devices();
        match parts.power_on() {
            Ok(()) => {
                let mut progress = self.shared.progress();
                progress.resets_count += 1;
                if progress.state == State::Running {
                    parts.gate.open();
                }
            }
            Err(cause) => self.end(StopReason::Fault(format!("cannot start again: {cause}"))),
        }
    }

    fn end(&mut self, reason: StopReason) {
        self.close_gate();
        let parts = &self.shared.parts;
        parts.gate.end();
        for hart in self.harts.drain(..) {
            // A thread that panicked has said so, and the machine's fault is in the queue or is this reason.
            let _ = hart.join();
        }
        if self.shared.progress().state != State::Paused {
            parts.pause_devices();
        }
        parts.flush_console();
        parts.clock.pause();
        let mut progress = self.shared.progress();
        progress.state = State::Stopped;
        progress.reason.get_or_insert(reason);
        self.shared.changed.notify_all();
    }
}

impl Drop for Driver {
    /// Also after a panic, nobody waits for ever.
    fn drop(&mut self) {
        self.shared.parts.gate.end();
        self.shared.parts.supervisor.switch.call_harts();
        let mut progress = self.shared.progress();
        progress.state = State::Stopped;
        progress.reason.get_or_insert_with(|| {
            StopReason::Fault("the machine's driver failed; please report the message above".into())
        });
        self.shared.changed.notify_all();
    }
}
