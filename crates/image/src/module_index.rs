//! The indexes by which `modprobe` and udev find kernel modules, as `depmod` writes them (modules.dep(5); kmod's binary index).
//!
//! Built here because `depmod` would have to run in the guest, where unpacking every module takes an emulated machine a minute. The binary index is
//! a radix tree: big-endian words, children before parents,
//!
//! ```text
//! magic, version, offset of the root | flags
//! node: [prefix, NUL]  [first, last, offset of each child from first to last]  [count, (priority, value, NUL)...]
//! ```
//!
//! where the flags in the upper bits of a node's offset say which of its three parts there are.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::elf_module::{Module, fields};
use crate::error::Error;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
const OFFSET: u32 = 0x0fff_ffff;

/// The kernel's modules, by name.
pub(crate) struct Modules {
    modules: Vec<Module>,
    by_name: HashMap<String, usize>,
}

impl Modules {
    /// The modules, in the order that decides which of two that claim a device comes first: that of `order` (the kernel's file
    /// `modules.order`), then by path.
    pub(crate) fn new(mut modules: Vec<Module>, order: &str) -> Self {
        let plain = |path: &str| path.trim_end_matches(".xz").to_owned();
        let places: HashMap<_, _> = order.lines().enumerate().map(|(place, path)| (plain(path), place)).collect();
        modules.sort_by_cached_key(|m| (places.get(&plain(&m.path)).copied().unwrap_or(usize::MAX), m.path.clone()));
        let by_name = modules.iter().enumerate().map(|(i, m)| (m.name.clone(), i)).collect();
        Self { modules, by_name }
    }

    fn find(&self, name: &str) -> Option<&Module> {
        self.by_name.get(name).map(|index| &self.modules[*index])
    }

    /// Whether there is a module called `name`.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The module called `name`, or the first with that alias.
    fn find_or_alias(&self, name: &str) -> Option<&Module> {
        self.find(&name.replace('-', "_")).or_else(|| self.modules.iter().find(|m| m.aliases.iter().any(|a| a == name)))
    }

    /// The modules to load for `wanted`, each after those that it needs. With soft dependencies if `soft`. What is built into the kernel
    /// (the lines of `builtin`) needs no loading.
    pub(crate) fn closure(&self, wanted: &[&str], builtin: &str, soft: bool) -> Result<Vec<&Module>, Error> {
        let mut loaded: Vec<&Module> = Vec::new();
        for name in wanted {
            match self.find_or_alias(name) {
                Some(module) => self.visit(module, soft, &mut loaded, 0)?,
                None if builtin_names(builtin).any(|found| found == *name) => {}
                None => return Err(Error::Unbootable { cause: format!("the kernel has no module {name}") }),
            }
        }
        Ok(loaded)
    }

    fn visit<'a>(
        &'a self,
        module: &'a Module,
        soft: bool,
        loaded: &mut Vec<&'a Module>,
        depth: usize,
    ) -> Result<(), Error> {
        if loaded.iter().any(|m| m.name == module.name) {
            return Ok(());
        }
        if depth > self.modules.len() {
            return Err(Error::Unbootable { cause: format!("module {} needs itself", module.name) });
        }
        for name in &module.depends {
            if let Some(needed) = self.find(name) {
                self.visit(needed, soft, loaded, depth + 1)?;
            }
        }
        if soft {
            for needed in module.soft_before().filter_map(|name| self.find_or_alias(name)) {
                self.visit(needed, soft, loaded, depth + 1)?;
            }
        }
        if !loaded.iter().any(|m| m.name == module.name) {
            loaded.push(module);
        }
        Ok(())
    }

    /// The index files' names and contents. `builtin` and `builtin_info` are the kernel's files `modules.builtin` and
    /// `modules.builtin.modinfo`.
    pub(crate) fn index_files(
        &self,
        builtin: &str,
        builtin_info: &[u8],
    ) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
        let mut dependencies = (String::new(), Index::default());
        let mut aliases = (String::from("# Aliases extracted from modules themselves.\n"), Index::default());
        let mut soft = String::from("# Soft dependencies extracted from modules themselves.\n");
        let mut weak = String::from("# Weak dependencies extracted from modules themselves.\n");
        let mut devices = String::from("# Device nodes to trigger on-demand module loading.\n");
        for (priority, module) in (0..).zip(&self.modules) {
            let mut needed = Vec::new();
            self.visit(module, false, &mut needed, 0)?;
            needed.pop();
            // The reader loads the line's modules from its end.
            let line = needed.iter().rev().fold(format!("{}:", module.path), |line, m| line + " " + &m.path);
            dependencies.1.insert(&module.name, priority, &line);
            dependencies.0 += &line;
            dependencies.0.push('\n');
            for alias in &module.aliases {
                let _ = writeln!(aliases.0, "alias {alias} {}", module.name);
                aliases.1.insert(&with_underscores(alias), priority, &module.name);
            }
            for line in &module.soft {
                let _ = writeln!(soft, "softdep {} {line}", module.name);
            }
            for line in &module.weak {
                let _ = writeln!(weak, "weakdep {} {line}", module.name);
            }
            devices.extend(device_node(module));
        }
        let mut builtins = Index::default();
        for (priority, name) in (0..).zip(builtin_names(builtin)) {
            builtins.insert(&name, priority, "");
        }
        let mut builtin_aliases = Index::default();
        for (key, value) in fields(builtin_info) {
            if let Some((name, "alias")) = key.split_once('.') {
                builtin_aliases.insert(&with_underscores(&value), 0, name);
            }
        }
        Ok(vec![
            ("modules.dep", dependencies.0.into_bytes()),
            ("modules.dep.bin", dependencies.1.finish()),
            ("modules.alias", aliases.0.into_bytes()),
            ("modules.alias.bin", aliases.1.finish()),
            ("modules.symbols", b"# Aliases for symbols, used by symbol_request().\n".to_vec()),
            ("modules.symbols.bin", Index::default().finish()),
            ("modules.softdep", soft.into_bytes()),
            ("modules.weakdep", weak.into_bytes()),
            ("modules.devname", devices.into_bytes()),
            ("modules.builtin.bin", builtins.finish()),
            ("modules.builtin.alias.bin", builtin_aliases.finish()),
        ])
    }
}

