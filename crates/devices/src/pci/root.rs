//! The root complex: the bus's functions, the ways to their configuration, and the routes to their registers.
//!
//! The board gives it fixed ranges of its own bus: one for ECAM ([`Ecam`]) or the two ports of old ([`ConfigPorts`]), and windows ([`WindowPort`]) in which the
//! guest places registers as it likes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use machine::address::{GuestPhysical, host_size};
use machine::bus::{BusDevice, Width};
use machine::interrupt::{InterruptLine, InterruptSink};
use serde::{Deserialize, Serialize};

use super::config::{Bar, BarKind, Identity, Layout};
use super::{
    Address, DEVICES_COUNT_MAX, Doorbell, DoorbellSink, FUNCTIONS_COUNT_MAX, Function, Interrupts, MessageSink,
    PciDevice, function, nobody,
};
use crate::state::{self, State, StateError};
use crate::{BoardDevice, lock};

/// Bytes of ECAM for one bus, which is all that there is; a board may map as many more as it likes.
pub const ECAM_BUS_SIZE: u64 = 1 << 20;
/// How many ports there are from 0xcf8.
pub const CONFIG_PORTS_SIZE: u64 = 8;

/// The bits of the register at port 0xcf8 that exist.
const CONFIG_ADDRESS_BITS: u32 = 0x80ff_fffc;

/// The bus in a snapshot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    config_address: u32,
    /// By address.
    functions: BTreeMap<String, function::Saved>,
}

/// Which address space a window is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory: addresses on the board's bus and on PCI are the same.
    Memory,
    /// Ports: numbers on PCI; the board may have them elsewhere.
    Io,
}

/// A range of addresses of PCI in which base address registers are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its space.
    pub space: Space,
    /// Its first address.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// What a root complex is made of.
pub struct RootConfig {
    /// The windows; one that is asked for later is meant by its place in this list.
    pub windows: Vec<Window>,
    /// Where INTA# to INTD# of device 0 lead; the next device has them turned by one, and so on.
    pub lines: [InterruptLine; 4],
    /// What takes messages; without it no function offers them.
    pub messages: Option<Arc<dyn MessageSink>>,
    /// What wants to know where doorbells are.
    pub doorbells: Option<Arc<dyn DoorbellSink>>,
    /// Whether base address registers and interrupt numbers are set at power-on, as a firmware does, for kernels that are started without one.
    pub assign: bool,
}

/// The device numbers of a bus are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a PCI bus has room for {DEVICES_COUNT_MAX} devices; leave some disks out")]
pub struct BusFull;

/// A place for a device.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where it is.
    pub address: Address,
    /// How the device is to interrupt.
    pub interrupts: Interrupts,
}

/// Joins the wires of several functions to one input: that is high while any of them is.
struct Junction {
    raised_count: Mutex<u32>,
    line: InterruptLine,
}

impl InterruptSink for Junction {
    fn set_level(&self, _number: u32, raised: bool) {
        let mut count = lock(&self.raised_count);
        *count = if raised { *count + 1 } else { count.saturating_sub(1) };
        self.line.set(*count > 0);
    }
}

/// Where a decoded base address register leads.
#[derive(Clone)]
struct Route {
    base: u64,
    size: u64,
    bar: u8,
    function: Arc<Function>,
}

/// Where doorbells are, by number, and what lies in memory behind base address registers.
#[derive(Default)]
struct Places {
    doorbells: Vec<(Address, u16, GuestPhysical)>,
    bars: Vec<(Address, u8, GuestPhysical)>,
}

/// The routes of each space, sorted by base.
#[derive(Default)]
struct Routes {
    memory: Vec<Route>,
    io: Vec<Route>,
}

impl Routes {
    fn of(&self, space: Space) -> &Vec<Route> {
        match space {
            Space::Memory => &self.memory,
            Space::Io => &self.io,
        }
    }

    fn of_mut(&mut self, space: Space) -> &mut Vec<Route> {
        match space {
            Space::Memory => &mut self.memory,
            Space::Io => &mut self.io,
        }
    }

    /// Adds a route unless its range lies over another's. Sizes are not zero, and ranges do not wrap.
    fn add(&mut self, space: Space, route: Route) {
        let routes = self.of_mut(space);
        let at = routes.partition_point(|other| other.base < route.base);
        let below = at.checked_sub(1).map(|at| &routes[at]).is_some_and(|other| other.base + other.size > route.base);
        let above = routes.get(at).is_some_and(|other| other.base < route.base + route.size);
        if !below && !above {
            routes.insert(at, route);
        }
    }
}

