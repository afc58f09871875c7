//! The time calls that programs make most, answered by the host's vdso without its kernel.

use crate::space::AddressSpace;
use crate::sys::raw;

/// `clock_gettime(clock, time)`.
///
/// # Errors
/// Negative error numbers.
pub fn clock_gettime(space: &AddressSpace, clock: u64, at: u64) -> Result<i64, i64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = crate::sys::low(clock).cast_signed();
    // SAFETY: writes one `timespec`.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(crate::sys::EINVAL);
    }
    write_pair(space, at, time.tv_sec, time.tv_nsec)
}

/// `gettimeofday(time, zone)`.
///
/// # Errors
/// Negative error numbers.
pub fn gettimeofday(space: &AddressSpace, at: u64, zone: u64) -> Result<i64, i64> {
    if zone != 0 {
        let arguments = [space.pointer(at)?, space.pointer(zone)?, 0, 0, 0, 0];
        // SAFETY: the kernel writes guest memory.
        return Ok(unsafe { raw(libc::SYS_gettimeofday, arguments) });
    }
    if at == 0 {
        return Ok(0);
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    write_pair(space, at, time.tv_sec, time.tv_nsec / 1000)
}

fn write_pair(space: &AddressSpace, at: u64, first: i64, second: i64) -> Result<i64, i64> {
    let mut pair = [0; 16];
    pair[..8].copy_from_slice(&first.to_le_bytes());
    pair[8..].copy_from_slice(&second.to_le_bytes());
    space.write(at, &pair).map(|()| 0)
}
