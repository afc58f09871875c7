//! Raw host calls. Everything above uses these safe wrappers.

mod code;
pub mod file;
mod mapping;
mod poll;
mod sockets;

pub use code::CodeMapping;
pub use mapping::Mapping;
pub use poll::{Event, Poller, Waker};
pub use sockets::{PingSocket, close_with_reset, connect_datagrams, connect_stream, descriptors_max, send_vectored};
