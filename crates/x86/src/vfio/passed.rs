//! The device on the guest's bus: registers, mastering and interrupts of a function of the host.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use devices::pci::config::command;
use devices::pci::{BarKind, Capability, Doorbell, Interrupts, Layout, PciDevice, Signalling};
use devices::state::{self, StateError};
use machine::address::host_size;
use machine::bus::Width;
use machine::sys::{self, Mapping, Poller, Waker};
use machine::{GuestPhysical, PAGE_SIZE};

use super::layout::{CONFIG_BYTES, layout};
use super::{CONFIG_REGION, HostAddress, HostFunction, Irq, VfioError};
use crate::kvm::{KvmError, Vm, lock};

const COMMAND: u64 = 0x04;
const HEADER_TYPE: usize = 0x0e;
const END: u64 = u64::MAX;

/// What a device needs of the guest's side: what KVM does for it.
pub(crate) trait GuestSide: Send + Sync {
    /// Lets the guest reach `memory` at `base`; answers a number for [`Self::unmap`].
    fn map(&self, base: GuestPhysical, memory: &Arc<Mapping>) -> Result<u32, KvmError>;
    /// Undoes [`Self::map`].
    fn unmap(&self, slot: u32);
    /// Leads a line to interrupt `number`: `event` raises it, and when the guest has served it, it falls and `served` is set. Or no longer.
    fn lead_line(&self, number: u32, event: &Waker, served: &Waker, on: bool) -> Result<(), KvmError>;
}

impl GuestSide for Vm {
    fn map(&self, base: GuestPhysical, memory: &Arc<Mapping>) -> Result<u32, KvmError> {
        self.map_device(base, memory)
    }

    fn unmap(&self, slot: u32) {
        self.unmap_device(slot);
    }

    fn lead_line(&self, number: u32, event: &Waker, served: &Waker, on: bool) -> Result<(), KvmError> {
        if on { self.add_line(number, event, served) } else { self.remove_interrupt(number, event) }
    }
}

/// Where a device is plugged in.
pub(crate) struct Place {
    /// The machine.
    pub(crate) guest: Arc<dyn GuestSide>,
    /// How it interrupts by message.
    pub(crate) interrupts: Interrupts,
    /// The interrupt that its line is.
    pub(crate) line: u32,
}

/// A piece of a base address register that the guest reaches without an exit.
struct Window {
    bar: u8,
    offset: u64,
    memory: Arc<Mapping>,
}

struct State {
    irq: Option<Irq>,
    slots: Vec<(u8, u32)>,
    master: bool,
    paused_count: u32,
}

struct Events {
    /// One a vector; that of a message is the first.
    vectors: Vec<Arc<Waker>>,
    line: Arc<Waker>,
    served: Waker,
    end: Waker,
    poller: Poller,
    /// Which kind the vectors' events are of: an [`Irq`].
    irq: AtomicU8,
}

/// A function of the host on the guest's bus. See the [module](self).
pub(crate) struct Passed {
    function: Arc<dyn HostFunction>,
    place: Place,
    layout: Layout,
    windows: Vec<Window>,
    events: Arc<Events>,
    state: Mutex<State>,
    thread: Option<JoinHandle<()>>,
}

/// Hands what KVM does not take itself to the guest.
fn serve(events: &Events, interrupts: &Interrupts) {
    let mut found = Vec::new();
    while events.poller.wait(None, &mut found).is_ok() {
        for event in found.drain(..) {
            if event.token == END {
                return;
            }
            let Some(vector) = usize::try_from(event.token).ok().and_then(|n| events.vectors.get(n)) else { continue };
            vector.clear();
            if events.irq.load(Ordering::Acquire) == Irq::Message as u8 {
                interrupts.set_level(true);
                interrupts.set_level(false);
            } else {
                interrupts.signal(u16::try_from(event.token).unwrap_or(u16::MAX));
            }
        }
    }
}

