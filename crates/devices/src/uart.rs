//! Serial port: the 16550A with its FIFOs.
//!
//! Specification: National Semiconductor PC16550D data sheet, section 8. Registers are one byte apart:
//!
//! | offset | read | write | with `DLAB` |
//! |---|---|---|---|
//! | 0 | `RBR` received byte | `THR` byte to send | `DLL` divisor |
//! | 1 | `IER` | `IER` | `DLM` divisor |
//! | 2 | `IIR` | `FCR` | |
//! | 3, 4 | `LCR`, `MCR` | `LCR`, `MCR` | |
//! | 5, 6 | `LSR`, `MSR` | | |
//! | 7 | `SCR` | `SCR` | |
//!
//! There is no line, so the baud rate means nothing: a byte sent has left at once, and received bytes that do not reach the trigger level
//! report the character timeout at once.
//!
//! Output gathers in a buffer, and a worker hands it to the backend about a millisecond after its first byte, or as soon as there is much of it. So
//! a guest that prints a line byte by byte costs the host one write. When the backend falls behind by [`OUTPUT_SOFT_BYTES`] the
//! transmitter reports that it is not empty, and a guest waits as it does on a slow line; one that goes on sending nevertheless loses bytes beyond
//! [`OUTPUT_HARD_BYTES`]. Input that does not fit into the receive FIFO stays with the backend.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use machine::backend::{CharacterBackend, CharacterSink};
use machine::bus::{BusDevice, Width};
use machine::interrupt::InterruptLine;
use serde::{Deserialize, Serialize};

use crate::state::{self, State, StateError};
use crate::worker::{Crew, Next, Worker};
use crate::{BoardDevice, lock};

/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x100;
/// The input clock in Hz (the device tree's `clock-frequency`).
pub const CLOCK_HZ: u32 = 3_686_400;
/// Unsent output from which on the transmitter is not empty, in bytes.
pub const OUTPUT_SOFT_BYTES: usize = 4096;
/// The most unsent output kept, in bytes.
pub const OUTPUT_HARD_BYTES: usize = 1 << 20;

/// Output is sent once it is this large...
const GATHER_BYTES: usize = 1024;
/// ... or this old.
const GATHER_TIME: Duration = Duration::from_millis(1);

const FIFO_BYTES: usize = 16;

mod ier {
    pub(super) const RECEIVED: u8 = 1 << 0;
    pub(super) const TRANSMITTER_EMPTY: u8 = 1 << 1;
    pub(super) const LINE_STATUS: u8 = 1 << 2;
    pub(super) const MODEM_STATUS: u8 = 1 << 3;
    pub(super) const ALL: u8 = 0x0f;
}
mod iir {
    pub(super) const NONE: u8 = 0x1;
    pub(super) const LINE_STATUS: u8 = 0x6;
    pub(super) const RECEIVED: u8 = 0x4;
    pub(super) const TIMEOUT: u8 = 0xc;
    pub(super) const TRANSMITTER_EMPTY: u8 = 0x2;
    pub(super) const MODEM_STATUS: u8 = 0x0;
    pub(super) const FIFOS_ENABLED: u8 = 0xc0;
}
mod fcr {
    pub(super) const ENABLE: u8 = 1 << 0;
    pub(super) const CLEAR_RECEIVER: u8 = 1 << 1;
    /// The bits that stay: enable and trigger level.
    pub(super) const KEPT: u8 = 0xc9;
}
mod lcr {
    pub(super) const DLAB: u8 = 1 << 7;
}
mod mcr {
    pub(super) const DTR: u8 = 1 << 0;
    pub(super) const RTS: u8 = 1 << 1;
    pub(super) const OUT1: u8 = 1 << 2;
    pub(super) const OUT2: u8 = 1 << 3;
    pub(super) const LOOP: u8 = 1 << 4;
    pub(super) const ALL: u8 = 0x1f;
}
mod lsr {
    pub(super) const DATA_READY: u8 = 1 << 0;
    pub(super) const OVERRUN: u8 = 1 << 1;
    pub(super) const TRANSMITTER_EMPTY: u8 = 0x60;
}
mod msr {
    pub(super) const CTS: u8 = 1 << 4;
    pub(super) const DSR: u8 = 1 << 5;
    pub(super) const RI: u8 = 1 << 6;
    pub(super) const DCD: u8 = 1 << 7;
    /// The other end is there and ready.
    pub(super) const CONNECTED: u8 = CTS | DSR | DCD;
}

