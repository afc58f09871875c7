//! States that nobody has saved: a device takes one or refuses it, and serves any guest afterwards.

use std::sync::Arc;

use machine::GuestPhysical;
use machine::backend::{BlockBackend, CharacterBackend, CharacterSink, FrameSink, NetworkBackend};
use machine::bus::Width;
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::interrupt::{InterruptLine, InterruptSink};
use machine::memory::GuestMemory;
use proptest::prelude::*;

use crate::BoardDevice;
use crate::aclint::{Aclint, HartLines, TimeSource};
use crate::acpi::PowerManagement;
use crate::cmos::Cmos;
use crate::e1000::E1000;
use crate::ioapic::{self, IoApic};
use crate::pci::root::Ecam;
use crate::pci::{Message, MessageSink, Root, RootConfig, Source, Space, Window};
use crate::plic::{ContextLines, Plic};
use crate::rtc::Rtc;
use crate::state::State;
use crate::syscon::{PowerRequest, PowerSwitch};
use crate::uart::Uart;
use crate::virtio::VirtioDevice;
use crate::virtio::block::{self, Block};
use crate::virtio::console::Console;
use crate::virtio::entropy::EntropySource;
use crate::virtio::network::Network;
use crate::virtio::{mmio, pci};
use crate::worker::Crew;

/// The other end of everything.
struct Nothing;

impl InterruptSink for Nothing {
    fn set_level(&self, _: u32, _: bool) {}
}
impl MessageSink for Nothing {
    fn send(&self, _: Source, _: Message) {}
    fn route(&self, _: Source, _: Option<Message>) {}
}
impl ioapic::Sink for Nothing {
    fn send(&self, _: Message) {}
    fn route(&self, _: usize, _: Message) {}
}
impl ContextLines for Nothing {
    fn set_external_interrupt(&self, _: usize, _: bool) {}
}
impl HartLines for Nothing {
    fn set_software_interrupt(&self, _: bool) {}
    fn set_timer_deadline(&self, _: u64) {}
}
impl PowerSwitch for Nothing {
    fn request(&self, _: PowerRequest) {}
}
impl CharacterBackend for Nothing {
    fn send(&self, _: &[u8]) {}
    fn attach(&self, _: Arc<dyn CharacterSink>) {}
    fn ready(&self) {}
}
impl NetworkBackend for Nothing {
    fn send(&self, _: &[u8]) {}
    fn mtu(&self) -> u16 {
        1500
    }
    fn attach(&self, _: Arc<dyn FrameSink>) {}
    fn ready(&self) {}
}
impl BlockBackend for Nothing {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, _: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.fill(0);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

const DEVICES_COUNT: usize = 10;

fn device(number: usize) -> Arc<dyn BoardDevice> {
    let crew = Crew::Threads;
    let nothing = Arc::new(Nothing);
    let clock = Arc::new(Clock::starting_at(1 << 40));
    let memory = Arc::new(GuestMemory::new(GuestPhysical(0x8000_0000), 1 << 20).unwrap());
    let line = |number| InterruptLine::new(Arc::clone(&nothing) as Arc<dyn InterruptSink>, number);
    let disk = || {
        let options = block::Options { serial: "disk".into(), queues_count: 2 };
        Arc::new(Block::new(Arc::clone(&nothing) as _, &options, &crew).unwrap()) as Arc<dyn VirtioDevice>
    };
    match number {
        0 => Arc::new(Uart::new(line(1), Arc::clone(&nothing) as _, &crew).unwrap()),
        1 => Arc::new(PowerManagement::new(line(1), clock, nothing)),
        2 => Arc::new(Cmos::new(clock, 1 << 20, 1 << 20)),
        3 => Arc::new(Rtc::new(line(1), clock, &crew).unwrap()),
        4 => Arc::new(Plic::new(40, 2, nothing)),
        5 => Arc::new(Aclint::new(Arc::new(TimeSource::new(clock)), vec![nothing as _])),
        6 => Arc::new(IoApic::new(nothing)),
        7 => Arc::new(mmio::Transport::new(disk(), memory, line(1))),
        8 => {
            let console = Arc::new(Console::new(Arc::clone(&nothing) as _, &crew).unwrap());
            Arc::new(mmio::Transport::new(console, memory, line(1)))
        }
        _ => {
            let window = |space, base| Window { space, base, size: 0x10_0000 };
            let mut root = Root::new(RootConfig {
                windows: vec![window(Space::Memory, 0x4000_0000), window(Space::Io, 0)],
                lines: [0, 1, 2, 3].map(line),
                messages: Some(Arc::clone(&nothing) as _),
                doorbells: None,
                assign: true,
            });
            let network = Arc::new(Network::new(Arc::clone(&nothing) as _, [2; 6], 2, &crew).unwrap());
            let entropy = Arc::new(EntropySource::new(Entropy::Seeded(1), &crew).unwrap());
            for device in [disk(), network, entropy] {
                let memory = Arc::clone(&memory);
                root.plug(|interrupts| Arc::new(pci::Transport::new(device, memory, interrupts))).unwrap();
            }
            root.plug(|interrupts| Arc::new(E1000::new(nothing, [2; 6], memory, interrupts, clock, &crew).unwrap()))
                .unwrap();
            root.power_on();
            Arc::new(Ecam(Arc::new(root)))
        }
    }
}

/// The places of all values in `state` that hold no others.
fn leaves(state: &State, at: &str, found: &mut Vec<String>) {
    match state {
        State::Object(fields) => fields.iter().for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found)),
        // Of long arrays the first will do.
        State::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate().take(8) {
                leaves(item, &format!("{at}/{index}"), found);
            }
        }
        _ => found.push(at.into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_state_that_nobody_saved_does_no_harm(
        number in 0..DEVICES_COUNT,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..5u8, any::<u64>()), 1..4),
        accesses in proptest::collection::vec((any::<u16>(), 0..3u8, any::<Option<u32>>()), 0..40),
    ) {
        let mut state = device(number).save().unwrap();
        let mut places = Vec::new();
        leaves(&state, "", &mut places);
        for (place, kind, value) in changes {
            let place = state.pointer_mut(place.get(&places).as_str()).expect("changes keep the shape");
            *place = match kind {
                0 => (value & 1 != 0).into(),
                1 => (value & 0xff).into(),
                2 => (value & 0xffff).into(),
                3 => value.into(),
                _ => (0x8000_0000 + (value & 0xf_fff0)).into(),
            };
        }
        let device = device(number);
        device.pause();
        // Refused in words, or taken.
        if let Err(error) = device.restore(&state) {
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
        device.resume();
        for (offset, width, written) in accesses {
            let width = [Width::Byte, Width::Half, Width::Word][usize::from(width)];
            let offset = u64::from(offset) & !(width.bytes() - 1);
            match written {
                Some(value) => device.write(offset, width, width.truncate(value.into())),
                None => {
                    device.read(offset, width);
                }
            }
        }
        device.pause();
        prop_assert!(device.save().is_ok());
        device.resume();
        device.reset();
    }
}
