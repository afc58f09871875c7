//! KVM as machines use it, with guests of a few instructions. Needs /dev/kvm: `cargo xtask kvm` runs this program on the host's, where it opens, and always
//! inside a machine of qemu's whose processor has virtualization.

mod board;
mod guests;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use guests::ORIGIN;
use machine::GuestPhysical;
use machine::address::host_size;
use machine::bus::{BusDevice, Width};
use machine::debug::{Points, Stop, Watch, Watchpoint};
use machine::interrupt::InterruptSink;
use machine::memory::GuestMemory;
use machine::sys::{Mapping, Poller, Waker};
use x86::kvm::cpuid::{self, Model};
use x86::kvm::points::{Manner, Stepping};
use x86::kvm::state::{RestoreError, VcpuState, VmState};
use x86::kvm::{Buses, Exit, ExitKind, Host, IrqChip, Kick, Vcpu, Vm, VmConfig};

const RAM: u64 = 0x8_0000;
const DEVICE_MEMORY: u64 = 0x8_0000;
const SOON: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read(u64, u8),
    Write(u64, u8, u64),
}

/// A device that notes what is done to it, and answers reads with the offset.
struct Recorder {
    seen: Sender<Access>,
    /// Called at every write to the last of its addresses, or after so many accesses.
    kick: Arc<OnceLock<Arc<Kick>>>,
    kick_at: u64,
    budget: Mutex<Option<u32>>,
}

impl Recorder {
    fn kick(&self) {
        self.kick.get().unwrap().kick();
    }

    fn count(&self) {
        let mut budget = self.budget.lock().unwrap();
        *budget = budget.map(|left| left - 1);
        if *budget == Some(0) {
            self.kick();
        }
    }
}

impl BusDevice for Recorder {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let _ = self.seen.send(Access::Read(offset, width as u8));
        self.count();
        0x1111_1111_1111_1111u64.wrapping_mul(offset & 0xf)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if offset == self.kick_at {
            return self.kick();
        }
        let _ = self.seen.send(Access::Write(offset, width as u8, value));
        self.count();
    }
}

struct Machine {
    vm: Arc<Vm>,
    buses: Arc<Buses>,
    ports: Receiver<Access>,
    memory: Receiver<Access>,
    kick: Arc<OnceLock<Arc<Kick>>>,
}

fn host() -> Host {
    Host::open().unwrap_or_else(|error| panic!("{error}"))
}

impl Machine {
    fn new(code: &[u8]) -> Self {
        Self::with(code, IrqChip::Kernel, None)
    }

    fn with(code: &[u8], irqchip: IrqChip, budget: Option<u32>) -> Self {
        let memory = Arc::new(GuestMemory::mapped(RAM, DEVICE_MEMORY..0x10_0000).unwrap());
        memory.write(GuestPhysical(ORIGIN), code).unwrap();
        let vm = Vm::new(&host(), &VmConfig { memory, irqchip }).unwrap();
        let mut buses = Buses::default();
        let kick = Arc::new(OnceLock::new());
        let recorder = |kick_at, budget| {
            let (seen, receiver) = mpsc::channel();
            let budget = Mutex::new(budget);
            (Arc::new(Recorder { seen, kick: Arc::clone(&kick), kick_at, budget }), receiver)
        };
        let (on_ports, ports) = recorder(0xf4, budget);
        let (in_memory, memory) = recorder(u64::MAX, None);
        // The ports of the kernel's own controllers never come here.
        buses.ports.map("recorder", GuestPhysical(0), 0x100, on_ports).unwrap();
        buses.memory.map("recorder", GuestPhysical(DEVICE_MEMORY), 0x8_0000, in_memory).unwrap();
        Self { vm: Arc::new(vm), buses: Arc::new(buses), ports, memory, kick }
    }

    /// Processor `id`; the first begins at the guest's first instruction and is the one that port 0xf4 stops.
    fn vcpu(&self, id: u32, cpus_count: u32, model: Model) -> Vcpu {
        let vcpu = self.vm.create_vcpu(id).unwrap();
        let supported = host().supported_cpuid().unwrap();
        vcpu.set_cpuid(&cpuid::leaves(&supported, model, id, cpus_count).unwrap()).unwrap();
        if id == 0 {
            let mut system = vcpu.system_registers().unwrap();
            (system.cs.base, system.cs.selector) = (0, 0);
            vcpu.set_system_registers(&system).unwrap();
            let mut registers = vcpu.registers().unwrap();
            registers.rip = ORIGIN;
            vcpu.set_registers(&registers).unwrap();
            self.kick.set(Arc::clone(vcpu.kick())).unwrap();
        }
        vcpu
    }

