//! The state in which processors begin.

use kvm_bindings::{kvm_regs, kvm_segment};
use machine::memory::GuestMemory;

use super::put;
use crate::kvm::{KvmError, Vcpu};

/// How the first processor begins; the others wait to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Where processors begin: in real mode, 16 bytes below 4 GiB.
    Reset,
    /// In 64-bit mode, with the first 4 GiB mapped one to one: Linux's 64-bit protocol.
    Long {
        /// The first instruction.
        entry: u64,
        /// Where the zero page is.
        zero_page: u64,
    },
    /// In 32-bit mode without paging: PVH.
    Protected {
        /// The first instruction.
        entry: u32,
        /// Where the start information is.
        start_info: u32,
    },
}

const DESCRIPTORS: u64 = 0x500;
const PAGE_TABLES: u64 = 0x9000;
const GIB: u64 = 1 << 30;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_ALWAYS: u64 = 2;
const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 1 << 7;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
const FAST_STRINGS: u64 = 1;
/// On, and write-back for all that no range register names.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TASK: u64 = 0x008f_8b00_0000_ffff;

/// The segment that a descriptor describes.
fn segment(selector: u16, descriptor: u64) -> kvm_segment {
    let bit = |shift: u32| u8::from(descriptor >> shift & 1 != 0);
    let limit = u32::try_from(descriptor & 0xffff | descriptor >> 32 & 0xf_0000).unwrap_or(0);
    let granular = bit(55);
    kvm_segment {
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
        limit: if granular != 0 { limit << 12 | 0xfff } else { limit },
        selector,
        type_: descriptor.to_le_bytes()[5] & 0xf,
        present: bit(47),
        dpl: bit(45) | bit(46) << 1,
        db: bit(54),
        s: bit(44),
        l: bit(53),
        g: granular,
        avl: bit(52),
        ..Default::default()
    }
}

/// Puts processor `vcpu` into the state in which it begins. It is as after its reset; `entry` is that of the first.
pub(crate) fn prepare(vcpu: &Vcpu, memory: &GuestMemory, entry: Entry) -> Result<(), KvmError> {
    let code = match entry {
        // It sets what follows by itself.
        Entry::Reset => return Ok(()),
        Entry::Long { .. } => CODE_64,
        Entry::Protected { .. } => CODE_32,
    };
    // What a firmware would have set.
    vcpu.set_msrs(&[(MSR_MISC_ENABLE, FAST_STRINGS), (MSR_MTRR_DEFAULT, MTRR_ON_WRITE_BACK)])?;
    if vcpu.id() != 0 {
        return Ok(());
    }
    vcpu.wire_lapic()?;
    let descriptors = [0, 0, code, DATA, TASK];
    put(memory, DESCRIPTORS, &descriptors.map(u64::to_le_bytes).concat());
    let mut system = vcpu.system_registers()?;
    system.gdt.base = DESCRIPTORS;
    system.gdt.limit = 8 * 5 - 1;
    (system.idt.base, system.idt.limit) = (0, 0);
    system.cs = segment(0x10, code);
    let data = segment(0x18, DATA);
    (system.ds, system.es, system.fs, system.gs, system.ss) = (data, data, data, data, data);
    system.tr = segment(0x20, TASK);
    system.cr0 = CR0_PE | CR0_ET;
    let mut registers = kvm_regs { rflags: RFLAGS_ALWAYS, ..Default::default() };
    match entry {
        Entry::Reset => {}
        Entry::Long { entry, zero_page } => {
            identity_map(memory);
            system.cr3 = PAGE_TABLES;
            system.cr4 = CR4_PAE;
            system.cr0 |= CR0_PG;
            system.efer = EFER_LME | EFER_LMA;
            (registers.rip, registers.rsi) = (entry, zero_page);
        }
        Entry::Protected { entry, start_info } => {
            (registers.rip, registers.rbx) = (entry.into(), start_info.into());
        }
    }
    vcpu.set_system_registers(&system)?;
    vcpu.set_registers(&registers)
}

/// Page tables for the first 4 GiB, by pages of 2 MiB, which every processor has.
fn identity_map(memory: &GuestMemory) {
    let (upper, directories) = (PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000);
    put(memory, PAGE_TABLES, &(upper | PRESENT_WRITABLE).to_le_bytes());
    for gib in 0..4 {
        let directory = directories + 0x1000 * gib;
        put(memory, upper + 8 * gib, &(directory | PRESENT_WRITABLE).to_le_bytes());
        let entries: Vec<u8> = (0..512u64)
            .flat_map(|index| ((gib * GIB + index * (2 << 20)) | PRESENT_WRITABLE | LARGE_PAGE).to_le_bytes())
            .collect();
        put(memory, directory, &entries);
    }
}
