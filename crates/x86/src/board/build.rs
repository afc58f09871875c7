//! Puts the machine together, and puts it into the state of power-on.

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use devices::acpi::{self, PowerManagement, ResetKind, ResetPorts};
use devices::cmos::{self, Cmos};
use devices::e1000::E1000;
use devices::ioapic::{self, IoApic};
use devices::pci::root::{ConfigPorts, Ecam, WindowPort};
use devices::pci::{Root, RootConfig, Source, Space, Window, root};
use devices::pvpanic::{self, PvPanic};
use devices::syscon::PowerSwitch;
use devices::uart::Uart;
use devices::virtio::VirtioDevice;
use devices::virtio::block::{self, Block};
use devices::virtio::console::Console;
use devices::virtio::entropy::EntropySource;
use devices::virtio::network::Network;
use devices::virtio::pci::Transport;
use devices::worker::Crew;
use devices::{BoardDevice, Card};
use machine::address::host_size;
use machine::backend::BlockBackend;
use machine::bus::{Bus, BusDevice, Width};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::gate::Gate;
use machine::interrupt::{InterruptLine, InterruptSink};
use machine::memory::GuestMemory;
use machine::snapshot::Identity;
use machine::sys::Mapping;
use machine::sys::file::unnamed_file;
use machine::{GuestPhysical, PAGE_SIZE};

use super::debug::Debugging;
use super::doorbells::Doorbells;
use super::messages::{Messages, Processors};
use super::power::{Event, Switch};
use super::{About, BoardConfig, BoardError, CPUS_COUNT_MAX, Interface, firmware};
use crate::boot::{self, Images, MEMORY_BYTES_MIN};
use crate::kvm::state::{VcpuState, VmState};
use crate::kvm::{Buses, Exits, Host, IrqChip, Vcpu, Vm, VmConfig, cpuid, lock};
use crate::vfio::{Container, Passed, Place, VfioError, readiness};
use crate::{map, tables};

/// RAM ends below the upper window of PCI.
pub(super) const MEMORY_BYTES_MAX: u64 = map::PCI_HIGH.start - (1 << 32) + map::HOLE.start;

/// Everything of a machine but its threads.
pub(super) struct Parts {
    pub(super) gate: Arc<Gate>,
    pub(super) clock: Arc<Clock>,
    pub(super) vm: Arc<Vm>,
    vcpus: Box<[Mutex<Vcpu>]>,
    pub(super) exits: Box<[Arc<Exits>]>,
    pub(super) buses: Buses,
    pub(super) switch: Switch,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) power: Arc<PowerManagement>,
    pub(super) doorbells: Doorbells,
    uart: Arc<Uart>,
    /// All that has registers, by name.
    pub(super) devices: Vec<(&'static str, Arc<dyn BoardDevice>)>,
    /// Where the blocks of the disks are.
    pub(super) disks: Vec<Arc<dyn BlockBackend>>,
    pub(super) about: About,
    /// The machine that this one goes on from.
    pub(super) parent: Option<Identity>,
    images: Images,
    windows: Vec<Window>,
    has_ecam: bool,
    irqchip: IrqChip,
    pub(super) debugging: Mutex<Debugging>,
    /// The states after power-on.
    pristine: (VmState, Vec<VcpuState>),
}

/// The ports of PCI's configuration, with the port that resets the machine in their midst.
struct ConfigAndReset {
    config: ConfigPorts,
    reset: ResetPorts,
}

impl ConfigAndReset {
    fn is_reset(offset: u64, width: Width) -> bool {
        (offset, width) == (u64::from(map::RESET_PORT) - map::PCI_CONFIG_PORT, Width::Byte)
    }
}

impl BusDevice for ConfigAndReset {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if Self::is_reset(offset, width) { self.reset.read(0, width) } else { self.config.read(offset, width) }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if Self::is_reset(offset, width) {
            self.reset.write(0, width, value);
        } else {
            self.config.write(offset, width, value);
        }
    }
}

pub(super) fn map_device(bus: &mut Bus, name: &str, at: u64, size: u64, device: Arc<dyn BusDevice>) {
    let mapped = bus.map(name, GuestPhysical(at), size, device);
    assert!(mapped.is_ok(), "the address map has no overlaps: {mapped:?}");
}

