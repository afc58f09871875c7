//! `isomorph snapshot`: snapshots of machines of any kind, by their headers.

use anyhow::{Context, Result};
use machine::snapshot::{Header, Snapshot};
use serde_json::json;

use crate::cli::SnapshotCommand;
use crate::control;
use crate::list::columns;
use crate::size::human_bytes;

/// Does what the arguments say.
///
/// # Errors
/// There is no snapshot, or it is damaged.
pub fn command(command: &SnapshotCommand) -> Result<()> {
    let (directory, verify, json) = match command {
        SnapshotCommand::Create { name, directory } => return control::commands::snapshot(name, directory),
        SnapshotCommand::Inspect { directory, verify, json } => (directory, verify, json),
    };
    let snapshot = Snapshot::open(directory)?;
    if *verify {
        snapshot.verify().with_context(|| format!("{}", directory.display()))?;
    }
    let header = snapshot.header();
    crate::print_result(*json, &text(header), &value(header))
}

fn text(header: &Header) -> String {
    let parent = header.parent.map_or_else(|| "-".to_owned(), |parent| parent.to_string());
    let mut rows = vec![["PART", "VERSION", "SIZE"].map(String::from)];
    for section in &header.sections {
        rows.push([section.name.clone(), section.version.to_string(), human_bytes(section.length)]);
    }
    for memory in &header.memories {
        rows.push([memory.name.clone(), "-".into(), human_bytes(memory.length)]);
    }
    format!("kind     {}\nmachine  {}\nparent   {parent}\n\n{}", header.kind, header.machine, columns(&rows))
}

fn value(header: &Header) -> serde_json::Value {
    let sections = header
        .sections
        .iter()
        .map(|section| json!({ "name": section.name, "version": section.version, "bytes": section.length }));
    let memories = header.memories.iter().map(|memory| json!({ "name": memory.name, "bytes": memory.length }));
    json!({
        "kind": header.kind,
        "machine": header.machine.to_string(),
        "parent": header.parent.map(|parent| parent.to_string()),
        "sections": sections.collect::<Vec<_>>(),
        "memories": memories.collect::<Vec<_>>(),
    })
}
