//! Random instructions, drawn from the table.

use machine::entropy::Entropy;

use super::{Extension, Instruction, Line, Op, TABLE};

/// A seeded stream of random numbers.
#[derive(Debug)]
pub struct Random(Entropy);

impl Random {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Entropy::Seeded(seed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        // A seeded stream does not fail.
        self.0.next_u64().unwrap_or_default()
    }

    /// A number less than `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64).try_into().unwrap_or_default()
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`, which are not empty.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let count = choices.len() as u64;
        &choices[usize::try_from(self.below(count)).unwrap_or_default()]
    }
}

/// What [`Generator`] may produce.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often an extension's instructions come, relative to others; one not named never comes.
    pub weights: Vec<(Extension, u32)>,
    /// Whether branches, jumps, environment calls and trap returns may come.
    pub control_flow: bool,
    /// Integer registers that may be written, as a set of bits; zero is always among them.
    pub destinations: u32,
    /// Registers that hold addresses: loads, stores and atomics use them as base. Without any, none of these come.
    pub bases: Vec<u8>,
    /// CSRs that may be named. Without any, no CSR instructions come.
    pub csrs: Vec<u16>,
    /// Whether reserved rounding modes may come.
    pub reserved_rounding: bool,
}

impl Options {
    /// Everything a user-mode program can do in a straight line, on the extensions that every current simulator has.
    #[must_use]
    pub fn straight_line(bases: Vec<u8>, destinations: u32) -> Self {
        use Extension::{A, C, D, F, I, M, Zba, Zbb, Zbs, Zcd, Zicsr, Zifencei};
        Self {
            weights: [(I, 8), (M, 3), (A, 2), (F, 5), (D, 5), (C, 8), (Zcd, 1), (Zba, 2), (Zbb, 3), (Zbs, 2)]
                .into_iter()
                .chain([(Zicsr, 1), (Zifencei, 1)])
                .collect(),
            control_flow: false,
            destinations: destinations | 1,
            bases,
            csrs: vec![1, 2, 3],
            reserved_rounding: false,
        }
    }
}

/// What an instruction is apart from its operands, as far as generating it needs to know.
impl Line {
    /// Whether it accesses memory at `rs1`; a prefetch does not.
    #[must_use]
    pub fn accesses_memory(&self) -> bool {
        self.operands.ends_with(')') && !matches!(self.op, Op::Jalr | Op::Ori)
    }

    /// Whether it may go elsewhere than to the next instruction without a fault, or waits.
    #[must_use]
    pub fn leaves(&self) -> bool {
        let other = [Op::Jalr, Op::Ecall, Op::Ebreak, Op::Mret, Op::Sret, Op::Wfi, Op::WrsNto, Op::WrsSto];
        self.operands.ends_with("target") || other.contains(&self.op)
    }

    /// Whether `rd` is an integer register that it writes.
    #[must_use]
    pub fn writes_integer(&self) -> bool {
        self.encoding.rd.range() != (0, 0) && !self.writes_float()
    }

    /// Whether `rd` is a floating-point register that it writes.
    #[must_use]
    pub fn writes_float(&self) -> bool {
        self.operands.starts_with("fd")
    }

    /// Whether `operand` is among its operands.
    #[must_use]
    pub fn has_operand(&self, operand: &str) -> bool {
        self.operands.split([',', '(', ')']).any(|known| known == operand)
    }
}

/// Draws instructions under some [`Options`].
#[derive(Debug)]
pub struct Generator {
    options: Options,
    /// Lines that may come, with the sum of weights up to and including each.
    lines: Vec<(u64, &'static Line)>,
}

impl Generator {
    /// A generator, or `None` if the options leave no instruction.
    #[must_use]
    pub fn new(options: Options) -> Option<Self> {
        let mut lines = Vec::new();
        let mut sum = 0;
        for (extension, weight) in &options.weights {
            let members: Vec<_> =
                TABLE.iter().filter(|line| line.extension == *extension && allowed(line, &options)).collect();
            for line in &members {
                // Extensions weigh by their weight, not by their size.
                sum += u64::from(*weight) * 1000 / members.len() as u64;
                lines.push((sum, *line));
            }
        }
        (sum > 0).then_some(Self { options, lines })
    }

    /// A random instruction; it can be encoded.
    pub fn next(&self, random: &mut Random) -> Instruction {
        loop {
            let total = self.lines.last().map_or(1, |(sum, _)| *sum);
            let draw = random.below(total);
            let (_, line) = self.lines[self.lines.partition_point(|(sum, _)| *sum <= draw)];
            // Combinations that an encoding reserves are drawn again.
            for _ in 0..20 {
                if let Some(instruction) = self.instance(line, random) {
                    return instruction;
                }
            }
        }
    }

    /// A random instance of `line`, or `None` if the operands drawn are reserved.
    pub fn instance(&self, line: &Line, random: &mut Random) -> Option<Instruction> {
        let encoding = &line.encoding;
        let mut i = encoding.decode(line.op, encoding.bits);
        let any = |field: super::encoding::Field, random: &mut Random| {
            let (low, high) = field.range();
            low + u8::try_from(random.below(u64::from(high - low) + 1)).unwrap_or_default()
        };
        i.rd = any(encoding.rd, random);
        i.rs1 = any(encoding.rs1, random);
        i.rs2 = any(encoding.rs2, random);
        i.rs3 = any(encoding.rs3, random);
        i.rm = any(encoding.rm, random);
        if encoding.shares_source() {
            i.rs1 = i.rd;
        }
        if encoding.has_rounding_mode() && !self.options.reserved_rounding && matches!(i.rm, 5 | 6) {
            i.rm = 7;
        }
        if line.has_operand("csr") && !self.options.csrs.is_empty() {
            i.imm = i32::from(*random.choose(&self.options.csrs));
        } else if let Some(imm) = immediate(line, random) {
            i.imm |= imm;
        }
        if line.accesses_memory() {
            let (low, high) = encoding.rs1.range();
            let bases: Vec<_> = self.options.bases.iter().filter(|base| (low..=high).contains(base)).collect();
            if !bases.is_empty() {
                i.rs1 = **random.choose(&bases);
            }
        }
        if line.writes_integer() && self.options.destinations >> (i.rd & 31) & 1 == 0 {
            return None;
        }
        i.encode().is_some().then_some(i)
    }
}

fn allowed(line: &Line, options: &Options) -> bool {
    let (low, high) = line.encoding.rs1.range();
    let (first, last) = line.encoding.rd.range();
    (options.control_flow || !line.leaves())
        && (!line.accesses_memory() || options.bases.iter().any(|base| (low..=high).contains(base)))
        && (!line.writes_integer() || (first..=last).any(|rd| options.destinations >> rd & 1 != 0))
        && (!line.has_operand("csr") || !options.csrs.is_empty())
}

/// A random immediate for `line`: half of the time one at the edges of its range.
fn immediate(line: &Line, random: &mut Random) -> Option<i32> {
    let (low, high, step) = line.encoding.immediate_range()?;
    let steps = ((high - low) / step).cast_unsigned();
    let edges = [low, high, low + step, high - step, 0, step.min(high), (-step).max(low)];
    let imm =
        if random.one_in(2) { *random.choose(&edges) } else { low + random.below(steps + 1).cast_signed() * step };
    i32::try_from(imm).ok()
}
