//! When to collect what: the driver of both collectors, sizes of the spaces, and the log.

use std::sync::atomic::Ordering;

use super::{
    Buffer, Cause, Full, Heap, OutOfMemory, Record, Roots, SPACES, Scope, State, UNIT, Usage, full, tables, verify,
    young,
};
use crate::services::system::process_times;

impl Heap {
    /// Makes room for a request that was refused, by as much collection as it takes. All threads stand still.
    ///
    /// # Errors
    /// If even a full collection that clears all soft references finds no room.
    pub fn make_room(&self, request: Full, roots: &mut dyn Roots) -> Result<(), OutOfMemory> {
        let state = &mut *self.state();
        if self.options.stress != 0 && self.stress_left.load(Ordering::Relaxed) <= 0 {
            self.stress_left.store(i64::from(self.options.stress), Ordering::Relaxed);
            if self.collections.load(Ordering::Relaxed).is_multiple_of(4) || !self.young_is_safe(state) {
                self.run(Scope::Full, Cause::Stress, false, state, roots);
            } else {
                self.run(Scope::Young, Cause::Stress, false, state, roots);
            }
        }
        if request.collections != self.collections.load(Ordering::Relaxed) && self.has_room(request.size, false) {
            return Ok(());
        }
        if self.young_is_safe(state) && !self.is_large(request.size) {
            self.run(Scope::Young, Cause::AllocationFailure, false, state, roots);
            if self.has_room(request.size, false) {
                return Ok(());
            }
        }
        for clear_soft in [false, true] {
            self.run(Scope::Full, Cause::AllocationFailure, clear_soft, state, roots);
            if self.has_room(request.size, true) {
                return Ok(());
            }
        }
        Err(OutOfMemory)
    }

    /// Collects everything. All threads stand still.
    pub fn collect(&self, cause: Cause, roots: &mut dyn Roots) {
        let state = &mut *self.state();
        self.run(Scope::Full, cause, false, state, roots);
    }

    /// Whether so much can be allocated now; if not, `grow` says that old space may take more of its range.
    fn has_room(&self, size: usize, grow: bool) -> bool {
        if !self.is_large(size) {
            return size <= self.eden_end.load(Ordering::Relaxed).saturating_sub(self.eden_top.load(Ordering::Relaxed));
        }
        let top = self.old_top.load(Ordering::Relaxed);
        if size > self.old_end - top {
            return false;
        }
        if size > self.old_limit.load(Ordering::Relaxed).saturating_sub(top) {
            if !grow {
                return false;
            }
            self.old_limit.store((top + size).next_multiple_of(UNIT).min(self.old_end), Ordering::Relaxed);
        }
        true
    }

    /// Whether what a young collection promotes will likely find room in old space.
    fn young_is_safe(&self, state: &State) -> bool {
        let room = self.old_end - self.old_top.load(Ordering::Relaxed);
        !state.crowded && room >= state.promoted_average.min(self.young_used(state))
    }

    pub(super) fn young_used(&self, state: &State) -> usize {
        self.eden_top.load(Ordering::Relaxed) - self.eden_start + state.from_top - self.survivors[state.from]
    }

    fn used_by(&self, state: &State) -> usize {
        self.old_top.load(Ordering::Relaxed) - self.old_start + self.young_used(state)
    }

    pub(super) fn run(&self, scope: Scope, cause: Cause, clear_soft: bool, state: &mut State, roots: &mut dyn Roots) {
        roots.buffers(&mut |buffer| *buffer = Buffer::default());
        if self.options.verify {
            verify::verify(self, state, roots);
        }
        self.run_one(scope, cause, clear_soft, state, roots);
        // Objects that found no place are left where they were; and what has outgrown its capacity is collected.
        let outgrown = self.old_top.load(Ordering::Relaxed) > self.old_limit.load(Ordering::Relaxed);
        if scope == Scope::Young && (state.crowded || outgrown) {
            self.run_one(Scope::Full, cause, clear_soft, state, roots);
        }
        if self.options.verify {
            verify::verify(self, state, roots);
        }
    }

