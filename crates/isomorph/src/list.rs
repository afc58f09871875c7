//! `isomorph ps` and `isomorph rm`.

use anyhow::Result;

use crate::cli::{ListArgs, RemoveArgs};
use crate::home::{Home, Listed};
use crate::size::{MemorySize, human_bytes};

/// Lists the machines.
///
/// # Errors
/// The state home cannot be read.
pub fn list(args: &ListArgs) -> Result<()> {
    let machines = Home::find()?.list()?;
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

fn table(machines: &[Listed]) -> String {
    let mut rows = vec![["NAME", "STATE", "PID", "IMAGE", "CPUS", "MEMORY", "DISK", "PORTS"].map(String::from)];
    for machine in machines {
        let record = machine.record.as_ref();
        rows.push([
            machine.name.clone(),
            machine.state.into(),
            machine.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            record.and_then(|r| r.image.clone()).unwrap_or_else(|| "-".into()),
            record.map_or_else(|| "-".into(), |r| r.cpus.to_string()),
            record.map_or_else(|| "-".into(), |r| MemorySize(r.memory_bytes).to_string()),
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
        let machine = Listed { name: "web".into(), state: "stopped", pid: None, record: None, disk_bytes: 5 };
        expect_test::expect![[r"
            NAME  STATE    PID  IMAGE  CPUS  MEMORY  DISK  PORTS
            web   stopped  -    -      -     -       5 B
        "]]
        .assert_eq(&table(&[machine]));
    }
}
