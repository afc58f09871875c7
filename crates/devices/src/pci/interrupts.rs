//! How a function's device interrupts: by message if the guest has enabled messages, else by the level of its line.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::bus::Width;
use machine::interrupt::InterruptLine;
use serde::{Deserialize, Serialize};

use super::config::{ConfigSpace, command};
use super::msi::Table;
use super::{Address, Message, MessageSink, Source};
use crate::lock;
use crate::state::{self, StateError};

/// A function's way to interrupt. Clones are the same.
#[derive(Clone)]
pub struct Interrupts {
    shared: Arc<Shared>,
}

struct Shared {
    function: Address,
    /// The function's wire; those of several functions lead to one input.
    line: InterruptLine,
    sink: Option<Arc<dyn MessageSink>>,
    state: Mutex<State>,
}

/// What a snapshot saves beside the configuration space.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    level: bool,
    msix: Option<Table>,
}

/// Plain data.
#[derive(Clone, Debug, Default)]
struct State {
    /// What the device wants of its line.
    level: bool,
    line_disabled: bool,
    bus_master: bool,
    /// What MSI sends, if that is enabled and MSI-X is not. (A guest must not enable both; if it does, MSI-X counts.)
    msi: Option<Message>,
    msix: Option<Table>,
}

impl State {
    fn messages_enabled(&self) -> bool {
        self.msix.as_ref().is_some_and(|table| table.enabled) || self.msi.is_some()
    }

    fn line(&self) -> bool {
        self.level && !self.line_disabled && !self.messages_enabled()
    }
}

impl Interrupts {
    pub(super) fn new(function: Address, line: InterruptLine, sink: Option<Arc<dyn MessageSink>>) -> Self {
        Self { shared: Arc::new(Shared { function, line, sink, state: Mutex::default() }) }
    }

    /// Whether messages are taken by anything here.
    pub(super) fn has_sink(&self) -> bool {
        self.shared.sink.is_some()
    }

    /// Back to power-on, with an MSI-X table for `vectors_count` vectors.
    pub(super) fn reset(&self, vectors_count: Option<u16>) {
        let mut state = lock(&self.shared.state);
        let routed = state.msix.as_ref().map_or(0, |table| if table.enabled { table.vectors_count() } else { 0 });
        let single = state.msi.is_some();
        *state = State { msix: vectors_count.filter(|_| self.has_sink()).map(Table::new), ..State::default() };
        self.shared.line.set(false);
        (0..routed.max(single.into())).for_each(|vector| self.route(vector, None));
    }

    pub(super) fn save(&self) -> Saved {
        let state = lock(&self.shared.state);
        Saved { level: state.level, msix: state.msix.clone() }
    }

    /// After a reset and before [`Self::configure`], which then does what follows.
    pub(super) fn restore(&self, saved: Saved) -> Result<(), StateError> {
        let mut state = lock(&self.shared.state);
        state.level = saved.level;
        let fits = match (&mut state.msix, saved.msix) {
            (None, None) => true,
            (Some(table), Some(saved)) => table.restore(saved),
            _ => false,
        };
        state::ensure(fits, "a device has another number of interrupts")
    }

    fn source(&self, vector: u16) -> Source {
        Source { function: self.shared.function, vector }
    }

    fn route(&self, vector: u16, message: Option<Message>) {
        if let Some(sink) = &self.shared.sink {
            sink.route(self.source(vector), message);
        }
    }

    fn send(&self, vector: u16, message: Option<Message>) {
        if let (Some(sink), Some(message)) = (&self.shared.sink, message) {
            sink.send(self.source(vector), message);
        }
    }

    /// Tells of what vector `vector` sends now, and sends what it has waited to.
    fn refresh(&self, state: &mut State, vector: u16) {
        let master = state.bus_master;
        let Some(table) = &mut state.msix else { return };
        self.route(vector, table.message(vector));
        if master {
            let message = table.take_pending(vector);
            self.send(vector, message);
        }
    }

    /// The configuration space has been written.
    pub(super) fn configure(&self, config: &ConfigSpace) {
        let mut state = lock(&self.shared.state);
        state.line_disabled = config.command() & command::INTERRUPT_DISABLE != 0;
        let bus_master = config.command() & command::BUS_MASTER != 0;
        let master_changed = std::mem::replace(&mut state.bus_master, bus_master) != bus_master;
        let (enabled, masked) = config.msix().unwrap_or((false, false));
        let single = config.msi().filter(|msi| msi.enabled && !enabled).map(|msi| msi.message);
        let single_changed = std::mem::replace(&mut state.msi, single) != single;
        if single_changed && single.is_none() {
            self.route(0, None);
        }
        if let Some(table) = &mut state.msix {
            let before = (table.enabled, table.masked);
            (table.enabled, table.masked) = (enabled, masked);
            if (enabled || before.0) && (master_changed || before != (enabled, masked)) {
                for vector in 0..table.vectors_count() {
                    self.refresh(&mut state, vector);
                }
            }
        }
        if single_changed && single.is_some() {
            self.route(0, single);
        }
        self.shared.line.set(state.line());
    }

    pub(super) fn read_table(&self, offset: u64, width: Width) -> u64 {
        lock(&self.shared.state).msix.as_ref().map_or(0, |table| table.read(offset, width))
    }

    pub(super) fn read_pending(&self, offset: u64, width: Width) -> u64 {
        lock(&self.shared.state).msix.as_ref().map_or(0, |table| table.read_pending(offset, width))
    }

    pub(super) fn write_table(&self, offset: u64, width: Width, value: u64) {
        let mut state = lock(&self.shared.state);
        if let Some(table) = &mut state.msix {
            let vector = table.write(offset, width, value);
            if table.enabled {
                self.refresh(&mut state, vector);
            }
        }
    }

    /// Whether the device wants its line raised, as the status register has it.
    pub(super) fn is_level_raised(&self) -> bool {
        lock(&self.shared.state).level
    }

    /// Whether the guest has MSI-X enabled. A device then uses [`Self::signal`] and no status register.
    #[must_use]
    pub fn has_vectors(&self) -> bool {
        lock(&self.shared.state).msix.as_ref().is_some_and(|table| table.enabled)
    }

    /// Vector `vector` has something to tell: sent at once, or when it is unmasked. Vectors that do not exist are ignored.
    pub fn signal(&self, vector: u16) {
        let mut state = lock(&self.shared.state);
        let master = state.bus_master;
        if let Some(table) = &mut state.msix {
            let message = table.trigger(vector, master);
            self.send(vector, message);
        }
    }

    /// Sets what the device wants of its line; with MSI enabled, a rise is a message.
    pub fn set_level(&self, raised: bool) {
        let mut state = lock(&self.shared.state);
        let rises = raised && !state.level;
        state.level = raised;
        if rises && state.bus_master {
            self.send(0, state.msi);
        }
        self.shared.line.set(state.line());
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts").field("function", &self.shared.function).finish_non_exhaustive()
    }
}
