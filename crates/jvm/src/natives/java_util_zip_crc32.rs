//! `java.util.zip.CRC32`

use super::support::{elements, int, memory, natives};

/// The checksum of what came before and `bytes`.
fn update(checksum: i32, bytes: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new_with_initial(checksum.cast_unsigned());
    hasher.update(bytes);
    int(hasher.finalize().cast_signed())
}

natives! { "java/util/zip/CRC32":
    "update" "(II)I" => |_, arguments| Ok(update(arguments.int(0), &arguments.int(1).to_le_bytes()[..1]));
    // The class has checked the ranges.
    "updateBytes0" "(I[BII)I" => |_, arguments| {
        // SAFETY: the thread neither waits nor collects.
        Ok(update(arguments.int(0), unsafe { elements(arguments.reference(1), arguments.int(2), arguments.int(3)) }))
    };
    "updateByteBuffer0" "(IJII)I" => |_, arguments| {
        let start = arguments.long(1).wrapping_add(i64::from(arguments.int(3)));
        // SAFETY: the buffer's memory, in the range that the class has checked.
        Ok(update(arguments.int(0), unsafe { memory(start, arguments.int(4)) }))
    };
}
