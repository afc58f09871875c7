//! How a pull tells its caller how far it is.

use std::fmt;

/// What a pull is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Another pull runs; this one begins when that ends.
    Waiting,
    /// Fetching and checking the archive's index. No total.
    Index,
    /// Fetching packages; counted in bytes.
    Download,
    /// Unpacking packages; counted in packages.
    Unpack,
    /// Laying out kernel, initramfs and file system; counted in steps.
    Layout,
    /// The guest configures its packages; counted in packages.
    Configure,
    /// Making it durable. No total.
    Finish,
}

impl Phase {
    /// Whether positions and totals of the phase are bytes.
    #[must_use]
    pub fn counts_bytes(self) -> bool {
        self == Self::Download
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for another pull",
            Self::Index => "reading the archive's index",
            Self::Download => "downloading packages",
            Self::Unpack => "unpacking packages",
            Self::Layout => "making the file system",
            Self::Configure => "configuring packages in the guest",
            Self::Finish => "finishing",
        })
    }
}

/// Hears how far a pull is.
pub trait Progress {
    /// `phase` begins at position 0 of `total`; a total of 0 is not known.
    fn phase(&mut self, phase: Phase, total: u64);

    /// The present phase has come to `position`, and is busy with `detail` (a package's name, or empty).
    fn position(&mut self, position: u64, detail: &str);

    /// Something that the user should know but that does not stop the pull, on one line.
    fn note(&mut self, text: &str);
}

/// Hears nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&mut self, _: Phase, _: u64) {}
    fn position(&mut self, _: u64, _: &str) {}
    fn note(&mut self, _: &str) {}
}
