//! Virtio block device: a disk.
//!
//! Specification: virtio 1.2, section 5.2.
//!
//! Each queue has a thread that does blocking I/O on the backend. It takes a batch of requests, parses each once into a command, joins reads and writes of
//! neighbouring sectors into one call, and moves data through one buffer of its own that stays in the host's cache. The driver sees what is
//! done before anything slow begins and after every 128 KiB. Where the disk is a file and the host allows it, the host's kernel moves the data by itself instead,
//! for many requests at a time (`ring`).
//!
//! Durability: a flush is acknowledged when the backend's flush has returned, and covers every write acknowledged before it on any queue. A driver that
//! does not know of flushes (`VIRTIO_BLK_F_FLUSH`) gets each write made durable before it is acknowledged (section 5.2.6.2). A reset returns after the request in work is
//! done; those not begun never happen.

use std::fmt;
use std::io;
use std::sync::Arc;

use machine::backend::BlockBackend;
use machine::memory::GuestMemory;
use machine::sys::Bell;

use self::ring::Rings;
use super::queue::{Chain, Queue, QueueError, State};
use super::server::{QueueServer, Serve};
use super::{Activation, VirtioDevice, read_config_bytes};
use crate::state::{self, StateError};
use crate::worker::{Crew, Turn};

const DEVICE_ID: u32 = 2;
const SECTOR_BYTES: u64 = 512;
const QUEUE_SIZE: u16 = 256;
/// Room for a whole queue beside header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// The most ranges of one discard or write-zeroes request.
const RANGES_MAX: u32 = 16;
/// The most that one read, write or range covers: 1 GiB, so that no request takes for ever.
const REQUEST_BYTES_MAX: u64 = 1 << 30;
const RANGE_SECTORS_MAX: u32 = 1 << 21;
const SERIAL_BYTES: usize = 20;
const HEADER_BYTES: u64 = 16;
const RANGE_BYTES: u64 = 16;

/// Requests taken at a time.
const BATCH_COUNT: usize = 64;
/// The buffer of each queue, and the most that is joined into one call.
const BUFFER_BYTES: usize = 256 << 10;
/// Finished requests are shown to the driver after this much data.
const PUBLISH_BYTES: u64 = 128 << 10;

mod ring;

mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const READ_ONLY: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    pub(super) const MULTI_QUEUE: u64 = 1 << 12;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// What is to become of a request (section 5.2.6): the status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = 0,
    /// The device or the driver is at fault.
    IoError = 1,
    Unsupported = 2,
}

/// A request, parsed and checked against the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Read {
        offset: u64,
        length: u64,
    },
    Write {
        offset: u64,
        length: u64,
    },
    Flush,
    GetId,
    /// The ranges follow the header.
    Discard {
        ranges_count: u64,
    },
    WriteZeroes {
        ranges_count: u64,
    },
    Refuse(Status),
}

/// One range of a discard or write-zeroes request, checked.
struct Range {
    offset: u64,
    length: u64,
    unmap: bool,
}

fn split<const N: usize>(bytes: &[u8; 16], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// The part of the disk that sectors `sector .. sector + length / 512` are, if there is one.
fn locate(disk_bytes: u64, sector: u64, length: u64) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR_BYTES)?;
    let end = offset.checked_add(length)?;
    let allowed = length.is_multiple_of(SECTOR_BYTES) && length <= REQUEST_BYTES_MAX && end <= disk_bytes;
    allowed.then_some(offset)
}

impl Command {
    /// Parses the request in `chain`, whose last writable byte is for the status.
    fn parse(chain: &Chain, memory: &GuestMemory, disk_bytes: u64, read_only: bool) -> Result<Self, QueueError> {
        let room = chain.writable_bytes().checked_sub(1).ok_or(QueueError::Room)?;
        let mut header = [0; 16];
        if chain.read(memory, 0, &mut header) < header.len() {
            return Ok(Self::Refuse(Status::IoError));
        }
        let sector = u64::from_le_bytes(split(&header, 8));
        let given = chain.readable_bytes() - HEADER_BYTES;
        let ranges_count = given / RANGE_BYTES;
        let ranges_fit = given.is_multiple_of(RANGE_BYTES) && ranges_count > 0 && ranges_count <= u64::from(RANGES_MAX);
        Ok(match (u32::from_le_bytes(split(&header, 0)), read_only) {
            (0, _) => locate(disk_bytes, sector, room)
                .map_or(Self::Refuse(Status::IoError), |offset| Self::Read { offset, length: room }),
            (1, false) => locate(disk_bytes, sector, given)
                .map_or(Self::Refuse(Status::IoError), |offset| Self::Write { offset, length: given }),
            (4, _) => Self::Flush,
            (8, _) => Self::GetId,
            (11, false) if ranges_fit => Self::Discard { ranges_count },
            (13, false) if ranges_fit => Self::WriteZeroes { ranges_count },
            (1 | 11 | 13, _) => Self::Refuse(Status::IoError),
            _ => Self::Refuse(Status::Unsupported),
        })
    }

