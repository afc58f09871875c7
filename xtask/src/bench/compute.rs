//! Loops in S-mode without an operating system, on Isomorph and on qemu-system-riscv64 with OpenSBI.
//!
//! Each loop runs once long and once short; the difference is free of start-up.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use riscv::isa::assemble::assemble;

use super::{Figure, isomorph};
use crate::workspace;

/// Where both machines load a kernel, and where its code begins behind the header.
const BASE: u64 = 0x8020_0000;
const HEADER_BYTES: u64 = 64;

struct Loop {
    name: &'static str,
    before: &'static str,
    body: &'static str,
}

const LOOPS: [Loop; 2] = [
    Loop {
        name: "integer",
        before: "auipc s1, 0x100\naddi s2, zero, 7",
        body: "add t0, t0, s0\nxor t1, t1, t0\nslli t2, t1, 3\nmul t3, t2, s2\nsd t3, 0(s1)\nld t4, 0(s1)\n\
            add t5, t5, t4\nsrli t6, t5, 7\nsltu a2, t6, t0",
    },
    Loop {
        name: "float",
        // Floating point on, and two values that need rounding.
        before: "lui t0, 0x6\ncsrrs zero, sstatus, t0\naddi t0, zero, 3\nfcvt.d.l ft0, t0\naddi t0, zero, 10\n\
            fcvt.d.l ft1, t0\nfdiv.d ft0, ft0, ft1",
        body: "fadd.d ft2, ft2, ft0\nfmul.d ft3, ft2, ft0\nfmadd.d ft4, ft3, ft0, ft2\nfsub.d ft5, ft4, ft3\nfdiv.d ft6, ft5, ft1",
    },
];

/// Upper immediates of `lui`: times round a long and a short loop, divided by 4,096.
const LONG: u64 = 0x4000;
const SHORT: u64 = 0x1;

/// Powers off by the SBI's system reset extension.
const SHUT_DOWN: &str =
    "lui a7, 0x53525\naddi a7, a7, 0x354\naddi a6, zero, 0\naddi a0, zero, 0\naddi a1, zero, 0\necall";

/// Measures all loops.
pub(super) fn measure(rounds: u32) -> Result<Vec<Figure>> {
    let folder = workspace::target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut figures = Vec::new();
    for Loop { name, before, body } in &LOOPS {
        let mut paths = Vec::new();
        for count in [LONG, SHORT] {
            let text = format!(
                "{before}\nlui s0, {count:#x}\nagain:\n{body}\naddi s0, s0, -1\nbne s0, zero, again\n{SHUT_DOWN}\n"
            );
            let path = folder.join(format!("{name}-{count:x}"));
            std::fs::write(&path, image(&text)?).with_context(|| format!("writing {}", path.display()))?;
            paths.push(path);
        }
        let difference = |run: fn(&Path) -> Result<f64>| -> Result<f64> {
            let mut least = [f64::MAX; 2];
            for _ in 0..rounds.max(1) {
                for (path, least) in paths.iter().zip(&mut least) {
                    *least = least.min(run(path)?);
                }
            }
            Ok((least[0] - least[1]).max(1e-9))
        };
        let (ours, peer) = (difference(run_isomorph)?, difference(run_qemu)?);
        let instructions = ((LONG - SHORT) << 12) * (body.lines().count() as u64 + 2);
        let millions = |seconds: f64| instructions as f64 / seconds / 1e6;
        let note = format!("{:.0} million instructions a second, peer {:.0}", millions(ours), millions(peer));
        figures.push(Figure { name: (*name).into(), unit: "s", ours, peer, peer_name: "qemu-system-riscv64", note });
    }
    Ok(figures)
}

/// A Linux `Image` file ("Boot image header in RISC-V Linux") of a program.
fn image(text: &str) -> Result<Vec<u8>> {
    let code = assemble(text, BASE + HEADER_BYTES).context("assembling a loop")?;
    let mut image = assemble("jal zero, 0x80200040", BASE).context("assembling the header")?;
    image.resize(64, 0);
    image[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    image[16..24].copy_from_slice(&0x1000_u64.to_le_bytes());
    image[32..36].copy_from_slice(&2_u32.to_le_bytes());
    image[48..56].copy_from_slice(b"RISCV\0\0\0");
    image[56..60].copy_from_slice(b"RSC\x05");
    image.extend(code);
    image.resize(0x1000, 0);
    Ok(image)
}

fn run_isomorph(kernel: &Path) -> Result<f64> {
    let mut command = isomorph();
    command.args(["run", "--rm", "--name", "bench-compute", "--memory", "64M", "--no-network", "--console", "none"]);
    timed(command.arg("--kernel").arg(kernel))
}

fn run_qemu(kernel: &Path) -> Result<f64> {
    let mut command = Command::new("qemu-system-riscv64");
    command.args(["-M", "virt", "-m", "64M", "-display", "none", "-serial", "none", "-monitor", "none", "-no-reboot"]);
    timed(command.arg("-kernel").arg(kernel))
}

/// Seconds that a command takes.
fn timed(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_assemble_and_fit() {
        for Loop { name, before, body } in &LOOPS {
            let image = image(&format!("{before}\n{body}\n{SHUT_DOWN}\n")).unwrap();
            assert_eq!(image.len(), 0x1000, "{name}");
        }
    }
}
