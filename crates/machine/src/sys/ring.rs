//! Requests to a file that the host's kernel carries out by itself, many at a time: `io_uring`.
//!
//! ```text
//! start, start, ... --> submission queue --wait()--> host's kernel --> completion queue --> (token, result), ...
//!                                            ^
//!                              [`Bell`] other threads: there is something else to do
//! ```
//!
//! A ring belongs to one thread. It keeps what a request in flight reads and writes alive until the request has ended, and is not dropped before all have. Not
//! every host has rings: old kernels do not, and seccomp filters of containers often refuse them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::{IoUring, opcode, types};

use super::Waker;

/// The token of the bell's own request.
const BELL: u64 = u64::MAX;
/// `POLLIN`.
const READABLE: u32 = 1;

/// A piece of memory as the host's kernel is told of it: laid out as its `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostPiece {
    base: NonNull<u8>,
    bytes: usize,
}

impl HostPiece {
    /// `bytes` bytes at `base`.
    #[must_use]
    pub fn new(base: NonNull<u8>, bytes: usize) -> Self {
        Self { base, bytes }
    }

    /// Makes this piece longer by one that begins where it ends. False if it does not.
    pub fn join(&mut self, next: Self) -> bool {
        let joins = self.base.as_ptr().wrapping_add(self.bytes) == next.base.as_ptr();
        if joins {
            self.bytes += next.bytes;
        }
        joins
    }
}

/// Gets a thread out of [`Ring::wait`].
#[derive(Debug)]
pub struct Bell {
    waker: Waker,
    asleep: AtomicBool,
}

impl Bell {
    /// A bell for one ring.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { waker: Waker::new()?, asleep: AtomicBool::new(false) })
    }

    /// Ends a wait that goes on, or that was announced. Costs an atomic exchange if there is none.
    pub fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.set();
        }
    }

    /// Announces a wait: whoever rings from now on ends it. What is to be looked at before a wait is looked at after this.
    pub fn announce(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From the file into memory.
    Read,
    /// From memory into the file.
    Write,
}

#[derive(Default)]
struct Slot {
    pieces: Vec<HostPiece>,
    /// Keeps the memory of the pieces.
    keeper: Option<Arc<dyn Send + Sync>>,
}

// SAFETY: the pieces are addresses that only the kernel follows, and the keeper may go to any thread.
unsafe impl Send for Slot {}

/// Requests to one file. See the [module](self).
pub struct Ring {
    uring: IoUring,
    file: File,
    slots: Box<[Slot]>,
    in_flight_count: usize,
    bell: Arc<Bell>,
    listens: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight_count", &self.in_flight_count).finish_non_exhaustive()
    }
}

impl Ring {
    /// The most pieces of one request.
    pub const PIECES_MAX: usize = 1024;

