//! Libraries of C code. They can do whatever the process can, so only a program that may do everything may load one.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Opens a library; its handle, or what the host says.
///
/// # Errors
/// If the program may not, or the host's linker refuses.
pub fn open(path: &str) -> Result<usize, String> {
    super::allow_native_code(path).map_err(|refusal| format!("{path}: {refusal}"))?;
    let Ok(path) = CString::new(path) else { return Err("the name of a library has no NUL".into()) };
    // SAFETY: the name ends with NUL. Constructors of the library are trusted like the rest of it.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
    if handle.is_null() {
        // SAFETY: `dlopen` failed on this thread, so there is a text, which ends with NUL.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(message.to_string_lossy().into_owned());
    }
    Ok(handle.expose_provenance())
}

/// The address of a symbol of a library.
#[must_use]
pub fn find(handle: usize, symbol: &CStr) -> Option<usize> {
    // SAFETY: the handle was opened and not closed; the name ends with NUL.
    let address = unsafe { libc::dlsym(std::ptr::with_exposed_provenance_mut(handle), symbol.as_ptr()) };
    (!address.is_null()).then(|| address.expose_provenance())
}

/// Closes a library.
pub fn close(handle: usize) {
    // SAFETY: the handle was opened and not closed; its loader is gone, so that nobody calls its functions.
    unsafe { libc::dlclose(std::ptr::with_exposed_provenance_mut(handle)) };
}

/// The file of the library, or of the program, that the code at an address is in.
#[must_use]
pub fn containing(address: usize) -> Option<PathBuf> {
    // SAFETY: any address may be asked for; there is room for the answer, whose text ends with NUL and stays as long as the library.
    let name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(std::ptr::with_exposed_provenance(address), &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(info.dli_fname)
    };
    std::fs::canonicalize(OsStr::from_bytes(name.to_bytes())).ok()
}
