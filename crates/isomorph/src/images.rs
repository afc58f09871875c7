//! `isomorph image`: builds, lists and removes machine images; and the guest's part of building one, on our own machine.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use disk::RawDisk;
use image::{Configurator, HalfMade, Image, ImageStore, Phase, Progress, PullOptions};
use machine::backend::{CharacterBackend, CharacterSink};
use machine::clock::Clock;
use machine::entropy::Entropy;
use machine::lifecycle::{Machine, StopReason};
use riscv::board::{Board, BoardConfig, Disk};
use riscv::loader::{ImageFile, Images};
use serde::Serialize;

use crate::cli::{ImageCommand, ListArgs};
use crate::list::columns;
use crate::progress::{Bar, Unit};
use crate::size::human_bytes;
use crate::x86_64;

/// What `image pull` calls the folder for Linux programs.
const SYSROOT: &str = "sysroot";
/// And the class library of Java.
const JAVA: &str = "java";

/// Carries out `isomorph image ...`.
///
/// # Errors
/// See the subcommand's help.
pub fn command(command: &ImageCommand) -> Result<()> {
    let store = ImageStore::from_environment()?;
    match command {
        ImageCommand::Pull { name, with, force } if name == SYSROOT => {
            let directory = store.pull_sysroot(with, *force, &mut PullProgress { bar: Bar::new() })?;
            println!("{} is ready: isomorph run finds libraries there", directory.display());
            Ok(())
        }
        ImageCommand::Pull { name, force, .. } if name == JAVA => {
            let directory = store.pull_java(*force, &mut PullProgress { bar: Bar::new() })?;
            println!("{} is ready: isomorph run app.jar, isomorph java ...", directory.display());
            Ok(())
        }
        ImageCommand::Pull { with, .. } if !with.is_empty() => {
            bail!("--with is for 'image pull {SYSROOT}'; inside a machine packages are installed with apt")
        }
        ImageCommand::Pull { name, force, .. } => {
            if !force && let Ok(image) = store.get(name) {
                println!("{} is here already; --force builds it anew", describe(&image));
                return Ok(());
            }
            let image = pull(&store, name, *force)?;
            println!("{} is ready: isomorph run {name}", describe(&image));
            println!("{}", log_in_hint(&image));
            Ok(())
        }
        ImageCommand::Ls(args) => list(&store, args),
        ImageCommand::Rm { names } => {
            let results: Vec<_> = names.iter().map(|name| store.remove(name)).collect();
            Ok(results.into_iter().collect::<Result<_, _>>()?)
        }
    }
}

/// The image `name`, built first if it is not there.
///
/// # Errors
/// There is no such image, or it cannot be built.
pub fn find_or_pull(name: &str) -> Result<Image> {
    let store = ImageStore::from_environment()?;
    match store.get(name) {
        Err(image::Error::NotFound { .. }) => pull(&store, name, false),
        found => Ok(found?),
    }
}

/// How to get in, for people.
#[must_use]
pub fn log_in_hint(image: &Image) -> String {
    format!("log in as '{}' with the password '{}'", image.manifest().user, image.manifest().password)
}

fn pull(store: &ImageStore, name: &str, replace: bool) -> Result<Image> {
    // What cannot run here is not fetched: it is configured by running it once.
    if x86_64::is_image(name) {
        x86_64::check_host(true)?;
    }
    let mut progress = PullProgress { bar: Bar::new() };
    let options = PullOptions { replace, ..PullOptions::default() };
    Ok(store.pull(name, &options, &mut OnOurMachine, &mut progress)?)
}

fn describe(image: &Image) -> String {
    let manifest = image.manifest();
    format!("{}, {} with Linux {},", manifest.name, manifest.description, manifest.kernel_version)
}

/// An image as `image ls --json` lists it.
#[derive(Serialize)]
struct Row {
    name: String,
    kind: String,
    description: String,
    kernel_version: String,
    /// Seconds since 1970-01-01 UTC.
    created_s: u64,
    disk_bytes: u64,
    occupied_bytes: u64,
    user: String,
    password: String,
}