impl Parts {
    /// Builds the machine; its memory is empty and its processors are as after their reset.
    pub(super) fn build(mut config: BoardConfig, queue: &mpsc::Sender<Event>) -> Result<Self, BoardError> {
        if !(1..=CPUS_COUNT_MAX).contains(&config.cpus) {
            return Err(BoardError::Cpus(config.cpus));
        }
        if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&config.memory_bytes) {
            return Err(BoardError::MemorySize);
        }
        let host = Host::open()?;
        if config.irqchip == IrqChip::Split {
            check_split(&config)?;
        }
        let memory = Arc::new(GuestMemory::mapped(config.memory_bytes, map::HOLE)?);
        config.clock.pause();
        let vm = Arc::new(Vm::new(&host, &VmConfig { memory: Arc::clone(&memory), irqchip: config.irqchip })?);
        let supported = host.supported_cpuid()?;
        let mut vcpus = Vec::new();
        for id in 0..config.cpus {
            let vcpu = vm.create_vcpu(id)?;
            vcpu.set_cpuid(&cpuid::leaves(&supported, config.model, id, config.cpus)?)?;
            vcpus.push(vcpu);
        }
        let gate = Arc::new(Gate::default());
        let kicks = vcpus.iter().map(|vcpu| Arc::clone(vcpu.kick())).collect();
        let switch = Switch::new(Arc::clone(&gate), kicks, queue.clone());

        let power_switch: Arc<dyn PowerSwitch> = Arc::new(switch.clone());
        let mut buses = Buses::default();
        let ioapic =
            (config.irqchip == IrqChip::Split).then(|| Arc::new(IoApic::new(Arc::new(Processors(Arc::clone(&vm))))));
        let controller: Arc<dyn InterruptSink> = match &ioapic {
            Some(ioapic) => Arc::clone(ioapic) as _,
            None => Arc::clone(&vm) as _,
        };
        let line = |number| InterruptLine::new(Arc::clone(&controller), number);
        let crew = Crew::Threads;
        let uart = Arc::new(Uart::new(line(map::SERIAL_INTERRUPT), Arc::clone(&config.serial), &crew)?);
        let low_bytes = config.memory_bytes.min(map::HOLE.start);
        let cmos = Arc::new(Cmos::new(Arc::clone(&config.clock), config.memory_bytes, low_bytes));
        let power =
            PowerManagement::new(line(map::POWER_INTERRUPT), Arc::clone(&config.clock), Arc::clone(&power_switch));
        let power = Arc::new(power);
        let keyboard = ResetPorts::new(ResetKind::Keyboard, Arc::clone(&power_switch));
        let panic = PvPanic::new(Arc::new(switch.clone()));
        let ports = &mut buses.ports;
        map_device(ports, "serial", map::SERIAL_PORT.into(), 8, Arc::clone(&uart) as _);
        map_device(ports, "cmos", map::CLOCK_PORT, cmos::SIZE, Arc::clone(&cmos) as _);
        map_device(ports, "power", map::POWER_PORT.into(), acpi::SIZE, Arc::clone(&power) as _);
        map_device(ports, "keyboard", map::KEYBOARD_PORT, 1, Arc::new(keyboard));
        map_device(ports, "panic", map::PANIC_PORT.into(), pvpanic::SIZE, Arc::new(panic));
        let mut devices: Vec<(&'static str, Arc<dyn BoardDevice>)> =
            vec![("serial", Arc::clone(&uart) as _), ("cmos", cmos), ("power", Arc::clone(&power) as _)];
        if let Some(ioapic) = ioapic {
            map_device(&mut buses.memory, "ioapic", map::IOAPIC.into(), ioapic::SIZE, Arc::clone(&ioapic) as _);
            let theirs = Arc::clone(&ioapic);
            buses.end_of_interrupt = Some(Box::new(move |vector| theirs.end_of_interrupt(vector)));
            // Before the devices at its inputs.
            devices.insert(0, ("ioapic", ioapic));
        }

        let doorbells = Doorbells::new(&vm)?;
        let firmware = config.images.firmware.as_ref();
        let (windows, has_ecam) = match firmware {
            Some(_) => (firmware::windows(&memory), false),
            None => (windows(), true),
        };
        if let Some(firmware) = firmware {
            devices.extend(firmware::install(firmware, &vm, &mut buses)?.map(|flash| ("flash", flash)));
        }
        let (root, disks) = plug_in(&mut config, &windows, &crew, (&vm, &controller), &doorbells, &memory)?;
        let reset = ResetPorts::new(ResetKind::Register, power_switch);
        let ports = &mut buses.ports;
        // Linux takes the ports where they are, at two exits an access in place of ECAM's one.
        if has_ecam && config.images.is_linux()? {
            map_device(ports, "reset", map::RESET_PORT.into(), 1, Arc::new(reset));
        } else {
            let config_ports = ConfigAndReset { config: ConfigPorts(Arc::clone(&root)), reset };
            map_device(ports, "pci-config", map::PCI_CONFIG_PORT, root::CONFIG_PORTS_SIZE, Arc::new(config_ports));
        }
        let ecam = Arc::new(Ecam(Arc::clone(&root)));
        if has_ecam {
            let ecam_size = map::PCI_ECAM.end - map::PCI_ECAM.start;
            map_device(&mut buses.memory, "pci-ecam", map::PCI_ECAM.start, ecam_size, Arc::clone(&ecam) as _);
        }
        for (index, window) in windows.iter().enumerate() {
            let bus = if window.space == Space::Io { &mut buses.ports } else { &mut buses.memory };
            if let Some(port) = WindowPort::new(&root, index) {
                map_device(bus, "pci-window", window.base, window.size, Arc::new(port));
            }
        }
        devices.push(("pci", ecam));
        let mut generation = [0; 16];
        config.entropy.fill(&mut generation)?;
        vm.map_rom(GuestPhysical(map::GENERATION), page(&generation)?)?;
        if config.images.firmware.is_some() {
            let board = tables::Board { cpus_count: config.cpus, windows: &windows, has_ecam, has_8259: true };
            devices.push(("fw-cfg", firmware::tell(&config.images, &memory, &board, &disks, &mut buses)?));
        }

        let states = vcpus.iter().map(|vcpu| vm.save_vcpu(vcpu)).collect::<Result<_, _>>()?;
        let pristine = (vm.save()?, states);
        Ok(Self {
            gate,
            clock: config.clock,
            exits: vcpus.iter().map(|vcpu| Arc::clone(vcpu.exits())).collect(),
            vcpus: vcpus.into_iter().map(Mutex::new).collect(),
            vm,
            buses,
            switch,
            memory,
            power,
            doorbells,
            uart,
            devices,
            disks: config.disks.into_iter().map(|disk| disk.backend).collect(),
            about: config.about,
            parent: None,
            images: config.images,
            windows,
            has_ecam,
            irqchip: config.irqchip,
            debugging: Mutex::default(),
            pristine,
        })
    }

