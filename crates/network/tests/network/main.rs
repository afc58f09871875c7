//! The network as a guest sees it: smoltcp's stack on one side, real sockets on loopback on the other.

mod guest;
mod hostile;
mod names;
mod packets;
mod publish;
mod tcp;
