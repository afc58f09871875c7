//! The board's physical addresses and interrupt numbers: those of qemu's `virt` machine, which firmware is built for.

use std::ops::Range;

/// Where RAM begins.
pub const RAM_BASE: u64 = 0x8000_0000;
/// The test device: a word written here powers off or resets the machine.
pub const TEST: Range<u64> = 0x10_0000..0x10_1000;
/// The word that powers the machine off.
pub const TEST_POWER_OFF: u32 = 0x5555;
/// The word that resets the machine.
pub const TEST_RESET: u32 = 0x7777;
/// The goldfish real-time clock.
pub const RTC: Range<u64> = 0x10_1000..0x10_2000;
/// The real-time clock's input at the PLIC.
pub const RTC_INTERRUPT: u32 = 11;
/// Timer and software interrupts of machine mode.
pub const CLINT: Range<u64> = 0x200_0000..0x201_0000;
/// The platform-level interrupt controller.
pub const PLIC: Range<u64> = 0xc00_0000..0xc60_0000;
/// The PLIC's highest input.
pub const INTERRUPT_LAST: u32 = 95;
/// The 16550 serial port.
pub const UART: Range<u64> = 0x1000_0000..0x1000_0100;
/// The serial port's input clock in Hz.
pub const UART_CLOCK_HZ: u32 = 3_686_400;
/// The serial port's input at the PLIC.
pub const UART_INTERRUPT: u32 = 10;
/// How many virtio-mmio slots there are; the first eight are where qemu has them.
pub const VIRTIO_SLOTS: u32 = 32;

/// The registers of virtio-mmio slot `slot`, counted from 0 to [`VIRTIO_SLOTS`].
#[must_use]
pub const fn virtio(slot: u32) -> Range<u64> {
    let start = 0x1000_1000 + 0x1000 * slot as u64;
    start..start + 0x1000
}

/// The input of virtio-mmio slot `slot` at the PLIC.
#[must_use]
pub const fn virtio_interrupt(slot: u32) -> u32 {
    match slot {
        0..8 => 1 + slot,
        8..16 => 16 + slot,
        _ => 20 + slot,
    }
}

/// The configuration spaces of PCI, as ECAM has them.
pub const PCI_ECAM: Range<u64> = 0x3000_0000..0x4000_0000;
/// PCI's ports, which are numbered from 0.
pub const PCI_IO: Range<u64> = 0x300_0000..0x301_0000;
/// PCI's memory below 4 GiB.
pub const PCI_MEMORY: Range<u64> = 0x4000_0000..0x8000_0000;
/// Interrupts A to D of device 0 on the PCI bus are this input of the PLIC and the next three.
pub const PCI_INTERRUPT: u32 = 32;
/// The size of PCI's memory above RAM, and what it is aligned to.
const PCI_HIGH_SIZE: u64 = 16 << 30;

/// PCI's memory above `ram_end`.
#[must_use]
pub const fn pci_high(ram_end: u64) -> Range<u64> {
    let start = ram_end.next_multiple_of(PCI_HIGH_SIZE);
    start..start + PCI_HIGH_SIZE
}
