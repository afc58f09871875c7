//! The thread that takes a machine through its life, and the threads of its processors.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use devices::syscon::{PowerRequest, PowerSwitch};
use kvm_bindings::kvm_clock_data;
use machine::debug::{Halt, Haltable, Move, Report};
use machine::lifecycle::{State, StopReason};
use machine::sys;

use super::Shared;
use super::build::Parts;
use super::power::{self, Event};
use super::trace::Look;
use crate::kvm::{Exit, lock};

/// Starts the driver and the threads of the processors, which wait at the gate. `still`: of a machine that goes on from somewhere.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    events: mpsc::Receiver<Event>,
    still: Option<Still>,
) -> io::Result<JoinHandle<()>> {
    let mut driver =
        Driver { shared: Arc::clone(shared), processors: Vec::new(), still, moving: false, halt: Halt::default() };
    for id in 0..shared.parts.cpus_count() {
        let shared = Arc::clone(shared);
        let thread = sys::thread(format!("cpu-{id}"));
        driver.processors.push(thread.spawn(move || serve(&shared.parts, id))?);
    }
    sys::thread("board").spawn(move || driver.run(&events))
}

/// The body of a processor's thread: ends when the gate does.
fn serve(parts: &Parts, id: usize) {
    while let Some(_pass) = parts.gate.enter(id) {
        let _report = ReportPanic { parts, id };
        let tracer = lock(&parts.debugging).tracer.clone();
        let mut vcpu = parts.vcpu(id);
        let look = tracer.as_deref().and_then(|tracer| Look::at(parts, &vcpu, id, tracer));
        match vcpu.run(&parts.buses) {
            Exit::Attention => {}
            Exit::Debug(hit) => {
                if let (Some(look), Some(tracer)) = (look, &tracer) {
                    look.tell(&vcpu, &**tracer);
                }
                if let Some(stop) = parts.stop_of(id, &vcpu, hit) {
                    parts.switch.stopped(id, stop);
                }
            }
            // A triple fault resets a PC, and is how kernels restart it that know no better way.
            Exit::Shutdown => parts.switch.request(PowerRequest::Reboot),
            Exit::Halted => parts.switch.fault(format!("processor {id} waits, and nothing can wake it")),
            Exit::Failed(why) => parts.switch.fault(why),
        }
    }
}

/// Turns a panic of the thread, which is a bug of ours, into a stop of the machine with a reason.
struct ReportPanic<'a> {
    parts: &'a Parts,
    id: usize,
}

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let why = format!("processor {}: the monitor failed; please report the message above", self.id);
            self.parts.switch.fault(why);
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    processors: Vec<JoinHandle<()>>,
    /// While devices are paused.
    still: Option<Still>,
    /// The gate is open and the clock goes: the machine runs, and is not halted.
    moving: bool,
    halt: Halt,
}

/// What a machine that stands still will go on with.
pub(super) struct Still {
    /// The paravirtual clock. Without it the guest sees the pause as a jump, and no worse.
    pub(super) clock: Option<kvm_clock_data>,
}

impl Driver {
    fn run(mut self, events: &mpsc::Receiver<Event>) {
        while let Ok(event) = events.recv() {
            match event {
                Event::Verb(asked) => {
                    let shared = Arc::clone(&self.shared);
                    shared.life.obey(asked, |_, next| self.perform(next));
                }
                Event::StandStill(look) => self.stand_still_for(look),
                Event::Debug(request) => self.obey(request),
                Event::Power(PowerRequest::PowerOff) => self.end(StopReason::PowerOff(0)),
                Event::Power(PowerRequest::Fail(status)) => self.end(StopReason::PowerOff(status.into())),
                Event::Power(PowerRequest::Reboot) => {
                    self.reset();
                    self.shared.parts.gate.release();
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
        parts.gate.close(|| parts.switch.call_processors());
    }

    fn perform(&mut self, next: State) {
        match next {
            State::Stopped => self.end(StopReason::Requested),
            _ => self.go(next),
        }
    }

    /// Enters `state`, and has the machine move or stand still as that and the debugger want.
    fn go(&mut self, state: State) {
        let moves = state == State::Running && !self.halt.is_halted();
        if self.moving && !moves {
            self.stand_still();
        }
        if !self.moving && moves {
            self.go_on();
        }
        self.shared.life.enter(state);
        if !self.moving && moves {
            self.shared.parts.gate.open();
        }
        self.moving = moves;
    }

    /// From now on nothing of the machine moves.
    fn stand_still(&mut self) {
        self.close_gate();
        let parts = &self.shared.parts;
        if self.still.is_none() {
            parts.pause_devices();
            self.still = Some(Still { clock: parts.vm.clock().ok() });
        }
        parts.clock.pause();
    }

    /// Lets everything go on, but for processors.
    fn go_on(&mut self) {
        let parts = &self.shared.parts;
        parts.clock.resume();
        let Some(still) = self.still.take() else { return };
        if let Some(clock) = still.clock {
            let _ = parts.vm.set_clock(&clock);
        }
        (0..parts.cpus_count()).for_each(|id| parts.vcpu(id).tell_of_pause());
        parts.resume_devices();
    }

    fn stand_still_for(&mut self, look: power::Look) {
        self.stand_still();
        let clock = self.still.as_ref().and_then(|still| still.clock.as_ref());
        look(&self.shared.parts, clock);
        if self.moving {
            self.go_on();
            self.shared.parts.gate.open();
        }
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
        for processor in self.processors.drain(..) {
            // A thread that panicked has said so, and the machine's fault is in the queue or is this reason.
            let _ = processor.join();
        }
        if self.still.is_none() {
            parts.pause_devices();
        }
        self.moving = false;
        parts.flush_console();
        parts.clock.pause();
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
        self.stand_still_for(Box::new(|parts, _| parts.forget_debugger()));
    }

    fn release(&self) {
        self.shared.parts.gate.release();
    }
}

impl Drop for Driver {
    /// Also after a panic, nobody waits for ever.
    fn drop(&mut self) {
        self.shared.parts.gate.end();
        self.shared.parts.switch.call_processors();
        let failed = "the machine's driver failed; please report the message above";
        self.shared.life.end(StopReason::Fault(failed.into()));
    }
}
