//! A whole system machine as a debuggee: one thread for each hart, thread `n + 1` for hart `n`.

use std::fmt::Write;
use std::sync::Arc;

use machine::GuestPhysical;
use machine::lifecycle::{Machine, StopReason};
use riscv::board::Board;
use riscv::board::debug::{Move, Report as BoardReport};
use riscv::hart::debug::Points;

use crate::debuggee::{Debuggee, HartAction, Moves, Report, Thread};

/// A system machine that can be debugged.
pub struct System {
    board: Arc<Board>,
}

impl System {
    /// The machine on `board`.
    #[must_use]
    pub fn new(board: Arc<Board>) -> Self {
        Self { board }
    }
}

fn hart(thread: Thread) -> usize {
    thread.get() - 1
}

fn thread(hart: usize) -> Thread {
    Thread::MIN.saturating_add(hart)
}

const HELP: &str = "\
info                     what the machine is doing
reset                    start the guest again from power-on
translate ADDRESS        where a virtual address leads for this hart
xp ADDRESS [COUNT]       COUNT 64-bit words at a physical address
write ADDRESS VALUE      write a 64-bit word at a physical address
";

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

impl System {
    fn info(&self) -> String {
        let stats = self.board.stats();
        let mut text = format!(
            "{}, {} instructions, {} resets\n",
            self.board.state(),
            stats.instructions_count,
            stats.resets_count
        );
        for line in self.board.describe_harts() {
            text += &line;
            text.push('\n');
        }
        text
    }

    fn translate(&self, thread: Thread, at: u64) -> String {
        match self.board.with_hart(hart(thread), move |hart| hart.physical(at)).flatten() {
            Some(physical) => format!("{at:#x} is at physical address {:#x}\n", physical.0),
            None => format!("{at:#x} leads nowhere\n"),
        }
    }

    fn dump(&self, at: u64, count: u64) -> String {
        let mut text = String::new();
        for index in 0..count.min(512) {
            let here = GuestPhysical(at.wrapping_add(8 * index));
            let mut word = [0; 8];
            if !self.board.read_physical(here, &mut word) {
                text += &format!("{:#x} is no memory\n", here.0);
                break;
            }
            // Writing to a string does not fail.
            let _ = match index % 2 {
                0 => write!(text, "{:#018x}: {:#018x}", here.0, u64::from_le_bytes(word)),
                _ => writeln!(text, " {:#018x}", u64::from_le_bytes(word)),
            };
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

impl Debuggee for System {
    fn attach(&self, report: Box<dyn Fn(Report) + Send>) {
        self.board.attach_debugger(Box::new(move |said| {
            report(match said {
                BoardReport::Stopped { hart, stop } => Report::Stopped { thread: thread(hart), stop },
                BoardReport::Interrupted => Report::Interrupted,
                BoardReport::Ended(StopReason::PowerOff(status)) => {
                    Report::Exited(u8::try_from(status).unwrap_or(u8::MAX))
                }
                BoardReport::Ended(StopReason::Requested) => Report::Exited(0),
                BoardReport::Ended(StopReason::Fault(_)) => Report::Exited(1),
            });
        }));
    }

    fn await_threads(&self) {
        // To attach is to wait, and harts are there from the beginning.
    }

    fn detach(&self) {
        self.board.detach_debugger();
    }

    fn kill(&self) {
        // A machine that has stopped by itself meanwhile is stopped.
        let _ = self.board.stop();
    }

    fn interrupt(&self) {
        self.board.interrupt();
    }

    fn resume(&self, moves: Moves) {
        let mut harts = vec![moves.others; self.board.harts_count()];
        for (thread, movement, _) in moves.own {
            if let Some(entry) = harts.get_mut(hart(thread)) {
                *entry = movement;
            }
        }
        // A debugger that has all stay would wait for ever.
        if harts.iter().all(|entry| *entry == Move::Stay) {
            harts.fill(Move::Run);
        }
        self.board.resume_harts(harts);
    }

    fn threads(&self) -> Vec<(Thread, String)> {
        let lines = self.board.describe_harts();
        lines.into_iter().enumerate().map(|(hart, line)| (thread(hart), line)).collect()
    }

    fn with_hart(&self, thread: Thread, action: HartAction) -> bool {
        self.board.with_hart(hart(thread), move |hart| action(hart)).is_some()
    }

    fn read(&self, thread: Thread, at: u64, bytes: &mut [u8]) -> usize {
        let length = bytes.len();
        let read = self.board.with_hart(hart(thread), move |hart| {
            let mut bytes = vec![0; length];
            let count = hart.read_virtual(at, &mut bytes);
            bytes.truncate(count);
            bytes
        });
        let read = read.unwrap_or_default();
        bytes[..read.len()].copy_from_slice(&read);
        read.len()
    }

    fn write(&self, thread: Thread, at: u64, bytes: &[u8]) -> bool {
        self.board.write_virtual(hart(thread), at, bytes.to_vec())
    }

    fn set_points(&self, points: Points) {
        self.board.set_points(points);
    }

    fn is_system(&self) -> bool {
        true
    }

    fn command(&self, thread: Thread, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] | ["help"] => HELP.into(),
            ["info"] => self.info(),
            ["reset"] => {
                self.board.reset();
                "the machine is as after power-on\n".into()
            }
            ["translate", at] if number(at).is_some() => self.translate(thread, number(at).unwrap_or(0)),
            ["xp", at] if number(at).is_some() => self.dump(number(at).unwrap_or(0), 1),
            ["xp", at, count] if number(at).is_some() && number(count).is_some() => {
                self.dump(number(at).unwrap_or(0), number(count).unwrap_or(0))
            }
            ["write", at, value] if number(at).is_some() && number(value).is_some() => {
                let word = number(value).unwrap_or(0).to_le_bytes();
                let at = GuestPhysical(number(at).unwrap_or(0));
                if self.board.write_physical(at, &word) { String::new() } else { format!("{:#x} is no memory\n", at.0) }
            }
            _ => format!("'{line}' is no command here; these are:\n{HELP}"),
        }
    }

    fn exec_file(&self) -> Option<Vec<u8>> {
        None
    }

    fn auxiliary_vector(&self) -> Option<Vec<u8>> {
        None
    }
}
