//! Our disassembler against that of binutils, on instructions drawn from the table and on random words.

use std::ffi::OsStr;
use std::io::Write;
use std::time::Duration;

use lab::elf;
use lab::peer::Peer;
use riscv::isa::generate::{Generator, Options, Random};
use riscv::isa::{Extension, Op, TABLE, decode, disassemble};

/// Zicond is younger than Debian's binutils; its two instructions are compared with nothing here.
const ARCHITECTURE: &str = "rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0_zicbom1p0_zicbop1p0_zicboz1p0_zicsr2p0_zifencei2p0_zihintpause2p0_zawrs1p0_zba1p0_zbb1p0_zbc1p0_zbkb1p0_zbkx1p0_zbs1p0_zknd1p0_zkne1p0_zknh1p0_zksed1p0_zksh1p0_svinval1p0";

/// What binutils makes of each of `words`, in our punctuation.
fn objdump(words: &[u32]) -> Vec<String> {
    let mut code = Vec::new();
    for word in words {
        let length = if word & 3 == 3 { 4 } else { 2 };
        code.extend_from_slice(&word.to_le_bytes()[..length]);
    }
    let mut object = tempfile::NamedTempFile::new().unwrap();
    object.write_all(&elf::object(&code, ARCHITECTURE)).unwrap();
    let arguments = ["-d", "-z", "-M", "no-aliases"].map(OsStr::new).into_iter().chain([object.path().as_os_str()]);
    let output = Peer::Objdump.run(&arguments.collect::<Vec<_>>(), Duration::from_secs(60)).unwrap();
    let output = String::from_utf8(output).unwrap();
    // "   0:\tffb58513          \taddi\ta0,a1,-5 # comment"
    let lines = output.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        columns.next()?.trim().strip_suffix(':')?;
        columns.next()?;
        let text = columns.collect::<Vec<_>>().join(" ");
        Some(text.split(['#', '<']).next()?.trim().to_owned())
    });
    lines.collect()
}

/// Whether both say the same of `word`: the same text, or one of the cases where binutils is known to have another opinion or another spelling.
fn agree(word: u32, ours: &str, theirs: &str) -> bool {
    if ours == theirs {
        return true;
    }
    let Some(i) = decode(word) else {
        // It has a name for the illegal word, and does not mind the reserved zero of c.addi16sp and the reserved rounds of AES.
        return matches!((word, theirs), (0, "c.unimp") | (0x6101, "c.addi16sp sp,0"))
            || theirs.starts_with("aes64ks1i") && word >> 20 & 0xf > 10;
    };
    let unknown = theirs.starts_with(".4byte");
    match i.op {
        // To be ignored, says the manual, when they are not zero.
        Op::Fence => unknown && word & 0xf00f_8f80 != 0,
        Op::FenceI => unknown && word != 0x100f,
        // It knows no rounding mode where nothing is rounded; compilers write zero.
        Op::FcvtDS | Op::FcvtDW | Op::FcvtDWu if i.rm == 0 => ours.strip_suffix(",rne") == Some(theirs),
        Op::FcvtDS | Op::FcvtDW | Op::FcvtDWu => unknown,
        _ if matches!(i.rm, 5 | 6) => theirs.strip_suffix(",unknown") == ours.rsplit_once(',').map(|(rest, _)| rest),
        // It names more registers than we have.
        Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => {
            let (ours, theirs) = (ours.split(',').collect::<Vec<_>>(), theirs.split(',').collect::<Vec<_>>());
            ours.len() == 3
                && theirs.len() == 3
                && ours[0] == theirs[0]
                && ours[2] == theirs[2]
                && ours[1].starts_with("0x")
        }
        Op::Addi => i.length == 2 && i.rd == 0 && theirs == format!("c.addi zero,{}", i.imm),
        // Hints to us, a name of their own there.
        Op::Slli | Op::Srli | Op::Srai => i.imm == 0 && Some(theirs) == ours.replace(' ', "64 ").strip_suffix(",0x0"),
        _ => false,
    }
}

fn compare(words: &[u32]) {
    let theirs = objdump(words);
    assert_eq!(theirs.len(), words.len());
    let mut pc = 0;
    let mut differences = Vec::new();
    for (&word, theirs) in words.iter().zip(&theirs) {
        let ours = disassemble(word, pc);
        if !agree(word, &ours, theirs) {
            differences.push(format!("{word:08x}: {ours:30} {theirs}"));
        }
        pc += if word & 3 == 3 { 4 } else { 2 };
    }
    let count = differences.len();
    assert!(count == 0, "{count} of {} differ:\n{}", words.len(), differences[..count.min(60)].join("\n"));
}

#[test]
fn every_line() {
    let options = Options {
        weights: vec![(Extension::I, 1)],
        control_flow: true,
        destinations: u32::MAX,
        bases: (0..32).collect(),
        csrs: Vec::new(),
        reserved_rounding: false,
    };
    let (generator, mut random) = (Generator::new(options).unwrap(), Random::new(11));
    let mut words = Vec::new();
    for line in TABLE.iter().filter(|line| line.extension != Extension::Zicond) {
        words.extend((0..100).filter_map(|_| generator.instance(line, &mut random)?.encode()));
    }
    compare(&words);
}

#[test]
fn random_words() {
    let mut random = Random::new(12);
    let words: Vec<_> = (0..300_000)
        .map(|_| u32::try_from(random.bits() >> 32).unwrap())
        // Longer instructions, which nobody has, would put the two out of step.
        .filter(|word| word & 0x1f != 0x1f)
        .map(|word| if word & 3 == 3 { word } else { word & 0xffff })
        .filter(|word| !matches!(decode(*word), Some(i) if matches!(i.op, Op::CzeroEqz | Op::CzeroNez)))
        .collect();
    compare(&words);
}
