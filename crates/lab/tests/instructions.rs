//! Every instruction of the table, with edge values in its operands, on Isomorph and on Debian's qemu.
//!
//! Each case sets all registers, executes one instruction (or a short sequence), and then all registers, the trap if there was one, and memory are
//! compared. Nothing is recorded beforehand. What qemu 7.2 lacks (Zicond, Zicboz, Zicbom, Zawrs) is in `models.rs`.

mod common;

use common::{Cases, FLOAT_EDGES_32, FLOAT_EDGES_64, INTEGER_EDGES, boxed};
use lab::case::{FLOAT_ON, State};
use riscv::isa::generate::{Generator, Options, Random};
use riscv::isa::{Extension, Instruction, Line, Op, TABLE, assemble, disassemble};

/// Extensions that are compared here.
const EXTENSIONS: [Extension; 21] = [
    Extension::I,
    Extension::M,
    Extension::A,
    Extension::F,
    Extension::D,
    Extension::C,
    Extension::Zcd,
    Extension::Zicsr,
    Extension::Zifencei,
    Extension::Zihintpause,
    Extension::Zba,
    Extension::Zbb,
    Extension::Zbc,
    Extension::Zbkb,
    Extension::Zbkx,
    Extension::Zbs,
    Extension::Zknd,
    Extension::Zkne,
    Extension::Zknh,
    Extension::Zksed,
    Extension::Zksh,
];

fn generator() -> Generator {
    Generator::new(Options {
        weights: vec![(Extension::I, 1)],
        control_flow: true,
        destinations: u32::MAX,
        bases: (0..32).collect(),
        csrs: vec![1, 2, 3],
        reserved_rounding: true,
    })
    .unwrap()
}

fn lines() -> impl Iterator<Item = &'static Line> {
    TABLE.iter().filter(|line| EXTENSIONS.contains(&line.extension))
}

/// How many registers an instance reads.
fn sources(line: &Line) -> usize {
    let e = &line.encoding;
    [e.rs1, e.rs2, e.rs3].iter().filter(|field| field.is_encoded()).count()
}

fn is_csr(line: &Line) -> bool {
    line.has_operand("csr")
}

/// The bytes of `instruction`, and an `ebreak` that ends the case.
fn code(instruction: &Instruction) -> Vec<u8> {
    let word = instruction.encode().unwrap().to_le_bytes();
    let mut code = word[..usize::from(instruction.length)].to_vec();
    code.extend_from_slice(&0x0010_0073_u32.to_le_bytes());
    code
}

/// A state with something in every register: float registers properly boxed and not.
fn busy(random: &mut Random) -> State {
    let mut state = State::default();
    for x in &mut state.x[1..] {
        *x = random.bits();
    }
    for (i, f) in state.f.iter_mut().enumerate() {
        *f = if i % 2 == 0 { random.bits() } else { boxed(random.bits()) };
    }
    state
}

#[test]
fn integer_computation() {
    let (generator, mut random) = (generator(), Random::new(21));
    let mut cases = Cases::new("integer", 16, 0);
    let computes =
        |line: &&Line| !line.leaves() && !line.accesses_memory() && !is_csr(line) && !line.operands.contains('f');
    for line in lines().filter(computes) {
        let mut run = |values: [u64; 2], random: &mut Random| {
            let Some(i) = generator.instance(line, random) else { return };
            // qemu 7.2 looks at the upper half if the lower is zero.
            if i.op == Op::Ctzw && values[0] & 0xffff_ffff == 0 {
                return;
            }
            cases.add(&code(&i), &[], |_, state| {
                *state = State { pc: state.pc, ..busy(random) };
                state.x[usize::from(i.rs2)] = values[1];
                state.x[usize::from(i.rs1)] = values[0];
                state.x[0] = 0;
            });
        };
        match sources(line) {
            2 => {
                for a in INTEGER_EDGES {
                    for b in INTEGER_EDGES {
                        run([a, b], &mut random);
                    }
                }
            }
            _ => {
                for a in INTEGER_EDGES {
                    for _ in 0..8 {
                        run([a, 0], &mut random);
                    }
                }
            }
        }
        for _ in 0..50 {
            let values = [random.bits(), random.bits() >> random.below(64)];
            run(values, &mut random);
        }
    }
    cases.compare(99);
}

/// The operands of a floating-point instruction come from these, by the width in its name.
fn float_values(line: &Line, random: &mut Random) -> u64 {
    let single = line.mnemonic.ends_with(".s") || line.mnemonic.ends_with(".w") || line.mnemonic.ends_with(".x");
    match random.below(8) {
        0 => random.bits(),
        // A value of the other width: not boxed, or a NaN.
        1 if single => *random.choose(&FLOAT_EDGES_64),
        1 => boxed(u64::from(*random.choose(&FLOAT_EDGES_32))),
        2 if single => boxed(random.bits()),
        3 if single => boxed(0x3f00_0000 + random.below(0x0180_0000)),
        3 => 0x3fe0_0000_0000_0000 + random.below(0x0040_0000_0000_0000),
        _ if single => boxed(u64::from(*random.choose(&FLOAT_EDGES_32))),
        _ => *random.choose(&FLOAT_EDGES_64),
    }
}

