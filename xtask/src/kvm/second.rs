//! What guests of the second level have in common: their modules, their user space, and the program that loads their devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::first::{Kernel, Root};
use crate::run::run;
use crate::workspace;

/// What a guest needs to see its devices, in the order of loading.
pub(super) const MODULES: [&str; 9] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];
/// How many of them the first level needs for a disk.
pub(super) const DISK_MODULES_COUNT: usize = 6;

/// In `/etc/network`: takes the address that the network gives.
const NETWORK_UP: &str = "\
ifconfig lo up
ifconfig eth0 up
udhcpc -i eth0 -n -q -s /etc/udhcpc >/dev/null 2>&1
";

const DHCP: &str = "#!/bin/sh\n[ \"$1\" = bound ] && ifconfig $interface $ip netmask $subnet && route add default gw $router\nexit 0\n";

/// The program of the device stress, for both levels.
pub(super) fn stress() -> Result<PathBuf> {
    let program = workspace::target().join("nested/stress");
    let source = workspace::root().join("crates/isomorph/tests/programs/stress.c");
    run(Command::new("cc").args(["-O2", "-static", "-pthread", "-o"]).arg(&program).arg(source))?;
    Ok(program)
}

/// A user space by the name of `name`, which lacks what it does.
fn user_space(name: &str, stress: &Path) -> Result<Root> {
    let root = Root::new(name)?;
    root.add_file(stress, "bin/stress")?;
    let client = root.folder.join("etc/udhcpc");
    fs::write(&client, DHCP)?;
    run(Command::new("chmod").arg("755").arg(&client))?;
    fs::write(root.folder.join("etc/network"), NETWORK_UP)?;
    Ok(root)
}

/// Packs a user space for memory that does `script` and powers off, with [`MODULES`] and `more`.
pub(super) fn in_memory(name: &str, kernel: &Kernel, more: &[&str], stress: &Path, script: &str) -> Result<PathBuf> {
    let mut root = user_space(name, stress)?;
    root.add_modules(kernel, &MODULES)?;
    root.add_modules(kernel, more)?;
    root.set_init(&format!("{script}\npoweroff -f"))?;
    root.pack()
}

/// A user space on a disk.
pub(super) struct OnDisk {
    /// What is loaded with the kernel: [`MODULES`], for Debian's kernel has no driver of disks inside, and what goes over to the disk.
    pub(super) initrd: PathBuf,
    /// The disk, which is to be the first: ext4, without partitions.
    pub(super) disk: PathBuf,
}

/// As [`in_memory`], on a disk that has the `file` of a name and a text, too.
pub(super) fn on_disk(
    name: &str,
    kernel: &Kernel,
    more: &[&str],
    stress: &Path,
    (file, text): (&str, &str),
    script: &str,
) -> Result<OnDisk> {
    let mut start = Root::new(&format!("{name}-start"))?;
    start.add_modules(kernel, &MODULES)?;
    start.add_modules(kernel, more)?;
    fs::create_dir_all(start.folder.join("disk"))?;
    start.set_init("mount -t ext4 /dev/vda /disk && exec switch_root -c /dev/console /disk /init")?;
    let root = user_space(name, stress)?;
    fs::write(root.folder.join(file), text)?;
    root.set_init(&format!("{script}\nmount -o remount,ro /\npoweroff -f"))?;
    let disk = root.folder.with_extension("img");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    run(Command::new(mke2fs()).args(["-q", "-t", "ext4", "-d"]).arg(&root.folder).arg(&disk).arg("16M"))?;
    Ok(OnDisk { initrd: start.pack()?, disk })
}

/// The program that makes file systems, which need not be in a user's `PATH`.
pub(super) fn mke2fs() -> &'static str {
    let places = ["/usr/sbin/mke2fs", "/sbin/mke2fs"];
    places.into_iter().find(|path| Path::new(path).exists()).unwrap_or("mke2fs")
}
