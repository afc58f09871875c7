//! Maxine's Java Tester Tests: classes with a method `test`, whose comment says what it makes of which arguments.
//!
//! ```text
//! *.java with "@Harness: java" --javac--> classes --Cases.java, a process for each folder--> pass or fail of each class
//! ```
//!
//! Sources that the class library has nothing for (those of Maxine's own classes) do not compile and are left out, as are `.jasm` files where
//! the assembler `jasmin` is not installed. A test that ends or hangs its process fails, and the others of its folder run in a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Machine, Options, Outcomes, expect};
use crate::conformance::{collect, name_below};
use crate::workspace;

/// Calls the tests.
const CASES: &str = include_str!("Cases.java");

/// A class to be tested.
struct Case {
    /// Its file, below the folder of tests.
    name: String,
    /// Its class.
    class: String,
    /// The runs of its comment.
    runs: String,
}

/// Runs the tests of a folder on our machine, and what it does not pass on `java`.
pub(super) fn run(options: &Options, home: &Path, ours: &Path, folder: &Path) -> Result<(Outcomes, Outcomes)> {
    let mut files = Vec::new();
    collect(folder, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
    files.sort();
    let classes = workspace::target().join("tmp/jtt");
    if classes.exists() {
        fs::remove_dir_all(&classes)?;
    }
    fs::create_dir_all(&classes)?;
    let compiled = compile(home, &files, &classes)?;
    let mut folders: BTreeMap<PathBuf, Vec<Case>> = BTreeMap::new();
    for file in &compiled {
        let name = name_below(folder, file);
        if options.selection.filter.as_ref().is_none_or(|text| name.contains(text.as_str()))
            && let Some(case) = read(file, name)?
        {
            folders.entry(file.parent().unwrap_or(folder).to_path_buf()).or_default().push(case);
        }
    }
    if folders.is_empty() {
        bail!("{} has no Java sources with `@Harness: java` and `@Runs:`", folder.display());
    }
    let time = Duration::from_secs(options.selection.timeout);
    let (mut found, mut told) = (Outcomes::new(), Outcomes::new());
    let own = Machine { java: ours.to_path_buf(), options: &options.option };
    let peer = Machine { java: home.join("bin/java"), options: &[] };
    for mut cases in folders.into_values() {
        group(&own, &classes, &cases, time, &mut found)?;
        cases.retain(|case| found.get(&case.name) != Some(&None));
        group(&peer, &classes, &cases, time, &mut told)?;
    }
    Ok((expect(&found, told), found))
}

/// Compiles what can be compiled; gives those files.
fn compile(home: &Path, files: &[PathBuf], classes: &Path) -> Result<Vec<PathBuf>> {
    let driver = classes.join("Cases.java");
    fs::write(&driver, CASES)?;
    let extension = |file: &PathBuf, wanted: &str| file.extension().is_some_and(|found| found == wanted);
    let mut sources: BTreeSet<PathBuf> = files.iter().filter(|file| extension(file, "java")).cloned().collect();
    sources.insert(driver.clone());
    loop {
        let list = classes.join("sources");
        let mut text = String::new();
        for source in &sources {
            writeln!(text, "\"{}\"", source.display())?;
        }
        fs::write(&list, text)?;
        let output = Command::new(home.join("bin/javac"))
            .args(["-nowarn", "-proc:none", "-g", "-Xmaxerrs", "100000", "-d"])
            .arg(classes)
            .arg(format!("@{}", list.display()))
            .output()
            .context("running javac; `cargo xtask setup` installs it")?;
        if output.status.success() {
            break;
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let before = sources.len();
        for line in errors.lines().filter(|line| line.contains(": error: ")) {
            sources.remove(Path::new(line.split(".java:").next().unwrap_or_default()).with_extension("java").as_path());
        }
        if sources.len() == before {
            bail!("javac: {}", errors.trim());
        }
    }
    sources.remove(&driver);
    let assembled: Vec<_> = files.iter().filter(|file| extension(file, "jasm")).cloned().collect();
    if !assembled.is_empty() {
        let jasmin = Command::new("jasmin").arg("-d").arg(classes).args(&assembled).stdout(Stdio::null()).status();
        if jasmin.is_ok_and(|status| status.success()) {
            sources.extend(assembled);
        } else {
            eprintln!("{} .jasm files are left out: there is no jasmin (Debian's jasmin-sable)", assembled.len());
        }
    }
    Ok(sources.into_iter().collect())
}

/// The case of a source, if it is one.
fn read(file: &Path, name: String) -> Result<Option<Case>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !text.contains("@Harness: java") {
        return Ok(None);
    }
    let assembler = file.extension().is_some_and(|extension| extension == "jasm");
    let package = text.lines().find_map(|line| line.strip_prefix("package ")?.trim_end().strip_suffix(';'));
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let class = match package {
        Some(package) => format!("{package}.{stem}"),
        None if assembler => {
            let class = text.lines().find_map(|line| line.strip_prefix(".class ")?.split_whitespace().last());
            class.unwrap_or_default().replace('/', ".")
        }
        None => stem.into_owned(),
    };
    let mut runs = String::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("@Runs:") {
            runs += rest.trim().trim_end_matches("*/").trim_end_matches(';');
            runs.push(';');
        }
    }
    Ok((!runs.is_empty()).then_some(Case { name, class, runs }))
}

/// Runs the cases of a folder in as few processes as it takes.
fn group(machine: &Machine<'_>, classes: &Path, cases: &[Case], time: Duration, outcomes: &mut Outcomes) -> Result<()> {
    let mut rest = cases;
    while !rest.is_empty() {
        let mut input = String::new();
        for case in rest {
            writeln!(input, "{}\t{}", case.class, case.runs)?;
        }
        let path = classes.join("cases");
        fs::write(&path, input)?;
        let mut child = Command::new(&machine.java)
            .args(machine.options)
            .arg("-cp")
            .arg(classes)
            .arg("Cases")
            .stdin(fs::File::open(&path)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("running {}", machine.java.display()))?;
        let (sender, lines) = mpsc::channel();
        let mut output = child.stdout.take().context("its output is a pipe")?;
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 1 << 16];
            // A stream that breaks has been read as far as it goes.
            while let Ok(count @ 1..) = std::io::Read::read(&mut output, &mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut told = Vec::new();
        let mut done = 0;
        let why = loop {
            match lines.recv_timeout(time) {
                Ok(bytes) => told.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break "it ended the virtual machine",
                Err(RecvTimeoutError::Timeout) => break "it did not end in time",
            }
        };
        // It may have ended itself meanwhile.
        let _ = child.kill();
        child.wait()?;
        drop(lines);
        if reader.join().is_err() {
            bail!("reading the output of {} failed", machine.java.display());
        }
        for line in String::from_utf8_lossy(&told).lines() {
            let Some(case) = rest.get(done) else { break };
            let line = line.trim_end();
            if line.strip_prefix("pass ") == Some(&case.class) {
                outcomes.insert(case.name.clone(), None);
                done += 1;
            } else if let Some(why) = line.strip_prefix("fail ").and_then(|line| line.strip_prefix(&case.class)) {
                outcomes.insert(case.name.clone(), Some(why.trim_start_matches([':', ' ']).to_owned()));
                done += 1;
            }
        }
        if let Some(case) = rest.get(done) {
            outcomes.insert(case.name.clone(), Some(why.to_owned()));
            done += 1;
        }
        rest = rest.get(done..).unwrap_or_default();
    }
    Ok(())
}
