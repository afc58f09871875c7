//! The guest's part of building an image: one boot in which the packages' own scripts configure them.
//!
//! Maintainer scripts are programs for the guest's processor, so they run in the guest: the half-made disk is booted with the script
//! below as its first process. It prints `isomorph-configure: finished STATUS` as its last line and powers the machine off. Whoever
//! runs the machine ([`Configurator`]) passes the console on; [`Monitor`] reads progress and the last line from it.

use std::path::Path;

use crate::error::{Error, tail};
use crate::progress::{Phase, Progress};

/// The line that says how the script ended begins with this.
const FINISHED: &str = "isomorph-configure: finished ";
/// A line of dpkg's status output that says which package's turn it is.
const PROCESSING: &str = "processing: configure: ";
/// How much of the console's end is kept for an error message: 16 KiB.
const KEPT_BYTES: usize = 16 << 10;

/// A machine to boot once: half made, for it still has to configure its packages.
#[derive(Clone, Copy, Debug)]
pub struct HalfMade<'a> {
    /// The kind of machine, as in the manifest.
    pub kind: &'a str,
    /// The kernel: a flat RISC-V `Image`, or an x86-64 `bzImage`.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initrd: &'a Path,
    /// The disk, raw; to be written to directly. It need not survive a crash of the host meanwhile.
    pub disk: &'a Path,
    /// The kernel command line.
    pub append: &'a str,
    /// How much memory the guest needs, in bytes.
    pub memory_bytes: u64,
}

/// Runs the guest's part of a build.
pub trait Configurator {
    /// Boots `machine` with `disk` as its first virtio disk and a serial port as its console, gives `console` everything that the guest prints,
    /// and returns when the guest has powered off and the disk's content is in its file. No network is needed.
    ///
    /// # Errors
    /// The machine could not be run, or stopped otherwise than by powering off.
    fn run(
        &mut self,
        machine: &HalfMade<'_>,
        console: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Reads the console.
struct Monitor<'a> {
    progress: &'a mut dyn Progress,
    line: Vec<u8>,
    seen: u64,
    kept: Vec<u8>,
    finished: Option<String>,
}

impl Monitor<'_> {
    fn feed(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > 2 * KEPT_BYTES {
            self.kept.drain(..self.kept.len() - KEPT_BYTES);
        }
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.line.len() < KEPT_BYTES {
                self.line.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        // The kernel may have printed in front of it on the same line.
        if let Some((_, name)) = line.split_once(PROCESSING) {
            self.seen += 1;
            self.progress.position(self.seen, name.trim());
        } else if let Some((_, status)) = line.split_once(FINISHED) {
            self.finished = Some(status.trim().into());
        }
    }
}

/// Boots `machine` with `configurator` until it has configured its `packages`.
pub(crate) fn configure(
    configurator: &mut dyn Configurator,
    machine: &HalfMade<'_>,
    packages: usize,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    progress.phase(Phase::Configure, packages as u64);
    let mut monitor = Monitor { progress, line: Vec::new(), seen: 0, kept: Vec::new(), finished: None };
    let ran = configurator.run(machine, &mut |bytes| monitor.feed(bytes));
    let cause = match (ran, &monitor.finished) {
        (Ok(()), Some(status)) if status == "0" => return Ok(()),
        (Err(cause), None) => return Err(Error::Configurator(cause)),
        (_, Some(status)) => format!("its script ended with status {status}"),
        (Ok(()), None) => "it powered off before its script had ended".into(),
    };
    Err(Error::Configure { cause, tail: tail(&monitor.kept, 8) })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Played(&'static [&'static str], Result<(), &'static str>);

    impl Configurator for Played {
        fn run(
            &mut self,
            _: &HalfMade<'_>,
            console: &mut dyn FnMut(&[u8]),
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            self.0.iter().for_each(|text| console(text.as_bytes()));
            self.1.map_err(Into::into)
        }
    }

    #[derive(Default)]
    struct Record(Vec<(u64, String)>);

    impl Progress for Record {
        fn phase(&mut self, _: Phase, _: u64) {}
        fn position(&mut self, position: u64, detail: &str) {
            self.0.push((position, detail.into()));
        }
        fn note(&mut self, _: &str) {}
    }

    fn play(played: &mut Played) -> (Result<(), Error>, Vec<(u64, String)>) {
        let path = Path::new("/none");
        let machine = HalfMade { kind: "riscv64", kernel: path, initrd: path, disk: path, append: "", memory_bytes: 0 };
        let mut record = Record::default();
        (configure(played, &machine, 2, &mut record), record.0)
    }

    #[test]
    fn progress_and_success_are_read_from_the_console() {
        let (result, record) = play(&mut Played(
            &[
                "[ 1.0] x\r\nproces",
                "sing: configure: libc6:riscv64\r\n[2.0] odd processing: configure: dash\r\n",
                "isomorph-configure: finished 0\r\n",
            ],
            Ok(()),
        ));
        result.unwrap();
        assert_eq!(record, [(1, "libc6:riscv64".into()), (2, "dash".into())]);
    }

    #[test]
    fn failures_carry_the_console_s_end() {
        let text = play(&mut Played(&["dpkg: error\r\n", "isomorph-configure: finished 1\r\n"], Ok(())))
            .0
            .unwrap_err()
            .to_string();
        assert!(text.contains("status 1") && text.contains("dpkg: error |"), "{text}");
        let text = play(&mut Played(&["Kernel panic\r\n"], Ok(()))).0.unwrap_err().to_string();
        assert!(text.contains("powered off") && text.contains("Kernel panic"), "{text}");
        let text = play(&mut Played(&[], Err("no such machine"))).0.unwrap_err().to_string();
        assert!(text.contains("no such machine"), "{text}");
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut silent = crate::progress::Silent;
        let mut monitor =
            Monitor { progress: &mut silent, line: Vec::new(), seen: 0, kept: Vec::new(), finished: None };
        for _ in 0..1000 {
            monitor.feed(&[b'x'; 1000]);
        }
        assert!(monitor.line.len() <= KEPT_BYTES && monitor.kept.len() <= 2 * KEPT_BYTES);
    }
}