    pub(super) fn cpus_count(&self) -> usize {
        self.vcpus.len()
    }

    /// A processor: waits until its thread is outside the gate.
    pub(super) fn vcpu(&self, id: usize) -> MutexGuard<'_, Vcpu> {
        // A thread that panicked inside is reported as a fault of the machine, which never runs it again.
        self.vcpus[id].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the memory and puts processors where they begin. None runs meanwhile, and devices are as after their reset.
    pub(super) fn power_on(&self) -> Result<(), BoardError> {
        self.memory.clear()?;
        lock(&self.debugging).patches.forget();
        let cpus_count = u32::try_from(self.vcpus.len()).unwrap_or(CPUS_COUNT_MAX);
        let (windows, has_ecam) = (&*self.windows, self.has_ecam);
        let board = tables::Board { cpus_count, windows, has_ecam, has_8259: self.irqchip == IrqChip::Kernel };
        let entry = self.images.load(&self.memory, &board)?;
        let (vm_state, states) = &self.pristine;
        self.vm.restore(vm_state)?;
        for (id, state) in states.iter().enumerate() {
            let vcpu = self.vcpu(id);
            vcpu.restore(state)?;
            boot::prepare(&vcpu, &self.memory, entry)?;
        }
        Ok(())
    }

    pub(super) fn reset_devices(&self) {
        self.devices.iter().for_each(|(_, device)| device.reset());
    }

    pub(super) fn pause_devices(&self) {
        self.devices.iter().for_each(|(_, device)| device.pause());
    }

    pub(super) fn resume_devices(&self) {
        self.devices.iter().for_each(|(_, device)| device.resume());
    }

    /// Returns when all that the guest has printed is with the serial port's backend.
    pub(super) fn flush_console(&self) {
        self.uart.flush();
    }
}

/// What there is not without the controllers of old in the kernel.
fn check_split(config: &BoardConfig) -> Result<(), BoardError> {
    match () {
        () if config.images.firmware.is_some() => {
            Err(BoardError::Split("firmware, which counts time by the timer of old"))
        }
        () if !config.host_devices.is_empty() => {
            Err(BoardError::Split("devices of the host's, whose lines lead to the kernel's"))
        }
        () => Ok(()),
    }
}

fn windows() -> Vec<Window> {
    let window =
        |space, range: &std::ops::Range<u64>| Window { space, base: range.start, size: range.end - range.start };
    vec![
        window(Space::Memory, &map::PCI_LOW),
        window(Space::Memory, &map::PCI_HIGH),
        window(Space::Io, &map::PCI_PORTS),
    ]
}

