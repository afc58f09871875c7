//! The store of machine images, and the builder of the image `debian`.
//!
//! The problem: a user types `isomorph run debian` and wants a whole operating system for another processor, from packages whose
//! signatures were checked, without root and without touching the host's own packages.
//!
//! ```text
//! host's apt sources --> mirror, keyring                                  (sources)
//! apt-get, private configuration --> signed index --> .deb files          (apt; kept in the cache, so a pull resumes)
//! .deb files --> staging directory + owners and modes on the side         (package, tree, database)
//! kernel modules --> module indexes, initramfs                            (elf_module, module_index, initramfs, cpio)
//! staging --> mke2fs -d --> debugfs sets owners and modes --> disk.raw    (filesystem)
//! disk.raw --> booted once, runs the packages' own configuration          (configure, debian)
//! --> manifest, fsync, rename into the store                              (store, manifest)
//! ```
//!
//! A *sysroot* is the same tree before it becomes a disk: the folder that Linux programs find their libraries in (sysroot).
//!
//! The class library of Java (java) is a folder, too, of which nothing is executed.
//!
//! Invariants: an image directory exists under its name only when it is complete and durable; everything before that lives in
//! `.pull-*` directories that the next pull deletes. The crate prints nothing: it tells a [`Progress`] how far it is. It knows
//! no engine: the guest's part of the work is run by a [`Configurator`] that the caller provides.
//!
//! Cost: some 160 MB of packages to fetch, some 15 s of host processor to unpack and lay out, and a boot of the guest that retires about
//! nine thousand million instructions. The image takes 210 MB; a machine of it shows its prompt after under four thousand million.

mod apt;
mod configure;
mod cpio;
mod database;
mod debian;
mod elf_module;
mod error;
mod filesystem;
mod initramfs;
mod java;
mod manifest;
mod module_index;
mod package;
mod port;
mod program;
mod progress;
mod rules;
mod sources;
mod store;
mod sysroot;
mod tree;

pub use configure::{Configurator, HalfMade};
pub use error::Error;
pub use manifest::{Image, InstalledPackage, Manifest};
pub use port::Port;
pub use progress::{Phase, Progress, Silent};
pub use store::{Folder, ImageStore, Listed, PullOptions};
