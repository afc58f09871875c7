//! Which local variables may still be read, found backwards: a variable lives from where a reference is stored in it to the last `aload` that may see that.
//!
//! A dead variable's object is not reachable as JLS 12.6.1 has it, which is about what any continuing computation may access; see [`crate::roots`] for when
//! that is made use of.
//!
//! Cost: a few passes over the code, each in time linear in instructions and variables. Subroutines, and methods that would take long, are not analysed.

use classfile::opcode::{Instruction, Instructions, Opcode};

use super::Source;

/// Words of sets of variables at most, over all instructions: 2 MiB.
const WORDS_MAX: usize = 1 << 18;
/// Instructions times handlers at most.
const HANDLED_MAX: usize = 1 << 20;
/// Passes at most; nested loops take one each.
const PASSES_MAX: usize = 64;

/// For each instruction in order, its offset and the variables that live before it.
#[derive(Debug)]
pub(super) struct Live {
    bcis: Vec<u16>,
    words: usize,
    bits: Vec<u64>,
}

impl Live {
    /// Whether the variable lives before the instruction at `bci`.
    pub(super) fn at(&self, bci: u16, local: usize) -> bool {
        let Ok(index) = self.bcis.binary_search(&bci) else { return true };
        self.bits[index * self.words + local / 64] >> (local % 64) & 1 != 0
    }
}

/// Where control may go from an instruction but to the next: offsets, which may be outside of the code.
fn targets(instruction: &Instruction<'_>) -> impl Iterator<Item = i64> {
    let switch = instruction.switch();
    let cases = switch.map(|switch| std::iter::once(switch.default).chain(switch.cases().map(|(_, target)| target)));
    instruction.branch().into_iter().chain(cases.into_iter().flatten())
}

/// Finds the variables that live; `None` if that takes too long, or the method has subroutines.
pub(super) fn find(source: Source<'_>) -> Option<Live> {
    let instructions: Vec<_> = Instructions::new(source.code).map_while(Result::ok).collect();
    let words = usize::from(source.max_locals).div_ceil(64);
    let has_subroutines = |opcode| matches!(opcode, Opcode::Jsr | Opcode::JsrW | Opcode::Ret);
    if instructions.iter().any(|instruction| has_subroutines(instruction.opcode))
        || instructions.len() * words > WORDS_MAX
        || instructions.len() * source.handlers.len() > HANDLED_MAX
    {
        return None;
    }
    let bcis: Vec<u16> = instructions.iter().map(|instruction| instruction.offset).collect();
    let index_of = |bci: i64| u16::try_from(bci).ok().and_then(|bci| bcis.binary_search(&bci).ok());
    let handlers: Vec<_> = source
        .handlers
        .iter()
        .filter_map(|&(start, end, target)| Some((start..end, index_of(i64::from(target))?)))
        .collect();
    let mut bits = vec![0u64; instructions.len() * words];
    let mut live = vec![0u64; words];
    for _ in 0..PASSES_MAX {
        let mut changed = false;
        for (index, instruction) in instructions.iter().enumerate().rev() {
            live.fill(0);
            let join = |live: &mut [u64], from: usize| {
                live.iter_mut().zip(&bits[from * words..][..words]).for_each(|(word, more)| *word |= more);
            };
            if !instruction.opcode.ends_block() && index + 1 < instructions.len() {
                join(&mut live, index + 1);
            }
            targets(instruction).filter_map(&index_of).for_each(|target| join(&mut live, target));
            if let Some(local) = instruction.local().map(usize::from).filter(|&local| local < words * 64) {
                match instruction.opcode {
                    Opcode::AStore | Opcode::AStore0 | Opcode::AStore1 | Opcode::AStore2 | Opcode::AStore3 => {
                        live[local / 64] &= !(1 << (local % 64));
                    }
                    Opcode::ALoad | Opcode::ALoad0 | Opcode::ALoad1 | Opcode::ALoad2 | Opcode::ALoad3 => {
                        live[local / 64] |= 1 << (local % 64);
                    }
                    _ => {}
                }
            }
            for (range, target) in &handlers {
                if range.contains(&instruction.offset) {
                    join(&mut live, *target);
                }
            }
            let known = &mut bits[index * words..][..words];
            if known != live {
                known.copy_from_slice(&live);
                changed = true;
            }
        }
        if !changed {
            return Some(Live { bcis, words, bits });
        }
    }
    None
}
