//! Pulls the image for real: packages from the mirror that the host's apt is configured with, configured in a machine of qemu's.
//!
//! Ignored by default, for it takes minutes and the network. `IMAGE_TEST_HOME` names a directory to build in and to leave the image in, for other
//! tests to boot; without it a temporary one is used.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use image::{Configurator, HalfMade, ImageStore, Phase, Progress, PullOptions};

/// Runs the guest's part under qemu.
struct Qemu;

impl Configurator for Qemu {
    fn run(
        &mut self,
        machine: &HalfMade<'_>,
        console: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut command = Command::new("qemu-system-riscv64");
        command.args([
            "-M",
            "virt",
            "-nographic",
            "-no-reboot",
            "-bios",
            "default",
            "-device",
            "virtio-blk-device,drive=d",
        ]);
        command.arg("-m").arg(format!("{}M", machine.memory_bytes >> 20));
        command
            .arg("-kernel")
            .arg(machine.kernel)
            .arg("-initrd")
            .arg(machine.initrd)
            .arg("-append")
            .arg(machine.append);
        command.arg("-drive").arg(format!("file={},format=raw,if=none,id=d,cache=unsafe", machine.disk.display()));
        if let Ok(more) = std::env::var("IMAGE_TEST_QEMU") {
            command.args(more.split_whitespace());
        }
        let mut log = std::env::var_os("IMAGE_TEST_LOG").map(std::fs::File::create).transpose()?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut output = child.stdout.take().ok_or("no output")?;
        let mut buffer = [0; 4096];
        loop {
            let count = output.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if let Some(log) = &mut log {
                std::io::Write::write_all(log, &buffer[..count])?;
            }
            console(&buffer[..count]);
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("qemu: {status}").into()) }
    }
}

/// Prints how long each phase takes.
struct Times(Instant, Option<Phase>);

impl Times {
    fn end(&mut self) {
        if let Some(phase) = self.1.take() {
            println!("{phase}: {:.1} s", self.0.elapsed().as_secs_f64());
        }
        self.0 = Instant::now();
    }
}

impl Progress for Times {
    fn phase(&mut self, phase: Phase, total: u64) {
        self.end();
        self.1 = Some(phase);
        println!("{phase} ({total})");
    }
    fn position(&mut self, _: u64, _: &str) {}
    fn note(&mut self, text: &str) {
        println!("note: {text}");
    }
}

#[test]
#[ignore = "takes minutes, the network and qemu"]
fn debian_is_pulled_and_boots() {
    let temporary = tempfile::tempdir().unwrap();
    let home = std::env::var_os("IMAGE_TEST_HOME").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let store = ImageStore::open(home.join("images"), home.join("cache"));
    let mut times = Times(Instant::now(), None);
    let options = PullOptions { replace: true, ..PullOptions::default() };
    let image = store.pull("debian", &options, &mut Qemu, &mut times).unwrap();
    times.end();
    assert_eq!(image.manifest().kind, "riscv64");
    assert!(image.manifest().packages.iter().any(|package| package.name == "systemd"));
    println!("{} MiB on the host", image.occupied_bytes().unwrap() >> 20);
    // The second pull has nothing to do.
    let again = store.pull("debian", &PullOptions::default(), &mut Qemu, &mut times).unwrap();
    assert_eq!(again.manifest(), image.manifest());
}
