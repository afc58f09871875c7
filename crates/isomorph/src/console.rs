//! The guest's console on this process's standard input and output, and the monitor prompt behind Ctrl-].
//!
//! ```text
//! device --send--> output queue --writer thread--> standard output      (held back while the prompt is open)
//! device <-receive-- input queue <--reader thread-- standard input --Ctrl-]--> prompt
//! ```
//!
//! Neither direction ever makes a hart wait on the terminal for longer than the output queue is full, and closing the console
//! ends even that: a machine can always be stopped.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use machine::backend::{CharacterBackend, CharacterSink};
use machine::sys;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::terminal::{self, RawTerminal};

/// The key that opens the prompt: Ctrl-].
const ESCAPE: u8 = 0x1d;
/// Output that may wait for the terminal before the guest has to, in bytes.
const OUTPUT_MAX: usize = 1 << 20;
/// Output kept while the prompt is open, in bytes; beyond it the oldest is lost.
const HELD_MAX: usize = 16 << 20;
/// Input that may wait for the guest, in bytes.
const INPUT_MAX: usize = 64 << 10;
/// How long closing waits for the terminal to take what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the prompt can do to the machine.
pub trait Control: Send + Sync {
    /// Carries out one line typed at the prompt; the answer is printed.
    fn command(&self, line: &str) -> Answer;

    /// Nobody reads the console any more.
    fn hang_up(&self);
}

/// What came of a line typed at the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Print this, prompt again.
    Stay(String),
    /// Go back to the console.
    Leave,
    /// Go back to the console and type the escape key there.
    LeaveTyping,
}

/// The console.
pub struct Console {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    terminal: Option<RawTerminal>,
    output: Mutex<Output>,
    /// Signalled at every change of `output`.
    output_changed: Condvar,
    sink: Mutex<Option<Arc<dyn CharacterSink>>>,
    /// Wakes the reader: the guest has room, or there is a guest.
    wake: OwnedFd,
    control: OnceLock<Arc<dyn Control>>,
}

#[derive(Default)]
struct Output {
    queue: VecDeque<u8>,
    lost_count: usize,
    is_writing: bool,
    is_held: bool,
    is_closing: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Console {
    /// Takes standard input and output; input is read once there is a guest.
    ///
    /// # Errors
    /// The terminal refuses, or the host gives no thread.
    pub fn open() -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            terminal: RawTerminal::enter()?,
            output: Mutex::default(),
            output_changed: Condvar::new(),
            sink: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            control: OnceLock::new(),
        });
        let writing = Arc::clone(&shared);
        let writer = sys::thread("console-out").spawn(move || writing.write_loop())?;
        Ok(Arc::new(Self { shared, writer: Mutex::new(Some(writer)) }))
    }

    /// Gives the prompt a machine to act on and begins to read input.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn control(&self, control: Arc<dyn Control>) -> io::Result<()> {
        if self.shared.control.set(control).is_ok() {
            let reading = Arc::clone(&self.shared);
            // Never joined: it ends with the process, since a read of standard input cannot be called off.
            sys::thread("console-in").spawn(move || reading.read_loop())?;
        }
        Ok(())
    }

    /// The terminal has changed its size.
    pub fn resized(&self) {
        self.shared.resize();
    }

    /// The shell is about to stop this process.
    pub fn suspend(&self) {
        if let Some(terminal) = &self.shared.terminal {
            let _ = terminal.suspend();
        }
    }

    /// The shell lets this process go on.
    pub fn continued(&self) {
        if let Some(terminal) = &self.shared.terminal {
            let _ = terminal.reassert();
        }
        self.shared.resize();
    }

    /// Writes what is left, as far as the terminal takes it, and gives the terminal back. Output sent later is thrown away.
    pub fn close(&self) {
        let mut output = lock(&self.shared.output);
        output.is_closing = true;
        output.is_held = false;
        self.shared.output_changed.notify_all();
        let pending = |output: &mut Output| !output.queue.is_empty() || output.is_writing;
        let waited = self.shared.output_changed.wait_timeout_while(output, CLOSE_TIMEOUT, pending);
        // The writer needs the lock to end.
        let timed_out = waited.map_or(true, |(output, waited)| {
            drop(output);
            waited.timed_out()
        });
        if !timed_out && let Some(writer) = lock(&self.writer).take() {
            let _ = writer.join();
        }
        if let Some(terminal) = &self.shared.terminal {
            let _ = terminal.set_raw(false);
        }
    }
}

