//! The I/O APIC of PC boards: makes messages to processors of interrupt lines.
//!
//! Specification: Intel 82093AA data sheet; what a message means is the SDM's, volume 3, section 12.11.
//!
//! ```text
//! line --> pin --- entry of the table: vector, destination, edge or level, mask ---> message ([`Sink`])
//!            ^                                                                           |
//!            +---- of a level: nothing more until its end of interrupt <--- processor <--+
//! ```
//!
//! A board has one where the host's kernel has only the local APICs; else it is the kernel's.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::bus::{BusDevice, Width};
use machine::interrupt::InterruptSink;
use serde::{Deserialize, Serialize};

use crate::pci::Message;
use crate::state::{self, State, StateError};
use crate::{BoardDevice, lock};

/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x1000;
/// Its inputs.
pub const PINS_COUNT: usize = 24;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
/// The first register of the table; two of 32 bits for each pin.
const TABLE: u8 = 0x10;
/// 24 entries, of the version that has no register for ends of interrupts.
const VERSION: u32 = 23 << 16 | 0x11;
/// Where messages to local APICs go.
const LOCAL_APICS: u64 = 0xfee0_0000;

/// Bits of an entry.
mod entry {
    /// Vector and delivery mode, as a message has them.
    pub(super) const VECTOR: u64 = 0xff;
    pub(super) const MODE: u64 = 7 << 8;
    pub(super) const LOWEST_PRIORITY: u64 = 1 << 8;
    pub(super) const LOGICAL: u64 = 1 << 11;
    pub(super) const IN_SERVICE: u64 = 1 << 14;
    pub(super) const LEVEL: u64 = 1 << 15;
    pub(super) const MASKED: u64 = 1 << 16;
    pub(super) const DESTINATION: u32 = 56;
    /// What a guest can write.
    pub(super) const WRITABLE: u64 = 0xff << DESTINATION | MASKED | LEVEL | 1 << 13 | LOGICAL | MODE | VECTOR;
}

/// Where messages go. Calls come from any thread with the device's lock held: they must not call back.
pub trait Sink: Send + Sync {
    /// Delivers a message.
    fn send(&self, message: Message);

    /// What `pin` sends from now on, whether it is masked or not; for who has to know which vectors are levels.
    fn route(&self, pin: usize, message: Message);
}

/// The registers: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// Which register the window is.
    pub select: u8,
    /// The number of the controller, which nobody looks at.
    pub id: u8,
    /// The table.
    pub entries: [u64; PINS_COUNT],
    /// The levels of the inputs.
    pub levels: [bool; PINS_COUNT],
}

impl Default for Registers {
    fn default() -> Self {
        Self { select: 0, id: 0, entries: [entry::MASKED; PINS_COUNT], levels: [false; PINS_COUNT] }
    }
}

fn half(value: u64, upper: bool) -> u32 {
    u32::try_from(if upper { value >> 32 } else { value & 0xffff_ffff }).unwrap_or(0)
}

impl Registers {
    /// What `pin` sends.
    #[must_use]
    pub fn message(&self, pin: usize) -> Message {
        let bits = self.entries[pin];
        let logical = if bits & entry::LOGICAL != 0 { 1 << 2 } else { 0 };
        // "Redirection hint": one of several may be chosen.
        let hint = if bits & entry::MODE == entry::LOWEST_PRIORITY { 1 << 3 } else { 0 };
        let level = if bits & entry::LEVEL != 0 { 1 << 15 | 1 << 14 } else { 0 };
        Message {
            address: LOCAL_APICS | bits >> entry::DESTINATION << 12 | hint | logical,
            data: half(bits & (entry::MODE | entry::VECTOR), false) | level,
        }
    }

    /// The message that `pin`, whose level is high, sends now, if it does.
    fn fire(&mut self, pin: usize) -> Option<Message> {
        let bits = &mut self.entries[pin];
        if *bits & entry::MASKED != 0 {
            return None;
        }
        if *bits & entry::LEVEL != 0 {
            if *bits & entry::IN_SERVICE != 0 {
                return None;
            }
            *bits |= entry::IN_SERVICE;
        }
        Some(self.message(pin))
    }

