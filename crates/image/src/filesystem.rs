//! From the staged tree to a disk with an ext4 file system, by the host's e2fsprogs.
//!
//! `mke2fs -d` copies the staged files; `debugfs` then sets, in one run, every owner and mode that an ordinary user could not stage. No
//! namespace and no root is needed, and the result is the same whoever runs it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, tail};
use crate::program;
use crate::tree::{Kind, Node, Tree};

/// The features of the file system, whatever the host's defaults. Checksums of metadata are left out: the host looks after its disk,
/// and the guest would compute them in emulated instructions.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,\
huge_file,dir_nlink,extra_isize";

/// Writes the file system of `tree` into the new sparse file `disk` of `bytes` bytes.
pub(crate) fn build(tree: &Tree, disk: &Path, bytes: u64) -> Result<(), Error> {
    let mke2fs = program::find("mke2fs", "e2fsprogs")?;
    let debugfs = program::find("debugfs", "e2fsprogs")?;
    tree.finish()?;
    File::create_new(disk).and_then(|file| file.set_len(bytes)).map_err(Error::host("make", disk))?;
    let mut command = program::command(&mke2fs);
    command
        .args([
            "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-L", "root", "-O", FEATURES, "-J", "size=32",
            "-E",
        ])
        // A new sparse file reads as zeroes: nothing need be written, now or by the guest's kernel later.
        .arg("root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1")
        .arg("-d")
        .arg(tree.root())
        .arg(disk);
    program::run(&mut command).map_err(|error| full_disk(error, disk))?;

    let nodes = tree.nodes();
    let script = owner_script(&nodes, rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if script.is_empty() {
        return Ok(());
    }
    let path = disk.with_extension("debugfs");
    fs::write(&path, script).map_err(Error::host("write", &path))?;
    let mut command = program::command(&debugfs);
    command.args(["-w", "-f"]).arg(&path).arg(disk);
    let output = program::output(&mut command)?;
    fs::remove_file(&path).map_err(Error::host("remove", &path))?;
    // debugfs ends with success whatever happened; it complains on its standard error, after a line with its version.
    let complaints: Vec<_> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| !line.starts_with("debugfs 1.") && !line.trim().is_empty())
        .map(str::to_owned)
        .collect();
    if !output.status.success() || !complaints.is_empty() {
        return Err(Error::Program { program: "debugfs".into(), tail: tail(complaints.join("\n").as_bytes(), 3) });
    }
    Ok(())
}

/// e2fsprogs report a full disk in words.
fn full_disk(error: Error, disk: &Path) -> Error {
    match error {
        Error::Program { tail, .. } if tail.contains("No space left") => Error::DiskFull {
            path: disk.parent().unwrap_or(disk).to_owned(),
            needed: "mke2fs found no space left".into(),
        },
        other => other,
    }
}

/// The commands that give every file its owner and mode, where they differ from what was staged by user `uid` of group `gid`.
fn owner_script(nodes: &BTreeMap<Vec<u8>, Node>, uid: u32, gid: u32) -> Vec<u8> {
    let mut script = Vec::new();
    for (path, node) in nodes {
        // The root's owner is given to mke2fs.
        let (staged_uid, staged_gid) = if path.is_empty() { (0, 0) } else { (uid, gid) };
        let mut set = |field: &str, value: &str| {
            script.extend_from_slice(b"sif ");
            script.extend_from_slice(&quoted(path));
            // Writing to memory does not fail.
            let _ = writeln!(script, " {field} {value}");
        };
        if node.owner.uid != staged_uid {
            set("uid", &node.owner.uid.to_string());
        }
        if node.owner.gid != staged_gid {
            set("gid", &node.owner.gid.to_string());
        }
        let kind = match node.kind {
            Kind::Directory { .. } => 0o040_000,
            Kind::File => 0o100_000,
            Kind::Link(_) => continue,
        };
        if node.owner.mode & 0o7777 != node.staged_mode() {
            set("mode", &format!("0{:o}", kind | node.owner.mode & 0o7777));
        }
    }
    script
}

/// `path` as one word of debugfs's command line: in double quotes, with a double quote written twice.
fn quoted(path: &[u8]) -> Vec<u8> {
    let mut word = vec![b'"'];
    for byte in if path.is_empty() { b"/" } else { path } {
        if *byte == b'"' {
            word.push(b'"');
        }
        word.push(*byte);
    }
    word.push(b'"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Owner};

    #[test]
    fn owners_and_modes_reach_the_file_system_whatever_the_names() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path().join("stage")).unwrap();
        let owner = Owner { uid: 0, gid: 42, mode: 0o2755 };
        let names: &[&[u8]] =
            &[b"/plain", b"/with space", b"/quo\"te", b"/back\\slash", b"/$HOME", b"/\xc3\xa4", b"/<7>", b"/'x'"];
        for name in names {
            tree.add(name, owner, 1_000_000, 0, Content::File(&mut &name[..])).unwrap();
        }
        tree.add(b"/secret", Owner { uid: 7, gid: 8, mode: 0 }, 0, 0, Content::File(&mut &b""[..])).unwrap();
        tree.add(b"/tmp", Owner { uid: 0, gid: 0, mode: 0o1777 }, 0, 0, Content::Directory).unwrap();
        tree.link("/link", "/nowhere at all").unwrap();
        let disk = root.path().join("disk.raw");
        build(&tree, &disk, 512 << 20).unwrap();

        let debugfs = program::find("debugfs", "e2fsprogs").unwrap();
        let listing = program::run(program::command(&debugfs).args(["-R", "ls -p /"]).arg(&disk)).unwrap();
        let listing = String::from_utf8_lossy(&listing).into_owned();
        // Every line is /inode/mode/uid/gid/name/size/
        for name in names {
            let name = String::from_utf8_lossy(&name[1..]);
            assert!(listing.contains(&format!("/102755/0/42/{name}/")), "{name}: {listing}");
        }
        assert!(listing.contains("/100000/7/8/secret/"), "{listing}");
        assert!(listing.contains("/041777/0/0/tmp/"), "{listing}");
        assert!(listing.contains("/120777/0/0/link/"), "{listing}");
        assert!(listing.contains("/040755/0/0/..//"), "{listing}");
        let fsck = program::find("e2fsck", "e2fsprogs").unwrap();
        program::run(program::command(&fsck).args(["-f", "-n"]).arg(&disk)).unwrap();
    }

    #[test]
    fn an_ordinary_user_s_files_become_root_s() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path().join("stage")).unwrap();
        tree.write("/f", 0o4755, b"").unwrap();
        tree.make_directory("/d").unwrap();
        let script = String::from_utf8(owner_script(&tree.nodes(), 1000, 100)).unwrap();
        assert_eq!(
            script,
            "sif \"/d\" uid 0\nsif \"/d\" gid 0\nsif \"/f\" uid 0\nsif \"/f\" gid 0\nsif \"/f\" mode 0104755\n"
        );
        assert_eq!(String::from_utf8(owner_script(&tree.nodes(), 0, 0)).unwrap(), "sif \"/f\" mode 0104755\n");
    }

    #[test]
    fn a_disk_too_small_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path().join("stage")).unwrap();
        tree.write("/f", 0o644, &vec![1; 8 << 20]).unwrap();
        assert!(build(&tree, &root.path().join("disk.raw"), 4 << 20).is_err());
    }
}
