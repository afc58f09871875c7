//! `isomorph run`: one machine in the foreground, its console on this terminal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use debugger::system::System;
use disk::ScratchDisk;
use machine::backend::BlockBackend;
use machine::entropy::Entropy;
use machine::lifecycle::{Machine, StopReason};
use machine::sys::forget_text;
use riscv::board::{Board, BoardConfig, Disk, Interface};
use riscv::loader::{ImageFile, Images};

use crate::cli::{Console as ConsoleKind, RunArgs};
use crate::control::{Controlled, Description, Place, Session};
use crate::debugging::{RunStats, describe_fault, finish_trace};
use crate::disks::{DiskArgument, open_all};
use crate::home::{Home, MachineDirectory, RECORD_VERSION, Record};
use crate::images;
use crate::progress::{Bar, Unit};
use crate::system::{self, Monitor, SystemMachine};
use crate::wiring::{Wiring, guest_file, guest_of, mac};
use crate::x86_64;

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
    ensure!(
        !args.permissions.is_asked_for(),
        "flags of permissions, --env, --cpu-time, --invoke and --serve are for programs, not for a machine"
    );
    ensure!(
        args.debug.strace.is_none(),
        "--strace is for Linux programs; what a machine does is told by --trace and --stats"
    );
    if args.image.as_deref().is_some_and(x86_64::is_image) {
        x86_64::check_host(true)?;
    }
    let directory = args.image.as_deref().map(|image| prepare_directory(args, image)).transpose()?;
    let place = || place(args, directory.as_ref());
    let result = match (&args.image, &directory) {
        (Some(image), Some(directory)) => run_image(args, image, directory, place()),
        _ => match x86_64::images(args)? {
            Some(images) => x86_64::run(args, images, place()),
            None => run_guest(args, guest_of_files(args)?, place()),
        },
    };
    if args.rm
        && let Some(directory) = directory
    {
        directory.remove()?;
    }
    result
}

/// Locks the machine's directory and checks that it belongs to the image.
fn prepare_directory(args: &RunArgs, image: &str) -> Result<MachineDirectory> {
    // A machine's name is also a host's, which has no colon.
    let of_image = image.replace(':', "-");
    let name = args.name.as_deref().unwrap_or(&of_image);
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

/// Where the machine is controlled.
fn place(args: &RunArgs, directory: Option<&MachineDirectory>) -> Place {
    match directory {
        Some(directory) => Place::Own {
            name: args
                .name
                .clone()
                .or_else(|| args.image.as_ref().map(|image| image.replace(':', "-")))
                .unwrap_or_default(),
            directory: directory.path().to_owned(),
        },
        None => Place::of(args.name.as_deref(), guest_file(args).as_os_str()),
    }
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

/// Runs the guest that an image describes, on the machine's own copy of the image's disk.
fn run_image(args: &RunArgs, image: &str, directory: &MachineDirectory, place: Place) -> Result<ExitCode> {
    let image = images::find_or_pull(image)?;
    let is_x86 = image.manifest().kind == x86_64::KIND;
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
    let disks: Vec<_> = [DiskArgument::own(&own)].into_iter().chain(args.disks.iter().cloned()).collect();
    let arguments = format!("{}{console}{extra}", image.append());
    if is_x86 {
        return x86_64::run_image(args, (&image.kernel(), &image.initrd()), arguments, disks, place);
    }
    let images = Images {
        kernel: Some(ImageFile::open(&image.kernel())?),
        initrd: Some(ImageFile::open(&image.initrd())?),
        firmware: None,
    };
    run_guest(args, Guest { images, arguments, disks: open_all(&disks)? }, place)
}

/// The guest that the flags describe.
fn guest_of_files(args: &RunArgs) -> Result<Guest> {
    let open = |path: &Option<PathBuf>| path.as_deref().map(ImageFile::open).transpose();
    Ok(Guest {
        images: Images { kernel: open(&args.kernel)?, initrd: open(&args.initrd)?, firmware: open(&args.firmware)? },
        arguments: args.append.clone().unwrap_or_default(),
        disks: open_all(&args.disks)?,
    })
}

/// Builds the RISC-V machine, runs it until it stops, and says what came of it.
fn run_guest(args: &RunArgs, guest: Guest, place: Place) -> Result<ExitCode> {
    ensure!(
        args.devices.is_empty(),
        "--device is for x86-64 machines on KVM, whose processor the host's device can share"
    );
    let wiring = Wiring::open(args)?;
    let scratch = |backend| Arc::new(ScratchDisk::new(backend)) as Arc<dyn BlockBackend>;
    let keep = |backend| if args.repeat.forgets_disks() { scratch(backend) } else { backend };
    let disk = |(index, backend)| Disk { backend, serial: format!("isomorph-{index}") };
    let board = Arc::new(Board::new(BoardConfig {
        cpus: args.cpus,
        memory_bytes: args.memory.0,
        images: guest.images,
        arguments: guest.arguments,
        disks: guest.disks.into_iter().map(keep).enumerate().map(disk).collect(),
        network: wiring.network.clone().map(|backend| Interface { backend, mac: mac(args), card: args.nic.into() }),
        serial: wiring.serial(args),
        console: wiring.virtio_console(args),
        virtio: args.virtio.into(),
        entropy: Entropy::Host,
        clock: Arc::clone(&wiring.clock),
        hardware_ad_updates: true,
        translator: args.engine.options(),
        schedule: args.repeat.schedule(args.console != ConsoleKind::None || !args.no_network)?,
    })?);
    let monitor = Monitor::attend(Arc::clone(&board) as Arc<dyn SystemMachine>, wiring.console.as_ref())?;
    let symbols = args.debug.symbols(args.kernel.as_deref().or(args.firmware.as_deref()))?;
    let trace = args.debug.tracer()?;
    if let Some(trace) = &trace {
        board.set_tracer(Some(Arc::clone(trace) as _));
    }
    let debugger = args.debug.serve(Arc::new(System::new(Arc::clone(&board))))?;
    let session = Session::begin(
        place,
        Description::new("riscv64", guest_of(args)),
        Arc::clone(&monitor) as Arc<dyn Controlled>,
    )?;
    system::start(&*board)?;
    forget_text();
    let reason = board.wait();
    session.end();
    if let Some(debugger) = debugger {
        debugger.close();
    }
    if let Some(console) = &wiring.console {
        console.close();
    }
    finish_trace(trace.as_ref())?;
    args.repeat.tell_end(&board, &reason);
    args.debug.tell_stats(|| stats(&board))?;
    if let StopReason::Fault(_) = &reason {
        eprint!("{}", describe_fault(&board, &symbols));
    }
    args.debug.map_for_perf(|| board.units(), || symbols)?;
    monitor.exit_code(reason)
}

fn stats(board: &Board) -> RunStats {
    RunStats { time_ns: board.stats().time_ns, counts: board.engine_stats().entries() }
}
