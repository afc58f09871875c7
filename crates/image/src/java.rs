//! The class library of JDK 17: what Java programs need around them, taken out of Debian's package of it.
//!
//! Of the package `openjdk-17-jre-headless` only data is kept (`lib/modules`, time zones, configuration, licences): the virtual machine is ours,
//! and its native libraries stay out. Debian keeps configuration in `/etc` and makes the store of certificates when it installs; here both are
//! files in the folder, the latter made of the package `ca-certificates`. What the package depends on is not fetched, for nothing of it is executed.

use std::fs;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use crate::apt::Apt;
use crate::error::Error;
use crate::package::Package;
use crate::program;
use crate::progress::{Phase, Progress};
use crate::sources;
use crate::tree::{Content, Kind, Owner, Tree, now_s};

/// The release of Debian whose JDK is 17.
const SUITE: &str = "bookworm";
const PACKAGES: &[&str] = &["openjdk-17-jre-headless", "ca-certificates"];
const CERTIFICATES: &[u8] = b"/usr/share/ca-certificates/";
/// What of the package's folder is kept.
const KEPT: &[&str] = &["release", "conf", "legal", "lib/modules", "lib/security", "lib/tzdb.dat", "lib/psfont"];
/// The password of the store of certificates, which every JDK has.
const PASSWORD: &str = "changeit";

/// What Debian calls the architecture of this host.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "powerpc64" => "ppc64el",
        other => other,
    }
}

/// Makes the folder of the class library in the empty `directory`; answers where in it.
pub(crate) fn build(directory: &Path, cache: &Path, progress: &mut dyn Progress) -> Result<PathBuf, Error> {
    let dpkg_deb = program::find("dpkg-deb", "dpkg")?;
    let mirror = sources::host_mirror(Path::new("/etc/apt"), Path::new("/usr/share/keyrings"))?;
    let architecture = architecture();
    let apt = Apt::new(&cache.join(format!("java-{SUITE}-{architecture}")), mirror, architecture, SUITE)?;
    apt.update(progress)?;
    let files = apt.download_alone(PACKAGES, progress)?;

    progress.phase(Phase::Unpack, files.len() as u64);
    let tree = Tree::new(directory.join("stage"))?;
    let home = format!("/usr/lib/jvm/java-17-openjdk-{architecture}");
    for (rank, file) in files.iter().enumerate() {
        unpack(&tree, &Package::new(&dpkg_deb, apt.archives().join(file)), home.as_bytes(), rank)?;
        progress.position(rank as u64 + 1, file);
    }
    progress.phase(Phase::Layout, 1);
    let store = key_store(&certificates(&tree)?);
    tree.write("/etc/ssl/certs/java/cacerts", 0o644, &store)?;
    tree.finish()?;
    let home = tree.root().join(&home[1..]);
    without_links(&tree, &home)?;
    if !home.join("lib/modules").is_file() {
        return Err(Error::Incomplete { what: "the class library", lacks: "lib/modules" });
    }
    progress.position(1, "");
    Ok(home)
}

/// Adds what is kept of a package to the tree.
fn unpack(tree: &Tree, package: &Package<'_>, home: &[u8], rank: usize) -> Result<(), Error> {
    package.files(|entry| {
        let raw = entry.path_bytes().into_owned();
        let path = raw.strip_prefix(b".").unwrap_or(&raw).to_vec();
        let kept = match path.strip_prefix(home) {
            Some(rest) => KEPT.iter().any(|kept| rest.strip_prefix(b"/").unwrap_or(rest).starts_with(kept.as_bytes())),
            None => path.starts_with(b"/etc/java-17-openjdk/") || path.starts_with(CERTIFICATES),
        };
        if !kept {
            return Ok(());
        }
        let header = entry.header();
        let mode = header.mode().map_err(|cause| Error::unreadable(&path, cause))? & 0o777;
        let modified_s = header.mtime().map_err(|cause| Error::unreadable(&path, cause))?;
        let owner = Owner { mode, ..Owner::default() };
        let kind = header.entry_type();
        let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        if kind.is_dir() {
            tree.add(path.strip_suffix(b"/").unwrap_or(&path), owner, modified_s, rank, Content::Directory)
        } else if kind.is_file() {
            tree.add(&path, owner, modified_s, rank, Content::File(entry))
        } else if kind.is_symlink() {
            tree.add(&path, owner, modified_s, rank, Content::Link(&target))
        } else {
            Ok(())
        }
    })
}

/// Puts the files in the place of links to them; links to what is not kept go.
fn without_links(tree: &Tree, home: &Path) -> Result<(), Error> {
    for (path, node) in tree.nodes() {
        if !matches!(node.kind, Kind::Link(_)) {
            continue;
        }
        let link = tree.root().join(String::from_utf8_lossy(&path).trim_start_matches('/'));
        if !link.starts_with(home) {
            continue;
        }
        fs::remove_file(&link).map_err(Error::host("replace", &link))?;
        if let Some(file) = tree.find(&path) {
            fs::copy(&file, &link).map_err(Error::host("write", &link))?;
        }
    }
    Ok(())
}

/// The certificates of the tree, with the names of their files.
fn certificates(tree: &Tree) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut found = Vec::new();
    for path in tree.nodes().into_keys().filter(|path| path.starts_with(CERTIFICATES)) {
        let Some(file) = tree.find(&path) else { continue };
        let text = fs::read(&file).map_err(Error::host("read", &file))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some(bytes) = from_pem(&String::from_utf8_lossy(&text)) {
            found.push((name, bytes));
        }
    }
    Ok(found)
}

/// The bytes of a PEM file's first part (RFC 7468).
fn from_pem(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    let body = text.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END")?.0;
    let body: String = body.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

/// A key store of trusted certificates in Java's own format: magic, version 2, entries, and a digest over password and all before it.
fn key_store(certificates: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, value: usize| {
        bytes.extend(u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    };
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(text.as_bytes());
    };
    bytes.extend(0xFEED_FEEDu32.to_be_bytes());
    number(&mut bytes, 2);
    // Names are texts of Java without surprises: ASCII, and no two the same.
    let mut entries: Vec<(String, &[u8])> = certificates
        .iter()
        .map(|(name, certificate)| {
            (name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect(), &certificate[..])
        })
        .collect();
    entries.sort();
    entries.dedup_by(|a, b| a.0 == b.0);
    number(&mut bytes, entries.len());
    for (name, certificate) in entries {
        // A trusted certificate.
        number(&mut bytes, 2);
        text(&mut bytes, &name);
        bytes.extend((now_s() * 1000).to_be_bytes());
        text(&mut bytes, "X.509");
        number(&mut bytes, certificate.len());
        bytes.extend(certificate);
    }
    let mut digest = Sha1::new();
    digest.update(PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>());
    digest.update(b"Mighty Aphrodite");
    digest.update(&bytes);
    bytes.extend(digest.finalize());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_text() {
        let text = "# a name\n-----BEGIN CERTIFICATE-----\nAAEC\r\nAwQ=\n-----END CERTIFICATE-----\n";
        assert_eq!(from_pem(text).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(from_pem("-----BEGIN CERTIFICATE-----\n?\n-----END"), None);
        let store = key_store(&[("b".into(), vec![1]), ("a\u{e9}".into(), vec![2, 3]), ("b".into(), vec![4])]);
        assert_eq!(store[..12], [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 2]);
        assert!(store.windows(4).any(|part| part == b"\0\x02a_"), "names are plain");
        assert_eq!(store.len(), 12 + 2 * (4 + 2 + 8 + 7 + 4) + 3 + 3 + 20);
    }
}
