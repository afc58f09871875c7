//! Hart states of the SBI (chapter 9): which harts run, and how one hart starts another.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sbi::Error;

/// How a hart begins: its first instruction and what it finds in `a1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: u64,
    pub(super) opaque: u64,
}

/// The state of a hart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HartState {
    Started,
    Stopped,
    StartPending(Entry),
    Suspended,
}

impl HartState {
    /// The number of `sbi_hart_get_status`.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Started => 0,
            Self::Stopped => 1,
            Self::StartPending(_) => 2,
            Self::Suspended => 4,
        }
    }
}

/// The state of one hart, as other harts see it.
#[derive(Debug)]
pub(super) struct Lifecycle(Mutex<HartState>);

impl Lifecycle {
    pub(super) fn new(state: HartState) -> Self {
        Self(Mutex::new(state))
    }

    fn lock(&self) -> MutexGuard<'_, HartState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> HartState {
        *self.lock()
    }

    pub(super) fn set(&self, state: HartState) {
        *self.lock() = state;
    }

    /// Asks a stopped hart to start at `entry`.
    pub(super) fn request_start(&self, entry: Entry) -> Result<(), Error> {
        let mut state = self.lock();
        if *state != HartState::Stopped {
            return Err(Error::AlreadyAvailable);
        }
        *state = HartState::StartPending(entry);
        Ok(())
    }

    /// If the hart was asked to start: it has, from this entry.
    pub(super) fn take_start(&self) -> Option<Entry> {
        let mut state = self.lock();
        match *state {
            HartState::StartPending(entry) => {
                *state = HartState::Started;
                Some(entry)
            }
            _ => None,
        }
    }
}
