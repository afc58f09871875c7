//! Puts the machine together, and puts it into the state of power-on.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use devices::BoardDevice;
use devices::Card;
use devices::aclint::{Aclint, HartLines, TimeSource};
use devices::e1000::E1000;
use devices::pci;
use devices::pci::root::{Ecam, WindowPort};
use devices::pci::{RootConfig, Space, Window};
use devices::plic::{ContextLines, Plic};
use devices::rtc::Rtc;
use devices::syscon::{PowerSwitch, Syscon};
use devices::uart::Uart;
use devices::virtio::VirtioDevice;
use devices::virtio::block::{self, Block};
use devices::virtio::console::Console;
use devices::virtio::entropy::EntropySource;
use devices::virtio::network::Network;
use devices::virtio::power_key::PowerKey;
use devices::virtio::{mmio, pci as virtio_pci};
use devices::worker::{Crew, Roster};
use machine::bus::{Bus, BusDevice};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::interrupt::{InterruptLine, InterruptSink};
use machine::lifecycle::Stats;
use machine::memory::GuestMemory;
use machine::record::{Setup, Writer};
use machine::{GuestPhysical, PAGE_SIZE};

use super::input::{CharacterPort, Doorbell, Inbox, NetworkPort, Ports};
use super::power::{Event, Switch};
use super::round_robin::{self, Log, RoundRobin};
use super::supervisor::Supervisor;
use super::vcpu::{ReportPanic, ResetVector, Vcpu};
use super::{BoardConfig, BoardError, CPUS_COUNT_MAX, Input, Interface, Schedule, VirtioTransport};
use crate::fdt::{Isa, Tree};
use crate::hart::translate::CodeCache;
use crate::hart::{self, Hart, HartConfig, HartSignals, interrupt};
use crate::loader::{FDT_ROOM, Images, Layout};
use crate::map;
use machine::gate::Gate;

/// Everything of a machine but its threads.
pub(super) struct Parts {
    pub(super) gate: Arc<Gate>,
    pub(super) clock: Arc<Clock>,
    pub(super) vcpus: Box<[Vcpu]>,
    pub(super) supervisor: Supervisor,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) code_cache: Option<Arc<CodeCache>>,
    uart: Arc<Uart>,
    devices: Vec<Arc<dyn BoardDevice>>,
    images: Images,
    arguments: String,
    /// The board has no button; Linux takes this key for one.
    pub(super) power_key: Option<Arc<PowerKey>>,
    virtio_count: u32,
    has_pci: bool,
    hardware_ad_updates: bool,
    entropy: Mutex<Entropy>,
    device_tree: Mutex<Vec<u8>>,
    /// The schedule of a machine whose harts have no threads of their own.
    pub(super) round_robin: Option<RoundRobin>,
    /// What the machine is, but for what is known only after its start.
    setup: Setup,
}

/// The wires from interrupt controllers to one hart, or from the PLIC to all of them.
struct Wires(Arc<[Arc<HartSignals>]>);

impl ContextLines for Wires {
    /// Contexts alternate: machine mode and supervisor mode of hart 0, of hart 1, and so on.
    fn set_external_interrupt(&self, context: usize, level: bool) {
        if let Some(signals) = self.0.get(context / 2) {
            let number = if context.is_multiple_of(2) { interrupt::MEI } else { interrupt::SEI };
            signals.set_interrupt(number, level);
        }
    }
}

struct HartWires(Arc<HartSignals>);

impl HartLines for HartWires {
    fn set_software_interrupt(&self, level: bool) {
        self.0.set_interrupt(interrupt::MSI, level);
    }

    fn set_timer_deadline(&self, ticks: u64) {
        self.0.set_timer_deadline(ticks);
    }
}

impl hart::TimeSource for TimeSource {
    fn ticks(&self) -> u64 {
        Self::ticks(self)
    }
}

/// The bus while it is filled, and the list of what is on it.
struct Slots {
    bus: Bus,
    devices: Vec<Arc<dyn BoardDevice>>,
}

impl Slots {
    fn map(&mut self, name: &str, range: &Range<u64>, device: Arc<dyn BoardDevice>) {
        let bus_device: Arc<dyn BusDevice> = device.clone();
        let mapped = self.bus.map(name, GuestPhysical(range.start), range.end - range.start, bus_device);
        assert!(mapped.is_ok(), "the address map has no overlaps: {mapped:?}");
        self.devices.push(device);
    }

