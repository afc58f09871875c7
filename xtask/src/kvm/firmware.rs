//! A machine that starts as a PC does, nested: UEFI firmware (Debian's OVMF) finds systemd's boot loader on a disk, and that a kernel; the kernel sets a variable
//! of the firmware's, which is there when the machine is started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::first::{First, Root};
use super::machine::isomorph;
use super::{LIMIT, tell_tail};
use crate::run::{Counts, StepFailure, run};
use crate::workspace;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const LOADER: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const VARIABLE: &str = "/vars/Remembered-6a2c1f5e-1b0a-4c53-9d4b-0c5a8d1f7e21";
/// Where the only partition begins, in sectors of 512 bytes.
const PARTITION_START: u32 = 2048;
const PARTITION_MIB: u32 = 48;

/// qemu's emulation of SVM ends the process when a guest writes CR8 while an interrupt waits for it, which firmware does at the end of its handlers: once those take
/// longer than the time between two ticks, of which there are a hundred a second. So KVM of the first level is told to have fewer.
const TICK_US: u32 = 50_000;
const START: &str = "\
start() {
    isomorph run --firmware /OVMF_CODE_4M.fd --variables /own.fd --disk /uefi.img --cpus 2 --memory 256M --no-network --stats < /dev/null
    echo \"STATUS $1 $?\"
}
start one
start two
";

/// The variable begins with its attributes: kept, and there at boot and at run time.
fn guest_script() -> String {
    format!(
        r#"
mkdir /vars
mount -t efivarfs efivarfs /vars && echo "GUEST-VARIABLE $(dd if={VARIABLE} bs=1 skip=4 2>/dev/null)"
printf '\007\000\000\000words in flash' > {VARIABLE} && echo GUEST-SET
echo "GUEST-EFI $(cat /sys/firmware/efi/fw_platform_size) CPUS $(nproc)"
dmesg | grep -i 'acpi.*error'
poweroff -f"#
    )
}

/// A disk with a table of partitions, and on its only one what firmware starts.
fn disk(first: &First) -> Result<PathBuf> {
    let mut guest = Root::new("guest-uefi")?;
    guest.add_modules(&first.kernel, &["fs/efivarfs/efivarfs.ko"])?;
    guest.set_init(&guest_script())?;
    let initrd = guest.pack()?;
    let folder = workspace::target().join("nested");
    let disk = folder.join("uefi.img");
    let entry = folder.join("linux.conf");
    fs::write(&entry, "title Linux\nlinux /vmlinuz\ninitrd /initrd\noptions console=ttyS0 quiet panic=-1\n")?;
    let settings = folder.join("loader.conf");
    fs::write(&settings, "timeout 0\n")?;
    fs::File::create(&disk)?.set_len(u64::from(PARTITION_MIB + 2) << 20)?;
    let partition = format!("{}@@{}", disk.display(), PARTITION_START * 512);
    let table = format!("label: gpt\nstart={PARTITION_START}, size={}, type=uefi\n", PARTITION_MIB * 2048);
    let script = folder.join("partitions");
    fs::write(&script, table)?;
    run(Command::new("sh")
        .args(["-c", "sfdisk --quiet --no-reread --no-tell-kernel \"$0\" < \"$1\""])
        .arg(&disk)
        .arg(&script)
        .env("PATH", concat!("/usr/sbin:/sbin:", "/usr/bin:/bin")))?;
    let sectors = (PARTITION_MIB * 2048).to_string();
    run(Command::new("mformat").args(["-i", &partition, "-F", "-T", &sectors, "::"]))?;
    for name in ["EFI", "EFI/BOOT", "loader", "loader/entries"] {
        run(Command::new("mmd").args(["-i", &partition, &format!("::{name}")]))?;
    }
    let kernel = first.kernel.image();
    let files: [(&Path, &str); 5] = [
        (Path::new(LOADER), "EFI/BOOT/BOOTX64.EFI"),
        (&settings, "loader/loader.conf"),
        (&entry, "loader/entries/linux.conf"),
        (&kernel, "vmlinuz"),
        (&initrd, "initrd"),
    ];
    for (from, to) in files {
        run(Command::new("mcopy").args(["-i", &partition]).arg(from).arg(format!("::{to}")))?;
    }
    Ok(disk)
}

/// Starts it twice.
pub(super) fn boot(verbose: bool) -> Result<Counts, StepFailure> {
    let mut first = First::new("uefi")?;
    first.add_program(&isomorph()?, "isomorph")?;
    first.root.add_file(Path::new(CODE), "OVMF_CODE_4M.fd")?;
    first.root.add_file(Path::new(VARIABLES), "OVMF_VARS_4M.fd")?;
    first.root.add_file(&disk(&first)?, "uefi.img")?;
    let script = format!("echo {TICK_US} > /sys/module/kvm/parameters/min_timer_period_us\n{START}");
    let start = Instant::now();
    let output = first.run(&script, LIMIT, verbose)?;
    // What the firmware prints moves the cursor about.
    let expected =
        ["GUEST-SET", "GUEST-EFI 64 CPUS 2", "STATUS one 0", "GUEST-VARIABLE words in flash", "STATUS two 0"];
    let missing: Vec<_> = expected.iter().filter(|words| !output.lines().any(|line| line.ends_with(**words))).collect();
    if !missing.is_empty() {
        tell_tail(&output);
        return Err(anyhow::anyhow!("the nested machine does not say {missing:?}").into());
    }
    println!("    firmware, boot loader and kernel twice: {:.1} s in all", start.elapsed().as_secs_f64());
    Ok(Counts::ONE_PASSED)
}
