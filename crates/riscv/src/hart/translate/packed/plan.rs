//! Which loops can be done several iterations at once, and how.

#![allow(clippy::cast_possible_truncation, reason = "constants of a few bits")]

use codegen::x64::{Fma, Precision, Scalar};

use super::super::float;
use super::super::gather::Piece;
use super::super::mapping::Mapping;
use super::super::memory::Kind;
use crate::isa::{Instruction, Op};

/// Fewer iterations than this of a loop that computes are done one by one.
const ITERATIONS_MIN: i32 = 32;
/// Fewer bytes than this are copied or filled one by one.
const BYTES_MIN: i32 = 512;
/// A loop that copies or fills more in one iteration is left as it is.
const STEP_MAX: i32 = 256;
/// Binary logarithm of the bytes of a vector.
pub(super) const VECTOR_SHIFT: u8 = 5;
/// Its bytes.
const VECTOR: i64 = 1 << VECTOR_SHIFT;

/// The value of an integer register: the sum of registers as they are at the head, zero for none, and a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) base: u8,
    /// Times two to the power of `shift`.
    pub(super) index: u8,
    pub(super) shift: u8,
    pub(super) offset: i32,
}

impl Sum {
    const fn register(base: u8) -> Self {
        Self { base, index: 0, shift: 0, offset: 0 }
    }

    fn plus(self, offset: i32) -> Option<Self> {
        Some(Self { offset: self.offset.checked_add(offset)?, ..self })
    }

    fn shifted(self, shift: u8) -> Option<Self> {
        let offset = self.offset.checked_mul(1 << shift)?;
        match self {
            Self { base: 0, index: 0, .. } => Some(Self { offset, ..self }),
            Self { base, index: 0, .. } => Some(Self { base: 0, index: base, shift, offset }),
            _ => None,
        }
    }

    fn and(self, other: Self) -> Option<Self> {
        let (base, other) = match (self, other) {
            (base @ Self { index: 0, .. }, other) | (other, base @ Self { index: 0, .. }) => (base, other),
            _ => return None,
        };
        let sum = match (base.base, other) {
            (0, other) => other,
            (register, Self { base: 0, .. }) => Self { base: register, ..other },
            (register, Self { base, index: 0, .. }) => Self { base, index: register, ..other },
            _ => return None,
        };
        Some(Self { offset: base.offset.checked_add(other.offset)?, ..sum })
    }

    /// Whether they differ by a constant.
    fn is_beside(self, other: Self) -> bool {
        Self { offset: 0, ..self } == Self { offset: 0, ..other }
    }

    /// By how much it grows in each iteration.
    fn step(self, steps: &[Option<i32>; 32]) -> Option<i32> {
        let index = steps[usize::from(self.index)]?.checked_mul(1 << self.shift)?;
        steps[usize::from(self.base)]?.checked_add(index)
    }
}

/// What is done to each element. Registers are the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Load(u8, Sum),
    Store(u8, Sum),
    Binary(Scalar, u8, [u8; 2]),
    Root(u8, u8),
    Fused(Fma, u8, [u8; 3]),
    Copy(u8, u8),
    /// A vector from one address to another.
    Move(Sum, Sum),
    /// The vector that [`Plan::filler`] makes.
    Fill(Sum),
}

/// What an integer store writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// So many bytes, as a binary logarithm, that were loaded from here.
    Loaded(Sum, u8),
    /// The low bytes of a register that has not been written in this iteration.
    Register(u8),
}

