//! From a word to an instruction: two look-ups, then mostly one comparison.
//!
//! ```text
//! 32-bit word:  6..2 | 14..12 --> row, and whether 31..25 count --+--> slot --> list of lines of the table
//! 16-bit word:  15..10 | 6..5 | 1..0 -----------------------------+
//! ```
//!
//! What a slot leads to is computed at compile time from the table. A line whose encoding leaves bits of the key open stands in every slot
//! that these bits reach; inside a slot the lines keep the order of the table, but
//! forms come before operations.
//!
//! Both lengths take the same way with different numbers, since the host cannot foresee which comes next; and what is looked up is small, since most
//! code is decoded once, and waits for the host's caches.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of lines and slots have 16 bits, which is looked at at compile time"
)]

use super::table::{OPERATIONS, TABLE};
use super::{Instruction, Line, Op};

/// Rows of standard instructions: major opcode and `funct3`.
const ROWS: usize = 1 << 8;
/// Slots of a row in which bits 31 to 25 of the word count.
const WIDTH: usize = 1 << 7;
/// Slots of compressed instructions, which come first.
const COMPRESSED: usize = 1 << 10;

#[inline(always)]
const fn compressed_slot(word: u32) -> usize {
    ((word & 3) | (word >> 5 & 3) << 2 | (word >> 10 & 0x3f) << 4) as usize
}

#[inline(always)]
const fn row(word: u32) -> usize {
    ((word >> 2 & 0x1f) | (word >> 12 & 7) << 5) as usize
}

/// The number in `open` that follows `value` among those that agree with it in the bits of `fixed`, less than `end`.
const fn next(value: usize, fixed: usize, end: usize) -> Option<usize> {
    // Adding to a number whose fixed bits are all ones carries over them.
    let open = ((value | fixed) + 1) & !fixed;
    if open < end { Some(open | value & fixed) } else { None }
}

/// A row's first slot, and which of bits 31 to 25 count: all or none.
#[derive(Clone, Copy)]
struct Row {
    start: u16,
    mask: u16,
}

/// The rows, and how many slots there are.
const LAYOUT: ([Row; ROWS], usize) = {
    let mut rows = [Row { start: 0, mask: 0 }; ROWS];
    let mut line = 0;
    while line < TABLE.len() {
        let encoding = &TABLE[line].encoding;
        let mut at = Some(row(encoding.bits));
        while encoding.length == 4
            && encoding.mask >> 25 != 0
            && let Some(row_of_it) = at
        {
            rows[row_of_it].mask = WIDTH as u16 - 1;
            at = next(row_of_it, row(encoding.mask), ROWS);
        }
        line += 1;
    }
    let (mut at, mut slots) = (0, COMPRESSED);
    while at < ROWS {
        rows[at].start = slots as u16;
        slots += rows[at].mask as usize + 1;
        at += 1;
    }
    assert!(slots < u16::MAX as usize);
    (rows, slots)
};
static STANDARD: [Row; ROWS] = LAYOUT.0;
const SLOTS: usize = LAYOUT.1;

/// The slots that a line stands in, one after the other.
struct Places {
    line: usize,
    /// Of a compressed instruction the slot, of others the row.
    first: Option<usize>,
    /// Inside the row.
    second: Option<usize>,
}

impl Places {
    const fn of(line: usize) -> Self {
        let encoding = &TABLE[line].encoding;
        let first = if encoding.length == 2 { compressed_slot(encoding.bits) } else { row(encoding.bits) };
        Self { line, first: Some(first), second: Some((encoding.bits >> 25) as usize) }
    }

    const fn next(&mut self) -> Option<usize> {
        let encoding = &TABLE[self.line].encoding;
        let Some(first) = self.first else { return None };
        if encoding.length == 2 {
            self.first = next(first, compressed_slot(encoding.mask), COMPRESSED);
            return Some(first);
        }
        let Row { start, mask } = LAYOUT.0[first];
        let second = match self.second {
            Some(second) => second,
            None => 0,
        };
        self.second = if mask == 0 { None } else { next(second, (encoding.mask >> 25) as usize, WIDTH) };
        if self.second.is_none() {
            self.first = next(first, row(encoding.mask), ROWS);
            self.second = Some((encoding.bits >> 25) as usize);
        }
        Some(start as usize + (second & mask as usize))
    }
}

