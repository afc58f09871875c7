//! Reading the host's apt sources to learn which Debian mirror it uses.
//!
//! Two formats (sources.list(5)): one line an entry (`*.list`) and paragraphs of fields (`*.sources`). An entry is Debian's archive
//! if one of its suites is a release of Debian and `main` is among its components; of those the ones that the host itself
//! checks with Debian's keyring come first. A wrong guess does no harm beyond an error, for the index is checked against Debian's keys
//! whatever the mirror.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// Names that Debian's archive has for its releases.
const RELEASES: &[&str] = &[
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// One entry of the host's sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// Where Debian's packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The archive's address, as the host's configuration gives it.
    pub(crate) archive: String,
    /// The address of the security archive, if the host uses one.
    pub(crate) security: Option<String>,
    /// The keys that the index must be signed with.
    pub(crate) keyring: PathBuf,
}

/// The mirror that the apt configuration in `apt` (`/etc/apt`) uses, with keys from `keyrings` (`/usr/share/keyrings`).
pub(crate) fn host_mirror(apt: &Path, keyrings: &Path) -> Result<Mirror, Error> {
    let mut files = vec![apt.join("sources.list")];
    let parts = apt.join("sources.list.d");
    if let Ok(directory) = fs::read_dir(&parts) {
        let mut found: Vec<_> = directory.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.sort();
        files.extend(found);
    }
    let mut entries = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|e| e.to_str()) {
            Some("list") => parse_lines,
            Some("sources") => parse_paragraphs,
            _ => continue,
        };
        match fs::read(&file) {
            Ok(bytes) => entries.extend(parse(&String::from_utf8_lossy(&bytes))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(Error::host("read", &file)(cause)),
        }
    }
    let (archive, security) = choose(&entries)
        .ok_or_else(|| Error::NoMirror { searched: format!("{} and {}", files_name(apt), parts.display()) })?;
    Ok(Mirror { archive, security, keyring: keyring(keyrings)? })
}

fn files_name(apt: &Path) -> String {
    apt.join("sources.list").display().to_string()
}

/// Debian's keys: the file's ending has changed between releases of the package.
fn keyring(directory: &Path) -> Result<PathBuf, Error> {
    let path = directory.join("debian-archive-keyring.gpg");
    [path.clone(), directory.join("debian-archive-keyring.pgp")]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or(Error::NoKeyring { path })
}

/// The archive and security addresses among `entries`.
fn choose(entries: &[Entry]) -> Option<(String, Option<String>)> {
    let is_release = |suite: &str| RELEASES.contains(&suite.trim_end_matches('/'));
    let is_security = |suite: &str| {
        let suite = suite.trim_end_matches('/');
        suite.strip_suffix("-security").or_else(|| suite.strip_suffix("/updates")).is_some_and(is_release)
    };
    let pick = |wanted: &dyn Fn(&str) -> bool| {
        entries
            .iter()
            .filter(|e| e.components.iter().any(|c| c == "main") && e.suites.iter().any(|s| wanted(s)))
            .min_by_key(|e| match &e.signed_by {
                Some(keys) if keys.contains("debian-archive-") => 0,
                None => 1,
                Some(_) => 2,
            })
            .and_then(|e| e.uris.first().cloned())
    };
    Some((pick(&is_release)?, pick(&is_security)))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Parses the format of one line an entry.
fn parse_lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?.trim_start();
    let mut entry = Entry::default();
    if let Some(after) = rest.strip_prefix('[') {
        let (options, after) = after.split_once(']')?;
        for option in options.split_whitespace() {
            if let Some((name, value)) = option.split_once('=')
                && name.trim_end_matches(['+', '-']).eq_ignore_ascii_case("signed-by")
            {
                entry.signed_by = Some(value.into());
            }
        }
        rest = after.trim_start();
    }
    if rest.starts_with("cdrom:") {
        return None;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    entry.uris = vec![words.next()?];
    entry.suites = vec![words.next()?];
    entry.components = words.collect();
    Some(entry)
}

/// Parses the format of paragraphs of fields.
fn parse_paragraphs(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            entries.extend(entry_of(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().into()));
        }
    }
    entries
}

