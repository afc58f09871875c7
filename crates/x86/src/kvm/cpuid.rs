//! What a guest's processor says of itself (CPUID): the host's, or one of named models that are the same on every host.
//!
//! A named model is a level of the x86-64 psABI (section 3.1.1, table 3.1): a set of features that a program may count on. A guest that has run with one can go
//! on wherever the host has at least those, since nothing else is shown to it: name, family and caches are the model's own, all further features are off. Only the
//! vendor is the host's, since processors of the two vendors enter the kernel differently, and KVM does not hide that.
//!
//! `host` shows all that the processor and KVM can do, but for what would not survive a move between two hosts that are alike: the topology is the machine's, and
//! tile registers, which need the host process's permission, are off.

use std::fmt;
use std::str::FromStr;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Which processor a guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// The host's.
    #[default]
    Host,
    /// A level of the psABI, 1 to 4.
    Level(u8),
}

impl Model {
    /// All names that are understood.
    pub const NAMES: [&'static str; 5] = ["host", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"];
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Level(1) => f.write_str("x86-64"),
            Self::Level(level) => write!(f, "x86-64-v{level}"),
        }
    }
}

/// A name that is none of a processor.
#[derive(Debug, thiserror::Error)]
#[error("there is no processor model '{0}'; take one of host, x86-64, x86-64-v2, x86-64-v3, x86-64-v4")]
pub struct UnknownModel(String);

impl FromStr for Model {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Self, UnknownModel> {
        match name {
            "host" => Ok(Self::Host),
            "x86-64" => Ok(Self::Level(1)),
            "x86-64-v2" => Ok(Self::Level(2)),
            "x86-64-v3" => Ok(Self::Level(3)),
            "x86-64-v4" => Ok(Self::Level(4)),
            _ => Err(UnknownModel(name.to_owned())),
        }
    }
}

/// The host lacks features of a named model.
#[derive(Debug, thiserror::Error)]
#[error("this host's processor lacks {missing}, which model {model} has; take an older one with --cpu, or --cpu host")]
pub struct Lacking {
    model: Model,
    missing: String,
}

/// A register of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Ebx,
    Ecx,
    Edx,
}

use Register::{Ebx, Ecx, Edx};

