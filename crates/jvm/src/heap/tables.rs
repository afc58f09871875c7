//! The tables beside the heap, at fixed addresses as the heap is, so that an entry is found by a shift and an addition.
//!
//! ```text
//! cards    a byte for 512 bytes of heap    1: a reference was written there since the last collection
//! starts   a byte for 512 bytes of heap    how to find the object that covers the card's first byte
//! bitmap   a bit for 8 bytes               set for all of a live object, while a full collection runs
//! prefix   32 bits for 512 bytes           live words before them, while a full collection runs
//! ```
//!
//! Starts: 0..=64 is the distance in words back to the object's beginning; 65 + n leads 2^n cards back, to try again there. So finding an object takes
//! logarithmic time in its size, and recording one that is within a card costs nothing.

use std::sync::atomic::{AtomicU8, Ordering};

pub use crate::object::{CARD_SHIFT, CARDS_BASE, card_mark};
use crate::object::{HEAP_BASE, HEAP_RESERVED, Reference};

/// Bytes of a card.
pub(super) const CARD: usize = 1 << CARD_SHIFT;

const COUNT: usize = HEAP_RESERVED >> CARD_SHIFT;
const STARTS_BASE: usize = CARDS_BASE + COUNT;
const BITMAP_BASE: usize = STARTS_BASE + COUNT;
const PREFIX_BASE: usize = BITMAP_BASE + COUNT * 8;
const END: usize = PREFIX_BASE + COUNT * 4;

/// Maps the tables.
pub(super) fn reserve() -> std::io::Result<()> {
    machine::sys::reserve_at(CARDS_BASE, END - CARDS_BASE).map(|_| ())
}

fn index(address: usize) -> usize {
    (address - HEAP_BASE) >> CARD_SHIFT
}

/// The cards of a range of the heap.
///
/// # Safety
/// The world stands still, and nobody else has a slice of cards.
pub(super) unsafe fn cards(start: usize, end: usize) -> &'static mut [u8] {
    let first = index(start);
    let last = index(end + CARD - 1);
    // SAFETY: reserved; the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(CARDS_BASE + first), last - first) }
}

/// Whether the card of an address is marked.
pub(super) fn is_card_marked(address: usize) -> bool {
    // SAFETY: as in `card_mark`.
    let card: &AtomicU8 = unsafe { &*std::ptr::with_exposed_provenance(CARDS_BASE + index(address)) };
    card.load(Ordering::Relaxed) != 0
}

fn start_entry(card: usize) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(STARTS_BASE + card)
}

/// Records where an object of old space is.
#[inline(always)]
pub(super) fn record_start(object: usize, size: usize) {
    let first = index(object + CARD - 1);
    let last = index(object + size - 1);
    if first <= last {
        record_crossing(object, first, last);
    }
}

#[inline(never)]
fn record_crossing(object: usize, first: usize, last: usize) {
    let distance = (HEAP_BASE + (first << CARD_SHIFT) - object) / 8;
    // SAFETY: reserved for all cards of the heap; only the holder of the heap's lock, or the collector, comes here.
    unsafe {
        #[allow(clippy::cast_possible_truncation, reason = "at most 64, a card's words")]
        start_entry(first).write(distance as u8);
        for card in first + 1..=last {
            #[allow(clippy::cast_possible_truncation, reason = "a logarithm")]
            start_entry(card).write(65 + (card - first).ilog2() as u8);
        }
    }
}

/// The object of old space that covers the first byte of the card of this address.
pub(super) fn object_covering(address: usize) -> usize {
    let mut card = index(address);
    loop {
        // SAFETY: reserved; written for all cards that old objects reach into.
        let entry = unsafe { start_entry(card).read() };
        if entry <= 64 {
            return HEAP_BASE + (card << CARD_SHIFT) - usize::from(entry) * 8;
        }
        card -= 1 << (entry - 65);
    }
}

fn bits(card: usize) -> *mut u64 {
    std::ptr::with_exposed_provenance_mut(BITMAP_BASE + card * 8)
}

