//! Random programs: all of user mode, in a shape that ends.
//!
//! ```text
//! program := unit*
//! unit    := instruction | skip over 1 to 6 units (branch, jump) | loop (1 to 4 times, seldom 60) of units
//!          | a function, called once or several times
//!          | reserve, compute, store conditionally | set the rounding mode | write an instruction, fence.i, execute it | rubbish
//! ```
//!
//! Jumps go forward except at the end of a loop, and enter no loop, so every program ends: at its last instruction, an `ebreak`, or at the first trap.
//! A function is a leaf, returns by `ra`, and is called from a loop right behind it.
//! `sp`, `s0` and `a0` point into the program's memory (`a0` anywhere, the others aligned), `t6` counts loops; no instruction has these
//! as destination, and none of a function `ra`. All else is free to be clobbered.

use riscv::isa::generate::{Generator, Options, Random};
use riscv::isa::{Extension, Instruction, Op};

use crate::case::{FLOAT_ON, Place, State};

/// Bytes of code that a program has at most.
pub const CODE_SIZE: u64 = 2048;
/// Bytes of memory that a program has.
pub const MEMORY_SIZE: u64 = 8192;
/// How many units it has at most, outside of loops.
const UNITS_MAX: u64 = 100;

/// Where functions return to.
pub(crate) const LINK: u8 = 1;
const SP: u8 = 2;
const S0: u8 = 8;
const A0: u8 = 10;
const SCRATCH: u8 = 29;
/// Holds the address of something near, for a moment.
const NEAR: u8 = 30;
const COUNTER: u8 = 31;
const EBREAK: Instruction = Instruction::new(Op::Ebreak);

/// A random program with its registers and memory.
#[derive(Clone)]
pub struct Program {
    /// One word an instruction; compressed ones in the low half.
    pub words: Vec<u32>,
    /// The registers, addresses left out: see [`Self::state`].
    start: State,
    /// Offsets into memory of `sp`, `s0` and `a0`.
    offsets: [u64; 3],
    /// Where the memory's content comes from.
    memory_seed: u64,
    /// Runs with address translation on.
    pub translated: bool,
}

/// How many bytes `word` takes.
#[must_use]
pub const fn length(word: u32) -> u64 {
    if word & 3 == 3 { 4 } else { 2 }
}

impl Program {
    /// The program of `seed`.
    ///
    /// # Panics
    /// The generator's options leave no instructions, which they do.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut writer = Writer::new();
        let units = 4 + random.below(UNITS_MAX);
        writer.units(&mut random, units, false);
        writer.emit(EBREAK);
        let mut start = State { mstatus: FLOAT_ON, fcsr: random.below(5) << 5 | random.below(32), ..State::default() };
        for x in &mut start.x[1..] {
            *x = integer(&mut random);
        }
        for f in &mut start.f {
            *f = float(&mut random);
        }
        let middle = MEMORY_SIZE / 2;
        let mut aligned = || middle - 1024 + 16 * random.below(128);
        let offsets = [aligned(), aligned(), middle - 1024 + random.below(2048)];
        Self { words: writer.words, start, offsets, memory_seed: random.bits(), translated: random.one_in(2) }
    }

    /// The registers at the beginning, if the program is at `place`.
    #[must_use]
    pub fn state(&self, place: &Place) -> State {
        let mut state = State { pc: place.code, ..self.start.clone() };
        for (register, offset) in [SP, S0, A0].into_iter().zip(self.offsets) {
            state.x[usize::from(register)] = place.memory + offset;
        }
        if self.translated {
            state.satp = crate::case::IDENTITY;
        }
        state
    }

    /// The registers at the beginning, to be simplified.
    pub fn start_mut(&mut self) -> &mut State {
        &mut self.start
    }

    /// The code's bytes.
    #[must_use]
    pub fn code(&self) -> Vec<u8> {
        let bytes =
            self.words.iter().flat_map(|word| word.to_le_bytes().into_iter().take(if word & 3 == 3 { 4 } else { 2 }));
        bytes.collect()
    }

    /// The memory's content at the beginning.
    #[must_use]
    pub fn memory(&self) -> Vec<u8> {
        let mut random = Random::new(self.memory_seed);
        (0..MEMORY_SIZE / 8).flat_map(|_| integer(&mut random).to_le_bytes()).collect()
    }
}