    fn only_vcpu(&self) -> Vcpu {
        self.vcpu(0, 1, Model::Host)
    }

    /// Runs it on a thread of its own.
    fn spawn(&self, mut vcpu: Vcpu) -> (Arc<Kick>, thread::JoinHandle<(Exit, Vcpu)>) {
        let (kick, buses) = (Arc::clone(vcpu.kick()), Arc::clone(&self.buses));
        (kick, thread::spawn(move || (vcpu.run(&buses), vcpu)))
    }

    fn load<T: machine::memory::Scalar>(&self, at: u64) -> T {
        self.vm.memory().load(GuestPhysical(at)).unwrap()
    }
}

#[test]
fn accesses_reach_devices_at_their_width() {
    let machine = Machine::new(guests::accesses());
    let mut vcpu = machine.only_vcpu();
    assert_eq!(vcpu.run(&machine.buses), Exit::Attention);
    use Access::{Read, Write};
    let ports: Vec<_> = machine.ports.try_iter().collect();
    let expected = [
        Write(0x10, 1, 0x11),
        Write(0x12, 2, 0x2222),
        Write(0x14, 4, 0x3333_3333),
        Read(0x10, 1),
        Read(0x12, 2),
        Read(0x14, 4),
        Write(0x16, 2, 0),
        Write(0x16, 2, 0x2222),
        Write(0x16, 2, 0x4444),
    ];
    assert_eq!(ports, expected);
    let memory: Vec<_> = machine.memory.try_iter().collect();
    let expected = [
        Write(0x10, 1, 1),
        Write(0x12, 2, 2),
        Write(0x14, 4, 4),
        // Not aligned: byte by byte.
        Write(0x17, 1, 5),
        Write(0x18, 1, 6),
        Read(0x10, 1),
        Read(0x14, 4),
    ];
    assert_eq!(memory, expected);
    assert_eq!((machine.load::<u16>(0x502), machine.load::<u32>(0x504)), (0x2222, 0x4444_4444));
    assert_eq!((machine.load::<u8>(0x508), machine.load::<u32>(0x50c)), (0, 0x4444_4444));
    let exits = vcpu.exits();
    assert_eq!((exits.count(ExitKind::PortRead), exits.count(ExitKind::MmioRead)), (3, 2));
    assert_eq!(exits.count(ExitKind::MmioWrite), 4);
    assert!(exits.count(ExitKind::PortWrite) >= 5, "a repeated instruction may come as one exit or more");
    let sum: u64 = ExitKind::ALL.iter().map(|(kind, _)| exits.count(*kind)).sum();
    assert_eq!(exits.total(), sum);
}

#[test]
fn a_processor_comes_out_when_called() {
    let machine = Machine::new(guests::endless());
    let vcpu = machine.only_vcpu();
    // Before it goes in.
    vcpu.kick().kick();
    let (kick, thread) = machine.spawn(vcpu);
    let (exit, vcpu) = thread.join().unwrap();
    assert_eq!(exit, Exit::Attention);
    drop(kick);
    // While it is in, many times and at any moment.
    let mut vcpu = Some(vcpu);
    for round in 0..200u32 {
        let (kick, thread) = machine.spawn(vcpu.take().unwrap());
        for _ in 0..round % 50 * 40 {
            std::hint::spin_loop();
        }
        kick.kick();
        let (exit, back) = thread.join().unwrap();
        assert_eq!(exit, Exit::Attention);
        vcpu = Some(back);
    }
}

#[test]
fn failures_are_told_from_resets() {
    let machine = Machine::new(guests::triple_fault());
    assert_eq!(machine.only_vcpu().run(&machine.buses), Exit::Shutdown);
    let machine = Machine::new(guests::nowhere());
    let mut vcpu = machine.only_vcpu();
    let exit = vcpu.run(&machine.buses);
    let Exit::Failed(why) = &exit else { panic!("{exit:?}") };
    assert!(why.starts_with("processor 0: KVM cannot execute") && why.lines().count() == 1, "{why}");
    assert_eq!(vcpu.exits().count(ExitKind::Failure), 1);
}