/// A feature: the level from which it belongs to models, its leaf and subleaf, register, bit and name.
struct Feature(u8, u32, u32, Register, u32, &'static str);

/// Level 9: never demanded and not of the ABI, but shown where the host has it, as its absence breaks guests or costs them much, and KVM emulates or virtualises it on
/// every host of the last ten years.
const FEATURES: &[Feature] = &[
    Feature(1, 1, 0, Edx, 0, "fpu"),
    Feature(1, 1, 0, Edx, 3, "pse"),
    Feature(1, 1, 0, Edx, 4, "tsc"),
    Feature(1, 1, 0, Edx, 5, "msr"),
    Feature(1, 1, 0, Edx, 6, "pae"),
    Feature(1, 1, 0, Edx, 7, "mce"),
    Feature(1, 1, 0, Edx, 8, "cx8"),
    Feature(1, 1, 0, Edx, 9, "apic"),
    Feature(1, 1, 0, Edx, 11, "sep"),
    Feature(1, 1, 0, Edx, 12, "mtrr"),
    Feature(1, 1, 0, Edx, 13, "pge"),
    Feature(1, 1, 0, Edx, 14, "mca"),
    Feature(1, 1, 0, Edx, 15, "cmov"),
    Feature(1, 1, 0, Edx, 16, "pat"),
    Feature(1, 1, 0, Edx, 17, "pse36"),
    Feature(1, 1, 0, Edx, 19, "clfsh"),
    Feature(1, 1, 0, Edx, 23, "mmx"),
    Feature(1, 1, 0, Edx, 24, "fxsr"),
    Feature(1, 1, 0, Edx, 25, "sse"),
    Feature(1, 1, 0, Edx, 26, "sse2"),
    Feature(2, 1, 0, Ecx, 0, "sse3"),
    Feature(2, 1, 0, Ecx, 9, "ssse3"),
    Feature(2, 1, 0, Ecx, 13, "cx16"),
    Feature(2, 1, 0, Ecx, 19, "sse4.1"),
    Feature(2, 1, 0, Ecx, 20, "sse4.2"),
    Feature(9, 1, 0, Ecx, 21, "x2apic"),
    Feature(2, 1, 0, Ecx, 23, "popcnt"),
    Feature(9, 1, 0, Ecx, 24, "tsc-deadline"),
    Feature(3, 1, 0, Ecx, 12, "fma"),
    Feature(3, 1, 0, Ecx, 22, "movbe"),
    Feature(3, 1, 0, Ecx, 26, "xsave"),
    Feature(3, 1, 0, Ecx, 27, "osxsave"),
    Feature(3, 1, 0, Ecx, 28, "avx"),
    Feature(3, 1, 0, Ecx, 29, "f16c"),
    Feature(9, 7, 0, Ebx, 0, "fsgsbase"),
    Feature(3, 7, 0, Ebx, 3, "bmi1"),
    Feature(3, 7, 0, Ebx, 5, "avx2"),
    Feature(9, 7, 0, Ebx, 7, "smep"),
    Feature(3, 7, 0, Ebx, 8, "bmi2"),
    Feature(4, 7, 0, Ebx, 16, "avx512f"),
    Feature(4, 7, 0, Ebx, 17, "avx512dq"),
    Feature(4, 7, 0, Ebx, 28, "avx512cd"),
    Feature(4, 7, 0, Ebx, 30, "avx512bw"),
    Feature(4, 7, 0, Ebx, 31, "avx512vl"),
    Feature(1, 0x8000_0001, 0, Edx, 11, "syscall"),
    Feature(1, 0x8000_0001, 0, Edx, 20, "nx"),
    Feature(1, 0x8000_0001, 0, Edx, 29, "lm"),
    Feature(2, 0x8000_0001, 0, Ecx, 0, "lahf"),
    Feature(3, 0x8000_0001, 0, Ecx, 5, "lzcnt"),
];

/// Follows CR4; KVM shows it by itself, and lists it as supported or not by version.
const OSXSAVE: u32 = 27;
/// Leaves of a named model; all others are left out.
const LEAVES: &[u32] =
    &[0, 1, 7, 0xb, 0xd, 0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_0003, 0x8000_0004, 0x8000_0008];
/// KVM's own leaves.
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_FEATURES: u32 = 0x4000_0001;
/// Paravirtual features of KVM that every host of the last ten years has: clock, delay hints, steal time, end of interrupt, unhalt, stable clock.
const PARAVIRTUAL: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 24;
/// States of XSAVE that need the process's permission: tiles.
const TILES: u32 = 1 << 17 | 1 << 18;

fn register(entry: &mut kvm_cpuid_entry2, register: Register) -> &mut u32 {
    match register {
        Ebx => &mut entry.ebx,
        Ecx => &mut entry.ecx,
        Edx => &mut entry.edx,
    }
}

/// The leaves that processor `id` of a machine with `cpus_count` has, by what the host can do.
///
/// # Errors
/// The host lacks what `model` has.
pub fn leaves(
    supported: &[kvm_cpuid_entry2],
    model: Model,
    id: u32,
    cpus_count: u32,
) -> Result<Vec<kvm_cpuid_entry2>, Lacking> {
    let mut leaves = match model {
        Model::Host => supported.to_vec(),
        Model::Level(level) => level_leaves(supported, level)?,
    };
    // Written anew below, for each processor.
    leaves.retain(|leaf| !matches!(leaf.function, 0xb | 0x1f));
    for leaf in &mut leaves {
        set_common(leaf, id, cpus_count);
    }
    leaves.extend(topology(id, cpus_count));
    if let Some(first) = leaves.iter_mut().find(|leaf| leaf.function == 0) {
        first.eax = first.eax.max(0xb);
    }
    Ok(leaves)
}

/// What the machine and not the processor decides.
fn set_common(leaf: &mut kvm_cpuid_entry2, id: u32, cpus_count: u32) {
    let siblings = cpus_count.next_power_of_two().min(255);
    match leaf.function {
        1 => {
            leaf.ebx = leaf.ebx & 0xffff | siblings << 16 | (id & 0xff) << 24;
            // There is a hypervisor; and more than one processor to a package.
            leaf.ecx |= 1 << 31;
            leaf.edx = if cpus_count > 1 { leaf.edx | 1 << 28 } else { leaf.edx & !(1 << 28) };
            // Performance counters' capabilities are of the host's kind.
            leaf.ecx &= !(1 << 15);
        }
        // Caches: of one core each, but for those of the third level, which are the package's. Cores to the package: all.
        4 if leaf.eax & 0x1f != 0 => {
            let shared = if leaf.eax >> 5 & 7 >= 3 { siblings - 1 } else { 0 };
            leaf.eax = leaf.eax & 0x3fff | shared << 14 | (siblings - 1).min(63) << 26;
        }
        // Monitor, thermal sensors, performance counters: not a guest's.
        5 | 6 | 0xa => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
        // Tiles.
        7 if leaf.index == 0 => leaf.edx &= !(1 << 22 | 1 << 24 | 1 << 25),
        0xd if leaf.index == 0 => leaf.eax &= !TILES,
        0xd if matches!(leaf.index, 17 | 18) => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
        0x1d | 0x1e => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
        // Bits 7 to 0: cores to the package, less one; 15 to 12: bits of an APIC's number.
        0x8000_0008 => {
            leaf.ecx = leaf.ecx & !0xf0ff | (cpus_count - 1).min(255) | (siblings.trailing_zeros() & 0xf) << 12;
        }
        // AMD: caches shared likewise; APIC and core numbers; nested virtualization is not passed on.
        0x8000_001d if leaf.eax & 0x1f != 0 => {
            let shared = if leaf.eax >> 5 & 7 >= 3 { siblings - 1 } else { 0 };
            leaf.eax = leaf.eax & 0x3fff | shared << 14;
        }
        0x8000_001e => {
            leaf.eax = id;
            leaf.ebx = id & 0xff;
            leaf.ecx = 0;
        }
        0x8000_0001 if leaf.ecx != 0 => {
            // Extended APIC space and topology as above; SVM is off.
            leaf.ecx &= !(1 << 2 | 1 << 3);
            leaf.ecx = if cpus_count > 1 { leaf.ecx | 1 << 1 } else { leaf.ecx & !(1 << 1) };
        }
        _ => {}
    }
}

/// The leaf that tells which processor this is: one thread to a core, all cores in one package.
fn topology(id: u32, cpus_count: u32) -> [kvm_cpuid_entry2; 3] {
    let bits = cpus_count.next_power_of_two().trailing_zeros();
    let level = |index, shift, count, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: index | kind << 8,
        edx: id,
        ..Default::default()
    };
    [level(0, 0, 1, 1), level(1, bits, cpus_count, 2), level(2, 0, 0, 0)]
}

