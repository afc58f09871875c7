//! A disk whose changes are kept in memory and forgotten with it: the disk underneath stays as it is.
//!
//! For runs that are to begin from the same disk again. Pages of [`PAGE_BYTES`] are copied at their first write; reads take pages from memory that were
//! written and the rest from below. Memory grows with what is written, up to the size of the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use machine::address::host_size;
use machine::backend::BlockBackend;

/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;

type Page = Box<[u8]>;

/// See the [module](self).
pub struct ScratchDisk {
    below: Arc<dyn BlockBackend>,
    written: RwLock<BTreeMap<u64, Page>>,
}

/// Cuts a range of bytes at the borders of pages: page number, offset in it, and the part of the range.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE_BYTES).unwrap_or(0);
        let count = (length - done).min(usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX) - within);
        let piece = (at / PAGE_BYTES, within, done..done + count);
        done += count;
        (count > 0).then_some(piece)
    })
}

impl ScratchDisk {
    /// A disk that reads as `below` does.
    #[must_use]
    pub fn new(below: Arc<dyn BlockBackend>) -> Self {
        Self { below, written: RwLock::default() }
    }

    /// Writes what `piece` gives for each part of the range.
    fn write_pieces<'a>(
        &self,
        offset: u64,
        length: usize,
        piece: impl Fn(std::ops::Range<usize>) -> &'a [u8],
    ) -> io::Result<()> {
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        for (number, within, range) in pieces(offset, length) {
            let bytes = piece(range);
            let page = match written.entry(number) {
                std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let start = number * PAGE_BYTES;
                    // The last page may be cut short by the end of the disk.
                    let size = usize::try_from(PAGE_BYTES.min(self.below.size() - start)).unwrap_or(0);
                    let mut page = vec![0; size].into_boxed_slice();
                    self.below.read_at(start, &mut page)?;
                    place.insert(page)
                }
            };
            page[within..within + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }
}

impl BlockBackend for ScratchDisk {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn is_read_only(&self) -> bool {
        self.below.is_read_only()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.below.read_at(offset, bytes)?;
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        for (number, within, range) in pieces(offset, bytes.len()) {
            if let Some(page) = written.get(&number) {
                let count = range.len();
                bytes[range].copy_from_slice(&page[within..within + count]);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_pieces(offset, bytes.len(), |range| &bytes[range])
    }

    /// Nothing is to be durable.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// The content stays, so that a discarded range reads the same in every run.
    fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _unmap: bool) -> io::Result<()> {
        const ZEROES: [u8; host_size(PAGE_BYTES)] = [0; host_size(PAGE_BYTES)];
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.write_pieces(offset, length, |range| &ZEROES[..range.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk that must not be written.
    struct Below(Mutex<Vec<u8>>);

    impl BlockBackend for Below {
        fn size(&self) -> u64 {
            self.0.lock().unwrap().len() as u64
        }
        fn is_read_only(&self) -> bool {
            false
        }
        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            let offset = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(&self.0.lock().unwrap()[offset..offset + bytes.len()]);
            Ok(())
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            panic!("the disk below is left alone")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn discard(&self, _: u64, _: u64) -> io::Result<()> {
            panic!("the disk below is left alone")
        }
        fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
            panic!("the disk below is left alone")
        }
    }

    #[test]
    fn it_is_the_disk_below_and_what_was_written() {
        // Its last page is half a page.
        let mut model: Vec<u8> = (0..10 * 4096 + 2048_u32).map(|n| n.to_le_bytes()[0]).collect();
        let disk = ScratchDisk::new(Arc::new(Below(Mutex::new(model.clone()))));
        for (offset, length, fill) in [(0, 512, 1), (4000, 9000, 2), (40_960, 2048, 3), (4096, 4096, 4), (12_287, 2, 5)]
        {
            disk.write_at(offset as u64, &vec![fill; length]).unwrap();
            model[offset..offset + length].fill(fill);
        }
        disk.write_zeroes(20_000, 10_000, true).unwrap();
        model[20_000..30_000].fill(0);
        disk.discard(0, 4096).unwrap();
        disk.flush().unwrap();
        for (offset, length) in [(0, model.len()), (3999, 2), (19_999, 10_002), (43_007, 1)] {
            let mut bytes = vec![0; length];
            disk.read_at(offset as u64, &mut bytes).unwrap();
            assert!(bytes == model[offset..offset + length], "{offset} {length}");
        }
        assert_eq!(disk.size(), 43_008);
    }
}
