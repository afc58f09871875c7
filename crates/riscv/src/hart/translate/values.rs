//! Every instruction of the chapters that the host's own instructions do, on edge values: results, flags and memory must be the interpreter's.

use machine::GuestPhysical;

use super::Options;
use super::tests::{DATA, RAM, eager, hart, memory, regions};
use crate::hart::Exit;
use crate::isa::encoding::Field;
use crate::isa::generate::Random;
use crate::isa::{Extension, Instruction, Op, TABLE, assemble};

/// Operands of one experiment, then room for the results.
const RECORD: usize = 56;

/// Doubles, boxed and unboxed singles, integers: all are tried as all.
fn values() -> Vec<u64> {
    let doubles = [
        0.0,
        1.0,
        1.5,
        3.0,
        0.1,
        1e-300,
        1e300,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::INFINITY,
        f64::NAN,
        5e-324,
        2_147_483_647.5,
        2_147_483_648.0,
        4_294_967_295.0,
        4_294_967_295.5,
        9.223_372_036_854_775e18,
        9_223_372_036_854_775_808.0,
        1.8e19,
        2.5,
        0.5,
        0.49999999999999994,
        1e-40,
        3.5e38,
    ];
    let singles = [
        0.0_f32,
        1.0,
        1.5,
        0.1,
        1e-30,
        1e30,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        1e-45,
        2_147_483_648.0,
        4_294_967_040.0,
        4_294_967_296.0,
        9.223_372e18,
        1.8e19,
        2.5,
        0.5,
        3.7,
    ];
    let mut values = Vec::new();
    for double in doubles {
        values.extend([double.to_bits(), (-double).to_bits()]);
    }
    for single in singles {
        values.extend([single, -single].map(|single| u64::from(single.to_bits()) | 0xffff_ffff << 32));
    }
    // Signalling NaNs, a NaN with a load, a single without its box, integers.
    values.extend([0x7ff0_0000_0000_0001, 0xfff4_0000_0000_0000, 0xffff_ffff_7f80_0001, 0x7ff8_dead_beef_0000]);
    values.extend([
        0x3f80_0000,
        0x1234_5678_3f80_0000,
        7,
        0x8000_0000,
        0x8000_0000_0000_0000,
        u64::MAX,
        i64::MAX as u64,
    ]);
    values
}

/// All pairs, each with a third value; `extra` more pairs are random bits.
fn operands(extra: usize) -> Vec<[u64; 3]> {
    let values = values();
    let mut random = Random::new(4);
    let mut third = values.iter().copied().cycle();
    let mut all = Vec::new();
    for (index, a) in values.iter().enumerate() {
        // Each with half of the others, so that all fit.
        for b in values.iter().skip(index & 1).step_by(2) {
            all.extend(third.next().map(|c| [*a, *b, c]));
        }
        third.next();
    }
    for _ in 0..extra {
        let box_of = [0, 0xffff_ffff_0000_0000][usize::from(random.one_in(2))];
        all.push(std::array::from_fn(|_| random.bits() | box_of));
    }
    all
}

