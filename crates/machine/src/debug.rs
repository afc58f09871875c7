//! What debuggers and machines of any kind tell each other: where to stop, how to move, what has happened.
//!
//! A debugger *halts* a machine: nothing of it moves, as in a pause, but beside the machine's own state, so that a paused machine can be looked at and a
//! halted one not be resumed by mistake. The first processor that stops halts the others. What a second one reports meanwhile is mostly found again when it moves
//! on: it stands before its breakpoint. Only a watchpoint, which it stands behind, is kept and reported in place of that processor's next move.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use crate::lifecycle::StopReason;

/// Why a processor stopped for a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The steps that were asked for are done.
    Step,
    /// A breakpoint is at the program counter.
    Breakpoint,
    /// The instruction before the program counter has touched a watched byte.
    Watchpoint {
        /// The first byte that it touched of those watched.
        address: u64,
        /// Which accesses the watchpoint that was hit is for.
        watch: Watch,
    },
}

/// Which accesses a watchpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watch {
    /// Loads, and what atomic operations read.
    Read,
    /// Stores, and what atomic operations write.
    Write,
    /// Both.
    Access,
}

/// Bytes whose accesses stop a processor, at virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// The first byte.
    pub address: u64,
    /// How many; at least one.
    pub length: u64,
    /// Which accesses.
    pub watch: Watch,
}

/// Where processors stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Virtual addresses of instructions.
    pub breakpoints: BTreeSet<u64>,
    /// What is watched.
    pub watchpoints: Vec<Watchpoint>,
}

/// What a debugger is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A processor has stopped, and all others stand still.
    Stopped {
        /// Its number.
        processor: usize,
        /// Why.
        stop: Stop,
    },
    /// The halt that was asked for: all processors stand still.
    Interrupted,
    /// The machine has ended.
    Ended(StopReason),
}

/// Who is told.
pub type Reporter = Box<dyn Fn(Report) + Send>;

/// What a processor does when a halted machine moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// It stays where it is.
    Stay,
    /// It runs.
    Run,
    /// It executes one instruction, and others while its program counter stays in this range.
    Step(Range<u64>),
}

/// What is asked of a machine's driver about halts.
pub enum Request {
    /// A debugger halts the machine, in place of any earlier one.
    Attach(Reporter),
    /// It halts it again.
    Interrupt,
    /// It lets processors move: one entry for each, one without stays.
    Resume(Vec<Move>),
    /// It goes.
    Detach,
    /// A processor has stopped; the driver lets it and its like pass when that is seen to.
    Stopped {
        /// Its number.
        processor: usize,
        /// Why.
        stop: Stop,
    },
}

/// A driver whose machine can be halted.
pub trait Haltable {
    /// The debugger's side of it.
    fn halt(&mut self) -> &mut Halt;

    /// Has the machine move or stand still, after a change of the [`Halt`].
    fn follow_halt(&mut self);

    /// Tells the processors, which stand still, how to move.
    fn set_moves(&mut self, moves: &[Move]);

    /// Has all processors run from now on, and stop nowhere.
    fn forget_debugger(&mut self);

    /// Lets processors pass that have told of something.
    fn release(&self);

    /// Does what is asked.
    fn obey(&mut self, request: Request) {
        match request {
            Request::Attach(reporter) => {
                self.halt().attach(reporter);
                self.follow_halt();
            }
            Request::Interrupt => {
                if self.halt().interrupt() {
                    self.follow_halt();
                    self.halt().report(Report::Interrupted);
                }
            }
            Request::Resume(moves) => {
                if self.halt().resume(&moves) {
                    self.set_moves(&moves);
                    self.follow_halt();
                }
            }
            Request::Detach => {
                self.forget_debugger();
                self.halt().detach();
                self.follow_halt();
            }
            Request::Stopped { processor, stop } => {
                if self.halt().stopped(processor, stop) {
                    self.follow_halt();
                    self.halt().report(Report::Stopped { processor, stop });
                }
                self.release();
            }
        }
    }
}

/// A machine that a debugger halts, by its driver.
pub trait Halting {
    /// Hands a request to the driver. Without one the machine has ended, and the debugger has been told.
    fn request(&self, request: Request);

    /// Waits until the driver has done all that was asked before.
    fn settle(&self);

