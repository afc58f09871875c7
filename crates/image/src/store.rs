//! The directory of images, and the order of events that makes a pull atomic.
//!
//! ```text
//! ISOMORPH_HOME/images/            or XDG_DATA_HOME/isomorph/images, or ~/.local/share/isomorph/images
//!     .lock                        held while a pull runs
//!     .pull-NAME/                  being made; deleted by the next pull
//!     NAME/  kernel initrd disk.raw manifest.json
//! ISOMORPH_HOME/sysroot/           beside images: usr etc ...
//! ISOMORPH_HOME/java/              likewise: lib/modules conf ...
//! ```
//!
//! A pull makes everything in `.pull-NAME`, makes it durable, and renames the directory to its name. Killed at any point before the rename, it
//! leaves nothing that counts as an image; downloaded packages stay in the cache. A second pull waits for the lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, statvfs};

use crate::configure::Configurator;
use crate::debian;
use crate::error::Error;
use crate::java;
use crate::manifest::{Image, Manifest};
use crate::port::{self, Port};
use crate::progress::{Phase, Progress};
use crate::sysroot;

const LOCK: &str = ".lock";
const UNFINISHED: &str = ".pull-";
/// Room that a pull needs where images are: the staged files and the disk.
const ROOM_BYTES: u64 = 800 << 20;

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The size of the guest's disk in bytes; its file is sparse. At least 1 GiB.
    pub disk_bytes: u64,
    /// Build the image although it is there, and put it in the old one's place.
    pub replace: bool,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { disk_bytes: 8 << 30, replace: false }
    }
}

/// An entry of [`ImageStore::list`].
#[derive(Debug)]
pub struct Listed {
    /// The image's name.
    pub name: String,
    /// The image, or what is wrong with it.
    pub image: Result<Image, Error>,
}

/// A folder that programs run with, beside the images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// What `image pull` calls it.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What it is, for people.
    pub description: &'static str,
}

/// The images of this user.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
    cache: PathBuf,
}

