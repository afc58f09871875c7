//! Raw host calls. Everything above uses these safe wrappers.

mod code;
pub mod fence;
pub mod file;
mod mapping;
mod poll;
mod program;
mod ring;
mod sockets;
mod thread;
mod time;

pub use code::CodeMapping;
pub use mapping::{Mapping, discard_at, forbid_at, map_file, map_file_over, physical_memory, reserve_at};
pub use poll::{Event, Poller, Waker};
pub use program::forget_text;
pub use ring::{Bell, HostPiece, Ring, Transfer};
pub use sockets::{PingSocket, close_with_reset, connect_datagrams, connect_stream, descriptors_max, send_vectored};
pub use thread::thread;
pub use time::{process_time_ns, thread_time_ns};
