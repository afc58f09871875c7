//! What a process does with each signal: `rt_sigaction`.
//!
//! The guest's table is the truth about handlers; the host's dispositions follow it, so that default actions, ignored signals and what a new
//! program inherits are the kernel's own business. Two are this machine's alone, since faults of translated code come by them: SIGSEGV and SIGBUS.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::host::{Disposition, FAULTS, bit, is_ignored, set_disposition};

/// How many signals there are; the first is 1.
pub const SIGNALS: u32 = 64;

/// `SA_NODEFER`: the signal is not blocked in its own handler.
pub const SA_NODEFER: u64 = 0x4000_0000;
/// `SA_RESETHAND`: back to the default once caught.
pub const SA_RESETHAND: u64 = 0x8000_0000;
/// `SA_ONSTACK`: on the alternate stack.
pub const SA_ONSTACK: u64 = 0x0800_0000;
/// `SA_RESTART`: interrupted calls are repeated.
pub const SA_RESTART: u64 = 0x1000_0000;

/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;

const SIGKILL: u32 = 9;
const SIGSTOP: u32 = 19;
const UNCATCHABLE: u64 = bit(SIGKILL) | bit(SIGSTOP);

/// The kernel's `struct sigaction` on riscv64: no restorer, since the vdso has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// [`DEFAULT`], [`IGNORE`], or the handler's address.
    pub handler: u64,
    /// `SA_` flags.
    pub flags: u64,
    /// What is blocked while the handler runs.
    pub mask: u64,
}

impl Action {
    /// Bytes of `struct sigaction`.
    pub const SIZE: usize = 24;

    /// Whether the guest has a handler.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.handler > IGNORE
    }

    /// Reads `struct sigaction`. `SIGKILL` and `SIGSTOP` cannot be in the mask.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        Self { handler: field(0), flags: field(8), mask: field(16) & !UNCATCHABLE }
    }

    /// Writes `struct sigaction`.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        for (field, value) in bytes.chunks_exact_mut(8).zip([self.handler, self.flags, self.mask]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

/// The actions of one process.
#[derive(Debug)]
pub struct Actions(Mutex<[Action; SIGNALS as usize]>);

fn index(signal: u32) -> Option<usize> {
    (1..=SIGNALS).contains(&signal).then(|| signal as usize - 1)
}

impl Actions {
    /// As a program finds them: all default, but for those that the process itself was started with ignored.
    #[must_use]
    pub fn inherited() -> Self {
        let mut actions = [Action::default(); SIGNALS as usize];
        for (signal, action) in (1..).zip(&mut actions) {
            if is_ignored(signal) {
                action.handler = IGNORE;
            }
        }
        Self(Mutex::new(actions))
    }

    /// A copy, for a new process.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Mutex::new(*self.lock()))
    }

    /// Holds the table, so that a fork does not copy it half changed.
    pub fn lock(&self) -> MutexGuard<'_, [Action; SIGNALS as usize]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is done with `signal`; the default for numbers that are none.
    #[must_use]
    pub fn get(&self, signal: u32) -> Action {
        index(signal).map_or_else(Action::default, |index| self.lock()[index])
    }

    /// Replaces the action of `signal`, if there is a new one, and answers the old one.
    ///
    /// # Errors
    /// `EINVAL`, negative, for numbers that are none, and for changes to `SIGKILL` and `SIGSTOP`.
    pub fn exchange(&self, signal: u32, new: Option<Action>) -> Result<Action, i64> {
        let error = -i64::from(libc::EINVAL);
        let index = index(signal).ok_or(error)?;
        let mut actions = self.lock();
        let old = actions[index];
        if let Some(new) = new {
            if bit(signal) & UNCATCHABLE != 0 {
                return Err(error);
            }
            // Both under the lock, or two threads could leave the host with what the guest has not.
            if bit(signal) & FAULTS == 0 {
                set_disposition(signal, Self::disposition(new))?;
            }
            actions[index] = new;
        }
        Ok(old)
    }

    fn disposition(action: Action) -> Disposition {
        match action.handler {
            DEFAULT => Disposition::Default,
            IGNORE => Disposition::Ignore,
            _ => Disposition::Record { flags: action.flags },
        }
    }

    /// Every handler is gone; what is ignored stays so: `CLONE_CLEAR_SIGHAND`.
    pub fn clear(&self) {
        for signal in 1..=SIGNALS {
            if self.get(signal).is_caught() {
                // Cannot fail: the signal has a handler.
                let _ = self.exchange(signal, Some(Action::default()));
            }
        }
    }

    /// Takes the action for a signal that is being delivered: with `SA_RESETHAND` the default comes back.
    #[must_use]
    pub fn take(&self, signal: u32) -> Action {
        let action = self.get(signal);
        if action.is_caught() && action.flags & SA_RESETHAND != 0 {
            // Cannot fail: the signal has a handler.
            let _ = self.exchange(signal, Some(Action { handler: DEFAULT, ..action }));
        }
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_three_fields() {
        let action = Action { handler: 0x1234, flags: SA_RESTART, mask: 0b1000_0000_0001 };
        assert_eq!(Action::parse(&action.to_bytes()), action);
        let all = Action { mask: u64::MAX, ..action };
        assert_eq!(Action::parse(&all.to_bytes()).mask, !UNCATCHABLE);
    }

    #[test]
    fn some_signals_are_nobodys() {
        let actions = Actions::inherited();
        let caught = Action { handler: 0x1000, ..Action::default() };
        for signal in [0, 9, 19, 65, u32::MAX] {
            assert_eq!(actions.exchange(signal, Some(caught)), Err(-i64::from(libc::EINVAL)), "{signal}");
        }
        // Asking is allowed.
        assert_eq!(actions.exchange(9, None), Ok(Action::default()));
    }

    #[test]
    fn one_shot_actions_are_gone_once_taken() {
        let actions = Actions::inherited();
        let once = Action { handler: 0x1000, flags: SA_RESETHAND, mask: 0 };
        actions.exchange(63, Some(once)).unwrap();
        assert_eq!(actions.take(63), once);
        assert_eq!(actions.take(63).handler, DEFAULT);
    }
}