impl ImageStore {
    /// The store in `root`, with downloads kept in `cache`. Neither need exist yet.
    #[must_use]
    pub fn open(root: impl Into<PathBuf>, cache: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), cache: cache.into() }
    }

    /// The store where this user's environment says it is: `ISOMORPH_HOME`, else the XDG base directories.
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn from_environment() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        // The XDG specification has relative paths ignored, as if unset.
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        if let Some(home) = variable("ISOMORPH_HOME").filter(|path| !path.as_os_str().is_empty()) {
            let home = std::path::absolute(&home).map_err(Error::host("find", &home))?;
            return Ok(Self::open(home.join("images"), home.join("cache")));
        }
        let below_home = |path: &str| Some(absolute("HOME")?.join(path));
        let data = absolute("XDG_DATA_HOME").or_else(|| below_home(".local/share")).ok_or(Error::NoHome)?;
        let cache = absolute("XDG_CACHE_HOME").or_else(|| below_home(".cache")).ok_or(Error::NoHome)?;
        Ok(Self::open(data.join("isomorph/images"), cache.join("isomorph")))
    }

    /// Where the images are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the sysroot is, if it is there: the folder of libraries and programs for Linux programs of another processor.
    #[must_use]
    pub fn sysroot(&self) -> PathBuf {
        self.root.with_file_name("sysroot")
    }

    /// Where the class library of Java is, if it was pulled.
    #[must_use]
    pub fn java(&self) -> PathBuf {
        self.root.with_file_name("java")
    }

    /// The folders that are there.
    #[must_use]
    pub fn folders(&self) -> Vec<Folder> {
        let all = [
            ("java", self.java(), "class library of JDK 17, for Java programs"),
            ("sysroot", self.sysroot(), "libraries and programs, for Linux programs for riscv64"),
        ];
        let folders = all.map(|(name, path, description)| Folder { name, path, description });
        folders.into_iter().filter(|folder| folder.path.is_dir()).collect()
    }

    /// Gets the class library of Java. One that is there stays as it is unless `replace`.
    ///
    /// # Errors
    /// See [`Error`]; an older one stays then.
    pub fn pull_java(&self, replace: bool, progress: &mut dyn Progress) -> Result<PathBuf, Error> {
        fs::create_dir_all(&self.root).map_err(Error::host("make", &self.root))?;
        fs::create_dir_all(&self.cache).map_err(Error::host("make", &self.cache))?;
        let _lock = self.lock(Some(progress))?;
        let directory = self.java();
        if directory.is_dir() && !replace {
            return Ok(directory);
        }
        self.clear()?;
        let unfinished = self.root.join(format!("{UNFINISHED}java"));
        let _cache_lock = lock(&self.cache.join(LOCK), Some(progress))?;
        let made = check_room(&self.root, ROOM_BYTES)
            .and_then(|()| fs::create_dir(&unfinished).map_err(Error::host("make", &unfinished)))
            .and_then(|()| java::build(&unfinished, &self.cache, progress))
            .and_then(|home| publish(&home, &directory));
        // What cannot be removed now is removed by the next pull.
        let _ = remove_directory(&unfinished);
        made.map(|()| directory)
    }

    /// Gets the sysroot, with `packages` beside those that every sysroot has. One that is there and has them stays as it is unless
    /// `replace`; one that lacks some is built anew with all that it had.
    ///
    /// # Errors
    /// See [`Error`]; an older sysroot stays then.
    pub fn pull_sysroot(
        &self,
        packages: &[String],
        replace: bool,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, Error> {
        fs::create_dir_all(&self.root).map_err(Error::host("make", &self.root))?;
        fs::create_dir_all(&self.cache).map_err(Error::host("make", &self.cache))?;
        let _lock = self.lock(Some(progress))?;
        let directory = self.sysroot();
        let mut all = packages.to_vec();
        if let Some((has_all, had)) = sysroot::recorded(&directory, packages) {
            if has_all && !replace {
                return Ok(directory);
            }
            all.extend(had);
        }
        all.sort();
        all.dedup();
        self.clear()?;
        let unfinished = self.root.join(format!("{UNFINISHED}sysroot"));
        let _cache_lock = lock(&self.cache.join(LOCK), Some(progress))?;
        let made = check_room(&self.root, ROOM_BYTES)
            .and_then(|()| fs::create_dir(&unfinished).map_err(Error::host("make", &unfinished)))
            .and_then(|()| sysroot::build(&unfinished, &self.cache, &all, progress))
            .and_then(|()| publish(&unfinished.join("stage"), &directory));
        // What cannot be removed now is removed by the next pull.
        let _ = remove_directory(&unfinished);
        made.map(|()| directory)
    }

    /// All images, by name. A damaged one is listed with what is wrong with it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let directory = match fs::read_dir(&self.root) {
            Ok(directory) => directory,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(Error::host("read", &self.root)(cause)),
        };
        let mut names = Vec::new();
        for entry in directory {
            let entry = entry.map_err(Error::host("read", &self.root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names.into_iter().map(|name| Listed { image: self.get(&name), name }).collect())
    }

    /// The image called `name`.
    ///
    /// # Errors
    /// There is none ([`Error::NotFound`]), or it is damaged ([`Error::Corrupt`]).
    pub fn get(&self, name: &str) -> Result<Image, Error> {
        check_name(name)?;
        let name = Port::find(name).map_or(name, |port| port.name());
        let directory = self.root.join(name);
        if fs::symlink_metadata(&directory).is_err() {
            return Err(Error::NotFound { name: name.into() });
        }
        Image::open(name, directory)
    }

    /// Removes the image or folder called `name`, damaged or not.
    ///
    /// # Errors
    /// There is none, or the host cannot remove it.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let folder = self.folders().into_iter().find(|folder| folder.name == name);
        if folder.is_some() {
            fs::create_dir_all(&self.root).map_err(Error::host("make", &self.root))?;
        }
        let directory = folder.map_or_else(|| self.root.join(name), |folder| folder.path);
        let found = fs::symlink_metadata(&directory).map_err(|_| Error::NotFound { name: name.into() })?;
        if !found.is_dir() {
            return fs::remove_file(&directory).map_err(Error::host("remove", &directory));
        }
        // Renamed first, so that a removal that is interrupted does not leave half an image under the name.
        let _lock = self.lock(None)?;
        let doomed = self.root.join(format!("{UNFINISHED}{name}"));
        remove_directory(&doomed)?;
        fs::rename(&directory, &doomed).map_err(Error::host("remove", &directory))?;
        remove_directory(&doomed)
    }

    /// Gets the image called `name`: builds it unless it is there. The guest's part of the work is run by `configurator`.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left in the store then but what the next pull clears away.
    pub fn pull(
        &self,
        name: &str,
        options: &PullOptions,
        configurator: &mut dyn Configurator,
        progress: &mut dyn Progress,
    ) -> Result<Image, Error> {
        check_name(name)?;
        let port = Port::find(name).ok_or_else(|| Error::Unknown { name: name.into(), known: port::NAMES })?;
        self.install(port.name, options.replace, progress, |directory, progress| {
            fs::create_dir_all(&self.cache).map_err(Error::host("make", &self.cache))?;
            // The cache may be shared with other stores.
            let _cache_lock = lock(&self.cache.join(LOCK), Some(progress))?;
            check_room(&self.root, ROOM_BYTES)?;
            let disk_bytes = options.disk_bytes.max(1 << 30).next_multiple_of(1 << 20);
            debian::Build { port, directory, cache: &self.cache, disk_bytes, configurator, progress }.run()
        })
    }

    /// Puts the image that `make` makes in a directory into the store, under `name`.
    fn install(
        &self,
        name: &str,
        replace: bool,
        progress: &mut dyn Progress,
        make: impl FnOnce(&Path, &mut dyn Progress) -> Result<Manifest, Error>,
    ) -> Result<Image, Error> {
        fs::create_dir_all(&self.root).map_err(Error::host("make", &self.root))?;
        let _lock = self.lock(Some(progress))?;
        if !replace {
            match self.get(name) {
                Err(Error::NotFound { .. }) => {}
                found => return found,
            }
        }
        self.clear()?;
        let unfinished = self.root.join(format!("{UNFINISHED}{name}"));
        let made = fs::create_dir(&unfinished)
            .map_err(Error::host("make", &unfinished))
            .and_then(|()| make(&unfinished, progress))
            .and_then(|manifest| {
                progress.phase(Phase::Finish, 0);
                Image::write(&unfinished, &manifest)?;
                sync(&unfinished)
            })
            .and_then(|()| publish(&unfinished, &self.root.join(name)));
        if let Err(error) = made {
            // The first error is the one to tell; what cannot be removed now is removed by the next pull.
            let _ = remove_directory(&unfinished);
            return Err(error);
        }
        self.get(name)
    }

    /// Removes what interrupted pulls have left. The lock is held, so no pull is at work on any of it.
    fn clear(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.root).map_err(Error::host("read", &self.root))? {
            let entry = entry.map_err(Error::host("read", &self.root))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                remove_directory(&entry.path())?;
            }
        }
        Ok(())
    }

    fn lock(&self, progress: Option<&mut dyn Progress>) -> Result<File, Error> {
        lock(&self.root.join(LOCK), progress)
    }
}

