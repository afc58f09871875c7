//! Interrupt lines: a device raises and lowers a level; a controller decides what to make of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An interrupt controller's inputs.
pub trait InterruptSink: Send + Sync {
    /// Input `number` now has the level `raised`. Called only when the level changes.
    fn set_level(&self, number: u32, raised: bool);
}

/// One wire from a device to an input of a controller. Clones are the same wire.
#[derive(Clone)]
pub struct InterruptLine {
    wire: Arc<Wire>,
}

struct Wire {
    sink: Arc<dyn InterruptSink>,
    number: u32,
    raised: AtomicBool,
}

impl InterruptLine {
    /// A wire, low at first, to input `number` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn InterruptSink>, number: u32) -> Self {
        Self { wire: Arc::new(Wire { sink, number, raised: AtomicBool::new(false) }) }
    }

    /// Sets the level. Callers serialise calls on one wire (a device does so by its own lock).
    pub fn set(&self, raised: bool) {
        if self.wire.raised.swap(raised, Ordering::AcqRel) != raised {
            self.wire.sink.set_level(self.wire.number, raised);
        }
    }

    /// The input's number at the controller.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.wire.number
    }

    /// Whether the wire is high.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.wire.raised.load(Ordering::Acquire)
    }
}

impl fmt::Debug for InterruptLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterruptLine").field("number", &self.number()).field("raised", &self.is_raised()).finish()
    }
}
