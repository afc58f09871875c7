//! What a machine meets at the host's end, of whatever kind it is: its clock, its network, its console.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use machine::backend::{CharacterBackend, CharacterSink, NetworkBackend};
use machine::clock::Clock;
use network::Network;

use crate::cli::{Console as ConsoleKind, Nic, RunArgs};
use crate::console::Console;
use crate::repeat::Unplugged;

/// What a machine's devices meet at the host's end, of whatever kind the machine is.
pub struct Wiring {
    /// The machine's time.
    pub clock: Arc<Clock>,
    /// What its interface is plugged into, if it has one.
    pub network: Option<Arc<dyn NetworkBackend>>,
    /// This terminal, if the machine has it.
    pub console: Option<Arc<Console>>,
}

impl Wiring {
    /// Opens what `args` ask for.
    ///
    /// # Errors
    /// The host refuses.
    pub fn open(args: &RunArgs) -> Result<Self> {
        let clock = Arc::new(Clock::new());
        let network = match (args.no_network, &args.repeat.replay) {
            (true, _) => None,
            (false, Some(_)) => Some(Arc::new(Unplugged) as Arc<dyn NetworkBackend>),
            // The host's time is its own: those whom it talks to live in that, whatever the guest's time is.
            (false, None) => Some(open_network(args, &clock)?),
        };
        let console = match args.console {
            ConsoleKind::None => None,
            _ => Some(Console::open().context("cannot use this terminal")?),
        };
        Ok(Self { clock, network, console })
    }

    fn wire(&self, args: &RunArgs, kind: ConsoleKind) -> Option<Arc<dyn CharacterBackend>> {
        let console = self.console.clone().filter(|_| args.console == kind);
        console.map(|console| console as Arc<dyn CharacterBackend>)
    }

    /// The other end of the serial port.
    pub fn serial(&self, args: &RunArgs) -> Arc<dyn CharacterBackend> {
        self.wire(args, ConsoleKind::Serial).unwrap_or_else(|| Arc::new(Nowhere))
    }

    /// The other end of the virtio console, if the machine is to have one.
    pub fn virtio_console(&self, args: &RunArgs) -> Option<Arc<dyn CharacterBackend>> {
        self.wire(args, ConsoleKind::Virtio)
    }
}

/// A network with its published ports; says on standard error which ports the host chose.
fn open_network(args: &RunArgs, clock: &Arc<Clock>) -> Result<Arc<dyn NetworkBackend>> {
    let host_name = args.name.clone().or_else(|| args.image.as_ref().map(|image| image.replace(':', "-")));
    let mut config = network::Config { publish: args.publish.clone(), host_name, ..network::Config::default() };
    if args.nic == Nic::E1000 {
        // Drivers of real cards expect a real network's packets.
        config.mtu = devices::e1000::MTU;
    }
    let network = Network::start(config, Arc::clone(clock))?;
    for (asked, bound) in args.publish.iter().zip(network.published()) {
        if asked.host.port() == 0 {
            eprintln!("isomorph: published {bound}");
        }
    }
    Ok(Arc::new(network))
}

/// The file that a machine of files is called by.
pub fn guest_file(args: &RunArgs) -> &Path {
    args.kernel.as_deref().or(args.firmware.as_deref()).unwrap_or(Path::new(""))
}

/// What a machine runs, as `ps` shows it.
pub fn guest_of(args: &RunArgs) -> String {
    args.image.clone().unwrap_or_else(|| guest_file(args).display().to_string())
}

/// The guest's Ethernet address: one of qemu's range for machines, the same whenever the machine runs.
pub fn mac(args: &RunArgs) -> [u8; 6] {
    let name = args.name.as_deref().or(args.image.as_deref()).unwrap_or_default();
    // FNV-1a: a name's hash need not be strong, only the same tomorrow.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, _] = hash.to_be_bytes();
    [0x52, 0x54, 0, a, b, c]
}

/// The other end of a console that nobody reads.
struct Nowhere;

impl CharacterBackend for Nowhere {
    fn send(&self, _bytes: &[u8]) {}
    fn attach(&self, _sink: Arc<dyn CharacterSink>) {}
    fn ready(&self) {}
}
