//! The device stress, on Debian: disks are written at random, flushed and read back, and TCP streams go in both directions and are compared, on every
//! transport and network card.
//!
//! `tests/programs/stress.c` is the guest's side. It comes into the guest as a disk, so nothing needs to be installed there.

mod guest;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use guest::{Session, isomorph, pull_debian};

const PASSWORD: &str = "isomorph";
const BOOT: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(300);
const STREAM_MIB: usize = 32;

/// The stress program for the guest, in a file that is a disk, and its size in bytes.
fn program(folder: &Path) -> (PathBuf, u64) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/stress.c");
    let path = folder.join("program.raw");
    let mut compiler = Command::new("riscv64-linux-gnu-gcc");
    let output = guest::output(compiler.args(["-O2", "-static", "-pthread", "-o"]).args([&path, &source]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let size = std::fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(size.next_multiple_of(4096)).unwrap();
    (path, size)
}

/// As in the guest's program.
fn stream_byte(n: usize) -> u8 {
    let n = (n % (1 << 16)) + (n & !0xf_ffff);
    u8::try_from((n * 167 + (n >> 8) * 13 + (n >> 20)) & 0xff).unwrap()
}

/// Takes one stream from the guest, and compares it; or gives it one.
fn other_end(gives: bool) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bytes: Vec<u8> = (0..STREAM_MIB << 20).map(stream_byte).collect();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        if gives {
            stream.write_all(&bytes).unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"k", "the guest has all of it");
        } else {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == bytes, "{} bytes came, and not all are right", got.len());
            stream.write_all(b"k").unwrap();
        }
    };
    (port, thread::spawn(serve))
}

/// Boots Debian with `flags`, stresses what it has, and powers it off. The interface's driver must be `driver`.
fn stress(name: &str, flags: &[&str], driver: &str) {
    pull_debian();
    let folder = tempfile::tempdir().unwrap();
    let (program, size) = program(folder.path());
    let scratch = folder.path().join("scratch.raw");
    File::create(&scratch).unwrap().set_len(64 << 20).unwrap();
    let mut command = isomorph();
    command.args(["run", "debian", "--rm", "--name", name]).args(flags);
    command.arg("--disk").arg(&scratch).arg("--disk").arg(&program);
    let mut debian = Session::start(&mut command);
    debian.log_in(PASSWORD, BOOT);
    debian.run(&format!("head -c {size} /dev/vdc > stress && chmod +x stress"), SOON);
    let said = debian.run("./stress disk /dev/vdb 64 8 2 77", LONG);
    assert!(said.starts_with("ok ") || said.contains("\nok "), "{said}");
    let interface = debian.run("basename $(echo /sys/class/net/e*)", SOON).trim().to_owned();
    let found = debian.run(&format!("basename $(readlink /sys/class/net/{interface}/device/driver)"), SOON);
    assert_eq!(found.trim(), driver);
    let address = debian.run(&format!("ip -4 -o -color=never address show {interface}"), SOON);
    assert!(address.contains("10.0.2.15/24") && address.contains("dynamic"), "by DHCP: {address}");
    for (gives, verb) in [(false, "send"), (true, "receive")] {
        let (port, server) = other_end(gives);
        let said = debian.run(&format!("./stress {verb} 10.0.2.2 {port} {STREAM_MIB}"), LONG);
        println!("{name}: {verb}: {}", said.trim());
        assert!(said.contains("ok "), "{said}");
        server.join().unwrap();
    }
    let errors = debian.run(&format!("cat /sys/class/net/{interface}/statistics/*_errors | sort -u"), SOON);
    assert_eq!(errors.trim(), "0", "no frame was lost or wrong");
    debian.send("poweroff\n");
    assert_eq!(debian.wait(BOOT).code(), Some(0), "{}", debian.text());
}

#[test]
fn guest_devices_over_mmio_bear_stress() {
    stress("stress-mmio", &["--cpus", "2"], "virtio_net");
}

#[test]
fn guest_devices_over_pci_bear_stress() {
    stress("stress-pci", &["--virtio", "pci", "--cpus", "2"], "virtio_net");
}

#[test]
fn guest_e1000_bears_stress() {
    stress("stress-e1000", &["--nic", "e1000", "--cpus", "2"], "e1000");
}

#[test]
fn guest_e1000_bears_stress_beside_virtio_on_one_bus() {
    stress("stress-both", &["--nic", "e1000", "--virtio", "pci"], "e1000");
}
