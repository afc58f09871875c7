//! Libraries of C code. They can do whatever the process can, so only a program that may do everything may load one.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Once;

/// Opens a library; its handle, or what the host says.
///
/// # Errors
/// If the program may not, or the host's linker refuses.
pub fn open(path: &str) -> Result<usize, String> {
    super::allow_native_code(path).map_err(|refusal| format!("{path}: {refusal}"))?;
    let Ok(path) = CString::new(path) else { return Err("the name of a library has no NUL".into()) };
    static STANDING: Once = Once::new();
    STANDING.call_once(stand_for_own);
    // SAFETY: the name ends with NUL. Constructors of the library are trusted like the rest of it.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
    if handle.is_null() {
        // SAFETY: `dlopen` failed on this thread, so there is a text, which ends with NUL.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(message.to_string_lossy().into_owned());
    }
    Ok(handle.expose_provenance())
}

/// The JDK's libraries that this process is in place of, and a function of each.
const OWN: [(&str, &CStr); 2] = [("libjvm.so", c"JNI_GetCreatedJavaVMs"), ("libjava.so", c"JNU_ThrowByName")];

/// Makes libraries that are linked with those of [`OWN`] find this process: the host's linker looks for no file of a name that is loaded, so it gets one without
/// contents, and the functions are found in the program. Where they are not, since the program loaded the virtual machine for itself, nothing is done.
fn stand_for_own() {
    // The linker knows libraries by their paths, too: these are nobody else's, and not the same.
    let mut files = Vec::new();
    for (name, function) in OWN {
        // SAFETY: the name ends with NUL.
        let seen = unsafe { !libc::dlsym(libc::RTLD_DEFAULT, function.as_ptr()).is_null() };
        // Without it, what is linked with such a library tells what it lacks.
        if seen && let Ok(file) = in_memory(&empty_library(name.as_bytes())) {
            let path = format!("/proc/{}/fd/{}\0", std::process::id(), file.as_raw_fd());
            // SAFETY: the path ends with NUL; the library has no code.
            unsafe { libc::dlopen(path.as_ptr().cast(), libc::RTLD_LAZY) };
            files.push(file);
        }
    }
}

/// A file in memory.
fn in_memory(contents: &[u8]) -> std::io::Result<File> {
    // SAFETY: the name ends with NUL.
    let descriptor = unsafe { libc::memfd_create(c"library".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.write_all(contents)?;
    Ok(file)
}

/// A library in ELF (System V ABI, chapters 4 and 5) that has a name and nothing else: one segment with the whole file, in which are the dynamic
/// section, a hash table without buckets, a symbol table with the one symbol that all have, and the name.
fn empty_library(name: &[u8]) -> Vec<u8> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const ENTRY: u64 = 16;
    const SYMBOL: u64 = 24;
    const DYNAMIC: u64 = HEADER + 2 * SEGMENT;
    const ENTRIES: u64 = 7;
    const HASH: u64 = DYNAMIC + ENTRIES * ENTRY;
    const SYMBOLS: u64 = HASH + 16;
    const TEXTS: u64 = SYMBOLS + SYMBOL;
    let texts = name.len() as u64 + 2;
    let length = TEXTS + texts;
    let machine = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let halves = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    let words = |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    let longs = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    // ET_DYN; no entry, no sections.
    halves(&mut file, &[3, machine]);
    words(&mut file, &[1]);
    longs(&mut file, &[0, HEADER, 0]);
    words(&mut file, &[0]);
    halves(&mut file, &[64, 56, 2, 0, 0, 0]);
    // PT_LOAD, readable and writable, since the linker may write into the dynamic section; PT_DYNAMIC.
    words(&mut file, &[1, 6]);
    longs(&mut file, &[0, 0, 0, length, length, 0x1000]);
    words(&mut file, &[2, 6]);
    longs(&mut file, &[DYNAMIC, DYNAMIC, DYNAMIC, ENTRIES * ENTRY, ENTRIES * ENTRY, 8]);
    // DT_SONAME, DT_HASH, DT_SYMTAB, DT_SYMENT, DT_STRTAB, DT_STRSZ, DT_NULL.
    longs(&mut file, &[14, 1, 4, HASH, 6, SYMBOLS, 11, SYMBOL, 5, TEXTS, 10, texts, 0, 0]);
    // One bucket, which is empty, and the chain of the one symbol.
    words(&mut file, &[1, 1, 0, 0]);
    longs(&mut file, &[0, 0, 0]);
    file.push(0);
    file.extend(name);
    file.push(0);
    file
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