#[test]
fn written_pages_are_known() {
    let machine = Machine::new(guests::three_pages());
    machine.vm.log_dirty(true).unwrap();
    machine.vm.memory().store(GuestPhysical(0x9000), 1u8).unwrap();
    assert_eq!(machine.only_vcpu().run(&machine.buses), Exit::Attention);
    // A page that is read for the first time may be taken for written; the guest's code is such a one.
    let mut pages = machine.vm.take_dirty().unwrap();
    pages.retain(|page| *page != 1);
    assert_eq!(pages, [3, 5, 6, 9]);
    assert_eq!(machine.vm.take_dirty().unwrap(), [0; 0]);
    machine.vm.log_dirty(false).unwrap();
    assert!(machine.vm.take_dirty().is_err());
}

/// What comes at port 0x10 after the guest has said at 0x11 that it waits.
fn expect(machine: &Machine, expected: Access) {
    match machine.ports.recv_timeout(SOON) {
        Ok(access) => assert_eq!(access, expected),
        Err(RecvTimeoutError::Timeout) => panic!("no {expected:?}"),
        Err(error) => panic!("{error}"),
    }
}

fn wait_until_it_waits(machine: &Machine) {
    loop {
        if let Access::Write(0x11, ..) = machine.ports.recv_timeout(SOON).unwrap() {
            return;
        }
    }
}

#[test]
fn lines_interrupt() {
    let machine = Machine::new(guests::lines());
    let (kick, thread) = machine.spawn(machine.only_vcpu());
    wait_until_it_waits(&machine);
    for _ in 0..3 {
        machine.vm.set_level(5, true);
        expect(&machine, Access::Write(0x10, 1, 5));
        machine.vm.set_level(5, false);
    }
    kick.kick();
    assert_eq!(thread.join().unwrap().0, Exit::Attention);
}

#[test]
fn messages_and_events_interrupt() {
    for irqchip in [IrqChip::Kernel, IrqChip::Split] {
        let machine = Machine::with(guests::messages(), irqchip, None);
        let (kick, thread) = machine.spawn(machine.only_vcpu());
        wait_until_it_waits(&machine);
        assert!(machine.vm.signal_msi(0xfee0_0000, 0x40).unwrap());
        expect(&machine, Access::Write(0x10, 1, 0x40));
        let number = machine.vm.route_message(0xfee0_0000, 0x41).unwrap();
        let event = Waker::new().unwrap();
        machine.vm.add_interrupt(number, &event).unwrap();
        for _ in 0..3 {
            event.set();
            expect(&machine, Access::Write(0x10, 1, 0x41));
        }
        kick.kick();
        assert_eq!(thread.join().unwrap().0, Exit::Attention);
    }
}

fn is_set(event: &Waker) -> bool {
    let poller = Poller::new().unwrap();
    poller.add(event, 1).unwrap();
    let mut events = Vec::new();
    poller.wait(Some(0), &mut events).unwrap();
    !events.is_empty()
}

#[test]
fn doorbells_ring_without_an_exit() {
    let machine = Machine::new(guests::doorbell());
    let (event, at) = (Waker::new().unwrap(), GuestPhysical(DEVICE_MEMORY + 0x100));
    machine.vm.add_doorbell(at, &event).unwrap();
    let mut vcpu = machine.only_vcpu();
    assert_eq!(vcpu.run(&machine.buses), Exit::Attention);
    assert!(is_set(&event));
    assert_eq!(machine.memory.try_iter().collect::<Vec<_>>(), [Access::Write(0x200, 1, 9)]);
    machine.vm.remove_doorbell(at, &event).unwrap();
    let machine = Machine::new(guests::doorbell());
    machine.vm.add_doorbell(at, &event).unwrap();
    machine.vm.remove_doorbell(at, &event).unwrap();
    assert_eq!(machine.only_vcpu().run(&machine.buses), Exit::Attention);
    assert_eq!(machine.memory.try_iter().count(), 3);
}

