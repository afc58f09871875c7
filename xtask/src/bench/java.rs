//! Java: small programs and the first words of one, beside OpenJDK's interpreter on the same class library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Figure;
use crate::guest::isomorph;
use crate::{run, workspace};

const PEER: &str = "java -Xint";
const PEER_AT_START: &str = "java -Xint -Xshare:off";
/// Starts in a round: short ones, so that many are taken.
const STARTS: u32 = 20;

/// The programs of `bench/java`, compiled.
pub(crate) fn classes() -> Result<PathBuf> {
    let folder = workspace::target().join("bench/java");
    let sources = fs::read_dir(workspace::root().join("bench/java"))?.flatten().map(|entry| entry.path());
    run::run(Command::new("javac").arg("-d").arg(&folder).args(sources))?;
    Ok(folder)
}

fn ours(classes: &Path) -> Command {
    let mut command = isomorph();
    command.args(["java", "-cp"]).arg(classes);
    command
}

fn theirs(classes: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(options).arg("-cp").arg(classes);
    command
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A line of the kernels: name, milliseconds, checksum.
fn kernel(line: &str) -> Result<(&str, f64, &str)> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().with_context(|| format!("no kernel's line: {line}"));
    Ok((word()?, word()?.parse()?, word()?))
}

/// Milliseconds that a command takes to its end: the median of [`STARTS`].
fn start(mut command: Command) -> Result<f64> {
    command.arg("Hello").stdin(Stdio::null()).stdout(Stdio::null());
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begin = Instant::now();
        ensure!(command.status()?.success(), "{command:?} failed");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// The most memory that the process of the first words has had, in MiB, as it tells itself.
fn resident_mib(mut command: Command) -> Result<f64> {
    let text = output(command.args(["Hello", "memory"]))?;
    let kib: f64 = text.lines().last().context("the program tells its memory")?.parse()?;
    Ok(kib / 1024.0)
}

/// Measures all of it.
pub(super) fn measure(rounds: u32) -> Result<Vec<Figure>> {
    let classes = classes()?;
    let mut figures: Vec<Figure> = Vec::new();
    let mut least = [[f64::MAX; 2]; 2];
    for _ in 0..rounds.max(1) {
        let (our_text, their_text) =
            (output(ours(&classes).arg("Kernels"))?, output(theirs(&classes, &["-Xint"]).arg("Kernels"))?);
        for (index, (ours, theirs)) in our_text.lines().zip(their_text.lines()).enumerate() {
            let ((name, ours, sum), (_, peer, their_sum)) = (kernel(ours)?, kernel(theirs)?);
            ensure!(sum == their_sum, "{name} computes {sum} here and {their_sum} there");
            match figures.get_mut(index) {
                Some(figure) => (figure.ours, figure.peer) = (figure.ours.min(ours), figure.peer.min(peer)),
                None => {
                    let name = format!("java {name}");
                    figures.push(Figure { name, unit: "ms", ours, peer, peer_name: PEER, note: String::new() });
                }
            }
        }
        let cold = ["-Xint", "-Xshare:off"];
        let starts = [start(ours(&classes))?, start(theirs(&classes, &cold))?];
        let resident = [resident_mib(ours(&classes))?, resident_mib(theirs(&classes, &cold))?];
        for (least, new) in least.iter_mut().zip([starts, resident]) {
            *least = [least[0].min(new[0]), least[1].min(new[1])];
        }
    }
    for (name, unit, [ours, peer], note) in [
        ("java start", "ms", least[0], "Hello, process and all"),
        ("java resident", "MiB", least[1], "the most that Hello has"),
    ] {
        figures.push(Figure { name: name.into(), unit, ours, peer, peer_name: PEER_AT_START, note: note.into() });
    }
    Ok(figures)
}
