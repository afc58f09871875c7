//! The encoding column of the table, parsed at compile time into masks and fields.
//!
//! A register is one masked shift and an addend (x8 for the short fields of compressed instructions; a fixed register is an addend alone), an
//! immediate is four masked rotations, of which most are of nothing, and seldom two more: decoding takes hardly a branch on the kind of instruction. The host
//! could not foresee it, and most code is decoded once.

use super::{Instruction, Op};

/// A register operand, or the rounding mode: `(word >> shift & mask) + base`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    shift: u8,
    mask: u8,
    base: u8,
}

impl Field {
    const NONE: Self = Self { shift: 0, mask: 0, base: 0 };

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "masked to eight bits")]
    const fn extract(self, word: u32) -> u8 {
        ((word >> self.shift) as u8 & self.mask) + self.base
    }

    const fn insert(self, value: u8) -> u32 {
        ((value.wrapping_sub(self.base) & self.mask) as u32) << self.shift
    }

    /// Whether bits of the word hold it.
    #[must_use]
    pub const fn is_encoded(self) -> bool {
        self.mask != 0
    }

    /// The lowest and highest value it can have.
    #[must_use]
    pub const fn range(self) -> (u8, u8) {
        (self.base, self.base + self.mask)
    }
}

/// In how many groups the most scattered immediate of the manual (`c.j`) lies, if what is equally far from its place is one.
const GROUPS: usize = 6;
/// With more there are only compressed jumps, branches and `c.addi16sp`.
const MOSTLY: usize = 4;

/// What the bits of an instruction mean: a line of the host's cache, since decoding code for the first time takes as long as waiting for such lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Encoding {
    /// The bits that tell it from other instructions ...
    pub mask: u32,
    /// ... and their values.
    pub bits: u32,
    /// The immediate is `word & mask`, turned left, of each of the groups; those that are not used have no bits.
    groups: [u32; GROUPS],
    turns: [u8; GROUPS],
    /// How far the immediate's highest bit is from bit 31, if it is its sign, and zero otherwise.
    extension: u8,
    /// Whether the immediate's highest bit is its sign.
    signed: bool,
    /// Bits of the immediate that no field holds.
    fixed_imm: u8,
    /// The greatest immediate, or [`ANY`].
    most: u8,
    /// Fields that must not be zero; only compressed instructions have some.
    nonzero: [u16; 2],
    /// One if there is such a field, so that what is less than this is wrong.
    least: [u8; 2],
    /// In bytes: 2 or 4.
    pub length: u8,
    /// Destination register.
    pub rd: Field,
    /// First source register.
    pub rs1: Field,
    /// Second source register.
    pub rs2: Field,
    /// Third source register.
    pub rs3: Field,
    /// Rounding mode, or `aq` and `rl`.
    pub rm: Field,
}

/// No immediate is too great.
const ANY: u8 = u8::MAX;

const _: () = assert!(size_of::<Encoding>() == 64);

impl Encoding {
    /// Parses the notation of the table. Only called at compile time: a mistake stops the build.
    pub(super) const fn parse(text: &str) -> Self {
        let text = text.as_bytes();
        let mut parsed = Self {
            length: 0,
            mask: 0,
            bits: 0,
            nonzero: [0; 2],
            least: [0; 2],
            most: ANY,
            rd: Field::NONE,
            rs1: Field::NONE,
            rs2: Field::NONE,
            rs3: Field::NONE,
            rm: Field::NONE,
            groups: [0; GROUPS],
            turns: [0; GROUPS],
            extension: 0,
            signed: false,
            fixed_imm: 0,
        };
        // The width comes first, since the notation begins at the top bit.
        let width = parsed.words(text, None);
        assert!(width == 16 || width == 32, "an encoding has 16 or 32 bits");
        parsed.length = if width == 16 { 2 } else { 4 };
        parsed.words(text, Some(width));
        if parsed.signed {
            #[allow(clippy::cast_possible_truncation, reason = "at most 32")]
            let extension = parsed.immediate_bits().leading_zeros() as u8;
            parsed.extension = extension;
        }
        parsed
    }

    /// Goes over the words of `text`, and adds up their widths; if the `total` is known, notes what they say.
    const fn words(&mut self, text: &[u8], total: Option<u8>) -> u8 {
        let mut width = 0;
        let mut start = 0;
        while start < text.len() {
            let mut end = start;
            while end < text.len() && text[end] != b' ' {
                end += 1;
            }
            let (_, rest) = text.split_at(start);
            let (word, _) = rest.split_at(end - start);
            width += width_of(word);
            if let Some(total) = total {
                self.note(word, total - width);
            }
            start = end + 1;
        }
        width
    }