#[test]
fn processors_start_each_other_and_count_together() {
    let machine = Machine::new(guests::processors());
    let vcpus: Vec<_> = (0..4).map(|id| machine.vcpu(id, 4, Model::Host)).collect();
    // All are there before the first calls the others.
    let mut others: Vec<_> = vcpus.into_iter().map(|vcpu| machine.spawn(vcpu)).collect();
    let first = others.remove(0);
    assert_eq!(first.1.join().unwrap().0, Exit::Attention);
    assert_eq!(machine.load::<u16>(0x500), 3000);
    for _ in 0..3 {
        expect(&machine, Access::Write(0x10, 1, 0));
    }
    for (kick, thread) in others {
        kick.kick();
        assert_eq!(thread.join().unwrap().0, Exit::Attention);
    }
}

/// The numbers at port 0x14.
fn numbers(machine: &Machine) -> Vec<u64> {
    let number = |access| match access {
        Access::Write(0x14, 4, value) => Some(value),
        _ => None,
    };
    machine.ports.try_iter().filter_map(number).collect()
}

#[test]
fn a_state_goes_on_in_a_new_machine() {
    let whole = Machine::new(guests::sequence());
    assert_eq!(whole.only_vcpu().run(&whole.buses), Exit::Attention);
    let expected = numbers(&whole);
    assert_eq!(expected.len(), 2000);

    for (irqchip, stop_after) in [(IrqChip::Kernel, 700), (IrqChip::Split, 1999)] {
        let old = Machine::with(guests::sequence(), irqchip, Some(stop_after));
        let mut vcpu = old.only_vcpu();
        assert_eq!(vcpu.run(&old.buses), Exit::Attention);
        let states = (old.vm.save().unwrap(), old.vm.save_vcpu(&vcpu).unwrap());
        // As a file would have it.
        let text = serde_json::to_string(&states).unwrap();
        let (vm_state, vcpu_state): (VmState, VcpuState) = serde_json::from_str(&text).unwrap();
        let mut numbers_seen = numbers(&old);
        assert_eq!(numbers_seen.len(), stop_after as usize);

        let new = Machine::with(&[], irqchip, None);
        let mut ram = vec![0; host_size(RAM)];
        old.vm.memory().read(GuestPhysical(0), &mut ram).unwrap();
        drop((vcpu, old.vm));
        new.vm.memory().write(GuestPhysical(0), &ram).unwrap();
        new.vm.restore(&vm_state).unwrap();
        let mut vcpu = new.vm.create_vcpu(0).unwrap();
        new.kick.set(Arc::clone(vcpu.kick())).unwrap();
        vcpu.restore(&vcpu_state).unwrap();
        let again = new.vm.save_vcpu(&vcpu).unwrap();
        assert_eq!(again.registers, vcpu_state.registers);
        assert_eq!(again.cpuid, vcpu_state.cpuid);
        assert!(new.vm.save().unwrap().clock.clock >= vm_state.clock.clock, "the clock goes on from where it was");
        assert_eq!(vcpu.run(&new.buses), Exit::Attention);
        numbers_seen.extend(numbers(&new));
        assert_eq!(numbers_seen, expected);

        let mut newer = vm_state.clone();
        newer.version = 9;
        assert!(matches!(new.vm.restore(&newer), Err(RestoreError::Version(9))));
        let other = if irqchip == IrqChip::Kernel { IrqChip::Split } else { IrqChip::Kernel };
        let machine = Machine::with(&[], other, None);
        assert!(matches!(machine.vm.restore(&vm_state), Err(RestoreError::AnotherMachine)));
    }
}

#[test]
fn an_idle_processor_is_woken_after_a_restore() {
    let old = Machine::new(guests::messages());
    let (kick, thread) = old.spawn(old.only_vcpu());
    wait_until_it_waits(&old);
    kick.kick();
    let (_, vcpu) = thread.join().unwrap();
    let (vm_state, vcpu_state) = (old.vm.save().unwrap(), old.vm.save_vcpu(&vcpu).unwrap());
    let new = Machine::new(&[]);
    let mut ram = vec![0; host_size(RAM)];
    old.vm.memory().read(GuestPhysical(0), &mut ram).unwrap();
    new.vm.memory().write(GuestPhysical(0), &ram).unwrap();
    new.vm.restore(&vm_state).unwrap();
    let vcpu = new.vm.create_vcpu(0).unwrap();
    vcpu.restore(&vcpu_state).unwrap();
    let (kick, thread) = new.spawn(vcpu);
    assert!(new.vm.signal_msi(0xfee0_0000, 0x41).unwrap());
    expect(&new, Access::Write(0x10, 1, 0x41));
    kick.kick();
    assert_eq!(thread.join().unwrap().0, Exit::Attention);
}

