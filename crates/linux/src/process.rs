//! A process: one address space, its threads, and the loop that each of them runs.
//!
//! Every thread of the guest is a thread of the host with a hart of its own; every process is a process. So the host's kernel schedules, queues
//! signals, keeps parents and children, and the numbers that the guest sees are the host's.
//!
//! ```text
//! run the hart --> ecall --> system call --> answer in a0 --+
//!      ^     \--> fault --> signal                          |
//!      |      \-> attention                                 v
//!      +------------------------- deliver what is recorded -+
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riscv::hart::debug::Tracer;
use riscv::hart::stats::EngineStats;
use riscv::hart::trap::{Cause, Trap};
use riscv::hart::user::SystemCalls;
use riscv::hart::{Exit, Hart, HartSignals, TIME_BASE_HZ, TimeSource};
use riscv::translate::{CodeCache, Options};

use debugger::debuggee::Report;

use crate::crash;
use crate::debug::Control;
use crate::direct;
use crate::hold::Hold;
use crate::signal::ThreadSignals;
use crate::signal::action::Actions;
use crate::signal::deliver::{
    BUS_ADRALN, BUS_ADRERR, Delivery, Fault, ILL_ILLOPC, PendingCall, SEGV_ACCERR, SEGV_MAPERR, SIGBUS, SIGILL,
    SIGSEGV, SIGTRAP, TRAP_BRKPT, die,
};
use crate::signal::host::Mailbox;
use crate::space::AddressSpace;
use crate::strace::CallLog;
use crate::sys::raw;

/// The host's monotonic clock in ticks of a hart's `time`.
#[derive(Debug)]
pub struct HostTime(machine::clock::Clock);

impl HostTime {
    /// Beginning now.
    #[must_use]
    pub fn new() -> Self {
        Self(machine::clock::Clock::new())
    }
}

impl Default for HostTime {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeSource for HostTime {
    fn ticks(&self) -> u64 {
        self.0.now_ns() / (1_000_000_000 / TIME_BASE_HZ)
    }
}

/// An empty cache of translated code. None if the host has no memory for it, or is none that is translated for: programs are interpreted then.
#[must_use]
pub fn new_cache(options: Options) -> Option<Arc<CodeCache>> {
    if options.translate { CodeCache::flat(options, crate::space::SIZE).ok() } else { None }
}

/// Called at the end of a process.
pub type AtEnd = Box<dyn Fn(&Process) + Send + Sync>;

/// What the threads of a process share.
pub struct Process {
    /// Its memory.
    pub space: Arc<AddressSpace>,
    /// What it does with signals.
    pub actions: Actions,
    /// The program's file, on the host.
    pub program: PathBuf,
    /// Its arguments, each with a zero at its end.
    pub command_line: Arc<[u8]>,
    /// Its auxiliary vector.
    pub auxiliary: Arc<[u8]>,
    /// Where its libraries are.
    pub sysroot: Option<PathBuf>,
    /// Where signal handlers return to.
    pub sigreturn: u64,
    /// The clock of its harts.
    pub time: Arc<HostTime>,
    /// How its code is executed.
    pub options: Options,
    /// Where its system calls are told, if they are.
    pub call_log: Option<CallLog>,
    /// Translated code, shared by its harts; none if the host cannot have any.
    pub code: Mutex<Option<Arc<CodeCache>>>,
    /// What answers its system calls, as the module `calls` does.
    pub calls: fn(&mut Thread) -> Outcome,
    /// How many threads it has.
    pub threads_count: AtomicU32,
    /// What a debugger sees it by, if one may come.
    pub debug: Option<Arc<Control>>,
    /// What sees every instruction.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// What it has done, if that is counted.
    pub counts: Option<Counts>,
    /// Called when it ends by itself, or by a fault.
    pub at_end: Option<AtEnd>,
    /// What it is held by.
    pub hold: Arc<Hold>,
}

/// What a process has done.
#[derive(Debug)]
pub struct Counts {
    /// System calls by number.
    calls: Box<[AtomicU64]>,
    /// What the harts of threads that have ended have done.
    engine: Mutex<EngineStats>,
    /// When it began, by its harts' clock.
    start: u64,
}

/// Numbers of system calls are below this.
const CALLS: usize = 512;

impl Counts {
    /// Nothing yet, at tick `start`.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self { calls: (0..CALLS).map(|_| AtomicU64::new(0)).collect(), engine: Mutex::default(), start }
    }

    fn call(&self, number: u64) {
        if let Some(count) = usize::try_from(number).ok().and_then(|number| self.calls.get(number)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn thread_ended(&self, hart: &Hart) {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).add(&hart.stats());
    }

    /// Names and counts, that of instructions first; of threads that have ended.
    #[must_use]
    pub fn entries(&self, cache: Option<&CodeCache>) -> Vec<(String, u64)> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(cache) = cache {
            let cache = cache.stats();
            engine.units_translated = cache.units;
            engine.regions_translated = cache.regions;
            engine.code_bytes = cache.bytes;
            engine.units_invalidated = cache.invalidated;
            engine.code_flushes = cache.flushes;
        }
        let mut entries = engine.entries();
        let called = self.calls.iter().enumerate().map(|(number, count)| (number, count.load(Ordering::Relaxed)));
        entries.extend(
            called.filter(|(_, count)| *count != 0).map(|(number, count)| (format!("system call {number}"), count)),
        );
        entries
    }

