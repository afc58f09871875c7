//! Doorbells that the host's kernel takes: a processor that rings one is back in its guest at once, and a thread here wakes the device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use devices::pci::{Address, DoorbellSink, Root};
use machine::GuestPhysical;
use machine::sys::{self, Poller, Waker};

use crate::kvm::Vm;

const END: u64 = u64::MAX;

struct Bell {
    token: u64,
    at: GuestPhysical,
    event: Waker,
}

struct Inner {
    vm: Arc<Vm>,
    root: OnceLock<Weak<Root>>,
    poller: Poller,
    end: Waker,
    bells: Mutex<BTreeMap<(Address, u16), Bell>>,
    last_token: AtomicU64,
    rung: AtomicU64,
}

/// See the [module](self).
pub(super) struct Doorbells {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

/// The side that the bus tells of where doorbells are.
pub(super) struct Places(Arc<Inner>);

impl Inner {
    fn bells(&self) -> MutexGuard<'_, BTreeMap<(Address, u16), Bell>> {
        // A map that is right between any two statements.
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut events = Vec::new();
        // A host without memory for waiting ends the thread; it has worse problems.
        while self.poller.wait(None, &mut events).is_ok() {
            for event in events.drain(..) {
                if event.token == END {
                    return;
                }
                let found = self.bells().iter().find(|(_, bell)| bell.token == event.token).map(|(key, bell)| {
                    bell.event.clear();
                    *key
                });
                if let (Some((function, number)), Some(root)) = (found, self.root.get().and_then(Weak::upgrade)) {
                    self.rung.fetch_add(1, Ordering::Relaxed);
                    root.ring(function, number);
                }
            }
        }
    }
}

impl Doorbells {
    pub(super) fn new(vm: &Arc<Vm>) -> std::io::Result<Self> {
        let (poller, end) = (Poller::new()?, Waker::new()?);
        poller.add(&end, END)?;
        let inner = Arc::new(Inner {
            vm: Arc::clone(vm),
            root: OnceLock::new(),
            poller,
            end,
            bells: Mutex::default(),
            last_token: AtomicU64::new(0),
            rung: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&inner);
        let thread = sys::thread("doorbells").spawn(move || theirs.serve())?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// What the bus is given when it is made.
    pub(super) fn places(&self) -> Arc<dyn DoorbellSink> {
        Arc::new(Places(Arc::clone(&self.inner)))
    }

    /// The bus that doorbells belong to: once, and before it places any.
    pub(super) fn set_root(&self, root: &Arc<Root>) {
        let set = self.inner.root.set(Arc::downgrade(root));
        debug_assert!(set.is_ok(), "a board has one bus");
    }

    /// How often doorbells were rung, where rings in quick succession may count as one.
    pub(super) fn rung_count(&self) -> u64 {
        self.inner.rung.load(Ordering::Relaxed)
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        self.inner.end.set();
        if let Some(thread) = self.thread.take() {
            // Its panic, a bug of ours, was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl DoorbellSink for Places {
    /// What the host refuses to take comes by way of the bus, as before.
    fn place(&self, function: Address, number: u16, at: Option<GuestPhysical>) {
        let inner = &self.0;
        let mut bells = inner.bells();
        if let Some(old) = bells.remove(&(function, number)) {
            let _ = inner.vm.remove_doorbell(old.at, &old.event);
        }
        let Some(at) = at else { return };
        let Ok(event) = Waker::new() else { return };
        let token = inner.last_token.fetch_add(1, Ordering::Relaxed);
        if inner.poller.add(&event, token).is_ok() && inner.vm.add_doorbell(at, &event).is_ok() {
            bells.insert((function, number), Bell { token, at, event });
        }
    }
}