    /// A ring for `depth` requests at once to `file`. It is for the thread that calls this.
    ///
    /// # Errors
    /// The host has no rings, or none for this process.
    pub fn new(file: File, depth: u32, bell: Arc<Bell>) -> io::Result<Self> {
        let entries = depth.saturating_add(1).next_power_of_two();
        // The kernel works for a ring of one thread when that thread waits, instead of interrupting it; kernels before 6.1 cannot.
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)
            .or_else(|_| IoUring::new(entries))?;
        let slots = (0..depth).map(|_| Slot::default()).collect();
        Ok(Self { uring, file, slots, in_flight_count: 0, bell, listens: false })
    }

    /// How many requests have been started and not ended.
    #[must_use]
    pub fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    fn push(&mut self, entry: io_uring::squeue::Entry) {
        // SAFETY: what the entry points to is in a slot, which stays until the request has ended, or is a descriptor of this value's.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        assert!(pushed.is_ok(), "there are as many entries as slots, and one for the bell");
    }

    /// Starts a request with a token below the depth that no request in flight has: the pieces that `fill` puts into an empty list, from `offset` of the file on.
    /// Nothing is started if `fill` answers false.
    ///
    /// # Safety
    /// The pieces are memory that may be read (for a write) or written (for a read) at any time as long as `keeper` lives, and that no Rust reference points
    /// into.
    pub unsafe fn start(
        &mut self,
        token: u32,
        transfer: Transfer,
        offset: u64,
        keeper: Arc<dyn Send + Sync>,
        fill: impl FnOnce(&mut Vec<HostPiece>) -> bool,
    ) -> bool {
        let descriptor = types::Fd(self.file.as_raw_fd());
        let slot = &mut self.slots[token as usize];
        debug_assert!(slot.keeper.is_none(), "a token is one request's");
        slot.pieces.clear();
        if !fill(&mut slot.pieces) || slot.pieces.len() > Self::PIECES_MAX {
            return false;
        }
        slot.keeper = Some(keeper);
        let (pieces, count) = (slot.pieces.as_ptr().cast(), u32::try_from(slot.pieces.len()).unwrap_or(0));
        let entry = match transfer {
            Transfer::Read => opcode::Readv::new(descriptor, pieces, count).offset(offset).build(),
            Transfer::Write => opcode::Writev::new(descriptor, pieces, count).offset(offset).build(),
        };
        self.push(entry.user_data(token.into()));
        self.in_flight_count += 1;
        true
    }

    /// Starts to make durable what was written by requests that have ended.
    pub fn start_flush(&mut self, token: u32) {
        let descriptor = types::Fd(self.file.as_raw_fd());
        let entry = opcode::Fsync::new(descriptor).flags(types::FsyncFlags::DATASYNC).build();
        self.push(entry.user_data(token.into()));
        self.in_flight_count += 1;
    }

    /// Hands what was started to the host's kernel, and waits until a request has ended or the bell has rung; not if `block` is false. Appends the tokens of those
    /// that have ended to `ended`, with the bytes that were moved or what the host said.
    pub fn wait(&mut self, block: bool, ended: &mut Vec<(u32, io::Result<usize>)>) {
        if block && !self.listens {
            let descriptor = types::Fd(self.bell.waker.as_fd().as_raw_fd());
            self.push(opcode::PollAdd::new(descriptor, READABLE).build().user_data(BELL));
            self.listens = true;
        }
        if let Err(error) = self.uring.submit_and_wait(usize::from(block)) {
            use io::ErrorKind::{Interrupted, OutOfMemory, ResourceBusy, WouldBlock};
            let passes = [Interrupted, OutOfMemory, ResourceBusy, WouldBlock].contains(&error.kind());
            assert!(passes, "a ring that was set up takes what is put into it: {error}");
        }
        self.bell.asleep.store(false, Ordering::SeqCst);
        while let Some(entry) = self.uring.completion().next() {
            if entry.user_data() == BELL {
                self.listens = false;
                self.bell.waker.clear();
                continue;
            }
            let Ok(token) = u32::try_from(entry.user_data()) else { continue };
            self.slots[token as usize].keeper = None;
            self.in_flight_count -= 1;
            let result = usize::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(entry.result().wrapping_neg()));
            ended.push((token, result));
        }
    }

    /// Waits for all requests.
    pub fn drain(&mut self, ended: &mut Vec<(u32, io::Result<usize>)>) {
        while self.in_flight_count > 0 {
            self.wait(true, ended);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel would go on to write into memory that is no longer anybody's.
        self.drain(&mut Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    struct Bytes(Vec<u8>);

    /// A request for all of `bytes`.
    fn start(ring: &mut Ring, token: u32, transfer: Transfer, offset: u64, bytes: &Arc<std::sync::Mutex<Bytes>>) {
        let mut held = bytes.lock().unwrap();
        let (base, count) = (NonNull::new(held.0.as_mut_ptr()).unwrap(), held.0.len());
        drop(held);
        // SAFETY: the bytes live in the keeper, which nobody touches until the request has ended.
        let started = unsafe {
            ring.start(token, transfer, offset, Arc::clone(bytes) as _, |pieces| {
                let (head, tail) = (count / 3, count - count / 3);
                pieces.push(HostPiece::new(base, head));
                assert!(pieces[0].join(HostPiece::new(base.add(head), tail)));
                !pieces[0].join(HostPiece::new(base, 1))
            })
        };
        assert!(started);
    }

    fn bytes(content: Vec<u8>) -> Arc<std::sync::Mutex<Bytes>> {
        Arc::new(std::sync::Mutex::new(Bytes(content)))
    }

    #[test]
    fn requests_end_in_any_order_and_the_bell_ends_a_wait() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let bell = Arc::new(Bell::new().unwrap());
        let mut ring = Ring::new(file.try_clone().unwrap(), 8, Arc::clone(&bell)).unwrap();
        let (mut ended, written) = (Vec::new(), bytes(vec![7; 10_000]));
        for token in 0..8 {
            start(&mut ring, token, Transfer::Write, u64::from(token) * 20_000, &written);
        }
        ring.drain(&mut ended);
        ring.start_flush(3);
        ring.drain(&mut ended);
        let mut tokens: Vec<_> = ended.drain(..).map(|(token, result)| (token, result.unwrap())).collect();
        assert_eq!(tokens.pop(), Some((3, 0)));
        tokens.sort_unstable();
        assert_eq!(tokens, (0..8).map(|token| (token, 10_000)).collect::<Vec<_>>());
        file.write_all_at(&[1, 2, 3], 60_000).unwrap();
        let read = bytes(vec![0; 20_000]);
        start(&mut ring, 0, Transfer::Read, 60_000, &read);
        ring.drain(&mut ended);
        let (_, result) = ended.pop().unwrap();
        assert_eq!((result.unwrap(), &read.lock().unwrap().0[..4]), (20_000, &[1, 2, 3, 7][..]));
        start(&mut ring, 0, Transfer::Read, (1 << 20) - 10, &read);
        ring.drain(&mut ended);
        assert_eq!(ended.pop().unwrap().1.unwrap(), 10, "the end of the file");

        let theirs = Arc::clone(&bell);
        bell.announce();
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            theirs.ring();
        });
        ring.wait(true, &mut ended);
        ringer.join().unwrap();
        assert!(ended.is_empty());
        bell.ring();
        ring.wait(false, &mut ended);
    }
}