    /// Nanoseconds since it began.
    #[must_use]
    pub fn time_ns(&self, time: &HostTime) -> u64 {
        time.ticks().saturating_sub(self.start) * (1_000_000_000 / TIME_BASE_HZ)
    }
}

/// A thread of the guest, on the host's thread that runs it.
pub struct Thread {
    /// Its registers.
    pub hart: Hart,
    /// Its process.
    pub process: Arc<Process>,
    /// Its signals.
    pub signals: ThreadSignals,
    /// `set_tid_address`: a word to clear and wake at its end, or 0.
    pub clear_at_end: u64,
    /// `set_robust_list`: its head, or 0.
    pub robust: u64,
    /// It shares its memory with the process that waits for it: `vfork`.
    pub borrows_memory: bool,
}

/// What a system call has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers this.
    Answer(i64),
    /// The registers are already what they shall be.
    Restored,
    /// The thread ends.
    ThreadEnds(i32),
    /// The process ends.
    ProcessEnds(i32),
    /// The process dies of a signal.
    Dies(u32),
}

/// How a thread's loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `exit`.
    Thread(i32),
    /// `exit_group`.
    Process(i32),
    /// A signal.
    Signal(u32),
}

impl Thread {
    /// A thread about to execute at `pc`.
    #[must_use]
    pub fn new(hart: Hart, process: Arc<Process>, mask: u64) -> Self {
        let mut hart = hart;
        if let Some(tracer) = &process.tracer {
            hart.set_tracer(Some(Arc::clone(tracer)));
        }
        let signals = ThreadSignals::new(Arc::clone(hart.signals()), mask);
        process.space.add_hart(Arc::clone(hart.signals()));
        Self { hart, process, signals, clear_at_end: 0, robust: 0, borrows_memory: false }
    }

    /// A hart for another thread of the process, with this one's registers.
    ///
    /// # Errors
    /// If the host has no memory for it.
    pub fn new_hart(&self) -> Result<Hart, machine::memory::MemoryError> {
        let program: Arc<AddressSpace> = Arc::clone(&self.process.space);
        let time: Arc<HostTime> = Arc::clone(&self.process.time);
        let mut hart = Hart::user(program, time, Arc::new(HartSignals::new()))?;
        if let Some(cache) = &*self.process.code() {
            hart.translate_with(Arc::clone(cache));
        }
        for number in 0..32 {
            hart.set_x(number, self.hart.x(number));
            hart.set_f(number, self.hart.f(number));
        }
        use riscv::hart::csr::number::FCSR;
        hart.set_csr(FCSR, self.hart.csr(FCSR).unwrap_or(0));
        hart.set_pc(self.hart.pc());
        Ok(hart)
    }

    /// Runs on the calling host thread until it ends. Signals are attached before and detached after.
    pub fn run(&mut self) -> Ended {
        self.process.space.enter();
        self.signals.attach();
        self.signals.mailbox().set_code(self.process.code().as_ref());
        if let Some(control) = self.control() {
            control.begin(self.hart.signals());
        }
        let process = &self.process;
        if process.counts.is_none() && process.call_log.is_none() && process.debug.is_none() {
            self.hart.answer_calls_with(Arc::clone(process) as _);
        }
        let ended = self.execute();
        self.signals.detach();
        self.tell(ended);
        self.process.space.remove_hart(self.hart.signals());
        ended
    }

    /// The debugger's side of this process, if it has one.
    fn control(&self) -> Option<&Arc<Control>> {
        self.process.debug.as_ref().filter(|control| control.is_active())
    }

    /// Tells those who look that the thread has ended, and the process if it is the last.
    fn tell(&self, ended: Ended) {
        let last = self.process.threads_count.load(Ordering::SeqCst) == 1;
        if let Some(counts) = &self.process.counts {
            counts.thread_ended(&self.hart);
        }
        if let Some(at_end) = &self.process.at_end
            && (last || !matches!(ended, Ended::Thread(_)))
        {
            at_end(&self.process);
        }
        let Some(control) = self.control() else { return };
        let status = |status: i32| Report::Exited(status.to_le_bytes()[0]);
        match ended {
            Ended::Signal(signal) => control.ended(Report::Killed(signal.to_le_bytes()[0])),
            Ended::Process(code) => control.ended(status(code)),
            Ended::Thread(code) if last => control.ended(status(code)),
            Ended::Thread(_) => {}
        }
        control.end();
    }

    /// Runs the hart until it exits; as the debugger wants, if there is one.
    fn advance(&mut self) -> Exit {
        self.process.hold.pass();
        match self.process.debug.as_ref().filter(|control| control.is_active()) {
            Some(control) => control.advance(&mut self.hart),
            None => self.hart.run(),
        }
    }

