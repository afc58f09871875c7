//! The user's terminal: raw while it is a guest's console, and given back whatever happens.
//!
//! Leaving by any ordinary road, a panic included, restores it when [`RawTerminal`] is dropped. Against being killed, a
//! small child process (the guard) is told the old settings and waits at a pipe whose other end only we have: a byte says that
//! all is well, its end without one that we were killed.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize, tcgetattr,
    tcgetwinsize, tcsetattr,
};

/// The hidden subcommand that runs [`guard`].
pub const GUARD_COMMAND: &str = "terminal-guard";

/// Standard input as a terminal that can be switched between raw and as it was.
#[derive(Debug)]
pub struct RawTerminal {
    original: Termios,
    raw: Termios,
    /// Serialises switches, and remembers whether the terminal is to be raw.
    is_raw: Mutex<bool>,
    /// The pipe to the guard; none if there could be no guard, which is no reason not to run.
    guard: Option<io::PipeWriter>,
}

impl RawTerminal {
    /// Makes standard input raw; `None` if it is not a terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let original = tcgetattr(&stdin)?;
        let mut raw = original.clone();
        raw.make_raw();
        let guard = spawn_guard(&original).ok();
        let terminal = Self { original, raw, is_raw: Mutex::new(false), guard };
        terminal.set_raw(true)?;
        Ok(Some(terminal))
    }

    /// Switches between raw and as it was.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn set_raw(&self, raw: bool) -> io::Result<()> {
        let mut is_raw = self.is_raw.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = if raw { &self.raw } else { &self.original };
        // Not "flush": what the user typed ahead is for whoever reads next.
        tcsetattr(io::stdin(), OptionalActions::Now, settings)?;
        *is_raw = raw;
        Ok(())
    }

    /// Sets the terminal again as it was last set here: after a stop and continue by the shell.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn reassert(&self) -> io::Result<()> {
        let raw = *self.is_raw.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_raw(raw)
    }

    /// Gives the terminal back for as long as the process is stopped by the shell.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn suspend(&self) -> io::Result<()> {
        Ok(tcsetattr(io::stdin(), OptionalActions::Now, &self.original)?)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nobody is left to tell if the terminal itself is gone.
        let _ = self.set_raw(false);
        if let Some(guard) = &mut self.guard {
            let _ = guard.write_all(b".");
        }
    }
}

/// Columns and rows of the terminal on standard output, if it is one.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let Winsize { ws_col, ws_row, .. } = tcgetwinsize(io::stdout()).ok()?;
    (ws_col > 0 && ws_row > 0).then_some((ws_col, ws_row))
}

fn spawn_guard(settings: &Termios) -> io::Result<io::PipeWriter> {
    let (reader, mut writer) = io::pipe()?;
    Command::new(std::env::current_exe()?)
        .arg(GUARD_COMMAND)
        .stdin(reader)
        // The terminal, since standard input is the pipe.
        .stdout(io::stdin().as_fd().try_clone_to_owned()?)
        .stderr(Stdio::null())
        .spawn()?;
    writer.write_all(&encode(settings))?;
    Ok(writer)
}

/// Bytes of [`encode`].
const ENCODED: usize = 18;

/// The settings that a raw terminal changes, as the guard is told them.
fn encode(settings: &Termios) -> [u8; ENCODED] {
    let modes = [
        settings.input_modes.bits(),
        settings.output_modes.bits(),
        settings.control_modes.bits(),
        settings.local_modes.bits(),
    ];
    let mut bytes = [0; ENCODED];
    for (target, mode) in bytes.chunks_exact_mut(4).zip(modes) {
        target.copy_from_slice(&mode.to_le_bytes());
    }
    bytes[16] = settings.special_codes[SpecialCodeIndex::VMIN];
    bytes[17] = settings.special_codes[SpecialCodeIndex::VTIME];
    bytes
}

/// Puts what [`encode`] took back into `settings`.
fn decode(bytes: &[u8; ENCODED], settings: &mut Termios) {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    settings.input_modes = InputModes::from_bits_retain(word(0));
    settings.output_modes = OutputModes::from_bits_retain(word(4));
    settings.control_modes = ControlModes::from_bits_retain(word(8));
    settings.local_modes = LocalModes::from_bits_retain(word(12));
    settings.special_codes[SpecialCodeIndex::VMIN] = bytes[16];
    settings.special_codes[SpecialCodeIndex::VTIME] = bytes[17];
}

/// The guard process: reads the settings to restore, waits at the pipe, restores if it ends without a word.
///
/// # Errors
/// The terminal refuses.
pub fn guard() -> io::Result<()> {
    // In a session of its own it gets none of the terminal's signals, and may set the terminal from the background.
    rustix::process::setsid()?;
    let mut wanted = [0; ENCODED];
    io::stdin().read_exact(&mut wanted)?;
    if io::stdin().read(&mut [0])? > 0 {
        return Ok(());
    }
    let terminal = io::stdout();
    let mut settings = tcgetattr(&terminal)?;
    decode(&wanted, &mut settings);
    Ok(tcsetattr(&terminal, OptionalActions::Now, &settings)?)
}
