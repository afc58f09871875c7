//! The Linux ABI machine: riscv64 programs on this host's kernel.
//!
//! ```text
//! program (ELF) --elf, start--> space <-----harts (riscv)
//!                                 ^            | ecall, fault, attention
//!                                 |            v
//!                               calls <---- process: the loop of each thread
//!              direct, files, event, net, time, thread, exec, signal
//!                                 |
//!                          the host's kernel
//! ```
//!
//! The guest's kernel is the host's: both are Linux, so a system call is mapped, not implemented. Threads are threads, processes are processes,
//! descriptors and signals are the host's own. What differs is few structures, the numbers of calls, and everything that has to do with registers:
//! the program's start, signal frames, and `clone`.
//!
//! Raw system calls are made here as nowhere else but in `machine::sys`: they are what this crate is about.
//!
//! Invariants: no guest value is used as a host address without [`space::AddressSpace::translate`]; whatever a guest passes, the answer is an error
//! number or a signal to the guest.

pub mod binfmt;
pub mod calls;
pub mod crash;
pub mod debug;
pub mod direct;
pub mod elf;
pub mod event;
pub mod exec;
pub mod files;
pub mod hold;
pub mod hwprobe;
pub mod net;
pub(crate) mod proc;
pub mod process;
pub mod run;
pub mod signal;
pub mod space;
pub mod start;
pub mod strace;
pub mod sys;
pub mod sysroot;
pub mod thread;
pub mod time;
pub mod vdso;
