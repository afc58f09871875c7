//! `cargo xtask bench network` and `disk`: what devices carry, from inside Debian, on Isomorph and on qemu-system-riscv64.
//!
//! The guest's side is the program of the device stress (`crates/isomorph/tests/programs/stress.c`), so what is measured is compared byte for byte too. Networks
//! are each monitor's own, without privilege (NAT on Isomorph, slirp on qemu); the other end of a stream is a program on this host. Disks are files in
//! this host's page cache, unless the name says otherwise. Beside each time stands the processor time that the monitor had meanwhile, the guest's included.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Figure;
use crate::guest::{Debian, Guest};
use crate::{run, workspace};

const PEER: &str = "qemu-system-riscv64";
const MEMORY: &str = "1G";
/// A stream.
const STREAM_MIB: u32 = 128;
/// The disk that is loaded.
const DISK_BYTES: u64 = 256 << 20;
/// How long each load takes, in seconds.
const LOAD_SECONDS: u32 = 2;
/// Requests at once.
const LOAD_THREADS: u32 = 8;
const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(300);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// The program for guests and for this host, and a disk with the former on it.
struct Stress {
    native: PathBuf,
    disk: PathBuf,
    /// The program's size in bytes; the disk's is whole pages.
    size: u64,
}

impl Stress {
    fn build() -> Result<Self> {
        let source = workspace::root().join("crates/isomorph/tests/programs/stress.c");
        let folder = workspace::target().join("bench");
        std::fs::create_dir_all(&folder)?;
        let (native, disk) = (folder.join("stress"), folder.join("stress.raw"));
        for (compiler, output) in [("cc", &native), ("riscv64-linux-gnu-gcc", &disk)] {
            run::run(Command::new(compiler).args(["-O2", "-static", "-pthread", "-o"]).arg(output).arg(&source))?;
        }
        let size = std::fs::metadata(&disk)?.len();
        std::fs::File::options().write(true).open(&disk)?.set_len(size.next_multiple_of(4096))?;
        Ok(Self { native, disk, size })
    }
}

/// Seconds that something took in a guest, and the processor seconds that its monitor had.
#[derive(Clone, Copy, Debug)]
struct Took {
    seconds: f64,
    processor_seconds: f64,
}

impl Took {
    const NEVER: Self = Self { seconds: f64::MAX, processor_seconds: f64::MAX };

    /// The quicker one.
    fn least(self, other: Self) -> Self {
        if other.seconds < self.seconds { other } else { self }
    }
}

/// A machine that is logged in and has the program.
struct Machine {
    guest: Guest,
    name: &'static str,
}

impl Machine {
    fn start(name: &'static str, command: &mut Command, debian: &Debian, stress: &Stress) -> Result<Self> {
        let mut guest = Guest::start(command)?;
        guest.log_in(debian.password())?;
        // What the boot has left to do is not what is measured.
        guest.run("systemctl is-system-running --wait > /dev/null; true", LONG)?;
        let mut machine = Self { guest, name };
        let disk = machine.disk(1)?;
        machine.guest.run(&format!("head -c {} {disk} > /run/stress && chmod +x /run/stress", stress.size), SOON)?;
        Ok(machine)
    }

    /// What the guest calls the disk with this number; the monitors do not agree on an order.
    fn disk(&mut self, number: usize) -> Result<String> {
        let found =
            self.guest.run(&format!("grep -lx {} /sys/block/*/serial | cut -d / -f 4", serial(number)), SOON)?;
        Ok(format!("/dev/{}", found.trim()))
    }

    /// Runs the program, which says what it has done and the seconds that it took.
    fn stress(&mut self, arguments: &str) -> Result<(f64, Took)> {
        let before = self.guest.processor_seconds()?;
        let said = self.guest.run(&format!("/run/stress {arguments}"), LONG)?;
        let after = self.guest.processor_seconds()?;
        let words: Vec<_> = said.split_whitespace().collect();
        let ["ok", done, seconds] = words[..] else { bail!("{}: stress {arguments}: {said}", self.name) };
        let number = |text: &str| text.parse::<f64>().with_context(|| format!("{}: stress said {said}", self.name));
        Ok((number(done)?, Took { seconds: number(seconds)?, processor_seconds: after - before }))
    }

    /// A stream from the guest, or to it.
    fn stream(&mut self, sends: bool, port: u16, stress: &Stress) -> Result<Took> {
        let (here, there) = if sends { ("receive", "send") } else { ("send", "receive") };
        let mib = STREAM_MIB.to_string();
        let port = port.to_string();
        let mut command = Command::new(&stress.native);
        command.args([here, "0.0.0.0", &port, &mib]).stdout(Stdio::null());
        let mut other = Ended(command.spawn().context("starting the other end")?);
        // It listens at once; a guest that is refused has come too early.
        std::thread::sleep(Duration::from_millis(200));
        let took = self.stress(&format!("{there} {GATEWAY} {port} {mib}"))?.1;
        let status = other.0.wait()?;
        if !status.success() {
            bail!("{}: the other end of the stream ended with {status}", self.name);
        }
        Ok(took)
    }
}

/// A program that ends when this value does.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody has now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn gbit(took: Took) -> f64 {
    f64::from(STREAM_MIB) * 8.0 * 1.048_576e-3 / took.seconds
}

fn streams_figure(name: String, ours: Took, peer: Took, peer_name: &'static str) -> Figure {
    let note = format!(
        "{STREAM_MIB} MiB; {:.2} Gbit/s with {:.2} processor s, peer {:.2} with {:.2}",
        gbit(ours),
        ours.processor_seconds,
        gbit(peer),
        peer.processor_seconds
    );
    Figure { name, unit: "s", ours: ours.seconds, peer: peer.seconds, peer_name, note }
}

