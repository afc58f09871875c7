//! The Supervisor Binary Interface, version 2.0: what the monitor does for a kernel that runs without a firmware.
//!
//! ```text
//!  ecall from S-mode --registers--> Call (decoded here, pure) --> the board does it --> Result<value, Error> --> a0, a1
//! ```
//!
//! This module turns registers into a [`Call`] whose parameters are valid as far as the call alone can tell, and says what each error is
//! worth in `a0`. It knows no hart and no memory; the board carries calls out, and answers for addresses and hart numbers.
//!
//! | extension | chapter | |
//! |---|---|---|
//! | base | 4 | answered here |
//! | legacy: console and shutdown | 5 | as far as early consoles of kernels use it |
//! | `TIME` | 6 | |
//! | `IPI` | 7 | |
//! | `RFNC` | 8 | without the calls for hypervisors |
//! | `HSM` | 9 | with suspension |
//! | `SRST` | 10 | |
//! | `PMU` | 11 | cycles, instructions and firmware events; no snapshot |
//! | `DBCN` | 12 | |

pub mod pmu;

/// The version of the specification: 2.0.
const SPECIFICATION: u64 = 2 << 24;
/// The implementation's number; this one is in nobody's list.
const IMPLEMENTATION: u64 = 0x6973_6f6d;
const IMPLEMENTATION_VERSION: u64 = 1;

/// Why a call failed (chapter 3, "Standard SBI Errors"); the number goes to `a0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Error {
    /// For no reason that has a number.
    Failed = -1,
    /// The call is not implemented.
    NotSupported = -2,
    /// A parameter is not valid.
    InvalidParameter = -3,
    /// An address is not valid.
    InvalidAddress = -5,
    /// The hart already runs.
    AlreadyAvailable = -6,
    /// The counter already counts.
    AlreadyStarted = -7,
    /// The counter already stands still.
    AlreadyStopped = -8,
}

impl Error {
    /// The number in `a0`.
    #[must_use]
    pub const fn code(self) -> u64 {
        (self as i64).cast_unsigned()
    }
}

/// A set of harts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harts {
    /// Every hart.
    All,
    /// The harts `base + n` for every bit `n` of `mask`.
    Mask {
        /// The hart of bit zero.
        base: u64,
        /// One bit a hart.
        mask: u64,
    },
}

impl Harts {
    fn decode(mask: u64, base: u64) -> Self {
        if base == u64::MAX { Self::All } else { Self::Mask { base, mask } }
    }

    /// The numbers of the harts, of a machine with `count` harts.
    ///
    /// # Errors
    /// One of them does not exist.
    pub fn numbers(self, count: usize) -> Result<impl Iterator<Item = usize>, Error> {
        let (base, mask) = match self {
            Self::All => (0, u64::MAX),
            Self::Mask { base, mask } => (base, mask),
        };
        let last = base.saturating_add(u64::from(63 - mask.leading_zeros().min(63)));
        if self != Self::All && (base >= count as u64 || (mask != 0 && last >= count as u64)) {
            return Err(Error::InvalidParameter);
        }
        let base = usize::try_from(base).unwrap_or(count);
        let bit = move |number: usize| number < base + 64 && mask >> (number - base) & 1 == 1;
        Ok((base..count).filter(move |number| self == Self::All || bit(*number)))
    }
}

/// What remote harts are to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Instructions fetched before (`fence.i`).
    Instructions,
    /// Translations (`sfence.vma`).
    Translations {
        /// The first virtual address.
        start: u64,
        /// How many bytes; `u64::MAX` for all addresses.
        size: u64,
        /// The address space; `None` for all.
        address_space: Option<u64>,
    },
}

/// How a machine is to end or start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Switch off.
    Shutdown,
    /// Start again from power-on, or without some of it; there is no difference here.
    Reboot,
}

