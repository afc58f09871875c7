//! The states of a machine and the verbs between them; drawn here and nowhere else.
//!
//! ```text
//!            start            pause
//! created ---------> running -------> paused
//!    |                 |  ^   <-------   |
//!    | stop            |       resume    | stop
//!    v                 v stop / guest    v
//! stopped <------------+-----------------+
//! ```

mod life;

use std::fmt;

pub use life::{Asked, Driven, Life};

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Built; no guest instruction has run.
    Created,
    /// The guest runs.
    Running,
    /// The guest stands still at a safe point; its clock too.
    Paused,
    /// The guest is gone.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// What is asked of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Begin to run.
    Start,
    /// Stand still.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End.
    Stop,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
        })
    }
}

/// A verb that the machine's state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} a machine that is {state}")]
pub struct IllegalTransition {
    /// The state it is in.
    pub state: State,
    /// The verb refused.
    pub verb: Verb,
}

impl State {
    /// The state after `verb`.
    ///
    /// # Errors
    /// The verb is not allowed in this state.
    pub fn after(self, verb: Verb) -> Result<Self, IllegalTransition> {
        match (self, verb) {
            (Self::Created, Verb::Start) | (Self::Paused, Verb::Resume) => Ok(Self::Running),
            (Self::Running, Verb::Pause) => Ok(Self::Paused),
            (Self::Created | Self::Running | Self::Paused, Verb::Stop) => Ok(Self::Stopped),
            _ => Err(IllegalTransition { state: self, verb }),
        }
    }
}

/// Why a machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The guest powered itself off; the status it gave, zero for an ordinary power-off.
    PowerOff(i32),
    /// [`Machine::stop`] was called.
    Requested,
    /// The guest can go no further; one line that says why.
    Fault(String),
}

/// What a machine has used so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest instructions retired, over all processors.
    pub instructions_count: u64,
    /// Nanoseconds of the machine's clock.
    pub time_ns: u64,
    /// Guest memory that has a host frame, in bytes.
    pub memory_resident_bytes: u64,
    /// Guest memory as the guest sees it, in bytes.
    pub memory_size_bytes: u64,
    /// How often the guest has been reset.
    pub resets_count: u64,
}

/// A machine of any kind. There are no default bodies: a kind that cannot do a verb says so by name.
pub trait Machine: Send + Sync {
    /// Where the machine is in its life.
    fn state(&self) -> State;

    /// Lets the guest run, on threads of its own.
    ///
    /// # Errors
    /// The state does not allow it.
    fn start(&self) -> Result<(), IllegalTransition>;

    /// Returns once every processor stands at a safe point and the clock is stopped.
    ///
    /// # Errors
    /// The state does not allow it.
    fn pause(&self) -> Result<(), IllegalTransition>;

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// The state does not allow it.
    fn resume(&self) -> Result<(), IllegalTransition>;

    /// Ends the guest as pulling the plug does; returns once its threads have ended.
    ///
    /// # Errors
    /// The state does not allow it.
    fn stop(&self) -> Result<(), IllegalTransition>;

    /// Blocks until the machine has stopped, and says why.
    fn wait(&self) -> StopReason;

    /// What the machine has used so far.
    fn stats(&self) -> Stats;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_drawn_arrows_exist() {
        use State::*;
        let states = [Created, Running, Paused, Stopped];
        let verbs = [Verb::Start, Verb::Pause, Verb::Resume, Verb::Stop];
        let legal: Vec<_> =
            states.iter().flat_map(|s| verbs.iter().filter_map(move |v| Some((*s, s.after(*v).ok()?)))).collect();
        assert_eq!(
            legal,
            [
                (Created, Running),
                (Created, Stopped),
                (Running, Paused),
                (Running, Stopped),
                (Paused, Running),
                (Paused, Stopped)
            ]
        );
        assert_eq!(Stopped.after(Verb::Pause).unwrap_err().to_string(), "cannot pause a machine that is stopped");
    }
}
