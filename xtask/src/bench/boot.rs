//! Debian to its login prompt, on Isomorph and on qemu-system-riscv64 with OpenSBI: the same kernel, initial RAM disk and disk.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Figure, home, isomorph};
use crate::run;

/// What both machines have.
const MEMORY: &str = "1G";
/// A boot that takes longer does not end.
const BOOT_MAX: Duration = Duration::from_secs(600);

/// Measures the time to the prompt, and the memory that the host has given by then.
pub(super) fn measure(rounds: u32) -> Result<Vec<Figure>> {
    let image = home().join("images/debian");
    if !image.join("manifest.json").exists() {
        run::run(isomorph().args(["image", "pull", "debian"]))?;
    }
    let manifest = std::fs::read_to_string(image.join("manifest.json")).context("reading the image's manifest")?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest).context("reading the image's manifest")?;
    let append = manifest["append"].as_str().context("the image's manifest has no kernel command line")?.to_owned();
    let ours = || {
        let mut command = isomorph();
        command.args(["run", "debian", "--rm", "--name", "bench-boot", "--cpus", "1", "--memory", MEMORY]);
        command.args(["--console", "serial"]);
        command
    };
    let peer = || {
        let mut command = Command::new("qemu-system-riscv64");
        command.args(["-M", "virt", "-smp", "1", "-m", MEMORY, "-nographic", "-no-reboot", "-snapshot"]);
        command.arg("-kernel").arg(image.join("kernel")).arg("-initrd").arg(image.join("initrd"));
        command.args(["-append", &append]);
        command.arg("-drive").arg(format!("file={},format=raw,if=none,id=d", image.join("disk.raw").display()));
        command.args(["-device", "virtio-blk-device,drive=d", "-netdev", "user,id=n"]);
        command.args(["-device", "virtio-net-device,netdev=n", "-device", "virtio-rng-device"]);
        command
    };
    let (mut our_best, mut peer_best) = ((f64::MAX, f64::MAX), (f64::MAX, f64::MAX));
    let least = |best: (f64, f64), new: (f64, f64)| (best.0.min(new.0), best.1.min(new.1));
    for _ in 0..rounds.max(1) {
        our_best = least(our_best, boot(&mut ours())?);
        peer_best = least(peer_best, boot(&mut peer())?);
    }
    let figure = |name, unit, ours, peer| {
        let note = format!("1 processor, {MEMORY} of memory");
        Figure { name, unit, ours, peer, peer_name: "qemu-system-riscv64", note }
    };
    Ok(vec![figure("boot", "s", our_best.0, peer_best.0), figure("resident", "MiB", our_best.1, peer_best.1)])
}

/// Ends a machine however the measurement ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Politely, so that `--rm` removes the machine. One that has already ended is as good.
        let _ = Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// Starts a machine and waits for its login prompt: seconds, and MiB of the host's memory then.
fn boot(command: &mut Command) -> Result<(f64, f64)> {
    let start = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running(command.spawn().with_context(|| format!("cannot start {command:?}"))?);
    let mut stdout = child.0.stdout.take().context("the machine's output is a pipe")?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut bytes) {
            if send.send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut seen = Vec::new();
    while !seen.windows(7).any(|window| window == b"login: ") {
        let left = BOOT_MAX.saturating_sub(start.elapsed());
        let Ok(bytes) = receive.recv_timeout(left) else {
            let end = String::from_utf8_lossy(&seen[seen.len().saturating_sub(2000)..]).into_owned();
            bail!("{command:?} did not get to its login prompt; the end of its output:\n{end}");
        };
        seen.extend(bytes);
    }
    let seconds = start.elapsed().as_secs_f64();
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", child.0.id())).context("reading the memory used")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kib: f64 = resident.and_then(|kib| kib.parse().ok()).context("the host does not tell the memory used")?;
    Ok((seconds, kib / 1024.0))
}
