//! What the command asks of a system machine of any kind: its verbs, and what it tells of itself.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Result, bail};
use machine::lifecycle::{IllegalTransition, Machine, State, StopReason};
use machine::sys;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::console::{Answer, Console, Control};
use crate::control::{Asked, Controlled, Figures};
use crate::size::human_bytes;

/// A machine that runs an operating system.
pub trait SystemMachine: Machine {
    /// One line for each processor.
    fn processors(&self) -> Vec<String>;

    /// What it has done: names and counts.
    fn counts(&self) -> Vec<(String, u64)>;

    /// Asks the guest to shut down. False if the guest has no driver for the power button.
    fn press_power_button(&self) -> bool;

    /// Leaves a snapshot in `directory`.
    ///
    /// # Errors
    /// There can be none, or it cannot be written.
    fn snapshot(&self, directory: &Path) -> Result<()>;
}

impl SystemMachine for riscv::board::Board {
    fn processors(&self) -> Vec<String> {
        self.describe_harts()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.engine_stats().entries()
    }

    fn press_power_button(&self) -> bool {
        Self::press_power_button(self)
    }

    fn snapshot(&self, _directory: &Path) -> Result<()> {
        bail!("there are no snapshots of riscv64 machines; 'run --record' and 'run --replay' repeat a run")
    }
}

impl SystemMachine for x86::board::Board {
    fn processors(&self) -> Vec<String> {
        self.describe_processors()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.exits()
    }

    fn press_power_button(&self) -> bool {
        Self::press_power_button(self);
        true
    }

    fn snapshot(&self, directory: &Path) -> Result<()> {
        Ok(Self::snapshot(self, directory)?)
    }
}

/// The monitor prompt's side of the machine.
pub struct Monitor {
    machine: Arc<dyn SystemMachine>,
    /// The signal that ended the machine; zero if none did.
    signal: AtomicI32,
}

const HELP: &str = "\
info      what the machine is doing
pause     stop the guest where it is
resume    let it go on
powerdown press the power button: the guest shuts down
quit      end the machine, as pulling the plug does
Enter     back to the console; Ctrl-] again types a Ctrl-] there";

impl Monitor {
    /// Has signals and the console's prompt control the machine from now on.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn attend(machine: Arc<dyn SystemMachine>, console: Option<&Arc<Console>>) -> io::Result<Arc<Self>> {
        let monitor = Arc::new(Self { machine, signal: AtomicI32::new(0) });
        watch_signals(&monitor, console.cloned())?;
        if let Some(console) = console {
            console.control(Arc::clone(&monitor) as Arc<dyn Control>)?;
        }
        Ok(monitor)
    }

    /// Ends the machine because of `signal`.
    fn stop(&self, signal: i32) {
        self.signal.store(signal, Ordering::SeqCst);
        // A machine that has stopped by itself meanwhile is stopped.
        let _ = self.machine.stop();
    }

    /// The exit status of the command, now that the machine has stopped: of one that was told to, 128 and the signal, as shells have it.
    ///
    /// # Errors
    /// The guest failed.
    pub fn exit_code(&self, reason: StopReason) -> Result<ExitCode> {
        let status = |status: i32| u8::try_from(status).unwrap_or(u8::MAX);
        match reason {
            StopReason::PowerOff(code) => Ok(ExitCode::from(status(code))),
            StopReason::Requested => match self.signal.load(Ordering::SeqCst) {
                0 => Ok(ExitCode::SUCCESS),
                signal => Ok(ExitCode::from(status(128 + signal))),
            },
            StopReason::Fault(reason) => bail!("the guest was stopped: {reason}"),
        }
    }

    fn info(&self) -> String {
        let stats = self.machine.stats();
        let mut text = format!(
            "state         {}\ntime          {:.1} s\n",
            self.machine.state(),
            // Display only.
            std::time::Duration::from_nanos(stats.time_ns).as_secs_f64(),
        );
        if stats.instructions_count != 0 {
            text += &format!("instructions  {}\n", stats.instructions_count);
        }
        text += &format!(
            "memory        {} of {} in use\nresets        {}\n",
            human_bytes(stats.memory_resident_bytes),
            human_bytes(stats.memory_size_bytes),
            stats.resets_count,
        );
        for line in self.machine.processors() {
            text += &line;
            text.push('\n');
        }
        for (name, count) in self.machine.counts().into_iter().skip(1).filter(|(_, count)| *count != 0) {
            text += &format!("{count:>12}  {name}\n");
        }
        text
    }
}

