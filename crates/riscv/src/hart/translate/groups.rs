//! Groups: loads and stores near each other, of which the TLB is asked once (system machines).
//!
//! ```text
//! sd ra,40(sp)   leader:  one look for all bytes from 8(sp) to 47(sp) --no--> cold: pointer = 0, look for itself
//!                         pointer of sp = the host's address of 8(sp)
//! sd s0,32(sp)   member:  pointer of sp; none? ------------------------yes-> cold: look for itself
//! addi a0,a0,1
//! ld s1,8(sp)    member
//! ```
//!
//! A group is in one piece, and its base register has the same value for all of it. What the TLB said at its beginning holds until its end: what
//! translations mean changes only at instructions that end pieces, and between slices. Members execute one by one, each with its own slow way, so that
//! traps, devices and groups that lie in two pages need no care.
//!
//! If one of them stores, all go by the TLB's entry for stores: what may be written may be read.
//!
//! Cost: four host instructions for a member in place of ten, and two more for the leader.

use super::gather::Line;
use crate::isa::{Instruction, Op};

/// Bytes from the first to the last of a group at most: the fewer, the less often a group lies in two pages.
const SPAN_MAX: i32 = 512;

/// The bytes that the members of a group access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Offset of the first from the base register.
    pub(super) first: i32,
    /// Offset of the last.
    pub(super) last: i32,
    /// Some of them are written.
    pub(super) writes: bool,
}

/// What an access is in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// It has none.
    #[default]
    Alone,
    Leader(Group),
    Member(Group),
}

/// The size of a load or store, in bytes, and whether it stores.
pub(super) fn access(i: &Instruction) -> Option<(i32, bool)> {
    use Op::*;
    Some(match i.op {
        Lb | Lbu => (1, false),
        Lh | Lhu => (2, false),
        Lw | Lwu | Flw => (4, false),
        Ld | Fld => (8, false),
        Sb => (1, true),
        Sh => (2, true),
        Sw | Fsw => (4, true),
        Sd | Fsd => (8, true),
        _ => return None,
    })
}

/// The role of each instruction of a piece. `float`: loads and stores of floating-point registers are not called out, as all others are not.
pub(super) fn roles(lines: &[Line], float: bool) -> Vec<Role> {
    let mut roles = vec![Role::Alone; lines.len()];
    for leader in 0..lines.len() {
        if roles[leader] == Role::Alone && inline(&lines[leader].instruction, float).is_some() {
            form(lines, leader, float, &mut roles);
        }
    }
    roles
}

/// As [`access`], if the access is inline.
fn inline(i: &Instruction, float: bool) -> Option<(i32, bool)> {
    access(i).filter(|_| float || !matches!(i.op, Op::Flw | Op::Fld | Op::Fsw | Op::Fsd))
}

/// Makes a group of the access `leader` and of those after it, if there are any.
fn form(lines: &[Line], leader: usize, float: bool, roles: &mut [Role]) {
    let base = lines[leader].instruction.rs1;
    let mut group: Option<Group> = None;
    let mut members = Vec::new();
    for (index, line) in lines.iter().enumerate().skip(leader) {
        let i = &line.instruction;
        if let Some((size, writes)) = inline(i, float).filter(|_| i.rs1 == base) {
            let (first, last) = (i.imm, i.imm + size - 1);
            let larger = group.map_or(Group { first, last, writes }, |group| Group {
                first: group.first.min(first),
                last: group.last.max(last),
                writes: group.writes || writes,
            });
            // The next group of the same base register has the same pointer.
            if larger.last - larger.first >= SPAN_MAX {
                break;
            }
            group = Some(larger);
            members.push(index);
        }
        if i.op.uses().writes_integer() && i.rd == base {
            break;
        }
    }
    let Some(group) = group.filter(|_| members.len() > 1) else { return };
    for index in members {
        roles[index] = if index == leader { Role::Leader(group) } else { Role::Member(group) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::{Source, piece};
    use super::*;
    use crate::isa::assemble;

    struct Code(Vec<u8>);

    impl Source for Code {
        fn bits(&self, place: u64) -> Option<u32> {
            let at = usize::try_from(place).ok()?;
            Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
        }
    }

    fn of(text: &str) -> Vec<Role> {
        roles(&piece(&Code(assemble(text, 0).unwrap()), 0).unwrap().lines, true)
    }

    #[test]
    fn neighbours_share_a_look() {
        let group = Group { first: 8, last: 47, writes: true };
        let roles =
            of("ld a0,40(sp)\nadd a1,a1,a0\nld a2,0(a1)\nsd a1,8(sp)\nld sp,16(sp)\nld a3,24(sp)\njalr zero,0(ra)");
        assert_eq!(roles[0], Role::Leader(group));
        assert_eq!((roles[1], roles[2]), (Role::Alone, Role::Alone));
        assert_eq!((roles[3], roles[4]), (Role::Member(group), Role::Member(group)));
        assert_eq!(roles[5], Role::Alone, "sp is another by then");
    }

    #[test]
    fn what_is_called_out_leads_nobody() {
        let lines = piece(&Code(assemble("fld fa0,0(sp)\nld a0,8(sp)\nsd a0,16(sp)\njalr zero,0(ra)", 0).unwrap()), 0)
            .unwrap()
            .lines;
        assert!(matches!(roles(&lines, true)[..], [Role::Leader(_), Role::Member(_), Role::Member(_), _]));
        assert!(matches!(roles(&lines, false)[..], [Role::Alone, Role::Leader(_), Role::Member(_), _]));
    }

    #[test]
    fn groups_are_near() {
        let roles = of("lb a0,0(s0)\nlb a1,1000(s0)\nlb a2,1008(s0)\nlb a3,0(s0)\njalr zero,0(ra)");
        let group = Group { first: 1000, last: 1008, writes: false };
        assert_eq!(roles[..4], [Role::Alone, Role::Leader(group), Role::Member(group), Role::Alone]);
    }
}
