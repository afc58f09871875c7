//! The registers of an x86-64 processor, as gdb numbers and describes them.
//!
//! Specification: gdb's manual, "i386 Features"; what the registers are, the SDM, volume 1.
//!
//! Numbers follow from the order of [`REGISTERS`], and so does what a stop transfers: all up to the bases of segments; control registers travel when asked for.

use x86::board::Board;
use x86::kvm::registers::RegisterFile;

use crate::debuggee::{Registers, Thread};
use crate::system::{System, processor};

/// A register: its feature, its name, how many bytes it has, and its type.
struct Register(&'static str, &'static str, usize, &'static str);

const CORE: &str = "org.gnu.gdb.i386.core";
const SSE: &str = "org.gnu.gdb.i386.sse";
const SEGMENTS: &str = "org.gnu.gdb.i386.segments";
const CONTROL: &str = "org.isomorph.control";
/// The first that a stop does not transfer.
const FIRST_CONTROL: usize = 59;

#[rustfmt::skip]
const REGISTERS: [Register; 64] = [
    Register(CORE, "rax", 8, "int64"), Register(CORE, "rbx", 8, "int64"),
    Register(CORE, "rcx", 8, "int64"), Register(CORE, "rdx", 8, "int64"),
    Register(CORE, "rsi", 8, "int64"), Register(CORE, "rdi", 8, "int64"),
    Register(CORE, "rbp", 8, "data_ptr"), Register(CORE, "rsp", 8, "data_ptr"),
    Register(CORE, "r8", 8, "int64"), Register(CORE, "r9", 8, "int64"),
    Register(CORE, "r10", 8, "int64"), Register(CORE, "r11", 8, "int64"),
    Register(CORE, "r12", 8, "int64"), Register(CORE, "r13", 8, "int64"),
    Register(CORE, "r14", 8, "int64"), Register(CORE, "r15", 8, "int64"),
    Register(CORE, "rip", 8, "code_ptr"), Register(CORE, "eflags", 4, "int32"),
    Register(CORE, "cs", 4, "int32"), Register(CORE, "ss", 4, "int32"),
    Register(CORE, "ds", 4, "int32"), Register(CORE, "es", 4, "int32"),
    Register(CORE, "fs", 4, "int32"), Register(CORE, "gs", 4, "int32"),
    Register(CORE, "st0", 10, "i387_ext"), Register(CORE, "st1", 10, "i387_ext"),
    Register(CORE, "st2", 10, "i387_ext"), Register(CORE, "st3", 10, "i387_ext"),
    Register(CORE, "st4", 10, "i387_ext"), Register(CORE, "st5", 10, "i387_ext"),
    Register(CORE, "st6", 10, "i387_ext"), Register(CORE, "st7", 10, "i387_ext"),
    Register(CORE, "fctrl", 4, "int"), Register(CORE, "fstat", 4, "int"),
    Register(CORE, "ftag", 4, "int"), Register(CORE, "fiseg", 4, "int"),
    Register(CORE, "fioff", 4, "int"), Register(CORE, "foseg", 4, "int"),
    Register(CORE, "fooff", 4, "int"), Register(CORE, "fop", 4, "int"),
    Register(SSE, "xmm0", 16, "uint128"), Register(SSE, "xmm1", 16, "uint128"),
    Register(SSE, "xmm2", 16, "uint128"), Register(SSE, "xmm3", 16, "uint128"),
    Register(SSE, "xmm4", 16, "uint128"), Register(SSE, "xmm5", 16, "uint128"),
    Register(SSE, "xmm6", 16, "uint128"), Register(SSE, "xmm7", 16, "uint128"),
    Register(SSE, "xmm8", 16, "uint128"), Register(SSE, "xmm9", 16, "uint128"),
    Register(SSE, "xmm10", 16, "uint128"), Register(SSE, "xmm11", 16, "uint128"),
    Register(SSE, "xmm12", 16, "uint128"), Register(SSE, "xmm13", 16, "uint128"),
    Register(SSE, "xmm14", 16, "uint128"), Register(SSE, "xmm15", 16, "uint128"),
    Register(SSE, "mxcsr", 4, "int"),
    Register(SEGMENTS, "fs_base", 8, "int"), Register(SEGMENTS, "gs_base", 8, "int"),
    Register(CONTROL, "cr0", 8, "int"), Register(CONTROL, "cr2", 8, "int"), Register(CONTROL, "cr3", 8, "int"),
    Register(CONTROL, "cr4", 8, "int"), Register(CONTROL, "efer", 8, "int"),
];

/// The target description.
#[must_use]
pub fn description() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n\
         <architecture>i386:x86-64</architecture>\n",
    );
    let mut open = "";
    for (number, Register(feature, name, bytes, kind)) in REGISTERS.iter().enumerate() {
        if *feature != open {
            if !open.is_empty() {
                xml += "</feature>\n";
            }
            xml += &format!("<feature name=\"{feature}\">\n");
            open = feature;
        }
        let bits = 8 * bytes;
        xml += &format!("<reg name=\"{name}\" bitsize=\"{bits}\" regnum=\"{number}\" type=\"{kind}\"/>\n");
    }
    xml + "</feature>\n</target>\n"
}

