//! Spots: the last pages of accesses in loops (system machines).
//!
//! Most accesses in a loop walk through memory, and so are in the page of the time before. Each of them, and each leader of a group, has a *spot* in the
//! hart, which it looks at in place of the TLB: four host instructions less, and no load that waits for another.
//!
//! ```text
//! hot:   offset = address - page; offset < size? --no--> cold: the TLB, fill the spot
//!        host address = address + addend
//! ```
//!
//! A spot is worth something only as long as the page is likely to be the same. So accesses by a pointer that was loaded just before have none, nor have those of
//! regions that are no loops.
//!
//! **Validity.** What a spot says holds as long as the TLB may not be told otherwise: inside the region, but for accesses to control registers and fences that
//! are called out. So whenever control comes into the region, at its entry and behind calls, all its spots are emptied, and behind what may change translations, too.

use super::gather::{Line, Piece};
use super::groups::{Role, access};
use super::regions::successors;
use super::words::sources;
use crate::isa::Op;

/// Spots of a hart.
pub(super) const SPOTS: usize = 16;

/// The last page of an access.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Spot {
    /// Where it begins.
    pub(super) page: u64,
    /// In how many of its bytes all that is accessed may begin.
    pub(super) size: u64,
    /// Host address minus guest address.
    pub(super) addend: u64,
}

impl Spot {
    /// Nothing is in it.
    pub(crate) const EMPTY: Self = Self { page: 0, size: 0, addend: 0 };
}

/// The spots of the accesses of a region: for each of its pieces and each of their instructions. `bodies` are the instructions and their roles.
pub(super) fn choose(pieces: &[Piece], bodies: &[(&[Line], &[Role])]) -> Vec<Vec<Option<u8>>> {
    let loops: Vec<(u64, u64)> = pieces
        .iter()
        .flat_map(|piece| successors(piece).into_iter().map(move |next| (next, piece.place)))
        .filter(|(next, from)| next <= from && pieces.iter().any(|piece| piece.place == *next))
        .collect();
    let mut spots = (0..).take(SPOTS);
    let mut chosen: Vec<_> = bodies.iter().map(|(lines, _)| vec![None; lines.len()]).collect();
    // The innermost loops first.
    let depth = |piece: &Piece| loops.iter().filter(|(first, last)| (*first..=*last).contains(&piece.place)).count();
    let mut order: Vec<usize> =
        (0..pieces.len().min(bodies.len())).filter(|index| depth(&pieces[*index]) > 0).collect();
    order.sort_by_key(|index| std::cmp::Reverse(depth(&pieces[*index])));
    let loaded = loaded_registers(bodies);
    for index in order {
        let (lines, roles) = bodies[index];
        for at in 0..lines.len() {
            let is_member = matches!(roles.get(at), Some(Role::Member(_)));
            if access(&lines[at].instruction).is_some() && !is_member && walks(lines, at, loaded) {
                chosen[index][at] = spots.next();
            }
        }
    }
    chosen
}

/// The registers that loads write.
fn loaded_registers(bodies: &[(&[Line], &[Role])]) -> u32 {
    let lines = bodies.iter().flat_map(|(lines, _)| lines.iter());
    lines.filter(|line| is_load(line.instruction.op)).fold(0, |all, line| all | 1 << (line.instruction.rd & 31))
}

fn is_load(op: Op) -> bool {
    op.uses().accesses_memory() && op.uses().writes_integer()
}

/// Whether the base of the access `at` is likely to stay in its page: it does not come from a load of the same piece, nor, if it comes from
/// another, is `loaded`.
fn walks(lines: &[Line], at: usize, loaded: u32) -> bool {
    let mut doubtful = 1_u32 << (lines[at].instruction.rs1 & 31);
    for line in lines[..at].iter().rev() {
        let i = &line.instruction;
        if !i.op.uses().writes_integer() || i.rd == 0 || doubtful >> (i.rd & 31) & 1 == 0 {
            continue;
        }
        if is_load(i.op) {
            return false;
        }
        doubtful &= !(1 << (i.rd & 31));
        doubtful = sources(i).fold(doubtful, |all, source| all | 1 << source);
    }
    // Of what the piece begins with, only the base itself counts: an index may be any number.
    let base = 1 << (lines[at].instruction.rs1 & 31);
    doubtful & base & loaded == 0
}

#[cfg(test)]
mod tests {
    use super::super::gather::{self, Source};
    use super::super::groups::roles;
    use super::*;
    use crate::isa::assemble;

    struct Code(Vec<u8>);

    impl Source for Code {
        fn bits(&self, place: u64) -> Option<u32> {
            let at = usize::try_from(place).ok()?;
            Some(u32::from_le_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
        }
    }

    /// The spots of a piece that is a loop.
    fn of(text: &str) -> Vec<Option<u8>> {
        let code = Code(assemble(&format!("again: {text}\nbne a0,zero,again"), 0).unwrap());
        let pieces = vec![gather::piece(&code, 0).unwrap()];
        let roles = roles(&pieces[0].lines, true);
        choose(&pieces, &[(&pieces[0].lines, &roles)]).remove(0)
    }

    #[test]
    fn who_walks_has_a_spot() {
        assert_eq!(of("lw a1,0(s0)\naddi s0,s0,4\nsw a1,0(s1)"), [Some(0), None, Some(1), None]);
        assert_eq!(of("ld a1,0(s0)\nld a2,8(s0)\nadd a3,s1,s2\nsd a1,0(a3)"), [Some(0), None, None, Some(1), None]);
    }

    #[test]
    fn who_follows_pointers_has_none() {
        assert_eq!(of("ld a1,0(a1)\naddi a0,a0,1"), [None; 3]);
        assert_eq!(of("lbu a1,0(s0)\nslli a1,a1,3\nadd a1,a1,s1\nld a2,0(a1)"), [Some(0), None, None, None, None]);
    }

    #[test]
    fn there_are_only_so_many() {
        let text: String = (1..30).map(|n| format!("lw zero,0(x{n})\n")).collect();
        assert_eq!(of(&text).iter().flatten().count(), SPOTS);
    }
}
