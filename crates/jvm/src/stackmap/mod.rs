//! Which slots of a frame hold references, found by interpreting the method's bytecode abstractly.
//!
//! A slot is a reference, a return address of `jsr`, or something else; where control flow joins, a slot is a reference only if it is one on all ways. Types do
//! not matter, so descriptors of constants are all that is needed of a class. What the verifier accepts has the same depth of stack on all ways.
//!
//! Subroutines (class files below version 51). A local variable may hold a reference for one caller of a subroutine and a number for another. So states that
//! differ in return addresses are not joined but kept as variants, and a look-up compares return addresses with those in the frame. After `ret` its
//! address is forgotten in all slots: no verified code uses it twice.
//!
//! Cost: a method is analysed when a frame of it is met first, in time linear in its code for all practical methods; all its maps are kept, one bit for
//! each slot and instruction.

mod analysis;
mod effect;
mod liveness;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use analysis::{Source, TooComplex, analyze};

/// What descriptors an instruction's constant has.
pub trait Constants {
    /// Whether loading the constant pushes a reference: `ldc` of a string, a class, a method handle or type, or a dynamic constant of such a type.
    fn is_reference(&self, index: u16) -> bool;
    /// The descriptor of a field or method, or what an `invokedynamic` constant or call site has.
    fn descriptor(&self, index: u16, dynamic: bool) -> &[u8];
}

/// The maps of a method.
#[derive(Debug, Default)]
pub struct Maps {
    max_locals: usize,
    /// Bytes of a map: a bit for each local variable, then for each operand.
    stride: usize,
    /// Offsets of instructions that can be reached, in order; several for an instruction in a subroutine.
    bcis: Vec<u16>,
    bits: Vec<u8>,
    /// By position in `bcis`: which slots hold which return addresses. Empty unless there are subroutines.
    returns: Vec<Vec<(u16, u16)>>,
}

/// The map of an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    bits: &'a [u8],
    max_locals: usize,
}

impl Map<'_> {
    fn bit(&self, slot: usize) -> bool {
        self.bits.get(slot / 8).is_some_and(|byte| byte >> (slot % 8) & 1 != 0)
    }

    /// Whether the local variable holds a reference.
    #[inline]
    pub fn local(&self, index: usize) -> bool {
        index < self.max_locals && self.bit(index)
    }

    /// Whether the operand holds a reference; 0 is the bottom of the stack.
    #[inline]
    pub fn operand(&self, index: usize) -> bool {
        self.bit(self.max_locals + index)
    }
}

impl Maps {
    /// The map before the instruction at `bci`; `None` if control never gets there. `slot` reads the frame: a local variable, or an operand from
    /// `max_locals` on; it is only used in methods with subroutines, to read the return address in it as an offset in the code.
    pub fn at(&self, bci: u16, slot: impl Fn(usize) -> u16) -> Option<Map<'_>> {
        let mut index = self.bcis.partition_point(|&known| known < bci);
        loop {
            if *self.bcis.get(index)? != bci {
                return None;
            }
            let fits =
                |returns: &Vec<(u16, u16)>| returns.iter().all(|&(at, address)| slot(usize::from(at)) == address);
            if self.returns.get(index).is_none_or(fits) {
                let bits = &self.bits[index * self.stride..][..self.stride];
                return Some(Map { bits, max_locals: self.max_locals });
            }
            index += 1;
        }
    }

    /// Takes local variables out of the maps that are not read any more: dead ones. `source` is what the maps were made of. Methods with subroutines, and
    /// those that would take long, stay as they are.
    pub fn drop_dead(&mut self, source: Source<'_>) {
        let Some(live) = liveness::find(source) else { return };
        for (bci, bits) in self.bcis.iter().zip(self.bits.chunks_exact_mut(self.stride.max(1))) {
            for local in (0..self.max_locals).filter(|&local| !live.at(*bci, local)) {
                bits[local / 8] &= !(1 << (local % 8));
            }
        }
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.bcis.len() * 2 + self.bits.len() + self.returns.len() * 32
    }
}

/// Which arguments of a method without code are references, receiver included, by slot.
pub fn arguments(descriptor: &[u8], is_static: bool) -> Vec<bool> {
    let mut slots = Vec::new();
    if !is_static {
        slots.push(true);
    }
    effect::arguments(descriptor, |reference, count| {
        slots.push(reference);
        if count == 2 {
            slots.push(false);
        }
    });
    slots
}

/// Maps of methods that were met, by a number of the method and whether dead local variables are in them.
#[derive(Debug, Default)]
pub struct Cache {
    maps: HashMap<(u32, bool), Maps>,
    bytes: usize,
}

/// Bytes of maps that are kept.
const CACHE_BYTES: usize = 16 << 20;

impl Cache {
    /// The maps of a method, which `analyze` finds if they are not here.
    pub fn get(&mut self, method: u32, with_dead: bool, analyze: impl FnOnce() -> Maps) -> &Maps {
        if self.bytes > CACHE_BYTES {
            self.clear();
        }
        self.maps.entry((method, with_dead)).or_insert_with(|| {
            let maps = analyze();
            self.bytes += maps.size();
            maps
        })
    }

    /// Forgets the maps of methods that are unloaded, as their numbers may be used again.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        let bytes = &mut self.bytes;
        self.maps.retain(|&(method, _), maps| {
            let keeps = keep(method);
            if !keeps {
                *bytes -= maps.size();
            }
            keeps
        });
    }

    /// Forgets all maps.
    pub fn clear(&mut self) {
        self.maps.clear();
        self.bytes = 0;
    }
}