/// An integer: small, at an edge, an address-like pattern or anything.
fn integer(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.below(16),
        1 => random.below(16).wrapping_neg(),
        2 => (1 << random.below(64)) - random.below(2),
        3 => random.bits() >> random.below(64),
        4 => float(random),
        _ => random.bits(),
    }
}

/// The bits of a float register: ordinary numbers of both widths, near each other so that they interact, special ones, and rubbish.
fn float(random: &mut Random) -> u64 {
    const BOXED: u64 = 0xffff_ffff_0000_0000;
    let sign = random.below(2);
    match random.below(10) {
        0..3 => sign << 63 | (1023 - 8 + random.below(16)) << 52 | random.bits() >> (12 + random.below(52)),
        3..6 => BOXED | sign << 31 | (127 - 8 + random.below(16)) << 23 | random.below(1 << 23) >> random.below(23),
        6 => sign << 63 | *random.choose(&[0, 1, 2046, 2047]) << 52 | random.bits() >> (12 + random.below(52)),
        7 => BOXED | sign << 31 | *random.choose(&[0, 1, 254, 255]) << 23 | random.below(1 << 23) >> random.below(24),
        8 => BOXED | random.below(1 << 32),
        _ => random.bits(),
    }
}

struct Writer {
    generator: Generator,
    words: Vec<u32>,
    size: u64,
}

impl Writer {
    fn new() -> Self {
        let reserved = 1 << SP | 1 << S0 | 1 << A0 | 1 << COUNTER;
        let mut options = Options::straight_line(vec![SP, S0, A0], !reserved);
        options.weights.extend([
            (Extension::Zbc, 1),
            (Extension::Zbkb, 1),
            (Extension::Zbkx, 1),
            (Extension::Zknd, 1),
            (Extension::Zkne, 1),
            (Extension::Zknh, 1),
            (Extension::Zksed, 1),
            (Extension::Zksh, 1),
        ]);
        options.csrs = vec![1];
        let generator = Generator::new(options).expect("there are extensions");
        Self { generator, words: Vec::new(), size: 0 }
    }

    fn emit(&mut self, instruction: Instruction) {
        self.emit_word(instruction.encode().expect("the operands fit"));
    }

    fn emit_word(&mut self, word: u32) {
        self.words.push(word);
        self.size += length(word);
    }

    /// Room for at least one more unit and the end.
    fn has_room(&self) -> bool {
        self.size + 64 < CODE_SIZE
    }

    fn units(&mut self, random: &mut Random, count: u64, in_loop: bool) {
        // Jumps whose target is so many units ahead.
        let mut pending: Vec<(u64, usize, u64)> = Vec::new();
        for number in 0..count {
            self.land(&mut pending, number);
            if !self.has_room() {
                break;
            }
            match random.below(100) {
                0..6 => {
                    let op = *random.choose(&[Op::Beq, Op::Bne, Op::Blt, Op::Bge, Op::Bltu, Op::Bgeu]);
                    let (rs1, rs2) = (register(random), register(random));
                    pending.push((number + 1 + random.below(6), self.words.len(), self.size));
                    self.emit(Instruction { rs1, rs2, ..Instruction::new(op) });
                }
                6 => {
                    pending.push((number + 1 + random.below(6), self.words.len(), self.size));
                    self.emit(Instruction { rd: destination(random), ..Instruction::new(Op::Jal) });
                }
                7 => {
                    // To the instruction after the one after the jump.
                    self.emit(Instruction { rd: NEAR, ..Instruction::new(Op::Auipc) });
                    let rd = destination(random);
                    self.emit(Instruction { rd, rs1: NEAR, imm: 12, ..Instruction::new(Op::Jalr) });
                    self.emit(EBREAK);
                }
                8..11 if !in_loop => self.repeat(random),
                11 if !in_loop => self.function(random),
                12..14 => self.reserve(random),
                14..16 => self.round(random),
                16 => self.rewrite(random),
                17 if random.one_in(8) => self.rubbish(random),
                _ => {
                    let instruction = self.plain(random);
                    self.emit(instruction);
                }
            }
        }
        self.land(&mut pending, u64::MAX);
    }

