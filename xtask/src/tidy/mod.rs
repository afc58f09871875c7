//! `cargo xtask tidy`: the rules of the house that the compiler does not know.
//!
//! | module | rule |
//! |---|---|
//! | [`arrows`] | which crate may use which, in `cargo metadata`, in code here and in ARCHITECTURE.md alike |
//! | [`circles`] | modules of a crate do not need each other in a circle |
//! | [`words`] | what must not be written, and what to write instead |
//! | [`shape`] | file lengths, and what every package declares |
//!
//! A rule looks at texts that it is given, so that its tests can show it firing. A finding is one line: where, what, and
//! what to do.

mod arrows;
mod circles;
mod shape;
mod words;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A text file of the repository.
struct Source {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

/// Checks all rules, printing every finding.
pub(crate) fn run() -> Result<()> {
    let sources = read_all(&workspace::files()?)?;
    let metadata = workspace::metadata()?;
    let architecture = std::fs::read_to_string(workspace::root().join("ARCHITECTURE.md"));
    let mut findings = Vec::new();
    findings.extend(arrows::check(&metadata)?);
    findings.extend(arrows::check_document(&architecture.context("reading ARCHITECTURE.md")?));
    findings.extend(circles::check(&sources));
    findings.extend(words::check(&sources));
    findings.extend(shape::check_lengths(&sources));
    findings.extend(shape::check_packages(&sources));
    for smell in shape::smells(&sources) {
        println!("    smell: {smell}");
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}

/// Reads the files that are text.
fn read_all(files: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for file in files {
        let bytes =
            std::fs::read(workspace::root().join(file)).with_context(|| format!("reading {}", file.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path: file.to_string_lossy().replace('\\', "/"), text });
        }
    }
    Ok(sources)
}

/// Whether all of the file is for tests only.
fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part.ends_with("tests.rs"))
}

/// The text with line comments and modules for tests left blank, line by line.
fn without_tests(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    // The indentation of the item for tests that we are in.
    let mut inside: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(item) = inside {
            // The formatter closes what an item opened at the item's own indentation.
            if indent == item && line.trim_end().ends_with(['}', ';']) {
                inside = None;
            }
        } else if line.trim() == "#[cfg(test)]" {
            inside = Some(indent);
        } else if !line.trim_start().starts_with("//") {
            code.push_str(line.split(" // ").next().unwrap_or(line));
        }
        code.push('\n');
    }
    code
}

#[cfg(test)]
fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}
