//! The way of messages of devices to KVM.
//!
//! A device of ours sends a message by a call. One that has events of its own, a device of the host's, has them taken by KVM while its vector has a message to send;
//! while it has none, who made the device hears of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use devices::ioapic;
use devices::pci::{Address, Message, MessageSink, Source};
use machine::sys::Waker;

use crate::kvm::{Vm, lock};

struct Event {
    event: Arc<Waker>,
    /// The interrupt that it is now, and whether it is one.
    number: Option<u32>,
    taken: bool,
}

/// See the [module](self).
pub(super) struct Messages {
    vm: Arc<Vm>,
    events: Mutex<BTreeMap<(Address, u16), Event>>,
}

impl Messages {
    pub(super) fn new(vm: &Arc<Vm>) -> Self {
        Self { vm: Arc::clone(vm), events: Mutex::default() }
    }

    /// `event` is `source`'s from now on.
    pub(super) fn take_event(&self, source: Source, event: &Arc<Waker>) {
        let event = Event { event: Arc::clone(event), number: None, taken: false };
        lock(&self.events).insert((source.function, source.vector), event);
    }
}

impl Event {
    /// If KVM refuses, the event stays with who made the device.
    fn route(&mut self, vm: &Vm, message: Option<Message>) {
        let message = message.map(|message| (message.address, message.data));
        match (self.number, message) {
            (None, Some((address, data))) => self.number = vm.route_message(address, data).ok(),
            (Some(number), Some(message)) => {
                let _ = vm.change_route(number, Some(message));
            }
            (_, None) => {}
        }
        let Some(number) = self.number else { return };
        if message.is_some() && !self.taken {
            self.taken = vm.add_interrupt(number, &self.event).is_ok();
        } else if message.is_none() {
            if std::mem::take(&mut self.taken) {
                let _ = vm.remove_interrupt(number, &self.event);
            }
            let _ = vm.change_route(number, None);
            self.number = None;
        }
    }
}

impl MessageSink for Messages {
    fn send(&self, _source: Source, message: Message) {
        // A guest that makes up messages that no controller takes does not get them.
        let _ = self.vm.signal_msi(message.address, message.data);
    }

    fn route(&self, source: Source, message: Option<Message>) {
        if let Some(event) = lock(&self.events).get_mut(&(source.function, source.vector)) {
            event.route(&self.vm, message);
        }
    }
}

/// The way of an I/O APIC's messages to KVM, where that has only the local APICs.
pub(super) struct Processors(pub(super) Arc<Vm>);

impl ioapic::Sink for Processors {
    fn send(&self, message: Message) {
        // As above.
        let _ = self.0.signal_msi(message.address, message.data);
    }

    /// A guest whose route the host refuses does not end its levels, and has broken its interrupts by itself.
    fn route(&self, pin: usize, message: Message) {
        let _ = self.0.route_pin(pin, message.address, message.data);
    }
}