    /// How many bytes of data it moves.
    fn data_bytes(&self) -> u64 {
        match *self {
            Self::Read { length, .. } | Self::Write { length, .. } => length,
            _ => 0,
        }
    }

    /// Whether `next` goes on where `self` ends, in the same direction, or repeats a flush.
    fn joins(&self, next: &Self) -> bool {
        match (*self, *next) {
            (Self::Read { offset, length }, Self::Read { offset: next, .. })
            | (Self::Write { offset, length }, Self::Write { offset: next, .. }) => offset + length == next,
            (Self::Flush, Self::Flush) => true,
            _ => false,
        }
    }
}

struct Request {
    chain: Chain,
    command: Command,
}

/// Serves one queue.
struct Server {
    backend: Arc<dyn BlockBackend>,
    serial: [u8; SERIAL_BYTES],
    disk_bytes: u64,
    /// As many as were ever needed at once; their memory is used again.
    requests: Vec<Request>,
    buffer: Box<[u8]>,
    queueing: Queueing,
}

/// Whether the host's kernel does requests by itself.
enum Queueing {
    Not,
    /// It is to be tried, by the queue's thread.
    Wanted(Arc<Bell>),
    By(Box<Rings>),
}

/// How many requests at the beginning of `requests` one call to the backend can do.
fn group_count(requests: &[Request]) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for pair in requests.windows(2) {
        bytes += pair[0].command.data_bytes();
        if !pair[0].command.joins(&pair[1].command) || bytes + pair[1].command.data_bytes() > BUFFER_BYTES as u64 {
            break;
        }
        count += 1;
    }
    count + 1
}

impl Server {
    fn take(&mut self, queue: &mut Queue) -> Result<usize, QueueError> {
        let read_only = self.backend.is_read_only();
        let mut count = 0;
        while count < BATCH_COUNT {
            if count == self.requests.len() {
                self.requests.push(Request { chain: Chain::default(), command: Command::Flush });
            }
            let request = &mut self.requests[count];
            if !queue.pop(&mut request.chain)? {
                break;
            }
            request.command = Command::parse(&request.chain, queue.memory(), self.disk_bytes, read_only)?;
            count += 1;
        }
        Ok(count)
    }

