//! ACPI: the tables by which a kernel finds the board.
//!
//! Specification: ACPI 6.5, sections 5.2 (tables), 6 (devices); PCI Firmware 3.3 for `MCFG` and `_CRS`; Microsoft's "Virtual Machine Generation ID".
//!
//! All tables are in one piece, which begins with the root pointer. A kernel that is started without firmware finds it at [`map::TABLES`], where kernels also look for it by
//! themselves; firmware puts it where it likes, so it is told where the tables hold addresses of each other.
//!
//! The 16 bytes of the generation ID lie on a page of their own, which is not RAM.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    self, AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Method, Name, Notify, PackageBuilder,
    Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use devices::acpi;
use devices::pci::{DEVICES_COUNT_MAX, Space, Window};

use crate::map;

const OEM: [u8; 6] = *b"ISOMOR";
const TABLE: [u8; 8] = *b"ISOMORPH";
const REVISION: u32 = 1;
/// Bytes of the root pointer.
pub const ROOT_BYTES: usize = 36;
/// Where the first table begins.
pub const FIRST: usize = ROOT_BYTES.next_multiple_of(16);

/// What the tables tell of.
#[derive(Clone, Copy, Debug)]
pub struct Board<'a> {
    /// How many processors there are.
    pub cpus_count: u32,
    /// Where PCI's registers may lie.
    pub windows: &'a [Window],
    /// Whether the configuration spaces of PCI are in memory.
    pub has_ecam: bool,
    /// Whether there are the interrupt controllers and the timer of old.
    pub has_8259: bool,
}

/// An address that one of the tables holds of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Where it is in the tables' bytes.
    pub at: usize,
    /// How many bytes it has.
    pub size: u8,
}

/// The tables.
pub struct Tables {
    /// Their bytes. The root pointer is the first.
    pub bytes: Vec<u8>,
    /// All addresses in them.
    pub pointers: Vec<Pointer>,
    /// Which bytes add up to zero, and where the one is that makes them, for all that have pointers in them.
    pub sums: Vec<(Range<usize>, usize)>,
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn port(number: u16, bytes_count: u8) -> GAS {
    let size = match bytes_count {
        1 => AccessSize::ByteAccess,
        2 => AccessSize::WordAccess,
        _ => AccessSize::DwordAccess,
    };
    GAS::new(GasSpace::SystemIo, bytes_count * 8, 0, size, number.into())
}

/// The tables of `board`, which are to lie at `base`.
#[must_use]
pub fn build(board: &Board<'_>, base: u64) -> Tables {
    let mut all = vec![0; FIRST];
    let (mut pointers, mut sums) = (Vec::new(), Vec::new());
    // Puts a table with pointers at these offsets.
    let mut place = |table: Vec<u8>, offsets: &[(usize, u8)]| {
        let at = all.len().next_multiple_of(16);
        all.resize(at, 0);
        pointers.extend(offsets.iter().map(|(offset, size)| Pointer { at: at + offset, size: *size }));
        if !offsets.is_empty() {
            sums.push((at..at + table.len(), at + 9));
        }
        all.extend(table);
        base.wrapping_add(at as u64)
    };
    let dsdt = place(dsdt(board), &[]);
    // A firmware control structure that nobody uses, but without which kernels complain.
    let mut facs = vec![0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4] = 64;
    facs[32] = 2;
    let facs = place(facs, &[]);
    let mut entries = vec![place(fadt(dsdt, facs), &[(36, 4), (40, 4), (132, 8), (140, 8)])];
    entries.push(place(madt(board), &[]));
    if board.has_ecam {
        entries.push(place(mcfg(), &[]));
    }
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    let offsets: Vec<_> = (0..entries.len()).map(|index| (36 + 8 * index, 8)).collect();
    entries.into_iter().for_each(|entry| xsdt.add_entry(entry));
    let xsdt = place(bytes(&xsdt), &offsets);
    let root = bytes(&Rsdp::new(OEM, xsdt));
    all[..root.len()].copy_from_slice(&root);
    pointers.push(Pointer { at: 24, size: 8 });
    sums.extend([(0..20, 8), (0..ROOT_BYTES, 32)]);
    Tables { bytes: all, pointers, sums }
}

fn fadt(dsdt: u64, facs: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION).dsdt_64(dsdt).firmware_ctrl_64(facs);
    let low = |at: u64| u32::try_from(at).unwrap_or(0);
    fadt.dsdt = low(dsdt).into();
    fadt.firmware_ctrl = low(facs).into();
    // The numbers are the old fields; the addresses of later versions say the same.
    let power = map::POWER_PORT;
    fadt.sci_int = u16::try_from(map::POWER_INTERRUPT).unwrap_or(0).into();
    fadt.pm1a_evt_blk = u32::from(power).into();
    fadt.pm1a_cnt_blk = u32::from(power + acpi::CONTROL).into();
    fadt.pm_tmr_blk = u32::from(power + acpi::TIMER).into();
    fadt.gpe0_blk = u32::from(power + acpi::EVENTS).into();
    (fadt.pm1_evt_len, fadt.pm1_cnt_len, fadt.pm_tmr_len, fadt.gpe0_blk_len) = (4, 2, 4, 2);
    fadt.x_pm1a_evt_blk = port(power, 4);
    fadt.x_pm1a_cnt_blk = port(power + acpi::CONTROL, 2);
    fadt.x_pm_tmr_blk = port(power + acpi::TIMER, 4);
    fadt.x_gpe0_blk = port(power + acpi::EVENTS, 2);
    fadt.reset_reg = port(map::RESET_PORT, 1);
    fadt.reset_value = 6;
    fadt.century = 0x32;
    // No deeper idle states.
    (fadt.p_lvl2_lat, fadt.p_lvl3_lat) = (101.into(), 1001.into());
    // There are devices of old at their ports, but no keyboard controller and no screen.
    fadt.iapc_boot_arch = (1 | 1 << 2).into();
    let fadt = fadt.flag(Flags::Wbinvd).flag(Flags::ProcC1).flag(Flags::SlpButton).flag(Flags::TmrValExt);
    bytes(&fadt.flag(Flags::ResetRegSup).finalize())
}