#[test]
fn a_guest_sees_the_processor_that_it_was_given() {
    let supported = host().supported_cpuid().unwrap();
    let models = Model::NAMES.map(|name| name.parse::<Model>().unwrap());
    let refusal = |model: Model| Some(cpuid::leaves(&supported, model, 0, 2).err()?.to_string());
    let offered: Vec<_> = models.into_iter().filter(|model| refusal(*model).is_none()).collect();
    assert!(offered.len() >= 2, "{:?}", models.map(refusal));
    for model in offered {
        let machine = Machine::new(guests::identity());
        let asked = [(0x4000_0000u32, 0u32), (1, 0), (0xb, 1), (0x8000_0002, 0)];
        for (index, (leaf, subleaf)) in asked.iter().enumerate() {
            let at = GuestPhysical(0x700 + 8 * index as u64);
            machine.vm.memory().store(at, *leaf).unwrap();
            machine.vm.memory().store(at.wrapping_add(4), *subleaf).unwrap();
        }
        machine.vm.memory().store(GuestPhysical(0x700 + 8 * asked.len() as u64), u32::MAX).unwrap();
        assert_eq!(machine.vcpu(0, 2, model).run(&machine.buses), Exit::Attention);
        let numbers = numbers(&machine);
        let [hypervisor, features, topology, name] = numbers.as_chunks::<4>().0 else { panic!("{numbers:x?}") };
        assert_eq!(hypervisor[1], u64::from(u32::from_le_bytes(*b"KVMK")), "{model}");
        assert_ne!(features[2] & 1 << 31, 0, "{model}: there is a hypervisor");
        assert_eq!((topology[0], topology[1], topology[3]), (1, 2, 0), "{model}");
        assert_eq!(name[0] == u64::from(u32::from_le_bytes(*b"Isom")), model != Model::Host);
    }
}

#[test]
fn a_rom_is_read_and_not_written() {
    let machine = Machine::new(guests::rom());
    let bytes = Mapping::new(0x1000).unwrap();
    // SAFETY: the mapping is ours and two words long at least.
    unsafe { bytes.start().cast::<[u32; 2]>().write([0, 0x1234_5678]) };
    machine.vm.map_rom(GuestPhysical(0xc_0000), bytes).unwrap();
    assert_eq!(machine.only_vcpu().run(&machine.buses), Exit::Attention);
    assert_eq!(numbers(&machine), [0x1234_5678]);
    assert_eq!(machine.memory.try_iter().collect::<Vec<_>>(), [Access::Write(0x4_0008, 1, 0x77)]);
}

#[test]
fn the_clock_goes_on() {
    let machine = Machine::new(&[]);
    let clock = machine.vm.clock().unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {}
    assert!(machine.vm.clock().unwrap().clock >= clock.clock + 2_000_000);
    machine.vm.set_clock(&clock).unwrap();
    let back = machine.vm.clock().unwrap().clock;
    assert!(back >= clock.clock && back < clock.clock + 60_000_000_000);
}

#[test]
fn a_debugger_stops_steps_and_sees_registers() {
    let machine = Machine::new(guests::endless());
    let mut vcpu = machine.only_vcpu();
    let points = Points { breakpoints: [ORIGIN].into(), ..Points::default() };
    let stopped = |exit, step: Option<&std::ops::Range<u64>>| match exit {
        Exit::Debug(hit) => (hit.pc, hit.stop(&points, step)),
        other => panic!("{other:?}"),
    };
    let anywhere = 0..0;
    for round in 0..3 {
        vcpu.stop_at(&points, Stepping::Off).unwrap();
        assert_eq!(stopped(vcpu.run(&machine.buses), None), (ORIGIN, Some(Stop::Breakpoint)), "round {round}");
        let mut file = vcpu.register_file().unwrap();
        assert_eq!((file.rip, file.control[0] & 1), (ORIGIN, 0));
        file.general[0] = 100 + round;
        file.xmm[3] = [7; 16];
        file.x87_control[0] = 0x27f;
        vcpu.set_register_file(&file).unwrap();
        assert_eq!(vcpu.register_file().unwrap(), file);
        // As debuggers leave a breakpoint: without it, by a step; the next one goes back to where it is.
        vcpu.stop_at(&Points::default(), Stepping::Single).unwrap();
        let next = ORIGIN + 2;
        assert_eq!(stopped(vcpu.run(&machine.buses), Some(&anywhere)), (next, Some(Stop::Step)));
        assert_eq!(vcpu.register_file().unwrap().general[0], 101 + round);
        assert_eq!(stopped(vcpu.run(&machine.buses), Some(&(ORIGIN..next))).0, ORIGIN);
    }
    assert_eq!(vcpu.translate(0x1234), Some(GuestPhysical(0x1234)));
    // Without a debugger it runs as ever.
    vcpu.stop_at(&Points::default(), Stepping::Off).unwrap();
    let (kick, thread) = machine.spawn(vcpu);
    thread::sleep(Duration::from_millis(20));
    kick.kick();
    assert_eq!(thread.join().unwrap().0, Exit::Attention);
}