    /// Notes a word whose lowest bit is bit `low`.
    const fn note(&mut self, word: &[u8], low: u8) {
        if word[0] == b'0' || word[0] == b'1' {
            let mut i = 0;
            while i < word.len() {
                let bit = 1 << (low as usize + word.len() - 1 - i);
                self.mask |= bit;
                if word[i] == b'1' {
                    self.bits |= bit;
                }
                i += 1;
            }
            return;
        }
        if let Some(at) = position(word, b'=') {
            let (name, value) = word.split_at(at);
            let (_, value) = value.split_at(1);
            let value = number(value);
            let fixed = Field { shift: 0, mask: 0, base: value };
            if same(name, b"rd") {
                self.rd = fixed;
            } else if same(name, b"rs1") {
                self.rs1 = fixed;
            } else if same(name, b"imm") {
                self.fixed_imm = value;
            } else {
                panic!("only rd, rs1 and imm can be fixed");
            }
            return;
        }
        let width = width_of(word);
        let (nonzero, word) = strip(word, b"nz");
        if nonzero {
            let bits = (u32::MAX >> (32 - width as u32)) << low;
            // The pieces of an immediate are together not zero; a register is by itself.
            assert!(bits >> 16 == 0, "only compressed instructions have fields that are not zero");
            #[allow(clippy::cast_possible_truncation, reason = "looked at above")]
            let bits = bits as u16;
            let field = (word[0] == b'r') as usize;
            self.nonzero[field] |= bits;
            self.least[field] = 1;
        }
        if let Some(at) = position(word, b'[') {
            let (name, ranges) = word.split_at(at);
            self.signed = same(name, b"imm");
            if same(name, b"rnum") {
                // The number of a round: 11 and more are reserved.
                self.most = 10;
            } else {
                assert!(self.signed || same(name, b"uimm"), "unknown immediate");
            }
            self.note_immediate(ranges, low + width);
        } else if let Some(at) = position(word, b'/') {
            let (first, second) = word.split_at(at);
            let (_, second) = second.split_at(1);
            self.note_field(first, low);
            self.note_field(second, low);
        } else {
            self.note_field(word, low);
        }
    }

    const fn note_field(&mut self, word: &[u8], low: u8) {
        let short = word[word.len() - 1] == b'\'';
        let (name, _) = word.split_at(word.len() - short as usize);
        let register = Field { shift: low, mask: if short { 7 } else { 31 }, base: if short { 8 } else { 0 } };
        if same(name, b"rd") {
            self.rd = register;
        } else if same(name, b"rs1") {
            self.rs1 = register;
        } else if same(name, b"rs2") {
            self.rs2 = register;
        } else if same(name, b"rs3") {
            self.rs3 = register;
        } else if same(name, b"rm") {
            self.rm = Field { shift: low, mask: 7, base: 0 };
        } else if same(name, b"rl") {
            self.rm = Field { shift: low, mask: 3, base: 0 };
        } else if !same(name, b"aq") {
            panic!("unknown field");
        }
    }

    /// Notes the bits of an immediate, `[5:3|2]`, that lie below bit `high` of the word.
    const fn note_immediate(&mut self, ranges: &[u8], mut high: u8) {
        let mut rest = ranges;
        while rest.len() > 1 {
            let (_, after) = rest.split_at(1);
            let (top, bottom, length) = range(after);
            let width = top - bottom + 1;
            high -= width;
            let turn = (32 + bottom - high) % 32;
            let mut group = 0;
            while self.groups[group] != 0 && self.turns[group] != turn {
                group += 1;
            }
            self.groups[group] |= (u32::MAX >> (32 - width as u32)) << high;
            self.turns[group] = turn;
            rest = after.split_at(length).1;
        }
    }

    /// Whether `word` is such an instruction; of a compressed one only the low 16 bits count.
    #[must_use]
    #[inline]
    pub const fn matches(&self, word: u32) -> bool {
        // Nothing here is worth a jump of the host that goes now this way, now that.
        let is_zero = ((word & self.nonzero[0] as u32) < self.least[0] as u32)
            | ((word & self.nonzero[1] as u32) < self.least[1] as u32);
        (word & self.mask == self.bits) & !is_zero && (self.most == ANY || self.immediate(word) <= self.most as i32)
    }

    /// The operands of `word`, which matches.
    #[inline(always)]
    pub(super) fn decode(&self, op: Op, word: u32) -> Instruction {
        Instruction {
            op,
            length: self.length,
            rd: self.rd.extract(word),
            rs1: self.rs1.extract(word),
            rs2: self.rs2.extract(word),
            rs3: self.rs3.extract(word),
            rm: self.rm.extract(word),
            imm: self.immediate(word),
        }
    }

    #[inline(always)]
    const fn immediate(&self, word: u32) -> i32 {
        let mut imm = self.turned(word, 0) | self.turned(word, 1) | self.turned(word, 2) | self.turned(word, 3);
        if self.groups[MOSTLY] != 0 {
            imm |= self.turned(word, 4) | self.turned(word, 5);
        }
        (imm.cast_signed() << (self.extension & 31) >> (self.extension & 31)) | self.fixed_imm as i32
    }

