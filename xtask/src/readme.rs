//! The README's examples: what it shows must work.
//!
//! Every fenced block marked `sh` is run with bash from the root of the repository, with the program built here first on the path and
//! an empty state folder. A block marked `sh check` needs a terminal, a network or minutes, so each of its
//! command lines is only put to the program's own command-line parser; what such commands do is shown by the tests of whole guests.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::run::{Counts, StepFailure};
use crate::{Cli, run, workspace};

/// A fenced block of shell commands.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    /// The line of the README where the block starts, from one.
    line: usize,
    text: String,
    /// Whether it is run, rather than only parsed.
    is_run: bool,
}

/// The shell blocks of a Markdown text.
fn examples(markdown: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut lines = markdown.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        let is_run = match info.split_whitespace().collect::<Vec<_>>()[..] {
            ["sh"] => true,
            ["sh", "check"] => false,
            _ => continue,
        };
        found.push(Example { line: number + 1, text: body.join("\n"), is_run });
    }
    found
}

/// The commands of a block that is only checked: without comments, and with continued lines joined.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.split(" #").next().unwrap_or(line).trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// The program that the examples drive: as the tests built it. Building it alone would build its dependencies once more, with other features.
pub(crate) fn program() -> PathBuf {
    workspace::target().join("debug/isomorph")
}

/// The words that a shell makes of a command line.
fn words(command: &str) -> Result<Vec<String>> {
    let output =
        Command::new("bash").args(["-c", &format!("printf '%s\\0' {command}")]).output().context("running bash")?;
    if !output.status.success() {
        bail!("bash cannot read it: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Puts a command line to the parser of the program that it names.
fn check(command: &str) -> Result<()> {
    let words = words(command)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["cargo", "install", "--path", path] => {
            let manifest = workspace::root().join(path).join("Cargo.toml");
            let text = std::fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
            if !text.contains("[[bin]]") {
                bail!("{path} has no program to install");
            }
            Ok(())
        }
        ["cargo", "xtask", ..] => {
            Cli::try_parse_from(&words[1..]).map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok(())
        }
        ["cargo", "run", "--release", "--", ref arguments @ ..] | ["isomorph", ref arguments @ ..] => {
            // A parser meets what is wrong with the words before `--help` first. What stands behind a program's path is the program's.
            let is_program = |word: &&str| {
                word.starts_with("./")
                    || [".wasm", ".wat", ".jar", ".class", ".java"].iter().any(|end| word.ends_with(end))
            };
            let own = arguments.iter().position(is_program).unwrap_or(arguments.len());
            let (ours, theirs) = arguments.split_at(own);
            let output = Command::new(program()).args(ours).arg("--help").args(theirs).output();
            let output = output.with_context(|| format!("cannot start {}", program().display()))?;
            if !output.status.success() {
                bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(())
        }
        _ => bail!(
            "this is neither `cargo xtask`, `cargo run --release --` nor `isomorph`; mark the block `sh` to run it"
        ),
    }
}

/// Runs or checks all examples of the README, with the program that the tests have built.
pub(crate) fn run() -> Result<Counts, StepFailure> {
    let readme = std::fs::read_to_string(workspace::root().join("README.md")).context("reading README.md")?;
    let examples = examples(&readme);
    if examples.is_empty() {
        return Err(anyhow::anyhow!("README.md has no example marked `sh`").into());
    }
    let mut counts = Counts::default();
    for example in examples {
        let result = if example.is_run {
            run_block(&example.text)
        } else {
            commands(&example.text).iter().try_for_each(|command| check(command).with_context(|| command.clone()))
        };
        if let Err(cause) = result {
            let cause = cause.context(format!("the example at README.md:{}", example.line));
            return Err(StepFailure::new(Counts { failed: 1, ..counts }, cause));
        }
        counts.passed += 1;
    }
    Ok(counts)
}

/// Runs a block with bash.
fn run_block(text: &str) -> Result<()> {
    let folder = program();
    let folder = folder.parent().context("the program is in a folder")?;
    let old_path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&old_path)))?;
    let state = workspace::target().join("readme-state");
    if state.exists() {
        std::fs::remove_dir_all(&state).with_context(|| format!("emptying {}", state.display()))?;
    }
    std::fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", text]).current_dir(workspace::root());
    run::run(command.env("PATH", path).env("ISOMORPH_HOME", &state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_cargo_run_means_the_command() {
        let metadata = workspace::metadata().unwrap();
        let members = metadata["workspace_default_members"].as_array().unwrap();
        let packages =
            metadata["packages"].as_array().unwrap().iter().filter(|package| members.contains(&package["id"]));
        let targets = packages.flat_map(|package| package["targets"].as_array().unwrap());
        let programs: Vec<_> = targets
            .filter(|target| target["kind"] == serde_json::json!(["bin"]))
            .map(|target| &target["name"])
            .collect();
        assert_eq!(programs, ["isomorph"]);
    }

    #[test]
    fn blocks_are_found_by_their_mark() {
        let text = "intro\n```sh\na\nb\n```\n```rust\nfn f() {}\n```\n```sh check\nc\n```\n```\nd\n```\n";
        let expected = [
            Example { line: 2, text: "a\nb".into(), is_run: true },
            Example { line: 9, text: "c".into(), is_run: false },
        ];
        assert_eq!(examples(text), expected);
    }

    #[test]
    fn comments_go_and_continued_lines_join() {
        assert_eq!(commands("# first\na b # why\nc \\\n  d\n\n"), ["a b", "c    d"]);
    }

    #[test]
    fn quotes_are_the_shells() {
        assert_eq!(
            words("isomorph run --append 'root=/dev/vda rw'").unwrap(),
            ["isomorph", "run", "--append", "root=/dev/vda rw"]
        );
    }

    #[test]
    fn a_wrong_command_does_not_pass() {
        assert!(check("cargo xtask test --quick").is_ok());
        assert!(check("cargo xtask test --no-such-flag").is_err());
        assert!(check("cargo xtask no-such-task").is_err());
        assert!(check("rm -rf somewhere").is_err());
        assert!(check("cargo install --path crates/isomorph").is_ok());
        assert!(check("cargo install --path crates/machine").is_err());
    }
}
