//! x86-64 machines on KVM.
//!
//! The guest's instructions are executed by the host's processor; this crate is what is around it.
//!
//! | module | what |
//! |---|---|
//! | [`kvm`] | the host's hypervisor: machines, processors, their states |
//! | [`map`] | where things are |
//! | [`tables`] | ACPI |
//! | [`boot`] | kernels: how they get into RAM, and how the first processor begins |
//! | [`vfio`] | devices of the host, given to the guest |
//! | [`board`] | the machine: memory, devices, threads, life |

pub mod board;
pub mod boot;
pub mod kvm;
pub mod map;
pub mod tables;
pub mod vfio;