    /// Reads what `requests` (one, or several that join and fit into the buffer) ask for.
    fn read(&mut self, memory: &GuestMemory, start: usize, count: usize, offset: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let size = usize::try_from(length - done).unwrap_or(usize::MAX).min(self.buffer.len());
            let buffer = &mut self.buffer[..size];
            self.backend.read_at(offset + done, buffer)?;
            if let [request] = &self.requests[start..start + count] {
                request.chain.write(memory, done, buffer);
            } else {
                let mut rest = &*buffer;
                for request in &self.requests[start..start + count] {
                    let part = usize::try_from(request.command.data_bytes()).unwrap_or(usize::MAX).min(rest.len());
                    request.chain.write(memory, 0, &rest[..part]);
                    rest = &rest[part..];
                }
            }
            done += size as u64;
        }
        Ok(())
    }

    /// Writes what `requests` (as for `read`) give.
    fn write(&mut self, memory: &GuestMemory, start: usize, count: usize, offset: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let size = usize::try_from(length - done).unwrap_or(usize::MAX).min(self.buffer.len());
            let buffer = &mut self.buffer[..size];
            if let [request] = &self.requests[start..start + count] {
                request.chain.read(memory, HEADER_BYTES + done, buffer);
            } else {
                let mut rest = &mut *buffer;
                for request in &self.requests[start..start + count] {
                    let part = usize::try_from(request.command.data_bytes()).unwrap_or(usize::MAX).min(rest.len());
                    let (mine, others) = rest.split_at_mut(part);
                    request.chain.read(memory, HEADER_BYTES, mine);
                    rest = others;
                }
            }
            self.backend.write_at(offset + done, buffer)?;
            done += size as u64;
        }
        Ok(())
    }

    fn ranges(
        &self,
        memory: &GuestMemory,
        index: usize,
        count: u64,
        flags_allowed: u32,
        action: impl Fn(Range) -> io::Result<()>,
    ) -> Status {
        let chain = &self.requests[index].chain;
        let range = |number: u64| -> Result<Range, Status> {
            let mut bytes = [0; 16];
            chain.read(memory, HEADER_BYTES + RANGE_BYTES * number, &mut bytes);
            let sectors_count = u32::from_le_bytes(split(&bytes, 8));
            let flags = u32::from_le_bytes(split(&bytes, 12));
            if flags & !flags_allowed != 0 {
                return Err(Status::Unsupported);
            }
            let length = u64::from(sectors_count) * SECTOR_BYTES;
            let offset = locate(self.disk_bytes, u64::from_le_bytes(split(&bytes, 0)), length);
            Ok(Range { offset: offset.ok_or(Status::IoError)?, length, unmap: flags & 1 != 0 })
        };
        // Nothing is done unless all of it can be.
        for number in 0..count {
            if let Err(status) = range(number) {
                return status;
            }
        }
        for number in 0..count {
            let done = range(number).and_then(|range| action(range).map_err(|_| Status::IoError));
            if let Err(status) = done {
                return status;
            }
        }
        Status::Ok
    }

    /// Carries out `count` requests from `start` on, which join.
    fn execute(&mut self, queue: &Queue, start: usize, count: usize) -> Status {
        let memory = queue.memory();
        let length = self.requests[start..start + count].iter().map(|request| request.command.data_bytes()).sum();
        let done = match self.requests[start].command {
            Command::Read { offset, .. } => self.read(memory, start, count, offset, length),
            Command::Write { offset, .. } => self.write(memory, start, count, offset, length).and_then(|()| {
                let write_through = queue.features() & feature::FLUSH == 0;
                if write_through { self.backend.flush() } else { Ok(()) }
            }),
            Command::Flush => self.backend.flush(),
            Command::GetId => {
                // The status byte follows the identifier, which a short buffer cuts off.
                let chain = &self.requests[start].chain;
                let room = usize::try_from(chain.writable_bytes() - 1).unwrap_or(usize::MAX).min(SERIAL_BYTES);
                chain.write(memory, 0, &self.serial[..room]);
                Ok(())
            }
            Command::Discard { ranges_count } => {
                return self
                    .ranges(memory, start, ranges_count, 0, |range| self.backend.discard(range.offset, range.length));
            }
            Command::WriteZeroes { ranges_count } => {
                return self.ranges(memory, start, ranges_count, 1, |range| {
                    self.backend.write_zeroes(range.offset, range.length, range.unmap)
                });
            }
            Command::Refuse(status) => return status,
        };
        if done.is_ok() { Status::Ok } else { Status::IoError }
    }

    fn complete(&self, queue: &mut Queue, index: usize, status: Status) -> Result<(), QueueError> {
        let Request { chain, command } = &self.requests[index];
        let last = chain.writable_bytes().checked_sub(1).ok_or(QueueError::Room)?;
        chain.write(queue.memory(), last, &[status as u8]);
        let data = match (command, status) {
            (Command::Read { .. } | Command::GetId, Status::Ok) => last,
            _ => 0,
        };
        queue.add_used(chain, u32::try_from(data + 1).unwrap_or(u32::MAX))
    }
}

impl Serve for Server {
    fn serve(&mut self, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        match std::mem::replace(&mut self.queueing, Queueing::Not) {
            Queueing::Not => self.serve_batch(queue, turn),
            Queueing::Wanted(bell) => {
                if let Some(rings) = Rings::new(self, bell) {
                    self.queueing = Queueing::By(Box::new(rings));
                }
                self.serve(queue, turn)
            }
            Queueing::By(mut rings) => {
                let served = rings.serve(self, queue, turn);
                self.queueing = Queueing::By(rings);
                served
            }
        }
    }

    fn bell(&self) -> Option<Arc<Bell>> {
        if let Queueing::Wanted(bell) = &self.queueing { Some(Arc::clone(bell)) } else { None }
    }
}

impl Server {
    /// Takes a batch and carries it out, one request or several that join after the other.
    fn serve_batch(&mut self, queue: &mut Queue, turn: &Turn<'_>) -> Result<bool, QueueError> {
        let taken = self.take(queue)?;
        let mut next = 0;
        let mut unpublished_bytes = 0;
        while next < taken {
            if turn.is_over() {
                queue.unpop(u16::try_from(taken - next).unwrap_or(0));
                break;
            }
            let count = group_count(&self.requests[next..taken]);
            let slow = !matches!(
                self.requests[next].command,
                Command::Read { .. } | Command::Write { .. } | Command::GetId | Command::Refuse(_)
            );
            if slow || unpublished_bytes >= PUBLISH_BYTES {
                queue.publish()?;
                unpublished_bytes = 0;
            }
            let status = self.execute(queue, next, count);
            for index in next..next + count {
                // One bad sector must not fail its neighbours.
                let status = if count > 1 && status != Status::Ok { self.execute(queue, index, 1) } else { status };
                unpublished_bytes += self.requests[index].command.data_bytes();
                self.complete(queue, index, status)?;
            }
            next += count;
        }
        queue.publish()?;
        Ok(taken > 0)
    }
}