    /// Points the jumps to the unit that comes now at it.
    fn land(&mut self, pending: &mut Vec<(u64, usize, u64)>, number: u64) {
        let target = self.size;
        pending.retain(|(unit, index, at)| {
            let due = *unit <= number;
            if due && let Some(jump) = riscv::isa::decode(self.words[*index]) {
                let imm = i32::try_from(target - at).expect("programs are short");
                self.words[*index] = Instruction { imm, ..jump }.encode().expect("programs are short");
            }
            !due
        });
    }

    /// An instruction that goes to the next one, mostly without a trap.
    fn plain(&mut self, random: &mut Random) -> Instruction {
        loop {
            let mut i = self.generator.next(random);
            // Reservations have their own unit; `ctzw` is wrong in qemu 7.2 where the lower half is zero.
            if matches!(i.op, Op::LrW | Op::LrD | Op::Ctzw) {
                continue;
            }
            let atomic = riscv::isa::TABLE[i.op as usize].encoding.is_atomic();
            if atomic && i.rs1 == A0 && !random.one_in(32) {
                i.rs1 = S0;
            }
            // Misaligned: some trap, some just fail, as the processor likes.
            if matches!(i.op, Op::ScW | Op::ScD) && i.rs1 == A0 {
                continue;
            }
            return i;
        }
    }

    fn repeat(&mut self, random: &mut Random) {
        self.count(random);
        let start = self.size;
        let units = 1 + random.below(8);
        self.units(random, units, true);
        self.again(start);
    }

    /// Sets the counter of a loop.
    fn count(&mut self, random: &mut Random) {
        let most = if random.one_in(8) { 60 } else { 4 };
        let times = 1 + random.below(most);
        let imm = i32::try_from(times).unwrap_or_default();
        self.emit(Instruction { rd: COUNTER, imm, ..Instruction::new(Op::Addi) });
    }

    /// Goes back to `start` as often as the counter says.
    fn again(&mut self, start: u64) {
        self.emit(Instruction { rd: COUNTER, rs1: COUNTER, imm: -1, ..Instruction::new(Op::Addi) });
        let back = i32::try_from(self.size - start).expect("programs are short");
        self.emit(Instruction { rs1: COUNTER, imm: -back, ..Instruction::new(Op::Bne) });
    }

    /// A leaf function, which is stepped over, and a loop that calls it: directly, or with its address in a register.
    fn function(&mut self, random: &mut Random) {
        self.count(random);
        let (jump, at) = (self.words.len(), self.size);
        self.emit(Instruction { rd: 0, ..Instruction::new(Op::Jal) });
        let entry = self.size;
        for _ in 0..random.below(8) {
            let instruction = loop {
                let instruction = self.plain(random);
                let line = instruction.op.line();
                if instruction.rd != LINK || !line.writes_integer() {
                    break instruction;
                }
            };
            self.emit(instruction);
        }
        let back = Instruction { rs1: LINK, ..Instruction::new(Op::Jalr) };
        self.emit(if random.one_in(2) { back.compressed().unwrap_or(back) } else { back });
        let over = i32::try_from(self.size - at).expect("programs are short");
        self.words[jump] = Instruction { imm: over, ..Instruction::new(Op::Jal) }.encode().expect("programs are short");
        let start = self.size;
        let near = i32::try_from(self.size - entry).expect("programs are short");
        if random.one_in(2) {
            self.emit(Instruction { rd: LINK, imm: -near, ..Instruction::new(Op::Jal) });
        } else {
            self.emit(Instruction { rd: NEAR, ..Instruction::new(Op::Auipc) });
            self.emit(Instruction { rd: LINK, rs1: NEAR, imm: -near, ..Instruction::new(Op::Jalr) });
        }
        self.again(start);
    }