    /// Input `pin` has another level now.
    pub fn set_level(&mut self, pin: usize, raised: bool) -> Option<Message> {
        let level = self.levels.get_mut(pin)?;
        let was_raised = std::mem::replace(level, raised);
        if raised && !was_raised { self.fire(pin) } else { None }
    }

    /// A processor is done with `vector`: pins whose level is still high send again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Vec<Message> {
        let mut again = Vec::new();
        for pin in 0..PINS_COUNT {
            let bits = &mut self.entries[pin];
            if *bits & (entry::LEVEL | entry::IN_SERVICE | entry::VECTOR)
                == entry::LEVEL | entry::IN_SERVICE | u64::from(vector)
            {
                *bits &= !entry::IN_SERVICE;
                if self.levels[pin] {
                    again.extend(self.fire(pin));
                }
            }
        }
        again
    }

    /// The pin whose entry is selected, and whether it is the upper half.
    fn selected(&self) -> Option<(usize, bool)> {
        let index = self.select.checked_sub(TABLE)?;
        let pin = usize::from(index / 2);
        (pin < PINS_COUNT).then_some((pin, index % 2 == 1))
    }

    /// Reads the register in the window.
    #[must_use]
    pub fn read(&self) -> u32 {
        match (self.select, self.selected()) {
            (0 | 2, _) => u32::from(self.id) << 24,
            (1, _) => VERSION,
            (_, Some((pin, upper))) => half(self.entries[pin], upper),
            _ => 0,
        }
    }

    /// Writes the register in the window. Answers which pin has another entry now, and what it sends at once.
    pub fn write(&mut self, value: u32) -> Option<(usize, Option<Message>)> {
        if self.select == 0 {
            self.id = value.to_le_bytes()[3] & 0xf;
        }
        let (pin, upper) = self.selected()?;
        let old = self.entries[pin];
        let written = match upper {
            false => old & !0xffff_ffff | u64::from(value),
            true => old & 0xffff_ffff | u64::from(value) << 32,
        };
        let mut new = old & !entry::WRITABLE | written & entry::WRITABLE;
        // Kernels end a level's service by making it an edge for a moment.
        if new & entry::LEVEL == 0 {
            new &= !entry::IN_SERVICE;
        }
        self.entries[pin] = new;
        let waits = self.levels[pin] && new & entry::LEVEL != 0;
        let message = if waits { self.fire(pin) } else { None };
        Some((pin, message))
    }
}

/// The controller on the bus.
pub struct IoApic {
    registers: Mutex<Registers>,
    sink: Arc<dyn Sink>,
}

impl IoApic {
    /// A controller that sends its messages to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { registers: Mutex::default(), sink }
    }

    /// A processor is done with `vector`.
    pub fn end_of_interrupt(&self, vector: u8) {
        let mut registers = lock(&self.registers);
        registers.end_of_interrupt(vector).into_iter().for_each(|message| self.sink.send(message));
    }

    fn route_all(&self, registers: &Registers) {
        (0..PINS_COUNT).for_each(|pin| self.sink.route(pin, registers.message(pin)));
    }
}

impl fmt::Debug for IoApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoApic").field("registers", &self.registers).finish_non_exhaustive()
    }
}

impl InterruptSink for IoApic {
    fn set_level(&self, number: u32, raised: bool) {
        let mut registers = lock(&self.registers);
        let pin = usize::try_from(number).unwrap_or(PINS_COUNT);
        if let Some(message) = registers.set_level(pin, raised) {
            self.sink.send(message);
        }
    }
}

impl BusDevice for IoApic {
    fn read(&self, offset: u64, _width: Width) -> u64 {
        let registers = lock(&self.registers);
        match offset {
            SELECT => registers.select.into(),
            WINDOW => registers.read().into(),
            _ => 0,
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let mut registers = lock(&self.registers);
        match offset {
            SELECT => registers.select = value.to_le_bytes()[0],
            WINDOW if width == Width::Word => {
                let value = half(value, false);
                if let Some((pin, message)) = registers.write(value) {
                    self.sink.route(pin, registers.message(pin));
                    message.into_iter().for_each(|message| self.sink.send(message));
                }
            }
            _ => {}
        }
    }
}

impl BoardDevice for IoApic {
    /// The levels of the inputs are the devices', and stay.
    fn reset(&self) {
        let mut registers = lock(&self.registers);
        *registers = Registers { levels: registers.levels, ..Registers::default() };
        self.route_all(&registers);
    }

