//! A program under a debugger: threads that halt all together, and move one by one.
//!
//! ```text
//! thread: park while halted -> move: run or step -> stop? halt all -> system call: known by a copy of its registers -> ...
//!              ^ work                                  |
//! debugger ----+---------------------------------------+---> report, once nobody moves
//! ```
//!
//! A thread parks between two runs of its hart, and does there what the debugger wants of its hart. One that is in a system call may be so for ever; it
//! counts as standing still, and is seen by a copy of its registers, which cannot be changed. Where it comes back, it parks.
//!
//! A process that is forked is nobody's debuggee.
//!
//! Cost: without a debugger one test of a pointer for each run of a hart.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use debugger::debuggee::{Debuggee, Move, Moves, Registers, Report, Thread as Number};
use debugger::riscv64::{HartAction, Harts};
use riscv::hart::csr::number::FCSR;
use riscv::hart::debug::{Points, Stop};
use riscv::hart::{Exit, Hart, HartSignals, TimeSource};

use crate::space::{AddressSpace, PAGE};
use crate::sys::raw;

/// What the threads of a process and its debugger share.
pub struct Control {
    /// False in a process that was forked from the one that is debugged, where no lock here may be touched.
    active: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    space: Arc<AddressSpace>,
    /// `/proc/self/mem`: memory whatever its protection.
    memory: Option<File>,
    time: Arc<dyn TimeSource>,
    program: PathBuf,
    auxiliary: Vec<u8>,
    /// Called at the end, so that the debugger hears of it.
    farewell: Mutex<Option<Box<dyn Fn() + Send>>>,
}

#[derive(Default)]
struct State {
    reporter: Option<Box<dyn Fn(Report) + Send>>,
    halted: bool,
    /// To be told once nobody moves.
    pending: Option<Report>,
    /// Watchpoints that were hit while another stop was reported.
    kept: VecDeque<Report>,
    threads: BTreeMap<Number, Entry>,
    /// What threads do that begin from now on.
    others: Option<Move>,
    points: Arc<Points>,
    points_version: u64,
}

struct Entry {
    signals: Arc<HartSignals>,
    place: Place,
    movement: Move,
    /// What a step consists of was a system call, and is done.
    step_done: bool,
    /// The signal that the debugger lets through.
    signal: Option<u8>,
    work: VecDeque<HartAction>,
    points_version: u64,
}

enum Place {
    Moving,
    Parked,
    InCall(Box<Copy>),
}

/// The registers of a thread in a system call.
#[derive(Clone)]
struct Copy {
    x: [u64; 32],
    f: [u64; 32],
    fcsr: u64,
    pc: u64,
}

impl Copy {
    fn of(hart: &Hart) -> Self {
        Self {
            x: std::array::from_fn(|n| hart.x(n.to_le_bytes()[0])),
            f: std::array::from_fn(|n| hart.f(n.to_le_bytes()[0])),
            fcsr: hart.csr(FCSR).unwrap_or(0),
            pc: hart.pc(),
        }
    }

    fn fill(&self, hart: &mut Hart) {
        for n in 0..32_u8 {
            hart.set_x(n, self.x[usize::from(n)]);
            hart.set_f(n, self.f[usize::from(n)]);
        }
        hart.set_csr(FCSR, self.fcsr);
        hart.set_pc(self.pc);
    }
}

/// The calling thread, as the host numbers it.
fn own_number() -> Number {
    // SAFETY: has no arguments.
    let id = unsafe { raw(libc::SYS_gettid, [0; 6]) };
    usize::try_from(id).ok().and_then(Number::new).unwrap_or(Number::MIN)
}

impl State {
    fn nobody_moves(&self) -> bool {
        self.threads.values().all(|entry| !matches!(entry.place, Place::Moving))
    }

    fn halt(&mut self) {
        self.halted = true;
        for entry in self.threads.values().filter(|entry| matches!(entry.place, Place::Moving)) {
            entry.signals.request_attention();
        }
    }

