//! A whole x86-64 machine, nested: `isomorph run` boots Debian's kernel as it is, with two processors, to a user space on its disk that uses its network. A snapshot
//! is taken of it on the way, and another machine goes on from there. A third one has its I/O APIC in user space.
//!
//! The figures are those of the same kernel and user space on each monitor: wall-clock seconds of the first-level machine and KVM's own count of exits until user
//! space; memory that the monitor's process has beside the guest's RAM.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::first::First;
use super::second::{self, DISK_MODULES_COUNT, MODULES};
use super::{LIMIT, Options, tell_tail};
use crate::run::{Counts, StepFailure, run};
use crate::setup::find_program;
use crate::workspace;

const SCRATCH_BYTES: u64 = 16 << 20;
/// Without PCI, virtio devices are found by ACPI: a peer's machine.
const MODULE_MMIO: &str = "drivers/virtio/virtio_mmio.ko";
const DISK_TEXT: &str = "words on a disk";
pub(super) const PAGE_TEXT: &str = "words from a server";

/// The second-level user space. It says a word for everything that has worked.
const GUEST: &str = r#"
generation() { echo "$(devmem 0xfeffb000 64) event $(cut -c 1-8 /sys/firmware/acpi/interrupts/gpe05)"; }
# It is drawn when it is asked for first.
cat /proc/sys/kernel/random/boot_id > /dev/null
echo "GUEST-ONCE $(generation)"
echo GUEST-UP
# Something is being written when the snapshot is taken; what is then read comes from the disk.
rm -f /quiet /log
(count=0; until [ -e /quiet ]; do count=$((count + 1)); echo $count >> /log; sync; done; echo $count > /count) &
sleep 2
touch /quiet
wait
sync
echo 3 > /proc/sys/vm/drop_caches
echo "GUEST-LOG $(seq $(cat /count) | cmp - /log && echo whole) of $(cat /count)"
echo "GUEST-CPUS $(nproc)"
echo "GUEST-ROOT $(awk '$2 == "/" { root = $1 " " $3 } END { print root }' /proc/mounts)"
echo "GUEST-DISK $(cat /text)"
ifconfig lo up
ifconfig eth0 up
udhcpc -i eth0 -n -q -s /etc/udhcpc >/dev/null 2>&1
echo "GUEST-PAGE $(wget -q -O - http://10.0.2.2:8000/page)"
[ -e /dev/vdb ] && echo "GUEST-STRESSED disk $(stress disk /dev/vdb 8 4 1 7)"
[ -e /dev/vdb ] && echo "GUEST-STRESSED send $(stress send 10.0.2.2 8001 4)"
[ -e /dev/vdb ] && echo "GUEST-STRESSED receive $(stress receive 10.0.2.2 8002 4)"
grep -E 'ACPI|MSI|IO-APIC' /proc/interrupts
echo "GUEST-BOOT $(cat /proc/sys/kernel/random/boot_id)"
echo "GUEST-THEN $(generation)"
echo GUEST-DOWN
"#;

/// The other ends of the device stress, in the first-level machine.
const OTHER_ENDS: &str = "\
other_ends() {
    stress receive 0.0.0.0 8001 4 > /dev/null &
    stress send 0.0.0.0 8002 4 > /dev/null &
}
other_ends
";

/// What is done with a machine once its user space is up: it goes on, and beside it there is a snapshot of it, and of its disks as they were then.
const TAKE_SNAPSHOT: &str = "\
export ISOMORPH_HOME=/tmp/home
take_snapshot() {
    isomorph pause first && isomorph snapshot create first /snapshot && cp /disk.img /then.img && cp /dev/vda /then2.img
    isomorph resume first && echo SNAPSHOT-TAKEN
}
";

/// Another machine goes on from the snapshot.
const GO_ON: &str = "\
isomorph snapshot inspect --verify /snapshot
echo \"REFUSED $(isomorph run /snapshot 2>&1 < /dev/null)\"
other_ends
start=$(seconds)
isomorph run --disk /then.img --disk /then2.img /snapshot > /tmp/second.out 2>&1 < /dev/null
echo \"STATUS second $? after $start $(seconds)\"
sed 's/^/second: /' /tmp/second.out
rm -r /snapshot /then.img /then2.img
";

