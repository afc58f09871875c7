//! A whole system machine as a debuggee: one thread for each processor, thread `n + 1` for processor `n`.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use machine::address::host_size;
use machine::debug::{Halting, Move, Points, Report as BoardReport};
use machine::lifecycle::{Machine, StopReason};
use machine::{GuestPhysical, PAGE_SIZE};

use crate::debuggee::{Debuggee, Moves, Registers, Report, Thread};
use crate::riscv64::{HartAction, Harts};

/// What a board offers debuggers. Memory is read and written, and processors are moved, while it is halted.
pub trait Board: Machine + Halting {
    /// Has all processors stop at these points; false if they cannot.
    fn set_points(&self, points: Points) -> bool;

    /// One line for each processor.
    fn describe_processors(&self) -> Vec<String>;

    /// Starts the guest again from power-on. A halted machine stays halted.
    fn reset(&self);

    /// Where a virtual address leads for a processor.
    fn translate(&self, processor: usize, at: u64) -> Option<GuestPhysical>;

    /// Reads memory as a processor sees it: how many bytes there were before the first that is not memory.
    fn read_virtual(&self, processor: usize, at: u64, bytes: &mut [u8]) -> usize;

    /// Writes memory as a processor sees it; false if it is not all memory.
    fn write_virtual(&self, processor: usize, at: u64, bytes: &[u8]) -> bool;

    /// Reads guest RAM; false if part of it is not RAM.
    fn read_physical(&self, at: GuestPhysical, bytes: &mut [u8]) -> bool;

    /// Writes guest RAM; false if part of it is not RAM.
    fn write_physical(&self, at: GuestPhysical, bytes: &[u8]) -> bool;
}

impl Board for riscv::board::Board {
    fn set_points(&self, points: Points) -> bool {
        Self::set_points(self, points);
        true
    }

    fn describe_processors(&self) -> Vec<String> {
        self.describe_harts()
    }

    fn reset(&self) {
        Self::reset(self);
    }

    fn translate(&self, processor: usize, at: u64) -> Option<GuestPhysical> {
        self.with_hart(processor, move |hart| hart.physical(at)).flatten()
    }

    fn read_virtual(&self, processor: usize, at: u64, bytes: &mut [u8]) -> usize {
        let length = bytes.len();
        let read = self.with_hart(processor, move |hart| {
            let mut bytes = vec![0; length];
            let count = hart.read_virtual(at, &mut bytes);
            bytes.truncate(count);
            bytes
        });
        let read = read.unwrap_or_default();
        bytes[..read.len()].copy_from_slice(&read);
        read.len()
    }

    fn write_virtual(&self, processor: usize, at: u64, bytes: &[u8]) -> bool {
        Self::write_virtual(self, processor, at, bytes.to_vec())
    }

    fn read_physical(&self, at: GuestPhysical, bytes: &mut [u8]) -> bool {
        Self::read_physical(self, at, bytes)
    }

    fn write_physical(&self, at: GuestPhysical, bytes: &[u8]) -> bool {
        Self::write_physical(self, at, bytes)
    }
}

impl Board for x86::board::Board {
    fn set_points(&self, points: Points) -> bool {
        Self::set_points(self, &points)
    }

    fn describe_processors(&self) -> Vec<String> {
        Self::describe_processors(self)
    }

    fn reset(&self) {
        Self::reset(self);
    }

    fn translate(&self, processor: usize, at: u64) -> Option<GuestPhysical> {
        self.with_processor(processor, move |vcpu| vcpu.translate(at)).flatten()
    }

    fn read_virtual(&self, processor: usize, at: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for (at, part) in pages(at, bytes.len()) {
            let Some(at) = self.translate(processor, at) else { break };
            if !self.read_physical(at, &mut bytes[part.clone()]) {
                break;
            }
            done = part.end;
        }
        done
    }