    /// Tells what is pending, if it is time.
    fn settle(&mut self) {
        if self.halted
            && self.nobody_moves()
            && let Some(report) = self.pending.take()
            && let Some(reporter) = &self.reporter
        {
            reporter(report);
        }
    }
}

impl Control {
    /// For a process with this memory, program and auxiliary vector.
    #[must_use]
    pub fn new(space: Arc<AddressSpace>, time: Arc<dyn TimeSource>, program: PathBuf, auxiliary: Vec<u8>) -> Self {
        Self {
            active: AtomicBool::new(true),
            state: Mutex::default(),
            changed: Condvar::new(),
            space,
            time,
            memory: File::options().read(true).write(true).open("/proc/self/mem").ok(),
            program,
            auxiliary,
            farewell: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// What the end of the process waits for, once it has been reported.
    pub fn set_farewell(&self, farewell: Box<dyn Fn() + Send>) {
        *self.farewell.lock().unwrap_or_else(PoisonError::into_inner) = Some(farewell);
    }

    /// Whether this process is the one that is debugged.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// This process is a fork of the one that is debugged, and `hart` its only one.
    pub fn forget(&self, hart: &mut Hart) {
        self.active.store(false, Ordering::Relaxed);
        hart.set_points(Arc::default());
    }

    /// The calling thread begins.
    pub fn begin(&self, signals: &Arc<HartSignals>) {
        let mut state = self.lock();
        let movement = state.others.clone().unwrap_or(Move::Run);
        let entry = Entry {
            signals: Arc::clone(signals),
            place: Place::Moving,
            movement,
            step_done: false,
            signal: None,
            work: VecDeque::new(),
            points_version: 0,
        };
        state.threads.insert(own_number(), entry);
    }

    /// The calling thread ends.
    pub fn end(&self) {
        let mut state = self.lock();
        state.threads.remove(&own_number());
        state.settle();
        drop(state);
        self.changed.notify_all();
    }

    /// The process ends: returns when the debugger knows, or has had the time to.
    pub fn ended(&self, report: Report) {
        let state = self.lock();
        if let Some(reporter) = &state.reporter {
            reporter(report);
        }
        drop(state);
        if let Some(farewell) = &*self.farewell.lock().unwrap_or_else(PoisonError::into_inner) {
            farewell();
        }
    }

    /// Waits until the thread may move; how it does.
    fn park(&self, number: Number, hart: &mut Hart) -> (Move, bool) {
        let mut guard = self.lock();
        loop {
            let state = &mut *guard;
            let Some(entry) = state.threads.get_mut(&number) else { return (Move::Run, false) };
            if let Some(work) = entry.work.pop_front() {
                drop(guard);
                work(hart);
                guard = self.lock();
                continue;
            }
            if !state.halted && entry.movement != Move::Stay {
                entry.place = Place::Moving;
                if entry.points_version != state.points_version {
                    entry.points_version = state.points_version;
                    hart.set_points(Arc::clone(&state.points));
                }
                return (entry.movement.clone(), std::mem::take(&mut entry.step_done));
            }
            entry.place = Place::Parked;
            state.settle();
            self.changed.notify_all();
            guard = self.wait(guard);
        }
    }

    /// The thread has stopped. Whether that is reported: not if it was told of another's stop.
    fn stop(&self, report: Report) -> bool {
        let mut state = self.lock();
        if state.reporter.is_none() {
            return false;
        }
        if state.halted {
            if matches!(report, Report::Stopped { stop: Stop::Watchpoint { .. }, .. }) {
                state.kept.push_back(report);
            }
            return false;
        }
        state.pending = Some(report);
        state.halt();
        true
    }

    /// [`Hart::run`], as the debugger lets the calling thread.
    pub fn advance(&self, hart: &mut Hart) -> Exit {
        let thread = own_number();
        loop {
            let (movement, step_done) = self.park(thread, hart);
            let exit = match &movement {
                Move::Step(_) if step_done => Exit::Debug(Stop::Step),
                Move::Step(range) => hart.step_debugged(range),
                Move::Run | Move::Stay => hart.run(),
            };
            let stepping = matches!(movement, Move::Step(_));
            match exit {
                Exit::Debug(stop) => {
                    self.stop(Report::Stopped { thread, stop });
                }
                Exit::Exception(_) | Exit::Idle if stepping => {
                    if let Some(entry) = self.lock().threads.get_mut(&thread) {
                        entry.step_done = true;
                    }
                    return exit;
                }
                exit => return exit,
            }
        }
    }

    /// The calling thread is about to make a system call.
    pub fn enter_call(&self, hart: &Hart) {
        let copy = Box::new(Copy::of(hart));
        let mut state = self.lock();
        if let Some(entry) = state.threads.get_mut(&own_number()) {
            entry.place = Place::InCall(copy);
        }
        state.settle();
        drop(state);
        self.changed.notify_all();
    }

    /// The system call is done.
    pub fn leave_call(&self) {
        if let Some(entry) = self.lock().threads.get_mut(&own_number()) {
            entry.place = Place::Moving;
        }
    }

    /// A signal is about to be delivered to the calling thread: the one to deliver instead.
    pub fn signal(&self, hart: &mut Hart, signal: u8) -> Option<u8> {
        let thread = own_number();
        if self.lock().reporter.is_none() {
            return Some(signal);
        }
        // While another's stop is looked at, this one waits its turn.
        loop {
            let reported = self.stop(Report::Signal { thread, signal });
            self.park(thread, hart);
            let mut state = self.lock();
            if state.reporter.is_none() {
                return Some(signal);
            }
            if reported {
                return state.threads.get_mut(&thread).and_then(|entry| {
                    entry.step_done = matches!(entry.movement, Move::Step(_));
                    entry.signal.take()
                });
            }
        }
    }

    /// The host address of a guest address whose page is mapped.
    fn host(&self, at: u64) -> Option<u64> {
        self.space.protection(at)?;
        self.space.translate(at)
    }

    /// Calls `each` with the host address, and the part of `length` bytes at `at`, page by page; how many bytes were dealt with.
    fn pages(&self, at: u64, length: usize, mut each: impl FnMut(u64, std::ops::Range<usize>) -> bool) -> usize {
        let mut done = 0;
        while done < length {
            let here = at.wrapping_add(done as u64);
            let left = usize::try_from(PAGE - here % PAGE).unwrap_or(1);
            let end = length.min(done + left);
            if !self.host(here).is_some_and(|host| each(host, done..end)) {
                break;
            }
            done = end;
        }
        done
    }

    fn info(&self) -> String {
        let mut text = format!("{}\n", self.program.display());
        for (number, line) in self.threads() {
            text += &format!("thread {number}: {line}\n");
        }
        text
    }

    fn maps(&self) -> String {
        let flag = |protection: u32, bit: u32, letter: char| if protection & bit != 0 { letter } else { '-' };
        let line = |(start, end, rights): (u64, u64, u32)| {
            format!(
                "{start:#014x}-{end:#014x} {}{}{}\n",
                flag(rights, crate::space::READ, 'r'),
                flag(rights, crate::space::WRITE, 'w'),
                flag(rights, crate::space::EXECUTE, 'x')
            )
        };
        self.space.regions().into_iter().map(line).collect()
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("program", &self.program).finish_non_exhaustive()
    }
}

const HELP: &str = "\
info    the program and its threads
maps    what is mapped
";

impl Harts for Control {
    fn with_hart(&self, thread: Number, action: HartAction) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.threads.get_mut(&thread) else { return false };
        if let Place::InCall(copy) = &entry.place {
            let copy = copy.clone();
            drop(state);
            let (memory, time) = (Arc::clone(&self.space), Arc::clone(&self.time));
            let Ok(mut hart) = Hart::user(memory, time, Arc::new(HartSignals::new())) else { return false };
            copy.fill(&mut hart);
            action(&mut hart);
            return true;
        }
        let (done, wait) = mpsc::channel();
        entry.work.push_back(Box::new(move |hart| {
            action(hart);
            // Whoever asked waits for this.
            let _ = done.send(());
        }));
        drop(state);
        self.changed.notify_all();
        wait.recv().is_ok()
    }

    fn is_system(&self) -> bool {
        false
    }
}

impl Debuggee for Control {
    fn attach(&self, report: Box<dyn Fn(Report) + Send>) {
        let mut state = self.lock();
        state.reporter = Some(report);
        state.pending = None;
        state.kept.clear();
        state.halt();
    }

