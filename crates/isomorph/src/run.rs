//! `isomorph run`: one machine in the foreground, its console on this terminal.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use debugger::system::System;
use disk::{RawDisk, ScratchDisk};
use machine::backend::{BlockBackend, CharacterBackend, CharacterSink, NetworkBackend};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::lifecycle::{Machine, StopReason};
use network::Network;
use riscv::board::{Board, BoardConfig, Disk, Interface};
use riscv::loader::{ImageFile, Images};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::cli::{Console as ConsoleKind, RunArgs};
use crate::console::{Answer, Console, Control};
use crate::debugging::{RunStats, describe_fault, finish_trace};
use crate::home::{Home, MachineDirectory, RECORD_VERSION, Record};
use crate::images;
use crate::progress::{Bar, Unit};
use crate::repeat::Unplugged;
use crate::size::human_bytes;

/// What a machine starts from, whether it came from an image or from files.
struct Guest {
    images: Images,
    arguments: String,
    disks: Vec<Arc<dyn BlockBackend>>,
}

/// Runs the machine until it stops.
///
/// # Errors
/// Something that it needs is missing or wrong, or the guest failed.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    let directory = args.image.as_deref().map(|image| prepare_directory(args, image)).transpose()?;
    let guest = match (&args.image, &directory) {
        (Some(image), Some(directory)) => guest_of_image(args, image, directory)?,
        _ => guest_of_files(args)?,
    };
    let result = run_guest(args, guest);
    if args.rm
        && let Some(directory) = directory
    {
        directory.remove()?;
    }
    result
}

/// Locks the machine's directory and checks that it belongs to the image.
fn prepare_directory(args: &RunArgs, image: &str) -> Result<MachineDirectory> {
    let name = args.name.as_deref().unwrap_or(image);
    let directory = Home::find()?.lock(name)?;
    if let Some(old) = directory.record()? {
        ensure!(
            old.image.as_deref() == Some(image),
            "machine '{name}' is of image '{}': give this one another --name, or remove that one with 'isomorph rm {name}'",
            old.image.as_deref().unwrap_or("none")
        );
    }
    Ok(directory)
}

fn record(args: &RunArgs) -> Record {
    Record {
        version: RECORD_VERSION,
        image: args.image.clone(),
        cpus: args.cpus,
        memory_bytes: args.memory.0,
        publish: args.publish.iter().map(ToString::to_string).collect(),
    }
}

/// The guest that an image describes, on the machine's own copy of the image's disk.
fn guest_of_image(args: &RunArgs, image: &str, directory: &MachineDirectory) -> Result<Guest> {
    let image = images::find_or_pull(image)?;
    eprintln!("isomorph: {}; Ctrl-] opens the monitor's prompt", images::log_in_hint(&image));
    let own = directory.disk();
    if !own.exists() {
        let mut bar = Bar::new();
        disk::clone_file(&image.disk(), &own, &mut |done, total| {
            if done == 0 {
                bar.phase("copying the disk", Unit::Bytes, total);
            }
            bar.position(done, "");
        })?;
    }
    directory.write_record(&record(args))?;
    // The last of them is where the guest's own messages go; the image's own is the serial port.
    let console = if args.console == ConsoleKind::Virtio { " console=hvc0" } else { "" };
    let extra = args.append.as_deref().map_or_else(String::new, |append| format!(" {append}"));
    let mut disks = vec![open_disk(&own, false)?];
    disks.extend(open_disks(&args.disks)?);
    Ok(Guest {
        images: Images {
            kernel: Some(ImageFile::open(&image.kernel())?),
            initrd: Some(ImageFile::open(&image.initrd())?),
            firmware: None,
        },
        arguments: format!("{}{console}{extra}", image.append()),
        disks,
    })
}

