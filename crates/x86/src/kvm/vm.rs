//! A virtual machine: its memory slots, interrupt controllers and event descriptors.

use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, FromRawFd};
use std::sync::{Arc, Mutex};

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting,
    kvm_enable_cap, kvm_irq_routing_entry, kvm_msi, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use machine::GuestPhysical;
use machine::interrupt::InterruptSink;
use machine::memory::{GuestMemory, Region};
use machine::sys::{Mapping, Waker};
use vmm_sys_util::eventfd::EventFd;

use super::points::Abilities;
use super::{Host, KvmError, Tried, Vcpu, lock};

/// Inputs of the I/O APIC.
const IOAPIC_PINS: u32 = 24;
/// Three pages that Intel processors need for real mode, and one for a page table: below the firmware's place, where nothing else is.
const TSS: usize = 0xfeff_d000;
const IDENTITY_MAP: u64 = 0xfeff_c000;
/// The first slot of memory that is not RAM.
const ROM_SLOTS: u32 = 8;
/// The first slot of registers of devices that the guest reaches without an exit.
const DEVICE_SLOTS: u32 = 32;

/// Where a machine's interrupt controllers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IrqChip {
    /// All in the kernel: local APICs, I/O APIC, the pair of 8259, and the 8254 timer.
    #[default]
    Kernel,
    /// Only local APICs; an I/O APIC is the board's business, and there are no 8259s and no 8254. Less of the kernel is within a guest's reach.
    Split,
}

/// What a machine is made of.
#[derive(Debug)]
pub struct VmConfig {
    /// Its RAM: mapped.
    pub memory: Arc<GuestMemory>,
    /// Its interrupt controllers.
    pub irqchip: IrqChip,
}

/// Which interrupts lead where, beside the inputs of the controllers.
#[derive(Debug, Default)]
struct Routes {
    /// What the inputs of an I/O APIC send that is not in the kernel, which has to know of which vectors it is to be told that they have ended.
    pins: [Option<(u64, u32)>; IOAPIC_PINS as usize],
    messages: Vec<Option<(u64, u32)>>,
}

/// A ROM's bytes and where they are.
#[derive(Debug)]
struct Rom {
    region: Region,
    _bytes: Mapping,
}

/// Registers of a device of the host's, and where the guest has them.
#[derive(Debug)]
struct DeviceRegisters {
    base: GuestPhysical,
    memory: Arc<Mapping>,
}

// SAFETY: the region is that of the mapping, which may be sent; nobody here reads or writes it.
unsafe impl Send for Rom {}

/// A ROM of a machine, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RomId(u32);

/// A virtual machine of the host's kernel.
#[derive(Debug)]
pub struct Vm {
    pub(super) fd: VmFd,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) irqchip: IrqChip,
    routes: Mutex<Routes>,
    roms: Mutex<Vec<Rom>>,
    /// Registers of devices by slot, counted from [`DEVICE_SLOTS`].
    devices: Mutex<Vec<Option<DeviceRegisters>>>,
    logs_dirty: Mutex<bool>,
    msr_indices: Vec<u32>,
    abilities: Abilities,
}

impl Vm {
    /// A machine without processors.
    ///
    /// # Errors
    /// The host refuses.
    pub fn new(host: &Host, config: &VmConfig) -> Result<Self, KvmError> {
        let fd = host.kvm.create_vm().tried("make a machine")?;
        let vm = Self {
            fd,
            memory: Arc::clone(&config.memory),
            irqchip: config.irqchip,
            routes: Mutex::default(),
            roms: Mutex::default(),
            devices: Mutex::default(),
            logs_dirty: Mutex::new(false),
            msr_indices: host.msr_indices()?,
            abilities: Abilities::of(host),
        };
        vm.set_slots(false)?;
        vm.fd.set_identity_map_address(IDENTITY_MAP).tried("place the identity map")?;
        vm.fd.set_tss_address(TSS).tried("place the task state segment")?;
        match config.irqchip {
            IrqChip::Kernel => {
                vm.fd.create_irq_chip().tried("make interrupt controllers")?;
                let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
                vm.fd.create_pit2(pit).tried("make a timer")?;
            }
            IrqChip::Split => {
                let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
                split.args[0] = IOAPIC_PINS.into();
                vm.fd.enable_cap(&split).tried("make local interrupt controllers")?;
            }
        }
        vm.apply(&Routes::default())?;
        Ok(vm)
    }

