//! A function's configuration space as the guest is to see it, made of what the device's own says.
//!
//! Specification: PCI Local Bus 3.0, chapter 6; PCI Express Base 5.0, section 7.5.
//!
//! Identity, base address registers and most capabilities are the device's. Messages are Isomorph's own, since a message of the guest's is not one of the host's;
//! MSI is left out of a device with MSI-X, which has all that MSI has.

use devices::pci::msi;
use devices::pci::{Bar, BarKind, Capability, Identity, Layout};

/// What of the configuration space is looked at.
pub const CONFIG_BYTES: usize = 256;

mod id {
    pub(super) const POWER: u8 = 0x01;
    pub(super) const MSI: u8 = 0x05;
    pub(super) const VENDOR: u8 = 0x09;
    pub(super) const EXPRESS: u8 = 0x10;
    pub(super) const MSIX: u8 = 0x11;
}

fn half(config: &[u8; CONFIG_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([config[at], config[at + 1]])
}

fn word(config: &[u8; CONFIG_BYTES], at: usize) -> u32 {
    u32::from(half(config, at)) | u32::from(half(config, at + 2)) << 16
}

/// Identifiers and places of the capabilities, in their order. A list that is a loop ends.
fn capabilities(config: &[u8; CONFIG_BYTES]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    let mut at = usize::from(config[0x34] & !3);
    // The status register says whether there is a list.
    while config[0x06] & 0x10 != 0 && (0x40..=0xfc).contains(&at) && found.len() < 48 {
        found.push((config[at], at));
        at = usize::from(config[at + 1] & !3);
    }
    found
}

/// The MSI-X tables, if the device has them.
fn msix(config: &[u8; CONFIG_BYTES], at: usize) -> Option<msi::Place> {
    if at + 12 > CONFIG_BYTES {
        return None;
    }
    let (table, pending) = (word(config, at + 4), word(config, at + 8));
    let bar = |word: u32| word.to_le_bytes()[0] & 7;
    Some(msi::Place {
        vectors_count: (half(config, at + 2) & 0x7ff) + 1,
        bar: bar(table),
        table: table & !7,
        pending_bar: bar(pending),
        pending: pending & !7,
    })
}

/// How many bytes of a capability, from its identifier on, are copied.
fn copied_bytes(config: &[u8; CONFIG_BYTES], kind: u8, at: usize) -> Option<usize> {
    match kind {
        id::POWER => Some(8),
        id::VENDOR => Some(usize::from(*config.get(at + 2)?)).filter(|length| *length >= 3),
        // By the version of the capability.
        id::EXPRESS => Some(if config[at + 2] & 15 >= 2 { 0x3c } else { 0x14 }),
        _ => None,
    }
    .filter(|length| at + length <= CONFIG_BYTES)
}

/// The layout for `config`, where base address register `n` has `sizes[n]` bytes behind it. `None` if nobody has answered.
#[must_use]
pub fn layout(config: &[u8; CONFIG_BYTES], sizes: [u64; 6]) -> Option<Layout> {
    if half(config, 0) == 0xffff || half(config, 0) == 0 {
        return None;
    }
    let identity = Identity {
        vendor: half(config, 0x00),
        device: half(config, 0x02),
        revision: config[0x08],
        class: word(config, 0x08) >> 8,
        subsystem_vendor: half(config, 0x2c),
        subsystem: half(config, 0x2e),
    };
    let mut bars: Vec<Bar> = Vec::new();
    for number in 0..6u8 {
        let size = sizes[usize::from(number)];
        let kind = match config[0x10 + 4 * usize::from(number)] & 7 {
            kind if kind & 1 != 0 => BarKind::Io,
            4 => BarKind::Memory64,
            _ => BarKind::Memory32,
        };
        let upper_half = bars.last().is_some_and(|bar| bar.kind == BarKind::Memory64 && bar.number + 1 == number);
        if size >= 16 && size.is_power_of_two() && !upper_half && !(kind == BarKind::Memory64 && number == 5) {
            bars.push(Bar { number, kind, size });
        }
    }
    let list = capabilities(config);
    let tables =
        list.iter().find(|(kind, _)| *kind == id::MSIX).and_then(|(_, at)| msix(config, *at)).filter(|place| {
            let fits = |bar: u8, end: u64| bars.iter().any(|other| other.number == bar && end <= other.size);
            fits(place.bar, place.table_range().end) && fits(place.pending_bar, place.pending_range().end)
        });
    let mut capabilities = Vec::new();
    let mut room = CONFIG_BYTES - 0x40;
    for (kind, at) in list {
        let (capability, length) = match (kind, &tables) {
            (id::MSIX, Some(place)) => (Capability::Msix(*place), 12),
            (id::MSI, None) => (Capability::Msi, 16),
            _ => match copied_bytes(config, kind, at) {
                Some(length) => (Capability::Copied { id: kind, body: config[at + 2..at + length].to_vec() }, length),
                None => continue,
            },
        };
        // Each once, but for the vendor's.
        let again = kind != id::VENDOR
            && capabilities.iter().any(|other| {
                std::mem::discriminant(other) == std::mem::discriminant(&capability) && *other == capability
            });
        let length = length.next_multiple_of(4);
        if length <= room && !again {
            room -= length;
            capabilities.push(capability);
        }
    }
    Some(Layout { identity, bars, capabilities, has_interrupt: config[0x3d] != 0, ..Layout::default() })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A network card's: power management, MSI, MSI-X and PCI Express.
    pub(crate) fn card() -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &[0x86, 0x80, 0x72, 0x15]);
        put(0x06, &[0x10, 0]);
        put(0x08, &[2, 0, 0, 2]);
        put(0x10, &[0x0c]);
        put(0x18, &[0x01]);
        put(0x1c, &[0x0c]);
        put(0x2c, &[0x86, 0x80, 7, 0]);
        put(0x34, &[0x40]);
        put(0x3d, &[1]);
        put(0x40, &[1, 0x50, 3, 0]);
        put(0x50, &[5, 0x70, 0x80, 0]);
        put(0x70, &[0x11, 0xa0, 0x80, 0x80, 3, 0, 0, 0, 3, 0x20, 0, 0]);
        put(0xa0, &[0x10, 0xa0, 2, 0]);
        config
    }

    const SIZES: [u64; 6] = [1 << 20, 0, 32, 1 << 14, 0, 0];

    #[test]
    fn a_card_keeps_what_it_is() {
        let layout = layout(&card(), SIZES).unwrap();
        assert_eq!(
            (layout.identity.vendor, layout.identity.device, layout.identity.class),
            (0x8086, 0x1572, 0x02_00_00)
        );
        let bars: Vec<_> = layout.bars.iter().map(|bar| (bar.number, bar.kind, bar.size)).collect();
        let expected = [(0, BarKind::Memory64, 1 << 20), (2, BarKind::Io, 32), (3, BarKind::Memory64, 1 << 14)];
        assert_eq!(bars, expected);
        let place = msi::Place { vectors_count: 0x81, bar: 3, table: 0, pending_bar: 3, pending: 0x2000 };
        assert_eq!(layout.capabilities[1], Capability::Msix(place));
        assert!(matches!(&layout.capabilities[0], Capability::Copied { id: 1, body } if body.len() == 6));
        assert!(matches!(&layout.capabilities[2], Capability::Copied { id: 0x10, body } if body.len() == 0x3a));
        assert_eq!(layout.capabilities.len(), 3, "no MSI beside MSI-X, and a loop in the list ends");
    }

    #[test]
    fn tables_that_are_nowhere_leave_msi() {
        let mut sizes = SIZES;
        sizes[3] = 0;
        let layout = layout(&card(), sizes).unwrap();
        assert!(layout.capabilities.contains(&Capability::Msi));
        assert!(!layout.capabilities.iter().any(|capability| matches!(capability, Capability::Msix(_))));
        assert_eq!(super::layout(&[0xff; CONFIG_BYTES], SIZES), None);
    }

    proptest! {
        /// Whatever a device says of itself, a configuration space can be made of it.
        #[test]
        fn any_device_has_a_space(bytes in proptest::collection::vec(any::<u8>(), CONFIG_BYTES), shifts in [0u32..40, 0..40, 0..40, 0..40, 0..40, 0..40]) {
            let mut config = [0; CONFIG_BYTES];
            config.copy_from_slice(&bytes);
            if let Some(layout) = layout(&config, shifts.map(|shift| 1 << shift)) {
                let space = devices::pci::config::ConfigSpace::new(&layout, true);
                prop_assert_eq!(space.bars().len(), layout.bars.len());
            }
        }
    }
}