/// The guest that the flags describe.
fn guest_of_files(args: &RunArgs) -> Result<Guest> {
    let open = |path: &Option<PathBuf>| path.as_deref().map(ImageFile::open).transpose();
    Ok(Guest {
        images: Images { kernel: open(&args.kernel)?, initrd: open(&args.initrd)?, firmware: open(&args.firmware)? },
        arguments: args.append.clone().unwrap_or_default(),
        disks: open_disks(&args.disks)?,
    })
}

fn open_disks(arguments: &[String]) -> Result<Vec<Arc<dyn BlockBackend>>> {
    let open = |argument: &String| match argument.strip_suffix(",readonly") {
        Some(path) => open_disk(Path::new(path), true),
        None => open_disk(Path::new(argument), false),
    };
    arguments.iter().map(open).collect()
}

fn open_disk(path: &Path, read_only: bool) -> Result<Arc<dyn BlockBackend>> {
    Ok(Arc::new(RawDisk::open(path, read_only)?))
}

/// A network with its published ports; says on standard error which ports the host chose.
fn open_network(args: &RunArgs, clock: &Arc<Clock>) -> Result<Arc<dyn NetworkBackend>> {
    let host_name = args.name.clone().or_else(|| args.image.clone());
    let config = network::Config { publish: args.publish.clone(), host_name, ..network::Config::default() };
    let network = Network::start(config, Arc::clone(clock))?;
    for (asked, bound) in args.publish.iter().zip(network.published()) {
        if asked.host.port() == 0 {
            eprintln!("isomorph: published {bound}");
        }
    }
    Ok(Arc::new(network))
}

/// Builds the machine, runs it until it stops, and says what came of it.
fn run_guest(args: &RunArgs, guest: Guest) -> Result<ExitCode> {
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
    let wire =
        |kind| console.clone().filter(|_| args.console == kind).map(|console| console as Arc<dyn CharacterBackend>);
    let scratch = |backend| Arc::new(ScratchDisk::new(backend)) as Arc<dyn BlockBackend>;
    let keep = |backend| if args.repeat.forgets_disks() { scratch(backend) } else { backend };
    let disk = |(index, backend)| Disk { backend, serial: format!("isomorph-{index}") };
    let board = Arc::new(Board::new(BoardConfig {
        cpus: args.cpus,
        memory_bytes: args.memory.0,
        images: guest.images,
        arguments: guest.arguments,
        disks: guest.disks.into_iter().map(keep).enumerate().map(disk).collect(),
        network: network.map(|backend| Interface { backend, mac: mac(args) }),
        serial: wire(ConsoleKind::Serial).unwrap_or_else(|| Arc::new(Nowhere)),
        console: wire(ConsoleKind::Virtio),
        entropy: Entropy::Host,
        clock,
        hardware_ad_updates: true,
        translator: args.engine.options(),
        schedule: args.repeat.schedule(args.console != ConsoleKind::None || !args.no_network)?,
    })?);
    let monitor = Arc::new(Monitor { board: Arc::clone(&board), signal: AtomicI32::new(0) });
    watch_signals(&monitor, console.clone())?;
    if let Some(console) = &console {
        console.control(Arc::clone(&monitor) as Arc<dyn Control>)?;
    }
    let symbols = args.debug.symbols(args.kernel.as_deref().or(args.firmware.as_deref()))?;
    let trace = args.debug.tracer()?;
    if let Some(trace) = &trace {
        board.set_tracer(Some(Arc::clone(trace) as _));
    }
    let debugger = args.debug.serve(Arc::new(System::new(Arc::clone(&board))))?;
    board.start()?;
    let reason = board.wait();
    if let Some(debugger) = debugger {
        debugger.close();
    }
    if let Some(console) = &console {
        console.close();
    }
    finish_trace(trace.as_ref())?;
    args.repeat.tell_end(&board, &reason);
    args.debug.tell_stats(|| stats(&board))?;
    if let StopReason::Fault(_) = &reason {
        eprint!("{}", describe_fault(&board, &symbols));
    }
    args.debug.map_for_perf(|| board.units(), || symbols)?;
    match reason {
        StopReason::PowerOff(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))),
        StopReason::Requested => Ok(ExitCode::from(monitor.status())),
        StopReason::Fault(reason) => bail!("the guest was stopped: {reason}"),
    }
}