fn space_of(bar: &Bar) -> Space {
    if bar.kind == BarKind::Io { Space::Io } else { Space::Memory }
}

/// The PCI bus of a board. See the [module](self).
pub struct Root {
    windows: Vec<Window>,
    lines: [InterruptLine; 4],
    junctions: [Arc<Junction>; 4],
    messages: Option<Arc<dyn MessageSink>>,
    doorbells: Option<Arc<dyn DoorbellSink>>,
    assign: bool,
    functions: Vec<Option<Arc<Function>>>,
    routes: RwLock<Routes>,
    /// Where what was last said to be. Held while routes are made anew.
    places: Mutex<Places>,
    /// The register at port 0xcf8.
    config_address: Mutex<u32>,
}

impl Root {
    /// A bus with nothing on it but the host bridge, device 0.
    #[must_use]
    pub fn new(config: RootConfig) -> Self {
        let junctions = config.lines.clone().map(|line| Arc::new(Junction { raised_count: Mutex::new(0), line }));
        let mut root = Self {
            windows: config.windows,
            lines: config.lines,
            junctions,
            messages: config.messages,
            doorbells: config.doorbells,
            assign: config.assign,
            functions: vec![None; FUNCTIONS_COUNT_MAX],
            routes: RwLock::default(),
            places: Mutex::default(),
            config_address: Mutex::new(0),
        };
        let plugged = root.plug(|_| Arc::new(HostBridge));
        debug_assert_eq!(plugged, Ok(Address::of_device(0)), "the bus is empty");
        root
    }

    /// Puts the device that `make` makes into the next free place, and answers where that is. Call [`Self::power_on`] when all are there.
    ///
    /// # Errors
    /// No place is free.
    pub fn plug(&mut self, make: impl FnOnce(Interrupts) -> Arc<dyn PciDevice>) -> Result<Address, BusFull> {
        let slot = self.free_slot()?;
        let device = make(slot.interrupts.clone());
        Ok(self.insert(slot, device))
    }

    /// The next free place, for a device whose making can fail: see [`Self::insert`].
    ///
    /// # Errors
    /// No place is free.
    pub fn free_slot(&self) -> Result<Slot, BusFull> {
        let free = |number: &u8| self.functions[Address::of_device(*number).index()].is_none();
        let number = (0..DEVICES_COUNT_MAX).find(free).ok_or(BusFull)?;
        let address = Address::of_device(number);
        let junction = Arc::clone(&self.junctions[usize::from(number % 4)]);
        let wire = InterruptLine::new(junction, number.into());
        Ok(Slot { address, interrupts: Interrupts::new(address, wire, self.messages.clone()) })
    }

    /// Puts a function that never interrupts at `address`, in place of what is there.
    pub(super) fn put(&mut self, address: Address, device: Arc<dyn PciDevice>) {
        let wire = InterruptLine::new(Arc::clone(&self.junctions[0]) as Arc<dyn InterruptSink>, 0);
        let function = Function::new(address, device, Interrupts::new(address, wire, None));
        self.functions[address.index()] = Some(Arc::new(function));
    }

    /// Puts `device`, which interrupts by those of `slot`, there; answers where that is.
    pub fn insert(&mut self, slot: Slot, device: Arc<dyn PciDevice>) -> Address {
        let Slot { address, interrupts } = slot;
        self.functions[address.index()] = Some(Arc::new(Function::new(address, device, interrupts)));
        address
    }

    /// Brings the bus into the state of power-on, now that everything is plugged in.
    pub fn power_on(&self) {
        *lock(&self.config_address) = 0;
        for function in self.functions() {
            function.reset();
        }
        if self.assign {
            self.assign();
        }
        self.update_routes();
    }

