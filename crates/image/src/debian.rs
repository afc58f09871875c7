//! The recipe of the images `debian` and `debian:amd64`: Debian 13 for 64-bit RISC-V and for x86-64. What differs between them is in [`Port`].
//!
//! What is in it: Debian's essential packages, apt, systemd with its network and name services, the kernel with the modules that such a
//! machine can use, and a few tools. The kernel and an initramfs of our own are taken out of it, for the machine starts with
//! them directly; the kernel package is on hold inside, since upgrading it changes nothing there (a new pull does). What differs from a system
//! that Debian's installer makes is in `OVERLAY`, `SYSTEMD_OVERLAY`, `MASKED`, in `rules` and in `configure.sh`.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::apt::{Apt, Chosen, guest_sources};
use crate::configure::{Configurator, HalfMade, configure};
use crate::database::{self, Unpacked};
use crate::elf_module;
use crate::error::Error;
use crate::filesystem;
use crate::initramfs;
use crate::manifest::{InstalledPackage, Manifest};
use crate::module_index::Modules;
use crate::package::Package;
use crate::port::Port;
use crate::program;
use crate::progress::{Phase, Progress};
use crate::rules;
use crate::sources::{self, Mirror};
use crate::tree::{Content, Owner, Tree, now_s};

pub(crate) const SUITE: &str = "trixie";
const DESCRIPTION: &str = "Debian 13 (trixie)";

/// What is installed, with what it depends on. `?essential` is apt's pattern for the essential packages.
const PACKAGES: &[&str] = &[
    "?essential",
    "apt",
    "busybox-static",
    "ca-certificates",
    "dbus",
    "dhcpcd",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "login",
    "nano",
    "netbase",
    "passwd",
    "procps",
    "systemd-sysv",
    "udev",
];

/// The account at the console.
const USER: &str = "root";
/// Its password. It opens nothing from outside: no service of the image takes logins from the network.
const PASSWORD: &str = "isomorph";
/// Of the kernel's security modules only those that cost nothing unless used: systemd would have the BPF one compile programs at every start, and
/// the others look at every call.
const APPEND: &str = "root=/dev/vda rw console=ttyS0 quiet lsm=landlock,yama";
/// The memory for configuring the packages: 512 MiB.
const MEMORY_BYTES: u64 = 512 << 20;

