//! The machine around the harts: memory, devices, threads, and the life that they have in common.
//!
//! ```text
//!  Board (verbs) --+                                +-- hart-0 --+
//!                  +--> queue --> driver --> gate --+-- hart-1 --+--> Bus --> devices --> PLIC --> hart signals
//!  guest (power) --+                                +-- ...    --+
//! ```
//!
//! One thread, the *driver*, starts, pauses, resets and ends the machine, one event after the other; nothing else does. Each hart has a thread of
//! its own that runs the guest while the [gate](machine::gate) is open. With the gate closed every hart stands at a safe point, and with
//! the devices paused nothing touches guest memory.
//!
//! Invariants: whatever a guest does, verbs work; a fault of the guest, or a bug of ours on a hart's thread, stops the machine with a reason in one line.
//!
//! Cost: an idle hart's thread sleeps on the host until its timer or an interrupt; there is no periodic work.

mod build;
pub mod debug;
mod driver;
mod hsm;
mod input;
mod power;
mod round_robin;
mod supervisor;
#[cfg(test)]
mod tests;
mod vcpu;

use std::io::Write;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use devices::Card;
use machine::backend::{BlockBackend, CharacterBackend, NetworkBackend};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::lifecycle::{Asked, Driven, Life, Machine, Stats};
use machine::record;

use crate::hart::stats::EngineStats;
use crate::hart::translate;
use crate::loader::{Images, LoadError};
use build::Parts;
use power::Event;

/// The most harts of a machine.
pub const CPUS_COUNT_MAX: u32 = 128;

/// A disk of a machine.
#[derive(Clone)]
pub struct Disk {
    /// Where its blocks are.
    pub backend: Arc<dyn BlockBackend>,
    /// What the guest sees as its serial number: at most 20 bytes.
    pub serial: String,
}

/// The network interface of a machine.
#[derive(Clone)]
pub struct Interface {
    /// What it is plugged into.
    pub backend: Arc<dyn NetworkBackend>,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// What card the guest sees.
    pub card: Card,
}

/// What virtio devices are attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VirtioTransport {
    /// Registers at fixed addresses, which the device tree lists.
    #[default]
    Mmio,
    /// A PCI bus.
    Pci,
}

/// What a machine is made of.
pub struct BoardConfig {
    /// The number of harts, 1 to [`CPUS_COUNT_MAX`].
    pub cpus: u32,
    /// The size of RAM in bytes: whole pages.
    pub memory_bytes: u64,
    /// What it starts.
    pub images: Images,
    /// The kernel's command line.
    pub arguments: String,
    /// Its disks; the first is the guest's `vda`.
    pub disks: Vec<Disk>,
    /// Its network interface, if it has one.
    pub network: Option<Interface>,
    /// The other end of the serial port, the guest's `ttyS0`.
    pub serial: Arc<dyn CharacterBackend>,
    /// The other end of a virtio console, the guest's `hvc0`, if it has one.
    pub console: Option<Arc<dyn CharacterBackend>>,
    /// What its virtio devices are attached to.
    pub virtio: VirtioTransport,
    /// Where the guest's randomness comes from.
    pub entropy: Entropy,
    /// The machine's time.
    pub clock: Arc<Clock>,
    /// Whether harts set accessed and dirty bits of page tables themselves (Svadu) or fault (Svade).
    pub hardware_ad_updates: bool,
    /// What the translator may do.
    pub translator: translate::Options,
    /// When the harts run.
    pub schedule: Schedule,
}

/// When the harts of a machine run, and what their time is.
#[derive(Default)]
pub enum Schedule {
    /// Each on a thread of the host, in the time of [`BoardConfig::clock`].
    #[default]
    Threads,
    /// One after the other, in a time that follows from the instructions that they execute. Such a run can be repeated.
    RoundRobin(Box<RoundRobin>),
}

/// A run that can be repeated: the machine has time and randomness of its own, in place of [`BoardConfig::clock`] and [`BoardConfig::entropy`].
pub struct RoundRobin {
    /// The seed of its randomness.
    pub seed: u64,
    /// Its wall clock at the beginning, in nanoseconds since 1970-01-01 UTC.
    pub epoch_ns: u64,
    /// Whether an idle guest waits as long as it wants to, since something may come from outside, or is taken to the next timer at once.
    pub paced: bool,
    /// What comes from outside.
    pub input: Input,
    /// The machine ends, or halts for its debugger, once so many instructions have retired on all harts together.
    pub until: Option<u64>,
}