    /// The functions that there are, by address.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.functions.iter().flatten()
    }

    /// Rings doorbell `number` of `function` in place of a write to where it is. What does not exist is ignored.
    pub fn ring(&self, function: Address, number: u16) {
        if let Some(function) = self.functions.get(function.index()).and_then(Option::as_ref) {
            function.device().ring(number);
        }
    }

    /// Gives every base address register a place and every interrupt its number.
    fn assign(&self) {
        let mut next: Vec<u64> = self.windows.iter().map(|window| window.base).collect();
        for function in self.functions() {
            if function.layout().has_interrupt {
                let line = &self.lines[usize::from(function.address().device() % 4)];
                let number = u8::try_from(line.number()).unwrap_or(0xff);
                function.with_config(|config| config.set_interrupt_line(number));
            }
            for bar in &function.layout().bars {
                let fits = |index: &usize| {
                    let window = &self.windows[*index];
                    let reachable = bar.kind == BarKind::Memory64 || window.base + window.size <= 1 << 32;
                    // Nothing is placed at zero, which means "not placed" to kernels.
                    let start = next[*index].max(1).next_multiple_of(bar.size);
                    window.space == space_of(bar) && reachable && start + bar.size <= window.base + window.size
                };
                if let Some(index) = (0..self.windows.len()).find(fits) {
                    let start = next[index].max(1).next_multiple_of(bar.size);
                    next[index] = start + bar.size;
                    function.with_config(|config| config.place(bar, start));
                }
            }
        }
    }

    fn is_in_window(&self, space: Space, base: u64, size: u64) -> bool {
        self.windows.iter().any(|window| {
            let offset = base.wrapping_sub(window.base);
            window.space == space && offset < window.size && window.size - offset >= size
        })
    }

    /// Makes the routes anew, and tells where doorbells are now.
    fn update_routes(&self) {
        let mut places = lock(&self.places);
        let mut routes = Routes::default();
        for function in self.functions() {
            for (bar, base) in function.decoded() {
                if self.is_in_window(space_of(&bar), base, bar.size) {
                    let route = Route { base, size: bar.size, bar: bar.number, function: Arc::clone(function) };
                    routes.add(space_of(&bar), route);
                }
            }
        }
        let now = if self.doorbells.is_some() { doorbell_places(&routes) } else { Vec::new() };
        let place = |route: &Route| (route.function.address(), route.bar, GuestPhysical(route.base));
        let bars: Vec<_> = routes.memory.iter().map(place).collect();
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
        if let Some(sink) = &self.doorbells {
            // First those that go: another may come to where one was.
            for (function, number, _) in places.doorbells.iter().filter(|old| !now.contains(old)) {
                sink.place(*function, *number, None);
            }
            for (function, number, at) in now.iter().filter(|new| !places.doorbells.contains(new)) {
                sink.place(*function, *number, Some(*at));
            }
        }
        for (function, bar, _) in places.bars.iter().filter(|old| !bars.contains(old)) {
            self.place_bar(*function, *bar, None);
        }
        for (function, bar, at) in bars.iter().filter(|new| !places.bars.contains(new)) {
            self.place_bar(*function, *bar, Some(*at));
        }
        *places = Places { doorbells: now, bars };
    }

    fn place_bar(&self, function: Address, bar: u8, at: Option<GuestPhysical>) {
        if let Some(function) = self.functions.get(function.index()).and_then(Option::as_ref) {
            function.device().place_bar(bar, at);
        }
    }

    /// The function, the base address register and the offset behind it that `width` bytes at `at` are.
    fn route(&self, space: Space, at: u64, width: Width) -> Option<(Arc<Function>, u8, u64)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let routes = routes.of(space);
        let route = &routes[routes.partition_point(|route| route.base <= at).checked_sub(1)?];
        let offset = at - route.base;
        let inside = offset < route.size && route.size - offset >= width.bytes();
        inside.then(|| (Arc::clone(&route.function), route.bar, offset))
    }

    fn read_config(&self, place: u64, width: Width) -> u64 {
        let function = self.functions.get(host_size(place >> 12)).and_then(Option::as_ref);
        function.map_or(nobody(width), |function| function.read_config(place & 0xfff, width))
    }

    fn write_config(&self, place: u64, width: Width, value: u64) {
        let function = self.functions.get(host_size(place >> 12)).and_then(Option::as_ref);
        if function.is_some_and(|function| function.write_config(place & 0xfff, width, value)) {
            self.update_routes();
        }
    }
}

/// Where the doorbells are that lie in memory.
fn doorbell_places(routes: &Routes) -> Vec<(Address, u16, GuestPhysical)> {
    let mut places = Vec::new();
    for route in &routes.memory {
        for (number, Doorbell { bar, offset }) in (0..).zip(route.function.doorbells()) {
            if *bar == route.bar {
                places.push((route.function.address(), number, GuestPhysical(route.base + offset)));
            }
        }
    }
    places
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root")
            .field("windows", &self.windows)
            .field("functions", &self.functions)
            .finish_non_exhaustive()
    }
}

/// The memory-mapped configuration spaces, 4 KiB a function; for the board, the bus as a whole.
#[derive(Clone, Debug)]
pub struct Ecam(pub Arc<Root>);