/// A loop that qualifies.
#[derive(Debug)]
pub(in super::super) struct Plan {
    /// The format of numbers; of no meaning if there are none.
    pub(super) precision: Precision,
    pub(super) acts: Vec<Act>,
    /// What an iteration accesses, each as many bytes as it goes on, a power of two.
    pub(super) accesses: Vec<(Sum, Kind)>,
    pub(super) step_shift: u8,
    /// The store's address, and the loads' that may overlap with it: the distance from a load to the store, plus the first of these, may not be below the
    /// second.
    pub(super) store: Sum,
    pub(super) doubts: Vec<Sum>,
    pub(super) overlap: (i32, i32),
    /// The register that memory is filled with, and the binary logarithm of how many of its bytes.
    pub(super) filler: Option<(u8, u8)>,
    /// Fewer iterations are done one by one.
    pub(super) iterations_min: i32,
    /// Floating-point registers that are read and stay.
    pub(super) constants: u32,
    /// What is stored was computed.
    pub(super) may_be_nan: bool,
    /// Address registers, and by how much they grow.
    pub(super) steps: Vec<(u8, i32)>,
    /// The branch is taken while `from` is not `to`, or is below it.
    pub(super) op: Op,
    pub(super) from: Sum,
    pub(super) to: Sum,
    pub(super) from_step: i32,
    pub(super) lines_count: i32,
    /// The floating-point registers that it writes, if it writes no others but those that grow: what an iteration leaves behind is then in the last places of the
    /// vectors.
    pub(super) written: Option<u32>,
    /// The place behind the loop.
    pub(super) end: u64,
}

/// What has been seen of a loop.
struct Look {
    values: [Option<Sum>; 32],
    precision: Option<Precision>,
    acts: Vec<Act>,
    loads: Vec<Sum>,
    store: Option<(u8, Sum)>,
    /// By integer register, what was loaded into it: from where, and the binary logarithm of the bytes.
    loaded: [Option<(Sum, u8)>; 32],
    loaded_count: usize,
    /// Stores of integer registers, with the binary logarithm of their bytes.
    stores: Vec<(Stored, Sum, u8)>,
    /// Floating-point registers.
    written: u32,
    /// Read as they are at the head.
    read: u32,
    /// Computations, by the number of their act: of each a bit.
    computed: u64,
    /// By floating-point register: the computations whose NaNs it shows.
    shows: [u64; 32],
}

/// How a loop of one piece can be done, several iterations at once. Its floating-point registers in `boxed` hold singles.
pub(in super::super) fn plan(piece: &Piece, mapping: &Mapping, boxed: u32) -> Option<Plan> {
    let (last, lines) = piece.lines.split_last()?;
    if !matches!(last.instruction.op, Op::Bne | Op::Blt | Op::Bltu) || last.target() != piece.place {
        return None;
    }
    let mut look = Look {
        values: std::array::from_fn(|register| Some(Sum::register(u8::try_from(register).unwrap_or(0)))),
        precision: None,
        acts: Vec::new(),
        loads: Vec::new(),
        store: None,
        loaded: [None; 32],
        loaded_count: 0,
        stores: Vec::new(),
        written: 0,
        read: 0,
        computed: 0,
        shows: [0; 32],
    };
    for line in lines {
        look.at(&line.instruction)?;
    }
    let plan = look.finish(&last.instruction, i32::try_from(piece.lines.len()).ok()?, boxed)?;
    let plan = Plan { end: last.after(), ..plan };
    plan.has_registers(mapping).then_some(plan)
}

impl Look {
    fn value(&self, register: u8) -> Option<Sum> {
        self.values[usize::from(register & 31)]
    }