fn builtin_names(builtin: &str) -> impl Iterator<Item = String> {
    builtin.lines().filter_map(crate::elf_module::module_name)
}

/// The line of `modules.devname` for a module that has a device node before it is loaded.
fn device_node(module: &Module) -> Option<String> {
    let name = module.aliases.iter().find_map(|alias| alias.strip_prefix("devname:"))?;
    module.aliases.iter().find_map(|alias| {
        let (kind, numbers) = [("c", "char-major-"), ("b", "block-major-")]
            .iter()
            .find_map(|(kind, prefix)| Some((kind, alias.strip_prefix(prefix)?)))?;
        let (major, minor) = numbers.split_once('-')?;
        Some(format!("{} {name} {kind}{}:{}\n", module.name, major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    })
}

/// `alias` with `_` for `-`, but not between brackets, where `-` is a range.
fn with_underscores(alias: &str) -> String {
    let mut inside = false;
    alias
        .chars()
        .map(|c| {
            inside = (inside || c == '[') && c != ']';
            if c == '-' && !inside { '_' } else { c }
        })
        .collect()
}

/// A binary index under construction.
#[derive(Default)]
struct Index {
    root: Branch,
}

#[derive(Default)]
struct Branch {
    children: BTreeMap<u8, Branch>,
    values: Vec<(u32, String)>,
}

impl Index {
    fn insert(&mut self, key: &str, priority: u32, value: &str) {
        // The format has room for 7-bit characters only; no module has others.
        if !key.is_ascii() {
            return;
        }
        let branch = key.bytes().fold(&mut self.root, |branch, byte| branch.children.entry(byte).or_default());
        if !branch.values.iter().any(|(_, found)| found == value) {
            branch.values.push((priority, value.into()));
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, VERSION, 0] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        let root = write(&self.root, &mut bytes);
        bytes[8..12].copy_from_slice(&root.to_be_bytes());
        bytes
    }
}

/// Writes the node that `branch` begins, and answers its offset with flags. A chain of branches without values or forks becomes the
/// node's prefix. Recursion is as deep as a key is long.
fn write(mut branch: &Branch, bytes: &mut Vec<u8>) -> u32 {
    let mut prefix = Vec::new();
    while branch.values.is_empty()
        && let (1, Some((byte, child))) = (branch.children.len(), branch.children.first_key_value())
    {
        prefix.push(*byte);
        branch = child;
    }
    let span = branch.children.first_key_value().zip(branch.children.last_key_value()).map(|((f, _), (l, _))| (*f, *l));
    let mut offsets = Vec::new();
    if let Some((first, last)) = span {
        for byte in first..=last {
            offsets.push(branch.children.get(&byte).map_or(0, |child| write(child, bytes)));
        }
    }
    // An index has a few hundred KiB; the format ends at 256 MiB.
    let mut node = u32::try_from(bytes.len()).unwrap_or(u32::MAX) & OFFSET;
    if !prefix.is_empty() {
        node |= HAS_PREFIX;
        bytes.extend_from_slice(&prefix);
        bytes.push(0);
    }
    if let Some((first, last)) = span {
        node |= HAS_CHILDREN;
        bytes.extend_from_slice(&[first, last]);
        for offset in offsets {
            bytes.extend_from_slice(&offset.to_be_bytes());
        }
    }
    if !branch.values.is_empty() {
        node |= HAS_VALUES;
        bytes.extend_from_slice(&u32::try_from(branch.values.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (priority, value) in &branch.values {
            bytes.extend_from_slice(&priority.to_be_bytes());
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn module(name: &str, depends: &[&str], aliases: &[&str]) -> Module {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Module {
            name: name.into(),
            path: format!("kernel/{name}.ko.xz"),
            depends: owned(depends),
            aliases: owned(aliases),
            ..Module::default()
        }
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn text(bytes: &[u8], at: &mut usize) -> String {
        let end = *at + bytes[*at..].iter().position(|b| *b == 0).unwrap();
        let text = String::from_utf8(bytes[*at..end].to_vec()).unwrap();
        *at = end + 1;
        text
    }

    /// Looks `key` up as a reader of the format does.
    fn look_up(bytes: &[u8], key: &str) -> Vec<String> {
        assert_eq!((word(bytes, 0), word(bytes, 4)), (MAGIC, VERSION));
        let (mut node, mut key) = (word(bytes, 8), key.as_bytes());
        loop {
            let mut at = (node & OFFSET) as usize;
            if node & HAS_PREFIX != 0 {
                let prefix = text(bytes, &mut at);
                let Some(rest) = key.strip_prefix(prefix.as_bytes()) else { return Vec::new() };
                key = rest;
            }
            let mut next = 0;
            if node & HAS_CHILDREN != 0 {
                let (first, last) = (bytes[at], bytes[at + 1]);
                if let Some(byte) = key.first().filter(|b| (first..=last).contains(b)) {
                    next = word(bytes, at + 2 + 4 * usize::from(byte - first));
                }
                at += 2 + 4 * (usize::from(last - first) + 1);
            }
            if key.is_empty() {
                if node & HAS_VALUES == 0 {
                    return Vec::new();
                }
                let count = word(bytes, at);
                at += 4;
                return (0..count)
                    .map(|_| {
                        at += 4;
                        text(bytes, &mut at)
                    })
                    .collect();
            }
            if next == 0 {
                return Vec::new();
            }
            node = next;
            key = &key[1..];
        }
    }

    #[test]
    fn dependencies_come_before_their_users() {
        let modules = vec![
            module("ext4", &["jbd2", "mbcache", "crc16"], &["fs-ext4"]),
            module("jbd2", &[], &[]),
            module("mbcache", &[], &[]),
            module("crc16", &[], &[]),
            module("crc32c_generic", &[], &["crc32c", "crypto-crc32c"]),
        ];
        let mut modules = Modules::new(modules, "kernel/crc16.ko\nkernel/ext4.ko\n");
        let at = modules.by_name["ext4"];
        modules.modules[at].soft = vec!["pre: crc32c missing".into()];
        let names = |list: Vec<&Module>| list.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
        let closure = names(modules.closure(&["ext4"], "", true).unwrap());
        assert_eq!(closure, ["jbd2", "mbcache", "crc16", "crc32c_generic", "ext4"]);
        assert!(modules.closure(&["virtio"], "kernel/x/virtio.ko\n", true).unwrap().is_empty());
        let error = modules.closure(&["virtio"], "", true).err().unwrap().to_string();
        assert!(error.contains("no module virtio"), "{error}");

        let files: HashMap<_, _> =
            modules.index_files("kernel/x/virtio-a.ko\n", b"virtio_a.alias=of:X-Y\0").unwrap().into_iter().collect();
        let line = "kernel/ext4.ko.xz: kernel/crc16.ko.xz kernel/mbcache.ko.xz kernel/jbd2.ko.xz";
        assert_eq!(look_up(&files["modules.dep.bin"], "ext4"), [line]);
        assert!(String::from_utf8(files["modules.dep"].clone()).unwrap().lines().nth(1) == Some(line));
        assert_eq!(look_up(&files["modules.alias.bin"], "crypto_crc32c"), ["crc32c_generic"]);
        assert_eq!(look_up(&files["modules.builtin.bin"], "virtio_a"), [""]);
        assert_eq!(look_up(&files["modules.builtin.alias.bin"], "of:X_Y"), ["virtio_a"]);
        assert!(look_up(&files["modules.symbols.bin"], "x").is_empty());
    }

    #[test]
    fn a_circle_of_modules_ends() {
        let modules = Modules::new(vec![module("a", &["b"], &[]), module("b", &["a"], &[])], "");
        assert!(modules.closure(&["a"], "", true).is_err());
    }

    #[test]
    fn device_nodes_and_ranges() {
        let fuse = module("fuse", &[], &["devname:fuse", "char-major-10-229", "fs-fuse"]);
        assert_eq!(device_node(&fuse).as_deref(), Some("fuse fuse c10:229\n"));
        assert_eq!(device_node(&module("x", &[], &["char-major-5-*"])), None);
        assert_eq!(with_underscores("usb:a-[0-9]-b"), "usb:a_[0-9]_b");
    }

    proptest! {
        #[test]
        fn every_key_is_found_again(keys in proptest::collection::btree_set("[a-d*]{0,6}", 0..40), other in "[a-e]{0,6}") {
            let mut index = Index::default();
            for (priority, key) in (0..).zip(&keys) {
                index.insert(key, priority, &format!("<{key}>"));
            }
            let bytes = index.finish();
            for key in &keys {
                prop_assert_eq!(look_up(&bytes, key), [format!("<{key}>")]);
            }
            prop_assert_eq!(look_up(&bytes, &other).len(), usize::from(keys.contains(&other)));
        }
    }
}
