//! The threads on which devices do work that would hold up a hart.
//!
//! A [`Worker`] sleeps until it is kicked, then runs its job once; a kick while the job runs makes it run once more. It can be paused between
//! requests and is joined when dropped.
//!
//! Cost: a kick is one atomic exchange while a kick is already pending, two while the job runs, and a futex wake only if the worker
//! sleeps. Invariant: while a pause holds, the job does not run.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::lock;

/// A device's thread. See the [module](self).
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    handle: Thread,
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
    /// Starts a thread called `name` that runs `job` after each kick.
    ///
    /// # Errors
    /// The host gives no more threads.
    pub fn spawn(name: &str, job: impl FnMut(&Turn<'_>) -> Next + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            kicked: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            control: Mutex::new(Control { pauses_count: 0, stopping: false, active: true }),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.into()).spawn(move || theirs.serve(job))?;
        let handle = thread.thread().clone();
        Ok(Self { shared, thread: Some(thread), handle })
    }

    /// Says that there is work.
    pub fn kick(&self) {
        if !self.shared.kicked.swap(true, Ordering::AcqRel) {
            self.handle.unpark();
        }
    }

    /// Returns once the job stands at a request boundary; it does not run until [`Self::resume`]. Pauses nest. Kicks are remembered.
    ///
    /// Not to be called by the job itself.
    pub fn pause(&self) {
        let mut control = lock(&self.shared.control);
        control.pauses_count += 1;
        self.shared.interrupted.store(true, Ordering::Release);
        self.handle.unpark();
        while control.active {
            control = self.shared.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns when the job has run for every kick before the call and left nothing behind; at once if a pause holds.
    pub fn drain(&self) {
        loop {
            self.pause();
            let idle = !self.shared.kicked.load(Ordering::Acquire);
            let stands_still = {
                let control = lock(&self.shared.control);
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
        let mut control = lock(&self.shared.control);
        control.pauses_count = control.pauses_count.saturating_sub(1);
        if control.pauses_count == 0 && !control.stopping {
            self.shared.interrupted.store(false, Ordering::Release);
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        lock(&self.shared.control).stopping = true;
        self.shared.interrupted.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        self.handle.unpark();
        if let Some(thread) = self.thread.take() {
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
}
