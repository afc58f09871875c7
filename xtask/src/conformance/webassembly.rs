//! Tests of WebAssembly and of WASI.
//!
//! ```text
//! *.wast   a script of the specification: run by an example of the crate wasm, on the engine that programs get
//! *.wasm   a program of WASI's test suite: run by the command; NAME.json beside it says how, and what must come of it
//! ```
//!
//! Of WASI's suite the tests of preview 1 are run: those in folders named wasm32-wasip1. Each that needs a directory gets a copy of it.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Report, Selection};
use crate::{readme, run as runner, workspace};

/// Where the suite has its tests of preview 1.
const PREVIEW_1: &str = "wasm32-wasip1";
/// How often a running test is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Builds what runs the tests.
pub(super) fn build() -> Result<()> {
    runner::run(workspace::cargo().args(["build", "--locked", "--quiet", "--workspace", "--bin", "isomorph"]))?;
    runner::run(workspace::cargo().args(["build", "--locked", "--quiet", "--workspace", "--example", "specification"]))
}

/// Runs what is selected, with what [`build`] has built.
pub(super) fn run(selection: &Selection) -> Result<Report> {
    let time = Duration::from_secs(selection.timeout);
    selection.run("scripts (.wast) or tests of WASI preview 1 (wasm32-wasip1/*.wasm)", |file| {
        match file.extension().and_then(OsStr::to_str) {
            Some("wast") => Some(script(file, time).map_err(|error| format!("{error:#}"))),
            Some("wasm") if file.components().any(|part| part.as_os_str() == PREVIEW_1) => {
                Some(program(file, time).map_err(|error| format!("{error:#}")))
            }
            _ => None,
        }
    })
}

/// A command whose output is kept.
fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a script of the specification.
fn script(file: &Path, time: Duration) -> Result<()> {
    let runner = workspace::target().join("debug/examples/specification");
    let (status, _, errors) = finish(quiet(&runner).arg(file).spawn()?, time)?;
    ensure!(status == Some(0), "{}", errors.trim());
    Ok(())
}

/// A copy of a directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn copy(from: &Path) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("wasi-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = Self(workspace::target().join("tmp").join(name));
        copy(from, &scratch.0).with_context(|| format!("copying {}", from.display()))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in the folder of builds.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Runs a test of WASI's suite.
fn program(file: &Path, time: Duration) -> Result<()> {
    let specification = file.with_extension("json");
    let specification: Value = if specification.exists() {
        serde_json::from_slice(&fs::read(&specification)?).context("its .json is damaged")?
    } else {
        Value::Null
    };
    ensure!(specification["operations"].is_null(), "it is told in operations, which tests of preview 1 are not");
    let mut command = quiet(&readme::program());
    command.arg("run");
    let root = specification["root"].as_str();
    let root = root.map(|root| Scratch::copy(&file.with_file_name(root))).transpose()?;
    if let Some(Scratch(root)) = &root {
        command.arg("--volume").arg(format!("{}:/", root.display()));
    }
    for (name, value) in specification["env"].as_object().into_iter().flatten() {
        command.arg("--env").arg(format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    let arguments = specification["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    command.arg(file).args(arguments);
    let (status, output, errors) = finish(command.spawn()?, time)?;
    let expected = specification["exit_code"].as_i64().unwrap_or(0);
    ensure!(status == Some(expected), "status {status:?} instead of {expected}: {}", errors.trim());
    for (name, found) in [("stdout", output), ("stderr", errors)] {
        if let Some(expected) = specification[name].as_str() {
            ensure!(found == expected, "on {name}: {found:?} instead of {expected:?}");
        }
    }
    Ok(())
}

/// Waits for a test and gives its status and what it wrote.
fn finish(mut child: Child, time: Duration) -> Result<(Option<i64>, String, String)> {
    fn drain(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // A stream that breaks has been read as far as it goes.
            let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let (output, errors) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begin.elapsed() > time {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} s", time.as_secs());
        }
        thread::sleep(POLL);
    };
    let text = |thread: thread::JoinHandle<String>| thread.join().unwrap_or_default();
    Ok((status.code().map(i64::from), text(output), text(errors)))
}
