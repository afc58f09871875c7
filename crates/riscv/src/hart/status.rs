//! Bits of `mstatus`, of the environment configuration registers, and of the interrupt registers.

/// Bits of `mstatus`, of which `sstatus` is a part.
pub mod mstatus {
    /// S-mode takes interrupts.
    pub const SIE: u64 = 1 << 1;
    /// M-mode takes interrupts.
    pub const MIE: u64 = 1 << 3;
    /// `SIE` before the trap.
    pub const SPIE: u64 = 1 << 5;
    /// `MIE` before the trap.
    pub const MPIE: u64 = 1 << 7;
    /// The trap to S-mode came from S-mode.
    pub const SPP: u64 = 1 << 8;
    /// Where the mode before the trap to M-mode begins.
    pub const MPP_SHIFT: u32 = 11;
    /// The mode before the trap to M-mode.
    pub const MPP: u64 = 3 << MPP_SHIFT;
    /// State of the floating-point registers: off, initial, clean, dirty.
    pub const FS: u64 = 3 << 13;
    /// Floating-point state initial.
    pub const FS_INITIAL: u64 = 1 << 13;
    /// Data accesses are made in mode `MPP`.
    pub const MPRV: u64 = 1 << 17;
    /// S-mode may load from and store to U-mode's pages.
    pub const SUM: u64 = 1 << 18;
    /// Executable pages are readable.
    pub const MXR: u64 = 1 << 19;
    /// `satp` and `sfence.vma` trap in S-mode.
    pub const TVM: u64 = 1 << 20;
    /// `wfi` traps below M-mode.
    pub const TW: u64 = 1 << 21;
    /// `sret` traps in S-mode.
    pub const TSR: u64 = 1 << 22;
    /// U-mode and S-mode have 64 bits; read-only.
    pub const UXL_SXL: u64 = 2 << 32 | 2 << 34;
    /// Some state is dirty; read-only.
    pub const SD: u64 = 1 << 63;

    /// What `mstatus` stores.
    pub const WRITABLE: u64 = SIE | MIE | SPIE | MPIE | SPP | MPP | FS | MPRV | SUM | MXR | TVM | TW | TSR;
    /// What `sstatus` stores.
    pub const SUPERVISOR_WRITABLE: u64 = SIE | SPIE | SPP | FS | SUM | MXR;
    /// What `sstatus` shows.
    pub const SUPERVISOR_VISIBLE: u64 = SUPERVISOR_WRITABLE | 2 << 32 | SD;
}

/// Bits of `menvcfg`; `senvcfg` has the low ones.
pub mod envcfg {
    /// Fences of I/O imply memory.
    pub const FIOM: u64 = 1;
    /// Where the field for `cbo.inval` begins.
    pub const CBIE_SHIFT: u32 = 4;
    /// `cbo.inval`: 0 traps, 1 flushes, 3 invalidates.
    pub const CBIE: u64 = 3 << CBIE_SHIFT;
    /// `cbo.clean` and `cbo.flush` are allowed.
    pub const CBCFE: u64 = 1 << 6;
    /// `cbo.zero` is allowed.
    pub const CBZE: u64 = 1 << 7;
    /// Svadu is on.
    pub const ADUE: u64 = 1 << 61;
    /// Svpbmt is on.
    pub const PBMTE: u64 = 1 << 62;
    /// Sstc is on.
    pub const STCE: u64 = 1 << 63;

    /// What `senvcfg` stores.
    pub const SUPERVISOR_WRITABLE: u64 = FIOM | CBIE | CBCFE | CBZE;
    /// What `menvcfg` stores, but for `ADUE`, which depends.
    pub const WRITABLE: u64 = SUPERVISOR_WRITABLE | PBMTE | STCE;
}

/// Bits of `mip` and `mie`.
pub mod pending {
    use crate::hart::signals::interrupt as number;

    /// Supervisor software interrupt.
    pub const SSI: u64 = 1 << number::SSI;
    /// Machine software interrupt.
    pub const MSI: u64 = 1 << number::MSI;
    /// Supervisor timer interrupt.
    pub const STI: u64 = 1 << number::STI;
    /// Machine timer interrupt.
    pub const MTI: u64 = 1 << number::MTI;
    /// Supervisor external interrupt.
    pub const SEI: u64 = 1 << number::SEI;
    /// Machine external interrupt.
    pub const MEI: u64 = 1 << number::MEI;
    /// Those that can be delegated.
    pub const SUPERVISOR: u64 = SSI | STI | SEI;
    /// All.
    pub const ALL: u64 = SUPERVISOR | MSI | MTI | MEI;
}

/// Bits of `medeleg` that can be set: every exception that happens below M-mode. Misaligned fetches do not, with compressed instructions.
pub const DELEGABLE: u64 = 0xb3fe;

/// `misa`: 64 bits, A B C D F I M S U.
pub const MISA: u64 = 2 << 62 | 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12 | 1 << 18 | 1 << 20;