/// Where register `number` is in the values of all.
fn place(number: usize) -> Option<std::ops::Range<usize>> {
    let Register(_, _, bytes, _) = REGISTERS.get(number)?;
    let start: usize = REGISTERS[..number].iter().map(|Register(_, _, bytes, _)| bytes).sum();
    Some(start..start + bytes)
}

/// The values of all registers.
fn to_bytes(registers: &RegisterFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    registers.general.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes.extend(registers.rip.to_le_bytes());
    let flags = u32::try_from(registers.rflags & 0xffff_ffff).unwrap_or(0);
    bytes.extend(flags.to_le_bytes());
    registers.selectors.iter().for_each(|selector| bytes.extend(u32::from(*selector).to_le_bytes()));
    registers.x87.iter().for_each(|register| bytes.extend(register));
    registers.x87_control.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    registers.xmm.iter().for_each(|register| bytes.extend(register));
    bytes.extend(registers.mxcsr.to_le_bytes());
    registers.bases.iter().chain(&registers.control).for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

/// Takes all that can be set.
fn take(registers: &mut RegisterFile, bytes: &[u8]) {
    let field = |number: usize| place(number).and_then(|place| bytes.get(place)).unwrap_or(&[]);
    let value = |number: usize| {
        let mut value = [0; 8];
        let field = field(number);
        value[..field.len().min(8)].copy_from_slice(&field[..field.len().min(8)]);
        u64::from_le_bytes(value)
    };
    let word = |number: usize| u32::try_from(value(number) & 0xffff_ffff).unwrap_or(0);
    for (number, register) in registers.general.iter_mut().enumerate() {
        *register = value(number);
    }
    (registers.rip, registers.rflags) = (value(16), value(17));
    for (number, register) in registers.x87.iter_mut().enumerate() {
        register.copy_from_slice(field(24 + number));
    }
    for (number, register) in registers.x87_control.iter_mut().enumerate() {
        *register = word(32 + number);
    }
    for (number, register) in registers.xmm.iter_mut().enumerate() {
        register.copy_from_slice(field(40 + number));
    }
    registers.mxcsr = word(56);
    for (number, register) in registers.bases.iter_mut().chain(&mut registers.control).enumerate() {
        *register = value(57 + number);
    }
}

impl System<Board> {
    fn register_file(&self, thread: Thread) -> Option<RegisterFile> {
        self.board.with_processor(processor(thread), |vcpu| vcpu.register_file().ok()).flatten()
    }

    fn change(&self, thread: Thread, change: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let Some(mut registers) = self.register_file(thread) else { return false };
        let mut bytes = to_bytes(&registers);
        if !change(&mut bytes) {
            return false;
        }
        take(&mut registers, &bytes);
        let set = self.board.with_processor(processor(thread), move |vcpu| vcpu.set_register_file(&registers).is_ok());
        set == Some(true)
    }
}

impl Registers for System<Board> {
    fn description(&self) -> String {
        description()
    }

    fn read_all(&self, thread: Thread) -> Option<Vec<u8>> {
        let mut bytes = to_bytes(&self.register_file(thread)?);
        bytes.truncate(place(FIRST_CONTROL)?.start);
        Some(bytes)
    }

    fn write_all(&self, thread: Thread, new: &[u8]) -> bool {
        let all = place(FIRST_CONTROL).is_some_and(|place| place.start == new.len());
        all && self.change(thread, |bytes| {
            bytes[..new.len()].copy_from_slice(new);
            true
        })
    }

    fn read_one(&self, thread: Thread, number: usize) -> Option<Vec<u8>> {
        let place = place(number)?;
        to_bytes(&self.register_file(thread)?).get(place).map(<[u8]>::to_vec)
    }

    fn write_one(&self, thread: Thread, number: usize, new: &[u8]) -> bool {
        let Some(place) = place(number).filter(|place| place.len() == new.len()) else { return false };
        self.change(thread, |bytes| {
            bytes[place].copy_from_slice(new);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_travel_both_ways() {
        let mut registers = RegisterFile::default();
        registers.general[15] = u64::MAX;
        (registers.rip, registers.rflags, registers.mxcsr) = (0x1234, 0x202, 0x1f80);
        registers.x87[7] = [9; 10];
        registers.x87_control[0] = 0x37f;
        registers.xmm[1] = [3; 16];
        registers.bases[1] = 7;
        registers.control = [1, 2, 3, 4, 5];
        let bytes = to_bytes(&registers);
        assert_eq!(place(63).unwrap().end, bytes.len());
        let mut back = RegisterFile::default();
        take(&mut back, &bytes);
        assert_eq!(back, registers);
        assert_eq!(
            (bytes[place(16).unwrap()][0], bytes[place(58).unwrap()][0], bytes[place(63).unwrap()][0]),
            (0x34, 7, 5)
        );
        let xml = description();
        assert_eq!(REGISTERS[FIRST_CONTROL].1, "cr0");
        assert!(xml.contains("name=\"mxcsr\" bitsize=\"32\" regnum=\"56\"") && xml.matches("<feature").count() == 4);
    }
}
