//! A port by which a guest's kernel tells that it has failed: the pvpanic device of qemu's machines.
//!
//! Specification: qemu, `docs/specs/pvpanic.rst`. Reading port 0x505 tells which events are understood; writing tells of one.

use std::fmt;
use std::sync::Arc;

use machine::bus::{BusDevice, Width};

use crate::BoardDevice;
use crate::state::{self, State, StateError};

/// How many ports the device has.
pub const SIZE: u64 = 1;
const PANICKED: u64 = 1;

/// Whoever wants to know.
pub trait PanicListener: Send + Sync {
    /// The guest's kernel has failed. Called on the thread of the processor that tells.
    fn panicked(&self);
}

/// The port.
pub struct PvPanic {
    listener: Arc<dyn PanicListener>,
}

impl PvPanic {
    /// A port that tells `listener`.
    #[must_use]
    pub fn new(listener: Arc<dyn PanicListener>) -> Self {
        Self { listener }
    }
}

impl fmt::Debug for PvPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PvPanic").finish_non_exhaustive()
    }
}

impl BusDevice for PvPanic {
    fn read(&self, _offset: u64, _width: Width) -> u64 {
        PANICKED
    }

    fn write(&self, _offset: u64, _width: Width, value: u64) {
        if value & PANICKED != 0 {
            self.listener.panicked();
        }
    }
}

impl BoardDevice for PvPanic {
    fn reset(&self) {}
    fn pause(&self) {}
    fn resume(&self) {}
    fn save(&self) -> Result<State, StateError> {
        Ok(state::NOTHING)
    }
    fn restore(&self, state: &State) -> Result<(), StateError> {
        state::read_nothing(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    impl PanicListener for AtomicU32 {
        fn panicked(&self) {
            self.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_event_is_understood() {
        let count = Arc::new(AtomicU32::new(0));
        let port = PvPanic::new(Arc::clone(&count) as Arc<dyn PanicListener>);
        assert_eq!(port.read(0, Width::Byte), 1);
        port.write(0, Width::Byte, 2);
        port.write(0, Width::Byte, 1);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
