//! Split virtqueues, the device's side.
//!
//! Specification: virtio 1.2, section 2.7.
//!
//! ```text
//! driver:  available ring  --idx-->  head, head, ...        device:  used ring  --idx-->  (head, written), ...
//!                                      |
//!                descriptor table:  [address, length, flags, next] -> ... readable first, then writable
//!                                      \-- INDIRECT: a table of its own
//! ```
//!
//! Rings live in guest memory and the driver may write them at any time, so every value is loaded once, checked, and used from then on as loaded. A
//! [`Chain`] is a checked list of pieces of guest RAM. Chains are used again, so that taking one allocates nothing.
//!
//! Invariants: an index taken from the guest is below the size of its table before it is used; a walk ends after [`SEGMENTS_MAX`] descriptors,
//! so loops end too; every segment lies in RAM.
//!
//! Ordering: the driver publishes by storing an index after the data, on a hart that may run on any host core, with the fences that the architecture
//! asks of it; here, an acquire fence follows the load of its index, and a release fence precedes the store of ours. Where both sides store and then
//! load what the other stores (suppression of notifications), a sequentially consistent fence stands between.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use machine::address::GuestPhysical;
use machine::memory::{GuestMemory, OutOfRange, Scalar};
use serde::{Deserialize, Serialize};

use super::{DriverSignals, feature};

/// The most descriptors in a chain. Drivers that use indirect tables may exceed the queue's size, as Linux does.
pub const SEGMENTS_MAX: usize = 1024;

const DESCRIPTOR_BYTES: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// The only flag of either ring: do not notify me.
const SUPPRESS: u16 = 1;

/// How a driver broke the rules of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The size is not a power of two between 1 and the largest allowed.
    #[error("a queue of {0} entries")]
    Size(u32),
    /// A ring is not aligned as section 2.7 asks.
    #[error("a ring at {0} is misaligned")]
    Alignment(GuestPhysical),
    /// A ring, table or buffer is not in RAM.
    #[error("{0}")]
    Address(#[from] OutOfRange),
    /// The available index is further ahead than the queue is large.
    #[error("the available index jumped from {from} to {to}")]
    Jump {
        /// How far the device is.
        from: u16,
        /// What the driver says.
        to: u16,
    },
    /// A descriptor number is not below the size of its table.
    #[error("descriptor {number} of a table of {size}")]
    Number {
        /// The descriptor.
        number: u16,
        /// The size of the table.
        size: u32,
    },
    /// A chain is a loop, or absurdly long.
    #[error("a chain of more than {SEGMENTS_MAX} descriptors")]
    Long,
    /// A readable buffer follows a writable one.
    #[error("a readable buffer follows a writable one")]
    Order,
    /// An indirect table has an odd size, or lies inside another, or was not agreed on, or its descriptor has a next.
    #[error("an indirect table that is not allowed")]
    Indirect,
    /// A buffer or header that the device needs is missing or too short for any answer.
    #[error("a chain without room for the answer")]
    Room,
}

/// A piece of guest RAM: checked to be inside it, and not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub at: GuestPhysical,
    /// How long it is, in bytes.
    pub length: u32,
}

/// One request of the driver: what it wrote for the device, then where the device may write.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: u16,
    segments: Vec<Segment>,
    readable_count: usize,
    readable_bytes: u64,
    writable_bytes: u64,
}