/// The registers and the receive FIFO: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// Interrupt enable.
    pub ier: u8,
    /// FIFO control, without the bits that act once.
    pub fcr: u8,
    /// Line control.
    pub lcr: u8,
    /// Modem control.
    pub mcr: u8,
    /// Modem status: levels in the upper half, changes since the last read in the lower.
    pub msr: u8,
    /// Scratch.
    pub scr: u8,
    /// The divisor latch.
    pub divisor: [u8; 2],
    /// Received bytes, oldest first; `fifo_count` of them.
    pub fifo: [u8; FIFO_BYTES],
    /// How many bytes of `fifo` are in use.
    pub fifo_count: usize,
    /// A received byte was lost since `LSR` was last read.
    pub overrun: bool,
    /// The transmitter takes a byte.
    pub transmitter_empty: bool,
    /// The transmitter became empty, and nobody has acknowledged it.
    pub transmitter_interrupt: bool,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            msr: msr::CONNECTED,
            scr: 0,
            divisor: [0; 2],
            fifo: [0; FIFO_BYTES],
            fifo_count: 0,
            overrun: false,
            transmitter_empty: true,
            transmitter_interrupt: false,
        }
    }
}

impl Registers {
    fn capacity(&self) -> usize {
        if self.fcr & fcr::ENABLE != 0 { FIFO_BYTES } else { 1 }
    }

    fn trigger(&self) -> usize {
        match (self.fcr & fcr::ENABLE, self.fcr >> 6) {
            (0, _) | (_, 0) => 1,
            (_, 1) => 4,
            (_, 2) => 8,
            _ => 14,
        }
    }

    fn has_dlab(&self) -> bool {
        self.lcr & lcr::DLAB != 0
    }