/// What comes into a machine from outside.
pub enum Input {
    /// What its backends bring.
    Live,
    /// What its backends bring, and a [`record`] of it is written.
    Record(Box<dyn Write + Send>),
    /// What the record says. Backends only hear what the guest prints, and the network is not heard of at all.
    Replay(record::Reader),
}

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The number of harts.
    #[error("a machine has 1 to {CPUS_COUNT_MAX} processors, not {0}; change --cpus")]
    Cpus(u32),
    /// There is no memory for translated code.
    #[error(transparent)]
    Code(#[from] codegen::arena::ArenaError),
    /// Neither a kernel nor a firmware.
    #[error("there is nothing to run; give a kernel or a firmware")]
    NothingToRun,
    /// More virtio devices than there are places.
    #[error("{count} disks and other devices do not fit into the {max} slots of the machine; leave some disks out")]
    Devices {
        /// How many there are.
        count: usize,
        /// How many there could be.
        max: u32,
    },
    /// More devices than the PCI bus has places.
    #[error(transparent)]
    BusFull(#[from] devices::pci::root::BusFull),
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] machine::memory::MemoryError),
    /// An image.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device tree; the command line is the only part that can be wrong.
    #[error("the kernel's command line cannot be passed on: {0}")]
    DeviceTree(String),
    /// The record of a run.
    #[error(transparent)]
    Record(#[from] record::RecordError),
    /// A replay on another machine.
    #[error("the record is of another machine: {0}; replay it with the flags and images of its recording")]
    AnotherMachine(String),
    /// The host's random generator.
    #[error("the host gives no random numbers: {0}")]
    Entropy(std::io::Error),
    /// A thread, or another thing that a device needs of the host.
    #[error("the host gives no more threads: {0}")]
    Host(#[from] std::io::Error),
}

struct Shared {
    parts: Parts,
    life: Life,
}

/// A RISC-V system machine.
pub struct Board {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Event>,
    driver: Option<JoinHandle<()>>,
}

impl Board {
    /// Builds the machine and loads its images. Nothing runs yet.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub fn new(config: BoardConfig) -> Result<Self, BoardError> {
        let (queue, events) = mpsc::channel();
        let (parts, input) = Parts::build(config, queue.clone())?;
        parts.power_on()?;
        parts.begin_log(input)?;
        let shared = Arc::new(Shared { parts, life: Life::default() });
        let driver = driver::spawn(&shared, events)?;
        Ok(Self { shared, queue, driver: Some(driver) })
    }

    /// One line for each hart: state, program counter, privilege, instructions executed. A running machine stands still for a moment.
    #[must_use]
    pub fn describe_harts(&self) -> Vec<String> {
        self.inspect(|parts| parts.vcpus.iter().map(vcpu::Vcpu::describe).collect())
    }

    /// What the harts have done, all together; also after the machine's end.
    #[must_use]
    pub fn engine_stats(&self) -> EngineStats {
        self.inspect(|parts| {
            let mut sum = EngineStats::default();
            parts.vcpus.iter().for_each(|vcpu| sum.add(&vcpu.core().hart.stats()));
            if let Some(cache) = &parts.code_cache {
                let cache = cache.stats();
                sum.units_translated = cache.units;
                sum.regions_translated = cache.regions;
                sum.code_bytes = cache.bytes;
                sum.units_invalidated = cache.invalidated;
                sum.code_flushes = cache.flushes;
            }
            sum
        })
    }

    /// Presses the power button: the guest is asked to shut down. False if it has no driver for the button, which in a repeatable run there is not.
    #[must_use]
    pub fn press_power_button(&self) -> bool {
        self.shared.parts.power_key.as_ref().is_some_and(|key| key.press())
    }

    /// The units of translated code that there are, for `perf`.
    #[must_use]
    pub fn units(&self) -> Vec<translate::UnitInfo> {
        self.shared.parts.code_cache.as_ref().map(|cache| cache.units()).unwrap_or_default()
    }

    /// The device tree that the guest was given at its last start, as a flattened blob.
    #[must_use]
    pub fn device_tree(&self) -> Vec<u8> {
        self.shared.parts.device_tree()
    }

    /// Calls `look` while no hart runs.
    fn inspect<T: Send + 'static>(&self, look: impl Fn(&Parts) -> T + Copy + Send + 'static) -> T {
        let (answer, answers) = mpsc::channel();
        let event = Event::Inspect(Box::new(move |parts| {
            // Whoever asked waits for the answer.
            let _ = answer.send(look(parts));
        }));
        let asked = self.queue.send(event);
        match asked.ok().and_then(|()| answers.recv().ok()) {
            Some(value) => value,
            // Without a driver no hart runs.
            None => look(&self.shared.parts),
        }
    }
}

impl Driven for Board {
    fn life(&self) -> &Life {
        &self.shared.life
    }

    fn hand(&self, asked: Asked) -> bool {
        self.queue.send(Event::Verb(asked)).is_ok()
    }

    fn used(&self) -> Stats {
        self.inspect(Parts::stats)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // A machine that has already stopped refuses, which is what we want.
        let _ = self.stop();
        if let Some(driver) = self.driver.take() {
            // Its panic, a bug of ours, was reported when it happened.
            let _ = driver.join();
        }
    }
}