impl Chain {
    /// How many bytes the driver wrote for the device.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// How many bytes the device may write.
    #[must_use]
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// The pieces that the driver wrote.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        &self.segments[..self.readable_count]
    }

    /// The pieces that the device may write.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        &self.segments[self.readable_count..]
    }

    /// The pieces of `length` bytes that the driver wrote, from byte `offset` of them: where each is, and how many bytes.
    pub fn readable_ranges(&self, offset: u64, length: u64) -> Ranges<'_> {
        ranges(self.readable(), offset, length)
    }

    /// As [`Self::readable_ranges`], of what the device may write.
    pub fn writable_ranges(&self, offset: u64, length: u64) -> Ranges<'_> {
        ranges(self.writable(), offset, length)
    }

    fn clear(&mut self, head: u16) {
        self.head = head;
        self.segments.clear();
        self.readable_count = 0;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
    }

    fn push(&mut self, memory: &GuestMemory, at: u64, length: u32, writable: bool) -> Result<(), QueueError> {
        if length == 0 {
            return Ok(());
        }
        let at = GuestPhysical(at);
        if !memory.contains(at, length.into()) {
            return Err(OutOfRange { at, length: length.into() }.into());
        }
        if writable {
            self.writable_bytes += u64::from(length);
        } else if self.writable_bytes > 0 {
            return Err(QueueError::Order);
        } else {
            self.readable_count += 1;
            self.readable_bytes += u64::from(length);
        }
        self.segments.push(Segment { at, length });
        Ok(())
    }

    /// Copies what the driver wrote, from byte `offset` of it, into `bytes`; answers how many bytes there were.
    pub fn read(&self, memory: &GuestMemory, offset: u64, bytes: &mut [u8]) -> usize {
        each_piece(self.readable(), offset, bytes.len(), |at, done, count| {
            memory.read(at, &mut bytes[done..done + count]).is_ok()
        })
    }

    /// Copies `bytes` to where the device may write, at byte `offset` of it; answers how many bytes there was room for.
    pub fn write(&self, memory: &GuestMemory, offset: u64, bytes: &[u8]) -> usize {
        each_piece(self.writable(), offset, bytes.len(), |at, done, count| {
            memory.write(at, &bytes[done..done + count]).is_ok()
        })
    }
}

/// Pieces of a chain: where each is, and how many bytes.
#[derive(Clone, Debug)]
pub struct Ranges<'a> {
    segments: std::slice::Iter<'a, Segment>,
    skip: u64,
    left: u64,
}

fn ranges(segments: &[Segment], skip: u64, left: u64) -> Ranges<'_> {
    Ranges { segments: segments.iter(), skip, left }
}

impl Iterator for Ranges<'_> {
    type Item = (GuestPhysical, usize);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let segment = self.segments.next()?;
            let here = u64::from(segment.length);
            let skipped = self.skip.min(here);
            self.skip -= skipped;
            let count = (here - skipped).min(self.left);
            self.left -= count;
            if count > 0 {
                return Some((segment.at.wrapping_add(skipped), usize::try_from(count).unwrap_or(usize::MAX)));
            }
        }
        None
    }
}

/// Calls `each` with the address, the bytes done before and the length of every piece of `length` bytes from byte `offset` of `segments`. Answers how many
/// bytes were done before `segments` ended or `each` answered false.
fn each_piece(
    segments: &[Segment],
    mut offset: u64,
    length: usize,
    mut each: impl FnMut(GuestPhysical, usize, usize) -> bool,
) -> usize {
    let mut done = 0;
    for segment in segments {
        if done == length {
            break;
        }
        let here = u64::from(segment.length);
        if offset >= here {
            offset -= here;
            continue;
        }
        let count = usize::try_from(here - offset).unwrap_or(usize::MAX).min(length - done);
        if !each(segment.at.wrapping_add(offset), done, count) {
            break;
        }
        done += count;
        offset = 0;
    }
    done
}

/// Where a queue lies and how far it is: plain data, what a snapshot saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// How many entries the rings and the table have.
    pub size: u16,
    /// The descriptor table ("descriptor area").
    pub descriptors: GuestPhysical,
    /// The available ring ("driver area").
    pub available: GuestPhysical,
    /// The used ring ("device area").
    pub used: GuestPhysical,
    /// The available index up to which chains have been taken.
    pub next_available: u16,
    /// The used index up to which chains have been given back.
    pub next_used: u16,
    /// The used index that the driver sees.
    pub published: u16,
}

