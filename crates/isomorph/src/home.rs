//! Where Isomorph keeps things: the state home, and in it one directory a machine.
//!
//! ```text
//! HOME/machines/NAME/lock           held by the worker as long as the machine runs; holds its process id
//!                    machine.json   what the machine is
//!                    disk.raw       its own copy of its image's disk
//!                    control        the socket that it is controlled by, as long as it runs
//! ```
//!
//! There is no daemon and no index: what is there is read from the directories, and a machine runs if its lock is held. A directory without record and disk is a
//! *passing* machine's: it goes when the machine ends, or, if that was killed, when somebody comes across it.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// The file name of a machine's control socket.
pub const SOCKET: &str = "control";
/// How often a lock is tried for, a millisecond apart.
const LOCK_TRIES: u32 = 20;
/// The longest path of a socket, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// What a machine is, as its directory records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this record; see [`RECORD_VERSION`].
    pub version: u32,
    /// The image that its disk was copied from; none for a machine made of files.
    pub image: Option<String>,
    /// Processors at its last run.
    pub cpus: u32,
    /// Memory at its last run, in bytes.
    pub memory_bytes: u64,
    /// Published ports at its last run.
    pub publish: Vec<String>,
}

/// The version of [`Record`] that this program writes.
pub const RECORD_VERSION: u32 = 1;

/// The state home.
#[derive(Clone, Debug)]
pub struct Home {
    machines: PathBuf,
}

/// The directory of a machine that this process holds the lock of.
#[derive(Debug)]
pub struct MachineDirectory {
    path: PathBuf,
    lock: File,
}

/// A machine as `ps` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// "running" or "stopped"; what a machine that runs says of itself, once it was asked.
    pub state: String,
    /// The process that runs it.
    pub pid: Option<u32>,
    /// What its directory records, unless that is damaged.
    pub record: Option<Record>,
    /// Host disk space that it takes, in bytes.
    pub disk_bytes: u64,
}

/// A path to the control socket in `directory` that is short enough for one, good for as long as the descriptor is open.
///
/// # Errors
/// The directory cannot be opened.
pub fn socket_path(directory: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    let path = directory.join(SOCKET);
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((None, path));
    }
    let open = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new("/proc/thread-self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&open).to_string()).join(SOCKET);
    Ok((Some(open), path))
}

/// Checks that a name is fit for a directory and a host name.
///
/// # Errors
/// It is not.
pub fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    ensure!(fits, "'{name}' is no name for a machine: use up to 63 letters, digits, '-', '_' and '.'");
    Ok(())
}

