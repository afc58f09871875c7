//! What runs an image of [`Batch`](crate::case::Batch): memory before, memory after.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use machine::address::{GuestPhysical, host_size};
use machine::bus::{Bus, BusDevice, Width};
use machine::memory::GuestMemory;
use riscv::hart::{Exit, Hart, HartConfig, HartSignals, TimeSource};
use riscv::translate::{CodeCache, Options};

use crate::case::BASE;
use crate::peer::{Peer, PeerError};

/// RAM beyond the image: qemu puts its device tree at the end.
const SPARE: u64 = 8 << 20;
/// The extensions that Isomorph's hart has too, as far as Debian's qemu can; it knows no Zicond, Zawrs, Zicbom and Zicboz. The
/// hypervisor extension is off, since it shows in `mstatus`.
pub const QEMU_CPU: &str = "rv64,h=false,pmu-num=29,svinval=true,svnapot=true,svpbmt=true,zbkb=true,zbkx=true,zknd=true,zkne=true,zknh=true,zksed=true,zksh=true";

/// Runs `image` on qemu until it powers off; answers what is then in its place.
///
/// # Errors
/// qemu is not there, or did not end within `limit`.
pub fn qemu(image: &[u8], limit: Duration) -> Result<Vec<u8>, PeerError> {
    run(image, limit, &[]).map(|(memory, _)| memory)
}

/// Runs `image` on qemu, and lets it write down all registers before each instruction; answers that text.
///
/// # Errors
/// As [`qemu`].
pub fn qemu_trace(image: &[u8], limit: Duration) -> Result<String, PeerError> {
    run(image, limit, &["-singlestep", "-d", "cpu,fpu,nochain"]).map(|(_, trace)| trace)
}

fn run(image: &[u8], limit: Duration, more: &[&str]) -> Result<(Vec<u8>, String), PeerError> {
    let peer = Peer::QemuSystem;
    let folder = tempfile::tempdir().map_err(peer.host())?;
    let ram = folder.path().join("ram");
    let log = folder.path().join("log");
    // The machine's RAM is a file that we fill before and read after.
    let size = (image.len() as u64 + SPARE).next_multiple_of(2 << 20);
    fs::write(&ram, image).map_err(peer.host())?;
    File::options().write(true).open(&ram).and_then(|file| file.set_len(size)).map_err(peer.host())?;
    let mut backend = OsString::from(format!("memory-backend-file,id=ram,size={size},share=on,mem-path="));
    backend.push(&ram);
    let fixed =
        "-machine virt,memory-backend=ram -bios none -display none -monitor none -serial none -nodefaults -smp 1";
    let mut arguments: Vec<OsString> = fixed.split(' ').map(OsString::from).collect();
    arguments.extend([
        "-cpu".into(),
        QEMU_CPU.into(),
        "-object".into(),
        backend,
        "-m".into(),
        format!("{size}B").into(),
    ]);
    arguments.extend(more.iter().map(OsString::from));
    if !more.is_empty() {
        arguments.extend(["-D".into(), log.clone().into()]);
    }
    peer.run(&arguments, limit)?;
    let mut memory = vec![0; image.len()];
    File::open(&ram).and_then(|mut file| file.read_exact(&mut memory)).map_err(peer.host())?;
    let trace = if more.is_empty() { String::new() } else { fs::read_to_string(&log).map_err(peer.host())? };
    debug_assert!(host_size(size) > memory.len());
    Ok((memory, trace))
}

/// Why Isomorph gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum IsomorphError {
    /// The host has no memory for it.
    #[error(transparent)]
    Memory(#[from] machine::memory::MemoryError),
    /// The host has no memory for translated code.
    #[error("{0}")]
    Code(String),
    /// The hart stopped before the machine was powered off.
    #[error("the hart stopped at {pc:#x}: {reason}")]
    Stopped {
        /// Where it was.
        pc: u64,
        /// What it said.
        reason: String,
    },
}

/// The device whose only register powers the machine off; the image then waits.
struct PowerSwitch {
    off: AtomicBool,
}

impl BusDevice for PowerSwitch {
    fn read(&self, _: u64, _: Width) -> u64 {
        0
    }

    fn write(&self, _: u64, _: Width, _: u64) {
        self.off.store(true, Ordering::Relaxed);
    }
}

/// Time that stands still.
struct Standstill;

impl TimeSource for Standstill {
    fn ticks(&self) -> u64 {
        0
    }
}

