//! Socket calls whose arguments are structures with addresses in them: messages, and filters.
//!
//! Ancillary data (`cmsg`) holds descriptors and credentials but no addresses, and is laid out alike, so it passes as it is. `SO_`
//! and `MSG_` numbers are the generic ones on both sides.

use crate::signal::host::{Mailbox, call};
use crate::space::AddressSpace;
use crate::sys::raw;

/// Bytes of `struct msghdr`.
const HEADER: usize = 56;
/// Bytes of `struct mmsghdr`.
const LONG_HEADER: usize = 64;
/// `UIO_MAXIOV`.
const VECTORS_MAX: u64 = 1024;

const EMSGSIZE: i64 = -(libc::EMSGSIZE as i64);

/// Where `struct msghdr` has what the kernel writes.
const NAME_LENGTH: usize = 8;
const CONTROL_LENGTH: usize = 40;
const FLAGS: usize = 48;

/// A message's header for the host. The vectors must live as long as it.
#[derive(Debug)]
struct Message {
    header: [u64; 7],
    _vectors: Vec<[u64; 2]>,
}

impl Message {
    fn read(space: &AddressSpace, address: u64) -> Result<Self, i64> {
        let bytes = space.read::<HEADER>(address)?;
        let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let [name, name_length, vectors, count, control, control_length, flags] =
            std::array::from_fn(|number| field(8 * number));
        let vectors = read_vectors(space, vectors, count)?;
        let header = [
            space.pointer(name)?,
            name_length,
            vectors.as_ptr() as u64,
            count,
            space.pointer(control)?,
            control_length,
            flags,
        ];
        Ok(Self { header, _vectors: vectors })
    }

    /// Tells the guest what the kernel has written.
    fn write_back(&self, space: &AddressSpace, address: u64) -> Result<(), i64> {
        let low = |number: usize| self.header[number].to_le_bytes();
        space.write(address.wrapping_add(NAME_LENGTH as u64), &low(1)[..4])?;
        space.write(address.wrapping_add(CONTROL_LENGTH as u64), &low(5))?;
        space.write(address.wrapping_add(FLAGS as u64), &low(6)[..4])
    }
}

/// An `iovec` of the guest as one of the host.
///
/// # Errors
/// `EMSGSIZE` past [`VECTORS_MAX`], `EFAULT`; negative.
pub fn read_vectors(space: &AddressSpace, address: u64, count: u64) -> Result<Vec<[u64; 2]>, i64> {
    if count > VECTORS_MAX {
        return Err(EMSGSIZE);
    }
    (0..count)
        .map(|number| {
            let at = address.wrapping_add(16 * number);
            let (base, length) = (space.read_u64(at)?, space.read_u64(at.wrapping_add(8))?);
            // One without bytes may point anywhere.
            let base = if length == 0 { 0 } else { space.pointer(base)? };
            Ok([base, length])
        })
        .collect()
}

/// `sendmsg(socket, message, flags)` (211) and `recvmsg` (212).
///
/// # Errors
/// Negative error numbers.
pub fn message(
    space: &AddressSpace,
    mailbox: &Mailbox,
    number: u64,
    [socket, address, flags, ..]: [u64; 6],
) -> Result<i64, i64> {
    let mut message = Message::read(space, address)?;
    let receives = number == 212;
    let host = if receives { libc::SYS_recvmsg } else { libc::SYS_sendmsg };
    let arguments = [socket, message.header.as_mut_ptr() as u64, flags, 0, 0, 0];
    // SAFETY: the header and its vectors are the host's own, and point to guest memory.
    let answer = unsafe { call(mailbox, host, arguments) };
    if receives && answer >= 0 {
        message.write_back(space, address)?;
    }
    Ok(answer)
}

/// `sendmmsg(socket, messages, count, flags)` (269) and `recvmmsg` (243), which has a timeout as well.
///
/// # Errors
/// Negative error numbers.
pub fn messages(
    space: &AddressSpace,
    mailbox: &Mailbox,
    number: u64,
    [socket, address, count, flags, timeout, _]: [u64; 6],
) -> Result<i64, i64> {
    let receives = number == 243;
    let count = (count & 0xffff_ffff).min(VECTORS_MAX);
    let at = |index: usize| address.wrapping_add((index * LONG_HEADER) as u64);
    let bodies = (0..usize::try_from(count).unwrap_or(0))
        .map(|index| Message::read(space, at(index)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut headers: Vec<[u64; 8]> = bodies
        .iter()
        .map(|body| {
            let mut long = [0; 8];
            long[..7].copy_from_slice(&body.header);
            long
        })
        .collect();
    let host = if receives { libc::SYS_recvmmsg } else { libc::SYS_sendmmsg };
    let timeout = if receives { space.pointer(timeout)? } else { 0 };
    let arguments = [socket, headers.as_mut_ptr() as u64, count, flags, timeout, 0];
    // SAFETY: the headers and their vectors are the host's own, and point to guest memory.
    let answer = unsafe { call(mailbox, host, arguments) };
    for (index, (mut body, header)) in
        bodies.into_iter().zip(&headers).take(usize::try_from(answer).unwrap_or(0)).enumerate()
    {
        body.header.copy_from_slice(&header[..7]);
        if receives {
            body.write_back(space, at(index))?;
        }
        space.write(at(index).wrapping_add(HEADER as u64), &header[7].to_le_bytes()[..4])?;
    }
    Ok(answer)
}

/// `setsockopt(socket, level, name, value, length)`. The value of a filter holds an address.
///
/// # Errors
/// Negative error numbers.
pub fn set_option(space: &AddressSpace, [socket, level, name, value, length, _]: [u64; 6]) -> Result<i64, i64> {
    let is_filter = level == libc::SOL_SOCKET as u64
        && [libc::SO_ATTACH_FILTER, libc::SO_ATTACH_REUSEPORT_CBPF].iter().any(|filter| name == *filter as u64);
    let filter;
    let value = if is_filter && length >= 16 {
        filter = [space.read_u64(value)?, space.pointer(space.read_u64(value.wrapping_add(8))?)?];
        filter.as_ptr() as u64
    } else {
        space.pointer(value)?
    };
    // SAFETY: the kernel reads the value.
    Ok(unsafe { raw(libc::SYS_setsockopt, [socket, level, name, value, length, 0]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's structures are those of riscv64: sizes and places agree.
    #[test]
    fn layouts_are_those_of_the_host() {
        assert_eq!(size_of::<libc::msghdr>(), HEADER);
        assert_eq!(size_of::<libc::mmsghdr>(), LONG_HEADER);
        assert_eq!(std::mem::offset_of!(libc::msghdr, msg_namelen), NAME_LENGTH);
        assert_eq!(std::mem::offset_of!(libc::msghdr, msg_controllen), CONTROL_LENGTH);
        assert_eq!(std::mem::offset_of!(libc::msghdr, msg_flags), FLAGS);
    }
}