/// A queue that a driver has set up.
pub struct Queue {
    state: State,
    number: u16,
    features: u64,
    memory: Arc<GuestMemory>,
    signals: Arc<dyn DriverSignals>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("number", &self.number).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Queue {
    /// Queue `number` of a device, as `state` places it, for a driver that agreed to `features`.
    ///
    /// # Errors
    /// The driver's choice of size or places is not allowed.
    pub fn new(
        number: u16,
        state: State,
        features: u64,
        memory: Arc<GuestMemory>,
        signals: Arc<dyn DriverSignals>,
    ) -> Result<Self, QueueError> {
        let size = u64::from(state.size);
        if !size.is_power_of_two() {
            return Err(QueueError::Size(state.size.into()));
        }
        for (at, align, length) in [
            (state.descriptors, 16, DESCRIPTOR_BYTES * size),
            (state.available, 2, 6 + 2 * size),
            (state.used, 4, 6 + 8 * size),
        ] {
            if at.0 % align != 0 {
                return Err(QueueError::Alignment(at));
            }
            if !memory.contains(at, length) {
                return Err(OutOfRange { at, length }.into());
            }
        }
        Ok(Self { state, number, features, memory, signals })
    }

    /// Where the queue lies and how far it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What the driver agreed to.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    fn has_event_index(&self) -> bool {
        self.features & feature::EVENT_IDX != 0
    }

    /// The guest memory that it lies in.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The way to the driver.
    #[must_use]
    pub fn signals(&self) -> &Arc<dyn DriverSignals> {
        &self.signals
    }

    fn load<T: Scalar>(&self, base: GuestPhysical, offset: u64) -> Result<T, QueueError> {
        Ok(self.memory.load(base.wrapping_add(offset))?)
    }

    fn store<T: Scalar>(&self, base: GuestPhysical, offset: u64, value: T) -> Result<(), QueueError> {
        Ok(self.memory.store(base.wrapping_add(offset), value)?)
    }

    /// The offset of entry `index` in a ring whose entries have `bytes` bytes.
    fn slot(&self, index: u16, bytes: u64) -> u64 {
        4 + bytes * u64::from(index & (self.state.size - 1))
    }

    /// How many chains wait to be taken.
    ///
    /// # Errors
    /// The driver's index is impossible.
    pub fn waiting_count(&self) -> Result<u16, QueueError> {
        let to: u16 = self.load(self.state.available, 2)?;
        let from = self.state.next_available;
        let count = to.wrapping_sub(from);
        if count > self.state.size {
            return Err(QueueError::Jump { from, to });
        }
        fence(Ordering::Acquire);
        Ok(count)
    }

