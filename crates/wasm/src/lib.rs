//! WebAssembly machines: the guest is a module (WASI preview 1) or a component (WASI preview 2), the engine is wasmtime.
//!
//! ```text
//!  file: .wasm, .wat --> Program --(cache of compiled code)--> module or component
//!                                                                   |
//!  Settings (arguments, permissions, limits) --> WASI context --> store --> thread of the machine: start, pause, stop
//!                                                                   |
//!                                                   serve: one store for each request, from a pool
//! ```
//!
//! A guest runs as a task on a thread of its own. What interrupts it is the engine's *epoch*: compiled code looks at one word at
//! loop back-edges and calls, and yields to the task that drives it when the word has moved. So pausing is not polling, stopping is
//! dropping, and both work in the middle of an endless loop.
//!
//! Invariants: a guest reaches what its [`Permissions`](machine::permissions::Permissions) name and nothing else; what it does wrong ends it with one line and
//! a backtrace, never this process; compiled code is loaded only from the cache, and only if its checksum is right, since code cannot be
//! checked for harm.
//!
//! Cost: with its code in the cache, a module starts in about a millisecond; an epoch check is a load and a branch that is predicted.

mod cache;
mod exposed;
mod limits;
mod process;
mod program;
mod serve;
mod settings;
mod snapshot;
mod trap;
mod wasi;

pub use cache::Cache;
pub use process::Process;
pub use program::{Host, LoadError, Program, is_wasm};
pub use serve::{Server, ServerControl, ServerError};
pub use settings::{BadVolume, Settings, Volume};
