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
    if slot < 8 { 1 + slot } else { 16 + slot }
}