/// Starts a monitor in the background, waits for the guest's user space, and tells of both.
const MEASURE: &str = r#"
mount -t debugfs debugfs /sys/kernel/debug
ifconfig lo up
httpd -p 127.0.0.1:8000 -h /www
seconds() { cut -d ' ' -f 1 /proc/uptime; }
exits() { cat /sys/kernel/debug/kvm/exits; }
# NAME COMMAND...
measure() {
    name=$1; shift
    profile begin
    before=$(exits); start=$(seconds)
    "$@" > /tmp/$name.out 2>&1 < /dev/null &
    pid=$!
    until grep -q GUEST-UP /tmp/$name.out || ! kill -0 $pid 2>/dev/null; do usleep 20000; done
    echo "MEASURED $name seconds $start $(seconds) exits $before $(exits)"
    [ $name = isomorph ] && take_snapshot
    profile "$name"
    awk -v ram=$((200 * 1024)) '/^[0-9a-f]+-/ { large = 0 } /^Size:/ { large = $2 >= ram } /^Rss:/ && !large { sum += $2 } END { print "MONITOR '$name' kB", sum }' /proc/$pid/smaps
    awk -v ram=$((200 * 1024)) '/^[0-9a-f]+-/ { name = $6; large = 0 } /^Size:/ { large = $2 >= ram } /^Anonymous:/ && !large { sum += $2 } END { print "MONITOR-OWN '$name' kB", sum }' /proc/$pid/smaps
    # That monitor has no way for a guest to power off.
    [ $name = firecracker ] && kill $pid
    wait $pid
    echo "STATUS $name $?"
    sed "s/^/$name: /" /tmp/$name.out
}
"#;

/// Our own program, built: as the tests build it, since a package alone would have its dependencies built once more, with other features.
pub(super) fn isomorph() -> Result<PathBuf> {
    run(workspace::cargo().args(["build", "--locked", "--workspace", "--bin", "isomorph"]))?;
    Ok(workspace::target().join("debug/isomorph"))
}

/// Counts what KVM does, by what: the kernel's tracer keeps the tables.
const PROFILE: &str = r#"
mount -t tracefs tracefs /sys/kernel/tracing
events="kvm_exit:exit_reason kvm_userspace_exit:reason kvm_pio:rw,port kvm_mmio:type,gpa.hex kvm_msr:write,ecx.hex kvm_cpuid:function.hex kvm_hypercall:nr kvm_page_fault:error_code.hex"
profile() {
    for each in $events; do
        event=/sys/kernel/tracing/events/kvm/${each%%:*}
        trigger="hist:keys=${each#*:}:sort=hitcount.descending:size=4096"
        if [ "$1" = begin ]; then
            echo "$trigger" > $event/trigger
        else
            head -n 24 $event/hist | grep '^{' | sed "s/^/EXITS $1 ${each%%:*} /"
            echo "!$trigger" > $event/trigger
        fi
    done
}
"#;

