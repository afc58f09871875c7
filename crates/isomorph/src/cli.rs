//! The command line: what `isomorph` takes, in one place.

use std::path::PathBuf;

use anyhow::Context;
use clap::builder::TypedValueParser;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use machine::address::host_size;
use machine::permissions::{Names, Permissions};
use network::Publish;
use x86::kvm::cpuid::Model;

use crate::disks::DiskArgument;
use crate::size::MemorySize;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Runs any guest on any host.
#[derive(Debug, Parser)]
#[command(
    name = "isomorph",
    version,
    styles = STYLES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  isomorph run debian                     boot Debian for riscv64 (built at the first run)
  isomorph run debian --cpus 4 --publish 8080:80
  isomorph run --kernel Image --initrd initrd.img --append 'console=ttyS0'
  isomorph run app.jar                    a Java program in a sandbox; also .class, .java, .wasm
  isomorph java -cp classes Main          a Java program, trusted as by java, with its options
  isomorph image ls
  isomorph doctor

Ctrl-] at a running machine's console opens the monitor prompt (pause, resume, info, quit)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// `run` alone, as [`Cli`] has it among the others. To describe them all takes longer than to start a small guest.
pub fn run_command() -> clap::Command {
    RunArgs::augment_args(clap::Command::new("run"))
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a machine in the foreground, its console on this terminal
    Run(Box<RunArgs>),
    /// List machines
    #[command(visible_alias = "ls")]
    Ps(PsArgs),
    /// Say what machines that run are doing
    #[command(visible_alias = "stats")]
    Info(InfoArgs),
    /// Have machines stand still
    Pause(NamesArgs),
    /// Let machines that were paused go on
    #[command(visible_alias = "unpause")]
    Resume(NamesArgs),
    /// Have machines shut down: by the power button, or by SIGTERM; what has not ended in time is killed
    Stop(StopArgs),
    /// End machines at once, as pulling the plug does
    Kill(NamesArgs),
    /// Remove machines, and with them their disks
    Rm(RemoveArgs),
    /// Build, list and remove machine images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Look at snapshots of machines
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Have the kernel start riscv64 programs by itself (binfmt_misc); needs root
    Register(RegisterArgs),
    /// Measure the same work on every kind of virtual machine that this host has, beside native code
    Compare(CompareArgs),
    /// Run a Java program as java does, with its options: 'isomorph java -help'
    #[command(disable_help_flag = true)]
    Java {
        /// java's own options and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        words: Vec<std::ffi::OsString>,
    },
    /// Say what this host offers to guests
    Doctor(ListArgs),
    /// Give the terminal back if the process that borrowed it is killed
    #[command(hide = true, name = crate::terminal::GUARD_COMMAND)]
    TerminalGuard,
}

/// `isomorph image ...`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build an image from its distribution's packages
    #[command(after_help = "Examples:
  isomorph image pull debian              Debian 13 (trixie) for riscv64
  isomorph image pull sysroot             its libraries and programs as a folder, for 'isomorph run ./program'
  isomorph image pull sysroot --with gcc,libc6-dev
  isomorph image pull java                the class library of JDK 17, for Java programs