/// The ways into the network: names, flags of ours, and a device of qemu's.
const CARDS: [(&str, &[&str], &str); 3] = [
    ("virtio", &[], "virtio-net-device,netdev=n"),
    ("virtio-pci", &["--virtio", "pci"], "virtio-net-pci,netdev=n"),
    ("e1000", &["--nic", "e1000"], "e1000,netdev=n"),
];

/// Streams out of a guest and into it, by each card.
pub(super) fn network(rounds: u32) -> Result<Vec<Figure>> {
    let (debian, stress) = (Debian::find_or_pull()?, Stress::build()?);
    let mut figures = Vec::new();
    let mut virtio: Option<[Took; 2]> = None;
    for (card, flags, device) in CARDS {
        let mut command = debian.ours("bench-network", 2, MEMORY);
        command.args(flags).arg("--disk").arg(format!("{},readonly", stress.disk.display()));
        let mut ours = Machine::start("isomorph", &mut command, &debian, &stress)?;
        let mut command = debian.qemu_with(2, MEMORY, device);
        add_disk(&mut command, &stress.disk, 1, "readonly=on");
        let mut peer = Machine::start(PEER, &mut command, &debian, &stress)?;
        let mut best = [[Took::NEVER; 2]; 2];
        for _ in 0..rounds.max(1) {
            for (direction, sends) in [true, false].into_iter().enumerate() {
                let [our_best, peer_best] = &mut best[direction];
                *our_best = our_best.least(ours.stream(sends, free_port()?, &stress)?);
                *peer_best = peer_best.least(peer.stream(sends, free_port()?, &stress)?);
            }
        }
        for ([ours, peer], verb) in best.iter().zip(["send", "receive"]) {
            figures.push(streams_figure(format!("network {card} {verb}"), *ours, *peer, PEER));
        }
        let mine = [best[0][0], best[1][0]];
        match virtio {
            None => virtio = Some(mine),
            Some(virtio) if card == "e1000" => {
                for ((ours, peer), verb) in mine.iter().zip(virtio).zip(["send", "receive"]) {
                    figures.push(streams_figure(format!("e1000 beside virtio {verb}"), *ours, peer, "virtio"));
                }
            }
            Some(_) => {}
        }
    }
    Ok(figures)
}

/// What Isomorph calls a machine's disks.
fn serial(number: usize) -> String {
    format!("isomorph-{number}")
}

/// Gives qemu a disk.
fn add_disk(command: &mut Command, file: &Path, number: usize, options: &str) {
    command.arg("-drive").arg(format!("file={},format=raw,if=none,id=n{number},{options}", file.display()));
    command.arg("-device").arg(format!("virtio-blk-device,drive=n{number},serial={}", serial(number)));
}

/// Random requests of both directions and sizes, in the page cache and past it.
pub(super) fn disk(rounds: u32) -> Result<Vec<Figure>> {
    let (debian, stress) = (Debian::find_or_pull()?, Stress::build()?);
    let scratch = |name: &str| -> Result<PathBuf> {
        let path = workspace::target().join("bench").join(name);
        // Written out, so that no request has to find space first.
        let chunk = vec![0x5a; 1 << 20];
        let mut file = std::fs::File::create(&path).with_context(|| format!("making {}", path.display()))?;
        for _ in 0..DISK_BYTES >> 20 {
            std::io::Write::write_all(&mut file, &chunk)?;
        }
        file.sync_all()?;
        Ok(path)
    };
    let (cached, direct) = (scratch("cached.raw")?, scratch("direct.raw")?);
    let mut command = debian.ours("bench-disk", 2, MEMORY);
    command.arg("--disk").arg(format!("{},readonly", stress.disk.display()));
    command.arg("--disk").arg(&cached).arg("--disk").arg(format!("{},cache=none", direct.display()));
    let mut ours = Machine::start("isomorph", &mut command, &debian, &stress)?;
    let (cached, direct) = (scratch("cached-peer.raw")?, scratch("direct-peer.raw")?);
    let mut command = debian.qemu(2, MEMORY);
    add_disk(&mut command, &stress.disk, 1, "readonly=on");
    add_disk(&mut command, &cached, 2, "cache=writeback");
    add_disk(&mut command, &direct, 3, "cache=none,aio=io_uring");
    let mut peer = Machine::start(PEER, &mut command, &debian, &stress)?;
    let mut figures = Vec::new();
    for (number, place) in [(2, "cached"), (3, "cache=none")] {
        let devices = [ours.disk(number)?, peer.disk(number)?];
        for (verb, kib) in [("read", 4), ("write", 4), ("read", 128), ("write", 128)] {
            let mut best = [(f64::MAX, 0.0, 0.0); 2];
            for _ in 0..rounds.max(1) {
                let machines = [&mut ours, &mut peer].into_iter().zip(&devices);
                for ((machine, device), best) in machines.zip(&mut best) {
                    let (count, took) =
                        machine.stress(&format!("load {device} {kib} {LOAD_THREADS} {LOAD_SECONDS} {verb}"))?;
                    let each = took.seconds * 1e6 / count;
                    if each < best.0 {
                        let mib = count * f64::from(kib) / 1024.0 / took.seconds;
                        *best = (each, mib, took.processor_seconds * 1e6 / count);
                    }
                }
            }
            let [(ours, our_rate, our_time), (peer, peer_rate, peer_time)] = best;
            let note = format!(
                "each of {LOAD_THREADS} at once; {our_rate:.0} MiB/s with {our_time:.0} us of processor time each, peer {peer_rate:.0} with {peer_time:.0}"
            );
            let name = format!("disk {verb} {kib}k {place}");
            figures.push(Figure { name, unit: "us", ours, peer, peer_name: PEER, note });
        }
    }
    Ok(figures)
}