    fn at(&mut self, i: &Instruction) -> Option<()> {
        use Precision::{Double, Single};
        let sum = match i.op {
            Op::Addi => self.value(i.rs1)?.plus(i.imm)?,
            Op::Add => self.value(i.rs1)?.and(self.value(i.rs2)?)?,
            Op::Slli if i.imm <= 3 => self.value(i.rs1)?.shifted(u8::try_from(i.imm).ok()?)?,
            Op::Sh1add => self.value(i.rs1)?.shifted(1)?.and(self.value(i.rs2)?)?,
            Op::Sh2add => self.value(i.rs1)?.shifted(2)?.and(self.value(i.rs2)?)?,
            Op::Sh3add => self.value(i.rs1)?.shifted(3)?.and(self.value(i.rs2)?)?,
            Op::Flw => return self.load(i, Single),
            Op::Fld => return self.load(i, Double),
            Op::Fsw => return self.store(i, Single),
            Op::Fsd => return self.store(i, Double),
            Op::Lb | Op::Lbu => return self.load_integer(i, 0),
            Op::Lh | Op::Lhu => return self.load_integer(i, 1),
            Op::Lw | Op::Lwu => return self.load_integer(i, 2),
            Op::Ld => return self.load_integer(i, 3),
            Op::Sb => return self.store_integer(i, 0),
            Op::Sh => return self.store_integer(i, 1),
            Op::Sw => return self.store_integer(i, 2),
            Op::Sd => return self.store_integer(i, 3),
            _ => return self.compute(i),
        };
        if i.rd & 31 != 0 {
            self.values[usize::from(i.rd & 31)] = Some(sum);
            self.loaded[usize::from(i.rd & 31)] = None;
        }
        Some(())
    }

    fn load_integer(&mut self, i: &Instruction, shift: u8) -> Option<()> {
        let sum = self.value(i.rs1)?.plus(i.imm).filter(|_| i.rd & 31 != 0)?;
        self.values[usize::from(i.rd & 31)] = None;
        self.loaded[usize::from(i.rd & 31)] = Some((sum, shift));
        self.loaded_count += 1;
        Some(())
    }

    fn store_integer(&mut self, i: &Instruction, shift: u8) -> Option<()> {
        let sum = self.value(i.rs1)?.plus(i.imm)?;
        let stored = match self.loaded[usize::from(i.rs2 & 31)] {
            Some((from, shift)) => Stored::Loaded(from, shift),
            None => (self.value(i.rs2)? == Sum::register(i.rs2)).then_some(Stored::Register(i.rs2))?,
        };
        self.stores.push((stored, sum, shift));
        Some(())
    }

    /// All numbers of a loop are of one format.
    fn is(&mut self, precision: Precision) -> Option<()> {
        (*self.precision.get_or_insert(precision) == precision).then_some(())
    }

    fn load(&mut self, i: &Instruction, precision: Precision) -> Option<()> {
        self.is(precision)?;
        // What is stored first might be what is loaded.
        let sum = self.value(i.rs1)?.plus(i.imm).filter(|_| self.store.is_none())?;
        self.loads.push(sum);
        self.write(i.rd, 0, Act::Load(i.rd, sum));
        Some(())
    }

    fn store(&mut self, i: &Instruction, precision: Precision) -> Option<()> {
        self.is(precision)?;
        let sum = self.value(i.rs1)?.plus(i.imm)?;
        self.reads(&[i.rs2]);
        self.acts.push(Act::Store(i.rs2, sum));
        // A second time, half of an iteration might be done again.
        self.store.replace((i.rs2, sum)).is_none().then_some(())
    }

    /// What reading these registers shows.
    fn reads(&mut self, sources: &[u8]) -> u64 {
        sources.iter().fold(0, |shows, source| {
            self.read |= 1 << source & !self.written;
            shows | self.shows[usize::from(*source & 31)]
        })
    }

    fn write(&mut self, rd: u8, shows: u64, act: Act) {
        self.written |= 1 << rd;
        self.shows[usize::from(rd & 31)] = shows;
        self.acts.push(act);
    }

