//! A virtual processor: into the guest, out of it, and to the device that it wanted.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_run, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use machine::GuestPhysical;
use machine::address::host_size;
use machine::bus::{Bus, Width};

use super::kick::Kick;
use super::points::{Abilities, Debug, Hit};
use super::{ExitKind, Exits, KvmError, Tried};

/// Why a processor stands still.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// [`Kick::kick`] was called.
    Attention,
    /// It waits for an interrupt, and its interrupt controller is not KVM's.
    Halted,
    /// A triple fault: on a board, a reset.
    Shutdown,
    /// For a debugger.
    Debug(Hit),
    /// The guest can go no further: why.
    Failed(String),
}

/// Where accesses go that are not to RAM.
#[derive(Default)]
pub struct Buses {
    /// By address.
    pub memory: Bus,
    /// By port; addresses are port numbers.
    pub ports: Bus,
    /// Hears of interrupts that processors have served, if the I/O APIC is not KVM's: their vectors.
    pub end_of_interrupt: Option<Box<dyn Fn(u8) + Send + Sync>>,
}

/// What comes of a look at the bus: the same for all ones.
fn read(bus: &Bus, at: u64, bytes: &mut [u8]) {
    if let Some(width) = whole(at, bytes.len()) {
        let value = bus.read(GuestPhysical(at), width).unwrap_or(u64::MAX);
        bytes.copy_from_slice(&value.to_le_bytes()[..bytes.len()]);
        return;
    }
    // Across a device's registers, as a bus of bytes has it.
    for (at, byte) in (at..).zip(bytes) {
        let value = bus.read(GuestPhysical(at), Width::Byte).unwrap_or(u64::MAX);
        *byte = value.to_le_bytes()[0];
    }
}

fn write(bus: &Bus, at: u64, bytes: &[u8]) {
    if let Some(width) = whole(at, bytes.len()) {
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        // Where nobody is, nobody hears.
        let _ = bus.write(GuestPhysical(at), width, u64::from_le_bytes(value));
        return;
    }
    for (at, byte) in (at..).zip(bytes) {
        let _ = bus.write(GuestPhysical(at), Width::Byte, (*byte).into());
    }
}

/// The width of an access that devices take in one piece.
fn whole(at: u64, length: usize) -> Option<Width> {
    Width::from_bytes(length as u64).filter(|width| at.is_multiple_of(width.bytes()))
}

/// A virtual processor. One thread at a time has it.
pub struct Vcpu {
    id: u32,
    pub(super) fd: VcpuFd,
    /// KVM's page about the processor; mapped as long as `fd` is.
    page: NonNull<kvm_run>,
    kick: Arc<Kick>,
    exits: Arc<Exits>,
    /// KVM waits for what a device answered, or to be told that it was.
    unfinished: bool,
    pub(super) abilities: Abilities,
    pub(super) debug: Debug,
}

// SAFETY: `page` is where `fd`, which may be sent, has its mapping; whoever has the value has both.
unsafe impl Send for Vcpu {}

impl Vcpu {
    pub(super) fn new(id: u32, mut fd: VcpuFd, abilities: Abilities) -> Result<Self, KvmError> {
        let page = NonNull::from(fd.get_kvm_run());
        let kick = Arc::new(Kick::new().tried("install a signal's handler")?);
        let debug = Debug::default();
        Ok(Self { id, fd, page, kick, exits: Arc::default(), unfinished: false, abilities, debug })
    }

    /// Its number, which is also that of its local APIC.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What calls it out of the guest.
    #[must_use]
    pub fn kick(&self) -> &Arc<Kick> {
        &self.kick
    }

    /// How often it came out.
    #[must_use]
    pub fn exits(&self) -> &Arc<Exits> {
        &self.exits
    }

    fn set_immediate_exit(&self, on: bool) {
        // SAFETY: the page is mapped while `fd` lives; the kernel reads the byte, and the signal's handler writes it on this thread.
        unsafe { (&raw mut (*self.page.as_ptr()).immediate_exit).write_volatile(on.into()) };
    }

