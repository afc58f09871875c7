//! A compiler for guests: Debian's gcc on a disk of its own, so that they need no network.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Guest, SOON, home, isomorph};
use crate::{run, workspace};

/// The label of the disk's file system.
const LABEL: &str = "sysroot";
/// Where a guest has it. The compiler sees its own files where it looks for them if it is started by `chroot`; its `/tmp` can be written.
pub(crate) const ROOT: &str = "/srv";

/// It and its C library, on a disk that guests only read.
pub(crate) struct Compiler {
    /// A raw image.
    pub(crate) disk: PathBuf,
}

impl Compiler {
    /// Makes the disk of packages that are downloaded once.
    pub(crate) fn pull() -> Result<Self> {
        run::run(isomorph().args(["image", "pull", "sysroot", "--with", "gcc,libc6-dev"]))?;
        let sysroot = home().join("sysroot");
        let folder = workspace::target().join("bench");
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let disk = folder.join("sysroot.ext4");
        let _ = std::fs::remove_file(&disk);
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-t", "ext4", "-L", LABEL, "-d"]).arg(&sysroot).arg(&disk).arg("2G");
        run::run(&mut command)?;
        Ok(Self { disk })
    }

    /// Puts it where [`ROOT`] says, in a guest that has the disk and is logged in.
    pub(crate) fn mount(&self, guest: &mut Guest) -> Result<()> {
        guest.run(&format!("mount -o ro LABEL={LABEL} {ROOT}"), SOON)?;
        guest.run(
            &format!("mount -t tmpfs none {ROOT}/tmp && for d in proc dev; do mount --bind /$d {ROOT}/$d; done"),
            SOON,
        )?;
        Ok(())
    }
}
