//! The way in and out of translated code: stubs at the beginning of the code arena.
//!
//! ```text
//! enter(hart, code):   host's registers to the stack -> sentinel of the return stack -> default assignment -> code
//! leave (rax: exit):   default assignment to the hart -> host's registers -> return rax
//! call out (rax: exit): as leave, then the interpreter, then as enter; or leave for good
//! ```

use std::mem::offset_of;

use codegen::x64::{Alu, Assembler, Cc, Gpr, Label, Mem, Size};

use super::emit::Exit;
use super::mapping::{BIAS, BUDGET, HART, Mapping, field, home};
use super::state::HartState;
use crate::hart::Hart;

/// Bytes of host stack for the return stack: 4,096 calls deep.
const STACK_BYTES: i32 = 64 << 10;
/// On the return stack in place of a guest address where there is none: odd.
const NOWHERE: u64 = 1;

const SAVED: [Gpr; 6] = [Gpr::Rbx, Gpr::Rbp, Gpr::R12, Gpr::R13, Gpr::R14, Gpr::R15];

/// Host addresses of the stubs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stubs {
    /// `extern "sysv64" fn(hart, code) -> exit`.
    pub(crate) enter: u64,
    pub(crate) leave: u64,
    pub(crate) leave_to: u64,
    pub(crate) call_out: u64,
    /// As `leave`, with all guest registers in the hart.
    pub(crate) leave_written: u64,
    /// Leaves with the address behind the call to here: see [`CodeCache::gone`](super::CodeCache::gone).
    pub(crate) gone: u64,
}

/// The stubs' code, and their offsets in it; `links` is the default assignment.
pub(super) fn emit(links: &Mapping, interpret: extern "sysv64" fn(&mut Hart, &Exit) -> u64) -> (Vec<u8>, Stubs) {
    let budget = field(offset_of!(Hart, budget));
    let mut asm = Assembler::new();
    let here = |asm: &Assembler| asm.offset() as u64;

    let enter = here(&asm);
    for host in SAVED {
        asm.push(host);
    }
    asm.lea(HART, Mem::at(Gpr::Rdi, BIAS));
    asm.mov(Size::B64, BUDGET, budget);
    asm.mov_imm(Gpr::Rax, NOWHERE);
    asm.push(Gpr::Rax);
    // Pushes the address of what follows: the stub for returns to nowhere.
    let start = asm.label();
    asm.call(start);

    // A return matched the sentinel: the guest's `ra` is odd.
    let leave: Label = asm.label();
    match links.get(1) {
        Some(host) => asm.mov(Size::B64, Gpr::Rax, host),
        None => asm.mov(Size::B64, Gpr::Rax, home(1)),
    }
    let leave_to = here(&asm);
    asm.alu_imm(Alu::And, Size::B64, Gpr::Rax, -2);
    asm.mov_store(Size::B64, field(offset_of!(Hart, pc)), Gpr::Rax);
    asm.mov_imm(Gpr::Rax, 0);
    asm.jmp(leave);

    asm.bind(start);
    asm.mov_store(Size::B64, state(offset_of!(HartState, stack_base)), Gpr::Rsp);
    asm.lea(Gpr::Rax, Mem::at(Gpr::Rsp, -STACK_BYTES));
    asm.mov_store(Size::B64, state(offset_of!(HartState, stack_limit)), Gpr::Rax);
    asm.ldmxcsr(state(offset_of!(HartState, mxcsr)));
    asm.mov(Size::B64, Gpr::Rax, Gpr::Rsi);
    fill(&mut asm, links);
    asm.jmp_rm(Gpr::Rax);

    let leave_at = here(&asm);
    asm.bind(leave);
    spill(&mut asm, links);
    let leave_written_at = here(&asm);
    let written = asm.label();
    asm.bind(written);
    asm.mov_store(Size::B64, budget, BUDGET);
    leave_flags(&mut asm);
    asm.mov(Size::B64, Gpr::Rsp, state(offset_of!(HartState, stack_base)));
    // The sentinel.
    asm.alu_imm(Alu::Add, Size::B64, Gpr::Rsp, 16);
    for host in SAVED.into_iter().rev() {
        asm.pop(host);
    }
    asm.ret();

    let call_out = here(&asm);
    spill(&mut asm, links);
    leave_flags(&mut asm);
    // In units the stack is off by eight, and here by the return address as well.
    asm.mov_store(Size::B64, budget, BUDGET);
    asm.mov(Size::B64, Gpr::Rsi, Gpr::Rax);
    asm.lea(Gpr::Rdi, Mem::at(HART, -BIAS));
    asm.mov_imm(Gpr::Rax, interpret as usize as u64);
    asm.call_rm(Gpr::Rax);
    asm.ldmxcsr(state(offset_of!(HartState, mxcsr)));
    asm.test(Size::B64, Gpr::Rax, Gpr::Rax);
    // The hart's budget is the one to keep; `leave` would write the register's.
    asm.mov(Size::B64, BUDGET, budget);
    asm.jcc(Cc::Ne, written);
    fill(&mut asm, links);
    asm.ret();

    let gone = here(&asm);
    asm.pop(Gpr::Rax);
    asm.jmp(leave);

    let stubs = Stubs { gone, enter, leave: leave_at, leave_to, call_out, leave_written: leave_written_at };
    (asm.finish(), stubs)
}

fn state(offset: usize) -> Mem {
    field(offset_of!(Hart, translator) + offset)
}

/// MXCSR to the hart. Outside, no operation may trap.
fn leave_flags(asm: &mut Assembler) {
    let done = asm.label();
    asm.stmxcsr(state(offset_of!(HartState, mxcsr)));
    asm.alu_imm(Alu::Cmp, Size::B32, state(offset_of!(HartState, watched)), 0);
    asm.jcc(Cc::L, done);
    asm.ldmxcsr(state(offset_of!(HartState, plain_mxcsr)));
    asm.bind(done);
}

/// Default assignment to the hart.
fn spill(asm: &mut Assembler, links: &Mapping) {
    for (register, host) in links.pairs() {
        asm.mov_store(Size::B64, home(register), host);
    }
}

/// The hart to the default assignment.
fn fill(asm: &mut Assembler, links: &Mapping) {
    for (register, host) in links.pairs() {
        asm.mov(Size::B64, host, home(register));
    }
}
