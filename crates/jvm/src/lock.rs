//! The mechanism of Java's monitors: thin locks in the mark word, and inflated ones where threads meet.
//!
//! ```text
//!   free --enter--> thin: owner, recursion --contention, wait, 256 entries more--> inflated: index of a monitor
//!    ^--exit (last)--'                                                                |
//!    ^----------------- the world is stopped, and nobody uses the monitor ------------'
//! ```
//!
//! A mark word is only changed by compare and exchange, so that hash, age and lock do not overwrite each other. Any thread may inflate any object: the
//! monitor begins with the state of the thin lock. Threads that wait for each other do so as safe threads ([`crate::safepoint`]): the collector may move the
//! object meanwhile, which the monitor knows as a weak root.
//!
//! Cost: entering and leaving a free or own lock is one locked instruction each; an inflated one costs a mutex.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machine::clock::Clock;

use crate::object::{MARK_HASH_SHIFT, MARK_OWNER_SHIFT, MARK_RECURSION_SHIFT, MARK_STATE, Reference};
use crate::safepoint::{Control, Status};

const INFLATED: u64 = 1;
const RECURSION_MAX: u64 = 255;
const LOCK_BITS: u64 = 0x00FF_FFFF << MARK_OWNER_SHIFT;
/// How many monitors there can be: what 24 bits reach.
const MONITORS_MAX: usize = 1 << 24;
/// How often a thread looks again before it sleeps.
const SPINS: u32 = 60;

/// What a thread sleeps on: in `park`, in `wait`, in `sleep`.
#[derive(Debug, Default)]
pub struct Parker {
    /// Whether `unpark` was called since the last `park`.
    permit: Mutex<bool>,
    signal: Condvar,
    /// Whether `interrupt` was called.
    pub interrupted: AtomicBool,
}

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);

/// A time on the clock of sleeping threads, in nanoseconds; `None`: never.
fn deadline(timeout: Option<Duration>) -> Option<u64> {
    let nanos = u64::try_from(timeout?.as_nanos()).unwrap_or(u64::MAX);
    CLOCK.now_ns().checked_add(nanos)
}

