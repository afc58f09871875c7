//! The shape of files and packages.

use super::Source;

/// Lines from which a Rust file is an error.
const LINES_MAX: usize = 1_500;
/// Lines from which a Rust file is worth splitting.
const LINES_SMELL: usize = 800;

fn rust_lengths(sources: &[Source]) -> impl Iterator<Item = (&str, usize)> {
    let rust = sources.iter().filter(|source| source.path.ends_with(".rs"));
    rust.map(|source| (source.path.as_str(), source.text.lines().count()))
}

/// Finds files that are too long.
pub(super) fn check_lengths(sources: &[Source]) -> Vec<String> {
    let long = rust_lengths(sources).filter(|(_, lines)| *lines > LINES_MAX);
    long.map(|(path, lines)| format!("{path}: {lines} lines; split it, {LINES_MAX} is the end")).collect()
}

/// Files that will soon be too long: no error.
pub(super) fn smells(sources: &[Source]) -> Vec<String> {
    let long = rust_lengths(sources).filter(|(_, lines)| (LINES_SMELL + 1..=LINES_MAX).contains(lines));
    long.map(|(path, lines)| format!("{path} has {lines} lines; above {LINES_SMELL} a file is worth splitting"))
        .collect()
}

/// Finds packages that do not take lints, licence and edition from the workspace.
pub(super) fn check_packages(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with("/Cargo.toml")) {
        let mut require = |section: &str, line: &str| {
            let mut lines = source.text.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
            let found = lines.by_ref().take_while(|line| !line.starts_with('[')).any(|found| found == line);
            if !found {
                findings.push(format!("{}: lacks `{line}` under {section}", source.path));
            }
        };
        require("[lints]", "workspace = true");
        require("[package]", "license.workspace = true");
        require("[package]", "edition.workspace = true");
    }
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        if !sources.iter().any(|source| source.path == licence) {
            findings.push(format!("{licence}: is missing from the root"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn long_files_are_found() {
        let lines = |count: usize| [source("crates/x/src/a.rs", &"\n".repeat(count))];
        assert_eq!(check_lengths(&lines(1_500)).len(), 0);
        assert_eq!(check_lengths(&lines(1_501)).len(), 1);
        assert_eq!(smells(&lines(800)).len(), 0);
        assert_eq!(smells(&lines(801)).len(), 1);
        assert_eq!(smells(&lines(1_501)).len(), 0);
    }

    #[test]
    fn packages_declare_what_the_workspace_says() {
        let whole = "[package]\nname = \"x\"\nedition.workspace = true\nlicense.workspace = true\n\n[lints]\nworkspace = true\n";
        let licences = || [source("LICENSE-APACHE", ""), source("LICENSE-MIT", "")];
        let findings = |text: &str| {
            let mut sources = Vec::from(licences());
            sources.push(source("crates/x/Cargo.toml", text));
            check_packages(&sources)
        };
        assert_eq!(findings(whole), [""; 0]);
        assert!(findings(&whole.replace("workspace = true\n", ""))[0].contains("[lints]"));
        assert!(findings(&whole.replace("license.workspace", "licence"))[0].contains("license"));
        assert_eq!(check_packages(&[]).len(), 2);
    }
}
