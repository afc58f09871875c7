//! `epoll`, `poll`, `select`, `signalfd`: waiting for several things, and the masks of signals that go with it.
//!
//! `struct epoll_event` is packed on x86-64 (12 bytes) and nowhere else (16 bytes, the data at 8): the one structure here that is copied.

use crate::signal::ThreadSignals;
use crate::signal::host::SYNCHRONOUS;
use crate::space::AddressSpace;
use crate::sys::low;
use crate::sys::raw;

/// Bytes of the guest's `struct epoll_event`.
const EVENT: usize = 16;
/// Bytes of the host's.
const HOST_EVENT: usize = 12;
/// Answering fewer events than asked for is allowed, and a guest must not choose how much the host allocates.
const EVENTS_MAX: usize = 1024;
/// `EP_MAX_EVENTS`.
const EVENTS_LIMIT: u64 = 0x7fff_ffff / HOST_EVENT as u64;

const EINVAL: i64 = -(libc::EINVAL as i64);

/// The host's form of an event.
#[must_use]
pub fn event_to_host(guest: &[u8; EVENT]) -> [u8; HOST_EVENT] {
    std::array::from_fn(|at| if at < 4 { guest[at] } else { guest[at + 4] })
}

/// The guest's form of an event.
#[must_use]
pub fn event_to_guest(host: &[u8; HOST_EVENT]) -> [u8; EVENT] {
    let mut guest = [0; EVENT];
    guest[..4].copy_from_slice(&host[..4]);
    guest[8..].copy_from_slice(&host[4..]);
    guest
}

/// `epoll_ctl(epoll, operation, descriptor, event)`.
///
/// # Errors
/// Negative error numbers.
pub fn epoll_ctl(space: &AddressSpace, [epoll, operation, descriptor, event, ..]: [u64; 6]) -> Result<i64, i64> {
    let deletes = operation == libc::EPOLL_CTL_DEL as u64;
    let host = if deletes { [0; HOST_EVENT] } else { event_to_host(&space.read(event)?) };
    // SAFETY: the kernel reads one event.
    Ok(unsafe { raw(libc::SYS_epoll_ctl, [epoll, operation, descriptor, host.as_ptr() as u64, 0, 0]) })
}

/// A mask of signals that a call replaces the thread's with: its guest form, and the host's, which leaves faults unblocked.
fn mask(space: &AddressSpace, address: u64, size: u64) -> Result<Option<u64>, i64> {
    match (address, size) {
        (0, _) => Ok(None),
        (_, 8) => space.read_u64(address).map(Some),
        _ => Err(EINVAL),
    }
}

/// `epoll_pwait` with a timeout in milliseconds (22), and `epoll_pwait2` with a `timespec` (441).
///
/// # Errors
/// Negative error numbers.
pub fn epoll_wait(
    space: &AddressSpace,
    signals: &mut ThreadSignals,
    number: u64,
    [epoll, events, count, timeout, set, size]: [u64; 6],
) -> Result<i64, i64> {
    // An int.
    let count = u64::from(low(count));
    if count == 0 || count > EVENTS_LIMIT {
        return Err(EINVAL);
    }
    let wanted = mask(space, set, size)?;
    let host_mask = wanted.map(|mask| mask & !SYNCHRONOUS);
    let set = host_mask.as_ref().map_or(0, |mask| std::ptr::from_ref(mask) as u64);
    let count = usize::try_from(count).unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
    let mut few = [[0_u8; HOST_EVENT]; 32];
    let mut many = Vec::new();
    let buffer = if count <= few.len() {
        &mut few[..count]
    } else {
        many.resize(count, [0; HOST_EVENT]);
        &mut many
    };
    let (call, timeout) = if number == 441 {
        (libc::SYS_epoll_pwait2, space.pointer(timeout)?)
    } else {
        (libc::SYS_epoll_pwait, timeout)
    };
    let arguments = [epoll, buffer.as_mut_ptr() as u64, count as u64, timeout, set, 8];
    // SAFETY: the kernel writes at most `count` events, reads the mask, and the guest's timeout.
    let answer = unsafe { signals.call_with_mask(wanted, call, arguments) };
    for (at, event) in buffer.iter().take(usize::try_from(answer).unwrap_or(0)).enumerate() {
        space.write(events.wrapping_add((at * EVENT) as u64), &event_to_guest(event))?;
    }
    Ok(answer)
}

/// `ppoll(descriptors, count, timeout, mask, size)`.
///
/// # Errors
/// Negative error numbers.
pub fn ppoll(
    space: &AddressSpace,
    signals: &mut ThreadSignals,
    [descriptors, count, timeout, set, size, _]: [u64; 6],
) -> Result<i64, i64> {
    let wanted = mask(space, set, size)?;
    let host_mask = wanted.map(|mask| mask & !SYNCHRONOUS);
    let set = host_mask.as_ref().map_or(0, |mask| std::ptr::from_ref(mask) as u64);
    let arguments = [space.pointer(descriptors)?, count, space.pointer(timeout)?, set, 8, 0];
    // SAFETY: the kernel reads the mask, and guest memory.
    Ok(unsafe { signals.call_with_mask(wanted, libc::SYS_ppoll, arguments) })
}

/// `pselect6(count, read, write, except, timeout, {mask, size})`.
///
/// # Errors
/// Negative error numbers.
pub fn pselect(
    space: &AddressSpace,
    signals: &mut ThreadSignals,
    [count, read, write, except, timeout, pair]: [u64; 6],
) -> Result<i64, i64> {
    let wanted = match pair {
        0 => None,
        pair => mask(space, space.read_u64(pair)?, space.read_u64(pair.wrapping_add(8))?)?,
    };
    let host_mask = wanted.map(|mask| mask & !SYNCHRONOUS);
    let host_pair = [host_mask.as_ref().map_or(0, |mask| std::ptr::from_ref(mask) as u64), 8];
    let arguments = [
        count,
        space.pointer(read)?,
        space.pointer(write)?,
        space.pointer(except)?,
        space.pointer(timeout)?,
        host_pair.as_ptr() as u64,
    ];
    // SAFETY: the kernel reads the pair and the mask, and guest memory.
    Ok(unsafe { signals.call_with_mask(wanted, libc::SYS_pselect6, arguments) })
}

/// `signalfd4(descriptor, mask, size, flags)`.
///
/// # Errors
/// Negative error numbers.
pub fn signalfd(space: &AddressSpace, [descriptor, set, size, flags, ..]: [u64; 6]) -> Result<i64, i64> {
    let wanted = mask(space, set, size)?.ok_or(-i64::from(libc::EFAULT))?;
    let host = wanted & !SYNCHRONOUS;
    // SAFETY: the kernel reads the mask.
    Ok(unsafe { raw(libc::SYS_signalfd4, [descriptor, (&raw const host) as u64, 8, flags, 0, 0]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_an_event_moves() {
        let guest: [u8; EVENT] = [1, 2, 3, 4, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 17, 18];
        assert_eq!(event_to_host(&guest), [1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 17, 18]);
        assert_eq!(event_to_guest(&event_to_host(&guest)), guest);
        assert_eq!(size_of::<libc::epoll_event>(), HOST_EVENT);
    }
}
