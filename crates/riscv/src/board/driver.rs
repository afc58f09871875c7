//! The thread that takes a machine through its life.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use devices::syscon::PowerRequest;
use machine::lifecycle::{State, StopReason, Verb};

use super::Shared;
use super::debug::{Report, Reporter, Request};
use super::power::Event;
use crate::hart::debug::{Points, Stop};

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
        return thread::Builder::new().name("board".into()).spawn(move || driver.run(&events));
    }
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
    /// The gate is open and the clock goes: the machine runs, and is not halted.
    moving: bool,
    /// Devices are made as if they had been resumed.
    devices_paused: bool,
    halt: Halt,
}

/// The debugger's side of the machine.
#[derive(Default)]
struct Halt {
    halted: bool,
    reporter: Option<Reporter>,
    /// Watchpoints that were hit while another stop was reported.
    kept: VecDeque<(usize, Stop)>,
}

impl Halt {
    fn report(&self, report: Report) {
        if let Some(reporter) = &self.reporter {
            reporter(report);
        }
    }
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
                Event::Debug(request) => self.debug(request),
                Event::Over => {
                    if self.halt.reporter.is_some() {
                        self.debug(Request::Interrupt);
                        self.shared.parts.gate.release();
                    } else {
                        self.end(StopReason::Requested);
                    }
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
        match verb {
            Verb::Start | Verb::Resume => self.go(State::Running),
            Verb::Pause => self.go(State::Paused),
            Verb::Stop => self.end(StopReason::Requested),
        }
    }

    /// Enters `state`, and has the machine move or stand still as that and the debugger want.
    fn go(&mut self, state: State) {
        let parts = &self.shared.parts;
        let moves = state == State::Running && !self.halt.halted;
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
        self.set_state(state);
        if !self.moving && moves {
            parts.gate.open();
        }
        self.moving = moves;
    }

    /// Has the machine move or stand still, after a change of `halted`.
    fn follow_halt(&mut self) {
        let state = self.shared.progress().state;
        self.go(state);
    }

    fn debug(&mut self, request: Request) {
        match request {
            Request::Attach(reporter) => {
                self.halt = Halt { halted: true, reporter: Some(reporter), kept: VecDeque::new() };
                self.follow_halt();
            }
            Request::Interrupt => {
                // If it is halted already, that was reported.
                if !std::mem::replace(&mut self.halt.halted, true) {
                    self.follow_halt();
                    self.halt.report(Report::Interrupted);
                }
            }
            Request::Resume(moves) => match self.halt.kept.pop_front() {
                Some((hart, stop)) => self.halt.report(Report::Stopped { hart, stop }),
                None => {
                    self.shared.parts.set_moves(&moves);
                    self.halt.halted = false;
                    self.follow_halt();
                }
            },
            Request::Detach => {
                self.shared.parts.forget_moves();
                if self.moving {
                    self.close_gate();
                }
                self.shared.parts.set_points(Points::default());
                if self.moving {
                    self.shared.parts.gate.open();
                }
                self.halt = Halt::default();
                self.follow_halt();
            }
            Request::Stopped { hart, stop } => {
                let first = !self.halt.halted;
                if first && self.halt.reporter.is_some() {
                    self.halt.halted = true;
                    self.follow_halt();
                    self.halt.report(Report::Stopped { hart, stop });
                } else if self.halt.halted && matches!(stop, Stop::Watchpoint { .. }) {
                    self.halt.kept.push_back((hart, stop));
                }
                self.shared.parts.gate.release();
            }
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
