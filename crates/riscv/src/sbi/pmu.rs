//! The performance monitoring unit of the SBI (chapter 11): one state for each hart.
//!
//! | counter | |
//! |---|---|
//! | 0 | `cycle` |
//! | 1 | not there (its number would be that of `time`) |
//! | 2 | `instret` |
//! | 3 ... | firmware events, any event in any counter |
//!
//! Without a counter overflow interrupt, kernels count with these but do not sample. The counters' registers belong to the hart; this
//! module reaches them through [`Hardware`].

use super::Error;

/// How many counter numbers there are.
pub const COUNTERS_COUNT: usize = 3 + FIRMWARE_COUNTERS_COUNT;
const FIRMWARE_COUNTERS_COUNT: usize = 13;
const FIRST_FIRMWARE: usize = 3;
const FIRMWARE_EVENTS_COUNT: usize = 13;

const FLAG_SKIP_MATCH: u64 = 1;
const FLAG_CLEAR_VALUE: u64 = 2;
const FLAG_AUTO_START: u64 = 4;
const FLAG_SET_INITIAL_VALUE: u64 = 1;
const FLAG_STOP_RESET: u64 = 1;

/// The two counters that are registers of the hart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// `mcycle`.
    Cycle,
    /// `minstret`.
    Instret,
}

/// The counters of the hart that calls.
pub trait Hardware {
    /// Sets the counter's value.
    fn set_value(&mut self, counter: Fixed, value: u64);
    /// Lets the counter count, or not (`mcountinhibit`).
    fn set_running(&mut self, counter: Fixed, running: bool);
}

/// Events that the monitor counts for a hart (chapter 11.5); the numbers are those of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// The hart set its timer.
    SetTimer = 5,
    /// The hart sent an inter-processor interrupt.
    InterruptSent = 6,
    /// The hart asked others for `fence.i`.
    FenceInstructionsSent = 8,
    /// The hart asked others for `sfence.vma` in all address spaces.
    FenceTranslationsSent = 10,
    /// The hart asked others for `sfence.vma` in one address space.
    FenceAddressSpaceSent = 12,
}

/// A set of counters: `base + n` for every bit `n` of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    base: u64,
    mask: u64,
}

impl Set {
    /// The counters, if they all have a valid number and there is at least one.
    fn numbers(self) -> Result<impl Iterator<Item = usize> + Clone, Error> {
        let Self { base, mask } = self;
        let last = base.saturating_add(u64::from(63 - mask.leading_zeros().min(63)));
        if mask == 0 || last >= COUNTERS_COUNT as u64 {
            return Err(Error::InvalidParameter);
        }
        let base = usize::try_from(base).map_err(|_| Error::InvalidParameter)?;
        Ok((base..COUNTERS_COUNT).filter(move |number| mask >> (number - base) & 1 == 1))
    }
}

/// A call of this extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `sbi_pmu_num_counters`.
    Count,
    /// `sbi_pmu_counter_get_info` of this counter.
    Info(u64),
    /// `sbi_pmu_counter_config_matching`.
    Configure {
        /// The counters to choose from.
        set: Set,
        /// The flags of the call.
        flags: u64,
        /// The event.
        event: u64,
    },
    /// `sbi_pmu_counter_start`.
    Start {
        /// The counters.
        set: Set,
        /// The flags of the call.
        flags: u64,
        /// Their value, if a flag says so.
        initial: u64,
    },
    /// `sbi_pmu_counter_stop`.
    Stop {
        /// The counters.
        set: Set,
        /// The flags of the call.
        flags: u64,
    },
    /// `sbi_pmu_counter_fw_read`.
    Read(u64),
    /// `sbi_pmu_counter_fw_read_hi`: nothing, with 64-bit registers.
    ReadHigh(u64),
}

