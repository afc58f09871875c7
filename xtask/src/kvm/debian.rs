//! The image `debian:amd64`, for hosts whose KVM cannot boot it: it is pulled on this host, but for the one boot that configures its packages, which our own machine
//! does nested; then `isomorph run debian:amd64`, nested too, to a login with the image's password, a page by way of the NAT, and the guest's power-off.
//!
//! A pull fetches some 150 MB, and takes minutes of an emulated processor: a task of its own, `cargo xtask kvm --only debian`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use image::{Configurator, HalfMade, ImageStore, Phase, Progress, PullOptions};

use super::first::{First, Root};
use super::machine::{PAGE_TEXT, isomorph};
use super::second::{DISK_MODULES_COUNT, MODULES, mke2fs};
use super::tell_tail;
use crate::run::{Counts, StepFailure, run};
use crate::workspace;

const NAME: &str = "debian:amd64";
/// On an idle host of two cores it is a third of that.
const LIMIT: Duration = Duration::from_secs(1200);
fn first(name: &str) -> Result<First> {
    let mut first = First::new(name)?;
    let modules: &mut Root = &mut first.root;
    modules.add_modules(&first.kernel, &MODULES[..DISK_MODULES_COUNT])?;
    first.add_program(&isomorph()?, "isomorph")?;
    first.memory_mib = 1536;
    Ok(first)
}

/// Configures an image in a machine of ours, nested.
struct Nested {
    verbose: bool,
}

impl Nested {
    fn boot(&self, machine: &HalfMade<'_>) -> Result<String> {
        let mut first = first("configure")?;
        first.root.add_file(machine.kernel, "guest/kernel")?;
        first.root.add_file(machine.initrd, "guest/initrd")?;
        first.disks.push(machine.disk.to_owned());
        let script = format!(
            "isomorph run --kernel /guest/kernel --initrd /guest/initrd --append '{}' --disk /dev/vda,cache=unsafe --memory {}M --no-network < /dev/null\necho \"STATUS $?\"",
            machine.append,
            machine.memory_bytes >> 20
        );
        first.run(&script, LIMIT, self.verbose)
    }
}

impl Configurator for Nested {
    fn run(
        &mut self,
        machine: &HalfMade<'_>,
        console: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let output = self.boot(machine)?;
        console(output.as_bytes());
        if output.lines().any(|line| line == "STATUS 0") {
            return Ok(());
        }
        tell_tail(&output);
        Err("the nested machine does not say STATUS 0".into())
    }
}

/// Tells when each phase begins.
struct Phases(Instant);

impl Progress for Phases {
    fn phase(&mut self, phase: Phase, _: u64) {
        println!("    {:6.1} s {phase}", self.0.elapsed().as_secs_f64());
    }
    fn position(&mut self, _: u64, _: &str) {}
    fn note(&mut self, text: &str) {
        println!("    {text}");
    }
}

/// The image's store: pulled once, and again when it is removed.
fn pull(verbose: bool) -> Result<PathBuf> {
    let home = workspace::target().join("nested/home");
    let cache = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/isomorph"));
    let store = ImageStore::open(home.join("images"), cache.unwrap_or_else(|| home.join("cache")));
    store.pull(NAME, &PullOptions::default(), &mut Nested { verbose }, &mut Phases(Instant::now()))?;
    Ok(home)
}

/// A disk that holds `home`, with room for a machine's own.
fn disk(home: &Path) -> Result<PathBuf> {
    let disk = workspace::target().join("nested/home.img");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    run(Command::new(mke2fs()).args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(home).arg(&disk).arg("3G"))?;
    Ok(disk)
}

/// What is typed, when that is seen.
const SESSION: &str = r#"
export ISOMORPH_HOME=/home
mkdir -p /home && mount -t ext4 /dev/vda /home
ifconfig lo up
httpd -p 127.0.0.1:8000 -h /www
seconds() { cut -d ' ' -f 1 /proc/uptime; }
mkfifo /keyboard
start=$(seconds)
isomorph run debian:amd64 --cpus 2 --memory 512M --stats < /keyboard > /screen 2>&1 &
pid=$!
exec 3> /keyboard
# WORDS KEYS...
when() {
    until grep -q "$1" /screen; do
        kill -0 $pid 2> /dev/null || return 1
        usleep 100000
    done
    shift
    echo "$@" >&3
}
when 'login: ' root
echo "LOGIN after $start $(seconds)"
when 'assword: ' isomorph
when '# ' 'echo "GUEST $(uname -m) $(nproc)"; echo "GUEST-STATE $(systemctl is-system-running --wait)"; echo "GUEST-PAGE $(busybox wget -q -O - http://10.0.2.2:8000/page)"; echo "GUEST-NAME $(hostname) $(. /etc/os-release; echo $VERSION_ID)"; poweroff'
wait $pid
echo "STATUS $? after $start $(seconds)"
cat /screen
isomorph ps
umount /home
"#;

/// Pulls it and runs it.
pub(super) fn boot(verbose: bool) -> Result<Counts, StepFailure> {
    let home = pull(verbose)?;
    let mut first = first("debian")?;
    first.disks.push(disk(&home)?);
    let www = first.root.folder.join("www");
    fs::create_dir_all(&www).context("making a folder")?;
    fs::write(www.join("page"), PAGE_TEXT).context("writing a page")?;
    let output = first.run(SESSION, LIMIT, verbose)?;
    let expected = [
        "GUEST x86_64 2".to_owned(),
        "GUEST-STATE running".into(),
        format!("GUEST-PAGE {PAGE_TEXT}"),
        "GUEST-NAME debian 13".into(),
    ];
    // A shell that edits its line has something to say to the terminal before.
    let said = |words: &String| output.lines().any(|line| line.trim_end().ends_with(&**words));
    let missing: Vec<_> = expected.iter().filter(|words| !said(words)).collect();
    if !missing.is_empty() || !output.lines().any(|line| line.starts_with("STATUS 0 ")) {
        tell_tail(&output);
        return Err(anyhow::anyhow!("the nested machine does not say {missing:?} and STATUS 0").into());
    }
    for line in output.lines().filter(|line| line.starts_with("LOGIN ") || line.starts_with("STATUS ")) {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).rev();
        if let (Some(to), Some(from)) = (numbers.next(), numbers.next()) {
            let what = if line.starts_with("LOGIN") { "login" } else { "powered off" };
            println!("    {NAME}: {what} after {:.1} s", to - from);
        }
    }
    Ok(Counts::ONE_PASSED)
}
