//! A: atomic memory operations by the host's, and fences.
//!
//! The host's locked instructions are sequentially consistent, its plain loads and stores acquire and release: at least what `aq`, `rl` and all
//! fences ask for, but for those that order writes before reads.

use codegen::x64::{Alu, Cc, Gpr, Mem, Size};

use super::emit::Emitter;
use super::memory::{self, Kind};
use crate::isa::{Instruction, Op};

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(e: &mut Emitter<'_>, i: &Instruction) -> bool {
    use Op::*;
    let (size, operation) = match i.op {
        Fence => {
            fence(e, i.imm);
            return true;
        }
        AmoswapW => (Size::B32, Operation::Swap),
        AmoaddW => (Size::B32, Operation::Add),
        AmoandW => (Size::B32, Operation::Logic(Alu::And)),
        AmoorW => (Size::B32, Operation::Logic(Alu::Or)),
        AmoxorW => (Size::B32, Operation::Logic(Alu::Xor)),
        AmominW => (Size::B32, Operation::Choose(Cc::G)),
        AmomaxW => (Size::B32, Operation::Choose(Cc::L)),
        AmominuW => (Size::B32, Operation::Choose(Cc::A)),
        AmomaxuW => (Size::B32, Operation::Choose(Cc::B)),
        AmoswapD => (Size::B64, Operation::Swap),
        AmoaddD => (Size::B64, Operation::Add),
        AmoandD => (Size::B64, Operation::Logic(Alu::And)),
        AmoorD => (Size::B64, Operation::Logic(Alu::Or)),
        AmoxorD => (Size::B64, Operation::Logic(Alu::Xor)),
        AmominD => (Size::B64, Operation::Choose(Cc::G)),
        AmomaxD => (Size::B64, Operation::Choose(Cc::L)),
        AmominuD => (Size::B64, Operation::Choose(Cc::A)),
        AmomaxuD => (Size::B64, Operation::Choose(Cc::B)),
        _ => return false,
    };
    if !e.options.memory {
        return false;
    }
    operate(e, i, size, operation);
    true
}

#[derive(Clone, Copy)]
enum Operation {
    Swap,
    Add,
    Logic(Alu),
    /// The register's value is taken if memory's compares so with it.
    Choose(Cc),
}

/// `imm`: `fm pred succ`. Only a write before a read needs an instruction of the host, and of those `fence.tso` orders none.
fn fence(e: &mut Emitter<'_>, imm: i32) {
    const TSO: i32 = 0b1000;
    // Devices: their accesses are calls, which are in order.
    let (mode, write_before, read_after) = (imm >> 8 & 15, imm & 0x10 != 0, imm & 0x2 != 0);
    if write_before && read_after && mode != TSO {
        e.asm.mfence();
    }
}

fn operate(e: &mut Emitter<'_>, i: &Instruction, size: Size, operation: Operation) {
    // Misaligned operations trap.
    let back = e.asm.label();
    let slow = e.slow(back);
    let base = e.read(i.rs1, Gpr::Rax);
    e.asm.test_imm(Size::B32, base, if size == Size::B32 { 3 } else { 7 });
    e.asm.jcc(Cc::Ne, slow);
    let (mem, done) = memory::locate(e, i.rs1, 0, size, Kind::Write);
    let old = match operation {
        Operation::Swap => {
            e.copy(i.rs2, Gpr::Rcx);
            e.asm.xchg(size, mem, Gpr::Rcx);
            Gpr::Rcx
        }
        Operation::Add => {
            e.copy(i.rs2, Gpr::Rcx);
            e.asm.lock();
            e.asm.xadd(size, mem, Gpr::Rcx);
            Gpr::Rcx
        }
        Operation::Logic(alu) if i.rd == 0 => {
            e.copy(i.rs2, Gpr::Rcx);
            e.asm.lock();
            e.asm.alu_store(alu, size, mem, Gpr::Rcx);
            Gpr::Rcx
        }
        Operation::Logic(_) | Operation::Choose(_) => {
            // The exchange wants `rax` for itself. An address in a mapped register is used as it is.
            let mem = if mem.uses(Gpr::Rax) {
                e.asm.mov(Size::B64, Gpr::Rdx, Gpr::Rax);
                let mem = Mem::at(Gpr::Rdx, 0);
                if e.flat { mem.gs() } else { mem }
            } else {
                mem
            };
            let again = e.asm.label();
            e.asm.mov(size, Gpr::Rax, mem);
            e.asm.bind(again);
            match operation {
                Operation::Choose(cc) => {
                    e.copy(i.rs2, Gpr::Rcx);
                    e.asm.alu(Alu::Cmp, size, Gpr::Rax, Gpr::Rcx);
                    e.asm.cmov(cc.inverse(), size, Gpr::Rcx, Gpr::Rax);
                }
                Operation::Logic(alu) => {
                    e.copy(i.rs2, Gpr::Rcx);
                    e.asm.alu(alu, size, Gpr::Rcx, Gpr::Rax);
                }
                Operation::Swap | Operation::Add => {}
            }
            e.asm.lock();
            e.asm.cmpxchg(size, mem, Gpr::Rcx);
            e.asm.jcc(Cc::Ne, again);
            Gpr::Rax
        }
    };
    if i.rd != 0 {
        if size == Size::B32 {
            let target = e.target(i.rd, old);
            e.asm.movsx(target, Size::B32, old);
            e.write(i.rd, target);
        } else {
            e.write(i.rd, old);
        }
    }
    if let Some(done) = done {
        e.asm.bind(done);
    }
    e.asm.bind(back);
}
