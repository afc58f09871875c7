//! From a word to an instruction: one look-up, then one or two comparisons.
//!
//! ```text
//! 32-bit word:  31..27 | 14..12 | 6..2  ---> 8192 slots --+
//! 16-bit word:  15..10 | 1..0           --->  256 slots --+--> range of CANDIDATES --> lines of the table
//! ```
//!
//! Both indices are computed at compile time from the table. A line whose encoding leaves bits of the key open stands in every slot
//! that these bits reach; inside a slot the lines keep the order of the table, but
//! forms come before operations.

use super::table::{OPERATIONS, TABLE};
use super::{Instruction, Line};

/// Which bits of the word choose the slot.
#[derive(Clone, Copy)]
enum Key {
    Standard,
    Compressed,
}

impl Key {
    const fn length(self) -> u8 {
        match self {
            Self::Standard => 4,
            Self::Compressed => 2,
        }
    }

    /// The slot of `word`.
    #[inline(always)]
    const fn of(self, word: u32) -> usize {
        (match self {
            Self::Standard => (word >> 2 & 0x1f) | (word >> 12 & 7) << 5 | (word >> 27) << 8,
            Self::Compressed => (word & 3) | (word >> 10 & 0x3f) << 2,
        }) as usize
    }

    /// A word of slot `slot`, the bits outside the key zero.
    #[allow(clippy::cast_possible_truncation, reason = "slots have at most 13 bits")]
    const fn word(self, slot: usize) -> u32 {
        let slot = slot as u32;
        match self {
            Self::Standard => 3 | (slot & 0x1f) << 2 | (slot >> 5 & 7) << 12 | (slot >> 8) << 27,
            Self::Compressed => (slot & 3) | (slot >> 2) << 10,
        }
    }
}

/// How many candidates a key's slots have together.
const fn count(key: Key, slots: usize) -> usize {
    let (mut total, mut line) = (0, 0);
    while line < TABLE.len() {
        total += entries(key, slots, line);
        line += 1;
    }
    total
}

/// In how many slots a line stands.
const fn entries(key: Key, slots: usize, line: usize) -> usize {
    let encoding = &TABLE[line].encoding;
    if encoding.length != key.length() {
        return 0;
    }
    let fixed = (encoding.mask & key.word(slots - 1)).count_ones() - if key.length() == 4 { 2 } else { 0 };
    slots >> fixed
}

/// The `n`th line to try: special forms before the operations that they are cases of.
const fn ranked(n: usize) -> usize {
    (n + OPERATIONS) % TABLE.len()
}

/// Of each line of the table what most words tell it from others by, the mask and the bits: close together, since a word is compared with several.
static PATTERNS: [(u32, u32); TABLE.len()] = {
    let mut patterns = [(0, 0); TABLE.len()];
    let mut line = 0;
    while line < TABLE.len() {
        let encoding = &TABLE[line].encoding;
        patterns[line] = (encoding.mask, encoding.bits);
        line += 1;
    }
    patterns
};

struct Index<const SLOTS: usize, const CANDIDATES: usize> {
    /// Where a slot's candidates begin and end.
    ranges: [(u16, u16); SLOTS],
    /// Numbers of lines of the table.
    candidates: [u16; CANDIDATES],
}

impl<const SLOTS: usize, const CANDIDATES: usize> Index<SLOTS, CANDIDATES> {
    #[allow(clippy::cast_possible_truncation, reason = "the table and the index have fewer than 65536 entries")]
    const fn new(key: Key) -> Self {
        let mut index = Self { ranges: [(0, 0); SLOTS], candidates: [0; CANDIDATES] };
        // Count, then place, as in a counting sort.
        let mut n = 0;
        while n < TABLE.len() {
            index.visit(key, ranked(n), false);
            n += 1;
        }
        let (mut slot, mut next) = (0, 0);
        while slot < SLOTS {
            let size = index.ranges[slot].1;
            index.ranges[slot] = (next, next);
            next += size;
            slot += 1;
        }
        n = 0;
        while n < TABLE.len() {
            index.visit(key, ranked(n), true);
            n += 1;
        }
        index
    }

    /// Counts line `line` in, or places it into, every slot that it can stand in.
    #[allow(clippy::cast_possible_truncation, reason = "the table has fewer than 65536 lines")]
    const fn visit(&mut self, key: Key, line: usize, place: bool) {
        let encoding = &TABLE[line].encoding;
        if encoding.length != key.length() {
            return;
        }
        // Steps through the settings of the open bits of the key: adding to a number whose fixed bits are all ones carries over them.
        let fixed = key.of(encoding.mask);
        let bits = key.of(encoding.bits);
        let mut open = 0;
        while open < SLOTS {
            let slot = open | bits;
            if place {
                self.candidates[self.ranges[slot].1 as usize] = line as u16;
            }
            self.ranges[slot].1 += 1;
            open = ((open | fixed) + 1) & !fixed;
        }
    }

    #[inline]
    fn find(&self, slot: usize, word: u32) -> Option<&'static Line> {
        let (start, end) = self.ranges[slot];
        self.candidates[usize::from(start)..usize::from(end)].iter().find_map(|&line| {
            let (mask, bits) = PATTERNS[usize::from(line)];
            let line = (word & mask == bits).then(|| &TABLE[usize::from(line)])?;
            line.encoding.matches(word).then_some(line)
        })
    }
}

const STANDARD_SLOTS: usize = 1 << 13;
const COMPRESSED_SLOTS: usize = 1 << 8;

static STANDARD: Index<STANDARD_SLOTS, { count(Key::Standard, STANDARD_SLOTS) }> = Index::new(Key::Standard);
static COMPRESSED: Index<COMPRESSED_SLOTS, { count(Key::Compressed, COMPRESSED_SLOTS) }> = Index::new(Key::Compressed);

/// The line of the table that `word` is an instance of.
#[must_use]
#[inline]
pub fn find(word: u32) -> Option<&'static Line> {
    if word & 3 == 3 {
        STANDARD.find(Key::Standard.of(word), word)
    } else {
        COMPRESSED.find(Key::Compressed.of(word & 0xffff), word & 0xffff)
    }
}

/// The instruction in `word`, or `None` if there is none. Of a compressed instruction only the low 16 bits count; it is expanded to
/// the base instruction that it stands for. Reserved rounding modes are left for execution to judge, since they may be dynamic.
#[must_use]
#[inline]
pub fn decode(word: u32) -> Option<Instruction> {
    let line = find(word)?;
    Some(line.encoding.decode(line.op, word))
}