/// A call with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Answered by the decoder: this value.
    Value(u64),
    /// `sbi_set_timer`: interrupt when `time` reaches this tick; not before if `u64::MAX`.
    SetTimer(u64),
    /// `sbi_send_ipi`: raise the supervisor software interrupt of these harts.
    SendInterrupt(Harts),
    /// `sbi_remote_*`: have these harts fence, and wait until they have.
    RemoteFence(Harts, Fence),
    /// `sbi_hart_start`.
    HartStart {
        /// The hart to start.
        hart: u64,
        /// Its first instruction, a physical address.
        address: u64,
        /// What it finds in `a1`.
        opaque: u64,
    },
    /// `sbi_hart_stop`: this hart.
    HartStop,
    /// `sbi_hart_get_status` of this hart.
    HartStatus(u64),
    /// `sbi_hart_suspend`: sleep until an interrupt is pending, then return.
    Suspend,
    /// `sbi_hart_suspend`, non-retentive: sleep until an interrupt is pending, then go on as a hart that was started.
    SuspendAndRestart {
        /// Its first instruction, a physical address.
        address: u64,
        /// What it finds in `a1`.
        opaque: u64,
    },
    /// `sbi_system_reset`.
    SystemReset {
        /// What is to happen.
        kind: Reset,
        /// Whether the guest does so because it failed.
        failed: bool,
    },
    /// `sbi_debug_console_write`.
    ConsoleWrite {
        /// How many bytes.
        size: u64,
        /// Where they are in physical memory.
        address: u64,
    },
    /// `sbi_debug_console_read`.
    ConsoleRead {
        /// At most how many bytes.
        size: u64,
        /// Where they go in physical memory.
        address: u64,
    },
    /// `sbi_debug_console_write_byte`.
    ConsoleWriteByte(u8),
    /// A call of the performance monitoring unit.
    Pmu(pmu::Call),
    /// Legacy `sbi_console_putchar`; answers in `a0` only.
    LegacyPutChar(u8),
    /// Legacy `sbi_console_getchar`; answers in `a0` only: the character, or -1.
    LegacyGetChar,
}

mod extension {
    pub(super) const LEGACY_PUT_CHAR: u64 = 1;
    pub(super) const LEGACY_GET_CHAR: u64 = 2;
    pub(super) const LEGACY_SHUTDOWN: u64 = 8;
    pub(super) const BASE: u64 = 0x10;
    pub(super) const TIME: u64 = 0x5449_4d45;
    pub(super) const IPI: u64 = 0x73_5049;
    pub(super) const RFENCE: u64 = 0x5246_4e43;
    pub(super) const HSM: u64 = 0x48_534d;
    pub(super) const RESET: u64 = 0x5352_5354;
    pub(super) const CONSOLE: u64 = 0x4442_434e;
    pub(super) const PMU: u64 = 0x50_4d55;
    pub(super) const ALL: [u64; 11] =
        [LEGACY_PUT_CHAR, LEGACY_GET_CHAR, LEGACY_SHUTDOWN, BASE, TIME, IPI, RFENCE, HSM, RESET, CONSOLE, PMU];
}

impl Call {
    /// The call that the argument registers `a0` to `a7` make: the extension is in `a7`, the function in `a6`.
    ///
    /// # Errors
    /// There is no such call, or its parameters are not valid whatever the machine.
    pub fn decode(a: &[u64; 8]) -> Result<Self, Error> {
        match (a[7], a[6]) {
            (extension::LEGACY_PUT_CHAR, _) => Ok(Self::LegacyPutChar(a[0].to_le_bytes()[0])),
            (extension::LEGACY_GET_CHAR, _) => Ok(Self::LegacyGetChar),
            (extension::LEGACY_SHUTDOWN, _) => Ok(Self::SystemReset { kind: Reset::Shutdown, failed: false }),
            (extension::BASE, function) => base(function, a[0]).map(Self::Value),
            (extension::TIME, 0) => Ok(Self::SetTimer(a[0])),
            (extension::IPI, 0) => Ok(Self::SendInterrupt(Harts::decode(a[0], a[1]))),
            (extension::RFENCE, function) => remote_fence(function, a),
            (extension::HSM, 0) => Ok(Self::HartStart { hart: a[0], address: a[1], opaque: a[2] }),
            (extension::HSM, 1) => Ok(Self::HartStop),
            (extension::HSM, 2) => Ok(Self::HartStatus(a[0])),
            (extension::HSM, 3) => match a[0] & 0xffff_ffff {
                0 => Ok(Self::Suspend),
                0x8000_0000 => Ok(Self::SuspendAndRestart { address: a[1], opaque: a[2] }),
                _ => Err(Error::InvalidParameter),
            },
            (extension::RESET, 0) => system_reset(a[0] & 0xffff_ffff, a[1] & 0xffff_ffff),
            // The upper half of the address is beyond any memory.
            (extension::CONSOLE, 0 | 1) if a[2] != 0 => Err(Error::InvalidParameter),
            (extension::CONSOLE, 0) => Ok(Self::ConsoleWrite { size: a[0], address: a[1] }),
            (extension::CONSOLE, 1) => Ok(Self::ConsoleRead { size: a[0], address: a[1] }),
            (extension::CONSOLE, 2) => Ok(Self::ConsoleWriteByte(a[0].to_le_bytes()[0])),
            (extension::PMU, function) => pmu::Call::decode(function, a).map(Self::Pmu),
            _ => Err(Error::NotSupported),
        }
    }

