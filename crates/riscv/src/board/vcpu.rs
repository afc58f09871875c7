//! A hart's thread: runs the guest, sleeps when the guest does, and serves its supervisor calls.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devices::aclint::TimeSource;

use super::hsm::{Entry, HartState, Lifecycle};
use super::power::Switch;
use super::supervisor::{Supervisor, Then};
use crate::hart::debug::Stop;
use crate::hart::{Exact, Exit, Hart, HartSignals};
use crate::sbi::pmu::Pmu;
use machine::gate::Gate;

const A0: u8 = 10;
const A1: u8 = 11;
const A2: u8 = 12;

/// What belongs to a hart's thread while it is inside the gate, and to the machine's driver otherwise.
pub(super) struct Core {
    pub(super) hart: Hart,
    pub(super) pmu: Pmu,
}

/// One hart and what others see of it.
pub(super) struct Vcpu {
    pub(super) id: usize,
    pub(super) signals: Arc<HartSignals>,
    pub(super) lifecycle: Lifecycle,
    core: Mutex<Core>,
    /// A debugger has the hart step: while its program counter is in this range.
    step: Mutex<Option<Range<u64>>>,
    /// The hart has a thread of its own, which may sleep. Otherwise it only says that it waits.
    threaded: bool,
    waiting: AtomicBool,
}

/// How a hart without a thread comes back.
pub(super) enum Exited {
    /// With its turn used up, or not.
    Used,
    /// It waits for an interrupt.
    Waits,
    /// It goes to the gate; its registers no longer matter.
    Leaves,
    /// It stops for the debugger.
    Stopped(Stop),
    /// It can go no further: why.
    Failed(String),
}

/// Where and how a hart begins after a reset of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResetVector {
    pub(super) entry: u64,
    pub(super) fdt: u64,
    /// The information for `fw_dynamic`, in `a2`.
    pub(super) dynamic_info: u64,
    /// Whether the hart runs at once, or waits until another starts it.
    pub(super) running: bool,
}

impl Vcpu {
    pub(super) fn new(id: usize, hart: Hart, threaded: bool) -> Self {
        let signals = Arc::clone(hart.signals());
        let core = Mutex::new(Core { hart, pmu: Pmu::default() });
        Self {
            id,
            signals,
            lifecycle: Lifecycle::new(HartState::Stopped),
            core,
            step: Mutex::new(None),
            threaded,
            waiting: AtomicBool::new(false),
        }
    }

    /// The hart itself: waits until its thread is outside the gate.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        // A thread that panicked inside is reported as a fault of the machine, which never runs it again.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the hart moves from now on: steps, or runs. It is outside the gate.
    pub(super) fn set_step(&self, step: Option<Range<u64>>) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn step(&self) -> Option<Range<u64>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts the hart into its state after a reset of the machine.
    pub(super) fn reset(&self, vector: ResetVector) {
        let mut core = self.core();
        self.signals.take_poll();
        self.waiting.store(false, Ordering::Relaxed);
        core.pmu = Pmu::default();
        start(&mut core.hart, vector.entry, vector.fdt);
        core.hart.set_x(A2, vector.dynamic_info);
        self.lifecycle.set(if vector.running { HartState::Started } else { HartState::Stopped });
    }

    /// The thread's body, with all harts of the machine: ends when the gate does.
    pub(super) fn serve(&self, gate: &Gate, vcpus: &[Self], supervisor: &Supervisor) {
        while let Some(_pass) = gate.enter(self.id) {
            let _report = ReportPanic { id: self.id, switch: &supervisor.switch };
            let mut core = self.core();
            self.turn(&mut core, vcpus, supervisor);
        }
    }

    /// Runs the hart until someone wants its attention.
    fn turn(&self, core: &mut Core, vcpus: &[Self], supervisor: &Supervisor) {
        let step = self.step();
        loop {
            match self.lifecycle.get() {
                HartState::Started | HartState::Suspended => match self.advance(core, step.as_ref()) {
                    Exit::Attention => return,
                    Exit::Idle if step.is_some() => return supervisor.switch.stopped(self.id, Stop::Step),
                    Exit::Idle => self.sleep(core, &supervisor.time),
                    Exit::SupervisorCall => {
                        if let Then::Leave = supervisor.call(vcpus, self, core) {
                            return;
                        }
                        if step.is_some() {
                            return supervisor.switch.stopped(self.id, Stop::Step);
                        }
                    }
                    Exit::Debug(stop) => return supervisor.switch.stopped(self.id, stop),
                    Exit::Exception(trap) => {
                        return supervisor.switch.fault(format!("hart {}: {trap:?} outside of any program", self.id));
                    }
                    Exit::Fault(why) => return supervisor.switch.fault(format!("hart {}: {why}", self.id)),
                },
                HartState::StartPending(_) => {
                    if let Some(Entry { address, opaque }) = self.lifecycle.take_start() {
                        start(&mut core.hart, address, opaque);
                    }
                }
                // There is nothing to execute.
                HartState::Stopped if step.is_some() => return supervisor.switch.stopped(self.id, Stop::Step),
                HartState::Stopped => {
                    self.signals.sleep(None);
                    // Nothing is lost: whatever was asked of the hart while it was stopped is moot once it starts afresh.
                    if self.signals.take_poll().attention() && self.lifecycle.get() == HartState::Stopped {
                        return;
                    }
                }
            }
        }
    }

