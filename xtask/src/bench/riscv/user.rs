//! Linux programs: on the host itself, under `isomorph run` and under `qemu-riscv64`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Measured, Options, PROGRAM_MAX, Program, Times, figure, mean, median, timed};
use crate::bench::{Figure, isomorph};

const PEER: &str = "qemu-riscv64";
/// How often a start is measured in a round: it takes milliseconds.
const STARTS: u32 = 10;

pub(super) fn measure(
    options: &Options,
    programs: &[Program],
    hello: Option<&Program>,
    rounds: u32,
    keep: &mut dyn FnMut(Figure),
) -> Result<()> {
    let mut all: Vec<Measured> = Vec::new();
    for program in programs {
        let times = &mut Times::default();
        for _ in 0..rounds.max(1) {
            once(program, times)?;
        }
        let measured = times.medians(program.float);
        keep(figure("user", program, &measured, PEER));
        all.push(measured);
    }
    let refs: Vec<&Measured> = all.iter().collect();
    for figure in [mean("user mean", &refs, PEER, "targets: 1.8 x native, ratio 0.33, worst 1")].into_iter().flatten() {
        keep(figure);
    }
    let floats: Vec<&Measured> = all.iter().filter(|m| m.float).collect();
    for figure in [mean("user float", &floats, PEER, "target: ratio 0.125")].into_iter().flatten() {
        keep(figure);
    }
    if let Some(hello) = hello.filter(|_| options.wants("start")) {
        let mut times = Times::default();
        for _ in 0..rounds.max(1) * STARTS {
            once(hello, &mut times)?;
        }
        let milli = |numbers: &mut [f64]| median(numbers) * 1000.0;
        let native = milli(&mut times.native);
        keep(Figure {
            name: "user start".into(),
            unit: "ms",
            ours: milli(&mut times.ours),
            peer: milli(&mut times.peer),
            peer_name: PEER,
            note: format!("a static hello; native {native:.1} ms; target: 5 ms"),
        });
    }
    Ok(())
}

/// Runs a program once on each side.
fn once(program: &Program, times: &mut Times) -> Result<()> {
    let mut qemu = Command::new(PEER);
    let mut ours = isomorph();
    let sides = [
        (&mut Command::new(&program.native), &mut times.native),
        (ours.arg("run").arg(&program.riscv), &mut times.ours),
        (qemu.arg(&program.riscv), &mut times.peer),
    ];
    let mut first: Option<Vec<u8>> = None;
    for (command, times) in sides {
        let (seconds, printed) = timed(|| output(command))?;
        if program.repeats && first.as_ref().is_some_and(|first| *first != printed) {
            bail!("{command:?} printed {:?}, which the host did not", String::from_utf8_lossy(&printed));
        }
        first.get_or_insert(printed);
        times.push(seconds);
    }
    Ok(())
}

/// Runs a command that must succeed, for [`PROGRAM_MAX`] at most; answers what it printed.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let id = child.id().to_string();
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if finished.recv_timeout(PROGRAM_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").arg("-9").arg(id).status();
        }
    });
    let output = child.wait_with_output().with_context(|| format!("waiting for {command:?}"))?;
    drop(done);
    let _ = guard.join();
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
