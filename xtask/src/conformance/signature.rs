//! Signatures: the results that a test leaves in its memory, compared with those of another implementation.
//!
//! A reference has one number a line, in hexadecimal without prefix, each as wide as its digits say: eight digits are four bytes of
//! memory, little-endian, sixteen are eight.

use std::fmt;

use anyhow::{Context, Result, bail};

/// What a signature should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// How many bytes each line stands for.
    width: usize,
    bytes: Vec<u8>,
}

/// How a signature is not its reference.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// One is longer than the other; sizes in bytes.
    Length { signature: u64, reference: u64 },
    /// Words differ.
    Words { first: Word, others: usize },
}

/// A word that differs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Which it is, counted from zero.
    index: usize,
    /// Its address.
    at: u64,
    /// Its digits in the test's memory.
    is: String,
    /// Its digits in the reference.
    should_be: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { signature, reference } => {
                write!(f, "the signature has {signature} bytes, its reference {reference}")
            }
            Self::Words { first: Word { index, at, is, should_be }, others } => {
                write!(f, "signature word {index} at {at:#x} is {is}, the reference says {should_be}")?;
                if *others > 0 {
                    write!(f, "; {others} more differ")?;
                }
                Ok(())
            }
        }
    }
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// A line is not a number, or not as wide as the first.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut reference = Self { width: 0, bytes: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let digits = line.trim();
            if digits.is_empty() {
                continue;
            }
            let number = number + 1;
            let width = digits.len() / 2;
            if reference.width == 0 {
                reference.width = width;
            }
            if !matches!(width, 1 | 2 | 4 | 8 | 16) || digits.len() % 2 != 0 || width != reference.width {
                bail!("line {number} has {} digits; all lines have as many, 2, 4, 8, 16 or 32", digits.len());
            }
            let value = u128::from_str_radix(digits, 16)
                .with_context(|| format!("line {number} is {digits:?}, not a hexadecimal number"))?;
            reference.bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        if reference.bytes.is_empty() {
            bail!("is empty");
        }
        Ok(reference)
    }

    /// Compares with the signature `bytes`, which is at address `at`. The last line may reach past the signature's end.
    pub(super) fn compare(&self, at: u64, bytes: &[u8]) -> Result<(), Difference> {
        if bytes.len().next_multiple_of(self.width) != self.bytes.len() {
            return Err(Difference::Length { signature: bytes.len() as u64, reference: self.bytes.len() as u64 });
        }
        let is = bytes.chunks(self.width);
        let should_be = self.bytes.chunks(self.width);
        let mut differing = is.zip(should_be).enumerate().filter(|(_, (is, should_be))| **is != should_be[..is.len()]);
        let Some((index, (is, should_be))) = differing.next() else { return Ok(()) };
        let at = at + (index * self.width) as u64;
        let first = Word { index, at, is: digits(is), should_be: digits(should_be) };
        Err(Difference::Words { first, others: differing.count() })
    }
}

fn digits(little_endian: &[u8]) -> String {
    little_endian.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_of_lines_is_the_width_of_words() {
        let words = Reference::parse("00000001\ndeadbeef\n").unwrap();
        assert_eq!(words.bytes, [1, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde]);
        let double = Reference::parse("deadbeef00000001\n\n").unwrap();
        assert_eq!((double.width, &double.bytes), (8, &words.bytes));
        assert!(double.compare(0, &words.bytes).is_ok());
        for bad in ["", "0001\n01\n", "123\n", "xyzw\n", "+123\n-001"] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let reference = Reference::parse("00000001\n00000002\n00000003\n").unwrap();
        let difference = reference.compare(0x100, &[1, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0]).unwrap_err();
        assert_eq!(
            difference.to_string(),
            "signature word 1 at 0x104 is 00000009, the reference says 00000002; 1 more differ"
        );
        assert_eq!(reference.compare(0, &[0; 8]), Err(Difference::Length { signature: 8, reference: 12 }));
        assert!(reference.compare(0, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0]).is_ok(), "the last line may be longer");
    }
}