impl Parker {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until `done` or the deadline; whether it was `done`. Whoever makes it so calls [`Parker::wake`].
    fn sleep_until(&self, end: Option<u64>, mut done: impl FnMut(&mut bool) -> bool) -> bool {
        let mut permit = self.lock();
        loop {
            if done(&mut permit) {
                return true;
            }
            let Some(end) = end else {
                permit = self.signal.wait(permit).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = CLOCK.now_ns();
            if now >= end {
                return false;
            }
            permit = self
                .signal
                .wait_timeout(permit, Duration::from_nanos(end - now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wake(&self) {
        drop(self.lock());
        self.signal.notify_all();
    }

    /// `LockSupport.park`: returns at once if there is a permit, which it takes, or the thread is interrupted.
    pub fn park(&self, timeout: Option<Duration>) {
        self.sleep_until(deadline(timeout), |permit| {
            std::mem::take(permit) || self.interrupted.load(Ordering::Acquire)
        });
        *self.lock() = false;
    }

    /// `LockSupport.unpark`
    pub fn unpark(&self) {
        *self.lock() = true;
        self.signal.notify_all();
    }

    /// `Thread.interrupt`: ends `sleep` and `wait`, and gives a permit.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        self.unpark();
    }

    /// `Thread.sleep`; whether it was interrupted, which is then forgotten.
    pub fn sleep(&self, timeout: Duration) -> bool {
        self.sleep_until(deadline(Some(timeout)), |_| self.interrupted.load(Ordering::Acquire));
        self.interrupted.swap(false, Ordering::AcqRel)
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// By `notify`.
    Notified,
    /// Its time was over.
    TimedOut,
    /// By `interrupt`, which is forgotten: `InterruptedException`.
    Interrupted,
}

/// The thread does not hold the lock: `IllegalMonitorStateException`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("current thread is not owner")]
pub struct NotOwner;

#[derive(Debug)]
struct Waiter {
    notified: AtomicBool,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the thread that holds it; 0: none.
    owner: u16,
    /// How often it entered.
    entries: u32,
    /// Threads that want it, also those that wait to be notified.
    contenders: u32,
    waiters: VecDeque<Arc<Waiter>>,
}

/// An inflated lock. Monitors are used again, and never freed.
#[derive(Debug, Default)]
struct Monitor {
    /// The object, as the collector knows it; 0: nobody's.
    object: AtomicU32,
    state: Mutex<State>,
    free: Condvar,
}

struct Table {
    monitors: Box<[AtomicPtr<Monitor>]>,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    used: usize,
    free: Vec<usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // SAFETY: a null pointer is all zeroes; so many zeroes take no memory until they are touched.
    let monitors = unsafe { Box::<[AtomicPtr<Monitor>]>::new_zeroed_slice(MONITORS_MAX).assume_init() };
    Table { monitors, pool: Mutex::default() }
});

impl Table {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, index: usize) -> &'static Monitor {
        let monitor = self.monitors[index].load(Ordering::Acquire);
        // SAFETY: an index that was given out has a monitor, which is never freed.
        unsafe { &*monitor }
    }

    fn take(&self) -> usize {
        let mut pool = self.pool();
        pool.free.pop().unwrap_or_else(|| {
            let index = pool.used;
            assert!(index < MONITORS_MAX, "2^24 monitors are in use");
            self.monitors[index].store(Box::into_raw(Box::default()), Ordering::Release);
            pool.used += 1;
            index
        })
    }

    fn give(&self, index: usize) {
        self.get(index).object.store(0, Ordering::Relaxed);
        self.pool().free.push(index);
    }
}

fn owner(mark: u64) -> u16 {
    #[allow(clippy::cast_possible_truncation, reason = "16 bits")]
    {
        (mark >> MARK_OWNER_SHIFT) as u16
    }
}

fn recursion(mark: u64) -> u64 {
    mark >> MARK_RECURSION_SHIFT & RECURSION_MAX
}

fn monitor_index(mark: u64) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "24 bits")]
    {
        ((mark & LOCK_BITS) >> MARK_OWNER_SHIFT) as usize
    }
}

fn monitor(mark: u64) -> &'static Monitor {
    TABLE.get(monitor_index(mark))
}

impl Monitor {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters, or becomes a contender.
    fn try_enter(&self, id: u16) -> bool {
        let mut state = self.lock();
        if state.owner == id {
            state.entries += 1;
            return true;
        }
        if state.owner == 0 {
            (state.owner, state.entries) = (id, 1);
            return true;
        }
        state.contenders += 1;
        false
    }