    fn compute(&mut self, i: &Instruction) -> Option<()> {
        if let (Op::FsgnjS | Op::FsgnjD, true) = (i.op, i.rs1 == i.rs2) {
            self.is(if i.op == Op::FsgnjS { Precision::Single } else { Precision::Double })?;
            let shows = self.reads(&[i.rs1]);
            self.write(i.rd, shows, Act::Copy(i.rd, i.rs1));
            return Some(());
        }
        let bit = 1_u64.checked_shl(u32::try_from(self.acts.len()).ok()?).filter(|_| float::is_to_nearest(i))?;
        self.computed |= bit;
        if let Some((operation, precision)) = float::fused_operation(i.op) {
            self.is(precision)?;
            let sources = [i.rs1, i.rs2, i.rs3];
            let shows = self.reads(&sources);
            self.write(i.rd, shows | bit, Act::Fused(operation, i.rd, sources));
            return Some(());
        }
        let (operation, precision) = float::operation(i.op)?;
        self.is(precision)?;
        if operation == Scalar::Sqrt {
            let shows = self.reads(&[i.rs1]);
            self.write(i.rd, shows | bit, Act::Root(i.rd, i.rs1));
        } else {
            let shows = self.reads(&[i.rs1, i.rs2]);
            self.write(i.rd, shows | bit, Act::Binary(operation, i.rd, [i.rs1, i.rs2]));
        }
        Some(())
    }

    fn finish(self, branch: &Instruction, lines_count: i32, boxed: u32) -> Option<Plan> {
        let step = |(register, value): (usize, &Option<Sum>)| {
            let value = (*value)?;
            value.is_beside(Sum::register(u8::try_from(register).ok()?)).then_some(value.offset)
        };
        let mut steps = [None; 32];
        for (to, value) in steps.iter_mut().zip(self.values.iter().enumerate()) {
            *to = step(value);
        }
        let (first, second) = (self.value(branch.rs1)?, self.value(branch.rs2)?);
        let (from, to, from_step) = match (branch.op, first.step(&steps)?, second.step(&steps)?) {
            (_, step, 0) if step > 0 || branch.op == Op::Bne => (first, second, step),
            (Op::Bne, 0, step) => (second, first, step),
            _ => return None,
        };
        let plan = Plan {
            precision: Precision::Double,
            acts: Vec::new(),
            accesses: Vec::new(),
            step_shift: 0,
            store: Sum::register(0),
            doubts: Vec::new(),
            overlap: (0, 0),
            filler: None,
            iterations_min: ITERATIONS_MIN,
            constants: 0,
            may_be_nan: false,
            steps: (1..).zip(&steps[1..]).filter_map(|(register, step)| Some((register, (*step)?))).collect(),
            op: branch.op,
            from,
            to,
            from_step,
            lines_count,
            written: None,
            end: 0,
        };
        let plan =
            if self.precision.is_some() { self.computes(plan, &steps, boxed)? } else { self.moves(plan, &steps)? };
        Some(plan).filter(|plan| plan.from_step.unsigned_abs().is_power_of_two())
    }

    /// The plan of a loop that computes with floating-point numbers.
    fn computes(self, plan: Plan, steps: &[Option<i32>; 32], boxed: u32) -> Option<Plan> {
        let precision = self.precision?;
        let (stored, store) = self.store?;
        // Every NaN must show in what is stored, and nothing may be carried on.
        let is_shown = self.computed == self.shows[usize::from(stored & 31)];
        let is_boxed = precision == Precision::Double || self.read & !boxed == 0;
        let has_integers = self.loaded_count != 0 || !self.stores.is_empty();
        if !is_shown || !is_boxed || has_integers || self.read & self.written != 0 {
            return None;
        }
        let step_shift = element_shift(precision);
        if self.loads.iter().chain([&store]).any(|access| access.step(steps) != Some(1 << step_shift)) {
            return None;
        }
        let ahead = |load: &Sum| i64::from(store.offset) - i64::from(load.offset);
        if self.loads.iter().any(|load| load.is_beside(store) && (1..VECTOR).contains(&ahead(load))) {
            return None;
        }
        let accesses = self.acts.iter().filter_map(|act| match act {
            Act::Load(_, sum) => Some((*sum, Kind::Read)),
            Act::Store(_, sum) => Some((*sum, Kind::Write)),
            _ => None,
        });
        Some(Plan {
            precision,
            accesses: accesses.collect(),
            step_shift,
            store,
            doubts: self.loads.iter().filter(|load| !load.is_beside(store)).copied().collect(),
            // What one iteration stores, a later one of the same vector may not load.
            overlap: (-1, VECTOR as i32 - 1),
            acts: self.acts,
            written: steps.iter().all(Option::is_some).then_some(self.written),
            constants: self.read,
            may_be_nan: self.computed != 0,
            ..plan
        })
    }

