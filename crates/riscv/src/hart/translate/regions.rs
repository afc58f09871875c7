//! Regions: which blocks make a unit of their own, and where its guest registers are.
//!
//! ```text
//! a sample (the block in which a slice ended), some times the same
//!   --> blocks reachable from it, over branches, jumps and behind calls; in the page, and not too many
//!   --> those of them that lead back to it: the loops around it; if none do, the first of all
//!   --> registers: those used most, inner loops weighing more, in place of pinned ones that are used less
//! ```
//!
//! Nothing is counted in translated code: what runs long is what samples find. A region is entered at the sampled block only; its other blocks keep
//! their own units for whoever comes from elsewhere.
//!
//! Since a region's assignment differs from the default one in some registers only, its entry and its exits exchange just those.

use std::collections::{BTreeMap, BTreeSet};

use super::flow;
use super::gather::{self, Line, Piece, Source, is_branch, is_called_out, is_left_to_the_interpreter};
use super::mapping::{Mapping, needs_rdx};
use super::words;
use crate::isa::Op;

/// Blocks looked at around a sample.
const PIECES_MAX: usize = 96;
/// Blocks of a region that is not a loop.
const STRAIGHT_PIECES_MAX: usize = 24;
/// Instructions of a region.
const REGION_LINES_MAX: usize = 1024;

/// What a unit is to be made of.
pub(super) struct Region {
    /// In the order of their places.
    pub(super) pieces: Vec<Piece>,
    pub(super) mapping: Mapping,
}

/// Where control goes after a block, as far as it can be told.
pub(super) fn successors(piece: &Piece) -> Vec<u64> {
    let Some(line) = piece.lines.last() else { return Vec::new() };
    match line.instruction.op {
        Op::Jal if line.instruction.rd == 0 => vec![line.target()],
        // Behind the call.
        Op::Jal => vec![line.after()],
        Op::Jalr if line.instruction.rd != 0 => vec![line.after()],
        Op::Jalr => Vec::new(),
        op if is_branch(op) => vec![line.target(), line.after()],
        _ if is_left_to_the_interpreter(&line.instruction) && !is_called_out(&line.instruction) => Vec::new(),
        _ => vec![line.after()],
    }
}

/// The places before the end of the piece that it may jump to.
pub(super) fn back_edges(piece: &Piece) -> impl Iterator<Item = u64> + use<> {
    let place = piece.place;
    successors(piece).into_iter().filter(move |next| *next <= place)
}

fn is_call(line: &Line) -> bool {
    matches!(line.instruction.op, Op::Jal | Op::Jalr) && line.instruction.rd != 0
}

/// The region around the block at `place`; `None` if it would be that block alone, without a loop.
/// `flat`: in a user machine.
pub(super) fn around(source: &impl Source, place: u64, flat: bool) -> Option<Region> {
    let blocks = reachable(source, place);
    let loops = leading_back(&blocks, place);
    let chosen: BTreeSet<u64> = if loops.is_empty() { near(&blocks, place) } else { loops };
    let mut lines_count = 0;
    let pieces: Vec<Piece> = chosen
        .iter()
        .filter_map(|place| blocks.get(place))
        .take_while(|piece| {
            lines_count += piece.lines.len();
            lines_count <= REGION_LINES_MAX
        })
        .cloned()
        .collect();
    let again = pieces.iter().any(|piece| successors(piece).contains(&piece.place));
    if !pieces.iter().any(|piece| piece.place == place) || pieces.len() == 1 && !again {
        return None;
    }
    let mapping = assign(&pieces, flat);
    Some(Region { pieces, mapping })
}

/// The blocks that control can come to from `place`, split wherever it may enter.
fn reachable(source: &impl Source, place: u64) -> BTreeMap<u64, Piece> {
    let mut found = BTreeMap::new();
    let mut open = std::collections::VecDeque::from([place]);
    while let Some(at) = open.pop_front() {
        if found.contains_key(&at) || found.len() >= PIECES_MAX {
            continue;
        }
        if let Some(piece) = gather::piece(source, at) {
            open.extend(successors(&piece));
            found.insert(at, piece);
        }
    }
    let heads: Vec<u64> = found.keys().copied().collect();
    for piece in found.values_mut() {
        if let Some(cut) = piece.lines.iter().skip(1).position(|line| heads.binary_search(&line.place).is_ok()) {
            piece.lines.truncate(cut + 1);
        }
    }
    found
}