/// A row that says what is wrong with an image.
#[derive(Serialize)]
struct Damaged {
    name: String,
    error: String,
}

/// A folder that programs run with.
#[derive(Serialize)]
struct FolderRow {
    name: &'static str,
    kind: &'static str,
    description: &'static str,
    /// Seconds since 1970-01-01 UTC.
    created_s: u64,
    occupied_bytes: u64,
    path: PathBuf,
}

fn folder_row(folder: image::Folder) -> Entry {
    let created_s = folder.path.metadata().map_or(0, |meta| u64::try_from(meta.ctime()).unwrap_or(0));
    let occupied_bytes = occupied(&folder.path);
    let image::Folder { name, path, description } = folder;
    Entry::Folder(FolderRow { name, kind: "folder", description, created_s, occupied_bytes, path })
}

/// Host disk space of a folder and all below, in bytes.
fn occupied(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => occupied(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Whole(Row),
    Folder(FolderRow),
    Damaged(Damaged),
}

fn entry(listed: image::Listed) -> Entry {
    let look = |image: Image| -> Result<Row, image::Error> {
        let occupied_bytes = image.occupied_bytes()?;
        let manifest = image.manifest();
        Ok(Row {
            name: manifest.name.clone(),
            kind: manifest.kind.clone(),
            description: manifest.description.clone(),
            kernel_version: manifest.kernel_version.clone(),
            created_s: manifest.created_s,
            disk_bytes: manifest.disk_bytes,
            occupied_bytes,
            user: manifest.user.clone(),
            password: manifest.password.clone(),
        })
    };
    match listed.image.and_then(look) {
        Ok(row) => Entry::Whole(row),
        Err(error) => Entry::Damaged(Damaged { name: listed.name, error: error.to_string() }),
    }
}

fn list(store: &ImageStore, args: &ListArgs) -> Result<()> {
    let folders = store.folders().into_iter().map(folder_row);
    let entries: Vec<Entry> = store.list()?.into_iter().map(entry).chain(folders).collect();
    let mut table = vec![["NAME", "KIND", "CREATED", "SIZE", "LOGIN", "DESCRIPTION"].map(String::from)];
    for entry in &entries {
        table.push(match entry {
            Entry::Whole(row) => [
                row.name.clone(),
                row.kind.clone(),
                ago(machine::clock::wall_time_ns() / 1_000_000_000, row.created_s),
                human_bytes(row.occupied_bytes),
                format!("{} / {}", row.user, row.password),
                row.description.clone(),
            ],
            Entry::Folder(row) => [
                row.name.into(),
                row.kind.into(),
                ago(machine::clock::wall_time_ns() / 1_000_000_000, row.created_s),
                human_bytes(row.occupied_bytes),
                "-".into(),
                row.description.into(),
            ],
            Entry::Damaged(damaged) => {
                [damaged.name.clone(), "-".into(), "-".into(), "-".into(), "-".into(), damaged.error.clone()]
            }
        });
    }
    crate::print_result(args.json, &columns(&table), &entries)
}

/// A time for people: "3 days ago".
fn ago(now_s: u64, then_s: u64) -> String {
    let seconds = now_s.saturating_sub(then_s);
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    match units.iter().find(|(length, _)| seconds >= *length) {
        Some((length, name)) => {
            let count = seconds / length;
            format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "just now".into(),
    }
}

/// Shows a pull on the terminal.
struct PullProgress {
    bar: Bar,
}

impl Progress for PullProgress {
    fn phase(&mut self, phase: Phase, total: u64) {
        let unit = if phase.counts_bytes() { Unit::Bytes } else { Unit::Items };
        self.bar.phase(&phase.to_string(), unit, total);
    }

    fn position(&mut self, position: u64, detail: &str) {
        self.bar.position(position, detail);
    }

    fn note(&mut self, text: &str) {
        self.bar.note(text);
    }
}

/// Runs the guest's part of a build on a machine of ours.
struct OnOurMachine;

/// The RISC-V machine that configures an image.
fn riscv64(machine: &HalfMade<'_>, serial: Arc<Recorder>) -> Result<Board, Box<dyn Error + Send + Sync>> {
    Ok(Board::new(BoardConfig {
        cpus: 1,
        memory_bytes: machine.memory_bytes,
        images: Images {
            firmware: None,
            kernel: Some(ImageFile::open(machine.kernel)?),
            initrd: Some(ImageFile::open(machine.initrd)?),
        },
        arguments: machine.append.into(),
        disks: vec![Disk { backend: Arc::new(RawDisk::open(machine.disk, false)?), serial: "isomorph-0".into() }],
        network: None,
        serial,
        console: None,
        virtio: riscv::board::VirtioTransport::default(),
        entropy: Entropy::Host,
        clock: Arc::new(Clock::new()),
        hardware_ad_updates: true,
        translator: riscv::translate::Options::default(),
        schedule: riscv::board::Schedule::default(),
    })?)
}

/// The x86-64 machine that configures an image.
fn amd64(machine: &HalfMade<'_>, serial: Arc<Recorder>) -> Result<x86::board::Board, Box<dyn Error + Send + Sync>> {
    let backend = Arc::new(RawDisk::open(machine.disk, false)?);
    Ok(x86::board::Board::new(x86::board::BoardConfig {
        cpus: 1,
        model: x86::kvm::cpuid::Model::Host,
        memory_bytes: machine.memory_bytes,
        images: x86::boot::Images {
            firmware: None,
            kernel: Some(x86::boot::ImageFile::open(machine.kernel)?),
            initrd: Some(x86::boot::ImageFile::open(machine.initrd)?),
            arguments: machine.append.into(),
        },
        disks: vec![x86::board::Disk { backend, serial: "isomorph-0".into() }],
        network: None,
        host_devices: Vec::new(),
        serial,
        console: None,
        entropy: Entropy::Host,
        clock: Arc::new(Clock::new()),
        irqchip: x86::kvm::IrqChip::default(),
        about: Box::new(Vec::new),
    })?)
}

impl Configurator for OnOurMachine {
    fn run(
        &mut self,
        machine: &HalfMade<'_>,
        console: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (sender, printed) = channel();
        let serial = Arc::new(Recorder { sender: Mutex::new(sender) });
        let board: Box<dyn Machine> = match machine.kind {
            x86_64::KIND => Box::new(amd64(machine, serial)?),
            _ => Box::new(riscv64(machine, serial)?),
        };
        board.start()?;
        // The channel ends when the machine, and with it the recorder, is gone.
        let waiting = std::thread::Builder::new().name("configure".into()).spawn(move || board.wait())?;
        printed.iter().for_each(|bytes: Vec<u8>| console(&bytes));
        match waiting.join() {
            Ok(StopReason::PowerOff(0)) => Ok(()),
            Ok(StopReason::PowerOff(status)) => Err(format!("the guest powered off with status {status}").into()),
            Ok(StopReason::Requested) => Err("the machine was told to stop".into()),
            Ok(StopReason::Fault(reason)) => Err(reason.into()),
            Err(_) => Err("the machine's thread failed".into()),
        }
    }
}

/// The other end of a serial port whose output goes to a channel.
struct Recorder {
    sender: Mutex<Sender<Vec<u8>>>,
}

impl CharacterBackend for Recorder {
    fn send(&self, bytes: &[u8]) {
        // If nobody listens any more, nobody misses it.
        let _ = self.sender.lock().unwrap_or_else(PoisonError::into_inner).send(bytes.to_vec());
    }

    fn attach(&self, _sink: Arc<dyn CharacterSink>) {}

    fn ready(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        assert_eq!(ago(100, 90), "just now");
        assert_eq!(ago(100, 200), "just now", "a clock that went back");
        assert_eq!(ago(4000, 300), "1 hour ago");
        assert_eq!(ago(90 * 86_400, 0), "90 days ago");
    }
}