/// How a disk presents itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the guest finds as the disk's serial number; at most 20 bytes of it.
    pub serial: String,
    /// How many queues, each with a thread of its own: as many as there are harts is right, up to 8 or so. At least one.
    pub queues_count: u16,
}

/// A disk. Put it behind a transport.
pub struct Block {
    servers: Vec<QueueServer>,
    queue_sizes: Vec<u16>,
    features: u64,
    config: [u8; 60],
}

fn put<const N: usize>(config: &mut [u8; 60], at: usize, bytes: [u8; N]) {
    config[at..at + N].copy_from_slice(&bytes);
}

impl Block {
    /// A disk whose content is `backend`'s, in whole sectors of 512 bytes.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(backend: Arc<dyn BlockBackend>, options: &Options, crew: &Crew) -> io::Result<Self> {
        let disk_bytes = backend.size() / SECTOR_BYTES * SECTOR_BYTES;
        let queues_count = options.queues_count.max(1);
        let mut serial = [0; SERIAL_BYTES];
        let given = options.serial.as_bytes();
        let used = given.len().min(SERIAL_BYTES);
        serial[..used].copy_from_slice(&given[..used]);
        let mut features = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
        if queues_count > 1 {
            features |= feature::MULTI_QUEUE;
        }
        features |= if backend.is_read_only() { feature::READ_ONLY } else { feature::DISCARD | feature::WRITE_ZEROES };
        let mut config = [0; 60];
        put(&mut config, 0, (disk_bytes / SECTOR_BYTES).to_le_bytes());
        put(&mut config, 12, SEGMENTS_MAX.to_le_bytes());
        put(&mut config, 20, 512u32.to_le_bytes());
        // Topology: pages of 4 KiB (2^3 sectors) are what the host writes without reading first.
        put(&mut config, 24, [3, 0]);
        put(&mut config, 26, 8u16.to_le_bytes());
        put(&mut config, 34, queues_count.to_le_bytes());
        for at in [36, 48] {
            put(&mut config, at, RANGE_SECTORS_MAX.to_le_bytes());
            put(&mut config, at + 4, RANGES_MAX.to_le_bytes());
        }
        put(&mut config, 44, 8u32.to_le_bytes());
        put(&mut config, 56, [1]);
        let servers = (0..queues_count)
            .map(|number| {
                let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
                let requests = Vec::with_capacity(BATCH_COUNT);
                // Work that is done when a schedule says so is done by then.
                let waits = backend.queueable().is_some() && matches!(crew, Crew::Threads);
                let queueing = if waits { Queueing::Wanted(Arc::new(Bell::new()?)) } else { Queueing::Not };
                let backend = Arc::clone(&backend);
                let server = Server { backend, serial, disk_bytes, requests, buffer, queueing };
                QueueServer::hire(crew, &format!("block-{number}"), server)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { servers, queue_sizes: vec![QUEUE_SIZE; queues_count.into()], features, config })
    }

    /// Waits until every request that the driver has notified of is done; not at all while a pause holds.
    pub fn drain(&self) {
        self.servers.iter().for_each(QueueServer::drain);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("queues_count", &self.servers.len()).finish_non_exhaustive()
    }
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        read_config_bytes(&self.config, offset, bytes);
    }

    fn write_config(&self, _offset: u64, _bytes: &[u8]) {}

    fn activate(&self, activation: Activation) {
        for (server, queue) in self.servers.iter().zip(activation.queues) {
            server.activate(queue);
        }
    }

    fn notify(&self, queue: u16) {
        if let Some(server) = self.servers.get(usize::from(queue)) {
            server.kick();
        }
    }

    fn reset(&self) {
        self.servers.iter().for_each(QueueServer::reset);
    }

    fn pause(&self) {
        self.servers.iter().for_each(QueueServer::pause);
    }

    fn resume(&self) {
        self.servers.iter().for_each(QueueServer::resume);
    }

    fn queue_states(&self) -> Vec<Option<State>> {
        self.servers.iter().map(QueueServer::queue_state).collect()
    }

    fn save(&self) -> state::State {
        state::NOTHING
    }

    fn restore(&self, state: &state::State) -> Result<(), StateError> {
        state::read_nothing(state)
    }
}

#[cfg(test)]
#[path = "tests/block.rs"]
mod tests;
