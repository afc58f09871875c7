//! The device tree that tells the guest what machine it is on (Devicetree Specification 0.4; Linux `Documentation/devicetree/bindings`).
//!
//! The tree is that of qemu's `virt` machine in names and addresses, so that firmware built for that machine runs unchanged, and holds
//! only devices that are there. Supervisor-mode kernels without a firmware get no CLINT (they ask the SBI for timers and
//! inter-processor interrupts) and a PLIC whose machine-mode contexts are absent.

use std::ops::Range;

use vm_fdt::{Error, FdtWriter};

use crate::map;

/// Ticks of the `time` counter in a second.
pub const TIMEBASE_HZ: u32 = 10_000_000;

const PHANDLE_PLIC: u32 = 1;
const PHANDLE_SYSCON: u32 = 2;
/// Hart `n`'s interrupt controller has this phandle plus `n`.
const PHANDLE_CPU: u32 = 0x100;
/// Interrupt numbers of a hart (Privileged Architecture, "Machine Cause Register").
const SUPERVISOR_EXTERNAL: u32 = 9;
const MACHINE_SOFTWARE: u32 = 3;
const MACHINE_TIMER: u32 = 7;
const MACHINE_EXTERNAL: u32 = 11;
/// "No interrupt here" in `interrupts-extended`.
const ABSENT: u32 = u32::MAX;

/// What a hart implements, as the bindings of RISC-V processors name it.
#[derive(Clone, Debug)]
pub struct Isa<'a> {
    /// The single-letter extensions after the base, as `imafdc`.
    pub letters: &'a str,
    /// The other extensions, lower-case, in any order.
    pub extensions: Vec<&'a str>,
    /// The largest address translation mode: `riscv,sv39`, `riscv,sv48` or `riscv,sv57`.
    pub mmu_type: &'a str,
    /// The size in bytes of the block that the `cbo` and `prefetch` instructions work on.
    pub cache_block_bytes: u32,
}

impl Isa<'_> {
    /// The string of the `riscv,isa` property.
    fn string(&self) -> String {
        let mut text = format!("rv64{}", self.letters);
        for extension in &self.extensions {
            text.push('_');
            text.push_str(extension);
        }
        text
    }
}

/// What a device tree is made of.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    /// The number of harts.
    pub cpus: u32,
    /// RAM, as physical addresses.
    pub memory: Range<u64>,
    /// What every hart implements.
    pub isa: Isa<'a>,
    /// Whether a firmware runs in machine mode.
    pub machine_mode: bool,
    /// The kernel's command line.
    pub arguments: &'a str,
    /// Where the initial RAM disk is, if there is one.
    pub initrd: Option<Range<u64>>,
    /// Random bytes for the kernel's generator.
    pub rng_seed: [u8; 64],
    /// How many virtio-mmio devices there are; they have the first slots.
    pub virtio_count: u32,
    /// Whether there is a PCI bus.
    pub pci: bool,
}