    /// Halts the machine, started or not, on behalf of a debugger, which replaces any earlier one.
    fn attach_debugger(&self, report: Reporter) {
        self.request(Request::Attach(report));
        self.settle();
    }

    /// Lets the machine go on without breakpoints.
    fn detach_debugger(&self) {
        self.request(Request::Detach);
        self.settle();
    }

    /// Halts the machine soon; a [`Report`] says when.
    fn interrupt(&self) {
        self.request(Request::Interrupt);
    }

    /// Lets the processors of a halted machine move: one entry for each, one without stays.
    fn resume_processors(&self, moves: Vec<Move>) {
        self.request(Request::Resume(moves));
    }
}

/// The debugger's side of a machine's driver.
#[derive(Default)]
pub struct Halt {
    halted: bool,
    reporter: Option<Reporter>,
    /// Watchpoints that were hit while another stop was reported.
    kept: VecDeque<(usize, Stop)>,
}

impl Halt {
    /// Whether the debugger has the machine stand still.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Whether there is a debugger.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.reporter.is_some()
    }

    /// A debugger halts the machine, in place of any earlier one.
    pub fn attach(&mut self, reporter: Reporter) {
        *self = Self { halted: true, reporter: Some(reporter), kept: VecDeque::new() };
    }

    /// The debugger goes, and the machine is not halted.
    pub fn detach(&mut self) {
        *self = Self::default();
    }

    /// Halts the machine. True if it was not before: then [`Report::Interrupted`] is due when it stands still; else that was reported.
    #[must_use]
    pub fn interrupt(&mut self) -> bool {
        !std::mem::replace(&mut self.halted, true)
    }

    /// The debugger lets the machine move on. False if a stop that was kept has been reported instead: of a processor that was to move, since a debugger that
    /// moves some alone expects no other to tell of anything.
    #[must_use]
    pub fn resume(&mut self, moves: &[Move]) -> bool {
        let moving = |processor: usize| moves.get(processor).is_some_and(|to| *to != Move::Stay);
        let due = self.kept.iter().position(|(processor, _)| moving(*processor));
        if let Some((processor, stop)) = due.and_then(|index| self.kept.remove(index)) {
            self.report(Report::Stopped { processor, stop });
            return false;
        }
        self.halted = false;
        true
    }

    /// A processor has stopped. True if that halts the machine: then it is to be reported when all others stand still.
    #[must_use]
    pub fn stopped(&mut self, processor: usize, stop: Stop) -> bool {
        let first = !self.halted && self.is_attached();
        if first {
            self.halted = true;
        } else if self.halted && matches!(stop, Stop::Watchpoint { .. }) {
            self.kept.push_back((processor, stop));
        }
        first
    }

    /// Tells the debugger, if there is one.
    pub fn report(&self, report: Report) {
        if let Some(reporter) = &self.reporter {
            reporter(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_first_stop_halts_and_watchpoints_are_kept() {
        let (sender, reports) = mpsc::channel();
        let mut halt = Halt::default();
        assert!(!halt.stopped(0, Stop::Step), "nobody wants to know");
        halt.attach(Box::new(move |report| sender.send(report).unwrap()));
        assert!(halt.is_halted() && !halt.interrupt());
        let all = [Move::Run, Move::Run, Move::Run];
        assert!(halt.resume(&all) && !halt.is_halted());
        assert!(halt.stopped(1, Stop::Breakpoint));
        assert!(!halt.stopped(0, Stop::Breakpoint), "it is found again");
        let watched = Stop::Watchpoint { address: 4, watch: Watch::Write };
        assert!(!halt.stopped(2, watched));
        assert!(halt.resume(&[Move::Stay, Move::Step(0..0)]) && !halt.is_halted(), "the one that is watched stays");
        assert!(halt.stopped(1, Stop::Step));
        assert_eq!(reports.try_recv(), Err(mpsc::TryRecvError::Empty));
        assert!(!halt.resume(&all) && halt.is_halted());
        assert_eq!(reports.recv(), Ok(Report::Stopped { processor: 2, stop: watched }));
        assert!(halt.resume(&all) && halt.interrupt());
        halt.detach();
        assert!(!halt.is_halted() && !halt.is_attached());
    }
}