    /// The plan of a loop that copies or fills memory.
    fn moves(mut self, plan: Plan, steps: &[Option<i32>; 32]) -> Option<Plan> {
        self.stores.sort_by_key(|(_, to, _)| to.offset);
        let &(first, to, shift) = self.stores.first()?;
        let step = i32::try_from(self.stores.len()).ok()?.checked_shl(shift.into())?;
        if to.step(steps) != Some(step) || step > STEP_MAX || step.count_ones() != 1 {
            return None;
        }
        // Each follows the one before, in both places.
        let follows = |(number, (stored, sum, size)): (i32, &(Stored, Sum, u8))| {
            let at = number << shift;
            let is_same = match (first, *stored) {
                (Stored::Loaded(from, _), Stored::Loaded(sum, size)) => from.plus(at) == Some(sum) && size == shift,
                (first, stored) => first == stored,
            };
            to.plus(at) == Some(*sum) && *size == shift && is_same
        };
        let is_right = match first {
            Stored::Loaded(from, _) => from.step(steps) == Some(step) && self.loaded_count == self.stores.len(),
            Stored::Register(register) => steps[usize::from(register & 31)] == Some(0) && self.loaded_count == 0,
        };
        if !is_right || !(0..).zip(&self.stores).all(follows) {
            return None;
        }
        let vectors = (0..step.max(VECTOR as i32)).step_by(VECTOR as usize);
        let whole = step.max(VECTOR as i32);
        let plan = Plan {
            step_shift: step.trailing_zeros() as u8,
            store: to,
            iterations_min: (BYTES_MIN / step).max(2),
            ..plan
        };
        Some(match first {
            Stored::Loaded(from, _) => Plan {
                acts: vectors.map(|at| Some(Act::Move(from.plus(at)?, to.plus(at)?))).collect::<Option<_>>()?,
                accesses: vec![(from, Kind::Read), (to, Kind::Write)],
                doubts: vec![from],
                // The order of what is done at once does not show.
                overlap: (whole - 1, 2 * whole - 1),
                ..plan
            },
            Stored::Register(register) => Plan {
                acts: vectors.map(|at| Some(Act::Fill(to.plus(at)?))).collect::<Option<_>>()?,
                accesses: vec![(to, Kind::Write)],
                filler: Some((register, shift)),
                ..plan
            },
        })
    }
}

fn element_shift(precision: Precision) -> u8 {
    if precision == Precision::Single { 2 } else { 3 }
}

impl Act {
    /// The floating-point registers that it names.
    fn registers(self) -> u32 {
        match self {
            Self::Load(register, _) | Self::Store(register, _) => 1 << register,
            Self::Copy(rd, a) | Self::Root(rd, a) => 1 << rd | 1 << a,
            Self::Binary(_, rd, [a, b]) => 1 << rd | 1 << a | 1 << b,
            Self::Fused(_, rd, [a, b, c]) => 1 << rd | 1 << a | 1 << b | 1 << c,
            Self::Move(..) | Self::Fill(_) => 0,
        }
    }
}

impl Plan {
    /// Whether it computes with floating-point numbers.
    pub(in super::super) fn computes(&self) -> bool {
        self.registers() != 0
    }

    pub(super) fn registers(&self) -> u32 {
        self.acts.iter().fold(0, |all, act| all | act.registers())
    }

    /// Whether all that it works with in each round is in host registers.
    fn has_registers(&self, mapping: &Mapping) -> bool {
        let bounds = [self.from, self.to].into_iter().filter(|bound| bound.index != 0);
        let sums = self.accesses.iter().map(|(sum, _)| *sum).chain(bounds);
        let mut integers = sums.flat_map(|sum| [sum.base, sum.index]).chain(self.steps().map(|(register, _)| register));
        let floats = self.registers();
        integers.all(|register| register == 0 || mapping.get(register).is_some())
            && (0..32).all(|register| floats >> register & 1 == 0 || mapping.vector(register).is_some())
    }

