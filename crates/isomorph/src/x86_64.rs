//! x86-64 machines, on KVM: what `isomorph run` makes of an x86-64 kernel, and of a snapshot of such a machine.
//!
//! A machine is made by a [`Recipe`], which is also what its snapshots tell of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use debugger::system::System;
use machine::entropy::Entropy;
use machine::lifecycle::Machine;
use machine::snapshot::{Snapshot, is_snapshot};
use machine::sys::forget_text;
use serde::{Deserialize, Serialize};
use x86::board::snapshot::{KIND as SNAPSHOT_KIND, MACHINE, SECTION_VERSION};
use x86::board::{Board, BoardConfig, Disk, Interface};
use x86::boot::{Firmware, ImageFile, Images};
use x86::kvm::Host;

use crate::cli::{Console, Engine, HostDevice, IrqChip, Nic, RunArgs};
use crate::control::{Controlled, Description, Place, Session, resident_bytes};
use crate::debugging::{RunStats, finish_trace};
use crate::disks::{DiskArgument, open_all};
use crate::size::MemorySize;
use crate::system::{self, Monitor, SystemMachine};
use crate::wiring::{Wiring, guest_of, mac};

/// What images for such machines are of.
pub const KIND: &str = "amd64";

/// Whether the image of that name is one for such machines.
#[must_use]
pub fn is_image(name: &str) -> bool {
    image::Port::find(name).is_some_and(|port| port.kind() == KIND)
}

/// Says why this host runs no x86-64 machine, if it does not. `whole`: the machine is to run an operating system.
///
/// # Errors
/// There is no KVM, or none that is any use for that.
pub fn check_host(whole: bool) -> Result<()> {
    const INSTEAD: &str = "riscv64 machines run on any host, as in 'isomorph run debian'";
    if let Err(reason) = Host::open() {
        bail!("x86-64 machines need KVM: {reason}; {INSTEAD}");
    }
    if whole && Host::interprets_kernels() {
        bail!(
            "this host's KVM interprets guest kernels, which lacks what Debian's needs and would take hours; {INSTEAD}"
        );
    }
    Ok(())
}

/// The flags that mean nothing to a machine whose instructions the host's processor executes.
fn check_flags(args: &RunArgs) -> Result<()> {
    let (debug, engine) = (&args.debug, &args.engine);
    let asked = [
        (debug.perf_map, "--perf-map"),
        (engine.engine != Engine::default(), "--engine"),
        (!engine.disable.is_empty(), "--disable"),
        (engine.code_cache.is_some(), "--code-cache"),
        (args.repeat.is_asked_for(), "--deterministic, --seed, --record, --replay or --until"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, flag)) => bail!("{flag} is for riscv64 machines; leave it out for an x86-64 machine"),
        None => Ok(()),
    }
}

/// What a machine is made of. Paths are absolute.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    guest: String,
    cpus: u32,
    cpu: String,
    memory_bytes: u64,
    irqchip: String,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    firmware: Option<PathBuf>,
    variables: Option<PathBuf>,
    append: String,
    disks: Vec<RecipeDisk>,
    /// The network card, if there is one.
    nic: Option<String>,
    mac: [u8; 6],
    /// Which console the terminal is.
    console: String,
}

/// A disk of a machine, and its file as it was when the recipe was written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeDisk {
    /// As `--disk` takes it.
    argument: String,
    bytes: u64,
    /// Nanoseconds since 1970-01-01 UTC.
    modified_ns: u128,
}

impl RecipeDisk {
    fn of(disk: &DiskArgument) -> Self {
        let (bytes, modified_ns) = Self::now(disk);
        Self { argument: disk.to_string(), bytes, modified_ns }
    }

    fn now(disk: &DiskArgument) -> (u64, u128) {
        let metadata = fs::metadata(disk.path());
        let modified = metadata.as_ref().ok().and_then(|metadata| metadata.modified().ok());
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        (metadata.map_or(0, |metadata| metadata.len()), since.map_or(0, |since| since.as_nanos()))
    }

    /// The disk, if its file is as it was.
    fn unchanged(&self) -> Result<DiskArgument> {
        let disk: DiskArgument = self.argument.parse().context("the snapshot names a disk that is none")?;
        ensure!(
            Self::now(&disk) == (self.bytes, self.modified_ns),
            "the disk {} is not as it was when the snapshot was taken; give a copy from then with --disk",
            disk.path().display()
        );
        Ok(disk)
    }
}

fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn value_of<T: ValueEnum>(name: &str) -> Result<T> {
    T::from_str(name, false)
        .map_err(|_| anyhow::anyhow!("the snapshot is of a machine with '{name}', which is unknown here"))
}

fn absolute(path: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    path.map(|path| std::path::absolute(path).with_context(|| format!("{}", path.display()))).transpose()
}

impl Recipe {
    /// What the flags say.
    fn of(args: &RunArgs, append: String) -> Result<Self> {
        ensure!(args.memory.0.is_multiple_of(machine::PAGE_SIZE), "--memory must be whole pages of 4 KiB");
        Ok(Self {
            guest: guest_of(args),
            cpus: args.cpus,
            cpu: args.cpu.to_string(),
            memory_bytes: args.memory.0,
            irqchip: name_of(args.irqchip),
            kernel: absolute(args.kernel.as_ref())?,
            initrd: absolute(args.initrd.as_ref())?,
            firmware: absolute(args.firmware.as_ref())?,
            variables: absolute(args.variables.as_ref())?,
            append,
            disks: Vec::new(),
            nic: (!args.no_network).then(|| name_of(args.nic)),
            mac: mac(args),
            console: name_of(args.console),
        })
    }

    /// Has the flags say what the recipe does, where they say how a machine is made.
    fn apply(&self, args: &mut RunArgs) -> Result<()> {
        args.cpus = self.cpus;
        args.cpu = self.cpu.parse()?;
        args.memory = MemorySize(self.memory_bytes);
        args.irqchip = value_of::<IrqChip>(&self.irqchip)?;
        args.no_network = self.nic.is_none();
        args.nic = self.nic.as_deref().map_or(Ok(Nic::default()), value_of)?;
        args.console = value_of::<Console>(&self.console)?;
        Ok(())
    }

    fn images(&self) -> Result<Images> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(ImageFile::open).transpose();
        let firmware = |path: &PathBuf| Firmware::open(path, self.variables.as_deref());
        Ok(Images {
            firmware: self.firmware.as_ref().map(firmware).transpose()?,
            kernel: open(&self.kernel)?,
            initrd: open(&self.initrd)?,
            arguments: self.append.clone(),
        })
    }
}

/// Runs the machine that the flags describe until it stops.
///
/// # Errors
/// The host has no usable KVM, something is missing or wrong, or the guest failed.
pub fn run(args: &RunArgs, images: Images, place: Place) -> Result<ExitCode> {
    let recipe = Recipe::of(args, args.append.clone().unwrap_or_default())?;
    start(args, recipe, images, &args.disks, place, None)
}

/// Runs the machine of an image: of its kernel and initial RAM disk.
///
/// # Errors
/// As [`run`].
pub fn run_image(
    args: &RunArgs,
    (kernel, initrd): (&Path, &Path),
    append: String,
    disks: Vec<DiskArgument>,
    place: Place,
) -> Result<ExitCode> {
    let recipe = Recipe {
        kernel: Some(std::path::absolute(kernel)?),
        initrd: Some(std::path::absolute(initrd)?),
        ..Recipe::of(args, append)?
    };
    let images = recipe.images()?;
    start(args, recipe, images, &disks, place, None)
}

/// The snapshot of such a machine that the arguments name, if they do.
pub fn snapshot(args: &RunArgs) -> Option<PathBuf> {
    let path = args.image.as_deref().filter(|name| name.contains('/')).map(Path::new)?;
    let snapshot = is_snapshot(path).then(|| Snapshot::open(path))?.ok()?;
    (snapshot.header().kind == SNAPSHOT_KIND).then(|| path.to_owned())
}

/// Goes on from a snapshot. Of the flags those count that do not say how the machine is made; `--disk` names disks in place of the machine's.
///
/// # Errors
/// As [`run`]; and the snapshot is damaged, or a disk is not as it was.
pub fn run_snapshot(mut args: RunArgs, directory: &Path) -> Result<ExitCode> {
    ensure!(args.arguments.is_empty(), "flags stand before the snapshot, as in 'isomorph run --disk FILE ./DIR'");
    let snapshot = Snapshot::open(directory)?;
    let recipe = snapshot.parts().section(MACHINE, SECTION_VERSION)?;
    let recipe: Recipe = serde_json::from_slice(&recipe).context("the snapshot does not tell of its machine")?;
    recipe.apply(&mut args)?;
    let disks = if args.disks.is_empty() {
        recipe.disks.iter().map(RecipeDisk::unchanged).collect::<Result<_>>()?
    } else {
        std::mem::take(&mut args.disks)
    };
    ensure!(
        disks.len() == recipe.disks.len(),
        "the machine of the snapshot has {} disks; name as many with --disk, or none",
        recipe.disks.len()
    );
    let place = Place::of(args.name.as_deref(), directory.as_os_str());
    // The snapshot's path is nobody's name.
    args.image = None;
    let images = recipe.images()?;
    start(&args, recipe, images, &disks, place, Some(&snapshot))
}