    fn await_threads(&self) {
        let mut state = self.lock();
        while state.threads.is_empty() || !state.nobody_moves() {
            state = self.wait(state);
        }
    }

    fn detach(&self) {
        let mut state = self.lock();
        state.reporter = None;
        state.pending = None;
        state.kept.clear();
        state.points = Arc::default();
        state.points_version += 1;
        state.others = None;
        for entry in state.threads.values_mut() {
            entry.movement = Move::Run;
            entry.step_done = false;
        }
        state.halted = false;
        drop(state);
        self.changed.notify_all();
    }

    fn kill(&self) {
        // SAFETY: takes numbers; ends this process.
        unsafe {
            let process = raw(libc::SYS_getpid, [0; 6]).unsigned_abs();
            raw(libc::SYS_kill, [process, libc::SIGKILL as u64, 0, 0, 0, 0]);
        }
    }

    fn interrupt(&self) {
        let mut state = self.lock();
        if !state.halted {
            state.pending = Some(Report::Interrupted);
            state.halt();
            state.settle();
        }
    }

    fn resume(&self, moves: Moves) {
        let mut state = self.lock();
        if let Some(report) = state.kept.pop_front() {
            if let Some(reporter) = &state.reporter {
                reporter(report);
            }
            return;
        }
        let all_stay = moves.own.is_empty() && moves.others == Move::Stay;
        let others = if all_stay { Move::Run } else { moves.others };
        for entry in state.threads.values_mut() {
            entry.movement = others.clone();
            entry.signal = None;
            entry.step_done = false;
        }
        for (number, movement, signal) in moves.own {
            if let Some(entry) = state.threads.get_mut(&number) {
                entry.step_done = matches!((&movement, &entry.place), (Move::Step(_), Place::InCall(_)));
                entry.movement = movement;
                entry.signal = signal;
            }
        }
        state.others = Some(others);
        state.halted = false;
        drop(state);
        self.changed.notify_all();
    }

