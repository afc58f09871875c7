//! Debian to its login prompt, on Isomorph and on qemu-system-riscv64 with OpenSBI: the same kernel, initial RAM disk and disk.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::Figure;
use crate::guest::{BOOT_MAX, Debian, Guest};

/// What both machines have.
const MEMORY: &str = "1G";

/// Measures the time to the prompt, and the memory that the host has given by then.
pub(super) fn measure(rounds: u32) -> Result<Vec<Figure>> {
    let debian = Debian::find_or_pull()?;
    let (mut our_best, mut peer_best) = ((f64::MAX, f64::MAX), (f64::MAX, f64::MAX));
    let least = |best: (f64, f64), new: (f64, f64)| (best.0.min(new.0), best.1.min(new.1));
    for _ in 0..rounds.max(1) {
        our_best = least(our_best, boot(&mut debian.ours("bench-boot", 1, MEMORY))?);
        peer_best = least(peer_best, boot(&mut debian.qemu(1, MEMORY))?);
    }
    let figure = |name: &str, unit, ours, peer| {
        let note = format!("1 processor, {MEMORY} of memory");
        Figure { name: name.into(), unit, ours, peer, peer_name: "qemu-system-riscv64", note }
    };
    Ok(vec![figure("boot", "s", our_best.0, peer_best.0), figure("resident", "MiB", our_best.1, peer_best.1)])
}

/// Starts a machine and waits for its login prompt: seconds, and MiB of the host's memory then.
pub(super) fn boot(command: &mut Command) -> Result<(f64, f64)> {
    let start = Instant::now();
    let mut guest = Guest::start(command)?;
    guest.wait_for("login: ", BOOT_MAX)?;
    Ok((start.elapsed().as_secs_f64(), guest.resident_mib()?))
}
