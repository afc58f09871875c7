//! Memory-mapped devices: a trait, and the table of address ranges that dispatches to them.
//!
//! The table is built before a machine starts and never changes while it runs, so look-up takes no lock.

use std::sync::Arc;

use crate::address::GuestPhysical;

/// How wide a device access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Half = 2,
    /// 32 bits.
    Word = 4,
    /// 64 bits.
    Double = 8,
}

impl Width {
    /// The width in bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self as u64
    }

    /// The width of `bytes` bytes, if there is one.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Half),
            4 => Some(Self::Word),
            8 => Some(Self::Double),
            _ => None,
        }
    }

    /// `value` cut to this width, zero-extended.
    #[must_use]
    pub const fn truncate(self, value: u64) -> u64 {
        match self {
            Self::Double => value,
            _ => value & ((1 << (8 * self as u32)) - 1),
        }
    }
}

/// A device on the bus. Accesses come from any hart's thread, naturally aligned and inside the device's range.
///
/// A device answers every access: unknown registers read as zero and ignore writes, as hardware does.
pub trait BusDevice: Send + Sync {
    /// Reads `width` bytes at `offset` from the start of the device's range; zero-extended.
    fn read(&self, offset: u64, width: Width) -> u64;

    /// Writes the low `width` bytes of `value` at `offset` from the start of the device's range.
    fn write(&self, offset: u64, width: Width, value: u64);
}

/// The range asked for overlaps that of the named device.
#[derive(Debug, thiserror::Error)]
#[error("device {new} at {base}+{size:#x} overlaps {old}")]
pub struct Overlap {
    new: String,
    old: String,
    base: GuestPhysical,
    size: u64,
}

struct Slot {
    base: u64,
    size: u64,
    name: String,
    device: Arc<dyn BusDevice>,
}

/// The address ranges of a machine's devices, sorted by base.
#[derive(Default)]
pub struct Bus {
    slots: Vec<Slot>,
}

impl Bus {
    /// A bus without devices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps `device` at `base .. base + size`.
    ///
    /// # Errors
    /// The range overlaps one already mapped.
    pub fn map(
        &mut self,
        name: &str,
        base: GuestPhysical,
        size: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), Overlap> {
        let at = self.slots.partition_point(|slot| slot.base < base.0);
        let before = at.checked_sub(1).map(|i| &self.slots[i]).filter(|s| s.base + s.size > base.0);
        let after = self.slots.get(at).filter(|s| s.base - base.0 < size);
        if let Some(old) = before.or(after) {
            return Err(Overlap { new: name.into(), old: old.name.clone(), base, size });
        }
        self.slots.insert(at, Slot { base: base.0, size, name: name.into(), device });
        Ok(())
    }

    fn find(&self, at: GuestPhysical, width: Width) -> Option<(&dyn BusDevice, u64)> {
        let index = self.slots.partition_point(|slot| slot.base <= at.0).checked_sub(1)?;
        let slot = &self.slots[index];
        let offset = at.0 - slot.base;
        (offset < slot.size && slot.size - offset >= width.bytes()).then_some((&*slot.device, offset))
    }

    /// Whether there is a device at `at`.
    #[must_use]
    pub fn contains(&self, at: GuestPhysical) -> bool {
        self.find(at, Width::Byte).is_some()
    }

    /// Reads from the device at `at`; `None` if there is none, or if the access crosses the end of its range.
    #[must_use]
    pub fn read(&self, at: GuestPhysical, width: Width) -> Option<u64> {
        let (device, offset) = self.find(at, width)?;
        Some(device.read(offset, width))
    }

    /// Writes to the device at `at`; `None` if there is none, or if the access crosses the end of its range.
    #[must_use]
    pub fn write(&self, at: GuestPhysical, width: Width, value: u64) -> Option<()> {
        let (device, offset) = self.find(at, width)?;
        device.write(offset, width, value);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;
    impl BusDevice for Echo {
        fn read(&self, offset: u64, _: Width) -> u64 {
            offset
        }
        fn write(&self, _: u64, _: Width, _: u64) {}
    }

    #[test]
    fn dispatches_by_range_and_refuses_overlap() {
        let mut bus = Bus::new();
        bus.map("b", GuestPhysical(0x2000), 0x100, Arc::new(Echo)).unwrap();
        bus.map("a", GuestPhysical(0x1000), 0x1000, Arc::new(Echo)).unwrap();
        assert!(bus.map("c", GuestPhysical(0x20ff), 1, Arc::new(Echo)).is_err());
        assert!(bus.map("c", GuestPhysical(0xfff), 2, Arc::new(Echo)).is_err());
        assert_eq!(bus.read(GuestPhysical(0x1ffc), Width::Word), Some(0xffc));
        assert_eq!(bus.read(GuestPhysical(0x2004), Width::Word), Some(4));
        assert_eq!(bus.read(GuestPhysical(0x20fe), Width::Word), None, "crosses the end");
        assert_eq!(bus.read(GuestPhysical(0x3000), Width::Byte), None);
        assert_eq!(bus.read(GuestPhysical(0), Width::Byte), None);
        assert!(bus.contains(GuestPhysical(0x20ff)) && !bus.contains(GuestPhysical(0x2100)));
    }
}
