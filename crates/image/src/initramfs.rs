//! The smallest initramfs that mounts the root file system: busybox, the modules on the way to the disk, and a script.
//!
//! The archive is not compressed: unpacking would cost the guest more than reading costs the host.

use crate::cpio::Archive;
use crate::elf_module::shrunk;
use crate::error::Error;

/// The modules without which there is no root file system, after that of the bus.
pub(crate) const MODULES: &[&str] = &["virtio_blk", "ext4"];
/// Modules that every start loads sooner or later. Out of the initramfs they need not be decompressed by the guest.
pub(crate) const USEFUL_MODULES: &[&str] = &["virtio_net", "virtio_rng", "autofs4", "ip_tables", "af_packet", "8021q"];

/// What the script uses of busybox.
const APPLETS: &[&str] = &["findfs", "insmod", "mount", "sh", "sleep", "switch_root", "umount"];

/// `root=` may be a device, `LABEL=...` or `UUID=...`. Where there is no root file system, the user gets a shell to look around in.
const INIT: &str = r#"#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in /modules/*; do insmod "$module"; done
root= init=/sbin/init mode=ro type=ext4 flags=
read -r line < /proc/cmdline
for word in $line; do
	case $word in
	root=*) root=${word#root=} ;;
	rootfstype=*) type=${word#rootfstype=} ;;
	rootflags=*) flags=,${word#rootflags=} ;;
	init=*) init=${word#init=} ;;
	rw | ro) mode=$word ;;
	esac
done
tries=0
while :; do
	case $root in
	LABEL=* | UUID=*) device=$(findfs "$root") ;;
	*) device=$root ;;
	esac
	[ -b "$device" ] && break
	tries=$((tries + 1))
	[ $tries -gt 100 ] && break
	sleep 0.05
done
if ! mount -t "$type" -o "$mode$flags" "$device" /root; then
	echo "initramfs: cannot mount root=$root; give a root= on the kernel command line, or look around"
	exec sh
fi
mount -o move /dev /root/dev
umount /proc
exec switch_root /root "$init"
"#;

/// The archive, of busybox and the modules in the order to load them in, each with its name.
pub(crate) fn build(busybox: &[u8], modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::new();
    for directory in ["bin", "dev", "modules", "proc", "root"] {
        archive.directory(directory);
    }
    // The kernel opens the console before the script can mount /dev.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.file("bin/busybox", 0o755, busybox);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    for (place, (name, bytes)) in modules.iter().enumerate() {
        archive.file(&format!("modules/{place:02}-{name}.ko"), 0o644, &shrunk(bytes)?);
    }
    archive.file("init", 0o755, INIT.as_bytes());
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program;

    #[test]
    fn the_script_is_a_script() {
        let shell = program::find("sh", "dash").unwrap();
        program::run(program::command(&shell).args(["-n", "-c", INIT])).unwrap();
    }
}
