//! Where things are: the addresses and ports of the board.
//!
//! ```text
//! 0x00_0000_0000  RAM; the last 128 KiB below 1 MiB are for tables
//! 0x00_c000_0000  window of PCI, for 32-bit registers
//! 0x00_e000_0000  ECAM of PCI
//! 0x00_fec0_0000  I/O APIC, local APICs (KVM's)
//! 0x00_feff_b000  the generation ID
//! 0x00_ffxx_xxxx  firmware up to 4 GiB, if there is any, and its variables below it
//! 0x01_0000_0000  more RAM
//! 0x40_0000_0000  window of PCI, for 64-bit registers
//! ```

use std::ops::Range;

/// Addresses below 4 GiB that are not RAM.
pub const HOLE: Range<u64> = 0xc000_0000..0x1_0000_0000;
/// PCI's registers of 32 bits.
pub const PCI_LOW: Range<u64> = 0xc000_0000..0xe000_0000;
/// PCI's configuration spaces.
pub const PCI_ECAM: Range<u64> = 0xe000_0000..0xe010_0000;
/// PCI's registers of 64 bits; RAM ends below it.
pub const PCI_HIGH: Range<u64> = 0x40_0000_0000..0x50_0000_0000;
/// PCI's ports.
pub const PCI_PORTS: Range<u64> = 0xc000..0x1_0000;
/// The I/O APIC of KVM.
pub const IOAPIC: u32 = 0xfec0_0000;
/// The local APICs of KVM.
pub const LOCAL_APIC: u32 = 0xfee0_0000;

/// Firmware for the chipset that it takes the board for places PCI's registers between RAM, or 2 GiB, and here.
pub const FIRMWARE_PCI_LOW: Range<u64> = 0x8000_0000..0xfc00_0000;
/// And behind RAM up to here.
pub const FIRMWARE_PCI_HIGH_END: u64 = 1 << 48;
/// The most that a firmware image and its variables may take.
pub const FIRMWARE_BYTES_MAX: u64 = 16 << 20;
/// The page with the machine's generation ID, which only the board writes.
pub const GENERATION: u64 = 0xfeff_b000;

/// Tables for the guest's kernel, in RAM that it must not use.
pub const TABLES: Range<u64> = 0xe_0000..0x10_0000;
/// RAM that kernels do not find strange to be without, from here to 1 MiB.
pub const LOW_RAM_END: u64 = 0x9_fc00;

/// Ports of the configuration mechanism of PCI.
pub const PCI_CONFIG_PORT: u64 = 0xcf8;
/// The port that resets the machine, in the middle of the former: a byte, which configuration addresses never are.
pub const RESET_PORT: u16 = 0xcf9;
/// The serial port, `ttyS0`.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Its interrupt.
pub const SERIAL_INTERRUPT: u32 = 4;
/// The real-time clock.
pub const CLOCK_PORT: u64 = 0x70;
/// Commands of a keyboard controller.
pub const KEYBOARD_PORT: u64 = 0x64;
/// Power management: where firmware for this kind of board looks for it.
pub const POWER_PORT: u16 = 0xb000;
/// Its interrupt.
pub const POWER_INTERRUPT: u32 = 9;
/// What firmware is told about the machine.
pub const FIRMWARE_CONFIG_PORT: u16 = 0x510;
/// Where kernels tell that they have failed.
pub const PANIC_PORT: u16 = 0x505;
/// The interrupts of INTA# to INTD# of PCI: inputs of the I/O APIC that nothing of old has.
pub const PCI_INTERRUPTS: [u32; 4] = [16, 17, 18, 19];
/// The general-purpose event that tells of a new generation.
pub const GENERATION_EVENT: u8 = 5;
