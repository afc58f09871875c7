//! Zicsr, Zifencei, environment calls, Zawrs, Svinval, and the privileged instructions. All of them end a block.
//!
//! A handler here makes the program counter and the count of retired instructions exact before it acts ([`Hart::settle`]), and moves them past
//! the instruction when it has succeeded ([`Hart::retire`]).

use super::follow;
use crate::hart::access::Reservation;
use crate::hart::block::{BlockRef, Cursor, Flow, Side};
use crate::hart::status::mstatus;
use crate::hart::trap::{Cause, Trap};
use crate::hart::{Exit, Fence, Hart, Privilege};

impl Hart {
    /// The instruction that the settled program counter is at has been executed.
    #[inline(always)]
    fn retire(&mut self, index: u32) {
        self.pc = self.pc.wrapping_add(self.block.length(index));
        self.budget -= 1;
    }

    /// The guest waits, at `cursor`, for another hart: it may be one that the host is not running, so the host gets its processor. That takes as long as the
    /// host likes, milliseconds if others want it, and a slice would be thousands of such waits: timers are looked at after each.
    pub(super) fn give_way(&mut self, cursor: Cursor) -> Flow {
        let index = self.settle(cursor);
        self.retire(index);
        // Where harts take turns in one thread, nobody else would run, and time does not pass.
        if self.exact.is_some() {
            return Flow::Find;
        }
        std::thread::yield_now();
        Flow::Look
    }

    /// The next instruction may mean something else now, or an interrupt be due.
    fn after_change(&self) -> Flow {
        if self.deliverable_interrupt().is_some() { Flow::Look } else { Flow::Find }
    }

    fn trap_here(&mut self, cause: Cause, value: u64) -> Flow {
        self.trap = Trap::new(cause, value);
        Flow::Trap
    }
}

/// Bits that are not an instruction.
pub(super) fn illegal(hart: &mut Hart, cursor: Cursor) -> Flow {
    hart.illegal_at(cursor)
}

pub(super) fn ecall(hart: &mut Hart, cursor: Cursor) -> Flow {
    let index = hart.settle(cursor);
    match hart.privilege {
        Privilege::User => hart.trap_here(Cause::UserCall, 0),
        Privilege::Supervisor if hart.config.monitor_sbi => {
            hart.pc = hart.pc.wrapping_add(hart.block.length(index));
            hart.exit = Some(Exit::SupervisorCall);
            Flow::Exit
        }
        Privilege::Supervisor => hart.trap_here(Cause::SupervisorCall, 0),
        Privilege::Machine => hart.trap_here(Cause::MachineCall, 0),
    }
}