/// Where the processor is after each step, up to when it is called out.
fn steps(machine: &Machine, vcpu: &mut Vcpu) -> Vec<u64> {
    std::iter::from_fn(|| match vcpu.run(&machine.buses) {
        Exit::Debug(hit) => Some(hit.pc),
        Exit::Attention => None,
        other => panic!("{other:?}"),
    })
    .collect()
}

#[test]
fn steps_go_on_when_the_guest_loads_its_flags() {
    for stepping in [Stepping::Single, Stepping::Every] {
        let machine = Machine::new(guests::flags());
        let mut vcpu = machine.only_vcpu();
        vcpu.stop_at(&Points::default(), stepping).unwrap();
        let expected = [2, 3, 4, 5].map(|offset| ORIGIN + offset);
        // Whether it steps over the last one too, which calls it out, is KVM's choice.
        assert_eq!(steps(&machine, &mut vcpu)[..4], expected, "{stepping:?}");
    }
}

#[test]
fn breakpoints_may_be_more_than_registers_where_instructions_are_looked_at() {
    let machine = Machine::new(guests::flags());
    let mut vcpu = machine.only_vcpu();
    let here: Vec<u64> = [0, 3, 4].map(|offset| ORIGIN + offset).into();
    let points = Points { breakpoints: here.iter().copied().chain(0x9000..0x9004).collect(), ..Points::default() };
    // `int3` in memory is the board's business.
    let steps_only = machine.vm.abilities().manner(&points) == Some(Manner::Steps);
    assert_eq!(steps_only, !machine.vm.abilities().patches);
    vcpu.stop_at(&points, if steps_only { Stepping::Off } else { Stepping::Every }).unwrap();
    let mut stops = Vec::new();
    while let Exit::Debug(hit) = vcpu.run(&machine.buses) {
        if hit.stop(&points, None) == Some(Stop::Breakpoint) {
            stops.push(hit.pc);
            // As debuggers leave it.
            vcpu.stop_at(&Points::default(), Stepping::Single).unwrap();
            assert!(matches!(vcpu.run(&machine.buses), Exit::Debug(_)));
            vcpu.stop_at(&points, if steps_only { Stepping::Off } else { Stepping::Every }).unwrap();
        }
    }
    // The step from the second leads to the third, which it then stands at.
    let expected = if steps_only { here } else { vec![ORIGIN + 3] };
    assert_eq!(stops, expected);
}

#[test]
fn written_words_are_watched_or_that_is_refused() {
    let machine = Machine::new(guests::three_pages());
    let mut vcpu = machine.only_vcpu();
    let watch = Watchpoint { address: 0x5ffe, length: 2, watch: Watch::Write };
    let points = Points { watchpoints: vec![watch], ..Points::default() };
    if !machine.vm.abilities().watchpoints {
        // The debugger is told, and the guest runs as ever.
        assert!(vcpu.stop_at(&points, Stepping::Off).is_err());
        assert_eq!(vcpu.run(&machine.buses), Exit::Attention);
        return;
    }
    vcpu.stop_at(&points, Stepping::Off).unwrap();
    let Exit::Debug(hit) = vcpu.run(&machine.buses) else { panic!("it stops") };
    assert_eq!(hit.stop(&points, None), Some(Stop::Watchpoint { address: 0x5ffe, watch: Watch::Write }));
    assert_eq!((machine.load::<u8>(0x5fff), machine.load::<u8>(0x6000)), (1, 0), "it stands behind the write");
    assert_eq!(vcpu.run(&machine.buses), Exit::Attention);
}
