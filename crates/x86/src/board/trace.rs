//! A look at every instruction that processors execute.

use machine::address::{PAGE_SIZE, host_size};

use super::build::Parts;
use crate::kvm::registers::RegisterFile;
use crate::kvm::{ExitKind, Vcpu};

/// The longest instruction.
pub const INSTRUCTION_BYTES_MAX: usize = 15;
/// EFER: the processor is in long mode.
const LONG_MODE: u64 = 1 << 10;

/// One instruction, before and after it was executed.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The processor's number.
    pub processor: usize,
    /// Its address: linear.
    pub pc: u64,
    /// The privilege level that it was executed at, 0 to 3.
    pub ring: u8,
    /// 16, 32 or 64: of which kind its code segment is.
    pub bits: u32,
    /// What is at its address, as far as it can be read: the instruction, and what follows it.
    pub bytes: Vec<u8>,
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15 before.
    pub before: [u64; 16],
    /// The same after.
    pub after: [u64; 16],
}

impl Traced {
    /// The names of the registers in [`Self::before`] and [`Self::after`].
    pub const REGISTERS: [&str; 16] = RegisterFile::GENERAL;
}

/// What sees every instruction.
pub trait Tracer: Send + Sync {
    /// Whether the instruction at `pc` is to be reported.
    fn wants(&self, pc: u64) -> bool;

    /// The instruction has been executed.
    fn instruction(&self, traced: &Traced);
}

/// A processor that is about to execute an instruction.
pub(super) struct Look {
    traced: Traced,
    /// Processors that came to life meanwhile were about to execute another.
    starts_count: u64,
}

impl Look {
    /// The instruction that is next, if someone wants to see it.
    pub(super) fn at(parts: &Parts, vcpu: &Vcpu, id: usize, tracer: &dyn Tracer) -> Option<Self> {
        let system = vcpu.system_registers().ok()?;
        let general = vcpu.registers().ok()?;
        let pc = general.rip.wrapping_add(system.cs.base);
        if !tracer.wants(pc) {
            return None;
        }
        let bits = match (system.efer & LONG_MODE != 0 && system.cs.l != 0, system.cs.db != 0) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        };
        let mut bytes = Vec::with_capacity(INSTRUCTION_BYTES_MAX);
        while bytes.len() < INSTRUCTION_BYTES_MAX {
            let at = pc.wrapping_add(bytes.len() as u64);
            let here = host_size(PAGE_SIZE - at % PAGE_SIZE).min(INSTRUCTION_BYTES_MAX - bytes.len());
            let mut part = vec![0; here];
            if !vcpu.translate(at).is_some_and(|at| parts.read_physical(at, &mut part)) {
                break;
            }
            bytes.append(&mut part);
        }
        let before = RegisterFile::general_of(&general);
        let traced = Traced { processor: id, pc, ring: system.ss.dpl, bits, bytes, before, after: before };
        Some(Self { traced, starts_count: vcpu.exits().count(ExitKind::Again) })
    }

    /// It was executed.
    pub(super) fn tell(mut self, vcpu: &Vcpu, tracer: &dyn Tracer) {
        if vcpu.exits().count(ExitKind::Again) == self.starts_count
            && let Ok(general) = vcpu.registers()
        {
            self.traced.after = RegisterFile::general_of(&general);
            tracer.instruction(&self.traced);
        }
    }
}
