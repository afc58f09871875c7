//! `isomorph ps` and `isomorph rm`.

use anyhow::Result;
use serde::Serialize;

use crate::cli::{ListArgs, RemoveArgs};
use crate::control::ask::{GLANCE, Peer};
use crate::control::wire::Info;
use crate::home::{Home, Listed};
use crate::size::{MemorySize, human_bytes, human_time};

/// A machine, and what it says of itself.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    machine: Listed,
    info: Option<Info>,
}

impl Shown {
    /// One that has just ended says nothing.
    fn ask(home: &Home, mut machine: Listed) -> Self {
        let directory = home.running(&machine.name).ok();
        let info = directory.and_then(|path| Peer::connect(&path).and_then(|mut peer| peer.info(GLANCE)).ok());
        if let Some(info) = &info {
            machine.state.clone_from(&info.state);
        }
        Self { machine, info }
    }
}

/// Lists the machines.
///
/// # Errors
/// The state home cannot be read.
pub fn list(args: &ListArgs) -> Result<()> {
    let home = Home::find()?;
    let machines: Vec<_> = home.list()?.into_iter().map(|machine| Shown::ask(&home, machine)).collect();
    crate::print_result(args.json, &table(&machines), &machines)
}

/// Removes machines: all that can be removed, then the first error.
///
/// # Errors
/// A machine is not there, runs, or cannot be removed.
pub fn remove(args: &RemoveArgs) -> Result<()> {
    let home = Home::find()?;
    let results: Vec<_> = args.names.iter().map(|name| home.remove(name)).collect();
    results.into_iter().collect()
}

fn table(machines: &[Shown]) -> String {
    let mut rows = vec![
        ["NAME", "KIND", "STATE", "PID", "GUEST", "CPUS", "CPU TIME", "RESIDENT", "MEMORY", "DISK", "PORTS"]
            .map(String::from),
    ];
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for Shown { machine, info } in machines {
        let (record, info) = (machine.record.as_ref(), info.as_ref());
        let memory = record.map(|r| r.memory_bytes).or(info.map(|i| i.memory_bytes)).filter(|bytes| *bytes != 0);
        rows.push([
            machine.name.clone(),
            or_none(info.map(|i| i.kind.clone())),
            machine.state.clone(),
            or_none(machine.pid.map(|pid| pid.to_string())),
            or_none(info.map(|i| i.guest.clone()).or_else(|| record.and_then(|r| r.image.clone()))),
            or_none(record.map(|r| r.cpus.to_string())),
            or_none(info.map(|i| human_time(i.cpu_time_ns))),
            or_none(info.map(|i| human_bytes(i.resident_bytes))),
            or_none(memory.map(|bytes| MemorySize(bytes).to_string())),
            human_bytes(machine.disk_bytes),
            record.map_or_else(String::new, |r| r.publish.join(" ")),
        ]);
    }
    columns(&rows)
}

/// Rows as columns as wide as they need to be.
#[must_use]
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_shown_in_columns() {
        let web = Listed { name: "web".into(), state: "stopped".into(), pid: None, record: None, disk_bytes: 5 };
        let info = Info {
            kind: "wasm".into(),
            guest: "site.wasm".into(),
            cpu_time_ns: 1_500_000_000,
            resident_bytes: 10 << 20,
            memory_bytes: 64 << 10,
            ..Default::default()
        };
        let site = Listed { name: "site-7".into(), state: "paused".into(), pid: Some(7), ..web.clone() };
        let shown = [Shown { machine: web, info: None }, Shown { machine: site, info: Some(info) }];
        expect_test::expect![[r"
            NAME    KIND  STATE    PID  GUEST      CPUS  CPU TIME  RESIDENT  MEMORY  DISK  PORTS
            web     -     stopped  -    -          -     -         -         -       5 B
            site-7  wasm  paused   7    site.wasm  -     1.5 s     10.0 MiB  64K     5 B
        "]]
        .assert_eq(&table(&shown));
    }
}