impl Tree<'_> {
    /// The flattened device tree.
    ///
    /// # Errors
    /// A string holds a NUL byte, or the tree is too large for its format.
    pub fn build(&self) -> Result<Vec<u8>, Error> {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_string("compatible", "riscv-virtio")?;
        fdt.property_string("model", "isomorph,virt")?;
        self.chosen(&mut fdt)?;
        let memory = fdt.begin_node(&format!("memory@{:x}", self.memory.start))?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[self.memory.start, self.memory.end.saturating_sub(self.memory.start)])?;
        fdt.end_node(memory)?;
        self.cpus(&mut fdt)?;
        self.soc(&mut fdt)?;
        for (name, offset_value) in [("poweroff", map::TEST_POWER_OFF), ("reboot", map::TEST_RESET)] {
            let node = fdt.begin_node(name)?;
            fdt.property_string("compatible", &format!("syscon-{name}"))?;
            fdt.property_u32("regmap", PHANDLE_SYSCON)?;
            fdt.property_u32("offset", 0)?;
            fdt.property_u32("value", offset_value)?;
            fdt.end_node(node)?;
        }
        fdt.end_node(root)?;
        fdt.finish()
    }

    fn chosen(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let node = fdt.begin_node("chosen")?;
        fdt.property_string("bootargs", self.arguments)?;
        fdt.property_string("stdout-path", &format!("/soc/serial@{:x}", map::UART.start))?;
        if let Some(initrd) = &self.initrd {
            fdt.property_u64("linux,initrd-start", initrd.start)?;
            fdt.property_u64("linux,initrd-end", initrd.end)?;
        }
        fdt.property("rng-seed", &self.rng_seed)?;
        fdt.end_node(node)
    }

    fn cpus(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let cpus = fdt.begin_node("cpus")?;
        fdt.property_u32("#address-cells", 1)?;
        fdt.property_u32("#size-cells", 0)?;
        fdt.property_u32("timebase-frequency", TIMEBASE_HZ)?;
        let letters = self.isa.letters.chars().map(String::from);
        let extensions: Vec<_> = letters.chain(self.isa.extensions.iter().map(|name| (*name).to_string())).collect();
        for id in 0..self.cpus {
            let cpu = fdt.begin_node(&format!("cpu@{id:x}"))?;
            fdt.property_string("device_type", "cpu")?;
            fdt.property_u32("reg", id)?;
            fdt.property_string("status", "okay")?;
            fdt.property_string("compatible", "riscv")?;
            fdt.property_string("riscv,isa", &self.isa.string())?;
            fdt.property_string("riscv,isa-base", "rv64i")?;
            fdt.property_string_list("riscv,isa-extensions", extensions.clone())?;
            fdt.property_string("mmu-type", self.isa.mmu_type)?;
            fdt.property_u32("riscv,cbom-block-size", self.isa.cache_block_bytes)?;
            fdt.property_u32("riscv,cbop-block-size", self.isa.cache_block_bytes)?;
            fdt.property_u32("riscv,cboz-block-size", self.isa.cache_block_bytes)?;
            let controller = fdt.begin_node("interrupt-controller")?;
            fdt.property_u32("#address-cells", 0)?;
            fdt.property_u32("#interrupt-cells", 1)?;
            fdt.property_null("interrupt-controller")?;
            fdt.property_string("compatible", "riscv,cpu-intc")?;
            fdt.property_phandle(PHANDLE_CPU + id)?;
            fdt.end_node(controller)?;
            fdt.end_node(cpu)?;
        }
        fdt.end_node(cpus)
    }

    fn soc(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let soc = fdt.begin_node("soc")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_string("compatible", "simple-bus")?;
        fdt.property_null("ranges")?;

        let test = begin(fdt, "test", &map::TEST)?;
        fdt.property_string_list("compatible", ["sifive,test1", "sifive,test0", "syscon"].map(String::from).to_vec())?;
        fdt.property_phandle(PHANDLE_SYSCON)?;
        fdt.end_node(test)?;

        let rtc = begin(fdt, "rtc", &map::RTC)?;
        fdt.property_string("compatible", "google,goldfish-rtc")?;
        interrupt(fdt, map::RTC_INTERRUPT)?;
        fdt.end_node(rtc)?;

        if self.machine_mode {
            let clint = begin(fdt, "clint", &map::CLINT)?;
            fdt.property_string_list("compatible", ["sifive,clint0", "riscv,clint0"].map(String::from).to_vec())?;
            let contexts =
                (0..self.cpus).flat_map(|id| [PHANDLE_CPU + id, MACHINE_SOFTWARE, PHANDLE_CPU + id, MACHINE_TIMER]);
            fdt.property_array_u32("interrupts-extended", &contexts.collect::<Vec<_>>())?;
            fdt.end_node(clint)?;
        }

        let plic = begin(fdt, "plic", &map::PLIC)?;
        fdt.property_string_list("compatible", ["sifive,plic-1.0.0", "riscv,plic0"].map(String::from).to_vec())?;
        fdt.property_u32("#address-cells", 0)?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_null("interrupt-controller")?;
        let machine = if self.machine_mode { MACHINE_EXTERNAL } else { ABSENT };
        let contexts = (0..self.cpus).flat_map(|id| [PHANDLE_CPU + id, machine, PHANDLE_CPU + id, SUPERVISOR_EXTERNAL]);
        fdt.property_array_u32("interrupts-extended", &contexts.collect::<Vec<_>>())?;
        fdt.property_u32("riscv,ndev", map::INTERRUPT_LAST)?;
        fdt.property_phandle(PHANDLE_PLIC)?;
        fdt.end_node(plic)?;

        let uart = begin(fdt, "serial", &map::UART)?;
        fdt.property_string("compatible", "ns16550a")?;
        fdt.property_u32("clock-frequency", map::UART_CLOCK_HZ)?;
        interrupt(fdt, map::UART_INTERRUPT)?;
        fdt.end_node(uart)?;

        for slot in 0..self.virtio_count {
            let virtio = begin(fdt, "virtio_mmio", &map::virtio(slot))?;
            fdt.property_string("compatible", "virtio,mmio")?;
            fdt.property_null("dma-coherent")?;
            interrupt(fdt, map::virtio_interrupt(slot))?;
            fdt.end_node(virtio)?;
        }
        if self.pci {
            self.pci(fdt)?;
        }
        fdt.end_node(soc)
    }

    /// The PCI host (bindings `pci/host-generic-pci.yaml`; "PCI Bus Binding to Open Firmware").
    fn pci(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        const IO: u32 = 0x0100_0000;
        const MEMORY: u32 = 0x0200_0000;
        const MEMORY64: u32 = 0x0300_0000;
        let pci = begin(fdt, "pci", &map::PCI_ECAM)?;
        fdt.property_string("device_type", "pci")?;
        fdt.property_string("compatible", "pci-host-ecam-generic")?;
        fdt.property_u32("#address-cells", 3)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_u32("linux,pci-domain", 0)?;
        fdt.property_array_u32("bus-range", &[0, 0xff])?;
        fdt.property_null("dma-coherent")?;
        // Kind and address on PCI, address here, size.
        let high = map::pci_high(self.memory.end);
        let mut ranges = Vec::new();
        for (kind, pci_start, range) in
            [(IO, 0, map::PCI_IO), (MEMORY, map::PCI_MEMORY.start, map::PCI_MEMORY), (MEMORY64, high.start, high)]
        {
            ranges.push(kind);
            for cell in [pci_start, range.start, range.end - range.start] {
                ranges.extend([cell >> 32, cell & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or(0)));
            }
        }
        fdt.property_array_u32("ranges", &ranges)?;
        // Device and pin decide: the lines are turned by one from device to device.
        fdt.property_array_u32("interrupt-map-mask", &[3 << 11, 0, 0, 7])?;
        let lines = (0..4).flat_map(|device| (0..4).map(move |pin| (device, pin)));
        let entries = lines.flat_map(|(device, pin)| {
            [device << 11, 0, 0, pin + 1, PHANDLE_PLIC, map::PCI_INTERRUPT + (device + pin) % 4]
        });
        fdt.property_array_u32("interrupt-map", &entries.collect::<Vec<_>>())?;
        fdt.end_node(pci)
    }
}