/// Files that the image has beside those of its packages.
const OVERLAY: &[(&str, &str)] = &[
    ("/etc/hostname", "debian\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("/etc/locale.conf", "LANG=C.UTF-8\n"),
    ("/etc/fstab", "# The root file system is mounted by the initramfs, as root= on the kernel command line says.\n"),
    ("/etc/resolv.conf", "# Written by dhcpcd.\n"),
    ("/etc/apt/apt.conf.d/80isomorph", "Acquire::Languages \"none\";\nAPT::Install-Recommends \"false\";\n"),
];

/// systemd's part of the overlay: the same system, started with a third of the instructions.
const SYSTEMD_OVERLAY: &[(&str, &str)] = &[
    // A line in the journal for every unit that starts and ends costs more than most of the units.
    ("/etc/systemd/system.conf.d/isomorph.conf", "[Manager]\nLogLevel=notice\n"),
    // The journal is kept on disk for those who make /var/log/journal.
    (
        "/etc/systemd/system/systemd-journal-flush.service.d/isomorph.conf",
        "[Unit]\nConditionPathExists=/var/log/journal\n",
    ),
    // Of the some four hundred devices that the kernel knows without udev's help, these are the ones that udev does something for.
    (
        "/etc/systemd/system/systemd-udev-trigger.service.d/isomorph.conf",
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --action=add --subsystem-match=block --subsystem-match=net \
         --subsystem-match=pci --subsystem-match=virtio --subsystem-match=input --subsystem-match=rtc\n\
         ExecStart=-udevadm trigger --action=add --subsystem-match=tty --sysname-match=ttyS[0-3] --sysname-match=hvc*\n",
    ),
    // The prompt comes as soon as it can; then what nobody waits for.
    ("/etc/systemd/system/serial-getty@.service.d/isomorph.conf", "[Service]\nType=simple\n"),
    ("/etc/systemd/system/dbus.service.d/isomorph.conf", "[Unit]\nAfter=getty.target\n"),
    ("/etc/systemd/system/systemd-logind.service.d/isomorph.conf", "[Unit]\nAfter=getty.target\n"),
    // dhcpcd confines itself; systemd's confinement on top would take longer than the lease. The network gives each machine its own
    // address, so nobody else need be asked for it, and there is no crowd to hold back for.
    (
        "/etc/systemd/system/dhcpcd.service",
        "[Unit]\nDescription=DHCP Client Daemon on all interfaces\nWants=network.target\nBefore=network.target\n\n\
         [Service]\nType=forking\nPIDFile=/run/dhcpcd/pid\nExecStart=/usr/sbin/dhcpcd --quiet --background --noarp --nodelay\nExecStop=/usr/sbin/dhcpcd -x\n\
         RuntimeDirectory=dhcpcd\n\n[Install]\nWantedBy=multi-user.target\n",
    ),
];

/// Units and generators that are masked: for hardware that the machine has not got, or for what is seldom wanted and can be had with
/// `systemctl unmask`.
const MASKED: &[&str] = &[
    "system/dev-hugepages.mount",
    "system/modprobe@drm.service",
    "system/proc-sys-fs-binfmt_misc.automount",
    "system/sys-fs-fuse-connections.mount",
    "system/sys-kernel-config.mount",
    "system/sys-kernel-debug.mount",
    "system/sys-kernel-tracing.mount",
    "system/systemd-hibernate-clear.service",
    "system/systemd-pcrmachine.service",
    "system/systemd-pcrphase-sysinit.service",
    "system/systemd-pcrphase.service",
    "system/systemd-tpm2-setup-early.service",
    "system/systemd-tpm2-setup.service",
    "system/systemd-udev-load-credentials.service",
    "system-generators/systemd-gpt-auto-generator",
    "system-generators/systemd-hibernate-resume-generator",
    "system-generators/systemd-ssh-generator",
    "system-generators/systemd-tpm2-generator",
];

/// Where a build happens, and with what.
pub(crate) struct Build<'a> {
    pub(crate) port: Port,
    /// The directory that becomes the image; exists, empty.
    pub(crate) directory: &'a Path,
    /// The cache directory.
    pub(crate) cache: &'a Path,
    /// The size of the image's disk.
    pub(crate) disk_bytes: u64,
    pub(crate) configurator: &'a mut dyn Configurator,
    pub(crate) progress: &'a mut dyn Progress,
}

impl Build<'_> {
    /// Makes the image's files and answers its manifest.
    pub(crate) fn run(self) -> Result<Manifest, Error> {
        let Build { port, directory, cache, disk_bytes, configurator, progress } = self;
        // What is missing on the host is said before anything is fetched.
        let dpkg_deb = program::find("dpkg-deb", "dpkg")?;
        program::find("mke2fs", "e2fsprogs")?;
        program::find("debugfs", "e2fsprogs")?;
        let mirror = sources::host_mirror(Path::new("/etc/apt"), Path::new("/usr/share/keyrings"))?;
        let architecture = port.architecture;
        let apt = Apt::new(&cache.join(format!("apt-{SUITE}-{architecture}")), mirror.clone(), architecture, SUITE)?;
        let wanted: Vec<_> = PACKAGES.iter().copied().chain([port.kernel_package]).collect();
        apt.update(progress)?;
        apt.download(&wanted, progress)?;
        let chosen = apt.resolve(&wanted)?;
        apt.forget_others(&chosen)?;

        let stage = directory.join("stage");
        let tree = Tree::new(stage.clone())?;
        let packages = unpack(&tree, &dpkg_deb, &apt.archives(), &chosen, progress)?;
        progress.phase(Phase::Layout, 4);
        let kernel = Kernel::find(&tree, port)?;
        fs::copy(&kernel.path, directory.join("kernel")).map_err(Error::host("write", &directory.join("kernel")))?;
        let modules = kernel.modules(&tree)?;
        progress.position(1, "kernel modules");
        for (name, bytes) in modules.index_files(&kernel.builtin, &kernel.builtin_info)? {
            tree.write(&format!("{}/{name}", kernel.directory), 0o644, &bytes)?;
        }
        let initrd = kernel.initramfs(&tree, &modules)?;
        fs::write(directory.join("initrd"), &initrd).map_err(Error::host("write", &directory.join("initrd")))?;
        progress.position(2, "initramfs");

        database::write(&tree, &packages)?;
        overlay(&tree, port, &mirror, apt.validity())?;
        let preinst: Vec<_> =
            packages.iter().filter(|p| p.control.file("preinst").is_some()).map(Unpacked::stem).collect();
        tree.write("/isomorph-preinst", 0o644, preinst.join("\n").as_bytes())?;
        progress.position(3, "file system");
        let disk = directory.join("disk.raw");
        filesystem::build(&tree, &disk, disk_bytes)?;
        drop(tree);
        fs::remove_dir_all(&stage).map_err(Error::host("remove", &stage))?;
        progress.position(4, "");

        let append = format!("{APPEND} init=/isomorph-configure panic=-1");
        let machine = HalfMade {
            kind: architecture,
            kernel: &directory.join("kernel"),
            initrd: &directory.join("initrd"),
            disk: &disk,
            append: &append,
            memory_bytes: MEMORY_BYTES,
        };
        let work = packages.iter().filter(|p| p.needs_configuration()).count();
        configure(configurator, &machine, work, progress)?;
        let size = |name: &str| {
            let path = directory.join(name);
            fs::metadata(&path).map(|m| m.len()).map_err(Error::host("look at", &path))
        };
        Ok(Manifest {
            format: 1,
            name: port.name.into(),
            kind: architecture.into(),
            description: DESCRIPTION.into(),
            kernel_version: kernel.version,
            append: APPEND.into(),
            user: USER.into(),
            password: PASSWORD.into(),
            created_s: now_s(),
            kernel_bytes: size("kernel")?,
            initrd_bytes: size("initrd")?,
            disk_bytes: size("disk.raw")?,
            packages: chosen.into_iter().map(|c| InstalledPackage { name: c.name, version: c.version }).collect(),
        })
    }
}