    fn threads(&self) -> Vec<(Number, String)> {
        let state = self.lock();
        let line = |(number, entry): (&Number, &Entry)| {
            let name = std::fs::read_to_string(format!("/proc/self/task/{number}/comm")).unwrap_or_default();
            let doing = if matches!(entry.place, Place::InCall(_)) { ", in a system call" } else { "" };
            (*number, format!("{}{doing}", name.trim()))
        };
        state.threads.iter().map(line).collect()
    }

    fn registers(&self) -> &dyn Registers {
        self
    }

    fn read(&self, _thread: Number, at: u64, bytes: &mut [u8]) -> usize {
        let Some(memory) = &self.memory else { return 0 };
        let length = bytes.len();
        self.pages(at, length, |host, part| memory.read_exact_at(&mut bytes[part], host).is_ok())
    }

    fn write(&self, _thread: Number, at: u64, bytes: &[u8]) -> bool {
        let Some(memory) = &self.memory else { return false };
        let done = self.pages(at, bytes.len(), |host, part| memory.write_all_at(&bytes[part], host).is_ok());
        self.space.flush_code(at, at.saturating_add(done as u64));
        done == bytes.len()
    }

    fn set_points(&self, points: Points) -> bool {
        let mut state = self.lock();
        state.points = Arc::new(points);
        state.points_version += 1;
        true
    }

    fn command(&self, _thread: Number, line: &str) -> String {
        match line {
            "" | "help" => HELP.into(),
            "info" => self.info(),
            "maps" => self.maps(),
            _ => format!("'{line}' is no command here; these are:\n{HELP}"),
        }
    }

    fn exec_file(&self) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt;
        Some(self.program.as_os_str().as_bytes().to_vec())
    }

    fn auxiliary_vector(&self) -> Option<Vec<u8>> {
        Some(self.auxiliary.clone())
    }
}
