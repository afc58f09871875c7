//! The first-level machine: an emulated processor with virtualization, and a Linux on it that knows nothing but how to be a host.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::run;
use crate::workspace;

const KVM_MODULES: [&str; 3] = ["virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-amd.ko"];

fn folder() -> PathBuf {
    workspace::target().join("nested")
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A kernel of Debian's, unpacked and not installed.
pub(super) struct Kernel {
    folder: PathBuf,
    version: String,
}

impl Kernel {
    /// The package behind which the kernel is for machines in clouds.
    pub(super) const CLOUD: &str = "linux-image-cloud-amd64";
    /// The package behind which the kernel is for any computer, with drivers for all that there is.
    pub(super) const GENERIC: &str = "linux-image-amd64";
    /// What is unpacked of a kernel: the few of its thousands of modules that machines here load.
    const PARTS: [&str; 9] = [
        "*/boot/vmlinuz-*",
        "*/kernel/virt/lib/*",
        "*/kernel/arch/x86/kvm/*",
        "*/kernel/drivers/virtio/*",
        "*/kernel/drivers/block/virtio_blk.ko*",
        "*/kernel/drivers/net/net_failover.ko*",
        "*/kernel/drivers/net/virtio_net.ko*",
        "*/kernel/net/core/failover.ko*",
        "*/kernel/fs/efivarfs/*",
    ];
    /// What only that for any computer has.
    const PARTS_GENERIC: [&str; 1] = ["*/kernel/drivers/net/ethernet/intel/e1000/*"];

    /// Downloads the kernel behind `package` if it is not there.
    pub(super) fn find_or_download(package: &str) -> Result<Self> {
        let depends = output_of(Command::new("apt-cache").args(["depends", package]))?;
        let version = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
            .with_context(|| format!("apt knows no kernel behind {package}"))?
            .to_owned();
        let unpacked = folder().join(format!("kernel-{version}"));
        if !unpacked.exists() {
            let packages = folder().join("packages");
            fs::create_dir_all(&packages)?;
            let name = format!("linux-image-{version}");
            output_of(Command::new("apt-get").args(["download", "-q", &name]).current_dir(&packages))?;
            let file = fs::read_dir(&packages)?
                .flatten()
                .map(|entry| entry.path())
                .find(|path| path.to_string_lossy().contains(&format!("{name}_")))
                .context("apt-get download left no package")?;
            let partial = unpacked.with_extension("partial");
            fs::create_dir_all(&partial)?;
            let mut unpack = Command::new("sh");
            unpack.args(["-c", r#"file=$0; to=$1; shift; dpkg-deb --fsys-tarfile "$file" | tar -x -C "$to" --wildcards --wildcards-match-slash "$@""#]);
            unpack.arg(&file).arg(&partial).args(Self::PARTS);
            if package == Self::GENERIC {
                unpack.args(Self::PARTS_GENERIC);
            }
            output_of(&mut unpack)?;
            fs::rename(&partial, &unpacked)?;
            fs::remove_file(&file)?;
        }
        Ok(Self { folder: unpacked, version })
    }

    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    /// The kernel as the ELF file that its image unpacks, for monitors that take no other.
    ///
    /// Specification: Linux, `Documentation/arch/x86/boot.rst`, "payload_offset".
    pub(super) fn uncompressed(&self) -> Result<PathBuf> {
        let to = self.folder.join("vmlinux");
        if to.exists() {
            return Ok(to);
        }
        let image = fs::read(self.image())?;
        let word = |at: usize| -> Option<usize> { Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize) };
        let setup = (usize::from(image.get(0x1f1).copied().unwrap_or(0)) + 1) * 512;
        let payload = word(0x248).zip(word(0x24c)).and_then(|(offset, length)| {
            let start = setup.checked_add(offset)?;
            image.get(start..start.checked_add(length)?)
        });
        let payload = payload.context("the kernel's image names no payload")?;
        // All but gzip have the length of what comes out behind them.
        let (program, behind) = match payload {
            [0x1f, 0x8b, ..] => ("gzip", 0),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => ("xz", 4),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", 4),
            [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", 4),
            _ => bail!("the kernel's image is packed by an unknown program"),
        };
        let (packed, partial) = (to.with_extension("packed"), to.with_extension("partial"));
        fs::write(&packed, &payload[..payload.len() - behind])?;
        let mut command = Command::new(program);
        command.arg("-dc").stdin(File::open(&packed)?).stdout(File::create(&partial)?);
        run(&mut command)?;
        fs::remove_file(&packed)?;
        fs::rename(&partial, &to)?;
        Ok(to)
    }

    /// The file of a module, named by its path below `kernel`.
    pub(super) fn module(&self, path: &str) -> PathBuf {
        let modules = format!("lib/modules/{}/kernel/{path}", self.version);
        [self.folder.join(&modules), self.folder.join("usr").join(&modules)]
            .into_iter()
            .find(|file| file.exists())
            .unwrap_or_else(|| self.folder.join(modules))
    }
}

/// A root file system in memory: busybox, a script, and what is added.
pub(super) struct Root {
    pub(super) folder: PathBuf,
    modules: Vec<String>,
}

impl Root {
    pub(super) fn new(name: &str) -> Result<Self> {
        let root = folder().join(name);
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "lib/modules"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static is not installed")?;
        for applet in output_of(Command::new("/bin/busybox").arg("--list"))?.lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        Ok(Self { folder: root, modules: Vec::new() })
    }

    /// Puts a file at `to`, below the root.
    pub(super) fn add_file(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.folder.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(&self.folder))?;
        fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
        Ok(())
    }

    /// Adds modules, to be loaded in this order.
    pub(super) fn add_modules(&mut self, kernel: &Kernel, paths: &[&str]) -> Result<()> {
        for path in paths {
            let name = path.rsplit('/').next().unwrap_or(path);
            self.add_file(&kernel.module(path), &format!("lib/modules/{name}"))?;
            self.modules.push(name.to_owned());
        }
        Ok(())
    }

    /// Writes what the kernel starts: `script`, with the usual file systems mounted and the modules loaded.
    pub(super) fn set_init(&self, script: &str) -> Result<()> {
        let mut init = String::from(
            "#!/bin/sh\nexport PATH=/bin\nmount -t proc proc /proc\nmount -t sysfs sysfs /sys\nmount -t devtmpfs dev /dev\n",
        );
        for module in &self.modules {
            writeln!(init, "insmod /lib/modules/{module}")?;
        }
        writeln!(init, "{script}")?;
        let path = self.folder.join("init");
        fs::write(&path, init)?;
        output_of(Command::new("chmod").arg("755").arg(&path))?;
        Ok(())
    }

    /// Packs it for a kernel.
    pub(super) fn pack(&self) -> Result<PathBuf> {
        let archive = self.folder.with_extension("cpio");
        let pack = "find . -print0 | sort -z | cpio --null --quiet -o -H newc -R 0:0";
        let file = File::create(&archive)?;
        let status = Command::new("sh").args(["-c", pack]).current_dir(&self.folder).stdout(file).status()?;
        if !status.success() {
            bail!("cpio failed");
        }
        Ok(archive)
    }
}

/// Its kernel's command line. The timer ticks all the time: qemu's processor, as it leaves a guest, can lose the interrupt that another of qemu's threads raises at that
/// moment (`do_vmexit` changes `interrupt_request` without the lock). An only shot then leaves the kernel halted for good; the next tick delivers both.
const APPEND: &str = "console=ttyS0 panic=-1 quiet no_timer_check highres=off nohz=off";

/// A machine whose processor has virtualization.
pub(super) struct First {
    pub(super) kernel: Kernel,
    pub(super) root: Root,
    /// Its memory.
    pub(super) memory_mib: u32,
    /// Its virtio disks: raw files, which it may write.
    pub(super) disks: Vec<PathBuf>,
}

impl First {
    pub(super) fn new(name: &str) -> Result<Self> {
        let kernel = Kernel::find_or_download(Kernel::CLOUD)?;
        let mut root = Root::new(name)?;
        root.add_modules(&kernel, &KVM_MODULES)?;
        Ok(Self { kernel, root, memory_mib: 1024, disks: Vec::new() })
    }

    /// Adds a program of this host as `/bin/NAME`, without its symbols, and the libraries that it is linked with.
    pub(super) fn add_program(&mut self, program: &Path, name: &str) -> Result<()> {
        let to = self.root.folder.join("bin").join(name);
        output_of(Command::new("strip").arg("-o").arg(&to).arg(program))?;
        // A program that is linked statically has none: ldd then says so by its status.
        let libraries = Command::new("ldd").arg(program).output().context("running ldd")?;
        for line in String::from_utf8_lossy(&libraries.stdout).lines() {
            let path = line.split_once("=>").map_or(line, |(_, path)| path).split_whitespace().next().unwrap_or("");
            if path.starts_with('/') && !self.root.folder.join(&path[1..]).exists() {
                self.root.add_file(Path::new(path), path)?;
            }
        }
        Ok(())
    }

    /// Starts it with `script`, which is followed by a power-off; answers what it printed.
    pub(super) fn run(&self, script: &str, limit: Duration, verbose: bool) -> Result<String> {
        self.root.set_init(&format!("{script}\nsync\npoweroff -f"))?;
        let initrd = self.root.pack()?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-cpu", "EPYC-Rome", "-nodefaults", "-display", "none"]);
        command.arg("-m").arg(self.memory_mib.to_string());
        for disk in &self.disks {
            // What is lost with the host's power is made again.
            command.arg("-drive").arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()));
        }
        command.args(["-serial", "stdio", "-no-reboot", "-append", APPEND]);
        command.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(initrd);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("running qemu-system-x86_64")?;
        let mut pipe = child.stdout.take().context("qemu has no output")?;
        let reader = std::thread::spawn(move || {
            let (mut output, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                output.extend_from_slice(&buffer[..count]);
                if verbose {
                    print!("{}", String::from_utf8_lossy(&buffer[..count]));
                }
            }
            output
        });
        let start = Instant::now();
        let in_time = loop {
            if child.try_wait()?.is_some() {
                break true;
            }
            if start.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                break false;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let output = reader.join().map_err(|_| anyhow::anyhow!("the reader of qemu's output failed"))?;
        let mut text = String::from_utf8_lossy(&output).replace('\r', "");
        if !in_time {
            writeln!(text, "(ended after {} s)", limit.as_secs())?;
        }
        Ok(text)
    }
}
