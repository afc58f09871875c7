//! The transceiver between the card and the cable: a Marvell 88E1011 with its link at 1000 Mb/s, behind the management interface (MDIO).
//!
//! Specification: IEEE 802.3, clause 22 and 40 (registers 0 to 15); 8254x Software Developer's Manual, section 13.4.7 (MDIC) and appendix on PHY registers.

use serde::{Deserialize, Serialize};

/// Bits of MDIC.
mod mdic {
    pub(super) const WRITE: u32 = 1 << 26;
    pub(super) const READ: u32 = 2 << 26;
    pub(super) const OPERATION: u32 = 3 << 26;
    pub(super) const READY: u32 = 1 << 28;
    pub(super) const INTERRUPT: u32 = 1 << 29;
    pub(super) const ERROR: u32 = 1 << 30;
}

/// The address of the only transceiver.
const ADDRESS: u32 = 1;

/// Numbers of registers.
mod register {
    pub(super) const CONTROL: usize = 0;
    pub(super) const STATUS: usize = 1;
    pub(super) const EXPANSION: usize = 6;
    pub(super) const GIGABIT_STATUS: usize = 10;
    pub(super) const SPECIFIC_STATUS: usize = 17;
    pub(super) const INTERRUPT_STATUS: usize = 19;
}

mod control {
    pub(super) const RESET: u16 = 1 << 15;
    pub(super) const LOOPBACK: u16 = 1 << 14;
    pub(super) const RESTART: u16 = 1 << 9;
    pub(super) const POWER_DOWN: u16 = 1 << 11;
}

mod status {
    pub(super) const LINK: u16 = 1 << 2;
    pub(super) const NEGOTIATED: u16 = 1 << 5;
}

/// What the registers hold after a reset, and which bits of them can be written.
const REGISTERS: [(u16, u16); 32] = {
    let mut registers = [(0, 0); 32];
    // Negotiates; 1000 Mb/s, full duplex.
    registers[0] = (0x1140, 0x7dc0);
    // All of 10 and 100 Mb/s, extended status, able to negotiate.
    registers[1] = (0x7949, 0);
    registers[2] = (0x0141, 0);
    registers[3] = (0x0c20, 0);
    registers[4] = (0x0de1, 0xffff);
    // What the other end can do: all, and it has acknowledged.
    registers[5] = (0x45e1, 0);
    registers[6] = (0x0005, 0);
    registers[7] = (0x2001, 0xffff);
    registers[9] = (0x0e00, 0xff00);
    registers[10] = (0x3c00, 0);
    registers[15] = (0x3000, 0);
    registers[16] = (0x0360, 0xffff);
    // 1000 Mb/s, full duplex, resolved.
    registers[17] = (0xa800, 0);
    registers[18] = (0, 0xffff);
    registers[20] = (0x0c74, 0xffff);
    registers[24] = (0x4100, 0xffff);
    registers[29] = (0, 0x001f);
    registers[30] = (0, 0xffff);
    registers
};

/// What a write is to have as its effect outside the registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The driver wants an interrupt when the access is done.
    pub done: bool,
    /// The link was negotiated anew.
    pub negotiated: bool,
}

/// The transceiver: plain data, what a snapshot saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phy {
    registers: [u16; 32],
    mdic: u32,
    /// Whether the cable is plugged in.
    pub cable: bool,
}

impl Phy {
    /// After power-on.
    #[must_use]
    pub fn new(cable: bool) -> Self {
        Self { registers: REGISTERS.map(|(value, _)| value), mdic: mdic::READY, cable }
    }

    /// Whether there is a link.
    #[must_use]
    pub fn has_link(&self) -> bool {
        self.cable && self.registers[register::CONTROL] & control::POWER_DOWN == 0
    }

    /// Whether what is sent comes back.
    #[must_use]
    pub fn loops_back(&self) -> bool {
        self.registers[register::CONTROL] & control::LOOPBACK != 0
    }

    fn read(&mut self, number: usize) -> u16 {
        let value = self.registers.get(number).copied().unwrap_or(0);
        let link = self.has_link();
        match number {
            register::STATUS if link => value | status::LINK | status::NEGOTIATED,
            register::EXPANSION if !link => value & !1,
            register::GIGABIT_STATUS if !link => 0,
            register::SPECIFIC_STATUS => value | if link { 1 << 10 } else { 0 },
            register::INTERRUPT_STATUS => std::mem::take(&mut self.registers[number]),
            _ => value,
        }
    }

    /// Answers whether the link was negotiated anew.
    fn write(&mut self, number: usize, value: u16) -> bool {
        let Some((fresh, writable)) = REGISTERS.get(number) else { return false };
        self.registers[number] = (fresh & !writable) | (value & writable);
        if number != register::CONTROL {
            return false;
        }
        if value & control::RESET != 0 {
            self.registers = REGISTERS.map(|(value, _)| value);
        }
        // It takes no time, so the bits that say that it is under way are never seen.
        self.registers[number] &= !(control::RESET | control::RESTART);
        value & (control::RESTART | control::RESET) != 0 && self.has_link()
    }

    /// Reads MDIC.
    #[must_use]
    pub fn read_mdic(&self) -> u32 {
        self.mdic
    }

    /// Writes MDIC: reads or writes a register, at once.
    pub fn write_mdic(&mut self, value: u32) -> Effect {
        let mut effect = Effect { done: value & mdic::INTERRUPT != 0, negotiated: false };
        let number = usize::try_from(value >> 16 & 31).unwrap_or(0);
        let data = u16::try_from(value & 0xffff).unwrap_or(0);
        let head = value & !(0xffff | mdic::READY | mdic::ERROR);
        self.mdic = match value & mdic::OPERATION {
            _ if value >> 21 & 31 != ADDRESS => head | mdic::ERROR,
            mdic::READ => head | u32::from(self.read(number)),
            mdic::WRITE => {
                effect.negotiated = self.write(number, data);
                head | u32::from(data)
            }
            _ => head | mdic::ERROR,
        };
        self.mdic |= mdic::READY;
        effect
    }
}
