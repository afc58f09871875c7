//! One function: the configuration space, message tables and bus mastering of a device, with their locks.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::bus::Width;

use serde::{Deserialize, Serialize};

use super::config::{self, Capability, ConfigSpace, Layout, command};
use super::{Address, Doorbell, Interrupts, PciDevice, Signalling, interrupts, msi, nobody};
use crate::lock;
use crate::state::{self, State, StateError};

/// A function in a snapshot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    #[serde(with = "state::array")]
    config: [u8; config::SIZE],
    interrupts: interrupts::Saved,
    device: State,
}

/// A device on the bus, as the root sees it.
pub struct Function {
    address: Address,
    device: Arc<dyn PciDevice>,
    layout: Layout,
    doorbells: Vec<Doorbell>,
    msix: Option<msi::Place>,
    interrupts: Interrupts,
    /// Taken before the interrupts' lock.
    config: Mutex<ConfigSpace>,
    /// What the device was last told. Taken before the configuration space, since it is held while the device comes to a stop.
    bus_master: Mutex<bool>,
    /// The same of how it signals.
    signalling: Mutex<Signalling>,
}

impl Function {
    pub(super) fn new(address: Address, device: Arc<dyn PciDevice>, interrupts: Interrupts) -> Self {
        let layout = device.layout();
        let msix = layout.capabilities.iter().find_map(|capability| match capability {
            Capability::Msix(place) if interrupts.has_sink() => Some(*place),
            _ => None,
        });
        interrupts.reset(msix.map(|place| place.vectors_count));
        Self {
            address,
            doorbells: device.doorbells(),
            config: Mutex::new(ConfigSpace::new(&layout, interrupts.has_sink())),
            bus_master: Mutex::new(false),
            signalling: Mutex::default(),
            device,
            layout,
            msix,
            interrupts,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    pub(super) fn device(&self) -> &Arc<dyn PciDevice> {
        &self.device
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn doorbells(&self) -> &[Doorbell] {
        &self.doorbells
    }

    /// Does `action` with the configuration space, and what follows from it apart from the routes of base address registers.
    pub(super) fn with_config<T>(&self, action: impl FnOnce(&mut ConfigSpace) -> T) -> T {
        let mut config = lock(&self.config);
        let result = action(&mut config);
        self.interrupts.configure(&config);
        result
    }

    /// Where each base address register lies that is decoded.
    pub(super) fn decoded(&self) -> Vec<(super::Bar, u64)> {
        let config = lock(&self.config);
        config.bars().iter().filter_map(|bar| Some((*bar, config.decoded(bar)?))).collect()
    }

    /// Tells the device of bus mastering, if that has changed.
    pub(super) fn update_bus_master(&self) {
        let mut told = lock(&self.bus_master);
        let on = lock(&self.config).command() & command::BUS_MASTER != 0;
        if *told != on {
            *told = on;
            self.device.set_bus_master(on);
        }
    }

    /// Tells the device how it is to signal, if that has changed.
    fn update_signalling(&self) {
        let mut told = lock(&self.signalling);
        let how = lock(&self.config).signalling();
        if std::mem::replace(&mut *told, how) != how {
            self.device.signal_by(how);
        }
    }

    /// Reads the configuration space.
    pub(super) fn read_config(&self, offset: u64, width: Width) -> u64 {
        let access = lock(&self.config).window_access(offset, width);
        if let Some(access) = access {
            // The window's data is what is read through it, now.
            let value = self.read(access.bar, access.offset, access.width);
            lock(&self.config).set_window_data(u32::try_from(value).unwrap_or(u32::MAX));
        }
        let raised = self.interrupts.is_level_raised();
        lock(&self.config).read(offset, width, raised)
    }

    /// Writes the configuration space. Answers whether base address registers may have moved.
    pub(super) fn write_config(&self, offset: u64, width: Width, value: u64) -> bool {
        let (moved, access) = self.with_config(|config| {
            let places = |config: &ConfigSpace| config.bars().iter().map(|bar| config.decoded(bar)).collect::<Vec<_>>();
            let before = places(config);
            config.write(offset, width, value);
            let access = config.window_access(offset, width).map(|access| (access, config.window_data()));
            (places(config) != before, access)
        });
        self.update_bus_master();
        self.update_signalling();
        if let Some((access, data)) = access {
            self.write(access.bar, access.offset, access.width, data.into());
        }
        moved
    }

    /// Whether `width` bytes at `offset` are behind `bar`.
    fn contains(&self, bar: u8, offset: u64, width: Width) -> bool {
        let size = self.layout.bars.iter().find(|other| other.number == bar).map_or(0, |bar| bar.size);
        offset < size && size - offset >= width.bytes()
    }

    /// Reads registers.
    pub(super) fn read(&self, bar: u8, offset: u64, width: Width) -> u64 {
        if !self.contains(bar, offset, width) {
            return nobody(width);
        }
        if let Some(place) = self.msix {
            if place.bar == bar && place.table_range().contains(&offset) {
                return self.interrupts.read_table(offset - place.table_range().start, width);
            }
            if place.pending_bar == bar && place.pending_range().contains(&offset) {
                return self.interrupts.read_pending(offset - place.pending_range().start, width);
            }
        }
        self.device.read(bar, offset, width)
    }

    /// Writes registers.
    pub(super) fn write(&self, bar: u8, offset: u64, width: Width, value: u64) {
        if !self.contains(bar, offset, width) {
            return;
        }
        if let Some(place) = self.msix {
            if place.bar == bar && place.table_range().contains(&offset) {
                self.interrupts.write_table(offset - place.table_range().start, width, value);
                return;
            }
            if place.pending_bar == bar && place.pending_range().contains(&offset) {
                return;
            }
        }
        self.device.write(bar, offset, width, value);
    }

    /// The function's state, while its device is paused.
    pub(super) fn save(&self) -> Result<Saved, StateError> {
        let config = *lock(&self.config).bytes();
        Ok(Saved { config, interrupts: self.interrupts.save(), device: self.device.save()? })
    }

    /// Puts the function, which is as after power-on and whose device is paused, into a state that another was in; the routes of base address registers are to be
    /// made anew.
    pub(super) fn restore(&self, saved: Saved) -> Result<(), StateError> {
        // At power-on base address registers may have been placed by the board.
        let mut fresh = ConfigSpace::new(&self.layout, self.interrupts.has_sink());
        state::ensure(fresh.restore(&saved.config), &format!("another device is at {}", self.address))?;
        self.interrupts.restore(saved.interrupts)?;
        self.with_config(|config| *config = fresh);
        self.update_bus_master();
        self.update_signalling();
        self.device.restore(&saved.device)
    }

    /// Back to power-on.
    pub(super) fn reset(&self) {
        *lock(&self.config) = ConfigSpace::new(&self.layout, self.interrupts.has_sink());
        self.update_bus_master();
        *lock(&self.signalling) = Signalling::default();
        self.device.reset();
        self.interrupts.reset(self.msix.map(|place| place.vectors_count));
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("address", &self.address).field("config", &self.config).finish_non_exhaustive()
    }
}
