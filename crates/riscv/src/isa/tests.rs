use super::generate::{Generator, Options, Random};
use super::*;

const EXTENSIONS: [Extension; 28] = [
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
    Extension::Zicond,
    Extension::Zicbom,
    Extension::Zicbop,
    Extension::Zicboz,
    Extension::Zawrs,
    Extension::Svinval,
    Extension::Privileged,
];

fn everything() -> Generator {
    Generator::new(Options {
        weights: EXTENSIONS.map(|extension| (extension, 1)).to_vec(),
        control_flow: true,
        destinations: u32::MAX,
        bases: (0..32).collect(),
        csrs: Vec::new(),
        reserved_rounding: true,
    })
    .unwrap()
}

#[test]
fn words_as_binutils_writes_them() {
    let cases: [(u32, &str); 24] = [
        (0xffb5_8513, "addi a0,a1,-5"),
        (0x1234_5537, "lui a0,0x12345"),
        (0x0001_3503, "ld a0,0(sp)"),
        (0x00a1_3423, "sd a0,8(sp)"),
        (0xfe05_1ee3, "bne a0,zero,0xffc"),
        (0x0000_006f, "jal zero,0x1000"),
        (0x4015_d513, "srai a0,a1,0x1"),
        (0x02b5_0533, "mul a0,a0,a1"),
        (0x0ec5_b52f, "amoswap.d.aqrl a0,a2,(a1)"),
        (0x02c5_f553, "fadd.d fa0,fa1,fa2"),
        (0xc205_1553, "fcvt.w.d a0,fa0,rtz"),
        (0x0ff0_000f, "fence iorw,iorw"),
        (0x0100_000f, "pause"),
        (0x3020_0073, "mret"),
        (0x1205_0073, "sfence.vma a0,zero"),
        (0xc010_2573, "csrrs a0,time,zero"),
        (0x0202_c073, ".4byte 0x202c073"),
        (0x1141, "c.addi sp,-16"),
        (0x0001, "c.nop"),
        (0x8082, "c.jr ra"),
        (0x9522, "c.add a0,s0"),
        (0x6105, "c.addi16sp sp,32"),
        (0xe022, "c.sdsp s0,0(sp)"),
        (0x0000, ".2byte 0x0"),
    ];
    for (word, text) in cases {
        assert_eq!(disassemble(word, 0x1000), text);
    }
}

#[test]
fn compressed_instructions_expand() {
    let same = [
        ("c.addi4spn a0,sp,16", "addi a0,sp,16"),
        ("c.lwsp a0,8(sp)", "lw a0,8(sp)"),
        ("c.jr a0", "jalr zero,0(a0)"),
        ("c.jalr a0", "jalr ra,0(a0)"),
        ("c.mv a0,a1", "add a0,zero,a1"),
        ("c.add a0,a1", "add a0,a0,a1"),
        ("c.lui a0,0xfffff", "lui a0,0xfffff"),
        ("c.li a0,-3", "addi a0,zero,-3"),
        ("c.addiw a0,-1", "addiw a0,a0,-1"),
        ("c.subw s0,s1", "subw s0,s0,s1"),
        ("c.fsdsp fa0,504(sp)", "fsd fa0,504(sp)"),
        ("c.beqz a0,0x10fe", "beq a0,zero,0x10fe"),
        ("c.j 0x800", "jal zero,0x800"),
        ("c.ebreak", "ebreak"),
    ];
    for (short, long) in same {
        let word = |text| assemble(text, 0x1000).unwrap();
        let short = decode(u32::from(u16::from_le_bytes(word(short).try_into().unwrap()))).unwrap();
        let long = decode(u32::from_le_bytes(word(long).try_into().unwrap())).unwrap();
        assert_eq!(Instruction { length: 4, ..short }, long);
        assert_eq!(long.compressed(), Some(short));
    }
}

#[test]
fn reserved_compressed_words_are_illegal() {
    for (word, what) in [
        (0x0000, "c.addi4spn with zero"),
        (0x6501, "c.lui with zero"),
        (0x6101, "c.addi16sp with zero"),
        (0x8002, "c.jr of x0"),
        (0x2001, "c.addiw to x0"),
        (0x4002, "c.lwsp to x0"),
        (0x6002, "c.ldsp to x0"),
        (0x8000, "reserved of quadrant 0"),
        (0x9c41, "reserved beside c.addw"),
        (0x9c61, "reserved beside c.addw"),
    ] {
        assert_eq!(decode(word), None, "{what}");
    }
}

#[test]
fn every_line_round_trips() {
    let (generator, mut random) = (everything(), Random::new(1));
    for line in &TABLE {
        let mut seen = 0;
        for _ in 0..400 {
            let Some(instruction) = generator.instance(line, &mut random) else { continue };
            seen += 1;
            let word = instruction.encode().unwrap();
            assert_eq!(decode(word), Some(instruction), "{}: {word:#x}", line.mnemonic);
            let text = disassemble(word, 0x4000_0000);
            // Text leaves the reserved fields of fences out.
            if !matches!(line.op, Op::Fence | Op::FenceI) && !text.starts_with("c.nop") {
                let bytes = &word.to_le_bytes()[..usize::from(instruction.length)];
                assert_eq!(assemble(&text, 0x4000_0000).as_deref(), Ok(bytes), "{text}");
            }
        }
        assert!(seen > 100, "{} is drawn", line.mnemonic);
    }
}