    fn run_one(&self, scope: Scope, cause: Cause, clear_soft: bool, state: &mut State, roots: &mut dyn Roots) {
        let begin = self.clock.now_ns();
        let cpu = self.options.log.map(|_| process_times());
        let before = self.used_by(state);
        let usage_before = self.usage_in(state);
        state.history.begin(&usage_before);
        let number = self.collections.load(Ordering::Relaxed);
        let name = if scope == Scope::Young { "Young" } else { "Full" };
        self.log("gc,start", || format!("GC({number}) Pause {name} ({})", cause.text()));
        let soft_limit = if clear_soft { -1 } else { self.soft_limit_ms(begin) };
        match scope {
            Scope::Young => young::collect(self, state, soft_limit, roots),
            Scope::Full => {
                full::collect(self, state, soft_limit, roots);
                self.resize(state);
            }
        }
        let after = self.used_by(state);
        self.used_after.store(after, Ordering::Relaxed);
        self.collections.fetch_add(1, Ordering::Relaxed);
        let end = self.clock.now_ns();
        roots.soft_clock(i64::try_from(end / 1_000_000).unwrap_or(i64::MAX));
        let statistics = &mut state.statistics;
        let (count, total) = match scope {
            Scope::Young => (&mut statistics.young_count, &mut statistics.young_ns),
            Scope::Full => (&mut statistics.full_count, &mut statistics.full_ns),
        };
        *count += 1;
        *total += end - begin;
        statistics.pause_ns_max = statistics.pause_ns_max.max(end - begin);
        let of_scope = *count;
        let usage = [usage_before, self.usage_in(state)];
        state.history.end(Record { scope, cause, number: of_scope, time_ns: [begin, end], usage });
        self.log_spaces(number, &usage);
        self.log("gc", || {
            let capacity = self.capacity();
            let us = (end - begin) / 1000;
            format!(
                "GC({number}) Pause {name} ({}) {}M->{}M({}M) {}.{:03}ms",
                cause.text(),
                before >> 20,
                after >> 20,
                capacity >> 20,
                us / 1000,
                us % 1000
            )
        });
        if let Some(before) = cpu {
            self.log("gc,cpu", || {
                let now = process_times();
                #[allow(clippy::cast_precision_loss, reason = "for people")]
                let seconds = |ns: u64| ns as f64 / 1e9;
                let [user, system] = [0, 1].map(|at| seconds(now[at].saturating_sub(before[at])));
                format!("GC({number}) User={user:.2}s Sys={system:.2}s Real={:.2}s", seconds(end - begin))
            });
        }
    }

    /// What each space had before and has now, as HotSpot's serial collector tells it.
    fn log_spaces(&self, number: u32, usage: &[[Usage; SPACES]; 2]) {
        let space = |index: usize| {
            let (before, after) = (usage[0][index], usage[1][index]);
            let kib = |bytes: usize| bytes >> 10;
            let (used, now) = (kib(before.used), kib(after.used));
            format!("{used}K({}K)->{now}K({}K)", kib(before.committed), kib(after.committed))
        };
        let sum = |at: usize| Usage {
            used: usage[at][0].used + usage[at][1].used,
            committed: usage[at][0].committed + usage[at][1].committed,
            ..Usage::default()
        };
        let (before, after) = (sum(0), sum(1));
        self.log("gc,heap", || {
            let young = [before.used, before.committed, after.used, after.committed].map(|bytes| bytes >> 10);
            let [used, committed, now, capacity] = young;
            format!(
                "GC({number}) DefNew: {used}K({committed}K)->{now}K({capacity}K) Eden: {} From: {}",
                space(0),
                space(1)
            )
        });
        self.log("gc,heap", || format!("GC({number}) Tenured: {}", space(2)));
        // All metadata is of one kind.
        let class = "0K(0K)->0K(0K)";
        self.log("gc,metaspace", || format!("GC({number}) Metaspace: {0} NonClass: {0} Class: {class}", space(3)));
    }

    /// The timestamp below which soft references are cleared: the more room there is, the longer they live.
    fn soft_limit_ms(&self, now_ns: u64) -> i64 {
        let free_mb = self.maximum().saturating_sub(self.used_after.load(Ordering::Relaxed)) >> 20;
        let lifetime = self.options.soft_ms_per_mb.saturating_mul(free_mb as u64);
        // A timestamp is never negative; -1 stands for clearing all of them.
        i64::try_from((now_ns / 1_000_000).saturating_sub(lifetime)).unwrap_or(i64::MAX)
    }

    /// After a full collection: capacities that leave 40 % of old space free, and young space half as large; memory beyond that goes back to the host.
    fn resize(&self, state: &mut State) {
        let old_used = self.old_top.load(Ordering::Relaxed) - self.old_start;
        let old_max = self.old_end - self.old_start;
        let wanted = (old_used / 60 * 100).next_multiple_of(UNIT).clamp(self.old_initial, old_max);
        self.old_limit.store(self.old_start + wanted, Ordering::Relaxed);
        let young = (wanted / 2).next_multiple_of(UNIT).clamp(self.young_initial, self.young_max);
        let eden_top = self.eden_top.load(Ordering::Relaxed);
        let eden_end = (self.eden_start + self.eden_size(young)).max(eden_top.min(self.survivors[0]));
        self.eden_end.store(eden_end, Ordering::Relaxed);
        state.crowded = eden_top > self.survivors[0];
        give_back(self.old_start + wanted, self.old_end);
        if !state.crowded {
            give_back(eden_end, self.survivors[0]);
        }
    }
}

/// Gives memory that no object is in back to the host.
fn give_back(start: usize, end: usize) {
    let start = start.next_multiple_of(UNIT);
    if start < end {
        // SAFETY: free parts of the heap have no references to them, and are zeroed before they are used. Should the host refuse, memory stays in use.
        let _ = unsafe { machine::sys::discard_at(start, end - start) };
    }
}

/// Marks all cards of old space, or none.
pub(super) fn set_cards(heap: &Heap, marked: bool) {
    // SAFETY: the world stands still, and the slice ends here.
    unsafe { tables::cards(heap.old_start, heap.old_top.load(Ordering::Relaxed)) }.fill(u8::from(marked));
}