    fn write_virtual(&self, processor: usize, at: u64, bytes: &[u8]) -> bool {
        pages(at, bytes.len())
            .all(|(at, part)| self.translate(processor, at).is_some_and(|at| self.write_physical(at, &bytes[part])))
    }

    fn read_physical(&self, at: GuestPhysical, bytes: &mut [u8]) -> bool {
        Self::read_physical(self, at, bytes)
    }

    fn write_physical(&self, at: GuestPhysical, bytes: &[u8]) -> bool {
        Self::write_physical(self, at, bytes)
    }
}

/// The pieces of `length` bytes at `at` that each lie in one page.
fn pages(at: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let here = at.wrapping_add(done as u64);
        let count = host_size(PAGE_SIZE - here % PAGE_SIZE).min(length - done);
        let part = done..done + count;
        done += count;
        (count > 0).then_some((here, part))
    })
}

/// A system machine that can be debugged.
pub struct System<B> {
    pub(crate) board: Arc<B>,
}

impl<B: Board> System<B> {
    /// The machine on `board`.
    #[must_use]
    pub fn new(board: Arc<B>) -> Self {
        Self { board }
    }
}

/// The number of a thread's processor.
pub(crate) fn processor(thread: Thread) -> usize {
    thread.get() - 1
}

fn thread(processor: usize) -> Thread {
    Thread::MIN.saturating_add(processor)
}

const HELP: &str = "\
info                     what the machine is doing
reset                    start the guest again from power-on
translate ADDRESS        where a virtual address leads for this processor
xp ADDRESS [COUNT]       COUNT 64-bit words at a physical address
write ADDRESS VALUE      write a 64-bit word at a physical address
";

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

impl<B: Board> System<B> {
    fn info(&self) -> String {
        let stats = self.board.stats();
        let mut text = format!("{}, ", self.board.state());
        if stats.instructions_count != 0 {
            text += &format!("{} instructions, ", stats.instructions_count);
        }
        text += &format!("{} resets\n", stats.resets_count);
        for line in self.board.describe_processors() {
            text += &line;
            text.push('\n');
        }
        text
    }

    fn translate(&self, thread: Thread, at: u64) -> String {
        match self.board.translate(processor(thread), at) {
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

impl Harts for System<riscv::board::Board> {
    fn with_hart(&self, thread: Thread, action: HartAction) -> bool {
        self.board.with_hart(processor(thread), move |hart| action(hart)).is_some()
    }

    fn is_system(&self) -> bool {
        true
    }
}

impl<B: Board> Debuggee for System<B>
where
    Self: Registers,
{
    fn attach(&self, report: Box<dyn Fn(Report) + Send>) {
        self.board.attach_debugger(Box::new(move |said| {
            report(match said {
                BoardReport::Stopped { processor, stop } => Report::Stopped { thread: thread(processor), stop },
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
        // To attach is to wait, and processors are there from the beginning.
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
        let mut all = vec![moves.others; self.board.describe_processors().len()];
        for (thread, movement, _) in moves.own {
            if let Some(entry) = all.get_mut(processor(thread)) {
                *entry = movement;
            }
        }
        // A debugger that has all stay would wait for ever.
        if all.iter().all(|entry| *entry == Move::Stay) {
            all.fill(Move::Run);
        }
        self.board.resume_processors(all);
    }

    fn threads(&self) -> Vec<(Thread, String)> {
        let lines = self.board.describe_processors();
        lines.into_iter().enumerate().map(|(processor, line)| (thread(processor), line)).collect()
    }

    fn registers(&self) -> &dyn Registers {
        self
    }

    fn read(&self, thread: Thread, at: u64, bytes: &mut [u8]) -> usize {
        self.board.read_virtual(processor(thread), at, bytes)
    }

    fn write(&self, thread: Thread, at: u64, bytes: &[u8]) -> bool {
        self.board.write_virtual(processor(thread), at, bytes)
    }

    fn set_points(&self, points: Points) -> bool {
        self.board.set_points(points)
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
