//! Drives the `isomorph` command as a user does: over pipes, or on a pseudo-terminal.

#![allow(dead_code, unreachable_pub, reason = "every test program uses its own part of this, and has no outside")]

pub mod kernel;

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Where the tests' images and machines live; kept between runs, so that the image is pulled once.
pub fn home() -> PathBuf {
    std::env::var_os("ISOMORPH_TEST_HOME")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("home"), PathBuf::from)
}

/// The command, its state in [`home`].
pub fn isomorph() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomorph"));
    command.env("ISOMORPH_HOME", home());
    command
}

/// Runs a command to its end: its output and status.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("isomorph starts")
}

/// Pulls the Debian image if it is not there. Other test processes wait for the first.
pub fn pull_debian() {
    std::fs::create_dir_all(home()).unwrap();
    let lock = File::create(home().join("test.lock")).unwrap();
    lock.lock().unwrap();
    if home().join("images/debian/manifest.json").exists() {
        return;
    }
    let output = output(isomorph().args(["image", "pull", "debian"]));
    assert!(output.status.success(), "image pull debian: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the sysroot of the tests has beside the essential packages.
const SYSROOT: &str =
    "bash,bc,busybox,bzip2,gcc,libc6-dev,libpython3.13-testsuite,lua5.4,perl,python3,restic,sqlite3,xz-utils,zstd";

/// Pulls the sysroot if it is not there, or lacks something.
pub fn pull_sysroot() {
    std::fs::create_dir_all(home()).unwrap();
    let lock = File::create(home().join("test.lock")).unwrap();
    lock.lock().unwrap();
    let output = output(isomorph().args(["image", "pull", "sysroot", "--with", SYSROOT]));
    assert!(output.status.success(), "image pull sysroot: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a guest has printed.
#[derive(Default)]
struct Screen {
    text: Mutex<(Vec<u8>, bool)>,
    grown: Condvar,
}

/// A running command.
pub struct Session {
    pub child: Child,
    keyboard: File,
    screen: Arc<Screen>,
    /// Up to where [`Self::expect`] has read.
    seen: usize,
}

impl Session {
    /// Starts `command` with its console on pipes.
    pub fn start(command: &mut Command) -> Self {
        let (reader, output) = std::io::pipe().unwrap();
        let (input, keyboard) = std::io::pipe().unwrap();
        let child = command.stdin(input).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let file = |fd: std::os::fd::OwnedFd| File::from(fd);
        Self::new(child, file(keyboard.into()), file(reader.into()))
    }

    /// Starts `command` with its console on the terminal `line`, whose other end is `master`.
    pub fn start_on_terminal(command: &mut Command, master: &File, line: &File) -> Self {
        let end = || Stdio::from(line.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::new(child, master.try_clone().unwrap(), master.try_clone().unwrap())
    }

    fn new(child: Child, keyboard: File, mut output: File) -> Self {
        let screen = Arc::new(Screen::default());
        let reading = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = output.read(&mut buffer).unwrap_or(0);
                let mut text = reading.text.lock().unwrap();
                text.0.extend(&buffer[..count]);
                text.1 = count == 0;
                reading.grown.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, seen: 0 }
    }

    /// Everything printed so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.text.lock().unwrap().0).into_owned()
    }

    /// Waits until `needle` is printed; answers what came before it since the last call.
    pub fn expect(&mut self, needle: &str, timeout: Duration) -> String {
        let deadline = Instant::now() + timeout;
        let mut text = self.screen.text.lock().unwrap();
        loop {
            let new = &text.0[self.seen..];
            if let Some(at) = new.windows(needle.len()).position(|window| window == needle.as_bytes()) {
                let before = String::from_utf8_lossy(&new[..at]).into_owned();
                self.seen += at + needle.len();
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = text.1;
            assert!(
                !left.is_zero() && !ended,
                "{needle:?} was not printed {}; the end of the output:\n{}",
                if ended { "before the end".into() } else { format!("within {timeout:?}") },
                String::from_utf8_lossy(&text.0[text.0.len().saturating_sub(3000)..])
            );
            text = self.screen.grown.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Logs in as root and makes the shell easy to drive.
    pub fn log_in(&mut self, password: &str, timeout: Duration) {
        self.expect("login: ", timeout);
        self.send("root\n");
        if !password.is_empty() {
            self.expect("assword: ", Duration::from_secs(60));
            self.send(&format!("{password}\n"));
        }
        self.expect("# ", Duration::from_secs(120));
        // No echo, no colours, a prompt that is not mistaken for anything else.
        self.send("stty -echo; PS1=; PS2=; TERM=dumb; echo ready''.\n");
        self.expect("ready.", Duration::from_secs(30));
    }

    /// Runs a shell command in the guest: its output, and its status.
    pub fn shell(&mut self, command: &str, timeout: Duration) -> (String, i32) {
        // One compound command, which the shell reads to its end before it runs anything, and no input for what it runs: apt-get would
        // read what is typed ahead.
        self.send(&format!("{{ {command}\n}} < /dev/null; echo \"<<$?>>\"\n"));
        let output = self.expect("<<", timeout);
        let status = self.expect(">>", Duration::from_secs(10));
        (output.replace('\r', ""), status.trim().parse().unwrap())
    }

    /// As [`Self::shell`], and the command must succeed.
    pub fn run(&mut self, command: &str, timeout: Duration) -> String {
        let (output, status) = self.shell(command, timeout);
        assert_eq!(status, 0, "{command}: {output}");
        output
    }

    /// Waits for the command's end.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {timeout:?}:\n{}", self.text());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