    /// Registers that grow, and by how much.
    pub(super) fn steps(&self) -> impl Iterator<Item = (u8, i32)> {
        self.steps.iter().copied().filter(|(_, step)| *step != 0)
    }

    /// Binary logarithm of the bytes that a round goes on: a vector, or one iteration.
    pub(super) fn round_shift(&self) -> u8 {
        VECTOR_SHIFT.max(self.step_shift)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::gather::{Text, piece};
    use super::*;
    use crate::isa::assemble;

    /// The plan of a loop, whose floating-point registers from `fa0` to `fa5` have vector registers, of which `fa0` holds a single.
    fn of(text: &str) -> Option<Plan> {
        let code = assemble(&format!("again: {text}"), 0).unwrap();
        let mut mapping = *Mapping::at_links(true);
        mapping.assign_vectors(10..16);
        plan(&piece(&Text(code), 0).unwrap(), &mapping, 1 << 10)
    }

    #[test]
    fn loops_as_compilers_write_them() {
        // c[j] += factor * b[k][j]
        let row = of("flw fa4,0(a4)
             flw fa5,0(a5)
             addi a5,a5,4
             fmul.s fa4,fa0,fa4
             addi a4,a4,4
             fadd.s fa5,fa5,fa4
             fsw fa5,-4(a5)
             bne a5,s0,again")
        .unwrap();
        assert_eq!((row.precision, row.constants, row.lines_count), (Precision::Single, 1 << 10, 8));
        assert_eq!((row.store, row.doubts.as_slice()), (Sum::register(15), [Sum::register(14)].as_slice()));
        assert_eq!(row.steps().collect::<Vec<_>>(), [(14, 4), (15, 4)]);
        assert_eq!((row.from, row.from_step, row.to), (Sum { offset: 4, ..Sum::register(15) }, 4, Sum::register(8)));
        // a[i] = b[i] + q * c[i]
        let triad = of("add a4,a2,a5
             fld fa5,0(a4)
             add a4,a1,a5
             fld fa4,0(a4)
             add a4,a0,a5
             addi a5,a5,8
             fmadd.d fa5,fa0,fa5,fa4
             fsd fa5,0(a4)
             bne a5,a3,again")
        .unwrap();
        assert_eq!((triad.precision, triad.doubts.len()), (Precision::Double, 2));
        assert_eq!(triad.store, Sum { index: 10, ..Sum::register(15) });
        assert_eq!(triad.steps().collect::<Vec<_>>(), [(15, 8)]);
        // A counter that falls, an index that is scaled.
        let counted = of("slli a4,a5,3
             add a4,a4,a1
             fld fa5,8(a4)
             fsqrt.d fa5,fa5
             fsd fa5,0(a4)
             addi a5,a5,1
             addi a2,a2,-1
             bne a2,zero,again")
        .unwrap();
        assert_eq!((counted.store, counted.doubts.len()), (Sum { base: 11, index: 15, shift: 3, offset: 0 }, 0));
        assert_eq!((counted.from_step, counted.to), (-1, Sum::register(0)));
    }

    #[test]
    fn copies_and_fills() {
        let two = of("ld a3,0(a1)
             ld a4,8(a1)
             sd a3,0(a0)
             sd a4,8(a0)
             addi a1,a1,16
             addi a0,a0,16
             bne a0,a2,again")
        .unwrap();
        assert_eq!((two.step_shift, two.round_shift(), two.overlap), (4, 5, (31, 63)));
        assert_eq!(two.acts, [Act::Move(Sum::register(11), Sum::register(10))]);
        // Four at a time, twice.
        let fill: String = (0..8).map(|n| format!("sd a4,{}(a5)\n", 8 * n)).collect();
        let fill = of(&format!("{fill}\naddi a5,a5,64\nbne a5,a3,again")).unwrap();
        assert_eq!((fill.step_shift, fill.filler, fill.doubts.len()), (6, Some((14, 3)), 0));
        assert_eq!(fill.acts, [0, 32].map(|offset| Act::Fill(Sum { offset, ..Sum::register(15) })));
        let bytes = of("lbu a3,0(a1)\naddi a1,a1,1\nsb a3,0(a0)\naddi a0,a0,1\nbltu a0,a2,again").unwrap();
        assert_eq!((bytes.step_shift, bytes.iterations_min), (0, BYTES_MIN));
        // A gap; another place; another size; another register, or one that changes; what is loaded is lost, or changed; three at a time.
        for body in [
            "sd a3,0(a0)\nsd a3,16(a0)\naddi a0,a0,16",
            "ld a3,0(a1)\nld a4,8(a1)\nsd a3,8(a0)\nsd a4,0(a0)\naddi a0,a0,16\naddi a1,a1,16",
            "ld a3,0(a1)\nsw a3,0(a0)\naddi a0,a0,4\naddi a1,a1,4",
            "sd a3,0(a0)\nsd a4,8(a0)\naddi a0,a0,16",
            "sd a3,0(a0)\naddi a3,a3,1\naddi a0,a0,8",
            "ld a3,0(a1)\naddi a3,a2,1\nsd a3,0(a0)\naddi a0,a0,8\naddi a1,a1,8",
            "ld a3,0(a1)\nld a4,0(a1)\nsd a3,0(a0)\naddi a0,a0,8\naddi a1,a1,8",
            "ld a3,0(a1)\naddi a3,a3,1\nsd a3,0(a0)\naddi a0,a0,8\naddi a1,a1,8",
            "sd a3,0(a0)\nsd a3,8(a0)\nsd a3,16(a0)\naddi a0,a0,24",
        ] {
            assert!(of(&format!("{body}\nbne a0,a2,again")).is_none(), "{body}");
        }
    }

    #[test]
    fn what_cannot_go_so() {
        let copy = |body: &str| of(&format!("fld fa5,0(a1)\n{body}\naddi a0,a0,8\naddi a1,a1,8\nbne a0,a2,again"));
        assert!(copy("fsd fa5,0(a0)").is_some_and(|plan| !plan.may_be_nan));
        // A sum is carried on; a part is lost; nothing is stored, or twice; a load follows; formats are mixed; a step is no element; something else is done.
        for body in [
            "fadd.d fa4,fa4,fa5\nfsd fa4,0(a0)",
            "fadd.d fa4,fa5,fa5\nfsd fa5,0(a0)",
            "fadd.d fa5,fa5,fa5",
            "fsd fa5,0(a0)\nfsd fa5,2000(a0)",
            "fsd fa5,0(a0)\nfld fa4,0(a1)",
            "fsw fa5,0(a0)",
            "addi a0,a0,8\nfsd fa5,0(a0)",
            "fsd fa5,0(a0)\nmul a3,a3,a3",
        ] {
            assert!(copy(body).is_none(), "{body}");
        }
        // Each iteration loads what the one before has stored.
        assert!(of("fld fa5,-8(a0)\nfadd.d fa5,fa5,fa0\nfsd fa5,0(a0)\naddi a0,a0,8\nbne a0,a2,again").is_none());
        assert!(of("fld fa5,8(a0)\nfadd.d fa5,fa5,fa0\nfsd fa5,0(a0)\naddi a0,a0,8\nbne a0,a2,again").is_some());
        // Who knows whether that is a single?
        assert!(of("flw fa5,0(a0)\nfadd.s fa5,fa5,fa1\nfsw fa5,0(a0)\naddi a0,a0,4\nbne a0,a2,again").is_none());
        // Not in a host register.
        assert!(of("flw ft0,0(a0)\nfadd.s ft0,ft0,fa0\nfsw ft0,0(a0)\naddi a0,a0,4\nbne a0,a2,again").is_none());
    }
}
