//! The thread that takes a machine through its life.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use devices::syscon::PowerRequest;
use machine::debug::{Halt, Haltable, Move, Points, Report, Request};
use machine::lifecycle::{State, StopReason};
use machine::sys;

use super::Shared;
use super::power::Event;

/// Starts the driver and the threads of the harts, which wait at the gate.
pub(super) fn spawn(shared: &Arc<Shared>, events: mpsc::Receiver<Event>) -> io::Result<JoinHandle<()>> {
    let mut driver = Driver {
        shared: Arc::clone(shared),
        harts: Vec::new(),
        moving: false,
        devices_paused: false,
        halt: Halt::default(),
    };
    if shared.parts.round_robin.is_some() {
        let shared = Arc::clone(shared);
        let body = move || {
            if let Some(round_robin) = &shared.parts.round_robin {
                round_robin.serve(&shared.parts);
            }
        };
        driver.harts.push(thread::Builder::new().name("harts".into()).spawn(body)?);
        return sys::thread("board").spawn(move || driver.run(&events));
    }
    for id in 0..shared.parts.vcpus.len() {
        let shared = Arc::clone(shared);
        let body = move || {
            let parts = &shared.parts;
            parts.vcpus[id].serve(&parts.gate, &parts.vcpus, &parts.supervisor);
        };
        driver.harts.push(thread::Builder::new().name(format!("hart-{id}")).spawn(body)?);
    }
    sys::thread("board").spawn(move || driver.run(&events))
}

struct Driver {
    shared: Arc<Shared>,
    harts: Vec<JoinHandle<()>>,
    /// The gate is open and the clock goes: the machine runs, and is not halted.
    moving: bool,
    /// Devices are made as if they had been resumed.
    devices_paused: bool,
    halt: Halt,
}

impl Driver {
    fn run(mut self, events: &mpsc::Receiver<Event>) {
        while let Ok(event) = events.recv() {
            match event {
                Event::Verb(asked) => {
                    let shared = Arc::clone(&self.shared);
                    shared.life.obey(asked, |_, next| match next {
                        State::Stopped => self.end(StopReason::Requested),
                        _ => self.go(next),
                    });
                }
                Event::Inspect(look) => {
                    if self.moving {
                        self.close_gate();
                    }
                    look(&self.shared.parts);
                    if self.moving {
                        self.shared.parts.gate.open();
                    }
                }
                Event::Power(PowerRequest::PowerOff) => self.end(StopReason::PowerOff(0)),
                Event::Power(PowerRequest::Fail(status)) => self.end(StopReason::PowerOff(status.into())),
                Event::Power(PowerRequest::Reboot) => {
                    self.reset();
                    self.shared.parts.gate.release();
                }
                Event::Debug(request) => self.obey(request),
                Event::Over => {
                    if self.halt.is_attached() {
                        self.obey(Request::Interrupt);
                        self.shared.parts.gate.release();
                    } else {
                        self.end(StopReason::Requested);
                    }
                }
                Event::Fault(why) => self.end(StopReason::Fault(why)),
            }
            if self.shared.life.state() == State::Stopped {
                return;
            }
        }
    }

    fn close_gate(&self) {
        let parts = &self.shared.parts;
        parts.gate.close(|| parts.supervisor.switch.call_harts());
    }

    /// Enters `state`, and has the machine move or stand still as that and the debugger want.
    fn go(&mut self, state: State) {
        let parts = &self.shared.parts;
        let moves = state == State::Running && !self.halt.is_halted();
        if self.moving && !moves {
            self.close_gate();
            parts.pause_devices();
            self.devices_paused = true;
            parts.clock.pause();
        }
        if !self.moving && moves {
            parts.clock.resume();
            if std::mem::take(&mut self.devices_paused) {
                parts.resume_devices();
            }
        }
        self.shared.life.enter(state);
        if !self.moving && moves {
            parts.gate.open();
        }
        self.moving = moves;
    }

    /// Starts the guest again from power-on. A paused machine stays paused.
    fn reset(&mut self) {
        self.close_gate();
        let parts = &self.shared.parts;
        parts.reset_devices();
        match parts.power_on() {
            Ok(()) => {
                self.shared.life.note_reset();
                if self.moving {
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
        if !self.devices_paused {
            parts.pause_devices();
        }
        self.moving = false;
        parts.flush_console();
        parts.clock.pause();
        let closed = parts
            .round_robin
            .as_ref()
            .map_or(Ok(()), |round_robin| round_robin.close(parts, reason != StopReason::Requested));
        let reason = closed.map_or_else(|error| StopReason::Fault(error.to_string()), |()| reason);
        self.halt.report(Report::Ended(reason.clone()));
        self.shared.life.end(reason);
    }
}

impl Haltable for Driver {
    fn halt(&mut self) -> &mut Halt {
        &mut self.halt
    }

    fn follow_halt(&mut self) {
        self.go(self.shared.life.state());
    }

    fn set_moves(&mut self, moves: &[Move]) {
        self.shared.parts.set_moves(moves);
    }

    fn forget_debugger(&mut self) {
        self.shared.parts.forget_moves();
        if self.moving {
            self.close_gate();
        }
        self.shared.parts.set_points(Points::default());
        if self.moving {
            self.shared.parts.gate.open();
        }
    }

    fn release(&self) {
        self.shared.parts.gate.release();
    }
}

impl Drop for Driver {
    /// Also after a panic, nobody waits for ever.
    fn drop(&mut self) {
        self.shared.parts.gate.end();
        self.shared.parts.supervisor.switch.call_harts();
        let failed = "the machine's driver failed; please report the message above";
        self.shared.life.end(StopReason::Fault(failed.into()));
    }
}
