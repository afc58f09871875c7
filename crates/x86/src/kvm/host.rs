//! `/dev/kvm`: whether it can be used, and what it offers.

use std::io;
use std::path::Path;

use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::{KvmError, Tried};

/// Why this host runs no x86-64 machines.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// No device node.
    #[error(
        "there is no /dev/kvm: virtualization is off in the firmware's settings, or the module kvm_intel or kvm_amd is not loaded"
    )]
    Missing,
    /// Not for this user.
    #[error("/dev/kvm is not for this user: join the group that owns it (usermod -aG kvm USER) and log in again")]
    Permission,
    /// Something else.
    #[error("/dev/kvm does not open: {0}")]
    Open(io::Error),
    /// Another interface than the only one there ever was.
    #[error("/dev/kvm has version {0} of its interface, not {KVM_API_VERSION}")]
    Version(i32),
    /// An older kernel.
    #[error("this kernel's KVM lacks {0}: use a newer kernel")]
    Lacks(&'static str),
}

/// What a machine here cannot do without.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "memory of user space"),
    (Cap::Irqchip, "interrupt controllers in the kernel"),
    (Cap::Pit2, "a timer in the kernel"),
    (Cap::SignalMsi, "messages as interrupts"),
    (Cap::Ioeventfd, "event descriptors of doorbells"),
    (Cap::Irqfd, "event descriptors of interrupts"),
    (Cap::ImmediateExit, "immediate exits"),
    (Cap::SetTssAddr, "a place for the task state segment"),
    (Cap::SplitIrqchip, "split interrupt controllers"),
    (Cap::AdjustClock, "a settable clock"),
    (Cap::VcpuEvents, "the state of events"),
    (Cap::Xsave, "the state of extended registers"),
];

/// The host's hypervisor.
#[derive(Debug)]
pub struct Host {
    pub(super) kvm: Kvm,
}

impl Host {
    /// Opens `/dev/kvm`, and checks that it has what machines need.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn open() -> Result<Self, Unusable> {
        let kvm = Kvm::new().map_err(|cause| match io::Error::from_raw_os_error(cause.errno()) {
            cause if cause.kind() == io::ErrorKind::NotFound => Unusable::Missing,
            cause if cause.kind() == io::ErrorKind::PermissionDenied => Unusable::Permission,
            cause => Unusable::Open(cause),
        })?;
        let version = kvm.get_api_version();
        if i64::from(version) != i64::from(KVM_API_VERSION) {
            return Err(Unusable::Version(version));
        }
        match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            Some((_, what)) => Err(Unusable::Lacks(what)),
            None => Ok(Self { kvm }),
        }
    }

    /// Whether guest kernels are interpreted: KVM without the processor's help. Tiny guests run there, operating systems hardly.
    #[must_use]
    pub fn interprets_kernels() -> bool {
        Path::new("/sys/module/kvm_pvm").exists()
    }

    /// The most processors that a machine may have.
    #[must_use]
    pub fn cpus_count_max(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// Whether guests can have a time-stamp counter of another frequency than the host's.
    #[must_use]
    pub fn scales_tsc(&self) -> bool {
        self.kvm.check_extension(Cap::TscControl)
    }

    /// What the host's processor and KVM can offer to guests, leaf by leaf.
    ///
    /// # Errors
    /// The host refuses.
    pub fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        const TSC_DEADLINE: u32 = 1 << 24;
        let cpuid = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).tried("tell what the processor supports")?;
        let mut leaves = cpuid.as_slice().to_vec();
        // The one feature that is told of elsewhere, as it needs KVM's local APICs. Without it guests measure the APIC's timer when they start.
        if self.kvm.check_extension(Cap::TscDeadlineTimer) {
            leaves.iter_mut().filter(|leaf| leaf.function == 1).for_each(|leaf| leaf.ecx |= TSC_DEADLINE);
        }
        Ok(leaves)
    }

    /// The model-specific registers whose values make up a part of a processor's state.
    ///
    /// # Errors
    /// The host refuses.
    pub fn msr_indices(&self) -> Result<Vec<u32>, KvmError> {
        let list = self.kvm.get_msr_index_list().tried("list model-specific registers")?;
        Ok(list.as_slice().to_vec())
    }
}
