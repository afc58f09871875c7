//! From virtual addresses to host addresses.
//!
//! ```text
//!   virtual address
//!        |  hit: compare one tag, add one word            (tlb)
//!        |  miss
//!        v
//!   page walk, accessed and dirty bits                    (walk)
//!        v
//!   physical address --> physical memory protection       (pmp)
//!        v
//!   frame of guest memory, or a device on the bus
//! ```
//!
//! The module knows nothing of harts: whoever translates says under which [`Rules`](walk::Rules).
//!
//! Privileged specification: chapter "Supervisor-Level ISA", sections on Sv39, Sv48, Sv57, Svnapot, Svpbmt, Svadu;
//! chapter "Machine-Level ISA", section on physical memory protection.

pub mod pmp;
pub mod tlb;
pub mod walk;

/// What an access wants of memory. Atomic operations are stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An instruction fetch.
    Fetch,
    /// A load.
    Load,
    /// A store or an atomic operation.
    Store,
}

/// Which accesses are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Permissions {
    /// Everything is allowed.
    pub const ALL: Self = Self { read: true, write: true, execute: true };
    /// Nothing is allowed.
    pub const NONE: Self = Self { read: false, write: false, execute: false };

    /// Whether `access` is allowed.
    #[must_use]
    pub fn allow(self, access: Access) -> bool {
        match access {
            Access::Fetch => self.execute,
            Access::Load => self.read,
            Access::Store => self.write,
        }
    }

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { read: self.read && other.read, write: self.write && other.write, execute: self.execute && other.execute }
    }
}

/// Why an address could not be translated or accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The page tables forbid it.
    Page,
    /// There is nothing there, or physical memory protection forbids it.
    Access,
}