fn madt(board: &Board<'_>) -> Vec<u8> {
    let controller = LocalInterruptController::Address(map::LOCAL_APIC);
    let mut madt = MADT::new(OEM, TABLE, REVISION, controller);
    for id in (0..board.cpus_count).filter_map(|id| u8::try_from(id).ok()) {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, map::IOAPIC, 0));
    let mut table = bytes(&madt);
    // What the builder lacks. If the 8259s are there, so is their timer, whose interrupt comes in at another input; power management's is a level.
    if board.has_8259 {
        table[40..44].copy_from_slice(&1u32.to_le_bytes());
        table.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    }
    table.extend([2, 10, 0, 9, 9, 0, 0, 0, 0b1101, 0]);
    // Every processor's second local input takes non-maskable interrupts.
    table.extend([4, 6, 0xff, 0, 0, 1]);
    finish(table)
}

/// Sets the length and the checksum of a table.
fn finish(mut table: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(table.len()).unwrap_or(0).to_le_bytes();
    table[4..8].copy_from_slice(&length);
    table[9] = 0;
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(map::PCI_ECAM.start, 0, 0, 0);
    bytes(&mcfg)
}

fn dsdt(board: &Board<'_>) -> Vec<u8> {
    let mut code = Vec::new();
    pci(&mut code, board);
    let serial_line = Interrupt::new(true, true, false, false, map::SERIAL_INTERRUPT);
    Scope::new(
        "_SB_".into(),
        vec![
            &Device::new(
                "COM1".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0501")),
                    &Name::new("_UID".into(), &aml::ZERO),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![&IO::new(map::SERIAL_PORT, map::SERIAL_PORT, 0, 8), &serial_line]),
                    ),
                ],
            ),
            &Device::new(
                "RTC_".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
                    &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&IO::new(0x70, 0x70, 0, 2)])),
                ],
            ),
            &Device::new(
                "PEVT".into(),
                vec![
                    &Name::new("_HID".into(), &"QEMU0001"),
                    &Name::new("_STA".into(), &0xfu8),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![&IO::new(map::PANIC_PORT, map::PANIC_PORT, 0, 1)]),
                    ),
                ],
            ),
            &Generation,
        ],
    )
    .to_aml_bytes(&mut code);
    // Off. The board has no other sleep.
    let mut off = PackageBuilder::new();
    [acpi::SLEEP_OFF, acpi::SLEEP_OFF, 0, 0].iter().for_each(|value| off.add_element(value));
    Name::new("_S5_".into(), &off).to_aml_bytes(&mut code);
    // Edge-triggered general-purpose event: the generation has changed.
    let event = format!("_E{:02X}", map::GENERATION_EVENT);
    Scope::new(
        "_GPE".into(),
        vec![&Method::new(event.as_str().into(), 0, false, vec![&Notify::new(&Path::new("\\_SB_.VGEN"), &0x80u8)])],
    )
    .to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table.as_slice().to_vec()
}

/// The virtual machine's generation ID: where its 16 bytes are.
struct Generation;