Packages come from the mirror that this host's apt is configured with, their signatures are checked, and no
privilege is needed. A pull that was interrupted goes on where it stopped.")]
    Pull {
        /// The image: debian; or sysroot, or java
        name: String,
        /// Packages that the sysroot has beside the essential ones
        #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
        with: Vec<String>,
        /// Build it anew although it is there
        #[arg(long)]
        force: bool,
    },
    /// List images
    Ls(ListArgs),
    /// Remove images
    Rm {
        /// The images' names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// `isomorph snapshot ...`
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Have a machine that runs leave a snapshot: an x86-64 machine, or a WebAssembly module that was started with --snapshot, once its call returns
    Create {
        /// The machine's name: see `isomorph ps`
        name: String,
        /// The snapshot's directory
        directory: PathBuf,
    },
    /// Say what a snapshot is: its kind, its machine, and what it holds
    Inspect {
        /// The snapshot's directory
        directory: PathBuf,
        /// Read all of it and compare it with its checksums
        #[arg(long)]
        verify: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Flags of the commands that list something.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `isomorph ps`
#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    pub list: ListArgs,

    /// As it always does, show those that do not run, too: what users of docker type.
    #[arg(long, short, hide = true)]
    pub all: bool,
}

/// `isomorph compare`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isomorph compare                            all there is, in less than ten minutes
  isomorph compare --quick                    in less than one
  isomorph compare --only java,sort,startup   some workloads, some machines
  isomorph compare --html report.html --json today.json
  isomorph compare --diff yesterday.json today.json

Nothing is needed but this command. What a host does not have (java, qemu, a kernel) is named and left out. Ctrl-C ends it
with what was measured until then. Exit status: 0, or 1 when a machine has computed wrong or fails.")]
pub struct CompareArgs {
    /// Measure only these workloads and machines: names separated by commas; repeat for more
    #[arg(long, value_name = "NAME", value_delimiter = ',',
        value_parser = clap::builder::PossibleValuesParser::new(compare::measure::names()))]
    pub only: Vec<String>,

    /// Less than a minute: each once, and briefly
    #[arg(long)]
    pub quick: bool,

    /// Write the figures to FILE, for --diff and for scripts
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a report with plots to FILE, a page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Show what differs between two files of --json, and measure nothing
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["only", "quick", "json", "html"])]
    pub diff: Vec<PathBuf>,
}

/// `isomorph register`
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// Take the registration back
    #[arg(long, conflicts_with = "print")]
    pub unregister: bool,

    /// Print what the kernel would be told, for a file in /etc/binfmt.d
    #[arg(long)]
    pub print: bool,
}

/// Flags of the verbs for machines that run.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// The machines' names: see `isomorph ps`
    #[arg(required = true)]
    pub names: Vec<String>,
}

/// `isomorph info`
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// The machines' names: see `isomorph ps`
    #[arg(required = true)]
    pub names: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `isomorph stop`
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The machines' names: see `isomorph ps`
    #[arg(required = true)]
    pub names: Vec<String>,

    /// Kill what has not ended after so many seconds
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds)]
    pub timeout: f64,
}

/// `isomorph rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The machines' names
    #[arg(required = true)]
    pub names: Vec<String>,
}

/// Which of the guest's consoles this terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Console {
    /// The 16550 serial port, ttyS0
    Serial,
    /// The virtio console, hvc0, which knows the terminal's size
    Virtio,
    /// None: no input, output thrown away
    None,
}

/// What virtio devices are attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VirtioTransport {
    /// Registers at fixed addresses
    #[default]
    Mmio,
    /// A PCI Express bus
    Pci,
}

impl From<VirtioTransport> for riscv::board::VirtioTransport {
    fn from(transport: VirtioTransport) -> Self {
        match transport {
            VirtioTransport::Mmio => Self::Mmio,
            VirtioTransport::Pci => Self::Pci,
        }
    }
}

/// The network card that a guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Nic {
    /// Virtio's, the fast one
    #[default]
    Virtio,
    /// An Intel 82540EM on a PCI bus, which nearly every system has a driver for
    E1000,
}

impl From<Nic> for devices::Card {
    fn from(nic: Nic) -> Self {
        match nic {
            Nic::Virtio => Self::Virtio,
            Nic::E1000 => Self::E1000,
        }
    }
}

/// Where the interrupt controllers of an x86-64 machine are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum IrqChip {
    /// All in the host's kernel
    #[default]
    Kernel,
    /// Only the processors' own; the I/O APIC is in this process, and there are none of old: less of the kernel for guests to attack
    Split,
}

impl From<IrqChip> for x86::kvm::IrqChip {
    fn from(irqchip: IrqChip) -> Self {
        match irqchip {
            IrqChip::Kernel => Self::Kernel,
            IrqChip::Split => Self::Split,
        }
    }
}

/// The argument of `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDevice(pub x86::vfio::HostAddress);

impl std::str::FromStr for HostDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("vfio:").ok_or("a device of this host is given as vfio:0000:01:00.0")?;
        address.parse().map(Self).map_err(|error: x86::vfio::address::ParseAddressError| error.to_string())
    }
}