    /// Load-reserved, some computation, and the store that belongs to it, or one to elsewhere.
    fn reserve(&mut self, random: &mut Random) {
        let (load, store) = *random.choose(&[(Op::LrW, Op::ScW), (Op::LrD, Op::ScD)]);
        let rs1 = *random.choose(&[SP, S0]);
        let mut bits = || u8::try_from(random.below(4)).unwrap_or_default();
        let (loaded, stored) = (bits(), bits());
        self.emit(Instruction { rd: destination(random), rs1, rm: loaded, ..Instruction::new(load) });
        let op = *random.choose(&[Op::Add, Op::Xor, Op::Sub]);
        let (a, b) = (register(random), register(random));
        self.emit(Instruction { rd: destination(random), rs1: a, rs2: b, ..Instruction::new(op) });
        let rs1 = if random.one_in(8) { SP } else { rs1 };
        let rs2 = register(random);
        self.emit(Instruction { rd: destination(random), rs1, rs2, rm: stored, ..Instruction::new(store) });
    }

    /// Sets the rounding mode, seldom to a reserved one; or reads and changes all of `fcsr`.
    fn round(&mut self, random: &mut Random) {
        let rd = destination(random);
        let mode = u8::try_from(if random.one_in(24) { random.below(8) } else { random.below(5) }).unwrap_or_default();
        let csr = |op, rs1, imm| Instruction { rd, rs1, imm, ..Instruction::new(op) };
        match random.below(3) {
            0 => self.emit(csr(Op::Csrrs, 0, 3)),
            1 => self.emit(csr(Op::Csrrwi, u8::try_from(random.below(32)).unwrap_or_default(), 1)),
            _ => self.emit(csr(Op::Csrrwi, mode, 2)),
        }
    }

    /// Writes an instruction over the one after the `fence.i`: any, or an addition of a constant that is another each time round a loop.
    fn rewrite(&mut self, random: &mut Random) {
        let varies = random.one_in(2);
        let word = loop {
            if varies {
                let (rd, rs1) = (destination(random), register(random));
                break Instruction { rd, rs1, ..Instruction::new(Op::Addi) }.encode().unwrap_or_default().cast_signed();
            }
            let word = self.plain(random).encode().unwrap_or_default();
            if word & 3 == 3 {
                break word.cast_signed();
            }
        };
        let lower = word << 20 >> 20;
        self.emit(Instruction { rd: SCRATCH, imm: word.wrapping_sub(lower), ..Instruction::new(Op::Lui) });
        self.emit(Instruction { rd: SCRATCH, rs1: SCRATCH, imm: lower, ..Instruction::new(Op::Addiw) });
        if varies {
            self.emit(Instruction { rd: NEAR, rs1: COUNTER, imm: 20, ..Instruction::new(Op::Slliw) });
            self.emit(Instruction { rd: SCRATCH, rs1: SCRATCH, rs2: NEAR, ..Instruction::new(Op::Add) });
        }
        self.emit(Instruction { rd: NEAR, ..Instruction::new(Op::Auipc) });
        // In halves, since the code may be aligned to two bytes only.
        self.emit(Instruction { rs1: NEAR, rs2: SCRATCH, imm: 20, ..Instruction::new(Op::Sh) });
        self.emit(Instruction { rd: SCRATCH, rs1: SCRATCH, imm: 16, ..Instruction::new(Op::Srliw) });
        self.emit(Instruction { rs1: NEAR, rs2: SCRATCH, imm: 22, ..Instruction::new(Op::Sh) });
        self.emit(Instruction::new(Op::FenceI));
        self.emit(EBREAK);
    }

    /// Bits that may be no instruction; none that goes anywhere or waits.
    fn rubbish(&mut self, random: &mut Random) {
        let word = loop {
            let word = u32::try_from(random.bits() >> 32).unwrap_or_default();
            let word = if word & 3 == 3 { word } else { word & 0xffff };
            match riscv::isa::decode::find(word) {
                // Longer than any instruction there is: one side may look at more bits than the other.
                _ if word & 0x1f == 0x1f => {}
                None => break word,
                Some(line) if line.extension == Extension::Privileged && line.op != Op::Wfi => break word,
                Some(_) => {}
            }
        };
        self.emit_word(word);
    }
}

fn register(random: &mut Random) -> u8 {
    u8::try_from(random.below(32)).unwrap_or_default()
}

/// A register that may be clobbered.
fn destination(random: &mut Random) -> u8 {
    loop {
        let register = register(random);
        if ![SP, S0, A0, COUNTER].contains(&register) {
            return register;
        }
    }
}
