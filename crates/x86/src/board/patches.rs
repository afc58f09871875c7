//! Instructions of the guest's that `int3` stands for, while a debugger wants more breakpoints than a processor has registers.
//!
//! Who asks for memory on behalf of a debugger sees the guest's own bytes, and a snapshot has them.

use std::collections::BTreeMap;

use machine::GuestPhysical;
use machine::memory::GuestMemory;

/// `int3`
const BREAKPOINT: u8 = 0xcc;

/// The bytes that are not in memory meanwhile, by their physical addresses.
#[derive(Debug, Default)]
pub(super) struct Patches(BTreeMap<u64, u8>);

impl Patches {
    /// Puts one at `at`. False if there is no memory.
    pub(super) fn put(&mut self, memory: &GuestMemory, at: GuestPhysical) -> bool {
        if self.0.contains_key(&at.0) {
            return true;
        }
        let Ok(own) = memory.load::<u8>(at) else { return false };
        let put = memory.store(at, BREAKPOINT).is_ok();
        if put {
            self.0.insert(at.0, own);
        }
        put
    }

    /// Takes all away, but for those that the guest has written over, whose code is another now.
    pub(super) fn remove_all(&mut self, memory: &GuestMemory) {
        for (at, own) in std::mem::take(&mut self.0) {
            if memory.load::<u8>(GuestPhysical(at)) == Ok(BREAKPOINT) {
                // It could be read.
                let _ = memory.store(GuestPhysical(at), own);
            }
        }
    }

    /// Memory is another than it was.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Puts the guest's own bytes into `bytes`, which were read at `at`.
    pub(super) fn hide(&self, at: GuestPhysical, bytes: &mut [u8]) {
        for (patched, own) in self.0.range(at.0..) {
            let index = usize::try_from(patched - at.0).unwrap_or(usize::MAX);
            match bytes.get_mut(index) {
                Some(byte) if *byte == BREAKPOINT => *byte = *own,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// A debugger writes `bytes` at `at`. False if part of that is not memory.
    pub(super) fn write(&mut self, memory: &GuestMemory, at: GuestPhysical, bytes: &[u8]) -> bool {
        let mut written = bytes.to_vec();
        for (patched, own) in self.0.range_mut(at.0..) {
            let index = usize::try_from(patched - at.0).unwrap_or(usize::MAX);
            let Some(byte) = written.get_mut(index) else { break };
            *own = std::mem::replace(byte, BREAKPOINT);
        }
        memory.write(at, &written).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map;

    #[test]
    fn the_guests_own_bytes_are_seen_and_come_back() {
        let memory = GuestMemory::mapped(1 << 20, map::HOLE).unwrap();
        memory.write(GuestPhysical(0x1000), &[1, 2, 3, 4, 5]).unwrap();
        let mut patches = Patches::default();
        for at in [0x1001, 0x1003, 0x1003] {
            assert!(patches.put(&memory, GuestPhysical(at)));
        }
        assert!(!patches.put(&memory, GuestPhysical(1 << 40)));
        let raw = || {
            let mut bytes = [0; 5];
            memory.read(GuestPhysical(0x1000), &mut bytes).unwrap();
            bytes
        };
        let seen = |patches: &Patches| {
            let mut bytes = raw();
            patches.hide(GuestPhysical(0x1000), &mut bytes);
            bytes
        };
        assert_eq!((raw(), seen(&patches)), ([1, 0xcc, 3, 0xcc, 5], [1, 2, 3, 4, 5]));
        assert!(patches.write(&memory, GuestPhysical(0x1002), &[30, 40]));
        assert_eq!((raw(), seen(&patches)), ([1, 0xcc, 30, 0xcc, 5], [1, 2, 30, 40, 5]));
        // The guest writes other code.
        memory.store(GuestPhysical(0x1001), 20u8).unwrap();
        assert_eq!(seen(&patches), [1, 20, 30, 40, 5]);
        patches.remove_all(&memory);
        assert_eq!((raw(), seen(&patches)), ([1, 20, 30, 40, 5], [1, 20, 30, 40, 5]));
    }
}
