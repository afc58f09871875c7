//! Safe points: how one thread makes all others stand still.
//!
//! ```text
//!            leave, unless somebody stops the world          poll
//!   safe  ------------------------------------->  running  --------> safe, until the world goes on
//!   (native code, blocked)  <-------------------             
//!                            enter
//! ```
//!
//! A running thread may touch the heap and reads the word that its [`Control`] leads to at every backward branch, call and return; if that is not 0 it calls
//! [`Control::poll`]. A safe thread touches nothing that the collector moves; only the step from safe to running can be held up. Who stops the world
//! sets the words and waits until all others are safe.
//!
//! Both sides write one flag and then read the other's (sequentially consistent): a thread writes "running" and reads "stopping"; the stopper writes
//! "stopping" and reads "running". So at least one sees the other, and a step between running and safe costs one locked instruction.
//!
//! Invariant: nobody waits for a lock while running, if a thread may hold that lock while it becomes running. Locks are therefore released inside of
//! [`Control::blocked`].

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::handle::Global;
use crate::lock::Parker;

/// What `Thread.getState` tells, in the bits that the class library knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// It runs, or the host lets it wait.
    Runnable = 0x5,
    /// In `Thread.sleep`.
    Sleeping = 0xE1,
    /// In `Object.wait`.
    Waiting = 0x191,
    /// The same with a timeout.
    WaitingTimed = 0x1A1,
    /// In `LockSupport.park`.
    Parked = 0x291,
    /// The same with a timeout.
    ParkedTimed = 0x2A1,
    /// Wants a lock that another thread holds.
    Blocked = 0x401,
}

/// What others may know and ask of a thread.
#[derive(Debug)]
pub struct Control {
    /// Number of the thread, 1 to 65,535.
    pub id: u16,
    /// What it sleeps on.
    pub parker: Parker,
    safe: AtomicBool,
    /// Whether `Thread.suspend` was called: it does not become running until `resume`.
    suspended: AtomicBool,
    /// Whether it has accessed memory that is lost.
    faulted: AtomicBool,
    /// What `Thread.stop` lets it throw at its next safe point.
    stop: Mutex<Option<Global>>,
    /// The `java.lang.Thread`, once there is one.
    object: OnceLock<Global>,
    /// The word that the thread polls, which is where its code finds it at once.
    poll: AtomicPtr<AtomicU32>,
}

#[derive(Debug)]
struct World {
    members: Mutex<Members>,
    /// Something changed: a thread is safe, or the world goes on.
    changed: Condvar,
    /// Fast copy of [`Members::stopping`].
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Members {
    controls: Vec<Arc<Control>>,
    stopping: bool,
}

static WORLD: World = World {
    members: Mutex::new(Members { controls: Vec::new(), stopping: false }),
    changed: Condvar::new(),
    stopping: AtomicBool::new(false),
};

impl World {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, members: MutexGuard<'a, Members>) -> MutexGuard<'a, Members> {
        self.changed.wait(members).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// Makes the current host thread a member of the world, running. `poll` stays where it is until [`Control::leave_world`].
    pub fn enter_world(id: u16, poll: &AtomicU32) -> Arc<Self> {
        let control = Arc::new(Self {
            id,
            parker: Parker::default(),
            safe: AtomicBool::new(true),
            suspended: AtomicBool::new(false),
            faulted: AtomicBool::new(false),
            stop: Mutex::new(None),
            object: OnceLock::new(),
            poll: AtomicPtr::new(std::ptr::from_ref(poll).cast_mut()),
        });
        let mut members = WORLD.lock();
        while members.stopping {
            members = WORLD.wait(members);
        }
        control.safe.store(false, Ordering::SeqCst);
        members.controls.push(control.clone());
        control
    }

    /// Tells which `java.lang.Thread` it is.
    pub fn set_object(&self, object: Global) {
        let _ = self.object.set(object);
    }

    /// Shows in the `java.lang.Thread` what the thread, which is the current one and running, is about to wait for.
    pub fn show(&self, status: Status) {
        if let Some(object) = self.object.get() {
            object.get().write(crate::known::thread_status(), status as i32);
        }
    }

