//! Requests of a queue that the host's kernel carries out by itself, many at a time, straight from and to guest memory.
//!
//! ```text
//! queue --pop--> slot --start--> Ring --ended--> slot --add_used--> queue
//!                  \--what the kernel cannot, or does in part only--> the server's own way
//! ```
//!
//! Requests end in any order, as section 5.2.6 allows. Invariant: when the server's turn is over, none is in flight, so a pause, a reset and a snapshot find a queue
//! in which each request is either not taken or done.

use std::io;
use std::sync::Arc;

use machine::sys::{Bell, Ring, Transfer};

use super::super::queue::{Chain, Queue, QueueError};
use super::{Command, HEADER_BYTES, Request, Server, Status, feature};
use crate::worker::Turn;

/// Requests in flight at once.
const DEPTH: u32 = 128;

/// The ring of one queue's thread.
pub(super) struct Rings {
    ring: Ring,
    bell: Arc<Bell>,
    flushes: bool,
    /// Slots, which are requests of the server's, that no request has.
    free: Vec<u32>,
    ended: Vec<(u32, io::Result<usize>)>,
}

impl Rings {
    /// A ring for the thread that calls this; `None` if the host has none, or the disk is not to be used so.
    pub(super) fn new(server: &mut Server, bell: Arc<Bell>) -> Option<Self> {
        let queueable = server.backend.queueable()?;
        let (file, flushes) = (queueable.file.try_clone().ok()?, queueable.flushes);
        let ring = Ring::new(file, DEPTH, Arc::clone(&bell)).ok()?;
        let request = || Request { chain: Chain::default(), command: Command::Flush };
        server.requests.resize_with(DEPTH as usize, request);
        Some(Self { ring, bell, flushes, free: (0..DEPTH).rev().collect(), ended: Vec::new() })
    }

    /// Serves the queue until it is empty and nothing is in flight. False if it was empty.
    pub(super) fn serve(
        &mut self,
        server: &mut Server,
        queue: &mut Queue,
        turn: &Turn<'_>,
    ) -> Result<bool, QueueError> {
        let result = self.rounds(server, queue, turn);
        if result.is_err() {
            // The driver has broken its queue; the kernel still writes where it was told to.
            self.ring.drain(&mut self.ended);
            self.free = (0..DEPTH).rev().collect();
            self.ended.clear();
        }
        result
    }

    fn rounds(&mut self, server: &mut Server, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        let mut served = false;
        loop {
            served |= self.take(server, queue, turn)?;
            queue.publish()?;
            if self.ring.in_flight_count() == 0 {
                return Ok(served);
            }
            self.bell.announce();
            // Whoever kicks from here on rings the bell.
            let more =
                !self.free.is_empty() && !turn.is_over() && (turn.take_kick() || queue.request_notification()?);
            self.ring.wait(!more, &mut self.ended);
            for (token, result) in self.ended.drain(..) {
                let index = token as usize;
                let status = server.end(queue, index, result);
                server.complete(queue, index, status)?;
                self.free.push(token);
            }
        }
    }

    /// Starts what waits. False if nothing does.
    fn take(&mut self, server: &mut Server, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        let read_only = server.backend.is_read_only();
        let mut taken = false;
        while let Some(token) = self.free.last().copied().filter(|_| !turn.is_over()) {
            let index = token as usize;
            let request = &mut server.requests[index];
            if !queue.pop(&mut request.chain)? {
                break;
            }
            taken = true;
            request.command = Command::parse(&request.chain, queue.memory(), server.disk_bytes, read_only)?;
            if self.start(token, request, queue) {
                self.free.pop();
                continue;
            }
            if !matches!(request.command, Command::GetId | Command::Refuse(_)) {
                // What follows may be slow.
                queue.publish()?;
            }
            let status = server.execute(queue, index, 1);
            server.complete(queue, index, status)?;
        }
        Ok(taken)
    }

    fn start(&mut self, token: u32, request: &Request, queue: &Queue) -> bool {
        let write_through = queue.features() & feature::FLUSH == 0;
        let (transfer, offset, ranges) = match request.command {
            Command::Read { offset, length } => (Transfer::Read, offset, request.chain.writable_ranges(0, length)),
            Command::Write { offset, length } if !write_through => {
                (Transfer::Write, offset, request.chain.readable_ranges(HEADER_BYTES, length))
            }
            Command::Flush if self.flushes => {
                self.ring.start_flush(token);
                return true;
            }
            _ => return false,
        };
        request.command.data_bytes() > 0
            && queue.memory().start_transfer(&mut self.ring, token, transfer, offset, ranges)
    }
}

impl Server {
    /// What became of a request that the kernel says has ended with `result`.
    fn end(&mut self, queue: &Queue, index: usize, result: io::Result<usize>) -> Status {
        let Request { chain, command } = &self.requests[index];
        let wanted = command.data_bytes();
        let whole = result.as_ref().is_ok_and(|moved| *moved as u64 == wanted);
        if let (Command::Read { length, .. }, Ok(_)) = (*command, &result) {
            queue.memory().note_transfer(chain.writable_ranges(0, length));
        }
        match command {
            _ if whole => Status::Ok,
            // A flush that failed may have lost what it was to save; asking again would be told that all is well.
            Command::Flush => Status::IoError,
            _ => self.execute(queue, index, 1),
        }
    }
}

#[cfg(test)]
#[path = "../tests/block_ring.rs"]
mod tests;
