//! Memory for blocks: pieces are handed out one behind the other, and given back all at once.
//!
//! Code that runs once is decoded at the speed at which the host gives memory, so a program of some size gets it in large pages.

use std::ptr::NonNull;

use machine::sys::Mapping;

/// Pieces begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 16;
/// What a small program gets by with.
const FIRST_CHUNK: usize = 256 << 10;
/// What comes then: one of the host's large pages.
const CHUNK: usize = 2 << 20;

/// See the module.
#[derive(Default)]
pub(crate) struct Arena {
    chunks: Vec<Mapping>,
    /// Bytes of the last chunk that are handed out.
    used: usize,
    size: usize,
}

impl Arena {
    /// Memory for `bytes`, of whatever content, for its caller alone until [`Self::clear`]. None if the host gives none, or for more than a chunk has.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        if self.chunks.last().is_none_or(|chunk| chunk.size() - self.used < bytes) {
            let chunk = if self.chunks.is_empty() {
                Mapping::new(FIRST_CHUNK).inspect(Mapping::populate)
            } else {
                Mapping::aligned(CHUNK, CHUNK).inspect(Mapping::prefer_large_pages)
            };
            let chunk = chunk.ok().filter(|chunk| bytes <= chunk.size())?;
            self.size += chunk.size();
            self.chunks.push(chunk);
            self.used = 0;
        }
        // SAFETY: as many bytes are left behind those that are handed out.
        let piece = unsafe { self.chunks.last()?.start().add(self.used) };
        self.used += bytes;
        Some(piece)
    }

    /// Bytes that it has of the host's memory, used or not.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Frees all pieces. Nobody may use one any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_overlap() {
        let mut arena = Arena::default();
        let mut pieces = Vec::new();
        for number in 0..3000_usize {
            let bytes = 1 + number * 7 % 2000;
            let piece = arena.allocate(bytes).unwrap();
            assert_eq!(piece.addr().get() % ALIGNMENT, 0);
            // SAFETY: it has so many bytes.
            unsafe { piece.write_bytes(number.to_le_bytes()[0], bytes) };
            pieces.push((piece, bytes));
        }
        for (number, (piece, bytes)) in pieces.iter().enumerate() {
            // SAFETY: as above, and all are written.
            let content = unsafe { std::slice::from_raw_parts(piece.as_ptr(), *bytes) };
            assert!(content.iter().all(|byte| *byte == number.to_le_bytes()[0]));
        }
        assert_eq!(arena.size(), FIRST_CHUNK + 2 * CHUNK);
        arena.clear();
        assert_eq!(arena.size(), 0);
        assert!(arena.allocate(FIRST_CHUNK + 1).is_none());
    }
}