    /// Takes the next chain into `chain`; false if none waits.
    ///
    /// # Errors
    /// The driver broke the rules; the device must stop ([`Self::fail`]).
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        if self.waiting_count()? == 0 {
            return Ok(false);
        }
        let head: u16 = self.load(self.state.available, self.slot(self.state.next_available, 2))?;
        chain.clear(head);
        self.walk(head, chain)?;
        self.state.next_available = self.state.next_available.wrapping_add(1);
        Ok(true)
    }

    fn walk(&self, head: u16, chain: &mut Chain) -> Result<(), QueueError> {
        let mut table = self.state.descriptors;
        let mut size = u32::from(self.state.size);
        let mut number = head;
        let mut in_indirect = false;
        for _ in 0..SEGMENTS_MAX {
            if u32::from(number) >= size {
                return Err(QueueError::Number { number, size });
            }
            let at = table.wrapping_add(DESCRIPTOR_BYTES * u64::from(number));
            let address: u64 = self.load(at, 0)?;
            // One load for length, flags and next.
            let [l0, l1, l2, l3, f0, f1, n0, n1] = self.load::<u64>(at, 8)?.to_le_bytes();
            let length = u32::from_le_bytes([l0, l1, l2, l3]);
            let flags = u16::from_le_bytes([f0, f1]);
            if flags & INDIRECT != 0 {
                let count = u64::from(length) / DESCRIPTOR_BYTES;
                let whole = u64::from(length).is_multiple_of(DESCRIPTOR_BYTES) && count > 0;
                if self.features & feature::INDIRECT_DESC == 0 || in_indirect || flags & NEXT != 0 || !whole {
                    return Err(QueueError::Indirect);
                }
                table = GuestPhysical(address);
                if !self.memory.contains(table, length.into()) {
                    return Err(OutOfRange { at: table, length: length.into() }.into());
                }
                if !address.is_multiple_of(8) {
                    // Allocators align better than that; fields are loaded in one piece each.
                    return Err(QueueError::Alignment(table));
                }
                size = u32::try_from(count).map_err(|_| QueueError::Indirect)?;
                number = 0;
                in_indirect = true;
                continue;
            }
            chain.push(&self.memory, address, length, flags & WRITE != 0)?;
            if flags & NEXT == 0 {
                return Ok(());
            }
            number = u16::from_le_bytes([n0, n1]);
        }
        Err(QueueError::Long)
    }

    /// Puts the last `count` chains taken back, as if they had not been: at a pause, or when they do not suffice.
    pub fn unpop(&mut self, count: u16) {
        self.state.next_available = self.state.next_available.wrapping_sub(count);
    }

    /// Gives `chain` back with the first `written` of its writable bytes filled. The driver sees it after [`Self::publish`].
    ///
    /// # Errors
    /// The ring is not in RAM, which was checked: cannot happen while memory stays.
    pub fn add_used(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        let slot = self.slot(self.state.next_used, 8);
        self.store(self.state.used, slot, u32::from(chain.head))?;
        self.store(self.state.used, slot + 4, written)?;
        self.state.next_used = self.state.next_used.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver all chains given back, and interrupts it if it wants that.
    ///
    /// # Errors
    /// As [`Self::add_used`].
    pub fn publish(&mut self) -> Result<(), QueueError> {
        let (old, new) = (self.state.published, self.state.next_used);
        if old == new {
            return Ok(());
        }
        fence(Ordering::Release);
        self.store(self.state.used, 2, new)?;
        self.state.published = new;
        fence(Ordering::SeqCst);
        let wanted = if self.has_event_index() {
            let event: u16 = self.load(self.state.available, 4 + 2 * u64::from(self.state.size))?;
            // Section 2.7.7.2: the index that the driver waits for is among the new ones.
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.load::<u16>(self.state.available, 0)? & SUPPRESS == 0
        };
        if wanted {
            self.signals.used(self.number);
        }
        Ok(())
    }

    /// Asks the driver not to notify of new chains. With event indices there is nothing to do: it notifies once for each index asked for.
    ///
    /// # Errors
    /// As [`Self::add_used`].
    pub fn suppress_notifications(&mut self) -> Result<(), QueueError> {
        if self.has_event_index() { Ok(()) } else { self.store(self.state.used, 0, SUPPRESS) }
    }

    /// Asks the driver to notify of the next new chain. True if one has come meanwhile, and may not be notified of.
    ///
    /// # Errors
    /// As [`Self::waiting_count`].
    pub fn request_notification(&mut self) -> Result<bool, QueueError> {
        if self.has_event_index() {
            let slot = 4 + 8 * u64::from(self.state.size);
            self.store(self.state.used, slot, self.state.next_available)?;
        } else {
            self.store(self.state.used, 0, 0u16)?;
        }
        fence(Ordering::SeqCst);
        Ok(self.waiting_count()? > 0)
    }

    /// Tells the driver that its device stops since it broke the rules.
    pub fn fail(&self, cause: &QueueError) {
        self.signals.needs_reset(cause);
    }
}

#[cfg(test)]
#[path = "tests/queue.rs"]
mod tests;