impl Call {
    /// The call of `function` with the argument registers `a`.
    ///
    /// # Errors
    /// There is no such function.
    pub(super) fn decode(function: u64, a: &[u64; 8]) -> Result<Self, Error> {
        let set = Set { base: a[0], mask: a[1] };
        match function {
            0 => Ok(Self::Count),
            1 => Ok(Self::Info(a[0])),
            2 => Ok(Self::Configure { set, flags: a[2], event: a[3] }),
            3 => Ok(Self::Start { set, flags: a[2], initial: a[3] }),
            4 => Ok(Self::Stop { set, flags: a[2] }),
            5 => Ok(Self::Read(a[0])),
            6 => Ok(Self::ReadHigh(a[0])),
            _ => Err(Error::NotSupported),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    /// What it counts; `None` if it is free.
    event: Option<u64>,
    running: bool,
    /// Firmware counters: the value while it stands still, else the value less the event's count.
    value: u64,
}

/// The state of one hart.
#[derive(Clone, Debug, Default)]
pub struct Pmu {
    counters: [Counter; COUNTERS_COUNT],
    events: [u64; FIRMWARE_EVENTS_COUNT],
}

const EVENT_CYCLES: u64 = 1;
const EVENT_INSTRUCTIONS: u64 = 2;

/// The number of the firmware event that `event` names, if it is one that is counted ([`Event`]).
fn firmware_event(event: u64) -> Option<usize> {
    let code = usize::try_from(event & 0xffff).ok()?;
    (event >> 16 == 15 && matches!(code, 5 | 6 | 8 | 10 | 12)).then_some(code)
}

fn fixed(number: usize) -> Option<Fixed> {
    match number {
        0 => Some(Fixed::Cycle),
        2 => Some(Fixed::Instret),
        _ => None,
    }
}

fn can_count(number: usize, event: u64) -> bool {
    match number {
        0 => event == EVENT_CYCLES,
        1 => false,
        2 => event == EVENT_INSTRUCTIONS,
        _ => firmware_event(event).is_some(),
    }
}

impl Pmu {
    /// Counts `event`.
    pub fn count(&mut self, event: Event) {
        self.events[event as usize] = self.events[event as usize].wrapping_add(1);
    }

    /// Does `call`; the value for `a1`.
    ///
    /// # Errors
    /// As the specification says for each call.
    pub fn call(&mut self, call: Call, hardware: &mut impl Hardware) -> Result<u64, Error> {
        match call {
            Call::Count => Ok(COUNTERS_COUNT as u64),
            Call::Info(number) => info(number),
            Call::Configure { set, flags, event } => self.configure(set, flags, event, hardware),
            Call::Start { set, flags, initial } => {
                let initial = (flags & FLAG_SET_INITIAL_VALUE != 0).then_some(initial);
                self.start(set.numbers()?, initial, hardware)
            }
            Call::Stop { set, flags } => self.stop(set.numbers()?, flags & FLAG_STOP_RESET != 0, hardware),
            Call::Read(number) => self.read(number),
            Call::ReadHigh(number) => self.read(number).map(|_| 0),
        }
    }

    fn configure(&mut self, set: Set, flags: u64, event: u64, hardware: &mut impl Hardware) -> Result<u64, Error> {
        let mut numbers = set.numbers()?;
        let found = if flags & FLAG_SKIP_MATCH != 0 {
            numbers.next().filter(|number| self.counters[*number].event.is_some())
        } else {
            numbers.find(|number| can_count(*number, event) && self.counters[*number].event.is_none())
        };
        let number = found.ok_or(Error::NotSupported)?;
        self.counters[number].event = Some(event);
        if flags & FLAG_CLEAR_VALUE != 0 {
            self.set_value(number, 0, hardware);
        }
        if flags & FLAG_AUTO_START != 0 && !self.counters[number].running {
            self.start([number].into_iter(), None, hardware)?;
        }
        Ok(number as u64)
    }

    /// The present count of the event that a firmware counter counts.
    fn events(&self, number: usize) -> u64 {
        self.counters[number].event.and_then(firmware_event).map_or(0, |code| self.events[code])
    }

    fn set_value(&mut self, number: usize, value: u64, hardware: &mut impl Hardware) {
        match fixed(number) {
            Some(counter) => hardware.set_value(counter, value),
            None => {
                let past = if self.counters[number].running { self.events(number) } else { 0 };
                self.counters[number].value = value.wrapping_sub(past);
            }
        }
    }

    fn start(
        &mut self,
        numbers: impl Iterator<Item = usize> + Clone,
        initial: Option<u64>,
        hardware: &mut impl Hardware,
    ) -> Result<u64, Error> {
        if numbers.clone().any(|number| self.counters[number].event.is_none()) {
            return Err(Error::InvalidParameter);
        }
        let mut result = Ok(0);
        for number in numbers {
            if self.counters[number].running {
                result = Err(Error::AlreadyStarted);
                continue;
            }
            if let Some(value) = initial {
                self.set_value(number, value, hardware);
            }
            self.counters[number].running = true;
            match fixed(number) {
                Some(counter) => hardware.set_running(counter, true),
                None => self.counters[number].value = self.counters[number].value.wrapping_sub(self.events(number)),
            }
        }
        result
    }

    fn stop(
        &mut self,
        numbers: impl Iterator<Item = usize> + Clone,
        reset: bool,
        hardware: &mut impl Hardware,
    ) -> Result<u64, Error> {
        let mut result = Ok(0);
        for number in numbers {
            let stopped = if self.counters[number].running {
                match fixed(number) {
                    Some(counter) => hardware.set_running(counter, false),
                    None => self.counters[number].value = self.counters[number].value.wrapping_add(self.events(number)),
                }
                self.counters[number].running = false;
                true
            } else {
                false
            };
            if reset {
                self.counters[number] = Counter::default();
            } else if !stopped {
                result = Err(Error::AlreadyStopped);
            }
        }
        result
    }

    fn read(&self, number: u64) -> Result<u64, Error> {
        let number = usize::try_from(number).map_err(|_| Error::InvalidParameter)?;
        match self.counters.get(number) {
            Some(counter) if number >= FIRST_FIRMWARE && counter.event.is_some() => {
                let since = if counter.running { self.events(number) } else { 0 };
                Ok(counter.value.wrapping_add(since))
            }
            _ => Err(Error::InvalidParameter),
        }
    }
}

/// What kind of counter `number` is, as `sbi_pmu_counter_get_info` answers.
fn info(number: u64) -> Result<u64, Error> {
    const FIRMWARE: u64 = 1 << 63;
    const WIDTH_64: u64 = 63 << 12;
    match number {
        0 => Ok(WIDTH_64 | 0xc00),
        2 => Ok(WIDTH_64 | 0xc02),
        3.. if number < COUNTERS_COUNT as u64 => Ok(FIRMWARE),
        _ => Err(Error::InvalidParameter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Registers(Vec<(Fixed, Option<u64>, Option<bool>)>);
    impl Hardware for Registers {
        fn set_value(&mut self, counter: Fixed, value: u64) {
            self.0.push((counter, Some(value), None));
        }
        fn set_running(&mut self, counter: Fixed, running: bool) {
            self.0.push((counter, None, Some(running)));
        }
    }

    fn all() -> Set {
        Set { base: 0, mask: (1 << COUNTERS_COUNT) - 1 }
    }

    #[test]
    fn fixed_counters_drive_the_hart() {
        let (mut pmu, mut hart) = (Pmu::default(), Registers::default());
        let configure = |set, flags, event| Call::Configure { set, flags, event };
        assert_eq!(pmu.call(configure(all(), FLAG_CLEAR_VALUE, EVENT_INSTRUCTIONS), &mut hart), Ok(2));
        assert_eq!(pmu.call(configure(all(), 0, EVENT_INSTRUCTIONS), &mut hart), Err(Error::NotSupported), "taken");
        assert_eq!(pmu.call(configure(all(), 0, 3), &mut hart), Err(Error::NotSupported), "cache references");
        let set = Set { base: 2, mask: 1 };
        assert_eq!(pmu.call(Call::Start { set, flags: 1, initial: 77 }, &mut hart), Ok(0));
        assert_eq!(pmu.call(Call::Start { set, flags: 0, initial: 0 }, &mut hart), Err(Error::AlreadyStarted));
        assert_eq!(pmu.call(Call::Stop { set, flags: 0 }, &mut hart), Ok(0));
        assert_eq!(pmu.call(Call::Stop { set, flags: 0 }, &mut hart), Err(Error::AlreadyStopped));
        assert_eq!(pmu.call(Call::Stop { set, flags: FLAG_STOP_RESET }, &mut hart), Ok(0));
        assert_eq!(pmu.call(configure(all(), FLAG_AUTO_START, EVENT_INSTRUCTIONS), &mut hart), Ok(2), "free again");
        let instret = Fixed::Instret;
        assert_eq!(
            hart.0,
            [
                (instret, Some(0), None),
                (instret, Some(77), None),
                (instret, None, Some(true)),
                (instret, None, Some(false)),
                (instret, None, Some(true))
            ]
        );
    }

    #[test]
    fn firmware_counters_count_while_they_run() {
        let (mut pmu, mut hart) = (Pmu::default(), Registers::default());
        let event = 0xf_0000 | Event::SetTimer as u64;
        pmu.count(Event::SetTimer);
        assert_eq!(pmu.call(Call::Configure { set: all(), flags: 0, event }, &mut hart), Ok(3));
        assert_eq!(pmu.call(Call::Read(3), &mut hart), Ok(0));
        let set = Set { base: 3, mask: 1 };
        assert_eq!(pmu.call(Call::Start { set, flags: 1, initial: 10 }, &mut hart), Ok(0));
        pmu.count(Event::SetTimer);
        pmu.count(Event::InterruptSent);
        assert_eq!(pmu.call(Call::Read(3), &mut hart), Ok(11));
        assert_eq!(pmu.call(Call::ReadHigh(3), &mut hart), Ok(0));
        assert_eq!(pmu.call(Call::Stop { set, flags: 0 }, &mut hart), Ok(0));
        pmu.count(Event::SetTimer);
        assert_eq!(pmu.call(Call::Read(3), &mut hart), Ok(11));
        assert_eq!(pmu.call(Call::Read(0), &mut hart), Err(Error::InvalidParameter), "not a firmware counter");
    }

    #[test]
    fn odd_sets_are_invalid() {
        let (mut pmu, mut hart) = (Pmu::default(), Registers::default());
        for set in [
            Set { base: 0, mask: 0 },
            Set { base: COUNTERS_COUNT as u64, mask: 1 },
            Set { base: u64::MAX, mask: u64::MAX },
            Set { base: 0, mask: u64::MAX },
        ] {
            assert_eq!(pmu.call(Call::Stop { set, flags: 0 }, &mut hart), Err(Error::InvalidParameter));
        }
        let set = Set { base: 0, mask: 1 };
        assert_eq!(pmu.call(Call::Start { set, flags: 0, initial: 0 }, &mut hart), Err(Error::InvalidParameter));
        assert_eq!(pmu.call(Call::Info(1), &mut hart), Err(Error::InvalidParameter));
        assert_eq!(pmu.call(Call::Info(2), &mut hart), Ok(63 << 12 | 0xc02));
        assert_eq!(pmu.call(Call::Info(u64::MAX), &mut hart), Err(Error::InvalidParameter));
    }
}
