//! What can be debugged.

use machine::debug::{Points, Stop};

pub use machine::debug::Move;

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

/// What each thread does when the debuggee moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The threads that move in a way of their own, with the signal that is delivered to them first, if any.
    pub own: Vec<(Thread, Move, Option<u8>)>,
    /// What all others do.
    pub others: Move,
}

/// The registers of a debuggee's threads, by the numbers that gdb knows them by, each in the processor's own order of bytes.
pub trait Registers {
    /// The target description of gdb's manual, appendix "Target Descriptions": which registers there are.
    fn description(&self) -> String;

    /// Those that every stop transfers, one behind the other; `None` if there is no such thread.
    fn read_all(&self, thread: Thread) -> Option<Vec<u8>>;

    /// Sets all of those; false if it is not possible.
    fn write_all(&self, thread: Thread, bytes: &[u8]) -> bool;

    /// One register; `None` if there is no such.
    fn read_one(&self, thread: Thread, number: usize) -> Option<Vec<u8>>;

    /// Sets one register; false if there is no such, or it takes no such value.
    fn write_one(&self, thread: Thread, number: usize, bytes: &[u8]) -> bool;
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

    /// The threads' registers.
    fn registers(&self) -> &dyn Registers;

    /// Reads memory as a thread sees it: how many bytes there were before the first that is not memory.
    fn read(&self, thread: Thread, at: u64, bytes: &mut [u8]) -> usize;

    /// Writes memory as a thread sees it; false if it is not all memory.
    fn write(&self, thread: Thread, at: u64, bytes: &[u8]) -> bool;

    /// Has all threads stop at these points. False if there are more than it can watch, or of kinds that it cannot; then all is as before.
    fn set_points(&self, points: Points) -> bool;

    /// Answers a command that gdb's `monitor` passed on.
    fn command(&self, thread: Thread, line: &str) -> String;

    /// The path of the program, if it is one.
    fn exec_file(&self) -> Option<Vec<u8>>;

    /// The auxiliary vector that the program was started with, if it is one.
    fn auxiliary_vector(&self) -> Option<Vec<u8>>;
}