/// What a model has of each leaf.
fn level_leaves(supported: &[kvm_cpuid_entry2], level: u8) -> Result<Vec<kvm_cpuid_entry2>, Lacking> {
    let model = Model::Level(level);
    let mut missing = Vec::new();
    let mut leaves: Vec<kvm_cpuid_entry2> = Vec::new();
    for host in supported {
        let mut leaf = *host;
        match host.function {
            HYPERVISOR => {}
            HYPERVISOR_FEATURES => leaf.eax &= PARAVIRTUAL,
            function if !LEAVES.contains(&function) || function == 0xb => continue,
            // States of XSAVE up to the vector registers of the level; their sizes and places are the architecture's.
            0xd if host.index > 1 && !(host.index == 2 || level >= 4 && (5..=7).contains(&host.index)) => continue,
            0xd | 0 | 0x8000_0000 => {}
            _ => {
                (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0);
                for Feature(from, function, index, which, bit, name) in FEATURES {
                    if (*function, *index) != (host.function, host.index) || (*from > level && *from != 9) {
                        continue;
                    }
                    let mut host = *host;
                    let has = *register(&mut host, *which) & 1 << bit != 0;
                    if has {
                        *register(&mut leaf, *which) |= 1 << bit;
                    } else if *from != 9 && *bit != OSXSAVE {
                        missing.push(*name);
                    }
                }
            }
        }
        set_identity(&mut leaf, host, level);
        leaves.push(leaf);
    }
    if leaves.iter().any(|leaf| leaf.function == 7) || level < 3 {
        if missing.is_empty() {
            return Ok(leaves);
        }
    } else {
        missing.push("avx2");
    }
    Err(Lacking { model, missing: missing.join(", ") })
}

