//! The command line: what `isomorph` takes, in one place.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use network::Publish;

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
  isomorph image ls
  isomorph doctor

Ctrl-] at a running machine's console opens the monitor prompt (pause, resume, info, quit)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a machine in the foreground, its console on this terminal
    Run(Box<RunArgs>),
    /// List machines
    #[command(visible_alias = "ls")]
    Ps(ListArgs),
    /// Remove machines, and with them their disks
    Rm(RemoveArgs),
    /// Build, list and remove machine images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Have the kernel start riscv64 programs by itself (binfmt_misc); needs root
    Register(RegisterArgs),
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

Packages come from the mirror that this host's apt is configured with, their signatures are checked, and no
privilege is needed. A pull that was interrupted goes on where it stopped.")]
    Pull {
        /// The image: debian; or sysroot
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

/// Flags of the commands that list something.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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

/// `isomorph run`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isomorph run debian
  isomorph run debian --name web --cpus 2 --memory 2G --publish 8080:80
  isomorph run --kernel Image --initrd initrd.img --append 'root=/dev/vda rw' --disk root.raw
  isomorph run --firmware fw_jump.elf --kernel Image
  isomorph run --firmware u-boot.bin --disk disk.raw
  isomorph run ./program --flag                 a Linux program for riscv64; a path, so with a slash

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

    /// The name that a program is called by [default: its path]
    #[arg(long, value_name = "NAME", help_heading = "Program")]
    pub argv0: Option<std::ffi::OsString>,

    /// Kernel: a RISC-V Linux Image or an ELF file
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk for the kernel
    #[arg(long, value_name = "FILE", requires = "kernel", help_heading = "Guest")]
    pub initrd: Option<PathBuf>,

    /// The kernel's command line; added to an image's own
    #[arg(long, value_name = "STRING", allow_hyphen_values = true, help_heading = "Guest")]
    pub append: Option<String>,

    /// Raw disk image; repeat for more. Add ",readonly" to protect it
    #[arg(long = "disk", value_name = "FILE[,readonly]", help_heading = "Guest")]
    pub disks: Vec<String>,

    /// Machine-mode firmware (OpenSBI, U-Boot); without it the monitor provides the SBI
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub firmware: Option<PathBuf>,

    /// Number of processors
    #[arg(long, short = 'c', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(riscv::board::CPUS_COUNT_MAX)), help_heading = "Machine")]
    pub cpus: u32,

    /// Memory, as in 512M or 2G
    #[arg(long, short = 'm', value_name = "SIZE", default_value = "1G", help_heading = "Machine")]
    pub memory: MemorySize,

    /// The machine's name [default: the image's]
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

    /// What executes it
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Whether it can be run again
    #[command(flatten)]
    pub repeat: RepeatArgs,

    /// How to see into it

    #[command(flatten)]
    pub debug: DebugArgs,

    /// Which console of the guest this terminal is
    #[arg(long, value_enum, default_value_t = Console::Serial, help_heading = "Machine")]
    pub console: Console,
}
