//! What the host tells of itself and of this process: users, memory, load, time of the processors.

use std::fs;

/// The numbers of the user and group of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The user.
    pub user: u32,
    /// The user whose rights count.
    pub effective_user: u32,
    /// The group.
    pub group: u32,
    /// The group whose rights count.
    pub effective_group: u32,
}

/// Who runs this process.
pub fn ids() -> Ids {
    // SAFETY: these calls take nothing and cannot fail.
    unsafe {
        Ids {
            user: libc::getuid(),
            effective_user: libc::geteuid(),
            group: libc::getgid(),
            effective_group: libc::getegid(),
        }
    }
}

/// Name and home folder of a user, if the host knows them.
pub fn user(number: u32) -> Option<(String, String)> {
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut texts = [0 as libc::c_char; 4096];
    let mut found = std::ptr::null_mut();
    // SAFETY: there is room for the entry, and as much for its texts as is said.
    let entry = unsafe {
        libc::getpwuid_r(number, entry.as_mut_ptr(), texts.as_mut_ptr(), texts.len(), &raw mut found);
        found.as_ref()?
    };
    // SAFETY: texts of an entry end with NUL, or are missing.
    let text = |text: *const libc::c_char| unsafe {
        if text.is_null() { String::new() } else { std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Some((text(entry.pw_name), text(entry.pw_dir)))
}

/// The groups that the user of this process is in besides.
pub fn groups() -> Vec<u32> {
    let mut groups = [0 as libc::gid_t; 1024];
    // SAFETY: there is room for as many as said.
    let count = unsafe { libc::getgroups(1024, groups.as_mut_ptr()) };
    groups[..usize::try_from(count).unwrap_or(0)].to_vec()
}

/// How many processes wanted a processor in the last 1, 5 and 15 minutes; fewer numbers if the host does not tell.
pub fn load_average() -> Vec<f64> {
    let mut load = [0.0; 3];
    // SAFETY: there is room for three.
    let count = unsafe { libc::getloadavg(load.as_mut_ptr(), 3) };
    load[..usize::try_from(count).unwrap_or(0)].to_vec()
}

/// A line of `/proc/meminfo`, in bytes.
pub fn memory(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

/// Address space that this process has mapped, in bytes.
pub fn address_space() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().next()?.parse().ok()?;
    Some(pages * 4096)
}

/// Descriptors that this process has open.
pub fn open_descriptors() -> Option<u64> {
    // The folder that is read is one of them.
    fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64)
}

/// Processor time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Of all threads of this process.
    Process,
    /// Of the calling thread.
    Thread,
}

/// Processor time used.
pub fn processor_time(clock: Clock) -> u64 {
    let clock = match clock {
        Clock::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
        Clock::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
    };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the result, and the clocks exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Nanoseconds of processor time that the process has used: its own, and the host's for it.
pub fn process_times() -> [u64; 2] {
    // SAFETY: a structure of numbers, for which zeroes are good.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: there is room for the result.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    [usage.ru_utime, usage.ru_stime].map(|time| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_usec).unwrap_or(0) * 1000
    })
}

/// Ticks that the processors were busy, and all ticks, since the host started: of all, or of one.
pub fn processor_ticks(processor: Option<usize>) -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let name = processor.map_or_else(|| "cpu".to_owned(), |number| format!("cpu{number}"));
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|number| number.parse().ok()).collect();
    let all = ticks.iter().sum::<u64>();
    // Idle, and waiting for a disk.
    let idle = ticks.iter().skip(3).take(2).sum::<u64>();
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells() {
        assert!(memory("MemTotal").is_some_and(|bytes| bytes > 1 << 20));
        assert!(open_descriptors().is_some_and(|count| count >= 3) && address_space().is_some());
        let (before, processor) = (processor_time(Clock::Process), processor_time(Clock::Thread));
        let busy = (0..2_000_000u64).fold(0u64, |sum, number| sum.wrapping_add(number * number));
        assert!(std::hint::black_box(busy) > 0);
        assert!(processor_time(Clock::Process) > before && processor_time(Clock::Thread) > processor);
        let (busy, all) = processor_ticks(None).unwrap();
        assert!(busy <= all && !load_average().is_empty());
    }
}