#[test]
fn floating_point_computation() {
    let (generator, mut random) = (generator(), Random::new(22));
    let mut cases = Cases::new("floating point", 16, 0);
    let computes = |line: &&Line| {
        line.operands.contains('f') && !line.accesses_memory() && !line.has_operand("pred") && !line.leaves()
    };
    // Static modes, two of which are reserved; and the dynamic ones, three of which are.
    let modes: Vec<(u8, u64)> = (0..7).map(|rm| (rm, 0)).chain((0..8).map(|frm| (7, frm))).collect();
    for line in lines().filter(computes) {
        let modes = if line.encoding.has_rounding_mode() { &modes[..] } else { &[(0, 0)] };
        let count = if sources(line) == 1 { 80 } else { 240 };
        for &(rm, frm) in modes {
            for _ in 0..count {
                let Some(mut i) = generator.instance(line, &mut random) else { continue };
                if line.encoding.has_rounding_mode() {
                    i.rm = rm;
                }
                cases.add(&code(&i), &[], |_, state| {
                    *state = State { pc: state.pc, ..busy(&mut random) };
                    state.fcsr = (frm << 5) + random.below(32) * random.below(2);
                    let registers: [u8; 3] = [i.rs1, i.rs2, i.rs3];
                    for register in registers {
                        state.f[usize::from(register)] = float_values(line, &mut random);
                    }
                    state.x[usize::from(i.rs1)] = *random.choose(&INTEGER_EDGES);
                    state.x[0] = 0;
                });
            }
        }
    }
    cases.compare(60);
}

#[test]
fn floating_point_switched_off() {
    let (generator, mut random) = (generator(), Random::new(23));
    let mut cases = Cases::new("no floating point", 16, 64);
    for line in
        lines().filter(|line| matches!(line.extension, Extension::F | Extension::D | Extension::Zcd | Extension::Zicsr))
    {
        for _ in 0..4 {
            let Some(i) = generator.instance(line, &mut random) else { continue };
            cases.add(&code(&i), &[], |place, state| {
                state.mstatus &= !FLOAT_ON;
                state.x = [place.memory; 32];
                state.x[0] = 0;
            });
        }
    }
    cases.compare(0);
}

#[test]
fn memory() {
    let (generator, mut random) = (generator(), Random::new(24));
    let mut cases = Cases::new("memory", 16, 128);
    for line in lines().filter(|line| line.accesses_memory()) {
        for round in 0..150 {
            let Some(i) = generator.instance(line, &mut random) else { continue };
            if line.encoding.is_atomic() && matches!(i.op, Op::ScW | Op::ScD | Op::LrW | Op::LrD) {
                continue;
            }
            let memory: Vec<u8> = (0..16).flat_map(|_| random.bits().to_le_bytes()).collect();
            let edge = *random.choose(&INTEGER_EDGES);
            cases.add(&code(&i), &memory, |place, state| {
                *state = State { pc: state.pc, ..busy(&mut random) };
                state.x[usize::from(i.rs2)] = edge;
                let target = match round {
                    // Nothing is there.
                    0..4 => 0x1_0000_0000_0000 + random.below(64),
                    4..40 => place.memory + 32 + random.below(64),
                    _ => place.memory + 32 + 8 * random.below(8),
                };
                state.x[usize::from(i.rs1)] = target.wrapping_sub(i64::from(i.imm).cast_unsigned());
                state.x[0] = 0;
            });
        }
    }
    cases.compare(80);
}

#[test]
fn atomics_at_edges() {
    let (generator, mut random) = (generator(), Random::new(25));
    let mut cases = Cases::new("atomics", 16, 64);
    for line in lines().filter(|line| line.encoding.is_atomic() && sources(line) == 2) {
        if matches!(line.op, Op::ScW | Op::ScD) {
            continue;
        }
        for a in INTEGER_EDGES {
            for b in INTEGER_EDGES {
                let Some(i) = generator.instance(line, &mut random) else { continue };
                cases.add(&code(&i), &a.to_le_bytes(), |place, state| {
                    state.x[usize::from(i.rs2)] = b;
                    state.x[usize::from(i.rs1)] =
                        place.memory + if line.mnemonic.ends_with(".w") { 4 * random.below(2) } else { 0 };
                    state.x[0] = 0;
                });
            }
        }
    }
    cases.compare(90);
}