/// The blocks from which control can come to `place`, if `place` is one of them.
fn leading_back(blocks: &BTreeMap<u64, Piece>, place: u64) -> BTreeSet<u64> {
    let mut back = BTreeSet::new();
    loop {
        let before = back.len();
        for (at, piece) in blocks {
            if successors(piece).iter().any(|next| *next == place || back.contains(next)) {
                back.insert(*at);
            }
        }
        if back.len() == before {
            break;
        }
    }
    if back.contains(&place) { back } else { BTreeSet::new() }
}

/// The first few blocks after `place`.
fn near(blocks: &BTreeMap<u64, Piece>, place: u64) -> BTreeSet<u64> {
    let mut chosen = BTreeSet::new();
    let mut open = std::collections::VecDeque::from([place]);
    while let Some(at) = open.pop_front() {
        if chosen.len() < STRAIGHT_PIECES_MAX
            && let Some(piece) = blocks.get(&at)
            && chosen.insert(at)
        {
            open.extend(successors(piece));
        }
    }
    chosen
}

/// How much more an instruction weighs for each loop that it is in.
const LOOP_WEIGHT: u64 = 8;
const DEPTH_MAX: u32 = 5;

/// Chooses registers by how often they are used.
fn assign(pieces: &[Piece], flat: bool) -> Mapping {
    let loops: Vec<(u64, u64)> = pieces
        .iter()
        .flat_map(|piece| successors(piece).into_iter().map(move |next| (next, piece.place)))
        .filter(|(next, from)| next <= from && pieces.iter().any(|piece| piece.place == *next))
        .collect();
    let (mut uses, mut float_uses) = ([0_u64; 32], [0_u64; 32]);
    let (mut calls, mut lendings) = (0, 0);
    for piece in pieces {
        let depth = loops.iter().filter(|(first, last)| (*first..=*last).contains(&piece.place)).count();
        let weight = LOOP_WEIGHT.pow(u32::try_from(depth).unwrap_or(DEPTH_MAX).min(DEPTH_MAX));
        for line in &piece.lines {
            let i = &line.instruction;
            for register in words::sources(i) {
                uses[usize::from(register)] += weight;
            }
            if i.op.uses().writes_integer() {
                uses[usize::from(i.rd & 31)] += weight;
            }
            flow::count_floats(i, weight, &mut float_uses);
            if is_call(line) {
                calls += weight;
            }
            if needs_rdx(i) {
                lendings += weight;
            }
        }
    }
    let mut mapping = *Mapping::at_links(flat);
    let mut wanted: Vec<u8> = (1..32).filter(|register| mapping.get(*register).is_none()).collect();
    wanted.sort_by_key(|register| std::cmp::Reverse(uses[usize::from(*register)]));
    let mut given: Vec<u8> = mapping.pairs().map(|(register, _)| register).collect();
    given.sort_by_key(|register| uses[usize::from(*register)]);
    for (new, old) in wanted.into_iter().zip(given) {
        // Each call exchanges the two before and behind it.
        if uses[usize::from(new)] > uses[usize::from(old)] + 4 * calls + 2 {
            mapping.replace(old, new);
        }
    }
    if let Some(register) = mapping.in_rdx()
        && uses[usize::from(register)] < 2 * lendings
    {
        mapping.remove(register);
    }
    let mut floats: Vec<u8> = (0..32).filter(|register| float_uses[usize::from(*register)] > 4 * calls + 4).collect();
    floats.sort_by_key(|register| std::cmp::Reverse(float_uses[usize::from(*register)]));
    mapping.assign_vectors(floats.into_iter());
    mapping
}
