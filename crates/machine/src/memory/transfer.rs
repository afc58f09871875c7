//! Guest memory that the host's kernel reads and writes by itself, on behalf of devices.

use std::sync::Arc;

use super::GuestMemory;
use crate::address::GuestPhysical;
use crate::sys::{HostPiece, Ring, Transfer};

impl GuestMemory {
    /// Starts a request of `ring` between its file, from `offset` on, and these ranges of guest memory, with a token as [`Ring::start`] wants it. False, and
    /// nothing was started, if a range is not in RAM or there are more pieces than a request may have.
    ///
    /// After a read has ended, [`Self::note_transfer`] is to be called.
    pub fn start_transfer(
        self: &Arc<Self>,
        ring: &mut Ring,
        token: u32,
        transfer: Transfer,
        offset: u64,
        ranges: impl Iterator<Item = (GuestPhysical, usize)>,
    ) -> bool {
        let keeper = Arc::clone(self) as Arc<dyn Send + Sync>;
        let fill = |pieces: &mut Vec<HostPiece>| {
            for (at, length) in ranges {
                let found = self.pieces(at, length, |host, _, count| {
                    let Some(base) = std::ptr::NonNull::new(host) else { return };
                    let piece = HostPiece::new(base, count);
                    if !pieces.last_mut().is_some_and(|last| last.join(piece)) {
                        pieces.push(piece);
                    }
                });
                if found.is_err() {
                    return false;
                }
            }
            true
        };
        // SAFETY: frames stay where they are as long as the memory lives, which the keeper sees to, and no reference points into guest RAM.
        unsafe { ring.start(token, transfer, offset, keeper, fill) }
    }

    /// The host's kernel has written these ranges.
    pub fn note_transfer(&self, ranges: impl Iterator<Item = (GuestPhysical, usize)>) {
        for (at, length) in ranges {
            self.note_write(at, length);
        }
    }
}
