//! Modified UTF-8 (JVMS 4.4.7): how strings and names are in class files. NUL takes two bytes, and what is beyond 16 bits is a pair of
//! surrogates of three bytes each.

/// Whether `bytes` are well formed. Class files before version 48 may use longer forms than needed.
pub fn is_valid(bytes: &[u8], longer_forms: bool) -> bool {
    if bytes.iter().all(|&byte| byte.wrapping_sub(1) < 0x7F) {
        return true;
    }
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let length = match (first, after) {
            (0x01..=0x7F, _) => 1,
            (0xC0..=0xDF, &[second, ..]) if second & 0xC0 == 0x80 => {
                let unit = (u16::from(first & 0x1F) << 6) | u16::from(second & 0x3F);
                if unit != 0 && unit < 0x80 && !longer_forms {
                    return false;
                }
                2
            }
            (0xE0..=0xEF, &[second, third, ..]) if second & 0xC0 == 0x80 && third & 0xC0 == 0x80 => {
                let unit = (u16::from(first & 0x0F) << 12) | (u16::from(second & 0x3F) << 6) | u16::from(third & 0x3F);
                if unit < 0x800 && !longer_forms {
                    return false;
                }
                3
            }
            _ => return false,
        };
        rest = &rest[length..];
    }
    true
}

/// The UTF-16 code units of well-formed bytes. Of others, some units: it never fails.
pub fn units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let continuation = |index: usize| rest.get(index).map_or(0, |&byte| u16::from(byte & 0x3F));
        let (&first, _) = rest.split_first()?;
        let (unit, length) = match first {
            0x00..=0x7F => (u16::from(first), 1),
            0x80..=0xDF => ((u16::from(first & 0x1F) << 6) | continuation(1), 2),
            0xE0..=0xFF => ((u16::from(first & 0x0F) << 12) | (continuation(1) << 6) | continuation(2), 3),
        };
        rest = rest.get(length..).unwrap_or_default();
        Some(unit)
    })
}

/// The text, with U+FFFD for a surrogate that has no partner.
pub fn decode(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.to_owned(),
        _ => char::decode_utf16(units(bytes)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect(),
    }
}

/// The bytes of UTF-16 code units.
pub fn encode(units: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for unit in units {
        // Masked to what fits before it is narrowed.
        let low = |shift: u16, mask: u16| ((unit >> shift) & mask).to_le_bytes()[0];
        match unit {
            0x0001..=0x007F => bytes.push(low(0, 0x7F)),
            0x0000..=0x07FF => bytes.extend([0xC0 | low(6, 0x1F), 0x80 | low(0, 0x3F)]),
            _ => bytes.extend([0xE0 | low(12, 0x0F), 0x80 | low(6, 0x3F), 0x80 | low(0, 0x3F)]),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_unit_survives() {
        for unit in 0..=u16::MAX {
            let bytes = encode([unit, u16::from(b'x')]);
            assert!(is_valid(&bytes, false), "{unit:#x}");
            assert_eq!(units(&bytes).collect::<Vec<_>>(), [unit, u16::from(b'x')]);
        }
        assert_eq!(decode(&encode("a\0ü€😀".encode_utf16())), "a\0ü€😀");
    }

    #[test]
    fn malformed_is_refused() {
        for bytes in [&[0][..], &[0x80], &[0xC3], &[0xC3, 0x41], &[0xE2, 0x82], &[0xF0, 0x9F, 0x98, 0x80], &[0xFF]] {
            assert!(!is_valid(bytes, true), "{bytes:x?}");
            // And decoding it does no harm.
            decode(bytes);
        }
        // A longer form than needed, which old class files may use.
        assert!(!is_valid(&[0xC1, 0x81], false));
        assert!(is_valid(&[0xC1, 0x81], true));
    }
}