/// What executes a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Instruction by instruction
    Interpreter,
    /// Basic blocks are translated
    Block,
    /// Whole loops are translated
    #[default]
    Region,
}

/// The flags that choose how a guest is executed.
#[derive(Debug, Default, Args)]
pub struct EngineArgs {
    /// What executes the guest
    #[arg(long, value_name = "KIND", value_enum, default_value_t, help_heading = "Engine")]
    pub engine: Engine,

    /// Switch off optimisations of the translator: names separated by commas; repeat for more
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Engine",
        value_parser = clap::builder::PossibleValuesParser::new(riscv::translate::Options::NAMES))]
    pub disable: Vec<String>,

    /// Host code kept at most, from 1M to 1G; when it is full, translating begins anew [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_code_cache, help_heading = "Engine")]
    pub code_cache: Option<MemorySize>,
}

fn parse_code_cache(text: &str) -> Result<MemorySize, String> {
    let size: MemorySize = text.parse()?;
    if (1 << 20..=1 << 30).contains(&size.0) { Ok(size) } else { Err("it has from 1M to 1G".into()) }
}

impl EngineArgs {
    /// The translator's options.
    pub fn options(&self) -> riscv::translate::Options {
        use riscv::translate::Options;
        let mut options = match self.engine {
            Engine::Interpreter => Options::interpreter(),
            Engine::Block => Options::block(),
            Engine::Region => Options::default(),
        };
        for name in &self.disable {
            let known = options.set(&format!("no-{name}"));
            debug_assert!(known.is_ok(), "the parser lets known names through only");
        }
        if let Some(MemorySize(bytes)) = self.code_cache {
            options.code_bytes = host_size(bytes);
        }
        options
    }
}

/// The flags that make a run one that can be repeated.
#[derive(Debug, Default, Args)]
pub struct RepeatArgs {
    /// Let time follow from the instructions executed: with the same input, a run is the same again to the instruction
    #[arg(long, help_heading = "Repeatable runs")]
    pub deterministic: bool,

    /// The seed of the guest's randomness [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "replay", help_heading = "Repeatable runs")]
    pub seed: Option<u64>,

    /// Write all that comes from outside to FILE, for --replay; the guest's changes of its disks are forgotten at the end
    #[arg(long, value_name = "FILE", conflicts_with = "replay", help_heading = "Repeatable runs")]
    pub record: Option<PathBuf>,

    /// Run again what was recorded in FILE, without keyboard and network; the disks stay as they are
    #[arg(long, value_name = "FILE", help_heading = "Repeatable runs")]
    pub replay: Option<PathBuf>,

    /// Stop once N instructions have been executed, and show the registers; with --gdb, halt for the debugger
    #[arg(long, value_name = "N", help_heading = "Repeatable runs")]
    pub until: Option<u64>,
}

impl RepeatArgs {
    /// Whether any of them is given.
    pub fn is_asked_for(&self) -> bool {
        self.deterministic
            || self.seed.is_some()
            || self.record.is_some()
            || self.replay.is_some()
            || self.until.is_some()
    }

    /// Whether the machine's disks are left as they are.
    pub fn forgets_disks(&self) -> bool {
        self.record.is_some() || self.replay.is_some()
    }
}

/// The flags that let one see into a machine.
#[derive(Clone, Debug, Default, Args)]
pub struct DebugArgs {
    /// Wait for a debugger (gdb) at this port of this host, at ADDRESS:PORT, or at unix:PATH
    #[arg(long, value_name = "PORT", help_heading = "Debugging")]
    pub gdb: Option<debugger::server::Address>,

    /// With --gdb: do not wait, a debugger may come at any time
    #[arg(long, requires = "gdb", help_heading = "Debugging")]
    pub gdb_no_wait: bool,

    /// Write a line for each executed instruction to FILE, or to standard error
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-", help_heading = "Debugging")]
    pub trace: Option<PathBuf>,

    /// With --trace: only instructions at these addresses, as in 80200000-802fffff; repeat for more
    #[arg(long, value_name = "START-END", requires = "trace", value_parser = debugger::trace::parse_range, help_heading = "Debugging")]
    pub trace_range: Vec<std::ops::RangeInclusive<u64>>,

