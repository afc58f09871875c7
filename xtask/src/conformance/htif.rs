//! The host-target interface of Berkeley's RISC-V tools: what a test says by writing to `tohost`.
//!
//! ```text
//! 63     56 55     48 47                    0
//! | device | command | payload              |     0, 0, odd:    the test has ended with code payload >> 1; 0 is success
//!                                                 0, 0, even:   a system call; the payload is the address of eight words:
//!                                                               number, arguments; the first becomes the result
//!                                                 1, 1, byte:   print the byte
//! ```
//!
//! The test sets `tohost` to zero before it waits for a free host; the host sets it to zero when it has taken what was there, and answers a system
//! call by setting `fromhost` to one.

use machine::GuestPhysical;
use machine::memory::{GuestMemory, OutOfRange};

/// Linux's numbers of the system calls that tests make.
const WRITE: u64 = 64;
const EXIT: u64 = 93;
/// Linux's error number of a call that does not exist.
const ENOSYS: u64 = 38;

/// The most that a test prints before the rest is dropped, in bytes.
const PRINTED_MAX: usize = 64 << 10;

/// The host's end of the interface.
#[derive(Debug)]
pub(super) struct Host {
    to_host: GuestPhysical,
    from_host: Option<GuestPhysical>,
    printed: Vec<u8>,
}

impl Host {
    /// The end for a test with these words.
    pub(super) fn new(to_host: GuestPhysical, from_host: Option<GuestPhysical>) -> Self {
        Self { to_host, from_host, printed: Vec::new() }
    }

    /// What the test printed.
    pub(super) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed).into_owned()
    }

    /// Takes what the test has said since the last look. The answer is its code, once it has ended.
    ///
    /// # Errors
    /// An address is not that of an aligned word in memory.
    pub(super) fn look(&mut self, memory: &GuestMemory) -> Result<Option<u64>, OutOfRange> {
        let said: u64 = memory.load(self.to_host)?;
        let (device, command, payload) = (said >> 56, said >> 48 & 0xff, said & ((1 << 48) - 1));
        match (device, command) {
            _ if said == 0 => return Ok(None),
            (0, 0) if payload & 1 == 1 => return Ok(Some(payload >> 1)),
            (0, 0) => {
                if let Some(code) = self.system_call(memory, GuestPhysical(payload))? {
                    return Ok(Some(code));
                }
                memory.store(self.to_host, 0_u64)?;
                if let Some(from_host) = self.from_host {
                    memory.store(from_host, 1_u64)?;
                }
            }
            _ => {
                if (device, command) == (1, 1) {
                    self.print(&payload.to_le_bytes()[..1]);
                }
                memory.store(self.to_host, 0_u64)?;
            }
        }
        Ok(None)
    }

    /// Serves the call described at `block`; the answer is the code of an exit.
    fn system_call(&mut self, memory: &GuestMemory, block: GuestPhysical) -> Result<Option<u64>, OutOfRange> {
        let word = |index: u64| memory.load::<u64>(block.wrapping_add(8 * index));
        let result = match word(0)? {
            EXIT => return Ok(Some(word(1)?)),
            WRITE => {
                let (at, length) = (GuestPhysical(word(2)?), word(3)?);
                let taken = usize::try_from(length).unwrap_or(usize::MAX).min(PRINTED_MAX);
                let mut bytes = vec![0; taken];
                memory.read(at, &mut bytes)?;
                self.print(&bytes);
                length
            }
            _ => ENOSYS.wrapping_neg(),
        };
        memory.store(block, result)?;
        Ok(None)
    }

    fn print(&mut self, bytes: &[u8]) {
        let room = PRINTED_MAX - self.printed.len();
        self.printed.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_HOST: GuestPhysical = GuestPhysical(0x1000);
    const FROM_HOST: GuestPhysical = GuestPhysical(0x1008);
    const BLOCK: GuestPhysical = GuestPhysical(0x1100);
    const TEXT: GuestPhysical = GuestPhysical(0x1200);

    fn memory() -> GuestMemory {
        GuestMemory::new(GuestPhysical(0x1000), 0x1000).unwrap()
    }

    #[test]
    fn an_odd_word_ends_the_test() {
        let (memory, mut host) = (memory(), Host::new(TO_HOST, None));
        assert_eq!(host.look(&memory), Ok(None));
        memory.store(TO_HOST, 1_u64).unwrap();
        assert_eq!(host.look(&memory), Ok(Some(0)));
        memory.store(TO_HOST, 2 * 7 + 1_u64).unwrap();
        assert_eq!(host.look(&memory), Ok(Some(7)));
    }

    #[test]
    fn characters_and_writes_are_printed() {
        let (memory, mut host) = (memory(), Host::new(TO_HOST, Some(FROM_HOST)));
        memory.store(TO_HOST, 0x0101_0000_0000_0000 | u64::from(b'>')).unwrap();
        assert_eq!(host.look(&memory), Ok(None));
        assert_eq!((memory.load(TO_HOST), memory.load(FROM_HOST)), (Ok(0_u64), Ok(0_u64)));
        memory.write(TEXT, b"hello").unwrap();
        for (index, word) in [WRITE, 1, TEXT.0, 5].into_iter().enumerate() {
            memory.store(BLOCK.wrapping_add(8 * index as u64), word).unwrap();
        }
        memory.store(TO_HOST, BLOCK.0).unwrap();
        assert_eq!(host.look(&memory), Ok(None));
        assert_eq!(host.printed(), ">hello");
        assert_eq!((memory.load(TO_HOST), memory.load(FROM_HOST)), (Ok(0_u64), Ok(1_u64)));
        assert_eq!(memory.load(BLOCK), Ok(5_u64));
    }

    #[test]
    fn an_exit_call_ends_the_test_and_an_unknown_one_is_refused() {
        let (memory, mut host) = (memory(), Host::new(TO_HOST, Some(FROM_HOST)));
        memory.store(BLOCK, 9999_u64).unwrap();
        memory.store(TO_HOST, BLOCK.0).unwrap();
        assert_eq!(host.look(&memory), Ok(None));
        assert_eq!(memory.load::<u64>(BLOCK).map(u64::cast_signed), Ok(-38));
        memory.store(BLOCK, EXIT).unwrap();
        memory.store(BLOCK.wrapping_add(8), 3_u64).unwrap();
        memory.store(TO_HOST, BLOCK.0).unwrap();
        assert_eq!(host.look(&memory), Ok(Some(3)));
    }

    #[test]
    fn addresses_outside_memory_are_refused() {
        let (memory, mut host) = (memory(), Host::new(TO_HOST, None));
        memory.store(TO_HOST, 0x10_0000_u64).unwrap();
        assert!(host.look(&memory).is_err());
        memory.store(BLOCK, WRITE).unwrap();
        memory.store(BLOCK.wrapping_add(16), 0x1ff0_u64).unwrap();
        memory.store(BLOCK.wrapping_add(24), u64::MAX).unwrap();
        memory.store(TO_HOST, BLOCK.0).unwrap();
        assert!(host.look(&memory).is_err());
        assert!(Host::new(GuestPhysical(0x1001), None).look(&memory).is_err());
    }
}
