//! What the spaces have and had, and what the last collections did: for `java.lang.management` and the log.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::{Cause, Heap, Scope, State};
use crate::arena::{self, Chunks};

/// How many spaces there are.
pub const SPACES: usize = 5;

/// A space, by the name that the beans of HotSpot's serial collector have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// "Eden Space"
    Eden,
    /// "Survivor Space": one of the two.
    Survivor,
    /// "Tenured Gen"
    Tenured,
    /// "Metaspace": classes and what belongs to them, which is not in the heap.
    Metaspace,
    /// "CodeCache": there is no compiled code.
    CodeCache,
}

impl Space {
    /// All of them, in the order of the beans.
    pub const ALL: [Self; SPACES] = [Self::Eden, Self::Survivor, Self::Tenured, Self::Metaspace, Self::CodeCache];
}

/// Bytes of a space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// At the start.
    pub initial: usize,
    /// That objects take, dead ones included.
    pub used: usize,
    /// That may be used at present.
    pub committed: usize,
    /// That may be used at most; `None`: as many as there are.
    pub maximum: Option<usize>,
}

/// A collection.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// What was collected.
    pub scope: Scope,
    /// Why.
    pub cause: Cause,
    /// Its number among those of its scope, from 1 on.
    pub number: u64,
    /// When it began and ended, by the heap's clock.
    pub time_ns: [u64; 2],
    /// What the spaces had before and after, in the order of [`Space::ALL`].
    pub usage: [[Usage; SPACES]; 2],
}

/// Records that nobody has taken yet, at most.
const NOTICES_MAX: usize = 1024;

/// What is remembered between collections.
#[derive(Debug, Default)]
pub(super) struct History {
    peaks: [Usage; SPACES],
    after: [Usage; SPACES],
    /// The last young and the last full collection.
    last: [Option<Record>; 2],
    /// Whether somebody takes records.
    noticed: bool,
    notices: VecDeque<Record>,
}

impl History {
    fn note_peaks(&mut self, usage: &[Usage; SPACES]) {
        for (peak, usage) in self.peaks.iter_mut().zip(usage) {
            if usage.used >= peak.used {
                *peak = *usage;
            }
        }
    }

    pub(super) fn begin(&mut self, usage: &[Usage; SPACES]) {
        self.note_peaks(usage);
    }

    pub(super) fn end(&mut self, record: Record) {
        let after = &record.usage[1];
        self.note_peaks(after);
        let collected = if record.scope == Scope::Young { 2 } else { 3 };
        self.after[..collected].copy_from_slice(&after[..collected]);
        self.last[usize::from(record.scope == Scope::Full)] = Some(record);
        if self.noticed && self.notices.len() < NOTICES_MAX {
            self.notices.push_back(record);
        }
    }
}

impl Heap {
    pub(super) fn usage_in(&self, state: &State) -> [Usage; SPACES] {
        let eden = self.eden_capacity();
        let survivor = state.from_top - self.survivors[state.from];
        let old = self.old_top.load(Ordering::Relaxed);
        let limit = self.old_limit.load(Ordering::Relaxed).max(old);
        let initial = self.eden_size(self.young_initial);
        [
            Usage {
                initial,
                used: self.eden_top.load(Ordering::Relaxed) - self.eden_start,
                committed: eden,
                maximum: Some(self.young_max - 2 * self.survivor_size),
            },
            Usage {
                initial: initial / 8,
                used: survivor,
                committed: (eden / 8).max(survivor).min(self.survivor_size),
                maximum: Some(self.survivor_size),
            },
            Usage {
                initial: self.old_initial,
                used: old - self.old_start,
                committed: limit - self.old_start,
                maximum: Some(self.old_end - self.old_start),
            },
            Usage { initial: 0, used: Chunks::used(), committed: Chunks::committed(), maximum: arena::limit() },
            Usage { maximum: Some(0), ..Usage::default() },
        ]
    }

    /// What a space has.
    pub fn usage(&self, space: Space) -> Usage {
        self.usage_in(&self.state())[space as usize]
    }

    /// The most that a space had since the start, or since [`Heap::forget_peak`].
    pub fn peak(&self, space: Space) -> Usage {
        let state = &mut *self.state();
        let usage = self.usage_in(state);
        state.history.note_peaks(&usage);
        state.history.peaks[space as usize]
    }

    /// Begins to look for a space's peak anew.
    pub fn forget_peak(&self, space: Space) {
        let state = &mut *self.state();
        state.history.peaks[space as usize] = self.usage_in(state)[space as usize];
    }

    /// What a space had after it was last collected; nothing before it ever was.
    pub fn after_collection(&self, space: Space) -> Usage {
        self.state().history.after[space as usize]
    }

    /// The last collection of a scope.
    pub fn last(&self, scope: Scope) -> Option<Record> {
        self.state().history.last[usize::from(scope == Scope::Full)]
    }

    /// From now on every collection is to be taken by [`Heap::take_notice`], or none is.
    pub fn notice(&self, noticed: bool) {
        let history = &mut self.state().history;
        history.noticed = noticed;
        if !noticed {
            history.notices.clear();
        }
    }

    /// The first collection that was not taken yet.
    pub fn take_notice(&self) -> Option<Record> {
        self.state().history.notices.pop_front()
    }
}
