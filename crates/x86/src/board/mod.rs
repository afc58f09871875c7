//! The machine around the processors: memory, devices, threads, and the life that they have in common.
//!
//! ```text
//!  Board (verbs) --+                                +-- cpu-0 --+
//!                  +--> queue --> driver --> gate --+-- cpu-1 --+--> Buses --> devices --> lines, messages --> KVM
//!  guest (power) --+                                +-- ...   --+
//!                                     doorbells: KVM --> thread "doorbells" --> queues of devices
//! ```
//!
//! One thread, the *driver*, starts, pauses, resets and ends the machine, one event after the other; nothing else does. Each processor has a thread of
//! its own that runs the guest while the [gate](machine::gate) is open. A reset puts processors and controllers back into the state that they were saved in when the
//! machine was made.
//!
//! Invariants: whatever a guest does, verbs work; a fault of the guest stops the machine with a reason in one line. While the machine is paused its paravirtual
//! clock stands still.

mod build;
mod debug;
mod doorbells;
mod driver;
mod firmware;
mod messages;
mod patches;
mod power;
pub mod snapshot;
pub mod trace;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use devices::Card;
use machine::backend::{BlockBackend, CharacterBackend, NetworkBackend};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::lifecycle::{Asked, Driven, Life, Machine, Stats};
use machine::snapshot::Snapshot;

use crate::boot::{BootError, Images};
use crate::kvm::cpuid::{Lacking, Model};
use crate::kvm::state::RestoreError;
use crate::kvm::{ExitKind, IrqChip, KvmError, Unusable};
use crate::vfio::{HostAddress, VfioError};
use build::Parts;
use driver::Still;
use power::Event;
use snapshot::{GoOnError, SaveError};

/// The most processors of a machine: what numbers of 8 bits can tell apart.
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

/// What a machine is made of.
pub struct BoardConfig {
    /// The number of processors, 1 to [`CPUS_COUNT_MAX`].
    pub cpus: u32,
    /// What they say of themselves.
    pub model: Model,
    /// The size of RAM in bytes: whole pages.
    pub memory_bytes: u64,
    /// What it starts.
    pub images: Images,
    /// Where its interrupt controllers are.
    pub irqchip: IrqChip,
    /// Its disks; the first is the guest's `vda`.
    pub disks: Vec<Disk>,
    /// Its network interface, if it has one.
    pub network: Option<Interface>,
    /// Functions of the host's PCI buses that the guest gets.
    pub host_devices: Vec<HostAddress>,
    /// The other end of the serial port, the guest's `ttyS0`.
    pub serial: Arc<dyn CharacterBackend>,
    /// The other end of a virtio console, the guest's `hvc0`, if it has one.
    pub console: Option<Arc<dyn CharacterBackend>>,
    /// Where the guest's randomness comes from.
    pub entropy: Entropy,
    /// The machine's time.
    pub clock: Arc<Clock>,
    /// Tells what the machine is made of, for whoever makes it again from a snapshot: asked when one is taken.
    pub about: About,
}

/// See [`BoardConfig::about`].
pub type About = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The number of processors.
    #[error("a machine has 1 to {CPUS_COUNT_MAX} processors, not {0}; change --cpus")]
    Cpus(u32),
    /// The size of RAM.
    #[error("a machine has {min} to {max} MiB of memory; change --memory", min = crate::boot::MEMORY_BYTES_MIN >> 20, max = build::MEMORY_BYTES_MAX >> 20)]
    MemorySize,
    /// No hypervisor.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// A device of the host's.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// Not with these interrupt controllers.
    #[error("with --irqchip split there are no {0}; leave it out")]
    Split(&'static str),
    /// The hypervisor refuses.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The hypervisor refuses.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The model of the processor.
    #[error(transparent)]
    Model(#[from] Lacking),
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] machine::memory::MemoryError),
    /// An image.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// More devices than there are places.
    #[error(transparent)]
    BusFull(#[from] devices::pci::root::BusFull),
    /// A snapshot.
    #[error(transparent)]
    GoOn(#[from] GoOnError),
    /// A thread, or another thing that a device needs of the host.
    #[error("the host gives no more threads, descriptors or random numbers: {0}")]
    Host(#[from] std::io::Error),
}

struct Shared {
    parts: Parts,
    life: Life,
}

/// An x86-64 machine.
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
        Self::make(config, |parts| {
            parts.power_on()?;
            Ok(None)
        })
    }

    /// Builds the machine, which goes on from `snapshot` when it is started; `config` has what the other was made of. As long as the machine lives, nobody may
    /// shorten the snapshot's files.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub fn from_snapshot(config: BoardConfig, snapshot: &Snapshot) -> Result<Self, BoardError> {
        Self::make(config, |parts| {
            parts.parent = Some(snapshot.header().machine);
            parts.pause_devices();
            Ok(Some(Still { clock: Some(parts.restore(snapshot)?) }))
        })
    }

    fn make(
        config: BoardConfig,
        begin: impl FnOnce(&mut Parts) -> Result<Option<Still>, BoardError>,
    ) -> Result<Self, BoardError> {
        let (queue, events) = mpsc::channel();
        let mut parts = Parts::build(config, &queue)?;
        let still = begin(&mut parts)?;
        let shared = Arc::new(Shared { parts, life: Life::default() });
        let driver = driver::spawn(&shared, events, still)?;
        Ok(Self { shared, queue, driver: Some(driver) })
    }

    /// Leaves a snapshot in `directory`. The machine stands still meanwhile.
    ///
    /// # Errors
    /// See [`SaveError`].
    pub fn snapshot(&self, directory: &Path) -> Result<(), SaveError> {
        let (answer, answers) = mpsc::channel();
        let directory = directory.to_owned();
        let look: power::Look = Box::new(move |parts, clock| {
            // Whoever asked waits for the answer.
            let _ = answer.send(parts.save(&directory, clock));
        });
        self.queue.send(Event::StandStill(look)).map_err(|_| SaveError::Stopped)?;
        answers.recv().unwrap_or(Err(SaveError::Stopped))
    }

    /// One line for each processor: how often it came out of the guest.
    #[must_use]
    pub fn describe_processors(&self) -> Vec<String> {
        let exits = self.shared.parts.exits.iter().zip(0..);
        exits.map(|(exits, id)| format!("processor {id}: {} exits", exits.total())).collect()
    }

    /// What the processors came out of the guest for, all together: names and counts.
    #[must_use]
    pub fn exits(&self) -> Vec<(String, u64)> {
        let all = &self.shared.parts.exits;
        let total = all.iter().map(|exits| exits.total()).sum();
        let of = |kind: ExitKind| all.iter().map(|exits| exits.count(kind)).sum();
        let mut counts = vec![("exits".into(), total)];
        counts.extend(ExitKind::ALL.iter().map(|(kind, name)| ((*name).into(), of(*kind))));
        counts.push(("doorbells".into(), self.shared.parts.doorbells.rung_count()));
        counts
    }

    /// Presses the power button: the guest is asked to shut down.
    pub fn press_power_button(&self) {
        self.shared.parts.power.press_power_button();
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
        let parts = &self.shared.parts;
        Stats {
            // The host's processor does not count them for us.
            instructions_count: 0,
            time_ns: parts.clock.now_ns(),
            memory_resident_bytes: parts.memory.resident_bytes(),
            memory_size_bytes: parts.memory.size(),
            resets_count: 0,
        }
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
