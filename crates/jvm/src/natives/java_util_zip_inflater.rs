//! `java.util.zip.Inflater`
//!
//! The class keeps the address of a stream as a `long`, calls with it one at a time, and ends it once.

use flate2::{Decompress, FlushDecompress, Status};

use super::support::{VOID, array_bytes, elements, elements_mut, field, int, long, memory, natives};
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::object::Reference;
use crate::thread::{Result, Thread};

struct Stream {
    state: Decompress,
    /// With the header and checksum of zlib.
    zlib: bool,
    /// The checksum of what came out, or of the dictionary that is wanted; 0 without one.
    adler: u32,
}

/// # Safety
/// The address is of a stream that was not ended, which no other thread uses now.
unsafe fn stream<'a>(address: i64) -> &'a mut Stream {
    let address = usize::try_from(address).unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe { &mut *std::ptr::with_exposed_provenance_mut(address) }
}

/// Sums what came out, as zlib does for its checksum.
fn sum(adler: u32, bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (adler & 0xFFFF, adler >> 16);
    for run in bytes.chunks(5552) {
        for &byte in run {
            low += u32::from(byte);
            high += low;
        }
        low %= 65_521;
        high %= 65_521;
    }
    high << 16 | low
}

/// Inflates, and says how in the bits that the class expects: 31 for what was read, 31 for what was written, finished, dictionary wanted.
fn inflate(thread: &mut Thread, this: Reference, stream: &mut Stream, input: &[u8], output: &mut [u8]) -> Result<u64> {
    let (read, written) = (stream.state.total_in(), stream.state.total_out());
    let result = stream.state.decompress(input, output, FlushDecompress::Sync);
    let read = stream.state.total_in() - read;
    let written = stream.state.total_out() - written;
    let packed = read | written << 31;
    if stream.zlib {
        let made = usize::try_from(written).unwrap_or(0).min(output.len());
        stream.adler = sum(stream.adler, &output[..made]);
    }
    match result {
        Ok(Status::StreamEnd) => Ok(packed | 1 << 62),
        Ok(Status::Ok | Status::BufError) => Ok(packed),
        Err(error) => match error.needs_dictionary() {
            Some(adler) => {
                stream.adler = adler;
                Ok(packed | 1 << 63)
            }
            None => {
                let count = |count: u64| i32::try_from(count).unwrap_or(i32::MAX);
                this.write(field!("java/util/zip/Inflater", "inputConsumed", "I"), count(read));
                this.write(field!("java/util/zip/Inflater", "outputConsumed", "I"), count(written));
                let text = error.message().unwrap_or("invalid stored block lengths");
                Err(exceptions::throw(thread, "java/util/zip/DataFormatException", text))
            }
        },
    }
}

/// `this, address, input (array, offset, length | address, length), output (the same)`
fn call(thread: &mut Thread, arguments: Arguments, input_array: bool, output_array: bool) -> Result<u64> {
    // SAFETY: the class holds the stream's lock.
    let stream = unsafe { stream(arguments.long(1)) };
    // Both forms take three slots.
    let (from, to) = (arguments.reference(3), arguments.reference(6));
    let copied;
    let input: &[u8] = if input_array && output_array && from == to {
        copied = array_bytes(from, arguments.int(4), arguments.int(5));
        &copied
    } else if input_array {
        // SAFETY: used before the thread waits or collects; the output is elsewhere.
        unsafe { elements(from, arguments.int(4), arguments.int(5)) }
    } else {
        // SAFETY: memory of the caller's buffer.
        unsafe { memory(arguments.long(3), arguments.int(5)) }
    };
    // SAFETY: as above.
    let output = unsafe {
        if output_array {
            elements_mut(to, arguments.int(7), arguments.int(8))
        } else {
            memory(arguments.long(6), arguments.int(8))
        }
    };
    inflate(thread, arguments.reference(0), stream, input, output)
}

fn set_dictionary(arguments: Arguments, dictionary: &[u8]) -> u64 {
    // SAFETY: as above.
    let stream = unsafe { stream(arguments.long(0)) };
    // The class has asked for it, or the checksum tells that it is another.
    if let Ok(adler) = stream.state.set_dictionary(dictionary) {
        stream.adler = adler;
    }
    stream.adler = u32::from(stream.zlib);
    VOID
}

natives! { "java/util/zip/Inflater":
    "initIDs" "()V" => |_, _| Ok(VOID);
    "init" "(Z)J" => |_, arguments| {
        let zlib = !arguments.boolean(0);
        let stream = Box::new(Stream { state: Decompress::new(zlib), zlib, adler: u32::from(zlib) });
        Ok(Box::into_raw(stream).expose_provenance() as u64)
    };
    "inflateBytesBytes" "(J[BII[BII)J" => |thread, arguments| call(thread, arguments, true, true);
    "inflateBytesBuffer" "(J[BIIJI)J" => |thread, arguments| call(thread, arguments, true, false);
    "inflateBufferBytes" "(JJI[BII)J" => |thread, arguments| call(thread, arguments, false, true);
    "inflateBufferBuffer" "(JJIJI)J" => |thread, arguments| call(thread, arguments, false, false);
    "setDictionary" "(J[BII)V" => |_, arguments| {
        let bytes = array_bytes(arguments.reference(2), arguments.int(3), arguments.int(4));
        Ok(set_dictionary(arguments, &bytes))
    };
    "setDictionaryBuffer" "(JJI)V" => |_, arguments| {
        // SAFETY: memory of the caller's buffer.
        let bytes = unsafe { memory(arguments.long(2), arguments.int(4)) };
        Ok(set_dictionary(arguments, bytes))
    };
    // SAFETY: as above.
    "getAdler" "(J)I" => |_, arguments| Ok(int(unsafe { stream(arguments.long(0)) }.adler.cast_signed()));
    "reset" "(J)V" => |_, arguments| {
        // SAFETY: as above.
        let stream = unsafe { stream(arguments.long(0)) };
        stream.state.reset(stream.zlib);
        stream.adler = u32::from(stream.zlib);
        Ok(VOID)
    };
    "end" "(J)V" => |_, arguments| {
        let address = usize::try_from(arguments.long(0)).unwrap_or(0);
        let stream: *mut Stream = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: made by `init`, and the class ends a stream once.
        drop(unsafe { Box::from_raw(stream) });
        Ok(long(0))
    };
}