/// Whether the object is marked.
#[inline(always)]
pub(super) fn is_marked(object: Reference) -> bool {
    // SAFETY: reserved; only the collector comes here.
    let word = unsafe { bits((object.0 >> 6) as usize).read() };
    word >> (object.0 & 63) & 1 != 0
}

/// Marks all words of an object.
#[inline(always)]
pub(super) fn mark(object: Reference, size: usize) {
    let first = object.0 as usize;
    let last = first + size / 8 - 1;
    let low = !0u64 << (first & 63);
    let high = !0u64 >> (63 - (last & 63));
    // SAFETY: reserved; only the collector comes here.
    unsafe {
        if first >> 6 == last >> 6 {
            *bits(first >> 6) |= low & high;
        } else {
            *bits(first >> 6) |= low;
            for card in (first >> 6) + 1..last >> 6 {
                *bits(card) = !0;
            }
            *bits(last >> 6) |= high;
        }
    }
}

/// Forgets all marks in a range of the heap.
pub(super) fn clear_marks(start: usize, end: usize) {
    let (first, last) = (index(start), index(end + CARD - 1));
    // SAFETY: reserved; only the collector comes here.
    unsafe { bits(first).write_bytes(0, last - first) };
}

/// Counts live words of a range of the heap, `before` of which are before it, so that [`rank`] knows; how many there are at its end. The range is of whole
/// cards, or what it shares its cards with has no marks.
pub(super) fn count_marks(start: usize, end: usize, before: u32) -> u32 {
    let mut count = before;
    for card in index(start)..index(end + CARD - 1) {
        // SAFETY: reserved; only the collector comes here.
        unsafe {
            std::ptr::with_exposed_provenance_mut::<u32>(PREFIX_BASE + card * 4).write(count);
            count += (*bits(card)).count_ones();
        }
    }
    count
}

/// Live words before a live object, in the order in which [`count_marks`] counted.
#[inline(always)]
pub(super) fn rank(object: Reference) -> u32 {
    let card = (object.0 >> 6) as usize;
    // SAFETY: reserved, and counted; only the collector comes here.
    unsafe {
        let before = std::ptr::with_exposed_provenance::<u32>(PREFIX_BASE + card * 4).read();
        before + (*bits(card) & !(!0 << (object.0 & 63))).count_ones()
    }
}

/// The first marked word from an address on, before `end`. Right behind an object this is the next object.
#[inline(always)]
pub(super) fn next_marked(address: usize, end: usize) -> Option<usize> {
    if address >= end {
        return None;
    }
    let word = (address - HEAP_BASE) / 8;
    let (mut card, last) = (word >> 6, index(end - 1));
    // SAFETY: reserved; only the collector comes here.
    let mut current = unsafe { *bits(card) } & (!0 << (word & 63));
    while current == 0 {
        card += 1;
        if card > last {
            return None;
        }
        // SAFETY: as above.
        current = unsafe { *bits(card) };
    }
    let found = HEAP_BASE + ((card << 6) + current.trailing_zeros() as usize) * 8;
    (found < end).then_some(found)
}

/// The first marked card of a range that begins at `start`, from the `from`-th of its `count` cards on.
pub(super) fn next_card(start: usize, from: usize, count: usize) -> Option<usize> {
    let base = CARDS_BASE + index(start);
    let mut card = from;
    while card < count {
        // SAFETY: reserved; eight cards are read at once where they are aligned, by the collector alone.
        unsafe {
            if (base + card).is_multiple_of(8) && std::ptr::with_exposed_provenance::<u64>(base + card).read() == 0 {
                card += 8;
                continue;
            }
            if std::ptr::with_exposed_provenance::<u8>(base + card).read() != 0 {
                return Some(card);
            }
        }
        card += 1;
    }
    None
}

/// Takes the mark from the card of an address.
pub(super) fn clear_card(address: usize) {
    // SAFETY: as in `card_mark`.
    let card: &AtomicU8 = unsafe { &*std::ptr::with_exposed_provenance(CARDS_BASE + index(address)) };
    card.store(0, Ordering::Relaxed);
}
