//! Signals: caught on the host, delivered to the guest where its registers are exact.
//!
//! | module | what |
//! |---|---|
//! | [`host`] | one handler that records, and calls that a signal cannot slip past |
//! | [`action`] | `rt_sigaction`: what a process does with each signal |
//! | [`frame`] | what handlers find on their stack |
//! | [`deliver`] | into a handler, and back |

pub mod action;
pub mod deliver;
pub mod frame;
pub mod host;

pub use deliver::ThreadSignals;
