//! The staging directory: the guest's files as an ordinary user can hold them, and what the user cannot hold on the side.
//!
//! An ordinary user cannot give files to root or make files that others own. So the content of every file is staged with whatever owner
//! the user has, and owner and exact mode are kept in a table, from which `filesystem` sets them in the finished file system.
//!
//! Invariants: a path is resolved against the table's own symbolic links, never by the host's kernel, so no package can write outside the
//! directory; several threads may add at once. Where two packages have the same file, the one with the higher rank wins; of a directory
//! the lower rank's owner and mode win (as with dpkg, the first to make it).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::error::Error;

/// How many symbolic links a path may pass through.
const LINKS_MAX: u32 = 40;
/// The rank of what the builder itself adds: above all packages.
const OWN: usize = usize::MAX;

/// Owner and permissions of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The permission bits, set-user-id and the like among them.
    pub(crate) mode: u32,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory {
        modified_s: u64,
    },
    File,
    /// With its target.
    Link(Vec<u8>),
}

/// An entry of the table.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) owner: Owner,
    rank: usize,
}

impl Node {
    /// The permission bits that the staged file has: the user can always read and write it.
    pub(crate) fn staged_mode(&self) -> u32 {
        match self.kind {
            Kind::Directory { .. } => self.owner.mode & 0o777 | 0o700,
            Kind::File => self.owner.mode & 0o777 | 0o600,
            Kind::Link(_) => self.owner.mode,
        }
    }
}

/// The staged tree. Paths are absolute, without a slash at the end; the root is the empty path.
pub(crate) struct Tree {
    root: PathBuf,
    nodes: Mutex<BTreeMap<Vec<u8>, Node>>,
}