    /// How many bytes can be received without loss. None in loopback: the line is cut.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.mcr & mcr::LOOP != 0 { 0 } else { self.capacity() - self.fifo_count.min(self.capacity()) }
    }

    /// A byte arrives. If there is no room it is lost, and the guest can see that.
    pub fn receive(&mut self, byte: u8) {
        if self.fifo_count < self.capacity() {
            self.fifo[self.fifo_count] = byte;
            self.fifo_count += 1;
        } else {
            self.overrun = true;
        }
    }

    /// Says whether the transmitter takes more bytes.
    pub fn set_transmitter_empty(&mut self, empty: bool) {
        if empty && !self.transmitter_empty {
            self.transmitter_interrupt = true;
        }
        self.transmitter_empty = empty;
    }

    /// The highest-priority interrupt that is pending and enabled, as the low bits of `IIR`.
    fn interrupt_id(&self) -> u8 {
        if self.ier & ier::LINE_STATUS != 0 && self.overrun {
            iir::LINE_STATUS
        } else if self.ier & ier::RECEIVED != 0 && self.fifo_count >= self.trigger() {
            iir::RECEIVED
        } else if self.ier & ier::RECEIVED != 0 && self.fifo_count > 0 {
            iir::TIMEOUT
        } else if self.ier & ier::TRANSMITTER_EMPTY != 0 && self.transmitter_interrupt {
            iir::TRANSMITTER_EMPTY
        } else if self.ier & ier::MODEM_STATUS != 0 && self.msr & 0x0f != 0 {
            iir::MODEM_STATUS
        } else {
            iir::NONE
        }
    }

    /// The level of the interrupt line.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.interrupt_id() != iir::NONE
    }

    /// Sets the modem status levels, noting what changed.
    fn set_modem_status(&mut self, levels: u8) {
        let changed = (self.msr ^ levels) & 0xf0;
        // The ring indicator counts only when it falls.
        let noted = changed & !(msr::RI & levels);
        self.msr = levels | (self.msr & 0x0f) | (noted >> 4);
    }

    /// Reads the register at `offset` (0 to 7).
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            0 | 1 if self.has_dlab() => self.divisor[usize::from(offset == 1)],
            0 => {
                let byte = self.fifo[0];
                if self.fifo_count > 0 {
                    self.fifo.copy_within(1.., 0);
                    self.fifo_count -= 1;
                }
                byte
            }
            1 => self.ier,
            2 => {
                let id = self.interrupt_id();
                if id == iir::TRANSMITTER_EMPTY {
                    self.transmitter_interrupt = false;
                }
                if self.fcr & fcr::ENABLE != 0 { id | iir::FIFOS_ENABLED } else { id }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let mut value = 0;
                if self.fifo_count > 0 {
                    value |= lsr::DATA_READY;
                }
                if self.transmitter_empty {
                    value |= lsr::TRANSMITTER_EMPTY;
                }
                if std::mem::take(&mut self.overrun) {
                    value |= lsr::OVERRUN;
                }
                value
            }
            6 => {
                let value = self.msr;
                self.msr &= 0xf0;
                value
            }
            7 => self.scr,
            _ => 0,
        }
    }

    /// Writes the register at `offset` (0 to 7). Answers the byte that leaves on the line, if one does.
    pub fn write(&mut self, offset: u64, value: u8) -> Option<u8> {
        match offset {
            0 | 1 if self.has_dlab() => self.divisor[usize::from(offset == 1)] = value,
            0 => {
                // The byte leaves at once, so the transmitter is empty again: the next interrupt.
                self.transmitter_interrupt = self.transmitter_empty;
                if self.mcr & mcr::LOOP == 0 {
                    return Some(value);
                }
                self.receive(value);
            }
            1 => {
                let new = value & ier::ALL;
                // Enabling it with an empty transmitter interrupts at once.
                if new & !self.ier & ier::TRANSMITTER_EMPTY != 0 {
                    self.transmitter_interrupt = self.transmitter_empty;
                }
                self.ier = new;
            }
            2 => {
                if (value ^ self.fcr) & fcr::ENABLE != 0 || value & fcr::CLEAR_RECEIVER != 0 {
                    self.fifo_count = 0;
                }
                // Without the enable bit the other bits are not written.
                self.fcr = if value & fcr::ENABLE != 0 { value & fcr::KEPT } else { 0 };
            }
            3 => self.lcr = value,
            4 => {
                self.mcr = value & mcr::ALL;
                let wires = [(mcr::RTS, msr::CTS), (mcr::DTR, msr::DSR), (mcr::OUT1, msr::RI), (mcr::OUT2, msr::DCD)];
                self.set_modem_status(if value & mcr::LOOP == 0 {
                    msr::CONNECTED
                } else {
                    wires.iter().filter(|(out, _)| value & out != 0).fold(0, |levels, (_, input)| levels | input)
                });
            }
            7 => self.scr = value,
            _ => {}
        }
        None
    }
}

struct Inner {
    port: Mutex<Port>,
    line: InterruptLine,
    backend: Arc<dyn CharacterBackend>,
    /// Held while output goes to the backend, so that it arrives in order.
    sending: Mutex<Vec<u8>>,
}

struct Port {
    registers: Registers,
    output: Vec<u8>,
    /// The backend was told that there is no room; tell it when there is.
    input_waits: bool,
    paused_count: u32,
}

impl Inner {
    fn send_output(&self) {
        let mut batch = lock(&self.sending);
        batch.clear();
        {
            let mut port = lock(&self.port);
            std::mem::swap(&mut port.output, &mut *batch);
            port.registers.set_transmitter_empty(true);
            self.line.set(port.registers.interrupt());
        }
        if !batch.is_empty() {
            self.backend.send(&batch);
        }
    }

    /// If the backend waits for room and there is some now: says so, without the lock.
    fn tell_room(&self, mut port: MutexGuard<'_, Port>) {
        let room = port.registers.room();
        // Half empty is soon enough, and then more than one byte fits.
        if port.input_waits && port.paused_count == 0 && room > 0 && room * 2 >= port.registers.capacity() {
            port.input_waits = false;
            drop(port);
            self.backend.ready();
        }
    }
}