    /// Sleeps until a contender may enter. The thread is safe.
    fn enter_contended(&self, id: u16, entries: u32) {
        let mut state = self.lock();
        while state.owner != 0 {
            state = self.free.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.contenders -= 1;
        (state.owner, state.entries) = (id, entries);
    }

    fn release(&self, state: &mut State) {
        state.owner = 0;
        if state.contenders > 0 {
            self.free.notify_one();
        }
    }
}

/// Enters the object's lock. May block, so the object may have moved afterwards.
#[inline]
pub fn enter(control: &Control, object: Reference) {
    if !enter_free(control, object) {
        enter_slow(control, object);
    }
}

/// Enters the object's lock if nobody has it and nobody ever waited for it; whether it did.
#[inline]
pub fn enter_free(control: &Control, object: Reference) -> bool {
    let word = object.mark();
    let old = word.load(Ordering::Relaxed);
    if old & (MARK_STATE | LOCK_BITS) != 0 {
        return false;
    }
    let new = old | u64::from(control.id) << MARK_OWNER_SHIFT;
    word.compare_exchange(old, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// Enters the object's lock unless another thread keeps it; whether it did. Never sleeps.
pub fn try_enter(control: &Control, object: Reference) -> bool {
    let word = object.mark();
    for _ in 0..SPINS {
        let old = word.load(Ordering::Acquire);
        if old & MARK_STATE == INFLATED {
            let mut state = monitor(old).lock();
            if state.owner != 0 && state.owner != control.id {
                return false;
            }
            state.entries = if state.owner == 0 { 1 } else { state.entries + 1 };
            state.owner = control.id;
            return true;
        }
        let new = if owner(old) == control.id {
            if recursion(old) == RECURSION_MAX {
                inflate(object);
                continue;
            }
            old + (1 << MARK_RECURSION_SHIFT)
        } else if owner(old) == 0 {
            old | u64::from(control.id) << MARK_OWNER_SHIFT
        } else {
            std::hint::spin_loop();
            continue;
        };
        if word.compare_exchange(old, new, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return true;
        }
    }
    false
}

#[inline(never)]
fn enter_slow(control: &Control, object: Reference) {
    let word = object.mark();
    let mut spins = 0;
    loop {
        let old = word.load(Ordering::Acquire);
        if old & MARK_STATE == INFLATED {
            let monitor = monitor(old);
            if !monitor.try_enter(control.id) {
                control.show(Status::Blocked);
                control.blocked(|| monitor.enter_contended(control.id, 1));
                control.show(Status::Runnable);
            }
            return;
        }
        if owner(old) == control.id {
            let new = old + (1 << MARK_RECURSION_SHIFT);
            if recursion(old) == RECURSION_MAX {
                inflate(object);
            } else if word.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
        } else if owner(old) == 0 {
            let new = old | u64::from(control.id) << MARK_OWNER_SHIFT;
            if word.compare_exchange(old, new, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
        } else if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            inflate(object);
        }
    }
}

/// Gives an object a monitor that has the state of its thin lock.
fn inflate(object: Reference) -> &'static Monitor {
    let word = object.mark();
    let mut index = None;
    loop {
        let old = word.load(Ordering::Acquire);
        if old & MARK_STATE == INFLATED {
            if let Some(index) = index {
                *TABLE.get(index).lock() = State::default();
                TABLE.give(index);
            }
            return monitor(old);
        }
        let taken = *index.get_or_insert_with(|| TABLE.take());
        let monitor = TABLE.get(taken);
        {
            let mut state = monitor.lock();
            state.owner = owner(old);
            state.entries = if state.owner == 0 { 0 } else { u32::try_from(recursion(old)).unwrap_or(0) + 1 };
        }
        monitor.object.store(object.0, Ordering::Relaxed);
        let new = old & !(LOCK_BITS | MARK_STATE) | (taken as u64) << MARK_OWNER_SHIFT | INFLATED;
        if word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return monitor;
        }
    }
}

/// Leaves the object's lock. Never blocks.
///
/// # Errors
/// If the thread does not hold it.
#[inline]
pub fn exit(control: &Control, object: Reference) -> Result<(), NotOwner> {
    let word = object.mark();
    loop {
        let old = word.load(Ordering::Relaxed);
        if old & MARK_STATE == INFLATED {
            return exit_inflated(control, monitor(old));
        }
        if owner(old) != control.id {
            return Err(NotOwner);
        }
        let new = if recursion(old) > 0 { old - (1 << MARK_RECURSION_SHIFT) } else { old & !LOCK_BITS };
        if word.compare_exchange(old, new, Ordering::Release, Ordering::Relaxed).is_ok() {
            return Ok(());
        }
    }
}

#[inline(never)]
fn exit_inflated(control: &Control, monitor: &Monitor) -> Result<(), NotOwner> {
    let mut state = monitor.lock();
    if state.owner != control.id {
        return Err(NotOwner);
    }
    state.entries -= 1;
    if state.entries == 0 {
        monitor.release(&mut state);
    }
    Ok(())
}

/// Whether the thread holds the object's lock.
pub fn is_held(control: &Control, object: Reference) -> bool {
    holder(object) == control.id
}

/// Number of the thread that holds the object's lock; 0: none.
pub fn holder(object: Reference) -> u16 {
    let old = object.mark().load(Ordering::Acquire);
    if old & MARK_STATE == INFLATED { monitor(old).lock().owner } else { owner(old) }
}

/// `Object.wait`. The object may have moved afterwards.
///
/// # Errors
/// If the thread does not hold the lock.
pub fn wait(control: &Arc<Control>, object: Reference, timeout: Option<Duration>) -> Result<Wake, NotOwner> {
    if !is_held(control, object) {
        return Err(NotOwner);
    }
    let parker = &control.parker;
    if parker.interrupted.swap(false, Ordering::AcqRel) {
        return Ok(Wake::Interrupted);
    }
    let end = deadline(timeout);
    let monitor = inflate(object);
    let waiter = Arc::new(Waiter { notified: AtomicBool::new(false), control: control.clone() });
    let entries = {
        let mut state = monitor.lock();
        state.waiters.push_back(waiter.clone());
        state.contenders += 1;
        let entries = state.entries;
        monitor.release(&mut state);
        entries
    };
    let is_notified = || waiter.notified.load(Ordering::Acquire);
    control.show(if timeout.is_some() { Status::WaitingTimed } else { Status::Waiting });
    let wake = control.blocked(|| {
        parker.sleep_until(end, |_| is_notified() || parker.interrupted.load(Ordering::Acquire));
        {
            let mut state = monitor.lock();
            // From here on no `notify` is spent on this thread.
            state.waiters.retain(|other| !Arc::ptr_eq(other, &waiter));
        }
        let wake = if is_notified() {
            Wake::Notified
        } else if parker.interrupted.swap(false, Ordering::AcqRel) {
            Wake::Interrupted
        } else {
            Wake::TimedOut
        };
        monitor.enter_contended(control.id, entries);
        wake
    });
    control.show(Status::Runnable);
    Ok(wake)
}

/// `Object.notify`, or `notifyAll`.
///
/// # Errors
/// If the thread does not hold the lock.
pub fn notify(control: &Control, object: Reference, all: bool) -> Result<(), NotOwner> {
    if !is_held(control, object) {
        return Err(NotOwner);
    }
    let old = object.mark().load(Ordering::Acquire);
    if old & MARK_STATE != INFLATED {
        // Nobody waits on a thin lock.
        return Ok(());
    }
    loop {
        let Some(waiter) = monitor(old).lock().waiters.pop_front() else { return Ok(()) };
        waiter.notified.store(true, Ordering::Release);
        waiter.control.parker.wake();
        if !all {
            return Ok(());
        }
    }
}

/// The identity hash, made by `random` when it is first asked for: 31 bits, not 0.
pub fn identity_hash(object: Reference, random: impl FnOnce() -> u32) -> u32 {
    let word = object.mark();
    let hash = |mark: u64| u32::try_from(mark >> MARK_HASH_SHIFT).unwrap_or(0);
    let mut old = word.load(Ordering::Relaxed);
    if hash(old) != 0 {
        return hash(old);
    }
    let new = (random() & 0x7FFF_FFFF).max(1);
    loop {
        match word.compare_exchange(old, old | u64::from(new) << MARK_HASH_SHIFT, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => return new,
            Err(now) if hash(now) != 0 => return hash(now),
            Err(now) => old = now,
        }
    }
}

/// While the world is stopped, before a collection: monitors that nobody uses become free locks again.
pub fn deflate_idle() {
    let used = TABLE.pool().used;
    for index in 0..used {
        let monitor = TABLE.get(index);
        let object = Reference(monitor.object.load(Ordering::Relaxed));
        let state = monitor.lock();
        if object.is_null() || state.owner != 0 || state.contenders != 0 {
            continue;
        }
        drop(state);
        let mark = object.mark();
        mark.store(mark.load(Ordering::Relaxed) & !(LOCK_BITS | MARK_STATE), Ordering::Relaxed);
        TABLE.give(index);
    }
}

/// For [`crate::heap::Roots::weak`]: the objects that have monitors. The monitors of those that are gone are free.
pub fn visit_weak(visit: &mut dyn FnMut(&mut Reference)) {
    let used = TABLE.pool().used;
    for index in 0..used {
        let monitor = TABLE.get(index);
        let mut object = Reference(monitor.object.load(Ordering::Relaxed));
        if object.is_null() {
            continue;
        }
        visit(&mut object);
        monitor.object.store(object.0, Ordering::Relaxed);
        if object.is_null() {
            *monitor.lock() = State::default();
            TABLE.give(index);
        }
    }
}

#[cfg(test)]
mod tests;
