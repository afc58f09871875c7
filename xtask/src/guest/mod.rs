//! A whole guest at the other end of a console: boots, logs in, runs commands.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{run, workspace};

pub(crate) mod compiler;

/// A boot that takes longer does not end.
pub(crate) const BOOT_MAX: Duration = Duration::from_secs(600);
/// What answers at once, on a host that is busy.
const SOON: Duration = Duration::from_secs(120);

/// The program, built for release, that keeps its images and machines where the tests do.
pub(crate) fn isomorph() -> Command {
    let mut command = Command::new(workspace::target().join("release/isomorph"));
    command.env("ISOMORPH_HOME", home());
    command
}

/// Builds the program for release; of the whole workspace, so that dependencies have the features of the other builds.
pub(crate) fn build_isomorph() -> Result<()> {
    run::run(workspace::cargo().args(["build", "--locked", "--release", "--workspace", "--bin", "isomorph"]))
}

pub(crate) fn home() -> PathBuf {
    std::env::var_os("ISOMORPH_TEST_HOME").map_or_else(|| workspace::target().join("tmp/home"), PathBuf::from)
}

/// The Debian image, pulled if it is not there.
pub(crate) struct Debian {
    folder: PathBuf,
    append: String,
    password: String,
}

impl Debian {
    pub(crate) fn find_or_pull() -> Result<Self> {
        let folder = home().join("images/debian");
        if !folder.join("manifest.json").exists() {
            run::run(isomorph().args(["image", "pull", "debian"]))?;
        }
        let text = std::fs::read_to_string(folder.join("manifest.json")).context("reading the image's manifest")?;
        let manifest: serde_json::Value = serde_json::from_str(&text).context("reading the image's manifest")?;
        let field = |name: &str| -> Result<String> {
            Ok(manifest[name].as_str().with_context(|| format!("the image's manifest has no {name}"))?.to_owned())
        };
        Ok(Self { append: field("append")?, password: field("password")?, folder })
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// A machine of it on Isomorph, whose disk goes with it.
    pub(crate) fn ours(&self, name: &str, cpus: u32, memory: &str) -> Command {
        let mut command = isomorph();
        command.args(["run", "debian", "--rm", "--name", name, "--memory", memory, "--console", "serial"]);
        command.args(["--cpus", &cpus.to_string()]);
        command
    }

    /// A machine of it on qemu with OpenSBI: the same kernel, initial RAM disk and disk, which it leaves as it is.
    pub(crate) fn qemu(&self, cpus: u32, memory: &str) -> Command {
        self.qemu_with(cpus, memory, "virtio-net-device,netdev=n")
    }

    /// The same with another network card, plugged into `n`.
    pub(crate) fn qemu_with(&self, cpus: u32, memory: &str, card: &str) -> Command {
        let file = |name: &str| self.folder.join(name);
        let mut command = Command::new("qemu-system-riscv64");
        command.args(["-M", "virt", "-m", memory, "-nographic", "-no-reboot", "-snapshot", "-smp", &cpus.to_string()]);
        command.arg("-kernel").arg(file("kernel")).arg("-initrd").arg(file("initrd")).args(["-append", &self.append]);
        command.arg("-drive").arg(format!("file={},format=raw,if=none,id=d", file("disk.raw").display()));
        command.args(["-device", "virtio-blk-device,drive=d", "-netdev", "user,id=n"]);
        command.args(["-device", card, "-device", "virtio-rng-device"]);
        command
    }
}

/// A running machine and its console. Dropping it ends the machine.
pub(crate) struct Guest {
    child: Child,
    keyboard: ChildStdin,
    printed: Receiver<Vec<u8>>,
    /// Everything printed that nobody has waited for yet.
    unread: Vec<u8>,
    what: String,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Politely, so that `--rm` removes the machine. One that has already ended is as good.
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let (keyboard, stdout) = (child.stdin.take(), child.stdout.take());
        let (keyboard, mut stdout) = keyboard.zip(stdout).context("the machine's console is on pipes")?;
        let (send, printed) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, keyboard, printed, unread: Vec::new(), what: format!("{command:?}") })
    }

    /// Waits until `needle` is printed; answers what came before it since the last call.
    pub(crate) fn wait_for(&mut self, needle: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut searched: usize = 0;
        loop {
            let from = searched.saturating_sub(needle.len());
            let found = self.unread[from..].windows(needle.len()).position(|window| window == needle.as_bytes());
            if let Some(at) = found {
                let rest = self.unread.split_off(from + at + needle.len());
                let before = std::mem::replace(&mut self.unread, rest);
                return Ok(String::from_utf8_lossy(&before[..from + at]).into_owned());
            }
            searched = self.unread.len();
            let Ok(bytes) = self.printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                let end = &self.unread[self.unread.len().saturating_sub(2000)..];
                let end = String::from_utf8_lossy(end);
                bail!("{}: {needle:?} was not printed within {limit:?}; the end of its output:\n{end}", self.what);
            };
            self.unread.extend(bytes);
        }
    }

    fn send(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes()).with_context(|| format!("typing to {}", self.what))
    }

    /// Waits for the prompt, logs in as root and makes the shell easy to drive.
    pub(crate) fn log_in(&mut self, password: &str) -> Result<()> {
        self.wait_for("login: ", BOOT_MAX)?;
        self.send("root\n")?;
        self.wait_for("assword: ", SOON)?;
        self.send(&format!("{password}\n"))?;
        self.wait_for("# ", SOON)?;
        // No echo, no colours, no messages of the kernel's, a prompt that is not mistaken for anything else.
        self.send("stty -echo; PS1=; PS2=; TERM=dumb; dmesg -n 1; echo ready''.\n")?;
        self.wait_for("ready.", SOON)?;
        Ok(())
    }

    /// Runs a shell command that must succeed: what it printed.
    pub(crate) fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        self.send(&format!("{{ {command}\n}} < /dev/null; echo \"<<$?>>\"\n"))?;
        let printed = self.wait_for("<<", limit)?.replace('\r', "");
        // The end of the line with the status before.
        let printed = printed.strip_prefix('\n').unwrap_or(&printed).to_owned();
        let status = self.wait_for(">>", SOON)?;
        if status.trim() != "0" {
            bail!("{}: {command}: status {status}: {printed}", self.what);
        }
        Ok(printed)
    }

    /// Processor time of the host that the machine has had, in seconds.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(path).context("reading the processor time used")?;
        // After the name, which may hold anything: the state is the third field, user and system time the 14th and 15th.
        let fields: Vec<_> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    /// MiB of the host's memory that the machine has now.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).context("reading the memory used")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib: f64 = resident.and_then(|kib| kib.parse().ok()).context("the host does not tell the memory used")?;
        Ok(kib / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_run_at_the_other_end_of_a_console() {
        // A shell on pipes is a guest that has booted.
        let mut guest = Guest::start(Command::new("sh").arg("-s")).unwrap();
        assert_eq!(guest.run("echo one; echo two", SOON).unwrap(), "one\ntwo\n");
        let error = guest.run("echo no; false", SOON).unwrap_err().to_string();
        assert!(error.contains("status 1: no"), "{error}");
        assert!(guest.resident_mib().unwrap() > 0.0);
        let error = guest.wait_for("never", Duration::from_millis(10)).unwrap_err().to_string();
        assert!(error.contains("\"never\" was not printed"), "{error}");
    }
}