/// What a package or the builder adds at one path.
pub(crate) enum Content<'a> {
    Directory,
    /// A regular file with the bytes of the reader.
    File(&'a mut dyn Read),
    /// A symbolic link with its target.
    Link(&'a [u8]),
    /// Another name of the file at this path.
    HardLink(&'a [u8]),
}

fn malformed(path: &[u8], what: &str) -> Error {
    Error::Unbootable { cause: format!("{}: {what}", String::from_utf8_lossy(path)) }
}

impl Tree {
    /// An empty tree staged in the new directory `root`.
    pub(crate) fn new(root: PathBuf) -> Result<Self, Error> {
        fs::create_dir(&root).map_err(Error::host("make", &root))?;
        let top = Node {
            kind: Kind::Directory { modified_s: 0 },
            owner: Owner { mode: 0o755, ..Owner::default() },
            rank: OWN,
        };
        Ok(Self { root, nodes: Mutex::new(BTreeMap::from([(Vec::new(), top)])) })
    }

    /// The staging directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries, sorted by path.
    pub(crate) fn nodes(&self) -> BTreeMap<Vec<u8>, Node> {
        self.lock().clone()
    }

    /// Where the content of the entry at the resolved `path` is staged.
    fn staged(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
    }

    /// The staged file of `path`, symbolic links followed, if there is such a file.
    pub(crate) fn find(&self, path: &[u8]) -> Option<PathBuf> {
        let nodes = self.lock();
        let resolved = resolve(&nodes, path, true).ok()?;
        matches!(nodes.get(&resolved)?.kind, Kind::File).then(|| self.staged(&resolved))
    }

    /// Adds a file of the builder's own, owned by root.
    pub(crate) fn write(&self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), Error> {
        let mut bytes = bytes;
        self.add(path.as_bytes(), Owner { mode, ..Owner::default() }, now_s(), OWN, Content::File(&mut bytes))
    }

    /// Adds a directory of the builder's own, owned by root.
    pub(crate) fn make_directory(&self, path: &str) -> Result<(), Error> {
        self.add(path.as_bytes(), Owner { mode: 0o755, ..Owner::default() }, now_s(), OWN, Content::Directory)
    }

    /// Adds a symbolic link of the builder's own.
    pub(crate) fn link(&self, path: &str, target: &str) -> Result<(), Error> {
        let owner = Owner { mode: 0o777, ..Owner::default() };
        self.add(path.as_bytes(), owner, now_s(), OWN, Content::Link(target.as_bytes()))
    }

    /// Adds `content` at `path`, making directories above it as needed. `rank` decides between two packages with the same path.
    pub(crate) fn add(
        &self,
        path: &[u8],
        owner: Owner,
        modified_s: u64,
        rank: usize,
        content: Content<'_>,
    ) -> Result<(), Error> {
        let mut nodes = self.lock();
        let resolved = resolve(&nodes, path, matches!(content, Content::Directory))?;
        if resolved.is_empty() {
            // The root's own entry: base-files gives it.
            nodes.insert(resolved, Node { kind: Kind::Directory { modified_s }, owner, rank });
            return Ok(());
        }
        self.make_parents(&mut nodes, &resolved, modified_s)?;
        let staged = self.staged(&resolved);
        if let Content::Directory = content {
            let directory = Node { kind: Kind::Directory { modified_s }, owner, rank };
            match nodes.get_mut(&resolved) {
                Some(Node { kind: Kind::Directory { .. }, rank: old, .. }) if *old <= rank && *old != OWN => {}
                Some(node @ Node { kind: Kind::Directory { .. }, .. }) => *node = directory,
                Some(_) => return Err(malformed(path, "is a directory here and a file elsewhere")),
                None => {
                    fs::create_dir(&staged).map_err(Error::host("make", &staged))?;
                    nodes.insert(resolved, directory);
                }
            }
            return Ok(());
        }
        match nodes.get(&resolved) {
            Some(Node { kind: Kind::Directory { .. }, .. }) => {
                return Err(malformed(path, "is a file here and a directory elsewhere"));
            }
            Some(node) if node.rank > rank => return Ok(()),
            Some(_) => fs::remove_file(&staged).map_err(Error::host("replace", &staged))?,
            None => {}
        }
        match content {
            Content::Directory => {}
            Content::Link(target) => {
                symlink(OsStr::from_bytes(target), &staged).map_err(Error::host("make", &staged))?;
                nodes.insert(resolved, Node { kind: Kind::Link(target.to_vec()), owner, rank });
            }
            Content::HardLink(target) => {
                let target = resolve(&nodes, target, false)?;
                let Some(node) = nodes.get(&target).filter(|n| n.kind == Kind::File).cloned() else {
                    return Err(malformed(path, "is a link to a file that is not there"));
                };
                let original = self.staged(&target);
                fs::hard_link(&original, &staged).map_err(Error::host("make", &staged))?;
                nodes.insert(resolved, Node { rank, ..node });
            }
            Content::File(reader) => {
                let node = Node { kind: Kind::File, owner, rank };
                let mode = node.staged_mode();
                let mut file = File::create_new(&staged).map_err(Error::host("make", &staged))?;
                nodes.insert(resolved, node);
                // The content is written without the lock, so that threads do it at once.
                drop(nodes);
                let written = io::copy(reader, &mut file)
                    .and_then(|_| file.set_permissions(Permissions::from_mode(mode)))
                    .and_then(|()| file.set_modified(time(modified_s)));
                written.map_err(Error::host("write", &staged))?;
            }
        }
        Ok(())
    }

    fn make_parents(&self, nodes: &mut BTreeMap<Vec<u8>, Node>, path: &[u8], modified_s: u64) -> Result<(), Error> {
        for end in (1..path.len()).filter(|end| path[*end] == b'/') {
            let parent = &path[..end];
            match nodes.get(parent) {
                Some(Node { kind: Kind::Directory { .. }, .. }) => {}
                Some(_) => return Err(malformed(path, "lies below a file")),
                None => {
                    let staged = self.staged(parent);
                    fs::create_dir(&staged).map_err(Error::host("make", &staged))?;
                    let owner = Owner { mode: 0o755, ..Owner::default() };
                    nodes.insert(parent.to_vec(), Node { kind: Kind::Directory { modified_s }, owner, rank: OWN });
                }
            }
        }
        Ok(())
    }

    /// Gives directories their modes and times; to be called when all is added.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        for (path, node) in self.lock().iter().rev() {
            let Kind::Directory { modified_s } = node.kind else { continue };
            let staged = self.staged(path);
            fs::set_permissions(&staged, Permissions::from_mode(node.staged_mode()))
                .and_then(|()| File::open(&staged)?.set_modified(time(modified_s)))
                .map_err(Error::host("change", &staged))?;
        }
        Ok(())
    }
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX)))
}

/// The host's time in seconds.
pub(crate) fn now_s() -> u64 {
    machine::clock::wall_time_ns() / 1_000_000_000
}