impl Controlled for Monitor {
    fn state(&self) -> State {
        self.machine.state()
    }

    fn pause(&self) -> Result<(), IllegalTransition> {
        self.machine.pause()
    }

    fn resume(&self) -> Result<(), IllegalTransition> {
        self.machine.resume()
    }

    fn stop(&self) -> Result<Asked> {
        // A guest that stands still hears no button.
        let _ = self.machine.resume();
        if self.machine.press_power_button() {
            return Ok(Asked::Told);
        }
        self.stop(SIGTERM);
        Ok(Asked::Ended)
    }

    fn kill(&self) {
        self.stop(SIGKILL);
    }

    fn snapshot(&self, directory: &Path) -> Result<()> {
        self.machine.snapshot(directory)
    }

    fn figures(&self) -> Figures {
        let stats = self.machine.stats();
        let mut counts = self.machine.counts();
        counts.push(("resets".into(), stats.resets_count));
        counts.push(("guest memory in use, bytes".into(), stats.memory_resident_bytes));
        Figures { time_ns: stats.time_ns, memory_bytes: stats.memory_size_bytes, counts }
    }
}

impl Control for Monitor {
    fn command(&self, line: &str) -> Answer {
        let done = |result: Result<(), IllegalTransition>, text: &str| {
            Answer::Stay(result.map_or_else(|error| error.to_string(), |()| text.into()))
        };
        match line {
            "" | "continue" | "console" => Answer::Leave,
            "\x1d" => Answer::LeaveTyping,
            "help" | "h" | "?" => Answer::Stay(HELP.into()),
            "info" | "i" | "status" => Answer::Stay(self.info()),
            "pause" | "p" => done(self.machine.pause(), "paused"),
            "resume" | "r" | "cont" => done(self.machine.resume(), "running"),
            "powerdown" | "system_powerdown" | "shutdown" => Answer::Stay(
                if self.machine.press_power_button() {
                    "pressed"
                } else {
                    "the guest has no driver for the power button; shut it down from inside"
                }
                .into(),
            ),
            "quit" | "q" | "exit" => {
                self.stop(0);
                Answer::Stay("ended".into())
            }
            _ => Answer::Stay(format!("'{line}' is no command here; 'help' lists them")),
        }
    }

    fn hang_up(&self) {
        self.stop(signal_hook::consts::SIGPIPE);
    }
}

/// Starts a machine, unless it was ended meanwhile: its terminal takes keys, and its control socket verbs, before it runs.
///
/// # Errors
/// It runs already.
pub fn start(machine: &dyn Machine) -> Result<(), IllegalTransition> {
    match machine.start() {
        Err(IllegalTransition { state: State::Stopped, .. }) => Ok(()),
        started => started,
    }
}

/// Acts on this process's signals until it ends.
fn watch_signals(monitor: &Arc<Monitor>, console: Option<Arc<Console>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP, SIGCONT])?;
    let monitor = Arc::clone(monitor);
    sys::thread("signals").spawn(move || {
        for signal in signals.forever() {
            match (signal, &console) {
                (SIGWINCH, Some(console)) => console.resized(),
                (SIGCONT, Some(console)) => console.continued(),
                (SIGTSTP, console) => {
                    if let Some(console) = console {
                        console.suspend();
                    }
                    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGSTOP);
                }
                (SIGWINCH | SIGCONT, None) => {}
                (signal, _) => monitor.stop(signal),
            }
        }
    })?;
    Ok(())
}