    /// Maps the configuration spaces and the windows of a PCI bus.
    fn map_pci(&mut self, root: pci::Root, memory: &GuestMemory) {
        let root = Arc::new(root);
        root.power_on();
        for (index, (range, _)) in pci_windows(memory).into_iter().enumerate() {
            if let Some(window) = WindowPort::new(&root, index) {
                let mapped = self.bus.map("pci", GuestPhysical(range.start), range.end - range.start, Arc::new(window));
                assert!(mapped.is_ok(), "the address map has no overlaps: {mapped:?}");
            }
        }
        self.map("pci", &map::PCI_ECAM, Arc::new(Ecam(root)));
    }
}

/// Where PCI's windows are on the board, and what they are to PCI.
fn pci_windows(memory: &GuestMemory) -> [(Range<u64>, Window); 3] {
    let high = map::pci_high(memory.base().0 + memory.size());
    let window =
        |space, base, range: Range<u64>| (range.clone(), Window { space, base, size: range.end - range.start });
    [
        window(Space::Io, 0, map::PCI_IO),
        window(Space::Memory, map::PCI_MEMORY.start, map::PCI_MEMORY),
        window(Space::Memory, high.start, high),
    ]
}

/// A PCI bus whose interrupts A to D of device 0 are `lines`. There is no controller here that takes messages.
fn pci_root(memory: &GuestMemory, lines: [InterruptLine; 4]) -> pci::Root {
    pci::Root::new(RootConfig {
        windows: pci_windows(memory).map(|(_, window)| window).into(),
        lines,
        messages: None,
        doorbells: None,
        // Kernels find places themselves, as the device tree says that nobody has before.
        assign: false,
    })
}