    #[inline(always)]
    const fn turned(&self, word: u32, group: usize) -> u32 {
        (word & self.groups[group]).rotate_left(self.turns[group] as u32)
    }

    /// The bits of the immediate that the word holds.
    const fn immediate_bits(&self) -> u32 {
        let mut bits = 0;
        let mut group = 0;
        while group < GROUPS {
            bits |= self.turned(u32::MAX, group);
            group += 1;
        }
        bits
    }

    /// The word for an instruction's operands, or `None` if this encoding cannot say them.
    #[must_use]
    pub fn encode(&self, instruction: &Instruction) -> Option<u32> {
        let mut word = self.bits
            | self.rd.insert(instruction.rd)
            | self.rs1.insert(instruction.rs1)
            | self.rs2.insert(instruction.rs2)
            | self.rs3.insert(instruction.rs3)
            | self.rm.insert(instruction.rm);
        for (group, turn) in self.groups.into_iter().zip(self.turns) {
            word |= instruction.imm.cast_unsigned().rotate_right(turn.into()) & group;
        }
        (self.matches(word) && self.decode(instruction.op, word) == *instruction).then_some(word)
    }

    /// The smallest and largest immediate and the distance between neighbours, or `None` if there is no immediate field.
    #[must_use]
    pub fn immediate_range(&self) -> Option<(i64, i64, i64)> {
        let bits = self.immediate_bits();
        let step = 1i64 << bits.checked_ilog2().and(Some(bits.trailing_zeros()))?;
        let end = 1i64 << (32 - bits.leading_zeros());
        Some(if self.signed { (-end / 2, end / 2 - step, step) } else { (0, end - step, step) })
    }

    /// Whether destination and first source are one field.
    #[must_use]
    pub const fn shares_source(&self) -> bool {
        self.rd.mask != 0 && self.rs1.mask != 0 && self.rd.shift == self.rs1.shift
    }

    /// Whether it has the bits `aq` and `rl`.
    #[must_use]
    pub const fn is_atomic(&self) -> bool {
        self.rm.mask == 3
    }

    /// Whether it has a rounding mode.
    #[must_use]
    pub const fn has_rounding_mode(&self) -> bool {
        self.rm.mask == 7
    }
}

/// How many bits a word of the notation takes.
const fn width_of(word: &[u8]) -> u8 {
    if word[0] == b'0' || word[0] == b'1' {
        #[allow(clippy::cast_possible_truncation, reason = "at most 32")]
        return word.len() as u8;
    }
    if position(word, b'=').is_some() {
        return 0;
    }
    if let Some(at) = position(word, b'[') {
        let mut rest = word.split_at(at).1;
        let mut width = 0;
        while rest.len() > 1 {
            let (_, after) = rest.split_at(1);
            let (top, bottom, length) = range(after);
            width += top - bottom + 1;
            rest = after.split_at(length).1;
        }
        return width;
    }
    if same(word, b"aq") || same(word, b"rl") {
        1
    } else if same(word, b"rm") || word[word.len() - 1] == b'\'' {
        3
    } else {
        5
    }
}

/// Reads `7:6` or `7`: the top bit, the bottom bit, and how long the text is.
const fn range(text: &[u8]) -> (u8, u8, usize) {
    let mut bounds = [0; 2];
    let mut which = 0;
    let mut i = 0;
    while text[i] != b'|' && text[i] != b']' {
        if text[i] == b':' {
            which = 1;
        } else {
            bounds[which] = bounds[which] * 10 + digit(text[i]);
        }
        i += 1;
    }
    if which == 0 {
        bounds[1] = bounds[0];
    }
    assert!(bounds[0] >= bounds[1], "a range of bits goes downwards");
    (bounds[0], bounds[1], i)
}

const fn number(text: &[u8]) -> u8 {
    let mut value = 0;
    let mut i = 0;
    while i < text.len() {
        value = value * 10 + digit(text[i]);
        i += 1;
    }
    value
}

const fn digit(byte: u8) -> u8 {
    assert!(byte.is_ascii_digit(), "a digit is expected here");
    byte - b'0'
}

const fn position(text: &[u8], byte: u8) -> Option<usize> {
    let mut i = 0;
    while i < text.len() {
        if text[i] == byte {
            return Some(i);
        }
        i += 1;
    }
    None
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

const fn strip<'a>(text: &'a [u8], prefix: &[u8]) -> (bool, &'a [u8]) {
    if text.len() >= prefix.len() {
        let (head, tail) = text.split_at(prefix.len());
        if same(head, prefix) {
            return (true, tail);
        }
    }
    (false, text)
}
