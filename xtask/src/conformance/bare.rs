//! The machine of a test: harts in M-mode, memory where the test was linked to, and a timer. No firmware, no monitor.
//!
//! ```text
//! 0x0200_0000   ACLINT
//! first segment, rounded down to a page   MEMORY_SIZE bytes of memory
//! ```
//!
//! Every hart begins at the test's entry with its number in `a0`. One thread looks at `tohost` every now and then and stops the harts when there is a verdict.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devices::aclint::{Aclint, HartLines, TimeSource};
use machine::GuestPhysical;
use machine::bus::{Bus, Overlap};
use machine::clock::Clock;
use machine::memory::{GuestMemory, MemoryError, OutOfRange};
use riscv::hart::{Exit, Hart, HartConfig, HartSignals, Privilege, interrupt};
use riscv::translate::{CodeCache, Options};
use riscv::{isa, map};

use super::htif::Host;
use super::signature::Difference;
use super::test::Test;

/// How much memory a machine has beyond the test's own, in bytes. Tests of address translation hand out pages after their end.
const MEMORY_SIZE: u64 = 64 << 20;
/// How often `tohost` is looked at, at first and after a while.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(1));
/// The longest that an idle hart sleeps.
const SLEEP_MAX: Duration = Duration::from_millis(10);

/// What a test may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How guest code is executed.
    pub(super) engine: Options,
    /// How many harts there are.
    pub(super) cpus: u16,
    /// How long it may take.
    pub(super) time: Duration,
}

/// Why a test did not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The test says so.
    #[error("test {code} failed{}", and_printed(.printed))]
    Code { code: u64, printed: String },
    /// It left other results than its reference.
    #[error("{0}")]
    Signature(Difference),
    /// It did not end.
    #[error("no verdict after {} s: {place}{}", .after.as_secs(), and_printed(.printed))]
    Time { after: Duration, place: Place, printed: String },
    /// A hart can go no further.
    #[error("{cause}: {place}")]
    Stuck { cause: String, place: Place },
    /// `tohost`, or what it points to, is outside of memory.
    #[error("tohost: {0}")]
    Host(OutOfRange),
    /// The signature is not in memory.
    #[error("signature: {0}")]
    Outside(OutOfRange),
    /// There is no such memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There is no memory for translated code.
    #[error("{0}")]
    Translator(String),
    /// The test is linked to where the timer is.
    #[error(transparent)]
    Overlap(#[from] Overlap),
}

fn and_printed(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; it printed {:?}", text.trim_end()) }
}

/// Where a hart stands.
#[derive(Debug)]
pub(super) struct Place {
    hart: u64,
    pc: u64,
    instruction: Option<String>,
    privilege: Privilege,
    /// `mcause`, `mepc` and `mtval`.
    trap: [u64; 3],
}

