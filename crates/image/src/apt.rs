//! The host's apt programs under a configuration of our own.
//!
//! Nothing of the host's package state is read or written: sources, lists, status and archives are in the cache directory. Of the host's
//! configuration only what says how to reach the mirror is kept (proxies, time-outs, validity dates of a frozen mirror); nothing that would
//! weaken the check of signatures. apt checks the index against the keyring, and each package against the index.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::error::{Error, tail};
use crate::program;
use crate::progress::{Phase, Progress};
use crate::sources::Mirror;

/// What of the host's apt configuration may apply: how to reach a mirror. Compared without regard to case.
const KEPT: &[&str] = &[
    "acquire::http::",
    "acquire::https::",
    "acquire::ftp::",
    "acquire::proxy-auto-detect",
    "acquire::retries",
    "acquire::check-valid-until",
    "acquire::check-date",
    "acquire::forceipv4",
    "acquire::forceipv6",
    "acquire::queue-mode",
];

/// A package that apt has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) version: String,
    architecture: String,
}

impl Chosen {
    /// The name of the package's file in apt's archive directory.
    pub(crate) fn file(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }
}

/// apt for one architecture and release, with its state under a directory of ours.
pub(crate) struct Apt {
    root: PathBuf,
    apt_get: PathBuf,
    mirror: Mirror,
    suite: &'static str,
    validity: String,
}

impl Apt {
    /// Prepares apt's directories and configuration in `root`.
    pub(crate) fn new(root: &Path, mirror: Mirror, architecture: &str, suite: &'static str) -> Result<Self, Error> {
        let apt_get = program::find("apt-get", "apt")?;
        let apt_config = program::find("apt-config", "apt")?;
        for directory in ["sources", "state/lists/partial", "archives/partial"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(Error::host("make", &path))?;
        }
        let dump = program::run(program::command(&apt_config).arg("dump"))?;
        let text = configuration(root, architecture, &String::from_utf8_lossy(&dump))?;
        write(&root.join("apt.conf"), &text)?;
        write(&root.join("status"), "")?;
        let validity =
            text.lines().filter(|line| line.starts_with("Acquire::Check-")).fold(String::new(), |t, l| t + l + "\n");
        Ok(Self { root: root.to_owned(), apt_get, mirror, suite, validity })
    }

    /// What the host's configuration says about how long the mirror's index is valid: lines of apt's configuration.
    pub(crate) fn validity(&self) -> &str {
        &self.validity
    }

    /// The directory of downloaded packages.
    pub(crate) fn archives(&self) -> PathBuf {
        self.root.join("archives")
    }

