//! Seeing into machines: the gdb remote protocol, traces, symbols.
//!
//! | module | what |
//! |---|---|
//! | [`crash`] | the registers and callers of a thread that cannot go on |
//! | [`debuggee`] | what can be debugged: a machine of any kind, by threads, registers and memory |
//! | [`perf`] | translated code by name, for Linux's `perf` |
//! | [`riscv64`], [`amd64`] | the registers of processors as gdb numbers and describes them |
//! | [`server`] | where debuggers connect: one after the other, for as long as the machine lives |
//! | [`symbols`] | names and lines of source for guest addresses |
//! | [`system`] | a whole system machine as a debuggee: one thread for each processor |
//! | [`trace`] | a line for each executed instruction |
//! | [`unwind`] | who called whom |
//!
//! The engines stop and watch ([`riscv::hart::debug`]); this crate speaks. What comes over the wire is as hostile as any guest: the worst it can do is what
//! a debugger may, which is everything inside the machine and nothing outside.

pub mod amd64;
mod connection;
pub mod crash;
pub mod debuggee;
pub mod perf;
pub mod riscv64;
pub mod server;
pub mod symbols;
pub mod system;
mod target;
pub mod trace;
pub mod unwind;