/// Runs `instruction` on all operands; answers the experiments' memory and the count of instructions.
fn run(instruction: Instruction, operands: &[[u64; 3]], options: Option<Options>, flags: u32) -> (Vec<u8>, u64) {
    let mut code = assemble(
        &format!(
            "lui t1,0x6
            csrrs zero,mstatus,t1
            auipc s0,0x80
            addi s0,s0,-8
            lui s1,{count}
            srli s1,s1,12
        again: fld fa0,0(s0)
            fld fa1,8(s0)
            fld fa2,16(s0)
            ld a0,0(s0)
            ld a1,8(s0)
            sd a1,24(s0)
            addi s2,s0,24
            csrrwi zero,fflags,{flags}",
            count = operands.len(),
        ),
        RAM,
    )
    .unwrap();
    // Three times: with operands from memory, with some at hand, and onto its own operand.
    let twice = Instruction { rd: 14, ..instruction };
    let own = Instruction { rd: if instruction.rs1 == 18 { 11 } else { instruction.rs1 }, ..instruction };
    for instruction in [instruction, twice, own] {
        code.extend(instruction.encode().expect("it has all its fields").to_le_bytes());
    }
    code.extend(
        assemble(
            "csrrs a2,fflags,zero
            fsd fa3,32(s0)
            fadd.d fa4,fa4,fa0
            fsd fa4,40(s0)
            add a2,a2,a3
            slli a2,a2,1
            add a2,a2,a4
            slli a2,a2,1
            add a2,a2,a0
            slli a2,a2,1
            add a2,a2,a1
            sd a2,48(s0)
            addi s0,s0,56
            addi s1,s1,-1",
            0,
        )
        .unwrap(),
    );
    let offset = i32::try_from(code.len()).unwrap() - (6 * 4);

    let back = Instruction { rs1: 9, imm: -offset, ..Instruction::new(Op::Bne) };
    code.extend(back.encode().unwrap().to_le_bytes());
    code.extend(assemble("wfi", 0).unwrap());

    let memory = memory();
    memory.write(GuestPhysical(RAM), &code).unwrap();
    let mut data: Vec<u8> = Vec::new();
    for operands in operands {
        data.extend(operands.iter().flat_map(|operand| operand.to_le_bytes()));
        data.resize(data.len() + RECORD - 24, 0);
    }
    assert!(data.len() < 1 << 19, "{}", data.len());
    memory.write(GuestPhysical(DATA), &data).unwrap();
    let mut hart = hart(&memory, options);
    assert_eq!(hart.run(), Exit::Idle);
    memory.read(GuestPhysical(DATA), &mut data).unwrap();
    (data, hart.instructions_retired())
}

fn check(extensions: &[Extension], extra: usize) {
    let all = operands(extra);
    let mut checked = 0;
    for line in &TABLE {
        let reserved = line.accesses_memory() && line.extension != Extension::A || line.encoding.length == 2;
        if !extensions.contains(&line.extension) || line.op == Op::Fence || reserved {
            continue;
        }
        let float = matches!(line.extension, Extension::F | Extension::D);
        let rs1 = if line.extension == Extension::A { 18 } else { 10 };
        let modes: &[u8] = if float { &[0, 1, 7] } else { &[0] };
        // Short immediates choose among cases.
        let immediates = match line.encoding.immediate_range() {
            None => 0..=0,
            Some((_, 15 | 3, _)) => 0..=15,
            Some(_) => 13..=13,
        };
        let cases = immediates.flat_map(|imm| modes.iter().flat_map(move |rm| [(*rm, 11, imm), (*rm, 10, imm)]));
        for (rm, rs2, imm) in cases {
            // What the encoding has no field for is zero.
            let encoding = &line.encoding;
            let field = |field: Field, value: u8| if field.range() == (0, 0) { 0 } else { value };
            let instruction = Instruction {
                rd: 13,
                rs1,
                rs2: field(encoding.rs2, rs2),
                rs3: field(encoding.rs3, 12),
                rm: field(encoding.rm, rm),
                imm,
                ..Instruction::new(line.op)
            };
            if instruction.encode().is_none() {
                continue;
            }
            for flags in [0, 1] {
                let expected = run(instruction, &all, None, flags);
                // Blocks, and regions once slices end.
                for options in [eager(), regions(100)] {
                    let found = run(instruction, &all, Some(options), flags);
                    if expected == found {
                        continue;
                    }
                    let place = expected.0.iter().zip(&found.0).position(|(a, b)| a != b).unwrap_or(0) / RECORD;
                    let record = |of: &[u8]| {
                        of[place * RECORD..][..RECORD]
                            .chunks(8)
                            .map(|word| format!("{:016x}", u64::from_le_bytes(word.try_into().unwrap())))
                            .collect::<Vec<_>>()
                    };
                    panic!("{instruction:?} {options:?}\n{:?}\n{:?}", record(&expected.0), record(&found.0));
                }
            }
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

#[test]
fn singles() {
    check(&[Extension::F], 200);
}

#[test]
fn doubles() {
    check(&[Extension::D], 200);
}

#[test]
fn atomics() {
    check(&[Extension::A], 100);
}

#[test]
fn bits() {
    check(&[Extension::Zba, Extension::Zbb, Extension::Zbc, Extension::Zbkb, Extension::Zbs, Extension::Zicond], 100);
}

#[test]
fn cryptography() {
    check(&[Extension::Zknd, Extension::Zkne, Extension::Zknh, Extension::Zksed, Extension::Zksh], 15);
}
