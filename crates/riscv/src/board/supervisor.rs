//! The monitor as firmware: carries out the calls that [`crate::sbi`] decodes.

use std::sync::Arc;

use devices::aclint::TimeSource;
use devices::syscon::{PowerRequest, PowerSwitch};
use machine::GuestPhysical;
use machine::address::host_size;
use machine::bus::{BusDevice, Width};
use machine::memory::GuestMemory;

use super::hsm::{Entry, HartState};
use super::power::Switch;
use super::vcpu::{Core, Vcpu};
use crate::hart::{Fence as HartFence, Hart, interrupt};
use crate::sbi::pmu::{Event, Fixed, Hardware};
use crate::sbi::{Call, Error, Fence, Harts, Reset};

const CSR_STIMECMP: u16 = 0x14d;
const CSR_MIE: u16 = 0x304;
const CSR_MCOUNTINHIBIT: u16 = 0x320;
const CSR_MIP: u16 = 0x344;
const CSR_MCYCLE: u16 = 0xb00;
const CSR_MINSTRET: u16 = 0xb02;
const A0: u8 = 10;
const A1: u8 = 11;

/// Registers and bits of the serial port that the debug console uses (16550A).
const UART_DATA: u64 = 0;
const UART_LINE_STATUS: u64 = 5;
const UART_DATA_READY: u64 = 1;
const UART_TRANSMITTER_EMPTY: u64 = 0x20;
/// How much the debug console moves before it looks again whether it may.
const CONSOLE_CHUNK: u64 = 256;

/// Serves the supervisor calls of all harts.
pub(super) struct Supervisor {
    pub(super) time: Arc<TimeSource>,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) console: Arc<dyn BusDevice>,
    pub(super) switch: Switch,
}

/// What the calling hart does after its call.
pub(super) enum Then {
    /// It goes on.
    Run,
    /// It goes to the gate; its registers no longer matter.
    Leave,
}

/// How a call ends.
enum Outcome {
    /// With this in `a0` and `a1`.
    Answer(Result<u64, Error>),
    /// With this in `a0` alone.
    Legacy(u64),
    /// The registers are as they should be.
    Restarted,
    Leave,
}

impl Supervisor {
    /// Serves the call that hart `me` has just made.
    pub(super) fn call(&self, vcpus: &[Vcpu], me: &Vcpu, core: &mut Core) -> Then {
        let arguments = std::array::from_fn(|number| core.hart.x(A0 + u8::try_from(number).unwrap_or_default()));
        let outcome = match Call::decode(&arguments) {
            Ok(call) => self.perform(call, vcpus, me, core),
            Err(error) => Outcome::Answer(Err(error)),
        };
        match outcome {
            Outcome::Answer(answer) => {
                let (error, value) = answer.map_or_else(|error| (error.code(), 0), |value| (0, value));
                core.hart.set_x(A0, error);
                core.hart.set_x(A1, value);
            }
            Outcome::Legacy(value) => core.hart.set_x(A0, value),
            Outcome::Restarted => {}
            Outcome::Leave => return Then::Leave,
        }
        Then::Run
    }

    fn perform(&self, call: Call, vcpus: &[Vcpu], me: &Vcpu, core: &mut Core) -> Outcome {
        Outcome::Answer(match call {
            Call::Value(value) => Ok(value),
            Call::SetTimer(ticks) => {
                core.pmu.count(Event::SetTimer);
                core.hart.set_csr(CSR_STIMECMP, ticks);
                Ok(0)
            }
            Call::SendInterrupt(harts) => {
                core.pmu.count(Event::InterruptSent);
                harts.numbers(vcpus.len()).map(|numbers| {
                    for number in numbers {
                        vcpus[number].signals.set_interrupt(interrupt::SSI, true);
                    }
                    0
                })
            }
            Call::RemoteFence(harts, fence) => remote_fence(harts, fence, vcpus, me, core),
            Call::HartStart { hart, address, opaque } => self.hart_start(hart, Entry { address, opaque }, vcpus),
            Call::HartStop => {
                me.lifecycle.set(HartState::Stopped);
                if vcpus.iter().all(|vcpu| vcpu.lifecycle.get() == HartState::Stopped) {
                    self.switch.fault("every hart has stopped itself; nothing can start one again".into());
                }
                return Outcome::Restarted;
            }
            Call::HartStatus(hart) => {
                find(vcpus, hart).map(|vcpu| vcpu.lifecycle.get().number()).ok_or(Error::InvalidParameter)
            }
            Call::Suspend => {
                self.suspend(me, core);
                Ok(0)
            }
            Call::SuspendAndRestart { address, opaque } => {
                if !self.is_code(address) {
                    return Outcome::Answer(Err(Error::InvalidAddress));
                }
                self.suspend(me, core);
                me.restart(core, Entry { address, opaque });
                return Outcome::Restarted;
            }
            Call::SystemReset { kind, failed } => {
                self.switch.request(match kind {
                    Reset::Reboot => PowerRequest::Reboot,
                    Reset::Shutdown if failed => PowerRequest::Fail(1),
                    Reset::Shutdown => PowerRequest::PowerOff,
                });
                return Outcome::Leave;
            }
            Call::ConsoleWrite { size, address } => self.console_write(size, GuestPhysical(address)),
            Call::ConsoleRead { size, address } => self.console_read(size, GuestPhysical(address)),
            Call::ConsoleWriteByte(byte) => {
                // The guest is told neither to wait nor to try again, so a byte that there is no room for is lost.
                self.put_character(byte);
                Ok(0)
            }
            Call::Pmu(call) => {
                let Core { hart, pmu } = core;
                pmu.call(call, &mut Counters(hart))
            }
            Call::LegacyPutChar(byte) => {
                self.put_character(byte);
                return Outcome::Legacy(0);
            }
            Call::LegacyGetChar => return Outcome::Legacy(self.take_character().map_or(u64::MAX, u64::from)),
        })
    }

