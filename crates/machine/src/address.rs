//! Newtypes for addresses, so that mixing two address spaces does not compile.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in a page of guest memory (4 KiB on every kind of machine here).
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Base-2 logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// A guest size or offset as a host size. Hosts have 64-bit addresses, so nothing is lost.
#[must_use]
#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
pub const fn host_size(bytes: u64) -> usize {
    const { assert!(size_of::<usize>() == size_of::<u64>(), "hosts have 64-bit addresses") };
    bytes as usize
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address rounded down to its page.
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// The byte offset inside the page.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// The address `bytes` further on, wrapping at 2^64 as address arithmetic of the guest does.
            #[must_use]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// The address `bytes` further on, or `None` past 2^64.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// An address on the guest's physical bus.
    GuestPhysical
}
address! {
    /// An address as a guest program uses it, before translation.
    GuestVirtual
}