/// The parts of `mappable` in whole pages that hold nothing of `tables`.
fn without_tables(mappable: std::ops::Range<u64>, tables: &[std::ops::Range<u64>]) -> Vec<std::ops::Range<u64>> {
    let up = |at: u64| at.next_multiple_of(PAGE_SIZE);
    let down = |at: u64| at / PAGE_SIZE * PAGE_SIZE;
    let mut left: Vec<_> = std::iter::once(up(mappable.start)..down(mappable.end)).collect();
    for table in tables {
        let hole = down(table.start)..up(table.end);
        left = left
            .into_iter()
            .flat_map(|part| [part.start..part.end.min(hole.start), part.start.max(hole.end)..part.end])
            .collect();
    }
    left.retain(|part| part.start < part.end);
    left
}

impl Passed {
    /// Plugs `function` in at `place`.
    pub(crate) fn new(address: HostAddress, function: Arc<dyn HostFunction>, place: Place) -> Result<Self, VfioError> {
        let mut config = [0; CONFIG_BYTES];
        function.read(CONFIG_REGION, 0, &mut config);
        if config[HEADER_TYPE] & 0x7f != 0 {
            return Err(VfioError::Bridge(address));
        }
        let sizes = [0, 1, 2, 3, 4, 5].map(|number| function.region(number).size);
        let layout = layout(&config, sizes).ok_or(VfioError::Silent(address))?;
        let tables = layout.capabilities.iter().find_map(|capability| match capability {
            Capability::Msix(place) => Some(*place),
            _ => None,
        });
        let mut windows = Vec::new();
        for bar in layout.bars.iter().filter(|bar| bar.kind != BarKind::Io) {
            let here = |other: u8, range| (other == bar.number).then_some(range);
            let tables: Vec<_> = tables
                .iter()
                .flat_map(|place| {
                    [here(place.bar, place.table_range()), here(place.pending_bar, place.pending_range())]
                })
                .flatten()
                .collect();
            for mappable in function.region(bar.number).mappable {
                for part in without_tables(mappable, &tables) {
                    // What cannot be mapped is reached by exits.
                    if let Ok(memory) = function.map(bar.number, part.clone()) {
                        windows.push(Window { bar: bar.number, offset: part.start, memory: Arc::new(memory) });
                    }
                }
            }
        }
        let vectors_count = tables.map_or(1, |place| u32::from(place.vectors_count));
        let vectors_count = vectors_count.min(function.vectors_count(Irq::Vectors)).max(1);
        let events = Arc::new(Events {
            vectors: (0..vectors_count).map(|_| Ok(Arc::new(Waker::new()?))).collect::<io::Result<_>>()?,
            line: Arc::new(Waker::new()?),
            served: Waker::new()?,
            end: Waker::new()?,
            poller: Poller::new()?,
            irq: AtomicU8::new(Irq::Vectors as u8),
        });
        for (token, event) in (0..).zip(&events.vectors) {
            events.poller.add(&**event, token)?;
        }
        events.poller.add(&events.end, END)?;
        let (theirs, interrupts) = (Arc::clone(&events), place.interrupts.clone());
        let thread = sys::thread("vfio").spawn(move || serve(&theirs, &interrupts))?;
        let state = State { irq: None, slots: Vec::new(), master: false, paused_count: 0 };
        let passed = Self { function, place, layout, windows, events, state: Mutex::new(state), thread: Some(thread) };
        passed.write_command(command::MEMORY | command::IO, command::BUS_MASTER);
        Ok(passed)
    }

    /// The events of its vectors, which KVM may take.
    pub(crate) fn vectors(&self) -> &[Arc<Waker>] {
        &self.events.vectors
    }

    fn write_command(&self, set: u16, clear: u16) {
        let mut bytes = [0; 2];
        self.function.read(CONFIG_REGION, COMMAND, &mut bytes);
        let new = (u16::from_le_bytes(bytes) | set) & !clear;
        self.function.write(CONFIG_REGION, COMMAND, &new.to_le_bytes());
    }

    /// Lets the device be what the guest wants, unless a pause holds.
    fn apply_master(&self, state: &State) {
        if state.master && state.paused_count == 0 {
            self.write_command(command::BUS_MASTER, 0);
        } else {
            self.write_command(0, command::BUS_MASTER);
        }
    }

