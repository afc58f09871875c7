//! The gate that processors pass to run guest instructions: how a machine is made to stand still.
//!
//! A hart's thread runs the guest only between [`Gate::enter`] and the drop of the [`Pass`] that it gives. Closing the gate asks every hart
//! for attention and returns when none is inside; each stands at a safe point then, where its state is all in its registers.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    open: bool,
    /// Requests of the guest to end or restart that the driver has not yet seen to; until then no hart passes, open or not.
    holds_count: usize,
    ended: bool,
    inside_count: usize,
    /// The harts that do not pass, open or not.
    staying: Vec<usize>,
}

/// See the [module](self). Closed at first.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// Leave to run guest instructions, until it is dropped.
#[derive(Debug)]
pub struct Pass<'a> {
    gate: &'a Gate,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.inside_count -= 1;
        if state.inside_count == 0 {
            self.gate.changed.notify_all();
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is some plain values, right between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Hart `id` waits for the gate to open. `None` when it never will again.
    #[must_use]
    pub fn enter(&self, id: usize) -> Option<Pass<'_>> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if state.open && state.holds_count == 0 && !state.staying.contains(&id) {
                state.inside_count += 1;
                return Some(Pass { gate: self });
            }
            state = self.wait(state);
        }
    }

    /// The thread of all `count` harts waits for the gate to open for one of them; with the harts that do not pass. `None` when it never will again.
    #[must_use]
    pub fn enter_any(&self, count: usize) -> Option<(Pass<'_>, Vec<usize>)> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if state.open && state.holds_count == 0 && state.staying.len() < count {
                state.inside_count += 1;
                return Some((Pass { gate: self }, state.staying.clone()));
            }
            state = self.wait(state);
        }
    }

    /// Whether those inside may stay there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let state = self.lock();
        state.open && state.holds_count == 0
    }

    /// Lets harts pass.
    pub fn open(&self) {
        self.lock().open = true;
        self.changed.notify_all();
    }

    /// From now on these harts do not pass; those inside are not asked to leave.
    pub fn set_staying(&self, staying: Vec<usize>) {
        self.lock().staying = staying;
        self.changed.notify_all();
    }

    /// Lets no hart pass until [`Self::release`], whoever opens the gate meanwhile; does not wait for those inside.
    pub fn hold(&self) {
        self.lock().holds_count += 1;
    }

    /// Undoes one [`Self::hold`].
    pub fn release(&self) {
        self.lock().holds_count -= 1;
        self.changed.notify_all();
    }

    /// Lets no hart pass, calls `attention`, which has to make those inside leave, and waits until they have.
    pub fn close(&self, attention: impl FnOnce()) {
        self.lock().open = false;
        attention();
        let mut state = self.lock();
        while state.inside_count > 0 {
            state = self.wait(state);
        }
    }

    /// Sends those who wait away for good.
    pub fn end(&self) {
        let mut state = self.lock();
        state.open = false;
        state.ended = true;
        self.changed.notify_all();
    }
}