impl BusDevice for Ecam {
    fn read(&self, offset: u64, width: Width) -> u64 {
        self.0.read_config(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.0.write_config(offset, width, value);
    }
}

impl BoardDevice for Ecam {
    fn reset(&self) {
        self.0.power_on();
    }

    fn pause(&self) {
        self.0.functions().for_each(|function| function.device().pause());
    }

    fn resume(&self) {
        self.0.functions().for_each(|function| function.device().resume());
    }

    fn save(&self) -> Result<State, StateError> {
        let functions = self.0.functions().map(|function| Ok((function.address().to_string(), function.save()?)));
        let functions = functions.collect::<Result<_, StateError>>()?;
        Ok(state::save(&Saved { config_address: *lock(&self.0.config_address), functions }))
    }

    fn restore(&self, state: &State) -> Result<(), StateError> {
        let mut saved: Saved = state::read(state)?;
        for function in self.0.functions() {
            let address = function.address().to_string();
            let saved = saved.functions.remove(&address);
            let saved = saved.ok_or_else(|| StateError(format!("there was no PCI device at {address}")))?;
            function.restore(saved)?;
        }
        if let Some(address) = saved.functions.keys().next() {
            return Err(StateError(format!("there is no PCI device at {address}")));
        }
        *lock(&self.0.config_address) = saved.config_address & CONFIG_ADDRESS_BITS;
        self.0.update_routes();
        Ok(())
    }
}

/// The ports 0xcf8 (which function and register) and 0xcfc (its content) of PC boards: PCI Local Bus 3.0, section 3.2.2.3.2.
#[derive(Clone, Debug)]
pub struct ConfigPorts(pub Arc<Root>);

impl ConfigPorts {
    const ENABLE: u32 = 1 << 31;

    /// The place in ECAM that `width` bytes at data port `port` stand for.
    fn place(&self, port: u64, width: Width) -> Option<u64> {
        let address = *lock(&self.0.config_address);
        let fits = port >= 4 && port + width.bytes() <= CONFIG_PORTS_SIZE;
        let number = u64::from(address >> 8 & 0xffff);
        (fits && address & Self::ENABLE != 0).then(|| (number << 12) + u64::from(address & 0xfc) + (port - 4))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match (offset, width) {
            (0, Width::Word) => (*lock(&self.0.config_address)).into(),
            _ => self.place(offset, width).map_or(nobody(width), |place| self.0.read_config(place, width)),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        match (offset, width, u32::try_from(value & 0xffff_ffff)) {
            // Seven bits are reserved; the register is written as a whole or not at all.
            (0, Width::Word, Ok(value)) => *lock(&self.0.config_address) = value & CONFIG_ADDRESS_BITS,
            _ => {
                if let Some(place) = self.place(offset, width) {
                    self.0.write_config(place, width, value);
                }
            }
        }
    }
}

/// A window, on the board's bus.
#[derive(Clone, Debug)]
pub struct WindowPort {
    root: Arc<Root>,
    window: Window,
}

impl WindowPort {
    /// Window `index` of `root`, if there is one.
    #[must_use]
    pub fn new(root: &Arc<Root>, index: usize) -> Option<Self> {
        Some(Self { root: Arc::clone(root), window: *root.windows.get(index)? })
    }
}

impl BusDevice for WindowPort {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match self.root.route(self.window.space, self.window.base.wrapping_add(offset), width) {
            Some((function, bar, offset)) => function.read(bar, offset, width),
            None => nobody(width),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let Some((function, bar, offset)) =
            self.root.route(self.window.space, self.window.base.wrapping_add(offset), width)
        {
            function.write(bar, offset, width, value);
        }
    }
}

/// Device 0: what kernels look for to know that there is a bus. It has the numbers of the PCI Express host of qemu's generic machines.
struct HostBridge;

impl PciDevice for HostBridge {
    fn layout(&self) -> Layout {
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            revision: 0,
            class: 0x06_00_00,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        Layout { identity, ..Layout::default() }
    }
    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }
    fn read(&self, _: u8, _: u64, width: Width) -> u64 {
        nobody(width)
    }
    fn write(&self, _: u8, _: u64, _: Width, _: u64) {}
    fn ring(&self, _: u16) {}
    fn set_bus_master(&self, _: bool) {}
    fn reset(&self) {}
    fn pause(&self) {}
    fn resume(&self) {}
    fn save(&self) -> Result<State, StateError> {
        Ok(state::NOTHING)
    }
    fn restore(&self, state: &State) -> Result<(), StateError> {
        state::read_nothing(state)
    }
}