impl Home {
    /// The state home: `ISOMORPH_HOME`, else `isomorph` in `XDG_STATE_HOME`, else `~/.local/state/isomorph`.
    ///
    /// # Errors
    /// None of these variables, nor HOME, is set.
    pub fn find() -> Result<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("ISOMORPH_HOME")
            .or_else(|| set("XDG_STATE_HOME").map(|dir| dir.join("isomorph")))
            .or_else(|| set("HOME").map(|dir| dir.join(".local/state/isomorph")))
            .ok_or_else(|| anyhow!("neither ISOMORPH_HOME nor HOME is set: where are machines to live?"))?;
        Ok(Self { machines: root.join("machines") })
    }

    /// The state home of a test.
    #[cfg(test)]
    pub fn at(machines: PathBuf) -> Self {
        Self { machines }
    }

    /// Locks the directory of machine `name`, making it if it is not there.
    ///
    /// # Errors
    /// The machine runs already, the name is unfit, or the host refuses.
    pub fn lock(&self, name: &str) -> Result<MachineDirectory> {
        check_name(name)?;
        let path = self.machines.join(name);
        loop {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            let lock_path = path.join("lock");
            let opened = File::options().create(true).truncate(false).read(true).write(true).open(&lock_path);
            let mut lock = match opened {
                // Removed by another process since we made it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.with_context(|| format!("cannot open {}", lock_path.display()))?,
            };
            let mut locked = lock.try_lock();
            for _ in 0..LOCK_TRIES {
                if !matches!(locked, Err(TryLockError::WouldBlock)) {
                    break;
                }
                // Who looks whether the machine runs holds the lock for a moment.
                std::thread::sleep(Duration::from_millis(1));
                locked = lock.try_lock();
            }
            match locked {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    bail!("machine '{name}' is running already: give this one another name with --name")
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
                }
            }
            // The directory may have been removed between our opening and our locking of it.
            if !lock_path.exists() {
                continue;
            }
            let written = lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0)));
            written
                .and_then(|_| writeln!(lock, "{}", std::process::id()))
                .with_context(|| format!("cannot write {}", lock_path.display()))?;
            return Ok(MachineDirectory { path, lock });
        }
    }

    /// All machines, by name.
    ///
    /// # Errors
    /// The state home cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let entries = match fs::read_dir(&self.machines) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read {}", self.machines.display()))?,
        };
        let mut machines = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", self.machines.display()))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(pid) = holder(&path) else { continue };
            if pid.is_none() && is_passing(&path) {
                // If it cannot be removed, that is no machine all the same.
                let _ = self.clear(name);
                continue;
            }
            machines.push(Listed {
                name: name.to_owned(),
                state: if pid.is_some() { "running" } else { "stopped" }.into(),
                pid: pid.flatten(),
                record: read_record(&path).ok().flatten(),
                disk_bytes: directory_bytes(&path),
            });
        }
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(machines)
    }

    /// The directory of machine `name`, which runs.
    ///
    /// # Errors
    /// There is none, or it does not run.
    pub fn running(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let path = self.machines.join(name);
        match holder(&path) {
            Some(Some(_)) => Ok(path),
            Some(None) if !is_passing(&path) => bail!("machine '{name}' does not run"),
            _ => bail!("there is no machine '{name}': see 'isomorph ps'"),
        }
    }

    /// Removes what a passing machine has left behind, if `name` was one and has ended.
    ///
    /// # Errors
    /// The host refuses.
    pub fn clear(&self, name: &str) -> Result<()> {
        let path = self.machines.join(name);
        match holder(&path) {
            Some(None) if is_passing(&path) => match self.lock(name) {
                Ok(directory) if directory.is_passing() => directory.remove(),
                // Somebody else has it by now.
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Clears away what passing machines have left behind.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.machines).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str() {
                // What cannot be removed stays for another time.
                let _ = self.clear(name);
            }
        }
    }

    /// Removes machine `name` and its disk.
    ///
    /// # Errors
    /// There is none, it runs, or the host refuses.
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        ensure!(self.machines.join(name).is_dir(), "there is no machine '{name}': see 'isomorph ps'");
        let runs = matches!(holder(&self.machines.join(name)), Some(Some(_)));
        ensure!(!runs, "machine '{name}' runs; to end it: isomorph stop {name}");
        self.lock(name)?.remove()
    }
}

/// Who holds the lock in `directory`: `None` if it is no machine's directory, `Some(None)` if nobody does, else the process if known.
fn holder(directory: &Path) -> Option<Option<Option<u32>>> {
    let mut lock = File::open(directory.join("lock")).ok()?;
    match lock.try_lock_shared() {
        Ok(()) => Some(None),
        Err(_) => {
            let mut text = String::new();
            let read = lock.read_to_string(&mut text).ok();
            Some(Some(read.and_then(|_| text.trim().parse().ok())))
        }
    }
}

/// Whether a machine's directory goes with its end.
fn is_passing(directory: &Path) -> bool {
    !["machine.json", "disk.raw"].iter().any(|file| directory.join(file).exists())
}

fn read_record(directory: &Path) -> Result<Option<Record>> {
    let path = directory.join("machine.json");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let record: Record = serde_json::from_slice(&text).with_context(|| {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        format!("{} is damaged: 'isomorph rm {name}' removes the machine", path.display())
    })?;
    ensure!(
        record.version == RECORD_VERSION,
        "{} has version {}, this program knows {RECORD_VERSION}",
        path.display(),
        record.version
    );
    Ok(Some(record))
}

