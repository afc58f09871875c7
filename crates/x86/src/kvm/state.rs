//! What a machine's processors, interrupt controllers and clock are at one moment: taken from one machine, put into a new one.
//!
//! The values are the kernel's own structures, whose layout it promises for ever, so a state can be kept and moved. Guest RAM and device models are not in it.
//!
//! Order matters when a processor is restored: what it is (CPUID) decides which of its registers exist; its local APIC must be there before
//! the registers that the APIC's timer is in (`IA32_TSC_DEADLINE`); events come last, since some of the others clear them.

use kvm_bindings::{
    KVM_CLOCK_TSC_STABLE, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, kvm_clock_data,
    kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

use super::{IrqChip, KvmError, Tried, Vcpu, Vm};

/// The version of [`VcpuState`] and [`VmState`]; others are refused.
pub const VERSION: u32 = 1;
/// How many model-specific registers KVM takes in one call.
pub(super) const MSRS_AT_ONCE: usize = 128;
const IA32_TSC: u32 = 0x10;
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// Why a state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another version.
    #[error(
        "the state is of version {0}, and this isomorph reads version {VERSION}; restore it with the isomorph that saved it"
    )]
    Version(u32),
    /// Another kind of machine.
    #[error(
        "the state is of a machine with other interrupt controllers; restore it with the flags that it was saved with"
    )]
    AnotherMachine,
    /// This host's counter is another's, and cannot be made the same.
    #[error(
        "the guest counts at {guest_khz} kHz, this host at {host_khz} kHz and cannot scale; restore it on a host of the same kind"
    )]
    Frequency {
        /// What the guest knows.
        guest_khz: u32,
        /// What the host has.
        host_khz: u32,
    },
    /// The guest counts on what this host's processor cannot do.
    #[error(
        "this host's processor lacks what the guest was shown ({0}); go on on a host that has it, or give guests a named model (--cpu) from the beginning"
    )]
    Lacks(String),
    /// The host refuses.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// One processor.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// [`VERSION`].
    pub version: u32,
    /// What it says of itself.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// Whether it runs, waits, or was never started.
    pub mp_state: kvm_mp_state,
    /// General registers.
    pub registers: kvm_regs,
    /// Segments and control registers.
    pub system_registers: kvm_sregs,
    /// Floating-point and vector registers, as XSAVE has them.
    pub xsave: kvm_xsave,
    /// Which of those are in use.
    pub xcrs: kvm_xcrs,
    /// Debug registers.
    pub debug_registers: kvm_debugregs,
    /// The local APIC.
    pub lapic: kvm_lapic_state,
    /// Model-specific registers by number.
    pub msrs: Vec<(u32, u64)>,
    /// Exceptions and interrupts under way.
    pub events: kvm_vcpu_events,
    /// The frequency of its time-stamp counter in kHz; zero if the host could not tell.
    pub tsc_khz: u32,
}

/// What the processors share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmState {
    /// [`VERSION`].
    pub version: u32,
    /// The paravirtual clock.
    pub clock: kvm_clock_data,
    /// The controllers in the kernel, if they are there.
    pub chips: Option<ChipsState>,
}

/// The interrupt controllers and the timer in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChipsState {
    /// The pair of 8259, and the I/O APIC.
    pub controllers: [kvm_irqchip; 3],
    /// The 8254.
    pub timer: kvm_pit_state2,
}

impl Vcpu {
    /// The processor's state, while it stands still. `msr_indices` is what [`Vm::save_vcpu`] knows.
    fn save(&self, msr_indices: &[u32]) -> Result<VcpuState, KvmError> {
        let cpuid = self.cpuid()?;
        // Asking for this settles what the others say of a processor that is about to be started.
        let mp_state = self.fd.get_mp_state().tried("read whether the processor runs")?;
        Ok(VcpuState {
            version: VERSION,
            cpuid,
            mp_state,
            registers: self.registers()?,
            system_registers: self.system_registers()?,
            xsave: self.fd.get_xsave().tried("read extended registers")?,
            xcrs: self.fd.get_xcrs().tried("read extended control registers")?,
            debug_registers: self.fd.get_debug_regs().tried("read debug registers")?,
            lapic: self.fd.get_lapic().tried("read the local APIC")?,
            msrs: self.msrs(msr_indices)?,
            events: self.fd.get_vcpu_events().tried("read events")?,
            tsc_khz: self.tsc_khz().unwrap_or(0),
        })
    }

    /// Reads the registers that can be read; KVM also lists some that this processor lacks.
    fn msrs(&self, indices: &[u32]) -> Result<Vec<(u32, u64)>, KvmError> {
        let mut values = Vec::with_capacity(indices.len());
        let mut rest = indices;
        while !rest.is_empty() {
            let part = &rest[..rest.len().min(MSRS_AT_ONCE)];
            let entries: Vec<_> =
                part.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
            let what = "read model-specific registers";
            let mut msrs = Msrs::from_entries(&entries)
                .map_err(|_| KvmError { what, cause: std::io::ErrorKind::InvalidInput.into() })?;
            // It stops at the first that it cannot read.
            let count = self.fd.get_msrs(&mut msrs).tried(what)?;
            values.extend(msrs.as_slice()[..count].iter().map(|entry| (entry.index, entry.data)));
            rest = &rest[(if count < part.len() { count + 1 } else { count })..];
        }
        Ok(values)
    }