    /// Write a line for each system call of a Linux program and its children to FILE, or to standard error
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-", help_heading = "Debugging")]
    pub strace: Option<PathBuf>,

    /// At the end, tell what the machine has done: on standard error, or as JSON in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-", help_heading = "Debugging")]
    pub stats: Option<PathBuf>,

    /// At the end, name translated code for `perf report`, in /tmp/perf-PID.map
    #[arg(long, help_heading = "Debugging")]
    pub perf_map: bool,

    /// ELF file with the guest's symbols, for reports of crashes; repeat for more
    #[arg(long, value_name = "FILE", help_heading = "Debugging")]
    pub symbols: Vec<PathBuf>,
}

/// A socket address of which the host may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeAddress(pub std::net::SocketAddr);

impl std::str::FromStr for ServeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.parse::<u16>().map(|port| ([127, 0, 0, 1], port).into());
        port.or_else(|_| text.parse()).map(Self).map_err(|_| format!("'{text}' is neither a port nor ADDRESS:PORT"))
    }
}

/// The flags that say what a program may do; by default it has its arguments and this terminal, and nothing else. A Linux program may do what you may do,
/// unless one of them is given.
#[derive(Debug, Default, PartialEq, Args)]
pub struct PermissionArgs {
    /// Let a program read this directory; repeat for more
    #[arg(long, value_name = "DIR", require_equals = true, help_heading = "Permissions")]
    pub allow_read: Vec<PathBuf>,

    /// Let it read and write this directory; repeat for more
    #[arg(long, value_name = "DIR", require_equals = true, help_heading = "Permissions")]
    pub allow_write: Vec<PathBuf>,

    /// Give a WebAssembly program a directory under another name; with ":ro", to read only; repeat for more
    #[arg(long, short = 'v', value_name = "HOST:GUEST", help_heading = "Permissions")]
    pub volume: Vec<wasm::Volume>,

    /// Let it use the network, or of it only this: HOST, HOST:PORT or :PORT; repeat for more
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, require_equals = true, default_missing_value = "",
        value_parser = parse_or_any::<machine::permissions::Endpoint>, help_heading = "Permissions")]
    pub allow_net: Vec<Option<machine::permissions::Endpoint>>,

    /// Let it see the environment, or of it only this variable; repeat for more
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "",
        value_parser = parse_or_any::<String>, help_heading = "Permissions")]
    pub allow_env: Vec<Option<String>>,

    /// Let a Java or Linux program start programs of this host; they may do what it may
    #[arg(long, help_heading = "Permissions")]
    pub allow_run: bool,

    /// Let it do all that you may do
    #[arg(long, help_heading = "Permissions")]
    pub allow_all: bool,

    /// Set a variable of its environment; repeat for more
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Program")]
    pub env: Vec<String>,

    /// End it after so many seconds of processor time; each process of a Linux program after so many whole ones
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, help_heading = "Program")]
    pub cpu_time: Option<f64>,

    /// Call this function of a WebAssembly module with the arguments, and print its results
    #[arg(long, value_name = "FUNCTION", conflicts_with = "serve", help_heading = "Program")]
    pub invoke: Option<String>,

    /// Once the call has returned, leave a snapshot of a WebAssembly module in this directory; 'run ./DIR' goes on from there
    #[arg(long, value_name = "DIR", conflicts_with = "serve", help_heading = "Program")]
    pub snapshot: Option<PathBuf>,

    /// Answer HTTP requests at this port of this host, or at ADDRESS:PORT, with a component that exports wasi:http
    #[arg(long, value_name = "PORT", help_heading = "Program")]
    pub serve: Option<ServeAddress>,
}

impl PermissionArgs {
    /// What they allow.
    pub fn permissions(&self) -> Permissions {
        if self.allow_all {
            return Permissions::all();
        }
        let names = |names: &[Option<String>]| match names.iter().cloned().collect::<Option<Vec<_>>>() {
            Some(names) => Names::Some(names),
            None => Names::All,
        };
        let network = if self.allow_net.contains(&None) {
            Permissions::all().network
        } else {
            self.allow_net.iter().flatten().cloned().collect()
        };
        Permissions {
            read: self.allow_read.clone(),
            write: self.allow_write.clone(),
            network,
            environment: names(&self.allow_env),
            run: self.allow_run,
        }
    }