/// Host disk space of the files in `directory`, in bytes.
fn directory_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

impl MachineDirectory {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes with the machine's end.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        is_passing(&self.path)
    }

    /// The machine's own copy of its image's disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.path.join("disk.raw")
    }

    /// What was recorded at the machine's last run; none at its first.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn record(&self) -> Result<Option<Record>> {
        read_record(&self.path)
    }

    /// Records what the machine is. A crash leaves the old record or the new one.
    ///
    /// # Errors
    /// The host cannot write.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.path.join("machine.json");
        let temporary = self.path.join("machine.json.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes the machine. The lock goes last, so that a crash leaves a directory that `ps` still lists.
    ///
    /// # Errors
    /// The host refuses.
    pub fn remove(self) -> Result<()> {
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if entry.file_name() != "lock" {
                    fs::remove_file(entry.path())?;
                }
            }
            fs::remove_file(self.path.join("lock"))?;
            fs::remove_dir(&self.path)
        };
        let result = remove().with_context(|| format!("cannot remove {}", self.path.display()));
        drop(self.lock);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { machines: dir.path().join("machines") };
        (dir, home)
    }

    fn record() -> Record {
        Record {
            version: RECORD_VERSION,
            image: Some("debian".into()),
            cpus: 1,
            memory_bytes: 1 << 30,
            publish: vec![],
        }
    }

    #[test]
    fn a_machine_is_listed_while_it_runs_and_after() {
        let (_dir, home) = home();
        assert!(home.list().unwrap().is_empty());
        let directory = home.lock("a").unwrap();
        directory.write_record(&record()).unwrap();
        let listed = home.list().unwrap();
        assert_eq!((listed[0].state.as_str(), listed[0].pid), ("running", Some(std::process::id())));
        assert!(home.running("a").is_ok() && home.running("b").unwrap_err().to_string().contains("no machine 'b'"));
        assert!(home.lock("a").unwrap_err().to_string().contains("running already"));
        assert!(format!("{:#}", home.remove("a").unwrap_err()).contains("runs; to end it: isomorph stop a"));
        drop(directory);
        let listed = home.list().unwrap();
        assert!(home.running("a").unwrap_err().to_string().contains("does not run"));
        assert_eq!((listed[0].state.as_str(), listed[0].record.clone()), ("stopped", Some(record())));
        home.remove("a").unwrap();
        assert!(home.list().unwrap().is_empty());
        assert!(home.remove("a").unwrap_err().to_string().contains("no machine 'a'"));
    }

    #[test]
    fn a_passing_machine_leaves_nothing_behind() {
        let (_dir, home) = home();
        let directory = home.lock("hello-1").unwrap();
        home.clear("hello-1").unwrap();
        assert_eq!(home.list().unwrap().len(), 1, "it runs");
        drop(directory);
        assert!(home.list().unwrap().is_empty());
        assert!(!home.machines.join("hello-1").exists());
        let stays = home.lock("stays").unwrap();
        stays.write_record(&record()).unwrap();
        drop(stays);
        home.sweep();
        assert_eq!(home.list().unwrap().len(), 1, "it has a record");
    }

    #[test]
    fn names_cannot_leave_the_home() {
        let (_dir, home) = home();
        for bad in ["", "..", "a/b", "-x", ".hidden", &"x".repeat(64), "ä"] {
            assert!(home.lock(bad).is_err(), "{bad}");
            assert!(home.remove(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_damaged_record_says_what_to_do() {
        let (_dir, home) = home();
        let directory = home.lock("a").unwrap();
        assert_eq!(directory.record().unwrap(), None);
        fs::write(directory.path.join("machine.json"), "{").unwrap();
        assert!(format!("{:#}", directory.record().unwrap_err()).contains("isomorph rm a"));
    }
}
