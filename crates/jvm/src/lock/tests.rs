//! Locks among real threads, with objects that are plain memory.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::object::HEAP_BASE;

/// Memory for objects, where the heap is.
fn object(number: usize) -> Reference {
    crate::heap::reserve_once().unwrap();
    // Between the spaces of the small heaps of other tests.
    Reference::at(HEAP_BASE + (1 << 34) + number * 64)
}

fn thread<T: Send + 'static>(
    id: u16,
    body: impl FnOnce(&Arc<Control>) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let word = AtomicU32::new(0);
        let control = Control::enter_world(id, &word);
        let result = body(&control);
        control.leave_world();
        result
    })
}

#[test]
fn one_thread_at_a_time() {
    let lock = object(1);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let threads: Vec<_> = (1..5)
        .map(|id| {
            thread(id, move |control| {
                for turn in 0..20_000u64 {
                    enter(control, lock);
                    if turn % 100 == 0 {
                        enter(control, lock);
                    }
                    let before = COUNT.load(Ordering::Relaxed);
                    if turn % 1000 == 0 {
                        std::thread::yield_now();
                    }
                    COUNT.store(before + 1, Ordering::Relaxed);
                    if turn % 100 == 0 {
                        exit(control, lock).unwrap();
                    }
                    exit(control, lock).unwrap();
                    if turn % 500 == 0 {
                        control.stop_world(deflate_idle);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(COUNT.load(Ordering::Relaxed), 80_000);
    assert_eq!(holder(lock), 0);
}

#[test]
fn producers_and_consumers_and_a_hash() {
    let lock = object(2);
    static FULL: AtomicBool = AtomicBool::new(false);
    let hash = identity_hash(lock, || 0x8000_1234);
    assert_eq!(hash, 0x1234);
    let party = |id: u16, wanted: bool| {
        thread(id, move |control| {
            for _ in 0..3000 {
                enter(control, lock);
                while FULL.load(Ordering::Relaxed) == wanted {
                    assert_eq!(wait(control, lock, None), Ok(Wake::Notified));
                }
                FULL.store(wanted, Ordering::Relaxed);
                notify(control, lock, true).unwrap();
                exit(control, lock).unwrap();
            }
        })
    };
    let threads = [party(11, true), party(12, false), party(13, true), party(14, false)];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(identity_hash(lock, || 1), hash);
}

#[test]
fn wait_ends_by_time_by_interrupt_and_keeps_recursion() {
    let lock = object(3);
    thread(21, move |control| {
        assert_eq!(wait(control, lock, None), Err(NotOwner));
        assert_eq!(notify(control, lock, false), Err(NotOwner));
        assert_eq!(exit(control, lock), Err(NotOwner));
        for _ in 0..300 {
            enter(control, lock);
        }
        assert_eq!(wait(control, lock, Some(Duration::from_millis(5))), Ok(Wake::TimedOut));
        let own = control.clone();
        let other = thread(22, move |control| {
            enter(control, lock);
            own.parker.interrupt();
            exit(control, lock).unwrap();
        });
        assert_eq!(wait(control, lock, None), Ok(Wake::Interrupted));
        assert!(!control.parker.interrupted.load(Ordering::Relaxed));
        control.blocked(|| other.join().unwrap());
        for _ in 0..300 {
            exit(control, lock).unwrap();
        }
        assert_eq!(exit(control, lock), Err(NotOwner));
        // Interrupted before: at once.
        control.parker.interrupt();
        enter(control, lock);
        assert_eq!(wait(control, lock, None), Ok(Wake::Interrupted));
        exit(control, lock).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn park_takes_the_permit() {
    let parker = Arc::new(Parker::default());
    parker.unpark();
    parker.unpark();
    parker.park(None);
    parker.park(Some(Duration::from_millis(2)));
    let other = parker.clone();
    let waker = std::thread::spawn(move || other.unpark());
    parker.park(None);
    waker.join().unwrap();
    assert!(!parker.sleep(Duration::from_millis(1)));
    parker.interrupt();
    assert!(parker.sleep(Duration::from_secs(1000)));
}