fn start(
    args: &RunArgs,
    recipe: Recipe,
    images: Images,
    disks: &[DiskArgument],
    place: Place,
    snapshot: Option<&Snapshot>,
) -> Result<ExitCode> {
    check_flags(args)?;
    check_host(false)?;
    let wiring = Wiring::open(args)?;
    let backends = open_all(disks)?;
    let disk = |(index, backend)| Disk { backend, serial: format!("isomorph-{index}") };
    let description = Description::new("x86_64", recipe.guest.clone());
    let mac = recipe.mac;
    let on_disks = disks.to_vec();
    let about = move || {
        let recipe = Recipe { disks: on_disks.iter().map(RecipeDisk::of).collect(), ..recipe.clone() };
        // Texts and numbers.
        serde_json::to_vec(&recipe).unwrap_or_default()
    };
    let config = BoardConfig {
        cpus: args.cpus,
        model: args.cpu,
        memory_bytes: args.memory.0,
        irqchip: args.irqchip.into(),
        images,
        disks: backends.into_iter().enumerate().map(disk).collect(),
        network: wiring.network.clone().map(|backend| Interface { backend, mac, card: args.nic.into() }),
        host_devices: args.devices.iter().map(|HostDevice(address)| *address).collect(),
        serial: wiring.serial(args),
        console: wiring.virtio_console(args),
        entropy: Entropy::Host,
        clock: Arc::clone(&wiring.clock),
        about: Box::new(about),
    };
    let board = Arc::new(match snapshot {
        Some(snapshot) => Board::from_snapshot(config, snapshot)?,
        None => Board::new(config)?,
    });
    if Host::interprets_kernels() {
        eprintln!("isomorph: this host's KVM interprets guest kernels: expect minutes, and instructions that it lacks");
    }
    let monitor = Monitor::attend(Arc::clone(&board) as Arc<dyn SystemMachine>, wiring.console.as_ref())
        .context("the host gives no more threads")?;
    let session = Session::begin(place, description, Arc::clone(&monitor) as Arc<dyn Controlled>)?;
    let trace = args.debug.tracer()?;
    if let Some(trace) = &trace {
        board.set_tracer(Some(Arc::clone(trace) as _));
    }
    let debugger = args.debug.serve(Arc::new(System::new(Arc::clone(&board))))?;
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
    args.debug.tell_stats(|| stats(&board))?;
    monitor.exit_code(reason)
}

fn stats(board: &Board) -> RunStats {
    let stats = board.stats();
    let resident = std::fs::File::open("/proc/self/statm").map_or(0, |statm| resident_bytes(&statm));
    let mut counts = board.exits();
    counts.push(("resets".into(), stats.resets_count));
    counts.push(("guest memory resident bytes".into(), stats.memory_resident_bytes));
    counts.push(("monitor memory resident bytes".into(), resident.saturating_sub(stats.memory_resident_bytes)));
    RunStats { time_ns: stats.time_ns, counts }
}

/// The images that flags name, if they are for x86-64.
///
/// # Errors
/// A file cannot be read, or firmware's variables have no place.
pub fn images(args: &RunArgs) -> Result<Option<Images>> {
    let is_kernel = args.kernel.as_deref().map(x86::boot::is_kernel).transpose()?;
    let is_firmware = args.firmware.as_deref().map(Firmware::is_firmware).transpose()?;
    if is_kernel != Some(true) && is_firmware != Some(true) {
        ensure!(args.variables.is_none(), "--variables is for UEFI firmware (OVMF) of x86-64 machines");
        return Ok(None);
    }
    let images = Recipe::of(args, args.append.clone().unwrap_or_default())?.images()?;
    if images.firmware.as_ref().is_some_and(Firmware::forgets) {
        eprintln!("isomorph: the firmware's variables are forgotten at the end; --variables FILE keeps them");
    }
    Ok(Some(images))
}
