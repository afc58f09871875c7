//! Sockets of this host alone, whose addresses are paths.

use machine::permissions::Permissions;

use crate::services::files;

use super::{Failure, HostAddress, Refusal, Result, check_done, check_int, policy};

/// A new socket whose address is a path. The fence around the process cannot tell such addresses apart, so only trusted programs have them.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn local_socket() -> Result<i32> {
    if policy().permissions != Permissions::all() {
        let what = "opening a socket of this host".into();
        return Err(Failure::Refused(Refusal { what, flag: "--allow-all".into() }));
    }
    // SAFETY: numbers.
    check_int(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

#[allow(clippy::cast_possible_truncation, reason = "small constants")]
fn local_address(path: &[u8]) -> Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: zeroed memory is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // One byte must be left for the end.
    if path.len() >= address.sun_path.len() {
        return Err(Failure::Host(libc::ENAMETOOLONG));
    }
    for (to, &from) in address.sun_path.iter_mut().zip(path) {
        *to = from as libc::c_char;
    }
    Ok((address, (std::mem::offset_of!(libc::sockaddr_un, sun_path) + path.len() + 1) as libc::socklen_t))
}

/// Gives a socket a path.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn bind_local(socket: i32, path: &[u8]) -> Result<()> {
    files::allow(path, files::Want::Write)?;
    let (address, length) = local_address(path)?;
    // SAFETY: the address is as long as said.
    check_done(unsafe { libc::bind(socket, (&raw const address).cast(), length) })
}

/// Connects to the socket at a path.
///
/// # Errors
/// If the host or the permissions refuse.
pub fn connect_local(socket: i32, path: &[u8]) -> Result<()> {
    files::allow(path, files::Want::Write)?;
    let (address, length) = local_address(path)?;
    // SAFETY: the address is as long as said.
    check_done(unsafe { libc::connect(socket, (&raw const address).cast(), length) })
}

/// The path of a socket's own end, or of the other; empty if it has none.
///
/// # Errors
/// If the host refuses.
pub fn local_path(socket: i32, other: bool) -> Result<Vec<u8>> {
    let address = HostAddress::of(socket, other)?;
    let start = std::mem::offset_of!(libc::sockaddr_un, sun_path);
    let length = (address.length as usize).min(size_of::<libc::sockaddr_storage>()).saturating_sub(start);
    // SAFETY: the path is within the storage.
    let path = unsafe { std::slice::from_raw_parts(address.pointer().cast::<u8>().add(start), length) };
    Ok(path.iter().copied().take_while(|&byte| byte != 0).collect())
}