/// `path` without symbolic links in its directories, nor as its last part if `last`.
fn resolve(nodes: &BTreeMap<Vec<u8>, Node>, path: &[u8], last: bool) -> Result<Vec<u8>, Error> {
    let mut resolved: Vec<u8> = Vec::new();
    // The parts still to walk, the next one at the end.
    let parts = |path: &[u8]| path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        match &*part {
            b"" | b"." => continue,
            b".." => {
                let end = resolved.iter().rposition(|b| *b == b'/').unwrap_or(0);
                resolved.truncate(end);
                continue;
            }
            _ => {}
        }
        if part.contains(&0) || part.contains(&b'\n') {
            return Err(malformed(path, "has a character that no file name has"));
        }
        resolved.push(b'/');
        resolved.extend_from_slice(&part);
        let is_last = rest.iter().all(|part| part.is_empty() || part == b".");
        if let Some(Node { kind: Kind::Link(target), .. }) = nodes.get(&resolved)
            && (last || !is_last)
        {
            links += 1;
            if links > LINKS_MAX {
                return Err(malformed(path, "goes through too many links"));
            }
            let end = resolved.len() - part.len() - 1;
            resolved.truncate(if target.first() == Some(&b'/') { 0 } else { end });
            rest.extend(parts(target));
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path().join("stage")).unwrap();
        (root, tree)
    }

    const ROOT: Owner = Owner { uid: 0, gid: 0, mode: 0o755 };

    #[test]
    fn files_land_behind_links_and_keep_their_owners() {
        let (_root, tree) = tree();
        tree.add(b"./usr/lib/", ROOT, 7, 0, Content::Directory).unwrap();
        tree.link("/lib", "usr/lib").unwrap();
        tree.add(b"./lib/", ROOT, 7, 1, Content::Directory).unwrap();
        let owner = Owner { uid: 0, gid: 42, mode: 0o4755 };
        tree.add(b"./lib/su", owner, 7, 1, Content::File(&mut &b"text"[..])).unwrap();
        tree.add(b"./bin/su2", owner, 7, 1, Content::HardLink(b"./lib/su")).unwrap();
        tree.finish().unwrap();
        let nodes = tree.nodes();
        assert_eq!(nodes[&b"/usr/lib/su"[..]].owner, owner);
        assert_eq!(nodes[&b"/bin/su2"[..]].owner, owner);
        assert!(matches!(nodes[&b"/lib"[..]].kind, Kind::Link(_)));
        let staged = tree.find(b"/lib/su").unwrap();
        assert_eq!(fs::read(&staged).unwrap(), b"text");
        assert_eq!(fs::metadata(&staged).unwrap().permissions().mode() & 0o7777, 0o755);
        let directory = fs::metadata(tree.root().join("usr/lib")).unwrap();
        assert_eq!(directory.modified().unwrap(), time(7));
    }

    #[test]
    fn no_package_writes_outside() {
        let (root, tree) = tree();
        tree.link("/out", "/../../../../tmp").unwrap();
        tree.add(b"/out/../../x", ROOT, 0, 0, Content::File(&mut &b"1"[..])).unwrap();
        tree.add(b"/out/y", ROOT, 0, 0, Content::File(&mut &b"2"[..])).unwrap();
        assert!(tree.root().join("x").is_file() && tree.root().join("tmp/y").is_file());
        assert!(!root.path().join("x").exists());
        tree.link("/a", "b").unwrap();
        tree.link("/b", "a").unwrap();
        assert!(tree.add(b"/a/z", ROOT, 0, 0, Content::Directory).is_err());
        assert!(tree.add(b"/a\nb", ROOT, 0, 0, Content::Directory).is_err());
    }

    #[test]
    fn ranks_decide_whatever_the_order() {
        for ranks in [[1, 2], [2, 1]] {
            let (_root, tree) = tree();
            for rank in ranks {
                let owner = Owner { uid: u32::try_from(rank).unwrap(), ..ROOT };
                tree.add(b"/d", owner, 0, rank, Content::Directory).unwrap();
                tree.add(b"/d/f", owner, 0, rank, Content::File(&mut rank.to_string().as_bytes())).unwrap();
            }
            assert_eq!(tree.nodes()[&b"/d"[..]].owner.uid, 1);
            assert_eq!(fs::read(tree.find(b"/d/f").unwrap()).unwrap(), b"2");
        }
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let (_root, tree) = tree();
        tree.write("/f", 0o644, b"").unwrap();
        assert!(tree.write("/f/g", 0o644, b"").is_err());
        assert!(tree.make_directory("/f").is_err());
        tree.make_directory("/d").unwrap();
        assert!(tree.write("/d", 0o644, b"").is_err());
    }

    proptest! {
        #[test]
        fn resolved_paths_have_no_dots(path in "[/.a]{0,12}", target in "[/.ab]{1,6}") {
            let (_root, tree) = tree();
            tree.link("/a", &target).unwrap();
            if let Ok(resolved) = resolve(&tree.lock(), path.as_bytes(), true) {
                let text = String::from_utf8(resolved).unwrap();
                prop_assert!(text.is_empty() || text.starts_with('/') && !text.ends_with('/'));
                prop_assert!(text.split('/').skip(1).all(|p| !p.is_empty() && p != "." && p != ".."));
            }
        }
    }
}
