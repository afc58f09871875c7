//! Branches, jumps, calls and returns.
//!
//! **Calls and returns** use the host's own stack, so that its processor predicts them: a guest call pushes the guest address of the return and
//! calls; a return compares the address on the stack with the guest's and returns.
//!
//! ```text
//! rsp -> host address behind the call      ---- depth zero ----
//!        guest address of the return        host address of the stub "return to nowhere"
//!        ... of the caller before ...       1, which is no address of an instruction
//! ```
//!
//! Whatever leaves translated code drops all of that; the guest's own stack is not concerned. A return that does not match (the guest has
//! switched stacks, or the record was dropped) goes through the jump cache. The host's stack is bounded: when a call finds it used up, it is dropped.
//!
//! **Indirect jumps** look into the hart's jump cache inline; what is not there leaves translated code.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "offsets in small structures")]

use std::mem::offset_of;

use codegen::x64::{Alu, Cc, Gpr, Label, Mem, Rm, Scale, Size};

use super::emit::{Emitter, Place, Reason};
use super::mapping::field;
use super::state::{HartState, JUMP_SHIFT, JUMPS, Jump};
use crate::hart::Hart;
use crate::isa::{Instruction, Op};

const RA: u8 = 1;

/// The branch or jump that ends a piece; `next` is the place of the piece that is emitted after it.
pub(super) fn emit(e: &mut Emitter<'_>, next: Option<u64>) {
    let line = e.line;
    let Instruction { op, rd, rs1, imm, .. } = line.instruction;
    match op {
        Op::Jal if rd == 0 => {
            if next != Some(line.target()) {
                e.edge(line.target());
            }
        }
        Op::Jal => {
            e.leave_mapping_for_good();
            link_register(e, rd, line.after());
            if rd == RA && e.options.return_stack {
                let target = line.target();
                if e.options.links && (e.flat || target <= 0xfff) {
                    return call_linked(e, line.after(), target, next);
                }
                call(e, line.after(), next, move |e| e.link(target));
            } else {
                e.link(line.target());
            }
        }
        Op::Jalr if rd == 0 && rs1 == RA && imm == 0 && e.options.return_stack => {
            e.leave_mapping_for_good();
            let miss = e.asm.label();
            let ra = e.read(RA, Gpr::Rax);
            e.asm.alu(Alu::Cmp, Size::B64, ra, Mem::at(Gpr::Rsp, 8));
            e.asm.jcc(Cc::Ne, miss);
            e.asm.ret();
            e.cold(move |e| {
                e.asm.bind(miss);
                e.copy(RA, Gpr::Rax);
                jump(e);
            });
        }
        Op::Jalr => {
            e.leave_mapping_for_good();
            let base = e.read(rs1, Gpr::Rax);
            if imm != 0 {
                e.asm.lea(Gpr::Rax, Mem::at(base, imm));
            } else if base != Gpr::Rax {
                e.asm.mov(Size::B64, Gpr::Rax, base);
            }
            if rd != 0 {
                link_register(e, rd, line.after());
            }
            if rd == RA && e.options.return_stack {
                call(e, line.after(), next, jump);
            } else {
                jump(e);
            }
        }
        _ => branch(e, next),
    }
}

/// `rd` gets the guest address of `place`. Registers are in the default assignment; `rax` is left alone.
fn link_register(e: &mut Emitter<'_>, rd: u8, place: u64) {
    let host = e.target(rd, Gpr::Rcx);
    e.address_of(place, host);
    e.write(rd, host);
}

/// Pushes the guest address of the return; jumps to `full` if there is no more room for calls.
fn push_return(e: &mut Emitter<'_>, full: Label) {
    let ra = e.read(RA, Gpr::Rcx);
    e.asm.push(ra);
    e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rsp, field(state(offset_of!(HartState, stack_limit))));
    e.asm.jcc(Cc::B, full);
}

/// Forgets all calls.
fn drop_returns(e: &mut Emitter<'_>) {
    e.asm.mov(Size::B64, Gpr::Rsp, field(state(offset_of!(HartState, stack_base))));
}

/// A call: `go` is how it goes to the callee, and may use `rax`. Goes on at `after` when the callee returns.
fn call(e: &mut Emitter<'_>, after: u64, next: Option<u64>, go: impl FnOnce(&mut Emitter<'_>) + 'static) {
    let (callee, full) = (e.asm.label(), e.asm.label());
    push_return(e, full);
    e.asm.call(callee);
    returned(e, after, next);
    e.cold(move |e| {
        e.asm.bind(full);
        drop_returns(e);
        e.asm.bind(callee);
        go(e);
    });
}

/// A call of the unit at `target` of the same page, once there is one.
fn call_linked(e: &mut Emitter<'_>, after: u64, target: u64, next: Option<u64>) {
    let (unlinked, full) = (e.asm.label(), e.asm.label());
    push_return(e, full);
    let site = e.asm.call_patchable(unlinked);
    returned(e, after, next);
    e.cold_exit(unlinked, Reason::Link(site), target, 0);
    e.cold(move |e| {
        e.asm.bind(full);
        drop_returns(e);
        e.link(target);
    });
}