    fn is_code(&self, address: u64) -> bool {
        address.is_multiple_of(2) && self.memory.contains(GuestPhysical(address), 2)
    }

    fn hart_start(&self, hart: u64, entry: Entry, vcpus: &[Vcpu]) -> Result<u64, Error> {
        let vcpu = find(vcpus, hart).ok_or(Error::InvalidParameter)?;
        if !self.is_code(entry.address) {
            return Err(Error::InvalidAddress);
        }
        vcpu.lifecycle.request_start(entry)?;
        vcpu.signals.request_attention();
        Ok(0)
    }

    /// Sleeps until an interrupt that the hart has enabled is pending, or by mistake less long, as `wfi` may.
    fn suspend(&self, me: &Vcpu, core: &Core) {
        let register = |number| core.hart.csr(number).unwrap_or(0);
        if register(CSR_MIP) & register(CSR_MIE) == 0 {
            me.lifecycle.set(HartState::Suspended);
            me.sleep(core, &self.time);
            me.lifecycle.set(HartState::Started);
        }
    }

    fn put_character(&self, byte: u8) {
        self.console.write(UART_DATA, Width::Byte, byte.into());
    }

    fn take_character(&self) -> Option<u8> {
        let status = self.console.read(UART_LINE_STATUS, Width::Byte);
        (status & UART_DATA_READY != 0).then(|| self.console.read(UART_DATA, Width::Byte).to_le_bytes()[0])
    }

    fn console_write(&self, size: u64, address: GuestPhysical) -> Result<u64, Error> {
        if !self.memory.contains(address, size) {
            return Err(Error::InvalidParameter);
        }
        let mut written = 0;
        while written < size && self.console.read(UART_LINE_STATUS, Width::Byte) & UART_TRANSMITTER_EMPTY != 0 {
            let mut chunk = vec![0; host_size((size - written).min(CONSOLE_CHUNK))];
            self.memory.read(address.wrapping_add(written), &mut chunk).map_err(|_| Error::InvalidParameter)?;
            chunk.iter().for_each(|byte| self.put_character(*byte));
            written += chunk.len() as u64;
        }
        Ok(written)
    }

    fn console_read(&self, size: u64, address: GuestPhysical) -> Result<u64, Error> {
        if !self.memory.contains(address, size) {
            return Err(Error::InvalidParameter);
        }
        let room = host_size(size.min(CONSOLE_CHUNK));
        let bytes: Vec<u8> = std::iter::from_fn(|| self.take_character()).take(room).collect();
        self.memory.write(address, &bytes).map_err(|_| Error::InvalidParameter)?;
        Ok(bytes.len() as u64)
    }
}

fn find(vcpus: &[Vcpu], hart: u64) -> Option<&Vcpu> {
    vcpus.get(usize::try_from(hart).ok()?)
}

fn remote_fence(harts: Harts, fence: Fence, vcpus: &[Vcpu], me: &Vcpu, core: &mut Core) -> Result<u64, Error> {
    let numbers = harts.numbers(vcpus.len())?;
    let (event, fence) = match fence {
        Fence::Instructions => (Event::FenceInstructionsSent, HartFence::Instructions),
        Fence::Translations { start, size, address_space } => {
            let event =
                if address_space.is_some() { Event::FenceAddressSpaceSent } else { Event::FenceTranslationsSent };
            // A number that is no address space names none that could be cached; forgetting more than asked is allowed.
            let asid = address_space.and_then(|number| u16::try_from(number).ok());
            (event, HartFence::Translations { start, length: size, asid })
        }
    };
    core.pmu.count(event);
    let mut tickets = Vec::new();
    for number in numbers {
        if number == me.id {
            core.hart.fence(fence);
        } else {
            tickets.push((number, vcpus[number].signals.request_fence(fence)));
        }
    }
    for (number, ticket) in tickets {
        vcpus[number].signals.wait_for_fence(ticket);
    }
    Ok(0)
}

/// The counters of a hart, for the performance monitoring unit.
struct Counters<'a>(&'a mut Hart);

impl Hardware for Counters<'_> {
    fn set_value(&mut self, counter: Fixed, value: u64) {
        let number = match counter {
            Fixed::Cycle => CSR_MCYCLE,
            Fixed::Instret => CSR_MINSTRET,
        };
        self.0.set_csr(number, value);
    }

    fn set_running(&mut self, counter: Fixed, running: bool) {
        let bit = match counter {
            Fixed::Cycle => 1,
            Fixed::Instret => 4,
        };
        let inhibited = self.0.csr(CSR_MCOUNTINHIBIT).unwrap_or(0);
        self.0.set_csr(CSR_MCOUNTINHIBIT, if running { inhibited & !bit } else { inhibited | bit });
    }
}
