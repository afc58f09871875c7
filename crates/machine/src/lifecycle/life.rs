//! The life of a machine that one thread, its *driver*, takes through it: what everyone may read of it, and how verbs come to the driver.
//!
//! ```text
//! verb --> [`Life::ask`] --- by the machine's own queue ---> driver: [`Life::obey`] --> answer
//!                                                              |
//! [`Machine::state`], [`Machine::wait`] <---- [`Life`] <-------+ [`Life::enter`], [`Life::end`]
//! ```
//!
//! Invariants: only the driver writes; a reason once given stays; whoever waits for an end, or for an answer, hears of it also when the driver is gone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use super::{IllegalTransition, Machine, State, Stats, StopReason, Verb};

struct Progress {
    state: State,
    reason: Option<StopReason>,
    resets_count: u64,
}

/// Where a machine is in its life. See the [module](super).
pub struct Life {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Default for Life {
    fn default() -> Self {
        let progress = Progress { state: State::Created, reason: None, resets_count: 0 };
        Self { progress: Mutex::new(progress), changed: Condvar::new() }
    }
}

/// A verb on its way to the driver, and whoever waits for the answer.
#[derive(Debug)]
pub struct Asked {
    /// What is asked for.
    pub verb: Verb,
    answer: mpsc::Sender<Result<(), IllegalTransition>>,
}

impl Asked {
    /// Tells whoever has asked; they may have gone.
    pub fn answer(self, result: Result<(), IllegalTransition>) {
        let _ = self.answer.send(result);
    }
}

impl Life {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Three plain values, right between any two statements.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the machine is.
    #[must_use]
    pub fn state(&self) -> State {
        self.progress().state
    }

    /// How often the guest has been reset.
    #[must_use]
    pub fn resets_count(&self) -> u64 {
        self.progress().resets_count
    }

    /// Asks for `verb`, which `hand` hands to the driver if it still takes anything, and waits for what becomes of it.
    ///
    /// # Errors
    /// The state does not allow it.
    pub fn ask(verb: Verb, hand: impl FnOnce(Asked) -> bool) -> Result<(), IllegalTransition> {
        let (answer, answers) = mpsc::channel();
        let stopped = IllegalTransition { state: State::Stopped, verb };
        if !hand(Asked { verb, answer }) {
            return Err(stopped);
        }
        answers.recv().unwrap_or(Err(stopped))
    }

    /// The driver does what is asked, if the state allows it: `perform` gets the verb and the state to enter, and has it [entered](Self::enter). The answer
    /// goes out when that is done.
    pub fn obey(&self, asked: Asked, perform: impl FnOnce(Verb, State)) {
        let next = self.state().after(asked.verb);
        if let Ok(next) = next {
            perform(asked.verb, next);
        }
        asked.answer(next.map(drop));
    }

    /// The machine is in `state` now.
    pub fn enter(&self, state: State) {
        self.progress().state = state;
    }

    /// The guest has been reset.
    pub fn note_reset(&self) {
        self.progress().resets_count += 1;
    }

    /// The machine has stopped; of several reasons the first counts.
    pub fn end(&self, reason: StopReason) {
        let mut progress = self.progress();
        progress.state = State::Stopped;
        progress.reason.get_or_insert(reason);
        self.changed.notify_all();
    }

    /// Waits until the machine has stopped, and says why.
    #[must_use]
    pub fn wait(&self) -> StopReason {
        let mut progress = self.progress();
        loop {
            if let Some(reason) = &progress.reason {
                return reason.clone();
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A machine that a driver takes through its [`Life`]: a [`Machine`] by that.
pub trait Driven: Send + Sync {
    /// Its life.
    fn life(&self) -> &Life;

    /// Hands a verb to the driver. False if that takes none any more, since the machine has stopped.
    fn hand(&self, asked: Asked) -> bool;

    /// What it has used so far, but for the number of resets.
    fn used(&self) -> Stats;
}

impl<T: Driven> Machine for T {
    fn state(&self) -> State {
        self.life().state()
    }

    fn start(&self) -> Result<(), IllegalTransition> {
        Life::ask(Verb::Start, |asked| self.hand(asked))
    }

    fn pause(&self) -> Result<(), IllegalTransition> {
        Life::ask(Verb::Pause, |asked| self.hand(asked))
    }

    fn resume(&self) -> Result<(), IllegalTransition> {
        Life::ask(Verb::Resume, |asked| self.hand(asked))
    }

    fn stop(&self) -> Result<(), IllegalTransition> {
        Life::ask(Verb::Stop, |asked| self.hand(asked))
    }

    fn wait(&self) -> StopReason {
        self.life().wait()
    }

    fn stats(&self) -> Stats {
        Stats { resets_count: self.life().resets_count(), ..self.used() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    struct Minimal {
        life: Arc<Life>,
        queue: mpsc::Sender<Asked>,
    }

    impl Minimal {
        fn new() -> Self {
            let (queue, asked) = mpsc::channel::<Asked>();
            let life = Arc::new(Life::default());
            let theirs = Arc::clone(&life);
            thread::spawn(move || {
                for asked in asked {
                    theirs.obey(asked, |verb, next| match verb {
                        Verb::Stop => theirs.end(StopReason::Requested),
                        _ => theirs.enter(next),
                    });
                    if theirs.state() == State::Stopped {
                        return;
                    }
                }
            });
            Self { life, queue }
        }
    }

    impl Driven for Minimal {
        fn life(&self) -> &Life {
            &self.life
        }

        fn hand(&self, asked: Asked) -> bool {
            self.queue.send(asked).is_ok()
        }

        fn used(&self) -> Stats {
            Stats { time_ns: 7, ..Stats::default() }
        }
    }

    #[test]
    fn a_driver_is_asked_and_answers() {
        let machine = Minimal::new();
        assert_eq!(machine.resume(), Err(IllegalTransition { state: State::Created, verb: Verb::Resume }));
        machine.start().unwrap();
        machine.pause().unwrap();
        assert_eq!(machine.state(), State::Paused);
        machine.resume().unwrap();
        machine.life.note_reset();
        assert_eq!(machine.stats(), Stats { time_ns: 7, resets_count: 1, ..Stats::default() });
        machine.stop().unwrap();
        assert_eq!(machine.wait(), StopReason::Requested);
        machine.life.end(StopReason::PowerOff(3));
        assert_eq!(machine.wait(), StopReason::Requested, "the first reason counts");
        // Also without a driver.
        assert_eq!(machine.start(), Err(IllegalTransition { state: State::Stopped, verb: Verb::Start }));
    }
}
