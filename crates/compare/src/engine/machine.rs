//! Runs in a machine that is up: what to do goes over its console, and what is done comes back the same way.
//!
//! The machine's first process is the program with all workloads itself, and does each run in a process of its own; see `serve` in
//! `workloads/c/linux.c`.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use super::process::Lines;
use super::{Failure, Job, Run, Watch, iteration};

/// A boot that takes longer does not end.
const BOOT_MAX: Duration = Duration::from_secs(120);
/// Iterations of a run that are told over a console, which is slow.
const ITERATIONS_MAX: u32 = 100;

/// A machine that is up. Dropping it pulls the plug: it keeps nothing.
pub(super) struct Session {
    lines: Lines,
}

impl Session {
    /// Boots the machine; answers how long that took and the memory that it had then.
    pub(super) fn boot(command: Command, watch: &Watch) -> Result<(Self, Run), Failure> {
        let until_ns = watch.now_ns() + nanoseconds(BOOT_MAX);
        let mut lines = Lines::start(command, watch)?;
        let start_ns = loop {
            match lines.next(watch, until_ns)? {
                None => return Err(lines.why_gone(watch, until_ns)),
                Some((time_ns, line)) if line.ends_with("serving") => break Some(time_ns),
                Some(_) => {}
            }
        };
        let boot = Run { start_ns, resident_bytes: lines.resident_bytes(), ..Run::default() };
        Ok((Self { lines }, boot))
    }

    /// Runs a workload.
    pub(super) fn run(&mut self, job: &Job, watch: &Watch) -> Result<Run, Failure> {
        let until_ns = watch.now_ns() + nanoseconds(job.limit());
        let job = Job { iterations_max: job.iterations_max.min(ITERATIONS_MAX), ..*job };
        let order = job.words().join(" ") + "\n";
        let sent =
            self.lines.input.as_mut().map(|input| input.write_all(order.as_bytes()).and_then(|()| input.flush()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.lines.why_gone(watch, until_ns));
        }
        let mut run = Run::default();
        loop {
            let Some((_, line)) = self.lines.next(watch, until_ns)? else {
                return Err(self.lines.why_gone(watch, until_ns));
            };
            if let Some((sum, nanoseconds)) = iteration(&line, job.workload.name) {
                run.checksums.push(sum);
                run.iterations_ns.push(nanoseconds);
            } else if let Some(why) = line.strip_prefix("failed: ") {
                return Err(Failure::Absent(why.to_owned()));
            } else if line == "end" {
                return Ok(run);
            }
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::workload;

    #[test]
    fn a_machine_does_one_job_after_the_other() {
        // What follows the console's protocol is a machine.
        let script = "echo booting; echo serving; while read name rest; do echo \"$name $rest\"; echo ready; \
                      echo \"$name 000000000000000b 5\"; echo end; done";
        let watch = Watch::new(Arc::default());
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let (mut session, boot) = Session::boot(command, &watch).unwrap();
        assert!(boot.start_ns.is_some() && boot.resident_bytes.is_some());
        for name in ["sieve", "tcp"] {
            let workload = workload::find(name).unwrap();
            let job = Job { workload, iterations_min: 1, iterations_max: 1, budget: Duration::ZERO };
            let run = session.run(&job, &watch).unwrap();
            assert_eq!((run.checksums, run.iterations_ns), (vec![11], vec![5]));
        }
    }

    #[test]
    fn a_machine_that_does_not_come_up_says_why() {
        let watch = Watch::new(Arc::default());
        let mut command = Command::new("sh");
        command.args(["-c", "echo loading; echo 'there is no kernel' >&2; exit 1"]);
        let failure = Session::boot(command, &watch).err();
        assert_eq!(failure, Some(Failure::Wrong("there is no kernel".into())));
    }
}