impl Parts {
    /// Builds the machine; its memory is empty and its harts are not yet at their reset vector.
    pub(super) fn build(
        mut config: BoardConfig,
        queue: mpsc::Sender<Event>,
    ) -> Result<(Self, Option<Input>), BoardError> {
        if !(1..=CPUS_COUNT_MAX).contains(&config.cpus) {
            return Err(BoardError::Cpus(config.cpus));
        }
        if config.images.kernel.is_none() && config.images.firmware.is_none() {
            return Err(BoardError::NothingToRun);
        }
        let monitor_sbi = config.images.firmware.is_none();
        let memory = Arc::new(GuestMemory::new(GuestPhysical(map::RAM_BASE), config.memory_bytes)?);
        let doorbell = Arc::new(Doorbell::default());
        let mut setup = Setup {
            cpus: config.cpus,
            memory_bytes: config.memory_bytes,
            seed: 0,
            epoch_ns: 0,
            mtu: 0,
            digest: config.disks.iter().fold(0, |digest, disk| digest.rotate_left(7) ^ disk.backend.size()),
        };
        let mut crew = Crew::Threads;
        let (mut round_robin, mut input) = (None, None);
        if let Schedule::RoundRobin(schedule) = std::mem::take(&mut config.schedule) {
            config.clock = Arc::new(Clock::starting_at(schedule.epoch_ns));
            config.entropy = Entropy::Seeded(schedule.seed);
            let roster = Arc::new(Roster::new(Arc::clone(&config.clock)));
            crew = Crew::Inline(Arc::clone(&roster));
            let ports = ports(&mut config, &schedule, &doorbell);
            (setup.seed, setup.epoch_ns) = (schedule.seed, schedule.epoch_ns);
            if let Some(network) = &config.network {
                setup.digest =
                    network.mac.iter().fold(setup.digest, |digest, byte| digest.rotate_left(8) ^ u64::from(*byte));
            }
            setup.mtu = config.network.as_ref().map_or(0, |network| network.backend.mtu());
            let clock = Arc::clone(&config.clock);
            round_robin = Some(RoundRobin::new(clock, roster, ports, Arc::clone(&doorbell), schedule.until));
            input = Some(schedule.input);
        }
        config.clock.pause();
        let time = Arc::new(TimeSource::new(Arc::clone(&config.clock)));
        let signals: Arc<[Arc<HartSignals>]> = (0..config.cpus).map(|_| Arc::new(HartSignals::new())).collect();
        let gate = Arc::new(Gate::default());
        let switch = Switch::new(Arc::clone(&gate), Arc::clone(&signals), doorbell, queue);

        let mut slots = Slots { bus: Bus::new(), devices: Vec::new() };
        let plic = Arc::new(Plic::new(
            usize::try_from(map::INTERRUPT_LAST).unwrap_or(usize::MAX),
            2 * signals.len(),
            Arc::new(Wires(Arc::clone(&signals))),
        ));
        let line = |number| InterruptLine::new(Arc::clone(&plic) as Arc<dyn InterruptSink>, number);
        slots.map("plic", &map::PLIC, Arc::clone(&plic) as _);
        let uart = Arc::new(Uart::new(line(map::UART_INTERRUPT), Arc::clone(&config.serial), &crew)?);
        slots.map("uart", &map::UART, Arc::clone(&uart) as _);
        slots.map("rtc", &map::RTC, Arc::new(Rtc::new(line(map::RTC_INTERRUPT), Arc::clone(&config.clock), &crew)?));
        let power_switch: Arc<dyn PowerSwitch> = Arc::new(switch.clone());
        slots.map("test", &map::TEST, Arc::new(Syscon::new(power_switch)));
        let wires = signals.iter().map(|signals| Arc::new(HartWires(Arc::clone(signals))) as Arc<dyn HartLines>);
        let aclint = Arc::new(Aclint::new(Arc::clone(&time), wires.collect()));
        if monitor_sbi {
            // The guest cannot see it, but a reset still sets its time to zero.
            slots.devices.push(aclint);
        } else {
            slots.map("clint", &map::CLINT, aclint);
        }
        let mut virtio = virtio_devices(&mut config, &crew)?;
        // Nobody presses a key in a run that is to be repeatable.
        let power_key = round_robin.is_none().then(|| Arc::new(PowerKey::new()));
        virtio.extend(power_key.iter().map(|key| Arc::clone(key) as Arc<dyn VirtioDevice>));
        let on_pci: Vec<_> =
            if config.virtio == VirtioTransport::Pci { std::mem::take(&mut virtio) } else { Vec::new() };
        let count = virtio.len();
        let virtio_count = u32::try_from(count).ok().filter(|count| *count <= map::VIRTIO_SLOTS);
        let virtio_count = virtio_count.ok_or(BoardError::Devices { count, max: map::VIRTIO_SLOTS })?;
        for (slot, device) in (0..).zip(virtio) {
            let transport = mmio::Transport::new(device, Arc::clone(&memory), line(map::virtio_interrupt(slot)));
            slots.map("virtio", &map::virtio(slot), Arc::new(transport));
        }
        let card = config.network.as_ref().filter(|network| network.card == Card::E1000);
        let has_pci = !on_pci.is_empty() || card.is_some();
        if has_pci {
            let mut root = pci_root(&memory, [0, 1, 2, 3].map(|pin| line(map::PCI_INTERRUPT + pin)));
            for device in on_pci {
                let memory = Arc::clone(&memory);
                root.plug(|interrupts| Arc::new(virtio_pci::Transport::new(device, memory, interrupts)))?;
            }
            if let Some(Interface { backend, mac, .. }) = card {
                let slot = root.free_slot()?;
                let (interrupts, clock) = (slot.interrupts.clone(), Arc::clone(&config.clock));
                let card = E1000::new(Arc::clone(backend), *mac, Arc::clone(&memory), interrupts, clock, &crew)?;
                root.insert(slot, Arc::new(card));
            }
            slots.map_pci(root, &memory);
        }

        let cache = if config.translator.translate { Some(CodeCache::new(config.translator)?) } else { None };
        let bus = Arc::new(slots.bus);
        let harts = signals.iter().enumerate().map(|(id, signals)| {
            let hart_config =
                HartConfig { id: id as u64, hardware_ad_updates: config.hardware_ad_updates, monitor_sbi };
            let time: Arc<dyn hart::TimeSource> = time.clone();
            let mut hart = Hart::new(hart_config, Arc::clone(&memory), Arc::clone(&bus), time, Arc::clone(signals));
            if let Some(cache) = &cache {
                hart.translate_with(Arc::clone(cache));
            }
            Vcpu::new(id, hart, round_robin.is_none())
        });
        let vcpus = harts.collect();
        let console: Arc<dyn BusDevice> = uart.clone();
        let code_cache = cache;
        let supervisor = Supervisor { time, memory: Arc::clone(&memory), console, switch };
        let parts = Self {
            gate,
            clock: config.clock,
            vcpus,
            supervisor,
            code_cache,
            memory,
            uart,
            devices: slots.devices,
            images: config.images,
            arguments: config.arguments,
            power_key,
            virtio_count,
            has_pci,
            hardware_ad_updates: config.hardware_ad_updates,
            entropy: Mutex::new(config.entropy),
            device_tree: Mutex::new(Vec::new()),
            round_robin,
            setup,
        };
        Ok((parts, input))
    }

