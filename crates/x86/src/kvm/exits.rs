//! How often a processor came out of the guest, by reason.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// Why a processor came out of the guest.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ExitKind {
            $($(#[$doc])* $name,)*
        }

        impl ExitKind {
            /// All of them, in the order of their numbers, and how they are called.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)*];
        }
    };
}

kinds! {
    /// An instruction that reads a port.
    PortRead: "exits port read",
    /// An instruction that writes a port.
    PortWrite: "exits port write",
    /// A read of an address that is not RAM.
    MmioRead: "exits mmio read",
    /// A write to an address that is not RAM.
    MmioWrite: "exits mmio write",
    /// The processor waits for an interrupt, and KVM has no interrupt controller for it.
    Halt: "exits halt",
    /// A signal came for the processor's thread.
    Signal: "exits signal",
    /// A processor that was not started yet has been; it is entered again.
    Again: "exits again",
    /// A triple fault.
    Shutdown: "exits shutdown",
    /// An interrupt of an I/O APIC that is not in the kernel was handled.
    EndOfInterrupt: "exits end of interrupt",
    /// For a debugger.
    Debug: "exits debug",
    /// KVM cannot go on.
    Failure: "exits failure",
}

/// Counts of exits. Written by the processor's thread, read by anyone.
#[derive(Debug, Default)]
pub struct Exits {
    counts: [AtomicU64; ExitKind::ALL.len()],
}

impl Exits {
    pub(super) fn note(&self, kind: ExitKind) {
        // There is one writer, so an addition in two steps loses nothing.
        let count = &self.counts[kind as usize];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How often for this reason.
    #[must_use]
    pub fn count(&self, kind: ExitKind) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// How often for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}
