//! Bytes in flight through a TCP connection, in chunks from one pool.
//!
//! A connection that carries nothing holds no memory; one that carries a bulk transfer holds up to its window. The pool
//! bounds the sum over all connections, so a guest that opens many and fills them all meets a full pool, not a host
//! without memory.
//!
//! ```text
//! chunks: [....####] [########] [###.....]      head = 4, length = 15
//! ```

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};

/// Bytes in a chunk.
const CHUNK: usize = 32 << 10;
/// Chunks kept for reuse rather than given back to the allocator.
const SPARE_CHUNKS: usize = 64;
/// Chunks that one read or write of a socket spans at most.
const SPAN: usize = 8;

/// Where chunks come from.
pub(crate) struct Pool {
    spare: Vec<Box<[u8]>>,
    used: usize,
    limit: usize,
}

impl Pool {
    /// A pool of at most `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { spare: Vec::new(), used: 0, limit: bytes / CHUNK }
    }

    /// Whether more than half is in use: time for connections to be modest.
    pub(crate) fn is_tight(&self) -> bool {
        self.used > self.limit / 2
    }

    fn take(&mut self) -> Option<Box<[u8]>> {
        if self.used == self.limit {
            return None;
        }
        self.used += 1;
        Some(self.spare.pop().unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice()))
    }

    fn give(&mut self, chunk: Box<[u8]>) {
        self.used -= 1;
        if self.spare.len() < SPARE_CHUNKS {
            self.spare.push(chunk);
        }
    }
}

/// A queue of bytes. Its owner calls [`Self::clear`] before dropping it, to give the chunks back.
#[derive(Default)]
pub(crate) struct Buffer {
    chunks: VecDeque<Box<[u8]>>,
    /// Bytes of the first chunk that are already consumed; below `CHUNK`.
    head: usize,
    length: usize,
}