    fn pause(&self) {}
    fn resume(&self) {}

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&*lock(&self.registers)))
    }

    /// To be restored before the devices at its inputs: those raise their lines anew, and what is in service is not sent again.
    fn restore(&self, state: &State) -> Result<(), StateError> {
        let saved: Registers = state::read(state)?;
        let mut registers = lock(&self.registers);
        let entries = saved.entries.map(|bits| bits & (entry::WRITABLE | entry::IN_SERVICE));
        *registers = Registers { entries, levels: registers.levels, ..saved };
        self.route_all(&registers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Processors {
        sent: Mutex<Vec<Message>>,
        routes: Mutex<Vec<(usize, Message)>>,
    }

    impl Sink for Processors {
        fn send(&self, message: Message) {
            lock(&self.sent).push(message);
        }
        fn route(&self, pin: usize, message: Message) {
            lock(&self.routes).push((pin, message));
        }
    }

    fn device() -> (Arc<Processors>, IoApic) {
        let processors = Arc::new(Processors::default());
        (Arc::clone(&processors), IoApic::new(processors))
    }

    fn write(device: &IoApic, register: u64, value: u64) {
        device.write(SELECT, Width::Word, register);
        device.write(WINDOW, Width::Word, value);
    }

    fn read(device: &IoApic, register: u64) -> u64 {
        device.write(SELECT, Width::Word, register);
        device.read(WINDOW, Width::Word)
    }

    #[test]
    fn edges_are_sent_once_each() {
        let (processors, device) = device();
        assert_eq!(read(&device, 1), 0x17_0011);
        assert_eq!((read(&device, 0x18), read(&device, 0x19)), (0x1_0000, 0));
        device.set_level(4, true);
        device.set_level(4, false);
        write(&device, 0x19, 0x0300_0000);
        write(&device, 0x18, 0x0931);
        let message = Message { address: 0xfee0_300c, data: 0x131 };
        assert_eq!(lock(&processors.routes).last(), Some(&(4, message)));
        assert!(lock(&processors.sent).is_empty(), "what came while it was masked is lost");
        for _ in 0..2 {
            device.set_level(4, true);
            device.set_level(4, false);
        }
        device.end_of_interrupt(0x31);
        assert_eq!(*lock(&processors.sent), [message; 2]);
        device.set_level(99, true);
        write(&device, 0x40, 1);
        assert_eq!(read(&device, 0x40), 0);
    }

    #[test]
    fn levels_wait_for_their_end() {
        let (processors, device) = device();
        let sent = || std::mem::take(&mut *lock(&processors.sent)).len();
        write(&device, 0x22, 0x1_8040);
        device.set_level(9, true);
        assert_eq!(sent(), 0);
        write(&device, 0x22, 0x8040);
        assert_eq!((sent(), read(&device, 0x22)), (1, 0xc040), "it is sent when it is unmasked");
        device.end_of_interrupt(0x41);
        assert_eq!(sent(), 0);
        device.end_of_interrupt(0x40);
        assert_eq!(sent(), 1, "it is still high");
        device.set_level(9, false);
        device.set_level(9, true);
        assert_eq!(sent(), 0);
        // As Linux ends a service without the end of interrupt.
        write(&device, 0x22, 0x1_0040);
        write(&device, 0x22, 0x8040);
        assert_eq!(sent(), 1);
        device.set_level(9, false);
        device.end_of_interrupt(0x40);
        assert_eq!((sent(), read(&device, 0x22)), (0, 0x8040));
    }

    #[test]
    fn a_service_goes_on_in_another_controller() {
        let (_, old) = device();
        write(&old, 0x22, 0x8040);
        old.set_level(9, true);
        let (processors, new) = device();
        new.restore(&old.save().unwrap()).unwrap();
        assert_eq!(lock(&processors.routes).len(), PINS_COUNT);
        new.set_level(9, true);
        assert!(lock(&processors.sent).is_empty(), "it was sent before");
        new.end_of_interrupt(0x40);
        assert_eq!(lock(&processors.sent).len(), 1);
        new.reset();
        assert_eq!(read(&new, 0x22), 0x1_0000);
    }
}
