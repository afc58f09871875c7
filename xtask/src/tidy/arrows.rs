//! The arrows between crates.

use anyhow::{Context, Result};

/// Which crates of the workspace each may use, for building and for testing. A crate that is not here has no place in the house yet.
const ARROWS: &[(&str, &[&str])] = &[
    ("machine", &[]),
    ("codegen", &["machine"]),
    ("devices", &["machine"]),
    ("disk", &["machine"]),
    ("network", &["machine"]),
    ("image", &["machine", "disk"]),
    ("riscv", &["machine", "codegen", "devices"]),
    ("x86", &["machine", "devices"]),
    ("debugger", &["machine", "riscv", "x86"]),
    ("linux", &["machine", "riscv", "debugger"]),
    ("wasm", &["machine"]),
    ("classfile", &[]),
    ("jvm", &["machine", "classfile"]),
    ("compare", &["machine"]),
    (
        "isomorph",
        &[
            "machine", "devices", "disk", "network", "image", "riscv", "x86", "debugger", "linux", "wasm", "jvm",
            "compare",
        ],
    ),
    (
        "lab",
        &[
            "machine", "devices", "disk", "network", "image", "riscv", "x86", "debugger", "linux", "wasm", "jvm",
            "compare", "isomorph",
        ],
    ),
    (
        "xtask",
        &[
            "machine", "devices", "disk", "network", "image", "riscv", "x86", "debugger", "linux", "wasm", "jvm",
            "compare", "isomorph", "lab",
        ],
    ),
    ("fuzz", &["machine", "devices", "disk", "network", "image", "riscv", "x86", "classfile"]),
];

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// Compares what packages depend on with the table.
pub(super) fn check(metadata: &serde_json::Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some(allowed) = allowed(name) else {
            findings
                .push(format!("crate {name}: has no row in xtask/src/tidy/arrows.rs and ARCHITECTURE.md; give it one"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(to) = dependency["name"].as_str() else { continue };
            // Crates of the workspace are found by path.
            if !dependency["path"].is_null() && to != name && !allowed.contains(&to) {
                findings.push(format!("crate {name}: may not use {to}; let them meet at a trait in machine"));
            }
        }
    }
    Ok(findings)
}

/// Compares the table in ARCHITECTURE.md, under the heading "Arrows", with this one. Its rows are a crate in backticks, then the crates
/// that it may use, in backticks, or "nothing".
pub(super) fn check_document(markdown: &str) -> Vec<String> {
    let section = markdown.lines().skip_while(|line| line.trim() != "## Arrows").skip(1);
    let rows = section.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|');
        let names = |cell: Option<&str>| -> Vec<String> {
            cell.unwrap_or("").split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let (from, to) = (names(cells.next()), names(cells.next()));
        let Some(from) = from.first() else { continue };
        match allowed(from) {
            Some(allowed) if allowed == to => {}
            Some(allowed) => findings.push(format!(
                "ARCHITECTURE.md: says that {from} may use {to:?}, xtask/src/tidy/arrows.rs says {allowed:?}"
            )),
            None => findings.push(format!("ARCHITECTURE.md: {from} has no row in xtask/src/tidy/arrows.rs")),
        }
        seen.push(from.clone());
    }
    for (from, _) in ARROWS.iter().filter(|(from, _)| !seen.iter().any(|name| name == from)) {
        findings.push(format!("ARCHITECTURE.md: the table under \"## Arrows\" has no row for {from}"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn uses(from: &str, to: &str) -> Vec<String> {
        let dependencies = json!([
            {"name": to, "path": "/somewhere/crates/other", "kind": "dev"},
            {"name": "serde", "path": null},
        ]);
        check(&json!({"packages": [{"name": from, "dependencies": dependencies}]})).unwrap()
    }

    #[test]
    fn a_forbidden_arrow_is_found() {
        assert_eq!(uses("devices", "machine"), [""; 0]);
        assert_eq!(uses("devices", "disk"), ["crate devices: may not use disk; let them meet at a trait in machine"]);
        assert_eq!(uses("disk", "devices").len(), 1);
        assert_eq!(uses("machine", "riscv").len(), 1);
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert!(uses("gravity", "machine")[0].contains("has no row"));
    }

    #[test]
    fn no_arrow_leads_back() {
        // Each crate uses only crates of rows above its own.
        for (index, (_, to)) in ARROWS.iter().enumerate() {
            for to in *to {
                assert!(ARROWS[..index].iter().any(|(from, _)| from == to), "{to} comes later than its user");
            }
        }
    }

    #[test]
    fn the_document_must_say_the_same() {
        let row = |(from, to): &(&str, &[&str])| {
            let to: Vec<String> = to.iter().map(|to| format!("`{to}`")).collect();
            format!("| `{from}` | {} | why |\n", if to.is_empty() { "nothing".into() } else { to.join(", ") })
        };
        let table: String = ARROWS.iter().map(row).collect();
        let document = |table: &str| {
            format!("# A\n## Arrows\n| crate | may use | |\n|---|---|---|\n{table}## Next\n| `x` | | |\n")
        };
        assert_eq!(check_document(&document(&table)), [""; 0]);
        let wrong = table.replace("| `disk` | `machine` |", "| `disk` | `devices` |");
        assert!(check_document(&document(&wrong))[0].contains("says that disk may use"));
        let less = table.replace("| `disk` | `machine` | why |\n", "");
        assert!(check_document(&document(&less))[0].contains("no row for disk"));
        let more = format!("{table}| `gravity` | nothing | |\n");
        assert!(check_document(&document(&more))[0].contains("gravity has no row"));
    }
}