    /// Puts the processor into a state that another had. It has not run yet.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn restore(&self, state: &VcpuState) -> Result<(), RestoreError> {
        if state.version != VERSION {
            return Err(RestoreError::Version(state.version));
        }
        self.restore_frequency(state.tsc_khz)?;
        self.set_cpuid(&state.cpuid)?;
        self.fd.set_mp_state(state.mp_state).tried("set whether the processor runs")?;
        self.set_registers(&state.registers)?;
        self.set_system_registers(&state.system_registers)?;
        // SAFETY: no dynamic features are switched on for guests here, so KVM reads no more than the structure.
        unsafe { self.fd.set_xsave(&state.xsave) }.tried("set extended registers")?;
        self.fd.set_xcrs(&state.xcrs).tried("set extended control registers")?;
        self.fd.set_debug_regs(&state.debug_registers).tried("set debug registers")?;
        self.fd.set_lapic(&state.lapic).tried("set the local APIC")?;
        // The counter before the deadline that is compared with it, and that after all else of the APIC.
        let rank = |index| match index {
            IA32_TSC => 0,
            IA32_TSC_DEADLINE => 2,
            _ => 1,
        };
        let mut msrs = state.msrs.clone();
        msrs.sort_by_key(|(index, _)| rank(*index));
        self.restore_msrs(&msrs)?;
        self.fd.set_vcpu_events(&state.events).tried("set events")?;
        Ok(())
    }

    /// Some registers can be read and not written, or written only with the value that they have.
    fn restore_msrs(&self, values: &[(u32, u64)]) -> Result<(), KvmError> {
        if self.set_msrs(values).is_ok() {
            return Ok(());
        }
        let now = self.msrs(&values.iter().map(|(index, _)| *index).collect::<Vec<_>>())?;
        for value in values {
            if !now.contains(value) {
                self.set_msrs(std::slice::from_ref(value))?;
            }
        }
        Ok(())
    }

    fn restore_frequency(&self, guest_khz: u32) -> Result<(), RestoreError> {
        let host_khz = self.tsc_khz().unwrap_or(0);
        // Clocks of the same kind differ by what they were measured with: a 250 millionth part of a second in a second is no lie.
        let near = guest_khz.abs_diff(host_khz) <= host_khz / 4000;
        if guest_khz == 0 || host_khz == 0 || near {
            return Ok(());
        }
        self.fd.set_tsc_khz(guest_khz).map_err(|_| RestoreError::Frequency { guest_khz, host_khz })
    }
}

impl Vm {
    /// The state of one of the machine's processors, which stands still.
    ///
    /// # Errors
    /// The host refuses.
    pub fn save_vcpu(&self, vcpu: &Vcpu) -> Result<VcpuState, KvmError> {
        vcpu.save(self.msr_indices())
    }

    /// The state that the processors share, while they stand still.
    ///
    /// # Errors
    /// The host refuses.
    pub fn save(&self) -> Result<VmState, KvmError> {
        let clock = self.clock()?;
        let chips = match self.irqchip {
            IrqChip::Split => None,
            IrqChip::Kernel => {
                let chip = |chip_id| {
                    let mut chip = kvm_irqchip { chip_id, ..Default::default() };
                    self.fd.get_irqchip(&mut chip).tried("read an interrupt controller")?;
                    Ok(chip)
                };
                Some(ChipsState {
                    controllers: [
                        chip(KVM_IRQCHIP_PIC_MASTER)?,
                        chip(KVM_IRQCHIP_PIC_SLAVE)?,
                        chip(KVM_IRQCHIP_IOAPIC)?,
                    ],
                    timer: self.fd.get_pit2().tried("read the timer")?,
                })
            }
        };
        Ok(VmState { version: VERSION, clock, chips })
    }

    /// Puts the machine into a state that another had. Its processors come after it.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn restore(&self, state: &VmState) -> Result<(), RestoreError> {
        if state.version != VERSION {
            return Err(RestoreError::Version(state.version));
        }
        match (&state.chips, self.irqchip) {
            (None, IrqChip::Split) => {}
            (Some(chips), IrqChip::Kernel) => {
                for chip in &chips.controllers {
                    self.fd.set_irqchip(chip).tried("set an interrupt controller")?;
                }
                self.fd.set_pit2(&chips.timer).tried("set the timer")?;
            }
            _ => return Err(RestoreError::AnotherMachine),
        }
        self.set_clock(&state.clock)?;
        Ok(())
    }

    /// The paravirtual clock: nanoseconds of the machine's life.
    ///
    /// # Errors
    /// The host refuses.
    pub fn clock(&self) -> Result<kvm_clock_data, KvmError> {
        let mut clock = self.fd.get_clock().tried("read the clock")?;
        // What the flags say is of this host and moment.
        clock.flags &= !KVM_CLOCK_TSC_STABLE;
        Ok(clock)
    }

    /// Lets the paravirtual clock go on from `clock`.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_clock(&self, clock: &kvm_clock_data) -> Result<(), KvmError> {
        let clock = kvm_clock_data { clock: clock.clock, ..Default::default() };
        self.fd.set_clock(&clock).tried("set the clock")
    }
}