/// A machine of one hart, memory and a power switch, for images of [`Batch`](crate::case::Batch).
pub struct Isomorph {
    hart: Hart,
    memory: Arc<GuestMemory>,
    switch: Arc<PowerSwitch>,
    size: usize,
}

impl Isomorph {
    /// A machine with `image` in memory, about to enter it.
    ///
    /// # Errors
    /// The host has no memory for it.
    pub fn new(image: &[u8]) -> Result<Self, IsomorphError> {
        let size = (image.len() as u64 + SPARE).next_multiple_of(2 << 20);
        let memory = Arc::new(GuestMemory::new(GuestPhysical(BASE), size)?);
        let signals = Arc::new(HartSignals::new());
        let switch = Arc::new(PowerSwitch { off: AtomicBool::new(false) });
        let mut bus = Bus::new();
        let test = riscv::map::TEST;
        let mapped = bus.map("power", GuestPhysical(test.start), test.end - test.start, switch.clone());
        debug_assert!(mapped.is_ok(), "the bus was empty");
        let config = HartConfig { id: 0, hardware_ad_updates: true, monitor_sbi: false };
        let mut hart = Hart::new(config, memory.clone(), Arc::new(bus), Arc::new(Standstill), signals);
        let written = memory.write(GuestPhysical(BASE), image);
        debug_assert!(written.is_ok(), "the memory is larger than the image");
        hart.reset(BASE);
        Ok(Self { hart, memory, switch, size: image.len() })
    }

    /// The same machine with the translator, as `options` say.
    ///
    /// # Errors
    /// The host has no memory for code.
    pub fn translating(mut self, options: Options) -> Result<Self, IsomorphError> {
        if options.translate {
            let cache = CodeCache::new(options).map_err(|error| IsomorphError::Code(error.to_string()))?;
            self.hart.translate_with(cache);
        }
        Ok(self)
    }

    /// The hart.
    #[must_use]
    pub fn hart(&self) -> &Hart {
        &self.hart
    }

    /// Executes one instruction or takes one trap. False once the machine is off.
    ///
    /// # Errors
    /// The hart stopped.
    pub fn step(&mut self) -> Result<bool, IsomorphError> {
        let exit = self.hart.step();
        self.goes_on(exit)
    }

    /// Runs until the machine is off; answers what is then in the image's place. Gives up after `limit`.
    ///
    /// # Errors
    /// The hart stopped, or the limit is over.
    pub fn run(self, limit: Duration) -> Result<Vec<u8>, IsomorphError> {
        self.run_and_count(limit).map(|(memory, _)| memory)
    }

    /// As [`Self::run`]; answers also how many instructions have retired (`minstret`).
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_and_count(mut self, limit: Duration) -> Result<(Vec<u8>, u64), IsomorphError> {
        const MINSTRET: u16 = 0xb02;
        let (done, finished) = mpsc::channel::<()>();
        let (signals, late) = (self.hart.signals().clone(), Arc::new(AtomicBool::new(false)));
        let alarm = late.clone();
        thread::spawn(move || {
            if finished.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                alarm.store(true, Ordering::Relaxed);
                signals.request_attention();
            }
        });
        loop {
            let exit = self.hart.run();
            if !self.goes_on(Some(exit))? {
                break;
            }
            if late.load(Ordering::Relaxed) {
                return Err(self.stopped(format!("not finished after {limit:?}")));
            }
        }
        drop(done);
        let mut memory = vec![0; self.size];
        let read = self.memory.read(GuestPhysical(BASE), &mut memory);
        debug_assert!(read.is_ok(), "the image fitted");
        Ok((memory, self.hart.csr(MINSTRET).unwrap_or_default()))
    }

    fn goes_on(&self, exit: Option<Exit>) -> Result<bool, IsomorphError> {
        match exit {
            // Nothing else can end a wait here, so it is over at once.
            None | Some(Exit::Attention | Exit::Idle) => Ok(!self.switch.off.load(Ordering::Relaxed)),
            Some(Exit::Fault(reason)) => Err(self.stopped(reason)),
            Some(other) => Err(self.stopped(format!("{other:?}"))),
        }
    }

    fn stopped(&self, reason: String) -> IsomorphError {
        IsomorphError::Stopped { pc: self.hart.pc(), reason }
    }
}

/// Runs `image` on Isomorph until it powers off; answers what is then in its place.
///
/// # Errors
/// See [`IsomorphError`].
pub fn isomorph(image: &[u8], limit: Duration) -> Result<Vec<u8>, IsomorphError> {
    Isomorph::new(image)?.run(limit)
}
