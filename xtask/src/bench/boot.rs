//! Debian to its login prompt, on Isomorph and on qemu-system-riscv64 with OpenSBI: the same kernel, initial RAM disk and disk.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::Figure;
use crate::guest::{BOOT_MAX, Debian, Guest};

/// What both machines have.
const MEMORY: &str = "1G";

/// How many processors they have.
const PROCESSORS: [u32; 2] = [1, 4];

/// Measures the time to the prompt, and the memory that the host has given by then.
pub(super) fn measure(rounds: u32) -> Result<Vec<Figure>> {
    let debian = Debian::find_or_pull()?;
    let least = |best: (f64, f64), new: (f64, f64)| (best.0.min(new.0), best.1.min(new.1));
    let mut figures = Vec::new();
    for processors in PROCESSORS {
        let (mut our_best, mut peer_best) = ((f64::MAX, f64::MAX), (f64::MAX, f64::MAX));
        for _ in 0..rounds.max(1) {
            our_best = least(our_best, boot(&mut debian.ours("bench-boot", processors, MEMORY))?);
            peer_best = least(peer_best, boot(&mut debian.qemu(processors, MEMORY))?);
        }
        let figure = |name: &str, unit, ours, peer| {
            let note = format!("{processors} processors, {MEMORY} of memory");
            let name = format!("{name}, {processors} processors");
            Figure { name, unit, ours, peer, peer_name: "qemu-system-riscv64", note }
        };
        figures.push(figure("boot", "s", our_best.0, peer_best.0));
        figures.push(figure("resident", "MiB", our_best.1, peer_best.1));
    }
    Ok(figures)
}

/// Starts a machine and waits for its login prompt: seconds, and MiB of the host's memory then.
pub(super) fn boot(command: &mut Command) -> Result<(f64, f64)> {
    let start = Instant::now();
    let mut guest = Guest::start(command)?;
    guest.wait_for("login: ", BOOT_MAX)?;
    Ok((start.elapsed().as_secs_f64(), guest.resident_mib()?))
}
