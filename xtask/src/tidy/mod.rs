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
    /// Whether all of it is for tests.
    is_test: bool,
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
    let mut texts = Vec::new();
    for file in files {
        let bytes =
            std::fs::read(workspace::root().join(file)).with_context(|| format!("reading {}", file.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            texts.push((file.to_string_lossy().replace('\\', "/"), text));
        }
    }
    Ok(sources(texts))
}

/// Finds out which files are for tests: those in a folder of tests, and modules that others declare for tests only.
fn sources(texts: Vec<(String, String)>) -> Vec<Source> {
    let mut for_tests = Vec::new();
    for (path, text) in &texts {
        let Some(stem) = path.strip_suffix(".rs") else { continue };
        // Where the modules that this file declares are.
        let folder = match stem.rsplit_once('/') {
            Some((folder, "mod" | "lib" | "main")) => folder,
            _ => stem,
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let module = pair[1].strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
            if let ("#[cfg(test)]", Some((_, name))) = (pair[0], module) {
                for_tests.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]);
            }
        }
    }
    let is_test = |path: &str| {
        path.split('/').any(|part| matches!(part, "tests" | "benches") || part.ends_with("tests.rs"))
            || for_tests.iter().any(|module| path.starts_with(module))
    };
    texts.into_iter().map(|(path, text)| Source { is_test: is_test(&path), path, text }).collect()
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
    let mut sources = sources(vec![(path.into(), text.into())]);
    sources.remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_for_tests_are_known() {
        let texts = [
            ("crates/x/src/virtio/mod.rs", "#[cfg(test)]\nmod driver;\nmod queue;\n"),
            ("crates/x/src/virtio/driver.rs", ""),
            ("crates/x/src/virtio/queue.rs", "    #[cfg(test)]\n    pub(crate) mod hostile;\n"),
            ("crates/x/src/virtio/queue/hostile/deep.rs", ""),
            ("crates/x/tests/whole.rs", ""),
        ];
        let sources = sources(texts.map(|(path, text)| (path.into(), text.into())).into());
        let are_tests: Vec<bool> = sources.iter().map(|source| source.is_test).collect();
        assert_eq!(are_tests, [false, true, false, true, true]);
    }

    #[test]
    fn blank_lines_take_the_place_of_tests_and_comments() {
        let text = "a\n// b\n#[cfg(test)]\nmod tests {\n    c\n}\nd // e\n";
        assert_eq!(without_tests(text), "a\n\n\n\n\n\nd\n");
    }
}
