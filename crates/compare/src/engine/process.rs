//! A run in a process of its own, and the lines that child processes print.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::{Failure, Job, Run, Watch, iteration, resident_bytes};

/// A command that measures mechanisms and takes longer does not end.
const LIMIT_NS: u64 = 60_000_000_000;

/// How soon the user's wish to stop is seen.
const LOOK: Duration = Duration::from_millis(50);

/// A child process with its input and the lines that it prints, each with the time at which it came. Dropping it ends the process.
pub(super) struct Lines {
    child: Child,
    /// Closed when it is taken.
    pub(super) input: Option<ChildStdin>,
    printed: Receiver<(u64, String)>,
    complaints: Receiver<String>,
    started_ns: u64,
}

impl Lines {
    /// Starts the command.
    pub(super) fn start(mut command: Command, watch: &Watch) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started_ns = watch.now_ns();
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|error| Failure::Wrong(format!("cannot start {name}: {error}")))?;
        let (send, printed) = channel();
        let (complain, complaints) = channel();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let clock = watch.clone();
        thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).split(b'\n'));
            for line in lines.map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if send.send((clock.now_ns(), line)).is_err() {
                    return;
                }
            }
        });
        thread::spawn(move || {
            let lines = stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n'));
            for line in lines.map_while(Result::ok) {
                if complain.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Ok(Self { child, input, printed, complaints, started_ns })
    }

    /// The next line and its time since the start; none at the end of the output.
    pub(super) fn next(&self, watch: &Watch, until_ns: u64) -> Result<Option<(u64, String)>, Failure> {
        loop {
            if watch.is_interrupted() {
                return Err(Failure::Interrupted);
            }
            match self.printed.recv_timeout(LOOK) {
                Ok((time_ns, line)) => return Ok(Some((time_ns - self.started_ns, line))),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if watch.now_ns() > until_ns => {
                    let seconds = until_ns.saturating_sub(self.started_ns) / 1_000_000_000;
                    return Err(Failure::Wrong(format!("did not come to an end within {seconds} s")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The most memory that it has had.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(self.child.id())
    }

    /// Waits for its end, which is near.
    fn wait(&mut self, watch: &Watch, until_ns: u64) -> Result<ExitStatus, Failure> {
        const LOOK: Duration = Duration::from_millis(1);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Err(error) => return Err(Failure::Wrong(format!("cannot wait for it: {error}"))),
                Ok(None) if watch.is_interrupted() => return Err(Failure::Interrupted),
                Ok(None) if watch.now_ns() > until_ns => return Err(Failure::Wrong("does not end".into())),
                Ok(None) => thread::sleep(LOOK),
            }
        }
    }

    /// Why its output has ended too early: the last that it said on standard error, or how it ended.
    pub(super) fn why_gone(&mut self, watch: &Watch, until_ns: u64) -> Failure {
        let status = match self.wait(watch, until_ns) {
            Ok(status) => status,
            Err(failure) => return failure,
        };
        if watch.is_interrupted() {
            return Failure::Interrupted;
        }
        // The pipe may still hold what was said: its reader ends soon after the process.
        let said: Vec<_> = std::iter::from_fn(|| self.complaints.recv_timeout(Duration::from_secs(1)).ok()).collect();
        let last = said.into_iter().rfind(|line| !line.is_empty());
        Failure::Wrong(last.unwrap_or_else(|| format!("ended early: {status}")))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs the command, with the job's arguments, to its end.
pub(super) fn run(mut command: Command, job: &Job, watch: &Watch) -> Result<Run, Failure> {
    command.args(job.words());
    let until_ns = watch.now_ns() + u64::try_from(job.limit().as_nanos()).unwrap_or(u64::MAX);
    let mut lines = Lines::start(command, watch)?;
    let mut run = Run::default();
    loop {
        let Some((time_ns, line)) = lines.next(watch, until_ns)? else {
            return Err(lines.why_gone(watch, until_ns));
        };
        if let Some((sum, nanoseconds)) = iteration(&line, job.workload.name) {
            run.checksums.push(sum);
            run.iterations_ns.push(nanoseconds);
        } else if line == "ready" {
            run.start_ns = Some(time_ns);
        } else if let Some(why) = line.strip_prefix("failed: ") {
            return Err(Failure::Absent(why.to_owned()));
        } else if line == "end" {
            break;
        }
    }
    run.resident_bytes = lines.resident_bytes();
    drop(lines.input.take());
    let status = lines.wait(watch, until_ns)?;
    if !status.success() {
        return Err(Failure::Wrong(format!("ended with {status}")));
    }
    Ok(run)
}

/// What a command prints up to a line "end", or says that it fails.
pub(super) fn lines_to_end(command: Command, watch: &Watch) -> Result<Vec<String>, Failure> {
    let until_ns = watch.now_ns() + LIMIT_NS;
    let mut lines = Lines::start(command, watch)?;
    let mut heard = Vec::new();
    loop {
        match lines.next(watch, until_ns)? {
            None => return Err(lines.why_gone(watch, until_ns)),
            Some((_, line)) if line == "end" => return Ok(heard),
            Some((_, line)) => match line.strip_prefix("failed: ") {
                Some(why) => return Err(Failure::Wrong(why.to_owned())),
                None => heard.push(line),
            },
        }
    }
}

/// Nanoseconds from a command's start to the end of its output, with which it ends.
pub(super) fn time_to_end(command: Command, watch: &Watch) -> Result<u64, Failure> {
    let until_ns = watch.now_ns() + LIMIT_NS;
    let mut lines = Lines::start(command, watch)?;
    while lines.next(watch, until_ns)?.is_some() {}
    let taken_ns = watch.now_ns() - lines.started_ns;
    if lines.wait(watch, until_ns)?.success() { Ok(taken_ns) } else { Err(lines.why_gone(watch, until_ns)) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::workload;

    fn job() -> Job {
        let workload = workload::find(workload::STARTUP).unwrap();
        Job { workload, iterations_min: 1, iterations_max: 1, budget: Duration::ZERO }
    }

    fn shell(script: &str, watch: &Watch) -> Result<Run, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        run(command, &job(), watch)
    }

    #[test]
    fn a_run_is_read_from_what_is_printed() {
        let watch = Watch::new(Arc::default());
        let run = shell("echo ready; echo \"$1 00000000000000aa 7\"; echo end; read x; exit 0", &watch).unwrap();
        assert_eq!((run.checksums, run.iterations_ns), (vec![0xaa], vec![7]));
        assert!(run.start_ns.unwrap() > 0 && run.resident_bytes.unwrap() > 100_000);
    }

    #[test]
    fn what_goes_wrong_has_a_name() {
        let watch = Watch::new(Arc::default());
        let wrong = |why: &str| Err(Failure::Wrong(why.into()));
        assert_eq!(shell("echo ready; echo 'no memory' >&2; echo >&2; exit 3", &watch), wrong("no memory"));
        assert_eq!(shell("exit 3", &watch), wrong("ended early: exit status: 3"));
        assert_eq!(shell("echo end; exit 3", &watch), wrong("ended with exit status: 3"));
        assert_eq!(shell("echo failed: no TCP here", &watch), Err(Failure::Absent("no TCP here".into())));
        let nowhere = run(Command::new("/nowhere/at-all"), &job(), &watch).unwrap_err().to_string();
        assert!(nowhere.contains("cannot start /nowhere/at-all"), "{nowhere}");
    }

    #[test]
    fn a_command_is_timed_to_its_end() {
        let watch = Watch::new(Arc::default());
        let sleep = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            time_to_end(command, &watch)
        };
        assert!(sleep("echo a; sleep 0.2").unwrap() >= 200_000_000);
        assert_eq!(sleep("echo 'no memory' >&2; exit 3"), Err(Failure::Wrong("no memory".into())));
    }

    #[test]
    fn the_user_can_stop_a_run() {
        let watch = Watch::new(Arc::new(AtomicBool::new(true)));
        assert_eq!(shell("exec sleep 60", &watch), Err(Failure::Interrupted));
    }
}