impl Aml for Generation {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let mut address = PackageBuilder::new();
        address.add_element(&u32::try_from(map::GENERATION).unwrap_or(0));
        address.add_element(&aml::ZERO);
        Device::new(
            "VGEN".into(),
            vec![
                &Name::new("_HID".into(), &"QEMUVGID"),
                &Name::new("_CID".into(), &"VM_Gen_Counter"),
                &Name::new("_DDN".into(), &"VM_Gen_Counter"),
                &Name::new("ADDR".into(), &address),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// A window of PCI's as a resource of its root.
fn window_resource(window: &Window) -> Box<dyn Aml> {
    let last = window.base + (window.size - 1);
    let cached = AddressSpaceCacheable::NotCacheable;
    match (window.space, u32::try_from(window.base), u32::try_from(last)) {
        (Space::Io, ..) => {
            let port = |number| u16::try_from(number).unwrap_or(u16::MAX);
            Box::new(AddressSpace::new_io(port(window.base), port(last), None))
        }
        (Space::Memory, Ok(base), Ok(last)) => Box::new(AddressSpace::new_memory(cached, true, base, last, None)),
        (Space::Memory, ..) => Box::new(AddressSpace::new_memory(cached, true, window.base, last, None)),
    }
}

/// The root of PCI: its windows, and where the lines of its devices lead.
fn pci(code: &mut Vec<u8>, board: &Board<'_>) {
    let config = u16::try_from(map::PCI_CONFIG_PORT).unwrap_or(0);
    let (buses, ports) = (AddressSpace::new_bus_number(0u16, 0u16), IO::new(config, config, 1, 8));
    let windows: Vec<_> = board.windows.iter().map(window_resource).collect();
    let mut resources: Vec<&dyn Aml> = vec![&buses, &ports];
    resources.extend(windows.iter().map(|window| &**window));
    let mut routes = Vec::new();
    for device in 0..u32::from(DEVICES_COUNT_MAX) {
        for pin in 0..4u32 {
            let interrupt = map::PCI_INTERRUPTS[machine::address::host_size(u64::from((device + pin) % 4))];
            let mut route = PackageBuilder::new();
            let address = device << 16 | 0xffff;
            route.add_element(&address);
            route.add_element(&pin);
            route.add_element(&aml::ZERO);
            route.add_element(&interrupt);
            routes.push(route);
        }
    }
    // A package's count is one byte: 128 fit.
    let mut table = PackageBuilder::new();
    routes.iter().for_each(|route| table.add_element(route));
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            "PCI0".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
                &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
                &Name::new("_UID".into(), &aml::ZERO),
                &Name::new("_SEG".into(), &aml::ZERO),
                &Name::new("_BBN".into(), &aml::ZERO),
                &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
                &Name::new("_PRT".into(), &table),
            ],
        )],
    )
    .to_aml_bytes(code);
    // ECAM has to be reserved by a device of the board, or kernels distrust it.
    let ecam = u32::try_from(map::PCI_ECAM.start).unwrap_or(0);
    let size = u32::try_from(map::PCI_ECAM.end - map::PCI_ECAM.start).unwrap_or(0);
    let (ecam, power) = (aml::Memory32Fixed::new(true, ecam, size), IO::new(map::POWER_PORT, map::POWER_PORT, 0, 0x40));
    let mut reserved: Vec<&dyn Aml> = vec![&power];
    if board.has_ecam {
        reserved.push(&ecam);
    }
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            "MBRD".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
                &Name::new("_CRS".into(), &ResourceTemplate::new(reserved)),
            ],
        )],
    )
    .to_aml_bytes(code);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn tables_lead_to_each_other_and_add_up() {
        let windows = [Window { space: Space::Memory, base: 0xc000_0000, size: 0x1000 }];
        let board = Board { cpus_count: 4, windows: &windows, has_ecam: true, has_8259: true };
        let tables = build(&board, map::TABLES.start);
        let at = |address: u64| &tables.bytes[machine::address::host_size(address - map::TABLES.start)..];
        let u32_at = |bytes: &[u8], offset: usize| u32::from_le_bytes(*bytes[offset..].first_chunk().unwrap());
        let u64_at = |bytes: &[u8], offset: usize| u64::from_le_bytes(*bytes[offset..].first_chunk().unwrap());
        let root = at(map::TABLES.start);
        assert_eq!((&root[..8], sum(&root[..20]), sum(&root[..36])), (&b"RSD PTR "[..], 0, 0));
        let xsdt = at(u64_at(root, 24));
        let mut names = Vec::new();
        for entry in (36..u32_at(xsdt, 4) as usize).step_by(8) {
            let table = at(u64_at(xsdt, entry));
            assert_eq!(sum(&table[..u32_at(table, 4) as usize]), 0);
            names.push(String::from_utf8_lossy(&table[..4]).into_owned());
            if &table[..4] == b"FACP" {
                let dsdt = at(u64_at(table, 140));
                assert_eq!((&dsdt[..4], sum(&dsdt[..u32_at(dsdt, 4) as usize])), (&b"DSDT"[..], 0));
                assert_eq!(u32_at(table, 40), u32::try_from(u64_at(table, 140)).unwrap());
            }
        }
        assert_eq!(names, ["FACP", "APIC", "MCFG"]);
        // Whoever moves them finds all that changes.
        let moved = build(&board, map::TABLES.start + 0x1_0000);
        let mut patched = tables.bytes.clone();
        for Pointer { at, size } in &tables.pointers {
            let field = &mut patched[*at..at + usize::from(*size)];
            let mut value = [0; 8];
            value[..field.len()].copy_from_slice(field);
            let value = (u64::from_le_bytes(value) + 0x1_0000).to_le_bytes();
            field.copy_from_slice(&value[..field.len()]);
        }
        for (range, at) in &tables.sums {
            patched[*at] = 0;
            patched[*at] = sum(&patched[range.clone()]).wrapping_neg();
        }
        assert!(patched == moved.bytes);
    }
}