/// Gives the finished directory `unfinished` the name `directory`, in one step even if there is one of that name.
fn publish(unfinished: &Path, directory: &Path) -> Result<(), Error> {
    let failed = |cause: rustix::io::Errno| Error::host("rename to", directory)(cause.into());
    match renameat_with(CWD, unfinished, CWD, directory, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            renameat_with(CWD, unfinished, CWD, directory, RenameFlags::EXCHANGE).map_err(failed)?;
            remove_directory(unfinished)?;
        }
        Err(cause) => return Err(failed(cause)),
    }
    directory.parent().map_or(Ok(()), sync_path)
}

/// Locks the file `path`, making it if need be; until the answer is dropped.
fn lock(path: &Path, progress: Option<&mut dyn Progress>) -> Result<File, Error> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(Error::host("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(cause) => return Err(Error::host("lock", path)(cause.into())),
    }
    if let Some(progress) = progress {
        progress.phase(Phase::Waiting, 0);
    }
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(cause) => return Err(Error::host("lock", path)(cause.into())),
        }
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.:".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && name.len() <= 64 && name.chars().all(good) {
        Ok(())
    } else {
        Err(Error::BadName { name: name.into() })
    }
}

/// Says so now if the file system of `path` has not `needed` bytes to give.
fn check_room(path: &Path, needed: u64) -> Result<(), Error> {
    let room = statvfs(path).map_err(|cause| Error::host("look at", path)(cause.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < needed {
        let needed = format!("{} MiB are needed and {} are free", needed >> 20, free >> 20);
        return Err(Error::DiskFull { path: path.into(), needed });
    }
    Ok(())
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::host("remove", path)(cause)),
        _ => Ok(()),
    }
}

/// Returns when the files in `directory`, and the directory, are on the platter.
fn sync(directory: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::host("read", directory))? {
        sync_path(&entry.map_err(Error::host("read", directory))?.path())?;
    }
    sync_path(directory)
}

fn sync_path(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::host("write", path))
}

#[cfg(test)]
mod tests;