    /// The variables that are set.
    ///
    /// # Errors
    /// One without its value.
    pub fn variables(&self) -> anyhow::Result<Vec<(String, String)>> {
        let split = |text: &String| {
            let (name, value) = text.split_once('=').with_context(|| format!("--env {text}: it is NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        self.env.iter().map(split).collect()
    }

    /// Whether any is given that only WebAssembly programs have.
    pub fn is_asked_for_by_webassembly(&self) -> bool {
        !self.volume.is_empty() || self.invoke.is_some() || self.snapshot.is_some() || self.serve.is_some()
    }

    /// Whether any of them is given.
    pub fn is_asked_for(&self) -> bool {
        *self != Self::default()
    }

    /// Whether they allow something, but not all: then a Linux program, which may do what you may do by default, may do nothing else.
    pub fn confines(&self) -> bool {
        !self.allow_all && self.permissions() != Permissions::default()
    }
}

/// A value, or any if none is given.
fn parse_or_any<T: std::str::FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 1e9);
    seconds.ok_or_else(|| format!("'{text}' is no number of seconds above 0"))
}

/// `isomorph run`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isomorph run debian
  isomorph run debian --name web --cpus 2 --memory 2G --publish 8080:80
  isomorph run --kernel Image --initrd initrd.img --append 'root=/dev/vda rw' --disk root.raw
  isomorph run --firmware fw_jump.elf --kernel Image
  isomorph run --firmware u-boot.bin --disk disk.raw
  isomorph run --kernel vmlinuz --initrd initrd.img --append console=ttyS0      x86-64, on KVM
  isomorph run --firmware /usr/share/OVMF/OVMF_CODE_4M.fd --variables my.fd --disk disk.raw      x86-64 by UEFI
  isomorph run ./program --flag                 a Linux program for riscv64; a path, so with a slash
  isomorph run app.jar ARGS                     a Java program (.jar, .class or .java) that may do nothing but use this terminal
  isomorph run --allow-read=. app.wasm ARGS     a WebAssembly program; flags stand before it, its own behind it
  isomorph run --invoke gcd maths.wat 48 36     a function of a module
  isomorph run --serve 8080 site.wasm           a component that answers HTTP requests
  isomorph run --invoke load --snapshot loaded app.wasm      then: isomorph run --invoke ask ./loaded 42
  isomorph run ./warm                           an x86-64 machine goes on from 'isomorph snapshot create NAME warm'

Seeing into it:
  isomorph run --kernel vmlinux --gdb 1234      then: gdb-multiarch vmlinux -ex 'target remote :1234'
  isomorph run --kernel vmlinux --trace=boot.trace --trace-range 80200000-80201fff
  isomorph run debian --stats=run.json

Running it again:
  isomorph run debian --record session          then: isomorph run debian --replay session
  isomorph run debian --replay session --until 2000000000 --gdb 1234

The machine of an image keeps its disk: run it again under the same name and it goes on where it was; `isomorph rm`
forgets it. Exit status: 0 when the guest powers itself off, 1 when it fails, 2 for a wrong command line.")]
pub struct RunArgs {
    /// The image to run (see `isomorph image ls`); pulled if it is not there
    #[arg(required_unless_present_any = ["kernel", "firmware"], conflicts_with_all = ["kernel", "initrd", "firmware"])]
    pub image: Option<String>,

    /// Arguments of the program, if the image is the path of one
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<std::ffi::OsString>,

    /// Where a program's libraries are: a folder with usr, lib, etc [default: the pulled sysroot, else this host's cross libraries]
    #[arg(long, value_name = "DIR", help_heading = "Program")]
    pub sysroot: Option<PathBuf>,

    /// Where a Java program's class library is, the folder of a JDK 17 [default: that of ISOMORPH_JAVA_HOME, of java, or the pulled one]
    #[arg(long, value_name = "DIR", help_heading = "Program")]
    pub java_home: Option<PathBuf>,