/// The `n`th line to try: special forms before the operations that they are cases of.
const fn ranked(n: usize) -> usize {
    (n + OPERATIONS) % TABLE.len()
}

/// A line of the table.
#[derive(Clone, Copy)]
struct Candidate {
    /// Its number, or [`END`].
    line: u16,
    op: Op,
}

/// Ends a list.
const END: u16 = u16::MAX;

struct Index<const LISTED: usize> {
    /// Where a slot's list begins.
    slots: [u16; SLOTS],
    /// First comes an empty list, then one for each line by itself, which slots share.
    lists: [Candidate; LISTED],
}

/// The place of the list of one line.
const fn alone(line: usize) -> usize {
    1 + 2 * line
}

/// How many lines each slot has.
const COUNTS: [u8; SLOTS] = {
    let mut counts = [0; SLOTS];
    let mut line = 0;
    while line < TABLE.len() {
        let mut places = Places::of(line);
        while let Some(slot) = places.next() {
            counts[slot] += 1;
        }
        line += 1;
    }
    counts
};

/// The length of all lists.
const LISTED: usize = {
    let (mut total, mut slot) = (alone(TABLE.len()), 0);
    while slot < SLOTS {
        if COUNTS[slot] > 1 {
            total += COUNTS[slot] as usize + 1;
        }
        slot += 1;
    }
    assert!(total < END as usize);
    total
};

static INDEX: Index<LISTED> = {
    let mut index = Index { slots: [0; SLOTS], lists: [Candidate { line: END, op: Op::Lui }; LISTED] };
    // Where the next line of a slot's list goes.
    let mut ends = [0; SLOTS];
    let (mut slot, mut end) = (0, alone(TABLE.len()));
    while slot < SLOTS {
        if COUNTS[slot] > 1 {
            index.slots[slot] = end as u16;
            ends[slot] = end;
            end += COUNTS[slot] as usize + 1;
        }
        slot += 1;
    }
    let mut n = 0;
    while n < TABLE.len() {
        let line = ranked(n);
        let candidate = Candidate { line: line as u16, op: TABLE[line].op };
        index.lists[alone(line)] = candidate;
        let mut places = Places::of(line);
        while let Some(slot) = places.next() {
            if COUNTS[slot] > 1 {
                index.lists[ends[slot]] = candidate;
                ends[slot] += 1;
            } else {
                index.slots[slot] = alone(line) as u16;
            }
        }
        n += 1;
    }
    index
};

/// The line of the table that `word` is an instance of, and its operation.
#[inline(always)]
fn search(word: u32) -> Option<(&'static Line, Op)> {
    let Row { start, mask } = STANDARD[row(word)];
    let standard = usize::from(start) + ((word >> 25) as usize & usize::from(mask));
    let slot = std::hint::select_unpredictable(word & 3 == 3, standard, compressed_slot(word));
    let mut at = usize::from(INDEX.slots[slot]);
    loop {
        let Candidate { line, op } = INDEX.lists[at];
        let line = TABLE.get(usize::from(line))?;
        if line.encoding.matches(word) {
            return Some((line, op));
        }
        at += 1;
    }
}

/// The line of the table that `word` is an instance of.
#[must_use]
pub fn find(word: u32) -> Option<&'static Line> {
    Some(search(word)?.0)
}

/// The instruction in `word`, or `None` if there is none. Of a compressed instruction only the low 16 bits count; it is expanded to
/// the base instruction that it stands for. Reserved rounding modes are left for execution to judge, since they may be dynamic.
#[must_use]
#[inline(always)]
pub fn decode(word: u32) -> Option<Instruction> {
    let (line, op) = search(word)?;
    Some(line.encoding.decode(op, word))
}