fn stats(board: &Board) -> RunStats {
    RunStats { time_ns: board.stats().time_ns, counts: board.engine_stats().entries() }
}

/// The guest's Ethernet address: one of qemu's range for machines, the same whenever the machine runs.
fn mac(args: &RunArgs) -> [u8; 6] {
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

/// The monitor prompt's side of the machine.
struct Monitor {
    board: Arc<Board>,
    /// The signal that ended the machine; zero if none did.
    signal: AtomicI32,
}

const HELP: &str = "\
info      what the machine is doing
pause     stop the guest where it is
resume    let it go on
quit      end the machine, as pulling the plug does
Enter     back to the console; Ctrl-] again types a Ctrl-] there";

impl Monitor {
    /// Ends the machine because of `signal`.
    fn stop(&self, signal: i32) {
        self.signal.store(signal, Ordering::SeqCst);
        // A machine that has stopped by itself meanwhile is stopped.
        let _ = self.board.stop();
    }

    /// The exit status of a machine that was told to stop: 128 and the signal, as shells have it.
    fn status(&self) -> u8 {
        match self.signal.load(Ordering::SeqCst) {
            0 => 0,
            signal => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    fn info(&self) -> String {
        let stats = self.board.stats();
        let mut text = format!(
            "state         {}\ntime          {:.1} s\ninstructions  {}\nmemory        {} of {} in use\nresets        {}\n",
            self.board.state(),
            // Display only.
            std::time::Duration::from_nanos(stats.time_ns).as_secs_f64(),
            stats.instructions_count,
            human_bytes(stats.memory_resident_bytes),
            human_bytes(stats.memory_size_bytes),
            stats.resets_count,
        );
        for line in self.board.describe_harts() {
            text += &line;
            text.push('\n');
        }
        for (name, count) in self.board.engine_stats().entries().into_iter().skip(1).filter(|(_, count)| *count != 0) {
            text += &format!("{count:>12}  {name}\n");
        }
        text
    }
}

impl Control for Monitor {
    fn command(&self, line: &str) -> Answer {
        let done = |result: Result<(), machine::lifecycle::IllegalTransition>, text: &str| {
            Answer::Stay(result.map_or_else(|error| error.to_string(), |()| text.into()))
        };
        match line {
            "" | "continue" | "console" => Answer::Leave,
            "\x1d" => Answer::LeaveTyping,
            "help" | "h" | "?" => Answer::Stay(HELP.into()),
            "info" | "i" | "status" => Answer::Stay(self.info()),
            "pause" | "p" => done(self.board.pause(), "paused"),
            "resume" | "r" | "cont" => done(self.board.resume(), "running"),
            "quit" | "q" | "exit" => {
                self.stop(0);
                Answer::Stay("ended".into())
            }
            _ => Answer::Stay(format!("'{line}' is no command here; 'help' lists them")),
        }
    }

    fn hang_up(&self) {
        self.stop(signal_hook::consts::SIGPIPE);
    }
}

/// Acts on this process's signals until it ends.
fn watch_signals(monitor: &Arc<Monitor>, console: Option<Arc<Console>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP, SIGCONT])?;
    let monitor = Arc::clone(monitor);
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            match (signal, &console) {
                (SIGWINCH, Some(console)) => console.resized(),
                (SIGCONT, Some(console)) => console.continued(),
                (SIGTSTP, console) => {
                    if let Some(console) = console {
                        console.suspend();
                    }
                    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGSTOP);
                }
                (SIGWINCH | SIGCONT, None) => {}
                (signal, _) => monitor.stop(signal),
            }
        }
    })?;
    Ok(())
}
