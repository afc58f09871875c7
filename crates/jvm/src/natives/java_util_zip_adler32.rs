//! `java.util.zip.Adler32` (RFC 1950, 9)

use super::support::{elements, int, memory, natives};

const BASE: u32 = 65_521;
/// So many bytes are summed before a remainder must be taken, lest 32 bits overflow.
const RUN: usize = 5552;

/// The checksum of what came before and `bytes`.
fn update(checksum: i32, bytes: &[u8]) -> u64 {
    let checksum = checksum.cast_unsigned();
    let (mut low, mut high) = (checksum & 0xFFFF, checksum >> 16);
    for run in bytes.chunks(RUN) {
        for &byte in run {
            low += u32::from(byte);
            high += low;
        }
        low %= BASE;
        high %= BASE;
    }
    int((high << 16 | low).cast_signed())
}

natives! { "java/util/zip/Adler32":
    "update" "(II)I" => |_, arguments| Ok(update(arguments.int(0), &arguments.int(1).to_le_bytes()[..1]));
    "updateBytes" "(I[BII)I" => |_, arguments| {
        // SAFETY: the thread neither waits nor collects.
        Ok(update(arguments.int(0), unsafe { elements(arguments.reference(1), arguments.int(2), arguments.int(3)) }))
    };
    "updateByteBuffer" "(IJII)I" => |_, arguments| {
        let start = arguments.long(1).wrapping_add(i64::from(arguments.int(3)));
        // SAFETY: the buffer's memory, in the range that the class has checked.
        Ok(update(arguments.int(0), unsafe { memory(start, arguments.int(4)) }))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        assert_eq!(update(1, b"Wikipedia"), 0x11E6_0398);
        let long = vec![0xFF; 100_000];
        assert_eq!(update(update(1, &long[..777]).try_into().unwrap(), &long[777..]), update(1, &long));
    }
}