/// A callee has returned to behind its call; `next` is the piece that is emitted next.
fn returned(e: &mut Emitter<'_>, after: u64, next: Option<u64>) {
    e.asm.pop(Gpr::Rax);
    if !e.flat && after > 0xfff {
        // The next page has no places in this unit.
        jump(e);
    } else if !e.flat {
        // The callee may have left the page.
        e.asm.alu_imm(Alu::And, Size::B64, Gpr::Rax, -0x1000);
        e.asm.mov_store(Size::B64, field(state(offset_of!(HartState, page))), Gpr::Rax);
    }
    if let Some(head) = e.head(after) {
        e.enter_mapping();
        e.empty_spots();
        if next != Some(after) {
            e.asm.jmp(head);
        }
    } else if e.flat || after <= 0xfff {
        e.link(after);
    }
}

fn state(offset: usize) -> usize {
    offset_of!(Hart, translator) + offset
}

/// Goes on at the guest address in `rax`; if that is odd, which no entry of the jump cache is, outside. Registers are in the default assignment.
pub(super) fn jump(e: &mut Emitter<'_>) {
    let leave_to = field(state(offset_of!(HartState, leave_to)));
    if !e.options.jump_cache {
        e.asm.jmp_rm(leave_to);
        return;
    }
    let miss = e.asm.label();
    let entry = |offset: usize| Mem::at(Gpr::Rcx, offset as i32);
    // The entry's number is that of the address in words.
    const _: () = assert!(JUMP_SHIFT == 2 + 3);
    e.asm.lea32(Gpr::Rcx, Mem::scaled(Gpr::Rax, Scale::Eight, 0));
    e.asm.alu_imm(Alu::And, Size::B32, Gpr::Rcx, ((JUMPS - 1) << JUMP_SHIFT) as i32);
    e.asm.alu(Alu::Add, Size::B64, Gpr::Rcx, field(state(offset_of!(HartState, jumps))));
    e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rax, entry(offset_of!(Jump, pc)));
    e.asm.jcc(Cc::Ne, miss);
    if e.flat {
        e.asm.jmp_rm(entry(offset_of!(Jump, code)));
    } else {
        e.asm.mov(Size::B64, Gpr::Rdx, field(super::state::fetch_context()));
        e.asm.alu(Alu::Cmp, Size::B64, Gpr::Rdx, entry(offset_of!(Jump, context)));
        e.asm.jcc(Cc::Ne, miss);
        e.asm.alu_imm(Alu::And, Size::B64, Gpr::Rax, -0x1000);
        e.asm.mov_store(Size::B64, field(state(offset_of!(HartState, page))), Gpr::Rax);
        e.asm.jmp_rm(entry(offset_of!(Jump, code)));
    }
    e.cold(move |e| {
        e.asm.bind(miss);
        e.asm.jmp_rm(leave_to);
    });
}

fn branch(e: &mut Emitter<'_>, next: Option<u64>) {
    let line = e.line;
    let Instruction { op, rs1, rs2, .. } = line.instruction;
    let (taken, after) = (line.target(), line.after());
    let always = matches!(op, Op::Beq | Op::Bge | Op::Bgeu);
    if rs1 == rs2 {
        let to = if always { taken } else { after };
        if next != Some(to) {
            e.edge(to);
        }
        return;
    }
    let start = e.asm.offset();
    let condition = compare(e, condition(op), rs1, rs2);
    // Flags survive moves between registers and memory, but not much else.
    if next == Some(taken) {
        e.branch(condition.inverse(), after, start);
    } else {
        e.branch(condition, taken, start);
        if next != Some(after) {
            e.edge(after);
        }
    }
}

fn condition(op: Op) -> Cc {
    match op {
        Op::Beq => Cc::E,
        Op::Bne => Cc::Ne,
        Op::Blt => Cc::L,
        Op::Bge => Cc::Ge,
        Op::Bltu => Cc::B,
        _ => Cc::Ae,
    }
}

/// The same condition with its operands exchanged.
fn exchanged(cc: Cc) -> Cc {
    match cc {
        Cc::L => Cc::G,
        Cc::Ge => Cc::Le,
        Cc::B => Cc::A,
        Cc::Ae => Cc::Be,
        other => other,
    }
}

/// Compares two guest registers; answers what holds of the flags if `cc` holds of the registers.
pub(super) fn compare(e: &mut Emitter<'_>, cc: Cc, rs1: u8, rs2: u8) -> Cc {
    let small = |value: Option<u64>| value.and_then(|value| i32::try_from(value.cast_signed()).ok());
    if let Some(value) = small(e.constant(rs2)) {
        compare_constant(e, rs1, value);
        return cc;
    }
    if let Some(value) = small(e.constant(rs1)) {
        compare_constant(e, rs2, value);
        return exchanged(cc);
    }
    let left = e.read(rs1, Gpr::Rax);
    let right = e.rm(rs2);
    e.asm.alu(Alu::Cmp, Size::B64, left, right);
    cc
}

/// Compares a guest register with a constant.
pub(super) fn compare_constant(e: &mut Emitter<'_>, register: u8, value: i32) {
    match e.place(register) {
        Place::Host(host) if value == 0 => e.asm.test(Size::B64, host, host),
        Place::Host(host) => e.asm.alu_imm(Alu::Cmp, Size::B64, host, value),
        Place::Hart(mem) => e.asm.alu_imm(Alu::Cmp, Size::B64, Rm::from(mem), value),
        Place::Zero => {
            e.asm.mov_imm(Gpr::Rax, 0);
            e.asm.alu_imm(Alu::Cmp, Size::B64, Gpr::Rax, value);
        }
    }
}
