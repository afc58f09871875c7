//! What devices need of the host. Device models consume these traits; `disk`, `network` and the command provide them.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// A disk: a fixed number of bytes that survive the machine.
///
/// Ranges are checked by the caller against [`Self::size`] and need no alignment. Calls may come from several threads at once.
pub trait BlockBackend: Send + Sync {
    /// The disk's size in bytes; constant while the machine runs.
    fn size(&self) -> u64;

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;

    /// Fills `bytes` from `offset`.
    ///
    /// # Errors
    /// The host could not read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. Durable only after [`Self::flush`].
    ///
    /// # Errors
    /// The host could not write.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written before the call is on the platter.
    ///
    /// # Errors
    /// The host could not make it durable.
    fn flush(&self) -> io::Result<()>;

    /// The range's content is no longer needed; it then reads as anything.
    ///
    /// # Errors
    /// The host failed; "cannot discard" is not a failure.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes the range read as zeroes, giving its space back to the host if `unmap`.
    ///
    /// # Errors
    /// The host could not write.
    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()>;

    /// The file that is the disk, byte for byte, for who has the host's kernel do several requests at a time; `None` if there is none, or it is not to be used so.
    /// What the kernel refuses, or does in part only, is asked of [`Self::read_at`] and [`Self::write_at`] again.
    fn queueable(&self) -> Option<Queueable<'_>> {
        None
    }
}

/// A disk's file for requests that are queued.
#[derive(Clone, Copy, Debug)]
pub struct Queueable<'a> {
    /// The file.
    pub file: &'a File,
    /// Whether a flush means anything.
    pub flushes: bool,
}

/// What of a frame its sender has left undone, since no wire is between that needs it done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// The checksum of TCP or UDP: its field holds the sum of the pseudo-header.
    pub checksum: Option<Partial>,
    /// If not zero, the frame is TCP and stands for several, of at most this many bytes of payload each. Then the checksum is unfinished too.
    pub segment_bytes: u16,
}

/// A checksum that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Where in the frame what is summed begins; it goes on to the frame's end.
    pub start: u16,
    /// Where its field is, from there.
    pub offset: u16,
}

/// What of a frame may be left undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums.
    pub checksum: bool,
    /// Cutting TCP over IPv4 into segments.
    pub segment_v4: bool,
    /// Cutting TCP over IPv6 into segments.
    pub segment_v6: bool,
}

/// Takes Ethernet frames (without checksum trailer) on behalf of a guest.
pub trait FrameSink: Send + Sync {
    /// Gives the guest a frame. False if it has no room now: the frame is the caller's to drop or to keep for
    /// [`NetworkBackend::ready`].
    fn receive(&self, frame: &[u8]) -> bool;

    /// What may be left undone in [`Self::receive_unfinished`]; as the guest's driver has it now.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    /// As [`Self::receive`], of a frame that lacks no more than [`Self::offloads`] has said. One that lacks more, since the guest's driver has just been reset, is
    /// lost.
    fn receive_unfinished(&self, frame: &[u8], unfinished: Unfinished) -> bool {
        unfinished != Unfinished::default() || self.receive(frame)
    }
}

/// A network that a guest's interface is plugged into.
pub trait NetworkBackend: Send + Sync {
    /// Takes a frame that the guest sent. Never blocks for long; a frame that there is no room for is dropped.
    fn send(&self, frame: &[u8]);

    /// What of a frame the network does not need to be done; constant. It gets such frames by [`Self::send`]: it knows how to take them as they are.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    /// The largest packet (a frame without its Ethernet header) that the network takes and gives, in bytes; constant.
    fn mtu(&self) -> u16;

    /// Plugs the guest's interface in: frames for it go to `sink` from now on.
    fn attach(&self, sink: Arc<dyn FrameSink>);

    /// The guest has room for frames again after a [`FrameSink::receive`] that answered false.
    fn ready(&self);
}

/// Takes characters on behalf of a guest.
pub trait CharacterSink: Send + Sync {
    /// Gives the guest characters; answers how many it took. The rest waits for [`CharacterBackend::ready`].
    fn receive(&self, bytes: &[u8]) -> usize;

    /// The terminal now has this many columns and rows.
    fn resize(&self, columns: u16, rows: u16);
}

/// A terminal or a file at the other end of a console.
pub trait CharacterBackend: Send + Sync {
    /// Takes characters that the guest printed. May block for as long as the terminal does.
    fn send(&self, bytes: &[u8]);

    /// Plugs the guest's console in: characters for it go to `sink` from now on.
    fn attach(&self, sink: Arc<dyn CharacterSink>);

    /// The guest has room for characters again after a [`CharacterSink::receive`] that took less than all.
    fn ready(&self);
}