    /// Begins the record of the run, or compares the machine with that of the record. The machine is powered on.
    pub(super) fn begin_log(&self, input: Option<Input>) -> Result<(), BoardError> {
        let Some(round_robin) = &self.round_robin else { return Ok(()) };
        let mut setup = self.setup;
        // The tree has the command line, the place of the initial RAM disk and the number of devices in it.
        setup.digest = self.device_tree().iter().fold(setup.digest ^ 0xcbf2_9ce4_8422_2325, |digest, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        round_robin.set_log(match input {
            None | Some(Input::Live) => Log::Nothing,
            Some(Input::Record(out)) => Log::Record(Writer::new(out, &setup)?),
            Some(Input::Replay(mut reader)) => {
                if let Some(difference) = round_robin::difference(&setup, reader.setup()) {
                    return Err(BoardError::AnotherMachine(difference));
                }
                let next = reader.next_entry()?;
                Log::Replay(reader, next)
            }
        });
        Ok(())
    }

    /// Makes a panic of the thread of all harts a fault of the machine.
    pub(super) fn report_panic(&self) -> ReportPanic<'_> {
        ReportPanic { id: 0, switch: &self.supervisor.switch }
    }

    /// Fills the memory and sends the harts to their reset vector. No hart runs meanwhile, and devices are as after their reset.
    pub(super) fn power_on(&self) -> Result<(), BoardError> {
        self.memory.clear()?;
        let layout = self.images.load(&self.memory)?;
        let tree = self.build_tree(&layout)?;
        let written = self.memory.write(layout.fdt, &tree);
        debug_assert!(written.is_ok(), "the layout is in memory");
        self.write_dynamic_info(&layout);
        *self.device_tree.lock().unwrap_or_else(PoisonError::into_inner) = tree;
        let machine_mode = self.images.firmware.is_some();
        for vcpu in &self.vcpus {
            vcpu.reset(ResetVector {
                entry: layout.entry.0,
                fdt: layout.fdt.0,
                dynamic_info: if machine_mode { layout.dynamic_info.0 } else { 0 },
                running: machine_mode || vcpu.id == 0,
            });
        }
        Ok(())
    }

    fn build_tree(&self, layout: &Layout) -> Result<Vec<u8>, BoardError> {
        let mut rng_seed = [0; 64];
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut rng_seed).map_err(BoardError::Entropy)?;
        let base = self.memory.base().0;
        let tree = Tree {
            cpus: u32::try_from(self.vcpus.len()).unwrap_or(CPUS_COUNT_MAX),
            memory: base..base + self.memory.size(),
            isa: isa(self.hardware_ad_updates),
            machine_mode: self.images.firmware.is_some(),
            arguments: &self.arguments,
            initrd: layout.initrd.clone(),
            rng_seed,
            virtio_count: self.virtio_count,
            pci: self.has_pci,
        };
        let blob = tree.build().map_err(|cause| BoardError::DeviceTree(cause.to_string()))?;
        if blob.len() as u64 > FDT_ROOM - PAGE_SIZE {
            return Err(BoardError::DeviceTree("it is too long".into()));
        }
        Ok(blob)
    }

    /// What OpenSBI's `fw_dynamic` looks for at the address in `a2`: magic, version, next address, next mode, options, boot hart.
    fn write_dynamic_info(&self, layout: &Layout) {
        const SUPERVISOR: u64 = 1;
        const ANY_HART: u64 = u64::MAX;
        if self.images.firmware.is_none() {
            return;
        }
        let next = layout.next.map_or(0, |next| next.0);
        for (index, word) in [0x4942_534f, 2, next, SUPERVISOR, 0, ANY_HART].into_iter().enumerate() {
            let stored = self.memory.store::<u64>(layout.dynamic_info.wrapping_add(8 * index as u64), word);
            debug_assert!(stored.is_ok(), "the layout is in memory");
        }
    }

    pub(super) fn reset_devices(&self) {
        self.devices.iter().for_each(|device| device.reset());
    }

    pub(super) fn pause_devices(&self) {
        self.devices.iter().for_each(|device| device.pause());
    }

    pub(super) fn resume_devices(&self) {
        self.devices.iter().for_each(|device| device.resume());
    }

    /// Returns when all that the guest has printed is with the serial port's backend.
    pub(super) fn flush_console(&self) {
        self.uart.flush();
    }

    pub(super) fn device_tree(&self) -> Vec<u8> {
        self.device_tree.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the machine has used, apart from the number of resets.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            instructions_count: self.vcpus.iter().map(|vcpu| vcpu.core().hart.instructions_retired()).sum(),
            time_ns: self.clock.now_ns(),
            memory_resident_bytes: self.memory.resident_bytes(),
            memory_size_bytes: self.memory.size(),
            resets_count: 0,
        }
    }
}