impl Place {
    fn of(hart: &Hart, memory: &GuestMemory) -> Self {
        let csr = |number| hart.csr(number).unwrap_or(0);
        let half = |at: u64| memory.load::<u16>(GuestPhysical(at)).ok();
        let pc = hart.pc();
        // Only where addresses are physical or mapped to themselves; elsewhere there is nothing to show.
        let word = half(pc).map(|low| u32::from(low) | half(pc.wrapping_add(2)).map_or(0, u32::from) << 16);
        Self {
            hart: hart.config().id,
            pc,
            instruction: word.map(|word| isa::disassemble(word, pc)),
            privilege: hart.privilege(),
            trap: [csr(0x342), csr(0x341), csr(0x343)],
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hart {} at {:#x}", self.hart, self.pc)?;
        if let Some(instruction) = &self.instruction {
            write!(f, " ({instruction})")?;
        }
        let mode = match self.privilege {
            Privilege::User => "U",
            Privilege::Supervisor => "S",
            Privilege::Machine => "M",
        };
        let [cause, epc, value] = self.trap;
        write!(f, " in {mode}-mode, mcause {cause:#x} mepc {epc:#x} mtval {value:#x}")
    }
}

struct Wires(Arc<HartSignals>);

impl HartLines for Wires {
    fn set_software_interrupt(&self, level: bool) {
        self.0.set_interrupt(interrupt::MSI, level);
    }

    fn set_timer_deadline(&self, ticks: u64) {
        self.0.set_timer_deadline(ticks);
    }
}

/// What the threads of a machine share.
struct Shared {
    memory: Arc<GuestMemory>,
    time: Arc<TimeSource>,
    stop: AtomicBool,
    /// A hart that can go no further, and why.
    stuck: Mutex<Option<(String, Place)>>,
}

impl Shared {
    /// Runs `hart` until the machine stops.
    fn drive(&self, hart: &mut Hart) {
        while !self.stop.load(Ordering::SeqCst) {
            let cause = match hart.run() {
                Exit::Attention => continue,
                Exit::Idle => {
                    let ns = hart.next_deadline().map_or(u64::MAX, |deadline| self.time.ns_until(deadline));
                    hart.signals().sleep(Some(Duration::from_nanos(ns).min(SLEEP_MAX)));
                    continue;
                }
                Exit::SupervisorCall => "a call to the monitor that this machine does not have".to_owned(),
                Exit::Debug(stop) => format!("a stop for a debugger that nobody asked for: {stop:?}"),
                Exit::Exception(trap) => format!("{trap:?} outside of any program"),
                Exit::Fault(cause) => cause,
            };
            let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
            stuck.get_or_insert_with(|| (cause, Place::of(hart, &self.memory)));
            return;
        }
    }

    fn take_stuck(&self) -> Option<(String, Place)> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why the machine was stopped.
enum End {
    Code(u64),
    Time,
    Stuck(String, Place),
}

/// Runs `test` on a machine of its own.
///
/// # Errors
/// It did not pass.
pub(super) fn run(test: &Test, limits: Limits) -> Result<(), Failure> {
    let range = test.program.range();
    let base = GuestPhysical(range.start).page();
    let size = (range.end - base.0).next_multiple_of(machine::PAGE_SIZE).saturating_add(MEMORY_SIZE);
    let memory = Arc::new(GuestMemory::new(base, size)?);
    test.program.write_to(&memory).map_err(Failure::Host)?;

    let signals: Vec<_> = (0..limits.cpus).map(|_| Arc::new(HartSignals::new())).collect();
    let clock = Arc::new(Clock::new());
    let time = Arc::new(TimeSource::new(Arc::clone(&clock)));
    let wires = signals.iter().map(|signals| Arc::new(Wires(Arc::clone(signals))) as Arc<dyn HartLines>);
    let mut bus = Bus::new();
    let aclint = Arc::new(Aclint::new(Arc::clone(&time), wires.collect()));
    bus.map("clint", GuestPhysical(map::CLINT.start), map::CLINT.end - map::CLINT.start, aclint)?;
    let bus = Arc::new(bus);
    let cache = limits.engine.translate.then(|| CodeCache::new(limits.engine)).transpose();
    let cache = cache.map_err(|error| Failure::Translator(error.to_string()))?;
    let new_hart = |(signals, id): (&Arc<HartSignals>, u64)| {
        let config = HartConfig { id, hardware_ad_updates: true, monitor_sbi: false };
        let mut hart =
            Hart::new(config, Arc::clone(&memory), Arc::clone(&bus), Arc::clone(&time) as _, Arc::clone(signals));
        if let Some(cache) = &cache {
            hart.translate_with(Arc::clone(cache));
        }
        hart.reset(test.program.entry.0);
        hart.set_x(10, id);
        hart
    };
    let mut harts: Vec<_> = signals.iter().zip(0..).map(new_hart).collect();

    let shared = Shared { memory: Arc::clone(&memory), time, stop: AtomicBool::new(false), stuck: Mutex::new(None) };
    let mut host = Host::new(test.to_host, test.from_host);
    let end = std::thread::scope(|scope| {
        for hart in &mut harts {
            scope.spawn(|| shared.drive(hart));
        }
        let end = watch(&mut host, &shared, &clock, limits.time);
        shared.stop.store(true, Ordering::SeqCst);
        for signals in &signals {
            signals.request_attention();
        }
        end
    });
    match end.map_err(Failure::Host)? {
        End::Code(0) => compare(test, &memory),
        End::Code(code) => Err(Failure::Code { code, printed: host.printed() }),
        End::Time => {
            let place = Place::of(&harts[0], &memory);
            Err(Failure::Time { after: limits.time, place, printed: host.printed() })
        }
        End::Stuck(cause, place) => Err(Failure::Stuck { cause, place }),
    }
}

/// Serves the test until it ends, one way or the other.
fn watch(host: &mut Host, shared: &Shared, clock: &Clock, limit: Duration) -> Result<End, OutOfRange> {
    let mut pause = LOOK_EVERY.0;
    loop {
        if let Some(code) = host.look(&shared.memory)? {
            return Ok(End::Code(code));
        }
        if let Some((cause, place)) = shared.take_stuck() {
            return Ok(End::Stuck(cause, place));
        }
        if u128::from(clock.now_ns()) > limit.as_nanos() {
            return Ok(End::Time);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK_EVERY.1);
    }
}

/// Compares what the test left with its reference, if it has one.
fn compare(test: &Test, memory: &GuestMemory) -> Result<(), Failure> {
    let Some(signature) = &test.signature else { return Ok(()) };
    let range = &signature.range;
    let length = range.end - range.start;
    if length > 0 && !memory.contains(GuestPhysical(range.start), length) {
        return Err(Failure::Outside(OutOfRange { at: GuestPhysical(range.start), length }));
    }
    let mut bytes = vec![0; machine::address::host_size(length)];
    memory.read(GuestPhysical(range.start), &mut bytes).map_err(Failure::Outside)?;
    signature.reference.compare(range.start, &bytes).map_err(Failure::Signature)
}