/// Unpacks `chosen` from `archives` into the tree, several at once.
pub(crate) fn unpack(
    tree: &Tree,
    dpkg_deb: &Path,
    archives: &Path,
    chosen: &[Chosen],
    progress: &mut dyn Progress,
) -> Result<Vec<Unpacked>, Error> {
    progress.phase(Phase::Unpack, chosen.len() as u64);
    let mut order: Vec<usize> = (0..chosen.len()).collect();
    // The largest first, so that no thread is left with it at the end.
    order.sort_by_key(|i| std::cmp::Reverse(fs::metadata(archives.join(chosen[*i].file())).map_or(0, |m| m.len())));
    let mut done: Vec<Option<Unpacked>> = chosen.iter().map(|_| None).collect();
    let mut count = 0;
    let mut unpack = |indexes: &[usize]| -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(indexes.len());
        thread::scope(|scope| {
            for _ in 0..threads {
                let (next, sender) = (&next, sender.clone());
                scope.spawn(move || {
                    while let Some(index) = indexes.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let package = Package::new(dpkg_deb, archives.join(chosen[*index].file()));
                        if sender.send((*index, unpack_one(tree, &package, *index))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (index, result) in receiver {
                done[index] = Some(result?);
                count += 1;
                progress.position(count, &chosen[index].name);
            }
            Ok(())
        })
    };
    // The links that merge /bin, /lib and the like with /usr are base-files', so it goes before all others.
    let base = chosen.iter().position(|c| c.name == "base-files");
    let base = base.ok_or_else(|| Error::Unbootable { cause: "no base-files among the packages".into() })?;
    order.retain(|index| *index != base);
    unpack(&[base])?;
    unpack(&order)?;
    Ok(done.into_iter().flatten().collect())
}

fn unpack_one(tree: &Tree, package: &Package<'_>, rank: usize) -> Result<Unpacked, Error> {
    let control = package.control()?;
    let mut paths = Vec::new();
    package.files(|entry| {
        let raw = entry.path_bytes().into_owned();
        let mut path = raw.strip_prefix(b".").unwrap_or(&raw).to_vec();
        while path.last() == Some(&b'/') {
            path.pop();
        }
        paths.push(path.clone());
        let bad = |e: std::io::Error| Error::Unbootable { cause: format!("{}: {e}", String::from_utf8_lossy(&raw)) };
        let header = entry.header();
        let number = |value: std::io::Result<u64>| {
            value.and_then(|v| u32::try_from(v).map_err(std::io::Error::other)).map_err(bad)
        };
        let mode = header.mode().map_err(bad)? & 0o7777;
        let owner = Owner { uid: number(header.uid())?, gid: number(header.gid())?, mode };
        let modified_s = header.mtime().map_err(bad)?;
        let kind = header.entry_type();
        if !kind.is_dir() && rules::leaves_out(&path) {
            return Ok(());
        }
        let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        let content = if kind.is_dir() {
            if rules::leaves_out(&[&*path, b"/"].concat()) {
                return Ok(());
            }
            Content::Directory
        } else if kind.is_file() {
            Content::File(entry)
        } else if kind.is_symlink() {
            Content::Link(&target)
        } else if kind.is_hard_link() {
            Content::HardLink(target.strip_prefix(b".").unwrap_or(&target))
        } else {
            return Err(Error::Unbootable {
                cause: format!("{}: is a device or worse", String::from_utf8_lossy(&raw)),
            });
        };
        tree.add(&path, owner, modified_s, rank, content)
    })?;
    Ok(Unpacked { control, paths })
}

/// The kernel in the tree.
struct Kernel {
    port: Port,
    version: String,
    path: std::path::PathBuf,
    /// The directory of its modules, in the guest.
    directory: String,
    builtin: String,
    builtin_info: Vec<u8>,
}

impl Kernel {
    fn find(tree: &Tree, port: Port) -> Result<Self, Error> {
        let unbootable = |cause: String| Error::Unbootable { cause };
        let nodes = tree.nodes();
        let prefix = format!("/boot/{}", port.kernel_file);
        let version = nodes
            .keys()
            .find_map(|path| String::from_utf8(path.strip_prefix(prefix.as_bytes())?.to_vec()).ok())
            .ok_or_else(|| unbootable("they have no kernel in /boot".into()))?;
        let path = tree.find(format!("{prefix}{version}").as_bytes());
        let path = path.ok_or_else(|| unbootable("the kernel is not a file".into()))?;
        let bytes = fs::read(&path).map_err(Error::host("read", &path))?;
        port.check_kernel(&version, &bytes).map_err(unbootable)?;
        let directory = format!("/usr/lib/modules/{version}");
        let read = |name: &str| match tree.find(format!("{directory}/{name}").as_bytes()) {
            Some(path) => fs::read(&path).map_err(Error::host("read", &path)),
            None => Err(unbootable(format!("kernel {version} has no {name}"))),
        };
        let builtin = String::from_utf8_lossy(&read("modules.builtin")?).into_owned();
        let builtin_info = read("modules.builtin.modinfo")?;
        Ok(Self { port, version, path, directory, builtin, builtin_info })
    }

    /// Its modules: reads all that are in the tree, several at once.
    fn modules(&self, tree: &Tree) -> Result<Modules, Error> {
        let prefix = format!("{}/", self.directory);
        let paths: Vec<String> = tree
            .nodes()
            .into_keys()
            .filter_map(|path| String::from_utf8(path.strip_prefix(prefix.as_bytes())?.to_vec()).ok())
            .filter(|path| elf_module::module_name(path).is_some())
            .collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<_>, Error> {
            let mut read = Vec::new();
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                read.push(elf_module::parse(path, &self.read_module(tree, path)?)?);
            }
            Ok(read)
        };
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let modules = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut modules = Vec::new();
            for worker in workers {
                // A panic of ours goes on in the caller's thread.
                modules.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok::<_, Error>(modules)
        })?;
        let order = match tree.find(format!("{}/modules.order", self.directory).as_bytes()) {
            Some(path) => fs::read_to_string(&path).map_err(Error::host("read", &path))?,
            None => String::new(),
        };
        Ok(Modules::new(modules, &order))
    }

    fn read_module(&self, tree: &Tree, path: &str) -> Result<Vec<u8>, Error> {
        let staged = tree.find(format!("{}/{path}", self.directory).as_bytes());
        elf_module::read(&staged.ok_or_else(|| Error::Unbootable { cause: format!("module {path} is not a file") })?)
    }

    fn initramfs(&self, tree: &Tree, modules: &Modules) -> Result<Vec<u8>, Error> {
        let mut needed = Vec::new();
        let useful = initramfs::USEFUL_MODULES.iter().filter(|name| modules.contains(name));
        let wanted: Vec<_> =
            [self.port.bus_module].into_iter().chain(initramfs::MODULES.iter().chain(useful).copied()).collect();
        for module in modules.closure(&wanted, &self.builtin, true)? {
            needed.push((module.name.clone(), self.read_module(tree, &module.path)?));
        }
        let busybox = tree.find(b"/usr/bin/busybox");
        let busybox = busybox.ok_or_else(|| Error::Unbootable { cause: "they have no busybox".into() })?;
        let busybox = fs::read(&busybox).map_err(Error::host("read", &busybox))?;
        initramfs::build(&busybox, &needed)
    }
}

/// Adds what no package has. `validity` is what the host's apt says about the validity of the mirror's index.
fn overlay(tree: &Tree, port: Port, mirror: &Mirror, validity: &str) -> Result<(), Error> {
    for (path, text) in OVERLAY.iter().chain(SYSTEMD_OVERLAY) {
        tree.write(path, 0o644, text.as_bytes())?;
    }
    for name in MASKED {
        tree.link(&format!("/etc/systemd/{name}"), "/dev/null")?;
    }
    tree.write("/etc/dpkg/dpkg.cfg.d/isomorph", 0o644, rules::configuration().as_bytes())?;
    let keyring = ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"]
        .into_iter()
        .find(|path| tree.find(path.as_bytes()).is_some())
        .ok_or_else(|| Error::Unbootable { cause: "they have no debian-archive-keyring".into() })?;
    let mirror = Mirror {
        archive: without_credentials(&mirror.archive),
        security: mirror.security.as_deref().map(without_credentials),
        keyring: keyring.into(),
    };
    tree.write("/etc/apt/sources.list.d/debian.sources", 0o644, guest_sources(&mirror, SUITE, keyring).as_bytes())?;
    if !validity.is_empty() {
        tree.write("/etc/apt/apt.conf.d/80mirror", 0o644, validity.as_bytes())?;
    }
    certificates(tree)?;
    tree.write("/isomorph-password", 0o600, PASSWORD.as_bytes())?;
    tree.write("/isomorph-hold", 0o644, port.kernel_package.as_bytes())?;
    tree.write("/isomorph-configure", 0o755, include_bytes!("configure.sh"))
}

/// What `update-ca-certificates` makes of the certificates, but for the links by hash, which the guest makes.
fn certificates(tree: &Tree) -> Result<(), Error> {
    let mut bundle = Vec::new();
    for path in tree.nodes().into_keys() {
        let Some(name) = path.strip_prefix(b"/usr/share/ca-certificates/").and_then(|p| p.strip_suffix(b".crt")) else {
            continue;
        };
        let (Ok(path), Ok(name)) = (std::str::from_utf8(&path), std::str::from_utf8(name)) else { continue };
        let Some(file) = tree.find(path.as_bytes()) else { continue };
        let name = name.rsplit('/').next().unwrap_or_default();
        tree.link(&format!("/etc/ssl/certs/{name}.pem"), path)?;
        bundle.extend(fs::read(&file).map_err(Error::host("read", &file))?);
    }
    tree.write("/etc/ssl/certs/ca-certificates.crt", 0o644, &bundle)
}

/// An address without `user:password@`.
fn without_credentials(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.into() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => uri.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_on_the_host() {
        assert_eq!(without_credentials("https://me:secret@m.example/debian"), "https://m.example/debian");
        assert_eq!(without_credentials("http://m.example/~a@b/"), "http://m.example/~a@b/");
        assert_eq!(without_credentials("file:/srv/debian"), "file:/srv/debian");
    }

    #[test]
    fn the_guest_s_script_is_a_script() {
        let shell = program::find("sh", "dash").unwrap();
        program::run(program::command(&shell).args(["-n", "-c", include_str!("configure.sh")])).unwrap();
    }

    #[test]
    fn certificates_are_linked_and_bundled() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path().join("stage")).unwrap();
        tree.write("/usr/share/ca-certificates/mozilla/B.crt", 0o644, b"b\n").unwrap();
        tree.write("/usr/share/ca-certificates/mozilla/A.crt", 0o644, b"a\n").unwrap();
        certificates(&tree).unwrap();
        assert_eq!(fs::read(tree.find(b"/etc/ssl/certs/ca-certificates.crt").unwrap()).unwrap(), b"a\nb\n");
        assert_eq!(fs::read(tree.find(b"/etc/ssl/certs/B.pem").unwrap()).unwrap(), b"b\n");
    }
}