impl CharacterSink for Inner {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut port = lock(&self.port);
        let count = if port.paused_count > 0 { 0 } else { port.registers.room().min(bytes.len()) };
        for byte in &bytes[..count] {
            port.registers.receive(*byte);
        }
        port.input_waits = count < bytes.len();
        self.line.set(port.registers.interrupt());
        count
    }

    /// A serial line does not carry the size.
    fn resize(&self, _columns: u16, _rows: u16) {}
}

/// The serial port on the bus.
pub struct Uart {
    inner: Arc<Inner>,
    writer: Worker,
}

impl Uart {
    /// A port whose interrupt is `line` and whose other end is `backend`.
    ///
    /// # Errors
    /// The host gives no thread for the output.
    pub fn new(line: InterruptLine, backend: Arc<dyn CharacterBackend>, crew: &Crew) -> io::Result<Self> {
        let port = Port { registers: Registers::default(), output: Vec::new(), input_waits: false, paused_count: 0 };
        let inner = Arc::new(Inner {
            port: Mutex::new(port),
            line,
            backend: Arc::clone(&backend),
            sending: Mutex::new(Vec::new()),
        });
        let theirs = Arc::clone(&inner);
        let mut gathering = false;
        let writer = Worker::hire(crew, "uart", move |_| {
            let length = lock(&theirs.port).output.len();
            if length == 0 {
                gathering = false;
                return Next::Kick;
            }
            gathering = !gathering && length < GATHER_BYTES;
            if gathering {
                return Next::Within(GATHER_TIME);
            }
            theirs.send_output();
            Next::Kick
        })?;
        backend.attach(Arc::clone(&inner) as Arc<dyn CharacterSink>);
        Ok(Self { inner, writer })
    }

    /// Returns when all that the guest has printed is with the backend.
    pub fn flush(&self) {
        self.inner.send_output();
    }
}

impl fmt::Debug for Uart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uart").field("registers", &lock(&self.inner.port).registers).finish_non_exhaustive()
    }
}

impl Drop for Uart {
    fn drop(&mut self) {
        self.flush();
    }
}

impl BusDevice for Uart {
    fn read(&self, offset: u64, _width: Width) -> u64 {
        let mut port = lock(&self.inner.port);
        let value = port.registers.read(offset);
        self.inner.line.set(port.registers.interrupt());
        if offset == 0 {
            self.inner.tell_room(port);
        }
        value.into()
    }

    fn write(&self, offset: u64, _width: Width, value: u64) {
        let mut guard = lock(&self.inner.port);
        let port = &mut *guard;
        let sent = port.registers.write(offset, value.to_le_bytes()[0]);
        let mut kick = false;
        if let Some(byte) = sent.filter(|_| port.output.len() < OUTPUT_HARD_BYTES) {
            port.output.push(byte);
            let length = port.output.len();
            kick = length == 1 || length == GATHER_BYTES;
            if length >= OUTPUT_SOFT_BYTES {
                port.registers.set_transmitter_empty(false);
                port.registers.transmitter_interrupt = false;
            }
        }
        self.inner.line.set(port.registers.interrupt());
        // Clearing the FIFO and leaving loopback make room.
        if matches!(offset, 2 | 4) {
            self.inner.tell_room(guard);
        } else {
            drop(guard);
        }
        if kick {
            self.writer.kick();
        }
    }
}

impl BoardDevice for Uart {
    fn reset(&self) {
        self.flush();
        let mut port = lock(&self.inner.port);
        port.registers = Registers::default();
        self.inner.line.set(false);
        self.inner.tell_room(port);
    }

    /// What the guest has printed goes out first: the backend is no part of the machine, and a paused machine's screen shows all.
    fn pause(&self) {
        lock(&self.inner.port).paused_count += 1;
        self.flush();
        self.writer.pause();
    }

    fn resume(&self) {
        self.writer.resume();
        let mut port = lock(&self.inner.port);
        port.paused_count = port.paused_count.saturating_sub(1);
        self.inner.tell_room(port);
    }

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&lock(&self.inner.port).registers))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        let registers: Registers = state::read(state)?;
        state::ensure(registers.fifo_count <= FIFO_BYTES, "a serial port has more characters than room")?;
        let mut port = lock(&self.inner.port);
        port.registers = registers;
        self.inner.line.set(port.registers.interrupt());
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/uart.rs"]
mod tests;