    /// Has the device interrupt in this way only. A device that cannot stays silent, as its driver will find.
    fn set_irq(&self, state: &mut State, irq: Option<Irq>) {
        if let Some(old) = state.irq.take() {
            let _ = self.function.set_events(old, &[]);
            if old == Irq::Line {
                let _ = self.place.guest.lead_line(self.place.line, &self.events.line, &self.events.served, false);
            }
        }
        let Some(irq) = irq.filter(|irq| self.function.vectors_count(*irq) > 0) else { return };
        self.events.irq.store(irq as u8, Ordering::Release);
        let done = match irq {
            Irq::Line => {
                let events = &self.events;
                let led = self.place.guest.lead_line(self.place.line, &events.line, &events.served, true);
                led.is_ok()
                    && self.function.set_events(irq, &[Arc::clone(&events.line)]).is_ok()
                    && self.function.set_unmask_event(&events.served).is_ok()
            }
            Irq::Message => self.function.set_events(irq, &self.events.vectors[..1]).is_ok(),
            Irq::Vectors => self.function.set_events(irq, &self.events.vectors).is_ok(),
        };
        if done {
            state.irq = Some(irq);
        }
    }
}

impl PciDevice for Passed {
    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }

    fn read(&self, bar: u8, offset: u64, width: Width) -> u64 {
        let mut bytes = [0; 8];
        self.function.read(bar, offset, &mut bytes[..host_size(width.bytes())]);
        u64::from_le_bytes(bytes)
    }

    fn write(&self, bar: u8, offset: u64, width: Width, value: u64) {
        self.function.write(bar, offset, &value.to_le_bytes()[..host_size(width.bytes())]);
    }

    fn ring(&self, _number: u16) {}

    fn place_bar(&self, bar: u8, at: Option<GuestPhysical>) {
        let mut state = lock(&self.state);
        state.slots.retain(|(other, slot)| {
            if *other == bar {
                self.place.guest.unmap(*slot);
            }
            *other != bar
        });
        let Some(at) = at.filter(|at| at.0.is_multiple_of(PAGE_SIZE)) else { return };
        for window in self.windows.iter().filter(|window| window.bar == bar) {
            // Without it, accesses come by exits.
            if let Ok(slot) = self.place.guest.map(at.wrapping_add(window.offset), &window.memory) {
                state.slots.push((bar, slot));
            }
        }
    }

    fn signal_by(&self, how: Signalling) {
        let irq = match how {
            Signalling::Line => Irq::Line,
            Signalling::Message => Irq::Message,
            Signalling::Vectors => Irq::Vectors,
        };
        self.set_irq(&mut lock(&self.state), Some(irq));
    }

    fn set_bus_master(&self, on: bool) {
        let mut state = lock(&self.state);
        // A host that no longer lets memory be locked leaves the device without it.
        if on {
            state.master = self.function.set_dma(true).is_ok();
            self.apply_master(&state);
        } else if std::mem::take(&mut state.master) {
            self.apply_master(&state);
            let _ = self.function.set_dma(false);
        }
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        self.set_irq(&mut state, None);
        self.function.reset();
        self.write_command(command::MEMORY | command::IO, command::BUS_MASTER);
        self.apply_master(&state);
        self.set_irq(&mut state, Some(Irq::Line));
    }

    fn pause(&self) {
        let mut state = lock(&self.state);
        state.paused_count += 1;
        self.apply_master(&state);
    }

    fn resume(&self) {
        let mut state = lock(&self.state);
        state.paused_count = state.paused_count.saturating_sub(1);
        self.apply_master(&state);
    }

    fn save(&self) -> Result<state::State, StateError> {
        Err(StateError("it has a device of the host's, whose state nobody can read; unplug it (no --device)".into()))
    }

    fn restore(&self, _state: &state::State) -> Result<(), StateError> {
        Err(StateError("a device of the host's has no state that could be restored".into()))
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.write_command(0, command::BUS_MASTER);
        {
            let mut state = lock(&self.state);
            self.set_irq(&mut state, None);
            state.slots.drain(..).for_each(|(_, slot)| self.place.guest.unmap(slot));
            if std::mem::take(&mut state.master) {
                let _ = self.function.set_dma(false);
            }
        }
        self.function.reset();
        self.events.end.set();
        if let Some(thread) = self.thread.take() {
            // Its panic, a bug of ours, was reported when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
