//! The threads on which devices do work that would hold up a hart.
//!
//! Which threads those are is the [`Crew`]'s business: one for each worker, or, in a machine whose run is to be repeatable, none: its work then waits in a
//! [`Roster`] until the machine's schedule has it done, at a moment of the schedule's choice and by the machine's own clock.
//!
//! A [`Worker`] sleeps until it is kicked, then runs its job once; a kick while the job runs makes it run once more. It can be paused between
//! requests and is joined when dropped.
//!
//! Cost: a kick is one atomic exchange while a kick is already pending, two while the job runs, and a futex wake only if the worker
//! sleeps. Invariant: while a pause holds, the job does not run.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use machine::clock::Clock;
use machine::sys;

use crate::lock;

/// Who does the work of devices.
#[derive(Clone, Debug, Default)]
pub enum Crew {
    /// A thread of its own for each worker.
    #[default]
    Threads,
    /// Whoever calls [`Roster::work`].
    Inline(Arc<Roster>),
}

/// Work that is done when asked for. See the [module](self).
#[derive(Debug)]
pub struct Roster {
    clock: Arc<Clock>,
    /// In the order of their making, which is the order of their work.
    jobs: Mutex<Vec<Weak<InlineJob>>>,
}

impl Roster {
    /// An empty roster; what is to be done later is done by `clock`.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { clock, jobs: Mutex::default() }
    }

    fn jobs(&self) -> Vec<Arc<InlineJob>> {
        lock(&self.jobs).iter().filter_map(Weak::upgrade).collect()
    }

    /// Runs every job that was kicked or is due, unless it is paused.
    pub fn work(&self) {
        self.jobs().iter().for_each(|job| job.work(&self.clock));
    }

    /// When a job will be due, in nanoseconds of the clock: zero if there is work now, `None` if there is none to come.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.jobs().iter().filter_map(|job| job.deadline_ns()).min()
    }
}

struct InlineJob {
    shared: Shared,
    job: Mutex<Job>,
}

struct Job {
    body: Box<dyn FnMut(&Turn<'_>) -> Next + Send>,
    deadline_ns: Option<u64>,
}

impl fmt::Debug for InlineJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineJob").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl InlineJob {
    fn stands_still(&self) -> bool {
        lock(&self.shared.control).pauses_count > 0
    }

    fn deadline_ns(&self) -> Option<u64> {
        if self.stands_still() {
            None
        } else if self.shared.kicked.load(Ordering::Acquire) {
            Some(0)
        } else {
            lock(&self.job).deadline_ns
        }
    }

    /// Runs the job once if there is reason to.
    fn work(&self, clock: &Clock) {
        if self.stands_still() {
            return;
        }
        let mut job = lock(&self.job);
        let now_ns = clock.now_ns();
        let due = job.deadline_ns.is_some_and(|at| now_ns >= at);
        if self.shared.kicked.swap(false, Ordering::AcqRel) || due {
            job.deadline_ns = None;
            match (job.body)(&Turn { shared: &self.shared }) {
                Next::Kick => {}
                Next::Within(wait) => {
                    let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
                    job.deadline_ns = Some(now_ns.saturating_add(wait_ns));
                }
                Next::Again => self.shared.kicked.store(true, Ordering::Release),
            }
        }
    }
}

/// A device's thread. See the [module](self).
#[derive(Debug)]
pub struct Worker(Kind);

#[derive(Debug)]
enum Kind {
    Thread { shared: Arc<Shared>, thread: Option<JoinHandle<()>>, handle: Thread },
    Inline { job: Arc<InlineJob>, roster: Arc<Roster> },
}

#[derive(Debug)]
struct Shared {
    /// There is work that the job has not seen.
    kicked: AtomicBool,
    /// The job must return at the next request boundary: a pause or the end.
    interrupted: AtomicBool,
    control: Mutex<Control>,
    changed: Condvar,
}

#[derive(Debug)]
struct Control {
    pauses_count: u32,
    stopping: bool,
    /// The job runs or may begin to run at any time.
    active: bool,
}

/// What a job sees of its worker while it runs.
#[derive(Debug)]
pub struct Turn<'a> {
    shared: &'a Shared,
}