    /// The name that a program is called by [default: its path]
    #[arg(long, value_name = "NAME", help_heading = "Program")]
    pub argv0: Option<std::ffi::OsString>,

    /// Kernel: a RISC-V Linux Image, an x86-64 Linux bzImage (on KVM), or an ELF file of either
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk for the kernel
    #[arg(long, value_name = "FILE", requires = "kernel", help_heading = "Guest")]
    pub initrd: Option<PathBuf>,

    /// The kernel's command line; added to an image's own
    #[arg(long, value_name = "STRING", allow_hyphen_values = true, help_heading = "Guest")]
    pub append: Option<String>,

    /// Raw disk image; repeat for more. Options: readonly; cache=none|writeback|unsafe; aio=threads|io_uring
    #[arg(long = "disk", value_name = "FILE[,OPTION]...", help_heading = "Guest")]
    pub disks: Vec<DiskArgument>,

    /// Firmware: OpenSBI or U-Boot for riscv64 (without it the monitor provides the SBI), UEFI (OVMF) for x86-64
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub firmware: Option<PathBuf>,

    /// Where UEFI firmware keeps its variables; made if it is not there. Without it they are forgotten at the end
    #[arg(long, value_name = "FILE", requires = "firmware", help_heading = "Guest")]
    pub variables: Option<PathBuf>,

    /// Number of processors
    #[arg(long, short = 'c', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(riscv::board::CPUS_COUNT_MAX)), help_heading = "Machine")]
    pub cpus: u32,

    /// What the processors of an x86-64 machine say of themselves: a model that is the same on every host, or the host's
    #[arg(long, value_name = "MODEL", default_value_t, help_heading = "Machine",
        value_parser = clap::builder::PossibleValuesParser::new(Model::NAMES).try_map(|name| name.parse::<Model>()))]
    pub cpu: Model,

    /// Where the interrupt controllers of an x86-64 machine are
    #[arg(long, value_name = "PLACE", value_enum, default_value_t, help_heading = "Machine")]
    pub irqchip: IrqChip,

    /// Memory, as in 512M or 2G
    #[arg(long, short = 'm', value_name = "SIZE", default_value = "1G", help_heading = "Machine")]
    pub memory: MemorySize,

    /// The machine's name, for `ps`, `pause`, `stop` and others [default: the image's; a program's with the number of its process]
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    pub name: Option<String>,

    /// Remove the machine and its disk when it ends
    #[arg(long, help_heading = "Machine")]
    pub rm: bool,

    /// Forward a port of this host to the guest: `[ADDRESS:]HOST:GUEST[/udp]`; repeat for more
    #[arg(long, short = 'p', value_name = "HOST:GUEST", conflicts_with = "no_network", help_heading = "Network")]
    pub publish: Vec<Publish>,

    /// No network interface
    #[arg(long, help_heading = "Network")]
    pub no_network: bool,

    /// The network card that the guest sees
    #[arg(
        long,
        value_name = "MODEL",
        value_enum,
        default_value_t,
        conflicts_with = "no_network",
        help_heading = "Network"
    )]
    pub nic: Nic,

    /// Give the guest a PCI function of this host, as in vfio:0000:01:00.0; x86-64 machines; repeat for more
    #[arg(long = "device", value_name = "vfio:ADDRESS", help_heading = "Machine")]
    pub devices: Vec<HostDevice>,

    /// What the guest's virtio devices are attached to
    #[arg(long, value_name = "TRANSPORT", value_enum, default_value_t, help_heading = "Machine")]
    pub virtio: VirtioTransport,

    /// What executes it
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Whether it can be run again
    #[command(flatten)]
    pub repeat: RepeatArgs,

    /// How to see into it
    #[command(flatten)]
    pub debug: DebugArgs,

    /// What it may do
    #[command(flatten)]
    pub permissions: PermissionArgs,

    /// Which console of the guest this terminal is
    #[arg(long, value_enum, default_value_t = Console::Serial, help_heading = "Machine")]
    pub console: Console,
}