    /// The machine's RAM.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// What stops guests on this host, for a debugger.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.abilities
    }

    pub(super) fn msr_indices(&self) -> &[u32] {
        &self.msr_indices
    }

    fn set_slots(&self, log_dirty: bool) -> Result<(), KvmError> {
        let flags = if log_dirty { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        for (slot, region) in (0..).zip(self.memory.regions()) {
            self.set_slot(slot, &region, flags)?;
        }
        Ok(())
    }

    fn set_slot(&self, slot: u32, region: &Region, flags: u32) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: region.base.0,
            memory_size: region.size,
            userspace_addr: region.host.as_ptr().addr() as u64,
        };
        // SAFETY: the range is a part of a mapping that this value keeps alive: guest RAM, which no Rust reference points into, or a ROM.
        unsafe { self.fd.set_user_memory_region(region) }.tried("give the guest its memory")
    }

    /// Puts bytes at `base` that the guest reads as RAM, and whose writes go to the bus.
    ///
    /// # Errors
    /// The host refuses.
    pub fn map_rom(&self, base: GuestPhysical, bytes: Mapping) -> Result<RomId, KvmError> {
        let mut roms = lock(&self.roms);
        let number = u32::try_from(roms.len()).unwrap_or(0);
        let region = Region { base, size: bytes.size() as u64, host: bytes.start(), first_page: 0 };
        self.set_slot(ROM_SLOTS + number, &region, KVM_MEM_READONLY)?;
        roms.push(Rom { region, _bytes: bytes });
        Ok(RomId(number))
    }

    /// Has reads of a ROM's addresses go to the bus, too, or to its bytes again. Takes effect before this returns.
    ///
    /// # Errors
    /// The host refuses.
    pub fn show_rom(&self, RomId(number): RomId, shown: bool) -> Result<(), KvmError> {
        let roms = lock(&self.roms);
        let Some(Rom { region, .. }) = roms.get(machine::address::host_size(number.into())) else { return Ok(()) };
        let region = if shown { *region } else { Region { size: 0, ..*region } };
        self.set_slot(ROM_SLOTS + number, &region, if shown { KVM_MEM_READONLY } else { 0 })
    }

    /// Lets the guest reach a device's registers at `base` without an exit; answers a number for [`Self::unmap_device`].
    ///
    /// # Errors
    /// The host refuses.
    pub fn map_device(&self, base: GuestPhysical, memory: &Arc<Mapping>) -> Result<u32, KvmError> {
        let mut devices = lock(&self.devices);
        let free = devices.iter().position(Option::is_none).unwrap_or(devices.len());
        let slot = DEVICE_SLOTS + u32::try_from(free).unwrap_or(u32::MAX - DEVICE_SLOTS);
        self.set_slot(slot, &Region { base, size: memory.size() as u64, host: memory.start(), first_page: 0 }, 0)?;
        if free == devices.len() {
            devices.push(None);
        }
        devices[free] = Some(DeviceRegisters { base, memory: Arc::clone(memory) });
        Ok(slot)
    }

    /// Undoes [`Self::map_device`].
    pub fn unmap_device(&self, slot: u32) {
        let mut devices = lock(&self.devices);
        let index = usize::try_from(slot.wrapping_sub(DEVICE_SLOTS)).unwrap_or(usize::MAX);
        if let Some(DeviceRegisters { base, memory }) = devices.get_mut(index).and_then(Option::take) {
            let gone = self.set_slot(slot, &Region { base, size: 0, host: memory.start(), first_page: 0 }, 0);
            debug_assert!(gone.is_ok(), "a slot that is there can be taken away: {gone:?}");
        }
    }

    /// Makes processor `id`. It is as after its reset, and describes itself as KVM likes until [`Vcpu::set_cpuid`].
    ///
    /// # Errors
    /// The host refuses.
    pub fn create_vcpu(&self, id: u32) -> Result<Vcpu, KvmError> {
        let fd = self.fd.create_vcpu(id.into()).tried("make a processor")?;
        Vcpu::new(id, fd, self.abilities)
    }

    /// Delivers a message signalled interrupt. False if the guest has blocked it.
    ///
    /// # Errors
    /// The message is none that an interrupt controller here takes.
    pub fn signal_msi(&self, address: u64, data: u32) -> Result<bool, KvmError> {
        let [low, high] = halves(address);
        let msi = kvm_msi { address_lo: low, address_hi: high, data, ..Default::default() };
        Ok(self.fd.signal_msi(msi).tried("deliver a message")? > 0)
    }

    /// Leads an interrupt of its own to a message, and answers its number, for [`Self::add_interrupt`].
    ///
    /// # Errors
    /// The host refuses.
    pub fn route_message(&self, address: u64, data: u32) -> Result<u32, KvmError> {
        let mut routes = lock(&self.routes);
        let free = routes.messages.iter().position(Option::is_none).unwrap_or(routes.messages.len());
        if free == routes.messages.len() {
            routes.messages.push(None);
        }
        routes.messages[free] = Some((address, data));
        self.apply(&routes)?;
        Ok(IOAPIC_PINS + u32::try_from(free).unwrap_or(u32::MAX - IOAPIC_PINS))
    }

    /// Input `pin` of an I/O APIC that is not in the kernel sends this message from now on.
    ///
    /// # Errors
    /// The host refuses.
    pub fn route_pin(&self, pin: usize, address: u64, data: u32) -> Result<(), KvmError> {
        let mut routes = lock(&self.routes);
        if let Some(route) = routes.pins.get_mut(pin)
            && route.replace((address, data)) != Some((address, data))
        {
            self.apply(&routes)?;
        }
        Ok(())
    }

    fn apply(&self, routes: &Routes) -> Result<(), KvmError> {
        let mut entries = Vec::new();
        if self.irqchip == IrqChip::Kernel {
            for pin in 0..IOAPIC_PINS {
                // The first sixteen lead to both kinds of controllers; of the 8259s', the third is where the second hangs.
                if pin < 16 && pin != 2 {
                    let (chip, pin_of_chip) =
                        if pin < 8 { (KVM_IRQCHIP_PIC_MASTER, pin) } else { (KVM_IRQCHIP_PIC_SLAVE, pin - 8) };
                    entries.push(chip_route(pin, chip, pin_of_chip));
                }
                // The timer's interrupt is at pin 2 of the I/O APIC.
                entries.push(chip_route(pin, KVM_IRQCHIP_IOAPIC, if pin == 0 { 2 } else { pin }));
            }
        }
        let pins = (0..).zip(&routes.pins);
        for (gsi, message) in pins.chain((IOAPIC_PINS..).zip(&routes.messages)) {
            let Some((address, data)) = message else { continue };
            let [low, high] = halves(*address);
            let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
            entry.u.msi.address_lo = low;
            entry.u.msi.address_hi = high;
            entry.u.msi.data = *data;
            entries.push(entry);
        }
        let routing = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| KvmError { what: "route interrupts", cause: std::io::ErrorKind::OutOfMemory.into() })?;
        self.fd.set_gsi_routing(&routing).tried("route interrupts")
    }

    /// From now on [`Waker::set`] is interrupt `number`: a pulse, and no system call of this process.
    ///
    /// # Errors
    /// The host refuses.
    pub fn add_interrupt(&self, number: u32, event: &Waker) -> Result<(), KvmError> {
        self.fd.register_irqfd(&event_of(event), number).tried("make an interrupt of an event")
    }

    /// Undoes [`Self::add_interrupt`] and [`Self::add_line`].
    ///
    /// # Errors
    /// The host refuses.
    pub fn remove_interrupt(&self, number: u32, event: &Waker) -> Result<(), KvmError> {
        self.fd.unregister_irqfd(&event_of(event), number).tried("take an interrupt's event back")
    }

    /// From now on [`Waker::set`] of `event` raises interrupt `number`, whose level is the guest's to see; when the guest has served it, it falls and `served` is
    /// set.
    ///
    /// # Errors
    /// The host refuses.
    pub fn add_line(&self, number: u32, event: &Waker, served: &Waker) -> Result<(), KvmError> {
        self.fd
            .register_irqfd_with_resample(&event_of(event), &event_of(served), number)
            .tried("make a level of an event")
    }

    /// Leads interrupt `number`, which [`Self::route_message`] has given, to another message, or to none: then the number may be given again.
    ///
    /// # Errors
    /// The host refuses.
    pub fn change_route(&self, number: u32, message: Option<(u64, u32)>) -> Result<(), KvmError> {
        let mut routes = lock(&self.routes);
        let index = usize::try_from(number.wrapping_sub(IOAPIC_PINS)).unwrap_or(usize::MAX);
        if let Some(route) = routes.messages.get_mut(index)
            && std::mem::replace(route, message) != message
        {
            self.apply(&routes)?;
        }
        Ok(())
    }

    /// From now on a write of any width and value at `at` sets `event`, and comes to no device model.
    ///
    /// # Errors
    /// The host refuses.
    pub fn add_doorbell(&self, at: GuestPhysical, event: &Waker) -> Result<(), KvmError> {
        self.fd
            .register_ioevent(&event_of(event), &IoEventAddress::Mmio(at.0), NoDatamatch)
            .tried("make an event of a doorbell")
    }

    /// Undoes [`Self::add_doorbell`].
    ///
    /// # Errors
    /// The host refuses.
    pub fn remove_doorbell(&self, at: GuestPhysical, event: &Waker) -> Result<(), KvmError> {
        self.fd
            .unregister_ioevent(&event_of(event), &IoEventAddress::Mmio(at.0), NoDatamatch)
            .tried("take a doorbell's event back")
    }

    /// From now on the host notes which pages the guest writes, or no longer.
    ///
    /// # Errors
    /// The host refuses.
    pub fn log_dirty(&self, on: bool) -> Result<(), KvmError> {
        let mut logs = lock(&self.logs_dirty);
        self.set_slots(on)?;
        *logs = on;
        // What devices have written before does not count.
        let _ = self.memory.take_dirty();
        Ok(())
    }

    /// Which pages of RAM the guest and devices have written since the last call, or since [`Self::log_dirty`]: page numbers counted from the start of RAM,
    /// holes left out.
    ///
    /// # Errors
    /// The host refuses, or does not note them.
    pub fn take_dirty(&self) -> Result<Vec<usize>, KvmError> {
        let mut pages = Vec::new();
        let mut devices = self.memory.take_dirty();
        for (slot, region) in (0..).zip(self.memory.regions()) {
            let size = machine::address::host_size(region.size);
            let log = self.fd.get_dirty_log(slot, size).tried("tell which pages were written")?;
            // Regions are whole pages, but need not begin at a word of the devices' bits.
            for index in bits(&log) {
                let page = region.first_page + index;
                if let Some(word) = devices.get_mut(page / 64) {
                    *word |= 1 << (page % 64);
                }
            }
        }
        let count = machine::address::host_size(self.memory.size() / machine::PAGE_SIZE);
        pages.extend(bits(&devices).filter(|page| *page < count));
        Ok(pages)
    }
}

/// The numbers of the bits that are set.
fn bits(words: &[u64]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(index, word)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(64 * index + bit)
        })
    })
}

fn halves(value: u64) -> [u32; 2] {
    [value & 0xffff_ffff, value >> 32].map(|half| u32::try_from(half).unwrap_or(0))
}

fn chip_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = irqchip;
    entry.u.irqchip.pin = pin;
    entry
}

/// The descriptor of a waker in the type that the bindings want; it stays the waker's.
pub(crate) fn event_of(event: &Waker) -> std::mem::ManuallyDrop<EventFd> {
    // SAFETY: the descriptor is open while `event` is borrowed, and is not closed by what is made of it.
    std::mem::ManuallyDrop::new(unsafe { EventFd::from_raw_fd(event.as_fd().as_raw_fd()) })
}

impl InterruptSink for Vm {
    fn set_level(&self, number: u32, raised: bool) {
        let result = self.fd.set_irq_line(number, raised);
        debug_assert!(result.is_ok(), "boards use inputs that the controllers have: {result:?}");
    }
}
