//! Cases that are run on both sides and compared.
#![allow(dead_code, reason = "each test program uses its part")]

use std::time::Duration;

use lab::case::{Batch, Outcome, Place, State};
use riscv::isa::disassemble;

/// Integers at which instructions change their mind.
pub(crate) const INTEGER_EDGES: [u64; 18] = [
    0,
    1,
    2,
    31,
    63,
    64,
    0xff,
    0x7fff,
    0xffff_8000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

/// Single-precision numbers at the edges, by their bits.
pub(crate) const FLOAT_EDGES_32: [u32; 34] = [
    0x0000_0000,
    0x8000_0000, // zeroes
    0x0000_0001,
    0x8000_0001,
    0x007f_ffff,
    0x807f_ffff, // subnormal
    0x0080_0000,
    0x8080_0000,
    0x0080_0001, // smallest normal
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f00_0000, // largest
    0x7f80_0000,
    0xff80_0000, // infinities
    0x7fc0_0000,
    0xffc0_0000,
    0x7f80_0001,
    0xff80_0001,
    0x7fff_ffff,
    0x7fa0_0000, // NaNs, quiet and signalling
    0x3f80_0000,
    0xbf80_0000,
    0x3f80_0001,
    0x3f7f_ffff,
    0x4000_0000,
    0x3f00_0000,
    0x3fc0_0000,
    0xc020_0000, // about one
    0x4eff_ffff,
    0x4f00_0000,
    0xcf00_0000, // 2^31
    0x5f00_0000,
    0xdf00_0000,
    0x5f80_0000, // 2^63, 2^64
];

/// Double-precision numbers at the edges, by their bits.
pub(crate) const FLOAT_EDGES_64: [u64; 40] = [
    0x0000_0000_0000_0000,
    0x8000_0000_0000_0000,
    0x0000_0000_0000_0001,
    0x8000_0000_0000_0001,
    0x000f_ffff_ffff_ffff,
    0x800f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x8010_0000_0000_0000,
    0x0010_0000_0000_0001,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x7fe0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0xfff4_0000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x3ff0_0000_0000_0001,
    0x3fef_ffff_ffff_ffff,
    0x4000_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ff8_0000_0000_0000,
    0xc004_0000_0000_0000,
    0x41df_ffff_ffc0_0000,
    0x41df_ffff_ffe0_0000,
    0xc1e0_0000_0000_0000,
    0xc1e0_0000_0020_0000,
    0x41ef_ffff_ffe0_0000,
    0x43df_ffff_ffff_ffff,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x43f0_0000_0000_0000,
    // What single precision can just or just not hold: its smallest and largest, and half a unit beside.
    0x36a0_0000_0000_0000,
    0x3690_0000_0000_0000,
    0x47ef_ffff_e000_0000,
    0x47ef_ffff_f000_0000,
];

/// A single-precision number as a floating-point register holds it.
pub(crate) const fn boxed(bits: u64) -> u64 {
    bits | 0xffff_ffff_0000_0000
}

/// How many cases are in memory at a time.
const BATCH: usize = 20_000;

/// Cases that gather until there are enough to run.
pub(crate) struct Cases {
    name: &'static str,
    batch: Batch,
    code_size: u64,
    memory_size: u64,
    limit: usize,
    total: usize,
    ended: usize,
    differences: Vec<String>,
}

impl Cases {
    pub(crate) fn new(name: &'static str, code_size: u64, memory_size: u64) -> Self {
        let batch = Batch::new(code_size, memory_size);
        Self { name, batch, code_size, memory_size, limit: BATCH, total: 0, ended: 0, differences: Vec::new() }
    }

    /// The same with so many cases in memory at a time.
    pub(crate) fn in_batches_of(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Where the next case will be.
    pub(crate) fn next_place(&self) -> Place {
        self.batch.next_place()
    }

    /// Adds a case; `set` fills in the state, whose pc is at the code.
    pub(crate) fn add(&mut self, code: &[u8], memory: &[u8], set: impl FnOnce(&Place, &mut State)) {
        let place = self.batch.next_place();
        let mut state = State { pc: place.code, ..State::default() };
        set(&place, &mut state);
        self.batch.push(&state, code, memory);
        if self.batch.len() >= self.limit {
            self.run();
        }
    }

    fn run(&mut self) {
        let batch = std::mem::replace(&mut self.batch, Batch::new(self.code_size, self.memory_size));
        self.total += batch.len();
        let before = batch.image();
        let theirs = lab::engine::qemu(&before, Duration::from_secs(120)).unwrap();
        let ours = lab::engine::isomorph(&before, Duration::from_secs(120)).unwrap();
        for index in 0..batch.len() {
            let (ours, mut theirs) = (batch.outcome(&ours, index), batch.outcome(&theirs, index));
            ours.settle(&mut theirs);
            self.ended += usize::from(theirs.state.cause == 3);
            if ours != theirs {
                self.differences.push(describe(&batch, &before, index, &ours, &theirs));
            }
        }
    }

    /// Runs what is left, and fails if anything differed, or if less than `percent` of the cases came to the `ebreak` at their end: then they would
    /// test something else than they are meant to.
    pub(crate) fn compare(mut self, percent: usize) {
        if !self.batch.is_empty() {
            self.run();
        }
        let (count, shown) = (self.differences.len(), self.differences.len().min(20));
        println!("{}: {} cases, {} of which ran to their end", self.name, self.total, self.ended);
        assert!(self.total > 50 && self.ended * 100 >= self.total * percent, "{} of {}", self.ended, self.total);
        let shown = self.differences[..shown].join("\n");
        assert!(count == 0, "{}: {count} of {} cases differ from qemu:\n{shown}", self.name, self.total);
    }
}

fn describe(batch: &Batch, image: &[u8], index: usize, ours: &Outcome, theirs: &Outcome) -> String {
    use std::fmt::Write;
    let before = batch.outcome(image, index).state;
    let mut text = String::new();
    let mut at = before.pc;
    for _ in 0..4 {
        let offset = usize::try_from(at - lab::case::BASE).unwrap();
        let word = u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap());
        let _ = write!(text, "{}; ", disassemble(word, at));
        at += if word & 3 == 3 { 4 } else { 2 };
        if matches!(word, 0x0010_0073) || word & 0xffff == 0x9002 {
            break;
        }
    }
    let _ = write!(text, "fcsr={:#x}", before.fcsr);
    for (name, here, there) in ours.state.differences(&theirs.state) {
        let _ = write!(text, "\n    {name}: ours {here:#018x}, qemu {there:#018x}");
    }
    if ours.memory != theirs.memory {
        let _ = write!(text, "\n    memory differs");
    }
    let inputs = before.differences(&State { pc: before.pc, ..State::default() });
    let names: Vec<_> = text.split([' ', ',', '(', ')', ';', '\n']).map(str::to_owned).collect();
    for (name, value, _) in inputs.iter().filter(|(name, ..)| inputs.len() <= 10 || names.contains(name)) {
        let _ = write!(text, "\n    before: {name} = {value:#018x}");
    }
    text
}