/// Begins the node of a device with its registers at `range`.
fn begin(fdt: &mut FdtWriter, name: &str, range: &Range<u64>) -> Result<vm_fdt::FdtWriterNode, Error> {
    let node = fdt.begin_node(&format!("{name}@{:x}", range.start))?;
    fdt.property_array_u64("reg", &[range.start, range.end - range.start])?;
    Ok(node)
}

/// The device's interrupt, at the PLIC.
fn interrupt(fdt: &mut FdtWriter, number: u32) -> Result<(), Error> {
    fdt.property_u32("interrupt-parent", PHANDLE_PLIC)?;
    fdt.property_u32("interrupts", number)
}

/// Fuzzing: builds the tree of a machine that `bytes` describe. Must not panic, and what it builds must say its own size.
pub fn fuzz(bytes: &[u8]) {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let start = u64::from(byte(1)) << 56 | u64::from(byte(2));
    let arguments = String::from_utf8_lossy(bytes.get(8..).unwrap_or_default());
    let extensions = arguments.split(' ').collect();
    let tree = Tree {
        cpus: u32::from(byte(0)),
        memory: start..start.wrapping_add(u64::from(byte(3)) << 55),
        isa: Isa { letters: "imafdc", extensions, mmu_type: "riscv,sv39", cache_block_bytes: byte(4).into() },
        machine_mode: byte(5) & 1 == 1,
        arguments: &arguments,
        initrd: (byte(5) & 2 == 2).then_some(start..u64::MAX),
        rng_seed: [byte(6); 64],
        virtio_count: u32::from(byte(7)) % (map::VIRTIO_SLOTS + 1),
        pci: byte(5) & 4 == 4,
    };
    if let Ok(blob) = tree.build() {
        assert_eq!(blob.get(4..8), u32::try_from(blob.len()).ok().map(u32::to_be_bytes).as_ref().map(|size| &size[..]));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn tree() -> Tree<'static> {
        Tree {
            cpus: 2,
            memory: map::RAM_BASE..map::RAM_BASE + (512 << 20),
            isa: Isa {
                letters: "imafdc",
                extensions: vec!["zicsr", "sstc"],
                mmu_type: "riscv,sv57",
                cache_block_bytes: 64,
            },
            machine_mode: false,
            arguments: "console=ttyS0 root=/dev/vda",
            initrd: Some(0x9000_0000..0x9100_0000),
            rng_seed: [0xa5; 64],
            virtio_count: 1,
            pci: false,
        }
    }

    /// The source that Debian's `dtc` makes of the tree; anything that it warns of fails the test.
    fn source(tree: &Tree<'_>) -> String {
        let mut dtc = Command::new("dtc")
            .args(["-I", "dtb", "-O", "dts"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dtc runs (Debian package device-tree-compiler)");
        dtc.stdin.take().unwrap().write_all(&tree.build().unwrap()).unwrap();
        let output = dtc.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "dtc complains");
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_tree_of_a_supervisor_mode_machine() {
        expect_test::expect![[r#"
            /dts-v1/;

            / {
            	#address-cells = <0x02>;
            	#size-cells = <0x02>;
            	compatible = "riscv-virtio";
            	model = "isomorph,virt";

            	chosen {
            		bootargs = "console=ttyS0 root=/dev/vda";
            		stdout-path = "/soc/serial@10000000";
            		linux,initrd-start = <0x00 0x90000000>;
            		linux,initrd-end = <0x00 0x91000000>;
            		rng-seed = <0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5 0xa5a5a5a5>;
            	};

            	memory@80000000 {
            		device_type = "memory";
            		reg = <0x00 0x80000000 0x00 0x20000000>;
            	};

            	cpus {
            		#address-cells = <0x01>;
            		#size-cells = <0x00>;
            		timebase-frequency = <0x989680>;

            		cpu@0 {
            			device_type = "cpu";
            			reg = <0x00>;
            			status = "okay";
            			compatible = "riscv";
            			riscv,isa = "rv64imafdc_zicsr_sstc";
            			riscv,isa-base = "rv64i";
            			riscv,isa-extensions = "i\0m\0a\0f\0d\0c\0zicsr\0sstc";
            			mmu-type = "riscv,sv57";
            			riscv,cbom-block-size = <0x40>;
            			riscv,cbop-block-size = <0x40>;
            			riscv,cboz-block-size = <0x40>;

            			interrupt-controller {
            				#address-cells = <0x00>;
            				#interrupt-cells = <0x01>;
            				interrupt-controller;
            				compatible = "riscv,cpu-intc";
            				phandle = <0x100>;
            			};
            		};

            		cpu@1 {
            			device_type = "cpu";
            			reg = <0x01>;
            			status = "okay";
            			compatible = "riscv";
            			riscv,isa = "rv64imafdc_zicsr_sstc";
            			riscv,isa-base = "rv64i";
            			riscv,isa-extensions = "i\0m\0a\0f\0d\0c\0zicsr\0sstc";
            			mmu-type = "riscv,sv57";
            			riscv,cbom-block-size = <0x40>;
            			riscv,cbop-block-size = <0x40>;
            			riscv,cboz-block-size = <0x40>;

            			interrupt-controller {
            				#address-cells = <0x00>;
            				#interrupt-cells = <0x01>;
            				interrupt-controller;
            				compatible = "riscv,cpu-intc";
            				phandle = <0x101>;
            			};
            		};
            	};

            	soc {
            		#address-cells = <0x02>;
            		#size-cells = <0x02>;
            		compatible = "simple-bus";
            		ranges;

            		test@100000 {
            			reg = <0x00 0x100000 0x00 0x1000>;
            			compatible = "sifive,test1\0sifive,test0\0syscon";
            			phandle = <0x02>;
            		};

            		rtc@101000 {
            			reg = <0x00 0x101000 0x00 0x1000>;
            			compatible = "google,goldfish-rtc";
            			interrupt-parent = <0x01>;
            			interrupts = <0x0b>;
            		};

            		plic@c000000 {
            			reg = <0x00 0xc000000 0x00 0x600000>;
            			compatible = "sifive,plic-1.0.0\0riscv,plic0";
            			#address-cells = <0x00>;
            			#interrupt-cells = <0x01>;
            			interrupt-controller;
            			interrupts-extended = <0x100 0xffffffff 0x100 0x09 0x101 0xffffffff 0x101 0x09>;
            			riscv,ndev = <0x5f>;
            			phandle = <0x01>;
            		};

            		serial@10000000 {
            			reg = <0x00 0x10000000 0x00 0x100>;
            			compatible = "ns16550a";
            			clock-frequency = "\08@";
            			interrupt-parent = <0x01>;
            			interrupts = <0x0a>;
            		};

            		virtio_mmio@10001000 {
            			reg = <0x00 0x10001000 0x00 0x1000>;
            			compatible = "virtio,mmio";
            			dma-coherent;
            			interrupt-parent = <0x01>;
            			interrupts = <0x01>;
            		};
            	};

            	poweroff {
            		compatible = "syscon-poweroff";
            		regmap = <0x02>;
            		offset = <0x00>;
            		value = <0x5555>;
            	};

            	reboot {
            		compatible = "syscon-reboot";
            		regmap = <0x02>;
            		offset = <0x00>;
            		value = <0x7777>;
            	};
            };
        "#]].assert_eq(&source(&tree()));
    }

    #[test]
    fn firmware_sees_the_machine_mode_devices() {
        let text = source(&Tree { machine_mode: true, initrd: None, virtio_count: 8, ..tree() });
        assert!(text.contains("clint@2000000 {"));
        assert!(text.contains("interrupts-extended = <0x100 0x03 0x100 0x07 0x101 0x03 0x101 0x07>;"));
        assert!(text.contains("interrupts-extended = <0x100 0x0b 0x100 0x09 0x101 0x0b 0x101 0x09>;"));
        assert!(text.contains("virtio_mmio@10008000 {"));
        assert!(!text.contains("initrd"));
    }

    #[test]
    fn a_pci_bus_has_windows_and_interrupts() {
        let text = source(&Tree { virtio_count: 0, pci: true, ..tree() });
        assert!(!text.contains("virtio_mmio"));
        let node = text.split("pci@30000000 {").nth(1).expect("there is a bus").split("};").next().unwrap_or_default();
        let lines: Vec<_> = node.lines().map(str::trim).collect();
        for line in [
            "ranges = <0x1000000 0x00 0x00 0x00 0x3000000 0x00 0x10000 \
             0x2000000 0x00 0x40000000 0x00 0x40000000 0x00 0x40000000 \
             0x3000000 0x04 0x00 0x04 0x00 0x04 0x00>;",
            "interrupt-map-mask = <0x1800 0x00 0x00 0x07>;",
        ] {
            assert!(lines.contains(&line), "{line} in {lines:#?}");
        }
        // INTB# of the second device is the third line.
        assert!(node.contains("0x800 0x00 0x00 0x02 0x01 0x22 "), "{node}");
    }

    #[test]
    fn arguments_with_a_nul_are_refused() {
        assert!(Tree { arguments: "a\0b", ..tree() }.build().is_err());
    }

    proptest::proptest! {
        #[test]
        fn odd_machines_do_not_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            fuzz(&bytes);
        }
    }
}
