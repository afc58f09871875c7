//! What a guest may use: memory and time.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use machine::clock::thread_time_ns;
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};

/// Bytes that the host needs for an element of a table.
const TABLE_ELEMENT_BYTES: usize = 8;
/// Instances, memories and tables of one guest: far more than programs have.
const OBJECTS_MAX: usize = 10_000;

/// The limit of processor time was reached.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it has used its {} s of processor time; give it more with --cpu-time", .0.as_secs_f64())]
pub(crate) struct CpuTimeUsed(pub(crate) Duration);

/// Counts the memory of a guest, and refuses growth beyond its limit: the guest is told that there is no more, as by a host without memory.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLimit {
    bytes_max: usize,
    used: Arc<AtomicU64>,
}

impl MemoryLimit {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX), used: Arc::default() }
    }

    /// Bytes in use by memories and tables.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn grow(&self, by: usize) -> bool {
        let used = self.used();
        let sum = used.saturating_add(by as u64);
        let fits = sum <= self.bytes_max as u64;
        if fits {
            self.used.store(sum, Ordering::Relaxed);
        }
        fits
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Beyond its own maximum the growth fails anyway, and must not be counted.
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(bytes))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The host had no memory: the guest is told so. What was counted for it is little beside the limit.
        let _ = error;
        Ok(())
    }

    fn instances(&self) -> usize {
        OBJECTS_MAX
    }

    fn tables(&self) -> usize {
        OBJECTS_MAX
    }

    fn memories(&self) -> usize {
        OBJECTS_MAX
    }
}

/// The processor time of one guest, whose task may move from thread to thread between two polls.
#[derive(Clone, Debug)]
pub(crate) struct CpuTime {
    limit: Option<Duration>,
    used: Arc<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Of polls that have ended, in nanoseconds.
    before_ns: AtomicU64,
    /// The time of the polling thread when the present poll began.
    begin_ns: AtomicU64,
}

impl CpuTime {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit, used: Arc::default() }
    }

    /// `guest`, with its polls counted.
    pub(crate) async fn count<F: Future>(&self, guest: F) -> F::Output {
        let mut guest = pin!(guest);
        poll_fn(|context| {
            let begin = thread_time_ns();
            self.used.begin_ns.store(begin, Ordering::Relaxed);
            let polled = guest.as_mut().poll(context);
            self.used.before_ns.fetch_add(thread_time_ns().saturating_sub(begin), Ordering::Relaxed);
            polled
        })
        .await
    }

    /// Asked by the guest's own thread, within a poll: whether there is time left.
    fn check(&self) -> Result<(), CpuTimeUsed> {
        let Some(limit) = self.limit else { return Ok(()) };
        let present = thread_time_ns().saturating_sub(self.used.begin_ns.load(Ordering::Relaxed));
        let used = self.used.before_ns.load(Ordering::Relaxed).saturating_add(present);
        if Duration::from_nanos(used) < limit { Ok(()) } else { Err(CpuTimeUsed(limit)) }
    }
}

/// Holds guests: those that are polled through it stand still from their next yield on.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    held: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Hold {
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// `guest`, polled only while nobody holds it.
    pub(crate) async fn obey<F: Future>(&self, guest: F) -> F::Output {
        let mut guest = pin!(guest);
        poll_fn(|context| {
            if self.is_held() {
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(context.waker().clone());
                // Who released it meanwhile has woken those who were there before.
                if self.is_held() {
                    return Poll::Pending;
                }
            }
            guest.as_mut().poll(context)
        })
        .await
    }
}

/// Makes a store obey the limits, and yield when the epoch moves.
pub(crate) fn limit<T: Send>(
    store: &mut Store<T>,
    memory: impl (FnMut(&mut T) -> &mut dyn ResourceLimiter) + Send + Sync + 'static,
    cpu_time: &CpuTime,
) {
    store.limiter(memory);
    store.set_epoch_deadline(1);
    let cpu_time = cpu_time.clone();
    store.epoch_deadline_callback(move |_| {
        cpu_time.check()?;
        Ok(UpdateDeadline::Yield(1))
    });
}

/// Ticks the epoch for as long as it lives, so that a limit of time is looked at.
pub(crate) struct Ticker(Arc<AtomicBool>);

/// How often a limit of time is looked at.
const TICK: Duration = Duration::from_millis(5);

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let live = Arc::new(AtomicBool::new(true));
        let (engine, watched) = (engine.clone(), Arc::clone(&live));
        thread::Builder::new().name("ticker".into()).spawn(move || {
            while watched.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(Self(live))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
