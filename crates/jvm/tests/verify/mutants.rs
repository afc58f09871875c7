//! Class files with mistakes.

use classfile::jar::Jar;
use classfile::opcode::Opcode;
use classfile::{ClassFile, Options};

/// A changed class file.
pub(crate) struct Mutant {
    /// The internal name that the class had.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Mutant {
    /// Whether a field has this class as its type.
    pub(crate) fn has_field_of(&self, class: &str) -> bool {
        let Ok(parsed) = ClassFile::parse(&self.bytes, Options::default()) else { return false };
        parsed.fields.iter().any(|field| String::from_utf8_lossy(field.descriptor).contains(class))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Gives a class file the version of Java 5, whose verifier infers. Returns whether it has nothing that is newer.
pub(crate) fn make_old(bytes: &mut [u8]) -> bool {
    let Ok(class) = ClassFile::parse(bytes, Options::default()) else { return false };
    let indy = class.constants.entries().iter().any(|entry| {
        use classfile::Constant as C;
        matches!(entry, C::InvokeDynamic(_) | C::Dynamic(_) | C::MethodHandle { .. } | C::MethodType(_))
    });
    let uses_interface = class.methods.iter().filter_map(|method| method.code.as_ref()).any(|code| {
        code.instructions().flatten().any(|instruction| {
            matches!(instruction.opcode, Opcode::InvokeStatic | Opcode::InvokeSpecial)
                && instruction
                    .constant()
                    .is_some_and(|index| matches!(class.constants.get(index), classfile::Constant::InterfaceMethod(_)))
        })
    });
    let fits = !indy && !uses_interface && !class.is_interface();
    bytes[4..8].copy_from_slice(&[0, 0, 0, 49]);
    fits
}

/// Makes `count` from the classes of a jar, always the same for a seed.
pub(crate) fn make(jar: &Jar<'_>, count: usize, seed: u64) -> Vec<Mutant> {
    let mut random = Random(seed);
    let classes: Vec<_> = jar.entries().iter().filter(|entry| entry.name.ends_with(b".class")).collect();
    let mut mutants = Vec::new();
    while mutants.len() < count {
        let entry = classes[random.below(classes.len())];
        let mut bytes = jar.read(entry).unwrap().into_owned();
        let Ok(class) = ClassFile::parse(&bytes, Options::default()) else { continue };
        let name = String::from_utf8(class.name.to_vec()).unwrap();
        let start = bytes.as_ptr() as usize;
        let range = |part: &[u8]| (part.as_ptr() as usize - start, part.len());
        let codes: Vec<_> = class.methods.iter().filter_map(|method| method.code.as_ref()).collect();
        let instructions: Vec<(usize, usize)> = codes
            .iter()
            .flat_map(|code| code.instructions().flatten().map(|instruction| range(instruction.bytes)))
            .collect();
        let maps: Vec<(usize, usize)> = codes.iter().filter_map(|code| code.stack_map_table.map(range)).collect();
        let constants = class.constants.len();
        let old = random.below(4) == 0;
        if old && !make_old(&mut bytes) {
            continue;
        }
        for _ in 0..=random.below(2) {
            let kind = random.below(10);
            let value = u8::try_from(random.below(256)).unwrap();
            if kind < 3 && !instructions.is_empty() {
                // Another opcode.
                bytes[instructions[random.below(instructions.len())].0] = value.min(0xCB);
            } else if kind < 5 && !instructions.is_empty() {
                // Another operand, often another constant.
                let (at, length) = instructions[random.below(instructions.len())];
                if length == 3 && random.below(2) == 0 {
                    let constant = u16::try_from(random.below(constants)).unwrap();
                    bytes[at + 1..at + 3].copy_from_slice(&constant.to_be_bytes());
                } else if length > 1 {
                    bytes[at + 1 + random.below(length - 1)] = value;
                }
            } else if kind < 6 && !maps.is_empty() {
                let (at, length) = maps[random.below(maps.len())];
                bytes[at + random.below(length)] = [value, value % 9][random.below(2)];
            } else if kind < 7 && instructions.len() > 1 {
                // Two instructions of the same length change places.
                let (a, length) = instructions[random.below(instructions.len())];
                let (b, other) = instructions[random.below(instructions.len())];
                if length == other && a != b {
                    let first = bytes[a..a + length].to_vec();
                    bytes.copy_within(b..b + length, a);
                    bytes[b..b + length].copy_from_slice(&first);
                }
            } else {
                let at = random.below(bytes.len());
                bytes[at] = [value, bytes[at] ^ (1 << (value & 7)), 0, bytes[at].wrapping_add(1)][random.below(4)];
            }
        }
        mutants.push(Mutant { name, bytes });
    }
    mutants
}

/// As the harness in Java reads them.
pub(crate) fn to_file(mutants: &[Mutant]) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let mut file = length(mutants.len()).to_vec();
    for mutant in mutants {
        file.extend(u16::try_from(mutant.name.len()).unwrap().to_be_bytes());
        file.extend(mutant.name.as_bytes());
        file.extend(length(mutant.bytes.len()));
        file.extend(&mutant.bytes);
    }
    file
}
