//! System controller: one register by which the guest powers the machine off or restarts it.
//!
//! It is the SiFive test finisher, which Linux drives as `syscon-poweroff` and `syscon-reboot` and bare-metal programs write directly.
//! A 32-bit write at offset 0 means:
//!
//! | bits 15:0 | meaning |
//! |---|---|
//! | `0x5555` | power off, success |
//! | `0x7777` | restart |
//! | `0x3333` | power off, failure; bits 31:16 are the status |
//!
//! Anything else does nothing. The device has no state.

use std::fmt;
use std::sync::Arc;

use machine::bus::{BusDevice, Width};

use crate::BoardDevice;
use crate::state::{self, State, StateError};

/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x1000;

/// What a guest asks of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// Switch off; the guest's work is done.
    PowerOff,
    /// Switch off; the guest gives this status.
    Fail(u16),
    /// Start again from the beginning.
    Reboot,
}

impl PowerRequest {
    /// The request that writing `value` to the register makes, if it makes one.
    #[must_use]
    pub const fn parse(value: u32) -> Option<Self> {
        match value & 0xffff {
            0x5555 => Some(Self::PowerOff),
            0x7777 => Some(Self::Reboot),
            // The upper half, so nothing is cut off.
            0x3333 => Some(Self::Fail((value >> 16) as u16)),
            _ => None,
        }
    }
}

/// Whoever can switch the machine.
pub trait PowerSwitch: Send + Sync {
    /// The guest asks for `request`. Called on the thread of the hart that asks, which goes on running until the switch stops it.
    fn request(&self, request: PowerRequest);
}

/// The system controller on the bus.
pub struct Syscon {
    switch: Arc<dyn PowerSwitch>,
}

impl Syscon {
    /// A controller that passes requests to `switch`.
    #[must_use]
    pub fn new(switch: Arc<dyn PowerSwitch>) -> Self {
        Self { switch }
    }
}

impl fmt::Debug for Syscon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Syscon").finish_non_exhaustive()
    }
}

impl BusDevice for Syscon {
    fn read(&self, _offset: u64, _width: Width) -> u64 {
        0
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        // A 16-bit write is enough for the requests without a status.
        let (0, Width::Half | Width::Word, Ok(value)) = (offset, width, u32::try_from(width.truncate(value))) else {
            return;
        };
        if let Some(request) = PowerRequest::parse(value) {
            self.switch.request(request);
        }
    }
}

impl BoardDevice for Syscon {
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
    use crate::lock;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<PowerRequest>>);
    impl PowerSwitch for Recorder {
        fn request(&self, request: PowerRequest) {
            lock(&self.0).push(request);
        }
    }

    #[test]
    fn knows_three_words() {
        let recorder = Arc::new(Recorder::default());
        let syscon = Syscon::new(Arc::clone(&recorder) as Arc<dyn PowerSwitch>);
        for (offset, width, value) in [
            (0, Width::Word, 0x5555),
            (0, Width::Word, 0x7777),
            (0, Width::Word, 0x002a_3333),
            (0, Width::Half, 0x5555),
            (0, Width::Word, 0x1234),
            (4, Width::Word, 0x5555),
            (0, Width::Byte, 0x5555),
        ] {
            syscon.write(offset, width, value);
        }
        use PowerRequest::*;
        assert_eq!(*lock(&recorder.0), [PowerOff, Reboot, Fail(42), PowerOff]);
        assert_eq!(syscon.read(0, Width::Word), 0);
    }
}