impl Turn<'_> {
    /// Whether the job must return at the next request boundary. It then answers [`Next::Again`] if work is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.interrupted.load(Ordering::Relaxed)
    }

    /// Whether there was a kick since the job began or asked last; it then looks at what it was kicked for, and does not run again for that.
    #[must_use]
    pub fn take_kick(&self) -> bool {
        self.shared.kicked.swap(false, Ordering::AcqRel)
    }
}

/// When a job wants to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After the next kick.
    Kick,
    /// After the next kick, or this long from now.
    Within(Duration),
    /// At once: it left work behind.
    Again,
}

impl Worker {
    /// A worker of `crew`, called `name`, that runs `job` after each kick.
    ///
    /// # Errors
    /// The host gives no more threads.
    pub fn hire(crew: &Crew, name: &str, job: impl FnMut(&Turn<'_>) -> Next + Send + 'static) -> io::Result<Self> {
        match crew {
            Crew::Threads => Self::spawn(name, job),
            Crew::Inline(roster) => {
                let job = Job { body: Box::new(job), deadline_ns: None };
                let job = Arc::new(InlineJob { shared: Shared::new(false), job: Mutex::new(job) });
                lock(&roster.jobs).push(Arc::downgrade(&job));
                Ok(Self(Kind::Inline { job, roster: Arc::clone(roster) }))
            }
        }
    }

    /// Starts a thread called `name` that runs `job` after each kick.
    ///
    /// # Errors
    /// The host gives no more threads.
    pub fn spawn(name: &str, job: impl FnMut(&Turn<'_>) -> Next + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(true));
        let theirs = Arc::clone(&shared);
        let thread = sys::thread(name).spawn(move || theirs.serve(job))?;
        let handle = thread.thread().clone();
        Ok(Self(Kind::Thread { shared, thread: Some(thread), handle }))
    }

    fn shared(&self) -> &Shared {
        match &self.0 {
            Kind::Thread { shared, .. } => shared,
            Kind::Inline { job, .. } => &job.shared,
        }
    }

    /// Has the worker's thread look at what is asked of it.
    fn wake(&self) {
        if let Kind::Thread { handle, .. } = &self.0 {
            handle.unpark();
        }
    }

    /// Says that there is work.
    pub fn kick(&self) {
        if !self.shared().kicked.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Returns once the job stands at a request boundary; it does not run until [`Self::resume`]. Pauses nest. Kicks are remembered.
    ///
    /// Not to be called by the job itself.
    pub fn pause(&self) {
        let shared = self.shared();
        let mut control = lock(&shared.control);
        control.pauses_count += 1;
        shared.interrupted.store(true, Ordering::Release);
        self.wake();
        while control.active {
            control = shared.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns when the job has run for every kick before the call and left nothing behind; at once if a pause holds.
    pub fn drain(&self) {
        if let Kind::Inline { job, roster } = &self.0 {
            while !job.stands_still() && job.shared.kicked.load(Ordering::Acquire) {
                job.work(&roster.clock);
            }
            return;
        }
        let shared = self.shared();
        loop {
            self.pause();
            let idle = !shared.kicked.load(Ordering::Acquire);
            let stands_still = {
                let control = lock(&shared.control);
                control.pauses_count > 1 || control.stopping
            };
            self.resume();
            if idle || stands_still {
                return;
            }
            thread::yield_now();
        }
    }

    /// Undoes one [`Self::pause`].
    pub fn resume(&self) {
        let shared = self.shared();
        let mut control = lock(&shared.control);
        control.pauses_count = control.pauses_count.saturating_sub(1);
        if control.pauses_count == 0 && !control.stopping {
            shared.interrupted.store(false, Ordering::Release);
            shared.changed.notify_all();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Kind::Thread { shared, thread, handle } = &mut self.0 else { return };
        lock(&shared.control).stopping = true;
        shared.interrupted.store(true, Ordering::Release);
        shared.changed.notify_all();
        handle.unpark();
        if let Some(thread) = thread.take() {
            // A job that panicked has already reported it; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// Tells those who wait that the thread has ended, also when the job panics.
struct Farewell<'a>(&'a Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        let mut control = lock(&self.0.control);
        control.stopping = true;
        control.active = false;
        self.0.changed.notify_all();
    }
}

impl Shared {
    /// `active`: whether the job may begin to run by itself.
    fn new(active: bool) -> Self {
        Self {
            kicked: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            control: Mutex::new(Control { pauses_count: 0, stopping: false, active }),
            changed: Condvar::new(),
        }
    }

    fn serve(&self, mut job: impl FnMut(&Turn<'_>) -> Next) {
        let _farewell = Farewell(self);
        let mut deadline = None;
        loop {
            if self.interrupted.load(Ordering::Acquire) && !self.stand_still() {
                return;
            }
            let due = deadline.is_some_and(|at| Instant::now() >= at);
            if self.kicked.swap(false, Ordering::AcqRel) || due {
                deadline = None;
                match job(&Turn { shared: self }) {
                    Next::Kick => {}
                    Next::Within(wait) => deadline = Instant::now().checked_add(wait),
                    Next::Again => self.kicked.store(true, Ordering::Release),
                }
                continue;
            }
            match deadline {
                None => thread::park(),
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
            }
        }
    }

    /// Waits until no pause holds. False if the thread is to end.
    fn stand_still(&self) -> bool {
        let mut control = lock(&self.control);
        control.active = false;
        self.changed.notify_all();
        while control.pauses_count > 0 && !control.stopping {
            control = self.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
        control.active = true;
        !control.stopping
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc;

    #[test]
    fn every_kick_is_seen() {
        let (sender, receiver) = mpsc::channel();
        let worker = Worker::spawn("test", move |_| {
            sender.send(()).unwrap();
            Next::Kick
        })
        .unwrap();
        for _ in 0..100 {
            worker.kick();
            receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        drop(worker);
        assert!(receiver.try_recv().is_err(), "no run without a kick");
    }

    #[test]
    fn a_paused_worker_stands_still_and_forgets_nothing() {
        let runs = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&runs);
        let (sender, receiver) = mpsc::channel();
        let worker = Worker::spawn("test", move |turn| {
            counter.fetch_add(1, Ordering::SeqCst);
            sender.send(()).unwrap();
            if turn.is_over() { Next::Kick } else { Next::Within(Duration::from_millis(1)) }
        })
        .unwrap();
        worker.kick();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        worker.pause();
        worker.pause();
        let before = runs.load(Ordering::SeqCst);
        worker.kick();
        worker.resume();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(runs.load(Ordering::SeqCst), before);
        while receiver.try_recv().is_ok() {}
        worker.resume();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_pause_does_not_wait_for_a_dead_worker() {
        let worker = Worker::spawn("test", |_| panic!("the job fails, on purpose")).unwrap();
        worker.kick();
        worker.pause();
    }

    #[test]
    fn a_roster_works_when_asked() {
        let clock = Arc::new(Clock::starting_at(0));
        let roster = Arc::new(Roster::new(Arc::clone(&clock)));
        let runs = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&runs);
        let worker = Worker::hire(&Crew::Inline(Arc::clone(&roster)), "test", move |_| {
            match counter.fetch_add(1, Ordering::SeqCst) {
                0 => Next::Within(Duration::from_nanos(500)),
                _ => Next::Kick,
            }
        })
        .unwrap();
        let runs = || runs.load(Ordering::SeqCst);
        roster.work();
        assert_eq!((runs(), roster.next_deadline_ns()), (0, None));
        worker.kick();
        assert_eq!((runs(), roster.next_deadline_ns()), (0, Some(0)));
        roster.work();
        assert_eq!((runs(), roster.next_deadline_ns()), (1, Some(500)));
        clock.advance_to(499);
        roster.work();
        assert_eq!(runs(), 1);
        clock.advance_to(500);
        roster.work();
        assert_eq!((runs(), roster.next_deadline_ns()), (2, None));
        worker.pause();
        worker.kick();
        roster.work();
        worker.drain();
        assert_eq!(runs(), 2, "a paused worker stands still");
        worker.resume();
        worker.drain();
        assert_eq!(runs(), 3);
        drop(worker);
        roster.work();
        assert_eq!((runs(), roster.next_deadline_ns()), (3, None));
    }
}