/// What must hold of any word.
fn check(word: u32) {
    let text = disassemble(word, 0);
    match decode(word) {
        Some(instruction) => {
            let again = instruction.encode().unwrap();
            assert_eq!(decode(again), Some(instruction), "{text}");
            assert!(!text.starts_with('.'), "{word:#x}");
            assert_eq!(instruction.length == 4, word & 3 == 3);
            if instruction.length == 4 {
                assert_eq!(again, word, "{text}");
            }
        }
        None => assert!(text.starts_with('.'), "{text}"),
    }
}

#[test]
fn decodes_every_compressed_word() {
    let legal = (0..=u32::from(u16::MAX)).filter(|word| word & 3 != 3).inspect(|word| check(*word));
    let legal = legal.filter(|word| decode(*word).is_some()).count();
    assert!((40_000..49_152).contains(&legal), "{legal} of 49152");
    assert_eq!(decode(0x9522), decode(0xabcd_9522), "only the low half counts");
}

#[test]
fn decodes_words_all_over() {
    // A prime stride walks through all residues of every field.
    for word in (0..=u32::MAX).step_by(4093) {
        check(word | 3);
    }
}

#[test]
fn candidates_are_few() {
    // The index finds the same line as a scan does: forms first, then operations, in the order of the table.
    let mut random = Random::new(7);
    for _ in 0..20_000 {
        let word = u32::try_from(random.bits() >> 32).unwrap();
        let word = if word & 3 == 3 { word } else { word & 0xffff };
        let length = if word & 3 == 3 { 4 } else { 2 };
        let mut lines = TABLE[OPERATIONS..].iter().chain(&TABLE[..OPERATIONS]);
        let scanned = lines.find(|line| line.encoding.length == length && line.encoding.matches(word));
        assert_eq!(decode::find(word).map(|line| line.mnemonic), scanned.map(|line| line.mnemonic));
    }
}

#[test]
fn constants_and_addresses_load() {
    for value in
        [0, 1, 0x7ff, 0x800, 0xfff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX, 1 << 63, 0x1234_5678_9abc_def0]
    {
        let mut program = Assembler::new(0);
        program.load_constant(10, value);
        let mut register = 0u64;
        for word in program.finish().unwrap().chunks(4) {
            let i = decode(u32::from_le_bytes(word.try_into().unwrap())).unwrap();
            let (imm, source) = (i64::from(i.imm).cast_unsigned(), if i.rs1 == 0 { 0 } else { register });
            register = match i.op {
                Op::Lui => imm,
                Op::Addi => source.wrapping_add(imm),
                Op::Addiw => i64::from(i32::try_from((source.wrapping_add(imm) << 32).cast_signed() >> 32).unwrap())
                    .cast_unsigned(),
                Op::Slli => source << imm,
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(register, value);
    }
    let mut program = Assembler::new(0x1000);
    let label = program.label();
    program.load_address(5, label);
    program.data(&[0; 0xff8]);
    program.bind(label);
    let code = program.finish().unwrap();
    assert_eq!(code[..8], assemble("auipc t0,0x1\n addi t0,t0,0", 0).unwrap());
}

#[test]
fn registers_have_two_names() {
    let same = |a, b| assert_eq!(assemble(a, 0).unwrap(), assemble(b, 0).unwrap());
    same("add x5,x31,fp", "add t0,t6,s0");
    same("fadd.d f8,f0,f31,rne", "fadd.d fs0,ft0,ft11,rne");
    assert!(assemble("add f1,x2,x3", 0).is_err() && assemble("add x32,x2,x3", 0).is_err());
}

#[test]
fn mistakes_are_named() {
    let error = |text| assemble(text, 0).unwrap_err().to_string();
    assert_eq!(error("addj a0,a0,1"), "no instruction is called \"addj\"");
    assert_eq!(error("addi a0,a0"), "\"addi a0,a0\" is not of the form \"addi rd,rs1,imm\"");
    assert!(error("addi a0,a0,2048").contains("does not fit"));
    assert_eq!(error("beq a0,a1,nowhere"), "the label \"nowhere\" is not defined");
}

#[test]
fn options_are_kept() {
    let destinations = 0x0000_ff00;
    let generator = Generator::new(Options::straight_line(vec![2, 8], destinations)).unwrap();
    let mut random = Random::new(3);
    let mut extensions = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let i = generator.next(&mut random);
        let line = decode::find(i.encode().unwrap()).unwrap();
        extensions.insert(line.extension);
        assert!(!line.leaves(), "{i:?}");
        assert!(!line.accesses_memory() || [2, 8].contains(&i.rs1), "{i:?}");
        assert!(!line.writes_integer() || (destinations | 1) >> i.rd & 1 == 1, "{i:?}");
        assert!(!line.encoding.has_rounding_mode() || !matches!(i.rm, 5 | 6), "{i:?}");
    }
    // A hint may come by chance, as the operation that it is.
    assert!(extensions.len() >= 12, "{extensions:?}");
    assert!(Generator::new(Options { weights: Vec::new(), ..Options::straight_line(vec![2], 0) }).is_none());
}
