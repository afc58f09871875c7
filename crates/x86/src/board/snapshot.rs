//! The machine in a snapshot, and a machine that goes on from one.
//!
//! ```text
//! section machine        1   what the machine is made of, in the words of who made it
//! section clock          1   nanoseconds that it has run
//! section vm             1   what its processors share: [`VmState`]
//! section cpu.N          1   a processor: [`VcpuState`]
//! section device.NAME    1   the registers of a device, by name
//! memory  ram                RAM, what PCI's hole leaves out left out
//! ```
//!
//! All sections are JSON. What is on disks, in firmware's variables and in files that the guest started from is not in it; disks are flushed before it is written.
//!
//! A machine that goes on from a snapshot is another one: it has a generation ID of its own, and the guest is told so before it executes anything else.
//!
//! Cost: the machine stands still while its RAM is written, of which pages of zeroes are only read. To go on is to map the file; RAM is read as it is touched.

use std::path::Path;

use devices::state::StateError;
use kvm_bindings::kvm_clock_data;
use machine::snapshot::{Identity, PAGE_BYTES, Parts as SnapshotParts, Snapshot, SnapshotError, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build::Parts;
use crate::kvm::state::{RestoreError, VcpuState, VmState};
use crate::kvm::{KvmError, cpuid};
use crate::map;

/// The kind of machine, in the header.
pub const KIND: &str = "x86_64";
/// The section that the machine's maker writes and reads.
pub const MACHINE: &str = "machine";
/// The version of all sections.
pub const SECTION_VERSION: u32 = 1;
const CLOCK: &str = "clock";
const VM: &str = "vm";
const RAM: &str = "ram";

fn cpu(id: usize) -> String {
    format!("cpu.{id}")
}

fn device(name: &str) -> String {
    format!("device.{name}")
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The machine has ended.
    #[error("the machine has stopped")]
    Stopped,
    /// A device.
    #[error("no snapshot of this machine can be taken: {0}")]
    Device(#[from] StateError),
    /// The hypervisor refuses.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A disk.
    #[error("a disk cannot be flushed: {0}")]
    Disk(std::io::Error),
    /// The host's randomness.
    #[error("the host gives no random numbers: {0}")]
    Entropy(std::io::Error),
    /// The files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Why a machine cannot go on from a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum GoOnError {
    /// The files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A device.
    #[error("the snapshot's device '{name}' is not this machine's: {cause}")]
    Device {
        /// Which.
        name: String,
        /// What is wrong.
        cause: StateError,
    },
    /// The processors.
    #[error(transparent)]
    Processor(#[from] RestoreError),
    /// The hypervisor refuses.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Another size of RAM.
    #[error("the snapshot has {found} bytes of memory, and this machine {wanted}")]
    Memory {
        /// What it has.
        found: u64,
        /// What it should have.
        wanted: u64,
    },
    /// The host refuses to map the file.
    #[error("the host does not map the snapshot's memory: {0}")]
    Map(std::io::Error),
}

fn put(writer: &mut Writer, name: &str, value: &impl Serialize) -> Result<(), SaveError> {
    // Plain data.
    let content = serde_json::to_vec(value).unwrap_or_else(|error| panic!("plain data can always be saved: {error}"));
    Ok(writer.section(name, SECTION_VERSION, &content)?)
}

fn get<T: DeserializeOwned>(parts: &mut SnapshotParts<'_>, name: &str) -> Result<T, SnapshotError> {
    let content = parts.section(name, SECTION_VERSION)?;
    serde_json::from_slice(&content).map_err(|error| SnapshotError::Damaged(format!("its section '{name}': {error}")))
}

impl Parts {
    /// Leaves a snapshot; `clock` is the paravirtual clock's when the machine came to stand still. No processor runs, and devices are paused.
    pub(super) fn save(&self, directory: &Path, clock: Option<&kvm_clock_data>) -> Result<(), SaveError> {
        for disk in &self.disks {
            disk.flush().map_err(SaveError::Disk)?;
        }
        let identity = Identity::draw().map_err(SaveError::Entropy)?;
        let mut writer = Writer::create(directory, KIND, identity, self.parent)?;
        writer.section(MACHINE, SECTION_VERSION, &(self.about)())?;
        put(&mut writer, CLOCK, &self.clock.now_ns())?;
        let mut vm = self.vm.save()?;
        if let Some(clock) = clock {
            vm.clock = *clock;
        }
        put(&mut writer, VM, &vm)?;
        for id in 0..self.cpus_count() {
            put(&mut writer, &cpu(id), &self.vm.save_vcpu(&self.vcpu(id))?)?;
        }
        for (name, saved) in &self.devices {
            put(&mut writer, &device(name), &saved.save()?)?;
        }
        let length = self.memory.size().next_multiple_of(PAGE_BYTES);
        self.without_patches(|| {
            writer.memory(RAM, length, |offset, page| {
                self.memory.save(offset, page);
                Ok(())
            })
        })?;
        Ok(writer.finish()?)
    }

    /// Makes the machine, which is new and whose devices are paused, what was saved; answers the paravirtual clock that it goes on with.
    pub(super) fn restore(&self, snapshot: &Snapshot) -> Result<kvm_clock_data, GoOnError> {
        snapshot.check_kind(KIND)?;
        let mut parts = snapshot.parts();
        parts.pass(MACHINE)?;
        let ram = parts.memory(RAM)?;
        let wanted = self.memory.size();
        if ram.length != wanted.next_multiple_of(PAGE_BYTES) {
            return Err(GoOnError::Memory { found: ram.length, wanted });
        }
        self.memory.restore(ram.file, ram.offset).map_err(GoOnError::Map)?;
        let vm: VmState = get(&mut parts, VM)?;
        self.vm.restore(&vm)?;
        for id in 0..self.cpus_count() {
            let saved: VcpuState = get(&mut parts, &cpu(id))?;
            let vcpu = self.vcpu(id);
            cpuid::check(&saved.cpuid, &vcpu.cpuid()?).map_err(RestoreError::Lacks)?;
            vcpu.restore(&saved)?;
        }
        self.clock.go_on_from(get(&mut parts, CLOCK)?);
        for (name, restored) in &self.devices {
            let saved = get(&mut parts, &device(name))?;
            restored.restore(&saved).map_err(|cause| GoOnError::Device { name: (*name).into(), cause })?;
        }
        parts.finish()?;
        self.power.raise_event(map::GENERATION_EVENT);
        Ok(vm.clock)
    }
}