/// A page that begins with `bytes`, for a ROM.
fn page(bytes: &[u8]) -> std::io::Result<Mapping> {
    let file = unnamed_file("isomorph-generation")?;
    file.set_len(PAGE_SIZE)?;
    file.write_all_at(bytes, 0)?;
    Mapping::of_file(&file, 0, host_size(PAGE_SIZE))
}

/// The PCI bus with everything on it, and which of its devices are disks.
fn plug_in(
    config: &mut BoardConfig,
    windows: &[Window],
    crew: &Crew,
    (vm, controller): (&Arc<Vm>, &Arc<dyn InterruptSink>),
    doorbells: &Doorbells,
    memory: &Arc<GuestMemory>,
) -> Result<(Arc<Root>, Vec<u8>), BoardError> {
    let lines = map::PCI_INTERRUPTS.map(|number| InterruptLine::new(Arc::clone(controller), number));
    let messages = Arc::new(Messages::new(vm));
    let mut root = Root::new(RootConfig {
        windows: windows.to_vec(),
        lines,
        messages: Some(Arc::clone(&messages) as _),
        doorbells: Some(doorbells.places()),
        assign: config.images.firmware.is_none(),
    });
    if config.images.firmware.is_some() {
        root.add_chipset(map::POWER_PORT);
    }
    let mut disks = Vec::new();
    for (index, device) in virtio_devices(config, crew)?.into_iter().enumerate() {
        let address = root.plug(|interrupts| Arc::new(Transport::new(device, Arc::clone(memory), interrupts)))?;
        if index < config.disks.len() {
            disks.push(address.device());
        }
    }
    if let Some(Interface { backend, mac, card: Card::E1000 }) = &config.network {
        let slot = root.free_slot()?;
        let (interrupts, clock) = (slot.interrupts.clone(), Arc::clone(&config.clock));
        let card = E1000::new(Arc::clone(backend), *mac, Arc::clone(memory), interrupts, clock, crew)?;
        root.insert(slot, Arc::new(card));
    }
    pass_through(config, vm, memory, &messages, &mut root)?;
    let root = Arc::new(root);
    doorbells.set_root(&root);
    root.power_on();
    Ok((root, disks))
}

/// Plugs in what the host gives of its own.
fn pass_through(
    config: &BoardConfig,
    vm: &Arc<Vm>,
    memory: &Arc<GuestMemory>,
    messages: &Messages,
    root: &mut Root,
) -> Result<(), BoardError> {
    let mut container = None;
    for address in &config.host_devices {
        let folder = readiness::check(&readiness::Places::default(), *address).map_err(VfioError::from)?;
        let container = match &container {
            Some(container) => Arc::clone(container),
            None => Arc::clone(container.insert(Container::new(*address, memory)?)),
        };
        let slot = root.free_slot()?;
        let line = map::PCI_INTERRUPTS[usize::from(slot.address.device()) % map::PCI_INTERRUPTS.len()];
        let place = Place { guest: Arc::clone(vm) as _, interrupts: slot.interrupts.clone(), line };
        let passed = Passed::new(*address, container.open(*address, &folder)?, place)?;
        for (vector, event) in (0..).zip(passed.vectors()) {
            messages.take_event(Source { function: slot.address, vector }, event);
        }
        root.insert(slot, Arc::new(passed));
    }
    Ok(())
}

/// The virtio devices, in the order of their places; Linux names disks in this order.
fn virtio_devices(config: &mut BoardConfig, crew: &Crew) -> Result<Vec<Arc<dyn VirtioDevice>>, BoardError> {
    let mut devices: Vec<Arc<dyn VirtioDevice>> = Vec::new();
    // Requests wait for the host's disk, so more queues than this gain nothing.
    let queues_count = u16::try_from(config.cpus.min(4)).unwrap_or(1);
    for disk in &config.disks {
        let options = block::Options { serial: disk.serial.clone(), queues_count };
        devices.push(Arc::new(Block::new(Arc::clone(&disk.backend), &options, crew)?));
    }
    if let Some(network) = config.network.as_ref().filter(|network| network.card == Card::Virtio) {
        devices.push(Arc::new(Network::new(Arc::clone(&network.backend), network.mac, queues_count, crew)?));
    }
    if let Some(backend) = &config.console {
        devices.push(Arc::new(Console::new(Arc::clone(backend), crew)?));
    }
    let entropy = match &mut config.entropy {
        Entropy::Host => Entropy::Host,
        seeded @ Entropy::Seeded(_) => Entropy::Seeded(seeded.next_u64()?),
    };
    devices.push(Arc::new(EntropySource::new(entropy, crew)?));
    Ok(devices)
}