/// The names and numbers of a model.
fn set_identity(leaf: &mut kvm_cpuid_entry2, host: &kvm_cpuid_entry2, level: u8) {
    match leaf.function {
        0 => leaf.eax = 0xd,
        1 => {
            // Family 6 (or 15 of AMD's, whose vendor leaf is not at hand; kernels that ask look at the vendor first), model by level, stepping 1.
            leaf.eax = 6 << 8 | u32::from(level) << 4 | 1;
            // Lines of 64 bytes, in units of eight.
            leaf.ebx = 8 << 8;
        }
        0xd if host.index == 0 => {
            let states = if level >= 4 { 0xe7 } else { 7 };
            leaf.eax = host.eax & states;
            leaf.edx = 0;
            // The size that the states of the level need at most; what is switched on needs, KVM tells itself.
            leaf.ecx = if level >= 4 { 0xa80 } else { 0x340 };
        }
        // Compaction and the like.
        0xd if host.index == 1 => leaf.eax = host.eax & 0b111,
        0x8000_0000 => leaf.eax = 0x8000_0008,
        0x8000_0002..=0x8000_0004 => {
            let mut name = [0; 48];
            let text = format!("Isomorph x86-64-v{level}");
            name[..text.len()].copy_from_slice(text.as_bytes());
            let part = machine::address::host_size((leaf.function - 0x8000_0002).into()) * 16;
            let word = |index: usize| u32::from_le_bytes(*name[part + 4 * index..].first_chunk().unwrap_or(&[0; 4]));
            (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (word(0), word(1), word(2), word(3));
        }
        // Address sizes: 40 physical bits, which every server has, and 48 virtual.
        0x8000_0008 => leaf.eax = 48 << 8 | (host.eax & 0xff).min(40),
        _ => {}
    }
}

/// Whether a guest that was shown `shown` can go on where `offered` is what it would be shown.
///
/// # Errors
/// What is missing, in words.
pub fn check(shown: &[kvm_cpuid_entry2], offered: &[kvm_cpuid_entry2]) -> Result<(), String> {
    // Leaves of features, and which of their bits follow from what the guest does.
    const LEAVES: [(u32, Register, u32); 8] = [
        (1, Ecx, 1 << OSXSAVE),
        (1, Edx, 0),
        (7, Ebx, 0),
        (7, Ecx, 1 << 4),
        (7, Edx, 0),
        (0xd, Edx, 0),
        (0x8000_0001, Ecx, 0),
        (0x8000_0001, Edx, 0),
    ];
    let mut missing = Vec::new();
    for shown in shown {
        let there = offered.iter().find(|leaf| (leaf.function, leaf.index) == (shown.function, shown.index));
        let (mut shown, mut there) = (*shown, there.copied().unwrap_or_default());
        for (function, which, follows) in LEAVES {
            if shown.function == function {
                let lost = *register(&mut shown, which) & !*register(&mut there, which) & !follows;
                for bit in (0..32).filter(|bit| lost & 1 << bit != 0) {
                    let known = FEATURES.iter().find(|Feature(_, leaf, index, register, at, _)| {
                        (*leaf, *index, *register, *at) == (function, shown.index, which, bit)
                    });
                    missing.push(known.map_or_else(
                        || format!("leaf {function:#x}.{} {which:?} bit {bit}", shown.index),
                        |Feature(.., name)| (*name).to_owned(),
                    ));
                }
            }
        }
        if shown.function == 0xd && shown.index == 0 && shown.eax & !there.eax != 0 {
            missing.push("a vector state".into());
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with every feature, and some that no model has.
    fn host() -> Vec<kvm_cpuid_entry2> {
        let leaf = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let functions =
            [0, 1, 2, 4, 6, 7, 0xb, 0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_0008];
        let mut leaves: Vec<_> = functions.iter().map(|function| leaf(*function, 0)).collect();
        leaves.extend([0, 1, 2, 5, 6, 7, 9, 17, 18].map(|index| leaf(0xd, index)));
        leaves
    }

    fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *leaves.iter().find(|leaf| (leaf.function, leaf.index) == (function, index)).unwrap()
    }

    #[test]
    fn a_model_is_the_same_on_a_host_that_has_more() {
        let rich = leaves(&host(), Model::Level(3), 1, 4).unwrap();
        let mut poor_host = host();
        for leaf in &mut poor_host {
            if leaf.function == 7 {
                // No avx512, and nothing that is newer.
                (leaf.ebx, leaf.ecx, leaf.edx) = (0x1fff, 0, 0);
            }
        }
        let poor = leaves(&poor_host, Model::Level(3), 1, 4).unwrap();
        assert_eq!(rich, poor);
        assert_eq!(find(&rich, 7, 0).ebx, 1 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8);
        assert!(!rich.iter().any(|leaf| (leaf.function, leaf.index) == (0xd, 5)));
        assert_ne!(find(&leaves(&host(), Model::Level(4), 0, 1).unwrap(), 7, 0).ebx & 1 << 16, 0);
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        let mut host = host();
        host.iter_mut().find(|leaf| leaf.function == 7).unwrap().ebx = !(1 << 5 | 1 << 7 | 1 << 16);
        let error = leaves(&host, Model::Level(3), 0, 1).unwrap_err().to_string();
        assert!(error.contains("lacks avx2, which model x86-64-v3"), "{error}");
        assert!(leaves(&host, Model::Level(2), 0, 1).is_ok());
        host.retain(|leaf| leaf.function != 7);
        assert!(leaves(&host, Model::Level(3), 0, 1).is_err());
    }

    #[test]
    fn processors_know_their_number() {
        for model in [Model::Host, Model::Level(2)] {
            let leaves = leaves(&host(), model, 2, 3).unwrap();
            let one = find(&leaves, 1, 0);
            assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff), (2, 4));
            assert_ne!(one.ecx & 1 << 31, 0, "there is a hypervisor");
            let cores = find(&leaves, 0xb, 1);
            assert_eq!((cores.eax, cores.ebx, cores.edx), (2, 3, 2));
            assert_eq!(find(&leaves, 0xd, 0).eax & TILES, 0);
        }
    }

    #[test]
    fn names_are_understood() {
        for name in Model::NAMES {
            assert_eq!(name.parse::<Model>().unwrap().to_string(), name);
        }
        assert!("i486".parse::<Model>().is_err());
    }

    #[test]
    fn a_guest_goes_on_where_it_finds_what_it_was_shown() {
        let rich = leaves(&host(), Model::Level(3), 1, 4).unwrap();
        let poor = leaves(&host(), Model::Level(2), 1, 4).unwrap();
        assert_eq!((check(&poor, &rich), check(&rich, &rich)), (Ok(()), Ok(())));
        let missing = check(&rich, &poor).unwrap_err();
        assert!(missing.contains("avx2") && missing.contains("lzcnt"), "{missing}");
        let mut running = poor.clone();
        running.iter_mut().filter(|leaf| leaf.function == 1).for_each(|leaf| leaf.ecx |= 1 << OSXSAVE);
        assert_eq!(check(&running, &poor), Ok(()), "what the guest has switched on");
    }
}
