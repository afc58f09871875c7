//! This program's own text, in memory.

use std::ffi::{CStr, c_int, c_void};

use rustix::mm::{Advice, madvise};

use crate::PAGE_SIZE;
use crate::address::host_size;

/// Lets go of the pages that this program and its libraries have of their files: what was executed and read once, to start. What is used on comes back by itself, from
/// the host's page cache, at a page fault for some sixteen pages. What was written is not touched, nor what was patched into by the dynamic linker.
///
/// A machine lives for hours on a small part of a large program, and the rest would count as its memory all the time. Costs some 50 µs.
pub fn forget_text() {
    // SAFETY: the callback's signature is the one that is called, and it needs no data.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

/// Lets go of one loaded object's read-only segments.
///
/// # Safety
/// `info` is what `dl_iterate_phdr` hands out.
unsafe extern "C" fn forget(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: valid during the call, as the caller promises.
    let info = unsafe { &*info };
    // SAFETY: a string of the dynamic linker's, which lives as long as the object is loaded.
    let name = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
    // The program itself has no name; what is neither that nor a file is the kernel's.
    if !name.is_empty() && !name.starts_with(b"/") {
        return 0;
    }
    // SAFETY: the table and its length, in the loaded object.
    let segments = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let page = host_size(PAGE_SIZE);
    for segment in segments {
        if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = host_size(info.dlpi_addr.wrapping_add(segment.p_vaddr));
        let end = (start + host_size(segment.p_memsz)).next_multiple_of(page);
        let start = start / page * page;
        // SAFETY: a private mapping of a file, which nobody ever wrote: relocations are in segments that begin writable. So each page reads again as it did.
        let _ = unsafe { madvise(std::ptr::with_exposed_provenance_mut(start), end - start, Advice::LinuxDontNeed) };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that this program has of files' pages.
    fn mapped_bytes() -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssFile:")?.trim().strip_suffix(" kB"));
        line.unwrap().parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn text_comes_back_when_it_is_used() {
        let before = mapped_bytes();
        forget_text();
        let after = mapped_bytes();
        assert!(after < before, "{before} bytes, then {after}");
        // All kinds of code and constants work as before, the dynamic linker's too.
        assert_eq!(format!("{:.3} {:?}", 2f64.sqrt(), "x".parse::<u8>().is_err()), "1.414 true");
        assert!(std::thread::spawn(|| "text".repeat(3)).join().unwrap().ends_with("texttext"));
    }
}