    /// Takes the current thread out of the world. It must not touch the heap any more.
    pub fn leave_world(&self) {
        self.enter_safe();
        let mut members = WORLD.lock();
        // The collector may be at work on what belongs to the thread.
        while members.stopping {
            members = WORLD.wait(members);
        }
        members.controls.retain(|control| !std::ptr::eq(Arc::as_ptr(control), self));
        // Somebody may wait for it to be suspended.
        WORLD.changed.notify_all();
    }

    /// From now on the thread touches nothing that the collector moves.
    pub fn enter_safe(&self) {
        self.safe.store(true, Ordering::SeqCst);
        if self.is_awaited() {
            let _members = WORLD.lock();
            WORLD.changed.notify_all();
        }
    }

    /// From now on the thread is running; waits until the world is not stopped. The caller holds no lock.
    pub fn leave_safe(&self) {
        self.safe.store(false, Ordering::SeqCst);
        if self.is_awaited() {
            self.wait_until_world_goes_on();
        }
    }

    /// Whether somebody waits for this thread to be safe, or it is not to run.
    fn is_awaited(&self) -> bool {
        WORLD.stopping.load(Ordering::SeqCst) || self.suspended.load(Ordering::SeqCst)
    }

    #[cold]
    fn wait_until_world_goes_on(&self) {
        self.safe.store(true, Ordering::SeqCst);
        let mut members = WORLD.lock();
        WORLD.changed.notify_all();
        while members.stopping || self.suspended.load(Ordering::SeqCst) {
            members = WORLD.wait(members);
        }
        let stops = self.throws();
        // SAFETY: this is the thread's own word, and the thread is there. The lock keeps others from stopping it meanwhile.
        unsafe { &*self.poll.load(Ordering::Relaxed) }.store(u32::from(stops), Ordering::SeqCst);
        self.safe.store(false, Ordering::SeqCst);
    }

    /// Stands still while the world is stopped or it is suspended; called when the polled word is not 0. Returns what it is to throw.
    #[cold]
    pub fn poll(&self) -> Option<Global> {
        self.wait_until_world_goes_on();
        self.take_stop()
    }

    /// Lets the thread stop at its next safe point, if it is a member of the world. The members are locked.
    fn ask(&self, members: &Members) {
        if self.is_among(members) {
            // SAFETY: the word stays where it is while its thread is a member.
            unsafe { &*self.poll.load(Ordering::Relaxed) }.store(1, Ordering::SeqCst);
        }
    }

    fn is_among(&self, members: &Members) -> bool {
        members.controls.iter().any(|control| std::ptr::eq(Arc::as_ptr(control), self))
    }

