//! The part of a hart that translated code knows, besides its registers.

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::Arc;

use machine::address::host_size;

use super::cache::CodeCache;
use super::spots::{SPOTS, Spot};
use crate::hart::Hart;
use crate::mmu::tlb::{Context, Tlb};

/// Entries of a hart's jump cache; a power of two.
pub(super) const JUMPS: usize = 1 << 12;
/// Binary logarithm of an entry's size.
pub(super) const JUMP_SHIFT: u8 = 5;

const _: () = assert!(size_of::<Jump>() == 1 << JUMP_SHIFT);

/// Where the unit for an address is.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Jump {
    /// The guest's address, even; one is none.
    pub(super) pc: u64,
    /// System machines: the TLB's fetch context.
    pub(super) context: u64,
    /// The unit's host address.
    pub(super) code: u64,
    unused: u64,
}

/// Units that a hart finds by their keys without the cache; a power of two.
const UNITS: usize = 1 << 14;
/// No unit is at zero. The host gives the pages of a table of these when they are used.
const NO_UNIT: (u64, u64) = (0, 0);

/// Offset in the hart of what fetches now mean.
pub(super) fn fetch_context() -> usize {
    offset_of!(Hart, tlb) + Tlb::FETCH_CONTEXT_OFFSET
}

/// Blocks that samples are counted of.
const SAMPLED_MAX: usize = 256;

/// How often slices ended in which block.
#[derive(Default)]
pub(crate) struct Samples(HashMap<u64, u8>);

impl Samples {
    /// Counts a sample of the block with `key`; whether there are `wanted` now.
    pub(super) fn is_enough(&mut self, key: u64, wanted: u8) -> bool {
        if self.0.len() >= SAMPLED_MAX {
            self.0.clear();
        }
        let count = self.0.entry(key).or_default();
        *count += 1;
        let enough = *count >= wanted;
        if enough {
            self.0.remove(&key);
        }
        enough
    }
}

/// See the module.
#[repr(C)]
pub(crate) struct HartState {
    /// System machines: the virtual address of the page of code that runs. User machines: zero.
    pub(crate) page: u64,
    /// `rsp` in translated code with an empty return stack.
    pub(crate) stack_base: u64,
    /// Below this `rsp`, the return stack is full.
    pub(crate) stack_limit: u64,
    /// The first of `table`.
    pub(crate) jumps: *mut Jump,
    /// Stub: leaves translated code; `rax` holds the address of an [`Exit`](super::emit::Exit).
    pub(crate) leave: u64,
    /// Stub: leaves translated code for the guest address in `rax`, whose lowest bit does not count.
    pub(crate) leave_to: u64,
    /// Stub: calls the interpreter for the [`Exit`](super::emit::Exit) in `rax`.
    pub(crate) call_out: u64,
    /// User machines: where flat memory ends.
    pub(crate) limit: u64,
    /// Loops are tried packed when the budget is at most this: see [`super::packed`].
    pub(super) packed_below: i64,
    /// What makes a single NaN-boxed in a vector register.
    pub(crate) boxes: [u32; 4],
    /// MXCSR in translated code: the guest's flags are in it.
    pub(crate) mxcsr: u32,
    /// What Rust code wants MXCSR to be.
    pub(super) plain_mxcsr: u32,
    /// The guest's flags, if they are watched: see [`super::flags`].
    pub(super) watched: i32,
    /// How often MXCSR was read for them since they were last.
    pub(super) flag_reads: u32,
    /// How often an operation has trapped for them.
    pub(super) flag_traps: u32,
    /// What the call out ended with, if not with the next instruction.
    pub(crate) flow: crate::hart::block::Flow,
    /// The units, if this hart translates.
    pub(crate) cache: Option<Arc<CodeCache>>,
    /// The cache's generation that all of this belongs to.
    pub(crate) generation: u64,
    /// Where slices ended.
    pub(super) samples: Samples,
    /// There is no room for more units: all are to be dropped at the end of the slice.
    pub(crate) flush_due: bool,
    /// A vector, to take a part of.
    pub(super) vector: [u64; 4],
    /// Host addresses of groups of accesses, by base register: see [`super::groups`].
    pub(super) pointers: [u64; 32],
    /// The last pages of accesses.
    pub(super) spots: [Spot; SPOTS],
    table: Box<[Jump]>,
    /// Where units are, by their keys: what a new address space, whose jumps are not known yet, finds first.
    units: Box<[(u64, u64)]>,
}

