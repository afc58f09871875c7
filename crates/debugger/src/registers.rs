//! The registers of a hart, as gdb numbers and describes them.
//!
//! Numbers are those that gdb gives to RISC-V registers by itself: x0 to x31 from 0, pc 32, f0 to f31 from 33, control and status register `n` at
//! 65 + `n`, the privilege mode behind the last of them. A stop transfers the first 65; others travel when asked for.

use std::fmt::Write;
use std::num::NonZeroUsize;

use gdbstub::arch::{Arch, RegId, Registers};
use riscv::hart::{Hart, Privilege};
use riscv::isa::{csr, registers};

const PC: usize = 32;
const FIRST_FLOAT: usize = 33;
const FIRST_CSR: usize = 65;
const PRIVILEGE: usize = FIRST_CSR + 4096;

/// RV64, to `gdbstub`.
pub(crate) enum Riscv64 {}

impl Arch for Riscv64 {
    type Usize = u64;
    type Registers = Core;
    /// The length of the instruction that a breakpoint would replace, which nothing here does.
    type BreakpointKind = usize;
    type RegId = Register;
}

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    Integer(u8),
    Pc,
    Float(u8),
    Csr(u16),
    Privilege,
}

impl RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let byte = |number: usize| u8::try_from(number).ok();
        let register = match id {
            0..PC => Self::Integer(byte(id)?),
            PC => Self::Pc,
            FIRST_FLOAT..FIRST_CSR => Self::Float(byte(id - FIRST_FLOAT)?),
            FIRST_CSR..PRIVILEGE => Self::Csr(u16::try_from(id - FIRST_CSR).ok()?),
            PRIVILEGE => Self::Privilege,
            _ => return None,
        };
        Some((register, NonZeroUsize::new(8)))
    }
}

impl Register {
    /// Its value; `None` if it does not exist.
    pub(crate) fn read(self, hart: &Hart) -> Option<u64> {
        Some(match self {
            Self::Integer(number) => hart.x(number),
            Self::Pc => hart.pc(),
            Self::Float(number) => hart.f(number),
            Self::Csr(number) => return hart.csr(number),
            Self::Privilege => hart.privilege() as u64,
        })
    }

    /// Sets it; false if it does not exist or takes no such value.
    pub(crate) fn write(self, hart: &mut Hart, value: u64) -> bool {
        match self {
            Self::Integer(number) => hart.set_x(number, value),
            Self::Pc => hart.set_pc(value),
            Self::Float(number) => hart.set_f(number, value),
            Self::Csr(number) => return hart.set_csr(number, value),
            Self::Privilege => hart.set_privilege(match value {
                0 => Privilege::User,
                1 => Privilege::Supervisor,
                3 => Privilege::Machine,
                _ => return false,
            }),
        }
        true
    }
}

/// The registers that every stop transfers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Core {
    x: [u64; 32],
    pc: u64,
    f: [u64; 32],
}

impl Core {
    pub(crate) fn read(hart: &Hart) -> Self {
        let mut core = Self { pc: hart.pc(), ..Self::default() };
        for number in 0..32_u8 {
            core.x[usize::from(number)] = hart.x(number);
            core.f[usize::from(number)] = hart.f(number);
        }
        core
    }

    pub(crate) fn write(&self, hart: &mut Hart) {
        hart.set_pc(self.pc);
        for number in 0..32_u8 {
            hart.set_x(number, self.x[usize::from(number)]);
            hart.set_f(number, self.f[usize::from(number)]);
        }
    }
}

impl Registers for Core {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for value in self.x.iter().chain([&self.pc]).chain(&self.f) {
            value.to_le_bytes().into_iter().for_each(|byte| write_byte(Some(byte)));
        }
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (words, rest) = bytes.as_chunks::<8>();
        if words.len() < FIRST_CSR || !rest.is_empty() {
            return Err(());
        }
        let values = words.iter().map(|word| u64::from_le_bytes(*word));
        for (register, value) in self.x.iter_mut().chain([&mut self.pc]).chain(&mut self.f).zip(values) {
            *register = value;
        }
        Ok(())
    }
}

/// The target description of gdb's manual, appendix "Target Descriptions": the features of RISC-V. `system`: with privileged registers.
#[must_use]
pub fn description(system: bool) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n\
         <architecture>riscv:rv64</architecture>\n",
    );
    if !system {
        xml += "<osabi>GNU/Linux</osabi>\n";
    }
    let register = |name: &str, number: usize, kind: &str| {
        format!("<reg name=\"{name}\" bitsize=\"64\" regnum=\"{number}\" type=\"{kind}\"/>\n")
    };
    let mut feature = |name: &str, body: &str| {
        // Writing to a string does not fail.
        let _ = write!(xml, "<feature name=\"org.gnu.gdb.riscv.{name}\">\n{body}</feature>\n");
    };
    let mut body = String::new();
    for (number, name) in registers::INTEGER.iter().enumerate() {
        let kind = match *name {
            "ra" => "code_ptr",
            "sp" | "gp" | "tp" => "data_ptr",
            _ => "int",
        };
        body += &register(name, number, kind);
    }
    body += &register("pc", PC, "code_ptr");
    feature("cpu", &body);

    let mut body = String::from(
        "<union id=\"riscv_double\"><field name=\"float\" type=\"ieee_single\"/>\
         <field name=\"double\" type=\"ieee_double\"/></union>\n",
    );
    for (number, name) in registers::FLOAT.iter().enumerate() {
        body += &register(name, FIRST_FLOAT + number, "riscv_double");
    }
    for number in csr::FFLAGS..=csr::FCSR {
        body += &register(&csr::name(number).unwrap_or_default(), FIRST_CSR + usize::from(number), "int");
    }
    feature("fpu", &body);

    if system {
        let mut body = String::new();
        for number in csr::FCSR + 1..4096 {
            if let Some(name) = csr::name(number) {
                body += &register(&name, FIRST_CSR + usize::from(number), "uint64");
            }
        }
        feature("csr", &body);
        feature("virtual", &register("priv", PRIVILEGE, "int"));
    }
    xml + "</target>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_description_are_those_of_the_registers() {
        let xml = description(true);
        for (name, register) in [
            ("sp", Register::Integer(2)),
            ("pc", Register::Pc),
            ("fa0", Register::Float(10)),
            ("fcsr", Register::Csr(3)),
            ("satp", Register::Csr(0x180)),
            ("pmpaddr15", Register::Csr(0x3bf)),
            ("priv", Register::Privilege),
        ] {
            let line = xml.lines().find(|line| line.contains(&format!("\"{name}\""))).expect(name);
            let number = line.split("regnum=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            assert_eq!(Register::from_raw_id(number.parse().unwrap()).unwrap().0, register, "{line}");
        }
        assert!(!description(false).contains("satp"));
    }

    #[test]
    fn registers_travel_both_ways() {
        let mut core = Core { pc: 0x1234, ..Core::default() };
        core.x[31] = u64::MAX;
        core.f[0] = 7;
        let mut bytes = Vec::new();
        core.gdb_serialize(|byte| bytes.extend(byte));
        assert_eq!(bytes.len(), 65 * 8);
        let mut back = Core::default();
        back.gdb_deserialize(&bytes).unwrap();
        assert_eq!(back, core);
        assert!(back.gdb_deserialize(&bytes[8..]).is_err());
    }
}