    fn apt_get(&self) -> Command {
        let mut command = program::command(&self.apt_get);
        command.env("APT_CONFIG", self.root.join("apt.conf")).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Fetches the index and checks its signature. The release itself must be had; its updates are left out, with a note, if the mirror
    /// cannot give them.
    pub(crate) fn update(&self, progress: &mut dyn Progress) -> Result<(), Error> {
        progress.phase(Phase::Index, 0);
        let sources = self.root.join("sources/image.sources");
        write(&sources, &guest_sources(&self.mirror, self.suite, &self.mirror.keyring.display().to_string()))?;
        let all = self.try_update()?;
        let Err(problem) = all else { return Ok(()) };
        let release = Mirror { security: None, ..self.mirror.clone() };
        write(&sources, &stanza(&release.archive, self.suite, &release.keyring.display().to_string()))?;
        match self.try_update()? {
            Ok(()) => {
                progress.note(&format!(
                    "the mirror cannot give the release's updates now, so they are left out: {problem}"
                ));
                Ok(())
            }
            Err(tail) => Err(Error::Program { program: "apt-get update".into(), tail }),
        }
    }

    fn try_update(&self) -> Result<Result<(), String>, Error> {
        // Without Error-Mode apt calls an index that it could not fetch a warning and goes on with an old one, or none.
        let output = program::output(self.apt_get().args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]))?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("E:")).collect();
        Ok(Err(tail(if errors.is_empty() { text.into_owned() } else { errors.join("\n") }.as_bytes(), 2)))
    }

    /// What installing `wanted` into an empty system would install.
    pub(crate) fn resolve(&self, wanted: &[&str]) -> Result<Vec<Chosen>, Error> {
        let text = program::run(self.apt_get().args(["-qq", "--simulate", "install"]).args(wanted))?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(chosen).collect())
    }

    /// Fetches the packages of `wanted` that the cache lacks, checking each against the index. An interrupted download goes on where
    /// it stopped.
    pub(crate) fn download(&self, wanted: &[&str], progress: &mut dyn Progress) -> Result<(), Error> {
        let listed = program::run(self.apt_get().args(["-qq", "--print-uris", "--yes", "install"]).args(wanted))?;
        let total: u64 = String::from_utf8_lossy(&listed).lines().filter_map(uri_bytes).sum();
        progress.phase(Phase::Download, total);
        if total == 0 {
            return Ok(());
        }
        let mut command = self.apt_get();
        command.args(["-q", "--yes", "--download-only", "-o", "APT::Status-Fd=1", "install"]).args(wanted);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|cause| program::start_error(&command, cause))?;
        let errors = child.stderr.take();
        let errors = thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = errors {
                // What cannot be read is missing from an error message, no more.
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        });
        if let Some(pipe) = child.stdout.take() {
            for line in BufReader::new(pipe).split(b'\n') {
                let line = line.map_err(|cause| program::start_error(&command, cause))?;
                if let Some((percent, detail)) = download_status(&String::from_utf8_lossy(&line)) {
                    // Both are far below 2^53; the product is not negative.
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
                    progress.position((total as f64 * percent / 100.0) as u64, &detail);
                }
            }
        }
        let status = child.wait().map_err(|cause| program::start_error(&command, cause))?;
        let errors = errors.join().unwrap_or_default();
        if !status.success() {
            return Err(program::failure(&command, &errors));
        }
        progress.position(total, "");
        Ok(())
    }

    /// Fetches just `packages`, not what they depend on, checking each against the index. Answers their files, in this order.
    pub(crate) fn download_alone(&self, packages: &[&str], progress: &mut dyn Progress) -> Result<Vec<String>, Error> {
        let listed = program::run(self.apt_get().args(["-qq", "--print-uris", "download"]).args(packages))?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        progress.phase(Phase::Download, listed.lines().filter_map(uri_bytes).sum());
        let names: Vec<String> = listed.lines().filter_map(uri_file).map(str::to_owned).collect();
        let mut done = 0;
        let mut files = Vec::new();
        for package in packages {
            let own = format!("{package}_");
            let Some(file) = names.iter().find(|name| name.starts_with(&own)) else { continue };
            progress.position(done, package);
            // A file that is there and right is not fetched again.
            program::run(self.apt_get().current_dir(self.archives()).args(["-qq", "download", package]))?;
            let path = self.archives().join(file);
            done += fs::metadata(&path).map_err(Error::host("look at", &path))?.len();
            files.push(file.clone());
        }
        progress.position(done, "");
        Ok(files)
    }

    /// Deletes packages from the cache that are not among `chosen`: those of earlier pulls.
    pub(crate) fn forget_others(&self, chosen: &[Chosen]) -> Result<(), Error> {
        let directory = self.archives();
        let keep: std::collections::HashSet<_> = chosen.iter().map(Chosen::file).collect();
        for entry in fs::read_dir(&directory).map_err(Error::host("read", &directory))? {
            let entry = entry.map_err(Error::host("read", &directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".deb") && !keep.contains(&name) {
                fs::remove_file(entry.path()).map_err(Error::host("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::host("write", path))
}

/// The sources of `suite` at `mirror`, checked with the keys at `keyring`.
pub(crate) fn guest_sources(mirror: &Mirror, suite: &str, keyring: &str) -> String {
    let mut text = stanza(&mirror.archive, &format!("{suite} {suite}-updates"), keyring);
    if let Some(security) = &mirror.security {
        text += "\n";
        text += &stanza(security, &format!("{suite}-security"), keyring);
    }
    text
}

fn stanza(uri: &str, suites: &str, keyring: &str) -> String {
    format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {keyring}\n")
}

/// Our apt configuration; `dump` is the host's, as `apt-config dump` prints it.
fn configuration(root: &Path, architecture: &str, dump: &str) -> Result<String, Error> {
    let root = root.display().to_string();
    if root.contains(['"', '\n', '\\']) {
        let cause = std::io::Error::other("apt takes no path with quotes, backslashes or newlines");
        return Err(Error::Host { action: format!("keep packages in {root:?}"), cause });
    }
    let mut text = format!(
        r#"Dir "{root}";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}";
Dir::Cache::archives "{root}/archives";
Dir::Log "{root}";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "root";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
"#
    );
    for line in dump.lines() {
        let lower = line.to_ascii_lowercase();
        if KEPT.iter().any(|kept| lower.starts_with(kept)) && !line.ends_with(" \"\";") {
            let _ = writeln!(text, "{line}");
        }
    }
    Ok(text)
}

/// Parses `Inst NAME (VERSION ORIGIN... [ARCHITECTURE])` of a simulation.
fn chosen(line: &str) -> Option<Chosen> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let inside = rest.split_once('(')?.1.split_once(')')?.0;
    let version = inside.split_whitespace().next()?;
    let architecture = inside.rsplit_once('[')?.1.trim_end_matches(']');
    let name = name.split(':').next()?;
    Some(Chosen { name: name.into(), version: version.into(), architecture: architecture.into() })
}

/// The size in a line `'URI' FILE BYTES HASH` of apt's list of what it would fetch.
fn uri_bytes(line: &str) -> Option<u64> {
    line.strip_prefix('\'')?.split_whitespace().nth(2)?.parse().ok()
}

/// The file in such a line.
fn uri_file(line: &str) -> Option<&str> {
    line.strip_prefix('\'')?.split_whitespace().nth(1)
}

/// Parses `dlstatus:ITEM:PERCENT:TEXT` of apt's status output.
fn download_status(line: &str) -> Option<(f64, String)> {
    let mut fields = line.strip_prefix("dlstatus:")?.splitn(3, ':');
    let percent: f64 = fields.nth(1)?.parse().ok()?;
    Some((percent.clamp(0.0, 100.0), fields.next().unwrap_or_default().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulations_and_lists_are_parsed() {
        let line = "Inst libc6 (2.41-12+deb13u4 Debian:13.7/stable, Debian-Security:13/stable-security [riscv64]) []";
        let package = chosen(line).unwrap();
        assert_eq!(package.file(), "libc6_2.41-12+deb13u4_riscv64.deb");
        let epoch = chosen("Inst zlib1g (1:1.3-1+b1 Debian:13.7/stable [riscv64])").unwrap();
        assert_eq!(epoch.file(), "zlib1g_1%3a1.3-1+b1_riscv64.deb");
        assert_eq!(chosen("Conf libc6 (2.41 Debian [riscv64])"), None);
        assert_eq!(uri_bytes("'http://m/x.deb' x_1%3a1_all.deb 1436 SHA256:00"), Some(1436));
        assert_eq!(uri_file("'http://m/x.deb' x_1%3a1_all.deb 1436 SHA256:00"), Some("x_1%3a1_all.deb"));
        assert_eq!(uri_bytes("Reading package lists..."), None);
        assert_eq!(
            download_status("dlstatus:3:41.5:Retrieving file 3 of 9"),
            Some((41.5, "Retrieving file 3 of 9".into()))
        );
        assert_eq!(download_status("pmstatus:x:1:y"), None);
    }

    #[test]
    fn only_the_way_to_the_mirror_is_taken_from_the_host() {
        let dump = "Acquire::http::Proxy \"http://proxy:3128\";\nAcquire::Check-Valid-Until \"false\";\n\
            Acquire::AllowInsecureRepositories \"1\";\nAPT::Get::AllowUnauthenticated \"1\";\n\
            DPkg::Post-Invoke:: \"rm -rf /\";\nAcquire::https \"\";\nAcquire::http::Timeout \"\";\n";
        let text = configuration(Path::new("/cache"), "riscv64", dump).unwrap();
        assert!(text.contains("Acquire::http::Proxy \"http://proxy:3128\";"));
        assert!(text.contains("Acquire::Check-Valid-Until \"false\";"));
        assert!(!text.contains("Invoke") && !text.contains("\"1\";") && !text.contains("Timeout"), "{text}");
        assert!(configuration(Path::new("/ca\"che"), "riscv64", "").is_err());
    }

    #[test]
    fn the_guest_s_sources_name_what_the_host_has() {
        let mirror = Mirror { archive: "http://m/debian".into(), security: None, keyring: "/k".into() };
        let text = guest_sources(&mirror, "trixie", "/k");
        assert_eq!(text.matches("Types: deb").count(), 1);
        assert!(text.contains("Suites: trixie trixie-updates\n"));
        let text = guest_sources(&Mirror { security: Some("http://m/s".into()), ..mirror }, "trixie", "/k");
        assert!(text.contains("URIs: http://m/s\nSuites: trixie-security\n"));
    }
}