fn entry_of(fields: &[(String, String)]) -> Option<Entry> {
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    if field("enabled").is_some_and(|v| ["no", "false", "without", "off", "disable", "0"].contains(&v)) {
        return None;
    }
    if !field("types")?.split_whitespace().any(|kind| kind == "deb") {
        return None;
    }
    let uris: Vec<_> = words(field("uris")?).into_iter().filter(|uri| !uri.starts_with("cdrom:")).collect();
    (!uris.is_empty()).then_some(Entry {
        uris,
        suites: words(field("suites")?),
        components: field("components").map(words).unwrap_or_default(),
        signed_by: field("signed-by").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_have_options_comments_and_other_types() {
        let text = "# comment\n\
            deb-src http://mirror.example/debian bookworm main\n\
            deb cdrom:[Debian 12 - x86_64]/ bookworm main\n\
            deb [ arch=amd64 signed-by=/k/third.gpg ] https://third.example/apt bookworm main # trailing\n\
            \tdeb\t[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]\thttp://mirror.example/debian  bookworm main contrib\n\
            deb http://mirror.example/security bookworm-security main\n\
            deb http://broken.example\n\
            deborah http://x y main\n";
        let entries = parse_lines(text);
        assert_eq!(entries.len(), 3, "{entries:?}");
        assert_eq!(entries[0].signed_by.as_deref(), Some("/k/third.gpg"));
        assert_eq!(entries[1].components, ["main", "contrib"]);
        assert_eq!(
            choose(&entries),
            Some(("http://mirror.example/debian".into(), Some("http://mirror.example/security".into())))
        );
    }

    #[test]
    fn paragraphs_have_comments_continuations_and_switches() {
        let text = "# top\nTypes: deb deb-src\n# inside\nURIs: http://mirror.example/debian\n http://second.example/debian\n\
            suites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n\
            Types: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\nEnabled: no\n\n\n\
            Types: deb\nURIs: https://third.example/node\nSuites: nodistro\nComponents: main\n\n\
            Types: deb-src\nURIs: http://source.example/debian\nSuites: trixie\nComponents: main";
        let entries = parse_paragraphs(text);
        assert_eq!(entries.len(), 2, "{entries:?}");
        assert_eq!(entries[0].uris, ["http://mirror.example/debian", "http://second.example/debian"]);
        assert_eq!(choose(&entries), Some(("http://mirror.example/debian".into(), None)));
        assert_eq!(choose(&entries[1..]), None);
    }

    #[test]
    fn the_host_s_files_are_read_in_both_formats() {
        let root = tempfile::tempdir().unwrap();
        let (apt, keys) = (root.path().join("apt"), root.path().join("keys"));
        fs::create_dir_all(apt.join("sources.list.d")).unwrap();
        fs::create_dir(&keys).unwrap();
        let none = host_mirror(&apt, &keys).unwrap_err().to_string();
        assert!(none.contains("sources.list.d"), "{none}");
        fs::write(
            apt.join("sources.list.d/x.sources"),
            "Types: deb\nURIs: http://m/debian\nSuites: trixie\nComponents: main\n",
        )
        .unwrap();
        fs::write(
            apt.join("sources.list.d/x.sources.bak"),
            "Types: deb\nURIs: http://old\nSuites: trixie\nComponents: main\n",
        )
        .unwrap();
        let none = host_mirror(&apt, &keys).unwrap_err().to_string();
        assert!(none.contains("debian-archive-keyring"), "{none}");
        fs::write(keys.join("debian-archive-keyring.pgp"), "").unwrap();
        let mirror = host_mirror(&apt, &keys).unwrap();
        assert_eq!((mirror.archive.as_str(), mirror.security), ("http://m/debian", None));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parsers(text in "[ -~\n\t]{0,200}") {
            for entry in parse_lines(&text).into_iter().chain(parse_paragraphs(&text)) {
                prop_assert!(!entry.uris.is_empty());
            }
        }
    }
}
