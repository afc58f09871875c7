//! Times of the host that the standard library does not tell.

/// Nanoseconds of processor time that the calling thread has used.
#[must_use]
pub fn thread_time_ns() -> u64 {
    read(rustix::time::ClockId::ThreadCPUTime)
}

/// Nanoseconds of processor time that all threads of this process have used.
#[must_use]
pub fn process_time_ns() -> u64 {
    read(rustix::time::ClockId::ProcessCPUTime)
}

fn read(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