    /// Whether it is to throw something at its next safe point.
    fn throws(&self) -> bool {
        self.faulted.load(Ordering::SeqCst) || self.stop.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Notes that the current thread, which this is of, accessed memory that is lost. For handlers of signals.
    pub fn note_fault(&self) {
        self.faulted.store(true, Ordering::SeqCst);
        // SAFETY: the thread's own word, and the thread is there.
        unsafe { &*self.poll.load(Ordering::Relaxed) }.store(1, Ordering::SeqCst);
    }

    /// Whether it accessed memory that is lost, which is then forgotten.
    pub fn take_fault(&self) -> bool {
        self.faulted.swap(false, Ordering::SeqCst)
    }

    /// What `Thread.stop` wants it to throw, which is then forgotten.
    pub fn take_stop(&self) -> Option<Global> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// `Thread.stop`: it throws this at its next safe point, before which it waits for nothing any more.
    pub fn stop(&self, exception: Global) {
        let before = self.stop.lock().unwrap_or_else(PoisonError::into_inner).replace(exception);
        if let Some(before) = before {
            before.release();
        }
        self.ask(&WORLD.lock());
        self.parker.interrupt();
    }

    /// `Thread.suspend`, called by the thread of `own`: returns when the thread stands still. One that suspends itself does at its next safe point.
    pub fn suspend(&self, own: &Self) {
        let itself = std::ptr::eq(self, own);
        own.blocked(|| {
            let mut members = WORLD.lock();
            self.suspended.store(true, Ordering::SeqCst);
            self.ask(&members);
            while !itself && !self.safe.load(Ordering::SeqCst) && self.is_among(&members) {
                members = WORLD.wait(members);
            }
        });
    }

    /// `Thread.resume`
    pub fn resume(&self) {
        let _members = WORLD.lock();
        self.suspended.store(false, Ordering::SeqCst);
        WORLD.changed.notify_all();
    }

    /// Runs what may block, as a safe thread. It must not touch the heap, and holds no lock when it ends.
    pub fn blocked<T>(&self, body: impl FnOnce() -> T) -> T {
        self.enter_safe();
        let result = body();
        self.leave_safe();
        result
    }

    /// Stops all other threads, runs `body`, and lets them go on. Others may stop the world before.
    pub fn stop_world<T>(&self, body: impl FnOnce() -> T) -> T {
        self.enter_safe();
        let mut members = WORLD.lock();
        while members.stopping {
            members = WORLD.wait(members);
        }
        members.stopping = true;
        WORLD.stopping.store(true, Ordering::SeqCst);
        set_polls(&members, 1);
        while !members.controls.iter().all(|control| control.safe.load(Ordering::SeqCst)) {
            members = WORLD.wait(members);
        }
        // Threads that come and go wait for `stopping`, so the lock is not needed.
        drop(members);
        let result = body();
        let mut members = WORLD.lock();
        set_polls(&members, 0);
        members.stopping = false;
        WORLD.stopping.store(false, Ordering::SeqCst);
        self.safe.store(false, Ordering::SeqCst);
        WORLD.changed.notify_all();
        result
    }
}

/// Stops all threads until [`release_world`]: for who is none of them. Others may stop the world before.
pub fn hold_world() {
    let mut members = WORLD.lock();
    while members.stopping {
        members = WORLD.wait(members);
    }
    members.stopping = true;
    WORLD.stopping.store(true, Ordering::SeqCst);
    set_polls(&members, 1);
    while !members.controls.iter().all(|control| control.safe.load(Ordering::SeqCst)) {
        members = WORLD.wait(members);
    }
}

/// Undoes [`hold_world`].
pub fn release_world() {
    let mut members = WORLD.lock();
    set_polls(&members, 0);
    members.stopping = false;
    WORLD.stopping.store(false, Ordering::SeqCst);
    WORLD.changed.notify_all();
}

fn set_polls(members: &Members, value: u32) {
    for control in &members.controls {
        let value = value | u32::from(control.throws() || control.suspended.load(Ordering::SeqCst));
        // SAFETY: the word stays where it is while its thread is a member.
        unsafe { &*control.poll.load(Ordering::Relaxed) }.store(value, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn nobody_runs_while_the_world_is_stopped() {
        static A: AtomicU64 = AtomicU64::new(0);
        static B: AtomicU64 = AtomicU64::new(0);
        static STARTED: AtomicU64 = AtomicU64::new(0);
        static END: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (2..6u16)
            .map(|id| {
                std::thread::spawn(move || {
                    let word = AtomicU32::new(0);
                    let control = Control::enter_world(id, &word);
                    STARTED.fetch_add(1, Ordering::Relaxed);
                    let mut turns = 0u64;
                    while !END.load(Ordering::Relaxed) {
                        // Between polls both are changed; who stops the world never sees one alone.
                        A.fetch_add(1, Ordering::Relaxed);
                        B.fetch_add(1, Ordering::Relaxed);
                        if word.load(Ordering::Relaxed) != 0 {
                            control.poll();
                        }
                        turns += 1;
                        if turns.is_multiple_of(64) {
                            control.blocked(std::thread::yield_now);
                        }
                        if id == 2 && turns.is_multiple_of(1000) {
                            control.stop_world(|| assert_eq!(A.load(Ordering::Relaxed), B.load(Ordering::Relaxed)));
                        }
                    }
                    control.leave_world();
                })
            })
            .collect();
        while STARTED.load(Ordering::Relaxed) < 4 {
            std::thread::yield_now();
        }
        let word = AtomicU32::new(0);
        let control = Control::enter_world(1, &word);
        // On a busy host the others may begin late.
        while A.load(Ordering::Relaxed) == 0 {
            control.blocked(std::thread::yield_now);
        }
        for _ in 0..2000 {
            control.stop_world(|| {
                let before = A.load(Ordering::Relaxed);
                assert_eq!(before, B.load(Ordering::Relaxed));
                std::hint::spin_loop();
                assert_eq!(before, A.load(Ordering::Relaxed));
            });
        }
        control.enter_safe();
        END.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        control.leave_safe();
        control.leave_world();
        assert!(A.load(Ordering::Relaxed) > 0);
    }
}
