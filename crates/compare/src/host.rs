//! The host, described so that figures mean something to somebody else.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The processor's name.
    pub processor: String,
    /// Processors that this process may use.
    pub processors_count: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The kernel and its release.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// Whether the host is itself a virtual machine.
    pub is_virtual: bool,
    /// Processes that wanted a processor during the minute before (the load average): a busy host spoils figures.
    pub load: f64,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn examine() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let field = |name: &str| {
            let value = processors.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        let memory = read("/proc/meminfo");
        let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        let release = read("/etc/os-release");
        let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            processor: field("model name"),
            processors_count: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024,
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            system: system.unwrap_or_default().trim_matches('"').to_owned(),
            is_virtual: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }

    /// Whether it is too busy to measure on.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.load > 0.5
    }

    /// It in a line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { processor, processors_count, memory_bytes, kernel, system, .. } = self;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        let inside = if self.is_virtual { ", itself a virtual machine" } else { "" };
        format!("{processor}, {processors_count} processors, {gib:.0} GiB; {system}, {kernel}{inside}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_known() {
        let host = Host::examine();
        assert!(host.processors_count > 0 && host.memory_bytes > 1 << 20 && host.kernel.len() > 6, "{host:?}");
        assert!(host.line().contains("processors"));
    }
}
