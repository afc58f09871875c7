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
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riscv::hart::trap::{Cause, Trap};
use riscv::hart::{Exit, Hart, HartSignals, TIME_BASE_HZ, TimeSource};
use riscv::translate::{CodeCache, Options};

use crate::signal::ThreadSignals;
use crate::signal::action::Actions;
use crate::signal::deliver::{
    BUS_ADRALN, Delivery, Fault, ILL_ILLOPC, PendingCall, SEGV_ACCERR, SEGV_MAPERR, SIGBUS, SIGILL, SIGSEGV, SIGTRAP,
    TRAP_BRKPT, die,
};
use crate::space::AddressSpace;
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
pub fn new_cache() -> Option<Arc<CodeCache>> {
    CodeCache::new(Options::default(), false).ok()
}

/// What the threads of a process share.
#[derive(Debug)]
pub struct Process {
    /// Its memory.
    pub space: Arc<AddressSpace>,
    /// What it does with signals.
    pub actions: Actions,
    /// The program's file, on the host.
    pub program: PathBuf,
    /// Where its libraries are.
    pub sysroot: Option<PathBuf>,
    /// Where signal handlers return to.
    pub sigreturn: u64,
    /// The clock of its harts.
    pub time: Arc<HostTime>,
    /// Translated code, shared by its harts; none if the host cannot have any.
    pub code: Mutex<Option<Arc<CodeCache>>>,
    /// What answers its system calls, as the module `calls` does.
    pub calls: fn(&mut Thread) -> Outcome,
    /// How many threads it has.
    pub threads_count: AtomicU32,
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
        self.signals.attach();
        let ended = self.execute();
        self.signals.detach();
        self.process.space.remove_hart(self.hart.signals());
        ended
    }

    fn execute(&mut self) -> Ended {
        loop {
            let delivery = match self.hart.run() {
                Exit::Exception(Trap { cause: Cause::UserCall, .. }) => {
                    let pc = self.hart.pc();
                    let call = PendingCall { pc, first_argument: self.hart.x(10) };
                    self.hart.set_pc(pc + 4);
                    match (self.process.calls)(self) {
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
                    let Self { hart, process, signals, .. } = self;
                    let delivery = signals.fault(hart, &process.space, &process.actions, process.sigreturn, fault);
                    if let Delivery::Die(_) = delivery {
                        self.report(fault);
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
        signals.deliver(hart, &process.space, &process.actions, process.sigreturn, call)
    }

    /// One line for whoever looks for the reason, as the kernel writes it to its log.
    fn report(&self, fault: Fault) {
        let Fault { signal, code, address } = fault;
        eprintln!(
            "isomorph: {}: signal {signal} (code {code}) at pc {:#x}, address {address:#x}, ra {:#x}, sp {:#x}",
            self.process.program.display(),
            self.hart.pc(),
            self.hart.x(1),
            self.hart.x(2)
        );
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
            _ => {
                let mapped = self.process.space.protection(trap.value).is_some();
                let code = if mapped { SEGV_ACCERR } else { SEGV_MAPERR };
                Fault { signal: SIGSEGV, code, address: trap.value }
            }
        }
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
