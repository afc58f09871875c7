//! Running the steps of a task: each is named, timed and counted, and the first that fails ends the task.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many tests of a step passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Counts {
    /// A step that is one check.
    pub(crate) const ONE_PASSED: Self = Self { passed: 1, failed: 0 };
}

/// A step that did not succeed.
pub(crate) struct StepFailure {
    counts: Counts,
    cause: anyhow::Error,
}

impl StepFailure {
    pub(crate) fn new(counts: Counts, cause: anyhow::Error) -> Self {
        Self { counts, cause }
    }
}

impl From<anyhow::Error> for StepFailure {
    fn from(cause: anyhow::Error) -> Self {
        Self { counts: Counts { passed: 0, failed: 1 }, cause }
    }
}

struct Row {
    name: String,
    took: Duration,
    counts: Counts,
}

/// The steps taken so far.
#[derive(Default)]
pub(crate) struct Steps {
    rows: Vec<Row>,
    /// Lines of test runners to repeat at the end.
    closing_lines: Vec<String>,
}

impl Steps {
    /// Takes a step.
    pub(crate) fn take(
        &mut self,
        name: &str,
        step: impl FnOnce(&mut Vec<String>) -> Result<Counts, StepFailure>,
    ) -> Result<()> {
        println!("==> {name}");
        let start = Instant::now();
        let result = step(&mut self.closing_lines);
        let took = start.elapsed();
        let (counts, outcome) = match result {
            Ok(counts) => (counts, Ok(())),
            Err(failure) => (failure.counts, Err(failure.cause.context(format!("{name} failed")))),
        };
        println!("    {name}: {} in {:.1} s", if outcome.is_ok() { "ok" } else { "FAILED" }, took.as_secs_f64());
        self.rows.push(Row { name: name.to_owned(), took, counts });
        outcome
    }

    /// Takes a step that is one command.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.take(name, |_| {
            run(command)?;
            Ok(Counts::ONE_PASSED)
        })
    }

    /// Prints what was done, closing with the total.
    pub(crate) fn print_summary(&self) {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        println!("\nSummary");
        for Row { name, took, counts } in &self.rows {
            let mark = if counts.failed == 0 { "ok" } else { "FAILED" };
            println!("  {name:width$}  {:>7.1} s  {:>5} passed  {mark}", took.as_secs_f64(), counts.passed);
        }
        for line in &self.closing_lines {
            println!("{line}");
        }
        let passed: usize = self.rows.iter().map(|row| row.counts.passed).sum();
        let failed: usize = self.rows.iter().map(|row| row.counts.failed).sum();
        println!("{passed} passed, {failed} failed");
    }
}

/// Shows a command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words
        .map(|word| word.to_string_lossy())
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { word.into_owned() })
        .collect();
    words.join(" ")
}

/// Runs a command to its end; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = shown(command);
    let status = command.status().with_context(|| format!("cannot start {text}"))?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

/// Runs a command, showing its standard output and error as they come, and hands each line to `each`.
pub(crate) fn run_and_watch(command: &mut Command, mut each: impl FnMut(&str) + Send) -> Result<()> {
    let text = shown(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let each = std::sync::Mutex::new(&mut each);
    let watch = |stream: &mut dyn BufRead, to_stderr: bool| {
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
            // Failing to show a line (a closed pipe) must not stop the tests.
            let _ = if to_stderr { std::io::stderr().write_all(&line) } else { std::io::stdout().write_all(&line) };
            if let Ok(mut each) = each.lock() {
                each(String::from_utf8_lossy(&line).trim_end());
            }
            line.clear();
        }
    };
    std::thread::scope(|scope| {
        if let Some(stdout) = stdout {
            scope.spawn(|| watch(&mut BufReader::new(stdout), false));
        }
        if let Some(stderr) = stderr {
            watch(&mut BufReader::new(stderr), true);
        }
    });
    let status = child.wait().with_context(|| format!("waiting for {text}"))?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

/// The counts in a closing line of the built-in test runner: `test result: ok. 2 passed; 0 failed; ...`.
pub(crate) fn built_in_counts(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what| counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
    Some(Counts { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_shows_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'exit 3'") && error.contains('3'), "{error}");
        assert!(run(&mut Command::new("true")).is_ok());
        assert!(run(&mut Command::new("/nowhere/at-all")).unwrap_err().to_string().contains("cannot start"));
    }

    #[test]
    fn both_streams_are_watched() {
        let mut lines = Vec::new();
        run_and_watch(Command::new("sh").args(["-c", "echo out; echo err >&2"]), |line| lines.push(line.to_owned()))
            .unwrap();
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
    }

    #[test]
    fn a_failed_step_is_counted_and_named() {
        let mut steps = Steps::default();
        steps.take("good", |_| Ok(Counts { passed: 5, failed: 0 })).unwrap();
        let error = steps.take("bad", |_| Err(anyhow::anyhow!("broken").into())).unwrap_err();
        assert_eq!(format!("{error:#}"), "bad failed: broken");
        assert_eq!(steps.rows[1].counts, Counts { passed: 0, failed: 1 });
    }
}