    /// Whether the call answers in `a0` alone, as those from before version 0.2 do.
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::LegacyPutChar(_) | Self::LegacyGetChar)
    }
}

fn base(function: u64, argument: u64) -> Result<u64, Error> {
    match function {
        0 => Ok(SPECIFICATION),
        1 => Ok(IMPLEMENTATION),
        2 => Ok(IMPLEMENTATION_VERSION),
        3 => Ok(u64::from(extension::ALL.contains(&argument))),
        // `mvendorid`, `marchid` and `mimpid` of our harts.
        4..=6 => Ok(0),
        _ => Err(Error::NotSupported),
    }
}

fn remote_fence(function: u64, a: &[u64; 8]) -> Result<Call, Error> {
    let (start, size) = if a[2] == 0 && a[3] == 0 { (0, u64::MAX) } else { (a[2], a[3]) };
    let fence = match function {
        0 => Fence::Instructions,
        1 => Fence::Translations { start, size, address_space: None },
        2 => Fence::Translations { start, size, address_space: Some(a[4]) },
        _ => return Err(Error::NotSupported),
    };
    Ok(Call::RemoteFence(Harts::decode(a[0], a[1]), fence))
}

fn system_reset(kind: u64, reason: u64) -> Result<Call, Error> {
    let kind = match kind {
        0 => Reset::Shutdown,
        1 | 2 => Reset::Reboot,
        _ => return Err(Error::InvalidParameter),
    };
    let failed = match reason {
        0 => false,
        1 => true,
        _ => return Err(Error::InvalidParameter),
    };
    Ok(Call::SystemReset { kind, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(harts: Harts, count: usize) -> Result<Vec<usize>, Error> {
        harts.numbers(count).map(Iterator::collect)
    }

    #[test]
    fn hart_masks() {
        assert_eq!(numbers(Harts::decode(0b101, 1), 4), Ok(vec![1, 3]));
        assert_eq!(numbers(Harts::decode(0b1001, 1), 4), Err(Error::InvalidParameter));
        assert_eq!(numbers(Harts::decode(0, 4), 4), Err(Error::InvalidParameter));
        assert_eq!(numbers(Harts::decode(0, 0), 4), Ok(vec![]));
        assert_eq!(numbers(Harts::decode(0, u64::MAX), 3), Ok(vec![0, 1, 2]));
        assert_eq!(numbers(Harts::decode(1, u64::MAX - 1), 3), Err(Error::InvalidParameter));
        assert_eq!(numbers(Harts::decode(u64::MAX, 64), 128).unwrap().len(), 64);
        assert_eq!(numbers(Harts::decode(1 << 63, 0), 128), Ok(vec![63]));
        assert_eq!(numbers(Harts::decode(0, u64::MAX), 100).unwrap().len(), 100);
    }

    #[test]
    fn unknown_calls_are_not_supported() {
        let call = |extension, function| Call::decode(&[0, 0, 0, 0, 0, 0, function, extension]);
        assert_eq!(call(0x1234_5678, 0), Err(Error::NotSupported));
        for extension in extension::ALL.iter().filter(|id| **id >= 0x10) {
            assert_eq!(call(*extension, 99), Err(Error::NotSupported), "{extension:#x}");
        }
        assert_eq!(Error::NotSupported.code(), u64::MAX - 1);
    }

    #[test]
    fn reserved_parameters_are_invalid() {
        let call = |a0, a1, extension, function| Call::decode(&[a0, a1, 0, 0, 0, 0, function, extension]);
        let invalid = Err(Error::InvalidParameter);
        assert_eq!(call(1, 0, extension::HSM, 3), invalid);
        assert_eq!(call(0x9000_0000, 0, extension::HSM, 3), invalid);
        assert_eq!(
            call(0xffff_ffff_8000_0000, 7, extension::HSM, 3),
            Ok(Call::SuspendAndRestart { address: 7, opaque: 0 })
        );
        assert_eq!(call(3, 0, extension::RESET, 0), invalid);
        assert_eq!(call(0, 2, extension::RESET, 0), invalid);
        assert_eq!(call(1, 1, extension::RESET, 0), Ok(Call::SystemReset { kind: Reset::Reboot, failed: true }));
        assert_eq!(Call::decode(&[1, 2, 3, 0, 0, 0, 0, extension::CONSOLE]), invalid);
    }

    #[test]
    fn probing_finds_what_is_there() {
        let probe = |id| Call::decode(&[id, 0, 0, 0, 0, 0, 3, extension::BASE]);
        assert_eq!(probe(extension::HSM), Ok(Call::Value(1)));
        assert_eq!(probe(0x5355_5350), Ok(Call::Value(0)), "there is no system suspension");
    }
}