/// Boots it; with `peers`, others beside it.
pub(super) fn boot(options: &Options) -> Result<Counts, StepFailure> {
    let mut first = First::new("machine")?;
    let program = options.program.clone().map_or_else(isomorph, Ok)?;
    first.add_program(&program, "isomorph")?;
    first.root.add_file(&first.kernel.image(), "vmlinuz")?;
    let stress = second::stress()?;
    first.root.add_file(&stress, "bin/stress")?;
    let guest = second::on_disk("guest", &first.kernel, &[MODULE_MMIO], &stress, ("text", DISK_TEXT), GUEST)?;
    first.root.add_file(&guest.initrd, "guest.cpio")?;
    first.root.add_file(&guest.disk, "disk.img")?;
    // The disk of the stress is one of the first level's, past whose page cache the host's kernel moves the data by itself (io_uring).
    first.root.add_modules(&first.kernel, &MODULES[..DISK_MODULES_COUNT])?;
    let scratch = workspace::target().join("nested/scratch.img");
    fs::File::create(&scratch).and_then(|file| file.set_len(SCRATCH_BYTES)).context("making a disk")?;
    first.disks.push(scratch);
    let www = first.root.folder.join("www");
    fs::create_dir_all(&www).context("making a folder")?;
    fs::write(www.join("page"), PAGE_TEXT).context("writing a page")?;

    let append = "console=ttyS0 quiet panic=-1";
    let mut script = if options.exits { PROFILE } else { "profile() { :; }\n" }.to_owned();
    script += MEASURE;
    script += OTHER_ENDS;
    script += TAKE_SNAPSHOT;
    script += &format!(
        "measure isomorph isomorph run --name first --kernel /vmlinuz --initrd /guest.cpio --disk /disk.img --disk /dev/vda,cache=none --cpus 2 --memory 256M --append '{append}' --stats\n"
    );
    script += GO_ON;
    script += &format!(
        "measure split isomorph run --irqchip split --kernel /vmlinuz --initrd /guest.cpio --disk /disk.img --cpus 2 --memory 256M --append '{append}'\n"
    );
    if options.peers || options.firecracker.is_some() {
        // The kernel as peers have it that take no compressed one: an ELF file, entered by PVH.
        first.root.add_file(&first.kernel.uncompressed()?, "vmlinux")?;
        script += &format!(
            "measure uncompressed isomorph run --kernel /vmlinux --initrd /guest.cpio --disk /disk.img --cpus 2 --memory 256M --append '{append}'\n"
        );
    }
    if options.peers {
        add_qemu(&mut first)?;
        script += &format!(
            "measure qemu-microvm qemu-system-x86_64 -M microvm,acpi=on,rtc=on -accel kvm -cpu host -smp 2 -m 256 -nodefaults -no-user-config -display none -serial stdio -no-reboot \
             -kernel /vmlinuz -initrd /guest.cpio -append '{append}' -drive id=d,file=/disk.img,format=raw,if=none -device virtio-blk-device,drive=d \
             -netdev user,id=n -device virtio-net-device,netdev=n -L /usr/share/qemu -L /usr/share/seabios\n"
        );
    }
    if let Some(firecracker) = firecracker(options) {
        first.add_program(&firecracker, "firecracker")?;
        fs::write(first.root.folder.join("firecracker.json"), firecracker_machine(append)).context("writing a file")?;
        script += "measure firecracker firecracker --no-api --no-seccomp --config-file /firecracker.json\n";
    }
    let start = Instant::now();
    let output = first.run(&script, LIMIT, options.verbose)?;
    let took = start.elapsed().as_secs_f64();
    tell(&output)?;
    if let Err(what) = check(&output) {
        tell_tail(&output);
        return Err(anyhow::anyhow!("the nested machines do not say {what}").into());
    }
    println!("    {took:.1} s in all");
    Ok(Counts::ONE_PASSED)
}

/// The monitor that is compared with ours where this host has it: no registry of packages has.
fn firecracker(options: &Options) -> Option<PathBuf> {
    let named = options.firecracker.clone();
    named.or_else(|| if options.peers { find_program("firecracker") } else { None })
}

/// What it is to start: the kernel as all its versions take it, and without a network, for which it wants a device of root's.
fn firecracker_machine(append: &str) -> String {
    serde_json::json!({
        "boot-source": { "kernel_image_path": "/vmlinux", "initrd_path": "/guest.cpio", "boot_args": append },
        "drives": [{ "drive_id": "d", "path_on_host": "/disk.img", "is_root_device": false, "is_read_only": false }],
        "machine-config": { "vcpu_count": 2, "mem_size_mib": 256 },
    })
    .to_string()
}