pub(super) fn ebreak(hart: &mut Hart, cursor: Cursor) -> Flow {
    hart.settle(cursor);
    hart.trap_here(Cause::Breakpoint, hart.pc)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Update {
    Write,
    Set,
    Clear,
}

/// `csrrw` and its kin: `operand` is the register's or immediate's value, `write` whether they write at all.
fn access(hart: &mut Hart, cursor: Cursor, update: Update, operand: u64, write: bool) -> Flow {
    let register = (cursor.imm() & 0xfff) as u16;
    if !hart.csr_access(register, write) {
        return hart.illegal_at(cursor);
    }
    let block = hart.block;
    let index = hart.settle(cursor);
    let Some(old) = hart.csr(register) else {
        hart.trap = Trap::new(Cause::IllegalInstruction, block.bits(index).into());
        return Flow::Trap;
    };
    hart.retire(index);
    if !write {
        hart.x.set(cursor.rd(), old);
        return go_on(hart, block);
    }
    let base = hart.csr_for_update(register, old);
    let new = match update {
        Update::Write => operand,
        Update::Set => base | operand,
        Update::Clear => base & !operand,
    };
    let context = hart.tlb.fetch_context();
    hart.set_csr(register, new);
    hart.x.set(cursor.rd(), old);
    if hart.deliverable_interrupt().is_some() {
        return Flow::Look;
    }
    if context == hart.tlb.fetch_context() { go_on(hart, block) } else { Flow::Find }
}

/// Continues behind `block`, whose last instruction has retired.
#[inline(always)]
fn go_on(hart: &mut Hart, block: BlockRef) -> Flow {
    if block.is_alone() { Flow::Find } else { follow(hart, block, Side::Next) }
}

pub(super) fn csrrw(hart: &mut Hart, cursor: Cursor) -> Flow {
    let operand = hart.x.get(cursor.rs1());
    access(hart, cursor, Update::Write, operand, true)
}

pub(super) fn csrrs(hart: &mut Hart, cursor: Cursor) -> Flow {
    let operand = hart.x.get(cursor.rs1());
    access(hart, cursor, Update::Set, operand, cursor.rs1() != 0)
}

pub(super) fn csrrc(hart: &mut Hart, cursor: Cursor) -> Flow {
    let operand = hart.x.get(cursor.rs1());
    access(hart, cursor, Update::Clear, operand, cursor.rs1() != 0)
}

pub(super) fn csrrwi(hart: &mut Hart, cursor: Cursor) -> Flow {
    access(hart, cursor, Update::Write, cursor.rs1().into(), true)
}

pub(super) fn csrrsi(hart: &mut Hart, cursor: Cursor) -> Flow {
    access(hart, cursor, Update::Set, cursor.rs1().into(), cursor.rs1() != 0)
}

pub(super) fn csrrci(hart: &mut Hart, cursor: Cursor) -> Flow {
    access(hart, cursor, Update::Clear, cursor.rs1().into(), cursor.rs1() != 0)
}

pub(super) fn fence_i(hart: &mut Hart, cursor: Cursor) -> Flow {
    let index = hart.settle(cursor);
    hart.retire(index);
    hart.fence(Fence::Instructions);
    Flow::Find
}

pub(super) fn mret(hart: &mut Hart, cursor: Cursor) -> Flow {
    if hart.privilege != Privilege::Machine {
        return hart.illegal_at(cursor);
    }
    let index = hart.settle(cursor);
    hart.retire(index);
    hart.return_from_machine();
    hart.after_change()
}

pub(super) fn sret(hart: &mut Hart, cursor: Cursor) -> Flow {
    let trapped = hart.csrs.mstatus & mstatus::TSR != 0;
    match hart.privilege {
        Privilege::Machine => {}
        Privilege::Supervisor if !trapped => {}
        _ => return hart.illegal_at(cursor),
    }
    let index = hart.settle(cursor);
    hart.retire(index);
    hart.return_from_supervisor();
    hart.after_change()
}

/// Whether waiting is illegal in the current mode.
fn waiting_traps(hart: &Hart) -> bool {
    hart.privilege != Privilege::Machine && hart.csrs.mstatus & mstatus::TW != 0
}

pub(super) fn wfi(hart: &mut Hart, cursor: Cursor) -> Flow {
    if waiting_traps(hart) || hart.privilege == Privilege::User {
        return hart.illegal_at(cursor);
    }
    let index = hart.settle(cursor);
    hart.retire(index);
    hart.look_at_timers();
    if hart.pending_interrupts() & hart.csrs.mie != 0 {
        return Flow::Look;
    }
    hart.exit = Some(Exit::Idle);
    Flow::Exit
}

/// Nothing tells the hart when another writes to its reservation set, so it does not sleep: it gives the host's processor away once, and looks again.
pub(super) fn wrs_sto(hart: &mut Hart, cursor: Cursor) -> Flow {
    if hart.reservation != Reservation::default() {
        return hart.give_way(cursor);
    }
    let block = hart.block;
    let index = hart.settle(cursor);
    hart.retire(index);
    follow(hart, block, Side::Next)
}

/// As [`wrs_sto`]; as the wait has no bound, `mstatus.TW` may trap it.
pub(super) fn wrs_nto(hart: &mut Hart, cursor: Cursor) -> Flow {
    if waiting_traps(hart) {
        return hart.illegal_at(cursor);
    }
    wrs_sto(hart, cursor)
}

/// Whether instructions that manage translations may execute now.
fn fences_allowed(hart: &Hart) -> bool {
    match hart.privilege {
        Privilege::User => false,
        Privilege::Supervisor => hart.csrs.mstatus & mstatus::TVM == 0,
        Privilege::Machine => true,
    }
}

/// `sfence.vma` and `sinval.vma`.
pub(super) fn sfence_vma(hart: &mut Hart, cursor: Cursor) -> Flow {
    if !fences_allowed(hart) {
        return hart.illegal_at(cursor);
    }
    let index = hart.settle(cursor);
    hart.retire(index);
    let (start, length) = if cursor.rs1() == 0 { (0, u64::MAX) } else { (hart.x.get(cursor.rs1()), 1) };
    let asid = (cursor.rs2() != 0).then(|| (hart.x.get(cursor.rs2()) & 0xffff) as u16);
    hart.fence(Fence::Translations { start, length, asid });
    Flow::Find
}

/// `sfence.w.inval` and `sfence.inval.ir`: `sinval.vma` is done at once here, so there is nothing to order.
pub(super) fn sfence_order(hart: &mut Hart, cursor: Cursor) -> Flow {
    if hart.privilege == Privilege::User {
        return hart.illegal_at(cursor);
    }
    let block = hart.block;
    let index = hart.settle(cursor);
    hart.retire(index);
    follow(hart, block, Side::Next)
}
