//! The user's terminal: raw while it is the guest's, the prompt behind Ctrl-], and always given back.

mod guest;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::{Session, kernel};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

const SOON: Duration = Duration::from_secs(20);

struct Terminal {
    home: tempfile::TempDir,
    master: File,
    line: File,
    before: Termios,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).open(name).unwrap();
        let before = tcgetattr(&line).unwrap();
        Self { home: tempfile::tempdir().unwrap(), master: File::from(master), line, before }
    }

    fn start(&self, code: &[u8]) -> Session {
        self.start_with(code, &[])
    }

    fn start_with(&self, code: &[u8], flags: &[String]) -> Session {
        let path: PathBuf = self.home.path().join("Image");
        fs::write(&path, kernel::image(code)).unwrap();
        let mut command = guest::isomorph();
        command
            .env("ISOMORPH_HOME", self.home.path())
            .args(["run", "--no-network", "--memory", "64M"])
            .args(flags)
            .arg("--kernel")
            .arg(path);
        Session::start_on_terminal(&mut command, &self.master, &self.line)
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(self.line.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// The terminal is as it was, now or in a moment.
    fn assert_restored(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let now = tcgetattr(self.line.as_fd()).unwrap();
            let same = (now.local_modes, now.input_modes, now.output_modes, now.control_modes)
                == (
                    self.before.local_modes,
                    self.before.input_modes,
                    self.before.output_modes,
                    self.before.control_modes,
                );
            if same {
                return;
            }
            assert!(Instant::now() < deadline, "not restored: {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn signal(session: &Session, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(session.child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn the_terminal_is_the_guests_and_comes_back() {
    let terminal = Terminal::new();
    let mut session = terminal.start(&kernel::echo());
    session.expect("ready", SOON);
    assert!(terminal.is_raw());
    // Ctrl-C is the guest's, as everything but Ctrl-] is.
    session.send("a\x03");
    session.expect("a!\x03!", SOON);
    session.send("q");
    assert_eq!(session.wait(SOON).code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn the_prompt_pauses_resumes_tells_and_ends() {
    let terminal = Terminal::new();
    let mut session = terminal.start(&kernel::echo());
    session.expect("ready", SOON);
    session.send("\x1d");
    session.expect("isomorph> ", SOON);
    session.send("info\r");
    session.expect("running", SOON);
    session.expect("isomorph> ", SOON);
    session.send("pause\r");
    session.expect("paused", SOON);
    session.send("pause\r");
    session.expect("cannot pause a machine that is paused", SOON);
    session.send("frobnicate\r");
    session.expect("'help'", SOON);
    session.send("\r");
    // A paused guest answers only once it goes on.
    session.send("x\x1d");
    session.expect("isomorph> ", SOON);
    session.send("resume\r");
    session.expect("running", SOON);
    session.send("\r");
    session.expect("x!", SOON);
    // Twice the escape key types one.
    session.send("\x1d\x1d");
    session.expect("\x1d!", SOON);
    session.send("\x1dquit\r");
    assert_eq!(session.wait(SOON).code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn signals_end_the_machine_and_restore_the_terminal() {
    for (sent, status) in
        [(Signal::TERM, Some(143)), (Signal::INT, Some(130)), (Signal::HUP, Some(129)), (Signal::KILL, None)]
    {
        let terminal = Terminal::new();
        let mut session = terminal.start(&kernel::echo());
        session.expect("ready", SOON);
        signal(&session, sent);
        assert_eq!(session.wait(SOON).code(), status, "{sent:?}");
        terminal.assert_restored();
    }
}

#[test]
fn a_guest_that_never_speaks_can_be_ended() {
    let terminal = Terminal::new();
    let mut session = terminal.start(&kernel::spin());
    let deadline = Instant::now() + SOON;
    while !terminal.is_raw() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    session.send("\x1d");
    session.expect("isomorph> ", SOON);
    session.send("quit\r");
    assert_eq!(session.wait(SOON).code(), Some(0));
    terminal.assert_restored();
}

/// The trace goes to a pipe, so that the machine does not begin before somebody reads it.
#[test]
fn a_machine_that_has_not_begun_can_be_ended() {
    let terminal = Terminal::new();
    let pipe = terminal.home.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut session = terminal.start_with(&kernel::spin(), &[format!("--trace={}", pipe.display())]);
    session.send("\x1d");
    session.expect("isomorph> ", SOON);
    session.send("quit\r");
    session.expect("ended", SOON);
    let mut trace = String::new();
    File::open(pipe).unwrap().read_to_string(&mut trace).unwrap();
    assert_eq!((session.wait(SOON).code(), trace.as_str()), (Some(0), ""), "{}", session.text());
    terminal.assert_restored();
}

#[test]
fn a_guest_that_cannot_go_on_is_reported() {
    let terminal = Terminal::new();
    let mut session = terminal.start(&kernel::jump_to_nowhere());
    session.expect("isomorph: the guest was stopped: ", SOON);
    assert_eq!(session.wait(SOON).code(), Some(1));
    terminal.assert_restored();
}