    /// Answers a system call.
    fn call(&mut self) -> Outcome {
        if let Some(counts) = &self.process.counts {
            counts.call(self.hart.x(17));
        }
        if self.process.debug.is_none() {
            return (self.process.calls)(self);
        }
        if let Some(control) = self.control() {
            control.enter_call(&self.hart);
        }
        let outcome = (self.process.calls)(self);
        // In a forked child there is none any more.
        if let Some(control) = self.control() {
            control.leave_call();
        }
        outcome
    }

    fn execute(&mut self) -> Ended {
        loop {
            let delivery = match self.advance() {
                Exit::Exception(Trap { cause: Cause::UserCall, .. }) => {
                    let pc = self.hart.pc();
                    let call = PendingCall { pc, first_argument: self.hart.x(10) };
                    self.hart.set_pc(pc + 4);
                    match self.hart.take_answer().map_or_else(|| self.call(), Outcome::Answer) {
                        Outcome::Answer(answer) if answer > -512 && !self.signals.mailbox().is_recorded() => {
                            self.hart.set_x(10, answer.cast_unsigned());
                            continue;
                        }
                        Outcome::Answer(answer) => self.deliver(Some((call, answer))),
                        Outcome::Restored => self.deliver(None),
                        Outcome::ThreadEnds(status) => return Ended::Thread(status),
                        Outcome::ProcessEnds(status) => return Ended::Process(status),
                        Outcome::Dies(signal) => Delivery::Die(signal),
                    }
                }
                Exit::Exception(trap) => {
                    let fault = self.fault(trap);
                    if !may_deliver(&self.process, &mut self.hart, fault.signal) {
                        continue;
                    }
                    let Self { hart, process, signals, .. } = self;
                    let delivery = signals.fault(hart, &process.space, &process.actions, process.sigreturn, fault);
                    if let Delivery::Die(signal) = delivery
                        && let Some(text) = crash::report(&self.hart, &self.process.space, signal, Some(&fault))
                    {
                        eprint!("{text}");
                    }
                    delivery
                }
                Exit::Idle => {
                    std::thread::yield_now();
                    Delivery::Continue
                }
                Exit::Fault(why) => {
                    eprintln!("isomorph: {why}");
                    Delivery::Die(SIGILL)
                }
                _ => self.deliver(None),
            };
            if let Delivery::Die(signal) = delivery {
                return Ended::Signal(signal);
            }
        }
    }

    fn deliver(&mut self, call: Option<(PendingCall, i64)>) -> Delivery {
        let Self { hart, process, signals, .. } = self;
        let mut may_deliver = |hart: &mut Hart, signal| may_deliver(process, hart, signal);
        signals.deliver(hart, &process.space, &process.actions, process.sigreturn, call, &mut may_deliver)
    }

    /// An exception as Linux tells it to programs.
    fn fault(&self, trap: Trap) -> Fault {
        let pc = self.hart.pc();
        match trap.cause {
            Cause::Breakpoint => Fault { signal: SIGTRAP, code: TRAP_BRKPT, address: pc },
            Cause::IllegalInstruction => Fault { signal: SIGILL, code: ILL_ILLOPC, address: pc },
            Cause::FetchMisaligned | Cause::LoadMisaligned | Cause::StoreMisaligned => {
                Fault { signal: SIGBUS, code: BUS_ADRALN, address: trap.value }
            }
            Cause::FetchAccess | Cause::LoadAccess | Cause::StoreAccess => {
                Fault { signal: SIGBUS, code: BUS_ADRERR, address: trap.value }
            }
            _ => {
                let mapped = self.process.space.protection(trap.value).is_some();
                let code = if mapped { SEGV_ACCERR } else { SEGV_MAPERR };
                Fault { signal: SIGSEGV, code, address: trap.value }
            }
        }
    }
}

impl SystemCalls for Process {
    fn call(&self, number: u64, arguments: [u64; 6]) -> Option<i64> {
        let direct = direct::find(number)?;
        let call = |mailbox: &Mailbox| direct.call(mailbox, &self.space, self.sysroot.as_deref(), arguments);
        Mailbox::with_current(call)
    }
}

/// Whether a signal is to be delivered: a debugger may think otherwise.
fn may_deliver(process: &Process, hart: &mut Hart, signal: u32) -> bool {
    match process.debug.as_ref().filter(|control| control.is_active()) {
        Some(control) => control.signal(hart, signal.to_le_bytes()[0]).is_some(),
        None => true,
    }
}

impl Process {
    /// The cache of translated code.
    pub fn code(&self) -> MutexGuard<'_, Option<Arc<CodeCache>>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the host's process as the guest's has ended.
    pub fn end(ended: Ended) -> ! {
        match ended {
            Ended::Thread(status) | Ended::Process(status) => {
                // SAFETY: does not return.
                unsafe { raw(libc::SYS_exit_group, [status.cast_unsigned().into(), 0, 0, 0, 0, 0]) };
                unreachable!("exit_group does not return")
            }
            Ended::Signal(signal) => die(signal),
        }
    }

    /// Counts a thread out. True for the last one.
    pub fn thread_ends(&self) -> bool {
        self.threads_count.fetch_sub(1, Ordering::SeqCst) == 1
    }
}
