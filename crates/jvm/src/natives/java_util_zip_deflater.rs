//! `java.util.zip.Deflater`
//!
//! The class keeps the address of a stream as a `long`, calls with it one at a time, and ends it once. Strategies are accepted and not followed:
//! they change how small the result is, not what it inflates to.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::support::{VOID, array_bytes, elements, elements_mut, int, memory, natives};
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::thread::{Result, Thread};

struct Stream {
    state: Compress,
    /// With a header and a checksum around the data.
    is_wrapped: bool,
    /// Nothing has been done with it since it was made or reset.
    is_fresh: bool,
    /// The checksum of what went in.
    adler: u32,
}

/// # Safety
/// The address is of a stream that was not ended, which no other thread uses now.
unsafe fn stream<'a>(address: i64) -> &'a mut Stream {
    let address = usize::try_from(address).unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe { &mut *std::ptr::with_exposed_provenance_mut(address) }
}

/// -1 is zlib's own choice, which is 6.
fn level(level: i32) -> Compression {
    Compression::new(u32::try_from(level).map_or(6, |level| level.min(9)))
}

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

/// Deflates, and says how in the bits that the class expects: 31 for what was read, 31 for what was written, finished, parameters not yet set.
fn deflate(stream: &mut Stream, input: &[u8], output: &mut [u8], flush: i32, parameters: i32) -> u64 {
    // A call that sets parameters of a new stream does nothing else: not even a header is written. In the middle of a stream another level changes only how
    // small the rest is.
    if parameters & 1 != 0 && stream.is_fresh {
        stream.state = Compress::new(level(parameters >> 3), stream.is_wrapped);
        return 0;
    }
    stream.is_fresh = false;
    let flush = match flush {
        2 => FlushCompress::Sync,
        3 => FlushCompress::Full,
        4 => FlushCompress::Finish,
        _ => FlushCompress::None,
    };
    let (read, written) = (stream.state.total_in(), stream.state.total_out());
    let result = stream.state.compress(input, output, flush);
    let read = stream.state.total_in() - read;
    let written = stream.state.total_out() - written;
    if stream.is_wrapped {
        stream.adler = sum(stream.adler, &input[..usize::try_from(read).unwrap_or(0).min(input.len())]);
    }
    let packed = read | written << 31;
    if matches!(result, Ok(Status::StreamEnd)) { packed | 1 << 62 } else { packed }
}

/// `this, address, input (array, offset, length | address, length), output (the same), flush, parameters`
fn call(arguments: Arguments, input_array: bool, output_array: bool) -> u64 {
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
    deflate(stream, input, output, arguments.int(9), arguments.int(10))
}

fn set_dictionary(thread: &mut Thread, arguments: Arguments, dictionary: &[u8]) -> Result<u64> {
    // SAFETY: as above.
    let stream = unsafe { stream(arguments.long(0)) };
    stream.is_fresh = false;
    match stream.state.set_dictionary(dictionary) {
        Ok(adler) => stream.adler = adler,
        Err(_) => return Err(exceptions::throw_plain(thread, "java/lang/IllegalArgumentException")),
    }
    Ok(VOID)
}

natives! { "java/util/zip/Deflater":
    "init" "(IIZ)J" => |_, arguments| {
        let is_wrapped = !arguments.boolean(2);
        let state = Compress::new(level(arguments.int(0)), is_wrapped);
        let stream = Stream { state, is_wrapped, is_fresh: true, adler: 1 };
        Ok(Box::into_raw(Box::new(stream)).expose_provenance() as u64)
    };
    "deflateBytesBytes" "(J[BII[BIIII)J" => |_, arguments| Ok(call(arguments, true, true));
    "deflateBytesBuffer" "(J[BIIJIII)J" => |_, arguments| Ok(call(arguments, true, false));
    "deflateBufferBytes" "(JJI[BIIII)J" => |_, arguments| Ok(call(arguments, false, true));
    "deflateBufferBuffer" "(JJIJIII)J" => |_, arguments| Ok(call(arguments, false, false));
    "setDictionary" "(J[BII)V" => |thread, arguments| {
        let bytes = array_bytes(arguments.reference(2), arguments.int(3), arguments.int(4));
        set_dictionary(thread, arguments, &bytes)
    };
    "setDictionaryBuffer" "(JJI)V" => |thread, arguments| {
        // SAFETY: memory of the caller's buffer.
        let bytes = unsafe { memory(arguments.long(2), arguments.int(4)) };
        set_dictionary(thread, arguments, bytes)
    };
    // SAFETY: as above.
    "getAdler" "(J)I" => |_, arguments| Ok(int(unsafe { stream(arguments.long(0)) }.adler.cast_signed()));
    "reset" "(J)V" => |_, arguments| {
        // SAFETY: as above.
        let stream = unsafe { stream(arguments.long(0)) };
        stream.state.reset();
        stream.is_fresh = true;
        stream.adler = 1;
        Ok(VOID)
    };
    "end" "(J)V" => |_, arguments| {
        let address = usize::try_from(arguments.long(0)).unwrap_or(0);
        let stream: *mut Stream = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: made by `init`, and the class ends a stream once.
        drop(unsafe { Box::from_raw(stream) });
        Ok(VOID)
    };
}
