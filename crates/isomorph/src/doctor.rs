//! `isomorph doctor`: what this host offers to guests.
//!
//! Every line is found out by asking the host, never by guessing from a version.

use std::fs;
use std::path::{Path, PathBuf};
use std::{env, thread};

use serde::Serialize;
use x86::kvm::Host;
use x86::kvm::cpuid::{self, Model};

use crate::size::human_bytes;

/// Whether something is as Isomorph would like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// There, and of use.
    Yes,
    /// Not there: something is slower or unavailable, as the note says.
    No,
    /// A plain fact.
    Info,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it belongs to.
    pub group: &'static str,
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub value: String,
    /// What it means to the user, or what to do.
    pub note: &'static str,
}

fn finding(
    group: &'static str,
    name: &'static str,
    verdict: Verdict,
    value: impl Into<String>,
    note: &'static str,
) -> Finding {
    Finding { group, name, verdict, value: value.into(), note }
}

fn verdict(yes: bool) -> Verdict {
    if yes { Verdict::Yes } else { Verdict::No }
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The value of `key` in a file of "key : value" lines.
fn field(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Looks at the host.
#[must_use]
pub fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    processor(&mut findings);
    virtualization(&mut findings);
    memory(&mut findings);
    java(&mut findings);
    isolation(&mut findings);
    programs(&mut findings);
    findings
}

fn processor(findings: &mut Vec<Finding>) {
    let text = read("/proc/cpuinfo").unwrap_or_default();
    let model = field(&text, "model name").or_else(|| field(&text, "uarch")).unwrap_or_else(|| "unknown".into());
    let count = thread::available_parallelism().map_or(1, usize::from);
    findings.push(finding("processor", "model", Verdict::Info, format!("{model} ({})", env::consts::ARCH), ""));
    findings.push(finding("processor", "cores", Verdict::Info, count.to_string(), "one host thread a guest processor"));
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("fma", is_x86_feature_detected!("fma")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("popcnt", is_x86_feature_detected!("popcnt")),
        ];
        let have: Vec<_> = features.iter().filter(|f| f.1).map(|f| f.0).collect();
        let note = "fma: fused multiply-add of RISC-V guests at the host's speed";
        findings.push(finding("processor", "features", verdict(features[0].1), have.join(" "), note));
    }
}

fn virtualization(findings: &mut Vec<Finding>) {
    let opened = Host::open();
    let value = opened.as_ref().map_or_else(ToString::to_string, |_| "/dev/kvm can be used".into());
    let note =
        if opened.is_ok() { "x86-64 machines run on it" } else { "no x86-64 machines; riscv64 ones need no KVM" };
    findings.push(finding("virtualization", "kvm", verdict(opened.is_ok()), value, note));
    if let Ok(host) = &opened {
        let names: Vec<_> = Model::NAMES.into_iter().filter(|name| offers(host, name)).collect();
        let note = "what --cpu can name; a guest with a named one can move between hosts";
        findings.push(finding("virtualization", "models", Verdict::Info, names.join(" "), note));
    }
    let text = read("/proc/cpuinfo").unwrap_or_default();
    let flags = field(&text, "flags").unwrap_or_default();
    let extension = flags.split(' ').find(|flag| matches!(*flag, "vmx" | "svm"));
    let value = extension.unwrap_or("none visible");
    findings.push(finding("virtualization", "extension", verdict(extension.is_some()), value, ""));
    if Path::new("/sys/module/kvm_pvm").exists() {
        let note = "guest kernels are interpreted by KVM: slow";
        findings.push(finding("virtualization", "pvm", Verdict::Info, "KVM without hardware help", note));
    }
}

/// Whether the host has what a model of a processor has.
fn offers(host: &Host, name: &str) -> bool {
    let model = name.parse::<Model>().ok();
    let supported = host.supported_cpuid().ok();
    model.zip(supported).is_some_and(|(model, supported)| cpuid::leaves(&supported, model, 0, 1).is_ok())
}

