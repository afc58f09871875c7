//! The registers of a hart, as gdb numbers and describes them.
//!
//! Numbers are those that gdb gives to RISC-V registers by itself: x0 to x31 from 0, pc 32, f0 to f31 from 33, control and status register `n` at
//! 65 + `n`, the privilege mode behind the last of them. A stop transfers the first 65; others travel when asked for.

use std::fmt::Write;
use std::sync::mpsc;

use riscv::hart::{Hart, Privilege};
use riscv::isa::{csr, registers};

use crate::debuggee::{Registers, Thread};

const PC: usize = 32;
const FIRST_FLOAT: usize = 33;
const FIRST_CSR: usize = 65;
const PRIVILEGE: usize = FIRST_CSR + 4096;

/// Something that is done with a hart.
pub type HartAction = Box<dyn FnOnce(&mut Hart) + Send>;

/// A debuggee whose threads are harts.
pub trait Harts {
    /// Calls `action` with a thread's hart; false if there is no such thread.
    fn with_hart(&self, thread: Thread, action: HartAction) -> bool;

    /// Whether threads have privileged registers.
    fn is_system(&self) -> bool;
}

/// What `look` finds in a thread's hart.
fn look<T: Send + 'static>(
    harts: &(impl Harts + ?Sized),
    thread: Thread,
    look: impl FnOnce(&mut Hart) -> T + Send + 'static,
) -> Option<T> {
    let (answer, answers) = mpsc::channel();
    harts.with_hart(
        thread,
        Box::new(move |hart| {
            // Whoever asked waits for the answer.
            let _ = answer.send(look(hart));
        }),
    );
    answers.try_recv().ok()
}

impl<T: Harts> Registers for T {
    fn description(&self) -> String {
        description(self.is_system())
    }

    fn read_all(&self, thread: Thread) -> Option<Vec<u8>> {
        look(self, thread, |hart| Core::read(hart).to_bytes())
    }

    fn write_all(&self, thread: Thread, bytes: &[u8]) -> bool {
        let Some(core) = Core::from_bytes(bytes) else { return false };
        look(self, thread, move |hart| core.write(hart)).is_some()
    }

    fn read_one(&self, thread: Thread, number: usize) -> Option<Vec<u8>> {
        let register = Register::from_number(number)?;
        look(self, thread, move |hart| register.read(hart))?.map(|value| value.to_le_bytes().to_vec())
    }

    fn write_one(&self, thread: Thread, number: usize, bytes: &[u8]) -> bool {
        let (Some(register), Ok(bytes)) = (Register::from_number(number), <[u8; 8]>::try_from(bytes)) else {
            return false;
        };
        look(self, thread, move |hart| register.write(hart, u64::from_le_bytes(bytes))) == Some(true)
    }
}

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Integer(u8),
    Pc,
    Float(u8),
    Csr(u16),
    Privilege,
}

impl Register {
    fn from_number(id: usize) -> Option<Self> {
        let byte = |number: usize| u8::try_from(number).ok();
        Some(match id {
            0..PC => Self::Integer(byte(id)?),
            PC => Self::Pc,
            FIRST_FLOAT..FIRST_CSR => Self::Float(byte(id - FIRST_FLOAT)?),
            FIRST_CSR..PRIVILEGE => Self::Csr(u16::try_from(id - FIRST_CSR).ok()?),
            PRIVILEGE => Self::Privilege,
            _ => return None,
        })
    }
}

impl Register {
    /// Its value; `None` if it does not exist.
    fn read(self, hart: &Hart) -> Option<u64> {
        Some(match self {
            Self::Integer(number) => hart.x(number),
            Self::Pc => hart.pc(),
            Self::Float(number) => hart.f(number),
            Self::Csr(number) => return hart.csr(number),
            Self::Privilege => hart.privilege() as u64,
        })
    }

    /// Sets it; false if it does not exist or takes no such value.
    fn write(self, hart: &mut Hart, value: u64) -> bool {
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
struct Core {
    x: [u64; 32],
    pc: u64,
    f: [u64; 32],
}

impl Core {
    fn read(hart: &Hart) -> Self {
        let mut core = Self { pc: hart.pc(), ..Self::default() };
        for number in 0..32_u8 {
            core.x[usize::from(number)] = hart.x(number);
            core.f[usize::from(number)] = hart.f(number);
        }
        core
    }

    fn write(&self, hart: &mut Hart) {
        hart.set_pc(self.pc);
        for number in 0..32_u8 {
            hart.set_x(number, self.x[usize::from(number)]);
            hart.set_f(number, self.f[usize::from(number)]);
        }
    }
}

impl Core {
    fn to_bytes(&self) -> Vec<u8> {
        self.x.iter().chain([&self.pc]).chain(&self.f).flat_map(|value| value.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        if words.len() < FIRST_CSR || !rest.is_empty() {
            return None;
        }
        let mut core = Self::default();
        let values = words.iter().map(|word| u64::from_le_bytes(*word));
        for (register, value) in core.x.iter_mut().chain([&mut core.pc]).chain(&mut core.f).zip(values) {
            *register = value;
        }
        Some(core)
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
            assert_eq!(Register::from_number(number.parse().unwrap()), Some(register), "{line}");
        }
        assert!(!description(false).contains("satp"));
    }

    #[test]
    fn registers_travel_both_ways() {
        let mut core = Core { pc: 0x1234, ..Core::default() };
        core.x[31] = u64::MAX;
        core.f[0] = 7;
        let bytes = core.to_bytes();
        assert_eq!(bytes.len(), 65 * 8);
        assert_eq!(Core::from_bytes(&bytes), Some(core));
        assert_eq!(Core::from_bytes(&bytes[8..]), None);
    }
}
