//! A folder of Debian for 64-bit RISC-V: what Linux programs need around them when they run without a machine.
//!
//! Nothing in it is booted and nothing configured: the packages' files, the accounts that every system has, and the links that packages
//! would make with `update-alternatives`, as far as programs look for them. Files belong to the user who pulls.

use std::fs;
use std::path::Path;

use crate::apt::Apt;
use crate::debian::{SUITE, unpack};
use crate::error::Error;
use crate::port;
use crate::program;
use crate::progress::{Phase, Progress};
use crate::sources;
use crate::tree::Tree;

/// What it has at least: the essential packages, and the libraries that programs are linked with.
const PACKAGES: &[&str] = &["?essential", "libgcc-s1", "libstdc++6", "zlib1g"];

/// In it: the packages that it was pulled with beside [`PACKAGES`], one a line.
const RECORD: &str = "etc/isomorph-sysroot";

/// Names that Debian's alternatives give: the link, and what it leads to if that is there.
const ALTERNATIVES: &[(&str, &str)] = &[
    ("/usr/bin/awk", "mawk"),
    ("/usr/bin/cc", "gcc"),
    ("/usr/bin/c++", "g++"),
    ("/usr/bin/lua", "lua5.4"),
    ("/usr/bin/pager", "less"),
];

/// Whether the finished sysroot in `directory` has all of `packages`, and what it was pulled with.
pub(crate) fn recorded(directory: &Path, packages: &[String]) -> Option<(bool, Vec<String>)> {
    let text = fs::read_to_string(directory.join(RECORD)).ok()?;
    let has: Vec<String> = text.lines().map(str::to_owned).collect();
    Some((packages.iter().all(|package| has.contains(package)), has))
}

/// Makes a sysroot with `packages` in the empty `directory`.
pub(crate) fn build(
    directory: &Path,
    cache: &Path,
    packages: &[String],
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let dpkg_deb = program::find("dpkg-deb", "dpkg")?;
    let mirror = sources::host_mirror(Path::new("/etc/apt"), Path::new("/usr/share/keyrings"))?;
    let architecture = port::RISCV64.architecture;
    let apt = Apt::new(&cache.join(format!("sysroot-{SUITE}-{architecture}")), mirror, architecture, SUITE)?;
    let wanted: Vec<&str> = PACKAGES.iter().copied().chain(packages.iter().map(String::as_str)).collect();
    apt.update(progress)?;
    apt.download(&wanted, progress)?;
    let chosen = apt.resolve(&wanted)?;
    apt.forget_others(&chosen)?;

    let tree = Tree::new(directory.join("stage"))?;
    unpack(&tree, &dpkg_deb, &apt.archives(), &chosen, progress)?;
    progress.phase(Phase::Layout, 1);
    for name in ["passwd", "group"] {
        if let Some(master) = tree.find(format!("/usr/share/base-passwd/{name}.master").as_bytes()) {
            let bytes = fs::read(&master).map_err(Error::host("read", &master))?;
            tree.write(&format!("/etc/{name}"), 0o644, &bytes)?;
        }
    }
    for (link, target) in ALTERNATIVES {
        let folder = link.rsplit_once('/').map_or("", |(folder, _)| folder);
        if tree.find(link.as_bytes()).is_none() && tree.find(format!("{folder}/{target}").as_bytes()).is_some() {
            tree.link(link, target)?;
        }
    }
    let record: String = packages.iter().map(|package| format!("{package}\n")).collect();
    tree.write(&format!("/{RECORD}"), 0o644, record.as_bytes())?;
    tree.finish()?;
    progress.position(1, "");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysroot_knows_what_it_was_pulled_with() {
        let directory = tempfile::tempdir().unwrap();
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(recorded(directory.path(), &[]).is_none());
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join(RECORD), "gcc\nlua5.4\n").unwrap();
        assert_eq!(recorded(directory.path(), &list(&["lua5.4"])), Some((true, list(&["gcc", "lua5.4"]))));
        assert_eq!(recorded(directory.path(), &list(&["perl", "gcc"])), Some((false, list(&["gcc", "lua5.4"]))));
    }
}
