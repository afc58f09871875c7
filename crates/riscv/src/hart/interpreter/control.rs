//! RV64I: jumps and branches. All of them end a block.

use super::{chain, jump};
use crate::hart::Hart;
use crate::hart::block::{Cursor, Flow, Side};

/// The end of a block that has no jump: its page or its room is used up. Not an instruction.
pub(super) fn fall_through(hart: &mut Hart, _: Cursor) -> Flow {
    chain(hart, Side::Next)
}

/// `jal` without link.
pub(super) fn j(hart: &mut Hart, _: Cursor) -> Flow {
    chain(hart, Side::Taken)
}

/// The immediate is the link's offset in the block.
pub(super) fn jal(hart: &mut Hart, cursor: Cursor) -> Flow {
    hart.x.set(cursor.rd(), hart.pc.wrapping_add(cursor.imm()));
    chain(hart, Side::Taken)
}

/// `rs2` is the link's offset in the block, halved.
pub(super) fn jalr(hart: &mut Hart, cursor: Cursor) -> Flow {
    let target = hart.x.get(cursor.rs1()).wrapping_add(cursor.imm()) & !1;
    hart.x.set(cursor.rd(), hart.pc.wrapping_add(2 * u64::from(cursor.rs2())));
    hart.budget -= i64::from(hart.block.count);
    hart.pc = target;
    jump(hart)
}

macro_rules! branches {
    ($($name:ident($a:ident, $b:ident) $condition:expr;)*) => {$(
        pub(super) fn $name(hart: &mut Hart, cursor: Cursor) -> Flow {
            let ($a, $b) = (hart.x.get(cursor.rs1()), hart.x.get(cursor.rs2()));
            if $condition { chain(hart, Side::Taken) } else { chain(hart, Side::Next) }
        }
    )*};
}

branches! {
    beq(a, b) a == b;
    bne(a, b) a != b;
    blt(a, b) a.cast_signed() < b.cast_signed();
    bge(a, b) a.cast_signed() >= b.cast_signed();
    bltu(a, b) a < b;
    bgeu(a, b) a >= b;
}