impl CharacterBackend for Console {
    fn send(&self, bytes: &[u8]) {
        let mut output = lock(&self.shared.output);
        while output.queue.len() >= OUTPUT_MAX && !output.is_held && !output.is_closing {
            output = self.shared.output_changed.wait(output).unwrap_or_else(PoisonError::into_inner);
        }
        if output.is_closing {
            return;
        }
        output.queue.extend(bytes);
        let excess = output.queue.len().saturating_sub(HELD_MAX);
        output.queue.drain(..excess);
        output.lost_count += excess;
        self.shared.output_changed.notify_all();
    }

    fn attach(&self, sink: Arc<dyn CharacterSink>) {
        *lock(&self.shared.sink) = Some(sink);
        self.shared.resize();
        self.ready();
    }

    fn ready(&self) {
        // Fails only if the counter is full, and then the reader is awake already.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Shared {
    fn resize(&self) {
        let sink = lock(&self.sink).clone();
        if let (Some(sink), Some((columns, rows))) = (sink, terminal::size()) {
            sink.resize(columns, rows);
        }
    }

    fn write_loop(&self) {
        let mut stdout = io::stdout();
        let mut chunk = Vec::new();
        let mut output = lock(&self.output);
        loop {
            if output.queue.is_empty() || output.is_held {
                if output.is_closing {
                    return;
                }
                output = self.output_changed.wait(output).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            chunk.clear();
            if output.lost_count > 0 {
                chunk.extend(format!("\r\n[{} bytes of output lost]\r\n", output.lost_count).bytes());
                output.lost_count = 0;
            }
            chunk.extend(output.queue.drain(..));
            output.is_writing = true;
            self.output_changed.notify_all();
            drop(output);
            let written = stdout.write_all(&chunk).and_then(|()| stdout.flush());
            output = lock(&self.output);
            output.is_writing = false;
            if written.is_err() {
                output.is_closing = true;
                output.queue.clear();
            }
            self.output_changed.notify_all();
            if written.is_err() {
                drop(output);
                if let Some(control) = self.control.get() {
                    control.hang_up();
                }
                return;
            }
        }
    }

    fn read_loop(&self) {
        let mut pending = VecDeque::new();
        let mut prompt = None;
        let mut at_end = false;
        let mut buffer = [0; 4096];
        loop {
            // A terminal is always read, for the escape key's sake; a pipe only as far as there is room.
            let reads = !at_end && (self.terminal.is_some() || pending.len() < INPUT_MAX);
            let stdin = io::stdin();
            let stdin = stdin.as_fd();
            let mut fds = [PollFd::new(&self.wake, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut fds[..if reads { 2 } else { 1 }], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            if !fds[0].revents().is_empty() {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            if reads && !fds[1].revents().is_empty() {
                // Not through `Stdin`: bytes in its buffer would be invisible to `poll`.
                match rustix::io::read(stdin, &mut buffer) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Ok(0) | Err(_) => at_end = true,
                    Ok(count) if self.terminal.is_some() => {
                        buffer[..count].iter().for_each(|byte| self.key(*byte, &mut prompt, &mut pending));
                        pending.truncate(INPUT_MAX);
                    }
                    Ok(count) => pending.extend(&buffer[..count]),
                }
            }
            let sink = lock(&self.sink).clone();
            if let Some(sink) = sink {
                let taken = sink.receive(pending.make_contiguous());
                pending.drain(..taken);
            }
        }
    }

    /// One key of the terminal: for the guest, or for the prompt if that is open.
    fn key(&self, key: u8, prompt: &mut Option<LineEditor>, pending: &mut VecDeque<u8>) {
        let Some(editor) = prompt else {
            if key == ESCAPE {
                self.hold(true);
                print("\r\n");
                print(PROMPT);
                *prompt = Some(LineEditor::default());
            } else {
                pending.push_back(key);
            }
            return;
        };
        let answer = match editor.key(key) {
            Edit::Echo(text) => return print(&text),
            Edit::Leave => Answer::Leave,
            Edit::Line(line) => {
                print("\r\n");
                self.control.get().map_or(Answer::Leave, |control| control.command(line.trim()))
            }
        };
        match answer {
            Answer::Stay(text) => {
                for line in text.lines() {
                    print(line);
                    print("\r\n");
                }
                print(PROMPT);
            }
            Answer::Leave | Answer::LeaveTyping => {
                if answer == Answer::LeaveTyping {
                    pending.push_back(ESCAPE);
                } else {
                    print("\r\n");
                }
                *prompt = None;
                self.hold(false);
                self.resize();
            }
        }
    }

    /// Holds the guest's output back while the prompt is open, or lets it go on.
    fn hold(&self, hold: bool) {
        let mut output = lock(&self.output);
        output.is_held = hold;
        while hold && output.is_writing {
            output = self.output_changed.wait(output).unwrap_or_else(PoisonError::into_inner);
        }
        self.output_changed.notify_all();
    }
}

/// What the user sees when the prompt is open.
const PROMPT: &str = "isomorph> ";

fn print(text: &str) {
    let mut stdout = io::stdout();
    // A terminal that is gone shows itself at the next read.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The line being typed at the prompt, on a raw terminal.
#[derive(Default)]
struct LineEditor {
    line: String,
    /// Inside a control sequence, such as an arrow key sends.
    in_sequence: bool,
}

/// What a key did to the line.
#[derive(Debug, PartialEq, Eq)]
enum Edit {
    Echo(String),
    Line(String),
    Leave,
}

impl LineEditor {
    fn key(&mut self, key: u8) -> Edit {
        if self.in_sequence {
            self.in_sequence = !(key.is_ascii_alphabetic() || key == b'~');
            return Edit::Echo(String::new());
        }
        match key {
            b'\r' | b'\n' => Edit::Line(std::mem::take(&mut self.line)),
            ESCAPE if self.line.is_empty() => Edit::Line("\x1d".into()),
            // Ctrl-C, and Ctrl-D on an empty line.
            3 => Edit::Leave,
            4 if self.line.is_empty() => Edit::Leave,
            8 | 127 => Edit::Echo(self.line.pop().map_or("", |_| "\x08 \x08").into()),
            // Ctrl-U.
            21 => {
                let count = self.line.len();
                self.line.clear();
                Edit::Echo("\x08 \x08".repeat(count))
            }
            27 => {
                self.in_sequence = true;
                Edit::Echo(String::new())
            }
            b' '..=b'~' if self.line.len() < 200 => {
                self.line.push(char::from(key));
                Edit::Echo(char::from(key).into())
            }
            _ => Edit::Echo(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_keys(keys: &str) -> (String, Option<Edit>) {
        let mut editor = LineEditor::default();
        let mut screen = String::new();
        for key in keys.bytes() {
            match editor.key(key) {
                Edit::Echo(text) => screen += &text,
                edit => return (screen, Some(edit)),
            }
        }
        (screen, None)
    }

    #[test]
    fn lines_are_edited() {
        assert_eq!(type_keys("info\r"), ("info".into(), Some(Edit::Line("info".into()))));
        assert_eq!(type_keys("ix\x7fnfo\n").1, Some(Edit::Line("info".into())));
        assert_eq!(type_keys("bad\x15quit\r").1, Some(Edit::Line("quit".into())));
        assert_eq!(type_keys("a\x1b[Ab\r").1, Some(Edit::Line("ab".into())), "arrow keys do nothing");
        assert_eq!(type_keys("\x7f\x7f"), (String::new(), None), "nothing to rub out");
        assert_eq!(type_keys("\x04").1, Some(Edit::Leave));
        assert_eq!(type_keys("x\x04\x03").1, Some(Edit::Leave));
        assert_eq!(type_keys("\x1d").1, Some(Edit::Line("\x1d".into())));
    }
}
