//! What can be debugged.

use riscv::hart::Hart;
use riscv::hart::debug::{Points, Stop};

pub use riscv::board::debug::Move;

/// The number of a thread, from one.
pub type Thread = std::num::NonZeroUsize;

/// What a debugger is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A thread has stopped, and all others stand still.
    Stopped {
        /// Which.
        thread: Thread,
        /// Why.
        stop: Stop,
    },
    /// A signal is about to be delivered to a thread, and all stand still.
    Signal {
        /// Which thread.
        thread: Thread,
        /// The signal's number on Linux.
        signal: u8,
    },
    /// [`Debuggee::interrupt`] has been done: all threads stand still.
    Interrupted,
    /// The debuggee has ended with this status.
    Exited(u8),
    /// The debuggee has died by this signal of Linux.
    Killed(u8),
}

/// Something that is done with a hart.
pub type HartAction = Box<dyn FnOnce(&mut Hart) + Send>;

/// What each thread does when the debuggee moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The threads that move in a way of their own, with the signal that is delivered to them first, if any.
    pub own: Vec<(Thread, Move, Option<u8>)>,
    /// What all others do.
    pub others: Move,
}

/// A machine of any kind, to a debugger. Methods that look at it or move it are called while it stands still.
pub trait Debuggee: Send + Sync {
    /// Halts it. From now on `report` is told of what happens; it does not block.
    fn attach(&self, report: Box<dyn Fn(Report) + Send>);

    /// Waits until it has threads and all of them stand still, after [`Self::attach`].
    fn await_threads(&self);

    /// Lets it go on, without breakpoints.
    fn detach(&self);

    /// Ends it.
    fn kill(&self);

    /// Halts it soon; a [`Report`] says when.
    fn interrupt(&self);

    /// Lets it move on.
    fn resume(&self, moves: Moves);

    /// The threads there are, each with a line about it.
    fn threads(&self) -> Vec<(Thread, String)>;

    /// Calls `action` with a thread's hart; false if there is no such thread.
    fn with_hart(&self, thread: Thread, action: HartAction) -> bool;

    /// Reads memory as a thread sees it: how many bytes there were before the first that is not memory.
    fn read(&self, thread: Thread, at: u64, bytes: &mut [u8]) -> usize;

    /// Writes memory as a thread sees it; false if it is not all memory.
    fn write(&self, thread: Thread, at: u64, bytes: &[u8]) -> bool;

    /// Has all threads stop at these points.
    fn set_points(&self, points: Points);

    /// Whether threads have privileged registers.
    fn is_system(&self) -> bool;

    /// Answers a command that gdb's `monitor` passed on.
    fn command(&self, thread: Thread, line: &str) -> String;

    /// The path of the program, if it is one.
    fn exec_file(&self) -> Option<Vec<u8>>;

    /// The auxiliary vector that the program was started with, if it is one.
    fn auxiliary_vector(&self) -> Option<Vec<u8>>;
}