fn memory(findings: &mut Vec<Finding>) {
    let text = read("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| field(&text, key).and_then(|v| v.trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    let (total, available) = (kib("MemTotal") << 10, kib("MemAvailable") << 10);
    let value = format!("{} of {} available", human_bytes(available), human_bytes(total));
    findings.push(finding("memory", "size", Verdict::Info, value, "guest memory takes host memory only when touched"));
    let swap = kib("SwapTotal") << 10;
    findings.push(finding("memory", "swap", verdict(swap > 0), human_bytes(swap), ""));
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = huge.split(['[', ']']).nth(1).unwrap_or("absent").to_owned();
    let on = matches!(chosen.as_str(), "always" | "madvise");
    findings.push(finding("memory", "huge pages", verdict(on), chosen, "fewer host TLB misses in large guests"));
    let ksm = read("/sys/kernel/mm/ksm/run");
    let value = match ksm.as_deref() {
        None => "absent",
        Some("1") => "running",
        Some(_) => "off",
    };
    findings.push(finding("memory", "page merging (ksm)", verdict(ksm.as_deref() == Some("1")), value, ""));
    let fault = Path::new("/dev/userfaultfd").exists()
        || read("/proc/sys/vm/unprivileged_userfaultfd").is_some_and(|value| value == "1" || is_root());
    findings.push(finding(
        "memory",
        "userfaultfd",
        verdict(fault),
        if fault { "usable" } else { "not for this user" },
        "",
    ));
    let overcommit = match read("/proc/sys/vm/overcommit_memory").as_deref() {
        Some("2") => "strict: a guest's whole memory must fit",
        Some("1") => "always",
        _ => "heuristic",
    };
    findings.push(finding("memory", "overcommit", Verdict::Info, overcommit, ""));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn java(findings: &mut Vec<Finding>) {
    let pulled = image::ImageStore::from_environment().ok().map(|store| store.java());
    let home = match jvm::library::find(None, pulled.as_deref()) {
        Ok(home) => home,
        Err(error) => {
            let note = "no Java programs: isomorph image pull java";
            findings.push(finding("java", "class library", Verdict::No, error.to_string(), note));
            return;
        }
    };
    let version = jvm::bootstrap::library_version(&home);
    let value = format!("JDK {version} in {}", home.display());
    findings.push(finding("java", "class library", Verdict::Yes, value, "Java programs run on it"));
}

fn isolation(findings: &mut Vec<Finding>) {
    let landlock = machine::sys::fence::landlock_version();
    let value = landlock.map_or_else(|| "absent".into(), |version| format!("version {version}"));
    // From its sixth version on it guards all that it is asked for.
    let note = match landlock {
        None => "sandboxed programs are kept from files by the virtual machine alone: boot with lsm=landlock,...",
        Some(..6) => "of sandboxed programs it does not guard all: sockets and signals of others need version 6",
        Some(_) => "sandboxed programs are kept from files twice",
    };
    findings.push(finding("isolation", "landlock", verdict(landlock.is_some()), value, note));
    let status = read("/proc/self/status").unwrap_or_default();
    let seccomp = field(&status, "Seccomp").is_some();
    findings.push(finding("isolation", "seccomp", verdict(seccomp), if seccomp { "there" } else { "absent" }, ""));
    let groups = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let value = if groups { "version 2" } else { "no version 2 hierarchy" };
    findings.push(finding("isolation", "cgroups", verdict(groups), value, ""));
    let range = read("/proc/sys/net/ipv4/ping_group_range").unwrap_or_default();
    let group = u64::from(rustix::process::getegid().as_raw());
    let bounds: Vec<u64> = range.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let pings = is_root() || matches!(bounds[..], [low, high] if (low..=high).contains(&group));
    let note = if pings { "" } else { "guests' pings go no further than the gateway: see net.ipv4.ping_group_range" };
    findings.push(finding(
        "isolation",
        "ping",
        verdict(pings),
        if pings { "allowed" } else { "not for this user" },
        note,
    ));
}

fn programs(findings: &mut Vec<Finding>) {
    let wanted = [
        ("apt-get", "'image pull' gets packages by it"),
        ("dpkg-deb", "'image pull' unpacks packages by it"),
        ("mke2fs", "'image pull' makes file systems by it: package e2fsprogs"),
        ("qemu-system-riscv64", "only for comparison"),
    ];
    for (name, note) in wanted {
        let found = find_program(name);
        let value = found.as_ref().map_or_else(|| "not found".into(), |path| path.display().to_string());
        findings.push(finding("programs", name, verdict(found.is_some()), value, note));
    }
}

/// The findings as a table.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let width = |of: fn(&Finding) -> usize| findings.iter().map(of).max().unwrap_or(0);
    let (names, values) = (width(|f| f.name.chars().count()), width(|f| f.value.chars().count()).min(60));
    let mut text = String::new();
    let mut group = "";
    for f in findings {
        if f.group != group {
            group = f.group;
            if !text.is_empty() {
                text.push('\n');
            }
            text += &format!("{}{}\n", group[..1].to_uppercase(), &group[1..]);
        }
        let mark = match f.verdict {
            Verdict::Yes => "yes",
            Verdict::No => "no",
            Verdict::Info => "",
        };
        let line = format!("  {:names$}  {mark:3}  {:values$}  {}", f.name, f.value, f.note);
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_in_the_table_and_the_json() {
        let findings = examine();
        let table = table(&findings);
        for f in &findings {
            assert!(table.contains(f.name) && table.contains(&f.value), "{f:?}\n{table}");
        }
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json.as_array().unwrap().len(), findings.len());
        assert!(findings.iter().any(|f| f.name == "kvm"));
    }

    #[test]
    fn fields_are_found_by_whole_name() {
        assert_eq!(field("MemTotal:  5 kB\nMem: 1", "Mem"), Some("1".into()));
        assert_eq!(field("a\nb", "a"), None);
    }
}