    /// Runs the guest until something ends that.
    pub fn run(&mut self, buses: &Buses) -> Exit {
        let kick = Arc::clone(&self.kick);
        // SAFETY: `fd`, and with it the page, outlives this call.
        let _inside = unsafe { kick.enter(self.page.as_ptr()) };
        if let Some(hit) = self.at_breakpoint() {
            return Exit::Debug(hit);
        }
        self.step_again();
        loop {
            if self.kick.is_wanted() {
                if !self.unfinished {
                    self.kick.clear();
                    return Exit::Attention;
                }
                // The instruction that a device has answered is finished first: its registers are not complete before.
                self.set_immediate_exit(true);
            }
            if let Some(exit) = self.run_once(buses) {
                return exit;
            }
        }
    }

    fn run_once(&mut self, buses: &Buses) -> Option<Exit> {
        let exits = &self.exits;
        let result = self.fd.run();
        self.unfinished = false;
        match result {
            Ok(VcpuExit::IoIn(port, bytes)) => {
                exits.note(ExitKind::PortRead);
                self.unfinished = true;
                // A repeated instruction comes as one exit.
                for item in bytes.chunks_mut(port_width(self.page)) {
                    read(&buses.ports, port.into(), item);
                }
            }
            Ok(VcpuExit::IoOut(port, bytes)) => {
                exits.note(ExitKind::PortWrite);
                self.unfinished = true;
                for item in bytes.chunks(port_width(self.page)) {
                    write(&buses.ports, port.into(), item);
                }
            }
            Ok(VcpuExit::MmioRead(at, bytes)) => {
                exits.note(ExitKind::MmioRead);
                self.unfinished = true;
                read(&buses.memory, at, bytes);
            }
            Ok(VcpuExit::MmioWrite(at, bytes)) => {
                exits.note(ExitKind::MmioWrite);
                self.unfinished = true;
                write(&buses.memory, at, bytes);
            }
            Ok(VcpuExit::Hlt) => {
                exits.note(ExitKind::Halt);
                return Some(Exit::Halted);
            }
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => exits.note(ExitKind::Signal),
            Ok(VcpuExit::Shutdown) => {
                exits.note(ExitKind::Shutdown);
                return Some(Exit::Shutdown);
            }
            Ok(VcpuExit::IoapicEoi(vector)) => {
                exits.note(ExitKind::EndOfInterrupt);
                if let Some(ended) = &buses.end_of_interrupt {
                    ended(vector);
                }
            }
            Ok(VcpuExit::Debug(exit)) => {
                exits.note(ExitKind::Debug);
                let hit = Hit::new(&exit);
                if !self.passes(&hit) {
                    return Some(Exit::Debug(hit));
                }
                self.step_again();
            }
            Ok(VcpuExit::InternalError) => {
                return Some(self.failed("KVM cannot execute an instruction of the guest's"));
            }
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return Some(self.failed(&format!("the processor refuses the guest's state ({reason:#x})")));
            }
            Ok(other) => {
                let what = format!("KVM came back for an unknown reason ({other:?})");
                return Some(self.failed(&what));
            }
            Err(error) if error.errno() == libc::EINTR => {
                exits.note(ExitKind::Signal);
                self.set_immediate_exit(false);
            }
            // A processor that waited to be started has been.
            Err(error) if error.errno() == libc::EAGAIN => exits.note(ExitKind::Again),
            Err(error) => return Some(self.failed(&format!("KVM cannot run the processor: {error}"))),
        }
        None
    }

    fn failed(&self, why: &str) -> Exit {
        self.exits.note(ExitKind::Failure);
        let place = self.fd.get_regs().map_or_else(|_| String::new(), |regs| format!(" at rip {:#x}", regs.rip));
        Exit::Failed(format!("processor {}: {why}{place}", self.id))
    }

    /// What the processor says of itself.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> Result<(), KvmError> {
        // More than it takes, KVM refuses.
        let cpuid = CpuId::from_entries(entries)
            .map_err(|_| KvmError { what: "describe the processor", cause: std::io::ErrorKind::InvalidInput.into() })?;
        self.fd.set_cpuid2(&cpuid).tried("describe the processor")
    }

    /// What the processor says of itself now.
    ///
    /// # Errors
    /// The host refuses.
    pub fn cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        let cpuid = self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).tried("read the processor's description")?;
        Ok(cpuid.as_slice().to_vec())
    }

    /// The general registers.
    ///
    /// # Errors
    /// The host refuses.
    pub fn registers(&self) -> Result<kvm_regs, KvmError> {
        self.fd.get_regs().tried("read registers")
    }

    /// Sets the general registers.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_registers(&self, registers: &kvm_regs) -> Result<(), KvmError> {
        self.fd.set_regs(registers).tried("set registers")
    }

    /// The segment and control registers.
    ///
    /// # Errors
    /// The host refuses.
    pub fn system_registers(&self) -> Result<kvm_sregs, KvmError> {
        self.fd.get_sregs().tried("read system registers")
    }

    /// Sets the segment and control registers.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_system_registers(&self, registers: &kvm_sregs) -> Result<(), KvmError> {
        self.fd.set_sregs(registers).tried("set system registers")
    }

    /// Sets model-specific registers, by number.
    ///
    /// # Errors
    /// The host refuses one of them.
    pub fn set_msrs(&self, values: &[(u32, u64)]) -> Result<(), KvmError> {
        let refused =
            || KvmError { what: "set model-specific registers", cause: std::io::ErrorKind::InvalidInput.into() };
        for part in values.chunks(super::state::MSRS_AT_ONCE) {
            let entries: Vec<_> = part
                .iter()
                .map(|(index, data)| kvm_msr_entry { index: *index, data: *data, ..Default::default() })
                .collect();
            let msrs = Msrs::from_entries(&entries).map_err(|_| refused())?;
            if self.fd.set_msrs(&msrs).tried("set model-specific registers")? != part.len() {
                return Err(refused());
            }
        }
        Ok(())
    }

    /// Wires the local inputs of the first processor's APIC as a firmware does: the 8259s' interrupt to the first, non-maskable ones to the second.
    ///
    /// # Errors
    /// The host refuses.
    pub fn wire_lapic(&self) -> Result<(), KvmError> {
        // Offsets of the registers, and the delivery modes "external" and "non-maskable".
        const INPUTS: [(usize, u32); 2] = [(0x350, 7 << 8), (0x360, 4 << 8)];
        let mut lapic = self.fd.get_lapic().tried("read the local APIC")?;
        for (at, mode) in INPUTS {
            for (register, byte) in lapic.regs[at..].iter_mut().zip(mode.to_le_bytes()) {
                *register = byte.cast_signed();
            }
        }
        self.fd.set_lapic(&lapic).tried("set the local APIC")
    }

    /// The frequency of the guest's time-stamp counter, in kHz.
    ///
    /// # Errors
    /// The host has none that is steady.
    pub fn tsc_khz(&self) -> Result<u32, KvmError> {
        self.fd.get_tsc_khz().tried("tell the frequency of the time-stamp counter")
    }

    /// Tells the guest that it has stood still, so that its watchdogs do not bark.
    pub fn tell_of_pause(&self) {
        // Guests without a paravirtual clock are not told.
        let _ = self.fd.kvmclock_ctrl();
    }
}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu").field("id", &self.id).field("exits", &self.exits).finish_non_exhaustive()
    }
}

/// How wide the port instruction is that has just come out.
fn port_width(page: NonNull<kvm_run>) -> usize {
    // SAFETY: the page is mapped, the exit was one of ports, so that field of the union is what the kernel has filled; nobody writes it now.
    let size = unsafe { (*page.as_ptr()).__bindgen_anon_1.io.size };
    host_size(size.into()).clamp(1, 4)
}