    fn advance(&self, core: &mut Core, step: Option<&Range<u64>>) -> Exit {
        match step {
            Some(range) => core.hart.step_debugged(range),
            None => core.hart.run(),
        }
    }

    /// A hart without a thread of its own runs for what `exact` gives it at most. It is started, or about to be, and does not wait.
    pub(super) fn advance_exactly(&self, exact: &mut Exact, vcpus: &[Self], supervisor: &Supervisor) -> Exited {
        let mut core = self.core();
        let core = &mut *core;
        if let Some(Entry { address, opaque }) = self.lifecycle.take_start() {
            start(&mut core.hart, address, opaque);
        }
        let step = self.step();
        let exit = match &step {
            Some(range) => {
                let before = core.hart.instructions_retired();
                let exit = core.hart.step_debugged(range);
                // A trap counts as an instruction.
                let used = core.hart.instructions_retired().wrapping_sub(before).max(1);
                exact.left = exact.left.saturating_sub_unsigned(used);
                Some(exit)
            }
            None => core.hart.run_exactly(exact),
        };
        match exit {
            None | Some(Exit::Attention) => Exited::Used,
            Some(Exit::Idle) if step.is_some() => Exited::Stopped(Stop::Step),
            Some(Exit::Idle) => {
                self.waiting.store(true, Ordering::Relaxed);
                Exited::Waits
            }
            Some(Exit::SupervisorCall) => {
                exact.look_due = true;
                match supervisor.call(vcpus, self, core) {
                    Then::Leave => Exited::Leaves,
                    Then::Run if step.is_some() => Exited::Stopped(Stop::Step),
                    Then::Run => Exited::Used,
                }
            }
            Some(Exit::Debug(stop)) => Exited::Stopped(stop),
            Some(Exit::Exception(trap)) => Exited::Failed(format!("hart {}: {trap:?} outside of any program", self.id)),
            Some(Exit::Fault(why)) => Exited::Failed(format!("hart {}: {why}", self.id)),
        }
    }

    /// Whether the hart waits for an interrupt; only of one without a thread of its own.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) && self.lifecycle.get() == HartState::Started
    }

    /// Whether a started hart does not wait, or no longer does.
    pub(super) fn is_awake(&self) -> bool {
        if self.waiting.load(Ordering::Relaxed) && self.core().hart.has_reason_to_wake() {
            self.waiting.store(false, Ordering::Relaxed);
        }
        !self.waiting.load(Ordering::Relaxed)
    }

    /// Sleeps until there is something to do, or by mistake less long. Without a thread of its own it sleeps once it is back.
    pub(super) fn sleep(&self, core: &Core, time: &TimeSource) {
        if !self.threaded {
            self.waiting.store(true, Ordering::Relaxed);
            return;
        }
        let timeout = core.hart.next_deadline().map(|ticks| Duration::from_nanos(time.ns_until(ticks)));
        if timeout != Some(Duration::ZERO) {
            self.signals.sleep(timeout);
        }
    }

    /// Goes on as a hart that was just started.
    pub(super) fn restart(&self, core: &mut Core, entry: Entry) {
        start(&mut core.hart, entry.address, entry.opaque);
    }

    /// One line about the hart.
    pub(super) fn describe(&self) -> String {
        let core = self.core();
        let hart = &core.hart;
        let state = match self.lifecycle.get() {
            HartState::Started => "runs",
            HartState::Stopped => "is stopped",
            HartState::StartPending(_) => "starts",
            HartState::Suspended => "sleeps",
        };
        format!(
            "hart {}: {state} at pc {:#018x} in {:?} mode, {} instructions",
            self.id,
            hart.pc(),
            hart.privilege(),
            hart.instructions_retired()
        )
    }
}

/// The state in which the SBI and firmware start a hart: `a0` is its number.
fn start(hart: &mut Hart, entry: u64, a1: u64) {
    hart.reset(entry);
    let id = hart.config().id;
    hart.set_x(A0, id);
    hart.set_x(A1, a1);
}

/// Turns a panic of the thread, which is a bug of ours, into a stop of the machine with a reason.
pub(super) struct ReportPanic<'a> {
    pub(super) id: usize,
    pub(super) switch: &'a Switch,
}

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.switch.fault(format!("hart {}: the emulator failed; please report the message above", self.id));
        }
    }
}