/// Whether the machines have said all that they should; if not, what they have not.
fn check(output: &str) -> Result<(), String> {
    let said = |machine: &str, words: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(machine)?.strip_prefix(": ")?.strip_prefix(words));
        line.map(str::trim)
    };
    let demand = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
    for machine in ["isomorph", "second", "split"] {
        for (words, rest) in [
            ("GUEST-CPUS", "2"),
            ("GUEST-ROOT", "/dev/vda ext4"),
            ("GUEST-DISK", DISK_TEXT),
            ("GUEST-PAGE", PAGE_TEXT),
            ("GUEST-DOWN", ""),
        ] {
            demand(said(machine, words) == Some(rest), format!("{machine}: {words} {rest}"))?;
        }
        let log = said(machine, "GUEST-LOG").is_some_and(|log| log.starts_with("whole of "));
        demand(log, format!("{machine}: GUEST-LOG whole"))?;
        let status = format!("STATUS {machine} 0");
        demand(output.lines().any(|line| line.starts_with(&status)), status)?;
    }
    for machine in ["isomorph", "second"] {
        for what in ["disk", "send", "receive"] {
            let line = said(machine, &format!("GUEST-STRESSED {what}")).unwrap_or("nothing");
            println!("    {machine}: device stress, {what}: {line} (MiB, seconds)");
            demand(line.starts_with("ok "), format!("{machine}: GUEST-STRESSED {what} ok"))?;
        }
    }
    // The same boot, but of another generation, of which it was told once.
    demand(
        said("isomorph", "GUEST-UP").is_some() && said("second", "GUEST-UP").is_none(),
        "GUEST-UP only once".into(),
    )?;
    demand(said("isomorph", "GUEST-BOOT") == said("second", "GUEST-BOOT"), "the same GUEST-BOOT".into())?;
    let generation = |machine, words| said(machine, words).and_then(|line| line.split_once(" event "));
    let (once, then) = (generation("isomorph", "GUEST-ONCE"), generation("isomorph", "GUEST-THEN"));
    demand(once.is_some() && once == then, "the same generation all the time".into())?;
    let second = generation("second", "GUEST-THEN");
    let is_another = second.zip(once).is_some_and(|((new, _), (old, _))| new != old);
    let events = |told: Option<(&str, &str)>| told.and_then(|(_, count)| count.trim().parse::<u32>().ok());
    demand(is_another && events(second) == Some(1) && events(once) == Some(0), "another generation afterwards".into())?;
    let refused = output.lines().find(|line| line.starts_with("REFUSED ")).unwrap_or_default();
    demand(
        refused.contains("is not as it was when the snapshot was taken"),
        "REFUSED, for a disk that has changed".into(),
    )
}

/// Prints the figures.
fn tell(output: &str) -> Result<()> {
    for line in output.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["MEASURED", name, "seconds", from, to, "exits", before, after] => {
                let number = |text: &str| text.parse::<f64>().with_context(|| format!("in the line {line}"));
                let (seconds, exits) = (number(to)? - number(from)?, number(after)? - number(before)?);
                println!("    {name}: user space after {seconds:.2} s and {exits} exits");
            }
            ["STATUS", name, _, "after", from, to] => {
                let number = |text: &str| text.parse::<f64>().with_context(|| format!("in the line {line}"));
                println!("    {name}: {:.2} s from the snapshot to its end", number(to)? - number(from)?);
            }
            ["EXITS", ..] => println!("    {line}"),
            ["MONITOR", name, "kB", number] => println!("    {name}: {number} kB resident beside the guest's RAM"),
            ["MONITOR-OWN", name, "kB", number] => {
                println!("    {name}: {number} kB of that are its own (not its program's text)")
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds qemu and what its microvm machine starts with.
fn add_qemu(first: &mut First) -> Result<()> {
    first.add_program(Path::new("/usr/bin/qemu-system-x86_64"), "qemu-system-x86_64")?;
    let candidates = [
        "/usr/share/seabios/bios-microvm.bin",
        "/usr/share/qemu/bios-microvm.bin",
        "/usr/share/qemu/linuxboot_dma.bin",
        "/usr/share/qemu/linuxboot.bin",
        "/usr/share/qemu/pvh.bin",
        "/usr/share/qemu/qboot.rom",
    ];
    let there: Vec<_> = candidates.iter().filter(|file| Path::new(file).exists()).collect();
    if there.is_empty() {
        bail!("qemu's firmware is not installed");
    }
    for file in there {
        first.root.add_file(Path::new(file), file)?;
    }
    Ok(())
}