impl Buffer {
    /// Bytes queued.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn room(&self) -> usize {
        self.chunks.len() * CHUNK - self.head - self.length
    }

    /// Appends `bytes`, or as many as the pool has room for; answers how many.
    pub(crate) fn push(&mut self, pool: &mut Pool, mut bytes: &[u8]) -> usize {
        let before = self.length;
        while !bytes.is_empty() {
            if self.room() == 0 {
                match pool.take() {
                    Some(chunk) => self.chunks.push_back(chunk),
                    None => break,
                }
            }
            let used = CHUNK - self.room();
            let Some(last) = self.chunks.back_mut() else { break };
            let count = bytes.len().min(CHUNK - used);
            last[used..used + count].copy_from_slice(&bytes[..count]);
            self.length += count;
            bytes = &bytes[count..];
        }
        self.length - before
    }

    /// Appends what `read` puts into the slices it is given, at most `most` bytes. `None` if the pool is exhausted.
    pub(crate) fn fill(
        &mut self,
        pool: &mut Pool,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let first = (self.head + self.length) / CHUNK;
        while self.room() < most && self.chunks.len() < first + SPAN {
            match pool.take() {
                Some(chunk) => self.chunks.push_back(chunk),
                None => break,
            }
        }
        let most = most.min(self.room());
        if most == 0 {
            return None;
        }
        let mut slices = Vec::with_capacity(SPAN);
        let (mut skip, mut left) = ((self.head + self.length) % CHUNK, most);
        for chunk in self.chunks.iter_mut().skip(first) {
            let count = left.min(CHUNK - skip);
            slices.push(IoSliceMut::new(&mut chunk[skip..skip + count]));
            (skip, left) = (0, left - count);
            if left == 0 {
                break;
            }
        }
        let result = read(&mut slices).map(|count| count.min(most));
        if let Ok(count) = result {
            self.length += count;
        }
        let needed = (self.head + self.length).div_ceil(CHUNK);
        while self.chunks.len() > needed {
            if let Some(chunk) = self.chunks.pop_back() {
                pool.give(chunk);
            }
        }
        self.trim(pool);
        Some(result)
    }

    /// Hands the front of the queue to `write` and consumes what it answers to have taken.
    pub(crate) fn drain(
        &mut self,
        pool: &mut Pool,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let slices: Vec<_> = self.slices(0, self.length).take(SPAN).map(IoSlice::new).collect();
        let count = write(&slices)?.min(self.length);
        self.consume(pool, count);
        Ok(count)
    }

    /// The bytes from `offset`, `length` of them (or as many as there are), as pieces in order.
    pub(crate) fn slices(&self, offset: usize, length: usize) -> impl Iterator<Item = &[u8]> {
        let length = length.min(self.length.saturating_sub(offset));
        let start = self.head + offset;
        let (mut skip, mut left) = (start % CHUNK, length);
        self.chunks.iter().skip(start / CHUNK).map_while(move |chunk| {
            let count = left.min(CHUNK - skip);
            let piece = &chunk[skip..skip + count];
            (skip, left) = (0, left - count);
            (count > 0).then_some(piece)
        })
    }

    /// Drops `count` bytes from the front.
    pub(crate) fn consume(&mut self, pool: &mut Pool, count: usize) {
        let count = count.min(self.length);
        self.head += count;
        self.length -= count;
        while self.head >= CHUNK {
            self.head -= CHUNK;
            if let Some(chunk) = self.chunks.pop_front() {
                pool.give(chunk);
            }
        }
        self.trim(pool);
    }

    /// An empty queue holds no chunk.
    fn trim(&mut self, pool: &mut Pool) {
        if self.length == 0 {
            self.head = 0;
            self.chunks.drain(..).for_each(|chunk| pool.give(chunk));
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.consume(pool, self.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents(buffer: &Buffer) -> Vec<u8> {
        buffer.slices(0, buffer.len()).flatten().copied().collect()
    }

    #[test]
    fn a_full_pool_takes_no_more_and_gets_all_back() {
        let mut pool = Pool::new(2 * CHUNK);
        let (mut a, mut b) = (Buffer::default(), Buffer::default());
        assert_eq!(a.push(&mut pool, &vec![1; CHUNK]), CHUNK);
        assert_eq!(b.push(&mut pool, &vec![2; 3 * CHUNK]), CHUNK);
        assert!(a.fill(&mut pool, 1, |_| Ok(1)).is_none());
        a.clear(&mut pool);
        b.clear(&mut pool);
        assert_eq!(pool.used, 0);
        assert_eq!(a.push(&mut pool, &[1]), 1);
        assert_eq!(a.fill(&mut pool, 5, |_| Err(io::ErrorKind::WouldBlock.into())).map(|r| r.is_err()), Some(true));
        assert_eq!(contents(&a), [1]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Fill(usize, usize),
        Drain(usize),
        Consume(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = 0..3 * CHUNK;
        prop_oneof![
            size.clone().prop_map(Step::Push),
            (size.clone(), size.clone()).prop_map(|(most, count)| Step::Fill(most, count)),
            size.clone().prop_map(Step::Drain),
            size.prop_map(Step::Consume),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_queue(steps in proptest::collection::vec(step(), 0..20)) {
            let mut pool = Pool::new(10 * CHUNK);
            let mut buffer = Buffer::default();
            let mut model = VecDeque::new();
            let mut next = 0u8;
            let mut fresh = |count: usize| -> Vec<u8> {
                (0..count).map(|_| { next = next.wrapping_mul(5).wrapping_add(1); next }).collect()
            };
            for step in steps {
                match step {
                    Step::Push(count) => {
                        let bytes = fresh(count);
                        let taken = buffer.push(&mut pool, &bytes);
                        prop_assert!(taken == count || pool.used == pool.limit);
                        model.extend(&bytes[..taken]);
                    }
                    Step::Fill(most, count) => {
                        let mut written = Vec::new();
                        let result = buffer.fill(&mut pool, most, |slices| {
                            let room = slices.iter().map(|s| s.len()).sum();
                            assert!(room <= most);
                            written = fresh(count.min(room));
                            let mut rest = &written[..];
                            for slice in slices {
                                let n = rest.len().min(slice.len());
                                slice[..n].copy_from_slice(&rest[..n]);
                                rest = &rest[n..];
                            }
                            Ok(written.len())
                        });
                        prop_assert!(result.is_some() || most == 0 || pool.used == pool.limit);
                        model.extend(&written);
                    }
                    Step::Drain(count) => {
                        let mut taken = Vec::new();
                        buffer.drain(&mut pool, |slices| {
                            taken = slices.iter().flat_map(|s| s.iter().copied()).take(count).collect();
                            Ok(taken.len())
                        }).unwrap();
                        prop_assert_eq!(model.drain(..taken.len()).collect::<Vec<u8>>(), taken);
                    }
                    Step::Consume(count) => {
                        buffer.consume(&mut pool, count);
                        model.drain(..count.min(model.len()));
                    }
                }
                prop_assert_eq!(&contents(&buffer), &model.iter().copied().collect::<Vec<u8>>());
                prop_assert!(!buffer.is_empty() || pool.used == 0);
            }
            buffer.clear(&mut pool);
            prop_assert_eq!(pool.used, 0);
        }
    }
}
