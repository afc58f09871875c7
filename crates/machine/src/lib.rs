//! What every Isomorph machine has, whatever its kind.
//!
//! The crate is the bottom of the house: it uses no other crate of the workspace, and the traits by which
//! the rooms above meet without knowing each other live here.
//!
//! | module | what |
//! |---|---|
//! | [`address`] | newtypes for guest and host addresses |
//! | [`memory`] | guest RAM behind a frame table; the one place that touches it |
//! | [`bus`] | memory-mapped devices and their address ranges |
//! | [`interrupt`] | level-triggered interrupt lines |
//! | [`clock`] | the only source of time: monotonic, stoppable; and the wall clock |
//! | [`entropy`] | the only source of randomness |
//! | [`backend`] | what a device needs of the host: blocks, frames, characters |
//! | [`record`] | what came into a machine from outside, and when: the file of `--record` and `--replay` |
//! | [`gate`] | how the processors of a machine are made to stand still |
//! | [`debug`] | what debuggers and machines tell each other |
//! | [`lifecycle`] | created, running, paused, stopped, and the verbs between them |
//! | [`permissions`] | what a process machine's guest may reach of the host |
//! | [`snapshot`] | the state of a machine of any kind, in a directory |
//! | [`sys`] | raw host calls |

pub mod address;
pub mod backend;
pub mod bus;
pub mod clock;
pub mod debug;
pub mod entropy;
pub mod gate;
pub mod interrupt;
pub mod lifecycle;
pub mod memory;
pub mod permissions;
pub mod record;
pub mod snapshot;
pub mod sys;

pub use address::{GuestPhysical, GuestVirtual, PAGE_SIZE};
