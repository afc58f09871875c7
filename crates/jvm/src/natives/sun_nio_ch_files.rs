//! `sun.nio.ch.FileDispatcherImpl`, `FileChannelImpl` and `FileKey`: file channels. Buffers are memory outside of the heap.

use super::Table;
use super::support::{VOID, descriptor, field, int, io_exception, long, memory, set_descriptor, waiting};
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::services::{self, Failure, files};
use crate::thread::{Result, Thread};

/// `IOStatus`
const EOF: i32 = -1;
const UNAVAILABLE: i32 = -2;
const INTERRUPTED: i32 = -3;
const UNSUPPORTED_CASE: i32 = -6;

/// The result of reading or writing as `IOStatus` has it.
pub(super) fn status(thread: &mut Thread, result: services::Result<usize>, reading: bool) -> Result<i64> {
    match result {
        Ok(0) if reading => Ok(i64::from(EOF)),
        Ok(count) => Ok(i64::try_from(count).unwrap_or(i64::MAX)),
        Err(Failure::Host(libc::EAGAIN)) => Ok(i64::from(UNAVAILABLE)),
        Err(Failure::Host(libc::EINTR)) => Ok(i64::from(INTERRUPTED)),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// `fd, address, length [, position]`
fn transfer(thread: &mut Thread, arguments: Arguments, writes: bool, positioned: bool) -> Result<u64> {
    let number = descriptor(arguments.reference(0));
    // SAFETY: the channel's buffer, as long as it says.
    let buffer = unsafe { memory(arguments.long(1), arguments.int(3)) };
    let empty = buffer.is_empty();
    let position = if positioned { arguments.long(4) } else { 0 };
    let result = waiting(thread, || match (writes, positioned) {
        (false, false) => files::read_once(number, buffer),
        (false, true) => files::read_at(number, buffer, position),
        (true, false) => files::write_once(number, buffer),
        (true, true) => files::write_at(number, buffer, position),
    });
    let count = status(thread, result, !writes && !empty)?;
    Ok(int(i32::try_from(count).unwrap_or(i32::MAX)))
}

/// `fd, address of (address, length) pairs, count`
pub(super) fn scatter(thread: &mut Thread, arguments: Arguments, writes: bool) -> services::Result<usize> {
    let number = descriptor(arguments.reference(0));
    let (table, count) = (arguments.long(1), arguments.int(3));
    // SAFETY: the channel's table of buffers, which it keeps meanwhile.
    waiting(thread, || unsafe { files::transfer_vector(number, table, count, writes) })
}

/// The same as an `IOStatus`.
pub(super) fn scatter_status(thread: &mut Thread, arguments: Arguments, writes: bool) -> Result<u64> {
    let result = scatter(thread, arguments, writes);
    status(thread, result, !writes).map(long)
}

fn done(thread: &mut Thread, result: services::Result<()>) -> Result<u64> {
    result.map(|()| VOID).map_err(|failure| io_exception(thread, &failure))
}

fn lock(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = descriptor(arguments.reference(0));
    let (wait, position, length) = (arguments.boolean(1), arguments.long(2), arguments.long(4));
    let shared = arguments.boolean(6);
    match waiting(thread, || files::lock(number, position, length, shared, wait)) {
        // `FileDispatcher.LOCKED` and `NO_LOCK`
        Ok(locked) => Ok(int(if locked { 0 } else { -1 })),
        // `FileDispatcher.INTERRUPTED`: the channel is closed, or the class tries again.
        Err(Failure::Host(libc::EINTR)) => Ok(int(2)),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// `this, mode, position, length, synchronous`
fn map(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let channel = arguments.reference(0);
    let number = descriptor(channel.reference(field!("sun/nio/ch/FileChannelImpl", "fd", "Ljava/io/FileDescriptor;")));
    // `MAP_RO`, `MAP_RW` and `MAP_PV`
    let mode = arguments.int(1);
    let length = usize::try_from(arguments.long(4)).unwrap_or(0);
    match files::map(number, mode != 0, mode == 2, arguments.long(2), length) {
        Ok(address) => Ok(long(address)),
        Err(Failure::Host(libc::ENOMEM)) => Err(exceptions::throw(thread, "java/lang/OutOfMemoryError", "Map failed")),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

/// `this, from, position, count, to`
fn transfer_to(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (from, to) = (descriptor(arguments.reference(1)), descriptor(arguments.reference(6)));
    let count = usize::try_from(arguments.long(4)).unwrap_or(0);
    let position = arguments.long(2);
    match waiting(thread, || files::copy(from, position, count, to)) {
        Ok(copied) => Ok(long(copied)),
        Err(Failure::Host(libc::EAGAIN)) => Ok(long(i64::from(UNAVAILABLE))),
        Err(Failure::Host(libc::EINTR)) => Ok(long(i64::from(INTERRUPTED))),
        // Then the class copies through a buffer.
        Err(Failure::Host(_)) => Ok(long(i64::from(UNSUPPORTED_CASE))),
        Err(failure) => Err(io_exception(thread, &failure)),
    }
}

pub(super) const TABLES: &[Table] = &[
    (
        "sun/nio/ch/FileDispatcherImpl",
        &[
            ("init", "()V", |_, _| Ok(VOID)),
            ("read0", "(Ljava/io/FileDescriptor;JI)I", |thread, a| transfer(thread, a, false, false)),
            ("write0", "(Ljava/io/FileDescriptor;JI)I", |thread, a| transfer(thread, a, true, false)),
            ("pread0", "(Ljava/io/FileDescriptor;JIJ)I", |thread, a| transfer(thread, a, false, true)),
            ("pwrite0", "(Ljava/io/FileDescriptor;JIJ)I", |thread, a| transfer(thread, a, true, true)),
            ("readv0", "(Ljava/io/FileDescriptor;JI)J", |thread, a| scatter_status(thread, a, false)),
            ("writev0", "(Ljava/io/FileDescriptor;JI)J", |thread, a| scatter_status(thread, a, true)),
            ("seek0", "(Ljava/io/FileDescriptor;J)J", |thread, a| {
                let number = descriptor(a.reference(0));
                // A negative offset asks where the file is.
                let moved = match a.long(1) {
                    ..0 => files::seek(number, 0, libc::SEEK_CUR),
                    offset => files::seek(number, offset, libc::SEEK_SET),
                };
                moved.map(long).map_err(|failure| io_exception(thread, &failure))
            }),
            ("force0", "(Ljava/io/FileDescriptor;Z)I", |thread, a| {
                let (number, all) = (descriptor(a.reference(0)), a.boolean(1));
                match waiting(thread, || files::flush(number, all)) {
                    // Of what cannot be flushed, all is done.
                    Ok(()) | Err(Failure::Host(libc::EINVAL | libc::EROFS)) => Ok(int(0)),
                    Err(failure) => Err(io_exception(thread, &failure)),
                }
            }),
            ("truncate0", "(Ljava/io/FileDescriptor;J)I", |thread, a| {
                done(thread, files::set_length(descriptor(a.reference(0)), a.long(1)))
            }),
            ("size0", "(Ljava/io/FileDescriptor;)J", |thread, a| {
                let status = files::status_of(descriptor(a.reference(0)));
                status.map(|status| long(status.st_size)).map_err(|failure| io_exception(thread, &failure))
            }),
            ("lock0", "(Ljava/io/FileDescriptor;ZJJZ)I", lock),
            ("release0", "(Ljava/io/FileDescriptor;JJ)V", |thread, a| {
                done(thread, files::unlock(descriptor(a.reference(0)), a.long(1), a.long(3)))
            }),
            ("close0", "(Ljava/io/FileDescriptor;)V", |thread, a| {
                let number = descriptor(a.reference(0));
                set_descriptor(a.reference(0), -1);
                if number < 0 { Ok(VOID) } else { done(thread, files::close(number)) }
            }),
            ("preClose0", "(Ljava/io/FileDescriptor;)V", |thread, a| {
                let number = descriptor(a.reference(0));
                if number < 0 { Ok(VOID) } else { done(thread, services::network::pre_close(number)) }
            }),
            ("dup0", "(Ljava/io/FileDescriptor;Ljava/io/FileDescriptor;)V", |thread, a| {
                done(thread, files::duplicate_to(descriptor(a.reference(0)), descriptor(a.reference(1))))
            }),
            ("closeIntFD", "(I)V", |thread, a| done(thread, files::close(a.int(0)))),
            ("canTransferToFromOverlappedMap0", "()Z", |_, _| Ok(1)),
            ("setDirect0", "(Ljava/io/FileDescriptor;)I", |thread, a| {
                let size = files::set_direct(descriptor(a.reference(0)));
                size.map(int).map_err(|failure| io_exception(thread, &failure))
            }),
        ],
    ),
    (
        "sun/nio/ch/FileChannelImpl",
        &[
            ("initIDs", "()J", |_, _| Ok(long(4096))),
            ("map0", "(IJJZ)J", map),
            ("unmap0", "(JJ)I", |thread, a| {
                let length = usize::try_from(a.long(2)).unwrap_or(0);
                // SAFETY: the class unmaps what it mapped, when no buffer of it is left.
                done(thread, unsafe { files::unmap(a.long(0), length) })
            }),
            ("transferTo0", "(Ljava/io/FileDescriptor;JJLjava/io/FileDescriptor;)J", transfer_to),
            ("maxDirectTransferSize0", "()I", |_, _| Ok(int(0x7FFF_F000))),
        ],
    ),
    (
        "sun/nio/ch/FileKey",
        &[("init", "(Ljava/io/FileDescriptor;)V", |thread, a| {
            let status = files::status_of(descriptor(a.reference(1)));
            let status = status.map_err(|failure| io_exception(thread, &failure))?;
            a.reference(0).write(field!("sun/nio/ch/FileKey", "st_dev", "J"), status.st_dev);
            a.reference(0).write(field!("sun/nio/ch/FileKey", "st_ino", "J"), status.st_ino);
            Ok(VOID)
        })],
    ),
];