impl HartState {
    /// Of a hart that only interprets.
    pub(crate) fn new() -> Self {
        Self {
            page: 0,
            stack_base: 0,
            stack_limit: 0,
            jumps: std::ptr::null_mut(),
            leave: 0,
            leave_to: 0,
            call_out: 0,
            limit: 0,
            packed_below: i64::MAX,
            boxes: [0, !0, 0, 0],
            mxcsr: super::flags::to_mxcsr(0),
            plain_mxcsr: super::flags::to_mxcsr(0),
            watched: super::flags::UNWATCHED,
            flag_reads: 0,
            flag_traps: 0,
            flow: crate::hart::block::Flow::Find,
            cache: None,
            generation: 0,
            samples: Samples::default(),
            flush_due: false,
            vector: [0; 4],
            pointers: [0; 32],
            spots: [Spot::EMPTY; SPOTS],
            table: Box::new([]),
            units: Box::new([]),
        }
    }

    /// From now on the hart translates with `cache`.
    pub(crate) fn attach(&mut self, cache: Arc<CodeCache>) {
        let stubs = cache.stubs();
        (self.leave, self.leave_to, self.call_out) = (stubs.leave, stubs.leave_to, stubs.call_out);
        // The host gives the pages of a table of zeroes when they are used. In the first entry zero would be an address; it can be that of no other.
        // SAFETY: its entries are numbers.
        self.table = unsafe { Box::new_zeroed_slice(JUMPS).assume_init() };
        self.table[0] = self.no_jump();
        self.jumps = self.table.as_mut_ptr();
        self.units = vec![NO_UNIT; UNITS].into_boxed_slice();
        self.limit = cache.flat_size().unwrap_or(0);
        self.generation = cache.generation();
        self.cache = Some(cache);
    }

    /// From now on the hart only interprets.
    pub(crate) fn detach(&mut self) {
        self.cache = None;
        self.forget_jumps();
    }

    /// Forgets the last pages of accesses: translations may have changed.
    pub(super) fn empty_spots(&mut self) {
        self.spots = [Spot::EMPTY; SPOTS];
    }

    /// Forgets where units are.
    pub(crate) fn forget_jumps(&mut self) {
        let none = self.no_jump();
        self.table.fill(none);
        self.units.fill(NO_UNIT);
    }

    /// Forgets the unit with `key`, which is at `pc`.
    pub(super) fn forget_unit(&mut self, key: u64, pc: u64) {
        if let Some(unit) = self.units.get_mut(Self::unit_index(key)).filter(|unit| unit.0 == key) {
            *unit = NO_UNIT;
        }
        let none = self.no_jump();
        if let Some(jump) = self.table.get_mut(Self::jump_index(pc)).filter(|jump| jump.pc == pc) {
            *jump = none;
        }
    }

    /// The entry that leads out of translated code, as what is not in the table does: should a guest jump to the odd address in it, that is right.
    fn no_jump(&self) -> Jump {
        Jump { pc: 1, context: 0, code: self.leave_to, unused: 0 }
    }

    fn jump_index(pc: u64) -> usize {
        // Of two instructions in four bytes, seldom both are jumped to.
        host_size(pc >> 2) & (JUMPS - 1)
    }

    fn unit_index(key: u64) -> usize {
        host_size(key >> 1 ^ key >> 15) & (UNITS - 1)
    }

    /// The host address of the unit with `key`, if it was noted.
    pub(crate) fn unit(&self, key: u64) -> Option<u64> {
        self.units.get(Self::unit_index(key)).filter(|unit| unit.0 == key && **unit != NO_UNIT).map(|unit| unit.1)
    }

    /// Notes where the unit with `key` is.
    pub(crate) fn enter_unit(&mut self, key: u64, code: u64) {
        if let Some(unit) = self.units.get_mut(Self::unit_index(key)) {
            *unit = (key, code);
        }
    }

    /// Notes where the unit for `pc` is.
    pub(crate) fn enter_jump(&mut self, pc: u64, context: Context, code: u64) {
        if let Some(jump) = self.table.get_mut(Self::jump_index(pc)) {
            *jump = Jump { pc, context: context.bits(), code, unused: 0 };
        }
    }
}
