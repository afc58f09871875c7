//! A processor as debuggers see it: its registers by their names, and where an address leads.
//!
//! Specification: SDM volume 1, section 10.5 (FXSAVE), for x87 and SSE.

use kvm_bindings::{kvm_fpu, kvm_regs};
use machine::GuestPhysical;

use super::{KvmError, Tried, Vcpu};

/// The registers that programs and kernels use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterFile {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15.
    pub general: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// Selectors: CS, SS, DS, ES, FS, GS. They cannot be set, since what they select would have to be.
    pub selectors: [u16; 6],
    /// ST(0) to ST(7).
    pub x87: [[u8; 10]; 8],
    /// Control, status, tags, and of the last instruction: segment and offset, the operand's segment and offset, opcode.
    pub x87_control: [u32; 8],
    /// XMM0 to XMM15.
    pub xmm: [[u8; 16]; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// Bases of FS and GS.
    pub bases: [u64; 2],
    /// CR0, CR2, CR3, CR4, EFER.
    pub control: [u64; 5],
}

impl RegisterFile {
    /// The names of [`Self::general`].
    pub const GENERAL: [&str; 16] =
        ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

    pub(crate) fn general_of(registers: &kvm_regs) -> [u64; 16] {
        let kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, .. } = *registers;
        [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15]
    }
}

/// Two bits a register, as FSAVE has them: full or empty; of one, as FXSAVE does.
fn full_tags(tags: u8) -> u32 {
    (0..8).filter(|n| tags & 1 << n == 0).fold(0, |full, n| full | 3 << (2 * n))
}

fn short_tags(full: u32) -> u8 {
    (0..8).filter(|n| full >> (2 * n) & 3 != 3).fold(0, |tags, n| tags | 1 << n)
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

fn short(value: u32) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}

impl Vcpu {
    /// All registers.
    ///
    /// # Errors
    /// The host refuses.
    pub fn register_file(&self) -> Result<RegisterFile, KvmError> {
        let (general, system) = (self.registers()?, self.system_registers()?);
        let float = self.fd.get_fpu().tried("read floating-point registers")?;
        let mut x87 = [[0; 10]; 8];
        for (register, value) in x87.iter_mut().zip(&float.fpr) {
            register.copy_from_slice(&value[..10]);
        }
        let tags = full_tags(float.ftwx);
        let (ip, dp) = (float.last_ip, float.last_dp);
        Ok(RegisterFile {
            general: RegisterFile::general_of(&general),
            rip: general.rip,
            rflags: general.rflags,
            selectors: [system.cs, system.ss, system.ds, system.es, system.fs, system.gs]
                .map(|segment| segment.selector),
            x87,
            x87_control: [
                float.fcw.into(),
                float.fsw.into(),
                tags,
                low(ip >> 32),
                low(ip),
                low(dp >> 32),
                low(dp),
                float.last_opcode.into(),
            ],
            xmm: float.xmm,
            mxcsr: float.mxcsr,
            bases: [system.fs.base, system.gs.base],
            control: [system.cr0, system.cr2, system.cr3, system.cr4, system.efer],
        })
    }

    /// Sets all registers but selectors.
    ///
    /// # Errors
    /// The host refuses: not every value of a control register can be.
    pub fn set_register_file(&self, file: &RegisterFile) -> Result<(), KvmError> {
        let mut system = self.system_registers()?;
        [system.cr0, system.cr2, system.cr3, system.cr4, system.efer] = file.control;
        [system.fs.base, system.gs.base] = file.bases;
        self.set_system_registers(&system)?;
        let mut general = self.registers()?;
        [
            general.rax,
            general.rbx,
            general.rcx,
            general.rdx,
            general.rsi,
            general.rdi,
            general.rbp,
            general.rsp,
            general.r8,
            general.r9,
            general.r10,
            general.r11,
            general.r12,
            general.r13,
            general.r14,
            general.r15,
        ] = file.general;
        (general.rip, general.rflags) = (file.rip, file.rflags);
        self.set_registers(&general)?;
        let [control, status, tags, ip_high, ip, dp_high, dp, opcode] = file.x87_control;
        let mut float = kvm_fpu {
            fcw: short(control),
            fsw: short(status),
            ftwx: short_tags(tags),
            last_opcode: short(opcode),
            last_ip: u64::from(ip_high) << 32 | u64::from(ip),
            last_dp: u64::from(dp_high) << 32 | u64::from(dp),
            xmm: file.xmm,
            mxcsr: file.mxcsr,
            ..Default::default()
        };
        for (register, value) in float.fpr.iter_mut().zip(&file.x87) {
            register[..10].copy_from_slice(value);
        }
        self.fd.set_fpu(&float).tried("set floating-point registers")
    }

    /// Where a virtual address leads now.
    #[must_use]
    pub fn translate(&self, at: u64) -> Option<GuestPhysical> {
        let found = self.fd.translate_gva(at).ok()?;
        (found.valid != 0).then_some(GuestPhysical(found.physical_address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_both_kinds() {
        assert_eq!((full_tags(0), full_tags(0xff), full_tags(0x80)), (0xffff, 0, 0x3fff));
        assert!((0..=255).all(|tags| short_tags(full_tags(tags)) == tags));
    }
}
