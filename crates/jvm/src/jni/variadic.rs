//! Arguments of calls from C: a `va_list`, or an array of `jvalue`.
//!
//! Stable Rust cannot define a function with variable arguments. So each such entry of the table is a few instructions that do what a C compiler does at the
//! beginning of such a function (System V ABI for x86-64, 3.5.7): save the argument registers, make a `va_list` of them, and call the form that takes one.

use super::environment::{Object, get};
use crate::metadata::BasicType;

/// `va_list`: figure 3.34 of the ABI.
#[derive(Debug)]
#[repr(C)]
pub(super) struct VaList {
    general_offset: u32,
    vector_offset: u32,
    overflow: *const u64,
    registers: *const u8,
}

/// Where arguments come from, one after the other.
pub(super) trait Source {
    /// The next argument as a slot; a reference is that of an object now. The thread is running.
    fn next(&mut self, kind: BasicType) -> u64;
}

/// Cuts an integer argument to the type of its parameter.
#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn narrow(kind: BasicType, bits: u64) -> u64 {
    let small = |value: i32| u64::from(value.cast_unsigned());
    match kind {
        BasicType::Boolean => u64::from(bits as u8 != 0),
        BasicType::Byte => small(i32::from(bits as u8 as i8)),
        BasicType::Char => u64::from(bits as u16),
        BasicType::Short => small(i32::from(bits as u16 as i16)),
        BasicType::Reference => {
            let object: Object = std::ptr::with_exposed_provenance_mut(bits as usize);
            get(object).slot()
        }
        BasicType::Int | BasicType::Float => u64::from(bits as u32),
        BasicType::Long | BasicType::Double | BasicType::Void => bits,
    }
}

impl VaList {
    fn general(&mut self) -> u64 {
        if self.general_offset < 48 {
            // SAFETY: the save area has six registers, and C code passed as many arguments as the method has.
            let value = unsafe { self.registers.add(self.general_offset as usize).cast::<u64>().read() };
            self.general_offset += 8;
            return value;
        }
        self.overflow()
    }

    fn vector(&mut self) -> u64 {
        if self.vector_offset < 176 {
            // SAFETY: the save area has eight vector registers behind the others.
            let value = unsafe { self.registers.add(self.vector_offset as usize).cast::<u64>().read() };
            self.vector_offset += 16;
            return value;
        }
        self.overflow()
    }

    fn overflow(&mut self) -> u64 {
        // SAFETY: C code passed as many arguments as the method has.
        let value = unsafe { self.overflow.read() };
        self.overflow = self.overflow.wrapping_add(1);
        value
    }
}

impl Source for *mut VaList {
    fn next(&mut self, kind: BasicType) -> u64 {
        // SAFETY: C code passed a list, which it does not use meanwhile.
        let list = unsafe { &mut **self };
        match kind {
            // A float is passed as a double.
            #[allow(clippy::cast_possible_truncation, reason = "it was a float before")]
            BasicType::Float => u64::from((f64::from_bits(list.vector()) as f32).to_bits()),
            BasicType::Double => list.vector(),
            _ => narrow(kind, list.general()),
        }
    }
}

impl Source for *const u64 {
    fn next(&mut self, kind: BasicType) -> u64 {
        // SAFETY: C code passed as many values as the method has.
        let value = unsafe { self.read() };
        *self = self.wrapping_add(1);
        narrow(kind, value)
    }
}

/// A function with variable arguments, which calls the one that takes them as a list.
macro_rules! variadic {
    ($(#[$attribute:meta])* $name:ident, $target:path, $fixed:literal arguments, list in $list:literal) => {
        $(#[$attribute])*
        #[unsafe(naked)]
        pub(in crate::jni) unsafe extern "C" fn $name() {
            std::arch::naked_asm!(
                "sub rsp, 216",
                "mov [rsp + 56], rcx",
                "mov [rsp + 64], r8",
                "mov [rsp + 72], r9",
                "movaps [rsp + 80], xmm0",
                "movaps [rsp + 96], xmm1",
                "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3",
                "movaps [rsp + 144], xmm4",
                "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6",
                "movaps [rsp + 192], xmm7",
                concat!("mov dword ptr [rsp], 8 * ", $fixed),
                "mov dword ptr [rsp + 4], 48",
                "lea rax, [rsp + 224]",
                "mov [rsp + 8], rax",
                "lea rax, [rsp + 32]",
                "mov [rsp + 16], rax",
                concat!("lea ", $list, ", [rsp]"),
                "call {target}",
                "add rsp, 216",
                "ret",
                target = sym $target,
            )
        }
    };
}
pub(super) use variadic;
