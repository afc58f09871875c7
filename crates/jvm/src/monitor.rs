//! Locks as instructions and natives use them: those of [`crate::lock`], with its refusals as exceptions.

use std::time::Duration;

use crate::exceptions;
use crate::lock::{self, Wake};
use crate::object::Reference;
use crate::thread::{Result, Thread, Thrown};

/// `monitorenter`. May block, so that objects move.
///
/// # Errors
/// None; the result is that of instructions that throw.
#[inline]
pub fn enter(thread: &mut Thread, object: Reference) -> Result<()> {
    if !lock::enter_free(&thread.control, object) && !lock::try_enter(&thread.control, object) {
        enter_contended(thread, object);
    }
    Ok(())
}

#[cold]
fn enter_contended(thread: &mut Thread, object: Reference) {
    thread.waiting(object, |thread| {
        let control = thread.control.clone();
        lock::enter(&control, object);
    });
}

/// `monitorexit`
///
/// # Errors
/// IllegalMonitorStateException if the thread does not hold the lock.
#[inline]
pub fn exit(thread: &mut Thread, object: Reference) -> Result<()> {
    lock::exit(&thread.control, object).map_err(|_| not_owner(thread))
}

#[cold]
fn not_owner(thread: &mut Thread) -> Thrown {
    exceptions::throw(thread, "java/lang/IllegalMonitorStateException", "current thread is not owner")
}

/// Whether the thread holds the object's lock.
pub fn is_held(thread: &Thread, object: Reference) -> bool {
    lock::is_held(&thread.control, object)
}

/// `Object.wait`; without end if `millis` is 0.
///
/// # Errors
/// IllegalMonitorStateException, InterruptedException.
pub fn wait(thread: &mut Thread, object: Reference, millis: u64) -> Result<()> {
    let timeout = (millis > 0).then(|| Duration::from_millis(millis));
    let wake = thread.waiting(object, |thread| lock::wait(&thread.control.clone(), object, timeout));
    match wake {
        Ok(Wake::Interrupted) => {
            crate::natives::threads::forget_interruption(thread);
            Err(exceptions::throw_plain(thread, "java/lang/InterruptedException"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(not_owner(thread)),
    }
}

/// `Object.notify`, or `notifyAll`.
///
/// # Errors
/// IllegalMonitorStateException.
pub fn notify(thread: &mut Thread, object: Reference, all: bool) -> Result<()> {
    lock::notify(&thread.control, object, all).map_err(|_| not_owner(thread))
}

/// `System.identityHashCode`: made when first asked for, 31 bits, never 0.
pub fn identity_hash(object: Reference) -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SEED: AtomicU32 = AtomicU32::new(0x2545_F491);
    lock::identity_hash(object, || {
        let mut seed = SEED.load(Ordering::Relaxed);
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        SEED.store(seed, Ordering::Relaxed);
        seed
    })
}