/// Puts ports between the machine's devices and their backends.
fn ports(config: &mut BoardConfig, schedule: &super::RoundRobin, doorbell: &Arc<Doorbell>) -> Ports {
    let inbox = Arc::new(Inbox::new(Arc::clone(doorbell)));
    let live = !matches!(schedule.input, Input::Replay(_));
    let serial = CharacterPort::new(0, Arc::clone(&config.serial), Arc::clone(&inbox), live);
    config.serial = Arc::clone(&serial) as _;
    let mut consoles = vec![serial];
    if let Some(console) = &mut config.console {
        let port = CharacterPort::new(1, Arc::clone(console), Arc::clone(&inbox), live);
        *console = Arc::clone(&port) as _;
        consoles.push(port);
    }
    let network = config.network.as_mut().map(|network| {
        let mtu = match &schedule.input {
            Input::Replay(reader) => reader.setup().mtu,
            Input::Live | Input::Record(_) => network.backend.mtu(),
        };
        let backend = live.then(|| Arc::clone(&network.backend));
        let port = NetworkPort::new(backend, mtu, Arc::clone(&inbox));
        network.backend = Arc::clone(&port) as _;
        port
    });
    Ports { inbox, consoles, network, paced: schedule.paced }
}

/// The virtio devices, in the order of their slots; Linux names disks in this order.
fn virtio_devices(config: &mut BoardConfig, crew: &Crew) -> Result<Vec<Arc<dyn VirtioDevice>>, BoardError> {
    let mut devices: Vec<Arc<dyn VirtioDevice>> = Vec::new();
    // Requests wait for the host's disk, so more queues than this gain nothing.
    let queues_count = u16::try_from(config.cpus.min(4)).unwrap_or(1);
    for disk in &config.disks {
        let options = block::Options { serial: disk.serial.clone(), queues_count };
        devices.push(Arc::new(Block::new(Arc::clone(&disk.backend), &options, crew)?));
    }
    if let Some(Interface { backend, mac, card: Card::Virtio }) = &config.network {
        // Over MMIO all queues have one interrupt.
        let pairs_count = if config.virtio == VirtioTransport::Pci { queues_count } else { 1 };
        devices.push(Arc::new(Network::new(Arc::clone(backend), *mac, pairs_count, crew)?));
    }
    if let Some(backend) = &config.console {
        devices.push(Arc::new(Console::new(Arc::clone(backend), crew)?));
    }
    let entropy = match &mut config.entropy {
        Entropy::Host => Entropy::Host,
        seeded @ Entropy::Seeded(_) => Entropy::Seeded(seeded.next_u64().map_err(BoardError::Entropy)?),
    };
    devices.push(Arc::new(EntropySource::new(entropy, crew)?));
    Ok(devices)
}

/// What every hart implements, as the device tree names it.
fn isa(hardware_ad_updates: bool) -> Isa<'static> {
    const ALWAYS: &str = "zicbom zicbop zicboz zicntr zicond zicsr zifencei zihintpause zihpm zawrs zba zbb zbc zbkb zbkc zbkx zbs \
                          zknd zkne zknh zksed zksh sstc svinval svnapot svpbmt";
    let mut extensions = ALWAYS.split(' ').collect::<Vec<_>>();
    extensions.push(if hardware_ad_updates { "svadu" } else { "svade" });
    Isa { letters: "imafdc", extensions, mmu_type: "riscv,sv57", cache_block_bytes: 64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Extension, TABLE};

    #[test]
    fn the_device_tree_names_every_extension_of_the_instruction_table() {
        let isa = isa(true);
        for line in TABLE {
            // Two that have no name of their own there: one is C with D, the other comes with supervisor mode.
            if matches!(line.extension, Extension::Zcd | Extension::Privileged) {
                continue;
            }
            let name = format!("{:?}", line.extension).to_lowercase();
            assert!(isa.letters.contains(&name) || isa.extensions.contains(&&*name), "{name}");
        }
    }
}