#[test]
fn load_reserved_and_store_conditional() {
    let mut random = Random::new(26);
    let mut cases = Cases::new("reservations", 64, 128);
    let text = [
        "lr.w a0,(s0)\n sc.w a1,a2,(s0)\n lw a3,0(s0)",
        "lr.d a0,(s0)\n sc.d a1,a2,(s0)\n ld a3,0(s0)",
        "lr.d.aq a0,(s0)\n addi a2,a0,1\n sc.d.rl a1,a2,(s0)",
        "lr.w.aqrl a0,(s0)\n sc.w.aqrl a0,a0,(s0)\n sc.w a4,a2,(s0)",
        // Elsewhere, and without a reservation.
        "lr.w a0,(s0)\n sc.w a1,a2,(s1)\n sc.w a3,a2,(s0)",
        "sc.w a0,a1,(s1)\n sc.d a2,a1,(s0)",
        "lr.d a0,(s0)\n sc.d a1,a2,(s0)\n sc.d a3,a2,(s0)",
        "lr.d zero,(s0)\n sc.d zero,a2,(s0)\n ld a0,0(s0)",
        // A trap, and the addresses that make one.
        "lr.w a0,(s2)",
        "lr.d a0,(s3)",
        "lr.d a0,(s4)",
    ];
    for text in text {
        for _ in 0..8 {
            let memory: Vec<u8> = (0..16).flat_map(|_| random.bits().to_le_bytes()).collect();
            let code = assemble(&format!("{text}\n ebreak"), 0).unwrap();
            cases.add(&code, &memory, |place, state| {
                *state = State { pc: state.pc, ..busy(&mut random) };
                state.x[8] = place.memory + 8 * random.below(4);
                state.x[9] = place.memory + 64 + 8 * random.below(4);
                state.x[18] = place.memory + 1 + random.below(3);
                state.x[19] = place.memory + 4;
                state.x[20] = 1 << 48;
            });
        }
    }
    cases.compare(60);
}

#[test]
fn control_flow() {
    let (generator, mut random) = (generator(), Random::new(27));
    let mut cases = Cases::new("control flow", 192, 0);
    let branches = |line: &&Line| line.operands.ends_with("target") || line.op == Op::Jalr;
    for line in lines().filter(branches) {
        for round in 0..300 {
            let Some(mut i) = generator.instance(line, &mut random) else { continue };
            // Land near, so that an ebreak is found there.
            let near = i32::try_from(random.below(64)).unwrap() * 2 - 64;
            if i.op == Op::Jalr {
                i.rs1 = if i.rs1 == 0 && i.length == 4 { 5 } else { i.rs1 };
            } else {
                i.imm = near;
            }
            if i.encode().is_none() || i.imm == 0 && i.op != Op::Jalr {
                continue;
            }
            let mut code: Vec<u8> = std::iter::repeat_n([0x02, 0x90], 96).flatten().collect();
            let word = i.encode().unwrap().to_le_bytes();
            code[96..96 + usize::from(i.length)].copy_from_slice(&word[..usize::from(i.length)]);
            let (a, b) = (*random.choose(&INTEGER_EDGES), *random.choose(&INTEGER_EDGES));
            cases.add(&code, &[], |place, state| {
                *state = State { pc: state.pc, ..busy(&mut random) };
                state.x[usize::from(i.rs2)] = b;
                state.x[usize::from(i.rs1)] = if round % 3 == 0 { b } else { a };
                if i.op == Op::Jalr {
                    let target = place.code + 160 + random.below(28);
                    state.x[usize::from(i.rs1)] = target.wrapping_sub(i64::from(i.imm).cast_unsigned());
                }
                state.x[0] = 0;
                state.pc = place.code + 96;
            });
        }
    }
    cases.compare(99);
}

#[test]
fn floating_point_csrs() {
    let (generator, mut random) = (generator(), Random::new(28));
    let mut cases = Cases::new("fcsr", 16, 0);
    for line in lines().filter(|line| is_csr(line)) {
        for _ in 0..150 {
            let Some(i) = generator.instance(line, &mut random) else { continue };
            cases.add(&code(&i), &[], |_, state| {
                *state = State { pc: state.pc, ..busy(&mut random) };
                state.fcsr = random.below(256);
                state.x[usize::from(i.rs1)] = *random.choose(&INTEGER_EDGES);
                state.x[0] = 0;
            });
        }
    }
    cases.compare(99);
}

/// Both agree on which words are instructions: what is none traps, what is one does the same.
#[test]
fn random_words() {
    let mut random = Random::new(29);
    let mut cases = Cases::new("random words", 16, 64);
    for round in 0..60_000 {
        let word = u32::try_from(random.bits() >> 32).unwrap();
        // Half of them in the major opcodes that are full of holes.
        let opcodes = [0x13, 0x1b, 0x33, 0x3b, 0x53, 0x2f, 0x0f, 0x07, 0x27, 0x43, 0x73, 0x03];
        let word = if round % 2 == 0 { word & !0x7f | random.choose(&opcodes) } else { word };
        let text = disassemble(word, 0);
        let line = riscv::isa::decode::find(word);
        if line.is_some_and(|line| line.leaves() || !EXTENSIONS.contains(&line.extension))
            || text.starts_with("csr")
            || text.starts_with("sc.")
        {
            continue;
        }
        let length = if word & 3 == 3 { 4 } else { 2 };
        let mut code = word.to_le_bytes()[..length].to_vec();
        code.extend_from_slice(&0x0010_0073_u32.to_le_bytes());
        cases.add(&code, &[], |_, state| {
            *state = State { pc: state.pc, ..busy(&mut random) };
            for x in &mut state.x[1..] {
                *x |= 1 << 62;
            }
        });
    }
    cases.compare(20);
}
